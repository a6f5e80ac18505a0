"""Feature set of a model as some code object defines it.

Apart from ``loading``, so that the feature consumer, which scores nothing, need not load the engines that do.
"""

from __future__ import annotations

from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.project import Project, definitions_of

__all__ = ["feature_set_of"]


def feature_set_of(project: Project, code: str, model: str) -> FeatureSet:
    """Feature set of a model by name, from the definitions that a code object holds."""
    return FeatureSet(definitions_of(project, code).get(Model, model).features)
