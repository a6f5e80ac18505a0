"""What a training costs around the fit itself: LightGBM on 300,000 rows of 30 numbers, and the same training again.

Run ``python benchmarks/bench_learning.py [ROWS]``. The floor is ``lightgbm.train`` with the same parameters on the same
matrix in the same process, its loss on the validation rows in each round. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa

from retrodict import Label, Model, Project, RandomSplit, Recipe, Table, columns
from retrodict.learning import recipes
from retrodict.learning.execution import execute
from retrodict.learning.fit import fit_recipe
from retrodict.learning.frame import build_frame
from retrodict.learning.recipes import run_recipe
from retrodict.models.inputs import InputSpec

ROUNDS = 200
NAMES = [f"x{number}" for number in range(30)]


def clocked(call):
    """Seconds of a call, and what it gives."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def rows(count: int) -> pa.Table:
    """Thirty numbers of which six tell, and a yes or no."""
    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(count, len(NAMES)))
    odds = matrix[:, :6] @ np.array([1.0, -0.8, 0.6, 0.5, -0.4, 0.3])
    labels = rng.random(count) < 1 / (1 + np.exp(-odds))
    return pa.table({"id": np.arange(count), **dict(zip(NAMES, matrix.T, strict=True)), "bad": labels})


def encode(columns_of_rows):
    """Types learned, and the matrix."""
    return InputSpec.learn(columns_of_rows).encode_columns(columns_of_rows)


def main(count: int) -> None:
    """Measure, and print."""
    table = Table("loans", key="id")
    recipe = Recipe("lightgbm", RandomSplit(test=0.1, validate=0.1),
                    params={"num_iterations": ROUNDS, "early_stopping_round": 0})  # fmt: skip
    model = Model("loan", label=Label("bad", table, "bad"), features=[columns(*NAMES)], recipe=recipe)
    fits = []

    def clocked_fit(*args):
        took, fitted = clocked(lambda: fit_recipe(*args))
        fits.append(took)
        return fitted

    recipes.fit_recipe = clocked_fit  # the fit alone, of what a training takes around it
    with tempfile.TemporaryDirectory() as folder, Project(Path(folder), definitions=[model]) as project:
        project.data.ingest("loans", rows(count))
        whole, first = clocked(lambda: project.train("loan"))
        again, second = clocked(lambda: project.train("loan"))
        workspace, definition = project.workspace, project.definitions.get(Model, "loan")
        frame_s, frame = clocked(lambda: build_frame(workspace.tables, definition, {"loans": 0}))
        split_s, parts = clocked(lambda: recipe.split.assign(frame, now=workspace.clock.now()))
        encode_s, matrix = clocked(lambda: encode(frame.columns(parts["train"])))
        fits.clear()
        recipe_s, trained = clocked(lambda: run_recipe(recipe, frame, parts, ladder=False))
        fit_s = fits[0]
        ladder_s = clocked(lambda: run_recipe(recipe, frame, parts))[0] - recipe_s
        beside = ("estimator", "calibrate", "num_iterations", "early_stopping_round", "best_iteration")
        params = {name: value for name, value in trained.params.items() if name not in beside}
        data = lightgbm.Dataset(matrix, frame.labels[parts["train"]])
        # As anybody trains who looks at validation rows: with their loss in each round, by LightGBM itself.
        held_out = data.create_valid(encode(frame.columns(parts["validate"])), frame.labels[parts["validate"]])
        beside_them = {"valid_sets": [held_out], "num_boost_round": ROUNDS}
        floor, _ = clocked(lambda: lightgbm.train({**params, "metric": "binary_logloss"}, data, **beside_them))
        executed = clocked(lambda: execute(workspace, definition, {"loans": 0}, now=workspace.clock.now()))[0]
    figures = {
        "rows": count, "features": len(NAMES), "rounds": ROUNDS,
        "seconds": {"lightgbm": floor, "frame": frame_s, "split": split_s, "types and matrix": encode_s, "fit": fit_s,
                    "scores, calibration and metrics": recipe_s - fit_s,
                    "ladder and leaks": ladder_s, "record": whole - executed, "whole": whole, "again": again},
        "fit over lightgbm": round(fit_s / floor, 3), "recipe over lightgbm": round(recipe_s / floor, 3),
        "same run": first.ref == second.ref,
    }  # fmt: skip
    figures["seconds"] = {name: round(value, 3) for name, value in figures["seconds"].items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000)
