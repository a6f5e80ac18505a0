"""Runs that nothing needs go, and no others; the audit stays clean, and the ledger says what went."""

import pytest
from tests.learning.test_run_shape import close, findings, run_of

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError, NotFoundError
from retrodict.learning import get_run, list_runs, prune_runs
from retrodict.learning.runs import MetricPoint, start_run
from retrodict.registry import register

START = parse_time("2024-01-01T00:00:00Z")


@pytest.fixture
def world(make_project):
    """Old runs that something holds and old ones that nothing does, and a young one."""
    clock = SimulatedClock(START)
    workspace = make_project(clock=clock)
    names: dict[str, str] = {}

    def add(name, end=True, **fields):
        run = run_of(workspace, name=name, **fields)
        start_run(workspace, run)
        if end:
            close(workspace, run, points=[MetricPoint("test", "auc", 0.7), MetricPoint("test", "auc", 0.8, 1)])
        names[run.ref] = name
        return run

    study = add("study", kind="tune")
    add("trial", kind="trial", parent=study.id)
    add("lonely")
    add("mlflow", tags={"mlflow.user": "x"})
    add("tagged", tags={"audit": "2024"})
    add("running", end=False)
    trained = add("trained", end=False)
    register(
        workspace, "late", run=trained.id, artifact=workspace.objects.put(b"model"), code=trained.code, gates=[],
        metrics={}, alongside=lambda tx: None,
    )  # fmt: skip
    close(workspace, trained)
    whole = add("whole")
    add("part", parent=whole.id, tags={"keep": "yes"})
    source = add("source")
    with workspace.ledger.transaction() as tx:
        tx.append("report.write", "report:x", {}, inputs=[(source.ref, "numbers")])
    clock.move_to(START + 100 * DAY)
    add("young")
    return workspace, names


def test_only_what_nothing_needs_goes(world):
    workspace, names = world
    plan = prune_runs(workspace, older="90d")
    assert sorted(names[ref] for ref in plan.removed) == ["lonely", "mlflow", "study", "trial"]
    assert {names[ref] for ref in plan.holders} == {"tagged", "trained", "whole", "part", "source"}
    assert len(list_runs(workspace, kinds=("train", "tune", "trial"))) == len(names)  # it was a dry run
    done = prune_runs(workspace, older="90d", dry_run=False, reason="disk")
    assert (done.removed, done.holders) == (plan.removed, plan.holders)
    left = {run.name for run in list_runs(workspace, kinds=("train", "tune", "trial"))}
    assert left == {"tagged", "running", "trained", "whole", "part", "source", "young"}
    (entry,) = workspace.ledger.entries(action="run.prune")
    assert set(entry.payload["runs"]) == set(done.removed)
    with pytest.raises(NotFoundError):
        get_run(workspace, done.removed[0])
    assert not findings(workspace)
    assert prune_runs(workspace, older="90d").removed == ()


def test_a_row_that_comes_back_is_found(world):
    workspace, _ = world
    done = prune_runs(workspace, older="90d", dry_run=False, reason="disk")
    ref = done.removed[0].removeprefix("run:")
    with workspace.records.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO run_metrics (run, split, name, step, value) VALUES (?, 'test', 'auc', 0, 1.0)", (ref,)
        )
    assert {finding.kind for finding in findings(workspace)} == {"altered"}


def test_a_condition_narrows_what_goes(world):
    workspace, names = world
    plan = prune_runs(workspace, older="90d", where="name = 'lonely'")
    assert [names[ref] for ref in plan.removed] == ["lonely"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"older": "0d"}, "must be above 0"),
        ({"older": "old"}, "duration"),
        ({"older": "9d", "dry_run": False}, "removing runs must have a reason"),
    ],
)
def test_removing_has_rules(make_project, options, message):
    with pytest.raises(InputError, match=message):
        prune_runs(make_project(), **options)
