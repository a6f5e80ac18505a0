"""The table of aggregates: which monoids or which events each one is made of, and how that becomes its value.

An aggregate is not a class with code of its own in every engine. It is a row here, of one of two sorts:

* *Totals* (``AGGREGATES``): the channels it needs, each an event lifted to a number and merged by a monoid, and one
  finish over the merged totals. The engines know only the monoids (``sum`` with its inverse; ``min`` and ``max``
  without, so never subtracted), so such an aggregate costs a few searches whatever the window holds.
* *Bags* (``BAGS``): functions of all events of the window in their order, for what no total of fixed size tells
  (the last five, exact distinct values, a quantile). They cost time in proportion to the events of the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["AGGREGATES", "BAGS", "AggregateKind", "BagKind", "Channel", "Lift", "Monoid", "Takes", "divided"]

Monoid = Literal["sum", "min", "max"]
Lift = Literal[
    "one", "present", "true", "value", "second",
    "double", "square", "square_rest", "cube", "cube_1", "cube_2", "cube_3",
    "time", "time_square", "time_square_rest", "moment", "moment_rest",
]  # fmt: skip
Takes = Literal["nothing", "numbers", "anything", "lists", "condition"]


@dataclass(frozen=True)
class Channel:
    """One number per event and the monoid that merges it.

    Parameters
    ----------
    monoid : {"sum", "min", "max"}
        How numbers merge. Identity: 0 for ``sum``, nothing for the others.
    lift : str
        ``one``: every event gives 1. ``present``: 1 if the value is not null. ``true``: 1 if it is true. ``value``: the
        value itself, the identity if it is null. ``double``: the nearest double of it. ``square`` and ``square_rest``:
        the two numbers whose sum is the square of that double, without error; ``cube``, ``cube_1`` to ``cube_3``: the
        four whose sum is its cube. ``time``, ``time_square``, ``time_square_rest``: the same of the event time in
        microseconds, where the value is not null; ``moment`` and ``moment_rest``: of the product of both.
    value : str, optional
        Column or condition it reads.
    where : str, optional
        Condition; an event for which it is not true gives the identity.
    beside : str, optional
        Other column; an event without a value in it gives the identity.
    """

    monoid: Monoid
    lift: Lift
    value: str | None
    where: str | None
    beside: str | None = field(default=None, metadata={"identity": "if set"})


@dataclass(frozen=True)
class AggregateKind:
    """How one aggregate is computed from totals.

    Parameters
    ----------
    channels : tuple of (monoid, lift)
        What it needs; the lift ``second`` is the value of the second column.
    finish : callable
        Value from the totals, in the order of the channels. The last total is the number of events the value is made
        of. Written with operators only, so that the same code takes Python numbers and NumPy arrays; where ``exact``
        it takes whole numbers of Python only.
    empty_is_null : bool
        Whether the value is null where that number is 0.
    rounded : bool
        Whether the first total is wanted as the nearest double rather than as a whole number.
    exact : bool
        Whether ``finish`` takes the sums as pairs of whole numbers ``(top, bottom)``, ``bottom`` a power of two, and
        then the number of events and the factor of the output, if it has one; it returns a float or None.
    takes : {"nothing", "numbers", "condition"}
        What the column may hold.
    """

    channels: tuple[tuple[Monoid, Lift], ...]
    finish: Callable[..., Any]
    empty_is_null: bool = True
    rounded: bool = False
    exact: bool = False
    takes: Takes = "numbers"


@dataclass(frozen=True)
class BagKind:
    """What a function of the window's events takes and gives; the functions themselves are in ``features.facts.bags``.

    Parameters
    ----------
    takes : {"nothing", "numbers", "anything", "lists"}
        What the column may hold; ``anything``: numbers, booleans, times, dates or text. ``lists``: lists of numbers.
    gives : {"value", "values", "count", "float", "map"}
        ``value``: of the column's type. ``values``: a list of that type. ``count``: a whole number. ``float``.
        ``map``: from text to numbers.
    ordered : bool
        Whether a second column, of ``anything``, orders the events; of the others it is a group.
    """

    takes: Takes
    gives: Literal["value", "values", "count", "float", "map"]
    ordered: bool = False


Exact = tuple[int, int]


def _first(total: Any, *_: Any) -> Any:
    return total


def _ratio(total: Any, count: Any) -> Any:
    return total / count


def _second_moment(count: int, total: Exact, squares: Exact) -> Exact:
    """``n * M2`` as a fraction: ``n * sum(x**2) - sum(x)**2``."""
    top, bottom = total
    square, unit = squares
    return count * square * bottom * bottom - top * top * unit, bottom * bottom * unit


def _sum(parts: tuple[Exact, ...]) -> Exact:
    top, bottom = 0, max(part[1] for part in parts)
    for part, unit in parts:
        top += part * (bottom // unit)
    return top, bottom


def divided(top: int, bottom: int) -> float | None:
    """Nearest double of a fraction; None if it lies beyond their range."""
    try:
        return top / bottom
    except OverflowError:
        return None


def _scaled(top: int, bottom: int, exponent: int) -> float:
    """Nearest double of ``top / bottom / 2**exponent``, which is in their range."""
    return top / (bottom << exponent) if exponent > 0 else (top << -exponent) / bottom


def _half_exponent(top: int, bottom: int) -> int:
    """Exponent ``j`` for which ``top / bottom / 4**j`` is about 1."""
    return (top.bit_length() - bottom.bit_length()) // 2


def _variance(total: Exact, square: Exact, rest: Exact, count: int) -> float | None:
    if count < 2:
        return None
    top, bottom = _second_moment(count, total, _sum((square, rest)))
    return divided(top, bottom * count * (count - 1))


def _std(total: Exact, square: Exact, rest: Exact, count: int) -> float | None:
    """Root of the variance rounded to 53 bits, which may itself lie beyond the range of doubles."""
    if count < 2:
        return None
    top, bottom = _second_moment(count, total, _sum((square, rest)))
    bottom *= count * (count - 1)
    half = _half_exponent(top, bottom)
    try:
        return math.ldexp(math.sqrt(_scaled(top, bottom, 2 * half)), half)
    except OverflowError:
        return None


def _skew(*parts: Any) -> float | None:
    """Fisher's ``g1 = m3 / m2**1.5``, as ``scipy.stats.skew``; ``m2`` and ``m3`` are exact, rounded to 53 bits each.

    Both are scaled by a power of two, which the quotient does not notice, so neither leaves the range of doubles.
    """
    total, square, rest, cube, cube_1, cube_2, cube_3, count = parts
    squares, cubes = _sum((square, rest)), _sum((cube, cube_1, cube_2, cube_3))
    top, bottom = _second_moment(count, total, squares)
    if top <= 0:
        return None
    half = _half_exponent(top, bottom * count * count)
    m2 = _scaled(top, bottom * count * count, 2 * half)
    # n**2 * M3 = n**2 S3 - 3 n S1 S2 + 2 S1**3, over one denominator.
    (s1, u1), (s2, u2), (s3, u3) = total, squares, cubes
    third = count * count * s3 * u1**3 * u2 - 3 * count * s1 * s2 * u1**2 * u3 + 2 * s1**3 * u2 * u3
    return _scaled(third, count**3 * u1**3 * u2 * u3, 3 * half) / (m2 * math.sqrt(m2))


def _quotient(total: Exact, second: Exact, count: int) -> float | None:  # noqa: ARG001 - the count says only whether
    (top, unit), (other, other_unit) = total, second
    if other == 0:
        return None
    sign = -1 if other < 0 else 1
    return divided(sign * top * other_unit, sign * other * unit)


def _slope(*parts: Any) -> float | None:
    """Least squares, ``(n Stv - St Sv) / (n Stt - St**2)``: exact, so it does not matter where times count from."""
    (value, unit), (time, time_unit), square, rest, moment, moment_rest, count, per, _ = parts
    top, bottom = _second_moment(count, (time, time_unit), _sum((square, rest)))
    if top <= 0:
        return None
    joint, joint_unit = _sum((moment, moment_rest))
    rise = count * joint * unit * time_unit - value * time * joint_unit
    return divided(per * rise * bottom, joint_unit * unit * time_unit * top)


_SQUARES: tuple[tuple[Monoid, Lift], ...] = (("sum", "double"), ("sum", "square"), ("sum", "square_rest"))
_CUBES: tuple[tuple[Monoid, Lift], ...] = (("sum", "cube"), ("sum", "cube_1"), ("sum", "cube_2"), ("sum", "cube_3"))
_TIMES: tuple[tuple[Monoid, Lift], ...] = (("sum", "time"), ("sum", "time_square"), ("sum", "time_square_rest"))
_MOMENTS: tuple[tuple[Monoid, Lift], ...] = (("sum", "moment"), ("sum", "moment_rest"))
_PRESENT: tuple[tuple[Monoid, Lift], ...] = (("sum", "present"),)

AGGREGATES: dict[str, AggregateKind] = {
    "count": AggregateKind((("sum", "one"),), _first, empty_is_null=False, takes="nothing"),
    "rate": AggregateKind((("sum", "one"),), _first, empty_is_null=False, takes="nothing"),
    "sum": AggregateKind((("sum", "value"), *_PRESENT), _first),
    "mean": AggregateKind((("sum", "value"), *_PRESENT), _ratio, rounded=True),
    "ratio": AggregateKind((("sum", "value"), ("sum", "second"), *_PRESENT), _quotient, exact=True),
    "share": AggregateKind((("sum", "true"), *_PRESENT), _ratio, takes="condition"),
    "min": AggregateKind((("min", "value"), *_PRESENT), _first),
    "max": AggregateKind((("max", "value"), *_PRESENT), _first),
    "variance": AggregateKind((*_SQUARES, *_PRESENT), _variance, exact=True),
    "std": AggregateKind((*_SQUARES, *_PRESENT), _std, exact=True),
    "skew": AggregateKind((*_SQUARES, *_CUBES, *_PRESENT), _skew, exact=True),
    "slope": AggregateKind((("sum", "double"), *_TIMES, *_MOMENTS, *_PRESENT), _slope, exact=True),
}

BAGS: dict[str, BagKind] = {
    "first": BagKind("anything", "value"),
    "last": BagKind("anything", "value"),
    "first_k": BagKind("anything", "values"),
    "last_k": BagKind("anything", "values"),
    "top_k": BagKind("numbers", "values"),
    "bottom_k": BagKind("numbers", "values"),
    "argmax": BagKind("anything", "value", ordered=True),
    "argmin": BagKind("anything", "value", ordered=True),
    "top_k_by": BagKind("anything", "values", ordered=True),
    "bottom_k_by": BagKind("anything", "values", ordered=True),
    "mode": BagKind("anything", "value"),
    "sum_list": BagKind("lists", "values"),
    "mean_list": BagKind("lists", "values"),
    "distinct": BagKind("anything", "count"),
    "approx_distinct": BagKind("anything", "count"),
    "quantile": BagKind("numbers", "float"),
    "histogram": BagKind("anything", "map"),
    "by": BagKind("numbers", "map"),
    "time_since_last": BagKind("nothing", "float"),
    "session_count": BagKind("nothing", "count"),
    "session_events": BagKind("nothing", "count"),
    "session_seconds": BagKind("nothing", "float"),
    "decayed_count": BagKind("nothing", "float"),
    "decayed_sum": BagKind("numbers", "float"),
}
"""What a bag means, of the events of the window for which ``where`` is true, in the order of (event time, known at,
sequence); an event whose value is null (or NaN, or infinite) is left out:

* ``first``, ``last``: the first, the last value. ``first_k``, ``last_k``: the first, the last ``k`` values, both in the
  order of the events. ``top_k``, ``bottom_k``: the ``k`` greatest descending, the ``k`` smallest ascending, repeated
  values included.
* ``argmax``, ``argmin``: the value of the event where a second column is greatest, smallest. ``top_k_by``,
  ``bottom_k_by``: the values of the ``k`` such events, that of the greatest, the smallest, first. Events without one of
  the two are left out; of equal ones the newest comes first; texts are ordered by code points.
* ``mode``: the most frequent value, of equally frequent ones the smallest.
* ``sum_list``, ``mean_list`` (``k``): element by element, of the lists of ``k`` finite numbers; a list of another
  length, or with an element that is null, NaN or infinite, is left out as a null is. Elements are read as doubles; one
  of the result is null where it lies beyond them.
* ``distinct``: how many different values; 0 where there is no event. ``approx_distinct``: the same by HyperLogLog
  (:class:`~retrodict.core.statistics.distinct.DistinctSketch` of the values; exact up to 4,096 different ones).
* ``quantile`` (``q``): linear between the two neighbours, ``a + (b - a) * t``: ``numpy.quantile`` but for the last bit.
* ``histogram``: number of events by value, as text: booleans ``true`` and ``false``, whole numbers in decimal; in the
  order of the texts' code points. Of floats it is refused.
* ``by`` (``by``, ``op``): one of count, sum, mean, min, max of the values by the text of a second column, null groups
  left out, in the order of the texts' code points. Numbers as the plain aggregate gives them, as floats.
* ``time_since_last``: seconds from the newest event to the decision.
* ``session_count`` (``gap``): sessions, where an event more than ``gap`` after the one before it begins another.
  ``session_events``, ``session_seconds``: of the last one, if its newest event is no more than ``gap`` before the
  decision, its events and the time from its first one to the decision; else 0 and null.
* ``decayed_count``, ``decayed_sum`` (``half_life``): each event counts ``2**(-age / half_life)``, age from its event
  time to the decision; products are rounded once each and added exactly, the sum rounded once.

Null where no event gives anything, but for the counts; lists and maps are null then, too.
"""
