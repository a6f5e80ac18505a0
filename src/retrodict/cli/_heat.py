"""What ``features plan, show, build`` say of views that will be slow to read, counted on a bounded number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrodict.features.definitions import FeatureView
    from retrodict.features.derived import Derived
    from retrodict.features.online import HotFeature
    from retrodict.workspace import Workspace

__all__ = ["said_of", "slow_features"]

_ROWS = 1_000_000  # rows of a table that are looked at


def slow_features(project: Workspace, defined: Iterable[FeatureView | Derived]) -> list[HotFeature]:
    """Features that read many events of a key, by the newest version of their tables.

    A table of more than a million rows is looked at in part: then the counts are those of the part.
    """
    from retrodict.core.errors import DefinitionError
    from retrodict.features.catalogue import check_schema
    from retrodict.features.definitions import FeatureView
    from retrodict.features.online import hot_features
    from retrodict.features.plan import ViewPlan

    found: list[HotFeature] = []
    for view in defined:
        if not isinstance(view, FeatureView) or not project.tables.history(view.source.table.name):
            continue
        plan = ViewPlan(view)
        if not plan.bags:
            continue
        try:
            check_schema(plan, project.tables.schema(view.source.table.name))
        except DefinitionError:  # told elsewhere, with the remedy
            continue
        found += hot_features(plan, _some_rows(project, view.source.table.name, plan.source_columns))
    return found


def _some_rows(project: Workspace, table: str, columns: Sequence[str]) -> Any:
    paths, rows = [], 0
    for file in project.tables.files(table):
        if rows and rows + file.rows > _ROWS:
            break
        paths.append(file.path)
        rows += file.rows
    return project.tables.dataset(table, paths=paths).head(_ROWS, columns=list(columns))


def said_of(slow: Sequence[HotFeature]) -> list[Any]:
    """Lines for people."""
    return [f"\nSLOW: {each}." for each in slow]
