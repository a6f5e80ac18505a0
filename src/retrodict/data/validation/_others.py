"""Rows judged by other rows: repeated keys, order, near-duplicates, and rows of other tables.

Keys are looked up by 64-bit hashes (8 bytes a row, whatever the key): no two equal hashes prove that no key repeats.
Where hashes meet, the keys themselves decide, so a collision costs time and never an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.kinds import ExpressionKind
from retrodict.data.checks import Check
from retrodict.data.context import Context
from retrodict.data.validation._scan import Positions

if TYPE_CHECKING:
    import pyarrow.dataset as ds


class Unknown(Exception):
    """The check cannot be evaluated; the text says why."""


class NothingEarlierError(Unknown):
    """There is too little history to compare with yet, which only publishing can change: never a reason to halt."""


def rows_among_others(
    check: Check, frame: pl.LazyFrame, context: Context, *, kinds: Mapping[str, ExpressionKind | None], where: str
) -> Positions:
    """Ascending positions of the rows that fail a check which needs other rows.

    Raises
    ------
    Unknown
        If what it needs does not exist.
    DefinitionError
        If the other table lacks a column, or has it in a type that cannot be compared.
    """
    indexed = frame.with_row_index("_row")
    if check.filter is not None:
        indexed = indexed.filter(check.filter.to_polars(kinds=kinds, floating=_floating(frame)))
    match check.rule:
        case "unique" | "primary_key":
            positions = _repeated(indexed, [_comparable(name, frame.collect_schema()) for name in check.columns])
            if check.rule == "primary_key":
                empty = pl.any_horizontal([_missing(name, frame) for name in check.columns])
                positions = np.union1d(positions, _rows(indexed.filter(empty)))
            return positions
        case "near_duplicates":
            return _repeated(indexed, [_blurred(name, frame) for name in check.columns])
        case "determines":
            return _undetermined(indexed, check.columns)
        case "monotone":
            return _backwards(indexed, check)
        case "references" | "disjoint":
            other = context.table(check.option("table"))
            if other is None:
                raise Unknown(f"there is no table {check.option('table')} to look into")
            inside = rows_found_in(indexed, check.columns, other, check.option("to"), where=where)
            if check.rule == "disjoint":
                return inside
            complete = pl.all_horizontal([~_missing(name, frame) for name in check.columns])
            return np.setdiff1d(_rows(indexed.filter(complete)), inside)
    raise AssertionError(check.rule)


def rows_found_in(
    indexed: pl.LazyFrame, columns: Sequence[str], other: ds.Dataset, to: Sequence[str], *, where: str
) -> Positions:
    """Ascending positions of the rows whose values are in another table's columns; a null is in no table."""
    reference = _of_dataset(other, to, where)
    mine, theirs = indexed.collect_schema(), reference.collect_schema()
    for name, twin in zip(columns, to, strict=True):
        if _family(mine[name]) != _family(theirs[twin]):
            raise DefinitionError(
                "keys that are compared must have one type on both sides",
                where=where,
                got={name: str(mine[name]), twin: str(theirs[twin])},
                remedy="Declare the same type in both tables",
            )
    keys = [f"k{i}" for i in range(len(columns))]
    pairs = [_alike(a, mine, b, theirs) for a, b in zip(columns, to, strict=True)]
    left = indexed.select("_row", *(pair[0].alias(key) for key, pair in zip(keys, pairs, strict=True)))
    right = reference.select(*(pair[1].alias(key) for key, pair in zip(keys, pairs, strict=True)))
    return _rows(left.drop_nulls().join(right.drop_nulls(), on=keys, how="semi"))


def _of_dataset(other: ds.Dataset, columns: Sequence[str], where: str) -> pl.LazyFrame:
    for name in columns:
        check_known(
            name,
            other.schema.names,
            "the other table must have the column",
            where=where,
            what="column",
            error=DefinitionError,
        )
    return pl.scan_pyarrow_dataset(other).select(list(columns))


def _repeated(indexed: pl.LazyFrame, keys: list[pl.Expr]) -> Positions:
    """Positions of rows whose keys an earlier row has; rows with a null among them repeat nothing."""
    keyed = indexed.select("_row", *(key.alias(f"k{i}") for i, key in enumerate(keys))).drop_nulls()
    names = [f"k{i}" for i in range(len(keys))]
    hashed = keyed.select("_row", pl.struct(names).hash().alias("hash")).collect(engine="streaming")
    hashes = hashed.get_column("hash").to_numpy()
    ordered = np.sort(hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not twice.size:
        return np.empty(0, np.int64)
    rows = hashed.get_column("_row").to_numpy()[np.isin(hashes, twice)]
    suspects = keyed.join(pl.LazyFrame({"_row": pl.Series(rows)}), on="_row", how="semi").collect(engine="streaming")
    later = suspects.sort("_row").filter(~pl.struct(names).is_first_distinct())
    return later.get_column("_row").to_numpy().astype(np.int64)


def _undetermined(indexed: pl.LazyFrame, columns: Sequence[str]) -> Positions:
    *by, column = columns
    complete = indexed.select("_row", *columns).drop_nulls()
    first = pl.col(column).sort_by("_row").first().over(by)
    return _rows(complete.filter(pl.col(column) != first))


def _backwards(indexed: pl.LazyFrame, check: Check) -> Positions:
    column, *per = check.columns
    rising, strict = check.option("direction") == "increasing", bool(check.option("strict"))
    value = pl.col(column)
    best = (value.cum_max() if rising else value.cum_min()).shift(1)
    complete = indexed.select("_row", *check.columns).drop_nulls(column).sort("_row")
    compared = complete.with_columns((best.over(per) if per else best).alias("_best"))
    behind = (value < pl.col("_best")) if rising else (value > pl.col("_best"))
    return _rows(compared.filter(behind | (value == pl.col("_best")) if strict else behind))


def _rows(frame: pl.LazyFrame) -> Positions:
    positions = frame.select("_row").collect(engine="streaming").get_column("_row").to_numpy().astype(np.int64)
    return np.sort(positions)


def _missing(name: str, frame: pl.LazyFrame) -> pl.Expr:
    """Null, or NaN, which counts as null."""
    absent = pl.col(name).is_null()
    return absent | pl.col(name).is_nan().fill_null(value=False) if name in _floating(frame) else absent


def _floating(frame: pl.LazyFrame) -> set[str]:
    return {name for name, kind in frame.collect_schema().items() if kind.is_float()}


def _blurred(name: str, frame: pl.LazyFrame) -> pl.Expr:
    """Texts without case, blanks and punctuation; other values as they are."""
    column = pl.col(name)
    if frame.collect_schema()[name] != pl.String:
        return column
    return column.str.to_lowercase().str.replace_all(r"[\s\p{P}]+", "")


def _family(kind: pl.DataType) -> str:
    if kind.is_integer() or kind.is_float():
        return "number"
    if kind.is_temporal():
        return "date" if kind == pl.Date else "time"
    return "text" if kind == pl.String else str(kind)


def _alike(a: str, mine: pl.Schema, b: str, theirs: pl.Schema) -> tuple[pl.Expr, pl.Expr]:
    """Two key columns in one type: a whole number that arrives as a fraction is the same key."""
    left, right = _comparable(a, mine), _comparable(b, theirs)
    if mine[a].is_float() != theirs[b].is_float():
        return left.cast(pl.Float64), right.cast(pl.Float64)
    return left, right


def _comparable(name: str, schema: pl.Schema) -> pl.Expr:
    column, kind = pl.col(name), schema[name]
    if kind.is_float():
        return column.fill_nan(None).cast(pl.Float64)
    if kind.is_integer():
        return column.cast(pl.Int64)
    if kind.is_temporal() and kind != pl.Date:
        return column.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return column
