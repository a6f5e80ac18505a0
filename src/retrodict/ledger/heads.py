"""Signed heads: "up to here this stream was written by us", kept outside the database and beside the checkpoints.

A segment is sealed when it is closed. Until then, and until its seal is in the chain, the head of its stream says how
many records it has and what they hash to. The file holds the newest statement only, replaced whole: a line for each
would be thousands a day, and what an older one says, the newer one says too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrodict.ledger.keys import Signed
from retrodict.ledger.ledger import Ledger
from retrodict.stores._durable import make_folder, place_file, read_file

__all__ = ["Prefix", "SignedHead", "read_head", "scan_heads", "write_head"]

_FOLDER, _SUFFIX = "heads", ".json"


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


def write_head(ledger: Ledger, stream: str, prefixes: Sequence[Prefix]) -> SignedHead:
    """Sign what a stream holds and is not sealed, and put it in the place of the statement before."""
    head = ledger.sign(lambda time: SignedHead(stream, time, tuple(prefixes), "", ""))
    path = _path(ledger.checkpoint_folder, stream)
    make_folder(path.parent)
    place_file(path, json.dumps(asdict(head)).encode())
    return head


def read_head(folder: Path, stream: str) -> SignedHead | None:
    """Statement on a stream; None if there is none that can be read. Its signature is not looked at here."""
    try:
        body = json.loads(read_file(_path(folder, stream)))
        head = SignedHead(**{**body, "prefixes": tuple(Prefix(**prefix) for prefix in body["prefixes"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    values = [head.stream, head.time, head.public_key, head.signature]
    types = [str, int, str, str] + [str, int, int, int, str, str] * len(head.prefixes)
    for prefix in head.prefixes:
        values += asdict(prefix).values()
    return head if [type(value) for value in values] == types and head.stream == stream else None


def scan_heads(folder: Path) -> dict[str, SignedHead | None]:
    """Statement on every stream that has a file of one; None where it cannot be read."""
    root = folder / _FOLDER
    streams = [path.relative_to(root).as_posix().removesuffix(_SUFFIX) for path in root.glob(f"**/*{_SUFFIX}")]
    return {stream: read_head(folder, stream) for stream in sorted(streams)}


def _path(folder: Path, stream: str) -> Path:
    return folder / _FOLDER / f"{stream}{_SUFFIX}"
