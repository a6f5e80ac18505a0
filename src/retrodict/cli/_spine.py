"""Rows of a frame in and out of a command, a bounded number at a time: spines from files and tables, pieces to files.

A spine of CSV has no types: its columns get those of what they will be compared with, as everywhere on a command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.cli._frames import flat, typed

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features.offline.spine import Spine
    from retrodict.workspace import Workspace

__all__ = ["is_table", "open_spine", "write_pieces"]


def is_table(text: str) -> bool:
    """Whether ``--spine`` names a table of the project: ``orders``, ``orders@3``; files have a suffix, or are there."""
    if text.startswith("dataset:"):
        return True
    return text != "-" and not Path(text).suffix and not {"/", os.sep} & set(text) and not Path(text).exists()


@contextmanager
def open_spine(project: Workspace, text: str, types: Mapping[str, pa.DataType]) -> Iterator[Spine]:
    """Rows of a file or a table, to be read any number of times while the block lasts.

    Parameters
    ----------
    project : Workspace
    text : str
        A file, ``-`` for CSV from standard input, or a reference to a table.
    types : mapping of str to pyarrow.DataType
        As what columns of text are read, where the spine has them.
    """
    from retrodict.data.ingest import staging_folder
    from retrodict.data.readers import open_batch
    from retrodict.features.offline.spine import Spine, table_spine

    where = f"spine {text}"
    if is_table(text):
        spine = table_spine(project, text)
        yield replace(spine, rows=_reader(spine.rows().schema, spine.rows, types, where))
        return
    with (
        staging_folder(project) as staging,
        open_batch(text, staging=staging, format="csv" if text == "-" else None) as batch,
    ):
        rows = _reader(batch.schema, batch.batches, types, where)
        yield Spine(rows, batch.num_rows, f"batch:{batch.id}", batch.origin)
        batch.check_unchanged()


def _reader(
    schema: pa.Schema, batches: Callable[[], Iterable[pa.RecordBatch]], types: Mapping[str, pa.DataType], where: str
) -> Callable[[], pa.RecordBatchReader]:
    import pyarrow as pa

    target = typed(schema.empty_table(), types, where=where).schema.remove_metadata()

    def rows() -> Iterator[pa.RecordBatch]:
        read = 0
        for batch in batches():
            place = where if not read else f"{where}, after row {read}"
            table = typed(pa.Table.from_batches([batch]), types, where=place)
            yield from table.cast(target).to_batches()
            read += batch.num_rows

    return lambda: pa.RecordBatchReader.from_batches(target, rows())


def write_pieces(pieces: Iterable[pa.Table], path: Path) -> tuple[int, dict[str, int]]:
    """Write tables of one schema after each other; the file is whole or not there.

    Returns
    -------
    tuple of int and dict
        Rows, and nulls by column.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    rows, writer = 0, None
    nulls: dict[str, int] = {}
    try:
        for piece in pieces:
            rows += piece.num_rows
            for name, column in zip(piece.column_names, piece.columns, strict=True):
                nulls[name] = nulls.get(name, 0) + column.null_count
            shown = flat(piece) if path.suffix == ".csv" else piece
            if writer is None:
                writer = _writer(draft, path.suffix, shown.schema)
            writer.write_table(shown)
        if writer is not None:
            writer.close()
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return rows, nulls


def _writer(draft: Path, suffix: str, schema: pa.Schema) -> Any:
    if suffix == ".csv":
        from pyarrow import csv

        return csv.CSVWriter(draft, schema)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(draft, schema)
