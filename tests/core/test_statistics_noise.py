"""The noise of rows that depend on each other in time, simulated; that of independent rows where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from retrodict.core.statistics import drift
from retrodict.core.statistics.noise import Noise, block_noise, row_noise

DAY = 24


def _series(phi: float, hours: int, rng: np.random.Generator) -> np.ndarray:
    """A stationary AR(1) of variance 1, hour by hour."""
    steps = rng.normal(size=hours) * np.sqrt(1 - phi**2)
    steps[0] = rng.normal()
    return lfilter([1], [1, -phi], steps)


def _tiles(values: np.ndarray, edges: np.ndarray, blocks: int) -> np.ndarray:
    counts = np.zeros((blocks, edges.size + 1))
    np.add.at(counts, (np.arange(values.size) * blocks // values.size, np.searchsorted(edges, values)), 1)
    return counts


def _verdicts(phi: float, days: tuple[int, int], blocks: tuple[int, int], *, shift: float = 0.0, runs: int = 300):
    rng = np.random.default_rng(11)
    for _ in range(runs):
        values = _series(phi, sum(days) * DAY, rng)
        reference, current = np.split(values, [days[0] * DAY])
        edges = np.quantile(reference, np.linspace(0, 1, 11)[1:-1])
        counts = _tiles(reference, edges, blocks[0]), _tiles(current + shift, edges, blocks[1])
        yield drift.judge(*counts, threshold=0.25)


@pytest.mark.parametrize(
    ("days", "blocks"), [((210, 30), (7, 1)), ((60, 30), (8, 4)), ((210, 30), (1, 8)), ((60, 7), (9, 1))]
)
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_without_drift_the_floor_is_exceeded_about_as_often_as_it_says(phi, days, blocks) -> None:
    """Months of training rows, months or weeks of decisions, blocks on both sides, one side, or windows as long."""
    verdicts = list(_verdicts(phi, days, blocks))
    exceeded = np.mean([verdict.p_value < 0.05 for verdict in verdicts])
    assert exceeded <= 0.08
    assert phi == 0.0 or exceeded >= 0.01
    assert np.mean([verdict.status == "drift" for verdict in verdicts]) <= 0.03


def test_taken_as_independent_such_rows_drift_all_the_time() -> None:
    """What the blocks are for: 0.05 is 0.5 and more."""
    alone = [v.p_value < 0.05 for v in _verdicts(0.9, (210, 30), (1, 1), runs=100)]
    assert np.mean(alone) > 0.5


@pytest.mark.parametrize(("phi", "shift", "least"), [(0.0, 0.7, 0.95), (0.5, 0.7, 0.95), (0.9, 1.0, 0.9)])
def test_a_real_shift_is_found(phi, shift, least) -> None:
    """Of a month after seven, by 0.7 or one standard deviation."""
    found = [v.status == "drift" for v in _verdicts(phi, (210, 30), (7, 1), shift=shift, runs=100)]
    assert np.mean(found) >= least


def test_a_season_within_the_training_rows_is_no_drift() -> None:
    """Months that differ among themselves by more than the new one differs from them all."""
    rng = np.random.default_rng(3)
    months = [rng.normal(mean, 1, 720) for mean in (-0.5, 0.4, -0.3, 0.5, 0.1, -0.4, 0.3)]
    edges = np.quantile(np.concatenate(months), np.linspace(0, 1, 11)[1:-1])
    reference = np.stack([_tiles(month, edges, 1)[0] for month in months])
    within, beyond = (_tiles(rng.normal(mean, 1, 720), edges, 1) for mean in (0.5, 4.0))
    assert "noise floor" in drift.judge(reference, within, threshold=0.05).reason
    assert drift.judge(reference.sum(0), within, threshold=0.05).status == "drift"
    assert drift.judge(reference, beyond, threshold=0.05).status == "drift"


def test_the_noise_of_independent_rows_is_that_of_scipy() -> None:
    """Critical values and p values of the scaled chi-square and of F."""
    rows, blocks = row_noise(400, 900, 10), Noise(0.02, 3.5, 17.5)
    scale = 1 / 400 + 1 / 900
    assert rows.critical(0.01) == pytest.approx(scale * stats.chi2.isf(0.01, 9))
    assert rows.p_value(0.05) == pytest.approx(stats.chi2.sf(0.05 / scale, 9))
    assert blocks.critical(0.01) == pytest.approx(0.02 * stats.f.isf(0.01, 3.5, 17.5))
    assert blocks.p_value(0.05) == pytest.approx(stats.f.sf(2.5, 3.5, 17.5))


def test_blocks_never_make_rows_worth_more_than_independent_ones() -> None:
    """Blocks that are all alike, as of an hour of day, say less noise than chance: the floor of chance holds."""
    alike = np.tile([[30.0, 30.0, 30.0]], (8, 1))
    assert block_noise(alike, alike) == row_noise(720, 720, 3)
    assert block_noise(alike[:1], alike[:1]) == row_noise(90, 90, 3)


def test_a_copy_of_every_row_is_worth_nothing() -> None:
    """Each decision logged ten times: the noise is that of the rows before."""
    rng = np.random.default_rng(5)
    once = rng.multinomial(90, [0.25] * 4, size=8).astype(float), rng.multinomial(90, [0.25] * 4, size=40).astype(float)
    noise = block_noise(once[1] * 10, once[0] * 10)
    assert noise.scale == pytest.approx(row_noise(3600, 720, 4).scale, rel=0.35)
