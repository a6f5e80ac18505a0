"""Derived features: one plain function of the request and of other features, for columns and for single requests.

The function is always called with arrays; one request is an array of length one. So there is one code path, and equal
inputs give equal bits. Its version is the hash of its source code and of the helpers it names in its own module.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any, ClassVar, Literal, overload

from retrodict.core.definition import Definition, check_name
from retrodict.core.errors import DefinitionError
from retrodict.core.identity import digest

__all__ = ["Derived", "derived"]

Function = Callable[..., Mapping[str, Any]]
Form = Literal["time", "text", "object", "number"]

# The parts of features.times.Times; named here because this module loads no NumPy. A test keeps the two equal.
TIME_PARTS = frozenset(
    {
        "day",
        "dayofyear",
        "hour",
        "micros",
        "microsecond_of_day",
        "minute",
        "month",
        "second",
        "seconds_since",
        "to",
        "weekday",
        "year",
    }
)


@dataclass(frozen=True)
class Derived(Definition):
    """A function that computes features from request columns and other features; made by :func:`derived`.

    Parameters
    ----------
    name : str
        Name; its outputs become the columns ``<name>__<output>``.
    function : callable
        Takes arrays and returns a dict of arrays.
    inputs : tuple of str
        Its parameters: request columns, or features as ``<view>__<feature>``.
    times : frozenset of str
        Those inputs that arrive as :class:`~retrodict.features.facts.times.Times`.
    texts : frozenset of str
        Those inputs that arrive as object arrays of text.
    outputs : tuple of str
        Keys of the dict it returns.
    code : str
        SHA-256 of its source and its helpers'.
    objects : frozenset of str
        Those inputs that arrive as object arrays of lists or of dicts.
    """

    kind: ClassVar[str] = "derived"

    function: Function
    inputs: tuple[str, ...]
    times: frozenset[str]
    texts: frozenset[str]
    outputs: tuple[str, ...]
    code: str
    objects: frozenset[str] = frozenset()

    @cached_property
    def arguments(self) -> tuple[tuple[str, Form, str], ...]:
        """Of each input its name, the form in which it arrives, and what to call it in an error."""
        forms: tuple[tuple[Form, frozenset[str]], ...]
        forms = ("time", self.times), ("text", self.texts), ("object", self.objects)
        form_of: dict[str, Form] = {
            name: next((form for form, names in forms if name in names), "number") for name in self.inputs
        }
        return tuple((name, form_of[name], f"derived {self.name!r}, input {name!r}") for name in self.inputs)

    @cached_property
    def columns(self) -> tuple[tuple[str, str, str], ...]:
        """Of each output its name, that of its column, and what to call it in an error."""
        return tuple((name, f"{self.name}__{name}", f"derived {self.name!r}, output {name!r}") for name in self.outputs)

    def __call__(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def __identity__(self) -> dict[str, Any]:
        """Name, code and outputs; the function object itself has no identity."""
        body: dict[str, Any] = {
            "kind": "Derived",
            "name": self.name,
            "code": self.code,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "times": self.times,
            "texts": self.texts,
        }
        return body | {"objects": self.objects} if self.objects else body


@overload
def derived(function: Function, /) -> Derived: ...
@overload
def derived(*, outputs: Sequence[str] | None = None, name: str | None = None) -> Callable[[Function], Derived]: ...
def derived(
    function: Function | None = None, /, *, outputs: Sequence[str] | None = None, name: str | None = None
) -> Derived | Callable[[Function], Derived]:
    """Make a feature of a function.

    Numbers and booleans arrive as float64 arrays with NaN for null; inputs annotated as ``str`` as object arrays of
    text with None for null, those annotated as ``list`` or ``dict`` as object arrays of lists or dicts (features that
    are lists or maps) with None for null; times as :class:`~retrodict.features.facts.times.Times`. An input is a time
    if the function uses one of the parts of Times on it, or annotates it as ``Times``. So the form of an input never
    depends on its value: a null looks the same in a column and in a request.

    Parameters
    ----------
    function : callable
        Its parameters are the inputs; it returns a dict literal.
    outputs : sequence of str, optional
        Keys of that dict. None: read from the ``return {...}`` in the source.
    name : str, optional
        None: the function's name.

    Raises
    ------
    DefinitionError
        If the source cannot be read, a parameter is not a plain name, or the outputs are not clear.
    """
    if function is None:
        return lambda decorated: _define(decorated, outputs, name)
    return _define(function, outputs, name)


def _define(function: Function, outputs: Sequence[str] | None, name: str | None) -> Derived:
    name = name or str(getattr(function, "__name__", ""))
    where = f"derived {name!r}"
    source = _source(function, where)
    tree = ast.parse(source).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise DefinitionError(
            "a derived feature must be a function written with def",
            where=where,
            got=type(tree).__name__,
            remedy="Write 'def …' with a return of a dict literal",
        )
    names = tuple(outputs) if outputs is not None else _returned(tree, where)
    for output in names:
        check_name(output, what=f"{where}, output")
    if not names or len(set(names)) != len(names):
        raise DefinitionError(
            "a derived feature must have different outputs", where=where, got=names, remedy="Name each output once"
        )
    return Derived(
        name,
        function,
        _inputs(function, where),
        _times(tree, function),
        frozenset(_annotated(tree, "str")),
        names,
        _code(function, source),
        frozenset(_annotated(tree, "list") | _annotated(tree, "dict")),
    )


def _source(function: Function, where: str) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise DefinitionError(
            "the source of a derived feature must be readable: it is its version",
            where=where,
            remedy="Define it with def in a file",
        ) from error


def _inputs(function: Function, where: str) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise DefinitionError(
                "the parameters of a derived feature must be plain names without defaults",
                where=where,
                got=str(parameter),
                remedy="Name the columns and features it needs",
            )
    return tuple(parameter.name for parameter in parameters)


def _returned(tree: ast.FunctionDef, where: str) -> tuple[str, ...]:
    outputs: list[tuple[str, ...]] = []
    inner = {
        id(node)
        for child in ast.walk(tree)
        if child is not tree and isinstance(child, ast.FunctionDef | ast.Lambda)
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and id(node) not in inner:
            value = node.value
            keys = value.keys if isinstance(value, ast.Dict) else [None]
            outputs.append(
                tuple(key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else "" for key in keys)
            )
    if not outputs or len(set(outputs)) > 1 or "" in outputs[0]:
        several = len(outputs) != 1
        raise DefinitionError(
            "a derived feature must return one dict literal with text keys, which name its features",
            where=where,
            got=f"{len(outputs)} return statements" if several else f"return {_excerpt(tree)}",
            remedy="Name them: @derived(outputs=['hour', 'weekday'])" if several
            else f"Write it like: return {{'value': {_excerpt(tree)}}}",
        )  # fmt: skip
    return outputs[0]


def _excerpt(tree: ast.FunctionDef) -> str:
    """What a function returns, as it is written; shortened."""
    returns = (node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value)
    text = next(map(ast.unparse, returns), "…")
    return text if len(text) <= 60 else f"{text[:59]}…"


def _times(tree: ast.FunctionDef, function: Function) -> frozenset[str]:
    names = set(inspect.signature(function).parameters)
    used = {
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in TIME_PARTS
    }
    return frozenset((used | _annotated(tree, "Times")) & names)


def _annotated(tree: ast.FunctionDef, type_: str) -> set[str]:
    return {
        argument.arg
        for argument in tree.args.args
        if argument.annotation is not None and _bare(argument.annotation) == type_
    }


def _bare(annotation: ast.expr) -> str:
    """Name of a type, without its module and what it holds: ``list`` of ``list[str]``."""
    return ast.unparse(annotation).strip("'\"").split("[")[0].split(".")[-1]


def _code(function: Function, source: str) -> str:
    """Hash of the source, of functions of the same module it names, and of plain module constants it names."""
    parts, seen = {"": source}, {getattr(function, "__name__", "")}
    waiting = [function]
    while waiting:
        current = waiting.pop()
        if not isinstance(current, FunctionType):
            continue
        for name in sorted(_names(current.__code__)):
            thing = current.__globals__.get(name)
            if name in seen or thing is None:
                continue
            seen.add(name)
            if isinstance(thing, FunctionType) and thing.__module__ == function.__module__:
                parts[name] = textwrap.dedent(inspect.getsource(thing))
                waiting.append(thing)
            elif isinstance(thing, bool | int | float | str | tuple | frozenset):
                parts[name] = repr(sorted(thing, key=repr) if isinstance(thing, frozenset) else thing)
    return digest("\0".join(f"{name}\0{text}" for name, text in sorted(parts.items())).encode())


def _names(code: Any) -> set[str]:
    nested = [_names(constant) for constant in code.co_consts if hasattr(constant, "co_names")]
    return set(code.co_names).union(*nested)
