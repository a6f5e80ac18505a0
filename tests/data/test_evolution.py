"""Columns that change from batch to batch, and columns that are odd: each works, or is refused with the difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict.core.errors import InputError
from retrodict.data.ingest import ingest
from retrodict.data.quarantine import quarantined_rows
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Table
t = Table("t", key="id")
log = Table("log")
"""


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    return make_project(DEFINITIONS)


def own(project: Workspace, name: str = "t", version: int | None = None) -> pa.Table:
    rows = project.tables.read(name, version)
    return rows.select([column for column in rows.column_names if not column.startswith("_")])


def test_an_added_column_is_null_in_earlier_rows(project: Workspace) -> None:
    """Said in the report and the ledger; the old version has its old columns."""
    ingest(project, "t", pa.table({"id": [1]}))
    report = ingest(project, "t", pa.table({"more": ["x"], "id": [2]}))
    assert report.added == {"more": "string"}
    assert own(project).to_pydict() == {"id": [1, 2], "more": [None, "x"]}
    assert own(project, version=0).column_names == ["id"]
    (entry,) = [e for e in project.ledger.entries(action="dataset.version") if e.object_id == "dataset:t@1"]
    assert entry.payload["schema"] == {"added": {"more": "string"}, "widened": {}}
    again = ingest(project, "t", pa.table({"more": ["x"], "id": [2]}))
    assert (again.already, again.added) == (True, {"more": "string"})


def test_a_wider_type_is_taken_and_a_narrower_one_is_widened(project: Workspace) -> None:
    ingest(project, "t", pa.table({"id": [1], "x": pa.array([1], pa.int32()), "y": pa.array([0.5], pa.float32())}))
    wide = pa.table({"id": [2], "x": pa.array([2**40], pa.int64()), "y": pa.array([0.1], pa.float64())})
    assert ingest(project, "t", wide).widened == {"x": "int32 to int64", "y": "float to double"}
    narrow = pa.table({"id": [3], "x": pa.array([7], pa.int8()), "y": pa.array([2], pa.int16())})
    assert not ingest(project, "t", narrow).widened
    assert own(project).to_pydict() == {"id": [1, 2, 3], "x": [1, 2**40, 7], "y": [0.5, 0.1, 2.0]}
    assert own(project, version=0).schema.field("x").type == pa.int32()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"id": [2], "y": ["a"]}, "missing: amount; added: y"),
        (
            {"id": [2], "Amount_": [1.0]},
            "missing: amount; added: Amount_.*Give a renamed column its old name.*Did you mean the column 'Amount_'",
        ),
        ({"id": [2], "amount": ["1"]}, "amount is double and arrives as string"),
        ({"id": [2], "amount": [True]}, "amount is double and arrives as bool"),
        ({"id": [2], "amount": pa.array([2**60])}, "amount is double and arrives as int64"),
    ],
)
def test_what_would_lose_is_refused_with_the_difference(rows: dict[str, Any], said: str, project: Workspace) -> None:
    """And replacing the table is the deliberate way."""
    ingest(project, "t", pa.table({"id": [1], "amount": [1.0]}))
    with pytest.raises(InputError, match=said):
        ingest(project, "t", pa.table(rows))
    assert len(project.tables.history("t")) == 1
    assert ingest(project, "t", pa.table(rows), mode="overwrite").version == 1
    assert own(project, version=0).column_names == ["id", "amount"]


def test_a_column_that_a_batch_lacks_is_null_only_if_told(project: Workspace) -> None:
    ingest(project, "t", pa.table({"id": [1], "x": [1.0]}))
    with pytest.raises(InputError, match=r"missing: x.*--fill-missing"):
        ingest(project, "t", pa.table({"id": [2]}))
    ingest(project, "t", pa.table({"id": [2]}), fill_missing=True)
    assert own(project).to_pydict() == {"id": [1, 2], "x": [1.0, None]}


@pytest.mark.parametrize("name", ["a b", "a.b", "größe", "select", "a,b", "x;y", "(x)", "日本", 'q"q', "tab\there"])
def test_odd_names_come_back_or_are_refused_by_name(name: str, project: Workspace) -> None:
    try:
        ingest(project, "t", pa.table({"id": [1], name: ["v"]}))
    except InputError as error:
        said = str(error)
    else:
        ingest(project, "t", pa.table({"id": [2], name: ["w"]}))
        assert own(project).to_pydict() == {"id": [1, 2], name: ["v", "w"]}
        return
    assert repr(name) in said
    assert project.tables.history("t") == []


def test_a_column_of_nothing_but_nulls(project: Workspace) -> None:
    """Without a type it cannot be stored at first; later it takes the type there is."""
    with pytest.raises(InputError, match=r"'n'.*Cast the column"):
        ingest(project, "t", pa.table({"id": [1], "n": pa.nulls(1)}))
    ingest(project, "t", pa.table({"id": [1], "n": ["x"]}))
    ingest(project, "t", pa.table({"id": [2], "n": pa.nulls(1)}))
    assert own(project).column("n").to_pylist() == ["x", None]


def test_times_of_several_zones_are_instants(project: Workspace) -> None:
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    for at, zone in enumerate(["UTC", "America/New_York", "+05:30"]):
        ingest(project, "t", pa.table({"id": [at], "t": pa.array([moment], pa.timestamp("us", zone))}))
    assert own(project).column("t").to_pylist() == [moment] * 3
    with pytest.raises(InputError, match="a time must carry its zone"):
        ingest(project, "t", pa.table({"id": [9], "t": pa.array([moment.replace(tzinfo=None)])}))


def test_nanoseconds_are_kept_if_they_are_microseconds(project: Workspace) -> None:
    """A finer time is set aside, never rounded."""
    times = pa.array([1_000, 1_001, None], pa.timestamp("ns", "UTC"))
    report = ingest(project, "t", pa.table({"id": [1, 2, 3], "t": times}))
    assert report.reasons == {"type(t, time)": 1}
    assert own(project).column("t").cast(pa.int64()).to_pylist() == [1, None]


@pytest.mark.parametrize(("unit", "far", "as_file"), [("ms", 2**60, True), ("ms", 2**60, False), ("s", 2**52, False)])
def test_a_time_beyond_all_clocks_is_set_aside(
    project: Workspace, tmp_path: Path, unit: str, far: int, as_file: bool
) -> None:
    """In milliseconds there are times that no microseconds reach: they are not another time, and end nothing."""
    rows = pa.table({"id": [1, 2, 3, 4], "t": pa.array([7, far, None, -far], pa.timestamp(unit, "UTC"))})
    pq.write_table(rows.slice(0, 4 if as_file else 0), tmp_path / "rows.parquet")
    report = ingest(project, "t", str(tmp_path / "rows.parquet") if as_file else rows)
    assert report.reasons == {"type(t, time)": 2}
    assert own(project).column("t").cast(pa.int64()).to_pylist() == [7_000 if unit == "ms" else 7_000_000, None]
    originals = [json.loads(row["original"])["t"] for row in quarantined_rows(project, "t").to_pylist()]
    far *= {"ms": 1, "s": 1_000}[unit]  # as readers have it
    assert originals == [f"{far} ms", f"-{far} ms"]


def test_decimals_are_exact(project: Workspace) -> None:
    ingest(project, "t", pa.table({"id": [1], "d": pa.array([Decimal("0.10")], pa.decimal128(10, 2))}))
    report = ingest(project, "t", pa.table({"id": [2], "d": pa.array([Decimal("99999999.99")], pa.decimal128(20, 2))}))
    assert report.widened == {"d": "decimal128(10, 2) to decimal128(20, 2)"}
    assert own(project).column("d").to_pylist() == [Decimal("0.10"), Decimal("99999999.99")]


def test_an_empty_batch_makes_no_version(project: Workspace) -> None:
    with pytest.raises(InputError, match="at least one row"):
        ingest(project, "t", pa.table({"id": pa.array([], pa.int64())}))
    assert project.tables.history("t") == []


def test_a_table_without_a_key_is_a_log(project: Workspace) -> None:
    """Equal rows are two facts; the same batch is still one."""
    ingest(project, "log", pa.table({"x": [1, 1]}))
    ingest(project, "log", pa.table({"x": [1, 2]}))
    assert ingest(project, "log", pa.table({"x": [1, 2]})).already
    assert own(project, "log").column("x").to_pylist() == [1, 1, 1, 2]
