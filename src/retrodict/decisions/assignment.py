"""Where a unit falls between 0 and 1: the same in every process, on every machine, and in other services' languages.

The hash is version 2 of GrowthBook's public feature-flag kits (FNV-1a, 32 bits, twice), so a service that assigns by
one of them agrees with a decision of ours. Python's own ``hash`` differs from process to process and was out of the
question; a cryptographic hash has no published vectors of the field to agree with.
"""

from __future__ import annotations

from retrodict.decisions.records import Value

__all__ = ["bucket", "unit_text"]

_OFFSET, _PRIME, _MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF
_BUCKETS = 10_000


def _fnv1a(text: str) -> int:
    value = _OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


def bucket(seed: str, unit: str) -> float:
    """Place of a unit: one of 10,000 numbers from 0 to 0.9999, equally likely over units.

    Parameters
    ----------
    seed : str
        Two experiments with different seeds assign independently of each other.
    unit : str
        Of :func:`unit_text`. Texts beyond ASCII count as their UTF-8 bytes.

    Examples
    --------
    >>> bucket("seed", "a"), bucket("seed", "b")
    (0.0505, 0.2696)
    """
    return _fnv1a(str(_fnv1a(seed + unit))) % _BUCKETS / _BUCKETS


def unit_text(values: list[Value]) -> str | None:
    """Text of a unit that several values name, which no other values have; None if one of them is null or empty."""
    if any(value is None or value == "" for value in values):  # what callers send who do not know it
        return None
    if len(values) == 1:
        return str(values[0])
    return "".join(f"{len(text)}:{text}" for text in map(str, values))
