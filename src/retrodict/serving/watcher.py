"""What a server looks at beside the requests, again and again: deployments, who may call, who can be reached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from time import monotonic

from retrodict.core.errors import RetrodictError, RetryableError
from retrodict.decisions.loader import Loader
from retrodict.decisions.servant import Servant
from retrodict.serving.app import DecisionApp
from retrodict.serving.callers import Callers
from retrodict.serving.elsewhere import RemoteLoader
from retrodict.workspace import Workspace

__all__ = ["Watcher", "keep_callers"]

_POLL_S = 0.05
_CALLERS_S = 0.25
_REACH_S = 2.0
_LONG_S = 60.0
_START_S = 30.0  # for which a start waits for parts that have not answered yet

_log = logging.getLogger(__name__)


class Watcher:
    """Follows the deployments: a new revision is loaded beside the requests and takes over between two of them."""

    def __init__(self, workspace: Workspace, app: DecisionApp, loader: Loader, pool: Executor) -> None:
        self._app, self._pool, self._clock, self._loader = app, pool, workspace.clock, loader
        self._begun = monotonic()

    async def begin(self) -> None:
        """Load what is in force; what cannot be loaded keeps nothing else from being served."""
        try:
            await self.look()
        except RetrodictError as error:
            if not self._loader.servants:
                raise
            self._note_error(error)
        await asyncio.to_thread(self._reach)

    def _reach(self) -> None:
        """Note which parts answer; none that never did for as long as a start waits for it."""
        if isinstance(self._loader, RemoteLoader):
            before, waits = self._app.reached, monotonic() < self._begun + _START_S
            self._app.reached = {
                part: server.answers() or (None if waits and before.get(part) is None else False)
                for part, server in self._loader.servers.items()
            }

    async def keep_reached(self) -> None:
        """Look who can be reached, in a thread of its own: whoever asks if this server is ready waits for none."""
        with ThreadPoolExecutor(1, thread_name_prefix="retrodict-reach") as thread:
            while isinstance(self._loader, RemoteLoader):
                await asyncio.sleep(_POLL_S if None in self._app.reached.values() else _REACH_S)
                await asyncio.get_running_loop().run_in_executor(thread, self._reach)

    async def run(self) -> None:
        """Follow them, again and again."""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                await self.look()
            except RetrodictError as error:  # the revision in force goes on deciding; readiness says so
                self._note_error(error)
            except Exception as error:  # noqa: BLE001  # a full disk, say: the next look may find all well
                self._note(problem=f"deployments cannot be followed: {type(error).__name__}")

    def _note_error(self, error: RetrodictError) -> None:
        """Note what cannot be loaded, or not now: while records or objects are away, which decisions do not need."""
        problems = self._loader.problems
        errors = problems if error in problems.values() else {"": error}
        waits = [str(one) for one in errors.values() if isinstance(one, RetryableError)]
        others = {name: str(one) for name, one in errors.items() if not isinstance(one, RetryableError)}
        beside = {name: text for name, text in others.items() if "@" in name}  # a version that does not decide
        for name in beside.keys() - self._app.not_loaded.keys():
            _log.error("%s cannot be loaded: %s", name, beside[name])
        self._app.not_loaded = beside
        first = next((text for name, text in others.items() if name not in beside), None)
        self._note(problem=first, not_followed=waits[0] if waits else None)

    def _note(self, *, problem: str | None = None, not_followed: str | None = None) -> None:
        """Note why deployments are not followed; logged when it begins, and not again with each error until it ends."""
        if problem is not None and self._app.problem != problem:
            _log.error("a new revision cannot be loaded: %s", problem)
        if not_followed is not None and self._app.not_followed is None:
            _log.error("deployments are not followed for now: %s", not_followed)
        self._app.problem, self._app.not_followed = problem, not_followed

    async def look(self) -> None:
        """Take over what came into force since the last look."""
        try:
            await self._in_thread(self._loader.load_current)
        finally:  # one that cannot be loaded keeps no other from being followed
            await self._follow(self._loader.servants)
        self._app.not_loaded = {}
        self._note()

    async def _follow(self, servants: dict[str, Servant]) -> None:
        for name, servant in servants.items() if servants is not self._app.servants else ():
            if servant is not self._app.servants.get(name) and servant.halted is None:
                await self._in_thread(servant.measure)
                warm = partial(servant.warm, self._clock.now())
                await self._in_thread(warm) if servant.in_thread else warm()
        self._app.follow(servants)

    async def _in_thread(self, call: Callable[[], object]) -> None:
        """Wait for a call; one that takes long is said, as it may hang."""
        work = asyncio.get_running_loop().run_in_executor(self._pool, call)
        if not (await asyncio.wait([work], timeout=_LONG_S))[0]:
            self._note(not_followed=f"a revision has been loading for {_LONG_S:g} s")
        await work


async def keep_callers(callers: Callers | None) -> None:
    """Take in keys that were issued or ended; while they cannot be read, those that are known go on to count."""
    with ThreadPoolExecutor(1, thread_name_prefix="retrodict-callers") as thread:
        while callers is not None:
            await asyncio.sleep(_CALLERS_S)
            try:
                await asyncio.get_running_loop().run_in_executor(thread, callers.look)
            except Exception as error:  # noqa: BLE001  # an end of this would be the end of every revocation
                if str(error) != callers.problem:
                    callers.problem = str(error)
                    _log.error("who may call cannot be read again: %s", error)
