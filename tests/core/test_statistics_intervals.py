"""Intervals against SciPy, against DeLong by its definition, and against their coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from retrodict.core.errors import InputError
from retrodict.core.statistics.intervals import (
    delong_auc,
    delong_pair,
    mean_interval,
    midranks,
    wilson_interval,
)


@given(n=st.integers(1, 10_000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.999]))
def test_wilson_equals_scipy(n: int, share: float, confidence: float) -> None:
    """SciPy's Wilson interval for any counts."""
    successes = round(n * share)
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    got = wilson_interval(successes, n, confidence=confidence)
    assert (got.low, got.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_shares_that_are_none_are_refused(successes: int, n: int) -> None:
    """No rows, or more successes than rows."""
    with pytest.raises(InputError, match="successes between"):
        wilson_interval(successes, n)


def test_mean_interval_equals_scipy() -> None:
    """Student's t of a small sample."""
    values = np.random.default_rng(0).normal(size=17)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    got = mean_interval(values, confidence=0.9)
    assert (got.low, got.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


@given(values=st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30))
def test_midranks_equal_scipy(values: list[float]) -> None:
    """Average ranks with ties."""
    assert midranks(np.array(values)).tolist() == stats.rankdata(values).tolist()


def _placements(upper: list[float], lower: list[float]) -> tuple[list[float], list[float]]:
    """Structural components by their definition: every pair compared."""
    wins = {(i, j): (x > y) + (x == y) / 2 for (i, x), (j, y) in itertools.product(enumerate(upper), enumerate(lower))}
    return (
        [sum(wins[i, j] for j in range(len(lower))) / len(lower) for i in range(len(upper))],
        [sum(wins[i, j] for i in range(len(upper))) / len(upper) for j in range(len(lower))],
    )


_ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=25)


@given(rows=_ROWS)
def test_delong_equals_its_definition(rows: list[tuple[int, int, int]]) -> None:
    """Area, variance and covariance from all pairs, with ties, by the formulas of 1988."""
    labels = [label for label, _, _ in rows]
    assume(2 <= sum(labels) <= len(labels) - 2)
    parts = []
    for column in (1, 2):
        upper = [row[column] for row in rows if row[0]]
        lower = [row[column] for row in rows if not row[0]]
        parts.append(_placements(upper, lower))
    up = np.cov([parts[0][0], parts[1][0]]) / sum(labels)
    down = np.cov([parts[0][1], parts[1][1]]) / (len(labels) - sum(labels))
    covariance = up + down
    single = delong_auc(labels, [row[1] for row in rows])
    pair = delong_pair(labels, [row[1] for row in rows], [row[2] for row in rows])
    assert single.auc == pytest.approx(np.mean(parts[0][0]))
    assert single.variance == pytest.approx(covariance[0, 0], abs=1e-12)
    assert pair.difference == pytest.approx(np.mean(parts[0][0]) - np.mean(parts[1][0]), abs=1e-12)
    expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert pair.variance == pytest.approx(expected, abs=1e-12)
    if expected > 1e-6:
        assert pair.p_value == pytest.approx(2 * stats.norm.sf(abs(pair.difference) / math.sqrt(expected)), rel=1e-4)


def test_delong_covers_the_true_area() -> None:
    """Binormal scores, 600 samples of 200: the 95 % interval holds the true area in about 95 %."""
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], [120, 80])
    truth = stats.norm.cdf(1 / math.sqrt(2))
    hits = 0
    for _ in range(600):
        estimate = delong_auc(labels, rng.normal(size=200) + labels)
        hits += estimate.low <= truth <= estimate.high
    assert 0.92 < hits / 600 < 0.98


@pytest.mark.parametrize(("positives", "negatives"), [(5, 100), (20, 500), (40, 40), (100, 1000), (500, 500)])
@pytest.mark.parametrize("truth", [0.7, 0.9, 0.97, 0.99])
def test_delong_covers_near_one_and_with_few_positives(truth: float, positives: int, negatives: int) -> None:
    """Binormal scores, 300 samples: auc ± z·sd held the true area in as few as 0.54 of them."""
    rng = np.random.default_rng(7)
    shift = math.sqrt(2) * stats.norm.ppf(truth)
    labels = np.repeat([1, 0], [positives, negatives])
    hits = 0
    for _ in range(300):
        estimate = delong_auc(labels, rng.normal(size=labels.size) + shift * labels)
        assert 0 <= estimate.low <= estimate.auc <= estimate.high <= 1
        hits += estimate.low <= truth <= estimate.high
    assert hits / 300 > 0.91


def test_with_many_rows_the_interval_is_that_of_the_logit() -> None:
    """Pepe's formula, written out; the draw towards the model is then below a hundredth of the width."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 20_000)
    estimate = delong_auc(labels, rng.normal(size=40_000) + 2 * labels)
    odds, spread = math.log(estimate.auc / (1 - estimate.auc)), math.sqrt(estimate.variance)
    half = 1.959964 * spread / (estimate.auc * (1 - estimate.auc))
    width = estimate.high - estimate.low
    assert estimate.low == pytest.approx(1 / (1 + math.exp(half - odds)), abs=width / 100)
    assert estimate.high == pytest.approx(1 / (1 + math.exp(-half - odds)), abs=width / 100)


@pytest.mark.parametrize("n", [2, 10, 1000])
def test_perfect_separation_is_no_certainty(n: int) -> None:
    """The lower end is Newcombe's: the area that solves his quadratic, by SciPy; the other way round it is mirrored."""
    scores = np.arange(2 * n, dtype=float)
    labels = np.repeat([0, 1], n)
    best, worst = delong_auc(labels, scores), delong_auc(1 - labels, scores)
    z = stats.norm.ppf(0.975)

    def gap(area: float) -> float:
        spread = 1 + (n - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return (1 - area) - z * z * area * spread / n**2

    assert best.low == pytest.approx(brentq(gap, 0, 1), abs=1e-9)
    assert (best.auc, best.high, worst.auc, worst.low) == (1.0, 1.0, 0.0, 0.0)
    assert worst.high == pytest.approx(1 - best.low)


def test_equal_scores_have_an_area_of_one_half_without_doubt() -> None:
    """A constant ranks nothing, whatever the sample."""
    estimate = delong_auc([0, 0, 1, 1], [0.5] * 4)
    assert (estimate.auc, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_equal_orders_cannot_be_told_apart() -> None:
    """A monotone copy of a score: difference 0, p value 1, a point interval."""
    labels, scores = [0, 1, 0, 1, 1], np.array([0.1, 0.3, 0.35, 0.6, 0.2])
    pair = delong_pair(labels, scores, np.exp(scores))
    assert (pair.difference, pair.p_value, pair.low, pair.high) == (0.0, 1.0, 0.0, 0.0)


def test_one_row_in_a_class_has_no_variance() -> None:
    """The area exists, its interval does not: NaN, not a false zero."""
    estimate = delong_auc([0, 0, 1], [0.1, 0.2, 0.3])
    assert estimate.auc == 1.0
    assert math.isnan(estimate.variance)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


@pytest.mark.parametrize(
    ("labels", "scores", "rule"),
    [([1, 1], [0.1, 0.2], "both classes"), ([0, 2], [0.1, 0.2], "0 or 1"), ([0, 1], [0.1], "one score per label"),
     ([0, 1], [0.1, math.nan], "none of them null")],
)  # fmt: skip
def test_delong_refuses_what_has_no_area(labels: list, scores: list, rule: str) -> None:
    """One class, foreign labels, lengths that differ, null scores."""
    with pytest.raises(InputError, match=rule):
        delong_auc(labels, scores)
