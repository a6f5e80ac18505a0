"""LightGBM grown in pieces of a fixed number of iterations, so that a killed fit goes on to the same trees.

LightGBM keeps the state of its generators and the sums of its training rows to itself: a booster that is read again
goes on to other trees. A piece begins anew from what can be stored: the texts of the pieces before it, their sums over
the rows as initial scores, and seeds of its own. Where the pieces end is fixed, so a fit that was never killed takes
the same way; without checkpoints there is one piece, and the trees are those of LightGBM's own loop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import lightgbm
import numpy as np
from lightgbm.basic import _LIB, _safe_call  # type: ignore[attr-defined]  # as in ``trees``

from retrodict.core.errors import InputError
from retrodict.core.identity import canonical_json
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.problem import Examples

__all__ = ["PIECE", "grow_pieces", "read_history", "write_history"]

PIECE = 100
# LightGBM derives these from ``seed``; a piece has its own, so that it does not draw the rows of the one before again.
_SEEDS = ("bagging_seed", "feature_fraction_seed", "extra_seed", "drop_seed", "objective_seed")


def write_history(history: Mapping[str, list[float]]) -> dict[str, list[float | None]]:
    """Plain form of a history: JSON has no NaN."""
    return {name: [None if math.isnan(value) else value for value in values] for name, values in history.items()}


def read_history(plain: Mapping[str, list[float | None]]) -> dict[str, list[float]]:
    """Inverse of :func:`write_history`."""
    return {name: [math.nan if value is None else value for value in values] for name, values in plain.items()}


class Watch(Protocol):
    """What decides when to stop."""

    history: dict[str, list[float]]
    stopped: bool
    offset: int
    loss: float | None

    def state(self) -> dict[str, Any]:
        """Plain form."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        ...


def grow_pieces(
    grow: Callable[[Mapping[str, Any], int], lightgbm.Booster],
    settings: Mapping[str, Any],
    total: int,
    watch: Watch,
    checkpoints: Checkpoints,
    sets: list[tuple[lightgbm.Dataset, Examples]],
    start: Any = None,
) -> lightgbm.Booster:
    """Grow until the watch stops it or ``total`` iterations are there, saving after the pieces that are due.

    Parameters
    ----------
    grow : callable
        Trains with (changes to the parameters, number of iterations).
    settings : mapping
        Parameters in force.
    total : int
        Iterations at most.
    watch : Watch
    checkpoints : Checkpoints
        ``steps`` is the length of a piece; 100 where time decides when to save.
    sets : list of (Dataset, Examples)
        Training rows, and validation rows if there are any.
    start : TreesEngine, optional
        Trees of the piece before the first.
    """
    if settings.get("boosting") == "rf":
        raise InputError("a forest must be grown in one go: its trees are averaged", where="lightgbm",
                         got={"boosting": "rf"}, remedy="Leave checkpoint out of the recipe")  # fmt: skip
    size = checkpoints.steps or PIECE
    texts: list[str] = []
    if (last := checkpoints.last()) is not None:
        texts = json.loads(last.state["pieces"])
        watch.restore(json.loads(last.state["watch"]))
    before, first = ([], 0) if start is None else ([start.text], start.iterations)
    sums = [sum((_sums(text, rows) for text in (*before, *texts)), start=np.float64(0.0)) for _, rows in sets]
    while (done := len(texts) * size) < total and not watch.stopped:
        watch.offset = first + done
        changes: dict[str, Any] = {}
        if texts or before:
            changes = {name: (settings["seed"] + first + done + at) % 2**31 for at, name in enumerate(_SEEDS)}
            for (dataset, _), values in zip(sets, sums, strict=True):
                dataset.set_init_score(values)
        texts.append(grow(changes, min(size, total - done)).model_to_string(num_iteration=-1))
        sums = [values + _sums(texts[-1], rows) for values, (_, rows) in zip(sums, sets, strict=True)]
        if checkpoints.due(len(texts) * size):
            state = {"pieces": canonical_json(texts), "watch": canonical_json(watch.state())}
            checkpoints.save(len(texts) * size, state, watch.loss)
    return _merged([*before, *texts])


def _sums(text: str, rows: Examples) -> Any:
    return lightgbm.Booster(model_str=text).predict(rows.matrix, raw_score=True)


def _merged(texts: list[str]) -> lightgbm.Booster:
    """One booster of all pieces: LightGBM puts the trees of the other one in front."""
    boosters = [lightgbm.Booster(model_str=text) for text in texts]
    merged = boosters[0]
    for booster in boosters[1:]:
        _safe_call(_LIB.LGBM_BoosterMerge(booster._handle, merged._handle))  # noqa: SLF001  # as above
        merged = booster
    return merged
