"""Contract of the object stores: blobs named by their content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.core.identity import digest as digest_of

__all__ = ["ObjectStore", "is_digest", "missing", "path_of", "verified"]


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


is_digest = re.compile(r"[0-9a-f]{64}").fullmatch


def path_of(digest: str) -> str:
    """Where an object lies, ``ab/cd/abcd…``: two levels keep folders small for millions of objects."""
    if not is_digest(digest):
        raise InputError(
            "a digest must be 64 lower-case hex digits",
            where="objects",
            got=digest,
            remedy="Copy it whole from where it was printed",
        )
    return f"{digest[:2]}/{digest[2:4]}/{digest}"


def verified(digest: str, data: bytes) -> bytes:
    """Bytes that were read of an object, if they are those that were put."""
    if digest_of(data) != digest:
        raise IntegrityError(
            f"the {len(data)} stored bytes must have the hash they were stored under",
            where=f"object {digest}",
            remedy="Restore the object from a copy, or put its bytes again",
            got="another hash",
        )
    return data


def missing(digest: str) -> NotFoundError:
    """Say that there is no such object."""
    return NotFoundError(
        "an object must be stored under this digest",
        where="objects",
        got=digest,
        remedy="Put the object, or correct the digest",
    )
