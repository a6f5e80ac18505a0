"""The model artifact: what it reads, the engine that scores, calibration, and reasons.

Names are loaded on first use: definitions live in this room too, and importing those must not load LightGBM.
"""

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

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
    from retrodict.models.engines.base import Engine
    from retrodict.models.engines.linear import LinearEngine, fit_logistic
    from retrodict.models.engines.rates import ConstantEngine, GroupRateEngine, fit_constant, fit_group_rate
    from retrodict.models.engines.trees import TreesEngine, fit_lightgbm, tree_hash
    from retrodict.models.estimators import (
        LIGHTGBM_DEFAULTS,
        Estimator,
        get_estimator,
        load_engine,
        register_estimator,
    )
    from retrodict.models.explain import Explanation, Reason, explain_row
    from retrodict.models.inputs import Feature, InputSpec
    from retrodict.models.problem import Examples, Fitted, Problem
    from retrodict.models.words import check_words

__all__ = [
    "LIGHTGBM_DEFAULTS",
    "Calibrator",
    "ConstantEngine",
    "Engine",
    "Estimator",
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
    "Problem",
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
    "get_estimator",
    "load_engine",
    "register_estimator",
    "tree_hash",
]

__getattr__, __dir__ = lazy_names(__name__, {
    "artifact": ("ModelArtifact", "Score", "Scores"),
    "calibration": ("Calibrator", "IsotonicCalibrator", "NoCalibrator", "SigmoidCalibrator", "fit_isotonic",
                    "fit_sigmoid"),
    "engines.base": ("Engine",),
    "engines.linear": ("LinearEngine", "fit_logistic"),
    "engines.rates": ("ConstantEngine", "GroupRateEngine", "fit_constant", "fit_group_rate"),
    "engines.trees": ("TreesEngine", "fit_lightgbm", "tree_hash"),
    "estimators": ("LIGHTGBM_DEFAULTS", "Estimator", "get_estimator", "load_engine", "register_estimator"),
    "explain": ("Explanation", "Reason", "explain_row"),
    "inputs": ("Feature", "InputSpec"),
    "problem": ("Examples", "Fitted", "Problem"),
    "words": ("check_words",),
})  # fmt: skip
