"""Where batches come from beside files by name: folders, standard input, Arrow objects, frames."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from retrodict.core.errors import InputError, RetrodictError
from retrodict.data.readers import open_batch, read_batch

ROWS = pa.table({"id": [1, 2, 3], "x": ["a", None, "c"]})


def rows_of(source: Any, folder: Path, **options: Any) -> list[dict[str, Any]]:
    with open_batch(source, staging=folder / "s", **options) as batch:
        rows = batch.rows.to_pylist()
        assert batch.num_rows == len(rows)
        return rows


# folders ------------------------------------------------------------------------------------------------------


def test_a_folder_is_its_files_by_name(tmp_path: Path) -> None:
    """Those of a known format; not machinery, not folders in it."""
    for name in ("b.csv", "a.csv", "_SUCCESS", ".hidden.csv", "_part.csv", "README.txt"):
        (tmp_path / name).write_text(f"id\n{name}\n")
    (tmp_path / "sub.csv").mkdir()
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"id\nc\n"))
    with open_batch(tmp_path, staging=tmp_path / "s") as batch:
        assert batch.origin == "a.csv, b.csv, c.csv.gz"
        assert batch.rows.column("id").to_pylist() == ["a.csv", "b.csv", "c"]
        files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv.gz")]
        assert batch.id == read_batch(files).id == read_batch(str(tmp_path / "[abc].csv*")).id


def test_a_folder_of_two_formats(tmp_path: Path) -> None:
    """Is refused, unless one is asked for."""
    (tmp_path / "a.csv").write_text("id\n1\n")
    pq.write_table(ROWS, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"the files of one batch must have one format; got \['csv', 'parquet'\]"):
        read_batch(tmp_path)
    assert rows_of(tmp_path, tmp_path, format="csv") == [{"id": "1"}]


@pytest.mark.parametrize("name", ["b.xlsx", "b.JSON", "b.parquet.gz", "b.tsv"])
def test_rows_of_another_format_in_a_folder_are_not_left_out_silently(name: str, tmp_path: Path) -> None:
    """What is no rows (a text, a mark of another tool) is; so are others where a format is asked for."""
    pq.write_table(ROWS, tmp_path / "a.parquet")
    for other in ("README.md", "_SUCCESS", "x.crc"):
        (tmp_path / other).write_text("x")
    assert rows_of(tmp_path, tmp_path) == ROWS.to_pylist()
    (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=f"must hold no rows in a format that is not read; got '?.*{name}"):
        read_batch(tmp_path)
    assert rows_of(tmp_path, tmp_path, format="parquet") == ROWS.to_pylist()


@pytest.mark.parametrize("content", ["empty", "unknown", "delta"])
def test_a_folder_without_files_to_ingest(content: str, tmp_path: Path) -> None:
    """A Delta table is more than its Parquet files: some of them hold rows that were deleted."""
    pq.write_table(ROWS, tmp_path / ("a.parquet" if content == "delta" else "a.xls"))
    if content == "delta":
        (tmp_path / "_delta_log").mkdir()
    if content == "empty":
        (tmp_path / "a.xls").unlink()
    with pytest.raises(
        InputError, match="no Delta table" if content == "delta" else "must hold a file of a known format"
    ):
        read_batch(tmp_path)


# formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["f.arrow", "f.ipc", "f.feather", "stream.arrow"])
def test_arrow_files_of_both_kinds(name: str, tmp_path: Path) -> None:
    """Compressed feather too; types as they are."""
    if name == "f.feather":
        feather.write_feather(ROWS, tmp_path / name)
    else:
        new: Any = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
        with new(tmp_path / name, ROWS.schema) as writer:
            writer.write_table(ROWS, max_chunksize=2)
    found = read_batch(tmp_path / name)
    assert (found.schema, found.rows.to_pylist()) == (ROWS.schema, ROWS.to_pylist())


def test_a_format_is_said_where_the_name_does_not(tmp_path: Path) -> None:
    """And a wrong one is refused."""
    (tmp_path / "export.txt").write_text("id\n1\n")
    assert rows_of(tmp_path / "export.txt", tmp_path, format="csv") == [{"id": "1"}]
    with pytest.raises(InputError, match=r"export\.txt: a file to ingest must be .*got '\.txt'"):
        read_batch(tmp_path / "export.txt")
    with pytest.raises(InputError, match=r"got 'xlsx'\. Known: 'arrow', 'csv', 'jsonl', 'parquet'"):
        read_batch(tmp_path / "export.txt", format="xlsx")


@pytest.mark.parametrize(("name", "content"), [("f.csv", b"id,x\n"), ("f.jsonl", b""), ("f.jsonl", b"{}\n")])
def test_no_rows_are_no_error_here(name: str, content: bytes, tmp_path: Path) -> None:
    """The ingest decides; a header is a schema all the same."""
    (tmp_path / name).write_bytes(content)
    with open_batch(tmp_path / name, staging=tmp_path / "s") as batch:
        assert (batch.num_rows, list(batch.batches())) == (0, [])
        assert batch.schema.names == (["id", "x"] if name == "f.csv" else [])


# standard input -----------------------------------------------------------------------------------------------

STDIN = """
import sys
from retrodict.core.errors import RetrodictError
from retrodict.data.readers import read_batch
try:
    batch = read_batch("-", format=sys.argv[1])
    print(batch.origin, batch.id, batch.rows.to_pylist())
except RetrodictError as error:
    print(error)
"""


def from_stdin(content: bytes, format: str) -> str:  # noqa: A002
    command = [sys.executable, "-c", STDIN, format]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout.decode().strip()


def test_standard_input_is_the_file_that_comes_through_it(tmp_path: Path) -> None:
    """Same rows, same id; gzip is seen by its first bytes; errors name it."""
    pq.write_table(ROWS, tmp_path / "f.parquet")
    contents = {"parquet": (tmp_path / "f.parquet").read_bytes(), "csv": gzip.compress(b"id\n1\n")}
    (tmp_path / "f.csv.gz").write_bytes(contents["csv"])
    for kind, name in (("parquet", "f.parquet"), ("csv", "f.csv.gz")):
        batch = read_batch(tmp_path / name)
        assert from_stdin(contents[kind], kind) == f"stdin {batch.id} {batch.rows.to_pylist()}"
    assert from_stdin(b'{"a":1}\nJane', "jsonl").startswith("stdin, line 2: every line must be one JSON object.")
    with pytest.raises(InputError, match=r"^ingest: standard input must come with its format; got None\. Say one of"):
        read_batch("-")


# Arrow objects ------------------------------------------------------------------------------------------------


def test_tables_readers_and_relations_give_their_rows(tmp_path: Path) -> None:
    """Whatever hands out an Arrow stream; a table keeps the id it had."""
    rows = ROWS
    for source in (rows, rows.to_batches()[0], rows.to_reader(), duckdb.sql("SELECT * FROM rows")):
        assert rows_of(source, tmp_path) == ROWS.to_pylist()
    with open_batch(ROWS, staging=tmp_path / "s") as batch:
        assert (batch.id, batch.files, batch.origin) == (read_batch(ROWS).id, (), "memory")


def test_a_polars_frame(tmp_path: Path) -> None:
    """Its views and categories are laid out."""
    pl = pytest.importorskip("polars")
    categories = pl.Series("c", ["u", None], dtype=pl.Categorical)
    frame = pl.DataFrame({"s": ["a", None], "c": categories, "t": [[1], []]})
    with open_batch(frame, staging=tmp_path / "s") as batch:
        assert [str(kind) for kind in batch.schema.types[:2]] == ["large_string", "large_string"]
        assert batch.rows.to_pylist() == frame.to_dicts()


def test_a_producer_that_fails_is_told_without_its_text(tmp_path: Path) -> None:
    """DuckDB says which value it could not cast."""
    relation = duckdb.sql(
        "SELECT CAST(CASE WHEN i > 150000 THEN 'Jane4711' ELSE '1' END AS INT) AS x FROM range(200000) t(i)"
    )
    with pytest.raises(InputError, match="the stream of rows must be readable to its end") as caught:
        rows_of(relation, tmp_path)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), r"Parquet keeps; got \{'x': 'month_day"),
        (pa.table({"x": pa.array([{}])}), r"a type that Parquet keeps; got \{'x': 'struct<>'\}"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([1])], names=["a", "a"]), r"name of its own; got \['a'\]"),
        (pa.table({"x": pa.array([2**60], pa.timestamp("s"))}), "every value must fit the type of its column"),
    ],
)
def test_streams_that_cannot_be_kept(rows: pa.Table, said: str, tmp_path: Path) -> None:
    """By column."""
    with pytest.raises(InputError, match=said):
        rows_of(rows.to_reader(), tmp_path)


@pytest.mark.parametrize("source", [7, None, {"a": [1]}, [ROWS], pa.array([1])])
def test_what_is_no_source(source: Any, tmp_path: Path) -> None:
    """By the name of its type."""
    with pytest.raises(InputError, match=r"a batch must be a path|an Arrow stream must hold"):
        rows_of(source, tmp_path)


# pandas -------------------------------------------------------------------------------------------------------


def test_a_pandas_frame_and_its_index(tmp_path: Path) -> None:
    """An unnamed range is no column, a named index is one; a missing value is null."""
    frame = pd.DataFrame({"id": [1, 2], "x": ["a", None], "f": [0.5, float("nan")]})
    plain = [{"id": 1, "x": "a", "f": 0.5}, {"id": 2, "x": None, "f": None}]
    assert rows_of(frame, tmp_path) == rows_of(frame[:], tmp_path) == rows_of(frame.set_index("id"), tmp_path) == plain
    assert rows_of(frame.set_index(["id", "x"]), tmp_path) == plain
    with open_batch(frame, staging=tmp_path / "s") as batch:
        assert batch.origin == "memory"
        assert batch.files == ()


FRAMES = {
    "an index without a name": (lambda f: f.set_axis(["p", "q"]), "the index of a frame"),
    "an index named like a column": (lambda f: f.rename_axis("x"), "the index of a frame"),
    "a half-named index": (lambda f: f.set_index([f["id"].rename(None), "x"]), "the index of a frame"),
    "names that are no text": (lambda f: f.rename(columns={"x": 7}), r"columns must be text; got \['int'\]"),
    "a name twice": (lambda f: f.rename(columns={"x": "id"}), r"name of its own; got \['id'\]"),
    "values of several kinds": (
        lambda f: f.assign(x=pd.Series(["Jane", 1], dtype=object)),
        "column 'x': .* of one kind",
    ),
}


@pytest.mark.parametrize("case", FRAMES)
def test_pandas_frames_that_are_refused(case: str, tmp_path: Path) -> None:
    """Each has a remedy."""
    change, said = FRAMES[case]
    with pytest.raises(RetrodictError, match=said) as caught:
        rows_of(change(pd.DataFrame({"id": [1, 2], "x": ["a", "b"]})), tmp_path)
    assert caught.value.remedy
    assert "Jane" not in str(caught.value)
