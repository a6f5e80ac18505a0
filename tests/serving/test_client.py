"""Asking a server: its own words in the error that says what to do, another attempt only where it can do no harm."""

import asyncio
import json
import math
import socket
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from tests.serving.process import Server
from tests.serving.project import REQUEST, make_project
from tests.serving.test_callers import certificate

from retrodict.client import AsyncClient, Client
from retrodict.core.clock import parse_time
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError, RetryableError
from retrodict.decisions.log import read_decisions
from retrodict.workspace import Workspace
from retrodict.workspace.servers import server_url

GOOD = b'{"decision_id": "x", "decision": "ok", "score": 0.5, "model": "m@1", "policy": "p#1", "later": 1}'
NOW = parse_time("2024-02-20T10:00Z")


def said(status, body, *headers):
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


DROP, SILENCE = None, "nothing"


@contextmanager
def scripted(*script):
    """A server that gives one answer after the other, the last one for ever; yields its address and what it got."""
    answers, requests, connections, silence = list(script), [], [], threading.Event()

    def read(stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return None
            head += line
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return (first, headers, stream.read(int(headers.get("content-length", 0))))

    def serve(connection):
        with connection, suppress(OSError), connection.makefile("rb") as stream:
            while (request := read(stream)) is not None:
                requests.append(request)
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if answer is DROP:
                    return
                if answer is SILENCE:
                    silence.wait(30)
                    return
                for piece in answer if isinstance(answer, list) else [answer]:
                    connection.sendall(piece)
                    silence.wait(0.2 if isinstance(answer, list) else 0)

    def accept():
        with suppress(OSError):
            while True:
                connections.append(listener.accept()[0])
                threading.Thread(target=serve, args=[connections[-1]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests, connections
        finally:
            silence.set()
            listener.shutdown(socket.SHUT_RDWR)


def by_waiting(url, call, **options):
    with Client(url, **options) as client:
        return call(client)


def by_awaiting(url, call, **options):
    async def run():
        async with AsyncClient(url, **options) as client:
            return await call(client)

    return asyncio.run(run())


both = pytest.mark.parametrize("ask", [by_waiting, by_awaiting])


def decide(client):
    return client.decide("p", {"customer": 1})


@both
def test_an_answer_that_drips_ends_with_the_time_there_is(ask):
    """However soon each byte comes: the time is that of a call."""
    head, body = said(200, GOOD)[: -len(GOOD)], [GOOD[place : place + 1] for place in range(len(GOOD))]
    with scripted([head, *body]) as (url, _, _):
        began = time.monotonic()
        with pytest.raises(RetryableError, match="ReadTimeout"):
            ask(url, decide, timeout=1.0, retries=0)
        assert time.monotonic() - began < 10  # the whole answer takes 20 seconds


@both
def test_a_server_whose_certificate_is_given_is_asked(ask, tmp_path):
    """Over TLS, what is sent and what comes back."""
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                while b'"customer"' not in b"".join(requests):
                    requests.append(connection.recv(65536))
                connection.sendall(said(200, GOOD))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            answer = ask(f"https://localhost:{listener.getsockname()[1]}", decide, ca=cert)
        finally:
            thread.join()
    assert answer.decision == json.loads(GOOD)["decision"]


@both
def test_a_missing_key_and_a_certificate_of_nobody_are_told(ask, tmp_path):
    """Both say what to give."""
    refusal = said(401, b'{"error": "a key must be sent"}')
    with scripted(refusal) as (url, _, _), pytest.raises(RefusedError, match="RETRODICT_API_KEY"):
        ask(url, decide)
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet():
            with suppress(OSError):
                context.wrap_socket(listener.accept()[0], server_side=True)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(RefusedError, match="the certificate of the server must be trusted"):
            ask(f"https://localhost:{listener.getsockname()[1]}", decide)
        thread.join()


@both
@pytest.mark.parametrize(
    ("timing", "ms"), [("total;dur=1.25", 1.25), ("proxy;dur=9, total;dur=2", 2.0), ("subtotal;dur=3", None)]
)
def test_an_answer_has_who_gave_it_and_in_what_time(ask, timing, ms):
    """Each of many has that of the call; None where the server says nothing of it."""
    many = b'{"answers": [' + GOOD + b", " + GOOD + b"]}"
    headers = f"server-timing: {timing}", "retrodict-served-by: decisions/3"
    with scripted(said(200, GOOD, *headers), said(200, many, *headers), said(200, GOOD)) as (url, _, _):
        one = ask(url, decide)
        others = ask(url, lambda client: client.decide_many("p", [{}, {}]))
        nobody = ask(url, decide)
    assert {(answer.served_by, answer.server_ms) for answer in (one, *others)} == {(ms and "decisions/3", ms)}
    assert (nobody.served_by, nobody.server_ms) == (None, None)


@both
def test_what_is_sent_and_what_comes_back(ask, monkeypatch):
    """The policy's name is part of the address, whatever it holds; times and NumPy's numbers are JSON's."""
    monkeypatch.setenv("RETRODICT_API_KEY", "secret")
    context = {
        "at": datetime(2024, 1, 2, tzinfo=UTC),
        "n": np.int64(3),
        "x": np.float32(0.5),
        "no": math.nan,
        "then": pd.Timestamp("2024-01-03", tz="UTC"),
    }
    with scripted(said(200, GOOD, "idempotency-replayed: true")) as (url, requests, _):
        answer = ask(url, lambda one: one.decide("a/b", {"c": "é"}, context, key="k", request_id="r", at=0))
        ask(url, decide, key="other")
    assert (answer.decision, answer.score, answer.replayed, answer.body["later"]) == ("ok", 0.5, True, 1)
    (first, headers, body), (_, others, _) = requests
    assert first == "POST /v1/decisions/a%2Fb HTTP/1.1"
    then = "2024-01-03T00:00:00+00:00"
    wanted = {"at": "2024-01-02T00:00:00Z", "n": 3, "x": 0.5, "no": None, "then": then}
    assert json.loads(body) == {"entities": {"c": "é"}, "context": wanted, "explain": False, "key": "k"}
    assert headers["authorization"] == "bearer secret"
    assert others["authorization"] == "bearer other"
    assert (headers["idempotency-key"], headers["retrodict-time"]) == ("r", "1970-01-01t00:00:00z")
    assert 0 < int(headers["retrodict-deadline"]) <= 30_000
    assert "idempotency-key" not in others


@both
@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InputError), (401, RefusedError), (403, RefusedError), (404, NotFoundError), (409, RefusedError),
     (429, RetryableError), (503, RetryableError), (504, RetryableError), (500, IntegrityError)],
)  # fmt: skip
def test_a_refusal_keeps_the_servers_words(ask, status, error):
    """As the error that says what the caller can do; once, but where there is no capacity."""
    with scripted(said(status, b'{"error": "a number must be small."}')) as (url, requests, _):
        with pytest.raises(error) as caught:
            ask(url, decide)
        assert len(requests) == (3 if status == 503 else 1)
    assert type(caught.value) is error
    assert f"status {status}: a number must be small." in str(caught.value)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"{}"), (404, b"gone"), (200, b"[1]")])
def test_another_server_is_no_retrodict_server(status, body):
    """Something answers, but no decision."""
    with scripted(said(status, body)) as (url, _, _), pytest.raises(InputError, match="a Retrodict server must answer"):
        by_waiting(url, decide)


@both
def test_nobody_there_may_be_tried_again(ask):
    """With the command that starts one; a wrong address is wrong."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(RetryableError, match="retrodict serve"):
        ask(url, decide)
    with pytest.raises(InputError, match="http://HOST:PORT"):
        ask("127.0.0.1:8400", decide)


FULL = said(429, b'{"error": "full"}', "retry-after: 0")


@both
@pytest.mark.parametrize(
    ("script", "options", "attempts"),
    [
        ([FULL, FULL, said(200, GOOD)], {}, 3),
        ([FULL, FULL, FULL], {}, 3),
        ([FULL, FULL], {"retries": 0}, 1),
        ([FULL] * 6, {"retries": 5}, 6),
        ([DROP, said(200, GOOD)], {}, 1),  # perhaps it was decided: nobody may ask twice
        ([DROP, FULL, said(200, GOOD)], {"ids": True}, 3),
        ([said(409, b'{"error": "under way"}', "retry-after: 0"), said(200, GOOD)], {"ids": True}, 2),
        ([said(409, b'{"error": "another"}'), said(200, GOOD)], {"ids": True}, 1),
        ([said(429, b'{"error": "full"}', "retry-after: 60"), said(200, GOOD)], {}, 1),  # nobody waits for so long
    ],
)  # fmt: skip
def test_another_attempt_is_made_where_it_does_no_harm(ask, script, options, attempts):
    """As often as was asked for; with one id for all attempts of a call."""
    with scripted(*script) as (url, requests, _):
        works = script[-1] not in (FULL, DROP) and attempts == len(script)
        if works:
            assert ask(url, decide, **options).decision == "ok"
        else:
            with pytest.raises((RetryableError, RefusedError)):
                ask(url, decide, **options)
        assert len(requests) == attempts
        ids = Counter(headers.get("idempotency-key") for _, headers, _ in requests)
        assert len(ids) == 1
        assert (None in ids) != bool(options.get("ids"))


@both
def test_a_call_ends_with_its_time(ask):
    """Also where nothing ever comes, and for all attempts together."""
    with scripted(SILENCE) as (url, requests, _), pytest.raises(RetryableError, match="ReadTimeout"):
        ask(url, decide, timeout=0.2, ids=True, retries=10)
    assert int(requests[0][1]["retrodict-deadline"]) <= 200


def test_connections_are_kept_and_shared(monkeypatch):
    """One for calls that follow each other; no more than threads for those at once. A proxy is not asked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with scripted(said(200, GOOD)) as (url, requests, connections), Client(url) as client:
        for _ in range(20):
            decide(client)
        assert len(connections) == 1
        with ThreadPoolExecutor(8) as pool:
            assert {answer.decision for answer in pool.map(lambda _: decide(client), range(80))} == {"ok"}
        assert len(requests) == 100
        assert len(connections) <= 9


def test_an_infinity_is_refused_by_the_name_of_its_value():
    """JSON has none: it arrived as null, and was decided by; NaN is a value that is missing, as in ``p.decide``."""
    with scripted(said(200, GOOD)) as (url, requests, _), Client(url) as client:
        with pytest.raises(InputError, match="value 'amount': a number must be finite; got 'an infinity'"):
            client.decide("p", {}, {"amount": math.inf})
        with pytest.raises(InputError, match="value 'amount': a number must be finite"):
            client.decide("p", {}, {"amount": np.float32(math.inf)})
        client.decide("p", {}, {"amount": math.nan})
        assert [json.loads(body)["context"] for _, _, body in requests] == [{"amount": None}]


def test_what_cannot_be_sent_is_refused():
    """Before anything is: ids, options, values that JSON has not."""
    with scripted(said(200, GOOD)) as (url, requests, _):
        for call, options in [(lambda one: one.decide("p", {}, request_id="ü"), {}),
                              (lambda one: one.decide("p", {}, request_id="x" * 201), {}),
                              (lambda one: one.decide("p", {"a": object()}), {}),
                              (lambda one: one.decide("p", {}, {"a": np.float32(math.inf)}), {}),
                              (lambda one: one.push("t", [{"a": -math.inf}]), {}),
                              (decide, {"timeout": 0}), (decide, {"retries": 11})]:  # fmt: skip
            with pytest.raises(InputError):
                by_waiting(url, call, **options)
        assert requests == []


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    make_project(folder, "").close()
    return folder


@both
def test_a_real_server_decides_once_for_each_id(ask, root):
    """Single ones, batches with their failures, other addresses; events and services are refused in its words."""
    server = Server(root, "--replay", "--no-consume")
    url = f"http://127.0.0.1:{server.port}"
    case, name = (REQUEST["entities"], REQUEST["context"]), f"{ask.__name__}-1"
    try:
        first = ask(url, lambda one: one.decide("promise", *case, request_id=name, at=NOW, explain=True))
        again = ask(url, lambda one: one.decide("promise", *case, request_id=name, at=NOW, explain=True))
        assert (again.decision_id, again.replayed, first.replayed) == (first.decision_id, True, False)
        assert len(first.reasons) >= 1
        cases = [{"entities": case[0], "context": case[1]}, {"entities": {}, "context": {}}]
        many = ask(url, lambda one: one.decide_many("promise", cases, at=NOW), ids=True)
        assert [answer.status for answer in many] == [200, 400]
        assert many[0].decision in ("ok", "warn")
        assert "depot" in many[1].error
        jobs = {ask(url, lambda one: one.submit("promise", cases, key=f"{name}-job", at=NOW))["job"] for _ in range(2)}
        assert len(jobs) == 1
        job = {"state": "queued"}
        while job["state"] not in ("done", "failed"):
            job = ask(url, lambda one: one.get(f"/v1/jobs/{next(iter(jobs))}"))
        assert [answer["status"] for answer in job["answers"]] == [200, 400]
        with pytest.raises(InputError, match="callback"):
            ask(url, lambda one: one.submit("promise", cases, callback="https://elsewhere.example/x"))
        assert "promise" in ask(url, lambda one: one.get("/v1/status"))["policies"]
        with pytest.raises(NotFoundError, match="service"):
            ask(url, lambda one: one.features("none", [{"depot": "north"}]))
        with pytest.raises(NotFoundError, match="table"):
            ask(url, lambda one: one.push("none", [{}]))
    finally:
        server.stop()
    with Workspace(root) as workspace:
        ids = Counter(one.record.request_id for one in read_decisions(workspace))
    assert ids[name] == 1
    assert None not in ids


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8400"), ("::", "http://[::1]:8400"), ("example.org", "http://example.org:8400")],
)
def test_the_address_is_one_that_can_be_reached(tmp_path, host, url):
    """What a server listens on is not always what a caller connects to."""
    (tmp_path / "retrodict.toml").write_text(f'[project]\nname = "p"\n[serving]\nhost = "{host}"\n')
    with Workspace(tmp_path) as workspace:
        assert server_url(workspace) == url
