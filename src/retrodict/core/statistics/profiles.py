"""Mergeable count profiles: one feature's distribution as counts over bins frozen at reference time.

A profile is only the bins; counts are plain int64 vectors that add up, so batch, stream and SQL give the same drift
numbers. Every value has exactly one bin: null, the infinities, below and above the reference range, and unseen
categories have bins of their own, because an outlier must not move the edges of all others (binning over reference and
current together was rejected for that). Edges follow quantiles: uniform edges lose most of a skewed column.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.core.statistics._columns import read_column

__all__ = ["CategoryProfile", "NumericProfile", "profile_from_dict"]

_FEW_VALUES = 20
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NumericProfile:
    """Bins of a number: ``below, bin 1 … bin B, above, -inf, +inf, null``, in this order.

    Bin j holds ``edges[j] <= value < edges[j + 1]``: a value equal to an edge belongs to the bin on its right. The last
    bin also holds its right edge, which is the largest reference value. NaN counts as null. With no finite reference
    value there are no edges, and every finite value counts as above.

    Parameters
    ----------
    edges : tuple of float
        Ascending, finite; the last two are equal when the last bin is one value.

    Examples
    --------
    >>> profile = NumericProfile.of(range(100), bins=2)
    >>> profile.edges
    (0.0, 50.0, 99.0)
    >>> profile.count([-1, 0, 50, 99, 100, None]).tolist()
    [1, 1, 2, 1, 0, 0, 1]
    """

    kind: ClassVar[str] = "numeric"

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        ascending = all(map(math.isfinite, self.edges)) and all(a < b for a, b in pairwise(self.edges[:-1]))
        if not ascending or len(self.edges) == 1 or (self.edges and self.edges[-1] < self.edges[-2]):
            raise InputError(
                "edges must be finite and ascending, with a last one that closes the last bin",
                where="profile",
                got=f"{len(self.edges)} edges",
                remedy="Build it with NumericProfile.of",
            )

    @classmethod
    def of(cls, values: Iterable[object], *, bins: int = 10) -> NumericProfile:
        """Bins from reference values.

        Parameters
        ----------
        values : array_like of number, shape (n,)
            NumPy, Arrow or plain sequence; None and NaN are null and, like infinities, do not shape the edges.
        bins : int, default 10
            Bins of equal mass: edge k is the reference value at position ``n * k // bins`` in ascending order, repeated
            edges dropped; a value so frequent that its edge repeats gets a bin of its own. A column of at most 20
            distinct values gets one bin per value instead.

        Raises
        ------
        InputError
            If ``bins`` is below 1 or a value is not a number.
        """
        if bins < 1:
            raise InputError("a profile must have at least one bin", where="profile", got=bins, remedy="Pass bins=10")
        finite = np.sort(read_column(values, "profile").finite)
        if not finite.size:
            return cls(())
        changes = np.flatnonzero(finite[1:] != finite[:-1]) + 1
        if changes.size < _FEW_VALUES:
            edges = finite[np.concatenate(([0], changes))]
        else:
            edges, times = np.unique(finite[[finite.size * k // bins for k in range(bins)]], return_counts=True)
            # A value that fills a whole bin (many zeros) keeps a bin to itself: its successor is an edge as well.
            after = np.searchsorted(finite, edges[times > 1], side="right")
            edges = np.union1d(edges, finite[after[after < finite.size]])
        # + 0.0 turns a negative zero into zero, so that equal profiles read alike.
        return cls((*(edges + 0.0).tolist(), float(finite[-1]) + 0.0))

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per bin, in the order of the counts."""
        last = len(self.edges) - 2
        inner = [f"[{a:g}, {b:g}{']' if j == last else ')'}" for j, (a, b) in enumerate(pairwise(self.edges))]
        return ("below", *inner, "above", "-inf", "+inf", "null")

    def count(self, values: Iterable[object]) -> Counts:
        """Count the values per bin, shape (len(labels),); counts of parts add up to the counts of the whole."""
        column, size = read_column(values, "profile"), max(len(self.edges) - 1, 0)
        places = np.searchsorted(np.array(self.edges[:-1]), column.finite, side="right")
        places[column.finite > (self.edges[-1] if size else -np.inf)] = size + 1
        counts = np.bincount(places, minlength=size + 2)
        return np.append(counts, (column.lowest, column.highest, column.nulls))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"kind": self.kind, "edges": list(self.edges)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> NumericProfile:
        """Inverse of ``to_dict``."""
        return cls(tuple(float(edge) for edge in body["edges"]))


@dataclass(frozen=True, slots=True)
class CategoryProfile:
    """Bins of a category: one per listed value, then ``unseen`` (any value without a bin), then ``null``.

    Parameters
    ----------
    categories : tuple of str
        Values with a bin of their own. Whole numbers and booleans are written as text (``12``, ``true``).

    Examples
    --------
    >>> profile = CategoryProfile.of(["JFK", "EWR", "JFK", None])
    >>> profile.labels
    ('EWR', 'JFK', 'unseen', 'null')
    >>> profile.count(["JFK", "LGA", None]).tolist()
    [0, 1, 1, 1]
    """

    kind: ClassVar[str] = "category"

    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.categories)) != len(self.categories):
            raise InputError(
                "a category must have one bin",
                where="profile",
                got=len(self.categories),
                remedy="Remove the one that repeats",
            )

    @classmethod
    def of(cls, values: Iterable[object], *, limit: int = 100) -> CategoryProfile:
        """Bins from reference values: the ``limit`` frequent ones (ties by name), in the order of their names."""
        counted = Counter({value: n for value, n in _category_counts(values).items() if value is not None})
        categories = sorted(counted, key=lambda name: (-counted[name], name))[:limit]
        return cls(tuple(sorted(categories)))

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per bin, in the order of the counts."""
        return (*self.categories, "unseen", "null")

    def count(self, values: Iterable[object]) -> Counts:
        """Count the values per bin, shape (len(labels),); counts of parts add up to the counts of the whole."""
        size = len(self.categories)
        places: dict[str | None, int] = {name: place for place, name in enumerate(self.categories)}
        places[None] = size + 1
        counts = np.zeros(size + 2, dtype=np.int64)
        for value, n in _category_counts(values).items():
            counts[places.get(value, size)] += n
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"kind": self.kind, "categories": list(self.categories)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> CategoryProfile:
        """Inverse of ``to_dict``."""
        return cls(tuple(body["categories"]))


def _category_counts(values: Iterable[object]) -> Counter[str | None]:
    counted: Counter[str | None] = Counter()
    if hasattr(values, "value_counts") and hasattr(values, "to_pylist"):  # Arrow counts its own columns faster
        for row in values.value_counts().to_pylist():
            counted[_category(row["values"])] += row["counts"]
        return counted
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    counted.update(value if type(value) is str else _category(value) for value in plain)
    return counted


def _category(value: object) -> str | None:
    if value is None or value != value:  # noqa: PLR0124 - NaN, NaT and pandas' nulls are null
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def profile_from_dict(body: Mapping[str, Any]) -> NumericProfile | CategoryProfile:
    """Read either kind of profile from its JSON form.

    Raises
    ------
    InputError
        If the kind is neither ``numeric`` nor ``category``.
    """
    profiles = {profile.kind: profile for profile in (NumericProfile, CategoryProfile)}
    rule = "a profile must be of kind 'numeric' or 'category'"
    kind = check_known(str(body.get("kind")), profiles, rule, where="profile", what="kind", error=InputError)
    return profiles[kind].from_dict(body)
