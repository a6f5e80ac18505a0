"""One row as plain Python: equal to scikit-learn's batch over random rows, missing values and unseen categories."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import decomposition, ensemble, feature_selection, linear_model, naive_bayes, neural_network, svm, tree
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from retrodict.models.engines.scalar import UncompiledError
from retrodict.models.engines.scalar_models import compile_predictor

NUMBERS, WORDS = ["a", "b", "c"], ["t", "u", "m"]


def table(rows: int, seed: int, *, unseen: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.gamma(2, 3, rows), "c": rng.normal(size=rows)})
    frame["m"] = rng.integers(1, 6, rows).astype(float)
    words = rng.choice(["x", "y", "z", "w"], rows, p=[0.5, 0.3, 0.18, 0.02]).astype(object)
    words[rng.random(rows) < 0.1] = np.nan
    if unseen:
        words[rng.random(rows) < 0.2] = "never seen"
        frame.loc[rng.random(rows) < 0.1, "m"] = 99.0
    frame["t"] = pd.Series(words, dtype=object)
    frame["u"] = pd.Series(rng.choice(["p", "q"], rows).astype(object), dtype=object)
    for name in ("a", "b"):
        frame.loc[rng.random(rows) < 0.15, name] = np.nan
    return frame


TRAIN = table(240, 0)
SIGNAL = TRAIN["a"].fillna(0).to_numpy() + 0.3 * TRAIN["b"].fillna(3).to_numpy() - TRAIN["c"].to_numpy()
LABELS = {"two": (SIGNAL > 2).astype(int), "three": np.digitize(SIGNAL, (1, 3)), "number": SIGNAL,
          "count": np.floor(np.clip(SIGNAL, 0, 9))}  # fmt: skip


def prepare(kind: str) -> Any:
    return {
        "rare": lambda: ColumnTransformer([
            ("n", make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), NUMBERS),
            ("c", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10), WORDS),
        ]),
        "targets": lambda: ColumnTransformer([
            ("n", make_pipeline(SimpleImputer(), PolynomialFeatures(2), RobustScaler()), NUMBERS),
            ("c", TargetEncoder(cv=2, random_state=0), WORDS),
        ]),
        "codes": lambda: ColumnTransformer([
            ("c", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
             WORDS),
        ], remainder="passthrough"),
        "folded": lambda: make_pipeline(
            ColumnTransformer([
                ("n", make_pipeline(SimpleImputer(),
                                    FeatureUnion([("s", MinMaxScaler(clip=True)), ("m", MaxAbsScaler())])), NUMBERS),
                ("i", MissingIndicator(error_on_new=False), NUMBERS),
                ("d", "drop", ["u"]),
                ("c", OneHotEncoder(handle_unknown="ignore", drop="if_binary", sparse_output=False), WORDS),
            ]),
            feature_selection.VarianceThreshold(), feature_selection.SelectKBest(k=8),
            decomposition.PCA(4, whiten=True, svd_solver="full"),
        ),
        "functions": lambda: make_pipeline(
            ColumnTransformer([
                ("n", make_pipeline(SimpleImputer(strategy="most_frequent"), FunctionTransformer(np.tanh)), NUMBERS),
            ]),
            PolynomialFeatures(3, interaction_only=True, include_bias=False),
            feature_selection.RFE(linear_model.LogisticRegression(), n_features_to_select=4),
        ),
    }[kind]()  # fmt: skip


MODELS: list[tuple[Any, str, str, bool]] = [
    (linear_model.LogisticRegression(), "two", "predict_proba", False),
    (linear_model.LogisticRegression(), "three", "predict_proba", False),
    (linear_model.Ridge(), "number", "predict", False),
    (linear_model.PoissonRegressor(), "count", "predict", False),
    (linear_model.SGDClassifier(loss="log_loss", random_state=0), "three", "predict_proba", False),
    (linear_model.RidgeClassifier(), "three", "decision_function", False),
    (tree.DecisionTreeClassifier(max_depth=5, random_state=0), "three", "predict_proba", True),
    (tree.DecisionTreeRegressor(max_depth=5, random_state=0), "number", "predict", True),
    (ensemble.RandomForestClassifier(8, random_state=0), "three", "predict_proba", True),
    (ensemble.RandomForestRegressor(8, random_state=0), "number", "predict", True),
    (ensemble.ExtraTreesClassifier(8, random_state=0), "two", "predict_proba", True),
    (ensemble.HistGradientBoostingClassifier(max_iter=8), "three", "predict_proba", False),
    (ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=8), "count", "predict", False),
    (ensemble.GradientBoostingClassifier(n_estimators=8), "three", "predict_proba", False),
    (ensemble.GradientBoostingClassifier(loss="exponential", n_estimators=8), "two", "predict_proba", False),
    (ensemble.GradientBoostingRegressor(loss="quantile", n_estimators=8), "number", "predict", True),
    (ensemble.IsolationForest(n_estimators=8, max_features=0.5, random_state=0), "two", "score_samples", True),
    (naive_bayes.GaussianNB(), "three", "predict_proba", False),
    (neural_network.MLPClassifier((16, 8), max_iter=20, random_state=0), "three", "predict_proba", False),
    (neural_network.MLPClassifier((8,), "logistic", max_iter=20, random_state=0), "two", "predict_proba", False),
    (neural_network.MLPRegressor(hidden_layer_sizes=(8,), activation="tanh", max_iter=20), "number", "predict", False),
    (svm.SVC(), "two", "decision_function", False),
    (svm.SVR(kernel="linear"), "number", "predict", False),
    (svm.OneClassSVM(), "two", "score_samples", False),
    (CalibratedClassifierCV(svm.LinearSVC(), cv=2), "two", "predict_proba", False),
]  # fmt: skip
NUMBER = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6))
ROW = st.tuples(NUMBER, NUMBER, NUMBER, st.sampled_from(["x", "y", "z", "w", "other", float("nan")]))
TAKES_MISSING = {"DecisionTreeClassifier", "RandomForestClassifier", "HistGradientBoostingRegressor"}


def agree(pipeline: Any, method: str, frame: pd.DataFrame, *, exact: bool) -> None:
    row_function = compile_predictor(pipeline, method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(getattr(pipeline, method)(frame), dtype=np.float64)
    answers = np.array([row_function(row) for row in frame.astype(object).to_numpy().tolist()])
    answers = answers[:, 0] if expected.ndim == 1 else answers
    if exact:
        assert answers.tobytes() == np.ascontiguousarray(expected).tobytes()
    np.testing.assert_allclose(answers, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(("model", "labels", "method", "exact"), MODELS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("kind", ["rare", "targets", "folded"])
def test_a_pipeline_gives_one_row_what_it_gives_a_batch(kind, model, labels, method, exact):
    """Every transformer and every model of the tables, rows that training never saw among them."""
    from sklearn.base import clone

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = make_pipeline(prepare(kind), clone(model)).fit(TRAIN, LABELS[labels])
    agree(pipeline, method, table(60, 1, unseen=True), exact=exact)


@pytest.mark.parametrize(
    ("model", "labels", "method", "exact"),
    [case for case in MODELS if type(case[0]).__name__ in TAKES_MISSING],
    ids=lambda value: type(value).__name__,
)
def test_trees_send_missing_values_the_same_way(model, labels, method, exact):
    """Into the child that training found best, or the larger one."""
    pipeline = make_pipeline(prepare("codes"), model).fit(TRAIN, LABELS[labels])
    frame = table(60, 2, unseen=True)
    frame.loc[::3, "c"] = np.nan  # training held none there
    agree(pipeline, method, frame, exact=exact)


def test_functions_selection_and_products_are_compiled():
    """NumPy's functions value by value, and the support of a selection."""
    pipeline = make_pipeline(prepare("functions"), linear_model.LogisticRegression()).fit(TRAIN, LABELS["two"])
    agree(pipeline, "predict_proba", table(60, 3), exact=False)


@settings(max_examples=30, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5))
def test_any_row_is_answered_alike(rows):
    """Whatever numbers, missing values and words come."""
    columns = {name: pd.Series([row[at] for row in rows], dtype=object if name == "t" else float)
               for at, name in enumerate(["a", "b", "c", "t"])}  # fmt: skip
    agree(_any_pipeline(), "predict_proba", pd.DataFrame(columns), exact=True)


_PIPELINES: list[Any] = []


def _any_pipeline() -> Any:
    if not _PIPELINES:
        before = ColumnTransformer([
            ("n", SimpleImputer(strategy="median", add_indicator=True), NUMBERS),
            ("c", OneHotEncoder(handle_unknown="ignore"), ["t"]),
        ])  # fmt: skip
        pipeline = make_pipeline(before, ensemble.RandomForestClassifier(5, random_state=0))
        _PIPELINES.append(pipeline.fit(TRAIN[["a", "b", "c", "t"]], LABELS["two"]))
    return _PIPELINES[0]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (KNeighborsClassifier(), "KNeighborsClassifier"),
        (make_pipeline(PowerTransformer(), linear_model.LogisticRegression()), "PowerTransformer"),
        (ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]), "with categorical_features"),
        (ensemble.GradientBoostingClassifier(init=linear_model.LogisticRegression(), n_estimators=2), "another model"),
        (svm.SVC(kernel="poly"), "the kernel poly"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_what_is_not_in_the_table_is_named(model, name):
    """The engine then asks the object itself."""
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.integers(0, 3, 60), rng.normal(size=60)])
    fitted = model.fit(matrix, (matrix[:, 1] > 0).astype(int))
    method = "predict_proba" if hasattr(fitted, "predict_proba") else "decision_function"
    with pytest.raises(UncompiledError, match=name):
        compile_predictor(fitted, method)
