"""Runs, their metrics and artifacts: whatever is changed in their rows after the run ended, the audit finds."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from tests.serving.project import make_project

from retrodict import Project

OTHER = "01M00000000000000000000000"
COLUMNS = "model, status, actor, started, finished, seconds, seed, code, environment, data, params, summary"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("parcels")
    make_project(root).close()
    return root


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "parcels")


def execute(root, statement):
    with closing(sqlite3.connect(root / "state" / "records.db")) as records, records:
        assert records.execute(statement).rowcount >= 1


def findings(root):
    with Project(root) as project:
        return {
            (finding.kind, finding.where.partition(" (")[0].partition(":")[0]) for finding in project.audit().findings
        }


def test_an_untouched_project_is_verified(root):
    assert not findings(root)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE run_metrics SET value = 0.99 WHERE name = 'auc' AND split = 'test'", ("altered", "run")),
        ("DELETE FROM run_metrics WHERE name = 'auc' AND split = 'test'", ("removed", "run")),
        ("INSERT INTO run_metrics SELECT run, 'test', 'profit', 0, 1.0, NULL, NULL FROM run_metrics LIMIT 1",
         ("altered", "table run_metrics")),
        (f"INSERT INTO run_metrics VALUES ('{OTHER}', 'test', 'auc', 0, 1.0, NULL, NULL)",
         ("altered", "table run_metrics")),
        ("UPDATE run_artifacts SET digest = digest || 'x'", ("altered", "run")),
        ("UPDATE runs SET status = 'failed'", ("altered", "run")),
        ("UPDATE runs SET summary = '{}'", ("altered", "run")),
        ("UPDATE runs SET actor = 'eve'", ("altered", "run")),
        (f"INSERT INTO runs (id, {COLUMNS}) SELECT '{OTHER}', {COLUMNS} FROM runs", ("altered", "table runs")),
        ("DELETE FROM runs", ("removed", "run")),
    ],
)  # fmt: skip
def test_a_row_that_other_hands_changed_is_found(root, statement, found):
    """Changed, removed or added."""
    execute(root, statement)
    assert found in findings(root)


def test_a_run_that_is_still_open_is_vouched_for_as_it_began(root):
    """It counts as running until its end is an entry: a row that says otherwise is found."""
    from retrodict.learning.runs import Run, start_run
    from retrodict.workspace import Workspace

    with Workspace(root, actor="ana") as workspace:
        code = workspace.ledger.entries(action="run.start")[0].payload["objects"]
        run = Run(workspace.new_id(), "late_parcel", "running", "ana", 0, 1, *code, {"versions": {}}, {})
        start_run(workspace, run)
    assert not findings(root)
    execute(root, f"UPDATE runs SET status = 'finished' WHERE id = '{run.id}'")
    assert findings(root) == {("altered", "run")}


def test_a_run_that_was_written_into_the_journal_without_the_key_is_not_entered(root, caplog):
    """Nor signed, nor found: whoever looks next entered whatever stood there."""
    with Project(root, actor="ana") as project:
        (run, *_) = project.runs.list()
        honest = project.runs.start("by hand")
        honest.log_metric("auc", 0.61)
        honest.end()
        record = run.record
    fields = {"id": OTHER, "model": record.model, "actor": "ceo", "started": record.started, "seed": 1,
              "code": record.code, "environment": record.environment, "data": {"versions": {}}, "params": {},
              "kind": "hand", "name": "x", "parent": None, "tags": {}, "note": ""}  # fmt: skip
    bodies = [["begin", fields], [["metric", "test", "auc", 0, 0.9999, ""]],
              [["end", "finished", record.started + 1, 5.0, ""]]]  # fmt: skip
    with closing(sqlite3.connect(root / "state" / "records.db")) as records, records:
        for number, body in enumerate(bodies):
            text = json.dumps(body) + (" " + "0" * 64 if number != 1 else "")
            records.execute("INSERT INTO run_journal (run, body) VALUES (?, ?)", (OTHER, text))
    with Project(root, actor="ana") as project:
        assert f"run:{OTHER}" not in [one.ref for one in project.runs.list()]
        assert not [*project.runs.search("metrics.test.auc > 0.99")]
        assert f"run:{OTHER}" not in [entry.object_id for entry in project.workspace.ledger.entries()]
        assert project.runs.get(honest.ref).metrics["auc"] == 0.61
    assert "not as it was written" in caplog.text


def test_a_metric_that_was_written_beside_a_run_under_way_is_none(root):
    with Project(root, actor="ana") as project:
        run = project.runs.start("by hand")
        run.log_metric("auc", 0.61)
        run.flush()
        name = run.ref.removeprefix("run:")
        text = json.dumps([["metric", "", "auc", 1, 0.99, ""]])
        execute(root, f"INSERT INTO run_journal (run, body) VALUES ('{name}', '{text}')")
        assert 0.99 not in [point.value for point in project.runs.get(run.ref).record.points]


@pytest.mark.parametrize("script", [
    "DROP TABLE run_values; CREATE TABLE run_values(x)", "DROP TABLE ledger_edges; CREATE TABLE ledger_edges(x)",
    "DROP TABLE ledger_signed_ends; CREATE TABLE ledger_signed_ends(x)",
    "ALTER TABLE ledger_entries RENAME COLUMN payload TO other",
])  # fmt: skip
def test_a_table_of_another_shape_is_a_finding(root, script):
    """An audit that ends in an error says nothing of what else was altered."""
    with closing(sqlite3.connect(root / "state" / "records.db")) as records:
        records.executescript(script)
    assert ("altered", "records") in findings(root)
