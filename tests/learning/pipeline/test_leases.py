"""A lease is held by one process, taken over when that is gone, and never used after it was taken."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sqlalchemy import select, update
from tests.stores.conftest import environment, postgres, start  # noqa: F401  (fixtures)

from retrodict.core.errors import RefusedError
from retrodict.learning.pipeline import leases as module
from retrodict.learning.pipeline.leases import Leases, leases
from retrodict.learning.runs.heartbeat import now_us
from retrodict.workspace import Workspace


@pytest.fixture(params=["sqlite", "postgresql"])
def workspace(tmp_path, request):
    settings = '[project]\nname = "steps"\n'
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        settings += f'\n[stores]\nrecords = "{server.url(server.database())}"\n'
    (tmp_path / "retrodict.toml").write_text(settings)
    with Workspace(tmp_path, actor="ana") as opened:
        yield opened


def change(workspace, **values):
    with workspace.records.write() as connection:
        connection.execute(update(leases).values(**values))


def release(workspace, holder, lease):
    with workspace.records.write() as connection:
        holder.release(connection, lease)


@pytest.mark.parametrize(
    ("values", "taken"),
    [
        ({}, False),  # alive
        ({"time": 0}, True),  # silent for too long
        ({"process": 2**22 + 1}, True),  # there is no such process here: at once
        ({"began": 1}, True),  # another one of that number
        ({"machine": "other", "process": 2**22 + 1}, False),  # elsewhere: only time tells
        ({"machine": "other", "time": 0}, True),
    ],
)
def test_who_is_gone_loses_the_step(workspace, values, taken) -> None:
    """At once where it can be seen, after its time elsewhere; the former holder can then record nothing."""
    first, second = Leases(workspace, "p"), Leases(workspace, "p")
    lease = first.acquire("s", "", "R1")
    assert lease.token == 1
    if values:
        change(workspace, **values)
    other = second.acquire("s", "", "R2")
    assert (other is not None) is taken
    if taken:
        assert other.token == 2
        with pytest.raises(RefusedError, match="by the process that holds its lease"):
            release(workspace, first, lease)
        release(workspace, second, other)
    else:
        release(workspace, first, lease)
        assert second.acquire("s", "", "R2").token == 2


def test_steps_and_partitions_have_leases_of_their_own(workspace) -> None:
    """Of another step, partition or pipeline."""
    first, second = Leases(workspace, "p"), Leases(workspace, "q")
    assert first.acquire("s", "", "R1")
    assert not first.acquire("s", "", "R2")
    assert first.acquire("s", "2013-01", "R3")
    assert first.acquire("t", "", "R4")
    assert second.acquire("s", "", "R5")


def test_a_lease_lives_as_long_as_the_process_that_works(workspace) -> None:
    """Handed over to that: its end is what frees the step."""
    first, second = Leases(workspace, "p"), Leases(workspace, "p")
    lease = first.acquire("s", "", "R1")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        first.hand_over(lease, process.pid)
        change(workspace, time=now_us(), process=2**22 + 1)  # the holder is gone
        assert second.acquire("s", "", "R2") is None
        process.kill()
        process.wait()
        change(workspace, process=os.getpid())
        assert second.acquire("s", "", "R2") is None  # its end is not yet recorded
        change(workspace, process=2**22 + 1)
        assert second.acquire("s", "", "R2").token == 2
    with pytest.raises(RefusedError):
        first.hand_over(lease, process.pid)


def test_a_lease_is_renewed_while_it_is_held_and_its_loss_is_noticed(workspace, monkeypatch) -> None:
    """By its thread; one that another took is known as lost."""
    import time

    from retrodict.learning.runs.schema import metadata

    workspace.records.ensure(metadata)
    monkeypatch.setattr(module, "LASTS_S", 0.3)
    first, second = Leases(workspace, "p"), Leases(workspace, "p")
    lease = first.acquire("s", "", "R1")
    with first.renewing("R0"):
        change(workspace, time=now_us() - 200_000)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with workspace.records.read() as connection:
                if now_us() - connection.execute(select(leases.c.time)).scalar_one() < 150_000:
                    break
        else:
            pytest.fail("not renewed")
        change(workspace, began=1)
        assert second.acquire("s", "", "R2")
        while lease not in first.lost and time.monotonic() < end:
            time.sleep(0.01)
        assert lease in first.lost
        first.forget(lease)
        assert first.lost == set()


def test_a_sign_of_life_from_the_future_counts_from_when_it_was_seen(workspace, monkeypatch) -> None:
    """A machine whose clock is an hour ahead, and which is gone, holds a step as long as any other."""
    first, second = Leases(workspace, "p"), Leases(workspace, "p")
    assert first.acquire("s", "", "R1")
    now = now_us()
    change(workspace, machine="other", time=now + 3_600_000_000)
    for seconds, taken in ((0, False), (29, False), (31, True)):
        monkeypatch.setattr(module, "now_us", lambda seconds=seconds: now + seconds * 1_000_000)
        assert (second.acquire("s", "", "R2") is not None) is taken
