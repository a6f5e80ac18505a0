"""What versions and entries say of a batch: the words that ingest, release and resubmission share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retrodict.core.display import Block, Shown, count
from retrodict.data.context import MEASURES
from retrodict.data.definitions import quarantine_name, unpublished_name
from retrodict.data.validation.results import CheckResult, results_grid
from retrodict.stores.tables.base import TableVersion

__all__ = [
    "BATCH",
    "CHECKS",
    "CONTENT",
    "MODE",
    "UPDATED",
    "IngestReport",
    "quarantine_name",
    "unpublished_name",
    "version_notes",
]

BATCH, MODE, CHECKS, CONTENT = "retrodict.batch", "retrodict.mode", "retrodict.checks", "retrodict.content"
UPDATED = "retrodict.updated"
_COUNTS = ("rows_in", "accepted", "quarantined")


@dataclass(slots=True, repr=False)
class IngestReport(Shown):
    """What one ingest did.

    Attributes
    ----------
    table : str
    version : int
        Version that holds the batch.
    batch : str
        Id of the batch.
    rows_in, accepted, quarantined : int
        ``rows_in = accepted + quarantined``, always.
    checks : list of CheckResult
    added, widened : dict of str to str
        Columns that the batch added to the table, and those it widened.
    already : bool
        True if the batch was there before and no row was written.
    updated : int or None
        Accepted rows of an update that took the place of rows with their key; the others were new. None: no update.
    """

    table: str
    version: int
    batch: str
    rows_in: int
    accepted: int
    quarantined: int
    checks: list[CheckResult] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)
    widened: dict[str, str] = field(default_factory=dict)
    already: bool = False
    updated: int | None = None

    @property
    def reasons(self) -> dict[str, int]:
        """Failed rows per check, without the checks that no row failed."""
        return {result.check: result.failed for result in self.checks if result.failed}

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "dataset": f"dataset:{self.table}@{self.version}",
            "batch": self.batch,
            "rows_in": self.rows_in,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "reasons": self.reasons,
            "checks": [result.to_dict() for result in self.checks],
            "schema": {"added": self.added, "widened": self.widened},
            "already": self.already,
            **({} if self.updated is None else {"updated": self.updated}),
        }

    def blocks(self) -> Sequence[Block | None]:
        """What became of the rows and columns, and the checks that are worth a look."""
        name = f"{self.table}@{self.version}"
        if self.already:
            return [f"{name} holds this batch already; nothing was written."]
        split = f"{count(self.accepted)} accepted + {count(self.quarantined)} quarantined"
        if self.updated is not None:
            split += f"; {count(self.updated)} updated, {count(self.accepted - self.updated)} added"
        return [
            f"{name}: {count(self.rows_in)} rows in = {split}",
            *(f"new column {column} ({kind}), null in earlier rows" for column, kind in self.added.items()),
            *(f"column {column} widened from {kinds}" for column, kinds in self.widened.items()),
            results_grid([result for result in self.checks if result.status != "pass" or result.failed]),
        ]

    @classmethod
    def of_version(cls, table: str, version: TableVersion) -> IngestReport:
        """Report of a batch from what its version says."""
        counts: dict[str, Any] = {name: int(version.metadata[f"retrodict.{name}"]) for name in _COUNTS}
        checks = [CheckResult.from_dict(body) for body in json.loads(version.metadata[CHECKS])]
        changed = json.loads(version.metadata.get("retrodict.schema", "{}"))
        counts["updated"] = int(version.metadata[UPDATED]) if UPDATED in version.metadata else None
        return cls(table, version.version, version.metadata[BATCH], **counts, checks=checks, **changed, already=True)


def version_notes(
    report: IngestReport, *, mode: str, origin: str, measures: Mapping[str, float], definition: str
) -> dict[str, str]:
    """What a version says of its batch."""
    notes = {
        BATCH: report.batch,
        MODE: mode,
        CHECKS: json.dumps([result.to_dict() for result in report.checks]),
        MEASURES: json.dumps(dict(measures)),
        "retrodict.origin": origin,
        "retrodict.definition": definition,
        **{f"retrodict.{name}": str(getattr(report, name)) for name in _COUNTS},
    }
    if report.added or report.widened:
        notes["retrodict.schema"] = json.dumps({"added": report.added, "widened": report.widened})
    return notes
