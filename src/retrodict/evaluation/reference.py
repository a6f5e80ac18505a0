"""The reference of a model version: a profile of every feature with the counts of the rows it was trained on.

Kept as one JSON object beside the model, so that drift is judged months later against exactly those rows, without them.
Counts are kept by block of time as well: how much the blocks differ says how much two spans of one world differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.durations import DAY, HOUR
from retrodict.core.identity import canonical_json
from retrodict.core.statistics.profiles import CategoryProfile, NumericProfile, profile_from_dict

__all__ = ["BlockCounts", "FeatureReference", "Reference", "count_labels", "count_spans", "feature_column"]

Profile: TypeAlias = NumericProfile | CategoryProfile
Counts: TypeAlias = NDArray[np.int64]
Count: TypeAlias = Callable[[Any], Counts]

_LENGTHS = (HOUR, 6 * HOUR, DAY, 7 * DAY, 28 * DAY)
_MOST_BLOCKS = 400
_YEAR = 365.25 * DAY
_SEASON = 45 * DAY  # on either side of the middle of what is judged
_LEAST_SEASON = 60 * DAY
_LABELS = "_labels"
_RECORDED = {"id", "time", "key", "revision", "model", "decision", "raw", "score", "fallback", _LABELS}
_PREFIXES = ("entity__", "context__", "record__", "feature__", "output__")


def feature_column(name: str) -> str:
    """Column of a feature beside a decision's own: its name, unless a column of the log or the reference has that.

    Examples
    --------
    >>> feature_column("delays__mean_6h"), feature_column("score")
    ('delays__mean_6h', 'feature__score')
    """
    return f"feature__{name}" if name in _RECORDED or name.startswith(_PREFIXES) else name


@dataclass(frozen=True, slots=True, eq=False)
class BlockCounts:
    """Counts by block of time: row i counts ``starts[i] <= time < starts[i] + length``.

    Attributes
    ----------
    starts : ndarray of int64, shape (blocks,)
        Ascending, microseconds since 1970-01-01 UTC; without gaps unless cut to a season.
    length : int
        Microseconds.
    counts : ndarray of int64, shape (blocks, bins)
    """

    starts: NDArray[np.int64]
    length: int
    counts: Counts

    @classmethod
    def of(cls, count: Count, column: pa.Array | pa.ChunkedArray, times: NDArray[np.int64]) -> BlockCounts:
        """Count rows at their times, in blocks of the shortest of 1 h, 6 h, 1 d, 7 d, 28 d that gives 400 or fewer."""
        first, last = int(times.min()), int(times.max())
        fitting = (size for size in _LENGTHS if last // size - first // size < _MOST_BLOCKS)
        length = next(fitting, _LENGTHS[-1])
        starts = np.arange(first // length, last // length + 1, dtype=np.int64) * length
        order = np.argsort(times, kind="stable")
        edges = [*starts.tolist(), int(starts[-1]) + length]
        return cls(starts, length, count_spans(count, column.take(pa.array(order)), times[order], edges))

    @property
    def duration(self) -> int:
        """Time that the blocks cover, in microseconds."""
        return self.length * len(self.starts)

    def pooled(self, length: float) -> Counts:
        """Counts by blocks of about another length, shape (blocks, bins); one block if that is shorter than these."""
        pieces = max(round(self.duration / length), 1) if length >= self.length else 1
        places = np.arange(len(self.starts)) * pieces // len(self.starts)
        pooled = np.zeros((pieces, self.counts.shape[1]), dtype=np.int64)
        np.add.at(pooled, places, self.counts)
        return pooled

    def season(self, moment: int) -> BlockCounts | None:
        """Blocks within 45 days of a moment's anniversaries in earlier years; None if they are fewer than 60 days."""
        middles = self.starts + self.length // 2
        years = np.maximum(np.round((moment - middles) / _YEAR), 1)
        near = np.abs(moment - middles - years * _YEAR) <= _SEASON
        if self.length * int(near.sum()) < _LEAST_SEASON:
            return None
        return BlockCounts(self.starts[near], self.length, self.counts[near])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"starts": self.starts.tolist(), "length": self.length, "counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> BlockCounts:
        """Inverse of ``to_dict``."""
        starts, counts = (np.asarray(body[name], dtype=np.int64) for name in ("starts", "counts"))
        return cls(starts, int(body["length"]), counts)


def count_spans(count: Count, column: pa.Array | pa.ChunkedArray, times: NDArray[np.int64], edges: list[int]) -> Counts:
    """Counts of the rows between each two edges, shape (edges - 1, bins); ``times`` ascend with the rows."""
    places = np.searchsorted(times, edges).tolist()
    return np.stack([count(column.slice(low, high - low)) for low, high in pairwise(places)])


def count_labels(labels: pa.Array) -> Counts:
    """Rows labelled 0, and rows labelled 1."""
    positives = int(pc.sum(labels).as_py() or 0)
    return np.array([len(labels) - positives, positives])


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """One feature: its bins, frozen, and how many training rows fell into each.

    Attributes
    ----------
    profile : NumericProfile or CategoryProfile
    counts : ndarray of int64, shape (bins,)
    blocks : BlockCounts or None
        The same by block of time; None in versions that were trained without.
    """

    profile: Profile
    counts: Counts
    blocks: BlockCounts | None = None

    def season(self, moment: int) -> FeatureReference | None:
        """What of it lies in the season of a moment, in earlier years; None where that is too little."""
        blocks = None if self.blocks is None else self.blocks.season(moment)
        return None if blocks is None else replace(self, counts=blocks.counts.sum(0), blocks=blocks)


@dataclass(frozen=True, slots=True)
class Reference:
    """References by the column of the feature (:func:`feature_column`).

    ``score`` is the model's own output on the test rows, where given.
    ``labels`` counts the outcomes of the training, validation and test rows by block of time, 0 and 1; it is None in
    versions that were trained without.

    Examples
    --------
    >>> reference = Reference.of({"wind": pa.array([1.0, 2.0, None])})
    >>> Reference.from_json(reference.to_json()).features["wind"].counts.sum()
    np.int64(3)
    """

    features: Mapping[str, FeatureReference]
    labels: BlockCounts | None = None

    @classmethod
    def of(
        cls,
        columns: Mapping[str, pa.Array | pa.ChunkedArray],
        times: Mapping[str, NDArray[np.int64]] | None = None,
        labels: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None,
    ) -> Reference:
        """Profile columns: text as categories, everything else as numbers.

        Parameters
        ----------
        columns : mapping of str to Arrow column
        times : mapping of str to ndarray of int64, optional
            Moments of the rows of a column, microseconds since 1970-01-01 UTC; such a column is counted by block too.
        labels : (ndarray of float64, ndarray of int64), optional
            Outcomes, 0 or 1, and their moments.
        """
        references = {}
        for name, column in columns.items():
            textual = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            profile = CategoryProfile.of(column) if textual else NumericProfile.of(column)
            moments = (times or {}).get(name)
            blocks = None if moments is None or not len(moments) else BlockCounts.of(profile.count, column, moments)
            references[name] = FeatureReference(profile, profile.count(column), blocks)
        return cls(references, None if labels is None else BlockCounts.of(count_labels, pa.array(labels[0]), labels[1]))

    def to_json(self) -> bytes:
        """Canonical JSON: ``{feature: {"profile": …, "counts": […], "blocks": {…}}}``, blocks where there are any."""
        labels = {} if self.labels is None else {_LABELS: self.labels.to_dict()}
        return canonical_json({name: _body(reference) for name, reference in self.features.items()} | labels)

    @classmethod
    def from_json(cls, data: bytes) -> Reference:
        """Read what :meth:`to_json` wrote."""
        bodies = json.loads(data)
        labels = bodies.pop(_LABELS, None)
        features = {
            name: FeatureReference(
                profile_from_dict(body["profile"]),
                np.asarray(body["counts"], dtype=np.int64),
                BlockCounts.from_dict(body["blocks"]) if "blocks" in body else None,
            )
            for name, body in bodies.items()
        }
        return cls(features, None if labels is None else BlockCounts.from_dict(labels))


def _body(reference: FeatureReference) -> dict[str, Any]:
    body = {"profile": reference.profile.to_dict(), "counts": reference.counts.tolist()}
    return body if reference.blocks is None else {**body, "blocks": reference.blocks.to_dict()}
