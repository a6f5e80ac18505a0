"""Contract of the engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError

__all__ = ["Engine", "check_matrix", "check_row"]


class Engine(Protocol):
    """A fitted model of a yes-or-no outcome on rows of float64 (NaN: missing; categories as codes).

    Promises
    --------
    * *One answer*: ``scores`` of a matrix and ``score_row`` of its rows are equal bit for bit, and so are ``margins``
      and ``margin``, whatever the number of rows, threads or processes.
    * *Immutable*: nothing changes after construction; any number of threads may call at once.
    * *No pickle*: ``parts`` are text or JSON, and ``load_engine(kind, parts)`` gives an engine that scores alike.
    * *Explained*: ``contributions`` add up to the margin, up to rounding.

    Attributes
    ----------
    kind : str
        Name under which :func:`load_engine` finds the class.
    width : int
        Number of features.
    """

    kind: ClassVar[str]

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities before calibration, shape (n,), of rows of shape (n, width)."""
        ...

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Probability before calibration of one row of shape (width,)."""
        ...

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds, shape (n,)."""
        ...

    def margin(self, row: NDArray[np.float64]) -> float:
        """Log-odds of one row."""
        ...

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each feature in the margin of one row, then the bias: shape (width + 1,), in log-odds."""
        ...

    def parts(self) -> Mapping[str, bytes]:
        """Files to keep, by name."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of what was learned, apart from how: equal for the same trees grown by one thread or by two."""
        ...


def check_matrix(matrix: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Return the matrix if its shape fits; a matrix of another width would be read past its end by C code."""
    if matrix.ndim != 2 or matrix.shape[1] != width or matrix.dtype != np.float64:
        raise InputError(
            f"this engine reads float64 rows of {width} features", where="engine",
            got=(str(matrix.dtype), *matrix.shape), remedy="Make the matrix with the model's InputSpec",
        )  # fmt: skip
    return matrix


def check_row(row: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Return the row if its shape fits."""
    if row.shape != (width,) or row.dtype != np.float64:
        raise InputError(
            f"this engine reads one float64 row of {width} features", where="engine",
            got=(str(row.dtype), *row.shape), remedy="Make the row with the model's InputSpec",
        )  # fmt: skip
    return row
