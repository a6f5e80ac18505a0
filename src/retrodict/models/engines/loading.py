"""From the kind named in a manifest to the class that reads its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from retrodict.core.errors import NotFoundError, near
from retrodict.models.engines.base import Engine
from retrodict.models.engines.linear import LinearEngine
from retrodict.models.engines.rates import ConstantEngine, GroupRateEngine
from retrodict.models.engines.trees import TreesEngine

__all__ = ["load_engine"]

_READERS: dict[str, Callable[[Mapping[str, bytes]], Engine]] = {
    ConstantEngine.kind: ConstantEngine.from_parts,
    GroupRateEngine.kind: GroupRateEngine.from_parts,
    LinearEngine.kind: LinearEngine.from_parts,
    TreesEngine.kind: TreesEngine.from_parts,
}


def load_engine(kind: str, parts: Mapping[str, bytes]) -> Engine:
    """Engine of a kind from the parts it was kept as.

    The parts must be trusted, that is, verified by hash: the C parser of a damaged tree file may end the process.

    Raises
    ------
    NotFoundError
        If there is no such kind in this version of the package.
    """
    if kind not in _READERS:
        raise NotFoundError("an engine is of a known kind", where="model", got=kind,
                            remedy=near(kind, _READERS, what="engine"))  # fmt: skip
    return _READERS[kind](parts)
