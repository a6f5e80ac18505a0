"""A real PostgreSQL server for tests: own port, own folder, asks for a password, killed and started as a test likes."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

PASSWORD = "hunter2%/@"


def programs():
    """Folder of the server's programs; Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    folder = found[-1].parent if found else Path(shutil.which("initdb") or "/none/initdb").parent
    if not (folder / "initdb").exists():
        pytest.skip("records on PostgreSQL are tested against a real server: make servers")
    return folder


class PostgresServer:
    """One server; its folder outlives its process."""

    def __init__(self, *settings):
        self._programs, self._settings = programs(), settings
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # its owner must reach it
        self._user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}  # it refuses to run as root
        if self._user:
            shutil.chown(self.folder, "postgres", "postgres")
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["-U", "ann", "-A", "scram-sha-256", "--pwfile", secret, "-N", "-D", self.folder / "data"]
        self._run("initdb", *options)
        self._process = None
        self.start()

    def _run(self, program, *arguments):
        subprocess.run([self._programs / program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, cwd="/",
                       stderr=subprocess.DEVNULL, **self._user)  # fmt: skip

    def start(self):
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", *self._settings]
        command = [self._programs / "postgres", "-D", self.folder / "data", "-p", str(self.port)]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen([*command, *(part for one in settings for part in ("-c", one))],
                                             stdout=log, stderr=log, cwd="/", **self._user)  # fmt: skip
        for _ in range(600):
            assert self._process.poll() is None, "the server did not start"
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run("pg_isready", "-h", "127.0.0.1", "-p", self.port)
                return
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def kill(self):
        """End all of it as a crash does."""
        group = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], check=False, capture_output=True, text=True
        )
        for pid in [self._process.pid, *map(int, group.stdout.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def sql(self, statement, database="postgres", schema="retrodict"):
        """Rows of a statement, past everything of ours."""
        import psycopg

        with psycopg.connect(host="127.0.0.1", port=self.port, user="ann", password=PASSWORD, dbname=database,
                             options=f"-c search_path={schema}", autocommit=True) as connection:  # fmt: skip
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def database(self):
        """Name of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def url(self, database, options=""):
        return f"postgresql://ann:${{PG_TEST_PASSWORD}}@127.0.0.1:{self.port}/{database}{options}"

    def close(self):
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        shutil.rmtree(self.folder)
