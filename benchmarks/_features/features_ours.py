"""Our side of the benchmark of features: training frames over indexes of the project's own tables."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset  # imports are left out, and the store does this one when it first reads
import pyarrow.parquet as pq
from features_answer import answer
from features_world import COLUMNS, WINDOWS, events, spine_path

from retrodict import Entity, FeatureView, Source, Table, agg, latest
from retrodict.features import FeatureSet
from retrodict.features.offline.batches import frame_batches
from retrodict.features.offline.event_index import EventIndexes
from retrodict.stores.tables.delta import DeltaTables

SOURCE = Source("happened", Table("events", key="key", columns={"t": "time"}), event_time="t")


def _features(kind: str, key: str) -> FeatureSet:
    over = list(WINDOWS)
    windows = [agg.count(over=over), agg.sum("x0", over=over), agg.mean("x0", over=over), agg.max("x0", over=over)]
    return FeatureSet([FeatureView("v", Entity(key), SOURCE, [latest(*COLUMNS)] if kind == "latest" else windows)])


def _indexes(folder: str) -> EventIndexes:
    return EventIndexes(DeltaTables(Path(folder) / "tables"), Path(folder) / "indexes")


def first(folder: str, kind: str, key: str, rows: int) -> dict[str, Any]:
    """The first frame over a version of a table: no index is there, and the one that is begun is written meanwhile."""
    features, spine = _features(kind, key), pq.read_table(spine_path(folder, rows))
    shutil.rmtree(Path(folder) / "indexes", ignore_errors=True)
    indexes = _indexes(folder)

    def job() -> pa.Table:
        return pa.concat_tables(frame_batches(spine, "at", features, indexes.sources(features)))

    start = time.perf_counter()
    values = answer(job, 1, [name.removeprefix("v__") for name in features.columns], prefix="v__")
    indexes.settle()
    written = sum(path.stat().st_size for path in (Path(folder) / "indexes").rglob("*") if path.is_file())
    table = sum(file.size for file in indexes.tables.files("events", indexes.tables.history("events")[-1].version))
    return {**values, "until_written": time.perf_counter() - start, "index_over_table": round(written / table, 2)}


def frame(folder: str, kind: str, key: str, rows: int, repeat: int) -> dict[str, Any]:
    """A frame of a spine in memory; opening and checking the index is counted each time."""
    features, spine = _features(kind, key), pq.read_table(spine_path(folder, rows))

    def job() -> pa.Table:
        return pa.concat_tables(frame_batches(spine, "at", features, _indexes(folder).sources(features)))

    return answer(job, repeat, [name.removeprefix("v__") for name in features.columns], prefix="v__")


def appended(folder: str, kind: str, key: str, rows: int, repeat: int) -> dict[str, Any]:
    """Frames of which each comes after 1,000 more rows, in a copy of the table and of the index that is there."""
    features, spine, copy = _features(kind, key), pq.read_table(spine_path(folder, rows)), Path(folder) / "appended"
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("tables", "indexes"):  # no file is written twice, so its bytes need no copy
        shutil.copytree(Path(folder) / name, copy / name, copy_function=os.link)

    def job() -> pa.Table:
        return pa.concat_tables(frame_batches(spine, "at", features, _indexes(str(copy)).sources(features)))

    names = [name.removeprefix("v__") for name in features.columns]
    job()
    answers = []
    for _ in range(repeat):
        DeltaTables(copy / "tables").write("events", pa.Table.from_batches(events(1000)))
        answers.append(answer(job, 1, names, prefix="v__"))
        _indexes(str(copy)).settle()
    shutil.rmtree(copy / "indexes")
    anew = answer(job, 1, names, prefix="v__")
    _indexes(str(copy)).settle()
    assert anew["columns"] == answers[-1]["columns"]
    shutil.rmtree(copy)
    return {**min(answers, key=lambda a: a["seconds"]), "anew": anew["cpu"]}


def stream(folder: str, kind: str, key: str, rows: int) -> dict[str, Any]:
    """A frame of a spine that is read piece by piece and let go: the time per row must not grow."""
    features = _features(kind, key)
    start, cpu = time.perf_counter(), time.process_time()
    file = pq.ParquetFile(spine_path(folder, rows))
    reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(1 << 17))
    sources = _indexes(folder).sources(features)
    done = sum(piece.num_rows for piece in frame_batches(reader, "at", features, sources))
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "rows": done}
