"""Suites of Great Expectations, read from their JSON; the library itself is not needed.

Every kind of expectation has an entry in a table, or a reason in another one; a kind in neither is listed as unknown.
Where the two tools count rows, they count alike: a ``mostly`` is a share of the rows that have a value, so it becomes a
tolerance *and* a condition that leaves nulls out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrodict.core.errors import InputError
from retrodict.data.checks import Check, Severity
from retrodict.data.interchange._arguments import Expectation
from retrodict.data.interchange._expectations import EXPECTATIONS, UNMAPPED
from retrodict.data.interchange.imported import Collected, Imported, Unmapped, text_of

__all__ = ["from_great_expectations"]

_SEVERITY: dict[str, Severity] = {"critical": "critical", "warning": "medium", "info": "low"}
_WHERE = "Great Expectations suite"


def from_great_expectations(suite: Mapping[str, Any] | str | Path, *, severity: Severity | None = None) -> Imported:
    """Read an expectation suite.

    Parameters
    ----------
    suite : mapping, str or path
        The suite as JSON has it (1.x, or 0.18 with ``expectation_type``), its text, or a file with it.
    severity : {"critical", "high", "medium", "low"}, optional
        Severity of every check; by default critical, warning and info become critical, medium and low, and medium
        where a suite says nothing (0.18).

    Returns
    -------
    Imported
        ``columns`` and ``key`` are empty: a suite declares none.

    Raises
    ------
    InputError
        If it is no suite.

    Examples
    --------
    >>> kwargs = {"column": "delay", "min_value": 0, "max_value": 9, "mostly": 0.9}
    >>> suite = {"name": "s", "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": kwargs}]}
    >>> found = from_great_expectations(suite)
    >>> found.checks[0].title, found.checks[0].tolerance
    ('between(delay, 0, 9) where delay is not null', 0.1)
    """
    collected = Collected()
    for entry in _entries(suite):
        kind, kwargs = str(_kind_of(entry)), entry.get("kwargs") or {}
        name = _name(kind, kwargs)
        if kind not in EXPECTATIONS:
            collected.refused(name, UNMAPPED.get(kind, "it is no expectation that the library brings along"))
            continue
        expectation = Expectation(kwargs, severity or _SEVERITY.get(str(entry.get("severity")), "medium"))
        if collected.add(name, lambda kind=kind, expectation=expectation: _checks(kind, expectation)):  # type: ignore[misc]
            collected.unmapped += [Unmapped(name, remark, partly=True) for remark in expectation.remarks]
    return Imported(tuple(collected.checks), {}, (), tuple(collected.unmapped))


def _checks(kind: str, expectation: Expectation) -> list[Check]:
    expectation.refuse_parameters()
    return EXPECTATIONS[kind](expectation)


def _entries(suite: Mapping[str, Any] | str | Path) -> list[Mapping[str, Any]]:
    remedy = 'Give a suite as JSON has it: {"name": ..., "expectations": [...]}'
    body: Any = suite
    if not isinstance(suite, Mapping):
        try:
            body = json.loads(text_of(suite))
        except (OSError, ValueError) as error:
            raise InputError(
                "a suite must be a JSON file", where=_WHERE, got=type(error).__name__, remedy=remedy
            ) from error
    entries = body.get("expectations") if isinstance(body, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) and _kind_of(entry) for entry in entries):
        raise InputError(
            "a suite must have a list of expectations, each with a type and kwargs", where=_WHERE,
            got=type(body).__name__, remedy=remedy,
        )  # fmt: skip
    return entries


def _kind_of(entry: Mapping[str, Any]) -> str | None:
    """Type of an expectation; None if it is none."""
    kind = entry.get("type") or entry.get("expectation_type")
    return kind if isinstance(kind, str) and isinstance(entry.get("kwargs") or {}, Mapping) else None


def _name(kind: str, kwargs: Mapping[str, Any]) -> str:
    single = [kwargs.get(key) for key in ("column", "column_A", "column_B")]
    several = kwargs.get("column_list") or kwargs.get("column_set") or ()
    columns = [str(column) for column in (*single, *several) if isinstance(column, str)]
    return f"{kind}({', '.join(columns)})"
