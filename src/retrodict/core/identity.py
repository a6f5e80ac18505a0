"""Identity: content hashes of definitions and bytes, time-ordered ids for facts, and how both are written.

A definition's version *is* the hash of its content, so there is no "apply" that could be forgotten. The hash is taken
over canonical JSON: sorted keys, no white space, ASCII, shortest round-trip floats, no NaN. Pickle and ``repr`` were
rejected: neither is stable across versions of Python or of our own classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import Field, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from retrodict.core.clock import Clock
from retrodict.core.errors import InputError, InternalError, check_text

__all__ = [
    "Ref", "UlidFactory", "canonical_json", "content_hash", "digest", "digest_file", "encode", "is_ulid", "short",
    "ulid_number",
]  # fmt: skip

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS, _SHIFTS = [first + second for first in _CROCKFORD for second in _CROCKFORD], range(120, -1, -10)


def canonical_json(value: object) -> bytes:
    """Bytes that are equal exactly when the values are written alike; 1, 1.0 and True are three values.

    Parameters
    ----------
    value : object
        Nested dict (string keys), list, tuple, str, int, float, bool, None.

    Returns
    -------
    bytes
        ASCII JSON with sorted keys and no white space.

    Raises
    ------
    InternalError
        If the value holds NaN, an infinity or a type that JSON does not know.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [0.1, None]})
    b'{"a":[0.1,null],"b":1}'
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InternalError(
            f"a value that is hashed must be plain JSON ({error})",
            where="identity",
            got=type(value).__name__,
            remedy="Report it with the command",
        ) from error
    return text.encode("ascii")


def digest(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def encode(value: object) -> Any:
    """Plain JSON form of a definition: dataclasses become ``{"kind": ClassName, field: ...}``.

    Fields whose metadata holds ``"identity": False`` (descriptions, owners) are left out: changing a comment must not
    change a version. One with ``"identity": "if set"`` enters only with a value: a field that is added later changes no
    version that stands. Sets are sorted. An object may bring its own form with an ``__identity__`` method.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Enum):
        return value.value
    to_identity = getattr(value, "__identity__", None)
    if to_identity is not None and not isinstance(value, type):
        return encode(to_identity())
    if is_dataclass(value) and not isinstance(value, type):
        body = {f.name: encode(getattr(value, f.name)) for f in fields(value) if _identifies(f, value)}
        return {"kind": type(value).__name__, **body}
    if isinstance(value, dict):
        keyed = {str(k): encode(v) for k, v in value.items()}
        if len(keyed) != len(value):
            raise InternalError(
                "the keys of a mapping must differ as text",
                where="identity",
                got=sorted(keyed),
                remedy="Rename one of them",
            )
        return keyed
    if isinstance(value, frozenset | set):
        return sorted((encode(v) for v in value), key=canonical_json)
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    raise InternalError(
        "a definition must hold only plain values and other definitions",
        where="identity",
        got=type(value).__name__,
        remedy="Report it with the definition",
    )


def _identifies(field: Field[Any], value: object) -> bool:
    rule = field.metadata.get("identity", True)
    return bool(getattr(value, field.name)) if rule == "if set" else bool(rule)


def content_hash(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of a definition: its version."""
    return digest(canonical_json(encode(value)))


def short(hash_: str) -> str:
    """First twelve hex digits: enough to read, never used to look anything up without a uniqueness check."""
    return hash_[:12]


@dataclass(frozen=True, slots=True)
class Ref:
    """A name people can type: ``kind:name``, ``kind:name@version`` or ``kind:ULID``.

    Examples
    --------
    >>> Ref.parse("dataset:flights@12")
    Ref(kind='dataset', name='flights', version='12')
    >>> str(Ref("decision", "01J00000000000000000000000"))
    'decision:01J00000000000000000000000'
    """

    kind: str
    name: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"@{self.version}" if self.version is not None else "")

    @classmethod
    def parse(cls, text: str, *, kind: str | None = None) -> Ref:
        """Read a reference; ``kind`` is filled in when the text has none, and checked when it has.

        Raises
        ------
        InputError
            If the text has another kind than asked for, or an empty part.
        """
        head, colon, rest = check_text(text, where="reference").partition(":")
        if not colon:
            head, rest = kind or "", text
        name, at, version = rest.partition("@")
        if not head or not name or (at and not version):
            raise InputError(
                "a reference must read kind:name, kind:name@version or kind:ULID",
                got=text,
                remedy="Write it like 'dataset:flights@12'",
                where="reference",
            )
        if kind is not None and head != kind:
            raise InputError(
                f"the reference must be of kind {kind!r}",
                got=text,
                remedy=f"Write it like '{kind}:{name}'",
                where="reference",
            )
        return cls(head, name, version or None)


def is_ulid(text: str) -> bool:
    """Whether a text is a bare ULID: 26 letters and digits of Crockford's alphabet.

    Examples
    --------
    >>> is_ulid("01M8Q2JY6Z1DM9WXDWRAH6STH4"), is_ulid("golden")
    (True, False)
    """
    return len(text) == 26 and set(text) <= set(_CROCKFORD)


def ulid_number(ulid: str) -> int:
    """Return the 128 bits of a ULID as a number.

    Examples
    --------
    >>> ulid_number("00000000000000000000000010")
    32
    """
    number = 0
    for letter in ulid:
        number = number * 32 + _CROCKFORD.index(letter)
    return number % 2**128


class UlidFactory:
    """Makes ULIDs: 26 letters, ordered by time, strictly increasing within one process.

    48 bits of milliseconds from the injected clock, then 80 random bits; within one millisecond, or when the clock
    stands still, the random part counts up (the monotonic variant of https://github.com/ulid/spec).

    Examples
    --------
    >>> from retrodict.core.clock import SimulatedClock
    >>> new = UlidFactory(SimulatedClock(0))
    >>> first, second = new(), new()
    >>> first < second, len(first)
    (True, 26)
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = -1
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """Next id."""
        stamp = self._clock.now() // 1_000
        with self._lock:
            # A forked child would count on from the same number as its parent: it draws anew.
            if stamp > self._last >> 80 or self._pid != os.getpid():
                # The top random bit stays 0, so that counting up within a millisecond cannot overflow.
                self._last = (max(stamp, self._last >> 80) << 80) | (int.from_bytes(os.urandom(10)) >> 1)
                self._pid = os.getpid()
            else:
                self._last += 1
            number = self._last
        return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
