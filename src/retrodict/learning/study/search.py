"""The search for the settings of a recipe: what each trial is worth, and when enough is known.

Every trial that ended is appended to a journal before the next one is asked for; a search that was killed goes on from
there and asks for the same trials as one that was not. Only the folds of a trial that was under way are fitted again.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import content_hash
from retrodict.evaluation import better, evaluate
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.losses import LOSSES, loss_refusal, row_losses
from retrodict.learning.fit import TrainingRows
from retrodict.learning.study.ensembles import Joined, join_trials
from retrodict.learning.study.proposals import Proposer, State, StudyTrial, importance_of
from retrodict.learning.study.workers import FoldFit, Job, Workers, open_workers
from retrodict.models.definitions import Recipe
from retrodict.models.problem import Problem
from retrodict.models.tune import AUTO, Choice, Dimension
from retrodict.stores._durable import open_file, read_file

if TYPE_CHECKING:
    from concurrent.futures import Future

    import optuna

__all__ = ["SearchResult", "Journal", "search"]

Tell = Callable[[str, int, int], None]
Outputs = NDArray[np.float64]

_REPORT_SHARE = 0.1  # of a budget, for the ladder and the report
_LOSSES = 2  # times that a fit is begun anew whose process ended
# Of "auto" what is tried first, so that there is something when time is short.
_CHEAP = ("cox", "logistic", "linear", "poisson")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to.

    Attributes
    ----------
    choice : mapping
        For :meth:`~retrodict.models.tune.Tune.concrete`.
    trials : tuple of StudyTrial
    report : mapping
        Plain JSON: ``metric``, ``better``, counts by state, ``best``, ``default``, ``ensembles``, ``importance``,
        ``stopped`` (why), ``seconds``.
    warnings : tuple of str
    """

    choice: Choice
    trials: tuple[StudyTrial, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Journal:
    """Trials of one search in a folder: one line each, durable before the next is asked for; outputs beside.

    Each line is sealed by a secret, together with those before it and the digest of its outputs. What a kill tore, and
    what the secret did not seal, is dropped with all that follows: it is fitted again.

    Parameters
    ----------
    folder : path
        Of this search alone; made if it does not exist.
    secret : bytes
    """

    def __init__(self, folder: Path, secret: bytes = b"") -> None:
        self.folder, self._secret, self._last = folder, secret, folder.name
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "trials.jsonl"

    @classmethod
    def of(cls, place: Path, recipe: Recipe, problem: Problem, secret: bytes) -> Journal:
        """Journal of a search: its folder is named by the recipe and every row that it is searched on."""
        digest = hashlib.sha256(content_hash(recipe).encode())
        for part in (problem.train, problem.validate):
            if part is not None:
                for array in (part.matrix, part.labels, part.weights, part.groups):
                    digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        return cls(place / digest.hexdigest()[:32], secret)

    def remove(self) -> None:
        """Forget the search: it is recorded elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self) -> list[tuple[StudyTrial, list[Outputs] | None]]:
        """Trials in their order, those finished with their outputs by fold where they were kept."""
        self._last = self.folder.name
        size, trials = 0, list[tuple[StudyTrial, list[Outputs] | None]]()
        content = read_file(self._path) if self._path.exists() else b""
        for line in content.splitlines(keepends=True):
            try:
                body = json.loads(line) if line.endswith(b"\n") else {}
                seal, outputs = body.pop("seal"), self._outputs(body["number"], body.pop("outputs"))
                if not hmac.compare_digest(seal, self._seal(line[: line.rindex(b', "seal"')])):
                    break
                trial = StudyTrial(**{**body, "folds": tuple(body["folds"])})
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                break
            size, self._last = size + len(line), seal
            trials.append((trial, outputs))
        if size != len(content):
            os.truncate(self._path, size)
        return trials

    def append(self, trial: StudyTrial, outputs: Sequence[Outputs] | None) -> None:
        """Keep a trial that ended."""
        digest = None
        if outputs is not None:
            buffer = io.BytesIO()
            np.savez(buffer, *outputs)
            (self.folder / f"{trial.number}.npz").write_bytes(buffer.getvalue())
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        text = json.dumps({**asdict(trial), "outputs": digest})[:-1].encode()
        self._last = self._seal(text)
        with os.fdopen(open_file(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
            file.write(text + b', "seal": "' + self._last.encode() + b'"}\n')
            file.flush()
            os.fsync(file.fileno())

    def _seal(self, text: bytes) -> str:
        return hmac.digest(self._secret, self._last.encode() + b"\n" + text, "sha256").hex()

    def _outputs(self, number: int, digest: str | None) -> list[Outputs] | None:
        """Outputs of a trial; ValueError if they are not those that were kept."""
        if digest is None:
            return None
        content = read_file(self.folder / f"{number}.npz")
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(number)
        with np.load(io.BytesIO(content)) as arrays:
            return [arrays[name] for name in arrays.files]


@dataclass(slots=True)
class _Running:
    """A trial under way."""

    choice: Choice
    proposal: optuna.Trial | None
    values: list[float] = field(default_factory=list)
    outputs: list[Outputs] = field(default_factory=list)
    seconds: float = 0.0
    losses: int = 0

    def gives_up(self) -> bool:
        """Whether the folds so far tell enough."""
        if self.proposal is None:
            return False
        self.proposal.report(float(np.mean(self.values)), len(self.values))
        return bool(self.proposal.should_prune())


def search(
    recipe: Recipe,
    problem: Problem,
    rows: TrainingRows,
    *,
    tell: Tell,
    journal: Journal | None = None,
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
    return _Search(job, tell, journal).run()


class _Search:
    def __init__(self, job: Job, tell: Tell, journal: Journal | None) -> None:
        train = job.problem.train
        self.job, self.tune, self.tell, self.journal = job, job.tune, tell, journal
        self.dimensions = job.tune.dimensions(job.recipe, train.target, len(train.labels))
        self.candidates = job.tune.candidates(job.recipe, train.target, len(train.labels))
        # Scores that are no probabilities have no log loss: they are judged by their order.
        ranked = train.target.task == "binary" and not all(entry.probabilities for entry in job.recipe.estimators)
        self.metric = job.tune.metric or ("auc" if ranked else "c_index" if self._unfollowed() else None)
        self.higher = self.metric is not None and better(self.metric) == "higher"
        self.trials: list[StudyTrial] = []
        self.outputs: dict[int, list[Outputs]] = {}
        self.stopped = "all trials were made"
        self.began = perf_counter()

    def run(self) -> SearchResult:
        """Make the trials, join the best where that is asked for, and report."""
        for trial, outputs in self.journal.read() if self.journal is not None else ():
            self._keep(trial, outputs)
        self.began -= sum(trial.seconds for trial in self.trials) / self.job.jobs
        self.tell("trials", len(self.trials), self.tune.trials)
        with open_workers(self.job) as workers:
            for phase, (dimensions, base, until) in enumerate(self._phases()):
                proposer = Proposer(self.tune, dimensions, base, self._defaults(), self._firsts() if not phase else (),
                                    phase, self.job.recipe.seed, self.higher,
                                    len(self.job.folds))  # fmt: skip
                self._make(workers, proposer, until)
        best = self.best
        if best is None and self.trials:
            raise InputError("a trial must succeed", where="Tune", got=self.trials[0].error[:300],
                             remedy="Correct the recipe: each of its trials failed")  # fmt: skip
        ranked = [] if best is None else self._ranked()
        joined = join_trials(self.job, ranked, self.outputs, value=self.value) if self.tune.ensemble else {}
        choice = self._firsts()[0] if best is None else best.choice
        reached = None if best is None else best.value
        for one in joined.values():
            if reached is not None and self.better(one.value, reached):
                choice, reached = one.choice, one.value
        return SearchResult(choice, tuple(self.trials), self._report(choice, joined), self._warnings())

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
            measured = evaluate(train.labels[judge], outputs, train.target, groups=groups).values()
        except InputError:
            return math.nan
        if self.metric not in measured:
            raise DefinitionError("the metric of a search must be one that the task measures", where="Tune, metric",
                                  got=self.metric, remedy=f"Choose one of {', '.join(sorted(measured))}")  # fmt: skip
        value = measured[self.metric]
        return math.nan if value is None else value

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another."""
        return value > than if self.higher else value < than

    def _ranked(self) -> list[StudyTrial]:
        """Finished trials, the best first; of equal ones the earlier."""
        sign = -1 if self.higher else 1
        finished = [trial for trial in self.trials if trial.value is not None]
        return sorted(finished, key=lambda trial: sign * (trial.value or 0.0))

    @property
    def best(self) -> StudyTrial | None:
        """The best finished trial."""
        return next(iter(self._ranked()), None)

    # -- the order of trials --------------------------------------------------------------------------------------

    def _phases(self) -> Iterator[tuple[list[Dimension], Choice, int]]:
        """Dimensions that vary, what is held at, and up to which number of trials."""
        features = [dimension for dimension in self.dimensions if dimension.phase == "features"]
        model = [dimension for dimension in self.dimensions if dimension.phase == "model"]
        total = self.tune.trials
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

    def _firsts(self) -> list[Choice]:
        """What is tried before a sampler proposes: the recipe as it is written, or each candidate as it comes."""
        if self.job.recipe.estimator != AUTO:
            return [{}]
        return [{"estimator": word} for word in sorted(self.candidates, key=lambda word: word not in _CHEAP)]

    def _defaults(self) -> dict[str, Any]:
        """Value of each dimension where a choice says nothing."""
        values: dict[str, Any] = {}
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
            while len(running) < self.job.jobs and len(self.trials) + len(running) < until and not self._over():
                proposed = proposer.next(self.trials, [one.choice for one in running.values()])
                if proposed is None:
                    self.stopped = proposer.ended
                    break
                running[workers.submit(proposed[0], 0)] = _Running(*proposed)
            if not running:
                return
            for future in workers.first_done(list(running), self._left()):
                ended = running.pop(future)
                if self._advance(ended, future, proposer.phase) and not self._over():
                    running[workers.submit(ended.choice, len(ended.values))] = ended
            best = self.best
            text = "" if best is None else f", best {best.value:.5g}"
            self.tell(f"trials{text}", len(self.trials), self.tune.trials)
            if self._left() == 0.0:
                return

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
            self._end(one, phase, "failed", fit.error or f"the {self._word} of its outputs is not a number")
            return False
        one.values.append(value)
        one.outputs.append(fit.outputs)
        if len(one.values) == len(self.job.folds):
            self._end(one, phase, "finished")
            return False
        if one.gives_up():
            self._end(one, phase, "pruned")
            return False
        return True

    def _end(self, one: _Running, phase: int, state: State, error: str = "") -> None:
        trial = StudyTrial(len(self.trials), phase, dict(one.choice), state, tuple(one.values), one.seconds, error)
        outputs = one.outputs if self.tune.ensemble and state == "finished" else None
        if self.journal is not None:
            self.journal.append(trial, outputs)
        self._keep(trial, outputs)

    def _keep(self, trial: StudyTrial, outputs: list[Outputs] | None) -> None:
        self.trials.append(trial)
        if outputs is not None:
            self.outputs[trial.number] = outputs

    def _left(self) -> float | None:
        """Seconds until the search must end; of a budget without what fitting the best on all rows will take."""
        if self.tune.seconds is None:
            return None
        reserved = 0.0
        if self.job.recipe.budget is not None:
            took = sorted((trial.seconds for trial in self._ranked()[:5]), reverse=True)
            reserved = self.tune.seconds * _REPORT_SHARE + sum(took[:3]) / max(len(self.job.folds) - 1, 1)
        left = max(self.tune.seconds - (perf_counter() - self.began) - reserved, 0.0)
        if not left:
            self.stopped = f"{self.tune.timeout} were over"
        return left

    def _over(self) -> bool:
        """Whether nothing more is to begin."""
        best = self.best
        if self._left() == 0.0:
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
            "ensembles": {how: one.value for how, one in joined.items()}, "choice": dict(choice),
            "importance": importance_of(self.trials, self.dimensions, higher=self.higher), "stopped": self.stopped,
            "seconds": perf_counter() - self.began,
        }  # fmt: skip

    def _warnings(self) -> tuple[str, ...]:
        sentences = []
        if self.best is None:
            sentences.append(f"No trial was finished before {self.tune.timeout} were over: nothing was chosen.")
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if failed:
            sentences.append(f"{len(failed)} of {len(self.trials)} trials failed; the first: {failed[0].error[:200]}")
        return tuple(sentences)
