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
from retrodict.core.tasks import Target
from retrodict.models._logistic import logit, logits

__all__ = ["Engine", "JsonEngine", "check_matrix", "check_row"]

_FILE = "engine.json"
_FLOAT64 = np.dtype(np.float64)


class Engine(Protocol):
    """A fitted model on rows of float64 (NaN: missing; categories as codes).

    ``scores`` are the outputs that ``target`` names: shape (n,) for one (the probability of a yes, a value), shape
    (n, outputs) for several (a probability per class, a value per quantile).

    Promises
    --------
    * *One answer*: ``scores`` of a matrix and ``score_row`` of its rows are equal, bit for bit where ``exact_rows``,
      else to 1e-12 of their size (or what the estimator declares), and so are ``margins`` and ``margin``, whatever the
      number of rows, threads or processes.
    * *Immutable*: nothing changes after construction; any number of threads may call at once.
    * *No pickle*: ``parts`` are text or JSON, and ``load_engine(kind, parts)`` gives an engine that scores alike, by
      the class method ``from_parts(parts)``.
    * *Explained*, where ``explains``: ``contributions`` add up to the margin, up to rounding.

    Attributes
    ----------
    kind : str
        Name in stored models by which :func:`~retrodict.models.estimators.load_engine` finds the class.
    target : Target
        What the scores are.
    width : int
        Number of features.
    exact_rows : bool
        Whether one row is scored bit for bit as in a batch.
    explains : bool
        Whether there are contributions.
    """

    __slots__ = ()

    kind: ClassVar[str]

    @property
    def exact_rows(self) -> bool:
        """Whether one row is scored bit for bit as in a batch."""
        ...

    @property
    def explains(self) -> bool:
        """Whether there are contributions."""
        ...

    @property
    def target(self) -> Target:
        """What the scores are."""
        ...

    @property
    def width(self) -> int:
        """Number of features."""
        ...

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs before calibration, shape (n,) or (n, outputs), of rows of shape (n, width)."""
        ...

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs before calibration of one row of shape (width,); a tuple where there are several."""
        ...

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """What contributions add up to, shape (n,) or (n, outputs): log-odds, or the value itself."""
        ...

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Margin of one row."""
        ...

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each feature in the margin of one row, then the bias: shape (width + 1,) or (outputs, width + 1)."""
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

    @property
    def exact_rows(self) -> bool:
        """Plain numbers in one order: yes."""
        return True

    @property
    def explains(self) -> bool:
        """Yes."""
        return True

    @property
    def target(self) -> Target:
        """Yes or no."""
        return Target()

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Rate of one row."""
        raise NotImplementedError

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
    if row.shape != (width,) or row.dtype != _FLOAT64:  # to compare with the type itself takes ten times as long
        raise InputError(
            f"a row must be float64 of the engine's {width} features", where="engine",
            got=(str(row.dtype), *row.shape), remedy="Make the row with the model's InputSpec",
        )  # fmt: skip
    return row
