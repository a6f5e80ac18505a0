"""How rows are drawn, grouped, hashed and cut in time: the arithmetic below :mod:`retrodict.models.splits`.

Apart from it because a definitions module is read by every command, and most of them need no NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.kinds import kind_of
from retrodict.core.tasks import Target

if TYPE_CHECKING:
    from retrodict.models.splits import SplitRows

__all__ = [
    "blocks",
    "codes_of",
    "deal",
    "deal_groups",
    "draw",
    "draw_groups",
    "settled",
    "shares_of",
    "strata_of",
    "usable",
]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BINS = 10  # of equal counts, in which a number is stratified
_LEAST = 3  # rows of a bin: one for each part


def usable(rows: SplitRows, now: int) -> Ints:
    """Positions of the rows whose label is known before an instant."""
    return np.flatnonzero(~np.isnan(rows.labels) & (settled(rows) < now))


def settled(rows: SplitRows) -> Ints:
    """From when on something is known of each row: its label, or that it is still without the event."""
    return rows.at if rows.target.task == "survival" else rows.known_at


def strata_of(labels: NDArray[np.float64], target: Target, *, least: int, where: str, bins: int = _BINS) -> Ints:
    """Class of each label; of numbers one of ten bins of equal counts, fewer where bins would hold under three rows.

    Raises
    ------
    InputError
        If a class has fewer rows than ``least``.
    """
    if target.task == "survival":  # whether the event was seen, and then when: as many in all as of a number
        events, plain = labels > 0, Target("regression")
        codes = np.zeros(len(labels), dtype=np.int64)
        for rows in (events, ~events):
            codes[rows] = 2 * strata_of(labels[rows], plain, least=0, where=where, bins=bins // 2) + events[rows]
        return np.unique(codes, return_inverse=True)[1].astype(np.int64)
    if not target.probabilistic:
        bins = min(bins, max(len(labels) // _LEAST, 1))
        ranks = np.empty(len(labels), dtype=np.int64)
        ranks[np.argsort(labels, kind="stable")] = np.arange(len(labels))
        return ranks * bins // max(len(labels), 1)
    values, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if sizes.min(initial=least) < least:
        place = int(np.argmin(sizes))
        name = target.classes[int(values[place])] if target.classes else int(values[place])
        raise InputError(
            f"a stratified split must have {least} rows of every class, one for each part", where=where,
            got=f"{int(sizes[place])} labelled rows of the class {name!r}",
            remedy="Add rows of this class, leave its rows out, or join it with another one in the label",
        )  # fmt: skip
    return codes.astype(np.int64)


def draw(strata: Ints, count: int, rng: np.random.Generator, *, spare: int) -> Mask:
    """Mask of so many rows at random: of each stratum its share by largest remainder, one at least, and some spared.

    Parameters
    ----------
    strata : ndarray of shape (n,)
    count : int
        Rows to draw; fewer are drawn where strata cannot spare them.
    rng : numpy.random.Generator
    spare : int
        Rows of each stratum that are left, one for each part to come.
    """
    mask = np.zeros(len(strata), dtype=np.bool_)
    sizes = np.bincount(strata)
    limits = np.maximum(sizes - spare, 0)
    count = min(count, int(limits.sum()))
    if count < 1:
        return mask
    quotas = sizes * (count / len(strata))
    counts = np.clip(np.floor(quotas), np.minimum(1, limits), limits)
    while counts.sum() > count:
        counts[np.argmax(np.where(counts > 1, counts - quotas, -np.inf))] -= 1
    while counts.sum() < count:
        counts[np.argmin(np.where(counts < limits, counts - quotas, np.inf))] += 1
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    ranks = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    mask[order] = ranks < counts[strata[order]]
    return mask


def deal(strata: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Fold of each row: the rows of a stratum are dealt out one by one, each stratum going on where the last ended."""
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    folds = np.empty(len(strata), dtype=np.int64)
    folds[order] = np.arange(len(strata)) % count
    return folds


def draw_groups(groups: Ints, shares: Sequence[float], rng: np.random.Generator) -> Ints:
    """Part of each row, the last one for what is left: whole groups in random order until a part has its share."""
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    part = np.empty(len(sizes), dtype=np.int64)
    part[order] = np.searchsorted(np.cumsum(shares) * len(groups), middles, side="right")
    return part[groups]


def deal_groups(groups: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Fold of each row: groups from the largest on, each to the fold that has the fewest rows yet."""
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    totals, fold = np.zeros(count), np.zeros(len(sizes), dtype=np.int64)
    for group in order:
        fold[group] = int(np.argmin(totals))
        totals[fold[group]] += sizes[group]
    return fold[groups]


def blocks(at: Ints, known_at: Ints, count: int, embargo: int = 0) -> list[tuple[Ints, Ints]]:
    """Folds that are spans of time, each without the rows whose outcome overlaps it or that follow it too soon.

    Purging and embargo: López de Prado 2018, Advances in Financial Machine Learning, chapter 7.

    Returns
    -------
    list of (ndarray, ndarray)
        Places to fit on and to judge on, ascending; either may be empty.
    """
    result = []
    for inside in np.array_split(np.argsort(at, kind="stable"), count):
        if len(inside):
            outside = (known_at < at[inside].min()) | (at > known_at[inside].max() + embargo)
            result.append((np.flatnonzero(outside), np.sort(inside)))
    return result


# keys ---------------------------------------------------------------------------------------------------------------

_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "text": str,
    "int": str,
    "bool": lambda value: str(value).lower(),
    "date": lambda value: str(value.isoformat()),
    "time": str,
}


def _texts(column: pa.ChunkedArray, name: str, where: str) -> list[str]:
    """One text per row, the same for a whole number of any width, for one with a decimal point, and for its digits."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = kind_of(column.type)
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        try:
            column, kind = column.cast(pa.int64()), "int"
        except pa.ArrowInvalid as error:
            raise InputError("rows must be kept together by text, whole numbers, truth values, dates or times",
                             where=f"{where}, column {name!r}", got="numbers with a fraction",
                             remedy="Name another column") from error  # fmt: skip
    if column.null_count:
        raise InputError("every row must have a value in the column that says what stays together",
                         where=f"{where}, column {name!r}", got=f"{column.null_count} rows without one",
                         remedy="Quarantine such rows with Check.not_null, or name another column")  # fmt: skip
    if kind not in _TEXTS:
        raise InputError("rows must be kept together by text, whole numbers, truth values, dates or times",
                         where=f"{where}, column {name!r}", got=str(column.type),
                         remedy="Name another column")  # fmt: skip
    if kind == "time":
        column = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    return [_TEXTS[kind](value) for value in column.to_pylist()]


def _keys(rows: SplitRows, names: Sequence[str], positions: Ints, where: str) -> list[str]:
    """Canonical text of the key of each row; parts of a composite one with their lengths."""
    places = pa.array(positions)
    parts = [_texts(rows.column(name).take(places), name, where) for name in names]
    if len(parts) == 1:
        return parts[0]
    return ["".join(f"{len(part)}:{part}" for part in values) for values in zip(*parts, strict=True)]


def codes_of(rows: SplitRows, names: Sequence[str], positions: Ints, *, where: str) -> Ints:
    """Number of the group of each row, in the order of the groups' text."""
    keys = np.array(_keys(rows, names, positions, where), dtype=object)
    return np.unique(keys.astype(str), return_inverse=True)[1].astype(np.int64)


def shares_of(rows: SplitRows, names: Sequence[str], positions: Ints, *, salt: str, where: str) -> NDArray[np.float64]:
    """Number from 0 up to 1 for each row: the first 53 bits of the SHA-256 of its key, the same on every machine."""
    prefix = f"{len(salt)}:{salt}"
    shares: dict[str, float] = {}
    result = np.empty(len(positions))
    for place, key in enumerate(_keys(rows, names, positions, where)):
        share = shares.get(key)
        if share is None:
            head = hashlib.sha256(f"{prefix}{key}".encode()).digest()[:8]
            share = shares[key] = (int.from_bytes(head) >> 11) / 2**53
        result[place] = share
    return result
