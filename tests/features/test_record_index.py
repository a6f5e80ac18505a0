"""The index of a stream's records answers as reading the whole stream would, and reads each record once."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.features.online.stream import record_index
from retrodict.features.online.stream.record_index import RecordIndex
from retrodict.stores.streams.segments import SegmentStreams


class Counting(SegmentStreams):
    """Streams that count the records they give."""

    given = 0

    def read(self, *where):
        for pair in super().read(*where):
            self.given += 1
            yield pair


def _append(streams, records):
    with streams.open_writer("events/s") as writer:
        writer.append(records)


def _missing(folder, streams, records):
    with RecordIndex(folder, streams, "events/s") as index:
        return index.missing(records)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.sampled_from([b"%d" % i for i in range(12)]), max_size=6), max_size=5))
def test_what_is_missing_is_what_a_reading_of_the_whole_stream_says(tmp_path_factory, pushes):
    """Any sequence of pushes, each followed by an append of what was missing, or of only half of it."""
    root = tmp_path_factory.mktemp("s")
    streams = SegmentStreams(root / "streams")
    for place, records in enumerate(pushes):
        there = {record for _, record in streams.read("events/s")}
        expected = [record for record in dict.fromkeys(records) if record not in there]
        assert _missing(root / "known", streams, records) == expected
        _append(streams, expected if place % 2 else expected[: len(expected) // 2])


def test_a_record_is_read_once(tmp_path, monkeypatch):
    """The second question reads what came since, and one record to see that the stream is the same."""
    monkeypatch.setattr(record_index, "_TOGETHER", 7)
    streams = Counting(tmp_path / "streams")
    _append(streams, [b"%d" % i for i in range(1000)])
    assert _missing(tmp_path / "known", streams, [b"5", b"x"]) == [b"x"]
    assert streams.given == 1000
    _append(streams, [b"x"])
    assert _missing(tmp_path / "known", streams, [b"5", b"x", b"y"]) == [b"y"]
    assert streams.given == 1002


@pytest.mark.parametrize("count", [1, 5])
def test_a_stream_that_began_anew_is_read_anew(tmp_path, count):
    """Shorter than it was, or longer with other records: nothing of the old one is known any more."""
    streams = SegmentStreams(tmp_path / "streams")
    _append(streams, [b"a", b"b", b"c"])
    assert _missing(tmp_path / "known", streams, [b"a"]) == []
    shutil.rmtree(tmp_path / "streams")
    streams = SegmentStreams(tmp_path / "streams")
    _append(streams, [b"n%d" % i for i in range(count)])
    assert _missing(tmp_path / "known", streams, [b"a", b"n0"]) == [b"a"]


def test_a_push_that_was_killed_in_the_middle_adds_only_the_rest(tmp_path):
    """Records that got into the stream before the end came are known, though no index was told."""
    streams, file = SegmentStreams(tmp_path / "streams"), [b"%d" % i for i in range(10)]
    assert _missing(tmp_path / "known", streams, file) == file
    _append(streams, file[:4])
    assert _missing(tmp_path / "known", streams, file) == file[4:]
    _append(streams, file[4:])
    assert _missing(tmp_path / "known", streams, file) == []
