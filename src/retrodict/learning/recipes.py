"""Recipes: from a frame and its split to a model artifact, with the baseline ladder beside it.

Pure: no store, no clock. A recipe given the same rows, parameters and seed gives the same trees and numbers, which is
what replay compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, near
from retrodict.evaluation import Evaluation, Ladder, climb, evaluate
from retrodict.learning.frame import Frame
from retrodict.models.artifact import ModelArtifact
from retrodict.models.calibration import Calibrator, NoCalibrator, fit_isotonic, fit_sigmoid
from retrodict.models.definitions import Recipe
from retrodict.models.engines import Engine
from retrodict.models.inputs import InputSpec
from retrodict.models.training import Examples, Fitted, fit_constant, fit_group_rate, fit_lightgbm, fit_logistic

__all__ = ["Progress", "Trained", "run_recipe"]

# (what is being done, steps done, steps at most)
Progress = Callable[[str, int, int], None]

_CALIBRATORS: Mapping[str, Callable[..., Calibrator]] = {"isotonic": fit_isotonic, "sigmoid": fit_sigmoid}


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
    """

    engine: Engine
    calibrator: Calibrator
    inputs: InputSpec
    params: Mapping[str, Any]
    history: Mapping[str, list[float]]
    evaluations: Mapping[str, Evaluation]
    ladder: Ladder | None
    test_scores: NDArray[np.float64]

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
        Whether to fit the baselines too; a replay compares the model only.
    progress : callable, optional
        Called with (what, done, at most).

    Raises
    ------
    InputError
        If a part is empty or the training rows hold one outcome only.
    """
    tell = progress or (lambda _what, _done, _most: None)
    tell("encode", 0, 1)
    columns = {name: frame.columns(rows) for name, rows in parts.items()}
    for name, rows in parts.items():
        if not len(rows):
            raise InputError(
                f"there is at least one labelled row to {name} on",
                where="recipe",
                got=0,
                remedy="Move the TimeSplit to where the data is",
            )
    inputs = InputSpec.learn(columns["train"])
    examples = {
        name: Examples(inputs.encode_columns(columns[name]), frame.labels[rows]) for name, rows in parts.items()
    }
    rungs = _ladder(recipe, inputs, examples["train"], tell) if ladder else {}
    fitted = _fit(recipe, inputs, examples, tell)
    tell("evaluate", 0, 1)
    raw = {name: fitted.engine.scores(each.matrix) for name, each in examples.items()}
    fit = _CALIBRATORS.get(recipe.calibrate)
    calibrator: Calibrator = fit(raw["validate"], examples["validate"].labels) if fit else NoCalibrator()
    scores = {name: calibrator.apply(values) for name, values in raw.items()}
    evaluations = {name: evaluate(examples[name].labels, scores[name]) for name in parts}
    climbed = {name: rung.engine.scores(examples["test"].matrix) for name, rung in rungs.items()}
    labels = examples["test"].labels
    evaluations |= {f"test/{name}": evaluate(labels, values) for name, values in climbed.items()}
    judged = climb(candidate=scores["test"], rungs=climbed, labels=labels) if climbed else None
    params = {"estimator": recipe.estimator, "calibrate": recipe.calibrate, **fitted.params}
    tell("evaluate", 1, 1)
    return Trained(fitted.engine, calibrator, inputs, params, fitted.history, evaluations, judged, scores["test"])


def _ladder(recipe: Recipe, inputs: InputSpec, train: Examples, tell: Progress) -> dict[str, Fitted[Any]]:
    """Baselines from the simplest on; the recipe's own estimator is not its own rung."""
    steps: dict[str, Callable[[], Fitted[Any]]] = {"majority": lambda: fit_constant(train)}
    if recipe.baseline_group is not None:
        if recipe.baseline_group not in inputs.names:
            raise InputError(
                "the baseline's group is a feature of the model",
                where="Recipe, baseline_group",
                got=recipe.baseline_group,
                remedy=near(recipe.baseline_group, inputs.names, what="feature"),
            )
        place = inputs.names.index(recipe.baseline_group)
        steps["group_rate"] = lambda: fit_group_rate(train, place)
    steps["logistic"] = lambda: fit_logistic(train, inputs.categorical)
    own = {"constant": "majority"}.get(recipe.estimator, recipe.estimator)
    rungs = {}
    for done, (name, fit) in enumerate(steps.items()):
        tell(f"baseline {name}", done, len(steps))
        if name != own or name == "majority":
            rungs[name] = fit()
    return rungs


def _fit(recipe: Recipe, inputs: InputSpec, examples: Mapping[str, Examples], tell: Progress) -> Fitted[Any]:
    train = examples["train"]
    if recipe.estimator == "lightgbm":
        return fit_lightgbm(
            inputs, train, examples["validate"], seed=recipe.seed, params=recipe.params,
            progress=lambda done, most, _metrics: tell("lightgbm", done, most),
        )  # fmt: skip
    if recipe.estimator == "logistic":
        return fit_logistic(train, inputs.categorical, **recipe.params)
    if recipe.estimator == "group_rate":
        if recipe.baseline_group is None:
            raise InputError(
                "a group rate names its group", where="Recipe", remedy="Say baseline_group='view__feature'"
            )
        return fit_group_rate(train, inputs.names.index(recipe.baseline_group), **recipe.params)
    return fit_constant(train)
