"""Guards: what they act on, what they do, that they do it once, and what they leave alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.rollout.conftest import learn
from tests.rollout.test_changes import spoil
from tests.serving.process import Server

from retrodict import Guard, Project
from retrodict.cli.main import run
from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import DAY, HOUR, MINUTE
from retrodict.core.errors import RetrodictError
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.ledger import verify as audit
from retrodict.registry import approve, current, history, rolled_back
from retrodict.rollout import deploy, guards, ladder, promote, rollback
from retrodict.rollout.experiments import controller
from retrodict.rollout.guards import guard_on, guards_of, watched
from retrodict.workspace import Workspace

START = parse_time("2024-02-20T10:00Z")


class World:
    """Version 1 decided for a while, version 2 does since START; decisions are written into the log."""

    def __init__(self, root, text):
        path = root / "definitions.py"
        path.write_text(path.read_text() + text)
        self.root, self.clock, self.count = root, SimulatedClock(START - 3 * DAY), 0
        self.project = Workspace(root, actor="ana", clock=self.clock)

    def log(self, count, *, errors=0, micros=1_000, share=0.5, score=0.5, at=None, **fields):
        """So many decisions just now, the first ones by a fallback; a share of the others is a warning."""
        revision, records = current(self.project)["promise"], []
        for place in range(count):
            self.count += 1
            fields_of_one = {
                "id": f"{self.count:026d}", "time": (at or self.clock.now()) - count + place, "policy": "promise",
                "revision": revision.revision, "entities": {"depot": "east"}, "context": {"weight": float(self.count)},
                "features": {}, "decision": "warn" if place < share * count else "ok", "score": score + place % 2 / 50,
                "stages": {"score": micros}, **{name: getattr(revision.deployment, name) for name in (
                    "policy_version", "code", "model", "artifact", "model_code")}, **fields,
            }  # fmt: skip
            if place < errors:
                fields_of_one |= {"fallback": "ok", "error": "ValueError"} | fields
            records.append(encode_record(DecisionRecord(**fields_of_one)))
        with LogWriter(self.project) as writer:
            writer.append(records)

    def bring_in(self, guarded=True):
        """Version 2, three days after version 1 began to decide."""
        self.clock.move_to(START)
        promote(self.project, "promise", "late_parcel@2", reason="better")
        self.clock.move_to(START + MINUTE)
        assert bool(guards_of(self.project, "promise")) == guarded

    def look(self, name="g"):
        (guard,) = (one for one in guards_of(self.project, "promise") if one.name == name)
        return guard_on(self.project, "promise", guard)

    @property
    def deployment(self):
        return current(self.project)["promise"].deployment

    @property
    def actions(self):
        return [one.action for one in history(self.project, "promise")][1:]


@pytest.fixture
def make(original_pair, tmp_path):
    worlds = []

    def build(when, then, **more):
        fields = "".join(f", {name}={value!r}" for name, value in more.items())
        root = shutil.copytree(original_pair, tmp_path / f"parcels{len(worlds)}")
        worlds.append(World(root, f"\ng = Guard('g', promise, when={when!r}, then={then!r}{fields})\n"))
        return worlds[-1]

    yield build
    for world in worlds:
        world.project.close()


def test_errors_over_the_limit_roll_back_at_once_and_once(make):
    """What decided before decides; the other is marked; the ledger says which guard, and why."""
    world = make(["error_rate > 0.01"], "rollback")
    world.log(500)
    world.bring_in()
    world.log(200, errors=2)
    assert world.look().move == "wait"  # 2 of 200 may be chance
    world.log(100, errors=40)
    move = world.look()
    assert (move.move, move.done) == ("rollback", True)
    assert world.deployment.model == "late_parcel@1"
    assert "guard g: error_rate > 0.01: the mean 0.14" in history(world.project, "promise")[-1].reason
    assert rolled_back(history(world.project, "promise")) == {("", "late_parcel@2"): 3}
    world.log(200)
    assert world.look().move == "wait"
    assert world.actions == ["promote", "rollback"]
    project = world.project
    assert audit(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).verified


def test_a_server_that_is_away_halts_nothing(make):
    """Its failures are left out, and said; of a deadline that passed the version is at fault."""
    world = make(["error_rate > 0.01", "rate(ok) > baseline + 0.1"], "halt")
    world.log(500)
    world.bring_in()
    world.log(500)
    world.log(500, errors=500, error="ServerAwayError", decision="ok")
    move = world.look()
    assert (move.move, world.look().move) == ("alert", "wait")  # once in a window
    assert "nothing it acts on is shown, but by failures of stores or servers: error_rate > 0.01: " in move.reason
    assert "ServerAwayError 500 of 1,000 decisions" in history(world.project, "promise")[-1].reason
    assert (world.deployment.model, world.deployment.halted) == ("late_parcel@2", None)
    assert all("500 failures of stores or servers left out" in one.reason for one in move.verdicts)
    world.log(100, errors=100, error="TimeoutError")
    assert world.look().move == "halt"


def test_one_error_where_the_baseline_has_none_is_no_breach(make):
    """Nor are two; forty are."""
    world = make(["error_rate > baseline * 1.1"], "rollback")
    world.log(500)
    world.bring_in()
    for errors, move in ((1, "wait"), (1, "wait"), (40, "rollback")):
        world.log(200, errors=errors)
        assert world.look().move == move


@pytest.mark.parametrize(("when", "fine", "broken"), [
    ("p99_ms > baseline * 2", {"micros": 1_500}, {"micros": 9_000}),
    ("rate(warn) < baseline * 0.9", {"share": 0.5}, {"share": 0.1}),
    ("rate(warn) > baseline + 0.2", {"share": 0.55}, {"share": 0.95}),
    ("mean_score > baseline + 0.2", {"score": 0.51}, {"score": 0.95}),
])  # fmt: skip
def test_what_is_compared_with_the_time_before(make, when, fine, broken):
    """Each metric in its direction, on enough decisions of both; an alert is said once in its window."""
    for fields, move in ((fine, "wait"), (broken, "alert")):
        world = make([when], "alert", window="2h")
        world.log(2_000)
        world.bring_in()
        world.log(50, **broken)
        assert world.look().move == "wait"  # too few
        world.clock.move_to(START + 2 * HOUR + MINUTE)
        world.log(1_500, **fields)
        assert world.look().move == move
        assert world.look().move == "wait"
    assert world.actions == ["promote", "alert"]
    state = world.deployment.guards["g"]
    assert (state["move"], state["window"]) == ("alert", START + 2 * HOUR)
    assert state["verdicts"][0]["condition"] == when
    world.clock.move_to(START + 4 * HOUR + MINUTE)
    assert world.look().reason == "nothing it acts on is shown"
    world.log(1_500, **broken)
    assert world.look().move == "alert"
    assert world.deployment.model == "late_parcel@2"


def test_quality_counts_where_outcomes_are_known(make):
    """All decisions since the version came in force count; without outcomes nothing is done, however bad it looks."""
    world = make(["brier > baseline * 1.05"], "rollback", window="1h")
    rows = world.project.tables.read("parcels").slice(0, 900).to_pylist()
    late = {row["id"]: row["delay"] > 3 for row in rows}

    def decide(names, right):
        for name in names:
            score = 0.9 if late[name] == right else 0.1
            world.log(1, score=score, key=name)

    names = list(late)
    decide(names[:300], right=True)
    world.bring_in()
    world.log(300, score=0.9)
    assert world.look().move == "wait"
    assert world.look().verdicts[0].reason == "0 units with a value are fewer than the 100 needed"
    decide(names[300:400], right=True)
    assert world.look().move == "wait"
    decide(names[400:700], right=False)
    world.clock.move_to(START + 5 * HOUR)  # in another window
    assert world.look().move == "rollback"


def test_a_first_version_is_compared_with_its_own_beginning(make):
    """Once that is over; until then there is nothing to compare with."""
    world = make(["rate(warn) > baseline + 0.2"], "alert", baseline="1h")
    world.clock.move_to(START)
    deploy(world.project, "promise", model="late_parcel@2", reason="other rules")
    world.log(200, share=0.9, at=START + HOUR // 2)
    world.clock.move_to(START + HOUR // 2)
    assert world.look().move == "wait"
    world.clock.move_to(START + 3 * HOUR)
    world.log(900, share=0.9)
    assert world.look().move == "wait"
    world.log(2_000, share=1.0, at=START + 3 * HOUR)
    world.log(500, share=0.1, at=START + HOUR // 2)
    assert world.look().move == "alert"


def test_the_canary_is_not_what_is_in_force(make):
    """A failing canary leaves a healthy champion; a failing champion goes back, and ends the rollout."""
    world = make(["error_rate > 0.01"], "rollback")
    text = "\nslow = Rollout('slow', promise, steps=[10, 100], unit='weight')\n"
    (world.root / "definitions.py").write_text((world.root / "definitions.py").read_text() + text)
    assert learn(world.root) == "late_parcel@3"
    world.project.close()
    world.project = Workspace(world.root, actor="ana", clock=world.clock)
    world.bring_in()
    ladder.start(world.project, "slow", "late_parcel@3", reason="newer")
    world.log(300, errors=300, arm="canary", model="late_parcel@3")
    world.log(300, arm="control")
    assert world.look().move == "wait"
    world.log(300, errors=100, arm="control")
    assert world.look().move == "rollback"
    assert (world.deployment.model, world.deployment.split) == ("late_parcel@1", None)
    assert list(rolled_back(history(world.project, "promise"))) == [("", "late_parcel@2")]


def test_a_way_back_by_steps(make):
    """The units of each step have what decided before; in the end it decides, and what is left is marked."""
    world = make(["error_rate > 0.01"], "gradual", unit="weight", steps=[20, 60, 100], bake="1h")
    world.log(300)
    world.bring_in()
    world.log(300, errors=60)
    assert world.look().move == "gradual"
    split = world.deployment.split
    assert (world.deployment.model, split["candidate"]["model"], split["share"]) == (
        "late_parcel@2",
        "late_parcel@1",
        0.2,
    )
    assert world.look().move == "wait"
    for share in (0.6, None):
        world.clock.move_to(world.clock.now() + HOUR + MINUTE)
        ladder.step_on(world.project, "promise")
        assert world.deployment.split is None if share is None else world.deployment.split["share"] == share
    assert world.actions == ["promote", "rollout", "rollout", "rollback"]
    assert (world.deployment.model, world.deployment.previous) == ("late_parcel@1", None)
    assert list(rolled_back(history(world.project, "promise"))) == [("", "late_parcel@2")]
    with pytest.raises(RetrodictError, match="rolled back from: late_parcel@2"):
        rollback(world.project, "promise", reason="further")


def test_drift_puts_a_version_into_the_shadow(make):
    """It goes on scoring for whoever looks into it; what fired before it came in is not its fault."""
    world = make(["drift"], "shadow")

    def fire(on="psi > 0.25", policy="promise"):
        with world.project.ledger.transaction() as tx:
            tx.append("trigger.fire", "trigger:watch@1", {"policy": policy, "on": on, "reason": "psi is 0.4"})

    fire()
    world.bring_in()
    fire(policy="other")
    fire(on="auc < 0.6")
    assert world.look().move == "wait"
    fire()
    left = world.deployment.target
    assert world.look().move == "shadow"
    (shadow,) = world.deployment.shadows
    assert (world.deployment.model, shadow["name"], shadow["model"]) == ("late_parcel@1", "g", "late_parcel@2")
    assert {name: shadow[name] for name in left} == left
    assert "trigger:watch@1 fired: psi is 0.4" in history(world.project, "promise")[-1].reason
    assert world.look().move == "wait"  # no further: version 1 is not to blame


def test_a_refused_batch_is_data_quality(make):
    """Of a table of the model's features, since the version came in."""
    world = make(["data quality"], "alert")
    world.bring_in()
    assert world.look().move == "wait"
    for name in ("parcels2", "parcels"):
        with world.project.ledger.transaction() as tx:
            tx.append("dataset.refuse", f"dataset:{name}", {"batch": "b"})
        assert world.look().move == ("alert" if name == "parcels" else "wait")


def test_a_revoked_approval_rolls_back_or_blocks(make):
    """To a version that has one; where there is none nothing scores, and the reason says that nothing was left."""
    world = make(["approval revoked"], "rollback", otherwise="halt")
    world.bring_in()
    assert world.look().move == "wait"
    with Workspace(world.root, actor="ben") as ben:
        approve(ben, "late_parcel@2", reason="a leak", granted=False)
    assert world.look().move == "rollback"
    with Workspace(world.root, actor="ben") as ben:
        approve(ben, "late_parcel@1", reason="a leak", granted=False)
    assert world.look().move == "halt"
    assert "rollback was not possible" in world.deployment.halted
    assert "must have decided before" in world.deployment.halted
    assert watched(world.project) == []
    assert world.actions == ["promote", "rollback", "halt"]


def test_with_nothing_to_go_back_to_it_says_so(make):
    """An alert where no other thing is declared; what decides stays."""
    world = make(["error_rate > 0.01"], "rollback")
    world.bring_in()
    rollback(world.project, "promise", reason="slow")
    world.clock.move_to(START + HOUR)
    world.log(300, errors=100)
    assert world.look().move == "alert"
    reason = history(world.project, "promise")[-1].reason
    assert "rollback was not possible" in reason
    assert "rolled back from: late_parcel@2" in reason
    assert world.deployment.model == "late_parcel@1"
    assert world.look().move == "wait"


def test_a_model_that_is_damaged_is_passed_over(make):
    """Another earlier version decides."""
    world = make(["error_rate > 0.01"], "rollback")
    assert learn(world.root) == "late_parcel@3"
    world.bring_in()
    promote(world.project, "promise", "late_parcel@3", reason="newer")
    world.clock.move_to(START + HOUR)
    spoil(world.project, "late_parcel@2")
    world.log(300, errors=100)
    assert world.look().move == "rollback"
    assert world.deployment.model == "late_parcel@1"


def test_decisions_of_a_halt_are_no_evidence(make):
    """Every one of them is a fallback's; released, a version is judged anew."""
    world = make(["error_rate > 0.01"], "rollback")
    world.bring_in()
    ladder.halt(world.project, "promise", reason="storm")
    world.log(300, errors=300, error="HaltedError")
    world.clock.move_to(START + HOUR)
    ladder.release(world.project, "promise", reason="over")
    world.clock.move_to(START + HOUR + MINUTE)
    world.log(300, errors=300, error="HaltedError")  # of a server that has not followed yet
    world.log(200)
    assert world.look().move == "wait"
    assert watched(world.project)


def test_guards_are_those_of_the_last_deployment(make):
    """Whatever is written since; going back leaves nothing unguarded."""
    world = make(["error_rate > 0.01"], "rollback")
    assert guards_of(world.project, "promise") == ()
    world.bring_in()
    path = world.root / "definitions.py"
    path.write_text(path.read_text().replace("then='rollback'", "then='halt'"))
    with Workspace(world.root, actor="ana", clock=world.clock) as edited:
        assert [one.then for one in guards_of(edited, "promise")] == ["rollback"]
        rollback(edited, "promise", reason="slow")
        assert [one.then for one in guards_of(edited, "promise")] == ["rollback"]
        deploy(edited, "promise", model="late_parcel@2")
        assert [one.then for one in guards_of(edited, "promise")] == ["halt"]


@pytest.mark.parametrize(("fields", "message"), [
    ({"when": []}, "must name what it acts on"), ({"when": ["error_rate <= 0.1"]}, "must act on"),
    ({"when": ["error_rate > champion * 2"]}, "must act on"), ({"when": ["disagreement > 0.1"]}, "must act on"),
    ({"when": ["eror_rate > 0.1"]}, "error_rate"), ({"when": ["error_rate > 2"]}, "from 0 to 1"),
    ({"then": "gradual"}, "a unit"), ({"then": "shrug"}, "then must be"),
    ({"otherwise": "rollback"}, "otherwise must be"), ({"window": "soon"}, "soon"),
    ({"alpha": 0.5}, "alpha must lie"), ({"when": ["drifts"]}, "Events are"),
])  # fmt: skip
def test_a_definition_that_makes_no_sense_is_refused(fields, message):
    """With what must hold, and what was written."""
    with pytest.raises(RetrodictError) as error:
        Guard("g", **{"when": ["error_rate > 0.01"], **fields})
    assert message in str(error.value)


def test_the_defaults(make):
    """Those of the field, each of which a definition may leave out or write otherwise."""
    world = make(["drift"], "alert")
    path = world.root / "definitions.py"
    path.write_text(path.read_text() + "\nall_guards = Guard.defaults(promise, business='rate(ok)', unit='weight')\n")
    with Workspace(world.root, actor="ana") as edited:
        defined = {one.name: one for one in edited.definitions.of(Guard)}
    assert {name: (one.when, one.then, one.otherwise) for name, one in defined.items() if name != "g"} == {
        "promise_errors": (("error_rate > 0.01",), "rollback", "alert"),
        "promise_latency": (("p99_ms > baseline * 2",), "alert", "alert"),
        "promise_quality": (("brier > baseline * 1.05",), "gradual", "alert"),
        "promise_business": (("rate(ok) < baseline * 0.9",), "rollback", "alert"),
        "promise_inputs": (("drift", "data quality"), "shadow", "alert"),
        "promise_security": (("approval revoked",), "rollback", "halt"),
    }  # fmt: skip
    without = {one.name: one.then for one in Guard.defaults(defined["g"].policy)}
    assert (without["promise_quality"], "promise_business" in without) == ("alert", False)


def test_the_commands(make, capsys):
    """The controller looks on; what guards would do is shown without doing it."""
    world = make(["error_rate > 0.01"], "rollback")
    world.bring_in()
    world.log(300, errors=100)
    world.project.close()
    shown = Project(world.root, actor="ana", clock=world.clock).policies.guards("promise")
    assert [(one.guard, one.move, one.verdicts[0].verdict) for one in shown] == [("g", "rollback", "failure")]
    assert current(Workspace(world.root, actor="ana"))["promise"].deployment.model == "late_parcel@2"
    with Project(world.root, actor="ana", clock=world.clock) as project:
        assert project.rollouts.any_under_way()
        assert [(one.policy, one.move, one.done) for one in project.rollouts.run(once=True)] == [
            ("promise", "rollback", True)
        ]  # fmt: skip
    assert run(["policies", "guards", "promise", "--project", str(world.root), "--json"]) == 0
    assert [one["guard"] for one in json.loads(capsys.readouterr().out)["guards"]] == ["g"]


def test_what_fails_by_any_error_leaves_the_others_to_look_on(make, monkeypatch, caplog):
    """A rollout, a guard and an experiment that fail are said; the other guard goes back all the same."""
    world = make(["error_rate > 0.01"], "rollback")
    path = world.root / "definitions.py"
    path.write_text(path.read_text() + "\nbad = Guard('bad', promise, when=['error_rate > 0.01'])\n")
    world.project.close()
    world.project = Workspace(world.root, actor="ana", clock=world.clock)
    world.bring_in()
    world.log(300, errors=100)
    (parts_of_g, verdicts) = (lambda *parts: parts[2].name == "bad" and 1 // 0), guards._verdicts
    monkeypatch.setattr(guards, "_verdicts", lambda *parts: parts_of_g(*parts) or verdicts(*parts))
    monkeypatch.setattr(ladder, "running", lambda _: ["promise"])
    monkeypatch.setattr(ladder, "step_on", lambda *_, **__: 1 // 0)
    monkeypatch.setattr(controller, "watched", lambda _: [("promise", "tone")])
    monkeypatch.setattr(controller, "find_run", lambda *_: 1 // 0)
    with Project(world.root, actor="ana", clock=world.clock) as project:
        moves = [(one.move, "ZeroDivisionError" in one.reason) for one in project.rollouts.run(once=True)]
    assert moves == [("wait", True), ("wait", True), ("wait", True), ("rollback", False)]
    assert [one.message.split(" has failed")[0] for one in caplog.records if "has failed" in one.message] == [
        "rollout of promise", "experiment tone of promise", "guard bad of promise"]  # fmt: skip


def test_guards_that_cannot_be_read_are_an_error_and_read_again(make, monkeypatch, caplog):
    """Nobody is told that there are none."""
    world = make(["error_rate > 0.01"], "rollback")
    world.bring_in()
    world.log(300, errors=100)
    monkeypatch.setattr(guards, "_GUARDS", {})
    with Project(world.root, actor="ana", clock=world.clock) as project, monkeypatch.context() as away:
        away.setattr(guards, "definitions_of", lambda *_: Path("/nowhere/code").read_text())
        with pytest.raises(FileNotFoundError):
            project.policies.guards("promise")
        assert project.rollouts.any_under_way()
        (move,) = project.rollouts.run(once=True)
        assert (move.move, "cannot be read" in move.reason) == ("wait", True)
        assert "guards of promise cannot be read, so that none acts: [Errno 2]" in caplog.text
        away.undo()
        assert [one.move for one in project.policies.guards("promise")] == ["rollback"]
        project.policies.halt("promise", reason="storm")
        (move,) = project.policies.guards("promise")
        assert (move.move, move.reason) == ("wait", "the policy is halted already: storm")


def test_a_server_starts_what_looks_on_by_itself(make):
    """As long as there is a guard: nobody else runs, and the version goes whose approval is taken back."""
    world = make(["approval revoked"], "rollback")
    world.bring_in()
    server = Server(world.root)
    try:
        with Workspace(world.root, actor="ben") as ben:
            approve(ben, "late_parcel@2", reason="a leak", granted=False)
        until = time.monotonic() + 150
        while world.actions != ["promote", "rollback"] and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        server.stop()
    assert world.actions == ["promote", "rollback"]
    assert world.deployment.model == "late_parcel@1"


DYING = """
import os, signal, sys
from retrodict.core.clock import SimulatedClock
from retrodict.ledger.ledger import Transaction
from retrodict.project import Project
from retrodict.rollout import guards

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

place, root, now = sys.argv[1:]
if place == "before the act":
    guards.change = die
elif place == "before the commit":
    append = Transaction.append
    Transaction.append = lambda self, action, *args, **more: (
        append(self, action, *args, **more), die() if action.startswith("policy.") else None)[0]
elif place == "after the commit":
    put = guards.change
    guards.change = lambda *args, **more: (put(*args, **more), die())
Project(root, actor="ana", clock=SimulatedClock(int(now))).rollouts.run(once=True)
"""


ACTIONS = ["rollback", "alert", "halt", "shadow", "gradual"]


@pytest.mark.parametrize(("then", "place", "acted"), [
    ("rollback", "before the act", False), *((then, "before the commit", False) for then in ACTIONS),
    *((then, "after the commit", True) for then in ACTIONS),
])  # fmt: skip
def test_a_guard_acts_once_and_whole_wherever_the_controller_is_killed(make, then, place, acted):
    """By a real signal in the middle of its action: it has acted or not; the next controller does the rest, once."""
    world = make(["error_rate > 0.01"], then, **({"unit": "weight"} if then == "gradual" else {}))
    world.bring_in()
    world.log(300, errors=100)
    project = world.project
    for kill in (place, "nowhere", "nowhere")[: 2 + (not acted)]:
        process = subprocess.run([sys.executable, "-c", DYING, kill, str(world.root), str(world.clock.now())],
                                 capture_output=True, check=False)  # fmt: skip
        assert process.returncode == (0 if kill == "nowhere" else -9), process.stderr
        done = acted or kill == "nowhere"
        action = {"shadow": "rollback", "gradual": "rollout"}.get(then, then)
        assert world.actions == ["promote", *([action] if done else [])]
        assert bool(world.deployment.guards) == done
    assert audit(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).verified


def test_two_controllers_act_once(make, monkeypatch):
    """What was worked out from a revision that no longer decides is refused."""
    world = make(["error_rate > 0.01"], "rollback")
    world.bring_in()
    world.log(300, errors=100)
    (guard,) = guards_of(world.project, "promise")
    put = guards.change

    def late(workspace, *args, **more):
        monkeypatch.setattr(guards, "change", put)
        with Workspace(world.root, actor="ben", clock=world.clock) as other:
            assert guard_on(other, "promise", guard).move == "rollback"
        return put(workspace, *args, **more)

    monkeypatch.setattr(guards, "change", late)
    assert guard_on(world.project, "promise", guard).reason == "somebody changes it just now"
    assert world.actions == ["promote", "rollback"]
