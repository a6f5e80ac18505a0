"""Deciding: policies, the servant of a revision, the server, the decision log, lineage and replay of a decision.

Names load on first use: definitions live in this room too, and importing those must not load the engines.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrodict.serving.definitions import Policy, Rule
    from retrodict.serving.feature_sets import feature_set_of
    from retrodict.serving.lineage import trace_decision
    from retrodict.serving.loading import Loader, load_policy
    from retrodict.serving.log import Logged, decisions_table, find_decision, read_decisions
    from retrodict.serving.parity import ParityReport, check_parity
    from retrodict.serving.records import DecisionRecord
    from retrodict.serving.replay import DecisionReplay, replay_decision
    from retrodict.serving.servant import Servant
    from retrodict.serving.server import ServeOptions, serve
    from retrodict.serving.upkeep import Upkeep, build_online

__all__ = [
    "DecisionRecord",
    "DecisionReplay",
    "Loader",
    "Logged",
    "ParityReport",
    "Policy",
    "Rule",
    "Servant",
    "ServeOptions",
    "Upkeep",
    "build_online",
    "check_parity",
    "decisions_table",
    "feature_set_of",
    "find_decision",
    "load_policy",
    "read_decisions",
    "replay_decision",
    "serve",
    "trace_decision",
]

_HOMES = {
    "definitions": ("Policy", "Rule"),
    "feature_sets": ("feature_set_of",),
    "lineage": ("trace_decision",),
    "loading": ("Loader", "load_policy"),
    "log": ("Logged", "decisions_table", "find_decision", "read_decisions"),
    "parity": ("ParityReport", "check_parity"),
    "records": ("DecisionRecord",),
    "replay": ("DecisionReplay", "replay_decision"),
    "servant": ("Servant",),
    "server": ("ServeOptions", "serve"),
    "upkeep": ("Upkeep", "build_online"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
