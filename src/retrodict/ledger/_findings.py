"""What an audit finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that is not as the ledger says: what kind, where (entry, segment, object, file), in words."""

    kind: str
    where: str
    detail: str
