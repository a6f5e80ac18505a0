"""From rows to a fitted engine: a recipe's steps, rebalancing and estimator, or the members of an ensemble.

Everything here sees training rows and, to stop early by, validation rows; never the rows that judge. Rows that a step,
a weight or a final estimator is chosen on are cut by the recipe's own split: purged where there is time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation.losses import row_losses
from retrodict.learning.frame import Frame, known_days
from retrodict.models.definitions import Recipe
from retrodict.models.engines.base import Engine
from retrodict.models.engines.composite import (
    Combination,
    CorrectedEngine,
    EnsembleEngine,
    Member,
    PreparedEngine,
    stacked,
)
from retrodict.models.ensembles import Bagging, Blend, Ensemble, Greedy, Stack, Vote, final_name
from retrodict.models.estimators import get_estimator
from retrodict.models.inputs import Feature, InputSpec
from retrodict.models.problem import Fitted, Problem, Start
from retrodict.models.splits import Splitter, folds
from retrodict.models.targets import NEVER
from retrodict.models.warmstart import WarmStart

if TYPE_CHECKING:
    from retrodict.estimators.balance import BalanceReport

__all__ = [
    "TrainingRows",
    "begin",
    "blend_outputs",
    "fit_recipe",
    "fold_problem",
    "greedy_counts",
    "out_of_fold",
    "take",
]

Positions = NDArray[np.int64]
Outputs = NDArray[np.float64]
Tell = Callable[[str, int, int], None]


class _Folds:
    """Folds for a step, cut when it asks for them: most steps do not."""

    def __init__(self, rows: TrainingRows, count: int | None) -> None:
        self._rows, self._count = rows, count

    def __iter__(self) -> Iterator[tuple[Positions, Positions]]:
        return iter(self._rows.folds(self._count))


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Where the rows of a problem come from, so that they can be cut into folds as the split of the recipe says.

    Attributes
    ----------
    split : Splitter
    frame : Frame
    positions : ndarray of int64, shape (n,)
        Of the problem's training rows in the frame.
    """

    split: Splitter
    frame: Frame
    positions: Positions

    def folds(self, count: int | None = None) -> list[tuple[Positions, Positions]]:
        """Places among the training rows to fit on, and to judge on; copies of a row are on one side."""
        rows, copies = np.unique(self.positions, return_inverse=True)
        if len(rows) == len(self.positions):
            return folds(self.split, self.frame, self.positions, count)
        return [
            (np.flatnonzero(np.isin(copies, fit)), np.flatnonzero(np.isin(copies, judge)))
            for fit, judge in folds(self.split, self.frame, rows, count)
        ]

    def take(self, places: Positions) -> TrainingRows:
        """Some of the rows."""
        return replace(self, positions=self.positions[places])


def fit_recipe(recipe: Recipe, problem: Problem, rows: TrainingRows, tell: Tell) -> Fitted[Any]:
    """Fit what a recipe names.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem
        Its parameters are not looked at: the recipe's are.
    rows : TrainingRows
        Of the problem's training rows.
    tell : callable
        Called with (what is being done, steps done, steps at most).

    Returns
    -------
    Fitted
        The engine reads rows of the problem's inputs, whatever the steps make of them.
    """
    problem, steps, notes = _prepare(recipe, problem, rows)
    fitted: Fitted[Any]
    if isinstance(recipe.estimator, Ensemble):
        fitted = _fit_ensemble(recipe.estimator, recipe, problem, rows, tell)
    else:
        problem, balanced = _balance(recipe, problem)
        progress = lambda done, total, _metrics: tell(recipe.label, done, total)  # noqa: E731
        params = recipe.settings
        if problem.start is not None and isinstance(recipe.start_from, WarmStart):
            params = recipe.start_from.settings(recipe.registered, params)
        fitted = recipe.registered.solve(replace(problem, params=params, seed=recipe.seed, progress=progress))
        if balanced is not None:
            from retrodict.estimators.balance import PriorCorrection

            corrected = CorrectedEngine(fitted.engine, PriorCorrection.of(balanced))
            fitted = Fitted(corrected, fitted.params, fitted.history, {**fitted.notes, "balance": balanced.to_dict()})
    engine = PreparedEngine(steps, fitted.engine, int(steps[0].n_features_in_)) if steps else fitted.engine
    selections = [step["selected"] for step in notes.get("steps", ()) if "selected" in step]
    selected = {"selected": selections[-1]} if selections else {}
    return Fitted(engine, {**fitted.params, **selected}, fitted.history, {**notes, **fitted.notes})


def _prepare(recipe: Recipe, problem: Problem, rows: TrainingRows) -> tuple[Problem, list[Any], dict[str, Any]]:
    """Fit the steps on the training rows, one after the other, and transform both parts by them."""
    steps, reports = list[Any](), []
    train, validate, inputs = problem.train, problem.validate, problem.inputs
    for definition in recipe.prepare:
        count = dict(getattr(definition, "params", ())).get("folds")
        step = definition.build(inputs.names, inputs.categorical, target=train.target, seed=problem.seed,
                                splitter=_Folds(rows, count))  # fmt: skip
        if problem.start is None:
            matrix = step.fit_transform(train.matrix, train.labels, train.weights)
        else:
            step = _taken_over(step, problem.start.steps[len(steps)])
            matrix = step.transform(train.matrix)
        train = replace(train, matrix=np.ascontiguousarray(matrix, dtype=np.float64))
        if validate is not None:
            validate = replace(validate, matrix=np.ascontiguousarray(step.transform(validate.matrix)))
        inputs = _inputs_after(step, inputs)
        steps.append(step)
        selected = {"selected": list(inputs.names)} if "ranking" in step.report_ else {}
        reports.append({"step": type(step).__name__, "columns": len(inputs), **selected, **step.report_})
    notes = {"steps": reports} if reports else {}
    return replace(problem, inputs=inputs, train=train, validate=validate), steps, notes


def begin(recipe: Recipe, engine: Engine) -> Start:
    """What a recipe goes on from, taken out of a version's engine.

    Raises
    ------
    InputError
        If the version was prepared or balanced otherwise.
    """
    assert isinstance(recipe.start_from, WarmStart)
    inner: Any = engine
    steps = inner.steps if isinstance(inner, PreparedEngine) else ()
    inner = inner.engine if steps else inner
    balanced = isinstance(inner, CorrectedEngine)
    if len(steps) != len(recipe.prepare) or balanced != (recipe.balance is not None):
        raise InputError("a version to begin from must have the steps of the recipe, and be balanced as it",
                         where="start_from", got=[type(step).__name__ for step in steps],
                         remedy="Write prepare and balance as they were, or train from nothing")  # fmt: skip
    return Start(inner.engine if balanced else inner, steps, tuple(recipe.start_from.layers or ()) or None)


def _taken_over(step: Any, former: Any) -> Any:
    """The fitted step of a version in the place of an unfitted one that is defined alike."""
    apart = {*step._unsaved, "seed"}  # noqa: SLF001  # as the step itself says it
    before, after = (
        {name: list(value) if isinstance(value, tuple) else repr(value) if hasattr(value, "get_params") else value
         for name, value in one.get_params(deep=False).items() if name not in apart} for one in (former, step)
    )  # fmt: skip
    if type(step) is not type(former) or before != after:
        raise InputError("a version to begin from must be prepared by the steps of the recipe", where="start_from",
                         got=type(former).__name__,
                         remedy="Write prepare as it was, or train from nothing")  # fmt: skip
    if step.kind == "target_encoder":
        # It gives rows that it was fitted on their own outcomes, which only other folds may not.
        raise InputError("steps of a warm start must not read outcomes", where="start_from", got=type(step).__name__,
                         remedy="Encode by frequency, or train from nothing")  # fmt: skip
    return former


def _inputs_after(step: Any, before: InputSpec) -> InputSpec:
    """Features of what comes out of a step: categories keep their words."""
    words = {place: before.features[place].vocabulary for place in before.categorical}
    names = step.get_feature_names_out(before.names, words)
    codes = set(step.categorical_)
    return InputSpec(tuple(
        Feature(str(name), "category", words.get(step.sources_[place][0], ())) if place in codes
        else Feature(str(name), "number")
        for place, name in enumerate(names)
    ))  # fmt: skip


def _balance(recipe: Recipe, problem: Problem) -> tuple[Problem, BalanceReport | None]:
    """Rebalance the training rows, and only those."""
    if recipe.balance is None:
        return problem, None
    train = problem.train
    matrix, labels, weights, report = recipe.balance.apply(
        train.matrix, train.labels, train.weights, categorical=problem.inputs.categorical, target=train.target,
        seed=recipe.seed,
    )  # fmt: skip
    balanced = replace(train, matrix=np.ascontiguousarray(matrix), labels=labels, weights=weights, groups=None)
    return replace(problem, train=balanced), report


def _members(ensemble: Ensemble, recipe: Recipe) -> list[tuple[str, Recipe]]:
    """Name and recipe of each member."""
    return [
        (name, member if isinstance(member, Recipe)
         else replace(recipe, estimator=member, params={}, prepare=(), threshold=None))
        for name, member in ensemble.named_members()
    ]  # fmt: skip


def _fit_ensemble(
    ensemble: Ensemble, recipe: Recipe, problem: Problem, rows: TrainingRows, tell: Tell
) -> Fitted[EnsembleEngine]:
    entries = _members(ensemble, recipe)
    if isinstance(ensemble, Bagging):
        return _fit_bag(ensemble, entries[0], recipe, problem, rows, tell)
    fitted_members, seconds = [], {}
    for done, (name, member) in enumerate(entries):
        tell(f"{ensemble.label}: {name}", done, len(entries))
        began = perf_counter()
        fitted_members.append(fit_recipe(member, problem, rows, tell))
        seconds[name] = perf_counter() - began
    notes: dict[str, Any] = {"ensemble": ensemble.label, "member_seconds": seconds}
    params = {"members": {name: dict(fitted.params) for (name, _), fitted in zip(entries, fitted_members, strict=True)}}
    weights = [1.0] * len(entries)
    final = None
    match ensemble:
        case Vote(weights="learned"):
            losses = _held_out_losses(entries, problem, rows, tell, None)
            weights = [1.0 / max(float(loss.mean()), 1e-12) for loss in losses]
        case Vote(weights=fixed) if fixed is not None:
            weights = [float(weight) for weight in fixed]  # checked where it is written
        case Greedy():
            weights = _greedy(ensemble, entries, problem, rows, tell)
        case Stack() | Blend():
            final = _fit_final(ensemble, entries, problem, rows, tell)
            params["final"] = dict(final.params)
    if final is None:
        notes["weights"] = {name: weight / sum(weights) for (name, _), weight in zip(entries, weights, strict=True)}
    members = [Member(name, fitted.engine, weight)
               for (name, _), fitted, weight in zip(entries, fitted_members, weights, strict=True)]  # fmt: skip
    how: Combination = "hard" if getattr(ensemble, "how", "soft") == "hard" else "mean"
    how = "stack" if final is not None else how
    engine = EnsembleEngine(members, how, final=final.engine if final is not None else None,
                            passthrough=getattr(ensemble, "passthrough", False))  # fmt: skip
    return Fitted(engine, params, {}, notes)


def _fit_bag(
    bag: Bagging, entries: tuple[str, Recipe], recipe: Recipe, problem: Problem, rows: TrainingRows, tell: Tell
) -> Fitted[EnsembleEngine]:
    """Each on rows drawn with replacement, of each class as many as its share, so that none is missing."""
    name, member = entries
    random, members, params, seconds = np.random.default_rng(recipe.seed), [], {}, {}
    labels = problem.train.labels if problem.train.target.probabilistic else np.zeros(len(problem.train.labels))
    for number in range(bag.n):
        tell(f"bag: {name}", number, bag.n)
        places = np.concatenate([
            random.choice(same_class, max(round(bag.rows * len(same_class)), 1))
            for same_class in (np.flatnonzero(labels == label) for label in np.unique(labels))
        ])  # fmt: skip
        places.sort()
        began = perf_counter()
        fitted = fit_recipe(replace(member, seed=(recipe.seed + number) % 2**31), take(problem, places),
                            rows.take(places), tell)  # fmt: skip
        members.append(Member(f"{name}_{number + 1}", fitted.engine))
        seconds[members[-1].name] = perf_counter() - began
        params = dict(fitted.params)
    return Fitted(EnsembleEngine(members, "mean"), {"members": {name: params}, "n": bag.n}, {},
                  {"ensemble": "bag", "member_seconds": seconds})  # fmt: skip


def take(problem: Problem, places: Positions) -> Problem:
    """The same problem on some of its training rows."""
    return replace(problem, train=problem.train.take(places))


def fold_problem(problem: Problem, rows: TrainingRows, fit: Positions, judge: Positions) -> Problem:
    """The same problem on the rows that a fold fits on, as they were known when its judged rows began.

    Only a time to an event changes: it is seen of rows decided before as far as it was then.
    """
    part, frame = take(problem, fit), rows.frame
    if part.train.target.task != "survival" or not (frame.timed and rows.split.timed):
        return part
    places, start = rows.positions[fit], int(frame.at[rows.positions[judge]].min())
    ends = np.where(frame.at[places] < start, start, NEVER)
    return replace(part, train=replace(part.train, labels=known_days(part.train.labels, frame, places, ends)))


def out_of_fold(
    entries: Sequence[tuple[str, Recipe]],
    problem: Problem,
    rows: TrainingRows,
    tell: Tell,
    pairs: Sequence[tuple[Positions, Positions]],
) -> tuple[Positions, list[Outputs]]:
    """Outputs of each member for rows that it was not fitted on: places of the rows, and outputs by member.

    In-sample outputs would teach a final estimator to trust the member that remembers best.
    """
    held_out = np.concatenate([judge for _, judge in pairs])
    answers: list[list[Outputs]] = [[] for _ in entries]
    for done, (fit, judge) in enumerate(pairs):
        for at, (name, member) in enumerate(entries):
            tell(f"{name} without a fold", done, len(pairs))
            part = fold_problem(problem, rows, fit, judge)
            fitted = fit_recipe(member, part, rows.take(fit), lambda *_: None)
            answers[at].append(fitted.engine.scores(problem.train.matrix[judge]))
    return held_out, [np.concatenate(parts) for parts in answers]


def _held_out_losses(
    entries: Sequence[tuple[str, Recipe]], problem: Problem, rows: TrainingRows, tell: Tell, count: int | None
) -> list[Outputs]:
    held_out, answers = out_of_fold(entries, problem, rows, tell, rows.folds(count))
    train = problem.train
    return [row_losses(train.labels[held_out], outputs, train.target) for outputs in answers]


def _greedy(
    greedy: Greedy, entries: Sequence[tuple[str, Recipe]], problem: Problem, rows: TrainingRows, tell: Tell
) -> list[float]:
    """How often each member was added."""
    held_out, answers = out_of_fold(entries, problem, rows, tell, rows.folds(greedy.folds))
    return greedy_counts(answers, problem.train.labels[held_out], problem.train.target, rounds=greedy.rounds)


def greedy_counts(answers: Sequence[Outputs], labels: Outputs, target: Target, *, rounds: int) -> list[float]:
    """How often each member is added when each round adds the one that lowers the loss of the average most."""
    counts, total = [0] * len(answers), np.zeros_like(answers[0])
    for added in range(1, rounds + 1):
        losses = [float(row_losses(labels, (total + outputs) / added, target).mean()) for outputs in answers]
        best = int(np.argmin(losses))
        counts[best] += 1
        total = total + answers[best]
    return [float(count) for count in counts]


def _fit_final(
    ensemble: Stack | Blend, entries: Sequence[tuple[str, Recipe]], problem: Problem, rows: TrainingRows, tell: Tell
) -> Fitted[Any]:
    train, target = problem.train, problem.train.target
    if isinstance(ensemble, Stack):
        pairs = rows.folds(ensemble.folds)
    else:
        cuts = rows.folds(max(round(1.0 / ensemble.share), 2))
        pairs = [cuts[-1]]
    held_out, answers = out_of_fold(entries, problem, rows, tell, pairs)
    passthrough = isinstance(ensemble, Stack) and ensemble.passthrough
    matrix = stacked(answers, train.matrix[held_out] if passthrough else None)
    names = [f"{name} {output}" for name, _ in entries for output in target.outputs]
    features = [Feature(text, "number") for text in names]
    inputs = InputSpec((*features, *(problem.inputs.features if passthrough else ())))
    tell(f"{ensemble.label}: final", 0, 1)
    examples = replace(train.take(held_out), matrix=matrix)
    return get_estimator(final_name(ensemble, target.task)).solve(Problem(inputs, examples, None, {}, problem.seed))


def blend_outputs(
    problem: Problem, held_out: Positions, learned: Sequence[Outputs], answers: Sequence[Outputs]
) -> Outputs:
    """What a final estimator says of some rows, fitted on members' outputs for rows that they did not learn from.

    Parameters
    ----------
    problem : Problem
    held_out : ndarray of int64
        Places of the training rows that it is fitted on.
    learned, answers : sequences of ndarray
        Outputs of each member for those rows, and for the rows to say something of.
    """
    train = problem.train
    features = tuple(Feature(f"{at} {name}", "number") for at in range(len(learned)) for name in train.target.outputs)
    examples = replace(train.take(held_out), matrix=stacked(learned, None))
    final = get_estimator(final_name(Stack(("constant", "constant")), train.target.task))
    fitted = final.solve(Problem(InputSpec(features), examples, None, {}, problem.seed))
    return np.asarray(fitted.engine.scores(stacked(answers, None)))
