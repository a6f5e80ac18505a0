"""Tables of the records that are not as their rooms declare them: named by an audit, and never a crash of a command."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.serving.project import make_project
from tests.stores.conftest import environment, postgres, start  # noqa: F401  (fixtures)
from tests.stores.postgres_server import PostgresServer

from retrodict import Project
from retrodict.cli.main import run
from retrodict.core.errors import RetrodictError
from retrodict.project import ledger
from retrodict.stores.records.postgres import PostgresRecords

PARCEL = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
TABLES = {
    name: table
    for module in ledger._SCHEMAS
    for name, table in import_module(f"retrodict.{module}").metadata.tables.items()
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained, approved, deployed, tagged, a run under way, an experiment, a lease: rows in every table but one."""
    root = tmp_path_factory.mktemp("original") / "parcels"
    root.mkdir()
    make_project(root).close()
    with Project(root, actor="ana") as project:
        project.data.tag("parcels@0", "golden", hold=True)
        project.train("late_parcel", train="2024-01-03/2024-02-01")
        project.decide("promise", **PARCEL)
        project.runs.start("by hand").log_metric("auc", 0.6)
        for module in ledger._SCHEMAS:
            project.workspace.records.ensure(import_module(f"retrodict.{module}").metadata)
    with closing(sqlite3.connect(root / "state/records.db")) as records:
        records.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "parcels", symlinks=True))


def execute(root: Path, *statements: str) -> None:
    with closing(sqlite3.connect(root / "state/records.db")) as records, records:
        for statement in statements:
            records.execute(statement)


def findings(root: Path) -> str:
    with Project(root) as project:
        return "\n".join(f"{one.kind} {one.where}: {one.detail}" for one in project.audit().findings)


def column_of(name: str) -> str:
    """Last column that is no key, of which the commands cannot do without."""
    return [column.name for column in TABLES[name].columns if not column.primary_key][-1]


def dropped(name: str) -> list[str]:
    return [f"ALTER TABLE {name} DROP COLUMN {_quoted(column_of(name))}"]


def renamed(name: str) -> list[str]:
    return [f"ALTER TABLE {name} RENAME COLUMN {_quoted(column_of(name))} TO other"]


def retyped(name: str) -> list[str]:
    """A column holds bytes, and is declared so."""
    column = _quoted(column_of(name))
    return [*renamed(name), f"ALTER TABLE {name} ADD COLUMN {column} BLOB", f"UPDATE {name} SET {column} = x'ff'",
            f"ALTER TABLE {name} DROP COLUMN other"]  # fmt: skip


def replaced(name: str) -> list[str]:
    return [f"DROP TABLE {name}", f"CREATE TABLE {name} (x)"]


def demanding(name: str) -> list[str]:
    return [f"CREATE TABLE t AS SELECT * FROM {name}", f"DROP TABLE {name}",
            f"CREATE TABLE {name} AS SELECT *, 1 AS y FROM t", "DROP TABLE t",
            f"CREATE TRIGGER z BEFORE INSERT ON {name} BEGIN SELECT RAISE(ABORT, 'no'); END"]  # fmt: skip


def _quoted(name: str) -> str:
    return f'"{name}"'


COMMANDS = [
    "audit verify", "audit log", "data tag parcels@0 silver", "data tags parcels", "data history parcels",
    "data vacuum parcels --yes", "runs list", "runs search 'metrics.test.auc > 0'",
    "runs best metrics.test.auc",
    "models list", "models show late_parcel@2", "models approve late_parcel@2 --reason good",
    "models reject late_parcel@2 --reason bad", "deployments", "deploy promise --reason again",
    "decisions export promise", "lineage model:late_parcel@2", "plan",
    "train late_parcel --train 2024-01-05/2024-02-01",
]  # fmt: skip


def crashes(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Commands that end in an error which is none of ours, and what it is."""
    raised = []
    for command in COMMANDS:
        run([*shlex.split(command), "--project", str(root), "--actor", "cay"])
        said = capsys.readouterr().err
        raised += [f"{command}: {said}"] if "internal error" in said or "Usage" in said or "option" in said else []
    for name, act in {"run": lambda project: project.runs.start("another").end(),
                      "decide": lambda project: project.decide("promise", **PARCEL)}.items():  # fmt: skip
        try:
            with Project(root, actor="ana") as project:
                act(project)
        except RetrodictError:
            continue
        except Exception as error:  # noqa: BLE001  # which is what is looked for
            raised.append(f"{name}: {type(error).__name__}: {error}")
    return raised


def test_an_untouched_project_is_verified(root: Path, capsys: Any) -> None:
    """And every command does its work, so that what is tried below is tried on what works."""
    assert findings(root) == ""
    assert crashes(root, capsys) == []
    assert findings(root) == ""


CHANGES = [dropped, renamed, retyped, replaced, demanding]


@pytest.mark.parametrize(("name", "change"), [
    pytest.param(name, change, id=f"{name} {change.__name__}",
                 marks=[] if (number + place) % len(CHANGES) == 0 else pytest.mark.slow)
    for number, name in enumerate(sorted(TABLES)) for place, change in enumerate(CHANGES)
])  # fmt: skip
def test_a_table_of_another_form_is_named_and_crashes_nothing(name: str, change: Any, root: Path, capsys: Any) -> None:
    """Whatever the table, whatever is done to it, every command says so or does its work."""
    execute(root, *change(name))
    assert f"table {name}" in findings(root)
    assert crashes(root, capsys) == []


@pytest.mark.parametrize(("change", "named", "stopped"), [
    ("CREATE UNIQUE INDEX x ON model_approvals(name)", "index x of table model_approvals is none of ours",
     "models reject late_parcel@1 --reason bad"),
    ("CREATE UNIQUE INDEX x ON ledger_entries(actor) WHERE actor = 'cay'",
     "index x of table ledger_entries is none of ours",
     "data tag parcels@0 silver"),
    ("CREATE TRIGGER x BEFORE INSERT ON deployments BEGIN SELECT RAISE(ABORT, 'no'); END",
     "trigger x of table deployments is none of ours", "deploy promise"),
    ("ALTER TABLE deployments ADD COLUMN x INTEGER DEFAULT 0 CHECK (revision < 2)",
     "column x of table deployments is none of ours", "deploy promise"),
])  # fmt: skip
def test_what_stops_a_command_is_named(change: str, named: str, stopped: str, root: Path, capsys: Any) -> None:
    """By the command itself, with where to look, and by the audit."""
    with Project(root, actor="cay") as project:
        project.data.tag("parcels@0", "bronze")
    execute(root, change)
    assert run([*shlex.split(stopped), "--project", str(root), "--actor", "cay"]) == 1
    said = capsys.readouterr().err
    assert named in said
    assert "retrodict audit verify" in said
    assert f"altered records: {named}" in findings(root)


@pytest.mark.parametrize(("change", "named"), [
    ("CREATE INDEX x ON runs(lower(name))", "index x of table runs is none of ours"),
    ("CREATE TABLE x (y)", "table x is none of ours"),
    ("CREATE VIEW x AS SELECT 1", "view x is none of ours"),
    ("DROP INDEX runs_status", "index runs_status of table runs is missing"),
    ("ALTER TABLE run_tags ADD COLUMN x TEXT COLLATE NOCASE", "column x of table run_tags is none of ours"),
])  # fmt: skip
def test_what_stops_nothing_is_named_too(change: str, named: str, root: Path) -> None:
    """What is there beside what the rooms declare, and what is missing of it."""
    execute(root, change)
    assert f"altered records: {named}" in findings(root)


def test_columns_that_came_later_and_whatever_analyze_keeps_are_no_finding(root: Path) -> None:
    """A column that was added stands last in the text of its table; SQLite's own tables are nobody's."""
    execute(root, "ALTER TABLE runs DROP COLUMN note", "ALTER TABLE runs ADD COLUMN note TEXT DEFAULT '' NOT NULL",
            "ANALYZE")  # fmt: skip
    assert "records" not in findings(root)


def test_on_postgresql_what_is_of_another_form_is_named_as_well(postgres: PostgresServer) -> None:  # noqa: F811
    """All tables of all rooms are what they should be there, too, and then not."""
    database = postgres.database()
    records = PostgresRecords(postgres.url(database))
    schema = [import_module(f"retrodict.{module}").metadata for module in ledger._SCHEMAS]
    assert records.faults(schema) == []
    for metadata in schema:
        records.ensure(metadata)
    assert records.faults(schema) == []
    for statement in (
        "CREATE UNIQUE INDEX x ON model_approvals(name)", "ALTER TABLE runs ALTER COLUMN note TYPE varchar(5)",
        "ALTER TABLE run_tags DROP COLUMN value", "ALTER TABLE deployments ADD CHECK (revision < 2)",
        "ALTER TABLE model_versions DROP CONSTRAINT model_versions_run_key", "CREATE TABLE y (z int)",
        "ALTER TABLE ledger_nodes DROP CONSTRAINT ledger_nodes_pkey", "DROP TABLE ledger_seals",
        "ALTER TABLE ledger_versions ALTER COLUMN name TYPE text COLLATE \"default\"", "DROP INDEX runs_status",
    ):  # fmt: skip
        postgres.sql(statement, database)
    assert sorted(records.faults(schema)) == [
        "CHECK((revision < 2)) of table deployments is none of ours", "PRIMARY KEY of table ledger_nodes is missing",
        "UNIQUE(run) of table model_versions is missing",
        "column name of table ledger_versions must be 'text NOT NULL', not 'text COLLATE default NOT NULL'",
        "column note of table runs must be 'text NOT NULL', not 'character varying(5) COLLATE default NOT NULL'",
        "column value of table run_tags is missing", "index runs_status of table runs is missing",
        "index x of table model_approvals is none of ours", "table ledger_seals is missing", "table y is none of ours",
    ]  # fmt: skip
    with (
        pytest.raises(RetrodictError, match=r"must be as this package made them.*audit verify"),
        records.read() as state,
    ):
        state.exec_driver_sql("SELECT value FROM run_tags")
    records.close()
