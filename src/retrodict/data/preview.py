"""What an ingest would do with a batch: judged by the same checks, and nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrodict.core.display import Block, Shown, count
from retrodict.data.context import WorkspaceContext
from retrodict.data.definitions import Table
from retrodict.data.ingest import staging_folder
from retrodict.data.readers import open_batch
from retrodict.data.validation import check_batch
from retrodict.data.validation.results import CheckResult, results_grid
from retrodict.workspace import Workspace

__all__ = ["IngestPreview", "preview"]


@dataclass(frozen=True, slots=True, repr=False)
class IngestPreview(Shown):
    """What would become of a batch.

    Attributes
    ----------
    table : str
    rows_in, accepted : int
        Rows of the batch, and those that its checks let pass.
    publishes : bool
        Whether an ingest would make a version; a halting check, or no accepted row, prevents it.
    checks : tuple of CheckResult
    show_passed : bool
        Whether people see the checks that passed, too.
    """

    table: str
    rows_in: int
    accepted: int
    publishes: bool
    checks: tuple[CheckResult, ...]
    show_passed: bool = False

    @property
    def ok(self) -> bool:
        """Whether the batch would be published."""
        return self.publishes

    @property
    def quarantined(self) -> int:
        """Rows that would be set aside."""
        return self.rows_in - self.accepted

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "table": self.table,
            "rows_in": self.rows_in,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "publishes": self.publishes,
            "checks": [result.to_dict() for result in self.checks],
        }

    def blocks(self) -> Sequence[Block | None]:
        """Counts, the checks that are worth a look, and a warning if nothing would be published."""
        counts = {status: sum(r.status == status for r in self.checks) for status in ("pass", "fail", "not_evaluable")}
        rows = f"{count(self.accepted)} would be accepted, {count(self.quarantined)} set aside"
        checks = f"{counts['pass']} checks pass, {counts['fail']} fail, {counts['not_evaluable']} are not evaluable"
        return [
            f"{count(self.rows_in)} rows: {rows}; {checks}",
            results_grid([r for r in self.checks if self.show_passed or r.status != "pass" or r.failed]),
            None if self.publishes else "The batch would not be published.",
        ]


def preview(
    workspace: Workspace,
    table: str,
    source: Any,
    *,
    format: str | None = None,  # noqa: A002  (the word people look for)
    show_passed: bool = False,
) -> IngestPreview:
    """Check a batch as an ingest would, and write nothing.

    Parameters
    ----------
    workspace : Workspace
    table : str
        Name of a defined :class:`~retrodict.Table`.
    source, format
        As in :func:`~retrodict.data.ingest.ingest`.
    show_passed : bool, default False
        Whether people see the checks that pass, too.

    Raises
    ------
    NotFoundError
        If no table of this name is defined.
    InputError
        If the batch cannot be read.
    """
    definition = workspace.definitions.get(Table, table)
    with staging_folder(workspace) as staging, open_batch(source, staging=staging, format=format) as batch:
        stored = table if workspace.tables.history(table) else None
        context = WorkspaceContext(workspace, table)
        findings = check_batch(batch, definition, context=context, staging=staging, known_keys=stored)
        accepted = findings.accepted_rows
        publishes = not findings.halted and accepted > 0
        return IngestPreview(table, batch.num_rows, accepted, publishes, tuple(findings.results), show_passed)
