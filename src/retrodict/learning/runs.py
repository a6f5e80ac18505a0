"""The evaluation store: every run with its parameters, metrics by step and artifacts; searched and compared by SQL.

A run is written in two transactions, at its beginning and at its end: metrics are kept in memory in between. A run that
dies leaves a row with status ``running`` and no end, never half its metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, insert, select, update

from retrodict.core.clock import format_time
from retrodict.core.errors import NotFoundError, near
from retrodict.core.identity import Ref
from retrodict.learning.schema import artifacts, metadata, metrics, runs
from retrodict.workspace import Workspace

__all__ = ["Artifact", "MetricPoint", "Run", "compare_runs", "finish_run", "get_run", "list_runs", "start_run"]


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One number of a run: on which rows (``train``, ``test``, ``test/logistic`` …), which step, interval."""

    split: str
    name: str
    value: float | None
    step: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a run: its name, SHA-256 in the object store, and media type."""

    name: str
    digest: str
    media: str


@dataclass(slots=True)
class Run:
    """One training.

    Attributes
    ----------
    id : str
        ULID.
    model, status, actor : str
        Name of the model; ``running``, ``finished`` or ``failed``; who started it.
    started, finished : int
        Microseconds since 1970-01-01 UTC, by the project's clock.
    seconds : float
        How long it took, by the host's monotonic clock.
    seed : int
    code, environment : str
        SHA-256 of the project's code and of the environment's description, in the object store.
    data : dict
        Table to version, and the hash of the training rows that came of them.
    params : dict
        Everything the recipe was run with, defaults included.
    summary : dict
        What the run came to: artifact, tree hash, fingerprint, ladder, gates.
    """

    id: str
    model: str
    status: str
    actor: str
    started: int
    seed: int
    code: str
    environment: str
    data: dict[str, Any]
    params: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)
    finished: int | None = None
    seconds: float | None = None
    metrics: list[MetricPoint] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    @property
    def ref(self) -> str:
        """``run:ULID``."""
        return f"run:{self.id}"

    def values(self, split: str) -> dict[str, float | None]:
        """Metrics of one split at their last step."""
        last: dict[str, MetricPoint] = {}
        for point in self.metrics:
            if point.split == split and (point.name not in last or point.step >= last[point.name].step):
                last[point.name] = point
        return {name: point.value for name, point in sorted(last.items())}

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        splits = sorted({point.split for point in self.metrics if point.step == 0})
        return {
            "run": self.ref,
            "model": self.model,
            "status": self.status,
            "actor": self.actor,
            "started": format_time(self.started),
            "finished": format_time(self.finished) if self.finished is not None else None,
            "seconds": self.seconds,
            "seed": self.seed,
            "code": self.code,
            "environment": self.environment,
            "data": self.data,
            "params": self.params,
            "summary": self.summary,
            "metrics": {split: self.values(split) for split in splits},
            "artifacts": {artifact.name: artifact.digest for artifact in self.artifacts},
        }


def start_run(workspace: Workspace, run: Run) -> None:
    """Record that a run began."""
    workspace.records.ensure(metadata)
    with workspace.ledger.transaction() as tx:
        row = {
            "id": run.id,
            "model": run.model,
            "status": run.status,
            "actor": run.actor,
            "started": run.started,
            "seed": run.seed,
            "code": run.code,
            "environment": run.environment,
            "data": json.dumps(run.data),
            "params": json.dumps(run.params),
            "summary": "{}",
        }
        tx.connection.execute(insert(runs).values(**row))
        sources = [
            (f"dataset:{name}@{version}", "training data") for name, version in sorted(run.data["versions"].items())
        ]
        made_of = [*sources, (f"code:{run.code}", "code"), (f"environment:{run.environment}", "environment")]
        facts = {"model": run.model, "seed": run.seed, "params": run.params, "objects": [run.code, run.environment]}
        tx.append("run.start", run.ref, facts, inputs=made_of)


def finish_run(workspace: Workspace, run: Run) -> None:
    """Record how a run ended, with its metrics and artifacts, in one transaction."""
    with workspace.ledger.transaction() as tx:
        tx.connection.execute(
            update(runs)
            .where(runs.c.id == run.id)
            .values(
                status=run.status,
                finished=run.finished,
                seconds=run.seconds,
                data=json.dumps(run.data),
                params=json.dumps(run.params),
                summary=json.dumps(run.summary),
            )
        )
        if run.metrics:
            names = ("split", "name", "step", "value", "low", "high")
            tx.connection.execute(
                insert(metrics), [{"run": run.id, **{n: getattr(p, n) for n in names}} for p in run.metrics]
            )
        if run.artifacts:
            tx.connection.execute(
                insert(artifacts),
                [{"run": run.id, "name": a.name, "digest": a.digest, "media": a.media} for a in run.artifacts],
            )
        facts = {
            "status": run.status,
            "rows": run.data.get("rows"),
            "frame": run.data.get("frame"),
            "fingerprint": run.summary.get("fingerprint"),
            "test": run.values("test"),
            "objects": sorted({a.digest for a in run.artifacts}),
        }
        tx.append("run.finish", run.ref, facts)


def _read(row: Row[Any]) -> Run:
    return Run(
        row.id,
        row.model,
        row.status,
        row.actor,
        row.started,
        row.seed,
        row.code,
        row.environment,
        json.loads(row.data),
        json.loads(row.params),
        json.loads(row.summary),
        row.finished,
        row.seconds,
    )


def list_runs(workspace: Workspace, model: str | None = None) -> list[Run]:
    """Runs, newest first, without their metrics by step."""
    workspace.records.ensure(metadata)
    query = select(runs).order_by(runs.c.id.desc())
    if model is not None:
        query = query.where(runs.c.model == model)
    with workspace.records.read() as connection:
        found = [_read(row) for row in connection.execute(query)]
        by_run: dict[str, list[MetricPoint]] = {}
        for row in connection.execute(select(metrics).where(metrics.c.step == 0)):
            by_run.setdefault(row.run, []).append(
                MetricPoint(row.split, row.name, row.value, row.step, row.low, row.high)
            )
    for run in found:
        run.metrics = by_run.get(run.id, [])
    return found


def get_run(workspace: Workspace, ref: str) -> Run:
    """One run by ``run:ULID`` with everything; NotFoundError names the nearest ids."""
    name = Ref.parse(ref, kind="run").name
    workspace.records.ensure(metadata)
    with workspace.records.read() as connection:
        row = connection.execute(select(runs).where(runs.c.id == name)).one_or_none()
        if row is None:
            ids = list(connection.execute(select(runs.c.id).order_by(runs.c.id.desc()).limit(50)).scalars())
            raise NotFoundError(
                "a run of this id is in the evaluation store",
                where="runs",
                got=name,
                remedy=near(name, ids, what="run"),
            )
        run = _read(row)
        points = connection.execute(
            select(metrics).where(metrics.c.run == name).order_by(metrics.c.split, metrics.c.name, metrics.c.step)
        )
        run.metrics = [MetricPoint(p.split, p.name, p.value, p.step, p.low, p.high) for p in points]
        files = connection.execute(select(artifacts).where(artifacts.c.run == name).order_by(artifacts.c.name))
        run.artifacts = [Artifact(a.name, a.digest, a.media) for a in files]
    return run


def compare_runs(workspace: Workspace, refs: Sequence[str]) -> dict[str, Any]:
    """Side by side: the parameters, data and metrics in which runs differ or agree.

    Returns
    -------
    dict
        ``runs`` (the ids), ``metrics`` (name to one value per run, test rows), ``differs`` (dotted key of parameters,
        data, code or environment to one value per run; only where not all are equal).
    """
    found = [get_run(workspace, ref) for ref in refs]
    tests = [run.values("test") for run in found]
    flat = [
        _flatten({"params": r.params, "data": r.data, "code": r.code, "environment": r.environment, "seed": r.seed})
        for r in found
    ]
    keys = sorted({key for each in flat for key in each})
    differs = {key: [each.get(key) for each in flat] for key in keys}
    return {
        "runs": [run.ref for run in found],
        "metrics": {name: [test.get(name) for test in tests] for name in sorted({n for test in tests for n in test})},
        "differs": {key: values for key, values in differs.items() if any(value != values[0] for value in values)},
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
