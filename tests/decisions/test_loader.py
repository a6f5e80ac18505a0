"""From a revision to a servant: what does not fit is refused, what was loaded is kept, what failed is tried again."""

import shutil
from dataclasses import replace

import pytest

from retrodict.core.errors import DefinitionError, IntegrityError, RetrodictError
from retrodict.decisions.loader import Loader
from retrodict.models.artifact import ModelArtifact
from retrodict.models.inputs import InputSpec
from retrodict.registry import Revision, change, current
from retrodict.workspace import Workspace


@pytest.fixture
def good(project):
    """What is in force."""
    return current(project)["promise"].deployment


def revision(deployment, number=99):
    return Revision(number, 0, "ana", "deploy", "test", deployment)


def altered(project, deployment, *, metadata=None, gone=False):
    """Digest of the deployed model with other metadata, or with an input that no feature gives."""
    model = ModelArtifact.load(project.objects, deployment.artifact)
    inputs = list(model.inputs.features)
    if gone:
        inputs[0] = replace(inputs[0], name="gone")
    parts = {"inputs": InputSpec(tuple(inputs)), "metadata": {**model.metadata, **(metadata or {})}}
    return replace(model, **parts).save(project.objects)


def test_code_that_defines_another_policy_is_refused(project, good):
    """The revision names the content of the policy that was approved of."""
    with pytest.raises(DefinitionError, match=r"policy:promise: the code of a revision must define the policy"):
        Loader(project).load(revision(replace(good, policy_version="0" * 64)))


@pytest.mark.parametrize(
    ("changes", "missing"), [({"metadata": {"features": "0" * 64}}, r"\[\]"), ({"gone": True}, r"\['gone'\]")]
)
def test_a_model_is_served_with_the_features_it_was_trained_on(project, good, changes, missing):
    """Neither another version of them nor one that lacks an input."""
    artifact = altered(project, good, **changes)
    with pytest.raises(DefinitionError, match=f"features it was trained on; got {{'missing': {missing}"):
        Loader(project).load(revision(replace(good, artifact=artifact)))


def test_a_model_that_answers_otherwise_than_when_it_was_trained_decides_nothing(project, good):
    """What a library of another version would do: same bytes, other answers."""
    model = ModelArtifact.load(project.objects, good.artifact)
    assert len(model.examples.rows) == 32
    artifact = replace(model, examples=replace(model.examples, answers=model.examples.answers + 0.01)).save(
        project.objects
    )
    with pytest.raises(IntegrityError, match="a model must answer as it did when it was made"):
        Loader(project).load(revision(replace(good, artifact=artifact)))


@pytest.mark.parametrize(("gone", "warm"), [(False, True), (True, False)])
def test_what_decided_before_is_kept_warm_if_it_asks_for_nothing_else(project, good, gone, warm):
    """A fallback has the values at hand and no others."""
    earlier = altered(project, good, metadata={"note": "earlier"}, gone=gone)
    before = {"policy_version": "v", "code": good.code, "model": "late_parcel@0", "artifact": earlier,
              "model_code": good.model_code}  # fmt: skip
    servant = Loader(project).load(revision(replace(good, previous=before)))
    assert (servant._previous is not None) is warm
    assert not warm or servant._previous.metadata["note"] == "earlier"


def test_the_last_few_models_are_kept(project, good, monkeypatch):
    """Going back to a recent one reads nothing, and of many the oldest goes first."""
    loads, load = [], ModelArtifact.load
    monkeypatch.setattr(ModelArtifact, "load", lambda objects, digest: loads.append(digest) or load(objects, digest))
    loader = Loader(project)
    artifacts = [altered(project, good, metadata={"number": number}) for number in range(10)]
    loads.clear()
    for artifact in [*artifacts, artifacts[-1], artifacts[-2], artifacts[0]]:
        loader.load(revision(replace(good, artifact=artifact, previous=None)))
    assert loads == [*artifacts, artifacts[0]]


def test_a_load_that_failed_is_tried_again(project, good):
    """What is in force but cannot be loaded is no servant, and never passes for loaded."""
    loader = Loader(project)
    before = loader.load_current()
    change(project, replace(good, artifact="0" * 64), action="deploy", reason="broken")
    try:
        for _ in range(2):
            with pytest.raises(RetrodictError, match=r"0{12}"):
                loader.load_current()
            assert loader.servants is before
    finally:
        change(project, good, action="deploy", reason="whole again")
    assert loader.load_current()["promise"].revision == current(project)["promise"]


def test_what_a_rollout_or_an_experiment_reads_is_not_unread(project, good):
    """Unit and condition of both; all else that no feature asks for is."""
    experiment = {"name": "e", "unit": ["customer"], "seed": "s", "variants": {"a": 1.0}, "share": 1.0, "layer": None,
                  "slot": [0, 1], "where": "country = 'de'"}  # fmt: skip
    split = {"candidate": good.target, "unit": ["account"], "seed": "s", "share": 0.5, "control": 0.5,
             "where": "amount > 5"}  # fmt: skip
    sent = dict.fromkeys(["customer", "country", "account", "amount", "weight", "wieght"])
    for changes, unread in (
        ({}, ["customer", "country", "account", "amount", "wieght"]),
        ({"experiments": [experiment]}, ["account", "amount", "wieght"]),
        ({"split": split}, ["customer", "country", "wieght"]),
        ({"split": split, "experiments": [experiment]}, ["wieght"]),
    ):
        assert Loader(project).load(revision(replace(good, **changes))).unread(sent) == unread


def test_a_load_that_fails_again_and_again_is_tried_with_pauses(project, good, monkeypatch):
    """Up to five seconds long; and at once when something has changed."""
    now, loads, load = [100.0], [], Loader.load
    monkeypatch.setattr("retrodict.decisions.loader.monotonic", lambda: now[0])
    monkeypatch.setattr(Loader, "load", lambda self, revision: loads.append(revision) or load(self, revision))
    loader = Loader(project)
    loader.load_current()

    def count(seconds):
        """How often it is loaded by somebody who looks twenty times a second."""
        loads.clear()
        for _ in range(int(seconds * 20)):
            with pytest.raises(RetrodictError, match=r"0{12}"):
                loader.load_current()
            now[0] += 0.05
        return len(loads)

    try:
        change(project, replace(good, artifact="0" * 64), action="deploy", reason="broken")
        assert 3 <= count(1) <= 7
        assert 2 <= count(9) <= 6
        assert 5 <= count(30) <= 7
        change(project, replace(good, artifact="0" * 64), action="deploy", reason="broken still")
        assert count(0.1) >= 1
    finally:
        change(project, good, action="deploy", reason="whole again")
    assert loader.load_current()["promise"].revision == current(project)["promise"]


def test_a_halt_waits_for_nothing_that_cannot_be_loaded(project, good):
    """What decides goes on, but scores no more; and comes back only with a release that can be loaded."""
    loader = Loader(project)
    before = loader.load_current()["promise"]
    broken = replace(good, artifact="0" * 64)
    try:
        change(project, replace(broken, halted="fire"), action="halt", reason="fire")
        with pytest.raises(RetrodictError, match=r"0{12}"):
            loader.load_current()
        assert (loader.servants["promise"], before.halted) == (before, "fire")
        change(project, broken, action="release", reason="out")
        with pytest.raises(RetrodictError, match=r"0{12}"):
            loader.load_current()
        assert (loader.servants["promise"], before.halted) == (before, "fire")
    finally:
        change(project, good, action="deploy", reason="whole again")
    assert loader.load_current()["promise"].halted is None


def test_one_that_cannot_be_loaded_keeps_no_other_from_being_followed(project, good, tmp_path):
    """Neither from a new revision nor from a halt."""
    shutil.copytree(project.root, tmp_path, dirs_exist_ok=True)
    with Workspace(tmp_path, actor="ana") as other:
        loader = Loader(other)
        before = loader.load_current()["promise"]
        change(other, replace(good, policy="another"), action="deploy", reason="not what it was made for")
        for halted in (None, "fire"):
            number = change(other, replace(good, halted=halted), action="deploy", reason="test").revision
            for _ in range(2):
                with pytest.raises(RetrodictError, match="another"):
                    loader.load_current()
                after = loader.servants["promise"]
                assert (after.revision.revision, after.halted, after is before) == (number, halted, False)
                assert set(loader.servants) == {"promise"}
