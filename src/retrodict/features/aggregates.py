"""Aggregates and latest values as a definitions module writes them: ``agg.mean("arr_delay", over=["2h", "24h"])``.

Names are made from the content (``mean_arr_delay_2h``), so that a column's name says what is in it. What an aggregate
means is in ``features.monoids``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.core.identity import digest
from retrodict.features.monoids import AGGREGATES, BAGS
from retrodict.features.windows import Over, Window, positive_duration, windows_of

__all__ = ["Aggregate", "Latest", "agg", "input_expression", "latest", "microseconds"]

_OPERATORS = {
    ">=": "ge",
    "<=": "le",
    "<>": "ne",
    "!=": "ne",
    ">": "gt",
    "<": "lt",
    "=": "eq",
    "+": "plus",
    "*": "times",
    "/": "over",
}
_LONGEST_NAME = 63
_MOST = 1_000  # values in a list: more is a table, not a feature
_BY = ("count", "max", "mean", "min", "sum")


def _slug(expression: str) -> str:
    """Letters, digits and single underscores that still tell the expression."""
    text = expression.lower()
    for operator, word in _OPERATORS.items():
        text = text.replace(operator, f" {word} ")
    text = re.sub(r"(^|[\s(])-\s*(?=\d)", r"\1 minus ", text)
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_")


@dataclass(frozen=True)
class Aggregate:
    """One aggregate over one or more windows; made by ``agg.count`` and its siblings.

    Parameters
    ----------
    op : str
        Which aggregate.
    value : str, optional
        Column or expression (:func:`input_expression` tells which), for ``share`` a condition; None where the aggregate
        reads none.
    over : tuple of Window
        Its windows: one feature each.
    where : str, optional
        Condition: only events for which it is true are looked at.
    label : str, optional
        Name of the feature; with several windows each adds its own ending.
    second : str, optional
        Second column or expression: the denominator of ``ratio``, the groups of ``by``, what orders the events of
        ``argmax``.
    options : tuple of (str, value)
        What else says which aggregate it is: ``k``, ``size``, ``q``, ``half_life``, ``gap``, ``per``, ``op``.
    """

    op: str
    value: str | None
    over: tuple[Window, ...]
    where: str | None = None
    label: str | None = None
    second: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Read the conditions once, so that a mistake shows where it was made."""
        if self.op == "share":
            parse(self.value or "", where=f"agg.share({self.value!r})")
        if self.where is not None:
            parse(self.where, where=f"agg.{self.op}, where")
        for window in self.over:
            self._check_window(window)

    def _check_window(self, window: Window) -> None:
        op = self.op.removesuffix("_by")
        where = f"agg.{op}"
        if self.op == "rate" and (window.lifetime or window.hop or window.offset or window.units):
            raise DefinitionError(
                "a rate must be over an exact window up to the decision",
                where=where,
                got=window.name,
                remedy="Write over='1h', or divide a count in a @derived function",
            )
        if window.include_current and self.op in BAGS:
            raise DefinitionError(
                f"{op} must not take the request's own event in",
                where=where,
                got=window.name,
                remedy="Leave include_current out; the request's own values reach a @derived function",
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns and expressions whose values it reads."""
        return tuple(text for text in (None if self.op == "share" else self.value, self.second) if text is not None)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions that it reads."""
        return tuple(text for text in (self.value if self.op == "share" else None, self.where) if text is not None)

    @property
    def bag(self) -> bool:
        """Whether the aggregate needs the events of the window themselves."""
        return self.op in BAGS

    @property
    def option(self) -> dict[str, Any]:
        """The options by name."""
        return dict(self.options)

    def names(self) -> list[str]:
        """Name of the feature of each window, in order."""
        if self.label is not None:
            single = len(self.over) == 1
            return [self.label if single else f"{self.label}_{window.name}" for window in self.over]
        parts = [self._stem()]
        if self.where is not None:
            parts += ["where", _slug(self.where)]
        return [_fit("_".join(parts), window.name) for window in self.over]

    def _stem(self) -> str:
        option = self.option
        value = [] if self.value is None else [_slug(self.value)]
        if self.op in BAGS and BAGS[self.op].ordered:
            value += ["by", _slug(self.second or "")]
        if "k" in option:
            return "_".join([self.op.removesuffix("_by")[:-1] + str(option["k"]), *value])
        if self.op == "quantile":
            return "_".join([f"q{100 * option['q']:g}".replace(".", "p"), *value])
        if self.op == "ratio":
            return "_".join(["ratio", *value, "to", _slug(self.second or "")])
        if self.op == "by":
            return "_".join([option["op"], *value, "by", _slug(self.second or "")])
        if self.op == "rate":
            return f"rate_per_{option['per']}"
        if self.op == "slope":
            return "_".join(["slope", *value, "per", option["per"]])
        span = [f"{name}_{option[name]}" for name in ("half_life", "gap") if name in option]
        return "_".join([self.op, *value, *span])

    def __identity__(self) -> dict[str, Any]:
        """Conditions by their meaning, not by their white space."""
        value: object = parse(self.value or "") if self.op == "share" else self.value
        body: dict[str, Any] = {
            "kind": "Aggregate",
            "op": self.op,
            "value": value,
            "over": self.over,
            "names": self.names(),
            "where": None if self.where is None else parse(self.where),
        }
        if self.second is not None or self.options:
            body |= {"second": self.second, "options": self.options}
        return body


def input_expression(text: str, columns: Collection[str]) -> Expression | None:
    """Expression that the input of an aggregate is; None where it names a column.

    A column is what the table declares (``columns``), what has neither space nor parenthesis nor quote (``dep-delay``),
    and what is no expression (``arr delay``). A column whose name reads like one stands in double quotes, or declared.

    Examples
    --------
    >>> input_expression("price * quantity", ()).columns
    ('price', 'quantity')
    >>> input_expression("arr delay", ()), input_expression("in - out", ["in - out"]), input_expression("dep-delay", ())
    (None, None, None)
    """
    if text not in columns and re.search(r'[\s()"]', text):
        with suppress(DefinitionError):
            return parse(text)
    return None


def _fit(stem: str, ending: str) -> str:
    name = f"{stem}_{ending}"
    if len(name) <= _LONGEST_NAME:
        return name
    mark = digest(name.encode())[:6]
    return f"{stem[: _LONGEST_NAME - len(ending) - 8].rstrip('_')}_{mark}_{ending}"


@dataclass(frozen=True)
class Latest:
    """Columns of the newest visible event; made by :func:`latest`."""

    columns: tuple[str, ...]
    max_age: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        """Check the columns and write the age in one way."""
        columns: tuple[object, ...] = self.columns
        if not columns or not all(isinstance(column, str) and column for column in columns):
            raise DefinitionError(
                "latest must name one or more columns",
                where="latest",
                got=self.columns,
                remedy="Write it like latest('arr_delay', max_age='24h')",
            )
        if self.label is not None and len(self.columns) > 1:
            raise DefinitionError(
                "a name must be for one column",
                where="latest",
                got=len(self.columns),
                remedy="Leave name= out or write one latest() per column",
            )
        if self.max_age is not None:
            object.__setattr__(self, "max_age", positive_duration(self.max_age, "max_age"))

    def names(self) -> list[str]:
        """Name of the feature of each column, in order."""
        return [self.label] if self.label is not None else [_fit("latest", _slug(column)) for column in self.columns]


def latest(*columns: str, max_age: str | None = None, name: str | None = None) -> Latest:
    """Values of the newest visible event per key, null where that event's value is null.

    Parameters
    ----------
    *columns : str
        Columns to read, all from the same event.
    max_age : str, optional
        Null once the decision is later than the event by more than this. None: never too old.
    name : str, optional
        Name of the feature, for one column. None: ``latest_<column>``.

    Examples
    --------
    >>> latest("arr_delay", "dest", max_age="24h").names()
    ['latest_arr_delay', 'latest_dest']
    """
    return Latest(columns, max_age, name)


class _Aggregates:
    """The aggregates a view can hold, each over one or more windows.

    All take ``over`` (one or several windows: ``"2h"``, ``"lifetime"``, ``Window(...)``), ``where`` (a condition:
    only events for which it is true are looked at) and ``name`` (None: made from the content). A ``column`` may be an
    expression of columns: ``agg.sum("price * quantity", over="7d")``. Null and non-finite values are left out; where
    nothing is left the value is null, unless said otherwise.

    Examples
    --------
    >>> agg.share("arr_delay > 15", over=["2h", "24h"]).names()
    ['share_arr_delay_gt_15_2h', 'share_arr_delay_gt_15_24h']
    """

    def count(self, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Number of events; 0 where there are none."""
        return _of("count", None, over, where, name)

    def rate(self, *, over: Over, per: str = "1h", where: str | None = None, name: str | None = None) -> Aggregate:
        """Events per ``per``: the count over the window's length in units of ``per``; 0 where there are none."""
        return _of("rate", None, over, where, name, per=positive_duration(per, "agg.rate, per"))

    def sum(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Exact sum of the values, rounded once."""
        return _of("sum", column, over, where, name)

    def mean(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Return the exact sum over the number of values."""
        return _of("mean", column, over, where, name)

    def ratio(
        self, column: str, to: str, *, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Sum of one column over the sum of another, of events that hold both; null where the second sum is 0."""
        _check_column("ratio", to)
        return _of("ratio", column, over, where, name, to)

    def min(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Smallest value."""
        return _of("min", column, over, where, name)

    def max(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Largest value."""
        return _of("max", column, over, where, name)

    def share(self, condition: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Events for which the condition is true, out of those for which it is not null."""
        return _of("share", condition, over, where, name)

    def variance(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Sample variance (over ``n - 1``), without cancellation; null below two values."""
        return _of("variance", column, over, where, name)

    def std(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Square root of the sample variance; null below two values."""
        return _of("std", column, over, where, name)

    def skew(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Fisher's skewness ``m3 / m2**1.5`` (population moments); null where all values are equal."""
        return _of("skew", column, over, where, name)

    def slope(
        self, column: str, *, over: Over, per: str = "1h", where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Least-squares slope of the values over event time, per ``per``; null below two different times."""
        return _of("slope", column, over, where, name, per=positive_duration(per, "agg.slope, per"))

    def first(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Oldest value."""
        return _of("first", column, over, where, name)

    def last(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Newest value; unlike ``latest`` it passes over events whose value is null."""
        return _of("last", column, over, where, name)

    def first_k(
        self, column: str, k: int, *, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """List of the oldest ``k`` values, in the order of the events."""
        return _listed("first_k", column, k, over, where, name)

    def last_k(
        self, column: str, k: int, *, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """List of the newest ``k`` values, in the order of the events."""
        return _listed("last_k", column, k, over, where, name)

    def top_k(
        self,
        column: str,
        k: int,
        *,
        over: Over,
        by: str | None = None,
        where: str | None = None,
        name: str | None = None,
    ) -> Aggregate:
        """List of the greatest ``k`` values, descending; with ``by`` of those where that column is greatest."""
        return _listed("top_k", column, k, over, where, name, by)

    def bottom_k(
        self,
        column: str,
        k: int,
        *,
        over: Over,
        by: str | None = None,
        where: str | None = None,
        name: str | None = None,
    ) -> Aggregate:
        """List of the smallest ``k`` values, ascending; with ``by`` of those where that column is smallest."""
        return _listed("bottom_k", column, k, over, where, name, by)

    def argmax(
        self, column: str, *, by: str, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Value of the event where the column ``by`` is greatest, of equal ones the newest; neither may be null."""
        _check_column("argmax", by)
        return _of("argmax", column, over, where, name, by)

    def argmin(
        self, column: str, *, by: str, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Value of the event where the column ``by`` is smallest, of equal ones the newest; neither may be null."""
        _check_column("argmin", by)
        return _of("argmin", column, over, where, name, by)

    def mode(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Most frequent value, of equally frequent ones the smallest (of texts the first by code points)."""
        return _of("mode", column, over, where, name)

    def sum_list(
        self, column: str, size: int, *, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Exact sum, element by element, of lists of ``size`` numbers; other lists are left out, as null is."""
        return _of("sum_list", column, over, where, name, size=_checked_count(size, "size", "agg.sum_list"))

    def mean_list(
        self, column: str, size: int, *, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Mean, element by element, of lists of ``size`` numbers (embeddings); other lists are left out, as null is."""
        return _of("mean_list", column, over, where, name, size=_checked_count(size, "size", "agg.mean_list"))

    def distinct(
        self,
        column: str,
        *,
        over: Over,
        approximate: bool = False,
        where: str | None = None,
        name: str | None = None,
    ) -> Aggregate:
        """Number of different values, 0 where there are none; ``approximate`` by HyperLogLog (0.8 % above 4,096)."""
        return _of("approx_distinct" if approximate else "distinct", column, over, where, name)

    def quantile(
        self, column: str, q: float, *, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Quantile of the values, linear between neighbours as ``numpy.quantile``."""
        fraction: object = q
        if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise DefinitionError(
                "a quantile must be between 0 and 1", where="agg.quantile", got=q, remedy="Write 0.5 for the median"
            )
        return _of("quantile", column, over, where, name, q=float(q))

    def median(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Quantile of one half."""
        return self.quantile(column, 0.5, over=over, where=where, name=name)

    def histogram(self, column: str, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Map from the text of a value to its number of events; of text, whole numbers or booleans."""
        return _of("histogram", column, over, where, name)

    def by(
        self,
        group: str,
        op: str,
        column: str | None = None,
        *,
        over: Over,
        where: str | None = None,
        name: str | None = None,
    ) -> Aggregate:
        """Map from the text of ``group`` to count, sum, mean, min or max of ``column`` among its events."""
        _check_column("by", group)
        rule = "a map must hold count, sum, mean, min or max"
        check_known(op, _BY, rule, where="agg.by", what="one", error=DefinitionError)
        if (column is None) != (op == "count"):
            raise DefinitionError(
                "count must read no column, the others one",
                where="agg.by",
                got=op,
                remedy="Write agg.by('merchant', 'sum', 'amount', over=…) or agg.by('merchant', 'count', over=…)",
            )
        if column is not None:
            _check_column("by", column)
        return _of("by", column, over, where, name, group, op=op)

    def time_since_last(self, *, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Seconds from the newest event to the decision."""
        return _of("time_since_last", None, over, where, name)

    def session_count(self, *, gap: str, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Sessions: an event more than ``gap`` after the one before it begins another."""
        return _of("session_count", None, over, where, name, gap=positive_duration(gap, "agg.session_count, gap"))

    def session_events(self, *, gap: str, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Events of the current session; 0 if the newest event is more than ``gap`` ago."""
        return _of("session_events", None, over, where, name, gap=positive_duration(gap, "agg.session_events, gap"))

    def session_seconds(self, *, gap: str, over: Over, where: str | None = None, name: str | None = None) -> Aggregate:
        """Seconds since the current session began; null if the newest event is more than ``gap`` ago."""
        return _of("session_seconds", None, over, where, name, gap=positive_duration(gap, "agg.session_seconds, gap"))

    def decayed_count(
        self, *, half_life: str, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Events weighted by ``2**(-age / half_life)``."""
        span = positive_duration(half_life, "agg.decayed_count, half_life")
        return _of("decayed_count", None, over, where, name, half_life=span)

    def decayed_sum(
        self, column: str, *, half_life: str, over: Over, where: str | None = None, name: str | None = None
    ) -> Aggregate:
        """Sum of the values weighted by ``2**(-age / half_life)``."""
        span = positive_duration(half_life, "agg.decayed_sum, half_life")
        return _of("decayed_sum", column, over, where, name, half_life=span)


def _of(
    op: str,
    column: str | None,
    over: Over,
    where: str | None,
    name: str | None,
    second: str | None = None,
    /,
    **options: object,
) -> Aggregate:
    kind = AGGREGATES.get(op) or BAGS[op]
    if kind.takes not in {"nothing", "condition"} and op != "by":
        _check_column(op, column)
    return Aggregate(op, column, windows_of(over, f"agg.{op}"), where, name, second, tuple(options.items()))


def _check_column(op: str, column: object) -> None:
    if not isinstance(column, str) or not column:
        raise DefinitionError(
            f"agg.{op} must take the name of a column",
            where=f"agg.{op}",
            got=column,
            remedy=f"Write it like agg.{op}('arr_delay', …, over='2h')",
        )


def _listed(
    op: str, column: str, k: int, over: Over, where: str | None, name: str | None, by: str | None = None
) -> Aggregate:
    _checked_count(k, "k", f"agg.{op}")
    if by is None:
        return _of(op, column, over, where, name, k=k)
    _check_column(op, by)
    return _of(f"{op}_by", column, over, where, name, by, k=k)


def _checked_count(count: object, name: str, where: str) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST:
        rule = f"{name} must be a whole number from 1 to {_MOST}"
        raise DefinitionError(rule, where=where, got=count, remedy="Ask for fewer values")
    return count


def microseconds(aggregate: Aggregate, option: str) -> int:
    """Option of an aggregate that is a duration, in microseconds."""
    return parse_duration(aggregate.option[option])


agg = _Aggregates()
