"""The document that describes the server, held to what the server does."""

from __future__ import annotations

import json
import os
import re
import subprocess
from http.client import HTTPConnection
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tests.serving.process import Server
from tests.serving.project import make_project, parcels
from tests.serving.test_app import call

from retrodict import Project
from retrodict.serving.openapi import _example
from retrodict.serving.routes import ROUTES, serves
from retrodict.workspace import Workspace


@pytest.fixture
def workspace(deployed):
    with Workspace(deployed, actor="ana") as opened:
        yield opened


@pytest.fixture
def document(workspace):
    ((status, headers, body),) = call(workspace, ("GET", "/openapi.json"))
    assert (status, headers[b"content-type"]) == (200, b"application/json")
    return json.loads(body)


def test_it_is_a_valid_document_of_every_address(document):
    """By the specification's own schema; each route is there, a policy by its name."""
    validate(document)
    paths = {path for path, methods in document["paths"].items() for _ in methods}
    named = [pattern.replace("{model...}", "promise") for _, pattern in ROUTES if serves(None, pattern)]
    expected = {one.replace("{policy}", "promise") if "decisions" in one else one for one in named}
    absent = "/v1/models/{model}:score"  # of models without a policy, of which none is in force
    assert paths == {path for path in expected if "{service}" not in path and path != absent}
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len({*names}) == len(names)


@pytest.mark.parametrize("action", ["", ":batch"])
def test_what_the_document_allows_is_answered_as_it_says(workspace, document, action):
    """Its own example, a real case, and a case of nulls are answered 200, in the form that the document gives."""
    operation = document["paths"][f"/v1/decisions/promise{action}"]["post"]
    asked, answered = (part["content"]["application/json"]["schema"]
                       for part in (operation["requestBody"], operation["responses"]["200"]))  # fmt: skip
    body = _example(asked)
    case = body["requests"][0] if action else body
    real = {name: parcels().column(name)[5].as_py() for name in case["context"] if name in parcels().column_names}
    real = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in real.items()}
    nulls = {part: dict.fromkeys(case[part]) for part in ("entities", "context")}
    for one in (case, {**case, "context": {**case["context"], **real}}, {**case, **nulls}):
        sent = {"requests": [one]} if action else one
        Draft202012Validator(asked).validate(sent)
        ((status, _, answer),) = call(workspace, ("POST", f"/v1/decisions/promise{action}", json.dumps(sent).encode()))
        assert status == 200
        Draft202012Validator(answered).validate(json.loads(answer))


def test_what_the_document_forbids_is_refused(workspace, document):
    """Each field left out, of another kind, or beside one that is unknown: 400, with the error that is described."""
    schema = document["paths"]["/v1/decisions/promise"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    case, validator = _example(schema), Draft202012Validator(schema)
    wrong = [{**case, "more": 1}, {**case, "explain": "yes"}, {**case, "key": 5}]
    for part in ("entities", "context"):
        for name in case[part]:
            wrong.append({**case, part: {k: v for k, v in case[part].items() if k != name}})
            wrong.append({**case, part: {**case[part], name: {"nested": []}}})
    error = Draft202012Validator(document["components"]["schemas"]["Error"])
    for body in wrong:
        assert not validator.is_valid(body)
        ((status, _, answer),) = call(workspace, ("POST", "/v1/decisions/promise", json.dumps(body).encode()))
        assert status == 400
        error.validate(json.loads(answer))


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_the_pages_load_nothing(workspace, path):
    """No script, no address of another host; the policy in force stands on them."""
    ((status, headers, body),) = call(workspace, ("GET", path))
    page = body.decode()
    assert status == 200
    assert headers[b"content-security-policy"].startswith(b"default-src 'none'")
    assert "promise" in page
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?:https?:)?//", page)


@pytest.mark.slow
def test_what_schemathesis_makes_up_breaks_nothing(tmp_path, monkeypatch):
    """RETRODICT_CASES requests (2,000) against a server with everything on: no 500, and answers as the document says.

    Commands (audits, approvals, replays) are left to their own tests: each of them starts a process.
    """
    program = Path(__file__).parents[2] / ".venv-clients" / "schemathesis" / "bin" / "schemathesis"
    if not program.exists():
        pytest.skip("make clients installs it")
    cases, commands = int(os.environ.get("RETRODICT_CASES", "2000")), "v1/audit$|{decision}|{model}:"
    monkeypatch.setenv("HOOK", "secret")
    settings = ('[auth]\nrequired = "always"\n[serving]\ntraces = "http://127.0.0.1:9"\n'
                'callbacks = ["http://127.0.0.1:9"]\ncallback_secret = "HOOK"\n')  # fmt: skip
    make_project(tmp_path, settings).close()
    with Project(tmp_path, actor="ana") as project:
        token = project.api_keys.issue("fuzz", scope=["score", "read", "operate"], reason="test").token
    server, key = Server(tmp_path, "--replay", "--grpc-port", "0"), f"Authorization: Bearer {token}"
    try:
        checks = "status_code_conformance,content_type_conformance,response_schema_conformance"
        command = [program, "run", f"http://127.0.0.1:{server.port}/openapi.json", "-H", key, "-n", str(cases // 20),
                   "--checks", checks, "--exclude-path-regex", commands, "--continue-on-failure", "--no-color",
                   "--suppress-health-check", "all"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False, cwd=tmp_path)
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
        counts = re.findall(r'retrodict_requests_total{status="(\d+)"} (\d+)', connection.getresponse().read().decode())
        connection.close()
    finally:
        log = server.stop()
    assert done.returncode == 0, done.stdout
    statuses = {int(status): int(count) for status, count in counts}
    assert sum(statuses.values()) >= cases // 2, statuses
    assert 500 not in statuses, log
