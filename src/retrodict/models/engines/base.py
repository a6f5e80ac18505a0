"""Contract of the engines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.identity import canonical_json, digest
from retrodict.models._logistic import logit, logits
from retrodict.models.estimators import Task

__all__ = ["Engine", "JsonEngine", "check_matrix", "check_row"]

_FILE = "engine.json"


class Engine(Protocol):
    """A fitted model on rows of float64 (NaN: missing; categories as codes).

    What ``scores`` are depends on the task: probabilities of a yes, shape (n,), for ``binary``, the only one served
    so far; values, shape (n,), for ``regression``; probabilities of shape (n, classes) for ``multiclass``.

    Promises
    --------
    * *One answer*: ``scores`` of a matrix and ``score_row`` of its rows are equal bit for bit, and so are ``margins``
      and ``margin``, whatever the number of rows, threads or processes.
    * *Immutable*: nothing changes after construction; any number of threads may call at once.
    * *No pickle*: ``parts`` are text or JSON, and ``load_engine(kind, parts)`` gives an engine that scores alike, by
      the class method ``from_parts(parts)``.
    * *Explained*: ``contributions`` add up to the margin, up to rounding.

    Attributes
    ----------
    kind : str
        Name in stored models by which :func:`~retrodict.models.estimators.load_engine` finds the class.
    task : {"binary"}
        What the scores are.
    width : int
        Number of features.
    """

    __slots__ = ()

    kind: ClassVar[str]
    task: ClassVar[Task]

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


class JsonEngine(Engine):
    """Engine that is a dataclass of plain numbers, stored as one JSON file of its fields; scores are rates."""

    __slots__ = ()

    task: ClassVar[Task] = "binary"

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of each row's rate."""
        return logits(self.scores(matrix))

    def margin(self, row: NDArray[np.float64]) -> float:
        """Log-odds of the row's rate."""
        return logit(self.score_row(row))

    def parts(self) -> Mapping[str, bytes]:
        """One JSON file."""
        return {_FILE: canonical_json(asdict(self))}  # type: ignore[call-overload]  # subclasses are dataclasses

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> Self:
        """Read what :meth:`parts` gave."""
        return cls.from_fields(json.loads(parts[_FILE]))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Engine from its fields as JSON has them."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    def fingerprint(self) -> str:
        """SHA-256 of the JSON file."""
        return digest(self.parts()[_FILE])


def check_matrix(matrix: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Return the matrix if its shape fits; a matrix of another width would be read past its end by C code."""
    if matrix.ndim != 2 or matrix.shape[1] != width or matrix.dtype != np.float64:
        raise InputError(
            f"rows must be float64 of the engine's {width} features", where="engine",
            got=(str(matrix.dtype), *matrix.shape), remedy="Make the matrix with the model's InputSpec",
        )  # fmt: skip
    return matrix


def check_row(row: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Return the row if its shape fits."""
    if row.shape != (width,) or row.dtype != np.float64:
        raise InputError(
            f"a row must be float64 of the engine's {width} features", where="engine",
            got=(str(row.dtype), *row.shape), remedy="Make the row with the model's InputSpec",
        )  # fmt: skip
    return row
