"""``project.features``: frames of every kind against what the command writes, each method against what is stored."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli import features_project as shop

from retrodict import Entity, FeatureView, Project, agg
from retrodict.core.errors import DefinitionError, InputError, NotFoundError, RetrodictError

FEATURES = ["spending.mean_amount_30d", "shops", "basket"]
LATE = "2024-04-23T00:00Z"
REQUESTS = pa.table({
    "note": ["a", "b", "c", "d"],
    "customer": ["013", "007", "nobody", "007"],
    "shop": ["N", "S", "N", None],
    "amount": [10.0, 20.0, 1.0, 4.5],
    "when": pa.array([shop.parse_time(f"2024-{day}T12:00Z") for day in ("03-01", "02-10", "03-01", "04-22")]).cast(
        pa.timestamp("us", "UTC")
    ),
})  # fmt: skip


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with rows and online state; nobody changes it."""
    root = shop.fill(tmp_path_factory.mktemp("shop") / "filled")
    shop.call("features", "build", "--project", root)
    return root


@pytest.fixture
def p(filled: Path, tmp_path: Path) -> Iterator[Project]:
    """A copy of it, opened."""
    with Project(shutil.copytree(filled, tmp_path / "shop"), actor="ana") as project:
        yield project


@pytest.fixture(scope="session")
def expected(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What the command writes for the requests."""
    folder = tmp_path_factory.mktemp("command")
    pq.write_table(REQUESTS, folder / "requests.parquet")
    shop.call("features", "offline", "--spine", folder / "requests.parquet", "--at", "when", "--features",
              ",".join(FEATURES), "--output", folder / "frame.parquet", "--project", filled)  # fmt: skip
    return pq.read_table(folder / "frame.parquet")


def relation(table: pa.Table) -> Any:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("requests", table)
    return connection.sql("FROM requests")


KINDS: dict[str, Callable[[pa.Table], Any]] = {
    "pandas": lambda table: table.to_pandas(),
    "polars": pl.from_arrow,
    "polars lazy": lambda table: pl.from_arrow(table).lazy(),
    "arrow": lambda table: table,
    "duckdb": relation,
}


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """Rows of any frame as plain values, NaN as null."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pd.DataFrame):
        table = pa.Table.from_pandas(frame, preserve_index=False)
    else:
        table = frame.arrow() if isinstance(frame, duckdb.DuckDBPyRelation) else pa.table(frame)
        table = table.read_all() if isinstance(table, pa.RecordBatchReader) else table
    return [{name: value.timestamp() if name == "when" else value for name, value in row.items()}
            for row in table.to_pylist()]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_comes_back_as_the_kind_that_went_in(p: Project, expected: pa.Table, kind: str) -> None:
    """Row for row in the same order, with the values that the command writes."""
    source = KINDS[kind](REQUESTS)
    frame = p.features.frame(source, FEATURES, at="when")
    assert type(frame) is type(source)
    assert rows_of(frame) == rows_of(expected)
    assert expected["spending__mean_amount_30d"].null_count == 1


def test_a_file_or_table_comes_back_as_arrow(p: Project, expected: pa.Table, tmp_path: Path) -> None:
    """A path and the name of a table are opened as the command opens them."""
    pq.write_table(REQUESTS, tmp_path / "requests.parquet")
    assert p.features.frame(tmp_path / "requests.parquet", FEATURES, at="when").equals(expected)
    for rows in (REQUESTS.to_reader(), REQUESTS.combine_chunks().to_batches()[0]):
        assert p.features.frame(rows, FEATURES, at="when").to_pylist() == expected.to_pylist()
    frame = p.features.frame("orders", "shops", at="placed")
    assert frame.column("id").to_pylist() == [row["id"] for row in shop.rows()]
    assert frame.column("shops__share_late_30d").null_count < frame.num_rows


def test_pandas_keeps_its_index_and_other_columns(p: Project, expected: pa.Table) -> None:
    """A key in the index is found, and columns that no feature reads may hold anything."""
    frame = REQUESTS.to_pandas().assign(anything=[1, "x", object(), None]).set_index("customer")
    result = p.features.frame(frame, FEATURES, at="when")
    assert list(result.index) == ["013", "007", "nobody", "007"]
    assert result["anything"].iloc[2] is frame["anything"].iloc[2]
    assert result["spending__mean_amount_30d"].iloc[1] == expected["spending__mean_amount_30d"][1].as_py()
    filtered = REQUESTS.to_pandas().iloc[[3, 0]]
    assert list(p.features.frame(filtered, "shops", at="when").index) == [3, 0]
    assert "shops__share_late_30d" not in filtered.columns


def test_features_are_named_by_their_definitions(p: Project, expected: pa.Table) -> None:
    """A view, a derived function, and a view that no definition module has."""
    defined = {feature.name: feature for feature in p.definitions.of(FeatureView)}
    frame = p.features.frame(REQUESTS, [defined["shops"], "basket"], at="when")
    assert frame.select(["shops__share_late_30d", "basket__over_mean"]).equals(
        expected.select(["shops__share_late_30d", "basket__over_mean"])
    )
    trial = FeatureView("trial", Entity("customer"), defined["spending"].source, [agg.mean("amount", over="30d")])
    frame = p.features.frame(REQUESTS, trial, at="when")
    assert frame["trial__mean_amount_30d"].equals(expected["spending__mean_amount_30d"])
    with pytest.raises(InputError, match="must be those of the definitions"):
        p.features.frame("orders", trial, at="placed", keep="trials")


def wrong_frames() -> dict[str, tuple[Any, str]]:
    pandas = REQUESTS.to_pandas()
    return {
        "missing key": (pandas.rename(columns={"customer": "custmer"}), "Did you mean the column 'custmer'"),
        "missing time": (pandas.drop(columns="when"), "got 'when'"),
        "naive time": (pandas.assign(when=pandas["when"].dt.tz_localize(None)), "zone"),
        "naive text": (pandas.assign(when="2024-03-01T12:00"), "zone"),
        "null time": (pandas.assign(when=pd.NaT), "when"),
        "float key": (pandas.assign(customer=[1.5, 2.0, 3.0, 4.0]), "key"),
        "number key": (pl.from_arrow(REQUESTS).with_columns(customer=pl.lit(7)), "key"),
        "mixed key": (pandas.assign(customer=["SECRET", 7, None, "x"]), "column 'customer'"),
        "text input": (pandas.assign(amount="SECRET"), "column 'amount', row 1"),
        "taken name": (pandas.assign(spending__mean_amount_30d=1.0), "spending__mean_amount_30d"),
        "two columns of one name": (pd.concat([pandas, pandas["note"]], axis=1), "a name of its own"),
        "numbered columns": (pd.DataFrame([[1, 2]]), "must be text"),
        "a series": (pandas["note"], "must be a frame, a path or the name of a table"),
        "a list": ([{"customer": "007"}], "must be a frame, a path or the name of a table"),
    }  # fmt: skip


@pytest.mark.parametrize("case", wrong_frames())
def test_a_wrong_frame_is_our_error(p: Project, case: str) -> None:
    """It names the column and no value."""
    frame, message = wrong_frames()[case]
    with pytest.raises((InputError, DefinitionError)) as error:
        p.features.frame(frame, FEATURES, at="when")
    assert message in str(error.value)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("options", [
    {"anew": True}, {"as_of": LATE}, {"master": "yarn"}, {"engine": "sparc"}, {"keep": "x", "outcomes": "y"},
    {"outcomes": []}, {"output": "frame.xls"},
], ids=str)  # fmt: skip
def test_options_that_do_not_go_together(p: Project, options: dict[str, Any]) -> None:
    """Refused with all four parts before anything is read."""
    with pytest.raises(InputError) as error:
        p.features.frame(REQUESTS, "shops", at="when", **options)
    assert all((error.value.where, error.value.rule, error.value.remedy))
    assert "must" in error.value.rule


def test_frames_are_computed_inside_a_running_event_loop(p: Project, expected: pa.Table) -> None:
    """As in a notebook, whose cells run inside one."""

    async def cell() -> Any:
        return p.features.frame(REQUESTS.to_pandas(), FEATURES, at="when"), p.features.online(REQUESTS, FEATURES, LATE)

    frame, values = asyncio.run(cell())
    assert rows_of(frame) == rows_of(expected)
    assert values.frame.num_rows == 4


@pytest.mark.parametrize("kind", KINDS)
def test_online_values_are_those_of_the_frame_at_that_time(p: Project, kind: str) -> None:
    """For every kind of frame, with the counts of statuses by view; the user's other columns stay."""
    moment = pa.array([shop.parse_time(LATE)] * 4).cast(pa.timestamp("us", "UTC"))
    table = REQUESTS.set_column(4, "when", moment)
    offline = p.features.frame(table, FEATURES, at="when")
    source = KINDS[kind](table)
    values = p.features.online(source, FEATURES, at=LATE)
    assert type(values.frame) is type(source)
    assert rows_of(values.frame) == rows_of(offline)
    assert values.statuses == {"spending": {"ok": 3, "unseen": 1}, "shops": {"ok": 3, "null_key": 1}}
    assert values.nulls["spending__mean_amount_30d"] == 1


def test_a_kept_frame_grows_with_its_table(p: Project) -> None:
    """Kept, extended, listed and shown; its rows are those of the frame without keeping."""
    report = p.features.frame("orders", FEATURES, at="placed", keep="enriched")
    assert (report.rows, report.growth.to_dict()["new"]) == (600, 600)
    p.features.frame("orders", "shops", at="placed", keep="other")
    more = shop.write_csv(p.folder / "more.csv", shop.rows(110)[600:])
    shop.call("ingest", "orders", more, "--project", p.folder)
    (growth,) = p.features.extend("enriched")
    assert growth.to_dict() == {"dataset": "dataset:enriched@1", "rows": 660, "new": 60, "there": 600}
    assert [growth.to_dict()["new"] for growth in p.features.extend()] == [0, 60]
    assert "660 rows = 660 there before + 0 new" in str(p.features.extend())
    assert [frame.name for frame in p.features.frames()] == ["enriched", "other"]
    assert p.features.frames("enriched").newest == {"orders": 1}
    kept = p.workspace.tables.read("enriched")
    again = p.features.frame("orders", FEATURES, at="placed")
    assert kept.select(again.column_names).to_pylist() == again.to_pylist()
    with pytest.raises(NotFoundError, match="'enriched'"):
        p.features.frames("enrichd")


def test_rows_go_to_a_file(p: Project, expected: pa.Table, tmp_path: Path) -> None:
    """All columns of the frame, the features, nulls by feature; the report is what comes back."""
    report = p.features.frame(pl.from_arrow(REQUESTS), FEATURES, at="when", output=tmp_path / "frame.parquet")
    assert pq.read_table(tmp_path / "frame.parquet").to_pylist() == expected.to_pylist()
    assert (report.rows, report.nulls["spending__mean_amount_30d"], report.tables) == (4, 1, {"orders": 0})


def test_definitions_are_listed_and_shown(p: Project) -> None:
    """By words, and traced to columns; an unknown name has near ones."""
    assert [summary.name for summary in p.features.list(search="spends")] == ["spending"]
    details = p.features.show("spending.count_where_amount_gt_50_30d").to_dict()
    assert [feature["where"] for feature in details["features"]] == ["amount > 50"]
    assert p.features.show("basket").inputs[1]["from"] == "spending"
    assert "spending" in str(p.features.list())
    assert "customer" in str(p.features.show("spending"))
    with pytest.raises(NotFoundError, match="'spending'"):
        p.features.show("spendin")


def test_features_are_verified_and_planned(p: Project) -> None:
    """The verdict is stored, and the plan names what a table lacks."""
    proof = p.features.verify("late_order", samples=5)
    assert proof.ok
    assert proof.views == {"late_order": {"spending": True, "shops": True}}
    assert p.features.show("spending").verdict.passed
    assert p.features.plan().ok
    definitions = p.folder / "definitions.py"
    definitions.write_text(definitions.read_text().replace('agg.share("late"', 'agg.share("latte"'))
    with Project(p.folder) as changed:
        plan = changed.features.plan()
    assert not plan.ok
    assert "'latte'" in plan.problems[0]


def test_online_state_is_built_pushed_and_counted(p: Project) -> None:
    """Nothing is built twice; a frame of events is pushed once; status and stream say how far state is."""
    assert p.features.build().sources["placed"].stored == 0
    event = {**shop.rows()[0], "id": "new", "paid": "2024-04-22T11:00Z"}
    events = pd.DataFrame([event, {**event, "id": None}])
    report = p.features.push("placed", events)
    assert (report.ok, report.accepted, report.reasons[0].first_row) == (False, 1, 2)
    assert p.features.push("placed", events.head(1)).known_before == 1
    assert {view.view: view.entities for view in p.features.status()} == {"spending": 20, "shops": 3}
    assert p.features.stream(once=True).sources == {}
    with pytest.raises(NotFoundError, match="'placed'"):
        p.features.push("placd", events)


def test_parity_of_no_decision_is_not_evaluable(p: Project) -> None:
    """Nothing compared is no success, and an unknown policy has near names."""
    assert (p.features.parity("ask").verdict, p.features.parity("ask").ok) == ("not evaluable", False)
    with pytest.raises(RetrodictError, match="'ask'"):
        p.features.parity("asq")


def test_a_subject_is_erased_by_a_frame_or_a_key(p: Project) -> None:
    """Without ``yes`` nothing changes; with it the rows are gone."""
    count = sum(row["customer"] == "007" for row in shop.rows())
    keys = pl.DataFrame({"customer": ["007"], "other": [1]})
    assert p.features.erase("customer", keys).tables[0].rows == count
    assert p.workspace.tables.read("orders").column("customer").to_pylist().count("007") == count
    report = p.features.erase("customer", key=["007"], vacuum=True, yes=True)
    assert report.vacuum["orders"]["deleted"] == [0]
    assert "007" not in p.workspace.tables.read("orders").column("customer").to_pylist()
    with pytest.raises(InputError, match="must be named by keys or by key"):
        p.features.erase("customer")


def test_frames_load_narwhals_only_when_one_comes(filled: Path, tmp_path: Path) -> None:
    """Opening a project and reading its definitions loads neither narwhals nor pandas."""
    import subprocess

    program = (
        "import sys; from retrodict import Project\n"
        f"p = Project({str(shutil.copytree(filled, tmp_path / 'shop'))!r}); p.features.list()\n"
        "print([name for name in ('narwhals', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_online_values_say_that_the_state_is_behind(p: Project) -> None:
    """As a server does: rows that were ingested since are not in it."""
    assert "behind" not in p.features.online(REQUESTS, FEATURES, at=LATE).statuses["spending"]
    table = p.workspace.definitions.get(FeatureView, "spending").source.table.name
    p.workspace.tables.write(table, p.workspace.tables.read(table).slice(0, 1))
    assert p.features.online(REQUESTS, FEATURES, at=LATE).statuses["spending"] == {"behind": 4}
