"""Strategies that look at other rows: nearest rows and regressions against scikit-learn, carrying by a plain loop."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - scikit-learn asks for it
from sklearn.impute import IterativeImputer, KNNImputer

from retrodict.core.errors import InputError
from retrodict.estimators import MissingData


def _holes(seed: int, rows: int = 300, columns: int = 5, share: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) + 10.0 ** np.arange(columns)
    values[rng.random(values.shape) < share] = np.nan
    return values


@pytest.mark.parametrize("k", [1, 3, 5, 400])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_nearest_rows_fill_as_scikit_learn_does(k: int, share: float) -> None:
    """To 1e-9, on the training rows and on new ones, rows without any value included."""
    train, new = _holes(1, share=share), _holes(2, share=share)
    new[0] = np.nan
    ours = MissingData("knn", neighbours=k, indicators=False).fit(train)
    theirs = KNNImputer(n_neighbors=k).fit(train)
    for values in (train, new):
        np.testing.assert_allclose(ours.transform(values), theirs.transform(values), rtol=1e-9, atol=1e-9)


def test_equally_near_rows_are_taken_in_the_order_of_training() -> None:
    """Where scikit-learn leaves it open, the earlier row counts."""
    train = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [9.0, 8.0]])
    data = MissingData("knn", neighbours=2).fit(train)
    assert data.transform_one({"x0": 0.0, "x1": None}) == {"x0": 0.0, "x1": 1.5}


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_chained_regressions_fill_as_scikit_learn_does(seed: int) -> None:
    """To 1e-9, also in a column that was full when fitted, and after reading the JSON form."""
    train, new = _holes(seed), _holes(seed + 100)
    train[:, 2] = np.nan_to_num(train[:, 2], nan=7.0)
    ours = MissingData("iterative", iterations=25, indicators=False).fit(train)
    theirs = IterativeImputer(max_iter=25, random_state=0).fit(train)
    again = MissingData.from_dict(json.loads(json.dumps(ours.to_dict())))
    for values in (train, new):
        expected = theirs.transform(values)
        np.testing.assert_allclose(ours.transform(values), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(again.transform(values), ours.transform(values))


def test_regressions_that_do_not_settle_are_reported_not_warned_about() -> None:
    """One round is too few; the state says so."""
    data = MissingData("iterative", iterations=1).fit(_holes(6))
    assert data.chain_ is not None
    assert not data.chain_.converged


def test_one_column_of_its_own_falls_back_to_its_mean() -> None:
    """Neither neighbours nor regressions exist; rows are still filled."""
    values = np.array([[1.0], [3.0], [np.nan]])
    for word in ("knn", "iterative"):
        assert MissingData(word, indicators=False).fit_transform(values).ravel().tolist() == [1.0, 3.0, 2.0]


def test_the_columns_of_one_word_form_one_block() -> None:
    """A column with another word neither shapes a distance nor enters a regression."""
    values = _holes(7)
    table = pd.DataFrame(values, columns=list("abcde"))
    words = {"a": "knn", "b": "knn", "c": "mean", "d": "iterative", "e": "iterative"}
    filled = MissingData(words, indicators=False).fit_transform(table)
    np.testing.assert_allclose(filled[["a", "b"]], KNNImputer().fit_transform(values[:, :2]), rtol=1e-9)
    expected = IterativeImputer(random_state=0).fit_transform(values[:, 3:])
    np.testing.assert_allclose(filled[["d", "e"]], expected, rtol=1e-9)


def _carried(rows: list[dict[str, Any]], fallback: float, past: list[dict[str, Any]]) -> list[float]:
    """The rule in words: the latest earlier value of the group, here (ties by row) or in the past, else the median."""
    result = []
    for place, row in enumerate(rows):
        if row["v"] is not None:
            result.append(row["v"])
            continue
        here = [
            (other["t"], at, other["v"])
            for at, other in enumerate(rows)
            if other["g"] == row["g"] and other["v"] is not None and (other["t"], at) < (row["t"], place)
        ]
        last = max(((o["t"], at, o["v"]) for at, o in enumerate(past) if o["g"] == row["g"] and o["v"] is not None),
                   default=None)  # fmt: skip
        if here:
            result.append(max(here)[2])
        else:
            result.append(last[2] if last is not None and row["t"] > last[0] else fallback)
    return result


_EVENTS = st.lists(
    st.fixed_dictionaries(
        {"g": st.sampled_from(["a", "b", None]), "t": st.integers(0, 9), "v": st.none() | st.integers(0, 99).map(float)}
    ),
    min_size=1,
    max_size=20,
)


def _frame(rows: list[dict[str, Any]], times: bool) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["g", "t", "v"]).astype({"v": float})
    frame["g"] = frame["g"].astype(object).where(frame["g"].notna(), None)
    if times:
        frame["t"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["t"], unit="h")
    return frame


@settings(max_examples=80, deadline=None)
@given(train=_EVENTS, new=_EVENTS, times=st.booleans())
def test_values_are_carried_forward_within_the_group_and_never_back(
    train: list[dict[str, Any]], new: list[dict[str, Any]], times: bool
) -> None:
    """Training rows, later rows and single rows follow the written rule, before and after reading."""
    train = [{"g": "a", "t": 5, "v": 50.0}, *train]
    data = MissingData({"v": "forward_fill"}, groups="g", time="t", indicators=False).fit(_frame(train, times))
    data = MissingData.from_dict(json.loads(json.dumps(data.to_dict())))
    median = float(np.median([row["v"] for row in train if row["v"] is not None]))
    assert data.transform(_frame(train, times))["v"].tolist() == _carried(train, median, train)
    assert data.transform(_frame(new, times))["v"].tolist() == _carried(new, median, train)
    for row, timed in zip(new, _frame(new, times).to_dict("records"), strict=True):
        expected = _carried([row], median, train)[0]
        assert data.transform_one({**timed, "v": row["v"]})["v"] == expected


def test_without_a_time_the_order_of_the_rows_counts() -> None:
    """Nothing is carried from training into a later row, as nobody knows that it is later."""
    table = pd.DataFrame({"v": [np.nan, 1.0, np.nan, 5.0, np.nan]})
    data = MissingData("forward_fill", indicators=False).fit(table)
    assert data.transform(table)["v"].tolist() == [3.0, 1.0, 1.0, 5.0, 5.0]
    assert data.transform_one({"v": None}) == {"v": 3.0}


def test_text_and_times_are_carried_too() -> None:
    """A time that has nothing before it stays missing."""
    days = pd.to_datetime([None, "2020-05-01", None])
    table = pd.DataFrame({"n": [1, 2, 3], "town": [None, "a", None], "day": days})
    filled = MissingData({"town": "forward_fill", "day": "forward_fill"}, time="n", indicators=False).fit_transform(
        table
    )
    assert filled["town"].tolist() == ["a", "a", "a"]
    assert filled["day"].tolist() == [pd.NaT, days[1], days[1]]


def test_a_row_without_a_time_is_refused() -> None:
    """In a table and alone."""
    table = pd.DataFrame({"t": [1.0, np.nan], "v": [1.0, np.nan]})
    with pytest.raises(InputError, match="column 't': every row must have a time"):
        MissingData({"v": "forward_fill"}, time="t").fit(table)
    data = MissingData({"v": "forward_fill"}, time="t").fit(table.fillna({"t": 2.0}))
    with pytest.raises(InputError, match="column 't': every row must have a time"):
        data.transform_one({"t": None, "v": None})
