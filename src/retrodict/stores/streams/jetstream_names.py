"""Names that are taken once over all machines: the ids of requests whose decisions are in a log on NATS JetStream.

One message a name, on a subject of its own, put on the condition of what was there before: the server decides who comes
first. What takes a name says which writer's record will stand for it; whether that is still coming is asked of the
writer, and a writer that answers no more is put out before its name is taken over.
"""

from __future__ import annotations

import base64
from typing import Any

from retrodict.stores.streams._nats import ApiError, ask
from retrodict.stores.streams._nats_reader import NO_MESSAGE
from retrodict.stores.streams.jetstream import NAME_IN_USE
from retrodict.stores.streams.jetstream_log import PASSED_BY, JetStreamLog, holder_of, publish

__all__ = ["JetStreamNames"]

_LONGEST_WINDOW = 120_000_000_000


class JetStreamNames:
    """Names beside a decision log; threads may share it.

    Parameters
    ----------
    log : JetStreamLog
    age_us : int
        After which a name is free again, microseconds by the clock of the server.
    """

    def __init__(self, log: JetStreamLog, age_us: int) -> None:
        self._log, self._age = log, age_us * 1_000
        self._name, self._begin = f"{log.prefix}{log.divider * 2}requests", f"{log.divider}{log.prefix}.request"

    def open(self) -> None:
        """Make the stream of names on the server, or give it the age of now."""
        config = {
            "name": self._name,
            "subjects": [f"{self._begin}.*"],
            "retention": "limits",
            "storage": "file",
            "num_replicas": self._log.replicas,
            "max_msgs_per_subject": 1,
            "max_age": self._age,
            "discard": "old",
            "duplicate_window": min(self._age, _LONGEST_WINDOW),
        }

        async def make(client: Any) -> None:
            try:
                await ask(client, f"STREAM.CREATE.{self._name}", config)
            except ApiError as error:
                if error.code != NAME_IN_USE:
                    raise
                await ask(client, f"STREAM.UPDATE.{self._name}", config)

        self._log.connection.call(make, "request ids")

    def put(self, name: str, value: bytes, after: int) -> int:
        """Take a name after what has this sequence (0: nothing); the sequence of this, or 0 if something else came."""

        async def once(client: Any) -> int:
            conditions = {"Nats-Expected-Last-Subject-Sequence": str(after)}
            answer = await publish(client, f"{self._begin}.{name}", value, conditions)
            if answer.get("error", {}).get("err_code") in PASSED_BY:
                return 0
            if "error" in answer:
                raise ApiError(answer["error"])
            return int(answer["seq"])

        return self._log.connection.call(once, "request ids")

    def give_back(self, name: str, after: int) -> None:
        """Let others take a name that has this sequence; nobody waits for it."""
        conditions = {"Nats-Expected-Last-Subject-Sequence": str(after)}

        async def once(client: Any) -> None:
            await publish(client, f"{self._begin}.{name}", b"", conditions)

        self._log.connection.forget(once)

    def get(self, name: str) -> tuple[int, bytes] | None:
        """Sequence and value of what has a name; None if nothing has."""

        async def once(client: Any) -> tuple[int, bytes] | None:
            try:
                answer = await ask(client, f"STREAM.MSG.GET.{self._name}", {"last_by_subj": f"{self._begin}.{name}"})
            except ApiError as error:
                if error.code == NO_MESSAGE:
                    return None
                raise
            return int(answer["message"]["seq"]), base64.b64decode(answer["message"].get("data", ""))

        return self._log.connection.call(once, "request ids")

    def is_held(self, stream: str, name: str) -> bool | None:
        """Whether whoever writes a stream works on a name now; None if nobody answers for the stream."""
        place = self._log.name_of(stream)
        answer = self._log.connection.call(lambda client: holder_of(client, place, name.encode()), "request ids")
        return None if answer is None else answer != "free"
