"""Labels beside scores, read once, with the reasons why a metric of them is not evaluable."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics._columns import read_floats


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Labels 0.0 and 1.0 (NaN: not known) beside scores (NaN: null)."""

    labels: NDArray[np.float64]
    scores: NDArray[np.float64]
    refusal: str | None = None

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.labels.size)

    @property
    def positives(self) -> int:
        """Rows labelled 1."""
        return int((self.labels == 1).sum())

    def unlabelled(self) -> str | None:
        """Why labels alone give nothing, or None."""
        if self.refusal:
            return self.refusal
        if not self.n:
            return "no rows"
        missing = int(np.isnan(self.labels).sum())
        return f"{missing} of {self.n} labels are null" if missing else None

    def incomplete(self) -> str | None:
        """Why labels and scores give nothing, or None."""
        missing = int(np.isnan(self.scores).sum())
        return self.unlabelled() or (f"{missing} of {self.n} scores are null" if missing else None)

    def improper(self) -> str | None:
        """Why the scores are not probabilities of known labels, or None."""
        outside = int(((self.scores < 0) | (self.scores > 1)).sum())
        return self.incomplete() or (f"{outside} of {self.n} scores lie outside [0, 1]" if outside else None)

    def one_class(self) -> str | None:
        """Why ranking one class against the other gives nothing, or None."""
        positives = self.positives
        if 0 < positives < self.n:
            return None
        return f"all {self.n} rows are {'positive' if positives else 'negative'}"

    def matured(self) -> tuple[ScoredRows, int]:
        """Rows whose label is known, and how many are left out."""
        labelled = ~np.isnan(self.labels)
        if labelled.all():
            return self, 0
        return ScoredRows(self.labels[labelled], self.scores[labelled]), int((~labelled).sum())

    def refused(self, reason: str) -> ScoredRows:
        """Return the same rows, with a reason why nothing of them is evaluable."""
        return replace(self, refusal=reason)


def read_rows(labels: ArrayLike, scores: ArrayLike) -> ScoredRows:
    """Read both columns; None and NaN are null.

    Raises
    ------
    InputError
        If lengths differ, a label is neither 0, 1 nor null, or a column is not numeric.
    """
    truth, predicted = read_floats(labels, "labels"), read_floats(scores, "scores")
    if truth.shape != predicted.shape:
        raise InputError("there must be one score per label", where="evaluation", got=(truth.size, predicted.size),
                         remedy="Pass columns of the same rows")  # fmt: skip
    wrong = int((~np.isnan(truth) & (truth != 0) & (truth != 1)).sum())
    if wrong:
        raise InputError("labels must be 0, 1 or null", where="labels", got=f"{wrong} others of {truth.size}",
                         remedy="State the outcome as yes or no")  # fmt: skip
    return ScoredRows(truth, predicted)
