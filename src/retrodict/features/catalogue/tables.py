"""The tables that features read: their newest versions, their schemas, and whether they have what views need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.core.expressions import Expression, parse
from retrodict.core.kinds import arrow_type, expression_kind, kind_of
from retrodict.data.definitions import Table
from retrodict.data.sources import HasName
from retrodict.features.catalogue.description import FeatureFacts, describe, select, view_columns
from retrodict.features.definitions import FeatureView
from retrodict.features.derived import Derived
from retrodict.features.facts.columns import compute
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores.tables.base import TableStore
from retrodict.workspace import Workspace

__all__ = [
    "check_schema",
    "check_sources",
    "choose_features",
    "declared_kinds",
    "declared_schemas",
    "newest_versions",
    "source_schemas",
]

_NUMBERS = ("bool", "int", "float", "null")


def newest_versions(tables: TableStore, names: Iterable[str], *, where: str) -> dict[str, int]:
    """Newest version of every table by name.

    Parameters
    ----------
    tables : TableStore
    names : iterable of str
    where : str
        What reads them, for the error: ``"features"``, ``"model late_arrival"``.

    Raises
    ------
    InputError
        If a table holds no rows yet.
    """
    versions = {}
    for name in names:
        history = tables.history(name)
        if not history:
            raise InputError(
                "every table that is read must hold rows", where=where, got=name,
                remedy=f"Fill it with: retrodict ingest {name} FILE",
            )  # fmt: skip
        versions[name] = history[-1].version
    return versions


def source_schemas(workspace: Workspace, features: FeatureSet) -> dict[str, pa.Schema]:
    """Schema of every table of a feature set that holds rows, by table."""
    tables = workspace.tables
    return {name: tables.schema(name) for name in features.tables if tables.history(name)}


def declared_kinds(table: HasName) -> dict[str, str]:
    """Kinds of the columns that a table declares, by column; none of what is no :class:`Table`."""
    if not isinstance(table, Table):
        return {}
    types = {name: table.type_of(name) for name in table.columns}
    return {name: type_.kind for name, type_ in types.items() if type_ is not None}


def declared_schemas(workspace: Workspace, features: FeatureSet) -> dict[str, pa.Schema]:
    """Schema of every table of a feature set by table: of its rows, or the columns it declares if it has none yet."""
    schemas = source_schemas(workspace, features)
    for source in features.sources.values():
        if source.table.name not in schemas:
            kinds = declared_kinds(source.table)
            schemas[source.table.name] = pa.schema({name: arrow_type(kind) for name, kind in kinds.items()})
    return schemas


def check_sources(workspace: Workspace, features: FeatureSet) -> None:
    """Check that the tables of a feature set that hold rows have what its views read.

    Raises
    ------
    DefinitionError
        As :func:`~retrodict.features.catalogue.check_schema`.
    """
    schemas = source_schemas(workspace, features)
    for plan in features.views:
        if plan.source.table.name in schemas:
            check_schema(plan, schemas[plan.source.table.name])


def choose_features(
    workspace: Workspace, defined: Sequence[FeatureView | Derived], names: Sequence[str]
) -> tuple[FeatureSet, list[str]]:
    """Feature set that computes the named features, and their columns, checked against the tables.

    Parameters
    ----------
    workspace : Workspace
    defined : sequence of FeatureView or Derived
        Those to choose from.
    names : sequence of str
        As for :func:`~retrodict.features.catalogue.select`.

    Raises
    ------
    InputError
        If a name is unknown, or a table holds no rows yet.
    DefinitionError
        If a table lacks what a view reads.
    """
    features, columns = select(defined, names)
    newest_versions(workspace.tables, features.tables, where="features")
    check_sources(workspace, features)
    return features, columns


def check_schema(plan: ViewPlan, schema: pa.Schema) -> None:
    """Check that a table has what a view reads, in types that its aggregates take.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    schema : pyarrow.Schema
        Columns of its source's table.

    Raises
    ------
    DefinitionError
        That names view, feature and column, with the nearest names of an unknown one.
    """
    columns = {field.name: field.type for field in schema}
    kinds = {name: kind_of(type_) for name, type_ in columns.items()}
    source = f"{plan.where}, source {plan.source.name!r}"
    for column, role in view_columns(plan.view):
        _exists(column, columns, f"{source}, {role}", plan)
        _fits(kinds[column], columns[column], role, f"{source}, {role} {column!r}")
    for text in (plan.source.where, plan.source.deleted):
        if text is not None:
            _check_condition(parse(text), kinds, source)
    for facts in describe(plan.view):
        where = f"{plan.where}, feature {facts.name!r}"
        for column, role in facts.columns:
            _exists(column, columns, where, plan)
            if role == "value":
                _takes(facts, column, kinds[column], columns[column], where)
        for text in facts.computed:
            _check_condition(plan.computed[text], kinds, where)
            column = compute({text: plan.computed[text]}, schema.empty_table(), where=where)[text]
            if text == facts.fields.get("column"):
                _takes(facts, text, kind_of(column.type), column.type, where)
        for text in (facts.fields.get("where"), facts.fields["column"] if facts.takes == "condition" else None):
            if text is not None:
                _check_condition(parse(text), kinds, where)


def _exists(column: str, columns: Mapping[str, Any], where: str, plan: ViewPlan) -> None:
    rule = f"the table {plan.source.table.name!r} must have the columns that a view reads"
    check_known(column, columns, rule, where=where, what="column", error=DefinitionError)


def _fits(kind: str, type_: pa.DataType, role: str, where: str) -> None:
    allowed = {
        "key": ("text", "int", "bool", "time", "date", "null"),
        "event time": ("time", "int", "null"),
        "known at": ("time", "int", "null"),
        "sequence": ("int", "text", "time", "null"),
    }.get(role)
    if allowed is not None and kind not in allowed:
        raise DefinitionError(
            f"a column read as {role} must hold {', '.join(allowed[:-1])}",
            where=where,
            got=str(type_),
            remedy="Name another column, or declare its type in Table(columns={…}) and ingest again",
        )


def _takes(facts: FeatureFacts, column: str, kind: str, type_: pa.DataType, where: str) -> None:
    op = facts.fields["aggregate"]
    numbers, lists = facts.takes.startswith("numbers"), facts.takes == "lists"
    fits = kind in _NUMBERS or (kind == "time" and facts.takes.endswith("times")) if numbers else kind != "other"
    if lists or kind == "list":
        fits = lists and kind in {"list", "null"}
    if op == "histogram" and kind == "float":
        fits = False
    if not fits:
        types = {"anything": "numbers, booleans, text, times or dates", "lists": "lists of numbers"}
        types["histogram"] = "text, whole numbers or booleans"
        raise DefinitionError(
            f"{op} must take {types.get(op) or types.get(facts.takes, facts.takes)}",
            where=f"{where}, column {column!r}",
            got=str(type_),
            remedy="Use latest() or agg.last for text, a condition in agg.share, or declare the column as a number"
            if numbers
            else "Name a column of another type",
        )


def _check_condition(expression: Expression, kinds: Mapping[str, str], where: str) -> None:
    expression.check_columns({name: expression_kind(kind) for name, kind in kinds.items()}, where=where)
    other = [column for column in expression.columns if kinds[column] in {"list", "other"}]
    if other:
        raise DefinitionError(
            "an expression must read numbers, booleans, text, times or dates",
            where=f"{where}, column {other[0]!r}",
            got=expression.text,
            remedy="Name another column",
        )
