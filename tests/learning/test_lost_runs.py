"""A run whose process is gone does not run for ever, and none ends without its version."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import delete, insert, select, update
from tests.serving.project import DEFINITIONS, parcels

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.errors import InputError, RefusedError, RetryableError
from retrodict.data.ingest import ingest
from retrodict.learning import get_run, list_runs, train
from retrodict.learning.runs import heartbeat
from retrodict.learning.runs.schema import heartbeats, runs
from retrodict.registry import list_versions
from retrodict.workspace import Workspace

NOW = parse_time("2024-02-20T00:00Z")
WAITING = """
import sys, time
from retrodict.core.clock import SimulatedClock
from retrodict.learning import train
from retrodict.workspace import Workspace

def wait(what, done, total):
    if what == sys.argv[2]:
        print("waiting", flush=True)
        time.sleep(60)

train(Workspace(sys.argv[1], actor="ana", clock=SimulatedClock(int(sys.argv[3]))), "late_parcel", progress=wait)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    with Workspace(tmp_path, actor="ana", clock=SimulatedClock(NOW)) as opened:
        ingest(opened, "parcels", parcels())
        yield opened


@pytest.mark.parametrize("step", ["features", "evaluate"])
def test_a_killed_training_is_closed_by_whoever_looks_next(project, step):
    """Running while its process lives, failed from the moment it is gone; the ledger says so once."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(project.root), step, str(NOW)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    (run,) = list_runs(project)
    assert run.status == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    stored = get_run(project, run.ref)
    assert (stored.status, stored.summary, stored.finished) == ("failed", {"error": "ProcessLost"}, NOW)
    assert [run.status for run in list_runs(project)] == ["failed"]
    (entry,) = project.ledger.entries(object_id=run.ref, action="run.finish")
    assert entry.payload["status"] == "failed"


@pytest.mark.parametrize("error", [OSError("no space left"), SystemExit(1), RuntimeError("bug")])
def test_an_error_while_recording_closes_the_run(project, monkeypatch, error):
    """Whatever it is: failed, with its kind, without half of its numbers, and raised."""
    put = project.objects.put

    def refuse(data):
        if data.startswith(b"PAR1"):
            raise error
        return put(data)

    monkeypatch.setattr(project.objects, "put", refuse)
    with pytest.raises(type(error)):
        train(project, "late_parcel")
    (run,) = list_runs(project)
    assert (run.status, run.summary) == ("failed", {"error": type(error).__name__})
    assert (run.points, run.artifacts, list_versions(project)) == ([], [], [])


def test_a_run_ends_with_its_version_or_not_at_all(project, monkeypatch):
    """Registering fails: the run is failed, not finished without a version."""

    def refuse(*_args, **_options):
        raise InputError("no", where="registry", got=1, remedy="Stop")

    monkeypatch.setattr("retrodict.registry.versions.get_version", lambda *_: None)
    monkeypatch.setattr("retrodict.ledger.ledger.Transaction.insert", refuse)
    with pytest.raises(InputError):
        train(project, "late_parcel")
    assert [run.status for run in list_runs(project)] == ["failed"]
    assert list_versions(project) == []


def open_run(project, monkeypatch) -> str:
    """Run that an error ended while the store took nothing: still open when its training is over."""

    def refuse(*_):
        raise RetryableError("the disk must take the change", where="store", got="an error", remedy="Free space")

    with monkeypatch.context() as patch:
        patch.setattr("retrodict.learning.execution.fail_run", refuse)
        patch.setattr("retrodict.learning.execution.execute", lambda *_args, **_options: 1 / 0)
        with pytest.raises(ZeroDivisionError) as caught:
            train(project, "late_parcel")
    (run,) = list_runs(project)
    assert f"{run.ref} is still open: store: the disk must take the change" in caught.value.__notes__[0]
    assert run.status == "running"
    return run.ref


def set_sign(project, **values):
    with project.records.write() as connection:
        connection.execute(update(heartbeats).values(**values))


@pytest.mark.parametrize(
    ("sign", "status"),
    [
        ({"machine": "other"}, "running"),
        ({"machine": "other", "time": 0}, "failed"),
        ({"began": 1}, "failed"),
        ({"time": 0}, "failed"),
    ],
)
def test_a_run_without_a_sign_of_life_is_lost(project, monkeypatch, sign, status):
    """Another machine is believed for five minutes; here a process of the same number, begun later, is another one."""
    ref = open_run(project, monkeypatch)
    set_sign(project, **sign)
    assert get_run(project, ref).status == status


def test_a_run_of_before_there_were_signs_of_life_is_lost(project, monkeypatch):
    """It has no row of its own."""
    ref = open_run(project, monkeypatch)
    with project.records.write() as connection:
        connection.execute(delete(heartbeats))
    assert get_run(project, ref).status == "failed"


def test_a_training_gives_signs_of_life_and_takes_them_away(project, monkeypatch):
    """The time moves on while it runs, of this run alone; of a finished run nothing is left."""
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.05)
    times = []
    other = {"run": "another", "machine": "m", "process": 1, "began": 0, "time": 7}

    def look(what, _done, _total):
        if what == "evaluate" and not times:
            with project.records.write() as connection:
                connection.execute(insert(heartbeats).values(**other))
            for _ in range(2):
                with project.records.read() as connection:
                    mine = select(heartbeats.c.time).where(heartbeats.c.run != "another")
                    times.append(connection.execute(mine).scalar_one())
                time.sleep(0.5)

    train(project, "late_parcel", progress=look)
    assert times[0] < times[1]
    with project.records.read() as connection:
        assert [dict(row) for row in connection.execute(select(heartbeats)).mappings()] == [other]
    assert not [thread for thread in threading.enumerate() if thread.name == "retrodict-heartbeat"]


def test_a_run_that_was_closed_does_not_finish(project):
    """Somebody closed it as failed meanwhile: the training says so, and no version is made."""

    def close(what, _done, _total):
        if what == "evaluate":
            with project.records.write() as connection:
                connection.execute(update(runs).values(status="failed"))

    with pytest.raises(RefusedError, match=r"a run must be open to be finished.*Train anew"):
        train(project, "late_parcel", progress=close)
    assert list_versions(project) == []
    assert [run.status for run in list_runs(project)] == ["failed"]
