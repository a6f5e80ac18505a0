"""A whole definition of a table, suggested from its rows: a module that runs as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodict.core.display import Block, Shown, Verbatim, count, plain
from retrodict.data.definitions import Table
from retrodict.data.profiling.code import as_python
from retrodict.data.profiling.suggest import Suggestion, suggest_table

__all__ = ["SuggestedTable", "suggest_definition"]


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
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(definition, encoding="utf-8")
    return SuggestedTable(facts.name, facts.rows, suggestions, types, definition, output)
