"""Every file of a project that still holds an identifier, found by its bytes and named by what the file is.

What an erasure knows of, it erases or counts by meaning. This looks for what nobody thought of: all files below the
project's folder are read, packed ones and the columns of Parquet unpacked. Only values are sought that do not stand
anywhere by chance: texts of four letters or more, numbers of five digits or more. A number that a file holds in binary
form is seen in Parquet alone, and a text that a page of a database divides is not seen.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrodict.core.errors import RetrodictError
from retrodict.workspace import Workspace

__all__ = ["Remains", "find_remains", "is_telling"]

MOST_VALUES = 1_000
"""Of more values than these no file is looked through: each byte is compared with all of them."""

_LEAST_TEXT, _LEAST_NUMBER = 4, 10_000
_PIECE, _PACKED = 16 << 20, {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_SKIPPED = {".git", ".venv", "__pycache__"}
_STORES = ("tables", "records", "keys", "objects", "streams", "events")
_REMEDIES = {
    "table": "erase it by the column that holds it; older versions: --vacuum, --pinned --reason WHY",
    "decision log": "sealed as evidence: no record can be taken out while it is kept",
    "stream": "sealed as evidence of what was read: no record can be taken out while it is kept",
    "object": "train and deploy again without it; what was deployed before stays evidence",
    "online state": "free pages: stop every process, delete the folder, run: retrodict features build",
    "records": "rows of other rooms, or free pages of the database: run VACUUM in it while nothing else does",
    "file": "not of the platform's making: take it out, or delete the file",
}


@dataclass(frozen=True, slots=True)
class Remains:
    """A place that still holds an identifier.

    Attributes
    ----------
    place : str
        What the files are: a table, a stream, the decision log, a part of a model, online state, or a file's path.
    files : int
    hits : int
        Rows of Parquet columns, and occurrences in other files.
    remedy : str
        What can be done about it.
    """

    place: str
    files: int
    hits: int
    remedy: str

    @property
    def kind(self) -> str:
        """What the place is, without its name."""
        return next(kind for kind in _REMEDIES if self.place.startswith(kind))


def is_telling(value: object) -> bool:
    """Whether a value is long enough not to stand in other places by chance."""
    if isinstance(value, str):
        return len(value) >= _LEAST_TEXT
    return isinstance(value, int) and abs(value) >= _LEAST_NUMBER


def find_remains(workspace: Workspace, values: Iterable[object]) -> tuple[list[Remains], list[str]]:
    """Places that hold any of the values, and what was not looked through, as sentences."""
    every = list(values)
    sought = sorted({value for value in every if is_telling(value)}, key=str)
    unseen = [f"{store} at a URL" for store in _STORES if _is_url(workspace, store)]
    if len(sought) < len(set(every)):
        unseen.append(
            f"keys of fewer than {_LEAST_TEXT} letters or below {_LEAST_NUMBER}: they stand anywhere by chance"
        )
    if not sought or len(sought) > MOST_VALUES:
        return [], [*unseen, *([f"files: there are more than {MOST_VALUES} subjects"] if sought else [])]
    needles = _Needles.of(sought)
    counts: dict[str, list[int]] = {}
    owners: dict[str, str] | None = None
    folders = {store: workspace.config.path(f"stores.{store}") for store in _STORES if not _is_url(workspace, store)}
    outside = [path for path in folders.values() if not path.is_relative_to(workspace.root.resolve())]
    for path in (path for root in (workspace.root.resolve(), *outside) for path in _files(root)):
        try:
            hits = _hits(path, needles)
        except OSError as error:
            unseen.append(f"{path.name}: {error.strerror or type(error).__name__}")
            continue
        if hits:
            if owners is None:
                owners = _owners(workspace)
            place = counts.setdefault(_place(workspace, path, folders, owners), [0, 0])
            place[0] += 1
            place[1] += hits
    remains = [Remains(place, files, hits, _remedy(place)) for place, (files, hits) in sorted(counts.items())]
    return remains, unseen


def _remedy(place: str) -> str:
    return next(text for kind, text in _REMEDIES.items() if place.startswith(kind))


@dataclass(frozen=True, slots=True)
class _Needles:
    """What is sought: texts as they are and as JSON writes them, numbers in columns of numbers too."""

    pattern: re.Pattern[bytes]
    longest: int
    text: str
    numbers: pa.Array[Any]

    @classmethod
    def of(cls, values: Sequence[object]) -> _Needles:
        texts = {str(value) for value in values}
        texts |= {json.dumps(text, ensure_ascii=ascii_)[1:-1] for text in texts for ascii_ in (True, False)}
        expression = "|".join(re.escape(text) for text in sorted(texts))
        numbers = pa.array([value for value in values if isinstance(value, int)], pa.int64())
        return cls(re.compile(expression.encode()), max(len(text.encode()) for text in texts), expression, numbers)


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        paths = [Path(folder, name) for name in sorted(names)]
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


# one file -------------------------------------------------------------------------------------------------------------


def _hits(path: Path, needles: _Needles) -> int:
    rows = 0
    if path.suffix == ".parquet":
        with (
            suppress(pa.ArrowException, OSError),
            pq.ParquetFile(path) as file,
        ):  # of one cut off the bytes are looked at
            for batch in file.iter_batches():
                rows += sum(_in_column(column, needles) for column in batch.columns)
    if rows:
        return rows
    packed = _PACKED.get(path.suffix)
    with suppress(*() if packed is None else (pa.ArrowException, OSError)):
        return _in_bytes(path, needles, packed)
    return _in_bytes(path, needles, None)


def _in_bytes(path: Path, needles: _Needles, packed: str | None) -> int:
    hits, rest = 0, b""
    with pa.input_stream(str(path), compression=packed) as stream:
        while piece := stream.read(_PIECE):
            data = rest + piece
            ends = [match.end() for match in needles.pattern.finditer(data)]
            hits += len(ends)
            rest = data[max(ends[-1] if ends else 0, len(data) - needles.longest + 1) :]
    return hits


def _in_column(column: pa.Array[Any], needles: _Needles) -> int:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _in_column(column.dictionary_decode(), needles)
    if pa.types.is_struct(kind):
        return sum(_in_column(part, needles) for part in column.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _in_column(column.flatten(), needles)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        mask = pc.match_substring_regex(column, needles.text)
    elif pa.types.is_signed_integer(kind) and len(needles.numbers):
        mask = pc.is_in(column.cast(pa.int64()), value_set=needles.numbers)
    else:
        return 0
    return int(pc.sum(mask).as_py() or 0)


# what a file is -------------------------------------------------------------------------------------------------------


def _is_url(workspace: Workspace, store: str) -> bool:
    return "://" in str(workspace.config[f"stores.{store}"])


def _place(workspace: Workspace, path: Path, folders: Mapping[str, Path], owners: Mapping[str, str]) -> str:
    for store, folder in folders.items():
        if path in (folder, *(folder.with_name(f"{folder.name}-{end}") for end in ("wal", "shm"))):
            return "records"
        if path.is_relative_to(folder):
            return _inside(store, path.relative_to(folder), owners)
    name = path.relative_to(workspace.root.resolve())
    return f"stream index {name}" if name.parts[:2] == ("state", "pushed") else f"file {name}"


def _inside(store: str, path: Path, owners: Mapping[str, str]) -> str:
    first = path.parts[0]
    if store == "tables":
        return f"table {first}"
    if store == "objects":
        return f"object {owners.get(path.name, path.name)}"
    if store == "keys":
        return "online state"
    return "decision log" if first == "decisions" else f"stream {path.parent}"


def _owners(workspace: Workspace) -> dict[str, str]:
    """What objects are, by SHA-256: of which model or what else, and which part of it."""
    owners: dict[str, str] = {}
    for entry in sorted(workspace.ledger.entries(), key=lambda entry: not entry.object_id.startswith("model:")):
        shas = entry.payload.get("objects")
        for sha in shas if isinstance(shas, list) else ():
            owners.setdefault(sha, entry.object_id)
            try:
                parts = json.loads(workspace.objects.get(sha)).get("parts")
            except (RetrodictError, ValueError, AttributeError):
                continue  # no manifest
            for name, part in parts.items() if isinstance(parts, dict) else ():
                owners.setdefault(part, f"{entry.object_id}, {name}")
    return owners
