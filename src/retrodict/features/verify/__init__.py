"""Proof of parity: training frame, online state, stream and the naive oracle give the same values, or say where not."""

from retrodict.features.verify.verification import Mismatch, Report, verify

__all__ = ["Mismatch", "Report", "verify"]
