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
    assert "schema  medium    FAIL         1" in shown.out


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
    shown = run("data", "quarantine", "list", "loans", "--project", filled, "--json")
    assert shown.json["batches"][0]["reasons"] == {"between(amount, 0, 1000000.0)": 1}
    shown = run("data", "quarantine", "show", "loans", "--project", filled, "--json")
    assert '"-7"' in shown.json["head"][0]["original"]


def test_repaired_rows_come_back(run: Run, filled: Path) -> None:
    """Shown into a file, corrected, resubmitted; nothing waits any more."""
    path = filled / "repair.jsonl"
    assert run("data", "quarantine", "show", "loans", "--output", path, "--project", filled).code == 0
    path.write_text(path.read_text().replace('"-7"', '"7"'))
    shown = run("data", "quarantine", "resubmit", "loans", path, "--project", filled, "--json")
    assert (shown.json["dataset"], shown.json["accepted"]) == ("dataset:loans@1", 1)
    assert run("data", "quarantine", "list", "loans", "--project", filled, "--json").json["waiting"] == 0


def test_validate_writes_nothing(run: Run, filled: Path) -> None:
    """It says what an ingest would do, and exits with 1 where that would refuse."""
    shown = run("data", "validate", "loans", filled / "loans.csv", "--project", filled, "--json")
    assert (shown.code, shown.json["publishes"], shown.json["accepted"]) == (1, False, 0)  # every key is known
    assert {check["check"]: check["failed"] for check in shown.json["checks"]}["new_key(id)"] == 2
    assert len(run("data", "history", "loans", "--project", filled, "--json").json["versions"]) == 1


def test_ingest_reads_standard_input(filled: Path) -> None:
    """The same bytes are the same batch, wherever they come from."""
    import subprocess
    import sys

    program = "from retrodict.cli.main import main; main()"
    command = [sys.executable, "-c", program, "ingest", "loans", "-", "--format", "csv", "--json"]
    text = (filled / "loans.csv").read_bytes()
    done = subprocess.run(command, cwd=filled, input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b'"already": true' in done.stdout


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


def test_a_table_fits_80_columns(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe, too: columns wrap at words or are left out, by name; COLUMNS widens it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = run("data", "history", "loans", "--project", filled)
    assert max(map(len, shown.out.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "400")
    assert len(run("data", "history", "loans", "--project", filled).out.splitlines()) == 2


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


def test_a_table_goes_before_a_folder_of_its_name(run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that happens to be called like a table does not hide the table."""
    monkeypatch.chdir(filled)
    (filled / "loans").mkdir()
    assert run("data", "profile", "loans", "--json").json["rows"] == 2
