"""Real processes for the tests of the stores: started, fed, killed."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest


class Process:
    """A Python process that runs a script and prints a line for each thing it has done."""

    def __init__(self, script, arguments, environment):
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.pid = self._process.pid

    def line(self):
        """Next line it prints; empty once it has ended."""
        return self._process.stdout.readline().strip()

    def rest(self):
        """All lines until it ends."""
        return self._process.stdout.read().split("\n")[:-1]

    def tell(self, text="\n"):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text)
            self._process.stdin.flush()

    def kill(self):
        """End it as a loss of the process does, with no chance to tidy up."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self):
        return self._process.wait(60)

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Processes share compiled modules: most of the time of a short one is imports."""
    if "PYTHONDONTWRITEBYTECODE" not in os.environ:
        return None
    rest = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return rest | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


@pytest.fixture
def start(environment):
    """Start a script as a process of its own; it is ended with the test."""
    with contextlib.ExitStack() as stack:

        def begin(script, *arguments):
            process = Process(script, arguments, environment)
            stack.callback(process.close)
            return process

        yield begin
