"""The two lowest rungs: one rate for all, and one rate per category drawn towards the rate of all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.identity import canonical_json, digest
from retrodict.models._logistic import logit, logits
from retrodict.models.engines.base import check_matrix, check_row

__all__ = ["ConstantEngine", "GroupRateEngine"]

_FILE = "engine.json"


def _check_rate(rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise InputError("a rate is between 0 and 1", where="engine", got=rate)


@dataclass(frozen=True, slots=True)
class ConstantEngine:
    """The same rate for every row.

    Attributes
    ----------
    rate : float
        Share of the outcome among the training rows.
    features : int
        Width of the rows it is given (and does not look at).
    """

    kind: ClassVar[str] = "constant"

    rate: float
    features: int

    def __post_init__(self) -> None:
        """Check the rate."""
        _check_rate(self.rate)

    @property
    def width(self) -> int:
        """Number of features."""
        return self.features

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rate, n times."""
        return np.full(len(check_matrix(matrix, self.features)), self.rate)

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Return the rate."""
        check_row(row, self.features)
        return self.rate

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of the rate, n times."""
        return logits(self.scores(matrix))

    def margin(self, row: NDArray[np.float64]) -> float:
        """Log-odds of the rate."""
        return logit(self.score_row(row))

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Zero for every feature, then the log-odds of the rate."""
        shares = np.zeros(self.features + 1)
        shares[-1] = self.margin(row)
        return shares

    def parts(self) -> Mapping[str, bytes]:
        """One JSON file."""
        return {_FILE: canonical_json({"features": self.features, "rate": self.rate})}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> ConstantEngine:
        """Read what :meth:`parts` gave."""
        kept = json.loads(parts[_FILE])
        return cls(rate=kept["rate"], features=kept["features"])

    def fingerprint(self) -> str:
        """SHA-256 of the JSON file."""
        return digest(self.parts()[_FILE])


@dataclass(frozen=True, slots=True)
class GroupRateEngine:
    """The rate of the row's category; the rate of all where the category is missing or unseen.

    Attributes
    ----------
    column : int
        Place of the category in the row.
    rates : tuple of float
        Rate by code, already drawn towards the overall rate by the prior count.
    overall : float
        Rate of all training rows.
    features : int
        Width of the rows.
    """

    kind: ClassVar[str] = "group_rate"

    column: int
    rates: tuple[float, ...]
    overall: float
    features: int

    def __post_init__(self) -> None:
        """Check rates and column."""
        for rate in (self.overall, *self.rates):
            _check_rate(rate)
        if not 0 <= self.column < self.features:
            raise InputError(f"the column is below {self.features}", where="engine", got=self.column)

    @property
    def width(self) -> int:
        """Number of features."""
        return self.features

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rate of each row's category."""
        codes = check_matrix(matrix, self.features)[:, self.column]
        # Whatever is not a known code ends on the last entry: the overall rate.
        known = (codes >= 0) & (codes < len(self.rates))
        places = np.where(known, codes, len(self.rates)).astype(np.intp)
        return np.array((*self.rates, self.overall))[places]

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Rate of the row's category."""
        code = float(check_row(row, self.features)[self.column])
        known = not math.isnan(code) and 0 <= code < len(self.rates)
        return self.rates[int(code)] if known else self.overall

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of each row's rate."""
        return logits(self.scores(matrix))

    def margin(self, row: NDArray[np.float64]) -> float:
        """Log-odds of the row's rate."""
        return logit(self.score_row(row))

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the category moves the log-odds from those of all rows; zero for every other feature."""
        shares = np.zeros(self.features + 1)
        shares[-1] = logit(self.overall)
        shares[self.column] = self.margin(row) - shares[-1]
        return shares

    def parts(self) -> Mapping[str, bytes]:
        """One JSON file."""
        return {
            _FILE: canonical_json({
                "column": self.column, "features": self.features, "overall": self.overall, "rates": list(self.rates),
            })
        }  # fmt: skip

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> GroupRateEngine:
        """Read what :meth:`parts` gave."""
        kept = json.loads(parts[_FILE])
        return cls(column=kept["column"], rates=tuple(kept["rates"]), overall=kept["overall"],
                   features=kept["features"])  # fmt: skip

    def fingerprint(self) -> str:
        """SHA-256 of the JSON file."""
        return digest(self.parts()[_FILE])
