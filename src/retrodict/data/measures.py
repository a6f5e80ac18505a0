"""Numbers of a batch of rows: one table from the name of a measure to its Polars aggregate.

Checks of a batch and comparisons with another batch use the same few numbers, so each is defined once. The built-in
standard deviation and correlation of Polars were rejected: on values around 10⁹ that differ by 10⁻³ they lose up to
half of their digits (measured 8e-7 relative); here the mean is subtracted first. What cannot be measured is None,
never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import polars as pl

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import Expression
from retrodict.core.kinds import ExpressionKind

__all__ = ["MEASURES", "Measure", "polars_measure"]

Kinds = Mapping[str, ExpressionKind | None] | None


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a batch of rows.

    Null and NaN are unknown and left out. The value is None where there is nothing to measure: no known value, the
    standard deviation of one value, the correlation with a constant, the AUC of one class.

    Attributes
    ----------
    name : str
        One of:

        ===================  =========================================================================================
        ``row_count``        number of rows
        ``null_rate``        share of rows whose value is unknown, in [0, 1]
        ``distinct_count``   number of different known values; of several columns, of rows where all are known
        ``distinct_share``   that number over the number of known values
        ``mean``, ``sum``    of a column of numbers (true is 1); infinite where the values are
        ``std``              standard deviation with n - 1
        ``min``, ``max``     as fractions
        ``median``           as ``quantile`` at 0.5
        ``quantile``         linear interpolation (type 7 of Hyndman and Fan 1996); None next to an infinity
        ``entropy``          of the shares of the known values (Shannon), in nats
        ``correlation``      Pearson's, of two columns, over rows where both are known
        ``share``            of rows where ``expression`` is true, among those where it is true or false
        ``freshness``        newest time or day, microseconds since 1970 UTC
        ``auc``              area under the ROC curve of a column of numbers (the first) against one of true and false
                             (the second): the share of pairs that are ranked right, ties half (Hanley and McNeil 1982)
        ===================  =========================================================================================
    columns : tuple of str
        The columns it is of.
    parameter : float or None
        The level of a quantile, in [0, 1].
    where : Expression or None
        Takes the rows where it is true; None takes all.
    expression : Expression or None
        The condition of a share.

    Raises
    ------
    DefinitionError
        If the name is unknown, or the other fields are not those that the measure takes.

    Examples
    --------
    >>> import polars as pl
    >>> frame = pl.DataFrame({"dep_delay": [2.0, 4.0, None, float("nan")]})
    >>> frame.select(
    ...     mean=polars_measure(Measure("mean", ("dep_delay",)), ["dep_delay"]),
    ...     nulls=polars_measure(Measure("null_rate", ("dep_delay",)), ["dep_delay"]),
    ... ).row(0)
    (3.0, 0.5)
    """

    name: str
    columns: tuple[str, ...]
    parameter: float | None = None
    where: Expression | None = None
    expression: Expression | None = None

    def __post_init__(self) -> None:
        """Check the fields against what the measure takes."""
        check_known(self.name, MEASURES, "a measure must have a name that exists", where="measure",
                    error=DefinitionError)  # fmt: skip
        where, size = f"measure {self.name}", len(self.columns)
        lowest, highest = _TAKES[self.name]
        if not lowest <= size <= (size if highest is None else highest):
            count = "no columns" if highest == 0 else f"{lowest}{' or more' if highest is None else ''} columns"
            raise DefinitionError(
                f"a measure must be of {count}", where=where, got=list(self.columns), remedy="Name the columns"
            )
        quantile, share = self.name == "quantile", self.name == "share"
        if quantile != (self.parameter is not None) or (quantile and not 0 <= (self.parameter or 0.0) <= 1):
            raise DefinitionError(
                "a quantile, and nothing else, must have a level between 0 and 1",
                where=where,
                got=self.parameter,
                remedy="Pass parameter=0.95" if quantile else "Leave parameter out",
            )
        if share != (self.expression is not None):
            raise DefinitionError(
                "a share, and nothing else, must have an expression",
                where=where,
                got=self.expression and self.expression.text,
                remedy="Pass expression=parse('…')" if share else "Leave expression out",
            )
        for condition in (self.where, self.expression):
            if condition is not None and not condition.columns:
                raise DefinitionError(
                    "the condition of a measure must read a column", where=where, got=condition.text, remedy="Name one"
                )


# How many columns each takes: the fewest, the most (None is any number).
_ONE_COLUMN = ("entropy", "freshness", "max", "mean", "median", "min", "null_rate", "quantile", "std", "sum")
_TAKES: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(_ONE_COLUMN, (1, 1)),
    "auc": (2, 2),
    "correlation": (2, 2),
    "distinct_count": (1, None),
    "distinct_share": (1, None),
    "row_count": (0, 0),
    "share": (0, None),
}

MEASURES = frozenset(_TAKES)
"""Names of the measures."""


def polars_measure(
    measure: Measure,
    floating: Collection[str],
    *,
    kinds: Kinds = None,
    origins: Mapping[str, float] | None = None,
) -> pl.Expr:
    """Return the measure as one Polars aggregate, for ``select`` and for ``group_by(...).agg``, streaming too.

    Parameters
    ----------
    measure : Measure
    floating : collection of str
        The columns of fractions, which alone can hold NaN.
    kinds : mapping of str to kind, optional
        Kinds of the columns, for the conditions: needed where they read a column of days.
    origins : mapping of str to float, optional
        A value from the middle of a column, which ``std`` and ``correlation`` subtract. Without one they subtract the
        mean, for which the rows are held in memory: a stream has no second pass.

    Returns
    -------
    polars.Expr
        Float64, or Int64 for counts and times. Sums and means are off by at most 1e-12 of the sum (mean) of the
        absolute values, which where values cancel can be more than the result.

    Raises
    ------
    DefinitionError
        If a condition does not fit the kinds.
    """
    return _POLARS[measure.name](measure, _Frame(measure, floating, kinds, origins or {}))


class _Frame:
    """What the aggregates of one measure read: columns with NaN and the rows outside ``where`` made null."""

    def __init__(self, measure: Measure, floating: Collection[str], kinds: Kinds, origins: Mapping[str, float]) -> None:
        self._floating, self._kinds, self._origins = floating, kinds, origins
        self.where = None if measure.where is None else self.condition(measure.where)

    def condition(self, expression: Expression) -> pl.Expr:
        return expression.to_polars(kinds=self._kinds, floating=self._floating)

    def within(self, value: pl.Expr) -> pl.Expr:
        return value if self.where is None else pl.when(self.where).then(value)

    def rows(self) -> pl.Expr:
        return (pl.len() if self.where is None else self.where.sum()).cast(pl.Int64)

    def known(self, name: str) -> pl.Expr:
        """Number of known values."""
        if name in self._floating:
            return self.within(pl.col(name)).is_not_nan().sum().cast(pl.Int64)  # no copy without NaN
        return self.within(pl.col(name)).count().cast(pl.Int64)

    def values(self, name: str) -> pl.Expr:
        column = pl.col(name)
        return self.within(column.fill_nan(None) if name in self._floating else column)

    def numbers(self, name: str) -> pl.Expr:
        return self.values(name) if name in self._floating else self.values(name).cast(pl.Float64)

    def shifted(self, name: str, values: pl.Expr) -> pl.Expr:
        """Values near zero: spread and correlation do not change, and 1e9 plus a little keeps its digits."""
        return values - (self._origins[name] if name in self._origins else values.mean())

    def together(self, measure: Measure) -> pl.Expr:
        """Whether all columns of the measure are known."""
        return pl.all_horizontal([self.values(name).is_not_null() for name in measure.columns])


def _finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_finite()).then(value)


def _polars_distinct(measure: Measure, frame: _Frame) -> pl.Expr:
    if len(measure.columns) == 1:
        return frame.values(measure.columns[0]).drop_nulls().n_unique().cast(pl.Int64)
    rows = pl.struct([frame.values(name).alias(f"_{place}") for place, name in enumerate(measure.columns)])
    return rows.filter(frame.together(measure)).n_unique().cast(pl.Int64)


def _polars_distinct_share(measure: Measure, frame: _Frame) -> pl.Expr:
    count = frame.known(measure.columns[0]) if len(measure.columns) == 1 else frame.together(measure).sum()
    return pl.when(count > 0).then(_polars_distinct(measure, frame) / count.cast(pl.Float64))


def _polars_null_rate(measure: Measure, frame: _Frame) -> pl.Expr:
    rows = frame.rows()
    return pl.when(rows > 0).then((rows - frame.known(measure.columns[0])) / rows)


def _polars_sum(measure: Measure, frame: _Frame) -> pl.Expr:
    valid = frame.known(measure.columns[0]) > 0
    return pl.when(valid).then(frame.numbers(measure.columns[0]).sum().fill_nan(None))


def _polars_std(measure: Measure, frame: _Frame) -> pl.Expr:
    name = measure.columns[0]
    return _finite(frame.shifted(name, frame.numbers(name)).std(ddof=1))


def _polars_quantile(measure: Measure, frame: _Frame) -> pl.Expr:
    level = 0.5 if measure.parameter is None else measure.parameter
    return _finite(frame.numbers(measure.columns[0]).quantile(level, interpolation="linear"))


def _polars_entropy(measure: Measure, frame: _Frame) -> pl.Expr:
    # unique_counts fails in the streaming engine of Polars 2.1.
    values = frame.values(measure.columns[0]).alias("_value").drop_nulls()
    counts = values.value_counts(sort=False, name="_count").struct.field("_count").cast(pl.Float64)
    return pl.when(frame.known(measure.columns[0]) > 0).then(counts.entropy(math.e, normalize=True))


def _polars_correlation(measure: Measure, frame: _Frame) -> pl.Expr:
    valid = frame.together(measure)
    x, y = (pl.when(valid).then(frame.numbers(name)) for name in measure.columns)
    varies = (x.min() < x.max()) & (y.min() < y.max())
    first, second = measure.columns
    correlation = pl.corr(frame.shifted(first, x), frame.shifted(second, y))
    return pl.when(varies & correlation.is_finite()).then(correlation.clip(-1.0, 1.0))


def _polars_share(measure: Measure, frame: _Frame) -> pl.Expr:
    assert measure.expression is not None
    return frame.within(frame.condition(measure.expression)).mean()


def _polars_freshness(measure: Measure, frame: _Frame) -> pl.Expr:
    return frame.values(measure.columns[0]).max().dt.epoch("us")


def _polars_auc(measure: Measure, frame: _Frame) -> pl.Expr:
    valid = frame.together(measure)
    score, label = measure.columns
    positive = frame.values(label).filter(valid)
    ranks = frame.numbers(score).filter(valid).rank("average").filter(positive).sum()
    ones, zeros = positive.sum().cast(pl.Float64), (~positive).sum().cast(pl.Float64)
    return pl.when((ones > 0) & (zeros > 0)).then((ranks - ones * (ones + 1) / 2) / (ones * zeros))


_POLARS: dict[str, Callable[[Measure, _Frame], pl.Expr]] = {
    "auc": _polars_auc,
    "correlation": _polars_correlation,
    "distinct_count": _polars_distinct,
    "distinct_share": _polars_distinct_share,
    "entropy": _polars_entropy,
    "freshness": _polars_freshness,
    "max": lambda measure, frame: frame.numbers(measure.columns[0]).max(),
    "mean": lambda measure, frame: frame.numbers(measure.columns[0]).mean().fill_nan(None),
    "median": _polars_quantile,
    "min": lambda measure, frame: frame.numbers(measure.columns[0]).min(),
    "null_rate": _polars_null_rate,
    "quantile": _polars_quantile,
    "row_count": lambda _, frame: frame.rows(),
    "share": _polars_share,
    "std": _polars_std,
    "sum": _polars_sum,
}
