"""Feature sets of models as their own code objects define them, and those of everything that decides.

Apart from the engines: the process that keeps features current scores nothing, and need not load what does.
"""

from __future__ import annotations

from contextlib import suppress

from retrodict.core.errors import NotFoundError
from retrodict.features.catalogue.changes import Reader
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.registry.deployments import current
from retrodict.workspace import Workspace, definitions_of

__all__ = ["feature_set_of", "readers_in_force", "served_feature_sets"]


def feature_set_of(workspace: Workspace, code: str, model: str) -> FeatureSet:
    """Feature set of a model by name, from the definitions that a code object holds."""
    return FeatureSet(definitions_of(workspace, code).get(Model, model).features)


def readers_in_force(workspace: Workspace) -> list[Reader]:
    """Models that decide, and what decided before them, by policy."""
    readers = []
    for policy, revision in sorted(current(workspace).items()):
        deployment = revision.deployment
        pairs = [(deployment.model_code, deployment.model, True)]
        previous = deployment.previous
        if previous is not None and previous["model"] != deployment.model:
            pairs.append((previous["model_code"], previous["model"], False))
        for code, model, decides in pairs:
            # A model that was renamed since lives on in its own code object; one that is gone has nothing to feed.
            with suppress(NotFoundError):
                features = feature_set_of(workspace, code, model.partition("@")[0])
                readers.append(Reader(model, policy, features, decides))
    return readers


def served_feature_sets(workspace: Workspace) -> list[FeatureSet]:
    """Feature sets of what decides and of what decided before, once each."""
    return list({reader.features.version: reader.features for reader in readers_in_force(workspace)}.values())
