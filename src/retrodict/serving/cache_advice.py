"""What the score caches of a server are worth, by what was counted, and what would be worth more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrodict.decisions.score_cache import ScoreCache
from retrodict.decisions.servant import Servant

__all__ = ["cache_reports"]

_LEAST, _GAIN = 1_000, 0.05  # decisions before anything is advised, and share of them that makes a change worth it
_REDIS = ("hit", "miss", "late", "away", "unusable", "written", "not_written")


def cache_reports(counters: Mapping[tuple[str, str], int], servants: Mapping[str, Servant]) -> dict[str, Any]:
    """Hit ratio, saved time, evictions and advice for each policy that has a cache."""
    caches = {name: servant.cache for name, servant in servants.items() if servant.cache is not None}
    return {name: _report(counters, name, cache) for name, cache in caches.items()}


def _report(counters: Mapping[tuple[str, str], int], policy: str, cache: ScoreCache) -> dict[str, Any]:
    def counted(what: str, label: str = "") -> int:
        return counters.get((f"score_cache_{what}", f'policy="{policy}"{label}'), 0)

    hits, misses = (counted("total", f',result="{result}"') for result in ("hit", "miss"))
    new, size, age = (counted("misses_total", f',reason="{reason}"') for reason in ("new", "size", "age"))
    decisions = hits + misses
    facts = cache.describe()

    def share(count: int) -> float | None:
        return round(min(1.0, max(0.0, count / decisions)), 4) if decisions else None

    local = decisions - new - size - age  # hits without Redis
    return {
        **facts, "decisions": decisions, "hits": hits, "hit_ratio": share(hits),
        "saved_us": counted("saved_microseconds_total"), "evictions": counted("evictions_total"),
        "local_hit_ratio": share(local), "with_twice_the_size": share(local + size),
        "with_twice_the_age": share(local + age),
        "redis_results": {result: n for result in _REDIS if (n := counted("shared_total", f',result="{result}"'))},
        "advice": _advice(facts, decisions, hits, size, age),
    }  # fmt: skip


def _advice(facts: Mapping[str, Any], decisions: int, hits: int, size: int, age: int) -> str:
    """One sentence or two, in the words of the settings."""
    if decisions < _LEAST:
        return f"Nothing can be advised before {_LEAST:,} decisions; there were {decisions:,}."
    sentences = []
    if size >= _GAIN * decisions:
        sentences.append(f"serving.cached_scores = {2 * facts['size']} would answer {size / decisions:.0%} more from "
                         "this process: their rows had been dropped for want of room.")  # fmt: skip
    if age >= _GAIN * decisions:
        sentences.append(f'cache="{2 * facts["max_age_s"]:g}s" would answer {age / decisions:.0%} more from this '
                         "process: their scores had become too old.")  # fmt: skip
    if not sentences and hits < _GAIN * decisions:
        return "The same rows hardly come again: the policy may as well have no cache."
    return " ".join(sentences) or "Size and age fit: twice as much of either would change less than 5 %."
