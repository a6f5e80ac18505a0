"""Data: tables and their checks, sources with two clocks; ingest through validation into versions.

Names load on first use: definitions live in this room too, and importing those must not load Arrow and DuckDB. The
function ``ingest`` is named like its module: import it from there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrodict.data.checks import Check, Severity
    from retrodict.data.definitions import ColumnType, Table
    from retrodict.data.ingest import IngestReport, quarantine_name
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

_HOMES = {
    "checks": ("Check", "Severity"),
    "definitions": ("ColumnType", "Table"),
    "ingest": ("IngestReport", "quarantine_name"),
    "readers": ("Batch", "SqlQuery", "open_batch", "read_batch"),
    "sources": ("Source",),
    "validation": ("CheckResult", "Validation", "validate"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
