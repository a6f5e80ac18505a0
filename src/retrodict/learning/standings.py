"""Which version, baseline or estimator is best: ranked by one metric on the same rows, or named as not comparable."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from retrodict.core.display import Block, Grid, Record, Shown, number
from retrodict.core.errors import InputError, NotFoundError, RetrodictError, check_known
from retrodict.core.identity import digest
from retrodict.core.tasks import Target
from retrodict.evaluation import better, primary
from retrodict.evaluation.metrics import evaluate
from retrodict.features.catalogue.tables import newest_versions
from retrodict.learning.fit import TrainingRows, out_of_fold
from retrodict.learning.frame import build_frame, parts_of, tables_of
from retrodict.learning.plots import TEST_ROWS
from retrodict.learning.runs import MetricPoint, Run, get_run
from retrodict.models.definitions import Model
from retrodict.models.estimators import estimators_of
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples, Problem
from retrodict.registry import list_versions
from retrodict.workspace import Workspace

__all__ = ["EstimatorComparison", "Leaderboard", "Standing", "Trial", "compare_estimators", "leaderboard"]

# Of the model's recipe an estimator is compared without: what belongs to the recipe's own, and a search.
_ALONE: dict[str, Any] = {"params": {}, "threshold": None, "start_from": None, "tune": None, "budget": None}
_USUAL = (
    "logistic",
    "linear",
    "decision_tree",
    "random_forest",
    "histogram_boosting",
    "lightgbm",
    "naive_bayes",
    "cox",
    "aft",
)


@dataclass(frozen=True, slots=True)
class Standing(Record):
    """A version, or a rung of the ladder of the newest one.

    Attributes
    ----------
    name : str
        ``name@version``, or the rung.
    estimator : str
        Empty of a rung.
    value, low, high : float or None
        The metric on its test rows, with its interval.
    why_not : str
        Why it is not ranked with the others; empty where it is.
    """

    name: str
    estimator: str
    value: float | None
    low: float | None
    high: float | None
    why_not: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Leaderboard(Shown):
    """Versions and rungs from best to worst.

    Attributes
    ----------
    model, metric : str
    rows : int
        Test rows of the newest version, on which all that are ranked were judged.
    standings : tuple of Standing
        The best first; those that were judged on other rows last, with the reason.
    """

    model: str
    metric: str
    rows: int
    standings: tuple[Standing, ...]

    def blocks(self) -> Sequence[Block | None]:
        """One line for each."""
        lines = [
            (s.name, s.estimator, number(s.value), f"{number(s.low)} to {number(s.high)}" if s.low is not None else "",
             s.why_not) for s in self.standings
        ]  # fmt: skip
        return [Grid(("version or rung", "estimator", f"{self.metric}>", "95 % interval", "not ranked"), lines,
                     title=f"{self.model}, {self.metric} on {self.rows:,} test rows")]  # fmt: skip


def leaderboard(workspace: Workspace, model: str, *, metric: str | None = None) -> Leaderboard:
    """Rank all versions of a model, and the rungs below the newest, by a metric of the test rows.

    Versions are comparable where their test rows are the same: split alike, with the same outcomes row by row.

    Parameters
    ----------
    workspace : Workspace
    model : str
    metric : str, optional
        None: the one that the task is judged by.

    Raises
    ------
    NotFoundError
        If the model has no version, or its newest no such metric.
    """
    runs = {version.ref: get_run(workspace, version.run) for version in list_versions(workspace, model)}
    if not runs:
        raise NotFoundError("a model must have a version to be ranked", where="leaderboard", got=model,
                            remedy=f"Run 'retrodict train {model}'")  # fmt: skip
    newest = max(runs, key=lambda ref: int(ref.rpartition("@")[2]))
    run = runs[newest]
    target = Target.from_dict(run.params["target"])
    metric = metric or primary(target)[0]
    check_known(metric, run.metrics, "the newest version must have the metric", where="leaderboard", what="metric",
                error=NotFoundError)  # fmt: skip
    rows, labels = _judged_rows(workspace, run)
    standings = []
    for ref, other in runs.items():
        same = _judged_rows(workspace, other) == (rows, labels)
        why_not = "" if same else f"judged on other rows than {newest}"
        standings.append(_standing(other, "test", metric, ref, str(other.params.get("estimator", "")), why_not))
    for split in dict.fromkeys(point.split for point in run.points if point.split.startswith("test/")):
        name = split.removeprefix("test/")
        standings.append(_standing(run, split, metric, name if name.startswith("member ") else f"baseline {name}", ""))
    sign = -1 if better(metric) == "higher" else 1
    standings.sort(key=lambda s: (bool(s.why_not), s.value is None, sign * (s.value or 0.0)))
    return Leaderboard(model, metric, run.data["rows"]["test"], tuple(standings))


def _judged_rows(workspace: Workspace, run: Run) -> tuple[str, str]:
    """The split, and what the labels of the test rows were."""
    files = {file.name: file.digest for file in run.artifacts}
    if TEST_ROWS not in files:
        return run.id, ""
    table = pq.read_table(io.BytesIO(workspace.objects.get(files[TEST_ROWS])), columns=["label"])
    return json.dumps(run.params["split"], sort_keys=True), digest(table.column("label").to_numpy().tobytes())


def _standing(run: Run, split: str, metric: str, name: str, estimator: str, why_not: str = "") -> Standing:
    none = MetricPoint(split, metric, None)
    point = next((p for p in run.points if p.split == split and p.name == metric and not p.step), none)
    return Standing(name, estimator, point.value, point.low, point.high, why_not)


@dataclass(frozen=True, slots=True)
class Trial(Record):
    """One estimator in cross-validation.

    Attributes
    ----------
    estimator : str
    value, low, high : float or None
        Mean of the metric over the folds, with Student's interval; folds share training rows, so it is narrow.
    folds : tuple of float
        The metric of each fold.
    seconds : float
        Of all fits.
    error : str
        What it failed with; empty where it did not.
    """

    estimator: str
    value: float | None
    low: float | None
    high: float | None
    folds: tuple[float, ...]
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class EstimatorComparison(Shown):
    """Estimators from best to worst, on the same folds of the training rows.

    Attributes
    ----------
    model, metric : str
    rows : int
        Training rows that the folds were cut from.
    trials : tuple of Trial
        The best first, those that failed last.
    """

    model: str
    metric: str
    rows: int
    trials: tuple[Trial, ...]

    @property
    def ok(self) -> bool:
        """Whether any estimator could be judged."""
        return any(trial.value is not None for trial in self.trials)

    def blocks(self) -> Sequence[Block | None]:
        """One line for each."""
        lines = [
            (t.estimator, number(t.value), f"{number(t.low)} to {number(t.high)}" if t.low is not None else "",
             f"{t.seconds:.1f}", t.error) for t in self.trials
        ]  # fmt: skip
        count = max((len(t.folds) for t in self.trials), default=0)
        return [Grid(("estimator", f"{self.metric}>", "95 % interval", "seconds>", "failed with"), lines,
                     title=f"{self.model}, {self.metric} in {count} folds of {self.rows:,} training rows")]  # fmt: skip


def compare_estimators(
    workspace: Workspace,
    model: str,
    estimators: Sequence[Any] = (),
    *,
    folds: int = 5,
    progress: Callable[[str, int, int], None] | None = None,
) -> EstimatorComparison:
    """Cross-validate estimators on the training rows of a model, in the folds of its split; nothing is registered.

    Parameters
    ----------
    workspace : Workspace
    model : str
    estimators : sequence of str, Recipe or object of scikit-learn
        Each takes the place of the recipe's estimator, with its default parameters; a Recipe is taken as it is. By
        default a linear model, a tree, a forest, both boostings and naive Bayes, where they learn the task.
    folds : int, default 5
    progress : callable, optional
        Called with (estimator, done, of how many).

    Outputs are judged before calibration. An estimator that fails is in the result with its error.
    """
    definition = workspace.definitions.get(Model, model)
    versions = newest_versions(workspace.tables, tables_of(definition), where=f"model {model}")
    frame = build_frame(workspace.tables, definition, versions)
    split, recipe = definition.recipe.split, definition.recipe
    frame, parts = parts_of(frame, split, now=workspace.clock.now())
    train, stop = parts["train"], parts["validate"]
    if not len(train) or not len(stop):
        raise InputError("there must be labelled rows to train and to stop by", where=f"model {model}",
                         got=(len(train), len(stop)), remedy="Move the split to where the data is")  # fmt: skip
    inputs = InputSpec.learn(frame.columns(train), recipe.types)
    examples = [Examples(inputs.encode_columns(frame.columns(rows)), frame.labels[rows], frame.target, None,
                         None if frame.groups is None else frame.groups[rows]) for rows in (train, stop)]  # fmt: skip
    problem = Problem(inputs, examples[0], examples[1], {}, recipe.seed)
    training = TrainingRows(split, frame, train)
    pairs = [pair for pair in training.folds(folds) if len(pair[0]) and len(pair[1])]
    # A fold of late rows is not followed to every horizon: their order can be judged all the same.
    metric, higher = ("c_index", True) if frame.target.task == "survival" else primary(frame.target)
    entries = list(estimators) or [name for name in _USUAL if name in estimators_of(frame.target.task)]
    trials = []
    for done, estimator in enumerate(entries):
        label = estimator if isinstance(estimator, str) else getattr(estimator, "label", type(estimator).__name__)
        if progress is not None:
            progress(label, done, len(entries))
        began = perf_counter()
        try:
            complete = hasattr(estimator, "estimator") and hasattr(estimator, "calibrate")
            entry = estimator if complete else replace(recipe, estimator=estimator, **_ALONE)
            rows, (outputs,) = out_of_fold([(label, entry)], problem, training, lambda *_: None, pairs)
            values = tuple(_by_fold(problem.train, rows, outputs, pairs, metric))
            trials.append(Trial(label, *_mean(values), values, perf_counter() - began))
        except (RetrodictError, ImportError, MemoryError, ValueError, ArithmeticError) as error:
            words = str(error).splitlines()[0] if isinstance(error, RetrodictError | ImportError) else ""
            trials.append(Trial(label, None, None, None, (), perf_counter() - began, words or type(error).__name__))
    trials.sort(key=lambda t: (t.value is None, (-1 if higher else 1) * (t.value or 0.0)))
    return EstimatorComparison(model, metric, len(train), tuple(trials))


def _by_fold(train: Examples, rows: Any, outputs: Any, pairs: Sequence[Any], metric: str) -> Iterator[float]:
    """The metric of each fold's rows."""
    start = 0
    for _, judge in pairs:
        part = slice(start, start := start + len(judge))
        groups = None if train.groups is None else train.groups[rows[part]]
        result = evaluate(train.labels[rows[part]], outputs[part], train.target, groups=groups)[metric]
        if result.value is None:
            raise InputError("the metric must be evaluable in every fold", where=metric, got=result.reason,
                             remedy="Use fewer folds")  # fmt: skip
        yield result.value


def _mean(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    from retrodict.core.statistics.intervals import mean_interval

    mean = float(np.mean(values))
    interval = mean_interval(np.array(values)) if len(values) > 1 else None
    return (mean, None, None) if interval is None else (mean, interval.low, interval.high)
