"""Why a decision has no score of its model, as its record names it."""

from __future__ import annotations

from retrodict.core.errors import IntegrityError, RetryableError

__all__ = ["HaltedError", "NoScoreError", "StaleStateError", "UnknownScoreError"]


class StaleStateError(RetryableError):
    """The state of a view is not as current as the policy requires."""


class HaltedError(RetryableError):
    """Somebody has halted the policy: its rules or its fallback answer."""


class UnknownScoreError(IntegrityError):
    """A model has given no number."""


class NoScoreError(RetryableError):
    """A model that is served without a policy gave nothing, and nothing else can answer in its place."""
