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
    from retrodict.models.catalogue import LIGHTGBM_DEFAULTS
    from retrodict.models.engines.base import Engine
    from retrodict.models.engines.catboost import CatboostEngine
    from retrodict.models.engines.generalised import GeneralisedEngine
    from retrodict.models.engines.levels import LevelsEngine
    from retrodict.models.engines.linear import LinearEngine, fit_logistic
    from retrodict.models.engines.network import NetworkEngine
    from retrodict.models.engines.rates import ConstantEngine, GroupRateEngine, fit_constant, fit_group_rate
    from retrodict.models.engines.sklearn import SklearnEngine
    from retrodict.models.engines.trees import TreesEngine, fit_lightgbm, tree_hash
    from retrodict.models.engines.xgboost import XgboostEngine
    from retrodict.models.estimators import (
        Estimator,
        estimator,
        get_estimator,
        list_estimators,
        load_engine,
        register_estimator,
    )
    from retrodict.models.explain import Explanation, Reason, explain_row
    from retrodict.models.inputs import Feature, InputSpec
    from retrodict.models.problem import Examples, Fitted, Problem
    from retrodict.models.specs import SklearnSpec
    from retrodict.models.words import check_words

__all__ = [
    "LIGHTGBM_DEFAULTS",
    "Calibrator",
    "CatboostEngine",
    "ConstantEngine",
    "Engine",
    "Estimator",
    "Examples",
    "Explanation",
    "Feature",
    "Fitted",
    "GeneralisedEngine",
    "GroupRateEngine",
    "InputSpec",
    "IsotonicCalibrator",
    "LevelsEngine",
    "LinearEngine",
    "ModelArtifact",
    "NetworkEngine",
    "NoCalibrator",
    "Problem",
    "Reason",
    "Score",
    "Scores",
    "SigmoidCalibrator",
    "SklearnEngine",
    "SklearnSpec",
    "TreesEngine",
    "XgboostEngine",
    "check_words",
    "estimator",
    "explain_row",
    "fit_constant",
    "fit_group_rate",
    "fit_isotonic",
    "fit_lightgbm",
    "fit_logistic",
    "fit_sigmoid",
    "get_estimator",
    "list_estimators",
    "load_engine",
    "register_estimator",
    "tree_hash",
]

__getattr__, __dir__ = lazy_names(__name__, {
    "artifact": ("ModelArtifact", "Score", "Scores"),
    "calibration": ("Calibrator", "IsotonicCalibrator", "NoCalibrator", "SigmoidCalibrator", "fit_isotonic",
                    "fit_sigmoid"),
    "catalogue": ("LIGHTGBM_DEFAULTS",),
    "engines.base": ("Engine",),
    "engines.catboost": ("CatboostEngine",),
    "engines.generalised": ("GeneralisedEngine",),
    "engines.levels": ("LevelsEngine",),
    "engines.linear": ("LinearEngine", "fit_logistic"),
    "engines.network": ("NetworkEngine",),
    "engines.rates": ("ConstantEngine", "GroupRateEngine", "fit_constant", "fit_group_rate"),
    "engines.trees": ("TreesEngine", "fit_lightgbm", "tree_hash"),
    "engines.sklearn": ("SklearnEngine",),
    "engines.xgboost": ("XgboostEngine",),
    "estimators": ("Estimator", "estimator", "get_estimator", "list_estimators", "load_engine", "register_estimator"),
    "explain": ("Explanation", "Reason", "explain_row"),
    "inputs": ("Feature", "InputSpec"),
    "problem": ("Examples", "Fitted", "Problem"),
    "specs": ("SklearnSpec",),
    "words": ("check_words",),
})  # fmt: skip
