"""The request's own event, and the few sums that one division does not finish.

Sums are whole numbers of Python over a power of two: they have no width, and the quotient of two of them is correctly
rounded (``int.__truediv__``), so nothing here can lose a bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from retrodict.core.errors import InputError, near
from retrodict.core.statistics.exact import Shifted
from retrodict.features.facts.columns import FactColumn
from retrodict.features.facts.events import lift
from retrodict.features.monoids import Channel
from retrodict.features.plan import ViewPlan


def plus(top: int, bottom: int, number: float | Fraction) -> tuple[int, int]:
    """Sum of a fraction and a number; the bottoms are powers of two."""
    more, unit = number.as_integer_ratio()
    return (top * (unit // bottom) + more, unit) if unit > bottom else (top + more * (bottom // unit), bottom)


def best(first: Any, second: Any, largest: bool) -> Any:
    """Extreme of what is there of two values."""
    if first is None or second is None:
        return second if first is None else first
    return max(first, second) if largest else min(first, second)


class OwnEvent:
    """Lifts the request's own event for the windows that let it in."""

    def __init__(self, plan: ViewPlan) -> None:
        self._plan = plan
        self._expressions = plan.computed | plan.expressions
        self._rows = {text: expression.to_row() for text, expression in self._expressions.items()}
        inside = [o for o in plan.outputs if o.window >= 0 and plan.windows[o.window].include_current]
        self._wanted = sorted({part for output in inside for part in output.parts})

    def lift(self, request: Mapping[str, Any], at: int) -> dict[int, Any]:
        """What the event gives to each channel, None where an extreme gets nothing; InputError if it lacks a column."""
        row = {}
        for name in self._plan.current_columns:
            if name not in request:
                raise InputError(
                    "the request must carry the columns of its own event",
                    where=f"{self._plan.where}, request (a window includes the current event)",
                    got=name,
                    remedy=near(name, request, what="column"),
                )
            row[name] = request[name]
        return {i: self._lift(self._plan.channels[i], row, at) for i in self._wanted}

    def _lift(self, channel: Channel, row: Mapping[str, Any], at: int) -> Any:
        nothing = 0 if channel.monoid == "sum" else None
        if channel.where is not None and self._value(channel.where, row) is not True:
            return nothing
        if channel.value is None:
            return 1
        value = self._input(channel.value, row)
        if value is None or (channel.beside is not None and self._input(channel.beside, row) is None):
            return nothing
        if channel.lift == "present":
            return 1
        if channel.lift == "true":
            return int(bool(value))
        if channel.lift == "value":
            return value
        column = FactColumn(np.array([float(value)]), np.array([True]), "float")
        bare = Channel(channel.monoid, channel.lift, channel.value, None)
        lifted = lift(bare, {channel.value: column}, np.array([at]))
        return lifted.fractions()[0] if isinstance(lifted, Shifted) else float(lifted[0])

    def _input(self, text: str, row: Mapping[str, Any]) -> Any:
        value = self._value(text, row) if text in self._rows else row[text]
        return value if text in self._plan.expressions else _number(value)

    def _value(self, text: str, row: Mapping[str, Any]) -> Any:
        columns = self._expressions[text].columns
        return self._rows[text]({name: row.get(name) for name in columns})


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) + 0.0 if math.isfinite(value) else None
    return None if value is None else int(value)
