"""Post-mortems: what is filled in from the ledger, against a course of events that is known."""

from __future__ import annotations

import json

import pytest
from tests.rollout.test_guards import START, World, make

from retrodict import Project
from retrodict.cli.main import run
from retrodict.core.clock import format_time
from retrodict.core.durations import HOUR, MINUTE
from retrodict.core.errors import NotFoundError, RefusedError
from retrodict.registry import history
from retrodict.rollout import ladder, rollback
from retrodict.rollout.incident import find_incident, note_incident

__all__ = ["make"]

CANARY = "\nslow = Rollout('slow', promise, steps=[10, 100], unit='weight')\n"


def test_a_rollback_by_a_guard_has_its_whole_course(make):
    """Deployed at ten, an alert after an hour, rolled back half an hour later; two servers had not followed."""
    world: World = make(["error_rate > 0.01"], "alert")
    world.log(70)
    world.bring_in()
    world.log(40, share=0.25)
    world.clock.move_to(START + HOUR)
    world.log(60, errors=50, share=0.5)
    assert world.look().move == "alert"
    with world.project.ledger.transaction() as tx:
        facts = {"policy": "promise", "on": "psi > 0.25", "reason": "psi is 0.4", "at": START + HOUR + MINUTE}
        tx.append("trigger.fire", "trigger:watch@1", facts)
        tx.append("trigger.fire", "trigger:watch@1", {**facts, "policy": "other"})
        tx.append("trigger.fire", "trigger:watch@1", {**facts, "at": START - HOUR})
    world.clock.move_to(START + 3 * HOUR // 2)
    bad = history(world.project, "promise")[-1].revision
    rollback(world.project, "promise", reason="warns nobody")
    world.log(2, revision=bad, at=world.clock.now() + 10, model="late_parcel@2")
    world.clock.move_to(START + 2 * HOUR)
    world.log(30)
    incident = find_incident(world.project, "promise")
    assert (incident.model, incident.revision) == ("late_parcel@2", bad + 1)
    assert (incident.began, incident.detected, incident.ended) == (START, START + HOUR, START + 3 * HOUR // 2)
    facts = incident.to_dict()
    assert (facts["detect_s"], facts["mitigate_s"]) == (3600, 1800)
    assert [(one["what"], one["by"]) for one in incident.timeline] == [
        (what, "ana") for what in ("promote", "alert", "trigger.fire", "rollback")
    ]  # fmt: skip
    assert incident.timeline[2]["why"] == "trigger:watch@1: psi is 0.4"
    assert incident.timeline[0]["time"] == format_time(START)
    assert incident.decisions == {
        "made": 102, "by_fallback": 50, "late": 2, "by_decision": {"ok": 61, "warn": 41}, "by_arm": {"no arm": 102}
    }  # fmt: skip


def test_a_canary_stands_for_its_own_decisions(make):
    """Those of the champion meanwhile are nobody's harm."""
    world = make(["drift"], "alert")
    path = world.root / "definitions.py"
    path.write_text(path.read_text() + CANARY)
    world.clock.move_to(START)
    ladder.start(world.project, "slow", "late_parcel@2", reason="better")
    world.log(9, arm="canary", model="late_parcel@2")
    world.log(11, arm="control")
    world.log(13)
    world.clock.move_to(START + MINUTE)
    rollback(world.project, "promise", reason="slow")
    incident = find_incident(world.project, "promise")
    assert (incident.model, incident.decisions["made"], incident.decisions["by_arm"]) == (
        "late_parcel@2",
        9,
        {"canary": 9},
    )


def test_a_halt_lasts_until_it_is_released(make):
    """The release is in the timeline, and what came after it is not."""
    world = make(["drift"], "alert")
    world.bring_in()
    ladder.halt(world.project, "promise", reason="storm")
    ladder.release(world.project, "promise", reason="over")
    ladder.halt(world.project, "promise", reason="again")
    first = find_incident(world.project, "promise", 3)
    assert [one["what"] for one in first.timeline] == ["promote", "halt", "release"]
    assert find_incident(world.project, "promise").revision == 5
    with pytest.raises(NotFoundError, match="must be of a rollback or a halt"):
        find_incident(world.project, "promise", 2)


def test_cause_and_actions_are_said_by_people_and_kept(make, tmp_path, capsys):
    """Who has said what is in the ledger; the last cause counts, and every action."""
    world = make(["drift"], "alert")
    with pytest.raises(RefusedError, match="must have ended in a rollback or a halt"):
        find_incident(world.project, "promise")
    world.bring_in()
    rollback(world.project, "promise", reason="slow")
    incident = find_incident(world.project, "promise")
    assert (incident.cause, incident.actions) == (None, [])
    assert "to be said" in str(incident)
    note_incident(world.project, incident, cause="a guess", actions=["look"])
    world.project.close()
    page, text = tmp_path / "incident.html", tmp_path / "incident.md"
    words = ["incident", "promise", "--project", str(world.root), "--actor", "ben", "--json"]
    assert run([*words, "--cause", "feed in <knots>", "--action", "check units", "--output", str(page)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cause"] == "feed in <knots>"
    assert [(one["action"], one["by"]) for one in facts["actions"]] == [("look", "ana"), ("check units", "ben")]
    assert "feed in &lt;knots&gt;" in page.read_text()
    with Project(world.root, actor="ana") as project:
        project.policies.incident("promise", output=text)
        assert "- **cause**: feed in &lt;knots&gt;" in text.read_text()
        assert "| rollback | ana | slow |" in text.read_text()
        assert [one.actor for one in project.workspace.ledger.entries(action="incident.note")] == ["ana", "ben"]
        assert project.audit().ok
