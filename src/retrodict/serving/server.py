"""A server: opens the stores, keeps the servants up to date, answers until it is told to stop.

Three things run beside the requests, none of them in their way: the watcher (a new revision becomes a new servant), the
log (durable records), and the feature consumer, a process of its own so that applying events never holds up an answer.
With several workers, each is a process that answers from one listening socket; the first one only looks after them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn

from retrodict.core.durations import parse_duration
from retrodict.core.errors import BusyError, RetrodictError
from retrodict.core.log_lines import written_aside
from retrodict.core.retries import without_pauses
from retrodict.decisions.recorder import Recorder
from retrodict.features.online import FeatureHealth, Upkeep
from retrodict.registry.feature_sets import served_feature_sets
from retrodict.serving.acceptor import Acceptor
from retrodict.serving.apart import NoRecorder, Parts, loader_of
from retrodict.serving.app import DecisionApp, Limits
from retrodict.serving.board import Board
from retrodict.serving.callers import open_callers
from retrodict.serving.certificate import Certificate, open_certificate
from retrodict.serving.connection import BoundedConnection, DrainingState, raise_open_files
from retrodict.serving.consumer import code_of, end_children, ending_signals, start_companion, start_consumer
from retrodict.serving.events import EventInlet
from retrodict.serving.jobs import run_jobs
from retrodict.serving.routes import Part
from retrodict.serving.services import load_services
from retrodict.serving.threads import DaemonThreads
from retrodict.serving.traces import open_traces
from retrodict.serving.watcher import Watcher, keep_callers
from retrodict.serving.worker_scale import WorkerScale, parse_workers
from retrodict.workspace import Workspace
from retrodict.workspace.servers import announce_server

if TYPE_CHECKING:
    from retrodict.serving.grpc.server import GrpcServer

__all__ = ["Companion", "ServeOptions", "answer", "keep_health", "loop_factory", "open_port", "serve", "url_of"]

_HEALTH_S = 2.0
_DOUBT_S = 5.0  # that the stores may take to say how far features are
_BUILD_S = 3600.0
_AFTER_ERROR_S = 5.0
_QUEUE = 1024  # connections that wait to be taken
_DRAIN_S = 0.5  # in which callers who keep their connections learn of the end

_log = logging.getLogger(__name__)


class _Child(Protocol):
    """A process beside the server."""

    def watch(self) -> None:
        """Start it again if it should run and does not; called every two seconds, by one thread."""

    def end(self) -> None:
        """End it."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A command of this package that a server runs beside it as long as a condition holds.

    Attributes
    ----------
    arguments : tuple of str
        After ``retrodict``; ``--parent PID`` is added. It ends with the server.
    condition : callable
        Whether it should run; asked every two seconds while it does not.
    """

    arguments: tuple[str, ...]
    condition: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve.

    Attributes
    ----------
    host, port : str, int, optional
        Over the configuration's; port 0 takes a free one.
    replay : bool
        Accept simulated time from the callers.
    consume : bool
        Start the feature consumer beside the server.
    workers : int or str, optional
        Processes that answer, over the configuration's: a number, a range like ``2-8``, or ``auto``.
    grpc_port : int, optional
        As ``port``, for gRPC.
    companions : tuple of Companion
        Further processes beside the server, where it starts the feature consumer.
    only : {"features", "models", "decisions"}, optional
        What to serve alone; None: everything.
    """

    host: str | None = None
    port: int | None = None
    replay: bool = False
    consume: bool = True
    workers: int | str | None = None
    grpc_port: int | None = None
    companions: tuple[Companion, ...] = ()
    only: Part | None = None


def serve(
    workspace: Workspace, options: ServeOptions, *, ready: Callable[[str, str | None], None] | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; in-flight requests are finished, the log's segment is closed and sealed.

    Parameters
    ----------
    workspace : Workspace
    options : ServeOptions
    ready : callable, optional
        Called once with the URL, and the address for gRPC if there is one, when the first answer can be given.

    Raises
    ------
    BusyError
        If a port is taken; the message names it.
    MissingExtraError
        If gRPC is asked for and its library is not installed.
    RetryableError
        If no worker can be kept alive; their own messages are in the log.
    """
    host = options.host or workspace.config["serving.host"]
    port = workspace.config["serving.port"] if options.port is None else options.port
    lower, upper = parse_workers(workspace.config["serving.workers"] if options.workers is None else options.workers)
    grpc_port = workspace.config["serving.grpc_port"] if options.grpc_port is None else options.grpc_port
    raise_open_files()
    listener = _bind(host, port)
    # Never listens: it holds the address for the sockets of the workers, which share it (SO_REUSEPORT).
    place = _bind(host, grpc_port) if grpc_port >= 0 else None
    grpc = None if place is None else _address(place)
    if grpc is not None:
        import retrodict.serving.grpc.server  # noqa: F401  # what is not installed is said before anything is begun
    open_certificate(workspace.config)  # what is wrong is said before anything is begun
    if (traces := open_traces(workspace.config)) is not None:
        traces.close()
    if open_callers(workspace, listener) is None:
        _log.info("anybody on this machine may call: callers of a loopback address are not asked who they are")
    say = None if ready is None else (lambda url: ready(url, grpc))
    elsewhere = bool(workspace.config["serving.features_url"])
    reads = options.only in (None, "features") or (options.only == "decisions" and not elsewhere)
    upkeep = Upkeep(workspace, served_feature_sets) if reads else None
    features = " and reads tables and streams into online features" if upkeep is not None and options.consume else ""
    _log.info("starting: loads what is deployed (%s)%s; the address follows", options.only or "everything", features)
    if upkeep is not None and options.consume:
        _bring_up_to_date(upkeep)
    children: list[_Child] = []
    if options.consume:
        children += [_Consumer(workspace)] if upkeep is not None else []
        children += map(_Beside, options.companions if options.only in (None, "decisions") else ())
    try:
        with announce_server(workspace), written_aside(), asyncio.Runner(loop_factory=loop_factory()) as runner:
            if upper == 1:
                runner.run(_run(workspace, options, listener, upkeep, children, say, grpc))
            else:
                from retrodict.serving.supervisor import Supervisor  # which needs this module

                health = FeatureHealth()
                _refresh(workspace, health, upkeep)
                scale = WorkerScale(lower, upper)
                supervisor = Supervisor(workspace, listener, health, scale, replay=options.replay, grpc=grpc,
                                        only=options.only)  # fmt: skip
                beside = keep_health(workspace, health, upkeep, children, supervisor.publish)
                runner.run(supervisor.run(beside, say))
    finally:
        listener.close()
        if place is not None:
            place.close()
        for child in children:
            child.end()


class _Beside:
    """A companion, while its condition holds; started again when it ended, after an error after five seconds."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: float | None = None

    def watch(self) -> None:
        code = None if self._process is None else self._process.poll()
        if self._process is not None and code is None:
            return
        if self._process is not None and code and self._ended is None:
            self._ended = time.monotonic()
            _log.error("a companion ended with code %d: %s", code, " ".join(self._companion.arguments))
        waited = self._ended is None or time.monotonic() - self._ended >= _AFTER_ERROR_S
        with suppress(RetrodictError):  # of stores that are away, which others say
            if waited and self._companion.condition():
                self._process, self._ended = start_companion(self._companion.arguments), None

    def end(self) -> None:
        end_children([] if self._process is None else [self._process])


def _refresh(workspace: Workspace, health: FeatureHealth, upkeep: Upkeep | None) -> None:
    """Ask for the gauges of features once; the first answer says what is behind, too, and the keeper what is wrong."""
    if upkeep is not None:
        with suppress(RetrodictError):
            health.flows, health.refreshed = upkeep.flows(), workspace.clock.now()


class _Consumer:
    """The feature consumer beside the server, started again when it ended."""

    def __init__(self, workspace: Workspace) -> None:
        # Services are read once: a consumer that is started later must not keep another edition of them current.
        self._workspace, self._code = workspace, code_of(workspace)
        self._process = start_consumer(workspace, code=self._code)
        self._ended: float | None = None

    def watch(self) -> None:
        """Start it again if it was killed or ended: as often as this is called, after an error after five seconds."""
        code = self._process.poll()
        if code is None:
            return
        if self._ended is None:
            self._ended = time.monotonic()
            _log.error("the feature consumer ended with code %d: it is started again", code)
        if code < 0 or time.monotonic() - self._ended >= _AFTER_ERROR_S:
            self._process, self._ended = start_consumer(self._workspace, code=self._code), None

    def end(self) -> None:
        end_children([self._process])


def _bring_up_to_date(upkeep: Upkeep) -> None:
    """Read tables and streams into online state, so that the first answer is not from an older one."""
    try:
        upkeep.catch_up(wait_s=_BUILD_S)
    except RetrodictError as error:  # what is behind is said by each answer, by /readyz and by the metrics
        _log.error("online features cannot be brought up to date: %s", error)


def _bind(host: str, port: int) -> socket.socket:
    """Take an address; nobody can connect before :func:`open_port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _taken(f"{host}:{port}", error) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def open_port(listener: socket.socket) -> None:
    """Let callers connect; BusyError if another server listens there by now."""
    try:
        listener.listen(_QUEUE)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _taken(f"{host}:{port}", error) from error


def _taken(address: str, error: OSError) -> BusyError:
    return BusyError(
        "the address to listen on must be free and open to this user",
        where=address,
        got=error.strerror,
        remedy="Stop the other server, or name another port with --port or --grpc-port",
    )


def url_of(listener: socket.socket, workspace: Workspace) -> str:
    """Address of a listening socket."""
    return f"{'https' if workspace.config['serving.certificate'] else 'http'}://{_address(listener)}"


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Faster event loop where there is one; None: the standard one."""
    try:
        import uvloop
    except ImportError:  # not made for this platform; the standard loop works too
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _run(
    workspace: Workspace,
    options: ServeOptions,
    listener: socket.socket,
    upkeep: Upkeep | None,
    children: Sequence[_Child],
    ready: Callable[[str], None] | None,
    grpc: str | None,
) -> None:
    """Answer in this process alone."""

    async def begin(app: DecisionApp) -> None:
        _refresh(workspace, app.health, upkeep)
        open_port(listener)
        if ready is not None:
            ready(url_of(listener, workspace))

    await answer(workspace, listener, begin, lambda app: keep_health(workspace, app.health, upkeep, children),
                 options=options, grpc=grpc)  # fmt: skip


async def answer(
    workspace: Workspace,
    listener: socket.socket,
    begin: Callable[[DecisionApp], Awaitable[None]],
    beside: Callable[[DecisionApp], Coroutine[Any, Any, None]],
    *,
    options: ServeOptions,
    board: Board | None = None,
    slot: int = 0,
    grpc: str | None = None,
) -> None:
    """Answer requests of one listening socket until SIGINT or SIGTERM.

    Parameters
    ----------
    workspace : Workspace
    listener : socket
        Bound; ``begin`` lets it listen. It is closed at the end.
    begin : callable
        Awaited once the application can answer, before the first connection is taken.
    beside : callable
        Runs as long as requests are answered.
    options : ServeOptions
        Whether simulated time is accepted, and what is served.
    board, slot : Board, int, optional
        Of the workers that share the socket.
    grpc : str, optional
        Address to listen on for gRPC, as the other workers do.
    """
    only = options.only
    recorder = NoRecorder(workspace, only) if only in ("features", "models") else Recorder(workspace)
    for torn in recorder.log.recovered:
        _log.warning(
            "cut %d bytes of a record that was being written at offset %d of %s", torn.size, torn.offset, torn.stream
        )
    config = workspace.config
    wait = parse_duration(config["serving.max_wait"])
    limits = Limits(config["serving.max_body_bytes"], config["serving.max_in_flight"], wait,
                    batch=config["serving.max_batch"])  # fmt: skip
    inlet = EventInlet(workspace, shared=board is not None)
    app = DecisionApp(workspace.clock, recorder, inlet, limits, simulated_time=options.replay, part=only)
    if only in (None, "features"):
        app.services, app.services_problem = load_services(workspace, app.health)
    app.traces = open_traces(config)
    loading, loader = DaemonThreads(1, "retrodict-load"), loader_of(only, workspace, app.health)
    app.parts = Parts(workspace, loader, loading) if only in ("features", "models") else None
    watcher = Watcher(workspace, app, loader, loading)
    tasks: list[asyncio.Task[None]] = []
    try:
        await watcher.begin()
        if only == "features" and app.parts is not None:
            await app.parts.load_current()
        app.callers = open_callers(workspace, listener, (lambda: 1) if board is None else board.answering)
        certificate = open_certificate(config)
        server = _Server(app, listener, board, slot, certificate)
        app.connected = server.draining
        if grpc is not None:
            from retrodict.serving.grpc.server import GrpcServer

            server.grpc = GrpcServer(app, grpc, certificate)
        # What is loaded stays: to look through all of it for garbage again and again would hold up answers.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 50, 10)  # a request leaves no cycles; after 700 objects is after every third one
        await begin(app)
        if server.grpc is not None:
            await server.grpc.start()
        aside = [watcher.run(), watcher.keep_reached(), beside(app), keep_callers(app.callers),
                 *([run_jobs(app)] if app.records else []), *([certificate.keep()] if certificate else [])]  # fmt: skip
        tasks = [asyncio.create_task(one) for one in aside]
        with without_pauses():  # a derived feature that is tried again would hold up everybody
            await server.serve(sockets=[])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await recorder.close()
        if app.traces is not None:
            app.traces.close()
        if app.requests is not None:
            app.requests.close()
        app.engines.close()
        app.failures.close()
        inlet.close()
        loading.close()


async def keep_health(
    workspace: Workspace,
    health: FeatureHealth,
    upkeep: Upkeep | None,
    children: Sequence[_Child],
    publish: Callable[[], None] = lambda: None,
) -> None:
    """Watch the processes beside the server, and ask for the gauges of the features, again and again, in one thread."""
    loop, problem = asyncio.get_running_loop(), ""
    with ThreadPoolExecutor(1, thread_name_prefix="retrodict-health") as thread:
        while True:
            try:
                for child in children:
                    await loop.run_in_executor(thread, child.watch)
                if upkeep is None:  # what the workers have is all there is to say
                    publish()
                    await asyncio.sleep(_HEALTH_S)
                    continue
                request = loop.run_in_executor(thread, upkeep.flows)
                if not (await asyncio.wait([request], timeout=_DOUBT_S))[0]:
                    health.doubt()
                    publish()
                health.flows = await request
                health.refreshed, problem = workspace.clock.now(), ""
                publish()
            except Exception as error:  # noqa: BLE001  # the gauges stay as they were, and their time says how old they are
                health.doubt()  # what may have come since is in no answer, which each says
                publish()
                if str(error) != problem:
                    problem = str(error)
                    _log.error("the health of features cannot be asked for: %s", problem)
            await asyncio.sleep(_HEALTH_S)


class _Server(uvicorn.Server):
    """uvicorn with sockets and an end of our own: it re-raises the signal it was stopped by, and resets who waits."""

    grpc: GrpcServer | None = None

    def __init__(
        self,
        app: DecisionApp,
        listener: socket.socket,
        board: Board | None,
        slot: int,
        certificate: Certificate | None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                http=BoundedConnection,
                server_header=False,
                date_header=False,
                proxy_headers=False,  # nothing here asks who calls
                timeout_graceful_shutdown=10,
                ws="none",
                interface="asgi3",
            )
        )
        self.server_state = self.draining = DrainingState()
        self._share, self._certificate = (listener, board, slot), certificate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        listener, board, slot = self._share
        connections = self.server_state.connections
        self._acceptor = Acceptor(listener, connections, self._connection, board, slot, self._certificate)

    def _connection(self) -> asyncio.Protocol:
        return BoundedConnection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer who waits, let callers that keep their connections know, and then close what is idle."""
        stopping = None if self.grpc is None else asyncio.create_task(self.grpc.stop())
        await self._acceptor.stop()
        self.draining.drain()
        until = time.monotonic() + _DRAIN_S
        while self.draining.connections and time.monotonic() < until:  # noqa: ASYNC110  # uvicorn keeps a plain set
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        if stopping is not None:
            await stopping

    def capture_signals(self) -> Any:
        return _Signals(self)


class _Signals:
    def __init__(self, server: uvicorn.Server) -> None:
        self._server, self._numbers = server, ending_signals()

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.add_signal_handler(number, self._server.handle_exit, number, None)

    def __exit__(self, *exc: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.remove_signal_handler(number)
