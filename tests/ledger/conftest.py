"""A ledger with a few entries on real stores, and an auditor's own arithmetic."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.stores.conftest import s3_server  # noqa: F401  (a fixture)

from retrodict.ledger import AuditReport, SealedWriter, verify
from retrodict.workspace import Workspace


def canonical(value: Any) -> str:
    """Canonical JSON written here: sorted keys, no white space, ASCII."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return json.dumps(value)


def recomputed(row: dict[str, Any]) -> str:
    """Hash of a stored entry, by the words of chain.py and nothing of its code."""
    names = {"sequence": "sequence", "time": "time", "actor": "actor", "action": "action", "object": "object_id"}
    body = {name: row[column] for name, column in names.items()} | {"payload": json.loads(row["payload"])}
    data = canonical(body).encode()
    return hashlib.sha256(len(data).to_bytes(8, "big") + data + bytes.fromhex(row["previous"])).hexdigest()


@pytest.fixture
def audit() -> Callable[[Workspace], AuditReport]:
    """What ``retrodict audit verify`` finds."""

    def run(project: Workspace) -> AuditReport:
        return verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)

    return run


@pytest.fixture
def wheres(audit: Callable[[Workspace], AuditReport]) -> Callable[[Workspace], set[tuple[str, str]]]:
    """(kind, where) of all findings."""
    return lambda project: {(finding.kind, finding.where) for finding in audit(project).findings}


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    """Six entries: the beginning, an object, a table's file, lineage, a sealed segment, a last one."""
    project = make_project()
    ledger = project.ledger
    with ledger.transaction() as tx:
        tx.append("code.capture", "code:1", {"objects": [project.objects.put(b"some code")]})
    version = project.tables.write("sales", pa.table({"id": [1, 2, 3]}))
    path = f"sales/{project.tables.files('sales')[0].path}"
    with ledger.transaction() as tx:
        files = {path: project.tables.file_digest(path)}
        tx.append("dataset.version", f"dataset:sales@{version}", {"files": files}, inputs=[("batch:1", "rows")])
        inputs = [("dataset:sales@0", "training data"), ("code:1", "code")]
        tx.append("run.finish", "run:1", {"metric": 0.25, "note": 'é "x"', "none": None}, inputs=inputs)
    with SealedWriter(ledger, project.streams, "decisions/0") as writer:
        writer.append([f"record {i}".encode() for i in range(5)])
    with ledger.transaction() as tx:
        tx.append("model.register", "model:m@1", inputs=[("run:1", "trained by")])
    return project


@pytest.fixture
def sql(project: Workspace) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Statements straight to the database file, past everything of ours."""
    with closing(sqlite3.connect(database(project))) as connection:
        connection.row_factory = sqlite3.Row

        def run(statement: str, *values: Any) -> list[dict[str, Any]]:
            rows = [dict(row) for row in connection.execute(statement, values)]
            connection.commit()
            return rows

        yield run


def database(project: Workspace) -> Path:
    return project.root / "state" / "records.db"
