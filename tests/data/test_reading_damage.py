"""Input that is broken: found before anything is published, told by place and rule, and never quoted."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict.core.errors import InputError
from retrodict.data.readers import open_batch, read_batch

SECRET = "Jane4711"


def refused(path: Path, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_batch(path)
    assert SECRET not in str(caught.value)
    assert caught.value.remedy
    for cause in (caught.value.__cause__, None if caught.value.__suppress_context__ else caught.value.__context__):
        assert SECRET not in str(cause)


def file_of(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


# Parquet ------------------------------------------------------------------------------------------------------


def some_rows() -> pa.Table:
    numbers = random.Random(7)
    return pa.table({"s": [f"{SECRET}{numbers.random()}" for _ in range(3000)], "n": list(range(3000))})


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_parquet_cut_anywhere(share: float, tmp_path: Path) -> None:
    """The footer is at the end: without it there is nothing."""
    pq.write_table(some_rows(), tmp_path / "whole.parquet", row_group_size=1000)
    whole = (tmp_path / "whole.parquet").read_bytes()
    cut = file_of(tmp_path, "f.parquet", whole[: int(len(whole) * share)])
    refused(cut, r"^f\.parquet: the file must be whole, readable Parquet; got")


@pytest.mark.parametrize("reading", ["rows", "batches", "take"])
def test_a_byte_that_flipped_in_a_page_with_a_checksum(reading: str, tmp_path: Path) -> None:
    """Found when the page is read, whichever way; the footer is whole, so opening finds nothing."""
    file = tmp_path / "f.parquet"
    pq.write_table(some_rows(), file, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    with open_batch(file, staging=tmp_path / "s") as batch:
        read = {
            "rows": lambda: batch.rows,
            "batches": lambda: list(batch.batches()),
            "take": lambda: batch.take(np.array([1])),
        }
        with pytest.raises(InputError, match=r"^f\.parquet: the file must be whole, readable Parquet; got"):
            read[reading]()


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "lz4"])
def test_pages_that_do_not_unpack(codec: str, tmp_path: Path) -> None:
    """Without a checksum the codec notices, or the layout of the page does."""
    file = tmp_path / "f.parquet"
    pq.write_table(some_rows(), file, compression=codec)
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    content = bytearray(file.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 4
    content[middle : middle + 400] = b"\xff" * 400
    file.write_bytes(content)
    refused(file, r"^f\.parquet: the file must be whole, readable Parquet; got")


def test_text_in_parquet_that_is_no_utf8(tmp_path: Path) -> None:
    """Arrow reads it as text all the same; whoever uses it would fail later."""
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    pq.write_table(pa.table({"s": bad}), tmp_path / "f.parquet")
    refused(tmp_path / "f.parquet", r"^f\.parquet: the file must be whole, readable Parquet; got")


def test_a_column_that_stands_twice_in_parquet(tmp_path: Path) -> None:
    """By its name: which of the two is meant?"""
    rows = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    pq.write_table(rows, tmp_path / "f.parquet")
    refused(tmp_path / "f.parquet", r"^f\.parquet: every column must have a name of its own; got \['id'\]")
    with pytest.raises(InputError, match=r"got \['id'\]"):
        read_batch(rows)


# Arrow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("share", [0, 0.01, 0.4, 0.9, 0.9999])
def test_arrow_cut_anywhere(kind: str, share: float, tmp_path: Path) -> None:
    """A stream that ends after some of its messages reads like a shorter one: it must have its end mark."""
    new: Any = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(tmp_path / "whole", some_rows().schema) as writer:
        writer.write_table(some_rows(), max_chunksize=1000)
    whole = (tmp_path / "whole").read_bytes()
    refused(
        file_of(tmp_path, "f.arrow", whole[: int(len(whole) * share)]),
        r"^f\.arrow: the file must be whole, readable Arrow",
    )


def test_arrow_streams_without_their_end(tmp_path: Path) -> None:
    """Cut between two messages, all that is there can be read."""
    for rows in (0, 1000, 2000):
        with pa.ipc.new_stream(tmp_path / "begun", some_rows().schema) as writer:
            writer.write_table(some_rows()[:rows])
        content = (tmp_path / "begun").read_bytes()
        assert read_batch(file_of(tmp_path, "f.arrow", content)).num_rows == rows
        refused(file_of(tmp_path, "f.arrow", content[:-8]), r"^f\.arrow: the file must be whole, readable Arrow")


def test_arrow_whose_offsets_point_outside(tmp_path: Path) -> None:
    """They would be read beyond the end of memory."""
    with pa.ipc.new_file(tmp_path / "f.arrow", pa.schema([("s", pa.string())])) as writer:
        writer.write_table(pa.table({"s": ["ab", "cd", "ef", "gh"]}))
    content = (tmp_path / "f.arrow").read_bytes()
    offsets = np.array([0, 2, 4, 6, 8], np.int32).tobytes()
    assert content.count(offsets) == 1
    file = file_of(tmp_path, "f.arrow", content.replace(offsets, np.array([0, 2, 4, 6, 1 << 30], np.int32).tobytes()))
    refused(file, r"^f\.arrow: the file must be whole, readable Arrow")


# CSV ----------------------------------------------------------------------------------------------------------

CSV = {
    "Latin-1": (f"id,name\n1,{SECRET}\n2,Zürich\n".encode("latin1"), "line 3", "Latin-1"),
    "Windows-1252": ("id,name\n1,“a”\n".encode("cp1252"), "line 2", "Windows-1252'"),
    "UTF-16": (f"id,name\n1,{SECRET}\n".encode("utf-16"), "line 1", "UTF-16'"),
    "UTF-16 without a mark": (f"id,name\n1,{SECRET}\n".encode("utf-16-le"), "line 1", "UTF-16'"),
    "UTF-32": (f"id,name\n1,{SECRET}\n".encode("utf-32"), "line 1", "UTF-32'"),
}


@pytest.mark.parametrize("case", CSV)
def test_csv_in_another_encoding(case: str, tmp_path: Path) -> None:
    """Which one it looks like is said, and never assumed."""
    content, line, encoding = CSV[case]
    said = rf"^f\.csv, {line}: the text must be UTF-8; got 'text that looks like {encoding}"
    refused(file_of(tmp_path, "f.csv", content), said)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A NUL among values; a file of another kind."""
    refused(file_of(tmp_path, "f.csv", f"id,name\n1,a\n2,{SECRET}\0\n".encode()), r"^f\.csv, line 3: .* no NUL byte")
    refused(file_of(tmp_path, "f.csv", b"PAR1\x15\x04\x15\0\0" * 9), r"^f\.csv, line 1: .*; got 'binary data'")


def test_a_bad_byte_far_down(tmp_path: Path) -> None:
    """Beyond the first blocks of every reader involved; so is the NUL."""
    good = b"id,name\n" + b"1,abcdefgh\n" * 300_000
    refused(
        file_of(tmp_path, "f.csv", good + f"2,{SECRET}é\n".encode("latin1")),
        r"line 300002: the text must be UTF-8; got",
    )
    refused(file_of(tmp_path, "f.csv", good + b"2,\0\n"), r"line 300002: the text must hold no NUL")


def test_a_quote_that_stays_open_far_down(tmp_path: Path) -> None:
    """The rest of the file is no value."""
    rest = f'2,"{SECRET}\n'.encode() + b"1,abcdefgh\n" * 300_000
    refused(file_of(tmp_path, "f.csv", b"id,name\n" + rest), "a quote that opens must close")


@pytest.mark.parametrize("name", ["f.csv.gz", "f.jsonl.gz", "f.csv.zst", "f.jsonl.zst"])
def test_what_is_packed_and_broken(name: str, tmp_path: Path) -> None:
    """Cut, flipped, or nothing of the kind."""
    line = '{"id":%d}\n' if "jsonl" in name else "%d\n"
    text = "".join(["" if "jsonl" in name else "id\n", *(line % (i * i) for i in range(50_000))]).encode()
    whole = gzip.compress(text) if name.endswith("gz") else pa.Codec("zstd").compress(text, asbytes=True)
    assert read_batch(file_of(tmp_path, name, whole)).num_rows == 50_000
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in (whole[: len(whole) // 2], whole[:-3], text):
        refused(file_of(tmp_path, name, content), rf"^{name}: the file must be whole (gzip|zstd); got")
    # A zstd frame need not carry a checksum: then what it unpacks to is refused as what it is.
    refused(file_of(tmp_path, name, bytes(flipped)), rf"^{name}.*(whole gzip|whole zstd|every line)")


# JSON lines ---------------------------------------------------------------------------------------------------

JSON = {
    "deep": (b'{"a":1}\n{"a":' + b"[" * 40 + b"]" * 40 + b"}\n", "line 2: a value must nest at most 32 levels"),
    "bottomless": (b'{"a":' + b"[" * 5_000_000, "line 1: (a value must nest|every line)"),
    "deep objects": (b'{"a":' * 1500 + b"1" + b"}" * 1500, "line 1: a value must nest at most 32 levels"),
    "a key twice": (b'{"a":"x"}\n{"a":"Jane4711","a":"y"}\n', "line 2: an object must name each of its keys once"),
    "a number twice": (b'{"a":1,"b":2,"a":3}\n', "line 1: an object must name each"),
    "a key twice by escapes": (b'{"a":1,"\\u0061":"\\"\\\\"}\n', "line 1: an object must name each"),
    "a key twice inside": (b'{"o":{"a":1,"b":[{"c":1,"c":"\\\\"}]}}\n', "line 1: an object must name each"),
    "Latin-1": ('{"a":"Zürich"}\n'.encode("latin1"), r"line 1: .* JSON object; got '.*Latin-1"),
    "UTF-16": ('{"a":"Jane4711"}\n'.encode("utf-16"), r"line 1: .* JSON object; got '.*UTF-16"),
    "an array": (b"[\n{},\n{}\n]", "line 1: every line must be one JSON object"),
    "not a number": (b'{"a":NaN}\n', "line 1: every line must be one JSON object"),
    "too many keys": (json.dumps(dict.fromkeys(map(str, range(20_000)))).encode(), "at most 10000 columns"),
}  # fmt: skip


@pytest.mark.parametrize("case", JSON)
def test_json_that_is_refused_by_line(case: str, tmp_path: Path) -> None:
    """Quickly, whatever it would have unfolded to."""
    content, said = JSON[case]
    refused(file_of(tmp_path, "f.jsonl", content), rf"^f\.jsonl.*{said}")


@pytest.mark.parametrize("before", [0, 3_000_000])
def test_json_lines_without_end(before: int, tmp_path: Path) -> None:
    """Sixteen megabytes hold; one more does not, wherever the blocks of the reader fall."""
    fit = b'{"a":"' + b"x" * ((16 << 20) - 8) + b'"}\n'
    head = b'{"a":"y"}\n' * (before // 10)
    assert len(read_batch(file_of(tmp_path, "f.jsonl", head + fit)).rows.column("a")[-1].as_py()) == (16 << 20) - 8
    longer = head + b" " + fit
    refused(file_of(tmp_path, "f.jsonl", longer), rf"line {before // 10 + 1}: a line must be at most 16 MB long")


def test_quotes_inside_strings_are_no_second_keys(tmp_path: Path) -> None:
    """The count of quotes knows backslashes."""
    rows = [{"a": '"\\"\\', "b": [{'\\\\"': '"'}]}, {"a": None, "b": []}, {}]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    found = read_batch(file_of(tmp_path, "f.jsonl", content)).rows.to_pylist()
    assert found == [{"a": None, "b": None} | row for row in rows]


# places -------------------------------------------------------------------------------------------------------


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "f.csv")
    for path in (tmp_path / "f.csv", Path("/dev/zero"), tmp_path):
        refused(path, "a file to ingest must be a regular file, no pipe, socket or device; got")


def test_a_path_that_leads_through_a_file(tmp_path: Path) -> None:
    """No permission is involved, so root is told too."""
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "f.csv", "the file to ingest must exist")


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """Not an empty one."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o755)
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    folder.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:  # whom no permission stops
            os.seteuid(65534)
        refused(folder, "the file to ingest must be readable; got .*closed.*Permission denied")
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_pattern_that_matches_a_folder(tmp_path: Path) -> None:
    """What lies in it was not asked for."""
    (tmp_path / "old").mkdir()
    for path in (tmp_path / "f.csv", tmp_path / "old" / "g.csv"):
        path.write_text("id\n1\n")
    refused(tmp_path / "*", "a pattern must match files; a folder is named by itself")
