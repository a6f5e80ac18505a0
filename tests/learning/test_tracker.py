"""Runs recorded by hand: what was logged comes back, whatever ends the work, and the ledger vouches for it."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select
from tests.learning.test_run_shape import findings

from retrodict.core.errors import InputError, NotFoundError, RefusedError, RetrodictError, RetryableError
from retrodict.data.ingest import ingest
from retrodict.learning import compare_runs, get_run, list_runs, open_run, tag_run
from retrodict.learning.runs.schema import heartbeats, journal

TABLE = 'from retrodict import Table\nshops = Table("shops", columns={"id": "int", "city": "string"})\n'
KILLED = """
import sys, time
from retrodict.learning import open_run
from retrodict.workspace import Workspace

run = open_run(Workspace(sys.argv[1]), "killed", params={"depth": 3}).__enter__()
run.log_metric("auc", 0.7)
time.sleep(1)
run.log_metric("auc", 0.9)
print(run.ref, flush=True)
time.sleep(60)
"""
MANY = """
import sys
from retrodict.learning import open_run
from retrodict.workspace import Workspace

with Workspace(sys.argv[1]) as workspace:
    print("ready", flush=True)
    sys.stdin.readline()
    for place in range(10):
        with open_run(workspace, f"{sys.argv[2]}/{place}") as run:
            run.log_metrics({f"m{i}": place + i / 10 for i in range(20)})
"""


def test_everything_that_was_logged_comes_back(make_project):
    workspace = make_project(TABLE)
    ingest(workspace, "shops", pa.table({"id": [1, 2], "city": ["Bonn", "Ulm"]}))
    rows = pa.table({"x": [1.0, None]})
    with open_run(
        workspace, "by hand", model="late", tags={"team": "risk"}, note="why", params={"a": 1}, seed=3
    ) as run:
        run.log_params({"depth": np.int64(3), "names": ("x", "y"), "missing": math.nan, "nested": {"b": None}})
        run.log_metric("auc", 0.7, step=3)
        run.log_metrics({"auc": 0.8, "own": np.float32(0.5)}, step=4)
        run.log_metric("own", 0.25, better="lower")
        run.log_artifact(b"text", "note.txt")
        run.log_dataset("shops")
        run.log_dataset(rows, "scored")
        run.set_tag("stage", "trial")
    stored = get_run(workspace, run.ref)
    assert (stored.status, stored.kind, stored.name, stored.model) == ("finished", "hand", "by hand", "late")
    assert (stored.seed, stored.note, stored.actor) == (3, "why", "ann")
    assert stored.tags == {"team": "risk", "stage": "trial"}
    assert stored.params == {"a": 1, "depth": 3, "names": ["x", "y"], "missing": "nan", "nested": {"b": None}}
    points = {(p.split, p.name, p.step, p.value) for p in stored.points}
    assert points == {
        ("test", "auc", 3, 0.7),
        ("test", "auc", 4, 0.8),
        ("test", "own", 4, 0.5),
        ("test", "own", 5, 0.25),
    }
    assert stored.metrics == {"auc": 0.8, "own": 0.25}
    assert stored.summary["better"] == {"own": "lower"}
    assert workspace.objects.get(stored.artifacts[0].digest) == b"text"
    assert stored.artifacts[0].media == "text/plain"
    assert stored.data["versions"] == {"shops": 0}
    assert stored.data["frames"]["scored"]["rows"] == 2
    assert ("run:" + run.id, "training data", "dataset:shops@0") in workspace.ledger.upstream(run.ref)
    assert [r.metrics for r in list_runs(workspace)] == [stored.metrics]
    assert not findings(workspace)


def test_the_frames_of_runs_differ_in_their_rows(make_project):
    workspace = make_project()
    refs = []
    for last in (3, 4):
        with open_run(workspace) as run:
            run.log_dataset(pa.table({"x": [1, last]}))
        refs.append(run.ref)
    assert "data.frames.frame.sha256" in compare_runs(workspace, refs)["differs"]


def test_the_callers_objects_stay_as_they_are(make_project):
    """And what the caller changes afterwards is not logged."""
    workspace = make_project()
    tags, params, deep = {"a": "b"}, {"x": 1}, {"list": [1]}
    with open_run(workspace, tags=tags, params=params) as run:
        run.log_params(deep)
        deep["list"].append(2)
        params["x"] = tags["a"] = "changed"
        run.set_tag("c", "d")
    assert (tags, params, deep) == ({"a": "changed"}, {"x": "changed"}, {"list": [1, 2]})
    stored = get_run(workspace, run.ref)
    assert (stored.tags, stored.params) == ({"a": "b", "c": "d"}, {"x": 1, "list": [1]})


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_block_that_raises_is_failed_with_what_it_logged(make_project, error):
    workspace = make_project()

    def work():
        with open_run(workspace) as run:
            run.log_metric("auc", 0.7)
            raise error

    with pytest.raises(type(error)):
        work()
    (stored,) = list_runs(workspace)
    assert (stored.status, stored.summary["error"], stored.metrics) == ("failed", type(error).__name__, {"auc": 0.7})


def test_runs_nest(make_project):
    workspace = make_project()
    with open_run(workspace, "outer", model="late") as outer:
        with outer.start("inner") as inner:
            inner.log_metric("auc", 0.7)
        with open_run(workspace, "other", parent=outer) as other:
            pass
    assert [get_run(workspace, run.ref).parent for run in (outer, inner, other)] == [None, outer.id, outer.id]
    assert get_run(workspace, inner.ref).model == "late"
    with pytest.raises(NotFoundError, match="parent of a run must be in the evaluation store"):
        open_run(workspace, parent="run:01ARZ3NDEKTSV4RRFFQ69G5FAV")


def test_a_run_is_seen_while_it_goes_on(make_project):
    workspace = make_project()
    with open_run(workspace) as run:
        run.log_metric("auc", 0.7, step=1)
        run.flush()
        seen = get_run(workspace, run.ref)
        assert (seen.status, seen.metrics) == ("running", {"auc": 0.7})
        assert not findings(workspace)
        tag_run(workspace, run.ref, {"late": "yes"}, note="seen")
    ended = get_run(workspace, run.ref)
    assert (ended.status, ended.tags, ended.note) == ("finished", {"late": "yes"}, "seen")
    assert not findings(workspace)


def test_a_kill_takes_the_last_moment_and_never_the_run(make_project, python):
    workspace = make_project()
    child = python(KILLED, workspace.root)
    ref = child.line()
    assert get_run(workspace, ref).status == "running"
    child.kill()
    stored = get_run(workspace, ref)
    assert (stored.status, stored.summary["error"]) == ("failed", "ProcessLost")
    assert stored.params == {"depth": 3}
    assert stored.points[0].value == 0.7  # logged a second before
    with workspace.records.read() as connection:
        assert not connection.execute(select(journal)).all()
        assert not connection.execute(select(heartbeats)).all()
    assert not findings(workspace)


def test_eight_processes_lose_nothing(make_project, python):
    workspace = make_project()
    writers = [python(MANY, workspace.root, number) for number in range(8)]
    assert [child.line() for child in writers] == ["ready"] * 8
    for child in writers:
        child.go()
    assert [child.end()[0] for child in writers] == [0] * 8
    stored = list_runs(workspace)
    assert len({run.id for run in stored}) == 80
    assert {run.name for run in stored} == {f"{number}/{place}" for number in range(8) for place in range(10)}
    for run in stored:
        place = int(run.name.partition("/")[2])
        assert run.metrics == {f"m{i}": place + i / 10 for i in range(20)}
    assert not findings(workspace)


def test_steps_count_on_and_a_second_value_replaces_the_first(make_project):
    workspace = make_project()
    with open_run(workspace) as run:
        for value in (1.0, 2.0):
            run.log_metric("loss", value)
        run.log_metric("loss", 5.0, step=10)
        run.log_metric("loss", 4.0)
        run.log_metric("loss", 3.0, step=0)
        run.log_metric("loss", 9.0, split="train")
    values = {(p.split, p.step): p.value for p in get_run(workspace, run.ref).points}
    assert values == {("test", 0): 3.0, ("test", 1): 2.0, ("test", 10): 5.0, ("test", 11): 4.0, ("train", 0): 9.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_finite_number_is_not_evaluable(make_project, value):
    workspace = make_project()
    with open_run(workspace) as run:
        run.log_metric("loss", value)
    stored = get_run(workspace, run.ref)
    assert stored.metrics == {"loss": None}
    said = [] if value is None else ["loss: 1 values were no finite numbers and are not evaluable"]
    assert stored.summary.get("warnings", []) == said
    assert not findings(workspace)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.log_metric("a\nb", 1), r"name of a metric must be one line.*got 'a\\nb'"),
        (lambda run: run.log_metric("m" * 251, 1), "one line of 1 to 250.*got '251 characters'"),
        (
            lambda run: run.log_metric("m", "high"),
            "metric m: a value of a metric must be a number of 64 bits; got 'str'",
        ),
        (
            lambda run: run.log_metric("m", 10**400),
            "must be a number of 64 bits; got 'int'",
        ),
        (lambda run: run.log_params({"x": ((loop := [1]) and loop.append(loop)) or loop}), "nested 20 deep at most"),
        (lambda run: run.log_metric("m", 1, step=1.5), "step must be a whole number"),
        (lambda run: run.log_metric("m", 1, better="up"), "better one way; got 'up'"),
        (lambda run: run.log_params({"x": object()}), r"parameter must be plain.*got 'object'.*str\(value\)"),
        (lambda run: run.log_params({"a": 2}), "a parameter must have one value; got 'a = 2 after 1'"),
        (lambda run: run.log_artifact(b"x"), "name of an artifact must be one line"),
        (lambda run: run.log_artifact("nowhere.txt"), "bytes or a file that exists; got 'nowhere.txt'"),
        (lambda run: run.log_artifact({"a": 1}), "bytes or a file that exists; got 'dict'"),
        (lambda run: run.log_figure("circle", "x"), "figure must be one of matplotlib or the text of an SVG"),
        (lambda run: run.log_dataset([1, 2]), "name of a table, or a frame"),
        (lambda run: run.set_tag("x", 3), "value of tag 'x' must be text"),
    ],
)
def test_what_may_be_logged_has_rules(make_project, call, message):
    """A refused call leaves the run open and everything else as it was."""
    workspace = make_project()
    with open_run(workspace, params={"a": 1}) as run:
        with pytest.raises(InputError, match=message):
            call(run)
        run.log_metric("auc", 0.7)
    assert get_run(workspace, run.ref).metrics["auc"] == 0.7


def test_a_run_that_ended_takes_nothing_more(make_project):
    workspace = make_project()
    run = open_run(workspace)
    run.end()
    for call in (lambda: run.log_metric("auc", 1), run.end):
        with pytest.raises(RefusedError, match="a run must be open to be logged to"):
            call()


def test_figures_are_plots_of_the_run(make_project):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.add_subplot().plot([1, 2])
    workspace = make_project()
    with open_run(workspace) as run:
        run.log_figure("<svg/>", "text")
        run.log_figure(figure, "drawn.svg")
    stored = get_run(workspace, run.ref)
    assert stored.plot("text") == b"<svg/>"
    assert b"<svg" in stored.plot("drawn")
    with pytest.raises(NotFoundError, match="Did you mean the plot 'drawn'"):
        stored.plot("dawn")


def test_a_store_that_is_busy_takes_it_later(make_project, monkeypatch):
    """Nothing is lost where a flush or an end fails: it is written by the next one."""
    workspace = make_project()
    run = open_run(workspace)

    def refuse(*_):
        raise RetryableError("the disk must take the change", where="store", got="an error", remedy="Free space")

    with monkeypatch.context() as patch:
        patch.setattr("retrodict.learning.runs.writer.write_events", refuse)
        run.log_metric("auc", 0.7)
        with pytest.raises(RetryableError):
            run.flush()
        run.log_metric("auc", 0.8)
        with pytest.raises(RetryableError):
            run.end()
    run.log_metric("auc", 0.9)
    run.end()
    assert [p.value for p in get_run(workspace, run.ref).points] == [0.7, 0.8, 0.9]


def test_an_ended_run_is_entered_without_anybody_looking(make_project):
    """Within a second or two by its own process, or when the project is closed."""
    workspace = make_project()
    with open_run(workspace) as run:
        pass
    deadline = time.monotonic() + 20
    while not workspace.ledger.entries(object_id=run.ref, action="run.finish") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workspace.ledger.entries(object_id=run.ref, action="run.finish")
    with open_run(workspace) as second:
        pass
    workspace.close()
    assert workspace.ledger.entries(object_id=second.ref, action="run.finish")


def test_tags_and_notes_change_later_in_the_ledger(make_project):
    workspace = make_project()
    with open_run(workspace, tags={"team": "risk", "stage": "one"}) as run:
        pass
    tagged = tag_run(workspace, run.ref, {"team": "fraud", "stage": None}, note="two\nlines")
    assert (tagged.tags, tagged.note) == ({"team": "fraud"}, "two\nlines")
    (entry,) = workspace.ledger.entries(object_id=run.ref, action="run.tag")
    assert entry.payload["tags"] == ["stage", "team"]
    assert "fraud" not in str(entry.payload["tags"])
    with pytest.raises(NotFoundError, match=r"a tag that is removed must be there; got 'tem'.*'team'"):
        tag_run(workspace, run.ref, {"tem": None})
    assert not findings(workspace)
    with workspace.records.write() as connection:
        connection.exec_driver_sql("UPDATE run_tags SET value = 'other'")
    assert [f.kind for f in findings(workspace)] == ["altered"]


def test_what_cannot_be_entered_holds_no_thread(make_project):
    """Closing says so, ends the thread that tries again and again, and whoever comes next enters the run."""
    before = set(threading.enumerate())  # another test's project may still be open
    workspace = make_project(TABLE)
    key = workspace.config.path("ledger.key")
    with open_run(workspace, "late") as run:
        run.log_metric("auc", 0.7)
        key = key.rename(key.with_name("away"))
    with pytest.raises(RetrodictError):
        workspace.close()
    assert "retrodict-runs" not in {thread.name for thread in set(threading.enumerate()) - before}
    key.rename(key.with_name("ledger.key"))
    entered = get_run(workspace, run.ref)
    assert (entered.status, entered.metrics["auc"]) == ("finished", 0.7)
