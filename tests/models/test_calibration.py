"""Calibration: monotone, within [0, 1], one answer for a column and for a number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from scipy.special import logit as log_odds
from sklearn.isotonic import IsotonicRegression

from retrodict.core.errors import InputError, NotFoundError
from retrodict.models import IsotonicCalibrator, NoCalibrator, SigmoidCalibrator, fit_isotonic, fit_sigmoid
from retrodict.models.calibration import fit_none, fit_one_vs_rest, fit_temperature, load_calibrator

# The first call loads libraries, and machines are shared: a deadline would judge those.
PATIENT = settings(deadline=None)
UNIT = st.floats(0.0, 1.0)
SAMPLES = st.lists(st.tuples(UNIT, st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)
FITS = [fit_isotonic, fit_sigmoid, lambda scores, labels: NoCalibrator()]


def columns(sample: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.array(sample, dtype=np.float64).T
    return scores, labels


@pytest.mark.parametrize("fit", [fit_isotonic, lambda s, y: NoCalibrator()])
@PATIENT
@given(sample=SAMPLES, probes=st.lists(UNIT, min_size=1))
def test_order_and_bounds_are_kept_exactly(fit, sample, probes):
    """A higher score never gets a lower probability, not even by one rounding, and none leaves [0, 1]."""
    knots = columns(sample)[0]
    near = np.concatenate([knots, np.nextafter(knots, 0), np.nextafter(knots, 1), probes, [0.0, 1.0]])
    rates = fit(*columns(sample)).apply(np.sort(near))
    assert np.all(np.diff(rates) >= 0)
    assert rates[0] >= 0
    assert rates[-1] <= 1


def test_order_is_kept_where_numpy_interp_overshoots():
    """Just below a knot the straight line may round above it: numpy.interp lets it, here it is held."""
    rng = np.random.default_rng(0)
    overshoots = 0
    for _ in range(2_000):
        # A lower knot one bit finer than the grid of the upper one, so that the width of the step rounds.
        lower, upper = (2 * rng.integers(0, 2**40) + 1) * 2.0**-54, rng.integers(3 * 2**51, 2**53) * 2.0**-53
        knots, rates, below = (float(lower), float(upper)), (0.0, float(rng.random())), np.nextafter(upper, 0)
        overshoots += int(np.interp(below, knots, rates) > rates[1])
        calibrator = IsotonicCalibrator(knots, rates)
        assert calibrator.apply(np.array([below]))[0] <= rates[1]
        assert calibrator.apply_one(float(below)) <= rates[1]
    assert overshoots > 0


@PATIENT
@given(sample=SAMPLES, probes=st.lists(UNIT, min_size=1))
def test_a_sigmoid_keeps_order_up_to_rounding(sample, probes):
    """The exponential of the C library is only promised to a rounding."""
    rates = fit_sigmoid(*columns(sample)).apply(np.sort([*probes, 0.0, 1.0]))
    assert np.all(np.diff(rates) >= -1e-15)
    assert np.all((rates >= 0) & (rates <= 1))


@pytest.mark.parametrize("fit", FITS)
@PATIENT
@given(sample=SAMPLES, probes=st.lists(UNIT, min_size=1))
def test_a_column_equals_its_values_one_by_one(fit, sample, probes):
    """Bit for bit, at the knots and between them, also after JSON."""
    calibrator = fit(*columns(sample))
    scores = np.array([*probes, *columns(sample)[0], 0.0, 1.0])
    rates = calibrator.apply(scores)
    again = load_calibrator(calibrator.to_json())
    assert again == calibrator
    assert rates.tobytes() == np.array([again.apply_one(s) for s in scores.tolist()]).tobytes()


@PATIENT
@given(sample=SAMPLES, probes=st.lists(UNIT, min_size=1))
def test_isotonic_is_scikit_learns(sample, probes):
    """Against the knots of the regression itself, held where Platt puts the targets of as many rows."""
    scores, labels = columns(sample)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
    positives, negatives = labels.sum(), (1 - labels).sum()
    rates = np.clip(fitted.y_thresholds_, 1 / (negatives + 2), (positives + 1) / (positives + 2))
    expected = np.interp(probes, fitted.X_thresholds_, rates)
    np.testing.assert_allclose(fit_isotonic(scores, labels).apply(np.array(probes)), expected, atol=1e-9)


def test_isotonic_agrees_with_numpy_interp():
    """Between well-spaced knots the line is the line."""
    calibrator = IsotonicCalibrator((0.1, 0.4, 0.9), (0.05, 0.3, 0.8))
    probes = np.linspace(0, 1, 1_001)
    np.testing.assert_allclose(
        calibrator.apply(probes), np.interp(probes, calibrator.scores, calibrator.rates), atol=1e-15
    )


def test_the_sigmoid_is_platts_optimum():
    """Against a direct minimisation of Platt's smoothed log loss."""
    rng = np.random.default_rng(4)
    truth = rng.random(500)
    labels = (rng.random(500) < truth).astype(float)
    scores = expit(2.5 * log_odds(truth) - 0.7)
    up, down = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (up + 1) / (up + 2), 1 / (down + 2))

    def loss(w: np.ndarray) -> float:
        margin = w[0] * log_odds(scores) + w[1]
        return float((np.logaddexp(0, margin) - target * margin).sum())

    expected = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8}).x
    fitted = fit_sigmoid(scores, labels)
    assert (fitted.slope, fitted.intercept) == pytest.approx(tuple(expected), rel=1e-4)
    assert fitted.slope == pytest.approx(1 / 2.5, rel=0.3)


def test_scores_that_point_the_wrong_way_get_the_base_rate():
    """Both fits go level rather than turn the order round."""
    scores, labels = np.linspace(0.01, 0.99, 100), (np.arange(100) < 30).astype(float)
    for fit in (fit_isotonic, fit_sigmoid):
        np.testing.assert_allclose(fit(scores, labels).apply(np.array([0.1, 0.9])), 0.3, atol=0.02)


@pytest.mark.parametrize("fit", [fit_isotonic, fit_sigmoid])
@pytest.mark.parametrize(
    ("scores", "labels"), [([], []), ([0.5], []), ([0.5], [0.5]), ([1.5], [1.0]), ([np.nan], [1.0])]
)
def test_rows_that_cannot_be_calibrated_on_are_refused(fit, scores, labels):
    """No rows, unequal lengths, and numbers that are no scores or labels."""
    with pytest.raises(InputError, match="calibration"):
        fit(np.array(scores, dtype=np.float64), np.array(labels, dtype=np.float64))


def test_maps_that_break_the_promise_are_refused():
    """Knots and slopes are checked when they are made, so also when they are read."""
    for scores, rates in [((0.2, 0.1), (0.1, 0.2)), ((0.1, 0.2), (0.2, 0.1)), ((0.1,), (1.1,)), ((), ())]:
        with pytest.raises(InputError, match="calibration"):
            IsotonicCalibrator(scores, rates)
    with pytest.raises(InputError, match="zero or more"):
        SigmoidCalibrator(-1.0, 0.0)
    with pytest.raises(NotFoundError, match="'sigmoid'"):
        load_calibrator(b'{"kind":"sigmoyd"}')


@pytest.mark.parametrize("fit", [fit_sigmoid, fit_isotonic])
def test_each_class_is_calibrated_against_the_rest(fit):
    """Against the same fits by hand, divided by their sum; one row as many; the stored form is the whole of it."""
    rng = np.random.default_rng(2)
    scores = rng.dirichlet([1, 2, 3], size=300)
    labels = (rng.random((300, 1)) > scores.cumsum(axis=1)).sum(axis=1).clip(max=2).astype(float)
    fitted = fit_one_vs_rest(fit, scores, labels)
    raw = np.column_stack([fit(scores[:, at], (labels == at).astype(float)).apply(scores[:, at]) for at in range(3)])
    answers = fitted.apply(scores)
    assert answers == pytest.approx(raw / raw.sum(axis=1, keepdims=True), abs=1e-15)
    assert [fitted.apply_one(tuple(row)) for row in scores[:50].tolist()] == [tuple(r) for r in answers[:50].tolist()]
    assert load_calibrator(fitted.to_json()) == fitted


@pytest.mark.parametrize("classes", [2, 3])
def test_rows_that_scores_tell_apart_make_no_certainty(classes: int):
    """Thirty-six separable rows: a temperature asked for a slope without end, votes said 0 and 1."""
    labels = np.arange(36) % classes
    scores = np.where(np.arange(classes) == labels[:, None], 0.6, 0.4 / (classes - 1))
    votes = np.concatenate([np.eye(classes), scores])
    warm = fit_temperature(scores, labels)
    assert load_calibrator(warm.to_json()) == warm
    assert warm.apply(votes).min() >= 1 / (36 + classes)
    assert warm.apply(scores).max() < 1 - 1 / 36
    assert warm.apply(votes).sum(axis=1) == pytest.approx(1, abs=1e-12)
    for said in (votes, votes[:, 0]):
        calm = fit_none(said, np.zeros(36))
        assert load_calibrator(calm.to_json()) == calm
        answers = calm.apply(said)
        assert answers.min() >= 0.4 / (36 + classes)
        assert answers.max() <= 1 - 0.4 / (36 + classes)
        assert answers[classes:].tolist() == said[classes:].tolist()
        ones = [calm.apply_one(tuple(v) if isinstance(v, list) else v) for v in said.tolist()]
        assert np.array(ones).tobytes() == answers.tobytes()
    tail = fit_none(scores[:, 0], labels).apply(np.array([0.0, 1e-9, 0.01, 0.99, 1 - 1e-9, 1.0]))
    assert np.all(np.diff(tail) > 0)
