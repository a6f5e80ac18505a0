"""Names and modules that load on first use: writing down a definition must not load the engines beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazy_modules", "lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    homes : mapping of str to sequence of str
        Module, relative to the package (``.core.clock`` begins one above it), to the names it gives.

    Examples
    --------
    >>> __getattr__, __dir__ = lazy_names("retrodict.core", {"clock": ["parse_time"]})
    >>> __getattr__("parse_time").__name__
    'parse_time'
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module("." + modules[name], package), name)
        setattr(sys.modules[package], name, value)  # the next look is a plain one
        return value

    return get, lambda: sorted(getattr(sys.modules[package], "__all__", modules))


class _LazyModule:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


def lazy_modules(package: str, *names: str) -> Iterator[Any]:
    """Stand-ins of a package's modules, each imported when something of it is used.

    Type checkers are shown the modules themselves, under ``TYPE_CHECKING``.

    Parameters
    ----------
    package : str
        Full name.
    *names : str
        Modules of it.

    Examples
    --------
    >>> (clock,) = lazy_modules("retrodict.core", "clock")
    >>> clock.parse_time.__name__
    'parse_time'
    """
    return (_LazyModule(f"{package}.{name}") for name in names)
