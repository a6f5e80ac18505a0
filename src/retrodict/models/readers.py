"""Which features, services and outcomes a project defines, and which of its models read them.

A view that stands only in the list of a model or of a service is defined as well as one of its own, so all are looked
for.
"""

from __future__ import annotations

from retrodict.core.errors import DefinitionError
from retrodict.features.catalogue.description import service_features
from retrodict.features.definitions import FeatureService, FeatureView
from retrodict.features.derived import Derived
from retrodict.features.labels import Outcome
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.workspace import Workspace

__all__ = [
    "defined_features",
    "defined_outcomes",
    "defined_services",
    "defined_views",
    "feature_sets",
    "models_reading",
    "service_sets",
]


def defined_features(workspace: Workspace) -> list[FeatureView | Derived]:
    """Every view and derived function of the definitions, views first."""
    definitions = workspace.definitions
    features: dict[str, FeatureView | Derived] = {view.name: view for view in definitions.of(FeatureView)}
    features |= {function.name: function for function in definitions.of(Derived)}
    for model in definitions.of(Model):
        for feature in FeatureSet(model.features).features:
            features.setdefault(feature.name, feature)
    for service in definitions.of(FeatureService):
        for feature in service.definitions:
            features.setdefault(feature.name, feature)
    return sorted(features.values(), key=lambda feature: not isinstance(feature, FeatureView))


def defined_views(workspace: Workspace) -> list[FeatureView]:
    """Every view of the definitions."""
    return [feature for feature in defined_features(workspace) if isinstance(feature, FeatureView)]


def defined_services(workspace: Workspace) -> list[FeatureService]:
    """Every service of the definitions.

    Raises
    ------
    DefinitionError
        If one is called like a view, a derived function or a model: a name could mean either.
    """
    services = workspace.definitions.of(FeatureService)
    others = [*defined_features(workspace), *workspace.definitions.of(Model)] if services else []
    for service in services:
        for other in others:
            if other.name == service.name:
                raise DefinitionError(
                    "a service must have a name that no view, derived function or model has",
                    where=f"service {service.name!r}",
                    got=f"{other.kind} {other.name!r}",
                    remedy="Rename one of the two",
                )
    return services


def defined_outcomes(workspace: Workspace) -> list[Outcome]:
    """Every outcome of the definitions."""
    outcomes = {outcome.name: outcome for outcome in workspace.definitions.of(Outcome)}
    for model in workspace.definitions.of(Model):
        if isinstance(model.label, Outcome):
            outcomes.setdefault(model.label.name, model.label)
    return list(outcomes.values())


def feature_sets(workspace: Workspace) -> dict[str, FeatureSet]:
    """Feature set of every defined model, by the model's name."""
    return {model.name: FeatureSet(model.features) for model in workspace.definitions.of(Model)}


def service_sets(workspace: Workspace) -> dict[str, FeatureSet]:
    """Feature set of every defined service, by the service's name."""
    return {service.name: service_features(service)[0] for service in defined_services(workspace)}


def models_reading(workspace: Workspace, name: str) -> list[str]:
    """Names of the defined models that list a view or derived function."""
    models = workspace.definitions.of(Model)
    return [model.name for model in models if name in [f.name for f in FeatureSet(model.features).features]]
