"""Rollouts: who gets the new version, when the next step comes, what ends it, and what is left behind."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
from tests.rollout.conftest import learn
from tests.rollout.test_changes import artifact_path
from tests.serving.project import prove

from retrodict import Project, Rollout
from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import HOUR, MINUTE
from retrodict.core.errors import (
    BusyError,
    DefinitionError,
    InputError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    RetrodictError,
)
from retrodict.decisions.log import read_decisions
from retrodict.decisions.replay import replay_decision
from retrodict.ledger import verify as audit
from retrodict.project.rollouts import Rollouts
from retrodict.registry import approve, change, current, history
from retrodict.rollout import deploy, ladder, promote, rollback
from retrodict.rollout.evidence import ArmVerdict
from retrodict.serving.decider import Decider
from retrodict.workspace import Workspace

START = parse_time("2024-02-20T10:00Z")
ROLLOUT = """
careful = Rollout("careful", promise, steps=[10, 50, 100], bake="1h", unit="weight",
    hold=["error_rate <= champion * 1.1"], prove=["rate(warn) within 0.3"], inconclusive="wait 2h then pause")
"""


def add(root, text=ROLLOUT):
    path = root / "definitions.py"
    path.write_text(path.read_text() + text)


class World:
    """A project whose clock is moved by hand, and a crowd that asks."""

    def __init__(self, root):
        self.clock = SimulatedClock(START)
        self.root, self.rng = root, random.Random(3)
        self.project = Workspace(root, actor="ana", clock=self.clock)

    def ask(self, people=300, *, heaviest=80.0, minutes=10):
        """Decide about so many parcels, each another unit."""
        with Decider(self.project) as decider:
            cases = [
                {"depot": self.rng.choice(["north", "south", "east"]), "weight": self.rng.uniform(1, heaviest),
                 "express": False, "sent": "2024-02-20T10:00Z"} for _ in range(people)
            ]  # fmt: skip
            answers = decider.decide_many("promise", cases, at=self.clock.now())
        self.clock.move_to(self.clock.now() + minutes * MINUTE)
        return [answer.record for answer in answers]

    def wait(self, micros):
        self.clock.move_to(self.clock.now() + micros)

    def look(self):
        return ladder.step_on(self.project, "promise")[0].what

    @property
    def deployment(self):
        return current(self.project)["promise"].deployment


@pytest.fixture
def world(original_pair, tmp_path):
    root = shutil.copytree(original_pair, tmp_path / "parcels")
    add(root)
    made = World(root)
    yield made
    made.project.close()


def verdict(kind, status):
    return ArmVerdict("a condition", kind, status, "why", "ratio", 0.1, 0.1, 0.9, 1.1, 200, 200)


SMALL = Rollout("small", steps=[5, 50, 100], bake="1h", unit="customer", inconclusive="wait 2h then pause")
STATE = {"step": 0, "phase": "running", "since": 0}


@pytest.mark.parametrize(("rollout", "state", "now", "verdicts", "move"), [
    (SMALL, STATE, HOUR - 1, [verdict("hold", "success")], "wait"),
    (SMALL, STATE, HOUR, [verdict("hold", "success"), verdict("prove", "success")], "raise"),
    (SMALL, {**STATE, "step": 1}, HOUR, [verdict("hold", "success")], "promote"),
    (SMALL, STATE, HOUR, [verdict("hold", "success"), verdict("prove", "inconclusive")], "wait"),
    (SMALL, STATE, 3 * HOUR - 1, [verdict("hold", "inconclusive")], "wait"),
    (SMALL, STATE, 3 * HOUR, [verdict("hold", "inconclusive")], "pause"),
    (SMALL, STATE, 0, [verdict("hold", "failure"), verdict("prove", "success")], "rollback"),
    (SMALL, STATE, HOUR, [verdict("prove", "failure")], "rollback"),
    (SMALL, {**STATE, "phase": "paused"}, 9 * HOUR, [verdict("prove", "success")], "wait"),
    (SMALL, {**STATE, "phase": "paused"}, 9 * HOUR, [verdict("hold", "failure")], "rollback"),
    (Rollout("small", steps=[5, 100], unit="a", on_fail="pause"), STATE, 0, [verdict("hold", "failure")], "pause"),
    (Rollout("small", steps=[5, 100], unit="a", on_fail="pause"), {**STATE, "phase": "paused"}, 0,
     [verdict("hold", "failure")], "wait"),
    (Rollout("small", steps=[5, 100], bake="1h", unit="a", inconclusive="rollback"), STATE, HOUR,
     [verdict("prove", "inconclusive")], "rollback"),
    (Rollout("small", steps=[100], bake="1h", unit="a"), STATE, HOUR, [verdict("hold", "success")], "promote"),
])  # fmt: skip
def test_what_comes_next(rollout, state, now, verdicts, move):
    """A table of truth: a failure at once, nothing before its time, and never a success of what is not known."""
    assert ladder.next_move(rollout, state, verdicts, now).what == move


def test_nothing_that_is_inconclusive_ever_raises_or_promotes():
    """Whatever else holds, and however late it is."""
    statuses = ("success", "inconclusive")
    for first, second, step, now in product(statuses, statuses, (0, 1), (HOUR, 2 * HOUR, 99 * HOUR)):
        verdicts = [verdict("hold", first), verdict("prove", second)]
        move = ladder.next_move(SMALL, {**STATE, "step": step}, verdicts, now)
        assert (move.what in ("raise", "promote")) == (first == second == "success")


def test_a_clean_version_goes_through_all_steps(world):
    """Its units stay its units, all others have the old version, and in the end it decides with the old one behind."""
    before = world.deployment.target
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    canary = set[float]()
    for share, step in ((0.1, "raise"), (0.5, "promote")):
        records = world.ask(3000)
        chosen = {record.context["weight"] for record in records if record.model == "late_parcel@2"}
        assert {record.context["weight"] for record in records if record.arm == "canary"} == chosen
        assert len(chosen) / 3000 == pytest.approx(share, abs=0.05)
        assert world.look() == "wait"
        for weight in canary:
            assert ladder_arm(world, weight) == "canary"
        canary |= chosen
        world.wait(HOUR)
        assert world.look() == step
    assert world.deployment.model == "late_parcel@2"
    assert (world.deployment.previous, world.deployment.split) == (before, None)
    assert {record.arm for record in world.ask(50)} == {""}
    actions = [revision.action for revision in history(world.project, "promise")]
    assert actions == ["deploy", "rollout", "rollout", "promote"]
    project = world.project
    assert audit(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).verified
    assert rollback(project, "promise", reason="after all").deployment.model == "late_parcel@1"


def test_a_decision_of_either_arm_is_made_again_bit_for_bit(world):
    """By what the record names, also after the rollout is over."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    records = {record.arm: record for record in world.ask(300)}
    ladder.abort(world.project, "promise", reason="over")
    for arm, model in (("canary", "late_parcel@2"), ("control", "late_parcel@1"), ("", "late_parcel@1")):
        replay = replay_decision(world.project, f"decision:{records[arm].id}")
        assert (records[arm].model, replay.verdict) == (model, "exact")


def ladder_arm(world, weight):
    from retrodict.decisions.split import TrafficSplit

    return TrafficSplit(world.deployment.split).arm({"weight": weight})


BAD = """
@derived
def size(weight: float, express: bool):
    if max([*getattr(weight, "flat", [weight])]) > 85:
        raise ValueError("too heavy")
    return {"weight": weight, "express": express}
"""


def test_a_version_that_fails_is_rolled_back_and_the_old_one_is_untouched(world):
    """As soon as the data show it, before the step's time is over; it is not brought in a second time."""
    path = world.root / "definitions.py"
    good = '@derived\ndef size(weight: float, express: bool):\n    return {"weight": weight, "express": express}\n'
    assert good in path.read_text()
    path.write_text(path.read_text().replace(good, BAD))
    assert learn(world.root) == "late_parcel@3"
    world.project.close()
    world.project = Workspace(world.root, actor="ana", clock=world.clock)
    before = world.deployment
    ladder.start(world.project, "careful", "late_parcel@3", reason="better")
    looks = 0
    while world.deployment.split is not None and looks < 30:
        records = world.ask(300, heaviest=200.0, minutes=1)
        wrong = {record.arm for record in records if record.fallback is not None}
        assert wrong <= {"canary"}
        looks += 1
        assert world.look() in ("wait", "rollback")
    assert looks < 30
    assert world.deployment.target == before.target
    assert world.clock.now() < START + HOUR  # at once
    newest = history(world.project, "promise")[-1]
    assert newest.action == "rollback"
    assert "error_rate <= champion * 1.1" in newest.reason
    assert {record.model for record in world.ask(60, heaviest=200.0)} == {"late_parcel@1"}
    with pytest.raises(RefusedError, match="rolled back from"):
        ladder.start(world.project, "careful", "late_parcel@3", reason="again")


def test_of_a_policy_that_was_rolled_back_from_the_champions_model_is_not_marked(world):
    """The policy is, with it: neither a rollout nor a plain deployment takes that, and rollbacks go where they did."""
    path, edited = world.root / "definitions.py", "late_parcel@1 by policy "
    first, text = world.deployment.target, path.read_text()
    path.write_text(text.replace('"warn": "score >= 0.5"', '"warn": "score >= 0.0001"').replace("0.3", "0.05"))
    world.project.close()
    world.project = Workspace(world.root, actor="ana", clock=world.clock)
    ladder.start(world.project, "careful", "late_parcel@1", reason="warn more")
    world.ask(3000)
    assert (world.look(), world.deployment.target) == ("rollback", first)
    with pytest.raises(RefusedError, match="correct the policy"):
        ladder.start(world.project, "careful", "late_parcel@1", reason="again")
    assert deploy(world.project, "promise").deployment.model == "late_parcel@2"  # newer, and never rolled back from
    rollback(world.project, "promise", reason="worse")
    assert world.deployment.target == first  # not refused
    with pytest.raises(RefusedError, match="must be named to decide again.*" + edited):
        deploy(world.project, "promise")
    assert edited in str(Project(world.root, actor="ana").plan())
    path.write_text(text)
    with Workspace(world.root, actor="ana", clock=world.clock) as corrected:
        assert deploy(corrected, "promise").deployment.model == "late_parcel@1"


def test_too_few_people_are_no_success(world):
    """After the patience it is a pause; resumed, the step begins anew; nobody loses the version they have."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    world.ask(200)
    world.wait(HOUR)
    assert world.look() == "wait"
    world.wait(2 * HOUR)
    assert world.look() == "pause"
    assert world.deployment.split["phase"] == "paused"
    assert "fewer than the 100 needed" in history(world.project, "promise")[-1].reason
    assert {record.arm for record in world.ask(300)} == {"", "canary", "control"}
    assert world.look() == "wait"
    ladder.resume(world.project, "promise", reason="go on")
    assert world.deployment.split["since"] == world.clock.now()
    with pytest.raises(RefusedError, match="must not be running already"):
        ladder.resume(world.project, "promise", reason="go on")


def test_no_step_is_raised_without_decisions_of_its_own(world):
    """What a smaller share has shown promotes nobody: without a decision of the step nothing goes on."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    world.ask(3000)
    world.wait(HOUR)
    assert world.look() == "raise"
    world.wait(HOUR)
    move = ladder.step_on(world.project, "promise")[0]
    assert (move.what, world.deployment.split["share"]) == ("wait", 0.5)
    assert move.reason.endswith("arms: not evaluable: 100 units of this step are needed in each arm, 100 are missing")
    world.ask(150)
    assert "units of this step are needed in each arm" in ladder.step_on(world.project, "promise")[0].reason
    world.ask(150)
    assert world.look() == "promote"


def test_what_is_under_way_is_ended_before_anything_else_changes(world):
    """Deployments and promotions are refused, a rollback ends it and marks the version, an abort does not."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    for other in (lambda: deploy(world.project, "promise", model="late_parcel@2"),
                  lambda: promote(world.project, "promise", "late_parcel@2", reason="x"),
                  lambda: ladder.start(world.project, "careful", "late_parcel@2", reason="x")):  # fmt: skip
        with pytest.raises(RefusedError, match="must wait for the end of a rollout; got 'careful'"):
            other()
    ladder.abort(world.project, "promise", reason="wrong one")
    assert world.deployment.split is None
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    assert rollback(world.project, "promise", reason="worse").deployment.model == "late_parcel@1"
    with pytest.raises(RefusedError, match="rolled back from"):
        ladder.start(world.project, "careful", "late_parcel@2", reason="x")
    with pytest.raises(NotFoundError, match="a rollout must be under way"):
        ladder.pause(world.project, "promise", reason="x")


def test_a_version_whose_approval_is_taken_back_goes(world):
    """Whatever was measured."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    with Workspace(world.root, actor="ben", clock=world.clock) as ben:
        approve(ben, "late_parcel@2", reason="a leak", granted=False)
    assert world.look() == "rollback"
    assert "approval of late_parcel@2 was taken back" in history(world.project, "promise")[-1].reason


def test_by_hand_no_version_is_promoted_whose_approval_was_taken_back(world):
    """Between two looks of the controller, too: refused as by a deployment, and the champion goes on."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    with Workspace(world.root, actor="ben", clock=world.clock) as ben:
        approve(ben, "late_parcel@2", reason="a leak", granted=False)
    with pytest.raises(RefusedError, match="a deployed version must be approved"):
        ladder.promote_now(world.project, "promise", reason="hurry")
    assert (world.deployment.model, world.deployment.split["share"]) == ("late_parcel@1", 0.1)


@pytest.mark.parametrize(("on_fail", "spoilt"), [("rollback", "damaged"), ("pause", "gone")])
def test_a_version_whose_artifact_is_not_what_was_stored_gets_no_larger_share(world, on_fail, spoilt):
    """By hand it is refused with why; the controller does what on_fail says, and the champion decides."""
    add(world.root, ROLLOUT.replace("careful", "shaky").replace("bake=", f'on_fail="{on_fail}", bake='))
    world.project.close()
    world.project = Workspace(world.root, actor="ana", clock=world.clock)
    ladder.start(world.project, "shaky", "late_parcel@2", reason="better")
    world.ask(3000)
    world.wait(HOUR)
    path = artifact_path(world.project, "late_parcel@2")
    path.chmod(0o644)
    _ = path.unlink() if spoilt == "gone" else path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    with pytest.raises((IntegrityError, NotFoundError)):
        ladder.promote_now(world.project, "promise", reason="hurry")
    assert world.deployment.split["share"] == 0.1
    move, revision = ladder.step_on(world.project, "promise")
    assert (move.what, revision.deployment.model) == (on_fail, "late_parcel@1")
    assert "late_parcel@2 cannot be loaded: " in revision.reason
    assert world.deployment.split is None or world.deployment.split["phase"] == "paused"


def test_of_two_controllers_one_does_the_step(world):
    """The other one's change was worked out from what no longer decides."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    world.ask(3000)
    world.wait(HOUR)
    revision = current(world.project)["promise"]
    assert world.look() == "raise"
    with pytest.raises(BusyError):
        change(world.project, revision.deployment, action="rollout", reason="late", after=revision.revision)
    assert world.look() == "wait"


def test_a_halted_policy_answers_without_a_model(world):
    """By its rules or its fallback, and the record says so; released, it scores again."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    assert "halted (a theft of keys). Nothing scores" in str(
        ladder.halt(world.project, "promise", reason="a theft of keys")
    )
    assert "a theft of keys" in str(Project(world.root, actor="ana").policies.show("promise"))
    records = world.ask(40)
    assert {(record.model, record.fallback, record.error, record.arm) for record in records} == {
        ("", "ok", "HaltedError", "")
    }
    assert {record.fallback for record in world.ask(5, heaviest=80)} == {"ok"}
    with pytest.raises(RefusedError, match="must not be halted already"):
        ladder.halt(world.project, "promise", reason="again")
    assert "late_parcel@1 decides" in str(ladder.release(world.project, "promise", reason="new keys"))
    assert {record.fallback for record in world.ask(200)} == {None}
    assert {logged.record.arm for logged in read_decisions(world.project)} == {"", "canary", "control"}


@pytest.mark.parametrize(("change_to", "message"), [
    ({"steps": [5, 50]}, "steps must rise from at least 0.01 percent to 100"),
    ({"steps": [50, 5, 100]}, "steps must rise"), ({"steps": "all"}, "steps must rise"),
    ({"unit": []}, "must name the unit"),
    ({"hold": ["error_rate < champion"]}, "a condition must be"), ({"hold": ["eror_rate <= 0.1"]}, "error_rate"),
    ({"prove": ["rate(warn) not worse by 0.1"]}, "within 0.1"), ({"prove": ["rate within 0.1"]}, "rate(warn)"),
    ({"prove": ["p99_ms <= champion * 1.2"]}, "held, not proved"), ({"inconclusive": "wait then"}, "inconclusive"),
    ({"on_fail": "shrug"}, "on_fail must be"), ({"alpha": 0.5}, "alpha must lie"), ({"bake": "soon"}, "soon"),
    ({"where": "segment ="}, "where"),
])  # fmt: skip
def test_a_definition_that_makes_no_sense_is_refused(change_to, message):
    """With what must hold, and what was written."""
    fields = {"unit": "customer", **change_to}
    with pytest.raises(RetrodictError) as error:
        Rollout("careful", **fields)
    assert message in str(error.value)


@pytest.mark.parametrize(("condition", "message"), [
    ("depot = 5", "rollout:careful, where: this must be text, and is a number"), ("express > 3", "true or false"),
    ("sent > 5", "this must be a time, and is a number"), ("weight", "a condition must be true or false"),
    ("wieght > 5", "'wieght'.*'weight'"),
])  # fmt: skip
def test_who_takes_part_must_be_told_by_what_requests_bring(world, condition, message):
    """By kind as by name, before anything is in force; also where the rollout names its policy at the start only."""
    path = world.root / "definitions.py"
    rollout = f"careful = Rollout('careful', unit='weight', where={condition!r})\n"
    path.write_text(path.read_text().replace(ROLLOUT, rollout))
    world.project.close()
    world.project = Workspace(world.root, actor="ana", clock=world.clock)
    with pytest.raises(DefinitionError, match=message):
        ladder.start(world.project, "careful", "late_parcel@2", policy="promise", reason="test")
    assert world.deployment.split is None


def test_a_condition_that_no_request_fits_leaves_all_to_the_old_version(world):
    """As one that was started before such a condition was refused: every request got a 400."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="test")
    revision = current(world.project)["promise"]
    split = {**revision.deployment.split, "share": 1.0, "where": "custmer = 'x'"}
    change(world.project, replace(revision.deployment, split=split), action="rollout", reason="test",
           after=revision.revision)  # fmt: skip
    records = world.ask(20)
    assert {(record.arm, record.model, record.fallback) for record in records} == {("", "late_parcel@1", None)}
    with pytest.raises(InputError, match="custmer"):
        Rollouts(SimpleNamespace(workspace=world.project)).unit("promise", {"weight": 3.0})


def test_a_version_wrong_about_one_depot_is_rolled_back_without_an_outcome(original_pair, tmp_path, monkeypatch):
    """The new policy warns about nothing in the south; what the old one makes of the same requests was asked before."""
    root = shutil.copytree(original_pair, tmp_path / "south")
    path = root / "definitions.py"
    south = 'rules=[Rule("south", when="depot = \'south\'", then="ok", reason="South"), Rule("heavy"'
    assert 'rules=[Rule("heavy"' in path.read_text()
    path.write_text(path.read_text().replace('rules=[Rule("heavy"', south))
    add(root, """
careful = Rollout("careful", promise, steps=[50, 100], bake="1h", unit="weight",
    hold=["disagreement <= 0.6", "disagreement <= 0.6 for each depot"], inconclusive="wait 2h then pause")
""")  # fmt: skip
    made = World(root)
    with made.project:
        old = {record.context["weight"]: record.decision for record in made.ask(600, minutes=0)}
        made.rng = random.Random(3)
        ladder.start(made.project, "careful", "late_parcel@2", policy="promise", reason="test")
        records = [record for record in made.ask(600) if record.arm == "canary"]
        answers: dict[str, str | None] = {}
        _, _, verdicts, move = ladder.judge(made.project, "promise", now=made.clock.now(), answers=answers)
        assert answers == {record.id: old[record.context["weight"]] for record in records}
        shown, unlike = {one.condition: one for one in verdicts}, {}
        for depot in ("south", None):
            part = [record for record in records if depot in (None, record.entities["depot"])]
            unlike[depot] = sum(old[one.context["weight"]] != one.decision for one in part) / len(part)
        assert move.what == "rollback"
        over_all, by_depot = shown["disagreement <= 0.6"], shown["disagreement <= 0.6 for each depot"]
        assert (over_all.verdict, over_all.canary) == ("success", pytest.approx(unlike[None]))
        assert (by_depot.verdict, by_depot.canary) == ("failure", pytest.approx(unlike["south"]))
        assert by_depot.reason.startswith("depot south: the mean")
        monkeypatch.setattr("retrodict.rollout.evidence.Rescorer", None)  # what was asked is not asked again
        assert ladder.step_on(made.project, "promise", answers=answers)[0].what == "rollback"
        assert made.deployment.model == "late_parcel@1"
        assert made.deployment.split is None


def test_the_old_version_is_asked_by_its_own_features(original_pair, tmp_path):
    """The new one computes a feature otherwise, and the log has only that: the old one's is computed again."""
    root = shutil.copytree(original_pair, tmp_path / "other")
    path, size = root / "definitions.py", 'return {"weight": weight, "express": express}'
    assert size in path.read_text()
    path.write_text(path.read_text().replace(size, 'return {"weight": 85.0 - weight, "express": express}'))
    add(root, ROLLOUT.replace("error_rate <= champion * 1.1", "disagreement <= 0.5").replace("[10, 50", "[50"))
    version = learn(root)
    made = World(root)
    with made.project:
        prove(made.project)
        old = {record.context["weight"]: record.decision for record in made.ask(300, minutes=0)}
        made.rng = random.Random(3)
        ladder.start(made.project, "careful", version, policy="promise", reason="test")
        records = [record for record in made.ask(300) if record.arm == "canary"]
        assert all(one.features["size__weight"] == 85.0 - one.context["weight"] for one in records)
        answers: dict[str, str | None] = {}
        ladder.judge(made.project, "promise", now=made.clock.now(), answers=answers)
        assert answers == {record.id: old[record.context["weight"]] for record in records}


@pytest.mark.parametrize(("condition", "near"), [
    ("error_rate <= 0.1 for each depott", "'depot'"), ("dp_ratio(depo: ok) >= 0.8", "'depot'"),
    ("rate(wran) <= 0.5", "'warn'"),
])  # fmt: skip
def test_a_condition_about_what_there_is_not_is_refused_at_the_start(world, condition, near):
    """Also where the definition names no policy, which is known only then: it would never be more than inconclusive."""
    add(world.root, f"\nloose = Rollout('loose', unit='depot', hold=[{condition!r}])\n")
    with Workspace(world.root, actor="ana", clock=world.clock) as edited, pytest.raises(NotFoundError, match=near):
        ladder.start(edited, "loose", "late_parcel@2", policy="promise", reason="x")
    assert world.deployment.split is None


@pytest.mark.parametrize("condition", ["error_rate <= 2", "disagreement <= 20 for each depot", "rate(warn) <= 30"])
def test_a_limit_that_nothing_can_exceed_is_refused(condition):
    """Per cent were meant."""
    with pytest.raises(DefinitionError, match=r"a limit of a share must be from 0 to 1.*Write 0\.02 for 2 %"):
        Rollout("loose", unit="depot", hold=[condition])


def test_a_rollout_that_cannot_be_judged_keeps_no_other_from_being_looked_at(world, monkeypatch, caplog):
    """It waits, and the log says why."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")

    def fails(*_, **__):
        raise IntegrityError("the model must be whole", where="model", got="half of it")

    monkeypatch.setattr(ladder, "step_on", fails)
    (status,) = Project(world.root, actor="ana").rollouts.run(once=True)
    assert (status.move, status.done) == ("wait", False)
    assert "the model must be whole" in status.reason
    assert "the model must be whole" in caplog.text


def test_what_the_old_version_fails_to_decide_is_no_answer_of_it(world, monkeypatch):
    """A model that breaks, or features that cannot be read again: compared with nothing, and asked once."""
    text = ROLLOUT.replace("careful", "unlike").replace("error_rate <= champion * 1.1", "disagreement <= 0.1")
    add(world.root, text)
    with Workspace(world.root, actor="ana", clock=world.clock) as edited:
        ladder.start(edited, "unlike", "late_parcel@2", reason="test")
        canary = {record.id for record in world.ask(300) if record.arm == "canary"}
        failed = SimpleNamespace(decision="neither", error="TimeoutError")
        rescorer = SimpleNamespace(rescore=lambda batch: [failed] * len(batch))
        monkeypatch.setattr("retrodict.rollout.evidence.Rescorer", lambda *_: rescorer)
        answers: dict[str, str | None] = {}
        _, _, verdicts, move = ladder.judge(edited, "promise", now=world.clock.now(), answers=answers)
        assert answers == dict.fromkeys(canary)
        assert canary
        (unlike,) = [one for one in verdicts if one.condition.startswith("disagreement")]
        assert (unlike.verdict, unlike.units_canary, move.what) == ("inconclusive", 0, "wait")


def test_what_the_old_version_was_asked_is_kept_from_look_to_look(world, monkeypatch):
    """As long as its rollout is under way."""
    ladder.start(world.project, "careful", "late_parcel@2", reason="better")
    seen, step_on = [], ladder.step_on

    def look(workspace, policy, *, answers):
        seen.append(dict(answers))
        answers[str(len(seen))] = "ok"
        return step_on(workspace, policy, answers=answers)

    pauses = iter(range(2))
    monkeypatch.setattr(ladder, "step_on", look)
    monkeypatch.setattr("retrodict.project.rollouts.time.sleep", lambda _: next(pauses))
    with Project(world.root, actor="ana") as project, pytest.raises(StopIteration):
        project.rollouts.run()
    assert seen == [{}, {"1": "ok"}, {"1": "ok", "2": "ok"}]
