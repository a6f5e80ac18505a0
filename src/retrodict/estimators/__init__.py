"""Scikit-learn-compatible parts that know nothing of the platform: missing data and normalisation.

Names load their module on first use: scikit-learn takes a second to import, and not every caller needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.estimators.missing_data import Filling, MissingData
    from retrodict.estimators.normaliser import Normaliser
    from retrodict.estimators.patterns import LittleTest, MissingPattern, little_mcar_test, missing_pattern
    from retrodict.estimators.plots import plot_missing

__all__ = [
    "Filling",
    "LittleTest",
    "MissingData",
    "MissingPattern",
    "Normaliser",
    "little_mcar_test",
    "missing_pattern",
    "plot_missing",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "missing_data": ("Filling", "MissingData"),
        "normaliser": ("Normaliser",),
        "patterns": ("LittleTest", "MissingPattern", "little_mcar_test", "missing_pattern"),
        "plots": ("plot_missing",),
    },
)
