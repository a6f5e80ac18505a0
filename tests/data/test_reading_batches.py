"""A batch that is not in memory: the same rows as a plain reader gives, however it is cut, and nothing left behind."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError, RetryableError
from retrodict.data.readers import open_batch, read_batch
from retrodict.stores.tables.content import rows_digest

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def cut_rows(batches: Iterator[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for rows in batches for row in rows.to_pylist()]


# the same rows ------------------------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from('ab,;"\n |é#'), max_size=6)


@QUICK
@given(st.integers(1, 3), st.data())
def test_csv_in_pieces_is_what_python_reads(tmp_path: Path, width: int, data: st.DataObject) -> None:
    """Against the csv module, which shares no code with DuckDB."""
    rows = data.draw(st.lists(st.lists(TEXTS, min_size=width, max_size=width), max_size=40))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([[f"c{i}" for i in range(width)], *rows])
    (tmp_path / "f.csv").write_text(text.getvalue())
    oracle = [
        {name: value or None for name, value in row.items()} for row in csv.DictReader(io.StringIO(text.getvalue()))
    ]
    with open_batch(tmp_path / "f.csv", staging=tmp_path / "s") as batch:
        assert cut_rows(batch.batches(7)) == cut_rows(batch.batches()) == batch.rows.to_pylist() == oracle
        assert batch.num_rows == len(oracle)


VALUES = {
    "int": st.integers(-(2**50), 2**50),
    "number": st.integers(-99, 99) | st.floats(allow_nan=False, allow_infinity=False),
    "text": st.text(max_size=5),
    "flag": st.booleans(),
    "list": st.lists(st.text(max_size=3) | st.none(), max_size=3),
    "object": st.fixed_dictionaries({}, optional={"a": st.integers(0, 9), 'b"': st.text(max_size=2)}),
}


@QUICK
@given(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True), st.booleans(), st.data())
def test_json_lines_in_pieces_are_what_python_reads(
    tmp_path: Path, kinds: list[str], ascii_only: bool, data: st.DataObject
) -> None:
    """Against the json module; a key that is missing is null, in objects inside objects too."""
    row = st.fixed_dictionaries({}, optional={kind: VALUES[kind] | st.none() for kind in kinds})
    rows = data.draw(st.lists(row, max_size=30))
    content = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    (tmp_path / "f.jsonl").write_text(content)
    oracle = [json.loads(line) for line in content.split("\n")[:-1]]
    with_keys = any(row.get("object") for row in oracle)
    try:
        with open_batch(tmp_path / "f.jsonl", staging=tmp_path / "s") as batch:
            found = cut_rows(batch.batches(7))
            assert found == batch.rows.to_pylist()
    except InputError as error:
        assert "must have a key in at least one row" in str(error)  # noqa: PT017
        assert not with_keys
        return
    names = {name for row in oracle for name in row}
    inner = {key for row in oracle for key in row.get("object") or ()}
    for expected in oracle:
        expected.update(dict.fromkeys(names - set(expected)))
        if expected.get("object") is not None:
            expected["object"] |= dict.fromkeys(inner - set(expected["object"]))
    assert found == (oracle if names else [])


def test_kinds_agree_over_pieces_of_a_long_file(tmp_path: Path) -> None:
    """Whole numbers, then a fraction a few megabytes later; a column that begins late; an object that gets its key."""
    lines = [json.dumps({"n": i, "o": {}, "pad": "x" * 900}) for i in range(9000)]
    lines += [json.dumps({"n": 0.5, "o": {"k": 1}, "late": "y"})]
    (tmp_path / "f.jsonl").write_text("\n".join(lines))
    with open_batch(tmp_path / "f.jsonl", staging=tmp_path / "s") as batch:
        assert batch.schema.types == [pa.float64(), pa.struct([("k", pa.int64())]), pa.string(), pa.string()]
        assert batch.take(np.array([8999, 9000])).to_pylist() == [
            {"n": 8999.0, "o": {"k": None}, "pad": "x" * 900, "late": None},
            {"n": 0.5, "o": {"k": 1}, "pad": None, "late": "y"},
        ]


def test_kinds_that_disagree_far_apart_are_refused_by_column(tmp_path: Path) -> None:
    """Not only within the piece in which they stand together."""
    lines = [json.dumps({"n": i, "pad": "x" * 900}) for i in range(9000)]
    (tmp_path / "f.jsonl").write_text("\n".join([*lines, '{"n":"Jane4711"}']))
    with (
        pytest.raises(InputError, match=r"f\.jsonl, column 'n': the values of a column must be of one kind") as caught,
        open_batch(tmp_path / "f.jsonl", staging=tmp_path / "s"),
    ):
        pass
    assert "Jane" not in str(caught.value)


def test_objects_without_keys_are_rows(tmp_path: Path) -> None:
    """Even where nothing has a name yet, megabytes before the first."""
    (tmp_path / "f.jsonl").write_text("{}\n" * 1_500_000 + '{"a":1}\n{}\n')
    with open_batch(tmp_path / "f.jsonl", staging=tmp_path / "s") as batch:
        assert (batch.num_rows, batch.schema.types) == (1_500_002, [pa.int64()])
        assert batch.take(np.array([0, 1_500_000, 1_500_001])).column("a").to_pylist() == [None, 1, None]


def test_rows_of_other_keys_each_are_read_in_bounded_memory(tmp_path: Path) -> None:
    """Columns times rows would be much."""
    (tmp_path / "f.jsonl").write_text("".join(f'{{"k{i % 1500}":{i}}}\n' for i in range(3000)))
    with open_batch(tmp_path / "f.jsonl", staging=tmp_path / "s") as batch:
        assert (batch.num_rows, len(batch.schema)) == (3000, 1500)
        (row,) = batch.take(np.array([2999])).to_pylist()
        assert {name: value for name, value in row.items() if value is not None} == {"k1499": 2999}


# places -------------------------------------------------------------------------------------------------------


@QUICK
@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.integers(1, 9), st.data())
def test_rows_are_taken_by_their_places(tmp_path: Path, sizes: list[int], group: int, data: st.DataObject) -> None:
    """Across files and row groups."""
    numbers = iter(range(1000))
    for place, size in enumerate(sizes):
        rows = pa.table({"n": pa.array([next(numbers) for _ in range(size)], pa.int64())})
        pq.write_table(rows, tmp_path / f"{place}.parquet", row_group_size=group)
    wanted = sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1))) if sum(sizes) else [])
    files = [tmp_path / f"{place}.parquet" for place in range(len(sizes))]
    with open_batch(files, staging=tmp_path / "s") as batch:
        assert batch.files == tuple(files)
        assert batch.take(np.array(wanted, dtype=int)).column("n").to_pylist() == wanted
    assert read_batch(files).take(np.array(wanted, dtype=int)).column("n").to_pylist() == wanted


# ids ----------------------------------------------------------------------------------------------------------

COLUMNS = {
    "i": pa.array([1, None, 3, 4, None, 6, 7], pa.int16()),
    "b": pa.array([True, None, False, True, True, None, False]),
    "s": pa.array(["", None, "é", "a", "bc", None, "d"]),
    "l": pa.array([[1], None, [], [2, None], [3, 4], None, [5]]),
    "o": pa.array([{"x": [True]}, None, {"x": None}, {"x": []}, None, {"x": [False]}, {"x": [None]}]),
    "t": pa.array([0, 1, None, 3, 4, 5, 6], pa.timestamp("ns", "UTC")),
    "d": pa.array(["u", "v", None, "u", "u", "v", "u"]).dictionary_encode(),
    "m": pa.array(
        [[("k", 1)], None, [], [("a", None), ("b", 2)], None, [("c", 3)], []], pa.map_(pa.string(), pa.int8())
    ),
    "f": pa.array([b"ab", None, b"cd", b"ab", b"ab", None, b"ab"], pa.binary(2)),
    "n": pa.nulls(7),
}


def stream_id(rows: pa.Table, folder: Path) -> str:
    with open_batch(rows.to_reader(), staging=folder) as batch:
        return batch.id


@QUICK
@given(st.lists(st.integers(0, 7), max_size=4))
def test_the_id_of_a_stream_does_not_see_its_pieces(tmp_path: Path, cuts: list[int]) -> None:
    """Slices that begin within a byte of a bitmap, empty pieces, dictionaries of their own."""
    rows = pa.table(COLUMNS)
    edges = [0, *sorted(cuts), 7]
    pieces = pa.concat_tables([rows.slice(low, high - low) for low, high in pairwise(edges)])
    assert stream_id(pieces, tmp_path) == stream_id(rows, tmp_path)


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "n"])
def test_the_id_of_a_stream_sees_values_order_and_names(name: str, tmp_path: Path) -> None:
    """In every kind of column; what lies under a null is no value."""
    rows = pa.table({name: COLUMNS[name]})
    others = [rows.slice(1), rows.take([1, 0, *range(2, 7)]), rows.rename_columns(["other"])]
    assert len({stream_id(each, tmp_path) for each in [rows, *others]}) == 4


def test_what_lies_under_a_null_is_no_content() -> None:
    """Libraries leave anything there."""
    bits = pa.py_buffer(b"\x05")
    one, two = (
        pa.Array.from_buffers(pa.int64(), 3, [bits, pa.py_buffer(np.array([1, junk, 3], np.int64))]) for junk in (0, 99)
    )
    first, second = (pa.table({"x": each, "o": pa.StructArray.from_arrays([each], ["y"])}) for each in (one, two))
    assert rows_digest(first.schema, first.to_batches()) == rows_digest(second.schema, second.to_batches())


# files that differ --------------------------------------------------------------------------------------------


def test_instants_of_several_zones_become_utc(tmp_path: Path) -> None:
    """They are instants; the file that is as the others is read where it is."""
    for name, zone in (("a", "Europe/Berlin"), ("b", "UTC")):
        pq.write_table(pa.table({"t": pa.array([0], pa.timestamp("us", zone))}), tmp_path / f"{name}.parquet")
    with open_batch(tmp_path, staging=tmp_path / "s") as batch:
        assert batch.schema.field("t").type == pa.timestamp("us", "UTC")
        assert batch.files[1] == tmp_path / "b.parquet" != batch.files[0]
        assert pa.compute.cast(batch.rows.column("t"), pa.int64()).to_pylist() == [0, 0]


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (pa.array([1], pa.int8()), pa.array([2.5]), "double"),
        (pa.array([None]), pa.array(["a"]), "string"),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"], pa.large_string()), "large_string"),
        (pa.array([1], pa.timestamp("s", "UTC")), pa.array([2], pa.timestamp("ns", "UTC")), "timestamp[ns, tz=UTC]"),
        (pa.array([{"x": 1}]), pa.array([{"y": "a"}]), "struct<x: int64, y: string>"),
    ],
)
def test_types_of_several_files_widen(first: pa.Array, second: pa.Array, kind: str, tmp_path: Path) -> None:
    """As far as no value changes."""
    pq.write_table(pa.table({"x": first, "k": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"k": [2], "x": second}), tmp_path / "b.parquet")
    with open_batch(tmp_path, staging=tmp_path / "s") as batch:
        assert [str(field.type) for field in batch.schema] == [kind, "int64"]
        assert batch.rows.column("k").to_pylist() == [1, 2]
        assert all(pq.read_schema(file).equals(batch.schema) for file in batch.files)


def test_what_is_written_anew_is_not_kept_twice(tmp_path: Path) -> None:
    """The disk holds a batch once."""
    (tmp_path / "a.jsonl").write_text('{"x":1}\n')
    (tmp_path / "b.jsonl").write_text('{"x":0.5}\n')
    with open_batch(tmp_path, staging=tmp_path / "s") as batch:
        assert batch.rows.column("x").to_pylist() == [1.0, 0.5]
        assert sorted(batch.files) == sorted(batch.files[0].parent.iterdir())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([2**60 + 1]), pa.array([0.5])),
        (pa.array(["a"]), pa.array([b"a"])),
        (pa.array([1]), pa.array(["a"])),
        (pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC"))),
    ],
)
def test_types_of_several_files_that_do_not_fit(first: pa.Array, second: pa.Array, tmp_path: Path) -> None:
    """A float would change the first; a time without a zone is no instant."""
    for name, column in (("a", first), ("b", second)):
        pq.write_table(pa.table({"x": column}), tmp_path / f"{name}.parquet")
    with pytest.raises(
        InputError, match=r"a\.parquet, b\.parquet.*: a column must have one type in all files of a batch\."
    ):
        read_batch(tmp_path)


def test_types_and_names_pass_as_they_are(tmp_path: Path) -> None:
    """Nanoseconds, decimals, nothing but nulls, names with blanks, dots and words of SQL."""
    rows = pa.table(
        {
            "a b": pa.array([1], pa.timestamp("ns", "UTC")),
            "x.y": pa.array([1], pa.decimal128(38, 2)),
            "select": pa.nulls(1),
            "größe 🚀": pa.array(["a"], pa.large_string()),
            "view": pa.array(["a"], pa.string_view()),
        }
    )
    with open_batch(rows.to_reader(), staging=tmp_path / "s") as batch:
        assert batch.schema.names == rows.column_names
        assert batch.schema.types == [*rows.schema.types[:4], pa.large_string()]
        assert batch.rows.to_pylist() == rows.to_pylist()


# what changes, what fails, what stays -------------------------------------------------------------------------


def test_a_parquet_file_that_changes_is_noticed(tmp_path: Path) -> None:
    """Replaced by one of the same size and time too."""
    file = tmp_path / "f.parquet"
    pq.write_table(pa.table({"x": [1]}), file)
    for change in (lambda: os.utime(file, ns=(0, 0)), file.unlink):
        with open_batch(file, staging=tmp_path / "s") as batch:
            batch.check_unchanged()
            change()
            with pytest.raises(RetryableError, match=r"^f\.parquet: a file must not change while it is read"):
                batch.check_unchanged()


def test_a_file_that_disappears_is_an_input_error(tmp_path: Path) -> None:
    """Not a traceback, however late."""
    file = tmp_path / "f.parquet"
    pq.write_table(pa.table({"x": [1]}), file)
    with open_batch(file, staging=tmp_path / "s") as batch:
        file.unlink()
        with pytest.raises(InputError, match=r"the file to ingest must be readable; got .*f\.parquet.*No such file"):
            batch.rows  # noqa: B018


def test_nothing_stays_in_the_staging_folder(tmp_path: Path) -> None:
    """After an end, an error in the block, and an error while opening."""
    (tmp_path / "f.csv").write_text("x\n1\n")
    (tmp_path / "bad.csv").write_text("x\n1,2\n")
    stage = tmp_path / "a" / "s"
    with open_batch(tmp_path / "f.csv", staging=stage) as batch:
        assert all(file.is_relative_to(stage) for file in batch.files)
    with pytest.raises(ZeroDivisionError), open_batch(tmp_path / "f.csv", staging=stage):
        1 / 0  # noqa: B018
    with pytest.raises(InputError), open_batch(tmp_path / "bad.csv", staging=stage):
        pass
    assert list(stage.iterdir()) == []


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """What may still be in use stays, and so does what is not ours."""
    (tmp_path / "f.csv").write_text("x\n1\n")
    for name, age in (("batch-old", 90_000), ("batch-new", 10), ("mine", 90_000), ("batch-busy", 90_000)):
        (tmp_path / "s" / name).mkdir(parents=True)
        (tmp_path / "s" / name / "000000.parquet").write_bytes(b"x")
        then = time.time() - age
        if name != "batch-busy":
            os.utime(tmp_path / "s" / name / "000000.parquet", (then, then))
        os.utime(tmp_path / "s" / name, (then, then))
    with open_batch(tmp_path / "f.csv", staging=tmp_path / "s"):
        pass
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["batch-busy", "batch-new", "mine"]


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl", "f.arrow", "f.csv.gz"])
def test_a_full_disk_is_said_and_nothing_stays(name: str, tmp_path: Path) -> None:
    """A limit on the size of files is the nearest thing to a full disk; both say it by an errno."""
    code = f"""
        import gzip, os, resource, sys
        import pyarrow as pa
        from pathlib import Path
        from retrodict.core.errors import RetryableError
        from retrodict.data.readers import open_batch
        folder = Path({str(tmp_path)!r})
        noise = [os.urandom(40).hex() for _ in range(5000)]
        if {name!r}.startswith("f.csv"):
            data = "\\n".join(["x", *noise]).encode()
            (folder / {name!r}).write_bytes(gzip.compress(data) if {name!r}.endswith("gz") else data)
        elif {name!r} == "f.jsonl":
            (folder / {name!r}).write_text("\\n".join('{{"x":"' + one + '"}}' for one in noise))
        else:
            with pa.ipc.new_file(folder / {name!r}, pa.schema([("x", pa.string())])) as writer:
                writer.write_table(pa.table({{"x": noise}}))
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            with open_batch(folder / {name!r}, staging=folder / "s"):
                print("opened")
        except RetryableError as error:
            print(error)
        print(os.listdir(folder / "s"))
    """
    told, left = run_python(code).stdout.splitlines()
    assert told.startswith(
        "ingest: the disk must have room for the rows while they are read; got 'File too large'. Free space"
    )
    assert left == "[]"


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Ten times the rows, at most a little more memory."""
    code = f"""
        import resource, sys
        from pathlib import Path
        from retrodict.data.readers import open_batch
        folder, rows, kind = Path({str(tmp_path)!r}), int(sys.argv[1]), sys.argv[2]
        with (folder / f"f.{{kind}}").open("w") as stream:
            stream.write("a,b,c\\n" if kind == "csv" else "")
            line = "{{}},{{}},text" if kind == "csv" else '{{{{"a":{{}},"b":{{}},"c":"text"}}}}'
            for number in range(rows):
                stream.write(line.format(number, number * number) + "\\n")
        with open_batch(folder / f"f.{{kind}}", staging=folder / "s") as batch:
            assert sum(piece.num_rows for piece in batch.batches()) == rows
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    """
    for kind in ("csv", "jsonl"):
        few, many = (int(run_python(code, rows, kind).stdout) for rows in ("400000", "4000000"))
        assert many < few + 120, (kind, few, many)
