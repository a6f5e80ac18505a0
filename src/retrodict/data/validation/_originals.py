"""Rows as they came, each as one JSON object: what a quarantine keeps."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import InputError
from retrodict.stores.sql import query, quote, quote_text


def as_json(rows: pa.Table) -> pa.ChunkedArray:
    """Each row as one JSON object; what JSON has no number for (NaN, infinities) is written as text.

    So are times since 1970 that do not fit microseconds, like ``"36028797018963968 ms"``.
    """
    import duckdb

    if rows.num_rows == 0:
        return pa.chunked_array([pa.array([], pa.string())])
    parts = []
    for place, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit in ("s", "ms"):
            try:
                rows.column(place).cast(pa.timestamp("us", field.type.tz))
            except pa.ArrowInvalid:  # one of them is further off than any clock of microseconds goes
                texts = pc.cast(pc.cast(rows.column(place), pa.int64()), pa.string())
                rows = rows.set_column(place, field.name, pc.binary_join_element_wise(texts, field.type.unit, " "))
        value = quote(field.name)
        if pa.types.is_floating(field.type):
            value = f"CASE WHEN isfinite({value}) THEN to_json({value}) ELSE to_json(CAST({value} AS VARCHAR)) END"
        parts.append(f"{quote_text(field.name)}, {value}")
    try:
        texts = query(f"SELECT CAST(json_object({', '.join(parts)}) AS VARCHAR) AS original FROM rows", rows=rows)
    except (duckdb.Error, pa.ArrowException) as error:
        raise InputError(
            "rows that are set aside must be writable as JSON",
            where="quarantine",
            got=type(error).__name__,
            remedy="Cast columns of other types before the ingest",
        ) from None
    return pc.cast(texts.column("original"), pa.string())
