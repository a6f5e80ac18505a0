"""Several processes on one store: who waits, who reads, who is told what, and what a fork may not do."""

import multiprocessing
import os
import time

import pyarrow as pa
import pytest
from tests.forks import forked

from retrodict.core.errors import BusyError, InternalError
from retrodict.stores._locks import FileLock
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.records.sqlite import SqliteRecords
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.stores.tables.delta import DeltaTables

HOLD_STREAM = """
import sys
from pathlib import Path
from retrodict.stores.streams.segments import SegmentStreams
writer = SegmentStreams(Path(sys.argv[1])).open_writer("s")
writer.append([b"first"])
print("ready", flush=True)
sys.stdin.readline()
writer.close()
"""

HOLD_TABLE = """
import sys
from pathlib import Path
from retrodict.stores._locks import FileLock
lock = FileLock(Path(sys.argv[1]) / ".locks" / "t", where="table t", timeout_s=1)
print("ready", flush=True)
sys.stdin.readline()
"""

TAKE_IN_TURNS = """
import sys, time
from pathlib import Path
from retrodict.stores._locks import FileLock
folder = Path(sys.argv[1])
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    with FileLock(folder / "turn", where="it", timeout_s=60, temporary=True):
        (folder / "inside").touch(exist_ok=False)
        (folder / "inside").unlink()
print("over", flush=True)
"""

HOLD_RECORDS = """
import sys
from pathlib import Path
from retrodict.stores.records.sqlite import SqliteRecords
with SqliteRecords(Path(sys.argv[1])).write():
    print("ready", flush=True)
    sys.stdin.readline()
"""

FOLLOW = """
import sys, time
from pathlib import Path
from retrodict.stores.streams.segments import SegmentStreams
streams, seen = SegmentStreams(Path(sys.argv[1])), 0
print("ready", flush=True)
while seen < int(sys.argv[2]):
    for offset, record in streams.read("s", seen):
        assert (offset, record) == (seen, b"%d:" % seen + b"x" * (seen % 700)), (offset, seen)
        seen += 1
print(seen, flush=True)
"""

WATCH_KEYS = """
import sys
from pathlib import Path
from retrodict.stores.keys.lmdb import LmdbKeys
keys, last = LmdbKeys(Path(sys.argv[1]), map_size=1 << 28), -1
print("ready", flush=True)
while last < int(sys.argv[2]):
    values = keys.get_many([b"%d" % i for i in range(20)])
    assert len(set(values)) == 1, set(values)
    assert int(values[0]) >= last
    last = int(values[0])
print(last, flush=True)
"""


def test_a_busy_stream_names_the_process_that_holds_it(start, tmp_path):
    """The message holds the process id and since when; readers go on meanwhile."""
    holder = start(HOLD_STREAM, tmp_path)
    assert holder.line() == "ready"
    streams = SegmentStreams(tmp_path)
    with pytest.raises(BusyError, match=rf"stream s: .*process {holder.pid} since \d{{4}}-.*Z"):
        streams.open_writer("s", timeout_s=0.1)
    assert list(streams.read("s")) == [(0, b"first")]


def test_waiting_for_a_busy_stream_succeeds(start, tmp_path):
    """A writer that waits gets the stream when the holder closes it."""
    holder = start(HOLD_STREAM, tmp_path)
    assert holder.line() == "ready"
    holder.tell()
    with SegmentStreams(tmp_path).open_writer("s", timeout_s=20) as writer:
        assert writer.append([b"second"]) == 1


def test_a_killed_holder_leaves_the_stream_free(start, tmp_path):
    """The lock ends with the process, with nothing to clean up."""
    holder = start(HOLD_STREAM, tmp_path)
    assert holder.line() == "ready"
    holder.kill()
    with SegmentStreams(tmp_path).open_writer("s", timeout_s=1) as writer:
        assert writer.append([b"second"]) == 1


def test_a_busy_table_names_the_process_that_holds_it(start, tmp_path):
    """A write that waits in vain is told who; another table is free; after the kill so is this one."""
    holder = start(HOLD_TABLE, tmp_path)
    assert holder.line() == "ready"
    tables, rows = DeltaTables(tmp_path, timeout_s=0.1), pa.table({"a": [1]})
    with pytest.raises(BusyError, match=rf"table t: .*process {holder.pid} since"):
        tables.write("t", rows)
    assert tables.write("other", rows) == 0
    holder.kill()
    assert tables.write("t", rows) == 0


def test_a_lock_that_goes_with_its_holder_is_held_by_one_at_a_time(start, tmp_path):
    """Each holder removes the file on which others wait: none of them may go in by the removed one."""
    takers = [start(TAKE_IN_TURNS, tmp_path, 400) for _ in range(4)]
    assert [(taker.line(), taker.line()) for taker in takers] == [("ready", "over")] * 4
    assert not list(tmp_path.iterdir())
    lock = FileLock(tmp_path / "turn", where="it", timeout_s=0, temporary=True)
    with pytest.raises(BusyError, match=f"process {os.getpid()} since"):
        FileLock(tmp_path / "turn", where="it", timeout_s=0, temporary=True)
    lock.close()
    assert not list(tmp_path.iterdir())


def test_waiting_for_busy_records_succeeds(start, tmp_path):
    """BusyError within a short limit, the turn within a longer one; readers never wait."""
    path = tmp_path / "records.db"
    holder = start(HOLD_RECORDS, path)
    assert holder.line() == "ready"
    hasty, patient = SqliteRecords(path, timeout_s=0.1), SqliteRecords(path, timeout_s=20)
    with pytest.raises(BusyError, match="one write"), hasty.write():
        pass
    with hasty.read():
        pass
    holder.tell()
    with patient.write():
        pass
    hasty.close()
    patient.close()


def test_readers_in_other_processes_follow_a_stream(start, tmp_path):
    """Two processes that poll see every record once, in order, over many segments, while it is written."""
    count = 2000
    followers = [start(FOLLOW, tmp_path, count) for _ in range(2)]
    assert [follower.line() for follower in followers] == ["ready", "ready"]
    with SegmentStreams(tmp_path, segment_bytes=30_000).open_writer("s") as writer:
        for i in range(0, count, 4):
            writer.append([b"%d:" % n + b"x" * (n % 700) for n in range(i, i + 4)])
    assert [follower.line() for follower in followers] == [str(count)] * 2


def test_readers_in_other_processes_see_whole_updates_of_keys(start, tmp_path):
    """Twenty keys written together are never seen apart, and never go back."""
    keys, count = LmdbKeys(tmp_path, map_size=1 << 28), 500
    keys.put_many({b"%d" % i: b"0" for i in range(20)})
    watchers = [start(WATCH_KEYS, tmp_path, count) for _ in range(2)]
    assert [watcher.line() for watcher in watchers] == ["ready", "ready"]
    for n in range(1, count + 1):
        keys.put_many({b"%d" % i: b"%d" % n for i in range(20)}, durable=False)
    assert [watcher.line() for watcher in watchers] == [str(count)] * 2
    keys.close()


def _in_child(act):
    """Run a function in a forked child and return what it returned or raised, as text."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with forked() as child:
        if child == 0:
            try:
                theirs.send(act())
            except BaseException as error:  # noqa: BLE001 - whatever it is, the parent judges it
                theirs.send(f"{type(error).__name__}: {error}")
    theirs.close()  # a child that sent nothing is the end of the pipe
    return ours.recv()


# Test processes have threads of Arrow's; the child touches none of them.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestFork:
    def test_keys_are_refused_in_a_child_and_unharmed_in_the_parent(self, tmp_path):
        """Neither the inherited store nor a new one of the same folder is usable there."""
        keys = LmdbKeys(tmp_path, map_size=1 << 28)
        keys.put_many({b"a": b"1"})
        assert "before a fork" in _in_child(lambda: keys.get_many([b"a"]))
        assert "before a fork" in _in_child(lambda: LmdbKeys(tmp_path))
        assert _in_child(keys.close) is None
        keys.put_many({b"a": b"2"})
        assert keys.get_many([b"a"]) == [b"2"]
        keys.close()

    def test_records_are_refused_in_a_child(self, tmp_path):
        """The inherited store says what to do; one opened after the fork works."""
        records = SqliteRecords(tmp_path / "a.db")
        assert "before a fork" in _in_child(records.change_counter)
        assert isinstance(_in_child(lambda: SqliteRecords(tmp_path / "a.db").change_counter()), int)
        records.close()

    def test_a_stream_writer_is_refused_in_a_child(self, tmp_path):
        """Two processes with one position would write over each other."""
        streams = SegmentStreams(tmp_path)
        with streams.open_writer("s") as writer:
            assert "after the fork" in _in_child(lambda: writer.append([b"a"]))
            assert _in_child(writer.close) is None
            assert writer.append([b"a"]) == 0

    def test_a_child_does_not_keep_its_parents_lock(self, tmp_path):
        """The lock is free when its holder lets go, also while a child lives that was forked meanwhile."""
        path = tmp_path / "lock"
        lock = FileLock(path, where="it", timeout_s=0)
        with forked() as child:
            if child == 0:
                time.sleep(30)
            else:
                try:
                    lock.close()
                    FileLock(path, where="it", timeout_s=1).close()
                finally:
                    os.kill(child, 9)


def test_a_store_used_after_a_fork_is_a_mistake_in_code(tmp_path):
    """The error class says so: it is reported, not retried."""
    writer = SegmentStreams(tmp_path).open_writer("s")
    writer._pid = -1
    with pytest.raises(InternalError, match="after the fork"):
        writer.append([b"a"])
    writer._pid = os.getpid()
    writer.close()
