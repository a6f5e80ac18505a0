"""Feature set of a model as some code object defines it, and its values from the project's online state.

Apart from ``loading``, so that the feature consumer, which scores nothing, need not load the engines that do.
"""

from __future__ import annotations

from retrodict.features.online import OnlineFeatures
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.project import Project, definitions_of

__all__ = ["feature_set_of", "online_features"]


def feature_set_of(project: Project, code: str, model: str) -> FeatureSet:
    """Feature set of a model by name, from the definitions that a code object holds."""
    return FeatureSet(definitions_of(project, code).get(Model, model).features)


def online_features(project: Project, features: FeatureSet) -> OnlineFeatures:
    """Reader of a feature set from the project's online state."""
    return OnlineFeatures(features, project.keys, partitions=project.config["features.partitions"])
