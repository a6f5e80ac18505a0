"""Values at the edges of their types: one answer in every execution, and in the oracle, or one refusal in our words."""

from __future__ import annotations

import math
import statistics
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict import Entity, FeatureView, Source, Table, Window, agg, latest
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import content_hash
from retrodict.features import FeatureSet
from retrodict.features.catalogue import check_schema, describe, lineage
from retrodict.features.facts.columns import known_type
from retrodict.features.offline import training_frame
from retrodict.features.online import OnlineFeatures, OnlineState, StreamFeeder, Upkeep, build_online, encode_event
from retrodict.features.online.read import programs
from retrodict.features.operations.pushed_events import push_events
from retrodict.features.verify import verify
from retrodict.features.verify.oracle import Oracle, plain
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.testing.memory import MemoryKeys

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")


def features_of(*features, key="k", columns=None):
    """A set of one view of source ``s``; no column is declared unless said."""
    table = Table("events", key="id", columns=columns or {})
    return FeatureSet([FeatureView("v", Entity(key), Source("s", table, event_time="e", sequence="id"), features)])


def events(**columns):
    """One event a second."""
    count = len(next(iter(columns.values())))
    clock = pa.array([START + timedelta(seconds=n) for n in range(count)], TIME)
    return pa.table({"id": list(range(count)), "e": clock, **columns})


def requests(**columns):
    """Requests some minutes later."""
    count = len(next(iter(columns.values())))
    return pa.table({"q": pa.array([START + timedelta(seconds=900 + n) for n in range(count)], TIME), **columns})


def offline(features, table, spine):
    """Rows of the training frame."""
    frame = training_frame(spine, "q", features, {"s": table}).select(list(features.columns))
    return [{name: plain(value) for name, value in row.items()} for row in frame.to_pylist()]


def read(features, keys, spine):
    """The same from online state."""
    reader = OnlineFeatures(features, keys)
    rows = [{name: plain(value) for name, value in row.items()} for row in spine.to_pylist()]
    return [reader.read(row, {}, row["q"]).values for row in rows]


def from_table(features, table, spine):
    """Online state of the table."""
    keys = MemoryKeys()
    OnlineState(features, keys, horizon="9000d").apply(table, "s")
    return read(features, keys, spine)


def from_stream(features, table, spine, folder):
    """Online state of the same events as records of a stream, one by one and all twice."""
    keys, streams = MemoryKeys(), SegmentStreams(folder)
    with streams.open_writer("events/s") as writer:
        writer.append([encode_event(row) for row in table.to_pylist()] * 2)
    state = OnlineState(features, keys, horizon="9000d")
    StreamFeeder(state, streams, "events/s", "s", batch=1, schema=table.schema).catch_up()
    return read(features, keys, spine)


def by_oracle(features, table, spine):
    """What the definition says."""
    oracle = Oracle(features.views[0].view, table.to_pylist())
    rows = [oracle.values(row, plain(row["q"])) for row in spine.to_pylist()]
    return [{f"v__{name}": value for name, value in row.items()} for row in rows]


def agreed(features, table, spine, folder):
    """What every execution gives; they agree to the bit, and a verification passes."""
    rows = offline(features, table, spine)
    for other in (
        from_table(features, table, spine),
        from_stream(features, table, spine, folder),
        by_oracle(features, table, spine),
    ):
        assert repr(other) == repr(rows)
    assert verify(features, {"s": table}, spine, "q", stream=True, samples=10).verdict == "equal"
    return rows


def refused(features, table, spine, folder, *, error, match):
    """Every execution refuses it in the same words."""
    for run in (offline, from_table):
        with pytest.raises(error, match=match):
            run(features, table, spine)
    with pytest.raises(error, match=match):
        from_stream(features, table, spine, folder)
    with pytest.raises(error, match=match):
        verify(features, {"s": table}, spine, "q", stream=True, samples=10)


@pytest.mark.parametrize("columns", [{}, {"d": "date", "e": "time", "id": "int", "x": "float"}])
@pytest.mark.parametrize("type_", [pa.date32(), pa.date64()])
def test_a_day_is_a_key(tmp_path, columns, type_):
    """Keys of type date, declared or not, find their events everywhere."""
    days = pa.array([date(2024, 1, 1), date(1969, 12, 31), date(2024, 1, 1), None], type_)
    features = features_of(agg.count(over="1h"), agg.sum("x", over="1h"), key="d", columns=columns)
    rows = agreed(features, events(d=days, x=[1.0, 2.0, 4.0, 8.0]), requests(d=days), tmp_path)
    assert [row["v__sum_x_1h"] for row in rows] == [5.0, 2.0, 5.0, None]


@given(st.lists(st.decimals(-(10**9), 10**9, places=4), min_size=1, max_size=20), st.sampled_from([18, 38, 50]))
def test_a_decimal_is_the_nearest_double(values, digits):
    """Python's own float of a decimal, whatever its width; Arrow's cast is off by a bit for one in eight."""
    type_ = pa.decimal128(digits, 4) if digits <= 38 else pa.decimal256(digits, 4)
    assert known_type(pa.array(values, type_), where="x").to_pylist() == [float(value) for value in values]


@pytest.mark.parametrize("columns", [{}, {"p": "float"}])
def test_decimals_are_alike_everywhere(tmp_path, columns):
    """Sums, newest values, conditions and different values of decimals, from tables and from streams."""
    prices = pa.array([Decimal("-85.41"), Decimal("15.10"), None, Decimal("70.31")], pa.decimal128(12, 2))
    kinds = [agg.sum("p", over="1h"), agg.count(over="1h", where="p > 15.1"), latest("p"), agg.distinct("p", over="1h")]
    rows = agreed(
        features_of(*kinds, agg.last_k("p", 2, over="1h"), columns=columns),
        events(k=["a"] * 4, p=prices),
        requests(k=["a"]),
        tmp_path,
    )
    assert list(rows[0].values()) == [math.fsum([-85.41, 15.1, 70.31]), 1, 70.31, 3, [15.1, 70.31]]


def test_a_stored_type_is_that_of_the_stream(make_project):
    """Decimals and days that only the stored table knows of: pushed, taken in by its types, and as a table anew."""
    project = make_project()
    features = features_of(agg.sum("p", over="1h"), agg.count(over="1h", where="p > 15.1"), key="d")
    days = pa.array([date(2024, 1, 1), date(2024, 1, 2)] * 2)
    prices = pa.array([Decimal("-85.41"), Decimal("15.10"), None, Decimal("70.31")], pa.decimal128(12, 2))
    table = events(d=days, p=prices)
    project.tables.write("events", table.slice(0, 2))
    build_online(project, [features])
    pushed = push_events(project, features.sources["s"], [features.views[0].view], table.slice(2))
    assert (pushed.accepted, pushed.refused) == (2, 0)
    assert Upkeep(project, lambda _: [features]).catch_up() == 2
    spine = requests(d=days)
    assert read(features, project.keys, spine) == offline(features, table, spine)


NANOSECOND = pa.array([1_704_067_200_000_000_999, -1], pa.timestamp("ns", "UTC"))


@pytest.mark.parametrize(
    ("values", "newest"),
    [
        (NANOSECOND, -1),
        (pa.array(["x", "é"], pa.string_view()), "é"),
        (pa.array([1, 2**63 - 1], pa.uint64()), 2**63 - 1),
        (pa.array([1.5, 2.5], pa.float16()), 2.5),
        (pa.array(["x", "é"]).dictionary_encode(), "é"),
        (pa.array([date(2024, 1, 1), date(1969, 1, 1)], pa.date64()), date(1969, 1, 1)),
    ],
)
def test_types_of_other_frames_are_read(tmp_path, values, newest):
    """What pandas, Polars and others hold besides the types of our tables: as a value and as a key."""
    spine = requests(k=["a"])
    rows = agreed(
        features_of(latest("x"), agg.distinct("x", over="1h")), events(k=["a", "a"], x=values), spine, tmp_path
    )
    assert rows == [{"v__latest_x": newest, "v__distinct_x_1h": 2}]
    if not pa.types.is_floating(values.type):
        keyed = features_of(agg.count(over="1h"), key="x")
        assert agreed(keyed, events(x=values), requests(x=values), tmp_path / "keyed")[1] == {"v__count_1h": 1}


def test_finer_clocks_are_cut_to_microseconds(tmp_path):
    """Event times and times of requests in nanoseconds: what lies in one microsecond is one moment."""
    clock = pa.array([1_704_067_200_000_000_999, 1_704_067_200_000_001_000], pa.timestamp("ns", "UTC"))
    table = events(k=["a", "a"]).set_column(1, "e", clock)
    spine = pa.table(
        {"k": ["a", "a"], "q": pa.array([1_704_067_200_000_000_999, 1_704_067_200_000_001_999], clock.type)}
    )
    rows = agreed(features_of(agg.count(over="1h")), table, spine, tmp_path)
    assert [row["v__count_1h"] for row in rows] == [0, 1]


@pytest.mark.parametrize("role", ["x", "k"])
def test_whole_numbers_beyond_64_bits_are_refused_by_name(tmp_path, role):
    """Of an unsigned column that holds one, as a value and as a key."""
    columns = {"k": ["a", "a"], "x": [1, 2]} | {role: pa.array([1, 2**63], pa.uint64())}
    spine = requests(k=columns["k"])
    features, table = features_of(agg.max("x", over="1h")), events(**columns)
    for run in (offline, from_table):
        with pytest.raises(InputError, match=f"column '{role}': whole numbers must fit in 64 bits"):
            run(features, table, spine)
    with pytest.raises(InputError, match=f"column '{role}': the values of a column must be of one type"):
        from_stream(features, table, spine, tmp_path)


@pytest.mark.parametrize(
    "type_", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float64(), 2), pa.list_(pa.int64())]
)
def test_lists_of_numbers_are_added_element_by_element(tmp_path, type_):
    """Whatever kind of list holds them; one of nulls, or of another length, is left out, of each key alike."""
    lists = [[1, 2], [None, 4], None, [8, 16], [3, 5]]
    if pa.types.is_fixed_size_list(type_):
        lists[1] = [None, None]
    else:
        lists += [[7], [1, 2, 3], []]
    table = events(k=[*["a"] * 4, *["b"] * (len(lists) - 4)], x=pa.array(lists, type_))
    features = features_of(
        *[agg.sum_list("x", 2, over=o) for o in ("1h", "lifetime")], agg.mean_list("x", 2, over="1h")
    )
    rows = agreed(features, table, requests(k=["a", "b", "c"]), tmp_path)
    values = [list(row.values()) for row in rows]
    assert values == [[[9.0, 18.0], [9.0, 18.0], [4.5, 9.0]], [[3.0, 5.0]] * 3, [None] * 3]


def test_lists_of_text_are_refused(tmp_path):
    """By view and column, in every execution."""
    table = events(k=["a"], x=[["p", "q"]])
    match = "column 'x': sum_list reads lists of numbers; got 'list<.*string>'"
    refused(features_of(agg.sum_list("x", 2, over="1h")), table, requests(k=["a"]), tmp_path, error=DefinitionError,
            match=match)  # fmt: skip


def test_lists_are_pushed_to_a_table_that_has_them(make_project):
    """An event with a list reaches the state through the stream; one whose list holds text is refused by reason."""
    project = make_project()
    features = features_of(agg.mean_list("x", 2, over="1h"))
    table = events(k=["a"] * 3, x=[[1.0, 2.0], [5.0, None], [7.0, 8.0]])
    project.tables.write("events", table.slice(0, 1))
    build_online(project, [features])
    views = [features.views[0].view]
    assert push_events(project, features.sources["s"], views, table.slice(1)).accepted == 2
    assert Upkeep(project, lambda _: [features]).catch_up() == 2
    assert read(features, project.keys, requests(k=["a"])) == [{"v__mean_list_x_1h": [4.0, 5.0]}]
    texts = push_events(project, features.sources["s"], views, events(k=["a"], x=[["p", "q"]]))
    assert [reason.reason for reason in texts.reasons] == ["x is not a list of numbers"]


def test_a_key_of_too_many_bits_is_the_callers_mistake():
    """A request with a whole number that no table can hold."""
    features, keys = features_of(agg.count(over="1h")), MemoryKeys()
    with pytest.raises(InputError, match=r"a key that is a whole number must fit in 64 bits; got '65 bits'"):
        OnlineFeatures(features, keys).read({"k": 2**64}, {}, 0)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([b"x", b"y"]),
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, {"a": 2}]),
    ],
)
def test_what_no_state_holds_is_no_latest_value(tmp_path, values):
    """Bytes, lists and structs are refused by training frames as well, by view and column."""
    refused(
        features_of(latest("x")),
        events(k=["a", "a"], x=values),
        requests(k=["a"]),
        tmp_path,
        error=DefinitionError,
        match="view 'v', column 'x': a latest value must be a number, a boolean, text, a time or a date",
    )


@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_frames_of_others_are_read(frame):
    """Spine and events of pandas and Polars give what Arrow tables give, in training, online and verification."""
    features = features_of(agg.sum("x", over="1h"), latest("tag"))
    table, spine = events(k=["a", "b"], x=[1, 2], tag=["p", "q"]), requests(k=["a", "b"])
    to_frame = (lambda rows: rows.to_pandas()) if frame == "pandas" else pytest.importorskip("polars").from_arrow
    expected = training_frame(spine, "q", features, {"s": table})
    got = training_frame(to_frame(spine), "q", features, {"s": to_frame(table)})
    assert got.to_pylist() == expected.to_pylist()
    assert from_table(features, to_frame(table), spine) == offline(features, table, spine)
    assert verify(features, {"s": to_frame(table)}, to_frame(spine), "q", stream=True, samples=5).verdict == "equal"


@pytest.mark.parametrize("rows", [[{"k": "a"}], {"k": ["a"]}, "spine.csv", pa.chunked_array([[1]])])
def test_what_is_no_frame_is_refused_in_our_words(rows):
    """A list of rows, a path, a series."""
    with pytest.raises(InputError, match=r"spine: rows must be an Arrow table, or a frame of pandas or Polars"):
        training_frame(rows, "q", features_of(agg.count(over="1h")), {"s": events(k=["a"])})


def precise_root(value):
    """Nearest double of a root, by Decimal of a thousand digits; beyond doubles an infinity."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 1000, MAX_EMAX, MIN_EMIN
        return float((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


def nearest(value):
    """Nearest double of a fraction, None if there is none."""
    try:
        return float(value)
    except OverflowError:
        return None


MOMENTS = [agg.variance("x", over="1h"), agg.std("x", over="1h"), agg.skew("x", over="1h"), agg.slope("x", over="1h")]


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 3.0, 1e200],
        [1e160, -1e160, 0.0],
        [1e110, 2e110, 5e110],
        [1.7e308, -1.7e308, 1.7e308],
        [1e-200, 2e-200, 4e-200],
        [5e-324, 0.0, 5e-324],
        [1e-300, 1e300, 7.0],
        [0.1, 0.2, 0.4],
    ],
)
def test_moments_have_the_value_that_is_a_double(tmp_path, values):
    """Variance, deviation, skewness and slope of values whose powers no double holds, against fractions and Decimal."""
    keys, x = ["a"] * len(values) + ["b", "b"], [*values, 1.0, 3.0]
    rows = agreed(features_of(*MOMENTS), events(k=keys, x=x), requests(k=["a", "b"]), tmp_path)
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    second, third = (sum((value - mean) ** power for value in exact) / len(exact) for power in (2, 3))
    variance = second * len(exact) / (len(exact) - 1)
    got = rows[0]
    assert got["v__variance_x_1h"] == nearest(variance)
    deviation = precise_root(variance)
    if math.isinf(deviation):
        assert got["v__std_x_1h"] is None
    else:
        assert math.isclose(got["v__std_x_1h"], deviation, rel_tol=3e-16, abs_tol=5e-324)
    skew_squared = third * third / second**3
    assert math.isclose(got["v__skew_x_1h"] ** 2, float(skew_squared), rel_tol=2e-15)
    assert (got["v__skew_x_1h"] < 0) == (third < 0)
    middle = Fraction(len(exact) - 1, 2)  # one event a second
    joint = sum((second - middle) * value for second, value in enumerate(exact))
    assert got["v__slope_x_per_1h_1h"] == nearest(3600 * joint / sum((n - middle) ** 2 for n in range(len(exact))))
    assert list(rows[1].values()) == [2.0, math.sqrt(2.0), 0.0, 7200.0]


@pytest.mark.parametrize("values", [[2**53 + 1] * 2, [2**60 + 1, 2**60 + 3, 2**60 + 129], [2**62, -(2**62), 5]])
def test_moments_of_whole_numbers_that_are_no_doubles(tmp_path, values):
    """Each is read as the nearest double, in its sum as in its powers, so nothing is left over between them."""
    features = features_of(*MOMENTS, agg.sum("x", over="1h"))
    rows = agreed(features, events(k=["a"] * len(values), x=values), requests(k=["a"]), tmp_path)
    exact = [Fraction(float(value)) for value in values]
    assert rows[0]["v__variance_x_1h"] == nearest(statistics.variance(exact))
    assert rows[0]["v__sum_x_1h"] == sum(values)


extremes = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1.0, -1.0, 1e200, -1e200, 1e-200, 1.7e308, -1.7e308, 5e-324, 1e110, 3e153]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), extremes), min_size=1, max_size=12), st.integers(1, 4))
def test_extremes_are_the_oracles(rows, batch):
    """Every aggregate of numbers, of any doubles, fed in batches whose blocks have other scales each."""
    over = ["5s", "1h", Window("1h", include_current=True)]
    totals = [agg.sum("x", over=over), agg.mean("x", over=over), agg.variance("x", over=over), agg.std("x", over=over)]
    totals += [
        agg.skew("x", over=over),
        agg.slope("x", over=over, per="1s"),
        agg.ratio("x", "x", over="1h"),
        agg.sum("x", over="lifetime"),
    ]
    bags = [agg.quantile("x", 0.3, over="1h"), agg.by("k", "sum", "x", over="1h"), agg.by("k", "mean", "x", over="1h")]
    features = features_of(*totals, agg.std("x", over="lifetime"), *bags)
    table, spine = events(k=[k for k, _ in rows], x=[x for _, x in rows]), requests(k=["a", "b"], x=[1.0, 1e250])
    expected = by_oracle(features, table, spine)
    assert repr(offline(features, table, spine)) == repr(expected)
    keys = MemoryKeys()
    state = OnlineState(features, keys, horizon="9000d")
    for first in range(0, table.num_rows, batch):
        state.apply(table.slice(first, batch), "s")
    assert repr(read(features, keys, spine)) == repr(expected)


def test_sums_that_are_no_double_are_null_and_their_means_are_not(tmp_path):
    """Of values near the end of the range: the sum is null, the mean is what it is, in maps as well."""
    kinds = [agg.sum("x", over="1h"), agg.mean("x", over="1h"), agg.decayed_sum("x", half_life="9000d", over="1h")]
    kinds += [
        agg.by("k", "sum", "x", over="1h"),
        agg.by("k", "mean", "x", over="1h"),
        agg.quantile("y", 0.5, over="1h"),
    ]
    table = events(k=["a"] * 3, x=[1e308] * 3, y=[1.5e308, -1.5e308, None])
    rows = agreed(features_of(*kinds), table, requests(k=["a"]), tmp_path)
    assert list(rows[0].values()) == [None, 1e308, None, {"a": None}, {"a": 1e308}, 0.0]


@pytest.mark.parametrize("kernel", [True, False])
def test_a_sum_of_whole_numbers_beyond_64_bits_is_refused_by_name(tmp_path, kernel, monkeypatch):
    """In every execution, naming view and column; up to the last number of 64 bits it is exact."""
    if not kernel:
        monkeypatch.setattr(programs, "kernel", None)
    features, spine = features_of(agg.sum("n", over="1h")), requests(k=["a"])
    fits = events(k=["a"] * 3, n=[2**62, 2**62 - 1, -1])
    assert agreed(features, fits, spine, tmp_path / "fits") == [{"v__sum_n_1h": 2**63 - 2}]
    rule = "view 'v', sum of column 'n': a sum of whole numbers must fit in 64 bits"
    too_many = events(k=["a"] * 2, n=[2**62, 2**62])
    refused(features, too_many, spine, tmp_path, error=DefinitionError, match=rule)
    least = events(k=["a"] * 2, n=[-(2**62), -(2**62)])
    assert agreed(features, least, spine, tmp_path / "least") == [{"v__sum_n_1h": -(2**63)}]


def a_sale(k, price, quantity, sold, note=None):
    return {"k": k, "price": price, "quantity": quantity, "sold": START + sold, "note": note}


SALES = pa.Table.from_pylist(
    [
        a_sale("a", 2.5, 4, timedelta(hours=1, microseconds=1), "né"),
        a_sale("a", 0.1, 3, timedelta(hours=23), "née"),
        a_sale("a", None, 7, timedelta(days=2, hours=1), None),
        a_sale("b", math.nan, 1, timedelta(0), ""),
        a_sale("a", math.inf, 2, timedelta(hours=5), "x"),
        a_sale("a", 7.0, 0, timedelta(hours=6), "xy"),
    ],
    schema=pa.schema(
        [("k", pa.string()), ("price", pa.float64()), ("quantity", pa.int64()), ("sold", TIME), ("note", pa.string())]
    ),
)


@pytest.mark.parametrize("columns", [{}, {"price": "float", "quantity": "int", "sold": "time", "note": "string"}])
def test_an_input_may_be_an_expression(tmp_path, columns):
    """Every aggregate that takes a column takes an expression; null and non-finite results are left out."""
    kinds = {
        agg.sum("price * quantity", over="1h"): 2.5 * 4 + 0.1 * 3 + 7.0 * 0,
        agg.mean("price / 7", over="1h"): math.fsum([2.5 / 7, 0.1 / 7, 7.0 / 7]) / 3,
        agg.mean("hour(sold)", over="1h"): (1 + 23 + 1 + 5 + 6) / 5,
        agg.max("quantity - price", over="1h"): max(4 - 2.5, 3 - 0.1, 0 - 7.0),
        agg.min("quantity * -2", over="1h"): -14,
        agg.max("sold - 1h", over="1h"): plain(START + timedelta(days=2)),
        agg.ratio("price * quantity", "quantity + 1", over="1h"): float(
            (Fraction(2.5 * 4) + Fraction(0.1 * 3)) / (5 + 4 + 1)
        ),
        agg.std("length(note)", over="1h"): float(Fraction(2, 3)) ** 0.5,
        agg.distinct("length(note) > 2", over="1h"): 2,
        agg.last("coalesce(note, 'none')", over="1h", where="price is null"): "none",
        agg.top_k("price / quantity", 2, over="1h"): [2.5 / 4, 0.1 / 3],
        agg.median("quantity * quantity", over="1h"): 9.0,
        agg.histogram("weekday(sold)", over="1h"): {"0": 4, "2": 1},
        agg.by("length(note)", "sum", "quantity * 2", over="1h"): {"1": 4.0, "2": 8.0, "3": 6.0},
        agg.decayed_sum("quantity + 1", half_life="9000d", over="1h", name="decayed"): None,
        agg.sum("quantity > 2", over="1h"): 3,
        agg.share("price * quantity > 1", over="1h"): 2 / 4,
    }
    rows = agreed(features_of(*kinds, columns=columns), events(**_columns(SALES)), requests(k=["a"]), tmp_path)
    for (kind, expected), value in zip(kinds.items(), rows[0].values(), strict=True):
        assert expected is None or repr(value) == repr(expected), kind


def _columns(table):
    return {name: table.column(name) for name in table.column_names}


odd = st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, None])
number = st.one_of(odd, st.integers(-(2**31), 2**31), st.floats(width=32))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(number, number), min_size=1, max_size=8),
    st.sampled_from(["x / y", "x * 3 - y", "greatest(x, y)", "case when x > y then x / 49 else - y end"]),
)
def test_an_expression_is_the_same_everywhere(tmp_path_factory, pairs, text):
    """Of any numbers, the events of the request among them."""
    table = events(
        k=["a"] * len(pairs),
        **{n: pa.array(map(_float, c)) for n, c in zip("xy", zip(*pairs, strict=True), strict=True)},
    )
    over = ["1h", Window("1h", include_current=True)]
    features = features_of(agg.sum(text, over=over, name="s"), agg.max(text, over=over, name="m"))
    spine = requests(k=["a"] * len(pairs)).append_column("x", table.column("x")).append_column("y", table.column("y"))
    rows, keys = offline(features, table, spine), MemoryKeys()
    OnlineState(features, keys, horizon="9000d").apply(table, "s")
    reader = OnlineFeatures(features, keys)
    asked = [{name: plain(value) for name, value in row.items()} for row in spine.to_pylist()]
    assert repr([reader.read(row, row, row["q"]).values for row in asked]) == repr(rows)
    assert repr(by_oracle(features, table, spine)) == repr(rows)


def _float(value):
    return None if value is None else float(value)


@pytest.mark.parametrize("column", ["arr delay", "dep-delay", "a/b", "Betrag (EUR)", "in - out"])
def test_a_column_of_any_name_is_a_column(tmp_path, column):
    """By its spelling, or because the table declares it; its feature has the name and the hash it always had."""
    columns = {column: "float"} if column == "in - out" else {}
    features = features_of(agg.sum(column, over="1h"), columns=columns)
    table = events(k=["a", "a"], **{column: [1.0, 2.0], "in": [5.0, 5.0], "out": [1.0, 1.0]})
    assert list(agreed(features, table, requests(k=["a"]), tmp_path)[0].values()) == [3.0]
    assert "computed" not in features.views[0].identity
    if column == "in - out":
        quoted = features_of(agg.sum('"in - out"', over="1h"))
        assert list(offline(quoted, table, requests(k=["a"]))[0].values()) == [3.0]
        other = features_of(agg.sum('"in" - out', over="1h"))
        assert list(offline(other, table, requests(k=["a"]))[0].values()) == [8.0]
        assert quoted.views[0].state_id != other.views[0].state_id != features.views[0].state_id


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (
            agg.sum("price * quantty", over="1h"),
            "got 'quantty'. Did you mean the column 'quantity'",
        ),
        (agg.sum("price * note", over="1h"), "price \\* note"),
        (agg.sum("note || 'x'", over="1h"), "note || 'x'"),
        (agg.mean("coalesce(note, 'x')", over="1h"), "an aggregate must read numbers, booleans or times"),
        (agg.max("sold - other", over="1h"), r"Write seconds\(sold - other\)"),
    ],
)
def test_a_mistaken_expression_is_refused(tmp_path, kind, rule):
    """Columns there are not and values of the wrong kind, by view and with the near name; `plan` names the feature."""
    features, table = features_of(kind), events(**_columns(SALES), other=SALES.column("sold"))
    for run in (offline, from_table):
        with pytest.raises((DefinitionError, InputError), match=f"view 'v'.*{rule}"):
            run(features, table, requests(k=["a"]))
    with pytest.raises(DefinitionError, match=f"view 'v', feature '{kind.names()[0]}'"):
        check_schema(features.views[0], table.schema)


def test_an_expression_beyond_64_bits_is_refused_by_name(tmp_path):
    """As sums are: in every execution, naming view and expression; fractions go on."""
    rule = r"view 'v'.* n \* n: a whole number must fit in 64 bits"
    table, spine = events(k=["a", "a"], n=[3, 2**32]), requests(k=["a"])
    refused(features_of(agg.sum("n * n", over="1h")), table, spine, tmp_path, error=DefinitionError, match=rule)
    as_fractions = features_of(agg.sum("1.0 * n * n", over="1h"))
    assert agreed(as_fractions, table, spine, tmp_path / "f") == [{"v__sum_1_0_times_n_times_n_1h": 9.0 + 2.0**64}]


def test_expressions_are_described(tmp_path):
    """The catalogue shows expressions, lineage the columns behind them; a duration is refused when it is defined."""
    view = features_of(agg.sum("price * quantity", over="1h"), agg.by("hour(e)", "count", over="1h")).views[0].view
    assert str(describe(view)[0]) == "sum of price * quantity over 1h"
    assert {use.column for use in lineage(view)} >= {"price", "quantity", "e"}
    assert {use.name for use in view.uses()} == {"k", "price", "quantity", "e"}
    for text, remedy in [("e - (e - 2h)", r"Write seconds\(e - "), ("1 + 1", r"Use agg.count")]:
        with pytest.raises(DefinitionError, match=f"view 'v', feature .* give no duration; got .*{remedy}"):
            features_of(agg.max(text, over="1h"))


def instant(text):
    return datetime.fromisoformat(text)


# Where each day begins, from the tables of the zones: a change to and from summer time, one of half an hour, a midnight
# that does not exist, a day that does not, a clock that leaps over midnight, and one that is set back over it.
MIDNIGHTS = [
    ("Europe/Berlin", "2024-03-31", "2024-03-30T23:00Z", "2024-03-31T22:00Z"),
    ("Europe/Berlin", "2024-10-27", "2024-10-26T22:00Z", "2024-10-27T23:00Z"),
    ("Australia/Lord_Howe", "2024-04-07", "2024-04-06T13:00Z", "2024-04-07T13:30Z"),
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
    ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00Z", "2011-12-30T10:00Z"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
    ("America/Toronto", "1919-03-31", "1919-03-31T04:30Z", "1919-04-01T04:00Z"),
    ("America/St_Johns", "2010-11-07", "2010-11-07T02:30Z", "2010-11-08T03:30Z"),
]


@pytest.mark.parametrize(("zone", "day", "begins", "ends"), MIDNIGHTS)
def test_a_day_begins_where_its_zone_says(zone, day, begins, ends):
    """The window of the day before a decision, for one decision and for an array of them."""
    window, first, last = Window.calendar("day", zone=zone, before=1), plain(instant(begins)), plain(instant(ends))
    following = plain(instant(ends) + timedelta(hours=3))
    if first == last:  # the day was skipped: whoever decides on the next one finds it empty
        assert (window.start(following), window.end(following)) == (first, first)
        return
    assert (window.start(following), window.end(following)) == (first, last)
    moments = np.array([last, last - 1, following])
    starts, ends_ = window.start(moments), window.end(moments)
    assert starts.tolist() == [window.start(moment) for moment in moments.tolist()]
    assert ends_.tolist() == [window.end(moment) for moment in moments.tolist()] == [last, first, last]
    current = Window.calendar("day", zone=zone)
    assert [current.start(at) for at in (first, last - 1, last)] == [first, first, last]


@pytest.mark.parametrize(
    ("window", "at", "start", "end"),
    [
        (Window.calendar("week", zone="Europe/Berlin"), "2024-04-03T12:00Z", "2024-03-31T22:00Z", "2024-04-03T12:00Z"),
        (
            Window.calendar("week", count=2, before=1, zone="Europe/Berlin"),
            "2024-04-03T12:00Z", "2024-03-17T23:00Z", "2024-03-31T22:00Z",
        ),
        (
            Window.calendar("month", zone="America/New_York", count=2, before=1),
            "2024-01-01T05:00Z", "2023-11-01T04:00Z", "2024-01-01T05:00Z",
        ),
        (
            Window.calendar("month", zone="America/New_York"),
            "2024-01-01T04:59Z", "2023-12-01T05:00Z", "2024-01-01T04:59Z",
        ),
        (Window.calendar("month", count=12, before=3), "2024-02-29T00:00Z", "2022-12-01T00:00Z", "2023-12-01T00:00Z"),
    ],
)  # fmt: skip
def test_weeks_and_months_are_those_of_the_calendar(window, at, start, end):
    """Weeks begin on Monday, months have their own length; never further back than is kept."""
    at, start, end = (plain(instant(text)) for text in (at, start, end))
    assert (window.start(at), window.end(at)) == (start, end)
    assert window.offset_us <= at - end < window.offset_us + window.hop_us
    assert window.offset_us + window.length_us <= at - start < window.reach_us


@pytest.mark.parametrize("clock", [{}, {"delay": "45m"}, {"known_at": "known"}])
@pytest.mark.parametrize(("zone", "day"), sorted({(zone, day) for zone, day, *_ in MIDNIGHTS}))
def test_calendar_windows_are_the_same_everywhere(tmp_path, zone, day, clock):
    """Totals, extremes and lists over days, weeks and months around the odd days of each zone."""
    begins = next(b for z, d, b, _ in MIDNIGHTS if (z, d) == (zone, day))
    steps = [timedelta(hours=h, microseconds=m) for h in (-49, -25, -24, -1, 0, 1, 23, 24, 25) for m in (-1, 0, 1)]
    happened = pa.array([instant(begins) + step for step in steps], TIME)
    known = pa.array([instant(begins) + step + timedelta(minutes=7 * (n % 5)) for n, step in enumerate(steps)], TIME)
    table = events(k=["a"] * len(steps), e=happened, known=known, x=[float(n) for n in range(len(steps))])
    over = [
        Window.calendar("day", zone=zone),
        Window.calendar("day", zone=zone, include_current=True),
        Window.calendar("day", zone=zone, before=1),
        Window.calendar("day", zone=zone, count=2, before=2),
        Window.calendar("week", zone=zone),
        Window.calendar("month", zone=zone, before=1),
    ]
    plain_windows = [window for window in over if not window.include_current]
    kinds = [agg.sum("x", over=over), agg.max("x", over=over), agg.last_k("x", 3, over=plain_windows)]
    source = Source("s", Table("events", key="id"), event_time="e", sequence="id", **clock)
    features = FeatureSet([FeatureView("v", Entity("k"), source, [agg.count(over=over), *kinds])])
    moments = [instant(begins) + step + timedelta(hours=h) for step in steps[::4] for h in (0, 24)]
    spine = pa.table({"q": pa.array(moments, TIME), "k": ["a"] * len(moments), "x": [0.5] * len(moments)})
    rows = offline(features, table, spine)
    assert repr(by_oracle(features, table, spine)) == repr(rows)
    keys = MemoryKeys()
    OnlineState(features, keys, horizon="9000d").apply(table, "s")
    reader = OnlineFeatures(features, keys)
    asked = [{name: plain(value) for name, value in row.items()} for row in spine.to_pylist()]
    assert repr([reader.read(row, row, row["q"]).values for row in asked]) == repr(rows)
    report = verify(features, {"s": table}, spine, "q", stream=True, samples=15)
    assert report.verdict == "equal"
    assert "calendar" in report.boundaries


def test_what_the_longest_month_holds_is_kept():
    """Online state without a horizon to speak of answers for the first and the last instant of every month."""
    over = [Window.calendar("month", zone="America/New_York", before=n) for n in (0, 1)]
    features = features_of(agg.count(over=over), agg.min("x", over=over), agg.first("x", over=over))
    days = [instant("2023-11-25T04:30Z") + timedelta(hours=9 * n) for n in range(270)]
    table = events(k=["a"] * len(days), e=pa.array(days, TIME), x=[float(n) for n in range(len(days))])
    keys = MemoryKeys()
    state = OnlineState(features, keys, horizon="1us")
    for text in ("2024-01-01T05:00Z", "2024-02-01T04:59Z", "2024-02-01T05:00Z", "2024-03-01T05:00Z"):
        known = table.filter(pc.less(table.column("e"), pa.scalar(instant(text), TIME)))
        state.apply(known, "s", now=plain(instant(text)))
        spine = pa.table({"q": pa.array([instant(text)], TIME), "k": ["a"]})
        assert read(features, keys, spine) == offline(features, table, spine)


def test_a_calendar_window_is_checked_and_named():
    """Its zone by name, with the near one; its own name and hash; other windows keep theirs."""
    with pytest.raises(DefinitionError, match=r"got 'Europe/Berln'\. Did you mean the zone 'Europe/Berlin'"):
        Window.calendar("day", zone="Europe/Berln")
    with pytest.raises(DefinitionError, match="a unit must be known; got 'quarter'"):
        Window.calendar("quarter")
    with pytest.raises(DefinitionError, match="count must be a whole number from 1"):
        Window.calendar("day", count=0)
    with pytest.raises(DefinitionError, match="must not hold the request's own event"):
        Window.calendar("day", before=1, include_current=True)
    with pytest.raises(DefinitionError, match="a rate must be over an exact window"):
        agg.rate(over=Window.calendar("day"))
    zones = [Window.calendar("day", zone=zone) for zone in ("UTC", "Europe/Berlin")]
    assert agg.count(over=zones).names() == ["count_day", "count_day_berlin"]
    assert Window("24h", hop="1h", offset="1d").__identity__() == {
        "kind": "Window", "include_current": False, "length": "1d", "hop": "1h", "offset": "1d",
    }  # fmt: skip
    assert len({content_hash(window) for window in [*zones, Window("1d"), Window.calendar("day", before=1)]}) == 4
