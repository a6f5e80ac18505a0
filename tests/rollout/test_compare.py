"""A challenger on the logged decisions, and the champion computed again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score
from tests.monitoring import conftest as monitored

from retrodict.core.errors import InputError, NotFoundError
from retrodict.models import ConstantEngine, InputSpec, ModelArtifact
from retrodict.registry import register
from retrodict.rollout.compare import compare_on_log, reproduce_champion

kit, make_project, project, world = monitored.kit, monitored.make_project, monitored.project, monitored.world


def _values(records) -> dict[str, list]:
    return {name: [r.features[name] for r in records] for name in records[0].features}


def test_a_weaker_challenger_is_worse_by_the_differences_that_scikit_learn_gives(world, kit):
    """A model that does not look at the wind, on the same 1,200 outcomes."""
    project, records, labels = world
    blind = kit.train(project, run="r2", features=("weather__origin",))
    found = compare_on_log(project, "warn_early", blind.ref, now=kit.NOW)
    old = np.array([r.score for r in records])
    new = ModelArtifact.load(project.objects, blind.artifact).score_rows(_values(records)).score
    assert found.verdict == "worse"
    assert found.scores.auc_difference.value == pytest.approx(roc_auc_score(labels, new) - roc_auc_score(labels, old))
    assert found.scores.brier_difference.value == pytest.approx(
        brier_score_loss(labels, new) - brier_score_loss(labels, old)
    )
    assert found.scores.auc_difference.low < found.scores.auc_difference.value < found.scores.auc_difference.high
    changed = (old >= 0.5) != (new >= 0.5)
    assert sum(found.changes.values()) == changed.sum()
    assert found.changes["warn -> ok"] == (changed & (old >= 0.5)).sum()
    assert found.agreement.value == pytest.approx(1 - changed.mean())
    assert (found.champion, found.challenger, found.decisions) == ("late_arrival@1", "late_arrival@2", 1200)


def test_the_champion_against_itself_is_inconclusive(world, kit):
    """No difference, no changed decision."""
    project, _, _ = world
    found = compare_on_log(project, "warn_early", "late_arrival@1", now=kit.NOW)
    assert (found.verdict, dict(found.changes), found.scores.score_distance.value) == ("inconclusive", {}, 0.0)


def test_outcomes_not_known_yet_do_not_enter(world, kit):
    """At the end of March only what was known then."""
    project, _, _ = world
    now = kit.START + (kit.NOW - kit.START) // 4
    found = compare_on_log(project, "warn_early", "late_arrival@1", now=now)
    assert found.labelled + found.pending + found.void == found.decisions < 600
    assert found.pending > 0
    assert found.scores.n == found.labelled


def test_what_a_rule_decided_does_not_change(project, kit):
    """The fog rule warned at a low score; a challenger's score does not matter to it."""
    version = kit.train(project, run="r1")
    kit.deploy(project, version)
    rows, _ = kit.make_rows(200, 4)
    records = kit.decided(ModelArtifact.load(project.objects, version.artifact), rows, kit.START + np.arange(200))
    plain = [{f: getattr(each, f) for f in ("time", "features", "raw", "score")} for each in records]
    kit.log(project, [kit.record(at, **each, decision="warn", rule="fog") for at, each in enumerate(plain)])
    other = kit.train(project, run="r2", features=("weather__origin",), seed=9)
    found = compare_on_log(project, "warn_early", other.ref, now=kit.NOW)
    assert set(found.changes) <= {"warn -> ok"}
    assert sum(found.changes.values()) < (np.array([r.score for r in records]) >= 0.5).sum()


def test_a_feature_that_the_log_never_held_is_an_input_error(world, kit):
    """The message names the column."""
    project, _, _ = world
    rows, _ = kit.make_rows(10, 1)
    spec = InputSpec.learn({"weather__visib": rows["weather__wind"]})
    digest = ModelArtifact("late_arrival", spec, ConstantEngine(0.3, features=1)).save(project.objects)
    version = register(project, "late_arrival", run="r9", artifact=digest, code=digest, gates=[], metrics={})
    message = r"must hold every feature of the challenger; got \['weather__visib'\]"
    with pytest.raises(InputError, match=message):
        compare_on_log(project, "warn_early", version.ref, now=kit.NOW)


def test_decisions_that_cannot_be_compared_are_set_aside_and_counted(world, kit):
    """Absent is not null: a record without the feature is not scored as if the value were missing."""
    project, records, _ = world
    full = dict(records[0].features)
    kit.log(project, [
        kit.record(5000, model="late_arrival@7", features=full),
        kit.record(5001, raw=None, score=None, fallback="ok"),
        kit.record(5002, features={"weather__wind": 3.0}),
        kit.record(5003, features={**full, "weather__wind": None}),
    ])  # fmt: skip
    found = compare_on_log(project, "warn_early", "late_arrival@1", now=kit.NOW * 2)
    assert found.set_aside == {"no score": 1, "scored by another version": 1, "a feature was not logged": 1}
    assert found.decisions == len(records) + 1


def test_a_text_feature_that_is_null_throughout_is_scored_as_missing(project, kit):
    """Such a column has no type of its own in the log."""
    version = kit.train(project, run="r1")
    kit.deploy(project, version)
    artifact = ModelArtifact.load(project.objects, version.artifact)
    rows = {"weather__wind": np.linspace(0.0, 20.0, 50), "weather__origin": [None] * 50}
    kit.log(project, kit.decided(artifact, rows, kit.START + np.arange(50)))
    assert reproduce_champion(project, "warn_early").mismatches == 0
    assert compare_on_log(project, "warn_early", version.ref, now=kit.NOW).decisions == 50


def test_an_undeployed_policy_has_no_champion(project, kit):
    """And the error names the policy."""
    version = kit.train(project, run="r1")
    with pytest.raises(NotFoundError, match="policy:warn_early"):
        compare_on_log(project, "warn_early", version.ref, now=kit.NOW)


def test_the_champion_comes_out_bit_for_bit(world):
    """1,200 scores made row by row equal those of whole columns."""
    project, records, _ = world
    found = reproduce_champion(project, "warn_early")
    assert (found.checked, found.mismatches, found.unscored) == (len(records), 0, 0)


def test_one_bit_is_a_mismatch(world, kit):
    """The last bit of a score, and a feature value that was altered."""
    project, records, _ = world
    first, second = records[0], records[1]
    kit.log(project, [
        kit.record(7000, features=first.features, raw=first.raw, score=float(np.nextafter(first.score, 1.0))),
        kit.record(7001, features={**second.features, "weather__wind": 0.0}, raw=second.raw, score=second.score),
        kit.record(7002, raw=None, score=None, fallback="ok"),
    ])  # fmt: skip
    found = reproduce_champion(project, "warn_early")
    assert (found.mismatches, found.unscored) == (2, 1)
    assert found.models == {"late_arrival@1": (len(records) + 2, 2)}
