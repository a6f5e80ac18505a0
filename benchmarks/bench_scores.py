"""Batch scores, Parquet to Parquet, beside the least that it can cost: Arrow reads, LightGBM predicts, Arrow writes.

Run ``python benchmarks/bench_scores.py [ROWS]``: 2,000,000 rows of 30 numbers by default, one process, one thread. The
floor is the same trees by ``Booster.predict`` on the same chunks. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import sys

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import resource  # libraries read the number of their threads when they are loaded
import tempfile
import time
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.parquet as pq
from bench_learning import NAMES, rows

from retrodict import Label, Model, Project, RandomSplit, Recipe, Table, columns
from retrodict.models.artifact import ModelArtifact

CHUNK = 200_000


def bare(booster: lightgbm.Booster, source: Path, target: Path) -> None:
    """Read, predict, write."""
    with pq.ParquetFile(source) as file:
        writer = None
        for batch in file.iter_batches(batch_size=CHUNK):
            matrix = np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in NAMES])
            scored = batch.select(["id"]).append_column("score", booster.predict(matrix))
            writer = writer or pq.ParquetWriter(target, scored.schema)
            writer.write_batch(scored)
        if writer is not None:
            writer.close()


def main(count: int) -> None:
    """Measure, and print."""
    table = Table("loans", key="id")
    seconds: dict[str, dict[str, float]] = {}
    for trees in (20, 200):
        recipe = Recipe("lightgbm", RandomSplit(test=0.1, validate=0.1), calibrate="none",
                        params={"num_iterations": trees, "early_stopping_round": 0})  # fmt: skip
        model = Model("loan", label=Label("bad", table, "bad"), features=[columns(*NAMES)], recipe=recipe)
        with tempfile.TemporaryDirectory() as folder, Project(Path(folder), definitions=[model]) as project:
            project.data.ingest("loans", rows(20_000))
            version = project.train("loan").version
            assert version is not None
            source, ours, floor = (Path(folder) / name for name in ("in.parquet", "ours.parquet", "floor.parquet"))
            pq.write_table(rows(count), source)
            booster = lightgbm.Booster(
                model_str=ModelArtifact.load(project.workspace.objects, version.artifact).engine.text
            )
            began = time.process_time()
            bare(booster, source, floor)
            middle = time.process_time()
            project.models.score_files("loan", input=str(source), output=str(ours), columns=["id"], chunk=CHUNK)
            spent = {"bare": middle - began, "ours": time.process_time() - middle}
            assert pq.read_table(ours).column("score").to_pylist() == pq.read_table(floor).column("score").to_pylist()
            seconds[f"{trees} trees"] = {name: round(value, 2) for name, value in spent.items()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer = {
        "benchmark": "scores", "rows": count, "cpu_seconds": seconds, "peak_mb": round(memory),
        "ratio": {name: round(one["ours"] / one["bare"], 2) for name, one in seconds.items()},
        "rows_per_cpu_s": {name: round(count / one["ours"]) for name, one in seconds.items()},
    }  # fmt: skip
    print(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
