"""The evaluation store: every run with its parameters, metrics by step and artifacts; searched and compared by SQL.

A run whose process is gone is closed as failed by whoever looks next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, inspect, select, update

from retrodict.core.errors import IntegrityError, NotFoundError, check_known, near
from retrodict.core.identity import Ref
from retrodict.evaluation.directions import Direction
from retrodict.learning.runs.heartbeat import has_process
from retrodict.learning.runs.journal import fold, secret_of, settle, unfinished
from retrodict.learning.runs.record import (
    KINDS,
    LISTED,
    Artifact,
    MetricPoint,
    Run,
    check_tags,
    fail_run,
    finish_run,
    read_run,
    start_run,
    value_rows,
    write_tags,
    write_values,
)
from retrodict.learning.runs.schema import artifacts, heartbeats, journal, metadata, metrics, runs, tags, values
from retrodict.learning.runs.search import order_runs, where_runs
from retrodict.registry import get_version
from retrodict.workspace import Workspace

__all__ = [
    "altered_indexes",
    "KINDS",
    "LISTED",
    "Artifact",
    "MetricPoint",
    "Run",
    "best_run",
    "fail_run",
    "finish_run",
    "get_run",
    "list_runs",
    "start_run",
    "tag_run",
]

_AT_ONCE = 500  # below every engine's limit of variables in a statement


def _close_lost(workspace: Workspace) -> None:
    """Close the open runs that have no process any more."""
    query = select(runs.c.id, heartbeats).join(heartbeats, heartbeats.c.run == runs.c.id, isouter=True)
    with workspace.records.read() as connection:
        rows = connection.execute(
            query.where(runs.c.status == "running", runs.c.id.not_in(select(journal.c.run)))
        ).all()
    closable = [row.id for row in rows if row.machine is None or not has_process(row)]
    for run in _select(workspace, runs.c.id.in_(closable), steps=False) if closable else ():
        fail_run(workspace, run, "ProcessLost")


def _look(workspace: Workspace) -> None:
    """Enter what was recorded by hand, and close runs that have no process any more."""
    workspace.records.ensure(metadata)
    settle(workspace)
    _close_lost(workspace)


def _select(workspace: Workspace, ids: Select[Any] | ColumnElement[bool], *, steps: bool) -> list[Run]:
    """Runs in the order of the query, of a condition newest first, with their tags, artifacts and metrics."""
    query = ids if isinstance(ids, Select) else select(runs.c.id).where(ids).order_by(runs.c.id.desc())
    with workspace.records.read() as connection:
        order = connection.execute(query).scalars().all()
        by_id: dict[str, Run] = {}
        for first in range(0, len(order), _AT_ONCE):
            part = order[first : first + _AT_ONCE]
            for row in connection.execute(select(runs).where(runs.c.id.in_(part))):
                by_id[row.id] = read_run(row, workspace.objects)
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
            if not steps:
                _take_last(connection, by_id, part)
            running = [run for run in part if by_id[run].status == "running"]
            for run, events in (unfinished(connection, secret_of(workspace), running) if running else {}).items():
                by_id[run] = fold(by_id[run], events)
    return [by_id[run] for run in order]


def _take_last(connection: Connection, by_id: Mapping[str, Run], ids: Sequence[str]) -> None:
    """Put the last value of each metric in the place of the first: a list does without histories."""
    query = select(values.c.run, values.c.scope, values.c.name, values.c.number).where(
        values.c.run.in_(ids), values.c.scope.startswith("metric:")
    )
    first = {(run, point.split, point.name): point for run in ids for point in by_id[run].points}
    for run, scope, name, value in connection.execute(query):
        split = scope.removeprefix("metric:")
        point = first.get((run, split, name))
        if point is None or point.value != value:
            points = by_id[run].points
            points[:] = [*(other for other in points if other is not point), MetricPoint(split, name, value)]


def list_runs(
    workspace: Workspace,
    model: str | None = None,
    *,
    where: str = "",
    order: str = "",
    limit: int | None = None,
    page: int = 1,
    kinds: Sequence[str] = LISTED,
    direction: Direction | None = None,
) -> list[Run]:
    """Runs of one model or of all, newest first unless ordered, each metric with its last value alone.

    Parameters
    ----------
    workspace : Workspace
    model : str, optional
        Only runs of this model.
    where : str
        Filter, see :func:`retrodict.learning.runs.search.where_runs`: ``"metrics.auc > 0.7 and tags.team = 'risk'"``.
    order : str
        See :func:`retrodict.learning.runs.search.order_runs`: ``"metrics.auc, started"``.
    limit : int, optional
        At most so many, the rest on further pages; None: all.
    page : int, default 1
        Which of these pages.
    kinds : sequence of str
        Of :data:`KINDS`; the trials of studies are listed only when asked for.
    direction : {"higher", "lower"}, optional
        Which way the metrics of ``order`` are better, where their names do not tell.
    """
    for kind in kinds:
        check_known(kind, KINDS, "a run must be of a known kind", where="runs", what="kind")
    _look(workspace)
    query = select(runs.c.id).where(runs.c.kind.in_(kinds)).order_by(runs.c.id.desc())
    if model is not None:
        query = query.where(runs.c.model == model)
    if where or order:
        _index(workspace)
        with workspace.records.read() as connection:
            query = query.where(where_runs(connection, where))
            if order:
                query = query.order_by(None).order_by(*order_runs(connection, order, direction=direction))
    if limit is not None:
        query = query.limit(limit).offset((page - 1) * limit)
    return _select(workspace, query, steps=False)


def best_run(
    workspace: Workspace,
    metric: str,
    *,
    model: str | None = None,
    where: str = "",
    kinds: Sequence[str] = LISTED,
    direction: Direction | None = None,
) -> Run:
    """Finished run with the best value of a metric; of equals the newest.

    Parameters
    ----------
    workspace : Workspace
    metric : str
        Of the test rows, or ``SPLIT.NAME``.
    model, where, kinds
        As for :func:`list_runs`.
    direction : {"higher", "lower"}, optional
        Which way it is better; by default as :func:`retrodict.evaluation.better` knows or a run said.

    Raises
    ------
    NotFoundError
        If no run has the metric; runs where it is not evaluable are never the best.
    InputError
        If nobody said which way it is better.
    """
    name = f'metrics."{metric}"'
    condition = f"status = 'finished' and {name} is not null" + (f" and ({where})" if where.strip() else "")
    options: dict[str, Any] = {"order": name, "limit": 1, "kinds": kinds, "direction": direction}
    for run in list_runs(workspace, model, where=condition, **options):
        return run
    raise NotFoundError("some finished run must have a value of the metric", where=f"runs, {metric}", got="none",
                        remedy="Search less narrowly: runs where it is not evaluable do not count")  # fmt: skip


def _index(workspace: Workspace) -> None:
    """Index runs that a former version wrote: what searches read of them."""
    query = select(runs.c.id).where(runs.c.id.not_in(select(values.c.run).where(values.c.scope == "run")))
    with workspace.records.read() as connection:
        entered = select(func.count()).select_from(runs).scalar_subquery()
        indexed = select(func.count()).where(values.c.scope == "run", values.c.name == "").scalar_subquery()
        if not connection.execute(select(entered != indexed)).scalar():
            return
    for run in _select(workspace, query, steps=True):
        with workspace.records.write() as connection:
            write_values(connection, [run])


def altered_indexes(workspace: Workspace) -> Iterator[str]:
    """References of runs of which searches read something else than the run says; runs not yet indexed are none.

    Nothing vouches for the index: it is made of rows that are vouched for, and compared with them.
    """
    with workspace.records.read() as connection:
        if not inspect(connection).has_table(values.name):
            return
        ids = connection.execute(select(values.c.run).where(values.c.scope == "run").order_by(values.c.run)).scalars()
        every = list(ids)
        strays = select(values.c.run).distinct().where(values.c.run.not_in(select(runs.c.id)))
        yield from (f"run:{run}" for run in connection.execute(strays).scalars())
    for first in range(0, len(every), _AT_ONCE):
        part = every[first : first + _AT_ONCE]
        with workspace.records.read() as connection:
            stored: dict[str, set[tuple[Any, ...]]] = {run: set() for run in part}
            for run, *row in connection.execute(select(values).where(values.c.run.in_(part))):
                stored[run].add(tuple(row))
        try:
            selected = _select(workspace, runs.c.id.in_(part), steps=True)
        except IntegrityError:  # a run that cannot be read is named where its rows are
            continue
        for run in selected:
            rows = {tuple(row[name] for name in ("scope", "name", "number", "text")) for row in value_rows(run)}
            if run.status != "running" and rows != stored[run.id]:
                yield run.ref


def get_run(workspace: Workspace, ref: str) -> Run:
    """One run by ``run:ULID``, or the model version it made, with everything; NotFoundError names the nearest ids."""
    ref = get_version(workspace, ref).run if "@" in ref else ref
    name = Ref.parse(ref, kind="run").name
    _look(workspace)
    for run in _select(workspace, runs.c.id == name, steps=True):
        return run
    with workspace.records.read() as connection:
        ids = connection.execute(select(runs.c.id).order_by(runs.c.id.desc()).limit(50)).scalars().all()
    raise NotFoundError("a run of this id must be in the evaluation store", where="runs", got=name,
                        remedy=near(name, ids, what="run"))  # fmt: skip


def tag_run(
    workspace: Workspace, ref: str, tags_: Mapping[str, str | None] | None = None, *, note: str | None = None
) -> Run:
    """Change tags and note of a run, also after its end; the ledger says who did, and audits the rows.

    Parameters
    ----------
    workspace : Workspace
    ref : str
    tags_ : mapping of str to str or None, optional
        Values of tags; None removes one.
    note : str, optional
        In the place of the one it has.

    Returns
    -------
    Run
        As it is now.
    """
    run = get_run(workspace, ref)
    changed = dict(tags_ or {})
    labels = {name: value for name, value in changed.items() if value is not None}
    check_tags(labels, note or "", where=run.ref)
    missing = [name for name, value in changed.items() if value is None and name not in run.tags]
    if missing:
        raise NotFoundError("a tag that is removed must be there", where=run.ref, got=missing[0],
                            remedy=near(missing[0], run.tags, what="tag"))  # fmt: skip
    with workspace.ledger.transaction() as tx:
        removed = [name for name, value in changed.items() if value is None]
        tx.connection.execute(delete(tags).where(tags.c.run == run.id, tags.c.name.in_(removed)))
        write_tags(tx, replace(run, tags=labels))
        if note is not None:
            tx.connection.execute(update(runs).where(runs.c.id == run.id).values(note=note))
        tx.vouch(runs, {"id": run.id})
        tx.append("run.tag", run.ref, {"tags": sorted(changed), "note": note is not None})
    return get_run(workspace, ref)
