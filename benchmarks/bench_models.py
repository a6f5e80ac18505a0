"""One row and a batch through every estimator of the catalogue, beside the library's own call for one row.

``python benchmarks/bench_models.py [NAME ...]``; the last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from retrodict.models import ModelArtifact, SklearnSpec, list_estimators
from retrodict.models.engines.sklearn import SklearnEngine, read_table
from retrodict.testing.estimators import make_problem

ROWS = 2_000
SLOW = {"gaussian_process": 300, "svm": 1_000, "one_class_svm": 1_000}
PARAMS: dict[str, dict[str, Any]] = {
    "group_rate": {"group": "town"},
    **{
        name: {"n_estimators": 100}
        for name in ("random_forest", "extra_trees", "gradient_boosting", "isolation_forest")
    },
    "histogram_boosting": {"max_iter": 100},
    "lightgbm": {"num_iterations": 100},
    "xgboost": {"num_boost_round": 100},
    "catboost": {"iterations": 100},
}


def microseconds(call: Callable[[Any], Any], rows: list[Any], seconds: float = 0.25) -> float:
    """Median over single calls."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        started = time.perf_counter()
        call(rows[len(times) % len(rows)])
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1e6, 1)


def library_call(engine: Any) -> Callable[[Any], Any]:
    """What a user of the library calls for one row."""
    if isinstance(engine, SklearnEngine):
        method = getattr(engine.models[0], engine.reading.method)
        return lambda row: method(read_table(engine.reading.columns, row[None, :]))
    return lambda row: engine.scores(row[None, :])


def pipeline() -> SklearnSpec:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore")
    before = ColumnTransformer([("n", numbers, ["wind", "visib", "month"]), ("c", words, ["town"])])
    return SklearnSpec.of(make_pipeline(before, LogisticRegression()))


def measure(name: str, registered: Any) -> dict[str, Any]:
    task = registered.tasks[0]
    problem = replace(make_problem(task, rows=SLOW.get(name, ROWS), categories=30), params=PARAMS.get(name, {}))
    started = time.perf_counter()
    engine = registered.solve(problem).engine
    seconds = time.perf_counter() - started
    rows = list(problem.validate.matrix[:50])  # type: ignore[union-attr]
    batch = np.vstack([problem.train.matrix] * 5)
    started = time.perf_counter()
    engine.scores(batch)
    rate = len(batch) / (time.perf_counter() - started)
    ours, theirs = microseconds(engine.score_row, rows), microseconds(library_call(engine), rows)
    ModelArtifact("bench", problem.inputs, engine)
    size = sum(map(len, engine.parts().values())) / 1024
    kilobytes = round(size, 1)
    line = {"name": name, "task": task, "fit_s": round(seconds, 2), "row_us": ours, "library_row_us": theirs,
            "faster": round(theirs / ours, 1), "batch_rows_per_s": round(rate), "artifact_kb": kilobytes}  # fmt: skip
    print(f"{name:22s} {task:10s} row {ours:9.1f} us  library {theirs:9.1f} us  x{theirs / ours:7.1f}  "
          f"batch {rate:11,.0f}/s  {size:9.1f} KB  fit {seconds:6.2f} s", flush=True)  # fmt: skip
    return line


def main() -> None:
    asked = set(sys.argv[1:])
    entries = {"pipeline": pipeline().registered, **{entry.name: entry for entry in list_estimators()}}
    lines = [measure(name, entry) for name, entry in entries.items() if not asked or name in asked]
    print(json.dumps({"rows": ROWS, "estimators": lines}))


if __name__ == "__main__":
    main()
