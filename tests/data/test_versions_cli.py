"""The commands on versions, as people and programs see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrodict.project import Project
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Source, Table
sales = Table("sales", key="id", columns={"at": "time"})
told = Source("told", sales, event_time="at")
"""


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(
    make_project: Callable[..., Workspace], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run a command in a project with three versions of sales: 0 and 1 appended, 2 replaced."""
    from retrodict.cli.main import run as run_arguments

    project = make_project(DEFINITIONS)
    at = pa.array([0, 10**6], pa.timestamp("us", "UTC"))
    checks = json.dumps([{"check": "unique(id)", "status": "fail"}, {"check": "not_null(at)", "status": "pass"}])
    for mode, columns in (
        ("append", {"id": [1, 2], "at": at}),
        ("append", {"id": [3, 4], "at": at}),
        ("overwrite", {"id": [1, 9], "at": at, "x": [1, 2]}),
    ):
        metadata = {"retrodict.mode": mode, "retrodict.batch": f"{mode} of ids", "retrodict.checks": checks}
        project.tables.write("sales", pa.table(columns), mode=mode, metadata=metadata)
    project.close()
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("RETRODICT_ACTOR", "ann")

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run_arguments([*arguments])
        caught = capsys.readouterr()
        return Outcome(code, caught.out, caught.err)

    return call


Run = Callable[..., Outcome]


def test_history_says_how_each_version_came(run: Run) -> None:
    """Mode, tags, failed checks, schema; the newest ones, and how many there are."""
    run("data", "tag", "sales@1", "golden", "--hold")
    shown = run("data", "history", "sales", "--json").json
    assert [(v["mode"], v["rows"], v["tags"], v["checks_failed"], v["schema"]) for v in shown["versions"]] == [
        ("append", 2, [], ["unique(id)"], []),
        ("append", 4, ["golden (hold)"], ["unique(id)"], []),
        ("overwrite", 2, [], ["unique(id)"], ["+x"]),
    ]
    assert "2 older versions are not listed" in run("data", "history", "sales", "--limit", "1").out
    assert run("data", "history", "slaes").err.count("Did you mean the table 'sales'") == 1


def test_show_takes_a_tag_and_a_time_of_knowing(run: Run) -> None:
    """The rows of a tag; of those, the ones that were known."""
    run("data", "tag", "sales@1", "golden")
    assert run("data", "show", "sales@golden", "--limit", "3", "--json").json["rows"] == 4
    shown = run("data", "show", "sales@golden", "--known-at", "1970-01-01T00:00:01Z", "--json").json
    assert (shown["rows"], [row["id"] for row in shown["head"]]) == (2, [1, 3])
    assert shown["head"][0]["at"] == "1970-01-01T00:00:00Z"


def test_diff_is_no_failure(run: Run, tmp_path: Path) -> None:
    """Exit code 0 also when there is a difference; the whole of it in JSON, and rows in a file."""
    output = tmp_path / "changes.csv"
    shown = run("data", "diff", "sales@1", "sales", "--output", str(output), "--json")
    assert shown.code == 0
    assert {k: shown.json[k] for k in ("added", "removed", "changed", "same")} == {
        "added": 1, "removed": 3, "changed": 0, "same": False,
    }  # fmt: skip
    assert len(output.read_text().splitlines()) == 5
    assert "sales@1 -> sales@2, by key id" in run("data", "diff", "sales@1", "sales").out
    assert "the same 2 rows" in run("data", "diff", "sales", "sales@2").out


def test_tag_move_list_and_remove(run: Run) -> None:
    """A hold is refused with exit code 1 until it is released."""
    assert run("data", "tag", "sales@1", "case", "--hold").out == "sales@case is a legal hold on sales@1.\n"
    refused = run("data", "tag", "sales@2", "case")
    assert (refused.code, "--release --reason" in refused.err) == (1, True)
    assert run("data", "tag", "sales", "case", "--remove", "--release", "--reason", "closed").code == 0
    assert run("data", "tags", "sales", "--json").json == {"tags": []}
    assert [one["action"] for one in run("data", "tags", "sales", "case", "--json").json["tags"]] == ["set", "remove"]


def test_rollback_twice(run: Run) -> None:
    """The second time there is nothing to do."""
    arguments = ("data", "rollback", "sales", "--to", "1", "--reason", "broken feed")
    assert run(*arguments).out == "sales@3 has the 4 rows of sales@1.\n"
    assert "already; nothing was written" in run(*arguments).out
    assert run("data", "history", "sales", "--json").json["versions"][-1]["restored"] == 1


def test_compact_and_vacuum(run: Run) -> None:
    """Deleting asks for --yes where nobody can be asked; a dry run deletes nothing."""
    run("data", "rollback", "sales", "--to", "1", "--reason", "x")
    assert run("data", "compact", "sales").out == "sales@4: 4 rows, 2 -> 1 files.\n"
    arguments = ("data", "vacuum", "sales", "--older-than", "0s")
    assert run(*arguments, "--dry-run", "--json").json["files"] == 3
    unsaid = run(*arguments)
    assert (unsaid.code, "say --yes" in unsaid.err) == (2, True)
    assert run(*arguments, "--yes", "--json").json["deleted"] == [0, 1, 2, 3]
    states = [v["vacuumed"] for v in run("data", "history", "sales", "--json").json["versions"]]
    assert states == [True, True, True, True, False, False]
    assert "there is nothing to delete" in run(*arguments).out
    assert run("data", "show", "sales@1").code == 2


def test_the_tab_key_offers_tables_and_tags(run: Run) -> None:
    """Names with their tags."""
    from retrodict.cli.data import table_refs, tag_names

    run("data", "tag", "sales@1", "golden")
    with Project(".") as project:
        assert sorted(table_refs(project)) == ["sales", "sales@golden"]
        assert list(tag_names(project)) == ["golden"]
