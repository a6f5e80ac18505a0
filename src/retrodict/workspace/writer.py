"""Definitions made in a notebook, written as the module they would be: Python that a person can read and go on with.

Everything after the definitions (a run's code, the server, the process that keeps features current, the command line)
reads a file, so that what decided can be shown and executed again. Pickled functions were rejected: nobody can review
them. What was written is loaded again and compared by content hash before it is used.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType, ModuleType
from typing import Any

from retrodict.core.definition import Definition
from retrodict.core.errors import DefinitionError, RefusedError
from retrodict.stores._locks import FileLock
from retrodict.workspace.definitions import Definitions, load_definitions

__all__ = ["MARK", "source_of", "write_definitions"]

MARK = '"""Written from a notebook by Project(definitions=[...]). Remove this line to keep your own edits."""'
_PLAIN = (str, int, float, bool, type(None))


def write_definitions(folder: Path, definitions: Sequence[Definition]) -> Definitions:
    """Write ``retrodict.toml`` where there is none, and ``definitions.py`` with these definitions.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    definitions : sequence of Definition

    Returns
    -------
    Definitions
        As they were loaded from what was written.

    Raises
    ------
    RefusedError
        If ``definitions.py`` was written by a person.
    DefinitionError
        If a definition cannot be written as source, such as a function whose source is gone.
    """
    target, settings = folder / "definitions.py", folder / "retrodict.toml"
    text = source_of(definitions)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "state" / "locks" / "definitions", where="definitions", timeout_s=60.0):
        if target.exists() and not target.read_text(encoding="utf-8").startswith(MARK):
            raise RefusedError(
                "definitions.py must be one that a notebook wrote", where=str(target), got="a file written by hand",
                remedy="Open the project without definitions=, or name another folder",
            )  # fmt: skip
        if not settings.exists():
            _replace(settings, f'[project]\nname = "{_project_name(folder)}"\n')
        loaded = _replace(target, text, check=lambda draft: _compare(definitions, draft))
    assert loaded is not None  # there is a check
    return loaded


def _replace(target: Path, text: str, *, check: Callable[[Path], Definitions] | None = None) -> Definitions | None:
    """Write a file whole or not at all, under another name first; a check of the draft may refuse it."""
    with TemporaryDirectory(prefix=".draft", dir=target.parent) as drafts:
        draft = Path(drafts) / target.name
        draft.write_text(text, encoding="utf-8")
        checked = check(draft) if check is not None else None
        draft.replace(target)
    return checked


def _project_name(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return name if name[:1].isalpha() else f"project_{name}".rstrip("_")


def _compare(definitions: Iterable[Definition], path: Path) -> Definitions:
    loaded = load_definitions(path)
    loaded.check()
    for definition in definitions:
        if loaded.get(type(definition), definition.name).version != definition.version:
            raise DefinitionError(
                "a definition of a notebook must mean the same as a module",
                where=f"{definition.kind} {definition.name}",
                got="another content hash",
                remedy="Write it into definitions.py by hand",
            )
    return loaded


def source_of(definitions: Sequence[Definition]) -> str:
    """Text of a module that defines the same.

    Examples
    --------
    >>> from retrodict import Entity
    >>> print(source_of([Entity("origin")]).splitlines()[-1])
    origin_entity = Entity(name='origin', keys=('origin',))
    """
    writer = _Writer()
    for definition in definitions:
        writer.add(definition)
    imports = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(writer.imports.items())]
    return "\n".join([MARK, "", *imports, *sorted(writer.modules), "", *writer.lines]) + "\n"


class _Writer:
    """Collects statements in the order in which they depend on each other."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = {}
        self.modules: set[str] = set()
        self.lines: list[str] = []
        self._variables: dict[tuple[str, str], str] = {}
        self._globals: set[str] = set()

    def add(self, definition: Definition) -> str:
        """Write a definition unless it stands already; return the name of its variable."""
        key = (definition.kind, definition.name)
        if key not in self._variables:
            function = getattr(definition, "function", None)
            if isinstance(function, FunctionType):
                self._add_function(function, f"{definition.kind} {definition.name}")
                self._variables[key] = function.__name__
            else:
                text = self._dataclass(definition)
                self._variables[key] = f"{definition.name}_{definition.kind}"
                self.lines.append(f"{self._variables[key]} = {text}")
        return self._variables[key]

    def _add_function(self, function: FunctionType, where: str) -> None:
        """Write a function from its source, after the helpers, modules and constants that it names."""
        if function.__code__.co_freevars:
            raise DefinitionError(
                "a function must not use names of a function around it",
                where=where,
                got=", ".join(function.__code__.co_freevars),
                remedy="Make them constants of the notebook, or parameters",
            )
        try:
            source = textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError) as error:
            raise DefinitionError(
                "the source of a function must be at hand", where=where, got=function.__name__,
                remedy="Define it in a cell or a file, not by exec",
            ) from error  # fmt: skip
        for name in _names(function, source):
            self._add_global(name, function.__globals__[name], function.__module__, where)
        self.lines += ["", "", *source.rstrip().splitlines(), "", ""]

    def _add_global(self, name: str, value: Any, home: str, where: str) -> None:
        if name in self._globals:
            return
        self._globals.add(name)
        module = getattr(value, "__module__", None)
        if isinstance(value, ModuleType):
            self.modules.add(f"import {value.__name__} as {name}")
        elif isinstance(value, FunctionType) and module == home:
            self._add_function(value, where)
        elif module and module != home and hasattr(value, "__qualname__"):
            self.modules.add(f"from {module} import {value.__qualname__.partition('.')[0]} as {name}")
        else:
            self.lines.append(f"{name} = {self._value(value, where)}")

    def _value(self, value: Any, where: str) -> str:
        if isinstance(value, Definition):
            return self.add(value)
        if is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value)
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self._value(k, where)}: {self._value(v, where)}" for k, v in value.items()) + "}"
        if isinstance(value, frozenset | set):
            items = ", ".join(sorted(self._value(item, where) for item in value))
            return f"{type(value).__name__}({f'{{{items}}}' if items else ''})"
        if isinstance(value, tuple | list):
            items = ", ".join(self._value(item, where) for item in value)
            return f"[{items}]" if isinstance(value, list) else f"({items}{',' if len(value) == 1 else ''})"
        raise DefinitionError(
            "a value of a definition must be plain data", where=where, got=type(value).__name__,
            remedy="Write text, numbers, lists and dicts",
        )  # fmt: skip

    def _dataclass(self, value: Any) -> str:
        kind = type(value)
        public = kind.__module__.startswith("retrodict.") and _is_noun(kind.__name__)
        self.imports.setdefault("retrodict" if public else kind.__module__, set()).add(kind.__name__)
        where = f"{kind.__name__} {getattr(value, 'name', '')}".strip()
        if hasattr(value, "written"):  # it takes other arguments than it has fields
            return str(value.written())
        arguments = [
            f"{f.name}={self._value(getattr(value, f.name), where)}"
            for f in fields(value)
            if f.init and (f.name == "name" or not _is_default(f, getattr(value, f.name)))
        ]
        return f"{kind.__name__}({', '.join(arguments)})"


def _is_noun(name: str) -> bool:
    return name in sys.modules["retrodict"].__all__  # the package itself: no room imports it


def _is_default(field: Any, value: Any) -> bool:
    if field.default is not MISSING:
        return bool(field.default == value and type(field.default) is type(value))
    return field.default_factory is not MISSING and bool(field.default_factory() == value)


def _names(function: FunctionType, source: str) -> list[str]:
    """Globals that a function, the functions inside it, its decorators, defaults and annotations name."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.FunctionDef)
    arguments = [*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs]
    defaults = [*tree.args.defaults, *(default for default in tree.args.kw_defaults if default)]
    outer = [*tree.decorator_list, *defaults, *(argument.annotation for argument in arguments if argument.annotation)]
    names |= {node.id for part in outer for node in ast.walk(part) if isinstance(node, ast.Name)}
    return sorted(names & function.__globals__.keys())
