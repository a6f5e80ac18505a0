"""What is missing together, Little's test against published and independent numbers, and the plot."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from retrodict.core.errors import InputError
from retrodict.estimators import little_mcar_test, missing_pattern, plot_missing

AIR = Path(__file__).with_name("airquality.csv")


@settings(max_examples=60)
@given(
    gone=st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=25)
    )
)
def test_shares_patterns_and_correlations_follow_their_definitions(gone: list[list[bool]]) -> None:
    """By pandas and NumPy, from the flags themselves."""
    flags = np.array(gone)
    table = pd.DataFrame(np.where(flags, np.nan, 1.0), columns=[f"c{j}" for j in range(flags.shape[1])])
    found = missing_pattern(table)
    assert found.missing == tuple(flags.sum(axis=0))
    expected = table.isna().value_counts().to_dict()
    assert {tuple(c in names for c in table): count for names, count in found.patterns} == expected
    assert found.complete == int((~flags.any(axis=1)).sum())
    wanted = table.isna().astype(float).corr().to_numpy()
    got = np.array([[np.nan if v is None else v for v in row] for row in found.correlation])
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    json.dumps(found.to_dict())


def test_text_and_times_count_as_well() -> None:
    """Any table, most frequent pattern first."""
    table = pa.table({"town": ["a", None, None], "day": pa.array([None, None, 1], pa.timestamp("us"))})
    found = missing_pattern(table)
    assert found.shares == {"town": 2 / 3, "day": 2 / 3}
    assert found.patterns == ((("town",), 1), (("town", "day"), 1), (("day",), 1))


def test_littles_test_gives_the_published_value() -> None:
    """R, naniar::mcar_test(airquality): statistic 35.1, df 14, p 0.00142, 4 patterns."""
    found = little_mcar_test(pd.read_csv(AIR))
    assert round(found.statistic, 1) == 35.1
    assert (found.df, found.patterns, found.rows) == (14, 4, 153)
    assert found.p_value == pytest.approx(0.00142, abs=5e-6)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 14), rel=1e-9)


def test_littles_test_has_a_closed_form_for_two_columns() -> None:
    """One column complete: the ML estimates are those of Anderson (1957), by a regression, without EM."""
    rng = np.random.default_rng(3)
    x = rng.normal(5, 2, size=200)
    y = 1 + 0.5 * x + rng.normal(size=200)
    lost = rng.random(200) < 0.3
    slope, cut = np.polyfit(x[~lost], y[~lost], 1)
    residual = np.mean((y[~lost] - cut - slope * x[~lost]) ** 2)
    mean = np.array([x.mean(), cut + slope * x.mean()])
    covariance = np.array([[x.var(), slope * x.var()], [slope * x.var(), residual + slope**2 * x.var()]])
    both = np.array([x[~lost].mean(), y[~lost].mean()]) - mean
    expected = (~lost).sum() * both @ np.linalg.inv(covariance) @ both
    expected += lost.sum() * (x[lost].mean() - mean[0]) ** 2 / covariance[0, 0]
    found = little_mcar_test(np.column_stack((x, np.where(lost, np.nan, y))))
    assert found.statistic == pytest.approx(expected, rel=1e-6)
    assert found.df == 1


def test_littles_test_agrees_with_a_direct_maximum_of_the_likelihood() -> None:
    """Three columns, five patterns: SciPy maximises the likelihood of the observed values, row by row."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(80, 3)) @ np.array([[1, 0.5, 0.2], [0, 1, 0.3], [0, 0, 1]])
    # Missing more often beside a large first value, so that the means move far from those of the observed values.
    values[rng.random(values.shape) < np.where(values[:, :1] > 0, [0.1, 0.5, 0.6], [0.1, 0.1, 0.2])] = np.nan
    values = values[~np.isnan(values).all(axis=1)]
    seen = ~np.isnan(values)

    def unpacked(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lower = np.zeros((3, 3))
        lower[np.tril_indices(3)] = theta[3:]
        return theta[:3], lower @ lower.T

    def loss(theta: np.ndarray) -> float:
        mean, covariance = unpacked(theta)
        return -sum(
            stats.multivariate_normal(mean[s], covariance[np.ix_(s, s)]).logpdf(rows[:, s]).sum()
            for s, rows in patterns
        )

    patterns = [(s, values[(seen == s).all(axis=1)]) for s in np.unique(seen, axis=0)]
    best = optimize.minimize(loss, np.array([0, 0, 0, 1, 0, 1, 0, 0, 1.0]), method="BFGS", options={"gtol": 1e-4})
    mean, covariance = unpacked(best.x)
    expected = 0.0
    for pattern in np.unique(seen, axis=0):
        rows = values[(seen == pattern).all(axis=1)][:, pattern]
        gap = rows.mean(axis=0) - mean[pattern]
        expected += len(rows) * gap @ np.linalg.inv(covariance[np.ix_(pattern, pattern)]) @ gap
    assert little_mcar_test(values).statistic == pytest.approx(expected, rel=1e-4)


def test_littles_test_does_not_depend_on_units() -> None:
    """Affine changes of the columns, and rows without any value, change nothing."""
    values = pd.read_csv(AIR).to_numpy()
    moved = np.vstack((values * [1e6, 1e-6, 1, 3, 1, 1] + [0, 1e3, 5, 0, 0, 1], np.full((3, 6), np.nan)))
    assert little_mcar_test(moved).statistic == pytest.approx(little_mcar_test(values).statistic, rel=1e-6)


def test_values_missing_because_of_another_column_are_found_out() -> None:
    """Missing at random, but not completely."""
    rng = np.random.default_rng(5)
    values = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=400)
    values[values[:, 0] > 0.7, 1] = np.nan
    found = little_mcar_test(values)
    assert found.p_value is not None
    assert found.p_value < 1e-6


@pytest.mark.slow
def test_p_values_are_uniform_when_values_go_missing_completely_at_random() -> None:
    """A thousand tables of three normal columns: a Kolmogorov-Smirnov test does not object."""
    rng = np.random.default_rng(6)
    mixing = np.array([[1, 0.6, 0.1], [0, 1, 0.4], [0, 0, 1]])
    found = []
    for _ in range(1000):
        values = rng.normal(size=(500, 3)) @ mixing
        values[rng.random(values.shape) < 0.15] = np.nan
        found.append(little_mcar_test(values, tolerance=1e-6).p_value)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.075


def test_tables_that_little_cannot_judge_are_refused() -> None:
    """Constant and dependent columns, text; one pattern has no p-value."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=50)
    holes = np.where(rng.random(50) < 0.3, np.nan, rng.normal(size=50))
    with pytest.raises(InputError, match="column 'b': a column must have at least two different values"):
        little_mcar_test(pd.DataFrame({"a": holes, "b": 1.0}))
    with pytest.raises(InputError, match="the covariance of the columns must have an inverse"):
        little_mcar_test(np.column_stack((x, x, holes)))
    with pytest.raises(InputError, match="column 'b': the test must have columns of numbers"):
        little_mcar_test(pd.DataFrame({"a": holes, "b": "x"}))
    assert little_mcar_test(np.column_stack((x, rng.normal(size=50)))).p_value is None


@pytest.mark.parametrize("table", [pd.read_csv(AIR), np.eye(3), pd.DataFrame(np.full((2, 30), np.nan))])
def test_the_plot_is_drawn_without_pyplot(table: object) -> None:
    """Two panels; nothing global is left behind."""
    figure = plot_missing(table)
    assert [axes.get_title(loc="left").split()[0] for axes in figure.axes] == ["Missing", "Together"]
    data = io.BytesIO()
    figure.savefig(data, format="png")
    assert data.getvalue().startswith(b"\x89PNG")


def test_the_panels_show_the_numbers() -> None:
    """Shares under the columns, correlations in the cells."""
    left, right = plot_missing(pd.read_csv(AIR)).axes
    assert [tick.get_text() for tick in left.get_xticklabels()][:2] == ["Ozone\n24.2%", "Solar.R\n4.6%"]
    assert [text.get_text() for text in right.texts] == ["1.00", "0.02", "0.02", "1.00"]


def test_importing_the_room_loads_nothing_heavy() -> None:
    """scikit-learn, SciPy, pandas and matplotlib come with the first name that needs them."""
    code = (
        "import sys, retrodict.estimators as e; before = set(sys.modules); e.__all__;"
        "bad = {'sklearn', 'scipy', 'pandas', 'matplotlib', 'polars', 'pyarrow'};"
        "assert not bad & before, bad & before;"
        "e.missing_pattern; assert not bad & set(sys.modules), bad & set(sys.modules);"
        "e.MissingData; assert not {'matplotlib', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
