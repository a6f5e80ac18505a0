"""Scikit-learn-compatible parts that know nothing of the platform: missing data, normalisation, steps of a recipe.

Names load their module on first use: scikit-learn takes a second to import, and not every caller needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.estimators.encode import FrequencyEncoder, OneHotEncoder, OrdinalEncoder, TargetEncoder
    from retrodict.estimators.foreign import ScikitLearnStep
    from retrodict.estimators.impute import Imputer
    from retrodict.estimators.missing_data import Filling, MissingData
    from retrodict.estimators.normaliser import Normaliser
    from retrodict.estimators.patterns import LittleTest, MissingPattern, little_mcar_test, missing_pattern
    from retrodict.estimators.plots import plot_missing
    from retrodict.estimators.shape import Binner, Clipper, Interactions, Scaler
    from retrodict.estimators.steps import Step, load_step

__all__ = [
    "Binner",
    "Clipper",
    "Filling",
    "FrequencyEncoder",
    "Imputer",
    "Interactions",
    "LittleTest",
    "MissingData",
    "MissingPattern",
    "Normaliser",
    "OneHotEncoder",
    "OrdinalEncoder",
    "Scaler",
    "ScikitLearnStep",
    "Step",
    "TargetEncoder",
    "little_mcar_test",
    "load_step",
    "missing_pattern",
    "plot_missing",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "encode": ("FrequencyEncoder", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder"),
        "foreign": ("ScikitLearnStep",),
        "impute": ("Imputer",),
        "missing_data": ("Filling", "MissingData"),
        "normaliser": ("Normaliser",),
        "patterns": ("LittleTest", "MissingPattern", "little_mcar_test", "missing_pattern"),
        "plots": ("plot_missing",),
        "shape": ("Binner", "Clipper", "Interactions", "Scaler"),
        "steps": ("Step", "load_step"),
    },
)
