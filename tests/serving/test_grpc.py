"""gRPC: what HTTP answers, as messages; and whatever is sent, never an error of ours."""

import asyncio
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.resources import files

import grpc
import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.grpc_callers import (
    CASE,
    METHODS,
    SIMULATED,
    GrpcCaller,
    ask,
    decide,
    infer,
    message,
    outputs,
    put,
    run,
    serving,
)
from tests.serving.process import Server
from tests.serving.project import AT, REQUEST, make_project
from tests.serving.test_callers import certificate
from tests.serving.test_services import DEFINITIONS as CITIES
from tests.serving.test_services import rides
from tests.serving.test_workers import wait_for, workers_of

from retrodict import Project
from retrodict.core.errors import BusyError
from retrodict.data.ingest import ingest
from retrodict.decisions.loader import Loader
from retrodict.decisions.log import read_decisions
from retrodict.features.online import Upkeep
from retrodict.models.artifact import ModelArtifact
from retrodict.registry.feature_sets import served_feature_sets
from retrodict.rollout import deploy
from retrodict.serving.failures import read_failures
from retrodict.serving.grpc import server as grpc_server
from retrodict.serving.idempotency import RequestUnderWayError
from retrodict.serving.open_inference import NUMBERS
from retrodict.workspace import Workspace

FOLDER = files("retrodict.serving.grpc")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("called")
    make_project(folder, '[serving]\ngrpc_port = 0\n[auth]\nrequired = "network"\n').close()
    return folder


@pytest.fixture(scope="module")
def served(root):
    server = Server(root, "--replay", "--no-consume")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def caller(served):
    return GrpcCaller(served.grpc)


@pytest.fixture
def workspace(root):
    with Workspace(root, actor="ana") as opened:
        yield opened


def records(root):
    with Workspace(root) as workspace:
        return [one.record for one in read_decisions(workspace)]


def ids(root):
    return {one.id for one in records(root)}


def test_the_descriptors_are_those_of_the_proto_files(tmp_path):
    """What ships is what protoc makes of what is published."""
    from grpc_tools import protoc

    names = ["open_inference.proto", "decisions.proto"]
    assert not protoc.main(["protoc", f"-I{FOLDER}", f"--descriptor_set_out={tmp_path / 'new'}", *names])
    shipped = FileDescriptorSet.FromString((FOLDER / "messages.binpb").read_bytes())
    assert shipped == FileDescriptorSet.FromString((tmp_path / "new").read_bytes())


def test_an_answer_has_variants_and_warnings():
    """As HTTP has them; of tensors as text, since parameters hold no lists."""
    from retrodict.serving.grpc.calls import METHODS, Reply

    def filled(path, content):
        method = METHODS[path]
        answer = method.answer()
        method.fill(answer, None, Reply(200, {}, json.dumps(content).encode()))
        return answer

    answer = filled("/retrodict.v1.Decisions/Decide", {"decision": "ok", "score": None, "variants": {"colour": "red"},
                                                       "warnings": ["a", "b"], "reasons": ["c"]})  # fmt: skip
    assert (dict(answer.variants), [*answer.warnings], [*answer.reasons]) == ({"colour": "red"}, ["a", "b"], ["c"])
    head = {"model_name": "m", "model_version": "1", "outputs": [], "parameters": {"warnings": ["a"]}}
    answer = filled("/inference.GRPCInferenceService/ModelInfer", head)
    assert {name: one.string_param for name, one in answer.parameters.items()} == {"warnings": '["a"]'}


@pytest.mark.parametrize("order", [("open_inference.grpc.protocol", "retrodict.serving.grpc.calls"),
                                   ("retrodict.serving.grpc.calls", "open_inference.grpc.protocol")])  # fmt: skip
def test_messages_of_a_client_in_the_same_process_do_not_clash(order):
    """Which of the two is loaded first does not matter."""
    script = "".join(f"import {name}\n" for name in order)
    script += (
        "print(retrodict.serving.grpc.calls.METHODS['/inference.GRPCInferenceService/ModelInfer'].request(id='a'))"
    )
    command = [sys.executable, "-c", "import retrodict\n" + script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, 'id: "a"'), done.stderr


def test_what_there_is_is_what_http_says(served, caller):
    """Health, metadata, configuration, index: the same facts."""
    assert caller.ask(message("ServerLive")).live
    assert caller.ask(message("ServerReady")).ready
    assert caller.ask(message("ModelReady", name="promise")).ready
    assert caller.ask(message("ModelReady", name="promise", version="1")).ready
    assert not caller.ask(message("ModelReady", name="promis")).ready
    server = caller.ask(message("ServerMetadata"))
    assert {"name": server.name, "version": server.version, "extensions": [*server.extensions]} == served.send(
        "GET", "/v2"
    )[1]
    model, plain = caller.ask(message("ModelMetadata", name="promise")), served.send("GET", "/v2/models/promise")[1]
    assert [(one.name, one.datatype, [*one.shape]) for one in (*model.inputs, *model.outputs)] == [
        (one["name"], one["datatype"], one["shape"]) for one in (*plain["inputs"], *plain["outputs"])]  # fmt: skip
    assert ([*model.versions], model.platform) == (plain["versions"], "retrodict")
    config = caller.ask(message("ModelConfig", name="promise", version="1")).config
    assert {one.name: one.data_type for one in config.input} == {"depot": 13, "weight": 12, "express": 1, "sent": 13}
    assert (config.max_batch_size, [*config.version_policy.specific.versions]) == (1000, [1])
    index = caller.ask(message("RepositoryIndex"))
    assert [(one.name, one.version, one.state) for one in index.models] == [("promise", "1", "READY")]
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        code, text, _ = caller.refuse(message(name, model_name="promise"))
        assert (code, "retrodict deploy" in text) == ("UNIMPLEMENTED", True)


def test_a_decision_is_that_of_http(root, served, caller):
    """Same decision, score and reasons, and a record like any other."""
    code, plain = served.decide({**REQUEST, "explain": True})
    answer = caller.ask(decide(explain=True))
    assert code == 200
    assert (answer.decision, answer.score, answer.policy, answer.model, [*answer.reasons]) == tuple(
        plain[name] for name in ("decision", "score", "policy", "model", "reasons"))  # fmt: skip
    unseen = served.decide({**REQUEST, "entities": {"depot": "nowhere"}})[1]["views"]
    views = caller.ask(decide({**CASE, "depot": "nowhere"})).views
    assert {name: {"status": one.status, "age_s": one.age_s} for name, one in views.items()} == unseen
    assert (answer.replayed, answer.HasField("recorded"), answer.HasField("fallback")) == (False, False, False)
    by_id = {one.id: one for one in records(root)}
    ours, theirs = by_id[answer.decision_id], by_id[plain["decision_id"]]
    assert (ours.key, ours.entities, ours.context, ours.features) == (
        theirs.key, theirs.entities, theirs.context, theirs.features)  # fmt: skip
    assert caller.ask(decide({**CASE, "weight": math.nan})).score == served.decide(
        {**REQUEST, "context": {**REQUEST["context"], "weight": None}})[1]["score"]  # fmt: skip
    asked = decide()
    asked.context["weight"].ClearField("kind")
    asked.ClearField("key")
    answer = caller.ask(asked)
    (record,) = [one for one in records(root) if one.id == answer.decision_id]
    assert (record.key, record.context["weight"]) == (None, None)


def test_a_call_without_a_name_is_told_so(caller):
    """It was an unknown policy '%'; one that is called so is unknown by its name."""
    for call in (decide(policy=""), message("ModelReady"), message("ModelMetadata", version="1")):
        code, text, _ = caller.refuse(call)
        assert (code, "got 'an empty name'" in text) == ("INVALID_ARGUMENT", True)
    code, text, _ = caller.refuse(decide(policy="%"))
    assert (code, "an empty name" in text) == ("NOT_FOUND", False)


def test_the_trailers_say_who_answered_and_in_what_time(caller):
    """As the headers of HTTP do."""
    (name,) = [name for name, (_, kind, _) in METHODS.items() if kind is type(decide())]
    _, _, trailers = caller.send(name, decide().SerializeToString())
    assert trailers["retrodict-served-by"].startswith("decisions/")
    assert trailers["server-timing"].startswith("total;dur=")


def test_an_id_gives_one_answer_over_both(served, caller):
    """The first call decides, whichever way it comes; another question with its id is refused."""
    first = served.decide(headers={**AT, "Idempotency-Key": "both"})[1]
    metadata = (*SIMULATED, ("idempotency-key", "both"))
    again = caller.ask(decide(), metadata=metadata)
    assert (again.decision_id, again.replayed) == (first["decision_id"], True)
    code, text, _ = caller.refuse(decide({**CASE, "weight": 13.5}), metadata=metadata)
    assert (code, "request id" in text) == ("ALREADY_EXISTS", True)
    code, text, _ = caller.refuse(infer([CASE]), metadata=metadata)
    assert (code, "for one decision" in text) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("raw", [False, True])
def test_tensors_give_what_single_decisions_give(root, caller, raw):
    """Typed or in bytes, each way; one record a case, reasons where asked for, outputs that were asked for."""
    cases = [{**CASE, "weight": 5.0 + 10 * number} for number in range(12)]
    cases[3]["weight"] = math.nan
    before = ids(root)
    asked = infer(cases, raw=raw, id="i7", model_version="1")
    asked.parameters["explain"].bool_param = True
    answer = caller.ask(asked)
    assert (answer.model_name, answer.model_version, answer.id) == ("promise", "1", "i7")
    assert bool(answer.raw_output_contents) == raw
    columns = outputs(answer)
    assert [*columns] == ["decision", "decision_id", "score"]
    assert ids(root) - before == set(columns["decision_id"])
    singles = [caller.ask(decide(case)) for case in cases]
    assert columns["score"] == [one.score if one.HasField("score") else math.nan for one in singles]
    assert columns["decision"] == [one.decision for one in singles]
    assert len(json.loads(answer.parameters["reasons"].string_param)) == 12
    asked.outputs.add(name="score").parameters["binary_data"].bool_param = not raw  # is of HTTP
    assert [*outputs(caller.ask(asked))] == ["score"]


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
def test_typed_contents_are_read_by_their_datatype(served, caller, datatype):
    """As the bytes of NumPy are; FP16 has no field."""
    field = "uint" if datatype.startswith("U") else "int"
    field = datatype.lower() if datatype in ("INT64", "UINT64", "BOOL", "FP32", "FP64", "BYTES") else field
    asked, packed = infer([CASE]), infer([CASE], raw=True)
    for one in (asked, packed):
        del one.inputs[1:2]
        one.inputs.add(name="weight", datatype=datatype, shape=[1])
    value = b"7" if datatype == "BYTES" else 1
    del packed.raw_input_contents[1:2]
    packed.raw_input_contents.append(
        b"\1\0\0\0007" if datatype == "BYTES" else np.array([1], NUMBERS[datatype]).tobytes()
    )
    if datatype != "FP16":
        getattr(asked.inputs[-1].contents, f"{field}_contents").append(value)
    answers = [caller.send("ModelInfer", one.SerializeToString())[:2] for one in (asked, packed)]
    if datatype == "FP16":
        assert (answers[0][0], answers[1][0]) == ("INVALID_ARGUMENT", "OK")
    elif datatype in ("BOOL", "BYTES"):
        assert [code for code, _ in answers] == ["INVALID_ARGUMENT"] * 2
        assert answers[0][1] == answers[1][1]
    else:
        assert [code for code, _ in answers] == ["OK"] * 2
        assert outputs(answers[0][1])["score"] == outputs(answers[1][1])["score"]


def changed(change):
    asked = infer([CASE])
    change(asked)
    return asked


def typed(asked, datatype):
    return asked.inputs.add(name="a", datatype=datatype, shape=[1])


def say(tensor, name):
    tensor.parameters[name].string_param = "1"


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (changed(lambda one: one.inputs[1].contents.int_contents.append(1)), "the field of their datatype"),
        (changed(lambda one: one.raw_input_contents.append(b"x")), "raw contents must be there"),
        (changed(lambda one: one.inputs[1].shape.append(3)), "one value for each"),
        (changed(lambda one: one.ClearField("inputs")), "inputs must be there"),
        (changed(lambda one: typed(one, "INT8").contents.int_contents.append(300)), "range"),
        (changed(lambda one: typed(one, "TEXT")), "a datatype must be"),
        (changed(lambda one: one.inputs[0].contents.bytes_contents.__setitem__(0, b"\xff")), "UTF-8"),
        (changed(lambda one: one.outputs.add(name="scores")), "some of decision"),
        (changed(lambda one: say(one.outputs.add(name="score"), "classification")), "classification"),
        (changed(lambda one: say(one.inputs[0], "shared_memory_region")), "shared memory"),
        (changed(lambda one: one.inputs[1].contents.fp64_contents.__setitem__(0, math.inf)), "finite"),
        (decide({**CASE, "weight": -math.inf}), "finite"),
        (decide({**CASE, "sent": "yesterday"}), "sent"),
        (message("Decide", policy="promise"), "depot"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_decided(root, caller, asked, text):
    """The rule is said, the value is not repeated."""
    before = ids(root)
    code, details, _ = caller.refuse(asked)
    assert (code, text in details) == ("INVALID_ARGUMENT", True), details
    assert "yesterday" not in details
    assert ids(root) == before


def test_each_refusal_has_its_code(root, caller):
    """Unknown names, times, methods, and what is too long; failures are noted like those over HTTP."""
    assert caller.refuse(message("Decide", policy="promis"))[:1] == ("NOT_FOUND",)
    assert "'promise'" in caller.refuse(message("Decide", policy="promis"))[1]
    assert caller.refuse(message("ModelMetadata", name="promise", version="9"))[0] == "NOT_FOUND"
    assert caller.refuse(message("ModelMetadata", name="promise/ready"))[0] == "NOT_FOUND"
    assert caller.refuse(message("Get", service="cities"))[0] == "NOT_FOUND"
    assert caller.refuse(decide(), metadata=[("retrodict-time", "never")])[0] == "INVALID_ARGUMENT"
    assert caller.refuse(decide(), metadata=[("retrodict-priority", "high")])[0] == "INVALID_ARGUMENT"
    assert caller.refuse(decide(key="k" * 70_000))[0] == "RESOURCE_EXHAUSTED"
    assert caller.refuse(decide(key="k" * (5 << 20)))[0] == "RESOURCE_EXHAUSTED"
    assert caller.refuse(decide(), metadata=[("a", "b" * 60_000)])[0] in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
    assert caller.ask(decide()).decision  # and over the same connection the next one is answered
    unknown = caller.channel.unary_unary("/inference.GRPCInferenceService/TraceSetting")
    with pytest.raises(grpc.RpcError) as failure:
        unknown(b"", timeout=20)
    assert failure.value.code().name == "UNIMPLEMENTED"
    with Workspace(root) as workspace:
        noted = read_failures(workspace).failures
    assert {("promise", 413), ("_other", 404), ("promise", 400)} <= {(one["policy"], one["status"]) for one in noted}


def test_a_long_error_is_cut(caller):
    """What is longer than the metadata that callers take would arrive as another error."""
    asked = infer([{"depot": "north", "weight": "heavy", "express": "no", "sent": "never"}] * 10)
    code, text, _ = caller.refuse(asked)
    assert (code, len(text)) == ("INVALID_ARGUMENT", 1_000)
    assert text.startswith("case 0, 1, 2")


@settings(max_examples=300)
@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=200))
def test_no_bytes_are_an_error_of_ours(caller, name, data):
    """Whatever stands in a message: an answer or a refusal."""
    assert caller.send(name, data)[0] not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED")


def filled(kind, depth=3):
    """Messages of a kind, with anything in their fields."""
    fields = {}
    for one in kind.DESCRIPTOR.fields:
        if one.message_type is None:
            inner = BYTES if one.type == one.TYPE_BYTES else SCALARS[one.cpp_type]
        elif not depth:
            continue
        elif one.message_type.GetOptions().map_entry:
            inner = filled(kind_of(one.message_type.fields_by_name["value"]), depth - 1)
            fields[one.name] = st.dictionaries(WORDS, inner, max_size=4)
            continue
        else:
            inner = filled(kind_of(one), depth - 1)
        fields[one.name] = st.lists(inner, max_size=3) if one.is_repeated else inner
    if not fields:
        return st.builds(kind)
    some = st.sets(st.sampled_from(sorted(fields))).flatmap(
        lambda names: st.fixed_dictionaries({n: fields[n] for n in names})
    )
    return some.map(lambda values: kind(**values))


def kind_of(field):
    return GetMessageClass(field.message_type)


WORDS = st.sampled_from(["depot", "weight", "sent", "explain", "binary_data", "binary_data_size", "promise", "1",
                         "score", "FP64", "BYTES", "INT8", "a/b", "..", "%2F", "", "\0", "é"])  # fmt: skip
BYTES = st.binary(max_size=9) | st.sampled_from([b"\1\0\0\0a", b"\0" * 8, b"\xff" * 8])
SCALARS = {
    1: st.integers(-3, 3) | st.sampled_from([2**31 - 1, -(2**31)]),
    2: st.integers(-1, 2) | st.integers(-(2**63), 2**63 - 1),
    3: st.integers(0, 2**32 - 1), 4: st.integers(0, 2**64 - 1),
    5: st.floats(), 6: st.floats(width=32), 7: st.booleans(), 9: WORDS,
}  # fmt: skip
RIGHT = [infer([CASE, CASE]), decide(), message("Get", service="cities"), message("ModelMetadata", name="promise"),
         message("RepositoryModelLoad")]  # fmt: skip


@settings(max_examples=400)
@given(st.sampled_from(RIGHT).flatmap(lambda right: st.tuples(st.just(right), filled(type(right)))), st.booleans())
def test_no_message_is_an_error_of_ours(caller, both, is_changed):
    """Fields of every kind, out of range, contradicting one another; alone, or within a message that is right."""
    right, asked = both
    if is_changed:
        changed_one = type(right).FromString(right.SerializeToString())
        changed_one.MergeFrom(asked)
        asked = changed_one
    name = next(name for name, (_, kind, _) in METHODS.items() if kind is type(asked))
    code, text, _ = caller.send(name, asked.SerializeToString())
    assert code not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"), text


def test_features_alone_are_those_of_http(tmp_path):
    """Values, statuses, ages; kinds stay what they are, and what is wrong is refused."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "city"\n')
    (tmp_path / "definitions.py").write_text(CITIES)
    with Workspace(tmp_path) as workspace:
        ingest(workspace, "rides", pa.Table.from_pylist(rides(12)))
        Upkeep(workspace, served_feature_sets).catch_up(wait_s=60)
    server = Server(tmp_path, "--replay", "--no-consume", "--grpc-port", "0")
    try:
        caller, noon = GrpcCaller(server.grpc), (("retrodict-time", "2024-03-01T12:00:00Z"),)
        body = {"entities": [{"city": 1}, {"city": 9}], "context": {"when": "2024-03-01T14:00Z"}}
        status, plain = server.send("POST", "/v1/features/cities", body, {"Retrodict-Time": "2024-03-01T12:00:00Z"})
        assert status == 200, plain
        asked = message("Get", service="cities")
        put(asked.context["when"], "2024-03-01T14:00Z")
        for city in (1, 9):
            put(asked.entities.add().values["city"], city)
        answer = caller.ask(asked, metadata=noon)
        assert (answer.service, answer.at, answer.version) == (plain["service"], plain["at"], str(plain["version"]))
        plain_values = {}
        for name, one in answer.features.items():
            kinds = [value.WhichOneof("kind") for value in one.values]
            values = [
                None if kind is None else getattr(value, kind) for kind, value in zip(kinds, one.values, strict=True)
            ]
            plain_values[name] = {"values": values, "statuses": [*one.statuses]}
        assert json.dumps(plain_values, sort_keys=True) == json.dumps(plain["features"], sort_keys=True)
        assert any(isinstance(value, str) for one in plain_values.values() for value in one["values"])
        views = {
            name: {"version": one.version, "status": one.status, "age_s": one.age_s}
            for name, one in answer.views.items()
        }
        assert views == plain["views"]
        put(asked.entities[1].values["city"], "one")
        code, text, _ = caller.refuse(asked, metadata=noon)
        assert (code, "entity 1" in text) == ("INVALID_ARGUMENT", True)
    finally:
        server.kill()


def test_the_version_before_is_asked_by_its_number_as_long_as_it_is_warm(tmp_path):
    """Over both, in index, versions and counts; the one before that is not there, and nor is it after a restart."""
    make_project(tmp_path).close()
    server = Server(tmp_path, "--replay", "--no-consume", "--grpc-port", "0")
    try:
        caller = GrpcCaller(server.grpc)
        for number in (2, 3):
            text = (tmp_path / "definitions.py").read_text()
            (tmp_path / "definitions.py").write_text(re.sub(r"score >= 0.\d+", f"score >= 0.{number}", text))
            with Project(tmp_path, actor="ana") as project:
                deploy(project.workspace, "promise", reason="again")
            wait_for(
                lambda number=number: caller.ask(message("ModelMetadata", name="promise")).versions[0] == str(number)
            )
        assert [*caller.ask(message("ModelMetadata", name="promise")).versions] == ["3", "2"]
        for version, revision in (("", 3), ("3", 3), ("2", 2)):
            answer = caller.ask(infer([CASE] * 2, model_version=version))
            assert answer.model_version == str(revision)
            (first, _) = outputs(answer)["decision_id"]
            assert [one.revision for one in records(tmp_path) if one.id == first] == [revision]
        assert server.send("GET", "/v2/models/promise/versions/2/ready")[0] == 200
        assert server.send("GET", "/v2/models/promise/versions/1/ready")[0] == 404
        code, text, _ = caller.refuse(infer([CASE], model_version="1"))
        assert (code, "Ask for 3 or 2" in text) == ("NOT_FOUND", True)
        assert caller.refuse(changed(lambda one: one.ClearField("inputs")))[0] == "INVALID_ARGUMENT"
        index = [(one.version, one.state) for one in caller.ask(message("RepositoryIndex")).models]
        assert index == [("3", "READY"), ("2", "READY")]
        stats = caller.ask(message("ModelStatistics")).model_stats
        counts = {one.version: (one.inference_count, one.execution_count, one.inference_stats.success.count,
                                one.inference_stats.fail.count) for one in stats}  # fmt: skip
        assert counts == {"3": (4, 2, 2, 1), "2": (2, 1, 1, 0)}
        assert all(one.inference_stats.success.ns > one.inference_stats.compute_infer.ns > 0 for one in stats)
        status, plain = server.send("GET", "/v2/models/promise/versions/2/stats")
        assert (status, [one["version"] for one in plain["model_stats"]]) == (200, ["2"])
        assert len(server.send("GET", "/v2/models/stats")[1]["model_stats"]) == 2
        server.stop()
        server = Server(tmp_path, "--replay", "--no-consume")
        assert server.send("GET", "/v2/models/promise")[1]["versions"] == ["3"]
        assert server.send("GET", "/v2/models/promise/versions/2")[0] == 404
    finally:
        server.kill()


def test_a_version_whose_views_nobody_keeps_current_is_not_asked(workspace):
    """It would answer from a state that stands still, and not say so."""

    async def main():
        async with serving(workspace) as (app, _, _):
            before = app.servants["promise"]
            after = Loader(workspace, health=app.health).load_current()["promise"]
            app.follow({"promise": after})
            kept = dict(app.earlier)
            other = Loader(workspace, health=app.health).load_current()["promise"]
            other.views = frozenset({"of another"})
            app.follow({"promise": other})
            return before, kept, app.earlier

    before, kept, earlier = run(main())
    assert kept == {"promise": (before,)}
    assert earlier == {}


def test_callers_say_who_they_are(tmp_path):
    """By the same keys, scopes and rates; a caller without one learns nothing but that, whatever it sends."""
    make_project(tmp_path, '[auth]\nrequired = "always"\n').close()
    with Project(tmp_path, actor="ana") as project:
        keys = {scope: project.api_keys.issue(scope, scope=[scope], reason="test").token for scope in ("score", "read")}
        slow = project.api_keys.issue("slow", scope=["score"], rate=1, reason="test").token
    server = Server(tmp_path, "--replay", "--no-consume", "--grpc-port", "0")
    try:
        caller = GrpcCaller(server.grpc)

        def by(key):
            return (*SIMULATED, ("authorization", f"Bearer {key}"))

        assert caller.ask(message("ServerReady")).ready
        for name in METHODS.keys() - {"ServerLive", "ServerReady"}:
            for data in (b"", b"\xff\xff\xff"):
                assert caller.send(name, data)[0] == "UNAUTHENTICATED", name
            assert caller.send(name, b"", metadata=by("rtd_x_y"))[0] == "UNAUTHENTICATED", name
            wrong = keys["read"] if name in ("Decide", "Get", "ModelInfer", "ModelStreamInfer") else keys["score"]
            assert caller.send(name, b"", metadata=by(wrong))[0] == "PERMISSION_DENIED", name
        answer = caller.ask(decide(), metadata=by(keys["score"]))
        assert [one.caller for one in records(tmp_path) if one.id == answer.decision_id] == ["key:score"]
        assert caller.ask(message("ModelMetadata", name="promise"), metadata=by(keys["read"])).platform
        caller.ask(decide(), metadata=by(slow))
        code, _, trailers = caller.refuse(decide(), metadata=by(slow))
        assert (code, int(trailers["retry-after"]) >= 1, trailers["grpc-retry-pushback-ms"]) == (
            "RESOURCE_EXHAUSTED", True, f"{trailers['retry-after']}000")  # fmt: skip
    finally:
        server.kill()


def test_callers_come_by_tls(tmp_path):
    """The certificate is that of HTTP; who speaks none gets no answer."""
    cert, key = certificate(tmp_path)
    make_project(tmp_path, f'[serving]\ncertificate = "{cert}"\ncertificate_key = "{key}"\n').close()
    server = Server(tmp_path, "--replay", "--no-consume", "--grpc-port", "0")
    try:
        address = f"localhost:{server.grpc.rpartition(':')[2]}"
        assert GrpcCaller(address).refuse(decide(), timeout=3)[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert GrpcCaller(address, grpc.ssl_channel_credentials(cert.read_bytes())).ask(decide()).decision
    finally:
        server.kill()


def test_a_port_is_taken_by_one_server(root, served):
    """Also where its workers share it among themselves."""
    with pytest.raises(AssertionError, match="the address to listen on must be free"):
        Server(root, "--grpc-port", served.grpc.rpartition(":")[2])


def test_without_the_extra_a_server_says_what_to_install(root):
    """Before anything is begun."""
    script = "import sys; sys.modules['grpc'] = None; from retrodict.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "serve", "--project", str(root), "--port", "0", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "retrodict[grpc]" in done.stderr + done.stdout


# in one event loop with the application -----------------------------------------------------------------------


def test_a_full_server_refuses_and_a_late_call_is_not_decided(workspace):
    """RESOURCE_EXHAUSTED with its pause; a deadline that has passed leaves no record."""

    async def main():
        async with serving(workspace, in_flight=1) as (app, _, channel):
            app.turns.taken = 1
            refused = await ask(channel, decide())
            failed = [name for name, _ in app.telemetry.counters.items() if name[0] == "decisions_failed_total"]
            app.turns.taken = 0
            release = asyncio.Event()
            app.turns._places = 3
            app.turns.taken = 1
            batch = [
                await ask(channel, decide(), (*SIMULATED, ("retrodict-priority", one))) for one in ("normal", "batch")
            ]
            app.turns.taken = 0

            async def enter(*_, **__):
                await release.wait()

            app.turns.enter = enter
            late = await ask(channel, decide(key="late"), seconds=0.3)
            release.set()
            await asyncio.sleep(0.1)
            return refused, failed, late, [code for code, _ in batch]

    before = ids(workspace.root)
    refused, failed, late, batch = run(main())
    assert batch == ["OK", "RESOURCE_EXHAUSTED"]
    assert refused == ("RESOURCE_EXHAUSTED", "the server is at its limit of requests; try again")
    assert [labels for _, labels in failed] == ['policy="promise",status="429",error="Refused"']
    assert late[0] == "DEADLINE_EXCEEDED"
    assert len(ids(workspace.root) - before) == 1


def test_a_caller_who_leaves_while_its_decision_is_recorded_changes_nothing(workspace):
    """The record is whole, its id can be asked again, and the place is free."""

    async def main():
        async with serving(workspace) as (app, _, channel):
            begun, go = asyncio.Event(), asyncio.Event()
            record = app._record

            async def slowly(*args, **options):
                begun.set()
                await go.wait()
                return await record(*args, **options)

            app._record = slowly
            metadata = (*SIMULATED, ("idempotency-key", "left"))
            call = asyncio.create_task(ask(channel, decide(), metadata))
            await begun.wait()
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
            await asyncio.sleep(0.1)
            go.set()
            again = await ask(channel, decide(), metadata)
            return again, app.turns.taken

    before = ids(workspace.root)
    (code, answer), taken = run(main())
    assert (code, answer.replayed, taken) == ("OK", True, 0)
    assert ids(workspace.root) - before == {answer.decision_id}


def test_idle_and_slow_callers_shut_nobody_out(workspace, monkeypatch):
    """Six hundred streams that say nothing, as many as a connection may have on each: an honest one is answered."""
    monkeypatch.setattr(grpc_server, "BODY_S", 3.0)
    monkeypatch.setattr(grpc_server, "_STREAMS", 100)
    calls, next_message = [], grpc_server._next_message

    def counted(*args):
        calls.append(args)
        return next_message(*args)

    monkeypatch.setattr(grpc_server, "_next_message", counted)

    async def main():
        async with serving(workspace) as (app, server, channel):
            address = f"127.0.0.1:{server.port}"
            channels = [
                grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(6)
            ]
            path = METHODS["Decide"][0]
            idle = [one.stream_unary(path)(timeout=30) for one in channels for _ in range(100)]
            await asyncio.gather(*(one.wait_for_connection() for one in idle))
            honest = []  # one that hears to come back, since the loop began 600 streams just now, does so
            while [code for code, _ in honest].count("OK") < 5 and not any(one.done() for one in idle):
                honest.append(await ask(channel, decide()))
            # One more on a full connection waits at its caller until another one ends.
            waiting = channels[0].stream_unary(path)(timeout=30)
            started = asyncio.ensure_future(waiting.wait_for_connection())
            is_begun = bool((await asyncio.wait([started], timeout=1.0))[0])
            begun = len(calls)
            codes = [await one.code() for one in idle]
            texts = {await one.details() for one in idle}
            waited = await waiting.code()
            for one in channels:
                await one.close()
            await started
            return honest, (begun, is_begun), codes, waited, texts, app.turns.taken

    honest, begun, codes, waited, texts, taken = run(main())
    assert begun == (600 + len(honest), False)
    assert texts == {"a message must arrive within 3 s"}
    assert [code for code, _ in honest][-5:] == ["OK"] * 5
    assert {code.name for code in (*codes, waited)} == {"DEADLINE_EXCEEDED"}
    assert taken == 0


def test_whoever_begins_with_many_calls_hears_of_each(workspace):
    """A new caller does not know yet how many it may have under way: more than that would be reset, and not counted."""

    async def main():
        async with serving(workspace, in_flight=50) as (app, _, channel):
            codes = [code for code, _ in await asyncio.gather(*(ask(channel, decide()) for _ in range(400)))]
            counters = app.telemetry.named()
        return codes, counters

    codes, counters = run(main())
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert codes.count("OK") == counters['requests_total{status="200"}'] >= 50
    assert codes.count("RESOURCE_EXHAUSTED") == counters.get('requests_total{status="429"}', 0)


def test_what_is_no_single_message_is_refused(workspace):
    """None, two, one that is compressed; bytes that are no HTTP/2."""

    async def main():
        async with serving(workspace) as (_, server, channel):
            path, data = METHODS["Decide"][0], decide().SerializeToString()
            none = channel.stream_unary(path)(iter(()), metadata=SIMULATED)
            two = channel.stream_unary(path)(iter([data, data]), metadata=SIMULATED)
            packed = channel.unary_unary(path)(data, metadata=SIMULATED, compression=grpc.Compression.Gzip)
            codes = [(await one.code()).name for one in (none, two, packed)]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(64))
            await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return codes, await ask(channel, decide())

    codes, (code, _) = run(main())
    assert codes == ["INVALID_ARGUMENT", "OK", "UNIMPLEMENTED"]
    assert code == "OK"


def test_a_model_that_cancels_is_a_failure_over_grpc_too(workspace, monkeypatch):
    """The fallback of the policy answers; the call is neither cancelled nor left waiting."""

    def cancel(*_):
        raise asyncio.CancelledError

    for name in ("score_row", "score_each"):
        monkeypatch.setattr(ModelArtifact, name, cancel)

    async def main():
        async with serving(workspace) as (_, _, channel):
            return await ask(channel, infer([CASE]))

    before = {one.record.id for one in read_decisions(workspace)}
    assert run(main())[0] == "OK"
    (new,) = [one.record for one in read_decisions(workspace) if one.record.id not in before]
    assert (new.error, new.fallback) == ("CancelledError", "ok")


def test_a_stream_answers_message_after_message(workspace, monkeypatch):
    """Also after one that is wrong; it ends with its caller, or when it says nothing for too long."""
    monkeypatch.setattr(grpc_server, "_IDLE_S", 1.0)

    async def main():
        async with serving(workspace) as (app, _, channel):
            path, kind, answer = METHODS["ModelStreamInfer"]
            converse = channel.stream_stream(path, kind.SerializeToString, answer.FromString)
            asked = [infer([CASE], id="a"), changed(lambda one: one.ClearField("inputs")), infer([CASE] * 3, raw=True)]
            answers = [one async for one in converse(iter(asked), metadata=SIMULATED)]
            single = await ask(channel, infer([CASE]))
            idle = converse(metadata=SIMULATED)
            await idle.write(asked[0])
            await idle.read()
            return answers, single[1], (await idle.code()).name, app.turns.taken

    answers, single, code, taken = run(main())
    assert [one.error_message[:15] for one in answers] == ["", "body: inputs mu", ""]
    assert outputs(answers[0].infer_response)["score"] == outputs(single)["score"]
    assert answers[0].infer_response.id == "a"
    assert len(outputs(answers[2].infer_response)["score"]) == 3
    assert (code, taken) == ("DEADLINE_EXCEEDED", 0)


def test_a_fault_of_ours_says_nothing_of_what_was_sent(workspace, caplog):
    """INTERNAL, and the log has it."""

    async def main():
        async with serving(workspace) as (app, _, channel):

            async def fail(*_):
                raise ValueError("secret")

            app._judge = fail
            first = await ask(channel, decide())
            app.decide_items = lambda *_: None
            return first, await ask(channel, infer([CASE]))

    for code, text in run(main()):
        assert (code, text) == ("INTERNAL", "the server failed to answer; its log says why")
    assert "secret" in caplog.text


def test_what_may_be_tried_again_says_when(workspace):
    """An id whose first call has no answer yet, and a server that is not ready."""

    async def main():
        async with serving(workspace) as (app, _, channel):

            async def fail(*_):
                raise RequestUnderWayError(
                    "the first call must have its answer", where="request id", got="none", remedy="Wait"
                )

            app._judge = fail
            path, data = METHODS["Decide"][0], decide().SerializeToString()
            call = channel.unary_unary(path)(data, metadata=SIMULATED)
            first = (await call.code()).name, dict(await call.trailing_metadata())
            app.problem = "a new revision cannot be loaded"
            return first, await ask(channel, message("ServerReady"))

    (code, trailers), (_, ready) = run(main())
    assert (code, trailers) == ("ABORTED", {"retry-after": "1", "grpc-retry-pushback-ms": "1000"})
    assert not ready.ready


def test_an_address_that_is_taken_is_said(workspace):
    async def main():
        async with serving(workspace) as (app, _, _):
            grpc_server.GrpcServer(app, "192.0.2.1:1", None)

    with pytest.raises(BusyError, match=r"192\.0\.2\.1:1"):
        run(main())


# several workers, and the end ---------------------------------------------------------------------------------


class Callers:
    """Threads that ask, each over a connection of its own, again where nothing was decided."""

    def __init__(self, address, count):
        self.stopped, self.answers, self.codes = False, [], []
        self._threads = [threading.Thread(target=self._run, args=(address, n), daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.answers) > count)

    def _run(self, address, number):
        caller = GrpcCaller(
            address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
        )
        data = decide(key=f"k{number}").SerializeToString()
        while not self.stopped:
            code, got, _ = caller.send("Decide", data)
            self.codes.append(code)
            if code == "OK":
                self.answers.append(got.decision_id)
        caller.channel.close()

    def stop(self):
        self.stopped = True
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_workers_share_the_port_and_a_killed_one_is_replaced(root):
    """Both answer; only what was on its way to the killed one fails; what was answered is in the log."""
    server = Server(root, "--replay", "--no-consume", "--workers", "2", "--grpc-port", "0")
    try:
        callers = Callers(server.grpc, 16)
        wait_for(lambda: all(worker["requests"] > 50 for worker in workers_of(server)))
        victim = workers_of(server)[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: [one for one in workers_of(server) if one["restarts"] == 1 and one["up"]])
        others = [Callers(server.grpc, 16)]  # of whom the new one gets its share
        fresh = next(one["worker"] for one in workers_of(server) if one["restarts"])
        before = workers_of(server)[fresh]["requests"]
        wait_for(lambda: workers_of(server)[fresh]["requests"] > before + 50)
        mark = len(callers.codes)
        wait_for(lambda: len(callers.codes) > mark + 100)
        for one in (callers, *others):
            one.stop()
        assert set(callers.codes) <= {"OK", "UNAVAILABLE"}
        assert set(others[0].codes) == {"OK"}
        assert "UNAVAILABLE" not in callers.codes[mark:]
        assert not {*callers.answers, *others[0].answers} - ids(root)
        stats = GrpcCaller(server.grpc).ask(message("ModelStatistics", name="promise")).model_stats[0]
        assert stats.inference_count > 0
    finally:
        server.kill()


def test_a_call_that_has_begun_is_answered_at_the_end(root):
    """Its message comes after the signal, and after everybody who spoke HTTP has left."""
    server = Server(root, "--replay", "--no-consume", "--grpc-port", "0")
    try:
        caller, begun, go = GrpcCaller(server.grpc), threading.Event(), threading.Event()

        def messages():
            begun.set()
            assert go.wait(20)
            yield decide().SerializeToString()

        caller.ask(decide())
        path, _, answer = METHODS["Decide"]
        call = caller.channel.stream_unary(path, response_deserializer=answer.FromString)
        future = call.future(messages(), metadata=SIMULATED, timeout=30)
        assert begun.wait(20)
        caller.ask(decide())  # behind the head of that one
        server.process.terminate()
        time.sleep(2)
        go.set()
        assert future.result(timeout=20).decision_id in ids(root)
        server.process.communicate(timeout=30)
        assert server.process.returncode == 0
    finally:
        server.kill()


def test_sigterm_under_load_answers_what_has_come(root):
    """After it nobody listens; every answer is in the log, and nothing else."""
    server, before = Server(root, "--replay", "--no-consume", "--grpc-port", "0"), ids(root)
    try:
        callers = Callers(server.grpc, 8)
        time.sleep(0.3)
        errors = server.stop()
        assert server.process.returncode == 0
        wait_for(lambda: callers.codes[-1] != "OK")
        callers.stop()
        assert {"OK", "UNAVAILABLE"} <= set(callers.codes) <= {"OK", "UNAVAILABLE", "CANCELLED"}
        assert {*callers.answers} == ids(root) - before  # what was cancelled was not decided
        assert "Traceback" not in errors
    finally:
        server.kill()
