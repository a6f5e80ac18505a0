"""Stores by URL: nothing configured means the embedded twin in the project's folder.

====================================== ================================================================
``state/keys``, ``file:state/keys``    a path, relative to the project's folder
``file:/data/keys``                    an absolute path (``file:///data/keys`` is the same)
``sqlite:state/records.db``            records only; ``sqlite:///state/records.db`` is the same, and a
                                       fourth slash makes it absolute, as SQLAlchemy has it
``s3://bucket/prefix``                 tables, objects and witnesses; for a server that is not AWS
                                       ``?endpoint=http://127.0.0.1:9000&region=eu-1``. Credentials come
                                       from the environment
``lmdb:state/keys``                    keys only; otherwise like ``file:``
``redis://host:6379/0?prefix=shop``    keys and scores only; ``rediss:`` for TLS, ``unix:///path/of/socket?db=0``,
                                       and ``valkey:`` and ``valkeys:``. ``${NAME}`` in it is taken from the
                                       environment, so that a password need not stand in a file
``postgresql://ann@host/db?schema=x``   records only; the schema is made if needed. ``${NAME}`` as above
``nats://host:4222?prefix=shop``       streams of events and decisions; ``tls:`` for TLS, several hosts with commas,
                                       and ``replicas=3`` in a cluster. Credentials come from the environment
``kafka://host:9092?prefix=shop``      streams of events only; several hosts with commas, and
                                       ``security=sasl_ssl&mechanism=SCRAM-SHA-512``. Credentials as above
====================================== ================================================================

The scheme of a server that a kind of store has no twin for (``gs:`` …) is known and refused by name. URLs can
hold passwords, so no message repeats one: at most its scheme.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from retrodict.core.errors import ConfigurationError, near

if TYPE_CHECKING:
    from retrodict.core.breakers import Breaker
    from retrodict.stores._guard import ServerGuard
    from retrodict.stores.keys.base import KeyStore
    from retrodict.stores.keys.cache import ExpiringKeys
    from retrodict.stores.objects.base import ObjectStore
    from retrodict.stores.records.base import RecordStore
    from retrodict.stores.streams.base import EventStreams, StreamStore
    from retrodict.stores.tables.base import TableStore, VersionGuard

__all__ = [
    "is_guarded",
    "open_bucket",
    "open_cache",
    "open_keys",
    "open_log",
    "open_objects",
    "open_records",
    "open_sessions",
    "open_streams",
    "open_tables",
]

# Two letters at least: one letter is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_SERVERS = {
    "az": "Azure", "azure": "Azure", "abfs": "Azure", "gs": "GCS", "gcs": "GCS", "s3": "S3", "s3a": "S3",
    "kafka": "Kafka", "nats": "NATS JetStream", "tls": "NATS JetStream",
    "postgres": "PostgreSQL", "postgresql": "PostgreSQL",
    "redis": "Redis", "rediss": "Redis", "valkey": "Valkey", "valkeys": "Valkey",
}  # fmt: skip
_REDIS = ("redis", "rediss", "unix", "valkey", "valkeys")
_NATS = ("nats", "tls")
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
_TWINS = {"tables": ("s3",), "objects": ("s3",), "records": _POSTGRES, "keys": _REDIS, "streams": (*_NATS, "kafka")}
# Callers wait for their record.
_LOG_S = 2.0
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")


def is_guarded(url: str) -> bool:
    """Whether a URL names a server, which a breaker stands before."""
    return url.partition(":")[0].lower() in (*_REDIS, *_NATS, *_POSTGRES, "kafka", "s3", "http", "https")


def open_tables(
    url: str, root: Path, *, guard: VersionGuard | None = None, breaker: Breaker | None = None
) -> TableStore:
    """Table store of a URL: Delta Lake in a folder or in a bucket.

    Parameters
    ----------
    url : str
        A path or a URL, see above.
    root : Path
        Folder that relative paths start from.
    guard : VersionGuard, optional
        Who knows which versions are ours.
    breaker : Breaker, optional
        Stands between the callers and a bucket.

    Raises
    ------
    ConfigurationError
        If the scheme is unknown or not available, or a bucket's URL holds more than it should (credentials, unknown
        options); the message never repeats the URL.
    """
    if url.lower().startswith("s3:"):
        from retrodict.stores.tables.bucket import BucketTables

        bucket, prefix, options = _bucket(url, "stores.tables")
        endpoint, region = options.get("endpoint"), options.get("region")
        return BucketTables(bucket, prefix, endpoint=endpoint, region=region, guard=guard, breaker=breaker)
    path = _path(url, root, "tables")
    from retrodict.stores.tables.delta import DeltaTables

    return DeltaTables(path, guard=guard)


def open_bucket(
    url: str, where: str, breaker: Breaker | None = None
) -> tuple[Any, Callable[[], AbstractContextManager[None]]]:
    """Objects under the place of a bucket's URL, as ``obstore`` has them, and what each request goes in.

    Within that the breaker refuses and counts, ConnectionError among what it counts, and errors are OSErrors.

    Errors are those of :func:`open_tables`; ``where`` is the setting that holds the URL.
    """
    from retrodict.stores.tables.bucket import asking, mapped, objects_of

    bucket, prefix, options = _bucket(url, where)
    objects = objects_of(bucket, prefix, options.get("endpoint"), options.get("region"))
    return objects, mapped if breaker is None else partial(asking, breaker)


def open_records(url: str, root: Path, *, guard: ServerGuard | None = None) -> RecordStore:
    """Record store of a URL: SQLite in a file, or PostgreSQL. Parameters and errors are those of :func:`open_tables`.

    ``guard`` stands between the callers and a server.

    Raises
    ------
    ConfigurationError
        Also if the server refuses the user, or does not sync what it commits.
    RetryableError
        If the server cannot be reached.
    """
    if url.partition(":")[0].lower() in _POSTGRES:
        from retrodict.stores.records.postgres import PostgresRecords

        return PostgresRecords(url, guard=guard)
    path = _path(url, root, "records", extra="sqlite")
    from retrodict.stores.records.sqlite import SqliteRecords

    return SqliteRecords(path)


def open_keys(url: str, root: Path, *, guard: ServerGuard | None = None) -> KeyStore:
    """Key store of a URL: LMDB in a folder, or Redis. Parameters and errors are those of :func:`open_tables`.

    Raises
    ------
    ConfigurationError
        Also if the server refuses the user, or cannot promise what a key store promises.
    RetryableError
        If the server cannot be reached.
    """
    match = _SCHEME.fullmatch(url)
    if match and match[1].lower() in _REDIS:
        from retrodict.stores.keys.redis import RedisKeys

        return RedisKeys(url, guard=guard)
    path = _path(url, root, "keys", extra="lmdb")
    from retrodict.stores.keys.lmdb import LmdbKeys

    return LmdbKeys(path)


def open_sessions(url: str, root: Path) -> KeyStore:
    """Key store for sessions, in a folder beside that of the key store of a URL; errors are those of :func:`open_keys`.

    Its writes wait neither for the disk nor for those of features. It is of this boot of the machine: a loss of power
    could damage it, so another one begins anew.
    """
    from retrodict.stores.keys.lmdb import LmdbKeys
    from retrodict.stores.streams._layout import this_boot

    path = _path(url, root, "keys", extra="lmdb")
    folder = path.with_name(f"{path.name}-sessions-{(this_boot() or bytes(16)).hex()}")
    for other in path.parent.glob(f"{path.name}-sessions-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return LmdbKeys(folder, synced=False)


def open_cache(url: str, root: Path, *, guard: ServerGuard) -> ExpiringKeys:  # noqa: ARG001 - as the others
    """Redis of a URL, for values that may be gone at any time. Parameters and errors are those of :func:`open_tables`.

    The server is not called here, and need not be there.
    """
    if url.partition(":")[0].lower() not in _REDIS:
        raise ConfigurationError("shared scores must be in Redis or Valkey", where="stores.scores", got="another URL",
                                 remedy="Write 'redis://host:port/0?prefix=shop', or leave it out")  # fmt: skip
    from retrodict.stores.keys.cache import ExpiringKeys

    return ExpiringKeys(url, guard=guard)


def open_objects(url: str, root: Path, *, breaker: Breaker | None = None) -> ObjectStore:
    """Object store of a URL: files in a folder, or a bucket. Parameters and errors are those of :func:`open_tables`."""
    if url.lower().startswith("s3:"):
        from retrodict.stores.objects.bucket import BucketObjects

        return BucketObjects(*open_bucket(url, "stores.objects", breaker))
    path = _path(url, root, "objects")
    from retrodict.stores.objects.folder import FolderObjects

    return FolderObjects(path)


def open_streams(url: str, root: Path, *, guard: ServerGuard | None = None) -> EventStreams:
    """Event streams of a URL: segment files in a folder, NATS JetStream or Kafka.

    Parameters and errors are those of :func:`open_tables`. The decision log needs more: :func:`open_log`.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in _NATS:
        from retrodict.stores.streams.jetstream import JetStreams

        servers, options = _nats(url, scheme)
        return JetStreams(servers, guard=guard, **options)
    if scheme == "kafka":
        from retrodict.stores.streams.kafka import KafkaStreams

        servers, options = _servers(url, {"prefix", "security", "mechanism"})
        return KafkaStreams(servers, guard=guard, **options)
    return open_log(url, root)


def open_log(
    url: str,
    root: Path,
    *,
    admitted: Callable[[str], Collection[str] | None] = lambda _: None,
    guard: ServerGuard | None = None,
    owner: Callable[[], str] = lambda: "",
) -> StreamStore:
    """Decision log of a URL: segment files in a folder, or NATS JetStream.

    Parameters and errors are those of :func:`open_tables`. ``admitted`` gives the segments of a stream that count;
    None: all of them. ``owner`` says whose log it is: on a server others may have theirs.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in _NATS:
        from retrodict.stores.streams.jetstream_log import JetStreamLog

        servers, options = _nats(url, scheme)
        return JetStreamLog(servers, admitted=admitted, owner=owner, guard=guard, timeout_s=_LOG_S, **options)
    path = _path(url, root, "streams")
    from retrodict.stores.streams.segments import SegmentStreams

    return SegmentStreams(path, admitted=admitted)


def _nats(url: str, scheme: str) -> tuple[list[str], dict[str, Any]]:
    """Addresses and options of a URL of NATS."""
    servers, options = _servers(url, {"prefix", "replicas"})
    replicas = options.pop("replicas", "1")
    if replicas not in ("1", "2", "3", "4", "5"):
        raise ConfigurationError("replicas must be a number from 1 to 5", where="stores.streams", got=len(replicas),
                                 remedy="Leave it out for 1")  # fmt: skip
    return [f"{scheme}://{server}" for server in servers], {"replicas": int(replicas), **options}


def _servers(url: str, names: set[str]) -> tuple[list[str], dict[str, Any]]:
    """Addresses and options of a URL of streams; refuses one that holds anything that may be a secret."""
    where = "stores.streams"
    if "@" in url:
        raise _secret("a server of streams", where, "them in the environment (see the page on stores)")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    servers = parts.netloc.split(",")
    if not all(map(_ADDRESS.fullmatch, servers)) or parts.path.strip("/") or parts.fragment:
        raise ConfigurationError(
            "the URL of a server of streams must name its address and options",
            where=where,
            remedy="Write 'nats://host:4222?prefix=shop' or 'kafka://host:9092,other:9092?prefix=shop'",
            got="a URL that names less or more",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    _check_options(options, sorted(names), "this server of streams", where)
    return servers, options


def _secret(what: str, where: str, settings: str) -> ConfigurationError:
    return ConfigurationError(
        f"the URL of {what} must name no user and no password",
        where=where,
        got="a URL with one",
        remedy=f"Set {settings}, and change what was in the URL",
    )


def _check_options(options: Iterable[str], names: Sequence[str], what: str, where: str) -> None:
    strange = sorted(set(options) - set(names))
    if strange:
        raise ConfigurationError(
            f"the URL of {what} must have the options {' and '.join(map(repr, names))} only",
            where=where,
            got=f"{len(strange)} other",
            remedy=f"{near(strange[0], names, what='option')}; credentials come from the environment, never from a URL",
        )


def _path(url: str, root: Path, contract: str, *, extra: str | None = None) -> Path:
    """Path that a URL names for an embedded twin."""
    where, choices = f"stores.{contract}", ["file", *([extra] if extra else [])]
    embedded = "a path or " + " or ".join(f"'{scheme}:'" for scheme in choices)
    if not url.strip():
        raise ConfigurationError(
            "a store must be named by a path or a URL", where=where, remedy=f"Write {embedded}", got="neither"
        )
    match = _SCHEME.fullmatch(url)
    if not match:
        return Path(root) / url
    scheme, rest = match[1].lower(), match[2]
    server = _SERVERS.get(scheme.partition("+")[0])
    if server:
        raise ConfigurationError(
            f"{contract} must be in a store of this version, and their {server} twin is not in it",
            where=where,
            got=f"scheme {scheme.partition('+')[0]!r}",
            remedy=f"Use what is: {embedded}",
        )
    if scheme not in choices:
        raise ConfigurationError(
            f"{contract} must have a scheme that is known",
            where=where,
            # With an '@' the part before the colon may be a user's name.
            got="a URL" if "@" in url else f"scheme {scheme!r}",
            remedy=near(scheme, [*choices, *_TWINS.get(contract, ())], what="scheme"),
        )
    return Path(root) / _local(scheme, rest, where)


def _bucket(url: str, where: str) -> tuple[str, str, dict[str, str]]:
    """Bucket, prefix and options of an S3 URL; refuses one that holds anything that may be a secret."""
    form = "Write 's3://bucket/prefix?endpoint=https://…&region=…'"
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        endpoint = urlsplit(options.get("endpoint", "https://aws"))
        ports = parts.port, endpoint.port
    except ValueError as error:
        raise ConfigurationError(
            "the URL of a bucket must be readable", where=where, remedy=form, got="one that is not"
        ) from error
    if "@" in parts.netloc or "@" in endpoint.netloc:
        raise _secret("a bucket", where, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
    if not parts.netloc or ports[0] is not None or parts.fragment:
        raise ConfigurationError(
            "the URL of a bucket must name one, and no port",
            where=where,
            remedy=form,
            got="a URL that names less or more",
        )
    _check_options(options, ("endpoint", "region"), "a bucket", where)
    plain = endpoint.netloc and not (endpoint.query or endpoint.fragment or endpoint.path.strip("/"))
    if endpoint.scheme not in ("http", "https") or not plain:
        raise ConfigurationError(
            "the endpoint of a bucket must be 'http://host:port' or 'https://host:port'",
            where=where,
            remedy=form,
            got="another form",
        )
    return parts.netloc, parts.path.strip("/"), {name: value for name, value in options.items() if value}


def _local(scheme: str, rest: str, where: str) -> str:
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host:
            raise ConfigurationError(
                "the URL of a local path must name no host",
                where=where,
                got=f"scheme {scheme!r}",
                remedy=f"Write '{scheme}:relative/path' or '{scheme}:///absolute/path'",
            )
        rest = path if scheme == "sqlite" else slash + path
    if not rest or "?" in rest or "#" in rest:
        raise ConfigurationError(
            "the URL of a local path must be a path and nothing else",
            where=where,
            got=f"scheme {scheme!r}",
            remedy=f"Write '{scheme}:relative/path'",
        )
    return rest
