"""A pipeline that is killed anywhere converges: each result once in the record, and the same as without a kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.learning.pipeline.project import FIVE, effects, statuses, write

from retrodict.core.display import Grid
from retrodict.learning import list_runs
from retrodict.learning.pipeline.leases import leases

STEPS = ("numbers", "doubled", "frame", "report", "aside")
SLOW = FIVE.replace('stream.write(name + "\\n")', 'stream.write(name + "\\n")\n    time.sleep(0.8)')


def start(folder: Path, code: str | None = None) -> subprocess.Popen[bytes]:
    """A process of the command, in a group of its own."""
    arguments = ["-m", "retrodict", "pipelines", "run", "five", "--actor", "ana"] if code is None else ["-c", code]
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)  # fmt: skip


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(holds, process: subprocess.Popen[bytes]) -> bool:
    """Wait until something holds, while the process lives."""
    while not holds():
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    return True


def workers(folder: Path) -> set[int]:
    """Processes of steps that work in a folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"retrodict.learning.pipeline.child" in command and os.readlink(entry / "cwd") == str(folder):
                found.add(int(entry.name))
    return found


def recorded(project) -> dict[str, list[str]]:
    """Digests of finished executions by step."""
    found: dict[str, list[str]] = {}
    for run in list_runs(project.workspace, where="status = 'finished'", kinds=("step",)):
        found.setdefault(run.params["step"], []).append(run.summary["output"]["digest"])
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("whole")
    with write(folder, FIVE) as project:
        assert project.pipelines.run("five").ok
        return recorded(project)


def check_converged(folder: Path, uninterrupted: dict[str, list[str]]) -> None:
    with write(folder, SLOW) as project:
        assert recorded(project) == uninterrupted  # one execution each, the same bytes
        assert {run.status for run in list_runs(project.workspace, kinds=("step",))} <= {"finished", "failed"}
        assert [run.summary["error"] for run in list_runs(project.workspace, where="status = 'failed'", kinds=("step",))
                if run.summary["error"] != "ProcessLost"] == []  # fmt: skip
        assert project.audit().ok


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_every_step_it_converges(tmp_path, uninterrupted) -> None:
    """The whole group, in the middle of each step in turn; what was done before is not done again."""
    with write(tmp_path, SLOW) as project:
        order = list(project.pipelines.show("five").graph)
    for step in order:
        process = start(tmp_path)
        assert wait_for(lambda step=step: step in effects(tmp_path), process), step
        assert workers(tmp_path)
        kill(process)
        end = time.monotonic() + 0.3  # less than a step takes
        while workers(tmp_path) and time.monotonic() < end:
            time.sleep(0.01)
        assert not workers(tmp_path)  # a step ends with the run that began it
    process = start(tmp_path)
    assert process.wait() == 0
    assert max(Counter(effects(tmp_path)).values()) <= 2
    check_converged(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_it_converges(tmp_path, uninterrupted) -> None:
    """At any moment: while it starts, decides, waits, records."""
    write(tmp_path, FIVE).close()
    rng, tries = random.Random(7), 0
    while True:
        process = start(tmp_path)
        tries += 1
        with suppress(subprocess.TimeoutExpired):
            if process.wait(timeout=rng.uniform(1.0, 6.0 + tries)) == 0:
                break
        kill(process)
        assert tries < 60
    check_converged(tmp_path, uninterrupted)


@pytest.mark.slow
def test_two_at_once_execute_each_step_once(tmp_path, uninterrupted) -> None:
    """Both succeed: what one executes, the other waits for and takes."""
    write(tmp_path, SLOW).close()
    processes = [start(tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert Counter(effects(tmp_path)) == dict.fromkeys(STEPS, 1)
    check_converged(tmp_path, uninterrupted)


IMPATIENT = """
from retrodict import Project
from retrodict.learning.pipeline import leases
leases.LASTS_S = 1.5
run = Project(".", actor="ana").pipelines.run("five")
raise SystemExit(not run.ok)
"""


@pytest.mark.slow
def test_a_holder_that_slept_cannot_record_its_result(tmp_path, uninterrupted) -> None:
    """Another takes its lease after its time; waking up, it finds it taken and takes the other's result."""
    write(tmp_path, SLOW).close()
    sleeper = start(tmp_path, IMPATIENT)
    assert wait_for(lambda: "doubled" in effects(tmp_path), sleeper)
    with write(tmp_path, SLOW) as project, project.workspace.records.read() as connection:
        query = select(leases.c.worker).where(leases.c.step == "doubled")
        assert {connection.execute(query).scalar_one()} == workers(tmp_path)  # held by the process that works
    os.kill(sleeper.pid, signal.SIGSTOP)
    time.sleep(2.0)
    other = start(tmp_path, IMPATIENT)
    assert other.wait() == 0
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait() == 0
    with write(tmp_path, SLOW) as project:
        assert recorded(project) == uninterrupted
        lost = list_runs(project.workspace, where="name = 'five.doubled' and status = 'failed'", kinds=("step",))
        ends = [run.summary["error"] for run in lost]
        assert ends == ["LeaseLost"]
        assert [run.status for run in list_runs(project.workspace, kinds=("pipeline",))] == ["finished"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "end"), [(signal.SIGINT, "interrupted"), (signal.SIGKILL, "killed")])
def test_status_and_history_say_what_stands_after_a_kill(tmp_path, number, end) -> None:
    """What finished in that run or before, and where it stopped; what the next run skips is not shown as undone."""
    with write(tmp_path, SLOW) as project:
        project.pipelines.run("five", only=["numbers", "aside"])
    process = start(tmp_path)
    assert wait_for(lambda: "frame" in effects(tmp_path), process)
    os.kill(process.pid, number)
    process.wait()
    while workers(tmp_path):
        time.sleep(0.01)
    with write(tmp_path, SLOW) as project:
        status = project.pipelines.status("five")
        assert {entry["step"]: entry["status"] for entry in status.steps} == {
            "numbers": "finished", "doubled": "finished", "frame": end, "report": "-", "aside": "finished"}  # fmt: skip
        assert (status.summary.status, status.summary.failed) == (end, 1)  # the first: two were not asked for
        (grid,) = (block for block in project.pipelines.history("five").blocks() if isinstance(block, Grid))
        row = dict(zip((name.rstrip(">?") for name in grid.columns), next(iter(grid.rows)), strict=True))
        assert (row["status"], row["done"], row["skipped"], row["failed"]) == (end, 1, None, 0)
        resumed = project.pipelines.run("five")
        assert {step for step, is_ in statuses(resumed).items() if is_ == "skipped"} == {"numbers", "doubled", "aside"}


AUDITS = """
from retrodict import Pipeline, step
twice = Pipeline("five", [step.audit(name="first"), step.audit(name="second", after=("first",))])
"""


@pytest.mark.slow
def test_a_run_that_was_killed_is_gone_on_with_and_a_later_one_begins_anew(tmp_path) -> None:
    """What depends on the time was done by this run already; the next run does it again."""
    with write(tmp_path, AUDITS) as project:
        process = start(tmp_path)
        done = "name = 'five.first' and status = 'finished'"
        assert wait_for(lambda: list_runs(project.workspace, where=done, kinds=("step",)), process)
        kill(process)
        resumed = project.pipelines.run("five")
        assert statuses(resumed) == {"first": "skipped", "second": "finished"}
        again = project.pipelines.run("five")
        assert statuses(again) == {"first": "finished", "second": "finished"}
