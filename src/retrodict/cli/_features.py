"""What the feature commands share: the features there are, who reads them, and what the Tab key offers of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from retrodict.core.errors import NotFoundError, near

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features.definitions import FeatureView
    from retrodict.features.derived import Derived
    from retrodict.features.plan import FeatureSet
    from retrodict.workspace import Workspace

__all__ = [
    "defined_features",
    "defined_views",
    "entities",
    "feature_names",
    "features_option",
    "find_feature",
    "models_reading",
    "request_types",
    "sources",
    "source_schemas",
    "views",
]


def defined_features(project: Workspace) -> list[FeatureView | Derived]:
    """Every view and derived function of the definitions, also those that stand only in a model; views first."""
    from retrodict.features.definitions import FeatureView
    from retrodict.features.derived import Derived
    from retrodict.models.definitions import Model

    own: list[FeatureView | Derived] = [*project.definitions.of(FeatureView), *project.definitions.of(Derived)]
    found = {each.name: each for each in own}
    for model in project.definitions.of(Model):
        for listed in model.features:
            if isinstance(listed, FeatureView | Derived):
                found.setdefault(listed.name, listed)
    return sorted(found.values(), key=lambda each: not isinstance(each, FeatureView))


def defined_views(project: Workspace) -> list[FeatureView]:
    """Every view of the definitions."""
    from retrodict.features.definitions import FeatureView

    return [each for each in defined_features(project) if isinstance(each, FeatureView)]


def find_feature(project: Workspace, name: str) -> FeatureView | Derived:
    """View or derived function by name; the error has near names."""
    known = {each.name: each for each in defined_features(project)}
    if name not in known:
        raise NotFoundError(
            "the view or derived function is defined",
            where="definitions",
            got=name,
            remedy=near(name, known, what="view"),
        )
    return known[name]


def models_reading(project: Workspace, name: str) -> list[str]:
    """Names of the defined models that list a view or derived function."""
    from retrodict.models.definitions import Model

    return [model.name for model in project.definitions.of(Model) if name in [each.name for each in model.features]]


def source_schemas(project: Workspace, features: FeatureSet) -> dict[str, pa.Schema]:
    """Schema of every table of a feature set that holds rows, by table."""
    tables = {source.table.name for source in features.sources.values()}
    return {name: project.tables.schema(name) for name in sorted(tables) if project.tables.history(name)}


def request_types(features: FeatureSet, schemas: Mapping[str, pa.Schema]) -> dict[str, pa.DataType]:
    """Type that a column of a spine or request has to have, where something says it: key, own event, derived input."""
    import pyarrow as pa

    forms = {"time": pa.timestamp("us", "UTC"), "text": pa.string(), "number": pa.float64()}
    found: dict[str, pa.DataType] = {}
    for function in features.derived:
        for name in function.inputs:
            if name not in features.columns:
                form = "time" if name in function.times else "text" if name in function.texts else "number"
                found[name] = forms[form]
    for plan in features.views:
        schema = schemas.get(plan.source.table.name)
        if schema is None:
            continue
        pairs = [*zip(plan.request_keys, plan.keys, strict=True), *((name, name) for name in plan.current_columns)]
        found |= {asked: schema.field(own).type for asked, own in pairs if own in schema.names}
    return found


def features_option(context: click.Context, option: click.Parameter, value: str) -> list[str]:
    """Callback of ``--features``: names with commas between them."""
    del context, option
    return [name.strip() for name in value.split(",") if name.strip()]


# names for the Tab key ------------------------------------------------------------------------------------------------


def views(project: Workspace) -> list[str]:
    """Names of views and derived functions."""
    return [each.name for each in defined_features(project)]


def feature_names(project: Workspace) -> list[str]:
    """Views, and their features as ``view.feature``."""
    found: list[str] = []
    for each in defined_features(project):
        own: Sequence[Any] = each.feature_names if hasattr(each, "feature_names") else each.outputs
        found += [each.name, *(f"{each.name}.{name}" for name in own)]
    return found


def sources(project: Workspace) -> list[str]:
    """Names of the sources that views read."""
    return [view.source.name for view in defined_views(project)]


def entities(project: Workspace) -> list[str]:
    """Names of the entities of views."""
    return [view.entity.name for view in defined_views(project)]
