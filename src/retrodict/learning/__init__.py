"""Recipes, runs, the evaluation store, and the replay of runs.

Names load on first use: looking at runs must not load LightGBM.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrodict.learning.leakage import LeakageReport, measure_leakage
    from retrodict.learning.replay import RunReplay, replay_run
    from retrodict.learning.runs import Run, compare_runs, get_run, list_runs
    from retrodict.learning.train import Result, execute, train

__all__ = [
    "LeakageReport",
    "Result",
    "Run",
    "RunReplay",
    "compare_runs",
    "execute",
    "get_run",
    "list_runs",
    "measure_leakage",
    "replay_run",
    "train",
]

_HOMES = {
    "leakage": ("LeakageReport", "measure_leakage"),
    "replay": ("RunReplay", "replay_run"),
    "runs": ("Run", "compare_runs", "get_run", "list_runs"),
    "train": ("Result", "execute"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Room(ModuleType):
    """``train`` is the function. Importing the module of the same name would put that in its place."""

    @property
    def train(self) -> Any:
        return import_module(f"{self.__name__}.train").train

    @train.setter
    def train(self, module: ModuleType) -> None:
        """Leave it: the import system names a submodule here."""


sys.modules[__name__].__class__ = _Room
