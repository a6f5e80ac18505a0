"""Checks of other tools out of a file, whichever tool wrote it, as a definition to paste."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrodict.core.display import Block, Shown, Verbatim, plain
from retrodict.core.errors import InputError
from retrodict.data.interchange.great_expectations import from_great_expectations
from retrodict.data.interchange.imported import Imported
from retrodict.data.interchange.pandera import from_pandera
from retrodict.data.profiling.code import as_python

__all__ = ["ImportedTable", "read_checks"]

Format = Literal["great-expectations", "pandera"]


@dataclass(frozen=True, slots=True, repr=False)
class ImportedTable(Shown):
    """A table as another tool defines it.

    Attributes
    ----------
    table : str
    format : str
        What wrote it: ``great-expectations`` or ``pandera``.
    imported : Imported
        Checks, columns, a candidate for the key, and what has no counterpart.
    definition : str
        Lines to paste.

    Examples
    --------
    >>> project.data.import_checks("suite.json").imported.unmapped  # doctest: +SKIP
    ()
    """

    table: str
    format: str
    imported: Imported
    definition: str

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {
            "table": self.table, "format": self.format, "checks": [check.title for check in self.imported.checks],
            "columns": dict(self.imported.columns), "key": list(self.imported.key),
            "unmapped": plain(self.imported.unmapped), "definition": self.definition,
        }  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """The module."""
        return [Verbatim(f"from retrodict import Check, Table\n\n{self.definition}")]

    def remarks(self) -> list[str]:
        """What has no counterpart and why, one line each, below a line of counts."""
        unmapped, key = self.imported.unmapped, self.imported.key
        partly = sum(entry.partly for entry in unmapped)
        counts = f"{len(self.imported.checks)} checks; {len(unmapped) - partly} not mapped, {partly} only in part"
        reasons = [f"{'in part' if e.partly else 'not mapped'}: {e.name}: {e.reason}" for e in unmapped]
        return [counts, *([f"May serve as the key: {', '.join(key)}"] if key else []), *reasons]


def read_checks(path: Path, *, format: Format | None = None, table: str | None = None) -> ImportedTable:  # noqa: A002
    """Read a suite of Great Expectations or a schema of Pandera.

    Parameters
    ----------
    path : path
        JSON or YAML.
    format : {"great-expectations", "pandera"}, optional
        What wrote it; by default seen from the file.
    table : str, optional
        Name of the table; by default that of the file.

    Raises
    ------
    InputError
        If the file cannot be read, or is neither.
    """
    kind = format or _format_of(path)
    imported = from_pandera(path) if kind == "pandera" else from_great_expectations(path)
    name = table or re.sub(r"\W+", "_", path.stem.split(".")[0].lower()).strip("_") or "imported"
    return ImportedTable(name, kind, imported, as_python(name, imported.checks, imported.columns, key=()))


def _format_of(path: Path) -> Format:
    """Suites have expectations; whatever has none is read as a schema, whose reader says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "the file must exist and hold UTF-8 text", where=str(path), got=type(error).__name__,
            remedy="Name a JSON or YAML file",
        ) from error  # fmt: skip
    return "great-expectations" if text.lstrip().startswith("{") and '"expectations"' in text else "pandera"
