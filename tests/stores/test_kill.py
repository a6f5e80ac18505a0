"""Writers killed with SIGKILL at random moments: nothing acknowledged is lost, nothing half is visible."""

import random
import time

import pyarrow as pa
import pytest
import sqlalchemy as sa

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
