"""Fits LightGBM so that the same rows, parameters and seed give the same trees on any number of threads.

LightGBM's own early stopping was left aside: it judges by sums whose last bits depend on the threads, so a tie may stop
one iteration earlier. Here the log loss that decides is summed by NumPy, in one order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
from lightgbm.callback import CallbackEnv, EarlyStopException
from numpy.typing import NDArray

from retrodict.core.errors import InputError, near
from retrodict.models.engines.trees import TreesEngine
from retrodict.models.inputs import InputSpec
from retrodict.models.training.base import Examples, Fitted, Progress

__all__ = ["LIGHTGBM_DEFAULTS", "fit_lightgbm"]

# What a caller may change, written out so that a run records all of it and an upgrade of LightGBM cannot move it.
LIGHTGBM_DEFAULTS: Mapping[str, Any] = {
    "num_iterations": 1_000,
    "early_stopping_round": 50,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "max_depth": -1,
    "min_data_in_leaf": 40,
    "min_sum_hessian_in_leaf": 1e-3,
    "min_gain_to_split": 0.0,
    "lambda_l1": 0.0,
    "lambda_l2": 1.0,
    "feature_fraction": 0.9,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
    "max_bin": 255,
    "min_data_per_group": 100,
    "max_cat_threshold": 32,
    "cat_l2": 10.0,
    "cat_smooth": 10.0,
    "num_threads": 0,
}
# What makes the trees reproducible and servable. num_threads is not here: it does not change them.
_FIXED: Mapping[str, Any] = {
    "objective": "binary",
    "metric": "auc",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_]")


def fit_lightgbm(
    inputs: InputSpec,
    train: Examples,
    valid: Examples | None = None,
    *,
    seed: int,
    params: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Fitted[TreesEngine]:
    """Grow trees until the log loss on validation rows has not fallen for ``early_stopping_round`` iterations.

    Parameters
    ----------
    inputs : InputSpec
        Names the features and says which are categories.
    train : Examples
        Training rows, in the order that the run records: another order gives other trees.
    valid : Examples, optional
        Validation rows; None grows all ``num_iterations`` and has no history.
    seed : int
        From the run; every other seed of LightGBM is derived from it.
    params : mapping, optional
        Changes to :data:`LIGHTGBM_DEFAULTS`, under any name that LightGBM knows.
    progress : callable, optional
        Called after each iteration with (iterations done, iterations at most, validation metrics). It may raise to
        stop the training.

    Returns
    -------
    Fitted
        The engine up to the best iteration, all parameters with ``best_iteration``, and the metrics ``log_loss`` and
        ``auc`` of every iteration that was grown.

    Raises
    ------
    InputError
        If a parameter is unknown, or is one that reproduction or serving rests on.
    """
    for rows in (train, valid):
        if rows is not None and rows.width != len(inputs):
            raise InputError(f"the rows have the {len(inputs)} features of the spec", where="training rows",
                             got=rows.width)  # fmt: skip
    settings = {**LIGHTGBM_DEFAULTS, **_main_names(params or {})}
    most, patience = int(settings["num_iterations"]), int(settings["early_stopping_round"])
    native = {k: v for k, v in settings.items() if k not in {"num_iterations", "early_stopping_round"}}
    watch = _Watch(most, patience, progress)
    names, categorical = _native_names(inputs), list(inputs.categorical)
    data = lightgbm.Dataset(train.matrix, train.labels, feature_name=names, categorical_feature=categorical)
    booster = lightgbm.train(
        {**native, **_FIXED, "seed": seed},
        data,
        num_boost_round=most,
        valid_sets=[] if valid is None else [data.create_valid(valid.matrix, valid.labels)],
        valid_names=[] if valid is None else ["valid"],
        feval=_log_loss,
        callbacks=[watch],
    )
    best = watch.best_iteration if valid is not None else most
    engine = TreesEngine(booster.model_to_string(num_iteration=best))
    return Fitted(engine, {**settings, **_FIXED, "seed": seed, "best_iteration": best}, watch.history)


def _log_loss(scores: NDArray[np.float64], data: lightgbm.Dataset) -> tuple[str, float, bool]:
    labels = data.get_label()
    right = np.where(np.asarray(labels) == 1, scores, 1.0 - scores)
    return "log_loss", float(-np.log(np.maximum(right, 1e-15)).mean()), False


class _Watch:
    """LightGBM callback: keeps the history, tells of progress, and stops when the log loss no longer falls."""

    def __init__(self, most: int, patience: int, progress: Progress | None) -> None:
        self.history: dict[str, list[float]] = {}
        self.best_iteration = 0
        self._best: Any = None
        self._best_loss = np.inf
        self._most, self._patience, self._progress = most, patience, progress

    def __call__(self, env: CallbackEnv) -> None:
        results = env.evaluation_result_list or []
        metrics = {result[1]: float(result[2]) for result in results}
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        if self._progress is not None:
            self._progress(env.iteration + 1, self._most, metrics)
        if not metrics:
            return
        if metrics["log_loss"] < self._best_loss:
            self._best_loss, self._best, self.best_iteration = metrics["log_loss"], results, env.iteration + 1
        elif 0 < self._patience <= env.iteration + 1 - self.best_iteration:
            raise EarlyStopException(self.best_iteration - 1, self._best)


def _main_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under LightGBM's main names, so that an alias cannot stand beside what it means."""
    known = lightgbm.basic._ConfigAliases._get_all_param_aliases()  # noqa: SLF001  # LightGBM's only list of them
    main = {alias: name for name, aliases in known.items() for alias in aliases}
    named: dict[str, Any] = {}
    for given, value in params.items():
        name = main.get(given)
        if name is None:
            raise InputError("a parameter is one that LightGBM knows", where="lightgbm", got=given,
                             remedy=near(given, main, what="parameter"))  # fmt: skip
        if name in _FIXED or name.endswith("seed") or name == "force_col_wise":
            raise InputError("this parameter is fixed, for reproduction and serving rest on it", where="lightgbm",
                             got=given, remedy="Leave it out; the seed is an argument of its own")  # fmt: skip
        if name in named:
            raise InputError("a parameter is given once", where="lightgbm", got=given, remedy=f"Keep {name!r}")
        named[name] = value
    return named


def _native_names(inputs: InputSpec) -> list[str]:
    """Feature names that LightGBM's text format can hold; the spec keeps the real ones."""
    safe = [_UNSAFE.sub("_", name) for name in inputs.names]
    return [name if safe.count(name) == 1 else f"{name}_{at}" for at, name in enumerate(safe)]
