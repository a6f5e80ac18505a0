"""Objects in a bucket: the server twin of a folder of objects, under the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from retrodict.core.identity import digest as digest_of
from retrodict.stores.objects.base import ObjectStore, is_digest, missing, path_of, verified

__all__ = ["BucketObjects"]


class BucketObjects(ObjectStore):
    """Server twin of :class:`~retrodict.stores.objects.base.ObjectStore` on S3 or what speaks like it.

    An object is durable and visible once its upload is complete, and whoever puts the same bytes replaces them by
    themselves: nobody has to wait for anybody.

    Parameters
    ----------
    objects : ObjectStore
        Of ``obstore``, of the place of all objects.
    asking : callable
        Makes the context of a request, in which the library's errors are OSErrors.
    """

    def __init__(self, objects: Any, asking: Callable[[], AbstractContextManager[None]]) -> None:
        self._objects, self._asking = objects, asking

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        with self._asking():
            self._objects.put(path_of(digest), data)
        return digest

    def get(self, digest: str) -> bytes:
        path = path_of(digest)
        try:
            with self._asking():
                return verified(digest, bytes(self._objects.get(path).bytes()))
        except FileNotFoundError as error:
            raise missing(digest) from error

    def exists(self, digest: str) -> bool:
        path = path_of(digest)
        try:
            with self._asking():
                self._objects.head(path)
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[str]:
        with self._asking():
            paths = [item["path"] for batch in self._objects.list() for item in batch]
        names = ((path, path.rpartition("/")[2]) for path in paths)
        yield from sorted(name for path, name in names if is_digest(name) and path_of(name) == path)
