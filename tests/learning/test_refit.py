"""The second fit, on training and validation rows together, against LightGBM told the rounds by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss
from tests.learning.test_study import SPLIT, make, problem_of

from retrodict import Bagging, Recipe, Stack, Vote
from retrodict.core.errors import DefinitionError
from retrodict.learning.calibration import calibrate, calibration_folds
from retrodict.learning.fit import fit_recipe
from retrodict.learning.recipes import run_recipe
from retrodict.learning.refit import settle_rounds
from retrodict.models.estimators import get_estimator
from retrodict.models.problem import Problem


def trained(**settings):
    _, training = problem_of()
    parts = SPLIT.assign(training.frame, now=1)
    return run_recipe(Recipe("lightgbm", SPLIT, **settings), training.frame, parts), training.frame, parts


def test_the_second_fit_is_of_both_parts_with_the_best_rounds_and_the_first_one_s_calibration():
    first, frame, parts = trained(calibrate="none")  # all validation rows stop it, as those of a fit that is repeated
    second, _, _ = trained(refit=True)
    both = np.sort(np.concatenate([parts["train"], parts["validate"]]))
    matrix = np.column_stack([frame.table.column(name).to_numpy() for name in frame.features])
    from retrodict.models.problem import Examples

    rounds = {"num_iterations": first.params["best_iteration"], "early_stopping_round": 0}
    rows = Examples(matrix[both], frame.labels[both], frame.target)
    alone = get_estimator("lightgbm").solve(Problem(first.inputs, rows, None, rounds, 0)).engine
    np.testing.assert_array_equal(second.engine.scores(matrix), alone.scores(matrix))
    assert second.params["refit"] == len(both)
    validate = parts["validate"]
    raw, pairs = first.engine.scores(matrix[validate]), calibration_folds(SPLIT, frame, validate)
    calibrator, calibration = calibrate("auto", raw, frame.labels[validate], pairs, frame.target)
    assert second.calibration == calibration
    likely = second.evaluations["validate"].values()["log_loss"]
    assert likely == pytest.approx(log_loss(frame.labels[validate], calibrator.apply(raw)))
    assert second.evaluations["test"].values() != first.evaluations["test"].values()
    assert second.history == first.history


def test_members_that_stop_early_are_told_their_own_rounds_and_others_stay_as_they_are():
    problem, training = problem_of()
    few = Recipe("lightgbm", params={"n_estimators": 40, "learning_rate": 0.3})
    recipe = Recipe(Vote([few, "logistic", "lightgbm"]), SPLIT)
    fitted = fit_recipe(recipe, problem, training, lambda *_: None)
    members = settle_rounds(recipe, fitted.params).estimator.members
    best = [params.get("best_iteration") for params in fitted.params["members"].values()]
    assert members[0].params == {"num_iterations": best[0], "learning_rate": 0.3, "early_stopping_round": 0}
    assert members[1] == "logistic"
    assert members[2].params == {"num_iterations": best[2], "early_stopping_round": 0}


@pytest.mark.parametrize("estimator", [
    Stack(["lightgbm", "logistic"]), Bagging(["lightgbm"], n=2), "xgboost", "catboost", "histogram_boosting",
    "gradient_boosting", "mlp", "extra_trees",
])  # fmt: skip
def test_every_estimator_can_be_fitted_again_without_validation_rows(estimator):
    _, training = problem_of()
    parts = SPLIT.assign(training.frame, now=1)
    result = run_recipe(Recipe(estimator, SPLIT, refit=True), training.frame, parts, ladder=False)
    assert result.params["refit"] == len(parts["train"]) + len(parts["validate"])
    assert np.isfinite(result.test_scores).all()


def test_an_interval_and_a_second_fit_exclude_each_other():
    with pytest.raises(DefinitionError, match="must leave out refit"):
        Recipe("lightgbm", SPLIT, interval=0.9, refit=True)
    assert Recipe("auto", SPLIT, budget="1m").fits_again
    assert not Recipe("auto", SPLIT, budget="1m", interval=0.9).fits_again
    assert not Recipe("lightgbm", SPLIT).fits_again


def test_a_run_with_a_second_fit_is_replayed_exactly(tmp_path):
    with make(tmp_path) as project:
        path = tmp_path / "definitions.py"
        text = path.read_text().replace(
            'Recipe("logistic", RandomSplit(),', 'Recipe("lightgbm", RandomSplit(), refit=True,'
        )
        path.write_text(text)
    from retrodict import Project

    with Project(tmp_path) as project:
        run = project.train("loan")
        assert run.params["refit"] == run.record.data["rows"]["train"] + run.record.data["rows"]["validate"]
        assert run.replay().verdict == "exact"
