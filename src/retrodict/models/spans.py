"""Answers with a span that is to hold the outcome: an interval of a number, a set of classes.

By split conformal prediction (Vovk, Gammerman & Shafer 2005; Lei et al. 2018; Romano, Patterson & Candès 2019 for
quantiles; Sadinle, Lei & Wasserman 2019 for classes): a radius learned on rows that nothing else was fitted on, added
to what the model answers. Over rows like those, the span holds the outcome at least as often as was asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.identity import canonical_json
from retrodict.core.tasks import Target, Task
from retrodict.evaluation.conformal import fit_cqr, fit_lac, fit_residuals, rows_needed
from retrodict.evaluation.estimates import Metric, mean, share
from retrodict.models.calibration import Calibrator, load_calibrator

__all__ = ["SpannedCalibrator", "fit_spans", "judge_spans"]


@dataclass(frozen=True, slots=True)
class SpannedCalibrator:
    """A calibrator, and beside its answers ``low`` and ``high``, or for each class whether it is in the set.

    Attributes
    ----------
    inner : Calibrator
    task : Task
    radius : float
        Of a number: how far the interval reaches to either side of the value, or of the outer quantiles. Of classes:
        the smallest probability of a class in the set.
    level : float
        Share of the outcomes that was asked for.
    """

    kind: ClassVar[str] = "spanned"

    inner: Calibrator
    task: Task
    radius: float
    level: float

    def __post_init__(self) -> None:
        """Refuse a radius that is none."""
        if not np.isfinite(self.radius):
            raise InputError("the radius of a span must be finite", where="calibration", got=self.radius,
                             remedy="Fit it on more rows")  # fmt: skip

    def outputs(self, target: Target) -> tuple[str, ...]:
        """Those of the inner one, then those of the span."""
        return (*self.inner.outputs(target), *target.spans)

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Answers and spans, shape (n, outputs)."""
        answers = self.inner.apply(scores)
        answers = answers if answers.ndim == 2 else answers[:, None]
        return np.hstack([answers, self._spans(answers)])

    def apply_one(self, score: Any) -> tuple[float, ...]:
        """Answer and span of one row."""
        answers = self.inner.apply_one(score)
        row = np.array([answers if isinstance(answers, tuple) else (answers,)], dtype=np.float64)
        return (*row[0].tolist(), *self._spans(row)[0].tolist())

    def _spans(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.task == "multiclass":
            inside = answers >= self.radius
            inside[np.arange(len(answers)), answers.argmax(axis=1)] = True  # a set without a class would say nothing
            return inside.astype(np.float64)
        low, high = answers[:, 0] - self.radius, answers[:, -1] + self.radius
        if self.task == "count":
            low = np.maximum(low, 0.0)
        # A radius below zero, of quantiles that reach too far, must not turn the ends round.
        return np.column_stack([np.minimum(low, high), np.maximum(low, high)])

    def to_json(self) -> bytes:
        """Canonical JSON that ``load_calibrator`` reads."""
        inner = json.loads(self.inner.to_json())
        return canonical_json({"kind": self.kind, "inner": inner, "task": self.task, "radius": self.radius,
                               "level": self.level})  # fmt: skip

    @classmethod
    def from_fields(cls, *, inner: dict[str, Any], **fields: Any) -> SpannedCalibrator:
        """Inverse of :meth:`to_json`."""
        return cls(load_calibrator(canonical_json(inner)), **fields)


def fit_spans(
    inner: Calibrator, target: Target, scores: NDArray[np.float64], labels: NDArray[np.float64], level: float
) -> SpannedCalibrator:
    """Learn how far spans must reach to hold a share of the outcomes.

    By :mod:`retrodict.evaluation.conformal`: absolute residuals of a number, how far an outcome lies outside the outer
    quantiles, or one less the probability of its class.

    Parameters
    ----------
    inner : Calibrator
    target : Target
        Of a task with spans.
    scores : ndarray of shape (n,) or (n, outputs)
        What the engine gives for rows that it was not fitted on.
    labels : ndarray of shape (n,)
    level : float
        Share of the outcomes to hold, above 0 and below 1.

    Raises
    ------
    InputError
        If the task has no spans, or the rows are too few for the level: ``n >= level / (1 - level)``.
    """
    if not target.spans:
        raise InputError("an interval must be of numbers or of several classes", where="Recipe, interval",
                         got=target.task, remedy="Leave interval out")  # fmt: skip
    answers = inner.apply(scores)
    if target.task == "multiclass":
        fitted = fit_lac(labels, answers, target, level)
    elif target.columns > 1:
        fitted = fit_cqr(labels, answers, target, level)
    else:
        fitted = fit_residuals(labels, answers, level)
    if fitted.threshold is None:
        raise InputError(f"an interval of {level:g} must be learned from at least {rows_needed(level)} rows",
                         where="Recipe, interval", got=fitted.reason,
                         remedy="Give the split a longer part to validate on")  # fmt: skip
    radius = 1.0 - fitted.threshold if target.task == "multiclass" else fitted.threshold
    return SpannedCalibrator(inner, target.task, radius, level)


def judge_spans(target: Target, answers: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[Metric, Metric]:
    """How often spans held the outcome, and how wide they are: ``span_coverage``, ``span_width``.

    Parameters
    ----------
    target : Target
    answers : ndarray of shape (n, outputs)
        As :class:`SpannedCalibrator` gives them.
    labels : ndarray of shape (n,)

    Returns
    -------
    tuple of Metric
        Share of the rows with Wilson's interval; mean distance of the ends, or mean number of classes in a set.
    """
    spans = answers[:, target.columns :]
    if target.task == "multiclass":
        inside = spans[np.arange(len(spans)), labels.astype(np.intp)] == 1.0
        width = spans.sum(axis=1)
    else:
        inside, width = (spans[:, 0] <= labels) & (labels <= spans[:, 1]), spans[:, 1] - spans[:, 0]
    rows = len(labels)
    return share("span_coverage", int(inside.sum()), rows, "no rows"), Metric.of("span_width", rows, *mean(width))
