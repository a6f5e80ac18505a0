"""Feeding online state from a stream on a server gives what feeding it from the embedded log gives."""

import pytest
from tests.stores.kafka_mock import mocked
from tests.stores.nats_server import running

from retrodict.core.clock import SimulatedClock
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.online import OnlineFeatures, OnlineState, StreamFeeder, encode_event
from retrodict.features.plan import FeatureSet
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.streams.jetstream import JetStreams
from retrodict.stores.streams.kafka import KafkaStreams
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.testing import feature_worlds as worlds


@pytest.fixture(params=["nats", "kafka"])
def server(request, tmp_path, monkeypatch):
    """Streams on a server: a real one of NATS, librdkafka's own mock for Kafka."""
    if request.param == "nats":
        with running(tmp_path / "nats") as nats, JetStreams([nats.address]) as streams:
            yield streams
    else:
        with mocked() as cluster:
            monkeypatch.setattr(KafkaStreams, "_create", lambda _self, topic: cluster.make_topic(topic))
            with KafkaStreams([cluster.server]) as streams:
                yield streams


def _features():
    return FeatureSet(
        [
            FeatureView(
                "v",
                Entity("k1"),
                Source("s", worlds.table, event_time="e", sequence="id"),
                [agg.count(over="1h"), agg.sum("x", over="1h"), latest("x")],
            )
        ]
    )


def test_online_features_are_the_same_as_over_the_embedded_log(server, tmp_path):
    """Late, doubled and reordered events, read in small batches: every value of every key agrees."""
    events = [
        {"id": i, "k1": "abc"[i % 3], "e": worlds.BASE + (i * 7919) % 1000 * 1_000_000, "x": (i % 17) / 4}
        for i in [*range(400), *range(100, 150)]
    ]
    records, found = [encode_event(event) for event in events], []
    for name, streams in (("a", SegmentStreams(tmp_path / "s")), ("b", server)):
        keys = LmdbKeys(tmp_path / name)
        clock = SimulatedClock(worlds.BASE + 10**10)
        feeder = StreamFeeder(OnlineState(_features(), keys), streams, "events/s", "s", clock=clock, batch=32)
        with streams.open_writer("events/s") as writer:
            for start in range(0, len(records), 90):
                writer.append(records[start : start + 90])
                progress = feeder.catch_up()
        assert (progress.offset, progress.lag) == (450, 0)
        online = OnlineFeatures(_features(), keys)
        found.append(
            [
                online.read({"k1": key}, {}, worlds.BASE + at * 10**6).values
                for key in "abcd"
                for at in range(0, 1100, 50)
            ]
        )
        keys.close()
    assert found[0] == found[1]
    assert found[0][10]["v__count_1h"] > 50
