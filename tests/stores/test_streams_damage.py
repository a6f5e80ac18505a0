"""Torn tails, flipped bytes, full disks and lost heads of the embedded streams."""

import os
import struct
import zlib

import pytest

from retrodict.core.errors import BusyError, IntegrityError, RetryableError
from retrodict.stores import _durable
from retrodict.stores.streams import _writer
from retrodict.stores.streams.base import TornTail
from retrodict.stores.streams.segments import SegmentStreams

RECORDS = [b"first", b"", b"third record", b"the last one"]
LAST = 8 + len(RECORDS[-1])  # its frame


@pytest.fixture
def streams(tmp_path):
    return SegmentStreams(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "s"


def segment(folder, number=0):
    return sorted(folder.glob("*.seg"))[number]


def write(streams, *appends):
    with streams.open_writer("s") as writer:
        for records in appends:
            writer.append(records)


def data(streams):
    return [record for _, record in streams.read("s")]


def unfinished(folder, extra):
    """Leave what a writer leaves that dies within an append: bytes beyond what was acknowledged."""
    with segment(folder, -1).open("ab") as file:
        file.write(extra)


def forget_head(folder):
    """Leave what a loss of power can leave: a head older than the segments, here none at all."""
    (folder / ".head").unlink()


def other_boot(folder):
    """Make the head one of an earlier start of the machine."""
    head = bytearray((folder / ".head").read_bytes())
    head[8:24] = os.urandom(16)
    head[-4:] = struct.pack("<I", zlib.crc32(bytes(head[:-4])))
    (folder / ".head").write_bytes(head)


@pytest.fixture
def whole_frame(tmp_path):
    """Bytes of the frame of the last record, taken from a stream that has it."""
    other = SegmentStreams(tmp_path / "other")
    write(other, RECORDS)
    return segment(tmp_path / "other" / "s").read_bytes()[-LAST:]


@pytest.mark.parametrize("cut", range(1, LAST))
def test_a_record_cut_at_any_byte_is_a_torn_tail(streams, folder, whole_frame, cut):
    """A frame written up to any of its bytes is not read, then cut off and reported, and its offset used again."""
    write(streams, RECORDS[:-1])
    unfinished(folder, whole_frame[:cut])
    assert data(streams) == RECORDS[:-1]
    with streams.open_writer("s") as writer:
        assert writer.recovered == [TornTail("s", segment(folder).name, 3, cut)]
        assert segment(folder).read_bytes().endswith(RECORDS[-2])
        assert writer.append([b"again"]) == 3
    assert data(streams) == [*RECORDS[:-1], b"again"]


@pytest.mark.parametrize("place", range(LAST))
def test_garbage_in_any_byte_of_an_unfinished_record_is_a_torn_tail(streams, folder, whole_frame, place):
    """A frame of full length with one wrong byte was never acknowledged, so it is cut off whole."""
    write(streams, RECORDS[:-1])
    torn = bytearray(whole_frame)
    torn[place] ^= 0x41
    unfinished(folder, torn)
    assert data(streams) == RECORDS[:-1]
    with streams.open_writer("s") as writer:
        assert writer.recovered == [TornTail("s", segment(folder).name, 3, LAST)]
    assert data(streams) == RECORDS[:-1]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 5000])
def test_zeros_beyond_the_end_are_a_torn_tail(streams, folder, size):
    """A file that a loss of power left longer than written holds no empty records."""
    write(streams, RECORDS)
    forget_head(folder)
    unfinished(folder, bytes(size))
    assert data(streams) == RECORDS
    with streams.open_writer("s") as writer:
        assert [tail.size for tail in writer.recovered] == [size]


def test_a_whole_record_nobody_was_told_of_is_kept_by_the_next_writer(streams, folder, whole_frame):
    """Readers do not see it before; the next writer takes it up, since it may have been acknowledged."""
    write(streams, RECORDS[:-1])
    unfinished(folder, whole_frame)
    assert data(streams) == RECORDS[:-1]
    with streams.open_writer("s") as writer:
        assert writer.recovered == []
    assert data(streams) == RECORDS


@pytest.mark.parametrize("cut", range(1, LAST + 1))
def test_acknowledged_bytes_that_are_missing_are_no_torn_tail(streams, folder, cut):
    """A file cut short behind the writer's back is damage for reader and writer, at every byte of the last record."""
    write(streams, RECORDS)
    os.truncate(segment(folder), segment(folder).stat().st_size - cut)
    with pytest.raises(IntegrityError, match=r"stream s.*offset 3"):
        data(streams)
    with pytest.raises(IntegrityError, match="acknowledged, up to byte"):
        streams.open_writer("s")


@pytest.mark.parametrize("cut", range(1, LAST))
def test_after_a_loss_of_power_what_is_whole_is_what_there_is(streams, folder, cut):
    """With the head lost too, readers end before the torn record, and the writer cuts it off and reports it."""
    write(streams, RECORDS)
    forget_head(folder)
    os.truncate(segment(folder), segment(folder).stat().st_size - cut)
    assert (data(streams), streams.end("s")) == (RECORDS[:-1], 3)
    with streams.open_writer("s") as writer:
        assert writer.recovered == [TornTail("s", segment(folder).name, 3, LAST - cut)]


def test_a_head_of_an_earlier_boot_still_bounds_what_may_be_lost(streams, folder):
    """Records beyond it count if they are whole; what it acknowledged may not be missing."""
    write(streams, RECORDS[:2])
    head = (folder / ".head").read_bytes()
    write(streams, RECORDS[2:])
    (folder / ".head").write_bytes(head)
    other_boot(folder)
    assert (data(streams), streams.end("s")) == (RECORDS, 4)
    os.truncate(segment(folder), 30)
    with pytest.raises(IntegrityError, match="acknowledged, up to"):
        streams.end("s")


def test_lost_segments_are_damage(streams, folder):
    """Files that end before the head says are never taken for an empty stream."""
    write(streams, RECORDS)
    segment(folder).unlink()
    for use in (lambda: data(streams), lambda: streams.open_writer("s")):
        with pytest.raises(IntegrityError, match="stream s"):
            use()


@pytest.fixture
def three_segments(streams):
    with streams.open_writer("s") as writer:
        for start in (0, 3, 6):
            writer.append([b"record %d" % i for i in range(start, start + 3)])
            writer.roll()
        writer.append([b"record 9"])


@pytest.mark.parametrize("place", range(20, 20 + 3 * 16))
def test_a_flipped_byte_in_a_closed_segment_names_segment_and_offset(three_segments, streams, folder, place):
    """Every byte of every frame is covered, and reading ends at the damaged record, not after it."""
    path = segment(folder, 1)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    broken = 3 + (place - 20) // 16
    seen = []
    with pytest.raises(IntegrityError, match=rf"segment {path.name}, offset {broken}\b"):
        seen.extend(offset for offset, _ in streams.read("s"))
    assert seen == list(range(broken))
    assert [offset for offset, _ in streams.read("s", 6)] == [6, 7, 8, 9]


@pytest.mark.parametrize("place", range(20))
def test_a_damaged_header_names_its_segment(three_segments, streams, folder, place):
    """Magic, first offset and checksum of a segment file are all checked."""
    path = segment(folder, 1)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"segment {path.name}.*header"):
        data(streams)


@pytest.mark.parametrize("change", ["cut", "longer", "gone", "swapped"])
def test_a_changed_closed_segment_is_damage(three_segments, streams, folder, change):
    """Missing records, added bytes, a missing file and another file under its name are all found."""
    path = segment(folder, 1)
    content = path.read_bytes()
    if change == "cut":
        path.write_bytes(content[:-16])
    elif change == "longer":
        path.write_bytes(content + content[-16:])
    elif change == "swapped":
        path.write_bytes(segment(folder, 2).read_bytes())
    else:
        path.unlink()
    with pytest.raises(IntegrityError, match="stream s, segment"):
        data(streams)


def test_a_flipped_byte_in_the_open_segment_is_damage(streams, folder):
    """Below the acknowledged end there are no torn tails, in the last segment either."""
    write(streams, RECORDS)
    content = bytearray(segment(folder).read_bytes())
    content[-1] ^= 1
    segment(folder).write_bytes(content)
    with pytest.raises(IntegrityError, match="offset 3"):
        data(streams)


def test_records_are_synced_before_they_are_acknowledged(streams, folder, monkeypatch):
    """At the one sync of an append all its bytes are in the file, and no reader sees any of them yet."""
    at_sync, sync = [], _writer.sync_data

    def watch(descriptor):
        at_sync.append((os.fstat(descriptor).st_size, streams.end("s")))
        sync(descriptor)

    monkeypatch.setattr(_writer, "sync_data", watch)
    write(streams, RECORDS[:1], RECORDS[1:])
    assert at_sync == [(20 + 8 + 5, 0), (segment(folder).stat().st_size, 1)]


FULL = """
import resource, sys
from pathlib import Path
from retrodict.core.errors import RetryableError
from retrodict.stores.streams.segments import SegmentStreams
streams = SegmentStreams(Path(sys.argv[1]))
with streams.open_writer("s") as writer:
    writer.append([b"kept"])
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
    try:
        writer.append([b"a" * 2_000, b"b" * 2_000, b"c" * 2_000])
    except RetryableError as error:
        print(error, flush=True)
    print([len(r) for _, r in streams.read("s")], streams.end("s"), flush=True)
    print(writer.append([b"after"]), flush=True)
"""


def test_an_append_that_does_not_fit_on_the_disk_leaves_nothing(start, streams, folder, tmp_path):
    """The kernel takes a part and refuses the rest: the error says so, nothing is visible, and the writer goes on."""
    process = start(FULL, tmp_path)
    assert "none of them is visible" in process.line()
    assert process.line() == "[4] 1"
    assert process.line() == "1"
    assert process.wait() == 0
    assert data(streams) == [b"kept", b"after"]
    assert segment(folder).stat().st_size == 20 + 8 + 4 + 8 + 5


def test_what_could_not_be_taken_back_is_taken_back_later(streams, folder, monkeypatch):
    """A disk that refused the cut, too, and works again: the writer goes on by itself, without the left-over bytes."""
    with streams.open_writer("s") as writer:
        writer.append([b"kept"])

        def refuse(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(os, "ftruncate", refuse)
            full.setattr(_writer, "sync_data", refuse)
            with pytest.raises(RetryableError, match="none of them is visible"):
                writer.append([b"lost"])
            with pytest.raises(IntegrityError, match="must be taken back"):
                writer.append([b"never"])
        assert writer.append([b"after"]) == 1
    assert data(streams) == [b"kept", b"after"]


def test_an_append_that_cannot_be_taken_back_ends_the_writer(streams, folder):
    """While even the cut fails, no further append is taken; the next writer cleans up."""
    writer = streams.open_writer("s")
    writer.append([b"kept"])
    read_only = os.open(segment(folder), os.O_RDONLY)
    os.dup2(read_only, writer._segment)
    os.close(read_only)
    with pytest.raises(RetryableError, match="none of them is visible"):
        writer.append([b"lost"])
    with pytest.raises(IntegrityError, match="must be taken back"):
        writer.append([b"never"])
    writer.close()
    write(streams, [b"after"])
    assert data(streams) == [b"kept", b"after"]


def refuse_drafts(patch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    patch.setattr(_durable, "write_draft", refuse)


def test_a_segment_that_a_full_disk_refuses_is_begun_later(tmp_path, folder, monkeypatch):
    """The first of a stream as the next one: the error of an append, and all goes on once there is room."""
    streams = SegmentStreams(tmp_path, segment_bytes=64)
    with monkeypatch.context() as full:
        refuse_drafts(full)
        with pytest.raises(RetryableError, match="No space left"):
            streams.open_writer("s")
    with streams.open_writer("s") as writer:
        writer.append([bytes(80)])
        with monkeypatch.context() as full:
            refuse_drafts(full)
            with pytest.raises(RetryableError, match="none of them is visible"):
                writer.append([b"lost"])
            with pytest.raises(RetryableError, match="could not be begun"):
                writer.roll()
        assert writer.append([b"after"]) == 1
        with pytest.raises(BusyError, match="one writer at a time"):
            streams.open_writer("s", timeout_s=0)
    assert data(streams) == [bytes(80), b"after"]
    assert not list(folder.glob(".0*"))


def test_a_folder_in_place_of_a_segment_says_where(streams, folder):
    """To readers as to writers."""
    write(streams, RECORDS)
    path = segment(folder)
    path.unlink()
    path.mkdir()
    for call in (lambda: data(streams), lambda: streams.open_writer("s")):
        with pytest.raises(IntegrityError, match=path.name) as caught:
            call()
        assert "Restore" in str(caught.value)
