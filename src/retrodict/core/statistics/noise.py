"""How much two count vectors of one distribution differ by chance when their rows are not independent.

Hourly weather, queue lengths, seasons: rows near in time are alike, so a month holds far less than its number of rows.
The counts by block of time say how much less: what blocks differ by among themselves is noise that the index of two
spans has to exceed. Rejected: an effective sample size from the autocorrelation of the values, which categories do not
have and which a fitted order decides; permuting blocks, which costs a thousand indices a feature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Noise", "block_noise", "block_scatter", "row_noise"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Noise:
    """Distribution of an index of two equal distributions: ``scale * F(freedom, blocks)``.

    Attributes
    ----------
    scale : float
        Its mean.
    freedom : float
        Degrees of freedom of the index: bins - 1 for independent rows, fewer where bins move together.
    blocks : float
        Degrees of freedom of the scale; infinite where it is known and not estimated.
    """

    scale: float
    freedom: float
    blocks: float = math.inf

    def critical(self, alpha: float) -> float:
        """Value exceeded with probability ``alpha``."""
        from scipy.special import chdtri, fdtri

        if not self.freedom:
            return 0.0
        if math.isinf(self.blocks):
            return float(self.scale * chdtri(self.freedom, alpha) / self.freedom)
        return float(self.scale * fdtri(self.freedom, self.blocks, 1 - alpha))

    def p_value(self, value: float) -> float:
        """Probability of reaching a value."""
        from scipy.special import chdtrc, fdtrc

        if not self.freedom:
            return 1.0
        if math.isinf(self.blocks):
            return float(chdtrc(self.freedom, value / self.scale * self.freedom))
        return float(fdtrc(self.freedom, self.blocks, value / self.scale))


def row_noise(n: int, m: int, bins: int) -> Noise:
    """Noise of independent rows: the index is ``(1/n + 1/m) chi2(bins - 1)``.

    Yurdakul & Naranjo 2020, Journal of Risk Model Validation 14(4).
    """
    return Noise((1 / n + 1 / m) * (bins - 1), bins - 1)


def block_noise(reference: Floats, current: Floats) -> Noise:
    """Noise of rows that are independent only from block to block, never less than that of independent rows.

    With ``S`` the covariance of a block's shares, estimated from both sides, and ``D`` the diagonal of the
    mean of both sides' shares, the index of equal distributions has the mean ``(1/blocks + 1/blocks) tr(D^-1 S)`` and
    ``tr(D^-1 S)² / tr((D^-1 S)²)`` degrees of freedom (Rao & Scott 1984, Annals of Statistics 12, 46-60, the second
    order of Satterthwaite); the estimated mean makes it an F (Thomas & Rao 1987, JASA 82, 630-636). The trace of the
    square is estimated half-way to the unbiased estimate of Bai & Saranadasa 1996 (Statistica Sinica 6, 311-329).

    Parameters
    ----------
    reference, current : ndarray of float, shape (blocks, bins)
        Counts by block, the blocks of both sides of one length of time, without bins that are empty everywhere. A
        reference of one block has no blocks: it is taken to last as much longer than the current side as it has more
        rows. A current side of one block is as noisy as each of the reference's.

    Returns
    -------
    Noise
        That of independent rows where neither side has two blocks.
    """
    sides = reference, current
    n, m = (int(side.sum()) for side in sides)
    bins = reference.shape[1]
    rows = row_noise(n, m, bins)
    freedom = sum(len(side) - 1 for side in sides)
    if bins < 2 or freedom < 1:
        return rows
    scatter = block_scatter(reference, current)
    trace, squares = float(np.trace(scatter)), float((scatter * scatter).sum())
    if freedom > 1:
        unbiased = freedom**2 / ((freedom - 1) * (freedom + 2)) * (squares - trace * trace / freedom)
        # Few blocks make the plain one too careful and the unbiased one too bold in the tail, which is where a
        # false-discovery rate looks: simulated in the tests.
        squares = (squares + unbiased) / 2
    before = len(reference) if len(reference) > 1 else len(current) * n / m
    scale = max(trace / before, (bins - 1) / n) + max(trace / len(current), (bins - 1) / m)
    if scale <= rows.scale:
        return rows
    spread = min(max(trace * trace / squares, 1.0), bins - 1.0) if squares > 0 else bins - 1.0
    return Noise(scale, spread, spread * freedom)


def block_scatter(reference: Floats, current: Floats) -> Floats:
    """Covariance of a block's shares in units of the roots of the mean shares, shape (bins, bins).

    Parameters are those of ``block_noise``; one side at least has two blocks. Of two bins the trace is the variance of
    a block's rate over ``rate * (1 - rate)``: a block is worth as many independent rows as one over that.
    """
    middle = (reference.sum(0) / reference.sum() + current.sum(0) / current.sum()) / 2
    freedom = len(reference) + len(current) - 2
    scatter: Floats = (_scatter(reference, middle) + _scatter(current, middle)) / freedom
    return scatter


def _scatter(blocks: Floats, shares: Floats) -> Floats:
    """Sum over blocks of the products of what their shares miss the side's by, in units of the root of ``shares``.

    Blocks weigh by their rows, as the ratio estimator of a sample of clusters has it.
    """
    mean_rows = blocks.sum() / len(blocks)
    misses = (blocks - blocks.sum(1, keepdims=True) * (blocks.sum(0) / blocks.sum())) / mean_rows / np.sqrt(shares)
    scatter: Floats = misses.T @ misses
    return scatter
