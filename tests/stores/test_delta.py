"""What the embedded tables do beyond their contract: the log is kept, foreign and damaged tables are found out."""

import json
import os
import time

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from retrodict.core.errors import InputError, IntegrityError
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


@pytest.mark.parametrize("names", [["a", "A"], ["a", "a"], [""], ["a b"], []])
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
