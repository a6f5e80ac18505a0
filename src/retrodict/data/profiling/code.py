"""Writes a table's definition as Python that a person pastes into a definitions module, and that means the same.

Arguments are taken from the signature of each check's class method, so a rule that is added later is written too; what
was written is read back before it is returned, since a definition that looks right and means another is the worst case.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrodict.core.errors import InternalError
from retrodict.data.checks import Check
from retrodict.data.definitions import Table
from retrodict.data.profiling.suggest import Suggestion

__all__ = ["as_python", "check_python"]

_WIDTH = 112
_HOW = ("severity", "tolerance", "where", "by")


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
    given = [each if isinstance(each, Suggestion) else Suggestion(each, "") for each in checks]
    if key is None:
        first = next((each for each in given if each.check.rule == "primary_key"), None)
        key = first.check.columns if first is not None else ()
        given = [each for each in given if each is not first]
    names = (key,) if isinstance(key, str) else tuple(key)
    lines = [f"{table_name} = Table(", f"    {_text(table_name)},"]
    if names:
        lines.append(f"    key={_text(names[0]) if len(names) == 1 else _list(names)},")
    if columns:
        lines += _columns(columns)
    if given:
        lines.append("    checks=[")
        for each in given:
            if each.reason:
                lines += _comment(each.reason)
            lines += check_python(each.check)
        lines.append("    ],")
    text = "\n".join([*lines, ")"])
    _read_back(text, table_name, Table(table_name, key=names, columns=columns or {}, checks=[e.check for e in given]))
    return text


def check_python(check: Check, *, indent: int = 8) -> list[str]:
    """Lines of one check, with a comma at the end."""
    options = dict(check.options)
    arguments: list[str] = []
    method = getattr(Check, check.rule)
    left = list(check.columns)
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            arguments += [_value(column) for column in left]
            continue
        value, said = _argument(check, name, options, left)
        if not said or (value == parameter.default and parameter.default is not parameter.empty and not _needed(name)):
            continue
        positional = parameter.kind is not parameter.KEYWORD_ONLY
        arguments.append(_value(value) if positional else f"{name}={_value(value)}")
    base = Check("row_count")
    arguments += [
        f"{name}={_value(list(v) if isinstance(v := getattr(check, name), tuple) else v)}"
        for name in _HOW if getattr(check, name) != getattr(base, name)
    ]  # fmt: skip
    space = " " * indent
    line = f"{space}Check.{check.rule}({', '.join(arguments)}),"
    if len(line) <= _WIDTH:
        return [line]
    body = [part for argument in arguments for part in _folded(argument, indent + 4)]
    return [f"{space}Check.{check.rule}(", *body, f"{space}),"]


def _argument(check: Check, name: str, options: dict[str, Any], left: list[str]) -> tuple[Any, bool]:
    """Value of an argument of a class method, and whether it is known."""
    rule = check.rule
    if rule == "monotone" and name == "per":
        return list(left) or None, bool(left)
    if name in options:
        return options[name], True
    if rule in ("references", "disjoint", "sum_equals", "determines") and name in ("columns", "parts"):
        many = list(left) if rule in ("references", "disjoint") else left[:-1]
        del left[: len(many)]
        return (many[0] if len(many) == 1 else many), True
    if name in ("column", "left", "right", "x", "y", "total") and left:
        return left.pop(0), True
    return None, name in ("low", "high", "earliest", "latest")


def _needed(name: str) -> bool:
    return name in ("low", "high")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return _list(value)
    return repr(value)


def _text(value: str) -> str:
    import json

    return json.dumps(value, ensure_ascii=False) if value.isprintable() and "\\" not in value else repr(value)


def _list(values: Iterable[Any]) -> str:
    return f"[{', '.join(map(_value, values))}]"


def _columns(columns: Mapping[str, str]) -> list[str]:
    pairs = [f"{_text(name)}: {_text(kind)}" for name, kind in columns.items()]
    line = f"    columns={{{', '.join(pairs)}}},"
    return [line] if len(line) <= _WIDTH else ["    columns={", *(f"        {pair}," for pair in pairs), "    },"]


def _comment(text: str) -> list[str]:
    import textwrap

    plain = " ".join(text.split())
    return [f"        # {line}" for line in textwrap.wrap(plain, _WIDTH - 10)]


def _folded(argument: str, indent: int) -> list[str]:
    space = " " * indent
    if len(argument) + indent < _WIDTH or not argument.endswith("]") or "[" not in argument:
        return [f"{space}{argument},"]
    import ast

    start = argument.index("[")
    items = [_value(item) for item in ast.literal_eval(argument[start:])]
    return [f"{space}{argument[:start]}[", *(f"{space}    {item}," for item in items), f"{space}],"]


def _read_back(text: str, name: str, meant: Table) -> None:
    scope: dict[str, Any] = {"Check": Check, "Table": Table}
    exec(compile(text, "definition", "exec"), scope)  # noqa: S102  # our own text, every value of it a literal
    if scope[name] != meant:
        raise InternalError("a definition reads back as what was written", where=f"table {name}")
