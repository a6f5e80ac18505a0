"""The same metrics per group (month, carrier): an average hides the group that a model fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError
from retrodict.core.statistics._columns import read_floats
from retrodict.evaluation.metrics import Evaluation, evaluate

__all__ = ["GroupEvaluation", "evaluate_groups", "group_codes"]


@dataclass(frozen=True, slots=True)
class GroupEvaluation(Record):
    """One group's metrics; ``group`` is None for rows without a group."""

    group: str | None
    evaluation: Evaluation


def evaluate_groups(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Iterable[object],
    *,
    pending: Mapping[str | None, int] | None = None,
    threshold: float | None = None,
    min_rows: int = 30,
) -> tuple[GroupEvaluation, ...]:
    """Evaluate every group on its own, in the order of group names, rows without a group last.

    Parameters
    ----------
    labels, scores : array_like, shape (n,)
        As in ``evaluate``; null labels are pending.
    groups : iterable of object, length n
        Group of each row, compared as text; None and NaN mean no group.
    pending : mapping of group to count, optional
        Decisions whose labels are not among the rows; added to those with a null label. A group with nothing else
        is still listed.
    threshold : float, optional
        As in ``evaluate``.
    min_rows : int, default 30
        A group with fewer labelled rows is not evaluable.

    Raises
    ------
    InputError
        If the lengths differ.
    """
    truth, predicted = read_floats(labels, "labels"), read_floats(scores, "scores")
    waiting = {_name(group): n for group, n in (pending or {}).items()}
    ordered, codes = group_codes(groups, waiting)
    if not truth.size == predicted.size == codes.size:
        raise InputError("there must be one label, score and group per row", where="groups",
                         got=(truth.size, predicted.size, codes.size),
                         remedy="Pass columns of the same rows")  # fmt: skip
    order = np.argsort(codes, kind="stable")
    stops = np.cumsum(np.bincount(codes, minlength=len(ordered)))[:-1]
    evaluations = []
    for name, rows in zip(ordered, np.split(order, stops), strict=False):
        result = evaluate(truth[rows], predicted[rows], threshold=threshold, min_rows=min_rows)
        evaluations.append(GroupEvaluation(name, replace(result, pending=result.pending + waiting.get(name, 0))))
    return tuple(evaluations)


def group_codes(
    groups: Iterable[object], more: Iterable[str | None] = ()
) -> tuple[list[str | None], NDArray[np.int64]]:
    """Names of groups in order, None last, and the place of each row's among them; ``more`` names are listed too."""
    names = [_name(value) for value in (groups.tolist() if isinstance(groups, np.ndarray) else groups)]
    ordered = sorted({*names, *more}, key=lambda name: (name is None, name or ""))
    places = {name: place for place, name in enumerate(ordered)}
    return ordered, np.fromiter((places[name] for name in names), dtype=np.int64, count=len(names))


def _name(value: object) -> str | None:
    # NaN and NaT differ from themselves.
    return None if value is None or value != value else str(value)  # noqa: PLR0124 - the test for any null
