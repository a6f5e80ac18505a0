"""Linear models of every task: one sum of terms per output, and a link from sums to outputs.

The sums are those of :class:`~retrodict.models.engines.linear.LinearEngine`, feature by feature in a fixed order, so
that one row is a batch bit for bit. Yes or no without L1 stays what it was, a LinearEngine of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.models._logistic import sigmoid, softmax
from retrodict.models.engines._losses import check_two_classes, training_sample
from retrodict.models.engines.base import Engine, JsonEngine
from retrodict.models.engines.linear import (
    LinearEngine,
    design_category,
    design_number,
    fit_logistic,
    fold_weights,
    join_design,
    start_weights,
    takes_dense,
)
from retrodict.models.problem import Fitted, Problem

__all__ = ["GeneralisedEngine", "solve_linear"]

Link = Literal["exponential", "hazard", "identity", "logistic", "softmax"]


def _exponential(value: float) -> float:
    return math.exp(min(value, 700.0))


def _by_hazard(value: float) -> float:
    return -math.expm1(-_exponential(value))


_SCALAR = {"exponential": _exponential, "hazard": _by_hazard, "logistic": sigmoid}


@dataclass(frozen=True, slots=True)
class GeneralisedEngine(JsonEngine):
    """Sums through a link.

    Attributes
    ----------
    task : Target
        What the outputs are; read it as ``target``.
    link : {"exponential", "hazard", "identity", "logistic", "softmax"}
        ``hazard``: the sums are logarithms of cumulative hazards, the outputs probabilities of an event.
    sums : tuple of LinearEngine
        One per output.
    """

    kind: ClassVar[str] = "generalised"

    task: Target
    link: Link
    sums: tuple[LinearEngine, ...]

    @property
    def target(self) -> Target:
        """What the outputs are."""
        return self.task

    @property
    def width(self) -> int:
        """Number of features."""
        return self.sums[0].width

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums, shape (n,) or (n, outputs)."""
        columns = [line.margins(matrix) for line in self.sums]
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)

    def margin(self, row: NDArray[np.float64]) -> Any:
        """Sums of one row."""
        values = tuple(line.margin(row) for line in self.sums)
        return values[0] if len(values) == 1 else values

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs, shape (n,) or (n, outputs)."""
        margins = self.margins(matrix)
        match self.link:
            case "identity":
                return margins
            case "softmax":
                return np.array([softmax(line) for line in margins.tolist()]).reshape(margins.shape)
        plain = np.fromiter(map(_SCALAR[self.link], margins.ravel().tolist()), np.float64, margins.size)
        return plain.reshape(margins.shape)

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of one row."""
        margin = self.margin(row)
        match self.link:
            case "identity":
                return margin
            case "softmax":
                return tuple(softmax(list(margin)))
        scalar = _SCALAR[self.link]
        return tuple(map(scalar, margin)) if isinstance(margin, tuple) else scalar(margin)

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each term in each sum, then the intercept; see :meth:`LinearEngine.contributions`."""
        shares = [line.contributions(row) for line in self.sums]
        return shares[0] if len(shares) == 1 else np.stack(shares)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Engine from its fields as JSON has them."""
        sums = tuple(LinearEngine.from_fields(line) for line in fields["sums"])
        return cls(Target.from_dict(fields["task"]), fields["link"], sums)


def solve_linear(problem: Problem) -> Fitted[Engine]:
    """Logistic, linear or Poisson regression with L2, L1 or both, by the task.

    Numbers are standardised, with the mean for what is missing; a category has one weight per value, and one for
    missing where training rows hold any.

    ``penalty`` weighs the coefficients against the summed loss (half the squared error of labels divided by their
    standard deviation): ``(1 - l1_ratio) / 2 * squares + l1_ratio * absolutes`` (Zou and Hastie 2005). The number of
    coefficients that L1 made zero is in the notes.
    """
    train, params = problem.train, problem.params
    task, ratio, penalty = train.target.task, float(params["l1_ratio"]), float(params["penalty"])
    check_two_classes(train, "logistic regression")
    if task == "count" and ratio:
        raise InputError("a Poisson regression must have no L1 penalty", where="linear", got={"l1_ratio": ratio},
                         remedy="Leave l1_ratio out")  # fmt: skip
    notes = _path(problem) if params["path"] else {}
    start: Any = () if problem.start is None else getattr(problem.start.engine, "sums", (problem.start.engine,))
    if task == "binary" and not ratio:
        fitted = fit_logistic(train, problem.inputs.categorical, penalty=penalty, start=start,
                              max_iterations=params["max_iterations"])  # fmt: skip
        return replace(fitted, notes=notes)
    from threadpoolctl import threadpool_limits

    categorical = set(problem.inputs.categorical)
    columns = [
        design_category(train.matrix[:, at]) if at in categorical else design_number(train.matrix[:, at])
        for at in range(train.width)
    ]
    design = join_design([block for block, _ in columns])
    dense = takes_dense(design.shape)
    labels, centre, unit = train.labels.astype(np.float64), 0.0, 1.0
    if task == "regression":
        centre, unit = float(labels.mean()), float(labels.std()) or 1.0
        labels = (labels - centre) / unit
    model = _model(task, ratio, penalty, len(labels), dense, problem.seed, params["max_iterations"])
    if start and "warm_start" not in model.get_params():
        raise InputError("a fit that goes on must be of several steps", where="linear, start_from",
                         got="least squares, solved in one", remedy="Leave start_from out")  # fmt: skip
    if start:
        weights, intercepts = start_weights(start, columns)
        weights, intercepts = weights / unit, (intercepts - centre) / unit
        several = task in {"binary", "multiclass"}
        model.set_params(warm_start=True)
        model.coef_, model.intercept_ = (weights, intercepts) if several else (weights[0], float(intercepts[0]))
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence is reported in the parameters
        model.fit(design.toarray() if dense else design, labels, sample_weight=train.weights)
    weights = np.atleast_2d(model.coef_) * unit
    intercepts = np.broadcast_to(np.ravel(model.intercept_) * unit + centre, (len(weights),)).tolist()
    lines = [fold_weights(line, value, columns) for line, value in zip(weights, intercepts, strict=True)]
    link: Link = {"binary": "logistic", "multiclass": "softmax", "count": "exponential"}.get(task, "identity")  # type: ignore[assignment]
    if task == "multiclass":
        lines = _all_classes(lines, model.classes_, train.target, train.width)
    counted = getattr(model, "n_iter_", None)
    iterations = 0 if counted is None else int(np.max(counted))
    facts = {**params, "solver": getattr(model, "solver", "coordinate descent"), "threads": 1, "iterations": iterations,
             "converged": iterations < params["max_iterations"]}  # fmt: skip
    notes |= {"coefficients": weights.size, "zeroed_coefficients": int((weights == 0.0).sum())}
    return Fitted(GeneralisedEngine(train.target, link, tuple(lines)), facts, {}, notes)


def _path(problem: Problem) -> dict[str, Any]:
    """Coefficients along the strengths of the penalty, of at most 20,000 training rows; the 40 largest are named.

    Strengths are per row, as of :func:`~retrodict.estimators.regularisation.regularisation_path`: the penalty over the
    number of rows.
    """
    from retrodict.estimators.regularisation import regularisation_path

    params, rows = problem.params, training_sample(problem.train)
    blocks, names = [], []
    for at, feature in enumerate(problem.inputs.features):
        if feature.type == "category":
            block, term = design_category(rows.matrix[:, at])
            words = [*feature.vocabulary[: len(term.weights)], "missing"][: block.shape[1]]
            names += [f"{feature.name}={word}" for word in words]
        else:
            block, _ = design_number(rows.matrix[:, at])
            names.append(feature.name)
        blocks.append(block)
    design = join_design(blocks)
    if not takes_dense(design.shape) or rows.target.task == "count":
        raise InputError("a path must be of numbers or classes, and of a design that fits in memory", where="path",
                         got=(rows.target.task, *design.shape), remedy="Leave path out of the params")  # fmt: skip
    numeric, ratio = rows.target.task == "regression", float(params["l1_ratio"])
    labels = (rows.labels - rows.labels.mean()) / (rows.labels.std() or 1.0) if numeric else rows.labels
    kind = {0.0: "l2", 1.0: "l1"}.get(ratio, "elastic_net")
    path = regularisation_path(design.toarray(), labels, penalty=kind, mix=ratio if 0 < ratio < 1 else 0.5,
                               task="regression" if numeric else "classification", splitter=None,
                               seed=problem.seed)  # fmt: skip
    lines: dict[str, list[tuple[float, float]]] = {}
    codes = np.unique(rows.labels).astype(int).tolist()
    for point in path.points:
        for row, line in enumerate(point.coefficients):
            label = f" ({rows.target.classes[codes[row]]})" if len(point.coefficients) > 1 else ""
            for name, value in zip(names, line, strict=True):
                lines.setdefault(name + label, []).append((point.strength, value))
    largest = sorted(lines, key=lambda name: -max(abs(value) for _, value in lines[name]))[:40]
    return {"path": {
        "penalty": kind, "strength": float(params["penalty"]) / len(problem.train.labels) or None,
        "coefficients": {name: lines[name] for name in largest}, "left_out": len(lines) - len(largest),
        "zeroed": [(point.strength, point.zeroed) for point in path.points],
    }}  # fmt: skip


def _model(task: str, ratio: float, penalty: float, rows: int, dense: bool, seed: int, steps: int) -> Any:
    """Unfitted estimator of scikit-learn, its penalty in the terms of its own loss."""
    from sklearn import linear_model

    if task in {"binary", "multiclass"}:
        solver = "saga" if ratio else "lbfgs"
        return linear_model.LogisticRegression(
            C=1.0 / penalty if penalty else np.inf, l1_ratio=ratio, solver=solver, max_iter=steps, random_state=seed,
            tol=1e-4 if ratio else 1e-6,
        )  # fmt: skip
    if task == "count":
        return linear_model.PoissonRegressor(alpha=penalty / rows, solver="newton-cholesky" if dense else "lbfgs",
                                             max_iter=steps, tol=1e-8)  # fmt: skip
    if ratio:
        return linear_model.ElasticNet(alpha=penalty / rows, l1_ratio=ratio, max_iter=steps, tol=1e-6)
    # A hair of penalty keeps the sums of one-hot columns, which add up to the intercept, apart from it.
    return linear_model.Ridge(alpha=max(penalty, 1e-6), solver="cholesky" if dense else "sparse_cg", max_iter=steps,
                              tol=1e-8)  # fmt: skip


def _all_classes(lines: list[LinearEngine], codes: Any, target: Target, width: int) -> list[LinearEngine]:
    """One sum per class of the target; a class that the training rows lacked has the log-odds of nothing."""
    if len(codes) == 2 and len(lines) == 1:
        raise InputError("the training rows must hold three classes or more", where="logistic regression", got=2,
                         remedy="Make the label a yes or no, or train on a longer span")  # fmt: skip
    from retrodict.models.engines.linear import NumberTerm

    never = LinearEngine(-700.0, (NumberTerm(0.0, 1.0, 0.0),) * width)
    by_code = dict(zip(codes.astype(int).tolist(), lines, strict=True))
    return [by_code.get(code, never) for code in range(len(target.classes))]
