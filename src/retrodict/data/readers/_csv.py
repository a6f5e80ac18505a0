"""CSV: the header is read here, every column is text, and the rows are never looked at to guess either.

A reader that sniffs may take a data row for the header, skip lines it cannot place, or read a day as a month. So
DuckDB is given names, delimiter and types, and told to be strict; of what it says in an error, line and kind are taken.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.data.readers._files import AGAIN, InputFile, looks_like, read_blocks
from retrodict.data.readers._stage import ROWS, Staging
from retrodict.stores.sql import connect_duckdb, quote_text

_DELIMITERS = ",;\t|"
_HEADER = 1 << 20  # bytes


def read_csv(file: InputFile, stage: Staging) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Columns and rows of a file, in order, a few at a time."""
    path = _plain(file, stage)
    names, delimiter = _read_header(path, file.name)
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    return schema, _rows(path, file, schema, delimiter)


def _rows(path: Path, file: InputFile, schema: pa.Schema, delimiter: str) -> Iterator[pa.RecordBatch]:
    _check_no_nul(path, file.name)
    columns = ", ".join(f"{quote_text(name)}: 'VARCHAR'" for name in schema.names)
    pattern = re.sub(r"([*?[])", r"[\1]", str(path))  # DuckDB takes every path for a glob
    sql = (
        f"SELECT * FROM read_csv({quote_text(pattern)}, auto_detect = false, columns = {{{columns}}}, header = true, "
        f"delim = {quote_text(delimiter)}, quote = '\"', escape = '\"', strict_mode = true, null_padding = false, "
        "hive_partitioning = false, compression = 'none')"
    )
    import duckdb

    with connect_duckdb() as connection:
        try:
            for rows in connection.sql(sql).to_arrow_reader(ROWS):
                yield rows.cast(schema)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _unreadable(path, file.name, str(error)) from None  # its text quotes the line
    if path != file.path:
        path.unlink()


def _plain(file: InputFile, stage: Staging) -> Path:
    """Path of the file, or of a copy that is not compressed: DuckDB does not check what a gzip file says of itself."""
    if file.packed is None:
        return file.path
    path = stage.path(".csv")
    with path.open("wb") as stream:
        for block in read_blocks(file):
            stream.write(block)
    return path


def _check_no_nul(path: Path, name: str) -> None:
    line = 1
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            place = block.find(b"\0")
            if place >= 0:
                line += block.count(b"\n", 0, place)
                raise InputError(
                    "the text must hold no NUL byte", where=f"{name}, line {line}", got="NUL", remedy=AGAIN
                )
            line += block.count(b"\n")


# header -------------------------------------------------------------------------------------------------------


def _read_header(path: Path, name: str) -> tuple[list[str], str]:
    """Names of the columns, and what divides them: whichever of comma, semicolon, tab and bar gives most names."""
    with path.open("rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        line = stream.readline(_HEADER)
    if not line.strip():
        raise InputError(
            "a CSV file must begin with a line that names its columns", where=name, got="a blank line", remedy=AGAIN
        )
    if "\0" in line or any(0xDC80 <= ord(letter) <= 0xDCFF for letter in line):
        raise _unreadable(path, name, "Line: 1 unicode")
    rows = {delimiter: _split(line, delimiter) for delimiter in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda one: len(rows[one]))
    names = rows[delimiter]
    if line.count('"') % 2:
        raise InputError(
            "the names of columns must stand in one line",
            where=name,
            got="a quote that is open at its end",
            remedy=AGAIN,
        )
    # By place, not by name: a file without a header has data there.
    empty = [place for place, column in enumerate(names, start=1) if not column.strip()]
    lowered = [column.lower() for column in names]
    twice = [place for place, column in enumerate(lowered, start=1) if column in lowered[: place - 1]]
    if empty or twice:
        raise InputError(
            "every column of a CSV file must have a name of its own, in more than upper and lower case",
            where=f"{name}, line 1",
            got={"without a name": empty, "named like one before": twice},
            remedy="Correct the header; the numbers are places of columns",
        )
    return names, delimiter


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


# errors -------------------------------------------------------------------------------------------------------

_UTF8 = "the text must be UTF-8"
_REASONS = {
    "unicode|utf-?8|encod": _UTF8,
    "Expected Number of Columns|too many columns|missing columns": "every line must have a value for each column",
    "state machine": "lines must end alike, and a quote that opens must close",
    "Maximum line size": "a line must be at most two megabytes long, and a quote that opens must close",
    "quote": "a quote that opens must close, and quotes inside must be doubled",
}


def _unreadable(path: Path, name: str, message: str) -> InputError:
    """Error of the engine's complaint, of which only the line number and the kind are taken."""
    line = re.search(r"Line: (\d+)", message)
    rule = next(
        (rule for pattern, rule in _REASONS.items() if re.search(pattern, message, re.IGNORECASE)),
        "the file must be CSV",
    )
    where = f"{name}, line {line[1]}" if line else name
    encoding: dict[str, Any] = {"got": _encoding(path)} if rule == _UTF8 else {}
    return InputError(rule, where=where, remedy=AGAIN, **encoding)


def _encoding(path: Path) -> str:
    """Look at the bytes around the first that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as stream:
        block = head = stream.read(1 << 16)
        if b"\0" in head:
            return looks_like(head)
        while block:
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return looks_like(error.object[error.start : error.start + 4096])
            block = stream.read(1 << 16)
    return looks_like(head)
