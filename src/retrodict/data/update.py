"""Update: rows of a batch take the place of the rows that have their keys; all other rows stay as they are.

The whole version is written anew rather than marked: whoever reads, indexes or compares versions knows a replaced table
already. Only the keys of the batch, and the positions of the rows that go, are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.data._records import MODE, UPDATED
from retrodict.data.definitions import Table
from retrodict.data.evolution import SchemaChange
from retrodict.data.validation._others import rows_found_in
from retrodict.stores.tables.base import TableStore, TableVersion

__all__ = ["check_keys", "check_update", "stands", "write_batch"]


def check_keys(tables: TableStore, definition: Table) -> None:
    """Refuse rows whose keys cannot be looked up."""
    missing = sorted(set(definition.key) - set(tables.schema(definition.name).names))
    if missing:
        raise InputError(
            "the table must have the key columns of its definition",
            where=f"table {definition.name}",
            got={"missing": missing},
            remedy="Replace the table with --replace",
        )


def check_update(definition: Table, *, fill_missing: bool) -> None:
    """Refuse what has no key to go by, and rows that are not whole."""
    if not definition.key or fill_missing:
        raise InputError(
            "an update must bring whole rows" if definition.key else "a table to update must have a key",
            where=f"table {definition.name}",
            got="fill_missing, which would empty columns of rows that are there" if definition.key else "no key",
            remedy="Give the batch every column of the table" if definition.key
            else f"Declare what names a row: Table({definition.name!r}, key=...); or replace the table with --replace",
        )  # fmt: skip


def stands(version: TableVersion, live: Sequence[TableVersion]) -> bool:
    """Whether all rows of a batch are in the newest version, as they would be after updating with it once more.

    Not if a later update may have taken their place, or an append set rows aside because the table had their keys.
    """
    later = any(one.version > version.version and one.metadata.get(MODE) == "update" for one in live)
    complete = version.metadata.get(MODE) != "append" or version.metadata["retrodict.quarantined"] == "0"
    return complete and not later


def write_batch(
    tables: TableStore, definition: Table, change: SchemaChange, rows: pa.RecordBatchReader,
    keys: Iterable[pa.RecordBatch], metadata: Mapping[str, str],
) -> tuple[int, int | None]:  # fmt: skip
    """Write rows the way ``metadata`` says; the version, and how many of an update have the key of a row before.

    ``keys`` are those of ``rows``, and read only by an update.
    """
    mode, updated = metadata[MODE], None
    if mode == "update":
        rows, updated = _merge(tables, definition, change, rows, pa.Table.from_batches(keys))
        metadata = {**metadata, UPDATED: str(updated)}
    append = mode == "append"
    version = tables.write(
        definition.name, rows, mode="append" if append else "overwrite", metadata=metadata, evolve=append
    )
    return version, updated


def _merge(
    tables: TableStore, definition: Table, change: SchemaChange, rows: pa.RecordBatchReader, keys: pa.Table
) -> tuple[pa.RecordBatchReader, int]:
    """Rows of the newest version whose keys are not among ``keys``, then ``rows``; and how many ``rows`` update one."""
    import pyarrow.dataset as ds  # loads pandas where that is installed

    name, key, history = definition.name, list(definition.key), tables.history(definition.name)
    if not history:
        return rows, 0
    where, version = f"table {name}", history[-1].version
    stored = tables.dataset(name, version)
    before, batch = (
        pl.scan_pyarrow_dataset(side).select(key).with_row_index("_row") for side in (stored, ds.dataset(keys))
    )
    positions = rows_found_in(before, key, ds.dataset(keys), key, where=where)
    updated = len(rows_found_in(batch, key, stored, key, where=where))
    new_columns = SchemaChange(change.schema, filled=tuple(change.added))

    def merged() -> Iterator[pa.RecordBatch]:
        start = 0
        for chunk in tables.batches(name, version):
            stop = start + chunk.num_rows
            first, last = np.searchsorted(positions, [start, stop])
            stays = np.delete(np.arange(chunk.num_rows), positions[first:last] - start)
            if stays.size:
                yield from new_columns.fit(pa.table(chunk.take(pa.array(stays))), where=where).to_batches()
            start = stop
        yield from rows

    return pa.RecordBatchReader.from_batches(change.schema, merged()), updated
