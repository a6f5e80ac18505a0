"""Recipes: from a frame and its split to a model artifact, with the baseline ladder beside it.

Pure: no store, no clock that counts. A recipe given the same rows, parameters and seed gives the same model and
numbers, which is what replay compares; only what the parts cost is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.durations import parse_duration
from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation import Cost, Evaluation, Ladder, climb, evaluate
from retrodict.learning.calibration import Calibration, calibrate, calibration_folds
from retrodict.learning.fit import TrainingRows, begin, fit_recipe
from retrodict.learning.frame import Frame
from retrodict.learning.leaks import Leak, find_leaks
from retrodict.learning.members import compare_members, members_of
from retrodict.learning.refit import AGAIN, fit_again
from retrodict.learning.rungs import cost_of, fit_rungs, shuffled_warning, without_balance, without_same
from retrodict.learning.thresholds import alarm_windows, choose_threshold, threshold_warnings
from retrodict.models.artifact import ModelArtifact
from retrodict.models.calibration import Calibrator
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.definitions import Recipe
from retrodict.models.engines.base import Engine
from retrodict.models.ensembles import check_task
from retrodict.models.estimators import load_libraries
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import LARGEST, Examples, Fitted, Problem
from retrodict.models.spans import fit_spans, judge_spans
from retrodict.models.splits import halves

if TYPE_CHECKING:
    from retrodict.learning.study import SearchResult

__all__ = ["Progress", "Searched", "Trained", "run_recipe", "without_spans"]

# (what is being done, steps done, steps at most)
Progress = Callable[[str, int, int], None]
Searched = Callable[[Recipe, Problem, TrainingRows, Progress, Mapping[str, float]], "SearchResult"]
Positions = NDArray[np.int64]

# Metrics of training rows only tell how far they are from those of test rows: of more rows they say the same.
_JUDGED_ROWS, _FEW_ROWS = 50_000, 30


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a recipe made.

    Attributes
    ----------
    engine, calibrator, inputs
        The parts of the artifact.
    params : mapping
        Everything that was in force, defaults included.
    history : mapping of str to list of float
        Validation metrics per iteration.
    evaluations : mapping of str to Evaluation
        ``train``, ``validate``, ``test``, and ``test/<rung>`` for each rung of the ladder and member of an ensemble.
    ladder : Ladder, optional
        On the test rows; None if it was not asked for.
    test_scores : ndarray, shape (test rows,) or (test rows, outputs)
        Calibrated.
    calibration : Calibration
        Which method is in force, and why.
    notes : mapping
        What steps, balancing, threshold and ensemble have to say, as plain JSON.
    threshold : float, optional
        That the recipe chose.
    warnings : tuple of str
        What somebody should look at before this model decides anything, each a sentence.
    leaks : tuple of Leak, optional
        What looks like a leak; None if it was not looked for.
    search : SearchResult, optional
        What a search came to; None where the recipe has nothing to search.
    seconds : float
        How long the fit of the recipe's estimator took.
    """

    engine: Engine
    calibrator: Calibrator
    inputs: InputSpec
    params: Mapping[str, Any]
    history: Mapping[str, list[float]]
    evaluations: Mapping[str, Evaluation]
    ladder: Ladder | None
    test_scores: NDArray[np.float64]
    calibration: Calibration
    notes: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    warnings: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] | None = None
    search: SearchResult | None = None
    seconds: float = 0.0

    def artifact(self, name: str, metadata: Mapping[str, Any]) -> ModelArtifact:
        """Model artifact with what is to be said of it."""
        threshold = {} if self.threshold is None else {"threshold": self.threshold}
        return ModelArtifact(name, self.inputs, self.engine, self.calibrator, {**metadata, **threshold})


def run_recipe(  # noqa: PLR0913  # titled blocks in the order of a training, and what a replay leaves out
    recipe: Recipe,
    frame: Frame,
    parts: Mapping[str, Positions],
    *,
    ladder: bool = True,
    progress: Progress | None = None,
    searched: Searched | None = None,
    checkpoints: Path | None = None,
    former: ModelArtifact | None = None,
    derive: Callable[[Problem], Fitted[Any]] | None = None,
    accept: Mapping[str, str] | None = None,
) -> Trained:
    """Fit the ladder and the recipe's estimator on the training rows, calibrate on validation, evaluate everywhere.

    Parameters
    ----------
    recipe : Recipe
    frame : Frame
    parts : mapping
        Positions of the ``train``, ``validate`` and ``test`` rows.
    ladder : bool, default True
        Whether to fit the baselines and look for leaks too; a replay compares the model only.
    progress : callable, optional
        Called with (what, done, at most).
    searched : callable, optional
        What finds the settings of a recipe with ``tune``; a replay gives those that were found. None: search now, and
        keep nothing of it.
    checkpoints : Path, optional
        Folder for the states of the fits, if the recipe asks for checkpoints; None keeps none.
    former : ModelArtifact, optional
        What the fit goes on from: codes and fitted steps are its, too. The ladder is fitted from nothing.
    derive : callable, optional
        What makes the engine instead of the recipe's estimator, of the same problem: a variant of ``former``.
    accept : mapping of str to str, optional
        Features whose leak warning is accepted, and why.

    Raises
    ------
    InputError
        If a part is empty or the training rows do not hold every class.
    """
    report = progress or (lambda *_: None)
    report("encode", 0, 1)
    _check_parts(frame, parts)
    check_task(recipe, frame.target.task)
    inputs = InputSpec.learn(frame.columns(parts["train"]), recipe.types) if former is None else former.inputs
    examples = {name: _examples(inputs, frame, rows) for name, rows in parts.items()}
    validate, test, (stopping, aside) = examples["validate"], examples["test"], _roles(recipe, frame, parts["validate"])
    train = replace(examples["train"], weights=_weights(recipe, frame, parts["train"]))
    place = {name: np.searchsorted(parts["validate"], rows) for name, rows in (("stop", stopping), ("aside", aside))}
    problem = Problem(inputs, train, validate.take(place["stop"]), {}, recipe.seed)
    rows = TrainingRows(recipe.split, frame, parts["train"])
    # First, so that a search knows what is left of a budget.
    rungs = fit_rungs(recipe, problem, frame, parts, examples["test"], report) if ladder else {}
    leaks = find_leaks(frame, inputs, parts, examples, recipe.split, accept) if ladder else None
    recipe, search = _settle(recipe, problem, rows, searched or _search, report, rungs)
    rungs, began = without_same(rungs, recipe), perf_counter()
    begun = None if former is None or derive is not None else begin(recipe, former.engine)
    fit = derive or (lambda problem: fit_recipe(recipe, problem, rows, report))
    fitted = fit(replace(problem, checkpoints=Checkpoints.every(recipe.checkpoint, checkpoints), start=begun))
    engine, windows = fitted.engine, alarm_windows(recipe, frame, parts)
    report("evaluate", 0, 1)
    samples = {**examples, "train": _at_most(examples["train"], _JUDGED_ROWS),
               **{name: _examples(inputs, frame, window.rows) for name, window in windows.items()}}  # fmt: skip
    raw = {name: engine.scores(rows.matrix) for name, rows in samples.items()}
    calibrator, calibration = _calibrate(recipe, frame, aside, raw["validate"][place["aside"]])
    recipe, search = _in_time(recipe, search, perf_counter() - began)
    if recipe.fits_again:  # what is said of validation rows stays what the first fit says of them
        fitted = _fit_again(recipe, fitted, problem, inputs, frame, parts, report)
        engine = fitted.engine
        raw |= {name: engine.scores(samples[name].matrix) for name in samples if "validate" not in name}
    seconds, verdicts = perf_counter() - began, None
    if ladder and derive is None and (plain := without_balance(recipe)) is not None:
        rungs["unbalanced"] = _plain_rung(plain, problem, rows, frame, parts, examples, aside, report)
    scores = {name: calibrator.apply(values) for name, values in raw.items()}
    outputs = {name: without_spans(values, frame.target) for name, values in scores.items()}
    threshold, choice = choose_threshold(recipe, outputs, examples["validate"].labels, windows)
    evaluations = {name: _evaluate(samples[name], outputs[name], threshold) for name in parts}
    if recipe.interval is not None:
        spans = judge_spans(frame.target, scores["test"], frame.labels[parts["test"]])
        evaluations["test"] = replace(evaluations["test"], metrics=(*evaluations["test"].metrics, *spans))
    members = members_of(engine, test, fitted.notes.get("member_seconds", {})) if ladder else {}
    evaluations |= {f"test/{name}": _evaluate(test, values) for name, (values, _) in (rungs | members).items()}
    if rungs:
        cost = cost_of(engine, test, seconds)
        choice |= compare_members(members, raw["test"], cost, test)
        verdicts = _climb(rungs, outputs["test"], test, cost)
    params = {"estimator": recipe.label, "calibrate": recipe.calibrate, **fitted.params}
    if search is not None:
        params["choice"], choice["tuning"] = dict(search.choice), dict(search.report)
    report("evaluate", 1, 1)
    return Trained(
        engine, calibrator, inputs, params, fitted.history, evaluations, verdicts, scores["test"], calibration,
        {**fitted.notes, **choice}, threshold,
        (*_data_warnings(inputs, frame, parts, train, leaks), *_few_warning(test),
         *threshold_warnings(recipe, choice, evaluations["test"], outputs, windows), *_warnings(evaluations),
         *_turned_round(evaluations), *(shuffled_warning(recipe, problem, rows, test) if ladder else ()),
         *(search.warnings if search else ())), leaks, search, seconds,
    )  # fmt: skip


def _roles(recipe: Recipe, frame: Frame, rows: Positions) -> tuple[Positions, Positions]:
    """Validation rows to stop by and to calibrate on: two halves of them, or all where only one needs them.

    Where a second fit follows, all are for both: what the number of iterations, one choice, takes from their honesty is
    less than what half of the rows would miss.
    """
    calibrated = frame.target.probabilistic and recipe.calibrate != "none"
    if not recipe.validates or not (calibrated or recipe.interval is not None) or recipe.fits_again:
        return rows, rows
    stopping, aside = halves(recipe.split, frame, rows)
    if not len(stopping):
        raise InputError("there must be two labelled rows or more to validate on: to stop by, and to calibrate on",
                         where="recipe", got=len(aside),
                         remedy="Give the split a longer part to validate on")  # fmt: skip
    return stopping, aside


def _settle(
    recipe: Recipe, problem: Problem, rows: TrainingRows, searched: Searched, report: Progress,
    rungs: Mapping[str, tuple[NDArray[np.float64], Cost]],
) -> tuple[Recipe, SearchResult | None]:  # fmt: skip
    """The recipe to fit, with what a search chose, which knows how long fitting each rung took."""
    load_libraries(recipe.estimators)
    if recipe.tune is None:
        return recipe, None
    seconds = {name: cost.train_seconds for name, (_, cost) in rungs.items() if cost.train_seconds is not None}
    search = searched(recipe, problem, rows, report, seconds)
    return recipe.tune.concrete(recipe, search.choice), search


def _in_time(recipe: Recipe, search: SearchResult | None, seconds: float) -> tuple[Recipe, SearchResult | None]:
    """The recipe without a second fit where that would end after the budget of a search; the first took seconds."""
    if search is None or not recipe.fits_again or perf_counter() + AGAIN * seconds <= search.deadline:
        return recipe, search
    return replace(recipe, refit=None), replace(search, choice={**search.choice, "refit": False})


def _fit_again(
    recipe: Recipe, fitted: Fitted[Any], problem: Problem, inputs: InputSpec, frame: Frame,
    parts: Mapping[str, Positions], report: Progress,
) -> Fitted[Any]:  # fmt: skip
    """The recipe fitted on training and validation rows together."""
    report("fit again, with the validation rows", 0, 1)
    rows = np.sort(np.concatenate([parts["train"], parts["validate"]]))
    more = replace(_examples(inputs, frame, rows), weights=_weights(recipe, frame, rows))
    return fit_again(recipe, fitted, problem, more, TrainingRows(recipe.split, frame, rows))


def _climb(
    rungs: Mapping[str, tuple[NDArray[np.float64], Cost]], outputs: NDArray[np.float64], test: Examples, cost: Cost
) -> Ladder:
    costs = {name: paid for name, (_, paid) in rungs.items()} | {"candidate": cost}
    return climb(candidate=outputs, rungs={name: answers for name, (answers, _) in rungs.items()}, labels=test.labels,
                 target=test.target, groups=test.groups, costs=costs)  # fmt: skip


def _plain_rung(
    recipe: Recipe, problem: Problem, rows: TrainingRows, frame: Frame, parts: Mapping[str, Positions],
    examples: Mapping[str, Examples], aside: Positions, report: Progress,
) -> tuple[NDArray[np.float64], Cost]:  # fmt: skip
    """The recipe without balancing as a rung: fitted from nothing, calibrated and fitted again as the recipe is."""
    report("without balancing", 0, 1)
    began = perf_counter()
    fitted = fit_recipe(recipe, problem, rows, lambda *_: None)
    raw = fitted.engine.scores(examples["validate"].matrix[np.searchsorted(parts["validate"], aside)])
    calibrator, _ = _calibrate(replace(recipe, interval=None), frame, aside, raw)
    if recipe.fits_again:
        fitted = _fit_again(recipe, fitted, problem, problem.inputs, frame, parts, report)
    outputs = calibrator.apply(fitted.engine.scores(examples["test"].matrix))
    return without_spans(outputs, frame.target), cost_of(fitted.engine, examples["test"], perf_counter() - began)


def _search(
    recipe: Recipe, problem: Problem, rows: TrainingRows, report: Progress, rungs: Mapping[str, float]
) -> SearchResult:
    from retrodict.learning.study.search import search  # only where something is searched

    return search(recipe, problem, rows, tell=report, rungs=rungs)


def _calibrate(
    recipe: Recipe, frame: Frame, rows: Positions, raw: NDArray[np.float64]
) -> tuple[Calibrator, Calibration]:
    """From what the engine gives to answers: calibrated, and with a span where the recipe asks for one."""
    labels, pairs = frame.labels[rows], calibration_folds(recipe.split, frame, rows)
    calibrator, calibration = calibrate(recipe.calibrate, raw, labels, pairs, frame.target)
    if recipe.interval is not None:
        calibrator = fit_spans(calibrator, frame.target, raw, labels, recipe.interval)
    return calibrator, calibration


def _check_parts(frame: Frame, parts: Mapping[str, Positions]) -> None:
    """Refuse parts without rows, and training rows without every class."""
    for name, rows in parts.items():
        if not len(rows):
            raise InputError(
                f"there must be at least one labelled row to {name} on, its outcome known before the next part begins",
                where="recipe", got=0,
                remedy="Move the TimeSplit to where the data is, and let each part be longer than outcomes take",
            )  # fmt: skip
    if frame.target.task == "binary" and len(outcomes := np.unique(frame.labels[parts["train"]])) == 1:
        raise InputError("the training rows must hold both outcomes", where="recipe",
                         got=f"{len(parts['train']):,} rows, of which each is a {'yes' if outcomes[0] else 'no'}",
                         remedy="Train on a longer span, or correct the expression of the label" if frame.timed else
                         "Add rows of the other outcome, or correct the expression of the label")  # fmt: skip
    if frame.target.task == "multiclass":
        present = set(frame.labels[parts["train"]].astype(int).tolist())
        if absent := [name for at, name in enumerate(frame.target.classes) if at not in present]:
            raise InputError("the training rows must hold every class", where="recipe", got=absent[:5],
                             remedy="Train on more rows, or join rare classes in the label's expression")  # fmt: skip


def without_spans(outputs: NDArray[np.float64], target: Target) -> NDArray[np.float64]:
    """Outputs of the target alone, shape (n,) or (n, outputs)."""
    if outputs.ndim == 1:
        return outputs
    return outputs[:, 0] if target.columns == 1 else outputs[:, : target.columns]


def _examples(inputs: InputSpec, frame: Frame, rows: Positions) -> Examples:
    groups = None if frame.groups is None else frame.groups[rows]
    matrix = inputs.encode_columns(frame.columns(rows))
    for name, large in zip(inputs.names, (np.abs(matrix) > LARGEST).sum(axis=0), strict=True):
        if large:
            raise InputError(
                "numbers to learn from must be of at most 1e30 in size", where=f"feature {name!r}",
                got=f"{large:,} rows with a larger one",
                remedy="Leave a value empty that stands for a missing one, and scale the others",
            )  # fmt: skip
    return Examples(matrix, frame.labels[rows], frame.target, None, groups)


def _at_most(rows: Examples, count: int) -> Examples:
    """So many rows, drawn evenly over all; all where they are ranked within groups."""
    if len(rows.labels) <= count or rows.groups is not None:
        return rows
    return rows.take(np.linspace(0, len(rows.labels) - 1, count).round().astype(np.int64))


def _weights(recipe: Recipe, frame: Frame, rows: Positions) -> NDArray[np.float64] | None:
    """How much each training row counts: by the recipe's expression, and by its age."""
    if frame.weights is None and recipe.half_life is None:
        return None
    weights = np.ones(len(rows)) if frame.weights is None else frame.weights[rows]
    if missing := int(np.isnan(weights).sum()):
        raise InputError("every training row must have a weight", where="Recipe, weights", got=f"{missing} without one",
                         remedy="Write an expression like 'coalesce(amount, 1)'")  # fmt: skip
    if recipe.half_life is not None:
        age = (frame.at[rows].max() - frame.at[rows]) / parse_duration(recipe.half_life)
        weights = weights * 0.5**age
    if frame.target.probabilistic:
        mass = np.bincount(frame.labels[rows].astype(np.int64), weights, minlength=max(len(frame.target.classes), 2))
        if not mass.all():
            raise InputError("every class of the training rows must have weight", where="Recipe, weights",
                             got=f"{int((mass == 0).sum())} classes without any",
                             remedy="Correct the expression of the weights")  # fmt: skip
    return np.asarray(weights, dtype=np.float64)


def _evaluate(rows: Examples, outputs: NDArray[np.float64], threshold: float | None = None) -> Evaluation:
    return evaluate(rows.labels, outputs, rows.target, groups=rows.groups, threshold=threshold)


def _data_warnings(
    inputs: InputSpec, frame: Frame, parts: Mapping[str, Positions], train: Examples, leaks: tuple[Leak, ...] | None
) -> tuple[str, ...]:
    """What is to be said of the rows, whatever is learned from them."""
    ids = {leak.feature for leak in leaks or () if leak.kind == "id"}  # of which every value is another one
    return (*_constant_warning(train), *_follow_up_warning(train), *_delay_warning(frame), *_early_warning(frame),
            *_input_warnings(inputs),
            *_empty_warning(train, inputs), *_unseen_warnings(inputs, frame, parts["test"], ids),
            *_torn_groups(frame, parts), *(leak.sentence for leak in leaks or () if leak.accepted is None))  # fmt: skip


def _turned_round(evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """Rungs and models that rank the test rows worse than chance: a sign of broken labels, scores or joins."""
    sentences = []
    for name, evaluation in evaluations.items():
        if name.startswith("test") and name != "test/random" and "auc" in evaluation.values():
            area = evaluation["auc"]
            if area.value is not None and area.high is not None and area.high < 0.5:
                who = "The model" if name == "test" else f"The baseline {name.removeprefix('test/')!r}"
                sentences.append(
                    f"{who} ranks the test rows worse than chance (area {area.value:.3f}, at most {area.high:.3f}): "
                    "make sure that labels mean the same in all parts, and that features are joined to their own rows."
                )
    return tuple(sentences)


def _input_warnings(inputs: InputSpec) -> tuple[str, ...]:
    """Numbers that are read as categories, because the table holds them as text."""
    return tuple(
        f"Feature {feature.name!r} is text, and every one of its {len(feature.vocabulary):,} values is a number: it is "
        f"taken for a category. Declare it, like Table(columns={{{feature.name!r}: 'float'}}), and ingest again with "
        "--replace."
        for feature in inputs.features
        if len(feature.vocabulary) > 2 and all(_is_number(value) for value in feature.vocabulary)
    )


def _torn_groups(frame: Frame, parts: Mapping[str, Positions]) -> tuple[str, ...]:
    """Groups of a ranking that stand on both sides of the split, or are of one row."""
    if frame.groups is None:
        return ()
    groups = {name: frame.groups[rows] for name, rows in parts.items()}
    torn = len(np.intersect1d(groups["train"], groups["test"]))
    sizes = np.unique(groups["test"], return_counts=True)[1]
    sentences = []
    if torn:
        sentences.append(f"{torn:,} groups are ranked in the training rows and in the test rows: what the test says "
                         "of them is too good. Split with GroupSplit(by=…).")  # fmt: skip
    if (sizes == 1).any():
        sentences.append(f"{int((sizes == 1).sum()):,} of {len(sizes):,} groups of the test rows have one row: nothing "
                         "is ranked in them, and they count as ranked right.")  # fmt: skip
    return tuple(sentences)


def _constant_warning(train: Examples) -> tuple[str, ...]:
    """Training rows with one and the same outcome, which any model learns without an error."""
    if train.target.probabilistic or len(np.unique(train.labels)) > 1:
        return ()
    return (f"Every one of the {len(train.labels):,} training rows has the same outcome: there is nothing to learn.",)


def _follow_up_warning(train: Examples) -> tuple[str, ...]:
    """Horizons that no training row was followed to: what happens after the last row is not learned."""
    longest = float(np.abs(train.labels).max())
    late = [text for text, days in zip(train.target.horizons, train.target.days, strict=True) if days > longest]
    if not late:
        return ()
    sentence = (
        f"No training row was followed for longer than {longest:.3g} days: what is said of {', '.join(late)} is at "
        "best what happens by then. Train on a longer span, or leave these horizons out."
    )
    return (sentence,)


def _early_warning(frame: Frame) -> tuple[str, ...]:
    """Labels that are known when it is decided: whatever knows them, a feature among it, needs no model."""
    if not frame.timed or frame.target.days or not frame.known_at.any():  # without a time all are 0
        return ()
    labelled = ~np.isnan(frame.labels)
    early = int(np.count_nonzero(labelled & (frame.known_at <= frame.at)))
    if not early:
        return ()
    sentence = (
        f"{early:,} of {np.count_nonzero(labelled):,} labels are known at the moment of their decision or before it, "
        "so features can hold the outcome: correct known_at of the label, or decide_at of the model."
    )
    return (sentence,)


def _delay_warning(frame: Frame) -> tuple[str, ...]:
    """Events that are heard of late against the horizons: so much of the follow-up of each part is lost."""
    delay = max(frame.delays.values(), default=0.0)
    if not frame.target.days or delay < frame.target.days[0]:
        return ()
    sentence = (
        f"Events are heard of up to {delay:.3g} days late, no less than the horizon {frame.target.horizons[0]}: rows "
        "are followed until so long before the end of their part. Train and test on longer spans."
    )
    return (sentence,)


def _is_number(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return float(value) is not None
    except ValueError:
        return False


def _few_warning(test: Examples) -> tuple[str, ...]:
    """Few test rows, or few of a class, judge nothing, whatever their figures are."""
    count, target = len(test.labels), test.target
    if count < _FEW_ROWS:
        return (f"Only {count} rows judge the model, of which no figure says much: test on {_FEW_ROWS} or more.",)
    if not target.probabilistic:
        return ()
    names = target.classes or ("no", "yes")
    sizes = dict(zip(names, np.bincount(test.labels.astype(np.int64), minlength=len(names)).tolist(), strict=True))
    few = {name: size for name, size in sorted(sizes.items(), key=lambda item: item[1]) if size < _FEW_ROWS}
    if not few:
        return ()
    listed = ", ".join(f"{name!r} {size}" for name, size in list(few.items())[:5]) + ", …" * (len(few) > 5)
    sentence = (
        f"Few of the {count:,} test rows are of an outcome ({listed}): what is said of it is uncertain, as intervals "
        f"show. Test on {_FEW_ROWS} rows of each or more."
    )
    return (sentence,)


def _empty_warning(train: Examples, inputs: InputSpec) -> tuple[str, ...]:
    """Features of which every training row has the same value, or none."""
    # A missing value beside others of one value is a difference.
    first = train.matrix[:1]
    equal = ((train.matrix == first) | (np.isnan(train.matrix) & np.isnan(first))).all(axis=0)
    same = [name for name, alike in zip(inputs.names, equal, strict=True) if alike]
    names = ", ".join(map(repr, same[:5])) + ", …" * (len(same) > 5)
    return (
        (f"{names}: the same value, or none, in every training row. It tells nothing: leave it out.",) if same else ()
    )


def _unseen_warnings(inputs: InputSpec, frame: Frame, test: Positions, ids: Collection[str | None]) -> tuple[str, ...]:
    """Categories of the test rows that the training rows did not hold: those that come are read as missing."""
    sentences = []
    for at in inputs.categorical:
        name, column = inputs.names[at], frame.columns(test)[inputs.names[at]]
        codes = InputSpec((inputs.features[at],)).encode_columns({name: column})
        unseen = int(np.isnan(codes).sum()) - int(np.asarray(column.is_null(nan_is_null=True)).sum())
        if unseen > len(test) / 100 and name not in ids:
            sentences.append(
                f"Feature {name!r} has a category in {unseen:,} of {len(test):,} test rows that was not learned: "
                "it is read as missing, as it will be in decisions."
            )
    return tuple(sentences)


def _warnings(evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """What the numbers of the test rows say against the model."""
    if "test/majority" not in evaluations or "log_loss" not in evaluations["test"].values():
        return ()
    loss, majority = (evaluations[name]["log_loss"].value for name in ("test", "test/majority"))
    if loss is None or majority is None or round(loss, 4) <= round(majority, 4):  # as they are printed
        return ()
    compared = f"The log loss of {loss:.4f} on the test rows is above the majority's {majority:.4f}"
    return (f"{compared}: the same rate for every row would tell more than these probabilities.",)
