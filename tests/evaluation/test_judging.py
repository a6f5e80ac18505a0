"""Groups, the ladder, champion and challenger, gates."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.statistics.intervals import mean_interval
from retrodict.core.tasks import Target
from retrodict.evaluation import beats, check_gates, climb, compare_scores, evaluate, evaluate_groups
from retrodict.evaluation.compare import compare_outputs
from retrodict.evaluation.estimates import mean
from retrodict.evaluation.metrics import Metric


def _sample(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(2, 4, size=n)
    return (rng.random(n) < scores).astype(float), scores, rng


# groups


def test_groups_are_evaluations_of_their_own_rows() -> None:
    """Each group equals evaluate over its rows in their order; rows without a group come last."""
    labels, scores, rng = _sample(900)
    groups = rng.choice(np.array(["B6", "AA", None], dtype=object), size=900)
    found = evaluate_groups(labels, scores, groups, threshold=0.4)
    assert [g.group for g in found] == ["AA", "B6", None]
    for part in found:
        rows = np.array([g == part.group for g in groups])
        assert part.evaluation == evaluate(labels[rows], scores[rows], threshold=0.4, min_rows=30)


def test_pending_counts_of_groups_add_up() -> None:
    """Null labels and counted decisions are pending; a group with nothing else is still listed."""
    found = evaluate_groups([1, None, 0], [0.5, 0.5, 0.5], ["a", "a", "b"], pending={"a": 3, "c": 7}, min_rows=1)
    assert {g.group: (g.evaluation.n, g.evaluation.pending) for g in found} == {"a": (1, 4), "b": (1, 0), "c": (0, 7)}
    assert found[2].evaluation["auc"].value is None


def test_small_groups_are_not_evaluable() -> None:
    """An area from a handful of rows is not shown beside real ones."""
    [group] = evaluate_groups([0, 1] * 5, [0.2, 0.9] * 5, [7] * 10)
    assert group.group == "7"
    assert group.evaluation["auc"].reason == "10 labelled rows are fewer than the 30 needed"


def test_no_rows_are_no_groups() -> None:
    """Nothing in, nothing out; lengths that differ are an error."""
    assert evaluate_groups([], [], []) == ()
    with pytest.raises(InputError, match="per row"):
        evaluate_groups([1], [0.5], ["a", "b"])


# ladder


def test_a_better_score_beats_and_noise_does_not() -> None:
    """Paired test: a real gain beats, a jittered copy and the same score do not."""
    labels, scores, rng = _sample()
    weak = scores + rng.normal(0, 0.3, scores.size)
    assert beats(candidate=scores, rung=weak, labels=labels).status == "beats"
    assert beats(candidate=weak, rung=scores, labels=labels).status == "does not beat"
    assert beats(candidate=scores, rung=scores, labels=labels).status == "does not beat"


def test_equal_models_rarely_beat() -> None:
    """Two equally good scores, 400 times: beats in about 2.5 %."""
    rng, wins = np.random.default_rng(1), 0
    labels = np.repeat([0.0, 1.0], 150)
    for _ in range(400):
        one, two = labels + rng.normal(0, 1, 300), labels + rng.normal(0, 1, 300)
        wins += beats(candidate=one, rung=two, labels=labels).status == "beats"
    assert wins <= 22


@pytest.mark.parametrize(
    ("labels", "rung", "reason"),
    [([1, 1, 1], [1, 2, 3], "all 3 rows are positive"), ([None] * 3, [1, 2, 3], "no rows"),
     ([0, 0, 1], [1, 2, 3], "one row only"), ([0, 0, 1], [1, math.nan, 3], "rung: 1 of 3 scores are null")],
)  # fmt: skip
def test_no_claim_without_evidence(labels: list, rung: list, reason: str) -> None:
    """One class, no labels, one row in a class, null scores: not evaluable, with the reason."""
    verdict = beats(candidate=[0.1, 0.2, 0.3], rung=rung, labels=labels)
    assert (verdict.status, verdict.value) == ("not evaluable", None)
    assert reason in verdict.reason


def test_the_ladder_is_climbed_to_its_best_rung() -> None:
    """Rungs from worst to best; the verdict is against the best."""
    labels, scores, rng = _sample()
    rungs = {"good": scores + rng.normal(0, 0.05, scores.size), "constant": np.zeros(scores.size),
             "weak": scores + rng.normal(0, 0.5, scores.size)}  # fmt: skip
    ladder = climb(candidate=scores, rungs=rungs, labels=labels)
    assert [rung.name for rung in ladder.rungs] == ["constant", "weak", "good"]
    assert ladder.best == "good"
    assert ladder.verdict == beats(candidate=scores, rung=rungs["good"], labels=labels)
    assert json.loads(json.dumps(ladder.to_dict()))["best"] == "good"


def test_a_rung_that_cannot_be_judged_leaves_no_claim() -> None:
    """It might be the best one."""
    labels, scores, _ = _sample(50)
    broken = scores.copy()
    broken[0] = np.nan
    ladder = climb(candidate=scores, rungs={"ok": np.zeros(50), "broken": broken}, labels=labels)
    assert (ladder.best, ladder.verdict.status) == (None, "not evaluable")
    with pytest.raises(InputError, match="at least one rung"):
        climb(candidate=scores, rungs={}, labels=labels)


# champion and challenger


def test_the_verdict_follows_the_better_score_both_ways() -> None:
    """Better one way is worse the other way, differences with swapped sign."""
    labels, scores, rng = _sample()
    weak = np.clip(scores + rng.normal(0, 0.2, scores.size), 0, 1)
    ahead = compare_scores(champion=weak, challenger=scores, labels=labels)
    behind = compare_scores(champion=scores, challenger=weak, labels=labels)
    assert (ahead.verdict, behind.verdict) == ("better", "worse")
    assert ahead.auc_difference.value == pytest.approx(-behind.auc_difference.value)
    assert ahead.brier_difference.value < 0 < behind.brier_difference.value


def test_ranking_against_calibration_is_inconclusive() -> None:
    """A sharper ranking with spoilt probabilities: both intervals are clear and disagree."""
    labels, scores, rng = _sample()
    noisy = np.clip(scores + rng.normal(0, 0.1, scores.size), 0, 1)
    found = compare_scores(champion=noisy, challenger=scores**0.25, labels=labels)
    assert found.verdict == "inconclusive"
    assert "AUC speaks for the challenger, Brier against it" in found.reason


def test_a_verdict_comes_with_the_measure_that_it_is_by() -> None:
    """Equal order and better probabilities: an interval of areas around 0 would contradict what is said."""
    labels, scores, _ = _sample()
    found = compare_outputs(champion=scores**0.25, challenger=scores, labels=labels)
    assert (found.verdict, found.difference.name) == ("better", "brier_difference")
    assert found.difference.high < 0
    same = compare_outputs(champion=scores, challenger=scores, labels=labels)
    assert (same.verdict, same.difference.name) == ("inconclusive", "auc_difference")
    jitter = np.clip(scores + np.random.default_rng(1).normal(0, 0.3, scores.size), 0, 1)
    ahead = compare_outputs(champion=jitter, challenger=scores, labels=labels)
    assert (ahead.verdict, ahead.difference.name) == ("better", "auc_difference")
    assert ahead.difference.low > 0


def test_no_interval_of_a_mean_is_where_none_can_be() -> None:
    """Student's interval by scipy, cut at the bounds of a loss and of a share; a bias has none."""
    few = np.array([0.001, 0.8])
    low, high = stats.t.interval(0.95, 1, few.mean(), stats.sem(few))
    assert low < 0 < 1 < high
    for within, expected in (({}, (0.0, high)), ({"within": (0.0, 1.0)}, (0.0, 1.0)),
                             ({"within": (-math.inf, math.inf)}, (low, high))):  # fmt: skip
        for weights in (None, np.ones(2)):
            value, interval = mean(few, weights, **within)
            assert value == pytest.approx(few.mean())
            assert (interval.low, interval.high) == pytest.approx(expected)
    metrics = evaluate(np.array([0.0, 1.0]), np.array([0.1, 0.2]))
    assert (metrics["brier"].low, metrics["brier"].high) == (0.0, 1.0)
    assert metrics["log_loss"].low == 0.0
    wrong = evaluate(np.array([1.0, 2.0]), np.array([1.5, 4.0]), Target("regression"))
    assert wrong["bias"].low < 0 == wrong["mae"].low


def test_brier_differences_are_paired() -> None:
    """The interval is that of the paired t test."""
    labels, scores, rng = _sample(500)
    other = np.clip(scores + rng.normal(0, 0.1, 500), 0, 1)
    expected = mean_interval((other - labels) ** 2 - (scores - labels) ** 2)
    plain = compare_scores(champion=scores, challenger=other, labels=labels).brier_difference
    assert (plain.low, plain.high) == (expected.low, expected.high)


def test_intervals_have_the_confidence_that_was_asked_for() -> None:
    """Of AUC and ladder by the normal distribution, of Brier by Student's: narrower by the quantile."""
    labels, scores, rng = _sample(500)
    other = np.clip(scores + rng.normal(0, 0.1, 500), 0, 1)
    found = {c: compare_scores(champion=scores, challenger=other, labels=labels, confidence=c) for c in (0.5, 0.95)}
    rungs = {c: climb(candidate=scores, rungs={"other": other}, labels=labels, confidence=c).verdict for c in found}
    normal, student = (law.ppf(0.75) / law.ppf(0.975) for law in (stats.norm, stats.t(499)))
    for name, ratio in (("auc_difference", normal), ("brier_difference", student)):
        narrow, wide = (getattr(found[c], name) for c in (0.5, 0.95))
        assert (narrow.high - narrow.low) / (wide.high - wide.low) == pytest.approx(ratio)
    assert (rungs[0.5].high - rungs[0.5].low) / (rungs[0.95].high - rungs[0.95].low) == pytest.approx(normal)
    assert "50% interval" in rungs[0.5].reason


def test_a_score_at_the_threshold_is_above_it_for_both() -> None:
    """As in the confusion table: two of three decisions agree."""
    found = compare_scores(champion=[0.5, 0.9, 0.2], challenger=[0.5] * 3, labels=[None] * 3, threshold=0.5)
    assert found.agreement.value == pytest.approx(2 / 3)


def test_agreement_counts_pending_decisions_too() -> None:
    """Agreement needs no labels; equal decisions over all rows."""
    found = compare_scores(champion=[0.1, 0.6, 0.7, 0.2], challenger=[0.2, 0.4, 0.9, 0.3], labels=[None] * 4,
                           threshold=0.5)  # fmt: skip
    assert (found.agreement.value, found.pending, found.n, found.verdict) == (0.75, 4, 0, "inconclusive")
    assert found.score_distance.value == pytest.approx(0.15)
    assert "0 labelled rows are fewer than the 100 needed" in found.reason


# gates

_METRICS = {"auc": 0.72, "calibration_error": Metric("calibration_error", None, "no rows", 0), "drops": math.nan,
            "beats_ladder": True, "approved": np.bool_(False), "recall": np.float32(0.5), "pr_auc": None}  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "status"),
    [("auc >= 0.70", "pass"), ("auc >= 0.73", "fail"), ("auc > 0.72", "fail"), ("beats_ladder", "pass"),
     ("approved", "fail"), ("recall = 0.5", "pass"), ("auc >= 0.7 and beats_ladder", "pass"),
     ("calibration_error <= 0.03", "not evaluable"), ("pr_auc >= 0", "not evaluable"), ("drops < 1", "not evaluable"),
     ("auc >= 0.7 or pr_auc >= 0.1", "not evaluable"), ("pr_auc is null", "not evaluable"),
     ("auc >= 0.7 or drops < 1", "not evaluable"), ("drops is null", "not evaluable"),
     ("ouc >= 0.7", "not evaluable"), ("auc", "not evaluable"), ("beats_ladder >= 0.5", "not evaluable")],
)  # fmt: skip
def test_gates_pass_only_on_evidence(gate: str, status: str) -> None:
    """True passes, false fails, and whatever lacks a value is not evaluable."""
    [result] = check_gates([gate], _METRICS)
    assert (result.gate, result.status) == (gate, status)


def test_gate_results_carry_value_and_reason() -> None:
    """The value of the one metric named, the metric's own reason, near names for a typo."""
    passed, absent, typo, both = check_gates(
        ["auc >= 0.7", "calibration_error <= 0.03", "ouc >= 0.7", "auc >= 0.7 and beats_ladder"], _METRICS
    )
    assert (passed.value, passed.reason) == (0.72, "auc is 0.72")
    assert (absent.value, absent.reason) == (None, "calibration_error: no rows")
    assert "Did you mean the metric 'auc'" in typo.reason
    assert (both.value, both.reason) == (None, "auc is 0.72, beats_ladder is true")


def test_evaluations_and_verdicts_feed_gates() -> None:
    """What the rooms return can be judged as it is."""
    labels, scores, _ = _sample()
    metrics = {m.name: m for m in evaluate(labels, scores).metrics}
    verdict = beats(candidate=scores, rung=np.zeros(scores.size), labels=labels)
    results = check_gates(
        ["beats_ladder", "auc >= 0.60", "calibration_error <= 0.03"], metrics | {"beats_ladder": verdict}
    )
    assert [r.status for r in results] == ["pass"] * 3


def test_a_gate_that_does_not_parse_is_a_definition_error() -> None:
    """Broken text is found, with the gate named."""
    with pytest.raises(DefinitionError, match="gate 'auc >='"):
        check_gates(["auc >="], {"auc": 1.0})
