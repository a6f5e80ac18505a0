"""How estimators of scikit-learn are fitted: prepared for what they do not take, stopped early, kept as a Pipeline."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.estimators._skops import dump_sklearn, load_sklearn
from retrodict.models.engines._losses import TrainingLoss, check_two_classes, validation_loss
from retrodict.models.engines.sklearn import Reading, SklearnEngine, read_table
from retrodict.models.problem import TRAIN, Examples, Fitted, Problem
from retrodict.models.specs import SklearnSpec

__all__ = ["solve_sklearn", "solve_spec"]

# Categories rarer than this, or beyond so many, share one column.
_RARE, _MOST = 10, 100
_RANKS = 1_001
# Parameter that takes the level of a quantile, and the loss that goes with it.
_LEVELS = {"GradientBoostingRegressor": "alpha", "HistGradientBoostingRegressor": "quantile",
           "QuantileRegressor": "quantile"}  # fmt: skip
_COUNT_LOSS = {"HistGradientBoostingRegressor": "poisson", "MLPRegressor": "poisson"}


def solve_sklearn(problem: Problem) -> Fitted[SklearnEngine]:
    """Fit an estimator of the catalogue.

    Beside the parameters of the class, ``problem.params`` hold what the catalogue fixes: ``classifier``, ``regressor``
    or ``detector`` (classes, as ``package.module.Name``), and ``prepare``: ``"trees"`` (categories one-hot),
    ``"filled"`` (missing numbers as medians with an indicator, too) or ``"scaled"`` (brought to a scale, too: by the
    parameter ``scaler``, or standardised).
    """
    params = dict(problem.params)
    fixed = {name: params.pop(name, None) for name in ("classifier", "regressor", "detector", "prepare", "exact")}
    train, target = problem.train, problem.train.target
    reference = fixed["detector"] or fixed["classifier" if target.probabilistic else "regressor"]
    home, _, name = str(reference).rpartition(".")
    if not fixed["detector"]:
        check_two_classes(train, name)
    make = getattr(import_module(home), name)
    start: Any = None if problem.start is None else problem.start.engine
    before = _preparation(problem, str(fixed["prepare"]), str(params.get("scaler", "standard")))
    former = [] if start is None else start.copies()
    if former:
        _check_steps(former[0], _joined(before, make()))
        before = former[0][0]
    models, begun = [], dict[str, int]()
    history: dict[str, list[float]] = {}
    best_iterations: dict[str, int] = {}
    with _quiet(name):
        table = (before.transform if former else before.fit_transform)(read_table(None, train.matrix))
        for at, level in enumerate(target.quantiles or (None,)):
            model = make(**_settings(make, params, problem, level))
            first = 0
            if former:
                model, first = _started(model, former[at][-1])
            losses = _fit(model, before, table, problem, first)
            models.append(_joined(before, model))
            # Of a class of boosting that stops without going back the last iteration is in force.
            ends = {metric: first + (len(values) if name.startswith("Hist") else int(np.nanargmin(values)) + 1)
                    for metric, values in losses.items() if not metric.startswith(TRAIN)}  # fmt: skip
            more = "" if level is None else f"_{target.outputs[target.quantiles.index(level)]}"
            history |= {f"{metric}{more}": values for metric, values in losses.items()}
            best_iterations |= {f"{metric}{more}": end for metric, end in ends.items()}
            begun |= {f"{metric}{more}": first for metric in ends if first}
    method = _method(models[0], target.task, detector=bool(fixed["detector"]))
    reading = Reading(target, len(problem.inputs), method, exact=bool(fixed["exact"]))
    facts = (
        {}
        if not best_iterations
        else {"best_iteration": best_iterations if len(best_iterations) > 1 else next(iter(best_iterations.values()))}
    )
    if begun:
        facts["started_at"] = begun if len(begun) > 1 else next(iter(begun.values()))
    return _fitted(models, reading, problem, {**params, **facts}, history)


def _started(model: Any, former: Any) -> tuple[Any, int]:
    """A fitted object, to go on with the parameters of another, and how many iterations it has.

    What the number of trees says is added to those that are there; ``n_estimators`` is not what every class has.
    """
    settings = model.get_params(deep=False)
    sizes = ("hidden_layer_sizes", "activation")
    if type(model) is not type(former) or any(settings.get(n) != former.get_params().get(n) for n in sizes):
        raise InputError("an object to go on from must be of the class, and of the layers, of the recipe",
                         where="start_from", got=type(former).__name__,
                         remedy="Train from nothing, or from a version of the same object")  # fmt: skip
    first = 0
    for name, trees in (("n_estimators", "estimators_"), ("max_iter", "_predictors")):
        if hasattr(former, trees) and name in settings:
            first = len(getattr(former, trees))
            settings[name] += first
    former.set_params(**{**settings, "warm_start": True})
    vars(former).pop("_optimizer", None)  # its moments are of other rows
    if hasattr(former, "loss_curve_"):
        former.loss_curve_, former.best_loss_, former._no_improvement_count = [], np.inf, 0  # noqa: SLF001  # as a fit begins
    if hasattr(former, "_bin_mapper"):
        # Trees of the source compare numbers of its bins: with new ones its sums over the rows would be others.
        former.validation_score_ = former.train_score_ = np.array([])  # of other rows, too
        former._bin_data = partial(_former_bins, former, former._bin_mapper)  # noqa: SLF001  # no parameter does it
    return former, first


def _former_bins(model: Any, bins: Any, table: Any, *_: Any, is_training_data: bool) -> Any:
    """Rows in the bins that a histogram boosting had."""
    model._bin_mapper = bins  # noqa: SLF001  # as above
    return bins.transform(table) if is_training_data else np.ascontiguousarray(bins.transform(table))


def solve_spec(problem: Problem) -> Fitted[SklearnEngine]:
    """Fit an object of scikit-learn that a recipe describes.

    A Pipeline gets the columns as they are: a data frame with texts for categories, or the matrix where all features
    are numbers and no column is named. A bare estimator gets numbers: categories one-hot, and medians for what is
    missing unless it takes missing values.
    """
    spec = SklearnSpec(problem.params["spec"])
    train, inputs = problem.train, problem.inputs
    if train.target.task not in spec.tasks:
        raise InputError(f"the task must be one that {spec.name} learns: {', '.join(spec.tasks)}", where=spec.name,
                         got=train.target.task,
                         remedy="Choose a classifier for classes, a regressor for numbers")  # fmt: skip
    model = spec.build(seed=problem.seed)
    detector = _is_detector(model)
    if not detector:
        check_two_classes(train, spec.name)
    columns = None
    if not spec.prepares:
        takes_missing = model.__sklearn_tags__().input_tags.allow_nan
        model = _joined(_preparation(problem, "trees" if takes_missing else "filled"), model)
    elif inputs.categorical or "sklearn.compose" in spec.text:
        columns = tuple((feature.name, tuple(feature.vocabulary)) for feature in inputs.features)
    weights = {}
    if train.weights is not None:
        name, last = model.steps[-1]
        _check_weights(last)
        weights = {f"{name}__sample_weight": train.weights}
    with _quiet(spec.name):
        table = read_table(columns, train.matrix)
        if problem.start is not None:
            model, table = _resumed(model, problem.start.engine, table)
            weights = {name.rpartition("__")[2]: values for name, values in weights.items()}
        last = model if problem.start is None else model[-1]
        _ = last.fit(table, **weights) if detector else last.fit(table, _labels(train), **weights)
        vars(last).pop("_bin_data", None)
    reading = Reading(train.target, len(inputs), _method(model, train.target.task, detector=detector), columns)
    return _fitted([model], reading, problem, {"spec": spec.text}, {})


def _resumed(model: Any, engine: Any, table: Any) -> tuple[Any, Any]:
    """Pipeline with the fitted steps of a version and a last one to go on with, and the table as it reads it."""
    former = engine.copies()[0]
    _check_steps(former, model)
    for _, step in former.steps[:-1]:
        table = step.transform(table)
    former.steps[-1] = (former.steps[-1][0], _started(model[-1], former[-1])[0])
    return former, table


def _check_steps(former: Any, model: Any) -> None:
    """Refuse a Pipeline whose steps before the last are not those of another."""
    kinds = [[(type(step).__name__, {} if step is steps[-1][1] else _settled(step)) for _, step in steps]
             for steps in (former.steps, model.steps)]  # fmt: skip
    if kinds[0] != kinds[1]:
        raise InputError("a version to begin from must have the steps of the recipe", where="start_from",
                         got=[name for name, _ in kinds[0]], remedy="Train from nothing")  # fmt: skip


def _settled(step: Any) -> dict[str, str]:
    """Parameters of a step, as text, apart from those of the machine."""
    apart = {"n_jobs", "random_state"}
    return {name: str(value) for name, value in step.get_params().items() if name.rpartition("__")[2] not in apart}


def _fitted(models: list[Any], reading: Reading, problem: Problem, params: dict[str, Any],
            history: dict[str, list[float]]) -> Fitted[SklearnEngine]:  # fmt: skip
    for model in models:
        alone = {name: None for name in model.get_params() if name.rpartition("__")[2] == "n_jobs"}
        model.set_params(**alone)  # sums over trees have one order on one thread only
        bins = getattr(model[-1] if hasattr(model, "steps") else model, "_bin_mapper", None)
        if bins is not None:
            bins.n_threads = 1  # of the machine that trained, not of the model
    engine = SklearnEngine(models, reading)
    if _is_detector(models[0]):
        with _quiet("anomaly scores"):
            raw = np.sort(engine.raw(problem.train.matrix)[0][:, 0])
        places = np.linspace(0, len(raw) - 1, min(_RANKS, len(raw))).round().astype(np.intp)
        engine = SklearnEngine(models, Reading(reading.target, reading.width, reading.method, reading.columns,
                                               tuple(raw[places].tolist()), reading.exact))  # fmt: skip
    return Fitted(engine, {**params, "seed": problem.seed}, history, engine.describe())


def _preparation(problem: Problem, how: str, scaler: str = "standard") -> Any:
    """What makes rows readable for an estimator; numbers that the training rows never held are left out."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

    categories = [at for at in problem.inputs.categorical if problem.inputs.features[at].vocabulary]
    seen = np.asarray((~np.isnan(problem.train.matrix)).any(axis=0))
    numbers = [at for at in range(len(problem.inputs)) if at not in set(problem.inputs.categorical) and seen[at]]
    if not numbers and not categories:
        raise InputError("a feature must have values in the training rows", where="recipe", got="none of them",
                         remedy="Choose other features, or a longer span")  # fmt: skip
    fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    scalers: dict[str, list[Any]] = {"standard": [StandardScaler()], "min_max": [MinMaxScaler()], "none": []}
    steps: dict[str, Any] = {"trees": "passthrough", "filled": fill, "scaled": make_pipeline(fill, *scalers[scaler])}
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=_RARE, max_categories=_MOST,
                            sparse_output=False)  # fmt: skip
    return ColumnTransformer([("numbers", steps[how], numbers), ("categories", one_hot, categories)])


def _settings(make: Any, params: dict[str, Any], problem: Problem, level: float | None) -> dict[str, Any]:
    """Arguments of the class: the recipe's, and what task, seed and rows add."""
    names, task = make().get_params(), problem.train.target.task
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in params.items()}
    # One list of parameters serves classifier and regressor; what only the other has is left out.
    settings = {key: value for key, value in settings.items() if key in names}
    if "random_state" in names:
        settings["random_state"] = problem.seed
    if "n_neighbors" in settings:
        settings["n_neighbors"] = min(settings["n_neighbors"], len(problem.train.labels))
    if level is not None:
        settings |= {_LEVELS[make.__name__]: level} | ({"loss": "quantile"} if "loss" in names else {})
    elif task == "count" and make.__name__ in _COUNT_LOSS:
        settings["loss"] = _COUNT_LOSS[make.__name__]
    return settings


def _labels(rows: Examples) -> NDArray[Any]:
    return rows.labels.astype(np.int64) if rows.target.probabilistic else rows.labels


def _fit(model: Any, before: Any, table: Any, problem: Problem, first: int) -> dict[str, list[float]]:
    """Fit the last step on prepared rows; validation losses per iteration where it is stopped by them."""
    train, valid = problem.train, problem.validate
    weights = {}
    if train.weights is not None:
        _check_weights(model)
        weights = {"sample_weight": train.weights}
    name = type(model).__name__
    if _is_detector(model):
        model.fit(table, **weights)
        return {}
    if valid is None or not hasattr(model, "n_iter_no_change") or not model.n_iter_no_change:
        if "n_iter_no_change" in model.get_params():
            # A class with a switch of its own takes no 0, and as many as there are iterations stop nothing.
            patience = model.n_iter_no_change or getattr(model, "max_iter", 1)
            switched = {"early_stopping": False, "n_iter_no_change": patience}
            model.set_params(**(switched if hasattr(model, "early_stopping") else {"n_iter_no_change": None}))
        model.fit(table, _labels(train), **weights)
        vars(model).pop("_bin_data", None)
        return {}
    held_out = before.transform(read_table(None, valid.matrix))
    if name.startswith("MLP"):
        return _fit_network(model, table, held_out, problem, weights)
    if name.startswith("HistGradientBoosting"):
        model.set_params(early_stopping=True, scoring="loss")
        model.fit(table, _labels(train), X_val=held_out, y_val=_labels(valid), **weights)
        vars(model).pop("_bin_data", None)
        scores = {"loss": model.validation_score_, f"{TRAIN}loss": model.train_score_}
        # A score of the first guess comes before those of iterations, unless it goes on.
        return {name: [-float(value) for value in values[0 if first else 1 :]] for name, values in scores.items()}
    patience = model.n_iter_no_change
    model.set_params(n_iter_no_change=None)
    model.fit(table, _labels(train), **weights)
    return _cut_stages(model, table, held_out, problem, patience, first)


def _outputs(model: Any, rows: Examples, values: Any) -> Any:
    """Probabilities of all classes of the target from those that the training rows held."""
    if rows.target.task == "binary":
        return values[:, 1]
    if rows.target.task == "multiclass":
        out = np.zeros((len(values), rows.target.columns))
        out[:, model.classes_.astype(np.intp)] = values
        return out
    return values


def _cut_stages(
    model: Any, table: Any, held_out: Any, problem: Problem, patience: int, first: int
) -> dict[str, list[float]]:
    """Leave the stages of gradient boosting up to the least validation loss before it stops falling."""
    target, valid, seen = problem.train.target, problem.validate, TrainingLoss(problem.train)
    if target.quantiles:  # this model is of one level
        target = Target("quantile", quantiles=(model.alpha,))
    assert valid is not None  # asked for by _fit
    one, seen.rows = replace(valid, target=target), replace(seen.rows, target=target)
    staged = model.staged_predict_proba if target.probabilistic else model.staged_predict
    losses: list[float] = []
    history: dict[str, list[float]] = {}
    for values, sampled in islice(zip(staged(held_out), staged(table[seen.places]), strict=True), first, None):
        name, loss = validation_loss(one, _outputs(model, one, values))
        losses.append(loss)
        history[name] = losses
        seen.note(history, name, len(losses), partial(_outputs, model, seen.rows, sampled))
        best = int(np.argmin(losses))
        if len(losses) - 1 - best >= patience:
            break
    model.estimators_ = model.estimators_[: first + best + 1]
    model.n_estimators_ = first + best + 1
    return history


def _fit_network(
    model: Any, table: Any, held_out: Any, problem: Problem, weights: dict[str, Any]
) -> dict[str, list[float]]:
    """Epochs of a network, and the weights of the one with the least validation loss."""
    valid, target = problem.validate, problem.train.target
    classes = {"classes": np.unique(_labels(problem.train))} if target.probabilistic else {}
    epochs, patience = model.max_iter, model.n_iter_no_change
    model.set_params(early_stopping=False)
    seen, history = TrainingLoss(problem.train), dict[str, list[float]]()
    losses: list[float] = []
    kept_state, first = None, 0
    checkpoints = problem.checkpoints
    if checkpoints is not None and (last := checkpoints.last()) is not None:
        # Into the same object: it stands in a Pipeline.
        fitted, *kept_state = load_sklearn(last.state["models"])
        vars(model).update(vars(fitted))
        history = load_sklearn(last.state["history"])[0]
        first, losses = last.step, history[next(iter(history))]
    for epoch in range(first, epochs):
        if losses and epoch - 1 - int(np.argmin(losses)) >= patience:
            break
        model.partial_fit(table, _labels(problem.train), **(classes if epoch == 0 else {}), **weights)
        predict = model.predict_proba if target.probabilistic else model.predict
        values = predict(held_out)
        name, loss = validation_loss(valid, _outputs(model, valid, values))  # type: ignore[arg-type]  # asked for by _fit
        losses.append(loss)
        history[name] = losses
        seen.note(history, name, epoch + 1, lambda: _outputs(model, seen.rows, predict(table[seen.places])))  # noqa: B023
        if problem.progress is not None:
            problem.progress(epoch + 1, epochs, {name: loss})
        if loss == min(losses):
            kept_state = copy.deepcopy((model.coefs_, model.intercepts_))
        if checkpoints is not None and checkpoints.due(epoch + 1):
            models = dump_sklearn([model, *(kept_state or ())])
            checkpoints.save(epoch + 1, {"models": models, "history": dump_sklearn([history])}, loss)
    model.coefs_, model.intercepts_ = kept_state  # type: ignore[misc]  # set in the first epoch
    return history


def _joined(before: Any, model: Any) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline([("prepare", before), ("model", model)])


def _method(model: Any, task: str, *, detector: bool) -> str:
    if detector:
        return "score_samples" if hasattr(model, "score_samples") else "decision_function"
    if task in {"binary", "multiclass"}:
        return "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
    return "predict"


def _is_detector(model: Any) -> bool:
    from sklearn.base import is_outlier_detector

    return bool(is_outlier_detector(model))


def _check_weights(model: Any) -> None:
    from sklearn.utils.validation import has_fit_parameter

    if not has_fit_parameter(model, "sample_weight"):
        raise InputError("the estimator must take weights", where=type(model).__name__, got="weights of rows",
                         remedy="Leave the weights out, or choose another estimator")  # fmt: skip


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """One BLAS thread, no warnings, and errors of scikit-learn as errors of ours."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ValueError, TypeError, FloatingPointError) as error:
            if isinstance(error, InputError):
                raise
            words = " ".join(str(error).split())
            rule = f"scikit-learn must be able to fit with its parameters ({words[:300]})"
            raise InputError(rule, where=name, got=type(error).__name__,
                             remedy="Correct the params of the recipe, or the columns") from error  # fmt: skip
