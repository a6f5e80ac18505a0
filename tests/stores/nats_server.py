"""A real NATS server with JetStream for tests: own port, own folder, killed and started again as a test likes."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest


class NatsServer:
    """One nats-server process; its folder outlives it."""

    def __init__(self, folder, *options, jetstream):
        self._options = [*(["-js", "-sd", folder] if jetstream else []), *options]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"nats://127.0.0.1:{self.port}"
        self._process = None
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as client:
                if client.recv(4) == b"INFO":
                    return
            assert self._process.poll() is None, "nats-server did not start"
            time.sleep(0.025)
        raise AssertionError("nats-server did not answer")

    def kill(self):
        """End it as a crash does: no chance to write what it still holds."""
        self._process.kill()
        self._process.wait()

    def pause(self):
        """Stop it without closing its connections, as a machine that hangs does."""
        os.kill(self._process.pid, signal.SIGSTOP)
        threads = Path(f"/proc/{self._process.pid}/task")
        # The signal reaches its threads one by one; until the last has stopped an answer may still come.
        while any("T" not in (task / "stat").read_text().rpartition(")")[2].split()[0] for task in threads.iterdir()):
            time.sleep(0.001)

    def resume(self):
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self):
        self.kill()


@contextlib.contextmanager
def running(folder, *options, jetstream=True):
    """A server with more options of its command line, until the end of the block."""
    if shutil.which("nats-server") is None:
        pytest.skip("streams on NATS are tested against a real nats-server: apt-get install nats-server")
    pytest.importorskip("nats", reason="streams on NATS need nats-py: pip install nats-py")
    server = NatsServer(str(folder), *options, jetstream=jetstream)
    try:
        yield server
    finally:
        server.close()
