"""Pandera's schemas in one plain shape, read from its objects (any of its frame libraries) or from what it writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodict.core.errors import InputError, MissingExtraError
from retrodict.data.interchange.imported import text_of

_WHERE = "Pandera schema"
_REMEDY = "Give a DataFrameSchema, a DataFrameModel, or what their to_yaml and to_json write"
_CUSTOM = "a check with a function of its own; say it with sql, or as a derived feature"
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
class SchemaPart:
    """A column or the frame of a schema, whether it is an object or the mapping of a file."""

    source: Any

    def entry(self, name: str, default: Any = None) -> Any:
        """An entry of a mapping, or an attribute of an object."""
        if isinstance(self.source, Mapping):
            return self.source.get(name, default)
        return getattr(self.source, name, default)

    @property
    def present(self) -> bool:
        """Whether a column of this very name is in every batch."""
        return bool(self.entry("required", True)) and not self.entry("regex", False)

    @property
    def has_default(self) -> bool:
        """Whether nulls of a column are filled; pandas writes NaN where they are not."""
        value = self.entry("default")
        return value is not None and value == value  # noqa: PLR0124

    @property
    def checks(self) -> list[Called]:
        """Its checks."""
        return [check if isinstance(check, Called) else _called(check) for check in self.entry("checks") or ()]

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Columns of a frame that never repeat together."""
        unique = self.entry("unique") or ()
        groups = [unique] if isinstance(unique, str) or all(isinstance(name, str) for name in unique) else unique
        return [(group,) if isinstance(group, str) else tuple(map(str, group)) for group in groups if group]


def read_schema(schema: Any) -> tuple[SchemaPart, dict[str, SchemaPart], str]:
    """Read a schema in any of its forms: the frame, its columns by name, and "pandas" or "polars"."""
    body = _parsed(schema) if isinstance(schema, str | Path) else schema
    if isinstance(body, Mapping):
        body = _normal(body)
        flavour = f"{body.get('schema_type', '')} {body.get('api', '')}"
    else:
        body = body.to_schema() if hasattr(body, "to_schema") else body  # a DataFrameModel
        flavour = type(body).__module__
    frame = SchemaPart(body)
    columns = frame.entry("columns")
    if not isinstance(columns, Mapping) or frame.entry("strict") is None:
        raise InputError("a schema must be one of a frame", where=_WHERE, got=type(body).__name__, remedy=_REMEDY)
    parts = {str(name): SchemaPart(column) for name, column in columns.items()}
    return frame, parts, "polars" if "polars" in flavour else "pandas"


def _called(check: Any) -> Called:
    name = str(getattr(check, "name", None) or "check")
    arguments = dict(getattr(check, "statistics", None) or {})
    unmapped = _GROUPED if getattr(check, "groupby", None) is not None else None
    # A function of the user's may bear the name of a built-in; built-ins are dispatched by the kind of frame.
    if type(getattr(check, "_check_fn", None)).__name__ != "Dispatcher" or not arguments:
        unmapped = unmapped or _CUSTOM
    return Called(name, arguments, bool(getattr(check, "ignore_na", True)),
                  bool(getattr(check, "raise_warning", False)), unmapped)  # fmt: skip


# -- files -------------------------------------------------------------------------------------------------------------


def _parsed(source: str | Path) -> Any:
    try:
        text = text_of(source)
        return json.loads(text) if text.lstrip().startswith("{") else _yaml(text)
    except (OSError, ValueError) as error:
        raise InputError(
            "a schema must be text or a file of valid JSON or YAML", where=_WHERE, got=type(error).__name__,
            remedy=_REMEDY,
        ) from error  # fmt: skip


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "pandera", needed_for="a schema in YAML") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError from error


def _normal(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping of a file with columns by name, each with all its checks in one place."""
    kind, columns = body.get("schema_type", "dataframe"), body.get("columns")
    if "columns" not in body or "dataframe" not in str(kind):
        raise InputError("a schema must be one of a frame, with columns", where=_WHERE, got=kind, remedy=_REMEDY)
    if isinstance(columns, list):  # names that are no texts
        columns = {str(column.get("name")): column for column in columns}
    columns = columns or {}
    if not isinstance(columns, Mapping) or not all(isinstance(c, Mapping | None) for c in columns.values()):
        raise InputError("columns must be mappings by name", where=_WHERE, got=type(columns).__name__, remedy=_REMEDY)
    columns = {name: {**(column or {}), "checks": _checks_of(column or {})} for name, column in columns.items()}
    return {"strict": False, **body, "columns": columns, "checks": list(_called_in(body.get("checks")))}


def _checks_of(column: Mapping[str, Any]) -> list[Called]:
    """Some versions of Pandera write the checks of a column among its fields."""
    flat = {name: value for name, value in column.items() if name not in _FIELDS}
    return [*_called_in(column.get("checks")), *_called_in(flat)]


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
