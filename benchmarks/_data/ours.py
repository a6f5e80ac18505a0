"""Our jobs."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import world

DEFINITIONS = """
from retrodict import Table
keyed = Table("keyed", key="id", columns={columns})
plain = Table("plain", columns={columns})
"""


def table() -> Any:
    """The 40 checks."""
    from retrodict import Check, Table

    checks = [Check.not_null(name) for name in world.RANGES]
    checks += [Check.between(name, low, high) for name, (low, high) in world.RANGES.items()]
    checks += [Check.in_set(name, world.ALLOWED) for name in world.WORDS]
    checks += [Check.compare(a, "<=", b) for a, b in world.PAIRS]
    checks += [Check.mean(name, low, None) for name, low in world.MEAN_AT_LEAST.items()]
    checks += [Check.std(name, None, high) for name, high in world.STD_AT_MOST.items()]
    assert len(checks) == world.CHECKS
    return Table("bench", checks=checks)


def validate(path: str) -> dict[str, int]:
    """All checks on a file."""
    from retrodict.data.validation import check_source

    results = check_source(path, table())
    assert len(results) == world.CHECKS
    return dict(zip(world.labels(), (result.failed for result in results), strict=False))


def one_row(calls: int) -> dict[str, Any]:
    """Median microseconds of one row against the checks of rows."""
    from retrodict.data.validation import row_checker

    check = row_checker(table())
    for _ in range(calls // 10):
        check(world.ROW)
    taken = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        failing = check(world.ROW)
        taken.append(time.perf_counter_ns() - start)
    return {"us": statistics.median(taken) / 1000, "failing": len(failing)}


def _project(folder: str) -> Any:
    from retrodict.workspace import Workspace

    root = Path(folder)
    if not (root / "retrodict.toml").exists():
        root.mkdir(parents=True)
        (root / "definitions.py").write_text(DEFINITIONS.format(columns=world.TYPES))
        (root / "retrodict.toml").write_text('[project]\nname = "bench"\n')
    return Workspace(root, actor="bench")


def ingest(path: str, folder: str, name: str, mode: str = "append") -> dict[str, int]:
    """A file into a table of a project, a new one if there is none."""
    from retrodict.data.ingest import ingest as run

    with _project(folder) as project:
        report = run(project, name, path, mode=mode)
        return {"rows": report.accepted}


def files(folder: str, name: str) -> dict[str, list[str]]:
    """Data files of the first two versions of a table."""
    with _project(folder) as project:
        found = {}
        for version in (0, 1):
            paths = [file.path for file in project.tables.files(name, version)]
            found[str(version)] = [str(next(Path(folder).rglob(path))) for path in paths]
        return found


def diff(folder: str, name: str, statistics: bool) -> dict[str, int]:
    """The first two versions against each other."""
    from retrodict.data.versions import diff as run

    with _project(folder) as project:
        found = run(project, f"{name}@0", f"{name}@1", statistics=statistics)
        return {"added": found.added, "removed": found.removed, "changed": found.changed}
