"""What became of decisions: outcomes as of a time, the key they join on, those that come from outside.

Monitoring measures with them and rollouts compare with them; neither imports the other. Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.outcomes.arrivals import OutcomesReport, ingest_outcomes, outcomes_name
    from retrodict.outcomes.keys import join_key
    from retrodict.outcomes.status import Outcomes, outcomes

__all__ = ["Outcomes", "OutcomesReport", "ingest_outcomes", "join_key", "outcomes", "outcomes_name"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "arrivals": ("OutcomesReport", "ingest_outcomes", "outcomes_name"),
        "keys": ("join_key",),
        "status": ("Outcomes", "outcomes"),
    },
)
