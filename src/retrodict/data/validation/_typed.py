"""A batch with its declared types: the rows that checks see and that are stored, in the order they came.

What needs no more than another width is cast by Arrow as it passes by. Only text and the like is read by SQL; that is
done once, chunk by chunk, and kept beside the batch (in memory if it is small, in a Parquet file of the batch's staging
folder if not), because a scan and a split would otherwise read it twice. Undeclared columns never go through an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrodict.core.errors import InputError
from retrodict.core.kinds import arrow_type
from retrodict.data.definitions import Table
from retrodict.data.readers import Batch
from retrodict.data.validation._casts import Cast, cast_column
from retrodict.stores.sql import query, quote

_CHUNK = 1 << 18
_IN_MEMORY = 1 << 19  # rows


def spoiled(place: int) -> str:
    """Name of the column that says a value of the column at this place did not have its type."""
    return f"_spoiled_{place}"


@dataclass(frozen=True, slots=True)
class TypedBatch:
    """Rows as checks see them.

    Attributes
    ----------
    batch : Batch
        The rows as they came.
    casts : mapping of str to Cast
        How each column was read, in the order of the batch.
    schema : pyarrow.Schema
        Columns and types after reading, without those that say what was spoiled.
    """

    batch: Batch
    casts: Mapping[str, Cast]
    schema: pa.Schema
    _read: pa.Table | Path | None  # rows that SQL read; None: the batch itself

    @property
    def floating(self) -> frozenset[str]:
        """Columns that can hold NaN."""
        return frozenset(field.name for field in self.schema if pa.types.is_floating(field.type))

    def frame(self) -> pl.LazyFrame:
        """Rows for the scan: times as microseconds UTC, decimals as floats, and the columns of what was spoiled."""
        if isinstance(self._read, Path):
            frame = pl.scan_parquet(self._read)
        elif self._read is not None:
            frame = pl.LazyFrame(pl.from_arrow(self._read))
        elif self.batch.table is not None:
            frame = pl.LazyFrame(pl.from_arrow(self.batch.table))
        else:
            frame = pl.scan_parquet(list(self.batch.files), cache=False)
        arrives = self.batch.schema if self._read is None else self.schema
        views = [_view(field, self.schema.field(field.name).type) for field in arrives]
        if self._read is None:
            converted = [(i, name) for i, (name, cast) in enumerate(self.casts.items()) if cast.converted]
            views += [_spoiled_view(arrives.field(name), i) for i, name in converted]
        else:
            views += [pl.col(spoiled(i)) for i, cast in enumerate(self.casts.values()) if cast.spoils]
        return frame.select(views)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Rows with their types, in order, without the columns of what was spoiled."""
        names = self.schema.names
        if self._read is None:
            for chunk in self.batch.batches(_CHUNK):
                yield from _cast(pa.Table.from_batches([chunk]), self.casts).select(names).to_batches()
        elif isinstance(self._read, Path):
            with pq.ParquetFile(self._read) as file:
                for chunk in file.iter_batches(_CHUNK, columns=names):
                    yield chunk.cast(self.schema)
        else:
            yield from self._read.select(names).to_batches(_CHUNK)


def type_batch(batch: Batch, table: Table, *, staging: Path | None = None) -> TypedBatch:
    """Give a batch the types of its table.

    Parameters
    ----------
    batch : Batch
    table : Table
    staging : Path, optional
        Folder for rows that SQL had to read; None keeps them in memory.

    Raises
    ------
    InputError
        If a time has no zone, or an arriving type can never be the declared one.
    """
    casts = {field.name: cast_column(field.name, _plain(field.type), table) for field in batch.schema}
    empty = _cast(batch.schema.empty_table(), casts, table)
    schema = pa.schema([empty.schema.field(name) for name in batch.schema.names])
    if not any(cast.by_sql for cast in casts.values()) and not _has_foreign_time(batch.schema):
        return TypedBatch(batch, casts, schema, None)
    chunks = (_cast(pa.Table.from_batches([chunk]), casts, table) for chunk in batch.batches(_CHUNK))
    if staging is None or batch.num_rows <= _IN_MEMORY:
        return TypedBatch(batch, casts, schema, pa.concat_tables([empty, *chunks]))
    path = staging / "typed.parquet"
    with pq.ParquetWriter(path, empty.schema, compression="lz4", use_dictionary=False) as writer:
        for chunk in chunks:
            writer.write_table(chunk, row_group_size=_CHUNK)
    return TypedBatch(batch, casts, schema, path)


def _has_foreign_time(schema: pa.Schema) -> bool:
    """Whether a time has a zone like +05:30, or counts seconds, which the scan does not read."""
    return any(pa.types.is_timestamp(f.type) and ((f.type.tz or "U")[0] in "+-" or f.type.unit == "s") for f in schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    return _plain(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _cast(rows: pa.Table, casts: Mapping[str, Cast], table: Table | None = None) -> pa.Table:
    """Typed columns of a chunk, then the columns of what was spoiled."""
    columns: dict[str, pa.ChunkedArray] = {}
    extra: dict[str, pa.ChunkedArray] = {}
    by_sql = [name for name, cast in casts.items() if cast.by_sql]
    read = _read_by_sql(rows.select(by_sql), casts, table) if by_sql else None
    for place, (name, cast) in enumerate(casts.items()):
        if read is not None and cast.by_sql:
            columns[name] = read.column(name)
            if cast.broken is not None:
                extra[spoiled(place)] = read.column(f"?{name}")
            continue
        column = rows.column(name)
        columns[name] = column.cast(cast.target, safe=not cast.converted) if column.type != cast.target else column
        if cast.converted:  # what does not fit wraps around, and is another value when it is converted back
            exact = pc.equal(columns[name].cast(column.type, safe=False), column)
            extra[spoiled(place)] = pc.fill_null(pc.invert(exact), False)
    return pa.table(columns | extra)


def _read_by_sql(rows: pa.Table, casts: Mapping[str, Cast], table: Table | None) -> pa.Table:
    import duckdb

    parts = [f"{casts[name].value} AS {quote(name)}" for name in rows.column_names]
    parts += [f"COALESCE({casts[n].broken}, FALSE) AS {quote('?' + n)}" for n in rows.column_names if casts[n].broken]
    try:
        return query(f"SELECT {', '.join(parts)} FROM rows", rows=rows)
    except (duckdb.Error, pa.ArrowException) as error:
        # Its text can hold a value of the data: only the kind of the error is told.
        raise InputError(
            "values must be readable as the types of their table",
            got=type(error).__name__,
            where="a batch" if table is None else f"table {table.name}",
            remedy="Look at the columns whose declared type differs from the one that arrives",
        ) from None


def _view(field: pa.Field, target: pa.DataType) -> pl.Expr:
    column, kind = pl.col(field.name), _plain(field.type)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC"), strict=False)
    if pa.types.is_decimal(kind):
        return column.cast(pl.Float64)
    if field.type == target and not pa.types.is_dictionary(field.type):
        return column
    return column.cast(polars_type(target))


def polars_type(kind: pa.DataType) -> pl.DataType:
    """Type of Polars that a type of Arrow is read as."""
    return pl.Series(pa.array([], kind)).dtype


def _spoiled_view(field: pa.Field, place: int) -> pl.Expr:
    column, converted = pl.col(field.name), _view(field, arrow_type("time"))
    exact = converted.cast(pl.Datetime(_plain(field.type).unit, "UTC"), strict=False) == column
    return (column.is_not_null() & ~exact.fill_null(value=False)).alias(spoiled(place))
