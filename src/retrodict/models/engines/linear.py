"""Logistic regression as plain numbers: means for what is missing, scales, one weight per category.

The sum runs feature by feature in a fixed order. A matrix product was rejected: BLAS adds in another order for one row
than for a thousand, and on another processor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.identity import canonical_json, digest
from retrodict.models._logistic import sigmoid, sigmoids
from retrodict.models.engines.base import check_matrix, check_row

__all__ = ["CategoryTerm", "LinearEngine", "NumberTerm"]

_FILE = "engine.json"


@dataclass(frozen=True, slots=True)
class NumberTerm:
    """``weight * (x - mean) / scale``; a missing x counts as the mean, so it adds nothing.

    Attributes
    ----------
    mean, scale, weight : float
        Mean and standard deviation of the training rows, and the coefficient of the standardised value.
    """

    mean: float
    scale: float
    weight: float

    def of(self, value: float) -> float:
        """Share of one value in the margin."""
        return 0.0 if math.isnan(value) else (value - self.mean) / self.scale * self.weight

    def of_column(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each of a column."""
        return np.where(np.isnan(values), 0.0, (values - self.mean) / self.scale * self.weight)


@dataclass(frozen=True, slots=True)
class CategoryTerm:
    """One weight per code, and one for missing or unseen.

    Attributes
    ----------
    weights : tuple of float
        Coefficient by code.
    missing : float
        Coefficient of null and unseen; 0 where the training rows held none.
    """

    weights: tuple[float, ...]
    missing: float

    def of(self, value: float) -> float:
        """Share of one code in the margin."""
        known = not math.isnan(value) and 0 <= value < len(self.weights)
        return self.weights[int(value)] if known else self.missing

    def of_column(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each of a column of codes."""
        known = (values >= 0) & (values < len(self.weights))
        return np.array((*self.weights, self.missing))[np.where(known, values, len(self.weights)).astype(np.intp)]


@dataclass(frozen=True, slots=True)
class LinearEngine:
    """Sum of an intercept and one term per feature, through the logistic function.

    Attributes
    ----------
    intercept : float
        Log-odds where every number is at its mean and no category has a weight.
    terms : tuple of NumberTerm and CategoryTerm
        One per feature, in order.
    """

    kind: ClassVar[str] = "linear"

    intercept: float
    terms: tuple[NumberTerm | CategoryTerm, ...]

    def __post_init__(self) -> None:
        """Refuse a scale that cannot be divided by."""
        for at, term in enumerate(self.terms):
            if isinstance(term, NumberTerm) and not term.scale > 0:
                raise InputError("a scale is above zero", where=f"engine, feature {at}", got=term.scale)

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.terms)

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities, shape (n,)."""
        return sigmoids(self.margins(matrix))

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Probability of one row."""
        return sigmoid(self.margin(row))

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds, shape (n,)."""
        check_matrix(matrix, self.width)
        total = np.full(len(matrix), self.intercept)
        for at, term in enumerate(self.terms):
            total += term.of_column(matrix[:, at])
        return total

    def margin(self, row: NDArray[np.float64]) -> float:
        """Log-odds of one row."""
        total = self.intercept
        for term, value in zip(self.terms, check_row(row, self.width).tolist(), strict=True):
            total += term.of(value)
        return total

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each term, then the intercept.

        For a number this is its exact Shapley value against the training mean; a category is measured from no weight.
        """
        values = check_row(row, self.width).tolist()
        return np.array([*(t.of(v) for t, v in zip(self.terms, values, strict=True)), self.intercept])

    def parts(self) -> Mapping[str, bytes]:
        """One JSON file."""
        return {_FILE: canonical_json({"intercept": self.intercept, "terms": [asdict(t) for t in self.terms]})}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> LinearEngine:
        """Read what :meth:`parts` gave."""
        kept = json.loads(parts[_FILE])
        terms = tuple(
            CategoryTerm(tuple(t["weights"]), t["missing"]) if "weights" in t else NumberTerm(**t)
            for t in kept["terms"]
        )  # fmt: skip
        return cls(intercept=kept["intercept"], terms=terms)

    def fingerprint(self) -> str:
        """SHA-256 of the JSON file."""
        return digest(self.parts()[_FILE])
