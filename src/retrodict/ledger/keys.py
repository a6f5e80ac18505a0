"""Keys: the file of the one that signs, and whose signature on which statement counts.

Ed25519 (RFC 8032) from ``cryptography``. A statement is signed as its canonical JSON, whose ``retrodict`` says of which
kind it is: a checkpoint, a head, a version, a successor; none passes for another.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from retrodict.core.errors import IntegrityError, RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.stores._durable import make_folder, read_file, sync_folder, write_draft

__all__ = ["Keys", "Signed", "SigningKey", "adopt_key", "has_signed", "is_endorsed", "is_signed", "key_faults",
           "make_next_key", "next_key_path", "open_key"]  # fmt: skip

# Public keys that the chain names, each with the time of the entry that does, oldest first.
Keys = list[tuple[int, str]]

_LOST = "Restore the file from a backup, or go on with a new key: retrodict audit renew-key --unendorsed --reason WHY"


class Signed:
    """What is signed says so itself: dataclasses with a time (microseconds UTC), a key and a signature, both in hex."""

    __slots__ = ()
    time: int
    public_key: str
    signature: str

    @property
    def statement(self) -> dict[str, Any]:
        """What the signature is over."""
        raise NotImplementedError

    def is_valid(self, keys: Keys | None = None) -> bool:
        """Whether the signature fits the statement and the key, and, with the keys of a chain, that of its time."""
        counts = keys is None or has_signed(keys, self.public_key, self.time)
        return counts and is_signed(self.public_key, self.signature, self.statement)


S = TypeVar("S", bound=Signed)


def has_signed(keys: Keys, public_key: str, time: int) -> bool:
    """Whether a statement of a time counts by a key: from the entry that names the key to the one that names the next.

    A signature must be looked at besides.
    """
    ends = [begin for begin, _ in keys[1:]]
    spans = zip(keys, [*ends, time], strict=False)
    return type(time) is int and any(key == public_key and begin <= time <= end for (begin, key), end in spans)


def is_signed(public_key: str, signature: str, statement: Mapping[str, Any]) -> bool:
    """Whether the holder of a key signed a statement."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), canonical_json(statement))
    except (InvalidSignature, RetrodictError, ValueError, TypeError):  # also of stored values that are no text
        return False
    return True


def is_endorsed(public_key: str, signature: object, by: str) -> bool:
    """Whether the holder of one key signed that another one follows it."""
    return isinstance(signature, str) and is_signed(by, signature, _succession(public_key))


def _succession(public_key: str) -> dict[str, Any]:
    return {"retrodict": "next key", "public_key": public_key}


class SigningKey:
    """The private key in a file, 32 bytes; IntegrityError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            raw = read_file(path)
            self._key = Ed25519PrivateKey.from_private_bytes(raw)
        except (OSError, ValueError) as error:
            raise IntegrityError(
                "the key that signs the ledger's checkpoints must be readable and have 32 bytes",
                where=str(path),
                got=error.strerror if isinstance(error, OSError) else f"{len(raw)} bytes",
                remedy=_LOST,
            ) from error

    @property
    def public_key(self) -> str:
        """Public half, 64 hex digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, unsigned: S) -> S:
        """Put key and signature into what says what is signed."""
        signature = self._key.sign(canonical_json(unsigned.statement)).hex()
        return replace(unsigned, public_key=self.public_key, signature=signature)  # type: ignore[type-var]  # dataclasses

    def endorse(self, public_key: str) -> str:
        """Signature over the key that is to follow, in hex."""
        return self._key.sign(canonical_json(_succession(public_key))).hex()

    def secret(self, purpose: str) -> bytes:
        """Secret for another purpose, made of the key: it tells nothing of it."""
        return hmac.digest(self._key.private_bytes_raw(), purpose.encode(), "sha256")


def open_key(path: Path, expected: str | None) -> SigningKey:
    """Key that signs, by the public half that the chain names; None: the chain is empty, and a missing key is made.

    Raises
    ------
    IntegrityError
        If the chain names a key and the file is missing or holds another one. A new key in its place would make every
        later checkpoint worthless without anybody noticing.
    """
    if expected is not None:
        adopt_key(path, expected)
    elif not path.exists():
        _make_key(path)
    key = SigningKey(path)
    if expected is not None and key.public_key != expected:
        raise IntegrityError(
            "the signing key must be the one that the ledger names",
            where=str(path),
            got=f"a key whose public half is {key.public_key[:12]}…, not {expected[:12]}…",
            remedy=_LOST,
        )
    return key


def _make_key(path: Path) -> None:
    """Write a new key durably, readable by its owner; two first processes cannot end up with different keys."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        write_draft(temporary, Ed25519PrivateKey.generate().private_bytes_raw(), mode=0o600)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def next_key_path(path: Path) -> Path:
    """Where the next key waits until the chain names it."""
    return path.with_name(f"{path.name}.next")


def make_next_key(path: Path) -> SigningKey:
    """Make the key that is to follow; it signs where it waits."""
    waiting = next_key_path(path)
    waiting.unlink(missing_ok=True)
    _make_key(waiting)
    return SigningKey(waiting)


def adopt_key(path: Path, expected: str) -> None:
    """Move the next key into its place once the chain names it, also after a death in between."""
    waiting = next_key_path(path)
    if waiting.exists() and SigningKey(waiting).public_key == expected:
        waiting.replace(path)
        sync_folder(path.parent)


def key_faults(path: Path, expected: str) -> dict[str, str]:
    """What is wrong with the file of the key that the chain names, by the kind of the finding."""
    waiting = next_key_path(path)
    if not os.path.lexists(path):
        missing = "it is missing, so nothing more is appended; an auditor, who has none, states --public-key"
        return {} if waiting.exists() else {"removed": missing}
    faults = {}
    try:
        # The next key waits beside it until a process that renewed it, or the one after, puts it into its place.
        keys = [SigningKey(path).public_key, *([SigningKey(waiting).public_key] if waiting.exists() else [])]
        if expected not in keys:
            faults["altered"] = "it is another one than the ledger names, which nothing more is appended with"
    except IntegrityError as error:
        faults["altered"] = str(error)
    if path.exists() and (mode := path.stat().st_mode & 0o077):
        faults["exposed"] = f"others may use it (mode {mode:03o} beyond its owner's): chmod 600, and renew the key"
    return faults
