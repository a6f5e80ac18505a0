"""What keeps online state current: which feature sets it feeds, and what it says of how far behind it is."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from retrodict.features.definitions import FeatureView
from retrodict.features.online import OnlineFeatures, Upkeep, build_online, encode_event, online_features
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.registry.deployments import Deployment, change
from retrodict.registry.feature_sets import readers_in_force, served_feature_sets
from retrodict.serving.consumer import consume
from retrodict.workspace import definitions_of
from retrodict.workspace.code import capture_code

BASE = 1_704_067_200_000_000
HOUR = 3_600_000_000
DEFINITIONS = """
from retrodict import *

parcels = Table("parcels", key="id", columns={{"id": "int", "depot": "string", "sent": "time", "delay": "float"}})
sent = Source("sent", parcels, event_time="sent", sequence="id")
view = FeatureView("{view}", Entity("depot"), sent, [agg.{op}("delay", over="24h")])
late = Label("late", parcels, "delay > 3", known_at="sent", matures="10d")
model = Model("late_parcel", label=late, decide_at="sent", features=[view],
    recipe=Recipe("logistic", split=TimeSplit(train="2024-01-01/2024-02-01", validate="10d", test="10d")))
"""


@pytest.fixture
def project(make_project):
    """A project whose model took sums before it took maxima; nothing decides yet."""
    return make_project(DEFINITIONS.format(view="sums", op="sum"), settings="[features]\nhorizon = '30d'\n")


def _code(project, view, op):
    (project.root / "definitions.py").write_text(DEFINITIONS.format(view=view, op=op))
    return capture_code(project)


def _decide(project, code, previous=None):
    """Put a model in force that was trained with these definitions."""
    before = previous and {"model": "late_parcel@1", "model_code": previous, "artifact": "a", "code": previous,
                           "policy_version": "v"}  # fmt: skip
    model = "late_parcel@2" if previous else "late_parcel@1"
    deployment = Deployment("promise", "v", code, model, "a", code, before)
    change(project, deployment, action="promote" if previous else "deploy", reason="test")


def _append(project, first, count):
    rows = [{"id": i, "depot": "x", "sent": BASE + i * 60_000_000, "delay": 2.0} for i in range(first, first + count)]
    with project.events.open_writer("events/parcels") as writer:
        writer.append([encode_event(row) for row in rows])


def _value(project, code, at):
    online: OnlineFeatures = online_features(project, FeatureSet(definitions_of(project, code).of(Model)[0].features))
    return list(online.read({"depot": "x"}, {}, at).values.values())


def test_what_decided_before_is_fed_beside_what_decides(project):
    """A rollback finds its features as current as those of the model it replaces."""
    sums, tops = _code(project, "sums", "sum"), _code(project, "tops", "max")
    _decide(project, tops, previous=sums)
    _append(project, 0, 3)
    readers = [(reader.model, reader.policy, reader.decides) for reader in readers_in_force(project)]
    assert readers == [("late_parcel@2", "promise", True), ("late_parcel@1", "promise", False)]
    assert len(served_feature_sets(project)) == 2
    upkeep = Upkeep(project, served_feature_sets)
    assert upkeep.catch_up() == 2 * 3
    assert _value(project, sums, BASE + HOUR) == [6.0]
    assert _value(project, tops, BASE + HOUR) == [2.0]


def test_a_deployment_is_followed_while_the_process_runs(project):
    """Nothing decides at first; what is deployed later is fed from the beginning of the stream."""
    code = _code(project, "sums", "sum")
    _append(project, 0, 2)
    upkeep = Upkeep(project, served_feature_sets)
    assert upkeep.catch_up() == 0
    assert upkeep.lags() == {}
    _decide(project, code)
    empty = {"table": "parcels", "version": None, "newest": None, "rows": 0, "streamed": False,
             "shortfall": None}  # fmt: skip
    assert upkeep.lags() == {"sent": {"offset": 0, "lag": 2, "table": empty}}
    assert upkeep.catch_up() == 2
    assert _value(project, code, BASE + HOUR) == [4.0]


def test_each_partition_has_the_lag_of_the_set_furthest_behind(make_project):
    """The set that comes last is less far behind, and hides nothing."""
    cut = make_project(folder="cut", settings="[features]\nhorizon = '30d'\npartitions = 2\n")
    sums = _code(cut, "sums", "sum")
    _decide(cut, sums)
    _append(cut, 0, 2)
    Upkeep(cut, served_feature_sets).catch_up()
    _decide(cut, _code(cut, "tops", "max"), previous=sums)
    _append(cut, 2, 3)
    assert Upkeep(cut, served_feature_sets).lags()["sent"]["partitions"] == {0: 5, 1: 5}
    assert Upkeep(cut, served_feature_sets, assigned=[1]).lags()["sent"]["partitions"] == {1: 5}


def test_the_lag_of_a_source_is_that_of_the_set_furthest_behind(project):
    """A set that was fed before and one that was not: the number is the greater, and zero once both are there."""
    sums = _code(project, "sums", "sum")
    _decide(project, sums)
    _append(project, 0, 2)
    Upkeep(project, served_feature_sets).catch_up()
    tops = _code(project, "tops", "max")
    _decide(project, tops, previous=sums)
    _append(project, 2, 3)
    upkeep = Upkeep(project, served_feature_sets)
    assert upkeep.lags()["sent"]["lag"] == 5
    assert [flow.lags for flow in sorted(upkeep.flows(), key=lambda flow: flow.view)] == [{0: 3}, {0: 5}]
    upkeep.catch_up()
    assert {name: upkeep.lags()["sent"][name] for name in ("offset", "lag")} == {"offset": 5, "lag": 0}


VIEWS = """
from retrodict import *

parcels = Table("parcels", key="id")
sent = Source("sent", parcels, event_time="sent", sequence="id")
short = FeatureView("short", Entity("depot"), sent, [agg.count(over="1h")])
long = FeatureView("long", Entity("depot"), sent, [agg.count(over="48h")])
"""


@pytest.mark.parametrize("wrong", [[], [1_000 * 24 * HOUR]], ids=["in order", "a wrong clock"])
def test_what_is_built_is_all_that_a_request_can_see(make_project, wrong):
    """The longest window of the source, from the oldest request that is answered; a wrong event ages nothing."""
    project = make_project(VIEWS, settings="[features]\nhorizon = '1h'\n")
    now, minute = project.clock.now(), HOUR // 60
    times = [now - minute - before for before in (60 * HOUR, 48 * HOUR + 50 * minute, 47 * HOUR, 30 * minute, 0)]
    times += [now + later for later in wrong]
    table = {"id": range(len(times)), "depot": ["x"] * len(times), "sent": pa.array(times, pa.timestamp("us", "UTC"))}
    project.tables.write("parcels", pa.table(table))
    features = FeatureSet(project.definitions.of(FeatureView))
    build_online(project, [features])
    for at in (now - 55 * minute, now):
        values = online_features(project, features).read({"depot": "x"}, {}, at).values
        for name, reach in (("short__count_1h", HOUR), ("long__count_48h", 48 * HOUR)):
            assert values[name] == sum(at - reach <= time < at for time in times), (name, at)


def test_a_consumer_says_that_state_was_built_with_a_shorter_horizon(project, make_project, caplog):
    """A setting that was changed says so in the log of what serves by it, with both values."""
    code = _code(project, "sums", "sum")
    _decide(project, code)
    _append(project, 0, 3)
    rows = {"id": [1], "depot": ["x"], "sent": [datetime.fromtimestamp(BASE / 1e6, UTC)], "delay": [1.0]}
    project.tables.write("parcels", pa.table(rows))
    Upkeep(project, served_feature_sets).catch_up()
    project.close()
    longer = make_project(settings="[features]\nhorizon = '60d'\n")
    ended = subprocess.Popen(["true"])
    ended.wait()
    with caplog.at_level("WARNING"):
        consume(longer, parent=ended.pid)
    assert "sent: online state was built with features.horizon = '30d', now it is '60d'" in caplog.text
