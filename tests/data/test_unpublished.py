"""Halted batches: written, not published, released or dropped by somebody with a reason; the history stays clean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from retrodict.core.errors import InputError, NotFoundError, RefusedError
from retrodict.data.ingest import ingest
from retrodict.data.unpublished import drop, release, unpublished_batches
from retrodict.ledger import verify
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Check, Table
t = Table("t", key="id", checks=[
    Check.mean("x", 0, 10, severity="high"),
    Check.between("x", 0, 100),
    Check.stable("mean", "x", within=0.5, severity="critical"),
])
"""


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    return make_project(DEFINITIONS)


def rows(first: int, *values: float) -> pa.Table:
    return pa.table({"id": range(first, first + len(values)), "x": list(values)})


def halt(project: Workspace, batch: pa.Table) -> str:
    with pytest.raises(RefusedError) as caught:
        ingest(project, "t", batch)
    return str(caught.value)


def audit(project: Workspace) -> list[Any]:
    return verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).findings


def test_a_halted_batch_is_written_and_not_published(project: Workspace) -> None:
    """Its good rows are unpublished, its bad ones in quarantine, the table as it was; twice is once."""
    ingest(project, "t", rows(0, 5.0))
    for _ in range(2):
        said = halt(project, rows(10, 50.0, 500.0))
        assert "check mean(x, 0, 10) (high) must hold" in said
        assert "275 is above 10" in said
        assert "t__unpublished@0" in said
    assert project.tables.read("t").num_rows == 1
    assert project.tables.read("t__unpublished").column("x").to_pylist() == [50.0]
    assert project.tables.read("t__quarantine").column("row").to_pylist() == [1]
    (found,) = unpublished_batches(project, "t")
    assert (found.version, found.rows, found.state) == (0, 1, "waiting")
    assert set(found.failed) == {"mean(x, 0, 10)", "stable(x, against=previous, measure=mean, within=0.5)"}
    (entry,) = project.ledger.entries(action="dataset.refuse")
    assert entry.payload["unpublished"] == "dataset:t__unpublished@0"
    assert audit(project) == []


def test_released_with_a_reason_it_is_a_version(project: Workspace) -> None:
    """By the ledger's word too; once is enough; its numbers do not enter the history."""
    ingest(project, "t", rows(0, 5.0))
    halt(project, rows(10, 60.0))
    with pytest.raises(InputError, match="must have a reason"):
        release(project, "t", 0, reason=" ")
    report = release(project, "t", 0, reason="checked by phone")
    assert (report.version, report.accepted, report.already) == (1, 1, False)
    assert project.tables.read("t").column("x").to_pylist() == [5.0, 60.0]
    assert release(project, "t", 0, reason="again").already
    (entry,) = [e for e in project.ledger.entries(action="dataset.version") if e.object_id == "dataset:t@1"]
    assert (entry.payload["override"], entry.payload["released"]) == ("checked by phone", "dataset:t__unpublished@0")
    assert [each.state for each in unpublished_batches(project, "t")] == ["released"]
    assert ingest(project, "t", rows(20, 6.0)).version == 2  # near 5, not near 60
    assert ingest(project, "t", rows(10, 60.0)).already
    with pytest.raises(RefusedError, match="a batch to drop must not be released"):
        drop(project, "t", 0, reason="no")
    assert audit(project) == []


def test_a_column_that_came_meanwhile_is_null_in_a_released_batch(project: Workspace) -> None:
    ingest(project, "t", rows(0, 5.0))
    halt(project, rows(10, 60.0))
    ingest(project, "t", rows(20, 5.0).append_column("more", pa.array(["x"])))
    release(project, "t", 0, reason="yes")
    assert project.tables.read("t").column("more").to_pylist() == [None, "x", None]


def test_dropped_it_stays_out(project: Workspace) -> None:
    ingest(project, "t", rows(0, 5.0))
    halt(project, rows(10, 60.0))
    assert drop(project, "t", 0, reason="a test file").state == "dropped"
    assert drop(project, "t", 0, reason="a test file").state == "dropped"
    assert len(project.ledger.entries(action="dataset.drop")) == 1
    with pytest.raises(RefusedError, match="a batch to release must not be dropped"):
        release(project, "t", 0, reason="yes")
    with pytest.raises(NotFoundError, match="Known: 0"):
        drop(project, "t", 7, reason="no")


def test_keys_that_came_meanwhile_refuse_a_release(project: Workspace) -> None:
    ingest(project, "t", rows(0, 5.0))
    halt(project, rows(10, 60.0, 70.0))
    ingest(project, "t", rows(10, 5.5))
    with pytest.raises(RefusedError, match="1 keys that came with another batch"):
        release(project, "t", 0, reason="yes")
    assert project.tables.read("t").num_rows == 2


def test_what_only_history_can_judge_does_not_halt(project: Workspace) -> None:
    """The first batch has no previous version to be near to."""
    report = ingest(project, "t", rows(0, 5.0))
    assert [r.status for r in report.checks if r.rule == "stable"] == ["not_evaluable"]


def test_a_batch_on_which_a_severe_check_cannot_be_evaluated_is_not_published(make_project: Any) -> None:
    """A reference into a table without rows, for one: the way out is named, and once it can be judged it passes."""
    project = make_project("""
from retrodict import Check, Table
c = Table("customers", key="id")
t = Table("t", key="id", checks=[Check.references("x", "customers", to="id", severity="critical")])
""")
    message = halt(project, rows(0, 5.0))
    assert "(critical) must be evaluable; got 'there is no table customers to look into'" in message
    assert "on_unknown='warn'" in message
    assert project.tables.history("t") == []
    (entry,) = project.ledger.entries(action="dataset.refuse")
    assert entry.payload["failed"] == {"references(x, table=customers, to=id)": 0}
    (waiting,) = unpublished_batches(project, "t")
    assert waiting.failed == {"references(x, table=customers, to=id)": "there is no table customers to look into"}
    ingest(project, "customers", pa.table({"id": [5]}))
    ingest(project, "t", rows(0, 5.0))
    assert project.tables.read("t").num_rows == 1
    assert audit(project) == []
