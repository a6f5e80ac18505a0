"""What is refused of a small table or a first model, where it is refused, and whether its remedy works."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.learning.test_packaged import FEW, columns_of, logistic, opened, trained

from retrodict import (
    Bagging,
    Label,
    Model,
    Policy,
    Project,
    RandomSplit,
    Recipe,
    Rule,
    Table,
    Threshold,
    Vote,
    columns,
)
from retrodict.core.errors import DefinitionError, InputError, RefusedError
from retrodict.learning import execution, recipes, rungs
from retrodict.models.estimators import Estimator, get_estimator


@pytest.mark.parametrize(
    ("gate", "more", "recipe", "message"),
    [
        (
            "precision >= 0.7",
            {},
            {},
            "'precision' must be of a recipe with a threshold; .*Give the recipe a threshold=",
        ),
        ("auc > 0.5 and f0_5 > 0.2", {}, {}, "'f0_5' must be of a recipe with a threshold"),
        ("accuracy > 0.5", {}, {}, "'accuracy' must be of a recipe with a threshold"),
        ("recall >= 0.7", {"label": "y"}, {}, "'recall' must be of a recipe with a threshold"),
        (
            "span_width < 9",
            {"label": "y", "task": "regression"},
            {"estimator": "linear"},
            "with an interval; .*interval=",
        ),
        ("quadratic_kappa > 0", {"classes": ["a", "b"]}, {}, "must read metrics that it has; got 'quadratic_kappa'"),
        ('recall["c"] > 0', {"classes": ["a", "b"]}, {}, "must read metrics that it has"),
    ],
)
def test_a_gate_that_nothing_will_measure_is_refused_where_it_is_written(
    tmp_path: Path, gate: str, more: dict[str, Any], recipe: dict[str, Any], message: str
) -> None:
    more, table = dict(more), Table("rows", key="id")
    label = Label("label", table, more.pop("label", "y = 1" if "classes" not in more else "y"),
                  classes=more.pop("classes", ()))  # fmt: skip
    model = Model("m", label=label, recipe=Recipe(recipe.get("estimator", "logistic"), RandomSplit()),
                  features=[columns(*FEW)], gates=[gate], **more)  # fmt: skip
    with pytest.raises(DefinitionError, match=message):
        Project(tmp_path, definitions=[table, model], actor="ana").plan()


def test_a_gate_is_judged_with_the_threshold_that_its_refusal_asks_for(tmp_path: Path) -> None:
    features, labels = columns_of_cancer()
    run = trained(tmp_path, features, labels, logistic(threshold=Threshold.recall(0.9)), gates=["precision >= 0.5"])
    assert [gate["status"] for gate in run.version.gates] == ["pass"]


def columns_of_cancer() -> tuple[dict[str, Any], Any]:
    from sklearn.datasets import load_breast_cancer

    return columns_of(load_breast_cancer, FEW)


def test_a_gate_of_another_task_is_refused_before_anything_is_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which task a column of numbers is, only its rows tell."""
    labels = np.random.default_rng(0).normal(size=60)
    monkeypatch.setattr(execution, "run_recipe", None)
    with opened(tmp_path, ["x"], Recipe("linear", RandomSplit()), label="y", gates=["auc >= 0.7"]) as project:
        project.data.ingest("rows", pa.table({"id": range(60), "x": labels, "y": labels}))
        with pytest.raises(DefinitionError, match="a gate of the task 'regression' must read metrics that it has"):
            project.train("m")


@pytest.mark.parametrize("count", [10, 12, 30, 49])
def test_few_numbers_are_trained_on(tmp_path: Path, count: int) -> None:
    values = np.arange(count, dtype=float)
    run = trained(tmp_path, {"x": values}, values * 2, Recipe("linear", RandomSplit()), label="y", task="regression")
    assert run.metrics["mae"] < 5


def test_two_rows_of_a_class_are_refused_with_a_remedy_that_works(tmp_path: Path) -> None:
    labels = np.r_[np.zeros(40), np.ones(2)]
    features = {"x": np.arange(42.0)}
    with pytest.raises(InputError, match="3 rows of every class") as caught:
        trained(tmp_path / "few", features, labels, logistic())
    assert "stratify" not in caught.value.remedy
    assert caught.value.remedy.startswith("Add rows of this class")
    trained(tmp_path / "more", {"x": np.arange(43.0)}, np.r_[labels, 1.0], logistic())


def test_the_libraries_of_rungs_and_candidates_are_loaded_before_their_clocks_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(estimators: Iterable[Estimator]) -> None:
        loaded.extend(estimator.name for estimator in estimators)

    for module in (recipes, rungs):
        monkeypatch.setattr(module, "load_libraries", load)
    features, labels = columns_of_cancer()
    trained(tmp_path, features, labels, Recipe("naive_bayes", RandomSplit()))
    assert {"constant", "logistic", "decision_tree", "naive_bayes"} <= set(loaded)


@pytest.mark.parametrize("name", ["decision_tree", "logistic", "linear", "xgboost", "mlp", "knn"])
def test_a_fit_after_load_imports_no_library(name: str) -> None:
    """In a process of its own: what the fit itself still imports is none of the packages that take long to load."""
    target = "regression" if "regression" in get_estimator(name).tasks and name == "linear" else "binary"
    script = f"""
import sys
import numpy as np
from retrodict.core.tasks import Target
from retrodict.models.estimators import get_estimator, load_libraries
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples, Problem
matrix = np.random.default_rng(0).normal(size=(60, 2))
rows = Examples(matrix, (matrix[:, 0] > 0).astype(float), Target({target!r}))
inputs = InputSpec.learn({{"a": matrix[:, 0].tolist(), "b": matrix[:, 1].tolist()}}, {{}})
entry = get_estimator({name!r})
load_libraries([entry])
before = set(sys.modules)
entry.solve(Problem(inputs, rows, rows, {{}}, 0))
print(*sorted(m for m in set(sys.modules) - before if m.count(".") < 2 and m.startswith(("sklearn", "xgboost"))))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_leak_that_fails_a_gate_says_how_to_mend_it(tmp_path: Path) -> None:
    """By the gate's own words, by the plan and by the refusal of an approval; and both ways work."""
    labels = np.random.default_rng(0).integers(0, 2, 300)
    features = {"x": np.random.default_rng(1).normal(size=300), "copy": labels * 2.0 + 1}
    run = trained(tmp_path, features, labels, logistic(), gates=["leaks = 0"])
    (gate,) = run.version.gates
    assert gate["reason"] == (
        "leaks is 1 (found: leave copy out of the features, or say accept={'copy': 'why'})"
    ), gate  # fmt: skip
    with opened(tmp_path, features, logistic(), gates=["leaks = 0"], actor="ben") as project:
        assert "accept={feature: 'why'}" in project.plan().next()[0]
        with pytest.raises(RefusedError, match=r"Train without the features that leak, or with accept="):
            project.models.approve("m@1", reason="pilot")
    for name, more in (("out", {}), ("accepted", {"accept": {"copy": "why"}})):
        rows = features if more else {"x": features["x"]}
        again = trained(tmp_path / name, rows, labels, logistic(), gates=["leaks = 0"], **more)
        assert {gate["status"] for gate in again.version.gates} == {"pass"}


def test_a_rule_over_a_name_that_an_output_and_a_feature_share_is_refused(tmp_path: Path) -> None:
    """A decision's own condition reads outputs only."""
    table = Table("rows", key="id")
    model = Model("m", label=Label("label", table, "y = 1"), recipe=logistic(), features=[columns("score", "x")])
    rules = [Rule("high", when="score > 0.9", then="no", reason="high")]
    message = "a name must mean an output of the model or a feature, not both; got 'score'. Rename the feature"
    for number, more in enumerate([{"rules": rules}, {}]):
        policy = Policy("p", model, decide={"yes": "score >= 0.5", "no": "otherwise"}, deadline="60s", **more)
        if more:
            with pytest.raises(DefinitionError, match=message):
                Project(tmp_path / str(number), definitions=[table, model, policy], actor="ana")
        else:
            Project(tmp_path / str(number), definitions=[table, model, policy], actor="ana").close()


def test_a_remedy_is_of_what_was_written(tmp_path: Path) -> None:
    for make, word in ((lambda: Vote([]), "Vote"), (lambda: Bagging([]), "Bagging")):
        with pytest.raises(DefinitionError, match=rf"Write {word}\("):
            make()
    values = np.arange(90) % 3
    features = {"x": values + 0.1}
    with pytest.raises(InputError, match=re.escape("classes=[0, 1, 2]")):
        trained(tmp_path, features, values, logistic(), label="y")
    with pytest.raises(InputError, match="must be one of the estimator") as caught:
        trained(tmp_path / "numbers", features, np.arange(90) / 7, logistic(), label="y")
    assert "classes" not in caught.value.remedy


def test_definitions_that_read_another_file_are_refused_before_anything_is_registered(tmp_path: Path) -> None:
    """A version has Python files alone; the values in one of them work."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "limits"\n')
    (tmp_path / "limit.txt").write_text("0.5")
    module = tmp_path / "definitions.py"
    module.write_text("""
from pathlib import Path
from retrodict import *
limit = float((Path(__file__).parent / "limit.txt").read_text())
rows = Table("rows", key="id")
m = Model("m", label=Label("label", rows, f"y > {limit}"), recipe=Recipe("logistic", RandomSplit()),
          features=[columns("x")])
""")
    labels = np.random.default_rng(0).integers(0, 2, 100)
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("rows", pa.table({"id": range(100), "x": labels[::-1], "y": labels}))
        with pytest.raises(DefinitionError, match=r"must run from the project's Python files alone.*limit\.txt"):
            project.train("m")
        assert not len(project.models.list())
    (tmp_path / "limits.py").write_text("LIMIT = 0.5\n")
    module.write_text(module.read_text().replace(
        'float((Path(__file__).parent / "limit.txt").read_text())', "__import__('limits').LIMIT"))  # fmt: skip
    with Project(tmp_path, actor="ana") as project:
        assert project.train("m").version.ref == "m@1"
