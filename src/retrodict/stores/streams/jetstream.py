"""Event streams on NATS JetStream: the server twin of the embedded log's events.

One JetStream stream per stream of ours, kept in files and without limits that delete. The offset of a record is its
sequence less one, so offsets are gapless as long as nobody deletes, and a gap is damage. What other programs publish
to the subject of a stream is a record like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from retrodict.core.errors import ConfigurationError
from retrodict.stores._ownership import Closing
from retrodict.stores.streams._names import check_length, check_prefix, check_range, check_stream
from retrodict.stores.streams._nats import ApiError, Connection, ask
from retrodict.stores.streams._nats_reader import NO_STREAM, Puller, StreamBounds, find_bounds, missing
from retrodict.stores.streams._nats_writer import JetStreamWriter

__all__ = ["JetStreams"]

_LONGEST_NAME = 255
_NAME_IN_USE = 10058
# How long the server knows the ids of records, in nanoseconds: a second line of defence, positions are the first.
_DUPLICATES = 120_000_000_000


class JetStreams(Closing):
    """Server twin of :class:`~retrodict.stores.streams.base.EventStreams` on NATS JetStream.

    Several writers may append to a stream at once; each record is published on the condition that it gets the place
    its writer computed, so offsets are exact and a retry doubles nothing. Threads may share a store.

    Parameters
    ----------
    servers : sequence of str
        Addresses, ``nats://host:port`` or ``tls://host:port``. Credentials come from the environment:
        ``NATS_USER`` and ``NATS_PASSWORD``, or ``NATS_TOKEN``.
    prefix : str, default "retrodict"
        Begins the names of all streams on the server, so that projects can share one.
    replicas : int, default 1
        Servers of a cluster that keep each stream made from now on.
    timeout_s : float, default 10
        How long one call tries to get its answer, in seconds. An append of many records may take that long for each
        piece of a thousand.

    Examples
    --------
    ::

        with JetStreams(["nats://127.0.0.1:4222"], prefix="shop") as streams:
            with streams.open_writer("events/landed") as writer:
                writer.append([b"one", b"two"])
            list(streams.read("events/landed", start=1))
    """

    def __init__(
        self, servers: Sequence[str], *, prefix: str = "retrodict", replicas: int = 1, timeout_s: float = 10.0
    ) -> None:
        self._prefix, self._replicas = check_prefix(prefix), replicas
        self._connection = Connection(servers, timeout_s)

    def open_writer(self, stream: str, *, timeout_s: float = 10.0) -> JetStreamWriter:
        """Open a writer of a stream, which is made if it does not exist.

        ``timeout_s`` is not needed: writers do not wait for one another.

        Raises
        ------
        ConfigurationError
            If a stream of that name exists on the server and may drop records.
        """
        del timeout_s
        name, subject = self._names(stream)
        where = f"stream {stream}"
        end = self._connection.call(lambda client: self._ensure(client, name, subject, where), where)
        return JetStreamWriter(self._connection, name, subject, where=where, end=end)

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(offset, record) pairs from an offset on, up to the end as it is when the iteration gets there.

        Raises
        ------
        IntegrityError
            When the iteration meets a record that was deleted on the server.
        """
        name, _ = self._names(stream)
        check_range(stream, start, limit)
        return self._read(name, f"stream {stream}", start, limit)

    def end(self, stream: str) -> int:
        """Offset the next record will get: 0 for a stream that does not exist."""
        name, _ = self._names(stream)
        return self._bounds(name, f"stream {stream}").end

    def names(self, prefix: str = "") -> list[str]:
        """Streams that exist and whose name begins with a prefix, sorted."""
        begin = f"{self._prefix}="
        listed = self._connection.call(self._listed, "streams")
        names = (name[len(begin) :].replace("=", "/") for name in listed if name.startswith(begin))
        return sorted(name for name in names if name.startswith(prefix))

    def close(self) -> None:
        """Disconnect; the store is not used again. A second call does nothing."""
        self._connection.close()

    # on the server ------------------------------------------------------------------------------------------

    def _names(self, stream: str) -> tuple[str, str]:
        """Name and subject on the server: '=' and '.' are in no name of ours, so no two share one."""
        name = f"{self._prefix}={check_stream(stream).replace('/', '=')}"
        return check_length(name, _LONGEST_NAME), f"{self._prefix}.{stream.replace('/', '.')}"

    def _bounds(self, name: str, where: str) -> StreamBounds:
        return self._connection.call(lambda client: find_bounds(client, name), where)

    def _read(self, name: str, where: str, offset: int, left: int | None) -> Iterator[tuple[int, bytes]]:
        puller = Puller(name, where)
        try:
            while left is None or left > 0:
                bounds = self._bounds(name, where)
                if offset >= bounds.end:
                    return
                if offset < bounds.first:
                    raise missing(where, offset)
                until = bounds.end if left is None else min(bounds.end, offset + left)
                left = None if left is None else left - (until - offset)
                while offset < until:
                    messages = self._connection.call(partial(puller.pull, offset=offset, until=until), where)
                    for message in messages:
                        yield offset, message.data
                        offset += 1
        finally:
            if puller.used:
                self._connection.forget(puller.close)

    async def _ensure(self, client: Any, name: str, subject: str, where: str) -> int:
        """Make a stream if it is not there; its end."""
        try:
            info = await ask(client, f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.code != NO_STREAM:
                raise
            config = {
                "name": name,
                "subjects": [subject],
                "retention": "limits",
                "storage": "file",
                "num_replicas": self._replicas,
                "max_msgs": -1,
                "max_bytes": -1,
                "max_age": 0,
                # A full server refuses records; it never drops old ones for new.
                "discard": "new",
                "deny_delete": True,
                "deny_purge": True,
                "duplicate_window": _DUPLICATES,
            }
            try:
                info = await ask(client, f"STREAM.CREATE.{name}", config)
            except ApiError as made:
                if made.code != _NAME_IN_USE:
                    raise
                info = await ask(client, f"STREAM.INFO.{name}")
        _check_config(info["config"], subject, where)
        return int(info["state"]["last_seq"])

    async def _listed(self, client: Any) -> list[str]:
        names: list[str] = []
        while True:
            answer = await ask(client, "STREAM.NAMES", {"subject": f"{self._prefix}.>", "offset": len(names)})
            names += answer["streams"] or []
            if not answer["streams"] or len(names) >= answer["total"]:
                return names


def _check_config(config: Mapping[str, Any], subject: str, where: str) -> None:
    """Refuse a stream that somebody else made and that would lose records."""
    limits = [name for name in ("max_msgs", "max_bytes", "max_msgs_per_subject") if config.get(name, -1) > 0]
    rules = {
        "subjects": config["subjects"] == [subject],
        "retention": config["retention"] == "limits",
        "storage": config["storage"] == "file",
        "max_age": not config.get("max_age"),
        "discard": config["discard"] == "new" or not limits,
    }
    broken = [name for name, holds in rules.items() if not holds]
    if broken:
        raise ConfigurationError(
            "a stream on the server must keep all records of its own subject in files",
            where=where,
            got=broken,
            remedy="Change these settings of the stream on the server, or choose another prefix",
        )
