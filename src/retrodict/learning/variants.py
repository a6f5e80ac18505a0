"""Variants of a version that cost less: fewer trees, a small student of its answers, a network in other numbers.

A variant is derived from the version's artifact and the rows of its run, by settings that the run keeps, so that a
replay derives it again. What decides about it looks at validation rows; the test rows only judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.core.tasks import Target
from retrodict.evaluation import Metric
from retrodict.evaluation.compare import compare_outputs, compare_scores
from retrodict.evaluation.losses import row_losses
from retrodict.learning.frame import Frame
from retrodict.learning.recipes import Progress, Trained, run_recipe
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.models.engines.base import Engine
from retrodict.models.engines.composite import CorrectedEngine, PreparedEngine
from retrodict.models.engines.levels import LevelsEngine
from retrodict.models.estimators import get_estimator
from retrodict.models.problem import Examples, Fitted, Problem
from retrodict.workspace import Workspace

__all__ = ["HOWS", "applies", "derive_variant", "measure_loss"]

HOWS = ("prune", "distil", "float32", "int8")
"""Ways to a variant: the first rounds of boosted trees, a student, a network by ONNX Runtime in float32 or int8."""

_SHARES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_STUDENTS: Mapping[str, Mapping[str, Any]] = {"lightgbm": {"num_iterations": 50, "num_leaves": 15}}
_TAUGHT = ("binary", "multiclass", "regression", "count")
_Change = Callable[[Engine, NDArray[np.float64]], Engine]


def applies(engine: Engine, how: str) -> str:
    """Why a way does not apply to an engine; empty where it does."""
    inner: Any = engine
    while isinstance(inner, PreparedEngine | CorrectedEngine):
        inner = inner.engine
    match how:
        case "prune":
            return "" if _rounds(inner) > 1 else "it has no boosted trees of LightGBM, XGBoost or CatBoost"
        case "distil":
            return "" if engine.target.task in _TAUGHT else f"a student is taught {', '.join(_TAUGHT)}"
    return "" if inner.kind == "network" else "it is no network"


def derive_variant(
    workspace: Workspace,
    model: Model,
    frame: Frame,
    parts: Mapping[str, Any],
    derived: Mapping[str, Any],
    *,
    ladder: bool,
    progress: Progress | None,
) -> Trained:
    """Derive a variant, calibrate it and judge it as a training does.

    ``derived`` holds ``artifact`` (of the parent), ``how``, ``max_loss``, ``student``, and ``choice`` where a search
    found the parent's recipe.
    """
    parent = ModelArtifact.load(workspace.objects, derived["artifact"])
    recipe = model.recipe
    if recipe.tune is not None:
        recipe = recipe.tune.concrete(recipe, derived["choice"])
    recipe = replace(recipe, start_from=None, refit=None, checkpoint=None)
    return run_recipe(recipe, frame, parts, ladder=ladder, progress=progress, former=parent, accept=model.accept,
                      derive=lambda problem: _derive(parent.engine, problem, derived))  # fmt: skip


def _derive(engine: Engine, problem: Problem, derived: Mapping[str, Any]) -> Fitted[Any]:
    how = derived["how"]
    check_known(how, HOWS, "a variant must be made in a way that there is", where="optimise", what="way")
    if reason := applies(engine, how):
        raise InputError(f"the version must be one that {how} applies to", where=f"optimise, {how}", got=reason,
                         remedy="Leave it out")  # fmt: skip
    if how == "prune":
        return _prune(engine, problem, derived["max_loss"])
    if how == "distil":
        return _distil(engine, problem, derived["student"])
    from retrodict.models.engines.onnx import convert_network

    change: _Change = lambda inner, rows: convert_network(inner, rows, int8=how == "int8")  # noqa: E731
    return Fitted(_inside(engine, change, problem.train.matrix), {"numbers": how})


def _inside(engine: Engine, change: _Change, matrix: NDArray[np.float64]) -> Engine:
    """The engine with its innermost one changed; what stands around it stays."""
    if isinstance(engine, PreparedEngine):
        inner = _inside(engine.engine, change, engine.transform(matrix))
        return PreparedEngine(engine.steps, inner, engine.width)
    if isinstance(engine, CorrectedEngine):
        return CorrectedEngine(_inside(engine.engine, change, matrix), engine.correction)
    return change(engine, matrix)


def _rounds(engine: Any) -> int:
    if isinstance(engine, LevelsEngine):
        return max(map(_rounds, engine.members))
    return int(engine.iterations) if hasattr(engine, "first") else 0


def _first(engine: Any, share: float) -> Any:
    if isinstance(engine, LevelsEngine):
        return LevelsEngine(engine.target, [_first(member, share) for member in engine.members])
    return engine.first(max(1, round(share * engine.iterations)))


def _prune(engine: Engine, problem: Problem, max_loss: float) -> Fitted[Any]:
    """The fewest rounds that cost half of the stated loss at most on the validation rows."""
    valid = problem.validate
    if valid is None:
        raise InputError("there must be validation rows to choose the rounds on", where="optimise, prune", got="none",
                         remedy="Train with a split that has them")  # fmt: skip
    before = engine.scores(valid.matrix)
    for share in _SHARES:
        change: _Change = lambda inner, _, share=share: _first(inner, share)  # type: ignore[misc]  # noqa: E731
        shorter = _inside(engine, change, valid.matrix[:1])
        loss = measure_loss(before, shorter.scores(valid.matrix), valid.labels, valid.target, valid.groups).value
        if loss is not None and loss <= max_loss / 2:
            return Fitted(shorter, {"rounds_kept": share})
    raise InputError("fewer rounds must cost no more than half of the stated loss on the validation rows",
                     where="optimise, prune", got=f"more than {max_loss / 2:g} with nine tenths of the rounds",
                     remedy="State a greater --max-loss, or keep the version")  # fmt: skip


def _distil(engine: Engine, problem: Problem, student: str) -> Fitted[Any]:
    """A student of the engine's answers to the training rows: of a class, each row counts as much as its probability.

    Cross-entropy against probabilities (Hinton, Vinyals and Dean 2015) is that of rows of each class with weights.
    """
    train = problem.train
    answers, weights = (
        engine.scores(train.matrix),
        np.ones(len(train.labels)) if train.weights is None else train.weights,
    )
    if train.target.probabilistic:
        shares = np.stack([1.0 - answers, answers], axis=1) if answers.ndim == 1 else answers
        matrix, count = np.vstack([train.matrix] * shares.shape[1]), len(train.labels)
        labels = np.repeat(np.arange(shares.shape[1], dtype=np.float64), count)
        weighed = (shares * weights[:, None]).T.ravel()
        taught = Examples(matrix, labels, train.target, weighed).take(np.flatnonzero(weighed > 0))
    else:
        taught = Examples(train.matrix, answers, train.target, train.weights)
    params = _STUDENTS.get(student, {})
    return get_estimator(student).solve(replace(problem, train=taught, params=params, start=None, checkpoints=None))


def measure_loss(
    before: ArrayLike, after: ArrayLike, labels: ArrayLike, target: Target, groups: ArrayLike | None
) -> Metric:
    """What a variant loses on the same rows, with an interval of 95 %; below 0 it is better.

    Of a yes or no the area under the curve (paired DeLong), of any other task the share by which the mean loss rises.
    """
    if target.task == "binary":
        area = compare_scores(champion=before, challenger=after, labels=labels).auc_difference
        return _scaled("auc", area, -1.0)
    difference = compare_outputs(
        champion=before, challenger=after, labels=labels, target=target, groups=groups
    ).difference
    if difference.value is None:
        return Metric("loss", None, difference.reason, difference.n)
    base = float(np.mean(row_losses(labels, before, target, groups=groups)))
    if not base > 0:
        return Metric("loss", None, "the version itself loses nothing", difference.n)
    return _scaled("loss", difference, 1.0 / base)


def _scaled(name: str, metric: Metric, factor: float) -> Metric:
    if metric.value is None or metric.low is None or metric.high is None:
        return Metric(name, None, metric.reason, metric.n)
    low, high = sorted([metric.low * factor, metric.high * factor])
    return Metric(name, metric.value * factor, None, metric.n, low, high)
