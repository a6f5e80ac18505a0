"""The evaluation store: every run with its parameters, metrics by step and artifacts; searched and compared by SQL.

A run is written in two transactions, at its beginning and at its end: metrics are kept in memory in between, and its
model version is registered in the second. A run whose process is gone is closed as failed by whoever looks next; it
never has half its metrics, nor an end without its version.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, insert, select, update

from retrodict.core.clock import format_time
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError, check_known, near
from retrodict.core.identity import Ref
from retrodict.learning.heartbeat import has_process, sign_of_life
from retrodict.learning.schema import artifacts, heartbeats, metadata, metrics, runs, tags
from retrodict.ledger import Transaction
from retrodict.stores.objects.base import ObjectStore
from retrodict.workspace import Workspace

__all__ = [
    "KINDS",
    "LISTED",
    "Artifact",
    "MetricPoint",
    "Run",
    "compare_runs",
    "fail_run",
    "finish_run",
    "get_run",
    "list_runs",
    "start_run",
]

KINDS = ("train", "trial", "tune", "auto", "hand", "pipeline")
"""What a run may be: a training, one trial of a study, the study, AutoML, work recorded by hand, a pipeline."""

LISTED = tuple(kind for kind in KINDS if kind != "trial")
"""Kinds that a list shows unless told otherwise: a study alone may have hundreds of trials."""

_AT_ONCE = 500  # below every engine's limit of variables in a statement
_LONGEST_NAME, _LONGEST_TAG, _LONGEST_VALUE, _LONGEST_NOTE = 200, 250, 5_000, 20_000


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
    """One training, or other work that is recorded like one.

    Attributes
    ----------
    id : str
        ULID.
    model, status, actor : str
        Name of the model, empty where there is none; ``running``, ``finished`` or ``failed``; who started it.
    started, finished : int
        Microseconds since 1970-01-01 UTC, by the project's clock.
    seconds : float
        How long it took, by the host's monotonic clock.
    seed : int
    code, environment : str
        SHA-256 of the project's code and of the environment's description, in the object store.
    data : dict
        Versions of the tables and the moment of training; once finished, the hash of the training frame, rows per
        part, and rows left out by reason.
    params : dict
        Everything the recipe was run with, defaults included.
    summary : dict
        Results: artifact, tree hash, fingerprint, ladder, gates, calibration, warnings; of a failed run its error.
    points : list of MetricPoint
        Every metric of every split and step; :attr:`metrics` holds those of the test rows by name.
    artifacts : list of Artifact
        Stored files, plots among them.
    objects : ObjectStore, optional
        Where the artifacts are; None for a run that was not read from a workspace.
    kind : str, default "train"
        One of :data:`KINDS`.
    name : str
        Free text of one line.
    parent : str, optional
        ULID of the run that this one is part of: a study of its trial.
    tags : dict of str to str
    note : str
        Free text. Tags and note may be changed after the run has ended.

    Examples
    --------
    >>> run = Run("01J0", "late_arrival", "finished", "ann", 0, 7, "", "", {}, {},
    ...           points=[MetricPoint("train", "auc", 0.9), MetricPoint("test", "auc", 0.8)])
    >>> run.metrics["auc"]
    0.8
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
    points: list[MetricPoint] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    objects: ObjectStore | None = field(default=None, repr=False, compare=False)
    kind: str = "train"
    name: str = ""
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def ref(self) -> str:
        """``run:ULID``."""
        return f"run:{self.id}"

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metrics of the test rows by name; None where not evaluable."""
        return self.values("test")

    def plot(self, name: str) -> bytes:
        """Plot as SVG, drawn now: ``ladder``, ``history``, ``calibration``, ``roc``, ..., as task and recipe have.

        Raises
        ------
        NotFoundError
            If the run has no such plot; the message names those it has.
        """
        from retrodict.learning.plots import run_plots

        files = {file.name: file.digest for file in self.artifacts}
        plots = {} if self.objects is None else run_plots(self.objects, files, self.params, self.summary, self.points)
        if name not in plots:
            raise NotFoundError("a plot must be one that the run can show", where=self.ref, got=name,
                                remedy=near(name, plots, what="plot"))  # fmt: skip
        return plots[name]().encode()

    def values(self, split: str) -> dict[str, float | None]:
        """Metrics of one split by name, each at its last step."""
        last: dict[str, MetricPoint] = {}
        for point in self.points:
            if point.split == split and (point.name not in last or point.step >= last[point.name].step):
                last[point.name] = point
        return {name: point.value for name, point in sorted(last.items())}

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        splits = sorted({point.split for point in self.points if point.step == 0})
        return {
            "run": self.ref,
            "kind": self.kind,
            "name": self.name,
            "parent": None if self.parent is None else f"run:{self.parent}",
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
            "tags": self.tags,
            "note": self.note,
        }


def start_run(workspace: Workspace, run: Run) -> None:
    """Record that a run began.

    Raises
    ------
    InputError
        If its kind is none of :data:`KINDS`, or its name, tags or note are not what they must be.
    NotFoundError
        If its parent is no run.
    """
    check_known(run.kind, KINDS, "a run must be of a known kind", where=run.ref, what="kind")
    check_line(run.name, "the name of a run", limit=_LONGEST_NAME, where=run.ref, empty=True)
    check_tags(run.tags, run.note, where=run.ref)
    workspace.records.ensure(metadata)
    with workspace.ledger.transaction() as tx:
        parent = select(runs.c.id).where(runs.c.id == run.parent)
        if run.parent is not None and tx.connection.execute(parent).first() is None:
            raise NotFoundError("the parent of a run must be in the evaluation store", where=run.ref, got=run.parent,
                                remedy="Start the parent first")  # fmt: skip
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
            "kind": run.kind,
            "name": run.name,
            "parent": run.parent,
            "note": run.note,
        }
        tx.connection.execute(insert(runs).values(**row))
        tx.connection.execute(insert(heartbeats).values(run=run.id, **sign_of_life()))
        sources = [
            (f"dataset:{name}@{version}", "training data") for name, version in sorted(run.data["versions"].items())
        ]
        made_of = [*sources, (f"code:{run.code}", "code"), (f"environment:{run.environment}", "environment")]
        facts = {"model": run.model, "seed": run.seed, "params": run.params, "objects": [run.code, run.environment]}
        if run.kind != "train":
            facts |= {"kind": run.kind, "name": run.name, "parent": run.parent}
        write_tags(tx, run)
        tx.vouch(runs, {"id": run.id})
        tx.append("run.start", run.ref, facts, inputs=made_of)


def write_tags(tx: Transaction, run: Run) -> None:
    """Put a run's tags in the place of those it had; the next entry vouches for them."""
    tx.connection.execute(delete(tags).where(tags.c.run == run.id))
    if run.tags:
        rows = [{"run": run.id, "name": name, "value": value} for name, value in run.tags.items()]
        tx.connection.execute(insert(tags), rows)
    tx.vouch(tags, {"run": run.id})


def check_line(text: object, what: str, *, limit: int, where: str, empty: bool = False) -> str:
    """Return text that is one printable line; the error for any other says what it must be."""
    if not isinstance(text, str) or len(text) > limit or not text.isprintable() or not (empty or text.strip()):
        got = f"{len(text)} characters" if isinstance(text, str) and len(text) > limit else text
        raise InputError(f"{what} must be one line of 1 to {limit} printable characters", where=where, got=got,
                         remedy="Shorten it, and leave out line ends and control characters")  # fmt: skip
    return text


def check_tags(values: Mapping[str, str], note: str, *, where: str) -> None:
    """Refuse tags and notes that are no text, or longer than anybody reads."""
    for name, value in values.items():
        check_line(name, "the name of a tag", limit=_LONGEST_TAG, where=where)
        _check_length(value, f"the value of tag {name!r}", limit=_LONGEST_VALUE, where=where)
    _check_length(note, "the note of a run", limit=_LONGEST_NOTE, where=where)


def _check_length(text: object, what: str, *, limit: int, where: str) -> None:
    if not isinstance(text, str) or len(text) > limit or "\0" in text:
        got = f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
        raise InputError(f"{what} must be text of at most {limit:,} characters without NUL", where=where, got=got,
                         remedy="Shorten it, or keep it as an artifact")  # fmt: skip


def finish_run(tx: Transaction, run: Run) -> None:
    """Record how a run ended, with its metrics and artifacts, in the transaction of its model version.

    Raises
    ------
    RefusedError
        If it is closed already: its heartbeat had stopped, and somebody looked.
    """
    values = {
        "status": run.status,
        "finished": run.finished,
        "seconds": run.seconds,
        "data": json.dumps(run.data),
        "params": json.dumps(run.params),
        "summary": json.dumps(run.summary),
    }
    open_run = (runs.c.id == run.id) & (runs.c.status == "running")
    if not tx.connection.execute(update(runs).where(open_run).values(**values)).rowcount:
        raise RefusedError("a run must be open to be finished", where=run.ref, got="a run closed as failed",
                           remedy="Train anew: it gave no sign of life for minutes")  # fmt: skip
    tx.connection.execute(delete(heartbeats).where(heartbeats.c.run == run.id))
    if run.points:
        names = ("split", "name", "step", "value", "low", "high")
        tx.connection.execute(
            insert(metrics), [{"run": run.id, **{n: getattr(p, n) for n in names}} for p in run.points]
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
        "test": run.metrics,
        "objects": sorted({a.digest for a in run.artifacts}),
    }
    write_tags(tx, run)
    tx.vouch(runs, {"id": run.id})
    for table in (metrics, artifacts):
        tx.vouch(table, {"run": run.id})
    tx.append("run.finish", run.ref, facts)


def fail_run(workspace: Workspace, run: Run, error: str) -> None:
    """Close an open run as failed, with the kind of its error; one that is closed stays as it is."""
    closed = replace(run, status="failed", finished=workspace.clock.now(), summary={"error": error})
    with contextlib.suppress(RefusedError), workspace.ledger.transaction() as tx:
        finish_run(tx, closed)


def _close_lost(workspace: Workspace) -> None:
    """Close the open runs that have no process any more."""
    query = select(runs.c.id, heartbeats).join(heartbeats, heartbeats.c.run == runs.c.id, isouter=True)
    with workspace.records.read() as connection:
        rows = connection.execute(query.where(runs.c.status == "running")).all()
    closable = [row.id for row in rows if row.machine is None or not has_process(row)]
    for run in _select(workspace, runs.c.id.in_(closable), steps=False) if closable else ():
        fail_run(workspace, run, "ProcessLost")


def _read(workspace: Workspace, ids: Select[Any] | ColumnElement[bool], *, steps: bool) -> list[Run]:
    """Runs that a condition or a query of ids selects, after those without a process were closed."""
    workspace.records.ensure(metadata)
    _close_lost(workspace)
    return _select(workspace, ids, steps=steps)


def _select(workspace: Workspace, ids: Select[Any] | ColumnElement[bool], *, steps: bool) -> list[Run]:
    """Runs in the order of the query, of a condition newest first, with their tags, artifacts and metrics."""
    query = ids if isinstance(ids, Select) else select(runs.c.id).where(ids).order_by(runs.c.id.desc())
    with workspace.records.read() as connection:
        order = connection.execute(query).scalars().all()
        by_id: dict[str, Run] = {}
        for first in range(0, len(order), _AT_ONCE):
            part = order[first : first + _AT_ONCE]
            for row in connection.execute(select(runs).where(runs.c.id.in_(part))):
                by_id[row.id] = _run_of(row, workspace.objects)
            points = select(metrics).where(metrics.c.run.in_(part))
            if not steps:
                points = points.where(metrics.c.step == 0)
            for p in connection.execute(points.order_by(metrics.c.split, metrics.c.name, metrics.c.step)):
                by_id[p.run].points.append(MetricPoint(p.split, p.name, p.value, p.step, p.low, p.high))
            for file in connection.execute(
                select(artifacts).where(artifacts.c.run.in_(part)).order_by(artifacts.c.name)
            ):
                by_id[file.run].artifacts.append(Artifact(file.name, file.digest, file.media))
            for tag in connection.execute(select(tags).where(tags.c.run.in_(part)).order_by(tags.c.name)):
                by_id[tag.run].tags[tag.name] = tag.value
    return [by_id[run] for run in order]


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("id", "model", "status", "actor", "code", "environment"), str), "started": int, "seed": int,
    "finished": int | None, "seconds": float | int | None, "data": dict, "params": dict, "summary": dict,
    "kind": str, "name": str, "parent": str | None, "note": str,
}  # fmt: skip


def _run_of(row: Any, objects: ObjectStore) -> Run:
    """Run of a stored row; IntegrityError if its values are not of the kinds that they were written with."""
    values = row._asdict()
    for name in ("data", "params", "summary"):
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # what stays text is of another kind
            values[name] = json.loads(values[name])
    strange = [name for name, kind in _KINDS.items() if not isinstance(values[name], kind)]
    if strange:
        raise IntegrityError("a stored run must be as it was written", where=f"run:{row.id}, {', '.join(strange)}",
                             got="values of another kind", remedy="See 'retrodict audit verify'")  # fmt: skip
    return Run(**values, objects=objects)


def list_runs(
    workspace: Workspace,
    model: str | None = None,
    *,
    limit: int | None = None,
    page: int = 1,
    kinds: Sequence[str] = LISTED,
) -> list[Run]:
    """Runs of one model or of all, newest first, without their metrics by step.

    Parameters
    ----------
    workspace : Workspace
    model : str, optional
        Only runs of this model.
    limit : int, optional
        At most so many, the rest on further pages; None: all.
    page : int, default 1
        Which of these pages.
    kinds : sequence of str
        Of :data:`KINDS`; the trials of studies are listed only when asked for.
    """
    for kind in kinds:
        check_known(kind, KINDS, "a run must be of a known kind", where="runs", what="kind")
    query = select(runs.c.id).where(runs.c.kind.in_(kinds)).order_by(runs.c.id.desc())
    if model is not None:
        query = query.where(runs.c.model == model)
    if limit is not None:
        query = query.limit(limit).offset((page - 1) * limit)
    return _read(workspace, query, steps=False)


def get_run(workspace: Workspace, ref: str) -> Run:
    """One run by ``run:ULID`` with everything; NotFoundError names the nearest ids."""
    name = Ref.parse(ref, kind="run").name
    for run in _read(workspace, runs.c.id == name, steps=True):
        return run
    with workspace.records.read() as connection:
        ids = connection.execute(select(runs.c.id).order_by(runs.c.id.desc()).limit(50)).scalars().all()
    raise NotFoundError("a run of this id must be in the evaluation store", where="runs", got=name,
                        remedy=near(name, ids, what="run"))  # fmt: skip


def compare_runs(workspace: Workspace, refs: Sequence[str]) -> dict[str, Any]:
    """Side by side: the parameters, data and metrics in which runs differ or agree.

    Returns
    -------
    dict
        ``runs`` (the ids), ``metrics`` (name to one value per run, test rows), ``differs`` (dotted key of parameters,
        data, code or environment to one value per run; only where not all are equal).
    """
    compared = [get_run(workspace, ref) for ref in refs]
    differs = _side_by_side([
        _flatten({"params": r.params, "data": r.data, "code": r.code, "environment": r.environment, "seed": r.seed})
        for r in compared
    ])  # fmt: skip
    return {
        "runs": [run.ref for run in compared],
        "metrics": _side_by_side([run.metrics for run in compared]),
        "differs": {key: values for key, values in differs.items() if any(value != values[0] for value in values)},
    }


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {key: [column.get(key) for column in columns] for key in sorted({key for c in columns for key in c})}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
