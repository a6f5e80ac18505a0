"""What was not simply read: decisions by view and status, and those that a fallback made since a state was not current.

An answer from an absent or stale state is no failure of the model, and looks like one in every other number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.display import Record
from retrodict.decisions.doubts import StaleStateError

__all__ = ["ViewCounts", "count_views"]


@dataclass(frozen=True, slots=True)
class ViewCounts(Record):
    """Views of one period's decisions.

    Attributes
    ----------
    decisions : int
    statuses : dict of view to (dict of status to int)
        Decisions by what kept a view from being simply read: ``no_state``, ``behind``, ``stale``, ``beyond_horizon``,
        ``null_key``, ``unseen``. The rest was read.
    stale_fallbacks : int
        Decisions that the fallback made because the state of a view that the policy requires was not current.
    """

    decisions: int
    statuses: Mapping[str, Mapping[str, int]]
    stale_fallbacks: int

    def rows(self, period: str) -> list[tuple[object, ...]]:
        """Rows of a table: period, view, status, decisions, their share."""
        return [
            (period, view, status, times, f"{times / self.decisions:.1%}")
            for view, counts in self.statuses.items()
            for status, times in counts.items()
        ]


def count_views(decisions: pa.Table) -> ViewCounts:
    """Count :func:`~retrodict.decisions.log.decisions_table` rows by the views they name and their statuses."""
    doubts = pc.list_flatten(decisions.column("record__views"))
    pairs = zip(*(pc.struct_field(doubts, field).to_pylist() for field in ("view", "status")), strict=True)
    statuses: dict[str, dict[str, int]] = {}
    for (view, status), times in sorted(Counter(pairs).items()):
        statuses.setdefault(view, {})[status] = times
    stale = pc.sum(pc.equal(decisions.column("record__error"), StaleStateError.__name__)).as_py() or 0
    return ViewCounts(decisions.num_rows, statuses, stale)
