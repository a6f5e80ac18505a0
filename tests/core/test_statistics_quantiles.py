"""The quantile sketch: exact while small, within its own bound when not."""

from __future__ import annotations

import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.core.statistics.quantiles import QuantileSketch

_SHARES = np.linspace(0, 1, 41)


def _columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    n = 60_000
    return {
        "ascending": np.arange(n, dtype=float),
        "descending": np.arange(n, dtype=float)[::-1],
        "normal": rng.normal(size=n),
        "heavy": rng.standard_cauchy(size=n),
        "lognormal": rng.lognormal(0, 10, size=n),
        "few values": rng.integers(0, 3, size=n).astype(float),
        "half zero": np.where(rng.random(n) < 0.5, 0.0, rng.exponential(size=n)),
        "saw": np.arange(n, dtype=float) % 1023,
        "two far lumps": np.concatenate((rng.normal(-1e12, 1, n // 2), rng.normal(1e12, 1, n // 2))),
        "outside in": np.ravel(np.column_stack((np.arange(n // 2), n - np.arange(n // 2)))).astype(float),
    }


COLUMNS = _columns()


def _check_bound(sketch: QuantileSketch, values: np.ndarray) -> None:
    """Ranks of many numbers, and the true rank of the quantiles, by sorting everything."""
    ordered = np.sort(values)
    probes = np.concatenate((ordered[:: max(1, values.size // 500)], ordered[-1:], ordered[:1] - 1))
    for value in probes.tolist():
        true, found = int(np.searchsorted(ordered, value, side="right")), sketch.rank(value)
        assert true - sketch.under <= found <= true + sketch.over
    found = sketch.quantiles(_SHARES)
    places = _SHARES * (values.size - 1)
    first, last = np.searchsorted(ordered, found, side="left"), np.searchsorted(ordered, found, side="right")
    assert (first <= places + sketch.rank_error + 1).all()
    assert (last >= places - sketch.rank_error).all()


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("parts", [1, 2, 37])
def test_ranks_stay_within_the_bound_that_the_sketch_states(name: str, parts: int) -> None:
    """Nasty columns, one block or many, merged from left to right."""
    values = COLUMNS[name]
    sketch = reduce(QuantileSketch.merge, (QuantileSketch.of(p, k=128) for p in np.array_split(values, parts)))
    assert sketch.count == values.size
    assert (sketch.minimum, sketch.maximum) == (values.min(), values.max())
    assert sketch.rank_error <= values.size * (1 + np.log2(parts)) / 128
    _check_bound(sketch, values)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=12), seed=st.integers(0, 10**6), data=st.data())
def test_any_tree_of_merges_keeps_its_bound(sizes: list[int], seed: int, data: st.DataObject) -> None:
    """Blocks of any size, merged two at a time in any order."""
    rng = np.random.default_rng(seed)
    blocks = [rng.integers(0, 500, size=n).astype(float) for n in sizes]
    held = [QuantileSketch.of(block, k=8) for block in blocks]
    while len(held) > 1:
        right = held.pop(data.draw(st.integers(0, len(held) - 1)))
        place = data.draw(st.integers(0, len(held) - 1))
        held[place] = held[place].merge(right)
    values = np.concatenate(blocks)
    if values.size:
        _check_bound(held[0], values)
    assert held[0].count == values.size


@given(values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), data=st.data())
def test_small_data_is_exact_in_any_partition(values: list[float], data: st.DataObject) -> None:
    """Up to k values: numpy.quantile to the last bit but one, and one sketch whatever the order."""
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    sketch = QuantileSketch.of(shuffled[cut:], k=64).merge(QuantileSketch.of(shuffled[:cut], k=64))
    assert sketch == QuantileSketch.of(values, k=64)
    assert sketch.rank_error == 0
    np.testing.assert_allclose(sketch.quantiles(_SHARES), np.quantile(values, _SHARES), rtol=1e-15, atol=1e-300)


def test_merging_is_commutative_beyond_k() -> None:
    """The same bits whichever side comes first; another grouping has its own bound."""
    a, b = (QuantileSketch.of(np.random.default_rng(seed).normal(size=5000), k=64) for seed in (1, 2))
    assert a.merge(b) == b.merge(a)
    assert hash(a.merge(b)) == hash(b.merge(a))


def test_json_keeps_the_sketch() -> None:
    """Written, read and merged further as if nothing had happened."""
    a, b = (QuantileSketch.of(np.random.default_rng(seed).normal(size=5000), k=64) for seed in (1, 2))
    again = QuantileSketch.from_dict(json.loads(json.dumps(a.to_dict())))
    assert again == a
    assert again.merge(b) == a.merge(b)


def test_nulls_and_infinities_are_counted_and_left_out() -> None:
    """A column without a finite value has no quantile."""
    sketch = QuantileSketch.of([None, float("nan"), float("inf"), 1.0])
    assert (sketch.count, sketch.nulls, sketch.infinities, sketch.quantile(0.5)) == (1, 2, 1, 1.0)
    empty = QuantileSketch.of([None])
    assert (empty.count, empty.quantile(0.5), empty.rank(3.0)) == (0, None, 0)
    assert empty.merge(sketch).nulls == 3


def test_values_near_the_ends_of_the_range_interpolate() -> None:
    """The difference of two values may overflow, their middle does not."""
    assert QuantileSketch.of([-1.7e308, 1.7e308]).quantile(0.5) == 0.0


def test_wrong_arguments_are_refused() -> None:
    """An odd k, two different ks, and a share above 1."""
    with pytest.raises(InputError, match="even number of values"):
        QuantileSketch.of([1.0], k=9)
    with pytest.raises(InputError, match="are merged must have one k"):
        QuantileSketch.of([1.0], k=8).merge(QuantileSketch.of([1.0], k=10))
    with pytest.raises(InputError, match="between 0 and 1"):
        QuantileSketch.of([1.0]).quantile(1.5)
