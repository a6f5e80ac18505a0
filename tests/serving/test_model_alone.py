"""A model that is served without a policy gives what a policy decides by, over real HTTP, and no decision."""

import json
import time
from contextlib import closing
from http.client import HTTPConnection

import pytest
from tests.serving.process import Server
from tests.serving.project import AT, DEFINITIONS, REQUEST, make_project

from retrodict import Policy, Project
from retrodict.client import Client
from retrodict.core.clock import parse_time
from retrodict.core.errors import DefinitionError, IntegrityError, NotFoundError, RefusedError, RetryableError
from retrodict.decisions import read_decisions, records, replay_decision
from retrodict.decisions.definitions import find_policy
from retrodict.decisions.records import decode_record, encode_record
from retrodict.learning import train
from retrodict.models.definitions import Model
from retrodict.registry import current
from retrodict.rollout import deploy, rollback
from retrodict.workspace import Workspace

MORE = """
explained = Policy("explained", late_parcel, explain="always", deadline="5s")
silent = Policy("silent", late_parcel, explain="never", deadline="5s")
adverse = Policy("adverse", late_parcel, decide={"warn": "score >= 0.5", "ok": "otherwise"}, explain=["warn"],
    deadline="5s")
hurried = Policy("hurried", late_parcel, deadline="1us")
warned = Policy("warned", late_parcel, personal=["weight", "size__weight"], record="async", cache="1h", deadline="5s")
"""
SCORE, INFER = "/v1/models/late_parcel:score", "/v2/models/late_parcel/infer"
CASE = {**REQUEST["entities"], **REQUEST["context"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project in which a policy and its model alone are in force, and some that decide nothing."""
    folder = tmp_path_factory.mktemp("alone")
    make_project(folder).close()
    (folder / "definitions.py").write_text(DEFINITIONS + MORE)
    with Workspace(folder, actor="ana") as workspace:
        for name in ("late_parcel", "explained", "silent", "adverse", "hurried", "warned"):
            deploy(workspace, name, reason="test")
    return folder


@pytest.fixture(scope="module")
def server(root):
    running = Server(root, "--replay")
    yield running
    running.stop()


@pytest.fixture
def workspace(root):
    with Workspace(root, actor="ana") as opened:
        yield opened


def ask(server, path, body, **headers):
    """Answer of a server, asked again while it had no time for the model, as its 503 says."""
    for _ in range(100):
        status, answer = server.send("POST", path, body, {**AT, **headers})
        if status != 503 and 503 not in [one["status"] for one in answer.get("answers", ())]:
            break
    return status, answer


def weighing(weight, **more):
    return {**REQUEST, "context": {**REQUEST["context"], "weight": weight}, **more}


def tensors(*cases):
    kinds = {str: "BYTES", float: "FP64", bool: "BOOL"}
    return {"inputs": [{"name": name, "shape": [len(cases)], "datatype": kinds[type(value)],
                        "data": [case[name] for case in cases]} for name, value in cases[0].items()]}  # fmt: skip


@pytest.mark.parametrize("weight", [1.0, 40.0, 95.0])
def test_every_address_gives_the_score_that_the_policy_decides_by(server, weight):
    """To the bit, and nothing that could be taken for a decision, also where a rule of the policy would decide."""
    asked = weighing(weight)
    status, decided = server.decide(asked)
    assert (status, "decision" in decided) == (200, True)
    answers = [ask(server, path, asked) for path in (SCORE, "/v1/decisions/late_parcel")]
    status, batch = ask(server, "/v1/decisions/late_parcel:batch", {"requests": [asked, {}, asked]})
    assert [one["status"] for one in batch["answers"]] == [200, 400, 200]
    answers += [(200, {k: v for k, v in one.items() if k != "status"}) for one in batch["answers"][::2]]
    for status, answer in answers:
        assert (status, answer["score"]) == (200, decided["score"])
        assert answer.keys() == {"decision_id", "score", "model", "policy"}
        assert (answer["model"], answer["policy"].partition("#")[0]) == ("late_parcel@1", "late_parcel")
    status, inferred = ask(server, INFER, tensors({**CASE, "weight": weight}))
    assert {one["name"]: one["data"] for one in inferred["outputs"]}["score"] == [decided["score"]]
    assert [one["name"] for one in inferred["outputs"]] == ["decision_id", "score"]
    with Client(f"http://127.0.0.1:{server.port}", retries=10) as client:
        answer = client.decide("late_parcel", asked["entities"], asked["context"], at=parse_time(AT["Retrodict-Time"]))
    assert (answer.decision, answer.score) == ("", decided["score"])


def test_what_was_answered_is_replayed_after_kill_9(root):
    """Every answer has its record before it, exact from the tables, in a ledger and a log that hold."""
    server = Server(root, "--replay", "--no-consume")
    answers = [ask(server, SCORE, weighing(5.0 + n, explain=n % 2 == 0))[1] for n in range(6)]
    answers.append(ask(server, SCORE, weighing(9.5), **{"Idempotency-Key": "alone-1"})[1])
    answers.append(server.decide(policy="explained")[1])
    server.kill()
    assert [bool(one.get("reasons")) for one in answers] == [True, False] * 3 + [False, True]
    with Project(root, actor="ana") as project:
        for answer in answers:
            replayed = project.replay_decision(answer["decision_id"])
            assert replayed.exact, replayed.reason
            assert replayed.logged == answer
            shown = project.decisions.get(answer["decision_id"])
            assert (shown.decision, shown.to_dict()) == ("", answer)
            assert "decision   " not in str(shown)
        lineage = str(project.lineage(f"decision:{answers[0]['decision_id']}"))
        assert f"{answers[0]['decision_id']}: score 0." in lineage
        assert "late_parcel@1" in lineage
        assert project.ledger.verify().ok
    again = Server(root, "--replay", "--no-consume")
    try:
        assert ask(again, SCORE, weighing(9.5), **{"Idempotency-Key": "alone-1"})[1] == answers[6]
    finally:
        again.stop()


def test_where_the_model_gives_nothing_there_is_no_answer(root):
    """No decision stands in for a score: 503, counted and noted, and each case of a batch for itself."""
    server = Server(root, "--replay")
    try:
        response = None
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
            while response is None or response.status == 429:  # a busy machine takes more than a turn
                connection.request("POST", "/v1/models/hurried:score", json.dumps(REQUEST), AT)
                response = connection.getresponse()
                text = json.loads(response.read())["error"]
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert "model:hurried: the model must score the request in time; got 'TimeoutError'" in text
        count = 'decisions_failed_total{policy="hurried",status="503",error="NoScoreError"}'
        assert server.send("GET", "/v1/status")[1]["counters"][count] == 1
        status, batch = server.send("POST", "/v1/decisions/hurried:batch", {"requests": [REQUEST, {}]}, AT)
        assert (status, [one["status"] for one in batch["answers"]]) == (200, [503, 400])
        status, text = server.send("POST", "/v2/models/hurried/infer", tensors(CASE, CASE), AT)
        assert (status, "the model must score" in text["error"]) == (503, True)
        counters = server.send("GET", "/v1/status")[1]["counters"]
        assert counters[count] == 4  # one alone, one of the batch, two of the tensors
        assert not any("decisions_total" in name and "hurried" in name for name in counters)
        headers = {**AT, "Idempotency-Key": "late-1"}
        again = [server.send("POST", "/v1/models/hurried:score", REQUEST, headers)[0] for _ in range(2)]
        assert {*again} - {429} <= {503}
    finally:
        server.stop()
    with Project(root, actor="ana") as project:
        assert list(read_decisions(project.workspace, policy="hurried")) == []
        assert {one["status"] for one in project.decisions.failures("hurried").failures} - {429} == {503, 400}
        with pytest.raises(RetryableError, match="the model must score"):
            project.decide("hurried", at=AT["Retrodict-Time"], **CASE)


@pytest.mark.parametrize(
    ("policy", "weight", "asks", "reasons"),
    [("explained", 5.0, False, True), ("silent", 5.0, False, False), ("silent", 5.0, True, None),
     ("adverse", 80.0, False, True), ("adverse", 1.0, False, False), ("adverse", 1.0, True, True),
     ("late_parcel", 5.0, False, False), ("late_parcel", 5.0, True, True)],
)  # fmt: skip
def test_reasons_are_given_as_the_policy_says(server, root, policy, weight, asks, reasons):
    """Always, never (who asks is refused, beside what else is wrong), or for some decisions; each replays."""
    entities = {"depot": "east" if weight > 50 else "north"}
    asked = weighing(weight, explain=asks, entities=entities)
    status, answer = ask(server, f"/v1/decisions/{policy}", asked)
    if reasons is None:
        assert (status, "field 'explain': reasons must be asked of a policy that gives them" in answer["error"]) == (
            400,
            True,
        )
        status, answer = server.decide({"entities": {"depot": 7}, "explain": True}, policy=policy)
        assert (status, "got '5 faults'" in answer["error"]) == (400, True)
        return
    assert (status, bool(answer.get("reasons"))) == (200, reasons)
    with Workspace(root, actor="ana") as workspace:
        assert replay_decision(workspace, answer["decision_id"]).exact


def test_what_a_policy_may_set_holds_without_decisions(server, root):
    """Masked values, the async record and the cache are those of every policy."""
    answers = [server.decide(weighing(33.5), policy="warned")[1] for _ in range(2)]
    assert answers[0]["score"] == answers[1]["score"]
    for _ in range(20):  # a score is kept once its record is durable
        time.sleep(0.1)
        assert server.decide(weighing(33.5), policy="warned")[1]["score"] == answers[0]["score"]
    counters = server.send("GET", "/v1/status")[1]["counters"]
    assert counters['score_cache_total{policy="warned",result="hit"}'] > 0
    with Workspace(root, actor="ana") as workspace:
        record = next(one.record for one in read_decisions(workspace, policy="warned"))
    assert str(record.context["weight"]).startswith("masked ")
    assert (record.schema, record.decision) == (3, "")


def test_the_server_tells_what_it_serves(server):
    """Its inputs and outputs, its stages, and an operation whose answer has no decision."""
    _, about = server.send("GET", "/v1/policies/late_parcel")
    assert (about["decisions"], about["stages"]["decide"]) == ([], "nothing: the score is the answer")
    assert about["stages"]["explain"] == "asked"
    _, model = server.send("GET", "/v2/models/late_parcel")
    assert [one["name"] for one in model["outputs"]] == ["decision_id", "score"]
    paths = server.send("GET", "/openapi.json")[1]["paths"]
    assert "/v1/models/promise:score" not in paths
    answer = paths[SCORE]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert "decision" not in [*answer["properties"], *answer["required"]]
    status, text = server.send("POST", "/v1/models/late_parsel:score", REQUEST, AT)
    assert (status, "'late_parcel'" in text["error"]) == (404, True)


def test_every_wrong_case_of_tensors_is_named(server):
    """With all that is wrong with it; nothing is decided of the others."""
    cases = [CASE, {**CASE, "sent": "yesterday"}, CASE, {**CASE, "sent": "1700-01-01T00:00Z", "depot": "x"}]
    status, text = server.send("POST", INFER, tensors(*cases), AT)
    assert (status, "case 1, 3 (from 0) of 4" in text["error"]) == (400, True)
    assert "yesterday" not in text["error"]


def test_a_request_of_a_wrong_form_is_told_all_of_it(server):
    """Of its values, too, which the form hides from the decoder; nothing of what was sent."""
    status, text = server.send("POST", SCORE, {"entities": {"depot": ["s3cret"]}, "s3cret": 1}, AT)
    assert (status, "got '5 faults'" in text["error"], "s3cret" in text["error"]) == (400, True, False)


def test_decisions_without_one_stand_in_the_table_as_null(workspace):
    """Beside those of policies; monitors read their scores."""
    with Project(workspace.root, actor="ana") as project:
        project.decide("explained", key="p1", at=AT["Retrodict-Time"], **CASE)
        project.decide("promise", key="p1", at=AT["Retrodict-Time"], **CASE)
    with Project(workspace.root, actor="ana") as project:
        project.decisions.compact()
        rows = project.data.read("decisions").select(["policy", "decision", "score"]).to_pylist()
        decided = {row["policy"]: row["decision"] for row in rows}
        assert (decided["explained"], decided["promise"] in ("warn", "ok")) == (None, True)
        assert project.outcomes.show("explained").outcomes.target.outputs == ("score",)
        assert project.features.parity("explained").ok


def test_plan_and_show_know_it(root):
    """As deployed, without a line in the definitions."""
    with Project(root, actor="ana") as project:
        (line,) = [one for one in project.plan().policies if one.name == "late_parcel"]
        assert (line.status, line.model) == ("as deployed", "late_parcel@1")
        assert project.plan().undefined == ()
        shown = project.policies.show("late_parcel").to_dict()
        assert (shown["model"], shown["changed"], shown["stages"]["record"]) == ("late_parcel@1", False, "sync")
        with pytest.raises(NotFoundError, match="Did you mean the policy 'late_parcel'"):
            project.policies.show("late_parsel")
        model = project.definitions.get(Model, "late_parcel")
        assert find_policy(project.definitions, "late_parcel") == Policy("late_parcel", model)


def test_what_is_not_approved_is_not_served(tmp_path):
    """Gates, approval and proof are asked as for a policy; another model's version is refused by name."""
    make_project(tmp_path).close()
    with Workspace(tmp_path, actor="ana") as workspace:
        _, version = train(workspace, "late_parcel")
        with pytest.raises(RefusedError, match="a deployed version must be approved"):
            deploy(workspace, "late_parcel", model=version.ref, reason="test")
        assert "late_parcel" not in current(workspace)
        with pytest.raises(NotFoundError, match=r"this policy, or a model to be served by itself.*'late_parcel'"):
            deploy(workspace, "late_parcels", reason="test")
        deploy(workspace, "late_parcel", reason="test")
        with pytest.raises(RefusedError, match="something must have decided before"):
            rollback(workspace, "late_parcel", reason="test")
    text = (tmp_path / "definitions.py").read_text()
    (tmp_path / "definitions.py").write_text(
        text.replace('late_parcel = Model("late_parcel"', 'late_parcel = Model("renamed"')
    )
    with Project(tmp_path, actor="ana") as project:
        assert project.plan().undefined == ("late_parcel",)
        assert project.policies.show("late_parcel").changed


def test_a_policy_of_the_models_name_takes_its_place(tmp_path):
    """It says how the model is served; a rollback goes back to what was without it."""
    make_project(tmp_path).close()
    with Project(tmp_path, actor="ana") as project:
        project.deploy("late_parcel", reason="test")
    line = 'own = Policy("late_parcel", late_parcel, record="async")\n'
    (tmp_path / "definitions.py").write_text(DEFINITIONS + line)
    with Project(tmp_path, actor="ana") as project:
        assert project.policies.show("late_parcel").changed
        assert [one.status for one in project.plan().policies if one.name == "late_parcel"] == ["changed"]
        project.deploy("late_parcel", reason="by hand")
        assert project.policies.show("late_parcel").to_dict()["stages"]["record"] == "async"
        project.rollback("late_parcel", reason="back")
        assert project.policies.show("late_parcel").to_dict()["stages"]["record"] == "sync"


def test_an_older_reader_refuses_what_it_does_not_know(root, monkeypatch):
    """A record without a decision is of a form of its own: nobody takes it for a decision of another kind."""
    with Project(root, actor="ana") as project:
        for name in ("explained", "promise"):
            project.decide(name, at=AT["Retrodict-Time"], **CASE)
        ours, policy = (next(one.record for one in read_decisions(project.workspace, policy=name))
                        for name in ("explained", "promise"))  # fmt: skip
    assert (ours.schema, policy.schema) == (3, 1)
    assert decode_record(encode_record(ours)) == ours
    monkeypatch.setattr(records, "SCHEMA", 2)
    with pytest.raises(IntegrityError, match="the record's schema must be known"):
        decode_record(encode_record(ours))


def test_a_model_alone_has_no_rules(workspace):
    """There is no decision that they could end in."""
    model, rules = (
        find_policy(workspace.definitions, "late_parcel").model,
        workspace.definitions.get(Policy, "promise").rules,
    )
    with pytest.raises(DefinitionError, match="a rule must end in a decision"):
        Policy("p", model, rules=rules)
