"""Rows of SQL queries: streamed, typed by their values, from real databases; no password anywhere."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.stores.postgres_server import PASSWORD, PostgresServer

from retrodict.core.errors import ConfigurationError, InputError
from retrodict.data.readers import SqlQuery, open_batch
from retrodict.data.readers.sql import _typed

ESCAPED = "hunter2%25%2F%40"


@pytest.fixture
def shop(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE sales (id INTEGER, amount REAL, note TEXT, raw BLOB, mixed)")
        rows = [(i, i / 4, f"n{i}" if i % 3 else None, b"\xff", i if i < 9000 else "Jane4711") for i in range(20_000)]
        connection.executemany("INSERT INTO sales VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    return f"sqlite:///{tmp_path}/shop.db"


def test_a_query_is_read_in_both_forms(shop: str, tmp_path: Path) -> None:
    """The order of the query, over several fetches; the same values have the same id."""
    sql = "SELECT id, amount, note, raw, NULL AS empty FROM sales WHERE ':a' = ':a' ORDER BY id DESC"
    with open_batch(SqlQuery(shop, sql), staging=tmp_path / "s") as batch:
        assert (batch.origin, batch.num_rows) == ("sql", 20_000)
        assert batch.schema.types == [pa.int64(), pa.float64(), pa.string(), pa.binary(), pa.null()]
        assert batch.rows.column("id").to_pylist() == list(range(19_999, -1, -1))
        assert batch.rows.slice(19_998).to_pylist()[0] == {
            "id": 1, "amount": 0.25, "note": "n1", "raw": b"\xff", "empty": None,
        }  # fmt: skip
        with open_batch(f"sql:{shop} {sql}", staging=tmp_path / "s") as again:
            assert again.id == batch.id
        with open_batch(f"sql:{shop} {sql} LIMIT 9", staging=tmp_path / "s") as other:
            assert other.id != batch.id


def test_kinds_widen_over_fetches(shop: str, tmp_path: Path) -> None:
    """Nulls, then whole numbers, then fractions."""
    sql = "SELECT CASE WHEN id < 9000 THEN NULL WHEN id < 18000 THEN id ELSE amount END AS x FROM sales ORDER BY id"
    with open_batch(SqlQuery(shop, sql), staging=tmp_path / "s") as batch:
        assert batch.schema.field("x").type == pa.float64()
        assert batch.rows.column("x").to_pylist()[8999:9001] == [None, 9000.0]
        assert batch.rows.column("x").to_pylist()[-1] == 19_999 / 4


def test_a_query_changes_nothing(shop: str, tmp_path: Path) -> None:
    """Neither by a statement that is none, nor by making the database that is missing."""
    with pytest.raises(
        InputError, match=r"sql, sqlite shop\.db: the database must be reachable, and the query must run"
    ):
        read(SqlQuery(shop, "DELETE FROM sales RETURNING id"), tmp_path)
    with pytest.raises(InputError, match=r"the database file must exist; got '.*none\.db'"):
        read(SqlQuery(f"sqlite:///{tmp_path}/none.db", "SELECT 1"), tmp_path)
    assert not (tmp_path / "none.db").exists()
    assert read(SqlQuery(shop, "SELECT count(*) AS n FROM sales"), tmp_path) == [{"n": 20_000}]


BAD = {
    "kinds": ("SELECT mixed FROM sales ORDER BY id", r"column 'mixed': .* one kind; got \['int', 'str'\]\. CAST the"),
    "names": ("SELECT id, amount AS id FROM sales", r"every column must have a name of its own; got \['id'\]"),
    "syntax": ("SELECT Jane4711", r"the query must run to its end; got 'OperationalError'"),
    "no rows": ("PRAGMA user_version = 7", r"(a query must give rows|the query must run to its end)"),
    "encoding": ("SELECT CAST(raw AS TEXT) AS t FROM sales", r"(run to its end|must be UTF-8)"),
}


@pytest.mark.parametrize("case", BAD)
def test_queries_that_are_refused(case: str, shop: str, tmp_path: Path) -> None:
    """By database and column, with no value."""
    sql, said = BAD[case]
    with pytest.raises(InputError, match=said) as caught:
        read(SqlQuery(shop, sql), tmp_path)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("text", ["sql:", "sql:SELECT 1", "sql:sqlite:///a.db", "sql:sqlite:///a.db  "])
def test_a_text_that_is_no_query(text: str, tmp_path: Path) -> None:
    """With an example; the text is not repeated, since it may hold a password."""
    with pytest.raises(InputError, match=r"a query in text must read 'sql:URL SELECT …'\. Quote it"):
        read(text, tmp_path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"nosuch://ann:{ESCAPED}@h/d", "a database that SQLAlchemy knows"),
        (f"mysql+nosuch://ann:{ESCAPED}@h/d", "a database that SQLAlchemy knows"),
        (
            f"oracle+cx_oracle://ann:{ESCAPED}@h/d",
            r"the driver .* must be installed; .*pip install cx_Oracle",
        ),
        ("postgresql+psycopg://ann:${NO_SUCH_VARIABLE}@h/d", "a variable .* must be set; got 'NO_SUCH_VARIABLE'"),
        ("no url", "must be a SQLAlchemy URL"),
    ],
)
def test_urls_that_lead_nowhere(url: str, said: str, tmp_path: Path) -> None:
    """Without the password, in the message, its causes and the query itself."""
    query = SqlQuery(url, "SELECT 1")
    with pytest.raises(ConfigurationError, match=said) as caught:
        read(query, tmp_path)
    assert "hunter2" not in repr(query) + everything(caught.value)


def read(source: Any, folder: Path) -> list[dict[str, Any]]:
    with open_batch(source, staging=folder / "s") as batch:
        return batch.rows.to_pylist()


def everything(error: BaseException) -> str:
    """What a traceback shows."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return str(error) + (everything(cause) if cause else "")


# PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of this module on a free port, which asks for a password."""
    pytest.importorskip("psycopg")
    server = PostgresServer("fsync=off")
    yield server.url("postgres").replace("postgresql:", "postgresql+psycopg:")
    server.close()


@pytest.fixture
def server(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PG_TEST_PASSWORD", PASSWORD)
    return postgres


def test_values_of_postgresql_keep_their_types(server: str, tmp_path: Path) -> None:
    """Instants in UTC, times without a zone as they are, decimals exact; a percent sign is one."""
    sql = (
        "SELECT 5::smallint AS i, 1.5::float8 AS f, 12.30::numeric AS d, '2024-03-31T02:30+02'::timestamptz AS t, "
        "'2024-03-31T02:30'::timestamp AS local, '2024-03-31'::date AS day, 'a%sb' AS s, '\\xff'::bytea AS raw, "
        "true AS b, NULL::int AS nothing, 'c0ffee00-0000-0000-0000-000000000000'::uuid AS u, ARRAY[1, 2] AS l"
    )
    (row,) = read(SqlQuery(server, sql), tmp_path)
    assert row == {
        "i": 5, "f": 1.5, "d": Decimal("12.30"), "t": dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC),
        "local": dt.datetime.fromisoformat("2024-03-31T02:30"),
        "day": dt.date(2024, 3, 31), "s": "a%sb", "raw": b"\xff",
        "b": True, "nothing": None, "u": "c0ffee00-0000-0000-0000-000000000000", "l": [1, 2],
    }  # fmt: skip


def test_instants_come_in_utc_whatever_the_session(server: str, tmp_path: Path) -> None:
    """And not as instants of the zone in which the server is."""
    url = f"{server}?options=-c%20TimeZone%3DEurope/Berlin"
    with open_batch(SqlQuery(url, "SELECT '2024-07-01T00:00Z'::timestamptz AS t"), staging=tmp_path / "s") as batch:
        assert batch.schema.field("t").type == pa.timestamp("us", "UTC")
        assert batch.rows.column("t")[0].as_py() == dt.datetime(2024, 7, 1, tzinfo=dt.UTC)


INSTANT = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "other",
    [INSTANT.replace(tzinfo=None), INSTANT.date(), "2024-07-01", dt.time(10, tzinfo=dt.UTC), b"x", Decimal(1), 1.5],
)
def test_values_of_several_kinds_are_not_one(other: Any) -> None:
    """Arrow would read a time without a zone as UTC, cut a time to its day, drop a zone, or make bytes of text."""
    first = {bytes: "x", Decimal: 1.5, float: Decimal(1)}.get(type(other), INSTANT)
    for pieces in ([[(first,), (other,)]], [[(first,)], [(other,)]], [[(other,)], [(first,)]]):
        with pytest.raises(InputError, match=r"^sql, column 'x': the values of a column must be of one kind"):
            list(_typed(["x"], iter(pieces), "sql"))


def test_a_long_result_is_fetched_through_a_cursor(server: str, tmp_path: Path) -> None:
    """More rows than the first fetch; a failure in the middle is one, and does not quote the value."""
    rows = read(SqlQuery(server, "SELECT g AS n FROM generate_series(1, 30000) g"), tmp_path)
    assert [row["n"] for row in rows] == list(range(1, 30_001))
    broken = "SELECT CASE WHEN g > 25000 THEN 'Jane4711' ELSE '1' END::int AS n FROM generate_series(1, 30000) g"
    said = r"^sql, postgresql 127\.0\.0\.1/postgres: .*InvalidText.*SQLSTATE 22P02"
    with pytest.raises(InputError, match=said) as caught:
        read(SqlQuery(server, broken), tmp_path)
    assert "Jane" not in everything(caught.value)


def test_postgresql_changes_nothing(server: str, tmp_path: Path) -> None:
    """Not even by a function that writes."""
    psycopg = pytest.importorskip("psycopg")
    plain = server.replace("+psycopg", "").replace("${PG_TEST_PASSWORD}", ESCAPED)
    with psycopg.connect(plain) as connection:
        connection.execute("CREATE SEQUENCE counter")
    with pytest.raises(InputError, match="SQLSTATE 25006"):
        read(SqlQuery(server, "SELECT nextval('counter')"), tmp_path)


@pytest.mark.parametrize("wrong", ["user", "password", "port"])
def test_a_server_that_does_not_answer(wrong: str, server: str, tmp_path: Path) -> None:
    """Who asked, and with which password, stays out of what is said."""
    user, password, port = (wrong == part for part in ("user", "password", "port"))
    url = server.replace("ann:", "bob:") if user else server
    url = url.replace("${PG_TEST_PASSWORD}", "hunter2-wrong") if password else url
    url = url.rpartition(":")[0] + ":1/postgres" if port else url
    with pytest.raises(InputError, match=r"the database must be reachable, .*OperationalError") as caught:
        read(SqlQuery(url, "SELECT 1"), tmp_path)
    assert "hunter2" not in everything(caught.value)
    assert "bob" not in everything(caught.value)
