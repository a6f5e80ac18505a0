"""``project.data``: the same methods that the commands are made of, on rows of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from retrodict import Project
from retrodict.core.errors import InputError, NotFoundError

DEFINITIONS = """
from retrodict import Check, Source, Table

orders = Table("orders", key="id", columns={"id": "int", "amount": "float", "at": "time"},
               checks=[Check.between("amount", 0, 100), Check.row_count(1, 3, severity="critical")])
placed = Source("placed", orders, event_time="at")
"""
CSV = "id,amount,at\n1,10,2024-01-01T00:00Z\n2,20,2024-01-02T00:00Z\n3,-1,2024-01-03T00:00Z\n"

Run = Callable[..., Any]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with one table, which takes at most three rows at a time."""
    root = tmp_path / "shop"
    root.mkdir()
    (root / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (root / "definitions.py").write_text(DEFINITIONS)
    (root / "orders.csv").write_text(CSV)
    return root


@pytest.fixture
def project(shop: Path) -> Iterator[Project]:
    with Project(shop, actor="ann") as opened:
        yield opened


@pytest.fixture
def stored(project: Project, shop: Path) -> Project:
    """Two rows in version 0, one in quarantine."""
    project.data.ingest("orders", shop / "orders.csv")
    return project


def rows(*ids: int, amount: float = 5) -> pa.Table:
    return pa.table({"id": ids, "amount": [float(amount)] * len(ids), "at": ["2024-02-01T00:00Z"] * len(ids)})


def as_pandas(table: pa.Table) -> Any:
    pytest.importorskip("pandas")
    return table.to_pandas()


def as_polars(table: pa.Table) -> Any:
    import polars as pl

    return pl.from_arrow(table)


def as_relation(table: pa.Table) -> Any:
    import duckdb

    return duckdb.connect().from_arrow(table)


def as_reader(table: pa.Table) -> Any:
    return table.to_reader()


def as_table(table: pa.Table) -> Any:
    return table


@pytest.mark.parametrize("convert", [as_pandas, as_polars, as_table, as_reader, as_relation])
def test_a_frame_is_the_batch_of_the_command(
    convert: Callable[[pa.Table], Any], run: Run, shop: Path, tmp_path: Path
) -> None:
    """Rows of every library become what the command makes of their file: the same counts, checks and rows."""
    frame = pa.csv.read_csv(shop / "orders.csv", convert_options=pa.csv.ConvertOptions(
        column_types=dict.fromkeys(("id", "amount", "at"), pa.string())))  # fmt: skip
    command = run("ingest", "orders", shop / "orders.csv", "--project", shop, "--json").json
    other = tmp_path / "other"
    other.mkdir()
    for name in ("retrodict.toml", "definitions.py"):
        (other / name).write_text((shop / name).read_text())
    with Project(shop) as first, Project(other) as second:
        report = second.data.ingest("orders", convert(frame))
        assert {**report.to_dict(), "batch": ""} == {**command, "batch": ""}
        assert second.data.read("orders").drop_columns("_batch") == first.data.read("orders").drop_columns("_batch")


def test_files_of_a_folder_a_glob_and_a_list(project: Project, shop: Path) -> None:
    """Each way to name files gives the same batch, so the second and third change nothing."""
    (shop / "new").mkdir()
    (shop / "new" / "orders.csv").write_text(CSV)
    assert not project.data.ingest("orders", shop / "new").already
    assert project.data.ingest("orders", str(shop / "new" / "*.csv")).already
    assert project.data.ingest("orders", [shop / "new" / "orders.csv"]).already


def test_rows_of_a_query(project: Project, tmp_path: Path) -> None:
    """``sql`` takes the URL of a database as the rows; more than one is refused."""
    import sqlite3

    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE sales AS SELECT 7 AS id, 5.0 AS amount, '2024-01-01T00:00Z' AS at")
    connection.close()
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    assert project.data.ingest("orders", url, sql="SELECT * FROM sales").accepted == 1
    assert project.data.read("orders")["id"].to_pylist() == [7]
    with pytest.raises(InputError, match="a query must go to one database; got '2 sources'"):
        project.data.ingest("orders", [url, url], sql="SELECT * FROM sales")


def test_replace_and_fill_missing(stored: Project) -> None:
    """A replaced table holds the batch alone; a column that the batch lacks is refused, or null when allowed."""
    stored.data.ingest("orders", rows(7).append_column("note", pa.array(["gift"])))
    with pytest.raises(InputError, match="note"):
        stored.data.ingest("orders", rows(8))
    stored.data.ingest("orders", rows(8), fill_missing=True)
    assert stored.data.read("orders")["note"].to_pylist() == [None, None, "gift", None]
    stored.data.ingest("orders", rows(9), replace=True)
    assert stored.data.read("orders")["id"].to_pylist() == [9]


def test_validate_judges_and_writes_nothing(project: Project) -> None:
    """It counts as an ingest would; passing checks are for people who ask for them."""
    preview = project.data.validate("orders", rows(1, 2), all_=True)
    assert (preview.ok, preview.accepted, preview.quarantined) == (True, 2, 0)
    assert "row_count(1, 3)" in str(preview)
    assert "row_count(1, 3)" not in str(project.data.validate("orders", rows(1, 2)))
    assert not project.data.validate("orders", rows(1, 2, 3, 4)).ok
    with pytest.raises(NotFoundError):
        project.data.history("orders")


def test_history_says_how_versions_came(stored: Project) -> None:
    """Each version with its counts; the limit leaves out the older ones, and says how many."""
    stored.data.ingest("orders", rows(9), replace=True)
    history = stored.data.history("orders", limit=1)
    assert [(v.version, v.mode, v.rows, v.rows_in) for v in history] == [(1, "overwrite", 1, 1)]
    assert history.to_dict()["total"] == 2
    assert "1 older versions" in str(history)


def test_show_and_read_as_of_a_time(stored: Project) -> None:
    """The rows that were known before a time, counted and read alike."""
    head = stored.data.show("orders", limit=1)
    assert (head.rows, head.head.num_rows, head.columns["at"]) == (2, 1, "timestamp[us, tz=UTC]")
    assert stored.data.show("orders", known_at="2024-01-02T00:00Z").rows == 1
    table = stored.data.read("orders@0", columns=["id"], known_at="2024-01-02T00:00Z", source="placed")
    assert table.to_pydict() == {"id": [1]}


def test_diff_by_another_key(stored: Project, tmp_path: Path) -> None:
    """Counts of what changed, by the key that is given, and the differences in a file."""
    stored.data.ingest("orders", rows(9, amount=10), replace=True)
    assert stored.data.diff("orders@0", "orders").changed == 0
    by_amount = stored.data.diff("orders@0", "orders", key=["amount"], output=tmp_path / "changes.csv")
    assert (by_amount.changed, by_amount.removed) == (1, 1)
    assert len((tmp_path / "changes.csv").read_text().splitlines()) == 3


def test_tags_are_set_listed_and_removed(stored: Project) -> None:
    """A tag reads as its version; a removed one has its history; holding and removing exclude each other."""
    assert str(stored.data.tag("orders@0", "golden")) == "orders@golden means orders@0."
    assert [tag.tag for tag in stored.data.tags()] == ["golden"]
    assert stored.data.tags(at="2000-01-01T00:00Z").to_dict() == {"tags": []}
    with pytest.raises(InputError, match="must either be removed or become a hold"):
        stored.data.tag("orders", "golden", hold=True, remove=True)
    assert "no tag any more" in str(stored.data.tag("orders", "golden", remove=True, reason="wrong"))
    assert len(stored.data.tags()) == 0
    assert [change.action for change in stored.data.tags("orders", "golden")] == ["set", "remove"]


def test_rollback_compact_and_vacuum(stored: Project) -> None:
    """The older rows come back; fewer files hold them; versions that nothing needs are deleted."""
    stored.data.ingest("orders", rows(4))
    stored.data.ingest("orders", rows(9), replace=True)
    report = stored.data.rollback("orders", to="1", reason="broken feed")
    assert (report.version, report.rows, report.already) == (3, 3, False)
    assert stored.data.compact("orders").files_after == 1
    plan = stored.data.vacuum("orders", dry_run=True, older_than="0s")
    assert plan.files
    assert stored.data.read("orders@2")["id"].to_pylist() == [9]
    assert stored.data.vacuum("orders", dry_run=False, older_than="0s").files == plan.files
    with pytest.raises(NotFoundError):
        stored.data.read("orders@2")


def test_profile_of_a_frame_and_of_a_table(stored: Project, tmp_path: Path) -> None:
    """Rows in memory, a reference and files are told apart; the page and the findings are of the same profile."""
    frame = as_polars(pa.table({"id": range(20), "unit": ["km"] * 20}))
    profile = stored.data.profile(frame, html=tmp_path / "pages" / "p.html", top=1)
    assert (profile.rows, profile.to_dict()["findings"][0]["kind"]) == (20, "constant")
    assert "unit has one value only" in str(profile)
    assert (tmp_path / "pages" / "p.html").read_text().startswith("<!doctype html>")
    assert stored.data.profile("orders@0").origin == "dataset:orders@0"
    assert stored.data.profile(str(stored.folder / "orders.csv")).rows == 3


def test_a_suggested_definition_is_copied_whole(stored: Project, tmp_path: Path) -> None:
    """What is printed is Python at any width, and what is written is the same; a table keeps its key."""
    frame = pa.table({"id": range(200), "a_column_with_a_rather_long_name": [i % 7 for i in range(200)]})
    suggested = stored.data.suggest(frame, output=tmp_path / "new" / "d.py")
    assert (tmp_path / "new" / "d.py").read_text() == suggested.definition
    assert f"{len(suggested.suggestions)} checks suggested from 200 rows" in str(suggested)
    exec(str(stored.data.suggest(frame)), {})
    assert 'key="id"' in stored.data.suggest("orders").definition


def test_health_of_versions(stored: Project, tmp_path: Path) -> None:
    """One version, or all of them as a list; a version that is named ends the history."""
    stored.data.ingest("orders", rows(4))
    assert stored.data.health("orders", version=0).to_dict()["quarantined"] == 1
    assert stored.data.health("orders").to_dict()["version"] == 1
    history = stored.data.health("orders", history=True, html=tmp_path / "h.html")
    assert [scores["version"] for scores in history.to_dict()["versions"]] == [0, 1]
    assert len(stored.data.health("orders", version=0, history=True).to_dict()["versions"]) == 1
    assert (tmp_path / "h.html").exists()


def test_a_halted_batch_is_released_or_dropped(stored: Project) -> None:
    """Both are decided by name and reason; what was dropped is not released."""
    from retrodict.core.errors import RefusedError

    for first in (10, 20):
        with pytest.raises(RefusedError, match="row_count"):
            stored.data.ingest("orders", rows(*range(first, first + 5)))
    assert [(batch.version, batch.state) for batch in stored.data.unpublished("orders")] == [
        (0, "waiting"), (1, "waiting"),
    ]  # fmt: skip
    assert stored.data.release("orders", 0, reason="the feed was late").accepted == 5
    assert "is dropped; its 5 rows stay" in str(stored.data.drop("orders", 1, reason="a test"))
    assert [batch.state for batch in stored.data.unpublished("orders")] == ["released", "dropped"]


def test_quarantine_from_list_to_resubmit(stored: Project, tmp_path: Path) -> None:
    """Rows are listed, written, repaired and taken back; a batch and a file exclude each other."""
    (batch,) = stored.data.quarantine.list("orders")
    assert (batch.waiting, batch.reasons) == (1, {"between(amount, 0, 100)": 1})
    waiting = stored.data.quarantine.show("orders", check="between(amount, 0, 100)", output=tmp_path / "r.jsonl")
    assert json.loads((tmp_path / "r.jsonl").read_text())["_row"] == waiting.rows["row"][0].as_py()
    repaired = pa.table({"_batch": [batch.batch], "_row": waiting.rows["row"], **rows(3).to_pydict()})
    with pytest.raises(InputError, match="a batch must only be named without repaired rows"):
        stored.data.quarantine.resubmit("orders", repaired, batch=batch.batch)
    assert stored.data.quarantine.resubmit("orders", repaired).accepted == 1
    assert stored.data.quarantine.list("orders").to_dict()["waiting"] == 0


def test_import_checks_needs_no_project(tmp_path: Path) -> None:
    """A suite becomes a definition; what has no counterpart is among the remarks."""
    expectations = [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0}},
        {"type": "expect_column_values_to_match_json_schema", "kwargs": {"column": "j"}},
    ]
    (tmp_path / "suite.json").write_text(json.dumps({"name": "s", "expectations": expectations}))
    from retrodict.project.data import Data

    table = Data.import_checks(tmp_path / "suite.json", table="stock")
    assert (table.format, table.to_dict()["checks"]) == ("great-expectations", ["between(x, 0, None)"])
    assert table.definition.startswith("stock = Table(")
    assert table.remarks()[0] == "1 checks; 1 not mapped, 0 only in part"
    with pytest.raises(InputError, match="the file must exist and hold UTF-8 text"):
        Data.import_checks(tmp_path / "absent.json")


@pytest.mark.parametrize("call", [
    lambda data: data.ingest("oders", rows(1)), lambda data: data.validate("oders", rows(1)),
    lambda data: data.history("oders"), lambda data: data.show("oders"), lambda data: data.read("oders"),
    lambda data: data.diff("oders", "orders"), lambda data: data.tag("oders", "golden"),
    lambda data: data.rollback("oders", to="0", reason="x"), lambda data: data.compact("oders"),
    lambda data: data.vacuum("oders", dry_run=True), lambda data: data.profile("oders"),
    lambda data: data.health("oders"), lambda data: data.unpublished("oders"),
    lambda data: data.release("oders", 0, reason="x"), lambda data: data.drop("oders", 0, reason="x"),
    lambda data: data.quarantine.list("oders"), lambda data: data.quarantine.show("oders"),
    lambda data: data.quarantine.resubmit("oders"),
])  # fmt: skip
def test_an_unknown_table_has_near_names(call: Callable[[Any], object], stored: Project) -> None:
    """Every method that takes a table suggests the one that was meant."""
    with pytest.raises(NotFoundError) as caught:
        call(stored.data)
    assert caught.value.remedy == "Did you mean the table 'orders'"


def test_an_unknown_check_has_near_names(stored: Project) -> None:
    """So does a check of quarantined rows."""
    with pytest.raises(NotFoundError) as caught:
        stored.data.quarantine.show("orders", check="between(amount, 0, 10)")
    assert caught.value.remedy == "Did you mean the check 'between(amount, 0, 100)'"


def test_a_missing_file_must_exist(project: Project) -> None:
    """The error says what must hold, what was named, and what to do."""
    with pytest.raises(InputError, match=r"the file to ingest must exist; got 'x\.csv'") as caught:
        project.data.ingest("orders", "x.csv")
    assert caught.value.remedy


def test_tables_fit_80_columns(stored: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the methods show: columns wrap at words, and the least important are left out by name."""
    from retrodict.core.errors import RefusedError

    monkeypatch.setenv("COLUMNS", "80")
    data = stored.data
    data.ingest("orders", rows(7).append_column("a_note_on_the_delivery", pa.array(["gift"])))
    data.tag("orders@0", "golden-before-the-delivery-notes", hold=True, reason="an audit that asks for the first rows")
    with pytest.raises(RefusedError):
        data.ingest("orders", rows(*range(10, 20)), fill_missing=True)
    shown = [
        data.history("orders"), data.show("orders"), data.diff("orders@0", "orders"), data.tags(),
        data.vacuum("orders", dry_run=True), data.profile("orders"), data.health("orders"),
        data.health("orders", history=True), data.unpublished("orders"), data.quarantine.list("orders"),
        data.quarantine.show("orders"), data.validate("orders", rows(*range(20, 30)), all_=True),
    ]  # fmt: skip
    assert {line for answer in shown for line in str(answer).splitlines() if len(line) > 80} == set()
