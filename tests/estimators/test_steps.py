"""Steps of a recipe: one answer for a row and a batch, JSON state, scikit-learn as the oracle of what is learned."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import sklearn.preprocessing as theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit
from sklearn.utils.estimator_checks import parametrize_with_checks

from retrodict.core.errors import InputError, IntegrityError
from retrodict.estimators import (
    Binner,
    Clipper,
    FrequencyEncoder,
    Imputer,
    Interactions,
    OneHotEncoder,
    OrdinalEncoder,
    Scaler,
    ScikitLearnStep,
    TargetEncoder,
    load_step,
)

IMPUTERS = [Imputer(word) for word in ("auto", "mean", "median", "mode", "constant", "knn", "iterative", "keep")]
SCALERS = [Scaler(method) for method in ("standard", "robust", "min_max", "log", "power")]
ENCODERS = [OneHotEncoder(min_share=0.1), OrdinalEncoder(), OrdinalEncoder(order="frequency"), FrequencyEncoder(),
            TargetEncoder()]  # fmt: skip
STEPS = [*IMPUTERS, *SCALERS, Clipper(), Binner(4), Binner(3, "uniform"), Interactions(), *ENCODERS]


def data(seed: int = 1, rows: int = 200, *, missing: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers, one of them large, a category of six, a column without a value, a constant; labels."""
    rng = np.random.default_rng(seed)
    matrix = np.column_stack((
        rng.normal(size=rows), 1e9 + rng.normal(size=rows), rng.integers(0, 6, rows), np.full(rows, np.nan),
        np.full(rows, 0.1),
    ))  # fmt: skip
    matrix[rng.random(matrix.shape) < missing] = np.nan
    return matrix, rng.integers(0, 2, rows).astype(float)


def same_bits(left: Any, right: Any) -> bool:
    """Equal as bytes, any NaN as any other."""
    left, right = np.array(left, dtype=float), np.array(right, dtype=float)
    return (
        left.shape == right.shape
        and np.where(np.isnan(left), np.nan, left).tobytes() == np.where(np.isnan(right), np.nan, right).tobytes()
    )


numbers = st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")), st.sampled_from([0.0, -0.0, 1e300, -1e300, 1e-300]))
codes = st.one_of(st.integers(0, 9).map(float), st.just(float("nan")))
weights_of_rows = st.lists(st.floats(0, 3), min_size=200, max_size=200)


@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("step", STEPS, ids=str)
@given(
    seed=st.integers(0, 99), rows=st.lists(st.tuples(numbers, numbers, codes, numbers, numbers), min_size=1, max_size=9)
)
def test_a_row_equals_the_batch_and_the_stored_step(step: Any, seed: int, rows: list[tuple[float, ...]]) -> None:
    """Bit for bit, for values, gaps and codes never seen; the stored form is plain JSON, the input is not touched."""
    matrix, labels = data(seed)
    before, given_rows = matrix.copy(), np.array(rows)
    fitted = clone(step).set_params(categorical=(2,)).fit(matrix, labels)
    read = load_step(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    batch = fitted.transform(given_rows)
    assert same_bits([fitted.transform_row(list(row)) for row in rows], batch)
    assert same_bits([read.transform_row(list(row)) for row in rows], batch)
    assert same_bits(read.transform(given_rows), batch)
    assert same_bits(matrix, before)
    assert same_bits(given_rows, rows)
    assert list(read.get_feature_names_out()) == list(fitted.get_feature_names_out())
    assert len(read.get_feature_names_out()) == batch.shape[1]
    assert read.categorical_ == fitted.categorical_
    assert not np.isinf(batch).any()


@pytest.mark.parametrize("step", [s for s in STEPS if not isinstance(s, Binner)], ids=str)
def test_what_stays_a_category_is_said(step: Any) -> None:
    """A step of numbers leaves the codes as they are; an encoder leaves none."""
    matrix, labels = data()
    fitted = clone(step).set_params(categorical=(2,)).fit(matrix, labels)
    if any(isinstance(step, type(encoder)) for encoder in ENCODERS):
        assert fitted.categorical_ == ()
    else:
        assert fitted.categorical_ == (2,)
        assert same_bits(fitted.transform(matrix)[:, 2], matrix[:, 2])


@parametrize_with_checks(
    [Imputer(), Scaler(), Clipper(), Binner(), Interactions(), OneHotEncoder(), TargetEncoder()],
    expected_failed_checks=lambda step: {
        "check_dtype_object": "an object of no kind is an InputError, not a TypeError",
        **(dict.fromkeys(("check_estimator_sparse_array", "check_estimator_sparse_matrix"),
                         "the check asks every class of this name for with_mean") if isinstance(step, Scaler) else {}),
    },
)  # fmt: skip
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    """The checks that every transformer of scikit-learn passes."""
    check(estimator)


@pytest.mark.parametrize("step", [s for s in STEPS if s.get_params().get("strategy") not in ("auto", "knn", "iterative")
                                  and s.get_params().get("method") != "power"], ids=str)  # fmt: skip
def test_a_whole_weight_is_so_many_rows(step: Any) -> None:
    """The oracle repeats the rows; weight 0 is no row at all."""
    matrix, labels = data()
    weights = np.random.default_rng(3).integers(0, 4, len(matrix))
    weighted = clone(step).set_params(categorical=(2,)).fit(matrix, labels, weights.astype(float))
    repeated = clone(step).set_params(categorical=(2,)).fit(np.repeat(matrix, weights, axis=0), labels.repeat(weights))
    np.testing.assert_allclose(weighted.transform(matrix), repeated.transform(matrix), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("step", "oracle"),
    [
        (Imputer("mean", indicators=False), SimpleImputer(strategy="mean")),
        (Imputer("median", indicators=False), SimpleImputer(strategy="median")),
        (Imputer("constant", constant=7.0, indicators=False), SimpleImputer(strategy="constant", fill_value=7.0)),
        (Imputer("median"), SimpleImputer(strategy="median", add_indicator=True)),
        (Scaler("standard"), theirs.StandardScaler()),
        (Scaler("min_max"), theirs.MinMaxScaler()),
        (Scaler("power"), theirs.PowerTransformer()),
    ],
)
def test_numbers_come_out_as_in_scikit_learn(step: Any, oracle: Any) -> None:
    """Where it has the same step, on values with gaps."""
    rng = np.random.default_rng(5)
    matrix = np.column_stack((rng.normal(3, 2, 501), rng.normal(0, 5, 501), rng.normal(size=501)))
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    tolerance = (
        2e-2 if getattr(step, "method", "") == "power" else 1e-9
    )  # the power's scale is settled before the power
    np.testing.assert_allclose(step.fit_transform(matrix), oracle.fit_transform(matrix), rtol=tolerance, atol=tolerance)


def test_robust_scale_tails_and_bins_follow_the_quantiles() -> None:
    """Against NumPy's quantiles of the same definition, and the counts of rows per bin."""
    values = np.random.default_rng(2).lognormal(0, 2, (1000, 1))
    low, quarter, middle, three, high = np.quantile(
        values, [0.05, 0.25, 0.5, 0.75, 0.9], method="averaged_inverted_cdf"
    )
    np.testing.assert_allclose(Scaler("robust").fit_transform(values), (values - middle) / (three - quarter))
    np.testing.assert_array_equal(Clipper(0.05, 0.9).fit_transform(values), np.clip(values, low, high))
    assert np.bincount(Binner(8).fit_transform(values).ravel().astype(int)).tolist() == [125] * 8
    uniform = Binner(4, "uniform").fit_transform(values).ravel()
    span = np.ptp(values) / 4
    np.testing.assert_array_equal(uniform, np.minimum((values.ravel() - values.min()) // span, 3))


def test_products_are_those_of_polynomial_features() -> None:
    """Same columns of degree two and three, behind the columns there are."""
    matrix = np.random.default_rng(3).normal(size=(40, 3))
    ours = Interactions(degree=3).fit(matrix)
    oracle = theirs.PolynomialFeatures(3, include_bias=False).fit(matrix)
    np.testing.assert_allclose(ours.transform(matrix), oracle.transform(matrix), rtol=1e-12)
    with pytest.raises(InputError, match=r"products must be 2,000 or fewer; got 5050\. Name the columns"):
        Interactions().fit(np.zeros((2, 100)))


def test_one_hot_columns_are_those_of_scikit_learn() -> None:
    """Rare ones together, as ``min_frequency`` does; missing and unseen have columns of their own from the start."""
    rng = np.random.default_rng(4)
    column = rng.choice(6, 400, p=[0.5, 0.3, 0.15, 0.03, 0.01, 0.01]).astype(float)[:, None]
    step = OneHotEncoder(categorical=(0,), min_share=0.05).fit(column)
    oracle = theirs.OneHotEncoder(min_frequency=0.05, sparse_output=False, handle_unknown="infrequent_if_exist")
    np.testing.assert_array_equal(step.transform(column)[:, :4], oracle.fit_transform(column))
    assert step.transform_row([99.0]) == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert step.transform_row([float("nan")]) == [0.0, 0.0, 0.0, 0.0, 1.0]
    names = step.get_feature_names_out(["carrier"], {0: ["AA", "B6", "UA"]})
    assert list(names) == ["carrier=AA", "carrier=B6", "carrier=UA", "carrier=other", "carrier=missing"]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_target_means_are_those_of_scikit_learn(task: str) -> None:
    """With the same smoothing, for two and four classes and for numbers; out of fold within the same folds."""
    rng = np.random.default_rng(6)
    column = rng.integers(0, 9, 600).astype(float)[:, None]
    labels = rng.integers(0, 4, 600).astype(float) if task == "classification" else rng.normal(column.ravel())
    folds = StratifiedKFold if task == "classification" else KFold
    oracle = theirs.TargetEncoder(smooth=12.0, cv=folds(5, shuffle=True, random_state=0),
                                  target_type="multiclass" if task == "classification" else "continuous")  # fmt: skip
    ours = TargetEncoder(categorical=(0,), smoothing=12.0, task=task).fit(column, labels)
    oracle.fit(column, labels)
    np.testing.assert_allclose(ours.transform(column), oracle.transform(column), rtol=1e-12)
    # Scikit-learn draws towards the mean of the other folds, this step towards that of all: close, not equal.
    np.testing.assert_allclose(ours.fit_transform(column, labels), oracle.fit_transform(column, labels), atol=0.03)


def _in_sample(column: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return TargetEncoder(categorical=(0,), smoothing=1.0).fit(column, labels).transform(column)


@pytest.mark.parametrize("rows_per_id", [1, 3])
def test_an_id_does_not_tell_a_random_label(rows_per_id: int) -> None:
    """In sample the encoded id ranks training rows nearly perfectly; what fit_transform gives ranks by chance."""
    rng = np.random.default_rng(7)
    column = np.repeat(np.arange(900 // rows_per_id), rows_per_id).astype(float)[:, None]
    labels = (rng.random(900) < 0.4).astype(float)
    step = TargetEncoder(categorical=(0,), smoothing=1.0)
    encoded = step.fit_transform(column, labels)
    assert roc_auc_score(labels, _in_sample(column, labels).ravel()) > 0.8
    assert abs(roc_auc_score(labels, encoded.ravel()) - 0.5) < 0.06
    if rows_per_id == 1:
        assert np.unique(encoded).tolist() == [labels.mean()], "a fold must not be told by its prior"
    assert step.transform_row([1e6]) == [labels.mean()]


def test_out_of_fold_values_come_from_the_other_rows_of_the_splitter() -> None:
    """Row by row by hand; rows before the first test part get the prior; nobody's own fold is looked at."""
    matrix, labels = data()
    splitter = TimeSeriesSplit(4)
    step = TargetEncoder(categorical=(2,), smoothing=5.0, splitter=splitter)
    encoded = step.fit_transform(matrix, labels)[:, 2]
    expected = np.full(len(labels), labels.mean())
    for train, test in splitter.split(matrix):
        for row in test:
            code = matrix[row, 2]
            alike = labels[train][(matrix[train, 2] == code) | (np.isnan(matrix[train, 2]) & np.isnan(code))]
            expected[row] = (alike.sum() + 5.0 * labels.mean()) / (alike.size + 5.0)
    np.testing.assert_allclose(encoded, expected, rtol=1e-12)
    pairs = list(StratifiedKFold(5, shuffle=True, random_state=0).split(matrix, labels))
    by_pairs = TargetEncoder(categorical=(2,), smoothing=5.0, splitter=pairs).fit_transform(matrix, labels)
    assert same_bits(by_pairs, TargetEncoder(categorical=(2,), smoothing=5.0).fit_transform(matrix, labels))
    with pytest.raises(InputError, match="a row must not be on both sides of a fold; got '1 rows'"):
        TargetEncoder(categorical=(2,), splitter=[([0, 1], [1, 2])]).fit_transform(matrix, labels)
    with pytest.raises(InputError, match="positions of a fold must be below the number of rows, 200; got 200"):
        TargetEncoder(categorical=(2,), splitter=[([0, 1], [200])]).fit_transform(matrix, labels)


def test_indicators_are_settled_by_the_training_rows() -> None:
    """A complete row to serve has the columns of training; a column complete in training is filled, not passed on."""
    step = Imputer("median").fit([[1.0, 5.0], [np.nan, 6.0], [3.0, 7.0]])
    assert step.transform([[9.0, 9.0]]).tolist() == [[9.0, 9.0, 0.0]]
    assert step.transform_row([float("nan"), float("nan")]) == [2.0, 6.0, 1.0]
    assert step.report_["indicators"] == [0]


def test_an_empty_column_is_filled_with_zero_and_named() -> None:
    """Whatever the strategy; nothing that follows meets a gap."""
    for strategy in ("mean", "median", "mode", "knn", "iterative", "auto"):
        step = Imputer(strategy).fit([[np.nan, 1.0], [np.nan, 2.0], [np.nan, np.nan]])
        assert step.report_["empty"] == [0]
        assert step.transform_row([float("nan"), 1.0])[0] == 0.0


def test_large_values_with_small_noise_are_scaled() -> None:
    """1e9 + N(0, 1) has the spread 1, also when weighted; a constant is divided by 1."""
    values = 1e9 + np.random.default_rng(8).normal(size=(5000, 1))
    for weights in (None, np.ones(5000)):
        scaled = Scaler().fit(values, None, weights).transform(values)
        assert abs(scaled.std() - 1) < 1e-6
        assert abs(scaled.mean()) < 1e-6
        assert Scaler().fit(np.full((9, 1), 0.1), None, np.ones(9)).transform_row([0.1]) == [0.0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Imputer("medain"), r"a strategy must be one that exists; got 'medain'\. Did you mean the strategy 'median'"),
        (Imputer(columns=[2], categorical=(2,)), r"a category must be filled by mode or constant"),
        (Scaler("standrd"), "Did you mean the method 'standard'"),
        (Scaler(columns=[5]), r"a column must be a place below 5; got 5"),
        (Clipper(0.9, 0.1), r"levels must ascend from 0 to 1; got \(0.9, 0.1\)"),
        (Binner(1), "there must be two bins or more; got 1"),
        (OneHotEncoder(columns=[0]), "a category must have whole codes from 0 on"),
        (Interactions(columns=[2], categorical=(2,)), r"factors must be numbers; got \[2\]"),
        (TargetEncoder(categorical=(2,), smoothing=-1.0), "smoothing must be zero or more rows; got -1"),
        (TargetEncoder(categorical=(2,), task="clasification"), "Did you mean the task 'classification'"),
    ],
)
def test_wrong_settings_are_refused_by_name(step: Any, message: str) -> None:
    """With what must hold, what was got, and the way out."""
    with pytest.raises(InputError, match=message):
        step.fit(*data())


def test_infinities_and_other_widths_are_refused() -> None:
    """In a batch and in a row alike."""
    step = Scaler().fit([[1.0, 2.0], [2.0, 3.0]])
    for row in ([float("inf"), 1.0], [1.0]):
        for call in (step.transform, lambda rows: step.transform_row(rows[0])):
            with pytest.raises(InputError, match="rows must be a finite or missing float64 matrix"):
                call([row])
    with pytest.raises(InputError, match="weights must be zero or more, and not all zero; got '1 below zero'"):
        step.fit([[1.0], [2.0]], None, [1.0, -1.0])
    with pytest.raises(InputError, match=r"labels must be one finite number per row; got \(2, 1\)"):
        step.fit([[1.0], [2.0]], [1.0])
    with pytest.raises(InputError, match="the step must have labels to learn from"):
        TargetEncoder(categorical=(0,)).fit([[1.0], [2.0]])


def test_a_transformer_of_scikit_learn_is_a_step() -> None:
    """Numbers go through it, the category beside it; stored without pickle; code of others is refused when fitted."""
    matrix, labels = data(missing=0.0)
    matrix[:, 3] = 0.0
    step = ScikitLearnStep(PCA(2), columns=[0, 1, 4], categorical=(2,)).fit(matrix, labels)
    batch = step.transform(matrix)
    np.testing.assert_allclose(batch[:, :2], PCA(2).fit_transform(matrix[:, [0, 1, 4]]), atol=1e-6)
    np.testing.assert_array_equal(batch[:, 2:], matrix[:, [2, 3]])
    assert step.categorical_ == (2,)
    assert list(step.get_feature_names_out(list("abcde"))) == ["pca0", "pca1", "c", "d"]
    read = load_step(json.loads(json.dumps(step.to_dict())))
    np.testing.assert_allclose(read.transform_row(matrix[0].tolist()), batch[0], rtol=1e-6)
    assert read.to_dict() == step.to_dict()
    with pytest.raises(InputError, match=r"the transformer must accept the training rows.*contains NaN"):
        ScikitLearnStep(PCA(2)).fit(data()[0])
    with pytest.raises(InputError, match="a transformer must be stored without code of its own"):
        ScikitLearnStep(theirs.FunctionTransformer(same_bits)).fit(matrix)


@pytest.mark.parametrize(
    "transformer", [PCA(2), theirs.QuantileTransformer(n_quantiles=20), theirs.Normalizer()], ids=str
)
def test_a_fit_that_is_done_again_is_stored_alike(transformer: Any) -> None:
    """Byte for byte, in this process and in another one; what was read transforms as what was fitted."""
    code = (
        "import json, numpy as np, sklearn.preprocessing as theirs; from sklearn.decomposition import PCA\n"
        "from retrodict.estimators import ScikitLearnStep\n"
        "rows = np.random.default_rng(1).normal(size=(60, 3))\n"
        f"transformer = eval({str(transformer)!r}, {{'PCA': PCA, **vars(theirs)}})\n"
        "print(json.dumps(ScikitLearnStep(transformer).fit(rows).to_dict()))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    rows = np.random.default_rng(1).normal(size=(60, 3))
    step = ScikitLearnStep(transformer).fit(rows)
    body = json.loads(printed.stdout)
    assert body == json.loads(json.dumps(step.to_dict()))
    np.testing.assert_array_equal(load_step(body).transform(rows), step.transform(rows))


def test_a_stored_step_that_was_altered_is_refused() -> None:
    """Another kind, an operation that does not exist, fields that are not its own."""
    body = Scaler().fit([[1.0], [2.0]]).to_dict()
    for change, message in (
        ({"kind": "scalar"}, "Did you mean the kind 'scaler'"),
        ({"operations": [["affin", 0, 1.0, 1.0]]}, "Did you mean the operation 'affine'"),
        ({"operations": [["affine", 0]]}, "a stored operation must have the fields of its kind"),
    ):
        with pytest.raises(IntegrityError, match=message):
            load_step({**body, **change})
    with pytest.raises(IntegrityError, match="a stored estimator must be of kind 'imputer'; got 'scaler'"):
        Imputer.from_dict(body)


def test_steps_chain_by_name() -> None:
    """Impute, encode, scale: the names and places of one are the input of the next; a model learns from the end."""
    matrix, labels = data()
    matrix[:, 0] = np.where(np.isnan(matrix[:, 0]), np.nan, matrix[:, 0] + 2 * labels)
    names, categorical, output = ["x", "large", "carrier", "empty", "same"], (2,), matrix
    for step in (Imputer(), TargetEncoder(), Scaler("robust")):
        step.set_params(categorical=categorical)
        output = step.fit_transform(output, labels)
        names, categorical = list(step.get_feature_names_out(names)), step.categorical_
    assert names[:3] == ["x", "large", "carrier_target"]
    assert not np.isnan(output).any()
    assert LogisticRegression().fit(output, labels).score(output, labels) > 0.75
