"""What a challenger would change, and whether for the better: the report of a shadow and of a replayed window.

Agreement needs no outcomes; quality does, and only what is known of them by a time counts. Everything is paired: both
sides answered the same requests. Where the champion's decision hides outcomes, the report says so instead of a verdict
on what nobody has seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, number, when
from retrodict.core.statistics.drift import psi
from retrodict.core.tasks import Target
from retrodict.decisions.definitions import Policy
from retrodict.evaluation.compare import Comparison, OutputComparison, compare_outputs, compare_scores
from retrodict.evaluation.fairness import measure_fairness
from retrodict.evaluation.metrics import Metric, share
from retrodict.models.artifact import ModelArtifact
from retrodict.outcomes.status import Outcomes, outcomes
from retrodict.rollout.pairs import outputs_of
from retrodict.rollout.rescore import Challenger
from retrodict.rollout.value import paired_metrics
from retrodict.workspace import Workspace

__all__ = ["ChallengerReport", "GroupChange", "PairArrays", "report_pairs"]

_EXAMPLES = 10
_BINS = 10
_GROUPS = 30  # of a column, for rates
_LEAST = 100  # rows of a comparison, as everywhere
_HIDDEN = 0.5  # of the largest share of outcomes that are known of a decision

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """One group of a column: how it would fare under the challenger.

    Attributes
    ----------
    column, group : str
    decisions, labelled : int
    agreement : float
    shift : float or None
        Mean score of the challenger minus the champion's.
    verdict : str
        ``better``, ``worse`` (it degrades) or ``inconclusive``, at 95 % over all groups together (Bonferroni).
    reason : str
    """

    column: str
    group: str
    decisions: int
    labelled: int
    agreement: float
    shift: float | None
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class ChallengerReport(Shown):
    """A challenger beside what decided, on the same requests.

    Attributes
    ----------
    policy : str
    challenger : Challenger
    champions : dict of str to int
        Versions that decided, and how many of the requests.
    start, end : int or None
        First and last moment of the requests; None where there is none.
    now : int
        As of when outcomes are known.
    decisions, compared : int
        Requests, and those on which both decided by a score or a rule.
    set_aside : dict of str to int
        The others, by reason: errors of the challenger by their name, requests that a fallback answered.
    read_again : int
        Requests for which features were not all in the log.
    reproduced : dict of str to int
        ``checked`` and ``mismatches``: logged answers that were computed again, bit for bit; nothing was where a shadow
        looked on.
    agreement : Metric
        Share of the compared requests that both decide alike.
    changes : dict of str to int
        ``"ok -> warn"``, largest first.
    examples : list of dict
        Some of them, those with the largest change of score first.
    scores : tuple of Metric
        ``score_psi`` (of the two sides' scores, on deciles of the champion's), ``score_correlation`` (Pearson),
        ``score_distance`` (mean absolute difference).
    latency_us : dict of str to float
        Median and 99th percentile of both sides; of the champion all stages, of the challenger features that had to be
        read, score and rules, in batches.
    outcomes : dict of str to int
        Compared requests by what is known of their outcome.
    quality : Comparison, OutputComparison or None
        On known outcomes: difference of area (DeLong) and Brier's score, or of the mean loss of the task. None where
        the two predict different things.
    paired : tuple of Metric
        Challenger minus champion on known outcomes: cost by the policy's table, accuracy (McNemar), precision in the
        highest tenth; each with its interval.
    groups : tuple of GroupChange
    fairness : list of dict
        Rates of the first decision by group, of both sides.
    warnings : list of str
    """

    policy: str
    challenger: Challenger
    champions: Mapping[str, int]
    start: int | None
    end: int | None
    now: int
    decisions: int
    compared: int
    set_aside: Mapping[str, int]
    read_again: int
    reproduced: Mapping[str, int]
    agreement: Metric
    changes: Mapping[str, int]
    examples: list[dict[str, Any]]
    scores: tuple[Metric, ...]
    latency_us: Mapping[str, float]
    outcomes: Mapping[str, int]
    quality: Comparison | OutputComparison | None
    paired: tuple[Metric, ...] = ()
    groups: tuple[GroupChange, ...] = ()
    fairness: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``inconclusive``: of the challenger, on known outcomes."""
        return "inconclusive" if self.quality is None else self.quality.verdict

    @property
    def recommendation(self) -> str:
        """``promote``, ``discard``, or ``extend``: more outcomes are needed."""
        return {"better": "promote", "worse": "discard"}.get(self.verdict, "extend")

    @property
    def reason(self) -> str:
        """In words."""
        return "outputs of these tasks are not compared" if self.quality is None else self.quality.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        times = {name: None if at is None else format_time(at) for name, at in
                 (("start", self.start), ("end", self.end), ("now", self.now))}  # fmt: skip
        return {**Shown.to_dict(self), **times, "verdict": self.verdict, "reason": self.reason,
                "recommendation": self.recommendation}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Verdict, what would change, quality, groups, warnings."""
        span = None if self.start is None else f"{when(self.start)} to {when(self.end)}"
        facts = {"policy": self.policy, "decided by": list(self.champions), "requests": self.decisions,
                 "compared": self.compared, "from": span, "features read again": self.read_again or None,
                 **{f"outcomes {name}": n for name, n in self.outcomes.items() if n}}  # fmt: skip
        if self.reproduced.get("checked"):
            checked, wrong = self.reproduced["checked"], self.reproduced["mismatches"]
            facts["originals reproduced"] = f"{checked - wrong:,} of {checked:,}"
        metrics = [*self.scores, *self.differences()]
        examples = [(one["decision"], one["from"], one["to"], number(one["score"]), number(one["replayed"]))
                    for one in self.examples]  # fmt: skip
        groups = [(one.column, one.group, one.decisions, f"{one.agreement:.1%}", number(one.shift), one.verdict)
                  for one in self.groups]  # fmt: skip
        return [
            f"{self.challenger.name}: {self.verdict}, {self.recommendation}. {self.reason}",
            *(f"warning: {text}" for text in self.warnings),
            Facts(facts),
            Grid(("challenger beside champion", "value>", "95 % interval", ""), [_line(m) for m in
                 (self.agreement, *metrics)]),
            Grid(("would change", "requests>"), self.changes.items()) if self.changes else None,
            Grid(("for instance", "from", "to", "score>", "challenger's>"), examples) if examples else None,
            Grid(("column", "group", "requests>", "agreement>", "score shift>", "verdict"), groups) if groups else None,
            Grid(("side", "column", "group", "requests>", "first decision>"), [
                (one["side"], one["column"], one["group"], one["n"], f"{one['selection_rate']:.1%}")
                for one in self.fairness]) if self.fairness else None,
            Grid(("microseconds", "value>"), self.latency_us.items()) if self.latency_us else None,
            Grid(("not compared", "requests>"), self.set_aside.items()) if self.set_aside else None,
        ]  # fmt: skip

    def differences(self) -> list[Metric]:
        """Differences on known outcomes, challenger minus champion."""
        if isinstance(self.quality, Comparison):
            return [self.quality.auc_difference, self.quality.brier_difference, *self.paired]
        return [*([] if self.quality is None else [self.quality.difference]), *self.paired]


def _line(metric: Metric) -> tuple[str, str, str, str]:
    span = "" if metric.low is None else f"{number(metric.low)} to {number(metric.high)}"
    return metric.name.replace("_", " "), number(metric.value), span, metric.reason or ""


def report_pairs(
    workspace: Workspace,
    policy: Policy,
    challenger: Challenger,
    pairs: pa.Table,
    *,
    now: int,
    examples: int = _EXAMPLES,
) -> ChallengerReport:
    """Report of a table of pairs.

    Parameters
    ----------
    workspace : Workspace
    policy : Policy
        The champion's; its cost table counts.
    challenger : Challenger
    pairs : pyarrow.Table
        See :data:`~retrodict.rollout.pairs.PAIRS`; columns ``by__…`` make the groups.
    now : int
        As of when outcomes are known, microseconds since 1970-01-01 UTC.
    examples : int
        Changed decisions that are listed, at most.
    """
    sides = PairArrays(workspace, policy, challenger, pairs, now)
    groups = _groups(sides)
    fairness, metrics = _fairness(sides)
    times = pairs.column("time").to_numpy()
    return ChallengerReport(
        policy=policy.name,
        challenger=challenger,
        champions=dict(Counter(name or "fallback" for name in pairs.column("model").to_pylist()).most_common()),
        start=int(times.min()) if len(times) else None,
        end=int(times.max()) if len(times) else None,
        now=now,
        decisions=pairs.num_rows,
        compared=sides.size,
        set_aside=sides.set_aside,
        read_again=pairs.column("replayed__features").to_pylist().count("read again"),
        reproduced=_reproduced(pairs),
        agreement=share("agreement", int(sides.match.sum()), sides.size, "no request was compared"),
        changes=_changes(sides),
        examples=_examples(sides, examples),
        scores=_scores(sides),
        latency_us=_latency(sides),
        outcomes={name: int((sides.status == name).sum()) for name in ("known", "pending", "void")},
        quality=_quality(sides),
        paired=(*paired_metrics(sides), *metrics),
        groups=groups,
        fairness=fairness,
        warnings=_warnings(sides),
    )


class PairArrays:
    """Compared requests as aligned arrays: what both decided and scored, and what is known of the outcome."""

    def __init__(self, workspace: Workspace, policy: Policy, challenger: Challenger, pairs: pa.Table, now: int) -> None:
        errors, fallbacks = pairs.column("replayed__error").to_pylist(), pairs.column("fallback").to_pylist()
        reasons = [error or ("a fallback answered" if fallback else None)
                   for error, fallback in zip(errors, fallbacks, strict=True)]  # fmt: skip
        self.set_aside = dict(Counter(reason for reason in reasons if reason is not None).most_common())
        self.pairs = pairs = pairs.filter(pa.array([reason is None for reason in reasons], pa.bool_()))
        self.size, self.policy = pairs.num_rows, policy
        self.target: Target = ModelArtifact.target_of(workspace.objects, challenger.artifact)
        self.old = np.array(pairs.column("decision").to_pylist(), dtype=object)
        self.new = np.array(pairs.column("replayed__decision").to_pylist(), dtype=object)
        self.match = self.old == self.new
        result = self._outcomes(workspace, now)
        self.same_target = result.target == self.target and self.target.task != "ranking"
        names = self.target.outputs
        self.old_scores, self.new_scores = (outputs_of(pairs, names, replayed=side) for side in (False, True))
        self.classes = result.target.classes
        at = {name: place for place, name in enumerate(result.decisions.column("id").to_pylist())}
        places = np.array([at.get(name, -1) for name in pairs.column("id").to_pylist()], dtype=np.int64)
        has = places >= 0
        self.status = np.where(has, result.status[places] if len(result) else "pending", "pending")
        self.label = np.where(has & (self.status == "known"), result.label[places] if len(result) else np.nan, np.nan)

    def _outcomes(self, workspace: Workspace, now: int) -> Outcomes:
        times = self.pairs.column("time").to_numpy()
        span = {"start": int(times.min()), "end": int(times.max()) + 1} if len(times) else {"start": now, "end": now}
        return outcomes(workspace, self.policy.name, now=now, **span)

    @property
    def has_scores(self) -> Flags:
        """Where both sides scored."""
        return ~(_absent(self.old_scores) | _absent(self.new_scores))

    @property
    def score(self) -> tuple[Floats, Floats]:
        """First output of both sides where both have one."""
        rows = self.has_scores
        return tuple(s[rows] if s.ndim == 1 else s[rows, 0] for s in (self.old_scores, self.new_scores))  # type: ignore[return-value]  # two of them


def _absent(outputs: Floats) -> Flags:
    return np.isnan(outputs if outputs.ndim == 1 else outputs[:, 0])


def _reproduced(pairs: pa.Table) -> dict[str, int]:
    verdicts = [one for one in pairs.column("reproduced").to_pylist() if one is not None]
    return {"checked": len(verdicts), "mismatches": verdicts.count(False)}


def _changes(sides: PairArrays) -> dict[str, int]:
    flips = ~sides.match
    pairs = Counter(f"{a} -> {b}" for a, b in zip(sides.old[flips], sides.new[flips], strict=True))
    return dict(sorted(pairs.items(), key=lambda item: (-item[1], item[0])))


def _examples(sides: PairArrays, limit: int) -> list[dict[str, Any]]:
    places = np.flatnonzero(~sides.match)
    old, new = (s if s.ndim == 1 else s[:, 0] for s in (sides.old_scores, sides.new_scores))
    change = np.nan_to_num(np.abs(new[places] - old[places]))
    ids = sides.pairs.column("id").to_pylist()
    return [
        {"decision": f"decision:{ids[at]}", "from": sides.old[at], "to": sides.new[at], "score": _plain(old[at]),
         "replayed": _plain(new[at]), "label": _plain(sides.label[at])}
        for at in places[np.argsort(-change, kind="stable")[:limit]].tolist()
    ]  # fmt: skip


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _scores(sides: PairArrays) -> tuple[Metric, ...]:
    old, new = sides.score
    n = len(old)
    names = ("score_psi", "score_correlation", "score_distance")
    if n < _LEAST:
        why_not = f"{n} requests that both scored are fewer than the {_LEAST} needed"
        return tuple(Metric(name, None, why_not, n) for name in names)
    edges = np.unique(np.quantile(old, np.linspace(0, 1, _BINS + 1)[1:-1]))
    before, after = (np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(edges) + 1)
                     for side in (old, new))  # fmt: skip
    constant = min(old.std(), new.std()) == 0
    correlation = None if constant else float(np.corrcoef(old, new)[0, 1])
    return (
        Metric("score_psi", psi(before, after), None, n),
        Metric("score_correlation", correlation, "a side gives one score only" if constant else None, n),
        Metric("score_distance", float(np.abs(old - new).mean()), None, n),
    )


def _latency(sides: PairArrays) -> dict[str, float]:
    if not sides.size:
        return {}
    columns = {"champion": "micros", "challenger": "replayed__micros"}
    levels = {"median": 0.5, "p99": 0.99}
    return {f"{side} {name}": round(float(np.quantile(sides.pairs.column(column).to_numpy(), level)), 1)
            for side, column in columns.items() for name, level in levels.items()}  # fmt: skip


def _quality(
    sides: PairArrays, rows: Flags | None = None, confidence: float = 0.95
) -> Comparison | OutputComparison | None:
    """Paired comparison on known outcomes, of some of the requests."""
    if not sides.same_target:
        return None
    rows = sides.has_scores if rows is None else sides.has_scores & rows
    old, new, labels = sides.old_scores[rows], sides.new_scores[rows], sides.label[rows]
    if sides.target.task == "binary":
        return compare_scores(champion=old, challenger=new, labels=labels, min_rows=_LEAST, confidence=confidence)
    return compare_outputs(champion=old, challenger=new, labels=labels, target=sides.target, min_rows=_LEAST,
                           confidence=confidence)  # fmt: skip


def _groups(sides: PairArrays) -> tuple[GroupChange, ...]:
    columns = [name for name in sides.pairs.column_names if name.startswith("by__")]
    parts = [(name.removeprefix("by__"), group, np.array([value == group for value in values], dtype=bool))
             for name in columns for values in [sides.pairs.column(name).to_pylist()]
             for group in dict.fromkeys(values) if group is not None]  # fmt: skip
    confidence = 1 - 0.05 / max(len(parts), 1)
    old, new = (s if s.ndim == 1 else s[:, 0] for s in (sides.old_scores, sides.new_scores))
    changes = []
    for column, group, rows in parts:
        quality, scored = _quality(sides, rows, confidence), rows & sides.has_scores
        changes.append(GroupChange(
            column, group, int(rows.sum()), int((rows & (sides.status == "known")).sum()),
            float(sides.match[rows].mean()), float((new - old)[scored].mean()) if scored.any() else None,
            "inconclusive" if quality is None else quality.verdict,
            "outputs of these tasks are not compared" if quality is None else quality.reason,
        ))  # fmt: skip
    rank = {"worse": 0, "better": 1}
    return tuple(sorted(changes, key=lambda one: (rank.get(one.verdict, 2), one.agreement, -one.decisions)))


def _fairness(sides: PairArrays) -> tuple[list[dict[str, Any]], list[Metric]]:
    """Rates of the policy's first decision by group; and by how much the lowest over the highest rate changes."""
    first, rates, changes = next(iter(sides.policy.decide), ""), list[dict[str, Any]](), []
    for name in (column for column in sides.pairs.column_names if column.startswith("by__")):
        column, groups = name.removeprefix("by__"), sides.pairs.column(name).to_pylist()
        if len(set(groups)) > _GROUPS:
            continue
        ratios = []
        for side, decisions in (("champion", sides.old), ("challenger", sides.new)):
            fairness = measure_fairness(sides.label, (decisions == first).astype(float), groups, column=column,
                                        threshold=0.5)  # fmt: skip
            rates += [{"side": side, "column": column, **one.to_dict()} for one in fairness.groups]
            ratios.append(fairness.metrics[0])
        label, (old, new) = f"dp_ratio_difference({column})", ratios
        difference = None if old.value is None or new.value is None else new.value - old.value
        changes.append(Metric(label, difference, old.reason or new.reason, old.n))
    return rates, changes


def _warnings(sides: PairArrays) -> list[str]:
    """What keeps a verdict from being one: hidden outcomes, samples, answers that did not come out again."""
    texts = []
    matured = sides.status != "pending"
    shares = {
        decision: float((sides.status[rows & matured] == "known").mean())
        for decision in dict.fromkeys(sides.old.tolist())
        if (rows := sides.old == decision)[matured].any()
    }
    hidden = [name for name, part in shares.items() if part < _HIDDEN * max(shares.values())]
    for name in hidden:
        unseen = int(((sides.old == name) & ~sides.match).sum())
        texts.append(f"outcomes of {name!r} are known of {shares[name]:.0%} only: the champion's decision hides them "
                     f"(selective labels), and {unseen:,} decisions that would change are among these")  # fmt: skip
    if mismatches := _reproduced(sides.pairs)["mismatches"]:
        texts.append(f"{mismatches:,} logged answers did not come out again: see 'reproduced' in the table")
    if (np.asarray(sides.pairs.column("share")) < 1).any():
        texts.append("the policy records a sample: shares are of what is recorded")
    if not sides.same_target:
        texts.append("only decisions are compared: outputs of these tasks are not, row by row")
    texts += [f"no request has {name.removeprefix('by__')!r}: nothing is grouped by it"
              for name in sides.pairs.column_names
              if name.startswith("by__") and 0 < sides.size == sides.pairs.column(name).null_count]  # fmt: skip
    return texts
