"""Recipes: from a frame and its split to a model artifact, with the baseline ladder beside it.

Pure: no store, no clock. A recipe given the same rows, parameters and seed gives the same trees and numbers, which is
what replay compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, near
from retrodict.evaluation import Evaluation, Ladder, climb, evaluate
from retrodict.learning.calibration import Calibration, calibrate, calibration_folds
from retrodict.learning.frame import Frame
from retrodict.learning.leaks import find_leaks
from retrodict.models.artifact import ModelArtifact
from retrodict.models.calibration import Calibrator
from retrodict.models.definitions import Recipe
from retrodict.models.engines.base import Engine
from retrodict.models.estimators import get_estimator
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples, Fitted, Problem
from retrodict.models.splits import halves

__all__ = ["Progress", "Trained", "run_recipe"]

# (what is being done, steps done, steps at most)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a recipe made.

    Attributes
    ----------
    engine, calibrator, inputs
        The parts of the artifact.
    params : mapping
        Everything that was in force, defaults included.
    history : mapping of str to list of float
        Validation metrics per iteration.
    evaluations : mapping of str to Evaluation
        ``train``, ``validate``, ``test``, and ``test/<rung>`` for each rung of the ladder.
    ladder : Ladder, optional
        On the test rows; None if it was not asked for.
    test_scores : ndarray, shape (test rows,)
        Calibrated.
    calibration : Calibration
        Which method is in force, and why.
    warnings : tuple of str
        What somebody should look at before this model decides anything, each a sentence.
    """

    engine: Engine
    calibrator: Calibrator
    inputs: InputSpec
    params: Mapping[str, Any]
    history: Mapping[str, list[float]]
    evaluations: Mapping[str, Evaluation]
    ladder: Ladder | None
    test_scores: NDArray[np.float64]
    calibration: Calibration
    warnings: tuple[str, ...] = ()

    def artifact(self, name: str, metadata: Mapping[str, Any]) -> ModelArtifact:
        """Model artifact with what is to be said of it."""
        return ModelArtifact(name, self.inputs, self.engine, self.calibrator, metadata)


def run_recipe(
    recipe: Recipe,
    frame: Frame,
    parts: Mapping[str, NDArray[np.int64]],
    *,
    ladder: bool = True,
    progress: Progress | None = None,
) -> Trained:
    """Fit the ladder and the recipe's estimator on the training rows, calibrate on validation, evaluate everywhere.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    parts : mapping
        Positions of the ``train``, ``validate`` and ``test`` rows.
    ladder : bool, default True
        Whether to fit the baselines and look for leaks too; a replay compares the model only.
    progress : callable, optional
        Called with (what, done, at most).

    Raises
    ------
    InputError
        If a part is empty or the training rows hold one outcome only.
    """
    report = progress or (lambda _step, _done, _total: None)
    report("encode", 0, 1)
    for name, rows in parts.items():
        if not len(rows):
            raise InputError(
                f"there must be at least one labelled row to {name} on, its outcome known before the next part begins",
                where="recipe", got=0,
                remedy="Move the TimeSplit to where the data is, and let each part be longer than outcomes take",
            )  # fmt: skip
    inputs = InputSpec.learn(frame.columns(parts["train"]), recipe.types)
    examples = {name: _examples(inputs, frame, rows) for name, rows in parts.items()}
    stopping = aside = parts["validate"]
    if recipe.registered.validates and recipe.calibrate != "none":
        stopping, aside = halves(recipe.split, frame, parts["validate"])
        if not len(stopping):
            raise InputError("there must be two labelled rows or more to validate on: to stop by, and to calibrate on",
                             where="recipe", got=len(aside),
                             remedy="Give the TimeSplit a longer part to validate on")  # fmt: skip
    problem = Problem(
        inputs, examples["train"], _examples(inputs, frame, stopping), recipe.settings, recipe.seed,
        lambda done, total, _metrics: report(recipe.estimator, done, total),
    )  # fmt: skip
    rungs = _fit_ladder(recipe, problem, report) if ladder else {}
    fitted = recipe.registered.solve(problem)
    report("evaluate", 0, 1)
    raw = {name: fitted.engine.scores(rows.matrix) for name, rows in examples.items()}
    held_out = _examples(inputs, frame, aside)
    calibrator, calibration = calibrate(
        recipe.calibrate,
        fitted.engine.scores(held_out.matrix),
        held_out.labels,
        calibration_folds(recipe.split, frame, aside),
        frame.target,
    )
    scores = {name: calibrator.apply(values) for name, values in raw.items()}
    evaluations = {name: evaluate(examples[name].labels, scores[name]) for name in parts}
    climbed = {name: rung.engine.scores(examples["test"].matrix) for name, rung in rungs.items()}
    labels = examples["test"].labels
    evaluations |= {f"test/{name}": evaluate(labels, values) for name, values in climbed.items()}
    verdicts = climb(candidate=scores["test"], rungs=climbed, labels=labels) if climbed else None
    params = {"estimator": recipe.estimator, "calibrate": recipe.calibrate, **fitted.params}
    report("evaluate", 1, 1)
    return Trained(
        fitted.engine, calibrator, inputs, params, fitted.history, evaluations, verdicts, scores["test"], calibration,
        (*_warnings(evaluations), *(find_leaks(frame, inputs, parts, examples) if ladder else ())),
    )  # fmt: skip


def _examples(inputs: InputSpec, frame: Frame, rows: NDArray[np.int64]) -> Examples:
    return Examples(inputs.encode_columns(frame.columns(rows)), frame.labels[rows])


def _warnings(evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """What the numbers of the test rows say against the model."""
    if "test/majority" not in evaluations:
        return ()
    loss, majority = (evaluations[name]["log_loss"].value for name in ("test", "test/majority"))
    if loss is None or majority is None or loss <= majority:
        return ()
    compared = f"The log loss of {loss:.4f} on the test rows is above the majority's {majority:.4f}"
    return (f"{compared}: the same rate for every row would tell more than these probabilities.",)


def _fit_ladder(recipe: Recipe, problem: Problem, report: Progress) -> dict[str, Fitted[Any]]:
    """Baselines from the simplest on; the recipe's estimator is not its own rung, unless there is no other below it."""
    settings: dict[str, dict[str, Any]] = {
        "constant": {},
        "group_rate": {"group": recipe.baseline_group},
        "logistic": {},
    }
    if recipe.baseline_group is None:
        del settings["group_rate"]
    elif recipe.baseline_group not in problem.inputs.names:
        raise InputError("the baseline's group must be a feature of the model", where="Recipe, baseline_group",
                         got=recipe.baseline_group,
                         remedy=near(recipe.baseline_group, problem.inputs.names, what="feature"))  # fmt: skip
    rungs = {}
    for done, (estimator, params) in enumerate(settings.items()):
        rung = "majority" if estimator == "constant" else estimator
        report(f"baseline {rung}", done, len(settings))
        if estimator != recipe.estimator or estimator == "constant":
            rungs[rung] = get_estimator(estimator).solve(replace(problem, params=params, progress=None))
    return rungs
