"""A step stays within its limits, and what goes over them is ended and says which; steps run beside each other."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from tests.learning.pipeline.project import HEAD, effects, statuses, write

from retrodict.core.errors import InputError
from retrodict.learning import list_runs

LIMITS = (
    HEAD
    + """
import subprocess, sys

@step(timeout="2s")
def patient():
    child = subprocess.Popen(["sleep", "60"])
    Path("child.txt").write_text(str(child.pid))
    time.sleep(60)

@step(memory="300MB")
def hungry():
    return len(bytearray(600_000_000))

@step(memory="300MB")
def family():
    code = "x = bytearray(180_000_000); import time; time.sleep(20)"
    for child in [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]:
        child.wait()

@step(memory="1GB", cpus=1)
def modest():
    import pyarrow as pa
    return {"threads": os.environ["OMP_NUM_THREADS"], "arrow": pa.cpu_count(), "nice": os.nice(0)}

@step
def dead():
    os.abort()

@step(retries=1, pause="1ms", timeout="1s")
def slow_once():
    if Path("seen.txt").exists():
        return 1
    Path("seen.txt").touch()
    time.sleep(60)

limits = Pipeline("limits", [patient, hungry, family, modest, dead, slow_once])
"""
)


def is_alive(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_limits_end_a_step_with_all_its_processes_and_say_which(tmp_path) -> None:
    """Time, memory of one process and of all of them, threads; a crash is an error like any other."""
    with write(tmp_path, LIMITS) as project:
        run = project.pipelines.run("limits", parallel=2)
        errors = {step.step: step.error for step in run.steps if step.error}
        assert errors == {
            "patient": "TimeoutError: it took longer than its timeout of 2s",
            "hungry": "MemoryError: it needed more than its memory limit of 0.3 GB",
            "family": "MemoryError: it used more than its memory limit of 300MB",
            "dead": "ProcessLost: its process ended by signal SIGABRT",
        }
        assert not is_alive(int((tmp_path / "child.txt").read_text()))
        attempts = {step.step: (step.status, step.attempts) for step in run.steps}
        assert attempts["slow_once"] == ("finished", 2)
        (modest,) = list_runs(project.workspace, where="name = 'limits.modest'", kinds=("step",))
        assert modest.status == "finished"
        output = project.workspace.objects.get(modest.summary["output"]["digest"])
        assert output == b'{"arrow":1,"nice":%d,"threads":"1"}' % (os.nice(0) + 5)


MEETING = (
    HEAD
    + """
def meet(mine, other):
    note(mine)
    end = time.monotonic() + 60
    while other not in Path("effects.txt").read_text().split():
        assert time.monotonic() < end
        time.sleep(0.02)
    return mine

@step
def left():
    return meet("left", "right")

@step
def right():
    return meet("right", "left")

@step
def both(left, right):
    return [left, right]

meeting = Pipeline("meeting", [both, left, right])
"""
)


@pytest.mark.slow
def test_parallel_steps_are_executed_at_the_same_time(tmp_path) -> None:
    """Two that wait for each other end; what needs both comes after."""
    with write(tmp_path, MEETING) as project:
        assert project.pipelines.run("meeting", parallel=2).ok
        assert sorted(effects(tmp_path)) == ["left", "right"]


PARTITIONS = (
    HEAD
    + """
from retrodict import Table

sales = Table("sales", key="id", columns={"amount": "float"})

@step
def share(partition):
    note(partition)
    if partition == os.environ.get("BROKEN"):
        raise ValueError
    return {"of": partition}

@step
def doubled(share, factor: int = 2):
    return share["of"] * factor

@step
def total(sales):
    import pyarrow.compute as pc
    return pc.sum(sales["amount"]).as_py()

monthly = Pipeline("monthly", [total, doubled, share, step.ingest(sales, "data/{partition}.csv")], partitions="month")
"""
)


@pytest.mark.slow
def test_a_backfill_executes_each_partition_once_and_the_rest_after_all(tmp_path, monkeypatch) -> None:
    """What takes a partition, and what is fed by that, for each; what reads the table once, after all of them."""
    (tmp_path / "data").mkdir()
    for month in range(1, 5):
        (tmp_path / "data" / f"2013-0{month}.csv").write_text(f"id,amount\n{month},{10**month}\n")
    with write(tmp_path, PARTITIONS) as project:
        monkeypatch.setenv("BROKEN", "2013-02")
        first = project.pipelines.run("monthly", backfill="2013-01..2013-03", parallel=2)
        assert statuses(first) == {
            "share[2013-01]": "finished", "share[2013-02]": "failed", "share[2013-03]": "finished",
            "doubled[2013-01]": "finished", "doubled[2013-02]": "not run", "doubled[2013-03]": "finished",
            "ingest_sales[2013-01]": "finished", "ingest_sales[2013-02]": "finished",
            "ingest_sales[2013-03]": "finished", "total": "finished",
        }  # fmt: skip
        monkeypatch.delenv("BROKEN")
        again = project.pipelines.run("monthly", backfill="2013-01..2013-03")
        done = {label for label, status in statuses(again).items() if status == "finished"}
        assert done == {"share[2013-02]", "doubled[2013-02]"}
        assert sorted(effects(tmp_path)) == ["2013-01", "2013-02", "2013-02", "2013-03"]
        april = project.pipelines.run("monthly", partition="2013-04")
        reasons = {step.label: step.reason for step in april.steps}
        assert reasons["total"] == "sales@2 → @3"
        (last,) = list_runs(project.workspace, where="name = 'monthly.total'", kinds=("step",), limit=1)
        assert project.workspace.objects.get(last.summary["output"]["digest"]) == b"11110.0"
        (doubled,) = list_runs(project.workspace, where="name = 'monthly.doubled[2013-04]'", kinds=("step",))
        assert project.workspace.objects.get(doubled.summary["output"]["digest"]) == b'"2013-042013-04"'
        with pytest.raises(InputError, match="a partition must name a month"):
            project.pipelines.run("monthly", partition="2013-04-01")


SLASHES = (
    HEAD
    + """
@step
def share(partition):
    while partition == "a/b" and "a_b" not in Path("effects.txt").read_text().split():
        time.sleep(0.02)
    note(partition)
    if partition == "a/b":
        time.sleep(2)
        os.kill(os.getpid(), 9)
    return {"of": partition}

regions = Pipeline("regions", [share], partitions=["a/b", "a_b"])
"""
)


@pytest.mark.slow
def test_partitions_never_take_the_result_of_another(tmp_path) -> None:
    """One is killed after another one of nearly its name has left its result."""
    (tmp_path / "effects.txt").write_text("")
    with write(tmp_path, SLASHES) as project:
        run = project.pipelines.run("regions", backfill="a/b..a_b", parallel=2)
        assert statuses(run) == {"share[a/b]": "failed", "share[a_b]": "finished"}
