"""What lies in a place of ours and is something else: a clear error, or passed over, and never a crash."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.serving.project import make_project

from retrodict import Project
from retrodict.cli.main import run

PARCEL = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
KINDS: dict[str, Callable[[Path], Any]] = {
    "folder": lambda path: path.mkdir(),
    "file": lambda path: path.write_bytes(b"x"),
    "fifo": os.mkfifo,
    "link to nowhere": lambda path: path.symlink_to("nothing-there"),
}
PLACES = [
    "state/failures", "state/failures/key", "state/locks", "state/locks/failures", "state/locks/tags",
    "state/locks/runs", "state/objects", "state/streams", "state/streams/decisions", "state/streams/decisions/0",
    "state/streams/decisions/0/.head", "state/tables", "state/tables/parcels", "state/tables/parcels/_delta_log",
    "state/keys", "state/keys/data.mdb", "state/indexes", "state/code", "state/ledger.key", "state/records.db",
    "checkpoints", "checkpoints/heads",
]  # fmt: skip
COMMANDS = ["audit verify", "runs list", "decisions export", "data tag parcels@0 silver", "decisions failures"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original") / "parcels"
    root.mkdir()
    make_project(root).close()
    with Project(root, actor="ana") as project:
        project.data.tag("parcels@0", "golden")
        project.decide("promise", **PARCEL)
    with closing(sqlite3.connect(root / "state/records.db")) as records:
        records.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "parcels", symlinks=True))


def put(root: Path, place: str, kind: str) -> None:
    path = root / place
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_another_kind_of_thing_in_a_place_crashes_nothing(
    place: str, kind: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command does its work or says what lies where."""
    put(root, place, kind)
    for command in COMMANDS:
        run([*shlex.split(command), "--project", str(root)])
        said = capsys.readouterr().err
        assert "internal error" not in said, (command, said)
        assert "Usage" not in said


def test_a_module_of_the_project_is_none_of_the_standard_library(root: Path) -> None:
    """``python -m retrodict`` in the folder of a project runs nothing of it."""
    for name in ("csv", "sqlite3", "click", "msgspec"):
        (root / f"{name}.py").write_text("raise SystemExit('this ran')")
    command = [sys.executable, "-m", "retrodict", "runs", "list"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, "this ran" in done.stdout + done.stderr) == (0, False)
