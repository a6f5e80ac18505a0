"""What others make of the same rows: FLAML, LightGBM as it comes, and LightGBM tuned by Optuna.

Runs in the environment of the peers: ``python peers.py TOOL ROWS PARTS TASK BUDGET OUTPUTS``. All of it in one thread.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")


def flaml(rows: Any, labels: Any, task: str, budget: float, seed: int) -> Any:
    """FLAML, at its defaults but for the metric that all are judged by."""
    from flaml import AutoML

    automl = AutoML()
    regression = task == "regression"
    automl.fit(rows, labels, task="regression" if regression else "classification", n_jobs=1, seed=seed, verbose=0,
               metric="mse" if regression else "log_loss", time_budget=budget)  # fmt: skip
    return automl.predict if regression else automl.predict_proba


def lightgbm(rows: Any, labels: Any, task: str, _budget: float, seed: int) -> Any:
    """LightGBM as it comes."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = LGBMRegressor if task == "regression" else LGBMClassifier
    model = kind(n_jobs=1, random_state=seed, verbose=-1).fit(rows, labels)
    return model.predict if task == "regression" else model.predict_proba


def tuned(rows: Any, labels: Any, task: str, budget: float, seed: int) -> Any:
    """LightGBM with settings of Optuna: cross-validated, stopped early, fitted on all rows with the mean iteration."""
    import lightgbm as lgb
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    classes = {"num_class": len(np.unique(labels))} if task == "multiclass" else {}
    objective = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}[task]
    fixed = {"objective": objective, "num_threads": 1, "verbose": -1, "seed": seed, "bagging_freq": 1, **classes}
    data, end, best = lgb.Dataset(rows, labels, free_raw_data=False), time.perf_counter() + budget, (np.inf, {}, 100)

    def loss_of(trial: Any) -> float:
        nonlocal best
        params = fixed | {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 4, 256, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 5, 200, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.4, 1.0),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.4, 1.0),
            "lambda_l1": trial.suggest_float("lambda_l1", 1e-8, 10.0, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-8, 10.0, log=True),
        }

        def stop(_env: Any) -> None:
            if time.perf_counter() > end:
                raise TimeoutError

        try:
            history = lgb.cv(params, data, num_boost_round=2_000, nfold=4, stratified=task != "regression", seed=seed,
                             callbacks=[lgb.early_stopping(30, verbose=False), stop])  # fmt: skip
        except TimeoutError:
            return float("inf")
        losses = next(values for name, values in history.items() if name.endswith("-mean"))
        if min(losses) < best[0]:
            best = min(losses), params, len(losses)
        return min(losses)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.enqueue_trial({"learning_rate": 0.1, "num_leaves": 31, "min_data_in_leaf": 20, "feature_fraction": 1.0,
                         "bagging_fraction": 1.0, "lambda_l1": 1e-8, "lambda_l2": 1e-8})  # fmt: skip
    while time.perf_counter() < end:
        study.optimize(loss_of, n_trials=1)
    booster = lgb.train({**fixed, **best[1]}, data, num_boost_round=best[2])
    return booster.predict


def main(tool: str, rows: str, parts: str, task: str, budget: str, outputs: str) -> None:
    """Fit on all rows but those of the test, and write what is said of these."""
    table, places = pd.read_parquet(rows), np.load(parts)
    labels = table.pop("target")
    codes = labels.to_numpy(float) if task != "multiclass" else labels.astype("category").cat.codes.to_numpy()
    table = table.drop(columns="id")
    for column in table:
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].astype("category")
    fit, test = np.sort(np.concatenate([places["train"], places["validate"]])), places["test"]
    learned = codes[fit] if task == "regression" else codes[fit].astype(int)
    began = time.perf_counter()
    model = globals()[tool](table.iloc[fit].reset_index(drop=True), learned, task, float(budget), int(places["seed"]))
    seconds = time.perf_counter() - began
    answers = np.asarray(model(table.iloc[test].reset_index(drop=True)))
    if task == "binary" and answers.ndim == 2:
        answers = answers[:, 1]
    np.savez(outputs, outputs=answers, labels=codes[test])
    print(json.dumps({"seconds": round(seconds, 1)}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
