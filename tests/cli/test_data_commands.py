"""``ingest``, ``data`` and ``plan`` on a small project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def filled(run: Run, folder: Path) -> Path:
    """The project with one version of loans: two rows accepted, one in quarantine."""
    assert run("ingest", "loans", folder / "loans.csv", "--project", folder).code == 0
    return folder


def test_ingest_says_what_became_of_the_rows(run: Run, folder: Path) -> None:
    """Rows in = accepted + quarantined, with the check that set a row aside."""
    shown = run("ingest", "loans", folder / "loans.csv", "--project", folder)
    assert shown.out.splitlines()[0] == "loans@0: 3 rows in = 2 accepted + 1 quarantined"
    assert "between(amount, 0, 1000000.0)  medium         1" in shown.out


def test_the_same_batch_twice_changes_nothing(run: Run, filled: Path) -> None:
    """A second ingest of the same file is told so and makes no version."""
    shown = run("ingest", "loans", filled / "loans.csv", "--project", filled, "--json")
    assert (shown.json["dataset"], shown.json["already"]) == ("dataset:loans@0", True)


def test_a_table_that_is_not_defined(run: Run, folder: Path) -> None:
    """The error names the nearest table and nothing is written."""
    shown = run("ingest", "lonas", folder / "loans.csv", "--project", folder, "--json")
    assert shown.code == 2
    assert shown.json["error"]["remedy"] == "Did you mean the table 'loans'"


def test_history(run: Run, filled: Path) -> None:
    """Each version with its counts, its batch and where it came from."""
    shown = run("data", "history", "loans", "--project", filled, "--json")
    (version,) = shown.json["versions"]
    assert {k: version[k] for k in ("version", "rows", "rows_in", "accepted", "quarantined", "origin")} == {
        "version": 0, "rows": 2, "rows_in": 3, "accepted": 2, "quarantined": 1, "origin": "loans.csv",
    }  # fmt: skip


def test_show_gives_times_with_their_zone(run: Run, filled: Path) -> None:
    """The head of a table is plain JSON; instants carry their zone."""
    shown = run("data", "show", "loans@0", "--limit", "1", "--project", filled, "--json")
    assert (shown.json["rows"], len(shown.json["head"])) == (2, 1)
    assert shown.json["head"][0]["asked"] == "2020-01-05T10:00:00Z"


def test_quarantine_shows_rows_and_reasons(run: Run, filled: Path) -> None:
    """What was set aside is there as it came, with why."""
    shown = run("data", "quarantine", "loans", "--project", filled, "--json")
    assert shown.json["reasons"] == {"between(amount, 0, 1000000.0)": 1}
    assert '"-7"' in shown.json["head"][0]["original"]


def test_plan_of_an_empty_project_asks_for_data_first(run: Run, folder: Path) -> None:
    """Nothing can be trained before the tables hold rows."""
    shown = run("plan", "--project", folder, "--json")
    assert shown.json["next"] == ["retrodict ingest loans FILE", "retrodict ingest people FILE"]
    assert shown.json["models"][0]["status"] == "not trained"
    assert shown.json["policies"][0]["status"] == "not deployed"


def test_plan_changes_nothing(run: Run, filled: Path) -> None:
    """Planning leaves no entry in the ledger."""
    before = run("audit", "log", "--project", filled, "--json").json["total"]
    assert run("plan", "--project", filled).code == 0
    assert run("audit", "log", "--project", filled, "--json").json["total"] == before


def test_a_table_in_a_pipe_is_never_folded(run: Run, filled: Path) -> None:
    """One row is one line, however long."""
    shown = run("data", "history", "loans", "--project", filled)
    assert len(shown.out.splitlines()) == 2


def test_markup_in_data_is_shown_as_it_is(run: Run, folder: Path) -> None:
    """Square brackets in a value are text, not formatting."""
    (folder / "people.csv").write_text("person\n[bold]ann[/bold]\n")
    run("ingest", "people", folder / "people.csv", "--project", folder)
    assert "[bold]ann[/bold]" in run("data", "show", "people", "--project", folder).out


def test_lineage_of_a_dataset_names_its_batch(run: Run, filled: Path) -> None:
    """A table without a version means its newest; its rows came from a batch."""
    shown = run("lineage", "dataset:loans", "--project", filled, "--json")
    assert shown.json["object"] == "dataset:loans@0"
    (edge,) = shown.json["made_from"]
    assert (edge["role"], edge["source"].partition(":")[0]) == ("rows", "batch")


def test_lineage_of_the_unknown(run: Run, filled: Path) -> None:
    """An object that the ledger does not know is an error with the nearest one."""
    shown = run("lineage", "dataset:loans@7", "--project", filled, "--json")
    assert shown.code == 2
    assert "dataset:loans@0" in shown.json["error"]["remedy"]


def test_audit_of_an_altered_ledger_exits_1(run: Run, filled: Path) -> None:
    """A changed entry is found, listed, and is exit code 1."""
    import sqlite3

    assert run("audit", "verify", "--project", filled, "--json").json["verified"] is True
    with sqlite3.connect(filled / "state" / "records.db") as connection:
        connection.execute("UPDATE ledger_entries SET actor = 'somebody else' WHERE sequence = 2")
    connection.close()
    shown = run("audit", "verify", "--project", filled, "--json")
    assert shown.code == 1
    assert {finding["kind"] for finding in shown.json["findings"]} == {"altered"}
