"""Opens what is profiled: files, Arrow objects, frames, a batch, or a version of a project's table, with its types.

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

from retrodict.core.errors import InputError
from retrodict.core.kinds import column_word
from retrodict.data.definitions import Table
from retrodict.data.readers import Batch, open_batch
from retrodict.data.validation._typed import TypedBatch, type_batch

__all__ = ["Opened", "open_rows", "resolve_table"]

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
class Opened:
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


def resolve_table(workspace: Any, text: str) -> tuple[str, int | None]:
    """Name and version of ``table`` or ``table@version-tag-or-time``."""
    try:
        from retrodict.data.versions import resolve
    except ImportError:
        name, _, version = text.partition("@")
        if version and not version.isdigit():
            raise InputError(
                "a version of a table is a whole number", where=f"dataset:{name}", got=version,
                remedy=f"See them with: retrodict data history {name}",
            ) from None  # fmt: skip
        return name, int(version) if version else None
    found = resolve(workspace, text)
    return found.name, found.version


@contextmanager
def open_rows(source: Any, *, name: str | None = None) -> Iterator[Opened]:
    """Open what is profiled, for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="retrodict-profile-") as folder:
        staging = Path(folder)
        if isinstance(source, Batch):
            yield _opened(source, staging, name)
            return
        declared: Table | None = None
        origin = None
        if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], str):
            workspace, text = source
            table, version = resolve_table(workspace, text)
            name, origin = name or table, f"dataset:{table}" if version is None else f"dataset:{table}@{version}"
            names = [field.name for field in workspace.tables.schema(table, version) if field.name not in _SYSTEM]
            source = workspace.tables.batches(table, version, columns=names)
            declared = next((each for each in workspace.definitions.of(Table) if each.name == table), None)
        with open_batch(source, staging=staging) as batch:
            yield _opened(batch, staging, name, origin, declared)


def _opened(
    batch: Batch, staging: Path, name: str | None, origin: str | None = None, declared: Table | None = None
) -> Opened:
    inferred = _infer(batch) if declared is None else {}
    zoneless = tuple(
        field.name for field in batch.schema if pa.types.is_timestamp(field.type) and field.type.tz is None
    )
    types = inferred | dict.fromkeys(zoneless, "time(UTC)")
    typed = type_batch(batch, Table("profiled", columns=types), staging=staging)
    words = {field.name: types.get(field.name, column_word(field.type)) for field in typed.schema}
    said = {column: word for column, word in words.items() if column in types or word in (*_PATTERNS, "string")}
    if declared is not None:
        said |= {column: text for column, text in declared.columns.items() if column in said}
    return Opened(name or _name_of(batch.origin), origin or batch.origin, batch, typed, staging, said,
                  tuple(inferred), zoneless)  # fmt: skip


def _name_of(origin: str) -> str:
    stem = "".join(
        letter if letter.isalnum() else "_" for letter in Path(origin.split(",", maxsplit=1)[0]).name.split(".")[0]
    )
    lower = stem.lower().strip("_")
    return lower if lower[:1].isalpha() and lower not in ("memory", "stdin", "sql") else "rows"


def _infer(batch: Batch) -> dict[str, str]:
    """Types of text columns all of whose values read as one; a column without values stays text."""
    left = {field.name: list(_PATTERNS) for field in batch.schema if column_word(field.type) == "string"}
    seen: set[str] = set()
    for rows in batch.batches():
        for name, words in left.items():
            if not words:
                continue
            values = pl.Series(name, rows.column(name)).drop_nulls().unique()
            if len(values):
                seen.add(name)
                left[name] = [word for word in words if _reads_as(values, word)]
    return {name: words[0] for name, words in left.items() if words and name in seen}


def _reads_as(values: pl.Series, word: str) -> bool:
    """Whether every text is of a type: by its form and, since the thirtieth of February has one, by the calendar."""
    if not values.str.contains(_PATTERNS[word]).all():
        return False
    if word not in ("date", "time"):
        return True
    return values.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).null_count() == 0
