"""Every metric that can be judged has a direction, or is named as one that has none."""

import numpy as np
import pytest

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation import better, evaluate, primary
from retrodict.evaluation.directions import HIGHER, LOWER, NEITHER
from retrodict.evaluation.gates import GATE_METRICS


def test_the_sets_share_no_name():
    assert not HIGHER & LOWER
    assert not NEITHER & (HIGHER | LOWER)


@pytest.mark.parametrize("task", GATE_METRICS)
def test_every_metric_of_a_gate_is_in_one_set(task):
    assert not set(GATE_METRICS[task]) - (HIGHER | LOWER | NEITHER)


@pytest.mark.parametrize("task", ["binary", "regression", "count", "ranking"])
def test_a_perfect_output_beats_a_bad_one_in_every_direction(task):
    """The oracle is the evaluation itself: labels as outputs against labels in another order."""
    labels = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0] * 20) + (task == "count")
    good = 0.1 + 0.8 * labels if task in ("binary", "ranking") else labels + 0.01
    bad = np.random.default_rng(3).permutation(good)
    target = Target(task)
    best, worst = (evaluate(labels, outputs, target).values() for outputs in (good, bad))
    judged = [name for name in best if name not in NEITHER and None not in (best[name], worst[name])]
    assert judged
    for name in judged:
        assert (best[name] > worst[name]) == (better(name) == "higher"), name
    assert better(primary(target)[0]) == ("higher" if primary(target)[1] else "lower")


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ('recall["sweet"]', "higher"),
        ("dp_ratio(sex)", "higher"),
        ("dp_difference(sex)", "lower"),
        ("pinball_q0_9", "lower"),
        ("val_loss", "lower"),
        ("training_accuracy_score", "higher"),
    ],
)
def test_a_metric_of_a_part_goes_the_way_of_the_whole(name, direction):
    assert better(name) == direction


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("calibration_ratio", "right at one value"),
        ("coverage_q0_9", "right at one value"),
        ("rsme", "Did you mean the metric .*'rmse'.*, or say better="),
    ],
)
def test_an_unknown_direction_is_said(name, remedy):
    with pytest.raises(InputError, match=f"must have a direction that is known; got '{name}'.*{remedy}"):
        better(name)
