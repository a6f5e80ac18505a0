"""What a project knows around a batch: other tables, and the earlier versions of its own.

Only what was published counts: neither a halted batch nor one that somebody released in spite of its checks enters the
history that later batches are compared with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from retrodict.core.errors import NotFoundError
from retrodict.stores.tables.base import TableVersion
from retrodict.workspace import Workspace

if TYPE_CHECKING:  # importing it loads pandas where that is installed
    import pyarrow.dataset as ds

__all__ = ["MEASURES", "OVERRIDE", "ProjectContext"]

MEASURES, OVERRIDE = "retrodict.measures", "retrodict.override"
_DEPTH = 20


class ProjectContext:
    """The surroundings of a batch of one table, for the checks that compare it.

    Parameters
    ----------
    workspace : Workspace
    table : str
        Name of the table.
    """

    def __init__(self, workspace: Workspace, table: str) -> None:
        self._workspace, self._table = workspace, table
        self._now = workspace.clock.now()
        self._history: list[TableVersion] | None = None

    @property
    def now(self) -> int:
        """Moment of the check, microseconds UTC."""
        return self._now

    def table(self, ref: str) -> ds.Dataset | None:
        """Rows of a table, ``name`` or ``name@version-tag-or-time``; None if there is none."""
        from retrodict.data.versions import resolve

        try:
            found = resolve(self._workspace, ref)
            return self._workspace.tables.dataset(found.name, found.version)
        except NotFoundError:
            return None

    def previous(self) -> ds.Dataset | None:
        """Rows that the newest published batch added."""
        tables = self._workspace.tables
        for version in reversed(self._batches()):
            number = version.version
            if version.vacuumed:
                return None
            before = {file.path for file in tables.files(self._table, number - 1)} if number else set()
            added = sorted({file.path for file in tables.files(self._table, number)} - before)
            if added:
                return tables.dataset(self._table, number, paths=added)
        return None

    def measured(self) -> list[Mapping[str, float]]:
        """Numbers of the batches of up to 20 published versions, oldest first."""
        texts = [version.metadata.get(MEASURES) for version in self._batches()]
        return [json.loads(text) for text in texts if text][-_DEPTH:]

    def _batches(self) -> list[TableVersion]:
        """Versions that a batch made which passed."""
        if self._history is None:
            self._history = self._workspace.tables.history(self._table)
        return [v for v in self._history if "retrodict.batch" in v.metadata and OVERRIDE not in v.metadata]
