"""Deploy, promote, roll back: what each refuses, what it leaves in the revision and in the ledger."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from retrodict.core.clock import format_time
from retrodict.core.errors import BusyError, DefinitionError, InputError, IntegrityError, NotFoundError, RefusedError
from retrodict.decisions.loader import Loader
from retrodict.learning import train
from retrodict.project.plan import read_plan
from retrodict.registry import approve, current, get_version, history
from retrodict.registry import deployments as registry
from retrodict.rollout import changes, deploy, promote, rollback
from retrodict.workspace import Workspace


def artifact_path(project: Workspace, ref: str):
    """File of a version's artifact."""
    digest = get_version(project, ref).artifact
    folder = project.config.path("stores.objects")
    return next(path for path in folder.rglob("*") if path.is_file() and digest in str(path).replace("/", ""))


def spoil(project: Workspace, ref: str) -> None:
    path = artifact_path(project, ref)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))


def test_a_promotion_names_what_decided_before(pair):
    """With everything that a rollback and a warm fallback need."""
    before = current(pair)["promise"].deployment
    revision = promote(pair, "promise", "late_parcel@2", reason="better")
    assert (revision.action, revision.reason, revision.deployment.model) == ("promote", "better", "late_parcel@2")
    names = ("policy_version", "code", "model", "artifact", "model_code")
    assert revision.deployment.previous == {name: getattr(before, name) for name in names}
    assert current(pair)["promise"] == revision


def models(pair):
    return [revision.deployment.model[-1] for revision in history(pair, "promise")]


def test_a_rollback_walks_back_and_never_forward(pair):
    """The earlier state as it was; a second rollback goes on from there, to what decided before that."""
    text = (pair.root / "definitions.py").read_text()
    first = current(pair)["promise"].deployment
    promote(pair, "promise", "late_parcel@2", reason="better")
    (pair.root / "definitions.py").write_text(text.replace("weight > 90", "weight > 95"))
    with Workspace(pair.root, actor="ana") as edited:
        deploy(edited, "promise", model="late_parcel@2", reason="other rules")
    for model in "21":
        back = rollback(pair, "promise", reason="worse")
        assert back.deployment.model == f"late_parcel@{model}"
    assert replace(back.deployment, restores=None) == first
    with pytest.raises(RefusedError, match="must have decided before"):
        rollback(pair, "promise", reason="worse")
    assert models(pair) == list("12221")


def test_a_rollback_passes_over_what_deployed_the_same_again(pair):
    """One step is enough to leave a bad version, however often it was deployed."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    for _ in range(2):
        deploy(pair, "promise", model="late_parcel@2")
    assert rollback(pair, "promise", reason="worse").deployment.model == "late_parcel@1"
    with pytest.raises(RefusedError, match="must have decided before"):
        rollback(pair, "promise", reason="worse")


def test_a_rollback_goes_where_it_is_told(pair):
    """By revision or by version, forward too; what decides already and what never decided are refused."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    assert rollback(pair, "promise", reason="x", to="late_parcel@1").deployment.restores == 1
    assert rollback(pair, "promise", reason="x", to="promise#2").deployment.model == "late_parcel@2"
    assert rollback(pair, "promise", reason="x", to=1).deployment.model == "late_parcel@1"
    with pytest.raises(RefusedError, match="It decides already"):
        rollback(pair, "promise", reason="x", to=3)
    with pytest.raises(NotFoundError, match="must go to what decided before; got 'late_parcel@9'"):
        rollback(pair, "promise", reason="x", to="late_parcel@9")
    assert models(pair) == list("12121")


def test_what_was_rolled_back_from_is_not_taken_again_silently(pair):
    """A deployment passes it over, by name it is taken, and then it is as any other."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    day = format_time(rollback(pair, "promise", reason="worse").time)[:10]
    said = rf"late_parcel@2 was rolled back from on {day}\S+ because: worse; late_parcel@1"
    (note,) = read_plan(pair).notes
    assert re.fullmatch(rf"promise: {said} decides. Name it to take it again", note)
    passing = deploy(pair, "promise", reason="again")
    assert passing.deployment.model == "late_parcel@1"
    assert re.fullmatch(rf"again \({said} is taken\)", passing.reason)
    assert deploy(pair, "promise", model="late_parcel@2", reason="by name").reason == "by name"
    assert deploy(pair, "promise").deployment.model == "late_parcel@2"
    assert (deploy(pair, "promise").reason, read_plan(pair).notes) == ("deploy", ())


def test_values_that_a_monitor_groups_by_are_read(pair):
    """Nothing else reads the region: its caller was told that nothing does."""
    path = pair.root / "definitions.py"
    path.write_text(path.read_text().replace("Monitor(promise)", 'Monitor(promise, by=["region"])'))
    with Workspace(pair.root, actor="ana") as edited:
        servant = Loader(edited).load(deploy(edited, "promise", model="late_parcel@2"))
        assert servant.unread({"region": "west", "colour": "red"}) == ["colour"]


def test_a_rollback_is_worked_out_from_what_decides(pair, monkeypatch):
    """Another change in between is not undone unseen."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    load = changes.ModelArtifact.load

    def deploying(*args):
        monkeypatch.setattr(changes.ModelArtifact, "load", load)
        deploy(pair, "promise", model="late_parcel@2", reason="meanwhile")
        return load(*args)

    monkeypatch.setattr(changes.ModelArtifact, "load", deploying)
    with pytest.raises(
        BusyError, match="what a change was worked out from must still decide; got 'revision 3 after 2'"
    ):
        rollback(pair, "promise", reason="worse")
    assert models(pair) == list("122")


def test_a_rollback_checks_the_bytes_of_the_artifact(pair):
    """An altered model does not come back, and nothing changes."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    spoil(pair, "late_parcel@1")
    with pytest.raises(IntegrityError):
        rollback(pair, "promise", reason="back")
    assert current(pair)["promise"].deployment.model == "late_parcel@2"


def test_a_rollback_without_anything_before_is_refused(pair):
    """The first deployment has no way back."""
    with pytest.raises(RefusedError, match="must have decided before"):
        rollback(pair, "promise", reason="back")


def test_what_decides_already_is_not_promoted(pair):
    """No revision without a change."""
    with pytest.raises(RefusedError, match="It decides already"):
        promote(pair, "promise", "late_parcel@1", reason="again")
    assert len(history(pair, "promise")) == 1


@pytest.mark.parametrize("change", [promote, rollback])
def test_a_policy_that_is_not_deployed_cannot_be_changed(project, change):
    """The message has the command."""
    more = {"model": "late_parcel@1"} if change is promote else {}
    with pytest.raises(NotFoundError, match="retrodict deploy promise"):
        change(project, "promise", **more, reason="x")


def test_every_change_is_an_entry_of_the_ledger(pair):
    """Who, what, why; made from the model version."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    rollback(pair, "promise", reason="worse")
    entries = [entry for entry in pair.ledger.entries() if entry.object_id.startswith("policy:promise#")]
    assert [(entry.actor, entry.payload["reason"]) for entry in entries] == [
        ("ana", "first"), ("ana", "better"), ("ana", "worse")
    ]  # fmt: skip
    sources = {source for _, _, source in pair.ledger.upstream(entries[1].object_id)}
    assert "model:late_parcel@2" in sources


def test_an_unapproved_version_is_refused(pair):
    """By name, and where none is named the newest approved one is taken instead."""
    _, version = train(pair, "late_parcel")
    for call in (
        lambda: promote(pair, "promise", version.ref, reason="x"),
        lambda: deploy(pair, "promise", model=version.ref),
    ):
        with pytest.raises(RefusedError, match=f"retrodict models approve {version.ref}"):
            call()
    assert deploy(pair, "promise").deployment.model == "late_parcel@2"
    with Workspace(pair.root, actor="ben") as ben:
        approve(ben, version.ref, reason="ok")
    assert deploy(pair, "promise").deployment.model == version.ref


def test_a_withdrawn_approval_counts(pair):
    """No version with an approval in force is left: the message says how to approve one."""
    with Workspace(pair.root, actor="ben") as ben:
        for ref in ("late_parcel@1", "late_parcel@2"):
            approve(ben, ref, reason="taken back", granted=False)
    with pytest.raises(RefusedError, match="2 versions, none approved"):
        deploy(pair, "promise")


def test_a_failed_gate_is_refused(pair, monkeypatch):
    """Whatever the approval says."""
    failed = replace(get_version(pair, "late_parcel@2"), gates=[{"gate": "auc >= 0.5", "status": "not evaluable"}])
    monkeypatch.setattr(changes, "get_version", lambda *_: failed)
    with pytest.raises(RefusedError, match="not evaluable"):
        promote(pair, "promise", "late_parcel@2", reason="x")


def test_a_version_of_another_model_is_refused(pair, monkeypatch):
    """A policy decides by its own model."""
    other = replace(get_version(pair, "late_parcel@2"), name="other")
    monkeypatch.setattr(changes, "get_version", lambda *_: other)
    with pytest.raises(InputError, match="Name a version of late_parcel"):
        deploy(pair, "promise", model="other@2")


def test_what_cannot_be_loaded_is_not_deployed(pair):
    """The servers would find out; it is refused before."""
    spoil(pair, "late_parcel@2")
    with pytest.raises(IntegrityError):
        promote(pair, "promise", "late_parcel@2", reason="better")
    assert len(history(pair, "promise")) == 1


def test_a_rule_on_what_the_model_has_not_is_not_deployed(pair):
    """Policy and features are put together before the revision is written."""
    path = pair.root / "definitions.py"
    path.write_text(path.read_text().replace("weight > 90", "wight > 90"))
    with Workspace(pair.root, actor="ana") as edited, pytest.raises(DefinitionError, match="'weight'"):
        deploy(edited, "promise")
    assert len(history(pair, "promise")) == 1


def test_the_previous_model_is_loaded_with_the_one_that_decides(pair):
    """Warm for the fallback, and the parts of the last revisions are not loaded twice."""
    promote(pair, "promise", "late_parcel@2", reason="better")
    loader = Loader(pair)
    servant = loader.load_current()["promise"]
    assert servant._previous is not None
    assert servant._previous is not servant._model
    rollback(pair, "promise", reason="back")
    back = loader.load_current()["promise"]
    assert (back._model, back._previous) == (servant._previous, None)  # what was rolled back from answers no more


def test_an_unchanged_revision_keeps_its_servant_and_a_broken_one_is_tried_again(pair):
    """Another policy's change, or anything else in the records, costs nothing; earlier servants stay on an error."""
    loader = Loader(pair)
    first = loader.load_current()
    with pair.ledger.transaction() as tx:
        tx.append("test.note", "note:1", {})
    assert loader.load_current()["promise"] is first["promise"]
    good = current(pair)["promise"].deployment
    registry.change(pair, replace(good, artifact="0" * 64), action="deploy", reason="broken")
    for _ in range(2):
        with pytest.raises((IntegrityError, NotFoundError)):
            loader.load_current()
        assert loader.servants["promise"] is first["promise"]
    registry.change(pair, good, action="deploy", reason="whole again")
    assert loader.load_current()["promise"].revision.reason == "whole again"


@pytest.mark.parametrize("broken", ["policy_version", "a missing feature", "another meaning"])
def test_a_revision_whose_parts_do_not_fit_is_not_served(pair, broken):
    """The policy is the one that the revision names; the model has the features it was trained on."""
    revision = current(pair)["promise"]
    path = pair.root / "definitions.py"
    edit = ('max_age="48h"', 'max_age="47h"') if broken == "another meaning" else ('["24h", "7d"]', '["24h", "8d"]')
    path.write_text(path.read_text().replace(*edit))
    with Workspace(pair.root, actor="ana") as edited:
        changed = changes.capture_code(edited)
    parts = {"policy_version": "0" * 64} if broken == "policy_version" else {"model_code": changed}
    with pytest.raises(DefinitionError, match="must"):
        Loader(pair).load(replace(revision, deployment=replace(revision.deployment, **parts)))
