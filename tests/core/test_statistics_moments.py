"""Mergeable moments, judged by exact fractions and by SciPy."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from functools import reduce

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retrodict.core.errors import InputError
from retrodict.core.statistics.moments import Moments

_NASTY = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
    st.floats(-1, 1),
    st.integers(-5, 5).map(float),
    st.floats(-1e-3, 1e-3).map(lambda noise: 1e9 + noise),
    st.sampled_from([1e16, -1e16, 1.0, 5e-324, -0.0, 1e300, -1e300, 1e-160]),
)


def _exact(values: list[float], order: int) -> Fraction:
    """Central sum in exact arithmetic, straight from its definition."""
    mean = sum(map(Fraction, values), Fraction(0)) / len(values)
    return sum(((Fraction(v) - mean) ** order for v in values), Fraction(0))


def _cut(data: st.DataObject, values: list[float]) -> list[list[float]]:
    places = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=6)))
    return [values[a:b] for a, b in zip([0, *places], [*places, len(values)], strict=True)]


@settings(max_examples=300)
@given(values=st.lists(_NASTY, min_size=1, max_size=30), data=st.data())
def test_any_partition_in_any_order_gives_the_exact_moments(values: list[float], data: st.DataObject) -> None:
    """Mean to the bit; M2 and M4 to 1e-13, relative; M3 relative to the sum of absolute third powers."""
    parts = data.draw(st.permutations(_cut(data, data.draw(st.permutations(values)))))
    found = reduce(Moments.merge, map(Moments.of, parts))
    mean = sum(map(Fraction, values), Fraction(0)) / len(values)
    assert found.count == len(values)
    assert found.mean == float(mean)
    for order, got in ((2, found.m2), (4, found.m4)):
        expected = _exact(values, order)
        assert abs(got - expected) <= Fraction(1e-13) * expected
    bound = sum((abs(Fraction(v) - mean) ** 3 for v in values), Fraction(0))
    assert abs(found.m3 - _exact(values, 3)) <= Fraction(1e-13) * bound


@pytest.mark.parametrize("parts", [1, 7, 400])
def test_a_billion_with_tiny_noise_keeps_its_variance(parts: int) -> None:
    """Against exact fractions: mean to the bit, variance to 1e-12."""
    rng = np.random.default_rng(2)
    values = 1e9 + 1e-3 * rng.normal(size=20_000)
    blocks = [Moments.of(part) for part in np.array_split(rng.permutation(values), parts)]
    found = reduce(Moments.merge, [blocks[i] for i in rng.permutation(parts)])
    exact = [Fraction(v) for v in values.tolist()]
    mean = sum(exact) / len(exact)
    variance = sum((v - mean) ** 2 for v in exact) / (len(exact) - 1)
    assert found.mean == float(mean)
    assert found.variance() == pytest.approx(float(variance), rel=1e-12, abs=0)


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal", "uniform"])
def test_shape_is_what_scipy_says(draw: str) -> None:
    """Skewness and excess kurtosis."""
    values = getattr(np.random.default_rng(3), draw)(size=5000)
    found = Moments.of(values[:1234]).merge(Moments.of(values[1234:]))
    assert found.skew() == pytest.approx(stats.skew(values), rel=1e-10)
    assert found.kurtosis() == pytest.approx(stats.kurtosis(values), rel=1e-10)


def test_one_and_two_values_have_the_moments_they_can_have() -> None:
    """What divides by zero is None, never 0 or NaN."""
    none, one, two = Moments.of([]), Moments.of([3.0]), Moments.of([3.0, 3.0])
    assert (none.mean, none.variance(ddof=0), none.minimum, none.skew()) == (None, None, None, None)
    assert (one.mean, one.variance(), one.variance(ddof=0), one.std(ddof=0)) == (3.0, None, 0.0, 0.0)
    assert (two.variance(), two.skew(), two.kurtosis()) == (0.0, None, None)


def test_nulls_and_infinities_are_counted_apart() -> None:
    """They shape no moment."""
    found = Moments.of([None, math.nan, math.inf, -math.inf, -math.inf, 2.0, 4.0])
    assert (found.count, found.nulls, found.negative_infinities, found.positive_infinities) == (2, 2, 2, 1)
    assert (found.mean, found.minimum, found.maximum) == (3.0, 2.0, 4.0)


def test_values_at_the_ends_of_the_range_neither_overflow_nor_vanish() -> None:
    """Fourth powers of 1e200 and of 1e-200 are held."""
    for size in (1e200, 1e-200):
        found = Moments.of([-size, 0.0, size]).merge(Moments.of([2 * size]))
        assert found.skew() == pytest.approx(stats.skew([-1, 0, 1, 2]), abs=1e-15)
        assert found.kurtosis() == pytest.approx(stats.kurtosis([-1, 0, 1, 2]))
        assert found.std(ddof=0) == pytest.approx(size * math.sqrt(1.25))
    assert Moments.of([1.7e308, -1.7e308]).std(ddof=0) == pytest.approx(1.7e308)
    assert Moments.of([0.0, 5e-324]).m2 == Fraction(5e-324) ** 2 / 2


@given(values=st.lists(st.one_of(_NASTY, st.none()), max_size=12))
def test_json_keeps_every_bit(values: list[float | None]) -> None:
    """Moments written and read are equal, so merging goes on as if nothing had happened."""
    found = Moments.of(values)
    assert Moments.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_columns_of_arrow_and_numpy_are_read_alike() -> None:
    """Integers, chunks and nulls included."""
    arrow = pa.chunked_array([[1, 2], [None, 9]])
    assert Moments.of(arrow) == Moments.of(np.array([1.0, 2.0, np.nan, 9.0])) == Moments.of([1, 2, None, 9])
    assert Moments.of(pa.array([1, None])) == Moments.of([1, None])
    assert Moments.of(pd.Series([1, None], dtype="Int64")) == Moments.of(pl.Series([1, None])) == Moments.of([1, None])


@pytest.mark.parametrize("bad", [["1"], np.array(["2020-01-01"], dtype="datetime64[D]"), np.ones((2, 2))])
def test_what_is_not_a_column_of_numbers_is_refused(bad: object) -> None:
    """Text that reads as a number, and times, are not converted in silence."""
    with pytest.raises(InputError, match="moments: a column of numbers must have one dimension"):
        Moments.of(bad)  # type: ignore[arg-type]
