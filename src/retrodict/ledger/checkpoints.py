"""Signed checkpoints: "at this time the chain ended with this hash", kept outside the database.

A hash chain cannot show that its newest entries were cut off and the rest left intact; a signature over (sequence,
hash) in a place that the one who cuts does not control can. One JSON line per checkpoint, appended with a sync, so the
file itself can live on write-once storage.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrodict.core.errors import ConfigurationError, IntegrityError
from retrodict.ledger.keys import Signed
from retrodict.stores._durable import make_folder, open_file, sync_folder

__all__ = ["Checkpoint"]

_FILE = "checkpoints.jsonl"
_BLOCK = 1 << 20
_SEQUENCE = re.compile(rb'"sequence": ?(\d{1,18})')


@dataclass(frozen=True, slots=True)
class Checkpoint(Signed):
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

    @property
    def statement(self) -> dict[str, Any]:
        """What the signature is over."""
        more: dict[str, Any] = {"root": self.root, "log": self.log} if self.root else {}
        more |= {"after": self.after} if self.after else {}
        return {"retrodict": "checkpoint", "sequence": self.sequence, "time": self.time, "hash": self.hash, **more}


def prepare_file(folder: Path) -> None:
    """Find out that checkpoints can be written before anything is changed that would need one.

    Raises
    ------
    ConfigurationError
        If they cannot.
    """
    file = folder / _FILE
    try:
        if not file.exists():
            make_folder(folder)
            file.touch()
            sync_folder(folder)
        if not os.access(file, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ConfigurationError(
            "the folder of signed checkpoints must be writable",
            where="retrodict.toml, key 'ledger.checkpoints'",
            got=error.strerror,
            remedy=f"Make {folder} writable, or name another folder; nothing was changed",
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


def identity_of(place: Path) -> tuple[int, int] | None:
    """Device and number of the file of checkpoints, which all its names and links share; None if there is none."""
    path = _file_of(place)
    return (path.stat().st_dev, path.stat().st_ino) if path.exists() else None


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
