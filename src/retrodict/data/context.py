"""What a batch is compared with: the time, other tables, and earlier versions of its own table.

Without a workspace there is nothing to compare with, and the checks that need it are not evaluable. In a workspace only
published batches count: neither a halted batch nor one that somebody released in spite of its checks enters the
history that later batches are compared with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from retrodict.core.clock import SystemClock
from retrodict.core.errors import NotFoundError

if TYPE_CHECKING:  # importing it loads pandas where that is installed
    import pyarrow.dataset as ds

    from retrodict.stores.tables.base import TableVersion
    from retrodict.workspace import Workspace

__all__ = ["MEASURES", "OVERRIDE", "Context", "WorkspaceContext"]

MEASURES, OVERRIDE = "retrodict.measures", "retrodict.override"
_DEPTH = 20


class Context:
    """Where checks look up what they compare a batch with; outside a workspace there is only the time.

    Parameters
    ----------
    now : int, optional
        Moment of the check, microseconds UTC; None is the present.
    """

    def __init__(self, now: int | None = None) -> None:
        self.now = SystemClock().now() if now is None else now

    def table(self, ref: str) -> ds.Dataset | None:  # noqa: ARG002 - there are no tables
        """Rows of a table, ``name`` or ``name@version-tag-or-time``; None if there is none."""
        return None

    def previous(self) -> ds.Dataset | None:
        """Rows that the newest published batch added to this table; None if there is none."""
        return None

    def measured(self) -> list[Mapping[str, float]]:
        """Numbers of the batches of up to 20 published versions, oldest first."""
        return []


class WorkspaceContext(Context):
    """The context of a batch of one table in a workspace."""

    def __init__(self, workspace: Workspace, table: str) -> None:
        super().__init__(workspace.clock.now())
        self._workspace, self._table = workspace, table
        self._history: list[TableVersion] | None = None

    def table(self, ref: str) -> ds.Dataset | None:
        """Rows of a table."""
        from retrodict.data.versions import resolve

        try:
            target = resolve(self._workspace, ref)
            return self._workspace.tables.dataset(target.name, target.version)
        except NotFoundError:
            return None

    def previous(self) -> ds.Dataset | None:
        """Rows of the newest published batch."""
        from retrodict.data.versions.refs import added_files

        tables = self._workspace.tables
        for version in reversed(self._published()):
            number = version.version
            if version.vacuumed:
                return None
            added = added_files(tables, self._table, number)
            if added:
                rows = tables.dataset(self._table, number, paths=added)
                mine = pc.field("_batch") == version.metadata["retrodict.batch"]  # an update writes the others, too
                return rows.filter(mine) if version.metadata.get("retrodict.mode") == "update" else rows
        return None

    def measured(self) -> list[Mapping[str, float]]:
        """Numbers of published batches."""
        texts = [version.metadata.get(MEASURES) for version in self._published()]
        return [json.loads(text) for text in texts if text][-_DEPTH:]

    def _published(self) -> list[TableVersion]:
        """Versions whose batch passed its checks."""
        if self._history is None:
            self._history = self._workspace.tables.history(self._table)
        return [v for v in self._history if "retrodict.batch" in v.metadata and OVERRIDE not in v.metadata]
