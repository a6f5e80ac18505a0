"""SQL over Arrow tables, in process, by DuckDB: one place that knows how to open it.

The engine is loaded by the first query, a seventh of a second that not every command needs. Every query gets a
connection of its own: no state leaks from one to the next, and threads do not share a cursor.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["query", "quote", "quote_text"]


def query(sql: str, **tables: pa.Table) -> pa.Table:
    """Run one statement over named Arrow tables; times are UTC, row order is kept where SQL promises it.

    Examples
    --------
    >>> query("SELECT count(*) AS total FROM t", t=pa.table({"x": [1, 2]})).to_pylist()
    [{'total': 2}]
    """
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it would go to standard output, into an answer
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql).to_arrow_table()


def quote(name: str) -> str:
    """Return a column or table name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Return text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"
