"""Proportional hazards (Cox 1972): the partial likelihood solved by Newton steps, in NumPy, to plain numbers.

The risk of an event by a horizon is ``1 - exp(-exp(log H(horizon) + sum of terms))``, H being the cumulative baseline
hazard: one sum per horizon whose terms are the same and whose intercepts ascend, so that no probability falls with the
horizon. Rejected: scikit-survival (GPL), and to store the whole baseline, of which only the horizons are ever asked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics.survival import step_at
from retrodict.models.engines.generalised import GeneralisedEngine
from retrodict.models.engines.linear import (
    NumberTerm,
    design_category,
    design_number,
    fold_weights,
    join_design,
    takes_dense,
)
from retrodict.models.problem import Examples, Fitted, Problem

__all__ = ["check_events", "solve_cox"]

Floats = NDArray[np.float64]

_TOLERANCE, _HALVINGS, _ASCENTS = 1e-9, 30, 100
_NEVER, _ALWAYS = -700.0, 700.0  # logarithms of a hazard of nothing, and of one that nobody outlives


def check_events(train: Examples, where: str) -> None:
    """Refuse training rows in which no event is seen."""
    if not (train.labels > 0).any():
        raise InputError("the training rows must hold an event", where=where, got=f"{len(train.labels)} rows without",
                         remedy="Train on a longer span, or correct the label")  # fmt: skip


class _Partial:
    """Partial likelihood of rows.

    Ties by Efron (1977): of d events at a time the l-th is at risk with the others and with ``1 - l / d`` of those
    tied. Weighted events count the mean weight of those tied.
    """

    def __init__(self, design: Floats, labels: Floats, weights: Floats, penalty: float) -> None:
        self.penalty = penalty
        order = np.argsort(-np.abs(labels), kind="stable")  # the longest first: risk sets are sums from the start
        self._x, self._y, self._w = design[order], labels[order], weights[order]
        self._events = np.flatnonzero((self._y > 0) & (self._w > 0))
        self._times, group, sizes = np.unique(self._y[self._events], return_inverse=True, return_counts=True)
        ranks = np.empty(len(group), dtype=np.int64)
        ranks[np.argsort(group, kind="stable")] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self._group, self._tied = group, ranks / sizes[group]
        self._mean = (np.bincount(group, self._w[self._events]) / sizes)[group]
        # At risk at the time of an event are so many of the sorted rows.
        self._ends = np.searchsorted(-np.abs(self._y), -self._times, side="right")

    def of(self, beta: Floats, *, slopes: bool = True) -> tuple[float, Floats, Floats]:
        """Penalised log likelihood, and its gradient and information where they are wanted."""
        eta = self._x @ beta
        top = float(eta.max(initial=0.0))
        theta = self._w * np.exp(eta - top)
        tied_theta = np.bincount(self._group, theta[self._events])
        risk = np.cumsum(theta)[self._ends - 1]
        risks = risk[self._group] - self._tied * tied_theta[self._group]
        value = float(self._w[self._events] @ eta[self._events]) - float(self._mean @ (np.log(risks) + top))
        value -= 0.5 * self.penalty * float(beta @ beta)
        if not slopes:
            return value, beta, np.empty((0, 0))
        rates = self._mean / risks
        # Hazard that each row was under: of all times up to its own, less its part of the ties at its own.
        steps = np.bincount(self._group, rates)
        hazard = step_at(self._times, np.cumsum(steps), np.abs(self._y), start=0.0)
        shared = np.zeros(len(theta))
        shared[self._events] = np.bincount(self._group, rates * self._tied)[self._group]
        expected = theta * (hazard - shared)
        seen = np.zeros(len(theta))
        seen[self._events] = self._w[self._events]
        gradient = self._x.T @ (seen - expected) - self.penalty * beta
        first = np.cumsum(theta[:, None] * self._x, axis=0)[self._ends - 1]
        tied_first = np.zeros_like(first)
        np.add.at(tied_first, self._group, theta[self._events, None] * self._x[self._events])
        centres = (first[self._group] - self._tied[:, None] * tied_first[self._group]) / risks[:, None]
        information = (self._x * expected[:, None]).T @ self._x - (centres * self._mean[:, None]).T @ centres
        return value, gradient, information + self.penalty * np.eye(len(beta))

    def baseline(self, beta: Floats, days: Floats) -> Floats:
        """Cumulative hazard of a row whose terms are zero, at some days (Kalbfleisch & Prentice 1973).

        Of rows with equal terms it is minus the logarithm of Kaplan-Meier's share, however many events are tied; where
        all who are at risk have their event it is infinite. Breslow's, of rare ties, would promise too little.
        """
        theta = np.exp(self._x @ beta)
        factors, mass = theta[self._events], (self._w * theta)[self._events]
        risk = np.cumsum(self._w * theta)[self._ends - 1]
        # Each step h solves: sum of w theta / (1 - exp(-h theta)) over its events = sum of w theta at risk. It is
        # convex in h and Breslow's step lies below the root, so that Newton's steps ascend to it.
        steps = np.bincount(self._group, self._w[self._events]) / risk
        steps[np.bincount(self._group, mass) >= risk * (1.0 - _TOLERANCE)] = np.inf
        for _ in range(_ASCENTS):
            shares = -np.expm1(-factors * steps[self._group])
            excess = np.bincount(self._group, mass / shares) - risk
            slope = np.bincount(self._group, mass * factors * (1.0 - shares) / shares**2)
            move = np.divide(excess, slope, out=np.zeros(len(steps)), where=slope > 0)
            steps = steps + move
            if (move <= _TOLERANCE * steps).all():
                break
        return step_at(self._times, np.cumsum(steps), days, start=0.0)

    def solve(self, limit: int) -> tuple[Floats, int, bool]:
        """Coefficients, steps taken, and whether the last one changed nothing that counts."""
        beta = np.zeros(self._x.shape[1])
        value, gradient, information = self.of(beta)
        for step in range(1, limit + 1):
            # The least squares solution: columns that add up to one have no inverse where there is no penalty.
            move = np.linalg.lstsq(information, gradient, rcond=None)[0]
            if float(gradient @ move) <= _TOLERANCE * (abs(value) + 1.0):
                return beta + move, step, True
            for _ in range(_HALVINGS):
                reached = self.of(beta + move, slopes=False)[0]
                if reached > value:
                    break
                move = move / 2.0
            else:
                return beta, step, True  # nothing is higher within the precision of the sums
            beta = beta + move
            value, gradient, information = self.of(beta)
        return beta, limit, False


def solve_cox(problem: Problem) -> Fitted[GeneralisedEngine]:
    """Registered as ``cox``: standardised numbers, and one column per category.

    ``penalty`` weighs half the squares of their coefficients against the log partial likelihood.
    """
    from threadpoolctl import threadpool_limits

    train, params = problem.train, problem.params
    check_events(train, "cox")
    categorical = set(problem.inputs.categorical)
    columns = [
        design_category(train.matrix[:, at]) if at in categorical else design_number(train.matrix[:, at])
        for at in range(train.width)
    ]
    design = join_design([block for block, _ in columns])
    if not takes_dense(design.shape):
        raise InputError("the columns of a Cox model must be few enough for a dense matrix", where="cox",
                         got=design.shape, remedy="Say prepare=[Encode('frequency')], or use 'aft'")  # fmt: skip
    weights = np.ones(len(train.labels)) if train.weights is None else train.weights
    partial = _Partial(design.toarray(), train.labels, weights, float(params["penalty"]))
    with threadpool_limits(limits=1):
        beta, steps, converged = partial.solve(int(params["max_iterations"]))
        hazards = partial.baseline(beta, np.array(train.target.days))
        inverse = np.asarray(np.linalg.pinv(partial.of(beta)[2], rcond=_TOLERANCE, hermitian=True), np.float64)
    starts = [min(math.log(value), _ALWAYS) if value > 0 else _NEVER for value in hazards.tolist()]
    sums = [fold_weights(beta, start, columns) for start in starts]
    facts = {**params, "solver": "newton", "ties": "efron", "iterations": steps, "converged": converged}
    notes = {"coefficients": len(beta), "hazard_ratios": _ratios(problem, columns, beta, inverse)}
    return Fitted(GeneralisedEngine(train.target, "hazard", tuple(sums)), facts, {}, notes)


def _ratios(problem: Problem, columns: list[Any], beta: Floats, inverse: Floats) -> list[dict[str, Any]]:
    """Each coefficient with its ratio of hazards and standard error, the surest first.

    Of a number per unit; of a category against the geometric mean of all its columns, which alone is determined.
    """
    rows, at = [], 0
    for feature, (block, term) in zip(problem.inputs.features, columns, strict=True):
        place, names, count = slice(at, at := at + block.shape[1]), [feature.name], block.shape[1]
        if isinstance(term, NumberTerm):
            change = np.array([[1.0 / term.scale]])
        else:
            words = [*feature.vocabulary[: len(term.weights)], "missing"][:count]
            names, change = [f"{feature.name}={word}" for word in words], np.eye(count) - 1.0 / count
        slopes, errors = change @ beta[place], np.diag(change @ inverse[place, place] @ change.T)
        for name, slope, error in zip(names, slopes.tolist(), errors.tolist(), strict=True):
            rows.append({"term": name, "coefficient": slope,
                         "hazard_ratio": math.exp(slope) if slope < -_NEVER else None,
                         "standard_error": math.sqrt(error) if error > 0 else None})  # fmt: skip
    return sorted(rows, key=lambda row: -abs(row["coefficient"]) / (row["standard_error"] or math.inf))
