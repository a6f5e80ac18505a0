"""Feast with its DuckDB offline store, in an environment of its own: the newest values of one view."""

from __future__ import annotations

import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64


def latest(folder: str, rows: int) -> dict[str, Any]:
    """One call of get_historical_features; setting the store up is not counted."""
    columns = [f"x{place}" for place in range(5)]
    spine = pd.read_parquet(Path(folder) / f"spine-{rows}.parquet", columns=["key", "at"])
    spine = spine.rename(columns={"at": "event_timestamp"})
    with tempfile.TemporaryDirectory() as place:
        config = RepoConfig(
            project="bench", provider="local", registry=f"{place}/registry.db", offline_store={"type": "duckdb"},
            online_store={"type": "sqlite", "path": f"{place}/online.db"}, entity_key_serialization_version=3,
        )  # fmt: skip
        store = FeatureStore(config=config)
        key = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
        view = FeatureView(
            name="v", entities=[key], ttl=timedelta(days=3650), online=False,
            schema=[Field(name=name, dtype=Float64) for name in columns],
            source=FileSource(path=str(Path(folder) / "events.parquet"), timestamp_field="t"),
        )  # fmt: skip
        store.apply([key, view])
        start, cpu = time.perf_counter(), time.process_time()
        frame = store.get_historical_features(entity_df=spine, features=[f"v:{name}" for name in columns]).to_arrow()
        return {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - cpu,
            "columns": {f"latest_{name}": [len(frame) - frame.column(name).null_count, 0.0] for name in columns},
            "rows": len(frame),
        }
