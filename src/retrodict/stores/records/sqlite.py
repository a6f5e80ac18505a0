"""Records in one SQLite file: the embedded twin of a database server.

Write-ahead logging lets readers go on beside the writer; ``synchronous=FULL`` makes every commit durable; ``BEGIN
IMMEDIATE`` takes the write lock with the first statement, so that read, decide, write is one step. Two engines: one
whose connections may write, one whose connections cannot.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.schema import CreateTable

from retrodict.core.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    RetrodictError,
    RetryableError,
)
from retrodict.stores._durable import make_folder
from retrodict.stores.records._transactions import SqlRecords, index_texts, plain

__all__ = ["SqliteRecords"]

_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_NAMED = "name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"  # what SQLite makes itself, for a constraint or by ANALYZE, is not
_WORDS = re.compile(r"""'(?:[^']|'')*'|[^\s(),']+|\S""")
_FIX_STATE = "SELECT 1 FROM sqlite_master LIMIT 1"  # SQLite fixes the state at the first read, not at BEGIN


class SqliteRecords(SqlRecords):
    """Embedded twin of :class:`~retrodict.stores.records.base.RecordStore`.

    Parameters
    ----------
    path : Path
        The database file; it and its folder are made if needed.
    timeout_s : float, default 30
        How long a writer waits for the one before it, in seconds.

    Raises
    ------
    IntegrityError
        If the file is damaged or no SQLite database.

    Examples
    --------
    >>> import tempfile
    >>> records = SqliteRecords(Path(tempfile.mkdtemp()) / "records.db")
    >>> notes = sa.Table("notes", sa.MetaData(), sa.Column("text", sa.String))
    >>> records.ensure(notes.metadata)
    >>> with records.write() as change:
    ...     _ = change.execute(notes.insert().values(text="kept"))
    >>> with records.read() as state:
    ...     state.execute(sa.select(notes.c.text)).scalar()
    'kept'
    >>> records.close()
    """

    _COLUMNS = "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'"
    _INDEXES = "SELECT name FROM sqlite_master WHERE type = 'index'"

    def __init__(self, path: Path, *, timeout_s: float = 30.0) -> None:
        self._path = Path(path)
        super().__init__(f"records {self._path.name}", timeout_s)
        self._watching = threading.Lock()
        self._address = Path(os.path.realpath(self._path)).as_uri()  # which a link to itself does not end
        # What lies on a read-only disk, or belongs to somebody else, can be read and audited.
        self._read_only = self._path.exists() and not all(
            os.access(p, os.W_OK) for p in (self._path.parent, self._path)
        )
        make_folder(self._path.parent)
        self._empty: dict[str, str] = {}
        self._watch = self._prepare()
        self._write_engine = self._engine("BEGIN IMMEDIATE", pool_size=1)
        self._read_engine = self._engine("BEGIN", _FIX_STATE, pool_size=5, query_only=True)

    # the contract -------------------------------------------------------------------------------------------

    def ensure(self, metadata: MetaData) -> None:
        if not self._read_only:
            super().ensure(metadata)
            return
        with self.read() as connection:
            tables, columns, _ = self._absent(connection, metadata)
        if columns:
            raise self._unwritable()
        self._know(metadata)
        self._empty |= {table.name: str(CreateTable(table).compile(self._read_engine)) for table in tables}
        self._read_engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        if self._read_only:
            raise self._unwritable()
        with super().write() as connection:
            yield connection

    def change_counter(self) -> int:
        self._check_usable()
        with self._watching, self._translating():
            # On a connection that never writes: commits of this object, of this process and of others all change it.
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        if self._open and os.getpid() == self._pid:
            self._open = False
            self._read_engine.dispose()
            self._write_engine.dispose()
            with self._watching:
                self._watch.close()

    # below --------------------------------------------------------------------------------------------------

    def _damage(self, connection: Connection) -> list[str]:
        # An index that does not hold every row would answer for its table.
        rows = connection.exec_driver_sql("PRAGMA integrity_check(5)").scalars().all()
        return [text for text in rows if text != "ok"]

    def _definitions(self, connection: Connection) -> Iterator[tuple[str, str, str]]:
        query = f"SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND {_NAMED}"
        for kind, name, table, text in connection.exec_driver_sql(query):
            if kind == "table":
                yield from ((table, title, part) for title, part in _parts(name, text).items())
            else:
                yield table, f"{kind} {name}", "" if kind == "view" else plain(text)

    def _expected(self, table: sa.Table) -> dict[str, str]:
        parts = _parts(table.name, str(CreateTable(table).compile(self._read_engine)))
        return parts | index_texts(table, self._read_engine)

    def _prepare(self) -> sqlite3.Connection:
        """Open the watching connection, and make the file a write-ahead one if it is not yet."""
        if self._read_only:
            self._address += self._read_only_mode()
        with self._translating():
            connection = self._connect()
        try:
            with self._translating():
                if not self._read_only:
                    self._make_write_ahead(connection)
                connection.execute("PRAGMA query_only = ON")
                connection.execute("PRAGMA data_version").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, mode: str = "") -> sqlite3.Connection:
        address, wait = f"{self._address}{mode}", self._timeout_s
        # Without a level of isolation of its own: the driver would begin late, and never IMMEDIATE.
        return sqlite3.connect(address, uri=True, timeout=wait, isolation_level=None, check_same_thread=False)

    def _read_only_mode(self) -> str:
        """How to open what cannot be written: with the files of those who write beside us, or, if nobody does, alone.

        Of a file that nobody has open SQLite asks to make those files, or to be told that it does not change.
        """
        try:
            with closing(self._connect("?mode=ro")) as connection:
                connection.execute(_FIX_STATE)
            return "?mode=ro"
        except sqlite3.OperationalError:
            log = self._path.with_name(f"{self._path.name}-wal")
            if log.exists() and log.stat().st_size:  # changes that are in that file alone would be passed over
                raise ConfigurationError(
                    "the record store must be closed, or its folder writable",
                    where=self._where,
                    got=f"a read-only folder with {log.name} in it",
                    remedy="Copy the project's folder to where you can write, and work there",
                ) from None
            return "?mode=ro&immutable=1"

    def _make_write_ahead(self, connection: sqlite3.Connection) -> None:
        # Changing the mode needs the file alone and does not wait for it: processes that start together try in turn.
        end = time.monotonic() + self._timeout_s
        while True:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if _code(error) not in _BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise ConfigurationError(
                    "the disk of the record store must allow write-ahead logging",
                    where=self._where,
                    got=mode,
                    remedy="Put the file on a local disk",
                )
            return

    def _engine(self, *begin: str, pool_size: int, query_only: bool = False) -> Engine:
        engine = sa.create_engine(
            "sqlite://", creator=self._connect, poolclass=sa.pool.QueuePool, pool_size=pool_size, max_overflow=-1
        )

        @sa.event.listens_for(engine, "connect")
        def _set_up(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            for statement in self._empty.values():
                connection.execute(statement.replace("CREATE TABLE", "CREATE TEMPORARY TABLE", 1))
            if query_only:
                connection.execute("PRAGMA query_only = ON")

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # Straight to the driver: SQLAlchemy's own path would double the cost of an empty block.
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            for statement in begin:
                driver.execute(statement).fetchall()

        return engine

    def _unwritable(self) -> ConfigurationError:
        return ConfigurationError("the folder of the project must be writable", where=self._where,
                                  got="a read-only one", remedy="Make it writable, or work in a copy")  # fmt: skip

    def _translated(self, error: BaseException) -> RetrodictError | None:
        code = _code(error)
        if code in _BUSY:
            return self._busy("another connection, most likely of another process")
        if code in _DAMAGED:
            return IntegrityError(
                "the file must be an intact record store",
                where=self._where,
                remedy="Restore it from a copy",
                got="a damaged file, or one of another kind",
            )
        if code in _DISK:
            return RetryableError(
                "the disk must take the change; nothing of it is stored",
                where=self._where,
                remedy="Free space on the disk or repair it, then try again",
                got="an error of the disk",
            )
        if code == sqlite3.SQLITE_READONLY:
            return InputError(
                "a read() block must change nothing", where=self._where, remedy="Use write()", got="a change"
            )
        if code == sqlite3.SQLITE_CANTOPEN:
            return ConfigurationError(
                "the file of the record store must be one that can be opened",
                where=self._where,
                got=str(self._path),
                remedy="Check that its folder exists and may be written",
            )
        return None


def _parts(name: str, text: str) -> dict[str, str]:
    """Definitions in the text of a CREATE TABLE by title, in whatever order: a column that came later stands last."""
    parts: list[list[str]] = [[]]
    depth = 0
    for word in _WORDS.findall(text):
        depth += (word == "(") - (word == ")")
        if (depth, word) in ((1, "("), (1, ","), (0, ")")):
            parts.append([])
        else:
            parts[-1].append(word)
    _, *definitions = (plain(" ".join(part)) for part in parts)
    return {f"table {name}": ""} | {_title(part): part for part in definitions if part}


def _title(part: str) -> str:
    first = part.partition(" ")[0]
    constraint = first.partition("(")[0] in ("CHECK", "CONSTRAINT", "FOREIGN", "PRIMARY", "UNIQUE", "STRICT", "WITHOUT")
    return "PRIMARY KEY" if part.startswith("PRIMARY KEY") else part if constraint else f"column {first}"


def _code(error: BaseException | None) -> int:
    """Primary result code of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
