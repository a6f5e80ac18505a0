"""Rows of a SQL query, from any database that SQLAlchemy can reach; fetched a few thousand at a time.

Types are taken from the values, not from the driver's description: drivers say too little of a column (SQLite nothing
at all) and each says it in its own way. So a column without a value is null, whatever the database calls it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa

from retrodict.core.errors import ConfigurationError, InputError
from retrodict.data.readers._types import Kinds, check_names, several_kinds

__all__ = ["SqlQuery"]

_ROWS = 1 << 13  # per fetch
_CAST = "CAST the column to one type in the query"
_TEXT = "a query in text must read 'sql:URL SELECT …'"


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """A query and where it runs; nothing it does there is kept.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, for instance ``postgresql+psycopg://ann:${SHOP_PASSWORD}@db.example/shop``. ``${NAME}`` is
        taken from the environment when the query runs, and never shown.
    sql : str
        One SELECT. Name an order: without one a database may give the same rows as another batch.

    Examples
    --------
    >>> SqlQuery.parse("sql:sqlite:///shop.db SELECT * FROM sales ORDER BY id").sql
    'SELECT * FROM sales ORDER BY id'
    """

    url: str = field(repr=False)
    sql: str

    @classmethod
    def parse(cls, text: str) -> SqlQuery:
        """Read the form for command lines, ``sql:URL SELECT …``: up to the first blank it is the URL."""
        url, _, sql = text.removeprefix("sql:").strip().partition(" ")
        if not text.startswith("sql:") or "://" not in url or not sql.strip():
            raise InputError(_TEXT, where="ingest", remedy="Quote it: 'sql:sqlite:///shop.db SELECT * FROM sales'")
        return cls(url, sql.strip())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Run the query and give its rows as they are fetched; the columns of an empty result are null.

        Raises
        ------
        InputError
            If the database cannot be reached, the query fails, or a column holds values of several kinds.
        ConfigurationError
            If the URL is none, or its driver is not installed.
        """
        import sqlalchemy as sa

        engine = _engine(self.url)
        place = _place(engine.url)
        try:
            with engine.connect() as connection:
                _make_read_only(connection)
                options = {"stream_results": True, "max_row_buffer": _ROWS, "no_parameters": True}
                result = connection.exec_driver_sql(self.sql, execution_options=options)
                if not result.returns_rows:
                    raise InputError("a query must give rows", where=place, got="a statement", remedy="Write a SELECT")
                names = list(result.keys())
                check_names(names, place)
                yield from _typed(names, result.partitions(_ROWS), place)
        except sa.exc.SQLAlchemyError as error:
            raise _failed(error, place) from None  # its text may hold values, or the URL
        except UnicodeDecodeError:
            raise InputError("text in the database must be UTF-8", where=place, remedy=_CAST) from None
        except OverflowError:
            raise InputError(
                "a time in the database must lie within the years 1 to 9999", where=place, remedy=_CAST
            ) from None
        finally:
            engine.dispose()


def _engine(url: str) -> Any:
    import sqlalchemy as sa

    try:
        full = sa.make_url(re.sub(r"\$\{(\w+)\}", _from_environment, url))
        path = full.database if full.get_backend_name() == "sqlite" else None
        if path and not path.startswith((":memory:", "file:")) and not Path(path).is_file():
            # Connecting would make an empty one.
            raise InputError("the database file must exist", where="sql", got=path, remedy="Check the path in the URL")
        return sa.create_engine(full, poolclass=sa.pool.NullPool)
    except sa.exc.NoSuchModuleError:
        raise ConfigurationError(
            "the URL of a query must name a database that SQLAlchemy knows", where="sql", remedy="Install its dialect"
        ) from None
    except sa.exc.ArgumentError:
        raise ConfigurationError(
            "the URL of a query must be a SQLAlchemy URL",
            where="sql",
            remedy="Write it like postgresql+psycopg://host/name",
        ) from None
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "the driver of the database must be installed",
            where="sql",
            got=error.name,
            remedy=f"Install it with: pip install {error.name}",
        ) from None


def _from_environment(match: re.Match[str]) -> str:
    from urllib.parse import quote

    value = os.environ.get(match[1])
    if value is None:
        raise ConfigurationError(
            "a variable that the URL of a query names must be set", where="sql", got=match[1], remedy="Export it"
        )
    return quote(value, safe="")


def _place(url: Any) -> str:
    """Database of a URL for messages: neither user nor password, nor parameters, which may hold one too."""
    database = Path(url.database).name if url.get_backend_name() == "sqlite" and url.database else url.database
    return f"sql, {url.get_backend_name()} {'/'.join(part for part in (url.host, database) if part)}".rstrip()


def _make_read_only(connection: Any) -> None:
    """Ask the database to refuse changes, where it can; in any case nothing is committed."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _failed(error: Any, place: str) -> InputError:
    cause = getattr(error, "orig", None) or error
    kind, state = type(cause).__name__, getattr(cause, "sqlstate", None)
    return InputError(
        "the database must be reachable, and the query must run to its end",
        where=place,
        got=f"{kind}, SQLSTATE {state}" if state else kind,
        remedy="Try the query with a client of the database",
    )


# values -------------------------------------------------------------------------------------------------------


def _typed(names: Sequence[str], pieces: Iterator[Sequence[Any]], place: str) -> Iterator[pa.RecordBatch]:
    kinds = Kinds(place, _CAST)
    seen: dict[str, set[str]] = {name: set() for name in names}
    empty = True
    for rows in pieces:
        empty = False
        columns = {}
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            here, columns[name] = _column(values)
            seen[name] |= here
            # Arrow takes some mixtures for one kind: text and bytes, days and times, times with a zone and without.
            if len(seen[name]) > 1 and seen[name] not in ({"int", "float"}, {"int", "Decimal"}):
                raise several_kinds(place, name, got=sorted(seen[name]), remedy=_CAST)
        yield kinds.batch(columns)
    if empty:
        yield kinds.batch({name: [] for name in names})


def _column(values: Sequence[Any]) -> tuple[set[str], Sequence[Any]]:
    """Kinds of the values, and the values as Arrow takes them: instants in UTC, UUIDs as text."""
    types = set(map(type, values)) - {type(None)}
    if any(issubclass(kind, time) for kind in types) and any(getattr(value, "tzinfo", None) for value in values):
        return {"a time of day with a zone", "which Arrow has not"}, values
    kinds = {kind.__name__ for kind in types}
    if types & {bytearray, memoryview}:
        kinds = kinds - {"bytearray", "memoryview"} | {"bytes"}
    if any(issubclass(kind, datetime) for kind in types):
        zones = {value.tzinfo is not None for value in values if isinstance(value, datetime)}
        kinds |= {"a time with a zone" if zone else "a time without a zone" for zone in zones}
        kinds -= {kind.__name__ for kind in types if issubclass(kind, datetime)}
        values = [value.astimezone(UTC) if getattr(value, "tzinfo", None) else value for value in values]
    if UUID in types:
        values = [value if value is None else str(value) for value in values]
    return kinds, values
