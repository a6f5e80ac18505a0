"""Missing data: each strategy against a plain reckoning, tables of all kinds, one row as in a batch, no pickle."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from retrodict.core.errors import InputError, IntegrityError
from retrodict.estimators import MissingData

NAN = np.nan
TABLE = pd.DataFrame(
    {
        "town": ["b", None, "a", "b", "a", "c"],
        "age": [20.0, 30.0, NAN, 40.0, 50.0, 60.0],
        "income": [1.0, 1.0, 1.0, NAN, 2.0, 100.0],
        "full": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "day": pd.to_datetime(["2020-01-01", None, "2020-01-03", "2020-01-04", "2020-01-05", "2020-01-06"]),
    }
)


def _same(left: Any, right: Any) -> bool:
    return left == right or (left is None and right is None) or (left != left and right != right)


def _nulls(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{k: None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]


@parametrize_with_checks(
    [MissingData(), MissingData("knn"), MissingData("iterative", iterations=50), MissingData("forward_fill")]
)
def test_scikit_learn_accepts_it(estimator: MissingData, check: Any) -> None:
    """The checks that every transformer of scikit-learn passes."""
    check(estimator)


def test_automatic_takes_the_median_of_a_skewed_column_and_says_why() -> None:
    """By scipy's skewness; text gets its mode, times are left alone."""
    data = MissingData().fit(TABLE)
    assert abs(stats.skew([1, 1, 1, 2, 100])) > 1 > abs(stats.skew([20, 30, 40, 50, 60]))
    told = {line["column"]: (line["strategy"], line["value"], line["missing"]) for line in data.report_}
    assert told == {
        "town": ("mode", "a", 1), "age": ("mean", 40.0, 1), "income": ("median", 1.0, 1), "full": ("mean", 3.5, 0),
        "day": ("keep", None, 1),
    }  # fmt: skip
    assert "income  16.7%    median + indicator  1            skewness 1.5, beyond 1" in data.report()


def test_a_filled_table_holds_the_learned_values_and_the_marks() -> None:
    """Indicators come last, for the columns that had missing values in training."""
    before = TABLE.copy(deep=True)
    filled = MissingData().fit_transform(TABLE)
    pd.testing.assert_frame_equal(TABLE, before)
    assert list(filled.columns) == [*TABLE, *(f"missingindicator_{c}" for c in ("town", "age", "income", "day"))]
    assert filled.loc[1, "town"] == "a"
    assert filled.loc[2, ["age", "missingindicator_age"]].tolist() == [40.0, True]
    assert filled.loc[3, "income"] == 1.0
    assert filled["missingindicator_income"].tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    ("strategy", "constant", "expected"),
    [
        ({"age": "mean"}, None, 40.0),
        ({"age": "median"}, None, 40.0),
        ({"age": "mode"}, None, 20.0),
        ({"age": "constant"}, None, 0.0),
        ({"age": "constant"}, {"age": -1}, -1.0),
    ],
)
def test_a_word_per_column(strategy: dict[str, str], constant: Any, expected: float) -> None:
    """Columns that are not named are automatic."""
    data = MissingData(strategy, constant=constant).fit(TABLE)
    assert data.transform(TABLE).loc[2, "age"] == expected
    assert data.transform(TABLE).loc[3, "income"] == 1.0


def test_the_constant_of_text_is_missing_unless_given() -> None:
    """One constant for all columns of text, or one per column."""
    text = TABLE[["town"]]
    assert MissingData("constant").fit_transform(text).loc[1, "town"] == "missing"
    assert MissingData("constant", constant="?").fit_transform(text).loc[1, "town"] == "?"


def test_keep_leaves_what_is_missing_and_can_mark_it() -> None:
    """For engines that know nulls."""
    filled = MissingData("keep", indicators=True).fit_transform(TABLE)
    assert filled[list(TABLE)].isna().sum().tolist() == TABLE.isna().sum().tolist()
    assert filled["missingindicator_full"].sum() == 0


@pytest.mark.parametrize("indicators", [True, False, "auto"])
def test_names_out_are_the_columns_that_come_out(indicators: bool | str) -> None:
    """With marks for all, none, or those missing in training."""
    data = MissingData(indicators=indicators).fit(TABLE)
    filled = data.transform(TABLE)
    assert data.get_feature_names_out().tolist() == list(filled.columns)
    assert len(filled.columns) == 5 + {True: 5, False: 0, "auto": 4}[indicators]


def test_a_column_that_was_full_in_training_is_filled_and_counted() -> None:
    """In a table and in one row; without a mark, as the columns that come out are fixed by training."""
    data = MissingData().fit(TABLE)
    late = TABLE.assign(full=[NAN, NAN, 1.0, 1.0, 1.0, 1.0])
    assert data.transform(late)["full"].tolist() == [3.5, 3.5, 1.0, 1.0, 1.0, 1.0]
    assert data.transform_one({**_nulls(TABLE)[0], "full": None})["full"] == 3.5
    assert data.unseen_missing_ == {"full": 3}


def test_drop_leaves_rows_out_of_a_table_and_says_which() -> None:
    """The index of the rows that are kept stays theirs."""
    data = MissingData({"age": "drop"}).fit(TABLE)
    kept = data.transform(TABLE)
    assert kept.index.tolist() == [0, 1, 3, 4, 5]
    assert data.kept_ is not None
    assert data.kept_.tolist() == [True, True, False, True, True, True]
    assert "missingindicator_age" not in kept


def test_drop_never_loses_a_single_row() -> None:
    """Serving gets an error that names the column, not an empty answer."""
    data = MissingData({"age": "drop"}).fit(TABLE)
    with pytest.raises(InputError, match=r"column 'age': a single row must not be dropped; .* Send the value"):
        data.transform_one(_nulls(TABLE)[2])


def test_every_kind_of_table_comes_back_as_it_went_in() -> None:
    """pandas, Arrow, Polars: the same values, found by name in any order of the columns."""
    data = MissingData().fit(TABLE)
    expected = data.transform(TABLE)
    arrow = pa.Table.from_pandas(TABLE, preserve_index=False)
    shuffled = arrow.select(["day", "full", "age", "town", "income"])
    for table, kind in ((arrow, pa.Table), (shuffled, pa.Table), (pl.from_arrow(arrow), pl.DataFrame)):
        found = data.transform(table)
        assert isinstance(found, kind)
        rows = found.to_pylist() if kind is pa.Table else found.to_dicts()
        for row, wanted in zip(rows, _nulls(expected), strict=True):
            assert list(row) == list(wanted)
            assert all(_same(row[name], wanted[name]) for name in row)
    assert MissingData().fit(arrow).to_dict() == data.to_dict()
    numbers = TABLE[["age", "income"]]
    assert np.array_equal(
        MissingData().fit(numbers.to_numpy()).transform(numbers.to_numpy()),
        MissingData().fit_transform(numbers).to_numpy(dtype=float),
    )


def test_columns_that_are_left_alone_keep_their_type() -> None:
    """Whole numbers and time zones of keep and drop, in each kind of table, also where rows are left out."""
    table = pa.table({"n": [1, None, 3], "at": pa.array([1, 2, 3], pa.timestamp("us", "UTC")), "v": [None, 2.0, 3.0]})
    data = MissingData({"n": "drop", "v": "mean"}, indicators=False).fit(table)
    expected = {"n": [1, 3], "at": [1, 3], "v": [2.5, 3.0]}
    for whole in (table, table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get), pl.from_arrow(table)):
        found = data.transform(whole)
        found = found.to_arrow() if isinstance(found, pl.DataFrame) else found
        found = pa.Table.from_pandas(found, preserve_index=False) if isinstance(found, pd.DataFrame) else found
        assert found.schema.field("n").type == pa.int64()
        assert found.schema.field("at").type.tz == "UTC"
        assert found.set_column(1, "at", found["at"].cast(pa.int64())).to_pydict() == expected


def test_pandas_own_types_are_read() -> None:
    """Nullable integers and booleans, categories, aware times."""
    table = pd.DataFrame(
        {
            "whole": pd.array([1, None, 4, 4], dtype="Int64"),
            "flag": pd.array([True, None, False, True], dtype="boolean"),
            "kind": pd.Categorical(["x", None, "x", "y"]),
            "at": pd.to_datetime(["2020-01-01T02:00+02:00"] * 4, utc=True),
        }
    )
    filled = MissingData({"flag": "mode"}).fit_transform(table)
    assert filled["whole"].tolist() == [1.0, 3.0, 4.0, 4.0]
    assert filled["flag"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert filled["kind"].tolist() == ["x", "x", "x", "y"]
    assert filled["at"][0] == pd.Timestamp("2020-01-01", tz="UTC")


_CELLS = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-5, 5).map(float))
_ROWS = st.lists(st.tuples(_CELLS, _CELLS, _CELLS, st.sampled_from([None, "u", "v"])), min_size=4, max_size=25)


@settings(max_examples=120, deadline=None)
@given(rows=_ROWS, word=st.sampled_from(["auto", "mean", "median", "mode", "constant", "knn", "iterative"]))
def test_one_row_is_filled_as_in_a_batch_and_after_reading(rows: list[tuple[Any, ...]], word: str) -> None:
    """The same bits from a table, from each row alone, and from the JSON form."""
    rows = [(1.0, 2.0, 3.0, "u"), *rows]
    table = pd.DataFrame(rows, columns=["a", "b", "c", "t"]).astype({"a": float, "b": float, "c": float})
    table["t"] = table["t"].astype(object).where(table["t"].notna(), None)
    words = dict.fromkeys("abc", word)
    data = MissingData(words, neighbours=2, iterations=3).fit(table)
    again = MissingData.from_dict(json.loads(json.dumps(data.to_dict())))
    batch = data.transform(table).to_dict("records")
    for row, wanted in zip(_nulls(table), batch, strict=True):
        assert data.transform_one(row) == again.transform_one(row) == wanted
    assert again.to_dict() == data.to_dict()
    assert again.get_params() == data.get_params()
    assert again.transform(table).to_dict("records") == batch


def test_a_row_of_twenty_columns_takes_microseconds() -> None:
    """Below 20 µs on a quiet machine; the limit leaves room for a busy one."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(500, 20))
    values[rng.random(values.shape) < 0.1] = NAN
    data = MissingData().fit(values)
    rows = [dict(zip(data.get_feature_names_out()[:20], row, strict=True)) for row in values.tolist()]
    best = min(_seconds(data, rows) for _ in range(5))
    assert best / len(rows) < 60e-6


def _seconds(data: MissingData, rows: list[dict[str, Any]]) -> float:
    start = time.perf_counter()
    for row in rows:
        data.transform_one(row)
    return time.perf_counter() - start


def test_it_works_in_a_pipeline_and_is_cloned() -> None:
    """Cloned unfitted; fitted on the rows given to the pipeline."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(200, 3))
    labels = (values[:, 0] > 0).astype(int)
    values[rng.random(values.shape) < 0.2] = NAN
    model = make_pipeline(MissingData("knn"), LogisticRegression()).fit(values, labels)
    assert model.score(values, labels) > 0.8
    copy = clone(model[0])
    assert not hasattr(copy, "fillings_")
    assert copy.get_params() == model[0].get_params()


@pytest.mark.parametrize(
    ("data", "table", "text"),
    [
        (MissingData("avg"), TABLE, "a strategy must be one that exists; got 'avg'"),
        (
            MissingData({"agee": "mean"}),
            TABLE,
            "got 'agee'. Did you mean the column 'age'",
        ),
        (MissingData("mean"), TABLE, "column 'town': the strategy 'mean' must fit the kind of its column; got 'text'"),
        (
            MissingData("constant", constant=1),
            TABLE[["town"]],
            "constant of a column of kind 'text' must be of that kind",
        ),
        (MissingData(), TABLE.assign(age=NAN), "column 'age': a column must have a value in the training rows"),
        (MissingData(), TABLE.assign(age=np.inf), "column 'age': numbers must be finite or missing"),
        (MissingData(), TABLE.assign(age=["1", 2, 3, 4, 5, 6]), "must hold numbers, text or times, one of them"),
        (MissingData(indicators="yes"), TABLE, "indicators must be True, False or 'auto'"),
        (MissingData(groups="who"), TABLE, "groups and time must be columns of the table; got 'who'"),
        (MissingData(), [1, 2], "Expected 2D array"),
        (MissingData(), {"age": 1}, "missing data: "),
    ],
)
def test_what_cannot_be_fitted_is_refused(data: MissingData, table: Any, text: str) -> None:
    """With the column, the rule and what to do."""
    with pytest.raises(InputError) as caught:
        data.fit(table)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"age": "40"}, "column 'age': the column must hold numbers, as when it was fitted; got 'str'"),
        ({"age": np.inf}, "column 'age': numbers must be finite or missing"),
        ({"town": 3}, "column 'town': the column must hold texts, as when it was fitted; got 'int'"),
        ({"age": ...}, "one row: a row must have every column; got 'no age'. Send null if it is not known"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(change: dict[str, Any], text: str) -> None:
    """A misspelt column is not a missing value; text is not read as a number."""
    row = {name: value for name, value in {**_nulls(TABLE)[0], **change}.items() if value is not ...}
    with pytest.raises(InputError) as caught:
        MissingData().fit(TABLE).transform_one(row)
    assert text in str(caught.value)


def test_a_table_that_does_not_fit_is_refused() -> None:
    """An absent column, and one of another kind."""
    data = MissingData().fit(TABLE)
    with pytest.raises(InputError, match="must be present; got 'age'"):
        data.transform(TABLE.drop(columns="age"))
    with pytest.raises(
        InputError, match="column 'age': the column must hold numbers, as when it was fitted; got 'text'"
    ):
        data.transform(TABLE.assign(age="x"))


def test_whole_numbers_and_booleans_are_numbers_in_a_row() -> None:
    """As they are in a table."""
    data = MissingData().fit(np.array([[1.0], [2.0]]))
    for value in (3, True, np.float32(3), np.int64(3)):
        assert data.transform_one({"x0": value}) == {"x0": float(value)}
    assert data.transform_one({"x0": pd.NA}) == {"x0": 1.5}
    with pytest.raises(InputError, match="column 'x0': the column must hold numbers"):
        data.transform_one({"x0": np.array([1.0, 2.0])})


def test_arrays_of_other_libraries_settings_of_scikit_learn_and_small_floats() -> None:
    """set_output gives pandas; single precision stays; names that are not text are positions."""
    values = np.array([[1.0, np.nan], [3.0, 4.0]], dtype=np.float32)
    data = MissingData().set_output(transform="pandas").fit(values)
    assert list(data.transform(values).columns) == ["x0", "x1", "missingindicator_x1"]
    assert MissingData().fit_transform(values).dtype == np.float32
    assert list(MissingData().fit_transform(pd.DataFrame(values)).columns) == ["x0", "x1", "missingindicator_x1"]


def test_what_was_not_written_by_it_is_not_read() -> None:
    """Another kind, and an array cut short."""
    with pytest.raises(IntegrityError, match="of kind 'missing_data'"):
        MissingData.from_dict({"kind": "normaliser"})
    body = MissingData("knn").fit(np.array([[1.0, 2.0], [NAN, 4.0]])).to_dict()
    body["neighbours"]["rows"]["base64"] = body["neighbours"]["rows"]["base64"][:-4]
    with pytest.raises(IntegrityError, match="must have the bytes of its dtype and shape"):
        MissingData.from_dict(body)
