"""Pandera's schemas in one plain shape, read from its objects (any of its frame libraries) or from what it writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodict.core.errors import InputError, MissingExtraError

_WHERE = "Pandera schema"
_REMEDY = "Give a DataFrameSchema, a DataFrameModel, or what their to_yaml and to_json write"
_CUSTOM = "a check with a function of its own; say it with sql, or as a derived feature"
_PARSER = "a parser changes values; a batch is judged as it is"
_GROUPED = "a check of groups of rows; say it with by, or with where"
# What stands in a column of a file beside its checks.
_FIELDS = frozenset({
    "title", "description", "dtype", "nullable", "checks", "name", "unique", "coerce", "required", "regex", "default",
    "report_duplicates", "drop_invalid_rows", "alias", "metadata", "parsers",
})  # fmt: skip
_OPTIONS = frozenset({
    "check_name", "ignore_na", "raise_warning", "n_failure_cases", "groupby", "groups", "error", "name",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Called:
    """One check: its name and arguments; ``reason`` says why it cannot be mapped whatever it is."""

    name: str
    arguments: Mapping[str, Any]
    ignores_nulls: bool = True
    warns: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column."""

    name: str
    type: str | None
    nullable: bool
    unique: bool
    coerce: bool
    required: bool
    regex: bool
    has_default: bool
    checks: tuple[Called, ...]


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """One schema; ``unmapped`` are the parts of it that tables do not have, each with the reason."""

    columns: tuple[ColumnSpec, ...]
    checks: tuple[Called, ...]
    unique: tuple[tuple[str, ...], ...]
    strict: bool | str
    ordered: bool
    flavour: str
    unmapped: tuple[tuple[str, str], ...]


def read_schema(schema: Any) -> FrameSpec:
    """Read a schema in any of its forms."""
    if isinstance(schema, str | Path):
        return _of_mapping(_parsed(schema))
    if isinstance(schema, Mapping):
        return _of_mapping(schema)
    if hasattr(schema, "to_schema"):  # a DataFrameModel
        schema = schema.to_schema()
    if not isinstance(getattr(schema, "columns", None), Mapping) or not hasattr(schema, "strict"):
        raise InputError("a schema must be one of a frame", where=_WHERE, got=type(schema).__name__, remedy=_REMEDY)
    return _spec(schema, schema.columns, "polars" if "polars" in type(schema).__module__ else "pandas")


def _spec(schema: Any, columns: Mapping[Any, Any], flavour: str) -> FrameSpec:
    """The plain shape of an object, or of the mapping of a file."""
    return FrameSpec(
        tuple(_column(str(name), column, schema) for name, column in columns.items()),
        _called(_entry(schema, "checks")),
        _groups(_entry(schema, "unique")),
        _entry(schema, "strict", False),
        bool(_entry(schema, "ordered", False)),
        flavour,
        tuple(_unmapped_parts(schema, columns)),
    )


def _column(name: str, column: Any, schema: Any) -> ColumnSpec:
    kind = _entry(column, "dtype") or _entry(schema, "dtype")
    return ColumnSpec(
        name,
        None if kind is None else str(kind),
        bool(_entry(column, "nullable", False)),
        bool(_entry(column, "unique", False)),
        bool(_entry(column, "coerce", False) or _entry(schema, "coerce", False)),
        bool(_entry(column, "required", True)),
        bool(_entry(column, "regex", False)),
        not _is_missing(_entry(column, "default")),
        _called(_entry(column, "checks")),
    )


def _entry(source: Any, name: str, default: Any = None) -> Any:
    """An entry of a mapping, or an attribute of an object."""
    return source.get(name, default) if isinstance(source, Mapping) else getattr(source, name, default)


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN is how pandas says that there is no default  # noqa: PLR0124


def _called(checks: Iterable[Any] | None) -> tuple[Called, ...]:
    return tuple(check if isinstance(check, Called) else _called_of(check) for check in checks or ())


def _called_of(check: Any) -> Called:
    name = str(getattr(check, "name", None) or "check")
    arguments = dict(getattr(check, "statistics", None) or {})
    unmapped = _GROUPED if getattr(check, "groupby", None) is not None else None
    # A function of the user's may bear the name of a built-in; built-ins are dispatched by the kind of frame.
    if type(getattr(check, "_check_fn", None)).__name__ != "Dispatcher" or not arguments:
        unmapped = unmapped or _CUSTOM
    return Called(name, arguments, bool(getattr(check, "ignore_na", True)),
                  bool(getattr(check, "raise_warning", False)), unmapped)  # fmt: skip


def _groups(unique: Any) -> tuple[tuple[str, ...], ...]:
    if not unique:
        return ()
    if isinstance(unique, str):
        return ((unique,),)
    if all(isinstance(name, str) for name in unique):
        return (tuple(unique),)
    return tuple(tuple(map(str, group)) for group in unique)


def _unmapped_parts(schema: Any, columns: Mapping[Any, Any]) -> Iterable[tuple[str, str]]:
    if _entry(schema, "index") is not None:
        yield "index", "tables have columns only; make the index a column"
    if _entry(schema, "add_missing_columns"):
        yield "add_missing_columns", "columns are not added; a batch has those of its table"
    if _entry(schema, "parsers"):
        yield "parsers", _PARSER
    yield from ((f"parsers({name})", _PARSER) for name, column in columns.items() if _entry(column, "parsers"))


# -- files -------------------------------------------------------------------------------------------------------------


def _parsed(source: str | Path) -> Mapping[str, Any]:
    inline = isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{"))
    try:
        text = str(source) if inline else Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            "a schema must be a text file", where=_WHERE, got=type(error).__name__, remedy=_REMEDY
        ) from error
    if text.lstrip().startswith("{"):
        try:
            body = json.loads(text)
        except ValueError as error:
            raise InputError(
                "a schema must be valid JSON", where=_WHERE, got=type(error).__name__, remedy=_REMEDY
            ) from error
    else:
        body = _yaml(text)
    if not isinstance(body, Mapping):
        raise InputError("a schema must be a mapping", where=_WHERE, got=type(body).__name__, remedy=_REMEDY)
    return body


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "pandera", needed_for="a schema in YAML") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(
            "a schema must be valid YAML", where=_WHERE, got=type(error).__name__, remedy=_REMEDY
        ) from error


def _of_mapping(body: Mapping[str, Any]) -> FrameSpec:
    kind = body.get("schema_type", "dataframe")
    columns = body.get("columns")
    if "columns" not in body or "dataframe" not in str(kind):
        raise InputError("a schema must be one of a frame, with columns", where=_WHERE, got=kind, remedy=_REMEDY)
    if isinstance(columns, list):  # names that are no texts
        columns = {str(column.get("name")): column for column in columns}
    columns = columns or {}
    if not isinstance(columns, Mapping) or not all(isinstance(c, Mapping | None) for c in columns.values()):
        raise InputError("columns must be mappings by name", where=_WHERE, got=type(columns).__name__, remedy=_REMEDY)
    columns = {name: _with_checks(column or {}) for name, column in columns.items()}
    flavour = "polars" if "polars" in f"{kind} {body.get('api', '')}" else "pandas"
    return _spec({**body, "checks": tuple(_called_in(body.get("checks")))}, columns, flavour)


def _with_checks(column: Mapping[str, Any]) -> Mapping[str, Any]:
    """A column with all its checks in one place: some versions of Pandera write them among its fields."""
    flat = {name: value for name, value in column.items() if name not in _FIELDS}
    return {**column, "checks": (*_called_in(column.get("checks")), *_called_in(flat))}


def _called_in(checks: Any) -> Iterable[Called]:
    """Checks in any of the three shapes that Pandera's versions write."""
    if isinstance(checks, Mapping):
        checks = [{"options": {"check_name": name}, "value": value} for name, value in checks.items()]
    for entry in checks or ():
        options = dict(entry.get("options") or {})
        arguments = {key: value for key, value in entry.items() if key != "options"}
        inner = arguments.get("value")
        if len(arguments) == 1 and isinstance(inner, Mapping):
            options |= {key: value for key, value in inner.items() if key in _OPTIONS}
            options |= dict(inner.get("options") or {})
            arguments = {key: value for key, value in inner.items() if key not in _OPTIONS | {"options"}}
        unmapped = _GROUPED if options.get("groupby") is not None else None
        yield Called(str(options.get("check_name", "check")), arguments, bool(options.get("ignore_na", True)),
                     bool(options.get("raise_warning", False)), unmapped)  # fmt: skip
