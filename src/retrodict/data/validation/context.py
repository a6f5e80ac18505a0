"""What a batch is compared with: the moment, other tables, and earlier versions of its own table.

Without a project there is nothing to compare with, and the checks that need it are not evaluable; that is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from retrodict.core.clock import SystemClock

if TYPE_CHECKING:  # importing it loads pandas where that is installed
    import pyarrow.dataset as ds

__all__ = ["Alone", "Context"]


class Context(Protocol):
    """What lies around a batch.

    Every method gives None where there is nothing to compare with.
    """

    @property
    def now(self) -> int:
        """Moment of the check, microseconds UTC."""
        ...

    def table(self, ref: str) -> ds.Dataset | None:
        """Rows of a table, ``name`` or ``name@version-tag-or-time``."""
        ...

    def previous(self) -> ds.Dataset | None:
        """Rows that the newest published version of this table added."""
        ...

    def measured(self) -> list[Mapping[str, float]]:
        """Numbers of the batches of up to 20 published versions, oldest first."""
        ...


class Alone:
    """A batch without a project: only the moment is known."""

    def __init__(self, now: int | None = None) -> None:
        self._now = SystemClock().now() if now is None else now

    @property
    def now(self) -> int:
        """Moment of the check, microseconds UTC."""
        return self._now

    def table(self, ref: str) -> None:
        """Nothing."""
        del ref

    def previous(self) -> None:
        """Nothing."""

    def measured(self) -> list[Mapping[str, float]]:
        """Nothing."""
        return []
