"""Online values equal the oracle at any time, whatever order events arrived in."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.online import OnlineFeatures
from retrodict.features.plan import FeatureSet
from retrodict.features.state import OnlineState
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.testing import feature_worlds as worlds

MINUTE, BASE = worlds.MINUTE, worlds.BASE
EVER = "36000d"


class MemoryKeys:
    """The contract of a key store over a dict, for tests that need hundreds of stores."""

    def __init__(self):
        self.items = {}

    def get_many(self, keys):
        return [self.items.get(key) for key in keys]

    def put_many(self, items, *, durable=True):
        for key, value in items.items():
            self.items.pop(key, None) if value is None else self.items.__setitem__(key, value)

    def update(self, keys, change, *, durable=True):
        change(self.get_many(keys))  # pure: a store may call it more than once
        self.put_many(change(self.get_many(keys)))

    def scan(self, prefix, *, start=None):
        return iter(sorted((k, v) for k, v in self.items.items() if k.startswith(prefix) and k >= (start or b"")))


def _requests(spine):
    return [{name: worlds.plain(value) for name, value in row.items()} for row in spine.to_pylist()]


def _read_all(features, store, spine):
    online = OnlineFeatures(features, store)
    found = {name: [] for name in features.columns}
    for request in _requests(spine):
        for name, value in online.read(request, {}, request["q"]).values.items():
            found[name].append(value)
    return found


@settings(max_examples=150, deadline=None)
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
    for first in range(0, table.num_rows, batch):
        state.apply(table.slice(first, batch), "s", first_position=first)
    expected = worlds.oracle_columns(features, spine, {"s": table})
    assert repr(_read_all(features, store, spine)) == repr(expected)  # 1, 1.0 and True are equal but not the same


@settings(max_examples=100, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests, st.randoms())
def test_any_order_with_redeliveries_ends_in_the_same_values(view, events, queries, random):
    """Events as rows of a stream, shuffled and delivered twice, give what the sorted history gives."""
    if view.source.sequence is None:
        return
    features, table, spine = FeatureSet([view]), worlds.events_table(events), worlds.spine_table(queries)
    store = MemoryKeys()
    state = OnlineState(features, store, horizon=EVER)
    rows = [{name: worlds.plain(value) for name, value in row.items()} for row in table.to_pylist()] * 2
    random.shuffle(rows)
    for first in range(0, len(rows), 5):
        state.apply(rows[first : first + 5], "s", offset=first)
    assert _read_all(features, store, spine) == worlds.oracle_columns(features, spine, {"s": table})


@settings(max_examples=100, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests)
def test_within_the_horizon_expiry_changes_nothing(view, events, queries):
    """After pruning and expiry a request is answered exactly or told that it is beyond the horizon."""
    features, table, spine = FeatureSet([view]), worlds.events_table(events), worlds.spine_table(queries)
    store = MemoryKeys()
    state = OnlineState(features, store, horizon="10m")
    for first in range(0, table.num_rows, 6):
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
    assert (empty.statuses, empty.values) == ({"v": "no_state"}, {"v__count_1h": 0})


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
    assert state.forget("v", ["a"]) == 2
    assert online.read({"k1": "a"}, {}, BASE + 1).values == {"v__count_1h": 0, "v__latest_x": None}
    assert online.read({"k1": "b"}, {}, BASE + 1).values == {"v__count_1h": 1, "v__latest_x": 1.0}


def test_the_request_brings_its_own_event():
    """include_current counts the request's row and nobody else's at the same microsecond."""
    view = _view(
        agg.sum("x", over=Window("1h", include_current=True)), agg.max("x", over=Window("1h", include_current=True))
    )
    online, _, _ = _online(view, [_event(BASE - 1, 0.1), _event(BASE, 99.0)])
    assert list(online.read({"k1": "a"}, {"x": 0.2}, BASE).values.values()) == [0.1 + 0.2, 0.2]
    with pytest.raises(InputError, match="carries the columns of its own event; got 'x'"):
        online.read({"k1": "a"}, {}, BASE)


def test_a_missing_entity_is_the_callers_mistake():
    """The error names the view and the entity."""
    with pytest.raises(InputError, match="view 'v', request: the request has every entity of its features; got 'k1'"):
        _online(_view(agg.count(over="1h")))[0].read({}, {}, BASE)


def test_keys_of_another_kind_are_refused():
    """A stream that suddenly sends numbers for text keys is an error, not a new key space."""
    with pytest.raises(InputError, match="the keys of a source keep their kind"):
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


def test_latest_is_null_once_it_is_too_old():
    """At exactly max_age the value still counts, a microsecond later not."""
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
    size = max(len(value) for key, value in store.items.items() if key[8:9] == b"L")
    assert size == len(
        _online(view, [{"k1": "a", "id": 3, "x": 3.0}])[2].items[max(store.items, key=lambda k: k[8:9] == b"L")]
    )
    assert online.read({"k1": "a"}, {}, 0).values == {"v__latest_x": 3.0}
