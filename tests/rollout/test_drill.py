"""A rollback tried out: what could decide at once, what could not and why, and how long it takes."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.rollout.conftest import learn
from tests.rollout.test_changes import spoil
from tests.rollout.test_ladder import BAD

from retrodict import Project
from retrodict.cli.main import run
from retrodict.core.display import text_of
from retrodict.core.errors import InputError, NotFoundError, RefusedError
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import approve, current, get_version, history
from retrodict.registry.feature_sets import readers_in_force
from retrodict.rollout import deploy, promote, rollback
from retrodict.rollout.drill import DrillReport, VersionDrill, drill
from retrodict.serving.decider import Decider
from retrodict.workspace import Workspace


def ask(project: Workspace, count: int) -> list[DecisionRecord]:
    cases = [{"depot": "north", "weight": 1.0 + place, "express": False, "sent": "2024-02-20T10:00Z"}
             for place in range(count)]  # fmt: skip
    with Decider(project) as decider:
        return [answer.record for answer in decider.decide_many("promise", cases)]


@pytest.fixture
def three(pair):
    """Three versions that decided, the newest in force, each with a few decisions."""
    ask(pair, 7)
    promote(pair, "promise", "late_parcel@2", reason="better")
    ask(pair, 5)
    text = (pair.root / "definitions.py").read_text()
    (pair.root / "definitions.py").write_text(text.replace('calibrate="isotonic"', 'calibrate="sigmoid", seed=7'))
    assert learn(pair.root) == "late_parcel@3"
    with Workspace(pair.root, actor="ana") as opened:
        promote(opened, "promise", "late_parcel@3", reason="newer")
        ask(opened, 3)
        yield opened


def test_three_versions_decide_again_in_processes_of_their_own(three):
    """What decides first, then what a rollback goes to; each makes its own decisions again, and the ledger says so."""
    report = drill(three, "promise")
    assert report.ok
    assert [(one.model, one.checked, one.mismatches) for one in report.versions] == [
        ("late_parcel@3", 3, 0), ("late_parcel@2", 5, 0), ("late_parcel@1", 7, 0)
    ]  # fmt: skip
    assert all(0 < one.switch_ms < 1_000 and one.load_ms > 0 for one in report.versions)
    (entry,) = three.ledger.entries(action="rollback.drill")
    assert json.loads(three.objects.get(entry.payload["report"])) == report.to_dict()
    assert (entry.payload["ok"], entry.payload["problems"]) == (True, {})
    assert [one.checked for one in drill(three, "promise", keep=2, decisions=2).versions] == [2, 2]
    assert current(three)["promise"].deployment.model == "late_parcel@3"  # nothing was switched


def test_what_could_not_decide_is_named_with_its_problem(three, capsys):
    """A model that was altered, code that is gone: the others are tried all the same, and the command says no."""
    spoil(three, "late_parcel@1")
    code = history(three, "promise")[1].deployment.code
    folder = three.config.path("stores.objects")
    next(path for path in folder.rglob("*") if path.is_file() and code in str(path).replace("/", "")).unlink()
    three.close()
    assert run(["drill", "promise", "--project", str(three.root), "--json"]) == 1
    versions = json.loads(capsys.readouterr().out)["versions"]
    assert [(one["model"], one["problem"] is None) for one in versions] == [
        ("late_parcel@3", True), ("late_parcel@2", False), ("late_parcel@1", False)
    ]  # fmt: skip
    assert code in versions[1]["problem"]
    rows = tuple(VersionDrill(place, one["model"], one["problem"]) for place, one in enumerate(versions))
    text = text_of(DrillReport("promise", rows, 3).blocks(), width=80)
    assert "verdict" in text
    assert f"{versions[1]['model']} fails:" in text
    assert code in text


def test_a_recorded_decision_that_comes_out_otherwise_is_a_problem(three):
    """By one bit of one score."""
    (record, *_) = ask(three, 1)
    wrong = DecisionRecord(**{name: getattr(record, name) for name in record.__struct_fields__
                              if name not in ("id", "score")}, id="0" * 26, score=record.score + 2**-50)  # fmt: skip
    with LogWriter(three) as writer:
        writer.append([encode_record(wrong)])
    report = drill(three, "promise", keep=2)
    assert not report.ok
    assert (report.versions[0].checked, report.versions[0].mismatches) == (5, 1)
    assert report.versions[0].problem == "1 of 5 recorded decisions come out otherwise"
    assert "could not" in str(three.ledger.upstream("drill:promise"))


def test_online_state_that_is_gone_is_a_problem(three):
    """A version decides by its features: without them it would answer by nulls."""
    three.close()
    path = three.config.path("stores.keys")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with Workspace(three.root, actor="ana") as emptied:
        report = drill(emptied, "promise")
    assert [one.problem for one in report.versions] == ["no online state of depot_delays: build it"] * 3


def test_with_nothing_to_go_back_to_there_is_no_drill(pair, project):
    """In the words of a rollback."""
    with pytest.raises(RefusedError, match=r"must have decided before the present revision; got 'revision 1'"):
        drill(pair, "promise")
    with pytest.raises(NotFoundError, match="retrodict deploy promise"):
        drill(project, "promise")


def test_what_was_rolled_back_from_is_no_target_again(pair):
    """Nor by way of what decided before it; by name it is."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    deploy(pair, "promise", model="late_parcel@1", reason="again")
    assert rollback(pair, "promise", reason="worse").deployment.model == "late_parcel@2"
    with pytest.raises(RefusedError, match="rolled back from: late_parcel@1"):
        rollback(pair, "promise", reason="worse still")
    assert rollback(pair, "promise", reason="by name", to="late_parcel@1").deployment.model == "late_parcel@1"


def test_a_version_without_its_approval_is_no_target(three):
    """The one before it is."""
    with Workspace(three.root, actor="ben") as ben:
        approve(ben, "late_parcel@2", reason="a leak", granted=False)
    assert [one.model for one in drill(three, "promise").versions] == ["late_parcel@3", "late_parcel@1"]
    assert rollback(three, "promise", reason="slow").deployment.model == "late_parcel@1"


def test_the_state_of_three_versions_is_kept_current(three):
    """So that the last of them has not gone stale when it is needed."""
    assert [(one.model, one.decides) for one in readers_in_force(three)] == [
        ("late_parcel@3", True), ("late_parcel@2", False), ("late_parcel@1", False)
    ]  # fmt: skip
    assert Project(three.root, actor="ana").policies.drill("promise", keep=2).keep == 2


def test_a_trial_refuses_a_version_that_fails_or_changes_too_much(pair):
    """On the newest decisions; what came of it stands in the reason, and the old version is warm."""
    with pytest.raises(RefusedError, match="must be of decisions on record that no fallback made; got 'none'"):
        deploy(pair, "promise", model="late_parcel@2", trial=10)
    with pytest.raises(InputError, match=r"max_changes a share of them, 0 to 1; got \(10, 2\)"):
        deploy(pair, "promise", model="late_parcel@2", trial=10, max_changes=2)
    with pytest.raises(InputError, match="a number of decisions"):
        deploy(pair, "promise", model="late_parcel@2", trial=-5)
    records = ask(pair, 60)
    artifact = ModelArtifact.load(pair.objects, get_version(pair, "late_parcel@2").artifact)
    again = ["warn" if artifact.score_row(one.features).score >= 0.5 else "ok" for one in records]
    changes = sum(new != one.decision for new, one in zip(again, records, strict=True))
    text = (pair.root / "definitions.py").read_text()
    revision = deploy(pair, "promise", model="late_parcel@2", reason="better", trial=60, max_changes=changes / 60)
    assert revision.reason == f"better (trial: {changes} of 60 recorded decisions change)"
    assert revision.deployment.previous["model"] == "late_parcel@1"
    (pair.root / "definitions.py").write_text(text.replace('"warn": "score >= 0.5"', '"warn": "score >= 0.0"'))
    with Workspace(pair.root, actor="ana") as edited:
        with pytest.raises(RefusedError, match=r"at most 0\.1 of them otherwise.*ok -> warn"):
            deploy(edited, "promise", trial=60)
        assert deploy(edited, "promise", trial=60, max_changes=1.0).deployment.model == "late_parcel@2"
    good = '@derived\ndef size(weight: float, express: bool):\n    return {"weight": weight, "express": express}\n'
    assert good in text
    (pair.root / "definitions.py").write_text(text.replace(good, BAD))
    assert learn(pair.root) == "late_parcel@3"
    with Workspace(pair.root, actor="ana") as edited:
        ask(edited, 90)  # the last five weigh more than it can bear
        with pytest.raises(RefusedError, match=r"'errors': \{'DefinitionError: .*': 5\}"):
            deploy(edited, "promise", trial=90, max_changes=1.0)
        deploy(edited, "promise", model="late_parcel@2", trial=90, max_changes=1.0)
    assert len(history(pair, "promise")) == 4
