"""Stores by URL: nothing configured means the embedded twin in the project's folder.

====================================== ================================================================
``state/keys``, ``file:state/keys``    a path, relative to the project's folder
``file:/data/keys``                    an absolute path (``file:///data/keys`` is the same)
``sqlite:state/records.db``            records only; ``sqlite:///state/records.db`` is the same, and a
                                       fourth slash makes it absolute, as SQLAlchemy has it
``s3://bucket/prefix``                 tables only; ``?endpoint=http://127.0.0.1:9000&region=eu-1`` for a
                                       server that is not AWS. Credentials come from the environment
``lmdb:state/keys``                    keys only; otherwise like ``file:``
====================================== ================================================================

The scheme of a server (``postgresql:``, ``redis:`` …) is known and refused by name in this version. URLs can hold
passwords, so no message repeats one: at most its scheme.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from retrodict.core.errors import ConfigurationError, near

if TYPE_CHECKING:
    from retrodict.stores.keys.base import KeyStore
    from retrodict.stores.objects.base import ObjectStore
    from retrodict.stores.records.base import RecordStore
    from retrodict.stores.streams.base import StreamStore
    from retrodict.stores.tables.base import TableStore

__all__ = ["open_keys", "open_objects", "open_records", "open_streams", "open_tables"]

# Two letters at least: one letter is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_SERVERS = {
    "az": "Azure", "azure": "Azure", "abfs": "Azure", "gs": "GCS", "gcs": "GCS", "s3": "S3", "s3a": "S3",
    "kafka": "Kafka", "nats": "NATS JetStream", "tls": "NATS JetStream",
    "postgres": "PostgreSQL", "postgresql": "PostgreSQL",
    "redis": "Redis", "rediss": "Redis", "valkey": "Valkey",
}  # fmt: skip


def open_tables(url: str, root: Path) -> TableStore:
    """Table store of a URL: Delta Lake in a folder or in a bucket.

    Parameters
    ----------
    url : str
        A path or a URL, see above.
    root : Path
        Folder that relative paths start from.

    Raises
    ------
    ConfigurationError
        If the scheme is unknown or not available, or a bucket's URL holds more than it should (credentials, unknown
        options); the message never repeats the URL.
    """
    if url.lower().startswith("s3:"):
        from retrodict.stores.tables.bucket import BucketTables

        bucket, prefix, options = _bucket(url, "stores.tables")
        return BucketTables(bucket, prefix, endpoint=options.get("endpoint"), region=options.get("region"))
    path = _path(url, root, "tables")
    from retrodict.stores.tables.delta import DeltaTables

    return DeltaTables(path)


def open_records(url: str, root: Path) -> RecordStore:
    """Record store of a URL: SQLite in a file. Parameters and errors are those of :func:`open_tables`."""
    path = _path(url, root, "records", own="sqlite")
    from retrodict.stores.records.sqlite import SqliteRecords

    return SqliteRecords(path)


def open_keys(url: str, root: Path) -> KeyStore:
    """Key store of a URL: LMDB in a folder. Parameters and errors are those of :func:`open_tables`."""
    path = _path(url, root, "keys", own="lmdb")
    from retrodict.stores.keys.lmdb import LmdbKeys

    return LmdbKeys(path)


def open_objects(url: str, root: Path) -> ObjectStore:
    """Object store of a URL: files in a folder. Parameters and errors are those of :func:`open_tables`."""
    path = _path(url, root, "objects")
    from retrodict.stores.objects.folder import FolderObjects

    return FolderObjects(path)


def open_streams(url: str, root: Path) -> StreamStore:
    """Stream store of a URL: segment files in a folder. Parameters and errors are those of :func:`open_tables`."""
    path = _path(url, root, "streams")
    from retrodict.stores.streams.segments import SegmentStreams

    return SegmentStreams(path)


def _path(url: str, root: Path, contract: str, *, own: str | None = None) -> Path:
    """Path that a URL names for an embedded twin."""
    where, choices = f"stores.{contract}", ["file", *([own] if own else [])]
    embedded = "a path or " + " or ".join(f"'{scheme}:'" for scheme in choices)
    if not url.strip():
        raise ConfigurationError("a store is named by a path or a URL", where=where, remedy=f"Write {embedded}")
    found = _SCHEME.fullmatch(url)
    if not found:
        return Path(root) / url
    scheme, rest = found[1].lower(), found[2]
    server = _SERVERS.get(scheme.partition("+")[0])
    if server:
        raise ConfigurationError(
            f"the {server} twin of {contract} is not in this version",
            where=where,
            got=f"scheme {scheme.partition('+')[0]!r}",
            remedy=f"Use what is: {embedded}",
        )
    if scheme not in choices:
        # With an '@' the part before the colon may be a user's name.
        shown = "a URL" if "@" in url else f"scheme {scheme!r}"
        hint = f"Write {embedded}" if "@" in url else near(scheme, choices, what="scheme")
        raise ConfigurationError(f"{contract} know no such scheme", where=where, got=shown, remedy=hint)
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
        raise ConfigurationError("the URL of a bucket can be read", where=where, remedy=form) from error
    if "@" in parts.netloc or "@" in endpoint.netloc:
        raise ConfigurationError(
            "the URL of a bucket names no user and no password",
            where=where,
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, and change what was in the URL",
        )
    if not parts.netloc or ports[0] is not None or parts.fragment:
        raise ConfigurationError("the URL of a bucket names one, and no port", where=where, remedy=form)
    strange = len(set(options) - {"endpoint", "region"})
    if strange:
        raise ConfigurationError(
            "the URL of a bucket has the options 'endpoint' and 'region' only",
            where=where,
            got=f"{strange} other",
            remedy="Credentials come from the environment, never from a URL",
        )
    plain = endpoint.netloc and not (endpoint.query or endpoint.fragment or endpoint.path.strip("/"))
    if endpoint.scheme not in ("http", "https") or not plain:
        raise ConfigurationError(
            "the endpoint of a bucket is 'http://host:port' or 'https://host:port'", where=where, remedy=form
        )
    return parts.netloc, parts.path.strip("/"), {name: value for name, value in options.items() if value}


def _local(scheme: str, rest: str, where: str) -> str:
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host:
            raise ConfigurationError(
                "the URL of a local path names no host",
                where=where,
                got=f"scheme {scheme!r}",
                remedy=f"Write '{scheme}:relative/path' or '{scheme}:///absolute/path'",
            )
        rest = path if scheme == "sqlite" else slash + path
    if not rest or "?" in rest or "#" in rest:
        raise ConfigurationError(
            "the URL of a local path is a path and nothing else",
            where=where,
            got=f"scheme {scheme!r}",
            remedy=f"Write '{scheme}:relative/path'",
        )
    return rest
