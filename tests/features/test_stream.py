"""The feeder continues where its state is, whatever happened to its process."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pyarrow as pa
import pytest

from retrodict.core.clock import SimulatedClock
from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.online import OnlineFeatures, OnlineState, StreamFeeder, encode_event
from retrodict.features.plan import FeatureSet
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.testing import feature_worlds as worlds

BASE, MINUTE = worlds.BASE, worlds.MINUTE


def _features(**source):
    view = FeatureView(
        "v",
        Entity("k1"),
        Source("s", worlds.table, event_time="e", **source),
        [agg.count(over="1h"), agg.sum("x", over="1h"), latest("x")],
    )
    return FeatureSet([view])


@pytest.fixture
def stores(tmp_path):
    keys, streams = LmdbKeys(tmp_path / "keys"), SegmentStreams(tmp_path / "streams")
    yield keys, streams
    keys.close()


def _append(streams, *events):
    with streams.open_writer("events/s") as writer:
        writer.append([encode_event(event) for event in events])


def _event(i, **more):
    return {"id": i, "k1": "a", "e": BASE + i, "x": 0.1, **more}


def _feeder(features, keys, streams, **options):
    return StreamFeeder(
        OnlineState(features, keys), streams, "events/s", "s", clock=SimulatedClock(BASE + 99), **options
    )


def test_catch_up_reads_each_event_once_and_reports_the_lag(stores):
    """Micro-batches up to the end; a second call finds nothing; new events are lag until read."""
    keys, streams = stores
    features = _features(sequence="id")
    _append(streams, *[_event(i) for i in range(7)])
    feeder = _feeder(features, keys, streams, batch=3)
    assert feeder.lag() == 7
    progress = feeder.catch_up()
    assert (progress.offset, progress.lag, progress.applied.stored) == (7, 0, 7)
    _append(streams, _event(7))
    assert feeder.lag() == 1
    assert feeder.catch_up().applied.events == 1
    values = OnlineFeatures(features, keys).read({"k1": "a"}, {}, BASE + 50).values
    assert values == {"v__count_1h": 8, "v__sum_x_1h": 0.8, "v__latest_x": 0.1}


def test_history_and_stream_may_overlap(stores):
    """Events that are in the table and in the stream count once: they carry their ids."""
    keys, streams = stores
    features = _features(sequence="id")
    table = pa.table(
        {"id": [0, 1, 2], "k1": ["a"] * 3, "e": pa.array([BASE, BASE + 1, BASE + 2], worlds.TIME), "x": [0.1] * 3}
    )
    OnlineState(features, keys).apply(table, "s")
    _append(streams, *[_event(i) for i in range(1, 5)])
    assert _feeder(features, keys, streams).catch_up().applied.duplicates == 2
    assert OnlineFeatures(features, keys).read({"k1": "a"}, {}, BASE + 50).values["v__count_1h"] == 5


def test_without_ids_history_and_stream_do_not_mix(stores):
    """Positions of a table and offsets of a stream are different ids: refused instead of counted twice."""
    keys, streams = stores
    features = _features()
    OnlineState(features, keys).apply(pa.table({"k1": ["a"], "e": pa.array([BASE], worlds.TIME), "x": [0.1]}), "s")
    _append(streams, _event(1))
    with pytest.raises(DefinitionError, match="Declare sequence="):
        _feeder(features, keys, streams).catch_up()


def test_a_foreign_record_is_named_by_its_offset(stores):
    """Bytes that are no event stop the feeder with stream and offset."""
    keys, streams = stores
    with streams.open_writer("events/s") as writer:
        writer.append([b"\xc1"])
    with pytest.raises(
        InputError, match="stream 'events/s', offset 0: a record of an event stream must be made by encode_event"
    ):
        _feeder(_features(), keys, streams).catch_up()


def test_run_ends_when_told(stores):
    """The loop polls, catches up and returns its progress."""
    keys, streams = stores
    _append(streams, _event(0))
    answers = iter([False, False, True])
    assert _feeder(_features(), keys, streams).run(lambda _: next(answers), poll_s=0.0).offset == 1


def test_killed_feeders_lose_and_double_nothing(stores, tmp_path):
    """kill -9 at random moments; the state of the survivors equals one clean pass."""
    keys, streams = stores
    count = 700
    _append(streams, *[_event(i, e=BASE + i % 50) for i in range(count)])
    keys.close()
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
        from pathlib import Path
        import test_stream as t
        root = Path({str(tmp_path)!r})
        keys, streams = t.LmdbKeys(root / "keys"), t.SegmentStreams(root / "streams")
        print("ready", flush=True)
        t._feeder(t._features(), keys, streams, batch=7).catch_up()
        print("done", flush=True)
    """)
    kills = 0
    for pause in (0.02, 0.05, 0.1, 0.1, None):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        if pause is not None:
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            kills += process.stdout.read() == ""
        else:
            assert process.stdout.read() == "done\n"
        process.wait()
        process.stdout.close()
    assert kills
    keys = LmdbKeys(tmp_path / "keys")
    values = OnlineFeatures(_features(), keys).read({"k1": "a"}, {}, BASE + 99).values
    keys.close()
    assert values["v__count_1h"] == count


def test_a_view_that_joins_later_catches_up_and_counts_nothing_twice(stores):
    """It is fed from the beginning up to where the other is; from there both go on, without ids, each event once."""
    keys, streams = stores
    source = Source("s", worlds.table, event_time="e")
    first = FeatureView("v", Entity("k1"), source, [agg.count(over="1h")])
    second = FeatureView("w", Entity("k1"), source, [agg.sum("x", over="lifetime")])
    _append(streams, *[_event(i) for i in range(50)])
    _feeder(FeatureSet([first]), keys, streams).catch_up()
    _append(streams, *[_event(i) for i in range(50, 60)])
    both = FeatureSet([first, second])
    progress = _feeder(both, keys, streams, batch=7).catch_up()
    assert (progress.offset, progress.lag) == (60, 0)
    values = OnlineFeatures(both, keys).read({"k1": "a"}, {}, BASE + 99).values
    assert values == {"v__count_1h": 60, "w__sum_x_lifetime": pytest.approx(6.0)}


def test_a_large_batch_is_one_transaction_and_equal_to_many_small_ones(tmp_path):
    """What a backlog of thousands of records gives does not depend on how it was cut."""
    features, found = _features(sequence="id"), []
    events = [_event(i * 7919 % 3000, k1=f"k{i % 97}", e=BASE + i * 7919 % 3000) for i in range(3000)]
    for batch in (3000, 211):
        keys, streams = LmdbKeys(tmp_path / f"k{batch}"), SegmentStreams(tmp_path / f"s{batch}")
        _append(streams, *events)
        _feeder(features, keys, streams, batch=batch).catch_up()
        online = OnlineFeatures(features, keys)
        found.append([online.read({"k1": f"k{i}"}, {}, BASE + 9999).values for i in range(97)])
        keys.close()
    assert found[0] == found[1]


def test_killed_in_a_big_batch(stores, tmp_path):
    """kill -9 while tens of thousands of records are one transaction: all of them are in, or none, and none twice."""
    keys, streams = stores
    count = 30_000
    _append(streams, *[_event(i, k1=f"k{i % 500}", e=BASE + i % 50) for i in range(count)])
    keys.close()
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
        from pathlib import Path
        import test_stream as t
        root = Path({str(tmp_path)!r})
        keys, streams = t.LmdbKeys(root / "keys"), t.SegmentStreams(root / "streams")
        print("ready", flush=True)
        t._feeder(t._features(), keys, streams, batch=15_000).catch_up()
        print("done", flush=True)
    """)
    for pause in (0.1, 0.3, 0.5, None):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        if pause is not None:
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        process.stdout.close()
        keys = LmdbKeys(tmp_path / "keys")
        offset = OnlineState(_features(), keys).meta(_features().views[0]).offset or 0
        read = OnlineFeatures(_features(), keys).read
        counts = [read({"k1": f"k{i}"}, {}, BASE + 99).values["v__count_1h"] or 0 for i in range(500)]
        keys.close()
        assert sum(counts) == offset
        assert offset in {0, 15_000, 30_000}
    assert (rest, offset) == ("done\n", count)
