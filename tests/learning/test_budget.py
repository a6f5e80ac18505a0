"""A budget against a clock that the fits move: what is begun, what is given up, what is chosen, and when it ends."""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.learning.test_study import SPLIT, make, problem_of

from retrodict import Recipe
from retrodict.learning.study.workers import FoldFit

module = importlib.import_module("retrodict.learning.study.search")
FOLDS, BUDGET, SPENT = 4, 100.0, 6.0


class World:
    """A clock, and workers whose fits take so many seconds and are so good; one at a time."""

    def __init__(self, seconds: dict[str, float], quality: dict[str, float]) -> None:
        self.now, self.seconds, self.quality, self.fitted = 0.0, seconds, quality, []
        self.ends: dict[Future, tuple[float, dict, int]] = {}

    def clock(self) -> float:
        return self.now

    def submit(self, choice, fold):
        future: Future = Future()
        future.set_running_or_notify_cancel()
        self.ends[future] = self.now + self.seconds[choice["estimator"]], choice, fold
        return future

    def first_done(self, futures, seconds):
        future = min(futures, key=lambda one: self.ends[one][0])
        end, choice, fold = self.ends[future]
        if seconds is not None and end > self.now + seconds:
            self.now += seconds + 1e-9
            return set()
        self.now = max(end, self.now)
        labels = self.problem.train.labels[self.folds[fold][1]]
        sure = self.quality[choice["estimator"]]
        outputs = np.where(labels == 1, sure, 1 - sure)
        self.fitted.append(choice["estimator"])
        future.set_result(FoldFit(outputs, self.seconds[choice["estimator"]]))
        return {future}

    def end(self, future):
        self.ends.pop(future)


CANDIDATES = ("logistic", "lightgbm", "xgboost", "catboost", "extra_trees", "mlp", "random_forest", "knn",
              "histogram_boosting")  # fmt: skip


def run(monkeypatch, seconds, quality, *, most: int = 30, spent: float = SPENT, rungs=None):
    """Search with a budget in such a world."""
    world = World({name: seconds.get(name, 1.0) for name in CANDIDATES} | {"constant": 0.0},
                  {name: quality.get(name, 0.6) for name in CANDIDATES})  # fmt: skip

    @contextmanager
    def workers(job):
        world.problem, world.folds = job.problem, job.folds
        yield world

    monkeypatch.setattr(module, "open_workers", workers)
    monkeypatch.setattr(module, "perf_counter", world.clock)
    recipe = Recipe("auto", SPLIT, budget=f"{BUDGET:g}s")
    object.__setattr__(recipe.tune, "trials", most)
    problem, training = problem_of()
    world.now = spent
    return world, module.search(recipe, problem, training, tell=lambda *_: None, spent=spent, rungs=rungs)


def members(choice):
    return [member["estimator"] for member in choice.get("members", [choice])]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 60), min_size=9, max_size=9), st.lists(st.floats(0.55, 0.95), min_size=9, max_size=9))
def test_what_was_chosen_can_be_fitted_in_what_is_left(durations, qualities):
    """Fits on all rows take four thirds of those on three quarters of them; the rest is for the report."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world, result = run(monkeypatch, dict(zip(CANDIDATES, durations, strict=True)),
                            dict(zip(CANDIDATES, qualities, strict=True)), most=20)  # fmt: skip
        last = sum(world.seconds[name] for name in members(result.choice)) * FOLDS / (FOLDS - 1)
        judged = any(trial.folds for trial in result.trials)
        assert world.now <= BUDGET + 1e-6
        if judged and any(trial.state == "finished" for trial in result.trials):
            assert world.now + last <= BUDGET - SPENT / 2 + 1e-6
        assert result.deadline <= BUDGET + 1e-6


def test_what_ends_a_search_before_its_budget_is_over_is_said(monkeypatch):
    world, result = run(monkeypatch, dict.fromkeys(CANDIDATES, 3.0), {}, most=500)
    assert world.now < BUDGET
    assert result.report["stopped"] == "the rest of 100s is kept to fit and judge what was chosen"


def test_a_candidate_that_takes_more_than_its_share_is_given_up_and_others_get_their_turn(monkeypatch):
    world, result = run(monkeypatch, {"logistic": 0.5, "lightgbm": 1.0, "xgboost": 200.0}, {"lightgbm": 0.9})
    slow = next(trial for trial in result.trials if trial.choice["estimator"] == "xgboost")
    assert slow.state == "pruned"
    assert "more than its share" in slow.error
    assert slow.seconds == pytest.approx(0.12 * BUDGET, abs=0.1)
    assert {"catboost", "extra_trees", "knn"} <= set(world.fitted)
    assert members(result.choice)[0] == "lightgbm"


def test_one_that_leads_is_not_given_up_for_its_share(monkeypatch):
    _, result = run(monkeypatch, {"logistic": 0.5, "lightgbm": 0.5, "xgboost": 5.0}, {"xgboost": 0.95})
    best = next(trial for trial in result.trials if trial.choice["estimator"] == "xgboost")
    assert best.state == "finished"
    assert "xgboost" in members(result.choice)


def test_one_far_behind_after_a_fold_is_not_judged_on_the_others(monkeypatch):
    _, result = run(monkeypatch, {"logistic": 0.5, "catboost": 2.0}, {"logistic": 0.9, "catboost": 0.55, "knn": 0.55})
    by_name = {trial.choice["estimator"]: trial for trial in result.trials if trial.phase == 0}
    assert len(by_name["catboost"].folds) == 1
    assert by_name["catboost"].state == "pruned"


def test_only_the_kinds_that_do_best_are_tuned(monkeypatch):
    good = {"logistic": 0.9, "lightgbm": 0.91, "knn": 0.92, "mlp": 0.93}
    _, result = run(monkeypatch, dict.fromkeys(CANDIDATES, 0.2), good)
    assert {trial.choice["estimator"] for trial in result.trials if trial.phase == 0} == set(CANDIDATES)
    tuned = {trial.choice["estimator"] for trial in result.trials if trial.phase == 1}
    assert tuned
    assert tuned <= set(good)


def test_time_over_in_the_first_candidate_s_first_fold_leaves_what_surely_can_be_fitted(monkeypatch):
    _, result = run(monkeypatch, dict.fromkeys(CANDIDATES, 1e6), {})
    assert result.trials == ()
    assert members(result.choice) == ["logistic"]
    assert "nothing was chosen" in result.warnings[0]


@pytest.mark.parametrize(("spent", "rungs", "estimator"), [
    (99.0, {"logistic": 49.0, "tree": 1.0}, "logistic"),  # of rows and ladder alone the budget is over
    (99.0, {"logistic": 51.0, "tree": 49.0}, "decision_tree"),
    (99.0, {"logistic": 51.0, "tree": 51.0}, "constant"),
    (60.0, {"logistic": 31.0, "tree": 1.0}, "decision_tree"),
    (60.0, {"logistic": 29.0, "tree": 1.0}, "logistic"),
    (99.0, {}, "constant"),  # without a ladder nothing is known but that all of it took so long
    (6.0, {}, "logistic"),
])  # fmt: skip
def test_without_time_for_a_trial_a_model_of_the_ladder_is_fitted_and_the_constant_only_where_none_fits(
    monkeypatch, spent, rungs, estimator
):
    _, result = run(monkeypatch, dict.fromkeys(CANDIDATES, 1e6), {}, spent=spent, rungs=rungs)
    assert result.trials == ()
    assert members(result.choice) == [estimator]
    assert "nothing was chosen" in result.warnings[0]


def test_a_tree_in_place_of_a_trial_is_the_ladder_s():
    recipe = Recipe("auto", SPLIT, budget="1s")
    small = recipe.tune.concrete(recipe, {"estimator": "decision_tree", "decision_tree.max_depth": 3})
    assert (small.estimator, small.params) == ("decision_tree", {"max_depth": 3})


def test_the_report_ranks_the_trials_and_says_their_spread(monkeypatch):
    _, result = run(monkeypatch, dict.fromkeys(CANDIDATES, 0.2), {"mlp": 0.8, "knn": 0.7})
    board = result.report["leaderboard"]
    assert [one["value"] for one in board] == sorted(one["value"] for one in board)
    assert board[0]["number"] == result.report["best"]["number"]
    assert len(board) == 10 <= result.report["finished"]
    for one in board:
        assert one["std"] == pytest.approx(np.std(one["folds"], ddof=1))


def test_a_run_lists_its_trials_by_score_and_test_figures_of_the_chosen_one_alone(tmp_path):
    with make(tmp_path) as project:
        run = project.train("loan")
        values = [trial["value"] for trial in run.trials]
        finished = [value for value in values if value is not None]
        assert finished == sorted(finished)
        assert values[: len(finished)] == finished
        assert len(run.trials) == 5
        for text in (str(run), str(project.runs.get(run.ref))):
            assert "on folds of the training rows" in text
            assert f"#{run.trials[0]['number']}" in text
        assert not any(set(trial) & {"test", "metrics"} for trial in run.trials)
        listed = [one for one in project.runs.list(trials=True) if one.record.kind == "trial"]
        assert len(listed) == 5
        assert all(not one.metrics for one in listed)
