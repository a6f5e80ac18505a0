"""Definitions of recipe steps: immutable data with one hash per meaning, built into the steps they name."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer

import retrodict.estimators as estimators
from retrodict import Balance, Encode, Impute, Interact, Scale, Select, Threshold, Transform
from retrodict.core.errors import DefinitionError
from retrodict.core.identity import content_hash
from retrodict.core.tasks import Target
from retrodict.estimators.balance import BALANCES
from retrodict.models.imbalance import _BALANCES
from retrodict.models.objects import ObjectSpec
from retrodict.models.steps import _RENAMED, as_step

KINDS = [Impute, Scale, Encode, Interact, Select]
METHODS = [(kind, word) for kind in KINDS for word in kind.methods]
NAMES = ["delay", "wind", "carrier", "origin"]


def define(kind: Any, word: str, **params: Any) -> Any:
    return kind(**params) if kind is Interact else kind(word, **params)


@pytest.mark.parametrize(("kind", "word"), METHODS)
def test_the_defaults_are_those_of_the_step(kind: Any, word: str) -> None:
    """Written twice, as definitions load nothing: equal, and the step takes every parameter."""
    method = kind.methods[word]
    module, _, name = method.step.partition(":")
    step = getattr(estimators, name)
    assert step.__module__ == f"retrodict.estimators.{module}"
    signature = {name: p.default for name, p in inspect.signature(step.__init__).parameters.items()}
    for name, default in method.defaults.items():
        assert signature[_RENAMED.get(name, name)] == default, name
    assert set(method.fixed) <= set(signature)


@pytest.mark.parametrize(("kind", "word"), METHODS)
def test_every_method_is_built_and_fits(kind: Any, word: str) -> None:
    """For a matrix of numbers and codes with gaps, told by name."""
    rng = np.random.default_rng(1)
    matrix = np.column_stack((rng.normal(size=(120, 2)), rng.integers(0, 4, (120, 2))))
    labels = (matrix[:, 0] > 0).astype(float)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    params: dict[str, Any] = {"n": 2} if word == "rfe" else {}
    if "estimator" in kind.methods[word].defaults:
        params |= {"estimator": RandomForestClassifier(3, max_depth=3, random_state=0)}
    step = define(kind, word, **params).build(NAMES, (2, 3), target=Target(), seed=1)
    assert step.categorical == (2, 3)
    output = step.fit_transform(matrix, labels)
    assert output.shape == (120, len(step.get_feature_names_out(NAMES)))


def test_one_meaning_has_one_hash() -> None:
    """A default that is written out, another order, 20 for 20.0: the same; every parameter counts."""
    base = Encode("target", ["carrier"])
    same = [Encode("target", ("carrier",)), Encode("target", ["carrier"], smoothing=20), Encode(
        "target", ["carrier"], folds=5, smoothing=20.0)]  # fmt: skip
    assert {content_hash(step) for step in same} == {content_hash(base)}
    assert all(step == base for step in same)
    others = [
        base, Encode("target"), Encode("target", ["origin"]), Encode("target", ["carrier"], smoothing=21),
        Encode("onehot", ["carrier"]), Impute(), Impute("mean"), Impute(indicators=True), Impute(indicators=False),
        Scale(), Scale("log"), Scale("clip", low=0), Interact(), Interact(powers=False), Select.rfe(3), Select.rfecv(3),
        Select.rfecv(3, step=0.1), Select.rfe(3, estimator="linear"), Select.rfe(3, estimator=LogisticRegression()),
        Select.rfe(3, estimator=LogisticRegression(C=2.0)), Transform(PCA(2)), Transform(PCA(3)),
        Transform(PCA(2), ["wind"]),
        Balance(), Balance(ratio=0.5), Balance(weights={1: 2}), Threshold.cost(), Threshold.cost(false_negative=6),
        Threshold.recall(0.8), Threshold.precision(0.8), Threshold.fixed(0.8),
    ]  # fmt: skip
    assert len({content_hash(step) for step in others}) == len(others)
    assert content_hash(Balance(ratio=1)) == content_hash(Balance())
    assert content_hash(Threshold.cost(false_negative=6)) == content_hash(Threshold.cost(false_negative=6.0))
    assert len({base, *same}) == 1
    assert pickle.loads(pickle.dumps(base)) == base
    with pytest.raises(AttributeError):
        base.method = "onehot"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda: Impute("medain"),
            r"Impute: a method must be one that exists; got 'medain'\. Did you mean .* 'median'",
        ),
        (lambda: Impute("median", "wind"), r"columns must be a list of names.*Write Impute\('median', \['carrier'\]\)"),
        (lambda: Impute("median", neighbors=3), r"a parameter must be one of Impute\('median'\); got 'neighbors'"),
        (lambda: Impute("knn", neighbors=3), "Did you mean the parameter 'neighbours'"),
        (lambda: Impute("knn", neighbours=0), "must be a whole number from 1; got 0. Leave it out for the default, 5"),
        (lambda: Impute("knn", neighbours=2.5), "must be a whole number from 1; got 2.5"),
        (lambda: Impute(indicators="always"), "a parameter must be one of its values; got 'always'"),
        (lambda: Scale("clip", high=99), "must be a number from 0 to 1; got 99"),
        (lambda: Encode("target", smoothing=True), "must be a number from 0; got True"),
        (lambda: Select.rfecv(scoring=3), "a scoring must be a name of scikit-learn"),
        (
            lambda: Select.rfe(2, estimator=LogisticRegression),
            "an object must be an instance of a class with get_params",
        ),
        (
            lambda: Transform(FunctionTransformer(lambda x: x)),
            "a parameter must be a plain value, or another estimator",
        ),
        (
            lambda: Transform(LogisticRegression()),
            r"a step must have a method transform; got 'sklearn.linear_model:Logi",
        ),
        (lambda: as_step(Balance()), r"a step must change columns; got 'Balance'. Pass it as Recipe\(balance="),
        (lambda: as_step("median"), "an object must be an instance of a class with get_params"),
        (lambda: Balance("smot"), "Did you mean the method 'smote'"),
        (lambda: Balance(ratio=0), r"Balance, ratio: the value must be a number above 0, up to 1; got 0"),
        (lambda: Balance("smote", weights={1: 2}), "only class weights must have a weight per class; got 'smote'"),
        (lambda: Balance(weights={1: -2}), "Balance, weights of 1: the value must be a number above 0; got -2"),
        (lambda: Threshold("recal", 0.8), "Did you mean the way 'recall'"),
        (lambda: Threshold("recall"), "a threshold must have a value, unless it is chosen by cost"),
        (lambda: Threshold.recall(80), r"must be a number above 0, up to 1; got 80"),
        (lambda: Threshold.cost(false_positive=-1), "must be a number from 0; got -1"),
        (lambda: Threshold.cost(false_positive=0, false_negative=0), "one of the costs must be above zero"),
        (Threshold.capacity, "a capacity must be rows or a share"),
        (lambda: Threshold.capacity(30), r"a capacity must be rows or a share up to 1; .*rows=100"),
        (lambda: Threshold.fixed(1.5), r"must be a number from 0, up to 1; got 1.5"),
        (lambda: Threshold.fixed(-0.1), r"must be a number from 0, up to 1; got -0.1"),
    ],
)
def test_a_definition_is_checked_where_it_is_written(write: Any, message: str) -> None:
    """With near names and the way out, before any row is read."""
    with pytest.raises(DefinitionError, match=message):
        write()


def test_columns_are_told_by_name() -> None:
    """Their places among those that the step gets; an unknown one with near names, a number is not encoded."""
    step = Encode("onehot", ["origin", "carrier"], min_share=0.2).build(NAMES, (2, 3))
    assert (step.columns, step.categorical, step.min_share) == ([3, 2], (2, 3), 0.2)
    with pytest.raises(DefinitionError, match=r"those that the step gets; got 'carier'\. Did you mean .* 'carrier'"):
        Encode("onehot", ["carier"]).build(NAMES, (2, 3))
    with pytest.raises(DefinitionError, match=r"must be a category; got 'wind'\. Say Recipe\(types=\{'wind':"):
        Encode("target", ["wind"]).build(NAMES, (2, 3))
    assert Transform(PCA(2), ["wind", "delay"]).build(NAMES, (2, 3)).columns == [1, 0]
    with pytest.raises(DefinitionError, match="'delay'"):
        Transform(PCA(2), ["delai"]).build(NAMES, (2, 3))


def test_seed_task_and_folds_of_the_recipe_reach_the_step() -> None:
    """The recipe's folds come before the number of folds; a count is no class."""
    folds = [(np.arange(50), np.arange(50, 100))]
    step = Select.rfecv(2, folds=3).build(NAMES, (), target=Target("count"), seed=9, splitter=folds)
    assert (step.seed, step.task, step.splitter, step.names) == (9, "regression", folds, tuple(NAMES))
    assert Select.rfecv(2, folds=3).build(NAMES).splitter == 3
    target = Target("multiclass", classes=("a", "b", "c"))
    assert Encode("target").build(NAMES, (2,), target=target).task == "classification"
    assert Encode("target").build(NAMES, (2,)).task == "auto"


def test_an_object_of_scikit_learn_is_data() -> None:
    """By its public module and the parameters that were set, parts within parts; built anew each time."""
    bagging = BaggingClassifier(RandomForestClassifier(7, max_depth=2), n_estimators=3)
    part = ObjectSpec.of(bagging, where="test")
    assert part.reference == "sklearn.ensemble:BaggingClassifier"
    assert dict(part.params)["n_estimators"] == 3
    assert dict(part.params)["estimator"].reference == "sklearn.ensemble:RandomForestClassifier"
    again = part.build()
    assert again is not bagging
    assert str(again.get_params()) == str(bagging.get_params())
    assert as_step(QuantileTransformer(n_quantiles=9)) == Transform(QuantileTransformer(n_quantiles=9))
    assert as_step(Impute()) == Impute()


@pytest.mark.parametrize("how", _BALANCES)
def test_balance_is_applied_to_training_rows(how: str) -> None:
    """Every method that exists below, and no other."""
    assert sorted(_BALANCES) == sorted(BALANCES)
    rng = np.random.default_rng(1)
    labels = (np.arange(400) < 60).astype(float)
    matrix = rng.normal(size=(400, 2)) + labels[:, None]
    result = Balance(how, ratio=0.5).apply(matrix, labels, seed=3)
    share = result.report.trained[1.0] / result.report.trained[0.0]
    assert share == pytest.approx(0.5, abs=0.12 if how in ("adasyn", "smote_tomek") else 0.01)


def test_class_weights_are_told_by_the_name_of_the_class() -> None:
    """In the order of the codes, whatever the order of the names."""
    matrix, labels = np.zeros((6, 1)), np.array([0.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    target = Target("multiclass", classes=("early", "late", "on time"))
    balance = Balance(weights={"on time": 1, "late": 5, "early": 2})
    assert balance.apply(matrix, labels, target=target).weights.tolist() == [2.0, 5.0, 1.0, 1.0, 1.0, 1.0]
    with pytest.raises(DefinitionError, match=r"must be for classes of the label; got 'lat'\. Did you mean .* 'late'"):
        Balance(weights={"lat": 2}).apply(matrix, labels, target=target)


@pytest.mark.parametrize(
    ("threshold", "check"),
    [
        (Threshold.cost(false_positive=1, false_negative=6), lambda c: abs(c.threshold - 1 / 7) < 0.05),
        (Threshold.precision(0.8), lambda c: c.precision >= 0.8),
        (Threshold.recall(0.8), lambda c: c.recall >= 0.8),
        (Threshold.alarms(20), lambda c: 0.38 < c.yes <= 0.4),
        (Threshold.capacity(0.1), lambda c: 0.09 < c.yes <= 0.1),
        (Threshold.capacity(share=0.1), lambda c: 0.09 < c.yes <= 0.1),
        (Threshold.capacity(rows=100), lambda c: 0.04 < c.yes <= 0.05),
        (Threshold.fixed(0.5), lambda c: c.threshold == 0.5 and c.recall > 0.5),
        (Threshold.precision(1.0, false_negative=9), lambda c: c.reached or c.threshold is None),
    ],
)
def test_a_threshold_is_chosen_as_it_says(threshold: Threshold, check: Any) -> None:
    """On the rows that are given, with cost and interval."""
    rng = np.random.default_rng(4)
    scores = rng.random(2000)
    cutoff = threshold.choose(scores, (rng.random(2000) < scores) * 1, days=40)
    assert check(cutoff)
    assert not cutoff.reached or cutoff.low < cutoff.cost < cutoff.high


def test_steps_of_a_recipe_follow_each_other() -> None:
    """As in the recipe of the manual: fill, encode, select; the names of one are those of the next."""
    rng = np.random.default_rng(5)
    matrix = np.column_stack((rng.normal(size=(400, 2)), rng.integers(0, 5, 400), rng.integers(0, 3, 400)))
    labels = (matrix[:, 0] + (matrix[:, 2] == 3) * 2 + rng.normal(size=400) > 0.5).astype(float)
    matrix[rng.random(matrix.shape) < 0.05] = np.nan
    names, categorical, output = NAMES, (2, 3), matrix
    fitted = []
    for definition in (Impute("median"), Encode("target", ["carrier"]), Encode("onehot"),
                       Select.rfecv(2, estimator="linear", folds=2, step=3), PCA(1)):  # fmt: skip
        step = as_step(definition).build(names, categorical, target=Target(), seed=1)
        output = step.fit_transform(output, labels)
        names, categorical = list(step.get_feature_names_out(names)), step.categorical_
        fitted.append(step)
    selected = [name for name, stays in zip(fitted[3].report_["names"], fitted[3].support_, strict=True) if stays]
    assert {"delay", "carrier_target"} <= set(selected)
    assert output.shape == (400, 1)
    row: Any = matrix[7].tolist()
    batch = matrix[7:8]
    for step in fitted:
        row, batch = estimators.load_step(step.to_dict()).transform_row(row), step.transform(batch)
    np.testing.assert_allclose(row, batch[0], rtol=1e-9)


@pytest.mark.parametrize("last", [Interact(["wind", "visib"]), Encode("bins"), PCA(2)], ids=str)
def test_an_engine_on_steps_answers_and_explains_by_feature(train: Any, spec: Any, last: Any) -> None:
    """Whatever the steps make of a feature: a row equals the batch, shares add up to the margin, also when read."""
    from retrodict.models import fit_logistic
    from retrodict.models.engines.composite import PreparedEngine

    names, categorical, matrix, steps = list(spec.names), spec.categorical, train.matrix, []
    for definition in (Impute("iterative"), Encode("target", ["origin"]), Encode("onehot", ["month"]), last):
        step = as_step(definition).build(names, categorical, target=Target(), seed=1)
        matrix = step.fit_transform(matrix, train.labels)
        assert len(step.sources_) == matrix.shape[1]
        names, categorical = list(step.get_feature_names_out(names)), step.categorical_
        steps.append(step)
    examples = type(train)(np.ascontiguousarray(matrix), train.labels)
    engine = PreparedEngine(steps, fit_logistic(examples, categorical).engine, len(spec))
    read = PreparedEngine.from_parts(engine.parts())
    batch = engine.scores(train.matrix[:40])
    for row, score in zip(train.matrix[:40], batch, strict=True):
        assert read.score_row(row) == pytest.approx(score, rel=1e-9)
        assert not engine.exact_rows or read.score_row(row) == score
        shares = engine.contributions(row)
        assert shares.shape == (len(spec) + 1,)
        assert shares.sum() == pytest.approx(engine.margin(row))
    origin = list(spec.names).index("origin")
    assert steps[1].sources_[list(steps[1].get_feature_names_out(steps[0].get_feature_names_out(spec.names))).index(
        "origin_target")] == (origin,)  # fmt: skip
    assert np.abs(engine.contributions(train.matrix[0])[origin]) > 0
