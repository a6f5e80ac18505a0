"""Verification finds equality where there is one, and the planted difference where there is not."""

import pyarrow as pa

from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.derived import derived
from retrodict.features.online import OnlineFeatures
from retrodict.features.plan import FeatureSet
from retrodict.features.state import OnlineState
from retrodict.features.verify import verify
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.testing import feature_worlds as worlds

BASE, MINUTE = worlds.BASE, worlds.MINUTE


@derived
def calendar(q, v__mean_x_2h):
    """Hour of the request, and a feature doubled."""
    return {"hour": q.to("America/New_York").hour, "twice": v__mean_x_2h * 2}


def _world():
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
        Source("s", worlds.table, event_time="e", known_at="k", sequence="id"),
        [agg.mean("x", over=["2h", Window("3h", hop="1h")]), agg.count(over="2h"), latest("x", max_age="1h")],
    )
    return FeatureSet([view, calendar]), table, spine


def test_all_engines_agree(tmp_path):
    """Offline, online and oracle on hundreds of probes, half of them on edges."""
    features, table, spine = _world()
    keys = LmdbKeys(tmp_path / "keys")
    OnlineState(features, keys, horizon="9000d").apply(table, "s")
    report = verify(features, {"s": table}, spine, "q", online=OnlineFeatures(features, keys), samples=100)
    keys.close()
    assert (report.verdict, report.probes, report.skipped) == ("equal", 200, 0)
    assert report.checked == 200 * len(features.columns)


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


def test_nothing_to_compare_is_not_evaluable():
    """An empty spine is neither equal nor different."""
    features, table, spine = _world()
    assert verify(features, {"s": table}, spine.slice(0, 0), "q").verdict == "not evaluable"
