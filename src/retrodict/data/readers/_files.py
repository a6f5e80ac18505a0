"""Finds the files of a batch, says what they are, and notices when one changes."""

from __future__ import annotations

import codecs
import errno
import glob
import gzip
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.core.errors import InputError, RetryableError

AGAIN = "Correct the file and ingest it again; nothing was written"
FORMATS = ("arrow", "csv", "jsonl", "parquet")
_SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_PACKED = {".gz": "gzip", ".zst": "zstd"}
_OTHER_ROWS = {".avro", ".json", ".ods", ".orc", ".tsv", ".xls", ".xlsb", ".xlsm", ".xlsx", ".zip"}
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read: where it is, what messages call it, its format, and how it is compressed."""

    path: Path
    name: str
    format: str
    packed: str | None = None


# A file, and what it was when it was opened.
Stamped = tuple[InputFile, tuple[int, ...]]


def stamp(file: InputFile) -> Stamped:
    """Return a file with its device, inode, size and time of the last change."""
    status = file.path.stat()
    return file, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def check_unchanged(files: Iterable[Stamped]) -> None:
    """Raise RetryableError if one of the files is not what it was."""
    for file, marks in files:
        try:
            same = stamp(file)[1] == marks
        except OSError:
            same = False
        if not same:
            raise RetryableError(
                "a file must not change while it is read",
                where=file.name,
                got="another size, time or file",
                remedy="Wait until it is written, then ingest",
            )


@contextmanager
def os_errors(name: str | None = None) -> Iterator[None]:
    """Map what the system says of a file or a disk."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RetryableError(
                "the disk must have room for the rows while they are read",
                where="ingest",
                got=os.strerror(error.errno),
                remedy="Free space on the disk of the staging folder, then ingest again; nothing was written",
            ) from error
        if error.errno is None:
            raise
        raise InputError(
            "the file to ingest must be readable",
            where="ingest",
            got=str(error.filename or name),
            remedy=f"Check it: {os.strerror(error.errno)}",
        ) from error


@contextmanager
def damage(rule: str, name: str) -> Iterator[None]:
    """Map what a library says of bytes it cannot read; what the system says of a file or disk goes on as it is."""
    try:
        yield
    except (EOFError, zlib.error, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(rule, where=name, got=type(error).__name__, remedy=AGAIN) from error


# finding ------------------------------------------------------------------------------------------------------


def find_files(sources: Iterable[str | Path], format: str | None) -> list[InputFile]:  # noqa: A002
    """Files of paths, globs and folders, in the order given; those of one glob or folder by name."""
    files: list[Path] = []
    for item in sources:
        is_glob = glob.has_magic(str(item)) and not Path(item).exists()  # 'a[1].csv' may be a name
        paths = [Path(match) for match in sorted(glob.glob(str(item)))] if is_glob else [Path(item)]
        if not paths:
            raise InputError(
                "a pattern must match at least one file", where="ingest", got=str(item), remedy="Check the pattern"
            )
        if is_glob and any(path.is_dir() for path in paths):
            raise InputError(
                "a pattern must match files; a folder is named by itself",
                where="ingest",
                got=str(item),
                remedy="Narrow the pattern, for instance to 'dir/*.csv'",
            )
        for path in paths:
            files += _in_folder(path, format) if path.is_dir() else [_checked(path)]
    if not files:
        raise InputError("there must be a file to ingest", where="ingest", got=[], remedy="Name at least one")
    inputs = [_described(path, format) for path in files]
    kinds = {file.format for file in inputs}
    if len(kinds) > 1:
        raise InputError(
            "the files of one batch must have one format",
            where="ingest",
            got=sorted(kinds),
            remedy="Ingest each format by a call of its own",
        )
    return inputs


def names_file(text: str) -> bool:
    """Whether a text names files and no table: it is there, is a pattern or path, or ends as files of rows do."""
    endings = (*_SUFFIXES, *_PACKED, ".json", ".tsv")
    return Path(text).exists() or bool(set(text) & set("/\\*?[")) or text.lower().endswith(endings)


def _checked(path: Path) -> Path:
    if not path.exists():
        raise InputError(
            "the file to ingest must exist", where="ingest", got=str(path), remedy="Check the path, or quote the glob"
        )
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
        raise InputError(
            "a file to ingest must be a regular file, no pipe, socket or device",
            where="ingest",
            got=str(path),
            remedy="Copy it to a file, or pass '-' to read standard input",
        )
    return path


def _in_folder(folder: Path, declared: str | None) -> list[Path]:
    """Files of a folder that have a known format, by name; what begins with a dot or underscore is machinery."""
    if (folder / "_delta_log").is_dir():
        raise InputError(
            "a folder to ingest must hold plain files, and be no Delta table",
            where="ingest",
            got=str(folder),
            remedy="Read the table with deltalake and pass what to_pyarrow_dataset gives as a scanner's reader",
        )
    paths, others = [], []
    for path in sorted(folder.iterdir()):
        kind = _kind(path)[0]
        if path.name[0] in "._" or path.is_dir():
            continue
        if kind is None and declared is None and path.suffix.lower() in {*_OTHER_ROWS, *_PACKED}:
            others.append(path.name)
        elif kind is not None and declared in (None, kind):
            paths.append(_checked(path))
    if not paths:
        raise InputError(
            "a folder to ingest must hold a file of a known format",
            where="ingest",
            got=str(folder),
            remedy="Name the files, or a glob like 'dir/*.csv' in quotes",
        )
    if others:
        raise InputError("a folder to ingest must hold no rows in a format that is not read", where="ingest",
                         got=others[:3], remedy="Convert them, or name a glob like 'dir/*.csv' in quotes")  # fmt: skip
    return paths


def _kind(path: Path) -> tuple[str | None, str | None]:
    """Format and compression that a name says."""
    name = Path(path.name.lower())
    packed = _PACKED.get(name.suffix)
    kind = _SUFFIXES.get(Path(name.stem).suffix if packed else name.suffix)
    return (None if packed and kind not in ("csv", "jsonl") else kind), packed


def _described(path: Path, declared: str | None) -> InputFile:
    kind, packed = _kind(path)
    if declared is None and kind is None:
        raise InputError(
            "a file to ingest must be .csv, .jsonl, .ndjson (also .gz or .zst), .parquet, .arrow, .feather or .ipc",
            where=path.name,
            got="".join(path.suffixes[-2:]),
            remedy="Say its format, convert it, or pass an Arrow table from Python",
        )
    return InputFile(path, path.name, declared or kind or "", packed)


# reading ------------------------------------------------------------------------------------------------------


def read_blocks(file: InputFile) -> Iterator[bytes]:
    """Bytes of a file, unpacked, a few megabytes at a time; an InputError if it is not whole."""
    with damage(f"the file must be whole {file.packed}", file.name), _opened(file) as stream:
        while block := stream.read(1 << 22):
            yield bytes(block)


def _opened(file: InputFile) -> Any:
    if file.packed == "gzip":
        return gzip.open(file.path)
    if file.packed == "zstd":
        return pa.CompressedInputStream(pa.OSFile(str(file.path)), "zstd")
    return file.path.open("rb")


def looks_like(data: bytes) -> str:
    """Name of the encoding that bytes which are not UTF-8 look like; a guess, for messages alone."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "text that looks like UTF-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "text that looks like UTF-16"
    even, odd = data[::2].count(0), data[1::2].count(0)
    if even + odd > len(data) // 4 and min(even, odd) * 8 < max(even, odd):
        return "text that looks like UTF-16"
    if even + odd:
        return "binary data"
    if any(0x80 <= byte <= 0x9F for byte in data):
        return "text that looks like Windows-1252"
    return "text that looks like Latin-1 (ISO 8859-1)"
