"""Training frames against two floors in the same run: a hand-written NumPy kernel, and DuckDB's ASOF JOIN.

The job: for every row of a spine the newest event of its key before it, and count and mean over 1 h, 24 h and 7 d. The
NumPy kernel does the whole job and nothing else: no second clock, no nulls, no ties, plain float sums. DuckDB does the
newest event only, and is compared with a frame of that alone. Results are compared before times are printed. Times
depend on the machine and its load; the last line, one JSON object, has ratios.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from retrodict import Entity, FeatureView, Source, Table, agg, latest
from retrodict.features import FeatureSet
from retrodict.features.offline import training_frame

HOUR = 3_600_000_000
SPAN = 90 * 24 * HOUR
WINDOWS = {"1h": HOUR, "24h": 24 * HOUR, "7d": 7 * 24 * HOUR}
TIME = pa.timestamp("us", "UTC")

EVENTS = Table("events", key="id", columns={"t": "time", "x": "float"})
SOURCE = Source("happened", EVENTS, event_time="t")
AGGREGATES = [agg.count(over=list(WINDOWS)), agg.mean("x", over=list(WINDOWS))]
WHOLE = FeatureSet([FeatureView("v", Entity("key"), SOURCE, [latest("x"), *AGGREGATES])])
NEWEST = FeatureSet([FeatureView("v", Entity("key"), SOURCE, [latest("x")])])


def world(rows: int, events: int, keys: int) -> tuple[pa.Table, pa.Table]:
    """Spine and events; a few keys are busy and most are not, as in life."""
    rng = np.random.default_rng(0)

    def some_keys(count: int) -> np.ndarray:
        return (keys * rng.random(count) ** 2).astype(np.int64)

    def times(count: int) -> pa.Array:
        return pa.array(rng.integers(0, SPAN, count), TIME)

    spine = pa.table({"key": some_keys(rows), "at": times(rows)})
    return spine, pa.table({"key": some_keys(events), "t": times(events), "x": rng.gamma(2.0, 5.0, events)})


def by_hand(spine: pa.Table, events: pa.Table) -> dict[str, np.ndarray]:
    """The whole job as a person would write it once, for these columns only."""
    width = SPAN + WINDOWS["7d"] + 1  # room below each key for the longest window's left edge

    def packed(table: pa.Table, column: str) -> np.ndarray:
        instants = table.column(column).cast(pa.int64()).to_numpy()
        return table.column("key").to_numpy() * width + WINDOWS["7d"] + instants

    at, when = packed(spine, "at"), packed(events, "t")
    order = np.argsort(when, kind="stable")
    when, x = when[order], events.column("x").to_numpy()[order]
    sums = np.concatenate([[0.0], np.cumsum(x)])
    end = np.searchsorted(when, at)
    first = np.searchsorted(when, spine.column("key").to_numpy() * width)
    found = {"v__latest_x": np.where(end > first, x[end - 1], np.nan)}
    for name, length in WINDOWS.items():
        start = np.searchsorted(when, at - length)
        count = end - start
        found[f"v__count_{name}"] = count
        found[f"v__mean_x_{name}"] = np.where(count > 0, (sums[end] - sums[start]) / np.maximum(count, 1), np.nan)
    return found


def by_duckdb(spine: pa.Table, events: pa.Table) -> pa.Table:
    """The newest event of each row, in the order of the spine."""
    with duckdb.connect() as connection:
        connection.register("spine", spine.append_column("row", pa.array(np.arange(spine.num_rows))))
        connection.register("events", events)
        query = (
            "SELECT x FROM spine ASOF LEFT JOIN events ON spine.key = events.key AND spine.at > events.t ORDER BY row"
        )
        return connection.sql(query).to_arrow_table()


def check_equal(frame: pa.Table, hand: dict[str, np.ndarray], newest: pa.Table, joined: pa.Table) -> None:
    """Counts and newest values to the bit; means as far as plain float sums reach."""
    for name, expected in hand.items():
        got = frame.column(name).to_numpy()
        if "mean" in name:
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(got, expected, err_msg=name)
    np.testing.assert_array_equal(newest.column("v__latest_x").to_numpy(), joined.column("x").to_numpy())


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one execution, and what it gave."""
    gc.collect()
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = found[0] if found else name
    return {"cores": os.cpu_count(), "cpu": name}


def main() -> None:
    """Measure each job in turn, several times over, and keep the best of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the spine")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    spine, events = world(given.rows, given.events, given.keys)
    jobs: dict[str, Callable[[], Any]] = {
        "training_frame": lambda: training_frame(spine, "at", WHOLE, {"happened": events}),
        "numpy": lambda: by_hand(spine, events),
        "training_frame_latest": lambda: training_frame(spine, "at", NEWEST, {"happened": events}),
        "duckdb_asof_latest": lambda: by_duckdb(spine, events),
    }
    load_before = os.getloadavg()[0]
    best = dict.fromkeys(jobs, float("inf"))
    results: dict[str, Any] = {}
    for _ in range(given.repeat):
        for name, job in jobs.items():
            seconds, results[name] = timed(job)
            best[name] = min(best[name], seconds)
    load_after = os.getloadavg()[0]
    check_equal(*(results[name] for name in jobs))
    print(f"{given.rows:,} rows x {given.events:,} events x {given.keys:,} keys, best of {given.repeat}")
    for name, seconds in best.items():
        print(f"  {name:<24}{seconds:8.3f} s")
    print(f"load average while measuring: {load_before:.2f} before, {load_after:.2f} after, {os.cpu_count()} cores")
    ratios = {
        "training_frame_over_numpy": best["training_frame"] / best["numpy"],
        "latest_over_duckdb_asof": best["training_frame_latest"] / best["duckdb_asof_latest"],
    }
    answer = {
        "benchmark": "features",
        "size": {"rows": given.rows, "events": given.events, "keys": given.keys, "repeat": given.repeat},
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "machine": {**machine(), "load_before": round(load_before, 2), "load_after": round(load_after, 2)},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
