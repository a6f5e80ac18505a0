"""Shadows behind a real server: one result per decision and shadow, whatever is killed when."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from tests.rollout.traffic import ask_past, make_world
from tests.serving.process import Server

from retrodict import Project
from retrodict.core.errors import BusyError, NotFoundError, RefusedError
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import current, get_version
from retrodict.rollout import shadows
from retrodict.rollout.rescore import Rescorer
from retrodict.rollout.shadows import Follower, read_batches

DEPOTS = ("north", "south", "east")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("shadows") / "parcels"
    make_world(root)
    return root


@pytest.fixture
def root(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "parcels"))


@pytest.fixture
def project(root):
    with Project(root, actor="ana") as opened:
        yield opened


def start(project: Project) -> None:
    """Another version, another model with another view, another policy."""
    project.challengers.start_shadow("promise", model="late_parcel@2", name="isotonic", reason="test")
    project.challengers.start_shadow("promise", model="wide@1", name="wide", reason="test")
    project.challengers.start_shadow("promise", other="strict", name="strict", reason="test")


def results(project: Project) -> list:
    return [one for batch in read_batches(project.workspace) for one in batch.results]


def followers(root: Path) -> list[int]:
    """Processes that follow for a project."""
    pids = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"shadow" in words and b"run" in words and str(root).encode() in words:
                pids.append(int(folder.name))
    return pids


def until(condition, timeout_s: float = 60.0):
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
    return value


def test_each_shadow_decides_by_what_it_is(project, root):
    """By ``score_row`` on the logged values; a view that the champion does not have, as a replay reads it."""
    start(project)
    rows = ask_past(root, 40)
    assert project.challengers.run_shadows(once=True).decisions == 40
    report = project.challengers.shadow_report("promise", by=["depot"])
    by_name = {one.report.challenger.name: one for one in report.shadows}
    log = {one["id"]: one for one in project.decisions.table("promise").to_pylist()}
    artifact = ModelArtifact.load(project.workspace.objects, get_version(project.workspace, "late_parcel@2").artifact)
    for pair in by_name["isotonic"].pairs.to_pylist():
        assert pair["replayed__score"] == artifact.score_row(log[pair["id"]]).score
    window = project.challengers.replay("promise", model="wide@1").table.select(["id", "replayed__score"])
    assert dict(zip(*window.to_pydict().values(), strict=True)) == dict(
        zip(*by_name["wide"].pairs.select(["id", "replayed__score"]).to_pydict().values(), strict=True)
    )
    for pair, row in zip(by_name["strict"].pairs.to_pylist(), rows, strict=True):
        assert pair["replayed__decision"] == ("warn" if row["express"] or pair["score"] >= 0.3 else "ok")
    assert all((one.running, one.waiting, one.dropped) == (True, 0, 0) for one in report.shadows)
    assert {(one["first"], one["second"]) for one in report.diversity} == {
        ("isotonic", "wide"), ("isotonic", "strict"), ("wide", "strict")}  # fmt: skip


@pytest.mark.slow
def test_kills_lose_and_double_nothing(project, root):
    """A server with three shadows under load; the follower, then the server, killed at random, again and again."""
    start(project)
    random_ = random.Random(7)
    answered: list[str] = []
    for _ in range(3):
        server = Server(root)
        stopped = threading.Event()

        def ask(server=server, stopped=stopped):
            chance = random.Random()
            while not stopped.is_set():
                body = {
                    "entities": {"depot": chance.choice(DEPOTS)},
                    "context": {
                        "weight": chance.uniform(1, 80),
                        "express": chance.random() < 0.3,
                        "sent": "2024-02-20T10:00Z",
                    },
                }
                with suppress(OSError, ValueError):
                    status, answer = server.decide(body, headers={})
                    assert status == 200
                    answered.append(answer["decision_id"])

        callers = [threading.Thread(target=ask) for _ in range(2)]
        for caller in callers:
            caller.start()
        for _ in range(3):
            (pid,) = until(lambda: followers(root))
            count = sum(1 for _ in results(project))
            until(lambda count=count: sum(1 for _ in results(project)) > count)
            time.sleep(random_.uniform(0.0, 0.5))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: pid not in followers(root))
        server.kill()
        stopped.set()
        for caller in callers:
            caller.join()
        until(lambda: not followers(root))
    project.challengers.run_shadows(once=True)
    counts = Counter((one.id, one.shadow.split("/")[1]) for one in results(project))
    ids = set(project.decisions.table("promise").column("id").to_pylist())
    assert set(answered) <= ids
    assert len(ids) > 100
    assert counts == Counter({(one, name): 1 for one in ids for name in ("isotonic", "wide", "strict")})
    assert {one.error for one in results(project)} == {None}


def test_a_follower_that_dies_before_it_has_written_does_its_batch_again(project, root, monkeypatch):
    """The places are in the same record as the results: not one without the other."""
    start(project)
    ask_past(root, 12)
    follower = Follower(project.workspace)
    follower._writer.close()
    with pytest.raises(Exception, match=r"closed|writer"):
        follower.step()
    project.challengers.run_shadows(once=True)
    assert len(results(project)) == 36
    assert project.challengers.run_shadows(once=True).decisions == 0
    assert len(results(project)) == 36


def test_a_decision_on_which_a_shadow_hangs_fails_alone(project, root, monkeypatch):
    """It would be the next one for good; and the alarm that others had set is theirs again."""
    start(project)
    ask_past(root, 6)
    ids = project.decisions.table("promise").column("id").to_pylist()
    rescore, slow = Rescorer.rescore, ids[2]

    def hanging(self, records):
        if self.artifact.name == "wide" and slow in {record.id for record in records}:
            time.sleep(60)
        return rescore(self, records)

    monkeypatch.setattr(Rescorer, "rescore", hanging)
    monkeypatch.setattr(shadows, "_HANG_S", 0.5)
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    project.challengers.run_shadows(once=True)
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0] > 0) == before
    assert len(results(project)) == 18
    errors = [(one.id, one.shadow.split("/")[1], one.error) for one in results(project) if one.error]
    assert errors == [(slow, "wide", "TimeoutError")]


HANGING = """
import sys, time
from retrodict.cli.main import run
from retrodict.rollout.rescore import Rescorer

def hang(*_):
    print("hanging", flush=True)
    time.sleep(60)

Rescorer.rescore = hang
sys.exit(run(["shadow", "run", "--project", sys.argv[1]]))
"""


def test_a_follower_that_hangs_ends_when_it_is_told(project, root):
    """Nobody has to kill it; the next one does its batch."""
    start(project)
    ask_past(root, 3)
    process = subprocess.Popen([sys.executable, "-c", HANGING, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "hanging\n"
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.communicate()
    project.challengers.run_shadows(once=True)
    assert len(results(project)) == 9


def test_a_follower_that_is_too_slow_drops_the_oldest_and_counts_them(project, root):
    """Of 30 decisions the newest ten may wait."""
    start(project)
    ask_past(root, 30)
    follower = Follower(project.workspace, most_behind=10)
    while follower.step():
        pass
    follower.close()
    newest = project.decisions.table("promise").column("id").to_pylist()[20:]
    assert {one.id for one in results(project)} == set(newest)
    for one in project.challengers.shadow_report("promise").shadows:
        assert (one.dropped, one.waiting, one.report.decisions) == (20, 0, 10)


def test_only_decisions_of_revisions_with_the_shadow_are_looked_at(project, root):
    """Nothing from before it began, nothing from after it ended; deploy and rollback leave it as it is."""
    ask_past(root, 3)
    project.challengers.start_shadow("promise", model="late_parcel@2", name="one", reason="test")
    ask_past(root, 4)
    project.deploy("promise", model="late_parcel@2", reason="test", force="test")
    ask_past(root, 5)
    project.rollback("promise", reason="test")
    assert [shadow["name"] for shadow in current(project.workspace)["promise"].deployment.shadows] == ["one"]
    project.challengers.stop_shadow("promise", "one", reason="test")
    ask_past(root, 6)
    project.challengers.run_shadows(once=True)
    assert len(results(project)) == 9
    (one,) = project.challengers.shadow_report("promise").shadows
    assert not one.running
    assert one.report.champions == {"late_parcel@1": 4}
    assert (one.by_itself, one.report.decisions, one.waiting) == (5, 4, 0)  # it would have agreed with itself
    assert one.to_dict()["by_itself"] == 5


def test_what_cannot_look_on_is_refused(project):
    """Unknown inputs, a view without state, a name that is taken, nothing to stop; a second follower."""
    begin = project.challengers.start_shadow
    with pytest.raises(RefusedError, match="what requests of the policy bring"):
        begin("promise", model="strange@1", reason="test")
    begin("promise", model="late_parcel@2", name="one", reason="test")
    with pytest.raises(RefusedError, match="name of its own"):
        begin("promise", other="strict", name="one", reason="test")
    with pytest.raises(NotFoundError, match="must run"):
        project.challengers.stop_shadow("promise", "two", reason="test")
    with pytest.raises(NotFoundError, match="must have had"):
        project.challengers.shadow_report("promise", name="two")
    text = (project.folder / "definitions.py").read_text()
    (project.folder / "definitions.py").write_text(text.replace('agg.count(over="3d")', 'agg.count(over="5d")'))
    with Project(project.folder, actor="ana") as again:
        again.train("wide")
        with pytest.raises(RefusedError, match=r"must have been built.*features build"):
            again.challengers.start_shadow("promise", model="wide@2", reason="test")
    follower = Follower(project.workspace)
    with pytest.raises(BusyError):
        project.challengers.run_shadows(once=True)
    follower.close()


def test_a_shadow_that_cannot_be_loaded_errs_alone(project, root):
    """Its artifact is gone: each of its results says so, and the other shadow has its own."""
    start(project)
    ask_past(root, 5)
    digest = get_version(project.workspace, "wide@1").artifact
    for file in (root / "state" / "objects").rglob(f"*{digest[-20:]}*"):
        file.unlink()
    project.challengers.run_shadows(once=True)
    errors = {one.shadow.split("/")[1]: one.error for one in results(project)}
    assert errors["isotonic"] is None
    assert errors["wide"] is not None
    report = next(one for one in project.challengers.shadow_report("promise", name="isotonic").shadows)
    assert report.report.compared == 5
