"""The noun people write: ``Check``, with one class method per rule and what each rule means."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from retrodict.core.clock import format_time
from retrodict.core.durations import parse_duration
from retrodict.core.expressions import Expression, parse
from retrodict.data.checks.base import column_text, literal_text
from retrodict.data.checks.business import BusinessChecks
from retrodict.data.checks.learning import LearningChecks
from retrodict.data.checks.schema import SchemaChecks
from retrodict.data.checks.statistical import StatisticalChecks

__all__ = ["Check"]

_LARGEST = repr(1.7976931348623157e308)


@dataclass(frozen=True)
class Check(SchemaChecks, StatisticalChecks, BusinessChecks, LearningChecks):
    """A rule on a table's batches, in one of four layers: schema, statistical, business, learning.

    Each has three results: pass, fail, not evaluable. A row fails a check when the rule is false; where the rule is
    unknown because a value is null, the row passes (``not_null`` is the check for nulls). NaN counts as null, as in
    expressions. What failing does is the severity's business:

    ========== ========================================================================================
    critical   failing rows go to quarantine; if their share exceeds ``tolerance``, or if the rule is
               about the whole batch, the batch is written but not published
    high       the same
    medium     failing rows go to quarantine, the rest is published, the report warns
    low        failing rows are published too; the report counts them
    ========== ========================================================================================

    Examples
    --------
    >>> Check.between("arr_delay", -120, 1500).title
    'between(arr_delay, -120, 1500)'
    >>> Check.mean("arr_delay", -5, 30, where="carrier = 'B6'").layer
    'statistical'
    """

    def __post_init__(self) -> None:
        """Check the check, its expression too: a mistake is found where it is written."""
        super().__post_init__()
        _ = self.condition

    @cached_property
    def condition(self) -> Expression | None:
        """What a row must not make false, for rules on single rows whose meaning does not depend on the moment."""
        return None if self.rule == "not_in_future" else self.condition_at(0)

    def condition_at(self, now: int) -> Expression | None:
        """What a row must not make false at a moment (microseconds UTC); None for rules that are not on single rows."""
        text = self._rule_text(now)
        if text is None:
            return None
        if self.where is not None:
            text = f"case when {self.where} then ({text}) end"
        return parse(text, where=f"check {self.title}")

    def _rule_text(self, now: int) -> str | None:
        names = [column_text(name) for name in self.columns]
        match self.rule:
            case "not_null" | "is_null":
                word = self.rule.replace("_", " ").removeprefix("is ")
                return " and ".join(f"{name} is {word}" for name in names)
            case "finite":
                return " and ".join(f"{name} between -{_LARGEST} and {_LARGEST}" for name in names)
            case "between":
                return _within(names[0], self.option("low"), self.option("high"))
            case "length":
                return _within(f"length({names[0]})", self.option("low"), self.option("high"))
            case "in_set" | "not_in_set":
                word = "in" if self.rule == "in_set" else "not in"
                return f"{names[0]} {word} ({', '.join(map(literal_text, self.option('values')))})"
            case "matches":
                return f"matches({names[0]}, {literal_text(self.option('pattern'))})"
            case "time_between":
                sides = ((">=", self.option("earliest")), ("<=", self.option("latest")))
                return " and ".join(f"{names[0]} {sign} timestamp '{time}'" for sign, time in sides if time is not None)
            case "not_in_future":
                latest = format_time(now + parse_duration(self.option("allow")))
                return f"{names[0]} <= timestamp '{latest}'"
            case "known_before":
                return f"{column_text(self.option('column'))} < ({self.option('moment')})"
            case "sql":
                return str(self.option("expression"))
            case "compare":
                return f"{names[0]} {self.option('operator')} {names[1]}"
            case "required_if":
                return f"{column_text(self.option('column'))} is not null or not ({self.option('when')})"
            case "sum_equals":
                return f"abs({' + '.join(names[:-1])} - {names[-1]}) <= {self.option('within')!r}"
        return None


def _within(value: str, low: float | None, high: float | None) -> str:
    if low is None:
        return f"{value} <= {high!r}"
    return f"{value} >= {low!r}" if high is None else f"{value} between {low!r} and {high!r}"
