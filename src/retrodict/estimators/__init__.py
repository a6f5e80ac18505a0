"""Scikit-learn-compatible parts that know nothing of the platform: missing data and normalisation.

Names load their module on first use: scikit-learn takes a second to import, and not every caller needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrodict.estimators.missing import Filling, MissingData
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

_HOMES = {
    "missing": ("Filling", "MissingData"),
    "normaliser": ("Normaliser",),
    "patterns": ("LittleTest", "MissingPattern", "little_mcar_test", "missing_pattern"),
    "plots": ("plot_missing",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = found  # the next look is a plain one
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
