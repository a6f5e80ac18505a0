"""The other sides of the benchmark of features: a hand-written kernel, DuckDB, Polars.

Each in the formulation that was fastest here. All see the spine in memory; DuckDB and Polars read the same Parquet
files, with two threads; the order of their rows is free. The kernel gets sorted arrays and knows no second clock, no
nulls, no ties, and sums floats plainly.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from features_answer import answer
from features_world import COLUMNS, SPAN, WINDOWS, spine_path

NAMES = [f"{op}_{name}" for op in ("count", "sum_x0", "mean_x0", "max_x0") for name in WINDOWS]


def _files(folder: str) -> str:
    return str(Path(folder) / "tables" / "events" / "*.parquet")


def _duckdb(sql: str, spine: pa.Table) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("set threads = 2")
        connection.execute("set TimeZone = 'UTC'")
        connection.register("spine", spine)
        return connection.sql(sql).to_arrow_table()


def duckdb_latest(folder: str, key: str, rows: int, repeat: int) -> dict[str, Any]:
    spine = pq.read_table(spine_path(folder, rows))
    columns = ", ".join(f"e.{name} as latest_{name}" for name in COLUMNS)
    sql = (
        f"select spine.*, {columns} from spine asof left join '{_files(folder)}' e "
        f"on spine.{key} = e.{key} and spine.at > e.t"
    )
    return answer(lambda: _duckdb(sql, spine), repeat, [f"latest_{name}" for name in COLUMNS])


def duckdb_windows(folder: str, rows: int, repeat: int) -> dict[str, Any]:
    """One range join for the longest window, the shorter ones filtered from it."""
    spine = pq.read_table(spine_path(folder, rows), columns=["row", "key", "at"])
    parts = []
    for name, length in WINDOWS.items():
        inside = f"filter (e.t >= spine.at - to_microseconds({length}))"
        parts.append(f"count(e.t) {inside} as count_{name}")
        parts += [
            f"{call}(x0) {inside} as {op}_x0_{name}" for op, call in (("sum", "sum"), ("mean", "avg"), ("max", "max"))
        ]
    longest = max(WINDOWS.values())
    sql = (
        f"select row, {', '.join(parts)} from spine join '{_files(folder)}' e on spine.key = e.key "
        f"and e.t < spine.at and e.t >= spine.at - to_microseconds({longest}) group by row"
    )
    return answer(lambda: _duckdb(sql, spine), repeat, NAMES)


def polars_latest(folder: str, key: str, rows: int, repeat: int) -> dict[str, Any]:
    pl = _polars()
    spine = pl.read_parquet(spine_path(folder, rows))

    def job() -> Any:
        events = pl.scan_parquet(_files(folder)).select(key, "t", *COLUMNS).sort("t")
        asked = spine.lazy().select("row", key, "at").sort("at")
        joined = asked.join_asof(events, left_on="at", right_on="t", by=key, allow_exact_matches=False)
        return joined.collect().rename({name: f"latest_{name}" for name in COLUMNS}).to_arrow()

    return answer(job, repeat, [f"latest_{name}" for name in COLUMNS])


def polars_windows(folder: str, rows: int, repeat: int) -> dict[str, Any]:
    """One join on the key, filtered to the longest window as it streams, then grouped."""
    pl = _polars()
    spine = pl.read_parquet(spine_path(folder, rows), columns=["row", "key", "at"])

    def job() -> Any:
        events = pl.scan_parquet(_files(folder)).select("key", "t", "x0")
        longest = pl.duration(microseconds=max(WINDOWS.values()))
        joined = (
            spine.lazy()
            .join(events, on="key")
            .filter((pl.col("t") < pl.col("at")) & (pl.col("t") >= pl.col("at") - longest))
        )
        parts = []
        for name, length in WINDOWS.items():
            value = pl.when(pl.col("t") >= pl.col("at") - pl.duration(microseconds=length)).then(pl.col("x0"))
            parts += [
                value.count().alias(f"count_{name}"),
                pl.when(value.count() > 0).then(value.sum()).alias(f"sum_x0_{name}"),
            ]
            parts += [value.mean().alias(f"mean_x0_{name}"), value.max().alias(f"max_x0_{name}")]
        return joined.group_by("row").agg(parts).collect(engine="streaming").to_arrow()

    return answer(job, repeat, NAMES)


def _polars() -> Any:
    os.environ["POLARS_MAX_THREADS"] = "2"
    import polars as pl

    return pl


def numpy_windows(folder: str, rows: int, repeat: int) -> dict[str, Any]:
    """The floor: events sorted by key and time, requests too, one thread."""
    spine = pq.read_table(spine_path(folder, rows), columns=["key", "at"])
    events = pq.read_table(Path(folder) / "events.parquet", columns=["key", "t", "x0"])
    width = SPAN + max(WINDOWS.values()) + 1  # room below each key for the longest window's left edge

    def packed(table: pa.Table, column: str) -> np.ndarray:
        moments = table.column(column).cast(pa.int64()).to_numpy()
        return table.column("key").to_numpy() * width + (moments - moments.min()) + max(WINDOWS.values())

    origin = events.column("t").cast(pa.int64()).to_numpy().min() - spine.column("at").cast(pa.int64()).to_numpy().min()
    when, at = packed(events, "t"), packed(spine, "at") - origin
    order = np.argsort(when, kind="stable")
    when, x, at = when[order], events.column("x0").to_numpy()[order], np.sort(at)
    return answer(lambda: kernel(when, x, at), repeat, NAMES)


def kernel(when: np.ndarray, x: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
    """Counts, sums, means and maxima as a person would write them once, for these columns only."""
    sums = np.concatenate([[0.0], np.cumsum(x)])
    end = np.searchsorted(when, at)
    starts = {name: np.searchsorted(when, at - length) for name, length in WINDOWS.items()}
    best = {name: np.full(len(at), -np.inf) for name in WINDOWS}
    sizes = {name: end - start for name, start in starts.items()}
    levels = {name: np.frexp(size.astype(np.float64))[1] - 1 for name, size in sizes.items()}
    run = x
    for level in range(max(int(found.max()) for found in levels.values()) + 1):
        if level:
            half = 1 << (level - 1)
            run = np.maximum(run[:-half], run[half:])
        for name, start in starts.items():
            chosen = np.flatnonzero(levels[name] == level)
            if len(chosen):
                best[name][chosen] = np.maximum(run[start[chosen]], run[end[chosen] - (1 << level)])
    found = {}
    for name, start in starts.items():
        count, total = sizes[name], sums[end] - sums[start]
        found[f"count_{name}"] = count
        found[f"sum_x0_{name}"] = np.where(count > 0, total, np.nan)
        found[f"mean_x0_{name}"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        found[f"max_x0_{name}"] = best[name]
    return found
