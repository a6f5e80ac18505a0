"""Tables as Delta Lake in a bucket: the server twin of tables in a folder.

Entries of the log are put on the condition that their name is free (``If-None-Match: *``), which S3 and what speaks
like it decide for one writer only: no lock, no table of locks beside the bucket. ``pyarrow`` cannot ask for that and
``deltalake`` only for commits of its own making, so the log goes through ``obstore``, data files through ``pyarrow``.

Credentials come from the environment or the role of the machine, never from a URL.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import pyarrow.fs as pafs

from retrodict.core.breakers import Breaker
from retrodict.core.errors import MissingExtraError
from retrodict.stores._guard import ServerGuard
from retrodict.stores.tables._places import Stored, checkpoint
from retrodict.stores.tables._versions import Versions
from retrodict.stores.tables.base import VersionGuard
from retrodict.stores.tables.delta import DeltaTables

__all__ = ["BucketTables", "asking", "objects_of"]

_REQUESTS = 16
_REFUSALS = ("NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
_RETRIES, _RETRY_TIME = 3, timedelta(seconds=30)


class BucketTables(DeltaTables):
    """Server twin of :class:`~retrodict.stores.tables.base.TableStore` on S3 or what speaks like it.

    Parameters
    ----------
    bucket : str
        Bucket that exists.
    prefix : str, default ""
        Path inside it under which all tables lie.
    endpoint : str, optional
        Address of the server, ``http://…`` or ``https://…``; None: that of AWS for the region.
    region : str, optional
        None: what the environment says (``AWS_REGION``), else ``us-east-1``.
    timeout_s : float, default 30
        How long a writer tries to commit while others commit, in seconds.
    guard : VersionGuard, optional
        As for tables in a folder.
    breaker : Breaker, optional
        Refuses requests for the log, with which every call begins, while the bucket is away.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        timeout_s: float = 30.0,
        guard: VersionGuard | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        if find_spec("obstore") is None:
            raise MissingExtraError("obstore", "s3", needed_for="tables in a bucket")
        place = Bucket(bucket, prefix, endpoint, region, breaker or ServerGuard().breaker)
        self._versions = Versions(place, timeout_s, guard)


def objects_of(bucket: str, prefix: str, endpoint: str | None, region: str | None) -> Any:
    """Objects under a prefix of a bucket, as ``obstore`` has them; its errors are OSErrors inside :func:`asking`."""
    if find_spec("obstore") is None:
        raise MissingExtraError("obstore", "s3", needed_for="a bucket")
    from obstore.store import S3Store

    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if region:
        options["region"] = region
    with mapped():
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"allow_http": bool(endpoint and endpoint.startswith("http://"))},
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIME},
            **options,
        )


class Bucket:
    """Tables under a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, region: str | None, breaker: Breaker) -> None:
        self._bucket, self._prefix, self._breaker = bucket, prefix.strip("/"), breaker
        self._endpoint, self._region = endpoint, region

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        scheme, _, host = (self._endpoint or "https://").partition("://")
        options: dict[str, Any] = {"region": self._region} if self._region else {}
        if host:
            options["endpoint_override"] = host.rstrip("/")
        with mapped():
            return pafs.S3FileSystem(scheme=scheme, **options)

    @cached_property
    def _objects(self) -> Any:
        return objects_of(self._bucket, self._prefix, self._endpoint, self._region)

    def path(self, name: str, path: str) -> str:
        return "/".join(part for part in (self._bucket, self._prefix, name, path) if part)

    def lock(self, name: str, *, where: str, timeout_s: float) -> AbstractContextManager[object]:
        del name, where, timeout_s  # a bucket has no lock: commits decide
        return contextlib.nullcontext()

    def names(self) -> list[str]:
        with asking(self._breaker):
            folders = self._objects.list_with_delimiter()["common_prefixes"]
        return [name for name in folders if self._holds(f"{name}/_delta_log/{0:020d}.json")]

    def log(self, name: str) -> dict[str, object]:
        prefix = f"{name}/_delta_log/"
        return {
            item["path"][len(prefix) :]: (item["size"], item["e_tag"], item["last_modified"])
            for item in self._listed(prefix)
        }

    def entries(self, name: str, files: Sequence[str]) -> list[bytes]:
        def one(file: str) -> bytes:
            with asking(self._breaker):
                return bytes(self._objects.get(f"{name}/_delta_log/{file}").bytes())

        if len(files) <= 1:
            return [one(file) for file in files]
        with ThreadPoolExecutor(min(_REQUESTS, len(files))) as pool:
            return list(pool.map(one, files))

    def commit(self, name: str, file: str, data: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with asking(self._breaker):
                self._objects.put(f"{name}/_delta_log/{file}", data, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def prepare(self, name: str) -> None:
        """A bucket has no folders to make."""

    def settle(self, name: str, paths: Sequence[str]) -> None:
        """An object is durable once its upload is complete."""

    def stored(self, name: str) -> list[Stored]:
        prefix = f"{name}/"
        return [
            Stored(path, item["size"], int(item["last_modified"].timestamp() * 1e6))
            for item in self._listed(prefix)
            if (path := item["path"][len(prefix) :]).endswith(".parquet") and "/" not in path
        ]

    def sizes(self, name: str, paths: Sequence[str]) -> dict[str, int]:
        if len(paths) == 1:
            info = self.filesystem.get_file_info(self.path(name, paths[0]))
            return {paths[0]: info.size} if info.is_file else {}
        names = set(paths)
        prefix = f"{name}/"
        listed = {item["path"][len(prefix) :]: item["size"] for item in self._listed(prefix)} if names else {}
        return {path: size for path, size in listed.items() if path in names}

    def remove(self, name: str, paths: Iterable[str]) -> None:
        for path in paths:
            with asking(self._breaker), contextlib.suppress(FileNotFoundError):
                self._objects.delete(f"{name}/{path}")

    def checkpoint(self, name: str) -> None:
        options = {"allow_http": "true"} if self._endpoint and self._endpoint.startswith("http://") else {}
        options |= {"endpoint": self._endpoint} if self._endpoint else {}
        options |= {"region": self._region} if self._region else {}
        checkpoint(f"s3://{self.path(name, '')}", name, options)

    def _listed(self, prefix: str) -> list[Any]:
        with asking(self._breaker):
            return [item for batch in self._objects.list(prefix.rstrip("/")) for item in batch]

    def _holds(self, path: str) -> bool:
        try:
            with asking(self._breaker):
                self._objects.head(path)
        except FileNotFoundError:
            return False
        return True


@contextlib.contextmanager
def asking(breaker: Breaker) -> Iterator[None]:
    """One request in the block, unless the breaker is open; what the server answers is no failure."""
    with breaker.attempt(), mapped():
        yield


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """Errors of the library as those of a file system; its own texts print whole requests."""
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, "the bucket refused the request") from error
    except BaseError as error:
        if any(word in str(error) for word in _REFUSALS):
            raise PermissionError(errno.EACCES, "the bucket refused the request") from error
        raise ConnectionError(errno.EIO, "the bucket did not answer as it should") from error
