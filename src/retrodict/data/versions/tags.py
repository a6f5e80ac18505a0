"""Tags: names for versions of a table, with their whole history; legal holds are tags that do not move by accident.

Delta has no tags, so they live in the records, each with the hash of the log entry of its version. A change is a new
row and a ledger entry in one transaction; no row is ever updated.
"""

from __future__ import annotations

import re
from dataclasses import asdict

from sqlalchemy import select

from retrodict.core.errors import InputError, RefusedError, check_known, check_reason
from retrodict.data.versions.refs import (
    Tag,
    current,
    every_change,
    log_digest,
    log_path,
    metadata,
    read_row,
    resolve,
    tags,
)
from retrodict.ledger.ledger import Transaction
from retrodict.stores._locks import FileLock
from retrodict.workspace import Workspace

__all__ = ["remove_tag", "set_tag", "tag_lock"]

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")


def set_tag(
    workspace: Workspace, ref: str, tag: str, *, hold: bool = False, release: bool = False, reason: str = ""
) -> Tag:
    """Let a name mean a version from now on; the same once more changes nothing.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        What the tag shall mean, as :func:`~retrodict.data.versions.resolve` reads it.
    tag : str
        A letter, then letters, digits, ``_``, ``.`` and ``-``; lower case.
    hold : bool, default False
        Make it a legal hold: it is then neither moved nor removed without ``release``.
    release : bool, default False
        Give up the hold that the tag is now (with ``hold`` as well: move it).
    reason : str, default ""
        For the ledger; needed for a release.

    Returns
    -------
    Tag

    Raises
    ------
    RefusedError
        If the tag is a legal hold and would move, and ``release`` is not given.
    InputError
        If the name is no name of a tag, or a release has no reason.
    """
    if not _NAME.fullmatch(tag):
        raise InputError(
            "a tag must be a lower-case letter, then at most 62 letters, digits, '_', '.' and '-'",
            where="tag",
            got=tag,
            remedy="Call it like 'golden' or 'q1-close'",
        )
    workspace.records.ensure(metadata)
    name = resolve(workspace, ref).name
    # A vacuum that has counted the references may not overlook this one.
    with tag_lock(workspace, name):
        version = resolve(workspace, ref).version
        log = log_digest(workspace.tables, name, version)
        workspace.tables.files(name, version)
        with workspace.ledger.transaction() as tx:
            now = _newest(tx, name, tag)
            action = _action(now, version, hold=hold, release=release, reason=reason)
            if now is not None and action is None:
                return now
            return _change(tx, Tag(
                name, tag, version, hold, action or "set", workspace.clock.now(), workspace.actor, reason, log
            ))  # fmt: skip


def _action(now: Tag | None, version: int, *, hold: bool, release: bool, reason: str) -> str | None:
    """Name of the change; None if there is nothing to change."""
    if now is None or now.action == "remove":
        return "set"
    moves = now.version != version
    if now.hold and (moves or release):
        _check_release(now, release=release, reason=reason)
    if moves:
        return "move"
    if hold and not now.hold:
        return "hold"
    return "release" if now.hold and release and not hold else None


def remove_tag(workspace: Workspace, dataset: str, tag: str, *, reason: str, release: bool = False) -> Tag:
    """Let a name mean nothing from now on; what it meant stays in its history.

    Parameters
    ----------
    workspace : Workspace
    dataset : str
        Name of the table.
    tag : str
    reason : str
        Why; not empty.
    release : bool, default False
        Needed for a legal hold.

    Raises
    ------
    NotFoundError
        If the table has no such tag.
    RefusedError
        If the tag is a legal hold, and ``release`` is not given.
    """
    workspace.records.ensure(metadata)
    check_reason(reason, "the removal of a tag must have a reason", where=f"dataset:{dataset}, tag {tag}")
    with tag_lock(workspace, dataset), workspace.ledger.transaction() as tx:
        means = {row.tag: row for row in current(tx.connection.execute(every_change(dataset)))}
        now = means[check_known(tag, means, "the table must have this tag", where=f"dataset:{dataset}", what="tag")]
        if now.hold:
            _check_release(now, release=release, reason=reason)
        return _change(tx, Tag(
            dataset, tag, now.version, False, "remove", workspace.clock.now(), workspace.actor, reason, now.log
        ))  # fmt: skip


def _check_release(now: Tag, *, release: bool, reason: str) -> None:
    where = f"dataset:{now.dataset}, tag {now.tag}"
    if not release:
        raise RefusedError(
            "a legal hold must not be moved or removed",
            where=where,
            got=f"held at version {now.version} by {now.actor}",
            remedy="Give it up with --release --reason",
        )
    check_reason(reason, "the release of a legal hold must have a reason", where=where)


def tag_lock(workspace: Workspace, dataset: str) -> FileLock:
    """Hold the tags of a table: whoever changes one, and the vacuum that counts them."""
    return workspace.lock(f"tags/{dataset}")


def _newest(tx: Transaction, dataset: str, tag: str) -> Tag | None:
    rows = tx.connection.execute(every_change(dataset).where(tags.c.tag == tag)).all()
    return read_row(rows[-1]) if rows else None


def _change(tx: Transaction, change: Tag) -> Tag:
    key = (tags.c.dataset == change.dataset) & (tags.c.tag == change.tag)
    position = len(tx.connection.execute(select(tags.c.position).where(key)).all())
    tx.insert(tags, asdict(change) | {"position": position, "hold": int(change.hold)})
    facts = {
        "dataset": f"dataset:{change.dataset}@{change.version}",
        "hold": change.hold,
        "reason": change.reason,
        "files": {log_path(change.dataset, change.version): change.log},
    }
    tx.append(f"tag.{change.action}", f"tag:{change.dataset}@{change.tag}", facts)
    return change
