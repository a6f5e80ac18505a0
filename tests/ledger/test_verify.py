"""Verification: whatever is touched, past everything of ours, is reported, and by its name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retrodict.core.clock import SimulatedClock
from retrodict.core.errors import IntegrityError, NotFoundError
from retrodict.ledger import AuditFinding, AuditReport, prove, verify
from retrodict.workspace import Workspace

from .conftest import recomputed

SEGMENT = f"{0:020d}.seg"
Audit = Callable[[Workspace], AuditReport]
Wheres = Callable[[Workspace], set[tuple[str, str]]]
Sql = Callable[..., list[dict[str, Any]]]

OTHER: dict[str, list[Any]] = {
    "sequence": [77, 0, -3],
    "time": [1, -1, 2**62, "noon"],
    "actor": ["bob", "", b"\xff", 7],
    "action": ["note.write", ""],
    "object_id": ["code:2", ""],
    "payload": ["{}", "[]", "not json", "", "null", '{"a":NaN}', b"{}", "[" * 50_000],
    "previous": ["0" * 64, "f" * 64, "", "not hex", b"x"],
    "hash": ["0" * 64, "", "not hex"],
}


@pytest.mark.parametrize("column", OTHER)
def test_any_field_of_any_entry(column: str, project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Each entry in turn, with each wrong value; the finding names it, and the rest is still looked at."""
    rows = sql("SELECT * FROM ledger_entries ORDER BY sequence")
    for value in OTHER[column]:
        for row in rows:
            if row[column] == value:
                continue
            sql(f"UPDATE ledger_entries SET {column} = ? WHERE sequence = ?", value, row["sequence"])
            named = {where for _, where in wheres(project)}
            assert f"entry {row['sequence']}" in named, (value, row["sequence"], named)
            now = value if column == "sequence" else row["sequence"]
            fields = ", ".join(f"{name} = ?" for name in row)
            sql(f"UPDATE ledger_entries SET {fields} WHERE sequence = ?", *row.values(), now)
    assert wheres(project) == set()


def test_the_same_facts_in_another_spelling(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """White space or a key twice: the hash of the parsed facts would not change, the bytes did."""
    for change in ("replace(payload, ':', ': ')", 'replace(payload, \'{"files"\', \'{"files":{},"files"\')'):
        before = sql("SELECT payload FROM ledger_entries WHERE sequence = 3")[0]["payload"]
        sql(f"UPDATE ledger_entries SET payload = {change} WHERE sequence = 3")
        assert ("altered", "entry 3") in wheres(project)
        sql("UPDATE ledger_entries SET payload = ? WHERE sequence = 3", before)


@pytest.mark.parametrize("sequence", [1, 3, 5])
def test_an_entry_removed_from_the_middle(sequence: int, project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Named, though it is not there any more."""
    sql("DELETE FROM ledger_entries WHERE sequence = ?", sequence)
    assert ("removed", f"entry {sequence}") in wheres(project)


def test_entries_removed_and_the_rest_moved_up(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Closing the gap moves numbers, which are in the hashes."""
    sql("DELETE FROM ledger_entries WHERE sequence = 3")
    for sequence in (4, 5, 6):
        sql("UPDATE ledger_entries SET sequence = ? WHERE sequence = ?", sequence - 1, sequence)
    assert {("altered", "entry 3"), ("altered", "entry 4"), ("altered", "entry 5")} <= wheres(project)


@pytest.mark.parametrize("last", [0, 1, 3, 5])
def test_a_cut_off_end(last: int, project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """The chain that is left is in order; the signed checkpoint is not satisfied."""
    sql("DELETE FROM ledger_entries WHERE sequence > ?", last)
    sql("DELETE FROM ledger_edges WHERE sequence > ?", last)
    assert ("cut off", "entry 6") in wheres(project)


def test_a_cut_off_end_that_is_written_anew(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """The ledger itself refuses to sign the same number twice; told why, it goes on, and both stay findings."""
    sql("DELETE FROM ledger_entries WHERE sequence > 4")
    sql("DELETE FROM ledger_edges WHERE sequence > 4")
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"signed last; got 'entry 4 .* to entry 6'.*audit accept"):
            _append(project)
    assert project.ledger.accept_end("the backup of Monday").sequence == 5
    _append(project)
    project.ledger.sign_end()
    assert {("altered", "entry 6"), ("accepted", "entry 5")} <= wheres(project)


def _append(project: Workspace, action: str = "note.write") -> None:
    with project.ledger.transaction() as tx:
        tx.append(action, "note:1")


def _foreign(sql: Sql, action: str = "model.approve", **payload: Any) -> None:
    """Append an entry with a fitting hash, as somebody with the database and without the key can."""
    last = sql("SELECT * FROM ledger_entries ORDER BY sequence DESC LIMIT 1")[0]
    row = {**last, "sequence": last["sequence"] + 1, "previous": last["hash"], "action": action,
           "payload": json.dumps(payload, sort_keys=True, separators=(",", ":"))}  # fmt: skip
    row["hash"] = recomputed(row)
    sql(f"INSERT INTO ledger_entries ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())


def test_entries_appended_without_the_key(project: Workspace, sql: Sql, wheres: Wheres, checkpoints: Path) -> None:
    """They are named, and nothing is appended to them: what is signed over would be believed."""
    _foreign(sql)
    assert wheres(project) == {("unsigned", "entry 7")}
    _foreign(sql)
    size = checkpoints.stat().st_size
    for call in (lambda: _append(project), project.ledger.sign_end, lambda: project.ledger.renew_key("why")):
        with pytest.raises(IntegrityError, match="entry 8 at the end, signed up to entry 6"):
            call()
    assert (wheres(project), checkpoints.stat().st_size) == ({("unsigned", "entry 7 to 8")}, size)


def test_a_foreign_entry_cannot_name_its_own_key(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Signed by it and noted as the end: the key that signed before did not endorse it."""
    mine = Ed25519PrivateKey.generate()
    public_key = mine.public_key().public_bytes_raw().hex()
    _foreign(sql, "ledger.key", public_key=public_key, reason="mine")
    (end,) = sql("SELECT sequence, time, hash FROM ledger_entries WHERE sequence = 7")
    statement = json.dumps({**end, "retrodict": "checkpoint"}, sort_keys=True, separators=(",", ":"))
    sql("UPDATE ledger_signed_ends SET sequence = 7, time = ?, hash = ?, public_key = ?, signature = ?",
        end["time"], end["hash"], public_key, mine.sign(statement.encode()).hex())  # fmt: skip
    assert ("renewed", "entry 7") in wheres(project)
    with pytest.raises(IntegrityError, match="must be the one that the ledger names"):
        _append(project)


def test_a_retired_key_signs_no_end(project: Workspace, sql: Sql, wheres: Wheres, checkpoints: Path) -> None:
    """Who kept it can neither have entries signed over, nor stop the ledger with a statement on a far entry."""
    old = Ed25519PrivateKey.from_private_bytes(project.config.path("ledger.key").read_bytes())
    project.ledger.renew_key("the old one leaked")
    far = _statement(old, {"sequence": 10**9, "time": 5, "hash": "ab" * 32})
    with checkpoints.open("a") as stream:
        stream.write(json.dumps(far) + "\n")
    _append(project)
    _foreign(sql)
    (end,) = sql("SELECT sequence, time, hash FROM ledger_entries WHERE sequence = 9")
    forged = _statement(old, end)
    sql("UPDATE ledger_signed_ends SET sequence = 9, time = ?, hash = ?, public_key = ?, signature = ?",
        *(forged[name] for name in ("time", "hash", "public_key", "signature")))  # fmt: skip
    with pytest.raises(IntegrityError, match="entry 9 at the end, signed up to entry 8"):
        _append(project)
    assert ("unsigned", "entry 9") in wheres(project)


def _statement(key: Ed25519PrivateKey, end: dict[str, Any]) -> dict[str, Any]:
    statement = json.dumps({**end, "retrodict": "checkpoint"}, sort_keys=True, separators=(",", ":"))
    public_key = key.public_key().public_bytes_raw().hex()
    return {**end, "public_key": public_key, "signature": key.sign(statement.encode()).hex()}


@pytest.mark.parametrize("noise", ["x" * 99 + "\n", None, "[" * 100_000 + "\n"], ids=["junk", "older", "deep"])
def test_no_line_hides_the_newest_statement(
    noise: str | None, project: Workspace, sql: Sql, wheres: Wheres, checkpoints: Path
) -> None:
    """However many lines were written behind it, of another process too."""
    older = checkpoints.read_text().splitlines(keepends=True)[-2]
    with checkpoints.open("a") as stream:
        stream.write((noise or older) * 700 if noise is None or len(noise) < 1000 else noise)
    sql("DELETE FROM ledger_entries WHERE sequence > 5")
    sql("DELETE FROM ledger_signed_ends")
    for ledger in (project.ledger, Workspace(project.root).ledger):
        with pytest.raises(IntegrityError, match="signed up to entry 6"), ledger.transaction() as tx:
            tx.append("note.write", "note:1")
    assert ("cut off", "entry 6") in wheres(project)


def test_a_tail_of_a_power_loss_is_cut(project: Workspace, audit: Audit, checkpoints: Path) -> None:
    """Blocks that were allotted and never written, more than one of them."""
    with checkpoints.open("ab") as stream:
        stream.write(bytes(9000))
    _append(project)
    assert audit(project).verified


def test_a_lost_key_and_a_restored_backup(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Both at once: the renewal goes on from either, and says up to where the old key had signed."""
    sql("DELETE FROM ledger_entries WHERE sequence > 4")
    sql("DELETE FROM ledger_edges WHERE sequence > 4")
    project.config.path("ledger.key").unlink()
    assert project.ledger.renew_key("the disk died", unendorsed=True).payload["signed"] == 6
    _append(project)
    assert {("renewed", "entry 5"), ("altered", "checkpoint of entry 6")} <= wheres(project)


def test_an_entry_before_the_one_it_follows(project: Workspace, sql: Sql, wheres: Wheres, audit: Audit) -> None:
    """Back-dated by hand it is a finding; a clock that was set back makes no such entry, and says so."""
    _append(project)
    sql("UPDATE ledger_signed_ends SET sequence = 99")
    assert wheres(project) == {("altered", "checkpoint of entry 99")}
    rewrite(sql, lambda row: row.update(time=row["time"] - 60_000_000) if row["sequence"] == 4 else None)
    details = [finding.detail for finding in audit(project).findings if finding.where == "entry 4"]
    assert "its time is before that of the entry before it" in details


def test_a_clock_that_was_set_back(make_project: Callable[..., Workspace], audit: Audit) -> None:
    """The entry has the time of the one before it, and how far the clock was behind."""
    _append(make_project(clock=SimulatedClock(2_000_000)))
    project = make_project(clock=SimulatedClock(500_000))
    with project.ledger.transaction() as tx:
        entry = tx.append("note.write", "note:2")
    assert (entry.time, entry.payload) == (2_000_000, {"clock_behind_us": 1_500_000})
    assert audit(project).verified


def test_a_witness_has_the_last_word(project: Workspace, checkpoints: Path, tmp_path: Path, sql: Sql) -> None:
    """A chain cut together with its checkpoints and its end: the copy elsewhere, and the key noted there, tell."""
    copy = tmp_path / "witness.jsonl"
    copy.write_bytes(checkpoints.read_bytes())
    stores = {"objects": project.objects, "streams": project.streams, "data": project.tables}
    report = verify(project.ledger, **stores, checkpoints=copy)
    assert (report.findings, report.signed) == ([], 6)
    for table in ("ledger_entries", "ledger_edges"):
        sql(f"DELETE FROM {table} WHERE sequence > 5")
    sql("DELETE FROM ledger_signed_ends")
    sql("DELETE FROM ledger_nodes WHERE (position + 1) << level > 5")
    lines = checkpoints.read_text().splitlines(keepends=True)[:-1]
    checkpoints.write_text("".join(lines))
    end = json.loads(lines[-1])
    sql(f"INSERT INTO ledger_signed_ends ({', '.join(end)}) VALUES ({', '.join('?' * len(end))})", *end.values())
    assert verify(project.ledger, **stores).verified
    found = verify(project.ledger, **stores, checkpoints=copy, public_key="ab" * 32).findings
    assert {(finding.kind, finding.where) for finding in found} == {("cut off", "entry 6"), ("altered", "entry 1")}
    assert verify(project.ledger, **stores, public_key=report.public_key).verified


def test_a_chain_rewritten_with_right_hashes(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Every hash and link fits; what was signed does not."""
    rewrite(sql, lambda row: row.update(actor="mallory"))
    found = wheres(project)
    assert found == {("altered", f"entry {n}") for n in (2, 4, 5, 6)} | {
        ("unsigned", f"segment decisions/0/{SEGMENT}"), ("altered", f"segment decisions/0/{SEGMENT} (entry 5)"),
    }  # fmt: skip


def test_an_entry_forged_between_two_signed_ones(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Entry 3 is the first of two of its transaction: no checkpoint signs it, only the link of entry 4 holds it."""
    (row,) = sql("SELECT * FROM ledger_entries WHERE sequence = 3")
    row["actor"] = "mallory"
    sql("UPDATE ledger_entries SET actor = ?, hash = ? WHERE sequence = 3", row["actor"], recomputed(row))
    assert wheres(project) == {("altered", "entry 4")}


def test_a_chain_rewritten_under_another_key(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """A first entry that names the forger's key makes every old signature a stranger's."""
    mine = Ed25519PrivateKey.generate()

    def change(row: dict[str, Any]) -> None:
        if row["sequence"] == 1:
            row["payload"] = json.dumps(
                {"public_key": mine.public_key().public_bytes_raw().hex()}, separators=(",", ":")
            )

    rewrite(sql, change)
    assert ("altered", "checkpoint of entry 6") in wheres(project)


def test_a_chain_that_names_no_key_is_not_vouched_for_by_any(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Rewritten whole, every end signed anew: without a first entry that names the key no signature counts."""
    rewrite(sql, lambda row: row.update(action="note.write") if row["sequence"] == 1 else None)
    mine, lines = Ed25519PrivateKey.generate(), []
    for row in sql("SELECT sequence, time, hash FROM ledger_entries ORDER BY sequence"):
        statement = json.dumps({"retrodict": "checkpoint", **row}, sort_keys=True, separators=(",", ":"))
        keys = {"public_key": mine.public_key().public_bytes_raw().hex(), "signature": mine.sign(statement.encode())}
        lines.append(json.dumps({**row, **keys, "signature": keys["signature"].hex()}))
    (project.root / "checkpoints" / "checkpoints.jsonl").write_text("\n".join(lines) + "\n")
    others = {
        ("altered", "entry 6"),
        ("altered", "head of decisions/0"),
        ("altered", "signing key"),
        ("altered", "statement on table sales, version 0"),
        ("unsigned", "table sales, version 0"),
        ("unsigned", f"segment decisions/0/{SEGMENT}"),
        ("altered", f"segment decisions/0/{SEGMENT} (entry 5)"),
    }
    assert wheres(project) == {("altered", f"checkpoint of entry {n}") for n in range(1, 7)} | others


def rewrite(sql: Sql, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter every entry and recompute all hashes, as one does who can write the database."""
    previous = "0" * 64
    for row in sql("SELECT * FROM ledger_entries ORDER BY sequence"):
        change(row)
        row["previous"] = previous
        row["hash"] = previous = recomputed(row)
        fields = ", ".join(f"{name} = ?" for name in row)
        sql(f"UPDATE ledger_entries SET {fields} WHERE sequence = {row['sequence']}", *row.values())


# checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(project: Workspace) -> Path:
    return project.root / "checkpoints" / "checkpoints.jsonl"


def test_a_checkpoint_by_another_key(project: Workspace, checkpoints: Path, wheres: Wheres) -> None:
    """Right in form and signature, and not by the key the chain names."""
    mine = Ed25519PrivateKey.generate()
    line = json.loads(checkpoints.read_text().splitlines()[-1])
    statement = {"retrodict": "checkpoint", **{k: line[k] for k in ("sequence", "time", "hash")}}
    signature = mine.sign(json.dumps(statement, sort_keys=True, separators=(",", ":")).encode())
    forged = {**line, "public_key": mine.public_key().public_bytes_raw().hex(), "signature": signature.hex()}
    checkpoints.write_text(json.dumps(forged) + "\n")
    assert ("altered", "checkpoint of entry 6") in wheres(project)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", 5),
        ("time", 1),
        ("hash", "0" * 64),
        ("signature", "00" * 64),
        ("signature", "zz"),
        ("public_key", ""),
    ],
)
def test_any_field_of_a_checkpoint(
    field: str, value: object, project: Workspace, checkpoints: Path, wheres: Wheres
) -> None:
    """The statement is signed as a whole."""
    lines = checkpoints.read_text().splitlines()
    lines[-1] = json.dumps({**json.loads(lines[-1]), field: value})
    checkpoints.write_text("\n".join(lines) + "\n")
    wanted = value if field == "sequence" else 6
    assert wheres(project) == {("altered", f"checkpoint of entry {wanted}")}


@pytest.mark.parametrize(
    "line",
    ["", "x", "[]", "{}", '{"sequence": 1}', '{"sequence":[1],"time":NaN,"hash":1,"public_key":2,"signature":3}'],
)
def test_a_line_that_is_no_checkpoint(line: str, project: Workspace, checkpoints: Path, wheres: Wheres) -> None:
    """It is named by its number, and the other lines still count."""
    lines = checkpoints.read_text().splitlines()
    checkpoints.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    assert wheres(project) == {("altered", "checkpoints, line 2"), ("removed", "checkpoint of entry 4")}


def test_no_checkpoints_at_all(project: Workspace, checkpoints: Path, wheres: Wheres) -> None:
    """Then nothing could show a cut-off end."""
    checkpoints.unlink()
    assert wheres(project) == {("removed", "checkpoints"), ("removed", "checkpoint of entry 5")}


def test_an_end_that_a_death_left_unsigned_is_signed_later(project: Workspace, checkpoints: Path, audit: Audit) -> None:
    """The process died after the commit: whoever comes next signs the end, once."""
    lines = checkpoints.read_text().splitlines(keepends=True)
    checkpoints.write_text("".join(lines[:-1]))
    for _ in range(2):
        project.ledger.sign_end()
    assert [json.loads(line)["sequence"] for line in checkpoints.read_text().splitlines()][-2:] == [5, 6]
    assert (audit(project).findings, audit(project).checkpoints) == ([], len(lines))


def test_a_checkpoint_is_durable_when_the_call_returns(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced after its line was written, under a lock that keeps other processes out."""
    path, seen = project.ledger.checkpoint_folder / "checkpoints.jsonl", []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        if os.path.sameopenfile(descriptor, probe.fileno()):
            with pytest.raises(BlockingIOError):
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append(json.loads(path.read_text().splitlines()[-1])["sequence"])
        sync(descriptor)

    with path.open("rb") as probe:
        monkeypatch.setattr(os, "fsync", watched)
        with project.ledger.transaction() as tx:
            tx.append("note.write", "note:1")
    assert seen == [7]


# the key ------------------------------------------------------------------------------------------------------


def test_a_new_key_in_the_place_of_the_old_one_is_refused(project: Workspace, wheres: Wheres) -> None:
    """Nothing is appended under it, nor without one, which is said; reading needs no key."""
    key = project.config.path("ledger.key")
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
    with pytest.raises(IntegrityError, match=r"that the ledger names.*renew-key"), project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    key.unlink()
    with pytest.raises(IntegrityError, match=r"must be readable.*renew-key"), project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    assert not key.exists()
    assert wheres(project) == {("removed", "signing key")}


def test_a_lost_key_is_followed_by_a_new_one_that_all_can_see(project: Workspace, audit: Audit) -> None:
    """Old checkpoints stay valid by the old key, new ones by the new."""
    key = project.config.path("ledger.key")
    old = key.read_bytes()
    key.unlink()
    with pytest.raises(IntegrityError, match="must be readable"):
        project.ledger.renew_key("the disk died")
    entry = project.ledger.renew_key("the disk died", unendorsed=True)
    assert (entry.action, entry.payload["reason"]) == ("ledger.key", "the disk died")
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    report = audit(project)
    assert [(finding.kind, finding.where) for finding in report.findings] == [("renewed", "entry 7")]
    assert (report.entries, report.checkpoints, report.signed) == (8, 6, 8)
    key.write_bytes(old)
    with pytest.raises(IntegrityError, match="names"), project.ledger.transaction() as tx:
        tx.append("note.write", "note:2")


def test_a_death_between_the_new_keys_entry_and_its_place(project: Workspace, audit: Audit) -> None:
    """The key that waits is the one the chain names: the next transaction takes it."""
    key = project.config.path("ledger.key")
    old = key.read_bytes()
    project.ledger.renew_key("rotation")
    key.rename(key.with_name("ledger.key.next"))
    key.write_bytes(old)
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    assert audit(project).verified


def test_a_next_key_that_the_chain_does_not_name_stays_where_it_is(project: Workspace, audit: Audit) -> None:
    """A renewal died before its entry was there: the old key goes on."""
    key = project.config.path("ledger.key")
    old, waiting = key.read_bytes(), key.with_name("ledger.key.next")
    waiting.write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    assert key.read_bytes() == old
    assert waiting.exists()
    assert audit(project).verified


# lineage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["sequence", "position", "source", "role", "target"])
def test_any_field_of_an_edge(column: str, project: Workspace, sql: Sql, audit: Audit) -> None:
    """Edges are an index over the chain; both the lost and the added one are named."""
    sql(f"UPDATE ledger_edges SET {column} = 9 WHERE sequence = 4 AND position = 0")
    found = audit(project).findings
    assert AuditFinding("removed", "entry 4", "lineage edge dataset:sales@0 → run:1 (training data) is gone") in found
    assert {finding.kind for finding in found} == {"removed", "altered"}


def test_an_edge_that_is_gone_or_added(project: Workspace, sql: Sql, audit: Audit) -> None:
    """Where the payload and the table of edges disagree, the chain is right."""
    sql("DELETE FROM ledger_edges WHERE sequence = 3")
    sql("INSERT INTO ledger_edges VALUES (2, 0, 'batch:x', 'rows', 'code:1')")
    sql("INSERT INTO ledger_edges VALUES (99, 0, ?, 'rows', 'code:1')", b"\xff")
    found = audit(project).findings
    assert AuditFinding("removed", "entry 3", "lineage edge batch:1 → dataset:sales@0 (rows) is gone") in found
    assert AuditFinding("altered", "entry 2", "lineage edge batch:x → code:1 (rows) is not in the chain") in found
    assert [finding.where for finding in found] == ["entry 3", "entry 2", "entry 99"]


# what entries name --------------------------------------------------------------------------------------------


def flip(path: Path, at: int = -1) -> None:
    """Change one bit of a file."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_in_an_object(project: Workspace, wheres: Wheres) -> None:
    """The object and who named it."""
    flip(next(p for p in (project.root / "state/objects").rglob("*") if p.is_file()))
    assert wheres(project) == {("altered", "code:1 (entry 2)")}


def test_an_object_that_is_gone(project: Workspace, audit: Audit) -> None:
    """Removed, not altered."""
    path = next(p for p in (project.root / "state/objects").rglob("*") if p.is_file())
    path.unlink()
    assert audit(project).findings == [AuditFinding("removed", "code:1 (entry 2)", f"object {path.name} is gone")]


def test_a_part_of_a_manifest(project: Workspace, wheres: Wheres) -> None:
    """An entry that names a manifest vouches for all of its parts."""
    part = project.objects.put(b"trees")
    manifest = project.objects.put(json.dumps({"parts": {"trees": part}}).encode())
    with project.ledger.transaction() as tx:
        tx.append("model.register", "model:m@2", {"objects": [manifest]})
    assert wheres(project) == set()
    flip(project.root / "state/objects" / part[:2] / part[2:4] / part)
    assert wheres(project) == {("altered", "model:m@2 (entry 7)")}


def test_a_flipped_bit_in_a_data_file(project: Workspace, audit: Audit) -> None:
    """In the middle, where Parquet itself need not notice."""
    path = next((project.root / "state/tables/sales").glob("*.parquet"))
    flip(path, 30)
    detail = f"data file sales/{path.name} does not have the hash that was written"
    assert audit(project).findings == [AuditFinding("altered", "dataset:sales@0 (entry 3)", detail)]
    path.unlink()
    assert audit(project).findings[0].kind == "removed"


def test_a_data_file_that_a_vacuum_deleted_may_be_gone(project: Workspace, audit: Audit) -> None:
    """That one and no other, and only once the chain says so."""
    path = next((project.root / "state/tables/sales").glob("*.parquet"))
    path.unlink()
    with project.ledger.transaction() as tx:
        tx.append("dataset.vacuum", "dataset:sales", {"deleted": ["sales/other.parquet"]})
    assert [finding.kind for finding in audit(project).findings] == ["removed"]
    with project.ledger.transaction() as tx:
        tx.append("dataset.vacuum", "dataset:sales", {"deleted": [f"sales/{path.name}"]})
    report = audit(project)
    assert (report.findings, report.files) == ([], 1)


@pytest.mark.parametrize("at", [0, 8, 40, 60, -1])
def test_a_flipped_bit_in_a_sealed_segment(at: int, project: Workspace, wheres: Wheres) -> None:
    """In its header, a frame, a record: always that segment."""
    path = min((project.root / "state/streams/decisions/0").glob("*.seg"))
    flip(path, at)
    assert wheres(project) == {("altered", f"segment decisions/0/{path.name} (entry 5)")}


class Served:
    """The streams of a project from a server that gives something else than was sealed."""

    def __init__(self, streams: Any, *, bytes_: bool) -> None:
        self._streams, self._bytes = streams, bytes_

    def __getattr__(self, name: str) -> Any:
        return getattr(self._streams, name)

    def read_segment(self, stream: str, segment: str) -> bytes:
        return bytes(self._streams.read_segment(stream, segment)) + b"!" * self._bytes

    def read(self, stream: str, start: int, limit: int) -> list[tuple[int, bytes]]:
        records = self._streams.read(stream, start, limit)
        return list(records) if self._bytes else [(at, record + b"!") for at, record in records]


@pytest.mark.parametrize(
    ("bytes_", "detail"),
    [
        (True, "the file does not have the hash that was sealed"),
        (False, "its records do not have the root that was sealed"),
    ],
)
def test_a_sealed_segment_is_held_to_both_its_hashes(bytes_: bool, detail: str, project: Workspace) -> None:
    """Other bytes around the same records, and other records beside the same file."""
    segment = project.streams.segments("decisions/0")[0].name
    served: Any = Served(project.streams, bytes_=bytes_)
    report = verify(project.ledger, objects=project.objects, streams=served, data=project.tables)
    assert report.findings == [AuditFinding("altered", f"segment decisions/0/{segment} (entry 5)", detail)]


def test_a_sealed_segment_that_is_gone(project: Workspace, audit: Audit) -> None:
    """Named with the entry that sealed it."""
    path = min((project.root / "state/streams/decisions/0").glob("*.seg"))
    path.unlink()
    (finding,) = audit(project).findings
    assert finding.where == f"segment decisions/0/{path.name} (entry 5)"


def test_no_proof_is_made_of_a_seal_that_the_chain_does_not_hold(project: Workspace, sql: Sql) -> None:
    """Root and records agree, the sealed entry says otherwise: the table alone proves nothing."""
    (row,) = sql("SELECT * FROM ledger_seals")
    sql("DELETE FROM ledger_entries WHERE action = 'segment.seal'")
    assert sql("SELECT * FROM ledger_seals") == [row]
    with pytest.raises(NotFoundError, match="must be in a sealed segment"):
        prove(project.ledger, project.streams, "decisions/0", 2)


def test_no_proof_is_made_of_records_that_were_replaced(project: Workspace) -> None:
    """A segment written anew, whole and well-formed, with other records."""
    shutil.rmtree(project.root / "state/streams/decisions/0")
    with project.streams.open_writer("decisions/0") as writer:
        writer.append([f"forged {i}".encode() for i in range(5)])
        writer.roll()
    with pytest.raises(IntegrityError, match="root that was sealed"):
        prove(project.ledger, project.streams, "decisions/0", 2)


def test_the_table_of_seals(project: Workspace, sql: Sql, wheres: Wheres) -> None:
    """An index as well: altered, removed and added rows are told apart, and proofs are made by the chain alone."""
    (row,) = sql("SELECT * FROM ledger_seals")
    where = f"seal of decisions/0/{row['segment']}"
    sql("UPDATE ledger_seals SET root = ?", "0" * 64)
    assert wheres(project) == {("altered", where)}
    assert prove(project.ledger, project.streams, "decisions/0", 2).root == row["root"]
    sql("DELETE FROM ledger_seals")
    assert wheres(project) == {("removed", where)}
    sql("INSERT INTO ledger_seals VALUES ('x', 'y', 0, 1, '', '', 5)")
    assert wheres(project) == {("removed", where), ("altered", "seal of x/y")}


# rows that entries vouch for ----------------------------------------------------------------------------------

THINGS = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("said", sa.String),
    sa.Column("n", sa.Float),
)


@pytest.fixture
def things(project: Workspace) -> Workspace:
    project.records.ensure(THINGS.metadata)
    for number in (1, 2):
        with project.ledger.transaction() as tx:
            tx.insert(THINGS, {"id": number, "said": f"it is {number}", "n": None})
            tx.append("thing.make", f"thing:{number}")
    return project


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("SELECT 1", set()),
        ("UPDATE things SET said = 'it is 3' WHERE id = 2", {("altered", "thing:2 (entry 8)")}),
        ("UPDATE things SET n = 0 WHERE id = 1", {("altered", "thing:1 (entry 7)")}),
        ("DELETE FROM things WHERE id = 1", {("removed", "thing:1 (entry 7)")}),
        ("INSERT INTO things VALUES (3, 'forged', NULL)", {("altered", "table things")}),
        (
            "DROP TABLE things",
            {("removed", "thing:1 (entry 7)"), ("removed", "thing:2 (entry 8)"), ("altered", "records")},
        ),
        ("ALTER TABLE things ADD COLUMN later TEXT", {("altered", "records")}),
    ],
)
def test_rows_of_other_rooms(statement: str, wanted: set[Any], things: Workspace, sql: Sql, wheres: Wheres) -> None:
    """Altered, removed or added: an approval cannot be forged beside the chain. A new column is none of the rows'."""
    sql(statement)
    assert wheres(things) == wanted


def test_a_table_of_the_ledger_that_is_gone(project: Workspace, sql: Sql, audit: Audit) -> None:
    """Reported, not raised: an auditor wants the whole list, with the objects and files that could still be read."""
    sql("DROP TABLE ledger_edges")
    flip(next((project.root / "state/tables/sales").glob("*.parquet")), 30)
    assert {finding.kind for finding in audit(project).findings} >= {"unreadable", "altered"}


def test_the_report_as_plain_data(project: Workspace, sql: Sql, audit: Audit) -> None:
    """For --json: verdict, counts, findings."""
    sql("UPDATE ledger_entries SET actor = 'bob' WHERE sequence = 2")
    found = json.loads(json.dumps(audit(project).to_dict()))
    assert found["verified"] is False
    assert found["findings"][0] == {
        "kind": "altered", "where": "entry 2", "detail": "code.capture of code:1: its content does not give its hash",
    }  # fmt: skip
