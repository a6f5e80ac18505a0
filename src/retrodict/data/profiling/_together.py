"""Facts of columns together: missing values, repeated rows, order of times, keys, correlations."""

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
from retrodict.data.profiling._tally import numbers_of
from retrodict.data.profiling.profile import ColumnProfile, Correlations, Missing, Order

_ROWS = 1 << 24  # rows whose hashes are kept: 128 MB
_PATTERNS = 10_000  # patterns that are counted; the page lists _LISTED
_LISTED = 20
_NUMBERS, _CATEGORIES, _LEVELS = 40, 20, 50
_TIMES = 8
_WIDEST = 3  # columns of a key that is looked for

Floats = NDArray[np.float64]
Square = tuple[tuple[float | None, ...], ...]


class MissingTally:
    """Counts which columns are missing together."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._patterns: Counter[bytes] = Counter()
        self._others = self._rows = 0
        self._joint = np.zeros((len(names), len(names)))

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
        self._joint += floats.T @ floats
        packed = np.packbits(flags, axis=1)
        # A frame of bytes: grouping it takes a fortieth of the time of sorting rows of bytes.
        frame = pl.DataFrame(packed, schema=[str(place) for place in range(packed.shape[1])])
        for *row, count in frame.group_by(pl.all()).len().iter_rows():
            key = bytes(row)
            if key in self._patterns or len(self._patterns) < _PATTERNS:
                self._patterns[key] += int(count)
            else:
                self._others += int(count)

    def finish(self) -> Missing:
        """Patterns, and the phi coefficient of each pair."""
        counts = np.diag(self._joint)
        places = np.flatnonzero(counts)
        if not places.size:
            return Missing()
        listed = sorted(self._patterns.items(), key=lambda pair: (-pair[1], pair[0]))[:_LISTED]
        others = self._others + sum(self._patterns.values()) - sum(count for _, count in listed)
        shares = counts[places] / self._rows
        joint = self._joint[np.ix_(places, places)] / self._rows
        spread = np.sqrt(shares * (1 - shares))
        with np.errstate(divide="ignore", invalid="ignore"):
            phi = (joint - np.outer(shares, shares)) / np.outer(spread, spread)
        square = tuple(tuple(float(value) if np.isfinite(value) else None for value in row) for row in phi)
        patterns = tuple((self._columns(pattern), count) for pattern, count in listed)
        return Missing(tuple(self._names[place] for place in places), patterns, others, square)

    def _columns(self, pattern: bytes) -> tuple[str, ...]:
        bits = np.unpackbits(np.frombuffer(pattern, np.uint8), count=len(self._names))
        return tuple(name for name, bit in zip(self._names, bits, strict=True) if bit)


class RepeatTally:
    """Counts rows that repeat an earlier one in some columns, by hashes of 64 bits; gives up beyond 16 million rows.

    Parameters
    ----------
    columns : sequence of str
    possible : bool, default True
        False where a column has a type that cannot be hashed.
    """

    def __init__(self, columns: Sequence[str], *, possible: bool = True) -> None:
        self.columns = tuple(columns)
        self._hashes: list[NDArray[np.uint64]] | None = [] if possible else None
        self._rows = 0

    def add(self, block: pa.RecordBatch) -> None:
        """One block of rows."""
        self._rows += block.num_rows
        if self._hashes is not None:
            hashes = pl.DataFrame(block.select(list(self.columns))).hash_rows().to_numpy()
            self._hashes = None if self._rows > _ROWS else [*self._hashes, hashes]

    def finish(self) -> int | None:
        """Rows that repeat an earlier one; None where there were too many to say."""
        if not self._hashes:
            return None if self._hashes is None else 0
        hashes = np.sort(np.concatenate(self._hashes))
        return int((hashes[1:] == hashes[:-1]).sum())


class OrderTally:
    """Counts which of two times comes first, for every pair of the first time columns."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        times = [name for name, kind in kinds.items() if kind in ("time", "date")][:_TIMES]
        self._pairs = [(a, b) for a, b in combinations(times, 2) if kinds[a] == kinds[b]]
        self._counts = np.zeros((len(self._pairs), 3), dtype=np.int64)

    def add(self, block: pa.RecordBatch) -> None:
        """One block of rows."""
        names = {name for pair in self._pairs for name in pair}
        values = {name: _spread_out(block.column(name), self._kinds[name], np.int64(0)) for name in names}
        valid = {name: np.asarray(block.column(name).is_valid()) for name in names}
        for place, (left, right) in enumerate(self._pairs):
            signs = np.sign(values[left] - values[right])[valid[left] & valid[right]]
            self._counts[place] += [(signs < 0).sum(), (signs == 0).sum(), (signs > 0).sum()]

    def finish(self) -> tuple[Order, ...]:
        """Counts of each pair."""
        return tuple(Order(*pair, *map(int, counts)) for pair, counts in zip(self._pairs, self._counts, strict=True))


def key_candidates(columns: Sequence[ColumnProfile], sample: pa.Table, rows: int) -> list[tuple[str, ...]]:
    """Pairs and triples of columns that never repeat in the sample, narrow ones first, then those on the left."""
    possible = {
        column.name: column.distinct for column in columns
        if column.type in ("int", "string", "date", "time") and not column.missing and 1 < column.distinct < rows
    }  # fmt: skip
    frame = pl.DataFrame(sample.select(list(possible)[:8])) if len(possible) > 1 else pl.DataFrame()
    for width in range(2, _WIDEST + 1):
        keys = [
            names for names in combinations(frame.columns, width)
            if np.prod([float(possible[name]) for name in names]) >= rows
            and frame.select(names).hash_rows().n_unique() == frame.height
        ]  # fmt: skip
        if keys:
            return keys[:4]
    return []


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
    values = [_spread_out(sample.column(c.name).combine_chunks(), c.type, np.nan) for c in numbers]
    finite = [np.isfinite(column) for column in values]
    codes = [_codes(sample.column(c.name)) for c in categories]
    ranks: dict[int, Floats] = {}

    def rank(place: int, mask: NDArray[np.bool_]) -> Floats:
        if not mask.all():
            return midranks(values[place][mask])
        if place not in ranks:  # ranking is a sort: once a column where no value is missing
            ranks[place] = midranks(values[place])
        return ranks[place]

    def pearson(i: int, j: int) -> float | None:
        mask = finite[i] & finite[j]
        return _pearson(values[i][mask], values[j][mask])

    def spearman(i: int, j: int) -> float | None:
        mask = finite[i] & finite[j]
        return _pearson(rank(i, mask), rank(j, mask))

    return Correlations(
        sample.num_rows, seed, tuple(c.name for c in numbers), _square(len(numbers), pearson),
        _square(len(numbers), spearman), tuple(c.name for c in categories),
        _square(len(categories), lambda i, j: _cramer(codes[i], codes[j])),
    )  # fmt: skip


def _square(size: int, entry: Callable[[int, int], float | None]) -> Square:
    """Symmetric matrix with ones on its diagonal."""
    upper = {(i, j): entry(i, j) for i, j in combinations(range(size), 2)}
    return tuple(tuple(1.0 if i == j else upper[min(i, j), max(i, j)] for j in range(size)) for i in range(size))


def _pearson(x: Floats, y: Floats) -> float | None:
    if len(x) < 3:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        u, v = x - x.mean(), y - y.mean()
        u, v = u / (np.abs(u).max() or 1.0), v / (np.abs(v).max() or 1.0)  # no square leaves the range of a double
        size = float(np.sqrt((u @ u) * (v @ v)))
    if not size > 0:
        return None
    value = float(u @ v) / size
    return max(-1.0, min(1.0, value)) if np.isfinite(value) else None


def _cramer(a: NDArray[np.int64], b: NDArray[np.int64]) -> float | None:
    """Bias-corrected Cramér's V (Bergsma 2013, J. Korean Stat. Soc. 42, 323-328)."""
    valid = (a >= 0) & (b >= 0)
    n = int(valid.sum())
    if n < 3:
        return None
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a[valid], b[valid]), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    r, k = table.shape
    if min(r, k) < 2:
        return None
    expected = np.outer(table.sum(1), table.sum(0)) / n
    phi = float(((table - expected) ** 2 / expected).sum()) / n
    corrected = max(0.0, phi - (k - 1) * (r - 1) / (n - 1))
    width = min(k - (k - 1) ** 2 / (n - 1), r - (r - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(min(1.0, corrected / width))) if width > 0 else None


def _spread_out(column: pa.Array, kind: str, null: Any) -> NDArray[Any]:
    """Numbers of a column in their places, with a value for null."""
    values = np.full(len(column), null)
    values[np.asarray(column.is_valid())] = numbers_of(column, kind)
    return values


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.combine_chunks().dictionary_encode().indices.fill_null(-1)).astype(np.int64)
