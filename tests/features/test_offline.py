"""Training frames equal the oracle and keep every row of the spine."""

import math
import statistics
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.derived import derived
from retrodict.features.facts import kernels
from retrodict.features.facts.evaluation import derive_row
from retrodict.features.offline import training_frame
from retrodict.features.offline.prepared import MemoryEvents
from retrodict.features.plan import FeatureSet
from retrodict.testing import feature_worlds as worlds

MINUTE, BASE = worlds.MINUTE, worlds.BASE


@settings(max_examples=150, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests)
def test_every_value_is_the_oracles(view, events, queries):
    """Any view over any events, ties and edges included, gives what the definition says, bit for bit."""
    features, table, spine = FeatureSet([view]), worlds.events_table(events), worlds.spine_table(queries)
    frame = training_frame(spine, "q", features, {"s": table})
    for name, expected in worlds.oracle_columns(features, spine, {"s": table}).items():
        assert repr([worlds.plain(v) for v in frame.column(name).to_pylist()]) == repr(expected), name


def _judge(view, table, queries):
    """Compare a frame with the oracle: bit for bit, weights that decay within rounding (test_bags has their bits)."""
    features, spine = FeatureSet([view]), worlds.spine_table(queries)
    frame = training_frame(spine, "q", features, {"s": table})
    for name, expected in worlds.oracle_columns(features, spine, {"s": table}).items():
        got = [worlds.plain(value) for value in frame.column(name).to_pylist()]
        if "decayed" in name:
            assert [v is None for v in got] == [v is None for v in expected], name
            assert all(v is None or math.isclose(v, w, abs_tol=1e-5) for v, w in zip(got, expected, strict=True)), name
        else:
            assert repr(got) == repr(expected), name


@settings(max_examples=40, deadline=None)
@given(worlds.wide_views(), worlds.moderate_histories, worlds.requests)
def test_totals_and_bags_are_the_oracles(view, events, queries):
    """Every aggregate over lifetimes and windows that end before the decision, from sources of every kind."""
    _judge(view, worlds.events_table(events), queries)


@settings(max_examples=40, deadline=None)
@given(worlds.wide_views(source=st.just(worlds.REVISED)), worlds.moderate_histories, worlds.requests)
def test_revisions_are_the_oracles(view, events, queries):
    """Every aggregate of a source whose rows replace and delete one another."""
    _judge(view, worlds.revisions_table(events), queries)


@pytest.mark.parametrize("revised", [False, True])
def test_many_events_in_small_pieces_are_the_oracles(revised, monkeypatch):
    """Hundreds of events of one key, gathered a few at a time and from the newest backwards."""
    monkeypatch.setattr(kernels, "_CHUNK", 16)
    monkeypatch.setattr(kernels.ragged, "__defaults__", (16,))
    random = np.random.default_rng(11)
    rows = [
        {"k1": "a", "k2": 1, "e": BASE + int(random.integers(0, 30)) * MINUTE, "seq": int(random.integers(0, 150))}
        | {"late": int(random.choice([0, 0, 1, 5, 21])), "x": float(random.integers(-9, 9)), "ok": True}
        | {"n": int(random.integers(-5, 5)), "tag": str(random.choice(["p", "q", "r"]))}
        | {"vec": random.normal(size=int(random.integers(1, 4))).tolist()}
        for _ in range(400)
    ]
    over = ["20m", Window("10m", offset="6m", hop="4m"), Window("5m", offset="3m")]
    source = worlds.REVISED if revised else Source("s", worlds.table, event_time="e", known_at="k")
    view = FeatureView(
        "v", Entity("k1"), source, [*worlds.totals([*over, "lifetime"]), *worlds.bags([*over, "lifetime"])]
    )
    queries = [{"k1": "a", "k2": 1, "q": BASE + i * 5 * MINUTE, "x": None, "ok": None} for i in range(12)]
    _judge(view, worlds.revisions_table(rows), queries)


@settings(max_examples=60, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests, st.randoms())
def test_order_of_the_table_does_not_matter_with_a_sequence(view, events, queries, random):
    """Events in any order, with redeliveries, converge to one frame once they carry ids."""
    if view.source.sequence is None:
        return
    events = worlds.told_apart(view, events)
    features, spine = FeatureSet([view]), worlds.spine_table(queries)
    table = worlds.events_table(events)
    rows = list(range(table.num_rows))
    random.shuffle(rows)
    shuffled = table.take(pa.array(rows, pa.int64()))
    one, other = (training_frame(spine, "q", features, {"s": t}).select(features.columns) for t in (table, shuffled))
    assert one == other


def _view(*features, **source):
    declared = {"event_time": "e", **source}
    return FeatureView("v", Entity("k1"), Source("s", worlds.table, **declared), features)


def _events(*rows):
    return pa.Table.from_pylist(
        [dict(zip(["k1", "e", "x"], row, strict=True)) for row in rows],
        schema=pa.schema([("k1", pa.string()), ("e", worlds.TIME), ("x", pa.float64())]),
    )


def _spine(*rows, **extra):
    columns = {"k1": pa.array([r[0] for r in rows], pa.string()), "q": pa.array([r[1] for r in rows], worlds.TIME)}
    return pa.table(columns | {name: pa.array(values) for name, values in extra.items()})


def _values(view, spine, table, **options):
    frame = training_frame(spine, "q", FeatureSet([view]), {"s": table}, **options)
    return {name: frame.column(name).to_pylist() for name in frame.column_names[spine.num_columns :]}


def test_rows_in_are_rows_out_in_the_same_order():
    """Duplicate and unmatched rows stay where they are, with their own columns."""
    spine = _spine(("b", 9), ("a", 5), ("a", 5), ("none", 1), (None, 7), ("a", 1), row=[1, 2, 3, 4, 5, 6])
    frame = training_frame(spine, "q", FeatureSet([_view(agg.count(over="1h"))]), {"s": _events(("a", 3, 1.0))})
    assert frame.select(spine.column_names) == spine
    assert frame.column("v__count_1h").to_pylist() == [0, 1, 1, 0, None, 0]


def test_right_edge_is_strict_and_left_edge_is_inclusive():
    """An event at q is out, one at q - w is in, one a microsecond earlier is out."""
    hour = 60 * MINUTE
    events = _events(("a", BASE, 1.0), ("a", BASE - hour, 1.0), ("a", BASE - hour - 1, 1.0))
    assert _values(_view(agg.count(over="1h")), _spine(("a", BASE)), events) == {"v__count_1h": [1]}


def test_a_hop_reaches_back_to_a_whole_multiple():
    """With a hop of an hour, a two hour window at 22:30 starts at 20:00."""
    at = BASE + 30 * MINUTE
    events = _events(("a", BASE - 120 * MINUTE, 1.0), ("a", BASE - 120 * MINUTE - 1, 1.0))
    assert _values(_view(agg.count(over=Window("2h", hop="1h"))), _spine(("a", at)), events) == {
        "v__count_2h_hop_1h": [1]
    }


def test_an_offset_moves_both_edges():
    """The two hours before the last hour: from three hours ago, inclusive, to one hour ago, exclusive."""
    hour = 60 * MINUTE
    events = _events(*[("a", BASE - back, 1.0) for back in (3 * hour + 1, 3 * hour, hour + 1, hour, 1)])
    view = _view(agg.count(over=Window("2h", offset="1h")), agg.count(over=Window("lifetime", offset="1h")))
    assert _values(view, _spine(("a", BASE)), events) == {
        "v__count_2h_before_1h": [2],
        "v__count_lifetime_before_1h": [3],
    }


def test_an_offset_window_sees_what_is_known_at_the_decision():
    """An event known after the window's end but before the decision counts, one known at the decision does not."""
    events = pa.table(
        {"k1": ["a", "a"], "e": pa.array([BASE, BASE + 1], worlds.TIME)}
        | {"k": pa.array([BASE + 50 * MINUTE, BASE + 60 * MINUTE], worlds.TIME)}
    )
    view = _view(agg.count(over=Window("2h", offset="30m")), known_at="k")
    assert _values(view, _spine(("a", BASE + 60 * MINUTE)), events) == {"v__count_2h_before_30m": [1]}


def test_a_lifetime_of_timeless_facts():
    """Facts without a time are all inside a lifetime window, for any decision, before 1970 too."""
    seats = pa.table({"k1": ["a", "a", "b"], "seats": [100, 250, 7]})
    over = "lifetime"
    features = [agg.sum("seats", over=over), agg.max("seats", over=over), agg.std("seats", over=over)]
    view = FeatureView("v", Entity("k1"), Source("s", worlds.table), features)
    got = _values(view, _spine(("a", -(10**15)), ("b", BASE), ("c", BASE)), seats)
    assert got["v__sum_seats_lifetime"] == [350, 7, None]
    assert got["v__max_seats_lifetime"] == [250, 7, None]
    assert got["v__std_seats_lifetime"] == [statistics.stdev([100, 250]), None, None]


def test_moments_do_not_cancel():
    """Variance, deviation and skewness of values far from zero are those of exact arithmetic, and scipy's nearby."""
    shifted = [1e9 + value for value in np.random.default_rng(5).normal(size=200).tolist()]
    events = _events(*[("a", BASE + i, value) for i, value in enumerate(shifted)])
    view = _view(agg.variance("x", over="1h"), agg.std("x", over="1h"), agg.skew("x", over="1h"))
    got = _values(view, _spine(("a", BASE + MINUTE)), events)
    exact = statistics.variance([Fraction(value) for value in shifted])
    assert got["v__variance_x_1h"] == [float(exact)]
    assert got["v__std_x_1h"] == [math.sqrt(float(exact))]
    assert math.isclose(got["v__skew_x_1h"][0], stats.skew([value - 1e9 for value in shifted]), rel_tol=1e-9)


def test_a_ratio_is_rounded_once():
    """A third is the nearest double to the exact quotient, and a denominator of 0 gives null."""
    events = pa.table(
        {"k1": ["a", "a", "b"], "e": pa.array([BASE, BASE + 1, BASE], worlds.TIME)}
        | {"x": [0.1, 0.2, 1.0], "n": [1, 2, 0]}
    )
    got = _values(_view(agg.ratio("x", "n", over="1h")), _spine(("a", BASE + 2), ("b", BASE + 2)), events)
    assert got == {"v__ratio_x_to_n_1h": [float((Fraction(0.1) + Fraction(0.2)) / 3), None]}


def test_rates_are_rounded_once():
    """Events per eleven seconds of a window of seven minutes, however odd the quotient."""
    events = _events(*[("a", BASE + i, 1.0) for i in range(5)])
    got = _values(_view(agg.rate(over="7m", per="11s")), _spine(("a", BASE + 9), ("none", BASE)), events)
    assert list(got.values()) == [[5 * 11 / 420, 0.0]]


def _revisions(*rows):
    names = ["k1", "id", "e", "k", "x", "op"]
    types = [pa.string(), pa.string(), worlds.TIME, worlds.TIME, pa.float64(), pa.string()]
    columns = zip(*rows, strict=True)
    return pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})


def test_a_revision_replaces_and_a_deletion_removes():
    """Each decision sees the newest revision known to it: the first, the second, then nothing."""
    at = [BASE + i * MINUTE for i in range(40)]
    table = _revisions(
        ("a", "1", at[0], at[1], 5.0, "add"),
        ("a", "1", at[2], at[10], 3.0, "change"),
        ("a", "1", at[2], at[20], 3.0, "del"),
    )
    features = [agg.sum("x", over="1h"), agg.max("x", over="1h"), agg.last("x", over="1h"), latest("x")]
    view = _view(*features, known_at="k", sequence="id", revised=True, deleted="op = 'del'")
    spine = _spine(*[("a", at[i]) for i in (1, 2, 10, 11, 20, 21)])
    for values in _values(view, spine, table).values():
        assert values == [None, 5.0, 5.0, 3.0, 3.0, None]


def test_slopes_are_scipys():
    """Of times with ties, off any grid; a whole number beyond the doubles is read as the nearest one."""
    random = np.random.default_rng(5)
    times = [BASE + int(second) * 1_000_003 for second in random.integers(0, 3_000, 40)]
    values = [2**53 + 2 * int(n) + 1 for n in random.integers(0, 100, 40)]
    table = pa.table({"k1": ["a"] * 40, "e": pa.array(times, worlds.TIME), "n": values})
    spine = _spine(("a", BASE + 60 * MINUTE))
    got = _values(_view(agg.slope("n", over="1h", per="1m"), agg.slope("n", over="1h")), spine, table)
    line = stats.linregress([(at - BASE) / (60 * MINUTE) for at in times], [float(value) - 2.0**53 for value in values])
    assert got["v__slope_n_per_1h_1h"] == [pytest.approx(line.slope, rel=1e-12)]
    assert got["v__slope_n_per_1m_1h"] == [pytest.approx(line.slope / 60, rel=1e-12)]


def test_prepared_events_serve_many_spines():
    """Events that were prepared once give each piece of a spine what the whole spine gives."""
    random = np.random.default_rng(2)
    events = _events(*[(str(i % 7), BASE + int(random.integers(0, 9)) * MINUTE, float(i)) for i in range(300)])
    spine = _spine(*[(str(i % 9), BASE + i * MINUTE) for i in range(20)])
    features = FeatureSet([_view(agg.mean("x", over="5m"), agg.variance("x", over="5m"), agg.top_k("x", 2, over="5m"))])
    held = {"s": MemoryEvents(events)}
    pieces = [training_frame(spine.slice(i, 5), "q", features, held) for i in range(0, 20, 5)]
    assert pa.concat_tables(pieces) == training_frame(spine, "q", features, {"s": events})


@derived
def shapes(v__last_2_x_1h: list, v__histogram_tag_1h: dict[str, int], note: list[str]):
    """Features of lists and maps."""
    return {
        "known": [0.0 if values is None else float(len(values)) for values in v__last_2_x_1h],
        "most": [None if counts is None else max(counts, key=counts.get) for counts in v__histogram_tag_1h],
        "notes": [np.nan if words is None else float(len(words)) for words in note],
    }


def test_lists_and_maps_reach_derived_functions():
    """A frame and a request hand over the same lists and dicts, None where there are none."""
    events = _events(("a", BASE, 1.0), ("a", BASE + 1, 2.0)).append_column("tag", pa.array(["p", "p"]))
    view = _view(agg.last_k("x", 2, over="1h"), agg.histogram("tag", over="1h"))
    features = FeatureSet([view, shapes])
    spine = _spine(("a", BASE + 5), ("b", BASE + 5), note=[["n"], None])
    frame = training_frame(spine, "q", features, {"s": events})
    expected = [(2.0, "p", 1.0), (0.0, None, None)]
    columns = [f"shapes__{name}" for name in ("known", "most", "notes")]
    assert list(zip(*(frame.column(name).to_pylist() for name in columns), strict=True)) == expected
    for given_, row in zip([([1.0, 2.0], {"p": 2}, ["n"]), (None, None, None)], expected, strict=True):
        found = dict(zip(view_columns(features), given_[:2], strict=True))
        derive_row(features, {"note": given_[2]}, found)
        assert tuple(found[name] for name in columns) == row


def view_columns(features):
    """Columns of the one view of a set."""
    return [output.column for output in features.views[0].outputs]


def test_a_list_is_not_a_number():
    """A derived input that is a list must say so."""

    @derived
    def wrong(v__last_2_x_1h):
        return {"y": v__last_2_x_1h}

    features = FeatureSet([_view(agg.last_k("x", 2, over="1h")), wrong])
    with pytest.raises(DefinitionError, match="input 'v__last_2_x_1h': this input must arrive as a number; got 'list"):
        training_frame(_spine(("a", BASE)), "q", features, {"s": _events(("a", 1, 1.0))})


def test_a_histogram_of_floats_names_view_feature_and_column():
    """The refusal says where, which rule, what was got and what to do."""
    view = _view(agg.histogram("x", over="1h"))
    with pytest.raises(DefinitionError, match="view 'v', feature 'histogram_x_1h', column 'x': a histogram is of text"):
        _values(view, _spine(("a", BASE)), _events(("a", 1, 1.0)))


def test_times_and_text_keep_their_type_in_lists():
    """The last times and words of a window are times and words."""
    when = datetime(2020, 1, 1, tzinfo=UTC)
    events = pa.table(
        {"k1": ["a"] * 3, "e": pa.array([when + timedelta(minutes=i) for i in range(3)], worlds.TIME)}
        | {"word": pa.array(["x", None, "y"], pa.large_string())}
    )
    view = _view(agg.last_k("word", 2, over="1h"), agg.first("e", over="1h"), agg.time_since_last(over="1h"))
    spine = pa.table({"k1": ["a"], "q": pa.array([when + timedelta(minutes=5)], worlds.TIME)})
    frame = training_frame(spine, "q", FeatureSet([view]), {"s": events})
    assert frame.schema.types[2:] == [pa.list_(pa.large_string()), worlds.TIME, pa.float64()]
    assert [column[0].as_py() for column in frame.columns[2:]] == [["x", "y"], when, 180.0]


def test_delay_hides_an_event_until_it_is_known():
    """With a delay of twenty minutes an event is visible from its twentieth minute on, exclusive."""
    view, events = _view(agg.count(over="1h"), delay="20m"), _events(("a", BASE, 1.0))
    spine = _spine(("a", BASE + 20 * MINUTE), ("a", BASE + 20 * MINUTE + 1))
    assert _values(view, spine, events) == {"v__count_1h": [0, 1]}


def test_a_redelivery_counts_once_from_when_it_was_first_known():
    """Of two deliveries of one event the one known first decides, wherever it stands in the table."""
    events = pa.table(
        {
            "k1": ["a", "a"],
            "e": pa.array([BASE, BASE], worlds.TIME),
            "k": pa.array([BASE + 10 * MINUTE, BASE + 5 * MINUTE], worlds.TIME),
            "id": ["x", "x"],
        }
    )
    view = _view(agg.count(over="1h"), known_at="k", sequence="id")
    spine = _spine(("a", BASE + 5 * MINUTE), ("a", BASE + 6 * MINUTE), ("a", BASE + 11 * MINUTE))
    assert _values(view, spine, events) == {"v__count_1h": [0, 1, 1]}


def test_ignoring_known_at_leaks():
    """The naive join sees what nobody could have known."""
    view, events = _view(agg.count(over="1h"), delay="20m"), _events(("a", BASE, 1.0))
    spine = _spine(("a", BASE + 1))
    assert _values(view, spine, events) == {"v__count_1h": [0]}
    assert _values(view, spine, events, ignore_known_at=True) == {"v__count_1h": [1]}


def test_latest_is_null_once_it_is_too_old():
    """At exactly max_age the value still counts, a microsecond later not."""
    view, events = _view(latest("x", max_age="1h")), _events(("a", BASE, 3.0))
    spine = _spine(("a", BASE + 60 * MINUTE), ("a", BASE + 60 * MINUTE + 1))
    assert _values(view, spine, events) == {"v__latest_x": [3.0, None]}


def test_latest_ties_go_to_the_greater_sequence():
    """Two events of the same microsecond: the later row of the table wins."""
    events = _events(("a", BASE, 1.0), ("a", BASE, 2.0))
    assert _values(_view(latest("x")), _spine(("a", BASE + 1)), events) == {"v__latest_x": [2.0]}


def test_timeless_facts_are_always_visible():
    """A table without an event time gives its attributes at any time; the last row per key counts."""
    planes = pa.table({"k1": ["a", "a"], "seats": [1, 2]})
    view = FeatureView("v", Entity("k1"), Source("s", worlds.table), [latest("seats")])
    assert _values(view, _spine(("a", -5), ("b", 0)), planes) == {"v__latest_seats": [2, None]}


def test_max_is_never_a_difference():
    """The maximum that left the window is gone and the one inside stays."""
    events = _events(("a", BASE, 110.0), ("a", BASE + 8 * MINUTE, 5.0))
    assert _values(_view(agg.max("x", over="10m")), _spine(("a", BASE + 11 * MINUTE)), events) == {
        "v__max_x_10m": [5.0]
    }


def test_sums_are_exact_under_cancellation():
    """A prefix of doubles would lose the 1.0 beside 1e16; the sum of the window is still the rounded real sum."""
    events = _events(("a", BASE, 1e16), ("a", BASE + 1, 1.0), ("a", BASE + 2, -1e16), ("a", BASE + 3 * MINUTE, 0.1))
    got = _values(
        _view(agg.sum("x", over="4m")), _spine(("a", BASE + 3 * MINUTE), ("a", BASE + 4 * MINUTE + 1)), events
    )
    assert got == {"v__sum_x_4m": [1.0, -9999999999999998.0]}


def test_composite_keys_do_not_collide():
    """(1, 23) and (12, 3) are two keys."""
    events = pa.table({"a": ["1", "12"], "b": ["23", "3"], "e": pa.array([0, 0], worlds.TIME), "x": [1.0, 2.0]})
    view = FeatureView("v", Entity("pair", keys=["a", "b"]), Source("s", worlds.table, event_time="e"), [latest("x")])
    spine = pa.table({"a": ["12", "1", "1"], "b": ["3", "23", "3"], "q": pa.array([9, 9, 9], worlds.TIME)})
    assert _values(view, spine, events) == {"v__latest_x": [2.0, 1.0, None]}


def test_keys_of_different_kinds_are_an_error():
    """A text key never silently matches nothing where the source has numbers."""
    events = pa.table({"k1": [1], "e": pa.array([0], worlds.TIME), "x": [1.0]})
    with pytest.raises(DefinitionError, match=r"the source has whole number.*got 'text'"):
        _values(_view(latest("x")), _spine(("1", 5)), events)


def test_dictionary_and_large_text_keys_equal_plain_text():
    """The Arrow encoding of a key does not matter."""
    events = _events(("a", BASE, 1.0))
    events = events.set_column(0, "k1", events.column("k1").cast(pa.large_string()).dictionary_encode())
    assert _values(_view(agg.count(over="1h")), _spine(("a", BASE + 1)), events) == {"v__count_1h": [1]}


def test_aggregate_of_text_names_view_and_column():
    """A sum of text is refused with the place and the remedy."""
    events = pa.table({"k1": ["a"], "e": pa.array([0], worlds.TIME), "x": ["text"]})
    with pytest.raises(DefinitionError, match="view 'v', source 's', column 'x': an aggregate must read numbers"):
        _values(_view(agg.sum("x", over="1h")), _spine(("a", 5)), events)


def test_missing_column_gets_near_names():
    """The error names the view, the source and the nearest column."""
    with pytest.raises(InputError, match="view 'v', source 's': the column must exist; got 'y'"):
        _values(_view(latest("y")), _spine(("a", 5)), _events(("a", 1, 1.0)))


def test_times_without_a_zone_are_refused():
    """A naive timestamp is never guessed to be UTC."""
    spine = pa.table({"k1": ["a"], "q": pa.array([1], pa.timestamp("us"))})
    with pytest.raises(InputError, match="spine, column 'q': a time column must be a timestamp with a zone"):
        _values(_view(latest("x")), spine, _events(("a", 1, 1.0)))


def test_far_times_and_many_keys_use_ranks():
    """Events of the year 9999 beside those of today do not overflow the packed order."""
    far = 253_000_000_000_000_000
    events = _events(*[(f"k{i}", BASE + i, 1.0) for i in range(500)], ("k7", far, 1.0), ("k7", -far, 1.0))
    spine = _spine(("k7", BASE + 8), ("k7", far + 1), ("k499", BASE + 600))
    view = _view(agg.count(over="1s"), agg.max("x", over="1s"))
    assert _values(view, spine, events) == {"v__count_1s": [1, 1, 1], "v__max_x_1s": [1.0, 1.0, 1.0]}


def test_the_same_view_under_another_key():
    """A keyed view reads another column of the spine and shares its state id."""
    view = _view(agg.count(over="1h"))
    other = view.keyed(k1="dest")
    spine = _spine(("a", BASE + 1), ("b", BASE + 1), dest=["b", "a"])
    frame = training_frame(spine, "q", FeatureSet([view, other]), {"s": _events(("a", BASE, 1.0))})
    assert frame.column("v__count_1h").to_pylist() == [1, 0]
    assert frame.column("v_dest__count_1h").to_pylist() == [0, 1]
    first, second = FeatureSet([view, other]).views
    assert first.state_id == second.state_id


def test_spine_columns_may_not_shadow_features():
    """A spine that already has the feature's column is refused rather than overwritten."""
    with pytest.raises(InputError, match="no column with a feature's name"):
        _values(_view(agg.count(over="1h")), _spine(("a", 5), v__count_1h=[1]), _events(("a", 1, 1.0)))


def test_sources_are_identified_by_table_name():
    """A check added to a table changes no feature's version."""
    one = Source("s", SimpleNamespace(name="t", checks=[]), event_time="e")
    two = Source("s", SimpleNamespace(name="t", checks=["more"]), event_time="e")
    assert one.version == two.version
