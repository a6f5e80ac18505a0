"""Runs side by side, what changed between them in words, and runs as a flat table."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict import Project
from retrodict.cli.main import run as main
from retrodict.core.errors import InputError, NotFoundError
from retrodict.data.ingest import ingest
from retrodict.learning import compare_runs, open_run

TABLE = 'from retrodict import Table\nshops = Table("shops", columns={"id": "int"})\n'


@pytest.fixture
def two(make_project):
    """Two runs of one table, between which rows, code, a parameter, a frame and the seed changed."""
    workspace = make_project(TABLE)
    refs = []
    for place in range(2):
        ingest(workspace, "shops", pa.table({"id": [place + 1]}))
        with open_run(workspace, f"run {place}", params={"trees": 10 * (place + 1), "same": [1]}, seed=place) as run:
            run.log_dataset("shops")
            run.log_dataset(pa.table({"x": [place]}), "scored")
            for step in range(3):
                run.log_metric("auc", 0.5 + (step + place) / 10, step=step)
            run.log_metric("own", 1.0) if place else run.set_tag("team", "risk")
        refs.append(run.ref)
        (workspace.root / "steps.py").write_text(f"x = {place}\n")
    return workspace, refs


def test_what_changed_is_said_in_words(two):
    workspace, refs = two
    compared = compare_runs(workspace, refs)
    assert compared["changes"] == {refs[1]: [
        "data changed: shops@0 → @1",
        "data changed: frame scored, 1 rows → 1 rows, other values",
        "code changed: steps.py",
        "parameter changed: trees, 10 → 20",
        "seed changed: 0 → 1",
    ]}  # fmt: skip
    assert compared["metrics"] == {"auc": [0.7, 0.8], "own": [None, 1.0]}
    assert compared["histories"]["auc"] == [[(0, 0.5), (1, 0.6), (2, 0.7)], [(0, 0.6), (1, 0.7), (2, 0.8)]]
    assert compare_runs(workspace, [refs[0], refs[0]])["changes"] == {refs[0]: []}


def test_a_comparison_has_plots(two):
    workspace, refs = two
    project = Project(workspace.root, actor="ann")
    compared = project.runs.compare(*refs)
    assert "data changed: shops@0 → @1" in str(compared)
    assert refs[1] in str(compared.plot("auc", by_step=True))
    assert "not evaluable" in str(compared.plot("own"))
    with pytest.raises(NotFoundError, match="Did you mean the metric 'auc'"):
        compared.plot("acu")
    project.close()


def test_an_export_has_a_row_per_run_and_a_column_per_value(two, tmp_path):
    workspace, refs = two
    with Project(workspace.root, actor="ann") as project:
        for ending in ("csv", "json", "parquet"):
            assert project.runs.export(tmp_path / f"runs.{ending}").runs == 2
        assert project.runs.export(tmp_path / "one.csv", where="tags.team = 'risk'").runs == 1
        with pytest.raises(InputError, match="known format; got 'xlsx'"):
            project.runs.export(tmp_path / "runs.xlsx")
    rows = json.loads((tmp_path / "runs.json").read_text())
    assert [row["run"] for row in rows] == refs[::-1]
    assert [row["metrics.auc"] for row in rows] == [0.8, 0.7]
    assert [row["params.trees"] for row in rows] == [20, 10]
    assert [row["tags.team"] for row in rows] == [None, "risk"]
    assert rows[0]["params.same"] == "[1]"
    assert pq.read_table(tmp_path / "runs.parquet").to_pylist() == rows
    with Path(tmp_path / "runs.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows] == written


def test_the_commands_answer_in_json(two, capsys):
    workspace, refs = two

    def run(*arguments):
        capsys.readouterr()
        main(["runs", *arguments, "--project", str(workspace.root), "--json"])
        return json.loads(capsys.readouterr().out)

    assert [row["run"] for row in run("search", "metrics.auc > 0.75")["runs"]] == [refs[1]]
    assert run("best", "auc")["run"] == refs[1]
    assert run("compare", *refs)["changes"][refs[1]][0] == "data changed: shops@0 → @1"
    assert run("tag", refs[0], "team=", "stage=one", "--note", "seen")["tags"] == {"stage": "one"}
    assert run("list", "--limit", "1", "--page", "2")["runs"][0]["run"] == refs[0]
    assert "Did you mean the metric 'auc'" in json.dumps(run("search", "metrics.acu > 1"))
