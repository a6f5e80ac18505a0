"""What ``project.features`` shows of online state: fills, streams, status, values, pushed events, erasures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, count, number, short_hash, shorten, when
from retrodict.project.feature_reports import slow_blocks
from retrodict.project.frame_reports import null_shares

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features.online import Applied, HotFeature
    from retrodict.features.operations.erasure import Erasure
    from retrodict.features.operations.pushed_events import PushedEvents
    from retrodict.features.operations.status import ViewStatus

__all__ = ["ErasureReport", "OnlineBuild", "OnlineValues", "PushReport", "StreamReport", "status_blocks"]


@dataclass(frozen=True, repr=False)
class OnlineBuild(Shown):
    """What was put into online state.

    Attributes
    ----------
    sources : dict of str to Applied
    slow : list of HotFeature
    """

    sources: dict[str, Applied]
    slow: list[HotFeature]

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        sources = {name: asdict(applied) for name, applied in self.sources.items()}
        return {"sources": sources, "slow": [hot.to_dict() for hot in self.slow]}

    def blocks(self) -> Sequence[Block | None]:
        """Events by source."""
        columns = ("source", "events>", "stored>", "known before>", "too old>", "never visible>")
        rows = [(n, a.events, a.stored, a.duplicates, a.too_old, a.never_visible) for n, a in self.sources.items()]
        if not rows:
            return ["No model is defined: there is nothing to build."]
        return [Grid(columns, rows), *slow_blocks(self.slow)]


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
        return {"sources": self.sources, "lag": self.lag}

    def blocks(self) -> Sequence[Block | None]:
        """Offsets by source."""
        rows = [(source, flow["offset"], flow["lag"]) for source, flow in self.sources.items()]
        if not rows:
            return ["Nothing is deployed: no state to keep current."]
        behind = f"\n{count(self.lag)} events behind." if self.lag else None
        return [Grid(("source", "applied>", "behind>"), rows), behind]


def status_blocks(views: Sequence[ViewStatus]) -> Sequence[Block | None]:
    """Table of how views serve."""
    rows = [
        (v.view, short_hash(v.version), v.read_by, v.verified, v.lag, _age(v.staleness_s), v.entities, _size(v.bytes),
         number(v.null_rate), number(v.unseen_keys))
        for v in views
    ]  # fmt: skip
    columns = ("view", "version?", "read by", "verified", "lag>", "newest fact>", "entities?>", "state?>",
               "null rate>", "unseen keys>")  # fmt: skip
    return [Grid(columns, rows) if rows else "No model is defined: no view serves."]


def _age(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds < 0:
        return f"in {-seconds:,.0f} s"
    return f"{seconds:,.0f} s ago" if seconds < 172_800 else f"{seconds / 86_400:,.0f} days ago"


def _size(size: int | None) -> str | None:
    return None if size is None else f"{size / 1e6:,.2f} MB"


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


class PushReport(Shown):
    """What became of events that were pushed.

    Attributes
    ----------
    source : str
    pushed : PushedEvents
    """

    __slots__ = ("_sequenced", "pushed", "source")

    def __init__(self, source: str, pushed: PushedEvents, *, sequenced: bool) -> None:
        self.source, self.pushed, self._sequenced = source, pushed, sequenced

    @property
    def ok(self) -> bool:
        """Whether every row was an event."""
        return not self.pushed.refused

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        pushed, reasons = self.pushed, [asdict(refusal) for refusal in self.pushed.refused]
        return {"source": self.source, "stream": pushed.stream, "events": pushed.events, "accepted": pushed.accepted,
                "known_before": pushed.known_before, "refused": self._refused, "reasons": reasons,
                "end": pushed.end}  # fmt: skip

    @property
    def _refused(self) -> int:
        return sum(refusal.events for refusal in self.pushed.refused)

    def blocks(self) -> Sequence[Block | None]:
        """The sum of what became of them, and reasons."""
        pushed = self.pushed
        parts = f"{count(pushed.accepted)} accepted + {count(pushed.known_before)} known before"
        reasons = [(refusal.reason, refusal.events, refusal.first_row) for refusal in pushed.refused]
        return [
            f"{pushed.stream}: {count(pushed.events)} events = {parts} + {count(self._refused)} refused",
            Grid(("refused because", "events>", "first row>"), reasons) if reasons else None,
            None if self._sequenced
            else f"\n{self.source} declares no sequence: pushed again, these events count again.",
        ]  # fmt: skip


class ErasureReport(Shown):
    """What was removed of subjects, or would be, and what remains where.

    Attributes
    ----------
    erasure : Erasure
    vacuumed : dict of str to dict
        By table, what a vacuum deleted.
    """

    __slots__ = ("erasure", "vacuumed")

    def __init__(self, erasure: Erasure, vacuumed: dict[str, dict[str, Any]]) -> None:
        self.erasure, self.vacuumed = erasure, vacuumed

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**self.erasure.to_dict(), "vacuum": self.vacuumed}

    def blocks(self) -> Sequence[Block | None]:
        """Tables and states, then everything that still holds them."""
        report = self.erasure
        verb = "removed" if report.done else "would be removed"
        tables = [(t.table, t.rows, t.version, t.older, [shorten(ref) for ref in t.kept_for]) for t in report.tables]
        states = [(view, entries if report.done else "everything of them") for view, entries in report.states.items()]
        remaining = [(name, "not comparable" if n is None else n) for name, n in report.remaining.items()]
        headings = ("table", f"rows {verb}>", "newest version>", "older versions>", "kept for?")
        return [
            Facts({"entity": report.entity, "subjects": report.subjects, "done": report.done}),
            Grid(headings, tables),
            Grid(("online state of", f"entries {verb}>"), states),
            Grid(("not rewritten", "rows or records of them>"), remaining) if remaining else None,
            *self._counted(),
            *(text for table in report.tables for text in self._older_versions(table.table, table.older)),
            None if report.done else "\nNothing was changed. Do it with --yes.",
        ]

    def _counted(self) -> list[str]:
        report = self.erasure
        if not report.counted_in or not any(table.rows for table in report.tables):
            return []
        names = ", ".join(report.counted_in)
        return [f"\nViews about others read the same rows, and their online state keeps what it counted: {names}."]

    def _older_versions(self, table: str, older: int) -> list[str]:
        deleted = len(self.vacuumed[table]["deleted"]) if table in self.vacuumed else 0
        texts = [f"\n{table}: {count(deleted)} older versions deleted."] if deleted else []
        if older > deleted:
            reason = "are kept for what the table above names" if self.vacuumed else "can be deleted with --vacuum"
            texts.append(f"\n{table}: {count(older - deleted)} older versions still hold the rows; they {reason}.")
        return texts
