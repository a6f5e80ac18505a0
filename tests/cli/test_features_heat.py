"""Warnings of slow features are about the busiest window of each key, by plain counting, and name no key."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg
from retrodict.features.online import hot_features
from retrodict.features.online.read import heat
from retrodict.features.plan import ViewPlan
from retrodict.testing import feature_worlds as worlds

SECOND = 1_000_000


def _plan(*features):
    return ViewPlan(FeatureView("v", Entity("k1"), Source("s", worlds.table, event_time="e", sequence="id"), features))


def _table(events):
    return pa.table(
        {
            "id": range(len(events)),
            "k1": pa.array([key for key, _ in events], pa.string()),
            "e": pa.array([worlds.BASE + at * SECOND for _, at in events], worlds.TIME),
            "x": [1.0] * len(events),
        }
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 300)), max_size=40), st.integers(1, 8))
def test_counts_are_those_of_the_busiest_window(events, threshold):
    """For every key, the most events at or less than a window before one of its events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heat, "HOT_EVENTS", threshold)
        plan = _plan(agg.distinct("x", over=["1m", "lifetime"]), agg.sum("x", over="1m"))
        found = {each.feature: (each.keys, each.largest) for each in hot_features(plan, _table(events))}
    expected = {}
    for feature, reach in (("distinct_x_1m", 60), ("distinct_x_lifetime", 10**9)):
        most = [
            max(sum(1 for k, t in events if k == key and at - reach < t <= at) for own, at in events if own == key)
            for key in {key for key, _ in events if key is not None}
        ]
        hot = [count for count in most if count > threshold]
        if hot:
            expected[feature] = (len(hot), max(hot))
    assert found == expected


def test_totals_are_never_slow(monkeypatch):
    """Whatever a key holds: a window of running sums is a difference of two rows."""
    monkeypatch.setattr(heat, "HOT_EVENTS", 1)
    plan = _plan(agg.sum("x", over="1m"), agg.max("x", over="lifetime"))
    assert not list(hot_features(plan, _table([("a", 0)] * 50)))


def test_commands_warn_with_the_remedy_and_no_key(run, folder, monkeypatch):
    """``plan`` and ``show``, in words and as JSON; exit code 0, since it is a warning."""
    monkeypatch.setattr(heat, "HOT_EVENTS", 2)
    text = (
        (folder / "definitions.py").read_text().replace('agg.count(over="30d")', 'agg.distinct("amount", over="30d")')
    )
    (folder / "definitions.py").write_text(text)
    (folder / "loans.csv").write_text(
        "id,person,asked,closed,lost,amount\n"
        + "".join(f"{i},secretive,2020-01-0{i}T10:00Z,2020-02-01T10:00Z,false,100\n" for i in range(1, 6))
    )
    assert run("ingest", "loans", folder / "loans.csv", "--project", folder).code == 0
    for command in (("plan",), ("show", "history")):
        shown, told = (run("features", *command, "--project", folder, *more) for more in ((), ("--json",)))
        assert shown.code == 0, shown.err
        assert "secretive" not in shown.out + told.out
        assert "a shorter window" in " ".join(shown.out.split())
        assert json.loads(told.out)["slow"] == [
            {"view": "history", "feature": "distinct_amount_30d", "window": "30d", "keys": 1, "most": 5, "rows": 5,
             "threshold": 2}
        ]  # fmt: skip
