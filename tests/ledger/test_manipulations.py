"""Manipulations of a finished project, one by one: what each is answered with, by name.

One small project is made once and copied for each case. What is done to a copy goes past everything of ours: to the
database, the files, the keys. The last part states what cannot be seen without a witness.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import deltalake
import lmdb
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs
from tests.serving.project import DEFINITIONS, make_project

from retrodict import Project
from retrodict.core.errors import RetrodictError
from retrodict.decisions.records import decode_record, encode_record
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.stores.streams._frames import HEADER_SIZE, pack_frames

from .conftest import canonical, recomputed

PARCEL = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
NOTES = 'notes = Table("notes", key="id", columns={"id": "int"}, checks=[Check.between("x", 0, 100)])\n'
SEGMENT = f"{0:020d}.seg"
SEGMENTS, HEADS = "state/streams/decisions/0", "checkpoints/heads/decisions/0.json"
LINES, RECORDS, KEY = "checkpoints/checkpoints.jsonl", "state/records.db", "state/ledger.key"
LOG, PARCELS = "state/tables/notes/_delta_log", "state/tables/parcels"

Act = Callable[[Path], Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained twice, approved, deployed, rejected, tagged; rows in quarantine, a vacuum, a new key; six decisions."""
    root = tmp_path_factory.mktemp("original") / "parcels"
    root.mkdir()
    (root.parent / "witness").mkdir()
    make_project(root).close()
    (root / "retrodict.toml").write_text('[project]\nname = "parcels"\n[ledger]\nwitnesses = ["../witness"]\n')
    (root / "definitions.py").write_text(DEFINITIONS + NOTES)
    with Project(root, actor="ana") as project:
        for batch in range(3):
            rows = {"id": [2 * batch, 2 * batch + 1], "x": [float(batch), 101.0]}
            project.data.ingest("notes", pa.table(rows))
        project.data.rollback("notes", to="notes@1", reason="try")
        project.data.tag("parcels@0", "golden", hold=True)
        project.ledger.renew_key(reason="yearly")
        project.train("late_parcel", train="2024-01-03/2024-02-01")
        for _ in range(3):
            project.decide("promise", **PARCEL)
    with Project(root, actor="ben") as project:
        project.models.reject("late_parcel@2", reason="slow")
        for _ in range(3):
            project.decide("promise", **PARCEL)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original.parent / "witness", tmp_path / "witness")
    copy = shutil.copytree(original, tmp_path / "parcels", symlinks=True)
    with closing(sqlite3.connect(copy / RECORDS)) as records:  # what a log still holds hides what is done to the file
        records.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(copy)


def audit(root: Path) -> list[str]:
    with Project(root) as project:
        return [f"{one.kind} {one.where}: {one.detail}" for one in project.audit().findings]


# what is done ---------------------------------------------------------------------------------------------------


def query(root: Path, statement: str, *values: Any) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(root / RECORDS)) as records, records:
        records.row_factory = sqlite3.Row
        return [dict(row) for row in records.execute(statement, values)]


def alter_page(path: Path, old: bytes, new: bytes) -> None:
    """Write over bytes of a database."""
    content = path.read_bytes()
    assert old in content
    place(path, content.replace(old, new))


def sql(*statements: str) -> Act:
    def act(root: Path) -> None:
        with closing(sqlite3.connect(root / RECORDS)) as records, records:
            for statement in statements:
                records.execute(statement)

    return act


def entry(sequence: int, **changes: Any) -> Act:
    """Fields of an entry are others, and its hash fits."""

    def act(root: Path) -> None:
        (row,) = query(root, "SELECT * FROM ledger_entries WHERE sequence = ?", sequence)
        row |= changes
        row["hash"] = recomputed(row)
        put(root, "ledger_entries", row)

    return act


def put(root: Path, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    query(root, f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", *row.values())


def appended(action: str = "note.write", object_id: str = "note:1", **payload: Any) -> Act:
    """An entry with a fitting hash behind the last one, by somebody without the key."""

    def act(root: Path) -> None:
        (last,) = query(root, "SELECT * FROM ledger_entries ORDER BY sequence DESC LIMIT 1")
        row = last | {"sequence": last["sequence"] + 1, "previous": last["hash"], "action": action,
                      "object_id": object_id, "payload": canonical(payload)}  # fmt: skip
        row["hash"] = recomputed(row)
        put(root, "ledger_entries", row)

    return act


def rewritten(start: int) -> Act:
    """All entries from one on say that somebody else acted, with hashes and links that fit."""

    def act(root: Path) -> None:
        previous = None
        for row in query(root, "SELECT * FROM ledger_entries WHERE sequence >= ? ORDER BY sequence", start):
            row |= {"actor": "eve", "previous": previous or row["previous"]}
            previous = row["hash"] = recomputed(row)
            put(root, "ledger_entries", row)

    return act


def flip(pattern: str, at: int = -9) -> Act:
    def act(root: Path) -> None:
        path = only(root, pattern)
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        place(path, bytes(data))

    return act


def only(root: Path, pattern: str) -> Path:
    return min(root.glob(pattern))


def place(path: Path, data: bytes) -> None:
    """Other bytes under a name, which may be that of a read-only file."""
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write(pattern: str, data: bytes) -> Act:
    return lambda root: place(only(root, pattern) if "*" in pattern else root / pattern, data)


def gone(*patterns: str) -> Act:
    return lambda root: [remove(only(root, pattern)) for pattern in patterns]


def copied(source: str, target: str) -> Act:
    return lambda root: place(root / target, only(root, source).read_bytes())


def instead(pattern: str, kind: str) -> Act:
    """Something that is no regular file in the place of one."""

    def act(root: Path) -> None:
        path = only(root, pattern)
        remove(path)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to({"zeros": "/dev/zero", "nowhere": "nothing-there", "itself": path.name}[kind])

    return act


def lines(change: Callable[[list[str]], list[str]], name: str = LINES) -> Act:
    def act(root: Path) -> None:
        text = (root / name).read_text().splitlines(keepends=True)
        (root / name).write_text("".join(change(text)))

    return act


def statement(at: int, **fields: Any) -> Act:
    def change(text: list[str]) -> list[str]:
        text[at] = json.dumps(json.loads(text[at]) | fields) + "\n"
        return text

    return lines(change)


def settings(old: str, new: str) -> Act:
    return lambda root: (root / "retrodict.toml").write_text((root / "retrodict.toml").read_text().replace(old, new))


def both(*acts: Act) -> Act:
    return lambda root: [act(root) for act in acts]


def honest(root: Path) -> None:
    """A command like any other, after somebody was there."""
    with Project(root, actor="ana") as project:
        project.data.tag("parcels@0", "silver")


def foreign_version(table: str) -> Act:
    def act(root: Path) -> None:
        path = root / "state/tables" / table
        with Project(root) as project:
            rows = project.workspace.tables.read(table).slice(0, 1)
        deltalake.write_deltalake(path, rows, mode="append")

    return act


def key_of_others(name: str = KEY) -> Act:
    return lambda root: place(root / name, Ed25519PrivateKey.generate().private_bytes_raw())


def forged_index(root: Path) -> None:
    """Values of an index of events are others; sizes and checksums in its manifest fit."""
    for path in root.glob("state/indexes/*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        arrays = {name: item for name, item in manifest["body"]["arrays"].items() if "file" in item}
        for item in arrays.values():
            file = path.parent / item["file"]
            data = bytearray(file.read_bytes())
            if file.suffix == ".npy" and len(data) > 400:
                data[-100] ^= 1
                file.write_bytes(data)
                item["sha256"] = hashlib.sha256(data).hexdigest()
        place = f"{path.parent.parent.name}/{path.parent.name}\n"
        manifest["seal"] = hmac.digest(b"", (place + canonical(manifest["body"])).encode(), "sha256").hex()
        path.write_text(json.dumps(manifest))


# what the audit says --------------------------------------------------------------------------------------------

ENTRIES: list[tuple[str, Act, str]] = [
    ("actor", sql("UPDATE ledger_entries SET actor = 'eve' WHERE sequence = 4"), "altered entry 4: .*give its hash"),
    ("time", sql("UPDATE ledger_entries SET time = time + 1 WHERE sequence = 4"), "altered entry 4"),
    ("action", sql("UPDATE ledger_entries SET action = 'model.approve' WHERE sequence = 4"), "altered entry 4"),
    ("object", sql("UPDATE ledger_entries SET object_id = 'run:X' WHERE sequence = 4"), "altered entry 4"),
    ("payload", sql("UPDATE ledger_entries SET payload = '{}' WHERE sequence = 4"), "altered entry 4"),
    ("spelling", sql("UPDATE ledger_entries SET payload = replace(payload, ':', ': ') WHERE sequence = 4"),
     "altered entry 4"),
    ("previous", sql("UPDATE ledger_entries SET previous = hash WHERE sequence = 4"), "altered entry 4"),
    ("hash", sql("UPDATE ledger_entries SET hash = previous WHERE sequence = 4"), "altered entry 4"),
    ("no JSON", sql("UPDATE ledger_entries SET payload = '{\"files' WHERE sequence = 4"), "altered entry 4"),
    ("deep JSON", sql(f"UPDATE ledger_entries SET payload = '{'[' * 40_000}' WHERE sequence = 4"), "altered entry 4"),
    ("bytes", sql("UPDATE ledger_entries SET payload = x'ff00' WHERE sequence = 4"), "altered entry 4"),
    ("a list", sql("UPDATE ledger_entries SET payload = '[]' WHERE sequence = 4"), "altered entry 4"),
    ("a word for the time", sql("UPDATE ledger_entries SET time = 'noon' WHERE sequence = 4"), "altered entry 4"),
    ("NUL in the actor", sql("UPDATE ledger_entries SET actor = char(0) WHERE sequence = 4"), "altered entry 4"),
    ("escape sequences in the action", sql("UPDATE ledger_entries SET action = char(27) || '[2J' WHERE sequence = 4"),
     "altered entry 4"),
    ("one removed", sql("DELETE FROM ledger_entries WHERE sequence = 4"), "removed entry 4: the chain goes on with"),
    ("the first removed", sql("DELETE FROM ledger_entries WHERE sequence = 1"), "removed entry 1"),
    ("the newest removed", sql("DELETE FROM ledger_entries WHERE sequence > (SELECT max(sequence) - 1 FROM "
                               "ledger_entries)"), "cut off entry"),
    ("three cut with edges and signed end", sql(
        "DELETE FROM ledger_entries WHERE sequence > 15", "DELETE FROM ledger_edges WHERE sequence > 15",
        "DELETE FROM ledger_signed_ends"), "cut off entry 16: it was signed"),
    ("all removed", sql("DELETE FROM ledger_entries"), "cut off entry"),
    ("two that change places", sql(
        "UPDATE ledger_entries SET sequence = -1 WHERE sequence = 4",
        "UPDATE ledger_entries SET sequence = 4 WHERE sequence = 5",
        "UPDATE ledger_entries SET sequence = 5 WHERE sequence = -1"), "altered entry 4"),
    ("number 0", sql("INSERT INTO ledger_entries SELECT 0, time, actor, action, object_id, payload, previous, hash "
                     "FROM ledger_entries WHERE sequence = 4"), "altered entry 0: a chain has no entry of this number"),
    ("a number far ahead", sql(
        "INSERT INTO ledger_entries SELECT 9000000000000000000, time, actor, action, object_id, payload, previous, hash"
        " FROM ledger_entries WHERE sequence = 4"), "removed entry .* to 8999999999999999999"),
    ("appended without the key", appended(), "unsigned entry"),
    ("a key that nobody endorsed", appended("ledger.key", "ledger:chain", public_key="ab" * 32), "renewed entry"),
    ("an end that somebody accepted", appended("ledger.accept", "ledger:chain", reason="r", signed=0),
     "unsigned entry"),
    ("a vacuum that excuses a deleted file", both(
        gone(f"{PARCELS}/*.parquet"), lambda root: appended(
            "dataset.vacuum", "dataset:parcels@0",
            deleted=[f"parcels/{name.name}" for name in (root / PARCELS).glob("*")])(root)),
     r"removed dataset:parcels@0 \(entry 2\): data file"),
    ("one with a fitting hash in the middle", entry(4, actor="eve"), "altered entry 5: it does not continue"),
    ("the chain rewritten from one on", rewritten(4), "altered entry 5: its hash is not the one that was signed"),
    ("the chain rewritten from the first on", rewritten(1), "altered entry 2: its hash is not the one that was signed"),
    ("back-dated with a fitting hash", entry(4, time=7), "altered entry 4: its time is before"),
]  # fmt: skip

INDEXES: list[tuple[str, Act, str]] = [
    ("an edge's source", sql("UPDATE ledger_edges SET source = 'run:X' WHERE sequence = 5"),
     "altered entry 5: lineage edge run:X"),
    ("an edge's role", sql("UPDATE ledger_edges SET role = 'x' WHERE sequence = 5"), "removed entry 5: lineage edge"),
    ("an edge's target", sql("UPDATE ledger_edges SET target = 'run:X' WHERE sequence = 5"),
     "altered entry 5: lineage"),
    ("an edge removed", sql("DELETE FROM ledger_edges WHERE sequence = 5"), "removed entry 5: lineage edge"),
    ("an edge added", sql("INSERT INTO ledger_edges VALUES (5, 9, 'a:1', 'b', 'c:1')"),
     "altered entry 5: lineage edge"),
    ("all edges removed", sql("DELETE FROM ledger_edges"), "removed entry 5: lineage edge"),
    ("the table of edges dropped", sql("DROP TABLE ledger_edges"), "removed entry 5: lineage"),
    ("a node of the tree", sql("UPDATE ledger_nodes SET hash = replace(hash, 'a', 'b')"), "altered tree of entries"),
    ("all nodes removed", sql("DELETE FROM ledger_nodes"), "removed tree of entries"),
    ("a node added", sql("INSERT INTO ledger_nodes VALUES (1, 100000, '00')"), "altered tree of entries"),
    ("the signed end removed", sql("DELETE FROM ledger_signed_ends"), "removed signed end"),
    ("the signed end of others", sql("UPDATE ledger_signed_ends SET public_key = 'abcd'"),
     "altered checkpoint of entry"),
    ("a signed end of bytes", sql("UPDATE ledger_signed_ends SET signature = x'00'"), "removed signed end"),
    ("a second signed end",
     sql("INSERT INTO ledger_signed_ends SELECT 99, time, hash, root, log, public_key, signature, "
                                "after FROM ledger_signed_ends"), "altered checkpoint of entry 99"),
    ("a trigger", sql("CREATE TRIGGER t AFTER INSERT ON run_metrics BEGIN SELECT 1; END"),
     "altered records: trigger t"),
    ("a view", sql("CREATE VIEW v AS SELECT 1"), "altered records: view v"),
    ("a view in the place of a table", sql(
        "ALTER TABLE deployments RENAME TO d", "CREATE VIEW deployments AS SELECT * FROM d"),
     "altered records: view deployments"),
    ("an index that hides a row", sql(
        "CREATE INDEX zz ON deployments(revision) WHERE revision < 9",
        "INSERT INTO deployments SELECT 9, policy, time, recorded, actor, action, content, reason FROM deployments",
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET sql = 'CREATE INDEX zz ON deployments(revision)' WHERE name = 'zz'"),
     "altered records"),
    ("a table that ignores what is inserted", sql(
        "PRAGMA writable_schema = 1", "UPDATE sqlite_master SET sql = replace(sql, 'PRIMARY KEY (sequence)', "
        "'PRIMARY KEY (sequence) ON CONFLICT IGNORE') WHERE name = 'ledger_entries'"), "altered records: PRIMARY"),
    ("a database cut short", lambda root: os.truncate(root / RECORDS, 40_000), "unreadable|altered records"),
    ("a database of zeros", lambda root: [*map(remove, root.glob(f"{RECORDS}-*")),  # a log that holds it whole
                                          place(root / RECORDS, bytes(1 << 16))], "unreadable"),
    ("an empty database", write(RECORDS, b""), "cut off entry"),
    ("no database", gone(RECORDS), "cut off entry"),
    ("a page of the database", lambda root: alter_page(root / RECORDS, b"yearly", b"weekly"), "altered entry"),
]  # fmt: skip

ROWS: list[tuple[str, Act, str]] = [
    ("an approval added", sql("INSERT INTO model_approvals SELECT name, 2, 1, time, 'cay', 1, reason "
                              "FROM model_approvals WHERE version = 1"), "altered table model_approvals: 1 rows were"),
    ("an approval removed", sql("DELETE FROM model_approvals WHERE version = 1"),
     "removed .*of model_approvals is gone"),
    ("a rejection that is an approval", sql("UPDATE model_approvals SET granted = 1 WHERE version = 2"),
     "altered .*of model_approvals is not what"),
    ("an approver", sql("UPDATE model_approvals SET approver = 'cay' WHERE version = 1"),
     "altered .*of model_approvals"),
    ("a version's artifact", sql("UPDATE model_versions SET artifact = (SELECT artifact FROM model_versions "
                                 "WHERE version = 1)"), "altered .*of model_versions is not what"),
    ("a version added",
     sql("INSERT INTO model_versions SELECT name, 9, 'X', artifact, code, author, time, gates, metrics "
                            "FROM model_versions WHERE version = 1"), "altered table model_versions"),
    ("a version removed", sql("DELETE FROM model_versions WHERE version = 2"), "removed .*of model_versions is gone"),
    ("a deployment", sql("UPDATE deployments SET content = content || ' '"), "altered .*of deployments"),
    ("a deployment added", sql("INSERT INTO deployments SELECT 9, policy, time, recorded, actor, action, content, "
                               "reason FROM deployments"), "altered table deployments: 1 rows"),
    ("no deployments", sql("DELETE FROM deployments"), "removed .*of deployments is gone"),
    ("a deployment's JSON", sql("UPDATE deployments SET content = '{'"), "altered .*of deployments"),
    ("the table of deployments dropped", sql("DROP TABLE deployments"), "removed .*of deployments is gone"),
    ("a column of deployments renamed", sql("ALTER TABLE deployments RENAME COLUMN reason TO why"),
     "removed .*of deployments"),
    ("a run's facts", sql("UPDATE runs SET status = 'failed'"), "altered run:.*of runs is not what"),
    ("a run removed", sql("DELETE FROM runs WHERE id = (SELECT min(id) FROM runs)"), "removed run:.*of runs is gone"),
    ("a run added", sql(
        "INSERT INTO run_metrics SELECT 'X', split, name, step, value, low, high FROM run_metrics LIMIT 1"),
     "altered table run_metrics"),
    ("a metric", sql("UPDATE run_metrics SET value = 0.99"), "altered run:.*of run_metrics is not what"),
    ("a metric that is a word", sql("UPDATE run_metrics SET value = 'high'"), "altered run:.*of run_metrics"),
    ("a metric removed", sql("DELETE FROM run_metrics WHERE split = 'test'"), "(removed|altered) run:.*run_metrics"),
    ("metrics of two runs exchanged", sql(
        "UPDATE run_metrics SET value = (SELECT value FROM run_metrics AS o WHERE o.name = run_metrics.name AND "
        "o.run <> run_metrics.run)"), "altered run:.*of run_metrics is not what"),
    ("an artifact of a run", sql("UPDATE run_artifacts SET digest = '" + "ab" * 32 + "'"),
     "altered run:.*run_artifacts"),
    ("a hold lifted", sql("DELETE FROM dataset_tags"), "removed .*of dataset_tags is gone"),
    ("a tag moved", sql("UPDATE dataset_tags SET version = 5"), "altered .*of dataset_tags"),
    ("a column with bytes", sql("UPDATE model_versions SET run = x'ff' WHERE version = 1"),
     "altered .*of model_versions"),
]  # fmt: skip

TABLES: list[tuple[str, Act, str]] = [
    ("a bit of a data file", flip(f"{PARCELS}/*.parquet"), r"altered dataset:parcels@0 .*data file"),
    ("a data file removed", gone(f"{PARCELS}/*.parquet"), r"removed dataset:parcels@0 .*data file .* is gone"),
    ("a data file of another table", lambda root: place(
        only(root, f"{PARCELS}/*.parquet"), only(root, "state/tables/notes/*.parquet").read_bytes()),
     "altered dataset:parcels@0 .*data file"),
    ("a space in the log", lambda root: place(root / LOG / f"{1:020d}.json", (root / LOG / f"{1:020d}.json")
                                              .read_bytes().replace(b'","', b'", "', 1)), "altered dataset:notes@1"),
    ("the newest version taken back", gone(f"{LOG}/{3:020d}.json"), "removed dataset:notes@3"),
    ("a version in the middle removed", gone(f"{LOG}/{1:020d}.json"), "altered table notes"),
    ("a version of others", foreign_version("notes"), "unsigned table notes, version 4"),
    ("a version of others in the quarantine", foreign_version("notes__quarantine"),
     "unsigned table notes__quarantine, version"),
    ("a table of others", lambda root: deltalake.write_deltalake(
        root / "state/tables/mine", pa.table({"a": [1]})), "unsigned table mine, version 0"),
    ("a table under another name", lambda root: (root / "state/tables/notes").rename(root / "state/tables/other"),
     "unsigned table other, version 0"),
    ("a table removed", gone("state/tables/notes"), "removed dataset:notes@0"),
    ("a quarantine removed", gone("state/tables/notes__quarantine"), "removed dataset:notes"),
    ("a statement on a version", sql("UPDATE ledger_versions SET digest = '00' WHERE name = 'notes'"),
     "altered statement on table notes"),
    ("a statement of others on a version", sql(
        "INSERT INTO ledger_versions SELECT name, version + 20, digest, time, public_key, signature FROM "
        "ledger_versions"),
     "altered statement on table"),
    ("no JSON in the log", write(f"{LOG}/{1:020d}.json", b"{"), "altered table notes"),
    ("deep JSON in the log", write(f"{LOG}/{1:020d}.json", b"[" * 100_000), "altered table notes"),
    ("a deep commit appended", write(f"{LOG}/{4:020d}.json", b'{"commitInfo":' + b"[" * 100_000),
     "altered table notes"),
    ("a commit of numbers appended", write(f"{LOG}/{4:020d}.json", b'{"add": 7}\n'), "altered table notes"),
    ("a version of a number far ahead", write(f"{LOG}/{10**19:020d}.json", b"{}"), "altered table notes"),
    ("a log entry that is a FIFO", instead(f"{LOG}/{1:020d}.json", "fifo"), "altered table notes"),
    ("a log entry without end", instead(f"{LOG}/{1:020d}.json", "zeros"), "altered table notes"),
    ("a folder that is a log entry", instead(f"{LOG}/{1:020d}.json", "folder"), "altered table notes"),
    ("a data file that is a FIFO", instead(f"{PARCELS}/*.parquet", "fifo"), "altered dataset:parcels@0 .*data file"),
    ("a data file without end", instead(f"{PARCELS}/*.parquet", "zeros"), "altered dataset:parcels@0 .*data file"),
    ("a folder that is a data file", instead(f"{PARCELS}/*.parquet", "folder"), "(altered|removed) dataset:parcels@0"),
    ("a link to nowhere as a data file", instead(f"{PARCELS}/*.parquet", "nowhere"), "removed dataset:parcels@0"),
    ("a link to itself as a data file", instead(f"{PARCELS}/*.parquet", "itself"),
     "(altered|removed) dataset:parcels@0"),
]  # fmt: skip

STREAMS: list[tuple[str, Act, str]] = [
    ("a bit of a sealed segment", flip(f"{SEGMENTS}/{SEGMENT}"), "altered segment decisions/0/0+.seg"),
    ("a record cut off", lambda root: os.truncate(root / SEGMENTS / SEGMENT, (root / SEGMENTS / SEGMENT).stat().st_size
                                                  - 40), "altered segment decisions/0/0+.seg"),
    ("a segment removed", gone(f"{SEGMENTS}/{SEGMENT}"), "(altered|removed) segment decisions/0/0+.seg"),
    ("a segment in the place of another", copied(f"{SEGMENTS}/{SEGMENT}", f"{SEGMENTS}/{3:020d}.seg"),
     "altered segment decisions/0/0+3.seg"),
    ("a segment of others in between", copied(f"{SEGMENTS}/{SEGMENT}", f"{SEGMENTS}/{1:020d}.seg"),
     "unsigned segment decisions/0/0+1.seg"),
    ("a segment of a number far ahead", copied(f"{SEGMENTS}/{SEGMENT}", f"{SEGMENTS}/{900:020d}.seg"),
     "unsigned segment decisions/0/0+900.seg"),
    ("a stream of others", copied(f"{SEGMENTS}/{SEGMENT}", f"state/streams/decisions/9/{SEGMENT}"),
     "unsigned segment decisions/9/0+.seg"),
    ("a stream removed", gone(SEGMENTS), "removed segment decisions/0/0+.seg"),
    ("a seal", sql("UPDATE ledger_seals SET count = 2"), "altered seal of decisions/0/0+.seg: the table of seals says"),
    ("a seal removed", sql("DELETE FROM ledger_seals"), "removed seal of decisions/0/0+.seg"),
    ("a seal of others", sql("INSERT INTO ledger_seals SELECT stream, 'x.seg', first, count, digest, root, sequence "
                             "FROM ledger_seals LIMIT 1"), "altered seal of decisions/0/x.seg: no entry"),
    ("a seal of bytes", sql("UPDATE ledger_seals SET count = x'ff'"), "altered seal of decisions/0/0+.seg"),
    ("the head of a stream", lambda root: place(root / HEADS, (root / HEADS).read_bytes().replace(b'"time": 1',
                                                                                                 b'"time": 2')),
     "altered head of decisions/0"),
    ("no JSON as a head", write(HEADS, b"{"), "altered head of decisions/0"),
    ("a head of others", copied(HEADS, "checkpoints/heads/decisions/7.json"), "altered head of decisions/7"),
    ("a head that is a FIFO", instead(HEADS, "fifo"), "altered head of decisions/0"),
    ("a head without end", instead(HEADS, "zeros"), "altered head of decisions/0"),
    ("a segment that is a FIFO", instead(f"{SEGMENTS}/{SEGMENT}", "fifo"), "altered segment decisions/0/0+.seg"),
    ("a segment without end", instead(f"{SEGMENTS}/{SEGMENT}", "zeros"), "altered segment decisions/0/0+.seg"),
    ("a folder that is a segment", instead(f"{SEGMENTS}/{SEGMENT}", "folder"), "altered segment decisions/0/0+.seg"),
    ("the end of a stream that is a FIFO", instead(f"{SEGMENTS}/.head", "fifo"), "altered stream decisions/0"),
    ("the end of a stream moved back", write(f"{SEGMENTS}/.head", b""), ""),
]  # fmt: skip

FILES: list[tuple[str, Act, str]] = [
    ("a bit of an object", flip("state/objects/*/*/*", 5), "altered .*: object .*must have the hash"),
    ("an object removed", gone("state/objects/*/*/*"), r"removed .* is gone"),
    ("an empty object", write("state/objects/*/*/*", b""), "altered .*"),
    ("an object in the place of another", lambda root: place(*next((a, b.read_bytes()) for a, b in [
        sorted(root.glob("state/objects/*/*/*"))[:2]])), "altered .*must have the hash"),
    ("all objects removed", gone("state/objects"), "removed .*is gone"),
    ("an object that is a FIFO", instead("state/objects/*/*/*", "fifo"), "altered .*"),
    ("an object without end", instead("state/objects/*/*/*", "zeros"), "altered .*"),
    ("a folder that is an object", instead("state/objects/*/*/*", "folder"), "altered .*"),
    ("a link to nowhere as an object", instead("state/objects/*/*/*", "nowhere"), "removed .*is gone"),
    ("no checkpoints", gone(LINES), "removed checkpoint"),
    ("checkpoints emptied", write(LINES, b""), "removed checkpoint"),
    ("checkpoints emptied before a command", both(write(LINES, b""), honest), "removed checkpoint"),
    ("checkpoints cut to the first", lines(lambda text: text[:1]), "removed checkpoint"),
    ("checkpoints cut before a command", both(lines(lambda text: text[:1]), honest), "removed checkpoint"),
    ("checkpoints without the newest three", lines(lambda text: text[:-3]), "removed checkpoint"),
    ("a checkpoint of the middle removed", lines(lambda text: text[:4] + text[5:]), "removed checkpoint"),
    ("a torn checkpoint in the middle", lines(lambda text: [*text[:4], text[4][:60] + "\n", *text[5:]]),
     "(altered|removed) checkpoint"),
    ("a checkpoint of other words", lines(lambda text: [*text, "{}\n"]), "altered checkpoints, line"),
    ("deep JSON as a checkpoint", lines(lambda text: [*text, "[" * 99_000 + "\n"]), "altered checkpoints, line"),
    ("the hash of a checkpoint", statement(4, hash="ab" * 32), "altered "),
    ("the time of a checkpoint", statement(4, time=7), "altered checkpoint of entry"),
    ("the root of a checkpoint", statement(4, root="ab" * 32), "altered checkpoint of entry"),
    ("a checkpoint on what is not there", statement(-1, sequence=500), "altered checkpoint of entry 500"),
    ("checkpoints that are a FIFO", instead(LINES, "fifo"), "unreadable|altered checkpoints"),
    ("checkpoints without end", instead(LINES, "zeros"), "unreadable|altered checkpoints"),
    ("a folder that is the checkpoints", instead(LINES, "folder"), "checkpoint|unreadable"),
    ("checkpoints elsewhere", settings("[ledger]", '[ledger]\ncheckpoints = "other"'), "removed checkpoint"),
    ("checkpoints elsewhere before a command", both(settings("[ledger]", '[ledger]\ncheckpoints = "other"'), honest),
     "removed checkpoint"),
    ("records elsewhere", settings("[ledger]", '[stores]\nrecords = "sqlite:///state/other.db"\n[ledger]'),
     "cut off|removed"),
    ("tables elsewhere", settings("[ledger]", '[stores]\ntables = "file:state/other"\n[ledger]'), "removed dataset:"),
    ("a witness emptied", write("../witness/checkpoints.jsonl", b""), "behind witness ../witness"),
    ("a witness cut to its first statement", lines(lambda text: text[:1], "../witness/checkpoints.jsonl"),
     "behind witness ../witness"),
    ("a witness that is gone", gone("../witness"), "unreadable witness ../witness"),
    ("a witness that is a FIFO", instead("../witness/checkpoints.jsonl", "fifo"), "unreadable witness ../witness"),
    ("no witness any more", settings('"../witness"', ""), "removed witness ../witness"),
    ("another witness", settings('"../witness"', '"."'), "removed witness ../witness"),
    ("another key", key_of_others(), "altered signing key"),
    ("an empty key", write(KEY, b""), "altered signing key"),
    ("no key", gone(KEY), "removed signing key"),
    ("a key that others may read", lambda root: (root / KEY).chmod(0o640), "exposed signing key: others may use it"),
    ("a key that others may write", lambda root: (root / KEY).chmod(0o602), "exposed signing key: others may use it"),
    ("a key behind a link that others may read", lambda root: [
        (root / KEY).symlink_to((root / KEY).rename(root / "elsewhere")), (root / "elsewhere").chmod(0o644)],
     "exposed signing key: others may use it"),
    ("a key that is a FIFO", instead(KEY, "fifo"), "altered signing key"),
    ("a bit of an index", flip("state/indexes/*/*/0007.npy"), "altered index"),
    ("an index made anew with fitting checksums", forged_index, "altered index"),
]  # fmt: skip


CASES = [*ENTRIES, *INDEXES, *ROWS, *TABLES, *STREAMS, *FILES]


def test_an_untouched_project_is_verified(root: Path) -> None:
    """And acts: what is named below is not named here."""
    assert audit(root) == []
    honest(root)
    assert audit(root) == []


@pytest.mark.parametrize(("act", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_was_done_is_named(act: Act, said: str, root: Path) -> None:
    """A finding says what it is, and where; nothing hangs, nothing is thrown at the auditor."""
    act(root)
    findings = audit(root)
    if not said:
        assert findings == []
    else:
        assert any(re.match(said, line) for line in findings), findings


# what is refused, or goes on, when somebody acts -----------------------------------------------------------------


def refused(do: Callable[[Project], Any]) -> Callable[[Path], str]:
    def act(root: Path) -> str:
        with Project(root, actor="ana") as project, pytest.raises(RetrodictError) as raised:
            do(project)
        return str(raised.value)

    return act


def shown(do: Callable[[Project], Any]) -> Callable[[Path], str]:
    def act(root: Path) -> str:
        with Project(root, actor="ana") as project:
            return str(do(project))

    return act


def decided(project: Project) -> Any:
    return project.decide("promise", **PARCEL).decision


def count(project: Project) -> int:
    return project.decisions.table("promise").num_rows


def first_decision(project: Project) -> str:
    return f"decision:{project.decisions.table('promise').column('id')[0].as_py()}"


def deployed_otherwise(root: Path) -> None:
    """The entry on a deployment and the row it vouches for are others, and both hashes fit."""
    (row,) = query(root, "SELECT * FROM ledger_entries WHERE action = 'policy.deploy'")
    query(root, "UPDATE deployments SET reason = 'mine'")
    (stored,) = query(root, "SELECT * FROM deployments")
    payload = json.loads(row["payload"])
    (record,) = payload["records"]
    body = canonical({name: stored[name] for name in record["columns"]})
    record["digest"] = hashlib.sha256(body.encode()).hexdigest()
    entry(row["sequence"], payload=canonical(payload))(root)


def state_altered(root: Path) -> None:
    """Every block of the online state has another byte in it."""
    with lmdb.open(str(root / "state/keys")) as store, store.begin(write=True) as change:
        for key, value in list(change.cursor()):
            if len(value) > 60:
                change.put(key, value[:40] + bytes([value[40] ^ 1]) + value[41:])


def seal_altered(root: Path) -> None:
    """The root that an entry sealed, and the row of the seal, are others; the entry's hash fits."""
    (row,) = query(root, "SELECT * FROM ledger_entries WHERE action = 'segment.seal' LIMIT 1")
    payload = json.loads(row["payload"]) | {"root": "ab" * 32}
    query(root, "UPDATE ledger_seals SET root = ? WHERE sequence = ?", "ab" * 32, row["sequence"])
    entry(row["sequence"], payload=canonical(payload))(root)


FAR, BETWEEN = (copied(f"{SEGMENTS}/{SEGMENT}", f"{SEGMENTS}/{number:020d}.seg") for number in (900, 1))

ACTS: list[tuple[str, Act, Callable[[Path], str], str]] = [
    ("a segment of a number far ahead stops no decision", FAR, shown(decided), "ok|warn"),
    ("nor does one after a restart", both(gone(f"{SEGMENTS}/.head"), FAR), shown(decided), "ok|warn"),
    ("a segment in between hides no decision", BETWEEN, shown(count), "6"),
    ("a stream of others is not read", copied(f"{SEGMENTS}/{SEGMENT}", f"state/streams/decisions/9/{SEGMENT}"),
     shown(count), "6"),
    ("no key", gone(KEY), refused(decided), ".*must be readable.*renew-key"),
    ("another key", key_of_others(), refused(decided), ".*must be the one that the ledger names"),
    ("nothing is appended to an end of others", appended(), refused(
        lambda project: project.data.tag("parcels@0", "x")), ".*must end with the entry that was signed last"),
    ("nor below what was signed", sql("DELETE FROM ledger_entries WHERE sequence > 15",
                                      "DELETE FROM ledger_signed_ends"),
     refused(lambda project: project.data.tag("parcels@0", "x")), ".*audit accept"),
    ("a deployment and its entry replaced", deployed_otherwise, refused(decided), ".*entries of the ledger vouch for"),
    ("a version approved by a row", sql("INSERT INTO model_approvals SELECT name, 2, 1, time, 'cay', 1, reason FROM "
                                        "model_approvals WHERE version = 1"),
     refused(lambda project: project.promote("promise", "late_parcel@2", reason="b")), ".*entries of the ledger vouch"),
    ("a hold lifted by a row", sql("DELETE FROM dataset_tags"), refused(
        lambda project: project.data.vacuum("parcels", dry_run=False, older_than="0s")), ".*1 rows fewer"),
    ("a version of others is not read", foreign_version("notes"), shown(
        lambda project: project.data.read("notes").num_rows), "2"),
    ("nor written on top of", foreign_version("notes"), refused(
        lambda project: project.data.ingest("notes", pa.table({"id": [50], "x": [1.0]}))), ".*by other hands"),
    ("a seal and its entry replaced vouch for nothing", seal_altered, shown(count), "3"),
    ("a node of the tree", sql("UPDATE ledger_nodes SET hash = replace(hash, 'a', 'b')"), shown(decided), "ok|warn"),
    ("a run's metrics", sql("UPDATE run_metrics SET value = 0.99"), shown(
        lambda project: project.replay(project.runs.list()[0].ref).ok), "False"),
    ("a decision whose table lost a file", gone(f"{PARCELS}/*.parquet"), shown(
        lambda project: project.replay(first_decision(project)).verdict), "not replayable"),
    ("lineage of a run without its edges", sql("DELETE FROM ledger_edges"), shown(
        lambda project: project.lineage(first_decision(project))), "(?s).*edges are not what it says"),
    ("escape sequences are shown escaped", sql("UPDATE ledger_entries SET actor = char(27) || '[2Jx'"), shown(
        lambda project: f"{project.audit()} {project.ledger.log()}"), "(?s)[^\x1b]*$"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "do", "said"), [case[1:] for case in ACTS], ids=[case[0] for case in ACTS])
def test_who_acts_afterwards(act: Act, do: Callable[[Path], str], said: str, root: Path) -> None:
    """Refused with a reason, or done as if nobody had been there; never on the ground of what was altered."""
    act(root)
    answer = do(root)
    assert re.fullmatch(said, answer) or re.match(said, answer), answer


def test_no_frame_is_made_of_a_forged_index(root: Path) -> None:
    """It is made anew from the table: its values are those that the table gives."""
    with Project(root, actor="ana") as project:
        features = FeatureSet(project.definitions.get(Model, "late_parcel").features)
        before = contents(root)
    forged_index(root)
    assert contents(root) != before
    with Project(root, actor="ana") as project:
        EventIndexes.of(project.workspace).build(features)
    assert contents(root) == before
    assert audit(root) == []


def contents(root: Path) -> dict[str, bytes]:
    """Arrays of the indexes by their places."""
    folder = root / "state/indexes"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


@pytest.mark.parametrize("name", ["a\x1b[2J", "\u0430nn", "a" * 5_000, "a\u202eb"])
def test_no_name_misleads(name: str, root: Path) -> None:
    """Escape sequences, look-alikes, text of a page's length, letters from right to left."""
    with pytest.raises(RetrodictError, match="a name must have"):
        Project(root, actor=name)


# what only a witness can tell -------------------------------------------------------------------------------------


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, by its own words."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree_root(leaves[:split]) + tree_root(leaves[split:])).digest()


def history_rewritten(root: Path, last: int | None = None) -> None:
    """With the key and the whole disk: all that was signed by the key in force, signed anew; perhaps cut as well."""
    if last is not None:
        for table in ("entries", "edges", "nodes"):
            rest = "(position + 1) << level" if table == "nodes" else "sequence"
            query(root, f"DELETE FROM ledger_{table} WHERE {rest} > ?", last)
    (renewal,) = query(root, "SELECT sequence FROM ledger_entries WHERE action = 'ledger.key'")
    start = renewal["sequence"] + 1
    rewritten(start)(root)
    hashes = [row["hash"] for row in query(root, "SELECT hash FROM ledger_entries ORDER BY sequence")]
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(hash_)).digest() for hash_ in hashes]
    for level in range(1, 6):
        for place_ in range(len(leaves) >> level):
            node = tree_root(leaves[place_ << level : place_ + 1 << level]).hex()
            query(root, "UPDATE ledger_nodes SET hash = ? WHERE level = ? AND position = ?", node, level, place_)
    key = Ed25519PrivateKey.from_private_bytes((root / KEY).read_bytes())
    text = []
    for line in map(json.loads, (root / LINES).read_text().splitlines()):
        if line["sequence"] > len(hashes):
            continue
        if line["sequence"] >= start:
            line |= {"hash": hashes[line["sequence"] - 1], "root": tree_root(leaves[: line["sequence"]]).hex()}
            facts = {name: line[name] for name in ("sequence", "time", "hash", "root", "log", "after")}
            line["signature"] = key.sign(canonical({"retrodict": "checkpoint", **facts}).encode()).hex()
        text.append(line)
    query(root, "DELETE FROM ledger_signed_ends")
    put(root, "ledger_signed_ends", text[-1])
    (root / LINES).write_text("".join(json.dumps(line) + "\n" for line in text))


def test_a_history_rewritten_with_the_key_is_seen_by_a_witness(root: Path) -> None:
    """Without one, nobody who has the disk alone can tell: so the page on the ledger says."""
    history_rewritten(root)
    assert any(re.match("altered entry .* says witness ../witness", line) for line in audit(root))
    assert audit_without_witness(root) == []


def test_a_history_cut_with_the_key_is_seen_by_a_witness(root: Path) -> None:
    """The signed ends before the cut are what they were."""
    (newest,) = query(root, "SELECT max(sequence) AS n FROM ledger_entries WHERE action = 'segment.seal'")
    sequences = [json.loads(line)["sequence"] for line in (root / LINES).read_text().splitlines()]
    last = max(number for number in sequences if number < newest["n"])
    history_rewritten(root, last)
    assert any(re.match("cut off entry .* says witness ../witness", line) for line in audit(root))
    assert not any(line.startswith("cut off") for line in audit_without_witness(root))


def audit_without_witness(root: Path) -> list[str]:
    settings('"../witness"', "")(root)
    return [line for line in audit(root) if not line.startswith("removed witness")]


def test_a_proof_says_what_it_proves(root: Path, tmp_path: Path) -> None:
    """Without its record it holds as the proof of an entry, and of no decision."""
    with Project(root) as project:
        proof = project.ledger.proof(first_decision(project), record=True)
        with pytest.raises(RetrodictError, match="only the proof of a decision must hold a record"):
            project.ledger.proof("entry:3", record=True)
    assert (proof.ok, proof.kind) == (True, "record")
    del proof.document["record"]
    (tmp_path / "proof.json").write_text(json.dumps(proof.document))
    checked = project.ledger.check(tmp_path / "proof.json", public_key=proof.public_key)
    assert (checked.ok, checked.to_dict()["proves"]) == (True, "entry")
    assert "and of no decision that it was in there" in " ".join(str(checked).split())


def test_a_decision_whose_record_was_altered_says_so(root: Path) -> None:
    """And where: that none of its id is in the log was as if it had never been made."""
    with Project(root) as project:
        ref = first_decision(project)
        records = [data for _, data in project.workspace.streams.read("decisions/0", 0, 3)]
    changed = [data.replace(ref.encode()[-26:], b"01JZZZZZZZZZZZZZZZZZZZZZZZ") for data in records]
    path = root / SEGMENTS / SEGMENT
    place(path, path.read_bytes()[:HEADER_SIZE] + pack_frames(changed))
    with Project(root) as project:
        for ask in (project.ledger.proof, project.lineage, project.replay):
            with pytest.raises(
                RetrodictError, match=r"segment decisions/0/0.*altered: the file does not have the hash"
            ):
                ask(ref)


def test_a_forged_decision_is_not_replayed_as_exact(root: Path) -> None:
    """A record of another decision with its own id, whose replay would give what it says."""
    with Project(root) as project:
        _, *others = [data for _, data in project.workspace.streams.read("decisions/0", 0, 3)]
        ref = first_decision(project)
        second = decode_record(others[0])
    forged = [encode_record(structs.replace(second, id=ref[-26:])), *others]
    path = root / SEGMENTS / SEGMENT
    place(path, path.read_bytes()[:HEADER_SIZE] + pack_frames(forged))
    with Project(root) as project:
        replay = project.replay_decision(ref)
        assert not replay.ok
        assert "must have the root that was sealed" in str(replay.to_dict())


def test_no_second_ledger_is_begun_beside_signed_checkpoints(root: Path) -> None:
    """All entries deleted: the next command would sign a chain of its own."""
    with closing(sqlite3.connect(root / "state" / "records.db")) as records, records:
        for table in ("ledger_entries", "ledger_edges", "ledger_nodes", "ledger_signed_ends"):
            records.execute(f"DELETE FROM {table}")
    lines = (root / "checkpoints" / "checkpoints.jsonl").read_bytes()
    with Project(root, actor="ana") as project:
        name = project.workspace.tables.names(every=True)[0]
        with pytest.raises(RetrodictError, match="must have entries"):
            project.data.tag(f"{name}@0", "mine")
        assert not project.audit().ok
    assert (root / "checkpoints" / "checkpoints.jsonl").read_bytes() == lines


@pytest.mark.parametrize("name", ["state/ledger.key", "checkpoints", "state/records.db", "state/keys"])
def test_a_link_to_itself_is_named(root: Path, name: str) -> None:
    """By the audit, or by what uses it: neither a traceback nor a wait."""
    path = root / name
    path.rename(path.with_name("moved"))
    path.symlink_to(path)
    found = []
    with suppress(RetrodictError), Project(root) as project:
        found = [] if name == "state/keys" else project.audit().findings
        with pytest.raises((RetrodictError, OSError)):
            project.features.build() if name == "state/keys" else project.data.tag("parcels@0", "x")
        found = found or [name]
    assert found or name == "state/records.db"
