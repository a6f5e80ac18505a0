"""Several workers on one port: started together, replaced when they die, ended together.

The supervisor answers nothing. It holds the listening socket, the memory in which workers publish, and what there is
once per server: the feature consumer and the health of features. A worker that dies is replaced at once. One that dies
again and again is tried every half a minute, which logs, status and readiness say, as long as another one answers or
starts; when none does, the server ends with an error rather than stay as a port behind which nobody is. Where their
number may change, one at a time begins, once the one before it answers, or ends after what it has.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from retrodict.core.errors import RetrodictError, RetryableError
from retrodict.features.online import FeatureHealth
from retrodict.serving.board import Board
from retrodict.serving.consumer import code_of, ending_signals
from retrodict.serving.routes import Part
from retrodict.serving.server import open_port, url_of
from retrodict.serving.worker import Spec
from retrodict.serving.worker_scale import WorkerScale
from retrodict.workspace import Workspace

__all__ = ["Supervisor"]

_MOST_DEATHS = 5  # within ...
_WITHIN_S = 60.0
_PAUSE_S = 30.0
_PATIENCE_S = 20.0
_LOOK_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Place:
    """One worker, and those before it in the same slot."""

    slot: int
    on_duty: asyncio.Event = field(default_factory=asyncio.Event)
    process: Process | None = None
    cpu: tuple[float, float] | None = None
    up: bool = False
    paused: bool = False
    restarts: int = 0
    deaths: list[float] = field(default_factory=list)
    problem: str | None = None


class Supervisor:
    """Keeps the workers of one server.

    Parameters
    ----------
    workspace : Workspace
    listener : socket
        Bound, not yet listening: it is opened when every worker can answer.
    health : FeatureHealth
        Its gauges are passed on to the workers.
    scale : WorkerScale
        Fewest and most workers.
    replay : bool
        Accept simulated time from the callers.
    grpc : str, optional
        Address on which each worker listens for gRPC.
    only : {"features", "models", "decisions"}, optional
        What they serve alone.
    """

    def __init__(
        self,
        workspace: Workspace,
        listener: socket.socket,
        health: FeatureHealth,
        scale: WorkerScale,
        *,
        replay: bool,
        grpc: str | None = None,
        only: Part | None = None,
    ) -> None:
        self._workspace, self._listener, self._health, self._replay = workspace, listener, health, replay
        self._grpc, self._only = grpc, only
        self._code = code_of(workspace)  # a worker that is started later must not serve another edition
        self._scale, self._board = scale, Board(scale.upper)
        self._places = [_Place(slot) for slot in range(scale.upper)]
        for place in self._places[: scale.lower]:
            place.on_duty.set()
        self._waiting = scale.lower  # for the first answer of so many
        self._stop, self._all_ready = asyncio.Event(), asyncio.Event()

    def publish(self) -> None:
        """Tell the workers how features and the other workers are."""
        workers = [{"on_duty": place.on_duty.is_set(), "up": place.up, "restarts": place.restarts,
                    "problem": place.problem} for place in self._places]  # fmt: skip
        flows = [asdict(flow) for flow in self._health.flows]
        self._board.write(
            len(self._places),
            {"workers": workers, "flows": flows, "refreshed": self._health.refreshed, "behind": self._health.behind},
        )

    async def run(self, beside: Coroutine[Any, Any, None], ready: Callable[[str], None] | None) -> None:
        """Keep the workers until SIGINT, SIGTERM or SIGHUP, and ``beside`` running as long.

        Raises
        ------
        RetryableError
            If a worker cannot begin, or if none can be kept alive.
        """
        loop = asyncio.get_running_loop()
        for number in ending_signals():
            loop.add_signal_handler(number, self._stop.set)
        self.publish()
        keepers = [asyncio.create_task(self._keep(place)) for place in self._places]
        looking = asyncio.create_task(beside)
        tasks = [looking, asyncio.create_task(self._open(ready)), asyncio.create_task(self._rescale())]
        stopping = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *keepers], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            self._stop.set()
            looking.cancel()  # a consumer that ends now is not started again
            self._listener.close()
            await self._end()
            for task in [*tasks, *keepers, stopping]:
                task.cancel()
            await asyncio.gather(*tasks, *keepers, stopping, return_exceptions=True)
            self._board.close()

    async def _open(self, ready: Callable[[str], None] | None) -> None:
        await self._all_ready.wait()
        if ready is not None:
            ready(url_of(self._listener, self._workspace))

    async def _keep(self, place: _Place) -> None:
        while not self._stop.is_set():
            await place.on_duty.wait()
            pid, code = await self._live(place)
            if self._stop.is_set():
                return
            if not place.on_duty.is_set():
                continue
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if not self._all_ready.is_set():
                raise RetryableError("every worker must begin before the port is opened", where=f"worker {place.slot}",
                                     got=f"one that {how}", remedy="Correct what its own message says")  # fmt: skip
            place.restarts += 1
            place.deaths = [death for death in place.deaths if time.monotonic() - death < _WITHIN_S]
            place.deaths.append(time.monotonic())
            failing = len(place.deaths) >= _MOST_DEATHS
            often = f", {len(place.deaths)} times within {_WITHIN_S:.0f} s" if failing else ""
            again = f"it is started again {f'in {_PAUSE_S:.0f} s' if failing else 'now'}"
            place.problem = f"worker {place.slot} {how}{often}: {again}"
            _log.error("worker %d (process %d) %s%s: %s", place.slot, pid, how, often, again)
            self.publish()
            if failing:
                place.paused = True
                self._check_others(how)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _PAUSE_S)
                place.paused = False

    async def _live(self, place: _Place) -> tuple[int, int]:
        """Start a worker and wait until it ended; its process id and exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        try:
            spec = Spec(str(self._workspace.root), self._workspace.actor, place.slot, len(self._places),
                        self._listener.fileno(), self._board.descriptor, theirs.fileno(), self._code, self._replay,
                        logging.getLogger("retrodict").getEffectiveLevel(), self._grpc,
                        self._only)  # fmt: skip
            place.process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "retrodict.serving", msgspec.json.encode(spec).decode(),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(spec.listener, spec.board, spec.lifeline),
            )  # fmt: skip
        finally:
            theirs.close()
        if self._stop.is_set():  # which has asked the others
            process.terminate()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            if await reader.read(1):
                await self._begin(place)
                writer.write(b"g")
            code = await process.wait()
        finally:
            place.up = False
            self._board.set_connections(place.slot, None)
            writer.close()
        return process.pid, code

    async def _begin(self, place: _Place) -> None:
        """Open the port once every worker can answer; one that replaces another begins at once."""
        self._waiting -= not self._all_ready.is_set()
        if not self._waiting and not self._all_ready.is_set():
            open_port(self._listener)
            self._all_ready.set()
        await self._all_ready.wait()
        place.up, place.problem = True, None
        self.publish()

    async def _rescale(self) -> None:
        """Let one more begin, or one end, as busy as those are that answer."""
        await self._all_ready.wait()
        while self._scale.lower < self._scale.upper:
            await asyncio.sleep(_LOOK_S)
            on_duty = [place for place in self._places if place.on_duty.is_set()]
            if not all(place.up for place in on_duty):
                continue  # one begins: what the others do is not what they will
            now = time.monotonic()
            try:
                busy = [self._busy(place, now) for place in on_duty]
            except RetrodictError as error:  # an end of this would keep as many as there are for ever, without a word
                _log.error("how busy the workers are cannot be read: %s", error)
                continue
            count = self._scale.count(now, busy)
            if count == len(on_duty):
                continue
            self._scale.changed()
            _log.info("%d workers in place of %d", count, len(on_duty))
            if count > len(on_duty):
                next(place for place in self._places if not place.on_duty.is_set()).on_duty.set()
            else:
                await self._retire(on_duty[-1])
            self.publish()

    def _busy(self, place: _Place, now: float) -> float:
        facts = self._board.read(place.slot).get("facts", {})
        spent, load, before = float(facts.get("cpu_s", 0)), float(facts.get("load", 0)), place.cpu
        place.cpu = now, spent
        share = (spent - before[1]) / (now - before[0]) if before is not None else 0.0
        return max(share, load)  # of one that was replaced it is less than nothing, once

    async def _retire(self, place: _Place) -> None:
        """Let one end after what it has; its connections come to the others."""
        place.on_duty.clear()
        process, place.cpu = place.process, None
        assert process is not None
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()

    def _check_others(self, how: str) -> None:
        # One that is being started may answer within seconds.
        if all(place.paused for place in self._places if place.on_duty.is_set()):
            raise RetryableError(
                f"a worker must not die {_MOST_DEATHS} times within {_WITHIN_S:.0f} s, and no other answers",
                where="workers",
                got=f"the last one {how}",
                remedy="Correct what their own messages say; the system's log shows if memory ran out",
            )

    async def _end(self) -> None:
        """Let all workers finish what they have, and seal; kill those that do not within a time."""
        alive = [place.process for place in self._places if place.process and place.process.returncode is None]
        for process in alive:
            with suppress(ProcessLookupError):
                process.terminate()
        if alive:
            _, late = await asyncio.wait([asyncio.create_task(p.wait()) for p in alive], timeout=_PATIENCE_S)
            for process in alive if late else []:
                with suppress(ProcessLookupError):
                    process.kill()
