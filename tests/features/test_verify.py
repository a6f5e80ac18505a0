"""Verification finds equality where there is one, and the planted difference where there is not."""

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.derived import derived
from retrodict.features.offline import training_frame
from retrodict.features.online import OnlineFeatures, OnlineState
from retrodict.features.plan import FeatureSet
from retrodict.features.verify import Mismatch, rehearsal, verify
from retrodict.features.verify import probes as probing
from retrodict.features.verify import verification as verifying
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.testing import feature_worlds as worlds

BASE, MINUTE = worlds.BASE, worlds.MINUTE


@derived
def calendar(q, v__mean_x_2h):
    """Hour of the request, and a feature doubled."""
    return {"hour": q.to("America/New_York").hour, "twice": v__mean_x_2h * 2}


def _world(**source):
    rows = 400
    table = pa.table(
        {
            "k1": [f"k{i % 5}" for i in range(rows)],
            "e": pa.array([BASE + (i * 37 % 600) * MINUTE for i in range(rows)], worlds.TIME),
            "k": pa.array([BASE + (i * 37 % 600 + i % 7) * MINUTE for i in range(rows)], worlds.TIME),
            "id": list(range(rows)),
            "x": [0.1 * (i % 11) for i in range(rows)],
        }
    )
    spine = pa.table(
        {
            "k1": [f"k{i % 7}" for i in range(60)],
            "q": pa.array([BASE + i * 10 * MINUTE for i in range(60)], worlds.TIME),
        }
    )
    view = FeatureView(
        "v",
        Entity("k1"),
        Source("s", worlds.table, **{"event_time": "e", "known_at": "k", "sequence": "id", **source}),
        [agg.mean("x", over=["2h", Window("3h", hop="1h")]), agg.count(over="2h"), latest("x", max_age="1h")],
    )
    return FeatureSet([view, calendar]), table, spine


def test_all_engines_agree(tmp_path):
    """Offline, online, stream and oracle on hundreds of probes, half of them on edges."""
    features, table, spine = _world()
    keys = LmdbKeys(tmp_path / "keys")
    OnlineState(features, keys, horizon="9000d").apply(table, "s")
    report = verify(features, {"s": table}, spine, "q", online=OnlineFeatures(features, keys), stream=True, samples=100)
    keys.close()
    assert (report.verdict, report.probes, report.left_out) == ("equal", 300, 0)
    assert report.checked == 300 * len(features.columns)
    # The oracle does not know derived functions; some requests on edges are later than the newest fact.
    assert report.compared == {"oracle": 300 * 4, "online": (300 - report.skipped) * 6, "stream": 300 * 6}
    assert report.boundaries["present of online state"] == 100
    assert report.skipped < 60


def test_a_missing_event_is_found_and_explained(tmp_path):
    """State that lost events differs; the report names the feature, the values and the events behind the right one."""
    features, table, spine = _world()
    keys = LmdbKeys(tmp_path / "keys")
    OnlineState(features, keys, horizon="9000d").apply(table.slice(40), "s")
    report = verify(features, {"s": table}, spine, "q", online=OnlineFeatures(features, keys), samples=100)
    keys.close()
    assert report.verdict == "different"
    worst = next(m for m in report.mismatches if m.feature == "v__count_2h")
    assert worst.values["online"] < worst.values["offline"] == worst.values["oracle"]
    assert any(event[2] < 40 for event in worst.events)


def test_requests_beyond_the_horizon_are_skipped_not_failed(tmp_path):
    """What the state cannot answer is counted, not compared."""
    features, table, spine = _world()
    keys = LmdbKeys(tmp_path / "keys")
    OnlineState(features, keys, horizon="1m").apply(table, "s")
    report = verify(features, {"s": table}, spine, "q", online=OnlineFeatures(features, keys), samples=50)
    keys.close()
    assert report.verdict == "equal"
    assert report.skipped > 50


def test_a_table_ahead_of_its_stream_is_no_difference_and_the_present_is_compared(tmp_path):
    """Facts that have not reached online state yet make later requests incomparable, and no earlier one wrong."""
    features, table, spine = _world()
    keys = LmdbKeys(tmp_path / "keys")
    came = table.filter(pc.less_equal(table["k"], pa.scalar(BASE + 300 * MINUTE).cast(worlds.TIME)))
    OnlineState(features, keys, horizon="9000d").apply(came, "s")
    report = verify(features, {"s": table}, spine, "q", online=OnlineFeatures(features, keys), samples=50)
    keys.close()
    assert report.verdict == "equal"
    assert report.skipped > 20
    assert report.compared["online"] > 300


def test_many_events_come_near_their_place_and_some_last(monkeypatch):
    """Beyond a number of events the stream is disordered near by, and the proof is still one over every event."""
    monkeypatch.setattr(rehearsal, "_ANYWHERE", 50)
    monkeypatch.setattr(rehearsal, "_NEAR", 20)
    monkeypatch.setattr(rehearsal, "_LAST", 30)
    features, table, spine = _world()
    report = verify(features, {"s": table}, spine, "q", stream=True, samples=100)
    assert (report.verdict, report.compared["stream"]) == ("equal", report.checked)


def test_nothing_to_compare_is_not_evaluable():
    """An empty spine is neither equal nor different."""
    features, table, spine = _world()
    assert verify(features, {"s": table}, spine.slice(0, 0), "q").verdict == "not evaluable"


EDGES = FeatureView(
    "v",
    Entity("k1"),
    Source("s", worlds.table, event_time="e", known_at="k", sequence="seq", revised=True),
    [
        agg.count(over="7m", name="exact"),
        agg.count(over=Window("10m", hop="4m"), name="hopped"),
        agg.count(over=Window("5m", offset="3m"), name="before"),
        latest("seq", max_age="12m", name="newest"),
    ],
)


def _edge_world(seed=0):
    draw = random.Random(seed)
    rows = [
        {
            "k1": draw.choice("abc"),
            "k2": 1,
            "e": BASE + draw.randrange(90) * MINUTE,
            "late": draw.choice([0, 0, 1, 3]),
            "seq": draw.randrange(60),
            "x": 1.0,
            "n": 1,
            "ok": True,
            "tag": "p",
        }
        for _ in range(300)
    ]
    spine = worlds.spine_table([{"k1": k, "k2": 1, "q": BASE + 60 * MINUTE, "x": None, "ok": None} for k in "abcd"])
    return worlds.revisions_table(rows), spine


def test_every_sort_of_edge_has_its_turn():
    """Edges of windows, hops, ages, clocks, ties, revisions, calendar and seam, about equally often."""
    table, spine = _edge_world()
    hit = verify(FeatureSet([EDGES]), {"s": table}, spine, "q").boundaries
    calendar_, clocks = {"hour", "day", "month"}, {"event", "known at", "tie", "until", "seam"}
    assert set(hit) == {"window start", "window end", "hop", "max age"} | clocks | calendar_
    assert sum(hit.values()) == 200
    assert max(hit.values()) - min(hit.values()) <= 1


def _with(old, new):
    return replace(EDGES, features=[new if f.names() == old.names() else f for f in EDGES.features])


# How an engine would be wrong that has one edge on the other side, said by what it is asked and given instead.
BROKEN = {
    "start > instead of >=": (_with(EDGES.features[0], agg.count(over="6m59s999999us", name="exact")), {}),
    "start one microsecond early": (_with(EDGES.features[0], agg.count(over="7m1us", name="exact")), {}),
    "end <= instead of <": (
        _with(EDGES.features[2], agg.count(over=Window("5m1us", offset="2m59s999999us"), name="before")),
        {},
    ),
    "offset forgotten": (_with(EDGES.features[2], agg.count(over="5m", name="before")), {}),
    "hop forgotten": (_with(EDGES.features[1], agg.count(over="10m", name="hopped")), {}),
    "hop rounded up": (_with(EDGES.features[1], agg.count(over=Window("6m", hop="4m"), name="hopped")), {}),
    "age >= instead of >": (_with(EDGES.features[3], latest("seq", max_age="11m59s999999us", name="newest")), {}),
    "known at <= instead of <": (EDGES, {"k": -1}),
    "event time <= instead of <": (EDGES, {"e": -1}),
    "revisions ignored": (replace(EDGES, source=Source("s", worlds.table, event_time="e", known_at="k")), {}),
    "ties the other way round": (replace(EDGES, source=replace(EDGES.source, sequence="turned")), {}),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_an_edge_on_the_wrong_side_is_found(monkeypatch, name):
    """A training frame with one wrong edge differs from the oracle within the default number of samples."""
    view, moved = BROKEN[name]
    table, spine = _edge_world()

    def broken(asked, at, _, tables):
        given_ = tables["s"].append_column("turned", pc.negate(tables["s"]["seq"]))
        for column, by in moved.items():
            values = pc.add(given_[column].cast(pa.int64()), by).cast(worlds.TIME)
            given_ = given_.set_column(given_.column_names.index(column), column, values)
        return training_frame(asked, at, FeatureSet([view]), {"s": given_})

    assert verify(FeatureSet([EDGES]), {"s": table}, spine, "q").verdict == "equal"
    monkeypatch.setattr(verifying, "training_frame", broken)
    assert verify(FeatureSet([EDGES]), {"s": table}, spine, "q").verdict == "different"


def test_a_stream_that_forgets_is_found(monkeypatch):
    """A feeder that drops what comes late leaves another state than history does."""
    features, table, spine = _world()
    apply = OnlineState.apply

    def forgetful(self, events, source, **more):
        kept = events
        if "offset" in more:
            lateness = pc.subtract(events["k"].cast(pa.int64()), events["e"].cast(pa.int64()))
            kept = events.filter(pc.less(lateness, 5 * MINUTE))
        return apply(self, kept, source, **more)

    monkeypatch.setattr(OnlineState, "apply", forgetful)
    report = verify(features, {"s": table}, spine, "q", stream=True, samples=50)
    assert report.verdict == "different"
    assert all(set(m.values) >= {"offline", "stream"} for m in report.mismatches)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"known_at": None},
        {"known_at": None, "delay": "4m"},
        {"sequence": None},
        {"sequence": None, "known_at": None},
        {"where": "x > 0.2"},
        {"revised": True, "deleted": "x < 0.2"},
    ],
)
def test_streams_of_every_kind_of_source(source):
    """With and without ids, delays, conditions and revisions: the stream leaves the state that history says."""
    features, table, spine = _world(**source)
    report = verify(features, {"s": table}, spine, "q", stream=True, samples=40)
    assert report.verdict == "equal", report.describe()
    assert report.compared["stream"] == 80 * len(features.columns)


def test_a_source_without_times():
    """Timeless facts have no edges; they are compared all the same."""
    table = pa.table({"k1": ["a", "b", "a"], "x": [1.0, 2.0, 3.0]})
    spine = pa.table({"k1": ["a", "b", "c"], "q": pa.array([BASE] * 3, worlds.TIME)})
    view = FeatureView("v", Entity("k1"), Source("s", worlds.table), [latest("x"), agg.sum("x", over="lifetime")])
    report = verify(FeatureSet([view]), {"s": table}, spine, "q", stream=True, samples=20)
    assert (report.verdict, report.probes, report.boundaries) == ("equal", 20, {})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    worlds.wide_views(source=st.one_of(worlds.sources, st.just(worlds.REVISED))),
    worlds.moderate_histories,
    worlds.requests,
    st.integers(0, 99),
)
def test_random_worlds_are_equal(view, history, requests, seed):
    """Every aggregate, window, clock and key of random definitions: no engine differs on any edge."""
    made = worlds.revisions_table if view.source.revised else worlds.events_table
    spine = worlds.spine_table(requests)
    report = verify(FeatureSet([view]), {"s": made(history)}, spine, "q", stream=True, samples=15, seed=seed)
    assert report.verdict == "equal", report.describe()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (1.5, 1.5, True),
        (2, 2.0, True),
        (0.1 + 0.2, 0.3, False),
        (0.0, -0.0, False),
        (float("nan"), float("nan"), False),
        (None, None, True),
        (None, 0, False),
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [2.0, 1.0], False),
        ([0.0], [-0.0], False),
        ([1.0], [1.0, 1.0], False),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, True),
        ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}, False),
        ({"a": 1.0}, {"a": None}, False),
        ({"a": 1.0}, ["a"], False),
        ("1", 1, False),
    ],
)
def test_what_counts_as_the_same(first, second, same):
    """Values are compared to the bit: signs of zero, orders of lists and maps, null; and NaN is never right."""
    assert verifying._same(first, second) is same


def test_the_text_shows_no_key_unless_asked(monkeypatch):
    """Keys may say who somebody is: a digest tells them apart, and show_keys shows them."""
    features, table, spine = _world()
    broken = FeatureSet([replace(features.views[0].view, source=replace(features.sources["s"], delay=None)), calendar])
    monkeypatch.setattr(
        verifying, "training_frame", lambda asked, at, _, tables: training_frame(asked, at, broken, {"s": table[:200]})
    )
    report = verify(features, {"s": table}, spine, "q", samples=50)
    worst = next(m for m in report.mismatches if m.events)
    text = report.describe()
    assert f"key {worst.key}" in text
    assert "k1=" not in text
    assert not any(f"'k{i}'" in text + repr(report) for i in range(7))
    assert f"k1={worst.request['k1']!r}" in report.describe(show_keys=True)
    assert "oracle: " in text
    assert f"row {worst.events[-1][3]}" in worst.describe()
    assert "and " in text.splitlines()[-1]


def test_the_text_of_a_clean_report():
    """Verdict, what was compared, and how many requests stood on which edge."""
    features, table, spine = _world()
    text = verify(features, {"s": table}, spine, "q", samples=40).describe()
    assert text.startswith(
        "equal: 80 requests, 320 values, 0 different\ncompared with the training frame: oracle 320\n"
    )
    assert "known at 4" in text


def test_rows_are_those_of_the_whole_table():
    """Events are found again in the source by their row, though the oracle saw only those of a few keys."""
    rows = 3_000
    table = pa.table(
        {"k1": [f"k{i % 1000}" for i in range(rows)], "e": pa.array([BASE + i for i in range(rows)], worlds.TIME)}
    )
    view = FeatureView("v", Entity("k1"), Source("s", worlds.table, event_time="e"), [agg.count(over="1h")])
    features = FeatureSet([view])
    spine = pa.table({"k1": ["k7"], "q": pa.array([BASE + MINUTE], worlds.TIME)})
    judge = verifying._Judge(features, probing.Probes(spine, {}, 0), np.array([BASE + MINUTE]), {"s": table})
    found = judge.events(features.views[0], 0)
    assert [event[2:] for event in found] == [(7, 7), (1007, 1007), (2007, 2007)]


def test_keys_with_too_many_events_are_left_out_and_counted(monkeypatch):
    """What the oracle cannot afford is not asked, and the report says so."""
    features, table, spine = _world()
    monkeypatch.setattr(probing, "_MOST_EVENTS", 200)
    report = verify(features, {"s": table}, spine, "q", samples=50)
    assert report.verdict == "equal"
    assert 0 < report.left_out < 50
    assert f"too many events for the oracle: {report.left_out}" in report.describe()
    monkeypatch.setattr(probing, "_MOST_EVENTS", 10)
    lone = spine.filter(pc.equal(spine["k1"], "k0"))
    assert verify(features, {"s": table}, lone, "q", samples=50).verdict == "not evaluable"


def test_the_key_of_everybody_is_asked_whatever_it_holds(monkeypatch):
    """A view without an entity has one key: the oracle looks at what its windows reach, if they have an end."""
    features, table, spine = _world()
    view = features.views[0].view
    monkeypatch.setattr(probing, "_MOST_EVENTS", 10)
    everybody = FeatureSet([replace(view, entity=None)])
    report = verify(everybody, {"s": table}, spine, "q", samples=20)
    assert (report.verdict, report.left_out) == ("equal", 0)
    newest = FeatureSet([replace(view, entity=None, features=[latest("x")])])
    assert verify(newest, {"s": table}, spine, "q", samples=20).verdict == "not evaluable"


def test_a_large_source_is_cut_to_the_keys_that_are_asked(monkeypatch):
    """The training frame of a large source gets the events of the asked keys among as many others as fit."""
    features, table, spine = _world()
    seen = []
    monkeypatch.setattr(verifying, "_WHOLE", 50)
    monkeypatch.setattr(verifying, "training_frame", lambda *a: seen.append(a[3]["s"].num_rows) or training_frame(*a))
    alone = spine.filter(pc.equal(spine["k1"], "k0"))
    monkeypatch.setattr(probing, "_BUSY", 1)
    assert verify(features, {"s": table}, alone, "q", samples=20).verdict == "equal"
    assert 80 <= seen[0] < 250


def test_keys_of_another_kind_are_refused():
    """A spine that holds numbers where the source holds text says so, and what to do."""
    features, table, spine = _world()
    other = spine.set_column(0, "k1", pa.array(range(60)))
    with pytest.raises(DefinitionError, match="spine, column 'k1': the key of request and source must be of one kind"):
        verify(features, {"s": table}, other, "q")


@pytest.mark.parametrize("unit", ["ns", "ms", "s"])
def test_times_of_other_units_have_edges_of_microseconds(unit):
    """A spine in seconds is asked one microsecond beside an edge all the same."""
    features, table, spine = _world()
    other = spine.set_column(1, "q", spine["q"].cast(pa.timestamp(unit, "UTC")))
    report = verify(features, {"s": table}, other, "q", samples=40)
    assert (report.verdict, report.probes) == ("equal", 80)


def test_a_mismatch_without_times():
    """Facts that were always there are said to be so."""
    lost = Mismatch("v__x", BASE, {"k1": "a"}, {"offline": 1, "oracle": 2}, [(-(1 << 62), -(1 << 62), 3, 3)])
    assert "event of always, known always, id 3, row 3" in lost.describe()


@derived
def doubled(x: float):
    return {"twice": x * 2}


@derived
def centred(x: float):
    return {"x": x - x.mean()}


def test_features_without_a_view_are_verified_as_well():
    """A column and single requests give the same, or, where a function looks at its neighbours, they do not."""
    spine = pa.table({"at": pa.array(range(50), pa.timestamp("us", "UTC")), "x": [float(i) for i in range(50)]})
    report = verify(FeatureSet([doubled]), {}, spine, "at", stream=True, samples=40)
    assert (report.verdict, report.probes, report.compared) == ("equal", 40, {"stream": 40})
    assert verify(FeatureSet([centred]), {}, spine, "at", stream=True, samples=40).verdict == "different"
