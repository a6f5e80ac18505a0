"""What a change of decisions is worth: cost by the policy's table, accuracy, precision at the top, all paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodict.core.statistics.intervals import mean_interval
from retrodict.decisions.definitions import Policy
from retrodict.evaluation.metrics import Metric
from retrodict.rollout.statistics.contrast import Allowed, Contrast
from retrodict.rollout.statistics.paired import mcnemar, paired_bootstrap

if TYPE_CHECKING:
    from retrodict.rollout.report import PairArrays

__all__ = ["accuracy_words", "paired_metrics"]

_LEAST = 100
_TOP = 0.1
_RESAMPLES, _MANY = 2_000, 10_000
_ANY = Allowed(at_least=-1.0, at_most=1.0)

Floats = NDArray[np.float64]


def paired_metrics(sides: PairArrays) -> Iterator[Metric]:
    """Challenger minus champion on the requests whose outcome is known; what cannot be computed says why."""
    rows = ~np.isnan(sides.label)
    n = int(rows.sum())
    why_not = f"{n} known outcomes are fewer than the {_LEAST} needed" if n < _LEAST else None
    if sides.policy.costs:
        yield _cost(sides, rows, why_not)
        if sides.target.task == "binary":
            yield _expected_cost(sides)
    if sides.target.task != "binary":
        return
    words = accuracy_words(sides.policy)
    if words is None:
        why_not = why_not or "the policy does not decide on the score alone which outcome it expects"
    if why_not or words is None:
        yield Metric("accuracy_difference", None, why_not, n)
    else:
        yes, no = words
        right_old, right_new = (
            np.where(sides.label[rows] == 1, side[rows] == yes, side[rows] == no) for side in (sides.old, sides.new)
        )
        gains, losses = (int((one & ~other).sum()) for one, other in ((right_new, right_old), (right_old, right_new)))
        test = mcnemar(n, losses, gains, _ANY)
        yield _metric("accuracy_difference", test)
        yield Metric("mcnemar_p", test.p_value, None, n)
    paired = rows & sides.has_scores
    if paired.sum() < _LEAST:
        few = int(paired.sum())
        why_not = f"{few} known outcomes are fewer than the {_LEAST} needed"
        yield Metric("precision_at_10pct_difference", None, why_not, few)
    else:
        yield _precision(sides.label[paired], sides.old_scores[paired], sides.new_scores[paired])


def accuracy_words(policy: Policy) -> tuple[str, str] | None:
    """Decision at a score of 1 and at a score of 0: what the policy expects of a yes and of a no; None if it is one."""

    def decide(score: float) -> str:
        for decision, condition in policy.thresholds.items():
            if condition.to_row()({"score": score}) is True:
                return decision
        return policy.otherwise

    if not policy.decide or any(condition.columns != ("score",) for condition in policy.thresholds.values()):
        return None
    yes, no = decide(1.0), decide(0.0)
    return None if yes == no else (yes, no)


def _cost(sides: PairArrays, rows: NDArray[np.bool_], why_not: str | None) -> Metric:
    """Mean cost of a decision, challenger minus champion; below 0 favours the challenger."""
    name, n = "cost_difference", int(rows.sum())
    names = [str(one) for one in sides.classes] if sides.classes else ["no", "yes"]
    costs = sides.policy.costs
    unknown = sorted({*sides.new[rows].tolist(), *sides.old[rows].tolist()} - {*costs})
    if unknown or any(not set(names) <= set(one) for one in costs.values()):
        return Metric(name, None, f"the table of costs lacks {', '.join(unknown) or ' or '.join(names)}", n)
    if why_not:
        return Metric(name, None, why_not, n)
    words = [names[int(label)] for label in sides.label[rows]]
    old, new = (_costs(costs, side[rows], words) for side in (sides.old, sides.new))
    return _mean(name, new - old)


def _costs(costs: Mapping[str, Mapping[str, float]], decisions: NDArray[np.object_], words: list[str]) -> Floats:
    return np.array([costs[decision][word] for decision, word in zip(decisions, words, strict=True)], dtype=float)


def _expected_cost(sides: PairArrays) -> Metric:
    """Mean cost by the challenger's own scores, over all requests: what can be said before outcomes are known."""
    name, costs, rows = "expected_cost_difference", sides.policy.costs, sides.has_scores
    p = sides.new_scores[rows]
    if not len(p) or not {*sides.new[rows].tolist(), *sides.old[rows].tolist()} <= {*costs}:
        return Metric(name, None, "no request with a score and a cost", len(p))
    sums = []
    for side in (sides.old, sides.new):
        yes, no = (_costs(costs, side[rows], [word] * len(p)) for word in ("yes", "no"))
        sums.append(p * yes + (1 - p) * no)
    return _mean(name, sums[1] - sums[0])


def _mean(name: str, differences: Floats) -> Metric:
    n = len(differences)
    interval = mean_interval(differences) if n > 1 else None
    return Metric.of(name, n, float(differences.mean()), interval)


def _precision(labels: Floats, old: Floats, new: Floats) -> Metric:
    """Share of yes among the tenth with the highest scores, as a capacity of checks would take them."""
    n = len(labels)
    count = max(round(_TOP * n), 1)

    def difference(rows: NDArray[np.intp]) -> float:
        top_old, top_new = (rows[np.argsort(-scores[rows], kind="stable")[:count]] for scores in (old, new))
        return float(labels[top_new].mean() - labels[top_old].mean())

    resamples = _RESAMPLES if n <= _MANY else _RESAMPLES // 10
    return _metric("precision_at_10pct_difference", paired_bootstrap(n, difference, _ANY, seed=0, resamples=resamples))


def _metric(name: str, contrast: Contrast) -> Metric:
    return Metric(name, contrast.value, contrast.reason if contrast.value is None else None, contrast.n_control,
                  contrast.low, contrast.high)  # fmt: skip
