"""What the embedded tables do beyond their contract: the log is kept, foreign and damaged tables are found out."""

import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.stores.tables import _compaction
from retrodict.stores.tables.delta import DeltaTables


@pytest.fixture
def tables(tmp_path):
    return DeltaTables(tmp_path)


def numbers(*values):
    return pa.table({"i": pa.array(values, pa.int64())})


def only_file(tmp_path):
    (path,) = (tmp_path / "t").glob("*.parquet")
    return path


def test_the_log_is_never_cleaned_up(tables, tmp_path):
    """After a checkpoint on a log whose files are years old, every version still reads back."""
    for i in range(105):
        tables.write("t", numbers(i))
        if i in (0, 50, 90):
            for path in (tmp_path / "t" / "_delta_log").iterdir():
                os.utime(path, (1_000_000_000, 1_000_000_000))
    assert list((tmp_path / "t" / "_delta_log").glob("*.checkpoint.parquet"))
    assert [v.version for v in tables.history("t")] == list(range(105))
    for version in (0, 1, 99, 100, 104):
        assert tables.read("t", version)["i"].to_pylist() == list(range(version + 1))


def test_other_delta_readers_understand_the_table(tables, tmp_path):
    """The library's own reader finds the rows, the counts and the settings that keep versions."""
    tables.write("t", numbers(1, 2), metadata={"batch": "b1"})
    tables.write("t", numbers(3))
    other = DeltaTable(str(tmp_path / "t"))
    assert sorted(other.to_pyarrow_table()["i"].to_pylist()) == [1, 2, 3]
    assert other.count() == 3
    assert other.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    assert json.loads(other.history()[-1]["userMetadata"]) == {"batch": "b1"}


def test_commits_of_another_program_are_read_in_order(tables, tmp_path):
    """Files it named come in the order of the log, between ours."""
    tables.write("t", numbers(1))
    for value in (2, 3, 4):
        write_deltalake(str(tmp_path / "t"), numbers(value), mode="append")
    assert tables.write("t", numbers(5)) == 4
    assert tables.read("t")["i"].to_pylist() == [1, 2, 3, 4, 5]
    assert dict(tables.history("t")[1].metadata) == {}


def test_a_partitioned_table_of_another_program_is_refused(tables, tmp_path):
    """Its rows have no order of writing that could be kept, and its files lack a column."""
    write_deltalake(str(tmp_path / "t"), pa.table({"a": [1], "p": ["x"]}), partition_by="p")
    with pytest.raises(InputError, match="partitions"):
        tables.read("t")


@pytest.mark.parametrize("damage", ["gone", "cut", "longer", "noise"])
def test_a_damaged_data_file_is_named(tables, tmp_path, damage):
    """Missing, shorter, longer and unreadable files are IntegrityErrors, never fewer rows."""
    tables.write("t", numbers(*range(1000)))
    path = only_file(tmp_path)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-9], "longer": content + b"x", "noise": os.urandom(len(content))}[damage])
    with pytest.raises(IntegrityError, match=rf"table t, file {path.name}"):
        tables.read("t")


def test_a_damaged_log_is_damage(tables, tmp_path):
    """A commit that cannot be parsed is an IntegrityError that names the table."""
    tables.write("t", numbers(1))
    tables.write("t", numbers(2))
    (tmp_path / "t" / "_delta_log" / f"{1:020d}.json").write_text("{not json")
    with pytest.raises(IntegrityError, match="log of the table"):
        tables.read("t")


def test_a_refused_write_leaves_no_file(tables, tmp_path):
    """Rows that do not fit are turned away before anything is written."""
    tables.write("t", numbers(1))
    with pytest.raises(InputError):
        tables.write("t", pa.table({"other": [1]}))
    assert only_file(tmp_path)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [(pa.uint8(), "next larger signed"), (pa.float16(), "Cast"), (pa.time64("us"), "Cast"), (pa.duration("s"), "Cast")],
)
def test_a_type_that_is_not_kept_is_refused_by_name(tables, kind, remedy):
    """The message holds the column, its type and what to do."""
    with pytest.raises(InputError, match=rf"column 'x'.*{remedy}") as caught:
        tables.write("t", pa.table({"x": pa.array([None], kind)}))
    assert repr(str(kind)) in str(caught.value)


@pytest.mark.parametrize("names", [["a", "A"], ["a", "a"], [""], ["a\nb"], ["a\tb"], []])
def test_bad_column_names_are_refused(tables, names):
    """Names that some Delta reader could not tell apart or hold."""
    with pytest.raises(InputError, match="column"):
        tables.write("t", pa.Table.from_arrays([pa.array([1])] * len(names), names=names))


@pytest.mark.parametrize("path", ["t", "t/", "t/../../x", "../x", "t//etc/passwd"])
def test_the_digest_of_a_file_outside_is_refused(tables, path):
    """A path never leads out of its table."""
    tables.write("t", numbers(1))
    with pytest.raises(InputError):
        tables.file_digest(path)


def test_metadata_is_text(tables):
    """Other values are refused by their type, not shown."""
    with pytest.raises(InputError, match="'rows': 'int'"):
        tables.write("t", numbers(1), metadata={"rows": 3})


def test_versions_of_a_table_carry_the_time_of_their_commit(tables):
    """Microseconds since 1970, between the clock before and after."""
    before = time.time_ns() // 1_000_000 * 1_000
    tables.write("t", numbers(1))
    assert before <= tables.history("t")[0].time <= time.time_ns() // 1_000


def test_an_altered_checkpoint_changes_nothing(tables, tmp_path):
    """What a version holds comes from the entries: a checkpoint that says otherwise is not asked."""
    for i in range(101):
        tables.write("t", numbers(i))
    log = tmp_path / "t" / "_delta_log"
    tables.write("other", numbers(7))
    DeltaTable(str(tmp_path / "other")).create_checkpoint()
    shutil.copy(
        tmp_path / "other" / "_delta_log" / f"{0:020d}.checkpoint.parquet", log / f"{100:020d}.checkpoint.parquet"
    )
    assert DeltaTables(tmp_path).read("t")["i"].to_pylist() == list(range(101))


def test_entries_that_vanish_from_the_log_are_damage(tables, tmp_path):
    """A hole is found by its number, a lost end by a checkpoint beyond it."""
    for i in range(101):
        tables.write("t", numbers(i))
    log = tmp_path / "t" / "_delta_log"
    for version in (100, 40):
        (log / f"{version:020d}.json").rename(tmp_path / "aside")
        for reader in (tables, DeltaTables(tmp_path)):
            with pytest.raises(IntegrityError, match="log of the table"):
                reader.read("t", 3)
        (tmp_path / "aside").rename(log / f"{version:020d}.json")
    assert tables.read("t").num_rows == 101


def test_an_entry_that_changes_is_read_again(tables, tmp_path):
    """What is kept in memory is compared with the folder on every use."""
    tables.write("t", numbers(1))
    assert tables.history("t")[0].metadata == {}
    entry = tmp_path / "t" / "_delta_log" / f"{0:020d}.json"
    entry.write_text(entry.read_text().replace('"userMetadata":"{}"', '"userMetadata":"{\\"a\\": \\"b\\"}"'))
    assert tables.history("t")[0].metadata == {"a": "b"}


def test_engines_scan_an_evolved_dataset(tables):
    """DuckDB and Polars push filters and columns down and see widened values and nulls, under any name."""
    tables.write("t", pa.table({"a b.c": pa.array([1, 2], pa.int32())}))
    tables.write("t", pa.table({"a b.c": [2**40], 'the "new" one': ["x"]}), evolve=True)
    data = tables.dataset("t")
    connection = duckdb.connect()
    connection.register("data", data)
    assert connection.sql('SELECT "a b.c", "the ""new"" one" FROM data WHERE "a b.c" > 1 ORDER BY 1').fetchall() == [
        (2, None),
        (2**40, "x"),
    ]
    found = pl.scan_pyarrow_dataset(data).filter(pl.col("a b.c") > 1).collect().sort("a b.c")
    assert found.to_dict(as_series=False) == {"a b.c": [2, 2**40], 'the "new" one': [None, "x"]}


def test_other_delta_readers_understand_every_operation(tables, tmp_path):
    """After evolving, compacting, restoring and a vacuum the library reads what we read, and sums the log up."""
    tables.write("t", pa.table({"a b": pa.array([1], pa.int32())}))
    tables.write("t", pa.table({"a b": [2**40], "größe.x": [1.5]}), evolve=True)
    for step in ("evolve", "compact", "restore", "vacuum"):
        if step == "compact":
            assert tables.compact("t") == 2
        elif step == "restore":
            assert tables.restore("t", 0) == 3
            assert tables.restore("t", 1) == 4
        elif step == "vacuum":
            assert tables.vacuum("t", keep=[4]).versions == (2,)
        other = DeltaTable(str(tmp_path / "t"))
        assert other.to_pyarrow_table().sort_by("a b").equals(tables.read("t"))
        other.create_checkpoint()
        assert DeltaTable(str(tmp_path / "t")).to_pyarrow_table().num_rows == 2
    assert [entry["operation"] for entry in reversed(other.history())][-1] == "VACUUM"


def test_a_restore_of_another_program_keeps_the_order(tables, tmp_path):
    """Files that went and came back lie where they were written first."""
    for value in (1, 2, 3):
        tables.write("t", numbers(value))
    write_deltalake(str(tmp_path / "t"), numbers(4), mode="append")
    tables.write("t", numbers(5))
    tables.write("t", numbers(9), mode="overwrite")
    DeltaTable(str(tmp_path / "t")).restore(4)
    assert tables.read("t")["i"].to_pylist() == [1, 2, 3, 4, 5]
    tables.write("t", numbers(9), mode="overwrite")
    tables.restore("t", 4)
    assert tables.compact("t") is not None
    assert tables.read("t")["i"].to_pylist() == [1, 2, 3, 4, 5]


def test_files_of_another_program_without_counts_are_counted(tables, tmp_path):
    """Statistics are optional in Delta: the rows of such a file are looked up in it."""
    tables.write("t", numbers(1, 2))
    entry = tmp_path / "t" / "_delta_log" / f"{0:020d}.json"
    lines = [json.loads(line) for line in entry.read_text().splitlines()]
    for line in lines:
        line.get("add", {}).pop("stats", None)
    entry.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [file.rows for file in tables.files("t")] == [2]
    assert tables.read("t").num_rows == 2


def test_files_named_the_old_way_read_on(tables, tmp_path):
    """A table whose files carry no index in their names keeps its order with new files."""
    tables.write("t", numbers(1))
    path = only_file(tmp_path)
    old = path.with_name(f"{0:020d}-deadbeef.parquet")
    path.rename(old)
    entry = tmp_path / "t" / "_delta_log" / f"{0:020d}.json"
    entry.write_text(entry.read_text().replace(path.name, old.name))
    tables.write("t", numbers(2))
    tables.write("t", numbers(3))
    assert tables.read("t")["i"].to_pylist() == [1, 2, 3]
    assert tables.files("t")[0].path == old.name
    tables.compact("t")
    assert tables.read("t")["i"].to_pylist() == [1, 2, 3]


def test_names_of_files_sort_like_their_rows(tables):
    """By version, then by place in it, also for what a compaction joined."""
    tables.write("t", pa.table({"i": range(1_200_000)}))
    tables.write("t", numbers(1_200_000))
    tables.compact("t")
    tables.write("t", numbers(1_200_001))
    paths = [file.path for file in tables.files("t")]
    pieces = [tables.dataset("t", paths=[path]).to_table()["i"][0].as_py() for path in paths]
    assert pieces == sorted(pieces)
    assert tables.read("t")["i"].to_pylist() == list(range(1_200_002))


def test_files_hold_statistics(tables, tmp_path):
    """Each row group knows its smallest and largest value, so engines skip what a filter excludes."""
    tables.write("t", pa.table({"i": range(300_000), "s": ["a"] * 300_000}))
    found = pq.ParquetFile(only_file(tmp_path)).metadata
    assert found.num_row_groups == 3
    assert found.row_group(1).column(0).statistics.min == 131_072
    assert found.row_group(0).column(1).statistics.max == "a"


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_dataset_finds_a_damaged_file_before_it_is_scanned(tables, tmp_path, damage):
    """The size of each file is compared with the log; a compaction does not build on damage either."""
    tables.write("t", numbers(1))
    path = only_file(tmp_path)
    tables.write("t", numbers(2))
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    for call in (tables.dataset, tables.compact, lambda name: tables.batches(name).read_all()):
        with pytest.raises(IntegrityError, match=rf"table t, file {path.name}"):
            call("t")
    assert len(tables.history("t")) == 2


def test_a_file_with_fewer_rows_is_damage(tables, tmp_path):
    """Another file of the very same size in its place is found by its rows."""
    tables.write("t", numbers(*range(100)))
    path = only_file(tmp_path)
    entry = tmp_path / "t" / "_delta_log" / f"{0:020d}.json"
    entry.write_text(entry.read_text().replace('\\"numRecords\\": 100', '\\"numRecords\\": 101'))
    with pytest.raises(IntegrityError, match=path.name):
        tables.read("t")


def test_orphans_go_after_an_hour(tables, tmp_path):
    """What no entry names may belong to a write that goes on; later a vacuum takes it, with drafts of entries."""
    tables.write("t", numbers(1))
    orphan = tmp_path / "t" / f"{1:020d}-00000-deadbeef.parquet"
    draft = tmp_path / "t" / "_delta_log" / "_commit_0123456789abcdef.json.tmp"
    stranger = tmp_path / "t" / "notes.txt"
    for path in (orphan, draft, stranger):
        path.write_bytes(b"left over")
    assert tables.vacuum("t", keep=[]).files == ()
    for path in (orphan, draft, stranger):
        os.utime(path, (time.time() - 3700,) * 2)
    assert [(file.path, file.rows) for file in tables.vacuum("t", keep=[]).files] == [
        (orphan.name, 0),
        (f"_delta_log/{draft.name}", 0),
    ]
    assert not orphan.exists()
    assert not draft.exists()
    assert stranger.exists()
    assert len(tables.history("t")) == 1


def test_a_vacuum_that_died_before_deleting_is_completed(tables, tmp_path):
    """Its entry says which versions ended; the next vacuum deletes what is left and makes no version for it."""
    tables.write("t", numbers(1))
    path = only_file(tmp_path)
    content = path.read_bytes()
    tables.write("t", numbers(2), mode="overwrite")
    tables.vacuum("t", keep=[])
    path.write_bytes(content)  # as if it had not come to that
    with pytest.raises(NotFoundError, match="vacuumed"):
        tables.read("t", 0)
    report = tables.vacuum("t", keep=[])
    assert [file.path for file in report.files] == [path.name]
    assert report.versions == ()
    assert not path.exists()
    assert len(tables.history("t")) == 3


def test_a_reader_that_a_vacuum_overtakes_is_told(tables):
    """Files that go while a version is read are no damage."""
    tables.write("t", numbers(1))
    tables.write("t", numbers(2), mode="overwrite")
    rows = tables.batches("t", 0)
    tables.vacuum("t", keep=[])
    with pytest.raises(NotFoundError, match="vacuumed"):
        rows.read_all()


@pytest.mark.parametrize("rows", [100, 1_500_000])
def test_a_write_that_fails_leaves_no_file_in_the_folder(tables, tmp_path, rows):
    """Whether it fails in its only file or after some that were done."""
    tables.write("t", numbers(1))
    kind = pa.timestamp("ns", tz="UTC")
    parts = [pa.record_batch({"i": [i] * rows, "when": pa.array([1000 + i] * rows, kind)}) for i in (0, 1)]
    with pytest.raises(InputError, match="microsecond"):
        tables.write("t", pa.RecordBatchReader.from_batches(parts[0].schema, parts), evolve=True)
    assert only_file(tmp_path)


def test_a_compaction_limited_by_bytes_finds_nothing_new(tables, monkeypatch):
    """Joined files are smaller than their parts; counted by those, a second compaction has nothing to join."""
    for value in range(12):
        tables.write("t", numbers(value))
    size = tables.files("t")[0].size
    monkeypatch.setattr(_compaction, "FILE_BYTES", 3 * size + size // 2)
    assert tables.compact("t") == 12
    assert [file.rows for file in tables.files("t")] == [3, 3, 3, 3]
    assert sum(file.size for file in tables.files("t")[:2]) < 3 * size
    assert tables.compact("t") is None
    assert tables.read("t")["i"].to_pylist() == list(range(12))


def test_a_compaction_that_fails_leaves_no_file_in_the_folder(tables, tmp_path, monkeypatch):
    """Also not those of the runs that were done."""
    monkeypatch.setattr(_compaction, "FILE_ROWS", 2)
    for value in range(4):
        tables.write("t", numbers(value))
    before = sorted((tmp_path / "t").glob("*.parquet"))
    before[3].write_bytes(before[3].read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=before[3].name):
        tables.compact("t")
    assert sorted((tmp_path / "t").glob("*.parquet")) == before
    assert len(tables.history("t")) == 4


def test_a_commit_of_another_program_in_between_is_not_replaced(tables, tmp_path):
    """It holds no lock of ours: its version stays, and ours is the next, after it."""
    tables.write("t", numbers(1))

    def batches():
        yield from numbers(3).to_batches()
        write_deltalake(str(tmp_path / "t"), numbers(2), mode="append")

    assert tables.write("t", pa.RecordBatchReader.from_batches(numbers(1).schema, batches())) == 2
    assert tables.read("t")["i"].to_pylist() == [1, 2, 3]
    assert tables.read("t", 1)["i"].to_pylist() == [1, 2]


def test_times_of_versions_do_not_go_back(tables, tmp_path):
    """A clock that was set back makes no version older than the one before it."""
    tables.write("t", numbers(1))
    entry = tmp_path / "t" / "_delta_log" / f"{0:020d}.json"
    entry.write_text(re.sub(r'"timestamp":\d+', '"timestamp":4102444800000', entry.read_text()))
    tables.write("t", numbers(2))
    assert [version.time for version in tables.history("t")] == [4_102_444_800_000_000] * 2


def test_few_texts_in_a_large_dictionary_make_few_files(tables):
    """What a piece weighs is that of its rows, not of the dictionary it shares with others."""
    words = pa.array([f"{i:0>40}" for i in range(400_000)])
    batch = pa.record_batch({"s": pa.DictionaryArray.from_arrays(pa.array([7] * 700_000, pa.int32()), words)})
    tables.write("t", pa.RecordBatchReader.from_batches(batch.schema, [batch]))
    assert [file.rows for file in tables.files("t")] == [700_000]


def test_memory_does_not_grow_with_the_stream(start, tmp_path):
    """Four times the rows, written and read back, need about the same memory."""
    script = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from retrodict.stores.tables import _file_writer
from retrodict.stores.tables.delta import DeltaTables
_file_writer.FILE_BYTES = 4 << 20
tables, noise = DeltaTables(Path(sys.argv[1])), np.random.default_rng(0)
schema = pa.schema([(f"x{i}", pa.float64()) for i in range(10)])
def batches(count):
    for _ in range(count):
        yield pa.record_batch([pa.array(noise.random(10_000)) for _ in range(10)], schema=schema)
for count in (100, 400):
    tables.write("t", pa.RecordBatchReader.from_batches(schema, batches(count)), mode="overwrite")
    assert sum(batch.num_rows for batch in tables.batches("t")) == count * 10_000
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    small, large = map(int, start(script, tmp_path).rest())
    assert large - small < 60  # MiB; the rows that came on top are 229


def test_a_file_too_large_undoes_the_write(start, tmp_path):
    """When the system takes no more bytes in the middle, the error says so and nothing is left."""
    script = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from retrodict.core.errors import RetryableError
from retrodict.stores.tables.delta import DeltaTables
tables, noise = DeltaTables(Path(sys.argv[1])), np.random.default_rng(0)
tables.write("t", pa.table({"x": noise.random(10)}))
before = sorted(path.name for path in (Path(sys.argv[1]) / "t").rglob("*"))
sys.dont_write_bytecode = True
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
batch = pa.record_batch({"x": noise.random(100_000)})
try:
    tables.write("t", pa.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(30))))
except RetryableError as error:
    print(error)
print(before == sorted(path.name for path in (Path(sys.argv[1]) / "t").rglob("*")))
print(tables.write("t", pa.table({"x": noise.random(10)})))
"""
    told, clean, version = start(script, tmp_path).rest()
    assert "table t: the disk must have room for the data" in told
    assert "disk full: File too large" in told
    assert (clean, version) == ("True", "1")


def test_a_folder_that_may_not_be_written_is_a_matter_of_configuration(start, tmp_path):
    """The message says permission, nothing is left, and the table stays readable."""
    script = """
import os, sys
from pathlib import Path
import pyarrow as pa
from retrodict.core.errors import ConfigurationError
from retrodict.stores.tables.delta import DeltaTables
os.chdir(sys.argv[1])  # the folders above are closed to others
tables, rows = DeltaTables(Path(".")), pa.table({"i": [1]})
tables.write("t", rows)
for path, mode in ((".", 0o755), (".locks", 0o777), (".locks/t", 0o666), ("t", 0o555)):
    os.chmod(path, mode)
if os.getuid() == 0:
    os.setuid(65534)  # for the superuser no folder is read-only
for name in ("t", "new"):
    try:
        tables.write(name, rows)
    except ConfigurationError as error:
        print(error)
print(tables.read("t").num_rows, len(tables.history("t")))
"""
    first, second, state = start(script, tmp_path).rest()
    assert "table t: this process must have permission for the place" in first
    assert "permission denied" in first
    assert "table new: " in second
    assert "permission denied" in second
    assert state == "1 1"


APPEND = """
import sys
from pathlib import Path
import pyarrow as pa
from retrodict.stores.urls import open_tables
tables, writer = open_tables(sys.argv[1], Path()), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for batch in range(int(sys.argv[3])):
    rows = pa.table({"writer": [writer] * 3, "i": range(3 * batch, 3 * batch + 3)})
    print(tables.write("t", rows, metadata={"from": f"{writer}:{batch}"}), flush=True)
"""


def test_writers_in_processes_lose_and_double_nothing(start, tmp_path):
    """Four processes append at once: each batch is one version, whole, and where its number says."""
    writers = [start(APPEND, tmp_path / "tables", writer, 25) for writer in range(4)]
    assert [writer.line() for writer in writers] == ["ready"] * 4
    for writer in writers:
        writer.tell()
    told = {number: [int(line) for line in writer.rest()] for number, writer in enumerate(writers)}
    tables = DeltaTables(tmp_path / "tables")
    assert sorted(version for found in told.values() for version in found) == list(range(100))
    notes = [version.metadata["from"] for version in tables.history("t")]
    rows = tables.read("t").to_pylist()
    for version, note in enumerate(notes):
        writer, batch = map(int, note.split(":"))
        assert told[writer][batch] == version
        assert rows[3 * version : 3 * version + 3] == [{"writer": writer, "i": 3 * batch + i} for i in range(3)]
    assert len(rows) == 300


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 4)),
        st.tuples(st.just("overwrite"), st.integers(0, 4)),
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("restore"), st.integers(0, 30)),
        st.tuples(st.just("compact"), st.just(0)),
        st.tuples(st.just("vacuum"), st.integers(0, 30)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


def step_of(tables, step, number, model, gone, values):
    """Do one step on the table and on a list of what each version holds."""
    columns, rows = model[-1] if model else (1, [])
    ready = [version for version in range(len(model)) if version not in gone]
    if step in ("append", "overwrite", "add"):
        wide = columns + (step == "add") if step != "overwrite" else 1
        new = [tuple(next(values) for _ in range(wide)) for _ in range(number)]
        data = pa.table({f"c{c}": pa.array([row[c] for row in new], pa.int64()) for c in range(wide)})
        mode = "overwrite" if step == "overwrite" else "append"
        tables.write("t", data, mode=mode, evolve=step == "add")
        old = [] if step == "overwrite" else [row + (None,) * (wide - len(row)) for row in rows]
        model.append((wide, old + new))
    elif step == "restore" and ready:
        chosen = ready[number % len(ready)]
        assert tables.restore("t", chosen) == len(model)
        model.append(model[chosen])
    elif step == "compact" and model and tables.compact("t") is not None:
        model.append(model[-1])
    elif step == "vacuum" and ready:
        report = tables.vacuum("t", keep=[ready[number % len(ready)]])
        assert sorted(report.versions + report.retained) == ready
        assert ready[number % len(ready)] in report.retained
        gone.update(report.versions)
        if report.versions:
            model.append(model[-1])


@settings(max_examples=50, deadline=None)
@given(steps=steps)
def test_a_table_is_a_list_of_its_versions(steps):
    """Writes, evolutions, restores, compactions and vacuums in any order: every kept version is as it was."""
    with tempfile.TemporaryDirectory() as folder:
        tables, model, gone = DeltaTables(Path(folder)), [], set()
        values = iter(range(1_000_000))
        for step, number in steps:
            if step == "reopen":
                tables = DeltaTables(Path(folder))
            else:
                step_of(tables, step, number, model, gone, values)
        assert len(tables.history("t")) == len(model)
        for version, (columns, rows) in enumerate(model):
            if version in gone:
                with pytest.raises(NotFoundError, match="vacuumed"):
                    tables.read("t", version)
                continue
            found = tables.read("t", version)
            assert found.num_columns == columns
            assert list(zip(*found.to_pydict().values(), strict=True)) == rows


@pytest.mark.slow
def test_a_thousand_appends_compacted_and_vacuumed(tables):
    """Versions that somebody tagged read exactly afterwards, and asking for the history stays quick."""
    tagged = (0, 3, 499, 500, 998)
    for i in range(1000):
        tables.write("t", pa.table({"i": [2 * i, 2 * i + 1]}))
    assert tables.compact("t") == 1000
    report = tables.vacuum("t", keep=tagged)
    # The newest is one file; the newest of the tagged holds all files of the older ones.
    assert report.versions == (999,)
    assert [file.rows for file in report.files] == [2]
    for version in tagged:
        assert tables.read("t", version)["i"].to_pylist() == list(range(2 * version + 2))
    assert tables.read("t")["i"].to_pylist() == list(range(2000))
    assert tables.vacuum("t", keep=(0, 3)).versions == tuple(range(4, 999))
    fresh, begun = DeltaTables(tables._root), time.perf_counter()
    assert len(fresh.history("t")) == 1003
    assert fresh.read("t", 3)["i"].to_pylist() == list(range(8))
    assert time.perf_counter() - begun < 5
