"""Windows: how far back a feature looks from the time of a decision, and how that is written in its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import DefinitionError

__all__ = ["Over", "Window", "positive_duration", "windows_of"]


@dataclass(frozen=True)
class Window:
    """How far back an aggregate looks from the time of the decision.

    Parameters
    ----------
    length : str
        Length, like ``"2h"``.
    hop : str, optional
        The left edge is snapped down to whole multiples of this since 1970-01-01 UTC, so the window holds up to one
        hop more. None: the left edge is exact.
    include_current : bool, default False
        Whether the request's own event counts: the row that asks is lifted like an event of the source, so it must
        carry the columns the aggregate reads. Events of others at the same microsecond stay out either way.

    Examples
    --------
    >>> Window("120m").name, Window("24h", hop="1h").name
    ('2h', '24h_hop_1h')
    """

    length: str
    hop: str | None = None
    include_current: bool = False

    def __post_init__(self) -> None:
        """Write durations in one way, so that equal windows are equal."""
        object.__setattr__(self, "length", positive_duration(self.length, "window length"))
        if self.hop is not None:
            object.__setattr__(self, "hop", positive_duration(self.hop, "window hop"))

    @property
    def length_us(self) -> int:
        """Length in microseconds."""
        return parse_duration(self.length)

    @property
    def hop_us(self) -> int:
        """Hop in microseconds, 0 for an exact left edge."""
        return 0 if self.hop is None else parse_duration(self.hop)

    @property
    def name(self) -> str:
        """What the window adds to a feature's name; the length in days only from two days on, as people say it."""
        hop = "" if self.hop is None else f"_hop_{_spoken(self.hop)}"
        return _spoken(self.length) + hop + ("_with_current" if self.include_current else "")

    def start(self, at: int) -> int:
        """Left edge, inclusive, of the window that ends before ``at``."""
        edge = at - self.length_us
        return edge if self.hop is None else edge // self.hop_us * self.hop_us


Over = str | Window | Sequence[str | Window]


def positive_duration(text: str, where: str) -> str:
    """Return a duration longer than nothing in its shortest text."""
    given: object = text
    if not isinstance(given, str) or parse_duration(text, where=where) == 0:
        raise DefinitionError(
            "a duration here is text and longer than nothing", where=where, got=text, remedy="Write it like '2h'"
        )
    return format_duration(parse_duration(text))


def _spoken(duration: str) -> str:
    return "24h" if duration == "1d" else duration


def windows_of(over: Over, where: str) -> tuple[Window, ...]:
    """Return the windows of an aggregate, written as one or several texts or Window objects."""
    several = [over] if isinstance(over, str | Window) else list(over)
    windows = tuple(item if isinstance(item, Window) else Window(item) for item in several)
    if not windows or len(set(windows)) != len(windows):
        raise DefinitionError(
            "an aggregate has one or more different windows",
            where=where,
            got=len(windows),
            remedy="Write over='2h' or over=['2h', '24h']",
        )
    return windows
