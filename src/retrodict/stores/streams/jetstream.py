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
from retrodict.stores._guard import ServerGuard
from retrodict.stores.streams._nats import ApiError, Connection, ask
from retrodict.stores.streams._nats_reader import NO_STREAM, Puller, find_bounds, missing
from retrodict.stores.streams._nats_writer import JetStreamWriter
from retrodict.stores.streams._server import ServerStreams

__all__ = ["JetStreams"]

NAME_IN_USE = 10058
# How long the server knows the ids of records, in nanoseconds: a second line of defence, positions are the first.
_DUPLICATES = 120_000_000_000


class JetStreams(ServerStreams):
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
    guard : ServerGuard, optional
        Its breaker refuses calls while the server is away.

    Examples
    --------
    ::

        with JetStreams(["nats://127.0.0.1:4222"], prefix="shop") as streams:
            with streams.open_writer("events/landed") as writer:
                writer.append([b"one", b"two"])
            list(streams.read("events/landed", start=1))
    """

    divider, longest = "=", 255

    def __init__(
        self,
        servers: Sequence[str],
        *,
        prefix: str = "retrodict",
        replicas: int = 1,
        timeout_s: float = 10.0,
        guard: ServerGuard | None = None,
    ) -> None:
        super().__init__(prefix)
        self._replicas, self._connection = replicas, Connection(servers, timeout_s, guard or ServerGuard())

    def open_writer(self, stream: str, *, timeout_s: float = 10.0) -> JetStreamWriter:
        del timeout_s  # writers do not wait for one another
        name, where = self._place(stream)
        subject = name.replace(self.divider, ".")
        end = self._connection.call(lambda client: self._ensure(client, name, [subject], where), where)
        return JetStreamWriter(self._connection, name, subject, where=where, end=end)

    def close(self) -> None:
        self._connection.close()

    # on the server ------------------------------------------------------------------------------------------

    def _bounds(self, name: str, where: str) -> tuple[int, int]:
        return self._connection.call(lambda client: find_bounds(client, name), where)

    def _read(self, name: str, where: str, offset: int, left: int | None) -> Iterator[tuple[int, bytes]]:
        puller = Puller(name, where)
        try:
            while left is None or left > 0:
                first, end = self._bounds(name, where)
                if offset >= end:
                    return
                if offset < first:
                    raise missing(where, offset)
                until = end if left is None else min(end, offset + left)
                left = None if left is None else left - (until - offset)
                while offset < until:
                    messages = self._connection.call(partial(puller.pull, offset=offset, until=until), where)
                    for message in messages:
                        yield offset, message.data
                        offset += 1
        finally:
            self._connection.forget(puller.close)

    async def _ensure(self, client: Any, name: str, subjects: list[str], where: str, **settings: Any) -> int:
        """Make a stream if it is not there; its end."""
        try:
            info = await ask(client, f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.code != NO_STREAM:
                raise
            config = {
                "name": name,
                "subjects": subjects,
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
                **settings,
            }
            try:
                info = await ask(client, f"STREAM.CREATE.{name}", config)
            except ApiError as made:
                if made.code != NAME_IN_USE:
                    raise
                info = await ask(client, f"STREAM.INFO.{name}")
        _check_config(info["config"], subjects, where)
        owner = settings.get("description")
        if owner and info["config"].get("description") != owner:
            raise ConfigurationError(
                "a decision log must be of one project, and this one is of another",
                where=where,
                remedy="Give each project a prefix of its own in stores.streams: nats://host:4222?prefix=NAME",
            )
        return int(info["state"]["last_seq"])

    def _listed(self) -> list[str]:
        async def pages(client: Any) -> list[str]:
            names: list[str] = []
            while True:
                answer = await ask(client, "STREAM.NAMES", {"subject": f"{self._prefix}.>", "offset": len(names)})
                names += answer["streams"] or []
                if not answer["streams"] or len(names) >= answer["total"]:
                    return names

        return self._connection.call(pages, "streams")


def _check_config(config: Mapping[str, Any], subjects: list[str], where: str) -> None:
    """Refuse a stream that somebody else made and that would lose records."""
    limits = [name for name in ("max_msgs", "max_bytes", "max_msgs_per_subject") if config.get(name, -1) > 0]
    rules = {
        "subjects": config["subjects"] == subjects,
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
