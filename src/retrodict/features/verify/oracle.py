"""The naive oracle: what a feature means, in plain Python, one row after the other.

It is the contract of the feature engines in executable form and shares no code with them: no sorting, no prefix, no
NumPy, its own durations. It is slow on purpose; nothing here is clever enough to be wrong in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from retrodict.features.definitions import FeatureView, Latest, Window, computed_inputs
from retrodict.features.verify.oracle_values import aggregate, finite, micros, plain, true

__all__ = ["Oracle", "plain"]

_EPOCH = date(1970, 1, 1)
_DAY = 86_400_000_000  # microseconds

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
        self._computed = computed_inputs(view)
        source = view.source
        for position, raw in enumerate(rows):
            row = self._row(raw)
            key = _key([row.get(name) for name in view.key_columns])
            happened: Any
            known_at: Any
            if not source.revised and not _kept(view, row):
                continue
            if source.event_time is None and source.known_at is None:
                happened = known_at = -math.inf
            else:
                happened = row.get(str(source.event_time or source.known_at))
                delay = 0 if source.delay is None else micros(source.delay)
                known_at = (
                    row.get(source.known_at) if source.known_at else None if happened is None else happened + delay
                )
            if key is None or happened is None or known_at is None:
                continue
            sequence = position if source.sequence is None else row[source.sequence]
            self._facts.setdefault(key, []).append((happened, known_at, sequence, row, position))
        if not source.revised:
            self._facts = {key: _first_deliveries(facts) for key, facts in self._facts.items()}

    def _row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Plain values of a row, the inputs that are computed of it among them."""
        row = {name: plain(value) for name, value in raw.items()}
        return row | {text: true(text, row) for text in self._computed}

    def values(self, request: Mapping[str, Any], at: int) -> dict[str, Any]:
        """Value of every feature, by its name within the view, for a request row at a time."""
        request = {name: plain(value) for name, value in request.items()}
        key, values = self._key_of(request), {}
        visible = self._visible(key, at)
        for feature in self.view.features:
            if isinstance(feature, Latest):
                for name, column in zip(feature.names(), feature.columns, strict=True):
                    values[name] = _latest(visible, column, feature.max_age, at)
            else:
                for name, window in zip(feature.names(), feature.over, strict=True):
                    facts = [(fact[0], fact[3]) for fact in _inside(visible, window, at)]
                    facts += [(at, self._row(request))] if window.include_current else []
                    values[name] = None if key is None else aggregate(feature, window, facts, at)
        return values

    def _key_of(self, request: Mapping[str, Any]) -> Any:
        renamed = dict(self.view.key_map)
        return _key([plain(request.get(renamed.get(name, name))) for name in self.view.key_columns])

    def _visible(self, key: Any, at: int) -> list[Fact]:
        """What could be known before a time, in the total order: of every event its newest known revision."""
        facts = [fact for fact in self._facts.get(key, []) if fact[1] < at]
        if self.view.source.revised:
            newest: dict[Any, Fact] = {}
            for fact in facts:
                revision = newest.get(fact[2])
                if revision is None or (fact[1], fact[4]) > (revision[1], revision[4]):
                    newest[fact[2]] = fact
            facts = [fact for fact in newest.values() if _kept(self.view, fact[3])]
        return sorted((fact for fact in facts if fact[0] < at), key=lambda fact: fact[:3])

    def explain(self, request: Mapping[str, Any], at: int) -> list[tuple[int, int, Any, int]]:
        """Event time, known-at, sequence and row position of every fact of the request's key that is visible."""
        return [(fact[0], fact[1], fact[2], fact[4]) for fact in self._visible(self._key_of(request), at)]


def _kept(view: FeatureView, row: dict[str, Any]) -> bool:
    """Whether a row says something that counts."""
    source = view.source
    if source.where is not None and true(source.where, row) is not True:
        return False
    return source.deleted is None or true(source.deleted, row) is not True


def _latest(visible: list[Fact], column: str, max_age: str | None, at: int) -> Any:
    if not visible or (max_age is not None and at - visible[-1][0] > micros(max_age)):
        return None
    return finite(visible[-1][3].get(column))


def _inside(facts: list[Fact], window: Window, at: int) -> list[Fact]:
    """Those of the visible facts that are in a window."""
    if window.units is not None:
        units, today = window.units, _today(at, window.units.zone)
        first = _first_day(units.unit, today, units.before + units.count - 1)
        end = at
        if units.before:
            end = _beginning(_first_day(units.unit, today, units.before - 1), units.zone)
        return [fact for fact in facts if _beginning(first, units.zone) <= fact[0] < end]
    hop = 1 if window.hop is None else micros(window.hop)
    end = at if window.offset is None else (at - micros(window.offset)) // hop * hop
    offset = 0 if window.offset is None else micros(window.offset)
    if window.length == "lifetime":
        return [fact for fact in facts if fact[0] < end]
    start = (at - offset - micros(window.length)) // hop * hop
    return [fact for fact in facts if start <= fact[0] < end]


def _today(at: int, zone: str) -> date:
    """Latest day of a zone's calendar that has begun; a clock that is set back over midnight ends no day."""
    day = date.fromordinal(_EPOCH.toordinal() + at // _DAY) - timedelta(days=2)
    while _beginning(day + timedelta(days=1), zone) <= at:
        day += timedelta(days=1)
    return day


def _first_day(unit: str, today: date, before: int) -> date:
    """First day of the unit so many units before that of a day."""
    if unit == "month":
        year, month = divmod(today.year * 12 + today.month - 1 - before, 12)
        return date(year, month + 1, 1)
    if unit == "week":
        return today - timedelta(days=today.weekday() + 7 * before)
    return today - timedelta(days=before)


@lru_cache(maxsize=10_000)
def _beginning(day: date, zone: str) -> int:
    """First second of the world at which a zone's calendar shows a day or a later one, found by looking."""
    clock, minute = ZoneInfo(zone), timedelta(minutes=1)
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=17)
    while moment.astimezone(clock).date() < day:
        moment += minute
    moment -= minute
    while moment.astimezone(clock).date() < day:
        moment += timedelta(seconds=1)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _first_deliveries(facts: list[Fact]) -> list[Fact]:
    first: dict[Any, Fact] = {}
    for fact in facts:
        delivery = first.get((fact[0], fact[2]))
        if delivery is None or fact[1] < delivery[1]:
            first[fact[0], fact[2]] = fact
    return list(first.values())


def _key(values: list[Any]) -> Any:
    """Key to compare by: text, booleans and whole numbers never meet; a day is its number, as a time is."""
    days = [(value - _EPOCH).days if isinstance(value, date) else value for value in values]
    return None if None in values else tuple((type(value).__name__, value) for value in days)
