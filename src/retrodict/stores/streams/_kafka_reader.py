"""A consumer of one partition that knows where it is."""

from __future__ import annotations

import time
from typing import Any

from retrodict.stores.streams._kafka_client import END, OUT_OF_RANGE, mapped, silent, translate

_WAIT_S, _AFTER_END_S = 0.1, 1.0


class KafkaReader:
    """Reads a partition from an offset on; jumps over offsets that hold no record."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.next = -1
        self._topic = ""

    def is_at(self, topic: str, position: int) -> bool:
        """Whether reading can go on here as it is."""
        return self._topic == topic and self.next == position

    def go(self, topic: str, position: int, timeout_s: float, where: str) -> None:
        """Begin anew."""
        from confluent_kafka import TopicPartition

        with mapped(where):
            # Left to itself, the library looks for the leader of a new topic only after a second.
            self.consumer.list_topics(topic, timeout=timeout_s)
            self.consumer.assign([TopicPartition(topic, 0, position)])
        self._topic, self.next = topic, position

    def fetch(self, limit: int, until: int, timeout_s: float, where: str) -> list[tuple[int, bytes]]:
        """At least one record if there is one before ``until``, at most ``limit``; RetryableError if late."""
        ended, deadline = False, time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with mapped(where):
                messages = self.consumer.consume(limit, _WAIT_S)
            records: list[tuple[int, bytes]] = []
            for message in messages:
                error = message.error()
                if error is None:
                    records.append((message.offset(), message.value() or b""))
                    self.next = message.offset() + 1
                elif error.code() == END:
                    self.next, ended = max(self.next, message.offset()), True
                    # The notice may be of an end before this one: more may follow at once.
                    deadline = min(deadline, time.monotonic() + _AFTER_END_S)
                elif error.code() in OUT_OF_RANGE:
                    raise silent(where, timeout_s)  # retention took it meanwhile: the next call finds what is left
                elif not error.retriable():
                    raise translate(error, where)
            if records or self.next >= until:
                return records
        if ended:
            return []  # what lies before the end belongs to a transaction of others that is still open
        raise silent(where, timeout_s)
