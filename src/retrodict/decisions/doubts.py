"""Why a decision has no score of its model, as its record names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.errors import IntegrityError, RetryableError

if TYPE_CHECKING:
    from retrodict.models.artifact import Score

__all__ = ["HaltedError", "NoScoreError", "StaleStateError", "UnknownScoreError", "check_number", "is_no_number"]


class StaleStateError(RetryableError):
    """The state of a view is not as current as the policy requires."""


class HaltedError(RetryableError):
    """Somebody has halted the policy: its rules or its fallback answer."""


class UnknownScoreError(IntegrityError):
    """A model has given no number."""


class NoScoreError(RetryableError):
    """A model that is served without a policy gave nothing, and nothing else can answer in its place."""


def check_number(scored: Score, model: str) -> None:
    """Refuse what is no number: every comparison with it is false, and the policy would decide by none of its rules."""
    for name, value in scored.outputs.items():
        if value != value:  # noqa: PLR0124  # NaN, in the fastest way
            raise UnknownScoreError("a score must be a number", where=f"model:{model}, output {name!r}", got="NaN",
                                    remedy="See what the model gives for the features of the record")  # fmt: skip


def is_no_number(scored: Score) -> bool:
    """Whether any of what a model gave is none."""
    return any(value != value for value in scored.outputs.values())  # noqa: PLR0124  # as above
