"""Changing what decides: deploy, promote, roll back; a challenger on the decisions that were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.rollout.changes import deploy, promote, rollback
    from retrodict.rollout.compare import LogComparison, Reproduction, compare_on_log, reproduce_champion
    from retrodict.rollout.definitions import Guard, Rollout

__all__ = [
    "Guard",
    "LogComparison",
    "Reproduction",
    "Rollout",
    "compare_on_log",
    "deploy",
    "promote",
    "reproduce_champion",
    "rollback",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "changes": ("deploy", "promote", "rollback"),
        "definitions": ("Guard", "Rollout"),
        "compare": ("LogComparison", "Reproduction", "compare_on_log", "reproduce_champion"),
    },
)
