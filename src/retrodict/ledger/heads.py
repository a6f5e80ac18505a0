"""Signed heads: "up to here this stream was written by us", kept outside the database and beside the checkpoints.

A segment is sealed when it is closed. Until then, and until its seal is in the chain, the head of its stream says how
many records it has and what they hash to. The place holds the newest statement only, replaced whole: a line for each
would be thousands a day, and what an older one says, the newer one says too. A log in files has it in a file, one on a
server beside the log, where every machine reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from retrodict.ledger.keys import Signed
from retrodict.stores._durable import make_folder, place_file, read_file

if TYPE_CHECKING:
    from retrodict.ledger.ledger import Ledger

__all__ = ["FolderHeads", "HeadPlace", "Prefix", "SignedHead", "read_head", "scan_heads", "write_head"]

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first ``count`` records of a segment: ``size`` bytes of its file, their ``digest``, the records' ``root``."""

    segment: str
    first: int
    count: int
    size: int
    digest: str
    root: str


@dataclass(frozen=True, slots=True)
class SignedHead(Signed):
    """Statement on the segments of a stream that are not sealed yet, oldest first; the last one is the open one."""

    stream: str
    time: int
    prefixes: tuple[Prefix, ...]
    public_key: str
    signature: str

    @property
    def statement(self) -> dict[str, Any]:
        """What the signature is over."""
        segments = [asdict(one) for one in self.prefixes]
        return {"retrodict": "head", "stream": self.stream, "segments": segments, "time": self.time}


@runtime_checkable
class HeadPlace(Protocol):
    """Where statements are: one for each stream, durable, and the newest only."""

    def read_head(self, stream: str) -> bytes | None:
        """Statement on a stream; None if there is none."""

    def write_head(self, stream: str, data: bytes) -> None:
        """Put a statement in the place of the one before."""

    def heads(self) -> list[str]:
        """Streams that there is a statement on."""


class FolderHeads(HeadPlace):
    """Statements in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "heads"

    def read_head(self, stream: str) -> bytes | None:
        """Bytes of the file, if it can be read."""
        try:
            return read_file(self._path(stream))
        except OSError:
            return None

    def write_head(self, stream: str, data: bytes) -> None:
        """Replace the file."""
        path = self._path(stream)
        make_folder(path.parent)
        place_file(path, data)

    def heads(self) -> list[str]:
        """Files there are."""
        paths = self._folder.glob(f"**/*{_SUFFIX}")
        return sorted(path.relative_to(self._folder).as_posix().removesuffix(_SUFFIX) for path in paths)

    def _path(self, stream: str) -> Path:
        return self._folder / f"{stream}{_SUFFIX}"


def write_head(ledger: Ledger, stream: str, prefixes: Sequence[Prefix]) -> SignedHead:
    """Sign what a stream holds and is not sealed, and put it in the place of the statement before."""
    head = ledger.sign(lambda time: SignedHead(stream, time, tuple(prefixes), "", ""))
    ledger.heads.write_head(stream, json.dumps(asdict(head)).encode())
    return head


def read_head(place: HeadPlace, stream: str) -> SignedHead | None:
    """Statement on a stream; None if there is none that can be read. Its signature is not looked at here."""
    data = place.read_head(stream)
    if data is None:
        return None
    try:
        body = json.loads(data)
        head = SignedHead(**{**body, "prefixes": tuple(Prefix(**prefix) for prefix in body["prefixes"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    values = [head.stream, head.time, head.public_key, head.signature]
    types = [str, int, str, str] + [str, int, int, int, str, str] * len(head.prefixes)
    for prefix in head.prefixes:
        values += asdict(prefix).values()
    return head if [type(value) for value in values] == types and head.stream == stream else None


def scan_heads(place: HeadPlace) -> dict[str, SignedHead | None]:
    """Statement on every stream that there is one of; None where it cannot be read."""
    return {stream: read_head(place, stream) for stream in place.heads()}
