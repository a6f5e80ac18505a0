"""Whose statistics moved between two versions: per column, with the noise of sampling told from movement.

The numbers are taken over the same share of either side, at least 200,000 rows of the larger one (so over all rows of
smaller tables), chosen by a hash of the key, which chooses a row that both versions hold in both, or else at random
from a fixed seed. Looking at all rows of a large table was rejected: it doubles the time of a comparison, while the
noise of such a sample lies far below what counts as movement, and every judgement knows how many rows it rests on.

A number moved if the difference matters *and* exceeds what two samples of that size would show by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from retrodict.core.statistics.drift import DriftVerdict, judge_features
from retrodict.core.statistics.profiles import CategoryProfile, NumericProfile
from retrodict.stores.sql import quote

__all__ = ["ColumnStatistics"]

_SAMPLED, _MIN_ROWS = 200_000, 100
_LARGEST = 1e150  # the square of a larger one is infinite
_Z = 3.29  # two-sided at 0.1 %
_NULLS, _MEAN, _SPREAD, _DISTINCT = 0.01, 0.1, 0.1, 0.1  # smallest differences that matter


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """One column in two versions; each number is a pair (before, after), None where it has no meaning.

    Attributes
    ----------
    column : str
    rows : (int, int)
        Rows that were looked at: all, or a sample of a large table.
    status : {"moved", "same", "not evaluable"}
        Not evaluable: fewer than 100 rows on a side.
    moved : tuple of str
        Which of ``nulls``, ``mean``, ``std``, ``distinct``, ``psi`` moved.
    nulls : (float, float)
        Share of nulls; NaN counts as null.
    mean, std : (float, float) or None
        Of the finite numbers up to 1e150 in size; of a bool, the share of True.
    distinct : (int, int)
        Distinct values among the sampled rows.
    psi, critical_value : float or None
        Population stability index of the samples in nats, and its noise floor.
    """

    column: str
    rows: tuple[int, int]
    status: Literal["moved", "same", "not evaluable"]
    moved: tuple[str, ...]
    nulls: tuple[float, float]
    mean: tuple[float | None, float | None] | None
    std: tuple[float | None, float | None] | None
    distinct: tuple[int, int]
    psi: float | None
    critical_value: float | None


@dataclass(frozen=True, slots=True)
class _Side:
    """Measures of one column in one version; ``finite`` numbers went into mean and std."""

    rows: int
    nulls: int
    distinct: int
    mean: float | None = None
    std: float | None = None
    finite: int = 0


def compare_statistics(
    connection: duckdb.DuckDBPyConnection, kinds: dict[str, pa.DataType], key: list[str], rows: tuple[int, int]
) -> list[ColumnStatistics]:
    """Statistics of the columns of the views ``whole_a`` and ``whole_b``, which hold so many rows."""
    columns = {name: kind for name, kind in kinds.items() if _expression(name, kind)}
    if not columns:
        return []
    samples = [_sample(connection, columns, key, view, max(rows)) for view in ("whole_a", "whole_b")]
    counts: dict[str, tuple[Any, Any]] = {}
    for name, kind in columns.items():
        first, second = samples[0].column(name), samples[1].column(name)
        profile = (CategoryProfile if is_.is_string(kind) else NumericProfile).of(first)
        counts[name] = (profile.count(first), profile.count(second))
    verdicts = judge_features(counts, min_rows=_MIN_ROWS)
    statistics = []
    for name, kind in columns.items():
        a, b = (_measure(sample.column(name), kind) for sample in samples)
        moved = _moved(a, b)
        if verdicts[name].status == "drift":
            moved.append("psi")
        statistics.append(_statistics(name, a, b, moved, verdicts[name]))
    return statistics


def _statistics(name: str, a: _Side, b: _Side, moved: list[str], verdict: DriftVerdict) -> ColumnStatistics:
    few = min(a.rows, b.rows) < _MIN_ROWS
    numeric = a.mean is not None or b.mean is not None
    return ColumnStatistics(
        name,
        (a.rows, b.rows),
        "not evaluable" if few else "moved" if moved else "same",
        () if few else tuple(moved),
        (a.nulls / max(a.rows, 1), b.nulls / max(b.rows, 1)),
        (a.mean, b.mean) if numeric else None,
        (a.std, b.std) if numeric else None,
        (a.distinct, b.distinct),
        verdict.psi,
        verdict.critical_value,
    )


def _moved(a: _Side, b: _Side) -> list[str]:
    names = []
    noise = math.sqrt(1 / max(a.rows, 1) + 1 / max(b.rows, 1))
    shares = a.nulls / max(a.rows, 1), b.nulls / max(b.rows, 1)
    pooled = (a.nulls + b.nulls) / max(a.rows + b.rows, 1)
    # Two proportions, pooled.
    if abs(shares[1] - shares[0]) > max(_NULLS, _Z * math.sqrt(pooled * (1 - pooled)) * noise):
        names.append("nulls")
    if a.mean is not None and b.mean is not None and a.std is not None and b.std is not None:
        noise = math.sqrt(1 / max(a.finite, 1) + 1 / max(b.finite, 1))
        spread = math.sqrt((a.std**2 + b.std**2) / 2)
        # In standard deviations (Cohen's d), against its standard error.
        if abs(b.mean - a.mean) > max(_MEAN, _Z * noise) * spread:
            names.append("mean")
        # The standard error of the logarithm of a standard deviation is about 1 / sqrt(2n) for a normal sample.
        if a.std > 0 and b.std > 0:
            if abs(math.log(b.std / a.std)) > max(_SPREAD, _Z * noise / math.sqrt(2)):
                names.append("std")
        elif a.std != b.std:
            names.append("std")
    if a.distinct and b.distinct:
        # Twice the rows have twice the ids: that is no movement, so the number per row has to change as well.
        per_row = (b.distinct / max(b.rows - b.nulls, 1)) / (a.distinct / max(a.rows - a.nulls, 1))  # one share of both
        if min(abs(math.log(b.distinct / a.distinct)), abs(math.log(per_row))) > _DISTINCT:
            names.append("distinct")
    return names


def _measure(column: pa.ChunkedArray, kind: pa.DataType) -> _Side:
    rows, numeric = len(column), not is_.is_string(kind)
    values = column.to_numpy() if numeric else None
    nulls = column.null_count if values is None else int(np.isnan(values).sum())
    distinct = int(pc.count_distinct(column, mode="only_valid").as_py())
    side = _Side(rows, nulls, distinct)
    if values is None or not _is_number(kind):
        return side
    numbers = values[np.isfinite(values) & (np.abs(values) < _LARGEST)]
    if not numbers.size:
        return side
    spread = float(numbers.std(ddof=1)) if numbers.size > 1 else None
    return replace(side, mean=float(numbers.mean()), std=spread, finite=numbers.size)


def _expression(name: str, kind: pa.DataType) -> str | None:
    """SQL of a column as numbers or text; None for types without statistics (bytes, lists, structs)."""
    column = quote(name)
    if _is_number(kind):
        return f"CAST({column} AS DOUBLE) AS {column}"
    if is_.is_timestamp(kind):
        return f"CAST(epoch_us({column}) AS DOUBLE) AS {column}"
    if is_.is_date(kind):
        return f"CAST({column} - DATE '1970-01-01' AS DOUBLE) AS {column}"
    # Long text is told apart well enough by its beginning.
    return f"left({column}, 64) AS {column}" if is_.is_string(kind) else None


def _sample(
    connection: duckdb.DuckDBPyConnection, kinds: dict[str, pa.DataType], key: list[str], view: str, rows: int
) -> pa.Table:
    """Return a share of a view as numbers and text; of so many rows it is once to twice ``_SAMPLED``."""
    parts = [text for name, kind in kinds.items() if (text := _expression(name, kind))]
    share = 1 << max(0, (rows // _SAMPLED).bit_length() - 1)
    sql = f"SELECT {', '.join(parts)} FROM {view}"
    if share > 1 and key:
        sql += f" WHERE hash({', '.join(map(quote, key))}) % {share} = 0"
    elif share > 1:
        sql += f" USING SAMPLE {100 / share}% (bernoulli, 1)"
    if share == 1 or key:
        return connection.sql(sql).to_arrow_table()
    threads = connection.execute("SELECT current_setting('threads')").fetchall()[0][0]
    connection.execute("SET threads = 1")  # a seed promises the same rows to one thread only
    try:
        return connection.sql(sql).to_arrow_table()
    finally:
        connection.execute(f"SET threads = {threads}")


def _is_number(kind: pa.DataType) -> bool:
    return bool(is_.is_signed_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind) or is_.is_boolean(kind))
