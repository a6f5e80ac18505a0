"""Blocks: the events of one key and one stretch of time, packed so that a read is two searches and a subtraction.

A block is int64 words, then a heap of UTF-8. It holds the events themselves, so that a read at any time applies the
same rule of visibility as a training frame, and beside them the exact prefix sums of every summed channel, so that a
live read never walks the events::

    n | flags | greatest v | limb columns | per sum: limbs, exponent, bits, kind | per extreme, latest: kind
    e[n] | v[n] | k[n] | sequence[n] | extremes[n] each | values to sum[n] each | latest[n] and valid[n] each
    prefix sums, (n + 1) rows of all limb columns | heap

Events are sorted by (event time, known at, sequence). Values aggregated in advance were rejected: they cannot be read
as of a time before the last write, nor take in a late event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.statistics.exact import Scale, scale_for, split_limbs
from retrodict.features.aggregates import Channel
from retrodict.features.columns import Ints
from retrodict.features.kernels import identity_of

__all__ = [
    "BOOL",
    "DATE",
    "FIXED",
    "FLOAT",
    "INT",
    "MONOTONE",
    "NULL",
    "PER_SUM",
    "TEXT",
    "TEXT_SEQUENCE",
    "Rows",
    "decode",
    "encode",
    "join",
    "newest_only",
    "take",
    "value_of",
]

FIXED, PER_SUM = 4, 4
MONOTONE, TEXT_SEQUENCE = 1, 2
NULL, INT, FLOAT, BOOL, TEXT, DATE = range(6)

_WIDTH = 40  # bits per limb: leaves room for two million rows, and most measured columns fit into one limb
_ROWS = 1 << 20


@dataclass(frozen=True)
class Rows:
    """Events of one key, unpacked.

    Attributes
    ----------
    event_time, known_at : int64 array
        Microseconds.
    sequence : int64 array or object array of str
        Event ids.
    channels : tuple of array
        Lifted numbers, one array per channel of the plan; empty where only the latest values are kept.
    latest : tuple of object array
        Python values of the latest columns.
    """

    event_time: Ints
    known_at: Ints
    sequence: NDArray[Any]
    channels: tuple[NDArray[Any], ...]
    latest: tuple[NDArray[Any], ...]

    def __len__(self) -> int:
        return len(self.event_time)

    @property
    def visible_at(self) -> Ints:
        """When each became visible."""
        return np.maximum(self.event_time, self.known_at)


def take(rows: Rows, chosen: Any) -> Rows:
    """Rows by index or mask."""
    return Rows(
        rows.event_time[chosen],
        rows.known_at[chosen],
        rows.sequence[chosen],
        tuple(channel[chosen] for channel in rows.channels),
        tuple(column[chosen] for column in rows.latest),
    )


def join(channels: Sequence[Channel], old: Rows | None, new: Rows) -> tuple[Rows, int]:
    """Both, sorted, each event once; and how many redeliveries were left out.

    Of several deliveries of one event the one known first counts, so the result does not depend on their order.
    """
    both = new if old is None else _concatenate(channels, old, new)
    order = _order(both.sequence)
    position = np.arange(len(both))
    sort = np.lexsort((position, both.known_at, order, both.event_time))
    fresh = np.ones(len(sort), dtype=np.bool_)
    event, ids = both.event_time[sort], order[sort]
    fresh[1:] = (event[1:] != event[:-1]) | (ids[1:] != ids[:-1])
    kept = sort[fresh]
    kept = kept[np.lexsort((order[kept], both.known_at[kept], both.event_time[kept]))]
    return take(both, kept), len(both) - len(kept)


def _order(sequence: NDArray[Any]) -> Ints:
    if sequence.dtype != object:
        return sequence
    return np.unique(sequence, return_inverse=True)[1].astype(np.int64)


def _concatenate(kinds: Sequence[Channel], old: Rows, new: Rows) -> Rows:
    channels = []
    for channel, first, second in zip(kinds, old.channels, new.channels, strict=True):
        pair = [first, second]
        if first.dtype != second.dtype and channel.monoid != "sum":
            # The identity of whole numbers is no identity of doubles.
            largest = channel.monoid == "max"
            whole, wide = (
                identity_of(np.dtype(np.int64), largest=largest),
                identity_of(np.dtype(np.float64), largest=largest),
            )
            pair = [p if p.dtype.kind == "f" else np.where(p == whole, wide, p.astype(np.float64)) for p in pair]
        channels.append(np.concatenate(pair))
    return Rows(
        np.concatenate([old.event_time, new.event_time]),
        np.concatenate([old.known_at, new.known_at]),
        np.concatenate([old.sequence, new.sequence]),
        tuple(channels),
        tuple(np.concatenate(pair) for pair in zip(old.latest, new.latest, strict=True)),
    )


def newest_only(rows: Rows, floor: int) -> Rows:
    """Events that can be the newest visible one for some request at ``floor`` or later; ``rows`` are sorted.

    An event is never the newest if a greater one was visible no later. Of those visible before the floor only the
    last remains. What is left is sorted by order and by visibility at once.
    """
    visible = rows.visible_at
    least_after = np.minimum.accumulate(visible[::-1])[::-1]
    record = np.ones(len(rows), dtype=np.bool_)
    record[:-1] = visible[:-1] < least_after[1:]
    kept = np.flatnonzero(record)
    settled = int((visible[kept] < floor).sum())
    return take(rows, kept[max(settled - 1, 0) :])


def encode(channels: Sequence[Channel], rows: Rows) -> bytes:
    """Bytes of sorted rows."""
    visible = rows.visible_at
    heap = bytearray()
    flags = MONOTONE if bool((visible[1:] >= visible[:-1]).all()) else 0
    sequence = rows.sequence
    if sequence.dtype == object:
        flags |= TEXT_SEQUENCE
        sequence = _to_heap(sequence, heap)
    sums, extremes = _split(channels, rows)
    limbs, layouts = [], []
    for values in sums:
        scale = _scale(values)
        limbs.append(split_limbs(values, scale))
        layouts += [scale.limbs, scale.low, scale.width, FLOAT if values.dtype.kind == "f" else INT]
    latest = [_words(column, heap) for column in rows.latest]
    prefix = np.zeros((len(rows) + 1, sum(part.shape[1] for part in limbs)), dtype=np.int64)
    if limbs:
        np.cumsum(np.concatenate(limbs, axis=1), axis=0, out=prefix[1:])
    header = [len(rows), flags, int(visible.max(initial=-(1 << 62))), prefix.shape[1], *layouts]
    header += [FLOAT if values.dtype.kind == "f" else INT for values in extremes] + [kind for kind, _, _ in latest]
    parts = [np.array(header, dtype=np.int64), rows.event_time, visible, rows.known_at, sequence]
    parts += [values.view(np.int64) for values in (*extremes, *sums)]
    parts += [array for _, words, valid in latest for array in (words, valid)]
    parts.append(prefix.reshape(-1))
    heap += bytes(-len(heap) % 8)
    return np.concatenate(parts).astype("<i8", copy=False).tobytes() + bytes(heap)


def _split(channels: Sequence[Channel], rows: Rows) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    sums: list[NDArray[Any]] = []
    extremes: list[NDArray[Any]] = []
    for channel, values in zip(channels, rows.channels, strict=True):
        (sums if channel.monoid == "sum" else extremes).append(np.ascontiguousarray(values))
    return sums, extremes


def _scale(values: NDArray[Any]) -> Scale:
    """Scale whose exponent is a multiple of the limb width, so that neighbouring blocks mostly share it."""
    scale = scale_for(values, rows=max(_ROWS, len(values)))
    low = scale.low // _WIDTH * _WIDTH
    if values.dtype.kind != "f" or low == scale.low:
        return scale
    high = int(np.frexp(np.abs(values).max(initial=0.0))[1])
    return replace(scale, low=low, limbs=max(1, -(-(high - low) // scale.width)))


def _to_heap(texts: NDArray[Any], heap: bytearray) -> Ints:
    words = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        body = b"" if text is None else text.encode("utf-8", "surrogatepass")
        words[i] = len(heap) << 32 | len(body)
        heap += body
    return words


def _words(column: NDArray[Any], heap: bytearray) -> tuple[int, Ints, Ints]:
    """Kind, words and validity of Python values; the widest kind of any value counts for all."""
    valid = np.array([value is not None for value in column], dtype=np.int64)
    kind = max((_kind(value) for value in column if value is not None), default=NULL)
    if kind == TEXT:
        return kind, _to_heap(column, heap), valid
    if kind == FLOAT:
        numbers = np.array([0.0 if value is None else float(value) for value in column])
        return kind, numbers.view(np.int64), valid
    whole = [0 if value is None else value.toordinal() if kind == DATE else int(value) for value in column]
    return kind, np.array(whole, dtype=np.int64), valid


def _kind(value: Any) -> int:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return INT
    if isinstance(value, float):
        return FLOAT
    return TEXT if isinstance(value, str) else DATE


def _text_at(blob: bytes, heap: int, word: int) -> str:
    """Text a word of a block points to; ``heap`` is the byte where the heap begins."""
    begin = heap + (word >> 32)
    return blob[begin : begin + (word & 0xFFFFFFFF)].decode("utf-8", "surrogatepass")


def decode(channels: Sequence[Channel], newest: int, blob: bytes) -> Rows:
    """Rows of a block with these channels and this number of latest columns."""
    sums = sum(c.monoid == "sum" for c in channels)
    extremes = len(channels) - sums
    head = np.frombuffer(blob, dtype="<i8", count=FIXED + PER_SUM * sums + extremes + newest)
    n, flags, width = int(head[0]), int(head[1]), int(head[3])
    rest = np.frombuffer(blob, dtype="<i8", offset=8 * len(head))
    columns = rest[: n * (4 + extremes + sums + 2 * newest)].reshape(-1, n)
    heap = 8 * (len(head) + columns.size + (n + 1) * width)
    kinds = [int(head[FIXED + PER_SUM * i + 3]) for i in range(sums)]
    kinds = [int(kind) for kind in head[FIXED + PER_SUM * sums :][:extremes]] + kinds
    numbers = [columns[4 + i].view(np.float64) if kind == FLOAT else columns[4 + i] for i, kind in enumerate(kinds)]
    ordered = iter(numbers[:extremes]), iter(numbers[extremes:])
    lifted = tuple(next(ordered[c.monoid == "sum"]) for c in channels)
    first = 4 + extremes + sums
    latest = tuple(
        _values(
            blob,
            heap,
            int(head[FIXED + PER_SUM * sums + extremes + i]),
            columns[first + 2 * i],
            columns[first + 2 * i + 1],
        )
        for i in range(newest)
    )
    sequence = columns[3]
    if flags & TEXT_SEQUENCE:
        sequence = _objects([_text_at(blob, heap, word) for word in sequence.tolist()])
    return Rows(columns[0], columns[2], sequence, lifted, latest)


def _values(blob: bytes, heap: int, kind: int, words: Ints, valid: Ints) -> NDArray[Any]:
    return _objects(
        [
            value_of(blob, heap, kind, word) if ok else None
            for word, ok in zip(words.tolist(), valid.tolist(), strict=True)
        ]
    )


def value_of(blob: bytes, heap: int, kind: int, word: int) -> Any:
    """Python value of a word."""
    if kind == TEXT:
        return _text_at(blob, heap, word)
    if kind == FLOAT:
        return float(np.int64(word).view(np.float64))
    if kind == BOOL:
        return bool(word)
    if kind == DATE:
        from datetime import date

        return date.fromordinal(word)
    return word


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
