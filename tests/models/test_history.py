"""What a fit keeps of its iterations: losses of validation and training rows, the one in force, and a path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.models.test_catalogue import FAST

from retrodict.models import get_estimator
from retrodict.models.engines._losses import TrainingLoss, validation_loss
from retrodict.models.problem import TRAIN
from retrodict.testing.estimators import make_problem

WORDS = ["t00000", "t00001", "t00002", "t00003", "missing"]
LENGTHS = {"lightgbm": "num_iterations", "xgboost": "num_boost_round", "gradient_boosting": "n_estimators",
           "histogram_boosting": "max_iter", "mlp": "max_iter", "catboost": "iterations"}  # fmt: skip


def fit(name, problem, **params):
    return get_estimator(name).solve(replace(problem, params={**FAST[name], **params}))


@pytest.mark.parametrize("task", ["binary", "quantile"])
@pytest.mark.parametrize("name", LENGTHS)
def test_every_iterative_estimator_keeps_both_losses(name, task):
    """Of each loss of validation rows, the same of training rows, and which iteration is in force."""
    if task not in get_estimator(name).tasks:
        pytest.skip("not of this task")
    fitted = fit(name, make_problem(task))
    losses = {
        metric: values for metric, values in fitted.history.items() if not metric.startswith(TRAIN) and metric != "auc"
    }
    assert losses
    best = fitted.params["best_iteration"]
    for metric, values in losses.items():
        seen = fitted.history[f"{TRAIN}{metric}"]
        assert len(seen) == len(values)
        assert np.isfinite(seen[0])
        end = best if isinstance(best, int) else next(e for n, e in best.items() if metric.endswith(n))
        assert 1 <= end <= len(values)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "gradient_boosting", "mlp"])
def test_the_training_loss_of_an_iteration_is_that_of_a_fit_of_so_many(name):
    """The tenth, of a model of ten iterations, on every training row."""
    problem = make_problem("binary")
    loss = fit(name, problem).history[f"{TRAIN}log_loss"][9]
    short = fit(name, replace(problem, validate=None), **{LENGTHS[name]: 10}).engine
    if name != "mlp":  # whose epochs without validation rows draw batches of their own
        assert loss == pytest.approx(validation_loss(problem.train, short.scores(problem.train.matrix))[1], rel=1e-6)
    assert loss > 0


def test_of_many_rows_some_are_drawn_and_of_many_iterations_some():
    problem = make_problem("regression", rows=45_000)
    seen, history = TrainingLoss(problem.train), {}
    assert (len(seen.places), seen.places[0], seen.places[-1]) == (20_000, 0, 44_999)
    for iteration in range(1, 21):
        seen.note(history, "loss", iteration, lambda: seen.rows.labels + 1.0)
    measured = np.flatnonzero(~np.isnan(history[f"{TRAIN}loss"])) + 1
    assert measured.tolist() == [1, 2, 5, 10, 20]  # of a part of the rows; of all every tenth
    assert history[f"{TRAIN}loss"][0] == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "task", "ratio"), [("logistic", "binary", 1.0), ("lasso", "regression", None),
                                                     ("logistic", "multiclass", 0.0)])  # fmt: skip
def test_a_path_has_every_coefficient_and_passes_through_the_fit(name, task, ratio):
    """At the strength in force the path is where the fitted coefficients are: as many zeros, up to its grid."""
    problem = make_problem(task)
    params = {"path": True, "penalty": 5.0} | ({} if ratio is None else {"l1_ratio": ratio})
    fitted = get_estimator(name).solve(replace(problem, params=params))
    path = fitted.notes["path"]
    assert path["strength"] == pytest.approx(5.0 / 300)
    labels = {key.partition(" (")[0] for key in path["coefficients"]}
    assert {"wind", "visib", "month", *(f"town={word}" for word in WORDS)} == labels
    if ratio != 0.0:
        zeroed = dict(path["zeroed"])
        near = min(zeroed, key=lambda strength: abs(np.log(strength / path["strength"])))
        assert abs(zeroed[near] - fitted.notes["zeroed_coefficients"]) <= 1
        assert zeroed[max(zeroed)] == len(labels)
    plain = get_estimator(name).solve(replace(problem, params={**params, "path": False}))
    assert plain.engine.fingerprint() == fitted.engine.fingerprint()
    assert "path" not in plain.notes
