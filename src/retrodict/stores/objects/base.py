"""Contract of the object stores: blobs named by their content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

__all__ = ["ObjectStore"]


class ObjectStore(Protocol):
    """Immutable bytes under their SHA-256 (64 hex digits): artifacts, plots, code, reports.

    Promises
    --------
    * *Verified*: ``get`` checks the hash on every read and raises IntegrityError, naming the object, instead of
      returning bytes that are not what was put.
    * *Atomic and idempotent*: the same bytes twice are stored once; a reader never sees half an object, also after
      ``kill -9``; once ``put`` returns the object survives a loss of power.
    * *Processes and threads*: any number put and get at once.
    """

    def put(self, data: bytes) -> str:
        """Store bytes and return their SHA-256; a damaged copy under that name is replaced."""

    def get(self, digest: str) -> bytes:
        """Bytes of an object, verified; NotFoundError if it was never put, IntegrityError if it was altered."""

    def exists(self, digest: str) -> bool:
        """Whether the object is there (not whether it is intact)."""

    def digests(self) -> Iterator[str]:
        """Return the SHA-256 of every object, sorted; drafts of writers that died are none."""
