"""Parameters are refused where the recipe is written, and no model is worse than it could be, or explained wrongly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import content_hash
from retrodict.models import LIGHTGBM_DEFAULTS, Examples, InputSpec, get_estimator
from retrodict.models._lightgbm import _main_name_by_spelling
from retrodict.models.definitions import Recipe
from retrodict.models.engines.trees import fit_lightgbm
from retrodict.models.splits import TimeSplit
from retrodict.testing.estimators import make_problem

SPLIT = TimeSplit("2013-01-01/2013-07-01")


def test_the_names_are_those_of_the_installed_library():
    """LightGBM's own list, aliases included; another version of it shows here first."""
    native = lightgbm.basic._ConfigAliases._get_all_param_aliases()
    expected = {spelling: name for name, aliases in native.items() for spelling in (name, *aliases)}
    assert dict(_main_name_by_spelling()) == expected


@pytest.mark.parametrize(
    ("estimator", "options", "message"),
    [
        ("lightgbm", {"params": {"num_leaves": 0}}, "num_leaves must be a whole number of at least 2 and at most 1"),
        ("lightgbm", {"params": {"max_leaf": 0}}, "num_leaves must be a whole number"),
        ("lightgbm", {"params": {"num_leaves": 15.5}}, r"num_leaves must be a whole number .*got 15.5"),
        ("lightgbm", {"params": {"learning_rate": 0}}, "learning_rate must be a number"),
        ("lightgbm", {"params": {"lambda_l1": "x"}}, "lambda_l1 must be a number of at least 0; got 'x'"),
        ("lightgbm", {"params": {"colsample_bytree": 1.5}}, "feature_fraction must be .* at most 1; got 1.5"),
        ("lightgbm", {"params": {"C": "x"}}, "a parameter must be one that LightGBM has; got 'C'"),
        ("lightgbm", {"params": {"num_leafs": 7}}, "Did you mean the parameter 'num_leaf"),
        ("lightgbm", {"params": {"num_leaves": 7, "max_leaves": 9}}, "must be given once"),
        ("lightgbm", {"params": {"random_state": 7}}, "must not be one that reproduction or serving rests on"),
        ("lightgbm", {"params": {"early_stopping_min_delta": 1}}, "must be one that training uses"),
        ("lightgbm", {"params": {"linear_tree": True}}, "contributions of linear leaves do not add up"),
        ("lightgbm", {"params": {"linear_trees": "true"}}, "contributions of linear leaves do not add up"),
        ("lightgbm", {"params": {"boosting_type": "dart"}}, "dart must grow all its trees.*early_stopping_round to 0"),
        ("logistic", {"params": {"C": "x"}}, "a parameter must be one of the estimator; got 'C'"),
        ("logistic", {"params": {"penalty": "x"}}, "penalty must be a number of at least 0; got 'x'"),
        ("logistic", {"params": {"penalty": float("inf")}}, "penalty must be a number"),
        ("logistic", {"params": {"max_iterations": 2.5}}, "max_iterations must be a whole number of at least 1"),
        ("constant", {"params": {"C": 1}}, "a parameter must be one of the estimator; got 'C'"),
        ("logistic", {"seed": 2**40}, r"a seed must be a whole number from 0 to 2\*\*31 - 1; got 1099511627776"),
        ("logistic", {"seed": -1}, "a seed must be"),
        ("logistic", {"seed": True}, "a seed must be"),
        ("logistic", {"seed": 1.0}, "a seed must be"),
        ("logistic", {"types": {"weekday": "categorical"}}, "types of 'weekday'.*Did you mean the type 'category'"),
    ],
)  # fmt: skip
def test_a_parameter_is_refused_where_it_is_written(estimator, options, message):
    """By its main name, with its bounds."""
    with pytest.raises(DefinitionError, match=message):
        Recipe(estimator, SPLIT, **options)


def test_what_lightgbm_takes_is_taken():
    """Defaults, aliases, the ends of the bounds, NumPy's numbers."""
    for params in (
        dict(LIGHTGBM_DEFAULTS), {"min_child_samples": 200, "num_leaves": 2}, {"feature_fraction": 1},
        {"num_leaves": np.int64(7), "eta": np.float64(0.1)}, {"boosting": "dart", "early_stopping_round": 0},
        {"linear_tree": False}, {"early_stopping_round": -1}, {"scale_pos_weight": 3.0},
    ):  # fmt: skip
        assert Recipe("lightgbm", SPLIT, params=params, seed=2**31 - 1).settings == params


def test_checking_loads_no_lightgbm():
    """Definitions are read by every command."""
    script = (
        "import sys; from retrodict.models.definitions import Recipe; from retrodict.models.splits import TimeSplit; "
        "Recipe('lightgbm', TimeSplit('2013-01-01/2013-07-01'), params={'min_child_samples': 5}); "
        "assert not {'lightgbm', 'numpy', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_types_enter_the_version_only_when_they_are_set():
    """Versions that stand stay; a declared type makes another model."""
    plain = content_hash(Recipe("logistic", SPLIT, "sigmoid", {"penalty": 2.0}, "origin", 3))
    assert plain == content_hash(Recipe("logistic", SPLIT, "sigmoid", {"penalty": 2.0}, "origin", 3, types={}))
    assert plain != content_hash(Recipe("logistic", SPLIT, "sigmoid", {"penalty": 2.0}, "origin", 3, {"a": "category"}))
    assert plain == "a3d37ed69f7e7d915e0005fb63e1bbef1ee4fc3197926f68109933230298a2bd"


@pytest.fixture(scope="module")
def parts() -> list[Examples]:
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(3_000, 4))
    labels = (rng.random(3_000) < 1 / (1 + np.exp(-matrix[:, 0] * matrix[:, 1]))).astype(float)
    return [Examples(matrix[a:b], labels[a:b]) for a, b in ((0, 1500), (1500, 3000))]


SPEC = InputSpec.learn({name: [0.0, 1.0] for name in "abcd"})


def test_dart_is_the_model_that_was_grown(parts):
    """All its trees: scores of the engine are those of LightGBM's own booster, which grew as many."""
    params = {"boosting": "dart", "early_stopping_round": 0, "num_iterations": 40, "num_threads": 1}
    fitted = fit_lightgbm(SPEC, *parts, seed=3, params=params)
    native = lightgbm.train(
        {**LIGHTGBM_DEFAULTS, **params, "objective": "binary", "deterministic": True, "force_row_wise": True,
         "verbosity": -1, "seed": 3, "early_stopping_round": 0},
        lightgbm.Dataset(parts[0].matrix, parts[0].labels), num_boost_round=40,
    )  # fmt: skip
    assert (fitted.engine.trees, fitted.params["best_iteration"]) == (40, 40)
    np.testing.assert_allclose(fitted.engine.scores(parts[1].matrix), native.predict(parts[1].matrix), rtol=1e-12)


@pytest.mark.parametrize("boosting", ["gbdt", "rf", "goss"])
def test_a_model_that_stops_early_is_its_own_best(parts, boosting):
    """Its log loss on the rows that stopped it is the least of its history."""
    params = {"boosting": boosting, "num_iterations": 60, "early_stopping_round": 5, "num_threads": 1}
    if boosting == "goss":
        params |= {"bagging_fraction": 1.0, "bagging_freq": 0}
    fitted = fit_lightgbm(SPEC, *parts, seed=3, params=params)
    scores = fitted.engine.scores(parts[1].matrix)
    right = np.where(parts[1].labels == 1, scores, 1 - scores)
    assert -np.log(right).mean() == pytest.approx(min(fitted.history["log_loss"]), rel=1e-9)


def test_what_lightgbm_itself_refuses_is_an_error_of_the_input(parts):
    """Its words, with the parameters; nothing internal."""
    with pytest.raises(InputError, match=r"LightGBM must be able to train.*Correct the params of the recipe"):
        fit_lightgbm(SPEC, *parts, seed=3, params={"monotone_constraints": [1]})


def test_declared_types_reach_the_inputs():
    """Whole numbers as categories, which no table says."""
    import pyarrow as pa

    from retrodict.learning.frame import Frame
    from retrodict.learning.recipes import run_recipe

    rng = np.random.default_rng(0)
    weekday = rng.integers(0, 7, 900)
    labels = (rng.random(900) < np.where(weekday % 2, 0.8, 0.2)).astype(float)
    at = np.arange(900)
    frame = Frame(pa.table({"weekday": weekday}), ("weekday",), at, labels, at)
    rows = {"train": at[:500], "validate": at[500:700], "test": at[700:]}
    areas = [
        run_recipe(Recipe("logistic", SPLIT, types=types), frame, rows).evaluations["test"]["auc"].value
        for types in ({}, {"weekday": "category"})
    ]
    assert areas[0] < 0.6 < 0.7 < areas[1]
    assert get_estimator("logistic").inputs == ("number", "category")


def test_none_means_no_limit_where_the_library_says_so():
    """Of depth and leaves; of nothing else."""
    for name, parameter in (("decision_tree", "max_depth"), ("gradient_boosting", "max_depth"),
                            ("histogram_boosting", "max_leaf_nodes"), ("random_forest", "max_depth")):  # fmt: skip
        recipe = Recipe(name, SPLIT, params={parameter: None})
        assert recipe.settings == {parameter: None}
        params = {parameter: None} | ({"max_iter": 3} if name == "histogram_boosting" else {})
        params |= {"n_estimators": 3} if name in ("gradient_boosting", "random_forest") else {}
        get_estimator(name).solve(replace(make_problem("binary", rows=80), params=params))
    with pytest.raises(DefinitionError, match="min_samples_leaf must be a whole number of at least 1; got None"):
        Recipe("decision_tree", SPLIT, params={"min_samples_leaf": None})
