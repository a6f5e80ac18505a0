"""Reading a JetStream stream in pieces, by a consumer that the server forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from retrodict.core.errors import IntegrityError
from retrodict.stores.streams._nats import ApiError, ask

NO_STREAM = 10059
NO_MESSAGE = 10037
_PIECE, _PIECE_BYTES = 1000, 8 << 20
_HEADERS = 4096
_SECOND = 1_000_000_000
# Tokens of the address a record comes with: with an account in it since the format of servers with domains.
_SHORT, _SEQUENCE, _SEQUENCE_LONG = 9, 5, 7


async def find_bounds(client: Any, name: str) -> tuple[int, int]:
    """Offset of the first record that is on the server, and the offset after the last; 0 and 0 for no stream."""
    try:
        state = (await ask(client, f"STREAM.INFO.{name}"))["state"]
    except ApiError as error:
        if error.code == NO_STREAM:
            return 0, 0
        raise
    return max(state["first_seq"] - 1, 0), state["last_seq"]


class Puller:
    """Pulls messages of one stream, piece by piece, each checked to be the next one.

    ``name`` is that of the stream on the server, ``where`` what messages call it; ``headers_only`` leaves the records
    on the server.
    """

    def __init__(self, name: str, where: str, *, headers_only: bool = False) -> None:
        self._name, self._where, self._headers_only = name, where, headers_only
        self._client: Any = None
        self._subscription: Any = None
        self._consumer = self._inbox = ""
        self._next, self._wanted = -1, 0
        self._messages: list[Any] = []
        self._done = asyncio.Event()

    async def pull(self, client: Any, offset: int, until: int) -> list[Any]:
        """Messages from an offset on: at least one, at most a piece, none at or beyond ``until``.

        IntegrityError if the record of the offset was deleted; TimeoutError if the server has it and does not give it
        out: a new consumer may help.
        """
        if client is not self._client or offset != self._next:
            await self._begin(client, offset)
        messages = self._messages = []
        self._wanted, self._done = min(until - offset, _PIECE), asyncio.Event()
        max_bytes = max(_PIECE_BYTES, client.max_payload + _HEADERS)
        request = {"batch": self._wanted, "expires": _SECOND, "max_bytes": max_bytes}
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{self._consumer}", json.dumps(request).encode(), reply=self._inbox
        )
        await self._done.wait()
        self._next = offset + len(messages) if len(messages) == self._wanted else -1
        if not messages:
            await self._explain(client, offset)
        return messages

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
        """Take a message in, as long as they follow one another."""
        if self._done.is_set():
            return
        follows = sequence_of(message) == self._next + len(self._messages) + 1
        if follows:
            self._messages.append(message)
        if not follows or len(self._messages) == self._wanted:  # also: no record, but the end of the request
            self._done.set()

    async def _explain(self, client: Any, offset: int) -> None:
        try:
            await ask(client, f"STREAM.MSG.GET.{self._name}", {"seq": offset + 1})
        except ApiError as error:
            if error.code == NO_MESSAGE:
                raise missing(self._where, offset) from error
            raise
        raise TimeoutError


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
