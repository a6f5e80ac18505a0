"""The hash chain: one append-only line of entries, each sealing the one before it.

``hash = SHA-256(len(body) as 8 bytes ‖ body ‖ previous hash)`` over canonical JSON ``body`` that holds the sequence
number, so an entry can be neither altered, moved nor removed from the middle without breaking every later hash. What
a chain alone cannot show (that its newest entries were cut off) the signed checkpoints show. High-volume facts are
sealed in segments (``segments.py``); a Merkle tree beside the chain (``tree.py``) lets one entry prove itself alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

import msgspec

from retrodict.core.clock import format_time
from retrodict.core.errors import RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.core.native import kernel

__all__ = ["GENESIS", "Entry", "entry_hash", "parsed", "read_entry", "row_hashes"]

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger.

    Attributes
    ----------
    sequence : int
        1, 2, 3 … without gaps.
    time : int
        When it was appended: microseconds since 1970-01-01 UTC, by the project's clock.
    actor : str
        Who did it: a person or a service, never a data subject.
    action : str
        What was done: ``"table.version"``, ``"run.finish"``, ``"model.approve"`` …
    object_id : str
        Reference of what it was done to.
    payload : dict
        Plain facts about it: digests, counts, versions. Never personal data.
    previous, hash : str
        Hash of the entry before and of this one, 64 hex digits.
    """

    sequence: int
    time: int
    actor: str
    action: str
    object_id: str
    payload: dict[str, Any]
    previous: str
    hash: str

    def is_intact(self) -> bool:
        """Whether what it says gives its hash."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "hash"}
        try:
            return entry_hash(**fields) == self.hash
        except (RetrodictError, ValueError, TypeError, RecursionError):
            return False

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "sequence": self.sequence, "time": format_time(self.time), "actor": self.actor, "action": self.action,
            "object": self.object_id, "payload": self.payload, "hash": self.hash,
        }  # fmt: skip


def read_entry(row: Mapping[str, Any]) -> Entry | None:
    """Entry of a stored row; None if its payload is no mapping any more, or its number and time are no numbers."""
    try:
        payload = parsed(row["payload"])
    except (ValueError, TypeError, RecursionError):
        return None
    readable = isinstance(payload, dict) and type(row["sequence"]) is type(row["time"]) is int
    return Entry(**{**row, "payload": payload}) if readable else None


_decode = msgspec.json.Decoder().decode


def parsed(text: Any) -> Any:
    """Value of a JSON text as ``json`` gives it, four times as fast where the text is strict."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return json.loads(text)


def entry_hash(
    *, sequence: int, time: int, actor: str, action: str, object_id: str, payload: dict[str, Any], previous: str
) -> str:
    """Hash of an entry: SHA-256 over the length-prefixed canonical JSON of all its fields and the previous hash."""
    body = canonical_json(
        {"sequence": sequence, "time": time, "actor": actor, "action": action, "object": object_id, "payload": payload}
    )
    return hashlib.sha256(len(body).to_bytes(8) + body + bytes.fromhex(previous)).hexdigest()


def row_hashes(rows: list[tuple[Any, ...]], last: bytes) -> bytes:
    """Hashes of stored entries, 32 bytes each, by the texts of their payloads; each continues the one before it.

    ``rows`` have the columns of :class:`Entry`. TypeError if actor, action or object is no text.
    """
    hashes: bytes | None = None if _native is None else _native(rows, last)  # None: values that need an escape
    return _row_hashes(rows, last) if hashes is None else hashes


_native = getattr(kernel, "row_hashes", None)


def _row_hashes(rows: Sequence[Sequence[Any]], last: bytes) -> bytes:
    hashes = []
    for sequence, time, actor, action, object_id, text, *_ in rows:
        body = (
            f'{{"action":{quoted(action)},"actor":{quoted(actor)},"object":{quoted(object_id)},'
            f'"payload":{text},"sequence":{sequence},"time":{time}}}'
        ).encode()
        hashes.append(last := hashlib.sha256(len(body).to_bytes(8) + body + last).digest())
    return b"".join(hashes)
