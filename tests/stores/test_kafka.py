"""Event streams on Kafka against librdkafka's own mock cluster: the protocol is real, the broker is not.

No Kafka broker ran here. What a broker adds (making topics, replicas, retention by time, TLS, SASL, quotas) is not
tested; topics are made by the mock's own call, at the one place where the store would ask the broker.
"""

import contextlib
import time
import uuid

import pytest
from tests.stores.kafka_mock import PRODUCE, SeparateKafka, mocked

from retrodict.core.errors import ConfigurationError, InputError, InternalError, MissingExtraError, RetryableError
from retrodict.stores.streams import kafka
from retrodict.stores.streams._kafka_client import connection_config, make_producer
from retrodict.stores.streams.kafka import KafkaStreams
from retrodict.stores.urls import open_streams
from retrodict.testing.contracts_streams import EventsContract


@pytest.fixture(scope="module")
def cluster():
    with mocked() as running:
        yield running


@pytest.fixture(scope="module")
def producer(cluster):
    """One for all tests that leave the cluster alone: each new one waits half a second for its number."""
    return make_producer(connection_config([cluster.server], "plaintext", "PLAIN", {}))


@pytest.fixture
def opened(cluster, producer, monkeypatch):
    """Open stores that are closed with the test."""
    stores = []
    monkeypatch.setattr(kafka, "make_producer", lambda _config: producer)
    monkeypatch.setattr(KafkaStreams, "_create", lambda _self, topic: cluster.make_topic(topic))

    def open_one(**options):
        stores.append(KafkaStreams([cluster.server], **{"prefix": uuid.uuid4().hex, "timeout_s": 5.0} | options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


class TestKafkaStreams(EventsContract):
    longest = 900_000  # the client's own limit is 1 MB

    @pytest.fixture
    def reopen(self, opened):
        prefix = uuid.uuid4().hex
        return lambda: opened(prefix=prefix)


@pytest.fixture
def separate():
    """A cluster that may hang and die, with the stream ``s``, and streams on it that soon give up."""
    pytest.importorskip("confluent_kafka")
    with (
        contextlib.closing(SeparateKafka("t.s")) as cluster,
        KafkaStreams([cluster.server], prefix="t", timeout_s=1.0) as streams,
    ):
        yield cluster, streams


def again(call):
    """Result of a call that may have to be repeated."""
    for _ in range(20):
        with contextlib.suppress(RetryableError):
            return call()
    return pytest.fail("the brokers were not found again")


@pytest.mark.slow
def test_an_append_that_meets_a_broker_that_hangs_goes_on_afterwards(separate):
    """It is retryable within its time, and the same call again doubles nothing."""
    cluster, streams = separate
    whole = [b"%d" % i for i in range(500)]
    with streams.open_writer("s") as writer:
        assert again(lambda: writer.append([b"before"])) == 0
        cluster.pause()
        begun = time.monotonic()
        with pytest.raises(RetryableError, match=r"stream s: the brokers must answer within 1 s") as caught:
            writer.append(whole)
        assert time.monotonic() - begun < 3
        assert cluster.server.partition(":")[2] not in str(caught.value)
        cluster.resume()
        assert again(lambda: writer.append(whole)) == 1
        assert writer.append([b"after"]) == 501
    assert [data for _, data in again(lambda: list(streams.read("s")))] == [b"before", *whole, b"after"]


@pytest.mark.slow
def test_other_records_after_a_failed_append_come_behind_it(separate):
    """What was queued is not taken back, and keeps its place."""
    cluster, streams = separate
    with streams.open_writer("s") as writer:
        again(lambda: writer.append([b"before"]))
        cluster.pause()
        with pytest.raises(RetryableError):
            writer.append([b"a", b"b"])
        cluster.resume()
        assert again(lambda: writer.append([b"x"])) == 3
    assert [data for _, data in again(lambda: list(streams.read("s")))] == [b"before", b"a", b"b", b"x"]


@pytest.mark.slow
def test_a_broker_that_is_gone_is_retryable_within_the_time_limit(separate):
    """Asking, reading and appending say so without an address."""
    cluster, streams = separate
    with streams.open_writer("s") as writer:
        again(lambda: writer.append([b"a"]))
        cluster.kill()
        calls = (
            lambda: streams.end("s"),
            lambda: list(streams.read("s")),
            streams.names,
            lambda: writer.append([b"b"]),
        )
        for call in calls:
            begun = time.monotonic()
            with pytest.raises(RetryableError, match="the brokers must answer") as caught:
                call()
            assert time.monotonic() - begun < 4
            assert cluster.server.partition(":")[2] not in str(caught.value)


@pytest.mark.parametrize("passing", ["REQUEST_TIMED_OUT", "NOT_LEADER"])
def test_a_passing_error_of_a_broker_is_waited_out(cluster, opened, passing):
    """The client sends again under the same numbers."""
    streams = opened()
    with streams.open_writer("s") as writer:
        writer.append([b"0"])
        cluster.fail(PRODUCE, passing, times=2)
        assert writer.append([b"1", b"2"]) == 1
    assert [data for _, data in streams.read("s")] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("refusal", "kind"), [("TOPIC_AUTHORIZATION_FAILED", ConfigurationError), ("MSG_SIZE_TOO_LARGE", InputError)]
)
def test_a_refusal_of_a_broker_says_what_to_fix(cluster, opened, refusal, kind):
    """It is not retried."""
    with opened().open_writer("s") as writer:
        writer.append([b"0"])
        cluster.fail(PRODUCE, refusal)
        with pytest.raises(kind, match=refusal):
            writer.append([b"1"])


def test_reading_jumps_over_what_retention_removed(cluster, opened):
    """Offsets stay Kafka's own: they begin later and are not renumbered."""
    streams = opened(prefix="kept")
    with streams.open_writer("s") as writer:
        writer.append([b"%d" % i for i in range(10)])
    cluster.remove_before("kept.s", 6)
    assert list(streams.read("s")) == [(i, b"%d" % i) for i in range(6, 10)]
    assert list(streams.read("s", 8, 1)) == [(8, b"8")]
    assert streams.end("s") == 10


def test_a_topic_with_several_partitions_is_no_stream(cluster, opened):
    """There is no order among them."""
    cluster.make_topic("parted.s", 3)
    streams = opened(prefix="parted")
    for call in (lambda: streams.open_writer("s"), lambda: streams.end("s"), lambda: list(streams.read("s"))):
        with pytest.raises(ConfigurationError, match=r"a topic with one partition.*got 3"):
            call()


def test_a_record_that_is_too_long_is_refused_before_anything_is_sent(opened):
    """None of the append is there."""
    streams = opened()
    with streams.open_writer("s") as writer:
        with pytest.raises(InputError, match="at most 999488 bytes on Kafka; got 1000001"):
            writer.append([b"a", b"x" * 1_000_001])
        assert writer.append([b"x" * 999_488]) == 0


def test_a_closed_store_is_not_used_again(opened):
    """Closing twice is no error."""
    streams = opened()
    streams.close()
    streams.close()
    with pytest.raises(InternalError, match="after it was closed"):
        streams.end("s")


def test_a_url_opens_streams(cluster, opened, tmp_path):
    """Brokers and prefix; another prefix is another world."""
    opened()  # topics are made by the mock
    url = f"kafka://{cluster.server}?prefix={uuid.uuid4().hex}"
    with open_streams(url, tmp_path) as streams, open_streams(url + "x", tmp_path) as other:
        with streams.open_writer("s") as writer:
            writer.append([b"a"])
        assert (streams.end("s"), other.end("s"), other.names()) == (1, 0, [])


@pytest.mark.parametrize(
    "url",
    [
        "kafka://ann:hunter2@bus.example",
        "nats://ann:hunter2@bus.example",
        "nats://bus.example?password=hunter2",
        "kafka://bus.example?sasl.password=hunter2",
        "nats://bus.example/hunter2",
        "nats://[bus.example:hunter2",
        "tls://bus.example,?prefix=hunter2",
        "nats://bus.example?replicas=hunter2",
        "kafka://bus.example?security=hunter2",
    ],
)
def test_a_url_that_holds_too_much_is_refused_without_being_repeated(tmp_path, url):
    """Credentials come from the environment."""
    with pytest.raises(ConfigurationError) as caught:
        open_streams(url, tmp_path)
    assert not any(secret in str(caught.value) for secret in ("hunter2", "ann", "bus.example"))


def test_a_missing_library_names_its_extra(monkeypatch):
    """One line to install it."""
    monkeypatch.setattr("retrodict.stores.streams._kafka_client.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'retrodict\[kafka\]'"):
        KafkaStreams(["127.0.0.1:9092"])
