"""The data and the 40 checks, as plain numbers and names: what every tool is given in its own words.

20 columns: a key, 8 fractions with 1 % nulls, 5 whole numbers with 0.1 % nulls, 4 short texts, a time and a truth
value. One row in ten thousand breaks each check of values, so that every tool has failures to count.
"""

from __future__ import annotations

from pathlib import Path

FRACTIONS = [f"f{place}" for place in range(8)]
WHOLES = [f"i{place}" for place in range(5)]
WORDS = [f"s{place}" for place in range(4)]
ALLOWED = ["EWR", "JFK", "LGA", "BOS", "ORD"]
PAIRS = [("i0", "i1"), ("i2", "i3")]
RANGES = {**dict.fromkeys(FRACTIONS, (0.0, 200.0)), **dict.fromkeys(WHOLES, (0, 9999))}
MEAN_AT_LEAST = dict.fromkeys(FRACTIONS[:4], 90.0)
STD_AT_MOST = dict.fromkeys(FRACTIONS[4:], 30.0)
# 13 not null, 13 between, 4 in_set, 2 compare, 4 mean, 4 std
CHECKS = 40
ROW_GROUP = 1 << 17
TYPES = {
    "id": "int", **dict.fromkeys(FRACTIONS, "float"), **dict.fromkeys(WHOLES, "int"), **dict.fromkeys(WORDS, "string"),
    "t0": "time", "b0": "bool",
}  # fmt: skip
# A row that breaks three checks.
ROW = {
    "id": 1, **dict.fromkeys(FRACTIONS, 100.0), **dict.fromkeys(WHOLES, 500), **dict.fromkeys(WORDS, "EWR"),
    "t0": 1_600_000_000_000_000, "b0": True, "f0": 300.0, "s0": "XXX", "i0": 600,
}  # fmt: skip


def write(path: Path, rows: int) -> None:
    """Write the rows, zstd, row groups of 128k."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, ROW_GROUP * 8):
        count = min(ROW_GROUP * 8, rows - start)

        def planted(values: np.ndarray, bad: object, count: int = count) -> np.ndarray:
            values[rng.random(count) < 1e-4] = bad
            return values

        columns: dict[str, object] = {"id": np.arange(start, start + count)}
        for name in FRACTIONS:
            columns[name] = pa.array(planted(rng.normal(100, 15, count), 250.0), mask=rng.random(count) < 0.01)
        low = [planted(rng.integers(0, 5000, count), -1) for _ in range(2)]
        high = [planted(each + rng.integers(1, 4000, count), -2) for each in low]
        last = planted(rng.integers(0, 10_000, count), 10_000)
        for name, values in zip(WHOLES, (low[0], high[0], low[1], high[1], last), strict=True):
            columns[name] = pa.array(values, mask=rng.random(count) < 0.001)
        words = pa.array([*ALLOWED, "XXX"])
        for name in WORDS:
            columns[name] = words.take(pa.array(planted(rng.integers(0, 5, count), 5)))
        columns["t0"] = pa.array(1_600_000_000_000_000 + rng.integers(0, 10**13, count), pa.timestamp("us", "UTC"))
        columns["b0"] = rng.random(count) < 0.3
        table = pa.table({name: columns[name] for name in TYPES})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=ROW_GROUP)
    if writer is not None:
        writer.close()


def write_second(path: Path, first: Path, rows: int) -> None:
    """Write a second version: every thousandth row gone, as many new ones, 1 % of the rest with another ``f0``."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    source, writer = pq.ParquetFile(first), None
    for batch in source.iter_batches(ROW_GROUP):
        table = pa.Table.from_batches([batch])
        ids = table.column("id").to_numpy()
        changed = pa.array((ids % 100 == 1) & (ids % 1000 != 0))
        other = pc.add(pc.fill_null(table.column("f0"), 0.0), 1.0)
        table = table.set_column(1, "f0", pc.if_else(changed, other, table.column("f0")))
        added = table.filter(pa.array(ids % 1000 == 0))
        added = added.set_column(0, "id", pc.add(added.column("id"), rows))
        table = pa.concat_tables([table.filter(pa.array(ids % 1000 != 0)), added])
        writer = writer or pq.ParquetWriter(path, source.schema_arrow, compression="zstd")
        writer.write_table(table.cast(source.schema_arrow), row_group_size=ROW_GROUP)
    if writer is not None:
        writer.close()


def differences(rows: int) -> dict[str, int]:
    """What a comparison of the two versions must find."""
    thousandth = (rows + 999) // 1000
    return {"added": thousandth, "removed": thousandth, "changed": (rows + 98) // 100}


def labels() -> list[str]:
    """Names of the checks whose failing rows are counted, in one order for every tool."""
    return [
        *(f"not_null {name}" for name in RANGES),
        *(f"between {name}" for name in RANGES),
        *(f"in_set {name}" for name in WORDS),
        *(f"compare {a} {b}" for a, b in PAIRS),
    ]
