"""Changing what decides: deploy, promote, roll back; and the gate that features pass before they serve."""

from retrodict.rollout.changes import deploy, promote, rollback
from retrodict.rollout.verification import last_verdict, record_verification, unverified_views

__all__ = ["deploy", "last_verdict", "promote", "record_verification", "rollback", "unverified_views"]
