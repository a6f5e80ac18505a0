"""The Open Inference Protocol, version 2, over HTTP: policies as models, for clients that speak it already.

A policy in force, or a model that is served without one, is a model, its revision the version. Inputs are the entities
and values that a request has to bring, a tensor of one value per case; outputs are the decision, its id, and the score
or the outputs of the model. Every case is a decision like any other: the same path, its own record. Where one case is
wrong nothing is decided, since the protocol has no answer that is an error for one row alone.

https://github.com/open-inference/open-inference-protocol (inference_rest, binary tensor extension)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, NotFoundError
from retrodict.decisions.requests import DecisionRequest, decode_body
from retrodict.decisions.servant import Servant
from retrodict.serving.about import readiness
from retrodict.serving.batch import BatchItem
from retrodict.serving.http_answer import HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import ID_HEADER, HttpRequest, read_header
from retrodict.serving.routes import route
from retrodict.serving.telemetry import revision_label
from retrodict.serving.versions import names, of_version, servant_named, warm

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["DATATYPES", "HEAD_LENGTH", "NUMBERS", "infer", "pack_texts"]

_PATH = re.compile(r"(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(/(?P<part>ready|config|stats))?").fullmatch
HEAD_LENGTH = b"inference-header-content-length"
"""Header that says how many bytes of a body are JSON, where tensors in bytes follow."""
DATATYPES = {"bool": "BOOL", "int": "INT64", "number": "FP64"}
"""Kinds of a request's values, and the datatypes they are described with; a time is text, ISO 8601 with a zone."""
_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_WHOLE = {
    f"{prefix}INT{8 * size}": f"<{kind}{size}" for prefix, kind in (("", "i"), ("U", "u")) for size in (1, 2, 4, 8)
}
NUMBERS = {"BOOL": "|b1", **_WHOLE, **_FLOATS}
"""Datatypes that are numbers, as NumPy calls them."""
# Durations of the protocol, and the stages of a decision that they are.
_STAGES = {"success": ("total",), "compute_input": ("check", "features"), "compute_infer": ("score",),
           "compute_output": ("rules", "reasons")}  # fmt: skip
_TYPES: Mapping[str, tuple[type, ...]] = {"BOOL": (bool,), "BYTES": (str,)}

_FAULTY = 10  # wrong cases that are told, and looked for
_EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
_NOT_OFFERED = {"classification", "shared_memory_region"}

_json = msgspec.json.Encoder()


class Tensor(msgspec.Struct):
    """An input: one value per case."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class Asked(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """Body of ``POST /v2/models/{model}/infer``."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Asked] = []
    parameters: dict[str, Any] = {}


@route("GET", "/v2")
async def _server(_app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    about = {"name": "retrodict", "version": metadata.version("retrodict")}
    return HttpAnswer(_json.encode({**about, "extensions": _EXTENSIONS}))


@route("GET", "/v2/health/live", None)
async def _live(_app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    return HttpAnswer(b'{"live":true}')


@route("GET", "/v2/health/ready", None)
async def _ready(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    await readiness(app, request)
    return HttpAnswer(b'{"ready":true}')


@route("POST", "/v2/repository/index", "read")
async def _index(app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    return HttpAnswer(_json.encode([{"name": name, "version": _version(servant), "state": "READY", "reason": ""}
                                    for name in names(app) for servant in warm(app, name)]))  # fmt: skip


@route("POST", "/v2/repository/models/{model...}/unload")
@route("POST", "/v2/repository/models/{model...}/load")
async def _load(_app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    text = "models are policies, which a server follows: deploy one with: retrodict deploy POLICY --reason WHY"
    raise RefusedRequestError(501, text)


@route("GET", "/v2/models/{model...}")
async def _describe(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    """A model, whether it is ready, its configuration, or what was counted; that of all at ``stats``."""
    if request.parameter == "stats" and "stats" not in app.servants:
        every = [(name, servant) for name in names(app) for servant in warm(app, name)]
        return HttpAnswer(_json.encode({"model_stats": _statistics(app, every)}))
    name, servants, part = _find(app, request.parameter)
    versions, servant = [_version(one) for one in servants], servants[0]
    if part == "ready":
        return HttpAnswer(_json.encode({"name": name, "ready": True}))
    if part == "stats":
        return HttpAnswer(_json.encode({"model_stats": _statistics(app, [(name, one) for one in servants])}))
    schema = servant.schema.to_dict()
    kinds = {one: DATATYPES.get(kind, "BYTES") for one, kind in {**schema["entities"], **schema["context"]}.items()}
    inputs, outputs = ([{"name": one, **_typed(kind, config=part == "config")} for one, kind in side.items()]
                       for side in (kinds, _outputs(app, servant)))  # fmt: skip
    if part == "config":
        policy = {"specific": {"versions": [int(version) for version in versions]}}
        config = {"max_batch_size": app.limits.batch, "version_policy": policy, "input": inputs, "output": outputs}
        return HttpAnswer(_json.encode({"name": name, "platform": "retrodict", **config}))
    about = {"name": name, "versions": versions, "platform": "retrodict"}
    return HttpAnswer(_json.encode({**about, "inputs": inputs, "outputs": outputs}))


def _typed(kind: str, *, config: bool) -> dict[str, Any]:
    """Datatype and shape of a tensor; those of a configuration are Triton's, without the number of cases."""
    if config:
        return {"data_type": "TYPE_STRING" if kind == "BYTES" else f"TYPE_{kind}", "dims": []}
    return {"datatype": kind, "shape": [-1]}


def _statistics(app: DecisionApp, servants: Iterable[tuple[str, Servant]]) -> list[dict[str, Any]]:
    """What was counted since the server started; what nobody measures is not there."""
    telemetry = app.telemetry if app.colleagues is None else app.colleagues.sums()[0]
    models = []
    for name, servant in servants:
        label = revision_label(name, servant.revision.revision)
        requests, cases, failures = (telemetry.counters.get((f"revision_{what}_total", label), 0)
                                     for what in ("requests", "cases", "failures"))  # fmt: skip
        spent = {key: sum(telemetry.counters.get(("revision_microseconds_total", f'{label},stage="{stage}"'), 0)
                          for stage in stages) for key, stages in _STAGES.items()}  # fmt: skip
        times = {key: {"count": requests, "ns": micros * 1_000} for key, micros in spent.items()}
        counts = {"inference_count": cases, "execution_count": requests}
        models.append({"name": name, "version": _version(servant), **counts,
                       "inference_stats": {**times, "fail": {"count": failures}}})  # fmt: skip
    return models


@route("POST", "/v2/models/{model...}/infer", "score")
async def infer(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    """Decide the cases of some tensors."""
    body = await request.read_body(app.limits.batch_body)
    name, (servant, *_), part = _find(app, request.parameter)
    if part is not None:
        raise _unknown()
    request.parameter, request.servant = name, servant
    if read_header(request.scope, ID_HEADER, "Idempotency-Key") is not None:
        raise InputError("a request id must be for one decision", where="header Idempotency-Key", got="one for all",
                         remedy="Leave it out, or use POST /v1/decisions/{policy}:batch")  # fmt: skip
    form, rows = _read(body, _header_size(request, body), app.limits.batch)
    kinds = _outputs(app, servant)
    every = [one.parameters for one in form.inputs] + [one.parameters for one in form.outputs]
    if any(_NOT_OFFERED & parameters.keys() for parameters in every):
        raise InputError("tensors must come and go as they are", where="body, field 'parameters'",
                         got="classification or shared memory", remedy="Leave it out")  # fmt: skip
    for output in form.outputs:
        if output.name not in kinds:
            raise InputError("an output must be one of the model's", where="body, field 'outputs'", got="another name",
                             remedy=f"Ask for some of {', '.join(kinds)}")  # fmt: skip
    missing = [name for name in (*servant.schema.entities, *servant.schema.context) if name not in rows[0]]
    if missing:
        remedy = "Send it as a tensor, with null where a case has no value; GET /v2/models/{model} has their datatypes"
        raise InputError("every input of the model must be there", where="body, field 'inputs'",
                         got=f"no {', '.join(missing)}", remedy=remedy)  # fmt: skip
    explain = form.parameters.get("explain") is True
    questions = [_question(servant, row, explain=explain) for row in rows]
    _check(servant, questions)
    items = [BatchItem(question, body=_json.encode(row)) for question, row in zip(questions, rows, strict=True)]
    async with app.turn(request):
        answers = await app.decide_items(request, servant, items)
    for number, one in enumerate(answers):
        if one["status"] != 200:
            text = f"case {number} (from 0): {one['error']} Others may have been decided, and are in the log."
            return RefusedRequestError(one["status"], text).answer  # its case is counted
    return _answer(form, kinds, answers, name, _version(servant))


def _check(servant: Servant, questions: Sequence[DecisionRequest]) -> None:
    """Refuse all cases where one is wrong, with all that is wrong with the first few."""
    faults: dict[int, str] = {}
    for number, question in enumerate(questions):
        try:
            servant.schema.check(question)
        except InputError as error:
            faults[number] = str(error).rstrip(".")
        if len(faults) == _FAULTY:
            break
    if faults:
        where = f"case {', '.join(map(str, faults))} (from 0) of {len(questions)}"
        raise InputError("every case must be right", where=where, got="; ".join(faults.values()),
                         remedy="Correct them: none was decided, and later ones may be wrong, too")  # fmt: skip


def _version(servant: Servant) -> str:
    return str(servant.revision.revision)


def _find(app: DecisionApp, path: str) -> tuple[str, list[Servant], str | None]:
    """Name of a model, its servants of the version that is asked for, or all, and what of it is asked."""
    match = _PATH(path)
    if match is None:
        raise _unknown()
    servant_named(app, match["name"])
    servants = of_version(app, match["name"], match["version"], where="address")
    return match["name"], servants, match["part"]


def _unknown() -> NotFoundError:
    return NotFoundError("the address must exist", where="address", got="another one",
                         remedy="See GET /v2/models/{model}, and the same of …/versions/{version}")  # fmt: skip


def _outputs(app: DecisionApp, servant: Servant) -> dict[str, str]:
    """Names and datatypes of what comes back."""
    decided = {"decision": "BYTES"} if servant.policy.policy.decide else {}
    return {**decided, **({"decision_id": "BYTES"} if app.records else {}), **dict.fromkeys(servant.outputs, "FP64")}


def _question(servant: Servant, row: Mapping[str, Any], *, explain: bool) -> DecisionRequest:
    entities = {name: row[name] for name in servant.schema.entities if name in row}
    context = {name: value for name, value in row.items() if name not in entities}
    return DecisionRequest(entities, context, explain=explain)


# tensors ------------------------------------------------------------------------------------------------------


def _header_size(request: HttpRequest, body: bytes) -> int:
    text = next((value for name, value in request.scope["headers"] if name == HEAD_LENGTH), None)
    if text is None:
        return len(body)
    if not text.isdigit() or int(text) > len(body):
        raise InputError("it must be the bytes of the JSON before the tensors",
                         where="header Inference-Header-Content-Length", got="another number or none",
                         remedy="Send its length")  # fmt: skip
    return int(text)


def _read(body: bytes, size: int, longest: int) -> tuple[InferRequest, list[dict[str, Any]]]:
    """What is asked, and the cases as dicts."""
    form = decode_body(body[:size], InferRequest, see="GET /v2/models/{model}")
    tensors, columns = memoryview(body)[size:], dict[str, list[Any]]()
    for tensor in form.inputs:
        where = "body, field 'inputs'"
        if tensor.name in columns:
            raise InputError("an input must stand once", where=where, got="one that stands twice",
                             remedy="Send one of them")  # fmt: skip
        count = math.prod(tensor.shape) if tensor.shape and min(tensor.shape) >= 0 else -1
        if tensor.datatype not in NUMBERS and tensor.datatype != "BYTES":
            raise InputError("a datatype must be one that there is", where=where, got="another one",
                             remedy=f"Send BYTES or one of {', '.join(NUMBERS)}")  # fmt: skip
        nbytes = tensor.parameters.get("binary_data_size")
        if nbytes is None:
            values = _listed(tensor)
        elif isinstance(nbytes, int) and 0 <= nbytes <= len(tensors):
            values, tensors = _unpack(tensor.datatype, bytes(tensors[:nbytes]), count), tensors[nbytes:]
        else:
            raise InputError("a tensor must have as many bytes as it says", where=where, got="more or less",
                             remedy="Send binary_data_size and that many bytes")  # fmt: skip
        if len(values) != count or not 0 < count <= longest or max(tensor.shape) != count:
            raise InputError(f"an input must have one value for each of 1 to {longest} cases, and be of shape [cases]",
                             where=where, got=f"shape {tensor.shape[:4]}, {len(values)} values",
                             remedy="Send one tensor per input")  # fmt: skip
        columns[tensor.name] = values
    if tensors or len({len(values) for values in columns.values()}) != 1:
        raise InputError("inputs must be there, of as many cases each, and nothing behind them", where="body",
                         got=f"{len(columns)} inputs, {len(tensors)} bytes more", remedy="Send them alike")  # fmt: skip
    return form, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _listed(tensor: Tensor) -> list[Any]:
    """Values in JSON, flat; null is a value that is missing."""
    values, depth = tensor.data if tensor.data is not None else [], len(tensor.shape)
    while depth > 1 and any(isinstance(value, list) for value in values):
        values = [item for value in values for item in (value if isinstance(value, list) else [value])]
        depth -= 1
    if tensor.datatype == "BOOL":  # one of the clients makes 1.0 of true, and of 1
        values = [value == 1 if isinstance(value, int | float) and value in (0, 1) else value for value in values]
    elif tensor.datatype in _WHOLE:
        values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    fits: tuple[type, ...] = _TYPES.get(tensor.datatype, (int, float) if tensor.datatype in _FLOATS else (int,))
    for value in values:
        if value is not None and (not isinstance(value, fits) or (isinstance(value, bool) and bool not in fits)):
            raise InputError("values must be of the tensor's datatype", where="body, field 'inputs'",
                             got=type(value).__name__, remedy="Correct the datatype or the value")  # fmt: skip
    return values


def _unpack(datatype: str, data: bytes, count: int) -> list[Any]:
    """Values in bytes; NaN is a value that is missing."""
    if datatype != "BYTES":
        kind = np.dtype(NUMBERS[datatype])
        if len(data) != kind.itemsize * count:
            return []
        values = np.frombuffer(data, kind)
        if datatype in _FLOATS and np.isinf(values).any():
            raise InputError("a number must be finite", where="body, field 'inputs'", got="an infinity",
                             remedy="Send a number, or NaN for a value that is missing")  # fmt: skip
        return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124
    texts, at = [], 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            break
        try:
            texts.append(data[at + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise InputError("text must be UTF-8", where="body, a tensor of BYTES", got="other bytes",
                             remedy="Encode it so") from error  # fmt: skip
        at = end
    return texts if at == len(data) else []


def _answer(
    form: InferRequest, kinds: Mapping[str, str], answers: Sequence[Mapping[str, Any]], name: str, version: str
) -> HttpAnswer:
    outputs, tensors = list[dict[str, Any]](), list[bytes]()
    every = form.parameters.get("binary_data_output") is True
    for one in form.outputs or [Asked(output) for output in kinds]:
        values = [_value(answer, one.name) for answer in answers]
        output: dict[str, Any] = {"name": one.name, "datatype": kinds[one.name], "shape": [len(values)]}
        if one.parameters.get("binary_data", every) is True:
            tensors.append(_packed(kinds[one.name], values))
            output["parameters"] = {"binary_data_size": len(tensors[-1])}
        else:
            output["data"] = values
        outputs.append(output)
    body: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": outputs}
    reasons = [answer.get("reasons", []) for answer in answers]
    parameters = {"reasons": reasons} if any(reasons) else {}
    if warnings := next((answer["warnings"] for answer in answers if "warnings" in answer), None):
        parameters["warnings"] = warnings  # every case has the same inputs
    body |= ({} if form.id is None else {"id": form.id}) | ({"parameters": parameters} if parameters else {})
    head = _json.encode(body)
    if not tensors:
        return HttpAnswer(head)
    size = ((HEAD_LENGTH, str(len(head)).encode()),)
    return HttpAnswer(b"".join([head, *tensors]), 200, size, b"application/octet-stream")


def _value(answer: Mapping[str, Any], name: str) -> Any:
    if name in ("decision", "decision_id"):
        return answer[name]
    return answer["outputs"].get(name) if "outputs" in answer else answer.get(name)


def pack_texts(texts: Iterable[bytes]) -> bytes:
    """Values of BYTES in one piece, each behind its length."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _packed(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        return pack_texts(value.encode() for value in values)
    array: NDArray[np.float64] = np.array([np.nan if value is None else value for value in values], "<f8")
    return array.tobytes()
