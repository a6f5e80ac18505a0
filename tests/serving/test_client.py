"""Asking a server: its own words in the error that says what to do, and nothing that is no server passes for one."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RetryableError
from retrodict.serving.client import ask, server_url
from retrodict.workspace import Workspace


@contextmanager
def answering(status, body):
    """A server that answers everything alike; yields its address and the requests it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["content-length"])
            requests.append((self.path, dict(self.headers), json.loads(self.rfile.read(length))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


def test_the_answer_is_the_servers():
    """The policy's name is part of the address, whatever it holds; simulated time goes along."""
    with answering(200, b'{"decision_id": "x", "decision": "ok"}') as (url, requests):
        assert ask(url, "a/b", {"entities": {}}, at=0) == {"decision_id": "x", "decision": "ok"}
    ((path, headers, body),) = requests
    assert (path, body, headers["retrodict-time"]) == ("/v1/decisions/a%2Fb", {"entities": {}}, "1970-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InputError), (404, NotFoundError), (429, RetryableError), (503, RetryableError), (500, IntegrityError)],
)
def test_a_refusal_keeps_the_servers_words(status, error):
    """As the error that says what the caller can do."""
    with answering(status, b'{"error": "a number must be small."}') as (url, _), pytest.raises(error) as caught:
        ask(url, "p", {})
    assert type(caught.value) is error
    assert f"status {status}: a number must be small." in str(caught.value)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"{}"), (404, b"gone"), (200, b"[1]")])
def test_another_server_is_no_retrodict_server(status, body):
    """Something answers, but no decision."""
    with answering(status, body) as (url, _), pytest.raises(InputError, match="a Retrodict server must answer"):
        ask(url, "p", {})


def test_nobody_there_may_be_tried_again():
    """With the command that starts one; a wrong address is wrong."""
    with pytest.raises(RetryableError, match="retrodict serve"):
        ask("http://127.0.0.1:9", "p", {})
    with pytest.raises(InputError, match="http://HOST:PORT"):
        ask("127.0.0.1:8400", "p", {})


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8400"), ("::", "http://[::1]:8400"), ("example.org", "http://example.org:8400")],
)
def test_the_address_is_one_that_can_be_reached(tmp_path, host, url):
    """What a server listens on is not always an address."""
    (tmp_path / "retrodict.toml").write_text(f'[project]\nname = "p"\n[serving]\nhost = "{host}"\nport = 8400\n')
    assert server_url(Workspace(tmp_path)) == url
