"""Training: reproducible, complete in what it records, right against plain recomputation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from threadpoolctl import threadpool_limits

from retrodict.core.errors import InputError
from retrodict.models import (
    Examples,
    InputSpec,
    Problem,
    fit_constant,
    fit_group_rate,
    fit_lightgbm,
    fit_logistic,
    get_estimator,
)

from .conftest import SMALL


def test_threads_do_not_change_the_trees(spec, train, valid):
    """One thread and two: the same trees, best iteration and history to the last bit."""
    one, two = (
        fit_lightgbm(spec, train, valid, seed=7, params={**SMALL, "num_threads": threads}) for threads in (1, 2)
    )
    assert one.engine.fingerprint() == two.engine.fingerprint()
    assert one.engine.parts() == two.engine.parts()
    assert one.history == two.history
    assert (one.params["num_threads"], two.params["num_threads"]) == (1, 2)
    assert (one.params["deterministic"], one.params["force_row_wise"]) == (True, True)


def test_order_of_rows_and_seed_change_the_trees(spec, train, valid):
    """So both belong to what a run records."""
    first = fit_lightgbm(spec, train, valid, seed=7, params=SMALL).engine.fingerprint()
    turned = Examples(train.matrix[::-1].copy(), train.labels[::-1].copy())
    assert fit_lightgbm(spec, turned, valid, seed=7, params=SMALL).engine.fingerprint() != first
    assert fit_lightgbm(spec, train, valid, seed=8, params=SMALL).engine.fingerprint() != first
    assert fit_lightgbm(spec, train, valid, seed=7, params=SMALL).engine.fingerprint() == first


def test_an_estimator_gets_everything_of_its_problem(spec, train, valid):
    """Seed, validation rows, parameters and progress: as if the function were called with them."""
    told = []
    problem = Problem(spec, train, valid, SMALL, seed=7, progress=lambda *news: told.append(news))
    solved, fitted = get_estimator("lightgbm").solve(problem), fit_lightgbm(spec, train, valid, seed=7, params=SMALL)
    assert solved.engine.fingerprint() == fitted.engine.fingerprint()
    assert (solved.params, solved.history) == (fitted.params, fitted.history)
    assert solved.params["seed"] == 7
    assert len(told) == len(solved.history["log_loss"]) > 0


@pytest.mark.parametrize(
    ("name", "params", "free"),
    [("logistic", {"penalty": 1e9}, {"penalty": 0.1}), ("group_rate", {"prior_count": 1e9}, {"prior_count": 0})],
)
def test_a_parameter_of_a_problem_is_in_force(spec, train, name, params, free):
    """Held down to next to nothing, or let go; and recorded."""
    group = {"group": "origin"} if name == "group_rate" else {}
    solved = [get_estimator(name).solve(Problem(spec, train, params={**group, **given})) for given in (params, free)]
    spread = [np.ptp(fitted.engine.scores(train.matrix)) for fitted in solved]
    assert spread[0] < 0.001 < 0.05 < spread[1]
    for fitted, given in zip(solved, (params, free), strict=True):
        assert given.items() <= fitted.params.items()


def test_the_engine_stops_at_the_best_validation_loss(spec, train, valid):
    """Early stopping keeps the iteration of the lowest loss, and grew the patience beyond it, no more."""
    fast = {**SMALL, "learning_rate": 0.5, "num_iterations": 200}
    fitted = fit_lightgbm(spec, train, valid, seed=7, params=fast)
    losses = fitted.history["log_loss"]
    best = fitted.params["best_iteration"]
    assert best == int(np.argmin(losses)) + 1 == fitted.engine.trees
    assert len(losses) == best + SMALL["early_stopping_round"] < 200


def test_of_equal_losses_the_first_is_the_best(spec, train, valid):
    """Where no split is allowed every iteration is as good: one tree, and the patience beyond it."""
    stuck = {**SMALL, "min_data_in_leaf": 10 * len(train.labels)}
    fitted = fit_lightgbm(spec, train, valid, seed=7, params=stuck)
    assert len(set(fitted.history["log_loss"])) == 1
    assert fitted.params["best_iteration"] == 1
    assert len(fitted.history["log_loss"]) == 1 + SMALL["early_stopping_round"]


def test_the_history_is_the_loss_of_the_engine(spec, train, valid):
    """At the best iteration, against scikit-learn's loss of the engine's scores."""
    fitted = fit_lightgbm(spec, train, valid, seed=7, params=SMALL)
    scores, at = fitted.engine.scores(valid.matrix), fitted.params["best_iteration"] - 1
    assert fitted.history["log_loss"][at] == pytest.approx(log_loss(valid.labels, scores), rel=1e-9)


def test_progress_is_told_after_each_iteration(spec, train, valid):
    """Iterations count from one, with the metrics of the history."""
    told = []
    fitted = fit_lightgbm(spec, train, valid, seed=7, params=SMALL, progress=lambda *news: told.append(news))
    assert [news[0] for news in told] == list(range(1, len(told) + 1))
    assert {news[1] for news in told} == {SMALL["num_iterations"]}
    assert [news[2]["log_loss"] for news in told] == fitted.history["log_loss"]


def test_without_validation_rows_all_iterations_are_grown(spec, train):
    """No rows to judge by: no history, no early stop."""
    fitted = fit_lightgbm(spec, train, seed=7, params={**SMALL, "num_iterations": 5})
    assert (fitted.engine.trees, fitted.history, fitted.params["best_iteration"]) == (5, {}, 5)


def test_categories_are_split_as_categories(spec, trees):
    """The model text holds categorical splits for them."""
    assert any(line != "num_cat=0" for line in trees.text.splitlines() if line.startswith("num_cat="))


def test_feature_names_that_the_text_format_cannot_hold_are_rewritten():
    """Names such as 'share(arr_delay > 15, 2h)' train and score."""
    rng = np.random.default_rng(0)
    columns = {
        "share(a > 15, 2h)": rng.normal(size=200),
        "share(a < 15, 2h)": rng.normal(size=200),
        "é:ü": rng.normal(size=200),
    }
    spec = InputSpec.learn(columns)
    train = Examples(spec.encode_columns(columns), (columns["é:ü"] > 0).astype(float))
    engine = fit_lightgbm(spec, train, seed=1, params={**SMALL, "num_iterations": 3}).engine
    assert roc_auc_score(train.labels, engine.scores(train.matrix)) > 0.9


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ({"lerning_rate": 0.1}, "a parameter must be one that LightGBM has.*'learning_rate'"),
        ({"objective": "l2"}, "must not be one that reproduction"),
        ({"bagging_seed": 1}, "must not be one that reproduction"),
        ({"deterministic": False}, "must not be one that reproduction"),
        ({"eta": 0.1, "learning_rate": 0.2}, "a parameter must be given once"),
    ],
)
def test_wrong_parameters_are_refused(spec, train, params, rule):
    """LightGBM itself would pass over a misspelt one."""
    with pytest.raises(InputError, match=rule):
        fit_lightgbm(spec, train, seed=1, params=params)


def test_aliases_replace_the_default(spec, train):
    """`n_estimators` is num_iterations, not one more parameter."""
    fitted = fit_lightgbm(spec, train, seed=1, params={"n_estimators": 2})
    assert (fitted.engine.trees, fitted.params["num_iterations"]) == (2, 2)
    assert "n_estimators" not in fitted.params


def test_logistic_regression_is_at_its_optimum(train, spec):
    """The gradient of the penalised loss vanishes at the coefficients, by a plain dense computation."""
    engine = fit_logistic(train, spec.categorical, penalty=2.0).engine
    residual = engine.scores(train.matrix) - train.labels
    wind = engine.terms[0]
    standard = np.where(np.isnan(train.matrix[:, 0]), 0.0, (train.matrix[:, 0] - wind.mean) / wind.scale)
    scale = len(train.labels)
    assert residual.sum() / scale == pytest.approx(0.0, abs=1e-5)
    assert (residual @ standard + 2.0 * wind.weight) / scale == pytest.approx(0.0, abs=1e-5)
    origin = engine.terms[2]
    for code, weight in enumerate(origin.weights):
        assert (residual[train.matrix[:, 2] == code].sum() + 2.0 * weight) / scale == pytest.approx(0.0, abs=1e-5)
    assert (residual[np.isnan(train.matrix[:, 2])].sum() + 2.0 * origin.missing) / scale == pytest.approx(0.0, abs=1e-5)


def test_logistic_regression_does_not_depend_on_threads(train, spec):
    """The solver limits BLAS itself, whatever is set around it."""
    fitted = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            fitted.append(fit_logistic(train, spec.categorical))
    assert fitted[0].engine == fitted[1].engine
    assert fitted[0].params["converged"]


def test_logistic_regression_says_when_it_did_not_converge(train):
    """A solver that was cut short is recorded, not hidden."""
    assert not fit_logistic(train, max_iterations=1).params["converged"]


def test_columns_of_one_value_and_of_nulls_are_harmless():
    """They get no say and break nothing."""
    labels = np.array([0.0, 1.0] * 20)
    matrix = np.column_stack([labels + 0.1, np.full(40, 0.3), np.full(40, np.nan)])
    engine = fit_logistic(Examples(matrix, labels)).engine
    assert np.all(np.isfinite(engine.scores(matrix)))
    assert engine.terms[1].of(0.3) == pytest.approx(0.0, abs=1e-12)
    assert engine.terms[2].of(5.0) == 0.0


def test_one_outcome_is_not_enough_for_logistic_regression(train):
    """There is nothing to separate."""
    with pytest.raises(InputError, match="both outcomes"):
        fit_logistic(Examples(train.matrix, np.zeros(len(train.labels))))


def test_group_rates_are_smoothed_shares(train, spec):
    """Against the formula, group by group; missing and unseen get the rate of all."""
    column = spec.categorical[0]
    engine = fit_group_rate(train, column, prior_count=10).engine
    overall = train.labels.mean()
    for code in range(3):
        own = train.labels[train.matrix[:, column] == code]
        row = np.full(train.width, np.nan)
        row[column] = code
        assert engine.score_row(row) == pytest.approx((own.sum() + 10 * overall) / (len(own) + 10))
    for unknown in (np.nan, 99.0, -1.0):
        row[column] = unknown
        assert engine.score_row(row) == overall == fit_constant(train).engine.rate


def test_group_rates_are_of_a_category(train):
    """A measurement has no groups."""
    with pytest.raises(InputError, match="must be over a category"):
        fit_group_rate(train, 1)


@pytest.mark.parametrize("labels", [[0.0, 2.0], [0.0, np.nan], [0.0], []])
def test_labels_that_are_no_outcome_are_refused(labels):
    """A label that is not known yet is no training row."""
    with pytest.raises(InputError, match="label"):
        Examples(np.zeros((2, 1)), np.array(labels))
