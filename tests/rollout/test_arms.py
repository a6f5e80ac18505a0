"""Balance of arms, paired tests and many p values at once, against statsmodels, scipy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as other_mcnemar
from statsmodels.stats.multitest import multipletests

from retrodict.core.errors import InputError
from retrodict.rollout.statistics import (
    Allowed,
    Contrast,
    check_balance,
    check_outcomes,
    false_discovery,
    holm,
    mcnemar,
    paired_bootstrap,
)

HALVES = {"control": 1.0, "soft": 1.0}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_p_values_are_adjusted_as_by_statsmodels(p_values: list[float]) -> None:
    """In the order given."""
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert false_discovery(p_values) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


def test_holm_refuses_what_is_no_p_value() -> None:
    """NaN would sort anywhere."""
    with pytest.raises(InputError, match="between 0 and 1"):
        holm([0.5, math.nan])


def test_fixed_balance_is_pearsons_over_arms_with_weight() -> None:
    """An arm without weight adds no degree of freedom, and may have no units."""
    units = {"control": 520, "soft": 270, "firm": 210, "off": 0}
    weights = {"control": 50.0, "soft": 25.0, "firm": 25.0, "off": 0.0}
    balance = check_balance(units, weights, sequential=False)
    assert balance.p_value == pytest.approx(stats.chisquare([520, 270, 210], [500, 250, 250]).pvalue)
    assert (balance.degrees, balance.n) == (2, 1000)
    assert check_balance(units | {"off": 1}, weights).verdict == "failure"


def test_balance_of_changed_weights_is_judged_by_stratum() -> None:
    """Each by its own weights: chi-squares add up, evidence multiplies; against the last weights all would be wrong."""
    units = [{"control": 910, "soft": 90}, {"control": 480, "soft": 520}]
    weights = [{"control": 0.9, "soft": 0.1}, HALVES]
    balance = check_balance(units, weights, sequential=False)
    parts = [stats.chisquare([910, 90], [900, 100]).statistic, stats.chisquare([480, 520], [500, 500]).statistic]
    assert (balance.p_value, balance.degrees) == (pytest.approx(stats.chi2.sf(sum(parts), 2)), 2)
    assert "0.6950, 0.3050 of 2000 units against 0.7000, 0.3000" in balance.reason
    both = [{"control": 940, "soft": 60}, {"control": 560, "soft": 440}]
    each = [check_balance(*pair).p_value for pair in zip(both, weights, strict=True)]
    assert check_balance(both, weights).p_value == pytest.approx(each[0] * each[1])
    assert check_balance({"control": 1390, "soft": 610}, HALVES).verdict == "failure"
    assert check_balance([*units, {}], [*weights, HALVES]).verdict == "success"


def test_balance_under_continuous_peeking() -> None:
    """False alarms of 4,000 checks after every tenth of 2,000 units stay below alpha; a lost tenth is seen."""
    rng = np.random.default_rng(3)

    def alarm(share: float, alpha: float, repeats: int) -> float:
        counts = rng.binomial(10, share, (repeats, 200)).cumsum(1)
        total = np.arange(1, 201) * 10
        table = {(n, k): check_balance({"control": n - k, "soft": k}, HALVES, alpha=alpha).verdict == "failure"
                 for n, column in zip(total.tolist(), counts.T, strict=True) for k in set(column.tolist())}  # fmt: skip
        return float(np.mean([any(table[n, k] for n, k in zip(total.tolist(), row, strict=True))
                              for row in counts.tolist()]))  # fmt: skip

    assert alarm(0.5, 0.05, 4000) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert alarm(0.4, 0.001, 200) > 0.95


def test_outcomes_that_come_alike_raise_no_alarm_however_often_one_looks() -> None:
    """Of 300 A/A tests looked at every 20 of 1,000 units, a tenth of outcomes missing; 0 and 10 % are told apart."""
    rng = np.random.default_rng(5)

    def alarms(missing: tuple[float, float], alpha: float) -> float:
        arm = rng.random((300, 1000)) < 0.5
        lost = rng.random(arm.shape) < np.where(arm, missing[1], missing[0])
        counts = [part.cumsum(1)[:, 19::20] for part in (~arm & ~lost, arm & ~lost, ~arm & lost, arm & lost)]
        runs = np.stack(counts, axis=-1).tolist()
        return float(np.mean([any(
            check_outcomes([{"control": a, "soft": b}], [{"control": c, "soft": d}], [HALVES], alpha=alpha).verdict
            == "failure" for a, b, c, d in run) for run in runs]))  # fmt: skip

    assert alarms((0.1, 0.1), 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    assert alarms((0.0, 0.1), 0.001) > 0.9
    few = check_outcomes([{"control": 40, "soft": 0}], [{"control": 0, "soft": 0}], [HALVES])
    assert few.verdict == "failure"  # an arm that is empty is seen at forty units


def test_balance_says_nothing_without_units() -> None:
    """And its p value never rises."""
    assert check_balance({}, HALVES).verdict == "inconclusive"
    assert check_balance({"control": 5, "soft": 5}, HALVES, p_before=1e-6).verdict == "failure"
    for units, weights in [({"else": 1}, HALVES), ({}, {"control": 1.0}), ({}, HALVES | {"soft": -1.0})]:
        with pytest.raises(InputError, match="two arms at least"):
            check_balance(units, weights)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_has_the_p_value_of_statsmodels(first: int, second: int) -> None:
    """The mid-p is the mean of the exact one and the one without the value seen."""
    exact = other_mcnemar([[0, first], [second, 0]], exact=True).pvalue
    middle = mcnemar(500, first, second, Allowed(at_most=0.0))
    dist = stats.binom(first + second, 0.5)
    assert middle.p_value == pytest.approx(2 * dist.cdf(min(first, second)) - dist.pmf(min(first, second)))
    assert middle.p_value <= exact + 1e-12


def covered(contrast: Contrast, value: float) -> bool:
    assert contrast.low is not None
    assert contrast.high is not None
    return contrast.low <= value <= contrast.high


def test_paired_intervals_cover() -> None:
    """McNemar's and the bootstrap's at 95 % (both ends allowed), within two points of it."""
    rng = np.random.default_rng(5)
    within = Allowed(-1.0, 1.0)
    tables = rng.multinomial(200, [0.08, 0.05, 0.87], 4000)
    hits = [covered(mcnemar(200, a, b, within), -0.03) for a, b, _ in tables.tolist()]
    assert 0.94 <= np.mean(hits) <= 0.975
    hits = []
    for seed in range(300):
        values = rng.normal(0.3, 1, 150)
        contrast = paired_bootstrap(150, lambda rows, v=values: float(v[rows].mean()), within, seed=seed, resamples=400)
        hits.append(covered(contrast, 0.3))
    assert 0.90 <= np.mean(hits) <= 0.985


def test_bootstrap_repeats_by_its_seed_and_refuses_to_guess() -> None:
    """Same seed, same interval; a statistic without value on a resample has no interval."""
    values = np.random.default_rng(1).normal(0, 1, 50)

    def run(seed: int) -> Contrast:
        return paired_bootstrap(50, lambda rows: float(values[rows].mean()), Allowed(at_most=2.0), seed=seed)

    assert run(4) == run(4)
    assert run(4).low != run(5).low
    assert run(4).verdict == "success"
    lost = paired_bootstrap(50, lambda _rows: math.nan, Allowed(at_most=2.0), seed=1)
    assert (lost.verdict, lost.value) == ("inconclusive", None)
