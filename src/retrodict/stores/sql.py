"""SQL over Arrow tables, in process, by DuckDB: one place that knows how to open it.

The engine is loaded by the first query, a seventh of a second that not every command needs. Every query gets a
connection of its own: no state leaks from one to the next, and threads do not share a cursor.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

__all__ = ["connect_duckdb", "query", "quote", "quote_text"]


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
