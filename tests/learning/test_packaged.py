"""What a run says of packaged tables of scikit-learn, through the face: leaks, choices, thresholds, odd tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from retrodict import (
    Bagging,
    Balance,
    Impute,
    Label,
    Model,
    Project,
    RandomSplit,
    Recipe,
    Select,
    Stack,
    Table,
    Threshold,
    TimeSplit,
    columns,
)
from retrodict.core.errors import DefinitionError, InputError, RefusedError

FEW = ("mean_radius", "mean_texture", "mean_smoothness")


def columns_of(load: Callable[[], Any], names: tuple[str, ...] | None = None) -> tuple[dict[str, Any], np.ndarray]:
    data = load()
    table = {re.sub(r"\W+", "_", name).strip("_"): column
             for name, column in zip(data.feature_names, data.data.T, strict=True)}  # fmt: skip
    return {name: table[name] for name in names or table}, data.target


def opened(folder: Path, features: Any, recipe: Recipe, *, actor: str = "ana", label: str = "y = 1",
           **more: Any) -> Project:  # fmt: skip
    table = Table("rows", key="id")
    model = Model("m", label=Label("label", table, label), recipe=recipe, features=[columns(*features)], **more)
    return Project(folder, definitions=[table, model], actor=actor)


def trained(folder: Path, features: dict[str, Any], labels: Any, recipe: Recipe, **more: Any) -> Any:
    with opened(folder, features, recipe, **more) as project:
        project.data.ingest("rows", pa.table({"id": range(len(labels)), **features, "y": labels}))
        return project.train("m")


def logistic(**more: Any) -> Recipe:
    return Recipe("logistic", RandomSplit(), **more)


# leaks that are accepted ----------------------------------------------------------------------------------------------


def test_a_leak_is_accepted_of_a_feature_with_its_reason(tmp_path: Path) -> None:
    """Neither a warning nor counted; run, card, version and the entry of the approval have the reason."""
    features, labels = columns_of(load_breast_cancer)
    accept = {"worst_area": "measured before the biopsy", "worst_radius": "as the area", "mean_area": "in advance"}
    more = {"accept": accept, "gates": ["leaks <= 5"]}
    run = trained(tmp_path, features, labels, logistic(), **more)
    leaks = run.record.summary["leaks"]
    assert {leak["kind"] for leak in leaks} == {"single_feature"}
    reasons = {leak["feature"]: leak["accepted"] for leak in leaks if leak["accepted"] is not None}
    assert reasons == {name: accept[name] for name in ("worst_area", "worst_radius")}
    warned = {leak["feature"] for leak in leaks} - set(reasons)
    assert {word for sentence in run.warnings for word in re.findall(r"^Feature '(\w+)' alone", sentence)} == warned
    gates = {gate["gate"]: gate for gate in run.version.gates}
    assert (gates["leaks <= 5"]["value"], gates["leaks <= 5"]["status"]) == (len(warned), "pass")
    assert gates["accept(worst_area)"]["reason"].startswith("measured before the biopsy (Feature 'worst_area' alone")
    with opened(tmp_path, features, logistic(), actor="ben", **more) as project:
        assert "measured before the biopsy" in str(project.models.get("m@1"))
        rows = {row["feature"]: row for row in project.models.card("m@1").to_dict()["sections"]["Leaks"]}
        assert rows["worst_radius"]["accepted"] == "as the area"
        project.models.approve("m@1", reason="pilot")
        (entry,) = [entry for entry in project.ledger.log() if entry.action == "model.approve"]
        assert set(entry.payload["accepted"]) == {"accept(worst_area)", "accept(worst_radius)"}
        assert "measured before the biopsy" in entry.payload["accepted"]["accept(worst_area)"]


def test_what_is_no_feature_or_has_no_reason_is_not_accepted(tmp_path: Path) -> None:
    features, labels = columns_of(load_breast_cancer, FEW)
    for accept in ({"mean_radius": " "}, {"mean_radius": None}, ["mean_radius"], {3: "why"}):
        with pytest.raises(DefinitionError, match="accept must say of each feature why"):
            opened(tmp_path, features, logistic(), accept=accept)
    with pytest.raises(DefinitionError, match="a leak must be accepted of a feature of the model; got 'mean_radios'"):
        opened(tmp_path, features, logistic(), accept={"mean_radios": "why"})
    with pytest.raises(InputError, match="a leak must be accepted of a feature of the model; got 'mean_radios'"):
        whole_rows(tmp_path, {**features, "y": labels}, accept={"mean_radios": "why"})


def whole_rows(folder: Path, rows: dict[str, Any], **more: Any) -> Any:
    """Trained on all columns of the row, whichever they are."""
    table = Table("rows", key="id")
    model = Model("m", label=Label("label", table, "y = 1"), recipe=logistic(), features=[columns(exclude=["rest"])],
                  **more)  # fmt: skip
    with Project(folder, definitions=[table, model], actor="ana") as project:
        project.data.ingest("rows", pa.table({"id": range(len(rows["y"])), **rows, "rest": rows["y"]}))
        return project.train("m")


def test_copies_are_not_accepted_away(tmp_path: Path) -> None:
    features, labels = columns_of(load_breast_cancer, FEW)
    twice = {name: np.r_[values, values] for name, values in features.items()}
    run = trained(tmp_path, twice, np.r_[labels, labels], logistic(), accept=dict.fromkeys(FEW, "why"))
    (leak,) = [leak for leak in run.record.summary["leaks"] if leak["kind"] == "duplicates"]
    assert leak["accepted"] is None
    assert leak["sentence"] in run.warnings


# what was chosen, and what it brings ----------------------------------------------------------------------------------


def test_the_selected_features_are_in_the_run_its_parameters_and_the_card(tmp_path: Path) -> None:
    features, labels = columns_of(load_wine)
    recipe = logistic(prepare=[Impute(), Select.rfecv(min_features=3, step=4, folds=2)])
    run = trained(tmp_path, features, labels, recipe, label="y", task="multiclass")
    selected = run.params["selected"]
    assert 3 <= len(selected) <= len(features)
    assert set(selected) <= set(features)
    line = f"{len(selected)} of {len(features)} columns: "
    with opened(tmp_path, features, recipe, label="y", task="multiclass") as project:
        for text in (str(run), str(project.runs.get(run.ref)), project.models.card("m").markdown()):
            flat = " ".join(text.split())
            assert line in flat
            assert selected[-1] in flat[flat.index(line) :]
        assert project.models.card("m").to_dict()["sections"]["Training"]["selected"] == selected
        assert "<svg" in project.runs.get(run.ref).plot("elimination").svg
    assert run.replay().exact


def test_a_member_of_an_ensemble_says_what_it_selected(tmp_path: Path) -> None:
    features, labels = columns_of(load_breast_cancer, FEW)
    member = Recipe("logistic", prepare=[Select.mutual_information(2)])
    run = trained(tmp_path, features, labels, Recipe(Bagging([member], n=2), RandomSplit()))
    (params,) = run.params["members"].values()
    assert len(params["selected"]) == 2


@pytest.mark.parametrize(
    "recipe",
    [logistic(balance=Balance("class_weight")),
     Recipe("lightgbm", RandomSplit(), params={"num_iterations": 20}, balance=Balance("under"), refit=True),
     Recipe(Stack([Recipe("logistic", balance=Balance("over")), "naive_bayes"], folds=2), RandomSplit())],
    ids=["alone", "again", "member"],
)  # fmt: skip
def test_a_balanced_recipe_is_held_against_itself_without_balancing(tmp_path: Path, recipe: Recipe) -> None:
    """On the same rows, with PR-AUC, log loss and Brier score; the ladder says in words whether it was worth it."""
    features, labels = columns_of(load_breast_cancer, FEW)
    run = trained(tmp_path, features, labels, recipe)
    plain = run.record.values("test/unbalanced")
    assert {"pr_auc", "log_loss", "brier"} <= set(plain)
    row, *_ = [line for line in str(run).splitlines() if line.startswith("unbalanced ")]
    assert f"{plain['pr_auc']:.4f}" in row
    assert "better than the same recipe without balancing: AUC" in " ".join(str(run).split())
    if isinstance(recipe.estimator, str):
        alone = Recipe(recipe.estimator, recipe.split, params=recipe.params, refit=recipe.refit)
        other = trained(tmp_path / "plain", features, labels, alone)
        assert {name: plain[name] for name in ("auc", "log_loss")} == pytest.approx(
            {name: other.metrics[name] for name in ("auc", "log_loss")}
        )
        assert "test/unbalanced" not in {point.split for point in other.record.points}


def test_a_significantly_worse_model_is_called_worse(tmp_path: Path) -> None:
    """Iris by boosting: a small tree is better by more than the noise; the gate has the difference in its reason."""
    features, labels = columns_of(load_iris)
    gates = ["beats_ladder"]
    run = trained(tmp_path, features, labels, Recipe("lightgbm", RandomSplit()), label="y", task="multiclass",
                  gates=gates)  # fmt: skip
    text = " ".join(str(run).split())
    assert "The model is worse than a small tree: log loss" in text
    assert "The model is not better than logistic regression" in text
    assert "Prefer a small tree: it is better, by more than the noise." in text
    (gate,) = run.version.gates
    assert gate["status"] == "fail"
    assert gate["reason"].startswith("beats_ladder is false (does not beat: log loss 0.1"), gate


# thresholds -----------------------------------------------------------------------------------------------------------


def test_a_run_prints_what_its_threshold_does_on_the_test_rows(tmp_path: Path) -> None:
    """The figures of the run's metrics, with intervals; a run without a threshold has no such lines."""
    features, labels = columns_of(load_breast_cancer, FEW)
    run = trained(tmp_path, features, labels, logistic(threshold=Threshold.recall(0.9)))
    points = {point.name: point for point in run.record.points if point.split == "test"}
    with opened(tmp_path, features, logistic(threshold=Threshold.recall(0.9))) as project:
        for text in (str(run), str(project.runs.get(run.ref))):
            for name in ("precision", "recall", "f1"):
                point = points[name]
                assert re.search(rf"^{name} +{point.value:.4f} +{point.low:.4f} +{point.high:.4f}$", text, re.MULTILINE)
    assert "yes from" not in str(trained(tmp_path / "without", features, labels, logistic()))


def test_a_threshold_that_no_score_reaches_ends_in_a_run_that_cannot_be_approved(tmp_path: Path) -> None:
    """All that was trained is kept; it says what was reached."""
    features, _ = columns_of(load_breast_cancer, FEW)
    labels = np.random.default_rng(1).integers(0, 2, 569)
    recipe = logistic(threshold=Threshold.precision(1.0))
    run = trained(tmp_path, features, labels, recipe)
    assert run.status == "finished"
    assert run.metrics["auc"] is not None
    (gate,) = run.version.gates
    assert (gate["gate"], gate["status"]) == ("threshold", "fail")
    assert re.match(r"No threshold has precision of 1: the most is 0\.\d+\.", gate["reason"])
    assert any(sentence.startswith(gate["reason"]) and "cannot be approved" in sentence for sentence in run.warnings)
    assert "threshold  none. No threshold has precision of 1" in " ".join(str(run).split(" ")).replace("\n", " ")
    with opened(tmp_path, features, recipe, actor="ben") as project:
        assert "threshold" not in project.models.card("m").to_dict()["sections"]["Training"]
        with pytest.raises(RefusedError, match=r"every gate must have passed; got \{'threshold': 'fail'\}"):
            project.models.approve("m@1", reason="pilot")


def test_alarms_a_day_need_days(tmp_path: Path) -> None:
    """Refused where it is written; rows of one moment have no day either."""
    with pytest.raises(DefinitionError, match=r"alarms a day must be counted over days; got 'Threshold.alarms\(3\)'"):
        opened(tmp_path, FEW, logistic(threshold=Threshold.alarms(3)))
    cutoff = Threshold.alarms(3).choose(np.array([0.2, 0.9]), np.array([0.0, 1.0]))
    assert (cutoff.threshold, cutoff.reached) == (None, False)
    table = Table("rows", key="id", columns={"id": "int", "at": "time"})
    split = TimeSplit("2024-01-01/2024-02-01")
    Model("m", label=Label("l", table, "y = 1", known_at="at"), decide_at="at", features=[columns("x")],
          recipe=Recipe("logistic", split, threshold=Threshold.alarms(3)))  # fmt: skip


# odd tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rare", "listed"), [(28, "'yes' 4"), (None, "")])
def test_few_test_rows_of_an_outcome_are_a_warning(tmp_path: Path, rare: int | None, listed: str) -> None:
    features, labels = columns_of(load_breast_cancer, FEW)
    labels = labels if rare is None else (np.arange(569) % rare == 0) * 1
    warnings = trained(tmp_path, features, labels, logistic()).warnings
    few = [sentence for sentence in warnings if sentence.startswith("Few of the 114 test rows are of an outcome")]
    assert [f"({listed})" in sentence for sentence in few] == [True] * (rare is not None)


def test_few_test_rows_of_a_class_are_a_warning(tmp_path: Path) -> None:
    features, labels = columns_of(load_wine)
    run = trained(tmp_path, features, labels, logistic(), label="y", task="multiclass")
    assert any("36 test rows are of an outcome (2 10, 0 12, 1 14)" in sentence for sentence in run.warnings)


def test_no_positives_are_refused_with_a_remedy_for_the_table(tmp_path: Path) -> None:
    features, labels = columns_of(load_breast_cancer, FEW)
    with pytest.raises(InputError, match=r"got '341 rows, of which each is a no'\. Add rows of the other outcome"):
        trained(tmp_path, features, labels * 0, logistic())


def test_columns_that_tell_nothing_are_named_and_no_difference_is_made_up(tmp_path: Path) -> None:
    """A model that equals the majority is not said to be above it by two numbers that print alike."""
    _, labels = columns_of(load_breast_cancer, FEW)
    run = trained(tmp_path, {"same": np.ones(569), "empty": pa.nulls(569, pa.float64())}, labels, logistic())
    (warning,) = run.warnings
    assert warning == "'same', 'empty': the same value, or none, in every training row. It tells nothing: leave it out."


def test_unseen_categories_are_said(tmp_path: Path) -> None:
    """In the run, where test rows have them, and in the card, how they are read."""
    rng = np.random.default_rng(0)
    shop = np.array([f"s{number}" for number in rng.integers(0, 400, 2_000)])
    labels = rng.integers(0, 2, 2_000)
    run = trained(tmp_path, {"shop": shop, "x": rng.normal(size=2_000)}, labels, logistic())
    parts = RandomSplit().assign(_frame(labels), now=2)
    known = set(shop[parts["train"]])
    unseen = sum(name not in known for name in shop[parts["test"]])
    assert unseen > 4
    assert f"Feature 'shop' has a category in {unseen} of 400 test rows that was not learned" in " ".join(run.warnings)
    with opened(tmp_path, ("shop", "x"), logistic()) as project:
        features = {row["feature"]: row for row in project.models.card("m").to_dict()["sections"]["Features"]}
    assert features["shop"]["taken for"] == f"category ({len(known)}; another is read as missing)"
    assert features["x"]["taken for"] == "number"


def _frame(labels: np.ndarray) -> Any:
    from retrodict.learning.frame import Frame

    zeros = np.zeros(len(labels), dtype=np.int64)
    return Frame(pa.table({"x": labels}), ("x",), zeros, labels.astype(float), zeros, timed=False)


def test_a_table_whose_only_column_is_the_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="must read a column that is neither the key nor read by the label"):
        whole_rows(tmp_path, {"y": [0, 1] * 25})


# what a recipe cannot ask for -----------------------------------------------------------------------------------------


class Own(ClassifierMixin, BaseEstimator):
    def fit(self, matrix: Any, labels: Any) -> Own:
        return self

    def predict(self, matrix: Any) -> Any:
        return matrix[:, 0]


class OwnStep(TransformerMixin, BaseEstimator):
    def fit(self, matrix: Any, labels: Any = None) -> OwnStep:
        return self

    def transform(self, matrix: Any) -> Any:
        return matrix


TWO = [("a", LogisticRegression()), ("b", LogisticRegression(C=2.0))]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(Own(), RandomSplit()), r"got '.*Own'\. Register it with @estimator, and name it in the recipe"),
        (lambda: Recipe(make_pipeline(OwnStep(), LogisticRegression()), RandomSplit()),
         r"got '.*OwnStep'\. Take a transformer of scikit-learn, or write what it does as a derived feature"),
        (lambda: logistic(prepare=[OwnStep()]),
         r"got '.*OwnStep'\. Take a transformer of scikit-learn, or write what it does as a derived feature"),
        (lambda: Recipe(StackingClassifier(TWO), RandomSplit()),
         r"in the folds of the recipe's split; got 'StackingClassifier'\. Write Recipe\(Stack\("),
        (lambda: Recipe(make_pipeline(StackingClassifier(TWO, final_estimator=LogisticRegression())), RandomSplit()),
         r"in the folds of the recipe's split"),
        (lambda: Recipe(VotingClassifier(TWO), RandomSplit()),
         r"got 'VotingClassifier, which gives classes only'\. .* say voting='soft'"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_with_one_remedy(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()
    assert Recipe(VotingClassifier(TWO, voting="soft"), RandomSplit()).label == "votingclassifier"


@pytest.mark.parametrize(
    ("more", "recipe", "message"),
    [
        ({}, {"interval": 0.9}, "an interval must be of numbers or of several classes; got 'binary'"),
        ({"label": "y", "task": "multiclass"}, {"threshold": Threshold.recall(0.5)}, "must be of the score of a yes"),
        ({"label": "y", "task": "regression"}, {"balance": Balance("over")}, "rows to balance must be of classes"),
    ],
)
def test_what_a_task_does_not_have_is_refused_where_it_is_written(
    tmp_path: Path, more: Any, recipe: Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        opened(tmp_path, FEW, logistic(**recipe), **more)
