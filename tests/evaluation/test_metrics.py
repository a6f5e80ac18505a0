"""Metrics against scikit-learn, and the reasons where there is none."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import calibration
from sklearn import metrics as sk

from retrodict.core.errors import InputError, NotFoundError
from retrodict.evaluation import metrics as ours
from retrodict.evaluation.metrics import CalibrationBin, Confusion, Metric, evaluate

_OF_SCORES = ("auc", "pr_auc", "brier", "log_loss", "calibration_error", "calibration_ratio", "ks", "precision_at_k",
              "recall_at_k", "lift_at_k")  # fmt: skip
_ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2,
                 max_size=40)  # fmt: skip


def _sample(n: int = 5000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(2, 6, size=n)
    return (rng.random(n) < scores).astype(int), scores


@given(rows=_ROWS)
def test_values_equal_scikit_learn(rows: list[tuple[int, float]]) -> None:
    """AUC, average precision, Brier, log loss of any rows with both classes, ties and certain scores included."""
    labels, scores = map(list, zip(*rows, strict=True))
    assume(0 < sum(labels) < len(labels))
    found = evaluate(labels, scores)
    assert found["auc"].value == pytest.approx(sk.roc_auc_score(labels, scores))
    assert found["pr_auc"].value == pytest.approx(sk.average_precision_score(labels, scores))
    assert found["brier"].value == pytest.approx(sk.brier_score_loss(labels, scores))
    assert found["log_loss"].value == pytest.approx(sk.log_loss(labels, scores), abs=1e-12)
    assert found["base_rate"].value == sum(labels) / len(labels)


@given(rows=_ROWS, threshold=st.floats(0, 1))
def test_confusion_equals_scikit_learn(rows: list[tuple[int, float]], threshold: float) -> None:
    """The table and its shares at any threshold; a share of nothing is not evaluable."""
    labels, scores = map(list, zip(*rows, strict=True))
    chosen = [score >= threshold for score in scores]
    table = evaluate(labels, scores, threshold=threshold).confusion
    assert table is not None
    tn, fp, fn, tp = sk.confusion_matrix(labels, chosen, labels=[0, 1]).ravel().tolist()
    assert (table.true_negatives, table.false_positives, table.false_negatives, table.true_positives) == (
        tn,
        fp,
        fn,
        tp,
    )
    found = evaluate(labels, scores, threshold=threshold)
    if any(chosen):
        assert found["precision"].value == pytest.approx(sk.precision_score(labels, chosen))
    else:
        assert (found["precision"].value, found["precision"].reason) == (None, "no row reaches the threshold")
    if any(labels):
        assert found["recall"].value == pytest.approx(sk.recall_score(labels, chosen))
    assert found["accuracy"].value == pytest.approx(sk.accuracy_score(labels, chosen))


def test_calibration_curve_equals_scikit_learn() -> None:
    """Same bins, rates and mean scores; the error is their weighted gap."""
    labels, scores = _sample()
    curve = evaluate(labels, scores).curve
    rates, means = calibration.calibration_curve(labels, scores, n_bins=10, strategy="quantile")
    assert [part.observed_rate for part in curve] == pytest.approx(rates.tolist())
    assert [part.mean_score for part in curve] == pytest.approx(means.tolist())
    sizes = np.array([part.n for part in curve])
    assert sizes.sum() == labels.size
    expected = float((sizes * np.abs(rates - means)).sum() / labels.size)
    assert ours.calibration_error(labels, scores).value == pytest.approx(expected)


def test_equal_mass_bins_hold_equal_counts_and_equal_scores_stay_together() -> None:
    """Distinct scores share evenly; one score for all is one bin, whatever the order of the rows."""
    labels, scores = _sample(1000)
    assert {part.n for part in evaluate(labels, scores).curve} == {100}
    [single] = evaluate(labels, np.full(1000, 0.3)).curve
    assert single.n == 1000
    mixed, order = np.round(scores, 1), np.random.default_rng(1).permutation(1000)
    again = evaluate(labels[order], mixed[order]).curve
    assert [part.n for part in again] == [part.n for part in evaluate(labels, mixed).curve]


def test_a_score_at_an_edge_belongs_to_the_bin_on_its_right() -> None:
    """Nine scores that are deciles, three times each, with one score between any two: each opens its bin."""
    inner = [score for k in range(1, 10) for score in (k / 10, k / 10, k / 10, k / 10 + 0.05)]
    curve = evaluate([0, 1] * 20 + [1], [0.0, 0.0, 0.05, *inner, 1.0, 1.0]).curve
    assert [part.n for part in curve] == [3, *[4] * 8, 6]


def test_calibration_ratio_is_observed_over_expected() -> None:
    """Scores cut in half: twice as many positives as promised, and the interval knows it."""
    labels, scores = _sample(20_000)
    metric = ours.calibration_ratio(labels, scores / 2)
    assert metric.value == pytest.approx(labels.sum() / (scores / 2).sum())
    assert metric.low is not None
    assert metric.low > 1.8


def test_intervals_surround_their_values() -> None:
    """Wherever an interval is given it holds the value."""
    for metric in evaluate(*_sample(), threshold=0.3).metrics:
        assert metric.reason is None
        if metric.low is not None:
            assert metric.low <= metric.value <= metric.high


def test_means_have_the_interval_of_student() -> None:
    """Brier and log loss, against SciPy; a distance of two distributions has none."""
    labels, scores = _sample(300)
    found = evaluate(labels, scores)
    losses = {"brier": (scores - labels) ** 2, "log_loss": -np.log(np.where(labels == 1, scores, 1 - scores))}
    for name, values in losses.items():
        expected = stats.t.interval(0.95, 299, loc=values.mean(), scale=stats.sem(values))
        assert (found[name].low, found[name].high) == pytest.approx(expected), name
    assert [metric.name for metric in found.metrics if metric.low is None] == ["ks"]


@pytest.mark.parametrize(("miss", "least", "most"), [(0.0, 0.0, 0.025), (0.05, 0.0, 0.04), (0.12, 0.5, 1.0)])
def test_the_bound_of_the_calibration_error_is_free_of_the_noise_of_few_rows(
    miss: float, least: float, most: float
) -> None:
    """Of 300 models of 500 rows, those shown to miss by more than 0.05: none that does not, most that miss by 0.12."""
    rng = np.random.default_rng(4)
    bounds, values = [], []
    for _ in range(300):
        scores = rng.beta(2, 4, 500)
        metric = ours.calibration_error(rng.random(500) < np.minimum(scores + miss, 1), scores)
        bounds.append(metric.low)
        values.append(metric.value)
    assert least <= np.mean(np.array(bounds) > 0.05) <= most
    assert np.mean(np.array(values) > 0.05) > 0.3  # the value itself says so of a perfect model


@pytest.mark.parametrize(
    ("labels", "scores", "without", "reason"),
    [
        ([1, 1], [0.2, 0.9], {"auc", "ks"}, "all 2 rows are positive"),
        ([0, 0], [0.2, 0.9], {"auc", "pr_auc", "ks", "recall_at_k", "lift_at_k"}, "all 2 rows are negative"),
        ([0, 1], [0.2, math.nan], {*_OF_SCORES},
         "1 of 2 scores are null"),
        ([0, 1], [-3.0, 4.0], {"brier", "log_loss", "calibration_error", "calibration_ratio"},
         "2 of 2 scores lie outside [0, 1]"),
        ([0, 1], [0.0, 0.0], {"calibration_ratio"}, "every score is 0"),
        ([], [], {*_OF_SCORES, "base_rate"},
         "no rows"),
    ],
    ids=["positives", "negatives", "null score", "no probability", "zero", "empty"],
)  # fmt: skip
def test_what_cannot_be_computed_says_why(labels: list, scores: list, without: set[str], reason: str) -> None:
    """The metrics without a value are exactly these, and the first of them gives the reason."""
    found = evaluate(labels, scores)
    assert {m.name for m in found.metrics if m.value is None} == without
    assert reason in {m.reason for m in found.metrics}
    assert all((m.value is None) == (m.reason is not None) for m in found.metrics)


def test_pending_labels_are_counted_and_change_nothing() -> None:
    """Null labels, even with null scores, leave every metric as it is without them."""
    labels, scores = _sample(200)
    more = evaluate([*labels, None, None], [*scores, 0.9, None])
    assert (more.pending, more.n) == (2, 200)
    assert more.metrics == evaluate(labels, scores).metrics


def test_a_single_metric_refuses_null_labels() -> None:
    """Only ``evaluate`` sets pending rows aside."""
    assert ours.roc_auc([0, 1, None], [0.1, 0.2, 0.3]).reason == "1 of 3 labels are null"


def test_too_few_rows_are_not_evaluable() -> None:
    """Below min_rows nothing has a value, the threshold shares neither."""
    found = evaluate([0, 1], [0.2, 0.8], threshold=0.5, min_rows=30)
    assert set(found.values().values()) == {None}
    assert found["accuracy"].reason == "2 labelled rows are fewer than the 30 needed"
    assert (found.curve, found.confusion) == ((), None)
    assert None not in evaluate([0, 1], [0.2, 0.8], threshold=0.5, min_rows=2).values().values()


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_evaluations_survive_json(threshold: float | None) -> None:
    """The JSON form holds every metric, the curve and the table."""
    found = evaluate(*_sample(300), threshold=threshold)
    body = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert tuple(Metric(**metric) for metric in body["metrics"]) == found.metrics
    assert tuple(CalibrationBin(**part) for part in body["curve"]) == found.curve
    assert (body["confusion"] and Confusion(**body["confusion"])) == found.confusion


def test_arrow_columns_are_read() -> None:
    """Nullable Arrow columns give what lists give."""
    labels, scores = [True, False, None, True], [0.5, 0.25, 0.5, 1.0]
    assert evaluate(pa.array(labels), pa.array(scores)) == evaluate(labels, scores)


@pytest.mark.parametrize(
    ("labels", "scores", "rule"),
    [
        ([0, 2], [0.1, 0.2], "0, 1 or null"),
        ([0, 1], [0.1], "one score per label"),
        (["a", "b"], [0, 1], "numbers and nulls"),
    ],
)
def test_wrong_columns_are_errors(labels: list, scores: list, rule: str) -> None:
    """A wrong call is an error, not a metric without value."""
    with pytest.raises(InputError, match=rule):
        evaluate(labels, scores)


def test_an_unknown_metric_names_its_neighbours() -> None:
    """The message helps with the spelling."""
    with pytest.raises(NotFoundError, match="Did you mean the metric 'brier'"):
        evaluate([0, 1], [0.1, 0.2])["brie"]
