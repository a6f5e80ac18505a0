"""The journal of runs that are recorded by hand: durable at once, entered in the ledger in groups.

A ledger entry costs a signature and a second file; one per metric, or two per run of a loop, would make recording as
slow as the work. So a run is first written to a table of its own, each time in one plain transaction, and entered
together with others a moment after its end, by a thread of its process or by whoever looks next. Until then its rows
carry a code by a secret of the signing key: what was written without that key is never entered. A run that is open
while the key is renewed is not entered either; its rows stay. Kept in memory alone was rejected: a kill takes the run.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, select

from retrodict.core.errors import BusyError
from retrodict.learning.runs.heartbeat import has_process, sign_of_life
from retrodict.learning.runs.record import (
    Artifact,
    MetricPoint,
    Run,
    check_parent,
    enter_ended,
    enter_start,
    finish_run,
    sources_of,
)
from retrodict.learning.runs.schema import heartbeats, journal, runs
from retrodict.ledger import Transaction
from retrodict.workspace import Workspace

__all__ = ["Event", "begin_run", "fold", "secret_of", "settle", "unfinished", "write_events"]

_log = logging.getLogger(__name__)

Event = list[Any]
"""What happened, and to what: ``["metric", split, name, step, value, reason]``, ``["param", name, value]`` …"""

_GROUP = 50  # runs that are entered in one transaction
_FIELDS = ("id", "model", "actor", "started", "seed", "code", "environment", "data", "params", "kind", "name", "parent",
           "tags", "note")  # fmt: skip
_INSERT, _INSERT_SIGN = insert(journal), insert(heartbeats)


def begin_run(workspace: Workspace, run: Run) -> None:
    """Write that a run began; the tables must exist."""
    body = json.dumps(["begin", {name: getattr(run, name) for name in _FIELDS}])
    body = _vouched(secret_of(workspace, begin=True), run.id, body)
    with workspace.records.write() as connection:
        check_parent(connection, run)
        connection.execute(_INSERT, {"run": run.id, "body": body})
        connection.execute(_INSERT_SIGN, {"run": run.id, **sign_of_life()})


def write_events(connection: Connection, secret: bytes, events: Iterable[tuple[str, Sequence[Event]]]) -> None:
    """Write what was logged of some runs since the last time; an end must be an event of its own row."""
    rows = [{"run": run, "body": _vouched(secret, run, json.dumps(logged))} for run, logged in events]
    connection.execute(_INSERT, rows)


def secret_of(workspace: Workspace, *, begin: bool = False) -> bytes:
    """What rows of the journal are vouched for by; empty where the signing key is not at hand.

    With ``begin`` a project that has no key yet gets one, with the first entry of its ledger.
    """
    if begin and not workspace.ledger.public_key:
        with workspace.ledger.transaction() as tx:
            tx.append("runs.begin", "runs:journal", {})
    return workspace.ledger.secret("runs")[1]


def _vouched(secret: bytes, run: str, text: str) -> str:
    return f"{text} {hmac.new(secret, f'{run} {text}'.encode(), 'sha256').hexdigest()}"


def _logged(secret: bytes, run: str, body: str) -> list[Any]:
    """What a row says; nothing if it was not written with the key. Without a key at hand nobody can tell."""
    text = body.rpartition(" ")[0]
    if secret and not hmac.compare_digest(body.encode(), _vouched(secret, run, text).encode()):
        _log.error("run:%s: a row of its journal was not written with the key of this project: it does not count", run)
        return []
    logged: list[Any] = json.loads(text)
    return logged


def fold(run: Run, events: Iterable[Event]) -> Run:
    """Return a run with what was logged of it: of two values for one name and step the later counts."""
    points = {(p.split, p.name, p.step): p for p in run.points}
    files = {a.name: a for a in run.artifacts}
    data, summary = {**run.data}, {**run.summary}
    changed = replace(run, params={**run.params}, tags={**run.tags}, data=data, summary=summary)
    odd: dict[str, int] = {}
    for what, *rest in events:
        match what:
            case "metric":
                split, name, step, value, reason = rest
                points[split, name, step] = MetricPoint(split, name, value, step)
                odd[name] = odd.get(name, 0) + bool(reason)
            case "param":
                changed.params[rest[0]] = rest[1]
            case "tag":
                changed.tags[rest[0]] = rest[1]
            case "note":
                changed.note = rest[0]
            case "name":
                changed.name = rest[0]
            case "artifact":
                files[rest[0]] = Artifact(*rest)
            case "table":
                data["versions"] = {**data["versions"], rest[0]: rest[1]}
            case "frame":
                data["frames"] = {**data.get("frames", {}), rest[0]: rest[1]}
            case "better":
                summary["better"] = {**summary.get("better", {}), rest[0]: rest[1]}
            case "end":
                changed.status, changed.finished, changed.seconds, error = rest
                summary |= {"error": error} if error else {}
    warnings = [f"{name}: {count} values were no finite numbers and are not evaluable" for name, count in odd.items()
                if count]  # fmt: skip
    if warnings:
        summary["warnings"] = [*summary.get("warnings", ()), *warnings]
    changed.points, changed.artifacts = list(points.values()), list(files.values())
    return changed


def settle(workspace: Workspace, *, wait: bool = True) -> None:
    """Enter in the ledger what the journal holds: runs that ended or whose process is gone, and others as running.

    One process does so at a time, in small groups: those that record runs meanwhile hardly wait for it.

    Parameters
    ----------
    workspace : Workspace
    wait : bool, default True
        Whether to wait for another process that is at it; False leaves it to that one.
    """
    with workspace.records.read() as connection:
        if not any(_is_due(row) for row in connection.execute(_STATE)):
            return
    try:
        with workspace.lock("runs/journal", timeout_s=60.0 if wait else 0.0):
            _settle(workspace)
    except BusyError:
        if wait:
            raise


def _settle(workspace: Workspace) -> None:
    with workspace.records.read() as connection:
        ids = [row.run for row in connection.execute(_STATE) if _is_due(row)]
    for first in range(0, len(ids), _GROUP):
        with workspace.ledger.transaction() as tx:
            query = _STATE.where(_STATE.selected_columns.run.in_(ids[first : first + _GROUP]))
            _enter(workspace, tx, [row for row in tx.connection.execute(query) if _is_due(row)])


def unfinished(connection: Connection, secret: bytes, ids: Sequence[str]) -> dict[str, list[Event]]:
    """Events of runs that are still in the journal, without their beginning, by run; those of a forged row are none."""
    logged: dict[str, list[Event]] = {}
    for run, body in connection.execute(
        select(journal.c.run, journal.c.body).where(journal.c.run.in_(ids)).order_by(journal.c.id)
    ):
        events = _logged(secret, run, body)
        logged.setdefault(run, []).extend([] if events[:1] == ["begin"] else events)
    return logged


def _state() -> Any:
    ended = func.max(case((journal.c.body.like('[["end"%'), 1), else_=0))
    part = select(journal.c.run, ended.label("ended")).group_by(journal.c.run).subquery()
    columns = [column for column in heartbeats.c if column.name != "run"]
    return (
        select(part.c.run, part.c.ended, runs.c.status, *columns)
        .join(runs, runs.c.id == part.c.run, isouter=True)
        .join(heartbeats, heartbeats.c.run == part.c.run, isouter=True)
        .order_by(part.c.run)
    )


_STATE = _state()


def _is_due(row: Any) -> bool:
    return bool(row.ended or row.status is None or _is_lost(row))


def _is_lost(row: Any) -> bool:
    return row.machine is None or not has_process(row)


def _enter(workspace: Workspace, tx: Transaction, rows: Sequence[Any]) -> None:
    """Enter the beginning of runs that is not entered yet, and the end of those that have one."""
    bodies: dict[str, list[str]] = {row.run: [] for row in rows}
    query = select(journal.c.run, journal.c.body).where(journal.c.run.in_(bodies)).order_by(journal.c.id)
    for run, body in tx.connection.execute(query):
        bodies[run].append(body)
    ended: list[Run] = []
    secret = secret_of(workspace)
    for row in rows:
        try:
            began, run = _read(secret, row.run, bodies[row.run])
        except (ValueError, TypeError, KeyError, IndexError) as error:
            _log.error("run:%s cannot be entered: its journal is not as it was written (%s)", row.run, error)
            del bodies[row.run]
            continue
        if not row.ended and _is_lost(row):
            summary = {**run.summary, "error": "ProcessLost"}
            run = replace(run, status="failed", finished=workspace.clock.now(), summary=summary)
        if run.status == "running":
            enter_start(tx, began)
            del bodies[row.run]
        elif row.status is None:
            ended.append(run)
        elif row.status == "running":
            finish_run(tx, run, inputs=[source for source in sources_of(run) if source not in sources_of(began)])
    if ended:
        enter_ended(tx, ended)
    for table in (journal, heartbeats):
        tx.connection.execute(delete(table).where(table.c.run.in_(list(bodies))))


def _read(secret: bytes, name: str, bodies: Sequence[str]) -> tuple[Run, Run]:
    """A run as it began, and with everything that was logged of it."""
    (_, fields), *groups = (_logged(secret, name, body) for body in bodies)
    began = Run(**fields, status="running")
    return began, fold(began, (event for group in groups for event in group))
