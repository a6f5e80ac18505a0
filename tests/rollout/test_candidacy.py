"""The way of a challenger: evidence, business review, risk sign-off by different people, promotion."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.rollout.traffic import ask_past, make_world

from retrodict import Project
from retrodict.core.durations import HOUR
from retrodict.core.errors import DefinitionError, InputError, NotFoundError, RefusedError
from retrodict.registry import current
from retrodict.rollout import candidacy, ladder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("candidacy") / "parcels"
    make_world(root)
    ask_past(root, 130)
    with Project(root, actor="ana") as project:
        project.features.verify()
    return root


@pytest.fixture
def root(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "parcels"))


@pytest.fixture
def people(root):
    """The same project, opened by three people."""
    opened = [Project(root, actor=name) for name in ("ana", "ben", "cleo")]
    yield [project.challengers for project in opened]
    for project in opened:
        project.close()


def stage(challengers) -> str:
    (one,) = challengers.list("promise")
    return one.stage


def test_each_step_comes_after_the_one_before_and_by_somebody_else(people, root):
    """Nobody reviews what they added, or in both roles; the promotion is a revision with the old champion behind it."""
    ana, ben, cleo = people
    assert ana.add("promise", "newer", model="late_parcel@2", reason="isotonic").stage == "evidence due"
    with pytest.raises(RefusedError, match=r"must be of evidence.*challenger report promise newer"):
        ben.review("promise", "newer", role="business", reason="yes")
    report = ana.report("promise", "newer")
    assert report.decisions == 130
    assert stage(ana) == "business review due"
    with pytest.raises(RefusedError, match="business review must be granted before"):
        cleo.review("promise", "newer", role="risk", reason="yes")
    with pytest.raises(RefusedError, match="different people"):
        ana.review("promise", "newer", role="business", reason="mine")
    with pytest.raises(InputError, match="must have a reason"):
        ben.review("promise", "newer", role="business", reason=" ")
    ben.review("promise", "newer", role="business", reason="fewer calls")
    with pytest.raises(RefusedError, match="different people"):
        ben.review("promise", "newer", role="risk", reason="me again")
    with pytest.raises(RefusedError, match=r"must be there before a promotion.*risk review due"):
        ana.promote("promise", "newer", reason="now")
    cleo.review("promise", "newer", role="risk", reason="stable")
    assert stage(ana) == "may be promoted"
    revision = ana.promote("promise", "newer", reason="as reviewed")
    assert revision.deployment.model == "late_parcel@2"
    assert revision.deployment.previous["model"] == "late_parcel@1"
    assert stage(cleo) == "promoted"
    with Project(root) as project:
        actions = [e.action for e in project.ledger.log() if e.object_id == "challenger:promise/newer"]
        assert actions == ["challenger.add", "challenger.evidence", "challenger.review", "challenger.review",
                           "challenger.promote"]  # fmt: skip
        assert project.audit().ok


def test_reviews_are_of_one_piece_of_evidence(people):
    """Newer evidence that says something else, or another challenger of the name, needs new reviews."""
    ana, ben, cleo = people
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    ben.review("promise", "newer", role="business", reason="yes")
    cleo.review("promise", "newer", role="risk", reason="no", refuse=True)
    assert stage(ana) == "refused by risk review"
    with pytest.raises(RefusedError, match="refused by risk review"):
        ana.promote("promise", "newer", reason="anyway")
    ana.report("promise", "newer", by=["depot"])
    assert stage(ana) == "business review due"
    ben.review("promise", "newer", role="business", reason="yes")
    cleo.review("promise", "newer", role="risk", reason="yes")
    ana.add("promise", "newer", model="wide@1", reason="another one")
    assert stage(ana) == "evidence due"


def test_disagreement_above_the_limit_refuses_and_an_emergency_is_marked(people, root):
    """The limit is the policy's; who passes over it owes the reviews, and a list says so until they are there."""
    ana, ben, cleo = people
    text = (root / "definitions.py").read_text()
    (root / "definitions.py").write_text(text.replace('deadline="5s")', 'deadline="5s", max_disagreement=0.001)'))
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    report = ana.report("promise", "newer")
    assert report.agreement.value < 0.999
    ben.review("promise", "newer", role="business", reason="yes")
    cleo.review("promise", "newer", role="risk", reason="yes")
    with Project(root, actor="ana") as again:
        with pytest.raises(RefusedError, match=r"must change at most 0.10% of the decisions"):
            again.challengers.promote("promise", "newer", reason="now")
        again.challengers.add("promise", "newer", model="late_parcel@2", reason="once more")
        again.challengers.promote("promise", "newer", reason="the old one is wrong", emergency=True)
        assert current(again.workspace)["promise"].deployment.model == "late_parcel@2"
        assert stage(again.challengers) == "promoted in an emergency: business and risk review due"
        again.challengers.report("promise", "newer")
        ben.review("promise", "newer", role="business", reason="was right")
        cleo.review("promise", "newer", role="risk", reason="was right")
        assert stage(again.challengers) == "promoted"


@pytest.mark.parametrize(("decisions", "agreement", "refused"), [
    (1, 1.0, True), (99, 1.0, True), (100, 1.0, False), (100, 0.95, False), (100, 0.94, True), (0, None, True),
])  # fmt: skip
def test_few_decisions_that_agree_are_no_agreement(monkeypatch, decisions, agreement, refused):
    """The limit is of a share, of which one decision tells nothing."""
    monkeypatch.setattr(candidacy, "compared_policy", lambda *_: SimpleNamespace(max_disagreement=0.05))
    one = SimpleNamespace(policy="promise", challenger=SimpleNamespace(name="newer"), due=[], stage="may be promoted",
                          evidence={"agreement": agreement, "decisions": decisions})  # fmt: skip
    with pytest.raises(RefusedError, match="of 100 compared ones") if refused else nullcontext():
        candidacy.check_way(None, one)


def test_a_shadow_is_its_evidence_and_ends_with_the_promotion(people, root):
    """What it made of live requests, not a replay; afterwards it does not look on to itself."""
    ana, ben, cleo = people
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.start_shadow("promise", name="newer", reason="test")
    ask_past(root, 7)
    ana.run_shadows(once=True)
    assert ana.report("promise", "newer").decisions == 7
    (one,) = ana.list()
    assert one.evidence["source"] == "shadow"
    ben.review("promise", "newer", role="business", reason="yes")
    cleo.review("promise", "newer", role="risk", reason="yes")
    assert ana.promote("promise", "newer", reason="now").deployment.shadows == []


def test_what_is_wrong_is_refused(people):
    ana = people[0]
    with pytest.raises(DefinitionError, match="a name must be"):
        ana.add("promise", "Not A Name", model="late_parcel@2", reason="test")
    with pytest.raises(RefusedError, match="what requests of the policy bring"):
        ana.add("promise", "odd", model="strange@1", reason="test")
    with pytest.raises(NotFoundError, match="must have been added"):
        ana.report("promise", "nobody")
    ana.add("promise", "stricter", other="strict", reason="test")
    with pytest.raises(RefusedError, match=r"must decide by the policy in force.*Write its rules into promise"):
        ana.promote("promise", "stricter", reason="now", emergency=True)


CAREFUL = (
    '\ncareful = Rollout("careful", promise, steps=[50, 100], unit="weight", hold=["error_rate <= 0.9"], min_units=1)\n'
)


def define(root, text):
    path = root / "definitions.py"
    path.write_text(path.read_text() + text)


def review_both(ben, cleo):
    ben.review("promise", "newer", role="business", reason="yes")
    cleo.review("promise", "newer", role="risk", reason="yes")


def test_a_reviewed_challenger_goes_on_as_a_canary_and_then_becomes_the_champion(people, root):
    """The same command begins the rollout of the policy; the list says canary, and promoted when it decides all."""
    ana, ben, cleo = people
    define(root, CAREFUL)
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    with Project(root, actor="ana") as again:
        with pytest.raises(RefusedError, match="business review due"):
            again.rollouts.start("careful", "late_parcel@2", reason="now")
        review_both(ben, cleo)
        deployment = again.challengers.promote("promise", "newer", reason="as reviewed").deployment
        assert (deployment.model, deployment.split["share"]) == ("late_parcel@1", 0.5)
        assert deployment.split["candidate"]["model"] == "late_parcel@2"
        assert stage(again.challengers) == "canary of careful"
        assert again.rollouts.promote("promise", reason="seen").deployment.model == "late_parcel@2"
        (one,) = again.challengers.list("promise")
        assert (one.stage, one.promotion["emergency"], one.promotion["reason"]) == ("promoted", False, "seen")
        ana.report("promise", "newer", by=["depot"])  # of later, and no reason to review again
        assert stage(again.challengers) == "promoted"


def test_a_canary_that_was_rolled_back_is_said_to_be_until_it_is_added_anew(people, root):
    """Its list said that it may be promoted, which a rollout then refused. An abort is no rollback."""
    ana, ben, cleo = people
    define(root, CAREFUL)
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    review_both(ben, cleo)
    with Project(root, actor="ana") as again:
        again.challengers.promote("promise", "newer", reason="as reviewed")
        again.rollouts.abort("promise", reason="not today")
        assert stage(again.challengers) == "may be promoted"
        again.challengers.promote("promise", "newer", reason="as reviewed")
        back = again.rollback("promise", reason="worse").revision
        assert stage(again.challengers) == f"rolled back by revision {back}"
        assert again.challengers.list()[0].to_dict()["rolled_back"] == back
        with pytest.raises(RefusedError, match=f"rolled back from by revision {back}"):
            again.challengers.promote("promise", "newer", reason="once more")
        again.challengers.add("promise", "newer", model="late_parcel@2", reason="mended upstream")
        assert stage(again.challengers) == "evidence due"


def test_a_champion_that_was_rolled_back_is_said_to_be(people, root):
    ana, ben, cleo = people
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    review_both(ben, cleo)
    with Project(root, actor="ana") as again:
        again.challengers.promote("promise", "newer", reason="as reviewed")
        back = again.rollback("promise", reason="worse").revision
        assert stage(again.challengers) == f"rolled back by revision {back}"
        again.deploy("promise", model="late_parcel@2", reason="it was the data")
        assert stage(again.challengers) == "promoted"


def test_a_shadow_ends_with_the_rollout_that_makes_it_the_champion(people, root):
    """It went on, compared with itself; one that decides otherwise goes on."""
    define(root, CAREFUL)
    with Project(root, actor="ana") as again:
        for name, how in (("newer", {"model": "late_parcel@2"}), ("aside", {"other": "strict"})):
            again.challengers.start_shadow("promise", name=name, **how, reason="test")
        again.rollouts.start("careful", "late_parcel@2", reason="now")
        deployment = current(again.workspace)["promise"].deployment
        assert [one["name"] for one in deployment.shadows] == ["newer", "aside"]
        again.rollouts.promote("promise", reason="now")
        assert [one["name"] for one in current(again.workspace)["promise"].deployment.shadows] == ["aside"]


def test_a_canary_waits_where_a_review_is_missing_by_then(people, root, monkeypatch):
    """Newer evidence: no promotion by the controller or by hand, and on when the reviews of it are there."""
    monkeypatch.setattr(ladder, "gather", lambda *_: SimpleNamespace(judge=lambda *_: []))  # all is shown
    ana, ben, cleo = people
    define(root, CAREFUL)
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    review_both(ben, cleo)
    with Project(root, actor="ana") as again:
        again.challengers.promote("promise", "newer", reason="as reviewed")
        ana.report("promise", "newer", by=["depot"])
        with pytest.raises(RefusedError, match="canary of careful: business review due"):
            again.rollouts.promote("promise", reason="seen")
        split = current(again.workspace)["promise"].deployment.split
        move, revision = ladder.step_on(again.workspace, "promise", now=split["since"] + 2 * HOUR)
        assert (move.what, revision.deployment.split["phase"]) == ("pause", "paused")
        assert "business review due" in move.reason
        review_both(ben, cleo)
        again.rollouts.resume("promise", reason="reviewed")
        split = current(again.workspace)["promise"].deployment.split
        assert ladder.step_on(again.workspace, "promise", now=split["since"] + 2 * HOUR)[0].what == "promote"
        assert stage(again.challengers) == "promoted"


def test_a_challenger_is_not_brought_in_with_other_rules_than_were_reviewed(people, root):
    """The policy was changed since: what would decide is not what the evidence is of."""
    ana, ben, cleo = people
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    review_both(ben, cleo)
    text = (root / "definitions.py").read_text()
    (root / "definitions.py").write_text(text.replace('"warn": "score >= 0.5"', '"warn": "score >= 0.4"') + CAREFUL)
    with Project(root, actor="ana") as again, pytest.raises(RefusedError, match="rules that it was reviewed with"):
        again.challengers.promote("promise", "newer", reason="now")


def test_what_was_deployed_past_the_reviews_owes_them(people, root):
    """A plain deployment of a challenger is marked like an emergency until the reviews are there."""
    ana, ben, cleo = people
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    with Project(root, actor="ana") as again:
        again.deploy("promise", model="late_parcel@2", reason="at once")
    assert stage(ana) == "promoted in an emergency: business and risk review due"
    review_both(ben, cleo)
    assert stage(ana) == "promoted"


def test_of_several_rollouts_the_command_names_one_and_an_emergency_waits_for_none(people, root):
    """Nobody guesses; the emergency is at once, though a rollout is defined."""
    ana, ben, cleo = people
    define(root, CAREFUL + CAREFUL.replace("careful", "slow"))
    ana.add("promise", "newer", model="late_parcel@2", reason="test")
    ana.report("promise", "newer")
    review_both(ben, cleo)
    with Project(root, actor="ana") as again:
        with pytest.raises(RefusedError, match=r"rollout start careful late_parcel@2 --policy promise --reason WHY"):
            again.challengers.promote("promise", "newer", reason="now")
        revision = again.challengers.promote("promise", "newer", reason="it burns", emergency=True)
        assert (revision.deployment.model, revision.deployment.split) == ("late_parcel@2", None)
