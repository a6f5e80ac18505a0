"""Metrics of every task against scikit-learn, SciPy, statsmodels and hand work, with and without weights."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.inter_rater import cohens_kappa, to_table

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation import ClassTable, evaluate
from retrodict.evaluation.metrics import primary

CLASSES = Target("multiclass", classes=("low", "middle", "high"), ordered=True)
NUMBER, COUNT = Target("regression"), Target("count")
QUANTILES = Target("quantile", quantiles=(0.1, 0.5, 0.9))
RANKING = Target("ranking")
SEEDS = st.integers(0, 10_000)


def _classes(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, probabilities with ties, and weights; every class has rows and is decided for."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.dirichlet([1, 1, 1], n), 1) + 0.05
    p /= p.sum(axis=1, keepdims=True)
    codes = np.array([rng.choice(3, p=line) for line in p], dtype=float)
    codes[:3], p[:3] = [0, 1, 2], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    return codes, p, rng.exponential(size=n) + 0.01


def _numbers(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.normal(5, 2, n)
    return labels, labels + np.round(rng.normal(0, 1, n), 1), rng.exponential(size=n) + 0.01


# binary ---------------------------------------------------------------------------------------------------------------


@given(seed=SEEDS)
def test_weighted_binary_metrics_equal_scikit_learn(seed: int) -> None:
    """Weights 0 leave a row out; a weight of 2 is a row twice."""
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 2, 40).astype(float), np.round(rng.random(40), 1)
    weights = rng.choice([0.5, 1.0, 3.0], 40)
    labels[:2] = [0, 1]
    ours, chosen = evaluate(labels, scores, weights=weights, threshold=0.5).values(), scores >= 0.5
    given_weights = {"sample_weight": weights}
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(labels, scores, **given_weights))
    assert ours["pr_auc"] == pytest.approx(sk.average_precision_score(labels, scores, **given_weights))
    assert ours["brier"] == pytest.approx(sk.brier_score_loss(labels, scores, **given_weights))
    assert ours["log_loss"] == pytest.approx(sk.log_loss(labels, scores, **given_weights))
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(labels, chosen, **given_weights))
    if chosen.any():
        assert ours["precision"] == pytest.approx(sk.precision_score(labels, chosen, **given_weights))
    assert ours["recall"] == pytest.approx(sk.recall_score(labels, chosen, **given_weights))
    for name, beta in (("f1", 1.0), ("f2", 2.0), ("f0_5", 0.5)):
        assert ours[name] == pytest.approx(sk.fbeta_score(labels, chosen, beta=beta, **given_weights))
    whole = rng.integers(0, 4, 40)
    whole[:2] = 1
    repeated = evaluate(np.repeat(labels, whole), np.repeat(scores, whole), threshold=0.5).values()
    weighted = evaluate(labels, scores, weights=whole, threshold=0.5).values()
    del repeated["calibration_error"], weighted["calibration_error"]  # its bins hold equal numbers of rows
    assert weighted == pytest.approx(repeated)


@given(seed=SEEDS)
def test_ks_is_the_statistic_of_two_samples(seed: int) -> None:
    """The largest distance of the two distributions of scores."""
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 2, 50), np.round(rng.random(50), 1)
    labels[:2] = [0, 1]
    expected = stats.ks_2samp(scores[labels == 1], scores[labels == 0]).statistic
    assert evaluate(labels, scores)["ks"].value == pytest.approx(expected)


@given(rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=2, max_size=6), k=st.integers(1, 7))
def test_the_first_k_are_the_mean_over_every_order_of_equal_scores(rows: list[tuple[int, int]], k: int) -> None:
    """By trying all orders that the scores allow."""
    labels, scores = map(list, zip(*rows, strict=True))
    orders = [order for order in itertools.permutations(range(len(rows)))
              if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))]  # fmt: skip
    hits = np.mean([sum(labels[row] for row in order[:k]) for order in orders])
    ours = evaluate(labels, scores, k=k).values()
    top = min(k, len(rows))
    assert ours["precision_at_k"] == pytest.approx(hits / top)
    if sum(labels):
        assert ours["recall_at_k"] == pytest.approx(hits / sum(labels))
        assert ours["lift_at_k"] == pytest.approx(hits / top / np.mean(labels))


def test_k_is_a_tenth_of_the_rows_unless_said() -> None:
    """A share below 1, or a number of rows."""
    labels, scores = [1, 1, 0, 1] + [0] * 16, range(20, 0, -1)
    assert evaluate(labels, scores)["precision_at_k"].value == 1.0
    assert evaluate(labels, scores, k=0.25)["precision_at_k"].value == pytest.approx(0.6)
    assert evaluate(labels, scores, k=4)["recall_at_k"].value == 1.0


# several classes ------------------------------------------------------------------------------------------------------


@given(seed=SEEDS, weighted=st.booleans())
def test_metrics_of_classes_equal_scikit_learn(seed: int, weighted: bool) -> None:
    """Every metric, ordered classes included."""
    codes, p, masses = _classes(seed)
    weights = masses if weighted else None
    extra = {"sample_weight": weights}
    ours, decided, names = evaluate(codes, p, CLASSES, weights=weights), p.argmax(axis=1), [0, 1, 2]
    table = sk.confusion_matrix(codes, decided, labels=names)
    assert ours.confusion is not None
    assert [list(line) for line in ours.confusion.counts] == table.tolist()
    expected = {
        "log_loss": sk.log_loss(codes, p, **extra),
        "brier": sk.brier_score_loss(codes, p, **extra),
        "accuracy": sk.accuracy_score(codes, decided, **extra),
        "balanced_accuracy": sk.balanced_accuracy_score(codes, decided, **extra),
        "macro_auc": sk.roc_auc_score(codes, p, multi_class="ovr", **extra) if not weighted else np.mean(
            [sk.roc_auc_score(codes == name, p[:, name], **extra) for name in names]),
        "quadratic_kappa": sk.cohen_kappa_score(codes, decided, weights="quadratic", **extra),
        "class_error": np.average(np.abs(codes - decided), weights=weights),
    }  # fmt: skip
    for average in ("macro", "weighted"):
        for metric, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            expected[f"{average}_{metric}"] = score(codes, decided, average=average, **extra)
    for place, recall in enumerate(sk.recall_score(codes, decided, average=None, **extra)):
        expected[f'recall["{CLASSES.classes[place]}"]'] = recall
    found = ours.values()
    found.pop("calibration_error")
    assert found == pytest.approx(expected)


def test_the_interval_of_kappa_is_that_of_statsmodels() -> None:
    """Its variance is that of Fleiss, Cohen and Everitt; ours divides by n - 1 and uses Student's t."""
    codes, p, _ = _classes(3, 400)
    table = to_table(np.stack([codes, p.argmax(axis=1)], axis=1))[0]
    expected = cohens_kappa(table, weights=np.arange(3), wt="quadratic").std_kappa
    kappa = evaluate(codes, p, CLASSES)["quadratic_kappa"]
    half = expected * math.sqrt(400 / 399) * stats.t.ppf(0.975, 399)
    assert (kappa.low, kappa.high) == pytest.approx((kappa.value - half, kappa.value + half))


def test_calibration_of_classes_is_that_of_the_likeliest() -> None:
    """As the binary error of "the likeliest class is right"."""
    codes, p, _ = _classes(4, 500)
    expected = evaluate(codes == p.argmax(axis=1), p.max(axis=1))["calibration_error"]
    assert evaluate(codes, p, CLASSES)["calibration_error"] == expected


# numbers --------------------------------------------------------------------------------------------------------------


@given(seed=SEEDS, weighted=st.booleans(), n=st.integers(3, 9))
def test_metrics_of_numbers_equal_scikit_learn(seed: int, weighted: bool, n: int) -> None:
    """Regression, with an even and an odd number of rows for the median."""
    labels, values, masses = _numbers(seed, n)
    weights = np.round(masses + 1) if weighted else None
    extra = {"sample_weight": weights}
    assert evaluate(labels, values, NUMBER, weights=weights).values() == pytest.approx(
        {
            "mae": sk.mean_absolute_error(labels, values, **extra),
            "rmse": sk.root_mean_squared_error(labels, values, **extra),
            "r2": sk.r2_score(labels, values, **extra),
            "mape": sk.mean_absolute_percentage_error(labels, values, **extra),
            "median_absolute_error": sk.median_absolute_error(labels, values, **extra),
            "bias": np.average(values - labels, weights=weights),
        }
    )


@given(seed=SEEDS, weighted=st.booleans())
def test_metrics_of_quantiles_equal_scikit_learn(seed: int, weighted: bool) -> None:
    """Pinball losses; coverage by hand, a label at its quantile covered; crossings counted by row."""
    labels, values, masses = _numbers(seed)
    outputs = values[:, None] + np.array([-1.0, 0.0, 1.0])
    outputs[0] = outputs[0][::-1]
    labels[1] = outputs[1, 0]
    weights = masses if weighted else None
    ours = evaluate(labels, outputs, QUANTILES, weights=weights).values()
    losses = []
    for level, name, column in zip((0.1, 0.5, 0.9), ("q10", "q50", "q90"), outputs.T, strict=True):
        losses.append(sk.mean_pinball_loss(labels, column, alpha=level, sample_weight=weights))
        assert ours[f"pinball_{name}"] == pytest.approx(losses[-1])
        assert ours[f"coverage_{name}"] == pytest.approx(np.average(labels <= column, weights=weights))
    assert ours["pinball"] == pytest.approx(np.mean(losses))
    inside = [low <= label <= high for label, low, high in zip(labels, outputs[:, 0], outputs[:, 2], strict=True)]
    assert ours["interval_coverage"] == pytest.approx(np.average(inside, weights=weights))
    assert ours["interval_width"] == pytest.approx(np.average(outputs[:, 2] - outputs[:, 0], weights=weights))
    assert ours["crossings"] == 1


@given(seed=SEEDS, weighted=st.booleans())
def test_metrics_of_counts_equal_scikit_learn(seed: int, weighted: bool) -> None:
    """Poisson deviance with zeros among the counts."""
    rng = np.random.default_rng(seed)
    means = rng.exponential(2, 30) + 0.1
    labels, weights = rng.poisson(means).astype(float), rng.exponential(size=30) + 0.01 if weighted else None
    labels[0] = 0
    extra = {"sample_weight": weights}
    mass = np.ones(30) if weights is None else weights
    assert evaluate(labels, means, COUNT, weights=weights).values() == pytest.approx(
        {
            "deviance": sk.mean_poisson_deviance(labels, means, **extra),
            "mae": sk.mean_absolute_error(labels, means, **extra),
            "rmse": sk.root_mean_squared_error(labels, means, **extra),
            "calibration_ratio": (mass @ labels) / (mass @ means),
        }
    )


@pytest.mark.parametrize("n", [6, 20, 101])
def test_the_interval_of_a_median_is_the_tightest_that_holds_95_percent(n: int) -> None:
    """Order statistics against the binomial distribution."""
    errors = np.random.default_rng(1).permutation(n) + 1.0
    found = evaluate(np.zeros(n), errors, NUMBER)["median_absolute_error"]
    inside = [1 - 2 * stats.binom.cdf(low - 1, n, 0.5) for low in (found.low, found.low + 1)]
    assert inside[0] >= 0.95 > inside[1]
    assert found.high == n + 1 - found.low
    assert evaluate([0] * 5, [1, 2, 3, 4, 5], NUMBER)["median_absolute_error"].low is None


# ranking --------------------------------------------------------------------------------------------------------------


@given(seed=SEEDS, k=st.integers(1, 6))
def test_metrics_of_rankings_equal_scikit_learn_group_by_group(seed: int, k: int) -> None:
    """NDCG with ties and average precision; groups in any order of rows, those without a relevant row left out."""
    rng = np.random.default_rng(seed)
    groups, labels, scores = (
        rng.integers(0, 6, 40),
        rng.integers(0, 4, 40) * rng.integers(0, 2, 40),
        rng.integers(0, 5, 40),
    )
    labels[0] = 3
    ndcg, precision = [], []
    for group in np.unique(groups):
        inside = groups == group
        if inside.sum() > 1 and labels[inside].any():
            ndcg.append(sk.ndcg_score([labels[inside]], [scores[inside]], k=k))
            precision.append(sk.average_precision_score(labels[inside] > 0, scores[inside]))
        elif labels[inside].any():
            ndcg.append(1.0)
            precision.append(1.0)
    found = evaluate(labels, scores, RANKING, groups=groups, k=k)
    assert found["ndcg_at_k"].value == pytest.approx(np.mean(ndcg))
    assert found["map"].value == pytest.approx(np.mean(precision))
    assert found["map"].n == len(ndcg)


@given(rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=6), k=st.integers(1, 4))
def test_ranks_are_the_mean_over_every_order_of_equal_scores(rows: list[tuple[int, int]], k: int) -> None:
    """Reciprocal rank and precision by trying all orders."""
    labels, scores = map(list, zip(*[*rows, (1, 1)], strict=True))
    orders = [order for order in itertools.permutations(range(len(labels)))
              if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))]  # fmt: skip
    ranks = [1 / next(place for place, row in enumerate(order, start=1) if labels[row]) for order in orders]
    hits = [np.mean([labels[row] for row in order[:k]]) for order in orders]
    found = evaluate(labels, scores, RANKING, k=k).values()
    assert found["mrr"] == pytest.approx(np.mean(ranks))
    assert found["precision_at_k"] == pytest.approx(np.mean(hits))


def test_groups_of_a_ranking_count_by_the_mean_weight_of_their_rows() -> None:
    """As scikit-learn's weights of samples; the interval is Student's over the groups."""
    rng = np.random.default_rng(5)
    labels, scores, weights = rng.integers(0, 3, (20, 6)), rng.random((20, 6)), rng.exponential(size=20) + 0.1
    labels[:, 0] = 1
    groups = np.repeat(np.arange(20), 6)
    found = evaluate(labels.ravel(), scores.ravel(), RANKING, groups=groups, weights=np.repeat(weights, 6), k=3)
    assert found["ndcg_at_k"].value == pytest.approx(sk.ndcg_score(labels, scores, k=3, sample_weight=weights))
    each = [sk.ndcg_score(labels[[row]], scores[[row]], k=10) for row in range(20)]
    plain = evaluate(labels.ravel(), scores.ravel(), RANKING, groups=groups)["ndcg_at_k"]
    assert (plain.low, plain.high) == pytest.approx(stats.t.interval(0.95, 19, np.mean(each), stats.sem(each)))


# what has no value, and what is refused -------------------------------------------------------------------------------

_P = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]


@pytest.mark.parametrize(
    ("target", "labels", "outputs", "without", "reason"),
    [
        (CLASSES, [0, 1], _P, {"macro_precision", "weighted_precision", "macro_recall", "macro_auc", 'recall["high"]'},
         "class 'high' has no row"),
        (CLASSES, [0, 0], [_P[0], _P[0]], {"balanced_accuracy", "quadratic_kappa", "macro_recall", "macro_auc",
         "macro_precision", "weighted_precision", 'recall["middle"]', 'recall["high"]'},
         "all 2 rows are of class 'low'"),
        (CLASSES, [0, 1], [[0.7, 0.7, 0.1], _P[1]], None, "1 of 2 rows of probabilities do not add up to 1"),
        (CLASSES, [0, 1], [[math.nan, 0.5, 0.5], _P[1]], None, "1 of 2 outputs are null"),
        (NUMBER, [0.0, 2.0], [1.0, 1.0], {"mape"}, "1 of 2 labels are 0, of which no error is a share"),
        (NUMBER, [2.0, 2.0], [1.0, 1.0], {"r2"}, "all 2 labels are equal"),
        (NUMBER, [1.0, 2.0], [math.inf, 1.0], None, "1 of 2 outputs are infinite"),
        (COUNT, [0.0, 2.0], [0.0, 1.0], {"deviance", "calibration_ratio"}, "1 of 2 outputs are not above 0"),
        (Target("quantile", quantiles=(0.5,)), [1.0], [1.0], {"interval_coverage", "interval_width"},
         "one level has no interval"),
        (RANKING, [0, 0], [1.0, 2.0], None, "no group has a relevant row"),
        (RANKING, [], [], None, "no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_says_why(
    target: Target, labels: list, outputs: list, without: set[str] | None, reason: str
) -> None:
    """The metrics without a value are exactly these (None: all of them), and never 0 or NaN."""
    found = evaluate(labels, outputs, target)
    assert {m.name for m in found.metrics if m.value is None} == (set(found.values()) if without is None else without)
    assert reason in {m.reason for m in found.metrics}
    assert all(m.value is None or math.isfinite(m.value) for m in found.metrics)


@pytest.mark.parametrize("target", [CLASSES, NUMBER, COUNT, QUANTILES, RANKING], ids=lambda target: target.task)
def test_pending_rows_and_rows_without_weight_change_nothing(target: Target) -> None:
    """Both are in no metric; pending ones are counted."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 30).astype(float)
    outputs = rng.dirichlet([1, 1, 1], 30).cumsum(axis=1) if target.task == "quantile" else rng.dirichlet([1] * 3, 30)
    outputs = outputs if target.columns > 1 else outputs[:, 0]
    labels[5], weights = np.nan, np.r_[0.0, np.ones(29)]
    found = evaluate(labels, outputs, target, weights=weights)
    rest = np.r_[1:5, 6:30]
    alone = evaluate(labels[rest], outputs[rest], target)
    assert (found.n, found.pending, alone.n, found.positives) == (28, 1, 28, None)
    assert found.values() == pytest.approx(alone.values())
    assert evaluate(labels, outputs, target, weights=weights, min_rows=40)[primary(target)[0]].reason == (
        "28 labelled rows are fewer than the 40 needed")  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "outputs", "target", "more", "rule"),
    [
        ([0, 3], _P, CLASSES, {}, "codes of the classes, 0 to 2"),
        ([0, 0.5], _P, CLASSES, {}, "codes of the classes"),
        ([0, 1], [0.1, 0.2], CLASSES, {}, r"shape \(rows, 3\)"),
        ([0, -1], [0.1, 0.2], COUNT, {}, "0 or more"),
        ([0, math.inf], [0.1, 0.2], NUMBER, {}, "finite numbers"),
        ([0, 1], [0.1, 0.2], NUMBER, {"weights": [1, -1]}, "weights must be numbers of 0 or more"),
        ([0, 1], [0.1, 0.2], NUMBER, {"weights": [1]}, "one weight"),
        ([0, 1], [0.1, 0.2], RANKING, {"groups": [1]}, "one group"),
    ],
)
def test_columns_of_another_task_are_errors(labels: list, outputs: list, target: Target, more: dict, rule: str) -> None:
    """A wrong call is an error, not a metric without value."""
    with pytest.raises(InputError, match=rule):
        evaluate(labels, outputs, target, **more)


@given(SEEDS)
def test_lines_of_classes_are_scikit_learns_report(seed: int) -> None:
    """Support, precision, recall and F1 of each class; of one that nothing is decided for there is no precision."""
    codes, p, _ = _classes(seed)
    decided = p.argmax(axis=1)
    table = evaluate(codes, p, CLASSES).confusion
    columns = sk.precision_recall_fscore_support(codes, decided, labels=[0, 1, 2])
    for place, (name, support, times, precision, recall, f1) in enumerate(table.lines()):
        assert (name, times) == (CLASSES.classes[place], int((decided == place).sum()))
        assert (precision, recall, f1, support) == pytest.approx([column[place] for column in columns])
    never = ClassTable(("a", "b"), ((3, 0), (0, 0)))
    assert never.lines() == [("a", 3, 3, 1.0, 1.0, 1.0), ("b", 0, 0, None, None, None)]
