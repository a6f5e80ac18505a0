"""Rows of other rooms' tables that entries vouch for: their digests, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table, bindparam, column, select
from sqlalchemy import table as named_table

from retrodict.core.errors import IntegrityError
from retrodict.core.identity import canonical_json, digest

__all__ = ["foreign_row", "read_rows", "row_digest", "rows_digest"]


def read_rows(
    connection: Connection, table: str, key: Mapping[str, Any], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Named columns of the rows of a table with these values."""
    query = _rows_of(table, tuple(key), tuple(columns))
    return [dict(row) for row in connection.execute(query, {f"key_{name}": v for name, v in key.items()}).mappings()]


@lru_cache(maxsize=200)
def _rows_of(table: str, key: tuple[str, ...], columns: tuple[str, ...]) -> Any:
    """Made once: SQLAlchemy takes longer to make a statement than the database to execute it."""
    query: Any = select(*(column(name) for name in columns)).select_from(named_table(table))
    for name in key:
        query = query.where(column(name) == bindparam(f"key_{name}"))
    return query


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of rows of plain values, in whatever order."""
    return digest(b"\n".join(sorted(canonical_json(dict(row)) for row in rows)))


def row_digest(columns: Sequence[str], row: Mapping[str, Any]) -> str:
    """SHA-256 of the named columns of a row of plain values."""
    return digest(canonical_json({name: row[name] for name in columns}))


def foreign_row(table: Table, got: str) -> IntegrityError:
    """Return the error of a row that no entry vouches for, or that is missing."""
    return IntegrityError(
        "what is read of the registry must be what entries of the ledger vouch for",
        where=f"table {table.name} of the records",
        got=got,
        remedy="See 'retrodict audit verify', and restore the records from a backup",
    )
