"""Health of the features that decide, as metrics: what reads found, how far streams are behind, how large state is.

Reads are counted where they happen, in plain dictionaries of one thread: a decision pays some hundred nanoseconds.
What has to be asked of stores is asked in the background and kept, so that scraping never waits for one. Sizes are
those that writers count as they write; a scan was rejected: a server of keys answers nobody while it scans.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from retrodict.core.identity import short
from retrodict.features.online.read.rows import FeatureRow
from retrodict.features.online.stream.table_feeder import TableLag

__all__ = ["FeatureHealth", "ViewFlow"]

_MOST = 2_000
"""Features of which nulls are counted one by one; those beyond count together, as ``_other``."""

_PATTERNS = 500
_OTHER = "_other__other"

_NAMES = {"beyond_horizon": "late"}

_HELP = {
    "feature_reads_total": ("counter", "Reads of a view by what became of them."),
    "feature_sampled_reads_total": ("counter", "Reads of a view that were looked at for nulls, about one in eight."),
    "feature_nulls_total": ("counter", "Reads in which a feature was null, of the sampled reads of its view."),
    "feature_lag_records": ("gauge", "Records of the stream that are not in the state yet."),
    "feature_table_lag_rows": ("gauge", "Rows of the table's newest version that are not in the state yet."),
    "feature_partition_lag_records": ("gauge", "The same of each partition of the state."),
    "feature_staleness_seconds": ("gauge", "Time since the newest event in the state became visible."),
    "feature_state_entities": ("gauge", "Keys that the state holds events of."),
    "feature_state_bytes": ("gauge", "Bytes of the state."),
    "feature_state_refreshed_timestamp_seconds": ("gauge", "When the gauges of features were last asked for."),
}


@dataclass(frozen=True, slots=True)
class ViewFlow:
    """State of a view: how far it is behind its stream, and how large it is.

    Attributes
    ----------
    view, version : str
        Name, and content hash of the definition.
    lags : dict of int to int
        By partition, records that are not in the state yet.
    watermark : int, optional
        When the newest event became visible; None before any, and for facts without a time.
    entities, size : int
        Keys, and bytes.
    table : TableLag
        How far it is behind its table.
    """

    view: str
    version: str
    lags: dict[int, int]
    watermark: int | None
    entities: int
    size: int
    table: TableLag


class FeatureHealth:
    """Counts reads of features and shows them with the newest gauges; for one thread.

    Attributes
    ----------
    behind : dict of str to int or None
        By version of a view that is behind its table, or whose stream stands still, what its state lacks (None: nobody
        knows how much); replaced as a whole.
    refreshed : int, optional
        When that was.

    Examples
    --------
    >>> health = FeatureHealth()
    >>> health.count(FeatureRow({"v__mean": None}, {"v": "unseen"}, {"v": 0}, set()))
    >>> [line for line in health.exposition(0).splitlines() if line[0] != "#"]
    ['retrodict_feature_reads_total{view="v",status="unseen"} 1', \
'retrodict_feature_sampled_reads_total{view="v"} 1', 'retrodict_feature_nulls_total{view="v",feature="mean"} 1']
    """

    def __init__(self) -> None:
        self.behind: dict[str, int | None] = {}
        self._flows: Sequence[ViewFlow] = ()
        self.refreshed: int | None = None
        self._patterns: dict[tuple[str, ...], int] = defaultdict(int)
        self._reads: dict[tuple[str, str], int] = defaultdict(int)
        self._sampled: dict[str, int] = defaultdict(int)
        self._nulls: dict[str, int] = {}
        self._pause, self._bits = 0, Random().getrandbits  # noqa: S311  # which reads are looked at is no secret

    @property
    def flows(self) -> Sequence[ViewFlow]:
        """State of each view as it was last asked for."""
        return self._flows

    @flows.setter
    def flows(self, flows: Sequence[ViewFlow]) -> None:
        before = {flow.version: max(flow.lags.values()) for flow in self._flows}
        behind: dict[str, int | None] = {flow.version: flow.table.rows for flow in flows if flow.table.behind}
        for flow in flows:  # a stream is always a moment behind; one that does not move stands still
            lag = max(flow.lags.values())
            if lag >= before.get(flow.version, lag + 1) > 0:
                behind[flow.version] = (flow.table.rows if flow.table.behind else 0) + lag
        self._flows, self.behind = flows, behind

    def doubt(self) -> None:
        """Call every view behind, nobody knows by how much: the stores that would say so do not answer."""
        unknown: dict[str, int | None] = {flow.version: None for flow in self._flows}
        self.behind = unknown | self.behind

    def count(self, row: FeatureRow) -> None:
        """Count one read of all views of a feature set."""
        statuses = row.statuses
        if row.expired:
            for view, status in statuses.items():  # no event within reach is another matter than no event at all
                self._reads[view, "expired" if status == "unseen" and view in row.expired else status] += 1
        else:  # views and statuses as one pattern: a handful of patterns make nearly all reads
            self._patterns[*statuses, *statuses.values()] += 1
            if len(self._patterns) > _PATTERNS:
                self._settle()
        if self._pause:
            self._pause -= 1
            return
        self._pause = self._bits(4)  # by chance: callers come in steps, and every eighth could be the same one
        for view in statuses:
            self._sampled[view] += 1
        for column in [name for name, value in row.values.items() if value is None]:
            name = column if column in self._nulls or len(self._nulls) < _MOST else _OTHER
            self._nulls[name] = self._nulls.get(name, 0) + 1

    def _settle(self) -> None:
        for pattern, count in self._patterns.items():
            half = len(pattern) // 2
            for pair in zip(pattern[:half], pattern[half:], strict=True):
                self._reads[pair] += count
        self._patterns.clear()

    def counts(self) -> dict[str, list[Any]]:
        """Reads that were counted, in a form that JSON holds."""
        self._settle()
        return {"reads": [[*pair, count] for pair, count in self._reads.items()],
                "sampled": list(self._sampled.items()), "nulls": list(self._nulls.items())}  # fmt: skip

    def add(self, counts: Mapping[str, list[Any]]) -> None:
        """Add the reads that another process has counted, as its :meth:`counts` says."""
        for view, status, count in counts["reads"]:
            self._reads[view, status] += count
        for view, count in counts["sampled"]:
            self._sampled[view] += count
        for name, count in counts["nulls"]:
            self._nulls[name] = self._nulls.get(name, 0) + count

    def exposition(self, now: int) -> str:
        """Text format of Prometheus, version 0.0.4; ``now`` in microseconds."""
        lines: list[str] = []
        for name, samples in self._samples(now):
            texts = [f"retrodict_{name}{{{labels}}} {value}" if labels else f"retrodict_{name} {value}"
                     for labels, value in samples]  # fmt: skip
            if texts:
                kind, text = _HELP[name]
                lines += [f"# HELP retrodict_{name} {text}", f"# TYPE retrodict_{name} {kind}", *texts]
        return "\n".join(lines) + "\n" if lines else ""

    def _samples(self, now: int) -> Iterator[tuple[str, Iterable[tuple[str, str]]]]:
        self._settle()
        reads = sorted((view, _NAMES.get(status, status), count) for (view, status), count in self._reads.items())
        yield "feature_reads_total", [(f'view="{view}",status="{status}"', str(n)) for view, status, n in reads]
        yield "feature_sampled_reads_total", [(f'view="{view}"', str(n)) for view, n in sorted(self._sampled.items())]
        nulls = [(*name.split("__", 1), count) for name, count in sorted(self._nulls.items())]
        # Values of derived functions are no reads of a view: their nulls come from what they are made of.
        listed = [(view, feature, n) for view, feature, n in nulls if view in self._sampled or view == "_other"]
        yield "feature_nulls_total", [(f'view="{view}",feature="{feature}"', str(n)) for view, feature, n in listed]
        flows = [(f'view="{flow.view}",version="{short(flow.version)}"', flow) for flow in self.flows]
        yield "feature_table_lag_rows", [(label, str(flow.table.rows)) for label, flow in flows]
        yield "feature_lag_records", [(label, str(max(flow.lags.values()))) for label, flow in flows]
        yield (
            "feature_partition_lag_records",
            [
                (f'{label},partition="{partition}"', str(lag))
                for label, flow in flows
                if len(flow.lags) > 1
                for partition, lag in sorted(flow.lags.items())
            ],
        )
        yield (
            "feature_staleness_seconds",
            [(label, f"{(now - flow.watermark) / 1e6:.3f}") for label, flow in flows if flow.watermark is not None],
        )
        yield "feature_state_entities", [(label, str(flow.entities)) for label, flow in flows]
        yield "feature_state_bytes", [(label, str(flow.size)) for label, flow in flows]
        if self.refreshed is not None:
            yield "feature_state_refreshed_timestamp_seconds", [("", f"{self.refreshed / 1e6:.3f}")]
