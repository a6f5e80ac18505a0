"""What a run is beside its numbers: kind, name, parent, tags and note, also in a store of before they were kept."""

import json
from dataclasses import replace

import pytest
import sqlalchemy as sa

from retrodict.core.errors import InputError, NotFoundError
from retrodict.learning.runs import MetricPoint, Run, finish_run, get_run, list_runs, start_run
from retrodict.learning.runs.schema import metadata
from retrodict.ledger import verify
from retrodict.project.ledger import VOUCHED

# As the tables were when a run was a training and nothing else.
FORMER = """
CREATE TABLE runs (id VARCHAR(26) NOT NULL, model VARCHAR(63) NOT NULL, status VARCHAR(20) NOT NULL,
  actor VARCHAR(200) NOT NULL, started BIGINT NOT NULL, finished BIGINT, seconds FLOAT, seed BIGINT NOT NULL,
  code VARCHAR(64) NOT NULL, environment VARCHAR(64) NOT NULL, data TEXT NOT NULL, params TEXT NOT NULL,
  summary TEXT NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_runs_model ON runs (model);
CREATE TABLE run_heartbeats (run VARCHAR(26) NOT NULL, machine VARCHAR(120) NOT NULL, process BIGINT NOT NULL,
  began BIGINT NOT NULL, time BIGINT NOT NULL, PRIMARY KEY (run));
CREATE TABLE run_metrics (run VARCHAR(26) NOT NULL, split VARCHAR(60) NOT NULL, name VARCHAR(60) NOT NULL,
  step INTEGER NOT NULL, value FLOAT, low FLOAT, high FLOAT, PRIMARY KEY (run, split, name, step));
CREATE TABLE run_artifacts (run VARCHAR(26) NOT NULL, name VARCHAR(120) NOT NULL, digest VARCHAR(64) NOT NULL,
  media VARCHAR(60) NOT NULL, PRIMARY KEY (run, name));
CREATE INDEX run_artifacts_digest ON run_artifacts (digest)
"""
ROW = {
    "model": "late",
    "status": "finished",
    "actor": "ann",
    "started": 5,
    "finished": 9,
    "seconds": 1.5,
    "seed": 7,
    "code": "c",
    "environment": "e",
    "data": '{"versions": {}}',
    "params": '{"trees": 3}',
    "summary": "{}",
}


def run_of(workspace, **fields):
    code, environment = workspace.objects.put(b"{}"), workspace.objects.put(b"[]")
    plain = {"seed": 0, "code": code, "environment": environment, "data": {"versions": {}}, "params": {}}
    return Run(workspace.new_id(), "late", "running", "ann", workspace.clock.now(), **(plain | fields))


def close(workspace, run, **fields):
    with workspace.ledger.transaction() as tx:
        finish_run(tx, replace(run, status="finished", finished=workspace.clock.now(), **fields))


def findings(workspace):
    stores = {"data": workspace.tables, "objects": workspace.objects, "streams": workspace.streams}
    report = verify(workspace.ledger, **stores, tables=VOUCHED)
    return [
        one for one in report.findings if one.where != "records"
    ]  # the types of columns that the former version had


def columns(workspace):
    with workspace.records.read() as connection:
        inspector = sa.inspect(connection)
        return {
            name: ({c["name"] for c in inspector.get_columns(name)}, {i["name"] for i in inspector.get_indexes(name)})
            for name in metadata.tables
        }


def former_store(workspace):
    """A finished run as the former version wrote it, its rows vouched for by the columns there were."""
    tables = sa.MetaData()
    with workspace.ledger.transaction() as tx:
        for statement in FORMER.split(";"):
            tx.connection.exec_driver_sql(statement)
        tables.reflect(tx.connection, only=["runs", "run_metrics"])
        run, metric = tables.tables["runs"], tables.tables["run_metrics"]
        tx.connection.execute(run.insert().values(id="01A", **ROW))
        tx.connection.execute(metric.insert().values(run="01A", split="test", name="auc", step=0, value=0.8))
        tx.vouch(run, {"id": "01A"})
        tx.vouch(metric, {"run": "01A"})
        tx.append("run.finish", "run:01A")


def test_a_store_of_the_former_version_opens_with_its_runs(make_project):
    """Old runs read as trainings, new ones stand beside them, the columns and indexes are those of a new store."""
    workspace = make_project()
    former_store(workspace)
    (old,) = list_runs(workspace)
    assert (old.id, old.metrics, old.params) == ("01A", {"auc": 0.8}, {"trees": 3})
    assert (old.kind, old.name, old.parent, old.tags, old.note) == ("train", "", None, {}, "")
    run = run_of(workspace, kind="hand", name="a try", tags={"team": "risk"}, note="two\nlines")
    start_run(workspace, run)
    close(workspace, run)
    assert [r.id for r in list_runs(workspace)] == [run.id, "01A"]
    assert not findings(workspace)
    fresh = make_project(folder="fresh")
    fresh.records.ensure(metadata)
    assert columns(workspace) == columns(fresh)


def test_a_former_row_that_was_altered_is_still_found(make_project):
    workspace = make_project()
    former_store(workspace)
    list_runs(workspace)
    with workspace.records.write() as connection:
        connection.execute(sa.text("UPDATE runs SET status = 'failed'"))
    assert [f.kind for f in findings(workspace)] == ["altered"]


def test_a_run_comes_back_with_everything(make_project):
    workspace = make_project()
    study = run_of(workspace, kind="tune", name="sixty trials")
    start_run(workspace, study)
    trial = run_of(workspace, kind="trial", parent=study.id, tags={"sampler": "tpe"}, note="n", params={"depth": 3})
    start_run(workspace, trial)
    close(workspace, trial, points=[MetricPoint("test", "auc", 0.7)])
    stored = get_run(workspace, trial.ref)
    assert (stored.kind, stored.parent, stored.tags, stored.note) == ("trial", study.id, {"sampler": "tpe"}, "n")
    shown = json.loads(json.dumps(stored.to_dict()))
    assert (shown["kind"], shown["parent"], shown["tags"]) == ("trial", study.ref, {"sampler": "tpe"})
    assert [r.id for r in list_runs(workspace)] == [study.id]
    assert [r.id for r in list_runs(workspace, kinds=("trial",))] == [trial.id]
    assert not findings(workspace)


def test_lists_come_in_pages(make_project):
    workspace = make_project()
    started = [run_of(workspace) for _ in range(5)]
    for run in started:
        start_run(workspace, run)
    ids = [run.id for run in reversed(started)]
    assert len(set(ids)) == 5  # the clock stands still
    pages = [[run.id for run in list_runs(workspace, limit=2, page=page)] for page in (1, 2, 3, 4)]
    assert pages == [ids[:2], ids[2:4], ids[4:], []]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "trail"}, r"of a known kind; got 'trail'.*'trial'"),
        ({"name": "two\nlines"}, r"one line of 1 to 200 printable characters; got 'two\\nlines'"),
        ({"name": "n" * 201}, "one line of 1 to 200 printable characters; got '201 characters'"),
        ({"tags": {"": "x"}}, "name of a tag must be one line"),
        ({"tags": {"team": 3}}, "value of tag 'team' must be text of at most 5,000 characters.*'int'"),
        ({"note": "n" * 20_001}, "note of a run must be text"),
    ],
)
def test_what_a_run_is_called_has_rules(make_project, fields, message):
    workspace = make_project()
    with pytest.raises(InputError, match=message):
        start_run(workspace, run_of(workspace, **fields))


def test_a_parent_must_be_a_run(make_project):
    workspace = make_project()
    with pytest.raises(NotFoundError, match="parent of a run must be in the evaluation store; got '01Z'"):
        start_run(workspace, run_of(workspace, parent="01Z"))
