"""Estimators and transformers of scikit-learn as data: a definition has a content hash, an object none."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from retrodict.core.errors import DefinitionError

__all__ = ["OWN_STEP", "ObjectSpec", "built", "resolve"]

OWN_STEP = "Take a transformer of scikit-learn, or write what it does as a derived feature"


@dataclass(frozen=True)
class ObjectSpec:
    """An estimator or transformer of scikit-learn as data: where its class is, and the parameters that were set.

    Parameters
    ----------
    reference : str
        ``"sklearn.preprocessing:QuantileTransformer"``.
    params : tuple of (str, object)
        Plain values and parts, by name; those not named have their defaults.
    """

    reference: str
    params: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, value: Any, *, where: str) -> ObjectSpec:
        """Write an instance down.

        Raises
        ------
        DefinitionError
            If it has no ``get_params``, its class cannot be imported by name, or a parameter is no plain value.
        """
        if isinstance(value, ObjectSpec):
            return value
        kind = type(value)
        if isinstance(value, type) or not hasattr(value, "get_params") or "<" in kind.__qualname__:
            raise DefinitionError("an object must be an instance of a class with get_params, at the top of a module",
                                  where=where, got=getattr(value, "__qualname__", kind.__qualname__),
                                  remedy="Pass an instance such as PCA(3), of scikit-learn")  # fmt: skip
        defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
        params = {name: _plain(setting, where=f"{where}, {kind.__name__}, {name}")
                  for name, setting in sorted(value.get_params(deep=False).items())
                  if not _same(setting, defaults.get(name, inspect.Parameter.empty))}  # fmt: skip
        return cls(f"{_public_module(kind)}:{kind.__qualname__}", tuple(params.items()))

    def __identity__(self) -> dict[str, Any]:
        return {"kind": "ObjectSpec", "reference": self.reference, "params": dict(self.params)}

    def build(self) -> Any:
        """A new instance, unfitted."""
        return resolve(self.reference)(**{name: built(value) for name, value in self.params})


def _public_module(kind: type) -> str:
    """The outermost public module that has the class: that of the library's pages, which stays when files move."""
    parts = kind.__module__.split(".")
    for size in range(1, len(parts)):
        name = ".".join(parts[:size])
        if not parts[size - 1].startswith("_") and getattr(import_module(name), kind.__qualname__, None) is kind:
            return name
    return kind.__module__


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and (left is right or bool(left == right) or repr(left) == repr(right) == "nan")


def _plain(value: Any, *, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return tuple(_plain(item, where=where) for item in value)
    if hasattr(value, "get_params"):
        return ObjectSpec.of(value, where=where)
    raise DefinitionError("a parameter must be a plain value, or another estimator", where=where,
                          got=type(value).__name__, remedy="Write a derived feature for what needs code")  # fmt: skip


def built(value: Any) -> Any:
    """Value of a parameter with its parts as new instances."""
    if isinstance(value, ObjectSpec):
        return value.build()
    return tuple(built(item) for item in value) if isinstance(value, tuple) else value


def resolve(reference: str) -> Any:
    """What a reference ``"package.module:name"`` names."""
    module, _, name = reference.partition(":")
    value: Any = import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value
