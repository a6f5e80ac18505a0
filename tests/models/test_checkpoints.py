"""A fit that was killed goes on from its last checkpoint to the same model, and what is kept survives restarts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest

from retrodict.core.errors import InputError, IntegrityError
from retrodict.models import get_estimator
from retrodict.models.checkpoints import Checkpoints, problem_key
from retrodict.testing.estimators import make_problem

PARAMS = {
    "lightgbm": {"num_iterations": 90, "learning_rate": 0.1, "min_data_in_leaf": 10, "num_threads": 1},
    "aft": {"num_boost_round": 90, "nthread": 1},
    "xgboost": {"num_boost_round": 90, "nthread": 1},
    "mlp": {"hidden_layer_sizes": [8], "max_iter": 60},
    "network": {"layers": [16], "epochs": 20, "batch_size": 32, "dropout": 0.3},
    "catboost": {"iterations": 400, "depth": 4, "thread_count": 1},
}
STEPS = {"network": 10}
# Imports once, then forks a process of its own for every fit: that is the one that is killed.
SERVER = """
import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
import lightgbm, sklearn.neural_network
if importlib.util.find_spec("torch"):
    import torch
from retrodict.models import get_estimator
from retrodict.models.checkpoints import Checkpoints
from retrodict.testing.estimators import make_problem
import retrodict.models.engines.network_fit, retrodict.models.engines.sklearn_fit
for line in sys.stdin:
    name, task, params, folder, steps = json.loads(line)
    child = os.fork()
    if child == 0:
        problem = replace(make_problem(task), params=params, checkpoints=Checkpoints(Path(folder), steps=steps))
        fingerprint = get_estimator(name).solve(problem).engine.fingerprint()
        (Path(folder) / "fingerprint").write_text(fingerprint)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def server():
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)  # fmt: skip
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def solve(name, task="binary", checkpoints=None, **params):
    problem = replace(make_problem(task), params={**PARAMS[name], **params}, checkpoints=checkpoints)
    return get_estimator(name).solve(problem)


def written(folder):
    return sorted(int(path.name.partition(".")[0]) for path in folder.rglob("*.checkpoint"))


def skip_without(name):
    if name == "network" and find_spec("torch") is None:
        pytest.skip("the extra 'deep' is not installed: make deep")


def start(server, *fit):
    """Begin a fit; number of its process."""
    server.stdin.write(json.dumps(fit) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


def finish(server, folder):
    """Wait for a fit; what it learned, None if it was killed."""
    status = int(server.stdout.readline())
    assert status in (0, signal.SIGKILL)
    return (folder / "fingerprint").read_text() if status == 0 else None


def kill_at_random(server, folder, fit, rng):
    """Kill the process of a fit after one to three further checkpoints, and a moment."""
    process, least, further = start(server, *fit), max(written(folder), default=0), rng.randint(1, 3)
    while further and not (folder / "fingerprint").exists():
        newest = max(written(folder), default=0)
        further, least = further - (newest > least), max(newest, least)
    time.sleep(rng.random() * 0.01)
    os.kill(process, signal.SIGKILL)
    return finish(server, folder) is None


def killed_and_resumed(server, name, task, folder, kills, rng):
    fit = (name, task, PARAMS[name], str(folder), STEPS.get(name, 2))
    killed = [kill_at_random(server, folder, fit, rng) for _ in range(kills)]
    assert killed[0]
    (folder / "fingerprint").unlink(missing_ok=True)
    start(server, *fit)
    return finish(server, folder)


@pytest.mark.parametrize("name", ["lightgbm", "network", "mlp"])
def test_a_fit_that_was_killed_ends_as_one_that_was_not(name, tmp_path, server):
    """One process killed between two checkpoints, then another one."""
    skip_without(name)
    whole = solve(name, checkpoints=Checkpoints(steps=STEPS.get(name, 2))).engine.fingerprint()
    assert killed_and_resumed(server, name, "binary", tmp_path, 1, random.Random(1)) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("lightgbm", "multiclass"),
        ("xgboost", "regression"),
        ("aft", "survival"),
        ("mlp", "regression"),
        ("network", "quantile"),
    ],
)
def test_twenty_kills_change_nothing(name, task, tmp_path, server):
    """Five processes killed at random moments of each estimator, early stopping left to its course."""
    skip_without(name)
    whole = solve(name, task, Checkpoints(steps=STEPS.get(name, 2))).engine.fingerprint()
    assert killed_and_resumed(server, name, task, tmp_path, 5, random.Random(7)) == whole


@pytest.mark.parametrize(
    ("name", "task"),
    [*product(["lightgbm", "xgboost"], ["binary", "multiclass", "quantile", "ranking"]), ("aft", "survival")],
)
def test_every_task_goes_on_from_every_checkpoint(name, task, tmp_path, monkeypatch):
    """The trees and the whole history of one that was stopped after each of its first checkpoints."""
    save, stops = Checkpoints.save, 2

    def stopping(self, *state):
        save(self, *state)
        raise KeyboardInterrupt

    whole = solve(name, task, Checkpoints(steps=15))
    monkeypatch.setattr(Checkpoints, "save", stopping)
    for _ in range(stops):
        with pytest.raises(KeyboardInterrupt):
            solve(name, task, Checkpoints(tmp_path, steps=15))
    monkeypatch.undo()
    assert max(written(tmp_path)) >= 15
    again = solve(name, task, Checkpoints(tmp_path, steps=15))
    assert again.engine.fingerprint() == whole.engine.fingerprint()
    assert repr(again.history) == repr(whole.history)
    assert again.params == whole.params


@pytest.mark.slow
def test_catboost_goes_on_from_its_own_snapshot(tmp_path, server):
    """It writes one each second; the trees that are there are read, and the end is that of an undisturbed fit."""
    long = {"iterations": 3_000, "early_stopping_rounds": 0}
    fit = ("catboost", "binary", {**PARAMS["catboost"], **long}, str(tmp_path), 1)
    process = start(server, *fit)
    while not list(tmp_path.rglob("snapshot")):
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert finish(server, tmp_path) is None
    start(server, *fit)
    assert finish(server, tmp_path) == solve("catboost", **long).engine.fingerprint()


def test_pieces_are_as_good_as_one(tmp_path):
    """The trees differ, the least loss hardly."""
    plain, pieces = solve("lightgbm"), solve("lightgbm", checkpoints=Checkpoints(steps=10))
    assert plain.engine.fingerprint() != pieces.engine.fingerprint()
    losses = [min(fitted.history["log_loss"]) for fitted in (plain, pieces)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    one = solve("lightgbm", checkpoints=Checkpoints(steps=90))
    assert one.engine.fingerprint() == plain.engine.fingerprint()


def test_the_last_and_the_best_are_kept_over_restarts(tmp_path):
    """Of ten checkpoints, by two objects that know nothing of each other."""
    losses = [5.0, 1.0, 4.0, 2.0, 9.0, 3.0, 8.0, 7.0, 6.0, 9.5]
    for part in (losses[:5], losses[5:]):
        checkpoints = Checkpoints(tmp_path, steps=1, keep=2)
        before = max(written(tmp_path), default=0)
        for step, loss in enumerate(part, start=before + 1):
            checkpoints.save(step, {"b": b"two", "a": b"one" * step}, loss)
    assert written(tmp_path) == [2, 4, 10]
    last = Checkpoints(tmp_path).last()
    assert (last.step, last.loss, dict(last.state)) == (10, 9.5, {"a": b"one" * 10, "b": b"two"})
    assert Checkpoints(tmp_path / "none").last() is None


def test_a_draft_is_no_checkpoint_and_damage_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path, steps=1)
    checkpoints.save(1, {"a": b"whole"})
    (tmp_path / ".000000000002.checkpoint.17.beef").write_bytes(b"half")
    assert checkpoints.last().step == 1
    (path,) = tmp_path.glob("0*.checkpoint")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match="bytes must be those that were written"):
        checkpoints.last()


def test_another_problem_begins_anew(tmp_path):
    """Rows, parameters, seed and estimator are in the name of the folder."""
    problem = make_problem("binary")
    others = [
        replace(problem, seed=8), replace(problem, params={"penalty": 2.0}), replace(problem, validate=None),
        make_problem("binary", seed=2), make_problem("binary", rows=299), make_problem("regression"),
    ]  # fmt: skip
    keys = {problem_key("logistic", one) for one in (problem, *others)} | {problem_key("ridge", problem)}
    assert len(keys) == len(others) + 2
    assert problem_key("logistic", problem) == problem_key("logistic", make_problem("binary"))


def test_time_decides_where_no_number_of_steps_is_given(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(Path("unused"), seconds=60.0)
    assert not checkpoints.due(1)
    now[0] = 160.0
    assert checkpoints.due(2)
    assert not Checkpoints(None, seconds=0.0).due(1)
    assert [Checkpoints(Path("unused"), steps=5).due(step) for step in (4, 5, 6, 10)] == [False, True, False, True]
    assert Checkpoints.every("90s", None).seconds == 90.0
    assert Checkpoints.every(None) is None


def test_a_forest_of_lightgbm_is_not_cut_into_pieces(tmp_path):
    with pytest.raises(InputError, match="must be grown in one go"):
        solve("lightgbm", checkpoints=Checkpoints(steps=5), boosting="rf", early_stopping_round=0)


@pytest.mark.parametrize(("name", "params"), [
    ("network", {"learning_rate": 0.1, "layers": [64], "epochs": 40, "dropout": 0.0, "patience": 0}),
    ("mlp", {"learning_rate_init": 0.1, "max_iter": 30, "n_iter_no_change": 29}),
])  # fmt: skip
def test_the_best_weights_survive_a_kill_after_them(name, params, tmp_path, monkeypatch):
    """The best epoch lies before the last checkpoint, and is the one that comes back."""
    skip_without(name)
    save, steps = Checkpoints.save, {"network": 10, "mlp": 1}[name]  # of the network ten batches are an epoch
    whole = solve(name, checkpoints=Checkpoints(steps=steps), **params)
    best = whole.params["best_iteration"]  # far from the last epoch, as other processors round to other ones

    def stopping(self, step, *state):
        save(self, step, *state)
        if step // steps > best:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            solve(name, checkpoints=Checkpoints(tmp_path, steps=steps), **params)
    again = solve(name, checkpoints=Checkpoints(tmp_path, steps=steps), **params)
    assert again.engine.fingerprint() == whole.engine.fingerprint()
    assert again.params == whole.params
