"""Training frames equal the oracle and keep every row of the spine."""

from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.offline import training_frame
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


@settings(max_examples=60, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests, st.randoms())
def test_order_of_the_table_does_not_matter_with_a_sequence(view, events, queries, random):
    """Events in any order, with redeliveries, converge to one frame once they carry ids."""
    if view.source.sequence is None:
        return
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
    with pytest.raises(DefinitionError, match="view 'v', source 's', column 'x': an aggregate reads numbers"):
        _values(_view(agg.sum("x", over="1h")), _spine(("a", 5)), events)


def test_missing_column_gets_near_names():
    """The error names the view, the source and the nearest column."""
    with pytest.raises(InputError, match="view 'v', source 's': the column exists; got 'y'"):
        _values(_view(latest("y")), _spine(("a", 5)), _events(("a", 1, 1.0)))


def test_times_without_a_zone_are_refused():
    """A naive timestamp is never guessed to be UTC."""
    spine = pa.table({"k1": ["a"], "q": pa.array([1], pa.timestamp("us"))})
    with pytest.raises(InputError, match="spine, column 'q': a time column is a timestamp with a zone"):
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
