"""Balance the classes of training rows, and bring the probabilities of the model back to the true shares.

imbalanced-learn does the resampling (the extra ``balance``). What it does not do: keep weights, missing values and the
units of columns, say when not to use it, and undo what it does to the probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, MissingExtraError, check_known
from retrodict.estimators._operations import Matrix

__all__ = ["BALANCES", "BalanceReport", "PriorCorrection", "Resampled", "resample"]

Vector = NDArray[np.float64]

_SYNTHETIC = ("adasyn", "borderline_smote", "smote", "smote_tomek")
BALANCES = (*_SYNTHETIC, "class_weight", "over", "under")
_TINY, _WIDE = 50, 30  # rows of a class below which, and columns above which, synthetic rows are mostly noise


@dataclass(frozen=True, slots=True)
class BalanceReport:
    """What became of the classes.

    Attributes
    ----------
    how : str
    before, after : dict of float to int
        Rows per class.
    prior, trained : dict of float to float
        Share of the weight per class before and after: what :class:`PriorCorrection` needs.
    warnings : tuple of str
        Sentences for the report of the run.
    """

    how: str
    before: dict[float, int]
    after: dict[float, int]
    prior: dict[float, float]
    trained: dict[float, float]
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        shares = {name: {f"{label:g}": value for label, value in getattr(self, name).items()}
                  for name in ("before", "after", "prior", "trained")}  # fmt: skip
        return {"how": self.how, **shares, "warnings": list(self.warnings)}


class Resampled(NamedTuple):
    """Training rows after balancing; weights are None where all are alike."""

    matrix: Matrix
    labels: Vector
    weights: Vector | None
    report: BalanceReport


def resample(
    matrix: Matrix,
    labels: Vector,
    how: str | Mapping[float, float] = "class_weight",
    *,
    ratio: float = 1.0,
    seed: int = 0,
    neighbours: int = 5,
    categorical: Sequence[int] = (),
    weights: Vector | None = None,
) -> Resampled:
    """Balance training rows, and only them: validation and test rows keep the shares of life.

    Parameters
    ----------
    matrix : array of shape (n, columns), float64
        Training rows; NaN for missing.
    labels : array of shape (n,)
        Codes of the classes.
    how : str or mapping of float to float, default "class_weight"
        ``over`` (repeat rows of rare classes), ``under`` (leave out rows of frequent ones), ``smote``,
        ``borderline_smote``, ``adasyn``, ``smote_tomek`` (synthetic rows between neighbours of a rare class),
        ``class_weight`` (weights, no rows), or the weight of each class.
    ratio : float, default 1.0
        Rows of each rarer class, as a share of the most frequent one: 1 for 50 to 50, 3/7 for 70 to 30.
    seed : int, default 0
    neighbours : int, default 5
        Of synthetic rows.
    categorical : sequence of int, default ()
        Places of category codes: these are chosen among neighbours, never averaged (SMOTE-NC).
    weights : array of shape (n,), optional
        A repeated row has its weight again, a synthetic one the mean weight of its class.

    Returns
    -------
    Resampled
        ``(matrix, labels, weights, report)``; rows that stay are as they were, missing values too. Distances are
        between scaled columns, a missing number being its median and a difference of its own; a synthetic row misses
        what the nearer of its two parents misses, else a gap would tell the class.

    Raises
    ------
    InputError
        If there is one class only, a class is too small for its neighbours, or the method takes no categories.
    MissingExtraError
        If a method needs imbalanced-learn, and it is not installed.
    """
    matrix, labels = np.asarray(matrix, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    classes, counts = np.unique(labels, return_counts=True)
    if classes.size < 2 or not 0 < ratio <= 1:
        raise InputError("there must be two classes or more, and a ratio above 0 and up to 1", where="balance",
                         got=(classes.size, ratio), remedy="Leave balance out, or pass ratio=1.0")  # fmt: skip
    word = how if isinstance(how, str) else "class_weight"
    check_known(word, BALANCES, "a method must be one that exists", where="balance", what="method", error=InputError)
    shares = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    rows: _Rows
    if word == "class_weight":
        factors = _class_weights(how, classes, labels, shares, ratio)
        rows = _Rows(matrix, labels, shares * factors[np.searchsorted(classes, labels)])
    elif word in ("over", "under"):
        positions = _drawn(word, classes, counts, labels, ratio, seed)
        rows = _Rows(matrix[positions], labels[positions], shares[positions])
    else:
        rows = _synthetic(word, _Rows(matrix, labels, shares), _wanted_counts(classes, counts, ratio), seed, neighbours,
                          frozenset(categorical))  # fmt: skip
    report = BalanceReport(
        word, _counted(labels), _counted(rows.labels), _weighted(labels, shares), _weighted(rows.labels, rows.weights),
        tuple(_sentences(word, matrix.shape[1], counts)),
    )  # fmt: skip
    plain = weights is None and word != "class_weight"
    return Resampled(rows.matrix, rows.labels, None if plain else rows.weights, report)


@dataclass(frozen=True, slots=True)
class _Rows:
    matrix: Matrix
    labels: Vector
    weights: Vector


def _counted(labels: Vector) -> dict[float, int]:
    classes, counts = np.unique(labels, return_counts=True)
    return dict(zip(classes.tolist(), counts.tolist(), strict=True))


def _weighted(labels: Vector, weights: Vector) -> dict[float, float]:
    classes, inverse = np.unique(labels, return_inverse=True)
    totals = np.bincount(inverse, weights=weights)
    return dict(zip(classes.tolist(), (totals / totals.sum()).tolist(), strict=True))


def _class_weights(how: Any, classes: Vector, labels: Vector, shares: Vector, ratio: float) -> Vector:
    """Factor per class; by default a rarer class gets ``ratio`` times the weight of the most frequent one."""
    if isinstance(how, Mapping):
        factors = np.array([how.get(label, np.nan) for label in classes.tolist()], dtype=np.float64)
        if not (factors > 0).all():
            raise InputError("every class must have a weight above zero", where="balance", got=sorted(how),
                             remedy=f"Give weights for {classes.tolist()}")  # fmt: skip
        return factors
    totals = np.bincount(np.searchsorted(classes, labels), weights=shares)
    factors = np.maximum(ratio * totals.max() / totals, 1.0)
    # The sum of all weights stays, and with it what a penalty or a least weight of a leaf means.
    return np.asarray(factors * totals.sum() / (factors * totals).sum())


def _wanted_counts(classes: Vector, counts: NDArray[Any], ratio: float) -> dict[float, int]:
    """Rows per class after oversampling; only the classes that grow."""
    target = round(ratio * int(counts.max()))
    return {label: target for label, count in zip(classes.tolist(), counts.tolist(), strict=True) if count < target}


def _drawn(word: str, classes: Vector, counts: NDArray[Any], labels: Vector, ratio: float, seed: int) -> Any:
    """Positions of the rows that are repeated, or stay."""
    rng = np.random.default_rng(seed)
    positions = []
    limit = int(counts.min() / ratio)
    targets = _wanted_counts(classes, counts, ratio)
    for label in classes.tolist():
        rows = np.flatnonzero(labels == label)
        if word == "over":
            rows = np.concatenate((rows, rng.choice(rows, max(0, targets.get(label, 0) - rows.size))))
        elif rows.size > limit:
            rows = rng.choice(rows, limit, replace=False)
        positions.append(rows)
    return np.sort(np.concatenate(positions))


def _synthetic(
    word: str, rows: _Rows, targets: dict[float, int], seed: int, neighbours: int, categorical: frozenset[int]
) -> _Rows:
    if not targets:
        return rows
    try:
        from imblearn import over_sampling, under_sampling
    except ImportError as error:
        raise MissingExtraError("imbalanced-learn", "balance", needed_for="a balance by synthetic rows") from error
    if categorical and word != "smote":
        raise InputError("the method must know categories, which cannot be averaged", where="balance", got=word,
                         remedy="Take 'smote', or encode the categories in a step before")  # fmt: skip
    fewest = min(int((rows.labels == label).sum()) for label in targets)
    if fewest <= neighbours:
        raise InputError(f"a class that grows must have more than its {neighbours} neighbours", where="balance",
                         got=f"{fewest} rows",
                         remedy="Take 'class_weight', or an estimator of anomalies")  # fmt: skip
    places = sorted(categorical)
    dense, centres, scales = _dense(rows.matrix, places)
    width = rows.matrix.shape[1]
    gaps = [place for place in range(width) if place not in categorical and np.isnan(rows.matrix[:, place]).any()]
    dense = np.hstack((dense, np.isnan(rows.matrix[:, gaps]).astype(np.float64)))
    options: dict[str, Any] = {"sampling_strategy": targets, "random_state": seed}
    if word == "adasyn":
        sampler = over_sampling.ADASYN(n_neighbors=neighbours, **options)
    elif word == "borderline_smote":
        sampler = over_sampling.BorderlineSMOTE(k_neighbors=neighbours, **options)
    elif len(places) == width:
        sampler = over_sampling.SMOTEN(k_neighbors=neighbours, **options)
    elif places:
        sampler = over_sampling.SMOTENC(places, k_neighbors=neighbours, **options)
    else:
        sampler = over_sampling.SMOTE(k_neighbors=neighbours, **options)
    try:
        sampled, labels = sampler.fit_resample(dense, rows.labels)
    except ValueError as error:
        raise InputError(f"the rows must allow synthetic ones ({str(error).rstrip('.')})", where="balance", got=word,
                         remedy="Take 'class_weight'") from error  # fmt: skip
    count = len(rows.labels)
    new = sampled[count:, :width] * scales + centres
    new[:, places] = np.where(sampled[count:, places] < 0, np.nan, sampled[count:, places])
    new[:, gaps] = np.where(sampled[count:, width:] > 0.5, np.nan, new[:, gaps])
    means = {label: float(rows.weights[rows.labels == label].mean()) for label in targets}
    weights = np.concatenate((rows.weights, [means[label] for label in labels[count:].tolist()]))
    # The rows that were there come first, and stay as they were.
    output = _Rows(np.vstack((rows.matrix, new)), labels, weights)
    if word != "smote_tomek":
        return output
    cleaner = under_sampling.TomekLinks(sampling_strategy="all")
    cleaner.fit_resample(sampled, labels)
    rest = np.sort(cleaner.sample_indices_)
    return _Rows(output.matrix[rest], output.labels[rest], output.weights[rest])


def _dense(matrix: Matrix, places: list[int]) -> tuple[Matrix, Vector, Vector]:
    """Scaled numbers without gaps for distances, with centres and scales; a missing category is the code -1."""
    from retrodict.estimators.impute import Imputer
    from retrodict.estimators.shape import Scaler

    filled = Imputer("median", categorical=places, indicators=False).fit_transform(matrix)
    scaler = Scaler(categorical=places).fit(filled)
    affine = [getattr(operation, "scale", 1.0) for operation in scaler.operations_]
    centres = [getattr(operation, "centre", 0.0) for operation in scaler.operations_]
    dense = scaler.transform(filled)
    dense[:, places] = np.where(np.isnan(matrix[:, places]), -1.0, matrix[:, places])
    return dense, np.array(centres), np.array(affine)


def _sentences(word: str, width: int, counts: NDArray[Any]) -> list[str]:
    fewest, share = int(counts.min()), counts.min() / counts.sum()
    advice = (
        f"The rarest class has {share:.2%} of the training rows. If that is its share in life, a threshold by cost may "
        "do all that balancing does: compare with the recipe without it."
    )
    sentences = [advice]
    if fewest < _TINY:
        sentences.append(f"The rarest class has {fewest} rows, fewer than {_TINY}: detect anomalies "
                         "(isolation forest, one-class SVM) instead of learning the class.")  # fmt: skip
    if word in _SYNTHETIC and width > _WIDE:
        sentences.append(f"Synthetic rows are made between neighbours in {width} dimensions, where neighbours are "
                         "hardly nearer than others: select columns first, or take class weights.")  # fmt: skip
    return sentences


@dataclass(frozen=True)
class PriorCorrection:
    """Probabilities of a model trained on balanced rows, brought back to the shares of life.

    ``p'_k = p_k prior_k / trained_k``, scaled to the sum 1: Bayes' rule with another prior (Elkan 2001, IJCAI, theorem
    2; Saerens, Latinne and Decaestecker 2002, Neural Computation 14). Exact where the model is calibrated to the rows
    that it was trained on and balancing changed only how many rows a class has; synthetic rows change more than that.

    Parameters
    ----------
    prior, trained : tuple of float
        Share of each class in life and in the rows trained on, in the order of the classes; two for binary.

    Examples
    --------
    >>> correction = PriorCorrection((0.98, 0.02), (0.5, 0.5))
    >>> round(correction.apply_row(0.5), 12)
    0.02
    """

    prior: tuple[float, ...]
    trained: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that both are shares of the same classes."""
        for name in ("prior", "trained"):
            shares = tuple(float(share) for share in getattr(self, name))
            object.__setattr__(self, name, shares)
            if not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
                raise InputError("shares must be above zero and add up to 1", where=f"prior correction, {name}",
                                 got=shares, remedy="Take those of the report of resample")  # fmt: skip
        if len(self.prior) != len(self.trained) or len(self.prior) < 2:
            raise InputError("the shares must be of the same classes, two or more", where="prior correction",
                             got=(len(self.prior), len(self.trained)),
                             remedy="Take those of one report")  # fmt: skip

    @classmethod
    def of(cls, report: BalanceReport) -> PriorCorrection:
        """Correction for what ``resample`` did."""
        return cls(tuple(report.prior.values()), tuple(report.trained[label] for label in report.prior))

    @property
    def _factors(self) -> tuple[float, ...]:
        return tuple(prior / trained for prior, trained in zip(self.prior, self.trained, strict=True))

    def apply(self, scores: Vector) -> Vector:
        """Probabilities of shape (n,) of a yes, or (n, classes), corrected."""
        factors = self._factors
        if scores.ndim == 1:
            yes = scores * factors[1]
            return yes / (yes + (1.0 - scores) * factors[0])
        columns = [scores[:, place] * factor for place, factor in enumerate(factors)]
        total = sum(columns[1:], start=columns[0])
        return np.column_stack([column / total for column in columns])

    def apply_row(self, score: float | Sequence[float]) -> Any:
        """One row, the same bits as ``apply``: a float, or a tuple of one per class."""
        factors = self._factors
        if isinstance(score, float | int):
            yes = score * factors[1]
            return yes / (yes + (1.0 - score) * factors[0])
        values = [probability * factor for probability, factor in zip(score, factors, strict=True)]
        total = sum(values[1:], start=values[0])
        return tuple(value / total for value in values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"kind": "prior_correction", "prior": list(self.prior), "trained": list(self.trained)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> PriorCorrection:
        """Inverse of ``to_dict``."""
        return cls(tuple(body["prior"]), tuple(body["trained"]))
