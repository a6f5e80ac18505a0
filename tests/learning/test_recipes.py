"""What a recipe makes of a frame, against plain computations on the same rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.learning.frame import Frame
from retrodict.learning.recipes import Trained, run_recipe
from retrodict.models.definitions import Recipe
from retrodict.models.splits import TimeSplit

PARTS = {"train": np.arange(400), "validate": np.arange(400, 600), "test": np.arange(600, 800)}


@pytest.fixture(scope="module")
def frame() -> Frame:
    """Rows of three places, the last of which opens when training is over."""
    rng = np.random.default_rng(5)
    place, wind = rng.choice(["north", "south"], 800).astype(object), rng.normal(size=800)
    place[600:620] = "east"
    odds = 1.5 * wind + (place == "north") - 0.5
    labels = (rng.random(800) < 1 / (1 + np.exp(-odds))).astype(float)
    table = pa.table({"place": pa.array(place, pa.string()), "wind": wind})
    return Frame(table, ("place", "wind"), np.arange(800), labels, np.arange(800))


def run(frame: Frame, estimator: str = "logistic", **options: object) -> Trained:
    return run_recipe(Recipe(estimator, TimeSplit("2024-01-01/2024-02-01"), **options), frame, PARTS)


def raw_scores(trained: Trained, frame: Frame, part: str) -> np.ndarray:
    return trained.engine.scores(trained.inputs.encode_columns(frame.columns(PARTS[part])))


def test_probabilities_are_fitted_on_the_validation_rows(frame: Frame) -> None:
    """Against scikit-learn on those rows alone; a recipe without calibration leaves the scores."""
    trained, plain = run(frame, calibrate="isotonic"), run(frame, calibrate="none")
    fitted = IsotonicRegression(out_of_bounds="clip").fit(
        raw_scores(trained, frame, "validate"), frame.labels[PARTS["validate"]]
    )
    # No rate may be nearer to 0 or 1 than Platt's targets.
    positives = frame.labels[PARTS["validate"]].sum()
    bounds = 1 / (200 - positives + 2), (positives + 1) / (positives + 2)
    rates = np.clip(fitted.y_thresholds_, *bounds)
    expected = np.interp(raw_scores(trained, frame, "test"), fitted.X_thresholds_, rates)
    assert trained.test_scores == pytest.approx(expected)
    assert {0.0, 1.0} & set(fitted.predict(raw_scores(trained, frame, "test"))), "the bounds had something to do"
    assert plain.test_scores.tolist() == raw_scores(plain, frame, "test").tolist()
    assert (trained.params["calibrate"], plain.params["calibrate"]) == ("isotonic", "none")


def test_categories_are_those_of_the_training_rows(frame: Frame) -> None:
    """A place that opens later is unseen."""
    assert run(frame).inputs.features[0].vocabulary == ("north", "south")


def test_every_part_and_rung_is_judged_on_its_own_rows(frame: Frame) -> None:
    """Against scikit-learn; the group's rates are counted by hand, an unseen group gets that of all."""
    trained = run(frame, baseline_group="place", calibrate="none")
    assert set(trained.evaluations) == {
        *PARTS,
        *(f"test/{rung}" for rung in ("random", "majority", "last", "group_rate", "tree")),
    }
    place, labels = np.array(frame.table.column("place").to_pylist()), frame.labels
    known, overall = place[PARTS["train"]], labels[PARTS["train"]].mean()
    rates = {
        name: (labels[PARTS["train"]][known == name].sum() + 20 * overall) / ((known == name).sum() + 20)
        for name in ("north", "south")
    }
    expected = {f"{part}": raw_scores(trained, frame, part) for part in PARTS}
    expected["test/group_rate"] = np.array([rates.get(name, overall) for name in place[PARTS["test"]]])
    for name, scores in expected.items():
        truth = labels[PARTS[name.partition("/")[0]]]
        assert trained.evaluations[name].values()["auc"] == pytest.approx(roc_auc_score(truth, scores)), name
    assert trained.ladder is not None
    assert (trained.ladder.best, trained.ladder.verdict.status) == ("tree", "beats")


def test_the_parameters_of_a_recipe_reach_its_estimator(frame: Frame) -> None:
    """A strong penalty leaves next to nothing of the weights; what was in force is recorded."""
    free, held = (run(frame, params={"penalty": penalty}) for penalty in (0.1, 1e6))
    spread = [np.ptp(raw_scores(trained, frame, "test")) for trained in (free, held)]
    assert spread[0] > 0.5 > 0.01 > spread[1]
    assert (free.params["penalty"], held.params["penalty"]) == (0.1, 1e6)


def test_an_empty_part_is_named(frame: Frame) -> None:
    """With what to move."""
    parts = {**PARTS, "validate": np.arange(0)}
    with pytest.raises(InputError, match=r"at least one labelled row to validate on.*; got 0. Move the TimeSplit"):
        run_recipe(Recipe("logistic", TimeSplit("2024-01-01/2024-02-01")), frame, parts)


@pytest.mark.parametrize("estimator", ["lightgbm", "xgboost", "catboost", "logistic", "random_forest", "mlp"])
def test_numbers_too_large_to_square_are_refused_by_name(frame: Frame, estimator: str) -> None:
    """Features and labels of 1e300: whatever part they are in, an error of ours, never one of a library."""
    for part, rows in PARTS.items():
        wind = frame.table.column("wind").to_numpy().copy()
        wind[rows[:3]] = 1e300
        huge = replace(frame, table=frame.table.set_column(1, "wind", pa.array(wind)))
        with pytest.raises(InputError, match=r"feature 'wind'.*at most 1e30 in size; got '3 rows with a larger"):
            run(huge, estimator)
        assert part
    values = np.array(frame.table.column("wind")) * 1e300
    target = Target("regression")
    with pytest.raises(InputError, match="at most 1e30 in size"):
        run(replace(frame, labels=values, target=target), "linear" if estimator == "logistic" else estimator)


@pytest.mark.parametrize("estimator", ["lightgbm", "xgboost", "catboost", "linear", "random_forest"])
def test_numbers_as_large_as_they_may_be_are_learned(frame: Frame, estimator: str) -> None:
    """Up to 1e30, features and labels: finite values come out."""
    wind = frame.table.column("wind").to_numpy().copy()
    wind *= 1e30 / np.abs(wind).max()
    large = replace(frame, table=frame.table.set_column(1, "wind", pa.array(wind)), labels=wind.copy(),
                    target=Target("regression"))  # fmt: skip
    params = {"lightgbm": {"num_iterations": 5}, "xgboost": {"num_boost_round": 5}, "catboost": {"iterations": 5},
              "random_forest": {"n_estimators": 5}}  # fmt: skip
    assert np.isfinite(run(large, estimator, params=params.get(estimator, {})).test_scores).all()


def test_training_rows_with_one_outcome_are_a_warning(frame: Frame) -> None:
    """A number that never changes is learned without an error by anything."""
    constant = replace(frame, labels=np.full(800, 3.0), target=Target("regression"))
    assert any("nothing to learn" in sentence for sentence in run(constant, "ridge").warnings)
    varied = replace(frame, labels=np.arange(800.0), target=Target("regression"))
    assert not any("nothing to learn" in sentence for sentence in run(varied, "ridge").warnings)


def test_labels_that_are_known_at_the_decision_are_a_warning(frame: Frame) -> None:
    """At it or before it; not later, and not where labels have no time."""
    known_at = frame.at + 1
    assert not any("of their decision" in sentence for sentence in run(replace(frame, known_at=known_at)).warnings)
    known_at[:3] -= [1, 2, 3]
    (sentence,) = [one for one in run(replace(frame, known_at=known_at)).warnings if "of their decision" in one]
    assert sentence.startswith("3 of 800 labels are known at the moment of their decision or before it")
    none = replace(frame, known_at=np.zeros_like(known_at))
    assert not any("of their decision" in sentence for sentence in run(none).warnings)
