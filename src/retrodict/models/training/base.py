"""What goes into training and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.models.engines.base import Engine

__all__ = ["Examples", "Fitted", "Progress"]

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
    """

    matrix: NDArray[np.float64]
    labels: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check shapes and labels, and that there is a row."""
        if self.matrix.ndim != 2 or self.matrix.dtype != np.float64:
            raise InputError("the matrix is two-dimensional float64", where="training rows",
                             got=(str(self.matrix.dtype), *self.matrix.shape),
                             remedy="Make it with InputSpec.encode_columns")  # fmt: skip
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.float64))
        if self.labels.shape != (len(self.matrix),) or not len(self.labels):
            raise InputError("there is one label per row, and at least one row", where="training rows",
                             got=(len(self.matrix), *self.labels.shape))  # fmt: skip
        if not np.isin(self.labels, (0.0, 1.0)).all():
            raise InputError("labels are 0 or 1", where="training rows", got=f"{len(np.unique(self.labels))} values",
                             remedy="Drop rows whose outcome is not known yet")  # fmt: skip

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.matrix.shape[1])


@dataclass(frozen=True, slots=True)
class Fitted(Generic[E_co]):
    """An engine and how it came about.

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
