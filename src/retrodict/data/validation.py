"""Validates one batch in one scan: casts to the declared types, evaluates every check on every row, splits the rows.

Each check becomes one boolean column "this row fails"; DuckDB computes all of them in a single pass. pandas-based
validators were rejected: they are an order of magnitude slower and cost a heavy import. Only what the definition types
goes through the engine; columns it does not name come out exactly as they went in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import DefinitionError, InputError, InternalError, near
from retrodict.core.expressions import Kind
from retrodict.data._casting import Cast, cast_column
from retrodict.data.definitions import Check, Severity, Table
from retrodict.stores.sql import query, quote, quote_text

__all__ = ["CheckResult", "Validation", "validate"]

_ROW = "_row"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of one check on one batch.

    Attributes
    ----------
    check : str
        Its title; where two checks of a table read alike, later ones are numbered.
    severity : str
    failed, rows : int
        Rows that failed, out of how many.
    halted : bool
        Whether this check alone stops the batch.
    """

    check: str
    severity: Severity
    failed: int
    rows: int
    halted: bool


@dataclass(frozen=True, slots=True)
class Validation:
    """A batch, split: every row is in ``accepted`` or in ``quarantined``, never in both, never in neither.

    Attributes
    ----------
    accepted : pyarrow.Table
        Typed rows, in order, with ``_row`` (position in the batch).
    quarantined : pyarrow.Table
        ``row``, ``checks`` (titles of all checks the row failed) and ``original`` (the row as JSON).
    results : list of CheckResult
    """

    accepted: pa.Table
    quarantined: pa.Table
    results: list[CheckResult]

    @property
    def halted(self) -> list[CheckResult]:
        """Checks that stop the batch."""
        return [result for result in self.results if result.halted]


@dataclass(frozen=True, slots=True)
class _Flag:
    """One boolean column of the scan: what it is called, what it means for the row."""

    title: str
    severity: Severity
    tolerance: float
    sql: str

    @property
    def halts(self) -> bool:
        return self.severity in ("critical", "high")


def validate(rows: pa.Table, table: Table, *, known_keys: pa.Table | None = None) -> Validation:
    """Cast and check a batch.

    Parameters
    ----------
    rows : pyarrow.Table
        The batch as it came; columns that are declared but missing are an error.
    table : Table
        Types, key and checks.
    known_keys : pyarrow.Table, optional
        Key columns already in the table; rows with one of them go to quarantine.

    Returns
    -------
    Validation

    Raises
    ------
    InputError
        If a declared or key column is missing, a name is used twice, a time has no zone, or an arriving type can never
        be the declared one.
    DefinitionError
        If a check reads a column that is missing or of another kind.
    """
    check_columns(rows, table)
    rows = _decoded(rows)
    casts = {field.name: cast_column(field.name, field.type, table) for field in rows.schema}
    flags = _numbered(
        [*_type_flags(casts, table), *_key_flags(table, casts), *(_flag(c, table, casts) for c in table.checks)]
    )
    tables = {"batch": rows.append_column(_ROW, pa.array(np.arange(rows.num_rows, dtype=np.int64)))}
    typed = [f"{cast.value} AS {quote(name)}" for name, cast in casts.items()]
    spoiled = [f"{cast.broken} AS _spoiled_{i}" for i, cast in enumerate(casts.values()) if cast.broken]
    out = [quote(name) for name, cast in casts.items() if cast.declared]
    out += [f"COALESCE({flag.sql}, FALSE) AS _flag_{i}" for i, flag in enumerate(flags)]
    if known_keys is not None:
        pairs = " AND ".join(f"k.{quote(c)} = t.{quote(c)}" for c in table.key)
        out.append(f"EXISTS (SELECT 1 FROM known k WHERE {pairs}) AS _flag_{len(flags)}")
        flags.append(_Flag(f"new_key({', '.join(table.key)})", "medium", 0.0, ""))
        tables["known"] = known_keys
    inner = f"SELECT {', '.join([*typed, *spoiled, _ROW])} FROM batch"
    sql = f"WITH t AS ({inner}) SELECT {', '.join(out)} FROM t ORDER BY {_ROW}"
    return _split(tables["batch"], _run(sql, tables, table), flags, casts, table)


def _run(sql: str, tables: dict[str, pa.Table], table: Table) -> pa.Table:
    try:
        return query(sql, **tables)
    except (duckdb.Error, pa.ArrowException) as error:
        # Its text can hold a value of the data: only the kind of the error is told.
        raise InputError(
            f"types and checks can be evaluated on every row ({type(error).__name__})",
            where=f"table {table.name}",
            remedy="Look for arithmetic that leaves 64 bits, and for columns of a type that checks cannot read",
        ) from None


def check_columns(rows: pa.Table, table: Table) -> None:
    """Refuse a batch whose columns are not those of the definition.

    Names are shown only once some of them are known to be names: a file without a header has data in their place.
    """
    names, where = rows.column_names, f"table {table.name}"
    wanted = {**dict.fromkeys(table.key, "key"), **{c: "declared" for c in table.columns if c not in table.key}}
    read = [name for check in table.checks for name in check.columns]
    if not {*wanted, *read} & set(names):
        raise InputError(
            "a batch has the columns of its table, by name",
            where=where,
            got=f"{len(names)} columns, none of them known",
            remedy=f"Check that the file begins with a header that has {', '.join(table.key)}",
        )
    for name, what in wanted.items():
        if name not in names:
            raise InputError(
                f"the {what} column is in the batch", where=where, got=name, remedy=near(name, names, what="column")
            )
    lowered = [name.lower() for name in names]
    twice = sorted({name for name in names if lowered.count(name.lower()) > 1})
    if twice:
        raise InputError(
            "column names differ in more than upper and lower case", where=where, got=twice, remedy="Rename one of them"
        )
    reserved = sorted(name for name in names if name.startswith("_"))
    if reserved:
        raise InputError(
            "column names do not begin with an underscore; those are the platform's",
            where=where,
            got=reserved,
            remedy="Rename them",
        )
    for check in table.checks:
        for name in check.columns:
            if name not in names:
                raise DefinitionError(
                    "a check reads columns that exist",
                    where=f"{where}, check {check.title}",
                    got=name,
                    remedy=near(name, names, what="column"),
                )


def _decoded(rows: pa.Table) -> pa.Table:
    """Rows with dictionaries as the values they stand for."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(field.type.value_type))
    return rows


# checks as SQL ------------------------------------------------------------------------------------------------


def _numbered(flags: list[_Flag]) -> list[_Flag]:
    """Flags whose titles differ: two sets allowed in one column read alike."""
    seen: dict[str, int] = {}
    found = []
    for flag in flags:
        seen[flag.title] = place = seen.get(flag.title, 0) + 1
        title = flag.title if place == 1 else f"{flag.title} #{place}"
        found.append(_Flag(title, flag.severity, flag.tolerance, flag.sql))
    return found


def _type_flags(casts: Mapping[str, Cast], table: Table) -> list[_Flag]:
    return [
        _Flag(f"type({name}, {table.columns[name]})", "medium", 0.0, f"_spoiled_{i}")
        for i, (name, cast) in enumerate(casts.items())
        if cast.broken
    ]


def _key_flags(table: Table, casts: Mapping[str, Cast]) -> list[_Flag]:
    """The implied checks of a key, unless the definition has them itself and sets rows aside by them."""
    given = {(check.rule, check.columns) for check in table.checks if check.sets_aside}
    keys = tuple(table.key)
    implied = [Check.not_null(*keys), Check.unique(*keys)]
    return [_flag(check, table, casts) for check in implied if (check.rule, check.columns) not in given]


def _flag(check: Check, table: Table, casts: Mapping[str, Cast]) -> _Flag:
    where = f"table {table.name}, check {check.title}"
    columns = [_plain(name, casts[name]) for name in check.columns]
    if check.rule == "not_null":
        sql = " OR ".join(f"{c} IS NULL" for c in columns)
    elif check.rule == "in_set":
        _check_kind(check, "text" if isinstance(check.values[0], str) else _number_kind(check.values[0]), casts, where)
        sql = f"{columns[0]} NOT IN ({', '.join(_literal(v) for v in check.values)})"
    elif check.rule == "between":
        _check_kind(check, "number", casts, where)
        low, high = check.values
        sides = [f"{columns[0]} < {_literal(low)}"] if low is not None else []
        sides += [f"{columns[0]} > {_literal(high)}"] if high is not None else []
        sql = " OR ".join(sides)
    elif check.rule == "unique":
        complete = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        sql = f"({complete} AND row_number() OVER (PARTITION BY {', '.join(columns)} ORDER BY {_ROW}) > 1)"
    else:
        sql = f"NOT ({_expression(check, casts, where)})"
    return _Flag(check.title, check.severity, check.tolerance, f"({sql})")


def _plain(name: str, cast: Cast) -> str:
    """The column as checks see it: NaN is null, as in expressions."""
    return f"CASE WHEN isnan({quote(name)}) THEN NULL ELSE {quote(name)} END" if cast.floating else quote(name)


def _number_kind(value: object) -> Kind:
    return "bool" if isinstance(value, bool) else "number"


def _check_kind(check: Check, wanted: Kind, casts: Mapping[str, Cast], where: str) -> None:
    name = check.columns[0]
    if casts[name].kind != wanted:
        raise DefinitionError(
            f"{check.rule} compares a column with values of its own kind, here {wanted}",
            where=where,
            got=f"a column of kind {casts[name].kind or 'other'}",
            remedy=_declare([name], casts) or "Compare it with Check.sql",
        )


def _expression(check: Check, casts: Mapping[str, Cast], where: str) -> str:
    parsed = check.parsed
    assert parsed is not None
    kinds = {name: casts[name].kind for name in parsed.columns}
    try:
        parsed.check_columns(kinds, where=where)
    except DefinitionError as error:
        remedy = _declare(parsed.columns, casts) or error.remedy
        raise DefinitionError(error.rule, where=where, got=error.got, remedy=remedy) from error
    return parsed.to_sql(kinds=kinds)


def _declare(names: list[str] | tuple[str, ...], casts: Mapping[str, Cast]) -> str | None:
    """Remedy for a CSV column that is still text."""
    open_ = [name for name in names if casts[name].kind == "text" and not casts[name].declared]
    return f"Declare the type: columns={{{open_[0]!r}: 'float'}} (or int, bool, date, time)" if open_ else None


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return f"CAST({value} AS BIGINT)"
    if isinstance(value, float):
        text = repr(value)  # without an exponent it would be a decimal
        return text if "e" in text else text + "e0"
    return quote_text(str(value))


# the split ----------------------------------------------------------------------------------------------------


def _split(
    batch: pa.Table, scanned: pa.Table, flags: list[_Flag], casts: Mapping[str, Cast], table: Table
) -> Validation:
    total = batch.num_rows
    marks = [scanned.column(f"_flag_{i}").to_numpy(zero_copy_only=False).astype(bool) for i in range(len(flags))]
    aside = np.zeros(total, dtype=bool)
    results = []
    for flag, mark in zip(flags, marks, strict=True):
        failed = int(mark.sum())
        # A share and not a product: 0.29 * 100 is less than 29.
        halted = flag.halts and failed > 0 and failed / total > flag.tolerance
        results.append(CheckResult(flag.title, flag.severity, failed, total, halted))
        if flag.severity != "low":
            aside |= mark
    typed = pa.table(
        {name: (scanned if cast.declared else batch).column(name) for name, cast in casts.items()}
        | {_ROW: batch.column(_ROW)}
    )
    accepted = typed.filter(pa.array(~aside))
    positions = np.flatnonzero(aside)
    reasons = [
        [f.title for f, mark in zip(flags, marks, strict=True) if mark[p] and f.severity != "low"] for p in positions
    ]
    quarantined = pa.table({
        "row": pa.array(positions, pa.int64()),
        "checks": pa.array(reasons, pa.list_(pa.string())),
        "original": _as_json(batch.take(pa.array(positions, pa.int64())).drop_columns([_ROW]), table),
    })  # fmt: skip
    if accepted.num_rows + quarantined.num_rows != total or scanned.num_rows != total:
        raise InternalError("rows in = accepted + quarantined", where="validation", got=total)
    return Validation(accepted, quarantined, results)


def _as_json(rows: pa.Table, table: Table) -> pa.ChunkedArray:
    """Each row as one JSON object; what JSON has no number for (NaN, infinities) is written as text."""
    if rows.num_rows == 0:
        return pa.chunked_array([pa.array([], pa.string())])
    parts = []
    for field in rows.schema:
        value = quote(field.name)
        if pa.types.is_floating(field.type):
            value = f"CASE WHEN isfinite({value}) THEN to_json({value}) ELSE to_json(CAST({value} AS VARCHAR)) END"
        parts.append(f"{quote_text(field.name)}, {value}")
    found = _run(
        f"SELECT CAST(json_object({', '.join(parts)}) AS VARCHAR) AS original FROM rows", {"rows": rows}, table
    )
    return pc.cast(found.column("original"), pa.string())
