"""Labels beside outputs, read once, with the reasons why a metric of them is not evaluable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics._columns import read_floats
from retrodict.core.tasks import Target

Floats = NDArray[np.float64]

# How far a row of probabilities may be from a sum of 1: single precision has rounded some by 1e-7 per class.
_SUM = 1e-5


@dataclass(frozen=True)
class Thresholds:
    """Weight of the rows labelled 1 and 0 at each distinct score, from the highest down."""

    scores: Floats
    place: NDArray[np.int64]
    positive: Floats
    negative: Floats


@dataclass(frozen=True)
class Rows:
    """Labels (NaN: not known) beside outputs (NaN: null).

    Attributes
    ----------
    labels : ndarray of float64, shape (n,)
    outputs : ndarray of float64, shape (n,); of several classes and quantiles (n, columns)
    target : Target
    weights : ndarray of float64, shape (n,), or None
        Above 0; None: all the same.
    groups : ndarray of int64, shape (n,), or None
        Codes from 0 on; of ``ranking``.
    k : float or None
        How many of the first places count, or which share of them; None: the task's own.
    refusal : str or None
        Why nothing of them is evaluable.
    """

    labels: Floats
    outputs: Floats
    target: Target = field(default_factory=Target)
    weights: Floats | None = None
    groups: NDArray[np.int64] | None = None
    k: float | None = None
    refusal: str | None = None

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.labels.size)

    @property
    def scores(self) -> Floats:
        """The outputs of a task that has one."""
        return self.outputs

    @property
    def positives(self) -> int:
        """Rows labelled 1."""
        return int((self.labels == 1).sum())

    @cached_property
    def mass(self) -> Floats:
        """Weights, 1 where there are none."""
        return np.ones(self.n) if self.weights is None else self.weights

    @cached_property
    def thresholds(self) -> Thresholds:
        """Distinct scores with what lies at each."""
        scores, place = np.unique(-self.scores, return_inverse=True)
        one, zero = (
            np.bincount(place, self.mass * (self.labels == label), scores.size).astype(np.float64) for label in (1, 0)
        )
        return Thresholds(-scores, place, one, zero)

    def unlabelled(self) -> str | None:
        """Why labels alone give nothing, or None."""
        if self.refusal:
            return self.refusal
        if not self.n:
            return "no rows"
        missing = int(np.isnan(self.labels).sum())
        return f"{missing} of {self.n} labels are null" if missing else None

    def incomplete(self) -> str | None:
        """Why labels and outputs give nothing, or None."""
        what = "scores" if self.target.task in ("binary", "ranking") else "outputs"
        missing, infinite = (self._lines(test(self.outputs)) for test in (np.isnan, np.isinf))
        return (
            self.unlabelled()
            or (f"{missing} of {self.n} {what} are null" if missing else None)
            or (f"{infinite} of {self.n} {what} are infinite" if infinite and self.target.task != "binary" else None)
        )

    def improper(self) -> str | None:
        """Why the outputs are not probabilities of known labels, or None."""
        outside = self._lines((self.outputs < 0) | (self.outputs > 1))
        why_not = self.incomplete() or (f"{outside} of {self.n} scores lie outside [0, 1]" if outside else None)
        if why_not or self.outputs.ndim == 1:
            return why_not
        if self.target.task == "survival":
            falls = int((np.diff(self.outputs, axis=1) < 0).any(axis=1).sum())
            return f"{falls} of {self.n} rows have a probability that falls with the horizon" if falls else None
        odd = int((np.abs(self.outputs.sum(axis=1) - 1) > _SUM).sum())
        return f"{odd} of {self.n} rows of probabilities do not add up to 1" if odd else None

    def _lines(self, flags: NDArray[np.bool_]) -> int:
        return int((flags if flags.ndim == 1 else flags.any(axis=1)).sum())

    def one_class(self) -> str | None:
        """Why ranking one class against the other gives nothing, or None."""
        positives = self.positives
        if 0 < positives < self.n:
            return None
        return f"all {self.n} rows are {'positive' if positives else 'negative'}"

    def matured(self) -> tuple[Rows, int]:
        """Rows whose label is known and whose weight is not 0, and how many labels are not known."""
        labelled = ~np.isnan(self.labels)
        pending = int((~labelled).sum())
        if self.weights is not None:
            labelled &= self.weights > 0
        return (self if labelled.all() else self.taken(labelled)), pending

    def taken(self, rows: NDArray[Any]) -> Rows:
        """Some of the rows, by flag or position."""
        weights, groups = (None if part is None else part[rows] for part in (self.weights, self.groups))
        return replace(self, labels=self.labels[rows], outputs=self.outputs[rows], weights=weights, groups=groups)

    def refused(self, reason: str) -> Rows:
        """Return the same rows, with a reason why nothing of them is evaluable."""
        return replace(self, refusal=reason)


def read_rows(
    labels: ArrayLike,
    outputs: ArrayLike,
    target: Target | None = None,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    k: float | None = None,
) -> Rows:
    """Read the columns of a task; None and NaN are null.

    Raises
    ------
    InputError
        If lengths or shapes differ, a label is none of the task, a weight is negative or null, or a column is not
        numeric.
    """
    target = target or Target()
    truth, predicted = read_floats(labels, "labels"), _read_outputs(outputs, target)
    if truth.size != len(predicted):
        raise InputError("there must be one score per label", where="evaluation", got=(truth.size, len(predicted)),
                         remedy="Pass columns of the same rows")  # fmt: skip
    rule, wrong = _odd_labels(truth, target)
    if wrong:
        raise InputError(rule, where="labels", got=f"{wrong} others of {truth.size}",
                         remedy="State the outcome as yes or no" if target.task == "binary" else
                         "Say of which task the labels are, and leave other rows out")  # fmt: skip
    mass = None if weights is None else _beside(read_floats(weights, "weights"), truth)
    if mass is not None and not (np.isfinite(mass) & (mass >= 0)).all():
        raise InputError("weights must be numbers of 0 or more", where="weights",
                         got=f"{int((~(mass >= 0)).sum())} others of {mass.size}",
                         remedy="Leave rows without a weight out")  # fmt: skip
    codes = None if groups is None else np.unique(_beside(np.asarray(groups), truth), return_inverse=True)[1]
    return Rows(truth, predicted, target, mass, codes, k)


def _beside(column: NDArray[Any], labels: Floats) -> NDArray[Any]:
    if column.shape != labels.shape:
        raise InputError("there must be one weight and one group per label", where="evaluation",
                         got=(labels.size, column.size), remedy="Pass columns of the same rows")  # fmt: skip
    return column


def _read_outputs(outputs: ArrayLike, target: Target) -> Floats:
    if target.task not in ("multiclass", "quantile", "survival"):
        return read_floats(outputs, "scores")
    array = np.asarray(outputs)
    array = array.reshape(-1, 1) if array.ndim == 1 and target.columns == 1 else array
    if array.ndim != 2 or array.shape[1] != target.columns or array.dtype.kind not in "biuf":
        raise InputError(f"outputs must be numbers of shape (rows, {target.columns})", where="evaluation",
                         got=f"{array.dtype} of shape {array.shape}",
                         remedy=f"Pass one column for each of {', '.join(target.outputs)}")  # fmt: skip
    return array.astype(np.float64, copy=False)


def _odd_labels(labels: Floats, target: Target) -> tuple[str, int]:
    """The rule of a task's labels, and how many break it; null is in order."""
    match target.task:
        case "binary":
            rule, good = "labels must be 0, 1 or null", (labels == 0) | (labels == 1)
        case "multiclass":
            last = len(target.classes) - 1
            rule = f"labels must be codes of the classes, 0 to {last}, or null"
            good = (labels >= 0) & (labels <= last) & (labels == np.floor(labels))
        case "survival":
            rule, good = "labels must be signed days other than 0, or null", (labels != 0) & np.isfinite(labels)
        case "count" | "ranking":
            rule, good = "labels must be numbers of 0 or more, or null", (labels >= 0) & np.isfinite(labels)
        case _:
            rule, good = "labels must be finite numbers or null", np.isfinite(labels)
    return rule, int((~np.isnan(labels) & ~good).sum())
