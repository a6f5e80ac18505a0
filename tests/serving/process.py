"""``retrodict serve`` as a process of its own, and callers that load it."""

import json
import signal
import subprocess
import sys
from contextlib import nullcontext
from http.client import HTTPConnection, HTTPException

from tests.serving.project import AT, REQUEST


class Server:
    """``retrodict serve`` on a free port; ``log`` is a file for what it says, where that is more than a pipe holds."""

    def __init__(self, root, *options, launch=("-m", "retrodict"), log=None):
        command = [
            sys.executable,
            *launch,
            "serve",
            "--project",
            str(root),
            "--port",
            "0",
            "--json",
            *options,
        ]
        with log.open("w") if log else nullcontext(subprocess.PIPE) as said:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            line = self.process.stdout.readline()
        except BaseException:  # the timeout of the test
            self.process.kill()
            raise
        assert '"url"' in line, line + (self.process.communicate(timeout=30)[1] or "")
        facts = json.loads(line)
        self.port, self.grpc = int(facts["url"].rsplit(":", 1)[1]), facts["grpc"]

    def send(self, method, path, body=None, headers=None):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = json.dumps(body) if isinstance(body, dict | list) else body
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def decide(self, body=REQUEST, headers=AT, policy="promise"):
        return self.send("POST", f"/v1/decisions/{policy}", body, headers)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self._wait()

    def stop(self):
        self.process.terminate()
        return self._wait()

    def _wait(self):
        try:
            return self.process.communicate(timeout=30)[1]
        finally:
            self.process.kill()  # one that does not end by itself would stay behind


class Caller:
    """Asks over one connection for as long as the server keeps it, and then over a new one.

    Attributes
    ----------
    answers : list of (int, object)
        Status and body of each answer.
    failed : int
        Requests that were sent and got no answer.
    refused : bool
        Nobody listened any more.
    streams : list of str
        Decision stream of the worker behind each connection.
    """

    def __init__(self, port):
        self.port, self.answers, self.failed, self.refused, self.stopped = port, [], 0, False, False
        self.streams = []
        self._connection = None
        self._connect()

    @property
    def stream(self):
        return self.streams[-1]

    def _connect(self):
        self._connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            self._connection.connect()
        except OSError:
            self.close()
            raise
        status, answer = self.send("GET", "/v1/status")
        if status == 200:  # a busy machine's server may be at its limit
            self.streams.append(answer["decision_stream"])

    def send(self, method, path, body=None, headers=None):
        self._connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = self._connection.getresponse()
        answer = response.status, json.loads(response.read())
        if response.will_close:  # the server says that it was the last one
            self.close()
        return answer

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self):
        return self.send("POST", "/v1/decisions/promise", REQUEST, AT)

    def run(self):
        """Ask until ``stopped``, or until nobody listens."""
        try:
            self._run()
        finally:
            self.close()

    def _run(self):
        while not self.stopped:
            try:
                if self._connection is None:
                    self._connect()
            except ConnectionRefusedError:
                self.refused = True
                return
            except (OSError, HTTPException):  # nobody took it from the queue of a socket that was being closed
                self.close()
                continue
            if self._connection is None:
                continue
            try:
                self.answers.append(self.ask())
            except (OSError, HTTPException, ValueError):
                self.failed += 1
                self.close()
