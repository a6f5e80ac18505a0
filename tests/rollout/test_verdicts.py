"""The gate: a view serves only after it has passed verification as it is, or with a reason that is on record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.rollout.conftest import features, learn

from retrodict.core.errors import RefusedError
from retrodict.features.plan import FeatureSet
from retrodict.features.verify import Mismatch, Report
from retrodict.features.verify.verdicts import last_verdict, record_verification, unverified_views
from retrodict.ledger import verify as audit
from retrodict.registry import current
from retrodict.rollout import deploy, promote, rollback
from retrodict.workspace import Workspace

VERSIONS = {"parcels": 0}
PASSED = Report(checked=60, probes=10, skipped=0, mismatches=[], compared={"oracle": 60})
WRONG = replace(PASSED, mismatches=[Mismatch("depot_delays__count_24h", 0, {}, {"offline": 1, "oracle": 2}, [])])


def edit(root: Path) -> None:
    """Another window: another view."""
    text = (root / "definitions.py").read_text()
    (root / "definitions.py").write_text(text.replace('over=["24h", "7d"]', 'over=["24h", "8d"]'))


def test_what_never_passed_is_refused_and_nothing_changes(project: Workspace) -> None:
    """The message names the views and the command."""
    with pytest.raises(RefusedError, match=r"\['depot_delays'\].*retrodict features verify late_parcel"):
        deploy(project, "promise")
    assert current(project) == {}
    with pytest.raises(RefusedError):
        deploy(project, "promise", force="  ")


def test_a_pass_lets_the_view_serve(project: Workspace) -> None:
    """With what it was made of on record, and the ledger intact."""
    assert record_verification(project, features(project), PASSED, VERSIONS) == {"depot_delays": True}
    assert deploy(project, "promise").deployment.model == "late_parcel@1"
    (plan,) = features(project).views
    verdict = last_verdict(project, plan.view)
    assert verdict is not None
    assert (verdict.passed, verdict.actor) == (True, "ana")
    assert verdict.facts == {"probes": 10, "checked": 10 * len(plan.outputs), "mismatches": 0}
    assert audit(project.ledger, objects=project.objects, streams=project.streams,
                 data=project.tables).verified  # fmt: skip


def test_the_newest_verdict_counts(project: Workspace) -> None:
    """A later failure takes a pass back, and a later pass gives it again."""
    wanted = features(project)
    record_verification(project, wanted, PASSED, VERSIONS)
    assert record_verification(project, wanted, WRONG, VERSIONS) == {"depot_delays": False}
    with pytest.raises(RefusedError):
        deploy(project, "promise")
    record_verification(project, wanted, PASSED, VERSIONS)
    assert deploy(project, "promise").revision == 1


def test_comparing_nothing_is_no_pass(project: Workspace) -> None:
    """And no failure: nothing is recorded."""
    nothing = Report(checked=0, probes=0, skipped=0, mismatches=[])
    assert record_verification(project, features(project), nothing, VERSIONS) == {"depot_delays": False}
    assert last_verdict(project, features(project).views[0].view) is None


def test_a_pass_belongs_to_the_content_of_a_view(project: Workspace, root: Path) -> None:
    """An edit needs a pass of its own; the version trained before it does not."""
    record_verification(project, features(project), PASSED, VERSIONS)
    edit(root)
    with Workspace(root, actor="ana") as edited:
        assert [view.name for view in unverified_views(edited, features(edited))] == ["depot_delays"]
        assert deploy(edited, "promise").deployment.model == "late_parcel@1"


def test_a_promotion_passes_the_gate_and_a_rollback_needs_none(project: Workspace, root: Path) -> None:
    """The challenger reads the edited view; the champion decided already."""
    record_verification(project, features(project), PASSED, VERSIONS)
    deploy(project, "promise")
    edit(root)
    challenger = learn(root)
    with Workspace(root, actor="ana") as edited:
        with pytest.raises(RefusedError, match="must have passed verification"):
            promote(edited, "promise", challenger, reason="newer")
        promote(edited, "promise", challenger, reason="newer", force="a drill")
        record_verification(edited, FeatureSet(features(edited).features), WRONG, VERSIONS)
        assert rollback(edited, "promise", reason="back").deployment.model == "late_parcel@1"


def test_an_override_is_on_record_with_its_reason(project: Workspace) -> None:
    """Per view, with the model; a pass needs none, and leaves none."""
    deploy(project, "promise", force=" nobody is served yet ")
    (entry,) = project.ledger.entries(action="features.unverified")
    (plan,) = features(project).views
    assert entry.object_id == f"view:depot_delays@{plan.view.version}"
    assert entry.payload["reason"] == "nobody is served yet"
    assert entry.payload["model"] == "late_parcel@1"
    record_verification(project, features(project), PASSED, VERSIONS)
    deploy(project, "promise", force="not needed")
    assert len(project.ledger.entries(action="features.unverified")) == 1
