"""The flights of New York in the autumn of 2013, live: asked about an hour ahead, flown, landed, known to have landed.

By a clock that this file moves, in a project that ``retrodict init`` made. All the rest is the real thing: a server and
what follows it, tables, online state, records, outcomes, the controller. Each act goes on where the one before ended::

    python live.py begin               # what was known on the first of September; a first version decides
    python live.py learn MODEL         # another version, by the definitions as they are now
    python live.py shadows REF         # three challengers look on, two experiments run
    python live.py days 30             # live; server and followers are killed, -9, every third day
    python live.py canary REF 40       # let a version in, and live until it is in or out; the controller is killed too
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict import Project
from retrodict.client import AsyncClient
from retrodict.core.clock import SimulatedClock, format_time, parse_time
from retrodict.core.durations import HOUR
from retrodict.core.errors import RetryableError
from retrodict.demo import nycflights
from retrodict.demo.deliveries import Deliveries, Month

POLICY, STATE, PHONED = "warn_early", Path("live.json"), Path("phoned.txt")
COMMAND = [sys.executable, "-m", "retrodict"]


class Live:
    """The moment that it is, what has been killed how often, and what lands when."""

    def __init__(self) -> None:
        begin = {"now": "2013-09-01T00:00Z", "killed": {}}
        self.state: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else begin
        self.now = parse_time(self.state["now"])
        self.random = random.Random(self.now)  # noqa: S311  # whom to kill
        self.phoned = set(PHONED.read_text().split("\n")) if PHONED.exists() else set()
        self.deliveries = Deliveries(nycflights.prepare(nycflights.read_files()))

    def project(self, actor: str = "ana") -> Project:
        """The project, as it is now, for somebody."""
        return Project(clock=SimulatedClock(self.now), actor=actor)

    def planted(self, event: dict[str, Any]) -> dict[str, Any]:
        """Whoever was phoned comes in time where it would have been half an hour late at most."""
        helped = event.get("flight_id") in self.phoned and 15 < (event["arr_delay"] or 0) <= 30
        return {**event, "arr_delay": 0} if helped else event

    def ingest(self, start: int | None, end: int) -> None:
        """What lies between two moments comes in."""
        with self.project() as project:
            for table in ("flights", "weather") + (("planes",) if start is None else ()):
                rows = self.deliveries.rows(table, start, end)
                if self.phoned:
                    rows = pa.Table.from_pylist([*map(self.planted, rows.to_pylist())], schema=rows.schema)
                project.data.ingest(table, rows)

    def learn(self, model: str) -> str:
        """Train, verify, build, and let somebody else approve."""
        with self.project() as project:
            run = project.train(model)
            verified = project.features.verify(model)
            project.features.build()
            assert run.version is not None, run
            assert verified.ok, verified
        with self.project("ben") as other:
            other.models.approve(run.version.ref, reason="beats the ladder on August")
        print(f"{run.version.ref} is approved")
        return run.version.ref

    # ------------------------------------------------------------------------------------------------ what is killed

    def serve(self) -> subprocess.Popen[str]:
        """Start a server, and with it what follows events and shadows."""
        with Path("server.log").open("a") as log:
            command = [*COMMAND, "serve", "--replay", "--port", "0", "--json"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603
        assert server.stdout is not None
        self.url = json.loads(server.stdout.readline())["url"]
        return server

    def save(self) -> None:
        """Put down how far it has come."""
        STATE.write_text(json.dumps({**self.state, "now": format_time(self.now)}))
        PHONED.write_text("\n".join(sorted(self.phoned)))

    def kill(self, what: str, process: subprocess.Popen[Any]) -> None:
        """End a process as a power cut does."""
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.state["killed"][what] = self.state["killed"].get(what, 0) + 1

    # --------------------------------------------------------------------------------------------------------- a day

    async def step(self, *, deadly: bool) -> None:
        """One hour: events come in, and flights are asked about an hour before they leave."""
        month = Month("step", self.now, self.now + HOUR)
        async with AsyncClient(self.url) as client:
            for table in ("flights", "weather"):
                for _, events in self.deliveries.pushes(table, month, HOUR):
                    if events:
                        await client.push(table, [*map(self.planted, events)])
            while any(one["lag"] for one in (await client.get("/v1/status"))["sources"].values()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        cases, done = self.deliveries.requests(month, 1.0), set[str]()
        if deadly:  # in the middle of its answers
            answers = asyncio.create_task(self.ask(cases, done))
            await asyncio.sleep(self.random.uniform(0.01, 0.1))
            self.kill("server", self.server)
            await answers
            self.server = self.serve()
        while len(done) < len(cases):
            await self.ask(cases, done)
        self.now += HOUR

    async def ask(self, cases: list[tuple[int, dict[str, Any]]], done: set[str]) -> None:
        """Ask about flights that have no answer yet; eight at once, each by its id, so that none is decided twice."""
        waiting: Iterator[tuple[int, dict[str, Any]]] = iter([one for one in cases if one[1]["key"] not in done])

        async def caller(client: AsyncClient) -> None:
            for at, case in waiting:
                try:
                    answer = await client.decide(POLICY, case["entities"], case["context"], key=case["key"],
                                                 request_id=case["key"], at=at)  # fmt: skip
                except RetryableError:  # it is asked again
                    return
                done.add(case["key"])
                if answer.body.get("variants", {}).get("phone") == "phoned":
                    self.phoned.add(case["key"])

        async with AsyncClient(self.url) as client:
            await asyncio.gather(*(caller(client) for _ in range(8)))

    def live(self, days: int, *, until_over: bool = False) -> None:
        """Live for some days, or until a rollout is over; each day's tables come in at its end."""
        self.server = self.serve()
        try:
            for number in range(days):
                for hour in range(24):
                    asyncio.run(self.step(deadly=(number % 3, hour) == (1, 18)))
                self.ingest(self.now - 36 * HOUR, self.now - 12 * HOUR)
                if until_over and self.is_over():
                    break
        finally:
            self.server.terminate()
            self.server.wait(60)
            self.save()
        with self.project() as project:
            project.challengers.run_shadows(once=True)  # what the last follower has left
        print(f"It is {format_time(self.now)}; killed so far: {self.state['killed']}")

    def is_over(self) -> bool:
        """Let a controller look, in a process of its own; the first one is killed somewhere on its way."""
        self.save()
        look = [sys.executable, __file__, "look"]
        first = subprocess.Popen(look)  # noqa: S603
        try:
            first.wait(timeout=self.random.uniform(0.5, 4.0))
        except subprocess.TimeoutExpired:
            self.kill("controller", first)
        subprocess.run(look, check=True)  # noqa: S603
        with self.project() as project:
            return project.policies.deployments(POLICY)[-1].deployment.split is None

    # ----------------------------------------------------------------------------------------------------------- acts

    def begin(self) -> None:
        """Bring in what was known, and deploy a first version."""
        self.ingest(None, self.now)
        ref = self.learn("late_arrival")
        self.learn("late_briefly")
        with self.project() as project:
            project.deploy(POLICY, model=ref, reason="pilot")

    def shadows(self, ref: str) -> None:
        """Let another version, another model on other features and another policy look on; start both experiments."""
        with self.project() as project:
            project.challengers.start_shadow(POLICY, model=ref, name="newer", reason="fewer leaves")
            project.challengers.start_shadow(POLICY, other="brief", name="brief", reason="half the features")
            project.challengers.start_shadow(POLICY, other="calm", name="calm", reason="fewer warnings")
            for name in ("twice", "phone"):
                print(project.experiments.plan(name, baseline=0.2, units_per_day=900))
                project.experiments.start(name, reason="autumn")

    def canary(self, ref: str, days: str) -> None:
        """Let a version in, and live until it is in or out."""
        with self.project() as project:
            project.rollouts.start("careful", ref, reason="autumn")
        self.live(int(days), until_over=True)

    def look(self) -> None:
        """What the controller does at this moment."""
        with self.project("controller") as project:
            for status in project.rollouts.run(once=True):
                print(f"{format_time(self.now)} {status.move}: {status.reason}")


def main(act: str, *values: str) -> None:
    """Do one act."""
    live = Live()
    match act:
        case "days":
            live.live(int(values[0]))
        case "begin" | "learn" | "shadows" | "canary" | "look":
            getattr(live, act)(*values)
        case _:
            raise SystemExit(__doc__)
    live.save()


if __name__ == "__main__":
    main(*sys.argv[1:] or ["help"])
