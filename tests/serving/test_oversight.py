"""Approving and auditing over HTTP, by callers with keys: the commands' own checks, entries and answers."""

import asyncio
import json
import subprocess

import pytest
from tests.serving.project import make_project
from tests.serving.test_app import BODY, DECIDE, SIMULATED, Client
from tests.serving.test_callers import bearer

from retrodict import Project
from retrodict.registry import get_version
from retrodict.serving.callers import Callers

VERSION = "/v1/models/late_parcel@1"
REASON = json.dumps({"reason": "seen the card"}).encode()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overseen")
    make_project(folder).close()  # by ana, approved by ben
    return folder


@pytest.fixture(scope="module")
def tokens(root):
    """Keys by name; that of ``dora`` was issued by the model's author."""

    def issue(actor, name, *scopes):
        with Project(root, actor=actor) as project:
            return project.api_keys.issue(name, scope=scopes, reason="test").token

    return {"carl": issue("erik", "carl", "approve", "audit", "score"), "ana": issue("erik", "ana", "approve"),
            "a-na": issue("erik", "a-na", "approve"), "dora": issue("ana", "dora", "approve"),
            "score": issue("erik", "scorer", "score", "read", "operate")}  # fmt: skip


@pytest.fixture
def project(root):
    with Project(root, actor="svc") as opened:
        yield opened


def ask(project, *requests, asks=True, together=False):
    """Status and body of answers to (method, path, body, headers)."""

    async def run():
        client = Client(project.workspace)
        if asks:
            client.app.callers = Callers(project.workspace)
            client.app.callers.look()
        try:
            calls = [client.send(*request) for request in requests]
            answers = await asyncio.gather(*calls) if together else [await call for call in calls]
        finally:
            await client.close()
        return [(status, json.loads(body)) for status, _, body in answers]

    return asyncio.run(run())


def test_a_caller_approves_and_rejects_under_its_name(project, tokens):
    """As the commands do: a judgement in the registry, and an entry whose actor is the caller."""
    for action, granted in (("reject", False), ("approve", True)):
        ((status, answer),) = ask(project, ("POST", f"{VERSION}:{action}", REASON, bearer(tokens["carl"])))
        assert status == 200, answer
        judgement = get_version(project.workspace, "late_parcel@1").approvals[-1]
        assert (judgement.approver, judgement.granted, judgement.reason) == ("key:carl", granted, "seen the card")
        entry = [*project.workspace.ledger.entries(action=f"model.{action}")][-1]
        assert (entry.actor, entry.object_id) == ("key:carl", "model:late_parcel@1")
    assert project.audit().verified


@pytest.mark.parametrize("name", ["ana", "a-na", "dora"])
def test_four_eyes_hold_for_callers(project, tokens, name):
    """Neither a key in the author's name, nor one that looks like it, nor one that the author issued approves."""
    before = len(get_version(project.workspace, "late_parcel@1").approvals)
    ((status, answer),) = ask(project, ("POST", f"{VERSION}:approve", REASON, bearer(tokens[name])))
    assert status == 409
    assert "by somebody else than its author" in answer["error"]
    assert len(get_version(project.workspace, "late_parcel@1").approvals) == before


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        (VERSION, b"", 400, "must be JSON"),
        (VERSION, b"{}", 400, "reason"),
        (VERSION, b'{"reason": ""}', 400, "must have a reason"),
        (VERSION, b'{"reason": "x\\u0000y"}', 400, "plain text"),
        (VERSION, b'{"reason": "--actor=ben", "actor": "ben"}', 400, "no other field"),
        ("/v1/models/late_parcel@9", REASON, 404, "late_parcel"),
        ("/v1/models/late_parcel", REASON, 400, "NAME@VERSION"),
        ("/v1/models/--help", REASON, 400, "NAME@VERSION"),
        ("/v1/models/late_parcel@1\0", REASON, 400, "NAME@VERSION"),
    ],
)
def test_what_is_no_judgement_is_refused(project, tokens, path, body, status, text):
    """And nothing of it reaches the command as an option."""
    ((code, answer),) = ask(project, ("POST", f"{path}:approve", body, bearer(tokens["carl"])))
    assert (code, text in answer["error"]) == (status, True), answer


def test_a_reason_may_look_like_an_option(project, tokens):
    """It is the value of one."""
    body = json.dumps({"reason": "--actor=ben"}).encode()
    ((status, answer),) = ask(project, ("POST", f"{VERSION}:approve", body, bearer(tokens["carl"])))
    judgement = get_version(project.workspace, "late_parcel@1").approvals[-1]
    assert (status, judgement.approver, judgement.reason) == (200, "key:carl", "--actor=ben"), answer


def test_nobody_approves_where_nobody_is_asked_who_they_are(project):
    """A second pair of eyes must be somebody's; audits are answered."""
    (status, answer), (audit, report) = ask(
        project, ("POST", f"{VERSION}:approve", REASON, []), ("GET", "/v1/audit"), asks=False
    )
    assert (status, "must be known" in answer["error"]) == (403, True)
    assert (audit, report["verified"]) == (200, True)


def test_an_auditor_sees_and_replays_a_decision(project, tokens):
    """By its id, with everything behind it; other ids are 404, and what is none is 400."""
    auditor = bearer(tokens["carl"])
    ((_, decided),) = ask(project, ("POST", DECIDE, BODY, SIMULATED + auditor))
    path = f"/v1/decisions/{decided['decision_id']}"
    (shown, lineage), (replayed, replay), (absent, _), (wrong, refusal), (option, _) = ask(
        project, ("GET", path, b"", auditor), ("POST", f"{path}:replay", b"", auditor),
        ("GET", "/v1/decisions/01J00000000000000000000000", b"", auditor), ("GET", "/v1/decisions/x", b"", auditor),
        ("POST", "/v1/decisions/--help:replay", b"", auditor),
    )  # fmt: skip
    assert (shown, replayed, absent, wrong, option) == (200, 200, 404, 400, 400)
    assert "its id, of 26 digits and capital letters" in refusal["error"]
    assert lineage["decision"]["id"] == f"decision:{decided['decision_id']}"
    assert lineage["decision"]["decision"] == decided["decision"]
    assert (replay["verdict"], replay["exact"]) == ("exact", True)


def test_one_command_at_a_time(project, tokens):
    """A second one is told to come back."""
    auditor = bearer(tokens["carl"])
    answers = ask(project, *[("GET", "/v1/audit", b"", auditor)] * 2, together=True)
    assert sorted(status for status, _ in answers) == [200, 429]


def test_a_late_command_is_ended(project, tokens):
    """Its process is gone with the answer, and the next one is answered."""
    auditor = bearer(tokens["carl"])

    async def run():
        client = Client(project.workspace)
        try:
            late = await client.send("GET", "/v1/audit", b"", [*auditor, (b"retrodict-deadline", b"200")])
            shown = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221
            return late[0], shown, (await client.send("GET", "/v1/audit", b"", auditor))[0]
        finally:
            await client.close()

    status, processes, after = asyncio.run(run())
    assert (status, after) == (504, 200)
    assert f"--project={project.workspace.root}" not in processes


def test_a_failed_approval_is_no_failed_decision(project, tokens):
    """Counts of decisions are of those who asked for one."""

    async def run():
        client = Client(project.workspace)
        client.app.callers = Callers(project.workspace)
        client.app.callers.look()
        await client.send("POST", "/v1/models/none@1:approve", REASON, bearer(tokens["carl"]))
        await client.send("POST", DECIDE, b"{}", bearer(tokens["score"]))
        counters = client.app.telemetry.named()
        await client.close()
        return [name for name in counters if name.startswith("decisions_failed_total")]

    assert asyncio.run(run()) == ['decisions_failed_total{policy="promise",status="400",error="InputError"}']
