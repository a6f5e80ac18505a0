"""Schemas of Pandera, for pandas and for Polars: as objects, and as the YAML or JSON that ``pandera.io`` writes.

Both forms are first read into one plain shape (:mod:`._pandera_schemas`), so that what is mapped is said once and text
needs no Pandera. The way back, ``to_pandera``, makes a schema for Polars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from retrodict.data.checks import Check, Severity
from retrodict.data.interchange._pandera_export import to_pandera
from retrodict.data.interchange._pandera_schemas import Called, SchemaPart, read_schema
from retrodict.data.interchange._patterns import literal_pattern, whole_pattern
from retrodict.data.interchange._types import word_of, zoned
from retrodict.data.interchange._values import contains_checks, plain, set_checks, value_checks
from retrodict.data.interchange.imported import Collected, Imported, Refused

__all__ = ["from_pandera", "to_pandera"]

_ALIASES = {
    "eq": "equal_to", "ne": "not_equal_to", "gt": "greater_than", "ge": "greater_than_or_equal_to",
    "lt": "less_than", "le": "less_than_or_equal_to", "between": "in_range",
}  # fmt: skip
_PARTS = {
    "index": "tables have columns only; make the index a column",
    "add_missing_columns": "columns are not added; a batch has those of its table",
    "parsers": "a parser changes values; a batch is judged as it is",
    "ordered": "columns have no order here",
}


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
    frame, columns, flavour = read_schema(schema)
    reader = _Reader(frame, columns, flavour, severity)
    for part, reason in _PARTS.items():
        if frame.entry(part):
            reader.collected.refused(part, reason)
    for name, column in columns.items():
        if column.entry("regex", False):
            reader.collected.refused(f"column {name}", "a pattern of column names; write its checks for each column")
        elif not column.present:
            reader.collected.refused(
                f"column {name}", "the column may be missing; a check reads columns that are in every batch"
            )
        else:
            reader.read_column(name, column)
    reader.read_frame()
    return Imported(tuple(reader.collected.checks), reader.types, reader.key(), tuple(reader.collected.unmapped))


class _Reader:
    """One schema being read."""

    def __init__(self, frame: SchemaPart, columns: Mapping[str, SchemaPart], flavour: str, severity: Severity) -> None:
        self._frame, self._columns, self._flavour, self._severity = frame, columns, flavour, severity
        self._present = {name: column for name, column in columns.items() if column.present}
        self.collected = Collected()
        self.types: dict[str, str] = {}

    def _add(self, make: Callable[..., Check], *arguments: str) -> None:
        self.collected.checks.append(make(*arguments, severity=self._severity))

    def read_column(self, name: str, column: SchemaPart) -> None:
        """Add the type of a column and its checks."""
        kind, nullable = column.entry("dtype") or self._frame.entry("dtype"), bool(column.entry("nullable", False))
        if kind is not None:
            self._read_type(name, str(kind), bool(column.entry("coerce", False) or self._frame.entry("coerce", False)))
        if not nullable:
            self._add(Check.not_null, name)
        if column.entry("unique", False):
            self._add(Check.unique, name)
            if nullable:
                self.collected.partly(f"unique({name})", "only nulls: here a null repeats nothing")
        if column.has_default:
            self.collected.partly(f"default({name})", "nulls are not filled; a batch is judged as it is")
        if column.entry("parsers"):
            self.collected.refused(f"parsers({name})", _PARTS["parsers"])
        for called in column.checks:
            title, make = f"{called.name}({name})", partial(self._checks, called, name)
            if self.collected.add(title, make) and nullable and not called.ignores_nulls:
                self.collected.partly(title, "only nulls: here they pass, and not_null is the check for them")

    def _read_type(self, name: str, kind: str, coerced: bool) -> None:
        word = word_of(kind)
        if word is None:
            self.collected.refused(f"dtype({name})", f"{kind} is of none of bool, date, float, int, string, time")
            return
        if word == "time" and not zoned(kind):
            self.collected.partly(f"dtype({name})", "its times have no zone: declare the column as 'time(Zone/City)'")
        else:
            self.types[name] = word
        if not coerced:
            self._add(Check.has_type, name, word)

    def _checks(self, called: Called, column: str) -> list[Check]:
        if called.reason is not None:
            raise Refused(called.reason)
        how = {"severity": "low" if called.warns else self._severity}
        return _checks(_ALIASES.get(called.name, called.name), column, called.arguments, how, self._flavour)

    def read_frame(self) -> None:
        """Add what is about several columns."""
        strict, names = self._frame.entry("strict", False), list(self._present)
        if strict is True and len(names) < len(self._columns):
            self.collected.refused("strict", "it has columns that may be missing or are named by a pattern")
        elif strict is True and names:
            self._add(Check.columns_match, *names)
        elif undeclared := [name for name in names if name not in self.types]:
            self._add(Check.columns_exist, *undeclared)
        if strict == "filter":
            self.collected.refused("strict", "columns are not dropped; a batch is stored with all it has")
        for group in self._frame.groups:
            title = f"unique({', '.join(group)})"
            if not set(group) <= self._present.keys():
                self.collected.refused(title, "one of its columns may be missing or is named by a pattern")
                continue
            self._add(Check.unique, *group)
            if any(self._present[name].entry("nullable", False) for name in group):
                self.collected.partly(title, "only nulls: here a row with a null repeats nothing")
        for called in self._frame.checks:
            self.collected.refused(called.name, called.reason or "a check of the whole frame; write it for each column")

    def key(self) -> tuple[str, ...]:
        """Columns that may serve as the key, where there is one choice."""
        filled = {name: column for name, column in self._present.items() if not column.entry("nullable", False)}
        groups = [group for group in self._frame.groups if set(group) <= filled.keys()]
        groups += [(name,) for name, column in filled.items() if column.entry("unique", False)]
        return groups[0] if len(groups) == 1 else ()


def _checks(kind: str, column: str, options: Mapping[str, Any], how: Mapping[str, Any], flavour: str) -> list[Check]:
    """Checks of one built-in; its only argument may have lost its name in a file."""
    only = next(iter(options.values()), None)

    match kind:
        case "equal_to" | "not_equal_to":
            return set_checks(column, [only], how, negated=kind == "not_equal_to")
        case "greater_than" | "greater_than_or_equal_to":
            return value_checks(column, only, None, how, strict_low=kind == "greater_than")
        case "less_than" | "less_than_or_equal_to":
            return value_checks(column, None, only, how, strict_high=kind == "less_than")
        case "in_range":
            return value_checks(
                column, options.get("min_value"), options.get("max_value"), how,
                strict_low=not options.get("include_min", True), strict_high=not options.get("include_max", True),
            )  # fmt: skip
        case "isin" | "notin":
            return set_checks(column, only, how, negated=kind == "notin")
        case "unique_values_eq":
            return [*set_checks(column, only, how, negated=False), *contains_checks(column, only, how)]
        case "str_contains" | "str_matches" | "str_startswith" | "str_endswith":
            return [Check.matches(column, _pattern(kind, getattr(only, "pattern", str(only)), flavour), **how)]
        case "str_length":
            return [Check.length(column, *_lengths(options), **how)]
        case "two_sample_ttest" | "one_sample_ttest":
            raise Refused("a hypothesis test; mean, stable and drift compare numbers and distributions")
    raise Refused("a check with code of its own; say it with sql, or as a derived feature")


def _pattern(kind: str, text: str, flavour: str) -> str:
    if kind in ("str_startswith", "str_endswith"):
        return literal_pattern(text, at="start" if kind == "str_startswith" else "end")
    if kind == "str_matches" and flavour == "pandas":
        return whole_pattern(text, starts="first")
    # For Polars Pandera only writes ^ before the pattern, which then binds to its first branch alone.
    return whole_pattern(text if kind == "str_contains" or text.startswith("^") else f"^{text}")


def _lengths(options: Mapping[str, Any]) -> tuple[Any, Any]:
    exact = options.get("exact_value", options.get("value"))
    if exact is not None:
        return plain(exact), plain(exact)
    return plain(options.get("min_value")), plain(options.get("max_value"))
