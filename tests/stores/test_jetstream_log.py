"""The decision log on a real NATS server: the contract of the embedded log, writers that are put out, failures."""

import contextlib
import random
import threading
import time
import uuid

import pytest
from tests.stores.nats_proxy import LossyRelay
from tests.stores.nats_server import running

from retrodict.core.errors import BusyError, FencedError, NotFoundError, RefusedError, RetryableError, ServerAwayError
from retrodict.stores.streams import jetstream_log
from retrodict.stores.streams._frames import pack_frames, pack_header
from retrodict.stores.streams.jetstream_log import JetStreamLog
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.testing.contracts_streams import StreamsContract


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
    """Open stores, each as another machine would; closed with the test."""
    with contextlib.ExitStack() as stack:

        def open_one(address, **options):
            return stack.enter_context(JetStreamLog([address], **{"prefix": "t", "timeout_s": 3.0} | options))

        yield open_one


class TestJetStreamLog(StreamsContract):
    longest = 900_000

    @pytest.fixture
    def reopen(self, shared, opened):
        prefix = uuid.uuid4().hex
        return lambda: opened(shared.address, prefix=prefix, timeout_s=10.0)


class TestSmallSegments(StreamsContract):
    """The same promises when nearly every append begins a segment of its own."""

    longest = 900_000

    @pytest.fixture
    def reopen(self, shared, opened):
        prefix = uuid.uuid4().hex
        return lambda: opened(shared.address, prefix=prefix, timeout_s=10.0, segment_bytes=64)

    # How the stream is cut into pieces is what differs here.
    test_segments_cover_the_stream = None


class Watcher:
    """What a writer says of itself: segments by name, each with its bytes and records."""

    def __init__(self):
        self.segments = {}

    def begin(self, segment, first, header):
        self.segments[segment] = (first, [header], [])

    def add(self, records, frames):
        _, data, known = self.segments[max(self.segments)]
        data.append(frames)
        known += records

    def check(self, store, stream):
        """Hold what was told against what is stored."""
        pieces = {piece.name: piece for piece in store.segments(stream)}
        assert list(pieces) == sorted(name for name, (_, _, records) in self.segments.items() if records)
        for name, piece in pieces.items():
            first, data, records = self.segments[name]
            assert (piece.first, piece.count) == (first, len(records))
            assert store.read_segment(stream, name) == b"".join(data)
            assert [record for _, record in store.read(stream, first, piece.count)] == records


def test_the_segments_are_those_that_files_would_have(shared, opened, tmp_path):
    """Names, offsets, bytes: whichever way a log is kept, the same seals fit."""
    stores = [opened(shared.address, prefix=uuid.uuid4().hex), SegmentStreams(tmp_path / "streams")]
    for store in stores:
        for part in range(3):
            with store.open_writer("decisions/0") as writer:
                writer.append([b"%d %d" % (part, i) for i in range(1_500)])
                writer.roll()
                writer.append([b"more"])
                writer.roll()
    listed = [[(piece, store.read_segment("decisions/0", piece.name)) for piece in store.segments("decisions/0")]
              for store in stores]  # fmt: skip
    assert listed[0] == listed[1]
    assert len(listed[0]) == 6


def test_only_admitted_segments_are_listed_and_files_has_all(shared, opened):
    prefix, names = uuid.uuid4().hex, {f"{3:020d}.seg"}
    store = opened(shared.address, prefix=prefix, admitted=lambda stream: names)
    with store.open_writer("s") as writer:
        writer.append([b"1", b"2", b"3"])
        writer.roll()
        writer.append([b"4"])
    assert [piece.first for piece in store.segments("s")] == [3]
    assert store.files("s") == [f"{0:020d}.seg", f"{3:020d}.seg"]
    assert store.read_segment("s", f"{0:020d}.seg") == pack_header(0) + pack_frames([b"1", b"2", b"3"])


def test_the_oldest_closed_segment_can_go(shared, opened):
    """Offsets stay; what is gone is an error by name, in another process too; what is written stays."""
    prefix = uuid.uuid4().hex
    store, other = opened(shared.address, prefix=prefix), opened(shared.address, prefix=prefix)
    with store.open_writer("s") as writer:
        for number in range(3):
            writer.append([b"%d" % number] * 2)
            if number < 2:
                writer.roll()
        first, second, last = [piece.name for piece in other.segments("s")]
        for name in (second, last):
            with pytest.raises(RefusedError, match="only the oldest"):
                store.remove_segment("s", name)
        store.remove_segment("s", first)
        assert [piece.first for piece in other.segments("s")] == [2, 4] == [p.first for p in store.segments("s")]
        with pytest.raises(NotFoundError):
            other.read_segment("s", first)
        with pytest.raises(Exception, match="offset 1"):
            list(other.read("s", 1))
        assert list(other.read("s", 2)) == [(2, b"1"), (3, b"1"), (4, b"2"), (5, b"2")]
        assert writer.append([b"3"]) == 6
        store.remove_segment("s", second)
        with pytest.raises(RefusedError):
            store.remove_segment("s", last)


def test_a_writer_whose_process_died_is_followed_after_a_moment(shared, opened, start):
    """Nobody answers for it, but it may be connecting again; its segment is closed and whole."""
    prefix = uuid.uuid4().hex
    process = start(HOLD, shared.address, prefix)
    assert process.line() == "4"
    store = opened(shared.address, prefix=prefix)
    with pytest.raises(BusyError, match="held by process"):
        store.open_writer("s", timeout_s=0)
    process.kill()
    begun = time.monotonic()
    with store.open_writer("s", timeout_s=0) as writer:
        assert time.monotonic() - begun > jetstream_log._GRACE_S / 2
        assert writer.append([b"after"]) == 5
    assert [(piece.first, piece.count, piece.closed) for piece in store.segments("s")] == [(0, 5, True), (5, 1, True)]


HOLD = """
import sys
from retrodict.stores.streams.jetstream_log import JetStreamLog
writer = JetStreamLog([sys.argv[1]], prefix=sys.argv[2]).open_writer("s")
for number in range(5):
    offset = writer.append([b"%d" % number])
print(offset, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def put_out(own, opened, monkeypatch):
    """A writer that was cut off and taken for gone, its store, and the writer that has its stream now."""
    monkeypatch.setattr(jetstream_log, "_GRACE_S", 0.0)
    relay = LossyRelay(own.port)
    store, other = opened(relay.address), opened(own.address)
    with contextlib.closing(relay), store.open_writer("s", observer=(watcher := Watcher())) as first:
        first.append([b"before"])
        relay._cut()
        with other.open_writer("s", timeout_s=5) as second:
            yield store, first, watcher, other, second


def test_a_writer_that_was_taken_for_gone_appends_no_more(put_out):
    """Whatever it sends, none of it comes behind the mark of the other one; what it had appended is there."""
    store, first, watcher, other, second = put_out
    for call in (lambda: first.append([b"late"]), lambda: first.append([b"late"]), first.roll):
        with pytest.raises(FencedError, match=r"stream s: .*another writer"):
            call()
        assert second.append([b"now"]) > 0
    assert [record for _, record in store.read("s")] == [b"before", b"now", b"now", b"now"]
    assert [piece.closed for piece in other.segments("s")] == [True, False]
    assert watcher.segments[f"{0:020d}.seg"][2] == [b"before"]


def test_a_writer_that_was_taken_for_gone_signs_no_more(put_out):
    """Its statement would take the place of that of the other one."""
    store, _, _, other, _ = put_out
    other.write_head("s", b"mine")
    with pytest.raises(FencedError):
        store.write_head("s", b"old")
    assert (store.read_head("s"), other.heads()) == (b"mine", ["s"])


def test_a_writer_that_connects_again_in_time_keeps_its_stream(own, opened):
    """The server dies and comes back: by its next call the writer answers for the stream again."""
    store, other = opened(own.address), opened(own.address)
    with store.open_writer("s") as writer:
        writer.append([b"one"])
        own.kill()
        own.start()
        assert store.end("s") == 1
        with pytest.raises(BusyError):
            other.open_writer("s", timeout_s=0)
        assert writer.append([b"two"]) == 1


def test_heads_are_one_for_each_stream_and_survive_the_server(own, opened):
    store = opened(own.address)
    assert (store.heads(), store.read_head("decisions/0")) == ([], None)
    with store.open_writer("decisions/0"), store.open_writer("decisions/1"):
        for number in range(3):
            store.write_head("decisions/0", b"%d" % number)
        store.write_head("decisions/1", b"other")
        own.kill()
        own.start()
        other = opened(own.address)
        assert other.heads() == ["decisions/0", "decisions/1"]
        assert (other.read_head("decisions/0"), other.read_head("decisions/1")) == (b"2", b"other")
        assert other.names() == ["decisions/0", "decisions/1"]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_answers_get_lost_the_log_is_what_was_told(own, opened, seed):
    """Appends and rolls over a line that breaks at random: acknowledged once, told in the order of the log."""
    rng, relay = random.Random(seed), LossyRelay(own.port)
    with contextlib.closing(relay):
        store, watcher, acknowledged, number = opened(relay.address, timeout_s=0.4), Watcher(), [], 0
        with store.open_writer("s", observer=watcher) as writer:
            for _ in range(25):
                if rng.random() < 0.5:
                    relay.lose_after(rng.randrange(1, 4_000))
                batch = [b"%d" % (number + i) for i in range(rng.choice([1, 3, 40]))]
                number += len(batch)
                with contextlib.suppress(RetryableError):
                    if rng.random() < 0.3:
                        writer.roll()
                    first = writer.append(batch)
                    acknowledged += zip(range(first, first + len(batch)), batch, strict=True)
            relay._left = None
            writer.append([b"end"])
            direct = opened(own.address)
            watcher.check(direct, "s")
        stored = list(direct.read("s"))
        assert [offset for offset, _ in stored] == list(range(len(stored)))
        assert len({record for _, record in stored}) == len(stored)
        assert set(acknowledged) <= set(stored)


def test_a_record_that_was_refused_and_is_sent_with_others_again_is_there_once(own, opened):
    """As a group of decisions is, where some of their callers were answered before."""
    relay, watcher = LossyRelay(own.port), Watcher()
    with contextlib.closing(relay):
        store = opened(relay.address, timeout_s=0.4)
        with store.open_writer("s", observer=watcher) as writer:
            writer.append([b"0"])
            publish = writer._publish

            async def lost(client, append):
                await publish(client, append)
                raise ServerAwayError("time must not be up")

            writer._publish = lost
            with pytest.raises(ServerAwayError):
                writer.append([b"1", b"2"])
            writer._publish = publish
            assert writer.append([b"2", b"3"]) == 2
            watcher.check(store, "s")
        assert [record for _, record in store.read("s")] == [b"0", b"1", b"2", b"3"]


def test_the_server_is_killed_again_and_again_and_nothing_acknowledged_is_lost(own, opened):
    """Two writers, each with its stream, while kill -9 comes at random."""
    rng, stop, logs = random.Random(5), threading.Event(), {"a": [], "b": []}
    watchers = {name: Watcher() for name in logs}

    def write(name):
        with opened(own.address, timeout_s=1.0).open_writer(name, observer=watchers[name]) as writer:
            ready.wait()
            number = 0
            while not stop.is_set():
                number += 1
                with contextlib.suppress(RetryableError):
                    logs[name].append((writer.append([b"%d" % number]), b"%d" % number))
            while True:
                with contextlib.suppress(RetryableError):
                    writer.append([b"end"])
                    return

    ready = threading.Barrier(3)
    threads = [threading.Thread(target=write, args=(name,)) for name in logs]
    for thread in threads:
        thread.start()
    ready.wait(60)
    for _ in range(5):
        time.sleep(rng.uniform(0.05, 0.4))
        own.kill()
        time.sleep(rng.uniform(0, 0.5))
        own.start()
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join(60)
    store = opened(own.address)
    for name, acknowledged in logs.items():
        stored = list(store.read(name))
        assert len(acknowledged) > 5
        assert set(acknowledged) <= set(stored)
        assert [offset for offset, _ in stored] == list(range(len(stored)))
        assert len({record for _, record in stored}) == len(stored)
        watchers[name].check(store, name)
