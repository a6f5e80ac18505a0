"""Signed checkpoints: "at this time the chain ended with this hash", kept outside the database.

A hash chain cannot show that its newest entries were cut off and the rest left intact; a signature over (sequence,
hash) in a place that the one who cuts does not control can. Ed25519 (RFC 8032) from ``cryptography``; one JSON line
per checkpoint, appended with a sync, so the file itself can live on write-once storage.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from retrodict.core.errors import ConfigurationError, IntegrityError, RetrodictError, RetryableError
from retrodict.core.identity import canonical_json
from retrodict.stores._durable import make_folder, open_file, read_file, sync_folder, write_draft

__all__ = ["Checkpoint", "Signer"]

_FILE = "checkpoints.jsonl"
_LOST = "Restore the file from a backup, or go on with a new key: retrodict audit renew-key --unendorsed --reason WHY"
_BLOCK = 1 << 20
_SEQUENCE = re.compile(rb'"sequence": ?(\d{1,18})')


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement on the end of the chain; ``public_key`` and ``signature`` in hex.

    ``root`` is that of the Merkle tree over the entries, ``log`` the hash of the first entry, which tells ledgers
    apart; ``after`` is the entry of the newest statement that stood in the file by then, so none can be taken out
    unseen. They are empty, and 0, in statements from before they were signed.
    """

    sequence: int
    time: int
    hash: str
    public_key: str
    signature: str
    root: str = ""
    log: str = ""
    after: int = 0

    @classmethod
    def read(cls, fields: object) -> Checkpoint | None:
        """Statement of stored fields; None if they are not those of one, each of its type."""
        if not isinstance(fields, Mapping) or not fields.keys() <= set(cls.__slots__):
            return None
        try:
            checkpoint = cls(**fields)
        except TypeError:
            return None
        types = [type(getattr(checkpoint, name)) for name in cls.__slots__]
        return checkpoint if types == [int, int, *[str] * 5, int] else None

    def is_valid(self) -> bool:
        """Whether the signature fits the statement and the key."""
        statement = _statement(self.sequence, self.time, self.hash, self.root, self.log, self.after)
        return is_signed(self.public_key, self.signature, statement)


def is_endorsed(public_key: str, signature: object, by: str) -> bool:
    """Whether the holder of one key signed that another one follows it."""
    return isinstance(signature, str) and is_signed(by, signature, _succession(public_key))


def is_signed(public_key: str, signature: str, statement: Mapping[str, Any]) -> bool:
    """Whether the holder of a key signed a statement: its canonical JSON, whose ``retrodict`` says of which kind."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), canonical_json(statement))
    except (InvalidSignature, RetrodictError, ValueError, TypeError):  # also of stored values that are no text
        return False
    return True


def _statement(sequence: int, time: int, hash_: str, root: str, log: str, after: int) -> dict[str, Any]:
    more: dict[str, Any] = {"root": root, "log": log} if root else {}
    more |= {"after": after} if after else {}
    return {"retrodict": "checkpoint", "sequence": sequence, "time": time, "hash": hash_, **more}


def _succession(public_key: str) -> dict[str, Any]:
    return {"retrodict": "next key", "public_key": public_key}


class Signer:
    """Holds the private key and appends checkpoints to a file.

    Parameters
    ----------
    key_path : Path
        The key, 32 bytes, readable by its owner only.
    folder : Path
        Where checkpoints go.
    expected : str, optional
        Public key that the chain names. None: the chain is empty, and a missing key is made.

    Raises
    ------
    IntegrityError
        If the chain names a key and the file is missing or holds another one. A new key in its place would make every
        later checkpoint worthless without anybody noticing.
    """

    def __init__(self, key_path: Path, folder: Path, *, expected: str | None = None) -> None:
        self._key_path, self._file = key_path, folder / _FILE
        if expected is None:
            if not key_path.exists():
                _make_key(key_path)
        else:
            _adopt(key_path, expected)
        self._key = _load_key(key_path)
        if expected is not None and self.public_key != expected:
            raise IntegrityError(
                "the signing key must be the one that the ledger names",
                where=str(key_path),
                got=f"a key whose public half is {self.public_key[:12]}…, not {expected[:12]}…",
                remedy=_LOST,
            )

    @property
    def public_key(self) -> str:
        """Public half of the key, 64 hex digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def prepare(self) -> None:
        """Find out that checkpoints can be written before anything is changed that would need one.

        Raises
        ------
        ConfigurationError
            If they cannot.
        """
        try:
            if not self._file.exists():
                make_folder(self._file.parent)
                self._file.touch()
                sync_folder(self._file.parent)
            if not os.access(self._file, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise ConfigurationError(
                "the folder of signed checkpoints must be writable",
                where="retrodict.toml, key 'ledger.checkpoints'",
                got=error.strerror,
                remedy=f"Make {self._file.parent} writable, or name another folder; nothing was changed",
            ) from error

    def sign_statement(self, statement: Mapping[str, Any]) -> str:
        """Signature over the canonical JSON of a statement, in hex."""
        return self._key.sign(canonical_json(statement)).hex()

    def sign(self, sequence: int, time: int, hash_: str, *, root: str, log: str, after: int) -> Checkpoint:
        """Statement that the chain of a log ended with this hash, and its tree has this root."""
        signature = self.sign_statement(_statement(sequence, time, hash_, root, log, after))
        return Checkpoint(sequence, time, hash_, self.public_key, signature, root, log, after)

    def endorse(self, public_key: str) -> str:
        """Signature over the key that is to follow, in hex."""
        return self.sign_statement(_succession(public_key))

    def append(self, checkpoint: Checkpoint) -> None:
        """Make a statement durable in the file of checkpoints.

        Raises
        ------
        RetryableError
            If the disk does not take it: what was committed stays, and the next transaction signs it too.
        """
        try:
            append_line(self._file.parent, checkpoint)
        except OSError as error:
            raise RetryableError(
                "the checkpoint of a change must be written; the change is stored, its checkpoint is not",
                where=f"checkpoint of entry {checkpoint.sequence}",
                got=error.strerror,
                remedy="Free space on the disk of the checkpoints; do not repeat the change",
            ) from error


def append_line(folder: Path, checkpoint: Checkpoint) -> None:
    """Append a statement to the file of a folder that exists, and sync it."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    with os.fdopen(open_file(folder / _FILE, flags), "ab+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            _cut_torn_line(stream.fileno())
        except PermissionError:  # a file that can only be appended to: the torn line gets its end
            stream.write(b"\n")
        stream.write(json.dumps(asdict(checkpoint)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _cut_torn_line(descriptor: int) -> None:
    """Remove what a writer that died left after the last newline: it was never acknowledged."""
    size = end = os.fstat(descriptor).st_size
    while end:
        tail = os.pread(descriptor, min(end, 4096), max(0, end - 4096))
        end += tail.rfind(b"\n") + 1 - len(tail)
        if b"\n" in tail:
            break
    if end < size:
        os.ftruncate(descriptor, end)


# the key ------------------------------------------------------------------------------------------------------


def _make_key(path: Path) -> None:
    """Write a new key durably; two first processes cannot end up with different keys."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        write_draft(temporary, Ed25519PrivateKey.generate().private_bytes_raw(), mode=0o600)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _load_key(path: Path) -> Ed25519PrivateKey:
    try:
        raw = read_file(path)
        return Ed25519PrivateKey.from_private_bytes(raw)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            "the key that signs the ledger's checkpoints must be readable and have 32 bytes",
            where=str(path),
            got=error.strerror if isinstance(error, OSError) else f"{len(raw)} bytes",
            remedy=_LOST,
        ) from error


def public_half(path: Path) -> str:
    """Public half of a key that waits in a file, 64 hex digits; errors as for one that cannot be read."""
    return _load_key(path).public_key().public_bytes_raw().hex()


def derived_secret(path: Path, purpose: str) -> bytes:
    """Secret for another purpose, made of the key: it tells nothing of it."""
    return hmac.digest(_load_key(path).private_bytes_raw(), purpose.encode(), "sha256")


def next_key_path(path: Path) -> Path:
    """Where the next key waits until the chain names it."""
    return path.with_name(f"{path.name}.next")


def make_next_key(path: Path) -> str:
    """Make the key that is to follow, and return its public half."""
    waiting = next_key_path(path)
    waiting.unlink(missing_ok=True)
    _make_key(waiting)
    return public_half(waiting)


def waiting_signer(path: Path, folder: Path) -> Signer:
    """Signer with the key that is to follow."""
    return Signer(next_key_path(path), folder)


def _adopt(path: Path, expected: str) -> None:
    """Move the next key into its place once the chain names it, also after a death in between."""
    waiting = next_key_path(path)
    if waiting.exists() and public_half(waiting) == expected:
        waiting.replace(path)
        sync_folder(path.parent)


# reading ------------------------------------------------------------------------------------------------------


def scan_checkpoints(place: Path, size: float = math.inf) -> Iterator[tuple[int, Checkpoint | None]]:
    """(number of the line, checkpoint) of a folder or of a copy of its file; None for a line that is none.

    ``size`` is where to stop, in bytes. A line that a dying writer left torn is passed over.
    """
    path, at, last = _file_of(place), 0, 0
    if not path.exists():
        return
    with os.fdopen(open_file(path), "rb") as stream:
        for number, line in enumerate(stream, start=1):
            at += len(line)
            if not line.endswith(b"\n") or at > size:
                return
            checkpoint = read_line(line)
            if checkpoint is not None or not _is_torn(line.rstrip(b"\n"), last):
                yield number, checkpoint
            last = last if checkpoint is None else checkpoint.sequence


def newest_signed(folder: Path, public_key: str, start: int = 0, best: Checkpoint | None = None) -> Checkpoint | None:
    """Checkpoint of the highest sequence that a key signed, from some byte on, if it is above the best of those before.

    All of it is looked through, block by block from the end on: stopping early would let old lines that somebody
    repeats at the end hide the newest one. Only lines above the best so far are parsed; whatever else is wrong with
    them is for an audit.
    """
    try:
        descriptor = open_file(folder / _FILE)
    except FileNotFoundError:
        return best
    except OSError as error:
        raise IntegrityError(
            "the signed checkpoints must be a file that can be read",
            where=str(folder / _FILE),
            got=error.strerror,
            remedy="Take away what is in its place, and restore the file from a copy or a witness",
        ) from error
    with os.fdopen(descriptor, "rb") as stream:
        for begin in reversed(range(start, size_of(folder), _BLOCK)):
            stream.seek(begin)
            if begin > start:
                stream.readline()  # read with the block before
            block = stream.read(max(begin + _BLOCK - stream.tell(), 0)) + stream.readline()
            if _highest(block) > (best.sequence if best else -1):
                best = _newest_of(block, public_key, best)
    return best


def _newest_of(block: bytes, public_key: str, best: Checkpoint | None) -> Checkpoint | None:
    lines = [line for line in block.split(b"\n")[:-1] if public_key.encode() in line]
    for line in sorted(lines, key=_highest, reverse=True):
        if best is not None and _highest(line) <= best.sequence:
            break
        checkpoint = read_line(line)
        if checkpoint is not None and checkpoint.public_key == public_key and checkpoint.is_valid():
            return checkpoint
    return best


def _highest(text: bytes) -> int:
    """Highest number of an entry that a text says, without parsing it."""
    return max(map(int, _SEQUENCE.findall(text)), default=-1)


def _file_of(place: Path) -> Path:
    return place if place.is_file() else place / _FILE


def size_of(place: Path) -> int:
    """Bytes of the file of checkpoints."""
    path = _file_of(place)
    return path.stat().st_size if path.exists() else 0


def count_lines(place: Path) -> int:
    """Lines of the file of checkpoints."""
    path = _file_of(place)
    if not path.exists():
        return 0
    with os.fdopen(open_file(path), "rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(_BLOCK), b""))


def _is_torn(line: bytes, last: int) -> bool:
    """Whether a line is the beginning of a statement on what came after the one before it: its writer died."""
    match = _SEQUENCE.match(line[1:])
    return line.startswith(b"{") and not line.endswith(b"}") and match is not None and int(match[1]) > last


def read_line(line: bytes) -> Checkpoint | None:
    """Statement of a line; None if it is none."""
    try:
        return Checkpoint.read(json.loads(line))
    except (ValueError, RecursionError):
        return None
