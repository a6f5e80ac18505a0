"""What the embedded records do beyond their contract: settings of the file, damage, full disks."""

import sqlite3

import pytest
import sqlalchemy as sa

from retrodict.core.errors import IntegrityError, InternalError
from retrodict.stores.records.sqlite import SqliteRecords

META = sa.MetaData()
NOTES = sa.Table("notes", META, sa.Column("text", sa.String))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.db"


def test_every_commit_is_synced_and_keys_are_checked(path):
    """Write-ahead log, full sync and foreign keys hold on connections of both kinds."""
    records = SqliteRecords(path)
    for block in (records.write, records.read):
        with block() as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        assert found == ["wal", 2, 1]
    records.close()


@pytest.mark.parametrize("content", [b"not a database" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_on_opening(path, content):
    """The message names the file, and the file is left as it is."""
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="must be an intact record store"):
        SqliteRecords(path)
    assert path.read_bytes() == content


def test_damage_inside_is_found_when_it_is_read(path):
    """A page of noise in the middle becomes an IntegrityError of ours."""
    records = SqliteRecords(path)
    records.ensure(META)
    with records.write() as change:
        change.execute(NOTES.insert(), [{"text": "x" * 500} for _ in range(200)])
    records.close()
    content = bytearray(path.read_bytes())
    content[4096:-4096] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)
    damaged = SqliteRecords(path)
    with pytest.raises(IntegrityError, match="damaged"), damaged.read() as state:
        state.execute(sa.select(sa.func.sum(sa.func.length(NOTES.c.text)))).all()
    damaged.close()


def test_a_mistake_in_sql_comes_through(path):
    """Errors that say nothing of the store are left to the caller."""
    records = SqliteRecords(path)
    with pytest.raises(sa.exc.OperationalError, match="no such table"), records.read() as state:
        state.execute(sa.text("SELECT * FROM absent"))
    records.close()


def test_thirty_readers_at_once_do_not_wait_for_one_another(path):
    """Read blocks that are all open at the same time each have their connection."""
    records = SqliteRecords(path)
    records.ensure(META)
    blocks = [records.read() for _ in range(30)]
    assert [block.__enter__().execute(sa.select(NOTES)).all() for block in blocks] == [[]] * 30
    for block in blocks:
        block.__exit__(None, None, None)
    records.close()


def test_the_file_is_plain_sqlite(path):
    """Any SQLite tool reads it, also while the store is open."""
    records = SqliteRecords(path)
    records.ensure(META)
    with records.write() as change:
        change.execute(NOTES.insert().values(text="a"))
    other = sqlite3.connect(path)
    assert other.execute("SELECT text FROM notes").fetchall() == [("a",)]
    other.close()
    records.close()


def test_a_closed_store_keeps_no_connection(path):
    """After close the file can be moved away and a new store begins empty."""
    records = SqliteRecords(path)
    records.ensure(META)
    records.close()
    path.rename(path.with_name("moved.db"))
    with pytest.raises(InternalError, match="closed"):
        records.change_counter()
    fresh = SqliteRecords(path)
    with fresh.read() as state:
        assert sa.inspect(state).get_table_names() == []
    fresh.close()
