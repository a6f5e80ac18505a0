"""Witnesses see what the project's own folder was made to forget, and stop nothing when they cannot be reached."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from retrodict.core.errors import ConfigurationError
from retrodict.ledger import check_proof, prove_growth
from retrodict.ledger.checkpoints import scan_checkpoints
from retrodict.workspace import Workspace


def settings(root: Path, *witnesses: str) -> None:
    text = f'[project]\nname = "p"\n[ledger]\nwitnesses = {json.dumps(list(witnesses))}\n'
    (root / "retrodict.toml").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "witness").mkdir()
    (folder / "definitions.py").write_text("")
    settings(folder, "../witness")
    return folder


def append(root: Path, count: int = 1) -> None:
    with Workspace(root, actor="ana") as workspace:
        for number in range(count):
            with workspace.ledger.transaction() as tx:
                tx.append("note.add", f"note:{number}")


def audit(root: Path) -> Any:
    from retrodict import Project

    with Project(root) as project:
        return project.audit()


def cut(root: Path, entries: int) -> None:
    """What somebody with the whole disk of the project does, key and checkpoints included."""
    with contextlib.closing(sqlite3.connect(root / "state" / "records.db")) as records, records:
        records.execute("DELETE FROM ledger_entries WHERE sequence > ?", [entries])
        records.execute("DELETE FROM ledger_nodes WHERE (position + 1) << level > ?", [entries])
    file = root / "checkpoints" / "checkpoints.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if json.loads(line)["sequence"] <= entries))
    kept = json.loads(file.read_text().splitlines()[-1])
    with contextlib.closing(sqlite3.connect(root / "state" / "records.db")) as records, records:
        records.execute("DELETE FROM ledger_signed_ends")
        names = ", ".join(kept)
        records.execute(f"INSERT INTO ledger_signed_ends ({names}) VALUES ({', '.join('?' * len(kept))})",
                        list(kept.values()))  # fmt: skip


def test_a_witness_knows_what_the_project_was_made_to_forget(root: Path) -> None:
    """Entries, checkpoints and the signed end are cut alike: without the witness nobody could tell."""
    append(root, 5)
    assert audit(root).ok
    cut(root, 5)
    report = audit(root)
    assert [(finding.kind, finding.where) for finding in report.findings] == [("cut off", "entry 7")]
    assert "says witness ../witness" in report.findings[0].detail
    settings(root)
    assert [(finding.kind, finding.where) for finding in audit(root).findings] == [("removed", "witness ../witness")]
    append(root)
    assert audit(root).ok
    with Workspace(root) as workspace:
        named = workspace.ledger.entries(action="ledger.witnesses")
    assert [entry.payload for entry in named] == [{"witnesses": ["../witness"]}, {"witnesses": []}]


def test_a_witness_that_is_away_stops_nothing_and_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No folder is made in its place; it is back with the next entry, which covers those before it."""
    shutil.move(root.parent / "witness", root.parent / "away")
    append(root, 2)
    assert "the witness ../witness did not take the checkpoint of entry 4" in caplog.text
    assert not (root.parent / "witness").exists()
    report = audit(root)
    assert [(finding.kind, finding.where) for finding in report.findings] == [("unreadable", "witness ../witness")]
    shutil.move(root.parent / "away", root.parent / "witness")
    report = audit(root)
    assert [(finding.kind, finding.where) for finding in report.findings] == [("behind", "witness ../witness")]
    append(root)
    report = audit(root)
    assert (report.ok, report.to_dict()["witnesses"]) == (True, {"../witness": 5})
    assert "../witness up to entry 5" in str(report)


def test_a_torn_line_of_a_file_that_can_only_grow_stops_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets its end, and is no finding; a line that was cut down afterwards is one."""
    append(root, 2)
    file = root.parent / "witness" / "checkpoints.jsonl"
    with file.open("ab") as stream:
        stream.write(b'{"sequence": 5, "time": 17')

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "ftruncate", refuse)
    append(root, 2)
    assert [one and one.sequence for _, one in scan_checkpoints(file)] == [3, 4, 5, 6]
    assert audit(root).ok
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[1][:40] + b"\n", *lines[2:4], lines[3][:40] + b"\n", *lines[4:]]))
    assert [number for number, one in scan_checkpoints(file) if one is None] == [5]


def test_statements_of_another_project_are_told_apart(root: Path, tmp_path: Path) -> None:
    """Its key was copied, so the signature alone says nothing."""
    append(root, 3)
    other = tmp_path / "other"
    other.mkdir()
    (other / "definitions.py").write_text("")
    (other / "state").mkdir()
    shutil.copy(root / "state" / "ledger.key", other / "state" / "ledger.key")
    settings(other)
    append(other, 3)
    own = json.loads((root / "checkpoints" / "checkpoints.jsonl").read_text().splitlines()[-1])
    foreign = json.loads((other / "checkpoints" / "checkpoints.jsonl").read_text().splitlines()[-1])
    assert own["log"] != foreign["log"]
    with Workspace(root) as workspace:
        document = prove_growth(workspace.ledger, 3)
    assert check_proof({**document, "first": foreign}, own["public_key"]) == "its checkpoints are of two ledgers"


def test_a_witness_in_a_bucket_keeps_what_cannot_be_deleted(root: Path, s3_server: str, locked: str) -> None:
    """One object a checkpoint; with object lock not even whoever may delete removes a version."""
    settings(root, locked)
    append(root, 3)
    report = audit(root)
    assert (report.ok, report.to_dict()["witnesses"]) == (True, {locked.partition("?")[0]: 5})
    cut(root, 4)
    assert [(finding.kind, finding.where) for finding in audit(root).findings] == [("cut off", "entry 5")]
    boto3 = pytest.importorskip("boto3")
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    bucket = urlsplit(locked).netloc
    for version in client.list_object_versions(Bucket=bucket)["Versions"]:
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])


def test_a_bucket_that_is_away_stops_nothing(root: Path, locked: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its URL, which may name a host, is not in the log."""
    settings(root, locked.replace("s3://", "s3://absent-"))
    append(root)
    assert "did not take the checkpoint of entry 3" in caplog.text
    assert "endpoint" not in caplog.text
    assert audit(root).findings[0].kind == "unreadable"


def test_a_bucket_that_is_gone_is_not_waited_for_each_time(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each checkpoint would wait for it; what a bucket refuses is an answer."""
    settings(root, "s3://gone/ledger?endpoint=http://127.0.0.1:9&region=us-east-1")
    with (root / "retrodict.toml").open("a") as file:
        file.write('[servers]\nbreaker_failures = 2\nbreaker_recovery = "1h"\n')
    with Workspace(root, actor="ana") as workspace:
        for number in range(4):
            with workspace.ledger.transaction() as tx:
                tx.append("note.add", f"note:{number}")
        assert workspace.breakers["witness 1"].counts["failures"] == 2
        assert workspace.breakers["witness 1"].state == "open"
    assert caplog.text.count("breaker witness 1: what failed again and again") == 2
    assert len(list(scan_checkpoints(root / "checkpoints" / "checkpoints.jsonl"))) == 4


def _link_folder(root: Path) -> None:
    (root.parent / "witness").rmdir()
    (root.parent / "witness").symlink_to(root / "checkpoints")


def _link_file(root: Path) -> None:
    (root.parent / "witness" / "checkpoints.jsonl").hardlink_to(root / "checkpoints" / "checkpoints.jsonl")


@pytest.mark.parametrize("link", [_link_folder, _link_file, lambda root: settings(root, "checkpoints/")])
def test_our_own_checkpoints_witness_nothing(root: Path, link: Any) -> None:
    """By whatever name or link: who cuts the project cuts such a witness with it."""
    settings(root)
    append(root)
    settings(root, "../witness")
    link(root)
    append(root)
    report = audit(root)
    name = json.loads((root / "retrodict.toml").read_text().rpartition("= ")[2])[0]
    assert [(finding.kind, finding.where) for finding in report.findings] == [("altered", f"witness {name}")]
    assert "the project's own checkpoints" in report.findings[0].detail


def test_one_witness_named_twice_is_one(root: Path) -> None:
    settings(root, "../witness", "../witness/")
    append(root)
    report = audit(root)
    assert [(finding.kind, finding.where) for finding in report.findings] == [("altered", "witness ../witness/")]
    assert report.to_dict()["witnesses"]["../witness"] == 3


def test_what_is_no_place_is_refused(root: Path) -> None:
    (root / "retrodict.toml").write_text('[project]\nname = "p"\n[ledger]\nwitnesses = "one"\n')
    with pytest.raises(ConfigurationError, match="a list of folders and s3:// URLs"):
        Workspace(root)


@pytest.fixture
def locked(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a bucket whose objects are locked for a day when they are written."""
    boto3 = pytest.importorskip("boto3")
    for name, value in {
        "ACCESS_KEY_ID": "testing",
        "SECRET_ACCESS_KEY": "testing",
        "EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    name = f"witness-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    return f"s3://{name}/ledger?endpoint={s3_server}&region=us-east-1"
