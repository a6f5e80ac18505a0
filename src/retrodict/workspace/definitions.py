"""Loads a definitions module and holds what it defines, by kind and name.

The module is ordinary Python in the project's folder and may import its neighbours there. It is loaded from its source
under a name made from its content, and neighbours are forgotten afterwards, so that two versions of the same
definitions can be alive in one process (a replay beside the present ones).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import linecache
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar
from zipimport import zipimporter

from retrodict.core.definition import Definition
from retrodict.core.errors import (
    ConfigurationError,
    DefinitionError,
    RetrodictError,
    check_known,
    check_text,
    is_interrupt,
    near,
)
from retrodict.core.identity import digest, short
from retrodict.core.names import find_faults
from retrodict.stores._durable import open_file

__all__ = ["Definitions", "load_definitions"]

D = TypeVar("D", bound=Definition)

SKIPPED = {"__pycache__", ".venv", "venv", "state", "build", "dist", "node_modules"}
"""Folders of a project whose Python files are none of its code, beside those that begin with a dot."""

_LOADING = threading.RLock()


class Definitions:
    """The definitions of a project: immutable, looked up by class and name.

    Attributes
    ----------
    source : str
        Text of the module, so that a run can keep it.
    files : frozenset of str
        Files of the folder that it imported.

    Parameters
    ----------
    found : list of Definition
    source : str, optional
    places : mapping of int to str, optional
        File and line by the ``id`` of a definition, for errors.
    files : iterable of str, optional

    Raises
    ------
    DefinitionError
        If two different definitions have one kind and name.
    """

    def __init__(
        self,
        definitions: list[Definition],
        source: str = "",
        *,
        places: Mapping[int, str] | None = None,
        files: Iterable[str] = (),
    ) -> None:
        self.source = source
        self.files = frozenset(files)
        self._by_key: dict[tuple[str, str], Definition] = {}
        self._places = places or {}
        for definition in definitions:
            earlier = self._by_key.setdefault((definition.kind, definition.name), definition)
            if earlier != definition:
                name = f"{definition.kind}:{definition.name}"
                lines = [place for one in (earlier, definition) if (place := self._places.get(id(one)))]
                raise DefinitionError(
                    "one kind and name must be one definition",
                    where=f"{' and '.join(lines)}, {name}" if lines else name,
                    remedy="Rename one of the two",
                    got="two",
                )

    def of(self, kind: type[D]) -> list[D]:
        """All definitions of a class, by name."""
        return [d for _, d in sorted(self._by_key.items(), key=lambda item: item[0]) if isinstance(d, kind)]

    def get(self, kind: type[D], name: str) -> D:
        """Definition of a class by name; NotFoundError names the nearest ones."""
        by_name = {d.name: d for d in self.of(kind)}
        rule = f"the project must define this {kind.kind}"
        check_text(name, where=f"name of a {kind.kind}")
        return by_name[check_known(name, by_name, rule, where="definitions", what=kind.kind)]

    def check(self) -> None:
        """Refuse names that nothing has, and conditions that nothing meets, as far as no data is needed to tell.

        Raises
        ------
        DefinitionError
            The first one, with its line and the near names, and how many more there are.
        """
        tables: dict[str, None] = dict.fromkeys(d.name for d in self if d.kind == "table")
        faults = [*self._disagreements(), *((d, fault) for d in self for fault in find_faults([d], tables))]
        if not faults:
            return
        (definition, fault), others = faults[0], {str(fault) for _, fault in faults[1:]} - {str(faults[0][1])}
        place = self._places.get(id(definition))
        more = f" ({len(others)} more like this)" if others else ""
        fault.args = (f"{place}: {fault}{more}" if place else f"{fault}{more}",)
        raise fault

    def _disagreements(self) -> Iterator[tuple[Definition, DefinitionError]]:
        first: dict[str, tuple[Definition, object]] = {}
        for one in self:
            shared = one.agreement()
            if shared is not None:
                other, value = first.setdefault(shared[0], (one, shared[1]))
                if value != shared[1]:
                    yield one, DefinitionError(f"{shared[0]} must be the same for all", where=f"{one.kind} {one.name}",
                                               got=f"{shared[1]} beside {value} of {other.name}",
                                               remedy="Write the same in both, or part them")  # fmt: skip

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)


def load_definitions(path: Path) -> Definitions:
    """Run a definitions module and collect what it defines.

    Raises
    ------
    ConfigurationError
        If the file is missing.
    DefinitionError
        If it cannot be run; the message names the line.
    """
    source = _read(path)
    module, files = _run(path, source)
    lines = _assignments(source)
    definitions: dict[int, Definition] = {}
    places: dict[int, str] = {}
    for name, value in vars(module).items():
        for definition in value if isinstance(value, list | tuple) else [value]:
            if isinstance(definition, Definition):
                definitions[id(definition)] = definition
                places.setdefault(id(definition), f"{path.name}:{lines.get(name, 1)}")
    return Definitions(list(definitions.values()), source, places=places, files=files)


def _read(path: Path) -> str:
    where = "retrodict.toml, key 'project.definitions'"
    try:
        with os.fdopen(open_file(path), encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise ConfigurationError(
            "the definitions module must exist",
            where=where,
            got=path.name,
            remedy="Create the file or correct the key",
        ) from error
    except UnicodeDecodeError as error:
        raise DefinitionError(
            "the definitions module must be UTF-8", where=path.name, got=error.reason, remedy="Save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            "the definitions module must be readable", where=where, got=error.strerror, remedy="Check what it is"
        ) from error


def _assignments(source: str) -> dict[str, int]:
    """Line of the last assignment or import of each name at the top level."""
    lines: dict[str, int] = {}
    for node in ast.parse(source).body:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                lines[part.id] = node.lineno
            elif isinstance(part, ast.alias):
                lines[part.asname or part.name] = node.lineno
            elif isinstance(part, ast.FunctionDef):
                lines[part.name] = part.lineno
    return lines


def _run(path: Path, source: str) -> tuple[ModuleType, set[str]]:
    name = f"_retrodict_definitions_{short(digest(source.encode()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:  # a file without .py
        raise ConfigurationError(
            "the definitions module must be a Python file",
            where="retrodict.toml, key 'project.definitions'",
            got=path.name,
            remedy="Name a file that ends in .py",
        )
    module = importlib.util.module_from_spec(spec)
    # inspect.getsource of a @derived function reads through linecache: it must see this text, not a later edit.
    linecache.cache[str(path)] = (len(source), None, source.splitlines(keepends=True), str(path))
    try:
        with _neighbours(path.parent, name, module) as files:
            exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102  # running the user's own module is the point
    except RetrodictError as error:
        error.args = (f"{_line_in(path, error)}: {error}",)
        raise
    except BaseException as error:
        if is_interrupt(error):
            raise
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise DefinitionError(
            f"the module must run without an error ({type(error).__name__}: {message})",
            where=_line_in(path, error),
            got=type(error).__name__,
            remedy=_near_name(error, vars(module)) or "Correct the line",
        ) from error
    return module, files


def _near_name(error: BaseException, names: Mapping[str, object]) -> str | None:
    """Near names for a keyword, attribute, name or import that does not exist, by what Python's own error holds."""
    missing = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    if missing is not None and missing[2] in sys.modules:
        return near(missing[1], getattr(sys.modules[missing[2]], "__all__", dir(sys.modules[missing[2]])))
    if isinstance(error, AttributeError) and error.name:
        return near(error.name, [name for name in dir(error.obj) if not name.startswith("_")], what="attribute")
    if isinstance(error, NameError) and error.name:
        return near(error.name, [name for name in names if not name.startswith("_")])
    match = re.match(r"(\w+)\.(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if not isinstance(error, TypeError) or match is None:
        return None
    owner, method, keyword = match.groups()
    for value in names.values():
        holder = value if isinstance(value, type) else type(value)
        if holder.__name__ == owner:
            return near(keyword, list(inspect.signature(getattr(holder, method)).parameters)[1:], what="keyword")
    return None


@contextmanager
def _neighbours(folder: Path, name: str, module: ModuleType) -> Iterator[set[str]]:
    """Let the module import its neighbours, those of this folder alone; forget them afterwards, but their files."""
    with _LOADING:
        importlib.invalidate_caches()
        hook = _source_hook(folder)
        sys.path_hooks.insert(0, hook)
        _forget_finders(folder)
        hidden = _take_out(folder)
        sys.modules[name] = module
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a stale .pyc would be another version
        paths = list(sys.path)
        sys.path.insert(0, str(folder))
        files: set[str] = set()
        try:
            yield files
        finally:
            files |= {
                file for neighbour in _take_out(folder).values() if (file := getattr(neighbour, "__file__", None))
            }
            sys.modules.pop(name, None)
            sys.path.remove(str(folder))
            sys.path[:] = [path for path in sys.path if path in paths or not Path(path).is_relative_to(folder)]
            sys.path_hooks.remove(hook)
            _forget_finders(folder)
            sys.dont_write_bytecode = writes
            _put_back(hidden)


def _take_out(folder: Path) -> dict[str, ModuleType]:
    """Forget the folder's modules, also as attributes of an installed package that they extend."""
    search = cache(partial(PathFinder.find_spec, path=[str(folder)]))  # once for each name of many modules
    neighbours = [key for key in list(sys.modules) if _is_neighbour(key, folder, search)]  # before a parent is gone
    modules = {key: sys.modules.pop(key) for key in neighbours}
    for key, module in modules.items():
        parent, _, child = key.rpartition(".")
        if parent in sys.modules and getattr(sys.modules[parent], child, None) is module:
            delattr(sys.modules[parent], child)
    return modules


def _put_back(modules: Mapping[str, ModuleType]) -> None:
    sys.modules.update(modules)
    for key, module in modules.items():
        parent, _, child = key.rpartition(".")
        if parent in sys.modules and not hasattr(sys.modules[parent], child):
            setattr(sys.modules[parent], child, module)


class _SourceLoader(SourceFileLoader):
    """Compiles the source, whatever lies in ``__pycache__``: what runs is what was hashed."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _source_hook(folder: Path) -> Callable[[str], FileFinder]:
    """Finder of modules in the folders whose code is kept: sources only, no bytecode and no compiled extension."""

    def find(path: str) -> FileFinder:
        if not _is_kept(folder, path) or not Path(path).is_dir():  # a zip is another hook's
            raise ImportError
        return FileFinder(path, (_SourceLoader, [".py"]))

    return find


def _is_kept(folder: Path, path: str) -> bool:
    try:
        inside = Path(path).relative_to(folder).parts
    except ValueError:
        return False
    return not any(part in SKIPPED or part.startswith(".") for part in inside)


def _forget_finders(folder: Path) -> None:
    for path, finder in list(sys.path_importer_cache.items()):
        if _is_kept(folder, path) and not isinstance(finder, zipimporter):  # that one reads a zip anew when told
            del sys.path_importer_cache[path]


def _is_neighbour(key: str, folder: Path, search: Callable[[str], ModuleSpec | None]) -> bool:
    """Whether a loaded module lies in the folder, or has a name that the folder has, and is no installed one."""
    top = key.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("__main__", __name__.partition(".")[0]):
        return False
    places = _places(sys.modules[key])
    if any("site-packages" in place or "dist-packages" in place for place in places):
        return False
    if any(Path(place).is_relative_to(folder) for place in places):
        return True
    spec = search(top)
    # A mere folder (data/, tests/) takes the place of a package without __init__.py, and of no other.
    return spec is not None and (spec.origin is not None or getattr(sys.modules.get(top), "__file__", None) is None)


def _places(module: object) -> list[str]:
    """File of a module, or folders of a package that has none; a lazy module is not loaded by the question."""
    if not issubclass(type(module), ModuleType):  # isinstance believes what the object says of itself
        return []
    facts = object.__getattribute__(module, "__dict__")
    file, spec = facts.get("__file__"), facts.get("__spec__")
    if isinstance(file, str):
        return [file]
    try:
        return [str(place) for place in getattr(spec, "submodule_search_locations", None) or ()]
    except KeyError:  # a namespace package whose parent is gone
        return []


def _line_in(path: Path, error: BaseException) -> str:
    """File and line that led to an error: of the definitions module, and of the neighbour it came from."""
    frames = [(frame.filename, frame.lineno or 1) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        frames.append((error.filename, error.lineno))
    lines = [f"{Path(file).name}:{line}" for file, line in frames if Path(file).parent == path.parent]
    return lines[-1] if lines else f"{path.name}:1"
