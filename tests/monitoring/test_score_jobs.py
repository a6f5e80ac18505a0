"""Batch scores watched as decisions are: against the version's own rows, the job before, and outcomes by now."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score
from tests.learning.test_score_job import TREES
from tests.project.test_tasks import HOURS, LATE, rows, write
from tests.serving.project import DAYS, START

from retrodict import Project
from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.monitoring.drift import read_reference

REGRESSION = '{"call": "value > 8", "ok": "otherwise"}'


def make(folder, label, decide):
    folder.mkdir()
    write(folder, label, TREES, decide)
    project = Project(folder, actor="ana", clock=SimulatedClock(START + DAYS * DAY))
    project.data.ingest("parcels", rows())
    project.train("parcel")
    return project


@pytest.fixture
def project(tmp_path):
    with make(tmp_path / "project", LATE, '{"call": "score > 0.5", "ok": "otherwise"}') as opened:
        yield opened


def score(project, table, name, **options):
    source = project.folder.parent / f"in-{name.rpartition('/')[2]}.parquet"
    pq.write_table(table, source)
    output = name if name.startswith("delta:") else str(project.folder.parent / name)
    return project.models.score_files("parcel", input=str(source), output=output, **{"columns": ["id"]} | options)


def shifted(table):
    """Heavier parcels of the worst depot."""
    weight = pa.array(np.asarray(table.column("weight")) * 0 + 99.0)
    table = table.set_column(table.schema.get_field_index("weight"), "weight", weight)
    depot = pa.array([max(set(table.column("depot").to_pylist()))] * table.num_rows)
    return table.set_column(table.schema.get_field_index("depot"), "depot", depot)


def psi_of(p, q):
    """By the formula, with half a row in each bin that is not empty in both."""
    used = (p > 0) | (q > 0)
    p, q = p[used] + 0.5, q[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def test_jobs_are_compared_with_the_test_rows_and_with_each_other(project):
    """The same world is no drift, another one is; and back is one from the job before, and none from the test rows."""
    table = rows()
    half, other = table.slice(0, 900), table.slice(900, 900)
    for name, part in (("a.parquet", half), ("b.parquet", other), ("c.parquet", shifted(other)), ("d.parquet", half)):
        score(project, part, name, chunk=400)
    history = project.models.score_history("parcel")
    statuses = [(job.against_test["score"].status, job.against_before["score"].status if job.against_before else None)
                for job in history.jobs]  # fmt: skip
    assert statuses == [("no drift", None), ("no drift", "no drift"), ("drift", "drift"), ("no drift", "drift")]
    assert history.ok
    third = history.jobs[2]
    assert {"score", "size__weight"} <= set(third.drifted)
    assert "moment__hour" not in third.drifted
    artifact = project.models.get("parcel@1").artifact
    from retrodict.models.artifact import ModelArtifact

    metadata = ModelArtifact.load(project.workspace.objects, artifact).metadata
    profile = read_reference(project.workspace.objects, metadata).features["score"]
    counted = [profile.profile.count(pq.read_table(project.folder.parent / name).column("score"))
               for name in ("b.parquet", "c.parquet")]  # fmt: skip
    assert third.against_test["score"].psi == pytest.approx(psi_of(profile.counts, counted[1]))
    assert third.against_before["score"].psi == pytest.approx(psi_of(*counted))
    assert third.against_before["score"].critical_value > 0
    assert [job.job for job in project.models.score_history("parcel@1", last=2).jobs] == [
        job.job for job in history.jobs[2:]]  # fmt: skip
    assert project.models.score_history("parcel", last=2).jobs[0] == third


def test_the_command_says_no_when_the_newest_scores_drifted(project):
    score(project, rows(), "a.parquet")
    command = [sys.executable, "-m", "retrodict", "models", "score-history", "parcel", "--project", str(project.folder)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    score(project, shifted(rows()), "b.parquet")
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "reaches the threshold 0.25" in " ".join(answer.stdout.split())
    body = json.loads(subprocess.run([*command, "--json"], check=False, capture_output=True, text=True).stdout)
    assert [job["against_test"]["score"]["status"] for job in body["jobs"]] == ["no drift", "drift"]


@pytest.mark.parametrize("output", ["o.parquet", "o.csv", "folder", "delta"])
def test_outcomes_that_are_known_give_quality(project, output):
    """The metric of the task over the rows whose outcome was known at the time, by scikit-learn."""
    table = rows()
    score(project, table, f"delta:{project.folder.parent}/lake" if output == "delta" else output)
    labels = np.asarray(table.column("delay")) > 6
    scores = np.asarray(project.models.score("parcel@1", table).column("score"))
    arrived = np.array(table.column("arrived").cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
    seen = arrived < START + DAYS * DAY
    (job,) = project.models.score_history("parcel").jobs
    assert (job.labelled, job.quality.name) == (int(seen.sum()), "auc")
    assert job.labelled < len(labels)
    assert job.quality.value == pytest.approx(roc_auc_score(labels[seen], scores[seen]))
    assert job.quality.low < job.quality.value < job.quality.high
    assert 0.5 < job.test < 1
    now = int(np.sort(arrived)[len(arrived) // 2])
    from retrodict.monitoring.score_jobs import _Side
    from retrodict.registry import get_version

    entry = project.workspace.ledger.entries(action="scores.write")[-1]
    side = _Side.of(project.workspace, get_version(project.workspace, "parcel@1"))
    then = side.measure(project.workspace, job, entry.payload, now=now, min_labels=100)
    seen = arrived < now
    assert then.labelled == int(seen.sum())
    assert then.quality.value == pytest.approx(roc_auc_score(labels[seen], scores[seen]))


def test_why_there_is_no_quality_is_said(project):
    """Without the key, moved, altered, too few; drift needs none of it."""
    score(project, rows(), "a.parquet", columns=["depot"])
    score(project, rows().slice(0, 20), "b.parquet")
    score(project, rows(), "c.parquet")
    score(project, rows(), "d.parquet", chunk=500)
    folder = project.folder.parent
    (folder / "c.parquet").unlink()
    body = bytearray((folder / "d.parquet").read_bytes())
    body[len(body) // 2] ^= 1
    (folder / "d.parquet").write_bytes(body)
    jobs = project.models.score_history("parcel").jobs
    assert all(job.quality.value is None for job in jobs)
    gone = "must be there, unaltered"
    for job, words in zip(jobs, ("must have the key", "fewer than", gone, gone), strict=True):
        assert words in job.quality.reason
    assert [job.against_test["score"].status for job in jobs] == ["no drift", "not evaluable", "no drift", "no drift"]


def test_numbers_are_watched_as_probabilities_are(tmp_path):
    """Of a regression: the value's index, and the error."""
    with make(tmp_path / "project", HOURS, REGRESSION) as project:
        score(project, rows(), "a.parquet")
        assert project.models.score_files("parcel", input=str(tmp_path / "in-a.parquet.parquet"),
                                          output=str(tmp_path / "a.parquet"), columns=["id"]).psi < 0.1  # fmt: skip
        (job,) = project.models.score_history("parcel").jobs
        assert job.against_test["output__value"].status == "no drift"
        values = np.asarray(project.models.score("parcel@1", rows()).column("value"))
        assert job.quality.name in ("mae", "rmse")
        if job.quality.name == "mae":
            assert job.quality.value == pytest.approx(mean_absolute_error(np.asarray(rows().column("delay")), values))
