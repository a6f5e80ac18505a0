"""Windows: how far back a feature looks from the time of a decision, and how that is written in its name.

A window is named as it is written: ``24h`` and ``1d`` are one span and two names. Its identity is the span, so only
the names that an aggregate makes of it tell two spellings apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import DefinitionError
from retrodict.core.identity import content_hash
from retrodict.features.calendars import CalendarUnits

__all__ = ["EVER", "LIFETIME", "Over", "Window", "positive_duration", "windows_of"]

LIFETIME = "lifetime"
"""Length of a window without a left edge: everything that was ever visible."""

EVER = -(1 << 62)
"""Left edge of a lifetime window: before every event."""


@dataclass(frozen=True)
class Window:
    """How far back an aggregate looks from the time of the decision.

    The window is ``[start, end)`` in event time, ``end = q - offset`` and ``start = end - length``; only what was
    known before ``q`` counts, whatever the offset.

    Parameters
    ----------
    length : str
        Length, like ``"2h"``, or ``"lifetime"`` for everything.
    hop : str, optional
        Both edges but that at the decision itself are snapped down to whole multiples of this since 1970-01-01 UTC, so
        the window holds up to one hop more. None: the edges are exact.
    include_current : bool, default False
        Whether the request's own event counts: the row that asks is lifted like an event of the source, so it must
        carry the columns the aggregate reads. Events of others at the same microsecond stay out either way.
    offset : str, optional
        How long before the decision the window ends, like ``"7d"`` for "the 7 days before the last 7". None: at the
        decision.
    units : CalendarUnits, optional
        Days, weeks or months of a calendar; :meth:`calendar` fills it in, with ``length`` and ``offset``.

    Examples
    --------
    >>> Window("120m").name, Window("24h", hop="1h").name, Window("7d", offset="1d").name
    ('120m', '24h_hop_1h', '7d_before_1d')
    """

    length: str
    hop: str | None = None
    include_current: bool = False
    offset: str | None = None
    units: CalendarUnits | None = None

    @classmethod
    def calendar(
        cls, unit: str, *, zone: str = "UTC", count: int = 1, before: int = 0, include_current: bool = False
    ) -> Window:
        """Window of whole days, weeks or months on the calendar of a zone, over daylight saving.

        Parameters
        ----------
        unit : {"day", "week", "month"}
            Weeks begin on Monday.
        zone : str, default "UTC"
            IANA name of the zone.
        count : int, default 1
            How many units.
        before : int, default 0
            How many units before that of the decision the window ends. 0: its last unit is the current one, as far as
            the decision; 1: the last whole one.
        include_current : bool, default False
            As of every window; only with ``before=0``.

        Examples
        --------
        >>> Window.calendar("month", zone="Europe/Berlin").name, Window.calendar("day", count=7, before=1).name
        ('month_berlin', '7_days_before_1')
        """
        units = CalendarUnits(unit, zone, count, before)
        return cls(unit, include_current=include_current, offset=unit if before else None, units=units)

    def __post_init__(self) -> None:
        """Check the durations and drop their spaces, so that they can stand in names."""
        if self.units is None:
            self._check_spans()
        if self.offset is not None and self.include_current:
            raise DefinitionError(
                "a window that ends before the decision must not hold the request's own event",
                where="window",
                got=self.offset,
                remedy="Remove offset= or include_current=",
            )

    def _check_spans(self) -> None:
        if self.length != LIFETIME:
            object.__setattr__(self, "length", _spelled(self.length, "window length"))
        for name in ("hop", "offset"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _spelled(getattr(self, name), f"window {name}"))
        if self.length == LIFETIME and self.hop is not None and self.offset is None:
            raise DefinitionError(
                "a lifetime must have no hop: it has no left edge to snap",
                where="window",
                got=self.hop,
                remedy="Remove hop=",
            )

    def __identity__(self) -> dict[str, Any]:
        """Durations in one spelling: how a window is written changes no version."""
        if self.units is not None:
            return {"kind": "Window", "include_current": self.include_current, "units": vars(self.units)}
        spans = {name: getattr(self, name) for name in ("length", "hop", "offset")}
        body = {
            name: format_duration(parse_duration(text)) for name, text in spans.items() if text not in (None, LIFETIME)
        }
        return {"kind": "Window", "include_current": self.include_current, **spans, **body}

    @property
    def lifetime(self) -> bool:
        """Whether the window has no left edge."""
        return self.length == LIFETIME

    @property
    def bounded(self) -> bool:
        """Whether the window ends before the decision."""
        return self.offset is not None

    @property
    def length_us(self) -> int:
        """Length in microseconds; 0 for a lifetime. Of calendar units, with their offset, the least there can be."""
        if self.units is not None:
            end, start, _ = self.units.distances()
            return start - end
        return 0 if self.lifetime else parse_duration(self.length)

    @property
    def hop_us(self) -> int:
        """How far an edge can lie behind length and offset, exclusive: the hop in microseconds, 0 for exact edges."""
        if self.units is not None:
            return self.units.distances()[2]
        return 0 if self.hop is None else parse_duration(self.hop)

    @property
    def offset_us(self) -> int:
        """How long before the decision the window ends, in microseconds."""
        if self.units is not None:
            return self.units.distances()[0]
        return 0 if self.offset is None else parse_duration(self.offset)

    @property
    def reach_us(self) -> int:
        """How far before the decision an event of the window can be, in microseconds; a lifetime's is its offset's."""
        return self.length_us + self.offset_us + self.hop_us

    @property
    def name(self) -> str:
        """What the window adds to a feature's name: its durations as they are written."""
        if self.units is not None:
            return self.units.name + ("_with_current" if self.include_current else "")
        hop = "" if self.hop is None else f"_hop_{self.hop}"
        before = "" if self.offset is None else f"_before_{self.offset}"
        return self.length + before + hop + ("_with_current" if self.include_current else "")

    def start(self, at: Any) -> Any:
        """Left edge, inclusive, of the window of a decision (or an array of them); ``EVER`` for a lifetime."""
        if self.units is not None:
            return self.units.start(at)
        return EVER if self.lifetime else self._snapped(at - self.offset_us - self.length_us)

    def end(self, at: Any) -> Any:
        """Right edge, exclusive, of the window of a decision (or an array of them)."""
        if self.units is not None:
            return self.units.end(at)
        return at if self.offset is None else self._snapped(at - self.offset_us)

    def _snapped(self, edge: Any) -> Any:
        return edge if self.hop is None else edge // self.hop_us * self.hop_us


Over = str | Window | Sequence[str | Window]


def positive_duration(text: str, where: str) -> str:
    """Return a duration longer than nothing in its shortest text."""
    value: object = text
    if not isinstance(value, str) or parse_duration(text, where=where) == 0:
        raise DefinitionError(
            "a duration here must be text and longer than nothing", where=where, got=text, remedy="Write it like '2h'"
        )
    return format_duration(parse_duration(text))


def _spelled(text: str, where: str) -> str:
    """Return a duration longer than nothing as it is written, without spaces and leading zeros."""
    positive_duration(text, where)
    return "".join(f"{int(number)}{unit}" for number, unit in re.findall(r"([0-9]+)\s*([a-z]+)", text))


def windows_of(over: Over, where: str) -> tuple[Window, ...]:
    """Return the windows of an aggregate, written as one or several texts or Window objects."""
    spans = [over] if isinstance(over, str | Window) else list(over)
    windows = tuple(span if isinstance(span, Window) else Window(span) for span in spans)
    if not windows or len({content_hash(window) for window in windows}) != len(windows):
        raise DefinitionError(
            "an aggregate must have one or more windows, each of another span",
            where=where,
            got=len(windows),
            remedy="Write over='2h' or over=['2h', '24h']",
        )
    return windows
