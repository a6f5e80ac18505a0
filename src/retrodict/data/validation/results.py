"""What a validation says: one result per check, of three kinds, and what came of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import msgspec

from retrodict.core.display import Grid, number
from retrodict.data.checks.base import Layer, OnUnknown, Severity

__all__ = ["CheckResult", "Status", "results_grid"]

Status = Literal["pass", "fail", "not_evaluable"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of one check on one batch.

    Attributes
    ----------
    check : str
        Its title; where two checks of a table read alike, later ones are numbered.
    rule : str
        Kind of the check; ``type`` and ``new_key`` are implied by the table.
    layer : {"schema", "statistical", "business", "learning"}
    severity : {"critical", "high", "medium", "low"}
    status : {"pass", "fail", "not_evaluable"}
        A check of rows fails when a larger share than its tolerance fails.
    failed, rows : int
        Rows that failed, out of how many it looked at; 0 of the batch's rows for checks of the whole batch.
    halted : bool
        Whether this check alone keeps the batch from being published.
    value : float, optional
        The number that was judged, for checks that judge one; of the worst group where there are groups.
    reason : str
        Why it failed or could not be evaluated; empty if it passed.
    columns : tuple of str
        What it read.
    on_unknown : {"halt", "warn", "pass"}
        What came of the batch where it could not be evaluated: kept back; published with a part in health; published.
    """

    check: str
    rule: str
    layer: Layer
    severity: Severity
    status: Status
    failed: int = 0
    rows: int = 0
    halted: bool = False
    value: float | None = None
    reason: str = ""
    columns: tuple[str, ...] = ()
    on_unknown: OnUnknown = "pass"

    def to_dict(self) -> dict[str, Any]:
        """Plain form: what ``--json`` prints and a version keeps."""
        return asdict(self) | {"columns": list(self.columns)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read the plain form; keys of a later version are left out."""
        return msgspec.convert(body, cls)


def results_grid(results: Sequence[CheckResult]) -> Grid | None:
    """Results under headings, for people; None where there are none."""
    words = {"pass": "pass", "fail": "FAIL", "not_evaluable": "not evaluable"}
    rows = [
        (r.check, r.layer, r.severity, words[r.status], r.failed or None, number(r.value), r.reason or None)
        for r in results
    ]
    return Grid(("check", "layer?", "severity", "result", "failed>", "value>?", "why"), rows) if rows else None
