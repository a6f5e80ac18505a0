"""The reference of a model version: a profile of every feature with the counts of the rows it was trained on.

Kept as one JSON object beside the model, so that drift is judged months later against exactly those rows, without them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.identity import canonical_json
from retrodict.core.statistics.profiles import CategoryProfile, NumericProfile, profile_from_dict

__all__ = ["FeatureReference", "Reference"]


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """One feature: its bins, frozen, and how many training rows fell into each; ``counts`` has shape (bins,)."""

    profile: NumericProfile | CategoryProfile
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reference:
    """References by feature name; ``score`` is the model's own output on the test rows, where given.

    Examples
    --------
    >>> reference = Reference.of({"wind": pa.array([1.0, 2.0, None])})
    >>> Reference.from_json(reference.to_json()).features["wind"].counts.sum()
    np.int64(3)
    """

    features: Mapping[str, FeatureReference]

    @classmethod
    def of(cls, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> Reference:
        """Profile columns: text as categories, everything else as numbers."""
        references = {}
        for name, column in columns.items():
            textual = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            profile = CategoryProfile.of(column) if textual else NumericProfile.of(column)
            references[name] = FeatureReference(profile, profile.count(column))
        return cls(references)

    def to_json(self) -> bytes:
        """Canonical JSON: ``{feature: {"profile": …, "counts": […]}}``."""
        return canonical_json({
            name: {"profile": reference.profile.to_dict(), "counts": [int(count) for count in reference.counts]}
            for name, reference in self.features.items()
        })  # fmt: skip

    @classmethod
    def from_json(cls, data: bytes) -> Reference:
        """Read what :meth:`to_json` wrote."""
        return cls({
            name: FeatureReference(profile_from_dict(body["profile"]), np.asarray(body["counts"], dtype=np.int64))
            for name, body in json.loads(data).items()
        })  # fmt: skip
