"""Schemas of Pandera, for pandas and for Polars: as objects, and as the YAML or JSON that ``pandera.io`` writes.

Both forms are first read into one plain shape (:mod:`._pandera_schemas`), so that what is mapped is said once and text
needs no Pandera. The way back, ``to_pandera``, makes a schema for Polars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrodict.data.checks import Check, Severity
from retrodict.data.interchange._pandera_export import to_pandera
from retrodict.data.interchange._pandera_schemas import Called, ColumnSpec, FrameSpec, read_schema
from retrodict.data.interchange._patterns import literal_pattern, whole_pattern
from retrodict.data.interchange._types import word_of, zoned
from retrodict.data.interchange._values import (
    contains_checks,
    equals,
    plain,
    set_checks,
    time_or_text,
    value_checks,
)
from retrodict.data.interchange.imported import Collected, Imported, Refused

__all__ = ["from_pandera", "to_pandera"]

_ALIASES = {
    "eq": "equal_to", "ne": "not_equal_to", "gt": "greater_than", "ge": "greater_than_or_equal_to",
    "lt": "less_than", "le": "less_than_or_equal_to", "between": "in_range",
}  # fmt: skip


def from_pandera(schema: Any, *, severity: Severity = "medium") -> Imported:
    """Read a schema.

    Parameters
    ----------
    schema : DataFrameSchema, DataFrameModel, mapping, str or path
        An object of Pandera (for pandas or Polars), or what its ``to_yaml`` and ``to_json`` write: as a mapping, as
        text, or as a file. YAML needs PyYAML, which comes with the extra ``pandera``; the rest needs nothing.
    severity : {"critical", "high", "medium", "low"}, default "medium"
        Severity of every check; ``raise_warning`` makes it low.

    Returns
    -------
    Imported

    Raises
    ------
    InputError
        If it is no schema of a frame.
    MissingExtraError
        For YAML without PyYAML.

    Examples
    --------
    >>> found = from_pandera({"columns": {"delay": {"dtype": "float64", "nullable": True, "in_range": {
    ...     "min_value": 0, "max_value": 9, "include_max": False}}}})
    >>> found.columns, [check.title for check in found.checks]
    ({'delay': 'float'}, ['has_type(delay, type=float)', 'sql(delay >= 0 and delay < 9)'])
    """
    spec = read_schema(schema)
    collected = Collected()
    columns: dict[str, str] = {}
    for part, reason in spec.unmapped:
        collected.refused(part, reason)
    for column in spec.columns:
        if column.regex:
            collected.refused(f"column {column.name}", "a pattern of column names; write its checks for each column")
        elif not column.required:
            collected.refused(
                f"column {column.name}", "the column may be missing; a check reads columns that are in every batch"
            )
        else:
            _read_column(column, spec, severity, collected, columns)
    _read_frame(spec, severity, collected, columns)
    return Imported(tuple(collected.checks), columns, _candidate(spec), tuple(collected.unmapped))


def _read_column(
    column: ColumnSpec, spec: FrameSpec, severity: Severity, collected: Collected, columns: dict[str, str]
) -> None:
    name = column.name
    if column.type is not None:
        word = word_of(column.type)
        if word is None:
            collected.refused(f"dtype({name})", f"{column.type} is of none of bool, date, float, int, string, time")
        elif word == "time" and not zoned(column.type):
            collected.partly(f"dtype({name})", "its times have no zone: declare the column as 'time(Zone/City)'")
        else:
            columns[name] = word
        if word is not None and not column.coerce:
            collected.checks.append(Check.has_type(name, word, severity=severity))
    if not column.nullable:
        collected.checks.append(Check.not_null(name, severity=severity))
    if column.unique:
        collected.checks.append(Check.unique(name, severity=severity))
        if column.nullable:
            collected.partly(f"unique({name})", "only nulls: here a null repeats nothing")
    if column.has_default:
        collected.partly(f"default({name})", "nulls are not filled; a batch is judged as it is")
    for called in column.checks:
        _read_check(column, called, spec, severity, collected)


def _read_check(column: ColumnSpec, called: Called, spec: FrameSpec, severity: Severity, collected: Collected) -> None:
    title = f"{called.name}({column.name})"
    how: dict[str, Any] = {"severity": "low" if called.warns else severity}

    def make() -> list[Check]:
        if called.reason is not None:
            raise Refused(called.reason)
        return _checks(_ALIASES.get(called.name, called.name), column.name, called.arguments, how, spec.flavour)

    if collected.add(title, make) and column.nullable and not called.ignores_nulls:
        collected.partly(title, "only nulls: here they pass, and not_null is the check for them")


def _checks(kind: str, column: str, options: Mapping[str, Any], how: Mapping[str, Any], flavour: str) -> list[Check]:
    """Checks of one built-in; its only argument may have lost its name in a file."""
    only = next(iter(options.values()), None)

    match kind:
        case "equal_to" | "not_equal_to":
            return equals(column, only, how, negated=kind == "not_equal_to")
        case "greater_than" | "greater_than_or_equal_to":
            return value_checks(column, time_or_text(only), None, how, strict_low=kind == "greater_than")
        case "less_than" | "less_than_or_equal_to":
            return value_checks(column, None, time_or_text(only), how, strict_high=kind == "less_than")
        case "in_range":
            return value_checks(
                column, time_or_text(options.get("min_value")), time_or_text(options.get("max_value")), how,
                strict_low=not options.get("include_min", True), strict_high=not options.get("include_max", True),
            )  # fmt: skip
        case "isin" | "notin":
            return set_checks(column, only, how, negated=kind == "notin")
        case "unique_values_eq":
            return [*set_checks(column, only, how, negated=False), *contains_checks(column, only, how)]
        case "str_contains":
            return [Check.matches(column, whole_pattern(_pattern(only)), **how)]
        case "str_matches":
            return [Check.matches(column, _matched(_pattern(only), flavour), **how)]
        case "str_startswith":
            return [Check.matches(column, literal_pattern(str(only), at="start"), **how)]
        case "str_endswith":
            return [Check.matches(column, literal_pattern(str(only), at="end"), **how)]
        case "str_length":
            return [Check.length(column, *_lengths(options), **how)]
        case "two_sample_ttest" | "one_sample_ttest":
            raise Refused("a hypothesis test; mean, stable and drift compare numbers and distributions")
    raise Refused("a check with code of its own; say it with sql, or as a derived feature")


def _pattern(value: Any) -> str:
    return str(getattr(value, "pattern", value))


def _matched(pattern: str, flavour: str) -> str:
    # For Polars Pandera only writes ^ before the pattern, which then binds to its first branch alone.
    if flavour == "polars":
        return whole_pattern(pattern if pattern.startswith("^") else f"^{pattern}")
    return whole_pattern(pattern, starts="first")


def _lengths(options: Mapping[str, Any]) -> tuple[Any, Any]:
    exact = options.get("exact_value", options.get("value"))
    if exact is not None:
        return plain(exact), plain(exact)
    return plain(options.get("min_value")), plain(options.get("max_value"))


def _read_frame(spec: FrameSpec, severity: Severity, collected: Collected, columns: Mapping[str, str]) -> None:
    names = [column.name for column in spec.columns if column.required and not column.regex]
    exact = len(names) == len(spec.columns)
    if spec.strict is True and not exact:
        collected.refused("strict", "it has columns that may be missing or are named by a pattern")
    elif spec.strict is True and names:
        collected.checks.append(Check.columns_match(*names, severity=severity))
    elif undeclared := [name for name in names if name not in columns]:
        collected.checks.append(Check.columns_exist(*undeclared, severity=severity))
    if spec.strict == "filter":
        collected.refused("strict", "columns are not dropped; a batch is stored with all it has")
    if spec.ordered:
        collected.refused("ordered", "columns have no order here")
    for group in spec.unique:
        if not set(group) <= set(names):
            collected.refused(
                f"unique({', '.join(group)})", "one of its columns may be missing or is named by a pattern"
            )
            continue
        collected.checks.append(Check.unique(*group, severity=severity))
        if any(column.nullable for column in spec.columns if column.name in group):
            collected.partly(f"unique({', '.join(group)})", "only nulls: here a row with a null repeats nothing")
    for called in spec.checks:
        collected.refused(called.name, called.reason or "a check of the whole frame; write it for each column")


def _candidate(spec: FrameSpec) -> tuple[str, ...]:
    present = {column.name for column in spec.columns if column.required and not column.regex and not column.nullable}
    groups = [group for group in spec.unique if set(group) <= present]
    groups += [(column.name,) for column in spec.columns if column.unique and column.name in present]
    return groups[0] if len(groups) == 1 else ()
