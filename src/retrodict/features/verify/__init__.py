"""Proof of parity: training frame, online state, stream and the naive oracle give the same values, or say where not.

Names load on first use: reading a verdict needs no engine.
"""

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.features.verify.verification import Mismatch, Report, verify

__all__ = ["Mismatch", "Report", "verify"]

__getattr__, __dir__ = lazy_names(__name__, {"verification": ["Mismatch", "Report", "verify"]})
