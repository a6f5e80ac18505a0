"""``features stream`` with several processes: a command that survives its children's deaths and ends with them."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.serving.project import make_project, parcels

from retrodict.core.errors import InputError
from retrodict.features.online import Upkeep, build_online, encode_event
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.registry.feature_sets import served_feature_sets
from retrodict.serving.consumer import share_partitions
from retrodict.workspace import Workspace

NEW = parcels(50).slice(48 * 40).to_pylist()  # eighty parcels that came after the history


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A deployed policy whose state is cut into three partitions and filled."""
    folder = tmp_path_factory.mktemp("parcels")
    make_project(folder).close()
    (folder / "retrodict.toml").write_text(
        '[project]\nname = "parcels"\n[features]\npartitions = 3\n[stores]\nkeys = "state/cut"\n'
    )
    with Workspace(folder) as project:
        build_online(project, [FeatureSet(model.features) for model in project.definitions.of(Model)])
    return folder


def _append(project, rows):
    with project.events.open_writer("events/parcels") as writer:
        writer.append([encode_event(row) for row in rows])


def _wait(project, offset):
    upkeep, until = Upkeep(project, served_feature_sets), time.monotonic() + 60
    expected = {"offset": offset, "lag": 0, "partitions": {0: 0, 1: 0, 2: 0}}
    while {name: upkeep.lags()["arrived"][name] for name in expected} != expected:
        assert time.monotonic() < until, upkeep.lags()
        time.sleep(0.05)


@contextmanager
def _running(command, environment):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def _children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
def test_children_that_are_killed_are_started_again_and_end_with_the_command(root, command_line, environment):
    """Two processes share three partitions; both are killed with -9, and every event counts once in the end."""
    command = command_line("features", "stream", "--processes", "2", "--project", str(root), "--json")
    with _running(command, environment) as process, Workspace(root) as project:
        _append(project, NEW[:40])
        _wait(project, 40)
        children = _children(process)
        assert len(children) == 2
        for child in children:
            os.kill(child, signal.SIGKILL)
        _append(project, NEW[40:])
        _wait(project, 80)
        children = _children(process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["sources"]["arrived"]["partitions"] == {"0": 0, "1": 0, "2": 0}
    assert "was ended by signal 9" in err
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.slow
def test_one_partition_is_fed_by_hand(root, spawn):
    """``--partition`` leaves the others where they are, and says how far its own is."""
    found = spawn("features", "stream", "--once", "--partition", "1", "--project", root, "--json").json
    assert found["sources"]["arrived"]["partitions"] == {"1": 0}


@pytest.mark.slow
def test_a_child_that_ends_with_an_error_ends_the_command(root, spawn):
    """What it would only do again is not done again: its message and its exit code are told."""
    settings = (root / "retrodict.toml").read_text()
    (root / "retrodict.toml").write_text(settings.replace("= 3", "= 4"))
    ended = spawn("features", "stream", "--processes", "2", "--project", root)
    (root / "retrodict.toml").write_text(settings)
    assert ended.code != 0
    assert "Set partitions = 3 under [features]" in ended.err
    assert "exit code" in ended.err


def test_partitions_are_shared_evenly():
    """Every partition once; more processes than partitions are refused with the remedy."""
    assert share_partitions(5, 2) == [[0, 2, 4], [1, 3]]
    with pytest.raises(InputError, match="Ask for 2 at most"):
        share_partitions(2, 3)
