"""Who is let in, who waits, and who is told to come back from the head of a request alone."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from time import perf_counter_ns

import httptools
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.project import AT, REQUEST
from tests.serving.test_app import Client

from retrodict.serving.connection import BoundedConnection, DrainingState
from retrodict.serving.failures import read_failures
from retrodict.serving.http_answer import RefusedRequestError
from retrodict.serving.turns import Turns, read_head

BODY = json.dumps(REQUEST).encode()
SECOND = 1_000_000


def ask(body=BODY, *lines, method="POST", path="/v1/decisions/promise", length=None):
    """Bytes of a request."""
    head = [f"{method} {path} HTTP/1.1", "Host: x", f"Retrodict-Time: {AT['Retrodict-Time']}", *lines]
    if length is not False:
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Seen:
    """What the parser of the server makes of some bytes."""

    def __init__(self, data):
        self.url, self.length, self.messages, self.keep = b"", 0, 0, False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url):
        self.url += url

    def on_body(self, body):
        self.length += len(body)

    def on_message_complete(self):
        self.messages += 1
        self.keep = self.parser.should_keep_alive()


LINES = st.sampled_from(
    ["Content-Length: 7", "content-length: 3", "Transfer-Encoding: chunked", "Connection: close",
     "Expect: 100-continue",
     "Connection: keep-alive", "Upgrade: h2c", "X: Content-Length: 9", "Retrodict-Priority: batch", "Accept: */*",
     "connection:close", "CONTENT-LENGTH:4", "Connection:  close", "Connection: a, close", "Content-Length : 4"]
)  # fmt: skip


@given(
    st.lists(LINES, max_size=4), st.binary(max_size=40), st.integers(0, 40), st.sampled_from(["POST", "GET", "PUT"]),
    st.sampled_from(["/v1/decisions/promise", "/v1/decisions/promise:batch", "/x?y=1"]),
)  # fmt: skip
def test_what_is_turned_away_without_a_parser_is_one_whole_request_to_the_parser(lines, body, length, method, path):
    """So nothing of it can be taken for another request, and nothing of the next one for its body."""
    data = ask(body, *lines, method=method, path=path, length=length)
    head = read_head(data)
    if head is None:
        assert (
            set(lines) - {"Accept: */*", "Retrodict-Priority: batch", "X: Content-Length: 9"}
            or method != "POST"
            or len(body) > length
        )
        return
    seen = Seen(data + b"x" * head.missing)
    assert (seen.messages, seen.keep, seen.url, method) == (1, True, head.path, "POST")
    assert seen.length == len(body) + head.missing
    assert head.batch == ("Retrodict-Priority: batch" in lines)


def test_a_long_body_is_not_waited_for():
    """Who sends megabytes gets no second request on the connection: the application closes it."""
    assert read_head(ask(b"", length=1 << 21)) is None
    assert read_head(ask(b"", length="1" * 5000)) is None
    assert read_head(ask(b"", length=1 << 19)).missing == 1 << 19


class Work:
    """So many requests at once, each of which holds the loop for some milliseconds."""

    def __init__(self, turns, events, *, seconds=0.002):
        self.turns, self.events, self.seconds = turns, events, seconds

    async def __call__(self, place, *, batch=False, many=False):
        try:
            async with self.turns.turn(perf_counter_ns(), batch=batch, many=many):
                time.sleep(self.seconds)  # noqa: ASYNC251  # holds the loop, as deciding does
                self.events.append(("done", place))
                await asyncio.sleep(0)
        except RefusedRequestError as refused:
            self.events.append(("refused" if refused.answer.status == 429 else "wrong", place))


def test_the_loop_turns_while_many_requests_wait():
    """What came together is not worked on together: sockets are looked at in between, and the order is kept."""

    async def run():
        turns, events, looks = Turns(500, 3600 * SECOND), [], 0
        tasks = [asyncio.create_task(Work(turns, events)(place)) for place in range(100)]
        while not all(task.done() for task in tasks):
            looks += 1
            await asyncio.sleep(0)
        return events, looks, turns.taken, turns.queued

    events, looks, taken, queued = asyncio.run(run())
    assert events == [("done", place) for place in range(100)]
    assert looks > 30  # four without turns
    assert (taken, queued) == (0, 0)


def test_who_would_wait_too_long_is_refused_before_anything_is_done():
    """By how long the queue is, callers of batches first; once it is short again the next one is let in."""

    async def run():
        turns, events = Turns(500, 4 * SECOND), []  # a queue of half a second, a quarter of it for batches
        work = Work(turns, events, seconds=0.02)
        await asyncio.gather(*[work(place) for place in range(20)])  # what a request takes is known by now
        events.clear()
        await asyncio.gather(*[work(place, batch=place % 2 == 0) for place in range(60)])
        first, events[:] = list(events), []
        await work(99)
        return first, events

    first, last = asyncio.run(run())
    refused = [place for what, place in first if what == "refused"]
    done = [place for what, place in first if what == "done"]
    assert first[: len(refused) + 1] == [("done", 0), *(("refused", place) for place in refused)]  # all at once
    assert len(refused) > 20
    assert len([place for place in done if place % 2]) > len([place for place in done if place % 2 == 0])
    assert last == [("done", 99)]


def test_a_body_of_many_requests_may_wait_four_times_as_long():
    """Eight callers of bodies that take long are no overload; of single requests so long a queue is."""

    async def run(many):
        turns, events = Turns(500, 4 * SECOND), []  # a queue of a second, or of four
        work = Work(turns, events, seconds=0.02)
        await asyncio.gather(*[work(place) for place in range(20)])
        events.clear()
        await asyncio.gather(*[work(place, many=many) for place in range(100)])
        return len([place for what, place in events if what == "refused"])

    assert asyncio.run(run(many=True)) == 0
    assert asyncio.run(run(many=False)) > 20


def test_a_caller_that_is_cancelled_in_the_queue_leaves_its_place():
    """And holds up nobody behind it."""

    async def run():
        turns, events = Turns(3, 3600 * SECOND), []
        tasks = [asyncio.create_task(Work(turns, events)(place)) for place in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return events, turns.taken

    assert asyncio.run(run()) == ([("done", 0), ("done", 2)], 0)


@asynccontextmanager
async def listening(workspace, places):
    """Connections as the server makes them, to an app whose log stands still until ``go`` is set."""
    client, go = Client(workspace, in_flight=places), asyncio.Event()
    write = client.recorder.write

    async def wait(*records, claims=()):
        await go.wait()
        await write(*records, claims=claims)

    client.recorder.write = wait
    config, state = uvicorn.Config(client.app, log_config=None, lifespan="off", proxy_headers=False), DrainingState()
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedConnection(config, state, {}), "127.0.0.1", 0
    )
    writers = []

    async def dial():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writers.append(writer)
        return reader, writer

    try:
        yield client, go, dial
    finally:
        go.set()
        await asyncio.gather(*state.tasks)
        for writer in writers:
            writer.close()
        server.close()
        await until(lambda: not state.connections)
        await client.close()


async def answer(reader):
    """Status, headers and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    return int(head[0].split(" ")[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


async def until(condition):
    """Wait for what others do."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # nothing says that it has come
            await asyncio.sleep(0.001)


async def busy(client, dial, count=1):
    """As many requests under way as are said; their connections."""
    callers = []
    for taken in range(1, count + 1):
        callers.append(await dial())
        callers[-1][1].write(ask())
        await until(lambda: client.app.turns.taken == taken)  # noqa: B023
    return callers


@pytest.mark.parametrize("body", [BODY, b"{", b"\x00" * 1000])
def test_a_request_for_which_there_is_no_place_is_not_parsed(project, body):
    """429 from its head, with nothing of the body looked at; the connection goes on, and it is counted."""

    async def run():
        async with listening(project, 1) as (client, go, dial):
            ((first, _),) = await busy(client, dial)
            reader, writer = await dial()
            client.app.__class__.__call__, call = None, client.app.__class__.__call__  # nothing reaches the app
            try:
                for _ in range(3):
                    writer.write(ask(body))
                    assert (await answer(reader))[0::2] == (
                        429, {"error": "the server is at its limit of requests; try again"})  # fmt: skip
            finally:
                client.app.__class__.__call__ = call
            writer.write(ask(b"", method="GET", path="/healthz"))
            assert (await answer(reader))[0] == 200
            go.set()
            assert (await answer(first))[0] == 200
            writer.write(ask())
            assert (await answer(reader))[0] == 200
            return dict(client.app.telemetry.counters)

    counters = asyncio.run(run())
    assert counters["requests_total", 'status="429"'] == 3
    assert counters["decisions_failed_total", 'policy="promise",status="429",error="Refused"'] == 3
    newest = read_failures(project).failures[0]
    assert (newest["policy"], newest["status"], newest["bytes"]) == ("promise", 429, 0)


def test_the_answer_comes_before_the_body(project):
    """The rest of a refused request is dropped, wherever it comes apart, and the next one is whole again."""

    async def run():
        async with listening(project, 1) as (client, go, dial):
            await busy(client, dial)
            reader, writer = await dial()
            head, _, body = ask().partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            status, headers, _ = await answer(reader)
            assert (status, headers["retry-after"]) == (429, "1")
            writer.write(body[:5])
            await asyncio.sleep(0.05)
            go.set()
            await until(lambda: not client.app.turns.taken)
            writer.write(body[5:] + ask())
            assert (await answer(reader))[0] == 200

    asyncio.run(run())


def test_callers_of_batches_are_turned_away_first(project):
    """With half of the places taken: from the head, too."""

    async def run():
        async with listening(project, 2) as (client, _, dial):
            await busy(client, dial)
            reader, writer = await dial()
            writer.write(ask(b"{", "Retrodict-Priority: batch"))
            assert (await answer(reader))[0] == 429
            writer.write(ask(b"{", "Retrodict-Priority: normal"))
            assert (await answer(reader))[0] == 400

    asyncio.run(run())


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (ask(BODY, "Connection: close"), False),
        (ask(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), "Transfer-Encoding: chunked", length=False), True),
        (ask() + ask(), True),
    ],
)
def test_what_needs_the_parser_is_refused_behind_it(project, request_, kept):
    """Chunks, several requests at once, and a connection that is to close: as the application says."""

    async def run():
        async with listening(project, 1) as (client, _, dial):
            await busy(client, dial)
            reader, writer = await dial()
            writer.write(request_)
            assert (await answer(reader))[0] == 429
            if request_.count(b"POST") == 2:
                assert (await answer(reader))[0] == 429
            if kept:
                writer.write(ask(b"", method="GET", path="/healthz"))
                assert (await answer(reader))[0] == 200
            else:
                assert await reader.read() == b""

    asyncio.run(run())


def test_a_deadline_shorter_than_a_turn_is_not_put_down_to_the_queue():
    """Who is late without a queue goes on to the policy's fallback; who had the time is told to come back."""

    async def run():
        turns, let_in = Turns(500, 3600 * SECOND), {}

        async def ask_at(name, since_ns, limit_ns, seconds=0.0):
            try:
                async with turns.turn(since_ns, batch=False, limit_ns=limit_ns):
                    let_in[name] = True
                    time.sleep(seconds)  # noqa: ASYNC251  # holds the loop, as deciding does
            except RefusedRequestError:
                let_in[name] = False

        await ask_at("hurried", perf_counter_ns() - 2_000, 1_000)
        await asyncio.gather(
            ask_at("first", perf_counter_ns(), None), ask_at("holds", perf_counter_ns(), None, seconds=0.3),
            ask_at("late in the queue", perf_counter_ns(), 200_000_000),
            ask_at("patient", perf_counter_ns(), 60_000_000_000), ask_at("no deadline", perf_counter_ns(), None),
        )  # fmt: skip
        return let_in, turns.taken

    let_in, taken = asyncio.run(run())
    assert taken == 0
    assert [name for name, whether in let_in.items() if not whether] == ["late in the queue"]
    assert len(let_in) == 6
