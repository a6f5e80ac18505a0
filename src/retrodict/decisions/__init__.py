"""One decision: the policy, what decides by it, its record and log, and the way back: lineage and replay.

Names load on first use: definitions live in this room too, and importing those must not load the engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.decisions.definitions import Policy, Rule, Session
    from retrodict.decisions.lineage import ObjectLineage, trace_decision, trace_object
    from retrodict.decisions.loader import Loader, load_policy
    from retrodict.decisions.log import LoggedDecision, decisions_table, find_decision, read_decisions
    from retrodict.decisions.parity import ParityReport, check_parity
    from retrodict.decisions.records import DecisionRecord
    from retrodict.decisions.replay import DecisionReplay, replay_decision
    from retrodict.decisions.seals import SealReport, prove_decision, read_proof, seal_decisions
    from retrodict.decisions.servant import Servant

__all__ = [
    "DecisionRecord",
    "DecisionReplay",
    "Loader",
    "LoggedDecision",
    "ObjectLineage",
    "ParityReport",
    "Policy",
    "Rule",
    "SealReport",
    "Servant",
    "Session",
    "check_parity",
    "decisions_table",
    "find_decision",
    "load_policy",
    "prove_decision",
    "read_decisions",
    "read_proof",
    "replay_decision",
    "seal_decisions",
    "trace_decision",
    "trace_object",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "definitions": ("Policy", "Rule", "Session"),
        "lineage": ("ObjectLineage", "trace_decision", "trace_object"),
        "loader": ("Loader", "load_policy"),
        "log": ("LoggedDecision", "decisions_table", "find_decision", "read_decisions"),
        "parity": ("ParityReport", "check_parity"),
        "records": ("DecisionRecord",),
        "replay": ("DecisionReplay", "replay_decision"),
        "seals": ("SealReport", "prove_decision", "read_proof", "seal_decisions"),
        "servant": ("Servant",),
    },
)
