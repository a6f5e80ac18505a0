"""Checks suggested from data: all hold on the data they came from, with bounds that leave room for the next batch.

A suggestion is a start for a person to edit, so it carries one line of reason and the numbers behind it. Where there
are rows, every check is judged on them by the same engine that will judge later batches; one that does not pass is
dropped, whatever the profile says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodict.core.clock import SystemClock
from retrodict.core.display import Block, Shown, Verbatim, count, plain
from retrodict.core.files import write_text
from retrodict.data.context import Context
from retrodict.data.definitions import Table
from retrodict.data.profiling._candidates import Suggestion, candidates
from retrodict.data.profiling._rows import ProfiledRows, open_rows
from retrodict.data.profiling._tally import TYPES
from retrodict.data.profiling.code import as_python
from retrodict.data.profiling.profile import Profile
from retrodict.data.profiling.profiler import profile_rows
from retrodict.data.validation import check_batch

__all__ = ["SuggestedTable", "Suggestion", "suggest", "suggest_definition", "suggest_table", "suggested_types"]


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
    >>> [suggestion.check.title for suggestion in suggest(rows)][:3]
    ['primary_key(id)', 'row_count(50, 200)', 'not_null(origin)']
    """
    return suggest_table(source, now=now)[1]


def suggest_table(source: Any, *, now: int | None = None) -> tuple[Profile, list[Suggestion], dict[str, str]]:
    """Profile of a source, suggested checks, and declared types that go with them."""
    moment = SystemClock().now() if now is None else now
    if isinstance(source, Profile):
        exact = [suggestion for suggestion in _candidates(source, moment) if not suggestion.evidence.get("sampled")]
        return source, exact, suggested_types(source)
    with open_rows(source) as rows:
        profile = profile_rows(rows)
        return profile, *_passing(rows, _candidates(profile, moment), moment)


def suggested_types(profile: Profile) -> dict[str, str]:
    """Types to declare; columns of other types of Arrow are left to arrive as they do."""
    zoneless = dict.fromkeys(profile.zoneless, "time(UTC)")
    return {column.name: column.type for column in profile.columns if column.type in TYPES} | zoneless


def _candidates(profile: Profile, now: int) -> list[Suggestion]:
    """Candidates with distinct titles, so that a result is found by its title."""
    return list({suggestion.check.title: suggestion for suggestion in candidates(profile, now)}.values())


def _passing(rows: ProfiledRows, suggestions: list[Suggestion], now: int) -> tuple[list[Suggestion], dict[str, str]]:
    """Suggestions that pass on the rows they came from, and the types that all values have."""
    types = dict(rows.types)
    while True:
        table = Table("suggested", columns=types, checks=[suggestion.check for suggestion in suggestions])
        checked = check_batch(rows.batch, table, context=Context(now), staging=rows.staging, positions=False)
        failed = {name for r in checked.results if r.rule == "type" and r.failed for name in r.columns} & types.keys()
        if not failed:
            break
        # Whole numbers beyond 64 bits with a sign, for one: such a column keeps the type it arrives with.
        types = {name: kind for name, kind in types.items() if name not in failed}
        suggestions = [suggestion for suggestion in suggestions if not failed & set(suggestion.check.columns)]
    status = {result.check: result.status for result in checked.results}
    passing = {"versions": ("pass", "not_evaluable"), "reference": ("pass", "not_evaluable")}
    return [s for s in suggestions if status.get(s.check.title) in passing.get(s.check.scope, ("pass",))], types


@dataclass(frozen=True, slots=True, repr=False)
class SuggestedTable(Shown):
    """A table's definition with suggested checks.

    Attributes
    ----------
    table : str
    rows : int
        Rows that every check was judged on.
    suggestions : sequence of Suggestion
    columns : mapping of str to str
        Declared types.
    definition : str
        A module that runs.

    Examples
    --------
    >>> print(project.data.suggest("flights.csv.gz").definition)  # doctest: +SKIP
    """

    table: str
    rows: int
    suggestions: Sequence[Suggestion]
    columns: Mapping[str, str]
    definition: str
    output: str | Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {"table": self.table, "rows": self.rows, "columns": dict(self.columns),
                "suggestions": plain(self.suggestions), "python": self.definition}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """The module, or where it was written."""
        if self.output is None:
            return [Verbatim(self.definition.rstrip("\n"))]
        return [f"{count(len(self.suggestions))} checks suggested from {count(self.rows)} rows, in {self.output}"]


def suggest_definition(source: Any, *, output: str | Path | None = None) -> SuggestedTable:
    """Suggest a table's definition.

    Parameters
    ----------
    source : as for :func:`~retrodict.data.profiling.profile`
        A table of a workspace keeps the key that its definition has.
    output : path, optional
        File to write it to.
    """
    facts, suggestions, types = suggest_table(source)
    key: Sequence[str] | None = None
    if isinstance(source, tuple):
        key = next((t.key for t in source[0].definitions.of(Table) if t.name == facts.name and t.key), None)
    if key:
        suggestions = [suggestion for suggestion in suggestions if suggestion.check.rule != "primary_key"]
    definition = f"from retrodict import Check, Table\n\n{as_python(facts.name, suggestions, types, key)}\n"
    if output is not None:
        write_text(output, definition)
    return SuggestedTable(facts.name, facts.rows, suggestions, types, definition, output)
