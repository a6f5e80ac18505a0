"""SQL over Arrow tables, in process, by DuckDB: one place that knows how to open it.

The engine is loaded by the first query, a seventh of a second that not every command needs. Every query gets a
connection of its own: no state leaks from one to the next, and threads do not share a cursor.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from retrodict.core.errors import ConfigurationError, RetrodictError

if TYPE_CHECKING:
    import duckdb

__all__ = ["connect_duckdb", "query", "quote", "quote_text", "sorted_rows", "spilling_duckdb"]


def connect_duckdb(**settings: Any) -> duckdb.DuckDBPyConnection:
    """Open DuckDB in memory, in UTC, with settings of its own; it shows no progress bar.

    A bar would go to standard output, into an answer. A notebook without ipywidgets has none to switch off, and says so
    by an error.
    """
    import duckdb

    connection = duckdb.connect(config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")
    return connection


@contextmanager
def spilling_duckdb(parent: Path, memory: str, **settings: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB that writes what is beyond ``memory`` into a folder of its own in ``parent``, which goes with it."""
    _sweep(parent)
    parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent)
    try:
        settings |= {"memory_limit": memory, "temp_directory": folder, "preserve_insertion_order": False}
        with connect_duckdb(**settings) as connection:
            yield connection
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what a killed process of this machine left behind."""
    for folder in parent.glob("*-*") if parent.is_dir() else ():
        pid = folder.name.partition("-")[0]
        if not pid.isdecimal():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # it runs, as somebody else's
            continue


def sorted_rows(
    rows: pa.RecordBatchReader, by: Sequence[str], folder: Path, *, size: int, skip: int = 0, memory: str = "200MB"
) -> Iterator[pa.Table]:
    """Sort any number of rows; what is beyond ``memory`` lies in ``folder`` meanwhile.

    Parameters
    ----------
    rows : pyarrow.RecordBatchReader
    by : sequence of str
        Columns to sort by, ascending, text by its bytes, nulls last. The order is the same in every call if they tell
        all rows apart.
    folder : Path
    size : int
        Most rows of one of the tables that are yielded.
    skip : int, default 0
        Rows to leave out at the beginning of the order.
    memory : str, default "200MB"

    Raises
    ------
    ConfigurationError
        If the disk is full.
    RetrodictError
        What reading the rows raises.
    """
    import duckdb

    errors: list[RetrodictError] = []
    # Names of its own: DuckDB takes "a" and "A" for one.
    columns = {name: f"c{place}" for place, name in enumerate(rows.schema.names)}
    schema = pa.schema([field.with_name(columns[field.name]) for field in rows.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in rows:
                yield batch.rename_columns(schema.names)
        except RetrodictError as error:
            errors.append(error)
            raise

    order = ", ".join(f"{columns[name]} NULLS LAST" for name in by)
    with spilling_duckdb(folder, memory, threads=2) as connection:
        connection.register("events", pa.RecordBatchReader.from_batches(schema, batches()))
        try:
            reader = connection.sql(f"SELECT * FROM events ORDER BY {order} OFFSET {skip}").to_arrow_reader(size)
            for batch in reader:
                table = pa.Table.from_batches([batch]).cast(schema).rename_columns(rows.schema.names)
                yield from (table.slice(first, size) for first in range(0, len(table), size))
        except duckdb.Error as error:
            if errors:
                raise errors[0] from None
            raise ConfigurationError(
                "rows that are sorted must fit the free space of the disk",
                where="sort",
                got=type(error).__name__,
                remedy="Free space on the disk of the project",
            ) from error


def query(sql: str, **tables: pa.Table) -> pa.Table:
    """Run one statement over named Arrow tables; times are UTC, row order is kept where SQL promises it.

    Examples
    --------
    >>> query("SELECT count(*) AS total FROM t", t=pa.table({"x": [1, 2]})).to_pylist()
    [{'total': 2}]
    """
    with connect_duckdb() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql).to_arrow_table()


def quote(name: str) -> str:
    """Return a column or table name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Return text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"
