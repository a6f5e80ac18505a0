"""What ``project.features`` shows of online state: fills, streams, status, values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, count, number, short_hash, when
from retrodict.project.feature_reports import slow_blocks
from retrodict.project.frame_reports import null_shares

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features.online import Applied, HotFeature, TableLag
    from retrodict.features.operations.status import ViewStatus

__all__ = ["STATUS", "OnlineBuild", "OnlineValues", "StreamReport", "status_row"]


@dataclass(frozen=True, repr=False)
class OnlineBuild(Shown):
    """What was put into online state.

    Attributes
    ----------
    sources : dict of str to Applied
    slow : list of HotFeature
    empty : list of str
        Tables that hold no row yet.
    """

    sources: dict[str, Applied]
    slow: list[HotFeature]
    empty: list[str]

    def blocks(self) -> Sequence[Block | None]:
        """Events by source."""
        columns = ("source", "events>", "stored>", "known before>", "too old>", "never visible>")
        rows = [(n, a.events, a.stored, a.duplicates, a.too_old, a.never_visible) for n, a in self.sources.items()]
        if not rows:
            return ["No model reads a view, nor does a service: there is no state to build."]
        missing = [f"Table {name} holds no row yet: retrodict ingest {name} FILE" for name in self.empty]
        return [Grid(columns, rows), *missing, *slow_blocks(self.slow)]


@dataclass(frozen=True, repr=False)
class StreamReport(Shown):
    """How far online state follows the streams.

    Attributes
    ----------
    sources : dict of str to dict
        By source: ``offset``, ``lag``, and where state is cut ``partitions``.
    """

    sources: dict[str, dict[str, Any]]

    @property
    def lag(self) -> int:
        """Events that are not applied yet."""
        return sum(flow["lag"] for flow in self.sources.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**super().to_dict(), "lag": self.lag}

    def blocks(self) -> Sequence[Block | None]:
        """Offsets by source."""
        rows = [(source, flow["offset"], flow["lag"]) for source, flow in self.sources.items()]
        if not rows:
            return ["Nothing is deployed and no feature service is defined: no state to keep current."]
        behind = f"\n{count(self.lag)} events behind." if self.lag else None
        return [Grid(("source", "applied>", "behind>"), rows), behind]


STATUS = ("view", "version?", "read by", "verified", "lag>", "table", "newest fact>", "entities?>", "state?>",
          "null rate>", "unseen keys>")  # fmt: skip
"""Headings of how views serve."""


def status_row(v: ViewStatus) -> tuple[object, ...]:
    """How a view serves."""
    age, size = _age(v.staleness_s), None if v.bytes is None else f"{v.bytes / 1e6:,.2f} MB"
    nulls, unseen, table = number(v.null_rate), number(v.unseen_keys), _contained(v.table)
    return v.view, short_hash(v.version), v.read_by, v.verified, v.lag, table, age, v.entities, size, nulls, unseen


def _contained(lag: TableLag) -> str | None:
    """What of a table is in the state, in words."""
    contained = "nothing" if lag.version is None else f"@{lag.version}"
    if lag.behind:
        return f"{contained} of @{lag.newest}: {count(lag.rows)} rows behind"
    return None if lag.version is None else contained


def _age(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds < 0:
        return f"in {-seconds:,.0f} s"
    return f"{seconds:,.0f} s ago" if seconds < 172_800 else f"{seconds / 86_400:,.0f} days ago"


class OnlineValues(Shown):
    """Rows with features from online state.

    Attributes
    ----------
    frame : data frame
        Of the kind that was passed; Arrow for a file.
    at : int
        Time of the requests, microseconds.
    features : list of str
        Columns that were added.
    nulls : dict of str to int
        Nulls by feature.
    statuses : dict of str to dict
        By view, how often each status came: ``ok``, ``unseen``, ``no_state``, ``beyond_horizon`` …
    output : Path or None
        File that was written.

    Examples
    --------
    >>> values = project.features.online(keys, "origin_delays")  # doctest: +SKIP
    >>> values.frame, values.statuses  # doctest: +SKIP
    """

    __slots__ = ("_rows", "at", "features", "frame", "nulls", "output", "statuses")

    def __init__(
        self, frame: Any, added: pa.Table, at: int, statuses: dict[str, dict[str, int]], output: Path | None
    ) -> None:
        self.frame, self.at, self.statuses, self.output = frame, at, statuses, output
        self.features, self._rows = list(added.column_names), added.num_rows
        self.nulls = {name: added.column(name).null_count for name in added.column_names}

    def to_dict(self) -> dict[str, Any]:
        """Plain form, without the rows."""
        return {"rows": self._rows, "at": format_time(self.at), "features": self.features, "nulls": self.nulls,
                "statuses": self.statuses, "output": None if self.output is None else str(self.output)}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Nulls by feature, statuses by view."""
        statuses = [
            (view, ", ".join(f"{count(n)} {status}" for status, n in sorted(counts.items())))
            for view, counts in self.statuses.items()
        ]
        output = None if self.output is None else str(self.output)
        return [Facts({"rows": self._rows, "at": when(self.at), "written to": output}),
                null_shares(self._rows, self.nulls), Grid(("view", "statuses"), statuses)]  # fmt: skip
