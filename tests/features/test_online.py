"""Online values equal the oracle at any time, whatever order events arrived in."""

import math

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.data.definitions import Table
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.online import OnlineFeatures, OnlineState
from retrodict.features.online.read import programs, views, whole
from retrodict.features.online.state import segments
from retrodict.features.online.state.entries import StateKeys
from retrodict.features.online.write import transaction
from retrodict.features.plan import FeatureSet
from retrodict.features.verify.oracle import Oracle
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.testing import feature_worlds as worlds
from retrodict.testing.memory import LendingKeys, MemoryKeys

MINUTE, BASE = worlds.MINUTE, worlds.BASE
EVER = "36000d"


def _requests(spine):
    return [{name: worlds.plain(value) for name, value in row.items()} for row in spine.to_pylist()]


def _read_all(features, store, spine):
    online = OnlineFeatures(features, store)
    found = {name: [] for name in features.columns}
    for request in _requests(spine):
        for name, value in online.read(request, {}, request["q"]).values.items():
            found[name].append(value)
    return found


@settings(max_examples=60, deadline=None)
@given(
    worlds.views(),
    worlds.histories,
    worlds.requests,
    st.integers(1, 9),
)
def test_online_is_the_oracle(view, events, queries, batch):
    """State that is ahead of the request, fed in batches, gives the definition's value bit for bit."""
    features, table, spine = FeatureSet([view]), worlds.events_table(events), worlds.spine_table(queries)
    store = MemoryKeys()
    state = OnlineState(features, store, horizon=EVER)
    for first in range(0, max(table.num_rows, 1), batch):
        state.apply(table.slice(first, batch), "s", first_position=first)
    expected = worlds.oracle_columns(features, spine, {"s": table})
    assert repr(_read_all(features, store, spine)) == repr(expected)  # 1, 1.0 and True are equal but not the same


def _agrees(op, value, right):
    """Equal, null only with null; decayed sums nearly: terms may cancel, and the oracle's ``pow`` is the platform's."""
    if op.startswith("decayed") and value is not None and right is not None:
        return math.isclose(value, right, rel_tol=1e-9, abs_tol=1e-5)
    return (value is None) == (right is None) and value == right


def _alike(features, found, expected):
    ops = {output.column: output.op for plan in features.views for output in plan.outputs}
    for name, values in found.items():
        for value, right in zip(values, expected[name], strict=True):
            assert _agrees(ops[name], value, right), (name, value, right)


@settings(max_examples=25, deadline=None)
@given(worlds.wide_views(), worlds.moderate_histories, worlds.requests, st.integers(1, 9))
def test_every_aggregate_is_the_oracles(view, events, queries, batch):
    """Totals with exact finishes, bags, lifetimes and offset windows, fed in batches in any order."""
    features, table, spine = FeatureSet([view]), worlds.events_table(events), worlds.spine_table(queries)
    store = MemoryKeys()
    state = OnlineState(features, store, horizon=EVER)
    for first in range(0, max(table.num_rows, 1), batch):
        state.apply(table.slice(first, batch), "s", first_position=first)
    _alike(features, _read_all(features, store, spine), worlds.oracle_columns(features, spine, {"s": table}))


@settings(max_examples=50, deadline=None)
@given(worlds.wide_views(source=st.just(worlds.REVISED)), worlds.moderate_histories, worlds.requests, st.randoms())
def test_revisions_in_any_order_are_the_oracles(view, events, queries, random):
    """Rows of a revised source, each delivered twice and shuffled, some deleting their event."""
    # Of revisions known at one moment the last in the source counts, and a shuffle has no last.
    known = {(r["seq"], (r["e"] or 0) + (r["late"] or 0) * MINUTE): r for r in events}
    features, spine = FeatureSet([view]), worlds.spine_table(queries)
    table = worlds.revisions_table(known.values())
    store = MemoryKeys()
    state = OnlineState(features, store, horizon=EVER)
    order = [*range(table.num_rows), *range(table.num_rows)]
    random.shuffle(order)
    for first in range(0, max(len(order), 1), 4):
        state.apply(table.take(pa.array(order[first : first + 4], pa.int64())), "s")
    _alike(features, _read_all(features, store, spine), worlds.oracle_columns(features, spine, {"s": table}))


@settings(max_examples=40, deadline=None)
@given(worlds.moderate_histories, worlds.requests, st.randoms(), st.sampled_from(["seq", "sid"]))
def test_revisions_that_are_out_of_reach_go_and_nothing_else(events, queries, random, sequence):
    """With a short horizon events are cut once none of their revisions can be seen; values within it stay exact."""
    source = Source(
        "s", worlds.table, event_time="e", known_at="k", sequence=sequence, revised=True, deleted="tag = 'q'"
    )
    kinds = [
        agg.count(over=["3m", "7m"]),
        agg.sum("x", over="5m"),
        agg.last("tag", over="4m"),
        latest("x", max_age="6m"),
    ]
    features, store = FeatureSet([FeatureView("v", Entity("k1"), source, kinds)]), MemoryKeys()
    known = {(r["seq"], (r["e"] or 0) + (r["late"] or 0) * MINUTE): r for r in events if (r["late"] or 0) >= 0}
    table, spine = worlds.revisions_table(known.values()), worlds.spine_table(queries)
    order = random.sample(range(table.num_rows), table.num_rows)
    state = OnlineState(features, store, horizon="5m")
    for first in range(0, max(len(order), 1), 3):
        state.apply(table.take(pa.array(order[first : first + 3], pa.int64())), "s")
    expected, online = worlds.oracle_columns(features, spine, {"s": table}), OnlineFeatures(features, store)
    for place, request in enumerate(_requests(spine)):
        row = online.read(request, {}, request["q"])
        if row.statuses["v"] != "beyond_horizon":
            assert row.values == {name: values[place] for name, values in expected.items()}


@settings(max_examples=50, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests, st.randoms())
def test_any_order_with_redeliveries_ends_in_the_same_values(view, events, queries, random):
    """Events as rows of a stream, shuffled and delivered twice, give what the sorted history gives."""
    if view.source.sequence is None:
        return
    events = worlds.told_apart(view, events)
    features, table, spine = FeatureSet([view]), worlds.events_table(events), worlds.spine_table(queries)
    store = MemoryKeys()
    state = OnlineState(features, store, horizon=EVER)
    rows = [{name: worlds.plain(value) for name, value in row.items()} for row in table.to_pylist()] * 2
    random.shuffle(rows)
    for first in range(0, max(len(rows), 1), 5):
        state.apply(rows[first : first + 5], "s", offset=first)
    assert _read_all(features, store, spine) == worlds.oracle_columns(features, spine, {"s": table})


@settings(max_examples=50, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests)
def test_within_the_horizon_expiry_changes_nothing(view, events, queries):
    """After pruning and expiry a request is answered exactly or told that it is beyond the horizon."""
    features, table, spine = FeatureSet([view]), worlds.events_table(events), worlds.spine_table(queries)
    store = MemoryKeys()
    state = OnlineState(features, store, horizon="10m")
    for first in range(0, max(table.num_rows, 1), 6):
        state.apply(table.slice(first, 6), "s", first_position=first)
        state.expire()
    expected = worlds.oracle_columns(features, spine, {"s": table})
    online = OnlineFeatures(features, store)
    for place, request in enumerate(_requests(spine)):
        row = online.read(request, {}, request["q"])
        if row.statuses["v"] == "beyond_horizon":
            assert set(row.values.values()) == {None}
        else:
            assert row.values == {name: expected[name][place] for name in features.columns}


def _view(*features, **source):
    return FeatureView("v", Entity("k1"), Source("s", worlds.table, **{"event_time": "e", **source}), features)


def _event(e, x=1.0, k1="a", **more):
    return {"k1": k1, "e": e, "x": x, **more}


def _online(view, *batches, horizon=EVER, **options):
    features, store = FeatureSet([view]), MemoryKeys()
    state = OnlineState(features, store, horizon=horizon)
    for batch in batches:
        state.apply(batch, "s", **options)
    return OnlineFeatures(features, store), state, store


def test_one_read_for_any_number_of_views():
    """A feature set costs one get_many with a bounded number of entries."""
    views = [_view(agg.count(over=["1h", "7d"]), latest("x", max_age="1d")).keyed(name=f"v{i}") for i in range(5)]
    calls = []

    class Counting(MemoryKeys):
        def get_many(self, keys):
            calls.append(len(keys))
            return super().get_many(keys)

    OnlineFeatures(FeatureSet(views), Counting()).read({"k1": "a"}, {}, BASE)
    assert len(calls) == 1
    assert calls[0] <= 5 * 9


def test_older_never_replaces_newer():
    """A late event does not become the latest value."""
    online, _, _ = _online(_view(latest("x")), [_event(BASE, 2.0)], [_event(BASE - 5, 1.0)])
    assert online.read({"k1": "a"}, {}, BASE + 9).values == {"v__latest_x": 2.0}
    assert online.read({"k1": "a"}, {}, BASE - 4).values == {"v__latest_x": 1.0}


def test_duplicates_are_counted_and_ignored():
    """A redelivered id changes nothing and shows in the stats."""
    features, store = FeatureSet([_view(agg.count(over="1h"), sequence="id")]), MemoryKeys()
    state = OnlineState(features, store)
    assert state.apply([_event(BASE, id=7)], "s").stored == 1
    again = state.apply([_event(BASE, id=7), _event(BASE, id=8)], "s")
    assert (again.stored, again.duplicates) == (1, 1)
    assert OnlineFeatures(features, store).read({"k1": "a"}, {}, BASE + 1).values == {"v__count_1h": 2}


def test_statuses_say_why_a_value_is_null():
    """Null key, no state, unseen key and too old a request are told apart."""
    online, _, _ = _online(_view(agg.mean("x", over="1h")), [_event(BASE)], horizon="1m")
    read = lambda key, at: online.read({"k1": key}, {}, at).statuses["v"]  # noqa: E731
    assert read("a", BASE + 1) == "ok"
    assert read(None, BASE + 1) == "null_key"
    assert read("b", BASE + 1) == "unseen"
    assert read("a", BASE - 2 * MINUTE) == "beyond_horizon"
    empty = OnlineFeatures(FeatureSet([_view(agg.count(over="1h"))]), MemoryKeys()).read({"k1": "a"}, {}, BASE)
    assert (empty.statuses, empty.values) == ({"v": "no_state"}, {"v__count_1h": None})


def test_a_request_at_the_floor_is_the_earliest_that_is_answered():
    """A horizon before the newest event, to the microsecond; one by one and many at a time."""
    online, _, _ = _online(_view(agg.count(over="1h")), [_event(BASE - 3 * MINUTE), _event(BASE)], horizon="2m")
    for at, status, value in ((BASE - 2 * MINUTE, "ok", 1), (BASE - 2 * MINUTE - 1, "beyond_horizon", None)):
        for row in (online.read({"k1": "a"}, {}, at), *online.read_many([{"k1": "a"}], at)):
            assert (row.statuses, row.values) == ({"v": status}, {"v__count_1h": value})


def test_a_late_event_is_taken_in_while_a_request_can_see_it():
    """At the left edge of the earliest window that is answered; a microsecond before it is too old."""
    online, state, _ = _online(_view(agg.count(over="1h")), [_event(BASE)], horizon="2m")
    edge = BASE - 62 * MINUTE
    assert [state.apply([_event(at)], "s").too_old for at in (edge - 1, edge)] == [1, 0]
    assert online.read({"k1": "a"}, {}, BASE - 2 * MINUTE).values == {"v__count_1h": 1}


def test_expiry_leaves_what_the_earliest_request_sees():
    """An event at the left edge of its window stays, a key whose last one is a microsecond older goes."""
    edge = BASE - 62 * MINUTE
    batches = [_event(edge), _event(edge - 1, k1="c")], [_event(BASE, k1="b")]
    online, state, _ = _online(_view(agg.count(over="1h")), *batches, horizon="2m")
    assert state.expire() == 1
    assert online.read({"k1": "a"}, {}, BASE - 2 * MINUTE).values == {"v__count_1h": 1}


@pytest.mark.parametrize("feature", [agg.count(over="lifetime"), latest("x")], ids=["lifetime", "latest"])
def test_expiry_leaves_what_counts_at_any_age(feature):
    """A lifetime, and a latest value without an age: the key has been silent for long."""
    online, state, _ = _online(_view(feature), [_event(BASE)], [_event(BASE + 9_000 * MINUTE, k1="b")], horizon="2m")
    assert state.expire() == 0
    assert list(online.read({"k1": "a"}, {}, BASE + 9_000 * MINUTE).values.values()) == [1]


def test_an_event_from_the_far_future_does_not_age_the_present():
    """With the present time known, a wrong clock in one event leaves the horizon where it was."""
    online, state, _ = _online(
        _view(agg.count(over="1h")), [_event(BASE)], [_event(BASE * 3)], horizon="1m", now=BASE + 1
    )
    assert state.expire() == 0
    assert online.read({"k1": "a"}, {}, BASE + 1).values == {"v__count_1h": 1}


def test_expire_removes_only_blocks_nobody_reads():
    """Blocks older than lookback and horizon go; the values in reach stay."""
    online, state, store = _online(
        _view(agg.count(over="1h")), [_event(BASE), _event(BASE + 300 * MINUTE)], horizon="1m"
    )
    assert state.apply([_event(BASE + 1)], "s").too_old == 1
    before = len(store.items)
    state.expire()
    assert len(store.items) <= before
    assert online.read({"k1": "a"}, {}, BASE + 301 * MINUTE).values == {"v__count_1h": 1}


def test_forget_removes_one_entity():
    """Everything kept of one key goes, nothing of the others."""
    view = _view(agg.count(over="1h"), latest("x"))
    online, state, _ = _online(view, [_event(BASE), _event(BASE, k1="b")])
    assert state.forget("v", ["a"]) == 1
    assert online.read({"k1": "a"}, {}, BASE + 1).values == {"v__count_1h": 0, "v__latest_x": None}
    assert online.read({"k1": "b"}, {}, BASE + 1).values == {"v__count_1h": 1, "v__latest_x": 1.0}


def test_the_request_brings_its_own_event():
    """include_current counts the request's row and nobody else's at the same microsecond."""
    view = _view(
        agg.sum("x", over=Window("1h", include_current=True)), agg.max("x", over=Window("1h", include_current=True))
    )
    online, _, _ = _online(view, [_event(BASE - 1, 0.1), _event(BASE, 99.0)])
    assert list(online.read({"k1": "a"}, {"x": 0.2}, BASE).values.values()) == [0.1 + 0.2, 0.2]
    with pytest.raises(InputError, match="must carry the columns of its own event; got 'x'"):
        online.read({"k1": "a"}, {}, BASE)


def test_a_missing_entity_is_the_callers_mistake():
    """The error names the view and the entity."""
    with pytest.raises(InputError, match=r"view 'v', request: the request must have every entity.*; got 'k1'"):
        _online(_view(agg.count(over="1h")))[0].read({}, {}, BASE)


def test_keys_of_another_kind_are_refused():
    """A stream that suddenly sends numbers for text keys is an error, not a new key space."""
    with pytest.raises(InputError, match="the keys of a source must keep their kind"):
        _online(_view(agg.count(over="1h")), [_event(BASE)], [_event(BASE, k1=1)])


def test_explain_names_the_events_behind_each_feature():
    """Only events that the value is made of, by their ids."""
    view = _view(agg.count(over="1h"), agg.mean("x", over="1h"), latest("x", max_age="1d"), sequence="id")
    online, _, _ = _online(
        view, [_event(BASE - 61 * MINUTE, id="old"), _event(BASE - 2, None, id="null"), _event(BASE - 1, id="new")]
    )
    assert online.explain({"k1": "a"}, {}, BASE) == {
        "v__count_1h": ["null", "new"],
        "v__mean_x_1h": ["new"],
        "v__latest_x": ["new"],
    }


def test_exact_sums_survive_blocks_of_different_scales():
    """Blocks with 1e16, 1e-20 and 0.1 merge exactly: the order and the cut into blocks do not matter."""
    values = [1e16, 1e-20, -1e16, 0.1, 0.2, 2.5e200, -2.5e200]
    events = [_event(BASE + i * 10 * MINUTE, value) for i, value in enumerate(values)]
    online, _, _ = _online(_view(agg.sum("x", over="2h")), events)
    assert online.read({"k1": "a"}, {}, BASE + 100 * MINUTE).values == {"v__sum_x_2h": 0.1 + 0.2}


def test_state_lives_in_lmdb(tmp_path):
    """The real store: written by one handle, read by the next."""
    features = FeatureSet([_view(agg.count(over="1h"), latest("x"))])
    store = LmdbKeys(tmp_path / "keys")
    OnlineState(features, store).apply(pa.table({"k1": ["a"], "e": pa.array([BASE], worlds.TIME), "x": [4.5]}), "s")
    store.close()
    store = LmdbKeys(tmp_path / "keys")
    assert OnlineFeatures(features, store).read({"k1": "a"}, {}, BASE + 1).values == {
        "v__count_1h": 1,
        "v__latest_x": 4.5,
    }
    store.close()


@pytest.mark.parametrize("compiled", [programs.kernel, None], ids=["as it is", "in Python"])
def test_latest_is_null_once_it_is_too_old(monkeypatch, compiled):
    """At exactly max_age the value still counts, a microsecond later not."""
    monkeypatch.setattr(programs, "kernel", compiled)
    online, _, _ = _online(_view(latest("x", max_age="1h")), [_event(BASE, 3.0)])
    assert online.read({"k1": "a"}, {}, BASE + 60 * MINUTE).values == {"v__latest_x": 3.0}
    assert online.read({"k1": "a"}, {}, BASE + 60 * MINUTE + 1).values == {"v__latest_x": None}


def test_a_column_that_was_whole_or_null_may_turn_to_floats():
    """Rows of a stream show their types one by one; the neutral element of an extreme turns with them."""
    view = _view(agg.min("x", over="1h"), agg.sum("x", over="1h"))
    online, _, _ = _online(view, [_event(BASE, None)], [_event(BASE + 1, 7, k1="b")], [_event(BASE + 2, 1e300)])
    assert online.read({"k1": "a"}, {}, BASE + 3).values == {"v__min_x_1h": 1e300, "v__sum_x_1h": 1e300}
    assert online.read({"k1": "b"}, {}, BASE + 3).values == {"v__min_x_1h": 7, "v__sum_x_1h": 7}


def test_timeless_facts_keep_only_the_last():
    """State of attributes does not grow with every update."""
    view = FeatureView("v", Entity("k1"), Source("s", worlds.table, sequence="id"), [latest("x")])
    online, _, store = _online(view, *[[{"k1": "a", "id": i, "x": float(i)}] for i in (1, 3, 2)])
    size = max(len(value) for key, value in store.items.items() if key[8:9] == b"B")
    assert size == len(
        _online(view, [{"k1": "a", "id": 3, "x": 3.0}])[2].items[max(store.items, key=lambda k: k[8:9] == b"B")]
    )
    assert online.read({"k1": "a"}, {}, 0).values == {"v__latest_x": 3.0}


def _rows(row):
    return (row.values, row.statuses, row.events)


@settings(max_examples=25, deadline=None)
@given(worlds.views() | worlds.wide_views(), worlds.moderate_histories, worlds.requests, st.sampled_from(["10m", EVER]))
def test_many_requests_are_read_as_one_by_one(view, events, queries, horizon):
    """The same values, types, statuses and counts, for live and for older requests."""
    features, table, store = FeatureSet([view]), worlds.events_table(events), MemoryKeys()
    OnlineState(features, store, horizon=horizon).apply(table, "s")
    online, requests = OnlineFeatures(features, store), _requests(worlds.spine_table(queries))
    for at in (requests[0]["q"], BASE + 40 * MINUTE):
        one_by_one = [online.read(request, {}, at) for request in requests]
        assert repr([_rows(row) for row in online.read_many(requests, at)]) == repr([_rows(row) for row in one_by_one])


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(segments, "_MOST", 6)
    monkeypatch.setattr(segments, "_KEPT", 3)
    monkeypatch.setattr(segments, "_SEGMENT", 3)
    monkeypatch.setattr(transaction, "_MOST_ROWS", 6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([0, 0, 0, 1, 5, 60]), worlds.moderate), min_size=8, max_size=60
    ),
    st.lists(st.integers(0, 400), min_size=1, max_size=8),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([[], ["20m"], ["20m", "lifetime"]]),
    st.sampled_from([EVER, "30m"]),
    st.sampled_from([MemoryKeys, LendingKeys]),
)
def test_a_hot_key_is_read_from_segments_as_the_oracle_says(
    small_segments, drawn, asked, batch, sort, bags, horizon, keys
):
    """Late events reopen segments, edges of windows fall into them, requests look back into them."""
    over = ["7m", "20m", "100m", Window("10m", offset="6m", hop="4m")]
    view = FeatureView(
        "v",
        Entity("k1"),
        Source("s", worlds.table, event_time="e", known_at="k", sequence="sid"),
        [agg.count(over=[*over, "lifetime"]), agg.sum("x", over=over), agg.max("x", over=[*over, "lifetime"]),
         *([agg.mode("tag", over=bags), agg.first_k("tag", 2, over=bags), agg.distinct("x", over="30m"),
            agg.argmax("tag", by="x", over=bags), agg.mean_list("vec", 2, over=bags)] if bags else []),
         latest("tag", "x", max_age="12m")],
    )  # fmt: skip
    fields, tags = {"k1": "a", "k2": 1, "ok": None, "n": None}, ["p", "é", "", "日本", None]
    rows = [
        {**fields, "e": BASE + e * MINUTE, "late": late, "seq": i, "x": x, "tag": tags[i % 5], "vec": [1.0, i]}
        for i, (e, late, x) in enumerate(drawn)
    ]
    table = worlds.revisions_table(sorted(rows, key=lambda row: row["e"]) if sort else rows)
    features, store = FeatureSet([view]), keys()
    state = OnlineState(features, store, horizon=horizon)
    for first in range(0, max(table.num_rows, 1), batch):
        state.apply(table.slice(first, batch), "s")
    spine = worlds.spine_table([{"k1": "a", "k2": 1, "q": BASE + q * MINUTE, "x": None, "ok": None} for q in asked])
    expected, online = worlds.oracle_columns(features, spine, {"s": table}), OnlineFeatures(features, store)
    for place, request in enumerate(_requests(spine)):
        row = online.read(request, {}, request["q"])
        if row.statuses["v"] != "beyond_horizon":
            assert row.values == {name: values[place] for name, values in expected.items()}


@pytest.mark.parametrize("tags", ["ééxéé日", "abcdef", ["é", "long text", "", "日本", "x", None]])
def test_rows_of_segments_that_are_not_fetched_are_not_looked_at(small_segments, tags):
    """Their texts and lists lie in heaps that are not there: what stands at their place is cut off, or another's."""
    over = ["12m", Window("15m", offset="10m")]
    view = _view(agg.mode("tag", over=over), agg.argmax("tag", by="x", over=over), agg.last_k("tag", 2, over=over),
                 agg.sum_list("vec", 2, over=over), agg.count(over="lifetime"), sequence="sid")  # fmt: skip
    events = [
        _event(
            BASE + i * MINUTE,
            float(i * 7 % 11),
            sid=f"é{i}",
            tag=tags[i * i % 6],
            vec=[float(i), 0.5] if i < 20 else None,
        )
        for i in range(40)
    ]
    online, _, _ = _online(view, *[[event] for event in events])
    oracle = Oracle(view, events)
    for at in range(BASE, BASE + 60 * MINUTE, 2 * MINUTE + 1):
        expected = {f"v__{name}": value for name, value in oracle.values({"k1": "a"}, at).items()}
        assert online.read({"k1": "a"}, {}, at).values == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([0, 0, 0, 1, 5, 60]), worlds.moderate), min_size=8, max_size=40
    ),
    st.lists(st.integers(0, 500), min_size=1, max_size=6),
    st.integers(3, 20),
    st.booleans(),
)
def test_a_hot_key_in_one_piece_is_what_its_pieces_are(small_segments, drawn, asked, batch, bags):
    """Asked again and again of one state, and after each write; values, statuses, counts and places are the same."""
    over = ["7m", "20m", "100m", Window("10m", offset="6m", hop="4m")]
    more = [agg.mode("tag", over="20m"), agg.distinct("x", over="30m")] if bags else []
    view = _view(agg.count(over=[*over, "lifetime"]), agg.mean("x", over=over), agg.max("x", over=[*over, "lifetime"]),
                 latest("tag", "x", max_age="12m"), *more, known_at="k", sequence="id")  # fmt: skip
    features, store = FeatureSet([view]), LendingKeys()
    state, online = OnlineState(features, store, horizon=EVER), OnlineFeatures(features, store)
    events = [
        _event(BASE + e * MINUTE, x, k=BASE + (e + late) * MINUTE, id=place, tag="abc"[place % 3])
        for place, (e, late, x) in enumerate(drawn)
    ]
    for first in range(0, len(events), batch):
        state.apply(events[first : first + batch], "s")
        for minute in [*asked * 5, *reversed(asked)]:
            at = BASE + minute * MINUTE
            row, pieces = (one.read({"k1": "a"}, {}, at) for one in (online, OnlineFeatures(features, store)))
            assert (repr(_rows(row)), row.places) == (repr(_rows(pieces)), pieces.places)


def test_a_hot_key_is_put_together_once_in_a_state(small_segments, monkeypatch):
    """The second request makes it whole, of a larger one a later one; after a write it comes in pieces again."""
    features, store = FeatureSet([_view(agg.count(over="1h"), sequence="id")]), LendingKeys()
    state, online, made = OnlineState(features, store, horizon=EVER), OnlineFeatures(features, store), []
    joined = views.joined
    monkeypatch.setattr(views, "joined", lambda *given, **named: made.append(named["edges"]) or joined(*given, **named))
    state.apply([_event(BASE + i, id=i) for i in range(60)], "s")
    for _ in range(8):
        assert online.read({"k1": "a"}, {}, BASE + 99).values == {"v__count_1h": 60}
    assert [edges is None for edges in made] == [False, True]
    state.apply([_event(BASE + 70, id=70)], "s")
    assert [online.read({"k1": "a"}, {}, BASE + 99).values["v__count_1h"] for _ in range(8)] == [61] * 8
    assert [edges is None for edges in made] == [False, True] * 2
    monkeypatch.setattr(whole, "_REQUEST", 1000)  # 60 rows of some words: more than that, and less than three times
    state.apply([_event(BASE + 80, id=80)], "s")
    assert [online.read({"k1": "a"}, {}, BASE + 99).values["v__count_1h"] for _ in range(8)] == [62] * 8
    late = [edges is None for edges in made[4:]]
    assert late == [False] * (len(late) - 1) + [True]
    assert 2 < len(late) < 8
    monkeypatch.setattr(whole, "_REQUESTS", 0)
    state.apply([_event(BASE + 81, id=81)], "s")
    assert [online.read({"k1": "a"}, {}, BASE + 99).values["v__count_1h"] for _ in range(8)] == [63] * 8
    assert not any(edges is None for edges in made[4 + len(late) :])


def test_a_write_while_a_hot_key_is_made_whole_counts_with_its_place(small_segments):
    """An event is written after the head was read: what the row is made of and what it says it is made of agree."""
    view = _view(agg.count(over="1h"), sequence="id")
    _, state, store = _online(view, *[[_event(BASE + i * 1_000_000, id=i)] for i in range(60)])

    class Interrupted(LendingKeys):
        reads = 0

        def reading(self):
            self.reads += 1
            if self.reads == 2:
                state.apply([_event(BASE + 20_500_000, id=99)], "s", offset=61)
            return super().reading()

    reader = Interrupted()
    reader.items = store.items
    online = OnlineFeatures(FeatureSet([view]), reader)
    rows = [online.read({"k1": "a"}, {}, BASE + 60_000_000) for _ in range(12)]
    assert [row.values["v__count_1h"] for row in rows] == [60] + [61] * 11
    assert [row.places["v"][2] for row in rows] == [rows[0].places["v"][2]] + [61] * 11
    assert rows[0].places["v"][2] != 61


def test_a_lifetime_of_events_is_kept_whole_whatever_the_horizon():
    """What no total tells, a state must have the events for: none is cut, and a redelivery of the oldest is known."""
    view = _view(agg.time_since_last(over="lifetime"), agg.distinct("x", over="lifetime"), agg.count(over="lifetime"))
    batches = [[_event(BASE + i * 60 * MINUTE, x=float(i % 7))] for i in range(40)]
    online, state, _ = _online(view, *batches, horizon="1m")
    assert state.apply([_event(BASE, x=0.0)], "s").duplicates == 1
    row = online.read({"k1": "a"}, {}, BASE + 40 * 60 * MINUTE)
    assert list(row.values.values()) == [3600.0, 7, 40]


def test_a_hot_key_has_segments_and_is_forgotten_whole(small_segments):
    """What a key sheds are entries of their own; erasure finds them."""
    online, state, store = _online(_view(agg.count(over="1h")), *[[_event(BASE + i)] for i in range(20)])
    assert online.read({"k1": "a"}, {}, BASE + 99).values == {"v__count_1h": 20}
    assert sum(name[8:9] == b"S" for name in store.items) >= 3
    state.forget("v", ["a"])
    assert [name[8:9] for name in store.items] == [b"M"]


@pytest.mark.parametrize("late", [101, 121, 143])
def test_a_late_event_that_reopens_every_segment_keeps_the_extremes_of_what_was_let_go(small_segments, late):
    """They are in the base of the index alone: the bases of segments hold running sums only."""
    view = _view(agg.max("x", over="lifetime"), agg.min("x", over="lifetime"), agg.count(over=["20m", "lifetime"]))
    events = [[_event(BASE + i * 5 * MINUTE, x={1: 9.0, 2: -9.0}.get(i, 1.0))] for i in range(41)]
    online, _, _ = _online(view, *events, [_event(BASE + late * MINUTE, x=0.5)], horizon="30m")
    row = online.read({"k1": "a"}, {}, BASE + 230 * MINUTE)
    assert row.values == {
        "v__max_x_lifetime": 9.0, "v__min_x_lifetime": -9.0, "v__count_20m": 0, "v__count_lifetime": 42
    }  # fmt: skip


def test_status_of_each_feature():
    """Present, null, expired, not found and late are told apart, feature by feature."""
    view = _view(agg.mean("x", over="1h"), latest("x", max_age="2h"), latest("tag"))
    online, _, _ = _online(view, [_event(BASE, None, tag="p"), _event(BASE - 1, k1="b")], horizon="1m")
    status = lambda key, at, name: online.read({"k1": key}, {}, at).status(f"v__{name}")  # noqa: E731
    assert status("a", BASE + 1, "latest_tag") == "present"
    assert status("a", BASE + 1, "mean_x_1h") == "null"
    assert status("a", BASE + 1, "latest_x") == "null"
    assert status("b", BASE + 200 * MINUTE, "latest_x") == "expired"
    assert status("b", BASE + 200 * MINUTE, "mean_x_1h") == "null"
    assert status("c", BASE + 1, "mean_x_1h") == "not_found"
    assert status("a", BASE - 2 * MINUTE, "latest_tag") == "late"


def test_a_declared_type_does_not_depend_on_the_batch():
    """A batch of whole prices and one of nulls are still of a float column."""
    events = Table("events", columns={"x": "float", "e": "time"})
    view = FeatureView("v", Entity("k1"), Source("s", events, event_time="e"), [agg.sum("x", over="1h"), latest("x")])
    online, state, _ = _online(view, [_event(BASE, 2)], [_event(BASE + 1, None)], [_event(BASE + 2, 3)])
    assert repr(online.read({"k1": "a"}, {}, BASE + 9).values) == "{'v__sum_x_1h': 5.0, 'v__latest_x': 3.0}"
    with pytest.raises(InputError, match=r"the one its table declares; got .*str.*. Look at who writes this stream"):
        state.apply([_event(BASE, "four")], "s")


def test_meta_tells_size_and_freshness():
    """Entities, bytes, watermark, floor and counts of each state."""
    view, again = _view(agg.count(over="1h"), sequence="id"), [_event(BASE, id=1), _event(BASE + 9, k1="b", id=2)]
    _, state, store = _online(view, [_event(BASE, id=1)], again, horizon="1m")
    plan = state.features.plan("v")
    meta = state.meta(plan)
    assert (meta.entities, meta.stored, meta.duplicates) == (2, 2, 1)
    assert (meta.watermark, meta.floor, meta.offset) == (BASE + 9, BASE + 9 - MINUTE, None)
    assert meta.total_size == sum(len(blob) for name, blob in store.items.items() if name != StateKeys(plan).meta)


def test_one_outlier_widens_no_other_key():
    """A key with 1e300 beside 1e-300 has a layout of its own; the others keep theirs."""
    view = _view(agg.sum("x", over="1h"))
    usual = [_event(BASE + i, 0.25, k1=f"k{i}") for i in range(20)]
    odd = [_event(BASE + 1, 1e300), _event(BASE + 2, 1e-300), _event(BASE + 3, -1e300)]
    online, _, store = _online(view, usual + odd, [_event(BASE + 50, 0.5, k1="k1")])
    assert online.read({"k1": "a"}, {}, BASE + 99).values == {"v__sum_x_1h": 1e-300}
    assert online.read({"k1": "k1"}, {}, BASE + 99).values == {"v__sum_x_1h": 0.75}
    assert max(len(blob) for name, blob in store.items.items() if b"k1" in name) < 200


def test_multiples_of_a_large_power_of_two_are_summed_as_they_are():
    """A column whose unit is above one, as money in large lots, is scaled back once."""
    online, _, _ = _online(
        _view(agg.sum("x", over="1h"), agg.mean("x", over="1h")), [_event(BASE, 3 * 2.0**60), _event(BASE + 1, 2.0**61)]
    )
    assert online.read({"k1": "a"}, {}, BASE + 9).values == {"v__sum_x_1h": 5 * 2.0**60, "v__mean_x_1h": 2.5 * 2.0**60}


def test_pieces_of_a_hot_key_that_do_not_agree_are_read_again(small_segments):
    """A late event is written after the index was read and before the segments are."""
    view = _view(agg.count(over=["1h", "31s"]), sequence="id")
    _, state, store = _online(view, *[[_event(BASE + i * 1_000_000, id=i)] for i in range(60)])
    calls = []

    class Interrupted(MemoryKeys):
        items = store.items

        def get_many(self, keys):
            calls.append([key[8:9] for key in keys])
            if len(calls) == 3:
                state.apply([_event(BASE + 20_500_000, id=99)], "s")
            return super().get_many(keys)

    reader = Interrupted()
    reader.items = store.items
    values = OnlineFeatures(FeatureSet([view]), reader).read({"k1": "a"}, {}, BASE + 60_000_000).values
    assert calls[2] == [b"S"]
    assert values == {"v__count_1h": 61, "v__count_31s": 31}


@pytest.mark.parametrize("base", [MemoryKeys, LendingKeys])
def test_what_a_hot_key_is_read_from_is_what_is_noted(small_segments, base):
    """An event is written after the first look at the key: it counts, and the place is that of the state with it."""
    view = _view(agg.count(over="1h"), sequence="id")
    _, state, store = _online(view, *[[_event(BASE + i * 1_000_000, id=i)] for i in range(60)])

    class Interrupted(base):
        def get_many(self, keys):
            values = super().get_many(keys)
            if not self.done:
                self.done = True
                state.apply([_event(BASE + 20_500_000, id=99)], "s", offset=61)
            return values

    reader = Interrupted()
    reader.items, reader.done = store.items, False
    row = OnlineFeatures(FeatureSet([view]), reader).read({"k1": "a"}, {}, BASE + 60_000_000)
    assert (row.values, row.places) == ({"v__count_1h": 61}, {"v": (None, 0, 61)})


def test_a_newer_event_that_was_known_sooner_is_seen_first():
    """Appending it leaves the rows out of order of visibility; a request in between sees only it."""
    view = _view(agg.sum("x", over="3h"), latest("x"), known_at="k")
    late, soon = _event(BASE, 1.0, k=BASE + 100 * MINUTE), _event(BASE + 1, 2.0, k=BASE + 2)
    online, _, _ = _online(view, [late], [soon])
    assert online.read({"k1": "a"}, {}, BASE + 50 * MINUTE).values == {"v__sum_x_3h": 2.0, "v__latest_x": 2.0}
