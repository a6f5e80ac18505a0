"""Scikit-learn-compatible parts that know nothing of the platform: missing data, normalisation, steps of a recipe.

Names load their module on first use: scikit-learn takes a second to import, and not every caller needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.estimators.balance import BalanceReport, PriorCorrection, Resampled, resample
    from retrodict.estimators.elimination import PermutationSelector, RecursiveSelector
    from retrodict.estimators.encode import FrequencyEncoder, OneHotEncoder, OrdinalEncoder, TargetEncoder
    from retrodict.estimators.foreign import ScikitLearnStep
    from retrodict.estimators.impute import Imputer
    from retrodict.estimators.missing_data import Filling, MissingData
    from retrodict.estimators.normaliser import Normaliser
    from retrodict.estimators.patterns import LittleTest, MissingPattern, little_mcar_test, missing_pattern
    from retrodict.estimators.plots import plot_missing
    from retrodict.estimators.regularisation import PathPoint, RegularisationPath, regularisation_path
    from retrodict.estimators.selection import CorrelationSelector, InformationSelector, VarianceSelector
    from retrodict.estimators.shape import Binner, Clipper, Interactions, Scaler
    from retrodict.estimators.steps import Step, load_step
    from retrodict.estimators.thresholds import Cutoff, cut_at, cut_by_capacity, cut_by_constraint, cut_by_cost

__all__ = [
    "BalanceReport",
    "Binner",
    "Clipper",
    "CorrelationSelector",
    "Cutoff",
    "Filling",
    "FrequencyEncoder",
    "Imputer",
    "InformationSelector",
    "Interactions",
    "LittleTest",
    "MissingData",
    "MissingPattern",
    "Normaliser",
    "OneHotEncoder",
    "OrdinalEncoder",
    "PathPoint",
    "PermutationSelector",
    "PriorCorrection",
    "RecursiveSelector",
    "RegularisationPath",
    "Resampled",
    "Scaler",
    "ScikitLearnStep",
    "Step",
    "TargetEncoder",
    "VarianceSelector",
    "cut_at",
    "cut_by_capacity",
    "cut_by_constraint",
    "cut_by_cost",
    "little_mcar_test",
    "load_step",
    "missing_pattern",
    "plot_missing",
    "regularisation_path",
    "resample",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "balance": ("BalanceReport", "PriorCorrection", "Resampled", "resample"),
        "elimination": ("PermutationSelector", "RecursiveSelector"),
        "encode": ("FrequencyEncoder", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder"),
        "foreign": ("ScikitLearnStep",),
        "impute": ("Imputer",),
        "missing_data": ("Filling", "MissingData"),
        "normaliser": ("Normaliser",),
        "patterns": ("LittleTest", "MissingPattern", "little_mcar_test", "missing_pattern"),
        "plots": ("plot_missing",),
        "regularisation": ("PathPoint", "RegularisationPath", "regularisation_path"),
        "selection": ("CorrelationSelector", "InformationSelector", "VarianceSelector"),
        "shape": ("Binner", "Clipper", "Interactions", "Scaler"),
        "steps": ("Step", "load_step"),
        "thresholds": ("Cutoff", "cut_at", "cut_by_capacity", "cut_by_constraint", "cut_by_cost"),
    },
)
