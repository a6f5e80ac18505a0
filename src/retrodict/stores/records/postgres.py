"""Records in a schema of a PostgreSQL server: the twin for projects that several machines work on.

Writers queue at an advisory lock of the server, taken with the first statement of a block, so that read, decide, write
is one step. SERIALIZABLE was rejected: it lets two writers run and fails one of them at the end, which every room would
have to repeat. A block that reads has one state (REPEATABLE READ, READ ONLY). A row that every block of writing counts
up says whether anything was committed; what the server itself counts also moves by what was undone.

Text is kept as ``text COLLATE "C"``: compared by its bytes and of any length, as SQLite does it.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.schema import AddConstraint

from retrodict.core.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    MissingExtraError,
    RetrodictError,
    ServerAwayError,
    near,
)
from retrodict.stores._environment import with_variables
from retrodict.stores._guard import ServerGuard
from retrodict.stores.records._transactions import SqlRecords, index_texts, plain

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ModuleNotFoundError as missing:
    raise MissingExtraError("psycopg", "postgres", needed_for="records on PostgreSQL") from missing

__all__ = ["PostgresRecords"]

_OPTIONS = ("host", "schema", "sslcert", "sslkey", "sslmode", "sslrootcert")
_FORM = "Write 'postgresql://user:${PASSWORD}@host:5432/database?schema=shop'"
_CONNECT_S = 5
_BEGIN_S, _SILENT_S = 5.0, 60.0  # without a byte from the server: before a block has begun, and within one

_CHANGES = "retrodict_changes"

# Classes of SQLSTATE: no connection, too few resources, stopped by an operator, an error of the system.
_AWAY, _DAMAGED, _BUSY = {"08", "53", "57", "58"}, {"XX001", "XX002"}, {"55P03", "40P01"}

_TABLES = "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()"
_FOREIGN = f"""
SELECT 'trigger ' || t.tgname FROM pg_trigger AS t WHERE NOT t.tgisinternal AND t.tgrelid IN (SELECT c.oid {_TABLES})
UNION ALL SELECT 'view ' || c.relname {_TABLES} AND c.relkind IN ('v', 'm', 'f')
UNION ALL SELECT 'rule ' || r.rulename FROM pg_rewrite AS r
  WHERE r.rulename <> '_RETURN' AND r.ev_class IN (SELECT c.oid {_TABLES})
UNION ALL SELECT 'row security of ' || c.relname {_TABLES}
  AND (c.relrowsecurity OR c.relhassubclass OR c.relispartition)
UNION ALL SELECT 'invalid index ' || c.relname {_TABLES}
  AND c.oid IN (SELECT indexrelid FROM pg_index WHERE NOT indisvalid)
"""  # constants
_CHECKABLE = f"SELECT c.relname, i.indexrelid::bigint {_TABLES} AND c.relkind = 'i'".replace(
    " WHERE", " JOIN pg_index AS i ON i.indexrelid = c.oid WHERE", 1
)
_DEFINITIONS = f"""
WITH tables AS (SELECT c.oid, c.relname {_TABLES} AND c.relkind IN ('r', 'p') AND c.relname <> '{_CHANGES}')
SELECT relname, 'table ' || relname, '' FROM tables
UNION ALL SELECT relname, 'column ' || attname, format_type(atttypid, atttypmod)
  || coalesce(' COLLATE ' || collname, '')
  || CASE WHEN attgenerated <> '' THEN ' GENERATED' ELSE '' END || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
  || CASE WHEN pg_get_expr(adbin, adrelid) LIKE 'nextval(%%' THEN ' COUNTED' ELSE '' END
  FROM tables AS t JOIN pg_attribute ON attrelid = t.oid AND attnum > 0 AND NOT attisdropped
  LEFT JOIN pg_collation AS o ON o.oid = attcollation AND collname <> 'C'
  LEFT JOIN pg_attrdef ON adrelid = t.oid AND adnum = attnum
UNION ALL SELECT relname, CASE contype WHEN 'p' THEN 'PRIMARY KEY' ELSE '' END, pg_get_constraintdef(k.oid)
  FROM tables AS t JOIN pg_constraint AS k ON conrelid = t.oid AND contype <> 'n'
UNION ALL SELECT t.relname, 'index ' || x.relname, pg_get_indexdef(indexrelid)
  FROM tables AS t JOIN pg_index ON indrelid = t.oid JOIN pg_class AS x ON x.oid = indexrelid
  WHERE NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND conrelid = t.oid)
"""


class PostgresRecords(SqlRecords):
    """Server twin of :class:`~retrodict.stores.records.base.RecordStore` on PostgreSQL 13 or newer.

    One object may be shared by the threads of a process; it holds as many connections as blocks ran at once, and
    connects anew where the server was restarted in between. A block whose connection is lost is a ServerAwayError, and
    so is one to which the server says nothing for a minute, or for five seconds at its beginning: nothing of it is
    stored, unless it was lost at the commit, which its text says.

    Parameters
    ----------
    url : str
        ``postgresql://user:${PASSWORD}@host:5432/database``; ``${NAME}`` is taken from the environment. Options:
        ``schema`` (where the tables are, made if needed, by default ``retrodict``), ``host`` (folder of a socket), and
        those of TLS: ``sslmode``, ``sslrootcert``, ``sslcert``, ``sslkey``.
    timeout_s : float, default 30
        How long a writer waits for the one before it, in seconds.
    guard : ServerGuard, optional
        Its breaker refuses blocks while the server is away, counting those that cannot begin.

    Raises
    ------
    ConfigurationError
        If the URL cannot be read, the server refuses the user, or does not sync what it commits.
    ServerAwayError
        If the server cannot be reached.

    Examples
    --------
    >>> records = PostgresRecords("postgresql://ana@127.0.0.1/shop")  # doctest: +SKIP
    """

    _COLUMNS = f"SELECT c.relname, a.attname {_TABLES} AND c.relkind IN ('r', 'p', 'v')".replace(
        " WHERE", " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE", 1
    )
    _INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()"

    def __init__(self, url: str, *, timeout_s: float = 30.0, guard: ServerGuard | None = None) -> None:
        self._parameters, self._schema = _read_url(url)
        self._guard = guard or ServerGuard()
        super().__init__(f"records on PostgreSQL, schema {self._schema}", timeout_s)
        self._lock = int.from_bytes(hashlib.sha256(self._schema.encode()).digest()[:8], signed=True)
        self._watching = threading.Lock()
        self._committing = threading.local()
        with self._translating():
            self._watch = self._prepare()
        # Straight to the driver, each in one message to the server.
        lock = f"SELECT pg_advisory_xact_lock({self._lock}); UPDATE {_CHANGES} SET counter = counter + 1"
        self._write_engine = self._engine(lock, pool_size=1)
        self._read_engine = self._engine("SELECT 1", pool_size=5, read_only=True)

    # the contract -------------------------------------------------------------------------------------------

    def change_counter(self) -> int:
        self._check_usable()
        with self._watching, self._guard.breaker.attempt(), self._translating():
            try:
                row = self._watch.execute(f"SELECT counter FROM {_CHANGES}").fetchone()
            except psycopg.OperationalError:  # the server was restarted
                self._watch.close()
                self._watch = self._connect(autocommit=True)
                row = self._watch.execute(f"SELECT counter FROM {_CHANGES}").fetchone()
        if row is None:
            raise self._damaged(f"no row in {_CHANGES}")
        return int(row[0])

    def close(self) -> None:
        if self._open and os.getpid() == self._pid:
            self._open = False
            self._read_engine.dispose()
            self._write_engine.dispose()
            with self._watching:
                self._watch.close()

    # below --------------------------------------------------------------------------------------------------

    def _damage(self, connection: Connection) -> list[str]:
        # Whatever could answer for a table, or change what is written to it; indexes where the server can check them.
        faults = [f"{name} is none of ours" for name in connection.exec_driver_sql(_FOREIGN).scalars()]
        check = "SELECT to_regprocedure('public.bt_index_check(regclass, boolean)') IS NOT NULL"
        if connection.exec_driver_sql(check).scalar():
            for name, oid in connection.exec_driver_sql(_CHECKABLE).all():
                faults += _fault_of_index(connection, name, oid)
        return faults

    def _definitions(self, connection: Connection) -> Iterator[tuple[str, str, str]]:
        for table, title, text in connection.exec_driver_sql(_DEFINITIONS):
            short = plain(text).replace(f" ON {self._schema}.", " ON ").replace(" USING btree(", "(")
            yield table, title or short, short

    def _expected(self, table: sa.Table) -> dict[str, str]:
        parts = {f"table {table.name}": ""}
        for column in table.columns:
            kind = str(column.type.compile(self._read_engine.dialect)).lower().partition(" collate")[0]
            kind = kind.replace("float", "double precision") + ("" if column.nullable else " NOT NULL")
            counted = column is table.autoincrement_column
            parts[f"column {column.name}"] = f"{kind} COUNTED" if counted else kind
        for constraint in table.constraints:
            if isinstance(constraint, sa.PrimaryKeyConstraint) and not constraint.columns:
                continue
            text = plain(str(AddConstraint(constraint).compile(self._read_engine)).partition(" ADD ")[2])
            parts["PRIMARY KEY" if text.startswith("PRIMARY KEY") else text] = text
        return parts | index_texts(table, self._read_engine)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with ExitStack() as stack:
            # Whether the server is there shows at the beginning. What goes on within a block is not counted: it may
            # hold other blocks, which the only call of a half-open breaker must not wait for.
            with self._guard.breaker.attempt(), self._translating():
                connection = stack.enter_context(engine.begin())
            yield connection

    def _form(self, metadata: MetaData) -> MetaData:
        form = MetaData()
        for table in metadata.sorted_tables:
            for column in table.to_metadata(form).columns:
                if isinstance(column.type, sa.String):
                    column.type = sa.Text(collation="C")
        return form

    def _prepare(self) -> psycopg.Connection[Any]:
        """Open the watching connection, and make schema and counter if they are not there yet."""
        watch = self._connect(autocommit=True)
        try:
            self._check_durable(watch)
            if watch.execute("SELECT to_regclass(%s)", (f"{self._schema}.{_CHANGES}",)).fetchone() == (None,):
                with watch.transaction():
                    watch.execute(f"SELECT pg_advisory_xact_lock({self._lock})")
                    if watch.execute("SELECT to_regnamespace(%s)", (self._schema,)).fetchone() == (None,):
                        watch.execute(f"CREATE SCHEMA {self._schema}")
                    watch.execute(f"CREATE TABLE IF NOT EXISTS {_CHANGES} (counter bigint NOT NULL)")
                    watch.execute(f"INSERT INTO {_CHANGES} SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM {_CHANGES})")
        except BaseException:
            watch.close()
            raise
        return watch

    def _check_durable(self, watch: psycopg.Connection[Any]) -> None:
        if watch.execute("SHOW fsync").fetchone() != ("on",):
            raise ConfigurationError("the server of the records must sync what it commits", where=self._where,
                                     got="fsync = off", remedy="Set fsync = on")  # fmt: skip

    def _connect(self, *, autocommit: bool = False) -> psycopg.Connection[Any]:
        wait = max(1, int(self._timeout_s * 1000))
        options = f"-c search_path={self._schema} -c lock_timeout={wait} -c synchronous_commit=on"
        return _Patient.connect(**self._parameters, options=options, autocommit=autocommit, connect_timeout=_CONNECT_S,
                                client_encoding="utf-8", application_name="retrodict")  # fmt: skip

    def _engine(self, begin: str, *, pool_size: int, read_only: bool = False) -> Engine:
        engine = sa.create_engine(
            "postgresql+psycopg://", creator=self._connect, poolclass=sa.pool.QueuePool, pool_size=pool_size,
            max_overflow=-1, pool_pre_ping=True,
        )  # fmt: skip

        @sa.event.listens_for(engine, "connect")
        def _set_up(connection: psycopg.Connection[Any], _: object) -> None:
            if read_only:
                connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True

        @sa.event.listens_for(engine, "checkin")
        def _given_back(connection: Any, _: object) -> None:
            if connection is not None:  # one that is broken is gone by now
                connection.patience_s = _BEGIN_S  # for the look whether it still is one

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            driver = connection.connection.driver_connection
            assert isinstance(driver, _Patient)
            self._committing.now = False
            if not read_only:  # a writer waits for the one before it
                driver.patience_s = _SILENT_S
            driver.execute(begin.encode())
            driver.patience_s = _SILENT_S

        @sa.event.listens_for(engine, "commit")
        def _commit(_: Connection) -> None:
            self._committing.now = not read_only

        return engine

    def _translated(self, error: BaseException) -> RetrodictError | None:
        if not isinstance(error, psycopg.Error):
            return None
        state = error.sqlstate or ""
        if state in _BUSY:
            return self._busy("another connection, most likely of another process")
        if state in _DAMAGED:
            return self._damaged("damage that the server found")
        if state == "25006":
            return InputError(
                "a read() block must change nothing", where=self._where, remedy="Use write()", got="a change"
            )
        # Without a state the server did not answer, or refused the connection in words only.
        refused = not state and any(word in str(error) for word in ("authentication", "no password", "does not exist"))
        if state[:2] == "28" or state in ("3D000", "42501") or refused:
            return ConfigurationError(
                "the server of the records must admit the user, and let it make tables in the schema",
                where=self._where,
                got=f"SQLSTATE {state}" if state else "a refusal",
                remedy="Check user, password, database and rights",
            )
        if state[:2] in _AWAY or (not state and isinstance(error, psycopg.OperationalError)):
            stored = "may be stored or not" if getattr(self._committing, "now", False) else "is not stored"
            return ServerAwayError(
                f"the server of the records must answer; what was being changed {stored}",
                where=self._where,
                got=f"SQLSTATE {state}" if state else "no answer",
                remedy="Look whether the server runs and has room, then try again",
            )
        return None

    def _damaged(self, got: str) -> IntegrityError:
        return IntegrityError(
            "the schema must be an intact record store", where=self._where, remedy="Restore it from a copy", got=got
        )


class _Patient(psycopg.Connection[Any]):
    """A connection that is given up when the server says nothing for a time: libpq waits for ever."""

    patience_s = _BEGIN_S

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **values: Any) -> Any:
        """Result of what talks to the server."""
        try:
            return super().wait(_impatient(gen, self.patience_s), *args, **values)
        except _SilenceError as error:
            self.pgconn.finish()  # an answer that still came would be taken for that of the next statement
            raise psycopg.OperationalError("no answer") from error

    def __del__(self, *_: Any) -> None:
        self.pgconn.finish()  # the pool lets go of one that breaks while it is set up, and leaves it open


class _SilenceError(Exception):
    pass


def _impatient(talk: Generator[Any, Any, Any], patience_s: float) -> Generator[Any, Any, Any]:
    """What talks to the server, ended when nothing happens for so many seconds; it is told so ten times a second."""
    last, ready = time.monotonic(), None
    try:
        while True:
            ready = yield talk.send(ready)
            now = time.monotonic()
            if ready:
                last = now
            elif now - last > patience_s:
                talk.close()
                raise _SilenceError
    except StopIteration as end:
        return end.value


def _fault_of_index(connection: Connection, name: str, oid: int) -> list[str]:
    """What is wrong with an index, by the server's own check of every row of its table."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"SELECT public.bt_index_check({int(oid)}::regclass, true)")
    except sa.exc.DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        return [] if state == "42501" else [f"index {name} does not hold the rows of its table"]
    return []


def _read_url(url: str) -> tuple[dict[str, Any], str]:
    """Parameters of the connection and name of the schema; no message repeats a part of the URL."""
    where = "stores.records"
    try:
        parts = urlsplit(with_variables(url, where))
        _ = parts.port  # an error where it is no number, which libpq would take for a name
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if strange := sorted(set(options) - set(_OPTIONS)):
            # The name may be a secret that a '?' in a password cut off, so only its near names are shown.
            raise ConfigurationError(
                f"the URL of records must have the options {', '.join(_OPTIONS)} only",
                where=where,
                got=f"{len(strange)} other",
                remedy=near(strange[0], _OPTIONS, what="option"),
            )
        schema = options.pop("schema", "retrodict")
        query = urlencode(options)
        parameters = conninfo_to_dict(f"postgresql://{parts.netloc}{parts.path}{'?' if query else ''}{query}")
    except (ValueError, psycopg.Error) as error:
        if isinstance(error, RetrodictError):
            raise
        schema, parameters = "", {}
    if not re.fullmatch("[a-z_][a-z0-9_]{0,62}", schema) or not parameters.get("dbname"):
        raise ConfigurationError(
            "the URL of records must name a server, a database, and a schema of lower-case letters",
            where=where,
            got="a URL that names less or more",
            remedy=_FORM,
        ) from None
    return dict(parameters), schema
