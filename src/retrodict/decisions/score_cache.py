"""Scores of rows that were scored before: what a model gives is kept, never what was decided.

Rules, thresholds, freshness and reasons are looked at anew for each request, so a cached score can make no decision
that the model would not make. The key is the row as the engine reads it, whole, and not its hash; a cache belongs to
one servant, so to one artifact, feature set and revision, and goes with it. A score enters with a durable record only:
what names a decision as its source names one that is in the log. TinyLFU by ``theine`` was chosen over an LRU: rows
that come once, which are most of them, do not push out those that come again.

Behind it there may be a second tier in Redis, for all processes whose model is the same: artifact, features, outputs,
and bits on this machine. A value there is sealed with all of that as the key and holds the row, so that one of another
model, of another row, or that somebody damaged, is a miss. It is asked only where that is quicker than the model.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from retrodict.core.clock import Clock
from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import MissingExtraError
from retrodict.core.identity import canonical_json
from retrodict.decisions.records import DecisionRecord
from retrodict.models.artifact import THREAD_US, ModelArtifact, Score

if TYPE_CHECKING:  # which loads redis
    from retrodict.stores.keys.cache import ExpiringKeys

__all__ = ["ScoreCache"]

_FORMAT = 1
_SEAL = 32  # bytes
_WAIT_NS = 20_000_000  # for Redis, and no more than a quarter of what is left until the deadline

Hit = tuple[Score, str]


class _Entry(NamedTuple):
    identity: bytes
    row: bytes
    until: float
    score: Score
    source: str


class _SharedScore(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Value in Redis; ``at``: microseconds since 1970-01-01 UTC."""

    row: bytes
    raw: float | None
    score: float | None
    outputs: dict[str, float]
    source: str
    at: int


_decode = msgspec.msgpack.Decoder(_SharedScore).decode
_encode = msgspec.msgpack.Encoder().encode


class ScoreCache:
    """Scores by row of one model; for one servant. Threads may share it.

    Parameters
    ----------
    model : ModelArtifact
    artifact, features : str
        Its digest (records of another one are not kept), and the version of its feature set.
    clock : Clock
    max_age : duration
        How long a score is kept.
    size : int
        How many are, in this process.
    shared : ExpiringKeys or str, optional
        Second tier; a text: why there is none.

    Attributes
    ----------
    row_us : float
        Microseconds that the engine takes for a row; 0 until that was measured.
    """

    def __init__(
        self,
        model: ModelArtifact,
        artifact: str,
        *,
        features: str,
        clock: Clock,
        max_age: str,
        size: int,
        shared: ExpiringKeys | str,
    ) -> None:
        try:
            from theine import Cache
        except ImportError:
            raise MissingExtraError("theine", "cache", needed_for="a policy with a cache") from None
        self._model, self._artifact, self._clock = model, artifact, clock
        self._kept: Cache[bytes, _Entry] = Cache(size)
        weakref.finalize(self, self._kept.close)  # whose timer would hold it for ever
        self._max_age, self._size = parse_duration(max_age), size
        self._shared = None if isinstance(shared, str) else shared
        self._absent = shared if isinstance(shared, str) else ""
        here = "" if self._shared is None else model.answers().hex()
        self._parts = [_FORMAT, artifact, features, list(model.outputs), here]
        self._spent = self._count = 0
        self._lock, self._counts = threading.Lock(), Counter[tuple[str, str]]()
        self._ages: dict[int, float] = {}  # until when the scores of the newest rows count, kept or not
        self.row_us, self._dropped = 0.0, -1
        self.drop(0)

    def drop(self, mark: int) -> None:
        """Forget every score that was kept under another mark, here and in Redis."""
        if mark != self._dropped:
            self._dropped = mark
            self._identity = blake2b(canonical_json([*self._parts, mark]), digest_size=32).digest()
            with self._lock:
                self._ages = {}

    def find(self, row: bytes) -> Hit | None:
        """Score of a row, and the decision that it was made for; None if this process has not kept it."""
        entry, _ = self._kept.get(row)
        now = time.monotonic()
        if entry is not None and entry[:2] == (self._identity, row) and entry.until > now:
            return entry.score, entry.source
        with self._lock:
            until = self._ages.get(hash(row), 0.0)
            reason = "size" if until > now else "age" if until + self._max_age / SECOND > now and until else "new"
            self._counts["score_cache_misses_total", f'reason="{reason}"'] += 1
        return None

    def find_many(self, rows: Sequence[bytes], deadline: int) -> list[Hit | None]:
        """As :meth:`find`; what is not there is asked of Redis, where that is worth it, for 20 ms at most.

        ``deadline``: ``time.perf_counter_ns()`` until which the decisions have time; a quarter of it may go by here.
        """
        hits = [self.find(row) for row in rows]
        missing = [place for place, hit in enumerate(hits) if hit is None]
        if not missing or not self.asks_redis:
            return hits
        assert self._shared is not None
        identity, now = self._identity, self._clock.now()
        wait_s = max(0, min(_WAIT_NS, (deadline - time.perf_counter_ns()) // 4)) / 1e9
        values = self._shared.get_many([_key(identity, rows[place]) for place in missing], wait_s)
        if isinstance(values, str):
            self._note("shared", values, len(missing))
            return hits
        for place, value in zip(missing, values, strict=True):
            entry = None if value is None else self._opened(identity, rows[place], value, now)
            self._note("shared", "miss" if value is None else "unusable" if entry is None else "hit")
            if entry is not None:
                self._keep(entry)
                hits[place] = entry.score, entry.source
        return hits

    @property
    def asks_redis(self) -> bool:
        """Whether asking Redis takes at most half as long as the model, whose call is worth a thread."""
        trip = None if self._shared is None else self._shared.trip_us
        return trip is not None and self.row_us > max(THREAD_US, 2 * trip)

    def _opened(self, identity: bytes, row: bytes, value: bytes, now: int) -> _Entry | None:
        """Entry of a value from Redis; None if it is not of this model and row, too old, or not what was written."""
        if not compare_digest(value[:_SEAL], _seal(identity, value[_SEAL:])):
            return None
        try:
            shared = _decode(value[_SEAL:])
        except msgspec.MsgspecError:
            return None
        left = self._max_age - max(0, now - shared.at)
        if shared.row != row or left <= 0:
            return None
        score = Score(shared.raw, shared.score, shared.outputs)
        return _Entry(identity, row, time.monotonic() + left / SECOND, score, shared.source)

    def keep(self, record: DecisionRecord) -> None:
        """Keep the score of a decision that is durable, if the model made it."""
        if record.artifact != self._artifact or record.cached is not None or record.fallback is not None:
            return
        if (
            any(name in record.features for name in record.masked) and record.schema > 1
        ):  # from the log: no row is known
            return
        self._spent, self._count = self._spent + record.stages.get("score", 0), self._count + 1
        identity, row = self._identity, self._model.row_of(record.features)
        outputs = record.outputs or ({} if record.score is None else {"score": record.score})
        score = Score(record.raw, record.score, outputs)
        self._keep(_Entry(identity, row, time.monotonic() + self._max_age / SECOND, score, record.id))
        if self._shared is not None and self.row_us > THREAD_US:
            value = _encode(_SharedScore(row, record.raw, record.score, outputs, record.id, self._clock.now()))
            stored = self._shared.put(
                _key(identity, row), _seal(identity, value) + value, max(1, self._max_age // 1_000)
            )
            self._note("shared", "written" if stored else "not_written")

    def _keep(self, entry: _Entry) -> None:
        left = timedelta(seconds=max(1e-6, entry.until - time.monotonic()))
        with self._lock:
            self._counts["score_cache_evictions_total", ""] += len(self._kept) >= self._size
            self._ages.pop(hash(entry.row), None)
            self._ages[hash(entry.row)] = entry.until
            if len(self._ages) > 2 * self._size:
                del self._ages[next(iter(self._ages))]
        self._kept.set(entry.row, entry, left)

    def warm(self, records: Iterable[DecisionRecord]) -> None:
        """Keep the scores of logged decisions."""
        for record in records:
            self.keep(record)

    def saved_us(self, record: DecisionRecord) -> int:
        """Microseconds that a decision has saved: what the model takes on average, less what it took."""
        mean = self._spent // self._count if self._count else round(self.row_us)
        return max(0, mean - record.stages.get("score", 0)) if record.cached is not None else 0

    def _note(self, what: str, result: str, count: int = 1) -> None:
        with self._lock:
            self._counts[f"score_cache_{what}_total", f'result="{result}"'] += count

    def take_counts(self) -> Counter[tuple[str, str]]:
        """What was counted since the last time, by the name of a counter and its label."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def describe(self) -> dict[str, Any]:
        """Its limits, what it holds in this process, and whether Redis is asked."""
        model, trip = f"the model takes {self.row_us:,.0f} µs a row", self._shared and self._shared.trip_us
        if self._shared is None:
            shared = f"not asked: {self._absent}"
        elif self.row_us <= THREAD_US:
            shared = f"not asked: {model}, and asking is worth it above {THREAD_US:g} µs"
        elif trip is None:
            shared = "not asked: Redis has not answered yet"
        else:
            word = "asked" if self.asks_redis else "not asked"
            shared = f"{word}: a round trip takes {trip:,.0f} µs, {model}"
        return {"size": self._size, "entries": len(self._kept), "max_age_s": self._max_age / SECOND, "redis": shared}


def _key(identity: bytes, row: bytes) -> bytes:
    return blake2b(row, key=identity, digest_size=32).digest()


def _seal(identity: bytes, payload: bytes) -> bytes:
    return blake2b(payload, key=identity, person=b"score", digest_size=_SEAL).digest()
