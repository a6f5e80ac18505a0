"""Calibration that a recipe gets by itself: chosen on rows it was not fitted on, never certain, never on stop rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from scipy.stats import sem
from sklearn.metrics import log_loss

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.learning.calibration import ISOTONIC_ROWS, SIGMOID_ROWS, _simplest, calibrate, calibration_folds
from retrodict.learning.frame import Frame
from retrodict.learning.recipes import run_recipe
from retrodict.models.calibration import load_calibrator
from retrodict.models.definitions import Recipe
from retrodict.models.engines import trees
from retrodict.models.splits import RandomSplit, TimeSplit, halves

SPLIT = TimeSplit("2024-01-01/2024-02-01")


def world(n: int, *, seed: int = 3, slope: float = 1.0, shift: float = -1.5):
    """Scores whose log-odds are ``slope`` times too steep and shifted, in order of time, each outcome known at once."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n) + shift
    labels = (rng.random(n) < expit(truth)).astype(float)
    at = np.arange(n, dtype=np.int64) * 10
    return expit(slope * truth), labels, at, at + 1


def chosen_for(method: str, scores, labels, at, known_at):
    """Calibration of rows whose folds are spans of time."""
    rows = Frame(pa.table({"at": at}), (), at, labels, known_at)
    return calibrate(method, scores, labels, calibration_folds(SPLIT, rows, np.arange(len(at))))


def test_recipes_calibrate_by_themselves():
    """A recipe that names nothing gets the automatic choice."""
    assert Recipe("logistic", SPLIT).calibrate == "auto"


def test_scores_that_are_right_stay_as_they_are_and_wrong_ones_are_mended():
    """Judged on 20,000 new rows of the same world, against scikit-learn's log loss."""
    fresh = world(20_000, seed=9)
    for seed in range(5):
        calibrator, _ = chosen_for("auto", *world(400, seed=seed))
        assert log_loss(fresh[1], calibrator.apply(fresh[0])) < log_loss(fresh[1], fresh[0]) + 0.02
    wrong, fresh = world(400, slope=4.0), world(20_000, seed=9, slope=4.0)
    calibrator, calibration = chosen_for("auto", *wrong)
    assert calibration.method == "sigmoid"
    assert log_loss(fresh[1], calibrator.apply(fresh[0])) < log_loss(fresh[1], fresh[0]) - 0.1


def test_the_choice_is_the_least_cross_validated_log_loss_where_it_is_least_beyond_chance():
    """Where a sigmoid cannot bend the scores right, steps win, by the numbers that are recorded."""
    scores, labels, at, known_at = world(40_000)
    folded = np.where(scores < np.median(scores), 0.5 * scores, 1 - 0.5 * (1 - scores))
    _, calibration = chosen_for("auto", folded, labels, at, known_at)
    assert calibration.method == "isotonic" == min(calibration.log_loss, key=calibration.log_loss.get)
    assert list(calibration.log_loss) == ["none", "sigmoid", "isotonic"]


def test_what_few_rows_say_by_chance_bends_no_scores():
    """Of probabilities that come true the sigmoid often seems better by a little, and never is on new rows."""
    fresh, seems, bent = world(20_000, seed=9), 0, 0
    for seed in range(60):
        _, calibration = chosen_for("auto", *world(150, seed=seed))
        losses = calibration.log_loss
        seems += losses["sigmoid"] < losses["none"]
        bent += calibration.method != "none"
        if losses["sigmoid"] < losses["none"] and calibration.method == "none":
            assert "simplest within one standard error of the least" in calibration.reason
            sigmoid, _ = chosen_for("sigmoid", *world(150, seed=seed))
            assert log_loss(fresh[1], sigmoid.apply(fresh[0])) > log_loss(fresh[1], fresh[0])
    assert seems >= 8
    assert bent <= seems / 2


def test_the_simplest_is_within_a_standard_error_of_the_least():
    """By scipy's standard error of the differences of rows, at its very edge."""
    random = np.random.default_rng(4)
    best, edge = random.random(50), random.normal(size=50)
    edge -= edge.mean()
    for times, expected in ((0.99, "none"), (1.01, "sigmoid")):
        losses = {"none": best + edge + times * sem(edge), "sigmoid": best}
        assert _simplest(losses) == expected
    assert _simplest({"none": best, "sigmoid": best}) == "none"
    assert _simplest({"none": np.array([1.0]), "sigmoid": np.array([0.5])}) == "sigmoid"
    assert _simplest({}) == "none"


@pytest.mark.parametrize("rare", [0, 1])
@pytest.mark.parametrize("rarer", [ISOTONIC_ROWS - 1, ISOTONIC_ROWS])
def test_isotonic_needs_a_thousand_rows_of_the_rarer_class(rarer: int, rare: int):
    """Below it is not even compared; a recipe that asks for it gets it."""
    rng = np.random.default_rng(0)
    labels = np.repeat([rare, 1.0 - rare], [rarer, 5_000])[rng.permutation(5_000 + rarer)]
    scores, at = rng.random(len(labels)), np.arange(len(labels))
    _, calibration = chosen_for("auto", scores, labels, at, at)
    assert ("isotonic" in calibration.log_loss) is (rarer == ISOTONIC_ROWS)
    assert chosen_for("isotonic", scores[:73], labels[:73], at[:73], at[:73])[1].method == "isotonic"


def test_methods_are_compared_on_rows_they_were_not_fitted_on():
    """Of probabilities that come true isotonic regression is always the best on its own rows, and never on others."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        scores, at = rng.uniform(0.2, 0.8, 3_000), np.arange(3_000)
        _, calibration = chosen_for("auto", scores, (rng.random(3_000) < scores).astype(float), at, at)
        assert calibration.log_loss["isotonic"] > calibration.log_loss["none"]


def test_an_outcome_known_at_the_first_moment_of_a_fold_overlaps_it():
    """Known means strictly before; the last two rows are one moment, the others are known at it."""
    at, labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8]), np.tile([0.0, 1.0], 5)
    for known_at, compared in ((8, False), (7, True)):
        known = np.where(at < 8, np.maximum(at, known_at), 100)
        _, calibration = chosen_for("auto", np.linspace(0.1, 0.9, 10), labels, at, known)
        assert bool(calibration.log_loss) is compared


def test_no_fold_is_judged_by_rows_whose_outcomes_overlap_it():
    """With every outcome known after the last row, nothing can be compared: scores stay as they are."""
    scores, labels, at, _ = world(400, slope=4.0)
    calibrator, calibration = chosen_for("auto", scores, labels, at, np.full(400, at[-1] + 1))
    assert (calibration.method, calibration.log_loss) == ("none", {})
    assert calibrator.apply(scores).tolist() == scores.tolist()


@pytest.mark.parametrize("method", ["auto", "none", "sigmoid", "isotonic"])
def test_no_score_is_certain(method: str):
    """Seventy-three rows, 120 scores over the whole range, ends included; one by one as in a column."""
    scores, labels, at, known_at = world(73)
    calibrator, _ = chosen_for(method, scores, labels, at, known_at)
    probes = np.concatenate([[0.0, 1.0, 1e-300, np.nextafter(1, 0)], np.linspace(0, 1, 116)])
    probabilities = calibrator.apply(probes)
    assert probabilities.min() > 0
    assert probabilities.max() < 1
    assert probabilities.tolist() == [calibrator.apply_one(score) for score in probes.tolist()]


def test_seventy_three_rows_do_not_make_a_model_worse():
    """Isotonic regression of so few turned a log loss of 0.42 into 1.36; the choice is no worse than none."""
    for seed in range(10):
        fresh = world(5_000, seed=100 + seed)
        calibrator, _ = chosen_for("auto", *world(73, seed=seed))
        assert log_loss(fresh[1], calibrator.apply(fresh[0])) < log_loss(fresh[1], fresh[0]) + 0.05


def frame_of(n: int, seed: int = 1) -> Frame:
    rng = np.random.default_rng(seed)
    wind = rng.normal(size=n)
    labels = (rng.random(n) < expit(wind)).astype(float)
    at = np.concatenate([low + rng.permutation(high - low) for low, high in ((0, 300), (300, 420), (420, n))])
    return Frame(pa.table({"wind": wind}), ("wind",), at, labels, at + 1)


PARTS = {"train": np.arange(300), "validate": np.arange(300, 420), "test": np.arange(420, 500)}


@pytest.mark.parametrize(
    ("estimator", "method", "more", "stopping", "aside"),
    [("lightgbm", "auto", {}, 60, 60), ("lightgbm", "isotonic", {}, 60, 60), ("lightgbm", "none", {}, 120, 120),
     ("logistic", "auto", {}, 120, 120), ("lightgbm", "auto", {"refit": True}, 120, 120),
     ("lightgbm", "auto", {"task": "regression"}, 120, 120),
     ("lightgbm", "auto", {"task": "regression", "interval": 0.9}, 60, 60)],
)  # fmt: skip
def test_rows_that_stop_a_training_do_not_calibrate_it(monkeypatch, estimator, method, more, stopping, aside):
    """The earlier half in time stops, the later one calibrates; who needs one only, or fits twice, has all rows."""
    more = dict(more)
    frame, problems = replace(frame_of(500), target=Target(more.pop("task", "binary"))), []
    monkeypatch.setattr(
        trees, "fit_lightgbm", lambda *args, _real=trees.fit_lightgbm, **kw: problems.append(args) or _real(*args, **kw)
    )
    recipe = Recipe(estimator, SPLIT, method, params={"num_threads": 1} if estimator == "lightgbm" else {}, **more)
    trained = run_recipe(recipe, frame, PARTS)
    assert trained.calibration.rows == aside
    if estimator == "lightgbm":
        _, _, valid = problems[0]
        ordered = PARTS["validate"][np.argsort(frame.at[PARTS["validate"]])][:stopping]
        rows = frame.table.column("wind").to_numpy()
        assert sorted(valid.matrix[:, 0]) == sorted(rows[ordered])


def test_the_halves_of_validation_have_no_row_in_common():
    """Every row is in one of them, and no calibrating row is before a stopping one."""
    frame = frame_of(500)
    stopping, aside = halves(SPLIT, frame, PARTS["validate"])
    assert sorted([*stopping, *aside]) == PARTS["validate"].tolist()
    assert frame.at[stopping].max() < frame.at[aside].min()


@pytest.mark.parametrize("rows", [29, 30])
def test_few_rows_that_judge_are_a_warning(rows):
    parts = {**PARTS, "test": PARTS["test"][:rows]}
    warnings = run_recipe(Recipe("logistic", SPLIT), frame_of(500), parts).warnings
    assert any("Only 29 rows judge the model" in sentence for sentence in warnings) is (rows == 29)


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
    warning = f"log loss of {loss:.4f} on the test rows is above the majority's {majority:.4f}"
    assert any(warning in sentence for sentence in trained.warnings)


@pytest.mark.parametrize(
    ("rarer", "compared"),
    [(SIGMOID_ROWS - 1, ["none"]), (SIGMOID_ROWS, ["none", "sigmoid"]),
     (ISOTONIC_ROWS, ["none", "sigmoid", "isotonic"])],
)  # fmt: skip
def test_the_run_says_which_calibration_and_why(rarer: int, compared: list[str]):
    """What was compared, by its log loss, and what was not, by the rows it needs."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1.0, 0.0], [rarer, 3_000])[rng.permutation(3_000 + rarer)]
    at = np.arange(len(labels))
    _, calibration = chosen_for(
        "auto", np.where(labels == 1, 0.6, 0.4) + rng.uniform(-0.3, 0.3, len(at)), labels, at, at
    )
    assert list(calibration.log_loss) == compared
    for name in compared[1:] and compared:
        assert f"{calibration.log_loss[name]:.4f}" in calibration.reason
    for name, needed in (("sigmoid", "20"), ("isotonic", "1,000")):
        assert (f"{name} needs {needed}" in calibration.reason) is (name not in compared)


def three_classes(n: int, heat: float, seed: int = 0):
    """Probabilities of three classes that come true at a temperature of 1, made too sure by a heat."""
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.normal(size=(n, 3)) * 1.5)
    truth /= truth.sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1).astype(float)
    sure = truth**heat
    return sure / sure.sum(axis=1, keepdims=True), np.minimum(labels, 2)


def test_a_temperature_cools_several_classes():
    """It finds the heat by simulation, mends the log loss of new rows, keeps the order and sums of 1, row by row."""
    target = Target("multiclass", classes=("a", "b", "c"))
    scores, labels = three_classes(4_000, 3.0)
    frame = Frame(pa.table({"x": labels}), (), np.zeros(4_000, np.int64), labels, np.zeros(4_000, np.int64), target)
    pairs = calibration_folds(RandomSplit(), frame, np.arange(4_000))
    calibrator, calibration = calibrate("auto", scores, labels, pairs, target)
    assert calibration.method == "temperature"
    assert calibrator.temperature == pytest.approx(3.0, rel=0.08)
    fresh, truth = three_classes(20_000, 3.0, seed=1)
    mended = calibrator.apply(fresh)
    assert log_loss(truth, mended) < log_loss(truth, np.clip(fresh, 1e-15, 1)) - 0.2
    assert (mended.argmax(axis=1) == fresh.argmax(axis=1)).all()
    assert mended.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert [calibrator.apply_one(tuple(row)) for row in fresh[:101].tolist()] == [
        tuple(row) for row in mended[:101].tolist()
    ]
    assert load_calibrator(calibrator.to_json()) == calibrator
    right, labels = three_classes(4_000, 1.0)
    calibrator, calibration = calibrate("auto", right, labels, pairs, target)
    assert (
        log_loss(truth, calibrator.apply(three_classes(20_000, 1.0, seed=1)[0]))
        < log_loss(truth, three_classes(20_000, 1.0, seed=1)[0]) + 0.002
    )


@pytest.mark.parametrize("target", [Target("regression"), Target("quantile", quantiles=(0.1, 0.9)), Target("count")])
def test_values_are_not_calibrated(target: Target):
    """They are no probabilities; a method for those is refused."""
    scores, labels = np.array([3.0, -1.0]), np.array([2.0, 0.0])
    calibrator, calibration = calibrate("auto", scores, labels, [], target)
    assert calibrator.apply(scores).tolist() == scores.tolist()
    assert (calibration.method, calibration.log_loss) == ("none", {})
    with pytest.raises(InputError, match="must be one of the task"):
        calibrate("sigmoid", scores, labels, [], target)


def test_a_calibration_that_gives_every_row_one_score_is_left_out():
    """Scores that rank backwards, or by chance, give a slope of zero: as they are they can still be judged."""
    rng = np.random.default_rng(1)
    scores, labels = rng.random(300), (rng.random(300) < 0.1).astype(float)
    labels[scores < 0.2] = 1.0
    pairs = [(np.arange(150), np.arange(150, 300)), (np.arange(150, 300), np.arange(150))]
    calibrator, report = calibrate("auto", scores, labels, pairs)
    assert (report.method, len(np.unique(calibrator.apply(scores)))) == ("none", 300)
    assert "would give every row the same score" in report.reason


def test_a_class_that_is_said_too_often_is_mended_against_the_rest():
    """One temperature cannot: it changes no class's share. The least log loss decides, on new rows too."""
    target = Target("multiclass", classes=("a", "b", "c"))

    def biased(n: int, seed: int):
        truth, labels = three_classes(n, 1.0, seed)
        said = truth * np.array([6.0, 1.0, 1.0])
        return said / said.sum(axis=1, keepdims=True), labels

    scores, labels = biased(2_000, 0)
    frame = Frame(pa.table({"x": labels}), (), np.zeros(2_000, np.int64), labels, np.zeros(2_000, np.int64), target)
    pairs = calibration_folds(RandomSplit(), frame, np.arange(2_000))
    _, report = calibrate("auto", scores, labels, pairs, target)
    assert report.method == "sigmoid"
    assert list(report.log_loss) == ["none", "temperature", "sigmoid"], "isotonic needs 1,000 rows of each class"
    fresh, truth = biased(10_000, 1)
    losses = {name: log_loss(truth, calibrate(name, scores, labels, [], target)[0].apply(fresh))
              for name in ("temperature", "sigmoid", "isotonic")}  # fmt: skip
    assert losses["sigmoid"] < losses["temperature"] - 0.05


def test_leaves_of_one_class_do_not_flatten_a_sigmoid():
    """A tree's pure leaves score 0 and 1: their log-odds are no number, and must not decide the slope of all others."""
    from sklearn.metrics import brier_score_loss

    from retrodict.models.calibration import fit_sigmoid, load_calibrator

    rng = np.random.default_rng(5)
    truth = rng.random(400)
    labels = (rng.random(400) < truth).astype(float)
    scores = np.clip(np.round(truth * 4) / 4, 0, 1)  # 0, 1/4, 1/2, 3/4, 1
    fitted = fit_sigmoid(scores, labels)
    assert np.log(3) < fitted.limit <= np.log(401)
    assert brier_score_loss(labels, fitted.apply(scores)) <= brier_score_loss(labels, scores) + 0.002
    assert fitted.apply(np.array([1.0]))[0] > 0.8
    assert fitted.apply(np.array([0.0]))[0] < 0.2
    again = load_calibrator(fitted.to_json())
    assert again == fitted
    assert [again.apply_one(float(score)) for score in scores] == again.apply(scores).tolist()
    assert "limit" not in fit_sigmoid(np.clip(scores, 0.01, 0.99), labels).to_json().decode()
