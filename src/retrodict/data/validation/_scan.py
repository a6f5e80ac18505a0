"""The one scan: every count and every number of a suite, by one streaming pass of Polars over the batch.

Polars and not DuckDB: over 10 million rows, 20 columns and 40 checks it takes two thirds of the time. The pass only
counts; which rows failed is asked once more, and only if some did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.data.measures import Measure, polars_measure
from retrodict.data.validation._typed import TypedBatch
from retrodict.data.validation.suite import BoundCheck, Suite

_FIRST = 1_000  # rows
Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the pass counted.

    Attributes
    ----------
    rows : int
        Rows of the batch.
    nulls : mapping of str to int
        Nulls per column that a check reads.
    failed, looked : mapping of str to int
        Rows that fail a test of rows, and rows it is about, by title.
    values : mapping of str to number or None
        The number of each check that has a measure, by title.
    groups : mapping of str to list of tuple
        For checks with groups, by title: per group its name, and (failed, looked) or the number.
    """

    rows: int
    nulls: Mapping[str, int]
    failed: Mapping[str, int]
    looked: Mapping[str, int]
    values: Mapping[str, float | None]
    groups: Mapping[str, list[tuple[str, Any]]] = field(default_factory=dict)


def frame_of(typed: TypedBatch, suite: Suite) -> pl.LazyFrame:
    """Rows for the scan, with the labels of layer 4."""
    frame = typed.frame()
    if not suite.labels:
        return frame
    added = [_expression(label, suite, typed.floating).alias(name) for name, label in suite.labels.items()]
    return frame.with_columns(added)


def scan(typed: TypedBatch, suite: Suite) -> Scanned:
    """Count everything that one pass can count.

    Raises
    ------
    InputError
        If an expression cannot be evaluated on the rows (whole numbers that leave 64 bits).
    """
    frame, floating = frame_of(typed, suite), typed.floating
    read = sorted({name for bound in suite.checks for name in bound.check.reads if name in typed.schema.names})
    origins = _origins(frame, suite, typed)
    aggregates = [pl.len().alias("rows"), *(pl.col(name).null_count().alias(f"null {name}") for name in read)]
    for place, bound in enumerate(suite.checks):
        aggregates += _aggregates(place, bound, suite, floating, origins)
    grouped = {bound.title: bound for bound in suite.checks if bound.check.by}
    queries = [frame.select(aggregates)]
    for bound in grouped.values():
        keys = [pl.col(name) for name in bound.check.by]
        queries.append(frame.group_by(keys).agg(_aggregates(0, bound, suite, floating, origins)))
    counts, *per_group = _collect(queries, typed)
    row = counts.row(0, named=True)
    failed, looked, values = {}, {}, {}
    for place, bound in enumerate(suite.checks):
        if bound.test is not None or bound.spoiled is not None:
            failed[bound.title] = int(row[f"failed {place}"] or 0)
            looked[bound.title] = int(row[f"looked {place}"]) if f"looked {place}" in row else int(row["rows"])
        elif bound.measure is not None:
            values[bound.title] = row[f"value {place}"]
    return Scanned(
        int(row["rows"]),
        {name: int(row[f"null {name}"]) for name in read},
        failed,
        looked,
        values,
        {title: _groups(bound, rows) for (title, bound), rows in zip(grouped.items(), per_group, strict=True)},
    )


def _origins(frame: pl.LazyFrame, suite: Suite, typed: TypedBatch) -> dict[str, float]:
    """A value from the middle of each column whose spread is asked for, from the first rows."""
    measures = [bound.measure for bound in suite.checks if bound.measure is not None]
    names = sorted({name for m in measures if m.name in ("std", "correlation") for name in m.columns})
    if not names:
        return {}
    middle = [pl.col(name).cast(pl.Float64).fill_nan(None).median() for name in names]
    (medians,) = _collect([frame.select(names).head(_FIRST).select(middle)], typed)
    row = medians.row(0, named=True)
    return {name: value for name, value in row.items() if value is not None and math.isfinite(value)}


def _aggregates(
    place: int, bound: BoundCheck, suite: Suite, floating: frozenset[str], origins: Mapping[str, float]
) -> list[pl.Expr]:
    if bound.spoiled is not None:
        return [pl.col(bound.spoiled).sum().alias(f"failed {place}")]
    if bound.test is not None:
        counts = [(~_expression(bound.test, suite, floating)).sum().alias(f"failed {place}")]
        if bound.check.filter is not None:
            counts.append(_expression(bound.check.filter, suite, floating).sum().alias(f"looked {place}"))
        elif bound.check.by:
            counts.append(pl.len().alias(f"looked {place}"))
        return counts
    if bound.measure is not None:
        return [polars_measure(bound.measure, floating, kinds=suite.kinds, origins=origins).alias(f"value {place}")]
    return []


def _groups(bound: BoundCheck, rows: pl.DataFrame) -> list[tuple[str, Any]]:
    """Name of each group, and what was counted in it."""
    groups: list[tuple[str, Any]] = []
    for row in rows.iter_rows(named=True):
        name = ", ".join(f"{column}={row[column]}" for column in bound.check.by)
        if bound.measure is not None:
            groups.append((name, row["value 0"]))
        else:
            groups.append((name, (int(row["failed 0"] or 0), int(row["looked 0"] or 0))))
    return sorted(groups, key=lambda pair: pair[0])


def why_unmeasured(typed: TypedBatch, suite: Suite, measure: Measure) -> str:
    """Why a number of the batch has no finite value: no rows, nulls, infinities, or too few values."""
    floating = typed.floating
    frame = frame_of(typed, suite)
    if measure.where is not None:
        frame = frame.filter(_expression(measure.where, suite, floating))
    floats = [name for name in measure.columns if name in floating]
    parts = [pl.col(name).fill_nan(None) if name in floats else pl.col(name) for name in measure.columns]
    if measure.expression is not None:
        parts = [_expression(measure.expression, suite, floating)]
    valid = pl.all_horizontal([part.is_not_null() for part in parts])
    infinite = pl.any_horizontal([pl.lit(value=False), *(pl.col(name).is_infinite() for name in floats)])
    (counts,) = _collect([frame.select(pl.len(), valid=valid.sum(), infinite=(valid & infinite).sum())], typed)
    rows, values, infinities = counts.row(0)
    names = [name.removeprefix("_label ") for name in measure.columns]
    what = "the condition" if measure.expression is not None else " and ".join(names)
    if not rows:
        return "no row is one it is about" if measure.where is not None else "the batch has no row"
    if not values:
        return f"{what}: no value in any of {rows} rows"
    if infinities:
        return f"{infinities} of {values} values of {what} {'is' if infinities == 1 else 'are'} infinite"
    need = _NEEDS.get(measure.name, "the result must be a finite number")
    return f"{what}: {values} {'value' if values == 1 else 'values'}, and {need}"


_NEEDS = {
    "auc": "both classes must occur",
    "correlation": "there must be two rows and no constant column",
    "std": "there must be two values whose spread is a number",
}


def failing_rows(typed: TypedBatch, suite: Suite, checks: Iterable[BoundCheck]) -> dict[str, Positions]:
    """Ascending positions of the rows that fail each of these tests of rows, by title."""
    tests = list(checks)
    if not tests:
        return {}
    fails = [
        (pl.col(bound.spoiled) if bound.spoiled is not None else ~_test(bound, suite, typed.floating))
        .fill_null(value=False)
        .alias(f"f{place}")
        for place, bound in enumerate(tests)
    ]
    # The index comes first: a filter before it would number other rows.
    frame = frame_of(typed, suite).with_row_index("_row").select("_row", *fails)
    (failures,) = _collect([frame.filter(pl.any_horizontal(pl.exclude("_row")))], typed)
    rows = failures.get_column("_row").to_numpy().astype(np.int64)
    order = np.argsort(rows, kind="stable")
    return {
        bound.title: rows[order][failures.get_column(f"f{place}").to_numpy()[order]]
        for place, bound in enumerate(tests)
    }


def _test(bound: BoundCheck, suite: Suite, floating: frozenset[str]) -> pl.Expr:
    assert bound.test is not None
    return _expression(bound.test, suite, floating)


def _expression(expression: Any, suite: Suite, floating: frozenset[str]) -> pl.Expr:
    compiled: pl.Expr = expression.to_polars(
        kinds={name: suite.kinds.get(name) for name in expression.columns}, floating=floating
    )
    return compiled


def _collect(queries: list[pl.LazyFrame], typed: TypedBatch) -> list[pl.DataFrame]:
    try:
        return pl.collect_all(queries, engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        # Its text can hold a value of the data: only the kind of the error is told.
        raise InputError(
            "types and checks must be evaluable on every row",
            where=typed.batch.origin,
            got=type(error).__name__,
            remedy="Look for a damaged file, arithmetic that leaves 64 bits, and columns that checks cannot read",
        ) from None
