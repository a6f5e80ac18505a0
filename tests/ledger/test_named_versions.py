"""Versions of tables that no signed entry names are findings, and nobody reads them, whatever was done to a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict import Project
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError
from retrodict.data.quarantine import quarantined_rows
from retrodict.data.versions import adopt, compact, rollback, vacuum
from retrodict.workspace import Workspace

from .conftest import recomputed

Wheres = Callable[[Workspace], set[tuple[str, str]]]
Sql = Callable[..., list[dict[str, Any]]]

DEFINITIONS = """
from retrodict import Check, Table
sales = Table("sales", key="id", columns={"id": "int"}, checks=[Check.between("x", 0, 100)])
"""


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    """Three batches of sales, one row of each in quarantine."""
    project = make_project(DEFINITIONS)
    for batch in range(3):
        Project(project.root, actor="ann").data.ingest("sales", rows(batch))
    return project


def rows(batch: int) -> pa.Table:
    return pa.table({"id": [2 * batch, 2 * batch + 1], "x": [float(batch), 101.0]})


def ids(project: Workspace, version: int | None = None) -> list[int]:
    return project.tables.read("sales", version).column("id").to_pylist()


def table(project: Workspace, name: str = "sales") -> Path:
    return project.root / "state" / "tables" / name


def log(project: Workspace, version: int, name: str = "sales") -> Path:
    return table(project, name) / "_delta_log" / f"{version:020d}.json"


def write_by_hand(project: Workspace, name: str = "sales", **columns: Any) -> None:
    """A version by another program."""
    path, mode = table(project, name), "append" if log(project, 0, name).exists() else "error"
    deltalake.write_deltalake(path, pa.table(columns), mode=mode)  # type: ignore[arg-type]


def foreign(project: Workspace) -> None:
    write_by_hand(project, id=[666], x=[6.0], _row=[0], _batch=["mine"])


def test_a_project_that_nobody_touched(project: Workspace, wheres: Wheres) -> None:
    """Whatever makes a version names it: batches, quarantine, resubmission, compaction, rollback, vacuum."""
    face = Project(project.root, actor="ann")
    repaired = project.root / "repaired.jsonl"
    batch = quarantined_rows(project, "sales").column("batch")[0].as_py()
    repaired.write_text(json.dumps({"id": 50, "x": 1.0, "_batch": batch, "_row": 1}) + "\n")
    face.data.quarantine.resubmit("sales", repaired)
    compact(project, "sales")
    rollback(project, "sales", 1, reason="try")
    vacuum(project, "sales", dry_run=False, older_than="0s")
    assert wheres(project) == set()
    with project.records.write() as connection:  # the statements are only for what a death leaves
        connection.exec_driver_sql("DELETE FROM ledger_versions")
    assert wheres(project) == set()
    assert ids(project) == [0, 2]
    assert len(project.tables.names()) == 3


def test_a_foreign_version_is_named_and_not_read(project: Workspace, wheres: Wheres) -> None:
    """Neither as the newest nor by its number; nothing is written on top of it until it is taken out."""
    before = ids(project), len(project.tables.history("sales"))
    foreign(project)
    foreign(project)
    assert wheres(project) == {("unsigned", "table sales, version 3"), ("unsigned", "table sales, version 4")}
    for workspace in (project, Workspace(project.root, actor="ben")):
        assert (ids(workspace), len(workspace.tables.history("sales"))) == before
        with pytest.raises(NotFoundError, match="Known: 0 to 2"):
            ids(workspace, 3)
        for call in (lambda w=workspace: Project(w.root).data.ingest("sales", rows(3)),
                     lambda w=workspace: rollback(w, "sales", 0, reason="away"),
                     lambda w=workspace: compact(w, "sales")):  # fmt: skip
            with pytest.raises(IntegrityError, match=r"names; got 'version 3 by other hands'.*audit adopt sales"):
                call()
    log(project, 3).unlink()
    log(project, 4).unlink()
    assert Project(project.root).data.ingest("sales", rows(3)).version == 3
    assert wheres(project) == set()
    assert ids(project) == [0, 2, 4, 6]


def test_a_foreign_version_of_a_quarantine_and_a_foreign_table(project: Workspace, wheres: Wheres) -> None:
    """What lies beside a table belongs to it, and a table that nothing ever named is none."""
    waiting = quarantined_rows(project, "sales").num_rows
    extra = project.tables.read("sales__quarantine").slice(0, 1)
    deltalake.write_deltalake(table(project, "sales__quarantine"), extra, mode="append")
    write_by_hand(project, "orders", id=[1])
    write_by_hand(project, "sales__resubmitted", batch=["b"], row=[1])
    assert quarantined_rows(project, "sales").num_rows == waiting
    assert project.tables.names() == ["sales", "sales__quarantine"]
    assert project.tables.history("orders") == []
    tables = {"sales__quarantine, version 3", "orders, version 0", "sales__resubmitted, version 0"}
    assert wheres(project) == {("unsigned", f"table {name}") for name in tables}


def test_replays_do_not_read_a_foreign_version(tmp_path: Path) -> None:
    """A decision is made again by the rows that the ledger names, and comes out exact."""
    from tests.serving.project import make_project

    root = tmp_path / "parcels"
    root.mkdir()
    make_project(root).close()
    with Project(root, actor="ana") as p:
        values = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
        ref = p.decide("promise", **values, at="2024-02-20T10:00:00Z").ref
        newest = p.workspace.tables.read("parcels").slice(0, 40)
        deltalake.write_deltalake(root / "state/tables/parcels", newest, mode="append")
        assert p.replay_decision(ref).exact
        assert [finding.where for finding in p.audit().findings] == ["table parcels, version 1"]


@pytest.mark.parametrize("version", [0, 1, 2])
def test_an_edited_entry_of_a_log(version: int, project: Workspace, wheres: Wheres) -> None:
    """A letter of the time, or another list of files: reading says so, and does not go on with an older version."""
    path = log(project, version)
    path.write_text(path.read_text().replace('"timestamp":1', '"timestamp":2', 1))
    assert wheres(project) == {("altered", f"dataset:sales@{version} (entry {version + 2})")}
    for workspace in (project, Workspace(project.root)):
        with pytest.raises(IntegrityError, match=f"table sales, version {version}: .*; got 'another entry'"):
            ids(workspace)


def test_versions_taken_back_by_hand(project: Workspace, wheres: Wheres) -> None:
    """The newest entries of the log removed: the table does not quietly have fewer rows."""
    kept = log(project, 2).read_bytes()
    log(project, 2).unlink()
    assert {where for _, where in wheres(project)} == {"dataset:sales@2 (entry 4)"}
    for workspace in (project, Workspace(project.root)):
        with pytest.raises(IntegrityError, match=r"version 2: .*; got 'none'"):
            ids(workspace)
    log(project, 2).write_bytes(kept)
    shutil.rmtree(table(project))
    with pytest.raises(IntegrityError, match=r"version 0: .*; got 'none'"):
        ids(project)


def test_a_version_replaced_by_a_foreign_one(project: Workspace, wheres: Wheres) -> None:
    """Of the same number, with files of its own."""
    log(project, 2).unlink()
    foreign(project)
    assert wheres(project) == {("altered", "dataset:sales@2 (entry 4)")}
    with pytest.raises(IntegrityError, match=r"version 2: .*; got 'another entry'"):
        ids(project)


def test_forged_checkpoints_for_other_readers(project: Workspace, wheres: Wheres) -> None:
    """They are never believed; one that says more than the entries is damage."""
    deltalake.DeltaTable(table(project)).create_checkpoint()
    path = next((table(project) / "_delta_log").glob("*.checkpoint.parquet"))
    checkpoint = pq.read_table(path)
    pq.write_table(checkpoint.slice(0, checkpoint.num_rows - 1), path)
    assert (ids(Workspace(project.root)), wheres(project)) == ([0, 2, 4], set())
    path.rename(path.with_name(f"{7:020d}.checkpoint.parquet"))
    assert wheres(project) == {("altered", "table sales")}
    with pytest.raises(IntegrityError, match="damaged or cut off"):
        ids(project)


def test_rows_of_a_quarantine_edited(project: Workspace, wheres: Wheres) -> None:
    """A data file written anew with one row repaired."""
    (path, *_) = sorted(table(project, "sales__quarantine").glob("*.parquet"))
    waiting = pq.read_table(path)
    place = waiting.column_names.index("original")
    pq.write_table(waiting.set_column(place, "original", pa.array(["{}"] * waiting.num_rows)), path)
    assert wheres(project) == {("altered", "dataset:sales@0 (entry 2)")}


# deletions ----------------------------------------------------------------------------------------------------


def test_a_forged_deletion_excuses_nothing(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """An entry that names the deleted file, appended to the chain or put over another one, without the key."""
    (file,) = project.tables.files("sales", 0)
    (table(project) / file.path).unlink()
    gone = ("removed", "dataset:sales@0 (entry 2)")
    assert wheres(project) == {gone}
    payload = json.dumps({"deleted": [f"sales/{file.path}"], "versions": [0]}, separators=(",", ":"))
    last = sql("SELECT * FROM ledger_entries ORDER BY sequence DESC LIMIT 1")[0]
    row = {**last, "sequence": last["sequence"] + 1, "previous": last["hash"], "action": "dataset.vacuum",
           "object_id": "dataset:sales", "payload": payload}  # fmt: skip
    row["hash"] = recomputed(row)
    sql(f"INSERT INTO ledger_entries ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())
    assert wheres(project) == {gone, ("unsigned", "entry 5")}
    sql("DELETE FROM ledger_entries WHERE sequence = 5")
    forged = {**row, "sequence": 3, "previous": sql("SELECT hash FROM ledger_entries WHERE sequence = 2")[0]["hash"]}
    sql("UPDATE ledger_entries SET action = ?, payload = ?, hash = ? WHERE sequence = 3",
        "dataset.vacuum", payload, recomputed({**last, **forged}))  # fmt: skip
    assert gone in wheres(project)


def test_a_vacuum_in_the_log_alone_excuses_nothing(project: Workspace, wheres: Wheres) -> None:
    """The table's own log says that the version ended, by other hands."""
    (file,) = project.tables.files("sales", 0)
    (table(project) / file.path).unlink()
    info = {"timestamp": 1, "operation": "VACUUM", "userMetadata": "{}", "vacuumed": [0]}
    log(project, 3).write_text(json.dumps({"commitInfo": info}) + "\n")
    assert wheres(project) == {("removed", "dataset:sales@0 (entry 2)"), ("unsigned", "table sales, version 3")}


def test_a_vacuumed_version_put_back(project: Workspace, wheres: Wheres) -> None:
    """Its file restored from a copy, and a version by other hands that holds it again."""
    Project(project.root).data.ingest("sales", rows(5), replace=True)
    (file,) = project.tables.files("sales", 0)
    copy = (table(project) / file.path).read_bytes()
    vacuum(project, "sales", dry_run=False, older_than="0s")
    assert wheres(project) == set()
    (table(project) / file.path).write_bytes(copy)
    with pytest.raises(NotFoundError, match="was vacuumed at"):
        ids(project, 0)
    action = json.loads(log(project, 0).read_text().splitlines()[-1])
    newest = project.tables.history("sales")[-1].version
    log(project, newest + 1).write_text(json.dumps({"commitInfo": {"timestamp": 1}}) + "\n" + json.dumps(action) + "\n")
    assert wheres(project) == {("unsigned", f"table sales, version {newest + 1}")}
    assert ids(project) == [10]


# deaths, statements, adoption ---------------------------------------------------------------------------------

DIES = """
import os, signal, sys
from retrodict import Project
import pyarrow as pa
p = Project(sys.argv[1], actor="ann")
real = p.workspace.tables.write
def write(name, *args, **kwargs):
    version = real(name, *args, **kwargs)
    if name == "sales":
        os.kill(os.getpid(), signal.SIGKILL)
    return version
p.workspace.tables.write = write
p.data.ingest("sales", pa.table({"id": [20, 21], "x": [1.0, 101.0]}))
"""


def test_a_version_whose_writer_died_is_ours(project: Workspace, python: Any, wheres: Wheres) -> None:
    """Killed between the version and its entry: it is read, no finding, and the same call enters it."""
    assert python(DIES, project.root).end()[0] == -9
    assert len(project.ledger.entries(action="dataset.version")) == 3
    assert (ids(project), wheres(project)) == ([0, 2, 4, 20], set())
    report = Project(project.root).data.ingest("sales", pa.table({"id": [20, 21], "x": [1.0, 101.0]}))
    assert (report.version, report.already) == (3, True)
    assert (ids(project), wheres(project)) == ([0, 2, 4, 20], set())


def test_a_statement_that_nobody_signed_admits_nothing(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Copied from another version, or with another number: the signature is over all of it."""
    foreign(project)
    sha = hashlib.sha256(log(project, 3).read_bytes()).hexdigest()
    (row,) = sql("SELECT * FROM ledger_versions WHERE name = 'sales' AND version = 2")
    for change in ({"digest": sha, "version": 3}, {"digest": sha}):
        forged = row | change
        sql("INSERT INTO ledger_versions VALUES (?, ?, ?, ?, ?, ?)", *forged.values())
    assert (ids(project), wheres(project)) == (
        [0, 2, 4],
        {
            ("unsigned", "table sales, version 3"),
            *(("altered", f"statement on table sales, version {n}") for n in (2, 3)),
        },
    )


def test_an_entry_altered_to_name_a_foreign_version_admits_nothing(
    project: Workspace, sql: Sql, wheres: Wheres
) -> None:
    """It does not give its hash any more: a read does not wait for an audit to say so."""
    foreign(project)
    sha = hashlib.sha256(log(project, 3).read_bytes()).hexdigest()
    (row,) = sql("SELECT sequence, payload FROM ledger_entries WHERE object_id = 'dataset:sales@2'")
    payload = json.loads(row["payload"])
    payload["files"][f"sales/_delta_log/{3:020d}.json"] = sha
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    sql("UPDATE ledger_entries SET payload = ? WHERE sequence = ?", text, row["sequence"])
    assert ids(Workspace(project.root)) == [0, 2, 4]
    assert {("altered", "entry 4"), ("unsigned", "table sales, version 3")} <= wheres(project)


def test_versions_of_another_program_are_taken_in_on_purpose(project: Workspace, wheres: Wheres) -> None:
    """With who and why; what was altered since is a finding again, and a table of its own is taken in as well."""
    foreign(project)
    write_by_hand(project, "orders", id=[1])
    with pytest.raises((InputError, RefusedError), match="reason"):
        adopt(project, "sales", reason=" ")
    with pytest.raises(NotFoundError, match="'sales'"):
        adopt(project, "slaes", reason="the nightly job")
    (entry,) = Project(project.root, actor="ben").ledger.adopt("sales", reason="the nightly job")
    assert (entry.action, entry.actor, entry.payload["reason"]) == ("dataset.adopt", "ben", "the nightly job")
    adopt(project, "orders", reason="the nightly job")
    assert wheres(project) == set()
    assert (ids(project), project.tables.read("orders").num_rows) == ([0, 2, 4, 666], 1)
    assert Project(project.root).data.ingest("sales", rows(4)).version == 4
    (path,) = table(project, "orders").glob("*.parquet")
    write_by_hand(project, "orders", id=[2])
    assert wheres(project) == {("unsigned", "table orders, version 1")}
    os.truncate(path, path.stat().st_size - 1)
    assert ("altered", "dataset:orders (entry 6)") in wheres(project)


def test_a_restored_backup_of_a_table_is_gone_on_from(project: Workspace, wheres: Wheres) -> None:
    """What is gone stays a finding; the rest is read and written again."""
    log(project, 2).unlink()
    adopt(project, "sales", reason="the backup of Monday")
    assert ids(project) == [0, 2]
    assert Project(project.root).data.ingest("sales", rows(7)).version == 2
    assert {where for _, where in wheres(project)} == {"dataset:sales@2 (entry 4)"}
    assert ids(Workspace(project.root)) == [0, 2, 14]


def test_a_new_key_goes_on_with_what_the_old_one_signed(project: Workspace, python: Any, wheres: Wheres) -> None:
    """A statement counts by the key of its time."""
    project.tables.write("notes", pa.table({"n": [1]}))
    project.ledger.renew_key("yearly")
    assert (wheres(project), project.tables.read("notes").num_rows) == (set(), 1)


def test_reading_does_not_scan_the_ledger(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was appended since is looked up by the table, and nothing at all where nothing was."""
    ids(project)
    statements: list[str] = []
    real = project.records.read

    def counted() -> Any:
        statements.append("read")
        return real()

    monkeypatch.setattr(project.records, "read", counted)
    for _ in range(5):
        ids(project)
    assert statements == []
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    statements.clear()
    assert (ids(project), len(statements)) == ([0, 2, 4], 2)
