"""Keeps online state up with the versions of a table: the twin of the feeder of streams.

How much of which version is in stands with the state, written in the same transaction as the rows. Rows that a later
version appended are taken in alone; a table whose rows were replaced is read anew, and until it is in, nothing is
answered rather than something from half a table.

Many rows are sorted by key first, on disk where they are more than memory should hold. Taken in the order of the
table, each piece would hold events of most keys, and so read and write nearly all of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.identity import short
from retrodict.data.sources import Source
from retrodict.features.facts.columns import times
from retrodict.features.online.state.entries import NEVER, UNKNOWN, Applied, Meta, TablePlace
from retrodict.features.online.write.writer import OnlineState
from retrodict.features.plan import ViewPlan
from retrodict.stores.sql import sorted_rows
from retrodict.stores.tables.base import TableStore, files_id
from retrodict.workspace import Workspace

__all__ = ["Report", "TableFeeder", "TableLag", "no_report"]

_PIECE = 100_000  # rows taken at once
_STORED = 64 << 20  # bytes of their keys, read and written with them
_POSITION = "position in the table"

Report = Callable[[str, int, int], None]
Views = list[tuple[ViewPlan, list[int]]]
"""Views of a source, with the partitions of each that are meant."""


def no_report(what: str, done: int, total: int) -> None:
    """Report of progress to nobody."""


@dataclass(frozen=True, slots=True)
class TableLag:
    """How far the state of a source is behind its table.

    Attributes
    ----------
    table : str
    version : int or None
        Version that the state contains; None: nothing of the table.
    newest : int or None
        Newest version; None: the table has none.
    rows : int
        Rows of the newest version that are not in the state, in the view and partition that is furthest behind.
    streamed : bool
        Whether it will take none of these: a stream feeds it, and events of both cannot be told apart.
    shortfall : str or None
        What is wrong in words where the state was built with a shorter ``features.horizon`` than it has now.
    """

    table: str
    version: int | None
    newest: int | None
    rows: int
    streamed: bool = False
    shortfall: str | None = None

    @property
    def behind(self) -> bool:
        """Whether the state does not contain the newest version."""
        return self.newest is not None and (self.version != self.newest or self.rows > 0)


class _Files(NamedTuple):
    """Data files of a version: their hash, rows in all, and paths."""

    id: str
    rows: int
    paths: frozenset[str]


class TableFeeder:
    """Applies the rows of one table to the online state of one source.

    A view that counts a lifetime and is fed from a stream takes nothing more from the table after the first time: of
    what a total holds, no event can be told from its redelivery. Nor does a view without a sequence that is fed from a
    stream. Either stays behind, and :meth:`lag` says so.

    Parameters
    ----------
    workspace : Workspace
    state : OnlineState
        What to feed.
    source : Source
        Whose table.
    """

    def __init__(self, workspace: Workspace, state: OnlineState, source: Source) -> None:
        self._workspace, self._state, self._source = workspace, state, source
        self._tables: TableStore = workspace.tables
        self._table = source.table.name
        self._plans = state.plans(source.name)
        self._files_of: dict[int, _Files] = {}

    def lag(self) -> TableLag:
        """How far the view that is furthest behind is; a read of the table's log and of entries of the state."""
        return self._lag(self._plans, self._newest())

    def lags(self) -> dict[str, TableLag]:
        """How far each view is behind, by its version."""
        newest = self._newest()
        return {plan.view.version: self._lag([plan], newest) for plan in self._plans}

    def _lag(self, plans: Sequence[ViewPlan], newest: int | None) -> TableLag:
        if newest is None:
            return TableLag(self._table, None, None, 0)
        places = [meta.place for plan in plans for meta in self._state.metas(plan).values()]
        total = self._files(newest).rows
        rows = max(total - (self._start(place, newest) or 0) for place in places)
        versions = [None if p.unfinished or not self._contains(p, newest) else p.version for p in places]
        oldest = None if None in versions else min(version for version in versions if version is not None)
        lag = TableLag(self._table, oldest, newest, rows)
        waiting = any(True for plan in plans for _ in self._behind(plan, newest))
        return replace(lag, streamed=lag.behind and not waiting, shortfall=self._shortfall(plans))

    def catch_up(self, progress: Report = no_report, *, widen: bool = False) -> Applied:
        """Take in what the newest version has and the state has not; a killed call is continued by the next.

        Only one may run at a time for the same partitions. With ``widen`` a state that was built with a shorter horizon
        is built anew; one that a stream feeds is not, since nobody knows whether the stream still has all of it.
        """
        newest, done = self._newest(), Applied(0)
        if newest is None:
            return done
        for plan in self._plans if widen else ():
            if numbers := [number for number, meta in self._short(plan) if meta.offset is None]:
                self._state.clear(plan, numbers)
        # A call that was killed may have left views and partitions at different places.
        groups: dict[TablePlace, Views] = {}
        for plan in self._plans:
            alike: dict[TablePlace, list[int]] = {}
            for partition, meta in self._behind(plan, newest):
                alike.setdefault(self._begin(plan, partition, meta, newest), []).append(partition)
            for place, partitions in alike.items():
                groups.setdefault(place, []).append((plan, partitions))
        for place, views in groups.items():
            done = self._take(place, views, newest, done, progress)
        return done

    def _short(self, plan: ViewPlan) -> list[tuple[int, Meta]]:
        """Partitions of a view whose state was built with a shorter horizon."""
        return [item for item in self._state.metas(plan).items() if 0 < item[1].horizon < self._state.horizon]

    def _shortfall(self, plans: Sequence[ViewPlan]) -> str | None:
        metas = [meta for plan in plans for _, meta in self._short(plan)]
        if not metas:
            return None
        built, horizon = min(meta.horizon for meta in metas), self._state.horizon
        remedy = "Run: retrodict features build"
        if any(meta.offset is not None for meta in metas):
            remedy = (
                f"A stream's state has it in {format_duration(horizon - built)}, or name an empty key store. {remedy}"
            )
        return (
            f"{self._source.name}: online state was built with features.horizon = {format_duration(built)!r}, now it "
            f"is {format_duration(horizon)!r}: requests in between get nulls (beyond_horizon). {remedy}"
        )

    def unbuilt(self, plan: ViewPlan) -> bool:
        """Whether nothing of the table, which has rows, was ever read into the state of a view."""
        newest = self._newest()
        if newest is None or not self._files(newest).rows:
            return False
        metas = self._state.metas(plan).values()
        return any(
            m.place.version in {None, UNKNOWN} or m.place.unfinished for m in metas if not _follows_stream(plan, m)
        )

    def needed(self) -> bool:
        """Whether :meth:`catch_up` has anything to do."""
        newest = self._newest()
        return newest is not None and any(True for plan in self._plans for _ in self._behind(plan, newest))

    def _behind(self, plan: ViewPlan, newest: int) -> Iterator[tuple[int, Meta]]:
        """Partitions of a view that have not all of the newest version and follow the table."""
        for partition, meta in self._state.metas(plan).items():
            place = meta.place
            rows = self._files(newest).rows
            contained = place.version == newest and self._contains(place, newest) and place.rows >= rows
            if not contained and not _follows_stream(plan, meta):
                yield partition, meta

    def _begin(self, plan: ViewPlan, partition: int, meta: Meta, newest: int) -> TablePlace:
        """Place from which a partition of a view goes on; one that cannot is cleared first."""
        if self._start(meta.place, newest) is not None:
            return meta.place
        # What a stream brought stays: the rows of the table are told from it by their sequence.
        if meta.place != TablePlace() or meta.offset is None or plan.lifetime:
            self._state.clear(plan, [partition])
        return TablePlace(unfinished=True)

    def _take(self, place: TablePlace, views: Views, newest: int, done: Applied, progress: Report) -> Applied:
        """Take rows into views and partitions that are at one place of the table."""
        # What was begun in the order of keys is ended in it, whatever the table has gained since.
        version = newest if place.version is None or not place.ahead else place.version
        (files, total, _), now = self._files(version), self._workspace.clock.now()
        start = self._start(place, newest) or 0
        floor, since = None, place.since
        if start == place.ahead == 0:
            floor = self._earliest_request(newest)
            since = None if floor is None else floor - max(plan.lookback_us for plan in self._plans)
        begun = replace(place, version=version, rows=start, files=files, since=since)
        for group in _by_keys(views):
            early = total - start - place.ahead  # rows that were not even read into a piece: no request can see them
            for rows, after in self._pieces(begun, total, newest, group):
                early -= len(rows)
                positions = rows.column(_POSITION).to_numpy()
                for plan, partitions in group:
                    one = self._state.take(rows, plan, partitions, after, positions=positions, now=now, floor=floor)
                    done = done.plus(**vars(one))
                progress(f"build {self._source.name}", after.rows + after.ahead, total)
            done = done.plus(too_old=early * len(group))
        done = done.plus(events=total - start - place.ahead)
        return done if version == newest else self._take(_all(begun, total), views, newest, done, progress)

    def _pieces(
        self, begun: TablePlace, total: int, newest: int, views: Views
    ) -> Iterator[tuple[pa.Table, TablePlace]]:
        """Rows from a place on, a bounded number at a time, each with the place that it leads to.

        Many are taken in the order of their keys: what is stored of a key is then written once, not with every piece.
        """
        rows, limit, plan = self._reader(begun, total, newest), self._limit(views), views[0][0]
        if not begun.ahead and total - begun.rows <= limit:
            yield rows.read_all(), _all(begun, total)
            return
        # Of revisions known at one moment the last in the table counts; all else may come in the order of its time.
        clock = None if plan.source.revised else plan.source.event_time or plan.source.known_at
        order = [name for name in (*plan.keys, clock, _POSITION) if name is not None and name in rows.schema.names]
        folder, ahead = self._workspace.root / "state" / "temp", begun.ahead
        for piece in sorted_rows(rows, order, folder, size=limit, skip=ahead):
            ahead += len(piece)
            yield piece, replace(begun, ahead=ahead)
        yield rows.schema.empty_table(), _all(begun, total)

    def _limit(self, views: Views) -> int:
        """Rows to take at once: what is stored of their keys is read, and written anew, in one transaction."""
        metas = [meta for plan, _ in views for meta in self._state.metas(plan).values()]
        size, average = max((meta.size, meta.size // max(meta.entities, 1)) for meta in metas)
        return _PIECE if size <= _STORED else max(_PIECE // 100, min(_PIECE, _STORED // average))

    def _newest(self) -> int | None:
        self._files_of.clear()  # the table may have been made anew since the last call
        history = self._tables.history(self._table)
        return history[-1].version if history else None

    def _files(self, version: int) -> _Files:
        """Files of a version, looked up once a call: views and partitions all ask for them."""
        if version not in self._files_of:
            files = self._tables.files(self._table, version)
            paths = frozenset(file.path for file in files)
            self._files_of[version] = _Files(short(files_id(files)), sum(file.rows for file in files), paths)
        return self._files_of[version]

    def _contains(self, place: TablePlace, newest: int) -> bool:
        """Whether a state was read from a version that the table still has, as it was."""
        version = place.version
        return version is not None and 0 <= version <= newest and place.files == self._files(version).id

    def _start(self, place: TablePlace, newest: int) -> int | None:
        """Row of the newest version to go on from; None if it does not begin with the rows that are in."""
        version = place.version
        if version is None or not self._contains(place, newest):
            return None
        paths = self._files(version).paths
        for step in self._tables.history(self._table)[version + 1 : newest + 1]:
            after = self._files(step.version).paths
            if not paths <= after and step.operation != "OPTIMIZE":  # which keeps the rows and their order
                return None
            paths = after
        return place.rows

    def _reader(self, begun: TablePlace, total: int, newest: int) -> pa.RecordBatchReader:
        """Rows of a version from a place on, with their positions; of the newest, which begins with them."""
        columns = {column for plan in self._plans for column in plan.source_columns}
        names = [name for name in self._tables.schema(self._table, newest).names if name in columns]
        reader = self._tables.batches(self._table, newest, columns=names, start=begun.rows)
        schema = reader.schema.append(pa.field(_POSITION, pa.int64()))
        return pa.RecordBatchReader.from_batches(schema, self._numbered(reader, begun, total))

    def _numbered(self, reader: pa.RecordBatchReader, begun: TablePlace, total: int) -> Iterator[pa.RecordBatch]:
        position, clock = begun.rows, self._source.event_time
        for piece in reader:
            batch = piece.slice(0, total - position)
            positions = np.arange(position, position + batch.num_rows)
            position += batch.num_rows
            batch = batch.append_column(_POSITION, pa.array(positions))
            if begun.since is not None and clock is not None:
                moments, valid = times(batch.column(clock), where=f"source {self._source.name!r}")
                batch = batch.filter(pa.array(~valid | (moments >= begun.since)))
            yield batch
            if position == total:
                return

    def _earliest_request(self, newest: int) -> int | None:
        """Time of the earliest request that the state will answer; None if it answers any.

        Rows that only earlier requests can see are not read. History may end long ago (a replayed year): what counts is
        the newest event that becomes visible, unless that lies in the future.
        """
        source = self._source
        if source.event_time is None or any(p.unbounded or p.lifetime or p.source.revised for p in self._plans):
            return None
        latest, where = NEVER, f"source {source.name!r}"
        clocks = list(dict.fromkeys([source.event_time, source.known_at or source.event_time]))
        for batch in self._tables.batches(self._table, newest, columns=clocks):
            moments = [times(batch.column(clock), where=f"{where}, column {clock!r}") for clock in clocks]
            visible = moments[0][1] & moments[-1][1]
            latest = max(latest, int(moments[0][0][visible].max(initial=NEVER)))
        if latest == NEVER:
            return None
        return min(latest, self._workspace.clock.now()) - parse_duration(self._workspace.config["features.horizon"])


def _follows_stream(plan: ViewPlan, meta: Meta) -> bool:
    """Whether a state takes nothing more from its table, as events of both could not be told apart."""
    if meta.offset is None or meta.place.unfinished:
        return False
    return meta.positions == "stream" or (plan.lifetime and meta.place.version is not None)


def _by_keys(views: Views) -> list[Views]:
    """Views with the same keys together."""
    groups: dict[tuple[str, ...], Views] = {}
    for plan, partitions in views:
        groups.setdefault(tuple(plan.keys), []).append((plan, partitions))
    return list(groups.values())


def _all(begun: TablePlace, total: int) -> TablePlace:
    """Place of a state that contains all rows of a version."""
    return TablePlace(begun.version, total, begun.files)
