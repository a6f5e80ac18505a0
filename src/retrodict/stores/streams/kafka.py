"""Event streams on Kafka: a client of the same contract for those who run it already.

One topic with one partition per stream: order and offsets are those of a partition, and the feeders keep one offset
per stream, with the state they feed. So consumer groups and their commits were rejected: they would be a second truth
about how far a reader is. Transactions were rejected too: events carry their own ids, and a control record per append
would cost more than it saves.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from retrodict.core.errors import ConfigurationError
from retrodict.stores._guard import ServerGuard
from retrodict.stores._ownership import check_usable
from retrodict.stores.streams._kafka_client import (
    UNKNOWN,
    connection_config,
    make_consumer,
    make_producer,
    mapped,
    silent,
    translate,
)
from retrodict.stores.streams._kafka_reader import KafkaReader
from retrodict.stores.streams._kafka_writer import KafkaWriter
from retrodict.stores.streams._server import ServerStreams

__all__ = ["KafkaStreams"]

_PIECE = 1000
_WAIT_S = 0.1
_IDLE = 4
_TOPIC = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


class KafkaStreams(ServerStreams):
    """Client of :class:`~retrodict.stores.streams.base.EventStreams` for Kafka.

    Offsets are Kafka's: they grow, but retention, compaction and transactions of others leave gaps, over which reading
    jumps: what retention has removed is not there. Several writers may append to a stream at once, and their records
    mix. Threads may share a store.

    Parameters
    ----------
    servers : sequence of str
        Brokers to ask first, ``host:port``.
    prefix : str, default "retrodict"
        Begins the names of all topics, so that projects can share a cluster.
    security : str, default "plaintext"
        ``plaintext``, ``ssl``, ``sasl_plaintext`` or ``sasl_ssl``.
    mechanism : str, default "PLAIN"
        How to log in with SASL, for instance ``SCRAM-SHA-512``. User and password come from the environment:
        ``KAFKA_USERNAME`` and ``KAFKA_PASSWORD``.
    timeout_s : float, default 10
        How long a call waits for the brokers without getting anything, in seconds.
    guard : ServerGuard, optional
        What stands before the brokers.

    Examples
    --------
    ::

        with KafkaStreams(["127.0.0.1:9092"], prefix="shop") as streams:
            with streams.open_writer("events/landed") as writer:
                writer.append([b"one", b"two"])
            list(streams.read("events/landed", start=1))
    """

    divider, longest = ".", 249

    def __init__(
        self,
        servers: Sequence[str],
        *,
        prefix: str = "retrodict",
        security: str = "plaintext",
        mechanism: str = "PLAIN",
        timeout_s: float = 10.0,
        guard: ServerGuard | None = None,
    ) -> None:
        super().__init__(prefix)
        self._guard = guard or ServerGuard()
        self._timeout_s = timeout_s
        self._config = connection_config(servers, security, mechanism, os.environ)
        self._pid, self._mutex, self._closed = os.getpid(), threading.Lock(), False
        self._asker: Any = None
        self._known: set[str] = set()
        self._idle: list[KafkaReader] = []

    def open_writer(self, stream: str, *, timeout_s: float = 10.0) -> KafkaWriter:
        del timeout_s  # writers do not wait for one another
        topic, where = self._place(stream)
        self._check_usable(where)
        with self._guard.breaker.attempt():
            self._make(topic, where)
        producer = make_producer(self._config)
        end = partial(self._end_of, topic, where)
        return KafkaWriter(producer, topic, where, self._timeout_s, end, self._guard)

    def _make(self, topic: str, where: str) -> None:
        if self._exists(topic, where):
            return
        with mapped(where):
            self._create(topic)
        deadline = time.monotonic() + self._timeout_s
        while not self._exists(topic, where):
            if time.monotonic() > deadline:
                raise silent(where, self._timeout_s)
            time.sleep(_WAIT_S)

    def _end_of(self, topic: str, where: str) -> int:
        return self._bounds(topic, where)[1]

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            consumers = [reader.consumer for reader in self._idle] + ([self._asker] if self._asker else [])
            self._idle, self._asker = [], None
        if os.getpid() == self._pid:
            for consumer in consumers:
                consumer.close()

    # reading ------------------------------------------------------------------------------------------------

    def _read(self, topic: str, where: str, position: int, left: int | None) -> Iterator[tuple[int, bytes]]:
        if left == 0:
            return
        low, high = self._bounds(topic, where)
        if position >= high:
            return
        position = max(position, low)
        reader = self._take(topic, position, where)
        try:
            while left is None or left > 0:
                if position >= high:
                    high = self._bounds(topic, where)[1]
                    if position >= high:
                        return
                limit = min(_PIECE, high - position) if left is None else min(_PIECE, high - position, left)
                with self._guard.breaker.attempt():
                    records = reader.fetch(limit, high, self._timeout_s, where)
                if not records and reader.next < high:
                    return
                yield from records
                left = None if left is None else left - len(records)
                position = reader.next
        finally:
            self._give_back(reader)

    def _take(self, topic: str, position: int, where: str) -> KafkaReader:
        """A reader at a position: the one that an earlier read left there, a new one, or the one that idles longest."""
        with self._mutex:
            reader = next((reader for reader in self._idle if reader.is_at(topic, position)), None)
            if reader is None and len(self._idle) >= _IDLE:
                reader = self._idle[0]
            if reader is not None:
                self._idle.remove(reader)
        if reader is None:
            reader = KafkaReader(make_consumer(self._config))
        if not reader.is_at(topic, position):
            try:
                with self._guard.breaker.attempt():
                    reader.go(topic, position, self._timeout_s, where)
            except BaseException:
                reader.consumer.close()
                raise
        return reader

    def _give_back(self, reader: KafkaReader) -> None:
        with self._mutex:
            if not self._closed and len(self._idle) < _IDLE:
                self._idle.append(reader)
                return
        reader.consumer.close()

    # asking -------------------------------------------------------------------------------------------------

    def _listed(self) -> Iterable[str]:
        self._check_usable("streams")

        def ask() -> dict[str, object]:
            with self._guard.breaker.attempt(), mapped("streams"):
                topics: dict[str, object] = self._ask().list_topics(timeout=self._timeout_s).topics
                return topics

        return self._guard.read(ask, "streams")

    def _ask(self) -> Any:
        with self._mutex:
            if self._asker is None:
                self._asker = make_consumer(self._config)
            return self._asker

    def _exists(self, topic: str, where: str) -> bool:
        """Whether a topic exists; one that was seen once needs no question."""
        if topic in self._known:
            return True
        with mapped(where):
            metadata = self._ask().list_topics(topic, timeout=self._timeout_s).topics[topic]
        if metadata.error is not None and metadata.error.code() not in UNKNOWN:
            raise translate(metadata.error, where)
        if not metadata.partitions:
            return False
        if len(metadata.partitions) > 1:
            raise ConfigurationError(
                "a stream must be a topic with one partition: order and offsets are those of a partition",
                where=where,
                got=len(metadata.partitions),
                remedy="Make a topic with one partition, or one stream for each part of the keys",
            )
        self._known.add(topic)
        return True

    def _bounds(self, topic: str, where: str) -> tuple[int, int]:
        def ask() -> tuple[int, int]:
            with self._guard.breaker.attempt():
                return self._ask_bounds(topic, where)

        self._check_usable(where)
        return self._guard.read(ask, where)

    def _ask_bounds(self, topic: str, where: str) -> tuple[int, int]:
        if not self._exists(topic, where):
            return 0, 0
        from confluent_kafka import KafkaException, TopicPartition

        with mapped(where):
            try:
                low, high = self._ask().get_watermark_offsets(
                    TopicPartition(topic, 0), timeout=self._timeout_s, cached=False
                )
            except KafkaException as error:
                if error.args[0].code() not in UNKNOWN:
                    raise
                # Deleted by somebody, or only out of reach: ask again before it counts as empty.
                self._known.discard(topic)
                if self._exists(topic, where):
                    raise
                return 0, 0
        return low, high

    def _create(self, topic: str) -> None:
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        new_topic = NewTopic(topic, num_partitions=1, replication_factor=-1, config=_TOPIC)
        try:
            admin = AdminClient(dict(self._config))
            admin.create_topics([new_topic], request_timeout=self._timeout_s)[topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _check_usable(self, where: str) -> None:
        check_usable("a store of streams", where=where, owner=self._pid, closed=self._closed)
