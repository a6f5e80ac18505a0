"""Data: tables and their checks, sources with two clocks; ingest through validation into versions.

Names load on first use: definitions live in this room too, and importing those must not load Arrow and DuckDB. The
function ``ingest`` is named like its module: import it from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.data.checks import Check, Severity
    from retrodict.data.definitions import ColumnType, Table, quarantine_name
    from retrodict.data.ingest import IngestReport
    from retrodict.data.readers import Batch, SqlQuery, open_batch, read_batch
    from retrodict.data.sources import Source
    from retrodict.data.validation import CheckResult, Validation, validate

__all__ = [
    "Batch",
    "Check",
    "CheckResult",
    "ColumnType",
    "IngestReport",
    "Severity",
    "Source",
    "SqlQuery",
    "Table",
    "Validation",
    "open_batch",
    "quarantine_name",
    "read_batch",
    "validate",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "checks": ("Check", "Severity"),
        "definitions": ("ColumnType", "Table", "quarantine_name"),
        "ingest": ("IngestReport",),
        "readers": ("Batch", "SqlQuery", "open_batch", "read_batch"),
        "sources": ("Source",),
        "validation": ("CheckResult", "Validation", "validate"),
    },
)
