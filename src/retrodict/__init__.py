"""Retrodict: predict forward, retrodict back.

The nouns of a definitions module, each loaded on first use: writing down what a project is costs neither Arrow nor
LightGBM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.core.breakers import breaker
    from retrodict.core.retries import retry
    from retrodict.data.definitions import Check, Table
    from retrodict.data.sources import Source
    from retrodict.decisions.definitions import Policy, Rule, Session
    from retrodict.features.definitions import Entity, FeatureService, FeatureView, Window, agg, columns, latest
    from retrodict.features.derived import derived
    from retrodict.features.labels import Label, Outcome
    from retrodict.learning.pipeline.definitions import Pipeline, step
    from retrodict.models.definitions import Model, Recipe
    from retrodict.models.ensembles import Bagging, Blend, Greedy, Stack, Vote
    from retrodict.models.splits import GroupSplit, HashSplit, Purged, RandomSplit, Rolling, TimeSplit
    from retrodict.models.steps import Balance, Encode, Impute, Interact, Scale, Select, Threshold, Transform
    from retrodict.models.tune import Tune
    from retrodict.models.warmstart import WarmStart
    from retrodict.monitoring.definitions import Monitor, Trigger
    from retrodict.project import Project
    from retrodict.rollout.definitions import Guard, Rollout
    from retrodict.rollout.experiments.definitions import Experiment, Metric

__version__ = "0.1.0"

__all__ = [
    "Bagging",
    "Balance",
    "Blend",
    "Check",
    "Encode",
    "Entity",
    "Experiment",
    "FeatureService",
    "FeatureView",
    "Greedy",
    "GroupSplit",
    "Guard",
    "HashSplit",
    "Impute",
    "Interact",
    "Label",
    "Metric",
    "Model",
    "Monitor",
    "Outcome",
    "Pipeline",
    "Policy",
    "Project",
    "Purged",
    "RandomSplit",
    "Recipe",
    "Rolling",
    "Rollout",
    "Rule",
    "Scale",
    "Select",
    "Session",
    "Source",
    "Stack",
    "Table",
    "Threshold",
    "TimeSplit",
    "Transform",
    "Trigger",
    "Tune",
    "Vote",
    "WarmStart",
    "Window",
    "__version__",
    "agg",
    "breaker",
    "columns",
    "derived",
    "latest",
    "retry",
    "step",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "core.breakers": ("breaker",),
        "core.retries": ("retry",),
        "data.definitions": ("Check", "Table"),
        "data.sources": ("Source",),
        "features.definitions": ("Entity", "FeatureService", "FeatureView", "Window", "agg", "columns", "latest"),
        "features.derived": ("derived",),
        "features.labels": ("Label", "Outcome"),
        "learning.pipeline.definitions": ("Pipeline", "step"),
        "models.definitions": ("Model", "Recipe"),
        "models.ensembles": ("Bagging", "Blend", "Greedy", "Stack", "Vote"),
        "models.splits": ("GroupSplit", "HashSplit", "Purged", "RandomSplit", "Rolling", "TimeSplit"),
        "models.steps": ("Balance", "Encode", "Impute", "Interact", "Scale", "Select", "Threshold", "Transform"),
        "models.tune": ("Tune",),
        "models.warmstart": ("WarmStart",),
        "monitoring.definitions": ("Monitor", "Trigger"),
        "project": ("Project",),
        "rollout.definitions": ("Guard", "Rollout"),
        "decisions.definitions": ("Policy", "Rule", "Session"),
        "rollout.experiments.definitions": ("Experiment", "Metric"),
    },
)
