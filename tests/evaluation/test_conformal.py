"""Conformal intervals and sets cover what they promise; fairness bounds against hand work."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation import check_gates, measure_fairness
from retrodict.evaluation.conformal import Conformal, fit_aps, fit_cqr, fit_lac, fit_residuals, rows_needed

CLASSES = Target("multiclass", classes=("a", "b", "c", "d"))
BAND = Target("quantile", quantiles=(0.2, 0.8))


def _numbers(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of uneven noise, a value that is off, and quantiles that are too narrow."""
    x = rng.normal(0, 1, n)
    labels = x + np.abs(x) * rng.standard_t(3, n)
    return labels, x * 0.9 + 0.1, np.stack([x - 0.3 * np.abs(x), x + 0.3 * np.abs(x)], axis=1)


def _classes(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes drawn from probabilities, and a model that is too sure of them."""
    p = rng.dirichlet([0.7] * 4, n)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 3).astype(float)
    sure = p**1.7
    return labels, sure / sure.sum(axis=1, keepdims=True)


def _coverage(kind: str, level: float, n: int, repeats: int) -> float:
    """Mean coverage of 200 new rows by what was fitted on n rows."""
    rng, covered = np.random.default_rng(11), []
    for _ in range(repeats):
        if kind in ("residuals", "cqr"):
            labels, value, band = _numbers(rng, n + 200)
            outputs = value if kind == "residuals" else band
            old = (labels[:n], outputs[:n])
            fitted = fit_residuals(*old, level) if kind == "residuals" else fit_cqr(*old, BAND, level)
            low, high = fitted.apply(outputs[n:]).T
            covered.append(np.mean((low <= labels[n:]) & (labels[n:] <= high)))
        else:
            labels, p = _classes(rng, n + 200)
            fitted = (fit_lac if kind == "lac" else fit_aps)(labels[:n], p[:n], CLASSES, level)
            sets = fitted.apply(p[n:])
            covered.append(np.mean(sets[np.arange(200), labels[n:].astype(int)]))
    return float(np.mean(covered))


@pytest.mark.parametrize("kind", ["residuals", "cqr", "lac"])
@pytest.mark.parametrize(("level", "n"), [(0.9, 9), (0.9, 60), (0.8, 25)])
def test_coverage_is_what_theory_says(kind: str, level: float, n: int) -> None:
    """On average ``ceil((n + 1) level) / (n + 1)`` exactly where scores have no ties, however bad the model is."""
    expected = math.ceil(round((n + 1) * level, 9)) / (n + 1)
    assert _coverage(kind, level, n, 1500) == pytest.approx(expected, abs=0.008)


def test_sets_that_adapt_cover_at_least_the_level() -> None:
    """Without randomisation they cover more, and no set is empty."""
    assert 0.9 <= _coverage("aps", 0.9, 60, 600) <= 0.97
    labels, p = _classes(np.random.default_rng(1), 100)
    assert fit_aps(labels, p, CLASSES, 0.5).apply(p).any(axis=1).all()


def test_thresholds_are_the_order_statistic_of_finite_samples() -> None:
    """Of 1 to 19 at 0.9 the 18th; scores of each kind by hand."""
    labels = np.arange(1.0, 20.0)
    assert fit_residuals(labels, np.zeros(19), 0.9).threshold == 18.0
    assert fit_residuals(labels[:9], np.zeros(9), 0.9).threshold == 9.0
    assert fit_residuals([*labels, None], np.zeros(20), 0.9).threshold == 18.0
    band = np.stack([np.full(19, -1.0), np.full(19, 2.0)], axis=1)
    assert fit_cqr(labels, band, BAND, 0.9).threshold == 16.0
    assert Conformal("cqr", 0.9, 19, -0.5).apply([[0.0, 3.0]]).tolist() == [[0.5, 2.5]]
    p = [[0.5, 0.1, 0.3, 0.1]]
    assert fit_lac([2.0], p, CLASSES, 0.5).threshold == 0.7
    assert fit_aps([2.0], p, CLASSES, 0.5).threshold == 0.8
    assert Conformal("lac", 0.9, 1, 0.7).apply([[0.5, 0.1, 0.3, 0.1]]).tolist() == [[True, False, True, False]]
    assert Conformal("aps", 0.9, 1, 0.8).apply([[0.5, 0.1, 0.3, 0.1]]).tolist() == [[True, False, True, False]]
    assert Conformal("aps", 0.9, 1, 0.2).apply([[0.5, 0.1, 0.3, 0.1]]).tolist() == [[True, False, False, False]]
    assert not Conformal("aps", 0.9, 1, 0.8).apply([[math.nan] * 4]).any()


@pytest.mark.parametrize(("level", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_too_few_rows_name_how_many_are_needed(level: float, needed: int) -> None:
    """One row fewer has no threshold, and applying it is an error."""
    assert rows_needed(level) == needed
    assert fit_residuals(np.arange(needed), np.zeros(needed), level).threshold == needed - 1
    short = fit_residuals(np.arange(needed - 1), np.zeros(needed - 1), level)
    assert short.threshold is None
    if needed > 1:
        assert short.reason == f"{needed - 1} labelled rows are fewer than the {needed} that a level of {level:g} needs"
    with pytest.raises(InputError, match="must have been evaluable"):
        short.apply([1.0])


def test_outputs_that_are_none_have_no_threshold() -> None:
    """Null outputs, probabilities that are none, one quantile, no level."""
    assert fit_residuals([1.0] * 20, [math.nan] * 20, 0.9).reason == "20 of 20 outputs are null"
    assert "do not add up to 1" in str(fit_lac([0.0] * 20, [[0.5] * 4] * 20, CLASSES, 0.9).reason)
    one = Target("quantile", quantiles=(0.5,))
    assert fit_cqr([1.0] * 20, [[1.0]] * 20, one, 0.9).reason == "one level has no interval"
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_residuals([1.0], [1.0], 1.0)


# fairness


def test_bounds_are_those_of_a_table_by_hand() -> None:
    """Women 3 of 6 yes, men 4 of 5; of the positives 2 of 3 and 2 of 2; rows without a group and labels are counted."""
    sex = ["f"] * 6 + ["m"] * 5 + [None]
    yes = [1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1]
    labels = [1, 1, 0, 1, 0, None, 1, 1, 0, 0, 0, 1]
    found = measure_fairness(labels, yes, sex, column="sex", threshold=0.5, min_rows=2)
    assert {metric.name: metric.value for metric in found.metrics} == pytest.approx(
        {"dp_ratio(sex)": (3 / 6) / (4 / 5), "dp_difference(sex)": 4 / 5 - 3 / 6, "equal_opportunity(sex)": 1 - 2 / 3}
    )
    women, men = found.groups
    assert (women.group, women.n, women.positives, men.selection_rate, found.ungrouped) == ("f", 6, 3, 0.8, 1)
    heavy = measure_fairness(labels, yes, sex, column="sex", threshold=0.5, min_rows=2, weights=[3.0] + [1.0] * 11)
    assert heavy.metrics[0].value == pytest.approx((5 / 8) / (4 / 5))
    [gate] = check_gates(["dp_ratio(sex) >= 0.8"], {metric.name: metric for metric in found.metrics})
    assert (gate.status, gate.value) == ("fail", pytest.approx(0.625))


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"min_rows": 6}, ["a group has 5 rows, fewer than the 6 needed"] * 3),
        ({"min_rows": 4}, [None, None, "a group has 2 rows labelled 1, fewer than the 4 needed"]),
        ({"threshold": 2.0}, ["no row is decided with yes", None, None]),
        ({"groups": ["f"] * 11}, ["1 groups are fewer than the 2 needed to compare"] * 3),
        ({"scores": [math.nan] + [1.0] * 10}, ["1 of 11 scores are null"] * 3),
    ],
)
def test_a_group_too_small_to_judge_makes_the_bound_not_evaluable(change: dict, reasons: list) -> None:
    """It passes no gate; nothing is passed over, and no small group is named."""
    case = {"labels": [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0], "scores": [1.0] * 11, "groups": ["f"] * 6 + ["m"] * 5,
            "column": "sex", "threshold": 0.5, "min_rows": 2} | change  # fmt: skip
    found = measure_fairness(case.pop("labels"), case.pop("scores"), case.pop("groups"), **case)
    assert [metric.reason for metric in found.metrics] == reasons
    assert [metric.value is None for metric in found.metrics] == [reason is not None for reason in reasons]


def test_intervals_of_wilson_hold_the_coverage_of_a_fitted_band() -> None:
    """Split conformal covers a beta distributed share: of one fit on 99 rows between 0.83 and 0.96 (95 %)."""
    rng = np.random.default_rng(3)
    labels, value, _ = _numbers(rng, 50_099)
    low, high = fit_residuals(labels[:99], value[:99], 0.9).apply(value[99:]).T
    share = np.mean((low <= labels[99:]) & (labels[99:] <= high))
    assert stats.beta.ppf(0.001, 90, 10) <= share <= stats.beta.ppf(0.999, 90, 10)
