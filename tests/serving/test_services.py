"""``POST /v1/features/{service}``: many entities at once, with no policy, no model and nothing deployed."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from tests.serving.test_app import Client, call
from tests.serving.test_server import Server

from retrodict.core.clock import format_time, parse_time
from retrodict.data.ingest import ingest
from retrodict.features.online import FeatureHealth, Upkeep, unbuilt_views
from retrodict.models.readers import service_sets
from retrodict.registry.feature_sets import served_feature_sets
from retrodict.serving.consumer import code_of, start_consumer
from retrodict.serving.services import load_services
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import *

rides = Table("rides", key="id", columns={"id": "int", "city": "int", "at": "time", "km": "float", "way": "string"})
trips = Table("trips", key="id", columns={"id": "int", "who": "string", "at": "time"})
ridden = Source("ridden", rides, event_time="at", sequence="id")
demand = FeatureView("demand", Entity("city"), ridden, [agg.count(over="6h"), latest("way", "at", max_age="1h")])
tripped = Source("tripped", trips, event_time="at", sequence="id")
taken = FeatureView("taken", Entity("who"), tripped, [agg.count(over="1h")])


@derived
def asked(when: Times, demand__count_6h):
    return {"hour": when.hour, "twice": demand__count_6h * 2}


cities = FeatureService("cities", [demand, asked])
people = FeatureService("people", [taken])
market = FeatureService("market", FeatureView("rates", None, ridden, [agg.count(over="6h"), latest("way")]))
"""
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
AT = {"Retrodict-Time": "2024-03-01T12:00:00Z"}
HEADERS = [(name.lower().encode(), value.encode()) for name, value in AT.items()]
CITIES = "/v1/features/cities"


def rides(count, *, first=0):
    """One ride every half hour before noon, in the cities 1 and 2 by turns."""
    return [{"id": n, "city": n % 2 + 1, "at": NOON - timedelta(minutes=30 * (n + 1)), "km": 1.0, "way": f"w{n}"}
            for n in range(first, first + count)]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "city"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    return tmp_path


@pytest.fixture
def workspace(root):
    with Workspace(root, actor="ana") as opened:
        ingest(opened, "rides", pa.Table.from_pylist(rides(20)))
        Upkeep(opened, served_feature_sets).catch_up()
        yield opened


@pytest.fixture
def ask(workspace, monkeypatch):
    """Status and body of a question; the application has the services of the module."""
    init = Client.__init__

    def serving(self, *arguments, **options):
        init(self, *arguments, **options)
        self.app.services, self.app.services_problem = load_services(workspace, self.app.health)
        self.app.health.flows = Upkeep(workspace, served_feature_sets).flows()

    monkeypatch.setattr(Client, "__init__", serving)

    def send(content, path=CITIES, method="POST", **options):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        ((status, _, answer),) = call(workspace, (method, path, data, HEADERS), **options)
        return status, json.loads(answer)

    return send


def test_many_entities_are_answered_with_values_statuses_and_ages(ask):
    """Counted by hand: of twenty rides twelve lie within six hours, by turns in two cities; of city 3 none is known."""
    status, answer = ask({"entities": [{"city": 1}, {"city": 2}, {"city": 3}, {"city": None}],
                          "context": {"when": "2024-03-01T08:00Z"}})  # fmt: skip
    assert (status, answer["service"], answer["at"]) == (200, "cities", "2024-03-01T12:00:00Z")
    half_past_eleven = parse_time("2024-03-01T11:30Z")
    assert answer["features"] == {
        "demand__count_6h": {"values": [6, 6, 0, None], "statuses": ["present", "present", "not_found", "null"]},
        "demand__latest_way": {"values": ["w0", "w1", None, None],
                               "statuses": ["present", "present", "not_found", "null"]},
        "demand__latest_at": {"values": [half_past_eleven, half_past_eleven - 30 * 60_000_000, None, None],
                              "statuses": ["present", "present", "not_found", "null"]},
        "asked__hour": {"values": [8.0] * 4, "statuses": ["present"] * 4},
        "asked__twice": {"values": [12.0, 12.0, 0.0, None], "statuses": ["present"] * 3 + ["null"]},
    }  # fmt: skip
    assert {name: (view["status"], view["age_s"]) for name, view in answer["views"].items()} == {
        "demand": ("ok", 1800.0)}  # fmt: skip


def test_what_is_everybodys_is_asked_with_no_key(ask):
    """Every row of a request is the same: of twenty rides twelve lie within six hours, and w0 is the newest."""
    assert ask(b"", "/v1/features", "GET")[1]["market"]["request"] == {}
    status, answer = ask({"entities": [{}, {}]}, "/v1/features/market")
    assert (status, answer["views"]["rates"]["status"]) == (200, "ok")
    assert {name: feature["values"] for name, feature in answer["features"].items()} == {
        "rates__count_6h": [12, 12], "rates__latest_way": ["w0", "w0"]}  # fmt: skip
    assert ask({"entities": [{"city": 1}]}, "/v1/features/market")[0] == 400


def test_an_entity_may_say_otherwise_than_the_context(ask):
    """Values of a row come before those of all."""
    entities = [{"city": 1}, {"city": 1, "when": "2024-03-01T03:00Z"}]
    _, answer = ask({"entities": entities, "context": {"when": "2024-03-01T08:00Z"}})
    assert answer["features"]["asked__hour"]["values"] == [8.0, 3.0]


@pytest.mark.usefixtures("workspace")
def test_a_state_that_is_cut_otherwise_is_not_read(root):
    """Another number of partitions: no value, and each view says why."""
    with (root / "retrodict.toml").open("a") as settings:
        settings.write("[features]\npartitions = 3\n")
    with Workspace(root) as recut:
        service = load_services(recut, FeatureHealth())[0]["cities"]
        at = parse_time("2024-03-01T12:00Z")
        answer = asyncio.run(service.answer(b'{"entities": [{"city": 1, "when": null}]}', at))
    assert answer["features"]["demand__count_6h"] == {"values": [None], "statuses": ["not_read"]}
    assert (answer["views"]["demand"]["status"], answer["views"]["demand"]["age_s"]) == ("not_read", None)


def test_a_consumer_keeps_the_services_that_it_was_started_for(workspace, root):
    """The module was edited since: what is applied are the events of the code that was given."""
    code = code_of(workspace)
    (root / "definitions.py").write_text(DEFINITIONS.replace('over="1h"', 'over="2h"'))
    ingest(workspace, "trips", pa.Table.from_pylist([{"id": 1, "who": "ann", "at": NOON}]))
    assert start_consumer(workspace, once=True, code=code).wait(timeout=120) == 0
    with Workspace(root) as edited:
        assert [unbuilt_views(one, service_sets(one)["people"]) != [] for one in (workspace, edited)] == [False, True]


def test_a_large_request_equals_many_small_ones(ask):
    """More entities than are read together."""
    entities = [{"city": n % 5, "when": None} for n in range(250)]
    _, answer = ask({"entities": entities}, body=1 << 20)
    singles = [ask({"entities": [entity]})[1]["features"]["demand__count_6h"]["values"][0] for entity in entities[:5]]
    assert answer["features"]["demand__count_6h"]["values"] == singles * 50
    assert singles == [0, 6, 6, 0, 0]


def test_of_a_request_before_the_newest_event_no_age_is_told(ask, workspace):
    """Nobody knows what was the newest then; and one that is too old for the state is answered by no value."""
    earlier = {"retrodict-time": "2024-03-01T11:00:00Z"}
    headers = [(name.encode(), value.encode()) for name, value in earlier.items()]
    body = json.dumps({"entities": [{"city": 1, "when": None}]}).encode()
    ((_, _, answer),) = call(workspace, ("POST", CITIES, body, headers))
    view = json.loads(answer)["views"]["demand"]
    assert (view["status"], view["age_s"]) == ("ok", None)
    long_ago = [(b"retrodict-time", b"2024-02-20T11:00:00Z")]
    ((_, _, answer),) = call(workspace, ("POST", CITIES, body, long_ago))
    assert json.loads(answer)["views"]["demand"] == {**view, "status": "beyond_horizon"}


def test_a_state_that_is_behind_or_absent_is_said(ask, workspace):
    """Newer rows in the table; and a view whose table has rows that were never read."""
    ingest(workspace, "rides", pa.Table.from_pylist(rides(5, first=20)))
    ingest(workspace, "trips", pa.Table.from_pylist([{"id": 1, "who": "ann", "at": NOON - timedelta(minutes=1)}]))
    assert ask({"entities": [{"city": 1, "when": None}]})[1]["views"]["demand"]["status"] == "behind"
    _, answer = ask({"entities": [{"who": "ann"}]}, "/v1/features/people")
    assert answer["views"]["taken"]["status"] == "no_state"
    assert answer["features"]["taken__count_1h"] == {"values": [None], "statuses": ["no_state"]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"entities": [{"city": "one", "when": None}]}, "body, entity 0, 'city': the value must be a whole number"),
        ({"entities": [{"city": 1, "when": None}, {"city": 1}]}, "entity 1, 'when': an entity must have every key"),
        ({"entities": [{"city": 1, "when": None, "secret": 7}]}, "got '1 of other names'"),
        ({"entites": []}, "Did you mean the field 'entities'"),
        ({"context": {}}, "got 'no field entities'. Send entities; GET /v1/features says"),
        ({"entities": {"city": 1}}, "got 'object'. Send array"),
        (b"{", "the body must be JSON"),
        ({"entities": [{"city": 1, "when": "noon"}]}, "'when': the value must be a time"),
    ],
)
def test_a_wrong_request_is_refused_and_not_repeated(ask, body, text):
    """400 with the place, the rule and the remedy; what was sent stays out."""
    status, answer = ask(body)
    assert status == 400
    assert text in answer["error"]
    assert "secret" not in answer["error"]


def test_limits_are_those_of_other_routes(ask, workspace):
    """A body too long is a 413, one request too many a 429; unknown names have near ones."""
    assert ask({"entities": [{"city": 1, "when": None}]}, body=10)[0] == 413
    assert ask({"entities": []}, in_flight=0)[0] == 429
    status, answer = ask({"entities": []}, "/v1/features/citys")
    assert (status, "Did you mean the service 'cities'" in answer["error"]) == (404, True)
    assert ask({"entities": []}, "/v1/feature/cities")[1]["error"].count("/v1/features/{service}") == 1
    assert ask({"entities": []})[1]["features"]["demand__count_6h"] == {"values": [], "statuses": []}


def test_a_service_says_what_a_request_has_to_bring(ask):
    """Kinds are those of the tables, or what a table without rows declares."""
    _, services = ask(b"", "/v1/features", "GET")
    assert services["cities"]["request"] == {"city": "int", "when": "time"}
    assert services["people"]["request"] == {"who": "text"}
    assert services["cities"]["features"][0] == "demand__count_6h"


def test_a_server_without_a_policy_serves_features(root):
    """Ready with a service alone; events that are pushed are in the next answers; ages grow from the newest one."""
    server = Server(root, "--replay")
    try:
        assert server.send("GET", "/readyz") == (200, {"status": "ready"})
        body = {"entities": [{"city": 1, "when": None}]}
        assert server.send("POST", CITIES, body, AT)[1]["views"]["demand"] == {
            "version": load_version(root), "status": "no_state", "age_s": None}  # fmt: skip
        events = [{**ride, "at": format_time(int(ride["at"].timestamp() * 1e6))} for ride in rides(20)]
        assert server.send("POST", "/v1/events/rides", events)[0] == 202
        until = time.monotonic() + 60
        while any(flow["lag"] for flow in server.send("GET", "/v1/status")[1]["sources"].values()):
            assert time.monotonic() < until
            time.sleep(0.05)
        status, answer = server.send("POST", CITIES, body, AT)
        assert (status, answer["features"]["demand__count_6h"]["values"]) == (200, [6])
        assert answer["views"]["demand"]["age_s"] == 1800.0
    finally:
        server.stop()


def load_version(root):
    with Workspace(root) as workspace:
        return {view.name: view.version for view in workspace.definitions if view.kind == "view"}["demand"]


def test_a_module_that_cannot_be_read_is_said(root):
    """The server runs, is not ready, and says why; policies would decide from their own code."""
    (root / "definitions.py").write_text(DEFINITIONS + "\nwrong = FeatureService('x', [])\n")
    server = Server(root)
    try:
        for path, method in (("/readyz", "GET"), (CITIES, "POST")):
            status, answer = server.send(method, path, {"entities": []} if method == "POST" else None)
            assert (status, "a service must serve a feature" in answer["error"]) == (503, True)
        assert server.send("GET", "/healthz")[0] == 200
    finally:
        server.stop()
