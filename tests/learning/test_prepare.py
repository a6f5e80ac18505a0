"""A recipe with steps, balance and a threshold, from a file to a decision that is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.learning.test_timeless import NOW, rows, written

from retrodict import Project
from retrodict.core.clock import SimulatedClock

RECIPES = {
    "target": 'prepare=[Impute("median"), Encode("target", ["purpose"]), Scale(), Select.rfe(3, estimator="linear")], '
              'balance=Balance("over"), threshold=Threshold.cost(false_positive=1, false_negative=6)',
    "onehot": 'prepare=[Scale("power"), Encode("onehot"), Interact(["amount", "months"])], '
              'balance=Balance("smote", ratio=0.8), threshold=Threshold.recall(0.8)',
    "scikit_learn": 'prepare=[Impute(), Encode("onehot"), Scale(), '
                    '__import__("sklearn.decomposition").decomposition.PCA(7)]',
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_prepared_is_served_and_replayed(tmp_path: Path, name: str) -> None:
    """The run says what each step did; the run and the decision come out the same when they are done again."""
    written(tmp_path, f"RandomSplit(seed=3), {RECIPES[name]}")
    clock = SimulatedClock(NOW)
    with Project(tmp_path, actor="ana", clock=clock) as project:
        project.data.ingest("applications", tmp_path / "applications.csv")
        run = project.train("credit")
        assert run.metrics["auc"] > 0.6
        assert run.replay().exact
        with Project(tmp_path, actor="ben", clock=clock) as second:
            second.models.approve("credit@1", reason="test")
        project.features.verify()
        project.deploy("lend", reason="test")
        values = {column: rows()[7][column] for column in ("amount", "months", "purpose", "age")}
        for changed in ({}, {"purpose": "yacht"}):
            decision = project.decide("lend", key="7", **{**values, **changed})
            assert 0 < decision.score < 1
            assert decision.replay().ok
