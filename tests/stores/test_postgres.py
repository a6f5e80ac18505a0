"""What records on PostgreSQL do beyond their contract: outages, refusals, other hands, former versions."""

import traceback

import pytest
import sqlalchemy as sa
from tests.stores.postgres_server import PASSWORD, PostgresServer

from retrodict.core.errors import BusyError, ConfigurationError, IntegrityError, RetryableError
from retrodict.stores.records.postgres import PostgresRecords
from retrodict.stores.urls import open_records

META = sa.MetaData()
NOTES = sa.Table("notes", META, sa.Column("text", sa.String(5), primary_key=True), sa.Index("notes_text", "text"))
TRIGGER = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
INDEX = "UPDATE pg_index SET"
WRITER = """
import sys
import sqlalchemy as sa
from retrodict.stores.records.postgres import PostgresRecords

notes = sa.Table("notes", sa.MetaData(), sa.Column("text", sa.String(5)))
records = PostgresRecords(sys.argv[1])
for number in range(1000):
    with records.write() as change:
        change.execute(notes.insert().values(text=f"{sys.argv[2]}{number}"))
    print(f"{sys.argv[2]}{number}", flush=True)
"""


@pytest.fixture
def database(postgres):
    return postgres.database()


@pytest.fixture
def records(postgres, database):
    opened = PostgresRecords(postgres.url(database), timeout_s=5.0)
    opened.ensure(META)
    yield opened
    opened.close()


@pytest.fixture
def mortal(monkeypatch):
    """A server of the test's own, to be killed."""
    server = PostgresServer()
    monkeypatch.setenv("PG_TEST_PASSWORD", PASSWORD)
    yield server
    server.close()


def texts(records):
    with records.read() as state:
        return list(state.execute(sa.select(NOTES.c.text).order_by(NOTES.c.text)).scalars())


def add(records, text):
    with records.write() as change:
        change.execute(NOTES.insert().values(text=text))


def whole(error):
    """All that a traceback shows."""
    return "".join(traceback.format_exception(error))


def test_a_restart_in_between_is_not_noticed(mortal):
    """Nor by whoever only polls; what was committed is there."""
    records = PostgresRecords(mortal.url("postgres"))
    records.ensure(META)
    add(records, "a")
    counter = records.change_counter()
    mortal.kill()
    mortal.start()
    assert records.change_counter() == counter
    assert texts(records) == ["a"]
    mortal.kill()
    mortal.start()
    add(records, "b")
    assert texts(records) == ["a", "b"]
    records.close()


def test_a_server_that_is_lost_is_said_and_nothing_is_stored(mortal):
    """In the middle of a block, and at its beginning; also for a store that is opened then."""
    records = PostgresRecords(mortal.url("postgres"))
    records.ensure(META)

    def interrupted():
        with records.write() as tx:
            tx.execute(NOTES.insert().values(text="a"))
            mortal.kill()
            tx.execute(NOTES.insert().values(text="b"))

    with pytest.raises(RetryableError, match="must answer; what was being changed is not stored"):
        interrupted()
    for call in (lambda: texts(records), records.change_counter, lambda: PostgresRecords(mortal.url("postgres"))):
        with pytest.raises(RetryableError, match="must answer") as caught:
            call()
        assert PASSWORD not in whole(caught.value)
    mortal.start()
    assert texts(records) == []
    records.close()


def test_a_commit_whose_answer_is_lost_is_said_to_be_open(postgres, database, records):
    """The server ends the connection at the very end: whether it stored the change is not known here."""
    postgres.sql(
        "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'; "
        "CREATE CONSTRAINT TRIGGER away AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION away()",
        database,
    )
    with pytest.raises(RetryableError, match="may be stored or not"):
        add(records, "a")
    assert texts(records) == []


def test_writers_that_are_killed_lose_nothing_and_hold_up_nobody(postgres, database, records, start):
    """Each row that was acknowledged is there; the lock of a dead process is free."""
    writers = [start(WRITER, postgres.url(database), name) for name in "abc"]
    lines = {writer: [writer.line() for _ in range(20)] for writer in writers}
    for writer in writers:
        writer.kill()
        lines[writer] += writer.rest()
    add(records, "last")
    acknowledged = {line for rest in lines.values() for line in rest}
    assert acknowledged | {"last"} <= set(texts(records))
    assert len(texts(records)) <= len(acknowledged) + 4


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("postgresql://ann:hunter2@db/x?password=hunter3", "must have the options"),
        ("postgresql://ann:hunter2@db:hunter3/x", "must name a server"),
        ("postgresql://ann:hunter2@db", "must name a server"),
        ("postgresql://ann:hunter2@db/x?schema=Hunter3", "must name a server"),
        ("postgresql://ann:${NO_SUCH_VARIABLE}@db/x", "must be set in the environment; got 'NO_SUCH_VARIABLE'"),
        ("postgresql://ann:hunter2@[db/x", "must name a server"),
    ],
)
def test_a_url_that_names_less_or_more(url, rule, tmp_path):
    """No message repeats a part of it, and no traceback."""
    with pytest.raises(ConfigurationError, match=rule) as caught:
        open_records(url, tmp_path)
    assert "unter" not in whole(caught.value).replace(url, "")


@pytest.mark.parametrize(("secret", "place"), [("wrong-hunter", "postgres"), (None, "absent")])
def test_a_server_that_refuses(secret, place, postgres, monkeypatch):
    """A password or a database that it does not know."""
    if secret:
        monkeypatch.setenv("PG_TEST_PASSWORD", secret)
    with pytest.raises(ConfigurationError, match="must admit the user") as caught:
        PostgresRecords(postgres.url(place))
    assert (secret or PASSWORD) not in whole(caught.value)


def test_a_server_that_does_not_sync_is_refused(monkeypatch):
    """What it commits would not survive a loss of power."""
    server = PostgresServer("fsync=off")
    monkeypatch.setenv("PG_TEST_PASSWORD", PASSWORD)
    with pytest.raises(ConfigurationError, match="must sync what it commits"):
        PostgresRecords(server.url("postgres"))
    server.close()


def test_schemas_of_one_database_do_not_see_each_other(postgres, database, records):
    """Nor do their writers wait for one another."""
    other = PostgresRecords(postgres.url(database, "?schema=other_one"))
    other.ensure(META)
    with records.write() as change:
        change.execute(NOTES.insert().values(text="a"))
        add(other, "b")
    assert (texts(records), texts(other)) == (["a"], ["b"])
    other.close()


def test_text_is_compared_by_its_bytes_and_of_any_length(records):
    """As SQLite does it, whatever the language of the database."""
    names = ["a", "B", "é", "a-b", "aa", "a long name", "Z"]
    for name in names:
        add(records, name)
    assert texts(records) == sorted(names, key=lambda name: name.encode())


def test_tables_of_a_former_version_grow(records):
    """Rows there get the default, indexes are made; a second time changes nothing."""
    add(records, "a")
    later = sa.MetaData()
    kind = sa.Column("kind", sa.String(4), nullable=False, server_default="auto")
    notes = sa.Table("notes", later, sa.Column("text", sa.String(5), primary_key=True), kind)
    sa.Index("notes_kind", notes.c.kind)
    for _ in range(2):
        counter = records.change_counter()
        records.ensure(later)
    assert records.change_counter() == counter
    with records.read() as state:
        assert state.execute(sa.select(notes)).all() == [("a", "auto")]
        assert "notes_kind" in [index["name"] for index in sa.inspect(state).get_indexes("notes")]


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("CREATE VIEW v AS SELECT 1", "view v"),
        ("CREATE RULE r AS ON INSERT TO notes DO INSTEAD NOTHING", "rule r"),
        ("ALTER TABLE notes ENABLE ROW LEVEL SECURITY", "row security of notes"),
        ("CREATE TABLE child () INHERITS (notes)", "row security of notes"),
        (f"{TRIGGER}; CREATE TRIGGER t BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION f()", "trigger t"),
        (f"{INDEX} indisvalid = false WHERE indexrelid = 'notes_text'::regclass", "invalid index notes_text"),
    ],
)
def test_what_others_put_into_the_schema_is_named(statement, fault, postgres, database, records):
    """Whatever could answer for a table, or change what is written to it."""
    assert records.faults() == []
    postgres.sql(statement, database)
    assert records.faults() == [f"{fault} is none of ours"]


def test_an_index_that_does_not_hold_every_row_is_named(postgres, database, records):
    """By the server's own check, where the database has it: the sort order of the index is swapped under it."""
    postgres.sql("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA public", database)
    for number in range(3):
        add(records, f"{number}")
    assert records.faults() == []
    # A row that the index holds and the table has under another value: written past the index.
    postgres.sql("UPDATE pg_index SET indisready = false WHERE indexrelid = 'notes_text'::regclass", database)
    postgres.sql("INSERT INTO notes VALUES ('later')", database)
    postgres.sql("UPDATE pg_index SET indisready = true WHERE indexrelid = 'notes_text'::regclass", database)
    assert records.faults() == ["index notes_text does not hold the rows of its table"]


def test_a_counter_that_was_taken_away_is_damage(postgres, database, records):
    """What was committed could not be told any more; writers still queue, at the lock."""
    postgres.sql("DELETE FROM retrodict_changes", database)
    with pytest.raises(IntegrityError, match="must be an intact record store"):
        records.change_counter()
    other = PostgresRecords(postgres.url(database), timeout_s=0.5)
    with records.write(), pytest.raises(BusyError):
        add(other, "a")
    other.close()
