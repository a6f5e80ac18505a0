"""Keeps the online state of everything that is deployed current: which feature sets, from which streams, how far.

Runs as a process of its own beside the server (``retrodict features stream``). What decided before the present revision
is kept current too, so that a rollback finds its features as fresh as the champion's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.durations import parse_duration
from retrodict.core.errors import NotFoundError
from retrodict.data.sources import Source
from retrodict.features.online.entries import NEVER
from retrodict.features.online.state import Applied, OnlineState
from retrodict.features.online.stream import StreamFeeder, materialise
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.project import Project
from retrodict.registry import current
from retrodict.serving.feature_sets import feature_set_of
from retrodict.serving.health import ViewFlow

__all__ = ["Upkeep", "build_online", "stream_of"]


def stream_of(table: str) -> str:
    """Stream that carries the live events of a table."""
    return f"events/{table}"


def online_state(project: Project, features: FeatureSet, *, own: Sequence[int] | None = None) -> OnlineState:
    """Online state of a feature set with the project's horizon and partitions, of which ``own`` are written.

    Not synced on every write: the stream and the tables can be read again, and a torn write never shows.
    """
    config = project.config
    return OnlineState(
        features,
        project.keys,
        horizon=config["features.horizon"],
        durable=False,
        partitions=config["features.partitions"],
        own=own,
    )


def build_online(project: Project, *, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Applied]:
    """Fill the online state of all defined models from the newest versions of their tables; idempotent.

    Returns
    -------
    dict of str to Applied
        By source.
    """
    done: dict[str, Applied] = {}
    models = project.definitions.of(Model)
    for place, model in enumerate(models):
        features = FeatureSet(model.features)
        state = online_state(project, features)
        for step, (name, source) in enumerate(features.sources.items()):
            if progress is not None:
                progress(f"build {name}", place * len(features.sources) + step, len(models) * len(features.sources))
            rows = _within_reach(project, features, source, project.tables.read(source.table.name))
            done[name] = materialise(state, rows, name, now=project.clock.now())
    return done


def _within_reach(project: Project, features: FeatureSet, source: Source, rows: pa.Table) -> pa.Table:
    """Rows that a request at the end of the history or later can still see: the rest would be sorted for nothing."""
    plans = [plan for plan in features.views if plan.source.name == source.name]
    if source.event_time is None or any(p.unbounded or p.lifetime or p.source.revised for p in plans):
        return rows
    reach = max(plan.lookback_us for plan in plans) + parse_duration(project.config["features.horizon"])
    times = rows.column(source.event_time)
    newest = pc.max(times.cast(pa.int64())).as_py()
    if newest is None:
        return rows
    # History may end long ago (a replayed year): what counts is the newest event, unless that lies in the future.
    oldest = pa.scalar(min(newest, project.clock.now()) - reach, pa.int64()).cast(times.type)
    return rows.filter(pc.greater_equal(times, oldest))


class Upkeep:
    """Feeds every deployed feature set from the streams of its tables.

    For one thread; any number of processes may look at :meth:`lags`.

    Parameters
    ----------
    project : Project
    own : sequence of int, optional
        Partitions to feed and to look at; other processes have the others. None: all.
    """

    def __init__(self, project: Project, *, own: Sequence[int] | None = None) -> None:
        self._project, self._own = project, own
        self._seen: int | None = None
        self._feeders: dict[tuple[str, str], StreamFeeder] = {}

    def refresh(self) -> None:
        """Follow the deployments; cheap when nothing changed."""
        counter = self._project.records.change_counter()
        if counter == self._seen:
            return
        for features in _deployed(self._project):
            state = online_state(self._project, features, own=self._own)
            for name, source in features.sources.items():
                key = (features.version, name)
                if key not in self._feeders:
                    self._feeders[key] = StreamFeeder(state, self._project.events, stream_of(source.table.name), name)
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
        found: dict[str, dict[str, Any]] = {}
        for (_, name), feeder in self._feeders.items():
            lags, known = feeder.lags(), found.get(name, {}).get("partitions", {})
            worst = {each: max(lag, known.get(each, 0)) for each, lag in lags.items()}
            lag = max(found.get(name, {}).get("lag", 0), *worst.values())
            found[name] = {"offset": feeder.offset, "lag": lag}
            if self._project.config["features.partitions"] > 1:
                found[name]["partitions"] = worst
        return found

    def flows(self) -> list[ViewFlow]:
        """State of every view that is fed: one read of its meta entries each, and of no block."""
        self.refresh()
        found: dict[str, ViewFlow] = {}
        for (_, name), feeder in self._feeders.items():
            lags = feeder.lags()
            for plan in feeder.state.plans(name):
                meta = feeder.state.meta(plan)
                timed = meta.watermark != NEVER and not plan.source.timeless
                found[plan.view.version] = ViewFlow(
                    plan.name,
                    plan.view.version,
                    lags,
                    meta.watermark if timed else None,
                    meta.entities,
                    meta.size + meta.segment_bytes,
                )
        return list(found.values())


def _deployed(project: Project) -> list[FeatureSet]:
    """Feature sets of what decides and of what decided before, once each."""
    found: dict[str, FeatureSet] = {}
    for revision in current(project).values():
        deployed = revision.deployment
        pairs = [(deployed.model_code, deployed.model)]
        if deployed.previous is not None:
            pairs.append((deployed.previous["model_code"], deployed.previous["model"]))
        for code, model in pairs:
            # A model that was renamed since lives on in its own code object; one that is gone has nothing to feed.
            with suppress(NotFoundError):
                features = feature_set_of(project, code, model.partition("@")[0])
                found[features.version] = features
    return list(found.values())
