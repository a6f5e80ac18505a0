"""Batch scores, Parquet to Parquet, beside the least that it can cost: Arrow reads, LightGBM predicts, Arrow writes.

Run ``python benchmarks/bench_scores.py [ROWS]``: 2,000,000 rows of 30 numbers by default, one process, one thread. The
floor is the same trees by ``Booster.predict`` on the same chunks. With ``--memory JOBS`` only the job runs, 20 trees in
so many processes over a file that is written piece by piece: what all processes together had in memory at the most is
beside what they had before. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import threading

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import resource  # libraries read the number of their threads when they are loaded
import tempfile
import time
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
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


def model_of(trees: int) -> Model:
    """Trees over thirty numbers."""
    recipe = Recipe("lightgbm", RandomSplit(test=0.1, validate=0.1), calibrate="none",
                    params={"num_iterations": trees, "early_stopping_round": 0})  # fmt: skip
    return Model("loan", label=Label("bad", Table("loans", key="id"), "bad"), features=[columns(*NAMES)], recipe=recipe)


def resident() -> float:
    """Megabytes of this process and its children now; what they share counts once for each of them."""
    pids = [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):  # it has just ended
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(count: int, jobs: int) -> None:
    """Score a file of so many rows, and print what was in memory."""
    with tempfile.TemporaryDirectory() as folder, Project(Path(folder), definitions=[model_of(20)]) as project:
        project.data.ingest("loans", rows(20_000))
        project.train("loan")
        source, base = Path(folder) / "in.parquet", rows(CHUNK)
        with pq.ParquetWriter(source, base.schema) as writer:
            for start in range(0, count, CHUNK):
                piece = base.set_column(0, "id", pa.array(np.arange(start, start + CHUNK)))
                writer.write_table(piece.slice(0, count - start))
        del base, piece
        pa.default_memory_pool().release_unused()
        samples, over, began = [resident()], threading.Event(), time.perf_counter()
        watch = threading.Thread(
            target=lambda: [samples.append(resident()) for _ in iter(lambda: over.wait(0.02), True)]
        )
        watch.start()
        job = project.models.score_files("loan", input=str(source), output=str(Path(folder) / "out.parquet"),
                                         columns=["id"], chunk=CHUNK, jobs=jobs)  # fmt: skip
        over.set()
        watch.join()
    assert job.scored == count
    print(json.dumps({"benchmark": "scores, memory", "rows": count, "jobs": jobs, "before_mb": round(samples[0]),
                      "peak_mb": round(max(samples)), "seconds": round(time.perf_counter() - began)}))  # fmt: skip


def main(count: int) -> None:
    """Measure, and print."""
    seconds: dict[str, dict[str, float]] = {}
    for trees in (20, 200):
        with tempfile.TemporaryDirectory() as folder, Project(Path(folder), definitions=[model_of(trees)]) as project:
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
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    memory(number, int(sys.argv[3])) if "--memory" in sys.argv[2:3] else main(number)
