"""What is kept of runs: old ones go that nothing refers to, and the ledger says which and why.

A run's rows are removed, so that lists and searches stay short; its entries in the ledger stay, and so do the bytes of
its artifacts, which entries name and other runs may share. Removing these too was rejected: the audit could not tell
pruning from loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select

from retrodict.core.display import Block, Grid, Shown, count
from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import InputError, check_reason
from retrodict.learning.runs.record import KINDS, Run
from retrodict.learning.runs.schema import artifacts, metrics, runs, tags, values
from retrodict.learning.runs.store import list_runs
from retrodict.ledger.schema import edges
from retrodict.registry import list_versions
from retrodict.workspace import Workspace

__all__ = ["RunRetention", "prune_runs"]

_AT_ONCE = 200


@dataclass(frozen=True, repr=False)
class RunRetention(Shown):
    """Which runs go, and what holds the others that are old enough.

    Attributes
    ----------
    removed : tuple of str
        References, oldest last.
    holders : dict of str to str
        Reference to the reason, of runs that are old enough and meet the condition.
    dry_run : bool
        Whether nothing was removed.
    """

    removed: tuple[str, ...]
    holders: dict[str, str]
    older: str
    dry_run: bool

    def blocks(self) -> Sequence[Block | None]:
        """How many, and what holds the rest."""
        verb = "would be removed" if self.dry_run else "were removed"
        following = "To remove them: --no-dry-run --reason '…'" if self.dry_run and self.removed else None
        return [
            f"{count(len(self.removed))} runs older than {self.older} {verb}; {count(len(self.holders))} are held.",
            Grid(("kept", "because"), list(self.holders.items())) if self.holders else None,
            following,
        ]


def prune_runs(
    workspace: Workspace,
    *,
    older: str,
    model: str | None = None,
    where: str = "",
    dry_run: bool = True,
    reason: str = "",
) -> RunRetention:
    """Remove runs that ended long ago and that nothing needs.

    Kept is a run that goes on, that a model version was trained by, from which the ledger says that anything was made,
    that bears a tag of somebody's own, or that a kept run is part of.

    Parameters
    ----------
    workspace : Workspace
    older : str
        How long ago a run must have ended, as ``"90d"``.
    model, where
        As for :func:`retrodict.learning.runs.list_runs`; trials count too.
    dry_run : bool, default True
        Only say what would go.
    reason : str
        For the ledger; needed unless it is a dry run.

    Raises
    ------
    InputError
        If there is no reason, or the age is no duration above 0.
    """
    age = parse_duration(older, where="age of runs")
    if age <= 0:
        raise InputError("the age of runs that go must be above 0", where="runs", got=older, remedy="Write it like 90d")
    if not dry_run:
        check_reason(reason, "removing runs must have a reason", where="runs")
    before = workspace.clock.now() - age
    old = [run for run in list_runs(workspace, model, where=where, kinds=KINDS)
           if run.status != "running" and (run.finished or run.started) < before]  # fmt: skip
    removed: list[str] = []
    holders: dict[str, str] = {}
    if dry_run:
        with workspace.records.read() as connection:
            holders = _held(workspace, connection, old)
        removed = [run.ref for run in old if run.ref not in holders]
    for first in range(0, 0 if dry_run else len(old), _AT_ONCE):
        with workspace.ledger.transaction() as tx:  # asked again inside: nobody can come to need one meanwhile
            holding = _held(workspace, tx.connection, old)
            group = [run for run in old[first : first + _AT_ONCE] if run.ref not in holding]
            for run in group:
                _remove(tx, run)
            if group:
                facts = {"runs": [run.ref for run in group], "older": older, "reason": reason}
                tx.append("run.prune", "runs:pruned", facts)
        removed += [run.ref for run in group]
        holders |= holding
    return RunRetention(tuple(removed), holders, format_duration(age), dry_run)


def _remove(tx: Any, run: Run) -> None:
    keys = ((runs, {"id": run.id}), (metrics, {"run": run.id}), (artifacts, {"run": run.id}), (tags, {"run": run.id}))
    for table, key in keys:
        ((name, value),) = key.items()
        tx.connection.execute(delete(table).where(table.c[name] == value))
        tx.vouch(table, key)  # for there being none
    tx.connection.execute(delete(values).where(values.c.run == run.id))


def _held(workspace: Workspace, connection: Connection, old: Sequence[Run]) -> dict[str, str]:
    """What holds which of some runs."""
    holding = dict(_reasons(workspace, connection, old))
    ids = {run.id for run in old}
    rest = {run.id for run in old if run.ref not in holding}
    rows = connection.execute(select(runs.c.id, runs.c.parent).where(runs.c.parent.is_not(None))).all()
    for child, parent in sorted(rows, reverse=True):  # ids grow with time: parts come before the whole
        if parent in ids and parent in rest and child not in rest:
            holding[f"run:{parent}"] = f"run:{child} is part of it"
            rest.discard(parent)
    return holding


def _reasons(workspace: Workspace, connection: Connection, old: Sequence[Run]) -> Iterator[tuple[str, str]]:
    trained = {version.run: version.ref for version in list_versions(workspace)}
    refs = [run.ref for run in old]
    targets: dict[str, str] = {}
    for first in range(0, len(refs), _AT_ONCE):
        query = select(edges.c.source, edges.c.target).where(edges.c.source.in_(refs[first : first + _AT_ONCE]))
        targets |= dict(connection.execute(query).all())
    for run in old:
        labels = [name for name in run.tags if not name.startswith("mlflow.")]
        if run.id in trained:
            yield run.ref, f"{trained[run.id]} was trained by it"
        elif run.ref in targets:
            yield run.ref, f"{targets[run.ref]} was made from it"
        elif labels:
            yield run.ref, f"it bears the tag {labels[0]}"
