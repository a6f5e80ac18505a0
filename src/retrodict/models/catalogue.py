"""The estimators that a recipe can name, one entry each: tasks, parameters with bounds and search space, capabilities.

Plain data, read by every command; the libraries behind are loaded when something is fitted. Parameters have the names
of the library they go to, so that its manual holds; every default is written out, so that a run records all of it and
an upgrade cannot move it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrodict.core.tasks import TASKS, Task
from retrodict.models.estimators import Estimator, register_estimator

__all__ = ["LIGHTGBM_DEFAULTS"]

# Written out so that a run records all of it and an upgrade of LightGBM cannot move it.
LIGHTGBM_DEFAULTS: Mapping[str, Any] = {
    "num_iterations": 1_000,
    "early_stopping_round": 50,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "max_depth": -1,
    "min_data_in_leaf": 40,
    "min_sum_hessian_in_leaf": 1e-3,
    "min_gain_to_split": 0.0,
    "lambda_l1": 0.0,
    "lambda_l2": 1.0,
    "feature_fraction": 0.9,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
    "max_bin": 255,
    "min_data_per_group": 100,
    "max_cat_threshold": 32,
    "cat_l2": 10.0,
    "cat_smooth": 10.0,
    "num_threads": 0,
}

# As in the parameters of LightGBM's manual; one that must be above 0 is told by a number that is nearly 0.
_LIGHTGBM_MINIMUM: Mapping[str, float] = {
    "num_iterations": 1,
    "early_stopping_round": -1,
    "learning_rate": 1e-12,
    "num_leaves": 2,
    "max_depth": -1,
    "min_data_in_leaf": 0,
    "min_sum_hessian_in_leaf": 0,
    "min_gain_to_split": 0,
    "lambda_l1": 0,
    "lambda_l2": 0,
    "feature_fraction": 1e-12,
    "bagging_fraction": 1e-12,
    "bagging_freq": 0,
    "max_bin": 2,
    "min_data_per_group": 1,
    "max_cat_threshold": 1,
    "cat_l2": 0,
    "cat_smooth": 0,
    "num_threads": -1,
}

_ENGINES = "retrodict.models.engines"
_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_NUMBERS: tuple[Task, ...] = ("regression", "count")
_TREES: tuple[Task, ...] = (*_CLASSES, "regression", "quantile", "count", "ranking")
_PENALTY = ("float", 1e-3, 1e3, True)
_LIGHTGBM_SPACE = {
    "learning_rate": ("float", 0.01, 0.2, True),
    "num_leaves": ("int", 8, 256, True),
    "min_data_in_leaf": ("int", 5, 200, True),
    "feature_fraction": ("float", 0.4, 1.0, False),
    "bagging_fraction": ("float", 0.4, 1.0, False),
    "lambda_l1": ("float", 1e-8, 10.0, True),
    "lambda_l2": ("float", 1e-8, 10.0, True),
}
_XGBOOST: Mapping[str, Any] = {
    "fit": f"{_ENGINES}.xgboost:solve_xgboost",
    "libraries": ("xgboost",),
    "engine": f"{_ENGINES}.xgboost:XgboostEngine",
    "kind": "xgboost",
    "extra": "xgboost",
    "maximum": {"subsample": 1, "colsample_bytree": 1, "rate_drop": 1},
    "monotone": True,
    "rounds": ("num_boost_round", "early_stopping_rounds"),
    "contributions": "exact Shapley values along the trees",
}
_XGBOOST_DEFAULTS: Mapping[str, Any] = {
    "num_boost_round": 1_000, "early_stopping_rounds": 50, "learning_rate": 0.05, "max_depth": 6,
    "min_child_weight": 1.0, "gamma": 0.0, "reg_alpha": 0.0, "reg_lambda": 1.0, "subsample": 0.9,
    "colsample_bytree": 0.9, "max_bin": 256, "booster": "gbtree", "rate_drop": 0.0, "nthread": 0,
}  # fmt: skip
_XGBOOST_MINIMUM: Mapping[str, float] = {
    "num_boost_round": 1, "early_stopping_rounds": 0, "learning_rate": 1e-12, "max_depth": 0, "min_child_weight": 0,
    "gamma": 0, "reg_alpha": 0, "reg_lambda": 0, "subsample": 1e-12, "colsample_bytree": 1e-12, "max_bin": 2,
    "rate_drop": 0, "nthread": 0,
}  # fmt: skip
_XGBOOST_SPACE: Mapping[str, Any] = {
    "learning_rate": ("float", 0.01, 0.2, True), "max_depth": ("int", 3, 10, False),
    "min_child_weight": ("float", 0.5, 50.0, True), "subsample": ("float", 0.5, 1.0, False),
    "colsample_bytree": ("float", 0.4, 1.0, False), "reg_alpha": ("float", 1e-8, 10.0, True),
    "reg_lambda": ("float", 1e-3, 10.0, True),
}  # fmt: skip
# How numbers of an estimator of distances are scaled: its own step, since a recipe's Scale comes before it.
_SCALERS = ("standard", "min_max", "none")
_TREE = {"max_depth": None, "min_samples_leaf": 5, "max_features": 1.0, "ccp_alpha": 0.0}
_TREE_MINIMUM = {"min_samples_leaf": 1, "ccp_alpha": 0, "n_estimators": 1}


def _linear(name: str, *, defaults: Mapping[str, Any], tasks: tuple[Any, ...], **changes: Any) -> Estimator:
    """Linear models: one sum per output, exact, explained by the distance from the training mean."""
    entry: dict[str, Any] = {
        "fit": f"{_ENGINES}.generalised:solve_linear",
        "libraries": ("sklearn.linear_model",),
        "engine": f"{_ENGINES}.generalised:GeneralisedEngine",
        "kind": "generalised",
        "validates": False,
        "missing": False,
        "categories": False,
        "minimum": {"penalty": 0, "l1_ratio": 0, "max_iterations": 1},
        "choices": {"path": (False, True)},
        "maximum": {"l1_ratio": 1},
        "space": {"penalty": _PENALTY, **({"l1_ratio": ("float", 0.0, 1.0, False)} if "l1_ratio" in defaults else {})},
        "contributions": "weight times distance from the training mean",
    }
    return Estimator(
        name=name, tasks=tasks, defaults={**defaults, "max_iterations": 1_000, "path": False}, **{**entry, **changes}
    )


def _sklearn(name: str, tasks: tuple[Task, ...], prepare: str, **entry: Any) -> Estimator:
    """Estimators of scikit-learn: stored by skops, one row compiled where it can be."""
    fixed: dict[str, Any] = {
        word: f"sklearn.{entry.pop(word)}" for word in ("classifier", "regressor", "detector") if word in entry
    }
    exact = entry.pop("exact_rows", False)
    plain: dict[str, Any] = {"validates": False, "exact_rows": exact, "missing": prepare == "trees"}
    return Estimator(
        name=name, tasks=tasks, fit=f"{_ENGINES}.sklearn_fit:solve_sklearn", engine=f"{_ENGINES}.sklearn:SklearnEngine",
        libraries=("skops.io", "sklearn.compose", "sklearn.impute", "sklearn.pipeline"), kind="sklearn",
        categories=False, explains=False, fixed={**fixed, "prepare": prepare, "exact": exact},
        **{**plain, **entry},
    )  # fmt: skip


def _forest(name: str, kind: str, **changes: Any) -> Estimator:
    """Averages of trees."""
    return _sklearn(
        name, (*_CLASSES, *_NUMBERS), "trees", classifier=f"ensemble.{kind}Classifier",
        regressor=f"ensemble.{kind}Regressor", exact_rows=True, minimum=_TREE_MINIMUM, warm_start="trees",
        defaults={"n_estimators": 300, **_TREE, "max_features": "sqrt", "class_weight": None, "n_jobs": -1, **changes},
        space={"min_samples_leaf": ("int", 1, 50, True), "max_features": ("choice", ["sqrt", 0.3, 0.6, 1.0])},
    )  # fmt: skip


for _estimator in (
    Estimator(
        name="constant",
        fit=f"{_ENGINES}.rates:solve_constant",
        engine=f"{_ENGINES}.rates:ConstantEngine",
        kind="constant",
        kinds=("group_outputs",),
        tasks=TASKS,
        validates=False,
        contributions="none: the rate is the same for every row",
    ),
    Estimator(
        name="group_rate",
        fit=f"{_ENGINES}.rates:solve_group_rate",
        engine=f"{_ENGINES}.rates:GroupRateEngine",
        kind="group_rate",
        kinds=("group_outputs",),
        tasks=TASKS,
        validates=False,
        defaults={"prior_count": 20.0},
        required=("group",),
        minimum={"prior_count": 0},
        space={"prior_count": ("float", 1.0, 1_000.0, True)},
        contributions="how far the category's rate is from the rate of all, in log-odds",
    ),
    Estimator(
        name="lightgbm",
        fit=f"{_ENGINES}.trees:solve_lightgbm",
        engine=f"{_ENGINES}.trees:TreesEngine",
        kind="lightgbm",
        kinds=("lightgbm_levels",),
        tasks=_TREES,
        defaults=LIGHTGBM_DEFAULTS,
        minimum=_LIGHTGBM_MINIMUM,
        maximum={"num_leaves": 131_072, "feature_fraction": 1, "bagging_fraction": 1},
        aliases=True,
        monotone=True,
        rounds=("num_iterations", "early_stopping_round"),
        space=_LIGHTGBM_SPACE,
        warm_start="trees",
        contributions="exact Shapley values along the trees",
    ),
    Estimator(
        name="xgboost", tasks=_TREES, defaults=_XGBOOST_DEFAULTS, minimum=_XGBOOST_MINIMUM, space=_XGBOOST_SPACE,
        choices={"booster": ("gbtree", "dart")}, warm_start="trees", **_XGBOOST,
    ),
    Estimator(
        name="aft", tasks=("survival",), **_XGBOOST,
        defaults={**_XGBOOST_DEFAULTS, "distribution": "normal", "scale": 1.0},
        minimum={**_XGBOOST_MINIMUM, "scale": 1e-3}, space={**_XGBOOST_SPACE, "scale": ("float", 0.3, 3.0, True)},
        choices={"booster": ("gbtree", "dart"), "distribution": ("normal", "logistic", "extreme")},
    ),
    Estimator(
        name="catboost",
        fit=f"{_ENGINES}.catboost:solve_catboost",
        libraries=("catboost",),
        engine=f"{_ENGINES}.catboost:CatboostEngine",
        kind="catboost",
        extra="catboost",
        tasks=_TREES,
        defaults={"iterations": 1_000, "early_stopping_rounds": 50, "learning_rate": 0.05, "depth": 6,
                  "l2_leaf_reg": 3.0, "random_strength": 1.0, "bagging_temperature": 1.0, "border_count": 254,
                  "one_hot_max_size": 2, "thread_count": -1},
        minimum={"iterations": 1, "early_stopping_rounds": 0, "learning_rate": 1e-12, "depth": 1, "l2_leaf_reg": 0,
                 "random_strength": 0, "bagging_temperature": 0, "border_count": 1, "one_hot_max_size": 1,
                 "thread_count": -1},
        maximum={"depth": 16, "border_count": 65_535},
        monotone=True,
        rounds=("iterations", "early_stopping_rounds"),
        space={"learning_rate": ("float", 0.01, 0.2, True), "depth": ("int", 4, 10, False),
               "l2_leaf_reg": ("float", 1.0, 30.0, True), "random_strength": ("float", 0.1, 10.0, True)},
        warm_start="trees",
        contributions="exact Shapley values along the trees",
    ),
    Estimator(
        name="network",
        fit=f"{_ENGINES}.network_fit:solve_network",
        libraries=("torch",),
        engine=f"{_ENGINES}.network:NetworkEngine",
        kind="network",
        extra="deep",
        tasks=(*_CLASSES, "regression", "quantile", "count"),
        exact_rows=False,
        explains=False,
        warm_start="weights",
        defaults={"layers": [64, 32], "activation": "relu", "dropout": 0.1, "weight_decay": 1e-4,
                  "learning_rate": 1e-3, "batch_size": 256, "epochs": 200, "patience": 10, "min_delta": 0.0},
        minimum={"dropout": 0, "weight_decay": 0, "learning_rate": 1e-12, "batch_size": 1, "epochs": 1, "patience": 0,
                 "min_delta": 0},
        maximum={"dropout": 0.95},
        choices={"activation": ("relu", "tanh")},
        rounds=("epochs", "patience"),
        space={"layers": ("choice", [[32], [64], [64, 32], [128, 64]]), "dropout": ("float", 0.0, 0.5, False),
               "weight_decay": ("float", 1e-6, 1e-1, True), "learning_rate": ("float", 1e-4, 1e-2, True)},
    ),
    _linear("logistic", tasks=_CLASSES, defaults={"penalty": 1.0, "l1_ratio": 0.0}, kinds=("linear",),
            warm_start="coefficients"),
    _linear("linear", tasks=_NUMBERS, defaults={"penalty": 1.0, "l1_ratio": 0.0}, warm_start="coefficients"),
    _linear("ridge", tasks=("regression",), defaults={"penalty": 1.0}, fixed={"l1_ratio": 0.0}),
    _linear("lasso", tasks=("regression",), defaults={"penalty": 1.0}, fixed={"l1_ratio": 1.0},
            warm_start="coefficients"),
    _linear("elastic_net", tasks=("regression",), defaults={"penalty": 1.0, "l1_ratio": 0.5},
            warm_start="coefficients"),
    _linear("poisson", tasks=("count",), defaults={"penalty": 1.0}, fixed={"l1_ratio": 0.0},
            warm_start="coefficients"),
    Estimator(
        name="cox", tasks=("survival",), fit=f"{_ENGINES}.hazards:solve_cox",
        engine=f"{_ENGINES}.generalised:GeneralisedEngine", kind="generalised", validates=False, missing=False,
        categories=False, defaults={"penalty": 1.0, "max_iterations": 100}, space={"penalty": _PENALTY},
        minimum={"penalty": 0, "max_iterations": 1},
        contributions="weight times distance from the training mean, in the logarithm of the cumulative hazard",
    ),
    _sklearn(
        "decision_tree", (*_CLASSES, *_NUMBERS), "trees", classifier="tree.DecisionTreeClassifier",
        regressor="tree.DecisionTreeRegressor", exact_rows=True, defaults={**_TREE, "max_depth": 6,
        "min_samples_leaf": 20, "class_weight": None}, minimum={**_TREE_MINIMUM, "max_depth": 1},
        optional=("max_depth",), space={"max_depth": ("int", 2, 12, False), "min_samples_leaf": ("int", 5, 200, True)},
    ),
    _forest("random_forest", "RandomForest", max_samples=None),
    _forest("extra_trees", "ExtraTrees"),
    _sklearn(
        "histogram_boosting", (*_CLASSES, "regression", "quantile", "count"), "trees", validates=True,
        warm_start="trees",
        classifier="ensemble.HistGradientBoostingClassifier", regressor="ensemble.HistGradientBoostingRegressor",
        defaults={"max_iter": 500, "n_iter_no_change": 30, "learning_rate": 0.05, "max_leaf_nodes": 31,
                  "max_depth": None, "min_samples_leaf": 20, "l2_regularization": 0.0, "max_features": 1.0,
                  "max_bins": 255, "class_weight": None},
        rounds=("max_iter", "n_iter_no_change"),
        minimum={"max_iter": 1, "n_iter_no_change": 0, "learning_rate": 1e-12, "max_leaf_nodes": 2,
                 "min_samples_leaf": 1, "l2_regularization": 0, "max_features": 1e-12, "max_bins": 2},
        maximum={"max_features": 1, "max_bins": 255}, optional=("max_leaf_nodes",),
        space={"learning_rate": ("float", 0.01, 0.2, True), "max_leaf_nodes": ("int", 8, 128, True),
               "min_samples_leaf": ("int", 5, 200, True), "l2_regularization": ("float", 1e-8, 10.0, True)},
    ),
    _sklearn(
        "gradient_boosting", (*_CLASSES, "regression", "quantile", "count"), "filled", validates=True,
        warm_start="trees",
        classifier="ensemble.GradientBoostingClassifier", regressor="ensemble.GradientBoostingRegressor",
        defaults={"n_estimators": 300, "n_iter_no_change": 30, "learning_rate": 0.05, "max_depth": 3,
                  "min_samples_leaf": 20, "subsample": 1.0, "max_features": None},
        rounds=("n_estimators", "n_iter_no_change"),
        minimum={"n_estimators": 1, "n_iter_no_change": 0, "learning_rate": 1e-12, "max_depth": 1,
                 "min_samples_leaf": 1, "subsample": 1e-12},
        maximum={"subsample": 1}, optional=("max_depth",),
        space={"learning_rate": ("float", 0.01, 0.2, True), "max_depth": ("int", 2, 6, False),
               "subsample": ("float", 0.4, 1.0, False), "min_samples_leaf": ("int", 5, 100, True)},
    ),
    _sklearn(
        "knn", (*_CLASSES, *_NUMBERS), "scaled", classifier="neighbors.KNeighborsClassifier",
        regressor="neighbors.KNeighborsRegressor", weights=False,
        defaults={"n_neighbors": 25, "weights": "distance", "p": 2, "scaler": "standard"},
        minimum={"n_neighbors": 1, "p": 1}, choices={"weights": ("uniform", "distance"), "scaler": _SCALERS},
        space={"n_neighbors": ("int", 3, 200, True), "scaler": ("choice", list(_SCALERS))},
    ),
    _sklearn(
        "svm", (*_CLASSES, *_NUMBERS), "scaled", classifier="svm.SVC", regressor="svm.SVR", probabilities=False,
        defaults={"C": 1.0, "kernel": "rbf", "gamma": "scale", "class_weight": None, "epsilon": 0.1, "max_iter": -1,
                  "scaler": "standard"},
        minimum={"C": 1e-12, "epsilon": 0}, choices={"kernel": ("rbf", "linear"), "scaler": _SCALERS},
        space={"C": ("float", 1e-2, 1e2, True), "scaler": ("choice", list(_SCALERS))},
    ),
    _sklearn(
        "naive_bayes", _CLASSES, "filled", classifier="naive_bayes.GaussianNB", defaults={"var_smoothing": 1e-9},
        minimum={"var_smoothing": 0}, space={"var_smoothing": ("float", 1e-12, 1e-2, True)},
    ),
    _sklearn(
        "mlp", (*_CLASSES, *_NUMBERS), "scaled", classifier="neural_network.MLPClassifier",
        regressor="neural_network.MLPRegressor", validates=True, warm_start="weights",
        defaults={"hidden_layer_sizes": [64, 32], "activation": "relu", "alpha": 1e-4, "batch_size": "auto",
                  "learning_rate_init": 1e-3, "max_iter": 200, "n_iter_no_change": 10, "scaler": "standard"},
        rounds=("max_iter", "n_iter_no_change"),
        minimum={"alpha": 0, "learning_rate_init": 1e-12, "max_iter": 1, "n_iter_no_change": 0},
        choices={"activation": ("relu", "tanh", "logistic", "identity"), "scaler": _SCALERS},
        space={"alpha": ("float", 1e-6, 1e-1, True), "learning_rate_init": ("float", 1e-4, 1e-2, True),
               "scaler": ("choice", list(_SCALERS)),
               "hidden_layer_sizes": ("choice", [[32], [64], [64, 32], [128, 64]])},
    ),
    _sklearn(
        "gaussian_process", (*_CLASSES, "regression"), "scaled", weights=False, row_error=1e-9,
        classifier="gaussian_process.GaussianProcessClassifier", regressor="gaussian_process.GaussianProcessRegressor",
        defaults={"n_restarts_optimizer": 0, "alpha": 1e-2, "normalize_y": True, "max_iter_predict": 100},
        minimum={"n_restarts_optimizer": 0, "alpha": 0, "max_iter_predict": 1},
    ),
    _sklearn(
        "isolation_forest", ("binary",), "filled", exact_rows=True, detector="ensemble.IsolationForest",
        warm_start="trees",
        probabilities=False, weights=False, minimum={"n_estimators": 1},
        defaults={"n_estimators": 200, "max_samples": "auto", "max_features": 1.0, "n_jobs": -1},
        space={"max_features": ("float", 0.3, 1.0, False)},
    ),
    _sklearn(
        "one_class_svm", ("binary",), "scaled", exact_rows=True, detector="svm.OneClassSVM", probabilities=False,
        weights=False, defaults={"kernel": "rbf", "gamma": "scale", "nu": 0.1}, minimum={"nu": 1e-12},
        maximum={"nu": 1}, choices={"kernel": ("rbf", "linear")}, space={"nu": ("float", 0.01, 0.5, True)},
    ),
):  # fmt: skip
    register_estimator(_estimator)
