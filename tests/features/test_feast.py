"""A Feast repository becomes definitions that load and mean the same; what has no counterpart is named.

``feast_registry.json`` is what Feast 0.67 dumps of its own template (``feast init -t local``), with views of two
entities and of none, a mapped field and a renamed view beside it; its times of creation are left out.
"""

import json
import re
from functools import reduce
from operator import getitem
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict import Project
from retrodict.core.errors import InputError
from retrodict.features.feast import read_registry
from retrodict.workspace import Workspace

DUMP = Path(__file__).with_name("feast_registry.json")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "drivers"\n')
    (tmp_path / "definitions.py").write_text(read_registry(DUMP).definition)
    return tmp_path


def test_the_module_loads_and_has_what_feast_has(folder):
    """Entities by their keys, views by source, clocks, age and features, services by what they serve."""
    with Workspace(folder) as workspace:
        of = {(one.kind, one.name): one for one in workspace.definitions}
    views = {name: view for (kind, name), view in of.items() if kind == "view"}
    assert {name: view.key_columns for name, view in views.items()} == {
        "driver_hourly_stats": ("driver_id",), "driver_hourly_stats_fresh": ("driver_id",), "market": (),
        "trip_stats": ("driver_id", "customer_id"), "co_driver": ("driver_id",)}  # fmt: skip
    stats, trips = views["driver_hourly_stats"], views["trip_stats"]
    assert (stats.source.name, stats.source.event_time, stats.source.known_at) == (
        "driver_hourly_stats_source", "event_timestamp", "created")  # fmt: skip
    assert stats.feature_names == ["conv_rate", "acc_rate", "avg_daily_trips"]
    assert {feature.max_age for feature in stats.features} == {"1d"}
    assert next((f.label, f.columns, f.max_age) for f in trips.features) == ("fare", ("fare_usd",), "1d12h")
    assert views["market"].features[0].max_age is None
    assert views["co_driver"].request_keys == ("co_driver_id",)
    services = {name: service.feature_names for (kind, name), service in of.items() if kind == "service"}
    assert services == {
        "driver_activity_v1": ["driver_hourly_stats.conv_rate"], "driver_activity_v2": ["driver_hourly_stats"],
        "driver_activity_v3": ["driver_hourly_stats_fresh"],
        "scoring_v1": ["co_driver.conv_rate", "co_driver.avg_daily_trips", "trip_stats.version", "trip_stats.fare",
                       "market"]}  # fmt: skip
    assert (of["service", "scoring_v1"].owner, of["service", "scoring_v1"].tags) == ("ana@example.com", ("team:risk",))
    assert dict(of["table", "trips_2024"].columns)["fare_usd"] == "float"


def test_its_features_are_served_under_the_names_of_feast(folder):
    """``driver_hourly_stats__conv_rate`` as Feast's full feature names, of a row that was ingested."""
    times = pa.array([1_704_067_200_000_000], pa.timestamp("us", "UTC"))
    row = pa.table({"driver_id": [1001], "conv_rate": [0.5], "acc_rate": [0.25], "avg_daily_trips": [7],
                    "event_timestamp": times, "created": times})  # fmt: skip
    asked = pa.table(
        {"driver_id": [1001, 1001], "at": pa.array([1_704_067_200_000_001, 1_704_153_600_000_001], times.type)}
    )
    with Project(folder, actor="ana") as project:
        project.data.ingest("driver_hourly_stats_source", row)
        frame = project.features.frame(asked, "driver_activity_v1", at="at")
    assert frame["driver_hourly_stats__conv_rate"].to_pylist() == [0.5, None]  # the ttl of a day is over


def test_every_object_of_the_dump_is_defined_or_named():
    """Nothing is dropped in silence: no object of the dump, no feature, no field."""
    dump, imported = json.loads(DUMP.read_text()), read_registry(DUMP)
    named = " ".join(f"{entry.name}: {entry.reason}" for entry in imported.unmapped)
    for section in dump.keys() - {"project", "infra"}:
        for entry in dump[section]:
            name = entry.get("spec", entry)["name"]
            assert name == "__dummy" or name in named or any(name in names for names in imported.defined.values())
    lost = {entry.name for entry in imported.unmapped if not entry.partly}
    assert {"onDemandFeatureViews transformed_conv_rate", "labelViews driver_quality_labels", "view hidden", "infra",
            "feature driver_hourly_stats.driver_config", "service only_hidden",
            "source vals_to_add"} <= lost  # fmt: skip
    for text in ("transformed_conv_rate is left out", "its field loggingConfig has no counterpart", "sequence=",
                 "called scoring_v1 here", "a row counts from its created on"):  # fmt: skip
        assert text in named
    assert imported.remarks()[0].startswith("4 tables, 4 sources, 3 entities, 5 views, 4 services; 15 not mapped")


def test_a_field_that_nobody_knows_is_named(tmp_path):
    """A later Feast may say more of a view, a source or a section than is read here."""
    dump = json.loads(DUMP.read_text())
    next(view for view in dump["featureViews"] if view["spec"]["name"] == "market")["spec"]["quantum"] = 1
    (tmp_path / "r.json").write_text(json.dumps({**dump, "spells": [{"spec": {"name": "abra"}}]}))
    named = {(entry.name, entry.reason) for entry in read_registry(tmp_path / "r.json").unmapped}
    assert ("view market", "its field quantum has no counterpart") in named
    assert "spells" in {name for name, _ in named}


def test_a_dump_is_data_and_never_code(tmp_path):
    """Names and texts of a dump end up in literals, whatever they hold."""
    evil = 'x", keys=[]); raise SystemExit(7) #\n'
    text = DUMP.read_text().replace('"Customer"', json.dumps(evil)).replace('"Inputs of the score"', json.dumps(evil))
    (tmp_path / "r.json").write_text(text.replace('"data/trips.parquet"', json.dumps(evil)))
    scope = {}
    exec(compile(read_registry(tmp_path / "r.json").definition, "definitions", "exec"), scope)
    assert scope["scoring_v1"].description == evil


def _places(value, path=()):
    """Every place of a JSON value."""
    yield path
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(entry, (*path, key))


def _changed(dump, place, value):
    """A dump with another value at a place; without it if that is ``...``."""
    if not place:
        return value
    copy = json.loads(json.dumps(dump))
    parent = reduce(getitem, place[:-1], copy)
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("featureViews", 0, "spec", "ttl"), "nan", "featureViews[0], spec, ttl: a time to live must be seconds"),
        (("featureViews", 0, "spec", "ttl"), "infs", "got 'infs'"),
        (("featureViews", 0, "spec", "ttl"), "-5s", "got '-5s'"),
        (("featureViews", 0, "spec", "ttl"), 5, "featureViews[0], spec, ttl: a time to live"),
        (("featureViews",), None, "featureViews: the value must be a list"),
        (("featureViews", 0, "spec"), ..., "featureViews[0]: the object must have spec"),
        (("featureViews", 0, "spec", "batchSource"), None, "spec, batchSource: the value must be an object"),
        (("featureViews", 0, "spec", "description"), True, "spec, description: the value must be text"),
        (("featureViews", 0, "spec", "description"), "\ud800", "whole characters"),
        (("featureViews", 0, "spec", "other"), float("inf"), "finite numbers"),
        (("entities", 1, "spec", "name"), 5, "entities[1], spec, name: the value must be text"),
        (("onDemandFeatureViews", 0), "text", "onDemandFeatureViews[0]: the value must be an object"),
        (("dataSources", 0, "fileOptions"), [], "dataSources[0], fileOptions: the value must be an object"),
        (("featureServices", 0, "spec", "tags"), {"team": 1}, "spec, tags, team: the value must be text"),
    ],
)
def test_a_dump_of_another_form_is_refused_with_its_place(tmp_path, place, value, where):
    """What is wrong, where, and what to run: never a bug of ours."""
    (tmp_path / "r.json").write_text(json.dumps(_changed(json.loads(DUMP.read_text()), place, value)))
    with pytest.raises(InputError, match=re.escape(where)) as refusal:
        read_registry(tmp_path / "r.json")
    assert "feast registry-dump" in str(refusal.value)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_dump_is_read_or_refused(tmp_path, data):
    """One value of the real dump is another, or gone: a module that loads, or an error of the input."""
    dump = json.loads(DUMP.read_text())
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("nans")
    values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(), scalars, max_size=2)
    place = data.draw(st.sampled_from(list(_places(dump))))
    value = data.draw(values if not place or isinstance(place[-1], int) else values | st.just(...))
    (tmp_path / "r.json").write_text(json.dumps(_changed(dump, place, value)))
    try:
        imported = read_registry(tmp_path / "r.json")
    except InputError:
        return
    exec(compile(imported.definition.encode(), "definitions", "exec"), {})
    "\n".join(imported.remarks()).encode()


def test_a_thousand_views_of_one_name_are_as_many(tmp_path):
    """Each has a name of its own."""
    dump = json.loads(DUMP.read_text())
    views = [view for view in dump["featureViews"] if view["spec"]["name"] == "market"] * 1_100
    (tmp_path / "r.json").write_text(json.dumps({**dump, "featureViews": views, "featureServices": []}))
    assert len(set(read_registry(tmp_path / "r.json").defined["views"])) == 1_100


@pytest.mark.parametrize(
    "content", ["from feast import Entity\n", "[]", '{"expectations": []}', '{"entities":' + "[" * 10**5, None]
)
def test_another_file_is_refused(tmp_path, content):
    """Python of a repository as well: the remedy says what to run."""
    if content is not None:
        (tmp_path / "registry.json").write_text(content)
    with pytest.raises(InputError, match=r"feast registry-dump > registry\.json"):
        read_registry(tmp_path / "registry.json")
