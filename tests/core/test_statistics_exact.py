"""Exact sums, judged by ``math.fsum`` and by fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.core.statistics.exact import (
    LimbScale,
    exact_sum,
    round_limbs,
    scale_for,
    split_limbs,
    whole_limbs,
)

_FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
_NASTY = st.one_of(
    _FINITE,
    st.floats(-1, 1),
    st.integers(-50, 50).map(float),
    st.sampled_from(
        [1e9 + 1e-7, 1e16, -1e16, 1.0, 1 + 2**-52, 2.0**53, 2.0**53 + 2, 5e-324, -5e-324, 2.2e-308, 1e300, -0.0]
    ),
)


def _prefix(values: list[float], scale: LimbScale | None = None) -> np.ndarray:
    """Limbs of the sum of the first 0, 1, 2 … values: subtract two for the sum of a range."""
    limbs = split_limbs(np.array(values), scale or scale_for(np.array(values)))
    return np.concatenate([np.zeros((1, limbs.shape[1]), dtype=np.int64), np.cumsum(limbs, axis=0)])


def _sum(values: list[float]) -> float:
    """Sum of a column by its limbs."""
    return float(round_limbs(_prefix(values)[-1:], scale_for(np.array(values)))[0])


def _fraction_sum(values: list[float]) -> float:
    total = sum((Fraction(v) for v in values), Fraction(0))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


@settings(max_examples=300)
@given(values=st.lists(_NASTY, max_size=40), data=st.data())
def test_every_range_is_what_fsum_gives(values: list[float], data: st.DataObject) -> None:
    """Any range of any column: the same bits as math.fsum of the slice."""
    stop = data.draw(st.integers(0, len(values)))
    start = data.draw(st.integers(0, stop))
    prefix = _prefix(values)
    [got] = round_limbs(prefix[[stop]] - prefix[[start]], scale_for(np.array(values)))
    assert got.hex() == math.fsum(values[start:stop]).hex()


@settings(max_examples=200)
@given(values=st.lists(_NASTY, min_size=1, max_size=30), data=st.data())
def test_prefixes_in_different_orders_combine(values: list[float], data: st.DataObject) -> None:
    """Prefix of one order minus prefix of another, one scale: the exact difference rounded once."""
    other = data.draw(st.permutations(values))
    upper, lower = data.draw(st.integers(0, len(values))), data.draw(st.integers(0, len(values)))
    scale = scale_for(np.array(values))
    left, right = _prefix(values, scale), _prefix(other, scale)
    [got] = round_limbs(left[[upper]] - right[[lower]], scale)
    assert got == _fraction_sum(values[:upper] + [-v for v in other[:lower]])


@settings(max_examples=200)
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_whole_columns_add_as_python_integers(values: list[int]) -> None:
    """An int64 column: exact float sum always, exact int64 sum where it fits, an error where it does not."""
    column = np.array(values, dtype=np.int64)
    scale = scale_for(column)
    total = split_limbs(column, scale).sum(axis=0, keepdims=True)
    assert round_limbs(total, scale)[0] == float(sum(values))
    if -(2**63) <= sum(values) < 2**63:
        assert whole_limbs(total, scale)[0] == sum(values)
    else:
        with pytest.raises(InputError, match="must fit in 64 bits"):
            whole_limbs(total, scale)


@given(
    limbs=st.lists(st.integers(-(2**61), 2**61), min_size=1, max_size=6),
    low=st.integers(-1074, 600),
    width=st.integers(8, 60),
)
def test_rounding_is_the_nearest_double_for_any_limbs(limbs: list[int], low: int, width: int) -> None:
    """Limbs of any sign and size, carries included, round as one exact fraction does."""
    scale = LimbScale(low=low, width=width, limbs=len(limbs), rows=1)
    exact = sum(Fraction(limb) * Fraction(2) ** (low + width * place) for place, limb in enumerate(limbs))
    try:
        expected = float(exact)
    except OverflowError:
        expected = math.inf if exact > 0 else -math.inf
    assert round_limbs(np.array([limbs], dtype=np.int64), scale)[0] == expected


@pytest.mark.parametrize("extra", [0, 1, -1])
def test_ties_go_to_even_unless_a_far_bit_breaks_them(extra: int) -> None:
    """Half an ulp is a tie; a subnormal more or less decides it, a thousand bits further down."""
    values = [2.0**53, 1.0, extra * 5e-324]
    assert _sum(values) == {0: 2.0**53, 1: 2.0**53 + 2, -1: 2.0**53}[extra]


def test_order_does_not_matter_over_many_rows() -> None:
    """A hundred thousand rows in two orders: equal bits, equal to fsum."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=100_000) * 10.0 ** rng.integers(-12, 12, size=100_000)
    shuffled = rng.permutation(values)
    left, right = _sum(values), _sum(shuffled)
    assert left.hex() == right.hex() == math.fsum(values).hex()


def test_a_column_of_small_whole_floats_takes_one_limb() -> None:
    """Minutes, counts and cents written as floats cost eight bytes a row."""
    assert scale_for(np.arange(-1000.0, 1000.0)).limbs == 1


def test_limbs_of_rows_add_up_in_any_grouping() -> None:
    """split_limbs is the lift of the same monoid: sums by group round like fsum."""
    values = np.random.default_rng(1).lognormal(3, 4, size=1000)
    scale = scale_for(values)
    grouped = np.add.reduceat(split_limbs(values, scale), [0, 10, 500], axis=0)
    expected = [math.fsum(values[:10]), math.fsum(values[10:500]), math.fsum(values[500:])]
    assert round_limbs(grouped, scale).tolist() == expected


def test_sums_beyond_the_range_are_infinite() -> None:
    """Above 1.8e308 the nearest double is an infinity, as IEEE 754 has it."""
    values = [1.7e308, 1.7e308, -1.7e308, -1.7e308, -1.7e308]
    limbs = _prefix(values)[[2, 3, 5, 5]] - _prefix(values)[[0, 0, 1, 2]]
    assert round_limbs(limbs, scale_for(values)).tolist() == [math.inf, 1.7e308, -math.inf, -math.inf]
    assert exact_sum([1.7e308, 1.7e308]) == math.inf
    assert exact_sum([1.7e308, 1.7e308, -1.7e308]) == 1.7e308


@given(values=st.lists(st.one_of(_NASTY, st.sampled_from([1.7e308, -1.7e308])), max_size=12))
def test_the_sum_for_one_request_equals_the_limbs(values: list[float]) -> None:
    """exact_sum and the limbs agree, overflow included."""
    assert exact_sum(values) == _sum(values) == _fraction_sum(values)


@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf], [[1.0]], ["a"]])
def test_what_is_not_a_finite_column_is_refused(bad: list[object]) -> None:
    """NaN, infinities, two dimensions and text never enter an exact sum."""
    with pytest.raises(InputError, match="exact sums must be given"):
        scale_for(np.array(bad))


@pytest.mark.parametrize("value", [0.5, 1e300, 2**60 + 0.0])
def test_a_value_outside_the_scale_is_refused(value: float) -> None:
    """A scale made for small whole numbers neither truncates nor wraps."""
    with pytest.raises(InputError, match="must fit the scale"):
        split_limbs([value], LimbScale(low=0, width=50, limbs=1, rows=10))


def test_whole_sums_need_whole_units() -> None:
    """Float limbs are not silently cut to integers."""
    scale = scale_for([0.5, 1.5])
    with pytest.raises(InputError, match="unit is one"):
        whole_limbs(split_limbs([0.5], scale), scale)
