"""Calls over HTTP end by their moment, whichever part of an answer comes byte by byte."""

import contextlib
import socket
import ssl
import threading
import time

import httpx
import pytest

from retrodict.core.retries import waited_for
from retrodict.core.timed_http import TimedTransport

HEAD, BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n", b"x" * 400


@contextlib.contextmanager
def dripping(data, *, taking=1 << 20, fast=0):
    """Server that takes a request at ``taking`` bytes a time and gives ``data`` byte by byte behind the first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve():
            with contextlib.suppress(OSError):
                connection = listener.accept()[0]
                with connection:
                    connection.recv(taking)
                    connection.sendall(data[:fast])
                    for byte in data[fast:]:
                        if ended.wait(0.02):
                            return
                        connection.sendall(bytes([byte]))
                    ended.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.close()
            thread.join()


@pytest.mark.parametrize(
    ("data", "fast", "size"),
    [
        (HEAD + BODY, 0, 0),
        (HEAD + BODY, len(HEAD), 0),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 30, 0, 0),
        (b"", 0, 1 << 24),
    ],
    ids=["head", "body", "interim answers", "nothing is taken"],
)
def test_a_call_ends_with_its_moment(data, fast, size):
    """Though each read and write by itself stays within its limit."""
    with dripping(data, fast=fast) as url, httpx.Client(transport=TimedTransport(), timeout=5.0) as client:
        began = time.monotonic()
        with waited_for(time.perf_counter_ns() + 500_000_000), pytest.raises(httpx.TimeoutException):
            client.post(url, content=bytes(size))
        assert 0.3 < time.monotonic() - began < 3


def test_a_handshake_ends_with_the_moment_too():
    """A record of TLS whose bytes come one by one."""
    context = ssl.create_default_context()
    record, client = b"\x16\x03\x03\x3f\xff" + b"x" * 400, httpx.Client(transport=TimedTransport(context))
    with dripping(record) as url, client:
        began = time.monotonic()
        with waited_for(time.perf_counter_ns() + 500_000_000), pytest.raises(httpx.TimeoutException):
            client.get(url.replace("http:", "https:"), timeout=5.0)
        assert 0.3 < time.monotonic() - began < 3


def test_a_call_that_nobody_waits_for_is_not_made():
    """And without a moment the limit of httpx counts."""
    with dripping(HEAD + BODY, fast=10_000) as url, httpx.Client(transport=TimedTransport(), timeout=5.0) as client:
        with waited_for(time.perf_counter_ns()), pytest.raises(httpx.TimeoutException):
            client.get(url)
        assert client.get(url).content == BODY
    short = httpx.Client(transport=TimedTransport(), timeout=0.2)
    with short, dripping(b"") as url, pytest.raises(httpx.ReadTimeout):
        short.get(url)
