"""``project.outcomes``: what actually happened after the decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrodict import outcomes
from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, when
from retrodict.core.lazy import lazy_modules
from retrodict.core.tasks import Target
from retrodict.project.arguments import Time, instant
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict.outcomes import status
    from retrodict.outcomes.arrivals import OutcomesReport
    from retrodict.outcomes.status import Outcomes as OutcomesAsOf
else:
    (status,) = lazy_modules("retrodict.outcomes", "status")

__all__ = ["OutcomeCounts", "Outcomes"]


class OutcomeCounts(Shown):
    """Decisions of a policy by what is known of their outcomes.

    Attributes
    ----------
    outcomes : retrodict.outcomes.status.Outcomes
        Decisions, labels and statuses as aligned arrays.
    """

    __slots__ = ("_limit", "outcomes")

    def __init__(self, outcomes: OutcomesAsOf, limit: int) -> None:
        self.outcomes, self._limit = outcomes, limit

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        outcomes = self.outcomes
        return {
            "policy": outcomes.policy, "now": format_time(outcomes.now), "decisions": len(outcomes),
            **self._counts(), "revised": outcomes.revised, "without_key": outcomes.without_key,
            "newest": [self._row(place) for place in range(max(0, len(outcomes) - self._limit), len(outcomes))],
        }  # fmt: skip

    def _counts(self) -> dict[str, int]:
        return {status: int((self.outcomes.status == status).sum()) for status in ("known", "pending", "void")}

    def _row(self, place: int) -> dict[str, Any]:
        outcomes = self.outcomes
        cells = {n: outcomes.decisions.column(n)[place].as_py() for n in ("id", "time", "key", "decision", "score")}
        known_at, label = int(outcomes.known_at[place]), float(outcomes.label[place])
        return {
            "decision": f"decision:{cells['id']}", "time": format_time(cells["time"]), "key": cells["key"],
            "decided": cells["decision"], "score": cells["score"], "status": str(outcomes.status[place]),
            "label": _label(outcomes.target, label),
            "known_at": None if known_at == status.UNKNOWN_TIME else format_time(known_at),
        }  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Counts, and the newest decisions."""
        facts = self.to_dict()
        about = {"policy": facts["policy"], "as of": when(self.outcomes.now), "decisions": facts["decisions"]}
        names = ("decision", "time", "key", "decided", "score", "status", "label")
        rows = [[row[name] for name in names] for row in facts["newest"]]
        columns = ("decision", "time?", "key", "decided", "score>", "status", "label")
        return [Facts({**about, **self._counts()}), Grid(columns, rows) if rows else None]


def _label(target: Target, label: float) -> bool | float | str | None:
    """A label as the table has it; None where there is none yet."""
    if label != label:  # noqa: PLR0124  # NaN
        return None
    if target.task == "multiclass":
        return target.classes[int(label)]
    return bool(label) if target.task == "binary" else label


class Outcomes(Namespace):
    """Outcomes of a project's decisions."""

    def ingest(self, policy: str, rows: Any) -> OutcomesReport:
        """Take in outcomes that are not in the label's table.

        Columns: decision_id, key or the key columns of the label's table; label (1 or 0, a class or a number, as the
        model's task has it); known_at (a time with its zone).

        Parameters
        ----------
        policy : str
            Whose decisions they are about.
        rows : path or data frame
            A file, several files, or a frame of pandas, Polars or Arrow.
        """
        return outcomes.ingest_outcomes(self._workspace, policy, rows)

    def show(self, policy: str, *, now: Time | None = None, limit: int = 10) -> OutcomeCounts:
        """Count the decisions whose outcome is known, pending or void.

        Parameters
        ----------
        policy : str
            Whose decisions.
        now : Time, optional
            As of when.  [default: now]
        limit : int
            Newest decisions to show.
        """
        moment = instant(now, "now")
        moment = self._workspace.clock.now() if moment is None else moment
        return OutcomeCounts(status.outcomes(self._workspace, policy, now=moment), limit)
