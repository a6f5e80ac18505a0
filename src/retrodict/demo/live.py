"""The live part of the demo: a real server process, events pushed to it, decisions asked of it, revisions changed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import HOUR
from retrodict.core.errors import InternalError
from retrodict.demo.deliveries import Deliveries, Month
from retrodict.demo.traffic import Client, Traffic
from retrodict.registry import Revision
from retrodict.rollout import promote, rollback
from retrodict.workspace import Workspace

__all__ = ["LiveServer", "RolloutTimes", "run_month"]

POLICY = "warn_early"
STEP = 6 * HOUR
_LAG_POLL_S = 0.01

# (what, done, at most)
Progress = Callable[[str, int, int], None]


class LiveServer:
    """``retrodict serve --replay`` as a process of its own, on a free port; a context manager."""

    def __init__(self, project: Path, log: Path) -> None:
        self._log = log.open("ab")
        command = [
            sys.executable,
            "-m",
            "retrodict",
            "serve",
            "--project",
            str(project),
            "--replay",
            "--port",
            "0",
            "--json",
        ]
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log
        )
        self.url = self._wait_until_ready()

    def _wait_until_ready(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            return str(json.loads(line)["url"])
        except (ValueError, KeyError) as error:
            self._process.terminate()
            raise InternalError(
                "the server says its address when it is ready",
                where="demo",
                got=line[:200],
                remedy=f"See {self._log.name}",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


@dataclass(slots=True)
class RolloutTimes:
    """What changing the champion under load came to; milliseconds by the host's monotonic clock."""

    promoted: Revision | None = None
    rolled_back: Revision | None = None
    promote_ms: float = 0.0
    rollback_ms: float = 0.0
    promote_seen_ms: float = 0.0
    rollback_seen_ms: float = 0.0
    requests: int = 0
    failed_requests: int = 0
    by_model: dict[str, int] = field(default_factory=dict)


async def run_month(
    url: str,
    deliveries: Deliveries,
    month: Month,
    traffic: Traffic,
    *,
    clock: SimulatedClock,
    share: float,
    progress: Progress,
    rollout: tuple[Workspace, str] | None = None,
) -> RolloutTimes | None:
    """One month of live traffic in simulated time.

    In steps of six hours: push the events that become known in the step (they stay invisible until their own time),
    wait until the online state has them, then ask for the step's decisions.

    Parameters
    ----------
    url : str
        Of the server.
    deliveries : Deliveries
    month : Month
    traffic : Traffic
        Is added to.
    clock : SimulatedClock
        Moved along with the decisions.
    share : float
        Share of the flights to decide on.
    progress : callable
    rollout : (Project, model), optional
        Promote this challenger after a third of the steps and roll back after two thirds, while requests are under way.
    """
    client = Client(url)
    flights, weather = deliveries.pushes("flights", month, STEP), deliveries.pushes("weather", month, STEP)
    cases = deliveries.requests(month, share)
    steps = (month.end - month.start) // STEP
    times = RolloutTimes() if rollout is not None else None
    before, first = len(traffic.answers), 0
    for done, ((end, landed), (_, observed)) in enumerate(zip(flights, weather, strict=True)):
        progress(f"live {month.name}", done, steps)
        await _push(client, landed, observed)
        last = first
        while last < len(cases) and cases[last][0] < end:
            last += 1
        batch = client.decide_all(POLICY, cases[first:last], traffic, clock)
        first = last
        if rollout is not None and times is not None and done == steps // 3:
            _, times.promoted = await asyncio.gather(batch, _change(times, "promote", rollout))
        elif rollout is not None and times is not None and done == 2 * steps // 3:
            _, times.rolled_back = await asyncio.gather(batch, _change(times, "rollback", rollout))
        else:
            await batch
    await client.close()
    if times is not None:
        _finish(times, traffic, before)
    return times


async def _push(client: Client, landed: list[dict[str, Any]], observed: list[dict[str, Any]]) -> None:
    for table, events in (("flights", landed), ("weather", observed)):
        if events:
            await client.push(table, events)
    # The state is in another process: there is no event to wait for.
    while any(source["lag"] for source in (await client.get("/v1/status"))["sources"].values()):  # noqa: ASYNC110
        await asyncio.sleep(_LAG_POLL_S)  # the state is in another process: there is no event to wait for


async def _change(times: RolloutTimes, action: str, rollout: tuple[Workspace, str]) -> Revision:
    """Change the revision from a thread while the requests go on."""
    project, model = rollout
    began = perf_counter()
    if action == "promote":
        reason = "trained on a month more; compared on the same decisions and approved"
        revision = await asyncio.to_thread(promote, project, POLICY, model, reason=reason)
        times.promote_ms = (perf_counter() - began) * 1e3
    else:
        reason = "drill: the way back is tried while it is not needed"
        revision = await asyncio.to_thread(rollback, project, POLICY, reason=reason)
        times.rollback_ms = (perf_counter() - began) * 1e3
    setattr(times, f"{action}_seen_ms", -began)  # completed by _finish, once the first answer is known
    return revision


def _finish(times: RolloutTimes, traffic: Traffic, before: int) -> None:
    answers = traffic.answers[before:]
    times.requests = len(answers)
    times.failed_requests = sum(answer.status != 200 for answer in answers)
    for action, revision in (("promote", times.promoted), ("rollback", times.rolled_back)):
        seen = traffic.first_with_revision(revision.revision) if revision is not None else None
        began = -getattr(times, f"{action}_seen_ms")
        setattr(times, f"{action}_seen_ms", (seen - began) * 1e3 if seen is not None else float("nan"))
    for answer in answers:
        with suppress(KeyError):
            model = answer.body["model"]
            times.by_model[model] = times.by_model.get(model, 0) + 1
