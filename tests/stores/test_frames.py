"""Records cut out of a segment: in C and in Python the same ones, up to the first that is not whole."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.errors import IntegrityError
from retrodict.core.native import kernel
from retrodict.stores.streams import _frames
from retrodict.stores.streams.segments import SegmentStreams

CUTTERS = [_frames._cut_frames] + ([] if kernel is None else [kernel.cut_frames])
RECORDS = st.lists(st.binary(max_size=40), max_size=12)


@pytest.fixture(params=CUTTERS, ids=["python", "kernel"][: len(CUTTERS)])
def cut(request):
    return request.param


def _frame(record):
    length = struct.pack("<I", len(record))
    return length + struct.pack("<I", zlib.crc32(length + record)) + record


@given(records=RECORDS, most=st.integers(0, 15), skipped=st.integers(0, 3))
def test_whole_records_are_cut_from_any_place_and_up_to_any_number(records, most, skipped):
    """From a frame on so many records, and the byte after the last of them."""
    frames = [_frame(record) for record in records]
    data, skipped = b"".join(frames), min(skipped, len(frames))
    begin = len(b"".join(frames[:skipped]))
    end = len(b"".join(frames[: skipped + most]))
    for cut in CUTTERS:
        assert cut(data, begin, most) == (records[skipped : skipped + most], end)


@given(records=RECORDS, length=st.integers(0, 600))
def test_a_torn_tail_gives_the_records_before_it(records, length):
    """A buffer cut off at any byte."""
    frames = [_frame(record) for record in records]
    data = b"".join(frames)[:length]
    whole = [i for i in range(len(frames) + 1) if len(b"".join(frames[:i])) <= len(data)][-1]
    for cut in CUTTERS:
        assert cut(data, 0, 99) == (records[:whole], len(b"".join(frames[:whole])))


@given(records=st.lists(st.binary(max_size=40), min_size=1, max_size=12), data=st.data())
def test_a_damaged_byte_ends_the_records(records, data):
    """Whichever byte of a frame is another one now, its record is not given and neither is one after it."""
    frames = [_frame(record) for record in records]
    damaged = data.draw(st.integers(0, len(frames) - 1))
    begin = len(b"".join(frames[:damaged]))
    place = data.draw(st.integers(begin, begin + len(frames[damaged]) - 1))
    held = bytearray(b"".join(frames))
    held[place] ^= data.draw(st.integers(1, 255))
    for cut in CUTTERS:
        assert cut(bytes(held), 0, 99) == (records[:damaged], begin)


@given(noise=st.binary(max_size=200), at=st.integers(0, 200))
def test_noise_is_cut_alike(noise, at):
    """Bytes that were never frames."""
    at = min(at, len(noise))
    assert len({repr(cut(noise, at, 99)) for cut in CUTTERS}) == 1


def test_a_place_outside_the_buffer_is_refused():
    """The kernel reads no byte that is not the buffer's."""
    if kernel is not None:
        for at in (-1, 4):
            with pytest.raises(ValueError, match="inside their buffer"):
                kernel.cut_frames(b"abc", at, 1)


@pytest.mark.parametrize("size", [1 << 14, 1 << 20, 3 << 20])
def test_records_around_the_size_of_a_read(cut, monkeypatch, tmp_path, size):
    """Records as long as what is read at once, a byte less and more, among short ones."""
    monkeypatch.setattr(_frames, "cut_frames", cut)
    records = [bytes([i % 251]) * length for i, length in enumerate([5, size - 8, size - 9, 0, size - 7, size, 7])]
    streams = SegmentStreams(tmp_path)
    with streams.open_writer("s") as writer:
        writer.append(records)
    assert [record for _, record in streams.read("s")] == records


def test_an_iteration_left_early_is_taken_up_without_a_walk(cut, monkeypatch, tmp_path):
    """Reading on from the record after the last one given steps over no frame, and gives what follows."""
    monkeypatch.setattr(_frames, "cut_frames", cut)
    streams, stepped = SegmentStreams(tmp_path), []
    with streams.open_writer("s") as writer:
        writer.append([b"a" * i for i in range(9)])
    reading = streams.read("s")
    assert [next(reading)[0] for _ in range(4)] == [0, 1, 2, 3]
    reading.close()
    step = _frames.FrameWalk.skip
    monkeypatch.setattr(_frames.FrameWalk, "skip", lambda walk, count: stepped.append(count) or step(walk, count))
    assert [record for _, record in streams.read("s", start=4)] == [b"a" * i for i in range(4, 9)]
    assert stepped == [0]


def test_what_comes_before_damage_is_given(cut, monkeypatch, tmp_path):
    """An acknowledged record that is altered is an error that names it, after the records before it."""
    monkeypatch.setattr(_frames, "cut_frames", cut)
    streams, given_out = SegmentStreams(tmp_path), []
    with streams.open_writer("s") as writer:
        writer.append([b"one", b"two", b"three"])
    segment = next((tmp_path / "s").glob("*.seg"))
    segment.write_bytes(segment.read_bytes().replace(b"two", b"tow"))
    with pytest.raises(IntegrityError, match="offset 1"):
        given_out.extend(record for _, record in streams.read("s"))
    assert [record for _, record in streams.read("s", limit=1)] == [b"one"]
