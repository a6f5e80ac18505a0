"""Many requests at once: every item as it would be alone, in order, durable together; a wrong one fails alone."""

import asyncio
import json
import random
import signal
from collections import Counter

import msgspec
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.project import AT, REQUEST, make_project
from tests.serving.test_app import Client
from tests.serving.test_server import Server

from retrodict import Project
from retrodict.client import Client as Caller
from retrodict.core.clock import parse_time
from retrodict.core.errors import BusyError, InputError, RetryableError
from retrodict.decisions.log import read_decisions
from retrodict.decisions.replay import replay_decision
from retrodict.decisions.requests import RequestSchema
from retrodict.features.online import OnlineFeatures
from retrodict.models.artifact import ModelArtifact, Speed
from retrodict.serving import Decider
from retrodict.serving.batch import decode_batch
from retrodict.workspace import Workspace

BATCH = "/v1/decisions/promise:batch"
NOW = parse_time("2024-02-20T10:00Z")
GOOD = {name: REQUEST[name] for name in ("entities", "context")}
BAD = {"entities": {}, "context": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batched")
    make_project(folder).close()
    return folder


@pytest.fixture(scope="module")
def server(root):
    running = Server(root, "--replay", "--no-consume")
    yield running
    running.stop()


def request(weight, depot="north", **more):
    return {"entities": {"depot": depot}, "context": {**REQUEST["context"], "weight": weight}, **more}


def without_id(answer):
    return {name: value for name, value in answer.items() if name not in ("decision_id", "status", "replayed")}


def test_each_is_answered_as_it_would_be_alone_and_in_order(server, root):
    """Scores bit for bit, rules, reasons, keys, errors with their status; each has its own record, which replays."""
    rng = random.Random(3)
    bodies = [
        rng.choice(
            [
                request(
                    rng.uniform(0, 100),
                    rng.choice(["north", "south", "east", "nobody", None]),
                    key=f"k{n}",
                    explain=rng.random() < 0.3,
                ),
                BAD,
                7,
                {"nope": 1},
                request("heavy"),
                {**request(1), "request_id": "é"},
            ]
        )
        for n in range(230)
    ]
    status, answer = server.send("POST", BATCH, {"requests": bodies}, AT)
    assert status == 200
    assert len(answer["answers"]) == 230
    for body, item in zip(bodies, answer["answers"], strict=True):
        status, alone = server.decide(json.dumps(body))
        if isinstance(body, dict) and "request_id" in body:
            assert (item["status"], "printable" in item["error"]) == (400, True)
        elif status == 200:
            assert (item["status"], without_id(item)) == (200, without_id(alone))
        else:
            assert item == {"status": status, **alone} or item["status"] == status == 400
    with Workspace(root) as workspace:
        records = {item.record.id: item.record for item in read_decisions(workspace)}
        ids = [item["decision_id"] for item in answer["answers"] if item["status"] == 200]
        assert len(set(ids)) == len(ids) > 20
        keys = [body["key"] for body, item in zip(bodies, answer["answers"], strict=True) if item["status"] == 200]
        assert [records[name].key for name in ids] == keys
        assert {"check", "features", "score", "rules"} <= records[ids[0]].stages.keys()
        for name in rng.sample(ids, 10):
            assert replay_decision(workspace, f"decision:{name}").exact


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"requests": []}, 400, "1 to 1000"),
        ({"requests": [BAD] * 1001}, 400, "1 to 1000"),
        ({"request": []}, 400, "requests"),
        ({"requests": 5}, 400, "requests"),
        (b"{", 400, "JSON"),
    ],
)
def test_a_batch_of_another_form_is_refused_whole(server, body, status, text):
    """The number has limits."""
    answer = server.send("POST", BATCH, body, AT)
    assert answer[0] == status
    assert text in answer[1]["error"]


def test_a_batch_has_a_size_of_its_own(project):
    """A body that is too long for one request may be a batch, up to another limit."""

    async def run():
        client = Client(project, body=10, batch_body=3_000)
        body = json.dumps({"requests": [GOOD] * 10}).encode()
        answers = [await client.send("POST", BATCH, body + b" " * n) for n in (3_000 - len(body), 3_001 - len(body))]
        await client.close()
        return answers

    assert [status for status, _, _ in asyncio.run(run())] == [200, 413]


def test_other_addresses_and_one_id_for_all_are_refused(server):
    """An unknown policy or action is a 404; a header with one id is no id of each."""
    assert server.send("POST", "/v1/decisions/other:batch", {"requests": [GOOD]})[0] == 404
    assert server.send("POST", "/v1/decisions/promise:heap", {"requests": [GOOD]})[0] == 404
    assert server.send("GET", BATCH)[0] == 405
    status, answer = server.send("POST", BATCH, {"requests": [GOOD]}, {**AT, "Idempotency-Key": "x"})
    assert (status, "own id" in answer["error"]) == (400, True)


@pytest.fixture
def caller(server):
    with Caller(f"http://127.0.0.1:{server.port}") as opened:
        yield opened


def test_ids_within_a_batch_and_beyond(caller, root):
    """The second with one id gets the first's answer, or a refusal; so does a batch sent again, or one alone."""
    bodies = [
        {**request(5), "request_id": "b-1"}, {**request(6), "request_id": "b-2"}, {**request(5.0), "request_id": "b-1"},
        {**request(7), "request_id": "b-2"}, {**BAD, "request_id": "b-3"}, request(5),
    ]  # fmt: skip

    def ask_many():
        return [answer.body for answer in caller.decide_many("promise", bodies, at=NOW)]

    def ask(body, request_id):
        return caller.decide("promise", body["entities"], body["context"], request_id=request_id, at=NOW)

    first = ask_many()
    assert [item["status"] for item in first] == [200, 200, 200, 409, 400, 200]
    assert first[2] == {**first[0], "replayed": True}
    again = ask_many()
    assert [item.get("replayed") for item in again] == [True, True, True, None, None, None]
    assert again[0]["decision_id"] == again[2]["decision_id"] == first[0]["decision_id"]
    alone = ask(request(6), "b-2")
    assert (alone.decision_id, alone.replayed) == (first[1]["decision_id"], True)
    assert ask(request(6), "b-3").decision in ("ok", "warn")
    with Workspace(root) as workspace:
        count = Counter(item.record.request_id for item in read_decisions(workspace))
    assert (count["b-1"], count["b-2"], count["b-3"]) == (1, 1, 1)


def test_one_read_one_call_of_the_model_and_one_group(project, monkeypatch):
    """Of a hundred and fifty requests two reads and two calls are made, and one append."""
    calls = Counter()

    def counting(kind, name):
        real = getattr(kind, name)

        def counted(*args, **options):
            calls[name] += 1
            return real(*args, **options)

        monkeypatch.setattr(kind, name, counted)

    for name in ("read", "read_many"):
        counting(OnlineFeatures, name)
    for name in ("score_row", "score_each"):
        counting(ModelArtifact, name)

    async def run():
        client = Client(project, body=1 << 20, batch_body=1 << 20)
        groups, append = [], client.recorder.log.append

        def noted(records, before):
            groups.append(len(records))
            append(records, before)

        client.recorder.log.append = noted
        bodies = [request(n) for n in range(150)]
        answer = await client.send("POST", BATCH, json.dumps({"requests": [*bodies, BAD]}).encode())
        await client.close()
        return answer, groups

    (status, _, body), groups = asyncio.run(run())
    assert (status, groups) == (200, [150])
    assert calls == {"read_many": 2, "score_each": 2}
    assert [item["status"] for item in json.loads(body)["answers"]] == [200] * 150 + [400]


def test_a_log_that_cannot_be_written_answers_none(project):
    """503 for all of them, and the ids stay free."""

    async def run():
        client = Client(project)
        writer, client.recorder.log._writer = client.recorder.log._writer, None
        body = json.dumps({"requests": [{**GOOD, "request_id": "lost"}, GOOD]}).encode()

        class Full:
            stream = "decisions/0"

            def append(self, records):
                if records:
                    raise OSError(28, "No space left on device")
                return 0

        client.recorder.log._writer = Full()
        first = await client.send("POST", BATCH, body)
        client.recorder.log._writer = writer
        second = await client.send("POST", BATCH, body)
        await client.close()
        return first, second

    first, second = asyncio.run(run())
    assert (first[0], second[0]) == (503, 200)
    assert [item["status"] for item in json.loads(second[2])["answers"]] == [200, 200]
    assert "replayed" not in json.loads(second[2])["answers"][0]


class _OddError(BaseException):
    """An error that no library knows."""


def raises(error):
    def score(*_):
        raise error

    return score


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, SystemExit, KeyboardInterrupt, _OddError])
def test_a_model_that_ends_what_runs_it_is_a_failure_like_any_other(project, monkeypatch, error):
    """The fallback answers, on record, alone, at once with others, in a batch and in process; nobody waits for good."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)  # as under a server
    for name in ("score_row", "score_each"):
        monkeypatch.setattr(ModelArtifact, name, raises(error))
    body, batch = (json.dumps(content).encode() for content in (GOOD, {"requests": [GOOD, GOOD]}))
    before = len(list(read_decisions(project)))

    async def run():
        client = Client(project)
        async with asyncio.timeout(30):
            single = await asyncio.gather(*(client.send("POST", "/v1/decisions/promise", body) for _ in range(3)))
            many = await client.send("POST", BATCH, batch)
        await client.close()
        return [json.loads(answer[2]) for answer in single] + json.loads(many[2])["answers"]

    answers = asyncio.run(run())
    with Decider(project) as decider:
        record = decider.decide("promise", {**GOOD["entities"], **GOOD["context"]}, at=NOW)
    assert [answer["fallback"] for answer in answers] == ["ok"] * 5
    assert (record.error, record.fallback) == (error.__name__, "ok")
    assert len(list(read_decisions(project))) == before + 6


def test_what_is_late_is_not_computed(project, monkeypatch):
    """Past the deadline nothing is read or scored; the policy's fallback answers, and says why."""
    with Decider(project) as decider:
        servant = decider._servants("promise")["promise"]
        monkeypatch.setattr(servant, "_deadline_ns", -1)
        reads = []
        for name in ("read", "read_many"):
            monkeypatch.setattr(OnlineFeatures, name, lambda *args, **_: reads.append(args))
        values = {**GOOD["entities"], **GOOD["context"]}
        answers = decider.decide_many("promise", [values] * 3, at=NOW)
    assert [(one.record.error, one.record.fallback) for one in answers] == [("TimeoutError", "ok")] * 3
    assert reads == []


CASES = st.fixed_dictionaries({
    "depot": st.sampled_from(["north", "south", "nobody", None]), "sent": st.just("2024-02-20T10:00Z"),
    "weight": st.floats(0, 120) | st.none() | st.just("wrong"), "express": st.booleans() | st.none(),
})  # fmt: skip


@given(st.lists(CASES, max_size=12), st.booleans())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_process_many_are_as_one_by_one(project, cases, explain):
    """Equal to ``decide`` of each, errors included."""
    with Decider(project) as decider:
        answers = decider.decide_many("promise", cases, explain=explain, at=NOW)
        for case, answer in zip(cases, answers, strict=True):
            if isinstance(answer, InputError):
                with pytest.raises(InputError) as alone:
                    decider.decide("promise", case, explain=explain, at=NOW)
                assert str(answer) == str(alone.value)
            else:
                record = decider.decide("promise", case, explain=explain, at=NOW)
                alike = [msgspec.structs.replace(one, id="", stages={}) for one in (answer.record, record)]
                assert alike[0] == alike[1]


def test_a_frame_is_decided_row_by_row(root):
    """Columns with keys and ids; what comes back is in order."""
    frame = pd.DataFrame({
        "id": ["p1", "p2", "p3"], "depot": ["north", "east", "south"], "weight": [3.0, 95.0, float("nan")],
        "express": [True, False, False], "sent": pd.to_datetime(["2024-02-20T10:00Z"] * 3), "call": ["f1", "f2", "f3"],
    })  # fmt: skip
    with Project(root) as project:
        first = project.decisions.decide_many("promise", frame, key="id", request_id="call", at="2024-02-20T10:00Z")
        again = project.decisions.decide_many("promise", frame, key="id", request_id="call", at="2024-02-20T10:00Z")
    assert [one.record.key for one in first] == ["p1", "p2", "p3"]
    assert first[1].reasons == ["Over 90 kg"]
    assert [one.replayed for one in first + again] == [False] * 3 + [True] * 3
    assert [one.ref for one in again] == [one.ref for one in first]


def test_an_id_that_another_call_holds_is_waited_for(project, monkeypatch):
    """Only the item with it; the others of its batch are recorded meanwhile."""
    from retrodict.serving import idempotency

    monkeypatch.setattr(idempotency, "WAIT_S", 0.2)
    index = idempotency.RequestIndex(project, "decisions/9")
    claim = index.wait("busy", "")
    with Decider(project) as decider:
        values = {**GOOD["entities"], **GOOD["context"]}
        one, other = decider.decide_many("promise", [values] * 2, at=NOW, request_ids=["busy", "idle"])
    claim.release()
    index.close()
    assert isinstance(one, RetryableError)
    assert not other.replayed


@pytest.mark.parametrize(("body", "fits"), [
    (b'{"requests":[%a]}', True), (b' {\n"requests" : [%a, %a] }\t', True), (b'{"\\u0072equests":[%a]}', True),
    (b'{"requests":[%a],"requests":[%a,%a]}', False), (b'{"requests":[%a], "\\u0072equests":[%a]}', False),
])  # fmt: skip
def test_requests_must_stand_once(body, fits):
    """The decoder takes the last of two lists; a name within a request is told of that one alone."""
    twice = b'{"entities":{"depot":"north","depot":"south"}}'
    text = body.replace(b"%a", json.dumps(GOOD).encode())
    if not fits:
        with pytest.raises(InputError, match="a name must stand once"):
            decode_batch(text, 10, 10_000)
        return
    assert all(entry.question is not None for entry in decode_batch(text, 10, 10_000))
    (entry,) = decode_batch(b'{"requests":[%s]}' % twice, 10, 10_000)
    assert "a name must stand once" in str(entry.error)


def test_a_request_of_a_batch_may_be_as_large_as_one_alone():
    large = json.dumps({**GOOD, "key": "x" * 500})
    least = len(large)
    for limit, fits in ((least, True), (least - 1, False)):
        first, second = decode_batch(f'{{"requests":[{large},{json.dumps(GOOD)}]}}'.encode(), 10, limit)
        assert (first.error is None) is fits
        assert second.error is None


def test_what_is_in_the_log_is_answered_though_a_neighbour_had_no_turn_in_time(project, monkeypatch):
    """504 for the whole body said that nothing was decided."""
    from retrodict.serving import idempotency

    monkeypatch.setattr(idempotency, "WAIT_S", 0.05)
    deadline = [(b"retrodict-deadline", b"200"), (b"retrodict-time", b"2024-02-20T10:00Z")]

    async def run():
        client, index = Client(project), idempotency.RequestIndex(project, "decisions/9")
        claim, holding = index.wait("held", ""), client.app.requests.hold

        async def late(*args):
            await asyncio.sleep(0.25)
            claim.release()
            return await holding(*args)

        monkeypatch.setattr(client.app.requests, "hold", late)
        body = {"requests": [{**GOOD, "request_id": name} for name in ("first", "held")]}
        status, _, answer = await client.send("POST", BATCH, json.dumps(body).encode(), deadline)
        index.close()
        await client.close()
        return status, json.loads(answer)["answers"]

    status, (first, held) = asyncio.run(run())
    assert status == 200
    assert (first["status"], held["status"]) == (200, 504)
    assert "before the deadline of the caller has passed" in held["error"]
    ids = [logged.record.request_id for logged in read_decisions(project)]
    assert [name for name in ids if name in ("first", "held")] == ["first"]


def test_an_id_of_a_wrong_one_is_free_at_once(project, monkeypatch):
    """A later one with the same id waits for nobody."""
    from retrodict.serving import idempotency

    monkeypatch.setattr(idempotency, "WAIT_S", 0.0)  # no wait at all
    with Decider(project) as decider:
        values = {**GOOD["entities"], **GOOD["context"]}
        wrong, one, other = decider.decide_many(
            "promise", [{**values, "weight": "x"}, values, values], at=NOW, request_ids=["w"] * 3
        )
    assert isinstance(wrong, InputError)
    assert (one.replayed, other.replayed, one.record) == (False, True, other.record)


def test_waiting_for_an_id_ends_with_the_deadline(project):
    """An item whose id another call holds is told so when the caller waits no longer, and not after five seconds."""
    from retrodict.serving import idempotency

    async def run():
        client = Client(project)
        other = idempotency.RequestIndex(project, "decisions/9")
        claim = other.wait("busy", "")
        body = json.dumps({"requests": [{**GOOD, "request_id": "busy"}, GOOD]}).encode()
        sending = client.send("POST", BATCH, body, [(b"retrodict-deadline", b"1000")])
        answer = await asyncio.wait_for(sending, idempotency.WAIT_S - 1)
        claim.release()
        other.close()
        await client.close()
        return answer

    status, _, body = asyncio.run(run())
    assert status == 200
    assert [item["status"] for item in json.loads(body)["answers"]] == [504, 200]


def test_of_many_requests_of_a_wrong_form_a_hundred_are_told_all():
    """Every one has its error; looking for everything in a thousand would hold up the others."""
    schema = RequestSchema({"depot": "text"}, {"weight": "number"})
    body = json.dumps({"requests": [{"entities": {}, "more": 1}] * 150 + [{"entities": {}}]}).encode()
    entries = decode_batch(body, 1_000, 10_000, schema)
    assert ["got '3 faults'" in str(entry.error) for entry in entries] == [True] * 100 + [False] * 51
    assert [entry.error is None for entry in entries] == [False] * 150 + [True]


@pytest.mark.parametrize(
    "error", [TimeoutError, BusyError("the file must be free", where="model", got="a lock", remedy="Wait")]
)
@pytest.mark.parametrize("runs", ["on the loop", "in a thread"])
def test_a_row_that_is_given_up_fails_without_its_neighbours(project, monkeypatch, error, runs):
    """A model that says so at once is no store that is away: there is time to score the others."""
    real = ModelArtifact.score_each

    def score_each(model, rows):
        if any(row["size__weight"] == 66.0 for row in rows):
            raise error
        return real(model, rows)

    monkeypatch.setattr(ModelArtifact, "score_each", score_each)
    bodies = [{**GOOD, "context": {**GOOD["context"], "weight": weight}} for weight in (12.5, 66.0, 14.5)]

    async def run():
        client = Client(project)
        if runs == "in a thread":
            client.app.servants["promise"].speed = Speed(2_000.0, 10.0)
            client.app.follow(client.app.servants)
        _, _, answer = await client.send("POST", BATCH, json.dumps({"requests": bodies}).encode())
        await client.close()
        client.app.engines.close()
        return json.loads(answer)["answers"]

    answers = asyncio.run(run())
    assert [(one.get("fallback"), one["score"] is None) for one in answers] == [
        (None, False), ("ok", True), (None, False)
    ]  # fmt: skip
