"""Shadows: challengers that decide real requests too, after the answer and never in its way.

A follower in a process of its own reads the durable log of decisions, decides each again with every shadow that was in
force at its revision, and appends the results to a stream of its own. Which shadows there are is part of a deployment,
so the revision in a record says who looked on. Results and the places up to which the log was read are one record:
whenever the follower is killed, nothing is lost and nothing comes twice. A path beside the answer (a queue in the
server) was rejected: it takes memory and time of answers, and a kill would lose what waits.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from retrodict.core.errors import BusyError, RefusedError, RetrodictError, RetryableError, check_known
from retrodict.core.identity import content_hash
from retrodict.decisions.log import STREAM_PREFIX
from retrodict.decisions.records import DecisionRecord, decode_record
from retrodict.features.online import unbuilt_views
from retrodict.registry import Deployment, Revision, change, current, history
from retrodict.rollout.rescore import Challenger, Rescore, Rescorer, champion_of, check_features
from retrodict.workspace import Workspace

__all__ = ["STREAM", "Follower", "ShadowBatch", "ShadowResult", "follow", "read_batches", "start_shadow", "stop_shadow"]

STREAM = "shadows/results"
_BATCH = 500
_SKIP = 5_000
_IDLE_S = 0.2
_HANG_S = 60.0  # that a batch may take, and then each of its decisions alone
_END_S = 2  # after SIGTERM
_NICE = 15
MOST_BEHIND = 20_000
"""Decisions that may wait for their shadows; beyond that the oldest are dropped, and counted."""

_log = logging.getLogger(__name__)


class ShadowResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one shadow makes of one decision; ``shadow`` is :func:`shadow_id`, the rest as :class:`Rescore` has it."""

    id: str
    shadow: str
    decision: str
    raw: float | None = None
    score: float | None = None
    outputs: dict[str, float] = {}
    features: str = "logged"
    micros: float = 0.0
    error: str | None = None

    def rescore(self) -> Rescore:
        """As the engine gave it."""
        return Rescore(self.decision, self.raw, self.score, dict(self.outputs), self.features, self.micros, self.error)


class ShadowBatch(msgspec.Struct, frozen=True):
    """Results with the places in the log that they reach, by decision stream; ``dropped`` counts by shadow."""

    places: dict[str, int]
    results: list[ShadowResult]
    dropped: dict[str, int] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ShadowBatch)


def shadow_id(policy: str, shadow: Mapping[str, Any]) -> str:
    """Which shadow a result is of: the same name for something else is another one."""
    return f"{policy}/{shadow['name']}/{content_hash(dict(shadow))[:12]}"


def start_shadow(workspace: Workspace, policy: str, challenger: Challenger, *, reason: str) -> Revision:
    """Let a challenger look on, from the next revision on.

    Raises
    ------
    RefusedError
        If a shadow of the name runs already, or the challenger reads what requests do not bring or what no online state
        holds.
    """
    check_features(workspace, policy, challenger)
    features = Rescorer(workspace, challenger).features
    if unbuilt := unbuilt_views(workspace, features):
        raise RefusedError("the online state of every view of a shadow must have been built",
                           where=f"model:{challenger.model}", got=[view.name for view in unbuilt],
                           remedy="Run: retrodict features build")  # fmt: skip
    with workspace.lock(f"rollout/{policy}"):
        before = current(workspace)[policy]
        shadows = before.deployment.shadows
        if any(shadow["name"] == challenger.name for shadow in shadows):
            raise RefusedError("every shadow of a policy must have a name of its own", where=f"policy:{policy}",
                               got=challenger.name, remedy="Give it another --name, or stop the other one"
                               )  # fmt: skip
        deployment = replace(before.deployment, shadows=[*shadows, challenger.to_dict()])
        return change(workspace, deployment, action="shadow", reason=reason, after=before.revision)


def stop_shadow(workspace: Workspace, policy: str, name: str, *, reason: str) -> Revision:
    """Let a challenger look on no longer; its results stay.

    Raises
    ------
    NotFoundError
        If no shadow of the name runs.
    """
    with workspace.lock(f"rollout/{policy}"):
        champion_of(workspace, policy)
        before = current(workspace)[policy]
        shadows = {shadow["name"]: shadow for shadow in before.deployment.shadows}
        check_known(name, shadows, "a shadow of this name must run", where=f"policy:{policy}", what="shadow")
        left = [shadow for shadow in before.deployment.shadows if shadow["name"] != name]
        deployment = replace(before.deployment, shadows=left)
        return change(workspace, deployment, action="shadow", reason=reason, after=before.revision)


def read_batches(workspace: Workspace, start: int = 0) -> Iterator[ShadowBatch]:
    """All results that were written, in order."""
    for _, data in workspace.streams.read(STREAM, start):
        yield _decoder.decode(data)


class Follower:
    """Reads the log from where it stopped and decides again; for one thread, and one process at a time.

    Promises: every decision whose revision had shadows gets exactly one result of each, or is counted as dropped,
    whenever the process is killed. Decisions are not held up: nothing here is on their way.

    Parameters
    ----------
    workspace : Workspace
    most_behind : int
        Decisions that may wait; the oldest beyond them are dropped.
    """

    def __init__(self, workspace: Workspace, *, most_behind: int = MOST_BEHIND) -> None:
        self._workspace, self._most_behind = workspace, most_behind
        self._writer = workspace.streams.open_writer(STREAM, timeout_s=1.0)
        self._places: dict[str, int] = {}
        end = workspace.streams.end(STREAM)
        for batch in read_batches(workspace, max(end - 1, 0)):
            self._places = dict(batch.places)
        self._deployments: dict[int, Deployment] = {}
        self._rescorers: dict[str, Rescorer | str] = {}

    def close(self) -> None:
        """Let go of the stream."""
        self._writer.close()

    def step(self) -> int:
        """Decide the next decisions again and write the results; how many decisions were read."""
        places = dict(self._places)
        behind = self._behind(places)
        excess = behind - self._most_behind
        records = self._read(places, _SKIP if excess > 0 else _BATCH)
        if not records:
            return 0
        skipped = records[: max(excess, 0)]
        dropped = Counter(name for record in skipped for name in self._shadows(record))
        results = list(self._results(records[len(skipped) :]))
        # A batch without results is written too where much was read: the next start need not read it again.
        if results or dropped or len(records) >= _BATCH:
            self._writer.append([_encoder.encode(ShadowBatch(places, results, dict(dropped)))])
        self._places = places
        return len(records)

    def _streams(self) -> Iterator[tuple[str, int, int]]:
        """Each decision stream with the first offset that is left of it, and its end."""
        streams = self._workspace.streams
        for stream in streams.names(STREAM_PREFIX):
            if segments := streams.segments(stream):
                yield stream, segments[0].first, segments[-1].first + segments[-1].count

    def _behind(self, places: Mapping[str, int]) -> int:
        return sum(max(end - max(places.get(stream, 0), first), 0) for stream, first, end in self._streams())

    def _read(self, places: dict[str, int], limit: int) -> list[DecisionRecord]:
        """Next decisions of all streams, in turn, by time; ``places`` move on."""
        records = []
        streams = list(self._streams())
        share = max(limit // max(len(streams), 1), 1)
        for stream, first, end in streams:
            start = max(places.get(stream, 0), first)
            count = min(end - start, share)
            for offset, data in self._workspace.streams.read(stream, start, count) if count > 0 else ():
                places[stream] = offset + 1
                records.append(decode_record(data))
        return sorted(records, key=lambda record: (record.time, record.id))

    def _shadows(self, record: DecisionRecord) -> dict[str, dict[str, Any]]:
        """Shadows that were in force at a record's revision, by id."""
        if record.revision not in self._deployments:
            self._deployments = {one.revision: one.deployment for one in history(self._workspace)}
        deployment = self._deployments.get(record.revision)
        return {} if deployment is None else {shadow_id(record.policy, one): one for one in deployment.shadows}

    def _results(self, records: Sequence[DecisionRecord]) -> Iterator[ShadowResult]:
        work: dict[str, tuple[dict[str, Any], list[DecisionRecord]]] = {}
        for record in records:
            for name, shadow in self._shadows(record).items():
                work.setdefault(name, (shadow, []))[1].append(record)
        for name, (shadow, part) in work.items():
            rescorer = self._rescorer(name, shadow)
            rescores = [Rescore(error=rescorer) for _ in part] if isinstance(rescorer, str) else _within(rescorer, part)
            for record, one in zip(part, rescores, strict=True):
                yield ShadowResult(record.id, name, one.decision, one.raw, one.score, one.outputs, one.features,
                                   round(one.micros, 1), one.error)  # fmt: skip

    def _rescorer(self, name: str, shadow: Mapping[str, Any]) -> Rescorer | str:
        """Engine of a shadow, or why it cannot be loaded."""
        if name not in self._rescorers:
            try:
                self._rescorers[name] = Rescorer(self._workspace, Challenger(**shadow), online=True)
            except RetryableError:
                raise
            except RetrodictError as error:
                _log.error("shadow %s cannot be loaded: %s", name, error)
                self._rescorers[name] = f"{type(error).__name__}: {error.rule}"
        return self._rescorers[name]


class _HangError(BaseException):
    """A challenger has not come back; no ``Exception``, which would be its own result."""


def _within(rescorer: Rescorer, records: Sequence[DecisionRecord]) -> list[Rescore]:
    """Decide again within a minute, else each alone, so that what hangs has an error and the others a result.

    By a signal, which Python takes in the main thread alone, and not while a library computes.
    """
    if threading.current_thread() is not threading.main_thread():
        return rescorer.rescore(records)

    def end(*_: object) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, end), signal.setitimer(signal.ITIMER_REAL, _HANG_S)
    try:
        return rescorer.rescore(records)
    except _HangError:
        if len(records) == 1:
            return [Rescore(error="TimeoutError")]
    finally:
        if signal.getsignal(signal.SIGALRM) is end:
            signal.signal(signal.SIGALRM, before[0])
            signal.setitimer(signal.ITIMER_REAL, *before[1])
    return [_within(rescorer, [one])[0] for one in records]


def _end(stop: threading.Event) -> None:
    """End after the present batch, or in two seconds: what is killed goes on where it was."""
    stop.set()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _END_S)


def follow(workspace: Workspace, *, once: bool = False, parent: int | None = None) -> int:
    """Follow the log until SIGINT or SIGTERM, behind everything else on the machine; how many decisions were read.

    Parameters
    ----------
    workspace : Workspace
    once : bool
        Up to the present end of the log only.
    parent : int, optional
        Process whose end ends this one.

    Raises
    ------
    BusyError
        If another process follows.
    """
    if not once:
        os.nice(max(_NICE - os.nice(0), 0))
        with suppress(OSError):  # forbidden here; the nice value counts all the same
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    stop, total, problem = threading.Event(), 0, ""
    if not once:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _end(stop))
    follower = _turn(workspace, stop, parent)
    try:
        while follower is not None and not stop.is_set() and (parent is None or os.getppid() == parent):
            count = 0
            try:
                count, problem = follower.step(), ""
            except RetrodictError as error:
                if once:
                    raise
                if str(error) != problem:  # once, not five times a second
                    problem = str(error)
                    _log.error("decisions cannot be followed: %s", problem)
            total += count
            if not count:
                if once:
                    break
                stop.wait(_IDLE_S)
    finally:
        if follower is not None:
            follower.close()
    return total


def _turn(workspace: Workspace, stop: threading.Event, parent: int | None) -> Follower | None:
    """Follower once no other process follows; beside a server it waits for that, else it says so."""
    while not stop.is_set() and (parent is None or os.getppid() == parent):
        try:
            return Follower(workspace)
        except BusyError:
            if parent is None:
                raise
            stop.wait(1.0)
    return None
