"""A rollout as people run it: a server, a controller beside it, and both are killed again and again."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from tests.rollout.test_experiments import make_harmful
from tests.rollout.test_ladder import add
from tests.serving.process import Server

from retrodict import Project
from retrodict.decisions.log import read_decisions
from retrodict.ledger import verify as audit
from retrodict.registry import approve, current, history
from retrodict.rollout import ladder
from retrodict.rollout.experiments import find_run, report_on
from retrodict.workspace import Workspace

ROLLOUT = """
quick = Rollout("quick", promise, steps=[20, 50, 100], bake="1s", unit="weight", min_units=50,
    hold=["error_rate <= champion * 1.1"], prove=["rate(warn) within 0.6"], inconclusive="wait 24h then pause")
"""


@pytest.fixture
def root(original_pair, tmp_path):
    folder = shutil.copytree(original_pair, tmp_path / "parcels")
    add(folder, ROLLOUT)
    return folder


class Crowd(threading.Thread):
    """Asks for one parcel after another, each of another weight; a server that was killed is asked again."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stopped, self.statuses, self.away = server, False, Counter(), 0

    def run(self):
        rng = random.Random(4)
        while not self.stopped:
            context = {"weight": rng.uniform(1, 80), "express": False, "sent": "2024-02-20T10:00Z"}
            try:
                status, _ = self.server.decide({"entities": {"depot": "east"}, "context": context}, headers={})
                self.statuses[status] += 1
            except OSError:
                self.away += 1
                time.sleep(0.05)


def controller(root):
    command = [sys.executable, "-m", "retrodict", "rollout", "run", "--every", "200ms", "--project", str(root)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_each_step_is_done_once_whoever_is_killed_and_when(root):
    """The new version goes through all steps; every answer is on record, with the arm that its unit has."""
    rng = random.Random(5)
    server = Server(root, "--no-consume")
    crowd = Crowd(server)
    with Workspace(root, actor="ana") as project:
        ladder.start(project, "quick", "late_parcel@2", reason="better")
    crowd.start()
    process, kills = controller(root), Counter()
    try:
        for life in range(25):  # each a little longer: on a busy machine the first ones end before they have begun
            time.sleep(rng.uniform(0.8, 2.5) * (1 + life / 5))
            process.kill()
            process.wait()
            kills["controller"] += 1
            if rng.random() < 0.3:
                server.kill()
                kills["server"] += 1
                server = crowd.server = Server(root, "--no-consume")
            with Workspace(root, actor="ana") as project:
                if current(project)["promise"].deployment.split is None:
                    break
            process = controller(root)
    finally:
        process.kill()
        crowd.stopped = True
        crowd.join(30)
        server.kill()
    assert kills["controller"] >= 1
    assert set(crowd.statuses) == {200}
    with Workspace(root, actor="ana") as project:
        revisions = history(project, "promise")
        assert [revision.action for revision in revisions] == ["deploy", "rollout", "rollout", "promote"]
        assert [r.deployment.split["share"] for r in revisions if r.deployment.split] == [0.2, 0.5]
        assert revisions[-1].deployment.model == "late_parcel@2"
        records = [logged.record for logged in read_decisions(project)]
        assert len(records) >= crowd.statuses[200]
        assert {record.model for record in records if record.arm == "canary"} == {"late_parcel@2"}
        assert {record.model for record in records if record.arm == "control"} == {"late_parcel@1"}
        assert audit(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).verified


def test_a_server_looks_on_by_itself(root):
    """Nobody else runs: the version is rolled back because its approval was taken back."""
    server = Server(root)
    try:
        with Workspace(root, actor="ana") as project:
            ladder.start(project, "quick", "late_parcel@2", reason="better")
        with Workspace(root, actor="ben") as ben:
            approve(ben, "late_parcel@2", reason="a leak", granted=False)
        until = time.monotonic() + 150
        while time.monotonic() < until:
            with Workspace(root, actor="ana") as project:
                if history(project, "promise")[-1].action == "rollback":
                    break
            time.sleep(0.2)
        else:
            raise AssertionError("nobody looked on")
    finally:
        server.stop()


@pytest.mark.parametrize("replay", [False, True])
def test_a_server_for_replays_starts_no_controller(root, monkeypatch, replay):
    """A controller goes by the machine's clock, by which each step of a replayed month has lasted for years."""
    options = []
    monkeypatch.setattr("retrodict.serving.serve", lambda *parts, **_: options.append(parts[1]))
    with Project(root) as project:
        project.serve(replay=replay)
    assert [one.arguments[0] for one in options[0].companions] == ["shadow", "rollout"][: 1 if replay else 2]


DYING = """
import os, signal, sys
from retrodict.cli.main import run
from retrodict.ledger.ledger import Transaction
from retrodict.rollout.experiments import controller, report, runs

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def then_die(function):
    return lambda *args, **more: (function(*args, **more), die())

place, root = sys.argv[1:]
if place == "before the look":
    report.record_look = die
elif place == "before the stop":
    controller.halt = die
elif place == "before the commit":
    append = Transaction.append
    Transaction.append = lambda self, action, *args, **more: (
        append(self, action, *args, **more), die() if action == "policy.experiment" else None)[0]
elif place == "after the commit":
    runs.change = then_die(runs.change)
run(["rollout", "run", "--every", "200ms", "--project", root])
"""


@pytest.fixture(scope="module")
def harmed(original_pair, tmp_path_factory):
    root = shutil.copytree(original_pair, tmp_path_factory.mktemp("harmed") / "parcels")
    make_harmful(root).project.close()
    return root


def check_whole(root):
    """Whether the experiment has ended; running or ended, never half."""
    with Workspace(root, actor="ana") as project:
        revisions, (state,) = history(project, "promise"), current(project)["promise"].deployment.experiments
        ended = "halted" in state
        assert len(revisions) == 2 + ended
        assert state["variants"] == ({"control": 1.0} if ended else {"control": 0.5, "soft": 0.25, "firm": 0.25})
        assert (find_run(project, "tone").until is not None) == ended
        stops = [entry for entry in project.ledger.entries(action="policy.experiment")
                 if "guardrail" in entry.payload["reason"]]  # fmt: skip
        assert len(stops) == ended
        assert audit(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).verified
        if ended:
            assert report_on(project, "tone", now=project.clock.now()).stop
    return ended


@pytest.mark.parametrize(("place", "ended"), [
    ("before the look", False), ("before the stop", False), ("before the commit", False), ("after the commit", True),
])  # fmt: skip
def test_an_experiment_is_stopped_once_and_whole_wherever_the_controller_is_killed(harmed, tmp_path, place, ended):
    """Killed by a real signal at each place of a stop: running or ended; the next controller ends it, once."""
    root = shutil.copytree(harmed, tmp_path / "parcels")
    killed = subprocess.run([sys.executable, "-c", DYING, place, str(root)], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert check_whole(root) == ended
    subprocess.run([sys.executable, "-m", "retrodict", "rollout", "run", "--once", "--project", str(root)], check=True)
    assert check_whole(root)


def test_an_experiment_is_stopped_once_though_two_controllers_are_killed_as_they_stop_it(harmed, tmp_path):
    """Both die some milliseconds after the first sign of a stop, until one has stopped it."""
    root, rng = shutil.copytree(harmed, tmp_path / "parcels"), random.Random(6)
    for _ in range(8):
        pair = controller(root), controller(root)
        with Workspace(root, actor="ana") as project:
            looks, until = list(project.ledger.entries(action="experiment.look")), time.monotonic() + 60
            while list(project.ledger.entries(action="experiment.look")) == looks and time.monotonic() < until:
                time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.04))
        for process in pair:
            process.kill()
        for process in pair:
            process.wait()
        if check_whole(root):
            return
    raise AssertionError("nobody stopped it")
