"""Metrics of times to an event against definitions written out pair by pair, and against what is known to be true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.duration.survfunc import SurvfuncRight

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.statistics.survival import censor, event_by, kaplan_meier
from retrodict.core.tasks import Target
from retrodict.evaluation import climb, evaluate
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.gates import check_gate, check_gates
from retrodict.evaluation.survival import horizon_curve

TARGET = Target("survival", horizons=("2d", "5d"))
ROWS = st.lists(
    st.tuples(st.integers(1, 8), st.booleans(), st.integers(0, 4), st.integers(1, 3)), min_size=2, max_size=40
)


def pairs(labels, risk, weights, worth):
    """Share of the comparable pairs that are ranked right, each counted on its own."""
    right = total = 0.0
    for i, one in enumerate(labels):
        for j, other in enumerate(labels):
            if one > 0 and (abs(other) > one or (other == -one)):
                mass = weights[i] * weights[j] * worth(one)
                total += mass
                right += mass * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
    return right / total if total else None


def followed(labels, weights, before):
    """Kaplan-Meier of the end of follow-up, just before a time."""
    share = 1.0
    for time in sorted({-t for t in labels if -before < t < 0}):
        ends = sum(w for t, w in zip(labels, weights, strict=True) if t == -time)
        share *= 1 - ends / sum(w for t, w in zip(labels, weights, strict=True) if abs(t) > time or t == -time)
    return share


@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_both_concordances_are_those_of_every_pair(rows) -> None:
    """With ties of times, of risks, and weights; without a comparable pair there is no value."""
    days, seen, risk, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    labels = np.where(seen == 1, days, -days)
    outputs = np.stack([risk, risk + 1], axis=1) / 10
    result = evaluate(labels, outputs, TARGET, weights=weights)
    expected = pairs(labels, risk, weights, lambda _: 1.0)
    uno = pairs(labels, risk, weights, lambda t: 0.0 if t >= 5 else followed(labels, weights, t) ** -2)
    for name, value in (("c_index", expected), ("c_index_uno", uno)):
        assert result[name].value == (None if value is None else pytest.approx(value)), name
        assert (result[name].reason is None) == (value is not None)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_kaplan_meier_is_that_of_statsmodels(rows) -> None:
    """Shares and their standard errors at the times of events; a repeated row is a weight."""
    days, seen, _, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    labels = np.where(seen == 1, days, -days)
    if not (labels > 0).any():
        assert event_by(labels, np.array([9.0])).tolist() == [0.0]
        return
    curve = SurvfuncRight(days, seen)
    times, shares, sums = kaplan_meier(labels)
    places = np.searchsorted(times, curve.surv_times)
    np.testing.assert_allclose(shares[places], curve.surv_prob, atol=1e-12)
    inside = curve.surv_prob > 1e-9
    errors = np.sqrt(shares[places] ** 2 * sums[places])
    np.testing.assert_allclose(errors[inside], curve.surv_prob_se[inside], atol=1e-12)
    repeated = kaplan_meier(np.repeat(labels, weights.astype(int)))[1]
    np.testing.assert_allclose(kaplan_meier(labels, weights)[1], repeated, atol=1e-12)


def simulated(n, seed, followed_to=12.0):
    """Constant hazards that go with one number, everyone lost at random within twelve days; truth and labels."""
    rng = np.random.default_rng(seed)
    eta = rng.normal(size=n)
    days, ends = rng.exponential(5 * np.exp(-eta)), rng.uniform(0, followed_to, n)
    truth = 1 - np.exp(-np.exp(eta)[:, None] / 5 * np.array(TARGET.days))
    return truth, np.where(days <= ends, days, -ends), days


def test_losing_rows_moves_neither_brier_score_nor_uno() -> None:
    """What censored rows say on average is what all rows say; leaving them out, as is naive, does not."""
    truth, labels, days = simulated(40_000, 1)
    some, every = evaluate(labels, truth, TARGET), evaluate(days, truth, TARGET)
    for name in ("brier_2d", "brier_5d", "integrated_brier", "c_index_uno"):
        assert some[name].low < every[name].value < some[name].high, name
    known = (labels > 0) | (labels < -5)
    naive = float(np.mean((truth[known, 1] - (days[known] <= 5)) ** 2))
    assert abs(naive - every["brier_5d"].value) > 5 * abs(some["brier_5d"].value - every["brier_5d"].value)


def test_a_true_model_is_calibrated_and_a_wrong_one_is_not() -> None:
    """At each horizon, with Greenwood's intervals; halved probabilities stand out."""
    truth, labels, _ = simulated(20_000, 2)
    for place in (0, 1):
        curve = horizon_curve(Rows(labels, truth, TARGET), place)
        assert len(curve) == 10
        assert sum(point.low <= point.mean_score <= point.high for point in curve) >= 8
    right, wrong = (evaluate(labels, outputs, TARGET)["calibration_error_5d"].value for outputs in (truth, truth / 2))
    assert right < 0.02 < 0.15 < wrong


@pytest.mark.slow
def test_intervals_hold_what_is_true() -> None:
    """95 % intervals of 400 samples of 200 rows hold the value of many rows about as often."""
    truth, labels, _ = simulated(200_000, 3)
    many = evaluate(labels, truth, TARGET)
    names = ("c_index", "c_index_uno", "brier_5d", "integrated_brier")
    held = dict.fromkeys(names, 0)
    for seed in range(400):
        truth, labels, _ = simulated(200, 100 + seed)
        sample = evaluate(labels, truth, TARGET)
        for name in names:
            held[name] += sample[name].low <= many[name].value <= sample[name].high
    assert all(366 <= count <= 394 for count in held.values()), held


def test_what_was_not_followed_is_not_evaluable() -> None:
    """A horizon that nine rows were followed to has no score, and nothing is integrated over it; order has."""
    truth, labels, _ = simulated(400, 4, followed_to=5.1)
    short = censor(labels, np.full(400, 4.9))
    result = evaluate(short, truth, TARGET)
    assert result["brier_5d"].value is None
    assert result["brier_5d"].reason == "0 of 400 rows were followed for 5d, fewer than 10"
    assert result["integrated_brier"].reason == result["brier_5d"].reason
    assert result["brier_2d"].value is not None
    assert result["c_index"].value > 0.6
    ends = np.full(400, -5.0)  # followed to the horizon, all of them: nothing is lost
    assert evaluate(np.where(labels > 0, labels, ends), truth, TARGET)["brier_5d"].value is not None


def test_the_ladder_is_judged_on_the_horizons_that_rows_were_followed_to() -> None:
    """Sentence and gate agree; the Brier score is that of a model of them alone."""
    truth, labels, _ = simulated(400, 4, followed_to=5.1)
    short = censor(labels, np.full(400, 4.9))
    flat = np.tile(event_by(short, np.array(TARGET.days)), (400, 1))
    ladder = climb(candidate=truth, rungs={"constant": flat, "half": truth / 2}, labels=short, target=TARGET)
    assert (ladder.best, ladder.verdict.value) == ("half", True)
    over = "over 2d (0 of 400 rows were followed for 5d, fewer than 10)"
    assert all(over in sentence for sentence in ladder.sentences()[:2])
    (gate,) = check_gates(["beats_ladder"], {"beats_ladder": ladder.verdict})
    assert gate.status == "pass"
    two = Target("survival", horizons=("2d",))
    assert ladder.candidate.value == evaluate(short, truth[:, 0], two)["integrated_brier"].value
    whole = climb(candidate=truth, rungs={"constant": flat}, labels=simulated(400, 4)[1], target=TARGET)
    assert "over" not in whole.verdict.reason
    none = climb(candidate=truth, rungs={"constant": flat}, labels=censor(short, np.full(400, 1.0)), target=TARGET)
    assert none.verdict.value is None


@pytest.mark.parametrize(("beyond", "evaluable"), [(9, False), (10, True)])
def test_ten_rows_must_have_been_followed(beyond, evaluable) -> None:
    """To a horizon before which others were lost; with nine it has no score."""
    labels = np.r_[np.full(beyond, -6.0), np.full(30, 1.0), np.full(30, -3.0)]
    metric = evaluate(labels, np.full((len(labels), 2), 0.5), TARGET)["brier_5d"]
    assert (metric.value is not None) == evaluable


def test_a_bin_counts_in_the_calibration_error_by_its_rows() -> None:
    """Eighty rows off by 0.5, and twenty of another probability that are right: 0.4, not 0.25."""
    labels, guess = np.full(100, -6.0), np.r_[np.zeros(20), np.full(80, 0.5)]
    result = evaluate(labels, np.stack([guess, guess], axis=1), TARGET)
    assert result["calibration_error_5d"].value == pytest.approx(0.4)


def test_labels_outputs_and_gates_are_of_the_task() -> None:
    """Zero has no sign, probabilities do not fall with the horizon, and gates read horizons that there are."""
    with pytest.raises(InputError, match="signed days other than 0"):
        evaluate([0.0, 1.0], [[0.1, 0.2]] * 2, TARGET)
    falling = evaluate([1.0, -2.0], [[0.3, 0.2], [0.1, 0.2]], TARGET)
    assert falling["brier_2d"].reason == "1 of 2 rows have a probability that falls with the horizon"
    check_gate("c_index >= 0.65 and brier_5d <= 0.2 and calibration_error_2d < 0.1", TARGET)
    for gate in ("brier_7d <= 0.2", "auc >= 0.7"):
        with pytest.raises(DefinitionError, match="a gate of the task 'survival' must read metrics that it has"):
            check_gate(gate, TARGET)
    for horizons in (("5d", "2d"), ("1h30m",), (), ("0d",)):
        with pytest.raises(DefinitionError, match="horizons must ascend"):
            Target("survival", horizons=horizons)
