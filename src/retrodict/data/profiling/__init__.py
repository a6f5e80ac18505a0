"""Profiles of tables, checks suggested from them, and the health of what was ingested.

>>> import pyarrow as pa
>>> from retrodict.data.profiling import as_python, profile, suggest
>>> rows = pa.table({"id": range(100), "origin": ["JFK", "EWR"] * 50})
>>> profile(rows)["origin"].distinct
2
"""

from retrodict.data.profiling.code import as_python
from retrodict.data.profiling.findings import Finding, findings
from retrodict.data.profiling.health import DimensionScore, Health, ScoredCheck, health, health_history, sparkline
from retrodict.data.profiling.pages import health_html, health_png, profile_html
from retrodict.data.profiling.profile import (
    ColumnProfile,
    Correlations,
    Histogram,
    Lengths,
    Missing,
    Order,
    Profile,
    ValueCount,
)
from retrodict.data.profiling.profiler import profile
from retrodict.data.profiling.suggest import Suggestion, suggest, suggest_table, suggested_types

__all__ = [
    "ColumnProfile",
    "Correlations",
    "Finding",
    "Health",
    "Histogram",
    "Lengths",
    "Missing",
    "Order",
    "Profile",
    "DimensionScore",
    "ScoredCheck",
    "Suggestion",
    "ValueCount",
    "as_python",
    "findings",
    "health",
    "health_history",
    "health_html",
    "health_png",
    "profile",
    "profile_html",
    "sparkline",
    "suggest",
    "suggest_table",
    "suggested_types",
]
