"""The tables that features read: their newest versions, their schemas, and whether they have what views need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from retrodict.core.errors import InputError
from retrodict.features.catalogue.description import select
from retrodict.features.catalogue.schema import check_schema
from retrodict.features.definitions import FeatureView
from retrodict.features.derived import Derived
from retrodict.features.plan import FeatureSet
from retrodict.stores.tables.base import TableStore
from retrodict.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_sources", "choose_features", "newest_versions", "source_schemas"]


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
