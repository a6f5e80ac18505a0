"""Appending to a Kafka topic by a producer that numbers its records.

What could not be acknowledged in time stays queued in the producer, which goes on sending it under the same numbers:
the brokers take each once and in order. So a retry by the same writer waits for what is under way, and sends nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from retrodict.core.errors import InputError
from retrodict.stores._guard import ServerGuard
from retrodict.stores.streams._kafka_client import MAX_RECORD, mapped, silent, translate
from retrodict.stores.streams._server import ServerWriter

_HEADERS = 512
_WAIT_S, _CLOSE_S = 0.1, 1.0


class _Append:
    """One append on its way: how many records are queued and acknowledged, and the offset of the first."""

    def __init__(self, records: list[bytes]) -> None:
        self.records = records
        self.queued = self.settled = 0
        self.first = -1
        self.error: Any = None

    def settle(self, error: Any, message: Any) -> None:
        """Take note of what became of the next record."""
        if error is not None:
            self.error = self.error or error
        elif self.first < 0:
            self.first = message.offset()
        self.settled += 1


class KafkaWriter(ServerWriter):
    """Writer of one stream; made by :meth:`KafkaStreams.open_writer`.

    An append returns once all in-sync replicas have its records. What was not acknowledged in time stays queued until
    the writer is closed.
    """

    def __init__(  # made in one place
        self, producer: Any, topic: str, where: str, timeout_s: float, end: Callable[[], int], guard: ServerGuard
    ) -> None:
        super().__init__(where)
        self._guard = guard
        self._producer, self._topic, self._timeout_s, self._ask_end = producer, topic, timeout_s, end

    def _end(self) -> int:
        return self._ask_end()

    def _begin(self, records: list[bytes]) -> _Append:
        longest, limit = max(map(len, records)), MAX_RECORD - _HEADERS
        if longest > limit:
            raise InputError(
                f"a record must have at most {limit} bytes on Kafka",
                where=self._where,
                got=longest,
                remedy="Keep large values in the object store",
            )
        return _Append(records)

    def _finish(self, append: _Append) -> int:
        with self._guard.breaker.attempt():
            return self._settle(append)

    def _settle(self, append: _Append) -> int:
        # Queue what is not queued yet and wait until everything is settled.
        deadline, settled = time.monotonic() + self._timeout_s, append.settled
        while append.settled < len(append.records):
            with mapped(self._where), contextlib.suppress(BufferError):  # a full queue empties while we poll
                while append.queued < len(append.records):
                    record = append.records[append.queued]
                    self._producer.produce(self._topic, record, partition=0, on_delivery=append.settle)
                    append.queued += 1
            self._producer.poll(_WAIT_S)
            if append.settled > settled:
                deadline, settled = time.monotonic() + self._timeout_s, append.settled
            elif time.monotonic() > deadline:
                raise silent(self._where, self._timeout_s)
        if append.error is not None:
            self._unfinished = None  # the same records again are another append
            raise translate(append.error, self._where)
        return append.first

    def close(self) -> None:
        with self._mutex:
            if not self._closed and os.getpid() == self._pid and len(self._producer):  # else it would wait for nothing
                self._producer.purge()
                self._producer.flush(_CLOSE_S)
            self._closed = True
