"""Features as a product of their own: a service works with no model, no policy and nothing deployed."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrodict import Project
from retrodict.core.clock import SimulatedClock, to_micros
from retrodict.core.errors import DefinitionError, InputError
from retrodict.features.online import online_state
from retrodict.models.readers import service_sets

DEFINITIONS = """
from retrodict import *

rides = Table("rides", key="id", columns={"id": "int", "city": "string", "at": "time", "known": "time", "km": "float"})
skies = Table("skies", columns={"city": "string", "at": "time", "wind": "float", "rain": "float"})
ridden = Source("ridden", rides, event_time="at", known_at="known", sequence="id")
seen = Source("seen", skies, event_time="at")
demand = FeatureView("demand", Entity("city"), ridden, [agg.count(over="6h"), agg.mean("km", over="6h")])
sky = FeatureView("sky", Entity("city"), seen, [latest("wind", max_age="6h"), latest("rain", max_age="6h")])


@derived
def calendar(asked: Times):
    return {"hour": asked.hour}


market = FeatureView("market", None, seen, [
    agg.mean("wind", over="1d"), agg.median("wind", over="1d", name="median_wind"), latest("wind")])
inputs = FeatureService("scoring_inputs", [demand, sky.wind, calendar], owner="ana", tags=["city"])
rode = FeatureView("rode", None, ridden, [agg.count(over="lifetime")])
everybody = FeatureService("everybody", [rode, market])
"""
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
COLUMNS = ["demand__count_6h", "demand__mean_km_6h", "sky__latest_wind", "calendar__hour"]


@pytest.fixture
def project(tmp_path: Path) -> Any:
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "city"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    with Project(tmp_path, actor="ana", clock=SimulatedClock(to_micros(NOW))) as opened:
        yield opened


def rides(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rides every twenty minutes before noon, known five minutes later, by turns in two cities."""
    times = [NOW - timedelta(minutes=20 * (number + 1)) for number in range(first, first + count)]
    return [{"id": number, "city": "ab"[number % 2], "at": at, "known": at + timedelta(minutes=5), "km": 1.5 * number}
            for number, at in enumerate(times, first)]  # fmt: skip


def skies() -> list[dict[str, Any]]:
    return [{"city": city, "at": NOW - timedelta(hours=hour), "wind": wind, "rain": 0.0}
            for city, hour, wind in (("a", 1, 7.5), ("b", 7, 3.0))]  # fmt: skip


def expected(city: str) -> list[Any]:
    """The naive meaning of the service at noon, of thirty rides and the skies."""
    reach = [
        r for r in rides(30) if r["city"] == city and NOW - timedelta(hours=6) <= r["at"] < NOW and r["known"] < NOW
    ]
    mean = sum(ride["km"] for ride in reach) / len(reach)
    return [len(reach), mean, {"a": 7.5, "b": None}[city], 12.0]


def asked() -> pa.Table:
    return pa.table({"city": ["a", "b"], "asked": [NOW, NOW]})


def values(table: pa.Table) -> list[list[Any]]:
    return [[row[name] for name in COLUMNS] for row in table.to_pylist()]


def _fill(project: Project) -> None:
    project.data.ingest("rides", pa.Table.from_pylist(rides(30)))
    project.data.ingest("skies", pa.Table.from_pylist(skies()))


def test_a_service_is_read_offline_and_online_without_a_model(project: Project) -> None:
    """Both reads give the naive meaning; state is filled from the tables by build, and by stream as well."""
    _fill(project)
    frame = project.features.frame(asked(), "scoring_inputs", at="asked")
    assert values(frame) == [expected("a"), expected("b")]
    assert project.features.online(asked(), "scoring_inputs").statuses["demand"] == {"no_state": 2}
    assert set(project.features.build().sources) == {"ridden", "seen"}
    online = project.features.online(asked(), "scoring_inputs")
    assert (online.features, values(online.frame)) == (COLUMNS, [expected("a"), expected("b")])
    by_object = project.features.online(asked(), project.features.show("scoring_inputs").service)
    assert values(by_object.frame) == values(online.frame)


def test_the_state_of_a_service_follows_tables_and_streams(project: Project) -> None:
    """Nothing is deployed: what is ingested and what is pushed is applied all the same."""
    _fill(project)
    report = project.features.stream(once=True)
    assert {name: (flow["lag"], flow["table"]["rows"]) for name, flow in report.sources.items()} == {
        "ridden": (0, 0), "seen": (0, 0)}  # fmt: skip
    more = {"id": 99, "city": "a", "at": NOW - timedelta(hours=1), "known": NOW - timedelta(minutes=1), "km": 0.0}
    project.features.push("ridden", pa.Table.from_pylist([more]))
    assert project.features.stream(once=True).lag == 0
    assert project.features.online(asked(), "scoring_inputs").frame["demand__count_6h"].to_pylist() == [
        expected("a")[0] + 1, expected("b")[0]]  # fmt: skip


def test_a_view_without_an_entity_has_one_value_for_everybody(project: Project) -> None:
    """All rows of the table are one key, by hand: in frames, from tables and streams, proved, and after an erasure."""
    names = ["market__mean_wind_1d", "market__median_wind", "market__latest_wind"]

    def read(result: Any) -> list[list[Any]]:
        return [[row[name] for name in names] for row in result.to_pylist()]

    hours = pa.table({"n": [1, 2, 3], "asked": [NOW, NOW - timedelta(hours=1), NOW - timedelta(hours=20)]})
    _fill(project)
    by_hand = [[5.25, 5.25, 7.5], [3.0, 3.0, 3.0], [None, None, None]]
    assert read(project.features.frame(hours, "everybody", at="asked")) == by_hand
    project.features.build()
    assert read(project.features.online(hours, "market").frame) == by_hand[:1] * 3
    project.features.push("ridden", pa.Table.from_pylist(rides(1, first=30)))
    project.features.stream(once=True)
    assert project.features.online(hours, "rode").frame["rode__count_lifetime"].to_pylist() == [31] * 3
    summary = next(row for row in project.features.list() if row.name == "market")
    assert (summary.entity, summary.reads) == (None, ())
    assert "one value for everybody" in str(project.features.show("market"))
    state = next(view for view in project.features.status() if view.view == "market")
    assert (state.entities, state.read_by, state.unseen_keys) == (1, ["service:everybody"], None)
    report = project.features.erase("city", key=["b"], reason="test", yes=True)
    assert "market" in report.counted_in


def test_a_view_without_an_entity_is_verified(project: Project) -> None:
    """The proof asks it at times on its edges, as any other view."""
    _fill(project)
    project.features.build()
    proof = project.features.verify("everybody", samples=30)
    assert (proof.ok, proof.reports["everybody"].compared["online"] > 0) == (True, True)
    assert project.plan().next() == ["retrodict features verify scoring_inputs"]


def test_a_service_is_verified_and_its_status_said(project: Project) -> None:
    """Requests come from the sources; the verdict and who reads the view are there."""
    _fill(project)
    project.features.build()
    proof = project.features.verify("scoring_inputs", samples=30)
    assert proof.ok
    assert proof.reports["scoring_inputs"].compared["online"] > 0
    assert proof.views["scoring_inputs"] == {"demand": True, "sky": True}
    states = {view.view: view for view in project.features.status()}
    assert states["demand"].read_by == ["service:scoring_inputs"]
    assert (states["demand"].verified, states["demand"].lag, states["sky"].entities) == (True, 0, 2)
    details = project.features.show("scoring_inputs")
    assert details.to_dict()["verified"] == {"demand": True, "sky": True}
    assert details.summary.features == tuple(COLUMNS)
    assert [summary.name for summary in project.features.list(owner="ana")] == ["scoring_inputs"]


def test_a_wrong_state_does_not_verify(project: Project) -> None:
    """The proof of a service can fail: a state that got an event which neither the table nor the stream has."""
    _fill(project)
    project.features.build()
    wrong = {"id": 99, "city": "a", "at": NOW - timedelta(hours=5), "known": NOW - timedelta(hours=4), "km": 0.0}
    features = service_sets(project.workspace)["scoring_inputs"]
    online_state(project.workspace, features).apply(pa.Table.from_pylist([wrong]), "ridden")
    assert not project.features.verify("scoring_inputs", samples=30).ok


def test_events_come_before_the_first_row(project: Project) -> None:
    """A table that declares its columns takes events while it holds no row, text as well as typed values."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rides(1)[0]))
    writer.writeheader()
    writer.writerows({**ride, "at": ride["at"].isoformat(), "known": ride["known"].isoformat()} for ride in rides(30))
    path = project.folder / "rides.csv"
    path.write_text(text.getvalue())
    assert (project.features.push("ridden", path).accepted, project.features.push("ridden", path).known_before) == (
        30,
        30,
    )
    project.features.push("seen", pa.Table.from_pylist(skies()))
    assert project.features.stream(once=True).lag == 0
    assert values(project.features.online(asked(), "scoring_inputs").frame) == [expected("a"), expected("b")]
    _fill(project)  # the same rows come as a table: they are recognised
    project.features.stream(once=True)
    assert values(project.features.online(asked(), "scoring_inputs").frame)[0][:2] == expected("a")[:2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"city": "string", "at": "time", "known"', '"at": "time", "known"', "table rides without city"),
        (
            ', columns={"id": "int", "city": "string", "at": "time", "known": "time", "km": "float"}',
            "",
            "table rides w",
        ),
    ],
)
def test_a_table_without_rows_declares_what_its_views_read(project: Project, old: str, new: str, message: str) -> None:
    """Otherwise events would be taken whose keys nobody reads."""
    path = project.folder / "definitions.py"
    path.write_text(path.read_text().replace(old, new, 1))
    with Project(project.folder) as changed, pytest.raises(InputError, match=message):
        changed.features.push("ridden", pa.Table.from_pylist(rides(1)))


def test_a_push_beside_the_rows_of_a_table_needs_a_sequence(project: Project) -> None:
    """Nobody could tell whether the event is one of the rows: refused once there are rows, and not before."""
    project.features.push("seen", pa.Table.from_pylist(skies()[:1]))
    _fill(project)
    with pytest.raises(InputError, match="source 'seen': events must come from the table or from pushes, not both"):
        project.features.push("seen", pa.Table.from_pylist(skies()[:1]))
    project.features.push("ridden", pa.Table.from_pylist(rides(1, first=40)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('FeatureService("demand", [sky])', "a service must have a name that no view"),
        ('FeatureService("calendar", [sky])', "a service must have a name that no view"),
        ('FeatureService("x", [])', "a service must serve a feature"),
        ('FeatureService("x", [ridden])', "got 'Source'"),
        ('FeatureView("x", "city", seen, [latest("wind")])', "must have one entity, or None"),
        ('FeatureView("x", None, Source("y", skies), [agg.count(over="lifetime")])', "must read a column"),
        ('FeatureService("x", [sky.latest_wnid])', "the attribute 'latest_wind'"),
        ('FeatureService("x", [sky, sky.keyed(name="sky", city="town")])', "one name in a service"),
    ],
)
def test_a_wrong_service_is_refused(project: Project, line: str, message: str) -> None:
    """Each rule names the service, and a feature that does not exist its nearest name."""
    path = project.folder / "definitions.py"
    path.write_text(path.read_text() + f"\nwrong = {line}\n")
    with Project(project.folder) as changed, pytest.raises(DefinitionError, match=message):
        changed.features.list()


def test_an_owner_is_no_content(project: Project) -> None:
    """The version of a service is what it serves."""
    service = project.features.show("scoring_inputs").service
    path = project.folder / "definitions.py"
    path.write_text(path.read_text().replace('owner="ana"', 'owner="ben"'))
    with Project(project.folder) as changed:
        other = changed.features.show("scoring_inputs").service
        assert (other.version, other.owner) == (service.version, "ben")
    path.write_text(path.read_text().replace("sky.wind", "sky.rain"))
    with Project(project.folder) as changed:
        assert changed.features.show("scoring_inputs").service.version != service.version


def test_the_plan_says_what_a_service_lacks(project: Project) -> None:
    """State that was never built, views that never passed: each with its command; then nothing is left to do."""
    _fill(project)
    steps = project.plan().next()
    assert steps[0] == steps[2] == "retrodict features build    # ridden: no state, rides@0; seen: no state, skies@0"
    assert steps[1::2] == ["retrodict features verify everybody", "retrodict features verify scoring_inputs"]
    project.features.build()
    project.features.verify()
    assert project.plan().next() == []


def test_the_plan_names_rows_that_a_stream_keeps_out(project: Project) -> None:
    """A lifetime that a stream feeds: no build takes the rows in, so none is asked for."""
    _fill(project)
    project.features.build()
    more = {"id": 99, "city": "a", "at": NOW - timedelta(hours=1), "known": NOW - timedelta(minutes=1), "km": 0.0}
    project.features.push("ridden", pa.Table.from_pylist([more]))
    project.features.stream(once=True)
    project.data.ingest("rides", pa.Table.from_pylist([{**more, "id": 100}]))
    project.features.stream(once=True)
    plan = project.plan()
    assert [step for step in plan.next() if "build" in step] == []
    assert "Warning: ridden: 1 rows of rides@1 stay out of online state" in " ".join(str(plan).split())
