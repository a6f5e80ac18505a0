"""A row of the registry that other hands put there is not acted on, so no honest entry ever signs what came of it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest
from tests.serving.project import make_project

from retrodict import Project
from retrodict.core.errors import IntegrityError
from retrodict.features.verify.verdicts import last_verdict
from retrodict.workspace import Workspace

VALUES = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("parcels")
    make_project(root).close()
    with Project(root, actor="ana") as project:
        project.train("late_parcel", again=True)
        project.data.tag("parcels@0", "golden", hold=True)
    with Project(root, actor="ben") as project:
        project.models.reject("late_parcel@2", reason="too slow")
    return root


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "parcels")


def execute(root, *statements):
    with closing(sqlite3.connect(root / "state" / "records.db")) as records, records:
        for statement in statements:
            records.execute(statement)


def findings(root):
    with Project(root) as project:
        return {(finding.kind, finding.where) for finding in project.audit().findings}


def test_an_untouched_project_is_verified_and_acts(root):
    assert not findings(root)
    with Project(root) as project:
        assert project.decide("promise", **VALUES).decision in ("ok", "warn")
        assert [tag.hold for tag in project.data.tags("parcels")] == [True]


@pytest.mark.parametrize(
    "forged",
    [
        "INSERT INTO model_approvals SELECT name, 2, 1, time, 'cay', 1, reason FROM model_approvals WHERE version = 1",
        "DELETE FROM model_approvals WHERE version = 2",
        "UPDATE model_approvals SET granted = 1",
        "UPDATE model_versions SET artifact = (SELECT artifact FROM model_versions WHERE version = 1)",
    ],
)
def test_no_version_is_promoted_by_a_forged_approval(root, forged):
    """Whether it is added, taken away or changed: it is refused, and put back afterwards nothing was signed by it."""
    execute(root, forged)
    with Project(root, actor="ana") as project, pytest.raises(IntegrityError, match="what entries of the ledger vouch"):
        project.promote("promise", "late_parcel@2", reason="better")


def test_no_forged_deployment_decides(root):
    """Nor is it shown as what is in force."""
    columns = "policy, time, actor, action, reason, content, recorded"
    execute(root, f"INSERT INTO deployments (revision, {columns}) SELECT 9, {columns} FROM deployments")
    with Project(root) as project:
        with pytest.raises(IntegrityError, match="row 9, which is not so"):
            project.decide("promise", **VALUES)
        with pytest.raises(IntegrityError):
            project.policies.deployments()


def test_no_hold_is_lifted_by_a_deleted_row(root):
    """A vacuum that found no hold would delete what is held."""
    execute(root, "DELETE FROM dataset_tags")
    with Project(root) as project, pytest.raises(IntegrityError, match="1 rows fewer than were entered"):
        project.data.vacuum("parcels", dry_run=False, older_than="0s")


def test_no_view_passes_by_an_entry_that_was_renamed(root):
    """The verdict on one view is not that on another: the entry no longer gives its hash."""
    view = SimpleNamespace(name="other", version="1")
    execute(root, "UPDATE ledger_entries SET object_id = 'view:other@1' WHERE action = 'features.verified'")
    with Workspace(root) as workspace:
        assert workspace.ledger.entries(object_id="view:other@1")
        assert last_verdict(workspace, view) is None


def test_an_index_that_hides_a_row_is_found(root):
    """It would answer for the table wherever rows are counted."""
    execute(
        root,
        "CREATE INDEX zz ON deployments(revision) WHERE revision < 9",
        "INSERT INTO deployments (revision, policy, time, actor, action, reason, content, recorded) "
        "SELECT 9, policy, time, actor, action, reason, content, recorded FROM deployments",
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET sql = 'CREATE INDEX zz ON deployments(revision)' WHERE name = 'zz'",
    )
    assert ("altered", "records") in findings(root)


def test_a_trigger_is_found(root):
    """What it wrote an honest entry would vouch for."""
    execute(root, "CREATE TRIGGER t AFTER INSERT ON run_metrics BEGIN UPDATE run_metrics SET value = 0.99; END")
    assert ("altered", "records") in findings(root)


@pytest.mark.parametrize(
    "forged",
    [
        "UPDATE ledger_nodes SET hash = replace(hash, 'a', 'b')",
        "DELETE FROM ledger_nodes",
        "INSERT INTO ledger_nodes VALUES (1, 100000, '00')",
    ],
)
def test_a_tree_that_others_changed_is_made_anew(root, forged):
    """No wrong root is ever signed, and entries go on."""
    execute(root, forged)
    with Project(root, actor="ana") as project:
        project.data.tag("parcels@0", "silver")
        assert project.ledger.proof("entry:3").ok
    assert not findings(root)


@pytest.mark.parametrize(
    "planted",
    [
        "UPDATE ledger_signed_ends SET public_key = x'00'",
        "INSERT INTO ledger_versions SELECT name, version + 20, digest, 'abc', public_key, x'00' FROM ledger_versions",
    ],
)
def test_what_cannot_be_read_hides_nothing_else(root, planted):
    """An altered entry is named beside it."""
    execute(root, planted, "UPDATE ledger_entries SET actor = 'eve' WHERE sequence = 4")
    assert ("altered", "entry 4") in findings(root)
