"""Rungs of the ladder: what anybody could answer without the model, on the same test rows, each with what it costs.

Answers drawn at random, the same for every row, the last outcome that was known at the decision, the rate of a group, a
rule that somebody wrote down, a linear model and a small tree; of a time to an event Kaplan-Meier and a Cox model. The
first, third and fifth are no fitted engines: they are computed here for the test rows, and never served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.core.expressions import parse
from retrodict.core.statistics.intervals import mean_interval
from retrodict.core.tasks import Target
from retrodict.evaluation import Cost, beats
from retrodict.learning.fit import TrainingRows, fit_recipe
from retrodict.learning.frame import Frame
from retrodict.models.definitions import Recipe, named_feature
from retrodict.models.engines.base import Engine
from retrodict.models.ensembles import Ensemble
from retrodict.models.estimators import estimators_of, get_estimator, load_libraries
from retrodict.models.problem import Examples, Problem

__all__ = ["cost_of", "fit_rungs", "shuffled_warning", "without_balance", "without_same"]

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
Report = Callable[[str, int, int], None]

# A rung need not cost more than the model: beyond so many rows its figures hardly move.
_RUNG_ROWS = 50_000
_TIMED_ROWS = 50
_SHUFFLES, _SHUFFLED_ROWS, _SHUFFLED_CONFIDENCE = 8, 1_000, 0.999
_CHOOSE_COLUMNS = ("rfe", "rfecv", "permutation")
# A rung that is the model itself says nothing.
_SAME: Mapping[str, tuple[str, ...]] = {"ridge": ("ridge", "linear"), "poisson": ("poisson", "linear")}
_RUNGS = {"tree": "decision_tree"}


def fit_rungs(
    recipe: Recipe, problem: Problem, frame: Frame, parts: Mapping[str, Positions], test: Examples, report: Report
) -> dict[str, tuple[Floats, Cost]]:
    """Outputs for the test rows and cost of each rung, the simplest first; the recipe's estimator is no rung.

    A rung that learns from more than 50,000 rows learns from as many, drawn evenly over them.

    Parameters
    ----------
    recipe : Recipe
        With ``baseline_group`` and ``baseline``.
    problem : Problem
        Of the training rows.
    frame : Frame
    parts : mapping of str to ndarray
    test : Examples
        The same rows as ``parts["test"]``.
    report : callable
        Called with (what, done, at most).
    """
    rows, subsample = len(problem.train.labels), problem
    if rows > _RUNG_ROWS and problem.train.groups is None:
        places = np.linspace(0, rows - 1, _RUNG_ROWS).round().astype(np.int64)
        subsample = replace(problem, train=problem.train.take(places))
    if recipe.baseline_group is not None:
        rule, names = "the baseline's group must be a feature of the model", problem.inputs.names
        check_known(
            recipe.baseline_group, names, rule, where="Recipe, baseline_group", what="feature", error=InputError
        )
    rungs: dict[str, tuple[Floats, Cost]] = {}

    def fit(rung: str, estimator: str, params: Mapping[str, Any]) -> None:
        report(f"baseline {rung}", len(rungs), 7)
        load_libraries([get_estimator(estimator)])
        began = perf_counter()
        part = subsample if estimator in ("logistic", "linear", "decision_tree", "cox") else problem
        fitted = get_estimator(estimator).solve(replace(part, params=params, progress=None))
        rungs[rung] = fitted.engine.scores(test.matrix), cost_of(fitted.engine, test, perf_counter() - began)

    target = problem.train.target
    fit("majority" if target.probabilistic else "constant", "constant", {})
    typical = next(iter(rungs.values()))[0][0]
    if target.task not in ("count", "survival"):  # a draw of 0 has no deviance
        drawn = np.random.default_rng(recipe.seed).choice(problem.train.labels, len(test.labels))
        rungs = {"random": (_answers(drawn, target, typical, certain=True), Cost()), **rungs}
    if frame.timed and target.task not in ("ranking", "survival"):
        codes = _codes(recipe, frame)
        rungs["last"] = _answers(_last_outcomes(frame, parts["test"], codes), target, typical), Cost()
    if recipe.baseline_group is not None:
        fit("group_rate", "group_rate", {"group": recipe.baseline_group})
    if recipe.baseline is not None:
        rungs["heuristic"] = _heuristic(recipe.baseline, frame, parts["test"], typical)
    for name, estimator, params in (
        ("logistic" if target.probabilistic else "linear",) * 2 + ({},),
        ("tree", "decision_tree", {"max_depth": 3}),
        ("cox", "cox", {}),
    ):
        if estimator in estimators_of(target.task) and estimator not in _same(recipe):
            fit(name, estimator, params)
    return rungs


def _same(recipe: Recipe) -> tuple[str, ...]:
    """Rungs that are the recipe itself: none where it prepares, which is to be worth it."""
    return () if recipe.prepare else _SAME.get(recipe.label, (recipe.label,))


def without_balance(recipe: Recipe) -> Recipe | None:
    """The same recipe whose rows, and those of the members of an ensemble, stay as they are; None if they do anyway."""
    estimator = recipe.estimator
    if isinstance(estimator, Ensemble):
        members = [without_balance(member) or member if isinstance(member, Recipe) else member
                   for member in estimator.members]  # fmt: skip
        estimator = replace(estimator, members=members)
    if recipe.balance is None and estimator == recipe.estimator:
        return None
    return replace(recipe, estimator=estimator, balance=None, start_from=None)


def without_same(rungs: Mapping[str, tuple[Floats, Cost]], recipe: Recipe) -> dict[str, tuple[Floats, Cost]]:
    """Rungs but one that is the recipe's own estimator: a search may have chosen it after the rungs were fitted."""
    same = _same(recipe)
    return {name: rung for name, rung in rungs.items() if _RUNGS.get(name, name) not in same}


def _answers(labels: Floats, target: Target, typical: Any, *, certain: bool = False) -> Floats:
    """Outputs that say a label of each row; ``typical`` ones where it is NaN.

    Of classes and counts half of it and half of the typical answer: one that is certain and wrong has no finite loss.
    """
    missing = np.isnan(labels)
    if target.task == "multiclass":
        codes = np.where(missing, 0, labels).astype(np.int64)
        outputs = np.eye(len(target.classes))[codes]
    else:
        outputs = np.repeat(labels[:, None], target.columns, axis=1)
    usual = np.broadcast_to(np.atleast_1d(np.asarray(typical, dtype=np.float64)), outputs.shape)
    share = 0.5 if target.task in ("multiclass", "count") and not certain else 1.0
    outputs = np.where(missing[:, None], usual, share * outputs + (1.0 - share) * usual)
    return outputs[:, 0] if target.columns == 1 else outputs


def _codes(recipe: Recipe, frame: Frame) -> Positions:
    """Group of each row of the frame: the category of ``baseline_group``, or one for all."""
    if recipe.baseline_group is None:
        return np.zeros(len(frame.labels), dtype=np.int64)
    column = frame.table.column(recipe.baseline_group).combine_chunks()
    return np.asarray(column.dictionary_encode(null_encoding="encode").indices.to_numpy(), dtype=np.int64)


def _last_outcomes(frame: Frame, rows: Positions, groups: Positions) -> Floats:
    """Label that became known last before each row was decided, within its group; NaN where there was none."""
    labelled = np.flatnonzero(~np.isnan(frame.labels))
    labelled = labelled[np.lexsort((frame.at[labelled], frame.known_at[labelled], groups[labelled]))]
    moments = np.unique(frame.known_at[labelled])
    width = len(moments) + 1
    places = groups[labelled] * width + np.searchsorted(moments, frame.known_at[labelled])
    queries = groups[rows] * width + np.searchsorted(moments, frame.at[rows])  # strictly before the decision
    last = np.searchsorted(places, queries) - 1
    newest = labelled[np.maximum(last, 0)]
    return np.where((last >= 0) & (groups[newest] == groups[rows]), frame.labels[newest], np.nan)


def _heuristic(text: str, frame: Frame, rows: Positions, typical: Any) -> tuple[Floats, Cost]:
    """Answers of a rule over the features; where it is null, the typical one."""
    expression = parse(text, where="Recipe, baseline")
    names = {name: named_feature(name, frame.features) for name in expression.columns}
    table = frame.table.select(list(dict.fromkeys(names.values())))
    values = table.take(rows).to_pylist()
    answer, target = expression.to_row(), frame.target
    began = perf_counter()
    answers = [answer({name: row[column] for name, column in names.items()}) for row in values]
    latency = (perf_counter() - began) / max(len(rows), 1)
    codes = {name: float(code) for code, name in enumerate(target.classes)}
    try:
        outputs = [np.nan if value is None else float(codes[value] if codes else value) for value in answers]
    except (KeyError, TypeError, ValueError) as error:
        kind = "one of the classes" if codes else "a number, or true or false"
        raise InputError(f"a baseline must give {kind}", where="Recipe, baseline", got=type(error).__name__,
                         remedy="Write it like 'mean_delay_24h > 10'") from error  # fmt: skip
    return _answers(np.array(outputs), target, typical), Cost(len(text) / 1_000, latency * 1e6, None)


def cost_of(engine: Engine, rows: Examples, seconds: float | None) -> Cost:
    """Size of the stored parts, median time of one row, and seconds of training."""
    matrix, durations = rows.matrix[:_TIMED_ROWS], []
    for row in matrix:
        began = perf_counter()
        engine.score_row(row)
        durations.append(perf_counter() - began)
    size = sum(len(data) for data in engine.parts().values())
    return Cost(size / 1_000, float(np.median(durations)) * 1e6, seconds)


def shuffled_warning(recipe: Recipe, problem: Problem, rows: TrainingRows, test: Examples) -> tuple[str, ...]:
    """Warn where the recipe's steps and a small tree learn of labels that were shuffled: they must score at chance.

    Eight times on at most 1,000 training rows. One shuffle proves nothing: where a feature is strong, a tree that
    splits on it by chance ranks well or badly. Their mean gain over one answer for every row must not be above zero,
    by Student's interval of 99.9 % over the shuffles.
    """
    if "decision_tree" not in estimators_of(problem.train.target.task):
        return ()
    size = len(problem.train.labels)
    places = np.unique(np.linspace(0, size - 1, min(size, _SHUFFLED_ROWS)).round().astype(np.int64))
    train = problem.train.take(places)
    if train.target.probabilistic and len(np.unique(train.labels)) < max(len(train.target.classes), 2):
        return ()  # too few rows of a class
    random, gains = np.random.default_rng(recipe.seed), []
    steps = [step for step in recipe.prepare if getattr(step, "method", "") not in _CHOOSE_COLUMNS]
    small = replace(recipe, estimator="decision_tree", params={"max_depth": 3}, prepare=steps, balance=None,
                    start_from=None)  # fmt: skip
    for _ in range(_SHUFFLES):
        labels = random.permutation(train.labels)
        shuffled = replace(problem, train=replace(train, labels=labels), validate=None, progress=None)
        tree = fit_recipe(small, shuffled, rows.take(places), lambda *_: None).engine.scores(test.matrix)
        same = get_estimator("constant").solve(replace(shuffled, params={})).engine.scores(test.matrix)
        gains.append(beats(candidate=tree, rung=same, labels=test.labels, target=test.target).difference)
    if None in gains:
        return ()
    mean = mean_interval(np.array(gains, dtype=np.float64), confidence=_SHUFFLED_CONFIDENCE)
    if mean.low <= 0:
        return ()
    sentence = (
        "A small tree on shuffled labels tells the test rows better than chance, which nothing honest can "
        f"({_SHUFFLES} shuffles, at least {mean.low:+.4f}): a step gets the labels another way."
    )
    return (sentence,)
