"""What a profile says of columns together: missing values, repeated rows, order of times, keys, correlations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.statistics.intervals import midranks
from retrodict.data.profiling._columns import numbers_of
from retrodict.data.profiling.profile import ColumnProfile, Correlations, Missing, Order

__all__ = ["KeyTally", "MissingTally", "OrderTally", "RepeatTally", "correlate", "key_candidates"]

_ROWS = 1 << 24  # rows whose hashes are kept: 128 MB
_PATTERNS = 10_000
_SHOWN = 20
_NUMBERS, _CATEGORIES, _LEVELS = 40, 20, 50
_TIMES = 8
_WIDEST = 3  # columns of a key that is looked for

Floats = NDArray[np.float64]


class MissingTally:
    """Counts which columns are missing together."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._patterns: Counter[bytes] = Counter()
        self._others = self._rows = 0
        self._both = np.zeros((len(names), len(names)))

    def add(self, missing: Sequence[pa.Array]) -> None:
        """One block: which values are missing, by column."""
        if not missing:
            return
        flags = np.column_stack([np.asarray(column) for column in missing])
        self._rows += len(flags)
        if not flags.any():
            self._patterns[bytes(-(-len(self._names) // 8))] += len(flags)
            return
        floats = flags.astype(np.float32)
        self._both += floats.T @ floats
        packed = np.packbits(flags, axis=1)
        # A frame of bytes: grouping it takes a fortieth of what sorting rows of bytes does.
        counted = pl.DataFrame(packed, schema=[str(place) for place in range(packed.shape[1])])
        for *row, count in counted.group_by(pl.all()).len().iter_rows():
            key = bytes(row)
            if key in self._patterns or len(self._patterns) < _PATTERNS:
                self._patterns[key] += int(count)
            else:
                self._others += int(count)

    def finish(self) -> Missing:
        """Patterns, and the phi coefficient of each pair."""
        counts = np.diag(self._both)
        places = np.flatnonzero(counts)
        if not places.size:
            return Missing()
        listed = sorted(self._patterns.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
        others = self._others + sum(self._patterns.values()) - sum(count for _, count in listed)
        shares = counts[places] / self._rows
        joint = self._both[np.ix_(places, places)] / self._rows
        spread = np.sqrt(shares * (1 - shares))
        with np.errstate(divide="ignore", invalid="ignore"):
            phi = (joint - np.outer(shares, shares)) / np.outer(spread, spread)
        return Missing(
            tuple(self._names[place] for place in places),
            tuple((self._columns(pattern), count) for pattern, count in listed),
            others,
            _matrix(phi),
        )

    def _columns(self, pattern: bytes) -> tuple[str, ...]:
        bits = np.unpackbits(np.frombuffer(pattern, np.uint8), count=len(self._names))
        return tuple(name for name, bit in zip(self._names, bits, strict=True) if bit)


class RepeatTally:
    """Counts rows that repeat an earlier one, by their hashes of 64 bits; gives up beyond sixteen million rows."""

    def __init__(self, *, possible: bool) -> None:
        self._hashes: list[NDArray[np.uint64]] | None = [] if possible else None
        self._rows = 0

    def add(self, block: pl.DataFrame) -> None:
        """One block of rows."""
        self._rows += block.height
        if self._hashes is not None:
            self._hashes = None if self._rows > _ROWS else [*self._hashes, block.hash_rows().to_numpy()]

    def finish(self) -> int | None:
        """Rows that repeat an earlier one."""
        if self._hashes is None:
            return None
        if not self._hashes:
            return 0
        hashes = np.sort(np.concatenate(self._hashes))
        return int((hashes[1:] == hashes[:-1]).sum())


class KeyTally:
    """Checks over all rows whether columns repeat together."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._repeats = RepeatTally(possible=True)

    def add(self, block: pl.DataFrame) -> None:
        """One block of rows."""
        self._repeats.add(block.select(self.columns))

    @property
    def holds(self) -> bool:
        """Whether no combination was seen twice."""
        return self._repeats.finish() == 0


class OrderTally:
    """Counts which of two times comes first, for every pair of the first time columns."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        times = [name for name, kind in kinds.items() if kind in ("time", "date")][:_TIMES]
        self._pairs = [(a, b) for a, b in combinations(times, 2) if kinds[a] == kinds[b]]
        self._counts = np.zeros((len(self._pairs), 3), dtype=np.int64)

    def add(self, block: pa.RecordBatch) -> None:
        """One block of rows."""
        read: dict[str, tuple[Any, Any]] = {}
        for place, pair in enumerate(self._pairs):
            for name in pair:
                if name not in read:
                    column = block.column(name)
                    values = np.zeros(len(column), dtype=np.int64)
                    known = np.asarray(column.is_valid())
                    values[known] = numbers_of(column, self._kinds[name])
                    read[name] = values, known
            (left, there), (right, here) = (read[name] for name in pair)
            both = there & here
            sign = np.sign(left[both] - right[both])
            self._counts[place] += [(sign < 0).sum(), (sign == 0).sum(), (sign > 0).sum()]

    def finish(self) -> tuple[Order, ...]:
        """Counts of each pair."""
        return tuple(Order(*pair, *map(int, counts)) for pair, counts in zip(self._pairs, self._counts, strict=True))


def key_candidates(columns: Sequence[ColumnProfile], sample: pl.DataFrame, rows: int) -> list[tuple[str, ...]]:
    """Pairs and triples of columns that never repeat in the sample, narrow ones first, then those on the left."""
    possible = [
        column
        for column in columns
        if column.type in ("int", "string", "date", "time") and not column.missing and 1 < column.distinct < rows
    ][:8]
    found: list[tuple[str, ...]] = []
    for width in range(2, _WIDEST + 1):
        for group in combinations(possible, width):
            names = tuple(column.name for column in group)
            if any(set(shorter) <= set(names) for shorter in found):
                continue
            enough = float(np.prod([float(column.distinct) for column in group])) >= rows
            if enough and sample.select(names).hash_rows().n_unique() == sample.height:
                found.append(names)
        if found:
            break
    return found[:4]


def correlate(columns: Sequence[ColumnProfile], sample: pa.Table, *, seed: int) -> Correlations:
    """Correlations of a sample of rows.

    Parameters
    ----------
    columns : sequence of ColumnProfile
    sample : pyarrow.Table
    seed : int
        It was drawn with; for the record.
    """
    numbers = [c for c in columns if c.type in ("int", "float", "time", "date") and c.distinct > 1][:_NUMBERS]
    categories = [
        c for c in columns if c.type in ("string", "bool", "int") and 1 < c.distinct <= _LEVELS and c.distinct_exact
    ][:_CATEGORIES]
    values = [_floats(sample.column(c.name), c.type) for c in numbers]
    codes = [_codes(sample.column(c.name)) for c in categories]
    ranks: dict[int, Floats] = {}

    def ranked(place: int, mask: NDArray[np.bool_]) -> Floats:
        if not mask.all():
            return midranks(values[place][mask])
        if place not in ranks:
            ranks[place] = midranks(values[place])
        return ranks[place]

    def pearson(i: int, j: int) -> float | None:
        mask = np.isfinite(values[i]) & np.isfinite(values[j])
        return _pearson(values[i][mask], values[j][mask])

    def spearman(i: int, j: int) -> float | None:
        mask = np.isfinite(values[i]) & np.isfinite(values[j])
        return _pearson(ranked(i, mask), ranked(j, mask))

    return Correlations(
        sample.num_rows,
        seed,
        tuple(c.name for c in numbers),
        _square(len(numbers), pearson),
        _square(len(numbers), spearman),
        tuple(c.name for c in categories),
        _square(len(categories), lambda i, j: _cramer(codes[i], codes[j])),
    )


def _square(size: int, of: Callable[[int, int], float | None]) -> tuple[tuple[float | None, ...], ...]:
    """Symmetric matrix with ones on its diagonal."""
    upper = {(i, j): of(i, j) for i, j in combinations(range(size), 2)}
    return tuple(tuple(1.0 if i == j else upper[min(i, j), max(i, j)] for j in range(size)) for i in range(size))


def _pearson(x: Floats, y: Floats) -> float | None:
    if len(x) < 3:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        u, v = x - x.mean(), y - y.mean()
        u, v = u / (np.abs(u).max() or 1.0), v / (np.abs(v).max() or 1.0)
        size = float(np.sqrt((u @ u) * (v @ v)))
    if not size > 0:
        return None
    found = float(u @ v) / size
    return max(-1.0, min(1.0, found)) if np.isfinite(found) else None


def _cramer(a: NDArray[np.int64], b: NDArray[np.int64]) -> float | None:
    """Bias-corrected Cramér's V (Bergsma 2013, J. Korean Stat. Soc. 42, 323-328)."""
    both = (a >= 0) & (b >= 0)
    n = int(both.sum())
    if n < 3:
        return None
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a[both], b[both]), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    r, k = table.shape
    if min(r, k) < 2:
        return None
    expected = np.outer(table.sum(1), table.sum(0)) / n
    phi = float(((table - expected) ** 2 / expected).sum()) / n
    corrected = max(0.0, phi - (k - 1) * (r - 1) / (n - 1))
    width = min(k - (k - 1) ** 2 / (n - 1), r - (r - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(min(1.0, corrected / width))) if width > 0 else None


def _floats(column: pa.ChunkedArray, kind: str) -> Floats:
    whole = column.combine_chunks()
    found = np.full(len(whole), np.nan)
    found[np.asarray(whole.is_valid())] = numbers_of(whole, kind)
    return found


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1)).astype(np.int64)


def _matrix(values: Floats) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(float(value) if np.isfinite(value) else None for value in row) for row in values)
