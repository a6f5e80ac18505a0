"""Real processes for the tests of the stores: started, fed, killed."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid

import pyarrow.fs as pafs
import pytest
from tests.stores.postgres_server import PASSWORD, PostgresServer


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
            # With what fixtures have put into the environment since, such as passwords of servers.
            now = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            process = Process(script, arguments, {**now, **(environment or {})})
            stack.callback(process.close)
            return process

        yield begin


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server that is not killed; its password is in the environment."""
    server = PostgresServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PG_TEST_PASSWORD", PASSWORD)
        yield server
    server.close()


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def made_bucket(address, name=None):
    """URL of a place in a new bucket of a server."""
    name, (scheme, _, host) = name or f"tables-{uuid.uuid4().hex[:12]}", address.partition("://")
    files = pafs.S3FileSystem(scheme=scheme, endpoint_override=host, region="us-east-1", allow_bucket_creation=True)
    files.create_dir(name)
    return f"s3://{name}/some/place?endpoint={address}&region=us-east-1"


class S3Server:
    """A server that speaks like S3, as a process of its own; what it holds is in memory, and gone when it is killed."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/moto-api/", timeout=5):
                return
            assert self._process.poll() is None, "the server did not start"
            time.sleep(0.1)
        self.close()
        raise AssertionError("the server did not answer")

    def close(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def s3_server():
    """Address of a server that speaks like S3, as a process of its own."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("obstore") is None:
        pytest.skip("tables in a bucket are tested with obstore against moto: pip install obstore 'moto[server]'")
    with contextlib.closing(S3Server()) as server:
        yield server.address


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """URL of a place of its own in a bucket, with credentials in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return made_bucket(s3_server)
