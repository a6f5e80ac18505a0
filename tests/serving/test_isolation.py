"""Trainings beside a server: real processes, as the kernel and the libraries see them."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from tests.serving.process import Server

from retrodict.workspace import Workspace
from retrodict.workspace.servers import is_served

ANNOUNCE = """
import sys
from retrodict.workspace import Workspace
from retrodict.workspace.servers import announce_server
with announce_server(Workspace(sys.argv[1])):
    print("announced", flush=True)
    sys.stdin.read()
"""
GIVE_WAY = """
import json, os, sys
from retrodict.project import give_way
give_way(sys.argv[1])
import joblib, lightgbm, polars, threadpoolctl
pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
print(json.dumps([os.nice(0), os.sched_getscheduler(0), [joblib.cpu_count(), polars.thread_pool_size(), *pools]]))
"""
OWN = [os.nice(0), os.SCHED_OTHER]
LAST = [max(os.nice(0), 10), os.SCHED_BATCH]
WARNING = "a server of this project runs on this machine"


@pytest.fixture
def root(tmp_path):
    """A folder with settings."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    return tmp_path


def announce(root):
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "announced\n"
    return process


def give_way(folder):
    """Priority and threads of a process that gave way, and what it said."""
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    command = [sys.executable, "-c", GIVE_WAY, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    return json.loads(done.stdout), done.stderr


def test_a_server_is_known_until_it_ends(root):
    """Killed or not; the other one still counts, and those who ask at once see no server in each other."""
    workspace = Workspace(root)
    assert not is_served(workspace)
    first, second = announce(root), announce(root)
    try:
        assert is_served(workspace)
        first.kill()
        first.communicate(timeout=30)
        assert is_served(workspace)
        second.communicate(timeout=30)  # closes its input, at which it ends
        with ThreadPoolExecutor(4) as pool:
            assert not any(pool.map(lambda _: is_served(workspace), range(2000)))
    finally:
        for process in (first, second):
            process.kill()


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("served", [False, True])
def test_only_a_server_makes_it_go_last_and_only_the_setting_bounds_threads(root, served, threads):
    """As the libraries that fit count them."""
    if threads:
        with (root / "retrodict.toml").open("a") as settings:
            settings.write(f"[training]\nthreads = {threads}\n")
    server = announce(root) if served else None
    try:
        answer, errors = give_way(root)
    finally:
        if server is not None:
            server.kill()
            server.communicate(timeout=30)
    *priority, pools = answer
    assert priority == (LAST if served else OWN)
    assert errors.count(WARNING) == served
    assert set(pools) == {1} if threads else pools[0] == len(os.sched_getaffinity(0))


def test_where_no_project_is_nothing_happens(tmp_path):
    """``retrodict automl FILE`` makes one."""
    answer, errors = give_way(tmp_path)
    assert (answer[:2], errors) == (OWN, "")


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        (".", "train nothing"),
        (".", "tune nothing"),
        (".", "pipelines run nothing"),
        (".", "automl nothing --target late"),
        ("wine", "automl wine.csv --target late"),
    ],
)
def test_every_command_that_trains_looks_for_a_server_first(tmp_path, folder, command):
    """Of the project that it trains in: the one that ``automl`` made of a file, too. Others do not."""
    root = tmp_path / folder
    root.mkdir(exist_ok=True)
    (root / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (root / "definitions.py").write_text("")
    (tmp_path / "wine.csv").write_text("late\n1\n")
    server = announce(root)
    try:
        words = [sys.executable, "-m", "retrodict"]
        run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        done = run([*words, *command.split()])
        assert (done.returncode > 0, done.stderr.count(WARNING)) == (True, 1), done.stderr
        assert WARNING not in run([*words, "runs", "list", "--project", str(root)]).stderr
    finally:
        server.kill()
        server.communicate(timeout=30)


def train(root):
    """Run a training; what it answered and logged, and nice value and scheduling class of every thread at its last."""
    command = [sys.executable, "-m", "retrodict", "train", "late_parcel", "--again", "--project", str(root), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    priorities = {}
    while process.poll() is None:
        for thread in Path(f"/proc/{process.pid}/task").glob("*"):
            try:
                fields = (thread / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended
                continue
            priorities[thread.name] = [int(fields[16]), int(fields[38])]
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(output)["run"]["summary"]["fingerprint"], errors, list(priorities.values())


@pytest.mark.slow
def test_a_training_beside_a_server_goes_last_says_so_and_fits_the_same_model(deployed, tmp_path):
    """With all its threads; after the server was killed a training is as ever."""
    root = Path(shutil.copytree(deployed, tmp_path / "parcels"))
    server = Server(root, "--no-consume")
    try:
        beside, errors, priorities = train(root)
        assert errors.count(WARNING) == 1
        assert all(priority == LAST for priority in priorities), priorities
    finally:
        server.kill()
    alone, errors, priorities = train(root)
    assert errors == ""
    assert all(priority == OWN for priority in priorities), priorities
    assert beside == alone
