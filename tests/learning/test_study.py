"""A search for settings: what it tries, what it may look at, what it says, and that a kill costs it nothing."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sqlalchemy import delete, update

from retrodict import (
    Label,
    Model,
    Project,
    RandomSplit,
    Recipe,
    Scale,
    Select,
    Stack,
    Table,
    Tune,
    columns,
)
from retrodict.core.errors import DefinitionError, InputError, RetrodictError
from retrodict.core.tasks import Target
from retrodict.learning.fit import TrainingRows, fit_recipe
from retrodict.learning.frame import Frame
from retrodict.learning.runs.schema import runs
from retrodict.learning.study import workers
from retrodict.learning.study.journal import Journal
from retrodict.learning.study.proposals import StudyTrial
from retrodict.learning.study.search import search
from retrodict.models.inputs import Feature, InputSpec
from retrodict.models.problem import Examples, Problem

SPLIT = RandomSplit()
ROWS = 240


def rows(task: str = "binary", seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(ROWS, 4))
    value = matrix[:, 0] - matrix[:, 1] + 0.5 * rng.normal(size=ROWS)
    return matrix, (value > 0).astype(float) if task == "binary" else value


def problem_of(task: str = "binary", wide: int = 4) -> tuple[Problem, TrainingRows]:
    matrix, labels = rows(task)
    target = Target(task)
    table = pa.table({f"x{at}": matrix[:, at] for at in range(wide)})
    frame = Frame(table, tuple(table.column_names), np.zeros(ROWS, np.int64), labels, np.zeros(ROWS, np.int64), target,
                  timed=False)  # fmt: skip
    inputs = InputSpec(tuple(Feature(f"x{at}", "number") for at in range(wide)))
    train = Examples(matrix[:200], labels[:200], target)
    validate = Examples(matrix[200:], labels[200:], target)
    return Problem(inputs, train, validate, {}, 0), TrainingRows(SPLIT, frame, np.arange(200))


def found_by(recipe: Recipe, task: str = "binary", *, engine: str = "inline", wide: int = 4, **settings):
    problem, training = problem_of(task, wide)
    recipe = replace(recipe, tune=replace(recipe.tune, engine=engine))
    return search(recipe, problem, training, tell=lambda *_: None, **settings)


def test_the_first_trial_is_the_recipe_as_written_and_the_best_is_never_worse_on_the_folds():
    recipe = Recipe("logistic", SPLIT, params={"penalty": 300.0},
                    tune=Tune(trials=6, space={"penalty": (1e-3, 1e3, "log")}, folds=3))  # fmt: skip
    found = found_by(recipe)
    first, report = found.trials[0], found.report
    assert first.choice == {}
    assert first.state == "finished"
    assert report["default"]["number"] == 0
    assert len(found.trials) == 6 == sum(report[state] for state in ("finished", "pruned", "failed"))
    assert report["best"]["value"] <= first.value
    assert report["better"] == "lower"
    assert report["metric"] == "log loss"
    assert all(1e-3 <= trial.choice["logistic.penalty"] <= 1e3 for trial in found.trials[1:])
    assert report["best"]["value"] == pytest.approx(np.mean(report["best"]["folds"]))
    assert report["best"]["std"] == pytest.approx(np.std(report["best"]["folds"], ddof=1))


def test_a_trial_is_worth_what_scikit_learn_says_of_the_same_folds():
    recipe = Recipe(LogisticRegression(C=0.1), SPLIT, tune=Tune(trials=1, space={"C": (0.01, 10.0)}, folds=4))
    found = found_by(recipe)
    problem, training = problem_of()
    matrix, labels = problem.train.matrix, problem.train.labels
    losses = []
    for fit, judge in training.folds(4):
        scores = LogisticRegression(C=0.1).fit(matrix[fit], labels[fit]).predict_proba(matrix[judge])[:, 1]
        losses.append(-np.mean(np.log(np.where(labels[judge] == 1, scores, 1 - scores))))
    assert found.trials[0].folds == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize(("metric", "higher"), [("auc", True), ("brier", False)])
def test_the_best_is_the_one_that_the_metric_calls_best(metric, higher):
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=5, metric=metric, folds=3, pruner="none"))
    found = found_by(recipe)
    values = [trial.value for trial in found.trials]
    assert found.report["best"]["value"] == (max(values) if higher else min(values))


def test_features_are_selected_anew_in_each_fold_from_its_fitted_rows(monkeypatch):
    """With two hundred columns of noise and labels of noise, the best by all rows would do better than chance."""
    rng = np.random.default_rng(5)
    matrix, labels = rng.normal(size=(ROWS, 200)), (rng.random(ROWS) < 0.5).astype(float)
    monkeypatch.setattr(sys.modules[__name__], "rows", lambda _task: (matrix, labels))
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=4, sampler="grid", folds=4, pruner="none",
                                                 space={"select": ["all", 5]}))  # fmt: skip
    found = found_by(recipe, wide=200)
    assert [trial.choice.get("select") for trial in found.trials] == [None, "all", 5]
    assert all(trial.value > 0.69 for trial in found.trials), found.trials  # ln 2 is what a coin costs


def test_the_top_features_are_those_that_tell_not_the_first_ones():
    recipe = Recipe("logistic", SPLIT, tune=Tune(space={"select": ["all", 2]}))
    problem, training = problem_of()
    turned = replace(problem, train=replace(problem.train, matrix=problem.train.matrix[:, ::-1].copy()))
    fitted = fit_recipe(recipe.tune.concrete(recipe, {"select": 2}), turned, training, lambda *_: None)
    lost = fitted.engine.scores(turned.train.matrix * [0.0, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(lost, fitted.engine.scores(turned.train.matrix))  # the first two are not read
    assert recipe.tune.concrete(recipe, {"select": "importance"}).prepare == (Select.permutation(),)
    assert recipe.tune.concrete(recipe, {"select": "all"}).prepare == ()


@pytest.mark.parametrize("scaler", ["standard", "min_max", "none"])
def test_a_scaler_that_is_searched_is_one_that_is_applied(scaler):
    problem, training = problem_of()
    scales = {"standard": [StandardScaler()], "min_max": [MinMaxScaler()], "none": []}[scaler]
    wide = replace(problem, train=replace(problem.train, matrix=problem.train.matrix * [1.0, 50.0, 0.1, 7.0]))
    recipe = Recipe("knn", SPLIT, params={"n_neighbors": 7, "scaler": scaler})
    ours = fit_recipe(recipe, wide, training, lambda *_: None).engine.scores(wide.train.matrix + 0.3)
    theirs = make_pipeline(*scales, KNeighborsClassifier(7, weights="distance"))
    theirs.fit(wide.train.matrix, wide.train.labels)
    assert ours == pytest.approx(theirs.predict_proba(wide.train.matrix + 0.3)[:, 1])
    assert "scaler" in {one.name.partition(".")[2] for one in Tune().dimensions(Recipe("knn"))}


@pytest.mark.parametrize(("estimator", "space", "task"), [
    ("svm", {"epsilon": (0.01, 1.0)}, "binary"), ("extra_trees", {"class_weight": ["balanced", None]}, "regression"),
])  # fmt: skip
def test_a_parameter_that_only_the_other_class_reads_is_refused(estimator, space, task):
    """One list of parameters serves classifier and regressor: what varied and changed nothing would look chosen."""
    recipe = Recipe(estimator, SPLIT, tune=Tune(trials=3, folds=2, space=space))
    with pytest.raises(DefinitionError, match="reads for the task"):
        found_by(recipe, task)
    other = "regression" if task == "binary" else "binary"
    assert len(found_by(recipe, other).trials) >= 2


def test_a_metric_that_the_task_does_not_measure_is_refused():
    with pytest.raises(DefinitionError, match="must be one that the task measures"):
        found_by(Recipe("logistic", SPLIT, tune=Tune(trials=2, metric="rmse", folds=2)))


def test_one_search_made_twice_makes_the_same_trials_and_another_seed_makes_others():
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=12, folds=2))
    one, again = found_by(recipe), found_by(recipe)
    other = found_by(replace(recipe, seed=5))
    assert [trial.choice for trial in one.trials] == [trial.choice for trial in again.trials]
    assert [trial.folds for trial in one.trials] == [trial.folds for trial in again.trials]
    assert [trial.choice for trial in one.trials][1:] != [trial.choice for trial in other.trials][1:]


def test_a_search_that_was_stopped_anywhere_goes_on_to_the_same_trials(tmp_path):
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=12, folds=2))
    whole = found_by(recipe)
    for kept in (1, 5, 11):
        journal = Journal(tmp_path / str(kept))
        for trial in whole.trials[:kept]:
            journal.append(trial, None)
        with (journal.folder / "trials.jsonl").open("ab") as file:
            file.write(b'{"number": 99, "cho')  # a line that a kill tore
        resumed = found_by(recipe, journal=journal)
        assert [trial.choice for trial in resumed.trials] == [trial.choice for trial in whole.trials]
        assert resumed.choice == whole.choice
        lines = (journal.folder / "trials.jsonl").read_text().splitlines()
        assert [json.loads(line)["number"] for line in lines] == list(range(12))


@pytest.mark.parametrize("metric", ["aucc", "calibration_ratio"])
def test_a_metric_that_nothing_is_better_by_is_refused_where_it_is_written(metric):
    with pytest.raises(InputError):
        Tune(metric=metric)


@pytest.mark.parametrize("change", ["value", "choice", "outputs", "order", "removed"])
def test_an_altered_journal_is_fitted_again_from_there(tmp_path, change):
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=6, folds=2, pruner="none", ensemble=True))
    first = found_by(recipe, journal=Journal(tmp_path / "search", b"secret"))
    path = tmp_path / "search" / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    body = json.loads(lines[2])
    match change:
        case "value":
            lines[2] = lines[2].replace(json.dumps(body["folds"]), "[0.05, 0.05]")
        case "choice":
            lines[2] = lines[2].replace('"logistic.penalty": ', '"logistic.penalty": 9')
        case "outputs":
            np.savez(tmp_path / "search" / "2.npz", np.zeros(100), np.zeros(100))
        case "order":
            lines[1], lines[2] = lines[2], lines[1]
        case "removed":
            del lines[2]
    path.write_text("".join(lines))
    again = found_by(recipe, journal=Journal(tmp_path / "search", b"secret"))
    assert again.choice == first.choice
    assert [trial.folds for trial in again.trials] == [trial.folds for trial in first.trials]
    assert len(Journal(tmp_path / "search", b"secret").read()) == 6
    assert Journal(tmp_path / "search", b"another").read() == []


def test_a_pipe_in_the_place_of_a_journal_is_refused(tmp_path):
    journal = Journal(tmp_path / "search")
    os.mkfifo(tmp_path / "search" / "trials.jsonl")
    with pytest.raises((RetrodictError, OSError)):
        found_by(Recipe("logistic", SPLIT, tune=Tune(trials=2, folds=2)), journal=journal)


def test_first_proposals_are_drawn_apart_and_another_seed_is_another_search():
    space = {"prepare": [[], [Scale("standard")]], "half_life": ["30d", None], "penalty": (0.01, 10.0, "log")}
    drawn = {}
    for seed in (0, 1):
        tune = Tune(trials=9, sampler="random", space=space, folds=2)
        found = found_by(Recipe("logistic", SPLIT, seed=seed, tune=tune))
        drawn[seed] = [trial.choice for trial in found.trials[1:]]
    assert len({(choice["prepare"], choice["half_life"]) for choice in drawn[0]}) > 2
    values = [{choice["logistic.penalty"] for choice in choices} for choices in drawn.values()]
    assert not values[0] & values[1]


def test_a_member_with_a_search_of_its_own_is_refused():
    with pytest.raises(DefinitionError, match="tune"):
        Stack([Recipe("decision_tree", tune=Tune(trials=2)), "logistic"])


def test_each_combination_of_a_grid_is_tried_once_and_then_it_ends():
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=50, sampler="grid", folds=2, pruner="none", space={
        "penalty": [0.1, 1.0], "l1_ratio": [0.0, 0.5, 1.0]}))  # fmt: skip
    found = found_by(recipe)
    tried = [tuple(trial.choice.values()) for trial in found.trials[1:]]
    assert sorted(tried) == sorted((p, l1) for p in (0.1, 1.0) for l1 in (0.0, 0.5, 1.0))
    assert found.report["stopped"] == "each combination was tried"


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_samplers_propose_within_the_space(sampler):
    space = {"penalty": (0.01, 10.0, "log"), "l1_ratio": (0.0, 1.0)}
    found = found_by(Recipe("logistic", SPLIT, tune=Tune(trials=6, sampler=sampler, folds=2, space=space)))
    for trial in found.trials[1:]:
        assert 0.01 <= trial.choice["logistic.penalty"] <= 10.0
        assert 0.0 <= trial.choice["logistic.l1_ratio"] <= 1.0


@pytest.mark.parametrize("pruner", ["median", "hyperband", "wilcoxon", "none"])
def test_pruned_trials_are_kept_and_counted_and_are_never_the_best(pruner):
    space = {"penalty": (1e-3, 1e6, "log")}
    found = found_by(Recipe("logistic", SPLIT, tune=Tune(trials=14, pruner=pruner, folds=4, space=space)))
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert found.report["pruned"] == len(pruned)
    assert pruner != "none" or not pruned
    assert all(len(trial.folds) < 4 and trial.value is None for trial in pruned)
    assert found.report["best"]["state"] == "finished"


def test_how_features_are_prepared_is_searched_first_then_the_estimator():
    space = {"prepare": [[], [Scale("standard")], [Select.mutual_information(2)]], "penalty": (0.01, 10.0, "log")}
    tune = Tune(trials=9, search="sequential", space=space, folds=2, pruner="none")
    found = found_by(Recipe("logistic", SPLIT, tune=tune))
    first = [trial for trial in found.trials if trial.phase == 0]
    second = [trial for trial in found.trials if trial.phase == 1]
    best = min(first, key=lambda trial: trial.value)
    assert {trial.choice.get("prepare") for trial in first[1:]} <= {
        "none",
        "scale standard",
        "select mutual_information",
    }
    assert all("logistic.penalty" not in trial.choice for trial in first)
    assert second
    assert all(trial.choice.get("prepare") == best.choice.get("prepare") for trial in second)


def test_a_nested_search_tunes_the_estimator_for_each_way_to_prepare():
    space = {"prepare": [[], [Scale("standard")]], "penalty": (0.01, 10.0, "log")}
    tune = Tune(trials=8, search="nested", space=space, folds=2)
    found = found_by(Recipe("logistic", SPLIT, tune=tune))
    ways = [trial.choice["prepare"] for trial in found.trials if trial.choice]
    assert ways == sorted(ways, key=["none", "scale standard"].index)
    assert len(set(ways)) == 2


def test_estimators_and_their_own_parameters_are_searched_together():
    space = {"estimator": ["logistic", Recipe("decision_tree", params={"min_samples_leaf": 3})],
             "decision_tree.max_depth": (1, 4)}  # fmt: skip
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=12, space=space, folds=2))
    found = found_by(recipe)
    for trial in found.trials[1:]:
        names = {name for name in trial.choice if name != "estimator"}
        expected = set() if trial.choice["estimator"] == "logistic" else {"decision_tree.max_depth"}
        assert names == expected
    chosen = recipe.tune.concrete(recipe, {"estimator": "decision_tree", "decision_tree.max_depth": 2})
    assert chosen.estimator == "decision_tree"
    assert chosen.params == {"min_samples_leaf": 3, "max_depth": 2}
    assert chosen.tune is None
    assert chosen.split == SPLIT


def test_members_of_an_ensemble_are_tuned_where_they_stand():
    recipe = Recipe(Stack(["logistic", Recipe("decision_tree", params={"max_depth": 2})]), SPLIT,
                    tune=Tune(trials=4, folds=2))  # fmt: skip
    assert {one.name.partition(".")[0] for one in recipe.tune.dimensions(recipe)} == {"logistic", "decision_tree"}
    chosen = recipe.tune.concrete(recipe, {"logistic.penalty": 0.5})
    assert chosen.estimator.members[0].params == {"penalty": 0.5}
    assert chosen.estimator.members[1].params == {"max_depth": 2}


def test_parameters_inside_a_scikit_learn_object_are_set_as_set_params_has_them():
    recipe = Recipe(Ridge(), SPLIT, tune=Tune(trials=3, space={"alpha": (0.1, 10.0)}, folds=2))
    chosen = recipe.tune.concrete(recipe, {"ridge.alpha": 4.0})
    assert chosen.estimator.build(seed=0).alpha == 4.0
    assert found_by(recipe, "regression").report["metric"] == "squared error"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": {"num_leafs": (2, 8)}}, "num_leaves"),
        ({"space": {"num_leaves": (8, 2)}}, "a space must be"),
        ({"space": {"num_leaves": (0, 8, "log")}}, "a space must be"),
        ({"space": {"num_leaves": []}}, "a space must be"),
        ({"space": {"logistic.penalty": (1.0, 2.0)}}, "must be of what the recipe reads"),
        ({"space": {"prepare": "scale"}}, "must be a list"),
        ({"trials": 0}, "trials must be a whole number of at least 1"),
        ({"folds": 1}, "folds must be a whole number of at least 2"),
        ({"search": "random"}, "search must be one of"),
        ({"sampler": "bayes"}, "sampler must be one of"),
        ({"timeout": "0s"}, "longer than nothing"),
        ({"jobs": 10**6}, "at most 256"),
        ({"space": {5: [1]}}, "mapping of names"),
        ({"space": {"prepare": [Scale("standard")]}}, "must be a list of steps"),
        ({"space": {"prepare": [None, []]}}, "must be a list of steps"),
        ({"space": {"select": ["all", 0]}}, "a number of at least 1, 'all' or 'importance'"),
        ({"ensemble": ["best"]}, "must be made in a way that there is"),
    ],
)
def test_a_search_that_could_not_be_made_is_refused_where_it_is_written(settings, message):
    with pytest.raises(DefinitionError, match=message):
        Recipe("lightgbm", SPLIT, tune=Tune(**settings))


def test_what_nothing_could_vary_is_refused():
    with pytest.raises(DefinitionError, match="something must vary"):
        Recipe(Ridge(), SPLIT, tune=Tune(trials=3))


def test_a_failing_configuration_is_kept_with_its_error_and_skipped():
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=6, folds=2, sampler="grid", space={
        "prepare": [[], [Select.mutual_information(9)]]}))  # fmt: skip
    found = found_by(recipe)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    if failed:  # nine of four columns
        assert failed[0].error
        assert "trials failed" in found.warnings[0]
    assert found.report["best"]["choice"].get("prepare", "none") == "none" or not failed


def test_a_search_whose_trials_all_fail_says_why():
    with pytest.raises(InputError, match="each of its trials failed"):
        found_by(Recipe("poisson", SPLIT, tune=Tune(trials=2, folds=2)), "binary")


def test_rows_that_judge_a_fold_are_never_fitted_on(monkeypatch):

    seen, fit_fold = [], workers.fit_fold

    def watched(job, choice, fold):
        seen.append([set(places.tolist()) for places in job.folds[fold]])
        return fit_fold(job, choice, fold)

    monkeypatch.setattr(workers, "fit_fold", watched)
    found_by(Recipe("logistic", SPLIT, tune=Tune(trials=2, folds=3, pruner="none")))
    assert len(seen) == 6
    assert all(not fit & judge for fit, judge in seen)
    assert set.union(*(judge for _, judge in seen[:3])) == set(range(200))


def test_a_process_that_ends_in_a_fit_fails_its_trial_alone(monkeypatch):
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=3, folds=2))

    class Dying(workers._Processes):
        died = False

        def submit(self, choice, fold):
            future = super().submit(choice, fold)
            if choice and not Dying.died:
                Dying.died = True
                time.sleep(0.3)
                for process in self._pool._processes.values():
                    os.kill(process.pid, signal.SIGKILL)
            return future

    monkeypatch.setattr(workers, "_Processes", Dying)
    found = found_by(recipe, engine="processes")
    assert Dying.died
    assert len(found.trials) == 3
    assert sum(trial.state == "finished" for trial in found.trials) >= 2
    assert [trial.error for trial in found.trials if trial.state == "failed"] in (
        [], ["the process that fitted it ended"])  # fmt: skip


def test_time_that_is_over_ends_a_search_with_the_best_so_far():
    recipe = Recipe("lightgbm", SPLIT, tune=Tune(trials=500, timeout="4s", folds=2))
    began = time.monotonic()
    found = found_by(recipe, engine="processes")
    assert time.monotonic() - began < 60
    assert len(found.trials) < 500
    assert found.report["stopped"] == "4s were over"


def test_an_ensemble_is_judged_on_rows_that_did_not_choose_its_weights():
    """A member that knows the answers of a fold by chance must not lift the ensemble's value on that fold."""
    space = {"estimator": ["logistic", "decision_tree"]}
    found = found_by(Recipe("logistic", SPLIT, tune=Tune(trials=6, folds=3, space=space, ensemble=["greedy", "vote"],
                                                         pruner="none")))  # fmt: skip
    assert set(found.report["ensembles"]) <= {"greedy", "vote"}
    joined, finished = found.report["ensembles"], [one.folds for one in found.trials if one.state == "finished"]
    assert joined
    alone = np.mean([min(finished, key=lambda folds: sum(folds) - folds[fold])[fold] for fold in range(3)])
    assert found.report["alone"] == pytest.approx(alone)
    if "members" in found.choice:
        assert min(joined.values()) < alone
        assert sum(found.choice["weights"]) == pytest.approx(1)
    else:
        assert all(value >= alone for value in joined.values())


@pytest.mark.parametrize("higher", [False, True])
def test_an_ensemble_is_compared_with_trials_that_the_fold_did_not_choose(higher):
    """Two trials, each the best by one lucky fold: on the folds that did not choose it, each is the worse."""
    module = importlib.import_module("retrodict.learning.study.search")
    sign = -1 if higher else 1
    trials = [StudyTrial(at, 0, {"estimator": str(at)}, "finished", tuple(sign * value for value in folds))
              for at, folds in enumerate([(0.1, 0.8), (0.8, 0.2)])]  # fmt: skip
    search = object.__new__(module._Search)
    search.ranking, search.higher = trials, higher
    assert search._alone() == pytest.approx(sign * 0.8)


def test_a_choice_of_members_becomes_a_weighted_vote():
    recipe = Recipe("auto", SPLIT, budget="1m")
    choice = {"how": "greedy", "weights": [0.75, 0.25],
              "members": [{"estimator": "logistic", "logistic.penalty": 2.0}, {"estimator": "lightgbm"}]}  # fmt: skip
    chosen = recipe.tune.concrete(recipe, choice)
    assert chosen.estimator.weights == (0.75, 0.25)
    assert chosen.tune is None
    assert chosen.budget is None
    assert chosen.estimator.members[0].params == {"penalty": 2.0}


def test_auto_must_be_told_how_long_and_a_budget_is_of_auto_alone():
    with pytest.raises(DefinitionError, match="must be told how long"):
        Recipe("auto", SPLIT)
    with pytest.raises(DefinitionError, match="a budget must be of the estimator 'auto'"):
        Recipe("lightgbm", SPLIT, budget="1m")
    assert Recipe("auto", SPLIT, budget="1m") == replace(Recipe("auto", SPLIT, budget="1m"), seed=0)


def test_a_tune_around_a_recipe_is_the_recipe_with_the_tune():
    table = Table("loans", key="id")
    label = Label("bad", table, "bad")
    inside = Recipe("logistic", SPLIT, tune=Tune(trials=5))
    models = [Model("loan", label=label, features=[columns("x0")], recipe=recipe)
              for recipe in (inside, Tune(Recipe("logistic", SPLIT), trials=5))]  # fmt: skip
    assert models[0] == models[1]
    assert models[0].version == models[1].version


@pytest.mark.slow
def test_a_search_on_ray_makes_the_trials_of_one_in_this_process_and_goes_on_after_a_kill(tmp_path):
    """Same journal and same proposals; what a killed process left in the journal is not fitted again."""
    pytest.importorskip("ray", reason="the extra ray: make ray")
    recipe = Recipe("logistic", SPLIT, tune=Tune(trials=6, folds=2))
    whole = found_by(recipe)
    journal = Journal(tmp_path / "search")
    for trial in whole.trials[:3]:
        journal.append(trial, None)
    resumed = found_by(recipe, engine="ray", journal=journal)
    assert [trial.choice for trial in resumed.trials] == [trial.choice for trial in whole.trials]
    values = [[value for trial in search.trials for value in trial.folds] for search in (resumed, whole)]
    assert values[0] == pytest.approx(values[1])
    assert [trial.seconds for trial in resumed.trials[:3]] == [trial.seconds for trial in whole.trials[:3]]
    assert resumed.choice == whole.choice
    two = found_by(replace(recipe, tune=replace(recipe.tune, jobs=2)), engine="ray")
    assert len(two.trials) == 6
    assert len({json.dumps(trial.choice) for trial in two.trials}) == 6


# -- in a project -----------------------------------------------------------------------------------------------------

_PROJECT = """
from retrodict import Label, Model, Project, RandomSplit, Recipe, Table, Tune, columns
loans = Table("loans", key="id")
loan = Model("loan", label=Label("bad", loans, "bad"), features=[columns("x0", "x1", "x2", "x3")],
             recipe=Recipe("logistic", RandomSplit(), tune=Tune(trials={trials}, folds=2)))
"""


def make(folder: Path, trials: int = 5) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "retrodict.toml").write_text('[project]\nname = "loans"\n')
    (folder / "definitions.py").write_text(_PROJECT.format(trials=trials))
    project = Project(folder)
    matrix, labels = rows()
    table = pa.table({"id": np.arange(ROWS), **{f"x{at}": matrix[:, at] for at in range(4)}, "bad": labels == 1})
    project.data.ingest("loans", table)
    return project


def test_a_tuned_run_is_recorded_with_its_trials_replays_exactly_and_leaves_nothing_behind(tmp_path):
    with make(tmp_path) as project:
        run = project.train("loan")
        notes = run.record.summary["notes"]["tuning"]
        trials = [record for record in project_runs(project, "trial") if record.parent == run.record.id]
        assert notes["best"]["value"] in [record.values("folds").get("log_loss") for record in trials]
        assert run.record.kind == "tune"
        assert len(trials) == notes["trials"] == 5
        assert {record.tags["state"] for record in trials} <= {"finished", "pruned", "failed"}
        assert [record.ref for record in project_runs(project, None)] == [run.ref]  # trials only when asked for
        assert run.params["choice"] == notes["choice"]
        replay = run.replay()
        assert replay.verdict == "exact", replay.reason
        assert "<svg" in str(run.plot("trials"))
        assert "<svg" in str(run.plot("slice logistic.penalty"))
        assert not list((tmp_path / "state" / "searches").iterdir())
        assert project.audit().ok
        assert "as written" in str(run)


def test_a_search_too_short_for_a_trial_trains_the_recipe_as_it_is_written(tmp_path):
    with make(tmp_path) as project:
        run = project.tune("loan", timeout="1us")
        assert run.record.summary["notes"]["tuning"]["trials"] == 0
        assert any("nothing was chosen" in warning for warning in run.warnings)
        assert run.replay().verdict == "exact"
        assert project.audit().ok


def test_a_choice_altered_in_the_records_is_not_what_is_replayed(tmp_path):
    with make(tmp_path) as project:
        run = project.train("loan")
        with project.workspace.records.write() as connection:
            altered = {**run.params, "choice": {"logistic.penalty": 123.0}}
            connection.execute(update(runs).where(runs.c.id == run.record.id).values(params=json.dumps(altered)))
        replay = project.replay_run(run.ref)
        assert not replay.compared["row in the records"]["equal"]
        assert replay.compared["trees"]["equal"]


def test_an_altered_search_index_is_named_by_the_audit(tmp_path):
    from retrodict.learning.runs.schema import values

    with make(tmp_path) as project:
        run = project.train("loan")
        assert project.audit().ok
        of_area = (values.c.run == run.record.id) & (values.c.name == "auc") & (values.c.scope == "metric:test")
        for statement in (update(values).where(of_area).values(number=0.999), delete(values).where(of_area)):
            with project.workspace.records.write() as connection:
                connection.execute(statement)
            report = project.audit()
            assert not report.ok
            assert any(run.ref in finding.where for finding in report.findings)


def project_runs(project: Project, kind: str | None):
    from retrodict.learning.runs import LISTED, list_runs

    return list_runs(project.workspace, kinds=(kind,) if kind else LISTED)


@pytest.mark.parametrize("auto", [False, True])
def test_estimators_are_compared_beside_a_recipe_that_searches(tmp_path, auto):
    """Each as it comes, without the search and its budget, which none of them has."""
    make(tmp_path).close()
    if auto:
        written = 'Recipe("logistic", RandomSplit(), tune=Tune(trials=5, folds=2))'
        text = (tmp_path / "definitions.py").read_text().replace(written, 'Recipe("auto", RandomSplit(), budget="10s")')
        (tmp_path / "definitions.py").write_text(text)
    with Project(tmp_path) as project:
        assert (project.definitions.get(Model, "loan").recipe.estimator == "auto") is auto
        compared = project.models.compare("loan", estimators=["logistic", "decision_tree"], folds=3)
        assert [len(trial.folds) for trial in compared.trials] == [3, 3], [trial.error for trial in compared.trials]


def test_what_is_said_at_the_call_holds_over_the_recipe_and_is_replayed(tmp_path):
    with make(tmp_path) as project:
        run = project.tune("loan", trials=3, metric="auc")
        notes = run.record.summary["notes"]["tuning"]
        assert notes["trials"] == 3
        assert notes["metric"] == "auc"
        assert run.params["tune"] == {"trials": 3, "metric": "auc"}
        (planned,) = project.plan().models
        assert planned.status == "as trained, other arguments"  # and not "changed": nobody changed the definition
        assert not any("train" in command for command in project.plan().next())
        card = project.models.card(run.version.ref).to_dict()["sections"]["Limits"]
        rows_of = run.record.data["rows"]
        assert f"Learned from {rows_of['train']:,} rows and judged on {rows_of['test']:,}" in str(card)
        assert run.replay().verdict == "exact"


def _children(parent: int) -> list[int]:
    """Processes that another one began and that fit."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if (
                int(stat.read_text().rpartition(") ")[2].split()[1]) == parent
                and "LokyProcess" in (stat.parent / "cmdline").read_text()
            ):
                found.append(int(stat.parent.name))
    return found


def test_who_trains_the_same_at_the_same_time_waits_and_takes_what_the_first_one_found(tmp_path, monkeypatch):
    """The second one's trials are the first one's, to the microseconds of their fits."""
    from retrodict.learning import execution

    monkeypatch.setattr(execution, "_PATIENCE_S", 0.05)
    make(tmp_path, trials=6).close()
    waited, first_search, search_of = [], threading.Event(), execution.search

    def slow_search(*args, **settings):
        result = search_of(*args, **settings)
        if not first_search.is_set():
            first_search.set()
            second.start()
            while not waited:
                time.sleep(0.01)
        return result

    def train():
        with Project(tmp_path) as project:
            execution.train(project.workspace, "loan",
                            progress=lambda what, *_: waited.append(what) if "waits" in what else None)  # fmt: skip

    monkeypatch.setattr(execution, "search", slow_search)
    second = threading.Thread(target=train)
    with Project(tmp_path) as project:
        project.train("loan")
        second.join()
        assert "process" in waited[0]
        studies = {}
        for record in project_runs(project, "trial"):
            studies.setdefault(record.parent, []).append((record.params, record.seconds))
        assert len(studies) == 2
        one, other = studies.values()
        assert one == other
        assert len(one) == 6
        assert not list((tmp_path / "state" / "searches").iterdir())


def test_checkpoints_of_runs_that_finished_or_are_gone_are_removed_and_those_to_resume_are_kept(tmp_path):
    from retrodict.learning import execution
    from retrodict.learning.runs import list_runs

    with make(tmp_path, trials=2) as project:
        finished = project.train("loan").record.id
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(execution, "execute", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                execution.train(project.workspace, "loan")
        failed = next(run.id for run in list_runs(project.workspace) if run.status == "failed")
        folder = tmp_path / "state" / "checkpoints"
        for name in (finished, failed, "01JGONE"):
            (folder / name / "part").mkdir(parents=True)
        project.train("loan", again=True)
        assert [path.name for path in folder.iterdir()] == [failed]


@pytest.mark.slow
def test_a_search_killed_five_times_ends_as_one_that_was_not(tmp_path):
    with make(tmp_path / "whole", trials=60) as project:
        whole = project.train("loan")
        expected = [record.params for record in reversed(project_runs(project, "trial"))]
        chosen = whole.params["choice"]
    make(tmp_path / "killed", trials=60).close()
    code = f"from retrodict import Project\nwith Project({str(tmp_path / 'killed')!r}) as p: p.train('loan')"
    searches = tmp_path / "killed" / "state" / "searches"
    for number in range(1, 6):
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            lines = sum(len(file.read_bytes().splitlines()) for file in searches.glob("*/trials.jsonl"))
            workers_left = _children(process.pid)
            if lines >= 10 * number and workers_left:
                break
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in workers_left) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert workers_left
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers_left)
    with Project(tmp_path / "killed") as project:
        run = project.train("loan")
        trials = [record.params for record in reversed(project_runs(project, "trial"))]
        assert trials == expected
        assert run.params["choice"] == chosen
        assert run.record.summary["fingerprint"] == whole.record.summary["fingerprint"]
        statuses = sorted(record.status for record in project_runs(project, None))
        assert statuses == ["failed"] * 5 + ["finished"]
        assert project.audit().ok
