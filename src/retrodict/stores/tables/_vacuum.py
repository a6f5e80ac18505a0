"""What a vacuum may delete: counted by reference over all versions that stay, never by age.

The log says first which versions end, and only then are files deleted. A process that dies between leaves files that
no readable version needs, and the next vacuum finds them. Files that no entry names belong to a write that died, or to
one that has not committed yet: an hour tells the two apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import accumulate

from retrodict.core.clock import SystemClock
from retrodict.stores.tables._log import Log
from retrodict.stores.tables._places import Place, mapping
from retrodict.stores.tables.base import TableFile, VacuumReport

_HOUR = 3_600_000_000  # µs


def plan(place: Place, log: Log, keep: Collection[int]) -> VacuumReport:
    """Files that go when only the versions of ``keep`` (and the newest) must stay readable.

    NotFoundError if one of them does not exist or was vacuumed before.
    """
    assert log.newest is not None
    retained = sorted({*keep, log.newest.version})
    for version in retained:
        log.readable(version)
    lives = log.lives()
    needed = {path for path, first, end in lives if any(first <= version < end for version in retained)}
    stay, ended = _parted(log, [(first, end) for path, first, end in lives if path not in needed])
    files = {file.path: file for commit in log.commits for file in (*commit.added, *commit.replaced.values())}
    late = SystemClock().now() - _HOUR
    deleted = []
    with mapping(f"table {log.table}"):
        candidates = place.stored(log.table)
    for stored in candidates:
        file = files.get(stored.path)
        if stored.path in needed or (file is None and stored.time >= late):
            continue
        # Nobody counted the rows of a file that no entry names.
        deleted.append(TableFile(stored.path, stored.size, 0 if file is None else file.rows or 0))
    deleted.sort(key=lambda file: file.path)
    return VacuumReport(ended, tuple(deleted), stay)


def _parted(log: Log, lives: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Versions that stay readable and versions that end, when files of these lives go."""
    steps = Counter(first for first, _ in lives)
    steps.subtract(end for _, end in lives)
    missing = list(accumulate(steps[version] for version in range(len(log.commits))))
    readable = [version for version in range(len(log.commits)) if version not in log.vacuumed]
    return tuple(v for v in readable if not missing[v]), tuple(v for v in readable if missing[v])
