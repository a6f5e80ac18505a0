"""A metric of every version from training into production, against scikit-learn and the rows themselves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score
from tests.serving.project import START, make_project, parcels

from retrodict.core.clock import parse_time
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError, NotFoundError
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.learning import get_run, train
from retrodict.learning.runs import MetricPoint
from retrodict.monitoring import model_history
from retrodict.monitoring.history import _stages
from retrodict.registry import list_versions

NOW = parse_time("2024-03-01T00:00Z")


def decision(number: int, version: int, score: float | None, row: dict) -> DecisionRecord:
    """One decision about a parcel, a day after it was sent."""
    return DecisionRecord(
        id=f"{number:026d}", time=START + number * (DAY // 40), policy="promise", revision=1, policy_version="0" * 64,
        code="0" * 64, model=f"late_parcel@{version}", artifact="0" * 64, model_code="0" * 64, entities={}, context={},
        features={}, decision="ok", raw=score, score=score, fallback=None if score is not None else "ok", key=row["id"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Version 1 scores well, version 2 by chance; each made every second decision."""
    folder = tmp_path_factory.mktemp("history")
    workspace = make_project(folder)
    train(workspace, "late_parcel")
    rng = np.random.default_rng(5)
    rows = parcels().to_pylist()
    facts, records = [], []
    for number, row in enumerate(rows):
        version = 1 + number % 2
        late = row["delay"] > 3
        score = float(np.clip(rng.normal(0.6 if late and version == 1 else 0.4, 0.2), 0, 1)) if number % 11 else None
        records.append(decision(number, version, score, row))
        facts.append((version, START + number * (DAY // 40), score, late))
    with LogWriter(workspace) as writer:
        writer.append([encode_record(record) for record in records])
    frame = pd.DataFrame(facts, columns=["version", "time", "score", "late"])
    frame["month"] = pd.to_datetime(frame["time"], unit="us").dt.strftime("%Y-%m")
    yield workspace, frame
    workspace.close()


@pytest.mark.parametrize(("metric", "oracle"), [("auc", roc_auc_score), ("brier", brier_score_loss)])
def test_every_number_in_production_is_that_of_the_versions_own_decisions(world, metric, oracle):
    """All together and by month; decisions without a score are counted, and in no metric."""
    workspace, frame = world
    history = model_history(workspace, "late_parcel", now=NOW, metric=metric)
    lines = [line for line in history.lines if line.stage == "production"]
    assert [(line.version, line.period) for line in lines] == [
        (f"late_parcel@{version}", period) for version in (1, 2) for period in (None, "2024-01", "2024-02")
    ]
    for line in lines:
        own = frame[frame["version"] == int(line.version[-1])]
        own = own if line.period is None else own[own["month"] == line.period]
        scored = own[own["score"].notna()]
        assert (line.decisions, line.labelled) == (len(own), len(own))
        assert line.value == pytest.approx(oracle(scored["late"], scored["score"]), abs=1e-12)
        assert line.low < line.value < line.high


def test_test_rows_stand_beside_it_as_the_run_has_them(world):
    workspace, _ = world
    history = model_history(workspace, "late_parcel", now=NOW)
    assert history.metric == "auc"
    for version in list_versions(workspace, "late_parcel"):
        (test,) = [line for line in history.lines if line.version == version.ref and line.stage == "test"]
        (point,) = [p for p in get_run(workspace, version.run).points if (p.split, p.name) == ("test", "auc")]
        assert (test.value, test.low, test.high) == (point.value, point.low, point.high)
        stages = [line.stage for line in history.lines if line.version == version.ref]
        assert stages == ["train", "validate", "test", "production", "production", "production"]


def test_a_version_that_guesses_is_worse_than_its_test_rows(world):
    """The interval of the difference: of two independent estimates the squares of their errors add up."""
    workspace, _ = world
    history = model_history(workspace, "late_parcel", now=NOW)
    second = next(d for d in history.decays if d.version == "late_parcel@2")
    assert (second.policy, second.verdict) == ("promise", "worse")
    own = [line for line in history.lines if line.version == "late_parcel@2"]
    test, whole = next(x for x in own if x.stage == "test"), next(x for x in own if x.stage == "production")
    assert second.difference == pytest.approx(whole.value - test.value)
    half = math.sqrt((test.high - test.low) ** 2 + (whole.high - whole.low) ** 2) / 2
    assert (second.low, second.high) == pytest.approx((second.difference - half, second.difference + half))
    assert second.high < 0


def test_the_direction_of_a_metric_decides_what_is_worse(world):
    """A greater Brier score is worse, a greater AUC is not."""
    workspace, _ = world
    brier = model_history(workspace, "late_parcel", now=NOW, metric="brier")
    second = next(d for d in brier.decays if d.version == "late_parcel@2")
    assert second.difference > 0
    assert second.verdict == "worse"


def test_a_metric_that_is_right_at_one_value_has_only_changed(world):
    """Nobody says that a greater base rate is better."""
    workspace, _ = world
    history = model_history(workspace, "late_parcel", now=NOW, metric="calibration_ratio")
    assert {d.verdict for d in history.decays} <= {"changed", "within noise", "not evaluable"}


def test_of_a_time_before_the_outcomes_nothing_is_measured(world):
    """As of an instant: fewer decisions, and a reason in place of a number."""
    workspace, _ = world
    early = model_history(workspace, "late_parcel", now=START + DAY)
    whole = next(line for line in early.lines if line.stage == "production")
    assert (whole.decisions, whole.labelled, whole.value) == (20, 0, None)
    assert whole.reason == "no outcome is known yet"
    assert {d.verdict for d in early.decays} == {"not evaluable"}


def test_fewer_outcomes_than_asked_for_have_no_metric(world):
    """All together as by month: a bound above both is a reason, never a number."""
    workspace, frame = world
    history = model_history(workspace, "late_parcel", now=NOW, min_labels=len(frame))
    lines = [line for line in history.lines if line.stage == "production"]
    assert [line.value for line in lines] == [None] * 6
    assert all("fewer" in line.reason for line in lines)


def test_the_last_step_of_a_metric_is_its_value(world):
    """A run may tell of a metric after every iteration, in any order."""
    run = replace(get_run(world[0], list_versions(world[0], "late_parcel")[0].run), points=[
        MetricPoint("test", "auc", value, step) for step, value in ((1, 0.5), (3, 0.8), (2, 0.6))])  # fmt: skip
    assert [line.value for line in _stages(world[0], "late_parcel@1", run, "auc")] == [0.8]


def test_no_version_and_no_metric_are_named(world):
    workspace, _ = world
    with pytest.raises(NotFoundError, match="must have a version to have a history; got 'late_parcle'"):
        model_history(workspace, "late_parcle", now=NOW)
    with pytest.raises(InputError, match=r"history of late_parcel.*got 'bier'.*'brier'"):
        model_history(workspace, "late_parcel", now=NOW, metric="bier")


def test_it_is_shown_and_drawn(world):
    """Reasons stand where an interval would; the plot has a line for each version."""
    workspace, _ = world
    history = model_history(workspace, "late_parcel", now=NOW, period="7d")
    text = str(history)
    assert "policy promise" in text
    assert "not over" in text or all(line.complete for line in history.lines)
    svg = history.plot()
    assert svg.startswith("<svg") or "<svg" in svg[:400]
    assert "late_parcel@2 (promise)" in svg
    with pytest.raises(InputError):
        model_history(workspace, "late_parcel", now=START).plot()
