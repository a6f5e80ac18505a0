"""Count profiles: one bin per value, counts that add up, edges that outliers cannot move."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.core.statistics.profiles import CategoryProfile, NumericProfile, profile_from_dict

_NUMBERS = st.one_of(st.none(), st.floats(), st.floats(-3, 3), st.integers(-30, 30).map(float))
_WORDS = st.one_of(st.none(), st.sampled_from(["a", "b", "null", "unseen", "é"]), st.text(max_size=2))


def _place(edges: tuple[float, ...], value: float | None) -> str:
    """Bin by the written rule, one comparison at a time."""
    if value is None or math.isnan(value):
        return "null"
    if math.isinf(value):
        return "+inf" if value > 0 else "-inf"
    if not edges or value > edges[-1]:
        return "above"
    if value < edges[0]:
        return "below"
    return str(max(j for j in range(len(edges) - 1) if edges[j] <= value))


@given(reference=st.lists(_NUMBERS, max_size=60), values=st.lists(_NUMBERS, max_size=40), bins=st.integers(1, 12))
def test_numeric_counts_follow_the_written_rule(reference: list, values: list, bins: int) -> None:
    """Every value is counted in the bin that the rule in words gives."""
    profile = NumericProfile.of(reference, bins=bins)
    names = ["below", *map(str, range(max(len(profile.edges) - 1, 0))), "above", "-inf", "+inf", "null"]
    expected = [sum(_place(profile.edges, v) == name for v in values) for name in names]
    assert profile.count(values).tolist() == expected
    assert len(profile.labels) == len(names)


@given(reference=st.lists(_NUMBERS, max_size=30), left=st.lists(_NUMBERS), right=st.lists(_NUMBERS))
def test_numeric_counts_merge_by_addition(reference: list, left: list, right: list) -> None:
    """Counts of the parts add up to the counts of the whole."""
    profile = NumericProfile.of(reference)
    assert (profile.count(left) + profile.count(right)).tolist() == profile.count(left + right).tolist()


@given(reference=st.lists(_NUMBERS, max_size=30))
def test_the_reference_has_nothing_outside_its_own_range(reference: list) -> None:
    """Below and above are empty at reference time, and order does not shape the edges."""
    profile = NumericProfile.of(reference)
    counts = dict(zip(profile.labels, profile.count(reference).tolist(), strict=True))
    assert counts["below"] == counts["above"] == 0
    assert NumericProfile.of(reference[::-1]) == profile


@given(reference=st.lists(_NUMBERS, max_size=30), words=st.lists(_WORDS, max_size=9))
def test_profiles_survive_json(reference: list, words: list) -> None:
    """The JSON form reads back equal, through text."""
    for profile in (NumericProfile.of(reference), CategoryProfile.of(words)):
        assert profile_from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_quantile_bins_hold_equal_mass() -> None:
    """A lognormal column of distinct values: ten bins of exactly a tenth each."""
    values = np.random.default_rng(0).lognormal(0, 3, 10_000)
    assert NumericProfile.of(values).count(values)[1:11].tolist() == [1000] * 10


def test_a_value_equal_to_an_edge_belongs_to_the_right() -> None:
    """The boundary rule on a profile whose edges can be read off."""
    profile = NumericProfile((0.0, 1.0, 2.0))
    assert profile.count([0.0, 1.0, 2.0]).tolist() == [0, 1, 2, 0, 0, 0, 0]


def test_few_distinct_values_get_a_bin_each() -> None:
    """Twenty weekdays and hours stay apart; twenty-one values go by quantiles."""
    assert NumericProfile.of([*range(20)] * 3).count(range(20))[1:-4].tolist() == [1] * 20
    assert len(NumericProfile.of([*range(21)] * 3).edges) == 11


def test_a_frequent_value_keeps_its_own_bin() -> None:
    """Nine tenths zeros: zeros and small positives are not mixed."""
    values = np.concatenate([np.zeros(900), np.linspace(0.1, 5, 100)])
    profile = NumericProfile.of(values)
    assert profile.count(values)[1] == 900


def test_an_outlier_moves_no_edge() -> None:
    """One absurd current value fills the bin above and leaves all others as they were."""
    reference = np.random.default_rng(0).normal(size=1000)
    profile = NumericProfile.of(reference)
    difference = profile.count([*reference, 1e12]) - profile.count(reference)
    assert dict(zip(profile.labels, difference.tolist(), strict=True))["above"] == 1
    assert difference.sum() == 1


@pytest.mark.parametrize(
    "column",
    [pa.array([1, None, 3]), pa.chunked_array([[1.0, None], [3.0]]), np.array([1, np.nan, 3]), [1, None, 3],
     np.array([1, None, 3], dtype=object)],
    ids=["arrow", "chunked", "numpy", "list", "object"],
)  # fmt: skip
def test_columns_count_alike_from_any_container(column: object) -> None:
    """Arrow, NumPy and lists with nulls give one result."""
    assert NumericProfile((0.0, 2.0, 4.0)).count(column).tolist() == [0, 1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("bad", [["1"], np.array(["1.5"]), np.array(["2013-01-01"], dtype="M8[us]"), ["x", 1.0], [{}]])
def test_text_and_times_are_not_numbers(bad: object) -> None:
    """Text that reads as a number is not converted in silence."""
    with pytest.raises(InputError, match="numbers and nulls"):
        NumericProfile.of(bad)


@pytest.mark.parametrize("edges", [(1.0,), (2.0, 1.0), (1.0, 1.0, 2.0), (0.0, math.inf), (math.nan, 1.0)])
def test_edges_that_are_no_bins_are_refused(edges: tuple[float, ...]) -> None:
    """A profile read from storage is checked like a new one."""
    with pytest.raises(InputError, match="edges"):
        NumericProfile(edges)


@given(reference=st.lists(_WORDS), values=st.lists(_WORDS), other=st.lists(_WORDS))
def test_category_counts_follow_the_written_rule(reference: list, values: list, other: list) -> None:
    """Batch, one by one, Arrow and parts agree; what has no bin is unseen."""
    profile = CategoryProfile.of(reference)
    assert set(profile.categories) == {v for v in reference if v is not None}
    names = [*profile.categories, object(), None]
    one_by_one = [0] * len(names)
    for value in values:
        one_by_one[names.index(value) if value in names else len(names) - 2] += 1
    assert profile.count(values).tolist() == one_by_one == profile.count(pa.array(values, pa.string())).tolist()
    assert (profile.count(values) + profile.count(other)).tolist() == profile.count(values + other).tolist()


def test_rare_categories_share_the_unseen_bin() -> None:
    """Only the most frequent are listed, ties by name."""
    profile = CategoryProfile.of(["b", "b", "c", "a", None, None, None], limit=2)
    assert profile.categories == ("a", "b")
    assert profile.count(["c", "d", "a"]).tolist() == [1, 0, 2, 0]


def test_whole_numbers_booleans_and_nan_as_categories() -> None:
    """Typed columns read as text; NaN is null."""
    assert CategoryProfile.of(np.array([3, 12, 3])).categories == ("12", "3")
    assert CategoryProfile.of(np.array([True, False])).categories == ("false", "true")
    assert CategoryProfile.of(["x", float("nan")]).count([float("nan"), np.nan, None]).tolist() == [0, 0, 3]
