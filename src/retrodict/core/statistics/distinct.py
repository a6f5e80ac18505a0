"""A mergeable count of distinct values: exact for few, HyperLogLog for many, the same bits in any order.

Up to ``LIMIT`` distinct values the sketch is the set of their 64-bit hashes; beyond, it is the registers of HyperLogLog
(Flajolet et al. 2007) over the same hashes (64 bits, and a sparse start, after Heule, Nunkesser and Hall 2013), read by
the estimator of Ertl (2017, arXiv:1702.01284, algorithm 6), which needs no table of bias corrections. Which of the two
it is depends only on the set of values seen, so a sketch does not depend on order, partition or repetition.

Hashes are our own: ``hash`` of Python changes with the process, those of Polars and pandas with their versions, and
Arrow exports none. Numbers go through the finalizer of MurmurHash3, a bijection of 64 bits; text is read in words of 8
bytes, one word of all texts at a time, straight from the buffers of Arrow where the column comes from there.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError

__all__ = ["LIMIT", "DistinctSketch", "hash_values"]

_PRECISION = 14  # logarithm of the number of registers
_WIDTH = 64 - _PRECISION  # bits of a hash that are left
LIMIT = 4096  # distinct values up to which the count is exact (but for two hashes of 64 bits being equal)

Hashes = NDArray[np.uint64]
_CHUNK = 1 << 16  # rows looked at before it is decided that the values are many
_WIDE, _TEXT, _BYTES, _TIME = (np.uint64(seed) for seed in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA5, 0xC3))
_ODD = np.uint64(0x9FB21C651E98DF25)


@dataclass(frozen=True, eq=False)
class DistinctSketch:
    """Number of distinct values of a column, nulls left out; mergeable, and merging twice changes nothing.

    Above ``LIMIT`` distinct values the relative standard error is ``1.04 / sqrt(2**14)``, 0.8 %.

    Parameters
    ----------
    hashes : uint64 array or None
        Sorted hashes of all distinct values, while they are few.
    registers : uint8 array or None
        The 16,384 registers of HyperLogLog, afterwards.

    Examples
    --------
    >>> left, right = DistinctSketch.of(["JFK", "EWR", None]), DistinctSketch.of(["JFK", "LGA"])
    >>> left.merge(right).count
    3
    """

    kind: ClassVar[str] = "distinct"

    hashes: Hashes | None = None
    registers: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.hashes is None and self.registers is None:
            object.__setattr__(self, "hashes", np.empty(0, dtype=np.uint64))
        for array in (self.hashes, self.registers):
            if array is not None:
                array.flags.writeable = False

    @classmethod
    def of(cls, values: Iterable[object]) -> DistinctSketch:
        """Sketch of one block.

        Parameters
        ----------
        values : array_like, shape (n,)
            Numbers, text, bytes, times or booleans, with None and NaN for null: NumPy, Arrow, pandas or a sequence.
            Numbers that are equal are one value, whatever their type (1, 1.0 and true).

        Raises
        ------
        InputError
            If a value is of a type without a stable hash.
        """
        return _with(cls(), hash_values(values))

    def merge(self, other: DistinctSketch) -> DistinctSketch:
        """Sketch of both blocks together."""
        if other.hashes is not None:
            return _with(self, other.hashes)
        if self.hashes is not None:
            return other.merge(self)
        assert self.registers is not None and other.registers is not None  # noqa: PT018 - one of the two forms
        return DistinctSketch(None, np.maximum(self.registers, other.registers))

    @property
    def exact(self) -> bool:
        """Whether the count is exact: no more than ``LIMIT`` distinct values so far."""
        return self.hashes is not None

    @property
    def count(self) -> int:
        """Distinct values seen, estimated beyond ``LIMIT``."""
        if self.hashes is not None:
            return self.hashes.size
        assert self.registers is not None
        return round(_estimate(self.registers))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DistinctSketch) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.exact, self.count))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; hashes (little-endian) and registers as base64."""
        payload = self.registers if self.hashes is None else self.hashes.astype("<u8")
        assert payload is not None
        name = "hashes" if self.exact else "registers"
        return {"kind": self.kind, "precision": _PRECISION, name: base64.b64encode(payload.tobytes()).decode()}


def _with(sketch: DistinctSketch, hashes: Hashes) -> DistinctSketch:
    if sketch.hashes is not None:
        distinct = sketch.hashes
        for start in range(0, hashes.size, _CHUNK):
            distinct = np.unique(np.concatenate((distinct, hashes[start : start + _CHUNK])))
            if distinct.size > LIMIT:  # many are known after few rows: the others need not be sorted
                break
        else:
            return DistinctSketch(distinct)
        hashes = np.concatenate((sketch.hashes, hashes))
        registers = np.zeros(1 << _PRECISION, dtype=np.uint8)
    else:
        assert sketch.registers is not None
        registers = sketch.registers.copy()
    places = (hashes >> np.uint64(_WIDTH)).astype(np.int64)
    np.maximum.at(registers, places, _leading(hashes & np.uint64((1 << _WIDTH) - 1)))
    return DistinctSketch(None, registers)


def _leading(rest: Hashes) -> NDArray[np.uint8]:
    """One more than the number of leading zeros of what is left of a hash."""
    # A double holds only 53 bits: the two halves are looked at apart.
    high, low = (rest >> np.uint64(32)).astype(np.float64), (rest & np.uint64(0xFFFFFFFF)).astype(np.float64)
    length = np.where(high > 0, np.frexp(high)[1] + 32, np.frexp(low)[1])
    return (_WIDTH - length + 1).astype(np.uint8)


def _estimate(registers: NDArray[np.uint8]) -> float:
    m = registers.size
    counts = np.bincount(registers, minlength=_WIDTH + 2).astype(float)
    z = m * _tau(1 - counts[_WIDTH + 1] / m)
    for rank in range(_WIDTH, 0, -1):
        z = 0.5 * (z + counts[rank])
    z += m * _sigma(counts[0] / m)
    return float(m * m / (2 * math.log(2) * z))


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x, before = math.sqrt(x), z
        y *= 0.5
        z -= (1 - x) ** 2 * y
    return z / 3


def hash_values(values: Iterable[object]) -> Hashes:
    """64-bit hashes of the values that are not null, the same in every process and on every machine.

    Parameters
    ----------
    values : array_like, shape (n,)
        As ``DistinctSketch.of`` takes them.

    Returns
    -------
    uint64 array, shape (n - nulls,)

    Raises
    ------
    InputError
        If a value is of a type without a stable hash.
    """
    if hasattr(values, "to_pylist"):
        return _hash_arrow(values)
    array = values if isinstance(values, np.ndarray) else np.asarray(getattr(values, "array", values), dtype=object)
    if array.dtype.kind in "biuf":
        return _hash_numbers(array)
    if array.dtype.kind in "mM":
        times = array[~np.isnat(array)]
        unit = "timedelta64[us]" if array.dtype.kind == "m" else "datetime64[us]"  # the house unit of time
        return _mix(times.astype(unit).view(np.int64).astype(np.uint64) ^ _TIME)
    return _hash_objects(array.ravel().tolist())


def _hash_arrow(values: Any) -> Hashes:
    if hasattr(values, "chunks"):
        return np.concatenate([np.empty(0, dtype=np.uint64), *(_hash_arrow(chunk) for chunk in values.chunks)])
    kind = str(values.type)
    if kind.startswith("dictionary"):
        return _hash_arrow(values.dictionary_decode())
    if kind.endswith("_view"):  # few kernels of Arrow know these, drop_null not among them
        return _hash_objects(values.to_pylist())
    values = values.drop_null()
    if kind in ("string", "large_string", "binary", "large_binary"):
        _, offsets, data = values.buffers()
        wide = np.dtype(np.int64 if kind.startswith("large") else np.int32)
        if not len(values):
            return np.empty(0, dtype=np.uint64)
        ends = np.frombuffer(offsets, dtype=wide, offset=values.offset * wide.itemsize, count=len(values) + 1)
        raw = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
        return _hash_bytes(raw, ends.astype(np.int64), _TEXT if kind.endswith("string") else _BYTES)
    if kind.startswith(("int", "uint", "float", "double", "half", "bool", "timestamp", "duration", "date")):
        return hash_values(values.to_numpy(zero_copy_only=False))
    return _hash_objects(values.to_pylist())


def _hash_objects(values: list[object]) -> Hashes:
    texts: list[bytes] = []
    raws: list[bytes] = []
    wholes: list[int] = []
    floats: list[float] = []
    times: list[Any] = []
    for value in values:
        if isinstance(value, str):
            texts.append(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, bool | int | np.integer | np.bool_) and -(2**63) <= value < 2**64:
            wholes.append(int(value))
        elif isinstance(value, float | np.floating):
            floats.append(float(value))
        elif isinstance(value, bytes):
            raws.append(value)
        elif value is None or str(value) in ("<NA>", "NaT"):
            continue
        elif isinstance(value, datetime):
            times.append(value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value)
        elif isinstance(value, date | np.datetime64):
            times.append(value)
        else:
            raise InputError(
                "distinct values must be numbers of at most 64 bits, text, bytes or times",
                where="distinct sketch",
                got=type(value).__name__,
                remedy="Turn the column into text first",
            )
    parts = [_hash_numbers(np.array([v for v in wholes if v < 2**63], dtype=np.int64))]
    parts.append(_hash_numbers(np.array([v for v in wholes if v >= 2**63], dtype=np.uint64)))
    parts.append(_hash_numbers(np.array(floats, dtype=np.float64)))
    parts.append(hash_values(np.array(times, dtype="datetime64[us]")))
    for raw, seed in ((texts, _TEXT), (raws, _BYTES)):
        ends = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        parts.append(_hash_bytes(np.frombuffer(b"".join(raw), np.uint8), ends, seed))
    return np.concatenate(parts)


def _hash_numbers(array: NDArray[Any]) -> Hashes:
    """Hashes of numbers: of the bits of the double where it is the number, of the integer beyond 2**53."""
    array = array.ravel()
    if array.dtype.kind in "biu":
        small = array.astype(np.float64)
        wide = np.abs(small) > 2.0**53
        bits = (small + 0.0).view(np.uint64)
        return _mix(np.where(wide, array.astype(np.uint64) ^ _WIDE, bits))
    floats = array[~np.isnan(array)].astype(np.float64) + 0.0
    wide = (np.abs(floats) > 2.0**53) & (floats >= -(2.0**63)) & (floats < 2.0**64)
    bits = floats.view(np.uint64).copy()
    large = floats[wide]
    negative = large < 0
    integers = np.where(negative, np.where(negative, large, 0).astype(np.int64).astype(np.uint64), 0)
    bits[wide] = np.where(negative, integers, np.where(negative, 0, large).astype(np.uint64)) ^ _WIDE
    return _mix(bits)


def _hash_bytes(data: NDArray[np.uint8], ends: NDArray[np.int64], seed: np.uint64) -> Hashes:
    """Hashes of runs of bytes, all of them eight bytes further at a time."""
    starts, sizes = ends[:-1], np.diff(ends)
    state = _mix(sizes.astype(np.uint64) ^ seed)
    # Eight bytes more, so that the last word of the last text can be read; each start is the start of a word.
    padded = np.concatenate((data, np.zeros(8, dtype=np.uint8)))
    words = np.ndarray((padded.size - 7,), dtype="<u8", buffer=padded.data, strides=(1,))
    rows = np.flatnonzero(sizes > 0)
    done = 0
    while rows.size:
        left = sizes[rows] - done
        word = words[starts[rows] + done].astype(np.uint64)
        spare = np.clip(8 - left, 0, 7).astype(np.uint64) * np.uint64(8)
        word &= np.uint64(0xFFFFFFFFFFFFFFFF) >> spare
        state[rows] = _mix(state[rows] * _ODD ^ word)
        done += 8
        rows = rows[left > 8]
    return state


def _mix(bits: NDArray[np.uint64]) -> Hashes:
    """Finalizer of MurmurHash3 (Appleby 2011): a bijection whose every output bit depends on every input bit."""
    mixed = bits ^ (bits >> np.uint64(33))
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed
