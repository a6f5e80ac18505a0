"""Appending to a JetStream stream so that a retry doubles nothing and every offset is exact.

Each record is published on two conditions that the server checks: the stream ends exactly before the place meant for
it, and the record there is its predecessor by id. So what lands of an append is a prefix of it, whatever gets lost or
arrives late. After an interruption the writer looks which of its ids are in the stream and goes on behind them. The
server's own memory of ids was rejected as the only guard: it lasts two minutes, and an outage may last longer.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from itertools import islice
from typing import Any

from retrodict.core.errors import InputError, IntegrityError
from retrodict.stores.streams._nats import ApiError, Connection
from retrodict.stores.streams._nats_reader import Puller, find_bounds
from retrodict.stores.streams._server import ServerWriter

_PIECE, _PIECE_BYTES = 1000, 8 << 20
_HEADERS = 512
MESSAGE_ID = "Nats-Msg-Id"
# Somebody else's record, or one of our own whose acknowledgement was lost, is where this one should go.
_CONFLICTS = {10070, 10071}
_NOBODY = {"code": 503, "description": "no server with the stream answers"}


@dataclass(slots=True)
class Append:
    """One append on its way: its records, the number of the first among all of its writer, what has landed."""

    records: list[bytes]
    number: int
    first: int = -1
    landed: int = 0
    unsure: bool = False

    def land(self, offset: int) -> None:
        if self.first < 0:
            self.first = offset
        self.landed += 1

    def piece(self) -> list[bytes]:
        """Next records to send: as many as one wait for acknowledgements covers."""
        size = 0
        records: list[bytes] = []
        for record in islice(self.records, self.landed, self.landed + _PIECE):
            size += len(record)
            if records and size > _PIECE_BYTES:
                break
            records.append(record)
        return records


class JetStreamWriter(ServerWriter):
    """Writer of one stream; made by :meth:`JetStreams.open_writer`."""

    headers_only = True  # what it has to know of records that it meets

    def __init__(self, connection: Connection, name: str, subject: str, *, where: str, end: int) -> None:
        super().__init__(where)
        self._connection, self._name, self._subject, self._next = connection, name, subject, end
        self._id, self._number = uuid.uuid4().hex, 0
        self._client: Any = None
        self._inbox, self._attempt = "", 0
        self._answers: dict[str, Any] = {}
        self._wanted, self._answered = 0, asyncio.Event()

    def _end(self) -> int:
        return self._next

    def _begin(self, records: list[bytes]) -> Append:
        append = Append(records, self._number)
        self._number += len(records)
        return append

    def _finish(self, append: Append) -> int:
        while append.landed < len(append.records):
            self._connection.call(lambda client: self._advance(client, append), self._where)
        return append.first

    async def _advance(self, client: Any, append: Append) -> None:
        """Send until at least one more record has landed."""
        self._check_size(client, append)
        before = append.landed
        while append.landed == before:
            if append.unsure:
                await self._look(client, append)
                continue
            append.unsure = True
            answers = await self._publish(client, append)
            for answer in answers:
                if answer.get("seq") != self._next + 1:
                    break
                append.land(self._next)
                self._next += 1
            else:
                append.unsure = False
                return
            error = answer.get("error")
            if error and error.get("err_code") not in _CONFLICTS:
                raise ApiError(error)

    async def _publish(self, client: Any, append: Append) -> list[dict[str, Any]]:
        """Publish a piece, each record on condition of its place and predecessor; answers in order."""
        if client is not self._client:
            self._inbox, self._client = client.new_inbox(), client
            await client.subscribe(f"{self._inbox}.*", cb=self._take)
        records = append.piece()
        self._answers, self._wanted, self._answered = {}, len(records), asyncio.Event()
        self._attempt += 1
        for place, record in enumerate(records):
            number = append.number + append.landed + place
            conditions = {MESSAGE_ID: self._name_of(number), "Nats-Expected-Last-Sequence": str(self._next + place)}
            if place:
                conditions["Nats-Expected-Last-Msg-Id"] = self._name_of(number - 1)
            await client.publish(
                self._subject, record, reply=f"{self._inbox}.{self._attempt}-{place}", headers=conditions
            )
        await self._answered.wait()
        return [self._read(self._answers[f"{self._attempt}-{place}"]) for place in range(len(records))]

    async def _take(self, message: Any) -> None:
        token = message.subject.rpartition(".")[2]
        if token.partition("-")[0] == str(self._attempt):
            self._answers[token] = message
            if len(self._answers) == self._wanted:
                self._answered.set()

    async def _look(self, client: Any, append: Append) -> None:
        """Find what of the append is in the stream, beyond what is known."""
        _, end = await find_bounds(client, self._name)
        if end < self._next:
            raise IntegrityError(
                f"the server must hold the records acknowledged up to offset {self._next}, and ends before",
                where=self._where,
                got=end,
                remedy="Restore the stream from a copy, or open a new writer to go on without the missing records",
            )
        puller = Puller(self._name, self._where, headers_only=self.headers_only)
        try:
            while self._next < end:
                for message in await puller.pull(client, self._next, end):
                    self._see(message, append)
                    self._next += 1
        finally:
            await puller.close(client)
        append.unsure = False

    def _see(self, message: Any, append: Append) -> None:
        """Judge a message at the place where the next record would go."""
        if (message.headers or {}).get(MESSAGE_ID) == self._name_of(append.number + append.landed):
            append.land(self._next)

    def _check_size(self, client: Any, append: Append) -> None:
        limit, longest = client.max_payload - _HEADERS, max(map(len, append.records))
        if longest > limit:
            self._unfinished = None
            raise InputError(
                f"a record must have at most {limit} bytes on this server",
                where=self._where,
                got=longest,
                remedy="Raise max_payload in the configuration of the server, or keep large values in the object store",
            )

    def _name_of(self, number: int) -> str:
        return f"{self._id}.{number}"

    @staticmethod
    def _read(message: Any) -> dict[str, Any]:
        if not message.data:
            return {"error": _NOBODY}
        answer: dict[str, Any] = json.loads(message.data)
        return answer
