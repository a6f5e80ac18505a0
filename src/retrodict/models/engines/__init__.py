"""Engines: what turns a row of float64 into a score, each loadable from plain text or JSON."""

from retrodict.models.engines.base import Engine
from retrodict.models.engines.linear import LinearEngine
from retrodict.models.engines.loading import load_engine
from retrodict.models.engines.rates import ConstantEngine, GroupRateEngine
from retrodict.models.engines.trees import TreesEngine, tree_hash

__all__ = ["ConstantEngine", "Engine", "GroupRateEngine", "LinearEngine", "TreesEngine", "load_engine", "tree_hash"]
