"""The naive oracle: what a feature means, in plain Python, one row after the other.

It is the contract of the feature engines in executable form and shares no code with them: no sorting, no prefix, no
NumPy, its own durations. It is slow on purpose; nothing here is clever enough to be wrong in the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from retrodict.core.expressions import parse
from retrodict.features.definitions import Aggregate, FeatureView, Latest, Window

__all__ = ["Oracle"]

_UNIT = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6, "w": 604800 * 10**6}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Fact = tuple[int, int, Any, dict[str, Any], int]  # event time, known at, sequence, row, position


class Oracle:
    """Values of one view by definition.

    Parameters
    ----------
    view : FeatureView
        The view.
    rows : iterable of mapping
        Every row of its source, in the order of the table.
    """

    def __init__(self, view: FeatureView, rows: Iterable[Mapping[str, Any]]) -> None:
        self.view = view
        self._facts: dict[Any, list[Fact]] = {}
        for position, raw in enumerate(rows):
            row = {name: plain(value) for name, value in raw.items()}
            key = _key([row.get(name) for name in view.entity.keys])
            source = view.source
            happened: Any
            known: Any
            if source.where is not None and _true(source.where, row) is not True:
                continue
            if source.event_time is None and source.known_at is None:
                happened = known = -math.inf
            else:
                happened = row.get(str(source.event_time or source.known_at))
                delay = 0 if source.delay is None else micros(source.delay)
                known = row.get(source.known_at) if source.known_at else None if happened is None else happened + delay
            if key is None or happened is None or known is None:
                continue
            sequence = position if source.sequence is None else row[source.sequence]
            self._facts.setdefault(key, []).append((happened, known, sequence, row, position))
        self._facts = {key: _first_deliveries(facts) for key, facts in self._facts.items()}

    def values(self, request: Mapping[str, Any], at: int) -> dict[str, Any]:
        """Value of every feature, by its name within the view, for a request row at a time."""
        request = {name: plain(value) for name, value in request.items()}
        renamed = dict(self.view.key_map)
        key = _key([request.get(renamed.get(name, name)) for name in self.view.entity.keys])
        found: dict[str, Any] = {}
        lengths = [
            micros(w.length) + micros(w.hop or "0s")
            for f in self.view.features
            if isinstance(f, Aggregate)
            for w in f.over
        ]
        # Looked through once per request; every window then looks at what any of them could hold.
        oldest = at - max(lengths, default=0)
        near = [f for f in self._facts.get(key, []) if oldest <= f[0] < at and f[1] < at]
        for feature in self.view.features:
            if isinstance(feature, Latest):
                for name, column in zip(feature.names(), feature.columns, strict=True):
                    found[name] = None if key is None else self._latest(key, column, feature.max_age, at)
            else:
                for name, window in zip(feature.names(), feature.over, strict=True):
                    rows = [fact[3] for fact in _inside(near, window, at)]
                    rows += [dict(request)] if window.include_current else []
                    found[name] = None if key is None else _aggregate(feature, rows)
        return found

    def explain(self, request: Mapping[str, Any], at: int) -> list[tuple[int, int, Any, int]]:
        """Event time, known-at, sequence and row position of every fact of the request's key that is visible."""
        renamed = dict(self.view.key_map)
        key = _key([plain(request.get(renamed.get(name, name))) for name in self.view.entity.keys])
        return [(f[0], f[1], f[2], f[4]) for f in self._facts.get(key, []) if f[0] < at and f[1] < at]

    def _latest(self, key: Any, column: str, max_age: str | None, at: int) -> Any:
        newest: Fact | None = None
        for fact in self._facts.get(key, []):
            if fact[0] < at and fact[1] < at and (newest is None or fact[:3] > newest[:3]):
                newest = fact
        if newest is None or (max_age is not None and at - newest[0] > micros(max_age)):
            return None
        return _finite(newest[3].get(column))


def _inside(facts: list[Fact], window: Window, at: int) -> list[Fact]:
    """Visible facts of a window."""
    start = at - micros(window.length)
    if window.hop is not None:
        start -= start % micros(window.hop)
    return [f for f in facts if start <= f[0] < at and f[1] < at]


def _first_deliveries(facts: list[Fact]) -> list[Fact]:
    first: dict[Any, Fact] = {}
    for fact in facts:
        known = first.get((fact[0], fact[2]))
        if known is None or fact[1] < known[1]:
            first[fact[0], fact[2]] = fact
    return list(first.values())


def _aggregate(feature: Aggregate, rows: list[dict[str, Any]]) -> Any:
    if feature.where is not None:
        rows = [row for row in rows if _true(feature.where, row) is True]
    if feature.op == "count":
        return len(rows)
    read = (
        (lambda row: _true(feature.value or "", row))
        if feature.op == "share"
        else (lambda row: _finite(row.get(feature.value)))
    )
    values = [value for value in map(read, rows) if value is not None]
    if not values:
        return None
    if feature.op in {"min", "max"}:
        return min(values) if feature.op == "min" else max(values)
    if feature.op == "share":
        return sum(1 for value in values if value) / len(values)
    total = math.fsum(values) if any(isinstance(value, float) for value in values) else sum(values)
    return float(total) / len(values) if feature.op == "mean" else total


def _true(text: str, row: Mapping[str, Any]) -> Any:
    columns, compute = _condition(text)
    return compute({name: row.get(name) for name in columns})


@lru_cache(maxsize=256)
def _condition(text: str) -> tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Any]]:
    expression = parse(text)
    return expression.columns, expression.to_row()


def _key(values: list[Any]) -> Any:
    return None if None in values else tuple((type(value).__name__, value) for value in values)


def micros(text: str) -> int:
    """Microseconds of a duration."""
    return sum(int(number) * _UNIT[unit] for number, unit in re.findall(r"(\d+)\s*([a-z]+)", text))


def plain(value: Any) -> Any:
    """Times as microseconds; anything else as it is."""
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def _finite(value: Any) -> Any:
    """Numbers that are no number as null, and no negative zero; a condition sees them as its language says."""
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None
    return value
