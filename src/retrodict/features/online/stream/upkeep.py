"""Keeps the online state of feature sets current: from which tables and streams, how far behind.

Which sets are served is for the caller to say: this room knows no model and no deployment. Streams are followed by a
process of its own beside the server (``retrodict features stream``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.durations import parse_duration
from retrodict.data.sources import Source
from retrodict.features.online.read.features import OnlineFeatures
from retrodict.features.online.state.entries import NEVER, Applied
from retrodict.features.online.stream.feeder import StreamFeeder
from retrodict.features.online.stream.health import ViewFlow
from retrodict.features.online.write.writer import OnlineState
from retrodict.features.plan import FeatureSet
from retrodict.workspace import Workspace

__all__ = ["Upkeep", "build_online", "online_features", "online_state", "stream_of"]


def stream_of(table: str) -> str:
    """Stream that carries the live events of a table."""
    return f"events/{table}"


def online_state(workspace: Workspace, features: FeatureSet, *, assigned: Sequence[int] | None = None) -> OnlineState:
    """Online state of a feature set with the project's horizon and partitions, of which ``assigned`` are written.

    Not synced on every write: the stream and the tables can be read again, and a torn write never shows.
    """
    config = workspace.config
    return OnlineState(
        features,
        workspace.keys,
        horizon=config["features.horizon"],
        durable=False,
        partitions=config["features.partitions"],
        assigned=assigned,
    )


def online_features(workspace: Workspace, features: FeatureSet) -> OnlineFeatures:
    """Reader of a feature set from the online state."""
    return OnlineFeatures(features, workspace.keys, partitions=workspace.config["features.partitions"])


def build_online(
    workspace: Workspace, sets: Sequence[FeatureSet], *, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, Applied]:
    """Fill the online state of feature sets from the newest versions of their tables; idempotent.

    Returns
    -------
    dict of str to Applied
        By source.
    """
    applied: dict[str, Applied] = {}
    sources = [(features, name, source) for features in sets for name, source in features.sources.items()]
    for step, (features, name, source) in enumerate(sources):
        if progress is not None:
            progress(f"build {name}", step, len(sources))
        rows = _within_reach(workspace, features, source, workspace.tables.read(source.table.name))
        applied[name] = online_state(workspace, features).load(rows, name, now=workspace.clock.now())
    return applied


def _within_reach(workspace: Workspace, features: FeatureSet, source: Source, rows: pa.Table) -> pa.Table:
    """Rows that a request at the end of the history or later can still see: the rest would be sorted for nothing."""
    plans = [plan for plan in features.views if plan.source.name == source.name]
    if source.event_time is None or any(p.unbounded or p.lifetime or p.source.revised for p in plans):
        return rows
    reach = max(plan.lookback_us for plan in plans) + parse_duration(workspace.config["features.horizon"])
    times = rows.column(source.event_time)
    newest = pc.max(times.cast(pa.int64())).as_py()
    if newest is None:
        return rows
    # History may end long ago (a replayed year): what counts is the newest event, unless that lies in the future.
    oldest = pa.scalar(min(newest, workspace.clock.now()) - reach, pa.int64()).cast(times.type)
    return rows.filter(pc.greater_equal(times, oldest))


class Upkeep:
    """Feeds every served feature set from the streams of its tables.

    For one thread; any number of processes may look at :meth:`lags`.

    Parameters
    ----------
    workspace : Workspace
    served : callable
        Gives the feature sets to keep current; asked again when the records changed.
    assigned : sequence of int, optional
        Partitions to feed and to look at; other processes have the others. None: all.
    """

    def __init__(
        self,
        workspace: Workspace,
        served: Callable[[Workspace], Sequence[FeatureSet]],
        *,
        assigned: Sequence[int] | None = None,
    ) -> None:
        self._workspace, self._served, self._assigned = workspace, served, assigned
        self._seen: int | None = None
        self._feeders: dict[tuple[str, str], StreamFeeder] = {}

    def refresh(self) -> None:
        """Follow the deployments; cheap when nothing changed."""
        counter = self._workspace.records.change_counter()
        if counter == self._seen:
            return
        for features in self._served(self._workspace):
            state = online_state(self._workspace, features, assigned=self._assigned)
            for name, source in features.sources.items():
                key = (features.version, name)
                if key not in self._feeders:
                    self._feeders[key] = StreamFeeder(state, self._workspace.events, stream_of(source.table.name), name)
        self._seen = counter

    def catch_up(self) -> int:
        """Apply what is in the streams; returns how many events were taken in."""
        self.refresh()
        return sum(feeder.catch_up().applied.events for feeder in self._feeders.values() if feeder.lag())

    def lags(self) -> dict[str, dict[str, Any]]:
        """Per source: offset that the state has reached, and events after it.

        If the state is cut into partitions, these are of the one furthest behind; ``partitions`` has the lag of each.
        """
        self.refresh()
        sources: dict[str, dict[str, Any]] = {}
        for (_, name), feeder in self._feeders.items():
            lags, earlier = feeder.lags(), sources.get(name, {}).get("partitions", {})
            worst = {partition: max(lag, earlier.get(partition, 0)) for partition, lag in lags.items()}
            lag = max(sources.get(name, {}).get("lag", 0), *worst.values())
            sources[name] = {"offset": feeder.offset, "lag": lag}
            if self._workspace.config["features.partitions"] > 1:
                sources[name]["partitions"] = worst
        return sources

    def flows(self) -> list[ViewFlow]:
        """State of every view that is fed: one read of its meta entries each, and of no block."""
        self.refresh()
        flows: dict[str, ViewFlow] = {}
        for (_, name), feeder in self._feeders.items():
            lags = feeder.lags()
            for plan in feeder.state.plans(name):
                meta = feeder.state.meta(plan)
                timed = meta.watermark != NEVER and not plan.source.timeless
                flows[plan.view.version] = ViewFlow(
                    plan.name,
                    plan.view.version,
                    lags,
                    meta.watermark if timed else None,
                    meta.entities,
                    meta.total_size,
                )
        return list(flows.values())
