"""A state cut into partitions is fed by as many processes and gives what one process gives."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from tests.stores.redis_server import RedisServer

from retrodict.core.clock import SimulatedClock
from retrodict.core.errors import ConfigurationError, InputError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.facts.keys import encode_key
from retrodict.features.online import OnlineFeatures, OnlineState, StreamFeeder, decode_event, encode_event
from retrodict.features.online.state.entries import StateKeys
from retrodict.features.online.write.partitions import partitions_of
from retrodict.features.plan import FeatureSet
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.keys.redis import RedisKeys
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.testing import feature_worlds as worlds

BASE, SECOND = worlds.BASE, 1_000_000
NOW = SimulatedClock(BASE + 10**10)
KEYS = [f"k{number}" for number in range(40)]


def _features(**source):
    """Two views by different keys, so that an event belongs to a different partition of each."""
    kept = [agg.count(over=["1h", "lifetime"]), agg.sum("x", over="1h"), agg.distinct("x", over="1h"), latest("x")]
    read = Source("s", worlds.table, event_time="e", **source)
    return FeatureSet([FeatureView("v", Entity("k1"), read, kept), FeatureView("w", Entity("k2"), read, kept[:2])])


def _events(count, seed=0):
    """Events of forty keys out of order, the first hundred of them twice."""
    rng = random.Random(seed)
    made = [
        {
            "id": i,
            "k1": rng.choice(KEYS),
            "k2": rng.randrange(9),
            "e": BASE + rng.randrange(900) * SECOND,
            "x": i % 8 / 4,
        }
        for i in range(count)
    ]
    return [*made, *made[:100]]


def _append(streams, events):
    with streams.open_writer("events/s") as writer:
        writer.append([encode_event(event) for event in events])


def _values(features, keys, partitions=1):
    online = OnlineFeatures(features, keys, partitions=partitions)
    asked = [{"k1": key, "k2": number % 9} for number, key in enumerate([*KEYS, "nobody"])]
    rows = [online.read(each, {}, BASE + at * SECOND) for each in asked for at in (500, 1000)]
    ids = [online.explain(each, {}, BASE + 1000 * SECOND) for each in asked]
    return [(row.values, row.events) for row in rows], ids


def _feeder(features, keys, streams, *, batch=64, **cut):
    state = OnlineState(features, keys, durable=False, **cut)
    return StreamFeeder(state, streams, "events/s", "s", clock=NOW, batch=batch)


@pytest.fixture
def stores(tmp_path):
    keys, streams = LmdbKeys(tmp_path / "keys"), SegmentStreams(tmp_path / "streams")
    yield keys, streams
    keys.close()


def _by_one(features, streams, folder):
    """Values when one process feeds a whole state with the events sorted by time."""
    events = sorted((decode_event(record) for _, record in streams.read("events/s")), key=lambda event: event["e"])
    with closing(LmdbKeys(folder)) as keys:
        OnlineState(features, keys).apply(events, "s")
        return _values(features, keys)


@pytest.mark.parametrize("source", [{"sequence": "id"}, {}])
def test_partitions_together_hold_what_a_whole_state_holds(stores, tmp_path, source):
    """Each fed for itself, in batches of its own size; with ids, and with positions in the stream as ids."""
    (keys, streams), features = stores, _features(**source)
    _append(streams, _events(700))
    for number in (2, 0, 1):
        feeder = _feeder(features, keys, streams, batch=50 + 13 * number, partitions=3, assigned=[number])
        assert feeder.lags() == {number: 800}
        assert feeder.catch_up().lag == 0
    assert _feeder(features, keys, streams, partitions=3).lags() == {0: 0, 1: 0, 2: 0}
    assert _values(features, keys, 3) == (
        _by_one(features, streams, tmp_path / "one") if source else _fed_whole(stores)
    )


def _fed_whole(stores):
    """Values of a whole state fed from the same stream: without ids a sorted history has other positions."""
    _, streams = stores
    with tempfile.TemporaryDirectory() as folder, closing(LmdbKeys(Path(folder))) as keys:
        _feeder(_features(), keys, streams).catch_up()
        return _values(_features(), keys)


def test_every_partition_has_keys_and_each_key_has_one():
    """The hash spreads text, whole numbers and pairs, and does not depend on how the key arrives."""
    features = _features(sequence="id")
    plan, events = features.plan("v"), _events(400)
    table = pa.table({"k1": [event["k1"] for event in events]})
    places = partitions_of(plan, table, 4)
    assert set(places.tolist()) == {0, 1, 2, 3}
    names = StateKeys(plan, partitions=4)
    expected = [names.partition_of(encode_key([event["k1"]], where="here")) for event in events]
    assert places.tolist() == expected


def test_history_is_handed_over_to_partitions(stores, tmp_path):
    """History in all partitions at once, a stream that overlaps it in each for itself: every event counts once."""
    (keys, streams), features, events = stores, _features(sequence="id"), _events(600)
    _append(streams, events)
    rows = [{**event, "e": event["e"]} for event in events[:400]]
    history = pa.table({name: [row[name] for row in rows] for name in ("id", "k1", "k2", "x")})
    history = history.append_column("e", pa.array([row["e"] for row in rows], worlds.TIME))
    state = OnlineState(features, keys, partitions=3)
    for count in (150, 400, 400):
        state.apply(history.slice(0, count), "s")
    for number in range(3):
        _feeder(features, keys, streams, partitions=3, assigned=[number]).catch_up()
    assert _values(features, keys, 3) == _by_one(features, streams, tmp_path / "one")
    assert state.meta(features.plan("v")).stored == 600


def test_a_partition_without_an_event_goes_on_with_the_others(stores):
    """One key, text as ids, no declared types: a partition that gets nothing learns no wrong types and moves on."""
    (keys, streams), features = stores, _features(sequence="id")
    table = pa.table({"id": ["a"], "k1": ["k1"], "k2": [1], "e": pa.array([BASE], worlds.TIME), "x": [0.5]})
    OnlineState(features, keys, partitions=3).apply(table, "s")
    for name in "bc":
        _append(streams, [{"id": name, "k1": "k1", "k2": 1, "e": BASE + 1, "x": 0.5}])
        assert _feeder(features, keys, streams, partitions=3).catch_up().lag == 0
    row = OnlineFeatures(features, keys, partitions=3).read({"k1": "k1", "k2": 1}, {}, BASE + 5)
    assert row.values["v__count_lifetime"] == 3


def test_a_load_that_ended_between_two_partitions_goes_on(stores):
    """Partitions that are a piece of history behind take only what they lack, and a lifetime counts nothing twice."""
    (keys, _), features = stores, _features(sequence="id")
    table = pa.table({"id": range(60), "k1": KEYS[:30] * 2, "k2": [1] * 60, "x": [0.5] * 60})
    table = table.append_column("e", pa.array([BASE + i for i in range(60)], worlds.TIME))
    OnlineState(features, keys, partitions=3, assigned=[1]).apply(table.slice(0, 40), "s")
    OnlineState(features, keys, partitions=3).apply(table, "s")
    online = OnlineFeatures(features, keys, partitions=3)
    rows = online.read_many([{"k1": key, "k2": 1} for key in KEYS[:30]], BASE + 100)
    assert [row.values["v__count_lifetime"] for row in rows] == [2] * 30


@pytest.mark.parametrize(("made", "asked"), [(1, 3), (3, 1), (3, 2), (2, 4)])
def test_a_state_that_is_cut_otherwise_is_refused(stores, made, asked):
    """By writers, feeders and readers alike, with both numbers and the way out; nothing is stored."""
    (keys, streams), features = stores, _features(sequence="id")
    _append(streams, _events(20))
    _feeder(features, keys, streams, partitions=made).catch_up()
    before = dict(keys.scan(b""))
    rule = (
        f"must keep the number of partitions that it was made with, {made}; got {asked}.*Set partitions = {made} under"
    )
    with pytest.raises(ConfigurationError, match=rule):
        OnlineState(features, keys, partitions=asked).apply(_events(5), "s")
    with pytest.raises(ConfigurationError, match=rule):
        _feeder(features, keys, streams, partitions=asked).catch_up()
    online = OnlineFeatures(features, keys, partitions=asked)
    for read in (
        lambda: online.read({"k1": "k1", "k2": 1}, {}, BASE),
        lambda: online.read_many([{"k1": "z", "k2": 1}], BASE),
    ):
        with pytest.raises(ConfigurationError, match=rule):
            read()
    assert dict(keys.scan(b"")) == before


def test_a_partition_that_does_not_exist_is_refused(stores):
    """The error says how many there are."""
    with pytest.raises(InputError, match="There are 3"):
        OnlineState(_features(), stores[0], partitions=3, assigned=[3])


def test_events_of_other_partitions_are_passed_over(stores):
    """Events without a stream, too, are written by the process of their partition only."""
    (keys, _), features = stores, _features(sequence="id")
    events = [{"id": i, "k1": key, "k2": 1, "x": 0.5, "e": BASE + i} for i, key in enumerate(KEYS[:30])]
    OnlineState(features, keys, partitions=3, assigned=[1]).apply(events, "s")
    metas = OnlineState(features, keys, partitions=3).metas(features.views[0])
    assert [metas[place].stored > 0 for place in range(3)] == [False, True, False]


def test_old_blocks_go_by_the_floor_of_their_partition(stores):
    """``expire`` of one partition leaves the blocks of the others alone."""
    keys, _ = stores
    read = Source("s", worlds.table, event_time="e", sequence="id")
    features = FeatureSet([FeatureView("v", Entity("k1"), read, [agg.count(over="1m")])])
    state = OnlineState(features, keys, horizon="1m", partitions=2)
    names = StateKeys(features.plan("v"), partitions=2)
    first, second = ([k for k in KEYS if names.partition_of(encode_key([k], where="")) == each] for each in (0, 1))
    state.apply([{"id": i, "k1": key, "e": BASE} for i, key in enumerate([*first, *second])], "s")
    state.apply([{"id": 99, "k1": first[0], "e": BASE + 3600 * SECOND}], "s")
    assert OnlineState(features, keys, partitions=2, assigned=[1]).expire() == 0
    assert state.expire() == len(first) - 1
    assert state.meta(features.plan("v")).entities == 1 + len(second)


_CHILD = """
import sys
from tests.features import test_partitions as t
keys, streams = t.open_keys(sys.argv[1]), t.SegmentStreams(t.Path(sys.argv[2]))
feeder = t._feeder(t._features(sequence="id"), keys, streams, batch=40, partitions=3, assigned=[int(sys.argv[3])])
print("ready", flush=True)
while not t.Path(sys.argv[4]).exists():
    feeder.catch_up()
    t.time.sleep(0.002)
feeder.catch_up()
print("done", flush=True)
"""


def open_keys(address):
    """Store of a path or a URL."""
    return RedisKeys(address) if address.startswith("redis") else LmdbKeys(Path(address))


def _child(started, address, tmp_path, number):
    command = [sys.executable, "-c", _CHILD, address, str(tmp_path / "streams"), str(number), str(tmp_path / "end")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Compiled files are kept for the next child: it starts in half the time.
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    started.append(child)
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.fixture
def started():
    """Processes of the test; what is left of them ends with it."""
    children = []
    yield children
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("store", ["lmdb", "redis"])
def test_three_processes_killed_at_random_moments_end_where_one_would(tmp_path, started, store):
    """A stream that grows, three processes on it, each killed with -9 several times and started again."""
    server = RedisServer() if store == "redis" else None
    address = str(tmp_path / "keys") if server is None else server.url()
    features, streams, rng, events = (
        _features(sequence="id"),
        SegmentStreams(tmp_path / "streams"),
        random.Random(5),
        _events(6000),
    )
    pieces, victims = [events[first::7] for first in range(7)], [0, 1, 2, 0, 1, 2]
    rng.shuffle(victims)
    _append(streams, pieces.pop())
    children = [_child(started, address, tmp_path, number) for number in range(3)]
    for piece, number in zip(pieces, victims, strict=True):
        _append(streams, piece)
        time.sleep(rng.random() * 0.05)
        children[number].send_signal(signal.SIGKILL)
        children[number].communicate()
        children[number] = _child(started, address, tmp_path, number)
    (tmp_path / "end").touch()
    assert [child.communicate(timeout=60)[0] for child in children] == ["done\n"] * 3
    with closing(open_keys(address)) as keys:
        state = OnlineState(features, keys, partitions=3)
        assert {meta.offset for plan in features.views for meta in state.metas(plan).values()} == {6100}
        assert state.meta(features.plan("v")).stored == 6000
        assert _values(features, keys, 3) == _by_one(features, streams, tmp_path / "one")
    if server is not None:
        server.close()
