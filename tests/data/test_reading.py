"""Files as people have them: read as they are, or refused by name and line, and never quoted."""

from __future__ import annotations

import csv
import gzip
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.data.readers import read_batch

SECRET = "Jane4711"


def rows_of(folder: Path, name: str, content: bytes) -> list[dict[str, Any]]:
    (folder / name).write_bytes(content)
    return read_batch(folder / name).rows.to_pylist()


READABLE = {
    "quotes": (
        b'id,name\n1,"a,b"\n2,"say ""hi"""\n3,"two\nlines"\n',
        [("1", "a,b"), ("2", 'say "hi"'), ("3", "two\nlines")],
    ),
    "a byte order mark": (b"\xef\xbb\xbfid,name\n1,a\n", [("1", "a")]),
    "Windows lines": (b"id,name\r\n1,a\r\n2,b\r\n", [("1", "a"), ("2", "b")]),
    "no last newline": (b"id,name\n1,a\n2,b", [("1", "a"), ("2", "b")]),
    "empty fields": (b'id,name\n1,\n2,""\n3, \n', [("1", None), ("2", None), ("3", " ")]),
    "empty lines": (b"id,name\n1,a\n\n2,b\n\n", [("1", "a"), ("2", "b")]),
    "semicolons": (b"id;name\n1;a,b\n", [("1", "a,b")]),
    "tabs": (b"id\tname\n1\ta b\n", [("1", "a b")]),
    "a hash is no comment": (b"id,name\n#1,a\n", [("#1", "a")]),
    "words stay words": (b"id,name\nNULL,NA\n", [("NULL", "NA")]),
    "letters of all": ("id,name\n1,größe 🚀\n".encode(), [("1", "größe 🚀")]),
    "a header only": (b"id,name\n", []),
}


@pytest.mark.parametrize("case", READABLE)
def test_csv_is_read_as_it_is(case: str, tmp_path: Path) -> None:
    """Text by text; nothing is sniffed from the rows."""
    content, wanted = READABLE[case]
    assert [tuple(row.values()) for row in rows_of(tmp_path, "f.csv", content)] == wanted


REFUSED = {
    "too few values": (b"id,name\n1,a\n2\n", "line 3: every line must have a value"),
    "too many values": (b"id,name\n1,a\n2,b,Jane4711\n", "line 3: every line must have a value"),
    "another encoding": ("id,name\n1,a\n2,Jane4711é\n".encode("latin1"), "line 3: the text must be UTF-8"),
    "another encoding in the header": ("id,größe\n1,a\n".encode("latin1"), "line 1: the text must be UTF-8"),
    "UTF-16": ("id,name\n1,Jane4711\n".encode("utf-16"), "line 1: the text must be UTF-8"),
    "nothing": (b"", "must begin with a line that names its columns"),
    "only newlines": (b"\n\n", "must begin with a line that names its columns"),
    "a name twice": (b"id,name,id\n1,2,Jane4711\n", r"line 1: every column .*'named like one before': \[3\]"),
    "a name missing": (b"id,name,\n1,Jane4711,\n", r"'without a name': \[3\]"),
    "a data row for a header": (b"Jane4711,Jane4711\n", r"'named like one before': \[2\]"),
    "an open quote": (b'id,name\n1,"Jane4711\n2,b\n', "a quote that opens must close"),
    "text after a quote": (b'id,name\n1,"a"Jane4711\n', "a quote that opens must close"),
    "lines that end in two ways": (b"id,name\r\n1,a\n2,Jane4711\n", "lines must end alike"),
    "a header of two lines": (b'id,"na\nme"\n1,a\n', "stand in one line"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_csv_that_is_none_is_refused_by_line_and_not_quoted(case: str, tmp_path: Path) -> None:
    """What is wrong, where, what to do; no value of the file."""
    content, said = REFUSED[case]
    (tmp_path / "f.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"^f\.csv.*{said}.*(Correct|places)") as caught:
        read_batch(tmp_path / "f.csv")
    assert SECRET not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


CELLS = st.text(st.sampled_from("ab,;\"\n \t|é#'"), max_size=6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.data())
def test_what_python_writes_is_read_back(tmp_path_factory: Any, width: int, data: st.DataObject) -> None:
    """Any texts with commas, quotes and newlines; an empty text and no text are one in CSV."""
    rows = data.draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=12))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([[f"c{i}" for i in range(width)], *rows])
    found = rows_of(tmp_path_factory.mktemp("csv"), "f.csv", text.getvalue().encode())
    assert [list(row.values()) for row in found] == [[cell or None for cell in row] for row in rows]


def test_a_large_file_is_read_whole_and_in_order(tmp_path: Path) -> None:
    """The engine reads it in parallel pieces; quoted newlines lie across their borders."""
    text = io.StringIO()
    csv.writer(text).writerows([["id", "note"], *([str(i), f'"x,{i}\r\n"' * (i % 40)] for i in range(60_000))])
    found = rows_of(tmp_path, "f.csv", text.getvalue().encode())
    assert [(row["id"], row["note"]) for row in found] == [
        (str(i), f'"x,{i}\r\n"' * (i % 40) or None) for i in range(60_000)
    ]


@pytest.mark.parametrize(
    "names", [['a"b', "x.y", "select", "größe"], ["t", "batch", "k", "known"], ["order", "1", "a'b", "`"]]
)
def test_odd_names_are_names(names: list[str], tmp_path: Path) -> None:
    """Quotes, dots, words of SQL, letters of all, names that queries of ours use."""
    text = io.StringIO()
    csv.writer(text).writerows([names, ["1"] * len(names)])
    assert list(rows_of(tmp_path, "f.csv", text.getvalue().encode())[0]) == names


@pytest.mark.parametrize("name", ["a[1].csv", "a*.csv", "what?.csv", "it's.csv", "year=2013/f.csv", "F.CSV", "ü b.csv"])
def test_odd_paths_are_paths(name: str, tmp_path: Path) -> None:
    """No pattern that matches others, no column made of a folder's name."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "a1.csv").write_text("id\n2\n")
    assert rows_of(tmp_path, name, b"id\n1\n") == [{"id": "1"}]


def test_gzip_is_read_and_cut_gzip_refused(tmp_path: Path) -> None:
    """In any case of the suffix."""
    whole = gzip.compress(b"id\n" + b"".join(b"%d\n" % (i * i) for i in range(5000)))
    assert len(rows_of(tmp_path, "f.CSV.gz", whole)) == 5000
    for content in (whole[:40], whole[: len(whole) // 2], b"id\n1\n", b""):
        with pytest.raises(InputError, match=r"f\.csv\.gz.*(gzip|must begin)"):
            rows_of(tmp_path, "f.csv.gz", content)


def test_json_lines_keep_their_strings(tmp_path: Path) -> None:
    """A text that looks like a time is a text; numbers are numbers; a key that is missing is null."""
    content = b'\xef\xbb\xbf{"id":1,"t":"2013-01-01T10:00:00-04:00"}\n\n{"id":2.5,"x":[1]}\r\n'
    assert rows_of(tmp_path, "f.jsonl", content) == [
        {"id": 1.0, "t": "2013-01-01T10:00:00-04:00", "x": None}, {"id": 2.5, "t": None, "x": [1]},
    ]  # fmt: skip
    assert rows_of(tmp_path, "f.ndjson", b"") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"id":1}\n\n{"id":Jane4711}\n', "line 3: every line must be one JSON object"),
        (b'{"id":1}\n[1]\n', "line 2: every line must be one JSON object"),
        (b'{"id":"\xff"}\n', "line 1: every line must be one JSON object"),
        (b'{"id":1}\n{"id":"Jane4711"}\n', "column 'id': the values of a column must be of one kind"),
        (b'{"id":99999999999999999999}\n', "column 'id': the values of a column must be of one kind"),
    ],
)
def test_json_lines_that_are_none(content: bytes, said: str, tmp_path: Path) -> None:
    """By line, or by column; not quoted."""
    with pytest.raises(InputError, match=said) as caught:
        rows_of(tmp_path, "f.jsonl", content)
    assert SECRET not in str(caught.value)


def test_parquet_comes_as_it_is_and_cut_parquet_not_at_all(tmp_path: Path) -> None:
    """Types included."""
    rows = pa.table({"id": pa.array([1], pa.uint16()), "t": pa.array([1], pa.timestamp("ms", "Europe/Berlin"))})
    pq.write_table(rows, tmp_path / "f.parquet")
    assert read_batch(tmp_path / "f.parquet").rows.equals(rows)
    whole = (tmp_path / "f.parquet").read_bytes()
    for content in (whole[:-9], whole[: len(whole) // 2], b"", b"PAR1xxxxPAR1", whole[:4] + b"\0" * 60 + whole[64:]):
        (tmp_path / "f.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"^f\.parquet: the file must be whole, readable Parquet; got"):
            read_batch(tmp_path / "f.parquet")


def test_files_of_one_batch_are_joined_in_order(tmp_path: Path) -> None:
    """By the names of their columns, whatever their order."""
    (tmp_path / "b.csv").write_text("id,x\n1,a\n")
    (tmp_path / "a.csv").write_text("x,id\nb,2\n")
    assert read_batch([tmp_path / "b.csv", tmp_path / "a.csv"]).rows.to_pylist() == [
        {"id": "1", "x": "a"},
        {"id": "2", "x": "b"},
    ]
    by_pattern = read_batch(str(tmp_path / "*.csv"))
    assert (by_pattern.origin, by_pattern.rows.column("id").to_pylist()) == ("a.csv, b.csv", ["2", "1"])


def test_files_of_one_batch_with_other_columns(tmp_path: Path) -> None:
    """Not filled up with nulls."""
    (tmp_path / "a.csv").write_text("id,x\n1,a\n")
    (tmp_path / "b.csv").write_text("id,y\n1,a\n")
    with pytest.raises(
        InputError, match=r"b\.csv: the files of one batch must have the same columns; got '1 missing and 1 more"
    ):
        read_batch(str(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("*.csv", "a pattern must match at least one file"),
        ("f.csv", "the file to ingest must exist"),
        (".", "a folder to ingest must hold a file"),
        ([], "there must be a file to ingest"),
        ("f.xlsx", "a file to ingest must be .csv"),
        (["f.xlsx", "no"], "the file to ingest must exist"),
    ],
)
def test_what_is_no_file_to_ingest(given: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own remedy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.xlsx").write_bytes(b"")
    with pytest.raises(InputError, match=said):
        read_batch(given)


def test_files_of_two_formats(tmp_path: Path) -> None:
    """One batch, one format."""
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="one format"):
        read_batch([tmp_path / "a.csv", tmp_path / "a.jsonl"])


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Not a traceback."""
    file = tmp_path / "f.csv"
    file.write_text("id\n1\n")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    file.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:  # whom no permission stops
            os.seteuid(65534)
        with pytest.raises(InputError, match=r"must be readable; got .*f\.csv.*Permission denied"):
            read_batch(file)
    finally:
        if root:
            os.seteuid(0)


def test_the_id_of_a_batch_is_its_content(tmp_path: Path) -> None:
    """Not its name; one byte more is another batch; the order of files counts."""
    for name, text in (("a.csv", "id\n1\n"), ("b.csv", "id\n1\n"), ("c.csv", "id\n2\n")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / f"{name}.csv" for name in "abc")
    assert read_batch(a).id == read_batch(b).id != read_batch(c).id
    assert read_batch([a, c]).id != read_batch([c, a]).id
    rows = pa.table({"id": list(range(10))})
    chunked = pa.concat_tables([rows.slice(0, 3), rows.slice(3)])
    assert read_batch(rows).id == read_batch(chunked).id != read_batch(rows.slice(1)).id
