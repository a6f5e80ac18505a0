"""What code a step is made of: its function, and everything of the project that this one names.

Read from the text of the modules, by the statements that bind each name: so constants, classes, tables of functions and
helpers of helpers count as they are written, and comments, blank lines and the order of definitions do not. Of a module
that does more than import, define and assign (a call, a registry's decorator), all of its code counts. Hashing
whole files was rejected: every edit of a definitions module would execute every step again. What no text names
(``getattr`` with a computed name, files that a function reads) is in no key.
"""

from __future__ import annotations

import ast
import copy
import symtable
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

__all__ = ["code_of"]


def code_of(files: Mapping[str, str], root: str, path: str, name: str, *, entry: bool = True) -> dict[str, str]:
    r"""Statements that a function is made of, as text without comments, by place.

    Parameters
    ----------
    files : mapping of str to str
        Text of the project's Python files, by path.
    root : str
        Folder from which they are imported.
    path, name : str
        File of the function, and its name there.
    entry : bool, default True
        Whether it is the step itself, whose defaults are its parameters.

    Examples
    --------
    >>> files = {"steps.py": "LEAST = 3\nMOST = 9\ndef kept(n):\n    return n > LEAST  # inclusive?"}
    >>> list(code_of(files, "", "steps.py", "kept"))
    ['steps.py:LEAST', 'steps.py:kept']
    """
    reader = _Slice(files, PurePosixPath(root))
    reader.add(path, name, entry=entry)
    return dict(sorted(reader.parts.items()))


_QUIET = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


class _Slice:
    """Follows names from module to module."""

    def __init__(self, files: Mapping[str, str], root: PurePosixPath) -> None:
        self._files, self._root = files, root
        self._modules: dict[str, _Module] = {}
        self.parts: dict[str, str] = {}

    def add(self, path: str, name: str, *, entry: bool = False) -> None:
        """Take the statements of a file that bind a name, and what they name in turn."""
        place = f"{path}:{name}"
        module = self._modules.setdefault(path, _Module(self._files[path]))
        if place in self.parts or name not in module.bound:
            return
        nodes = [_without_defaults(node) if entry else node for node in module.bound[name]]
        self.parts[place] = "\n".join(map(ast.unparse, nodes))
        for node in nodes:
            for other in module.names(node):
                self.add(path, other)
            for imported in ast.walk(node):
                if isinstance(imported, ast.Import | ast.ImportFrom):
                    self._follow(path, imported)
        self.add(path, "*")
        if module.acts:  # what it changes by calls, nobody reads from its text
            self._whole(PurePosixPath(path))

    def _follow(self, path: str, node: ast.Import | ast.ImportFrom) -> None:
        """Take what an import brings from the project: names, or a whole module."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._take(self._root, alias.name.split("."), None)
            return
        base = PurePosixPath(path)
        for _ in range(node.level):
            base = base.parent
        for alias in node.names:
            parts = node.module.split(".") if node.module else []
            self._take(base if node.level else self._root, parts, alias.name)

    def _take(self, base: PurePosixPath, parts: list[str], name: str | None) -> None:
        for size in range(1, len(parts)):  # importing a package runs what it begins with
            self._whole(base.joinpath(*parts[:size], "__init__.py"))
        module = self._file(base.joinpath(*parts)) if parts else None
        if name is None or name == "*":
            self._whole(module)
            return
        inner = self._file(base.joinpath(*parts, name))
        if inner is not None:
            self._whole(inner)
        elif module is not None:
            self.add(str(module), name)

    def _file(self, place: PurePosixPath) -> PurePosixPath | None:
        candidates = (place.with_name(f"{place.name}.py"), place / "__init__.py")
        return next((path for path in candidates if str(path) in self._files), None)

    def _whole(self, path: PurePosixPath | None) -> None:
        if path is None or str(path) not in self._files:
            return
        module = self._modules.setdefault(str(path), _Module(self._files[str(path)]))
        for name in module.bound:
            self.add(str(path), name)


class _Module:
    """Top-level statements of a file by the names that they bind."""

    def __init__(self, text: str) -> None:
        self.bound: dict[str, list[ast.stmt]] = defaultdict(list)
        self.acts = False
        self._tables: dict[str, list[symtable.SymbolTable]] = defaultdict(list)
        for table in symtable.symtable(text, "module", "exec").get_children():
            self._tables[table.get_name()].append(table)
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):  # a limit of memory changes no result
                node.decorator_list = [part for part in node.decorator_list if not _is_step(part)]
            for name in set(_bound(node)):
                self.bound[name].append(node)
            if not isinstance(node, _QUIET) and not _is_text(node):
                self.acts = True
                self.bound[f"line {len(self.bound)}"].append(node)
        definitions = {
            name for name, nodes in self.bound.items() if isinstance(nodes[0], ast.FunctionDef | ast.ClassDef)
        }
        for nodes in list(self.bound.values()):  # a decorator of this file may keep what it decorates
            for node in nodes:
                decorators = getattr(node, "decorator_list", ())
                self.acts |= any(definitions & {*_root(getattr(part, "func", part))} for part in decorators)

    def names(self, node: ast.stmt) -> set[str]:
        """Names of the module that a statement uses; those of arguments and of variables inside are none."""
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        outer: list[ast.AST] = [*node.decorator_list]
        if isinstance(node, ast.ClassDef):
            outer += [*node.bases, *node.keywords]
        else:
            outer += [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
        names = {part.id for tree in outer for part in ast.walk(tree) if isinstance(part, ast.Name)}
        return names | {name for table in self._tables[node.name] for name in _globals(table)}


def _without_defaults(node: ast.stmt) -> ast.stmt:
    """Definition of the step itself without its defaults: they are its parameters, and in its key as these."""
    bare = copy.deepcopy(node)
    if isinstance(bare, ast.FunctionDef):
        bare.args.defaults, bare.args.kw_defaults = [], [None for _ in bare.args.kwonlyargs]
    return bare


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    yield from (symbol.get_name() for symbol in table.get_symbols() if symbol.is_global())
    for child in table.get_children():
        yield from _globals(child)


def _bound(node: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement binds, or changes the content of."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0]) for alias in part.names)
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield part.name
        elif isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
            yield from _root(part)
        elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
            yield from _root(part.value.func)  # RULES.update(…)


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_step(decorator: ast.expr) -> bool:
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return "step" in (getattr(function, "id", ""), getattr(function, "attr", ""))
