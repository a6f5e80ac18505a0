"""What variants are made of: fewer rounds, students, integers; each judged by figures computed here anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation import Metric
from retrodict.learning import variants
from retrodict.learning.optimisation import _refusal
from retrodict.learning.variants import applies, measure_loss
from retrodict.models import get_estimator, load_engine
from retrodict.models.engines.composite import PreparedEngine
from retrodict.testing.estimators import make_problem

PARAMS = {
    "lightgbm": {"num_iterations": 60, "early_stopping_round": 0},
    "xgboost": {"num_boost_round": 60},
    "catboost": {"iterations": 60},
}


def fitted(name, task="binary", **params):
    problem = replace(make_problem(task, rows=1_500), params={**PARAMS.get(name, {}), **params})
    return problem, get_estimator(name).solve(problem).engine


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
def test_the_first_rounds_are_those_of_a_fit_that_ended_there(name):
    """Of as many iterations, from the same seed; stored and read, they answer alike."""
    if name != "lightgbm":
        pytest.importorskip(name)
    total = next(iter(PARAMS[name]))
    problem, engine = fitted(name)
    problem = replace(problem, validate=None, params={**problem.params, total: 60})
    whole = get_estimator(name).solve(problem).engine
    short = get_estimator(name).solve(replace(problem, params={**problem.params, total: 7})).engine
    cut = whole.first(7)
    assert cut.iterations == 7
    assert cut.scores(problem.train.matrix).tobytes() == short.scores(problem.train.matrix).tobytes()
    again = load_engine(engine.kind, cut.parts())
    assert again.scores(problem.train.matrix).tobytes() == cut.scores(problem.train.matrix).tobytes()


def test_a_student_learns_from_its_teacher_and_from_no_label():
    """Labels that were drawn anew change nothing of what it learns."""
    problem, teacher = fitted("lightgbm")
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, len(problem.train.labels)).astype(np.float64)
    drawn = replace(problem, train=replace(problem.train, labels=labels))
    student, other = (variants._distil(teacher, one, "lightgbm").engine for one in (problem, drawn))
    matrix = problem.validate.matrix
    assert student.scores(matrix).tobytes() == other.scores(matrix).tobytes()
    assert np.corrcoef(student.scores(matrix), teacher.scores(matrix))[0, 1] > 0.95


def test_a_ranking_has_no_student():
    """Its relevances are of groups: said before anything is fitted."""
    _, engine = fitted("lightgbm", "ranking")
    assert "binary, multiclass, regression, count" in applies(engine, "distil")
    assert applies(engine, "prune") == ""


def test_a_loss_is_that_of_the_area_under_the_curve_and_of_others_a_share():
    """Against scikit-learn, and against sums written out."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 600).astype(np.float64)
    before, after = (np.clip(labels * gain + random.random(600), 0, 2) / 2 for gain in (0.8, 0.4))
    loss = measure_loss(before, after, labels, Target(), None)
    assert loss.value == pytest.approx(roc_auc_score(labels, before) - roc_auc_score(labels, after), abs=1e-12)
    assert loss.low < loss.value < loss.high
    errors = [(labels - values) ** 2 for values in (before, after)]
    share = measure_loss(before, after, labels, Target("regression"), None)
    assert share.value == pytest.approx(errors[1].mean() / errors[0].mean() - 1, rel=1e-9)
    few = measure_loss(before[:50], after[:50], labels[:50], Target(), None)
    assert few.value is None
    assert "50 labelled rows" in few.reason


@pytest.mark.parametrize(
    ("loss", "gains", "says"),
    [
        (Metric("auc", None, "too few", 9), (2.0,), "not evaluable: too few"),
        (Metric("auc", 0.0005, None, 900, -0.001, 0.00201), (2.0,), "may lose 0.002"),
        (Metric("auc", -0.01, None, 900, -0.02, -0.001), (1.0, 0.9, None), "neither faster nor smaller"),
        (Metric("auc", 0.0005, None, 900, -0.001, 0.002), (0.5, None, 1.01), ""),
    ],
)
def test_a_variant_is_registered_only_within_the_loss_and_for_a_gain(loss, gains, says):
    """The upper end of the interval counts, and one gain suffices."""
    assert says in (reason := _refusal(loss, 0.002, *gains))
    assert bool(says) == bool(reason)


def test_rounds_are_cut_inside_what_stands_around_them():
    """Steps before the trees stay."""
    problem, engine = fitted("lightgbm")
    around = PreparedEngine((), engine, engine.width)
    cut = variants._inside(around, lambda inner, _: inner.first(3), problem.train.matrix)
    assert isinstance(cut, PreparedEngine)
    assert cut.scores(problem.train.matrix).tobytes() == engine.first(3).scores(problem.train.matrix).tobytes()


def test_pruning_that_costs_too_much_is_refused(monkeypatch):
    """Where nine tenths of the rounds lose more than half of what may be lost."""
    problem, engine = fitted("lightgbm")
    monkeypatch.setattr(variants, "measure_loss", lambda *_: Metric("auc", 0.06, None, 900, 0.05, 0.07))
    with pytest.raises(InputError, match="no more than half of the stated loss"):
        variants._prune(engine, problem, 0.1)


def test_integers_are_calibrated_and_answer_a_row_as_a_batch():
    """A sample whose ranges were guessed agreed with its original in 50.2 % of the answers: here it is 97 or more."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    from retrodict.models.engines.onnx import convert_network

    problem, network = fitted("network", layers=[128, 64])
    matrix = problem.validate.matrix
    integers = convert_network(network, problem.train.matrix, int8=True)
    assert ((integers.scores(matrix) > 0.5) == (network.scores(matrix) > 0.5)).mean() > 0.97
    alone = np.array([integers.score_row(row) for row in matrix[:100]])
    assert alone.tobytes() == integers.scores(matrix)[:100].tobytes()
    again = load_engine("network_onnx", integers.parts())
    assert again.scores(matrix).tobytes() == integers.scores(matrix).tobytes()
    assert again.fingerprint() == convert_network(network, problem.train.matrix, int8=True).fingerprint()
    floats = convert_network(network, problem.train.matrix, int8=False)
    np.testing.assert_allclose(floats.scores(matrix), network.scores(matrix), atol=1e-5)
    sizes = [sum(map(len, engine.parts().values())) for engine in (integers, network)]
    assert sizes[0] < sizes[1] / 2
