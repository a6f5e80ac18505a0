"""Features: defined once, computed alike for training, for a stream and for one request."""

from retrodict.features.definitions import (
    Aggregate,
    Entity,
    FeatureService,
    FeatureView,
    Latest,
    Window,
    agg,
    columns,
    latest,
)
from retrodict.features.derived import Derived, derived
from retrodict.features.labels import Label, Outcome
from retrodict.features.plan import FeatureSet

__all__ = [
    "Aggregate",
    "Derived",
    "Entity",
    "FeatureService",
    "FeatureSet",
    "FeatureView",
    "Label",
    "Latest",
    "Outcome",
    "Window",
    "agg",
    "columns",
    "derived",
    "latest",
]
