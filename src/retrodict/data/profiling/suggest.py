"""Checks suggested from data: all hold on the data they came from, with bounds that leave room for the next batch.

A suggestion is a start for a person to edit, so each carries one line of reason and the numbers behind it. Whoever
passes rows gets every check judged on them by the same engine that will judge later batches; one that does not pass is
dropped, whatever the profile said.
"""

from __future__ import annotations

from typing import Any

from retrodict.core.clock import SystemClock
from retrodict.data.context import EmptyContext
from retrodict.data.definitions import Table
from retrodict.data.profiling._candidates import TYPES, Suggestion, candidates
from retrodict.data.profiling._rows import Opened, open_rows
from retrodict.data.profiling.profile import Profile
from retrodict.data.profiling.profiler import profile_opened
from retrodict.data.validation import check_batch

__all__ = ["Suggestion", "suggest", "suggest_table", "suggested_types"]


def suggest(source: Any, *, now: int | None = None) -> list[Suggestion]:
    """Suggest checks for a table.

    Parameters
    ----------
    source : Profile, or what :func:`~retrodict.data.profiling.profile` takes
        With rows every suggestion is judged on them, and dropped unless it passes or cannot be judged from one batch
        alone (``drift`` needs an earlier version). With a profile only what was counted over all rows is suggested.
    now : int, optional
        Moment that times are compared with, microseconds UTC; by default the present.

    Returns
    -------
    list of Suggestion
        Keys first, then checks of columns in their order, then of columns together.

    Raises
    ------
    InputError
        If the source cannot be read.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"id": range(100), "origin": ["JFK", "EWR"] * 50})
    >>> [each.check.title for each in suggest(rows)][:3]
    ['primary_key(id)', 'row_count(50, 200)', 'not_null(origin)']
    """
    return suggest_table(source, now=now)[1]


def suggest_table(source: Any, *, now: int | None = None) -> tuple[Profile, list[Suggestion], dict[str, str]]:
    """Profile of a source, suggested checks, and declared types that go with them."""
    moment = SystemClock().now() if now is None else now
    if isinstance(source, Profile):
        found = _once([*candidates(source, moment)])
        exact = [each for each in found if not each.evidence.get("sampled")]
        return source, exact, suggested_types(source)
    with open_rows(source) as opened:
        known = profile_opened(opened)
        return known, *_holding(opened, _once([*candidates(known, moment)]), moment)


def suggested_types(profile: Profile) -> dict[str, str]:
    """Types to declare; columns of other types of Arrow are left to arrive as they do."""
    zoneless = dict.fromkeys(profile.zoneless, "time(UTC)")
    return {column.name: column.type for column in profile.columns if column.type in TYPES} | zoneless


def _holding(opened: Opened, found: list[Suggestion], now: int) -> tuple[list[Suggestion], dict[str, str]]:
    """What passes on the rows it came from, and the types that all values have."""
    types = dict(opened.types)
    while True:
        table = Table("suggested", columns=types, checks=[each.check for each in found])
        judged = check_batch(opened.batch, table, context=EmptyContext(now), staging=opened.staging, positions=False)
        spoiled = {name for r in judged.results if r.rule == "type" and r.failed for name in r.columns} & types.keys()
        if not spoiled:
            break
        # Whole numbers beyond 64 bits with a sign, for one: such a column keeps the type it arrives with.
        types = {name: kind for name, kind in types.items() if name not in spoiled}
        found = [each for each in found if not spoiled & set(each.check.columns)]
    # Suggested titles are distinct, so a result is found by its title.
    status = {result.check: result.status for result in judged.results}
    passing = {"versions": ("pass", "not_evaluable"), "reference": ("pass", "not_evaluable")}
    kept = [each for each in found if status.get(each.check.title) in passing.get(each.check.scope, ("pass",))]
    return kept, types


def _once(found: list[Suggestion]) -> list[Suggestion]:
    return list({each.check.title: each for each in found}.values())
