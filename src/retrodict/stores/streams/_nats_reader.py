"""Reading a JetStream stream in pieces, by a consumer that the server forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from retrodict.core.errors import IntegrityError
from retrodict.stores.streams._nats import ApiError, ask

NO_STREAM = 10059
_NO_MESSAGE = 10037
_PIECE, _PIECE_BYTES = 1000, 8 << 20
_HEADERS = 4096
_SECOND = 1_000_000_000
# Tokens of the address a record comes with: with an account in it since the format of servers with domains.
_SHORT, _SEQUENCE, _SEQUENCE_LONG = 9, 5, 7


@dataclass(frozen=True, slots=True)
class StreamBounds:
    """Offset of the first record that is there, and the offset after the last."""

    first: int
    end: int


async def find_bounds(client: Any, name: str) -> StreamBounds:
    """Bounds of a stream on the server; empty for one that does not exist."""
    try:
        state = (await ask(client, f"STREAM.INFO.{name}"))["state"]
    except ApiError as error:
        if error.code == NO_STREAM:
            return StreamBounds(0, 0)
        raise
    return StreamBounds(max(state["first_seq"] - 1, 0), state["last_seq"])


class Puller:
    """Pulls messages of one stream, piece by piece, each checked to be the next one.

    Parameters
    ----------
    name : str
        Name of the stream on the server.
    where : str
        What is read, for messages.
    headers_only : bool, default False
        Leave the records on the server.
    """

    def __init__(self, name: str, where: str, *, headers_only: bool = False) -> None:
        self._name, self._where, self._headers_only = name, where, headers_only
        self._client: Any = None
        self._subscription: Any = None
        self._consumer = self._inbox = ""
        self._next = -1
        self._piece: _Piece | None = None

    @property
    def used(self) -> bool:
        """Whether there is anything to close."""
        return self._client is not None

    async def pull(self, client: Any, offset: int, until: int) -> list[Any]:
        """Messages from an offset on: at least one, at most a piece, none at or beyond ``until``.

        Raises
        ------
        IntegrityError
            If the record of the offset was deleted.
        TimeoutError
            If the server has the record and does not give it out: a new consumer may help.
        """
        if client is not self._client or offset != self._next:
            await self._begin(client, offset)
        piece = self._piece = _Piece(offset, min(until - offset, _PIECE))
        max_bytes = max(_PIECE_BYTES, client.max_payload + _HEADERS)
        request = {"batch": piece.wanted, "expires": _SECOND, "max_bytes": max_bytes}
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{self._consumer}", json.dumps(request).encode(), reply=self._inbox
        )
        await piece.done.wait()
        self._next = -1 if piece.cut else offset + len(piece.messages)
        if not piece.messages:
            await self._explain(client, offset)
        return piece.messages

    async def close(self, client: Any) -> None:
        """Let the server forget the consumer."""
        if client is self._client:
            with contextlib.suppress(ApiError):
                await self._subscription.unsubscribe()
                await ask(client, f"CONSUMER.DELETE.{self._name}.{self._consumer}")
        self._client = None

    async def _begin(self, client: Any, offset: int) -> None:
        if self._client is not None:
            await self.close(client)
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": offset + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": 60 * _SECOND,
            "mem_storage": True,
            "num_replicas": 1,
            "headers_only": self._headers_only,
        }
        answer = await ask(client, f"CONSUMER.CREATE.{self._name}", {"stream_name": self._name, "config": config})
        self._consumer, self._inbox = answer["name"], client.new_inbox()
        # No limit on what waits in the client: what was asked for is the limit.
        self._subscription = await client.subscribe(
            self._inbox, cb=self._take, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._client, self._next = client, offset

    async def _take(self, message: Any) -> None:
        if self._piece is not None:
            self._piece.take(message)

    async def _explain(self, client: Any, offset: int) -> None:
        try:
            await ask(client, f"STREAM.MSG.GET.{self._name}", {"seq": offset + 1})
        except ApiError as error:
            if error.code == _NO_MESSAGE:
                raise missing(self._where, offset) from error
            raise
        raise TimeoutError


class _Piece:
    """Messages of one request, as long as they follow one another."""

    def __init__(self, first: int, size: int) -> None:
        self._first, self.wanted = first, size
        self.messages: list[Any] = []
        self.cut = False
        self.done = asyncio.Event()

    def take(self, message: Any) -> None:
        if self.done.is_set():
            return
        if sequence_of(message) != self._first + len(self.messages) + 1:  # also: no record, but the end of the request
            self.cut = True
            self.done.set()
            return
        self.messages.append(message)
        if len(self.messages) == self.wanted:
            self.done.set()


def sequence_of(message: Any) -> int | None:
    """Place of a message in its stream; None for a message of the server's own."""
    tokens = message.reply.split(".")
    if len(tokens) < _SHORT:
        return None
    return int(tokens[_SEQUENCE if len(tokens) == _SHORT else _SEQUENCE_LONG])


def missing(where: str, offset: int) -> IntegrityError:
    """Say that a record of a stream was deleted on the server."""
    return IntegrityError(
        "every record of the stream must be on the server",
        where=f"{where}, offset {offset}",
        remedy="Restore the stream from a copy; streams of events are never purged and have no limits that delete",
        got="no record",
    )
