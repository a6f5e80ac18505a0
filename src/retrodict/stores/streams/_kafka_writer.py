"""Appending to a Kafka topic by a producer that numbers its records.

What could not be acknowledged in time stays queued in the producer, which goes on sending it under the same numbers:
the brokers take each once and in order. So a retry by the same writer waits for what is under way, and sends nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from retrodict.core.errors import InputError
from retrodict.stores._ownership import Closing, check_usable
from retrodict.stores.streams._kafka_client import MAX_RECORD, mapped, silent, translate

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


class KafkaWriter(Closing):
    """Writer of one stream; made by :meth:`KafkaStreams.open_writer`. Threads may share it, forked children may not."""

    def __init__(self, producer: Any, topic: str, where: str, timeout_s: float, end: Callable[[], int]) -> None:
        self._producer, self._topic, self._where = producer, topic, where
        self._timeout_s, self._end = timeout_s, end
        self._pid, self._mutex, self._closed = os.getpid(), threading.Lock(), False
        self._unfinished: _Append | None = None

    def append(self, records: Sequence[bytes]) -> int:
        """Append records in order and return the offset of the first once all in-sync replicas have them all.

        Records of other writers may come between those of one append.

        Raises
        ------
        RetryableError
            If nothing is acknowledged within the time limit; the records stay queued, and the same call waits again.
        InputError
            If a record is too long for the client; nothing was sent then.
        IntegrityError
            If the brokers lost track of this writer, as after a loss of their data.
        """
        with self._mutex:
            check_usable("a stream writer", where=self._where, owner=self._pid, closed=self._closed)
            if not records:
                return self._end()
            batch = list(records)
            append = self._unfinished
            if append is None or append.records != batch:
                self._check_size(batch)
                append = self._unfinished = _Append(batch)
            self._finish(append)
            self._unfinished = None
            if append.error is not None:
                raise translate(append.error, self._where)
            return append.first

    def _finish(self, append: _Append) -> None:
        """Queue what is not queued yet and wait until everything is settled."""
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

    def _check_size(self, records: list[bytes]) -> None:
        longest, limit = max(map(len, records)), MAX_RECORD - _HEADERS
        if longest > limit:
            raise InputError(
                f"a record must have at most {limit} bytes on Kafka",
                where=self._where,
                got=longest,
                remedy="Keep large values in the object store",
            )

    def close(self) -> None:
        """Let go of the stream; a second call does nothing. What an interrupted append has queued is given up."""
        with self._mutex:
            if not self._closed and os.getpid() == self._pid:
                self._producer.purge()
                self._producer.flush(_CLOSE_S)
            self._closed = True
