"""Rollouts by the project and by commands: what they say, as text, data and page."""

import json
import random
import shutil

import pytest
from tests.rollout.conftest import original, original_pair  # noqa: F401  (fixtures)
from tests.rollout.test_ladder import START, add

from retrodict import Project
from retrodict.cli.main import run as run_command
from retrodict.core.clock import SimulatedClock, SystemClock
from retrodict.core.durations import HOUR


@pytest.fixture
def project(original_pair, tmp_path):  # noqa: F811
    root = shutil.copytree(original_pair, tmp_path / "parcels")
    add(root)
    with Project(root, clock=SimulatedClock(START), actor="ana") as opened:
        yield opened


def crowd(project, people):
    rng = random.Random(3)
    cases = [
        {"depot": rng.choice(["north", "south", "east"]), "weight": rng.uniform(1, 80), "express": False,
         "sent": "2024-02-20T10:00Z"} for _ in range(people)
    ]  # fmt: skip
    project.decisions.decide_many("promise", cases)


def test_a_rollout_says_where_it_stands(project, tmp_path):
    """Steps, verdicts with both arms and the interval, what comes next; as a page too."""
    pytest.importorskip("matplotlib")
    begun = project.rollouts.start("careful", "late_parcel@2", reason="better")
    assert begun.to_dict()["verdicts"][1]["verdict"] == "inconclusive"
    crowd(project, 3000)
    project.workspace.clock.move_to(START + HOUR)
    page = tmp_path / "careful.html"
    status = project.rollouts.status("promise", html=page)
    assert (status.move, status.reason) == ("raise", "every condition holds, and is shown")
    facts = status.to_dict()
    assert (facts["candidate"], facts["champion"]) == ("late_parcel@2", "late_parcel@1")
    assert [one["condition"] for one in facts["verdicts"]] == [
        "arms", "error_rate <= champion * 1.1", "rate(warn) within 0.3"
    ]  # fmt: skip
    assert "[10 %] 50 % 100 %" in str(status)
    text = page.read_text()
    assert "Rollout careful of promise" in text
    assert "<svg" in text
    (done,) = project.rollouts.run(once=True)
    assert (done.move, done.done, done.split["share"]) == ("raise", True, 0.5)
    assert [one.action for one in project.rollouts.history()] == ["rollout", "rollout"]


def test_who_has_which_version_at_what_time(project):
    """By which change, and whose; before the rollout the old one, for all."""
    later = SystemClock().now() + HOUR  # the deployment was made by the host's clock
    project.workspace.clock.move_to(later)
    project.rollouts.start("careful", "late_parcel@2", reason="better")
    crowd(project, 200)
    table = project.decisions.table("promise")
    for row in table.to_pylist():
        unit = project.rollouts.unit("promise", {"weight": row["context__weight"]})
        assert (unit.model, unit.arm) == (row["model"], row["record__arm"])
        assert unit.to_dict()["actor"] == "ana"
    assert {"canary", "control", ""} == set(table.column("record__arm").to_pylist())
    before = project.rollouts.unit("promise", {"weight": 1.0}, at=later - 1)
    assert (before.model, before.arm) == ("late_parcel@1", "")


def run(project, capsys, *words):
    code = run_command([*words, "--project", str(project.folder), "--json"])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out.strip() else out.err


def test_the_commands(project, capsys):
    """Start, look, pause, resume, abort, halt, release; a second start is refused."""
    start = ["rollout", "start", "careful", "late_parcel@2", "--reason", "better"]
    code, begun = run(project, capsys, *start)
    assert (code, begun["share"], begun["phase"]) == (0, 0.1, "running")
    code, _ = run(project, capsys, *start)
    assert code != 0
    assert run(project, capsys, "rollout", "pause", "promise", "--reason", "storm")[1]["action"] == "pause"
    assert run(project, capsys, "rollout", "status", "promise")[1]["phase"] == "paused"
    assert run(project, capsys, "rollout", "resume", "promise", "--reason", "over")[1]["action"] == "resume"
    assert run(project, capsys, "rollout", "run", "--once")[1]["rollouts"][0]["next"] == "wait"
    unit = run(project, capsys, "rollout", "unit", "promise", "--value", "weight=3.5")[1]
    assert unit["model"] in ("late_parcel@1", "late_parcel@2")
    assert run(project, capsys, "halt", "promise", "--reason", "theft")[1]["halted"] == "theft"
    (planned,) = [one for one in run(project, capsys, "plan")[1]["policies"] if one["name"] == "promise"]
    assert planned["halted"] == "theft"
    assert "Warning: promise is halted (theft)" in str(project.plan())
    assert "halted" not in run(project, capsys, "release", "promise", "--reason", "keys")[1]
    assert "halted" not in str(project.plan())
    assert run(project, capsys, "rollout", "abort", "promise", "--reason", "wrong")[1]["action"] == "abort"
    code, _ = run(project, capsys, "rollout", "status", "promise")
    assert code != 0
    actions = [one["action"] for one in run(project, capsys, "rollout", "history")[1]["rollouts"]]
    assert actions == ["rollout", "pause", "resume", "abort"]
