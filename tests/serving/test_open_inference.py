"""The Open Inference Protocol: the decisions of our own addresses, by tensors, and errors that decide nothing."""

import asyncio
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.project import AT, REQUEST, make_project
from tests.serving.test_app import DECIDE, SIMULATED, Client, call

from retrodict.core.errors import InputError
from retrodict.decisions.log import read_decisions
from retrodict.serving.failures import read_failures
from retrodict.serving.open_inference import _packed, _unpack
from retrodict.workspace import Workspace

INFER = "/v2/models/promise/infer"
CASE = {**REQUEST["entities"], **REQUEST["context"]}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inferred")
    make_project(folder).close()
    return folder


@pytest.fixture
def workspace(deployed):
    with Workspace(deployed, actor="ana") as opened:
        yield opened


def tensor(name, values):
    kinds = {str: "BYTES", float: "FP64", int: "INT64", bool: "BOOL"}
    kind = next(kinds[type(value)] for value in values if value is not None)
    return {"name": name, "shape": [len(values)], "datatype": kind, "data": values}


def tensors(cases):
    return [tensor(name, [case[name] for case in cases]) for name in cases[0]]


def cases(count):
    return [{**CASE, "weight": 5.0 + 10 * number} for number in range(count)]


def encode(inputs, **more):
    return json.dumps({"inputs": inputs, **more}).encode()


def infer(workspace, *bodies, path=INFER, headers=()):
    answers = call(workspace, *[("POST", path, body, [*SIMULATED, *headers]) for body in bodies], body=1 << 20)
    return [(status, json.loads(body) if status == 200 else body.decode()) for status, _, body in answers]


def test_what_there_is(workspace):
    """Server, health, index, model and version; others are 404."""
    paths = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/promise", "/v2/models/promise/versions/1",
             "/v2/models/promise/ready", "/v2/models/promise/versions/1/ready"]  # fmt: skip
    answers = call(workspace, *[("GET", path) for path in paths], ("POST", "/v2/repository/index"))
    assert {status for status, _, _ in answers} == {200}
    bodies = [json.loads(body) for _, _, body in answers]
    assert bodies[0]["extensions"] == ["binary_tensor_data", "model_configuration", "model_repository",
                                       "statistics"]  # fmt: skip
    assert bodies[3] == bodies[4]
    about = {one["name"]: one["datatype"] for one in bodies[3]["inputs"]}
    assert about == {"depot": "BYTES", "weight": "FP64", "express": "BOOL", "sent": "BYTES"}
    assert {one["name"]: one["datatype"] for one in bodies[3]["outputs"]} == {
        "decision": "BYTES", "decision_id": "BYTES", "score": "FP64"}  # fmt: skip
    assert bodies[3]["versions"] == ["1"]
    assert bodies[7] == [{"name": "promise", "version": "1", "state": "READY", "reason": ""}]
    for path in ("/v2/models/promis", "/v2/models/promise/versions/2", "/v2/models/promise/x", "/v2/models/",
                 "/v2/models/promise/versions/1/ready/x", "/v2/models/promise/ready/versions/1"):  # fmt: skip
        assert call(workspace, ("GET", path))[0][0] == 404, path
    assert "'promise'" in call(workspace, ("GET", "/v2/models/promis"))[0][2].decode()


def test_each_case_is_decided_as_by_our_own_address(workspace):
    """Same decision, same score to the bit, one record each."""
    ours = call(workspace, *[("POST", DECIDE, json.dumps({
        "entities": {"depot": case["depot"]}, "context": {k: v for k, v in case.items() if k != "depot"}}).encode())
        for case in cases(12)])  # fmt: skip
    before = len(list(read_decisions(workspace)))
    ((status, body),) = infer(workspace, encode(tensors(cases(12)), id="a1"))
    assert (status, body["id"], body["model_name"], body["model_version"]) == (200, "a1", "promise", "1")
    outputs = {one["name"]: one["data"] for one in body["outputs"]}
    assert outputs["score"] == [json.loads(answer)["score"] for _, _, answer in ours]
    assert outputs["decision"] == [json.loads(answer)["decision"] for _, _, answer in ours]
    records = [one.record for one in read_decisions(workspace)][before:]
    assert [record.id for record in records] == outputs["decision_id"]
    ((_, body),) = infer(
        workspace, encode(tensors(cases(2)), parameters={"explain": True}, outputs=[{"name": "score"}])
    )
    assert [one["name"] for one in body["outputs"]] == ["score"]
    assert all(body["parameters"]["reasons"])


def test_tensors_in_bytes_are_those_in_json(workspace):
    """Each way, in and out; NaN is a value that is missing, as null is."""
    rows = cases(5)
    rows[3]["weight"] = None
    inputs, data = [], b""
    for name in rows[0]:
        values = [row[name] for row in rows]
        plain = tensor(name, values)
        packed = _packed(plain["datatype"], values) if plain["datatype"] in ("BYTES", "FP64") else bytes(values)
        inputs.append({key: plain[key] for key in ("name", "shape", "datatype")} |
                      {"parameters": {"binary_data_size": len(packed)}})  # fmt: skip
        data += packed
    head = encode(inputs, parameters={"binary_data_output": True})
    size = [(b"inference-header-content-length", str(len(head)).encode())]
    ((status, headers, body),) = call(workspace, ("POST", INFER, head + data, [*SIMULATED, *size]), body=1 << 20)
    assert (status, headers[b"content-type"]) == (200, b"application/octet-stream")
    length = int(headers[b"inference-header-content-length"])
    answer, rest, outputs = json.loads(body[:length]), body[length:], {}
    for one in answer["outputs"]:
        taken = one["parameters"]["binary_data_size"]
        outputs[one["name"]], rest = rest[:taken], rest[taken:]
    assert rest == b""
    ((_, plain),) = infer(workspace, encode(tensors(rows)))
    listed = {one["name"]: one["data"] for one in plain["outputs"]}
    assert np.frombuffer(outputs["score"], "<f8").tolist() == listed["score"]
    texts, at = [], 0
    while at < len(outputs["decision"]):
        (length,) = struct.unpack_from("<I", outputs["decision"], at)
        texts.append(outputs["decision"][at + 4 : at + 4 + length].decode())
        at += 4 + length
    assert texts == listed["decision"]


def test_where_one_case_is_wrong_nothing_is_decided(workspace):
    """And which one it is, and why, is said."""
    rows = cases(4)
    rows[2]["sent"] = "yesterday"
    before = len(list(read_decisions(workspace)))
    ((status, text),) = infer(workspace, encode(tensors(rows)))
    assert status == 400
    assert "case 2 (from 0) of 4" in text
    assert "sent" in text
    assert "yesterday" not in text
    assert len(list(read_decisions(workspace))) == before
    noted = read_failures(workspace).failures[0]
    assert (noted["policy"], noted["status"]) == ("promise", 400)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda one: {"inputs": one[2:]}, "every input of the model must be there; got 'no depot, "),
        (lambda one: {"inputs": []}, "inputs must be there"),
        (lambda one: {"inputs": [*one, one[0]]}, "stand once"),
        (lambda one: {"inputs": [{**one[0], "shape": [3]}, *one[1:]]}, "one value for each"),
        (lambda one: {"inputs": [{**one[0], "shape": [2, 1]}, *one[1:]]}, None),
        (lambda one: {"inputs": [{**one[0], "shape": [1, 2], "data": [one[0]["data"]]}, *one[1:]]}, None),
        (lambda one: {"inputs": [{**one[0], "shape": [-2]}, *one[1:]]}, "one value for each"),
        (lambda one: {"inputs": [{**one[0], "shape": []}, *one[1:]]}, "one value for each"),
        (lambda one: {"inputs": [{**one[0], "shape": [10**12, 10**12]}, *one[1:]]}, "one value for each"),
        (lambda one: {"inputs": [{**one[0], "datatype": "TEXT"}, *one[1:]]}, "a datatype must be"),
        (lambda one: {"inputs": [{**one[0], "datatype": "INT64"}, *one[1:]]}, "of the tensor's datatype"),
        (lambda one: {"inputs": [{**one[0], "data": [1, 2]}, *one[1:]]}, "of the tensor's datatype"),
        (lambda one: {"inputs": [{**one[0], "data": [[["x"]], "y"]}, *one[1:]]}, "of the tensor's datatype"),
        (lambda one: {"inputs": [{**one[0], "data": None}, *one[1:]]}, "one value for each"),
        (lambda one: {"inputs": [{**one[0], "parameters": {"binary_data_size": 5}}, *one[1:]]}, "as many bytes"),
        (lambda one: {"inputs": one, "outputs": [{"name": "scores"}]}, "some of decision, decision_id, score"),
        (lambda one: {"inputs": 5}, "Send array"),
        (lambda _: {}, "inputs"),
        (lambda _: [], "object"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(workspace, change, match):
    """Nothing but shapes and names of ours is repeated."""
    body = change(tensors(cases(2)))
    ((status, text),) = infer(workspace, json.dumps(body).encode())
    assert status == (200 if match is None else 400), text
    assert match is None or match in text
    many = tensors([CASE] * 9)
    ((status, text),) = [(s, b.decode()) for s, _, b in
                         call(workspace, ("POST", INFER, encode(many), SIMULATED), body=1 << 20, batch=8)]  # fmt: skip
    assert (status, "1 to 8 cases" in text) == (400, True)


def test_numbers_that_a_client_wrote_as_others_are_the_same_ones(workspace):
    """1.0 is true and 1, 0.5 is neither; an infinity in bytes is no number."""
    plain = tensors([{**CASE, "weight": 7}, {**CASE, "express": True, "weight": 9}])
    written = tensors([{**CASE, "express": 0.0, "weight": 7.0}, {**CASE, "express": 1.0, "weight": 9.0}])
    for one in written:
        one["datatype"] = {"express": "BOOL", "weight": "INT64"}.get(one["name"], one["datatype"])
    (_, first), (status, second) = infer(workspace, encode(plain), encode(written))
    assert status == 200
    assert [one["data"] for one in first["outputs"]][2] == [one["data"] for one in second["outputs"]][2]
    for name, value in (("express", 0.5), ("express", 2), ("weight", 1.5)):
        wrong = tensors([CASE])
        for one in wrong:
            if one["name"] == name:
                one |= {"datatype": "BOOL" if name == "express" else "INT64", "data": [value]}
        assert infer(workspace, encode(wrong))[0][0] == 400
    with pytest.raises(InputError, match="finite"):
        _unpack("FP32", struct.pack("<f", float("-inf")), 1)


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"99999999", b"1.5", "²".encode()])
def test_a_wrong_length_of_the_head_is_refused(workspace, value):
    header = [(b"inference-header-content-length", value)]
    ((status, _),) = infer(workspace, encode(tensors(cases(1))), headers=header)
    assert status == 400


@settings(max_examples=200)
@given(st.sampled_from(["BYTES", "FP32", "INT64", "BOOL", "UINT8"]), st.binary(max_size=64), st.integers(0, 8))
def test_no_bytes_are_more_than_they_are(datatype, data, count):
    """Whatever stands there: as many values as were said, or none, or a refusal."""
    try:
        values = _unpack(datatype, data, count)
    except InputError:
        assert datatype == "BYTES"
    else:
        assert datatype == "BYTES" or len(values) in (0, count)
        assert sum(len(value.encode()) + 4 for value in values) == len(data) if datatype == "BYTES" and values else True


def test_a_caller_with_an_id_for_all_is_refused_and_a_deadline_counts(workspace):
    async def run():
        client = Client(workspace, body=1 << 20)
        try:
            body = encode(tensors(cases(1)))
            first = await client.send("POST", INFER, body, [*SIMULATED, (b"idempotency-key", b"x")])
            second = await client.send("POST", INFER, body, [*SIMULATED, (b"retrodict-deadline", b"0.000001")])
            return first[0], second[0]
        finally:
            await client.close()

    assert asyncio.run(run()) == (400, 504)
    assert AT  # the moment of every request here
