"""Features, models and decisions as servers of their own: the same decisions as one process, each killed in turn."""

import asyncio
import contextlib
import gzip
import math
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.error import HTTPError

import msgspec
import pytest
import yaml
from tests.serving.process import Server
from tests.serving.project import AT, DEFINITIONS, REQUEST, make_project
from tests.serving.test_gateway import DEPLOY, free_port
from tests.serving.test_traces import PARENT, TRACE, Collector

from retrodict.client import Client
from retrodict.core.clock import parse_time
from retrodict.core.errors import ConfigurationError, InputError, RefusedError
from retrodict.decisions.log import find_decision
from retrodict.decisions.replay import replay_decision
from retrodict.features.online import FeatureHealth, OnlineFeatures
from retrodict.registry import change, current
from retrodict.registry.api_keys import issue_key
from retrodict.serving import ServeOptions, serve
from retrodict.serving import watcher as watcher_module
from retrodict.serving.apart import Parts, loader_of
from retrodict.serving.elsewhere import FeatureQuestion, ScoreAnswer, ScoreQuestion
from retrodict.serving.threads import DaemonThreads
from retrodict.workspace import Workspace

DAY = 86_400_000_000
MOMENT = parse_time(AT["Retrodict-Time"])
SENT = REQUEST["context"]["sent"]
CASES = [
    REQUEST,
    {**REQUEST, "explain": True},
    {**REQUEST, "entities": {"depot": "nowhere"}},
    {**REQUEST, "entities": {"depot": None}, "context": {"weight": None, "express": None, "sent": SENT}},
    {**REQUEST, "context": {"weight": 95, "express": True, "sent": SENT, "note": "fragile"}},
]


def record_of(root, answer):
    with Workspace(root, actor="ana") as workspace:
        return find_decision(workspace, f"decision:{answer['decision_id']}").record


def known(record):
    """All of a record that does not tell when and by whom it was made."""
    facts = msgspec.structs.asdict(record)
    return {name: value for name, value in facts.items() if name not in ("id", "stages", "caller")}


class Apart:
    """Three servers, each of which asks callers for a key, and what is needed to ask them."""

    def __init__(self, root, token):
        self.root, self.headers = root, {**AT, "Authorization": f"Bearer {token}"}
        self.features, self.models = (Server(root, "--only", part) for part in ("features", "models"))
        self._settings = (root / "retrodict.toml").read_text()
        self.begin()

    def begin(self, **urls):
        urls = {"features": f"http://127.0.0.1:{self.features.port}",
                "models": f"http://127.0.0.1:{self.models.port}"} | urls  # fmt: skip
        lines = [f'{part}_url = "{url}"' for part, url in urls.items()]
        (self.root / "retrodict.toml").write_text("\n".join([self._settings, "[serving]", *lines]))
        self.decisions = Server(self.root, "--only", "decisions", "--replay")

    def decide(self, body=REQUEST, **headers):
        return self.decisions.decide(body, self.headers | headers)

    def again(self, part):
        """Start a server again that was killed, at its address."""
        setattr(self, part, Server(self.root, "--only", part, "--port", str(getattr(self, part).port)))

    def stop(self):
        return [server.stop() for server in (self.decisions, self.features, self.models)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    settings = '[auth]\nrequired = "always"\n[servers]\nbreaker_recovery = "200ms"\nretry_base = "1ms"\n'
    workspace = make_project(folder, settings)
    (folder / "definitions.py").write_text(DEFINITIONS + 'inputs = FeatureService("inputs", [depot_delays, size])\n')
    _, token = issue_key(workspace, "all", scopes=["score", "read"], lifetime=DAY, rate=None, reason="test")
    workspace.close()
    return folder, token


@pytest.fixture(scope="module")
def whole(root):
    """Answers of one process to the cases."""
    folder, token = root
    server = Server(folder, "--replay")
    try:
        return [server.decide(case, {**AT, "Authorization": f"Bearer {token}"})[1] for case in CASES]
    finally:
        server.stop()


@pytest.fixture(scope="module")
def collector():
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def apart(root, whole, collector):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRODICT_API_KEY", root[1])
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        servers = Apart(*root)
        yield servers
        servers.stop()


def wait_until(true, seconds=30):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.timeout(180)
def test_decisions_are_those_of_one_process(apart, whole):
    """Alone and in a batch: values, reads, views, the bits of scores, rules and reasons; and each is made again."""
    several = apart.decisions.send("POST", "/v1/decisions/promise:batch", {"requests": CASES}, apart.headers)[1]
    for case, expected, other in zip(CASES, whole, several["answers"], strict=True):
        status, answer = apart.decide(case)
        assert status == 200
        record = known(record_of(apart.root, expected))
        assert known(record_of(apart.root, answer)) == record == known(record_of(apart.root, other))
        assert record["fallback"] is None
        with Workspace(apart.root, actor="ana") as workspace:
            replay = replay_decision(workspace, f"decision:{answer['decision_id']}")
        assert replay.exact, replay.reason


def test_what_is_wrong_is_said_in_the_same_words(apart):
    """A wrong value is a 400 here, before anything is asked elsewhere."""
    status, answer = apart.decide({**REQUEST, "context": {"weight": "heavy"}})
    assert status == 400
    assert "'sent'" in answer["error"]


def ready(apart):
    """What the server of decisions says of the two others, which is itself ready in any case."""
    status, answer = apart.decisions.send("GET", "/readyz")
    assert (status, answer["status"]) == (200, "ready")
    return answer["parts"]


@pytest.mark.timeout(180)
def test_a_start_waits_for_parts_that_were_never_there(apart, whole):
    """Not ready before the models answer for the first time; then no decision is a fallback."""
    port = free_port()
    apart.decisions.kill()
    apart.begin(models=f"http://127.0.0.1:{port}")
    try:
        status, answer = apart.decisions.send("GET", "/readyz")
        assert (status, "the server of models has not answered yet" in answer["error"]) == (503, True)
        models = Server(apart.root, "--only", "models", "--port", str(port))
        try:
            wait_until(lambda: apart.decisions.send("GET", "/readyz")[0] == 200)
            assert apart.decide()[1]["score"] == whole[0]["score"]
        finally:
            models.kill()
        wait_until(lambda: ready(apart)["models"] == "away")  # once reached, it goes on by fallbacks
    finally:
        apart.decisions.kill()
        apart.begin()


def test_a_start_waits_for_no_longer_than_it_says(monkeypatch):
    """What never answers is away then, and rules and fallbacks decide."""
    monkeypatch.setattr(watcher_module, "RemoteLoader", SimpleNamespace)
    app = SimpleNamespace(reached={})
    loader = SimpleNamespace(servers={"models": SimpleNamespace(answers=lambda: False)})
    watcher = watcher_module.Watcher(SimpleNamespace(clock=None), app, loader, None)
    watcher._reach()
    assert app.reached == {"models": None}
    monkeypatch.setattr(watcher_module, "_START_S", -1.0)
    watcher._reach()
    assert app.reached == {"models": False}


@pytest.mark.timeout(60)
def test_features_are_read_before_they_are_served(root, monkeypatch):
    """Once for nobody, of every version in force; what cannot be loaded holds up no other."""
    read = []
    monkeypatch.setattr(OnlineFeatures, "read_many", lambda self, requests, at: read.append(requests))
    with Workspace(root[0], actor="ana") as workspace:
        parts = Parts(workspace, loader_of("features", workspace, FeatureHealth()), DaemonThreads(1, "load"))
        asyncio.run(parts.load_current())
    assert [set(one) for (one,) in read] == [{"depot", "express", "sent", "weight"}]
    assert not any(value for (one,) in read for value in one.values())


@pytest.mark.timeout(180)
def test_each_is_killed_in_turn(apart, whole):
    """The fallback answers while one is away, and the record says so; back again, it is asked again."""
    wait_until(lambda: ready(apart) == {"features": "reached", "models": "reached"})
    apart.models.kill()
    wait_until(lambda: ready(apart) == {"features": "reached", "models": "away"})  # before anybody asks for a decision
    record = record_of(apart.root, apart.decide()[1])
    assert (record.fallback, record.error, record.score) == ("ok", "AttemptsError", None)
    assert (record.features, record.reads) == tuple(getattr(record_of(apart.root, whole[0]), name)
                                                    for name in ("features", "reads"))  # fmt: skip
    heavy = record_of(apart.root, apart.decide(CASES[4])[1])
    assert (heavy.fallback, heavy.rule) == ("rules", "heavy")
    for _ in range(8):
        apart.decide()
    assert record_of(apart.root, apart.decide()[1]).error == "OpenBreakerError"
    assert apart.decisions.send("GET", "/readyz")[1]["stores"]["models"] in ("open", "half_open")
    apart.again("models")
    wait_until(lambda: ready(apart)["models"] == "reached")
    wait_until(lambda: apart.decide()[1].get("fallback") is None)

    apart.features.kill()
    wait_until(lambda: ready(apart)["features"] == "away")
    record = record_of(apart.root, apart.decide()[1])
    assert (record.fallback, record.views) == ("ok", {"depot_delays": {"status": "not_read", "age_s": None}})
    assert record.features == {}
    apart.again("features")
    wait_until(lambda: apart.decide()[1].get("fallback") is None)

    apart.decisions.kill()
    entity = {"depot": "north", "weight": 12.5, "express": False}
    assert apart.features.send("POST", "/v1/features/inputs", {"entities": [entity]}, apart.headers)[0] == 400  # time
    del apart.headers["Retrodict-Time"]
    assert apart.features.send("POST", "/v1/features/inputs", {"entities": [entity]}, apart.headers)[0] == 200
    apart.headers |= AT
    values = record_of(apart.root, whole[0]).features
    status, answer = apart.models.send(
        "POST", "/v1/models/late_parcel:score", {"entities": {}, "context": values},
        {"Authorization": apart.headers["Authorization"]},
    )  # fmt: skip
    assert (status, answer) == (200, {"score": whole[0]["score"], "model": "late_parcel@1"})
    apart.begin()
    assert apart.decide()[1]["score"] == whole[0]["score"]


def test_a_model_by_its_name_is_the_highest_version_that_decides(tmp_path):
    """Of all policies; not a higher one that decided before or is brought in, which has its number alone."""
    with make_project(tmp_path) as workspace:
        good = current(workspace)["promise"].deployment

        def target(number):
            return {**good.target, "model": f"late_parcel@{number}"}

        split = {"candidate": target(8), "unit": ["depot"], "seed": "s", "share": 0.5, "control": 0.5}
        for policy, number, before, more in (
            ("first", 4, 9, {"split": split}),
            ("second", 6, 4, {}),
            ("third", 5, 7, {}),
        ):
            deployment = replace(good, policy=policy, **target(number), previous=target(before), **more)
            change(workspace, deployment, action="deploy", reason="test")
        versions = loader_of("models", workspace, FeatureHealth())._in_force()
    assert versions["late_parcel"].revision == 6
    assert {name: one.revision for name, one in versions.items() if "@" in name} == {
        f"late_parcel@{number}": number for number in (1, 4, 5, 6, 7, 8, 9)
    }


@pytest.mark.timeout(120)
def test_a_version_that_cannot_be_loaded_is_named_and_keeps_no_other_away(tmp_path):
    """A server of models starts without it, and its refusals speak of models."""
    with make_project(tmp_path) as workspace:
        good = current(workspace)["promise"].deployment
        before = {**good.target, "model": "late_parcel@7", "model_code": "0" * 64}
        change(workspace, replace(good, previous=before), action="deploy", reason="test")
    server = Server(tmp_path, "--only", "models")
    try:
        status, answer = server.send("GET", "/readyz")
        assert (status, list(answer["not_loaded"])) == (200, ["late_parcel@7"])
        assert "000000" in answer["not_loaded"]["late_parcel@7"]
        status, about = server.send("GET", "/v2/models/late_parcel")
        row = {one["name"]: None for one in about["inputs"]}
        assert server.send("POST", "/v1/models/late_parcel:score", {"entities": {}, "context": row})[0] == 200
        for path in ("/v2/models/late_parcel/versions/7", "/v2/models/other"):
            status, answer = server.send("GET", path)
            assert (status, "polic" in answer["error"], "model" in answer["error"]) == (404, False, True)
        for name in ("late_parcel@7", "other"):
            status, answer = server.send("POST", f"/v1/models/{name}:score", {"entities": {}, "context": row})
            assert (status, "polic" in answer["error"], "model" in answer["error"]) == (404, False, True)
        with Workspace(tmp_path, actor="ana") as workspace:
            change(workspace, good, action="deploy", reason="test")
        wait_until(lambda: "not_loaded" not in server.send("GET", "/readyz")[1])
    finally:
        log = server.stop()
    assert log.count("late_parcel@7 cannot be loaded") == 1


def test_addresses_are_those_of_the_part(apart):
    """And no server has those of another one; all say whether they are well."""
    parts = {"/v1/features": "features", "/v2/models/late_parcel": "models", "/v1/policies": "decisions"}
    for part in parts.values():
        server = getattr(apart, part)
        for path, owner in parts.items():
            assert (server.send("GET", path, None, apart.headers)[0] == 200) == (owner == part), (part, path)
        assert server.send("GET", "/readyz")[0] == 200
        assert server.send("GET", "/v1/status", None, apart.headers)[0] == 200
    error = apart.models.send("GET", "/v1/policies", None, apart.headers)[1]["error"]
    assert "server of models has not" in error
    assert error.endswith("Ask the server of decisions.")
    error = apart.features.send("GET", "/v1/models/late_parcel", None, apart.headers)[1]["error"]
    assert "must exist" in error


@pytest.mark.parametrize(
    ("part", "path", "others"),
    [
        ("features", "/v1/features/late_parcel:read", ["/v1/features/late_parcel%3Aread",
         "/v1/features/late_parcel%3aread", "/v1/feature%73/late_parcel:read",
         "/v1/features%2Flate_parcel:read", "/v1/features/late_parcel:rea%64",
         "/v1/features/late_parcel:read/", "//v1/features/late_parcel:read"]),
        ("models", "/v1/models/late_parcel:rows", ["/v1/models/late_parcel%3Arows", "/v1/%6Dodels/late_parcel:rows"]),
    ],
)  # fmt: skip
def test_addresses_between_servers_are_written_in_one_way(apart, part, path, others):
    """However a rule of a gateway that keeps callers from them spells them, there is no other spelling."""
    send = getattr(apart, part).send
    assert send("POST", path, {}, apart.headers)[0] == 415
    for other in others:
        assert send("POST", other, {}, apart.headers)[0] == 404, other


def test_a_model_alone_speaks_the_protocol(apart, whole):
    """On feature values, a null for what is missing; nothing is decided, so there is no id of a decision."""
    values = record_of(apart.root, whole[0]).features
    headers = {"Authorization": apart.headers["Authorization"]}
    about = apart.models.send("GET", "/v2/models/late_parcel", None, headers)[1]
    assert (about["versions"], [one["name"] for one in about["outputs"]]) == (["1"], ["score"])
    assert {one["name"] for one in about["inputs"]} == values.keys()
    inputs = [{"name": name, "shape": [2], "datatype": "FP64", "data": [value if value is None else float(value), None]}
              for name, value in values.items()]  # fmt: skip
    status, answer = apart.models.send("POST", "/v2/models/late_parcel/versions/1/infer", {"inputs": inputs}, headers)
    assert status == 200
    assert answer["outputs"][0]["data"][0] == whole[0]["score"]
    status, answer = apart.models.send("POST", "/v1/models/late_parcel:score", {"entities": {}, "context": values},
                                       {**headers, "Idempotency-Key": "a"})  # fmt: skip
    assert (status, "request id" in answer["error"]) == (400, True)


def test_one_trace_and_one_request_id_go_through_all(apart, collector):
    """Of each request of a batch that is read and scored together, too; without a caller's, they are made here."""
    count = -1
    while count != len(collector.batches):  # those of calls before
        count = len(collector.batches)
        time.sleep(0.5)
    collector.batches.clear()
    status, _ = apart.decide(REQUEST, **{"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "order-7"})
    assert status == 200
    apart.decide()
    ours = {"/v1/decisions/{policy}", "/v1/features/{model}:read", "/v1/models/{model}:rows"}

    def spans():
        return [span for _, span in list(collector.spans()) if span.name.removeprefix("POST ") in ours]

    wait_until(lambda: len(spans()) == 6)
    traces = {}
    for span in spans():
        traces.setdefault(span.trace_id.hex(), []).append(span)
    assert TRACE in traces
    assert [len(group) for group in traces.values()] == [3, 3]
    for trace, group in traces.items():
        top = next(span for span in group if "decisions" in span.name)
        assert {span.parent_span_id for span in group if span is not top} == {top.span_id}
        assert top.parent_span_id.hex() == (PARENT if trace == TRACE else "")
        (name,) = {one.value.string_value for span in group for one in span.attributes
                   if one.key == "retrodict.request_id"}  # fmt: skip
        assert (name == "order-7") == (trace == TRACE)
        assert name


def test_who_asks_needs_a_key(apart, root):
    """Those who pass the parts of a decision on as well; and any object of the store is not a model to load."""
    record = record_of(apart.root, apart.decide()[1])
    question = msgspec.msgpack.encode(ScoreQuestion(record.artifact, [record.features]))
    path, key = "/v1/models/late_parcel:rows", {"Authorization": apart.headers["Authorization"]}
    assert apart.models.send("POST", path, question)[0] == 401
    answer = ask(apart.models, path, question, key)
    scored = msgspec.msgpack.decode(answer, type=ScoreAnswer).scores[0]
    assert (scored.raw, scored.score) == (record.raw, record.score)
    other = msgspec.msgpack.encode(ScoreQuestion(record.code, [record.features]))
    assert apart.models.send("POST", path, other, key)[0] == 404
    for body in (b"", b"\xc1", b'{"rows": []}', msgspec.msgpack.encode({"artifact": 5})):
        assert apart.models.send("POST", path, body, key)[0] == 415
    read = msgspec.msgpack.encode(FeatureQuestion(record.artifact, record.policy, 5, [{"depot": "north"}]))
    assert apart.features.send("POST", "/v1/features/late_parcel:read", read, key)[0] == 404  # of no such code
    with Client(f"http://127.0.0.1:{apart.decisions.port}", key="rtd_no_no") as client, pytest.raises(RefusedError):
        client.decide("promise", REQUEST["entities"], REQUEST["context"])


def ask(server, path, body, headers):
    import urllib.request

    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.read()


DEADLINES = []


class _Silent(BaseHTTPRequestHandler):
    def do_POST(self):
        DEADLINES.append(float(self.headers["retrodict-deadline"]))
        time.sleep(1.5)

    def log_message(self, *_):
        pass


@pytest.mark.timeout(120)
def test_what_is_left_of_the_deadline_is_passed_on(apart):
    """A server of models that says nothing costs the caller its own deadline, and is told no more than is left."""
    silent = ThreadingHTTPServer(("127.0.0.1", 0), _Silent)
    silent.daemon_threads = True
    thread = threading.Thread(target=silent.serve_forever)
    thread.start()
    apart.decisions.stop()
    try:
        apart.begin(models=f"http://127.0.0.1:{silent.server_port}")
        errors = set()

        def waits():  # its breaker, opened at the start, lets one call look again
            DEADLINES.clear()
            record = record_of(apart.root, apart.decide(**{"Retrodict-Deadline": "400"})[1])
            assert record.fallback == "ok"
            assert record.features["size__weight"] == REQUEST["context"]["weight"]  # what features gave stays
            assert "not_read" not in {view["status"] for view in record.views.values()}
            errors.add(record.error)
            return record.error == "TimeoutError"

        wait_until(waits)
        assert errors <= {"TimeoutError", "OpenBreakerError"}
        assert 0 < DEADLINES[0] < 400
    finally:
        silent.shutdown()
        silent.server_close()
        thread.join()
        apart.decisions.stop()
        apart.begin()


def test_decisions_alone_must_know_whom_to_ask(tmp_path):
    """Without an address there is nothing to be apart from."""
    workspace = make_project(tmp_path)
    with workspace, pytest.raises(ConfigurationError, match=r"features_url.*Set both"):
        serve(workspace, ServeOptions(port=0, only="decisions"))


def test_an_address_of_a_part_is_a_server(tmp_path):
    """As a setting it must be one."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "x"\n[serving]\nmodels_url = "models:8400"\n')
    with pytest.raises((ConfigurationError, InputError), match="http://host:8400"):
        Workspace(tmp_path)


@pytest.mark.timeout(120)
def test_the_shipped_gateway_leads_to_who_has_it(apart, whole):
    """With the shipped settings, and what servers ask each other is for nobody outside."""
    program = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    port = free_port()
    settings = {"RETRODICT_BIND": f"127.0.0.1:{port}"} | {
        f"RETRODICT_{part.upper()}": f"127.0.0.1:{getattr(apart, part).port}"
        for part in ("features", "models", "decisions")
    }
    process = subprocess.Popen([program, "-db", "-f", str(DEPLOY / "apart.cfg")], env=os.environ | settings,
                               stderr=subprocess.PIPE)  # fmt: skip
    try:
        with Client(f"http://127.0.0.1:{port}", key=apart.headers["Authorization"][7:], retries=10) as client:
            answer = client.decide("promise", REQUEST["entities"], REQUEST["context"], at=MOMENT)
            assert answer.score == whole[0]["score"]
            assert list(client.get("/v1/features")) == ["inputs"]
            assert client.get("/v2/models/late_parcel")["versions"] == ["1"]
        for inner in ("models/late_parcel:rows", "models/late_parcel%3Arows", "features/late_parcel%3aread",
                      "features/late_parcel:%72ead"):  # fmt: skip
            with pytest.raises(HTTPError) as refused:
                ask(SimpleNamespace(port=port), f"/v1/{inner}", b"{}", apart.headers)
            assert (refused.value.code, refused.value.headers["content-type"]) == (404, "text/html"), inner  # HAProxy's
            refused.value.close()
    finally:
        process.kill()
        process.communicate()


def test_the_compose_file_starts_each_part_once():
    """By options that there are, behind the gateway's names for them."""
    services = yaml.safe_load((DEPLOY / "apart.yaml").read_text())["services"]
    parts = ("features", "models", "decisions")
    assert [services[part]["command"][-2:] for part in parts] == [["--only", part] for part in parts]
    assert services["gateway"]["depends_on"] == [*parts]


class _Between(BaseHTTPRequestHandler):
    """Passes questions on to a server, and gives its answers as ``server.change`` makes them."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        names = ("authorization", "content-type", "retrodict-deadline")
        content = ask(self.server.behind, self.path, body, {name: self.headers[name] for name in names})
        self.server.change(self, content)

    def send(self, content, *headers, length=None, status=200):
        self.send_response(status)
        for name, value in (("content-length", str(len(content) if length is None else length)), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def between(server, change):
    """Server that stands before another one; its address."""
    relay = ThreadingHTTPServer(("127.0.0.1", 0), _Between)
    relay.daemon_threads, relay.behind, relay.change = True, server, change
    thread = threading.Thread(target=relay.serve_forever)
    thread.start()
    try:
        yield relay
    finally:
        relay.shutdown()
        relay.server_close()
        thread.join()


def passing(handler, content):
    handler.send(content)


def edited(change):
    """Answers in which something is not what was asked for."""

    def edit(handler, content):
        answer = msgspec.msgpack.decode(content)
        change(answer)
        handler.send(msgspec.msgpack.encode(answer))

    return edit


def set_values(answer, value):
    for values, _, _ in answer["rows"]:
        values.update(dict.fromkeys(values, value))


def set_scores(answer, raw, score, outputs):
    answer["scores"] = [[raw, score, outputs] for _ in answer["scores"]]


def each_row(part, change):
    return lambda answer: [change(row[part]) for row in answer["rows"]]


VALUES, STATUSES, PLACES = range(3)
WRONG_FEATURES = {
    "lists": lambda answer: set_values(answer, [1, 2]),
    "maps": lambda answer: set_values(answer, {"a": 1}),
    "bytes": lambda answer: set_values(answer, b"x"),
    "no values": each_row(VALUES, dict.clear),
    "one value less": each_row(VALUES, dict.popitem),
    "one value more": each_row(VALUES, lambda values: values.update(other=1.0)),
    "more rows": lambda answer: answer["rows"].extend(answer["rows"]),
    "no rows": lambda answer: answer["rows"].clear(),
    "no statuses": each_row(STATUSES, dict.clear),
    "another status": each_row(STATUSES, lambda statuses: statuses.update(depot_delays="fine")),
    "status of another view": each_row(STATUSES, lambda statuses: statuses.update(other="ok")),
    "no places": each_row(PLACES, dict.clear),
    "no newest": lambda answer: answer["newest"].clear(),
    "another newest": lambda answer: answer["newest"].update(depot_delays="now"),
    "another model": lambda answer: answer.update(artifact="f" * 64),
    "no model": lambda answer: answer.pop("artifact"),
}
WRONG_SCORES = {
    "more": lambda answer: answer["scores"].extend(answer["scores"]),
    "none": lambda answer: answer["scores"].clear(),
    "NaN": lambda answer: set_scores(answer, 0.5, math.nan, {"score": math.nan}),
    "NaN in one": lambda answer: set_scores(answer, 0.5, 0.5, {"score": math.nan}),
    "text": lambda answer: set_scores(answer, 0.5, "0.5", {"score": "0.5"}),
    "another output": lambda answer: set_scores(answer, 0.5, None, {"mean": 0.5}),
    "no output": lambda answer: set_scores(answer, 0.5, 0.5, {}),
    "one output more": lambda answer: set_scores(answer, 0.5, 0.5, {"score": 0.5, "mean": 0.5}),
    "two scores": lambda answer: set_scores(answer, 0.1, 0.1, {"score": 0.9}),
    "no score": lambda answer: set_scores(answer, None, None, {"score": 0.9}),
    "NaN for a time": lambda answer: answer.update(speed=[math.nan, None]),
    "negative time": lambda answer: answer.update(speed=[-1.0, 5.0]),
    "another model": lambda answer: answer.update(artifact="f" * 64),
}


@pytest.mark.timeout(180)
def test_an_answer_that_does_not_fit_is_none(apart, whole):
    """Alone, in a batch and with reasons: the fallback answers, and what is recorded can be read again."""
    with between(apart.features, passing) as features, between(apart.models, passing) as models:
        apart.decisions.stop()
        try:
            apart.begin(features=f"http://127.0.0.1:{features.server_port}",
                        models=f"http://127.0.0.1:{models.server_port}")  # fmt: skip
            for relay, changes in ((features, WRONG_FEATURES), (models, WRONG_SCORES)):
                for name, change in changes.items():
                    relay.change = edited(change)
                    batch = {"requests": [REQUEST, REQUEST]}
                    several = apart.decisions.send("POST", "/v1/decisions/promise:batch", batch, apart.headers)
                    answers = [apart.decide(), apart.decide(CASES[1]), several]
                    assert [status for status, _ in answers] == [200] * 3, (name, answers)
                    for answer in (answers[0][1], answers[1][1], *several[1]["answers"]):
                        record = record_of(apart.root, answer)
                        assert (record.fallback, record.score, record.model) == ("ok", None, ""), name
                        assert record.error in ("IntegrityError", "UnknownScoreError"), name
                        missing = {"depot_delays": {"status": "not_read", "age_s": None}}
                        assert record.views == (missing if relay is features else {}), name
                    relay.change = passing
                    assert apart.decide()[1]["score"] == whole[0]["score"], name
        finally:
            apart.decisions.stop()
            apart.begin()


def dripping(handler, content):
    handler.send(b"", length=1_000_000)
    with contextlib.suppress(OSError):
        for _ in range(600):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)


def dripping_head(handler, content):
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 600:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)


def endless(handler, content):
    handler.send(b"", length=2**33)
    with contextlib.suppress(OSError):
        for _ in range(2**13):
            handler.wfile.write(bytes(2**20))


WRONG_TRANSFERS = {
    "dripping": dripping,
    "dripping head": dripping_head,
    "endless": endless,
    "cut off": lambda handler, content: handler.send(content, length=len(content) + 5),
    "packed": lambda handler, content: handler.send(gzip.compress(bytes(2**29), 1), ("content-encoding", "gzip")),
    "JSON": lambda handler, content: handler.send(b'{"artifact": NaN}'),
    "deep": lambda handler, content: handler.send(b"\x91" * 100_000),
    "nothing": lambda handler, content: handler.send(b"", status=204),
    "redirect": lambda handler, content: handler.send(b"", ("location", "/v1/status"), status=302),
    "refusal in HTML": lambda handler, content: handler.send(b"<html>", status=404),
    "wrong value in HTML": lambda handler, content: handler.send(b"<html>", status=400),
    "failure": lambda handler, content: handler.send(b'{"error": {"customer": "adler"}}', status=500),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("part", ["features", "models"])
def test_an_answer_that_does_not_come_whole_holds_up_nobody(apart, whole, part):
    """Beyond the deadline, however it comes; it fills no memory; and afterwards all is as before."""
    with between(getattr(apart, part), passing) as relay:
        apart.decisions.stop()
        try:
            apart.begin(**{part: f"http://127.0.0.1:{relay.server_port}"})
            pid = apart.decisions.process.pid
            before = peak_mb(pid)
            for name, change in WRONG_TRANSFERS.items():
                relay.change = change
                answers = [apart.decide(REQUEST, **{"Retrodict-Deadline": "700"}) for _ in range(3)]
                batch = {"requests": [REQUEST, REQUEST]}
                headers = {**apart.headers, "Retrodict-Deadline": "700"}
                status, several = apart.decisions.send("POST", "/v1/decisions/promise:batch", batch, headers)
                assert [status, *(one for one, _ in answers)] == [200] * 4, name
                for answer in (*(answer for _, answer in answers), *several["answers"]):
                    record = record_of(apart.root, answer)
                    assert (record.fallback, record.score) == ("ok", None), (name, record.error)
                    assert sum(record.stages.values()) < 5_000_000, name
                assert peak_mb(pid) - before < 300, name
                relay.change = passing
                wait_until(lambda: apart.decide()[1].get("fallback") is None)
        finally:
            log = apart.decisions.stop()
            apart.begin()
    assert "adler" not in log


def peak_mb(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))
