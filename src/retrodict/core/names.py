"""The names that definitions use, and whether something has them.

Each definition says which names it uses (``Definition.uses``); one function asks of all of them what is known by
then: the names of tables when definitions are loaded, their columns once they hold rows.
A check of its own in every place that uses a name was rejected: the names nobody thought of stayed silent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

from retrodict.core.errors import DefinitionError, near

if TYPE_CHECKING:
    from retrodict.core.definition import Definition

__all__ = ["NameUse", "find_faults", "parts_of"]

Tables = Mapping[str, Collection[str] | None]


@dataclass(frozen=True, slots=True)
class NameUse:
    """A name that a definition uses.

    Attributes
    ----------
    what : str
        Noun of what is named: ``"column"``, ``"metric"``.
    name : str
    rule : str
        What must hold, for the error.
    where : str
        Definition and field that use it.
    table : str, optional
        Whose column it is.
    names : collection of str, optional
        The names there are. None: those of the columns of ``table``, or without one the names of the tables.
    """

    what: str
    name: str
    rule: str
    where: str
    table: str | None = None
    names: Collection[str] | None = None

    def fault(self, tables: Tables) -> DefinitionError | None:
        """Error with the near names if nothing has the name; None if something has it, or that is not known yet."""
        names = self.names
        if names is None:
            names = tables if self.table is None else tables.get(self.table)
        if names is None or self.name in names:
            return None
        remedy = near(self.name, names, what=self.what)
        return DefinitionError(self.rule, where=self.where, got=self.name, remedy=remedy)


def parts_of(definition: Definition) -> Iterator[Definition]:
    """A definition and every one that it is made of."""
    from retrodict.core.definition import Definition

    values: list[object] = [definition]
    while values:
        value = values.pop(0)
        if isinstance(value, Definition):
            yield value
        if isinstance(value, list | tuple):
            values += value
        elif is_dataclass(value):
            values += [getattr(value, field.name) for field in fields(value)]


def find_faults(definitions: Iterable[Definition], tables: Tables) -> list[DefinitionError]:
    """What cannot hold of definitions and their parts, each once.

    Parameters
    ----------
    definitions : iterable of Definition
    tables : mapping of str to collection of str or None
        Columns of every table by name; None where they are not known yet.
    """
    faults: dict[str, DefinitionError] = {}
    for definition in definitions:
        for part in parts_of(definition):
            faults |= {str(fault): fault for fault in _faults(part, tables)}
    return list(faults.values())


def _faults(definition: Definition, tables: Tables) -> Iterator[DefinitionError]:
    try:
        definition.check()
        for use in definition.uses():
            fault = use.fault(tables)
            if fault is not None:
                yield fault
    except DefinitionError as error:
        yield error
