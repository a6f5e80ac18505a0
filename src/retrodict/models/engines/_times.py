"""The logarithm of a time around a sum, by one of three distributions: accelerated failure time (Wei 1992).

With ``z = (log t - sum - shift) / scale``, ``extreme`` is a Weibull time, ``normal`` a lognormal and ``logistic`` a
loglogistic one (Barnwal, Cho & Hocking 2022, Journal of Computational and Graphical Statistics 31).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.tasks import Target
from retrodict.models._logistic import sigmoid
from retrodict.models.problem import Examples

__all__ = ["DISTRIBUTIONS", "FailureTimes"]

Floats = NDArray[np.float64]

_FEW_EVENTS = 20  # ten for each of the two numbers that are fitted


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _extreme(z: float) -> float:
    return -math.expm1(-math.exp(min(z, 700.0)))


DISTRIBUTIONS: Mapping[str, Callable[[float], float]] = {"normal": _normal, "logistic": sigmoid, "extreme": _extreme}


@dataclass(frozen=True, slots=True)
class FailureTimes:
    """From sums to probabilities of an event by the horizons.

    Attributes
    ----------
    distribution : {"normal", "logistic", "extreme"}
    scale : float
        Above 0.
    shift : float
    """

    distribution: str
    scale: float
    shift: float = 0.0

    def margins(self, sums: Floats, target: Target) -> Floats:
        """How far each horizon lies beyond the middle of a row, shape (n,) or (n, horizons)."""
        logs = np.array([math.log(days) for days in target.days])
        lines = (logs[None, :] - self.shift - sums[:, None]) / self.scale
        return lines[:, 0] if target.columns == 1 else lines

    def shares(self, margins: Floats) -> Floats:
        """Probabilities, number by number: a batch gives the bits of a row."""
        plain = map(DISTRIBUTIONS[self.distribution], margins.ravel().tolist())
        return np.fromiter(plain, np.float64, margins.size).reshape(margins.shape)

    def contributions(self, shares: Floats, target: Target) -> Floats:
        """Those of the sum, then its bias, as those of every margin: a later time is a smaller margin."""
        lines = np.repeat(-shares[None, :] / self.scale, target.columns, axis=0)
        lines[:, -1] = self.margins(shares[-1:], target).ravel()
        return lines[0] if target.columns == 1 else lines

    def loss(self, rows: Examples, sums: Floats) -> tuple[str, float]:
        """Mean negative log likelihood of signed days, the time of an event being a density of its logarithm."""
        z = (np.log(np.abs(rows.labels)) - self.shift - sums) / self.scale
        if self.distribution == "extreme":
            tail = -np.exp(np.minimum(z, 700.0))
            density = z + tail
        elif self.distribution == "logistic":
            tail = -np.logaddexp(0.0, z)
            density = z + 2.0 * tail
        else:
            from scipy.special import log_ndtr

            tail, density = log_ndtr(-z), -0.5 * z**2 - 0.5 * math.log(2.0 * math.pi)
        losses = -np.where(rows.labels > 0, density - math.log(self.scale), tail)
        return "aft_nloglik", float(np.average(losses, weights=rows.weights))

    def fitted(self, rows: Examples, sums: Floats) -> FailureTimes:
        """The same with the scale and shift that are likeliest on rows that the sums were not grown on.

        Trees are grown with a scale that somebody chose; what it really is decides how steep the probabilities are.
        """
        if (rows.labels > 0).sum() < _FEW_EVENTS:
            return self
        from scipy.optimize import minimize

        def loss(point: Floats) -> float:
            return FailureTimes(self.distribution, math.exp(point[0]), float(point[1])).loss(rows, sums)[1]

        start = np.array([math.log(self.scale), self.shift])
        result = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 400})
        return FailureTimes(self.distribution, math.exp(result.x[0]), float(result.x[1]))

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return asdict(self)
