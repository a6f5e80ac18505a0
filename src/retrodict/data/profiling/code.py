"""Writes a table's definition as Python that a person pastes into a definitions module, and that means the same.

Arguments are taken from the signature of each check's class method, so a rule that is added later is written too. The
text is read back before it is returned, since a definition that looks right and means another is the worst case.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from retrodict.core.errors import InternalError
from retrodict.data.checks import Check
from retrodict.data.definitions import Table
from retrodict.data.profiling._candidates import Suggestion

__all__ = ["as_python"]

_WIDTH = 112
_COMMON = ("severity", "tolerance", "where", "by")
_COLUMN = ("column", "left", "right", "x", "y", "total")
_MANY = {"references": None, "disjoint": None, "sum_equals": -1, "determines": -1}
"""Rules whose first argument is a list of columns; -1 where the last column is an argument of its own."""


def as_python(
    table_name: str,
    checks: Iterable[Check | Suggestion],
    columns: Mapping[str, str] | None = None,
    key: str | Sequence[str] | None = None,
) -> str:
    """Return a definition of a table as Python.

    Parameters
    ----------
    table_name : str
    checks : iterable of Check or Suggestion
        Reasons of suggestions become comments.
    columns : mapping of str to str, optional
        Declared types.
    key : str or sequence of str, optional
        None: the columns of the first ``primary_key`` among the checks, which is then left out since the key implies
        it.

    Returns
    -------
    str
        Lines that define a variable of the table's name; ``Check`` and ``Table`` come from ``retrodict``.

    Examples
    --------
    >>> print(as_python("sales", [Check.between("amount", 0, None)], {"amount": "float"}, key="id"))
    sales = Table(
        "sales",
        key="id",
        columns={"amount": "float"},
        checks=[
            Check.between("amount", 0, None),
        ],
    )
    """
    suggestions = [check if isinstance(check, Suggestion) else Suggestion(check, "") for check in checks]
    if key is None:
        first = next((s for s in suggestions if s.check.rule == "primary_key"), None)
        key = first.check.columns if first is not None else ()
        suggestions = [s for s in suggestions if s is not first]
    names = (key,) if isinstance(key, str) else tuple(key)
    arguments = [_literal(table_name)]
    if names:
        arguments.append(f"key={_literal(names[0] if len(names) == 1 else names)}")
    if columns:
        arguments.append(_bracketed("columns={", [f"{_literal(c)}: {_literal(t)}" for c, t in columns.items()], "}"))
    if suggestions:
        lines = (line for suggestion in suggestions for line in _check_lines(suggestion))
        arguments.append("checks=[\n" + "\n".join(f"    {line}" for line in lines) + "\n]")
    body = "".join(textwrap.indent(argument, "    ") + ",\n" for argument in arguments)
    text = f"{table_name} = Table(\n{body})"
    expected = Table(table_name, key=names, columns=columns or {}, checks=[s.check for s in suggestions])
    scope: dict[str, Any] = {"Check": Check, "Table": Table}
    exec(compile(text, "definition", "exec"), scope)  # noqa: S102  # text of this module, every value a literal
    if scope[table_name] != expected:
        raise InternalError(
            "a definition must read back as it was written", where=f"table {table_name}",
            got="another definition", remedy="Report it with the kinds of its checks",
        )  # fmt: skip
    return text


def _check_lines(suggestion: Suggestion) -> Iterator[str]:
    reason, check = " ".join(suggestion.reason.split()), suggestion.check
    yield from (f"# {line}" for line in textwrap.wrap(reason, _WIDTH - 10))
    arguments = [*_arguments(check)]
    line = f"Check.{check.rule}({', '.join(name + _literal(value) for name, value in arguments)}),"
    if len(line) + 8 <= _WIDTH:
        yield line
        return
    yield f"Check.{check.rule}("
    for name, value in arguments:
        several = isinstance(value, list | tuple)
        text = _bracketed(f"{name}[", list(map(_literal, value)), "]") if several else name + _literal(value)
        yield from textwrap.indent(f"{text},", "    ").splitlines()
    yield "),"


def _arguments(check: Check) -> Iterator[tuple[str, Any]]:
    """Arguments of the class method: what stands before the value, and the value."""
    options, columns = dict(check.options), list(check.columns)
    for name, parameter in inspect.signature(getattr(Check, check.rule)).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from (("", column) for column in columns)
            continue
        value = _value_of(check, name, options, columns)
        if value is not parameter.empty and (value != parameter.default or name in ("low", "high")):
            yield f"{name}=" if parameter.kind is parameter.KEYWORD_ONLY else "", value
    plain = Check("row_count")
    yield from ((f"{name}=", getattr(check, name)) for name in _COMMON if getattr(check, name) != getattr(plain, name))


def _value_of(check: Check, name: str, options: dict[str, Any], columns: list[str]) -> Any:
    """Value of an argument of a class method; ``inspect.Parameter.empty`` if the check has none."""
    if check.rule == "monotone" and name == "per":
        return columns or inspect.Parameter.empty
    if name in options:
        return options[name]
    if check.rule in _MANY and name in ("columns", "parts"):
        names = columns[: _MANY[check.rule]]
        del columns[: len(names)]
        return names[0] if len(names) == 1 else names
    if name in _COLUMN and columns:
        return columns.pop(0)
    return None if name in ("low", "high", "earliest", "latest") else inspect.Parameter.empty


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, str) and value.isprintable() and "\\" not in value:
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _bracketed(begin: str, entries: Sequence[str], end: str) -> str:
    line = f"{begin}{', '.join(entries)}{end}"
    return line if len(line) + 12 < _WIDTH else "\n".join([begin, *(f"    {entry}," for entry in entries), end])
