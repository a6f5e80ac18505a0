"""A project whose records are on PostgreSQL: the README's walk, writers at once, kills, and what an audit finds."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.stores.conftest import environment, postgres, start  # noqa: F401  (fixtures)
from tests.stores.postgres_server import PASSWORD, PostgresServer

from retrodict import Project
from retrodict.core.errors import IntegrityError
from retrodict.ledger import verify
from retrodict.workspace import Workspace

from .conftest import recomputed

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from retrodict.workspace import Workspace

with Workspace(sys.argv[1], actor="ana") as workspace:
    for number in range(int(sys.argv[3])):
        with workspace.ledger.transaction() as tx:
            tx.append("note.write", f"note:{sys.argv[2]}{number}", inputs=[("note:0", "before")])
        print(number, flush=True)
"""


@pytest.fixture
def make(make_project: Callable[..., Workspace], postgres: PostgresServer) -> Callable[[], Workspace]:  # noqa: F811
    def begin() -> Workspace:
        project = make_project()
        toml = project.root / "retrodict.toml"
        toml.write_text(toml.read_text() + f'\n[stores]\nrecords = "{postgres.url(postgres.database())}"\n')
        return Workspace(project.root, actor="ana")

    return begin


@pytest.fixture
def project(make: Callable[[], Workspace]) -> Iterator[Workspace]:
    """An object, a table, lineage, and an end."""
    with make() as workspace:
        with workspace.ledger.transaction() as tx:
            tx.append("code.capture", "code:1", {"objects": [workspace.objects.put(b"some code")]})
        version = workspace.tables.write("sales", pa.table({"id": [1, 2, 3]}))
        path = f"sales/{workspace.tables.files('sales')[0].path}"
        with workspace.ledger.transaction() as tx:
            files = {path: workspace.tables.file_digest(path)}
            tx.append("dataset.version", f"dataset:sales@{version}", {"files": files}, inputs=[("batch:1", "rows")])
            tx.append(
                "run.finish", "run:1", {"note": 'é "x"'}, inputs=[("dataset:sales@0", "data"), ("code:1", "code")]
            )
        yield workspace


def wheres(project: Workspace) -> set[tuple[str, str]]:
    """(kind, where) of all findings; of the tables looked at none was ever made."""
    stores: Any = {"objects": project.objects, "streams": project.streams, "data": project.tables}
    report = verify(project.ledger, **stores, tables=("deployments", "runs"))
    return {(finding.kind, finding.where) for finding in report.findings}


def database(project: Workspace) -> str:
    return re.findall(r"/(test_\w+)", str(project.config["stores.records"]))[0]


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("SELECT 1", None),
        ("UPDATE ledger_entries SET actor = 'eve' WHERE sequence = 2", ("altered", "entry 2")),
        ("UPDATE ledger_entries SET payload = replace(payload, ':', ': ') WHERE sequence = 3", ("altered", "entry 3")),
        ("DELETE FROM ledger_entries WHERE sequence = 2", ("removed", "entry 2")),
        ("DELETE FROM ledger_entries WHERE sequence = 4", ("cut off", "entry 4")),
        ("UPDATE ledger_edges SET source = 'run:X' WHERE sequence = 4", ("altered", "entry 4")),
        ("DELETE FROM ledger_edges", ("removed", "entry 3")),
        ("DROP TABLE ledger_edges", ("unreadable", "ledger")),
        ("DROP TABLE ledger_edges; DELETE FROM ledger_entries WHERE sequence = 2", ("removed", "entry 2")),
        ("UPDATE ledger_nodes SET hash = replace(hash, 'a', 'b')", ("altered", "tree of entries")),
        ("DELETE FROM ledger_nodes", ("removed", "tree of entries")),
        ("DELETE FROM ledger_signed_ends", ("removed", "signed end")),
        ("CREATE VIEW v AS SELECT 1", ("altered", "records")),
    ],
)
def test_manipulations_of_the_server_are_found(
    statement: str,
    finding: tuple[str, str] | None,
    project: Workspace,
    postgres: PostgresServer,  # noqa: F811
) -> None:
    """The same as in SQLite, by name; and a sound one has none."""
    postgres.sql(statement, database(project))
    assert wheres(project) == set() if finding is None else finding in wheres(project)


def test_an_entry_with_a_fitting_hash_is_unsigned(project: Workspace, postgres: PostgresServer) -> None:  # noqa: F811
    """And nothing more is appended to it."""
    names = "sequence, time, actor, action, object_id, payload, previous, hash"
    (last,) = postgres.sql(f"SELECT {names} FROM ledger_entries WHERE sequence = 4", database(project))
    row = dict(zip(names.split(", "), last, strict=True)) | {"sequence": 5, "previous": last[-1]}
    row["hash"] = recomputed(row)
    values = ", ".join("'" + str(value).replace("'", "''") + "'" for value in row.values())
    postgres.sql(f"INSERT INTO ledger_entries ({names}) VALUES ({values})", database(project))
    assert ("unsigned", "entry 5") in wheres(project)
    with (
        pytest.raises(IntegrityError, match="must end with the entry that was signed last"),
        project.ledger.transaction() as tx,
    ):
        tx.append("note.write", "note:1")


@pytest.mark.slow
def test_four_processes_write_at_once_and_two_are_killed(
    make: Callable[[], Workspace],
    start: Callable[..., Any],  # noqa: F811
) -> None:
    """Each entry that was acknowledged is there once, in one chain that is signed to its end."""
    project = make()
    writers = [start(WRITER, project.root, name, 15) for name in "abcd"]
    counts = {}
    for name, writer in zip("ab", writers, strict=False):
        lines = [writer.line() for _ in range(5)]
        writer.kill()
        counts[name] = len(lines + writer.rest())
    for name, writer in zip("cd", writers[2:], strict=True):
        counts[name] = len(writer.rest())
        assert writer.wait() == 0
    assert (counts["c"], counts["d"]) == (15, 15)
    with project.ledger.transaction() as tx:  # signs what a dead writer left
        tx.append("note.write", "note:last")
    written = [entry.object_id for entry in project.ledger.entries(action="note.write")]
    assert len(set(written)) == len(written)
    for name, count in counts.items():
        assert {f"note:{name}{number}" for number in range(count)} <= set(written)
    assert wheres(project) == set()
    project.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_walk_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command, the server killed and started anew between any two of them; the audit holds, decisions replay."""
    from retrodict.cli.main import run

    server = PostgresServer()
    monkeypatch.setenv("PG_TEST_PASSWORD", PASSWORD)
    copy = tmp_path / "own"
    copy.mkdir()
    for name in ("definitions.py", "retrodict.toml", "invoices.csv"):
        shutil.copy(ROOT / "examples/own_project" / name, copy / name)
    with (copy / "retrodict.toml").open("a") as toml:
        toml.write(f'\n[stores]\nrecords = "{server.url("postgres")}"\n')
    monkeypatch.chdir(copy)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [shlex.split(line)[1:] for line in re.findall(r"^\$ (retrodict .*)$", readme, flags=re.MULTILINE)]
    answers: dict[str, Any] = {}
    for arguments in [
        *lines,
        ["runs", "list"],
        ["models", "list"],
        ["lineage", "model:late_payer@1"],
        ["audit", "verify"],
    ]:
        assert run([*arguments, "--json"]) == 0, capsys.readouterr()
        answers[shlex.join(arguments)] = json.loads(capsys.readouterr().out)
        server.kill()
        server.start()
    assert answers["audit verify"]["verified"] is True
    assert not list((copy / "state").glob("records*"))
    with Project(copy, actor="ana") as project:
        decision = project.decide("remind", customer="adler", amount=1200.0, terms_days=14)
        assert decision.replay().ok
        assert project.audit().ok
        server.sql("UPDATE model_approvals SET approver = 'eve'")
        assert any("model_approvals" in finding.detail for finding in project.audit().findings)
    server.close()
