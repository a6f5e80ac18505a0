"""Writers of one table go one by one, and what a kill left open is completed by the same call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict.core.errors import BusyError, RefusedError, RetryableError
from retrodict.data import unpublished
from retrodict.data.ingest import ingest
from retrodict.data.quarantine import quarantined_batches, quarantined_rows, resubmit
from retrodict.data.unpublished import drop, release, unpublished_batches
from retrodict.data.versions import compact, remove_tag, rollback, set_tag, vacuum
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Check, Table
t = Table("t", key="id", checks=[Check.mean("x", 0, 10, severity="high"), Check.between("x", 0, 100)])
"""


def rows(first: int, *values: float) -> pa.Table:
    return pa.table({"id": range(first, first + len(values)), "x": list(values)})


def halted(project: Workspace, batch: pa.Table) -> None:
    with pytest.raises(RefusedError):
        ingest(project, "t", batch)


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    """Two versions, a tag, and a halted batch."""
    project = make_project(DEFINITIONS)
    ingest(project, "t", rows(0, 5.0))
    ingest(project, "t", rows(1, 5.0))
    set_tag(project, "t@0", "golden")
    halted(project, rows(10, 60.0))
    return project


WRITERS: dict[str, tuple[str, Callable[[Workspace], Any]]] = {
    "ingest": ("ingest/t", lambda p: ingest(p, "t", rows(5, 5.0))),
    "release": ("ingest/t", lambda p: release(p, "t", 0, reason="yes")),
    "drop": ("ingest/t", lambda p: drop(p, "t", 0, reason="no")),
    "rollback": ("ingest/t", lambda p: rollback(p, "t", 0, "wrong")),
    "compact": ("ingest/t", lambda p: compact(p, "t")),
    "vacuum": ("ingest/t", lambda p: vacuum(p, "t", dry_run=False, older_than="0s")),
    "vacuum and tags": ("tags/t", lambda p: vacuum(p, "t", dry_run=False, older_than="0s")),
    "set a tag": ("tags/t", lambda p: set_tag(p, "t@1", "golden")),
    "remove a tag": ("tags/t", lambda p: remove_tag(p, "t", "golden", reason="done")),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_waits_for_whoever_holds_the_lock(
    writer: str, project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another one writes the table, or changes its tags, nothing is written and nothing is recorded."""
    name, write = WRITERS[writer]
    lock, entries, versions = Workspace.lock, len(project.ledger.entries()), len(project.tables.history("t"))
    with project.lock(name):
        monkeypatch.setattr(Workspace, "lock", lambda self, name, **_: lock(self, name, timeout_s=0.05))
        with pytest.raises(BusyError, match=name):
            write(project)
    assert (len(project.ledger.entries()), len(project.tables.history("t"))) == (entries, versions)


def test_a_release_that_was_killed_gets_its_entry(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the version and the ledger: the same call appends the entry, with the reason that the version has."""

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unpublished, "record_version", dies)
        with pytest.raises(KeyboardInterrupt):
            release(project, "t", 0, reason="checked by phone")
    assert release(project, "t", 0, reason="again").already
    (entry,) = project.ledger.entries(object_id="dataset:t@2", action="dataset.version")
    assert (entry.payload["override"], len(project.tables.history("t"))) == ("checked by phone", 3)
    assert [batch.state for batch in unpublished_batches(project, "t")] == ["released"]


def test_a_row_that_was_set_aside_twice_comes_back_once(make_project: Callable[..., Workspace]) -> None:
    """A halted batch that other checks judge again sets the same row aside again."""
    batch = rows(0, 50.0, -1.0, 70.0)
    with make_project(DEFINITIONS) as project:
        halted(project, batch)
    with make_project(DEFINITIONS.replace("0, 100", "0, 60")) as project:
        halted(project, batch)
        assert quarantined_rows(project, "t").column("row").to_pylist() == [1, 1, 2]
    with make_project(DEFINITIONS.replace("0, 100", "-5, None").replace("0, 10,", "0, 99,")) as project:
        assert resubmit(project, "t").rows_in == 2
        assert [found.waiting for found in quarantined_batches(project, "t")] == [0]


def test_only_the_batch_that_is_named_comes_back(make_project: Callable[..., Workspace]) -> None:
    """Rows of other batches go on waiting."""
    with make_project(DEFINITIONS) as project:
        for first in (0, 10):
            ingest(project, "t", rows(first, 5.0, -1.0))
        batches = [found.batch for found in quarantined_batches(project, "t")]
    with make_project(DEFINITIONS.replace("0, 100", "-5, None").replace("0, 10,", "-9, 10,")) as project:
        assert resubmit(project, "t", batch=batches[1]).rows_in == 1
        assert [found.waiting for found in quarantined_batches(project, "t")] == [1, 0]


def test_a_file_that_changes_while_it_is_checked_is_not_published(
    project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that were checked are the rows that are written, or none are."""
    path, module = tmp_path / "rows.parquet", sys.modules["retrodict.data.ingest"]
    pq.write_table(rows(20, 5.0), path)
    check = module.check_batch

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        findings = check(*arguments, **options)
        pq.write_table(rows(20, 500.0), path)
        return findings

    monkeypatch.setattr(module, "check_batch", meanwhile)
    with pytest.raises(RetryableError, match="a file must not change while it is read"):
        ingest(project, "t", path)
    assert len(project.tables.history("t")) == 2
