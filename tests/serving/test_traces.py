"""Traces: spans of requests as a collector of OpenTelemetry gets them, and collectors that do not answer."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.serving.grpc_callers import METHODS, decide
from tests.serving.process import Server
from tests.serving.project import AT, REQUEST
from tests.serving.test_app import BODY, DECIDE, SIMULATED, Client

from retrodict.client import Client as Caller
from retrodict.core.config import read_config
from retrodict.core.errors import ConfigurationError, MissingExtraError
from retrodict.decisions.log import find_decision
from retrodict.serving.traces import Traces, open_traces
from retrodict.workspace import Workspace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER",
             "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_SDK_DISABLED",
             "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER", "OTEL_RESOURCE_ATTRIBUTES")  # fmt: skip


def traceparent(flags="01"):
    return [(b"traceparent", f"00-{TRACE}-{PARENT}-{flags}".encode())]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def workspace(deployed):
    with Workspace(deployed, actor="ana") as opened:
        yield opened


def spans_of(workspace, *requests):
    """Finished spans of requests to one application, and their answers."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def run():
        client = Client(workspace)
        client.app.traces = Traces(provider)
        try:
            return [await client.send(*request) for request in requests]
        finally:
            await client.close()

    return asyncio.run(run()), exporter.get_finished_spans()


def test_a_decision_is_a_span_with_one_for_every_stage(workspace):
    """Below the caller's own span; stages follow each other within it, as long as the record says."""
    ((_, _, body),), spans = spans_of(workspace, ("POST", DECIDE, BODY, SIMULATED + traceparent()))
    *stages, span = spans
    answer, record = json.loads(body), find_decision(workspace, f"decision:{json.loads(body)['decision_id']}").record
    assert (span.name, span.kind) == ("POST /v1/decisions/{policy}", trace.SpanKind.SERVER)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert dict(span.attributes) == {
        "http.request.method": "POST", "http.route": "/v1/decisions/{policy}", "http.response.status_code": 200,
        "retrodict.policy": "promise", "retrodict.revision": record.revision, "retrodict.model": answer["model"],
        "retrodict.decision_id": answer["decision_id"],
    }  # fmt: skip
    assert {one.parent.span_id for one in stages} == {span.context.span_id}
    durations = {one.name: (one.end_time - one.start_time) // 1_000 for one in stages}
    assert list(durations) == [*record.stages, "record"]
    assert {name: durations[name] for name in record.stages} == record.stages
    edges = [moment for one in stages for moment in (one.start_time, one.end_time)]
    assert edges == sorted(edges)
    assert span.start_time <= edges[0] < edges[-1] <= span.end_time


def test_nothing_that_a_caller_sent_is_in_a_span(workspace):
    """Of wrong requests neither; 4xx are no errors of the server, a 503 is."""
    wrong = json.dumps({**REQUEST, "entities": {"depot": "Elm Street 5"}, "context": {"weight": "Ada"}}).encode()
    answers, spans = spans_of(
        workspace, ("POST", DECIDE, BODY, SIMULATED), ("POST", DECIDE, wrong, SIMULATED),
        ("POST", "/v1/decisions/ada", BODY, SIMULATED), ("GET", "/ada"), ("POST", f"{DECIDE}:batch", wrong, SIMULATED),
    )  # fmt: skip
    assert [status for status, *_ in answers] == [200, 400, 404, 404, 400]
    parts = ("name", "attributes", "events", "status", "resource", "links")  # ids and times may hold any three letters
    text = " ".join(json.dumps({part: json.loads(one.to_json())[part] for part in parts}) for one in spans)
    for value in ("north", "Elm", "Ada", "ada", "12.5", REQUEST["key"] + '"'):
        assert value not in text
    roots = [one for one in spans if one.kind == trace.SpanKind.SERVER]
    assert [one.attributes.get("error.type") for one in roots] == [
        None, "InputError", "NotFoundError", "NotFoundError", "InputError",
    ]  # fmt: skip
    assert {one.status.status_code for one in roots} == {trace.StatusCode.UNSET}


def test_faults_of_the_server_are_marked(workspace, monkeypatch):
    """503 and 500 by their status; a decision by a fallback says which, and of what error."""
    monkeypatch.setattr("retrodict.serving.app.DecisionApp.facts", lambda _: 1 / 0)
    _, (ready, status) = spans_of(workspace, ("GET", "/v1/models/none:score"), ("GET", "/v1/status"))
    assert (ready.attributes["error.type"], ready.status.status_code) == ("405", trace.StatusCode.UNSET)
    assert (status.attributes["error.type"], status.status.status_code) == ("ZeroDivisionError", trace.StatusCode.ERROR)
    monkeypatch.setattr("retrodict.decisions.servant._check_time", lambda *_: 1 / 0)
    _, spans = spans_of(workspace, ("POST", DECIDE, BODY, SIMULATED))
    attributes = spans[-1].attributes
    assert (attributes["retrodict.fallback"], attributes["retrodict.error"]) == ("ok", "ZeroDivisionError")


def test_a_batch_is_one_span_that_names_its_decisions(workspace, monkeypatch):
    """Its first ones, and the stages of all cases; an answer that is given again names its decision, without stages."""
    monkeypatch.setattr("retrodict.serving.traces._IDS", 2)
    batch = json.dumps({"requests": [REQUEST] * 3}).encode()
    again = [*SIMULATED, (b"idempotency-key", b"traced")]
    answers, spans = spans_of(workspace, ("POST", f"{DECIDE}:batch", batch, SIMULATED),
                              ("POST", DECIDE, BODY, again), ("POST", DECIDE, BODY, again))  # fmt: skip
    roots = [one for one in spans if one.kind == trace.SpanKind.SERVER]
    ids = tuple(one["decision_id"] for one in json.loads(answers[0][2])["answers"])
    assert (roots[0].attributes["retrodict.cases"], roots[0].attributes["retrodict.decision_ids"]) == (3, ids[:2])
    below = [one.name for one in spans if one.parent and one.parent.span_id == roots[0].context.span_id]
    assert below == ["check", "features", "score", "rules", "record"]
    assert roots[1].attributes["retrodict.decision_id"] == roots[2].attributes["retrodict.decision_id"]
    assert spans[-2].kind == trace.SpanKind.SERVER


def test_a_caller_who_samples_nothing_is_followed(workspace):
    """The flag of ``traceparent`` decides, and an unreadable one begins a trace of its own."""
    broken = [(b"traceparent", b"00-zz-\xff-01")]
    _, spans = spans_of(workspace, ("GET", "/healthz", b"", traceparent("00")), ("GET", "/readyz", b"", broken))
    assert [(one.name, one.parent) for one in spans] == [("GET /readyz", None)]


@pytest.mark.parametrize(
    ("variables", "setting", "is_on"),
    [
        ({}, "", False),
        ({"OTEL_SERVICE_NAME": "shop"}, "", False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "", True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, "", True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "", True),
        ({"OTEL_TRACES_EXPORTER": "none"}, "http://127.0.0.1:9", False),
        ({"OTEL_SDK_DISABLED": "true"}, "http://127.0.0.1:9", False),
        ({}, "http://127.0.0.1:9", True),
    ],
)
def test_the_setting_or_the_usual_variables_ask_for_traces(variables, setting, is_on, monkeypatch, tmp_path):
    """And those of OpenTelemetry that switch them off do so."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = f'[serving]\ntraces = "{setting}"\n' if setting else ""
    (tmp_path / "retrodict.toml").write_text(f'[project]\nname = "shop"\n{line}')
    config = read_config(tmp_path / "retrodict.toml")
    traces = open_traces(config)
    assert (traces is not None) == is_on
    if traces is not None:
        traces.close()
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
        if setting:
            with pytest.raises(MissingExtraError, match=r"retrodict\[otel\]"):
                open_traces(config)
        else:
            assert open_traces(config) is None


@pytest.mark.parametrize(
    ("variables", "is_right"),
    [
        ({"PROTOCOL": "http/protobuf"}, True),
        ({"PROTOCOL": ""}, True),
        ({"PROTOCOL": "HTTP/Protobuf"}, True),
        ({"TRACES_PROTOCOL": " http/protobuf "}, True),
        ({"PROTOCOL": "grpc"}, False),
        ({"PROTOCOL": "http/json"}, False),
        ({"TRACES_PROTOCOL": "grpc"}, False),
        ({"PROTOCOL": "grpc", "TRACES_PROTOCOL": "http/protobuf"}, True),
        ({"PROTOCOL": "http/protobuf", "TRACES_PROTOCOL": "grpc"}, False),
    ],
)
def test_another_protocol_than_ours_is_no_secret(variables, is_right, monkeypatch, tmp_path, caplog):
    """The setting is refused beside it; where the variables alone ask, the log says that there are no traces."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    path, project = tmp_path / "retrodict.toml", '[project]\nname = "shop"\n'
    path.write_text(project + '[serving]\ntraces = "http://127.0.0.1:9"\n')
    by_setting = read_config(path)
    path.write_text(project)
    by_variable = read_config(path)
    rule = (
        r"environment variable OTEL_EXPORTER_OTLP_\w*PROTOCOL: traces must go by http/protobuf; got '(grpc|http/json)'"
    )
    if is_right:
        open_traces(by_setting).close()
    else:
        with pytest.raises(ConfigurationError, match=rule):
            open_traces(by_setting)
    assert open_traces(by_variable) is None  # nobody asks
    assert not caplog.records
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    traces = open_traces(by_variable)
    assert (traces is not None) == is_right
    if traces is not None:
        traces.close()
    else:
        assert re.search(f"there are no traces, which the environment asks for: {rule}", caplog.text)


def test_of_a_protocol_that_is_no_word_little_is_repeated(monkeypatch, tmp_path):
    """Whatever stands in the variable by mistake."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "x" * 500)
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "shop"\n[serving]\ntraces = "http://127.0.0.1:9"\n')
    with pytest.raises(ConfigurationError, match=r"got 'x{40}'"):
        open_traces(read_config(tmp_path / "retrodict.toml"))


def test_a_server_that_is_set_to_another_protocol_does_not_start(deployed, tmp_path, monkeypatch):
    """By its exit code for a wrong configuration, and what must hold."""
    shutil.copytree(deployed, tmp_path / "copy")
    with (tmp_path / "copy" / "retrodict.toml").open("a") as settings:
        settings.write('[serving]\ntraces = "http://127.0.0.1:9"\n')
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    command = [sys.executable, "-m", "retrodict", "serve", "--project", tmp_path / "copy", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "traces must go by http/protobuf; got 'grpc'" in done.stderr


class Collector(ThreadingHTTPServer):
    """OTLP over HTTP as the protocol defines it: a POST of protobuf to ``/v1/traces``."""

    def __init__(self):
        self.batches, self.paths = [], []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def spans(self):
        return [(resource, span) for batch in self.batches for resource in batch.resource_spans
                for scope in resource.scope_spans for span in scope.spans]  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/x-protobuf"
        self.server.paths.append(self.path)
        self.server.batches.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_real_server_sends_to_a_real_collector(deployed, collector, monkeypatch):
    """HTTP by our client, which passes its span on, and gRPC by metadata, from both workers; nothing is left unsent."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "parcels")
    server = Server(deployed, "--replay", "--workers", "2", "--grpc-port", "0")
    provider = TracerProvider()
    try:
        url, tracer = f"http://127.0.0.1:{server.port}", provider.get_tracer("shop")
        with tracer.start_as_current_span("checkout") as outer, Caller(url) as caller:
            answer = caller.decide("promise", REQUEST["entities"], REQUEST["context"], at=1_708_423_200_000_000)
        ask_by_grpc(server.grpc)
    finally:
        server.stop()
    named = {span.name: span for _, span in collector.spans()}
    resources = {one.key: one.value for resource, _ in collector.spans() for one in resource.resource.attributes}
    assert resources["service.name"].string_value == "parcels"
    assert {*collector.paths} == {"/v1/traces"}
    roots = [span for _, span in collector.spans() if span.name == "POST /v1/decisions/{policy}"]
    ours = next(span for span in roots if span.parent_span_id.hex() == f"{outer.get_span_context().span_id:016x}")
    assert ours.trace_id.hex() == f"{outer.get_span_context().trace_id:032x}"
    assert answer.decision_id in {one.value.string_value for one in ours.attributes}
    assert [span.parent_span_id.hex() for span in roots if span.trace_id.hex() == TRACE] == [PARENT]
    assert {"features", "score", "rules", "record"} <= named.keys()


def ask_by_grpc(address):
    path, request, answer = METHODS["Decide"]
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(path, request.SerializeToString, answer.FromString)
        metadata = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("retrodict-time", AT["Retrodict-Time"])]
        assert call(decide(), metadata=metadata, timeout=20).decision_id


@pytest.mark.parametrize("listens", [True, False])
def test_a_collector_that_says_nothing_holds_up_nobody(deployed, listens, monkeypatch):
    """Answers come as ever and the server ends, whether its collector takes connections or is not there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
        if not listens:
            silent.close()
        server = Server(deployed, "--replay", "--no-consume")
        try:
            assert [server.decide()[0] for _ in range(50)] == [200] * 50
        finally:
            server.stop()


def test_a_client_without_opentelemetry_loads_none():
    """What a program has not loaded has no span to pass on."""
    code = ("import sys, retrodict.client as c; call = c.Client('http://127.0.0.1:9')._begin(c._Call('GET', '/'));"
            "assert not [m for m in sys.modules if m.startswith('opentelemetry')]; print(call['headers'])")  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "traceparent" not in result.stdout
