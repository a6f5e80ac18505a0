"""Quarantine and back: repaired rows go through every check again, and none is repaired twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrodict.core.errors import InputError, NotFoundError
from retrodict.data.ingest import ingest
from retrodict.data.quarantine import quarantined_batches, quarantined_rows, resubmit
from retrodict.ledger import verify
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Check, Table
t = Table("t", key="id", columns={"id": "int", "at": "time"}, checks=[Check.between("x", 0, 100)])
"""
AT = "2024-01-01T10:00:00Z"


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    project = make_project(DEFINITIONS)
    rows = {"id": ["1", "2", "x", "4"], "x": [1.0, -1.0, 5.0, 999.0], "at": [AT, AT, AT, "soon"]}
    assert ingest(project, "t", pa.table(rows)).quarantined == 3
    return project


def repaired(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "repair.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def waiting(project: Workspace) -> list[dict[str, Any]]:
    return [
        {"_batch": row["batch"], "_row": row["row"], **json.loads(row["original"])}
        for row in quarantined_rows(project, "t").to_pylist()
    ]


def test_what_waits_is_listed_with_its_reasons(project: Workspace) -> None:
    (found,) = quarantined_batches(project, "t")
    assert (found.rows, found.waiting) == (3, 3)
    assert found.reasons == {"between(x, 0, 100)": 2, "type(id, int)": 1, "not_null(id)": 1, "type(at, time)": 1}
    assert quarantined_rows(project, "t", check="type(at, time)").column("row").to_pylist() == [3]
    assert quarantined_rows(project, "t", batch=found.batch[:6]).num_rows == 3
    with pytest.raises(NotFoundError, match="Did you mean the check 'type"):
        quarantined_rows(project, "t", check="type(at, tim)")


def test_repaired_rows_come_back(project: Workspace, tmp_path: Path) -> None:
    """Typed as the table is; what is still wrong is set aside again, under the new batch."""
    rows = waiting(project)
    rows[0]["x"], rows[1]["id"], rows[2]["x"] = 10.0, "3", 40.0  # the last one still has no time
    path = repaired(tmp_path, rows)
    for already in (False, True):
        report = resubmit(project, "t", path)
        assert (report.accepted, report.quarantined, report.already) == (2, 1, already)
    assert project.tables.read("t").column("id").to_pylist() == [1, 2, 3]
    assert [(b.rows, b.waiting) for b in quarantined_batches(project, "t")] == [(3, 0), (1, 1)]
    edges = project.ledger.upstream("dataset:t@1")
    assert any(role == "repaired rows" for _, role, _ in edges)
    report = verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)
    assert report.findings == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_row": 77}, "'unknown': 1"),
        ({"_batch": "no"}, "'unknown': 1"),
        ({"_row": "x"}, "_row a whole number"),
    ],
)
def test_a_row_names_one_that_waits(change: dict[str, Any], said: str, project: Workspace, tmp_path: Path) -> None:
    row = waiting(project)[0] | {"x": 10.0} | change
    with pytest.raises(InputError, match=said):
        resubmit(project, "t", repaired(tmp_path, [row]))
    assert len(project.tables.history("t")) == 1


def test_no_row_is_repaired_twice(project: Workspace, tmp_path: Path) -> None:
    row = waiting(project)[0] | {"x": 10.0}
    with pytest.raises(InputError, match="'twice': 1"):
        resubmit(project, "t", repaired(tmp_path, [row, row | {"x": 11.0}]))
    resubmit(project, "t", repaired(tmp_path, [row]))
    with pytest.raises(InputError, match="'settled': 1"):
        resubmit(project, "t", repaired(tmp_path, [row | {"x": 12.0}]))
    with pytest.raises(InputError, match="_batch and _row"):
        resubmit(project, "t", pa.table({"id": [1]}))


def test_the_originals_come_back_once_a_check_is_corrected(make_project: Callable[..., Workspace]) -> None:
    loose = DEFINITIONS.replace("0, 100", "-5, None")
    with make_project(DEFINITIONS) as project:
        ingest(project, "t", pa.table({"id": ["1", "2"], "x": [1.0, -1.0], "at": [AT, AT]}))
    with make_project(loose) as project:
        assert resubmit(project, "t").accepted == 1
        assert project.tables.read("t").column("x").to_pylist() == [1.0, -1.0]
        with pytest.raises(InputError, match="nothing to resubmit"):
            resubmit(project, "t")
