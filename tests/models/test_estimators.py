"""Estimators: one registration each, anybody's own beside the built-in ones, stored models readable without it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from retrodict.core.errors import DefinitionError, InputError, NotFoundError
from retrodict.core.tasks import Target
from retrodict.data.definitions import Table
from retrodict.features.derived import derived
from retrodict.features.labels import Label
from retrodict.models import (
    ConstantEngine,
    Estimator,
    Examples,
    InputSpec,
    ModelArtifact,
    Problem,
    get_estimator,
    load_engine,
    register_estimator,
)
from retrodict.models.definitions import Model, Recipe
from retrodict.models.engines.linear import CategoryTerm, LinearEngine, NumberTerm
from retrodict.models.estimators import _ESTIMATORS
from retrodict.models.splits import TimeSplit
from retrodict.stores.objects.folder import FolderObjects

SPLIT = TimeSplit("2013-01-01/2013-07-01")
BUILT_IN = ["constant", "group_rate", "lightgbm", "logistic"]
OWN = """
from retrodict.models.engines.rates import ConstantEngine
from retrodict.models.problem import Fitted

class Engine(ConstantEngine):
    kind = "own_rates:Engine"

def fit(problem):
    return Fitted(Engine(problem.params["rate"], len(problem.inputs)), dict(problem.params))
"""


@derived
def hour(sent_at):
    return {"hour": sent_at.hour}


@pytest.fixture
def own(tmp_path, monkeypatch) -> Estimator:
    """Somebody's package with an estimator, registered as theirs."""
    (tmp_path / "own_rates.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("retrodict.models.estimators._ESTIMATORS", dict(_ESTIMATORS))
    return register_estimator(
        Estimator(name="own", fit="own_rates:fit", engine="own_rates:Engine", defaults={"rate": 0.5},
                  minimum={"rate": 0}, contributions="none")
    )  # fmt: skip


@pytest.fixture
def problem() -> Problem:
    inputs = InputSpec.learn({"wind": [1.0, 2.0], "origin": ["JFK", "EWR"]})
    return Problem(inputs, Examples(inputs.encode_columns({"wind": [1.0, 2.0], "origin": ["JFK", None]}), [0, 1]))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_estimator_is_what_it_registers(name):
    """Kind and task of the engine's class are those of the registration, and so are the defaults of the function."""
    estimator = get_estimator(name)
    module, _, engine = estimator.engine.partition(":")
    engine_class = getattr(import_module(module), engine)
    assert engine_class.kind == estimator.kind
    function = getattr(import_module(module), f"fit_{name}")
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and key not in {"seed", "params", "progress", "checkpoints", "start"}
    }
    more = (
        {"l1_ratio": 0.0, "path": False} if name == "logistic" else {}
    )  # of the general form, which hands yes or no with L2 on
    assert defaults | more == ({} if estimator.aliases else dict(estimator.defaults))


def test_own_estimators_join_by_one_call(own, problem, tmp_path):
    """A recipe names it, its defaults hold, and its model is read where nobody registered it."""
    recipe = Recipe("own", SPLIT, params={"rate": 0.25})
    fitted = recipe.registered.solve(Problem(problem.inputs, problem.train, params=recipe.settings))
    assert (fitted.engine.rate, own.solve(problem).engine.rate) == (0.25, 0.5)
    objects = FolderObjects(tmp_path / "objects")
    digest = ModelArtifact("late", problem.inputs, fitted.engine).save(objects)
    script = f"""
from pathlib import Path
from retrodict.models import ModelArtifact
from retrodict.stores.objects.folder import FolderObjects
model = ModelArtifact.load(FolderObjects(Path({str(tmp_path / "objects")!r})), {digest!r})
assert model.score_row({{"wind": 1.0, "origin": None}}).score == 0.25
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(tmp_path)}, timeout=60)


def test_a_recipe_keeps_the_estimator_of_its_time(own):
    """Another version of a project registers its own defaults; recipes of the first are not moved by it."""
    recipe = Recipe("own", SPLIT)
    label = Label("late", Table("sent", key="id"), "delay > 15", known_at="arrived")
    model = Model("late", label=label, decide_at="sent_at", features=[hour], recipe=recipe)
    other = register_estimator(
        Estimator(name="own", fit=own.fit, engine=own.engine, defaults={"rate": 0.75}, contributions="none")
    )
    assert recipe.registered.defaults["rate"] == 0.5
    assert Recipe("own", SPLIT).registered == other
    assert model.with_split(TimeSplit("2013-02-01/2013-07-01")).recipe.registered == own, "for a replay, too"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe("logistc", SPLIT), "an estimator must be registered.*Did you mean the estimator 'logistic'"),
        (lambda: Recipe("logistic", SPLIT, params={"penality": 2}), "'penality'. Did you mean the parameter 'penalty'"),
        (lambda: Recipe("logistic", SPLIT, params={"penalty": -1}), "penalty must be a number of at least 0; got -1"),
        (lambda: Recipe("logistic", SPLIT, params={"penalty": True}), "penalty must be a number"),
        (lambda: Recipe("logistic", SPLIT, params={"penalty": float("nan")}), "penalty must be a number"),
        (lambda: Recipe("constant", SPLIT, params={"rate": 1}), "must be one of the estimator"),
        (lambda: Recipe("group_rate", SPLIT), "the parameter 'group' must have a value"),
        (lambda: register_estimator(Estimator(name="logistic", fit="a:b", engine="a:c", contributions="")),
         "a built-in estimator must not be replaced"),
        (lambda: Estimator(name="own", fit="my_package.fit", engine="a:c", contributions=""), "PACKAGE.MODULE:NAME"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_where_it_is_written(make, message):
    """Names with their nearest ones, values with their limit, before anything is trained."""
    with pytest.raises(DefinitionError, match=message):
        make()


@pytest.mark.parametrize(
    ("target", "labels", "message"),
    [
        (Target(), [0, 2], "labels must be 0 or 1; got .1 others among 2"),
        (Target("multiclass", classes=("a", "b")), [0, 2], "codes of the classes"),
        (Target("multiclass", classes=("a", "b")), [0, 0.5], "codes of the classes"),
        (Target("count"), [0, -1], "counts must be numbers from 0 to 1e30"),
        (Target("ranking"), [0, -1], "relevances must be"),
        (Target("regression"), [0, np.inf], "labels must be numbers of at most 1e30"),
        (Target("quantile", quantiles=(0.5,)), [0, np.nan], "labels must be numbers of at most 1e30"),
    ],
)
def test_labels_that_are_none_of_the_task_are_counted(problem, target, labels, message):
    with pytest.raises(InputError, match=message):
        Examples(problem.train.matrix, np.array(labels), target)


def test_an_estimator_of_other_tasks_names_those_that_fit(own, problem):
    """Before anything is fitted."""
    target = Target("multiclass", classes=("a", "b"))
    other = replace(problem, train=replace(problem.train, target=target))
    with pytest.raises(InputError, match="must be one of the estimator: binary; got 'multiclass'"):
        own.solve(other)
    with pytest.raises(DefinitionError, match="tasks that there are; got 'regresion'"):
        Estimator(name="own", fit="a:b", engine="a:c", tasks=("regresion",), contributions="")


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan]])
def test_weights_that_no_row_can_have_are_refused(problem, weights):
    with pytest.raises(InputError, match="weight"):
        replace(problem.train, weights=np.array(weights))


def test_features_that_an_estimator_does_not_take_are_named(own, problem):
    """Before it is fitted."""
    numbers = Estimator(name="own", fit=own.fit, engine=own.engine, inputs=("number",), contributions="")
    with pytest.raises(InputError, match=r"of a type that the estimator takes: number; got \['origin'\]"):
        numbers.solve(problem)


def test_an_engine_of_another_kind_than_registered_is_refused(own, problem):
    """Its model could be stored, but not read again."""
    other = Estimator(name="own", fit=own.fit, engine="own_rates:Other", defaults={"rate": 0.5}, contributions="")
    with pytest.raises(DefinitionError, match=r"kind that its estimator registers.*kind = 'own_rates:Other'"):
        other.solve(problem)


@pytest.mark.parametrize("kind", ["own_rate:Engine", "own_rates:Engin"])
def test_an_engine_that_cannot_be_imported_is_named(own, kind):
    """Serving a model needs the package that trained it."""
    with pytest.raises(DefinitionError, match=f"must be importable; got '{kind}'. Install the package"):
        load_engine(kind, {})
    with pytest.raises(NotFoundError, match="Did you mean the engine 'linear'"):
        load_engine("liner", {})


def test_hashes_of_definitions_and_artifacts_stay(tmp_path):
    """Versions of recipes and digests of stored models as they were before there was a registry."""
    from retrodict.data.sources import Source
    from retrodict.features.definitions import Entity, FeatureView, agg
    from retrodict.models import SigmoidCalibrator

    table = Table("sent", key="id")
    model = Model(
        "late", label=Label("late", table, "delay > 15", known_at="arrived"), decide_at="sent_at",
        features=[FeatureView("v", Entity("carrier"), Source("s", table, event_time="sent_at", known_at="arrived"),
                              [agg.count(over="7d")])],
        recipe=Recipe("group_rate", TimeSplit(train="2024-01-01/2024-02-01"), "sigmoid", {"prior_count": 5}, "carrier",
                      3), gates=["auc > 0.5"],
    )  # fmt: skip
    assert model.version == "8ce3fbb52b6a68b49904df7a869625c6fecc71f87cacffaacfe9553232af71a2"
    assert model.with_split(model.recipe.split).version == model.version
    spec = InputSpec.learn({"wind": [1.0, None, 3.0, 4.0], "origin": ["a", "b", None, "a"]})
    terms = (NumberTerm(1.0, 2.0, 0.5), CategoryTerm((0.5, -0.25), 0.125))
    for engine, digest in (
        (ConstantEngine(0.25, 2), "ed79f69190ae79e113f3a20200292fa3fba818e3fa15b2480c15a59453673e2c"),
        (LinearEngine(-1.0, terms), "238d5a69dae61323c6bb66e70ddbc9ee93630589353da0d99b30ca0518c1ada8"),
    ):
        artifact = ModelArtifact("late", spec, engine, SigmoidCalibrator(1.5, -0.5), {"run": "01J0"})
        objects = FolderObjects(tmp_path / digest)
        assert artifact.save(objects) == digest
        loaded = ModelArtifact.load(objects, digest).engine
        assert loaded.scores(np.zeros((1, 2))) == engine.scores(np.zeros((1, 2)))


def test_small_tables_are_fitted_by_one_thread(problem, monkeypatch):
    """Libraries that the fit itself loads are held to it too."""
    import lightgbm  # noqa: F401  # one that has threads of OpenMP
    from threadpoolctl import threadpool_info

    from retrodict.models import estimators

    seen, resolve = [], estimators._resolve

    def watched(reference):
        def fit(given):
            seen.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"})
            return resolve(reference)(given)

        return fit

    monkeypatch.setattr(estimators, "_resolve", watched)
    get_estimator("constant").solve(problem)
    assert seen == [{1}]
    monkeypatch.setattr(estimators, "_FEW_CELLS", 0)
    get_estimator("constant").solve(problem)
    assert len(seen) == 2
