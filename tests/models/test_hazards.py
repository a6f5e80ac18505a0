"""Cox and failure times: coefficients of statsmodels, weights as repeated rows, a known hazard found again."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.duration.hazard_regression import PHReg

from retrodict.core.errors import InputError
from retrodict.core.statistics.survival import event_by
from retrodict.core.tasks import Target
from retrodict.evaluation import evaluate
from retrodict.models import Examples, InputSpec, ModelArtifact, Problem, explain_row, get_estimator
from retrodict.models.engines.hazards import _Partial

TARGET = Target("survival", horizons=("2d", "5d", "20d"))


def simulated(n, seed, *, rounded=False, shape=1.0):
    """Weibull times whose logarithm of the hazard is 0.7 a - 0.4 b, one row in three lost."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, 2))
    days = (rng.exponential(size=n) / np.exp(matrix @ [0.7, -0.4]) * 6) ** (1 / shape)
    ends = rng.exponential(12, n)
    if rounded:
        days, ends = np.ceil(days), np.ceil(ends)
    return matrix, np.where(days <= ends, days, -ends)


def problem(matrix, labels, params=None, valid=None, weights=None):
    inputs = InputSpec.learn({"a": matrix[:, 0], "b": matrix[:, 1]})
    rows = None if valid is None else Examples(valid[0], valid[1], TARGET)
    return Problem(inputs, Examples(matrix, labels, TARGET, weights), rows, params or {}, seed=1)


@pytest.mark.parametrize("rounded", [False, True])
def test_the_partial_likelihood_is_that_of_statsmodels(rounded):
    """Coefficients, standard errors and value with Efron's ties; the baseline solves its own equations."""
    matrix, labels = simulated(300, 1, rounded=rounded)
    partial = _Partial(matrix, labels, np.ones(300), 0.0)
    beta, _, converged = partial.solve(50)
    reference = PHReg(np.abs(labels), matrix, status=(labels > 0).astype(int), ties="efron").fit(tol=1e-12)
    assert converged
    np.testing.assert_allclose(beta, reference.params, atol=1e-6)
    value, gradient, information = partial.of(beta)
    assert value == pytest.approx(reference.llf)
    assert np.abs(gradient).max() < 1e-6
    np.testing.assert_allclose(np.sqrt(np.diag(np.linalg.inv(information))), reference.bse, rtol=1e-4)
    theta = np.exp(matrix @ beta)
    expected = 0.0
    for t in np.unique(labels[(labels > 0) & (labels <= 5)]):
        events, risk = theta[labels == t], theta[np.abs(labels) >= t].sum()
        expected += brentq(lambda h, d=events, r=risk: (d / -np.expm1(-h * d)).sum() - r, 1e-9, 50.0, xtol=1e-14)
    assert partial.baseline(beta, np.array([5.0]))[0] == pytest.approx(expected)


def test_a_fit_keeps_the_ratios_of_hazards_per_unit():
    """Of a number those of statsmodels in its own units; of categories their contrasts, which add up to nothing."""
    matrix, labels = simulated(400, 3)
    matrix[:, 1] = 10 + 5 * matrix[:, 1]
    status = (labels > 0).astype(int)
    rows = get_estimator("cox").solve(problem(matrix, labels, {"penalty": 0.0})).notes["hazard_ratios"]
    reference = PHReg(np.abs(labels), matrix, status=status, ties="efron").fit(tol=1e-12)
    assert [row["term"] for row in rows] == ["a", "b"]
    for at, row in enumerate(rows):
        assert row["coefficient"] == pytest.approx(reference.params[at], rel=1e-4)
        assert row["standard_error"] == pytest.approx(reference.bse[at], rel=1e-3)
        assert row["hazard_ratio"] == pytest.approx(np.exp(reference.params[at]), rel=1e-4)
    town = np.where(matrix[:, 1] > 12, "x", np.where(matrix[:, 1] < 8, "y", None))
    inputs = InputSpec.learn({"town": town.tolist(), "flat": np.ones(400)})
    train = Examples(inputs.encode_columns({"town": pa.array(town), "flat": pa.array(np.ones(400))}), labels, TARGET)
    rows = get_estimator("cox").solve(Problem(inputs, train, None, {"penalty": 0.0}, seed=1)).notes["hazard_ratios"]
    terms = {row["term"]: row for row in rows}
    assert terms["flat"]["standard_error"] is None
    dummies = np.column_stack([town == "x", town == "y"]).astype(float)
    contrasts = PHReg(np.abs(labels), dummies, status=status, ties="efron").fit(tol=1e-12).params
    for word, contrast in zip("xy", contrasts, strict=True):
        difference = terms[f"town={word}"]["coefficient"] - terms["town=missing"]["coefficient"]
        assert difference == pytest.approx(contrast, abs=1e-4)
    assert sum(terms[f"town={word}"]["coefficient"] for word in ("x", "y", "missing")) == pytest.approx(0, abs=1e-8)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.sampled_from([0.5, 1.0, 2.0])), min_size=1))
def test_without_terms_it_is_kaplan_meier(rows):
    """With any ties and weights at every horizon; where all at risk have their event nobody is left."""
    days, seen, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    labels, horizons = np.where(seen == 1, days, -days), np.arange(0.5, 7.0, 0.5)
    hazards = _Partial(np.zeros((len(labels), 1)), labels, weights, 0.0).baseline(np.zeros(1), horizons)
    np.testing.assert_allclose(-np.expm1(-hazards), event_by(labels, horizons, weights), atol=1e-8)


def test_monthly_times_of_a_known_hazard_are_calibrated():
    """A third of the rows at each time: promises are true for low and high rows, and 1 where all have it at once."""
    rng = np.random.default_rng(11)
    x, target = rng.normal(size=20_000), Target("survival", horizons=("30d", "60d", "90d"))
    days = 30.0 * np.ceil(rng.exponential(size=20_000) / (0.43 * np.exp(0.3 * x)))
    labels = np.where(days <= (ends := 30.0 * rng.integers(1, 6, 20_000)), days, -ends)
    inputs = InputSpec.learn({"x": x})

    def outputs(labels, rows):
        fitted = get_estimator("cox").solve(Problem(inputs, Examples(x[:, None], labels, target), None, {}, seed=1))
        return fitted.engine.scores(np.array(rows)[:, None])

    truth = -np.expm1(-0.43 * np.exp(0.3 * np.array([-1.0, 0.0, 1.0]))[:, None] * [1, 2, 3])
    np.testing.assert_allclose(outputs(labels, [-1.0, 0.0, 1.0]), truth, atol=0.02)
    np.testing.assert_array_equal(outputs(np.full(20_000, 1 / 86400e6), [-1.0, 0.0, 1.0]), 1.0)


def test_gradient_and_information_are_differences():
    """With ties, weights and a penalty, where no library is asked."""
    matrix, labels = simulated(60, 2, rounded=True)
    partial = _Partial(matrix, labels, np.random.default_rng(0).uniform(0.2, 3, 60), 0.7)
    at, step = np.array([0.3, -0.2]), 1e-5
    _, gradient, information = partial.of(at)
    for place, unit in enumerate(np.eye(2)):
        ends = [partial.of(at + sign * step * unit) for sign in (1, -1)]
        assert (ends[0][0] - ends[1][0]) / (2 * step) == pytest.approx(gradient[place], abs=1e-5)
        np.testing.assert_allclose((ends[1][1] - ends[0][1]) / (2 * step), information[place], atol=1e-4)


def test_a_weight_counts_as_so_many_rows():
    """Without ties of other rows: twice the weight is the row twice, up to how ties among copies are counted."""
    matrix, labels = simulated(400, 3)
    doubled = _Partial(matrix, labels, np.full(400, 2.0), 2.0).solve(50)[0]
    np.testing.assert_allclose(doubled, _Partial(matrix, labels, np.ones(400), 1.0).solve(50)[0], atol=1e-8)
    part = np.r_[np.ones(200), np.zeros(200)]
    left_out = _Partial(matrix, labels, part, 1.0).solve(50)[0]
    np.testing.assert_allclose(
        left_out, _Partial(matrix[:200], labels[:200], np.ones(200), 1.0).solve(50)[0], atol=1e-8
    )


@pytest.mark.parametrize(
    ("name", "params"), [("cox", {"penalty": 0.0}), ("aft", {"distribution": "extreme", "max_depth": 2, "nthread": 1})]
)
def test_probabilities_are_those_of_the_known_hazard(name, params):
    """On 4,000 rows: close to the truth at each horizon, ranked as the truth ranks, and never falling."""
    matrix, labels = simulated(4_000, 4, shape=1.3)
    valid, fresh = simulated(2_000, 5, shape=1.3), simulated(3_000, 6, shape=1.3)
    engine = get_estimator(name).solve(problem(matrix, labels, params, valid)).engine
    truth = 1 - np.exp(-np.exp(fresh[0] @ [0.7, -0.4])[:, None] / 6 * np.array(TARGET.days) ** 1.3)
    outputs = engine.scores(fresh[0])
    assert np.abs(outputs - truth).mean() < 0.035
    assert (np.diff(outputs, axis=1) >= 0).all()
    ours, best = (evaluate(fresh[1], values, TARGET)["c_index"].value for values in (outputs, truth))
    assert ours > best - 0.01


def test_one_row_is_explained_in_the_logarithm_of_the_hazard():
    """Shares add up to the margin of each horizon, and one minus the exponential of its exponential is the answer."""
    matrix, labels = simulated(500, 7)
    fitted = get_estimator("cox").solve(problem(matrix, labels))
    shares = fitted.engine.contributions(matrix[0])
    np.testing.assert_allclose(shares.sum(axis=1), fitted.engine.margin(matrix[0]))
    np.testing.assert_allclose(-np.expm1(-np.exp(shares.sum(axis=1))), fitted.engine.score_row(matrix[0]))
    model = ModelArtifact("churn", problem(matrix, labels).inputs, fitted.engine)
    for output, horizon in [('event_by["2d"]', "2d"), ('event_by["5d"]', "5d"), (None, "20d"), ("score", "20d")]:
        reasons = explain_row(model, {"a": 1.0, "b": 2.0}, output=output).reasons
        assert {reason.text.split(" ")[-1] for reason in reasons} == {f'event_by["{horizon}"]'}
    assert list(model.score_row({"a": 1.0, "b": None}).outputs) == [f'event_by["{h}"]' for h in TARGET.horizons]


def test_a_fitted_scale_answers_for_a_wrong_one():
    """Trees grown with a scale of 2 where 0.5 is true: the answers have what the validation rows say."""
    rng = np.random.default_rng(8)

    def rows(n):
        matrix = rng.normal(size=(n, 2))
        days, ends = np.exp(1 + 0.8 * matrix[:, 0] + 0.5 * rng.normal(size=n)), rng.exponential(15, n)
        return matrix, np.where(days <= ends, days, -ends)

    train, valid = rows(3_000), rows(2_000)
    fitted = get_estimator("aft").solve(problem(*train, {"scale": 2.0, "max_depth": 2, "nthread": 1}, valid))
    assert fitted.params["scale"] == 2.0
    assert fitted.params["answers"]["scale"] == pytest.approx(0.5, abs=0.06)
    fresh = rng.normal(size=(500, 2))
    truth = norm.cdf((np.log(TARGET.days)[None, :] - 1 - 0.8 * fresh[:, :1]) / 0.5)
    assert np.abs(fitted.engine.scores(fresh) - truth).mean() < 0.04


@pytest.mark.parametrize("name", ["cox", "aft"])
def test_rows_without_an_event_teach_nothing(name):
    """An input error that says so."""
    matrix, labels = simulated(50, 9)
    with pytest.raises(InputError, match="must hold an event"):
        get_estimator(name).solve(problem(matrix, -np.abs(labels)))
