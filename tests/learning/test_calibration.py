"""Calibration that a recipe gets by itself: chosen on rows it was not fitted on, never certain, never on stop rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from retrodict.core.errors import InputError
from retrodict.learning.calibration import ISOTONIC_ROWS, calibrate, share_validation
from retrodict.learning.frame import Frame
from retrodict.learning.recipes import run_recipe
from retrodict.models.definitions import Recipe
from retrodict.models.engines import trees
from retrodict.models.splits import TimeSplit

SPLIT = TimeSplit("2024-01-01/2024-02-01")


def world(n: int, *, seed: int = 3, slope: float = 1.0, shift: float = -1.5):
    """Scores whose log-odds are ``slope`` times too steep and shifted, in order of time, each outcome known at once."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n) + shift
    labels = (rng.random(n) < expit(truth)).astype(float)
    at = np.arange(n, dtype=np.int64) * 10
    return expit(slope * truth), labels, at, at + 1


def test_recipes_calibrate_by_themselves():
    """A recipe that names nothing gets the automatic choice."""
    assert Recipe("logistic", SPLIT).calibrate == "auto"


def test_scores_that_are_right_stay_as_they_are_and_wrong_ones_are_mended():
    """Judged on 20,000 new rows of the same world, against scikit-learn's log loss."""
    fresh = world(20_000, seed=9)
    for seed in range(5):
        calibrator, _ = calibrate("auto", *world(400, seed=seed))
        assert log_loss(fresh[1], calibrator.apply(fresh[0])) < log_loss(fresh[1], fresh[0]) + 0.02
    wrong, fresh = world(400, slope=4.0), world(20_000, seed=9, slope=4.0)
    calibrator, calibration = calibrate("auto", *wrong)
    assert calibration.method == "sigmoid"
    assert log_loss(fresh[1], calibrator.apply(fresh[0])) < log_loss(fresh[1], fresh[0]) - 0.1


def test_the_choice_is_the_least_cross_validated_log_loss():
    """Where a sigmoid cannot bend the scores right, steps win, by the numbers that are recorded."""
    scores, labels, at, known_at = world(40_000)
    folded = np.where(scores < np.median(scores), 0.5 * scores, 1 - 0.5 * (1 - scores))
    _, calibration = calibrate("auto", folded, labels, at, known_at)
    assert calibration.method == "isotonic" == min(calibration.log_loss, key=calibration.log_loss.get)
    assert list(calibration.log_loss) == ["none", "sigmoid", "isotonic"]


@pytest.mark.parametrize("rare", [0, 1])
@pytest.mark.parametrize("rarer", [ISOTONIC_ROWS - 1, ISOTONIC_ROWS])
def test_isotonic_needs_a_thousand_rows_of_the_rarer_class(rarer: int, rare: int):
    """Below it is not even compared; a recipe that asks for it gets it."""
    rng = np.random.default_rng(0)
    labels = np.repeat([rare, 1.0 - rare], [rarer, 5_000])[rng.permutation(5_000 + rarer)]
    scores, at = rng.random(len(labels)), np.arange(len(labels))
    _, calibration = calibrate("auto", scores, labels, at, at)
    assert ("isotonic" in calibration.log_loss) is (rarer == ISOTONIC_ROWS)
    assert calibrate("isotonic", scores[:73], labels[:73], at[:73], at[:73])[1].method == "isotonic"


def test_methods_are_compared_on_rows_they_were_not_fitted_on():
    """Of probabilities that come true isotonic regression is always the best on its own rows, and never on others."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        scores, at = rng.uniform(0.2, 0.8, 3_000), np.arange(3_000)
        _, calibration = calibrate("auto", scores, (rng.random(3_000) < scores).astype(float), at, at)
        assert calibration.log_loss["isotonic"] > calibration.log_loss["none"]


def test_an_outcome_known_at_the_first_moment_of_a_fold_overlaps_it():
    """Known means strictly before; the last two rows are one moment, the others are known at it."""
    at, labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8]), np.tile([0.0, 1.0], 5)
    for known_at, compared in ((8, False), (7, True)):
        known = np.where(at < 8, np.maximum(at, known_at), 100)
        _, calibration = calibrate("auto", np.linspace(0.1, 0.9, 10), labels, at, known)
        assert bool(calibration.log_loss) is compared


def test_no_fold_is_judged_by_rows_whose_outcomes_overlap_it():
    """With every outcome known after the last row, nothing can be compared: scores stay as they are."""
    scores, labels, at, _ = world(400, slope=4.0)
    calibrator, calibration = calibrate("auto", scores, labels, at, np.full(400, at[-1] + 1))
    assert (calibration.method, calibration.log_loss) == ("none", {})
    assert calibrator.apply(scores).tolist() == scores.tolist()


@pytest.mark.parametrize("method", ["auto", "none", "sigmoid", "isotonic"])
def test_no_score_is_certain(method: str):
    """Seventy-three rows, 120 scores over the whole range, ends included; one by one as in a column."""
    scores, labels, at, known_at = world(73)
    calibrator, _ = calibrate(method, scores, labels, at, known_at)
    probes = np.concatenate([[0.0, 1.0, 1e-300, np.nextafter(1, 0)], np.linspace(0, 1, 116)])
    probabilities = calibrator.apply(probes)
    assert probabilities.min() > 0
    assert probabilities.max() < 1
    assert probabilities.tolist() == [calibrator.apply_one(score) for score in probes.tolist()]


def test_seventy_three_rows_do_not_make_a_model_worse():
    """Isotonic regression of so few turned a log loss of 0.42 into 1.36; the choice is no worse than none."""
    for seed in range(10):
        fresh = world(5_000, seed=100 + seed)
        calibrator, _ = calibrate("auto", *world(73, seed=seed))
        assert log_loss(fresh[1], calibrator.apply(fresh[0])) < log_loss(fresh[1], fresh[0]) + 0.05


def frame_of(n: int, seed: int = 1) -> Frame:
    rng = np.random.default_rng(seed)
    wind = rng.normal(size=n)
    labels = (rng.random(n) < expit(wind)).astype(float)
    at = rng.permutation(n).astype(np.int64)
    return Frame(pa.table({"wind": wind}), ("wind",), at, labels, at + 1)


PARTS = {"train": np.arange(300), "validate": np.arange(300, 420), "test": np.arange(420, 500)}


@pytest.mark.parametrize(
    ("estimator", "method", "stopping", "aside"),
    [("lightgbm", "auto", 60, 60), ("lightgbm", "isotonic", 60, 60), ("lightgbm", "none", 120, 120),
     ("logistic", "auto", 120, 120)],
)  # fmt: skip
def test_rows_that_stop_a_training_do_not_calibrate_it(monkeypatch, estimator, method, stopping, aside):
    """The earlier half in time stops, the later one calibrates; who needs one only has all rows."""
    frame, problems = frame_of(500), []
    monkeypatch.setattr(
        trees, "fit_lightgbm", lambda *args, _real=trees.fit_lightgbm, **kw: problems.append(args) or _real(*args, **kw)
    )
    recipe = Recipe(estimator, SPLIT, method, params={"num_threads": 1} if estimator == "lightgbm" else {})
    trained = run_recipe(recipe, frame, PARTS)
    assert trained.calibration.rows == aside
    if estimator == "lightgbm":
        ((_, _, valid),) = problems
        ordered = PARTS["validate"][np.argsort(frame.at[PARTS["validate"]])][:stopping]
        rows = frame.table.column("wind").to_numpy()
        assert sorted(valid.matrix[:, 0]) == sorted(rows[ordered])


def test_the_halves_of_validation_have_no_row_in_common():
    """Every row is in one of them, and no calibrating row is before a stopping one."""
    frame = frame_of(500)
    stopping, aside = share_validation(PARTS["validate"], frame.at)
    assert sorted([*stopping, *aside]) == PARTS["validate"].tolist()
    assert frame.at[stopping].max() < frame.at[aside].min()


def test_one_row_cannot_both_stop_and_calibrate():
    """With the remedy."""
    with pytest.raises(InputError, match=r"two labelled rows or more to validate on.*longer part to validate on"):
        run_recipe(Recipe("lightgbm", SPLIT), frame_of(500), {**PARTS, "validate": np.arange(300, 301)})


def test_a_model_that_tells_less_than_the_majority_is_warned_of():
    """The winds of the test rows mean the opposite: log losses by scikit-learn; an honest model has no warning."""
    frame = frame_of(500)
    assert run_recipe(Recipe("logistic", SPLIT), frame, PARTS).warnings == ()
    turned = frame.labels.copy()
    turned[PARTS["test"]] = 1 - turned[PARTS["test"]]
    trained = run_recipe(
        Recipe("logistic", SPLIT), Frame(frame.table, frame.features, frame.at, turned, frame.known_at), PARTS
    )
    truth = turned[PARTS["test"]]
    loss = log_loss(truth, trained.test_scores)
    majority = log_loss(truth, np.full(len(truth), turned[PARTS["train"]].mean()))
    assert loss > majority
    (warning,) = trained.warnings
    assert f"log loss of {loss:.4f} on the test rows is above the majority's {majority:.4f}" in warning
