"""A Redis server of a test's own: started on a free port, killed, started again on the same files."""

import contextlib
import datetime as dt
import ipaddress
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid

import hiredis
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.backoff import NoBackoff
from redis.retry import Retry


class RedisServer:
    """One process of redis-server with an append-only file in a folder of its own."""

    def __init__(self, *settings):
        if shutil.which("redis-server") is None:
            pytest.skip("keys in Redis are tested against a real redis-server: make servers")
        self.folder = tempfile.mkdtemp(prefix="redis-")  # short, as the path of a socket has to be
        self.socket = f"{self.folder}/socket"
        self.port = free_port()
        always = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--bind", "127.0.0.1")
        place = ("--port", str(self.port), "--unixsocket", self.socket, "--dir", self.folder)
        self._command = ["redis-server", *place, *always, *map(str, settings)]
        self._process = None
        self.start()

    def start(self):
        with open(f"{self.folder}/log", "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        for _ in range(300):
            assert self._process.poll() is None, "redis-server did not start"
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.AuthenticationError:
                return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise AssertionError("redis-server does not answer")

    def client(self, **settings):
        """A client that shares no code with the store."""
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), **settings)

    def url(self, prefix="test", options=""):
        return f"redis://127.0.0.1:{self.port}/0?prefix={prefix}{options}"

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        """End it as a loss of the process does, with no chance to tidy up."""
        self._process.kill()
        self._process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.folder)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Between:
    """Stands between a store and its server: answers WAITAOF, which the tested server lacks, and loses answers.

    It speaks for the server only there; everything else goes through as it is.
    """

    def __init__(self, port, waitaof=None):
        self.waitaof, self.waited, self.cut = waitaof, [], None
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._prefix = uuid.uuid4().hex

    def url(self):
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0?prefix={self._prefix}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        commands = hiredis.Reader()
        with client, socket.create_connection(("127.0.0.1", self._server)) as server, contextlib.suppress(OSError):
            while data := client.recv(65536):
                commands.feed(data)
                while command := commands.gets():
                    if self.waitaof and command[0] == b"WAITAOF":
                        self.waited.append(command)
                        client.sendall(self.waitaof)
                        continue
                    server.sendall(hiredis.pack_command(tuple(command)))
                    answer = whole_answer(server)
                    if command[0] == self.cut:
                        return
                    client.sendall(answer)


def whole_answer(server):
    reader, data = hiredis.Reader(notEnoughData=Between), b""
    while True:
        part = server.recv(65536)
        data += part
        reader.feed(part)
        if reader.gets() is not Between:
            return data


def make_certificate(folder):
    """Certificate of this machine, signed by itself, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(alternative, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"
