"""Stores on servers that are away: what is tried again, when nobody is called any more, and how it comes back."""

import contextlib
import os
import signal
import threading
import time

import pyarrow as pa
import pytest
import sqlalchemy as sa
from tests.stores.conftest import CREDENTIALS, S3Server, made_bucket
from tests.stores.kafka_mock import SeparateKafka
from tests.stores.nats_server import running
from tests.stores.postgres_server import PASSWORD, PostgresServer
from tests.stores.redis_server import Between, RedisServer
from tests.stores.silent_relay import SilentRelay

from retrodict.core.breakers import Breaker
from retrodict.core.errors import (
    AttemptsError,
    ConfigurationError,
    OpenBreakerError,
    RetrodictError,
    RetryableError,
    ServerAwayError,
)
from retrodict.core.retries import Retry, waited_for
from retrodict.stores._guard import AWAY, ServerGuard
from retrodict.stores.keys.redis import RedisKeys
from retrodict.stores.records import postgres as postgres_module
from retrodict.stores.records.postgres import PostgresRecords
from retrodict.stores.streams.jetstream import JetStreams
from retrodict.stores.streams.kafka import KafkaStreams
from retrodict.stores.urls import open_tables

META = sa.MetaData()
NOTES = sa.Table("notes", META, sa.Column("text", sa.String, primary_key=True))


def guard(failures=3, retries=0, read_timeout_s=0.2):
    breaker = Breaker("store", *AWAY, failures=failures, recovery="200ms")
    retry = Retry((ServerAwayError,), retries, base="1ms") if retries else None
    return ServerGuard(breaker, retry, read_timeout_s)


def until_it_works(call, *also):
    """Result of a call that a breaker may refuse for a moment."""
    for _ in range(200):
        with contextlib.suppress(OpenBreakerError, *also):
            return call()
        time.sleep(0.05)
    raise AssertionError("the breaker does not close")


@contextlib.contextmanager
def standing_still(server):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


ROWS = pa.table({"i": [1]})


@pytest.fixture
def redis():
    with contextlib.closing(RedisServer()) as server:
        yield server


@pytest.fixture
def postgres(monkeypatch):
    monkeypatch.setenv("PG_TEST_PASSWORD", PASSWORD)
    monkeypatch.setattr(postgres_module, "_BEGIN_S", 0.3)
    monkeypatch.setattr(postgres_module._Patient, "patience_s", 0.3)
    monkeypatch.setattr(postgres_module, "_CONNECT_S", 2)  # the least that libpq takes
    with contextlib.closing(PostgresServer()) as server:
        yield server


@pytest.fixture
def s3(monkeypatch):
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(S3Server()) as server:
        yield server


def test_a_dead_redis_is_not_called_after_a_few_failures_and_is_found_again(redis):
    care = guard()
    with contextlib.closing(RedisKeys(redis.url(), guard=care)) as keys:
        keys.put_many({b"a": b"1"})
        redis.kill()
        for _ in range(3):
            with pytest.raises(ServerAwayError, match="no connection"):
                keys.get_many([b"a"])
        with pytest.raises(OpenBreakerError):
            keys.put_many({b"a": b"2"})
        redis.start()
        assert until_it_works(lambda: keys.get_many([b"a"])) == [b"1"]
        assert care.breaker.state == "closed"


def test_reads_are_tried_again_and_the_end_says_how_often(redis):
    care = guard(failures=9, retries=2)
    with contextlib.closing(RedisKeys(redis.url(), guard=care)) as keys:
        redis.kill()
        with pytest.raises(AttemptsError, match=r"key store in Redis: .* got 'ServerAwayError in 3 attempts'") as got:
            keys.get_many([b"a"])
        assert isinstance(got.value.last, ServerAwayError)
        assert care.breaker.counts == {"failures": 3, "opened": 0, "refused": 0, "retried": 2}


def test_a_read_that_nobody_waits_for_is_not_tried_again(redis):
    care = guard(failures=9, retries=9)
    with contextlib.closing(RedisKeys(redis.url(), guard=care)) as keys:
        redis.kill()
        with waited_for(time.perf_counter_ns()), pytest.raises(RetryableError, match="while somebody waits"):
            keys.get_many([b"a"])
        assert care.breaker.counts == {"failures": 0, "opened": 0, "refused": 0, "retried": 0}  # it was not even asked


@pytest.mark.parametrize(("left_s", "failures"), [(0.02, 0), (0.15, 1)])
def test_no_answer_is_waited_for_longer_than_somebody_waits(redis, left_s, failures):
    """A read or a write; what had hardly any time says nothing of the server, so the breaker does not count it."""
    for call in (lambda keys: keys.get_many([b"a"]), lambda keys: keys.put_many({b"a": b"1"})):
        care = guard(failures=9)
        with contextlib.closing(RedisKeys(redis.url(), guard=care)) as keys, standing_still(redis):
            began = time.perf_counter()
            with waited_for(time.perf_counter_ns() + int(left_s * 1e9)), pytest.raises(RetryableError):
                call(keys)
            assert time.perf_counter() - began < left_s + 0.15
            assert care.breaker.counts["failures"] == failures


def test_a_write_whose_answer_was_lost_is_sent_once(redis):
    """The first EVAL reaches the server, and its answer nobody: a second one could undo what came in between."""
    care = guard(failures=9, retries=9)
    with Between(redis.port) as between, contextlib.closing(RedisKeys(between.url(), guard=care)) as keys:
        between.cut = b"EVAL"
        with pytest.raises(ServerAwayError, match="whether the write was stored is not known"):
            keys.put_many({b"a": b"1"})
        with pytest.raises(ServerAwayError):
            keys.update([b"a"], lambda _: {b"a": b"2"})
        with redis.client() as client:
            assert client.info("commandstats")["cmdstat_eval"]["calls"] == 2
        assert care.breaker.counts["retried"] == 0


def test_a_redis_that_is_cut_off_is_waited_for_no_longer_than_told(redis):
    relay, care = SilentRelay(redis.port), guard(failures=2)
    with contextlib.closing(relay):
        url = redis.url().replace(str(redis.port), str(relay.port))
        with contextlib.closing(RedisKeys(url, guard=care, timeout_s=60)) as keys:
            keys.put_many({b"a": b"1"})
            relay.silent = True
            for _ in range(2):  # on an open connection, then on a new one that is accepted and hears nothing
                with pytest.raises(ServerAwayError, match="in time"):
                    keys.get_many([b"a"])
            with pytest.raises(OpenBreakerError):
                keys.get_many([b"a"])
            relay.silent = False
            assert until_it_works(lambda: keys.get_many([b"a"])) == [b"1"]


@pytest.mark.parametrize("passed", [1, 3, 50_000])
def test_a_redis_that_is_cut_off_in_the_middle_of_an_answer_is_given_up(redis, passed):
    """Half a value is none, and what comes later is not taken for the answer to another question."""
    relay, care = SilentRelay(redis.port), guard(failures=2)
    with contextlib.closing(relay):
        url = redis.url().replace(str(redis.port), str(relay.port))
        with contextlib.closing(RedisKeys(url, guard=care, timeout_s=60)) as keys:
            keys.put_many({b"a": b"1" * 100_000, b"b": b"2"})
            assert keys.get_many([b"b"]) == [b"2"]
            relay.silent_after = passed
            with pytest.raises(ServerAwayError, match="in time"):
                keys.get_many([b"a"])
            relay.silent = False
            assert until_it_works(lambda: keys.get_many([b"b", b"a"]), ServerAwayError) == [b"2", b"1" * 100_000]


@pytest.mark.parametrize("passed", [1, 5, 20])
def test_a_postgres_that_is_cut_off_in_the_middle_of_an_answer_is_given_up(postgres, passed):
    """A block that was being read ends, and nothing of it counts."""
    relay = SilentRelay(postgres.port)
    with contextlib.closing(relay):
        url = postgres.url(postgres.database()).replace(str(postgres.port), str(relay.port))
        with contextlib.closing(PostgresRecords(url, guard=guard(failures=9))) as records:
            records.ensure(META)
            with records.write() as connection:
                connection.execute(NOTES.insert().values(text="before"))
            relay.silent_after = passed
            with pytest.raises(ServerAwayError, match="must answer"):
                records.change_counter()
            relay.silent = False
            with until_it_works(records.read, ServerAwayError) as connection:
                assert connection.execute(sa.select(NOTES.c.text)).scalars().all() == ["before"]


def test_a_wrong_value_says_nothing_of_the_server(redis):
    care = guard(failures=1)
    with contextlib.closing(RedisKeys(redis.url(), guard=care)) as keys:
        with pytest.raises(ValueError, match="1 to 511 bytes"):
            keys.put_many({b"": b"1"})
        with redis.client() as client:
            client.set("{test}", "in the place of the index")
        with pytest.raises(Exception, match="nothing but this store"):
            keys.put_many({b"a": b"1"})
        assert care.breaker.state == "closed"


@pytest.mark.parametrize("cut", ["stopped", "silent"])
def test_a_postgres_that_says_nothing_is_given_up_and_found_again(postgres, cut):
    relay, care = SilentRelay(postgres.port), guard(failures=2)
    with contextlib.closing(relay):
        url = postgres.url(postgres.database()).replace(str(postgres.port), str(relay.port))
        with contextlib.closing(PostgresRecords(url, guard=care)) as records:
            records.ensure(META)
            with records.write() as connection:
                connection.execute(NOTES.insert().values(text="before"))
            before = records.change_counter()
            stopped = _processes(postgres) if cut == "stopped" else []
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            relay.silent = cut == "silent"
            try:
                with pytest.raises(ServerAwayError, match="must answer"):
                    records.change_counter()
                with pytest.raises(ServerAwayError, match="must answer"), records.read():
                    pass
                with pytest.raises(OpenBreakerError), records.write():
                    pass
            finally:
                relay.silent = False
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            assert until_it_works(records.change_counter) == before
            with records.read() as connection:
                assert connection.execute(sa.select(NOTES.c.text)).scalars().all() == ["before"]


def test_a_kafka_that_says_nothing_is_given_up_and_found_again():
    """Reads and writes count alike; a record whose append was given up is there once."""
    care = guard(failures=2)
    with (
        contextlib.closing(SeparateKafka("t.s")) as cluster,
        KafkaStreams([cluster.server], prefix="t", timeout_s=0.5, guard=care) as streams,
    ):
        writer = streams.open_writer("s")
        assert until_it_works(lambda: writer.append([b"before"]), ServerAwayError) == 0  # it has to find the brokers
        cluster.pause()
        for call in (lambda: writer.append([b"meanwhile"]), lambda: streams.end("s")):
            with pytest.raises(ServerAwayError):
                call()
        refused = (lambda: writer.append([b"meanwhile"]), lambda: streams.end("s"), lambda: list(streams.read("s")))
        for call in refused:
            with pytest.raises(OpenBreakerError):
                call()
        cluster.resume()
        assert until_it_works(lambda: writer.append([b"meanwhile"]), ServerAwayError) == 1
        assert [record for _, record in streams.read("s")] == [b"before", b"meanwhile"]
        assert (care.breaker.state, care.breaker.counts["opened"] > 0) == ("closed", True)
        writer.close()


def _processes(postgres):
    parent = postgres._process.pid
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [parent, *map(int, file.read().split())]


def test_a_writer_that_waits_for_another_is_not_taken_for_silence(postgres):
    """Longer than a silent server is waited for at the beginning of a block that reads."""
    url = postgres.url(postgres.database())
    with contextlib.closing(PostgresRecords(url)) as one, contextlib.closing(PostgresRecords(url)) as other:
        one.ensure(META)
        begun, failed = threading.Event(), []

        def write():
            begun.set()
            try:
                with other.write() as connection:
                    connection.execute(NOTES.insert().values(text="second"))
            except RetrodictError as error:
                failed.append(error)

        with one.write() as connection:
            connection.execute(NOTES.insert().values(text="first"))
            thread = threading.Thread(target=write)
            thread.start()
            begun.wait(30)
            time.sleep(1)
        thread.join(60)
        assert failed == []
        with one.read() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(NOTES)).scalar() == 2


def test_a_dead_nats_is_not_called_after_a_few_failures_and_is_found_again(tmp_path):
    care = guard(failures=2)
    with running(tmp_path) as server, JetStreams([server.address], prefix="t", timeout_s=0.3, guard=care) as streams:
        with streams.open_writer("s") as writer:
            assert writer.append([b"one"]) == 0
            server.kill()
            for _ in range(2):
                with pytest.raises(ServerAwayError, match="must answer within"):
                    writer.append([b"two"])
            with pytest.raises(OpenBreakerError):
                writer.append([b"two"])
            server.start()
            assert until_it_works(lambda: writer.append([b"two"])) == 1
        assert [record for _, record in streams.read("s")] == [b"one", b"two"]
        assert care.breaker.state == "closed"


def test_a_dead_bucket_is_not_called_after_a_few_failures_and_is_found_again(s3, tmp_path):
    """Reads and writes count alike; one call looks again, and refused calls reach nobody."""
    care, url = guard(), made_bucket(s3.address)
    tables = open_tables(url, tmp_path, breaker=care.breaker)
    tables.write("t", ROWS)
    s3.close()
    for call in (tables.names, lambda: tables.read("t"), lambda: tables.write("t", ROWS)):
        with pytest.raises(RetryableError, match="must answer"):
            call()
    for call in (tables.names, lambda: tables.read("t"), lambda: tables.write("t", ROWS)):
        with pytest.raises(OpenBreakerError):
            call()
    assert care.breaker.counts == {"failures": 3, "opened": 1, "refused": 3, "retried": 0}
    s3.start()
    made_bucket(s3.address, url.partition("//")[2].partition("/")[0])
    assert until_it_works(tables.names, RetryableError) == []
    assert care.breaker.state == "closed"
    assert tables.write("t", ROWS) == 0


def test_what_a_bucket_answers_says_nothing_of_the_server(s3, tmp_path):
    """Neither a table that is not there nor a bucket that is not."""
    care, url = guard(failures=1), made_bucket(s3.address)
    tables = open_tables(url, tmp_path, breaker=care.breaker)
    with pytest.raises(RetrodictError, match="must exist"):
        tables.read("t")
    with pytest.raises(ConfigurationError, match="permission"):
        open_tables(url.replace("tables-", "absent-"), tmp_path, breaker=care.breaker).read("t")
    assert (care.breaker.state, care.breaker.counts["failures"]) == ("closed", 0)


def test_a_commit_that_opens_the_breaker_may_have_been_made(s3, tmp_path):
    """Its answer is lost and nobody may look: the error says so instead of asking for another try."""
    from obstore.exceptions import GenericError

    care = guard(failures=1)
    tables = open_tables(made_bucket(s3.address), tmp_path, breaker=care.breaker)
    tables.write("t", ROWS)
    place = tables._versions.place
    objects = place._objects

    class Lossy:
        def __getattr__(self, name):
            return getattr(objects, name)

        def put(self, *arguments, **options):
            objects.put(*arguments, **options)
            raise GenericError("the line broke")

    place.__dict__["_objects"] = Lossy()
    with pytest.raises(RetryableError, match="may have been made or not"):
        tables.write("t", ROWS)
    assert until_it_works(lambda: tables.read("t")).num_rows == 2
