"""Facts of columns together: missing values, repeated rows, pairs of times, keys, correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrodict.core.statistics.intervals import midranks
from retrodict.data.profiling._tally import NUMERIC, as_numbers
from retrodict.data.profiling.profile import ColumnProfile, Correlations, Missing

_LISTED = 20  # patterns of missing values
_NUMBERS, _CATEGORIES, _LEVELS = 40, 20, 50
_TIMES = 8
_WIDEST = 3  # columns of a key that is looked for

Floats = NDArray[np.float64]
Square = tuple[tuple[float | None, ...], ...]


def missing_patterns(frame: pl.LazyFrame, missing: Mapping[str, int], rows: int) -> Missing:
    """Which columns are missing together, and the phi coefficient of each pair."""
    names = [name for name, count in missing.items() if count]
    if not names:
        return Missing()
    # A pattern is packed into words of 64 bits, the first column the highest: grouping them is fast, and small.
    starts = range(0, len(names), 64)
    words = [_word([names[place] for place in range(start, min(start + 64, len(names)))]) for start in starts]
    counts = frame.group_by(word.alias(str(start)) for start, word in zip(starts, words, strict=True)).len("rows")
    patterns = counts.collect(engine="streaming").sort(
        "rows", *map(str, starts), descending=[True, *[False] * len(words)]
    )
    joint = np.zeros((len(names), len(names)))
    listed: list[tuple[tuple[str, ...], int]] = []
    for part in patterns.iter_slices(1 << 16):
        flags = _bits(part.drop("rows"), len(names))
        joint += flags.T @ (flags * part.get_column("rows").to_numpy()[:, None])
        for row, count in zip(flags[: _LISTED - len(listed)], part.get_column("rows"), strict=False):
            listed.append((tuple(name for name, flag in zip(names, row, strict=True) if flag), count))
    joint /= rows
    shares = np.diag(joint)
    spread = np.sqrt(shares * (1 - shares))
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = (joint - np.outer(shares, shares)) / np.outer(spread, spread)
    square = tuple(tuple(float(value) if np.isfinite(value) else None for value in row) for row in phi)
    return Missing(tuple(names), tuple(listed), rows - sum(count for _, count in listed), square)


def count_repeats(frame: pl.LazyFrame, columns: Sequence[str]) -> int:
    """Rows that repeat an earlier one in some columns, but for two equal hashes of 64 bits."""
    hashes = frame.select(pl.struct(columns).hash()).collect(engine="streaming").to_series().to_numpy()
    ordered = np.sort(hashes)
    return int((ordered[1:] == ordered[:-1]).sum())


def _word(names: Sequence[str]) -> pl.Expr:
    """Up to 64 truth values "is missing" in one whole number."""
    bits = [pl.col(name).is_null().cast(pl.UInt64) * (1 << (63 - place)) for place, name in enumerate(names)]
    return pl.sum_horizontal(bits)


def _bits(words: pl.DataFrame, size: int) -> NDArray[np.bool_]:
    packed = np.ascontiguousarray(words.to_numpy().astype(">u8")).view(np.uint8)
    return np.unpackbits(packed, axis=1, count=size).astype(bool)


def time_pairs(kinds: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of the first time columns."""
    times = [name for name, kind in kinds.items() if kind in ("time", "date")][:_TIMES]
    return [(a, b) for a, b in combinations(times, 2) if kinds[a] == kinds[b]]


def key_candidates(columns: Sequence[ColumnProfile], sample: pl.DataFrame, rows: int) -> list[tuple[str, ...]]:
    """Pairs and triples of columns that never repeat in the sample, narrow ones first, then those on the left."""
    possible = {
        column.name: column.distinct for column in columns
        if column.type in ("int", "string", "date", "time") and not column.missing and 1 < column.distinct < rows
    }  # fmt: skip
    frame = sample.select(list(possible)[:8]) if len(possible) > 1 else pl.DataFrame()
    for width in range(2, _WIDEST + 1):
        keys = [
            names for names in combinations(frame.columns, width)
            if np.prod([float(possible[name]) for name in names]) >= rows
            and frame.select(names).hash_rows().n_unique() == frame.height
        ]  # fmt: skip
        if keys:
            return keys[:4]
    return []


def correlate(columns: Sequence[ColumnProfile], sample: pl.DataFrame, *, seed: int) -> Correlations:
    """Correlations of a sample of rows that was drawn with a seed."""
    numbers = [c for c in columns if c.type in NUMERIC and c.distinct > 1][:_NUMBERS]
    categories = [
        c for c in columns if c.type in ("string", "bool", "int") and 1 < c.distinct <= _LEVELS and c.distinct_exact
    ][:_CATEGORIES]
    values = [as_numbers(sample[c.name], c.type).cast(pl.Float64).fill_null(np.nan).to_numpy() for c in numbers]
    finite = [np.isfinite(column) for column in values]
    codes = [sample[c.name].cast(pl.String).rank("dense").fill_null(0).to_numpy().astype(int) - 1 for c in categories]
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
        sample.height, seed, tuple(c.name for c in numbers), _square(len(numbers), pearson),
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
