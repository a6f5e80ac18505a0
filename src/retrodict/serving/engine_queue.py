"""Single requests that come while an engine is busy are read and scored together when it is free.

An engine that answers in microseconds is called on the event loop, where a thread would cost more than the call. What
takes longer, or reads its features from a server, goes to a thread, and what arrives meanwhile is the next batch: no
timer delays anybody, unless the policy's ``batch`` says so. A model that hangs, or a server that says nothing, holds up
a thread of its policy: who waits for it is answered by the fallback at the deadline, and the next batch goes to another
thread. Only reading and scoring are shared; each request decides, counts and records for itself, on the loop. How long
the queue is in time is known from what the last batches took, so who would wait for half of its deadline is told at
once to come back. A queue with a fixed size or a timer by default was rejected: it delays the only caller of a quiet
server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from msgspec import structs

from retrodict.core.clock import Clock
from retrodict.core.durations import parse_duration
from retrodict.core.retries import left_s, waited_for
from retrodict.decisions.records import DecisionRecord
from retrodict.decisions.requests import DecisionRequest
from retrodict.decisions.servant import NO_REASONS, ReadyCase, Servant
from retrodict.serving.batch import Piece, judge
from retrodict.serving.deadlines import gone, late
from retrodict.serving.elsewhere import Origin, asked_for
from retrodict.serving.telemetry import Telemetry
from retrodict.serving.threads import BoundedThreads
from retrodict.serving.turns import full

__all__ = ["EngineQueue", "EngineQueues"]

_ROWS = 100  # at most in one call, and then no more than a quarter of the policy's deadline has room for
_SHARE, _BATCH_SHARE = 2, 8  # of the deadline that may pass in the queue, a half; of priority ``batch``, an eighth
_MEMORY = 1 / 8  # of the newest batch, in a mean
T = TypeVar("T")
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(slots=True, eq=False)
class _Waiting:
    question: DecisionRequest
    simulated: int | None
    arrived_ns: int
    limit_ns: int | None
    has_left: Callable[[], bool]
    queued_ns: int
    ready: asyncio.Future[tuple[int, ReadyCase]]
    origin: Origin | None = None
    begun: bool = False
    answered: bool = False
    read: tuple[dict[int, ReadyCase], int] = field(default_factory=lambda: ({}, 0))  # of its batch, and its place


class EngineQueue:
    """What waits for the engine of one servant; for one event loop.

    Promises: one call at a time; rows are scored together only where the engine gives the same bits for that. Who left
    or whose own deadline has passed costs no work. Rows that fail together are prepared one by one. The queue is
    bounded by the places of the app, since a request keeps its own while it waits, and by time.
    """

    def __init__(self, servant: Servant, threads: BoundedThreads, clock: Clock, telemetry: Telemetry) -> None:
        self.servant, self._threads, self._clock, self._telemetry = servant, threads, clock, telemetry
        self.rows = _rows_together(servant)
        window = servant.policy.policy.batch
        self.window_us = 0 if window is None else parse_duration(window)
        self._batch_ns = 0.0 if servant.speed is None else servant.speed.alone_us * 1e3  # until it is known
        self._waiting: deque[_Waiting] = deque()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def load(self) -> float:
        """Share of the longest queue there may be, in time; more is refused."""
        return self._wait_ns * _SHARE / self.servant.deadline(0)

    @property
    def _wait_ns(self) -> float:
        """Nanoseconds until the batch begins that the next one would be in, after the one that runs."""
        return len(self._waiting) // self.rows * self._batch_ns

    async def decide(
        self,
        question: DecisionRequest,
        *,
        new_id: Callable[[], str],
        simulated: int | None,
        arrived_ns: int,
        limit_ns: int | None,
        has_left: Callable[[], bool] = lambda: False,
        batch: bool = False,
        origin: Origin | None = None,
    ) -> DecisionRecord:
        """Decide when the engine was free for this request; as :meth:`Servant.decide`, at the moment of its batch.

        Parameters
        ----------
        simulated : int, optional
            Moment that the caller asks for, instead.
        has_left : callable
            Whether the caller has left; looked at before the work begins.
        batch : bool
            Whether others go first.
        origin : Origin, optional
            What the request is called where other servers are asked for it.

        Raises
        ------
        RefusedRequestError
            429 if the wait would take too much of the deadline.
        GoneError, LateError
            If the caller has left, or its own deadline has passed; then nothing was computed.
        InputError
            If the request is wrong.
        """
        if self._wait_ns * (_BATCH_SHARE if batch else _SHARE) > self.servant.deadline(0, limit_ns):
            raise full()
        ready = asyncio.get_running_loop().create_future()
        one = _Waiting(question, simulated, arrived_ns, limit_ns, has_left, perf_counter_ns(), ready, origin)
        self._waiting.append(one)
        if len(self._waiting) >= self.rows:
            self._full.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        at, case = await self._within(one)
        deciding = partial(self.servant.decide, question, decision_id=new_id(), at=at, arrived_ns=arrived_ns,
                           limit_ns=limit_ns, ready=case, reasons=False)  # fmt: skip
        until = self.servant.deadline(arrived_ns, limit_ns)
        record = await _aside(self._threads, self.servant, deciding, until, origin)
        return await _explained(self._threads, self.servant, record, until, origin)

    async def _within(self, one: _Waiting) -> tuple[int, ReadyCase]:
        """What is ready for a request by its deadline; after it what was read, and why there is no more."""
        until = self.servant.deadline(one.arrived_ns, one.limit_ns)
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s(until)):
                return await one.ready
        one.answered = True
        if one.limit_ns is not None and not one.begun and perf_counter_ns() - one.arrived_ns >= one.limit_ns:
            self._drop(one, "late", late())
            raise late()
        at = self._clock.now() if one.simulated is None else one.simulated
        return at, _given_up(one.read, TimeoutError("deadline passed before features"))

    async def _drain(self) -> None:
        while self._waiting:
            await self._wait_window()
            batch = self._take()
            if not batch:
                continue
            begun = perf_counter_ns()
            until = max(self.servant.deadline(one.arrived_ns) for one in batch)  # who gives up earlier has left by then
            try:
                cases = await self._threads.run(partial(self._prepare, batch), until)
            except BaseException as error:  # the fallback of each says so: none may wait for ever
                for one in batch:
                    _settle(one, (one.simulated or 0, _given_up(one.read, error)))
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
            else:
                self._batch_ns += (perf_counter_ns() - begun - self._batch_ns) * _MEMORY
                for one, case in zip(batch, cases, strict=True):
                    _settle(one, case)

    async def _wait_window(self) -> None:
        """Wait until the oldest request has waited for the window, or a batch is full."""
        rest = self.window_us / 1e6 - (perf_counter_ns() - self._waiting[0].queued_ns) / 1e9
        if len(self._waiting) < self.rows and rest > 0:
            self._full.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._full.wait()

    def _take(self) -> list[_Waiting]:
        """Next batch; what nobody waits for is dropped, and what is late for the policy left to its fallback."""
        batch: list[_Waiting] = []
        moment, now = self._clock.now(), perf_counter_ns()
        while self._waiting and len(batch) < self.rows:
            one = self._waiting.popleft()
            if one.simulated is None:
                one.simulated = moment
            if one.answered:
                continue
            one.begun = True
            if one.limit_ns is not None and now - one.arrived_ns >= one.limit_ns:
                self._drop(one, "late", late())
            elif one.ready.done() or one.has_left():
                self._drop(one, "gone", gone())
            elif now > self.servant.deadline(one.arrived_ns):
                _settle(one, (one.simulated, ReadyCase()))
            else:
                self._telemetry.observe("queue", (now - one.queued_ns) // 1_000)
                batch.append(one)
        if batch:
            self._count(len(batch))
        return batch

    def _drop(self, one: _Waiting, why: str, error: Exception) -> None:
        policy = self.servant.policy.policy.name
        self._telemetry.count("engine_dropped_total", f'policy="{policy}",reason="{why}"')
        _settle(one, error)

    def _count(self, size: int) -> None:
        """Count a batch as a histogram of Prometheus: every bound that it is not above."""
        label = f'policy="{self.servant.policy.policy.name}"'
        for bound in _SIZES:
            if size <= bound:
                self._telemetry.count("engine_batch_rows_bucket", f'{label},le="{bound}"')
        self._telemetry.count("engine_batch_rows_bucket", f'{label},le="+Inf"')
        self._telemetry.count("engine_batch_rows_sum", label, size)
        self._telemetry.count("engine_batch_rows_count", label)

    def _prepare(self, batch: Sequence[_Waiting]) -> list[tuple[int, ReadyCase]]:
        """Read and score, in a thread; what cannot be prepared fails again when its request decides."""
        moments = {one.simulated or 0: list[_Waiting]() for one in batch}
        for one in batch:
            moments[one.simulated or 0].append(one)
        cases = {one: case for at, items in moments.items() for one, case in self._prepare_at(at, items)}
        return [(one.simulated or 0, cases[one]) for one in batch]

    def _prepare_at(self, at: int, items: Sequence[_Waiting]) -> Iterator[tuple[_Waiting, ReadyCase]]:
        deadlines, read = [self.servant.deadline(one.arrived_ns, one.limit_ns) for one in items], dict[int, ReadyCase]()
        for place, one in enumerate(items):
            one.read = read, place
        with asked_for([one.origin for one in items if one.origin is not None]):
            questions = [one.question for one in items]
            return zip(
                items,
                self.servant.prepare_each(questions, at=at, deadlines=deadlines, note=read.__setitem__),
                strict=True,
            )

    def describe(self) -> dict[str, Any]:
        """How rows are scored, in words and numbers."""
        hanging = {"hanging": self._threads.hanging} if self._threads.hanging else {}
        return {**_row_us(self.servant), "runs": "in a thread", "rows_together": self.rows,
                "window_ms": self.window_us / 1e3, **hanging}  # fmt: skip


class EngineQueues:
    """Queues of the servants whose engines take long, by policy; none for the others."""

    def __init__(self, clock: Clock, telemetry: Telemetry) -> None:
        self._clock, self._telemetry = clock, telemetry
        self._threads: WeakKeyDictionary[Servant, BoundedThreads] = WeakKeyDictionary()
        self.by_policy: dict[str, EngineQueue] = {}

    def threads(self, servant: Servant) -> BoundedThreads:
        """Threads of a servant, which no other has: a rollback leaves those behind in which its model hangs."""
        if servant not in self._threads:
            self._threads[servant] = BoundedThreads(servant.deadline(0), ends=servant.asks_model)
        return self._threads[servant]

    def follow(self, servants: Mapping[str, Servant]) -> None:
        """Have a queue for each servant that needs one; requests in that of an earlier servant finish with it."""
        queues = {}
        for name, servant in servants.items():
            if not servant.in_thread:
                continue
            before = self.by_policy.get(name)
            queues[name] = (
                before if before is not None and before.servant is servant
                else EngineQueue(servant, self.threads(servant), self._clock, self._telemetry)
            )  # fmt: skip
        self.by_policy = queues

    @property
    def load(self) -> float:
        """Of the one whose queue is longest for its deadline; 0 where no engine takes long."""
        return max((queue.load for queue in self.by_policy.values()), default=0.0)

    async def prepare(
        self, servant: Servant, questions: Sequence[DecisionRequest], *, at: int, deadline: int,
        origin: Origin | None = None,
    ) -> list[ReadyCase]:  # fmt: skip
        """Features and scores of a piece of a batch: on the loop, or in a thread where it takes long; in time."""
        deadlines = [deadline] * len(questions)
        if not (servant.in_thread or servant.asks_redis):
            alone = len(questions) == 1
            return [ReadyCase()] if alone else servant.prepare_each(questions, at=at, deadlines=deadlines)

        read: dict[int, ReadyCase] = {}
        preparing = partial(servant.prepare_each, questions, at=at, deadlines=deadlines, note=read.__setitem__)
        try:
            return await self.threads(servant).run(_bounded(preparing, deadline, origin), deadline)
        except TimeoutError as error:
            return [_given_up((read, place), error) for place in range(len(questions))]

    async def judge(
        self, servant: Servant, piece: Piece, ready: Sequence[ReadyCase], deadline: int, origin: Origin | None,
        **times: Any,
    ) -> None:  # fmt: skip
        """Decide a piece of a batch, as :func:`judge` does, with reasons where there is time for them."""
        if not servant.in_thread:
            judge(servant, piece, ready, **times)
            return
        threads = self.threads(servant)
        deciding = partial(judge, servant, piece, ready, reasons=False, **times)
        await _aside(threads, servant, deciding, deadline, origin)
        for entry, _ in piece:
            if entry.record is not None:
                entry.record = await _explained(threads, servant, entry.record, deadline, origin)

    def piece(self, servant: Servant) -> int:
        """Rows of a batch after which the deadline is looked at, and others have their turn."""
        return _room(servant) if servant.in_thread else _ROWS

    def describe(self, policy: str, servant: Servant) -> dict[str, Any]:
        """Where the engine of a policy is called, and with how many rows."""
        queue = self.by_policy.get(policy)
        return {**_row_us(servant), "runs": "on the loop"} if queue is None else queue.describe()

    def close(self) -> None:
        """Let go of the threads."""
        for threads in self._threads.values():
            threads.close()


def _given_up(read: tuple[dict[int, ReadyCase], int], error: BaseException) -> ReadyCase:
    """What was read for a request whose model is not waited for any more: its features belong into the record."""
    case = read[0].get(read[1])
    if case is None:
        return ReadyCase(error=error)
    if isinstance(error, TimeoutError):
        error = TimeoutError("deadline passed before the model came back")
    return case._replace(error=error, previous=error)  # nor is the previous version asked: it would be on the loop


def _bounded(work: Callable[[], T], deadline: int, origin: Origin | None) -> Callable[[], T]:
    """Work that asks other servers until a deadline, and says for which request."""

    def working() -> T:
        with waited_for(deadline), asked_for([origin] if origin else ()):
            return work()

    return working


async def _aside(
    threads: BoundedThreads, servant: Servant, work: Callable[[], T], deadline: int, origin: Origin | None
) -> T:
    """Result of deciding: in a thread where a server may be asked, for a session, say; no model is waited for."""
    return await threads.finish(_bounded(work, deadline, origin)) if servant.waits else work()


async def _explained(
    threads: BoundedThreads, servant: Servant, record: DecisionRecord, deadline: int, origin: Origin | None
) -> DecisionRecord:
    """Record with its reasons, if it is to have any of a model; it says so where there was no time for them."""
    if not record.explained or not record.model:
        return record
    try:
        return await threads.run(_bounded(partial(servant.explain, record), deadline, origin), deadline)
    except TimeoutError:
        return structs.replace(record, reasons=[*record.reasons, NO_REASONS])


def _rows_together(servant: Servant) -> int:
    """Rows of one call: one where more would cost no less, or give other bits, and no server is read."""
    measurable = servant.speed is not None or servant.asks_model  # of one that is away now it may be known never
    return _room(servant) if measurable and (_gains(servant) or servant.on_server) else 1


def _room(servant: Servant) -> int:
    """Rows that a quarter of the policy's deadline has room for."""
    if servant.speed is None:
        return _ROWS
    row_us = (servant.speed.together_us if _gains(servant) else None) or servant.speed.alone_us
    return max(1, min(_ROWS, int(parse_duration(servant.policy.policy.deadline) / 4 / max(row_us, 0.1))))


def _gains(servant: Servant) -> bool:
    speed = servant.speed
    return speed is not None and speed.together_us is not None and speed.together_us < speed.alone_us


def _row_us(servant: Servant) -> dict[str, Any]:
    return {"row_us": None if servant.speed is None else round(servant.speed.alone_us, 1)}


def _settle(one: _Waiting, result: tuple[int, ReadyCase] | BaseException) -> None:
    if one.ready.done():  # its caller was cancelled
        return
    if isinstance(result, BaseException):
        one.ready.set_exception(result)
    else:
        one.ready.set_result(result)
