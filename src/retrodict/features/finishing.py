"""From merged totals of one request to its values: exact sums as Python integers, rounded once.

Totals of blocks with different layouts are brought to one unit; Python's integers have no width, and the quotient of
two of them is correctly rounded (``int.__truediv__``), so nothing here can lose a bit.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from retrodict.core.errors import InputError, near
from retrodict.features.aggregates import AGGREGATES, Channel
from retrodict.features.blocks import FLOAT, PER_SUM
from retrodict.features.plan import ViewPlan

__all__ = ["Finisher", "Layout", "Parts"]

Exact = tuple[int, int, bool]
"""A sum: whole number, exponent of its unit, whether floats went in."""


class Layout:
    """How the limb columns of a block make up its sums.

    Attributes
    ----------
    sums : list of (first column, limbs, exponent, bits, whether float)
        One per summed channel.
    """

    __slots__ = ("_divisors", "_simple", "sums")

    def __init__(self, words: bytes) -> None:
        numbers = struct.unpack(f"<{len(words) // 8}q", words)
        self.sums: list[tuple[int, int, int, int, bool]] = []
        first = 0
        for i in range(0, len(numbers), PER_SUM):
            limbs, low, bits, kind = numbers[i : i + PER_SUM]
            self.sums.append((first, limbs, low, bits, kind == FLOAT))
            first += limbs
        # The common case by far: one limb per sum, so a sum is a quotient, and for whole numbers the limb itself.
        self._simple = all(limbs == 1 and low <= 0 for _, limbs, low, _, _ in self.sums)
        self._divisors = [1 << -low if self._simple and is_float else 0 for _, _, low, _, is_float in self.sums]

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(words: bytes) -> Layout:
        """Layout of these header words; blocks of one column mostly share one."""
        return Layout(words)

    def numbers(self, limbs: list[int]) -> list[Any]:
        """Value of each sum: an int, or the nearest double where it is a sum of floats."""
        if self._simple:
            return [limb / divisor if divisor else limb for limb, divisor in zip(limbs, self._divisors, strict=True)]
        return [_number_of(self.exact(i, limbs)) for i in range(len(self.sums))]

    def exact(self, index: int, limbs: list[int]) -> Exact:
        """Return one sum as a whole number in units of a power of two."""
        first, count, low, bits, is_float = self.sums[index]
        value = limbs[first]
        for j in range(1, count):
            value += limbs[first + j] << (bits * j)
        return value, low, is_float


class Parts:
    """Totals merged so far: limb sums per layout, and the best of each extreme."""

    __slots__ = ("_key", "_limbs", "_others", "extremes")

    def __init__(self) -> None:
        self._key = b""
        self._limbs: list[int] | None = None
        self._others: dict[bytes, list[int]] | None = None
        self.extremes: dict[int, Any] = {}

    def add_sums(self, key: bytes, total: list[int]) -> None:
        """Add limb sums in a layout; lists are replaced, never changed, since windows share them."""
        if self._limbs is None:
            self._key, self._limbs = key, total
        elif key == self._key:
            self._limbs = [a + b for a, b in zip(self._limbs, total, strict=True)]
        else:
            known = (self._others or {}).get(key)
            merged = total if known is None else [a + b for a, b in zip(known, total, strict=True)]
            self._others = {**(self._others or {}), key: merged}

    def add_extreme(self, index: int, value: Any, *, largest: bool) -> None:
        """Merge one candidate."""
        known = self.extremes.get(index)
        if known is None or (value > known if largest else value < known):
            self.extremes[index] = value

    def copy_from(self, other: Parts) -> None:
        """Start from the totals of younger blocks."""
        self._key, self._limbs, self._others = other._key, other._limbs, other._others
        if other.extremes:
            self.extremes = dict(other.extremes)

    def numbers(self, count: int, own: Mapping[int, int | float] | None = None) -> list[Any]:
        """Value of each of ``count`` sums, the request's own event added where given."""
        if self._others is None and not own:
            return [0] * count if self._limbs is None else Layout.of(self._key).numbers(self._limbs)
        totals: list[Exact] = [(0, 0, False)] * count
        layers = dict(self._others or {})
        if self._limbs is not None:
            layers[self._key] = self._limbs
        for key, limbs in layers.items():
            layout = Layout.of(key)
            totals = [_plus(total, layout.exact(i, limbs)) for i, total in enumerate(totals)]
        for place, value in (own or {}).items():
            totals[place] = _plus(totals[place], _exactly(value))
        return [_number_of(total) for total in totals]


def _plus(first: Exact, second: Exact) -> Exact:
    low = min(first[1], second[1])
    return (first[0] << (first[1] - low)) + (second[0] << (second[1] - low)), low, first[2] or second[2]


def _exactly(value: float) -> Exact:
    if isinstance(value, int):
        return value, 0, False
    top, bottom = value.as_integer_ratio()
    return top, 1 - bottom.bit_length(), True


def _number_of(total: Exact) -> int | float:
    whole, low, is_float = total
    if not is_float:
        return whole
    try:
        return whole / (1 << -low) if low < 0 else float(whole << low)
    except OverflowError:
        return math.inf if whole > 0 else -math.inf


class Finisher:
    """Turns the totals of a view's windows into its values.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    """

    def __init__(self, plan: ViewPlan) -> None:
        self._plan = plan
        sums = [i for i, channel in enumerate(plan.channels) if channel.monoid == "sum"]
        extremes = self._extremes = [i for i, channel in enumerate(plan.channels) if channel.monoid != "sum"]
        # Channel to its place among the sums or the extremes of a block.
        self._place = {i: place for some in (sums, extremes) for place, i in enumerate(some)}
        self._count = len(sums)
        self._rows = {text: expression.to_row() for text, expression in plan.expressions.items()}
        self._features = [
            (o.column, AGGREGATES[o.op], o.window, tuple(self._place[i] for i in o.parts), plan.channels[o.parts[0]])
            for o in plan.outputs
            if o.op != "latest"
        ]

    def finish(self, parts: list[Parts], request: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Add the value of every aggregate to ``values``."""
        own: dict[int, Any] = self._lift_own(request) if self._plan.needs_current else {}
        numbers = [
            part.numbers(self._count, self._own_sums(own) if own and window.include_current else None)
            for part, window in zip(parts, self._plan.windows, strict=True)
        ]
        for column, kind, window, places, channel in self._features:
            sums = numbers[window]
            if kind.empty_is_null and not sums[places[-1]]:
                values[column] = None
            elif channel.monoid != "sum":
                index = self._extremes[places[0]]
                current = own.get(index) if self._plan.windows[window].include_current else None
                values[column] = _best(parts[window].extremes.get(places[0]), current, channel)
            elif len(places) == 1:
                values[column] = sums[places[0]]
            else:
                first = sums[places[0]]
                values[column] = kind.finish(float(first) if kind.rounded else first, sums[places[1]])

    def _own_sums(self, own: Mapping[int, Any]) -> dict[int, Any]:
        return {self._place[i]: value for i, value in own.items() if self._plan.channels[i].monoid == "sum"}

    def _lift_own(self, request: Mapping[str, Any]) -> dict[int, Any]:
        """What the request's own event gives to each channel; None where an extreme gets nothing."""
        plan = self._plan
        row = {}
        for name in plan.current_columns:
            if name not in request:
                raise InputError(
                    "the request carries the columns of its own event",
                    where=f"{plan.where}, request (a window includes the current event)",
                    got=name,
                    remedy=near(name, request, what="column"),
                )
            row[name] = request[name]
        wanted = {i for o in plan.outputs if o.window >= 0 and plan.windows[o.window].include_current for i in o.parts}
        return {i: self._lift(plan.channels[i], row) for i in wanted}

    def _lift(self, channel: Channel, row: Mapping[str, Any]) -> Any:
        nothing = 0 if channel.monoid == "sum" else None
        if channel.where is not None and self._condition(channel.where, row) is not True:
            return nothing
        if channel.value is None:
            return 1
        value = self._condition(channel.value, row) if channel.value in self._rows else _number(row[channel.value])
        if value is None:
            return nothing
        if channel.lift == "present":
            return 1
        return int(bool(value)) if channel.lift == "true" else value

    def _condition(self, text: str, row: Mapping[str, Any]) -> Any:
        columns = self._plan.expressions[text].columns
        return self._rows[text]({name: row.get(name) for name in columns})


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) + 0.0 if math.isfinite(value) else None
    return None if value is None else int(value)


def _best(known: Any, own: Any, channel: Channel) -> Any:
    pair: list[Any] = [value for value in (known, own) if value is not None]
    merge: Callable[[list[Any]], Any] = max if channel.monoid == "max" else min
    return merge(pair) if pair else None
