"""Whether a training is sane: nothing is learned of shuffled labels, and what is worse than chance is said."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrodict.learning.frame import Frame
from retrodict.learning.recipes import Trained, run_recipe
from retrodict.models.definitions import Recipe
from retrodict.models.splits import RandomSplit


def trained(labels: np.ndarray, wind: np.ndarray, estimator: str = "logistic", turned: bool = False) -> Trained:
    """Model of one number and a category, split at random; the labels of test rows may mean the opposite."""
    size = len(labels)
    zeros = np.zeros(size, dtype=np.int64)
    place = np.random.default_rng(5).choice(["n", "s", "e"], size)
    table = pa.table({"wind": wind, "place": place})
    split = RandomSplit()
    parts = split.assign(Frame(table, ("wind", "place"), zeros, labels, zeros, timed=False), now=10)
    if turned:
        labels = labels.copy()
        labels[parts["test"]] = 1 - labels[parts["test"]]
    frame = Frame(table, ("wind", "place"), zeros, labels, zeros, timed=False)
    return run_recipe(Recipe(estimator, split, baseline_group="place"), frame, parts)


@pytest.mark.parametrize("estimator", ["logistic", "lightgbm"])
def test_nothing_is_learned_of_shuffled_labels(estimator: str):
    """The label shuffle check: scores at chance, no rung is beaten, nothing looks like a leak."""
    rng = np.random.default_rng(3)
    wind = rng.normal(size=1_500)
    labels = (wind + rng.normal(size=1_500) > 0).astype(float)
    assert trained(labels, wind, estimator).evaluations["test"]["auc"].low > 0.7
    areas = []
    for seed in range(5):
        result = trained(np.random.default_rng(seed).permutation(labels), wind, estimator)
        areas.append(result.evaluations["test"]["auc"].value)
        assert result.ladder.verdict.status != "beats"
        assert result.leaks == ()
    assert abs(np.mean(areas) - 0.5) < 0.05


def test_worse_than_chance_is_a_warning():
    """Labels of the test rows that mean the opposite: the model and its baselines are named."""
    rng = np.random.default_rng(3)
    wind = rng.normal(size=1_500)
    labels = (wind + rng.normal(size=1_500) > 0).astype(float)
    assert trained(labels, wind).warnings == ()
    warnings = trained(labels, wind, turned=True).warnings
    assert any(sentence.startswith("The model ranks the test rows worse than chance (area 0.") for sentence in warnings)
