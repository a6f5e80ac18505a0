"""A large ledger is audited in little memory and with a sample of its signatures, and nothing is missed by it."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retrodict.ledger import AuditReport, _signature_evidence, checkpoints, verify
from retrodict.ledger.checkpoints import newest_signed
from retrodict.workspace import Workspace

from .conftest import recomputed

Audit = Callable[[Workspace], AuditReport]
Sql = Callable[..., list[dict[str, Any]]]
COUNT = 60


@pytest.fixture
def sampled(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints of a project that has more of them than are all checked; its own and sixty more."""
    monkeypatch.setattr(_signature_evidence, "_ALL", 20)
    monkeypatch.setattr(_signature_evidence, "_SOME", 5)
    for number in range(COUNT):
        with project.ledger.transaction() as tx:
            tx.append("note.write", f"note:{number}")
    return project.root / "checkpoints" / "checkpoints.jsonl"


def alter(file: Path, at: int, **fields: object) -> None:
    lines = file.read_text().splitlines()
    lines[at] = json.dumps(json.loads(lines[at]) | fields)
    file.write_text("\n".join(lines) + "\n")


def full(project: Workspace) -> AuditReport:
    stores = {"objects": project.objects, "streams": project.streams, "data": project.tables}
    return verify(project.ledger, **stores, every_signature=True)  # type: ignore[arg-type]


@pytest.mark.usefixtures("sampled")
def test_a_sample_of_many_signatures_is_checked_and_the_report_says_so(project: Workspace, audit: Audit) -> None:
    """Five of the newest and five at random; all of them on demand."""
    report = audit(project)
    assert (report.findings, report.signatures, report.checkpoints, report.signed) == ([], 10, 64, 66)
    assert "10 of 64 signatures checked" in str(report)
    report = full(project)
    assert (report.findings, report.signatures) == ([], 64)
    assert "signatures checked" not in str(report)


@pytest.mark.parametrize("field", ["signature", "time", "root"])
@pytest.mark.parametrize("back", [1, 3, 5])
def test_an_altered_statement_among_the_newest(
    field: str, back: int, sampled: Path, project: Workspace, audit: Audit
) -> None:
    """It agrees with the chain and is still found; then every signature is checked."""
    alter(sampled, -back, **{field: 7 if field == "time" else "ab" * (64 if field == "signature" else 32)})
    alter(sampled, 3, time=8)
    report = audit(project)
    names = {("altered", f"checkpoint of entry {67 - back}"), ("altered", "checkpoint of entry 6")}
    assert {(finding.kind, finding.where) for finding in report.findings} == names
    assert report.signatures == report.checkpoints == 64


@pytest.mark.parametrize("every", [True, False])
def test_a_signed_root_that_the_entries_do_not_give(
    every: bool, sampled: Path, project: Workspace, monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    """By the right key over the right hash: computed anew for each statement whose signature is checked."""
    monkeypatch.setattr(_signature_evidence, "_ALL", 100 if every else 20)
    key = Ed25519PrivateKey.from_private_bytes(project.config.path("ledger.key").read_bytes())
    line = json.loads(sampled.read_text().splitlines()[-1])
    end = {name: line[name] for name in ("sequence", "time", "hash", "log", "after")} | {"root": "ab" * 32}
    statement = json.dumps({"retrodict": "checkpoint", **end}, sort_keys=True, separators=(",", ":"))
    alter(sampled, -1, root=end["root"], signature=key.sign(statement.encode()).hex())
    report = audit(project)
    assert [(one.kind, one.where) for one in report.findings] == [("altered", "checkpoint of entry 66")]
    assert "do not give the root" in report.findings[0].detail


@pytest.mark.parametrize("at", [0, 2, 17, 40, 62])
@pytest.mark.parametrize("field", ["hash", "public_key", "log", "sequence"])
def test_a_statement_anywhere_that_does_not_agree(
    field: str, at: int, sampled: Path, project: Workspace, audit: Audit
) -> None:
    """However few are drawn; the others are sampled as before."""
    alter(sampled, at, **{field: 5000 if field == "sequence" else "ab" * 32})
    report = audit(project)
    kinds = ["altered", "removed"] if field == "sequence" else ["altered"]
    assert [finding.kind for finding in report.findings] == kinds
    assert (report.signatures in (10, 11), report.signed) == (True, 66)  # it may be one of those drawn


def test_a_chain_at_fault_has_all_its_signatures_checked(
    sampled: Path, project: Workspace, audit: Audit, sql: Sql
) -> None:
    """What others may rest on is told by signatures before and after the fault."""
    alter(sampled, 5, time=8)
    sql("UPDATE ledger_entries SET actor = 'eve' WHERE sequence = 20")
    report = audit(project)
    assert {finding.where for finding in report.findings} == {"entry 20", "checkpoint of entry 8"}
    assert report.signatures == report.checkpoints == 64


def test_a_cut_off_end_of_many(sampled: Path, project: Workspace, audit: Audit, sql: Sql) -> None:
    """More statements on what is gone than are drawn: each is named, and signatures reach as far as the chain."""
    for table in ("entries", "edges"):
        sql(f"DELETE FROM ledger_{table} WHERE sequence > 40")
    sql("DELETE FROM ledger_signed_ends")
    report = audit(project)
    cut = [finding.where for finding in report.findings if finding.kind == "cut off"]
    assert (cut, report.signed) == ([f"entry {number}" for number in range(41, 67)], 40)
    assert sampled.exists()


def test_a_deletion_forged_between_two_signed_entries_excuses_nothing(
    project: Workspace, audit: Audit, sql: Sql
) -> None:
    """Its hash fits and no statement is on it: the chain does not go on from it to a signed end without a fault."""
    path = next((project.root / "state/tables/sales").glob("*.parquet"))
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
        tx.append("note.write", "note:2")
    (row,) = sql("SELECT * FROM ledger_entries WHERE sequence = 7")
    row |= {
        "action": "dataset.vacuum",
        "payload": json.dumps({"deleted": [f"sales/{path.name}"]}, separators=(",", ":")),
    }
    values = row["action"], row["payload"], recomputed(row)
    sql("UPDATE ledger_entries SET action = ?, payload = ?, hash = ? WHERE sequence = 7", *values)
    path.unlink()
    found = {(one.kind, one.where) for one in audit(project).findings}
    assert found == {("altered", "entry 8"), ("removed", "dataset:sales@0 (entry 3)")}


def test_an_unsigned_entry_in_another_spelling(project: Workspace, audit: Audit, sql: Sql) -> None:
    """Its hash fits the text as it stands, which nobody with the key has written."""
    (row,) = sql("SELECT * FROM ledger_entries WHERE sequence = 6")
    row |= {"sequence": 7, "previous": row["hash"], "payload": '{"a": 1}'}
    named = {"action": row["action"], "actor": row["actor"], "object": row["object_id"]}
    body = json.dumps(named, separators=(",", ":"))[:-1]
    body += f',"payload":{row["payload"]},"sequence":7,"time":{row["time"]}}}'
    data = len(body).to_bytes(8, "big") + body.encode() + bytes.fromhex(row["previous"])
    row["hash"] = hashlib.sha256(data).hexdigest()
    sql(f"INSERT INTO ledger_entries VALUES ({', '.join('?' * len(row))})", *row.values())
    assert {(one.kind, one.where) for one in audit(project).findings} == {
        ("unsigned", "entry 7"),
        ("altered", "entry 7"),
    }


def test_edges_are_compared_wherever_they_differ(project: Workspace, audit: Audit, sql: Sql) -> None:
    """Rows of the index removed, moved and invented at random, against the difference of two sets."""
    with project.ledger.transaction() as tx:
        for number in range(40):
            inputs = [(f"a:{place}", "part") for place in range(number % 4)]
            tx.append("note.write", f"note:{number}", {"number": number}, inputs=inputs)
    columns = "sequence, position, source, role, target"
    right = {tuple(row.values()) for row in sql(f"SELECT {columns} FROM ledger_edges")}
    drawn = random.Random(4)
    for _ in range(30):
        kind, sequence = drawn.choice(["delete", "move", "add"]), drawn.randrange(-1, 60)
        if kind == "delete":
            sql("DELETE FROM ledger_edges WHERE sequence = ?", sequence)
        elif kind == "move":
            sql("UPDATE OR IGNORE ledger_edges SET position = position + 1 WHERE sequence = ?", sequence)
        else:
            sql("INSERT OR IGNORE INTO ledger_edges VALUES (?, 0, 'b:1', 'part', 'note:1')", sequence)
        stored = {tuple(row.values()) for row in sql(f"SELECT {columns} FROM ledger_edges")}
        expected = [("removed", f"entry {row[0]}") for row in right - stored]
        expected += [("altered", f"entry {row[0]}") for row in stored - right]
        report = audit(project)
        assert sorted((one.kind, one.where) for one in report.findings) == sorted(expected)
        assert report.edges == len(stored)


def test_inputs_elsewhere_in_a_payload_are_no_edges(project: Workspace, audit: Audit, sql: Sql) -> None:
    """In a mapping inside it, and in a text; an edge that says so is one that somebody added."""
    elsewhere = {"arguments": {"inputs": [["x:1", "y"]]}, "text": '{"inputs":[["q:1","r"]]'}
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1", elsewhere)
        tx.append("note.write", "note:2", elsewhere, inputs=[("a:1", "b")])
    assert audit(project).findings == []
    sql("INSERT INTO ledger_edges VALUES (7, 0, 'x:1', 'y', 'note:1')")
    assert [(one.kind, one.where) for one in audit(project).findings] == [("altered", "entry 7")]


@pytest.mark.parametrize(("place", "to"), [(2, 9), (0, -1)])
def test_nodes_of_the_tree_in_other_places(place: int, to: int, project: Workspace, audit: Audit, sql: Sql) -> None:
    """Each with its hash, in their order."""
    sql("UPDATE ledger_nodes SET position = ? WHERE level = 1 AND position = ?", to, place)
    assert [(one.kind, one.where) for one in audit(project).findings] == [("altered", "tree of entries")]


@pytest.mark.parametrize("places", ["ledger_entries WHERE sequence", "ledger_nodes WHERE level = 1 AND position"])
def test_hashes_whose_digits_moved_to_the_one_before(places: str, project: Workspace, audit: Audit, sql: Sql) -> None:
    """Together they are written as before."""
    first, second = (sql(f"SELECT hash FROM {places} = ?", number)[0]["hash"] for number in (1, 2))
    for number, hash_ in ((1, first + second[0]), (2, second[1:])):
        sql(f"UPDATE {places.replace('WHERE', 'SET hash = ? WHERE')} = ?", hash_, number)
    for number, hash_ in ((2, first + second[0]), (3, second[1:])):
        sql(
            "UPDATE ledger_entries SET previous = ? WHERE sequence = ? AND previous IN (?, ?)",
            hash_,
            number,
            first,
            second,
        )
    assert {one.kind for one in audit(project).findings} >= {"altered"}


def test_a_node_over_entries_that_nobody_signed(project: Workspace, audit: Audit, sql: Sql) -> None:
    """It is what they give, and no tree reaches that far."""
    (row,) = sql("SELECT * FROM ledger_entries WHERE sequence = 6")
    leaves = b""
    for sequence in (7, 8):
        row |= {"sequence": sequence, "payload": "{}", "previous": row["hash"]}
        row["hash"] = recomputed(row)
        sql(f"INSERT INTO ledger_entries VALUES ({', '.join('?' * len(row))})", *row.values())
        leaves += hashlib.sha256(b"\0" + bytes.fromhex(row["hash"])).digest()
    sql("INSERT INTO ledger_nodes VALUES (1, 3, ?)", hashlib.sha256(b"\1" + leaves).hexdigest())
    found = {(one.kind, one.where) for one in audit(project).findings}
    assert found == {("unsigned", "entry 7 to 8"), ("altered", "tree of entries")}


def test_memory_does_not_grow_with_the_entries(make_project: Callable[..., Workspace], audit: Audit) -> None:
    """But by the hash of each: thirty-two bytes, and room for the array to grow into."""
    project, peaks = make_project(), []
    for count in (5_000, 15_000):
        for _ in range(count // 1_000):
            with project.ledger.transaction() as tx:
                for number in range(1_000):
                    tx.append("note.write", f"note:{number}", {"text": "x" * 200}, inputs=[("note:0", "before")])
        audit(project)
        tracemalloc.start()
        report = audit(project)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (report.verified, report.entries, report.edges) == (True, 20_001, 20_000)
    assert peaks[1] - peaks[0] < 15_000 * 100


def test_the_newest_statement_is_found_in_a_file_of_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of order, repeated, by another key, of no valid signature, torn: against the whole file parsed."""
    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    names = [key.public_key().public_bytes_raw().hex() for key in keys]
    drawn = random.Random(7)

    def line(sequence: int, key: int, valid: bool) -> tuple[bytes, int]:
        end = {"sequence": sequence, "time": 1, "hash": "ab" * 32}
        statement = json.dumps({"retrodict": "checkpoint", **end}, sort_keys=True, separators=(",", ":"))
        signature = keys[key].sign(statement.encode()) if valid else bytes(64)
        text = json.dumps({**end, "public_key": names[key], "signature": signature.hex()}).encode() + b"\n"
        return text, sequence if valid and not key else -1

    for block in (1, 97, 400, 5_000):
        monkeypatch.setattr(checkpoints, "_BLOCK", block)
        for count in (0, 1, 2, 25):
            lines = [line(drawn.randrange(100), drawn.random() < 0.2, drawn.random() < 0.8) for _ in range(count)]
            lines += [(b"junk\n", -1)] * drawn.randrange(3)
            drawn.shuffle(lines)
            lines += lines[:5]
            torn = line(1_000, 0, True)[0][:-1] if drawn.random() < 0.5 else b""
            (tmp_path / "checkpoints.jsonl").write_bytes(b"".join(text for text, _ in lines) + torn)
            for first in range(len(lines) + 1):
                start = sum(len(text) for text, _ in lines[:first])
                newest = newest_signed(tmp_path, names[0], start)
                expected = max((number for _, number in lines[first:]), default=-1)
                assert (newest.sequence if newest else -1) == expected
