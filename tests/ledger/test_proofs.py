"""Proofs that leave the house: an entry, a decision, and that the ledger only grew, by the public key alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from tests.ledger.test_merkle import mth, path, proof

from retrodict import Project
from retrodict.core.errors import InputError, NotFoundError
from retrodict.ledger import check_proof, prove_entry, prove_growth
from retrodict.ledger.schema import nodes
from retrodict.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "p"\n')
    (tmp_path / "definitions.py").write_text("")
    with Workspace(tmp_path, actor="ana") as opened:
        yield opened


def append(workspace: Workspace, count: int) -> None:
    for number in range(count):
        with workspace.ledger.transaction() as tx:
            tx.append("note.add", f"note:{number}", {"number": number})


def hashes(workspace: Workspace) -> list[bytes]:
    return [bytes.fromhex(entry.hash) for entry in workspace.ledger.entries()]


def key(workspace: Workspace) -> str:
    return workspace.ledger.reach()[1][-1][1]


def test_every_entry_is_proved_by_the_definition_of_the_rfc(workspace: Workspace) -> None:
    """Root and path of each of a growing number of entries; several in one transaction count as well."""
    for size in range(1, 20):
        append(workspace, 1)
        if size % 5 == 0:
            with workspace.ledger.transaction() as tx:
                for number in range(3):
                    tx.append("note.add", f"more:{number}")
        leaves = hashes(workspace)
        for index in range(len(leaves)):
            document = prove_entry(workspace.ledger, index + 1)
            assert document["checkpoint"]["root"] == mth(leaves).hex()
            assert [bytes.fromhex(node) for node in document["path"]] == path(index, leaves)
            assert check_proof(document, key(workspace)) == ""


def test_growth_since_every_checkpoint(workspace: Workspace) -> None:
    """As the definition says; of an entry that was never the signed end there is none."""
    append(workspace, 12)
    leaves = hashes(workspace)
    for first in range(2, len(leaves) + 1):
        document = prove_growth(workspace.ledger, first)
        assert [bytes.fromhex(node) for node in document["path"]] == proof(first, leaves)
        assert check_proof(document, key(workspace)) == ""
    for first in (0, 1, len(leaves) + 1):  # the first entry was appended together with the second
        with pytest.raises(NotFoundError, match="from entry 2 to 13"):
            prove_growth(workspace.ledger, first)


def test_a_tree_that_an_earlier_version_did_not_store_is_made_with_the_next_entry(workspace: Workspace) -> None:
    append(workspace, 21)
    with workspace.records.write() as connection:
        connection.execute(delete(nodes))
    append(workspace, 1)
    assert prove_entry(workspace.ledger, 3)["checkpoint"]["root"] == mth(hashes(workspace)).hex()
    assert all(check_proof(prove_entry(workspace.ledger, n), key(workspace)) == "" for n in range(1, 24))


def changed(document: dict[str, Any], *way: Any, value: Any) -> dict[str, Any]:
    other = copy.deepcopy(document)
    place = other
    for step in way[:-1]:
        place = place[step]
    assert place[way[-1]] != value
    place[way[-1]] = value
    return other


def test_nothing_in_a_proof_can_be_changed(workspace: Workspace) -> None:
    """Whatever is altered, it does not hold; and it does not hold by another key."""
    append(workspace, 6)
    document, own = prove_entry(workspace.ledger, 4), key(workspace)
    for way, value in [
        (("entry", "payload"), {"number": 9}), (("entry", "actor"), "eve"), (("entry", "sequence"), 5),
        (("entry", "hash"), "00" * 32), (("path", 0), "00" * 32), (("path",), []), (("checkpoint", "root"), "00" * 32),
        (("checkpoint", "root"), ""), (("checkpoint", "sequence"), 6), (("checkpoint", "signature"), "00" * 64),
    ]:  # fmt: skip
        assert check_proof(changed(document, *way, value=value), own)
    assert check_proof(document, "00" * 32)
    growth = prove_growth(workspace.ledger, 3)
    for way, value in [
        (("first", "root"), "00" * 32), (("first", "sequence"), 4), (("path", 0), "00" * 32), (("path",), []),
        (("first", "public_key"), "00" * 32),
    ]:  # fmt: skip
        assert check_proof(changed(growth, *way, value=value), own)
    for broken in ({}, {"retrodict": "entry proof"}, changed(document, "path", value=["zz"]), [], "text"):
        with pytest.raises(InputError, match="must be a document of 'retrodict audit proof'"):
            check_proof(broken, own)  # type: ignore[arg-type]


def test_hashes_must_be_written_as_they_were(workspace: Workspace) -> None:
    """Upper case and spaces are the same bytes, and another document."""
    append(workspace, 5)
    for change in (str.upper, lambda node: node[:2] + " " + node[2:]):
        document = prove_entry(workspace.ledger, 4)
        document["path"][0] = change(document["path"][0])
        with pytest.raises(InputError, match="a proof must be a document of"):
            check_proof(document, key(workspace))


def test_an_altered_node_gives_no_proof_that_holds(workspace: Workspace) -> None:
    """And the audit, which computes the tree from the entries, is not led astray by it."""
    append(workspace, 9)
    with workspace.records.write() as connection:
        connection.execute(update(nodes).values(hash="00" * 32))
    assert check_proof(prove_entry(workspace.ledger, 9), key(workspace))


def test_a_proof_is_checked_without_the_project(workspace: Workspace, tmp_path: Path) -> None:
    """Written to a file, read by somebody who has the public key only."""
    append(workspace, 5)
    file = tmp_path / "proof.json"
    with Project(workspace.root) as project:
        assert project.ledger.proof("entry:3", output=file).ok
        assert project.ledger.proof(since=4).ok
        for wrong in ({}, {"ref": "entry:3", "since": 4}):
            with pytest.raises(InputError, match="a proof must be of one thing"):
                project.ledger.proof(**wrong)  # type: ignore[arg-type]
        with pytest.raises(NotFoundError, match="the entry must exist and be signed"):
            project.ledger.proof("entry:99")
        check = type(project.ledger).check
    own = key(workspace)
    assert "entry 3" in str(check(file, public_key=own))
    other = check(file, public_key="00" * 32)
    assert not other.ok
    assert "not signed by this key" in str(other)
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "path": []}))
    assert "does not lead to the signed root" in check(file, public_key=own).reason
    file.write_text("no json")
    with pytest.raises(InputError, match="a proof must be a JSON file"):
        check(file, public_key=own)
