"""Online state in Redis gives what online state in the embedded store gives, a hot key included."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from tests.stores.redis_server import RedisServer

from retrodict.data.sources import Source
from retrodict.features import Entity, FeatureSet, FeatureView, agg, latest
from retrodict.features.offline import training_frame
from retrodict.features.online import OnlineFeatures, OnlineState
from retrodict.stores.keys.redis import RedisKeys

HOUR, START, ROWS, KEYS = 3_600_000_000, 10**15, 12_000, 400
TIME = pa.timestamp("us", "UTC")
PAID = Source("paid", SimpleNamespace(name="payments"), event_time="t", sequence="id")
OVER = ["1h", "24h", "7d"]
FEATURES = FeatureSet(
    [
        FeatureView("fast", Entity("key"), PAID, [agg.mean("x", over=OVER), agg.max("x", over="7d"), latest("x")]),
        FeatureView(
            "slow", Entity("key"), PAID, [agg.sum("x", over=["30d", "lifetime"]), agg.last_k("x", 3, over="30d")]
        ),
    ]
)


@pytest.fixture(scope="module")
def payments():
    """A third of all payments belong to one key."""
    rng = np.random.default_rng(1)
    key = np.where(rng.random(ROWS) < 1 / 3, 0, rng.integers(0, KEYS, ROWS))
    times = np.sort(rng.integers(0, 30 * 24 * HOUR, ROWS)) + START
    x = np.round(rng.gamma(2, 5, ROWS), 2)
    return pa.table({"id": np.arange(ROWS), "key": key, "t": pa.array(times, TIME), "x": x})


def test_redis_gives_what_a_training_frame_gives(payments):
    """Filled in pieces out of order, read one by one and together, equal to the frame to the bit."""
    at = START + 30 * 24 * HOUR + 5
    spine = pa.table({"key": np.arange(KEYS), "q": pa.array(np.full(KEYS, at), TIME)})
    frame = training_frame(spine, "q", FEATURES, {"paid": payments}).select(list(FEATURES.columns)).to_pylist()
    with contextlib.closing(RedisServer()) as server, contextlib.closing(RedisKeys(server.url())) as keys:
        state = OnlineState(FEATURES, keys, horizon="36000d")
        state.apply(payments.slice(6_000), "paid")
        state.apply(payments.slice(0, 7_000), "paid")
        online = OnlineFeatures(FEATURES, keys)
        assert [online.read({"key": key}, {}, at).values for key in range(KEYS)] == frame
        assert [row.values for row in online.read_many([{"key": key} for key in range(KEYS)], at)] == frame


def test_history_fills_a_second_server_alike(payments):
    """A backfill counts every payment once, also when it is run again."""
    with contextlib.closing(RedisServer()) as server, contextlib.closing(RedisKeys(server.url())) as keys:
        state = OnlineState(FEATURES, keys)
        assert state.apply(payments, "paid").stored == 2 * ROWS
        state.apply(payments, "paid")
        found = OnlineFeatures(FEATURES, keys).read({"key": 0}, {}, START + 31 * 24 * HOUR).values
        assert found["slow__sum_x_lifetime"] == pytest.approx(
            sum(x for key, x in zip(payments["key"].to_pylist(), payments["x"].to_pylist(), strict=True) if key == 0)
        )
