"""A learning problem as an estimator gets it, and the fitted engine that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.engines.base import Engine
from retrodict.models.inputs import InputSpec

__all__ = ["LARGEST", "TRAIN", "Examples", "Fitted", "Problem", "Progress", "Start", "check_labels"]

LARGEST = 1e30
"""Size up to which numbers can be learned from: libraries of trees keep float32, and squares must stay finite."""

TRAIN = "train/"
"""What the name of a loss of training rows begins with in the history of a fit."""

# (iterations done, iterations at most, newest validation metrics) -> nothing
Progress = Callable[[int, int, Mapping[str, float]], None]

E_co = TypeVar("E_co", bound=Engine, covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows with their outcome.

    Attributes
    ----------
    matrix : ndarray of shape (n, features), float64
        Made by :class:`~retrodict.models.inputs.InputSpec`.
    labels : ndarray of shape (n,), float64
        0 or 1; codes of classes; numbers: as the target says.
    target : Target, default yes or no
        What the labels are.
    weights : ndarray of shape (n,), float64, optional
        How much each row counts, zero or more; None: all alike.
    groups : ndarray of shape (n,), int64, optional
        Rows that are compared with each other (``ranking``).
    """

    matrix: NDArray[np.float64]
    labels: NDArray[np.float64]
    target: Target = Target()  # noqa: RUF009  # immutable
    weights: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check shapes and labels, and that there is a row."""
        if self.matrix.ndim != 2 or self.matrix.dtype != np.float64:
            raise InputError("the matrix must be two-dimensional float64", where="training rows",
                             got=(str(self.matrix.dtype), *self.matrix.shape),
                             remedy="Make it with InputSpec.encode_columns")  # fmt: skip
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.float64))
        if self.labels.shape != (len(self.matrix),) or not len(self.labels):
            raise InputError("there must be one label per row, and at least one row", where="training rows",
                             got=(len(self.matrix), *self.labels.shape),
                             remedy="Give the labels of the same rows")  # fmt: skip
        check_labels(self.labels, self.target)
        for name, values in (("weight", self.weights), ("group", self.groups)):
            if values is not None and values.shape != self.labels.shape:
                raise InputError(f"there must be one {name} per row", where="training rows",
                                 got=(len(self.labels), *values.shape),
                                 remedy=f"Give the {name} of the same rows")  # fmt: skip
        if self.weights is not None and not (np.isfinite(self.weights).all() and (self.weights >= 0).all()
                                             and self.weights.any()):  # fmt: skip
            raise InputError("weights must be finite numbers of zero or more, and not all zero", where="training rows",
                             got=f"{int((~(self.weights >= 0)).sum())} others",
                             remedy="Correct the expression of the weights")  # fmt: skip

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.matrix.shape[1])

    def take(self, places: NDArray[np.int64]) -> Examples:
        """Some of the rows, with their weights and groups."""
        weights = None if self.weights is None else self.weights[places]
        groups = None if self.groups is None else self.groups[places]
        return Examples(self.matrix[places], self.labels[places], self.target, weights, groups)


_RULES: Mapping[str, tuple[str, str]] = {
    "binary": ("labels must be 0 or 1", "Make the label a comparison, and drop rows without an outcome"),
    "multiclass": ("labels must be codes of the classes", "Name every class in Label(classes=[…])"),
    "count": ("counts must be numbers from 0 to 1e30", "Correct the label, or say task='regression'"),
    "survival": ("times must be signed days other than zero, of at most 1e30", "Correct the label's columns"),
    "ranking": ("relevances must be numbers from 0 to 1e30", "Correct the label, or say task='regression'"),
}


def check_labels(labels: NDArray[np.float64], target: Target) -> None:
    """Refuse labels that are not of the target's task.

    Parameters
    ----------
    labels : ndarray of shape (n,), float64
    target : Target

    Raises
    ------
    InputError
        With the number of labels that are not.
    """
    match target.task:
        case "binary":
            fitting = np.isin(labels, (0.0, 1.0))
        case "multiclass":
            fitting = (labels >= 0) & (labels < len(target.classes)) & (labels == np.floor(labels))
        case "count" | "ranking":
            fitting = (labels >= 0) & (labels <= LARGEST)
        case "survival":
            fitting = (labels != 0) & (np.abs(labels) <= LARGEST)
        case _:
            fitting = np.abs(labels) <= LARGEST
    if not fitting.all():
        plain = "labels must be numbers of at most 1e30 in size", "Scale the label, or quarantine with Check.between"
        rule, remedy = _RULES.get(target.task, plain)
        raise InputError(rule, where="training rows", got=f"{int((~fitting).sum())} others among {len(labels)}",
                         remedy=remedy)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What a fit goes on from; it is never changed.

    Attributes
    ----------
    engine : Engine
        Of the source, on the matrix of this problem.
    steps : tuple of Step
        Fitted steps of the source, which make that matrix.
    layers : tuple of str, optional
        Of a network, those that are taken over; None: all.
    """

    engine: Engine
    steps: tuple[Any, ...] = ()
    layers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Everything an estimator may learn from.

    Attributes
    ----------
    inputs : InputSpec
        Names and types of the columns of the matrices.
    train : Examples
        Training rows, in the order that the run records: another order may give another engine.
    validate : Examples, optional
        Rows to stop early by, never to fit on.
    params : mapping
        Parameters of the estimator: defaults, and the recipe's over them.
    seed : int
        The only source of randomness.
    checkpoints : Checkpoints, optional
        Where an estimator of iterations saves its state, and how often; it goes on from the last one that is there.
    start : Start, optional
        What the fit goes on from; None: from nothing.
    progress : callable, optional
        May be called with (iterations done, iterations at most, validation metrics).
    """

    inputs: InputSpec
    train: Examples
    validate: Examples | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    progress: Progress | None = None
    checkpoints: Checkpoints | None = None
    start: Start | None = None


@dataclass(frozen=True, slots=True)
class Fitted(Generic[E_co]):
    """An engine, and how it was fitted.

    Attributes
    ----------
    engine : Engine
        Ready to score.
    params : mapping
        Everything that was in force, defaults and seeds included; plain JSON.
    history : mapping of str to list of float
        Losses per iteration: of the validation rows by the name of the loss, and of training rows by that name after
        :data:`TRAIN`, NaN where it was not measured. Empty for engines without iterations, or without validation rows.
    notes : mapping
        What else is worth keeping, plain JSON: columns that were left out, coefficients that are zero.
    """

    engine: E_co
    params: Mapping[str, Any]
    history: Mapping[str, list[float]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
