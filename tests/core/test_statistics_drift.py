"""Drift measures against SciPy, against each other, and against their own error rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from retrodict.core.errors import InputError
from retrodict.core.statistics import drift

_PAIRS = st.integers(1, 8).flatmap(
    lambda size: st.tuples(*[st.lists(st.integers(0, 50), min_size=size, max_size=size).filter(any)] * 2)
)


@given(pair=_PAIRS)
def test_distances_equal_scipy(pair: tuple[list[int], list[int]]) -> None:
    """Jensen-Shannon in bits, Hellinger, total variation: SciPy and definitions written another way."""
    p, q = (np.array(side) / sum(side) for side in pair)
    js = drift.js_distance_bits(*pair)
    assert js == pytest.approx(distance.jensenshannon(p, q, base=2), abs=1e-7)
    assert drift.js_divergence_bits(*pair) == pytest.approx(js**2, abs=1e-12)
    assert drift.hellinger_distance(*pair) ** 2 == pytest.approx(1 - np.sqrt(p * q).sum(), abs=1e-12)
    assert drift.total_variation(*pair) == pytest.approx(1 - np.minimum(p, q).sum(), abs=1e-12)


@given(pair=_PAIRS)
def test_psi_is_the_symmetric_kullback_leibler_divergence(pair: tuple[list[int], list[int]]) -> None:
    """SciPy's relative entropies of the smoothed shares, added up; symmetric, finite, 0 for equal counts."""
    used = np.array(pair).any(axis=0)
    p, q = (np.array(side)[used] + 0.5 for side in pair)
    assert drift.psi(*pair) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-12)
    assert drift.psi(*pair) == pytest.approx(drift.psi(*pair[::-1]), abs=1e-12)
    assert drift.psi(pair[0], pair[0]) == 0.0


@given(pair=_PAIRS, empty=st.integers(1, 5))
def test_bins_empty_on_both_sides_change_nothing(pair: tuple[list[int], list[int]], empty: int) -> None:
    """More bins that nobody uses: the same verdict, bit for bit."""
    wider = tuple(side + [0] * empty for side in pair)
    assert drift.judge(*wider, min_rows=1) == drift.judge(*pair, min_rows=1)


def test_smoothing_keeps_one_row_from_deciding() -> None:
    """A single current row in a bin the reference never used moves the index by little."""
    reference, current = [500, 500, 0], [500, 499, 1]
    assert 0 < drift.psi(reference, current) < 0.002
    with pytest.raises(InputError, match="pseudo count"):
        drift.psi(reference, current, pseudo=0)


@pytest.mark.parametrize(("n", "m"), [(200, 200), (5000, 300)])
def test_the_noise_floor_is_exceeded_as_often_as_it_says(n: int, m: int) -> None:
    """Equal distributions: psi exceeds the 5 % critical value in about 5 % of 4,000 samples, p values agree."""
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.full(10, 8.0))
    pairs = zip(rng.multinomial(n, shares, 4000), rng.multinomial(m, shares, 4000), strict=True)
    floor = drift.psi_critical(n, m, 10, alpha=0.05)
    values = np.array([drift.psi(a, b) for a, b in pairs])
    assert 0.035 < (values > floor).mean() < 0.065
    assert drift.psi_p_value(floor, n, m, 10) == pytest.approx(0.05)


def test_drift_needs_effect_and_evidence() -> None:
    """Large in few rows is noise, tiny in many rows is harmless, large in many rows is drift."""
    noisy = drift.judge([50, 50], [65, 35], threshold=0.05, min_rows=50)
    tiny = drift.judge([500_000, 500_000], [510_000, 490_000])
    real = drift.judge([5000, 5000], [7500, 2500])
    assert [v.status for v in (noisy, tiny, real)] == ["no drift", "no drift", "drift"]
    assert "noise floor" in noisy.reason
    assert "below the threshold" in tiny.reason
    assert tiny.p_value is not None
    assert tiny.p_value < 1e-9


@pytest.mark.parametrize(
    ("pair", "side"), [(([9, 9], [500, 500]), "18 reference"), (([500, 500], [0, 0]), "0 current")]
)
def test_too_few_rows_are_not_evaluable(pair: tuple[list[int], list[int]], side: str) -> None:
    """No number is given where none can be trusted, and the reason names the side."""
    verdict = drift.judge(*pair)
    assert (verdict.status, verdict.psi) == ("not evaluable", None)
    assert side in verdict.reason


@given(p_values=st.lists(st.floats(0, 1), max_size=12), rate=st.sampled_from([0.01, 0.05, 0.3]))
def test_benjamini_hochberg_equals_scipy(p_values: list[float], rate: float) -> None:
    """Rejected exactly where SciPy's adjusted p value is within the rate."""
    adjusted = stats.false_discovery_control(p_values) if p_values else []
    if any(abs(value - rate) < 1e-12 for value in adjusted):
        return  # a tie that only rounding decides
    assert drift.benjamini_hochberg(p_values, rate=rate)[0] == [value <= rate for value in adjusted]


def test_many_features_without_drift_raise_no_alarm() -> None:
    """Two hundred equal features, threshold 0, rate 5 %: at most a few of twenty looks find anything."""
    rng = np.random.default_rng(8)
    shares = np.full(10, 0.1)
    looks = 0
    for _ in range(20):
        counts = {str(i): (rng.multinomial(400, shares), rng.multinomial(400, shares)) for i in range(200)}
        verdicts = drift.judge_features(counts, threshold=0.0, rate=0.05)
        looks += any(v.status == "drift" for v in verdicts.values())
    assert looks <= 4


def test_a_drifting_feature_is_found_among_many() -> None:
    """One shifted feature in fifty, one with too few rows: found, and not counted among the tests."""
    rng = np.random.default_rng(2)
    counts = {str(i): (rng.multinomial(2000, [0.25] * 4), rng.multinomial(2000, [0.25] * 4)) for i in range(50)}
    counts["moved"] = (np.array([500] * 4), np.array([900, 500, 300, 300]))
    counts["thin"] = (np.array([500] * 4), np.array([3, 0, 0, 0]))
    verdicts = drift.judge_features(counts)
    assert [name for name, v in verdicts.items() if v.status == "drift"] == ["moved"]
    assert verdicts["thin"].status == "not evaluable"


def test_counts_of_two_profiles_are_refused() -> None:
    """Vectors of different lengths were not counted with one profile."""
    with pytest.raises(InputError, match="one length"):
        drift.psi([1, 2], [1, 2, 3])


def test_one_bin_cannot_drift() -> None:
    """A constant column that stays constant: index 0, no evidence."""
    verdict = drift.judge([0, 500, 0], [0, 900, 0], threshold=0.0)
    assert (verdict.status, verdict.psi, verdict.p_value) == ("no drift", 0.0, 1.0)


@pytest.mark.parametrize("blocks", [1, 4])
def test_the_same_rows_have_not_drifted(blocks: int) -> None:
    """Nor do they divide by nothing: an index of 0 is below any threshold, by blocks of time, too."""
    counts = np.random.default_rng(1).integers(50, 90, (blocks, 6))
    verdict = drift.judge(counts, counts.copy())
    assert (verdict.status, verdict.psi) == ("no drift", 0.0)
    assert verdict.p_value == pytest.approx(1.0)
