"""Counters and latency histograms of one server process, readable by Prometheus and as plain numbers.

A histogram has fixed bounds (about 12 % apart), so it never grows, merges by addition and gives quantiles to within one
bound. The client library of Prometheus was left out: a dozen series do not need a registry with locks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrodict.decisions.records import DecisionRecord

__all__ = ["BOUNDS", "Telemetry", "breaker_states", "process_series", "quantile", "revision_label"]

BOUNDS = tuple(round(10.0 * 10 ** (step / 20)) for step in range(121))
"""Upper bounds in microseconds: 10 µs to 10 s, twenty per power of ten; the last bin is open."""


class Telemetry:
    """What one process has seen since it started; used from one thread."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, str], int] = defaultdict(int)
        self.histograms: dict[str, list[int]] = {}
        self.sums: dict[str, int] = defaultdict(int)

    def count(self, name: str, label: str = "", by: int = 1) -> None:
        """Add to a counter; ``label`` is ready Prometheus text such as ``status="200"``."""
        self.counters[name, label] += by

    def observe(self, stage: str, micros: int) -> None:
        """Add one duration to a stage's histogram."""
        histogram = self.histograms.get(stage)
        if histogram is None:
            histogram = self.histograms[stage] = [0] * (len(BOUNDS) + 1)
        histogram[bisect_left(BOUNDS, micros)] += 1
        self.sums[stage] += micros

    def count_request(self, records: Sequence[DecisionRecord], micros: int) -> None:
        """Count a request that was answered so, and its time, for the revision that answered."""
        label = revision_label(records[0].policy, records[0].revision)
        self.counters["revision_requests_total", label] += 1
        self.counters["revision_cases_total", label] += len(records)
        self.counters["revision_microseconds_total", f'{label},stage="total"'] += micros
        for record in records:
            for stage, spent in record.stages.items():
                self.counters["revision_microseconds_total", f'{label},stage="{stage}"'] += spent

    def named(self) -> dict[str, int]:
        """Counters by name and label."""
        return {f"{name}{{{label}}}" if label else name: value for (name, label), value in self.counters.items()}

    def counts(self) -> dict[str, Any]:
        """Everything counted, in a form that JSON holds."""
        counters = [[name, label, value] for (name, label), value in self.counters.items()]
        return {"counters": counters, "histograms": self.histograms, "sums": dict(self.sums)}

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what another process has counted, as its :meth:`counts` says."""
        for name, label, value in counts["counters"]:
            self.counters[name, label] += value
        for stage, bins in counts["histograms"].items():
            mine = self.histograms.get(stage, [0] * len(bins))
            self.histograms[stage] = [one + other for one, other in zip(mine, bins, strict=True)]
        for stage, micros in counts["sums"].items():
            self.sums[stage] += micros

    def latencies(self) -> dict[str, dict[str, float]]:
        """Count, p50, p95 and p99 in milliseconds per stage."""
        return {
            stage: {"count": float(sum(counts)), **{f"p{q}_ms": quantile(counts, q / 100) / 1e3 for q in (50, 95, 99)}}
            for stage, counts in sorted(self.histograms.items())
        }

    def exposition(self) -> str:
        """Text format of Prometheus, version 0.0.4."""
        lines: list[str] = []
        for (name, label), value in sorted(self.counters.items()):
            head = f"# TYPE retrodict_{name} counter"
            if head not in lines:
                lines.append(head)
            lines.append(f"retrodict_{name}{{{label}}} {value}" if label else f"retrodict_{name} {value}")
        lines.append("# TYPE retrodict_stage_seconds histogram")
        for stage, counts in sorted(self.histograms.items()):
            total = 0
            for bound, count in zip(BOUNDS, counts, strict=False):
                total += count
                lines.append(f'retrodict_stage_seconds_bucket{{stage="{stage}",le="{bound / 1e6:g}"}} {total}')
            total = sum(counts)
            lines.append(f'retrodict_stage_seconds_bucket{{stage="{stage}",le="+Inf"}} {total}')
            lines.append(f'retrodict_stage_seconds_sum{{stage="{stage}"}} {self.sums[stage] / 1e6:g}')
            lines.append(f'retrodict_stage_seconds_count{{stage="{stage}"}} {total}')
        return "\n".join(lines) + "\n"


def revision_label(policy: str, revision: int) -> str:
    """Label of what is counted for one revision of a policy."""
    return f'policy="{policy}",revision="{revision}"'


def breaker_states(processes: Iterable[Mapping[str, Any]]) -> str:
    """How many processes have the circuit breaker of each store in which state, in the text format of Prometheus."""
    states: dict[str, dict[str, int]] = {}
    for facts in processes:
        for store, state in facts.get("stores", {}).items():
            counts = states.setdefault(store, {"closed": 0, "open": 0, "half_open": 0})
            counts[state] += 1
    lines = [f'retrodict_store_breaker_processes{{store="{store}",state="{state}"}} {count}'
             for store, counts in sorted(states.items()) for state, count in counts.items()]  # fmt: skip
    return "\n".join(["# TYPE retrodict_store_breaker_processes gauge", *lines, ""]) if lines else ""


_PROCESSES = (
    ("up", "gauge"), ("requests_total", "counter"), ("restarts_total", "counter"), ("requests_in_flight", "gauge"),
    ("load", "gauge"), ("cpu_seconds_total", "counter"),
)  # fmt: skip
_FACTS = {"requests_total": "requests", "restarts_total": "restarts", "requests_in_flight": "in_flight",
          "cpu_seconds_total": "cpu_s"}  # fmt: skip


def process_series(processes: Sequence[Mapping[str, Any]]) -> str:
    """What each process that answers says of itself, for Prometheus; one that was let go is not down."""
    lines: list[str] = []
    for name, kind in _PROCESSES:
        key = _FACTS.get(name, name)
        lines.append(f"# TYPE retrodict_worker_{name} {kind}")
        for place, facts in enumerate(processes):
            if name != "up" or facts.get("on_duty", True):
                worker, value = facts.get("worker", place), facts.get(key, key == "up") + 0
                lines.append(f'retrodict_worker_{name}{{worker="{worker}"}} {value}')
    return "\n".join([*lines, ""])


def quantile(counts: list[int], share: float) -> float:
    """Upper bound in microseconds of the bin that holds a quantile; 0 for an empty histogram."""
    total = sum(counts)
    if not total:
        return 0.0
    rank, seen = share * total, 0
    for bound, count in zip((*BOUNDS, BOUNDS[-1]), counts, strict=True):
        seen += count
        if seen >= rank and count:
            return float(bound)
    return float(BOUNDS[-1])
