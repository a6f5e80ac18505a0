"""Feature sets of models as their own code objects define them, and of everything that is served: models and services.

Apart from the engines: the process that keeps features current scores nothing, and need not load what does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from retrodict.core.errors import NotFoundError, RetrodictError
from retrodict.features.catalogue.changes import Reader
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.models.readers import service_sets
from retrodict.registry.deployments import current, earlier_targets, history
from retrodict.workspace import Workspace, definitions_of

__all__ = ["feature_set_of", "readers_in_force", "served_feature_sets"]

_log = logging.getLogger(__name__)

_EARLIER = 2  # versions that a rollback may go to, whose state is kept current: with what decides they are three


def feature_set_of(workspace: Workspace, code: str, model: str, inputs: Iterable[str] | None = None) -> FeatureSet:
    """Feature set of a model by name, from the definitions that a code object holds.

    Parameters
    ----------
    workspace : Workspace
    code : str
        SHA-256 of the definitions.
    model : str
    inputs : iterable of str, optional
        What its artifact reads. None: ``columns(exclude=...)`` stands for none, which is enough for what has a state.
    """
    features = definitions_of(workspace, code).get(Model, model).features
    return FeatureSet(features) if inputs is None else FeatureSet.trained(features, inputs)


def readers_in_force(workspace: Workspace) -> list[Reader]:
    """Models that decide, those that a rollout brings in or that look on, and what decided before, by policy."""
    readers, revisions = [], history(workspace)
    for policy, revision in sorted(current(workspace).items()):
        deployment = revision.deployment
        pairs = [(deployment.model_code, deployment.model, True)]
        earlier = earlier_targets([one for one in revisions if one.deployment.policy == policy])
        before = [deployment.previous, *(one.deployment.target for one in islice(earlier, _EARLIER))]
        for code, model in dict.fromkeys((one["model_code"], one["model"]) for one in before if one is not None):
            if model != deployment.model:
                pairs.append((code, model, False))
        if deployment.split is not None:
            candidate = deployment.split["candidate"]
            pairs.append((candidate["model_code"], candidate["model"], True))
        pairs += [(shadow["model_code"], shadow["model"], False) for shadow in deployment.shadows]
        for code, model, decides in pairs:
            # A model that was renamed since lives on in its own code object; one that is gone has nothing to feed.
            with suppress(NotFoundError):
                features = feature_set_of(workspace, code, model.partition("@")[0])
                readers.append(Reader(model, policy, features, decides))
    return readers


def served_feature_sets(workspace: Workspace) -> list[FeatureSet]:
    """Feature sets of what decides, of what decided before, and of the services, once each.

    Services are those of the definitions module as this process first read it. Models in force have code of their own:
    a module that cannot be read takes nothing from them, and the log says why no service is kept current.
    """
    sets = [reader.features for reader in readers_in_force(workspace)]
    try:
        sets += service_sets(workspace).values()
    except RetrodictError as error:
        _log.error("feature services are not kept current: %s", error)
    return list({features.version: features for features in sets}.values())
