"""Log-odds and back, and shares of classes, bit for bit the same for a column and for one number.

NumPy's vector exponentials may round differently from the C library's, by width and by processor. So both ways here
call the same scalar function; a million values cost a tenth of a second, which is small beside making them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TINY", "logit", "logits", "sigmoid", "sigmoids", "softmax"]

# Log-odds of exactly 0 or 1 are infinite; they are held at the last rate below 1 that a float can tell from 1.
TINY = 2.0**-52


def sigmoid(margin: float) -> float:
    """Probability of log-odds; never overflows."""
    power = math.exp(-abs(margin))
    return 1.0 / (1.0 + power) if margin >= 0.0 else power / (1.0 + power)


def sigmoids(margins: NDArray[Any]) -> NDArray[np.float64]:
    """:func:`sigmoid` of each of a column, shape (n,)."""
    powers = np.fromiter(map(math.exp, (-np.abs(margins)).tolist()), np.float64, len(margins))
    return np.where(margins >= 0.0, 1.0, powers) / (1.0 + powers)


def logit(rate: float) -> float:
    """Log-odds of a probability, held within about ±36."""
    inside = min(max(rate, TINY), 1.0 - TINY)
    return math.log(inside / (1.0 - inside))


def logits(rates: NDArray[Any]) -> NDArray[np.float64]:
    """:func:`logit` of each of a column, shape (n,)."""
    return np.fromiter(map(logit, rates.tolist()), np.float64, len(rates))


def softmax(margins: list[float]) -> list[float]:
    """Probabilities of the classes of one row, which sum up to 1."""
    greatest = max(margins)
    powers = [math.exp(margin - greatest) for margin in margins]
    total = sum(powers)
    return [power / total for power in powers]
