"""A project on a read-only disk is read and audited; what writes is refused and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retrodict.core.errors import ConfigurationError
from retrodict.stores.records.sqlite import SqliteRecords
from retrodict.workspace import Workspace

RUN = """
import contextlib, io, json, sys
from retrodict.cli.main import run
for line in sys.argv[1:]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = run(line.split())
    print(json.dumps([text.getvalue(), code]))
"""
READING = ["audit verify", "audit log", "audit proof entry:3", "runs list", "models list", "lineage model:m@1"]
WRITING = ["audit renew-key --reason x", "data tag sales@0 golden", "audit accept --reason x"]


def run(root: Path, *lines: str) -> list[tuple[str, int]]:
    """(what was printed, exit code) of each command, by somebody who may not write where it is not allowed."""
    bound = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("what root may not write is tried with setpriv, which is not here")
        bound = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"]
    command = [*bound, sys.executable, "-c", RUN, *lines]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return [(text, code) for text, code in map(json.loads, output.splitlines())]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def closed(project: Workspace) -> Path:
    project.close()
    return project.root


def lock(root: Path, mode: str) -> None:
    subprocess.run(["chmod", "-R", mode, str(root)], check=True)


def test_reading_commands_work_and_writing_ones_say_why_not(closed: Path) -> None:
    """Also for runs, of which the project has none and no table; no file is changed or made."""
    before = files(closed)
    lock(closed, "a-w")
    results = dict(zip([*READING, *WRITING], run(closed, *READING, *WRITING), strict=True))
    lock(closed, "u+w")
    assert [line for line in READING if results[line][1]] == []
    assert "Verified" in results["audit verify"][0]
    for line in WRITING:
        text, code = results[line]
        assert code == 2, line
        assert "writable" in text, line
    assert files(closed) == before


def test_an_altered_entry_is_found_there_too(closed: Path, sql: Callable[..., object]) -> None:
    """What is read is the file, as it is."""
    sql("UPDATE ledger_entries SET actor = 'eve' WHERE sequence = 3")
    lock(closed, "a-w")
    ((text, code),) = run(closed, "audit verify")
    lock(closed, "u+w")
    assert ("entry 3" in text, code) == (True, 1)


def test_changes_that_stand_beside_the_file_are_not_passed_over(project: Workspace, tmp_path: Path) -> None:
    """A copy of a project at work without the index of its log: SQLite cannot read the log there."""
    with project.ledger.transaction() as tx:
        tx.append("note.write", "note:1")
    copy = tmp_path / "copy"
    shutil.copytree(project.root, copy, ignore=shutil.ignore_patterns("*-shm"))
    assert (copy / "state/records.db-wal").stat().st_size
    lock(copy, "a-w")
    ((text, code),) = run(copy, "audit log")
    lock(copy, "u+w")
    assert "must be closed, or its folder writable" in text
    assert code != 0


def test_records_of_a_former_version_must_be_writable(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is missing cannot be read as its default."""
    import sqlalchemy as sa

    path = closed / "state/records.db"
    monkeypatch.setattr(os, "access", lambda *_: False)
    records = SqliteRecords(path)
    more = sa.MetaData()
    sa.Table("ledger_seals", more, sa.Column("more", sa.Integer, server_default="0"))
    with pytest.raises(ConfigurationError, match="must be writable"):
        records.ensure(more)
    records.close()
