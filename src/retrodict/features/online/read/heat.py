"""Which features will be slow to read online: those that look at every event of a window, where keys have many.

Totals are differences of running sums, so a window costs the same whatever it holds. A bag (distinct values, quantiles,
the last few values ...) has no running form: each read goes through the events of its window. How many those are is a
matter of the data, so it is counted on the rows of the tables, a bounded number of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.errors import DefinitionError
from retrodict.features.catalogue import check_schema
from retrodict.features.definitions import FeatureView
from retrodict.features.derived import Derived
from retrodict.features.facts.columns import Ints
from retrodict.features.facts.events import read_events
from retrodict.features.facts.keys import KeyIndex
from retrodict.features.plan import ViewPlan
from retrodict.workspace import Workspace

__all__ = ["HOT_EVENTS", "HotFeature", "hot_features", "slow_features"]

HOT_EVENTS = 5_000
"""Events in a window from which on a bag is called slow: about a millisecond a read, twenty times that of a total."""

_SECOND = 1_000_000
_ROWS = 1_000_000  # rows of a table that are looked at


@dataclass(frozen=True, slots=True)
class HotFeature:
    """A feature that is slow to read for some keys. No key is named.

    Attributes
    ----------
    view, feature : str
        Which feature.
    window : str
        Length of its window.
    keys : int
        Keys that at some time had more than :data:`HOT_EVENTS` events in a window of that length.
    largest : int
        Most events of one key in such a window.
    rows : int
        Rows that were looked at.
    """

    view: str
    feature: str
    window: str
    keys: int
    largest: int
    rows: int

    def __str__(self) -> str:
        """One sentence with the remedy."""
        subject = f"{self.keys:,} key{'s have' if self.keys > 1 else ' has'}"
        return (
            f"{self.view}.{self.feature} reads every event of its window, and {subject} more than {HOT_EVENTS:,} "
            f"within {self.window}, up to {self.largest:,} (in {self.rows:,} rows). Give it a shorter window, or "
            "take a total (count, sum, mean, max) in its place"
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields, and the threshold."""
        names = {"largest": "most"}
        return {names.get(name, name): value for name, value in asdict(self).items()} | {"threshold": HOT_EVENTS}


def slow_features(workspace: Workspace, features: Iterable[FeatureView | Derived]) -> list[HotFeature]:
    """Features that read many events of a key, by the newest version of their tables.

    Of a table with more than a million rows a part is looked at, and the counts are those of that part. A view whose
    table lacks a column it reads is passed over: ``features plan`` reports it.
    """
    slow: list[HotFeature] = []
    for view in features:
        if not isinstance(view, FeatureView) or not workspace.tables.history(view.source.table.name):
            continue
        plan = ViewPlan(view)
        if not plan.bags:
            continue
        try:
            check_schema(plan, workspace.tables.schema(view.source.table.name))
        except DefinitionError:
            continue
        slow += hot_features(plan, _first_rows(workspace, view.source.table.name, plan.source_columns))
    return slow


def _first_rows(workspace: Workspace, table: str, columns: Sequence[str]) -> pa.Table:
    paths, rows = [], 0
    for file in workspace.tables.files(table):
        if rows and rows + file.rows > _ROWS:
            break
        paths.append(file.path)
        rows += file.rows
    return workspace.tables.dataset(table, paths=paths).head(_ROWS, columns=list(columns))


def hot_features(plan: ViewPlan, rows: pa.Table) -> Iterator[HotFeature]:
    """Features of a view that are slow to read for some of the keys in these rows.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    rows : pyarrow.Table
        Rows of its source's table, with the columns the view reads.

    Yields
    ------
    HotFeature
        In the order of the view; nothing for a view without bags.
    """
    bags = [output for output in plan.outputs if output.bag]
    if not bags or not rows.num_rows or plan.source.timeless:
        return
    events = read_events(plan, rows)
    codes = np.asarray(KeyIndex(events.keys(plan), where=plan.where).codes)
    keyed = codes >= 0
    order = np.lexsort((events.event_time[keyed], codes[keyed]))
    codes, seconds = codes[keyed][order], events.event_time[keyed][order] // _SECOND
    counted: dict[int, Ints] = {}
    for output in bags:
        window = plan.windows[output.window]
        reach = -1 if window.lifetime else max(window.reach_us // _SECOND, 1)
        if reach not in counted:
            counted[reach] = _most_per_key(codes, seconds, reach)
        hot = counted[reach] > HOT_EVENTS
        if hot.any():
            feature = output.column.removeprefix(f"{plan.name}__")
            largest = int(counted[reach].max())
            yield HotFeature(
                plan.name,
                feature,
                window.name if window.units else window.length,
                int(hot.sum()),
                largest,
                rows.num_rows,
            )


def _most_per_key(codes: Ints, seconds: Ints, reach: int) -> Ints:
    """Most events of each key within so many seconds, -1 for ever; codes and seconds are sorted."""
    if not len(codes):
        return codes
    first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    if reach < 0:
        return np.diff(np.append(first, len(codes)))
    span = int(seconds.max() - seconds.min()) + 1
    reach = min(reach, span)
    # One number per event, with a gap wider than the window between two keys: one search finds all windows.
    line = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(codes)))) * (span + reach + 1) + seconds
    inside = np.arange(len(line)) - np.searchsorted(line, line - reach, side="right") + 1
    counts: Ints = np.maximum.reduceat(inside, first)
    return counts
