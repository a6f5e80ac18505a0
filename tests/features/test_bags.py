"""Functions of a window's events are what plain Python and NumPy say of each window alone."""

import math
import statistics
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError
from retrodict.core.statistics.distinct import LIMIT, DistinctSketch
from retrodict.features.facts.bags import Ragged, Values, check_types, compute, decay
from retrodict.features.plan import Bag

floats = st.none() | st.sampled_from([0.1, 0.2, -0.0, 0.0, 7.0, math.nan, math.inf]) | st.floats(-1e9, 1e9)
wholes = st.none() | st.integers(-3, 3) | st.integers(-(2**62), 2**62)
texts = st.none() | st.sampled_from(["a", "b", "B", "é", "", "日本", "😀"])


def _windows(*columns):
    """Windows of up to twelve events, each a tuple of one value per column."""
    return st.lists(st.lists(st.tuples(*columns), max_size=12), min_size=1, max_size=6)


def _ragged(windows, *types):
    """One structure of all windows and its columns; event i of a window happens i seconds before the decision."""
    sizes = np.array([len(window) for window in windows], dtype=np.int64)
    events = [row for window in windows for row in window]
    happened = np.array([-(10**6) * (len(w) - i) for w in windows for i in range(len(w))], dtype=np.int64)
    ragged = Ragged(np.zeros(len(windows), dtype=np.int64), sizes, np.arange(len(events)), happened)
    return ragged, [Values(pa.array([row[i] for row in events], type_)) for i, type_ in enumerate(types)]


def _held(values):
    """Values that are numbers, without a negative zero."""
    kept = [v for v in values if v is not None and not (isinstance(v, float) and not math.isfinite(v))]
    return [v + 0.0 if isinstance(v, float) else v for v in kept]


def _compare(windows, type_, expected, bag, *, number=0):
    ragged, columns = _ragged(windows, *type_) if isinstance(type_, tuple) else _ragged(windows, type_)
    got = compute(bag, ragged, *columns).to_pylist()
    wanted = [expected(_held([row[number] for row in window])) for window in windows]
    assert repr(got) == repr(wanted)


LISTS = {
    "first": lambda v: v[0] if v else None,
    "last": lambda v: v[-1] if v else None,
    "first_k": lambda v: v[:2] or None,
    "last_k": lambda v: v[-2:] or None,
    "mode": lambda v: min(statistics.multimode(v)) if v else None,
    "distinct": lambda v: len(set(v)),
    "approx_distinct": lambda v: len(set(v)),
}
ORDERED = {"top_k": lambda v: sorted(v, reverse=True)[:2] or None, "bottom_k": lambda v: sorted(v)[:2] or None}


@pytest.mark.parametrize("op", [*LISTS, *ORDERED])
@settings(max_examples=40, deadline=None)
@given(windows=_windows(floats), wide=_windows(wholes))
def test_values_of_numbers(op, windows, wide):
    """Values, lists and counts of floats and of whole numbers are those of Python's lists."""
    expected = (LISTS | ORDERED)[op]
    _compare(windows, pa.float64(), expected, Bag(op, "x", k=2))
    _compare(wide, pa.int64(), expected, Bag(op, "n", k=2))


@pytest.mark.parametrize("op", LISTS)
@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
@settings(max_examples=15, deadline=None)
@given(windows=_windows(texts))
def test_values_of_text(op, type_, windows):
    """Text in any encoding is read alike."""
    _compare(windows, type_, LISTS[op], Bag(op, "tag", k=2))


ORDERS = {
    "argmax": lambda v: v[0] if v else None,
    "argmin": lambda v: v[0] if v else None,
    "top_k_by": lambda v: v[:2] or None,
    "bottom_k_by": lambda v: v[:2] or None,
}


@pytest.mark.parametrize("op", ORDERS)
@pytest.mark.parametrize(
    ("type_", "values"),
    [(pa.float64(), floats), (pa.int64(), wholes), (pa.string(), texts), (pa.bool_(), st.none() | st.booleans())],
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_values_by_another_column_are_polars(op, type_, values, data):
    """The order is that of a stable sort by the other column, events newest first; both columns must hold a value."""
    windows = data.draw(_windows(wholes, values))
    ragged, columns = _ragged(windows, pa.int64(), type_)
    got = compute(Bag(op, "n", "v", k=2), ragged, *columns).to_pylist()
    wanted = []
    for window in windows:
        rows = [
            (n, v + 0.0 if isinstance(v, float) else v) for n, v in reversed(window) if n is not None and _held([v])
        ]
        frame = pl.DataFrame(rows, schema=["n", "v"], orient="row") if rows else pl.DataFrame({"n": [], "v": []})
        ordered = frame.sort("v", descending=op in {"argmax", "top_k_by"}, maintain_order=True)
        wanted.append(ORDERS[op](ordered["n"].to_list()))
    assert got == wanted


@pytest.mark.parametrize("type_", [pa.list_(pa.float64()), pa.large_list(pa.float64()), pa.list_(pa.int64())])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_lists_are_added_element_by_element(type_, data):
    """As fsum adds each column of the whole lists; others are left out."""
    numbers = wholes if type_.value_type == pa.int64() else floats | st.sampled_from([1e308, -1e308])
    windows = data.draw(_windows(st.none() | st.lists(numbers, min_size=2, max_size=2) | st.just([1]) | st.just([])))
    ragged, columns = _ragged(windows, type_)
    sums, means = (compute(Bag(op, "x", k=2), ragged, *columns).to_pylist() for op in ("sum_list", "mean_list"))
    for got, mean, window in zip(sums, means, windows, strict=True):
        whole = [row for (row,) in window if row is not None and len(row) == len(_held(row)) == 2]
        exact = [sum(map(Fraction, map(float, column))) for column in zip(*whole, strict=True)]
        assert got == ([_nearest(total) for total in exact] or None)
        assert mean == (pytest.approx([float(total / len(whole)) for total in exact], rel=1e-15) if whole else None)


def _nearest(total):
    """The nearest double, None if there is none."""
    try:
        return float(total)
    except OverflowError:
        return None


@settings(max_examples=100, deadline=None)
@given(windows=_windows(floats), q=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
def test_quantiles_are_numpys(windows, q):
    """Quantiles lie where NumPy says; the rounding of its last step may differ by one unit."""
    ragged, columns = _ragged(windows, pa.float64())
    for got, window in zip(compute(Bag("quantile", "x", q=q), ragged, *columns).to_pylist(), windows, strict=True):
        values = _held([row[0] for row in window])
        scale = max(map(abs, values), default=0.0)
        assert (got is None) if not values else math.isclose(got, np.quantile(values, q), abs_tol=1e-15 * scale)


@pytest.mark.parametrize(
    ("type_", "values"), [(pa.string(), texts), (pa.int64(), wholes), (pa.bool_(), st.none() | st.booleans())]
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_histograms_are_counters(type_, values, data):
    """A map holds each value's text and count, by code points."""

    def expected(values):
        spoken = Counter(str(v).lower() if isinstance(v, bool) else str(v) for v in values)
        return sorted(spoken.items()) or None

    _compare(data.draw(_windows(values)), type_, expected, Bag("histogram", "v"))


GROUPS = {
    "count": len,
    "sum": lambda v: float(sum(map(Fraction, v))),
    "mean": lambda v: float(sum(map(Fraction, v))) / len(v),
    "min": lambda v: float(min(v)),
    "max": lambda v: float(max(v)),
}


@pytest.mark.parametrize("op", GROUPS)
@pytest.mark.parametrize(("type_", "values"), [(pa.float64(), floats), (pa.int64(), wholes)])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_groups_are_exact(op, type_, values, data):
    """Each group's number is the exact one, rounded once; null values and null groups are left out."""
    windows = data.draw(_windows(values, texts))
    ragged, (value, group) = _ragged(windows, type_, pa.string())
    got = compute(Bag("by", "v", "g", group_op=op), ragged, None if op == "count" else value, group).to_pylist()
    for found, window in zip(got, windows, strict=True):
        groups = {}
        for number, name in window:
            if name is not None and (op == "count" or _held([number])):
                groups.setdefault(name, []).append(number if op == "count" else _held([number])[0])
        expected = [(name, GROUPS[op](groups[name])) for name in sorted(groups)] or None
        assert repr(found) == repr(expected)


@settings(deadline=None)
@given(st.integers(0, 10**13), st.integers(1, 10**12))
def test_decay_is_a_power_of_two(age, half_life):
    """The weight is within two units in the last place of the real one."""
    got = decay(np.array([age]), half_life)[0]
    with localcontext(prec=50, Emin=-99999):
        real = Decimal(2) ** (-Decimal(age) / Decimal(half_life))
        assert abs(Decimal(float(got)) - real) <= 2 * Decimal(math.ulp(float(real)))


def test_decay_has_the_same_bits_one_by_one():
    """An array and its elements alone give equal bits, at whole half-lives exactly a power."""
    ages = np.arange(0, 3 * 10**9, 999_983)
    together = decay(ages, 86_400_000)
    assert all(decay(ages[i : i + 1], 86_400_000)[0] == together[i] for i in range(len(ages)))
    assert decay(np.array([0, 5, 10, 10_000_000]), 5).tolist() == [1.0, 0.5, 0.25, 0.0]


@settings(max_examples=60, deadline=None)
@given(_windows(floats), st.integers(1, 10**8))
def test_decayed_sums_are_exact_sums_of_products(windows, half_life):
    """Products are rounded once and added without error, whatever cancels."""
    ragged, (value,) = _ragged(windows, pa.float64())
    for op, column in (("decayed_sum", value), ("decayed_count", None)):
        got = compute(Bag(op, "x", half_life_us=half_life), ragged, column).to_pylist()
        for found, window in zip(got, windows, strict=True):
            weights = decay(10**6 * np.arange(len(window), 0, -1), half_life).tolist()
            pairs = [(w, 1.0 if column is None else _held([row[0]])) for w, row in zip(weights, window, strict=True)]
            products = [w * (v if column is None else v[0]) for w, v in pairs if v]
            assert found == (math.fsum(products) if products else None)


@pytest.mark.parametrize("spread", [3, 250])
def test_many_windows_at_once_are_each_window_alone(spread):
    """The code paths for many events, narrow or wide in exponent, give the bits of those for few."""
    random = np.random.default_rng(7)
    sizes = random.integers(0, 60, 40)
    total = int(sizes.sum())
    value = pa.array(random.normal(size=total) * 10.0 ** random.integers(-spread, spread, total))
    group, happened = pa.array(random.integers(0, 5, total)), -np.sort(random.integers(1, 10**9, total))
    whole = Ragged(np.zeros(len(sizes), dtype=np.int64), sizes, np.arange(total), happened)
    bags = [Bag("by", "x", "g", group_op=op) for op in ("sum", "mean", "min")]
    bags += [Bag("decayed_sum", "x", half_life_us=10**7), Bag("quantile", "x", q=0.3), Bag("top_k", "x", k=3)]
    bags += [Bag("argmin", "x", "g"), Bag("top_k_by", "x", "g", k=3)]
    for bag in bags:
        together = compute(bag, whole, Values(value), Values(group)).to_pylist()
        for i, (begin, end) in enumerate(zip(whole.begins, whole.ends, strict=True)):
            cut = slice(begin, end)
            alone = Ragged(np.zeros(1, dtype=np.int64), sizes[i : i + 1], np.arange(sizes[i]), happened[cut])
            one = compute(bag, alone, Values(value[cut]), Values(group[cut])).to_pylist()
            assert repr(one) == repr(together[i : i + 1]), bag


def test_approximate_counts_are_exact_up_to_the_limit_and_a_sketch_beyond():
    """Up to 4,096 different values the count is exact whatever the number of events; then it is the sketch's."""
    few = [i % LIMIT for i in range(3 * LIMIT)]
    many = list(range(2 * LIMIT))
    ragged, columns = _ragged([[(v,) for v in few], [(v,) for v in many]], pa.int64())
    expected = [LIMIT, DistinctSketch.of(many).count]
    assert compute(Bag("approx_distinct", "n"), ragged, *columns).to_pylist() == expected
    assert DistinctSketch.of(few).count == LIMIT != expected[1] != len(many)


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (pa.bool_(), [True, False]),
        (pa.int16(), [3, -1]),
        (pa.float32(), [0.5, 2.5]),
        (pa.date32(), [date(2020, 1, 2), date(1969, 1, 1)]),
        (pa.timestamp("us", "UTC"), [datetime(2020, 1, 2, tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC)]),
        (pa.string(), ["b", "a"]),
        (pa.large_string(), ["b", "a"]),
    ],
)
def test_values_keep_the_type_of_their_column(type_, values):
    """First, last and lists hold the column's own Arrow type."""
    ragged, columns = _ragged([[(v,) for v in values], []], type_)
    last = compute(Bag("last", "v"), ragged, *columns)
    both = compute(Bag("first_k", "v", k=5), ragged, *columns)
    assert compute(Bag("argmax", "v", "v"), ragged, *columns, *columns).to_pylist() == [max(values), None]
    assert (last.type, both.type) == (type_, pa.list_(type_))
    assert (last.to_pylist(), both.to_pylist()) == ([values[-1], None], [values, None])
    assert compute(Bag("distinct", "v"), ragged, *columns).to_pylist() == [2, 0]


def test_time_since_last_is_in_seconds():
    """The newest event of each window decides; a window without events is null."""
    ragged = Ragged(np.array([10_500_000, 7]), np.array([2, 0]), np.array([0, 1]), np.array([1, 2_000_000]))
    assert compute(Bag("time_since_last"), ragged).to_pylist() == [8.5, None]


def test_median_of_a_thousand():
    """The quantile of one half is the median that the statistics module gives."""
    values = np.random.default_rng(3).normal(size=1001).tolist()
    ragged, columns = _ragged([[(v,) for v in values]], pa.float64())
    assert compute(Bag("quantile", "x", q=0.5), ragged, *columns).to_pylist() == [statistics.median(values)]


@pytest.mark.parametrize(
    ("bag", "types", "message"),
    [
        (Bag("histogram", "x"), [pa.float64()], "a histogram is of text, whole numbers or booleans; got 'double'"),
        (Bag("top_k", "x", k=2), [pa.string()], "top_k reads numbers, booleans or times; got 'string'"),
        (Bag("first", "x"), [pa.binary()], "first reads numbers, booleans, times, dates or text; got 'binary'"),
        (Bag("sum_list", "x", k=2), [pa.float64()], "sum_list reads lists of numbers; got 'double'"),
        (Bag("sum_list", "x", k=2), [pa.list_(pa.string())], "sum_list reads lists of numbers"),
        (Bag("last", "x"), [pa.list_(pa.int64())], "last reads numbers, booleans, times, dates or text"),
        (Bag("by", "x", "g", group_op="sum"), [pa.int64(), pa.float64()], "groups are text, whole numbers or booleans"),
        (Bag("top_k_by", "x", "g", k=2), [pa.int64(), pa.binary()], "top_k is ordered by numbers, booleans"),
        (Bag("by", "x", "g", group_op="sum"), [pa.string(), pa.string()], "by reads numbers, booleans or times"),
    ],
)
def test_columns_that_cannot_be_read_are_refused(bag, types, message):
    """The error names view, feature, column, rule and remedy."""
    columns = [Values(pa.nulls(0, type_)) for type_ in types]
    with pytest.raises(
        DefinitionError, match=f"view 'v', feature 'f', column '[xg]': {message}.*(Use|Turn|Round|Name)"
    ):
        check_types(bag, columns[0], columns[1] if len(columns) > 1 else None, where="view 'v', feature 'f'")
