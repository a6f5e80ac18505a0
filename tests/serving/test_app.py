"""The application without a network: routes, limits, and the record before the answer."""

import asyncio
import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from types import SimpleNamespace

import pytest
from tests.serving.project import AT, REQUEST

from retrodict.decisions.loader import Loader
from retrodict.decisions.log import read_decisions
from retrodict.decisions.recorder import Recorder
from retrodict.registry import change, current
from retrodict.serving import http_request
from retrodict.serving.app import DecisionApp, Limits
from retrodict.serving.events import EventInlet
from retrodict.serving.routes import ROUTES
from retrodict.stores.streams import _writer
from retrodict.workspace import Workspace

BODY = json.dumps(REQUEST).encode()
SIMULATED = [(name.lower().encode(), value.encode()) for name, value in AT.items()]
DECIDE = "/v1/decisions/promise"


class Client:
    """Calls one application; ``started`` sees the beginning of each answer."""

    def __init__(self, workspace, *, simulated_time=True, started=None, **limits):
        self.workspace, self.recorder, self.inlet = workspace, Recorder(workspace), EventInlet(workspace)
        bounds = Limits(**{"body": 4096, "in_flight": 8, **limits})
        self.app = DecisionApp(workspace.clock, self.recorder, self.inlet, bounds, simulated_time=simulated_time)
        self.app.servants = Loader(workspace, health=self.app.health).load_current()
        self.started, self.received = started, 0

    async def send(self, method, path, body=b"", headers=SIMULATED, *, whole=True, stamps=None):
        """Status, headers and body of an answer; the request's body comes in one piece or byte by byte."""
        pieces = [body] if whole else [body[place : place + 1] for place in range(len(body))]
        messages = []

        async def receive():
            self.received += 1
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message):
            if message["type"] == "http.response.start" and self.started:
                self.started()
            messages.append(message)

        await self.app({"method": method, "path": path, "headers": headers, **(stamps or {})}, receive, send)
        return messages[0]["status"], dict(messages[0]["headers"]), messages[1]["body"]

    async def close(self):
        await self.recorder.close()
        self.app.failures.close()
        self.inlet.close()


@pytest.fixture
def workspace(deployed):
    with Workspace(deployed, actor="ana") as opened:
        yield opened


def call(workspace, *requests, **options):
    """Answers to requests, one after another."""

    async def run():
        client = Client(workspace, **options)
        try:
            return [await client.send(*request) for request in requests]
        finally:
            await client.close()

    return asyncio.run(run())


def test_every_route_answers_only_its_methods(workspace):
    """What answers GET answers HEAD without a body; any other method is a 405 that allows the right ones."""
    verbs = {}
    for method, pattern in ROUTES:
        verbs.setdefault(re.sub(r"{\w+}", "{}", pattern), []).extend({"GET": ["GET", "HEAD"]}.get(method, [method]))
    for method, pattern in ROUTES:
        path = pattern.replace("{policy}", "promise").replace("{table}", "parcels").replace("{service}", "x")
        path = path.replace("{model...}", "promise").replace("{model}", "promise")
        allowed = ", ".join(sorted(verbs[re.sub(r"{\w+}", "{}", pattern)]))
        wrong = [verb for verb in ("GET", "HEAD", "POST", "PUT", "DELETE") if verb not in allowed.split(", ")]
        refusals = call(workspace, *((verb, path) for verb in wrong))
        assert [(status, headers[b"allow"]) for status, headers, _ in refusals] == [(405, allowed.encode())] * len(
            wrong
        )
        if method == "GET" and "{" not in path and path != "/v1/audit":  # what takes longer, or is not there
            (status, headers, body), (head_status, head_headers, nothing) = call(
                workspace, ("GET", path), ("HEAD", path)
            )
            assert (status, head_status, nothing) == (200, 200, b"")
            assert headers[b"content-length"] == str(len(body)).encode()
            assert head_headers.keys() == headers.keys()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/decision/promise", "'/v1/decisions/{policy}'"),
        ("/metric", "'/metrics'"),
        ("/v1/decisions", "/v1/decisions/"),
        ("/v1/policies/promise/x", "/v1/policies/{policy}"),
        ("/v1/policies/promis", "'promise'"),
    ],
)
def test_a_wrong_address_names_the_near_ones(workspace, path, text):
    """A 404 says what there is."""
    ((status, _, body),) = call(workspace, ("POST" if "decision" in path else "GET", path))
    assert status == 404
    assert text in json.loads(body)["error"]


def test_the_page_lists_the_routes():
    """docs/serving.md names each address once, with its method."""
    lines = (Path(__file__).parents[2] / "docs" / "serving.md").read_text().splitlines()
    rows = [
        tuple(line.split("`")[1].split()) for line in lines if line.startswith(("| `GET ", "| `POST ", "| `DELETE "))
    ]
    assert rows == ROUTES


def test_an_answer_says_who_gave_it_and_in_what_time(workspace):
    """Of decisions alone, refusals among them, and not to whom it is not known."""
    answers = call(workspace, ("POST", DECIDE, BODY), ("POST", f"{DECIDE}:batch", b"{}"), ("GET", "/v1/policies"))
    name = json.loads(answers[0][2])["decision_id"]
    (logged,) = [one.stream for one in read_decisions(workspace) if one.record.id == name]
    for status, headers, _ in answers[:2]:
        assert (status, headers[b"retrodict-served-by"]) in ((200, logged.encode()), (400, logged.encode()))
        assert 0 < float(re.fullmatch(rb"total;dur=(\d+\.\d{3})", headers[b"server-timing"])[1]) < 60_000
    assert b"server-timing" not in answers[2][1]
    assert b"retrodict-served-by" not in answers[2][1]


def test_the_record_is_in_the_log_before_the_answer_begins(workspace):
    """Whoever gets an answer finds its record."""
    counts = []
    before = len(list(read_decisions(workspace)))
    answers = call(workspace, *[("POST", DECIDE, BODY)] * 2,
                   started=lambda: counts.append(len(list(read_decisions(workspace))) - before))  # fmt: skip
    assert [status for status, _, _ in answers] == [200, 200]
    assert counts == [1, 2]


def test_a_record_that_cannot_be_written_is_no_decision(workspace):
    """503 with Retry-After, and nothing of the decision in the answer."""

    class Full:
        def append(self, records):
            raise OSError(28, "No space left on device")

    async def run():
        client = Client(workspace)
        writer, client.recorder.log._writer = client.recorder.log._writer, Full()
        answer = await client.send("POST", DECIDE, BODY)
        client.recorder.log._writer = writer
        await client.close()
        return answer

    status, headers, body = asyncio.run(run())
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert json.loads(body).keys() == {"error"}


def test_a_full_disk_is_not_ready_until_it_has_room(workspace, monkeypatch):
    """503 with what is wrong from the first record that was refused; ready again by itself, without a decision."""

    write = _writer.write_all

    def refuse(descriptor, content, position):
        if len(content) > 64:  # the head of a stream is written over in its place
            raise OSError(28, "No space left on device")
        write(descriptor, content, position)

    async def run():
        client = Client(workspace)
        answers = [await client.send("GET", "/readyz")]
        with monkeypatch.context() as full:
            full.setattr(_writer, "write_all", refuse)
            answers += [await client.send(*request) for request in (("POST", DECIDE, BODY), *[("GET", "/readyz")] * 2)]
        answers += [await client.send(*request) for request in (("GET", "/readyz"), ("POST", DECIDE, BODY))]
        await client.close()
        return answers

    answers = asyncio.run(run())
    assert [status for status, _, _ in answers] == [200, 503, 503, 503, 200, 200]
    error = json.loads(answers[2][2])["error"]
    assert "the decision log cannot be written: stream decisions/" in error
    assert "No space left on device" in error


def test_more_requests_than_the_limit_are_told_to_come_back(workspace):
    """429 with Retry-After while one is under way; capacity is free again afterwards."""

    async def run():
        client, released = Client(workspace, in_flight=1), threading.Event()
        append = client.recorder.log.append
        client.recorder.log.append = lambda records, before: (released.wait(30), append(records))
        first = asyncio.create_task(client.send("POST", DECIDE, BODY))
        await asyncio.sleep(0.1)
        second = await client.send("POST", DECIDE, BODY)
        wrong = await client.send("POST", DECIDE, b"{")
        released.set()
        answers = [await first, second, wrong, await client.send("POST", DECIDE, b"{"),
                   await client.send("POST", DECIDE, BODY)]  # fmt: skip
        await client.close()
        return answers

    answers = asyncio.run(run())
    assert [status for status, _, _ in answers] == [200, 429, 429, 400, 200]
    assert answers[1][1][b"retry-after"] == b"1"


def waiting(client, micros, *headers, arrived=None):
    """Answer to a request whose last byte came so many microseconds ago."""
    complete = perf_counter_ns() - micros * 1_000
    stamps = {"retrodict.complete": complete, "retrodict.arrived": complete if arrived is None else arrived}
    return client.send("POST", DECIDE, BODY, [*SIMULATED, *headers], stamps=stamps)


BATCH, NORMAL = (b"retrodict-priority", b"batch"), (b"retrodict-priority", b"normal")


def test_who_has_waited_too_long_for_its_turn_is_told_to_come_back(workspace):
    """Before anything is computed, callers of batches first; a body that came slowly has not waited for the server."""

    async def run():
        client = Client(workspace, wait=4_000_000)
        before = len(list(read_decisions(workspace)))
        long, short = 4_100_000, 1_100_000
        answers = [await waiting(client, long), await waiting(client, short, BATCH),
                   await waiting(client, short), await waiting(client, short, NORMAL), await waiting(client, 0, BATCH),
                   await waiting(client, 0, arrived=perf_counter_ns() - 2 * 10**12),
                   await waiting(client, 0, (b"retrodict-priority", b"urgent"))]  # fmt: skip
        await client.close()
        return answers, len(list(read_decisions(workspace))) - before

    answers, decided = asyncio.run(run())
    assert [status for status, _, _ in answers] == [429, 429, 200, 200, 200, 200, 400]
    assert answers[0][1][b"retry-after"] == answers[1][1][b"retry-after"] == b"1"
    assert decided == 4


def test_callers_of_batches_have_half_of_the_places(workspace):
    """While one of two places is taken a batch is told to come back, and anybody else is answered."""

    async def run():
        client, released = Client(workspace, in_flight=2), threading.Event()
        append = client.recorder.log.append
        client.recorder.log.append = lambda records, before: (released.wait(30), append(records))
        first = asyncio.create_task(waiting(client, 0))
        await asyncio.sleep(0.1)
        batch, other = await waiting(client, 0, BATCH), asyncio.create_task(waiting(client, 0))
        await asyncio.sleep(0.1)
        released.set()
        answers = [await first, batch, await other]
        await client.close()
        return [status for status, _, _ in answers]

    assert asyncio.run(run()) == [200, 429, 200]


def deadline(text):
    return b"retrodict-deadline", text


@pytest.mark.parametrize("text", [b"", b"soon", b"-5", b"1e3", b"nan", b"1_0", b"2024-02-20T10:00Z", b"1" * 30])
def test_a_deadline_is_a_number_of_milliseconds(workspace, text):
    """Anything else is refused, and not repeated."""
    ((status, _, body),) = call(workspace, ("POST", DECIDE, BODY, [*SIMULATED, deadline(text)]))
    assert status == 400
    assert "Retrodict-Deadline" in json.loads(body)["error"]
    assert not text or text.decode() not in json.loads(body)["error"].replace("250 or 12.5", "")


def test_a_deadline_is_read_for_an_id_that_was_answered_too(workspace):
    """What is wrong is refused; what has passed is said, and costs no look at the log."""
    key = (b"idempotency-key", b"again")
    ask = ("POST", DECIDE, BODY)
    answers = call(workspace, (*ask, [*SIMULATED, key]), (*ask, [*SIMULATED, key, deadline(b"junk")]),
                   (*ask, [*SIMULATED, key, deadline(b"0")]),
                   (*ask, [*SIMULATED, key, deadline(b"60000")]))  # fmt: skip
    assert [status for status, _, _ in answers] == [200, 400, 504, 200]
    assert answers[0][2] == answers[3][2]


def test_a_caller_with_an_id_waits_no_longer_than_its_deadline(workspace):
    """Another call holds the id: 504 when the caller waits no more, and not 409 after five seconds."""

    async def run():
        client = Client(workspace)
        claim = client.app.requests.wait("busy", "")
        try:
            sending = client.send("POST", DECIDE, BODY, [*SIMULATED, (b"idempotency-key", b"busy"), deadline(b"100")])
            return await asyncio.wait_for(sending, 4), client.app.telemetry.named()
        finally:
            claim.release()
            await client.close()

    (status, _, body), counters = asyncio.run(run())
    assert (status, "deadline of the caller has passed" in json.loads(body)["error"]) == (504, True)
    assert counters['decisions_failed_total{policy="promise",status="504",error="LateError"}'] == 1


@pytest.mark.parametrize(
    "path", ["/v1/decisions:batch/promise", "/v1/policies:batch/promise", "/v1/decisions/:batch/promise"]
)
def test_an_action_stands_behind_its_parameter(workspace, path):
    ((status, _, _),) = call(workspace, ("POST", path, b'{"requests": []}'))
    assert status == 404


def test_work_past_the_callers_deadline_is_not_begun(workspace):
    """504 and no record if it had passed before; a decision if it is long enough."""

    async def run():
        client = Client(workspace, wait=60_000_000)
        before = len(list(read_decisions(workspace)))
        answers = [await waiting(client, 300_000, deadline(b"299.5")), await waiting(client, 0, deadline(b"0")),
                   await waiting(client, 1_000, deadline(b"60000"))]  # fmt: skip
        await client.close()
        return answers, len(list(read_decisions(workspace))) - before

    answers, decided = asyncio.run(run())
    assert [status for status, _, _ in answers] == [504, 504, 200]
    assert decided == 1


def test_a_deadline_that_passes_between_two_stages_ends_in_the_fallback(workspace):
    """The caller's where it is the smaller, on record; the policy's of five seconds, whatever the caller says."""

    async def run():
        client = Client(workspace, wait=60_000_000)
        features = client.app.servants["promise"]._features
        read = features.read

        def slowly(*arguments, **options):
            time.sleep(1.2)
            return read(*arguments, **options)

        features.read = slowly
        try:
            answers = [await waiting(client, 0, deadline(b"1000")), await waiting(client, 0, deadline(b"60000")),
                       await waiting(client, 4_900_000, deadline(b"60000"))]  # fmt: skip
        finally:
            features.read = read
            await client.close()
        return answers

    answers = asyncio.run(run())
    assert [status for status, _, _ in answers] == [200, 200, 200]
    ids = [json.loads(body)["decision_id"] for _, _, body in answers]
    records = {item.record.id: item.record for item in read_decisions(workspace)}
    assert [records[name].error for name in ids] == ["TimeoutError", None, "TimeoutError"]
    assert [bool(records[name].fallback) for name in ids] == [True, False, True]


def test_whose_deadline_passed_in_the_queue_is_told_to_come_back(workspace):
    """Nothing was tried that a fallback could stand for. A wrong name is said before a wrong body."""

    async def run():
        client = Client(workspace, wait=60_000_000)
        answers = [await waiting(client, 5_100_000), await waiting(client, 0)]
        unknown = await client.send("POST", "/v1/decisions/promises", b"{}", [*SIMULATED])
        await client.close()
        return answers, unknown

    answers, unknown = asyncio.run(run())
    assert [status for status, _, _ in answers] == [429, 200]
    assert unknown[0] == 404


def test_who_has_left_before_the_work_begins_costs_none(workspace):
    """A connection that is gone by its turn: no decision and no record."""

    async def run():
        client = Client(workspace)
        before = len(list(read_decisions(workspace)))

        async def gone():
            return {"type": "http.disconnect"}

        messages = []

        async def send(message):
            messages.append(message)

        await client.app({"method": "POST", "path": DECIDE, "headers": SIMULATED}, gone, send)
        await client.close()
        return messages[0]["status"], len(list(read_decisions(workspace))) - before

    assert asyncio.run(run()) == (499, 0)


def test_a_compressed_body_is_refused_by_name(workspace):
    """It would otherwise be taken for damaged JSON."""
    encodings = [(b"gzip", 415), (b"GZIP, identity", 415), (b"", 415), (b"identity", 200), (b"Identity", 200)]
    requests = [("POST", DECIDE, BODY, [*SIMULATED, (b"content-encoding", name)]) for name, _ in encodings]
    assert [status for status, _, _ in call(workspace, *requests)] == [status for _, status in encodings]


@pytest.mark.parametrize(("path", "limit"), [(DECIDE, "body"), ("/v1/events/parcels", "events_body")])
def test_a_body_over_the_limit_is_not_read(workspace, path, limit):
    """By its announced length before the first byte; by what came, where no length was announced."""

    async def run():
        client = Client(workspace, **{limit: 10})
        announced = await client.send("POST", path, b"[]", [(b"content-length", b"11")])
        unread = client.received
        streamed = await client.send("POST", path, b"x" * 100, whole=False)
        taken = client.received
        exact = await client.send("POST", path, b" " * 8 + b"[]", whole=False)
        await client.close()
        return announced[0], unread, streamed[0], taken, exact[0]

    assert asyncio.run(run())[:4] == (413, 0, 413, 11)
    assert asyncio.run(run())[4] != 413


def test_simulated_time_is_for_replays(workspace):
    """The moment of the record is the header's, or the header is refused."""
    ((status, _, body),) = call(workspace, ("POST", DECIDE, BODY))
    record = next(
        item.record for item in read_decisions(workspace) if item.record.id == json.loads(body)["decision_id"]
    )
    assert (status, record.time) == (200, 1_708_423_200_000_000)
    ((status, _, body),) = call(workspace, ("POST", DECIDE, BODY), simulated_time=False)
    assert (status, "--replay" in json.loads(body)["error"]) == (400, True)


@pytest.mark.parametrize("year", ["0001", "1899", "2200", "9999"])
def test_a_simulated_time_centuries_away_is_refused(workspace, year):
    """The year 1 would end in the fallback, the year 9999 be scored."""
    headers = [(b"retrodict-time", f"{year}-02-20T10:00:00Z".encode())]
    ((status, _, body),) = call(workspace, ("POST", DECIDE, BODY, headers))
    assert (status, "in the years 1900 to 2199" in json.loads(body)["error"]) == (400, True)


def test_a_simulated_time_that_has_not_been_is_refused(workspace):
    """A record of next year would count in what is measured then."""
    headers = [(b"retrodict-time", b"2199-02-20T10:00:00Z")]
    before = len([*read_decisions(workspace)])
    ((status, _, body),) = call(workspace, ("POST", DECIDE, BODY, headers))
    assert (status, "as of now or a moment before" in json.loads(body)["error"]) == (400, True)
    assert len([*read_decisions(workspace)]) == before


def test_two_simulated_times_are_refused(workspace):
    """Either would be as good."""
    headers = [(b"retrodict-time", b"2024-02-20T10:00:00Z")] * 2
    ((status, _, body),) = call(workspace, ("POST", DECIDE, BODY, headers))
    assert (status, "a header must stand once" in json.loads(body)["error"]) == (400, True)


def test_a_number_that_no_record_can_hold_is_refused(workspace):
    """400, not an error of the server."""
    body = json.dumps({**REQUEST, "context": {**REQUEST["context"], "extra": 2**80}}).encode()
    ((status, _, answer),) = call(workspace, ("POST", DECIDE, body))
    assert (status, "64 bits" in json.loads(answer)["error"]) == (400, True)


def test_nothing_deployed_is_not_ready(workspace):
    """503 says what to do; so does a revision that cannot be loaded."""

    async def run():
        client = Client(workspace)
        client.app.problem = "the artifact is not what was stored"
        broken = await client.send("GET", "/readyz")
        client.app.problem, client.app.servants = None, {}
        empty = await client.send("GET", "/readyz")
        await client.close()
        return broken, empty

    broken, empty = asyncio.run(run())
    assert (broken[0], empty[0]) == (503, 503)
    assert b"not what was stored" in broken[2]
    assert b"retrodict deploy" in empty[2]


def test_values_that_nothing_reads_are_named(workspace):
    """Once to their caller, alone, again by an id and in a batch; such decisions are counted, and made as ever."""
    typo = {**REQUEST, "context": {**REQUEST["context"], "wieght": 3, "colour": "red"}}
    key = [*SIMULATED, (b"idempotency-key", b"unread")]

    async def run():
        client = Client(workspace)
        body = json.dumps(typo).encode()
        batch = json.dumps({"requests": [typo, REQUEST]}).encode()
        many = json.dumps(
            {**REQUEST, "context": {**REQUEST["context"], **dict.fromkeys(map(str, range(200)))}}
        ).encode()
        answers = [await client.send(*one) for one in (
            ("POST", DECIDE, BODY), ("POST", DECIDE, body), ("POST", DECIDE, body, key), ("POST", DECIDE, body, key),
            ("POST", f"{DECIDE}:batch", batch), ("POST", DECIDE, many))]  # fmt: skip
        counts = client.app.telemetry.named()
        await client.close()
        return [json.loads(body) for _, _, body in answers], counts

    (plain, warned, first, again, several, many), counts = asyncio.run(run())
    text = "nothing that decides reads {} of the context"
    expected = [text.format("'wieght'") + "; did you mean 'weight'?", text.format("'colour'")]
    assert [one.get("warnings") for one in (plain, warned, first, again)] == [None, *[expected] * 3]
    assert (again, plain["score"]) == (first, warned["score"])
    assert [one.get("warnings") for one in several["answers"]] == [expected, None]
    assert len(many["warnings"]) == 5
    assert counts['decisions_unread_total{policy="promise"}'] == 4


def test_a_condition_of_an_experiment_that_a_request_does_not_fit_is_counted(workspace):
    """Each decision once, by what has the condition; none is refused for it."""
    state = {"name": "tone", "unit": ["weight"], "seed": "s", "variants": {"a": 0.5, "b": 0.5}, "share": 1.0,
             "layer": None, "slot": [0, 1], "where": "depot = 5"}  # fmt: skip
    revision = current(workspace)["promise"]
    change(workspace, replace(revision.deployment, experiments=[state]), action="experiment", reason="test",
           after=revision.revision)  # fmt: skip

    async def run():
        client = Client(workspace)
        answers = [await client.send("POST", DECIDE, BODY) for _ in range(2)]
        _, _, text = await client.send("GET", "/metrics")
        await client.close()
        return [status for status, _, _ in answers], text.decode()

    statuses, text = asyncio.run(run())
    assert statuses == [200, 200]
    assert 'retrodict_conditions_failed_total{policy="promise",condition="experiment tone"} 2' in text


def test_what_breakers_count_is_counted_once(workspace):
    """However often somebody looks."""
    workspace.guard("keys", url="redis://127.0.0.1:1")
    guard = workspace.breakers["keys"]

    async def run():
        client = Client(workspace)
        totals = []
        for refused in (3, 3, 5):
            guard.counts["refused"] = refused
            client.app.facts()
            totals.append(client.app.telemetry.named()['store_refused_total{store="keys"}'])
        await client.close()
        return totals

    try:
        assert asyncio.run(run()) == [3, 3, 5]
    finally:
        workspace.breakers = {name: one for name, one in workspace.breakers.items() if name != "keys"}


def test_a_part_that_is_away_is_named(workspace):
    """200 as long as something in force decides without it; models that only score have no other answer."""

    async def run():
        client = Client(workspace)
        answers = []
        for reached in ({}, {"features": True, "models": False}):
            client.app.reached = reached
            answers.append(await client.send("GET", "/readyz"))
        alone = SimpleNamespace(policy=SimpleNamespace(policy=SimpleNamespace(decide={})))
        client.app.servants = {"late_parcel": alone}
        answers.append(await client.send("GET", "/readyz"))
        client.app.reached = {"models": True}
        answers.append(await client.send("GET", "/readyz"))
        await client.close()
        return [(status, json.loads(body)) for status, _, body in answers]

    whole, away, unanswered, again = asyncio.run(run())
    assert "parts" not in whole[1]
    assert (away[0], away[1]["parts"]) == (200, {"features": "reached", "models": "away"})
    assert (unanswered[0], "without the server of models" in unanswered[1]["error"]) == (503, True)
    assert (again[0], again[1]["parts"]) == (200, {"models": "reached"})


def test_a_slow_body_holds_no_place_and_not_for_ever(workspace, monkeypatch):
    """Half-sent bodies neither shut others out nor stay: the others are answered, the slow one gets 408."""
    monkeypatch.setattr(http_request, "BODY_S", 0.2)

    async def run():
        client = Client(workspace, in_flight=1)

        async def slow():
            messages = []

            async def receive():
                await asyncio.sleep(60)

            async def send(message):
                messages.append(message)

            await client.app({"method": "POST", "path": DECIDE, "headers": SIMULATED}, receive, send)
            return messages[0]["status"]

        try:
            waiting = [asyncio.create_task(slow()) for _ in range(3)]
            await asyncio.sleep(0)
            status, *_ = await client.send("POST", DECIDE, BODY)
            return status, await asyncio.gather(*waiting)
        finally:
            await client.close()

    assert asyncio.run(run()) == (200, [408, 408, 408])


def test_a_request_that_gets_no_decision_is_counted_by_its_kind(workspace, monkeypatch):
    """Per policy, status and kind of error, each of a batch on its own; no name of a caller, and no success."""
    wrong = json.dumps({**REQUEST, "context": {"weight": "s3cret"}}).encode()
    many = json.dumps({"requests": [REQUEST, json.loads(wrong), {"entities": {"made_up": 1}, "context": {}}]}).encode()

    async def run():
        client = Client(workspace)
        try:
            await client.send("POST", DECIDE, BODY)
            await client.send("POST", DECIDE, wrong)
            await client.send("POST", DECIDE, b"{")
            await client.send("POST", "/v1/decisions/made_up", BODY)
            await client.send("POST", "/v1/features/made_up", BODY)
            await client.send("POST", DECIDE, b"x" * 5000)
            await client.send("POST", f"{DECIDE}:batch", many)
            monkeypatch.setattr(client.app, "_judge", lambda *_: 1 / 0)
            await client.send("POST", DECIDE, BODY)
            return client.app.telemetry.named()
        finally:
            await client.close()

    counters = {name: n for name, n in asyncio.run(run()).items() if name.startswith("decisions_failed_total")}
    assert counters == {
        'decisions_failed_total{policy="promise",status="400",error="InputError"}': 4,
        'decisions_failed_total{policy="_other",status="404",error="NotFoundError"}': 1,
        'decisions_failed_total{policy="promise",status="413",error="Refused"}': 1,
        'decisions_failed_total{policy="promise",status="500",error="ZeroDivisionError"}': 1,
    }
