"""What a run is, and how its beginning and its end are entered.

A training is written in two transactions, at its beginning and at its end: metrics are kept in memory in between, and
its model version is registered in the second. It never has half its metrics, nor an end without its version.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from retrodict.core.clock import format_time
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError, check_known, near
from retrodict.learning.runs.heartbeat import sign_of_life
from retrodict.learning.runs.schema import artifacts, heartbeats, journal, metadata, metrics, runs, tags, values
from retrodict.ledger import Transaction
from retrodict.stores.objects.base import ObjectStore
from retrodict.workspace import Workspace

__all__ = [
    "KINDS",
    "LISTED",
    "SVG",
    "Artifact",
    "MetricPoint",
    "Run",
    "check_length",
    "check_line",
    "check_parent",
    "check_run",
    "check_tags",
    "enter_ended",
    "enter_start",
    "fail_run",
    "finish_run",
    "flatten",
    "read_run",
    "sources_of",
    "start_run",
    "write_tags",
    "write_values",
]

KINDS = ("train", "trial", "tune", "auto", "optimise", "hand", "pipeline", "step")
"""What a run may be: a training, a trial of a study, the study, AutoML, a variant of a version, work recorded by
hand, a pipeline, a step."""

SVG = "image/svg+xml"

LISTED = tuple(kind for kind in KINDS if kind not in ("trial", "step"))
"""Kinds that a list shows unless told otherwise: a study alone may have hundreds of trials, a pipeline of steps."""

_LONGEST_NAME, _LONGEST_TAG, _LONGEST_VALUE, _LONGEST_NOTE = 200, 250, 5_000, 20_000
_LONGEST_KEY, _LONGEST_TEXT = 500, 2_000  # of what searches read
_INSERT_RUN, _INSERT_TAG, _INSERT_VALUE = insert(runs), insert(tags), insert(values)
_INSERT_METRIC, _INSERT_ARTIFACT = insert(metrics), insert(artifacts)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


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
        """Plot as SVG: a figure that was logged, or one drawn now.

        Of a training ``ladder``, ``history``, ``calibration``, ``roc``, ..., as task and recipe have.

        Raises
        ------
        NotFoundError
            If the run has no such plot; the message names those it has.
        """
        from retrodict.learning.plots import run_plots

        files = {file.name: file.digest for file in self.artifacts}
        plots = {} if self.objects is None else run_plots(self.objects, files, self.params, self.summary, self.points)
        figures = {file.name.removesuffix(".svg"): file.digest for file in self.artifacts if file.media == SVG}
        if self.objects is not None and name in figures:
            return self.objects.get(figures[name])
        if name not in plots:
            raise NotFoundError("a plot must be one that the run can show", where=self.ref, got=name,
                                remedy=near(name, [*plots, *figures], what="plot"))  # fmt: skip
        return plots[name]().encode()

    def trials(self) -> list[dict[str, Any]]:
        """Trials of a search, the best first, then those that did not finish; empty for another run."""
        from retrodict.learning.plots import TRIALS

        file = next((file for file in self.artifacts if file.name == TRIALS), None)
        if file is None or self.objects is None:
            return []
        body = json.loads(self.objects.get(file.digest))
        sign = -1 if body["report"]["better"] == "higher" else 1
        trials: list[dict[str, Any]] = body["trials"]
        return sorted(trials, key=lambda trial: (trial["value"] is None, sign * (trial["value"] or 0.0)))

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
    check_run(run)
    workspace.records.ensure(metadata)
    with workspace.ledger.transaction() as tx:
        check_parent(tx.connection, run)
        enter_start(tx, run)
        tx.connection.execute(insert(heartbeats).values(run=run.id, **sign_of_life()))


def check_run(run: Run) -> None:
    """Refuse a kind that does not exist, and names, tags and notes that are not what they must be."""
    check_known(run.kind, KINDS, "a run must be of a known kind", where=run.ref, what="kind")
    check_line(run.name, "the name of a run", limit=_LONGEST_NAME, where=run.ref, empty=True)
    check_tags(run.tags, run.note, where=run.ref)


def check_parent(connection: Connection, run: Run) -> None:
    """Refuse a parent that is no run."""
    if run.parent is None:
        return
    stored: list[Any] = [select(runs.c.id).where(runs.c.id == run.parent)]
    stored.append(select(journal.c.id).where(journal.c.run == run.parent))
    if all(connection.execute(query.limit(1)).first() is None for query in stored):
        raise NotFoundError("the parent of a run must be in the evaluation store", where=run.ref, got=run.parent,
                            remedy="Start the parent first")  # fmt: skip


def enter_start(tx: Transaction, run: Run) -> None:
    """Enter that a run began, in a transaction."""
    tx.connection.execute(_INSERT_RUN, _row_of(replace(run, status="running", summary={})))
    write_tags(tx, run)
    write_values(tx.connection, [run])
    tx.vouch(runs, {"id": run.id})
    tx.append("run.start", run.ref, _start_facts(run), inputs=_made_of(run), actor=run.actor)


def enter_ended(tx: Transaction, ended: Sequence[Run]) -> None:
    """Enter runs that began and ended since anything was last entered, in one transaction, with one entry each."""
    rows = {
        _INSERT_RUN: [_row_of(run) for run in ended],
        _INSERT_TAG: [row for run in ended for row in _tag_rows(run)],
        _INSERT_METRIC: [row for run in ended for row in _metric_rows(run)],
        _INSERT_ARTIFACT: [row for run in ended for row in _artifact_rows(run)],
    }
    for statement, inserted in rows.items():
        if inserted:
            tx.connection.execute(statement, inserted)
    write_values(tx.connection, ended)
    for run in ended:
        tx.vouch(runs, {"id": run.id})
        for table, present in ((tags, run.tags), (metrics, run.points), (artifacts, run.artifacts)):
            if present:
                tx.vouch(table, {"run": run.id})
        facts = {**_start_facts(run), **_end_facts(run)}
        facts["objects"] = sorted({*_start_facts(run)["objects"], *_end_facts(run)["objects"]})
        tx.append("run.finish", run.ref, facts, inputs=_made_of(run), actor=run.actor)


def _row_of(run: Run) -> dict[str, Any]:
    columns = [column.name for column in runs.columns if column.name not in ("data", "params", "summary")]
    plain = {name: json.dumps(getattr(run, name)) for name in ("data", "params", "summary")}
    return {**{name: getattr(run, name) for name in columns}, **plain}


def _start_facts(run: Run) -> dict[str, Any]:
    start = run.params.get("start_from") if run.kind == "train" else None
    objects = [run.code, run.environment, *([] if start is None else [start["artifact"]])]
    facts = {"model": run.model, "seed": run.seed, "params": run.params, "objects": objects}
    return facts if run.kind == "train" else {**facts, "kind": run.kind, "name": run.name, "parent": run.parent}


def _end_facts(run: Run) -> dict[str, Any]:
    return {
        "status": run.status,
        "rows": run.data.get("rows"),
        "frame": run.data.get("frame"),
        "fingerprint": run.summary.get("fingerprint"),
        "test": run.metrics,
        **({"choice": run.params["choice"]} if "choice" in run.params else {}),
        "objects": sorted({a.digest for a in run.artifacts}),
    }


def _made_of(run: Run) -> list[tuple[str, str]]:
    start = run.params.get("start_from") if run.kind == "train" else None
    begun = [] if start is None else [(f"model:{start['version']}", "started from")]
    if run.kind == "optimise":
        begun = [(f"model:{run.params['optimise']['parent']}", "optimised from")]
    return [*sources_of(run), *begun, (f"code:{run.code}", "code"), (f"environment:{run.environment}", "environment")]


def _tag_rows(run: Run) -> list[dict[str, Any]]:
    return [{"run": run.id, "name": name, "value": value} for name, value in run.tags.items()]


def _metric_rows(run: Run) -> list[dict[str, Any]]:
    names = ("split", "name", "step", "value", "low", "high")
    return [{"run": run.id, **{name: getattr(point, name) for name in names}} for point in run.points]


def _artifact_rows(run: Run) -> list[dict[str, Any]]:
    return [{"run": run.id, "name": a.name, "digest": a.digest, "media": a.media} for a in run.artifacts]


def sources_of(run: Run) -> list[tuple[str, str]]:
    """Versions of tables that a run reads, as lineage has them."""
    return [(f"dataset:{name}@{version}", "training data") for name, version in sorted(run.data["versions"].items())]


def write_tags(tx: Transaction, run: Run) -> None:
    """Put a run's tags beside those it has, or in their place; the next entry vouches for all of them."""
    if run.tags:
        tx.connection.execute(delete(tags).where(tags.c.run == run.id, tags.c.name.in_(run.tags)))
        tx.connection.execute(_INSERT_TAG, _tag_rows(run))
    tx.vouch(tags, {"run": run.id})


def write_values(connection: Connection, indexed: Sequence[Run]) -> None:
    """Index what searches read of runs: parameters by dotted name, and the last value of each metric."""
    if not indexed:  # an empty list would insert a row of nothing
        return
    connection.execute(delete(values).where(values.c.run.in_([run.id for run in indexed])))
    connection.execute(_INSERT_VALUE, [{"run": run.id, **row} for run in indexed for row in value_rows(run)])


def value_rows(run: Run) -> Iterator[dict[str, Any]]:
    """What searches read of a run."""
    yield {"scope": "run", "name": "", "number": None, "text": None}
    for name, value in flatten(run.params).items():
        text = value if isinstance(value, str) else json.dumps(value)
        if len(name) <= _LONGEST_KEY and len(text) <= _LONGEST_TEXT:
            yield {"scope": "param", "name": name, "number": _number_in(value), "text": text}
    for split in sorted({point.split for point in run.points}):
        for name, value in run.values(split).items():
            yield {"scope": f"metric:{split}", "name": name, "number": value, "text": None}


def _number_in(value: Any) -> float | None:
    """A parameter as a number, also where its text reads as one; None for any other."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return float(value) if not isinstance(value, str) or _NUMBER.fullmatch(value) else None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


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
        check_length(value, f"the value of tag {name!r}", limit=_LONGEST_VALUE, where=where)
    check_length(note, "the note of a run", limit=_LONGEST_NOTE, where=where)


def check_length(text: object, what: str, *, limit: int, where: str) -> None:
    """Refuse what is no text, or longer than anybody reads."""
    if not isinstance(text, str) or len(text) > limit or "\0" in text:
        got = f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
        raise InputError(f"{what} must be text of at most {limit:,} characters without NUL", where=where, got=got,
                         remedy="Shorten it, or keep it as an artifact")  # fmt: skip


def finish_run(tx: Transaction, run: Run, *, inputs: Sequence[tuple[str, str]] = ()) -> None:
    """Record how a run ended, with its metrics and artifacts, in the transaction of its model version.

    Parameters
    ----------
    tx : Transaction
    run : Run
    inputs : sequence of (reference, role)
        What it was made from beside what was known when it began.

    Raises
    ------
    RefusedError
        If it is closed already: its heartbeat had stopped, and somebody looked.
    """
    ending = {
        "status": run.status,
        "finished": run.finished,
        "seconds": run.seconds,
        "data": json.dumps(run.data),
        "params": json.dumps(run.params),
        "summary": json.dumps(run.summary),
        **({"note": run.note} if run.note else {}),
        **({"name": run.name} if run.name else {}),
    }
    open_run = (runs.c.id == run.id) & (runs.c.status == "running")
    if not tx.connection.execute(update(runs).where(open_run).values(**ending)).rowcount:
        raise RefusedError("a run must be open to be finished", where=run.ref, got="a run closed as failed",
                           remedy="Train anew: it gave no sign of life for minutes")  # fmt: skip
    tx.connection.execute(delete(heartbeats).where(heartbeats.c.run == run.id))
    for statement, rows in ((_INSERT_METRIC, _metric_rows(run)), (_INSERT_ARTIFACT, _artifact_rows(run))):
        if rows:
            tx.connection.execute(statement, rows)
    write_tags(tx, run)
    write_values(tx.connection, [run])
    tx.vouch(runs, {"id": run.id})
    for table in (metrics, artifacts):
        tx.vouch(table, {"run": run.id})
    tx.append("run.finish", run.ref, _end_facts(run), inputs=inputs)


def fail_run(workspace: Workspace, run: Run, error: str) -> None:
    """Close an open run as failed, with the kind of its error; one that is closed stays as it is."""
    closed = replace(run, status="failed", finished=workspace.clock.now(), summary={"error": error})
    with contextlib.suppress(RefusedError), workspace.ledger.transaction() as tx:
        finish_run(tx, closed)


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("id", "model", "status", "actor", "code", "environment"), str), "started": int, "seed": int,
    "finished": int | None, "seconds": float | int | None, "data": dict, "params": dict, "summary": dict,
    "kind": str, "name": str, "parent": str | None, "note": str,
}  # fmt: skip


def read_run(row: Any, objects: ObjectStore) -> Run:
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
