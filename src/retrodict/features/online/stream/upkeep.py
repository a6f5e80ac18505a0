"""Keeps the online state of feature sets current: from which tables and streams, how far behind.

Which sets are served is for the caller to say: this room knows no model and no deployment. Tables and streams are
followed by a process of its own beside the server (``retrodict features stream``), and before a decision in process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from retrodict.core.errors import BusyError, RetrodictError
from retrodict.data.sources import Source
from retrodict.features.definitions import FeatureView
from retrodict.features.online.read.features import OnlineFeatures
from retrodict.features.online.state.entries import NEVER, Applied
from retrodict.features.online.stream.feeder import StreamFeeder, stream_of
from retrodict.features.online.stream.health import ViewFlow
from retrodict.features.online.stream.table_feeder import Report, TableFeeder, TableLag, no_report
from retrodict.features.online.write.writer import OnlineState
from retrodict.features.plan import FeatureSet
from retrodict.workspace import Workspace

__all__ = ["Upkeep", "build_online", "online_features", "online_state", "table_lags", "unbuilt_views"]

_LOOK_S = 2.0


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
    workspace: Workspace, sets: Sequence[FeatureSet], *, progress: Report = no_report
) -> dict[str, Applied]:
    """Fill the online state of feature sets from the newest versions of their tables; idempotent.

    Returns
    -------
    dict of str to Applied
        By source, summed over the sets: what a set finds done by another one is not lost from the counts.
    """
    applied: dict[str, Applied] = {}
    for features in sets:
        state = online_state(workspace, features)
        with hold_state(workspace, state):
            for name, source in features.sources.items():
                more = asdict(TableFeeder(workspace, state, source).catch_up(progress, widen=True))
                earlier = applied.get(name, Applied(0))
                events = max(earlier.events, more.pop("events"))  # the rows are the same for each set
                applied[name] = replace(earlier.plus(**more), events=events)
    return applied


@contextmanager
def hold_state(workspace: Workspace, state: OnlineState, *, timeout_s: float = 3600.0) -> Iterator[None]:
    """Read tables into the partitions of a state alone; BusyError if another process does for longer."""
    with ExitStack() as stack:
        for partition in state.assigned:
            stack.enter_context(workspace.lock(f"features/tables-{partition}", timeout_s=timeout_s))
        yield


def follow_tables(workspace: Workspace, features: FeatureSet, tables: Collection[str]) -> None:
    """Bring the state of a set up to some tables, where it was built before; the caller holds the state."""
    state = online_state(workspace, features)
    for source in features.sources.values():
        feeder = TableFeeder(workspace, state, source)
        if source.table.name in tables and feeder.lag().version is not None:
            feeder.catch_up()


def _stream_feeder(workspace: Workspace, state: OnlineState, source: Source) -> StreamFeeder:
    """Feeder of the live events of a source, in the types of its table."""
    table, tables = source.table.name, workspace.tables
    schema = tables.schema(table) if tables.history(table) else None
    return StreamFeeder(state, workspace.events, stream_of(table), source.name, schema=schema)


def table_lags(workspace: Workspace, features: FeatureSet) -> dict[str, TableLag]:
    """How far the online state of each source of a set is behind its table."""
    state = online_state(workspace, features)
    return {name: TableFeeder(workspace, state, source).lag() for name, source in features.sources.items()}


def unbuilt_views(workspace: Workspace, features: FeatureSet) -> list[FeatureView]:
    """Views of a set whose table has rows that were never read into their online state."""
    state = online_state(workspace, features)
    feeders = {name: TableFeeder(workspace, state, source) for name, source in features.sources.items()}
    return [plan.view for plan in features.views if feeders[plan.source.name].unbuilt(plan)]


class Upkeep:
    """Feeds every served feature set from its tables and from their streams.

    For one thread; any number of processes may look at :meth:`lags`.

    Parameters
    ----------
    workspace : Workspace
    served : callable
        Gives the feature sets to keep current; asked again when the records changed.
    assigned : sequence of int, optional
        Partitions to feed and to look at; other processes have the others. None: all.

    An error of a table is raised by every call, but the table is tried again after two seconds only.
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
        self._feeders: dict[tuple[str, str], _Feeders] = {}
        self._looked = -_LOOK_S
        self._followed = False
        self._errors: list[RetrodictError] = []
        self._lacking: dict[str, int | None] = {}
        self._stopped: set[str] = set()

    @property
    def behind(self) -> dict[str, int | None]:
        """By version of a view that was not brought up to date, the rows of its table that it lacks.

        None: nobody knows how many, as its table or its stream cannot be read.
        """
        return self._lacking | dict.fromkeys(self._stopped)

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
                    stream = _stream_feeder(self._workspace, state, source)
                    self._feeders[key] = _Feeders(name, state, stream, TableFeeder(self._workspace, state, source))
        self._seen, self._followed = counter, False

    def catch_up(self, *, wait_s: float = 0.0) -> int:
        """Apply what is in the tables, then what is in the streams; returns how many events were taken in.

        Parameters
        ----------
        wait_s : float, default 0
            Seconds to wait for another process that reads the tables. While one does, nothing is applied here.

        Raises
        ------
        BusyError
            If ``wait_s`` is not 0 and the other process took longer.
        RetrodictError
            The first error of a source, once all others have been brought up to date.
        """
        self.refresh()
        try:
            applied = self._follow_tables(wait_s)
        except BusyError:
            if wait_s:
                raise
            return 0
        errors, stopped = list(self._errors), set()
        for feeders in self._feeders.values():
            try:
                if feeders.stream.lag():
                    applied += feeders.stream.catch_up().applied.events
            except RetrodictError as error:  # one source that stands still must not stop the others
                errors.append(error)
                stopped |= {plan.view.version for plan in feeders.state.plans(feeders.source)}
        self._stopped = stopped
        if errors:
            raise errors[0]
        return applied

    def _follow_tables(self, wait_s: float) -> int:
        """Take in new versions; looked for when the records changed, and every two seconds for what has no entry."""
        if self._followed and time.monotonic() - self._looked < _LOOK_S:
            return 0
        applied, busy = 0, None
        errors: list[RetrodictError] = []
        lacking: dict[str, int | None] = {}
        for feeders in self._feeders.values():
            try:
                if busy is None and feeders.table.needed():
                    with hold_state(self._workspace, feeders.state, timeout_s=wait_s):
                        applied += feeders.table.catch_up().events
            except BusyError as error:
                busy = error
            except RetrodictError as error:
                errors.append(error)
            lacking |= feeders.lacking()
        self._errors, self._lacking = errors, lacking
        self._followed, self._looked = busy is None, time.monotonic()
        if busy is not None:
            raise busy
        return applied

    def lags(self) -> dict[str, dict[str, Any]]:
        """Per source: offset that the state has reached, events after it, and how far it is behind its table.

        If the state is cut into partitions, these are of the one furthest behind; ``partitions`` has the lag of each.
        """
        self.refresh()
        sources: dict[str, dict[str, Any]] = {}
        for (_, name), feeders in self._feeders.items():
            lags, earlier = feeders.stream.lags(), sources.get(name, {})
            worst = {
                partition: max(lag, earlier.get("partitions", {}).get(partition, 0)) for partition, lag in lags.items()
            }
            table = asdict(feeders.table.lag())
            if earlier and earlier["table"]["rows"] > table["rows"]:
                table = earlier["table"]
            lag = max(earlier.get("lag", 0), *worst.values())
            sources[name] = {"offset": feeders.stream.offset, "lag": lag, "table": table}
            if self._workspace.config["features.partitions"] > 1:
                sources[name]["partitions"] = worst
        return sources

    def flows(self) -> list[ViewFlow]:
        """State of every view that is fed: one read of its meta entries each, and of no block."""
        self.refresh()
        flows: dict[str, ViewFlow] = {}
        for (_, name), feeders in self._feeders.items():
            lags, table_lags = feeders.stream.lags(), feeders.table.lags()
            for plan in feeders.state.plans(name):
                meta = feeders.state.meta(plan)
                timed = meta.watermark != NEVER and not plan.source.timeless
                flows[plan.view.version] = ViewFlow(
                    plan.name,
                    plan.view.version,
                    lags,
                    meta.watermark if timed else None,
                    meta.entities,
                    meta.total_size,
                    table_lags[plan.view.version],
                )
        return list(flows.values())


class _Feeders(NamedTuple):
    """What feeds one source of one feature set."""

    source: str
    state: OnlineState
    stream: StreamFeeder
    table: TableFeeder

    def lacking(self) -> dict[str, int | None]:
        """By version of a view that is behind its table, the rows that it lacks; None: the table cannot be read."""
        try:
            return {version: lag.rows for version, lag in self.table.lags().items() if lag.behind}
        except RetrodictError:  # has been raised by what asked before
            return {plan.view.version: None for plan in self.state.plans(self.source)}
