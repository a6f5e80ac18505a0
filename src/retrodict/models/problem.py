"""A learning problem as an estimator gets it, and the fitted engine that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.models.engines.base import Engine
from retrodict.models.estimators import Task, check_task
from retrodict.models.inputs import InputSpec

__all__ = ["Examples", "Fitted", "Problem", "Progress"]

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
        0 or 1.
    task : {"binary"}
        What the labels are.
    """

    matrix: NDArray[np.float64]
    labels: NDArray[np.float64]
    task: Task = "binary"

    def __post_init__(self) -> None:
        """Check shapes and labels, and that there is a row."""
        check_task(self.task, where="training rows")
        if self.matrix.ndim != 2 or self.matrix.dtype != np.float64:
            raise InputError("the matrix must be two-dimensional float64", where="training rows",
                             got=(str(self.matrix.dtype), *self.matrix.shape),
                             remedy="Make it with InputSpec.encode_columns")  # fmt: skip
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.float64))
        if self.labels.shape != (len(self.matrix),) or not len(self.labels):
            raise InputError("there must be one label per row, and at least one row", where="training rows",
                             got=(len(self.matrix), *self.labels.shape),
                             remedy="Give the labels of the same rows")  # fmt: skip
        if not np.isin(self.labels, (0.0, 1.0)).all():
            raise InputError("labels must be 0 or 1", where="training rows",
                             got=f"{len(np.unique(self.labels))} values",
                             remedy="Make the label a comparison, and drop rows without an outcome")  # fmt: skip

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.matrix.shape[1])


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
    progress : callable, optional
        May be called with (iterations done, iterations at most, validation metrics).
    """

    inputs: InputSpec
    train: Examples
    validate: Examples | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    progress: Progress | None = None


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
        Validation metrics per iteration; empty for engines without iterations.
    """

    engine: E_co
    params: Mapping[str, Any]
    history: Mapping[str, list[float]] = field(default_factory=dict)
