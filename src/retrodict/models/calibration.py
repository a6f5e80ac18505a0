"""From scores to probabilities that come true: fitted on rows that the engine was not trained on, stored as JSON.

Interpolation is written out instead of taken from ``numpy.interp``: that one may overshoot the upper knot by a
rounding, which breaks monotony and the bound of 1, and costs more than the model for a single row.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.core.identity import canonical_json
from retrodict.core.tasks import Target
from retrodict.models._logistic import TINY, logit, logits, sigmoid, sigmoids

__all__ = [
    "Calibrator",
    "IsotonicCalibrator",
    "NoCalibrator",
    "OneVsRestCalibrator",
    "SigmoidCalibrator",
    "TemperatureCalibrator",
    "Unchanged",
    "fit_isotonic",
    "fit_none",
    "fit_one_vs_rest",
    "fit_sigmoid",
    "fit_temperature",
    "load_calibrator",
]

# Log-odds of scores that are 0 or 1 but for rounding.
_CERTAIN = 30.0


class Calibrator(Protocol):
    """A map from what an engine gives to what a model answers.

    Of yes and no it goes from scores in [0, 1] to probabilities in [0, 1] and never reverses an order.

    Promises: immutable, safe for threads, and equal bit for bit for a column and for each of its values.
    """

    def outputs(self, target: Target) -> tuple[str, ...]:
        """Names of what it gives; as a rule those of the target."""
        ...

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Answers, shape (n,) or (n, outputs)."""
        ...

    def apply_one(self, score: Any) -> Any:
        """Answer of one row: a number, or a tuple of several."""
        ...

    def to_json(self) -> bytes:
        """Canonical JSON that :func:`load_calibrator` reads."""
        ...


class _Stored:
    """Stored form of a calibrator that is a dataclass of plain numbers: JSON of its kind and fields."""

    __slots__ = ()

    kind: ClassVar[str]

    def outputs(self, target: Target) -> tuple[str, ...]:
        """Those of the target."""
        return target.outputs

    def to_json(self) -> bytes:
        """Canonical JSON that :func:`load_calibrator` reads."""
        return canonical_json({"kind": self.kind, **asdict(self)})  # type: ignore[call-overload]  # a dataclass


@dataclass(frozen=True, slots=True)
class Unchanged(_Stored):
    """Leaves values, and probabilities of several classes, exactly as they are."""

    kind: ClassVar[str] = "unchanged"

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the same."""
        return scores

    def apply_one(self, score: Any) -> Any:
        """Return the same."""
        return score


@dataclass(frozen=True, slots=True)
class NoCalibrator(_Stored):
    """Leaves scores as they are, but for those nearest to 0 and 1: no model is certain.

    Attributes
    ----------
    least : float, default 0.0
        A lower score is brought half of the way up to it, and one as near to 1 as far down: in order, and none at 0 or
        1. Several classes are then brought back to a sum of 1. Of one score 2**-52 is the least in any case.
    """

    kind: ClassVar[str] = "none"

    least: float = 0.0

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the same scores."""
        raised = np.where(scores < self.least, 0.5 * (self.least + scores), scores)
        if scores.ndim == 1:
            rest = 1.0 - scores
            lowered = np.where(rest < self.least, 1.0 - 0.5 * (self.least + rest), raised)
            return np.clip(lowered, TINY, 1.0 - TINY)
        outside = np.any(scores < self.least, axis=1, keepdims=True)
        result: NDArray[np.float64] = np.where(outside, raised / _total(raised)[:, None], scores)
        return result

    def apply_one(self, score: Any) -> Any:
        """Return the same score."""
        if isinstance(score, tuple | list):
            return tuple(self.apply(np.array([score], dtype=np.float64))[0].tolist())
        if score < self.least:
            score = 0.5 * (self.least + score)
        elif 1.0 - score < self.least:
            score = 1.0 - 0.5 * (self.least + (1.0 - score))
        return min(max(score, TINY), 1.0 - TINY)

    def to_json(self) -> bytes:
        """Canonical JSON; a least of 0 is not written."""
        return canonical_json({"kind": self.kind, **{name: value for name, value in asdict(self).items() if value}})


def _total(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of each row, column by column: one over an axis may add in another order for one row than for many."""
    total = columns[:, 0].copy()
    for column in columns.T[1:]:
        total += column
    return total


@dataclass(frozen=True, slots=True)
class SigmoidCalibrator(_Stored):
    """``1 / (1 + exp(-(slope * logit(score) + intercept)))``.

    Monotone up to the rounding of the exponential; scores and probabilities are held 2**-52 away from 0 and 1.

    Attributes
    ----------
    slope : float
        Zero or more; 1 with an intercept of 0 changes nothing.
    intercept : float
        Shift of the log-odds.
    limit : float, optional
        Greatest size of a score's log-odds: what is beyond counts as so much. None: there is none.
    """

    kind: ClassVar[str] = "sigmoid"

    slope: float
    intercept: float
    limit: float | None = None

    def __post_init__(self) -> None:
        """Refuse a map that turns the order round."""
        if not self.slope >= 0:
            raise InputError("the slope of a calibration must be zero or more", where="calibration", got=self.slope,
                             remedy="Fit it with fit_sigmoid")  # fmt: skip

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of scores, shape (n,)."""
        odds = logits(scores) if self.limit is None else np.clip(logits(scores), -self.limit, self.limit)
        return np.clip(sigmoids(odds * self.slope + self.intercept), TINY, 1.0 - TINY)

    def apply_one(self, score: float) -> float:
        """Probability of one score."""
        odds = logit(score) if self.limit is None else min(max(logit(score), -self.limit), self.limit)
        return min(max(sigmoid(odds * self.slope + self.intercept), TINY), 1.0 - TINY)

    def to_json(self) -> bytes:
        """Canonical JSON; a limit that is not there is not written."""
        return canonical_json({"kind": self.kind, **{k: v for k, v in asdict(self).items() if v is not None}})


@dataclass(frozen=True)
class IsotonicCalibrator(_Stored):
    """Straight lines between knots; level outside of them.

    Attributes
    ----------
    scores : tuple of float
        Places of the knots, strictly increasing.
    rates : tuple of float
        Their probabilities, never decreasing, in [0, 1].
    """

    kind: ClassVar[str] = "isotonic"

    scores: tuple[float, ...]
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the knots, and prepare the slopes."""
        x, y = np.array(self.scores), np.array(self.rates)
        if not len(x) or x.shape != y.shape:
            raise InputError("a calibration must have one rate per knot, and at least one knot", where="calibration",
                             got=(len(x), len(y)), remedy="Fit it with fit_isotonic")  # fmt: skip
        if not (np.all(np.diff(x) > 0) and np.all(np.diff(y) >= 0) and y[0] >= 0 and y[-1] <= 1):
            raise InputError("knots must increase and rates never fall, from 0 to 1", where="calibration",
                             got=f"{len(x)} knots", remedy="Fit it with fit_isotonic")  # fmt: skip
        with np.errstate(over="ignore"):  # knots that nearly touch: an infinite slope is held by the upper knot
            slopes = np.diff(y) / np.diff(x)
        object.__setattr__(self, "_columns", (x, y, np.append(slopes, 0.0), np.append(y[1:], y[-1])))
        object.__setattr__(self, "_slopes", (*slopes.tolist(), 0.0))

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of scores, shape (n,)."""
        x, y, slopes, uppers = self._columns  # type: ignore[attr-defined]  # set in __post_init__ of a frozen class
        at = np.maximum(np.searchsorted(x, scores, side="right") - 1, 0)
        steps = np.maximum(scores - x[at], 0.0)
        with np.errstate(invalid="ignore"):
            lines = np.where(steps > 0.0, slopes[at] * steps, 0.0)
        rates: NDArray[np.float64] = np.minimum(y[at] + lines, uppers[at])
        return rates

    def apply_one(self, score: float) -> float:
        """Probability of one score."""
        at = bisect_right(self.scores, score) - 1
        if at < 0:
            return self.rates[0]
        if at == len(self.scores) - 1:
            return self.rates[-1]
        step = score - self.scores[at]
        line = self._slopes[at] * step if step > 0.0 else 0.0  # type: ignore[attr-defined]  # as above
        rate: float = min(self.rates[at] + line, self.rates[at + 1])
        return rate


@dataclass(frozen=True, slots=True)
class TemperatureCalibrator(_Stored):
    """Probabilities of several classes to the power of ``1 / temperature``, brought back to a sum of 1.

    Never changes which class is the most probable (Guo et al. 2017, On calibration of modern neural networks, 4.2).

    Attributes
    ----------
    temperature : float
        Above 0; 1 changes nothing, more makes a model less sure.
    least : float, default 0.0
        Share of an answer that every class gets alike, so the lowest probability there is.
    """

    kind: ClassVar[str] = "temperature"

    temperature: float
    least: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a map that turns the order round."""
        if not 0 < self.temperature < np.inf:
            raise InputError("a temperature must be above 0", where="calibration", got=self.temperature,
                             remedy="Fit it with fit_temperature")  # fmt: skip

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities, shape (n, classes)."""
        powers = np.exp(np.log(np.clip(scores, TINY, 1.0)) / self.temperature)
        result: NDArray[np.float64] = powers / _total(powers)[:, None]
        return self.least + (1.0 - self.least * scores.shape[1]) * result if self.least else result

    def apply_one(self, score: Any) -> Any:
        """Probabilities of one row, a tuple."""
        return tuple(self.apply(np.array([score], dtype=np.float64))[0].tolist())

    def to_json(self) -> bytes:
        """Canonical JSON; a share of nothing is not written."""
        return canonical_json({"kind": self.kind, **{name: value for name, value in asdict(self).items() if value}})


@dataclass(frozen=True, slots=True)
class OneVsRestCalibrator(_Stored):
    """Each class calibrated against all others, then brought back to a sum of 1.

    Zadrozny and Elkan 2002, Transforming classifier scores into accurate multiclass probability estimates, section 5.

    Attributes
    ----------
    classes : tuple of Calibrator
        Of a yes or no, one for each class; each answers above 0.
    """

    kind: ClassVar[str] = "one_vs_rest"

    classes: tuple[Calibrator, ...]

    def to_json(self) -> bytes:
        """Canonical JSON that :func:`load_calibrator` reads."""
        return canonical_json({"kind": self.kind, "classes": [json.loads(part.to_json()) for part in self.classes]})

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities, shape (n, classes)."""
        rates = np.stack([part.apply(column) for part, column in zip(self.classes, scores.T, strict=True)], axis=1)
        result: NDArray[np.float64] = rates / _total(rates)[:, None]
        return result

    def apply_one(self, score: Any) -> Any:
        """Probabilities of one row, a tuple."""
        return tuple(self.apply(np.array([score], dtype=np.float64))[0].tolist())


_CALIBRATORS: dict[str, Callable[..., Calibrator]] = {
    calibrator.kind: calibrator
    for calibrator in (Unchanged, NoCalibrator, SigmoidCalibrator, IsotonicCalibrator, TemperatureCalibrator)
}


def load_calibrator(data: bytes) -> Calibrator:
    """Read what ``to_json`` of a calibrator wrote."""
    fields = json.loads(data)
    rule = "a calibration must be of a kind that exists"
    if fields["kind"] == "spanned":
        from retrodict.models.spans import SpannedCalibrator

        return SpannedCalibrator.from_fields(**{name: value for name, value in fields.items() if name != "kind"})
    if fields["kind"] == OneVsRestCalibrator.kind:
        return OneVsRestCalibrator(tuple(load_calibrator(canonical_json(part)) for part in fields["classes"]))
    kind = check_known(fields.pop("kind"), _CALIBRATORS, rule, where="model", what="calibration")
    return _CALIBRATORS[kind](
        **{name: tuple(part) if isinstance(part, list) else part for name, part in fields.items()}
    )


def _check(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> None:
    if not len(scores) or len(scores) != len(labels):
        raise InputError("calibration must have rows, and one label per score", where="calibration",
                         got=(len(scores), len(labels)), remedy="Keep rows aside for it")  # fmt: skip
    if not (np.isin(labels, (0, 1)).all() and (scores >= 0).all() and (scores <= 1).all()):
        raise InputError("scores must be in [0, 1] and labels 0 or 1", where="calibration", got=f"{len(scores)} rows",
                         remedy="Leave out rows whose outcome is not known yet")  # fmt: skip


def _targets(labels: NDArray[np.float64]) -> tuple[float, float]:
    """Platt's smoothed targets of a 0 and of a 1."""
    positives = float(labels.sum())
    return 1 / (len(labels) - positives + 2), (positives + 1) / (positives + 2)


def fit_isotonic(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> IsotonicCalibrator:
    """Isotonic regression of labels on scores (pool adjacent violators, by scikit-learn).

    The outermost steps often hold one outcome only. Rates are held where Platt puts the targets of his sigmoid,
    ``1 / (negatives + 2)`` and ``(positives + 1) / (positives + 2)``: so many rows allow no more certainty.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Scores of rows that the engine was not trained on.
    labels : ndarray of shape (n,)
        0 or 1.
    """
    from sklearn.isotonic import IsotonicRegression

    _check(scores, labels)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, labels.astype(np.float64))
    # Cumulated rounding may leave a rate a last bit below its left neighbour.
    rates = np.maximum.accumulate(np.clip(fitted.y_thresholds_, *_targets(labels)))
    return IsotonicCalibrator(tuple(fitted.X_thresholds_.tolist()), tuple(rates.tolist()))


def fit_sigmoid(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> SigmoidCalibrator:
    """Platt's sigmoid on the log-odds of the scores, with his smoothed targets.

    Targets are ``(positives + 1) / (positives + 2)`` and ``1 / (negatives + 2)`` (Platt 1999, Probabilistic outputs for
    support vector machines, section 2.2). Scores that fall where the outcome rises get a slope of 0: the base rate.
    Scores of 0 and 1, as leaves of one class give, have no log-odds: they count as much as tells these rows best, more
    than the greatest of the others and at most the ``log(n + 1)`` that n rows can show.
    """
    from threadpoolctl import threadpool_limits

    _check(scores, labels)
    least, greatest = _targets(labels)
    target = np.where(labels == 1, greatest, least)
    # A soft target is the row counted twice, once with each label.
    odds = logits(scores)
    certain = np.abs(odds) >= _CERTAIN
    limits: list[float | None] = [None]
    if certain.any():
        rest = float(np.abs(odds[~certain]).max(initial=0.0))
        limits = [float(limit) for limit in np.linspace(rest, max(rest, math.log(len(scores) + 1)), 13)[1:]]
    with threadpool_limits(limits=1):
        fits = [
            (limit, *_fit_line(odds if limit is None else np.clip(odds, -limit, limit), target)) for limit in limits
        ]
    limit, slope, intercept, _ = min(fits, key=lambda fit: fit[-1])
    if slope <= 0:
        slope, intercept = 0.0, logit(float(target.mean()))
    return SigmoidCalibrator(slope, intercept, limit)


def _fit_line(odds: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[float, float, float]:
    """Slope and intercept of the log-odds of soft targets, and their mean log loss."""
    from sklearn.linear_model import LogisticRegression

    # A soft target is the row counted twice, once with each label.
    sides, weights = np.repeat([1, 0], len(odds)), np.concatenate([target, 1 - target])
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(
        np.tile(odds, 2)[:, None], sides, sample_weight=weights
    )
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    margins = slope * odds + intercept
    loss = np.logaddexp(0.0, -margins) * target + np.logaddexp(0.0, margins) * (1 - target)
    return slope, intercept, float(loss.mean())


def fit_none(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> NoCalibrator:
    """Scores as they are, but for those that are nearer to 0 or 1 than n rows can show.

    Of n rows that is ``1 / (n + classes)``. Where scores of these rows are nearer without being certain, as those of
    rare events and of many training rows are, it is the nearest of them.
    """
    inside = np.minimum(scores, 1.0 - scores)
    sure = inside[inside > sigmoid(-_CERTAIN)]
    classes = 2 if scores.ndim == 1 else scores.shape[1]
    return NoCalibrator(float(min(sure.min(initial=1.0), 1.0 / (len(labels) + classes))))


def fit_temperature(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> TemperatureCalibrator:
    """Temperature of the least log loss, between 1/20 and 20, by smoothed targets as Platt's sigmoid has them.

    The target of a row is ``(m + 1) / (m + classes)`` for its class, of which there are m rows, and ``1 / (m +
    classes)`` for each other one: without, rows that the scores tell apart would ask for certainty. No probability is
    below ``1 / (n + classes)``: n rows can show no less.

    Parameters
    ----------
    scores : ndarray of shape (n, classes)
        Probabilities of rows that the engine was not trained on.
    labels : ndarray of shape (n,)
        Codes of the classes.
    """
    from scipy.optimize import minimize_scalar

    if not len(scores) or len(scores) != len(labels):
        raise InputError("calibration must have rows, and one label per score", where="calibration",
                         got=(len(scores), len(labels)), remedy="Keep rows aside for it")  # fmt: skip
    (count, classes), codes = scores.shape, labels.astype(np.int64)
    sizes = np.bincount(codes, minlength=classes)[codes, None]
    targets = (1.0 + sizes * (np.arange(classes) == codes[:, None])) / (sizes + classes)

    def loss(log_temperature: float) -> float:
        probabilities = TemperatureCalibrator(float(np.exp(log_temperature))).apply(scores)
        return float(-(targets * np.log(np.maximum(probabilities, TINY))).sum(axis=1).mean())

    best = minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded", options={"xatol": 1e-8})
    return TemperatureCalibrator(float(np.exp(best.x)), 1.0 / (count + classes))


def fit_one_vs_rest(
    fit: Callable[[NDArray[np.float64], NDArray[np.float64]], Calibrator],
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
) -> OneVsRestCalibrator:
    """Fit a calibration of a yes or no to each class against the rest.

    Parameters
    ----------
    fit : callable
        ``fit_sigmoid`` or ``fit_isotonic``.
    scores : ndarray of shape (n, classes)
        Probabilities of rows that the engine was not trained on.
    labels : ndarray of shape (n,)
        Codes of the classes.
    """
    columns = np.clip(scores, 0.0, 1.0).T  # a sum over classes may round to more than 1
    return OneVsRestCalibrator(tuple(fit(column, (labels == at) * 1.0) for at, column in enumerate(columns)))
