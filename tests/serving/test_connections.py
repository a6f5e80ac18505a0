"""Raw sockets against a real server: slow callers, half-closed ones, heads beyond all measure."""

from __future__ import annotations

import json
import resource
import select
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest
from tests.serving.project import AT, REQUEST, make_project
from tests.serving.test_server import Server

BODY = json.dumps(REQUEST).encode()
HEAD = (
    f"POST /v1/decisions/promise HTTP/1.1\r\nHost: x\r\nRetrodict-Time: {AT['Retrodict-Time']}\r\n"
    f"Content-Length: {len(BODY)}\r\n"
).encode()
WHOLE = HEAD + b"\r\n" + BODY


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parcels")
    make_project(folder).close()
    running = Server(folder, "--replay")
    yield running
    assert "Traceback" not in running.stop()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def answer(connection: socket.socket) -> tuple[int, dict]:
    """Status and body of the one answer that comes until the server closes or the body is there."""
    received = b""
    while True:
        chunk = connection.recv(65536)
        received += chunk
        head, blank, body = received.partition(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                       if line.lower().startswith(b"content-length")), None)  # fmt: skip
        if not chunk or (blank and length is not None and len(body) >= length):
            assert received, "closed without an answer"
            return int(received.split(b" ")[1]), json.loads(body)


def test_two_thousand_slow_callers_change_nothing_for_an_honest_one(server):
    """A third has sent a byte, a third half a head, a third a head and a byte of the body; then they are told so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096) if soft != resource.RLIM_INFINITY else soft, hard))
    pieces = [b"P", HEAD, HEAD + b"\r\n{"]
    slow = []
    try:
        for place in range(2000):
            slow.append(connect(server))
            slow[-1].sendall(pieces[place % 3])
        for _ in range(20):
            assert server.decide()[0] == 200
        statuses = {}
        waiting = {connection.fileno(): connection for connection in slow}
        poll = select.poll()
        for number in waiting:
            poll.register(number, select.POLLIN)
        ends = time.monotonic() + 120
        while waiting and time.monotonic() < ends:
            for number, _ in poll.poll(1000):
                status, body = answer(waiting.pop(number))
                poll.unregister(number)
                statuses[status] = statuses.get(status, 0) + 1
                assert "within 10 s" in body["error"]
        assert statuses == {408: 2000}
        assert server.decide()[0] == 200
    finally:
        for connection in slow:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_caller_that_closes_its_half_gets_its_answer(server):
    """As ``nc -N`` and some proxies do; then the server closes, too."""
    with connect(server) as connection:
        connection.sendall(WHOLE)
        connection.shutdown(socket.SHUT_WR)
        status, body = answer(connection)
        assert (status, body["policy"].partition("#")[0]) == (200, "promise")
        assert connection.recv(1) == b""


@pytest.mark.parametrize("count", [2, 3, 10])
def test_all_of_several_requests_are_answered_before_the_other_half_closes(server, count):
    """Sent together, then closed: each has its answer, the last one, too."""
    with connect(server) as connection:
        connection.sendall(WHOLE * count)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 200") == count


def test_frames_of_chunks_are_no_body(server):
    """25 MB of an extension for one byte, and trailers without end, are refused; a body in small chunks is taken."""
    chunked = HEAD.replace(b"Content-Length: %d\r\n" % len(BODY), b"Transfer-Encoding: chunked\r\n") + b"\r\n"
    with connect(server) as connection:
        connection.sendall(chunked + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n")
        assert answer(connection)[0] == 200
    for flood in (b"1;" + b"a" * (25 << 20), b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * (1 << 20)):
        with connect(server) as connection, suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(chunked + flood)
            raise AssertionError("taken whole")
    assert server.decide()[0] == 200


def test_a_timer_of_a_connection_that_is_gone_does_nothing(server):
    """Two hundred callers leave in the middle of a head; ten seconds later nothing is written to them."""
    for _ in range(200):
        with connect(server) as connection:
            connection.sendall(b"POST")
    with connect(server) as kept:  # as long as a timer
        kept.sendall(b"POST")
        assert answer(kept)[0] == 408
    assert server.decide()[0] == 200


def test_the_head_of_a_later_request_has_a_size(server):
    """Counted anew for each request of a connection."""
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(HEAD + b"X: " + b"a" * 40_000 + b"\r\n\r\n" + BODY)
            assert answer(connection)[0] == 200
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(HEAD + b"X: " + b"a" * 70_000)
            assert answer(connection)[0] == 431


def test_a_caller_that_closes_its_half_too_early_gets_none(server):
    """Half a body will never be whole."""
    with connect(server) as connection:
        connection.sendall(HEAD + b"\r\n" + BODY[:10])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536) == b""
    assert server.decide()[0] == 200


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (b"".join(b"X-%d: a\r\n" % place for place in range(200)), "at most 100 headers"),
        (b"X: " + b"a" * (1 << 20) + b"\r\n", "at most 64 KiB"),
        (b"X: " + b"a" * (1 << 20), "at most 64 KiB"),
    ],
)
def test_a_head_has_a_size(server, more, message):
    """431, whether the head ends or goes on for ever."""
    with connect(server) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it was refused while it was sent
            connection.sendall(HEAD + more + b"\r\n" + BODY)
        try:
            status, body = answer(connection)
        except ConnectionResetError:
            return
        assert (status, message in body["error"]) == (431, True)


def test_a_connection_that_is_kept_has_a_limit_for_each_head(server):
    """The second request of a connection is as bounded as the first; and a hundred in a row are answered."""
    with connect(server) as connection:
        for _ in range(100):
            connection.sendall(WHOLE)
            assert answer(connection)[0] == 200
        connection.sendall(b"POST /v1")
        status, body = answer(connection)
        assert (status, "within 10 s" in body["error"]) == (408, True)


def test_what_is_no_http_is_told_so(server):
    """Without an echo of what was sent."""
    with connect(server) as connection:
        connection.sendall(b"s3cret nonsense\r\n\r\n")
        status, body = answer(connection)
        assert (status, "s3cret" in str(body)) == (400, False)


def answers(connection: socket.socket) -> list[tuple[int, dict]]:
    """Status and body of all answers until the server closes."""
    received, found = b"", []
    while chunk := connection.recv(65536):
        received += chunk
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        found.append((int(head.split(b" ")[1]), json.loads(received[:length])))
        received = received[length:]
    return found


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"


@pytest.mark.parametrize("at", [None, 30, len(HEAD), len(HEAD + UPGRADE), len(HEAD + UPGRADE) + 10])
def test_an_offered_protocol_is_ignored(server, at):
    """The body is taken, wherever the request comes apart, and the next request of the connection is answered."""
    request = HEAD + UPGRADE + BODY
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(request[:at])
            if at is not None:
                time.sleep(0.05)
                connection.sendall(request[at:])
            assert answer(connection)[0] == 200
        connection.sendall(
            request * 3 + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
        )
        connection.shutdown(socket.SHUT_WR)
        assert [status for status, _ in answers(connection)] == [200] * 4


def test_a_long_head_and_a_chunked_body_with_an_offered_protocol_are_taken(server):
    """The head counts once, and a body in chunks is read as one."""
    chunked = HEAD.replace(b"Content-Length: %d\r\n" % len(BODY), b"Transfer-Encoding: chunked\r\n")
    with connect(server) as connection:
        connection.sendall(chunked + b"X: " + b"a" * 50_000 + b"\r\n" + UPGRADE)
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert answer(connection)[0] == 200
        connection.sendall(b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection)[0] == 501


def memory(server: Server) -> int:
    """Resident, in MB."""
    with open(f"/proc/{server.process.pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20


def never_reading(server: Server, count: int) -> list[socket.socket]:
    """Callers that send thousands of requests and take no answer."""
    callers = []
    for _ in range(count):
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        caller.connect(("127.0.0.1", server.port))
        caller.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(20):
                caller.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        callers.append(caller)
    return callers


def test_callers_that_take_no_answer_are_closed(server):
    """Twenty of them cost little memory and hold up nobody; after ten seconds they are gone."""
    before = memory(server)
    callers = never_reading(server, 20)
    try:
        for _ in range(20):
            assert server.decide()[0] == 200
        assert memory(server) - before < 150  # 20 MB for each of them, were all requests kept
        ends = time.monotonic() + 60
        for caller in callers:
            with suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    assert time.monotonic() < ends
                    with suppress(BlockingIOError):
                        caller.send(b"\r\n")
                    time.sleep(0.1)
    finally:
        for caller in callers:
            caller.close()
    assert server.decide()[0] == 200


def test_the_end_does_not_wait_for_callers_that_take_no_answer(tmp_path):
    """Their connections are closed before the ten seconds that others have to finish."""
    make_project(tmp_path).close()
    running = Server(tmp_path, "--replay")
    callers = never_reading(running, 5)
    assert running.decide()[0] == 200
    output = running.stop()
    for caller in callers:
        caller.close()
    assert "timeout graceful shutdown exceeded" not in output
    assert "Traceback" not in output


def test_a_thousand_requests_that_come_together_are_all_answered(server):
    """In their order, though few of them wait at a time; large bodies among them, too."""
    wide = HEAD.replace(b"%d" % len(BODY), b"%d" % (len(BODY) + 60_000)) + b"\r\n" + BODY + b" " * 60_000
    several = [WHOLE, wide, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"]
    with connect(server) as connection:
        thread = threading.Thread(target=lambda: connection.sendall(b"".join(several[:1] * 970 + several * 10)))
        thread.start()
        received = b""
        while received.count(b"HTTP/1.1 ") < 1010 and (chunk := connection.recv(65536)):
            received += chunk
        thread.join()
    statuses = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200] * 970 + [200, 200, 200, 404] * 10


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", HEAD + b"X: y\r\n" * 101 + b"\r\n" + BODY])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_what_is_wrong_is_refused_after_the_answers_to_what_came_before(server, count, garbage):
    """A decision that is in the log was answered, and the refusal is the last thing that is said."""
    with connect(server) as connection:
        connection.sendall(WHOLE * count + garbage)
        statuses = [status for status, _ in answers(connection)]
    assert statuses == [200] * count + [431 if b"X: y" in garbage else 400]


def test_a_body_that_turns_wrong_is_refused_after_the_answers_to_what_came_before(server):
    """The request that will never be whole has the refusal only."""
    chunked = HEAD.replace(b"Content-Length: %d\r\n" % len(BODY), b"Transfer-Encoding: chunked\r\n") + b"\r\n"
    for count in (0, 1, 3):
        with connect(server) as connection:
            connection.sendall(WHOLE * count + chunked + b"2\r\n{}\r\nno size\r\n")
            assert [status for status, _ in answers(connection)] == [200] * count + [400]


def test_callers_that_leave_in_the_middle_of_several_requests_leave_no_trace(server):
    """Nothing is written to a connection that is closed: the end of the module looks for tracebacks."""
    for place in range(100):
        connection = connect(server)
        connection.sendall(WHOLE * 5 + (b"garbage\r\n\r\n" if place % 2 else WHOLE[:-1]))
        if place % 3:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        connection.close()
    while (status := server.decide()[0]) == 429:  # what they asked for is still being worked on
        time.sleep(0.1)
    assert status == 200


def test_what_comes_behind_a_chunked_body_is_no_header(server):
    """Neither of this request nor of the next one of the connection."""
    chunked = HEAD.replace(b"Content-Length: %d\r\n" % len(BODY), b"Transfer-Encoding: chunked\r\n") + b"\r\n"
    trailer = b"%x\r\n%b\r\n0\r\nIdempotency-Key: behind\r\n\r\n" % (len(BODY), BODY)
    other = BODY.replace(b"12.5", b"13.5")
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(chunked + trailer + HEAD + b"\r\n" + other)
            received = b""
            while received.count(b"decision_id") < 2:
                received += connection.recv(65536)
            assert received.count(b"HTTP/1.1 200") == 2
    with connect(server) as connection:  # the id is free
        connection.sendall(HEAD + b"Idempotency-Key: behind\r\n\r\n" + other)
        assert answer(connection)[0] == 200


@pytest.mark.parametrize("encoding", ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "Chunked"])
def test_a_transfer_encoding_but_chunked_is_not_implemented(server, encoding):
    """501, as RFC 9112 has it: compressed bytes were read as the body; case does not matter."""
    line = f"Transfer-Encoding: {encoding}\r\n\r\n".encode()
    head = HEAD.replace(b"Content-Length: %d\r\n" % len(BODY), line)
    with connect(server) as connection:
        connection.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        status, body = answer(connection)
    assert status == (200 if encoding == "Chunked" else 501)
    assert status == 200 or "no other transfer encoding" in body["error"]
