"""Fits that go on from an engine, against the continuation of each library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import content_hash
from retrodict.core.tasks import Target
from retrodict.estimators._skops import load_sklearn
from retrodict.models.checkpoints import Checkpoints, problem_key
from retrodict.models.definitions import Recipe
from retrodict.models.engines.linear import design_category, design_number, start_weights
from retrodict.models.engines.trees import tree_hash
from retrodict.models.ensembles import Vote
from retrodict.models.estimators import get_estimator, list_estimators, load_engine
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
    assert warm.params["seed"] != later.seed  # or the first rows would be drawn again
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
    if name == "lightgbm":  # the losses that stop it are those of all trees
        booster = lightgbm.Booster(model_str=whole.engine.text)
        outputs = booster.predict(later.validate.matrix, num_iteration=whole.params["started_at"] + 1)
        chances = np.where(later.validate.labels == 1, outputs, 1 - outputs)
        assert whole.history["log_loss"][0] == pytest.approx(-np.log(chances).mean())
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


FORESTS = {"random_forest": {"n_estimators": 8, "n_jobs": 1}, "extra_trees": {"n_estimators": 8, "n_jobs": 1},
           "gradient_boosting": {"n_estimators": 8}, "histogram_boosting": {"max_iter": 8, "max_bins": 16}}  # fmt: skip


def last(fitted: Fitted[Any]) -> Any:
    return fitted.engine.models[0][-1]


@pytest.mark.parametrize("name", FORESTS)
def test_trees_of_scikit_learn_go_on_by_its_own_warm_start(name: str) -> None:
    """On a copy: the source keeps its trees; those that are added are what scikit-learn's warm_start grows.

    Of a histogram boosting whose rows are others scikit-learn bins anew and misreads its own trees, so that it is held
    against sums in which they are read by their thresholds.
    """
    first = fit(name, replace(problem(), validate=None), **FORESTS[name])
    data = first.engine.parts()["models.skops"]
    later = replace(problem(seed=4, shift=2.0), validate=None)
    warm = fit(name, later, first, **FORESTS[name])
    assert first.engine.parts()["models.skops"] == data
    size = {"histogram_boosting": "_predictors"}.get(name, "estimators_")
    assert (len(getattr(last(first), size)), len(getattr(last(warm), size))) == (8, 16)
    table = warm.engine.models[0][0].transform(later.train.matrix)
    np.testing.assert_array_equal(table, first.engine.models[0][0].transform(later.train.matrix))
    labels = later.train.labels.astype(int)
    if name == "histogram_boosting":
        own = fit(name, later, first, **{**FORESTS[name], "max_iter": 1})
        before = last(first)._raw_predict(table)[:, 0]
        rates = 1 / (1 + np.exp(-before))
        added = last(own)._raw_predict(table)[:, 0] - before
        # Leaf values are Newton steps on the gradients of the sums that the source gives: they add up to theirs.
        steps, gradients = (added * rates * (1 - rates)).sum() / 0.05, (rates - labels).sum()
        assert abs(gradients) > 5
        assert steps == pytest.approx(-gradients, rel=1e-3)
        return
    oracle = load_sklearn(data)[0][-1]
    oracle.set_params(n_estimators=16, warm_start=True, random_state=warm.params["seed"])
    oracle.fit(table, labels)
    assert warm.engine.scores(later.train.matrix).tolist() == oracle.predict_proba(table)[:, 1].tolist()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("name", ["gradient_boosting", "histogram_boosting"])
def test_boosting_of_scikit_learn_stops_by_its_own_rows_only(name: str, task: str) -> None:
    """Losses of the source are of other rows: they stop nothing, and no tree of the source is cut."""
    count = "max_iter" if name.startswith("hist") else "n_estimators"
    easy = problem(task, shift=0.3)
    easy = replace(easy, validate=easy.train)  # far better losses than any of other rows
    first = fit(name, easy, **{count: 40, "n_iter_no_change": 3, "learning_rate": 0.3})
    later = problem(task, seed=4)
    warm = fit(name, later, first, **{count: 60, "n_iter_no_change": 3, "learning_rate": 0.3})
    begun, best = warm.params["started_at"], warm.params["best_iteration"]
    assert begun == first.params["best_iteration"] < best
    losses = next(values for loss, values in warm.history.items() if not loss.startswith("train/"))
    assert best == begun + (len(losses) if count == "max_iter" else int(np.argmin(losses)) + 1)
    assert (best - begun if count == "max_iter" else len(losses)) >= 4  # the patience, and one
    assert best == len(getattr(last(warm), "_predictors" if count == "max_iter" else "estimators_"))


LINEAR = {"logistic": ("binary", {}), "logistic multiclass": ("multiclass", {}), "lasso": ("regression", {}),
          "logistic l1": ("binary", {"l1_ratio": 0.5}), "poisson": ("count", {}),
          "elastic_net": ("regression", {})}  # fmt: skip


@pytest.mark.parametrize("case", LINEAR)
def test_coefficients_are_begun_from_and_end_where_a_cold_fit_does(case: str) -> None:
    """The loss is convex: the same coefficients, and next to no steps from its own, however the columns were scaled."""
    (task, params), name = LINEAR[case], case.partition(" ")[0]
    first = fit(name, problem(task, shift=0.3, rows=3_000), **params)
    before = first.engine.fingerprint()
    later = replace(problem(task, seed=4, rows=3_000), validate=None)
    cold, warm = fit(name, later, **params), fit(name, later, first, **params)
    assert first.engine.fingerprint() == before
    assert warm.engine.scores(later.train.matrix) == pytest.approx(cold.engine.scores(later.train.matrix), abs=2e-2)
    at_once = fit(name, replace(problem(task, shift=0.3, rows=3_000), validate=None), first, **params)
    assert at_once.params["iterations"] <= 2 or at_once.params["iterations"] < first.params["iterations"] / 2


def test_starting_coefficients_give_the_sums_of_the_source() -> None:
    """On the design of other rows, with other means and scales, where no number is missing."""
    rows = problem(shift=1.0)
    full = Examples(np.nan_to_num(rows.train.matrix), rows.train.labels)
    first = fit("logistic", replace(rows, train=full))
    later = np.nan_to_num(problem(seed=4).train.matrix) * [3.0, 0.5, 1.0]
    columns = [design_number(later[:, 0]), design_number(later[:, 1]), design_category(later[:, 2])]
    weights, intercepts = start_weights([first.engine], columns)
    sums = np.hstack([block.toarray() for block, _ in columns]) @ weights[0] + intercepts[0]
    assert sums == pytest.approx(first.engine.margins(later))


def test_least_squares_in_one_step_begin_from_nothing() -> None:
    first = fit("linear", problem("regression"))
    with pytest.raises(InputError, match="of several steps; got 'least squares"):
        fit("linear", problem("regression"), first)


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (SGDClassifier(loss="log_loss", max_iter=5, tol=None), "binary"),
        (make_pipeline(SimpleImputer(), StandardScaler(), SGDClassifier(loss="log_loss")), "binary"),
        (BaggingClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=4), "multiclass"),
        (RandomForestRegressor(n_estimators=4), "regression"),
        (HistGradientBoostingRegressor(max_iter=4), "regression"),
    ],
)
def test_objects_of_scikit_learn_go_on_where_they_can(model: Any, task: str) -> None:
    """Also those that count no trees; the source is not changed, and the fit is repeated exactly."""
    recipe = Recipe(model, RandomSplit(), start_from="m@1")

    def solve(rows: Problem, start: Any = None) -> Fitted[Any]:
        return recipe.registered.solve(replace(rows, params=recipe.settings, start=start and Start(start)))

    rows = replace(problem(task), inputs=InputSpec.learn({"x": [0.5], "z": [0.5], "place": [0.5]}))
    first = solve(rows)
    stored = load_engine("sklearn", first.engine.parts())
    data = first.engine.parts()["models.skops"]
    later = replace(problem(task, seed=4), inputs=rows.inputs)
    warm, again = solve(later, first.engine), solve(later, stored)
    assert first.engine.parts()["models.skops"] == data
    assert warm.engine.scores(later.train.matrix).tolist() == again.engine.scores(later.train.matrix).tolist()
    assert warm.engine.scores(later.train.matrix).tolist() != first.engine.scores(later.train.matrix).tolist()
    if hasattr(last(first), "estimators_"):
        assert len(last(warm).estimators_) == 8
    with pytest.raises(DefinitionError, match="one that can go on"):
        Recipe(GaussianNB(), RandomSplit(), start_from="m@1")


def test_a_pipeline_with_other_steps_is_refused() -> None:
    rows = replace(problem(), inputs=InputSpec.learn({"x": [0.5], "z": [0.5], "place": [0.5]}))
    pipes = [make_pipeline(SimpleImputer(strategy=how), SGDClassifier(loss="log_loss")) for how in ("mean", "median")]
    first, other = (Recipe(pipe, RandomSplit(), start_from="m@1") for pipe in pipes)
    fitted = first.registered.solve(replace(rows, params=first.settings))
    with pytest.raises(InputError, match="must have the steps of the recipe"):
        other.registered.solve(replace(rows, params=other.settings, start=Start(fitted.engine)))


def test_a_perceptron_begins_with_the_weights_of_the_source() -> None:
    """With a rate of next to nothing it stays what it was; other layers are refused."""
    first = fit("mlp", problem(), max_iter=20)
    warm = fit("mlp", problem(seed=4), first, max_iter=2, learning_rate_init=1e-12)
    matrix = problem(seed=5).train.matrix
    assert warm.engine.scores(matrix) == pytest.approx(first.engine.scores(matrix), abs=1e-7)
    assert fit("mlp", problem(seed=4), first, max_iter=3).params["best_iteration"] <= 3
    with pytest.raises(InputError, match="of the class, and of the layers"):
        fit("mlp", problem(seed=4), first, hidden_layer_sizes=[8])


def test_layers_of_a_network_are_taken_over_by_name() -> None:
    """All of them, or some: the others are drawn from the seed as of a network that begins from nothing."""
    pytest.importorskip("torch")
    params: dict[str, Any] = {"layers": [8, 4], "epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    first = fit("network", problem(), **{**params, "epochs": 5, "learning_rate": 1e-2})
    before = {name: values.copy() for name, values in first.engine.arrays.items()}
    warm = fit("network", problem(seed=4), first, **params)
    for name, values in before.items():
        assert first.engine.arrays[name].tolist() == values.tolist()
        assert warm.engine.arrays[name] == pytest.approx(values, abs=1e-6), name
    assert warm.notes["taken_over"] == ["embeddings", "hidden.0", "hidden.1", "output"]

    def partly(*names: str, **more: Any) -> Fitted[Any]:
        start = Start(first.engine, layers=names)
        return get_estimator("network").solve(replace(problem(seed=4), params={**params, **more}, start=start))

    some = partly("embeddings", "hidden.0", layers=[8, 6])
    taken = {name for name, values in some.engine.arrays.items()
             if values.shape == before[name].shape and np.allclose(values, before[name], atol=1e-6)}  # fmt: skip
    assert taken == {"embedding_0", "weight_0", "bias_0", "mean", "scale"}
    assert some.engine.arrays["weight_1"].shape == (8, 6)
    assert partly("hidden.0").engine.fingerprint() == partly("hidden.0").engine.fingerprint()
    with pytest.raises(InputError, match=r"layer 'hidden.1': .*size and the activation"):
        partly("hidden.1", layers=[8, 6])
    with pytest.raises(InputError, match=r"layer 'hidden.0': .*size and the activation"):
        partly("hidden.0", activation="tanh")
    with pytest.raises(InputError, match="a layer must be one of the network"):
        partly("hidden.7")
