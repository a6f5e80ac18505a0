"""One worker of several: answers from the shared socket, publishes what it counts, and ends with its supervisor.

A worker is a command, not a fork: threads, maps of key stores and Arrow's pools do not survive one. It reads the same
artifacts through the same page cache, and all load at the same time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from retrodict.core.errors import RetrodictError
from retrodict.core.log_lines import LineFormatter, written_aside
from retrodict.features.online import FeatureHealth, ViewFlow
from retrodict.serving.app import DecisionApp
from retrodict.serving.board import Board
from retrodict.serving.cache_advice import cache_reports
from retrodict.serving.connection import raise_open_files
from retrodict.serving.routes import Part
from retrodict.serving.server import ServeOptions, answer, loop_factory
from retrodict.serving.telemetry import Telemetry, breaker_states, process_series
from retrodict.workspace import Workspace, definitions_of

__all__ = ["Colleagues", "Spec", "main"]

_PUBLISH_S = 0.25
_UNEVEN = 0.25  # more connections than the mean, as a share of it, are let be

_log = logging.getLogger(__name__)


class Spec(msgspec.Struct):
    """What a supervisor tells a worker: where the project is, who it is, and the descriptors it inherits."""

    root: str
    actor: str
    slot: int
    workers: int
    listener: int
    board: int
    lifeline: int
    code: str | None
    replay: bool
    log_level: int
    grpc: str | None = None
    only: Part | None = None


class Colleagues:
    """All workers of a server as one of them sees them: its own counts go to the board, sums come from there.

    Parameters
    ----------
    board : Board
    slot : int
        This worker's. What its predecessor published is taken over.
    app : DecisionApp
        What this worker counts, and what it follows.
    """

    def __init__(self, board: Board, slot: int, app: DecisionApp) -> None:
        self._board, self._slot, self._app = board, slot, app
        if before := board.read(slot):
            app.telemetry.add(before["telemetry"])
            app.health.add(before["health"])

    async def keep(self) -> None:
        """Publish and follow, again and again."""
        try:
            while True:
                try:
                    self.exchange()
                    self._spread()
                except RetrodictError as error:  # counts are not worth an answer
                    _log.error("what this worker counts cannot be published: %s", error)
                await asyncio.sleep(_PUBLISH_S)
        finally:
            self.exchange()

    def exchange(self) -> None:
        """Publish what this worker has counted, and take the gauges that the supervisor has asked for."""
        app = self._app
        facts = {"pid": os.getpid(), **app.facts()}
        counts = {"telemetry": app.telemetry.counts(), "health": app.health.counts()}
        self._board.write(self._slot, {"facts": facts, **counts})
        news = self._board.read(self._board.workers)
        if (
            news["refreshed"] != app.health.refreshed
        ):  # the same gauges twice would look like a stream that stands still
            app.health.flows = msgspec.convert(news["flows"], list[ViewFlow])
            app.health.refreshed = news["refreshed"]
        app.health.behind = news["behind"]

    def _spread(self) -> None:
        """Let connections that are kept go to others who hold fewer: to a worker that has just begun, say."""
        state = self._app.connected
        if state is None or state.draining:
            return
        self._board.set_connections(self._slot, len(state.connections))
        mean = self._board.mean_connections()
        surplus = len(state.connections) - math.ceil(mean)
        state.excess = surplus if surplus > 1 + mean * _UNEVEN else 0

    def status(self) -> dict[str, Any]:
        """What a status says of all workers: counters and latencies together, and each one's facts."""
        telemetry, _ = self.sums()
        caches = cache_reports(telemetry.counters, self._app.servants)
        return {"score_caches": caches, "counters": telemetry.named(), "latency": telemetry.latencies(),
                "workers": self._facts()}  # fmt: skip

    def missing(self) -> list[str]:
        """Why workers do not answer, one sentence for each of those that do not."""
        return [facts["problem"] for facts in self._supervised() if facts["problem"]]

    def exposition(self, now: int) -> str:
        """Sums in the text format of Prometheus; ``now`` in microseconds."""
        telemetry, health = self.sums()
        facts = self._facts()
        return telemetry.exposition() + process_series(facts) + breaker_states(facts) + health.exposition(now)

    def _supervised(self) -> list[Mapping[str, Any]]:
        workers: list[Mapping[str, Any]] = self._board.read(self._board.workers)["workers"]
        return workers

    def _facts(self) -> list[dict[str, Any]]:
        """Of each worker, what it says and what its supervisor says of it."""
        return [{"worker": place, **facts, **supervised} for place, supervised in enumerate(self._supervised())
                if (facts := self._board.read(place).get("facts", {})) or supervised["on_duty"]]  # fmt: skip

    def sums(self) -> tuple[Telemetry, FeatureHealth]:
        """What all workers have counted, together."""
        self.exchange()  # what this answer shows, no later answer of another worker may fall short of
        telemetry, health = Telemetry(), FeatureHealth()
        for slot in range(self._board.workers):
            if counts := self._board.read(slot):
                telemetry.add(counts["telemetry"])
                health.add(counts["health"])
        health.flows, health.refreshed = self._app.health.flows, self._app.health.refreshed
        return telemetry, health


def main() -> None:
    """Answer until the supervisor says so or ends; exit code 1 with a line in the log if that cannot be done."""
    spec = msgspec.json.decode(sys.argv[1], type=Spec)
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C and a closed terminal reach the whole group
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    logging.getLogger().handlers[0].setFormatter(LineFormatter(spec.slot))
    logging.getLogger("retrodict").setLevel(spec.log_level)
    raise_open_files()
    with written_aside():
        try:
            with Workspace(spec.root, actor=spec.actor) as workspace:
                if spec.code is not None:
                    workspace.definitions = definitions_of(workspace, spec.code)
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    runner.run(_work(workspace, spec))
        except RetrodictError as error:
            _log.error("the worker cannot go on: %s", error)
            sys.exit(1)


async def _work(workspace: Workspace, spec: Spec) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=spec.lifeline))
    listener, board = socket.socket(fileno=spec.listener), Board(spec.workers, spec.board)
    go = asyncio.Event()
    obeying = asyncio.create_task(_obey(reader, go))

    async def begin(app: DecisionApp) -> None:
        colleagues = Colleagues(board, spec.slot, app)
        colleagues.exchange()
        app.colleagues = colleagues
        writer.write(b"r")
        await go.wait()
        board.set_connections(spec.slot, 0)

    async def beside(app: DecisionApp) -> None:
        assert app.colleagues is not None
        await app.colleagues.keep()

    options = ServeOptions(replay=spec.replay, only=spec.only)
    await answer(workspace, listener, begin, beside, options=options, board=board, slot=spec.slot, grpc=spec.grpc)
    obeying.cancel()
    writer.close()


async def _obey(reader: asyncio.StreamReader, go: asyncio.Event) -> None:
    """Wait for the word to begin, and then for the end of the supervisor, whatever it died of: it is ours, too."""
    if await reader.read(1):
        go.set()
        await reader.read()
    os.kill(os.getpid(), signal.SIGTERM)
