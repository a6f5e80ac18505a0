"""Runs beside each other: metrics, what differs, in words what changed; and as a flat table for other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.errors import InputError, RetrodictError, check_known
from retrodict.learning.environment import environment_differences
from retrodict.learning.runs.record import Run, flatten
from retrodict.learning.runs.store import get_run
from retrodict.workspace import Workspace

__all__ = ["commit_text", "compare_runs", "export_runs", "flat_rows"]

FORMATS = ("csv", "json", "parquet")
_AT_MOST = 8  # sentences on one environment


def compare_runs(workspace: Workspace, refs: Sequence[str]) -> dict[str, Any]:
    """Side by side: the parameters, data and metrics in which runs differ or agree, and what changed in words.

    Returns
    -------
    dict
        ``runs`` (the ids), ``metrics`` (name to one value per run, test rows), ``differs`` (dotted key of parameters,
        data, code or environment to one value per run; only where not all are equal), ``changes`` (each run but the
        first to sentences on what is not as in the first), ``histories`` (metric to one list of (step, value) per run,
        for metrics with more than one step).
    """
    compared = [get_run(workspace, ref) for ref in refs]
    if not compared:
        raise InputError("a comparison must be of runs", where="runs", got="none", remedy="Name two or more")
    differs = _side_by_side([
        flatten({"params": r.params, "data": r.data, "code": r.code, "environment": r.environment, "seed": r.seed})
        for r in compared
    ])  # fmt: skip
    return {
        "runs": [run.ref for run in compared],
        "metrics": _side_by_side([run.metrics for run in compared]),
        "differs": {key: values for key, values in differs.items() if any(value != values[0] for value in values)},
        "changes": {run.ref: list(_changes(workspace, compared[0], run)) for run in compared[1:]},
        "histories": _side_by_side([_histories(run) for run in compared]),
    }


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {key: [column.get(key) for column in columns] for key in sorted({key for c in columns for key in c})}


def _histories(run: Run) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for point in sorted(run.points, key=lambda point: point.step):
        if point.value is not None:
            name = point.name if point.split == "test" else f"{point.split} {point.name}"
            series.setdefault(name, []).append((point.step, point.value))
    return {name: points for name, points in series.items() if len(points) > 1}


def _changes(workspace: Workspace, first: Run, other: Run) -> Iterator[str]:
    """Sentences on data, code, parameters, environment and seed, in this order."""
    yield from _data_changes(first.data, other.data)
    if first.code != other.code:
        files = [_json(workspace, digest).get("files", {}) for digest in (first.code, other.code)]
        names = sorted(name for name in {*files[0], *files[1]} if files[0].get(name) != files[1].get(name))
        yield f"code changed: {', '.join(names) or 'its files cannot be read'}"
    commits = [commit_text(git) if (git := run.data.get("git")) else "none" for run in (first, other)]
    if commits[0] != commits[1]:
        yield f"commit changed: {commits[0]} → {commits[1]}"
    before, after = flatten(first.params), flatten(other.params)
    for name in sorted({*before, *after}):
        if name not in before:
            yield f"parameter added: {name} = {after[name]}"
        elif name not in after:
            yield f"parameter dropped: {name} = {before[name]}"
        elif before[name] != after[name]:
            yield f"parameter changed: {name}, {before[name]} → {after[name]}"
    if first.environment != other.environment:
        described = [_json(workspace, digest) for digest in (first.environment, other.environment)]
        sentences = environment_differences(*described) if all(described) else ["its description cannot be read"]
        yield from (f"environment changed: {sentence}" for sentence in sentences[:_AT_MOST])
        if len(sentences) > _AT_MOST:
            yield f"environment changed: {len(sentences) - _AT_MOST} further differences"
    if first.seed != other.seed:
        yield f"seed changed: {first.seed} → {other.seed}"


def commit_text(git: Mapping[str, Any]) -> str:
    """What a run says of version control, for people: ``1a2b3c4d5e6f on main, edited``."""
    branch = f" on {git['branch']}" if git["branch"] else ""
    return f"{git['commit'][:12]}{branch}{', edited' if git['dirty'] else ''}"


def _data_changes(first: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    before, after = first.get("versions", {}), other.get("versions", {})
    for name in sorted({*before, *after}):
        if name not in before:
            yield f"data added: {name}@{after[name]}"
        elif name not in after:
            yield f"data dropped: {name}@{before[name]}"
        elif before[name] != after[name]:
            yield f"data changed: {name}@{before[name]} → @{after[name]}"
    for name in sorted({*first.get("frames", {}), *other.get("frames", {})}):
        frames = [data.get("frames", {}).get(name) for data in (first, other)]
        if frames[0] != frames[1]:
            rows = [f"{frame['rows']:,} rows" if frame else "none" for frame in frames]
            same = ", other values" if rows[0] == rows[1] else ""
            yield f"data changed: frame {name}, {rows[0]} → {rows[1]}{same}"
    if before == after and first.get("frame") != other.get("frame"):
        yield "data changed: other rows or features of the same table versions"


def _json(workspace: Workspace, digest: str) -> dict[str, Any]:
    try:
        body = json.loads(workspace.objects.get(digest))
    except (RetrodictError, ValueError):  # it is gone or no description: the caller says so
        return {}
    return body if isinstance(body, dict) else {}


def flat_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per run: columns of the run, then ``metrics.…``, ``params.…`` and ``tags.…`` by dotted name.

    Metrics of other rows than the test rows are ``metrics.SPLIT.NAME``; parameters that are no single value are JSON.
    """
    rows = []
    for run in runs:
        times = {name: None if at is None else format_time(at)
                 for name, at in (("started", run.started), ("finished", run.finished))}  # fmt: skip
        row: dict[str, Any] = {
            "run": run.ref, "kind": run.kind, "name": run.name, "model": run.model, "status": run.status,
            "parent": run.parent and f"run:{run.parent}", "actor": run.actor, **times, "seconds": run.seconds,
            "seed": run.seed, "code": run.code, "environment": run.environment, "note": run.note,
            "data": ", ".join(f"{name}@{version}" for name, version in sorted(run.data["versions"].items())),
        }  # fmt: skip
        for split in sorted({point.split for point in run.points}):
            prefix = "metrics." if split == "test" else f"metrics.{split}."
            row |= {f"{prefix}{name}": value for name, value in run.values(split).items()}
        for name, value in sorted(flatten(run.params).items()):
            row[f"params.{name}"] = json.dumps(value) if isinstance(value, list | dict) else value
        row |= {f"tags.{name}": value for name, value in sorted(run.tags.items())}
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def export_runs(runs: Sequence[Run], path: Path, format_: str | None = None) -> int:
    """Write runs as a flat table, and return the number of rows.

    Parameters
    ----------
    runs : sequence of Run
    path : Path
        File that is written; the format is that of its ending unless said.
    format_ : {"csv", "json", "parquet"}, optional
        In Parquet a parameter that is a number in some runs and text in others is text.

    Raises
    ------
    InputError
        If the format is none of these.
    """
    rule = "runs must be exported in a known format"
    kind = check_known(format_ or path.suffix.lstrip("."), FORMATS, rule, where=str(path.name), what="format")
    rows = flat_rows(runs)
    if kind == "json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    elif kind == "csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["run"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: _of_one_type([row[name] for row in rows]) for name in (rows[0] if rows else {"run": None})}
        pq.write_table(pa.table(columns), path)
    return len(rows)


def _of_one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return values
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
