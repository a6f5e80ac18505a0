"""Scores of rows that were scored before: what a model gives is kept, never what was decided.

Rules, thresholds, freshness and reasons are looked at anew for each request, so a cached score can make no decision
that the model would not make. The key is the row as the engine reads it, whole, and not its hash; a cache belongs to
one servant, so to one artifact, feature set and revision, and goes with it. A score enters with a durable record only:
what names a decision as its source names one that is in the log. TinyLFU by ``theine`` was chosen over an LRU: rows
that come once, which are most of them, do not push out those that come again.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from datetime import timedelta

from retrodict.core.durations import parse_duration
from retrodict.core.errors import MissingExtraError
from retrodict.decisions.records import DecisionRecord
from retrodict.models.artifact import ModelArtifact, Score

__all__ = ["ScoreCache"]


class ScoreCache:
    """Scores by row of one model; for one servant. Threads may share it.

    Parameters
    ----------
    model : ModelArtifact
    artifact : str
        Its digest: records of another one are not kept.
    max_age : duration
        How long a score is kept.
    size : int
        How many are.
    """

    def __init__(self, model: ModelArtifact, artifact: str, *, max_age: str, size: int) -> None:
        try:
            from theine import Cache
        except ImportError:
            raise MissingExtraError("theine", "cache", needed_for="a policy with a cache") from None
        self._model, self._artifact = model, artifact
        self._kept: Cache[bytes, tuple[bytes, float, Score, str]] = Cache(size)
        weakref.finalize(self, self._kept.close)  # whose timer would hold it for ever
        self._max_age = timedelta(microseconds=parse_duration(max_age))
        self._spent = self._count = 0

    def find(self, row: bytes) -> tuple[Score, str] | None:
        """Score of a row, and the decision that it was made for; None if it is not kept."""
        entry, _ = self._kept.get(row)
        return None if entry is None or entry[0] != row or entry[1] <= time.monotonic() else entry[2:]

    def keep(self, record: DecisionRecord) -> None:
        """Keep the score of a decision that is durable, if the model made it."""
        if record.artifact != self._artifact or record.cached is not None or record.fallback is not None:
            return
        if (
            any(name in record.features for name in record.masked) and record.schema > 1
        ):  # from the log: no row is known
            return
        self._spent, self._count = self._spent + record.stages.get("score", 0), self._count + 1
        row = self._model.row_of(record.features)
        outputs = record.outputs or ({} if record.score is None else {"score": record.score})
        until = time.monotonic() + self._max_age.total_seconds()
        self._kept.set(row, (row, until, Score(record.raw, record.score, outputs), record.id), self._max_age)

    def warm(self, records: Iterable[DecisionRecord]) -> None:
        """Keep the scores of logged decisions."""
        for record in records:
            self.keep(record)

    def saved_us(self, record: DecisionRecord) -> int:
        """Microseconds that a decision has saved: what the model takes on average, less what it took."""
        mean = self._spent // self._count if self._count else 0
        return max(0, mean - record.stages.get("score", 0)) if record.cached is not None else 0
