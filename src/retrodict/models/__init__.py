"""The model artifact: what it reads, the engine that scores, calibration, and reasons.

Names are loaded on first use: definitions live in this room too, and importing those must not load LightGBM.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrodict.models.artifact import ModelArtifact, Score, Scores
    from retrodict.models.calibration import (
        Calibrator,
        IsotonicCalibrator,
        NoCalibrator,
        SigmoidCalibrator,
        fit_isotonic,
        fit_sigmoid,
    )
    from retrodict.models.engines import (
        ConstantEngine,
        Engine,
        GroupRateEngine,
        LinearEngine,
        TreesEngine,
        tree_hash,
    )
    from retrodict.models.explain import Explanation, Reason, check_words, explain_row
    from retrodict.models.inputs import Feature, InputSpec
    from retrodict.models.training import (
        LIGHTGBM_DEFAULTS,
        Examples,
        Fitted,
        fit_constant,
        fit_group_rate,
        fit_lightgbm,
        fit_logistic,
    )

__all__ = [
    "LIGHTGBM_DEFAULTS",
    "Calibrator",
    "ConstantEngine",
    "Engine",
    "Examples",
    "Explanation",
    "Feature",
    "Fitted",
    "GroupRateEngine",
    "InputSpec",
    "IsotonicCalibrator",
    "LinearEngine",
    "ModelArtifact",
    "NoCalibrator",
    "Reason",
    "Score",
    "Scores",
    "SigmoidCalibrator",
    "TreesEngine",
    "check_words",
    "explain_row",
    "fit_constant",
    "fit_group_rate",
    "fit_isotonic",
    "fit_lightgbm",
    "fit_logistic",
    "fit_sigmoid",
    "tree_hash",
]

_HOMES = {
    "artifact": ("ModelArtifact", "Score", "Scores"),
    "calibration": ("Calibrator", "IsotonicCalibrator", "NoCalibrator", "SigmoidCalibrator", "fit_isotonic",
                    "fit_sigmoid"),
    "engines": ("ConstantEngine", "Engine", "GroupRateEngine", "LinearEngine", "TreesEngine", "tree_hash"),
    "explain": ("Explanation", "Reason", "check_words", "explain_row"),
    "inputs": ("Feature", "InputSpec"),
    "training": ("LIGHTGBM_DEFAULTS", "Examples", "Fitted", "fit_constant", "fit_group_rate", "fit_lightgbm",
                 "fit_logistic"),
}  # fmt: skip


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
