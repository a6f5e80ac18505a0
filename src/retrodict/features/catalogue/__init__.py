"""What the features of a project are: described, searched, compared with what is deployed, checked against tables."""

from retrodict.features.catalogue.description import (
    ColumnUse,
    FeatureFacts,
    describe,
    lineage,
    search,
    select,
    service_features,
)
from retrodict.features.catalogue.tables import (
    check_schema,
    check_sources,
    choose_features,
    declared_kinds,
    declared_schemas,
    newest_versions,
    source_schemas,
)

__all__ = [
    "ColumnUse",
    "FeatureFacts",
    "check_schema",
    "check_sources",
    "choose_features",
    "declared_kinds",
    "declared_schemas",
    "describe",
    "lineage",
    "newest_versions",
    "search",
    "select",
    "service_features",
    "source_schemas",
]
