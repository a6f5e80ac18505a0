"""The table of decisions: every sealed one once, in columns, whatever kills the run; and no erased subject in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decisions.test_log import decided, make_folder

from retrodict import Project
from retrodict.core.clock import SimulatedClock, from_micros, parse_time
from retrodict.core.errors import DefinitionError, IntegrityError, RefusedError
from retrodict.core.identity import UlidFactory
from retrodict.decisions.log import read_decisions
from retrodict.decisions.recorder import open_stream
from retrodict.decisions.records import encode_record
from retrodict.monitoring.decision_table import TABLE, _Columns, compact_decisions
from retrodict.workspace import Workspace

NOW = parse_time("2024-03-01T00:00Z")
VIEWS = """
from retrodict import Entity, FeatureView, Source, Table, agg
orders = Table("orders", key="id")
source = Source("orders_source", orders, event_time="at", sequence="id")
spent = FeatureView("spent", Entity("customer"), source, [agg.count(over="7d")])
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """Open a project with these definitions; it is closed with the test."""
    with ExitStack() as stack:

        def make(definitions: str = "", **options: Any) -> Workspace:
            workspace = Workspace(make_folder(tmp_path), actor="ana", **options)
            (tmp_path / "definitions.py").write_text(definitions)
            return stack.enter_context(workspace)

        yield make


def log(workspace: Workspace, pieces: list[list[Any]], stream: int = 0) -> None:
    """Write sealed segments of records."""
    for piece in pieces:
        with open_stream(workspace, f"decisions/{stream}") as writer:
            writer.append([encode_record(record) for record in piece])


def is_sound(workspace: Workspace) -> bool:
    """Whether an audit finds nothing."""
    with Project(workspace.root, actor="ana") as project:
        return project.audit().ok


def places(workspace: Workspace) -> Counter[tuple[str, int, str]]:
    """Stream, offset and id of the rows of the table."""
    rows = workspace.tables.read(TABLE, columns=["stream", "offset", "id"]).to_pylist()
    return Counter((row["stream"], row["offset"], row["id"]) for row in rows)


def logged(workspace: Workspace) -> Counter[tuple[str, int, str]]:
    """The same of the log."""
    return Counter((item.stream, item.offset, item.record.id) for item in read_decisions(workspace))


def test_every_sealed_decision_is_in_the_table_once(shop: Any) -> None:
    """Of several streams; a second run adds what was sealed since, and a third nothing."""
    workspace = shop()
    for stream in range(2):
        log(workspace, [[decided(10 * stream + n)] for n in range(3)], stream)
    first = compact_decisions(workspace)
    assert (first.segments, first.decisions, first.versions) == (6, 6, [0])
    with open_stream(workspace, "decisions/0") as writer:
        writer.append([encode_record(decided(50))])
        waiting = compact_decisions(workspace)
        assert (waiting.versions, waiting.waiting) == ([], {"decisions/0": 1, "decisions/1": 0})
    assert compact_decisions(workspace).decisions == 1
    assert compact_decisions(workspace).versions == []
    assert places(workspace) == logged(workspace)
    assert is_sound(workspace)


def test_rows_say_what_the_records_say(shop: Any) -> None:
    """Typed columns for entities, outputs and features; pairs for what a caller names; what is null is null."""
    workspace = shop()
    log(workspace, [[
        decided(1, time=NOW, entities={"customer": 7}, context={"amount": 2.5, "ok": True, "\n": "x"},
                features={"v__n": 3, "tier": "gold", "model": 1.0, "v__null": None}, score=0.25, raw=0.5,
                outputs={"q90": 9.0}, reasons=["because"], stages={"score": 5}, reads={"v": (3, 4, None)},
                views={"v": {"status": "stale", "age_s": 2}}),
        decided(2, entities={"customer": "x"}, features={"tier": 4.0, "Tier": 5.0, "v__n": True}),
    ]])  # fmt: skip
    compact_decisions(workspace)
    first, second = workspace.tables.read(TABLE).to_pylist()
    assert (first["time"], first["score"], first["reasons"]) == (from_micros(NOW), 0.25, ["because"])
    assert (first["entity__customer"], first["v__n"], first["tier"], first["output__q90"]) == (7, 3.0, "gold", 9.0)
    assert (first["model"], first["feature__model"]) == ("0" * 64, 1.0)
    assert first["context"] == [{"name": "amount", "value": "2.5"}, {"name": "ok", "value": "true"},
                                {"name": "\n", "value": "x"}]  # fmt: skip
    assert first["reads"] == [{"view": "v", "version": 3, "rows": 4, "records": None}]
    assert first["views"] == [{"view": "v", "status": "stale", "age_s": 2.0}]
    assert first["stages"] == [{"stage": "score", "us": 5}]
    assert "v__null" not in first
    assert (second["entity__customer"], second["entity__customer (text)"]) == (None, "x")
    assert (second["tier"], second["feature__tier"], second["feature__Tier (number)"]) == (None, 4.0, 5.0)
    assert (second["v__n"], second["feature__v__n"]) == (None, True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.text(max_size=3), st.sampled_from([1.5, "x", True])), max_size=5), max_size=4))
def test_a_value_has_one_column_whatever_its_name_and_kind(runs: list[list[tuple[str, Any]]]) -> None:
    """Names that a table takes, no two that differ in case alone, each of one kind, and the same in every later run."""
    columns, seen = _Columns(None), {}
    for run in runs:
        for name, value in run:
            column = columns.place("", name, value)
            assert seen.setdefault((name, type(value)), column) == column
        columns = _Columns(pa.schema(columns.types))
    assert len({column.lower() for column in columns.types}) == len(columns.types)
    assert all(column.isprintable() and column for column in columns.types)


KILLED = """
import os, sys
from retrodict.monitoring import decision_table
from retrodict.monitoring.decision_table import compact_decisions
from retrodict.workspace import Workspace
decision_table._ROWS = 3
step = int(sys.argv[2])
workspace = Workspace(sys.argv[1])
calls = 0
def count(call):
    def counted(*arguments, **options):
        global calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), 9)
        result = call(*arguments, **options)
        calls += 1
        if calls == step:
            os.kill(os.getpid(), 9)
        return result
    return counted
tables = workspace.tables
tables.write = count(tables.write)
decision_table._complete_ledger = count(decision_table._complete_ledger)
print(compact_decisions(workspace).rows)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_is_completed_by_the_next_one(shop: Any, python: Any) -> None:
    """Before and after every step; then every decision is in the table once, and the audit holds."""
    workspace = shop()
    log(workspace, [[decided(n), decided(n + 1)] for n in range(0, 8, 2)])
    for step in range(1, 7):
        code, _, _ = python(KILLED, workspace.root, step).end()
        assert code == -9, step
    log(workspace, [[decided(8)]], 1)
    compact_decisions(workspace)
    assert places(workspace) == logged(workspace)
    names = {entry.object_id for entry in workspace.ledger.entries(action="dataset.version")}
    assert names == {f"dataset:{TABLE}@{one.version}" for one in workspace.tables.history(TABLE)}
    assert is_sound(workspace)


def test_an_altered_segment_is_not_compacted(shop: Any) -> None:
    """What was sealed before it is; nothing of it is taken for a decision."""
    workspace = shop()
    log(workspace, [[decided(1)], [decided(2)]])
    path = sorted((workspace.root / "state/streams/decisions/0").glob("*.seg"))[1]
    data, record = path.read_bytes(), encode_record(decided(2))
    from retrodict.stores.streams._frames import pack_frames

    path.write_bytes(data.replace(pack_frames([record]), pack_frames([encode_record(decided(3))])))
    with pytest.raises(IntegrityError, match="must have the root that was sealed"):
        compact_decisions(workspace)
    assert not workspace.tables.history(TABLE)


def test_rows_of_others_are_refused_and_a_rollback_is_made_good(shop: Any) -> None:
    """Segments that a rollback took away come again, once."""
    workspace = shop()
    log(workspace, [[decided(1)]])
    compact_decisions(workspace)
    log(workspace, [[decided(2)]])
    compact_decisions(workspace)
    from retrodict.data.versions import rollback

    rollback(workspace, TABLE, 0, "wrong")
    assert sum(places(workspace).values()) == 1
    assert compact_decisions(workspace).decisions == 1
    assert places(workspace) == logged(workspace)
    rows = workspace.tables.read(TABLE)
    workspace.tables.write(TABLE, rows, metadata={"retrodict.batch": "mine", "retrodict.mode": "append"})
    with pytest.raises(RefusedError, match="only a compaction must write the table of decisions"):
        compact_decisions(workspace)


def test_rows_that_are_too_old_leave_the_newest_version_and_do_not_come_back(shop: Any) -> None:
    """The border is exact: a row of exactly that age stays."""
    clock = SimulatedClock(NOW)
    workspace = shop(clock=clock)
    day = 86_400_000_000
    log(workspace, [[decided(n, time=NOW - n * day) for n in range(5)]])
    assert compact_decisions(workspace, keep="2d").expired == 2
    report = compact_decisions(workspace, keep="2d")
    assert (report.expired, report.rows, report.versions) == (0, 3, [])
    assert is_sound(workspace)


def test_an_erased_subject_is_in_no_row_before_or_after(shop: Any) -> None:
    """Rows that were there are taken out; decisions of before that are compacted later are left out, later ones not."""
    clock = SimulatedClock(NOW)
    root = shop(VIEWS, clock=clock).root
    new = UlidFactory(clock)
    with Project(root, actor="ana", clock=clock) as project:
        workspace = project.workspace
        rows = {"id": ["a", "b"], "customer": ["c-0001", "c-0002"], "at": [from_micros(NOW) - timedelta(days=9)] * 2}
        project.data.ingest("orders", pa.table(rows))

        def record(customer: str) -> Any:
            return decided(1, id=new(), time=clock.now(), entities={"customer": customer})

        log(workspace, [[record("c-0001"), record("c-0002")]])
        project.decisions.compact()
        log(workspace, [[record("c-0001"), record("c-0002")]])
        clock.move_to(NOW + 10_000_000)
        plan = project.features.erase("customer", key=["c-0001"])
        assert [(t.table, t.rows) for t in plan.tables] == [("orders", 1), (TABLE, 1)]
        done = project.features.erase("customer", key=["c-0001"], reason="asked", vacuum=True, pinned=True, yes=True)
        assert [(t.table, t.rows, t.older) for t in done.tables] == [("orders", 1, 0), (TABLE, 1, 0)]
        assert done.remaining == {"decision log": 2}
        clock.move_to(NOW + 20_000_000)
        log(workspace, [[record("c-0001")]])
        report = project.decisions.compact()
        assert (report.decisions, report.erased) == (2, 1)
        customers = project.workspace.tables.read(TABLE).column("entity__customer").to_pylist()
        assert customers == ["c-0002", "c-0002", "c-0001"]
        assert project.audit().ok
    (root / "definitions.py").write_text("")
    with (
        Project(root, actor="ana", clock=clock) as project,
        pytest.raises(DefinitionError, match="must be about every"),
    ):
        project.decisions.compact()


def test_it_is_a_table_like_any_other(shop: Any) -> None:
    """SQL, a view over it, its history."""
    root = shop().root
    with Workspace(root) as workspace:
        log(workspace, [[decided(n, time=NOW - n, score=n / 10) for n in range(1, 6)]])
    (root / "definitions.py").write_text("""
from retrodict import Entity, FeatureView, Source, Table, agg
decisions = Table("decisions", key="id")
past = Source("past", decisions, event_time="time", sequence="id")
asked = FeatureView("asked", Entity("customer", keys=["entity__customer"]), past, [
    agg.mean("score", over="7d"), agg.count(over="7d")])
""")
    with Project(root, actor="ana", clock=SimulatedClock(NOW)) as project:
        project.decisions.compact()
        assert json.loads(json.dumps(project.data.history(TABLE).to_dict()))
        frame = project.features.frame(
            pa.table({"entity__customer": ["3"], "at": [from_micros(NOW)]}), ["asked"], at="at"
        )
        assert frame.column("asked__mean_score_7d").to_pylist() == [0.3]
        folder = Path(root) / "state/tables" / TABLE
        assert duckdb.sql(f"SELECT sum(score) FROM '{folder}/**/*.parquet'").fetchall() == [(1.5,)]
