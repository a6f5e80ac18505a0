"""Names of a package that load on first use: writing down a definition must not load the engines beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["lazy_names"]


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
