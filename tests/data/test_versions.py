"""Versions: what a reference means, tags and holds, reading as of a time, going back, keeping and deleting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.clock import SimulatedClock, format_time, parse_time
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError, RetryableError
from retrodict.data.versions import (
    compact,
    diff,
    list_tags,
    live_batches,
    read,
    read_batches,
    references,
    remove_tag,
    resolve,
    rollback,
    set_tag,
    tag_history,
    vacuum,
)
from retrodict.ledger import verify
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Source, Table
sales = Table("sales", key="id", columns={"at": "time", "known": "time"})
planes = Table("planes", key="id")
slow = Source("slow", sales, event_time="at", delay="2h")
told = Source("told", sales, event_time="at", known_at="known")
timeless = Source("timeless", planes)
"""
START = parse_time("2024-03-01T08:00:00Z")


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START)


@pytest.fixture
def project(make_project: Callable[..., Workspace], clock: SimulatedClock) -> Workspace:
    return make_project(DEFINITIONS, clock=clock)


def write(project: Workspace, name: str, ids: list[int], mode: Any = "append", batch: str = "") -> int:
    metadata = {"retrodict.mode": mode, "retrodict.batch": batch or f"batch of {ids}"}
    return project.tables.write(name, pa.table({"id": ids}), mode=mode, metadata=metadata)


def ids(project: Workspace, ref: str) -> list[int]:
    found: list[int] = read(project, ref).column("id").to_pylist()
    return found


def audit(project: Workspace) -> list[Any]:
    found = verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)
    return found.findings


# references ------------------------------------------------------------------------------------------------------


def test_what_references_mean(project: Workspace) -> None:
    """Newest, number, tag, with and without the kind."""
    for n in range(3):
        write(project, "sales", [n])
    set_tag(project, "sales@1", "golden")
    for text, version in {"sales": 2, "sales@1": 1, "sales@golden": 1, "dataset:sales@0": 0}.items():
        assert str(resolve(project, text)) == f"dataset:sales@{version}"


def test_a_time_means_the_newest_version_by_then(project: Workspace) -> None:
    """At its own time a version counts, a microsecond earlier not; a day is its first instant."""
    for n in range(3):
        write(project, "sales", [n])
        time.sleep(0.005)
    history = project.tables.history("sales")
    for version in history:
        assert resolve(project, f"sales@{format_time(version.time)}").version == version.version
    assert resolve(project, f"sales@{format_time(history[2].time - 1)}").version == 1
    assert resolve(project, "sales@2999-01-01").version == 2
    first = format_time(history[0].time)
    with pytest.raises(NotFoundError, match=f"committed by that time; got '2001-01-01'. The first one is from {first}"):
        resolve(project, "sales@2001-01-01")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slaes", "Did you mean the table 'sales'"),
        ("sales@7", "Known: 0 to 0"),
        ("sales@goldne", "Did you mean the tag 'golden'"),
        ("sales@", "Write it like 'flights@12'"),
        ("model:sales@1", "Write it like 'flights@12'"),
        ("sales@2024-03-01T00:00", "a time must carry its zone"),
    ],
)
def test_what_is_no_reference_is_told_what_there_is(project: Workspace, text: str, said: str) -> None:
    """Near names, known versions, the form."""
    write(project, "sales", [1])
    set_tag(project, "sales", "golden")
    with pytest.raises(InputError, match=said):
        resolve(project, text)


def test_a_tag_knows_its_version_by_content(project: Workspace) -> None:
    """A log entry that was changed is not the version that was tagged."""
    write(project, "sales", [1])
    write(project, "sales", [2])
    set_tag(project, "sales@0", "golden")
    entry = next(Path(project.root).rglob("sales/_delta_log/00000000000000000000.json"))
    entry.write_text(entry.read_text() + "\n")
    with pytest.raises(
        IntegrityError, match=r"table sales, version 0: .* every version that the ledger names, as it was written"
    ):
        resolve(project, "sales@golden")


# tags and holds --------------------------------------------------------------------------------------------------


def test_the_history_of_a_tag_is_a_query(project: Workspace, clock: SimulatedClock) -> None:
    """What golden meant on a day, who moved it, and why."""
    write(project, "sales", [1])
    write(project, "sales", [2])
    set_tag(project, "sales@0", "golden")
    clock.move_to(START + 10)
    set_tag(project, "sales@1", "golden", reason="newer")
    clock.move_to(START + 20)
    remove_tag(project, "sales", "golden", reason="done")
    assert [(t.action, t.version, t.reason) for t in tag_history(project, "sales", "golden")] == [
        ("set", 0, ""), ("move", 1, "newer"), ("remove", 1, "done"),
    ]  # fmt: skip
    then = [[t.version for t in list_tags(project, "sales", at=START + at)] for at in (-1, 0, 9, 10, 20)]
    assert then == [[], [0], [0], [1], []]
    entries = project.ledger.entries(object_id="tag:sales@golden")
    assert [(e.action, e.payload["dataset"]) for e in entries] == [
        ("tag.set", "dataset:sales@0"), ("tag.move", "dataset:sales@1"), ("tag.remove", "dataset:sales@1"),
    ]  # fmt: skip
    assert audit(project) == []


def test_the_same_tag_twice_changes_nothing(project: Workspace) -> None:
    """No second row, no second entry."""
    write(project, "sales", [1])
    first = set_tag(project, "sales", "golden")
    assert set_tag(project, "sales@0", "golden") == first
    assert len(project.ledger.entries(action="tag.set")) == 1


def test_a_legal_hold_stays_until_it_is_released_with_a_reason(project: Workspace) -> None:
    """Not moved, not removed; released, both."""
    write(project, "sales", [1])
    write(project, "sales", [2])
    set_tag(project, "sales@0", "case")
    assert set_tag(project, "sales@0", "case", hold=True).action == "hold"
    for attempt in (
        lambda: set_tag(project, "sales@1", "case", hold=True),
        lambda: remove_tag(project, "sales", "case", reason="over"),
    ):
        with pytest.raises(RefusedError, match=r"a legal hold must not be moved or removed.*--release --reason"):
            attempt()
    with pytest.raises(InputError, match="the release of a legal hold must have a reason"):
        set_tag(project, "sales@1", "case", release=True)
    assert set_tag(project, "sales@1", "case", hold=True, release=True, reason="page 2").hold
    assert set_tag(project, "sales@1", "case", release=True, reason="closed").action == "release"
    remove_tag(project, "sales", "case", reason="over")
    assert list_tags(project) == []
    assert audit(project) == []


@pytest.mark.parametrize("name", ["12", "Golden", "a b", "", "2024-03-01", "x" * 64])
def test_a_tag_cannot_read_like_a_version_or_a_time(project: Workspace, name: str) -> None:
    """So a reference has one meaning."""
    write(project, "sales", [1])
    with pytest.raises(InputError, match="a tag must be a lower-case letter"):
        set_tag(project, "sales", name)


def test_a_tag_that_is_not_there(project: Workspace) -> None:
    """The nearest is named; a removal says why."""
    write(project, "sales", [1])
    set_tag(project, "sales", "golden")
    with pytest.raises(NotFoundError, match="Did you mean the tag 'golden'"):
        remove_tag(project, "sales", "goldem", reason="x")
    with pytest.raises(InputError, match="the removal of a tag must have a reason"):
        remove_tag(project, "sales", "golden", reason=" ")


def test_a_row_that_was_altered_is_found(project: Workspace) -> None:
    """The ledger vouches for every row of a tag."""
    import sqlite3

    write(project, "sales", [1])
    write(project, "sales", [2])
    set_tag(project, "sales@0", "golden")
    project.close()
    with sqlite3.connect(project.root / "state" / "records.db") as connection:
        connection.execute("UPDATE dataset_tags SET version = 1")
    connection.close()
    assert [finding.kind for finding in audit(project)] == ["altered"]


# reading ---------------------------------------------------------------------------------------------------------


def moments(*texts: str | None) -> pa.Array:
    return pa.array([None if t is None else parse_time(f"2024-03-01T{t}Z") for t in texts], pa.timestamp("us", "UTC"))


def test_rows_that_were_known_by_then(project: Workspace) -> None:
    """The edge is strict; a null clock was never known; the clock need not be among the columns."""
    rows = pa.table(
        {"id": [1, 2, 3], "at": moments("08:00", "09:00", "10:00"), "known": moments("12:00", None, "11:00")}
    )
    project.tables.write("sales", rows)

    def known(at: str, source: str) -> list[int]:
        got = read(project, "sales", columns=["id"], known_at=f"2024-03-01T{at}Z", source=source)
        assert got.column_names == ["id"]
        return got.column("id").to_pylist()

    assert (known("10:00", "slow"), known("10:00:00.000001", "slow"), known("11:00:01", "slow")) == ([], [1], [1, 2])
    assert (known("11:00", "told"), known("11:30", "told"), known("23:00", "told")) == ([], [3], [1, 3])
    with pytest.raises(InputError, match=r"got \['slow', 'told'\]. Name one with source="):
        read(project, "sales", known_at=START)
    with pytest.raises(NotFoundError, match="Did you mean the source 'slow'"):
        read(project, "sales", known_at=START, source="slwo")


def test_timeless_rows_were_always_known_and_a_table_without_a_source_has_no_clock(project: Workspace) -> None:
    """The first is read whole; the second asks for a definition."""
    write(project, "planes", [1, 2])
    write(project, "notes", [1])
    assert read(project, "planes", known_at=0).num_rows == 2
    with pytest.raises(InputError, match="Define a Source of this table"):
        read(project, "notes", known_at=0)


def test_reading_in_batches_is_reading(project: Workspace) -> None:
    """The same rows in the same order, and an empty answer has its columns."""
    count = 300_000
    at = pa.array(range(count), pa.timestamp("us", "UTC"))
    project.tables.write("sales", pa.table({"id": range(count), "at": at, "known": at}))
    batches = list(read_batches(project, "sales", known_at=200_000, source="told"))
    assert pa.Table.from_batches(batches).column("id").to_pylist() == list(range(200_000))
    assert max(batch.num_rows for batch in batches) < count
    assert read(project, "sales", known_at=0, source="told").column_names == ["id", "at", "known"]


# going back ------------------------------------------------------------------------------------------------------


def test_rollback_makes_a_new_version_of_the_old_content(project: Workspace) -> None:
    """Nothing is lost, the ledger says why, and the same call once more does nothing."""
    write(project, "sales", [1])
    write(project, "sales", [2])
    report = rollback(project, "sales", 0, "broken feed")
    assert (report.version, report.to, report.rows, report.already) == (2, 0, 1, False)
    assert (ids(project, "sales"), ids(project, "sales@1")) == ([1], [1, 2])
    again = rollback(project, "sales", "sales@0", "broken feed")
    assert (again.version, again.already) == (2, True)
    (entry,) = project.ledger.entries(action="dataset.rollback")
    assert (entry.object_id, entry.payload["to"], entry.payload["reason"]) == (
        "dataset:sales@2", "dataset:sales@0", "broken feed",
    )  # fmt: skip
    assert rollback(project, "sales", 1, "it was right").version == 3
    assert ids(project, "sales") == [1, 2]
    assert audit(project) == []


def test_a_rollback_that_was_killed_before_its_entry_is_completed(project: Workspace) -> None:
    """By the same call, with the reason that was given then."""
    write(project, "sales", [1])
    write(project, "sales", [2])
    metadata = {"retrodict.mode": "restore", "retrodict.restored": "0", "retrodict.reason": "first"}
    project.tables.restore("sales", 0, metadata=metadata)
    assert rollback(project, "sales", 0, "second").already
    (entry,) = project.ledger.entries(action="dataset.rollback")
    assert entry.payload["reason"] == "first"


def test_a_rollback_wants_a_reason_and_a_version_of_its_table(project: Workspace) -> None:
    """The message says how to say it."""
    write(project, "sales", [1])
    write(project, "planes", [1])
    with pytest.raises(InputError, match="a rollback must have a reason"):
        rollback(project, "sales", 0, "")
    with pytest.raises(InputError, match="a table must be rolled back to a version of its own"):
        rollback(project, "sales", "planes@0", "x")
    with pytest.raises(NotFoundError, match="Did you mean the table 'sales'"):
        rollback(project, "salse", 0, "x")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["append", "overwrite", "restore", "compact", "vacuum"]), st.integers(0, 9)),
                min_size=1, max_size=8))  # fmt: skip
def test_live_batches_are_those_whose_rows_are_there(project: Workspace, steps: list[tuple[str, int]]) -> None:
    """Whatever was appended, replaced, put back, compacted or vacuumed: the rows themselves are the oracle."""
    name = f"t{len(project.tables.names())}"
    tables, number = project.tables, 0
    write(project, name, [0], batch="0")
    for what, at in steps:
        newest = tables.history(name)[-1].version
        if what in ("append", "overwrite"):
            number += 1
            write(project, name, [number], what, batch=str(number))
        elif what == "restore":
            readable = tables.vacuum(name, keep=(), dry_run=True)
            every = sorted({*readable.versions, *readable.retained})
            rollback(project, name, every[at % len(every)], "x")
        elif what == "compact":
            compact(project, name)
        else:
            tables.vacuum(name, keep=[newest])
    assert {int(batch) for batch in live_batches(tables, name)} == set(ids(project, name))


def test_a_live_batch_names_the_version_that_brought_it(project: Workspace) -> None:
    """Newest first; a table that does not exist has none."""
    write(project, "sales", [1], batch="a")
    write(project, "sales", [2], batch="b")
    write(project, "sales", [3], "overwrite", batch="c")
    rollback(project, "sales", 1, "x")
    write(project, "sales", [4], batch="d")
    assert list(live_batches(project.tables, "sales").items()) == [("d", 4), ("b", 1), ("a", 0)]
    assert live_batches(project.tables, "nothing") == {}


def test_a_restore_that_does_not_say_of_what_is_refused(project: Workspace) -> None:
    """Nobody can know which batches it holds."""
    write(project, "sales", [1])
    project.tables.restore("sales", 0, metadata={"retrodict.mode": "restore"})
    with pytest.raises(IntegrityError, match="a restored version must say which older one it restored"):
        live_batches(project.tables, "sales")


# keeping and deleting --------------------------------------------------------------------------------------------


def test_compact_keeps_rows_order_and_time_travel(project: Workspace) -> None:
    """Fewer files, the same rows, on record once; the second call has nothing to gain."""
    for n in range(5):
        write(project, "sales", [n])
    report = compact(project, "sales")
    assert (report.version, report.rows, report.files_before, report.files_after) == (5, 5, 5, 1)
    assert [ids(project, f"sales@{v}") for v in (5, 4, 1)] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1]]
    assert compact(project, "sales").version is None
    (entry,) = project.ledger.entries(action="dataset.compact")
    assert (entry.object_id, entry.payload["inputs"]) == ("dataset:sales@5", [["dataset:sales@4", "previous version"]])
    assert rollback(project, "sales", 4, "x").already
    assert diff(project, "sales@4", "sales@5").same
    assert audit(project) == []


def overwrites(project: Workspace, count: int) -> None:
    for n in range(count):
        write(project, "sales", [n], "overwrite")


def test_vacuum_deletes_what_nothing_refers_to(project: Workspace) -> None:
    """Tags, holds, things made from a version and the newest stay; each says who keeps it."""
    overwrites(project, 6)
    set_tag(project, "sales@1", "golden")
    set_tag(project, "sales@2", "case", hold=True)
    with project.ledger.transaction() as tx:
        tx.append("run.start", "run:R", inputs=[("dataset:sales@3", "training data")])
        tx.append("model.register", "model:m@1", inputs=[("run:R", "trained by")])
        tx.append("dataset.version", "dataset:sales@5", inputs=[("dataset:sales@4", "previous version")])
    plan = vacuum(project, "sales", dry_run=True, older_than="0s")
    assert (plan.deleted, plan.files) == ((0, 4), 2)
    assert {use.version: use.holders for use in plan.versions} == {
        0: (), 1: ("tag golden",), 2: ("legal hold case",), 3: ("model:m@1", "run:R (training data)"), 4: (),
        5: ("newest version",),
    }  # fmt: skip
    assert ids(project, "sales@0") == [0]
    done = vacuum(project, "sales", dry_run=False, older_than="0s")
    assert (done.deleted, done.files) == ((0, 4), 2)
    assert [ids(project, f"sales@{v}") for v in (1, 2, 3, 5)] == [[1], [2], [3], [5]]
    assert ids(project, "sales") == [5]
    with pytest.raises(NotFoundError, match="vacuum"):
        read(project, "sales@0")
    assert vacuum(project, "sales", dry_run=False, older_than="0s").files == 0


def test_young_versions_are_kept(project: Workspace) -> None:
    """Seven days unless said otherwise; versions that an earlier vacuum ended do not come back."""
    overwrites(project, 3)
    report = vacuum(project, "sales", dry_run=False)
    assert (report.files, report.versions[0].holders) == (0, ("younger than 7d",))
    vacuum(project, "sales", dry_run=False, older_than="0s")
    assert [use.retained for use in vacuum(project, "sales", dry_run=False).versions] == [False, False, True, True]


def test_names_that_look_alike_to_sql_are_told_apart(project: Workspace) -> None:
    """An underscore is no wildcard: what refers to a_b@0 does not keep axb@0."""
    for name in ("a_b", "axb"):
        project.tables.write(name, pa.table({"id": [1]}))
    with project.ledger.transaction() as tx:
        tx.append("run.start", "run:R", inputs=[("dataset:axb@0", "training data")])
    assert references(project, "a_b") == {}
    assert references(project, "axb") == {0: ("run:R (training data)",)}


def test_a_table_that_is_gone_itself_keeps_nothing(project: Workspace) -> None:
    """A frame was made from a version; vacuumed, it no longer needs it."""
    for name in ("rows", "frame"):
        for version in range(2):
            project.tables.write(name, pa.table({"x": [version]}), mode="overwrite")
            with project.ledger.transaction() as tx:
                inputs = [(f"dataset:rows@{version}", "source rows")] if name == "frame" else []
                tx.append("dataset.version", f"dataset:{name}@{version}", {}, inputs=inputs)
    assert references(project, "rows") == {
        0: ("dataset:frame@0 (source rows)",), 1: ("dataset:frame@1 (source rows)",)
    }  # fmt: skip
    assert vacuum(project, "frame", dry_run=False, older_than="0s").deleted == (0,)
    assert references(project, "rows") == {1: ("dataset:frame@1 (source rows)",)}


def test_the_ledger_names_what_a_vacuum_deleted_before_it_does(project: Workspace) -> None:
    """Everything an audit misses is in the list of an entry, and the list is made once."""
    overwrites(project, 3)
    for n in range(3):
        (file,) = project.tables.files("sales", n)
        path = f"sales/{file.path}"
        with project.ledger.transaction() as tx:
            tx.append("dataset.version", f"dataset:sales@{n}", {"files": {path: project.tables.file_digest(path)}})
    vacuum(project, "sales", dry_run=False, older_than="0s")
    (entry,) = project.ledger.entries(object_id="dataset:sales", action="dataset.vacuum")
    assert entry.payload["versions"] == [0, 1]
    assert len(entry.payload["deleted"]) == 2
    for finding in audit(project):
        assert any(path in finding.detail for path in entry.payload["deleted"])


def test_a_vacuum_that_was_killed_is_completed(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the entry and the deletion: the same call deletes and appends no second entry."""
    overwrites(project, 3)
    real = type(project.tables).vacuum

    def dies(self: Any, name: str, *, keep: Any, dry_run: bool = False) -> Any:
        if not dry_run:
            raise KeyboardInterrupt
        return real(self, name, keep=keep, dry_run=True)

    with monkeypatch.context() as patch:
        patch.setattr(type(project.tables), "vacuum", dies)
        with pytest.raises(KeyboardInterrupt):
            vacuum(project, "sales", dry_run=False, older_than="0s")
    assert ids(project, "sales@0") == [0]
    assert vacuum(project, "sales", dry_run=False, older_than="0s").files == 2
    assert len(project.ledger.entries(object_id="dataset:sales", action="dataset.vacuum")) == 1


def test_what_begins_to_refer_meanwhile_stops_a_vacuum(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between counting and deleting a run takes a version: nothing is deleted."""
    overwrites(project, 2)
    real = type(project.tables).vacuum

    def meanwhile(self: Any, name: str, *, keep: Any, dry_run: bool = False) -> Any:
        if keep and not project.ledger.entries(object_id="run:R"):
            with project.ledger.transaction() as tx:
                tx.append("run.start", "run:R", inputs=[("dataset:sales@0", "training data")])
        return real(self, name, keep=keep, dry_run=dry_run)

    monkeypatch.setattr(type(project.tables), "vacuum", meanwhile)
    with pytest.raises(RetryableError, match="nothing must begin to refer to a version"):
        vacuum(project, "sales", dry_run=False, older_than="0s")
    assert ids(project, "sales@0") == [0]


@pytest.mark.slow
def test_old_versions_after_a_thousand_appends_compaction_and_vacuum(project: Workspace) -> None:
    """Tagged versions read as on the first day."""
    for n in range(1000):
        write(project, "sales", [n])
    for version in (0, 10, 500):
        set_tag(project, f"sales@{version}", f"t{version}")
    compact(project, "sales")
    write(project, "sales", [-1], "overwrite")
    report = vacuum(project, "sales", dry_run=False, older_than="0s")
    assert report.files > 0
    for version in (0, 10, 500):
        assert ids(project, f"sales@t{version}") == list(range(version + 1))
    assert ids(project, "sales") == [-1]
    assert diff(project, "sales@t10", "sales@t500").added == 490
