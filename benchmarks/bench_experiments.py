"""The report of an experiment on millions of decisions, beside plain pandas and tea-tasting on the same rows.

Run ``python benchmarks/bench_experiments.py [ROWS]``: 10,000,000 decisions of 2,000,000 customers in two variants by
default. Each reads the same Parquet file in a process of its own and gives the difference of two metrics with an
interval: what a customer did is summed first, customers are what was assigned. Ours gives an interval that holds at
every look, checks the sample ratio, and takes the days and weekdays, too; a customer of two variants counts in none.
The rows stand for what :func:`~retrodict.outcomes.outcomes` returns, with every column of it; ``analysis_seconds`` are
those after they are in memory (DuckDB, which sums for tea-tasting, reads the five columns it needs as it goes), and
reading the log of decisions is in none. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
DAY = 86_400_000_000
START = 19_700 * DAY
BEGIN: list[float] = []  # of reading and of the analysis


def write_rows(path: Path, size: int) -> None:
    """Decisions over four weeks with what came of them; the rate of soft letters is a hundredth higher."""
    rng, customers = np.random.default_rng(1), max(size // 5, 2)
    customer = rng.integers(0, customers, size)
    soft = (rng.permutation(customers) % 2)[customer]
    variant = pa.DictionaryArray.from_arrays(pa.array(soft, pa.int8()), ["control", "soft"]).cast(pa.string())
    experiment = pa.DictionaryArray.from_arrays(pa.array(np.zeros(size), pa.int8()), ["tone"]).cast(pa.string())
    numbers = pa.array(np.arange(size)).cast(pa.string())
    rows = {
        "id": numbers, "key": numbers, "revision": np.ones(size, dtype=np.int64),
        "time": np.sort(rng.integers(0, 28 * DAY, size)) + START,
        "entity__customer": customer, "context__amount": rng.exponential(100.0, size), "score": rng.random(size),
        "decision": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 2, size), pa.int8()), ["call", "wait"]
                                                   ).cast(pa.string()),
        "fallback": pa.nulls(size, pa.string()), "record__micros": rng.integers(100, 1000, size),
        "record__variants": pa.ListArray.from_arrays(
            pa.array(np.arange(size + 1), pa.int32()),
            pa.StructArray.from_arrays([experiment, variant], ["experiment", "variant"])),
        "label": (rng.random(size) < 0.3 + 0.01 * soft).astype(np.float64),
    }  # fmt: skip
    pq.write_table(pa.table(rows), path, row_group_size=1_000_000)


def ours(path: Path) -> list[list[float]]:
    """What ``retrodict experiment report`` does with joined decisions."""
    from types import SimpleNamespace

    from retrodict import Experiment, Label, Metric, Model, Policy, RandomSplit, Recipe, Table, columns
    from retrodict.outcomes import Outcomes
    from retrodict.rollout.experiments import report, units

    bills = Table("bills", key=["bill"])
    label = Label("late", bills, "late", known_at="paid", matures="14d")
    model = Model("late", label=label, features=[columns("amount")], decide_at="sent",
                  recipe=Recipe("logistic", RandomSplit(test=0.2)))  # fmt: skip
    policy = Policy("remind", model, decide={"call": "score >= 0.5", "wait": "otherwise"}, fallback=["wait"])
    experiment = Experiment(
        "tone", policy, {"control": 50, "soft": 50}, unit="customer", mde=0.01,
        primary=Metric.rate("late", "label = 1", better="lower"),
        guardrails=[Metric.mean("amount", "amount", max_rise=1.0)])  # fmt: skip
    table = pq.read_table(path)
    outcome = table.column("label").to_numpy()
    size, now = table.num_rows, START + 60 * DAY
    joined = Outcomes("remind", now, table.drop_columns("label"), np.full(size, "known"), outcome,
                      np.full(size, now), 0, 0, size, 0, ())  # fmt: skip
    BEGIN.append(time.perf_counter())
    run: Any = SimpleNamespace(state={"units": 100_000, "share": 1.0}, policy="remind", since=START, until=None,
                               periods=())  # fmt: skip
    rows = units.aggregate(None, experiment, joined, run)
    judged = report.judge(experiment, run, rows, now, [])
    return [[effect.contrast.value, effect.contrast.low, effect.contrast.high] for effect in judged.effects]


def naive(path: Path) -> list[list[float]]:
    """Groups, means and Welch's interval, by hand."""
    import pandas as pd

    frame = pd.read_parquet(path)
    BEGIN.append(time.perf_counter())
    frame["variant"] = [one[0]["variant"] for one in frame["record__variants"]]
    sums = frame.groupby(["entity__customer", "variant"]).agg(
        label=("label", "sum"), amount=("context__amount", "sum"), size=("label", "size"))  # fmt: skip
    values = []
    for name in ("label", "amount"):
        ratio = sums[name].sum() / sums["size"].sum()
        arms = [sums.xs(arm, level="variant") for arm in ("control", "soft")]
        means = [arm[name].sum() / arm["size"].sum() for arm in arms]
        spread = [((arm[name] - ratio * arm["size"]) / arm["size"].mean()).var() / len(arm) for arm in arms]
        value, half = means[1] - means[0], 1.96 * sum(spread) ** 0.5
        values.append([value, value - half, value + half])
    return values


def tea(path: Path) -> list[list[float]]:
    """The same by tea-tasting on a table of customers that DuckDB sums."""
    import duckdb
    import tea_tasting

    source = f"""SELECT entity__customer, record__variants[1].variant AS variant, sum(label) AS label,
        sum(context__amount) AS amount, count(*) AS size FROM '{path}' GROUP BY ALL"""
    result = tea_tasting.Experiment(
        label=tea_tasting.RatioOfMeans("label", "size"), amount=tea_tasting.RatioOfMeans("amount", "size")
    ).analyze(duckdb.sql(source).to_arrow_table(), control="control")
    fields = ("effect_size", "effect_size_ci_lower", "effect_size_ci_upper")
    return [[getattr(one, name) for name in fields] for one in result.values()]


def main() -> None:
    """Write the rows, and let each read them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers" / "bin" / "python")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, path = given.one
        BEGIN.append(time.perf_counter())
        found = {"ours": ours, "pandas": naive, "tea-tasting": tea}[name](Path(path))
        taken = [round(time.perf_counter() - begin, 2) for begin in BEGIN]
        memory = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        facts = {"seconds": taken[0], "analysis_seconds": taken[-1], "memory_mb": memory}
        print(json.dumps(facts | {"differences": found}))
        return
    measured: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decisions.parquet"
        write_rows(path, given.rows)
        for _ in range(given.turns):
            for name in ("ours", "pandas", "tea-tasting"):
                python = sys.executable if name == "ours" else str(given.peers)
                command = [python, __file__, "--one", name, str(path)]
                measured.setdefault(name, []).append(json.loads(subprocess.check_output(command).split(b"\n")[-2]))
                print(name, json.dumps(measured[name][-1]), flush=True)
    best = {name: min(all_of, key=lambda one: one["seconds"]) for name, all_of in measured.items()}
    print(json.dumps({"rows": given.rows, **best}))


if __name__ == "__main__":
    main()
