"""What goes wrong in production, through the public face: a clear error, and the table as it was before."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict.core.errors import ConfigurationError, RetrodictError
from retrodict.data.ingest import ingest
from retrodict.ledger import verify
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Check, Table
t = Table("t", key="id", columns={"id": "int"}, checks=[Check.not_null("v")])
"""


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    project = make_project(DEFINITIONS)
    ingest(project, "t", pa.table({"id": [0], "v": ["x"]}))
    return project


def everything(project: Workspace) -> str:
    """Digest of all files of the tables and of the ledger's length."""
    root = project.root / "state" / "tables"
    files = sorted(path for path in root.rglob("*") if path.is_file() and ".locks" not in path.parts)
    content = [(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    staging = project.root / "state" / "staging"
    left = sorted(path.name for path in staging.iterdir()) if staging.is_dir() else []
    return json.dumps([content, left, len(project.ledger.entries())])


def parquet(rows: int = 5000) -> bytes:
    sink = pa.BufferOutputStream()
    ids = pa.array(range(1, rows + 1))
    pq.write_table(pa.table({"id": ids, "v": pa.array([f"v{i}" for i in range(rows)])}), sink, compression="snappy")
    return bytes(sink.getvalue())


def flipped(data: bytes, place: float) -> bytes:
    at = int(len(data) * place)
    return data[:at] + bytes([data[at] ^ 0xFF]) * 64 + data[at + 64 :]


FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "Parquet cut in the middle": ("a.parquet", lambda: parquet()[:20_000], "whole, readable Parquet"),
    "Parquet without its footer": ("a.parquet", lambda: parquet()[:-10], "whole, readable Parquet"),
    "Parquet with a damaged page": ("a.parquet", lambda: flipped(parquet(), 0.3), "Parquet|evaluable on every row"),
    "no Parquet at all": ("a.parquet", lambda: b"id,v\n1,x\n", "whole, readable Parquet"),
    "ragged rows": ("a.csv", lambda: b"id,v\n1,x\n2,y,z\n", "a.csv, line 3.*a value for each column"),
    "a row too short": ("a.csv", lambda: b"id,v\n1,x\n2\n", "a value for each column"),
    "Latin-1": ("a.csv", lambda: "id,v\n1,größe\n".encode("latin-1"), "UTF-8"),
    "UTF-16": ("a.csv", lambda: "id,v\n1,x\n".encode("utf-16"), "UTF-8|UTF-16"),
    "a header that repeats": ("a.csv", lambda: b"id,v,v\n1,x,y\n", "a name of its own"),
    "an open quote": ("a.csv", lambda: b'id,v\n1,"x\n2,y\n', "quote"),
    "gzip cut short": ("a.csv.gz", lambda: gzip.compress(b"id,v\n" + b"1,x\n" * 9000)[:40], "gzip"),
    "JSON of endless depth": ("a.jsonl", lambda: b'{"id": 1, "v": ' + b"[" * 99_999 + b"]" * 99_999 + b"}\n", "line 1"),
    "a JSON line cut short": ("a.jsonl", lambda: b'{"id": 1, "v": "x"}\n{"id": 2, "v": \n', "line 2"),
    "nothing": ("a.csv", lambda: b"", "names its columns"),
    "a header alone": ("a.csv", lambda: b"id,v\n", "at least one row"),
    "another program's file": ("a.xlsx", lambda: b"PK\x03\x04", "csv"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_changes_nothing(case: str, project: Workspace, tmp_path: Path) -> None:
    """Named, with the rule and the place, and without a value; nothing is left behind."""
    name, content, said = FILES[case]
    path = tmp_path / name
    path.write_bytes(content())
    before = everything(project)
    with pytest.raises(RetrodictError, match=rf"(?s){said}") as caught:
        ingest(project, "t", path)
    assert "größe" not in str(caught.value)
    assert everything(project) == before
    assert ingest(project, "t", pa.table({"id": [1], "v": ["y"]})).version == 1


@pytest.mark.parametrize("name", ["../t", "/etc/passwd", "t/../t", "T", "t;drop"])
def test_a_table_is_no_path(name: str, project: Workspace) -> None:
    before = everything(project)
    with pytest.raises(RetrodictError):
        ingest(project, name, pa.table({"id": [1], "v": ["y"]}))
    assert everything(project) == before


def test_what_a_killed_ingest_left_is_swept_after_a_day(project: Workspace) -> None:
    """A folder of today may belong to somebody who is still at it."""
    staging = project.root / "state" / "staging"
    for name, age_s in (("batch-old", 90_000), ("batch-new", 60)):
        (staging / name).mkdir(parents=True)
        (staging / name / "typed.parquet").write_bytes(b"x")
        for path in (staging / name / "typed.parquet", staging / name):
            os.utime(path, (time.time() - age_s,) * 2)
    ingest(project, "t", pa.table({"id": [1], "v": ["y"]}))
    assert [path.name for path in staging.iterdir()] == ["batch-new"]


def test_a_project_that_cannot_be_written(project: Workspace) -> None:
    """Said as such; here a file lies where the folder would be, since root may write anywhere."""
    staging = project.root / "state" / "staging"
    if staging.is_dir():
        staging.rmdir()
    staging.write_text("in the way")
    with pytest.raises(
        ConfigurationError, match=r"must be able to write into the folder of the project.*got '.+'.*permissions"
    ):
        ingest(project, "t", pa.table({"id": [1], "v": ["y"]}))
    assert len(project.tables.history("t")) == 1


FULL = """
import resource, signal, sys
from retrodict.data.ingest import ingest
from retrodict.workspace import Workspace
project = Workspace(sys.argv[1])
project.ledger
sys.dont_write_bytecode = True  # cut off by the limit as well, for every process that shares the folder of it
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    ingest(project, "t", sys.argv[2])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("room", [200_000, 1_000_000], ids=["at once", "in the middle"])
def test_a_disk_that_fills_while_a_table_is_written(
    room: int, project: Workspace, tmp_path: Path, python: Callable[..., Any]
) -> None:
    """By a limit of the size of files, which the kernel enforces like a full disk; with room again, it goes on."""
    path = tmp_path / "big.parquet"
    values = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(60_000)]
    pq.write_table(pa.table({"id": range(1, 60_001), "v": values}), path)
    before = everything(project)
    code, out, said = python(FULL, project.root, path, room).end()
    assert code == 0, said
    assert "RetryableError" in out
    assert "disk" in out
    assert everything(project) == before
    assert ingest(project, "t", path).accepted == 60_000
    report = verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)
    assert report.findings == []


CROWD = """
import sys
import pyarrow as pa
from retrodict.data.ingest import ingest
from retrodict.workspace import Workspace
project, mine = Workspace(sys.argv[1]), int(sys.argv[2])
for turn in range(25):
    ids = [1000 * mine + 2 * turn, 1000 * mine + 2 * turn + 1, 9_000_000 + turn]  # the last one is everybody's
    ingest(project, "t", pa.table({"id": ids, "v": ["x"] * 3}))
"""


@pytest.mark.slow
def test_four_processes_with_twenty_five_batches_each(project: Workspace, python: Callable[..., Any]) -> None:
    """Nothing is lost, nothing doubled: a key that all of them bring is accepted once and set aside three times."""
    children = [python(CROWD, project.root, mine) for mine in range(1, 5)]
    ends = [child.end() for child in children]
    assert [code for code, *_ in ends] == [0] * 4, [err for *_, err in ends]
    keys = sorted(project.tables.read("t").column("id").to_pylist())
    own = [1000 * mine + i for mine in range(1, 5) for i in range(50)]
    assert keys == sorted([0, *own, *(9_000_000 + turn for turn in range(25))])
    assert len(project.tables.history("t")) == 101
    assert project.tables.read("t__quarantine").num_rows == 75
    assert len(project.ledger.entries(action="dataset.version")) == 101
