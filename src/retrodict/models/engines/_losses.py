"""What early stopping goes by: one loss per task, summed by NumPy in one order whatever the library and its threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.survival import brier_losses
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import TRAIN, Examples

__all__ = [
    "TrainingLoss",
    "by_group",
    "check_two_classes",
    "monotone_signs",
    "training_sample",
    "validation_loss",
]

Measure = Callable[[Examples, NDArray[Any]], tuple[str, float]]

_TINY = 1e-15
_SAMPLE, _EVERY = 20_000, 10


def training_sample(train: Examples) -> Examples:
    """At most 20,000 training rows, drawn evenly, whose loss stands beside that of the validation rows."""
    return train.take(_places(train)) if len(train.labels) > _SAMPLE else train


def _places(train: Examples) -> NDArray[np.int64]:
    """Of a ranking the first rows, so that no group is thinned out."""
    count = len(train.labels)
    places = np.arange(min(count, _SAMPLE))
    evenly = count > _SAMPLE and train.target.task != "ranking"
    return np.linspace(0, count - 1, _SAMPLE).astype(np.int64) if evenly else places


class TrainingLoss:
    """Loss of the sample of training rows in the first iteration and every tenth; NaN where it is not measured.

    To measure it in every iteration would take a boosting of few leaves longer than to grow the tree. Where the sample
    is a part of the rows, LightGBM hands over the scores of all: then in iterations 1, 2, 5, 10, 20, 50 and so on.
    """

    def __init__(self, train: Examples, measure: Measure | None = None) -> None:
        self._measure = measure or validation_loss
        self.places = _places(train)
        self.rows = train.take(self.places)
        self._sparse = len(self.places) < len(train.labels)

    def note(self, history: dict[str, list[float]], name: str, iteration: int, outputs: Callable[[], Any]) -> None:
        """Add an iteration, counted from 1, to the history; ``outputs`` gives those of the sample."""
        rounded = iteration / 10 ** int(math.log10(iteration)) in (1.0, 2.0, 5.0)
        due = rounded if self._sparse else iteration == 1 or iteration % _EVERY == 0
        loss = self._measure(self.rows, outputs())[1] if due else math.nan
        history.setdefault(f"{TRAIN}{name}", []).append(loss)


def validation_loss(rows: Examples, outputs: NDArray[Any]) -> tuple[str, float]:
    """Name and value of the loss of outputs on rows; less is better.

    Parameters
    ----------
    rows : Examples
        Labels, weights and groups.
    outputs : ndarray of shape (n,) or (n, outputs)
        As an engine gives them.
    """
    labels, target = rows.labels, rows.target
    if target.task == "ranking":
        return "one_minus_ndcg", 1.0 - _ndcg(labels, outputs, rows.groups)
    match target.task:
        case "binary":
            name, losses = "log_loss", -np.log(np.maximum(np.where(labels == 1, outputs, 1.0 - outputs), _TINY))
        case "multiclass":
            shares = outputs[np.arange(len(labels)), labels.astype(np.intp)]
            name, losses = "log_loss", -np.log(np.maximum(shares, _TINY))
        case "survival":
            name, losses = "integrated_brier", brier_losses(Rows(labels, outputs, target, rows.weights))
        case "quantile":
            away, levels = labels[:, None] - outputs.reshape(len(labels), -1), np.array(target.quantiles)
            name, losses = "pinball", np.maximum(levels * away, (levels - 1.0) * away).mean(axis=1)
        case "count":
            means = np.maximum(outputs, _TINY)
            logs = np.where(labels > 0, labels * np.log(np.maximum(labels, _TINY) / means), 0.0)
            name, losses = "poisson_deviance", 2.0 * (logs - labels + means)
        case _:
            name, losses = "mean_squared_error", (labels - outputs) ** 2
    if rows.weights is None:
        return name, float(losses.mean())
    return name, float((losses * rows.weights).sum() / rows.weights.sum())


def _ndcg(labels: NDArray[Any], scores: NDArray[Any], groups: NDArray[Any] | None) -> float:
    """Mean over groups of DCG with gains 2**relevance - 1 over its best; 1 where nothing is relevant."""
    codes = np.zeros(len(labels), np.int64) if groups is None else groups
    order = np.argsort(codes, kind="stable")
    values = []
    for part in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        gains = 2.0 ** labels[part] - 1.0
        discounts = 1.0 / np.log2(np.arange(len(part)) + 2.0)
        best = float((np.sort(gains)[::-1] * discounts).sum())
        ranked = gains[np.argsort(-scores[part], kind="stable")]
        values.append(float((ranked * discounts).sum()) / best if best else 1.0)
    return float(np.mean(values))


def check_two_classes(train: Examples, where: str) -> None:
    """Refuse training rows of one class only, from which no classifier can learn."""
    if train.target.probabilistic and len(np.unique(train.labels)) < 2:
        raise InputError(
            "the training rows must hold both outcomes" if train.target.task == "binary" else
            "the training rows must hold two classes or more",
            where=where, got="one outcome only", remedy="Train on a longer span",
        )  # fmt: skip


def by_group(rows: Examples) -> Examples:
    """Rows of a ranking with those of one group beside each other, as the libraries want them; others as they are."""
    if rows.target.task != "ranking" or rows.groups is None:
        return rows
    order = np.argsort(rows.groups, kind="stable")
    weights = None if rows.weights is None else rows.weights[order]
    return Examples(rows.matrix[order], rows.labels[order], rows.target, weights, rows.groups[order])


def monotone_signs(inputs: InputSpec, signs: Mapping[str, int]) -> list[int]:
    """1, -1 or 0 per feature, in their order.

    Raises
    ------
    InputError
        If a feature is not one of the model, or is a category.
    """
    numbers = [feature.name for feature in inputs.features if feature.type == "number"]
    for name in sorted(signs):
        rule = "monotone must name numbers among the features"
        check_known(name, numbers, rule, where="params", what="feature", error=InputError)
    return [int(signs.get(name, 0)) for name in inputs.names]
