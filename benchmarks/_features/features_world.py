"""Spines and events of the benchmark of features, made once and kept in the ignored folder ``.bench``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEYS = 100_000
HOUR = 3_600_000_000
BASE, SPAN = 1_700_000_000_000_000, 90 * 24 * HOUR
COLUMNS = [f"x{place}" for place in range(5)]
WINDOWS = {"1h": HOUR, "24h": 24 * HOUR, "7d": 7 * 24 * HOUR, "30d": 30 * 24 * HOUR}
TIME = pa.timestamp("us", "UTC")
PART = 1 << 20


def spine_path(folder: str, rows: int) -> Path:
    """Parquet file of a spine of so many rows."""
    return Path(folder) / f"spine-{rows}.parquet"


def make(folder: str, count: int, spines: list[int]) -> dict[str, int]:
    """Write the events by the project's own table store, and spines beside them; what is there stays."""
    from retrodict.stores.tables.delta import DeltaTables

    place = Path(folder)
    tables = DeltaTables(place / "tables")
    if "events" not in tables.names():
        schema = pa.schema(
            [("key", pa.int64()), ("name", pa.string()), ("t", TIME), *[(name, pa.float64()) for name in COLUMNS]]
        )
        tables.write("events", pa.RecordBatchReader.from_batches(schema, events(count)))
    for rows in spines:
        if not spine_path(folder, rows).exists():
            with pq.ParquetWriter(spine_path(folder, rows), _spine(0, 1).schema) as writer:
                for first in range(0, rows, PART):
                    writer.write_table(_spine(first, min(PART, rows - first)))
    if not (place / "events.parquet").exists():  # for the peer that reads one file
        pq.write_table(tables.read("events", columns=["key", "t", *COLUMNS]), place / "events.parquet")
    return {"rows": count}


def _names(keys: np.ndarray) -> pa.Array:
    return pa.array([f"customer-{key:08d}" for key in range(KEYS)]).take(pa.array(keys))


def events(count: int) -> Iterator[pa.RecordBatch]:
    """In the order they happened, as tables of events are."""
    done, rng = 0, np.random.default_rng(0)
    while done < count:
        rows = min(PART, count - done)
        first, last = (BASE + SPAN * edge // count for edge in (done, done + rows))
        keys = rng.integers(0, KEYS, rows)
        values = {name: np.round(rng.gamma(2.0, 50.0, rows), 2) for name in COLUMNS}
        moments = pa.array(np.sort(rng.integers(first, last, rows)), TIME)
        yield pa.record_batch({"key": pa.array(keys), "name": _names(keys), "t": moments, **values})
        done += rows


def _spine(first: int, rows: int) -> pa.Table:
    rng = np.random.default_rng(first + 1)
    keys = rng.integers(0, KEYS, rows)
    moments = pa.array(BASE + rng.integers(0, SPAN, rows), TIME)
    return pa.table({"row": np.arange(first, first + rows), "key": keys, "name": _names(keys), "at": moments})
