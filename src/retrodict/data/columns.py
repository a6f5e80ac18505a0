"""Which columns tables have, by their definitions and their newest versions, and whether definitions read others."""

from __future__ import annotations

from collections.abc import Collection

from retrodict.core.definition import Definition
from retrodict.core.names import find_faults
from retrodict.data.definitions import Table
from retrodict.workspace import Workspace

__all__ = ["check_names", "table_columns"]


def table_columns(workspace: Workspace) -> dict[str, Collection[str] | None]:
    """Columns of every defined table by name: declared, or in its newest version; None for a table without rows."""
    tables = workspace.tables
    return {
        table.name: {*tables.schema(table.name).names, *table.columns, *table.key}
        if tables.history(table.name)
        else None
        for table in workspace.definitions.of(Table)
    }


def check_names(workspace: Workspace, definition: Definition) -> None:
    """Refuse a definition that reads a column which no table with rows has; the error has the near names.

    Raises
    ------
    DefinitionError
        The first one; ``retrodict plan`` lists all of them.
    """
    for fault in find_faults([definition], table_columns(workspace)):
        raise fault
