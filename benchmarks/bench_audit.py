"""``audit verify`` of a long ledger, beside SHA-256 over the same payloads read by plain ``sqlite3``.

``python benchmarks/bench_audit.py [ENTRIES]``, 200,000 by default; the last line is one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from retrodict.ledger import verify
from retrodict.workspace import Workspace

ROUNDS = 5
PAYLOADS = "SELECT payload FROM ledger_entries ORDER BY sequence"


def seconds(call: Callable[[], object]) -> tuple[list[float], float]:
    """Wall time of each round, and the least processor time of this thread: others on the machine disturb it less."""
    times, own = [], []
    for _ in range(ROUNDS):
        started, before = time.perf_counter(), time.thread_time()
        call()
        times.append(time.perf_counter() - started)
        own.append(time.thread_time() - before)
    return times, min(own)


def build(workspace: Workspace, count: int) -> None:
    """Three of four entries with an input, in transactions of two thousand."""
    for start in range(0, count, 2000):
        with workspace.ledger.transaction() as tx:
            for n in range(start, min(start + 2000, count)):
                facts = {"text": "x" * 150, "n": n, "score": 0.25, "items": [1, 2, 3]}
                tx.append("note.write", f"note:{n}", facts, inputs=[("note:0", "before")] if n % 4 else [])


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "retrodict.toml").write_text('[project]\nname = "long"\n')
        (root / "definitions.py").write_text("")
        with Workspace(root, actor="ana") as workspace:
            build(workspace, count)
            parts = {"objects": workspace.objects, "streams": workspace.streams, "data": workspace.tables}
            path = workspace.config.path("stores.records")

            def floor() -> None:
                with closing(sqlite3.connect(path)) as records:
                    for (payload,) in records.execute(PAYLOADS):
                        hashlib.sha256(payload.encode()).digest()

            def audit() -> None:
                assert verify(workspace.ledger, **parts).verified  # type: ignore[arg-type]  # one store each, by name

            (ours, thread), (plain, plain_thread) = seconds(audit), seconds(floor)
    best = min(ours)
    figures = {
        "entries": count,
        "entries_per_s": round(count / best),
        "first_per_s": round(count / ours[0]),
        "floor_per_s": round(count / min(plain)),
        "ratio": round(best / min(plain), 1),
        "entries_per_cpu_s": round(count / thread),
        "cpu_ratio": round(thread / plain_thread, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(f"audit verify: {figures['entries_per_s']:,} entries/s, {figures['ratio']} times the floor "
          f"({figures['floor_per_s']:,}/s: payloads read and hashed), {figures['peak_mb']} MB; "
          f"processor time of the reading thread: {figures['entries_per_cpu_s']:,} entries/s, "
          f"{figures['cpu_ratio']} times the floor")  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
