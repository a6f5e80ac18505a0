"""The normaliser: scikit-learn's scales, the same from one fit and from partitions."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from retrodict.core.errors import InputError, IntegrityError
from retrodict.estimators import Normaliser

METHODS = {"standard": StandardScaler(), "min_max": MinMaxScaler(), "robust": RobustScaler()}


def _values(seed: int = 1, rows: int = 900) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.column_stack((rng.normal(size=rows), rng.lognormal(0, 2, rows), 1e9 + 1e-3 * rng.normal(size=rows)))
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


@parametrize_with_checks(
    [Normaliser(method) for method in METHODS],
    expected_failed_checks=lambda _: {"check_dtype_object": "an object of no kind is an InputError, not a TypeError"},
)
def test_scikit_learn_accepts_it(estimator: Normaliser, check: Any) -> None:
    """The checks that every transformer of scikit-learn passes."""
    check(estimator)


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_is_that_of_scikit_learn(method: str) -> None:
    """Missing values stay; a column without spread is divided by 1; the inverse undoes it."""
    values = np.column_stack((_values()[:, :2], np.full(900, 7.0)))
    ours, theirs = Normaliser(method).fit(values), METHODS[method].fit(values)
    np.testing.assert_allclose(ours.transform(values), theirs.transform(values), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(values)), values, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(parts=st.integers(1, 9), seed=st.integers(0, 999), method=st.sampled_from(sorted(METHODS)))
def test_partitions_give_the_scale_of_one_fit(parts: int, seed: int, method: str) -> None:
    """Merged or learned one after the other, in any order, to 1e-12; also on 1e9 with tiny noise."""
    values = _values(seed)
    rng = np.random.default_rng(seed)
    blocks = [values[rows] for rows in np.array_split(rng.permutation(len(values)), parts)]
    whole = Normaliser(method).fit(values)
    merged = reduce(Normaliser.merge, [Normaliser(method).fit(block) for block in blocks])
    followed = Normaliser(method)
    for block in blocks:
        followed.partial_fit(block)
    for found in (merged, followed):
        np.testing.assert_allclose(found.centre_, whole.centre_, rtol=1e-12)
        np.testing.assert_allclose(found.scale_, whole.scale_, rtol=1e-12)
        assert found.rank_error_ == 0.0


def test_many_rows_have_a_robust_scale_within_the_stated_error() -> None:
    """The rank of the centre, by sorting."""
    values = np.random.default_rng(5).lognormal(0, 3, size=(40_000, 1))
    found = reduce(Normaliser.merge, [Normaliser("robust", k=128).fit(block) for block in np.array_split(values, 20)])
    assert 0 < found.rank_error_ < (1 + np.log2(20)) / 128
    assert abs((values <= found.centre_[0]).mean() - 0.5) <= found.rank_error_ + 1 / len(values)


@pytest.mark.parametrize("method", METHODS)
def test_one_row_is_scaled_as_in_a_batch_and_after_reading(method: str) -> None:
    """The same bits; text and times pass through; merging goes on after reading."""
    table = pd.DataFrame(_values(), columns=list("abc")).assign(town="x", day=pd.Timestamp("2020-01-01"))
    data = Normaliser(method).fit(table)
    again = Normaliser.from_dict(json.loads(json.dumps(data.to_dict())))
    for row, wanted in zip(table.to_dict("records"), data.transform(table).to_dict("records"), strict=True):
        found = again.transform_one(row)
        assert found.keys() == wanted.keys()
        assert all(found[name] == wanted[name] or wanted[name] != wanted[name] for name in wanted)
    assert again.transform_one({**table.iloc[0].to_dict(), "a": None})["a"] is None
    assert again.merge(data).to_dict() == data.merge(data).to_dict()
    assert data.get_feature_names_out().tolist() == list(table)


@pytest.mark.parametrize("method", METHODS)
def test_a_partition_may_lack_the_values_of_a_column(method: str) -> None:
    """It is merged like any other; only using it alone is refused."""
    full, empty = np.array([[1.0, 2.0], [3.0, 6.0]]), np.array([[2.0, np.nan]])
    part = Normaliser.from_dict(json.loads(json.dumps(Normaliser(method).fit(empty).to_dict())))
    with pytest.raises(InputError, match="column 'x1': a column must have a value in the training rows"):
        part.transform_one({"x0": 1.0, "x1": 1.0})
    whole = Normaliser(method).fit(np.vstack((empty, full)))
    for found in (part.merge(Normaliser(method).fit(full)), Normaliser(method).fit(empty).partial_fit(full)):
        assert found.transform(full).tolist() == whole.transform(full).tolist()


def test_a_table_of_arrow_comes_back_as_one() -> None:
    """Columns by name, in any order."""
    table = pa.table({"a": [1.0, 3.0, None], "t": ["x", "y", None]})
    data = Normaliser().fit(table)
    assert data.transform(table.select(["t", "a"])).to_pydict() == {"a": [-1.0, 1.0, None], "t": ["x", "y", None]}


def test_what_does_not_fit_is_refused() -> None:
    """Unknown methods, infinities, empty columns, text for numbers, and unlike partners."""
    table = pd.DataFrame({"a": [1.0, 2.0]})
    data = Normaliser().fit(table)
    for change, text in (
        (lambda: Normaliser("zscore").fit(table), "a method must be one that exists; got 'zscore'"),
        (lambda: Normaliser().fit(table.assign(a=np.inf)), "column 'a': numbers must be finite or missing"),
        (
            lambda: Normaliser().fit_transform(table.assign(a=np.nan)),
            "column 'a': a column must have a value in the training rows",
        ),
        (lambda: data.transform(table.assign(a="x")), "column 'a': the column must hold numbers"),
        (lambda: data.transform_one({"a": "1"}), "column 'a': the column must hold numbers, as when it was fitted"),
        (lambda: data.transform_one({"b": 1.0}), "one row: a row must have every column; got 'no a'"),
        (lambda: data.merge(Normaliser("robust").fit(table)), "must have one method, one k and the same columns"),
    ):
        with pytest.raises(InputError) as caught:
            change()
        assert text in str(caught.value)
    with pytest.raises(IntegrityError, match="of kind 'normaliser'"):
        Normaliser.from_dict({"kind": "missing_data"})
