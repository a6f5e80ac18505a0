"""One row against a table's checks, in microseconds: for requests, events and forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retrodict.core.clock import Clock, SystemClock
from retrodict.core.durations import parse_duration
from retrodict.data.definitions import Table

__all__ = ["row_checker"]


def row_checker(
    table: Table, *, clock: Clock | None = None, warnings: bool = True
) -> Callable[[Mapping[str, Any]], list[str]]:
    """Compile the checks of single rows to one function.

    Parameters
    ----------
    table : Table
    clock : Clock, optional
        For ``not_in_future``; the system's by default.
    warnings : bool, default True
        Whether checks count that keep no row out of a batch: those of severity ``low``.

    Returns
    -------
    callable
        Takes a row (column name to bool, int, float, str or None; times as microseconds UTC) and returns the titles of
        the checks it fails. Checks that need other rows, a whole batch or other tables are left out, as are columns'
        types; the key of the table must not be null.

    Examples
    --------
    >>> from retrodict import Check
    >>> fails = row_checker(Table("sales", checks=[Check.between("amount", 0, 100), Check.not_null("shop")]))
    >>> fails({"amount": -1.0, "shop": None})
    ['between(amount, 0, 100)', 'not_null(shop)']
    """
    time = SystemClock() if clock is None else clock
    tests: list[tuple[str, Callable[[Mapping[str, Any]], Any]]] = []
    for check in table.checks:
        if not warnings and check.severity == "low":
            continue
        if check.rule == "not_in_future":
            tests.append((check.title, _not_in_future(check, time)))
        elif check.condition is not None:
            tests.append((check.title, check.condition.to_row()))
    tests += [(f"not_null({name})", _present(name)) for name in table.key]

    def failing(row: Mapping[str, Any]) -> list[str]:
        return [title for title, test in tests if test(row) is False]

    return failing


def _present(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: row[name] is not None


def _not_in_future(check: Any, clock: Clock) -> Callable[[Mapping[str, Any]], bool | None]:
    column, allowed = check.columns[0], parse_duration(check.option("allow"))
    about = None if check.filter is None else check.filter.to_row()

    def test(row: Mapping[str, Any]) -> bool | None:
        value = row[column]
        if value is None or (about is not None and about(row) is not True):
            return None
        return bool(value <= clock.now() + allowed)

    return test
