"""Quantiles as one engine per level: sorted, so that they never cross."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.identity import canonical_json, digest
from retrodict.core.tasks import Target
from retrodict.models.engines.base import Engine
from retrodict.models.estimators import load_engine

__all__ = ["LevelsEngine"]

_FILE = "levels.json"


class LevelsEngine:
    """Engines of one quantile each, in the order of the levels.

    Sorting never makes the pinball loss worse (Chernozhukov, Fernandez-Val and Galichon 2010). Margins and
    contributions are those of the engine of the level, before sorting.

    Parameters
    ----------
    target : Target
        With the quantiles.
    members : sequence of Engine
    """

    kind: ClassVar[str] = "lightgbm_levels"

    def __init__(self, target: Target, members: Sequence[Engine]) -> None:
        self.target, self.members = target, tuple(members)

    @property
    def exact_rows(self) -> bool:
        """Where the members are."""
        return all(member.exact_rows for member in self.members)

    @property
    def explains(self) -> bool:
        """Where the members do."""
        return all(member.explains for member in self.members)

    @property
    def width(self) -> int:
        """Number of features."""
        return self.members[0].width

    def _shape(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values[:, 0] if len(self.members) == 1 else values

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles, ascending."""
        return self._shape(np.sort(np.stack([member.scores(matrix) for member in self.members], axis=1), axis=1))

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Quantiles of one row."""
        values = sorted([member.score_row(row) for member in self.members])
        return values[0] if len(values) == 1 else tuple(values)

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each member gives, unsorted."""
        return self._shape(np.stack([member.margins(matrix) for member in self.members], axis=1))

    def margin(self, row: NDArray[np.float64]) -> Any:
        """What each member gives for one row, unsorted."""
        values = tuple(member.margin(row) for member in self.members)
        return values[0] if len(values) == 1 else values

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Those of each member."""
        shares = np.stack([member.contributions(row) for member in self.members])
        return shares[0] if len(self.members) == 1 else shares

    def parts(self) -> Mapping[str, bytes]:
        """Files of the members, each under its number."""
        body = {"target": self.target.to_dict(), "kinds": [member.kind for member in self.members]}
        files = {
            f"{at}/{name}": data for at, member in enumerate(self.members) for name, data in member.parts().items()
        }
        return {_FILE: canonical_json(body), **files}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> LevelsEngine:
        """Read what :meth:`parts` gave."""
        body = json.loads(parts[_FILE])
        members = []
        for at, kind in enumerate(body["kinds"]):
            own_parts = {name.partition("/")[2]: data for name, data in parts.items() if name.startswith(f"{at}/")}
            members.append(load_engine(kind, own_parts))
        return cls(Target.from_dict(body["target"]), members)

    def fingerprint(self) -> str:
        """SHA-256 of those of the members."""
        return digest(canonical_json([member.fingerprint() for member in self.members]))
