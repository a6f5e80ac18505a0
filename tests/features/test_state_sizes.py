"""What the state says of its size is what a scan of all its entries says."""

import random

import pyarrow as pa
import pytest

from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.online import OnlineState
from retrodict.features.plan import FeatureSet
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.testing import feature_worlds as worlds

SECOND = 1_000_000


@pytest.fixture
def keys(tmp_path):
    store = LmdbKeys(tmp_path / "keys")
    yield store
    store.close()


def _features():
    read = Source("s", worlds.table, event_time="e", sequence="id")
    kept = [agg.count(over="1h"), agg.distinct("tag", over="1h"), latest("x", max_age="1h")]
    return FeatureSet([FeatureView("v", Entity("k1"), read, kept)])


def _events(count, keys, start=0, *, seed=0, spread=600):
    rng = random.Random(seed)
    return pa.table(
        {
            "id": range(start, start + count),
            "k1": [f"k{rng.randrange(keys)}" for _ in range(count)],
            "e": pa.array([worlds.BASE + (start + rng.randrange(spread)) * SECOND for _ in range(count)], worlds.TIME),
            "x": [rng.random() for _ in range(count)],
            "tag": [rng.choice("abcdef") for _ in range(count)],
        }
    )


def _scanned(keys, features):
    prefix = bytes.fromhex(features.views[0].state_id[:16])
    entries = [(name[8:9], len(blob)) for name, blob in keys.scan(prefix)]
    return (
        sum(kind == b"B" for kind, _ in entries),
        sum(size for kind, size in entries if kind in (b"B", b"I")),
        sum(kind == b"S" for kind, _ in entries),
        sum(size for kind, size in entries if kind == b"S"),
    )


def _said(state, features):
    meta = state.meta(features.views[0])
    return meta.entities, meta.size, meta.segments, meta.segment_bytes


@pytest.mark.parametrize("partitions", [1, 3])
def test_sizes_are_exact_through_writes_removals_and_expiry(keys, partitions):
    """Batches, redeliveries, a subject that is forgotten, keys that are out of reach."""
    features = _features()
    state = OnlineState(features, keys, horizon="5m", partitions=partitions)
    for place in range(4):
        state.apply(_events(300, 40, place * 200, seed=place), "s")
        state.apply(_events(300, 40, place * 200, seed=place), "s")
        assert _said(state, features) == _scanned(keys, features)
    assert state.forget("v", ["k3"]) == 1
    assert _said(state, features) == _scanned(keys, features)
    for place in range(30):  # one key for each partition, long after
        state.apply(_events(1, 1, 10**6 + place, seed=place).set_column(1, "k1", pa.array([f"z{place}"])), "s")
    assert state.expire() > 30
    assert _said(state, features) == _scanned(keys, features)


@pytest.mark.parametrize("partitions", [1, 2])
def test_sizes_of_hot_keys_follow_their_segments(keys, partitions):
    """Segments are counted one by one; those let go of unread at the average, so bytes stay near the truth."""
    features = _features()
    state = OnlineState(features, keys, horizon="5m", partitions=partitions)
    for place in range(40):
        state.apply(_events(2_000, 4, place * 300, seed=place, spread=300), "s")
    entities, size, segments, held = _scanned(keys, features)
    assert segments > 20
    assert _said(state, features)[:3] == (entities, size, segments)
    assert _said(state, features)[3] == pytest.approx(held, rel=0.05)
    for name in range(4):
        state.forget("v", [f"k{name}"])
    assert _said(state, features)[:3] == (0, 0, 0)
