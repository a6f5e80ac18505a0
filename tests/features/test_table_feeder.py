"""Online state follows the versions of its table: what is read from it is what a state built anew would give."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict import Entity, FeatureView, Source, Table, agg, latest
from retrodict.core.errors import BusyError, IntegrityError, RetrodictError
from retrodict.features.online import (
    OnlineFeatures,
    OnlineState,
    StreamFeeder,
    Upkeep,
    build_online,
    encode_event,
    online_state,
    unbuilt_views,
)
from retrodict.features.online.state.entries import TablePlace
from retrodict.features.online.stream import table_feeder
from retrodict.features.online.stream.table_feeder import TableFeeder, TableLag
from retrodict.features.operations.erasure import erase
from retrodict.features.plan import FeatureSet
from retrodict.project.plan import read_lags
from retrodict.stores.keys.lmdb import LmdbKeys

BASE = 1_704_067_200_000_000
MINUTE = 60_000_000
TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema([("id", pa.int64()), ("k", pa.string()), ("e", TIME), ("x", pa.float64())])
LATER = BASE + 10_000 * MINUTE


def feature_set(*, sequence="id", over=("7d", "lifetime")):
    table = Table("events", key="id", columns={"id": "int", "k": "string", "e": "time", "x": "float"})
    source = Source("s", table, event_time="e", sequence=sequence)
    view = FeatureView("v", Entity("k"), source, [agg.count(over=list(over)), agg.sum("x", over=over[0]), latest("x")])
    return FeatureSet([view])


def rows(first, count):
    numbers = range(first, first + count)
    return pa.table(
        {"id": list(numbers), "k": ["ab"[n % 2] for n in numbers], "e": [BASE + n * MINUTE for n in numbers],
         "x": [n / 4 for n in numbers]}, pa.schema([*list(SCHEMA)[:2], ("e", pa.int64()), SCHEMA.field("x")]),
    ).cast(SCHEMA)  # fmt: skip


def values(workspace, features, keys=None):
    online = OnlineFeatures(features, keys or workspace.keys, partitions=workspace.config["features.partitions"])
    return [row.values for row in online.read_many([{"k": "a"}, {"k": "b"}, {"k": "c"}], LATER)]


def built_anew(workspace, features, tmp_path):
    keys = LmdbKeys(tmp_path / f"anew-{workspace.new_id()}")
    table = workspace.tables.read("events")
    OnlineState(features, keys, horizon="1h").apply(table, "s")
    result = values(workspace, features, keys) if workspace.config["features.partitions"] == 1 else None
    keys.close()
    return result


def feeder(workspace, features):
    return TableFeeder(workspace, online_state(workspace, features), features.sources["s"])


@pytest.mark.parametrize("sequence", ["id", None])
def test_appended_rows_are_taken_in_alone(make_project, tmp_path, sequence):
    """Once, whatever is read again; a lifetime counts nothing twice, and a source without ids neither."""
    workspace, features = make_project(), feature_set(sequence=sequence)
    workspace.tables.write("events", rows(0, 10))
    assert feeder(workspace, features).lag() == TableLag("events", None, 0, 10)
    assert build_online(workspace, [features])["s"].events == 10
    workspace.tables.write("events", rows(10, 3))
    assert feeder(workspace, features).lag() == TableLag("events", 0, 1, 3)
    assert build_online(workspace, [features])["s"].events == 3
    assert not feeder(workspace, features).lag().behind
    assert build_online(workspace, [features])["s"].events == 0
    assert values(workspace, features) == built_anew(workspace, features, tmp_path)
    assert values(workspace, features)[0]["v__count_lifetime"] == 7


def test_a_build_counts_what_the_first_of_two_sets_did(make_project):
    """Sets that share a view fill one state: the second finds it done, and the counts are those of both."""
    workspace = make_project()
    workspace.tables.write("events", rows(0, 10))
    applied = build_online(workspace, [feature_set(), feature_set()])["s"]
    assert (applied.events, applied.stored) == (10, 10)


@pytest.mark.parametrize("piece", [4, 1000])
def test_the_counts_of_a_build_add_up(make_project, monkeypatch, piece):
    """Every row is one that was stored, known before, too old for any request, or never visible; in pieces, too."""
    monkeypatch.setattr(table_feeder, "_PIECE", piece)
    workspace, old = make_project(), rows(0, 3)
    late = rows(60 * 24 * 90, 9)  # three months later: the window and the horizon end long after the first rows
    keyless = late.slice(0, 2).set_column(1, "k", pa.nulls(2, pa.string()))
    timeless = late.slice(2, 4).set_column(2, "e", pa.nulls(4, TIME))
    workspace.tables.write("events", pa.concat_tables([old, keyless, timeless, late, late.slice(0, 5)]))
    view = FeatureView("v", Entity("k"), feature_set().sources["s"], [agg.count(over="7d")])
    applied = build_online(workspace, [FeatureSet([view])])["s"]
    assert (applied.events, applied.stored, applied.duplicates, applied.too_old, applied.never_visible) == (
        23, 9, 5, 3, 6)  # fmt: skip


def test_rows_without_ids_are_told_apart_by_their_place(make_project):
    """Events of one key at one moment, in two versions: every row of the table is an event of its own."""
    workspace, features = make_project(), feature_set(sequence=None)
    same = pa.table({"id": [0] * 3, "k": ["a"] * 3, "e": [BASE] * 3, "x": [0.5] * 3}).cast(SCHEMA)
    for _ in range(2):
        workspace.tables.write("events", same)
        build_online(workspace, [features])
    assert values(workspace, features)[0]["v__count_lifetime"] == 6


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["append", "late", "compact", "restore", "overwrite", "follow"]), max_size=8),
    st.integers(3, 40),
)
def test_whatever_happens_to_the_table(tmp_path_factory, steps, piece):
    """After appends, compaction, rollbacks and overwrites in any order the state is as if it were built anew."""
    from retrodict.workspace import Workspace

    root = tmp_path_factory.mktemp("project")
    (root / "retrodict.toml").write_text('[project]\nname = "p"\n')
    before, table_feeder._PIECE = table_feeder._PIECE, piece
    try:
        with Workspace(root) as workspace:
            features, count = feature_set(over=("30d", "lifetime")), 5
            workspace.tables.write("events", rows(0, 5))
            build_online(workspace, [features])
            for step in [*steps, "follow"]:
                if step in {"append", "late"}:
                    workspace.tables.write("events", rows(count if step == "append" else 1000 - count, 4))
                    count += 4
                elif step == "compact":
                    workspace.tables.compact("events")
                elif step == "restore":
                    workspace.tables.restore("events", 0)
                elif step == "overwrite":
                    workspace.tables.write("events", rows(2, 6), mode="overwrite")
                else:
                    build_online(workspace, [features])
            assert values(workspace, features) == built_anew(workspace, features, root)
            assert not feeder(workspace, features).lag().behind
    finally:
        table_feeder._PIECE = before


def test_a_build_that_was_killed_answers_nothing_until_it_is_done(make_project, monkeypatch, tmp_path):
    """Half a table is no state: values are null, counts too; the next build goes on and counts nothing twice."""
    workspace, features = make_project(), feature_set()
    workspace.tables.write("events", rows(0, 20))
    monkeypatch.setattr(table_feeder, "_PIECE", 5)
    state, taken = online_state(workspace, features), []
    source = TableFeeder(workspace, state, features.sources["s"])
    original = state.take

    def killed(*args, **kwargs):
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(original(*args, **kwargs))
        return taken[-1]

    monkeypatch.setattr(state, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        source.catch_up()
    row = OnlineFeatures(features, workspace.keys).read({"k": "a"}, {}, LATER)
    assert (row.statuses, set(row.values.values())) == ({"v": "no_state"}, {None})
    assert [view.name for view in unbuilt_views(workspace, features)] == ["v"]
    assert replace(state.meta(features.plan("v")).place, files="") == TablePlace(0, 0, unfinished=True, ahead=10)
    with workspace.events.open_writer("events/events") as writer:
        writer.append([encode_event(row) for row in rows(20, 2).to_pylist()])
    stream = StreamFeeder(state, workspace.events, "events/events", "s")
    assert stream.catch_up().applied.stored == 0  # the stream waits for the table
    assert build_online(workspace, [features])["s"].events == 10
    assert values(workspace, features) == built_anew(workspace, features, tmp_path)
    assert unbuilt_views(workspace, features) == []
    assert stream.catch_up().applied.stored == 2


def shuffled(count, seed, sequence):
    """Rows of skewed keys in any order, some without a key, some twice."""
    draw = random.Random(seed)
    order = [n for n in range(count) for _ in range(1 + (sequence is not None and draw.random() < 0.2))]
    draw.shuffle(order)
    return pa.table(
        {"id": order, "k": [draw.choice(["a", "a", "a", "a", "b", "c", "long" * 9, None]) for _ in order],
         "e": [BASE + n // 2 * MINUTE for n in order], "x": [n / 4 for n in order], "g": [n % 3 for n in order]},
        pa.schema([*list(SCHEMA)[:2], ("e", pa.int64()), SCHEMA.field("x"), ("g", pa.int64())]),
    ).cast(pa.schema([*SCHEMA, ("g", pa.int64())]))  # fmt: skip


@contextmanager
def killed_after(updates, *, stored):
    """Interrupt one update of the key store, before or after it is stored; it is None that is not."""
    original, calls = LmdbKeys.update, []

    def update(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == updates and not stored:
            raise KeyboardInterrupt
        original(self, *args, **kwargs)
        if len(calls) == updates:
            raise KeyboardInterrupt

    with mock.patch.object(LmdbKeys, "update", update), suppress(KeyboardInterrupt):
        yield


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_a_build_that_is_killed_anywhere_goes_on(tmp_path_factory, data):
    """Two views with other keys, in partitions, of a table of many files that grows between: as if nothing happened."""
    from retrodict.workspace import Workspace

    partitions, sequence = data.draw(st.sampled_from([(1, "id"), (1, None), (3, "id"), (2, None)]))
    root = tmp_path_factory.mktemp("project")
    (root / "retrodict.toml").write_text(f'[project]\nname = "p"\n[features]\npartitions = {partitions}\n')
    source = Source("s", Table("events", key="id"), event_time="e", sequence=sequence)
    over = data.draw(st.sampled_from([["30d", "lifetime"], ["30d"], ["20m"]]))
    kinds = [agg.count(over=over), agg.sum("x", over=over), agg.last_k("x", 3, over=over[0]), latest("x")]
    views = [FeatureView("v", Entity("k"), source, kinds), FeatureView("w", Entity("k", "g"), source, kinds[:3])]
    features = FeatureSet(views)
    with Workspace(root) as workspace, mock.patch.object(table_feeder, "_PIECE", data.draw(st.integers(2, 9))):
        for part in range(data.draw(st.integers(1, 4))):
            workspace.tables.write("events", shuffled(10, part, sequence))
        for kill in data.draw(st.lists(st.integers(1, 12), max_size=3)):
            with killed_after(kill, stored=data.draw(st.booleans())):
                build_online(workspace, [features])
            change = data.draw(st.sampled_from(["append", "compact", None]))
            if change == "append":
                workspace.tables.write("events", shuffled(10, kill, sequence))
            elif change == "compact":
                workspace.tables.compact("events")
        build_online(workspace, [features])
        assert not feeder(workspace, features).lag().behind
        keys, table = LmdbKeys(root / "whole"), workspace.tables.read("events")
        OnlineState(features, keys, horizon="1h").apply(table, "s")
        requests = [{"k": key, "g": g} for key in ["a", "b", "c", "long" * 9] for g in range(3)]
        built, whole = (
            [
                row.values
                for row in OnlineFeatures(features, store, partitions=n).read_many(requests, BASE + 25 * MINUTE)
            ]
            for store, n in ((workspace.keys, partitions), (keys, 1))
        )
        keys.close()
        assert built == whole
        if over[-1] == "lifetime" and sequence is None:
            counts = [sum(k == asked["k"] for k in table.column("k").to_pylist()) for asked in requests]
            assert [row["v__count_lifetime"] for row in built] == counts


def test_a_build_survives_sigkill(make_project, tmp_path):
    """Killed in the middle of pieces sorted by key, and continued there by another process, which sweeps its files."""
    workspace, features = make_project(), feature_set()
    workspace.tables.write("events", rows(0, 200))
    script = """
import os, signal, sys
from retrodict.features.online import build_online
from retrodict.features.online.stream import table_feeder
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.workspace import Workspace
sys.path.insert(0, sys.argv[2])
from test_table_feeder import feature_set
original, calls, table_feeder._PIECE = LmdbKeys.update, [], 30
def update(self, *args, **kwargs):
    original(self, *args, **kwargs)
    calls.append(None)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
LmdbKeys.update = update
build_online(Workspace(sys.argv[1]), [feature_set()])
"""
    here = str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", script, str(workspace.root), here], check=False)
    assert killed.returncode == -signal.SIGKILL
    place = online_state(workspace, features).meta(features.plan("v")).place
    assert (place.rows, place.ahead, place.unfinished) == (0, 90, True)
    with mock.patch.object(table_feeder, "_PIECE", 30):
        assert build_online(workspace, [features])["s"].stored == 110
    assert values(workspace, features) == built_anew(workspace, features, tmp_path)
    assert list((workspace.root / "state" / "temp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("keys", [1, 100_000])
def test_a_build_takes_bounded_memory(make_project, keys):
    """Three million events of many keys, or all of one, in any order: less than a third of what they took unsorted."""
    workspace, count = make_project(), 1_000_000
    for part in range(3):
        numbers = np.arange(part * count, (part + 1) * count)
        draw = np.random.default_rng(part)
        codes = pc.cast(pa.array(draw.integers(0, keys, count)), pa.string())
        moments = pa.array(BASE + draw.integers(0, 1000, count) * MINUTE).cast(TIME)
        table = pa.table([pa.array(numbers), codes, moments, pa.array(numbers / 4)], schema=SCHEMA)
        workspace.tables.write("events", table)
    script = """
import resource, sys
from retrodict.features.online import build_online
from retrodict.workspace import Workspace
sys.path.insert(0, sys.argv[2])
from test_table_feeder import feature_set
print(build_online(Workspace(sys.argv[1]), [feature_set()])["s"].stored)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    command = [sys.executable, "-c", script, str(workspace.root), str(Path(__file__).parent)]
    stored, most = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert stored == 3 * count
    assert most < 800, f"{most} MB"


def test_a_rewritten_table_keeps_what_the_stream_brought(make_project):
    """The state is read anew from the table and then from the beginning of the stream."""
    workspace, features = make_project(), feature_set(over=("7d", "30d"))
    workspace.tables.write("events", rows(0, 10))
    with workspace.events.open_writer("events/events") as writer:
        writer.append([encode_event(row) for row in rows(8, 4).to_pylist()])
    upkeep = Upkeep(workspace, lambda _: [features])
    assert upkeep.catch_up() == 14
    assert values(workspace, features)[0]["v__count_7d"] == 6
    workspace.tables.write("events", rows(0, 4), mode="overwrite")
    assert Upkeep(workspace, lambda _: [features]).catch_up() == 8
    assert values(workspace, features)[0]["v__count_7d"] == 4  # 0, 2 of the table; 8, 10 of the stream


def test_a_lifetime_that_a_stream_feeds_takes_no_rows_that_it_may_hold(make_project):
    """What cannot be told from a redelivery stays out, and the lag says that it does."""
    workspace, features = make_project(), feature_set()
    workspace.tables.write("events", rows(0, 10))
    upkeep = Upkeep(workspace, lambda _: [features])
    upkeep.catch_up()
    with workspace.events.open_writer("events/events") as writer:
        writer.append([encode_event(row) for row in rows(10, 4).to_pylist()])
    workspace.tables.write("events", rows(10, 4))
    upkeep = Upkeep(workspace, lambda _: [features])
    upkeep.catch_up()
    upkeep.catch_up()
    assert values(workspace, features)[0]["v__count_lifetime"] == 7
    upkeep = Upkeep(workspace, lambda _: [features])
    workspace.tables.write("events", rows(14, 2))
    upkeep.catch_up()
    lags = upkeep.lags()["s"]
    assert (lags["lag"], lags["table"]) == (
        0,
        {"table": "events", "version": 1, "newest": 2, "rows": 2, "streamed": True, "shortfall": None},
    )


def test_a_state_from_before_versions_were_noted_is_built_anew(make_project, tmp_path):
    """What its table was nobody knows: kept, a source without ids would count its rows twice."""
    workspace, features = make_project(), feature_set(sequence=None)
    workspace.tables.write("events", rows(0, 10))
    state = online_state(workspace, features)
    state.apply(rows(0, 10), "s")
    (name,) = state._names[features.plan("v").state_id][0].metas
    blob = workspace.keys.get_many([name])[0]
    old = json.loads(blob[8:]) | {"loaded": [10], "digest": "ab"}
    del old["place"]
    workspace.keys.put_many({name: blob[:8] + json.dumps(old).encode()})
    assert [view.name for view in unbuilt_views(workspace, features)] == ["v"]
    build_online(workspace, [features])
    assert values(workspace, features) == built_anew(workspace, features, tmp_path)


@pytest.mark.parametrize("partitions", [1, 3])
def test_partitions_follow_the_table_each_for_itself(make_project, tmp_path, partitions):
    """One process per partition, one after the other: together they hold what one state holds."""
    workspace = make_project(settings=f"[features]\npartitions = {partitions}\n")
    features = feature_set()
    for step in range(3):
        workspace.tables.write("events", rows(step * 7, 7))
        for number in range(partitions):
            Upkeep(workspace, lambda _: [features], assigned=[number]).catch_up()
            if number + 1 < partitions:
                assert feeder(workspace, features).lag().behind
    keys = LmdbKeys(tmp_path / "one")
    single = OnlineState(features, keys)
    single.apply(workspace.tables.read("events"), "s")
    assert values(workspace, features) == [
        row.values for row in OnlineFeatures(features, keys).read_many([{"k": "a"}, {"k": "b"}, {"k": "c"}], LATER)
    ]
    keys.close()


def test_one_process_at_a_time_reads_a_table(make_project):
    """Another does nothing meanwhile, or waits and then says who reads."""
    workspace, features = make_project(), feature_set()
    workspace.tables.write("events", rows(0, 10))
    with workspace.lock("features/tables-0"):
        upkeep = Upkeep(workspace, lambda _: [features])
        assert upkeep.catch_up() == 0
        with pytest.raises(BusyError, match="one writer at a time"):
            upkeep.catch_up(wait_s=0.01)
    assert upkeep.catch_up() == 10


def test_an_empty_table_is_a_state_of_nothing(make_project):
    """A count of nothing is 0 once the table was looked at, and null before."""
    workspace, features = make_project(), feature_set()
    assert values(workspace, features)[0]["v__count_7d"] is None
    workspace.tables.write("events", rows(0, 0))
    build_online(workspace, [features])
    assert values(workspace, features)[0]["v__count_7d"] == 0


def test_an_erased_subject_does_not_come_back_from_the_stream(make_project):
    """An erasure rewrites the table, and the state is not read anew for it: the stream still holds the subject."""
    workspace, features = make_project(), feature_set(over=("7d", "30d"))
    workspace.tables.write("events", rows(0, 8))
    with workspace.events.open_writer("events/events") as writer:
        writer.append([encode_event(row) for row in rows(6, 6).to_pylist()])
    Upkeep(workspace, lambda _: [features]).catch_up()
    workspace.tables.write("events", rows(8, 2))  # not in the state yet
    report = erase(workspace, Entity("k"), pa.table({"k": ["a"]}), [features], dry_run=False)
    assert (report.tables[0].rows, report.states) == (5, {"v": 1})
    assert Upkeep(workspace, lambda _: [features]).catch_up() == 0
    assert not feeder(workspace, features).lag().behind
    assert [row["v__count_7d"] for row in values(workspace, features)] == [0, 6, 0]
    workspace.tables.write("events", rows(12, 2))
    assert Upkeep(workspace, lambda _: [features]).catch_up() == 2
    assert [row["v__count_7d"] for row in values(workspace, features)] == [1, 7, 0]


def test_another_table_of_the_same_version_is_told_apart(make_project, tmp_path):
    """A table that was restored from a copy and went on otherwise: the number is the same, the rows are not."""
    workspace, features = make_project(), feature_set()
    workspace.tables.write("events", rows(0, 5))
    shutil.copytree(workspace.root / "state" / "tables", tmp_path / "copy")
    workspace.tables.write("events", rows(5, 5))
    build_online(workspace, [features])
    workspace.close()
    shutil.rmtree(workspace.root / "state" / "tables")
    shutil.copytree(tmp_path / "copy", workspace.root / "state" / "tables")
    workspace = make_project()
    workspace.tables.write("events", rows(20, 5))
    assert feeder(workspace, features).lag() == TableLag("events", None, 1, 10)
    build_online(workspace, [features])
    assert values(workspace, features) == built_anew(workspace, features, tmp_path)


@pytest.mark.parametrize("column", ["known", "k"])
def test_a_request_that_misses_rows_is_not_answered(make_project, column):
    """The newest row can never be seen: what was left out on its account is not told as nothing."""
    workspace = make_project()
    source = Source("s", Table("events", key="id"), event_time="e", known_at="known", sequence="id")
    features = FeatureSet([FeatureView("v", Entity("k"), source, [agg.count(over="10m")])])
    history = rows(0, 200).append_column("known", rows(0, 200).column("e"))
    last = rows(5000, 1).append_column("known", rows(5000, 1).column("e"))
    last = last.set_column(last.schema.get_field_index(column), column, pa.nulls(1, last.schema.field(column).type))
    workspace.tables.write("events", pa.concat_tables([history, last]))
    build_online(workspace, [features])
    row = OnlineFeatures(features, workspace.keys).read({"k": "a"}, {}, BASE + 200 * MINUTE)
    assert (row.statuses["v"], row.values["v__count_10m"]) in {("ok", 5), ("beyond_horizon", None)}


def test_a_source_that_stands_still_stops_no_other(make_project, monkeypatch):
    """Its error is raised once the others are up to date."""
    workspace, features = make_project(), feature_set(over=("7d", "30d"))
    broken = Source("b", Table("broken", key="id"), event_time="e", sequence="id")
    both = FeatureSet(
        [FeatureView("w", Entity("k"), broken, [agg.count(over="1d")]), *[p.view for p in features.views]]
    )
    workspace.tables.write("broken", rows(0, 3))
    workspace.tables.write("events", rows(0, 10))
    (file,) = (workspace.root / "state" / "tables" / "broken").glob("*.parquet")
    file.write_bytes(b"")
    upkeep, reads = Upkeep(workspace, lambda _: [both]), []
    take_in = TableFeeder.catch_up
    monkeypatch.setattr(TableFeeder, "catch_up", lambda self: reads.append(self) or take_in(self))
    with pytest.raises(IntegrityError, match="broken"):
        upkeep.catch_up()
    assert values(workspace, features)[0]["v__count_7d"] == 5
    for _ in range(3):  # said every time, and read again only after a while
        with pytest.raises(IntegrityError, match="broken"):
            upkeep.catch_up()
    assert (len(reads), upkeep.behind) == (2, {both.plan("w").view.version: 3})


def test_a_stream_that_cannot_be_read_is_said_to_be_behind(make_project):
    """Nobody knows by how much."""
    workspace, features = make_project(), feature_set(over=("7d", "30d"))
    workspace.tables.write("events", rows(0, 10))
    with workspace.events.open_writer("events/events") as writer:
        writer.append([b"no event"])
    upkeep = Upkeep(workspace, lambda _: [features])
    with pytest.raises(RetrodictError):
        upkeep.catch_up()
    assert upkeep.behind == {features.plan("v").view.version: None}


def test_what_takes_nothing_more_from_its_table_is_said_to_be_behind(make_project):
    """After a round without an error, too."""
    workspace, features = make_project(), feature_set()
    workspace.tables.write("events", rows(0, 10))
    Upkeep(workspace, lambda _: [features]).catch_up()
    with workspace.events.open_writer("events/events") as writer:
        writer.append([encode_event(row) for row in rows(10, 4).to_pylist()])
    upkeep = Upkeep(workspace, lambda _: [features])
    upkeep.catch_up()
    assert upkeep.behind == {}
    workspace.tables.write("events", rows(14, 2))
    upkeep = Upkeep(workspace, lambda _: [features])
    upkeep.catch_up()
    assert upkeep.behind == {features.plan("v").view.version: 2}
    assert feeder(workspace, features).lag() == TableLag("events", 0, 1, 2, streamed=True)


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_longer_horizon_is_warned_of_and_built(make_project, partitions):
    """The state let go of what the shorter one did not need: it says both values, and a build reads the table anew."""
    settings = f"[features]\npartitions = {partitions}\nhorizon = "
    old, features = make_project(settings=f"{settings}'1h'\n"), feature_set(over=("7d", "6h"))
    old.tables.write("events", rows(0, 300))
    build_online(old, [features])
    old.close()
    workspace = make_project(settings=f"{settings}'4h'\n")
    shortfall = feeder(workspace, features).lag().shortfall
    assert "built with features.horizon = '1h', now it is '4h'" in shortfall
    assert "Run: retrodict features build" in shortfall
    assert read_lags(workspace, features) == ((), (shortfall,))
    online = OnlineFeatures(features, workspace.keys, partitions=partitions)
    assert online.read({"k": "a"}, {}, BASE + 100 * MINUTE).statuses == {"v": "beyond_horizon"}
    assert build_online(workspace, [features])["s"].events == 300
    assert feeder(workspace, features).lag().shortfall is None
    assert online.read({"k": "a"}, {}, BASE + 100 * MINUTE).values["v__count_7d"] == 50
    assert build_online(workspace, [features])["s"].events == 0


def test_a_state_that_a_stream_feeds_grows_into_a_longer_horizon(make_project):
    """Nobody knows whether the stream still has all of it: a build leaves it alone, and time brings the rest."""
    old, features = make_project(settings="[features]\nhorizon = '1h'\n"), feature_set(over=("7d", "6h"))
    old.tables.write("events", rows(0, 10))
    state = online_state(old, features)
    state.apply(rows(10, 90), "s", offset=1)
    build_online(old, [features])
    old.close()
    workspace = make_project(settings="[features]\nhorizon = '3h'\n")
    build_online(workspace, [features])
    state = online_state(workspace, features)
    state.apply(rows(100, 1), "s", offset=2)
    assert "state has it in 2h" in feeder(workspace, features).lag().shortfall
    state.apply(rows(300, 1), "s", offset=3)
    assert feeder(workspace, features).lag().shortfall is None
