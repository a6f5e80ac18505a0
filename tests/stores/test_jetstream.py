"""Event streams on a real NATS server: the contract, and what only a server can do to them."""

import asyncio
import contextlib
import gc
import json
import multiprocessing
import threading
import time
import uuid

import pytest
from tests.forks import forked
from tests.stores.nats_proxy import LossyRelay
from tests.stores.nats_server import running

from retrodict.core.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    InternalError,
    MissingExtraError,
    RetryableError,
)
from retrodict.stores.streams._nats import ApiError
from retrodict.stores.streams.jetstream import JetStreams
from retrodict.stores.urls import open_streams
from retrodict.testing.contracts_streams import EventsContract


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for all tests that leave it alone."""
    with running(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def own(tmp_path):
    """A server that the test may kill."""
    with running(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def opened():
    """Open stores that are closed with the test."""
    stores = []

    def open_one(server, **options):
        stores.append(JetStreams([server.address], **{"prefix": "t", "timeout_s": 3.0} | options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def relayed():
    """Put a relay that loses answers in front of a server."""
    with contextlib.ExitStack() as stack:

        def relay(server):
            made = LossyRelay(server.port)
            stack.callback(made.close)
            return made

        yield relay


class TestJetStreams(EventsContract):
    longest = 900_000  # the server's own default is 1 MiB with headers

    @pytest.fixture
    def reopen(self, shared, opened):
        prefix = uuid.uuid4().hex
        return lambda: opened(shared, prefix=prefix)


def api(server, subject, question):
    """Answer of the server's own interface, by the library directly."""
    import nats

    async def once():
        client = await nats.connect(server.address)
        answer = await client.request(f"$JS.API.{subject}", json.dumps(question).encode(), timeout=5)
        await client.close()
        return json.loads(answer.data)

    answer = asyncio.run(once())
    assert "error" not in answer, answer
    return answer


# interruptions ----------------------------------------------------------------------------------------------

APPEND = """
import sys, itertools
from retrodict.core.errors import RetryableError
from retrodict.stores.streams._nats import ApiError
from retrodict.stores.streams.jetstream import JetStreams
address, start, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with JetStreams([address], prefix="t", timeout_s=0.5) as streams, streams.open_writer("s") as writer:
    sizes, at, retries = itertools.cycle([1, 7, 300, 2500]), start, 0
    while at < stop:
        size = min(next(sizes), stop - at)
        records = [b"%d" % i for i in range(at, at + size)]
        while True:
            try:
                assert writer.append(records) == at, "the offset is exact"
                break
            except RetryableError:
                retries += 1
        at += size
        print(at, retries, flush=True)
print("done", flush=True)
"""


@pytest.mark.slow
def test_a_killed_server_loses_and_doubles_nothing(own, opened, start):
    """kill -9 again and again while another process appends: every record is there once, in order."""
    count = 40_000
    process = start(APPEND, own.address, 0, count)
    for pause in (0.0, 0.05, 0.7, 0.2, 0.0, 0.7):  # 0.7 s is longer than the writer's time limit
        for _ in range(7):
            process.line()
        own.kill()
        time.sleep(pause)
        own.start()
    *_, last, done = process.rest()
    assert done == "done"
    assert int(last.split()[1]) >= 2, "the writer was told to retry"
    assert list(opened(own).read("s")) == [(i, b"%d" % i) for i in range(count)]


def test_a_killed_writer_leaves_a_prefix(own, opened, start):
    """What it had acknowledged is there, perhaps more of its last append, and the next writer goes on behind."""
    process = start(APPEND, own.address, 0, 10**9)
    for _ in range(20):
        acknowledged = int(process.line().split()[0])
    process.kill()
    streams = opened(own)
    end = streams.end("s")
    assert end >= acknowledged
    with streams.open_writer("s") as writer:
        assert writer.append([b"next"]) == end
    assert list(streams.read("s")) == [*((i, b"%d" % i) for i in range(end)), (end, b"next")]


@pytest.mark.parametrize("lost_after", [0, 1, 30, 1000, 4000, 20_000, 33_000])
def test_an_append_whose_answers_are_lost_is_not_doubled(shared, opened, relayed, lost_after):
    """The connection breaks after some bytes of the acknowledgements: the append goes on by itself."""
    relay, prefix = relayed(shared), uuid.uuid4().hex
    whole = [b"%d" % i for i in range(1500)]
    streams = opened(relay, prefix=prefix)
    with streams.open_writer("s") as writer:
        writer.append([b"before"])
        relay.lose_after(lost_after)
        assert writer.append(whole) == 1
    assert [data for _, data in opened(shared, prefix=prefix).read("s")] == [b"before", *whole]


def test_a_retry_after_the_server_forgot_the_ids_is_not_doubled(own, opened, relayed):
    """Positions guard a retry that comes later than the server remembers ids."""
    stream = {"name": "t=s", "subjects": ["t.s"], "retention": "limits", "storage": "file", "discard": "new",
              "duplicate_window": 100_000_000}  # fmt: skip
    api(own, "STREAM.CREATE.t=s", stream)
    relay = relayed(own)
    streams = opened(relay, timeout_s=0.3)
    writer = streams.open_writer("s")
    relay.lose_all()
    with pytest.raises(RetryableError):
        writer.append([b"a", b"b"])
    assert opened(own).end("s") == 2
    time.sleep(0.5)
    streams._connection._servers = [own.address]
    assert writer.append([b"a", b"b"]) == 0
    assert writer.append([b"c"]) == 2


def test_other_records_after_a_failed_append_come_behind_its_prefix(own, opened, relayed):
    """What landed of an append that raised stays; the next append is whole behind it."""
    relay = relayed(own)
    streams = opened(relay, timeout_s=0.3)
    writer = streams.open_writer("s")
    relay.lose_all()
    with pytest.raises(RetryableError):
        writer.append([b"a", b"b"])
    streams._connection._servers = [own.address]
    assert writer.append([b"x", b"y"]) == 2
    assert [data for _, data in opened(own).read("s")] == [b"a", b"b", b"x", b"y"]


def test_a_server_that_is_gone_is_retryable_within_the_time_limit(own, opened):
    """Reading, asking and appending say so without an address, and go on once it is back."""
    streams = opened(own, timeout_s=0.4)
    writer = streams.open_writer("s")
    writer.append([b"a"])
    own.kill()
    for call in (lambda: list(streams.read("s")), lambda: streams.end("s"), lambda: writer.append([b"b"])):
        begun = time.monotonic()
        with pytest.raises(RetryableError, match=r"must answer within 0\.4 s") as caught:
            call()
        assert time.monotonic() - begun < 3
        assert str(own.port) not in str(caught.value)
    own.start()
    assert writer.append([b"b"]) == 1
    assert list(streams.read("s")) == [(0, b"a"), (1, b"b")]


def test_a_server_that_hangs_is_retryable_within_the_time_limit(own, opened):
    """Its connections stay open and nothing comes: the time limit holds, also for the close."""
    streams = opened(own, timeout_s=0.4)
    writer = streams.open_writer("s")
    own.pause()
    with pytest.raises(RetryableError, match="stream s"):
        writer.append([b"a"])
    begun = time.monotonic()
    streams.close()
    assert time.monotonic() - begun < 4
    own.resume()
    assert opened(own).end("s") in (0, 1)


def test_reading_goes_on_over_a_restart(own, opened):
    """An iteration that is under way takes up where it was."""
    streams = opened(own, timeout_s=10)
    with streams.open_writer("s") as writer:
        writer.append([b"%d" % i for i in range(5000)])
    iteration = streams.read("s")
    first = [next(iteration) for _ in range(1500)]
    own.kill()
    own.start()
    assert first + list(iteration) == [(i, b"%d" % i) for i in range(5000)]


# writers ----------------------------------------------------------------------------------------------------


def test_several_writers_keep_their_order_and_exact_offsets(shared, opened):
    """Each append that returns is where it says, and no writer's records change places."""
    prefix, taken = uuid.uuid4().hex, []

    def run(name):
        with opened(shared, prefix=prefix).open_writer("s") as writer:
            for i in range(0, 200, 4):
                records = [f"{name} {k}".encode() for k in range(i, i + 4)]
                taken.append((writer.append(records), records[0]))

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in "ab"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    whole = dict(opened(shared, prefix=prefix).read("s"))
    assert len(taken) == 100
    assert all(whole[offset] == record for offset, record in taken)
    for name in "ab":
        written = [f"{name} {k}".encode() for k in range(200)]
        assert [record for record in whole.values() if record.startswith(name.encode())] == written


def test_a_writer_that_was_overtaken_keeps_its_order(shared, opened):
    """Another's record took the place of the first: no later one may go before it."""
    streams = opened(shared, prefix=uuid.uuid4().hex)
    with streams.open_writer("s") as one, streams.open_writer("s") as other:
        assert other.append([b"x"]) == 0
        assert one.append([b"a", b"b", b"c"]) == 1
        assert other.append([b"y", b"z"]) == 4
    assert [data for _, data in streams.read("s")] == [b"x", b"a", b"b", b"c", b"y", b"z"]


def test_records_of_other_programs_are_read(shared, opened):
    """Whoever publishes to the subject writes to the stream; our writer goes on behind."""
    import nats

    prefix = uuid.uuid4().hex
    streams = opened(shared, prefix=prefix)
    writer = streams.open_writer("events/landed")
    writer.append([b"ours"])

    async def publish():
        client = await nats.connect(shared.address)
        await client.jetstream().publish(f"{prefix}.events.landed", b"theirs", headers={"any": "header"})
        await client.close()

    asyncio.run(publish())
    assert writer.append([b"ours again"]) == 2
    assert list(streams.read("events/landed")) == [(0, b"ours"), (1, b"theirs"), (2, b"ours again")]


def test_a_record_that_is_too_long_is_refused_before_anything_is_sent(shared, opened):
    """None of the append is there, and the writer goes on."""
    streams = opened(shared, prefix=uuid.uuid4().hex)
    with streams.open_writer("s") as writer:
        with pytest.raises(InputError, match="at most 1048064 bytes on this server; got 1048577"):
            writer.append([b"a", b"x" * (1 << 20 | 1)])
        assert writer.append([b"x" * 1_048_064]) == 0


def test_records_of_many_bytes_come_in_pieces(shared, opened):
    """Forty megabytes through pieces of eight."""
    whole = [bytes([i]) * 900_000 for i in range(45)]
    streams = opened(shared, prefix=uuid.uuid4().hex)
    with streams.open_writer("s") as writer:
        assert writer.append(whole) == 0
    assert [data for _, data in streams.read("s")] == whole


# damage and configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_a_deleted_record_is_damage(shared, opened, gone):
    """At the beginning, inside and at the end; what comes before is given out."""
    prefix = uuid.uuid4().hex
    name = f"{prefix}=s"
    config = {"name": name, "subjects": [f"{prefix}.s"], "retention": "limits", "storage": "file", "discard": "new"}
    api(shared, f"STREAM.CREATE.{name}", config)
    streams = opened(shared, prefix=prefix)
    with streams.open_writer("s") as writer:
        writer.append([b"%d" % i for i in range(5)])
    api(shared, f"STREAM.MSG.DELETE.{name}", {"seq": gone + 1, "no_erase": True})
    given = []
    with pytest.raises(IntegrityError, match=f"stream s, offset {gone}: every record of the stream must be"):
        given.extend(offset for offset, _ in streams.read("s"))
    assert given == list(range(gone))


def test_records_that_vanished_stop_their_writer(own, opened, tmp_path):
    """A server that comes back without what it acknowledged is not written to as if nothing had been."""
    streams = opened(own)
    writer = streams.open_writer("s")
    writer.append([b"a", b"b"])
    own.kill()
    (tmp_path / "nats").rename(tmp_path / "gone")
    own.start()
    opened(own).open_writer("s").close()
    with pytest.raises(IntegrityError, match="acknowledged up to offset 2, and ends before"):
        writer.append([b"c"])


def test_our_streams_keep_everything(shared, opened):
    """Files, no limits, nothing deleted: as the server itself says."""
    prefix = uuid.uuid4().hex
    opened(shared, prefix=prefix).open_writer("a/b").close()
    config = api(shared, f"STREAM.INFO.{prefix}=a=b", {})["config"]
    wanted = {"storage": "file", "discard": "new", "max_age": 0, "max_bytes": -1, "max_msgs": -1, "deny_purge": True}
    assert {key: config[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_age": 10**12}, "max_age"),
        ({"max_msgs": 5, "discard": "old"}, "discard"),
        ({"storage": "memory"}, "storage"),
        ({"retention": "interest"}, "retention"),
        ({"subjects": ["other.>"]}, "subjects"),
    ],
)
def test_a_stream_that_would_lose_records_is_not_written_to(own, opened, change, named):
    """Somebody else made it; the message names the setting."""
    config = {"name": "t=s", "subjects": ["t.s"], "retention": "limits", "storage": "file", "discard": "new"}
    api(own, "STREAM.CREATE.t=s", config | change)
    with pytest.raises(ConfigurationError, match=rf"stream s: a stream on the server must keep all.*\['{named}'\]"):
        opened(own).open_writer("s")


def test_a_full_server_says_so(tmp_path, opened):
    """Nothing old is dropped for it, and what was acknowledged stays readable."""
    (tmp_path / "conf").write_text("jetstream { max_file_store: 1MB }")
    with running(tmp_path / "nats", "-c", str(tmp_path / "conf")) as server:
        streams = opened(server, timeout_s=5.0)
        writer = streams.open_writer("s")
        acknowledged = 0
        with pytest.raises(RetryableError, match=r"stream s: .*resources"):  # noqa: PT012
            while acknowledged < 100:
                writer.append([b"x" * 100_000])
                acknowledged += 1
        assert 5 <= acknowledged < 12
        assert len(list(streams.read("s"))) == acknowledged


def test_what_the_server_said_outlives_time_that_ran_out(shared, opened):
    """An attempt that is begun just before the end has no time to hear it again."""
    calls = iter(range(2))

    async def refused_then_silent(_client):
        if next(calls) == 0:
            raise ApiError({"code": 503, "err_code": 10023, "description": "insufficient resources"})
        await asyncio.sleep(60)

    with pytest.raises(RetryableError, match=r"stream s: .*insufficient resources"):
        opened(shared, timeout_s=1.0)._connection.call(refused_then_silent, "stream s")
    with pytest.raises(RetryableError, match=r"stream s: .*TimeoutError"):
        opened(shared, timeout_s=0.2)._connection.call(lambda _client: asyncio.sleep(60), "stream s")


def test_wrong_credentials_are_a_matter_of_configuration(tmp_path, opened, monkeypatch):
    """At once, and without the secret; the right ones come from the environment."""
    with running(tmp_path / "nats", "--user", "ann", "--pass", "hunter2") as server:
        for password in (None, "hunter3"):
            if password:
                monkeypatch.setenv("NATS_USER", "ann")
                monkeypatch.setenv("NATS_PASSWORD", password)
            with pytest.raises(ConfigurationError, match="Set NATS_USER and NATS_PASSWORD") as caught:
                opened(server).end("s")
            assert not any(secret in str(caught.value) for secret in ("ann", "hunter", str(server.port)))
        monkeypatch.setenv("NATS_PASSWORD", "hunter2")
        assert opened(server).end("s") == 0


def test_a_server_without_jetstream_says_so(tmp_path, opened):
    """NATS alone keeps nothing."""
    with running(tmp_path / "nats", jetstream=False) as server, pytest.raises(RetryableError, match="with JetStream"):
        opened(server, timeout_s=0.5).end("s")


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", ">", "x" * 65])
def test_a_prefix_is_a_plain_word(prefix):
    """It becomes part of subjects."""
    with pytest.raises(ConfigurationError, match="prefix of streams"):
        JetStreams(["nats://127.0.0.1"], prefix=prefix)


def test_a_name_that_is_too_long_for_the_server_is_refused(shared, opened):
    """Our names may be longer than theirs."""
    with pytest.raises(InputError, match="at most 255 characters on this store; got 303"):
        opened(shared).end("/".join(["x" * 100] * 3)[:301])


# life of a store --------------------------------------------------------------------------------------------


def threads():
    return sum(thread.name == "retrodict-nats" for thread in threading.enumerate())


def test_a_store_ends_its_thread(shared):
    """When closed, and when nobody holds it any more; a closed one is not used again."""
    before = threads()
    with JetStreams([shared.address]) as streams:
        assert streams.end("s") == 0
        assert threads() == before + 1
    assert threads() == before
    with pytest.raises(InternalError, match="after it was closed"):
        streams.end("s")
    lost = JetStreams([shared.address])
    lost.end("s")
    del lost
    gc.collect()
    assert threads() == before


def test_a_store_that_was_never_used_starts_nothing(shared):
    """Opening asks nothing of the server."""
    before = threads()
    JetStreams(["nats://127.0.0.1:1"]).close()
    assert threads() == before


def test_readers_leave_nothing_on_the_server(shared, opened):
    """The consumers of finished and of abandoned iterations are gone."""
    prefix = uuid.uuid4().hex
    streams = opened(shared, prefix=prefix)
    with streams.open_writer("s") as writer:
        writer.append([b"a", b"b"])
    for _ in range(10):
        list(streams.read("s"))
        next(streams.read("s"))
    for _ in range(100):
        left = api(shared, f"CONSUMER.NAMES.{prefix}=s", {})["total"]
        if not left:
            break
        time.sleep(0.02)
    assert left == 0


def test_a_forked_child_is_refused(shared, opened):
    """The thread of the connection stays with the parent."""
    streams = opened(shared)
    streams.end("s")
    read, write = multiprocessing.Pipe(duplex=False)
    with forked() as child:
        if child == 0:
            try:
                streams.end("s")
            except InternalError as error:
                write.send(str(error))
    write.close()
    assert "after the fork" in read.recv()


def test_a_url_opens_streams(shared, tmp_path):
    """Address, prefix and replicas; another prefix is another world."""
    url = shared.address + "?prefix=" + uuid.uuid4().hex
    with open_streams(url + "&replicas=1", tmp_path) as streams, open_streams(url + "x", tmp_path) as other:
        with streams.open_writer("s") as writer:
            writer.append([b"a"])
        assert (streams.end("s"), other.end("s"), other.names()) == (1, 0, [])


def test_a_missing_library_names_its_extra(monkeypatch):
    """One line to install it."""
    monkeypatch.setattr("retrodict.stores.streams._nats.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'retrodict\[nats\]'"):
        JetStreams(["nats://127.0.0.1"])
