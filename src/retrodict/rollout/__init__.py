"""Changing what decides: deploy, promote, roll back; a challenger on the decisions that were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.rollout.changes import deploy, promote, rollback
    from retrodict.rollout.definitions import Guard, Rollout
    from retrodict.rollout.pairs import Reproduction, reproduce_champion

__all__ = ["Guard", "Reproduction", "Rollout", "deploy", "promote", "reproduce_champion", "rollback"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "changes": ("deploy", "promote", "rollback"),
        "definitions": ("Guard", "Rollout"),
        "pairs": ("Reproduction", "reproduce_champion"),
    },
)
