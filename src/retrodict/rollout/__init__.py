"""Changing what decides: deploy, promote, roll back."""

from retrodict.rollout.changes import deploy, promote, rollback

__all__ = ["deploy", "promote", "rollback"]
