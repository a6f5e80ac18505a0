"""The search for the settings of a recipe: what each trial is worth, and when enough is known.

Every trial that ended is appended to a journal before the next one is asked for; a search that was killed goes on from
there and asks for the same trials as one that was not. Only the folds of a trial that was under way are fitted again.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import DefinitionError, InputError
from retrodict.evaluation import better, evaluate
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.losses import LOSSES, loss_refusal, row_losses
from retrodict.learning.fit import TrainingRows
from retrodict.learning.refit import AGAIN
from retrodict.learning.study.ensembles import Joined, join_trials
from retrodict.learning.study.journal import Journal
from retrodict.learning.study.proposals import Proposer, State, StudyTrial, importance_of
from retrodict.learning.study.workers import FoldFit, Job, Workers, open_workers
from retrodict.models.definitions import Recipe
from retrodict.models.problem import Problem
from retrodict.models.tune import AUTO, Choice, Dimension

if TYPE_CHECKING:
    from concurrent.futures import Future

    import optuna

__all__ = ["SearchResult", "search"]

Tell = Callable[[str, int, int], None]
Outputs = NDArray[np.float64]

# Of a budget: for calibrating, judging and recording; and at most for fitting an ensemble instead of the best trial.
_REPORT_SHARE, _ENSEMBLE_SHARE = 0.08, 0.25
_LISTED = 10  # trials that a report lists; all are in the run's file
_LOSSES = 2  # times that a fit is begun anew whose process ended
# Of "auto" what is tried first, so that there is something when time is short; and how many kinds are tuned after it.
_CHEAP = ("cox", "logistic", "linear", "poisson")
_KINDS, _STARTUP = 4, 4
# Members of an ensemble that time is kept for; rows that a rung of the ladder is fitted on at most.
_MEMBERS, _RUNG_ROWS = 6, 50_000
# Of a budget: for a candidate, for a fold of the second one (of the first as long as it takes), and for all of them.
_TRIAL_SHARE, _SECOND_SHARE, _FIRSTS_SHARE = 0.12, 0.3, 0.4
# As candidates of "auto" come they learn in small steps; a first trial in larger ones says as much in half the time.
_FASTER = {"lightgbm": 0.1, "xgboost": 0.1, "aft": 0.1, "catboost": 0.1, "histogram_boosting": 0.1}
_FEW, _TIME, _TICK = 5, "time was over", 0.1
# A candidate of "auto" is given up after a fold that it does worse on than the best, by this share of the best's loss.
_BEHIND, _CHEAP_SHARE = 0.2, 0.03


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to.

    Attributes
    ----------
    choice : mapping
        For :meth:`~retrodict.models.tune.Tune.concrete`.
    trials : tuple of StudyTrial
    report : mapping
        Plain JSON: ``metric``, ``better``, counts by state, ``best``, ``default``, ``leaderboard``, ``ensembles``,
        ``alone`` (what they are compared with), ``importance``, ``stopped`` (why), ``seconds``.
    warnings : tuple of str
    deadline : float
        By the clock ``time.perf_counter``: until when there is time for fits.
    """

    choice: Choice
    trials: tuple[StudyTrial, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    deadline: float = math.inf


@dataclass(slots=True)
class _Running:
    """A trial under way."""

    choice: Choice
    proposal: optuna.Trial | None
    values: list[float] = field(default_factory=list)
    outputs: list[Outputs] = field(default_factory=list)
    seconds: float = 0.0
    losses: int = 0
    began: float = 0.0
    closed: bool = False

    def gives_up(self) -> bool:
        """Whether the folds so far tell a pruner enough."""
        if self.proposal is None:
            return False
        self.proposal.report(float(np.mean(self.values)), len(self.values))
        return bool(self.proposal.should_prune())


def _values(trial: StudyTrial | _Running) -> Sequence[float]:
    """Values of the folds that are judged."""
    return trial.folds if isinstance(trial, StudyTrial) else trial.values


def search(
    recipe: Recipe,
    problem: Problem,
    rows: TrainingRows,
    *,
    tell: Tell,
    journal: Journal | None = None,
    spent: float = 0.0,
    rungs: Mapping[str, float] | None = None,
) -> SearchResult:
    """Search the settings of a recipe on folds of the training rows.

    Parameters
    ----------
    recipe : Recipe
        Its ``tune`` says how.
    problem, rows
        The training rows, and the validation rows to stop early by.
    tell : callable
        Called with (what is being done, trials done, at most).
    journal : Journal, optional
        Of the same search: what it holds is not tried again.
    spent : float, default 0
        Seconds of the recipe's budget that are over.
    rungs : mapping of str to float, optional
        Seconds that fitting each rung of the ladder took, by its name.

    Raises
    ------
    ConfigurationError
        If Optuna is not installed.
    InputError
        If the training rows cannot be cut into folds, or every trial failed.
    """
    if recipe.tune is None:
        return SearchResult({})
    folds = [pair for pair in rows.folds(recipe.tune.folds) if len(pair[0]) and len(pair[1])]
    if not folds:
        raise InputError("there must be labelled training rows enough to cut into folds", where="Tune, folds",
                         got=len(problem.train.labels), remedy="Train on more rows, or leave tune out")  # fmt: skip
    job = Job(recipe, recipe.tune, replace(problem, progress=None), rows, folds)
    return _Search(job, tell, journal, spent, rungs or {}).run()


class _Search:
    def __init__(self, job: Job, tell: Tell, journal: Journal | None, spent: float, rungs: Mapping[str, float]) -> None:
        train = job.problem.train
        self.rungs = rungs
        self.job, self.tune, self.tell, self.journal = job, job.tune, tell, journal
        self.dimensions = job.tune.dimensions(job.recipe, train.target, len(train.labels), len(job.problem.inputs))
        self.candidates = job.tune.candidates(job.recipe, train.target, len(train.labels))
        # Scores that are no probabilities have no log loss: they are judged by their order.
        ranked = train.target.task == "binary" and not all(entry.probabilities for entry in job.recipe.estimators)
        self.metric = job.tune.metric or ("auc" if ranked else "c_index" if self._unfollowed() else None)
        self.higher = self.metric is not None and better(self.metric) == "higher"
        self.auto = job.recipe.estimator == AUTO
        self.budget = self.tune.seconds if job.recipe.budget is not None else None
        self.trials: list[StudyTrial] = []
        self.ranking: list[StudyTrial] = []  # finished ones, the best first; of equal ones the earlier
        self.cut_off: list[StudyTrial] = []  # by time, after some of their folds
        self.outputs: dict[int, list[Outputs]] = {}
        self.stopped, self.why_not = "all trials were made", ""
        self.spent = 0.0 if self.budget is None else spent
        self.began = perf_counter() - self.spent

    def run(self) -> SearchResult:
        """Make the trials, join the best where that is asked for, and report."""
        for trial, outputs in self.journal.read() if self.journal is not None else ():
            self._keep(trial, outputs)
        self.began -= sum(trial.seconds for trial in self.trials) / self.job.jobs
        self.tell("trials", len(self.trials), self.tune.trials)
        with open_workers(self.job) as workers:
            for phase, (dimensions, base, until) in enumerate(self._phases()):
                proposer = Proposer(self.tune, dimensions, base, self._defaults(), self._firsts() if not phase else (),
                                    phase, self.job.recipe.seed, self.higher, len(self.job.folds),
                                    **({"startup": _STARTUP} if self.auto else {"since": phase}))  # fmt: skip
                self._make(workers, proposer, until)
        if self.trials and all(trial.state == "failed" for trial in self.trials):
            raise InputError("a trial must succeed", where="Tune", got=self.trials[0].error[:300],
                             remedy="Correct the recipe: each of its trials failed")  # fmt: skip
        joined = self._joined() if self.tune.ensemble else {}
        choice, alone = self._choice(), self._alone() if joined else None
        reached = alone
        for one in joined.values():
            if reached is not None and self.better(one.value, reached):
                choice, reached = one.choice, one.value
        deadline = math.inf if self.budget is None else perf_counter() + self._unspent()
        report = self._report(choice, joined) | {"alone": alone}
        return SearchResult(choice, tuple(self.trials), report, self._warnings(), deadline)

    def _alone(self) -> float | None:
        """Value of the best trial, on each fold that of the best by the other folds.

        As an ensemble is judged: the least of many values is too good by what it owes to chance, and no ensemble of
        trials that are as good would come up to it.
        """
        if not self.ranking:
            return None
        values = np.array([trial.folds for trial in self.ranking])
        others = (values.sum(axis=1, keepdims=True) - values) * (-1 if self.higher else 1)
        return float(np.mean(values[np.argmin(others, axis=0), np.arange(values.shape[1])]))

    def _joined(self) -> dict[str, Joined]:
        """Ensembles of the best trials; of a budget only of those that can still be fitted."""
        able = self.ranking
        if self.budget is not None and able:
            left = self._unspent()
            able = [trial for trial, cost in zip(able, itertools.accumulate(map(self._cost, able)), strict=True)
                    if trial is able[0] or cost <= left]  # fmt: skip
        return join_trials(self.job, able, self.outputs, value=self.value)

    def _unspent(self) -> float:
        """Seconds of the budget that are left for fits."""
        return math.inf if self.budget is None else self.budget - (perf_counter() - self.began) - self._reporting

    @property
    def _reporting(self) -> float:
        """Seconds to keep for judging and recording: about half of what building the rows and the ladder took."""
        return max((self.budget or 0.0) * _REPORT_SHARE, self.spent / 2)

    def _choice(self) -> Choice:
        """The best trial; where time was over before a handful were finished, one that led after some folds."""
        cut_off = self.cut_off if self.ranking else [trial for trial in self.trials if trial.folds]
        sign = -1 if self.higher else 1
        for trial in sorted(cut_off, key=lambda trial: sign * trial.folds[0]) if len(self.ranking) < _FEW else ():
            if self.best is None or (self._leads(trial.folds) and self._cost(trial, again=False) <= self._unspent()):
                return trial.choice
        if self.best is not None:
            return self.best.choice
        return self._simple()

    def _simple(self) -> Choice:
        """What is fitted where no trial was judged: as "auto" begins, or a small tree, or the constant.

        Which rung of the ladder is the best is not asked: test rows say that, and they choose nothing.
        """
        first = self._firsts()[0]
        if self.budget is None:
            return first
        # Rows and ladder alone may take more than the budget: a model is worth half of that on top, and no more.
        left = max(self._unspent() + _TICK, (perf_counter() - self.began) / 2)
        if self._simple_cost <= left:
            return first
        small = {"estimator": "decision_tree", "decision_tree.max_depth": 3}
        return small if self._rung_cost("tree") <= left else {"estimator": "constant"}

    @property
    def _simple_cost(self) -> float:
        """Seconds of what "auto" begins with; at most what is spent, which went into the ladder, too."""
        cost = self._rung_cost(str(self._firsts()[0].get("estimator")))
        return self.spent * self._rung_share if math.isinf(cost) else cost

    def _rung_cost(self, name: str) -> float:
        """Seconds of fitting a rung of the ladder to all rows; infinite if there is none of this name."""
        return self.rungs.get(name, math.inf) * self._rung_share

    @property
    def _rung_share(self) -> float:
        """Rows over those that a rung is fitted to at most."""
        return max(len(self.job.problem.train.labels) / _RUNG_ROWS, 1.0)

    def _unfollowed(self) -> bool:
        """Whether a fold's rows of a time to an event are followed to no horizon: only their order can be judged."""
        train = self.job.problem.train
        return train.target.task == "survival" and any(
            loss_refusal(Rows(train.labels[judge], np.zeros((len(judge), train.target.columns)), train.target))
            for _, judge in self.job.folds
        )

    # -- what a trial is worth ------------------------------------------------------------------------------------

    def value(self, outputs: Outputs, fold: int) -> float:
        """Value of outputs on the rows that judge a fold; NaN where it cannot be had."""
        train, judge = self.job.problem.train, self.job.folds[fold][1]
        groups = None if train.groups is None else train.groups[judge]
        try:
            if self.metric is None:
                return float(row_losses(train.labels[judge], outputs, train.target, groups=groups).mean())
            metrics = evaluate(train.labels[judge], outputs, train.target, groups=groups).metrics
            measured = {metric.name: metric for metric in metrics}
        except InputError:
            return math.nan
        if self.metric not in measured:
            raise DefinitionError("the metric of a search must be one that the task measures", where="Tune, metric",
                                  got=self.metric, remedy=f"Choose one of {', '.join(sorted(measured))}")  # fmt: skip
        value = measured[self.metric]
        self.why_not = "" if value.reason is None else f": {value.reason}"
        return math.nan if value.value is None else value.value

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another."""
        return value > than if self.higher else value < than

    @property
    def best(self) -> StudyTrial | None:
        """The best finished trial."""
        return self.ranking[0] if self.ranking else None

    # -- the order of trials --------------------------------------------------------------------------------------

    def _phases(self) -> Iterator[tuple[list[Dimension], Choice, int]]:
        """Dimensions that vary, what is held at, and up to which number of trials."""
        features = [dimension for dimension in self.dimensions if dimension.phase == "features"]
        model = [dimension for dimension in self.dimensions if dimension.phase == "model"]
        total = self.tune.trials
        if self.auto and self.tune.search == "joint" and len(self.candidates) > _KINDS:
            yield [one for one in self.dimensions if one.name == "estimator"], {}, min(len(self._firsts()), total)
            yield self._promising(), {}, total
            return
        ways = list(itertools.product(*(dimension.options for dimension in features)))
        if self.tune.search == "joint" or not features or not model:
            yield self.dimensions, {}, total
        elif self.tune.search == "sequential":
            # As many for each as it has dimensions, but no more than there are ways to prepare.
            share = max(round(total * len(features) / len(self.dimensions)), 1)
            yield features, {}, min(share, len(ways) + 1)
            best = self.best
            yield model, best.choice if best is not None else {}, total
        else:
            for number, options in enumerate(ways, start=1):
                base = {dimension.name: option for dimension, option in zip(features, options, strict=True)}
                yield model, base, round(total * number / len(ways))

    def _promising(self) -> list[Dimension]:
        """What varies of the kinds that did best as they come: the others are not tuned."""
        kinds = [trial.choice["estimator"] for trial in self.ranking if trial.phase == 0][:_KINDS]
        if not kinds:
            return self.dimensions
        return [
            replace(one, options=tuple(kinds)) if one.name == "estimator" else one
            for one in self.dimensions
            if one.when is None or one.when in kinds
        ]

    def _firsts(self) -> list[Choice]:
        """What is tried before a sampler proposes: the recipe as it is written, or each candidate as it comes."""
        if self.job.recipe.estimator != AUTO:
            return [{}]
        varied = {one.name for one in self.dimensions}
        return [
            {"estimator": word, **({rate: _FASTER[word]} if (rate := f"{word}.learning_rate") in varied else {})}
            for word in sorted(self.candidates, key=lambda word: word not in _CHEAP)
        ]

    def _defaults(self) -> dict[str, Any]:
        """Value of each dimension where a choice says nothing."""
        values: dict[str, Any] = {"select": "all"}
        for word, candidate in self.candidates.items():
            recipe = candidate if isinstance(candidate, Recipe) else Recipe(candidate)
            params = {**recipe.params, **(self.job.recipe.params if len(self.candidates) == 1 else {})}
            entries = recipe.estimators[0].defaults if len(recipe.estimators) == 1 else {}
            values |= {f"{word}.{name}": value for name, value in {**entries, **params}.items()}
        return values

    def _make(self, workers: Workers, proposer: Proposer, until: int) -> None:
        """Make the trials of a phase."""
        running: dict[Future[FoldFit], _Running] = {}
        while True:
            while (
                len(running) < self.job.jobs
                and len(self.trials) + len(running) < until
                and not self._over(proposer.phase)
            ):
                proposed = proposer.next(self.trials, [one.choice for one in running.values()])
                if proposed is None:
                    self.stopped = proposer.ended
                    break
                running[workers.submit(proposed[0], 0)] = _Running(*proposed, began=perf_counter())
            if not running:
                return
            for future in workers.first_done(list(running), self._wait(running)):
                ended = running.pop(future)
                if self._advance(ended, future, proposer.phase) and not self._over(proposer.phase):
                    ended.began = perf_counter()
                    running[workers.submit(ended.choice, len(ended.values))] = ended
                elif ended.values and not ended.closed:
                    self._end(ended, proposer.phase, "pruned", _TIME if self._left() == 0.0 else "")
            self._end_slow(workers, running, proposer.phase)
            best = self.best
            text = "" if best is None else f", best {best.value:.5g}"
            self.tell(f"trials{text}", len(self.trials), self.tune.trials)
            if self._left(running.values()) == 0.0:
                for one in running.values():
                    if one.values:  # what is known of it counts where hardly one was finished
                        self._end(one, proposer.phase, "pruned", _TIME)
                return

    def _wait(self, running: Mapping[Future[FoldFit], _Running]) -> float | None:
        """Seconds until something must be done, whether or not a fit has ended."""
        left = self._left(running.values())
        slow = [self._share(one) - (perf_counter() - one.began) for one in running.values()]
        return left if left is None else min(left, max(min(slow), 0.0))

    def _end_slow(self, workers: Workers, running: dict[Future[FoldFit], _Running], phase: int) -> None:
        """Give up candidates of "auto" that take more than their share of the budget, so that others get theirs."""
        for future, one in list(running.items()):
            if not future.done() and perf_counter() - one.began > self._share(one):
                workers.end(future)
                del running[future]
                one.seconds += perf_counter() - one.began
                self._end(one, phase, "pruned", f"more than its share of the budget: {one.seconds:.0f} s")

    def _share(self, one: _Running) -> float:
        """Seconds that a fold may take; of "auto" it is bounded for a candidate once another one is judged."""
        if self.budget is None or one.proposal is not None or not self.ranking or self._leads(one.values):
            return math.inf
        if len(self.ranking) == 1:
            return self.budget * _SECOND_SHARE
        return max(self.budget * _TRIAL_SHARE - one.seconds, 0.0)

    def _advance(self, one: _Running, future: Future[FoldFit], phase: int) -> bool:
        """Take in a fold; whether the trial goes on to the next one."""
        if future.exception() is not None and one.losses < _LOSSES:
            one.losses += 1  # which of the fits under way ended the process is not known
            return True
        error = future.exception()
        fit = FoldFit(None, 0.0, "the process that fitted it ended") if error else future.result()
        one.seconds += fit.seconds
        value = math.nan if fit.outputs is None else self.value(fit.outputs, len(one.values))
        if fit.outputs is None or not math.isfinite(value):
            self._end(
                one, phase, "failed", fit.error or f"the {self._word} of its outputs is not a number{self.why_not}"
            )
            return False
        one.values.append(value)
        one.outputs.append(fit.outputs)
        if len(one.values) == len(self.job.folds):
            self._end(one, phase, "finished")
            return False
        if one.gives_up() or self._behind(one):
            self._end(one, phase, "pruned")
            return False
        return True

    def _end(self, one: _Running, phase: int, state: State, error: str = "") -> None:
        trial = StudyTrial(len(self.trials), phase, dict(one.choice), state, tuple(one.values), one.seconds, error)
        outputs = one.outputs if self.tune.ensemble and state == "finished" else None
        one.closed = True
        if self.journal is not None:
            self.journal.append(trial, outputs)
        self._keep(trial, outputs)

    def _leads(self, values: Sequence[float]) -> bool:
        """Whether values of the first folds are better than those of the best trial on the same folds."""
        return bool(values) and (
            self.best is None or self.better(float(np.mean(values)), float(np.mean(self.best.folds[: len(values)])))
        )

    def _behind(self, one: _Running) -> bool:
        """Whether a candidate of "auto" does so much worse than the best that its other folds are not needed."""
        if self.budget is None or one.proposal is not None or self.best is None:
            return False
        if self._cost(one, again=False) * len(self.job.folds) < _CHEAP_SHARE * self.budget:
            return False  # to know it, and to have it for an ensemble, costs hardly anything
        than, value = float(np.mean(self.best.folds[: len(one.values)])), float(np.mean(one.values))
        return self.better(than, value) and abs(value - than) > _BEHIND * abs(than)

    def _keep(self, trial: StudyTrial, outputs: list[Outputs] | None) -> None:
        self.trials.append(trial)
        if trial.error == _TIME and trial.folds:
            self.cut_off.append(trial)
        if trial.value is not None:
            sign = -1 if self.higher else 1
            bisect.insort(self.ranking, trial, key=lambda one: sign * (one.value or 0.0))
        if outputs is not None:
            self.outputs[trial.number] = outputs

    def _cost(self, trial: StudyTrial | _Running, *, again: bool = True) -> float:
        """Seconds that fitting a trial will take, from what its folds took: on all rows, and again with more."""
        values, folds = _values(trial), len(self.job.folds)
        fits = 1.0 + AGAIN if self.job.recipe.fits_again and again else 1.0
        return fits * trial.seconds / max(len(values), 1) * folds / max(folds - 1, 1)

    def _left(self, running: Iterable[_Running] = ()) -> float | None:
        """Seconds until the search must end; of a budget without what fitting, judging and recording will take."""
        if self.tune.seconds is None:
            return None
        reserve = 0.0
        if self.budget is not None:
            several = sum(map(self._cost, self.ranking[:_MEMBERS])) if self.tune.ensemble else 0.0
            simple = min(self._simple_cost, _SECOND_SHARE * self.budget)
            alone = self._cost(self.ranking[0]) if self.ranking else simple
            partial: list[StudyTrial | _Running] = [*running, *self.cut_off]
            ahead = [one for one in partial if self._leads(_values(one))]
            leading = [self._cost(one) for one in ahead] if len(self.ranking) < _FEW else []
            reserve = self._reporting + max(alone, min(several, self.budget * _ENSEMBLE_SHARE), *leading, 0.0)
        left = max(self.tune.seconds - (perf_counter() - self.began) - reserve, 0.0)
        if not left:
            self.stopped = self._ended()
        return left

    def _ended(self) -> str:
        """Why there is no time left: it is over, or what is left of it is for the last fit."""
        if self.budget is None or perf_counter() - self.began >= self.budget:
            return f"{self.tune.timeout} were over"
        return f"the rest of {self.tune.timeout} is kept to fit and judge what was chosen"

    def _over(self, phase: int) -> bool:
        """Whether nothing more is to begin in a phase."""
        best = self.best
        if self._left() == 0.0:
            return True
        if self.budget is not None and phase == 0 and len(self.ranking) > 1:
            firsts = self.spent + _FIRSTS_SHARE * (self.budget - self.spent)
            if perf_counter() - self.began > firsts:  # the rest is for tuning
                return True
        since = 0 if best is None else sum(trial.number > best.number for trial in self.trials)
        if self.tune.patience is not None and since >= self.tune.patience:
            self.stopped = f"{since} trials in a row were no better"
            return True
        return False

    # -- what is said ---------------------------------------------------------------------------------------------

    @property
    def _word(self) -> str:
        return self.metric or LOSSES[self.job.problem.train.target.task]

    def _report(self, choice: Choice, joined: Mapping[str, Joined]) -> dict[str, Any]:
        default = next((trial for trial in self.trials if not trial.choice and trial.state == "finished"), None)
        best = self.best
        return {
            "metric": self._word, "better": "higher" if self.higher else "lower", "search": self.tune.search,
            "folds": len(self.job.folds), "trials": len(self.trials),
            **{state: sum(trial.state == state for trial in self.trials) for state in ("finished", "pruned", "failed")},
            "best": None if best is None else best.to_dict(), "default": None if default is None else default.to_dict(),
            "leaderboard": [trial.to_dict() for trial in self.ranking[:_LISTED]],
            "ensembles": {how: one.value for how, one in joined.items()}, "choice": dict(choice),
            "importance": importance_of(self.trials, self.dimensions, higher=self.higher), "stopped": self.stopped,
            "seconds": perf_counter() - self.began,
        }  # fmt: skip

    def _warnings(self) -> tuple[str, ...]:
        sentences = []
        if self.best is None:
            sentences.append(f"No trial was finished within {self.tune.timeout}: nothing was chosen."
                             if not any(trial.folds for trial in self.trials) else
                             f"No trial was judged on all folds within {self.tune.timeout}: what was chosen "
                             "is the best on the first fold.")  # fmt: skip
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if failed:
            sentences.append(f"{len(failed)} of {len(self.trials)} trials failed; the first: {failed[0].error[:200]}")
        return tuple(sentences)
