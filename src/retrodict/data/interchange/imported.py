"""What an import or an export came to: what could be said in the other language, and what could not, with the reason.

Nothing is dropped in silence: whatever has no counterpart, or one that means a little less, is an :class:`Unmapped`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from retrodict.core.errors import RetrodictError
from retrodict.data.checks import Check
from retrodict.data.definitions import Table

__all__ = ["Collected", "Exported", "Imported", "Refused", "Unmapped"]


@dataclass(frozen=True, slots=True)
class Unmapped:
    """Something that has no counterpart.

    Attributes
    ----------
    name : str
        What it is called where it comes from, with its column, like ``"str_matches(sku)"``.
    reason : str
        Why, in plain words, and what to do instead where there is something.
    partly : bool, default False
        True if a counterpart was written all the same and ``reason`` says what it leaves out.
    """

    name: str
    reason: str
    partly: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """Checks and columns read from another tool.

    Attributes
    ----------
    checks : tuple of Check
        In the order of the source.
    columns : mapping of str to str
        Declared types, as :class:`~retrodict.Table` takes them.
    key : tuple of str
        Columns that the source says are never null and together never repeat; empty if it says so of none or of
        several. A candidate only: the checks hold without it, and ``table`` does not use it by itself, because a key
        also forbids what is in the table already.
    unmapped : tuple of Unmapped
    """

    checks: tuple[Check, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    unmapped: tuple[Unmapped, ...] = ()

    def table(self, name: str, *, key: tuple[str, ...] | list[str] | str = ()) -> Table:
        """Return a table with these columns and checks.

        Parameters
        ----------
        name : str
        key : str or list of str, optional
        """
        return Table(name, key=key, columns=self.columns, checks=self.checks)


class Exported(NamedTuple):
    """A definition in the words of another tool.

    Attributes
    ----------
    schema : object
        What the other tool takes.
    unmapped : tuple of Unmapped
    """

    schema: Any
    unmapped: tuple[Unmapped, ...]


class Refused(Exception):
    """Something has no counterpart; the text is the reason."""


def text_of(source: str | Path) -> str:
    """A text that is no name of a file as it is, or what stands in the file."""
    inline = isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{"))
    return str(source) if inline else Path(source).read_text(encoding="utf-8")


@dataclass(slots=True)
class Collected:
    """What was found so far."""

    checks: list[Check] = field(default_factory=list)
    unmapped: list[Unmapped] = field(default_factory=list)

    def partly(self, name: str, reason: str) -> None:
        """Note what a counterpart leaves out."""
        self.unmapped.append(Unmapped(name, reason, partly=True))

    def refused(self, name: str, reason: str) -> None:
        """Note what has no counterpart."""
        self.unmapped.append(Unmapped(name, reason))

    def add(self, name: str, make: Callable[[], list[Check]]) -> bool:
        """Add what ``make`` returns, or note why it cannot be said; whether it was added."""
        try:
            self.checks += make()
        except Refused as why:
            self.refused(name, str(why))
        except RetrodictError as error:  # our own definitions refuse it: a pattern, a mixed set, a long expression
            place = error.where.rpartition(", ")[2] if error.where and ", " in error.where else ""
            self.refused(name, f"{error.rule} ({place})" if place else error.rule)
        else:
            return True
        return False
