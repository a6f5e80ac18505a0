"""Layer 2, statistical: a number of the batch lies within bounds, or near the same number of earlier versions.

A batch that was not published never enters what later batches are compared with, and a number that cannot be computed
(the mean of nothing) makes the check not evaluable, never passed.
"""

from __future__ import annotations

import math
from typing import Literal, Self, Unpack

from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import DefinitionError
from retrodict.data.checks.base import CheckBase, How, check_bounds, number_from, one_of

__all__ = ["STABLE_MEASURES", "StatisticalChecks"]

STABLE_MEASURES = (
    "row_count", "null_rate", "distinct_count", "distinct_share", "mean", "median", "std", "min", "max", "sum",
    "entropy", "correlation",
)  # fmt: skip
Bound = float | None


class StatisticalChecks(CheckBase):
    """Class methods of layer 2; each takes the lowest and the highest allowed number, None leaves a side open."""

    @classmethod
    def _measured(cls, rule: str, columns: tuple[str, ...], low: Bound, high: Bound, how: How, **more: object) -> Self:
        check_bounds(low, high, f"check {rule}")
        return cls.make(rule, columns, how, low=low, high=high, **more)

    @classmethod
    def row_count(cls, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Rows of the batch."""
        return cls._measured("row_count", (), low, high, how)

    @classmethod
    def null_rate(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Share of the rows in which the column is null, 0 to 1."""
        return cls._measured("null_rate", (column,), low, high, how)

    @classmethod
    def distinct_count(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Different values, nulls not counted."""
        return cls._measured("distinct_count", (column,), low, high, how)

    @classmethod
    def distinct_share(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Different values by values, 0 to 1, nulls not counted."""
        return cls._measured("distinct_share", (column,), low, high, how)

    @classmethod
    def mean(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Arithmetic mean."""
        return cls._measured("mean", (column,), low, high, how)

    @classmethod
    def median(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Median, the mean of the two middle values where there are two."""
        return cls._measured("median", (column,), low, high, how)

    @classmethod
    def std(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Sample standard deviation."""
        return cls._measured("std", (column,), low, high, how)

    @classmethod
    def min(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Smallest value."""
        return cls._measured("min", (column,), low, high, how)

    @classmethod
    def max(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Largest value."""
        return cls._measured("max", (column,), low, high, how)

    @classmethod
    def sum(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Sum of the values."""
        return cls._measured("sum", (column,), low, high, how)

    @classmethod
    def quantile(cls, column: str, q: float, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Value below which a share ``q`` of the values lies, 0 to 1, interpolated linearly."""
        level = number_from(q, 0.0, 1.0, "a quantile must be a share from 0 to 1", "check quantile")
        return cls._measured("quantile", (column,), low, high, how, q=level)

    @classmethod
    def entropy(cls, column: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Entropy of the values in nats."""
        return cls._measured("entropy", (column,), low, high, how)

    @classmethod
    def correlation(cls, x: str, y: str, low: Bound = None, high: Bound = None, **how: Unpack[How]) -> Self:
        """Pearson's correlation of two columns, -1 to 1."""
        return cls._measured("correlation", (x, y), low, high, how)

    @classmethod
    def freshness(cls, column: str, max_age: str, **how: Unpack[How]) -> Self:
        """The newest time of the column is at most this much older than the moment of the check."""
        return cls.make("freshness", (column,), how, max_age=format_duration(parse_duration(max_age)))

    @classmethod
    def stable(
        cls,
        measure: str,
        *columns: str,
        within: float | None = None,
        deviations: float | None = None,
        against: Literal["previous", "history"] = "previous",
        **how: Unpack[How],
    ) -> Self:
        """A measure of layer 2 stays near what it was.

        Parameters
        ----------
        measure : str
            For instance ``"mean"``; see ``STABLE_MEASURES``.
        *columns : str
            Its columns.
        within : float, default 0.1
            With ``against="previous"``: largest change as a share of the value of the previous published version.
        deviations : float, default 4
            With ``against="history"``: largest distance from the median of the last 20 published versions, in
            deviations (1.4826 times the median absolute deviation, at least 1 % of the median). Fewer than five
            versions: not evaluable.
        against : {"previous", "history"}
        **how
        """
        where = "check stable"
        one_of(measure, STABLE_MEASURES, "measure", where)
        needed = {"row_count": 0, "correlation": 2}.get(measure, 1)
        if len(columns) != needed:
            raise DefinitionError(f"{measure} must have {needed} columns", where=where, got=columns, remedy="Name them")
        one_of(against, ("previous", "history"), "reference", where)
        limits = {"within": within, "deviations": deviations}
        name, other = ("within", "deviations") if against == "previous" else ("deviations", "within")
        if limits[other] is not None:
            raise DefinitionError(
                f"{other} must not be set with against={against!r}",
                where=where,
                got=limits[other],
                remedy=f"Use {name}",
            )
        default = 0.1 if name == "within" else 4.0
        limit = default if limits[name] is None else limits[name]
        limit = number_from(limit, 0.0, math.inf, f"{name} must be a number from 0 on", where)
        return cls.make("stable", columns, how, measure=measure, against=against, **{name: limit})
