"""From a matrix and labels to an engine; one file per file of :mod:`retrodict.models.engines`."""

from retrodict.models.training.base import Examples, Fitted, Progress
from retrodict.models.training.linear import fit_logistic
from retrodict.models.training.rates import fit_constant, fit_group_rate
from retrodict.models.training.trees import LIGHTGBM_DEFAULTS, fit_lightgbm

__all__ = [
    "LIGHTGBM_DEFAULTS",
    "Examples",
    "Fitted",
    "Progress",
    "fit_constant",
    "fit_group_rate",
    "fit_lightgbm",
    "fit_logistic",
]
