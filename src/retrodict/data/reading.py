"""Reads what people have (CSV, Parquet, JSON lines, Arrow tables) into one Arrow table per batch.

Nothing is guessed from the rows. A CSV reader that sniffs may take a data row for the header, skip lines it cannot
place, or read a day as a month; so its header is read here, its columns arrive as text, and the table's definition
gives them types. JSON strings stay strings for the same reason.
"""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.core.errors import InputError, RetryableError
from retrodict.core.identity import digest_file
from retrodict.stores.sql import query, quote_text
from retrodict.stores.tables.content import table_digest

__all__ = ["Batch", "read_batch"]

_DELIMITERS = ",;\t|"
_AGAIN = "Correct the file and ingest it again; nothing was written"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as they came, with the id that makes a second ingest of them a no-op.

    Attributes
    ----------
    id : str
        SHA-256 over the content.
    rows : pyarrow.Table
        CSV columns are text; the table's definition gives them types.
    origin : str
        Where they came from, for reports: file names without folders, or ``"memory"``.
    """

    id: str
    rows: pa.Table
    origin: str


def read_batch(source: pa.Table | str | Path | Sequence[str | Path]) -> Batch:
    """Read one batch.

    Parameters
    ----------
    source : pyarrow.Table, path, glob, or a list of these paths
        Files of one call have one format and the same columns, and make one batch in the order given.

    Returns
    -------
    Batch

    Raises
    ------
    InputError
        If nothing matches, the format is unknown, or a file cannot be read; the message names file and line, and
        never repeats what stands there.
    RetryableError
        If a file changed while it was read.
    """
    if isinstance(source, pa.Table):
        return Batch(table_digest(source), source, "memory")
    try:
        return _read_files(_find_files([source] if isinstance(source, str | Path) else list(source)))
    except OSError as error:
        raise InputError(
            "the file to ingest can be read",
            where="ingest",
            got=str(error.filename),
            remedy=f"Check it: {error.strerror}",
        ) from error


def _read_files(files: list[Path]) -> Batch:
    formats = {_format(path) for path in files}
    if len(formats) > 1:
        raise InputError(
            "the files of one batch have one format",
            where="ingest",
            got=sorted(formats),
            remedy="Ingest each format by a call of its own",
        )
    read = _READERS[formats.pop()]
    before = [_stamp(path) for path in files]
    hasher, pieces = hashlib.sha256(), []
    for path in files:
        hasher.update(bytes.fromhex(digest_file(path)))
        pieces.append(read(path))
    changed = [path.name for path, stamp in zip(files, before, strict=True) if _stamp(path) != stamp]
    if changed:
        raise RetryableError(
            "a file does not change while it is read", where=changed[0], remedy="Wait until it is written, then ingest"
        )
    return Batch(hasher.hexdigest(), _join(files, pieces), ", ".join(path.name for path in files))


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _find_files(given: Iterable[str | Path]) -> list[Path]:
    """Files of paths and globs, in the order given; those of one glob by name."""
    files: list[Path] = []
    for item in given:
        is_glob = glob.has_magic(str(item)) and not Path(item).exists()  # 'a[1].csv' may be a name
        found = [Path(match) for match in sorted(glob.glob(str(item)))] if is_glob else [Path(item)]
        if not found:
            raise InputError(
                "a pattern matches at least one file", where="ingest", got=str(item), remedy="Check the pattern"
            )
        files += found
    if not files:
        raise InputError("there is a file to ingest", where="ingest", remedy="Name at least one")
    for path in files:
        if path.is_dir():
            raise InputError(
                "a file is ingested, not a folder",
                where="ingest",
                got=str(path),
                remedy="Quote a glob like 'dir/*.csv'",
            )
        if not path.exists():
            raise InputError(
                "the file to ingest exists", where="ingest", got=str(path), remedy="Check the path, or quote the glob"
            )
    return files


def _format(path: Path) -> str:
    name = path.name.lower()
    suffix = ".csv.gz" if name.endswith(".csv.gz") else Path(name).suffix
    if suffix not in _READERS:
        raise InputError(
            "a file to ingest is .csv, .csv.gz, .parquet, .jsonl or .ndjson",
            where=path.name,
            got=suffix,
            remedy="Convert it, or pass an Arrow table from Python",
        )
    return suffix


def _join(files: list[Path], pieces: list[pa.Table]) -> pa.Table:
    first = pieces[0]
    for path, piece in zip(files, pieces, strict=True):
        missing = sorted(set(first.column_names) - set(piece.column_names))
        added = sorted(set(piece.column_names) - set(first.column_names))
        if missing or added:
            raise InputError(
                "the files of one batch have the same columns",
                where=path.name,
                got=f"{len(missing)} missing and {len(added)} more than in {files[0].name}",
                remedy="Ingest them by calls of their own",
            )
    if len(pieces) == 1:
        return first
    try:
        return pa.concat_tables([piece.select(first.column_names) for piece in pieces], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            "a column has one type in all files of a batch",
            where=", ".join(path.name for path in files),
            remedy="Ingest them by calls of their own",
        ) from error


# CSV ----------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> pa.Table:
    names, delimiter = _read_header(path)
    columns = ", ".join(f"{quote_text(name)}: 'VARCHAR'" for name in names)
    pattern = re.sub(r"([*?[])", r"[\1]", str(path))  # DuckDB takes every path for a glob
    compression = "gzip" if path.name.lower().endswith(".gz") else "none"
    sql = (
        f"SELECT * FROM read_csv({quote_text(pattern)}, auto_detect = false, columns = {{{columns}}}, header = true, "
        f"delim = {quote_text(delimiter)}, quote = '\"', escape = '\"', strict_mode = true, null_padding = false, "
        f"hive_partitioning = false, compression = {quote_text(compression)})"
    )
    try:
        return query(sql)
    except duckdb.Error as error:
        raise _unreadable(path, str(error)) from None  # its text quotes the line


def _read_header(path: Path) -> tuple[list[str], str]:
    """Names of the columns, and what divides them: whichever of comma, semicolon, tab and bar gives most names."""
    opener: Callable[..., Any] = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            line = stream.readline(1 << 20)
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError("the file is whole gzip", where=path.name, remedy=_AGAIN) from error
    if not line.strip():
        raise InputError("a CSV file begins with a line that names its columns", where=path.name, remedy=_AGAIN)
    if "\0" in line or any(0xDC80 <= ord(letter) <= 0xDCFF for letter in line):
        raise _unreadable(path, "Line: 1 unicode")
    rows = {delimiter: _split(line, delimiter) for delimiter in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda one: len(rows[one]))
    names = rows[delimiter]
    if line.count('"') % 2:
        raise InputError("the names of columns stand in one line", where=path.name, remedy=_AGAIN)
    # By place, not by name: a file without a header has data there.
    empty = [place for place, name in enumerate(names, start=1) if not name.strip()]
    lowered = [name.lower() for name in names]
    twice = [place for place, name in enumerate(lowered, start=1) if name in lowered[: place - 1]]
    if empty or twice:
        raise InputError(
            "every column of a CSV file has a name of its own, in more than upper and lower case",
            where=f"{path.name}, line 1",
            got={"without a name": empty, "named like one before": twice},
            remedy="Correct the header; the numbers are places of columns",
        )
    return names, delimiter


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


_REASONS = {
    "unicode|utf-?8|encod": "the text is UTF-8",
    "Expected Number of Columns|too many columns|missing columns": "every line has as many values as there are columns",
    "state machine": "lines end alike, and a quote that opens also closes",
    "quote": "a quote that opens also closes, and quotes inside are doubled",
    "Maximum line size": "a line is at most two megabytes long",
    "gzip|compress": "the file is whole gzip",
}


def _unreadable(path: Path, said: str) -> InputError:
    """Error of the engine's complaint, of which only the line number and the kind are taken."""
    line = re.search(r"Line: (\d+)", said)
    rule = next(
        (rule for pattern, rule in _REASONS.items() if re.search(pattern, said, re.IGNORECASE)), "the file is CSV"
    )
    return InputError(rule, where=f"{path.name}, line {line[1]}" if line else path.name, remedy=_AGAIN)


# Parquet, JSON lines ------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, EOFError) as error:
        raise InputError("the file is whole, readable Parquet", where=path.name, remedy=_AGAIN) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError("the file is whole, readable Parquet", where=path.name, remedy=_AGAIN) from error


def _read_json_lines(path: Path) -> pa.Table:
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        rows = msgspec.json.Decoder(dict[str, Any]).decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _bad_line(path, data) from None  # its text may quote the line
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError, TypeError):
            raise InputError(
                "the values of a column are of one kind", where=f"{path.name}, column {name!r}", remedy=_AGAIN
            ) from None
    return pa.table(columns)


def _bad_line(path: Path, data: bytes) -> InputError:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            if line.strip():
                decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return InputError("every line is one JSON object", where=f"{path.name}, line {number}", remedy=_AGAIN)
    return InputError("every line is one JSON object", where=path.name, remedy=_AGAIN)


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
