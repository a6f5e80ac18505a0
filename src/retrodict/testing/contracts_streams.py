"""Contract suites of the streams: subclass one, override ``reopen``, and every promise is tested."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from retrodict.core.errors import BusyError, InputError, NotFoundError, RetrodictError
from retrodict.stores.streams.base import EventStreams, StreamStore

__all__ = ["EventsContract", "StreamsContract"]


def _records(start: int, stop: int) -> list[bytes]:
    return [b"record %d" % i for i in range(start, stop)]


class EventsContract:
    """What every :class:`~retrodict.stores.streams.base.EventStreams` does.

    ``longest`` is the size in bytes of the longest record that is tried: servers have limits of their own.
    """

    longest: ClassVar[int] = 3_000_000

    @pytest.fixture
    def reopen(self) -> Callable[[], Any]:
        """Open the store under test (empty at first), each time as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Callable[[], Any]) -> Any:
        """Give the store under test."""
        return reopen()

    def test_offsets_count_from_zero_without_gaps(self, store: EventStreams) -> None:
        """Append returns the offset of its first record; an append of nothing returns the next one."""
        with store.open_writer("s") as writer:
            assert [writer.append(_records(0, n)) for n in (1, 3, 0, 2)] == [0, 1, 4, 4]
        assert [offset for offset, _ in store.read("s")] == list(range(6))
        assert store.end("s") == 6

    @pytest.mark.parametrize("record", [b"", b"\x00" * 100, bytes(range(256)), b"NATS/1.0\r\n\r\n", "long"])
    def test_any_bytes_are_a_record(self, store: EventStreams, record: bytes | str) -> None:
        """Empty, zero, binary and long records come back as they were, between others."""
        data = record if isinstance(record, bytes) else b"x" * self.longest
        with store.open_writer("s") as writer:
            writer.append([b"before", data, b"after"])
        assert [data for _, data in store.read("s")] == [b"before", data, b"after"]

    def test_a_long_append_stays_in_order(self, store: EventStreams) -> None:
        """More records than any server takes or gives at once."""
        expected = _records(0, 5_000)
        with store.open_writer("s") as writer:
            assert (writer.append(expected), writer.append([b"last"])) == (0, 5_000)
        assert list(store.read("s")) == list(enumerate([*expected, b"last"]))
        assert [offset for offset, _ in store.read("s", 1_500, 2_100)] == list(range(1_500, 3_600))

    def test_a_stream_that_does_not_exist_is_empty(self, store: EventStreams) -> None:
        """Reading it is no error and makes nothing."""
        assert (store.end("s"), list(store.read("s")), store.names()) == (0, [], [])

    def test_reading_begins_and_ends_where_asked(self, store: EventStreams) -> None:
        """Every start and limit gives the slice a list would give."""
        with store.open_writer("s") as writer:
            for start in range(0, 12, 4):
                writer.append(_records(start, start + 4))
        expected = list(enumerate(_records(0, 12)))
        for start in (0, 1, 4, 11, 12, 15):
            assert list(store.read("s", start)) == expected[start:]
            for limit in (0, 1, 5, 20):
                assert list(store.read("s", start, limit)) == expected[start : start + limit]

    @pytest.mark.parametrize(("start", "limit"), [(-1, None), (0, -1)])
    def test_a_negative_offset_or_limit_is_refused(self, store: EventStreams, start: int, limit: int | None) -> None:
        """The refusal comes with the call, not with the first step of the iteration."""
        with pytest.raises(InputError, match="must not be negative"):
            store.read("s", start, limit)

    @pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "..", "a/../b", "a.seg", ".head", "a b", "a\n", "a=b"])
    def test_a_bad_name_is_refused(self, store: EventStreams, name: str) -> None:
        """A name that could leave the store is no name."""
        with pytest.raises(InputError, match="name of a stream"):
            store.open_writer(name)
        with pytest.raises(InputError, match="name of a stream"):
            store.read(name)

    def test_names_that_look_alike_are_different_streams(self, store: EventStreams) -> None:
        """Parts, underscores and dashes are never confused, whatever they become on a server."""
        names = ["a/b", "a_b", "a-b", "a__b", "a/b/c", "A/b"]
        for name in names:
            with store.open_writer(name) as writer:
                assert writer.append([name.encode()]) == 0
        assert store.names() == sorted(names)
        assert [list(store.read(name)) for name in names] == [[(0, name.encode())] for name in names]

    def test_readers_see_each_append_once_it_has_returned(
        self, store: EventStreams, reopen: Callable[[], EventStreams]
    ) -> None:
        """Another process follows the writer record by record, while the writer is open."""
        other = reopen()
        with store.open_writer("s") as writer:
            for i in range(20):
                writer.append(_records(i, i + 1))
                assert other.end("s") == i + 1
                assert list(other.read("s", i)) == [(i, b"record %d" % i)]

    def test_an_iteration_goes_on_to_the_end_as_it_is_then(self, store: EventStreams) -> None:
        """Records appended while the iteration runs are part of it."""
        with store.open_writer("s") as writer:
            writer.append(_records(0, 2))
            iteration = store.read("s")
            assert next(iteration)[0] == 0
            writer.append(_records(2, 4))
            assert [offset for offset, _ in iteration] == [1, 2, 3]

    def test_iterations_do_not_disturb_each_other(self, store: EventStreams) -> None:
        """Two of them, step by step, and one that is given up half way."""
        with store.open_writer("s") as writer:
            writer.append(_records(0, 10))
        next(store.read("s", 5))
        pairs = list(zip(store.read("s"), store.read("s", 2), strict=False))
        assert [(one[0], two[0]) for one, two in pairs] == [(i, i + 2) for i in range(8)]

    def test_a_new_writer_goes_on_where_the_last_one_ended(
        self, store: EventStreams, reopen: Callable[[], EventStreams]
    ) -> None:
        """Also when another process opens it."""
        with store.open_writer("s") as writer:
            writer.append(_records(0, 3))
        with reopen().open_writer("s") as writer:
            assert writer.append(_records(3, 4)) == 3
        assert [data for _, data in store.read("s")] == _records(0, 4)

    def test_names_go_by_prefix(self, store: EventStreams) -> None:
        """Streams are listed sorted, nested ones beside their parents."""
        for name in ("decisions", "decisions/1", "decisions/0", "events/landed"):
            store.open_writer(name).close()
        assert store.names() == ["decisions", "decisions/0", "decisions/1", "events/landed"]
        assert store.names("decisions/") == ["decisions/0", "decisions/1"]
        assert store.names("x") == []

    def test_threads_may_share_a_writer(self, store: EventStreams) -> None:
        """Each append stays together, and the offset it returned is where its records are."""
        reads: list[tuple[int, int]] = []
        with store.open_writer("s") as writer:

            def run(thread: int) -> None:
                reads.extend(
                    (writer.append([b"%d %d %d" % (thread, i, part) for part in range(3)]), thread) for i in range(20)
                )

            threads = [threading.Thread(target=run, args=(thread,), daemon=True) for thread in range(4)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
        data = [record.split() for _, record in store.read("s")]
        assert len(data) == 240
        for offset, thread in reads:
            group = data[offset : offset + 3]
            assert [int(part) for _, _, part in group] == [0, 1, 2]
            assert {int(owner) for owner, _, _ in group} == {thread}

    def test_a_closed_writer_says_so(self, store: EventStreams) -> None:
        """Use after close is an error of ours, closing twice is none."""
        writer = store.open_writer("s")
        writer.close()
        writer.close()
        with pytest.raises(RetrodictError, match="closed"):
            writer.append([b"a"])


class StreamsContract(EventsContract):
    """What every :class:`~retrodict.stores.streams.base.StreamStore` does beyond that of any event stream."""

    def test_reading_crosses_segments(self, store: StreamStore) -> None:
        """Every start and limit gives the slice a list would give, wherever segments begin."""
        with store.open_writer("s") as writer:
            for start in range(0, 12, 4):
                writer.append(_records(start, start + 4))
                writer.roll()
            writer.append(_records(12, 14))
        expected = list(enumerate(_records(0, 14)))
        for start in range(16):
            assert list(store.read("s", start)) == expected[start:]
            for limit in (0, 1, 4, 5, 20):
                assert list(store.read("s", start, limit)) == expected[start : start + limit]

    def test_an_iteration_goes_on_into_a_new_segment(self, store: StreamStore) -> None:
        """Records appended while the iteration runs are part of it, also those of a new segment."""
        with store.open_writer("s") as writer:
            writer.append(_records(0, 2))
            iteration = store.read("s")
            assert next(iteration)[0] == 0
            writer.append(_records(2, 3))
            writer.roll()
            writer.append(_records(3, 4))
            assert [offset for offset, _ in iteration] == [1, 2, 3]

    def test_a_stream_that_does_not_exist_has_no_segments(self, store: StreamStore) -> None:
        """Asking is no error."""
        assert store.segments("s") == []

    def test_nothing_is_recovered_after_a_clean_end(
        self, store: StreamStore, reopen: Callable[[], StreamStore]
    ) -> None:
        """What the writer before closed is whole."""
        with store.open_writer("s") as writer:
            writer.append(_records(0, 3))
        with reopen().open_writer("s") as writer:
            assert writer.recovered == []

    def test_a_second_writer_gets_busy(self, store: StreamStore, reopen: Callable[[], StreamStore]) -> None:
        """It is told who holds the stream; another stream is free; after the close this one is too."""
        with store.open_writer("s"):
            with pytest.raises(BusyError, match="stream s"):
                reopen().open_writer("s", timeout_s=0.05)
            with reopen().open_writer("s/2", timeout_s=0.05) as other:
                other.append([b"x"])
        with reopen().open_writer("s", timeout_s=0.05) as writer:
            assert writer.append([b"x"]) == 0

    def test_a_second_writer_waits_for_the_first(self, store: StreamStore, reopen: Callable[[], StreamStore]) -> None:
        """Within its time limit it gets the stream as soon as it is free."""
        first = store.open_writer("s")
        first.append([b"a"])
        threading.Timer(0.2, first.close).start()
        with reopen().open_writer("s", timeout_s=10) as second:
            assert second.append([b"b"]) == 1

    def test_segments_cover_the_stream(self, store: StreamStore) -> None:
        """They are contiguous, oldest first, all closed but the one that is written."""
        with store.open_writer("s") as writer:
            writer.append(_records(0, 3))
            writer.roll()
            writer.append(_records(3, 4))
            pieces = store.segments("s")
        assert [(piece.first, piece.count, piece.closed) for piece in pieces] == [(0, 3, True), (3, 1, False)]

    def test_a_rolled_segment_is_closed_at_once_and_for_good(
        self, store: StreamStore, reopen: Callable[[], StreamStore]
    ) -> None:
        """Closed with no record after it, and its bytes never change; rolling twice makes nothing empty."""
        with store.open_writer("s") as writer:
            writer.roll()
            writer.append(_records(0, 3))
            writer.roll()
            writer.roll()
        (piece,) = store.segments("s")
        assert (piece.first, piece.count, piece.closed) == (0, 3, True)
        before = store.read_segment("s", piece.name)
        with reopen().open_writer("s") as writer:
            assert writer.append(_records(3, 5)) == 3
        assert store.read_segment("s", piece.name) == before
        assert [data for _, data in store.read("s")] == _records(0, 5)

    def test_an_unknown_segment_is_not_found(self, store: StreamStore) -> None:
        """The message names a near one."""
        with store.open_writer("s") as writer:
            writer.append([b"a"])
        name = store.segments("s")[0].name
        with pytest.raises(NotFoundError, match=name):
            store.read_segment("s", name.replace("0", "1", 1))
