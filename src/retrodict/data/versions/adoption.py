"""Taking in what somebody else wrote into a table, on record: who let it in, when and why."""

from __future__ import annotations

from retrodict.core.errors import NotFoundError, check_reason, near
from retrodict.data.versions.refs import log_path
from retrodict.ledger.chain import Entry
from retrodict.ledger.table_versions import ADOPT
from retrodict.workspace import Workspace

__all__ = ["adopt"]


def adopt(workspace: Workspace, table: str, *, reason: str) -> Entry:
    """Name every version of a table as it lies there now, so that it is read.

    For a table that another program wrote on purpose, and for one that was restored from an older backup. What entries
    named before, and is gone or altered, stays a finding of ``audit verify``.

    Parameters
    ----------
    workspace : Workspace
    table : str
    reason : str
        Why, for the ledger.

    Raises
    ------
    NotFoundError
        If there is no such table.
    IntegrityError
        If the log of the table is damaged.
    """
    text = check_reason(reason, "taking in versions by other hands must have a reason", where=f"table {table}")
    tables = workspace.tables
    with workspace.lock(f"ingest/{table}"):
        entries = tables.log_entries(table)
        if not entries:
            names = tables.names(every=True)
            raise NotFoundError("the table must exist", where="audit adopt", got=table,
                                remedy=near(table, names, what="table"))  # fmt: skip
        files = {log_path(table, entry.version): entry.digest for entry in entries}
        replacing = {file.path for entry in entries for file in entry.replaced.values()}
        for path in sorted(f"{table}/{path}" for path in replacing.union(*(entry.added for entry in entries))):
            try:
                files[path] = tables.file_digest(path)
            except NotFoundError:  # vacuumed, or a finding by the entry that named it
                continue
        with workspace.ledger.transaction() as tx:
            return tx.append(ADOPT, f"dataset:{table}", {"reason": text, "files": files})
