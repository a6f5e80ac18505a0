"""Checks: 46 kinds in four layers, each immutable data that says what must hold and runs nothing."""

from retrodict.data.checks.base import RULES, Severity
from retrodict.data.checks.check import Check

__all__ = ["Check", "RULES", "Severity"]
