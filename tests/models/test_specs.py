"""Objects of scikit-learn as plain data, stored without pickle; own estimators by decorator and entry point."""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn import ensemble, linear_model, neighbors, svm
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # lets the next name be imported
from sklearn.gaussian_process.kernels import RBF
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from retrodict.core.errors import DefinitionError, InputError, IntegrityError
from retrodict.estimators._skops import TRUSTED, dump_sklearn, load_sklearn
from retrodict.models import SklearnSpec, estimator, get_estimator, list_estimators, load_engine
from retrodict.models.estimators import _ESTIMATORS, _load_entry_points
from retrodict.testing.estimators import make_problem, odd_rows

ONE_HOT = OneHotEncoder(handle_unknown="ignore")


def pipeline(model: Any) -> Any:
    before = ColumnTransformer([
        ("n", make_pipeline(SimpleImputer(), FunctionTransformer(np.arctan), StandardScaler()), ["wind", "month"]),
        ("c", ONE_HOT, make_column_selector(dtype_include=object)),
    ], remainder=SimpleImputer())  # fmt: skip
    return make_pipeline(before, model)


class Mine(BaseEstimator):
    def fit(self, rows, labels=None):
        return self

    def predict(self, rows):
        return np.zeros(len(rows))


def test_a_description_is_plain_and_comes_back():
    """Equal objects have equal descriptions, and building one gives the object again, seeded."""
    model = pipeline(ensemble.RandomForestClassifier(9, max_depth=4))
    spec = SklearnSpec.of(model)
    assert spec == SklearnSpec.of(pipeline(ensemble.RandomForestClassifier(9, max_depth=4)))
    assert spec != SklearnSpec.of(pipeline(ensemble.RandomForestClassifier(9, max_depth=5)))
    assert {spec: 1}[SklearnSpec(spec.text)] == 1
    again = spec.build(seed=5)
    assert SklearnSpec.of(again.set_params(randomforestclassifier__random_state=None)) == spec
    assert spec.build(seed=5)[-1].random_state == 5
    assert not hasattr(model[-1], "estimators_")
    assert (spec.name, spec.tasks, spec.prepares) == ("RandomForestClassifier", ("binary", "multiclass"), True)
    assert SklearnSpec.of(svm.SVR(C=np.float64(2))).tasks == ("regression", "count")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: pipeline(Mine()), r"a class of your own cannot be stored without pickle; got '.*Mine'.*@estimator"),
        (lambda: make_pipeline(FunctionTransformer(lambda x: x), svm.SVC()), "must be a ufunc of NumPy or SciPy"),
        (lambda: make_pipeline(FunctionTransformer(np.mean), svm.SVC()), "must be a ufunc of NumPy or SciPy.*'mean'"),
        (lambda: make_pipeline(OneHotEncoder(), svm.SVC()), "must take categories.*Write handle_unknown='ignore'"),
        (lambda: make_pipeline(OrdinalEncoder(), svm.SVC()), "unknown_value=-1"),
        (lambda: make_pipeline(ONE_HOT), "an estimator must predict; got 'a transformer'"),
        (lambda: __import__("lightgbm").LGBMClassifier(), r"must be named, not built.*Recipe\('lightgbm'"),
        (lambda: GridSearchCV(svm.SVC(), {"C": [1, 2]}), "must be chosen by the recipe.*'GridSearchCV'.*say tune="),
        (lambda: RandomizedSearchCV(pipeline(svm.SVC()), {}), "got 'RandomizedSearchCV'"),
        (lambda: make_pipeline(HalvingGridSearchCV(svm.SVC(), {"C": [1]})), "got 'HalvingGridSearchCV'"),
        (lambda: TunedThresholdClassifierCV(svm.SVC()), "Name its estimator, and say threshold="),
        (lambda: svm.SVC, "must be a name, or an object of scikit-learn"),
        (lambda: 7, "must be a name, or an object of scikit-learn"),
    ],
)
def test_what_would_fail_later_is_refused_where_it_is_written(model, message):
    """With what to write instead."""
    with pytest.raises(DefinitionError, match=message):
        SklearnSpec.of(model())


@pytest.mark.parametrize(
    ("model", "task", "compiled"),
    [
        (lambda: pipeline(ensemble.RandomForestClassifier(5)), "multiclass", True),
        (lambda: pipeline(linear_model.Ridge()), "regression", True),
        (lambda: pipeline(neighbors.KNeighborsClassifier()), "binary", False),
        (lambda: pipeline(svm.LinearSVC()), "multiclass", True),
        (svm.SVC, "binary", True),
        (lambda: ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=5), "count", True),
        (lambda: ensemble.IsolationForest(n_estimators=5), "binary", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_object_is_fitted_stored_and_scores_a_row_as_a_batch(model, task, compiled):
    """Columns by name, texts and missing values; the same engine from its parts and from another fit."""
    problem = make_problem(task, rows=120)
    registered = SklearnSpec.of(model()).registered
    fitted = registered.solve(problem)
    engine = fitted.engine
    rows = np.vstack([problem.validate.matrix, odd_rows(problem.inputs)])
    batch = engine.scores(rows)
    np.testing.assert_allclose([engine.score_row(row) for row in rows], batch, rtol=1e-12, atol=1e-12)
    again = load_engine("sklearn", dict(engine.parts()))
    assert again.scores(rows).tobytes() == batch.tobytes()
    assert again.fingerprint() == engine.fingerprint() == registered.solve(problem).engine.fingerprint()
    assert (fitted.notes["one_row"] == "compiled") == compiled


def test_weights_and_tasks_that_an_object_does_not_take_are_refused():
    """By name, before or while it is fitted."""
    problem = make_problem("binary", rows=60)
    weighted = replace(problem, train=replace(problem.train, weights=np.ones(60)))
    with pytest.raises(InputError, match="must take weights"):
        SklearnSpec.of(neighbors.KNeighborsClassifier()).registered.solve(weighted)
    with pytest.raises(InputError, match="the task must be one of the estimator: regression, count"):
        SklearnSpec.of(linear_model.Ridge()).registered.solve(problem)


def test_stored_bytes_are_the_same_in_every_process_and_hold_trusted_types_only():
    """No memory address, no time of day; what is not on the list is refused on writing and on reading."""
    matrix = np.random.default_rng(0).normal(size=(50, 3))
    first, second = (ensemble.RandomForestRegressor(3, random_state=0).fit(matrix, matrix[:, 0]) for _ in range(2))
    assert dump_sklearn([first]) == dump_sklearn([second])
    with zipfile.ZipFile(io.BytesIO(dump_sklearn([first]))) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
    with pytest.raises(DefinitionError, match=r"of a trusted type; got \['.*Mine'\]"):
        dump_sklearn([Mine()])
    with pytest.raises(IntegrityError, match="of trusted types only"):
        load_sklearn(skops.io.dumps([Mine()]))
    with pytest.raises(IntegrityError, match="skops must read"):
        load_sklearn(dump_sklearn([first])[:-200])
    assert list(TRUSTED) == sorted(TRUSTED, key=str.casefold)
    assert dump_sklearn([RBF()])


OWN = """
from retrodict.models import estimator
from retrodict.models.engines.rates import ConstantEngine
from retrodict.models.problem import Fitted

class HalfEngine(ConstantEngine):
    kind = "own_half:HalfEngine"

@estimator("half", engine=HalfEngine, defaults={"rate": 0.5}, minimum={"rate": 0}, weights=False)
def fit_half(problem):
    return Fitted(HalfEngine(problem.params["rate"], len(problem.inputs)), dict(problem.params))

@estimator("whole", weights=False)
class WholeEngine(ConstantEngine):
    @staticmethod
    def fit(problem):
        return Fitted(WholeEngine(1.0, len(problem.inputs)), {})
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Somebody's installed package, with an entry point and nothing else that leads to it."""
    (tmp_path / "own_half.py").write_text(OWN)
    info = tmp_path / "own_half-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-half\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[retrodict.estimators]\nhalf = own_half\n")
    monkeypatch.syspath_prepend(tmp_path)
    get_estimator("constant")  # the catalogue, before the copy
    monkeypatch.setattr("retrodict.models.estimators._ESTIMATORS", dict(_ESTIMATORS))
    _load_entry_points.cache_clear()
    yield info
    _load_entry_points.cache_clear()
    sys.modules.pop("own_half", None)


def test_an_installed_package_adds_estimators_by_an_entry_point(package):
    """A function and a class, found by name without an import, fitted, and read back by their reference."""
    assert {"half", "whole"} <= {entry.name for entry in list_estimators()}
    problem = make_problem("binary", rows=20)
    for name, rate in (("half", 0.5), ("whole", 1.0)):
        engine = get_estimator(name).solve(problem).engine
        assert engine.kind.startswith("own_half:")
        assert load_engine(engine.kind, engine.parts()).scores(problem.train.matrix).tolist() == [rate] * 20
    with pytest.raises(DefinitionError, match="rate must be a number of at least 0"):
        get_estimator("half").check({"rate": -1})


def test_a_broken_entry_point_is_named(package):
    """With the package to repair."""
    (package / "entry_points.txt").write_text("[retrodict.estimators]\nhalf = own_half.gone\n")
    with pytest.raises(DefinitionError, match="entry point 'half': an entry point must be importable"):
        list_estimators()


def test_an_estimator_of_a_function_body_is_refused():
    """Nobody else could import it."""
    with pytest.raises(DefinitionError, match="in a module that other processes can import"):
        estimator("mine")(type("Engine", (), {"__qualname__": "f.<locals>.Engine"}))
