"""Opens the rows of a profile: files, Arrow objects, frames, a batch, or a version of a table, with their types.

Files of text hold text; a column all of whose values read as a number, truth value, day or instant is profiled as
that, by the same reading that ingest uses once the type is declared. Leading zeros keep a column text: a postcode is no
number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from retrodict.core.kinds import column_word
from retrodict.data.definitions import Table
from retrodict.data.readers import Batch, open_batch
from retrodict.data.validation._typed import TypedBatch, type_batch
from retrodict.data.versions import resolve

_DAY = r"[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_CLOCK = r"[ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?"
_PATTERNS = {
    "bool": r"(?i)^(true|false)$",
    "int": r"^[+-]?(0|[1-9][0-9]{0,17})$",
    "float": r"(?i)^[+-]?((0|[1-9][0-9]{0,17})([.][0-9]*)?|[.][0-9]+)(e[+-]?[0-9]{1,2})?$|^nan$|^[+-]?(inf|infinity)$",
    "date": f"^{_DAY}$",
    "time": f"^{_DAY}{_CLOCK}(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])$",
}
_SYSTEM = ("_batch", "_row")


@dataclass(frozen=True, slots=True)
class ProfiledRows:
    """Rows to profile.

    Attributes
    ----------
    name : str
    origin : str
    batch : Batch
        As they came.
    typed : TypedBatch
        With the types they are profiled in.
    staging : pathlib.Path
    types : mapping of str to str
        Declared types that give them: for ``Table(columns=...)``.
    inferred, zoneless : tuple of str
        See :class:`~retrodict.data.profiling.Profile`.
    """

    name: str
    origin: str
    batch: Batch
    typed: TypedBatch
    staging: Path
    types: dict[str, str]
    inferred: tuple[str, ...]
    zoneless: tuple[str, ...]


@contextmanager
def open_rows(source: Any, *, name: str | None = None) -> Iterator[ProfiledRows]:
    """Open the rows of a profile for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="retrodict-profile-") as folder:
        staging = Path(folder)
        if isinstance(source, Batch):
            yield _typed_rows(source, staging, name)
            return
        declared: Table | None = None
        origin = None
        if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], str):
            workspace, text = source
            ref = resolve(workspace, text)
            name, origin = name or ref.name, f"dataset:{ref.name}@{ref.version}"
            columns = [f.name for f in workspace.tables.schema(ref.name, ref.version) if f.name not in _SYSTEM]
            source = workspace.tables.batches(ref.name, ref.version, columns=columns)
            declared = next((table for table in workspace.definitions.of(Table) if table.name == ref.name), None)
        with open_batch(source, staging=staging) as batch:
            yield _typed_rows(batch, staging, name, origin, declared)


def _typed_rows(
    batch: Batch, staging: Path, name: str | None, origin: str | None = None, declared: Table | None = None
) -> ProfiledRows:
    inferred = _infer(batch) if declared is None else {}
    zoneless = tuple(f.name for f in batch.schema if pa.types.is_timestamp(f.type) and f.type.tz is None)
    types = inferred | dict.fromkeys(zoneless, "time(UTC)")
    typed = type_batch(batch, Table("profiled", columns=types), staging=staging)
    words = {field.name: types.get(field.name, column_word(field.type)) for field in typed.schema}
    types = {column: word for column, word in words.items() if column in types or word in (*_PATTERNS, "string")}
    if declared is not None:
        types |= {column: word for column, word in declared.columns.items() if column in types}
    return ProfiledRows(name or _name_of(batch.origin), origin or batch.origin, batch, typed, staging, types,
                tuple(inferred), zoneless)  # fmt: skip


def _name_of(origin: str) -> str:
    """Name of a table for a file's name; "rows" for what has none."""
    stem = Path(origin.split(",", maxsplit=1)[0]).name.split(".")[0].lower()
    name = "".join(letter if letter.isalnum() else "_" for letter in stem).strip("_")
    return name if name[:1].isalpha() and name not in ("memory", "stdin", "sql") else "rows"


def _infer(batch: Batch) -> dict[str, str]:
    """Types of text columns all of whose values read as one; a column without values stays text."""
    words = {field.name: list(_PATTERNS) for field in batch.schema if column_word(field.type) == "string"}
    seen: set[str] = set()
    for rows in batch.batches():
        for name in [name for name, possible in words.items() if possible]:
            values = pl.Series(name, rows.column(name)).drop_nulls().unique()
            if len(values):
                seen.add(name)
                words[name] = [word for word in words[name] if _reads_as(values, word)]
    return {name: possible[0] for name, possible in words.items() if possible and name in seen}


def _reads_as(values: pl.Series, word: str) -> bool:
    """Whether every text is of a type: by its form and, since the thirtieth of February has one, by the calendar."""
    if not values.str.contains(_PATTERNS[word]).all():
        return False
    if word not in ("date", "time"):
        return True
    return values.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).null_count() == 0
