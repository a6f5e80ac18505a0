"""How a table's columns may change from batch to batch: what is added or widened is taken, what would lose is refused.

A column that a batch lacks, or has in a narrower or other type, is not guessed to be renamed or empty: the batch is
refused with the whole difference, and the ways to do it deliberately.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
from pyarrow import types as is_

from retrodict.core.errors import InputError, near
from retrodict.stores.tables._types import cast_rows, widens

__all__ = ["SchemaChange", "merge_schemas"]


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """What a batch does to the columns of its table.

    Attributes
    ----------
    schema : pyarrow.Schema
        Columns the table will have, in its order, new ones at the end.
    added : mapping of str to str
        New columns and their types; null in earlier rows.
    widened : mapping of str to str
        Columns of a wider type, as ``"int32 to int64"``.
    filled : tuple of str
        Columns that the batch lacks and that are null in its rows.
    """

    schema: pa.Schema
    added: dict[str, str] = field(default_factory=dict)
    widened: dict[str, str] = field(default_factory=dict)
    filled: tuple[str, ...] = ()

    def fit(self, rows: pa.Table, *, where: str) -> pa.Table:
        """Rows of the batch in the columns the table will have."""
        for name in self.filled:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, self.schema.field(name).type))
        return cast_rows(rows, self.schema, where=where).combine_chunks()


def merge_schemas(table: pa.Schema, batch: pa.Schema, *, fill: bool = False, where: str) -> SchemaChange:
    """Columns of a table after a batch.

    Parameters
    ----------
    table : pyarrow.Schema
        Columns of the table there is.
    batch : pyarrow.Schema
        Columns of the batch, in types that tables keep.
    fill : bool, default False
        Whether columns that the batch lacks are null in its rows; otherwise they refuse it.
    where : str
        For the error.

    Raises
    ------
    InputError
        If a column is missing, or has a type that neither holds the other.
    """
    missing = [name for name in table.names if name not in batch.names]
    added = {f.name: str(f.type) for f in batch if f.name not in table.names}
    fields, widened, clashes = [], {}, []
    for one in table:
        if one.name in missing:
            fields.append(one)
            continue
        arrives = batch.field(one.name).type
        merged = _wider(one.type, arrives)
        if merged is None:
            clashes.append(f"{one.name} is {one.type} and arrives as {arrives}")
            continue
        if merged != one.type:
            widened[one.name] = f"{one.type} to {merged}"
        fields.append(pa.field(one.name, merged))
    if clashes or (missing and not fill):
        parts = {"missing": [] if fill else missing, "type": clashes, "added": list(added)}
        raise InputError(
            "a batch must have every column of its table, in its type or a wider one",
            where=where,
            got="; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names),
            remedy=_remedy(missing, list(added)),
        )
    fields += [pa.field(name, batch.field(name).type) for name in added]
    return SchemaChange(pa.schema(fields), added, widened, tuple(missing))


def _remedy(missing: list[str], added: list[str]) -> str:
    for name in missing:
        guess = near(name, added, what="column") if added else ""
        if guess.startswith("Did you mean"):
            return f"Give a renamed column its old name, or replace the table (--replace). {guess}"
    nulls = "leave columns null deliberately with --fill-missing; " if missing else ""
    return f"Correct the batch; {nulls}to drop, rename or narrow columns, replace the table (--replace)"


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The one of two types that holds every value of the other; None if neither does."""
    if first == second or is_.is_null(second):
        return first
    if is_.is_null(first):
        return second
    if widens(first, second):
        return second
    return first if widens(second, first) else None
