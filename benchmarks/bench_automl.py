"""``Recipe("auto", budget=)`` against FLAML, and LightGBM as it comes and tuned, on tables that ship in packages.

Run ``python benchmarks/bench_automl.py [--budget 30] [--splits 3] [--tables wage,digits] [--results FILE]``. On each
split of each table the tools run at the same time, in one thread each, and a budget is of processor time: what else the
machine does takes nothing from it. Each learns from the rows that Retrodict trains and validates on, and is judged by
the loss of the task on the others. A result is written down as soon as it is there; running again goes on. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import rankdata, t

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-automl" / "bin" / "python"
TOOLS = ("retrodict", "flaml", "lightgbm", "tuned")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
               "LOKY_MAX_CPU_COUNT": "1", "PYTHONWARNINGS": "ignore"}  # fmt: skip
CLOCK = str(HERE / "_automl" / "clock")


def train(rows: Path, parts: Path, task: str, budget: float, outputs: Path) -> None:
    """Retrodict: what ``retrodict automl`` does with a table."""
    from retrodict import Label, Model, Project, RandomSplit, Recipe, Table, columns

    recipe = Recipe("auto", RandomSplit(seed=int(np.load(parts)["seed"])), budget=f"{budget:g}s")
    table = Table("rows", key="id")
    model = Model("model", label=Label("target_label", table, "target"), features=[columns(exclude=["id"])],
                  task="regression" if task == "regression" else None, recipe=recipe)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, Project(Path(folder), definitions=[model]) as project:
        project.data.ingest("rows", rows)
        began = time.perf_counter()
        run = project.train("model")
        seconds = time.perf_counter() - began
        digest = next(artifact.digest for artifact in run.record.artifacts if artifact.name == "test.parquet")
        (outputs.with_suffix(".parquet")).write_bytes(project.workspace.objects.get(digest))
        tuning = run.record.summary["notes"]["tuning"]
    test = pq.read_table(outputs.with_suffix(".parquet"))
    answers = np.column_stack([test.column(name).to_numpy() for name in test.column_names[1:]])
    answers = answers[:, 0] if answers.shape[1] == 1 else answers
    np.savez(outputs, outputs=answers, labels=test.column("label").to_numpy())
    chosen = tuning["choice"]
    members = [member["estimator"] for member in chosen.get("members", [chosen])]
    print(json.dumps({"seconds": round(seconds, 1), "trials": tuning["trials"], "members": members}))


def cut(rows: Path, seed: int, task: str) -> dict[str, np.ndarray]:
    """The parts as Retrodict's split cuts them."""
    from retrodict import RandomSplit
    from retrodict.core.tasks import Target
    from retrodict.learning.frame import Frame

    table = pq.read_table(rows)
    labels = table.column("target").to_numpy(zero_copy_only=False)
    names = tuple(sorted(set(labels))) if task == "multiclass" else ()
    codes = np.array([names.index(label) for label in labels], float) if names else labels.astype(float)
    zeros = np.zeros(len(codes), np.int64)
    frame = Frame(table, (), zeros, codes, zeros, Target(task, classes=names), timed=False)
    return RandomSplit(seed=seed).assign(frame, now=1)


def loss(labels: np.ndarray, outputs: np.ndarray, task: str) -> float:
    """Log loss, or squared error."""
    if task == "regression":
        return float(np.mean((labels - outputs) ** 2))
    outputs = np.stack([1 - outputs, outputs], axis=1) if outputs.ndim == 1 else outputs
    likely = outputs[np.arange(len(labels)), labels.astype(int)] / outputs.sum(axis=1)
    return float(-np.log(np.clip(likely, 1e-15, 1)).mean())


def environment(tool: str) -> dict[str, str]:
    """One thread, and the clock of the processor."""
    path = os.pathsep.join(filter(None, [CLOCK, os.environ.get("PYTHONPATH")]))
    by_time = {} if tool == "retrodict" else {"BENCH_TIME": "processor"}
    return os.environ | ENVIRONMENT | {"PYTHONPATH": path} | by_time


def compete(name: str, task: str, rows: Path, seed: int, budget: float, tools: list[str]) -> list[dict]:
    """Every tool on one split of one table, at the same time."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.savez(folder / "parts.npz", seed=seed, **cut(rows, seed, task))
        processes = {}
        for tool in tools:
            arguments = [str(rows), str(folder / "parts.npz"), task, str(budget), str(folder / f"{tool}.npz")]
            command = ([sys.executable, __file__, "--train"] if tool == "retrodict"
                       else [PEERS, HERE / "_automl" / "peers.py", tool])  # fmt: skip
            processes[tool] = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                               env=environment(tool), text=True)  # fmt: skip
        results, truth = [], None
        for tool, process in processes.items():
            out, err = process.communicate(timeout=budget * 60 + 600)
            if process.returncode:
                raise RuntimeError(f"{tool} on {name}: {err[-2000:]}")
            answers = np.load(folder / f"{tool}.npz")
            truth = answers["labels"] if truth is None else truth
            assert np.allclose(answers["labels"], truth), "every tool must be judged on the same rows"
            results.append({"table": name, "task": task, "split": seed, "tool": tool, "budget": budget,
                            "loss": loss(answers["labels"], answers["outputs"], task),
                            **json.loads(out.splitlines()[-1])})  # fmt: skip
        return results


def compare(results: list[dict], splits: int) -> dict:
    """Wins, ties and losses of Retrodict, mean ranks, and mean losses relative to LightGBM as it comes.

    A win or a loss is one beyond the noise of the splits: the interval of 90 % of the mean paired difference, its
    variance corrected for rows that the splits share (Nadeau & Bengio 2003), does not hold 0.
    """
    losses: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(results, key=lambda one: one["split"]):
        losses[one["table"]][one["tool"]].append(one["loss"])
    table, ranks, verdicts = {}, [], {tool: [0, 0, 0] for tool in TOOLS[1:]}
    for name, by_tool in losses.items():
        every = np.array([by_tool[tool] for tool in TOOLS])
        means = every.mean(axis=1)
        ranks.append(rankdata(every, axis=0).mean(axis=1))
        table[name] = {tool: round(float(mean), 4) for tool, mean in zip(TOOLS, means, strict=True)}
        for tool in TOOLS[1:]:
            differences = np.array(by_tool["retrodict"]) - by_tool[tool]
            count = len(differences)
            spread = (
                np.sqrt((1 / count + 0.25) * differences.var(ddof=1)) * t.ppf(0.95, count - 1) if count > 1 else np.inf
            )
            mean = differences.mean()
            verdicts[tool][0 if mean < -spread else 2 if mean > spread else 1] += 1
    relative = {
        tool: round(float(np.mean([np.log(row[tool] / row["lightgbm"]) for row in table.values()])), 4)
        for tool in TOOLS
    }
    return {"losses": table, "wins ties losses": verdicts, "splits": splits,
            "mean rank": dict(zip(TOOLS, np.mean(ranks, axis=0).round(2).tolist(), strict=True)),
            "mean log of loss over lightgbm": relative}  # fmt: skip


def main() -> None:
    """Run what is missing, and print the table."""
    if sys.argv[1:2] == ["--train"]:
        rows, parts, task, budget, outputs = sys.argv[2:]
        train(Path(rows), Path(parts), task, float(budget), Path(outputs))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=float, default=30)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--tables", default="")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no other split after so long")
    parser.add_argument("--results", type=Path, default=Path("bench-automl.jsonl"))
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    sys.path.insert(0, str(HERE / "_automl"))
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([PEERS, "-W", "ignore", HERE / "_automl" / "tables.py", place], check=True)
        tasks = json.loads((Path(place) / "tasks.json").read_text())
        names = options.tables.split(",") if options.tables else list(tasks)
        lines = options.results.read_text().splitlines() if options.results.exists() else []
        results = [json.loads(line) for line in lines]
        done = {(one["table"], one["split"]) for one in results if one["budget"] == options.budget}
        for seed in range(1, options.splits + 1):
            for name in names:
                if (name, seed) in done or time.monotonic() > end:
                    continue
                latest = compete(name, tasks[name], Path(place) / f"{name}.parquet", seed, options.budget, list(TOOLS))
                with options.results.open("a") as file:
                    file.writelines(json.dumps(one) + "\n" for one in latest)
                results += latest
                print(
                    name,
                    seed,
                    *(f"{one['tool']} {one['loss']:.4f} ({one['seconds']:.0f} s)" for one in latest),
                    flush=True,
                )
    held = [one for one in results if one["table"] in names and one["budget"] == options.budget]
    counts = defaultdict(set)
    for one in held:
        counts[one["table"]].add(one["split"])
    figures = compare(held, min(map(len, counts.values())))
    for name, row in figures["losses"].items():
        print(f"{name:14}", *(f"{tool} {value:<10g}" for tool, value in row.items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
