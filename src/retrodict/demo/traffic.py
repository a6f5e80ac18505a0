"""Live traffic for the demo: real requests over keep-alive connections, in simulated time, every answer kept.

A small client of its own on asyncio streams: an HTTP library would cost more per request than the server does, and the
demo measures the server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from retrodict.core.clock import SimulatedClock, format_time
from retrodict.core.errors import RetryableError

__all__ = ["Answer", "Client", "Traffic"]

_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered (or failed) request: status, body, milliseconds, and the host's monotonic time it came at."""

    status: int
    body: Mapping[str, Any]
    milliseconds: float
    at: float

    @property
    def failed(self) -> bool:
        """Whether no decision came."""
        return self.status != 200


@dataclass(slots=True)
class Traffic:
    """Everything that was answered, in order of arrival."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def decided(self) -> list[str]:
        """Ids of the decisions that callers got."""
        return [answer.body["decision_id"] for answer in self.answers if not answer.failed]


class Client:
    """Keeps connections to one server open and sends requests over them; for one event loop.

    Parameters
    ----------
    url : str
        ``http://host:port``.
    connections : int, default 8
        How many requests are under way at once.
    """

    def __init__(self, url: str, connections: int = 8) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._connections = connections
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(connections):
            self._free.put_nowait(None)

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one request; a connection that broke is replaced for the next one."""
        connection = await self._free.get()
        try:
            if connection is None:
                connection = await asyncio.open_connection(self._host, self._port)
            reader, writer = connection
            extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
            head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
            writer.write(head.encode("latin-1") + body)
            status, answer = await _read_response(reader)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            if connection is not None:
                connection[1].close()
            connection = None
            raise
        finally:
            self._free.put_nowait(connection)
        return status, answer

    async def get(self, path: str) -> Any:
        """Parsed body of a GET."""
        status, body = await self.send("GET", path)
        if status != 200:
            raise RetryableError("the server must answer", where=path, got=status,
                                 remedy="See server.log in the demo's folder")  # fmt: skip
        return json.loads(body)

    async def push(self, table: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Push events of a table, durable once this returns."""
        status, body = await self.send("POST", f"/v1/events/{table}", json.dumps(list(events)).encode())
        if status != 202:
            raise RetryableError("the server must take pushed events", where=f"events of {table}",
                                 got=(status, body[:200]), remedy="See server.log in the demo's folder")  # fmt: skip

    async def decide(self, policy: str, request: Mapping[str, Any], at: int) -> Answer:
        """One decision at a simulated moment; asked for again after a pause where the server is full."""
        began = perf_counter()
        try:
            for pause_s in _PAUSES_S:
                status, body = await self.send(
                    "POST", f"/v1/decisions/{policy}", json.dumps(request).encode(), {"retrodict-time": format_time(at)}
                )
                if status != 429:
                    break
                await asyncio.sleep(pause_s)
            answer = json.loads(body)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            status, answer = 0, {"error": type(error).__name__}
        ended = perf_counter()
        return Answer(status, answer, (ended - began) * 1e3, ended)

    async def decide_all(
        self, policy: str, cases: Iterable[tuple[int, Mapping[str, Any]]], traffic: Traffic, clock: SimulatedClock
    ) -> None:
        """All cases in order, as many at once as there are connections; the clock moves along with them."""
        waiting = iter(cases)

        async def work() -> None:
            for at, request in waiting:
                clock.move_to(max(at, clock.now()))
                traffic.answers.append(await self.decide(policy, request, at))

        await asyncio.gather(*(work() for _ in range(self._connections)))

    async def close(self) -> None:
        """Close the connections."""
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None:
                connection[1].close()


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next((int(line.split(b":", 1)[1]) for line in lines[1:] if line.lower().startswith(b"content-length:")), 0)
    return int(lines[0].split(b" ", 2)[1]), await reader.readexactly(length)
