"""Plain exports: scored in a process that cannot import the package, bit for bit what the artifact answers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import sysconfig
from dataclasses import replace

import numpy as np
import pytest
from tests.serving.project import make_project

from retrodict import Project
from retrodict.core.errors import InputError
from retrodict.estimators.balance import PriorCorrection
from retrodict.models import ModelArtifact, get_estimator
from retrodict.models.artifact import ExampleRows
from retrodict.models.calibration import (
    NoCalibrator,
    OneVsRestCalibrator,
    SigmoidCalibrator,
    TemperatureCalibrator,
    Unchanged,
    fit_isotonic,
    fit_sigmoid,
)
from retrodict.models.engines.composite import CorrectedEngine
from retrodict.models.plain import LIBRARIES, write_plain
from retrodict.models.spans import SpannedCalibrator
from retrodict.testing.estimators import make_problem

# Without site no path file is read, so the package under test is nowhere to be found.
ALONE = """
import sys, runpy, json
sys.path += json.loads(sys.argv[1])
try:
    import retrodict
except ImportError:
    pass
else:
    raise SystemExit("retrodict must not be there")
folder, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_path(folder + "/score.py", run_name="__main__")
"""
FEW = {"lightgbm": {"num_iterations": 12}, "xgboost": {"num_boost_round": 12}, "catboost": {"iterations": 12},
       "random_forest": {"n_estimators": 8, "n_jobs": 1}, "hist_boosting": {"max_iter": 8}}  # fmt: skip
CASES = [
    ("lightgbm", "binary"), ("lightgbm", "multiclass"), ("lightgbm", "quantile"), ("lightgbm", "count"),
    ("xgboost", "binary"), ("xgboost", "multiclass"), ("xgboost", "quantile"), ("catboost", "binary"),
    ("catboost", "multiclass"), ("catboost", "count"), ("catboost", "quantile"), ("logistic", "binary"),
    ("logistic", "multiclass"), ("ridge", "regression"), ("random_forest", "binary"), ("random_forest", "multiclass"),
    ("random_forest", "regression"), ("svm", "binary"), ("svm", "multiclass"),
]  # fmt: skip


def alone(folder, *arguments):
    paths = json.dumps(sorted({sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}))
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", ALONE, paths, str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def fitted(estimator, task, calibrator=None, wrap=lambda engine: engine):
    """Artifact of an estimator on rows with missing values, and its problem."""
    entry = get_estimator(estimator)
    params = {name: value for name, value in FEW.get(estimator, {}).items() if name in entry.defaults}
    problem = replace(make_problem(task), params=params)
    engine = wrap(entry.solve(problem).engine)
    calibrator = calibrator(engine, problem) if calibrator else Unchanged()
    examples = ExampleRows.of(engine, calibrator, problem.train.matrix)
    return ModelArtifact("loan", problem.inputs, engine, calibrator, {}, examples)


def random_rows(inputs, count, seed):
    """Values of many sizes, a fifth of them missing, with categories that nobody has seen."""
    rng, columns = np.random.default_rng(seed), {}
    for feature in inputs.features:
        values = (rng.normal(size=count) * 10.0 ** rng.integers(-3, 4, count)).tolist()
        if feature.type == "category":
            values = [str(word) for word in rng.choice([*feature.vocabulary, "unseen", "Öl, 'x'"], count)]
        columns[feature.name] = [
            None if gap else value for value, gap in zip(values, rng.random(count) < 0.2, strict=True)
        ]
    return columns


def write_rows(path, columns):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(["" if value is None else value if isinstance(value, str) else repr(value) for value in row]
                         for row in zip(*columns.values(), strict=True))  # fmt: skip


def check_scores(artifact, folder, *, rows=400, seed=5):
    write_plain(artifact, "loan@3", folder)
    columns = random_rows(artifact.inputs, rows, seed)
    write_rows(folder / "rows.csv", columns)
    answer = alone(folder, folder / "rows.csv")
    assert answer.returncode == 0, answer.stderr
    lines = list(csv.reader(answer.stdout.splitlines()))
    assert lines[0] == [name for name in artifact.outputs if name != "threshold"]
    scores = np.array([[float(value) for value in line] for line in lines[1:]])
    expected = artifact.score_rows(columns).score.reshape(rows, -1)
    np.testing.assert_array_equal(scores, expected)
    check = alone(folder, "--check")
    assert check.returncode == 0, check.stderr
    assert check.stdout.startswith("32 rows, at most 0 apart")


@pytest.mark.parametrize(("estimator", "task"), CASES)
def test_the_script_gives_the_bits_of_the_artifact(estimator, task, tmp_path):
    """For hundreds of rows with missing values and unseen categories, by the model's own library and NumPy."""
    check_scores(fitted(estimator, task), tmp_path / "out")


def _isotonic(engine, problem):
    return fit_isotonic(engine.scores(problem.validate.matrix), problem.validate.labels)


def _sigmoid(engine, problem):
    return fit_sigmoid(engine.scores(problem.validate.matrix), problem.validate.labels)


def _one_vs_rest(engine, problem):
    scores, labels = engine.scores(problem.validate.matrix), problem.validate.labels
    parts = fit_sigmoid(scores[:, 0], labels == 0), fit_isotonic(scores[:, 1], labels == 1), SigmoidCalibrator(1.5, 0.1)
    return OneVsRestCalibrator(parts)


CALIBRATIONS = {
    "isotonic": ("binary", _isotonic),
    "sigmoid": ("binary", _sigmoid),
    "limit": ("binary", lambda *_: SigmoidCalibrator(1.3, -0.2, 0.8)),
    "none": ("binary", lambda *_: NoCalibrator()),
    "least": ("binary", lambda *_: NoCalibrator(0.4)),
    "least of classes": ("multiclass", lambda *_: NoCalibrator(0.3)),
    "temperature": ("multiclass", lambda *_: TemperatureCalibrator(1.7)),
    "temperature, least": ("multiclass", lambda *_: TemperatureCalibrator(0.6, 0.01)),
    "one against the rest": ("multiclass", _one_vs_rest),
    "interval": ("regression", lambda *_: SpannedCalibrator(Unchanged(), "regression", 0.7, 0.9)),
    "interval of counts": ("count", lambda *_: SpannedCalibrator(Unchanged(), "count", 1.5, 0.9)),
    "set of classes": ("multiclass", lambda *_: SpannedCalibrator(TemperatureCalibrator(2.0), "multiclass", 0.35, 0.9)),
}


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_every_calibration_goes_along(name, tmp_path):
    task, calibrator = CALIBRATIONS[name]
    check_scores(fitted("lightgbm", task, calibrator), tmp_path / "out")


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_corrected_priors_go_along(task, tmp_path):
    shares = ((0.97, 0.03), (0.5, 0.5)) if task == "binary" else ((0.1, 0.2, 0.7), (0.3, 0.3, 0.4))
    check_scores(fitted("lightgbm", task, wrap=lambda e: CorrectedEngine(e, PriorCorrection(*shares))), tmp_path / "o")


def test_a_pipeline_over_columns_goes_along(tmp_path):
    """An object of scikit-learn that reads a table with texts."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from retrodict.models.definitions import Recipe
    from retrodict.models.splits import TimeSplit

    problem = make_problem("binary")
    numbers = [feature.name for feature in problem.inputs.features if feature.type == "number"]
    texts = [feature.name for feature in problem.inputs.features if feature.type == "category"]
    before = ColumnTransformer([("n", SimpleImputer(), numbers), ("t", OneHotEncoder(handle_unknown="ignore"), texts)])
    recipe = Recipe(make_pipeline(before, LogisticRegression()), TimeSplit("2024-01-01/2024-02-01"))
    engine = recipe.estimators[0].solve(replace(problem, params=dict(recipe.params))).engine
    assert engine.reading.columns
    examples = ExampleRows.of(engine, NoCalibrator(), problem.train.matrix)
    check_scores(ModelArtifact("loan", problem.inputs, engine, NoCalibrator(), {}, examples), tmp_path / "out")


def test_numbers_as_categories_and_truth_values_are_read_from_text(tmp_path):
    """What a CSV file spells in several ways."""
    from retrodict.models import InputSpec
    from retrodict.models.engines.linear import CategoryTerm, LinearEngine, NumberTerm

    inputs = InputSpec.learn({"floor": [1, 2, 2.5], "new": [True, False, None]}, {"floor": "category"})
    engine = LinearEngine(0.1, (CategoryTerm((0.5, -0.25, 3.0), 1.0), NumberTerm(0.5, 0.25, 0.75)))
    matrix = inputs.encode_columns({"floor": [1, 2, 7], "new": [True, False, None]})
    artifact = ModelArtifact("loan", inputs, engine, NoCalibrator(), {"threshold": 0.25},
                             ExampleRows.of(engine, NoCalibrator(), matrix))  # fmt: skip
    write_plain(artifact, "loan@1", tmp_path)
    (tmp_path / "rows.csv").write_text("new,floor,more\ntrue,1,x\nFALSE,2.0,\n1,9,\n,,\n0,2.50,\n")
    answer = alone(tmp_path, tmp_path / "rows.csv")
    expected = artifact.score_rows({"floor": [1, 2, 9, None, 2.5], "new": [True, False, True, None, False]}).score
    assert [float(line) for line in answer.stdout.split()[1:]] == expected.tolist()
    assert "0.25, the same for every row" in (tmp_path / "README.md").read_text()
    for body, words in (("new\n1\n", "rows must have the column 'floor'"), ("new,floor\ninf,1\n", "must be finite"),
                        ("new,floor\nyes,1\n", "could not convert string to float")):  # fmt: skip
        (tmp_path / "rows.csv").write_text(body)
        answer = alone(tmp_path, tmp_path / "rows.csv")
        assert (answer.returncode, answer.stdout) == (1, "")
        assert words in answer.stderr
    assert alone(tmp_path).returncode == 2


def test_a_check_says_no_to_what_scores_otherwise(tmp_path):
    """Other trees, another calibration, other examples."""
    write_plain(fitted("lightgbm", "binary", _sigmoid), "loan@3", tmp_path)
    plan = json.loads((tmp_path / "model.json").read_text())
    plan["calibrator"]["intercept"] += 1e-4
    (tmp_path / "model.json").write_text(json.dumps(plan))
    answer = alone(tmp_path, "--check")
    assert answer.returncode == 1
    assert "apart" in answer.stdout


def test_the_folder_names_what_it_needs(tmp_path):
    """Features with their kinds, packages with versions; no word of the package in the script."""
    artifact = fitted("xgboost", "binary")
    write_plain(artifact, "loan@3", tmp_path)
    readme = (tmp_path / "README.md").read_text()
    for name in artifact.inputs.names:
        assert f"* `{name}`: " in readme
    assert {line.partition("==")[0] for line in (tmp_path / "requirements.txt").read_text().splitlines()} <= {
        "numpy", "xgboost", "xgboost-cpu"}  # fmt: skip
    script = (tmp_path / "score.py").read_text()
    assert "import retrodict" not in script
    assert "from retrodict" not in script
    assert "lightgbm" not in script
    assert len(script.splitlines()) < 150


@pytest.mark.parametrize(("estimator", "task", "about"), [("constant", "binary", "constant"), ("isolation_forest",
                         "binary", "anomaly scores"), ("aft", "survival", "time to an event")])  # fmt: skip
def test_what_has_no_reader_is_refused_by_name(estimator, task, about, tmp_path):
    artifact = fitted(estimator, task)
    with pytest.raises(InputError, match=about) as error:
        write_plain(artifact, "loan@3", tmp_path / "out")
    assert all(kind in str(error.value) for kind in LIBRARIES)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="must have example rows"):
        write_plain(replace(fitted("logistic", "binary"), examples=None), "loan@3", tmp_path / "out")


def test_a_version_leaves_by_the_command(tmp_path):
    """Trained, exported, scored alone; another format is refused."""
    (tmp_path / "project").mkdir()
    make_project(tmp_path / "project").close()
    command = [sys.executable, "-m", "retrodict", "models", "export", "late_parcel@1", str(tmp_path / "out"),
               "--project", str(tmp_path / "project"), "--format", "plain"]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert " ".join(answer.stdout.split()).endswith("score.py --check")
    assert alone(tmp_path / "out", "--check").returncode == 0
    with Project(tmp_path / "project", actor="ana") as project, pytest.raises(InputError, match="'onx'"):
        project.models.export("late_parcel@1", tmp_path / "other", format="onx")
