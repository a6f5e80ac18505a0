"""A training that was killed is resumed: the same rows, the same model, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from tests.project.test_tasks import LATE, SPLIT, rows, write
from tests.serving.project import DAYS, START

from retrodict import Project
from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError, InputError
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.definitions import Recipe
from retrodict.models.splits import RandomSplit

DECIDE = '{"call": "score > 0.5", "ok": "otherwise"}'
RECIPE = 'recipe=Recipe("lightgbm", {split}, checkpoint=10, params={{"num_iterations": 60}})'


@pytest.fixture(scope="module")
def table():
    return rows()


@pytest.fixture
def root(tmp_path, table):
    write(tmp_path, LATE, RECIPE.format(split=SPLIT), DECIDE)
    with opened(tmp_path) as project:
        project.data.ingest("parcels", table.slice(0, len(table) - 50))
    return tmp_path


def opened(root):
    return Project(root, actor="ana", clock=SimulatedClock(START + DAYS * DAY))


def killed(project, monkeypatch, after=2):
    """Train until some checkpoints are there, and let it be interrupted; the run."""
    save = Checkpoints.save

    def stopping(self, *state):
        nonlocal after
        save(self, *state)
        after -= 1
        if not after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            project.train("parcel", again=True)
    return next(run for run in project.runs.list() if run.status == "failed")


def folders(root):
    state = root / "state" / "checkpoints"
    return sorted(path.name for path in state.iterdir()) if state.is_dir() else []


def test_a_resumed_run_is_the_one_that_was_not_killed(root, monkeypatch, table):
    """Its model is equal bit for bit, its data are those of then, and it replays exactly."""
    with opened(root) as project:
        whole = project.train("parcel")
        assert folders(root) == []
        run = killed(project, monkeypatch)
        assert folders(root) == [run.ref.partition(":")[2]]
        assert run.record.data["checkpoints"] == f"state/checkpoints/{folders(root)[0]}"
        assert run.record.data["checkpoints"] in str(project.runs.get(run.ref))
        project.data.ingest("parcels", table.slice(len(table) - 50))  # not what the fit was of
        resumed = project.train("parcel", resume=run.ref)
        assert resumed.params["resumed"] == run.ref
        assert resumed.record.data["versions"] == run.record.data["versions"]
        assert folders(root) == []
        assert resumed.record.summary["trees"] == whole.record.summary["trees"]
        assert resumed.metrics == whole.metrics
        assert resumed.replay().exact


def test_what_cannot_be_resumed_is_refused(root, monkeypatch):
    with opened(root) as project:
        finished = project.train("parcel")
        with pytest.raises(InputError, match=r"must have failed.*got 'finished.*no checkpoints"):
            project.train("parcel", resume=finished.ref)
    write(root, LATE, RECIPE.format(split=SPLIT).replace("60", "70"), DECIDE)
    with opened(root) as project:
        run = killed(project, monkeypatch)
    write(root, LATE, RECIPE.format(split=SPLIT).replace("60", "80"), DECIDE)
    with opened(root) as project:
        with pytest.raises(InputError, match=r"a run to resume .*another definition"):
            project.train("parcel", resume=run.ref)
        assert folders(root) == [run.ref.partition(":")[2]]


@pytest.mark.parametrize("interval", [0, -5, True, 1.5])
def test_an_interval_is_a_number_of_iterations_or_a_duration(interval):
    with pytest.raises(DefinitionError, match="checkpoint must be a whole number"):
        Recipe("lightgbm", RandomSplit(), checkpoint=interval)
    assert Recipe("lightgbm", RandomSplit(), checkpoint="90s").checkpoint == "90s"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_run_to_resume(root):
    """The command, killed for good while it fits, and the command again."""
    write(root, LATE, RECIPE.format(split=SPLIT).replace("60", "600, 'early_stopping_round': 0"), DECIDE)
    command = [sys.executable, "-m", "retrodict", "train", "parcel", "--project", str(root), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(root.rglob("*.checkpoint")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (name,) = folders(root)
    done = subprocess.run([*command, "--resume", f"run:{name}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert folders(root) == []
    with opened(root) as project:
        assert next(run for run in project.runs.list() if run.status == "finished").replay().exact
