"""The document that describes the server, held to what the server does."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tests.serving.process import Server
from tests.serving.project import make_project, parcels
from tests.serving.test_app import call

from retrodict import Project
from retrodict.rollout import deploy
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


def test_it_names_the_headers_of_answers(workspace, document):
    """Those of answers that have them and of no others, refusals among them."""
    asked = [("POST", "/v1/decisions/promise", b"{}"), ("POST", "/v1/decisions/promise:batch", b"{}"),
             ("POST", "/v2/models/promise/infer", b"{}"), ("GET", "/v1/policies", b""),
             ("GET", "/v2/models/promise", b""), ("POST", "/v1/events/parcels", b"[]")]  # fmt: skip
    for (method, path, _), (status, headers, _) in zip(asked, call(workspace, *asked), strict=True):
        described = document["paths"][path.replace("events/parcels", "events/{table}")]
        said = described[method.lower()]["responses"][str(status)].get("headers", {})
        sent = {name for name in headers if name in (b"retrodict-served-by", b"server-timing")}
        assert {name.lower().encode() for name in said} == sent, path


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


def test_the_example_of_an_inference_is_one(workspace, document):
    """As it stands: what is copied from the page is answered."""
    (body,) = document["paths"]["/v2/models/promise/infer"]["post"]["requestBody"]["content"].values()
    sent = _example(body["schema"])
    Draft202012Validator(body["schema"]).validate(sent)
    ((status, _, answer),) = call(workspace, ("POST", "/v2/models/promise/infer", json.dumps(sent).encode()))
    assert status == 200, answer
    assert {output["name"] for output in json.loads(answer)["outputs"]} >= {"score"}


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


@dataclass
class Fuzz:
    """Cases that schemathesis makes up of the document, at a server of a folder with everything on."""

    folder: Path
    cases: int
    seed: int

    def run(self) -> tuple[dict[str, Counter[str]], list[str], str]:
        """Statuses by route, what the runs complain of, and the log of the server."""
        with Project(self.folder, actor="ana") as project:
            token = project.api_keys.issue("fuzz", scope=["score", "read", "operate", "approve", "audit"],
                                           reason="test").token  # fmt: skip
        log = self.folder / "server.log"  # not a pipe, which would fill: nobody takes the spans, and the log says so
        server = Server(self.folder, "--replay", "--grpc-port", "0", log=log)
        try:
            document = self.folder / "openapi.json"
            paths = _documented(server, token, document)
            asks = [path for path, methods in paths.items() if {"{", "requestBody"} & {*path, *methods.get("post", ())}]
            number = -(-self.cases // len([path for path in asks if not re.search(_COMMANDS, path)]))
            # What takes time is to make cases up, so one process makes half of them, and neither shares a lock. The
            # commands start a process for each case that is right.
            runs = [["--exclude-path-regex", _COMMANDS, "-n", str(-(-number // 2))],
                    ["--exclude-path-regex", _COMMANDS, "-n", str(-(-number // 2)), "--phases", "fuzzing"],
                    ["--include-path-regex", _COMMANDS, "-n", str(max(number // 100, 2))]]  # fmt: skip
            with ThreadPoolExecutor(2) as pool:
                reports = list(
                    pool.map(
                        lambda number, options: self._ask(server, token, document, number, options),
                        *zip(*enumerate(runs), strict=True),
                    )
                )
            assert server.send("GET", "/healthz")[0] == 200
        finally:
            server.stop()
        counts: dict[str, Counter[str]] = {}
        for lines, _ in reports:
            for event in map(json.loads, lines):
                recorder = event.get("ScenarioFinished", {}).get("recorder", {})
                for exchange in recorder.get("interactions", {}).values():
                    response = exchange["response"]
                    status = response["status_code"] if response else "no answer"
                    counts.setdefault(recorder["label"], Counter())[str(status)] += 1
        return counts, [text for _, text in reports if text], log.read_text()

    def _ask(
        self, server: Server, token: str, document: Path, number: int, options: list[str]
    ) -> tuple[list[str], str]:
        report = self.folder / f"{number}.ndjson"
        checks = "status_code_conformance,content_type_conformance,response_schema_conformance"
        command = [PROGRAM, "run", document, "--url", f"http://127.0.0.1:{server.port}", "--no-color",
                   "-H", f"Authorization: Bearer {token}", "--checks", checks, "--seed", str(2 * self.seed + number),
                   "--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "60",
                   "--report", "ndjson", "--report-ndjson-path", report, *options]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        return report.read_text().splitlines(), done.stdout + done.stderr if done.returncode else ""


def _documented(server: Server, token: str, document: Path) -> dict[str, Any]:
    """What the server says of itself, with the events of one table spelled out: what is made up then gets to them."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/openapi.json", headers={"Authorization": f"Bearer {token}"})
    text = json.loads(connection.getresponse().read())
    connection.close()
    kinds = {"id": "string", "depot": "string", "weight": "number", "express": "boolean", "delay": "number"}
    row = {name: {"type": [kind, "null"]} for name, kind in kinds.items()}
    row |= {name: {"type": ["string", "null"], "format": "date-time"} for name in ("sent", "arrived")}
    events = copy.deepcopy(text["paths"]["/v1/events/{table}"])
    events["post"] |= {"operationId": "push_parcels", "parameters": []}
    rows = events["post"]["requestBody"]["content"]["application/json"]["schema"]
    rows["items"] = {"type": "object", "properties": row, "additionalProperties": False}
    text["paths"]["/v1/events/parcels"] = events
    for operation in (one for methods in text["paths"].values() for one in methods.values() if "requestBody" in one):
        short = json.dumps(operation["requestBody"]).replace('"type": "array"', '"type": "array", "maxItems": 3')
        operation["requestBody"] = json.loads(short)  # long lists cost most of the time, and find nothing more
    document.write_text(json.dumps(text))
    return text["paths"]


PROGRAM = Path(__file__).parents[2] / ".venv-clients" / "schemathesis" / "bin" / "schemathesis"
_COMMANDS = "v1/audit$|{decision}|:approve$|:reject$"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not PROGRAM.exists(), reason="make clients installs it")
def test_what_schemathesis_makes_up_breaks_nothing(tmp_path, monkeypatch):
    """RETRODICT_CASES (2,000) made up by RETRODICT_SEED: no 500, no lost connection, answers as the document says."""
    cases, seed = (
        int(os.environ.get(f"RETRODICT_{name}", default)) for name, default in (("CASES", 2000), ("SEED", 0))
    )
    monkeypatch.setenv("HOOK", "secret")
    settings = ('[auth]\nrequired = "always"\n[serving]\ntraces = "http://127.0.0.1:9"\n'
                'callbacks = ["http://127.0.0.1:9"]\ncallback_secret = "HOOK"\n')  # fmt: skip
    with make_project(tmp_path, settings) as project:
        with (tmp_path / "definitions.py").open("a") as definitions:
            definitions.write('inputs = FeatureService("inputs", [depot_delays, size, moment])\n')
        deploy(project, "late_parcel", reason="asked, without a policy")
    began = time.monotonic()
    counts, complaints, log = Fuzz(tmp_path, cases, seed).run()
    for label, statuses in counts.items():
        print(f"{label:<50}{statuses.total():>7}  {dict(sorted(statuses.items()))}")
    total = sum(counts.values(), Counter())
    print(f"{total.total()} cases of seed {seed} in {time.monotonic() - began:.0f} s: {dict(sorted(total.items()))}")
    assert not complaints, "\n".join(complaints)
    assert not {"500", "no answer"} & {*total}, log
    assert total.total() >= cases, total
    served = {label.partition(" ")[2] for label in counts}
    assert {"/v1/features/inputs", "/v1/models/late_parcel:score", "/v1/audit", "/v1/decisions/promise"} <= served
