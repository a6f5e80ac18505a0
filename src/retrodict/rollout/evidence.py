"""What the two arms of a rollout have shown so far: for each condition a verdict, valid however often it is asked for.

The observation is a unit's mean, since units and not decisions were assigned: a customer with fifty decisions is one
draw. Both arms are as large and were filled at the same time, so a busy hour or a stale table is in both. Levels are
divided among the conditions by Holm's steps. A verdict over windows of time was rejected: asked for often enough, it
aborts most rollouts of identical versions.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.display import Record
from retrodict.decisions.log import decisions_table, read_decisions
from retrodict.decisions.records import DecisionRecord
from retrodict.decisions.split import CANARY, CONTROL
from retrodict.evaluation.losses import row_losses
from retrodict.evaluation.reference import feature_column
from retrodict.outcomes.status import Outcomes, outcomes
from retrodict.registry import Revision
from retrodict.rollout.definitions import QUALITY, SHARES, Condition, Rollout
from retrodict.rollout.rescore import Challenger, Rescorer
from retrodict.rollout.statistics import (
    Allowed,
    Contrast,
    Sums,
    bound_share,
    check_balance,
    check_outcomes,
    compare_means,
    compare_rates,
)
from retrodict.rollout.statistics.contrast import judge, unknown
from retrodict.workspace import Workspace

__all__ = ["ArmVerdict", "Evidence", "compare_arms", "gather"]

Floats = NDArray[np.float64]

_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
_BATCH = 2_000
_AWAY = ("AttemptsError", "BusyError", "FencedError", "OpenBreakerError", "RetryableError", "ServerAwayError")
"""Errors of stores and servers: no version's. A deadline that passed counts: a model too slow is at fault, and
a store that says nothing has a class of its own. So is a state that is stale: how old it may be says the policy."""
_SELECTIVE = "not evaluable, outcomes are missing from an arm: "
_AWAY_MORE, _AWAY_ALPHA = 0.01, 0.001
"""By how much more of the canary's decisions these errors may be, and the chance of a false alarm over all looks."""
_KNOWN_ZERO = Sums(10**12, 0.0, 0.0)
"""What an arm is compared with that has no other: zero, known for certain."""


@dataclass(frozen=True, slots=True)
class ArmVerdict(Record):
    """One condition on the canary.

    Attributes
    ----------
    condition : str
        As written; ``arms`` for whether both have units enough in this step, and their share of them; ``outcomes``
        for whether outcomes come alike in both; ``stores and servers`` for failures of these, where there are any.
    kind : {"hold", "prove"}
    verdict : {"success", "failure", "inconclusive"}
        Of a condition that must hold: a failure is shown to be broken, a success is not, with units enough. Of one that
        must be proved: a success is shown, and inconclusive whatever is neither shown nor refuted.
    reason : str
    scale : {"ratio", "difference", "absolute"}
    canary, control : float or None
        The metric of either arm.
    low, high : float or None
        Ends of the interval of the ratio, the difference, or the canary's own value.
    units_canary, units_control : int
        Units with a value.
    """

    condition: str
    kind: Literal["hold", "prove"]
    verdict: Literal["success", "failure", "inconclusive"]
    reason: str
    scale: str
    canary: float | None
    control: float | None
    low: float | None
    high: float | None
    units_canary: int
    units_control: int

    @property
    def is_compared(self) -> bool:
        """Whether there is an interval of a difference or a ratio to draw."""
        ends = (self.canary, self.control, self.low, self.high)
        return self.scale != "absolute" and all(end is not None and np.isfinite(end) for end in ends)

    @property
    def drawn(self) -> tuple[str, float, float, float]:
        """Condition, value and ends of its interval, by how far they lie from no effect."""
        assert None not in (self.canary, self.control, self.low, self.high)
        canary, control, low, high = (float(end or 0.0) for end in (self.canary, self.control, self.low, self.high))
        if self.scale == "ratio":
            return self.condition, (canary / control if control else high) - 1, low - 1, high - 1
        return self.condition, canary - control, low, high


@dataclass(frozen=True, slots=True)
class Evidence:
    """Decisions of both arms.

    Attributes
    ----------
    decisions : pyarrow.Table
        Of the canary and its control.
    units : ndarray of int64, shape (n,)
        Number of the unit of each decision.
    canary : ndarray of bool, shape (n,)
    outcomes : Outcomes, optional
        Of the same decisions, where a condition needs them.
    counts_away : bool
        Whether failures of stores and servers count as any other does.
    others : ndarray of object, shape (n,), optional
        What the old version decides of the canary's requests; None of others, and where it cannot be told.
    since : int
        When the step under way began, in microseconds.
    """

    decisions: pa.Table
    units: NDArray[np.int64]
    canary: NDArray[np.bool_]
    outcomes: Outcomes | None = None
    others: NDArray[np.object_] | None = None
    since: int = 0
    counts_away: bool = False

    def judge(self, rollout: Rollout, shares: Mapping[str, float]) -> list[ArmVerdict]:
        """Verdicts over all conditions of a rollout, and over whether both arms have their shares of units.

        Every stretch of the rollout that counts its own decisions (see :func:`gather`) has a part of the level.
        """
        conditions = [(kind, one) for kind, every in rollout.conditions.items() for one in every]
        verdicts: dict[int, ArmVerdict] = {}
        decided: set[int] = set()
        while True:  # Holm: what is decided leaves its part of the level to the others
            level = rollout.alpha / rollout.stretches / max(1, len(conditions) - len(decided))
            for place, (kind, condition) in enumerate(conditions):
                if place not in decided:
                    verdicts[place] = self.verdict_on(condition, kind, level, rollout.min_units)
            newly = {place for place, one in verdicts.items() if _is_decided(one)} - decided
            if not newly:
                break
            decided |= newly
        arrivals = self._arrivals(shares)
        if arrivals and arrivals[0].reason.startswith(_SELECTIVE):
            for place, (kind, condition) in enumerate(conditions):  # an end for nothing costs less than harm
                if condition.metric in QUALITY and (kind, verdicts[place].verdict) != ("hold", "failure"):
                    verdicts[place] = replace(verdicts[place], verdict="inconclusive", reason=arrivals[0].reason)
        of_conditions = [verdicts[place] for place in sorted(verdicts)]
        balance = self._balance(shares, rollout.min_units)
        return [balance, *of_conditions, *arrivals, *self._away_verdict(shares)]

    def _arrivals(self, shares: Mapping[str, float]) -> list[ArmVerdict]:
        """Whether outcomes of units' first decisions come alike in both arms; nothing where no condition reads them."""
        if self.outcomes is None or not all(shares.values()):
            return []
        order = np.argsort(self._column("time"), kind="stable")
        first = order[np.unique(self.units[order], return_index=True)[1]]
        arms = {CANARY: self.canary[first], CONTROL: ~self.canary[first]}
        came, missing = ({arm: int((rows & (self.outcomes.status[first] == status)).sum())
                          for arm, rows in arms.items()} for status in ("known", "void"))  # fmt: skip
        balance = check_outcomes([came], [missing], [dict(shares)])
        selective = _SELECTIVE if balance.verdict == "failure" else ""
        return [ArmVerdict("outcomes", "hold", "success" if balance.verdict == "success" else "inconclusive",
                           f"{selective}{balance.reason}", "ratio", None, None, None, None, came[CANARY],
                           came[CONTROL])]  # fmt: skip

    def _away_verdict(self, shares: Mapping[str, float]) -> list[ArmVerdict]:
        """Whether what no condition counts is shown to be more of the canary's decisions than of its control's.

        Both arms ask the same servers at the same time, so an outage is in both. With nothing beside the canary it may
        be one: then nothing is shown.
        """
        away = self.away.astype(np.float64)
        if not away.any():
            return []
        control, canary = (self._sums(away, arm) for arm in (False, True))
        allowed, reason = Allowed(at_most=_AWAY_MORE), f"{self.away_counts(self.canary)} of the canary, "
        verdict: Literal["success", "failure", "inconclusive"]
        if all(shares.values()):
            one = compare_means(control, canary, allowed, alpha=_AWAY_ALPHA)
            verdict = "failure" if one.verdict == "failure" else "success"
            reason += f"{self.away_counts(~self.canary)} of the control"
        else:
            one = bound_share(canary, allowed, alpha=_AWAY_ALPHA)
            verdict = "inconclusive" if one.verdict == "failure" else "success"
            reason += "and no control to say whether it is an outage"
        means = canary.mean if canary.n else None, control.mean if control.n else None
        return [ArmVerdict("stores and servers", "hold", verdict, f"{reason}: {one.reason}", "difference", *means,
                           one.low, one.high, canary.n, control.n)]  # fmt: skip

    def away_counts(self, rows: NDArray[np.bool_]) -> str:
        """Failures of stores and servers by class, and of how many decisions: ``AttemptsError 421 of 744``."""
        errors = Counter(self._column("record__error")[rows & self.away].tolist())
        return f"{', '.join(f'{name} {count:,}' for name, count in errors.most_common()) or 'none'} of {rows.sum():,}"

    def _balance(self, shares: Mapping[str, float], least: int) -> ArmVerdict:
        of_step = np.asarray(self._column("time")) >= self.since
        counts, recent = ({arm: int(np.unique(self.units[part & (self.canary == (arm == CANARY))]).size)
                           for arm in (CANARY, CONTROL)} for part in (np.ones_like(of_step), of_step))  # fmt: skip
        sizes = (None, None, None, None, counts[CANARY], counts[CONTROL])
        verdict: Literal["success", "failure", "inconclusive"] = "success"
        reason = "there is one arm"
        if all(shares.values()):
            balance = check_balance(counts, dict(shares))
            verdict, reason = balance.verdict, balance.reason
        missing = least - min(recent[arm] for arm, share in shares.items() if share)
        if verdict != "failure" and missing > 0:
            verdict = "inconclusive"
            reason = f"not evaluable: {least} units of this step are needed in each arm, {missing:,} are missing"
        return ArmVerdict("arms", "hold", verdict, reason, "ratio", *sizes)

    @property
    def away(self) -> NDArray[np.bool_]:
        """Decisions of a fallback since a store or server was away: no value of any condition."""
        if self.counts_away:
            return np.zeros(self.decisions.num_rows, dtype=bool)
        kinds = pc.is_in(self.decisions.column("record__error").cast(pa.string()), pa.array(_AWAY))
        return np.asarray(kinds.to_numpy(zero_copy_only=False), dtype=bool)

    def verdict_on(self, condition: Condition, kind: str, alpha: float, min_units: int) -> ArmVerdict:
        """Verdict on one condition at a level; for each group by the one that decides it.

        The k-th group that appears has the part ``1 / (k (k + 1))`` of the level: all parts together are at most one,
        however many groups there will be. What failed since a store or server was away is left out, and counted.
        """
        verdict, away = self._over_groups(condition, kind, alpha, min_units), int(self.away.sum())
        reason = f"{verdict.reason}; {away:,} failures of stores or servers left out"
        return replace(verdict, reason=reason) if away else verdict

    def _over_groups(self, condition: Condition, kind: str, alpha: float, min_units: int) -> ArmVerdict:
        values, why_not = self._values(condition)
        values = np.where(self.away, np.nan, values)
        over_all = self._verdict_on(condition, kind, values, why_not, alpha, min_units)
        if not condition.group:
            return over_all
        names = self._named(condition.group)
        encoded = None if names is None else pa.array(names, from_pandas=True).dictionary_encode()
        if encoded is None or (encoded.null_count == len(encoded) and kind == "prove"):
            reason = f"no decision has a value of {condition.group}"
            return replace(over_all, verdict="inconclusive", reason=reason, low=None, high=None)
        # Those without a value are a group of their own: an answer of a fallback, which may have read no feature.
        codes, verdicts = np.asarray(encoded.indices.fill_null(-1)), []
        members = codes if kind == "hold" else codes[codes >= 0]
        for place, code in enumerate(dict.fromkeys(members.tolist()), start=1):
            name = "without a value" if code < 0 else str(encoded.dictionary[code])[:100]
            part = np.where(codes == code, values, np.nan)
            one = self._verdict_on(condition, kind, part, why_not, alpha / (place * (place + 1)), min_units)
            verdicts.append(replace(one, reason=f"{condition.group} {name}: {one.reason}"))
        broken = [one for one in verdicts if one.verdict == "failure"]
        if kind == "hold" and not broken:
            if over_all.verdict == "inconclusive":  # of too few units in all
                return over_all
            return replace(over_all, verdict="success", reason="no group is shown to be broken")
        decisive = broken or [one for one in verdicts if one.verdict == "inconclusive"] or verdicts
        first, more = decisive[0], len(decisive) - 1
        return replace(first, reason=f"{first.reason}; and {more} more groups") if more else first

    def _verdict_on(
        self, condition: Condition, kind: str, values: Floats, why_not: str | None, alpha: float, min_units: int
    ) -> ArmVerdict:
        """Verdict on the decisions that have a value."""
        if condition.timed:
            contrast, means = self._compare_times(condition, alpha)
        elif condition.metric == "dp_ratio":
            contrast, means = self._compare_groups(condition, values, alpha, min_units)
        else:
            control, canary = (self._sums(values, arm) for arm in (False, True))
            contrast = _compare(condition, control, canary, alpha, min_units)
            means = canary.mean if canary.n else None, control.mean if control.n else None
        units = self._count(True, values), self._count(False, values)
        verdict, reason = contrast.verdict, why_not or contrast.reason
        counted = units[:1] if condition.scale == "absolute" else units
        if condition.metric == "dp_ratio" and contrast.value is None:  # nothing was compared, so nothing held
            verdict = "inconclusive"
        elif kind == "hold" and verdict != "failure":
            enough = min(counted) >= min_units
            verdict = "success" if enough else "inconclusive"
            reason = f"not shown to be broken: {reason}" if enough else _too_few(counted, min_units)
        elif min(counted) < min_units and not (kind == "hold" and condition.metric in SHARES):
            verdict, reason = "inconclusive", why_not or _too_few(counted, min_units)
        return ArmVerdict(condition.text, kind, verdict, reason, condition.scale, *means,  # type: ignore[arg-type]
                          contrast.low, contrast.high, *units)  # fmt: skip

    def _count(self, canary: bool, values: Floats) -> int:
        rows = (self.canary == canary) & ~np.isnan(values)
        return int(np.unique(self.units[rows]).size)

    def _sums(self, values: Floats, canary: bool) -> Sums:
        """Sums over the means of units."""
        rows = (self.canary == canary) & ~np.isnan(values)
        _, numbers = np.unique(self.units[rows], return_inverse=True)
        if not numbers.size:
            return Sums(0, 0.0, 0.0)
        means = np.bincount(numbers, values[rows]) / np.bincount(numbers)
        return Sums.of(means)

    def _column(self, name: str) -> NDArray[Any]:
        return np.asarray(self.decisions.column(name).to_numpy(zero_copy_only=False))

    def _named(self, name: str) -> NDArray[Any] | None:
        """Values of an entity, a context value or a feature; None if no decision has it."""
        columns = (f"entity__{name}", f"context__{name}", feature_column(name))
        column = next((one for one in columns if one in self.decisions.column_names), None)
        return None if column is None else self._column(column)

    def _values(self, condition: Condition) -> tuple[Floats, str | None]:
        """Value of each decision; NaN where it has none, and why if none has one."""
        size, nothing = self.decisions.num_rows, np.full(self.decisions.num_rows, np.nan)
        metric = condition.metric
        if metric == "error_rate":
            return (~self.decisions.column("fallback").is_null().to_numpy()).astype(np.float64), None
        if metric in _QUANTILES:
            return self._column("record__micros") / 1_000, None
        if metric in ("rate", "dp_ratio"):
            return (self._column("decision").astype(str) == condition.of[-1]).astype(np.float64), None
        if metric == "disagreement":  # a fallback's answer is compared with nothing
            if self.others is None or not size:
                return nothing, "nothing was asked of the old version"
            answered = np.asarray([one is not None for one in self.others])
            answered &= self.decisions.column("fallback").is_null().to_numpy()
            unlike = self._column("decision").astype(str) != self.others.astype(str)
            return np.where(answered, unlike.astype(np.float64), np.nan), None
        if metric == "mean_score":
            return self._column("score").astype(np.float64), None
        if self.outcomes is None or not size:
            return nothing, "no outcome is known"
        rows, outputs = self.outcomes, self.outcomes.outputs()
        with_outcome = rows.countable & ~np.isnan(outputs if outputs.ndim == 1 else outputs[:, 0])
        if not with_outcome.any():
            return nothing, "no outcome is known"
        labels, outputs = rows.label[with_outcome], outputs[with_outcome]
        if metric == "brier":
            losses = (outputs - labels) ** 2 if rows.target.task == "binary" else None
        else:
            losses = row_losses(labels, outputs, rows.target)
        if losses is None:
            return nothing, f"a model of the task {rows.target.task} has no Brier score; write 'loss'"
        nothing[with_outcome] = losses
        return nothing, None

    def _compare_times(self, condition: Condition, alpha: float) -> tuple[Contrast, tuple[float | None, float | None]]:
        """Shares of decisions beyond the limit: a quantile is larger when more than its share lies beyond."""
        times, quantile = self._column("record__micros") / 1_000, _QUANTILES[condition.metric]
        canary, control = times[self.canary & ~self.away], times[~self.canary & ~self.away]
        means = tuple(float(np.quantile(arm, quantile)) if arm.size else None for arm in (canary, control))
        if means[0] is None or means[1] is None:
            return compare_means(_KNOWN_ZERO, Sums(0, 0.0, 0.0), Allowed(at_most=1.0)), (means[0], means[1])
        limit = condition.high if condition.high is not None else np.inf
        if condition.scale == "absolute":
            beyond = Sums.rate(canary.size, int((canary > limit).sum()))
            return compare_means(_KNOWN_ZERO, beyond, Allowed(at_most=1 - quantile), alpha=alpha), (means[0], None)
        bound = means[1] * limit if condition.scale == "ratio" else means[1] + limit
        slow = Sums.rate(canary.size, int((canary > bound).sum()))
        usual = Sums.rate(control.size, int((control > means[1]).sum()))
        return compare_rates(usual, slow, Allowed(at_most=1.0), alpha=alpha), (means[0], means[1])

    def _compare_groups(
        self, condition: Condition, values: Floats, alpha: float, min_units: int
    ) -> tuple[Contrast, tuple[float | None, None]]:
        """Least over largest share of a decision among the canary's groups, by an interval of each group."""
        groups, name = self._named(condition.of[0]), condition.of[0]
        names = (
            set() if groups is None else set(pa.array(groups[self.canary], from_pandas=True).drop_null().to_pylist())
        )

        def none(reason: str) -> tuple[Contrast, tuple[float | None, None]]:
            return unknown(reason, "interval of each group", "ratio", (0, 0), 1 - alpha), (None, None)

        if len(names) < 2:
            return none(f"{name} must have two groups to compare, and has {len(names)}")
        ends, shares = [], []
        for group in names:
            sums = self._sums(np.where(groups == group, values, np.nan), canary=True)
            one = compare_means(_KNOWN_ZERO, sums, Allowed(at_least=0.0), alpha=alpha / len(names), min_n=min_units)
            if one.low is None or one.high is None:
                return none(f"of a group of {name}: {one.reason}")
            ends.append((max(one.low, 0.0), min(one.high, 1.0)))
            shares.append(sums.mean)
        if not max(shares):
            return none(f"no group of {name} has any {condition.of[-1]}")
        lows, highs = zip(*ends, strict=True)
        low, high = min(lows) / max(highs), min(1.0, min(highs) / max(lows)) if max(lows) else 1.0
        value, limit = min(shares) / max(shares), condition.low or 0.0
        verdict: Any = "success" if low >= limit else "failure" if high < limit else "inconclusive"
        word = {"success": "is shown to be", "failure": "is shown not to be", "inconclusive": "may or may not be"}
        reason = f"the least over the largest share of {len(names)} groups is {value:.4g} ({low:.4g} to {high:.4g}), "
        reason += f"which {word[verdict]} at least {limit:g}"
        n = int(self.canary.sum())
        return Contrast(verdict, reason, "interval of each group", "ratio", 0, n, value, low, high), (value, None)


def _compare(condition: Condition, control: Sums, canary: Sums, alpha: float, min_units: int) -> Contrast:
    low, high = condition.low, condition.high
    allowed = Allowed(-np.inf if low is None else low, np.inf if high is None else high)
    if condition.scale == "absolute" and condition.metric in SHARES:
        return bound_share(canary, allowed, alpha=alpha)
    if condition.scale == "absolute":
        return compare_means(_KNOWN_ZERO, canary, allowed, alpha=alpha, min_n=min_units)
    if condition.scale == "ratio" and condition.metric == "error_rate":
        hit = [Sums.rate(one.n, min(one.n, round(one.total))) if one.total == one.squares else None
               for one in (control, canary)]  # fmt: skip
        if hit[0] is not None and hit[1] is not None:
            return compare_rates(hit[0], hit[1], allowed, alpha=alpha, min_n=min_units)
    if condition.scale != "ratio":
        return compare_means(control, canary, allowed, alpha=alpha, min_n=min_units)
    if condition.metric not in SHARES:
        return compare_means(control, canary, allowed, scale="ratio", alpha=alpha, min_n=min_units)
    # Units of which some decisions fail: means have no ratio while the control has none, so either may show it.
    one = compare_means(control, canary, allowed, scale="ratio", alpha=alpha / 2, min_n=min_units)
    if one.verdict != "inconclusive" or min(control.n, canary.n) < min_units:
        return one
    last, new = (bound_share(arm, Allowed(at_most=1.0), alpha=alpha / allowed.sides / 4) for arm in (control, canary))
    low, high = (new.low or 0.0) / (last.high or 1.0), (new.high or 1.0) / last.low if last.low else np.inf
    ratio = canary.mean / control.mean if control.total else np.inf
    return judge(replace(new, scale="ratio", n_control=control.n, value=ratio, low=low, high=high), allowed)


def _is_decided(one: ArmVerdict) -> bool:
    return one.verdict == "failure" or (one.kind == "prove" and one.verdict == "success")


def _too_few(units: Sequence[int], least: int) -> str:
    return f"{min(units)} units with a value are fewer than the {least} needed"


def gather(
    workspace: Workspace, revision: Revision, rollout: Rollout, now: int, answers: dict[str, str | None] | None = None
) -> Evidence:
    """Decisions of both arms for as long as both had the same share of units.

    While the canary has at most half of the units, so has its control, and all decisions since the start count; from
    then on those since the step began. ``answers`` keeps what the old version made of a decision's request, by the
    decision's id, for the next look.
    """
    policy, split = revision.deployment.policy, revision.deployment.split
    assert split is not None
    start = split["started"] if split["share"] <= 0.5 else split["since"]
    metrics = {one.metric for every in rollout.conditions.values() for one in every}

    def in_arms(table: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        arms = np.asarray(table.column("record__arm").to_numpy(zero_copy_only=False)).astype(str)
        return np.isin(arms, (CANARY, CONTROL)) & (table.column("revision").to_numpy() > split["from"]), arms == CANARY

    data = compare_arms(workspace, policy, in_arms, (start, now), split["unit"], outcomes_count=bool(metrics & QUALITY))
    rows, canary = data.decisions, data.canary
    others = None
    if "disagreement" in metrics:
        answers = {} if answers is None else answers
        ids = rows.column("id").to_pylist()
        canary_ids = {name for name, is_canary in zip(ids, canary, strict=True) if is_canary}
        _ask_champion(workspace, revision, canary_ids - answers.keys(), start, now, answers)
        others = np.array([answers.get(name) for name in ids], dtype=object)
    return replace(data, others=others, since=split["since"])


def compare_arms(
    workspace: Workspace,
    policy: str,
    arms: Callable[[pa.Table], tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    span: tuple[int, int],
    unit: Sequence[str],
    *,
    outcomes_count: bool,
) -> Evidence:
    """Logged decisions of a span of time in two arms.

    ``arms`` says of a table of decisions which of them are in either arm, and which are in the canary. Without a
    ``unit`` each decision is one.
    """
    start, end = span
    matured = outcomes(workspace, policy, now=end, start=start) if outcomes_count else None
    table = decisions_table(workspace, policy, start=start, end=end) if matured is None else matured.decisions
    mask, canary = arms(table)
    rows = table.filter(pa.array(mask))
    columns = [_values_of(rows, name) for name in unit]
    units = _number_units(columns) if columns and rows.num_rows else np.arange(rows.num_rows, dtype=np.int64)
    return Evidence(rows, units, canary[mask], None if matured is None else matured.select(mask))


def _ask_champion(
    workspace: Workspace, revision: Revision, ids: set[str], start: int, now: int, answers: dict[str, str | None]
) -> None:
    """Put into ``answers`` what the old version makes of these decisions' requests; None where that cannot be told."""
    if not ids:
        return
    deployed = revision.deployment
    rescorer = Rescorer(workspace, Challenger("champion", policy=deployed.policy, **deployed.target))
    batch: list[DecisionRecord] = []
    logged = read_decisions(workspace, policy=deployed.policy, start=start, end=now)
    for one in itertools.chain((one.record for one in logged), [None]):
        if one is not None and one.id in ids:
            batch.append(one)
        if batch and (one is None or len(batch) == _BATCH):
            for record, again in zip(batch, rescorer.rescore(batch), strict=True):
                answers[record.id] = again.decision if again.error is None else None
            batch = []


def _values_of(table: pa.Table, name: str) -> NDArray[Any]:
    column = next((c for c in (f"entity__{name}", f"context__{name}") if c in table.column_names), None)
    return np.zeros(table.num_rows) if column is None else np.asarray(table.column(column).to_numpy(
        zero_copy_only=False)).astype(str)  # fmt: skip


def _number_units(columns: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    numbers = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        codes = np.unique(column, return_inverse=True)[1]
        numbers = np.unique(numbers * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    return numbers
