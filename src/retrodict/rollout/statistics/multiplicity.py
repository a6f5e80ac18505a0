"""Many hypotheses at once: p values adjusted, to be compared with the level as they are."""

from __future__ import annotations

from collections.abc import Sequence

from retrodict.core.errors import InputError

__all__ = ["false_discovery", "holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that rejecting those up to alpha makes even one false rejection with chance alpha at most.

    Holm 1979 (Scandinavian Journal of Statistics 6, 65-70): the k-th smallest of m times ``m - k + 1``, never below the
    one before, never above 1. Holds whatever depends on what, and for p values that are valid at any look.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    _check(p_values)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted


def false_discovery(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that of those up to a rate no more than that share is expected to be false.

    Benjamini & Hochberg 1995 (JRSS B 57, 289-300): the least rate at which
    :func:`~retrodict.core.statistics.drift.benjamini_hochberg` rejects each.

    Examples
    --------
    >>> false_discovery([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    _check(p_values)
    adjusted, least, size = [1.0] * len(p_values), 1.0, len(p_values)
    for rank, place in enumerate(sorted(range(size), key=lambda place: -p_values[place])):
        least = min(least, p_values[place] * size / (size - rank))
        adjusted[place] = least
    return adjusted


def _check(p_values: Sequence[float]) -> None:
    if any(not 0 <= p <= 1 for p in p_values):
        raise InputError("a p value must lie between 0 and 1", where="statistics", got=list(p_values),
                         remedy="Leave out what is not evaluable")  # fmt: skip
