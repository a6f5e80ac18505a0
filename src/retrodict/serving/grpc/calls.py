"""What each method stands for: a request over HTTP, and the message that becomes of its answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np
from google.protobuf import json_format

from retrodict.core.errors import InputError
from retrodict.serving.grpc.messages import methods
from retrodict.serving.open_inference import HEAD_LENGTH, NUMBERS, pack_texts

__all__ = ["METHODS", "Method", "Headers", "Reply"]

_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
# Where the values of a tensor stand, by datatype; those of FP16 come in bytes only.
_CONTENTS = {
    "BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents", "BYTES": "bytes_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    **{f"{sign}INT{bits}": f"{sign.lower()}int_contents" for sign in ("", "U") for bits in (8, 16, 32)},
}  # fmt: skip

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Reply:
    """Answer over HTTP."""

    status: int = 500
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class Method(NamedTuple):
    """One method.

    Attributes
    ----------
    request, answer : class
        Of its messages.
    path : callable
        Address for a request.
    fill : callable
        Fills an answer, by the request and the reply.
    body : callable, optional
        Body for a request, given the headers, to which it may add one; None: it is a GET.
    accepts : tuple of int
        Statuses of a reply that are answers, not errors.
    """

    request: Any
    answer: Any
    path: Callable[[Any], str]
    fill: Callable[[Any, Any, Reply], None]
    body: Callable[[Any, Headers], bytes] | None = None
    accepts: tuple[int, ...] = (200,)


def _at(path: str) -> Callable[[Any], str]:
    return lambda _: path


def _model(action: str = "") -> Callable[[Any], str]:
    def path(message: Any) -> str:
        return _address(message.name, message.version, action)

    return path


def _address(name: str, version: str, action: str) -> str:
    return f"/v2/models/{_part(name)}{f'/versions/{_part(version)}' if version else ''}{action}"


def _part(name: str) -> str:
    """Name as a part of an address; a bare ``%``, which no name becomes, where it is none."""
    return quote(name, safe="") or "%"


def _empty(_message: Any, _headers: Headers) -> bytes:
    return b"{}"


def _nothing(_answer: Any, _message: Any, _reply: Reply) -> None:
    """Leave an answer that has no fields as it is."""


def _said(name: str) -> Callable[[Any, Any, Reply], None]:
    """Whether the status was a good one."""

    def fill(answer: Any, _: Any, reply: Reply) -> None:
        setattr(answer, name, reply.status == 200)

    return fill


def _as_json(under: str = "") -> Callable[[Any, Any, Reply], None]:
    """Read an answer whose fields are those of the JSON, or stand under one of the message's."""

    def fill(answer: Any, _: Any, reply: Reply) -> None:
        content = _decode(reply.body)
        json_format.ParseDict({under: content} if under else content, answer, ignore_unknown_fields=True)

    return fill


# tensors ------------------------------------------------------------------------------------------------------


def _tensors_at(message: Any) -> str:
    return _address(message.model_name, message.model_version, "/infer")


def _write_tensors(message: Any, headers: Headers) -> bytes:
    """Tensors as a body: the values of all of them in bytes behind the head, whichever way they came."""
    raw = message.raw_input_contents
    if raw and (len(raw) != len(message.inputs) or any(one.HasField("contents") for one in message.inputs)):
        raise InputError("raw contents must be there for every input, and then no other contents",
                         where="field 'raw_input_contents'", got=f"{len(raw)} for {len(message.inputs)} inputs",
                         remedy="Send one or the other")  # fmt: skip
    data = list(raw) or [_contents(one) for one in message.inputs]
    inputs = [
        {"name": one.name, "datatype": one.datatype, "shape": list(one.shape),
         "parameters": {**_parameters(one), "binary_data_size": len(values)}}
        for one, values in zip(message.inputs, data, strict=True)
    ]  # fmt: skip
    outputs = [{"name": one.name, "parameters": {**_parameters(one), "binary_data": bool(raw)}}
               for one in message.outputs]  # fmt: skip
    head = _encode({"id": message.id or None, "inputs": inputs, "outputs": outputs,
                    "parameters": {**_parameters(message), "binary_data_output": bool(raw)}})  # fmt: skip
    headers.append((HEAD_LENGTH, str(len(head)).encode()))
    return b"".join([head, *data])


def _parameters(message: Any) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
            for name, value in message.parameters.items()}  # fmt: skip


def _contents(tensor: Any) -> bytes:
    name = _CONTENTS.get(tensor.datatype)
    if [one.name for one, _ in tensor.contents.ListFields()] not in ([], [name]):
        raise InputError("values must stand in the field of their datatype", where="field 'contents'",
                         got="another one", remedy=f"Send {name or 'raw_input_contents'}")  # fmt: skip
    if name is None:
        return b""
    values = getattr(tensor.contents, name)
    if tensor.datatype == "BYTES":
        return pack_texts(values)
    try:
        return np.array(list(values), NUMBERS[tensor.datatype]).tobytes()
    except OverflowError as error:
        raise InputError("values must be of the tensor's datatype", where="field 'contents'",
                         got="one beyond its range", remedy="Correct the datatype or the value") from error  # fmt: skip


def _read_piece(answer: Any, message: Any, reply: Reply) -> None:
    _read_tensors(answer.infer_response, message, reply)


def _read_tensors(answer: Any, _: Any, reply: Reply) -> None:
    size = int(reply.headers.get(HEAD_LENGTH, len(reply.body)))
    head, data = _decode(reply.body[:size]), reply.body[size:]
    answer.model_name, answer.model_version, answer.id = head["model_name"], head["model_version"], head.get("id", "")
    for name, lists in head.get("parameters", {}).items():  # which have no lists here
        answer.parameters[name].string_param = _encode(lists).decode()
    for one in head["outputs"]:
        output = answer.outputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        if "parameters" in one:
            end = one["parameters"]["binary_data_size"]
            answer.raw_output_contents.append(data[:end])
            data = data[end:]
        else:
            values = getattr(output.contents, _CONTENTS[one["datatype"]])
            texts = one["datatype"] == "BYTES"
            values.extend(v.encode() if texts else math.nan if v is None else v for v in one["data"])


# decisions and features ---------------------------------------------------------------------------------------


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict[str, Any]()
    for name, value in values.items():
        kind = value.WhichOneof("kind")
        plain[name] = None if kind is None else getattr(value, kind)  # NaN is null in JSON
        if kind == "number" and math.isinf(plain[name]):
            raise InputError("a number must be finite", where="message", got="an infinity",
                             remedy="Send a number, or a value in which nothing is set")  # fmt: skip
    return plain


def _write_case(message: Any, _: Headers) -> bytes:
    case = {"entities": _values(message.entities), "context": _values(message.context), "explain": message.explain}
    return _encode({**case, "key": message.key if message.HasField("key") else None})


def _read_decision(answer: Any, _: Any, reply: Reply) -> None:
    content = _decode(reply.body)
    views, outputs, variants = (content.pop(name, {}) for name in ("views", "outputs", "variants"))
    for name in ("reasons", "warnings"):
        getattr(answer, name).extend(content.pop(name, ()))
    for name, value in content.items():
        if value is not None:
            setattr(answer, name, value)
    answer.outputs.update(outputs)
    answer.variants.update(variants)
    answer.replayed = reply.headers.get(b"idempotency-replayed") == b"true"
    _put_views(answer, views)


def _write_entities(message: Any, _: Headers) -> bytes:
    return _encode({"entities": [_values(one.values) for one in message.entities], "context": _values(message.context)})


def _read_features(answer: Any, _: Any, reply: Reply) -> None:
    content = _decode(reply.body)
    answer.service, answer.version, answer.at = content["service"], str(content["version"]), content["at"]
    for name, lists in content["features"].items():
        feature = answer.features[name]
        feature.statuses.extend(lists["statuses"])
        for value in lists["values"]:
            one = feature.values.add()
            if value is not None:
                setattr(one, _KINDS[type(value)], value)
    _put_views(answer, content["views"])


_KINDS: Mapping[type, str] = {str: "text", bool: "flag", int: "integer", float: "number"}


def _put_views(answer: Any, views: Mapping[str, Mapping[str, Any]]) -> None:
    for name, view in views.items():
        one = answer.views[name]
        one.status, one.version = view["status"], str(view.get("version", ""))
        if view["age_s"] is not None:
            one.age_s = view["age_s"]


def _load(action: str) -> Callable[[Any], str]:
    return lambda message: f"/v2/repository/models/{_part(message.model_name)}/{action}"


_Form = tuple[Any, ...]
_FORMS: Mapping[str, _Form] = {
    "ServerLive": (_at("/v2/health/live"), _said("live")),
    "ServerReady": (_at("/v2/health/ready"), _said("ready"), None, (200, 503)),
    "ModelReady": (_model("/ready"), _said("ready"), None, (200, 404)),
    "ServerMetadata": (_at("/v2"), _as_json()),
    "ModelMetadata": (_model(), _as_json()),
    "ModelConfig": (_model("/config"), _as_json("config")),
    "ModelStatistics": (
        lambda message: _model("/stats")(message) if message.name else "/v2/models/stats", _as_json(),
    ),
    "ModelInfer": (_tensors_at, _read_tensors, _write_tensors),
    "ModelStreamInfer": (_tensors_at, _read_piece, _write_tensors),
    "RepositoryIndex": (_at("/v2/repository/index"), _as_json("models"), _empty),
    "RepositoryModelLoad": (_load("load"), _nothing, _empty),
    "RepositoryModelUnload": (_load("unload"), _nothing, _empty),
    "Decide": (lambda message: f"/v1/decisions/{_part(message.policy)}", _read_decision, _write_case),
    "Get": (lambda message: f"/v1/features/{_part(message.service)}", _read_features, _write_entities),
}  # fmt: skip

METHODS = {path: Method(request, answer, *_FORMS[name]) for path, name, request, answer in methods()}
"""Every method by its path."""
