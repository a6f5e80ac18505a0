"""Fits that go on from an engine, against the continuation of each library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pytest

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import content_hash
from retrodict.core.tasks import Target
from retrodict.models.checkpoints import Checkpoints, problem_key
from retrodict.models.definitions import Recipe
from retrodict.models.engines.trees import tree_hash
from retrodict.models.ensembles import Vote
from retrodict.models.estimators import get_estimator, list_estimators
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples, Fitted, Problem, Start
from retrodict.models.splits import RandomSplit
from retrodict.models.tune import Tune
from retrodict.models.warmstart import WarmStart

TARGETS = {"binary": Target(), "multiclass": Target("multiclass", classes=("a", "b", "c")),
           "regression": Target("regression"), "count": Target("count"),
           "quantile": Target("quantile", quantiles=(0.2, 0.8))}  # fmt: skip
COUNTS = {"lightgbm": "num_iterations", "xgboost": "num_boost_round", "catboost": "iterations"}
STOPS = {"pinball", "log_loss", "mean_squared_error", "logloss", "multiclass", "rmse"}
PATIENCE = {"lightgbm": "early_stopping_round", "xgboost": "early_stopping_rounds", "catboost": "early_stopping_rounds"}


def problem(task: str = "binary", seed: int = 3, rows: int = 600, shift: float = 0.0) -> Problem:
    """Two numbers, one of them with gaps, and a category."""
    rng = np.random.default_rng(seed)
    x, z, place = rng.normal(size=rows) + shift, rng.normal(size=rows), rng.integers(0, 4, rows)
    z[rng.random(rows) < 0.1] = np.nan
    value = 1.5 * x + np.nan_to_num(z) + (place == 2) * 2.0 + rng.normal(size=rows)
    labels = {"binary": (value > 0).astype(float), "multiclass": np.digitize(value, [-1.0, 1.0]).astype(float),
              "count": np.floor(np.exp(value / 3))}.get(task, value)  # fmt: skip
    words = np.array(["d", "e", "f", "g"])[place]
    spec = InputSpec.learn({"x": x[:400], "z": z[:400], "place": ["d", "e", "f", "g"] * 100})
    matrix = spec.encode_columns({"x": x, "z": z, "place": words.tolist()})
    target = TARGETS[task]
    held = rows * 3 // 4
    return Problem(spec, Examples(matrix[:held], labels[:held], target), Examples(matrix[held:], labels[held:], target),
                   {}, seed)  # fmt: skip


def fit(name: str, rows: Problem, start: Fitted[Any] | None = None, **params: Any) -> Fitted[Any]:
    begun = None if start is None else Start(start.engine)
    return get_estimator(name).solve(replace(rows, params=params, start=begun))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "count"])
def test_lightgbm_goes_on_as_lightgbm_does(task: str) -> None:
    """The same trees as lightgbm.train(init_model=…) of the same parameters grows, bit for bit."""
    first = fit("lightgbm", problem(task), num_iterations=12)
    later = replace(problem(task, seed=4), validate=None)
    warm = fit("lightgbm", later, first, num_iterations=9)
    native = {name: value for name, value in warm.params.items()
              if name not in {"num_iterations", "early_stopping_round", "best_iteration", "started_at"}}  # fmt: skip
    data = lightgbm.Dataset(later.train.matrix, later.train.labels, categorical_feature=[2],
                            feature_name=list(later.inputs.names))  # fmt: skip
    oracle = lightgbm.train(native, data, 9, init_model=lightgbm.Booster(model_str=first.engine.text))
    assert warm.engine.fingerprint() == tree_hash(oracle.model_to_string())
    begun = first.params["best_iteration"]
    assert (warm.params["started_at"], warm.params["best_iteration"]) == (begun, begun + 9)


def test_xgboost_goes_on_as_xgboost_does() -> None:
    """The same outputs as xgboost.train(xgb_model=…), bit for bit."""
    xgboost = pytest.importorskip("xgboost")
    first = fit("xgboost", problem(), num_boost_round=12)
    later = replace(problem(seed=4), validate=None)
    warm = fit("xgboost", later, first, num_boost_round=9)
    apart = {"num_boost_round", "early_stopping_rounds", "best_iteration", "started_at", "nthread", "rate_drop"}
    native = {name: value for name, value in warm.params.items() if name not in apart}
    types = ["q", "q", "c"]
    data = xgboost.QuantileDMatrix(later.train.matrix, label=later.train.labels, feature_types=types,
                                   enable_categorical=True, max_bin=256)  # fmt: skip
    before = xgboost.Booster()
    before.load_model(bytearray(first.engine.parts()["trees.ubj"]))
    oracle = xgboost.train({**native, "tree_method": "hist"}, data, 9, xgb_model=before)
    rows = xgboost.DMatrix(later.train.matrix, feature_types=types, enable_categorical=True)
    assert warm.engine.scores(later.train.matrix).tolist() == oracle.predict(rows).astype(np.float64).tolist()
    assert warm.params["best_iteration"] == first.params["best_iteration"] + 9


def test_catboost_goes_on_as_catboost_does() -> None:
    """The same margins as CatBoost.fit(init_model=…), categories among the features."""
    catboost = pytest.importorskip("catboost")
    first = fit("catboost", problem(), iterations=12)
    later = replace(problem(seed=4), validate=None)
    warm = fit("catboost", later, first, iterations=9)
    apart = {"early_stopping_rounds", "best_iteration", "started_at", "seed"}
    native = {name: value for name, value in warm.params.items() if name not in apart}
    model = catboost.CatBoost({**native, "random_seed": warm.params["seed"], "verbose": False,
                               "allow_writing_files": False})  # fmt: skip
    table = later.train.matrix.astype(object)
    table[:, 2] = later.train.matrix[:, 2].astype(int).astype(str)
    before = catboost.CatBoost().load_model(blob=first.engine.parts()["trees.cbm"])
    model.fit(catboost.Pool(table, later.train.labels.astype(int), cat_features=[2]), init_model=before)
    expected = model.predict(catboost.Pool(table, cat_features=[2]), prediction_type="RawFormulaVal")
    assert warm.engine.margins(later.train.matrix).tolist() == expected.tolist()
    assert warm.params["best_iteration"] == first.params["best_iteration"] + 9


BOOSTERS = [(name, task) for name in COUNTS for task in ("binary", "multiclass", "regression", "quantile")]


@pytest.mark.parametrize(("name", "task"), BOOSTERS)
def test_boosting_keeps_the_trees_of_the_source_and_stops_by_its_own_rows(name: str, task: str) -> None:
    """The source is not changed, its trees come first, and the best iteration counts from the whole."""
    pytest.importorskip(name)
    first = fit(name, problem(task), **{COUNTS[name]: 15, PATIENCE[name]: 3})
    before = first.engine.fingerprint()
    later = problem(task, seed=4)
    warm = fit(name, later, first, **{COUNTS[name]: 300, PATIENCE[name]: 3})
    assert first.engine.fingerprint() == before
    assert warm.engine.fingerprint() != before
    begun, best = warm.params["started_at"], warm.params["best_iteration"]
    if isinstance(best, dict):
        assert all(0 < begun[level] < best[level] for level in best)
        return
    losses = next(values for loss, values in warm.history.items() if loss in STOPS or loss.startswith("multiq"))
    assert begun == first.params["best_iteration"]
    assert best == begun + int(np.argmin(losses)) + 1 < begun + 300
    once = fit(name, later, first, **{COUNTS[name]: 300, PATIENCE[name]: 3})
    assert once.engine.fingerprint() == warm.engine.fingerprint()


@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_pieces_go_on_from_a_checkpoint_to_the_same_trees(name: str, tmp_path: Any) -> None:
    """A fit from a source that was killed gives what one that was not gives; another source has other checkpoints."""
    pytest.importorskip(name)
    first, other = (fit(name, problem(seed=seed), **{COUNTS[name]: 10}) for seed in (3, 5))
    later = problem(seed=4)
    params = {COUNTS[name]: 20, PATIENCE[name]: 0}
    whole = fit(name, replace(later, checkpoints=Checkpoints(None, steps=5)), first, **params)
    fit(name, replace(later, checkpoints=Checkpoints(tmp_path, steps=5)), first, **params)
    for path in sorted(tmp_path.rglob("*.checkpoint"))[-1:]:
        path.unlink()  # as if it had been killed before
    resumed = fit(name, replace(later, checkpoints=Checkpoints(tmp_path, steps=5)), first, **params)
    assert resumed.engine.fingerprint() == whole.engine.fingerprint()
    assert resumed.params["best_iteration"] == whole.params["best_iteration"] > 10
    keys = {
        problem_key(name, replace(later, start=start)) for start in (None, Start(first.engine), Start(other.engine))
    }
    assert len(keys) == 3


def test_a_forest_of_lightgbm_and_an_engine_of_another_kind_are_refused() -> None:
    first = fit("lightgbm", problem(), num_iterations=5)
    with pytest.raises(InputError, match="grown in one go"):
        fit("lightgbm", problem(), first, boosting="rf")
    with pytest.raises(InputError, match=r"must be of the estimator 'lightgbm'; got 'generalised'|got 'linear'"):
        fit("lightgbm", problem(), fit("logistic", problem()))


def test_what_cannot_go_on_is_refused_where_it_is_written() -> None:
    """Estimators, ensembles, searches and options; the message names those that can."""
    able = [estimator.name for estimator in list_estimators() if estimator.warm_start]
    assert {"lightgbm", "xgboost", "catboost"} <= set(able)
    for name in {estimator.name for estimator in list_estimators()} - set(able):
        params = {"group": "x"} if name == "group_rate" else {}
        with pytest.raises(DefinitionError, match=rf"one that can go on: {', '.join(able)}; got '{name}'"):
            Recipe(name, RandomSplit(), params=params, start_from="m@1")
    for wrong in (
        lambda: Recipe(Vote(["lightgbm", "logistic"]), RandomSplit(), start_from="m@1"),
        lambda: Recipe(Vote([Recipe("lightgbm", start_from="m@1"), "logistic"]), RandomSplit()),
        lambda: Recipe("lightgbm", RandomSplit(), tune=Tune(trials=2), start_from="m@1"),
        lambda: Recipe("auto", RandomSplit(), budget="1m", start_from="m@1"),
    ):
        with pytest.raises(DefinitionError, match="must fit one estimator, and search nothing"):
            wrong()
    with pytest.raises(DefinitionError, match=r"must be those of the estimator; got .*'layers'"):
        Recipe("lightgbm", RandomSplit(), start_from=WarmStart("m@1", layers=["hidden.0"]))
    for wrong in ({"learning_rate_scale": 0}, {"learning_rate_scale": True}, {"add": 0}, {"add": 1.5}, {"version": ""}):
        with pytest.raises(DefinitionError, match=next(iter(wrong)).replace("version", "a version to begin from")):
            WarmStart(**{"version": "m@1", **wrong})


def test_options_become_parameters_of_the_estimator() -> None:
    """Also under another name that LightGBM knows; what is added takes the place of the number of iterations."""
    start = WarmStart("m@1", learning_rate_scale=0.1, add=7)
    settings = start.settings(get_estimator("lightgbm"), {"eta": 0.2, "n_estimators": 50, "monotone": {"x": 1}})
    assert settings["learning_rate"] == pytest.approx(0.02)
    assert (settings["num_iterations"], settings["monotone"]) == (7, {"x": 1})
    assert WarmStart("m@1").settings(get_estimator("xgboost"), {})["learning_rate"] == 0.05


def test_a_start_is_part_of_the_definition_only_where_it_is_written() -> None:
    """A recipe without one has the hash that it always had."""
    plain, begun = Recipe("lightgbm", RandomSplit()), Recipe("lightgbm", RandomSplit(), start_from="m@1")
    assert begun.start_from == WarmStart("m@1")
    assert content_hash(plain) != content_hash(begun)
    assert content_hash(plain) == content_hash(replace(begun, start_from=None))
