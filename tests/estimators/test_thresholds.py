"""Thresholds: every one of them tried by brute force is the oracle of the one that is chosen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.estimators import Cutoff, cut_by_capacity, cut_by_constraint, cut_by_cost

rows = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 1.0]), st.integers(0, 1)), min_size=1,
                max_size=30)  # fmt: skip


def brute(scores: Any, labels: Any, threshold: float) -> tuple[int, int, int]:
    """True and false alarms, and misses, at one threshold."""
    yes = [score >= threshold for score in scores]
    hits = sum(1 for y, label in zip(yes, labels, strict=True) if y and label)
    return hits, sum(yes) - hits, sum(labels) - hits


@settings(max_examples=200, deadline=None)
@given(rows, st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from([0.5, 1.0, 6.0]))
def test_no_threshold_costs_less(pairs: list[tuple[float, int]], wrong_yes: float, wrong_no: float) -> None:
    """Of all between the scores; of those that cost as much it is the highest, so the order of rows does not matter."""
    scores, labels = zip(*pairs, strict=True)
    cutoff = cut_by_cost(scores, labels, false_positive=wrong_yes, false_negative=wrong_no)
    costs = {t: (wrong_yes * false + wrong_no * missed) / len(scores)
             for t in [*sorted(set(scores)), np.nextafter(max(scores), 2)]
             for _, false, missed in [brute(scores, labels, t)]}  # fmt: skip
    assert cutoff.cost == pytest.approx(min(costs.values()))
    assert cutoff.threshold == max(t for t, cost in costs.items() if cost == pytest.approx(min(costs.values())))
    assert cut_by_cost(scores[::-1], labels[::-1], false_positive=wrong_yes, false_negative=wrong_no) == cutoff
    assert Cutoff.from_dict(json.loads(json.dumps(cutoff.to_dict()))) == cutoff


@settings(max_examples=200, deadline=None)
@given(rows, st.sampled_from([0.2, 0.5, 0.8, 1.0]), st.sampled_from(["precision", "recall"]))
def test_the_constraint_is_kept_by_the_best(pairs: list[tuple[float, int]], least: float, name: str) -> None:
    """The most recall at a precision, the most precision at a recall; or it is said to be out of reach."""
    scores, labels = zip(*pairs, strict=True)
    cutoff = cut_by_constraint(scores, labels, **{name: least})
    measured = []
    for threshold in set(scores):
        hits, false, missed = brute(scores, labels, threshold)
        if hits + missed:
            measured.append({"precision": hits / (hits + false), "recall": hits / (hits + missed)})
    other = "recall" if name == "precision" else "precision"
    good = [values[other] for values in measured if values[name] >= least]
    assert cutoff.reached == bool(good)
    if good:
        assert getattr(cutoff, other) == pytest.approx(max(good))
        assert getattr(cutoff, name) >= least - 1e-12
    else:
        assert (cutoff.threshold, cutoff.cost) == (None, None)
        assert cutoff.reason.startswith(f"No threshold has {name} of {least:g}: ")


@settings(max_examples=200, deadline=None)
@given(rows, st.integers(1, 12))
def test_capacity_is_filled_as_far_as_ties_allow(pairs: list[tuple[float, int]], capacity: int) -> None:
    """No more rows than there is room for, and the next score would be too many; alarms a day are the same question."""
    scores, labels = zip(*pairs, strict=True)
    cutoff = cut_by_capacity(scores, labels, rows=capacity)
    counts = {t: sum(score >= t for score in scores) for t in set(scores)}
    fitting = [t for t, count in counts.items() if count <= capacity]
    assert cutoff.threshold == (min(fitting) if fitting else None)
    assert cutoff.reached == bool(fitting)
    alarms = cut_by_constraint(scores, labels, alarms_per_day=capacity / 4, days=4)
    assert alarms.threshold == cutoff.threshold
    if len(scores) >= capacity:
        assert cut_by_capacity(scores, labels, share=capacity / len(scores)).threshold == cutoff.threshold


def test_what_is_out_of_reach_is_said() -> None:
    """With what there is instead; no threshold is invented."""
    scores, labels = [0.9, 0.8, 0.8, 0.1], [0, 1, 0, 0]
    assert (
        cut_by_constraint(scores, labels, precision=0.6).reason
        == "No threshold has precision of 0.6: the most is 0.333."
    )
    none = cut_by_constraint([0.3, 0.2], [0, 0], recall=0.5)
    assert none.reason == "No threshold has recall of 0.5: no label is a yes."
    tied = cut_by_capacity([0.5, 0.5, 0.5], [1, 0, 0], rows=2)
    assert tied.reason == "No threshold has 2 rows or fewer above it: 3 share the highest score."
    alarms = cut_by_constraint([0.5, 0.5, 0.5], [1, 0, 0], alarms_per_day=1, days=2)
    assert alarms.reason == "No threshold has alarms per day of 1: the highest score alone has 1.5."


def test_nothing_may_be_worth_a_yes() -> None:
    """Then the threshold lies above every score, and the reason says so."""
    cutoff = cut_by_cost([0.2, 0.6], [0, 0], false_positive=1, false_negative=6)
    assert (cutoff.yes, cutoff.cost, cutoff.precision, cutoff.recall) == (0.0, 0.0, None, None)
    assert cutoff.threshold is not None
    assert cutoff.threshold > 0.6
    assert cutoff.reason.endswith("No score is worth a yes.")


def test_the_interval_covers_the_cost_of_new_rows() -> None:
    """At a threshold by calibrated scores, in about 95 of 100 repetitions; and it is near fp / (fp + fn)."""
    rng = np.random.default_rng(1)
    covered, thresholds = 0, []
    fresh = rng.random(200_000) ** 2
    fresh_labels = rng.random(fresh.size) < fresh
    for seed in range(100):
        scores = rng.random(2000) ** 2
        cutoff = cut_by_cost(scores, (rng.random(2000) < scores) * 1, false_positive=1, false_negative=6, seed=seed)
        thresholds.append(cutoff.threshold)
        yes = fresh >= cutoff.threshold
        true = (yes & ~fresh_labels).mean() + 6 * (~yes & fresh_labels).mean()
        covered += cutoff.low <= true <= cutoff.high  # type: ignore[operator]
    assert 85 <= covered <= 99
    assert np.median(thresholds) == pytest.approx(1 / 7, abs=0.03)


def test_weights_count_like_so_many_rows() -> None:
    """In cost, precision and recall."""
    rng = np.random.default_rng(2)
    scores, weights = rng.random(200).round(2), rng.integers(0, 4, 200)
    labels = (rng.random(200) < scores) * 1
    weighted = cut_by_cost(scores, labels, false_negative=3, weights=weights)
    repeated = cut_by_cost(scores.repeat(weights), labels.repeat(weights), false_negative=3)
    assert weighted.cost == pytest.approx(repeated.cost)
    assert (weighted.precision, weighted.recall) == pytest.approx((repeated.precision, repeated.recall))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cut_by_cost([], []), "there must be rows"),
        (lambda: cut_by_cost([0.1], [2]), "labels 0 or 1"),
        (lambda: cut_by_cost([float("nan")], [1]), "scores must be finite"),
        (
            lambda: cut_by_cost([0.1], [1], false_positive=-1),
            r"costs must be zero or more, and not both zero; got \(-1.0",
        ),
        (lambda: cut_by_constraint([0.1], [1]), "a threshold must have one constraint"),
        (lambda: cut_by_constraint([0.1], [1], precision=0.5, recall=0.5), "a threshold must have one constraint"),
        (
            lambda: cut_by_constraint([0.1], [1], recall=80),
            r"a share must be above 0 and up to 1.*got \('recall', 80.0",
        ),
        (lambda: cut_by_constraint([0.1], [1], alarms_per_day=3), "alarms be counted over days"),
        (lambda: cut_by_capacity([0.1], [1]), "a capacity must be a number of rows, or a share"),
        (lambda: cut_by_capacity([0.1], [1], share=5), "a capacity must be a number of rows, or a share"),
    ],
)
def test_senseless_settings_are_refused(call: Any, message: str) -> None:
    """With the rule and what was got."""
    with pytest.raises(InputError, match=message):
        call()
