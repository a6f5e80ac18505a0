"""What both twins of the record store do alike: blocks of work, the queue of writers, and the growth of tables.

A room declares its tables and never changes them but by adding: a table, an index, a column with a default of the
server. So what a former version of the package made is brought up to date by looking what is missing, in one
transaction and for both twins. Scripts of migration were rejected as long as that is so: they would have to be kept
for two databases, and a project could be at a version of its scripts that no package has.
"""

from __future__ import annotations

import os
import re
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateIndex

from retrodict.core.errors import BusyError, IntegrityError, InternalError, RetrodictError
from retrodict.stores._ownership import check_usable
from retrodict.stores.records.base import RecordStore


class SqlRecords(RecordStore):
    """Base of the twins: two engines, one whose connections may write, one whose connections cannot.

    A twin gives ``_write_engine`` and ``_read_engine``, the two queries on what there is, and its errors.
    """

    _COLUMNS: str
    """Query of (table, column)."""
    _INDEXES: str
    """Query of the names of indexes."""

    _write_engine: Engine
    _read_engine: Engine

    def __init__(self, where: str, timeout_s: float) -> None:
        self._where, self._timeout_s, self._pid = where, timeout_s, os.getpid()
        self._writing = threading.Lock()
        self._writer: int | None = None
        self._open = True
        self._known: dict[str, sa.Table] = {}  # tables of the rooms, as this twin makes them
        self._present: set[str] = set()  # those that must be there, since a room began to work with them

    def ensure(self, metadata: MetaData) -> None:
        present = self._know(metadata)
        with self.read() as connection:
            absent = self._absent(connection, metadata)
        if any(absent):
            with self.write() as connection:
                tables, columns, indexes = self._absent(connection, metadata)
                self._form(metadata).create_all(connection)
                for column in columns:  # its rows get the default
                    definition = CreateColumn(column).compile(dialect=connection.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")
                for index in indexes:
                    if index.table not in tables:
                        index.create(connection)
        self._present |= present

    def _know(self, metadata: MetaData) -> set[str]:
        tables = self._form(metadata).tables
        self._known.update(tables)
        return {*tables}

    def faults(self, schema: Iterable[MetaData] | None = None) -> list[str]:
        for metadata in schema or ():
            self._know(metadata)
        with self.read() as connection:
            differences = self._differences(connection, every=schema is not None)
            return [*self._damage(connection), *differences]

    @abstractmethod
    def _damage(self, connection: Connection) -> list[str]:
        """What is wrong with pages, indexes and the like, in words."""

    @abstractmethod
    def _definitions(self, connection: Connection) -> Iterable[tuple[str, str, str]]:
        """(table, title, text) of what there is: tables with an empty text, columns, constraints, indexes."""

    @abstractmethod
    def _expected(self, table: sa.Table) -> dict[str, str]:
        """Texts by title of what a table of ours consists of."""

    def _differences(self, connection: Connection, *, every: bool) -> list[str]:
        """What is not as the rooms declare it, in words; ``every``: also what stands beside their tables."""
        stored: dict[str, dict[str, str]] = {}
        for name, title, text in self._definitions(connection):
            stored.setdefault(name, {})[title] = text
        faults, declared = [], self._known
        for name in sorted({*declared, *stored} if every else declared):
            titles = stored.get(name, {})
            ours = self._expected(declared[name]) if name in declared else {}
            if not ours or f"table {name}" not in titles:
                faults += [f"{title} is none of ours" for title, text in titles.items() if not text]
                faults += [f"table {name} is missing"] if name in self._present else []
                continue
            for title in sorted({*titles, *ours}):
                got, want = titles.get(title), ours.get(title)
                if want is None:
                    faults.append(f"{title} of table {name} is none of ours")
                elif got is None:
                    faults.append(f"{title} of table {name} is missing")
                elif got != want:
                    faults.append(f"{title} of table {name} must be {want!r}, not {got[:200]!r}")
        return faults

    def _form(self, metadata: MetaData) -> MetaData:
        """Tables as this twin makes them."""
        return metadata

    def _absent(
        self, connection: Connection, metadata: MetaData
    ) -> tuple[list[sa.Table], list[sa.Column[object]], list[sa.Index]]:
        """Tables, columns with a default and indexes that are not there, as this twin makes them."""
        columns = {tuple(row) for row in connection.exec_driver_sql(self._COLUMNS)}
        indexes, present = set(connection.exec_driver_sql(self._INDEXES).scalars()), {name for name, _ in columns}
        tables = list(self._form(metadata).tables.values())
        return (
            [table for table in tables if table.name not in present],
            [column for table in tables if table.name in present for column in table.columns
             if column.server_default is not None and (table.name, column.name) not in columns],
            [index for table in tables for index in table.indexes if index.name not in indexes],
        )  # fmt: skip

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self._check_usable()
        with self._turn(), self._translating(), self._transaction(self._write_engine) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self._check_usable()
        with self._translating(), self._transaction(self._read_engine) as connection:
            yield connection

    def _transaction(self, engine: Engine) -> AbstractContextManager[Connection]:
        return engine.begin()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Threads of this object queue here: fairer than the database's waiting, and a nested block is found out."""
        me = threading.get_ident()
        if self._writer == me:
            raise InternalError(
                "write() blocks must not nest",
                where=self._where,
                remedy="Hand the connection on",
                got="a block inside another",
            )
        if not self._writing.acquire(timeout=self._timeout_s):
            raise self._busy("another thread of this process")
        try:
            self._writer = me
            yield
        finally:
            self._writer = None
            self._writing.release()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Our errors for the database's; what failed over tables of another form says so, whatever it was.

        A constraint that is broken in tables as we made them, or a fault in our own code, passes as it is.
        """
        try:
            yield
        except Exception as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(error, RetrodictError) or cause is None:
                raise
            ours = self._translated(cause) or self._of_another_form()
            if ours is None:
                raise
            raise ours from error

    @abstractmethod
    def _translated(self, error: BaseException) -> RetrodictError | None:
        """Our error for one of the driver; None where it says nothing of the store, or is none of the driver's."""

    def _of_another_form(self) -> IntegrityError | None:
        """Error that names how tables differ from what their rooms declare; None where they do not."""
        try:
            with self._read_engine.begin() as connection:
                faults = self._differences(connection, every=False)
        except Exception:  # noqa: BLE001  # it cannot be read, or is not open yet: what failed first is raised
            return None
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        return IntegrityError(
            "the tables of the records must be as this package made them", where=self._where,
            got=f"{faults[0]}{more}", remedy="See 'retrodict audit verify'; undo the change, or restore a backup",
        ) if faults else None  # fmt: skip

    def _busy(self, holder: str) -> BusyError:
        return BusyError(
            f"there must be one write() block at a time, and the wait of {self._timeout_s:g} s is over",
            where=self._where,
            got=holder,
            remedy="Try again; keep write() blocks short",
        )

    def _check_usable(self) -> None:
        check_usable("a record store", where=self._where, owner=self._pid, closed=not self._open)


def plain(text: str) -> str:
    """SQL on one line, without quotes around names."""
    return re.sub(r" ?([(,]) ?| (?=\))", r"\1", " ".join(text.replace('"', "").split()))


def index_texts(table: sa.Table, engine: Engine) -> dict[str, str]:
    """Texts by title of the indexes of a table."""
    return {f"index {index.name}": plain(str(CreateIndex(index).compile(engine))) for index in table.indexes}
