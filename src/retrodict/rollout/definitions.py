"""What a definitions module says about bringing in a new version: steps, how long each lasts, and what must hold.

Conditions are a language of three sentences and no expression: each sentence has a direction, a scale and a meaning of
"too little is known", which a comparison of two numbers has not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal

from retrodict.core.definition import Definition
from retrodict.core.durations import check_lengths, parse_duration
from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import parse
from retrodict.core.names import NameUse
from retrodict.decisions.definitions import Policy
from retrodict.features.plan import FeatureSet

__all__ = [
    "EVENTS",
    "METRICS",
    "QUALITY",
    "SHARES",
    "Condition",
    "Guard",
    "Rollout",
    "names_used",
    "read_condition",
    "read_trigger",
]

METRICS = {
    "error_rate": "share of decisions that a fallback answered",
    "p50_ms": "median milliseconds of a decision's stages, without its record",
    "p95_ms": "95 % quantile of the same",
    "p99_ms": "99 % quantile of the same",
    "rate": "share of the decisions that are the one in brackets: rate(warn)",
    "mean_score": "mean score",
    "brier": "mean squared error of the score, where the outcome is known",
    "log_loss": "mean log loss of the score, where the outcome is known",
    "loss": "mean loss of a model of another task, where the outcome is known",
    "dp_ratio": "least over largest share of a decision over groups: dp_ratio(sex: approve)",
    "disagreement": "share of the new version's requests that the old one, asked the same, decides otherwise",
}
"""What a condition may be about."""

SHARES = {"error_rate", "rate", "disagreement"}
"""Metrics from 0 to 1 of every unit: a limit of their own is judged exactly, from the first unit on."""

QUALITY = {"brier", "log_loss", "loss"}
"""Metrics of which nothing is known before outcomes are."""

EVENTS = {
    "approval revoked": "the approval of the version that decides was taken back",
    "drift": "a monitor of the policy has fired on psi since the version decides",
    "data quality": "a batch of a table of its features was halted since the version decides",
}
"""What a guard may act on beside conditions."""

_LOWER = {"error_rate", "p50_ms", "p95_ms", "p99_ms", "brier", "log_loss", "loss"}
_TOP = dict.fromkeys({*SHARES, "dp_ratio", "brier"}, 1.0)
_TIMED = ("p50_ms", "p95_ms", "p99_ms")
_ARGUED = {"rate": 1, "dp_ratio": 2}
_NUMBER = r"\d+(?:\.\d+)?"
_METRIC = r"(?P<metric>[a-z]\w*)(?:\((?P<of>[^()]+)\))?"
_EACH = r"(?: for each (?P<group>[a-z]\w*))?"
_SENTENCES = (
    re.compile(rf"{_METRIC} (?P<op><=|>=) champion(?: (?P<sign>[*+-]) (?P<change>{_NUMBER}))?{_EACH}"),
    re.compile(rf"{_METRIC} (?P<op><=|>=) (?P<limit>{_NUMBER}){_EACH}"),
    re.compile(rf"{_METRIC} not worse by (?P<margin>{_NUMBER}){_EACH}"),
    re.compile(rf"{_METRIC} within (?P<span>{_NUMBER}){_EACH}"),
)
_TRIGGER = re.compile(r"(.+?) ([<>]) (.+)")
_MOST_UNITS = 1_000_000
_WAIT = re.compile(r"(?:wait (\S+) then )?(pause|rollback)")


@dataclass(frozen=True, slots=True)
class Condition:
    """One sentence, read.

    Attributes
    ----------
    text : str
    metric : str
        One of ``METRICS``.
    of : tuple of str
        What stands in brackets: a decision; or a column and a decision.
    scale : {"ratio", "difference", "absolute"}
        What is compared: canary over champion, canary less champion, or the canary by itself.
    low, high : float or None
        Between which it must lie; None: no limit on this side.
    group : str
        Entity, context value or feature for whose every group it must hold; empty: over all.
    """

    text: str
    metric: str
    of: tuple[str, ...]
    scale: Literal["ratio", "difference", "absolute"]
    low: float | None
    high: float | None
    group: str = ""

    @property
    def timed(self) -> bool:
        """Whether it is about how long decisions take."""
        return self.metric in _TIMED


def read_condition(text: str, *, where: str, trigger: str | None = None) -> Condition:
    """Read ``error_rate <= champion * 1.1``, ``rate(warn) <= 0.3``, ``brier not worse by 0.005`` or ``… within 0.02``.

    Any of them may end in ``for each carrier``.

    Parameters
    ----------
    text : str
    where : str
        For the error.
    trigger : str, optional
        What a guard acts on, whose opposite ``text`` is.

    Raises
    ------
    DefinitionError
        If it is none of these, or of a metric that there is not, or that has no better side; or of the better side
        alone, or whatever is measured, true or untrue.
    """
    condition = _read_condition(text, where)
    written = text if trigger is None else trigger
    if (condition.metric in _LOWER and condition.high is None) or (
        condition.metric == "dp_ratio" and not condition.low
    ):
        word = "more" if condition.metric == "dp_ratio" else "less"
        sign = ("<=" if word == "less" else ">=") if trigger is None else (">" if word == "less" else "<")
        raise DefinitionError(f"a condition must be about harm: {word} is better of {condition.metric}", where=where,
                              got=written, remedy=f"Write it with {sign} and a limit above 0")  # fmt: skip
    bottom, top = 0.0 if condition.metric != "mean_score" else -math.inf, _TOP.get(condition.metric, math.inf)
    if condition.scale == "difference":
        bottom, top = bottom - top, top - bottom
    elif condition.scale == "ratio":
        top = math.inf
    low = -math.inf if condition.low is None else condition.low
    high = math.inf if condition.high is None else condition.high
    if (low <= bottom and high >= top) or low > top or high < bottom:
        raise DefinitionError("a condition must be one that may be broken or not", where=where, got=written,
                              remedy=f"What is compared lies from {bottom:g} to {top:g}: write a limit between"
                              )  # fmt: skip
    return condition


def _read_condition(text: str, where: str) -> Condition:
    match = next((one for sentence in _SENTENCES if (one := sentence.fullmatch(str(text)))), None)
    if match is None:
        raise DefinitionError(
            "a condition must be 'METRIC <= champion * 1.1', 'METRIC <= 0.3', 'METRIC not worse by 0.01' or 'METRIC "
            "within 0.02'", where=where, got=text, remedy=f"Metrics are {', '.join(METRICS)}",
        )  # fmt: skip
    parts = match.groupdict()
    metric = check_known(parts["metric"], METRICS, "a condition must be about a metric that is measured", where=where,
                         what="metric", error=DefinitionError)  # fmt: skip
    of = tuple(part.strip() for part in (parts["of"] or "").split(":") if part.strip())
    if len(of) != _ARGUED.get(metric, 0):
        example = {"rate": "rate(warn)", "dp_ratio": "dp_ratio(sex: approve)"}.get(metric, metric)
        raise DefinitionError("a metric must have in brackets what it is of, and nothing else", where=where, got=text,
                              remedy=f"Write {example}")  # fmt: skip
    group = parts["group"] or ""
    if group and (metric in _TIMED or metric == "dp_ratio"):
        raise DefinitionError("'for each' must be of a metric that is a mean", where=where, got=text,
                              remedy="Leave it out")  # fmt: skip
    if metric == "disagreement" and ("limit" not in parts or parts["op"] != "<="):
        raise DefinitionError("a disagreement must have a limit of its own: it is with the champion already",
                              where=where, got=text, remedy="Write 'disagreement <= 0.1'")  # fmt: skip
    if metric in {*SHARES, "dp_ratio"} and float(parts.get("limit") or 0) > 1:
        raise DefinitionError("a limit of a share must be from 0 to 1", where=where, got=text,
                              remedy="Write 0.02 for 2 %")  # fmt: skip
    if "margin" in parts:
        if metric not in _LOWER:
            raise DefinitionError("'not worse by' must be of a metric with a better side", where=where, got=text,
                                  remedy=f"Write '{text.partition(' ')[0]} within {parts['margin']}'")  # fmt: skip
        return Condition(text, metric, of, "difference", None, float(parts["margin"]), group)
    if "span" in parts:
        span = float(parts["span"])
        return Condition(text, metric, of, "difference", -span, span, group)
    if "limit" in parts:
        low, high = _sides(parts["op"], float(parts["limit"]))
        return Condition(text, metric, of, "absolute", low, high, group)
    change = float(parts["change"] or (1 if parts["sign"] in (None, "*") else 0))
    if parts["sign"] in ("+", "-"):
        low, high = _sides(parts["op"], change if parts["sign"] == "+" else -change)
        return Condition(text, metric, of, "difference", low, high, group)
    low, high = _sides(parts["op"], change)
    return Condition(text, metric, of, "ratio", low, high, group)


def read_trigger(text: str, *, where: str) -> Condition:
    """Read what a guard acts on, ``error_rate > 0.01`` or ``p99_ms > baseline * 2``, as the condition that must hold.

    Raises
    ------
    DefinitionError
        As :func:`read_condition`; or if it asks for another version to compare with.
    """
    match = _TRIGGER.fullmatch(str(text))
    if match is None or "champion" in text or text.startswith("disagreement"):
        raise DefinitionError("a guard must act on 'METRIC > 0.01', 'METRIC > baseline * 2' or an event", where=where,
                              got=text, remedy=f"Events are {', '.join(EVENTS)}; metrics {', '.join(METRICS)}"
                              )  # fmt: skip
    metric, sign, limit = match.groups()
    opposite = f"{metric} {'<=' if sign == '>' else '>='} {limit.replace('baseline', 'champion', 1)}"
    return replace(read_condition(opposite, where=where, trigger=text), text=text)


def _sides(operator: str, limit: float) -> tuple[float | None, float | None]:
    return (None, limit) if operator == "<=" else (limit, None)


@dataclass(frozen=True)
class Rollout(Definition):
    """How a new version comes to decide: step by step, each judged against as many units of the old one.

    Parameters
    ----------
    name : str
    policy : Policy
        What it is for.
    steps : list of float, default 5, 10, 25, 50, 100
        Percent of the units that the new version decides, rising; the last one is 100, when it becomes the champion.
    bake : duration, default "1h"
        How long each step lasts at least.
    unit : str or list of str
        Entity or context values that name who gets one version and keeps it, as ``"customer"``.
    where : str, optional
        Expression over the request: the first step takes only units for which it is true.
    hold : list of str, optional
        What may not be broken at any time: ``"error_rate <= champion * 1.1"``. As soon as the data show that it is, the
        rollout fails; a few errors by chance do not. ``"disagreement <= 0.3 for each carrier"`` needs no outcome: what
        the old version makes of the same requests is worked out again, so a version that is wrong about one group is
        seen after a few of its units.
    prove : list of str, optional
        What the data must show before the next step: ``"brier not worse by 0.005"``, ``"rate(warn) within 0.02"``,
        ``"dp_ratio(sex: approve) >= 0.8"``.
    inconclusive : str, default "wait 24h then pause"
        What comes of a step whose time is over while something is not shown.
    on_fail : {"rollback", "pause"}
        What comes of a condition that is broken.
    min_units : int, default 100
        With fewer units in one of the two arms nothing is shown; with fewer of the step's own, it is not left.
    alpha : float, default 0.05
        Chance that any of the conditions is called broken, or shown, in the whole rollout though it is not; however
        often it is looked at.

    Examples
    --------
    >>> Rollout("careful", steps=[5, 100], unit="customer").steps
    (5.0, 100.0)
    """

    kind: ClassVar[str] = "rollout"

    policy: Policy | None = None
    steps: tuple[float, ...] | list[float] = (5, 10, 25, 50, 100)
    bake: str = "1h"
    unit: str | tuple[str, ...] | list[str] = ()
    where: str | None = None
    hold: tuple[str, ...] | list[str] = ("error_rate <= champion * 1.1", "p99_ms <= champion * 1.2")
    prove: tuple[str, ...] | list[str] = ()
    inconclusive: str = "wait 24h then pause"
    on_fail: str = "rollback"
    min_units: int = 100
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Check every field by itself."""
        super().__post_init__()
        where = f"rollout {self.name}"
        _check_policy(self.policy, where)
        object.__setattr__(self, "steps", _steps(self.steps, where))
        unit = (self.unit,) if isinstance(self.unit, str) else tuple(self.unit)
        object.__setattr__(self, "unit", unit)
        if not unit:
            raise DefinitionError("a rollout must name the unit that keeps its version", where=where, got=self.unit,
                                  remedy="Write unit='customer', an entity or context value of requests")  # fmt: skip
        for field in ("hold", "prove"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
            for text in getattr(self, field):
                read_condition(text, where=f"{where}, {field}")
        timed = [text for text in self.prove if read_condition(text, where=where).timed]
        if timed:
            raise DefinitionError("how long decisions take must be held, not proved", where=f"{where}, prove",
                                  got=timed, remedy="Write it in hold=[...]")  # fmt: skip
        parse_duration(self.bake, where=f"{where}, bake")
        if self.where is not None:
            parse(self.where, where=f"{where}, where")
        if not _WAIT.fullmatch(str(self.inconclusive)):
            raise DefinitionError("inconclusive must be 'pause', 'rollback' or 'wait 24h then pause'", where=where,
                                  got=self.inconclusive, remedy="Write one of these")  # fmt: skip
        _ = self.patience
        check_known(self.on_fail, ("rollback", "pause"), "on_fail must be 'rollback' or 'pause'", where=where,
                    what="word", error=DefinitionError)  # fmt: skip
        if not 0 < self.alpha <= 0.2 or self.min_units < 1:
            raise DefinitionError("alpha must lie between 0 and 0.2, and min_units be at least 1", where=where,
                                  got=(self.alpha, self.min_units), remedy="Leave them out")  # fmt: skip

    def check(self) -> None:
        """Refuse what ends before it begins, judges nothing, or asks for more units than there will be."""
        if not (self.hold or self.prove):
            raise DefinitionError("a rollout must judge something", where=f"rollout {self.name}", got="no condition",
                                  remedy="Write hold=[...] or prove=[...], or use deploy, which asks for nothing"
                                  )  # fmt: skip
        wait = _WAIT.fullmatch(self.inconclusive)
        _check_reach({"bake": self.bake, "inconclusive": wait and wait[1]}, self.min_units, f"rollout {self.name}")

    @property
    def patience(self) -> tuple[int, str]:
        """Microseconds after the bake for which more is waited for, and what comes then: pause or rollback."""
        match = _WAIT.fullmatch(self.inconclusive)
        assert match is not None
        wait = 0 if match[1] is None else parse_duration(match[1], where=f"rollout {self.name}, inconclusive")
        return wait, match[2]

    @property
    def conditions(self) -> dict[str, list[Condition]]:
        """Conditions to hold and to prove."""
        where = f"rollout {self.name}"
        return {field: [read_condition(text, where=where) for text in getattr(self, field)]
                for field in ("hold", "prove")}  # fmt: skip

    @property
    def stretches(self) -> int:
        """How many sets of decisions are judged: one of all steps up to half of the units, then one of each step."""
        return max(1, (self.steps[0] <= 50) + sum(50 < step < 100 for step in self.steps))

    def uses(self) -> Iterator[NameUse]:
        """Parts of the unit, decisions and groups that its policy must have."""
        if self.policy is not None:
            conditions = [*self.conditions["hold"], *self.conditions["prove"]]
            yield from names_used(self.policy, conditions, self.unit, f"rollout {self.name}", self.where)


def names_used(policy: Policy, conditions: Sequence[Condition], unit: Sequence[str], where: str,
               cohort: str | None = None) -> Iterator[NameUse]:  # fmt: skip
    """Parts of a unit and values of a cohort, decisions and groups of conditions that a policy must have."""
    features = FeatureSet(policy.model.features)
    names = [*features.request_keys, *features.request_columns]
    for name in unit:
        yield NameUse("request value", name, "a unit must be a value that requests bring", f"{where}, unit",
                      names=names)  # fmt: skip
    for name in () if cohort is None else parse(cohort).columns:
        yield NameUse("request value", name, "a condition of who takes part must read values that requests bring",
                      f"{where}, where", names=names)  # fmt: skip
    values = [*names, *features.columns]
    for condition in conditions:
        place = f"{where}, {condition.text!r}"
        if condition.of:
            yield NameUse("decision", condition.of[-1], "a condition must be of a decision of the policy", place,
                          names=list(policy.decide))  # fmt: skip
        for name in {condition.group, *condition.of[:-1]} - {""}:
            yield NameUse("request value or feature", name, "groups must be of a value that records have", place,
                          names=values)  # fmt: skip


@dataclass(frozen=True)
class Guard(Definition):
    """What is done about a version in force when the data show that something is wrong with it.

    Parameters
    ----------
    name : str
    policy : Policy
        Whose decisions are looked at.
    when : list of str
        Any of them is enough. Conditions as in ``Rollout.hold``, written as what must not be: ``"error_rate > 0.01"``,
        ``"p99_ms > baseline * 2"``, ``"rate(warn) > baseline + 0.1 for each carrier"``. Events: ``"drift"``, ``"data
        quality"``, ``"approval revoked"``. On too little data, or immature outcomes, nothing is done.
    then : {"rollback", "halt", "shadow", "gradual", "alert"}
        Go back at once; let nothing score; go back and let what decided look on as a shadow; go back by ``steps``; or
        only say so.
    otherwise : {"alert", "halt"}, default "alert"
        What is done where there is nothing to go back to.
    window : duration, default "24h"
        Decisions are judged by windows of this length since the version came in force, and each begins anew; conditions
        on outcomes by all decisions since then.
    baseline : duration, default "7d"
        Decisions of this long before the version came in force are what it is compared with; of a first version those
        of this long since then, and nothing compared is judged before.
    unit : str or list of str, optional
        Values of requests that name whose decisions belong together. By default each is judged by itself.
    steps, bake
        Of ``gradual``: percent of the units that have what decided before, and how long each step lasts.
    min_units : int, default 100
        With fewer nothing is shown, except of a share that has a limit of its own.
    alpha : float, default 0.001
        Chance that it acts in a window though all is as it must be, however often it is looked at.

    Examples
    --------
    >>> Guard("errors", when=["error_rate > 0.01"], then="rollback").conditions[0].high
    0.01
    """

    kind: ClassVar[str] = "guard"

    policy: Policy | None = None
    when: tuple[str, ...] | list[str] = ()
    then: str = "alert"
    otherwise: str = "alert"
    window: str = "24h"
    baseline: str = "7d"
    unit: str | tuple[str, ...] | list[str] = ()
    steps: tuple[float, ...] | list[float] = (25, 50, 100)
    bake: str = "1h"
    min_units: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        """Check every field by itself."""
        super().__post_init__()
        where = f"guard {self.name}"
        _check_policy(self.policy, where)
        object.__setattr__(self, "when", tuple(self.when))
        object.__setattr__(self, "unit", (self.unit,) if isinstance(self.unit, str) else tuple(self.unit))
        if not self.when or (self.then == "gradual" and not self.unit):
            raise DefinitionError("a guard must name what it acts on, and one that goes back by steps a unit",
                                  where=where, got=(self.when, self.unit), remedy="Write when=[...] and unit='customer'"
                                  )  # fmt: skip
        _ = self.conditions
        for field, words in (
            ("then", ("rollback", "halt", "shadow", "gradual", "alert")),
            ("otherwise", ("alert", "halt")),
        ):
            check_known(getattr(self, field), words, f"{field} must be one of these", where=where, what="word",
                        error=DefinitionError)  # fmt: skip
        for field in ("window", "baseline"):
            parse_duration(getattr(self, field), where=f"{where}, {field}")
        _ = self.unit and self.way_back
        if not 0 < self.alpha <= 0.2 or self.min_units < 1:
            raise DefinitionError("alpha must lie between 0 and 0.2, and min_units be at least 1", where=where,
                                  got=(self.alpha, self.min_units), remedy="Leave them out")  # fmt: skip

    @property
    def conditions(self) -> list[Condition]:
        """What must hold: the opposite of what it acts on, without the events."""
        return [read_trigger(text, where=f"guard {self.name}, when") for text in self.when if text not in EVENTS]

    @property
    def way_back(self) -> Rollout:
        """Steps of ``gradual``."""
        return Rollout(self.name, steps=self.steps, bake=self.bake, unit=self.unit, hold=(), min_units=self.min_units)

    def check(self) -> None:
        """Refuse a guard of nothing, of no time, or of more decisions than there will be."""
        if self.policy is None:
            raise DefinitionError("a guard must be for a policy", where=f"guard {self.name}", got=None,
                                  remedy="Write policy=, or pass the Policy as second argument")  # fmt: skip
        spans = {field: getattr(self, field) for field in ("window", "baseline", "bake")}
        _check_reach(spans, self.min_units, f"guard {self.name}")

    def uses(self) -> Iterator[NameUse]:
        """Parts of the unit, decisions and groups that its policy must have."""
        return iter(()) if self.policy is None else names_used(self.policy, self.conditions, self.unit,
                                                               f"guard {self.name}")  # fmt: skip

    @classmethod
    def defaults(cls, policy: Policy, *, business: str | None = None, unit: str | tuple[str, ...] = ()) -> list[Guard]:
        """Guards to begin with, for the definitions module; write others in the place of those that do not fit.

        Parameters
        ----------
        policy : Policy
        business : str, optional
            Share that must not fall by a tenth, as ``"rate(approve)"``. None: no such guard.
        unit : str or list of str, optional
            For a way back by steps where quality has fallen by a twentieth. None: that is an alert.
        """
        _check_policy(policy, "Guard.defaults")
        target = policy.model.known_target
        loss = "brier" if target is None or target.task == "binary" else "loss"
        rows: list[tuple[str, list[str], str, str]] = [
            ("errors", ["error_rate > 0.01"], "rollback", "alert"),
            ("latency", ["p99_ms > baseline * 2"], "alert", "alert"),
            ("quality", [f"{loss} > baseline * 1.05"], "gradual" if unit else "alert", "alert"),
            ("inputs", ["drift", "data quality"], "shadow", "alert"),
            ("security", ["approval revoked"], "rollback", "halt"),
            *([] if business is None else [("business", [f"{business} < baseline * 0.9"], "rollback", "alert")]),
        ]
        return [cls(f"{policy.name}_{name}", policy, when, then, otherwise, unit=unit if then == "gradual" else ())
                for name, when, then, otherwise in rows]  # fmt: skip


def _check_policy(policy: object, where: str) -> None:
    if not (policy is None or isinstance(policy, Policy)):
        got = policy if isinstance(policy, str) else type(policy).__name__
        raise DefinitionError("the policy must be a Policy, the object and not its name", where=where, got=got,
                              remedy="Pass a Policy as second argument")  # fmt: skip


def _check_reach(spans: Mapping[str, str | None], min_units: object, where: str) -> None:
    check_lengths(spans, where=where)
    if not isinstance(min_units, int) or isinstance(min_units, bool) or min_units > _MOST_UNITS:
        raise DefinitionError(f"min_units must be a whole number up to {_MOST_UNITS:,}", where=where, got=min_units,
                              remedy="Leave it out")  # fmt: skip


def _steps(steps: Sequence[float], where: str) -> tuple[float, ...]:
    try:
        values = () if any(isinstance(step, bool) for step in steps) else tuple(float(step) for step in steps)
    except (TypeError, ValueError):
        values = ()
    rising = all(a < b for a, b in pairwise(values))
    if not values or not rising or values[-1] != 100 or values[0] < 0.01:
        raise DefinitionError("steps must rise from at least 0.01 percent to 100", where=f"{where}, steps", got=steps,
                              remedy="Write steps=[5, 25, 50, 100]")  # fmt: skip
    return values
