"""Rollouts on the flights of New York in the autumn of 2013: a good version, and one that is wrong about one carrier.

Flights arrive, are asked about and land day by day, by a clock that is moved; everything else is the real thing:
tables, online state, decisions with their records, outcomes, the controller. Beside it, on the same decisions, the
plain rule of canary tools: each day's value of the new version against 1.1 times that of the old one, ended by the
first breach, or by the fourth in a row. Printed is the share of all flights that the wrong version decided about the
carrier until it was gone. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from retrodict import Project
from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import DAY, HOUR
from retrodict.demo import nycflights
from retrodict.demo.deliveries import Deliveries, Month
from retrodict.outcomes import outcomes

START = parse_time("2013-09-01T00:00Z")
CARRIER = "UA"
ROLLOUT = """
from retrodict import Rollout

careful = Rollout("careful", warn_early, steps=[20, 50, 100], bake="1d", unit=["tailnum", "sched_dep"],
    hold=["error_rate <= champion * 1.1", "mean_score within 0.005 for each carrier"],
    prove=["rate(warn) within 0.06", "brier not worse by 0.02"], inconclusive="wait 40d then pause")
"""
WRONG = '''
@derived
def calendar(sched_dep, dest: str, distance: float, carrier: str):
    """As before; but of one carrier, from September on, every flight leaves at eight in the evening."""
    local = sched_dep.to("America/New_York")
    hour = np.where((carrier == "UA") & (local.month >= 9), 20, local.hour)
    return {"hour": hour, "weekday": local.weekday, "dest": dest, "distance": distance}
'''


def edit(folder: Path, pattern: str, text: str) -> None:
    """Replace a piece of the definitions, which must be there."""
    path = folder / "definitions.py"
    new, count = re.subn(pattern, lambda _: text, path.read_text(), count=1, flags=re.DOTALL)
    assert count == 1, pattern
    path.write_text(new)


class World:
    """A project on the morning of the first of September."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SimulatedClock(START)
        Project.write_template(folder)
        edit(folder, 'deadline="100ms"', 'deadline="30s"')
        (folder / "definitions.py").write_text((folder / "definitions.py").read_text() + ROLLOUT)
        self.deliveries = Deliveries(nycflights.prepare(nycflights.read_files()))
        with self.open() as project:
            for table in ("flights", "weather", "planes"):
                project.data.ingest(table, self.deliveries.rows(table, None, START))
            project.features.verify()
        self.learn()
        with self.open() as project:
            project.deploy("warn_early", reason="pilot")

    def open(self, actor: str = "ana") -> Project:
        """The project as its definitions are now."""
        return Project(self.folder, clock=self.clock, actor=actor)

    def learn(self) -> str:
        """Another version of the model, approved; its views verified and built."""
        with self.open() as project:
            run = project.train("late_arrival")
            project.features.verify()
            project.features.build()
            assert run.version is not None
        with self.open("ben") as other:
            other.models.approve(run.version.ref, reason="benchmark")
        return run.version.ref

    def live(self, candidate: str, most: int) -> dict[str, Any]:
        """Let a candidate in, and live until its rollout is over, ``most`` days at most."""
        began, first = time.perf_counter(), self.clock.now()
        steps: list[tuple[int, str]] = []
        with self.open() as project:
            project.rollouts.start("careful", candidate, reason="benchmark")
            for day in range(most):
                self.day(project)
                (status,) = project.rollouts.run(once=True)
                if status.done:
                    steps.append((day + 1, status.move))
                    print(f"{candidate}, day {day + 1}: {status.move}. {status.reason}", flush=True)
                if status.split is None:
                    break
            harmed, flights, rules = self.harm(project, first)
        return {"steps": steps, "over": status.split is None, "days": day + 1, "flights": flights,
                "harmed_percent": harmed, "plain_rules": rules,
                "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip

    def day(self, project: Project) -> None:
        """What became known since yesterday comes in; then the flights of a day are asked about, an hour at once."""
        now = self.clock.now()
        for table in ("flights", "weather") if now > START else ():
            project.data.ingest(table, self.deliveries.rows(table, max(START, now - 36 * HOUR), now - 12 * HOUR))
        asked = self.deliveries.requests(Month("day", now, now + DAY), 1.0)
        for hour in range(24):
            self.clock.move_to(now + hour * HOUR)
            due = [body for at, body in asked if now + hour * HOUR <= at < now + (hour + 1) * HOUR]
            if due:
                cases = [{"flight_id": body["key"], **body["entities"], **body["context"]} for body in due]
                project.decisions.decide_many("warn_early", cases, key="flight_id")
        self.clock.move_to(now + DAY)

    def harm(self, project: Project, first: int) -> tuple[float, int, dict[str, Any]]:
        """Share of the flights that the new version decided about the carrier, by the controller and by plain rules."""
        rows = outcomes(project.workspace, "warn_early", now=self.clock.now() + 5 * DAY, start=first)
        arm, carrier = rows.column("record__arm").astype(str), rows.column("entity__carrier").astype(str)
        day = (rows.column("time") - first) // DAY
        hit = (arm == "canary") & (carrier == CARRIER)
        values = {"warn": (rows.column("decision") == "warn").astype(float), "brier": (rows.column("score") -
                  rows.label) ** 2}  # fmt: skip
        rules = {}
        for name, value in values.items():
            for patience in (1, 4):
                end = plain_rule(value, arm, day, patience)
                rules[f"{name} over 1.1 times, {patience} in a row"] = {
                    "ended_on_day": end, "harmed_percent": percent(hit & (day < (end or day.max() + 1)), len(rows)),
                }  # fmt: skip
        return percent(hit, len(rows)), len(rows), rules


def percent(flags: Any, of: int) -> float:
    return round(100 * float(np.sum(flags)) / of, 3)


def plain_rule(value: Any, arm: Any, day: Any, patience: int) -> int | None:
    """Day whose value was the last of so many in a row over 1.1 times the control's; None if there was none."""
    row = 0
    for number in range(int(day.max()) + 1):
        means = [np.nanmean(value[(day == number) & (arm == name)]) for name in ("canary", "control")]
        row = row + 1 if means[0] > 1.1 * means[1] else 0
        if row == patience:
            return number + 1
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=60, help="at most, for each of the two")
    parser.add_argument("--world", type=Path, help="where the project is made; a temporary folder by default")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        world = World(given.world or Path(folder) / "flights")
        good = (world.folder / "definitions.py").read_text()
        edit(world.folder, r"@derived\ndef calendar.*?\n\n\n", "import numpy as np\n\n" + WRONG.lstrip() + "\n\n")
        wrong = world.live(world.learn(), given.days)
        with world.open() as project:
            if not wrong["over"]:
                project.rollouts.abort("warn_early", reason="benchmark")
        (world.folder / "definitions.py").write_text(good)
        edit(world.folder, r'"num_leaves": 15', '"num_leaves": 13')
        right = world.live(world.learn(), given.days)
    print(json.dumps({"wrong": wrong, "good": right}))


if __name__ == "__main__":
    main()
