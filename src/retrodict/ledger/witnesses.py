"""Witnesses: other places to which every checkpoint goes, and which whoever alters the project does not control.

A folder on another machine, a file that can only be appended to, a bucket with object lock.

A witness that cannot be reached stops nothing, for the checkpoint is durable in the project's own folder by then; the
next one covers all before it. ``audit verify`` asks each for its newest statement and holds the chain against it.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from retrodict.core.breakers import Breaker
from retrodict.core.errors import RetrodictError
from retrodict.ledger.checkpoints import Checkpoint, append_line, identity_of, newest_signed, read_line
from retrodict.stores.urls import open_bucket

__all__ = ["BucketWitness", "FolderWitness", "Witness", "open_witnesses", "tell"]

_SIGNED_FOR, _TIMEOUT_S = timedelta(minutes=5), 30.0

_log = logging.getLogger(__name__)


class Witness(Protocol):
    """A place for checkpoints that is added to and never changed.

    ``name`` is for people and holds no secret.
    """

    name: str

    def identity(self) -> object:
        """What two witnesses have in common only if they are one; None while nothing is there."""

    def append(self, checkpoint: Checkpoint) -> None:
        """Keep a statement; OSError or RetrodictError if the place does not take it."""

    def newest(self, public_keys: Sequence[str]) -> Checkpoint | None:
        """Statement of the highest entry by one of these keys; None if there is none yet."""


class FolderWitness:
    """A file of checkpoints in another folder; it may be one that can only be appended to (``chattr +a``)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._folder = name, folder

    def identity(self) -> object:
        """Its file, however it is named or linked."""
        return identity_of(self._folder)

    def append(self, checkpoint: Checkpoint) -> None:
        """Append a line; the folder must exist, for one that is made in its place is no witness."""
        append_line(self._folder, checkpoint)

    def newest(self, public_keys: Sequence[str]) -> Checkpoint | None:
        """Newest line by one of the keys."""
        if not self._folder.is_dir():
            raise FileNotFoundError(2, "No such folder")
        statements = [one for key in public_keys if (one := newest_signed(self._folder, key)) is not None]
        return max(statements, key=lambda one: one.sequence, default=None)


class BucketWitness:
    """An object per checkpoint in a bucket, written once; with object lock and a default retention none can be deleted.

    Credentials come from the environment; they need to put, get and list, not to delete.
    """

    def __init__(self, url: str, breaker: Breaker) -> None:
        self.name = url.partition("?")[0]
        self._objects, self._asking = open_bucket(url, "ledger.witnesses", breaker)

    def identity(self) -> object:
        """Its bucket and prefix."""
        return self.name.rstrip("/")

    def append(self, checkpoint: Checkpoint) -> None:
        """Put an object; one that is there already is the same statement."""
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        import obstore

        name = f"checkpoints/{checkpoint.sequence:015d}-{checkpoint.signature[:16]}.json"
        body = json.dumps(asdict(checkpoint)).encode()
        # By a signed address, since a locked object needs a digest that the library does not send.
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        headers = {"Content-MD5": digest, "Content-Type": "application/json", "If-None-Match": "*"}
        with self._asking():
            address = obstore.sign(self._objects, "PUT", name, _SIGNED_FOR)
            try:
                with urlopen(Request(address, body, headers, method="PUT"), timeout=_TIMEOUT_S):  # noqa: S310 - of an S3 store
                    pass
            except HTTPError as error:
                if error.code not in (409, 412):
                    raise OSError(errno.EIO, f"the bucket answered {error.code} {error.reason}") from error
            except (URLError, TimeoutError) as error:
                raise ConnectionError(errno.EIO, "the bucket did not answer") from error

    def newest(self, public_keys: Sequence[str]) -> Checkpoint | None:
        """Newest object by one of the keys: names are in the order of the entries, forged ones are passed over."""
        with self._asking():
            names = sorted(
                (item["path"] for batch in self._objects.list("checkpoints/") for item in batch), reverse=True
            )
        for name in names:
            with self._asking():
                checkpoint = read_line(bytes(self._objects.get(name).bytes()))
            if checkpoint is not None and checkpoint.public_key in public_keys and checkpoint.is_valid():
                return checkpoint
        return None


def open_witnesses(places: Sequence[str], root: Path, breaker: Callable[[str, str], Breaker]) -> list[Witness]:
    """Witnesses of the setting ``ledger.witnesses``: folders, relative to the project's, and ``s3://`` URLs.

    ``breaker`` makes the one of a name and a URL.
    """
    return [
        BucketWitness(place, breaker(f"witness {number}", place))
        if place.lower().startswith("s3:")
        else FolderWitness(root / place, place)
        for number, place in enumerate(places, 1)
    ]


def tell(witnesses: Sequence[Witness], checkpoint: Checkpoint) -> None:
    """Give a checkpoint to every witness; one that does not take it is logged."""
    for witness in witnesses:
        try:
            witness.append(checkpoint)
        except (OSError, RetrodictError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            _log.error("the witness %s did not take the checkpoint of entry %d: %s; the next one covers it",
                       witness.name, checkpoint.sequence, reason)  # fmt: skip
