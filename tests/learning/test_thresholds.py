"""Thresholds of recipes: alarms are of every row that was decided, and what test rows do not keep is said."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from scipy.stats import binomtest

from retrodict.core.durations import DAY
from retrodict.core.errors import DefinitionError
from retrodict.estimators import cut_by_constraint
from retrodict.learning.frame import Frame
from retrodict.learning.recipes import run_recipe
from retrodict.models.definitions import Recipe
from retrodict.models.splits import RandomSplit, TimeSplit
from retrodict.models.steps import Threshold

START = 1_704_067_200_000_000  # 2024-01-01
SPLIT = TimeSplit("2024-01-01/2024-05-01", validate="2 months", test="2 months")


def fitted(threshold: Threshold, *, split=SPLIT, drift: float = 0.0, late: int = 55):
    """Eight months of twenty rows a day, outcomes known up to ``late`` days later; scores of x drift in July."""
    rng = np.random.default_rng(0)
    n = 244 * 20
    at = START + np.sort(rng.integers(0, 244 * DAY, n))
    x = rng.normal(size=n) + drift * (at >= START + 182 * DAY)
    labels = (rng.random(n) < expit(1.2 * (x - drift * (at >= START + 182 * DAY)) - 2.5)).astype(float)
    known = at + rng.integers(1, late * DAY, n)
    frame = Frame(pa.table({"x": x}), ("x",), at, labels, known)
    parts = split.assign(frame, now=START + 400 * DAY)
    trained = run_recipe(Recipe("logistic", split, threshold=threshold), frame, parts, ladder=False)
    scores = trained.calibrator.apply(trained.engine.scores(trained.inputs.encode_columns(frame.columns(np.arange(n)))))
    return trained, frame, parts, scores


def test_alarms_are_counted_of_rows_whose_outcome_came_too_late() -> None:
    """Of all in May and June, by hand; half of the rows have no outcome in time."""
    trained, frame, parts, scores = fitted(Threshold.alarms(3))
    inside = (frame.at >= START + 121 * DAY) & (frame.at < START + 182 * DAY)
    assert len(parts["validate"]) < 0.7 * inside.sum()
    rate = (scores[inside] >= trained.threshold).sum() / 61
    assert 2.8 < rate <= 3
    reason = trained.notes["threshold"]["reason"]
    assert f"counted of {inside.sum():,} rows that were decided in 61 days." in reason
    assert not any("alarms a day" in sentence for sentence in trained.warnings)


def test_alarms_of_a_sample_count_for_all_rows() -> None:
    """A random part holds a fifth of the rows of its days."""
    trained, frame, parts, scores = fitted(Threshold.alarms(3), split=RandomSplit())
    moments = frame.at[parts["validate"]]
    inside = ((frame.at >= moments.min()) & (frame.at <= moments.max())).sum()
    assert (scores >= trained.threshold).sum() / 244 == pytest.approx(3, rel=0.2)
    assert f"counted of {inside:,} rows" in trained.notes["threshold"]["reason"]


@pytest.mark.parametrize(
    ("threshold", "warning"),
    [
        (Threshold.alarms(1), "at most 1 alarms a day: in the 6"),
        (Threshold.capacity(0.05), r"at most 0.05 of the rows above it: of the test rows it is 0\."),
        (Threshold.precision(0.3), r"a precision of at least 0.3: on the test rows it is 0\.\d+, at most 0\.[12]"),
    ],
)
def test_what_the_test_rows_do_not_keep_is_a_warning(threshold: Threshold, warning: str) -> None:
    """Scores rise in July, outcomes do not."""
    assert any(re.search(warning, sentence) for sentence in fitted(threshold, drift=2.0)[0].warnings)


def test_a_precision_on_few_rows_says_so() -> None:
    """In the reason, with Wilson's interval by scipy, and as a warning."""
    trained = fitted(Threshold.precision(0.9))[0]
    choice = trained.notes["threshold"]
    low = binomtest(choice["basis"], choice["basis"]).proportion_ci(method="wilson").low
    assert 1 <= choice["basis"] < 9
    assert f"100.0% of {choice['basis']} rows above it are a yes ({low:.1%} to 100.0%)" in choice["reason"]
    assert any(f"rests on {choice['basis']} validation rows" in sentence for sentence in trained.warnings)


def test_a_recall_rests_on_rows_with_a_yes() -> None:
    cutoff = cut_by_constraint([0.1, 0.4, 0.8, 0.9], [0, 1, 0, 1], recall=0.8)
    assert cutoff.basis == 2
    assert "100.0% of 2 rows with a yes are above it (34.2% to 100.0%)" in cutoff.reason


def test_a_number_is_answered_with_how_it_is_written() -> None:
    with pytest.raises(DefinitionError, match=r"must be a Threshold; got 0.5. Write threshold=Threshold.fixed\(0.5\)"):
        Recipe("logistic", SPLIT, threshold=0.5)
