"""Folds of the training rows for steps that look at labels: what the recipe passes, or shuffled by a seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known

Positions = NDArray[np.int64]
Splitter: TypeAlias = Any
"""A number of folds, a splitter of scikit-learn, or an iterable of (train, test) positions."""

_TASKS = ("auto", "classification", "regression")
_MOST_CLASSES = 20


def is_classification(labels: NDArray[np.float64], task: str) -> bool:
    """Whether labels are codes of classes; ``auto`` takes few different whole numbers from 0 on for such."""
    check_known(task, _TASKS, "a task must be one that exists", where="step", what="task", error=InputError)
    if task != "auto":
        return task == "classification"
    values = np.unique(labels)
    return bool(values.size <= _MOST_CLASSES and (values >= 0).all() and (values == np.floor(values)).all())


def split_rows(
    splitter: Splitter, matrix: Any, labels: NDArray[np.float64], *, task: str, seed: int
) -> list[tuple[Positions, Positions]]:
    """Positions of the training and the test rows of each fold.

    Raises
    ------
    InputError
        If there is no fold, a position does not exist, or a row is on both sides of a fold.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    if isinstance(splitter, int):
        classes = np.unique(labels, return_counts=True)[1]
        # Stratified as far as the rarest class goes; fewer rows than folds: as many folds as rows.
        stratified = is_classification(labels, task) and classes.min() >= splitter
        folds = min(splitter, len(labels))
        if folds < 2:
            return []
        kind = StratifiedKFold if stratified else KFold
        splitter = kind(folds, shuffle=True, random_state=seed)
    pairs: Iterable[Any] = splitter.split(matrix, labels) if hasattr(splitter, "split") else splitter
    parts = [(np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)) for train, test in pairs]
    for train, test in parts:
        positions = np.concatenate((train, test))
        if positions.size and (positions.min() < 0 or positions.max() >= len(labels)):
            raise InputError(f"positions of a fold must be below the number of rows, {len(labels):,}", where="splitter",
                             got=int(positions.max()), remedy="Count positions within the training rows")  # fmt: skip
        if np.intersect1d(train, test).size:
            raise InputError("a row must not be on both sides of a fold", where="splitter",
                             got=f"{np.intersect1d(train, test).size} rows",
                             remedy="Take test rows out of the training part")  # fmt: skip
    return parts
