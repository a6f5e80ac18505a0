"""Recording and finding runs, against a bare SQLite transaction and MLflow, in one go.

A run has 10 parameters and 20 metrics. "Recorded" is until it is durable; "entered" adds the ledger, in which runs are
entered in groups a moment later. The floor writes the same 31 rows in one transaction of SQLite with a write-ahead log
and full sync. MLflow runs in an environment of its own (``make mlflow``), on SQLite, by one ``log_batch``; without it
that line is left out. Times depend on the machine and its load; the last line, one JSON object, has ratios.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from retrodict import Project
from retrodict.learning.runs.journal import settle
from retrodict.learning.runs.record import MetricPoint, Run, enter_ended
from retrodict.learning.runs.schema import metadata

PARAMS = {f"p{place}": place for place in range(10)}
METRICS = {f"m{place}": place / 7 for place in range(20)}
MLFLOW = """
import sys, time, json, logging
logging.disable(logging.WARNING)
import mlflow
from mlflow.entities import Metric, Param
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/mlflow.db")
client = mlflow.MlflowClient()
experiment = client.create_experiment("bench")
def record():
    run = client.create_run(experiment).info.run_id
    client.log_batch(run, metrics=[Metric(f"m{i}", i / 7, 0, 0) for i in range(20)],
                     params=[Param(f"p{i}", str(i)) for i in range(10)])
    client.set_terminated(run)
record()
took = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter(); record(); took.append(time.perf_counter() - began)
print(json.dumps(sorted(took)[len(took) // 2]))
"""


def each(job: Callable[[], Any], times: int) -> float:
    """Median seconds of a job."""
    took = []
    job()
    for _ in range(times):
        began = time.perf_counter()
        job()
        took.append(time.perf_counter() - began)
    return median(took)


def floor(folder: Path, times: int) -> float:
    """Rows of one run in one durable transaction of SQLite."""
    database = sqlite3.connect(folder / "floor.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE runs (id TEXT PRIMARY KEY, text TEXT)")
    for table in ("params", "metrics"):
        database.execute(f"CREATE TABLE {table} (run TEXT, name TEXT, value, PRIMARY KEY (run, name))")
    number = iter(range(10**9))

    def record() -> None:
        run = f"run {next(number)}"
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO runs VALUES (?, ?)", (run, "x" * 200))
        database.executemany("INSERT INTO params VALUES (?, ?, ?)", [(run, *pair) for pair in PARAMS.items()])
        database.executemany("INSERT INTO metrics VALUES (?, ?, ?)", [(run, *pair) for pair in METRICS.items()])
        database.execute("COMMIT")

    return each(record, times)


def record(project: Project) -> None:
    """One run, until it is durable."""
    with project.runs.start("bench", params=PARAMS) as run:
        run.log_metrics(METRICS)


def fill(project: Project, count: int) -> None:
    """Enter many runs at once."""
    workspace = project.workspace
    workspace.records.ensure(metadata)
    code = workspace.objects.put(b"{}")
    for first in range(0, count, 500):
        runs = [
            Run(workspace.new_id(), "late", "finished", "ann", workspace.clock.now(), 0, code, code, {"versions": {}},
                {**PARAMS, "estimator": ("lightgbm", "logistic")[place % 2]}, kind="hand", seconds=1.0, finished=1,
                points=[MetricPoint("test", name, (place * 37 % 1000) / 1000) for name in METRICS],
                tags={"team": f"t{place % 5}"})
            for place in range(first, min(first + 500, count))
        ]  # fmt: skip
        with workspace.ledger.transaction() as tx:
            enter_ended(tx, runs)


def search(project: Project, name: str) -> dict[str, float]:
    """Median seconds of first pages over what is stored."""
    queries = {
        "newest": {},
        "filter": {"where": "metrics.m3 > 0.7 and params.estimator = 'lightgbm' and tags.team = 't2'"},
        "rare": {"where": "metrics.m3 > 0.998 and params.p1 = 1"},
        "order": {"order": "metrics.m5 desc"},
    }
    return {f"{name} {what}": each(lambda q=query: project.runs.search(limit=50, **q), 9)  # type: ignore[misc]
            for what, query in queries.items()}  # fmt: skip


def single(project: Project, count: int) -> float:
    """Metrics per second, one a call, until all are durable."""
    began = time.perf_counter()
    with project.runs.start("steps") as run:
        for step in range(count):
            run.log_metric("loss", 1 / (step + 1), step=step)
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure, print, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="runs that are searched")
    parser.add_argument("--times", type=int, default=100, help="runs that are recorded")
    parser.add_argument("--peers", type=Path, default=Path(".venv-mlflow"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "retrodict.toml").write_text('[project]\nname = "bench"\n', encoding="utf-8")
        (folder / "definitions.py").write_text("", encoding="utf-8")
        with Project(folder, actor="ann") as project:
            seconds = {"floor": floor(folder, options.times), "recorded": each(lambda: record(project), options.times)}
            began = time.perf_counter()
            for _ in range(options.times):
                record(project)
            settle(project.workspace)
            seconds["entered"] = (time.perf_counter() - began) / options.times
            python = options.peers / "bin" / "python"
            if python.exists():
                answer = subprocess.run([python, "-c", MLFLOW, folder, str(options.times)], capture_output=True,
                                        text=True, check=False)  # fmt: skip
                if answer.returncode == 0:
                    seconds["mlflow"] = json.loads(answer.stdout.splitlines()[-1])
                else:
                    print(f"MLflow is left out: {answer.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            rate = single(project, 50_000)
            fill(project, 2_000)
            seconds["list of 2,000"] = each(project.runs.list, 3)
            fill(project, options.runs - 2_000)
            seconds |= search(project, "search")
    for name, value in seconds.items():
        print(f"  {name:<20}{value * 1e3:10.2f} ms")
    print(f"  one metric a call   {rate:10,.0f} /s")
    ratios = {"recorded over floor": seconds["recorded"] / seconds["floor"],
              "entered over floor": seconds["entered"] / seconds["floor"]}  # fmt: skip
    if "mlflow" in seconds:
        ratios["mlflow over recorded"] = seconds["mlflow"] / seconds["recorded"]
    print(json.dumps({**{name: round(value, 2) for name, value in ratios.items()}, "metrics per second": round(rate),
                      **{name: round(value, 4) for name, value in seconds.items() if "search" in name}}))  # fmt: skip


if __name__ == "__main__":
    main()
