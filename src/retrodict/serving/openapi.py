"""What the server answers, as OpenAPI 3.1 and as pages: made of the policies and services in force, when it is asked.

A policy has an operation of its own, with the fields that its model was trained on, so that a client that was generated
from the document sends what the server takes. The pages load nothing from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from retrodict.serving.routes import DECIDING, ROUTES, find_route, serves
from retrodict.serving.versions import names

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["PAGE_HEADERS", "docs_page", "landing_page", "openapi"]

Schema = dict[str, Any]

PAGE_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""A page of ours needs nothing but its own style, whatever stands in the names on it."""

# Words of a request's kinds, as core.kinds has them.
_KINDS: Mapping[str, Schema] = {
    "bool": {"type": ["boolean", "null"]},
    "int": {"type": ["integer", "null"], "format": "int64"},
    "number": {"type": ["number", "null"]},
    "text": {"type": ["string", "null"]},
    "time": {"type": ["string", "null"], "format": "date-time", "description": "ISO 8601 with a zone, 1900 to 2199"},
    "date": {"type": ["string", "null"], "format": "date"},
    "any": {},
}
_SUMMARIES = {
    "/v1/decisions/{policy}": "Decide one case",
    "/v1/models/{model}:score": "What a model that is served without a policy gives",
    "/v1/decisions/{policy}:batch": "Decide many cases, each on its own",
    "/v1/features/{service}": "Features of entities",
    "/v1/features": "Feature services, and what a request has to bring",
    "/v1/events/{table}": "Take events of a table",
    "/v1/policies": "Policies in force, and what a request has to bring",
    "/v1/policies/{policy}": "One policy in force",
    "/v1/status": "Revisions, latencies, lags",
    "/v1/jobs/score": "Decide many cases as a job that is collected later",
    "/v1/jobs/{job}": "A job: how far it is and its answers; DELETE cancels and forgets it",
    "/v1/audit": "Verify the ledger, the log and everything that entries name",
    "/v1/decisions/{decision}": "One decision with everything behind it: rows, model, run, approvals, proof",
    "/v1/decisions/{decision}:replay": "Make a decision again, and compare it bit for bit",
    "/v1/models/{model}:approve": "Approve a version, by somebody else than its author",
    "/v1/models/{model}:reject": "Reject a version, which also takes back an approval",
    "/metrics": "Counters, histograms and gauges for Prometheus",
    "/healthz": "Whether the process is alive",
    "/readyz": "Whether it can answer",
    "/openapi.json": "This document",
    "/docs": "The same as a page",
    "/": "What is served here",
    "/v2": "Open Inference Protocol: what this server is",
    "/v2/health/live": "Open Inference Protocol: whether the process is alive",
    "/v2/health/ready": "Open Inference Protocol: whether it can answer",
    "/v2/repository/index": "Open Inference Protocol: policies in force, as models",
    "/v2/repository/models/{model...}/load": "Open Inference Protocol: not offered, deployments do that",
    "/v2/repository/models/{model...}/unload": "Open Inference Protocol: not offered, deployments do that",
    "/v2/models/{model...}/infer": "Open Inference Protocol: decide the cases of some tensors",
    "/v2/models/{model...}": "Open Inference Protocol: one policy as a model",
}
_FORMS = {
    "decision": {"pattern": "^[0-9A-HJKMNP-TV-Z]{26}$"},
    "model": {"pattern": "^[a-z0-9_]{1,63}@[0-9]{1,9}$", "description": "NAME@VERSION"},
}
_FAILURES = {
    401: "The key is missing, or none that is in force",
    403: "The key is for something else",
    400: "The request breaks a rule; the error names the field, and never repeats its value",
    404: "Nothing of this name is in force",
    405: "The address takes another method",
    408: "The body did not arrive in time",
    409: "The request id was used for another request, or its first call has no answer yet",
    413: "The body is too long",
    415: "The body is compressed",
    429: "Too much is under way; try after Retry-After",
    500: "A fault of the server",
    501: "Not offered; the error says what does it",
    503: "Not ready, or the record cannot be written",
    504: "The caller's deadline has passed",
}
_HEADERS: Mapping[str, Schema] = {
    "Idempotency-Key": {"schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$"},
                        "description": "The same answer to every call that repeats it"},
    "Retrodict-Deadline": {"schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
                           "description": "Milliseconds after which nobody waits for the answer any more"},
    "Retrodict-Priority": {"schema": {"enum": ["normal", "batch"]},
                           "description": "batch is turned away first where there is too much to do"},
    "X-Request-Id": {"schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$"},
                     "description": "What the caller calls it, in logs and traces; it comes back with the answer"},
}  # fmt: skip
_ANSWER_HEADERS: Mapping[str, Schema] = {
    "Retrodict-Served-By": {
        "schema": {"type": "string"},
        "description": "The worker, as its stream of the log is named",
    },
    "Server-Timing": {"schema": {"type": "string"}, "description": "total;dur=MS: from the request's arrival on"},
}


def openapi(app: DecisionApp) -> Schema:
    """OpenAPI 3.1 of an app, with an operation for each policy and feature service in force."""
    paths: dict[str, Schema] = {}
    for method, pattern in ROUTES:
        for path, operation in _operations(app, pattern) if serves(app.part, pattern) else ():
            titles: Schema = {"summary": _SUMMARIES[pattern], "operationId": _operation_id(method, path)}
            scope = find_route(method, pattern)[1]
            if app.callers is not None and scope is not None:
                titles |= {"security": [{"key": []}], "description": f"Needs a key for: {scope}"}
            if scope == "score" and "{" in pattern and path.startswith(DECIDING):
                for response in operation["responses"].values():
                    response["headers"] = _ANSWER_HEADERS
            paths.setdefault(path, {})[method.lower()] = {**titles, **operation}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Retrodict",
            "version": metadata.version("retrodict"),
            "summary": "Decisions with a durable record",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _object({"error": {"type": "string"}}, required=["error"], open_=True)},
            **({} if app.callers is None else {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}),
        },
    }


def _operations(app: DecisionApp, pattern: str) -> Iterator[tuple[str, Schema]]:
    if pattern.startswith(("/v1/decisions/{policy}", "/v1/models/{model}:score")):
        is_batch = pattern.endswith(":batch")
        for name, servant in app.servants.items():
            case, answer = _case(servant.schema.to_dict()), _answer(servant.describe())
            if pattern.startswith("/v1/models/") and servant.policy.policy.decide:
                continue
            if is_batch:
                requests: Schema = {"type": "array", "minItems": 1, "items": _in_many(case)}
                case = _object({"requests": requests}, required=["requests"])
                failure = _object({"status": {"type": "integer"}, "error": {"type": "string"}}, open_=True)
                answer = _object({"answers": {"type": "array", "items": {"anyOf": [answer, failure]}}}, open_=True)
            yield (
                pattern.replace("{policy}", name).replace("{model}", name),
                _asks(case, answer, headers=[*_HEADERS][is_batch:]),
            )
    elif pattern == "/v1/features/{service}":
        for name, service in app.services.items():
            yield (
                pattern.replace("{service}", name),
                _asks(_features(service.describe()["request"]), {"type": "object"}),
            )
    elif pattern == "/v1/events/{table}":
        rows = {"type": "array", "items": {"type": "object"}}
        yield pattern, {**_asks(rows, {"type": "object"}, status=202), "parameters": [_in_path(pattern)]}
    elif pattern == "/v1/jobs/score":
        cases = [_in_many(_case(servant.schema.to_dict())) for servant in app.servants.values()]
        items: Schema = {"type": "array", "minItems": 1, "items": {"anyOf": cases} if cases else {"type": "object"}}
        texts = {"policy": {"type": "string", **({"enum": [*app.servants]} if cases else {})},
                 "callback": {"type": "string"}}  # fmt: skip
        case = _object({**texts, "requests": items}, required=["policy", "requests"])
        yield pattern, _asks(case, {"type": "object"}, status=202, headers=["Idempotency-Key"])
    elif "{model...}" in pattern:
        for name, servant in ((name, app.servants[name]) for name in names(app)):
            is_infer = pattern.endswith("/infer")
            operation = _asks(_tensors(servant.schema.to_dict()), {"type": "object"}) if is_infer else _tells()
            yield pattern.replace("{model...}", name), operation
    elif "{" in pattern:
        asks = _asks(_object({"reason": {"type": "string", "minLength": 1}}, required=["reason"]), {"type": "object"})
        yield pattern, {**(asks if "{model}" in pattern else _tells()), "parameters": [_in_path(pattern)]}
    else:
        kinds = {"/metrics": "text/plain", "/docs": "text/html", "/": "text/html"}
        yield pattern, _tells(kinds.get(pattern, "application/json"))


def _object(properties: Schema, *, required: list[str] | None = None, open_: bool = False) -> Schema:
    rest = {} if open_ else {"additionalProperties": False}
    return {"type": "object", "properties": properties, **({"required": required} if required else {}), **rest}


def _fields(words: Mapping[str, str], *, open_: bool = False) -> Schema:
    return _object({name: _KINDS.get(word, {}) for name, word in words.items()}, required=list(words), open_=open_)


def _case(request: Mapping[str, Mapping[str, str]]) -> Schema:
    properties = {
        "entities": _fields(request["entities"], open_=True), "context": _fields(request["context"], open_=True),
        "key": {"type": ["string", "null"], "description": "Row of the label's table; outcomes join on it"},
        "explain": {"type": "boolean", "default": False},
    }  # fmt: skip
    return _object(properties, required=["entities", *(["context"] if request["context"] else [])])


def _in_many(case: Schema) -> Schema:
    return {**case, "properties": {**case["properties"], "request_id": {"type": "string"}}}


def _tensors(request: Mapping[str, Mapping[str, str]]) -> Schema:
    """Body of an inference: each value of a request is a tensor with a value for each case; one case first."""
    names: Schema = {"enum": [*request["entities"], *request["context"]]}
    from retrodict.serving.open_inference import DATATYPES, NUMBERS  # whose addresses come behind this page's

    kinds: Schema = {"enum": ["BYTES", *NUMBERS]}
    shape: Schema = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
    parts = {"name": names, "shape": shape, "datatype": kinds, "data": {"type": "array"},
             "parameters": {"type": "object"}}  # fmt: skip
    inputs = {"type": "array", "items": _object(parts, required=["name", "shape", "datatype"], open_=True)}
    words = {**request["entities"], **request["context"]}.items()
    one = [_object({"name": {"const": name}, "shape": {"const": [1]},
                    "datatype": {"const": DATATYPES.get(word, "BYTES")},
                    "data": {"type": "array", "minItems": 1, "maxItems": 1, "items": _KINDS.get(word, {})}},
                   required=["name", "shape", "datatype", "data"]) for name, word in words]  # fmt: skip
    exact = {"type": "array", "prefixItems": one, "minItems": len(one), "maxItems": len(one)}
    rest: Schema = {"id": {"type": "string"}, "parameters": {"type": "object"}}
    return {"anyOf": [_object({"inputs": kind, **rest}, required=["inputs"], open_=True) for kind in (exact, inputs)]}


def _features(words: Mapping[str, str]) -> Schema:
    entities = {"type": "array", "items": _object({n: _KINDS.get(word, {}) for n, word in words.items()})}
    return _object({"entities": entities, "context": {"type": "object"}}, required=["entities"])


def _answer(description: Mapping[str, Any]) -> Schema:
    properties: Schema = {
        "decision_id": {"type": "string"},
        **({"decision": {"enum": description["decisions"]}} if description["decisions"] else {}),
        "score": {"type": ["number", "null"]}, "outputs": {"type": "object"},
        "model": {"type": ["string", "null"]}, "policy": {"type": "string"},
        "reasons": {"type": "array", "items": {"type": "string"}}, "fallback": {"type": "string"},
        "views": {"type": "object", "description": "Status and age of views that were not simply read"},
        "variants": {"type": "object", "description": "Experiment to variant, of those that take the unit in"},
        "warnings": {"type": "array", "items": {"type": "string"},
                     "description": "Values of the context that nothing reads"},
        "recorded": {"enum": ["async", "no"], "description": "Where its record is not durable yet, or there is none"},
    }  # fmt: skip
    return _object(properties, required=[name for name in ("decision_id", "decision", "policy") if name in properties],
                   open_=True)  # fmt: skip


def _in_path(pattern: str) -> Schema:
    name = pattern.partition("{")[2].partition("}")[0]
    schema = {"type": "string", "minLength": 1, **_FORMS.get(name, {})}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _content(schema: Schema, kind: str = "application/json") -> Schema:
    return {"content": {kind: {"schema": schema}}}


def _asks(body: Schema, answer: Schema, *, status: int = 200, headers: list[str] | None = None) -> Schema:
    operation: Schema = {
        "requestBody": {"required": True, **_content(body)},
        "responses": _responses(answer, status=status),
    }
    if headers:
        operation["parameters"] = [{"name": name, "in": "header", "required": False, **_HEADERS[name]}
                                   for name in headers]  # fmt: skip
    return operation


def _tells(kind: str = "application/json") -> Schema:
    answer: Schema = {"type": ["object", "array"]} if kind == "application/json" else {"type": "string"}
    return {"responses": _responses(answer, kind)}


def _responses(answer: Schema, kind: str = "application/json", *, status: int = 200) -> Schema:
    error = _content({"$ref": "#/components/schemas/Error"})
    failures = {str(code): {"description": text, **error} for code, text in _FAILURES.items()}
    return {str(status): {"description": "The answer", **_content(answer, kind)}, **failures}


def _operation_id(method: str, path: str) -> str:
    return "_".join([method.lower(), *("".join(c if c.isalnum() else " " for c in path).split() or ["root"])])


# pages --------------------------------------------------------------------------------------------------------------


def landing_page(app: DecisionApp, name: str) -> str:
    """What is served here, and where to read on."""
    from retrodict.core.display import Facts, Grid
    from retrodict.pages import document

    described = {policy: servant.describe() for policy, servant in app.servants.items()}
    rows = [(policy, facts["model"], facts["policy"]) for policy, facts in described.items()]
    return document(name, [
        "Decisions, each with a durable record before its answer.",
        Grid(("policy", "model", "in force"), rows) if rows else "No policy is deployed.",
        Facts({"what can be asked": "/docs", "OpenAPI 3.1": "/openapi.json", "state": "/v1/status",
               "for Prometheus": "/metrics"}),
    ])  # fmt: skip


def docs_page(app: DecisionApp, name: str) -> str:
    """Every operation: what it takes and gives, and a call to copy."""
    from retrodict.core.display import Grid
    from retrodict.pages import Section, document

    sections = []
    for path, methods in openapi(app)["paths"].items():
        for method, operation in methods.items():
            blocks: list[Any] = [operation["summary"] + "."]
            if body := operation.get("requestBody"):
                schema = body["content"]["application/json"]["schema"]
                blocks.append(Grid(("field", "kind", "must be there"), [*_rows(schema)]))
                key = "-H 'Authorization: Bearer KEY' " if "security" in operation else ""
                blocks.append(f"curl -s http://HOST:PORT{path} {key}-d '{json.dumps(_example(schema))}'")
            answer = next(iter(operation["responses"].values()))["content"].get("application/json", {"schema": {}})
            if rows := [*_rows(answer["schema"])]:
                blocks.append(Grid(("field of the answer", "kind", "always there"), rows))
            if headers := [
                (p["name"], p["description"]) for p in operation.get("parameters", ()) if p["in"] == "header"
            ]:
                blocks.append(Grid(("header", "means"), headers))
            sections.append(Section(f"{method.upper()} {path}", blocks))
    statuses = Grid(("status", "means"), [(str(code), text) for code, text in _FAILURES.items()])
    return document(f"{name}: what can be asked", [*sections, Section("When it is not answered", [statuses])])


def _rows(schema: Schema, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    schema = schema.get("anyOf", [schema])[-1]
    for name, field in schema.get("properties", {}).items():
        kind, inner = field.get("type", "any"), field.get("items", field)
        words = kind if isinstance(kind, str) else " or ".join(kind)
        yield f"{prefix}{name}", field.get("format", words), "yes" if name in schema.get("required", ()) else ""
        yield from _rows(inner, f"{prefix}{name}{'[]' if inner is not field else ''}.")


def _example(schema: Schema) -> Any:
    if "properties" in schema:
        names = schema.get("required") or list(schema["properties"])
        return {name: _example(schema["properties"][name]) for name in names}
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum", schema.get("anyOf")):
        return choices[0] if "enum" in schema else _example(choices[0])
    kinds = schema.get("type", "null")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "array":
        return [_example(item) for item in schema.get("prefixItems", [schema.get("items", {})])]
    text = {"date-time": "2026-01-31T12:00:00Z", "date": "2026-01-31"}.get(schema.get("format", ""), "text")
    return {"boolean": False, "integer": 1, "number": 0.5, "string": text, "object": {}}.get(kind)
