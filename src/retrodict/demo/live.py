"""The live part of the demo: a real server process, events pushed to it, decisions asked of it, revisions changed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.request import urlopen

from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import HOUR
from retrodict.core.errors import InternalError
from retrodict.demo.deliveries import Deliveries, Month
from retrodict.demo.traffic import Client, Traffic
from retrodict.project import Project
from retrodict.project.progress import Progress
from retrodict.registry import Revision

__all__ = ["MODEL", "POLICY", "ChampionChange", "live_server", "run_month", "server_status"]

MODEL, POLICY = "late_arrival", "warn_early"
STEP = 6 * HOUR
_LAG_POLL_S = 0.01


@contextmanager
def live_server(project: Path, log: Path) -> Iterator[str]:
    """Run ``retrodict serve --replay`` as a process of its own, on a free port; yields its address."""
    command = [sys.executable, "-m", "retrodict", "serve", "--project", str(project), "--replay", "--port=0", "--json"]
    with (
        log.open("ab") as errors,
        subprocess.Popen(  # noqa: S603  # our own command
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield _address(process.stdout.readline(), log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(line: bytes, log: Path) -> str:
    try:
        return str(json.loads(line)["url"])
    except (ValueError, KeyError) as error:
        raise InternalError("the server must print its address when it is ready", where="demo", got=line[:200],
                            remedy=f"See {log}") from error  # fmt: skip


def server_status(url: str) -> dict[str, Any]:
    """What the server says of itself."""
    with urlopen(f"{url}/v1/status", timeout=10) as response:  # noqa: S310  # our own server
        status: dict[str, Any] = json.load(response)
    return status


@dataclass(frozen=True, slots=True)
class ChampionChange:
    """A change of the champion under load: when it began (the host's monotonic clock) and how long it took."""

    revision: Revision
    began: float
    milliseconds: float


async def run_month(
    url: str,
    deliveries: Deliveries,
    month: Month,
    traffic: Traffic,
    *,
    clock: SimulatedClock,
    share: float,
    progress: Progress,
    rollout: tuple[Project, str] | None = None,
) -> list[ChampionChange]:
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

    Returns
    -------
    list of ChampionChange
        The promotion and the rollback; nothing without a rollout.
    """
    client = Client(url)
    flights, weather = deliveries.pushes("flights", month, STEP), deliveries.pushes("weather", month, STEP)
    cases = deliveries.requests(month, share)
    steps = (month.end - month.start) // STEP
    due = {} if rollout is None else {steps // 3: rollout[1], 2 * steps // 3: None}
    changes, first = [], 0
    for step, ((end, landed), (_, observed)) in enumerate(zip(flights, weather, strict=True)):
        progress(f"live {month.name}", step, steps)
        await _push(client, landed, observed)
        last = bisect_left(cases, end, key=itemgetter(0))
        batch = client.decide_all(POLICY, cases[first:last], traffic, clock)
        if rollout is not None and step in due:
            _, change = await asyncio.gather(batch, asyncio.to_thread(_change, rollout[0], due[step]))
            changes.append(change)
        else:
            await batch
        first = last
    await client.close()
    return changes


async def _push(client: Client, landed: list[dict[str, Any]], observed: list[dict[str, Any]]) -> None:
    for table, events in (("flights", landed), ("weather", observed)):
        if events:
            await client.push(table, events)
    # The state is in another process: there is no event to wait for.
    while any(source["lag"] for source in (await client.get("/v1/status"))["sources"].values()):  # noqa: ASYNC110
        await asyncio.sleep(_LAG_POLL_S)


def _change(project: Project, model: str | None) -> ChampionChange:
    """Promote a model, or roll back without one."""
    began = perf_counter()
    if model is None:
        revision = project.rollback(POLICY, reason="drill: the way back is tried while it is not needed")
    else:
        reason = "trained on a month more; compared on the same decisions and approved"
        revision = project.promote(POLICY, model, reason=reason)
    return ChampionChange(revision, began, (perf_counter() - began) * 1e3)
