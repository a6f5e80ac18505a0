"""Writers killed with SIGKILL at random moments: nothing acknowledged is lost, nothing half is visible."""

import contextlib
import os
import random
import time

import pyarrow as pa
import pytest
import sqlalchemy as sa

from retrodict.core.errors import NotFoundError
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.objects.folder import FolderObjects
from retrodict.stores.records.sqlite import SqliteRecords
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.stores.tables.delta import DeltaTables

APPEND = """
import itertools, sys
from pathlib import Path
from retrodict.stores.streams.segments import SegmentStreams
with SegmentStreams(Path(sys.argv[1]), segment_bytes=20_000).open_writer("s") as writer:
    end = writer.append([])
    for turn in itertools.count():
        batch = [b"%d:" % (end + i) + b"x" * ((end + i) % 3000) for i in range(1 + turn % 4)]
        assert writer.append(batch) == end
        end += len(batch)
        print(end, flush=True)
"""

INSERT = """
import itertools, sys
from pathlib import Path
import sqlalchemy as sa
from retrodict.stores.records.sqlite import SqliteRecords
records = SqliteRecords(Path(sys.argv[1]))
meta = sa.MetaData()
columns = [sa.Column(name, sa.Integer, primary_key=True) for name in ("id", "half")]
pairs = sa.Table("pairs", meta, *columns)
records.ensure(meta)
while True:
    with records.write() as change:
        last = change.execute(sa.select(sa.func.coalesce(sa.func.max(pairs.c.id), -1))).scalar_one()
        change.execute(pairs.insert().values(id=last + 1, half=0))
        change.execute(pairs.insert().values(id=last + 1, half=1))
    print(last + 1, flush=True)
"""

PUT = """
import sys
from pathlib import Path
from retrodict.stores.keys.lmdb import LmdbKeys
keys = LmdbKeys(Path(sys.argv[1]), map_size=1 << 28)
durable = sys.argv[2] == "durable"
state = {}
def change(values):
    state["n"] = int(values[0] or b"0") + 1
    text = b"%d" % state["n"]
    return {b"n": text, **{b"copy %03d" % i: text * 20 for i in range(100)}}
while True:
    keys.update([b"n"], change, durable=durable)
    print(state["n"], flush=True)
"""

WRITE = """
import sys
from pathlib import Path
import pyarrow as pa
from retrodict.stores.tables.delta import DeltaTables
tables = DeltaTables(Path(sys.argv[1]))
end = tables.read("t").num_rows if tables.names() else 0
while True:
    rows = pa.table({"i": pa.array(range(end, end + 10), pa.int64())})
    version = tables.write("t", rows)
    end += 10
    print(version, flush=True)
"""

STREAM = """
import sys
from pathlib import Path
import pyarrow as pa
from retrodict.stores.tables import _file_writer
from retrodict.stores.tables.delta import DeltaTables
_file_writer.FILE_ROWS = 1000
tables = DeltaTables(Path(sys.argv[1]))
end = tables.read("t").num_rows if tables.names() else 0
def batches():
    for start in range(end, end + 20_000, 700):
        if start - end == 7_000:
            print("now", flush=True)
        yield pa.record_batch({"i": pa.array(range(start, min(start + 700, end + 20_000)), pa.int64())})
while True:
    rows = pa.RecordBatchReader.from_batches(pa.schema([("i", pa.int64())]), batches())
    print(tables.write("t", rows), flush=True)
    end += 20_000
"""

TIDY = """
import sys
from pathlib import Path
import pyarrow as pa
from retrodict.stores.tables.delta import DeltaTables
tables, what = DeltaTables(Path(sys.argv[1])), sys.argv[2]
end = tables.read("t").num_rows if tables.names() else 0
while True:
    for _ in range(4):
        end += 10
        rows = pa.table({"i": pa.array(range(end - 10, end), pa.int64())})
        last = tables.write("t", rows, metadata={"end": str(end)})
    if what == "compact":
        print("now", flush=True)
        last = tables.compact("t", metadata={"end": str(end)})
    elif what == "restore":
        end -= 20
        print("now", flush=True)
        last = tables.restore("t", last - 2, metadata={"end": str(end)})
    else:
        tables.compact("t", metadata={"end": str(end)})
        print("now", flush=True)
        tables.vacuum("t", keep=[last - 3])
    print(last, flush=True)
"""

OBJECTS = """
import itertools, sys
from pathlib import Path
from retrodict.stores.objects.folder import FolderObjects
objects = FolderObjects(Path(sys.argv[1]))
for i in itertools.count(int(sys.argv[2])):
    print(objects.put(b"%d" % i * 40_000), flush=True)
"""


def last_line_after_kill(process, pause):
    """Let a writer work for a while, kill it, and return the last thing it said it had done."""
    last = process.line()
    assert last, "the writer did not start"
    time.sleep(pause)
    process.kill()
    return (process.rest() or [last])[-1]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_stream_writer_loses_nothing_it_acknowledged(start, tmp_path, seed):
    """Every acknowledged record is there, the rest is a whole prefix of what was tried, and the next writer goes on."""
    moments = random.Random(seed)
    streams = SegmentStreams(tmp_path)
    for _ in range(8):
        acknowledged = int(last_line_after_kill(start(APPEND, tmp_path), moments.uniform(0, 0.05)))
        for _ in range(2):  # as readers find it, then as the next writer leaves it
            data = [record for _, record in streams.read("s")]
            assert len(data) >= acknowledged
            assert data == [b"%d:" % i + b"x" * (i % 3000) for i in range(len(data))]
            assert streams.end("s") == len(data)
            with streams.open_writer("s", timeout_s=1) as writer:
                assert writer.append([]) >= len(data)


def test_a_killed_record_writer_leaves_whole_transactions(start, tmp_path):
    """Both halves of every acknowledged pair are there, and no half without the other."""
    moments = random.Random(3)
    path = tmp_path / "records.db"
    acknowledged = -1
    for _ in range(5):
        acknowledged = int(last_line_after_kill(start(INSERT, path), moments.uniform(0, 0.05)))
        records = SqliteRecords(path)
        with records.read() as state:
            pairs = state.execute(sa.text("SELECT id, count(*) FROM pairs GROUP BY id ORDER BY id")).all()
        records.close()
        assert [tuple(pair) for pair in pairs] == [(i, 2) for i in range(len(pairs))]
        assert len(pairs) > acknowledged


@pytest.mark.parametrize("durable", ["durable", "quick"])
def test_a_killed_key_writer_leaves_whole_updates(start, tmp_path, durable):
    """All hundred copies of an update agree, and no acknowledged update is lost, durable or not."""
    moments = random.Random(4)
    for _ in range(6):
        acknowledged = int(last_line_after_kill(start(PUT, tmp_path, durable), moments.uniform(0, 0.03)))
        keys = LmdbKeys(tmp_path, map_size=1 << 28)
        (count,) = keys.get_many([b"n"])
        copies = {value for _, value in keys.scan(b"copy")}
        keys.put_many({b"after": b"1"})
        keys.close()
        assert int(count) >= acknowledged
        assert copies == {count * 20}


def test_a_killed_table_writer_leaves_whole_versions(start, tmp_path):
    """Every acknowledged version reads back whole and in order, and no other program is needed to go on."""
    moments = random.Random(5)
    for _ in range(2):
        acknowledged = int(last_line_after_kill(start(WRITE, tmp_path), moments.uniform(0, 0.1)))
        tables = DeltaTables(tmp_path)
        versions = len(tables.history("t"))
        assert versions > acknowledged
        for version in (acknowledged, versions - 1):
            rows = tables.read("t", version)
            assert rows.equals(pa.table({"i": pa.array(range(10 * (version + 1)), pa.int64())}))


def killed_at_work(process, pause, rounds):
    """Kill a writer shortly after it began what matters for the last time; return the last version it told of."""
    last, begun = -1, 0
    while begun < rounds:
        line = process.line()
        assert line, "the writer ended by itself"
        last, begun = (last, begun + 1) if line == "now" else (int(line), begun)
    time.sleep(pause)
    process.kill()
    return max([last, *(int(line) for line in process.rest() if line != "now")])


def aged(folder):
    """Let two hours pass for all files."""
    for path in folder.rglob("*.parquet"):
        os.utime(path, (time.time() - 7200,) * 2)


def test_a_killed_stream_into_a_table_leaves_whole_versions(start, tmp_path):
    """No version holds a part of the stream, and files of a dead write are no part of the table."""
    moments = random.Random(7)
    for _ in range(3):
        acknowledged = killed_at_work(start(STREAM, tmp_path), moments.uniform(0, 0.02), rounds=2)
        tables = DeltaTables(tmp_path)
        versions = len(tables.history("t"))
        assert versions > acknowledged >= 0
        for version in range(versions):
            assert tables.read("t", version)["i"].to_pylist() == list(range(20_000 * (version + 1)))
    aged(tmp_path)
    tables.vacuum("t", keep=range(versions))
    named = {file.path for file in tables.files("t")}
    assert {path.name for path in (tmp_path / "t").glob("*.parquet")} == named
    assert len(named) == 20 * versions


@pytest.mark.parametrize("what", ["compact", "restore", "vacuum"])
def test_a_killed_tidier_leaves_every_version_as_it_was(start, tmp_path, what):
    """Each readable version holds the rows its writer said, and the next process goes on and tidies up."""
    moments = random.Random(8)
    for turn in range(3):
        acknowledged = killed_at_work(start(TIDY, tmp_path, what), moments.uniform(0, 0.008), rounds=2 + turn)
        tables, gone, end = DeltaTables(tmp_path), [], 0
        history = tables.history("t")
        assert len(history) > acknowledged >= 0
        for version in history:
            end = int(version.metadata.get("end", end))  # a vacuum says nothing and changes nothing
            with contextlib.suppress(NotFoundError):
                assert tables.read("t", version.version)["i"].to_pylist() == list(range(end))
                continue
            gone.append(version.version)
        assert not gone or what == "vacuum"
    aged(tmp_path)
    kept = [version.version for version in history if version.version not in gone]
    tables.vacuum("t", keep=kept)
    needed = {file.path for version in kept for file in tables.files("t", version)}
    assert {path.name for path in (tmp_path / "t").glob("*.parquet")} == needed


def test_a_killed_object_writer_leaves_whole_objects(start, tmp_path):
    """Every listed object passes its hash, every acknowledged one is listed; drafts are not."""
    moments = random.Random(6)
    for turn in range(4):
        process = start(OBJECTS, tmp_path, 1000 * turn)
        last = last_line_after_kill(process, moments.uniform(0, 0.05))
        objects = FolderObjects(tmp_path)
        digests = list(objects.digests())
        assert last in digests
        for digest in digests:
            objects.get(digest)
