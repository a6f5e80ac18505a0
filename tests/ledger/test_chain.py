"""The chain: what is appended, what an auditor computes, what happens between processes and deaths."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import ConfigurationError, InternalError
from retrodict.ledger import AuditReport
from retrodict.ledger.chain import _row_hashes, row_hashes
from retrodict.ledger.keys import SigningKey
from retrodict.ledger.table_versions import SignedVersion
from retrodict.workspace import Workspace

from .conftest import database, recomputed

Audit = Callable[[Workspace], AuditReport]
Sql = Callable[..., list[dict[str, Any]]]

APPEND = """
import sys
from retrodict.workspace import Workspace
project = Workspace(sys.argv[1])
project.ledger
print("ready", flush=True)
sys.stdin.readline()
for i in range(25):
    with project.ledger.transaction() as tx:
        tx.append("note.write", f"note:{sys.argv[2]}-{i}", {"i": i}, inputs=[(f"note:{sys.argv[2]}-{i - 1}", "before")])
"""

FOREVER = """
import itertools, sys
from retrodict.workspace import Workspace
project = Workspace(sys.argv[1])
print("ready", flush=True)
for i in itertools.count():
    with project.ledger.transaction() as tx:
        entry = tx.append("note.write", f"note:{i}", {"i": i}, inputs=[("note:0", "first"), (f"note:{i}", "same")])
        tx.append("note.again", f"note:{i}")
    print(entry.sequence + 1, flush=True)
"""


def test_the_chain_is_what_an_auditor_computes(project: Workspace, sql: Sql) -> None:
    """Every hash and link, from the stored rows, by code that shares nothing with ours."""
    rows = sql("SELECT * FROM ledger_entries ORDER BY sequence")
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5, 6]
    previous = "0" * 64
    for row in rows:
        assert row["previous"] == previous
        assert row["hash"] == recomputed(row)
        previous = row["hash"]


ODD = st.sampled_from(["é", "\x7f", '"', "\\", "\t", "\U0001f600"])
PLAIN = st.text("az09 :{}~", max_size=8)
NUMBER = st.integers(0, 2**63) | st.integers(-(2**64), 2**64)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(NUMBER, NUMBER, PLAIN, PLAIN, PLAIN | ODD, st.dictionaries(PLAIN, ODD, max_size=2)), max_size=3),
    st.binary(min_size=32, max_size=32),
)
@example([(1, 2, "x" * size, "a", "b", {}) for size in range(130)], bytes(32))
@example([(1, 2, "a", "b", "\\", {})], bytes(32))
@example([(1, 2, "a", '"', "b", {})], bytes(32))
def test_hashes_of_many_entries_are_those_of_each(rows: list[tuple[Any, ...]], last: bytes) -> None:
    """By the kernel and without it: with and without escapes, of every length around the blocks of the hash."""
    stored = [(*row[:5], json.dumps(row[5], sort_keys=True, separators=(",", ":")), "", "") for row in rows]
    expected, before = b"", last
    for sequence, time, actor, action, object_id, payload in rows:
        body = {"sequence": sequence, "time": time, "actor": actor, "action": action, "object": object_id}
        data = json.dumps(body | {"payload": payload}, sort_keys=True, separators=(",", ":")).encode()
        before = hashlib.sha256(len(data).to_bytes(8) + data + before).digest()
        expected += before
    assert row_hashes(stored, last) == _row_hashes(stored, last) == expected


@pytest.mark.parametrize("at", range(5))
def test_a_value_of_another_type_has_another_hash(at: int) -> None:
    """True is not 1, and no text is a number."""
    row = [1, 1, "a", "b", "c", "{}"]
    row[at] = True if at < 2 else 1
    try:
        assert row_hashes([tuple(row)], bytes(32)) != row_hashes([(1, 1, "a", "b", "c", "{}")], bytes(32))
    except TypeError:
        assert at >= 2


def test_what_is_as_it_was_written_verifies(project: Workspace, audit: Audit) -> None:
    """And the report says how much was looked at."""
    report = audit(project)
    assert report.verified, report.findings
    counts = report.to_dict()["checked"]
    assert counts == {"entries": 6, "edges": 4, "checkpoints": 4, "segments": 1, "objects": 1, "files": 1}


def test_an_empty_ledger_verifies(make_project: Callable[..., Workspace], audit: Audit) -> None:
    """Nothing was promised yet; looking makes neither a key nor an entry."""
    project = make_project()
    assert audit(project).verified
    assert not project.config.path("ledger.key").exists()


def test_the_first_entry_names_the_key(project: Workspace) -> None:
    """So that a checkpoint by another key does not count."""
    first = project.ledger.entries()[0]
    assert (first.action, list(first.payload)) == ("ledger.begin", ["public_key"])
    assert project.config.path("ledger.key").stat().st_mode & 0o077 == 0


def test_a_retired_key_signs_nothing_any_more(project: Workspace) -> None:
    """Nor does a new one sign what was before it: each counts from the entry that names it to the one after."""
    path = project.config.path("ledger.key")
    old = SigningKey(path)
    project.ledger.renew_key("it leaked")
    new = SigningKey(path)
    keys = [(10, old.public_key), (20, new.public_key)]
    signed = [key.sign(SignedVersion("notes", 1, "ab" * 32, time, "", "")) for key in (old, new) for time in (15, 25)]
    assert [one.is_valid() for one in signed] == [True, True, True, True]
    assert [one.is_valid(keys) for one in signed] == [True, False, False, True]


def test_an_entry_is_there_with_its_change_or_not_at_all(project: Workspace) -> None:
    """An exception takes back both, and signs nothing."""
    table = sa.Table("things", sa.MetaData(), sa.Column("id", sa.Integer))
    project.records.ensure(table.metadata)
    signed = (project.root / "checkpoints" / "checkpoints.jsonl").read_bytes()
    with pytest.raises(ZeroDivisionError), project.ledger.transaction() as tx:  # noqa: PT012  # the block is the point
        tx.connection.execute(table.insert().values(id=1))
        tx.append("thing.make", "thing:1")
        raise ZeroDivisionError
    with project.records.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0
    assert len(project.ledger.entries()) == 6
    assert (project.root / "checkpoints" / "checkpoints.jsonl").read_bytes() == signed


def test_a_transaction_without_entries_leaves_the_chain_alone(project: Workspace) -> None:
    """Nothing is appended, nothing is signed."""
    with project.ledger.transaction():
        pass
    assert len(project.ledger.entries()) == 6


def test_without_a_place_for_checkpoints_nothing_is_changed(make_project: Callable[..., Workspace]) -> None:
    """An entry that cannot be signed is refused before it is made."""
    project = make_project(settings='[ledger]\ncheckpoints = "taken"\n')
    (project.root / "taken").write_text("a file")
    with (
        pytest.raises(ConfigurationError, match=r"ledger.checkpoints'.*was changed"),
        project.ledger.transaction() as tx,
    ):
        tx.append("note.write", "note:1")
    assert project.ledger.entries() == []


def test_the_ledgers_own_keys_are_refused_in_a_payload(project: Workspace) -> None:
    """Else lineage could be said that no edge shows."""
    with pytest.raises(InternalError, match="own keys"), project.ledger.transaction() as tx:
        tx.append("note.write", "note:1", {"inputs": [["a", "b"]]})


def test_rows_that_nothing_vouches_for_are_not_committed(project: Workspace) -> None:
    """An entry has to follow them in their transaction."""
    table = sa.Table("things", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    project.records.ensure(table.metadata)
    with pytest.raises(InternalError, match="vouches"), project.ledger.transaction() as tx:  # noqa: PT012  # the same
        tx.append("thing.announce", "thing:1")
        tx.insert(table, {"id": 1})


def test_rows_are_vouched_for_by_the_entry_that_follows_them(make_project: Callable[..., Workspace]) -> None:
    """Also where that transaction begins the chain: its first entry names the key and nothing else."""
    project = make_project()
    things = sa.Table("things", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    project.records.ensure(things.metadata)
    with project.ledger.transaction() as tx:
        tx.insert(things, {"id": 7})
        tx.append("thing.make", "thing:7")
    begin, made = project.ledger.entries()
    assert list(begin.payload) == ["public_key"]
    assert [(record["table"], record["key"]) for record in made.payload["records"]] == [("things", {"id": 7})]


def test_an_entry_may_be_by_somebody_else_and_is_found_by_action_and_object(project: Workspace) -> None:
    """A service acts for a person: the entry says who; another action on the same object is another entry."""
    with project.ledger.transaction() as tx:
        assert tx.append("note.write", "note:1", actor="eve").actor == "eve"
        assert tx.append("note.write", "note:2").actor == "ann"
        sought = [("note.write", "note:1"), ("note.erase", "note:1"), ("note.write", "note:3")]
        assert [tx.has(action, note) for action, note in sought] == [True, False, False]
    assert [entry.actor for entry in project.ledger.entries(action="note.write")] == ["eve", "ann"]


def test_lineage_is_walked_both_ways_nearest_first(project: Workspace) -> None:
    """From a model to the batch, and back."""
    assert project.ledger.upstream("model:m@1") == [
        ("model:m@1", "trained by", "run:1"),
        ("run:1", "training data", "dataset:sales@0"),
        ("run:1", "code", "code:1"),
        ("dataset:sales@0", "rows", "batch:1"),
    ]
    assert {target for target, _, _ in project.ledger.downstream("batch:1")} == {
        "dataset:sales@0",
        "run:1",
        "model:m@1",
    }
    assert project.ledger.upstream("nothing") == []


def test_lineage_of_very_many_is_walked(make_project: Callable[..., Workspace]) -> None:
    """More than one statement of SQL takes variables for; a circle ends."""
    project = make_project()
    with project.ledger.transaction() as tx:
        tx.append("big.make", "big", inputs=[(f"part:{i}", "part") for i in range(33_000)])
        tx.append("part.make", "part:0", inputs=[("big", "circle")])
    assert len(project.ledger.upstream("big")) == 33_001


def test_four_processes_append_without_gap_or_fork(
    make_project: Callable[..., Workspace], python: Callable[..., Any], audit: Audit
) -> None:
    """A hundred entries and the first one, all linked, all signed; also the key is made once."""
    project = make_project()
    children = [python(APPEND, project.root, name) for name in "abcd"]
    for child in children:
        assert child.line() == "ready", child.end()
    for child in children:
        child.go()
    for child in children:
        assert child.end()[0] == 0
    entries = project.ledger.entries()
    assert [entry.sequence for entry in entries] == list(range(1, 102))
    assert {entry.object_id for entry in entries[1:]} == {f"note:{name}-{i}" for name in "abcd" for i in range(25)}
    report = audit(project)
    assert (report.findings, report.checkpoints) == ([], 100)


def test_a_death_in_the_middle_leaves_a_ledger_that_verifies(
    make_project: Callable[..., Workspace], python: Callable[..., Any], audit: Audit
) -> None:
    """What was acknowledged is there, in pairs; the next process appends to it."""
    project = make_project()
    for turn in range(2):
        child = python(FOREVER, project.root)
        assert child.line() == "ready"
        for _ in range(3 + 2 * turn):
            last = int(child.line())
        child.kill()
        entries = project.ledger.entries()
        assert len(entries) >= last
        assert len(entries) % 2 == 1
        report = audit(project)
        assert report.verified, report.findings


def test_a_torn_checkpoint_does_not_spoil_the_next(project: Workspace, audit: Audit) -> None:
    """A writer that died in the middle of a line never acknowledged it."""
    file = project.root / "checkpoints" / "checkpoints.jsonl"
    whole = file.read_bytes()
    for cut in (1, 20, 200):
        file.write_bytes(whole + whole.splitlines(keepends=True)[-1][:cut])
        assert audit(project).verified
        with project.ledger.transaction() as tx:
            tx.append("note.write", "note:1")
        report = audit(project)
        assert report.verified, report.findings
        whole = file.read_bytes()
        assert whole.endswith(b"}\n")


def test_the_database_is_plain_sqlite(project: Workspace) -> None:
    """An auditor needs none of our code to read it."""
    with closing(sqlite3.connect(f"file:{database(project)}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM ledger_entries").fetchone() == (6,)
