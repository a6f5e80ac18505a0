"""A window of past traffic through another version or policy, against answers computed one by one from the rows."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from tests.rollout.traffic import ask_past, make_world

from retrodict import Project
from retrodict.core.clock import to_micros
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError, NotFoundError, RefusedError
from retrodict.decisions import read_decisions
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import encode_record
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import get_version
from retrodict.rollout.pairs import Reproducer, reproduce_champion


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("window") / "parcels"
    make_world(root)
    return root, ask_past(root, 240)


@pytest.fixture
def world(original, tmp_path):
    root = Path(shutil.copytree(original[0], tmp_path / "parcels"))
    with Project(root, actor="ana") as project:
        yield project, original[1]


def test_another_version_is_scored_on_the_logged_values_and_compared_on_outcomes(world):
    """Each row by ``score_row``, the area by scikit-learn, changes by hand; every original comes out bit for bit."""
    project, rows = world
    result = project.challengers.replay("promise", model="late_parcel@2", by=["depot"])
    artifact = ModelArtifact.load(project.workspace.objects, get_version(project.workspace, "late_parcel@2").artifact)
    log, pairs = project.decisions.table("promise").to_pylist(), result.table.to_pylist()
    assert len(pairs) == len(rows) == 240
    expected = [artifact.score_row(one).score for one in log]
    assert [one["replayed__score"] for one in pairs] == expected
    decided = ["warn" if score >= 0.5 else "ok" for score in expected]
    assert [one["replayed__decision"] for one in pairs] == decided
    assert [one["match"] for one in pairs] == [a == b["decision"] for a, b in zip(decided, log, strict=True)]
    report = result.report
    assert report.reproduced == {"checked": 240, "mismatches": 0}
    assert result.ok
    assert report.read_again == 0
    assert report.agreement.value == np.mean([one["match"] for one in pairs])
    assert sum(report.changes.values()) == sum(not one["match"] for one in pairs)
    labels = [row["delay"] > 3 for row in rows]
    old, new = [one["score"] for one in log], expected
    assert report.quality.auc_difference.value == pytest.approx(
        roc_auc_score(labels, new) - roc_auc_score(labels, old), abs=1e-12
    )
    assert {(one.group, one.decisions) for one in report.groups} == {
        (name, sum(row["depot"] == name for row in rows)) for name in ("north", "south", "east")
    }
    assert [e for e in project.ledger.log() if e.action == "decisions.replay"]


def test_what_the_log_lacks_is_read_as_of_each_decision(world):
    """A count over three days of a view that the champion does not have, by hand; nothing from then on is seen."""
    project, rows = world
    result = project.challengers.replay("promise", model="wide@1")
    assert result.report.read_again == len(rows)
    assert not result.report.set_aside
    artifact = ModelArtifact.load(project.workspace.objects, get_version(project.workspace, "wide@1").artifact)
    every = project.data.read("parcels").to_pylist()
    log = {one["id"]: one for one in project.decisions.table("promise").to_pylist()}
    for pair in result.table.to_pylist():
        one, at = log[pair["id"]], pair["time"]
        count = sum(row["depot"] == one["entity__depot"] and at - 3 * DAY <= to_micros(row["sent"]) < at
                    and to_micros(row["arrived"]) < at for row in every)  # fmt: skip
        assert pair["replayed__score"] == artifact.score_row({**one, "express_delays__count_3d": float(count)}).score


def test_another_policy_decides_by_its_own_rules_and_thresholds(world):
    """Same version, lower threshold, and express parcels by a rule."""
    project, rows = world
    result = project.challengers.replay("promise", other="strict")
    for pair, row in zip(result.table.to_pylist(), rows, strict=True):
        assert pair["replayed__score"] == pair["score"]
        assert pair["replayed__decision"] == ("warn" if row["express"] or pair["score"] >= 0.3 else "ok")
    assert set(result.report.changes) == {"ok -> warn"}


def test_only_the_window_is_replayed(world):
    """From the first moment on, before the last."""
    project, _ = world
    times = project.decisions.table("promise").column("time").to_pylist()
    result = project.challengers.replay("promise", model="late_parcel@2", start=times[10], end=times[20])
    assert result.table.column("time").to_pylist() == times[10:20]
    with pytest.raises(InputError, match="must hold decisions"):
        project.challengers.replay("promise", start=times[-1] + 1)


def test_several_processes_give_the_same_rows_as_one(world, monkeypatch):
    """Chunks of 40, two processes."""
    project, _ = world
    monkeypatch.setattr("retrodict.rollout.window.CHUNK", 40)
    one = project.challengers.replay("promise", model="wide@1")
    rows = one.table.drop_columns("replayed__micros")
    two = project.challengers.replay("promise", model="wide@1", jobs=2)
    assert two.chunks > 5
    assert two.table.drop_columns("replayed__micros").equals(rows)


def test_a_replay_that_was_killed_goes_on(world):
    """Killed after five chunks: the same call does the others only, and the rows are those of one go."""
    project, _ = world
    script = (
        "import os, signal, sys\n"
        "import retrodict.rollout.window as window\n"
        "from retrodict import Project\n"
        "window.CHUNK = 20\n"
        "def stop(what, done, total):\n"
        "    if done == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Project(sys.argv[1], actor='ana', progress=stop).challengers.replay('promise', model='wide@1')\n"
    )
    command = [sys.executable, "-c", script, str(project.folder)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    result = project.challengers.replay("promise", model="wide@1")
    assert (result.chunks, result.resumed) == (12, 5)
    rows = result.table.drop_columns("replayed__micros")
    assert project.challengers.replay("promise", model="wide@1").table.drop_columns("replayed__micros").equals(rows)
    assert not [one for one in (project.folder / "state" / "replays").iterdir() if one.is_dir()]


def test_a_view_that_was_changed_is_not_taken_from_the_log(world):
    """Of the same name and with the same columns, but other values: they are read again."""
    project, rows = world
    text = (project.folder / "definitions.py").read_text()
    (project.folder / "definitions.py").write_text(text.replace('max_age="48h"', 'max_age="1h"'))
    with Project(project.folder, actor="ana") as again:
        again.train("late_parcel")
        result = again.challengers.replay("promise", model="late_parcel@3")
        assert result.report.read_again == len(rows)
        artifact = ModelArtifact.load(again.workspace.objects, get_version(again.workspace, "late_parcel@3").artifact)
        log = again.decisions.table("promise").to_pylist()
        unknown = [artifact.score_row({**one, "depot_delays__latest_delay": None}).score for one in log]
        assert [one["replayed__score"] for one in result.table.to_pylist()] == unknown  # none arrives within an hour


def test_values_that_are_masked_cannot_be_replayed_and_are_said(original, tmp_path):
    """A policy that hides the weight: every request is set aside, none is guessed."""
    root = Path(shutil.copytree(original[0], tmp_path / "masked"))
    text = (root / "definitions.py").read_text()
    hides = 'deadline="5s", personal=["weight", "size__weight"])'
    (root / "definitions.py").write_text(text.replace('deadline="5s")', hides))
    with Project(root, actor="ana") as project:
        revision = project.deploy("promise", model="late_parcel@1", reason="hide", force="test")
        values = {"weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
        project.decide("promise", depot="north", **values)
        report = project.challengers.replay("promise", model="late_parcel@2", start=revision.time).report
    assert report.compared == 0
    assert report.set_aside == {"masked in the log: size__weight, weight": 1}
    assert report.agreement.value is None
    assert report.verdict == "inconclusive"


def test_a_challenger_that_needs_what_nobody_sends_is_refused(world):
    """``strange`` reads the number of the parcel."""
    project, _ = world
    with pytest.raises(RefusedError, match=r"must read what requests.*'id'.*Train it without"):
        project.challengers.replay("promise", model="strange@1")
    with pytest.raises(NotFoundError):
        project.challengers.replay("promise", model="late_parcel@7")
    with pytest.raises(NotFoundError):
        project.challengers.replay("nobody")


def test_costs_and_accuracy_are_paired_on_known_outcomes(world):
    """By hand, and McNemar's test by statsmodels."""
    project, rows = world
    text = (project.folder / "definitions.py").read_text()
    costs = 'costs={"warn": {"yes": 1, "no": 5}, "ok": {"yes": 40, "no": 0}}, deadline="5s")'
    (project.folder / "definitions.py").write_text(text.replace('deadline="5s")', costs))
    table = {("warn", True): 1, ("warn", False): 5, ("ok", True): 40, ("ok", False): 0}
    with Project(project.folder, actor="ana") as again:
        result = again.challengers.replay("promise", model="wide@1", other="strict")
    late, metrics = [row["delay"] > 3 for row in rows], {one.name: one for one in result.report.paired}
    pairs = list(zip(result.table.to_pylist(), late, strict=True))
    old, new = ([table[pair[side], label] for pair, label in pairs] for side in ("decision", "replayed__decision"))
    assert metrics["cost_difference"].value == pytest.approx(np.mean(new) - np.mean(old))
    assert metrics["cost_difference"].low < metrics["cost_difference"].value < metrics["cost_difference"].high
    right = np.array([[(pair[side] == "warn") == label for side in ("decision", "replayed__decision")]
                      for pair, label in pairs])  # fmt: skip
    lost, won = int((right[:, 0] & ~right[:, 1]).sum()), int((~right[:, 0] & right[:, 1]).sum())
    assert won + lost > 5
    assert metrics["accuracy_difference"].value == pytest.approx((won - lost) / len(rows))
    exact = mcnemar([[0, lost], [won, 0]], exact=True).pvalue  # the mid-p is a little smaller
    assert exact * 0.5 < metrics["mcnemar_p"].value <= exact
    score = [pair["replayed__score"] for pair, _ in pairs]
    expected = np.mean([p * table[b, True] + (1 - p) * table[b, False] - p * table[a, True] - (1 - p) * table[a, False]
                        for p, (pair, _) in zip(score, pairs, strict=True)
                        for a, b in [(pair["decision"], pair["replayed__decision"])]])  # fmt: skip
    assert metrics["expected_cost_difference"].value == pytest.approx(expected)


def test_outcomes_that_a_decision_hides_are_said(world):
    """Outcomes of warned parcels never came: no verdict on them is passed over in silence."""
    project, _ = world
    log = project.decisions.table("promise").to_pylist()
    count = sum(one["decision"] == "ok" for one in log)
    rows = Path(project.folder) / "outcomes.csv"
    void = [f"{one['id']},,2024-03-01T00:00Z" for one in log if one["decision"] == "warn"]
    rows.write_text("\n".join(["decision_id,label,known_at", *void]) + "\n")
    project.outcomes.ingest("promise", rows)
    report = project.challengers.replay("promise", other="strict").report
    assert report.outcomes["known"] == count
    (text,) = report.warnings
    assert "outcomes of 'warn' are known of 0% only" in text


def test_what_a_fallback_scored_with_the_values_at_hand_is_reproduced(world):
    """The version before has scored values of a view that is defined otherwise today: they are what it saw."""
    project, _ = world
    text = (project.folder / "definitions.py").read_text()
    (project.folder / "definitions.py").write_text(text.replace('max_age="48h"', 'max_age="1h"'))
    with Project(project.folder, actor="ana") as again:
        again.train("late_parcel")
        code = get_version(again.workspace, "late_parcel@3").code
        record = next(read_decisions(again.workspace, policy="promise")).record
        fallback = structs.replace(record, fallback="previous_version", model_code=code)
        assert Reproducer(again.workspace).check([record, fallback]) == [True, True]
        assert Reproducer(again.workspace).check([structs.replace(record, raw=record.raw + 1e-15)]) == [False]


def test_a_name_that_no_request_has_is_said(world):
    project, _ = world
    (text,) = project.challengers.replay("promise", by=["colour"]).report.warnings
    assert text == "no request has 'colour': nothing is grouped by it"


def test_the_page_has_the_report_and_its_plots(world, tmp_path):
    project, _ = world
    file = tmp_path / "window.html"
    project.challengers.replay("promise", other="strict", by=["depot"], html=file)
    text = file.read_text()
    assert text.count("<svg") == 4
    assert "strict" in text


def test_a_comparison_is_a_replay_of_all_decisions_as_of_a_time(world):
    """Outcomes that are known later do not enter; the champion against itself is inconclusive, without a change."""
    project, rows = world
    known = sorted(row["arrived"] for row in rows)
    report = project.compare("promise", "late_parcel@2", now=known[100])
    assert report.outcomes["known"] == 100
    assert report.outcomes["pending"] + report.outcomes["void"] == 140
    same = project.compare("promise", "late_parcel@1")
    assert (same.verdict, dict(same.changes), same.quality.score_distance.value) == ("inconclusive", {}, 0.0)
    assert same.outcomes["known"] == 240
    with pytest.raises(NotFoundError):
        project.compare("nobody", "late_parcel@1")


def test_all_logged_answers_come_out_bit_for_bit(world):
    """But one whose last bit was altered, and one whose decision was; what has no score is counted."""
    project, _ = world
    workspace = project.workspace
    assert reproduce_champion(workspace, "promise").to_dict() == {
        "checked": 240, "mismatches": 0, "unscored": 0, "models": {"late_parcel@1": {"checked": 240, "mismatches": 0}}
    }  # fmt: skip
    record = next(read_decisions(workspace, policy="promise")).record
    other = "ok" if record.decision == "warn" else "warn"
    copies = [
        structs.replace(record, id="0" * 26, score=float(np.nextafter(record.score, 1.0))),
        structs.replace(record, id="0" * 25 + "1", decision=other),
        structs.replace(record, id="0" * 25 + "2", model="", score=None, raw=None, fallback="ok"),
    ]
    with LogWriter(workspace) as writer:
        writer.append([encode_record(one) for one in copies])
    result = reproduce_champion(workspace, "promise")
    assert (result.checked, result.mismatches, result.unscored) == (242, 2, 1)
