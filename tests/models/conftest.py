"""Rows with an outcome that depends on them, and one fitted engine of each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrodict.models import (
    Engine,
    Examples,
    InputSpec,
    TreesEngine,
    fit_constant,
    fit_group_rate,
    fit_lightgbm,
    fit_logistic,
)

SMALL = {"num_iterations": 40, "early_stopping_round": 10, "min_data_in_leaf": 10}


def make_rows(n: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Columns with nulls and two kinds of category, and labels."""
    rng = np.random.default_rng(seed)
    wind, visib = rng.gamma(2.0, 5.0, n), rng.normal(8.0, 3.0, n)
    origin, month = rng.choice(["EWR", "JFK", "LGA"], n), rng.integers(1, 13, n)
    margin = 0.15 * (wind - 10) - 0.2 * (visib - 8) + (origin == "JFK") - 1 + 0.5 * np.isin(month, (6, 7, 12))
    labels = (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(np.float64)
    wind[rng.random(n) < 0.1] = np.nan
    origins = origin.astype(object)
    origins[rng.random(n) < 0.05] = None
    return {"wind": wind, "visib": visib, "origin": origins, "month": month}, labels


@pytest.fixture(scope="session")
def rows() -> tuple[dict[str, Any], np.ndarray]:
    return make_rows(3_000, seed=1)


@pytest.fixture(scope="session")
def spec(rows) -> InputSpec:
    return InputSpec.learn(rows[0], {"month": "category"})


@pytest.fixture(scope="session")
def train(rows, spec) -> Examples:
    return Examples(spec.encode_columns(rows[0]), rows[1])


@pytest.fixture(scope="session")
def valid(spec) -> Examples:
    columns, labels = make_rows(1_000, seed=2)
    return Examples(spec.encode_columns(columns), labels)


@pytest.fixture(scope="session")
def trees(spec, train, valid) -> TreesEngine:
    return fit_lightgbm(spec, train, valid, seed=7, params=SMALL).engine


@pytest.fixture(scope="session")
def engines(spec, train, trees) -> dict[str, Engine]:
    return {
        "constant": fit_constant(train).engine,
        "group_rate": fit_group_rate(train, spec.categorical[0]).engine,
        "linear": fit_logistic(train, spec.categorical).engine,
        "lightgbm": trees,
    }


@pytest.fixture(params=["constant", "group_rate", "linear", "lightgbm"])
def engine(request, engines) -> Engine:
    return engines[request.param]


def odd_rows(n: int, seed: int) -> np.ndarray:
    """Rows of the spec's width with many NaN, huge and tiny numbers, and codes that no vocabulary holds."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, 4)) * 10.0 ** rng.integers(-40, 40, size=(n, 4))
    matrix[:, 2], matrix[:, 3] = rng.integers(-2, 7, n), rng.integers(-2, 20, n)
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    return matrix
