"""Floors: what a person would write once, for these columns only, in the same libraries."""

from __future__ import annotations

from typing import Any

import world


def polars(path: str) -> dict[str, int]:
    """One streaming query over the file."""
    import polars as pl

    column, wanted = pl.col, {}
    for name, (low, high) in world.RANGES.items():
        wanted[f"not_null {name}"] = column(name).is_null().sum()
        wanted[f"between {name}"] = ((column(name) < low) | (column(name) > high)).sum()
    for name in world.WORDS:
        wanted[f"in_set {name}"] = (~column(name).is_in(world.ALLOWED)).sum()
    for a, b in world.PAIRS:
        wanted[f"compare {a} {b}"] = (column(a) > column(b)).sum()
    numbers = {f"mean {name}": column(name).mean() for name in world.MEAN_AT_LEAST}
    numbers |= {f"std {name}": column(name).std() for name in world.STD_AT_MOST}
    row = pl.scan_parquet(path).select(**wanted, **numbers).collect(engine="streaming").row(0, named=True)
    return {label: row[label] for label in world.labels()}


def duckdb(path: str) -> dict[str, int]:
    """One aggregate over the file."""
    import duckdb

    wanted = {}
    for name, (low, high) in world.RANGES.items():
        wanted[f"not_null {name}"] = f"count(*) FILTER ({name} IS NULL)"
        wanted[f"between {name}"] = f"count(*) FILTER ({name} < {low} OR {name} > {high})"
    allowed = ", ".join(f"'{word}'" for word in world.ALLOWED)
    for name in world.WORDS:
        wanted[f"in_set {name}"] = f"count(*) FILTER ({name} NOT IN ({allowed}))"
    for a, b in world.PAIRS:
        wanted[f"compare {a} {b}"] = f"count(*) FILTER ({a} > {b})"
    wanted |= {f"mean {name}": f"avg({name})" for name in world.MEAN_AT_LEAST}
    wanted |= {f"std {name}": f"stddev_samp({name})" for name in world.STD_AT_MOST}
    with duckdb.connect() as connection:
        [row] = connection.sql(f"SELECT {', '.join(wanted.values())} FROM read_parquet('{path}')").fetchall()
    found = dict(zip(wanted, row, strict=True))
    return {label: found[label] for label in world.labels()}


def delta(path: str, folder: str) -> dict[str, int]:
    """The same record batches into a new Delta table, compressed as ours."""
    import deltalake
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(world.ROW_GROUP))
    properties = deltalake.WriterProperties(compression="ZSTD", compression_level=1)
    deltalake.write_deltalake(folder, reader, writer_properties=properties)
    return {"rows": deltalake.DeltaTable(folder).count()}


def full_join(before: list[str], after: list[str], folder: str) -> dict[str, Any]:
    """The three numbers of a difference by one full outer join over the data files, in 1 GB as ours."""
    import duckdb

    changed = " OR ".join(f"a.{name} IS DISTINCT FROM b.{name}" for name in world.TYPES if name != "id")
    with duckdb.connect(config={"memory_limit": "1GB", "temp_directory": folder}) as connection:
        [(added, removed, other)] = connection.execute(
            "SELECT count(*) FILTER (a.id IS NULL), count(*) FILTER (b.id IS NULL), "
            f"count(*) FILTER (a.id IS NOT NULL AND b.id IS NOT NULL AND ({changed})) "
            "FROM read_parquet(?) a FULL OUTER JOIN read_parquet(?) b ON a.id = b.id",
            [before, after],
        ).fetchall()
    return {"added": added, "removed": removed, "changed": other}
