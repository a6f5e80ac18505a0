"""Ensembles of trials: the best of a search joined, where that does better on rows that chose nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrodict.learning.fit import blend_outputs, greedy_counts
from retrodict.learning.study.proposals import StudyTrial
from retrodict.learning.study.workers import Job
from retrodict.models.tune import Choice

__all__ = ["Joined", "join_trials"]

Outputs = NDArray[np.float64]

# Members at most: more cost time with each decision and hardly add.
_MOST, _FEW = 12, 5


@dataclass(frozen=True, slots=True)
class Joined:
    """An ensemble of trials: the choice, and its value on each fold by what the others say."""

    choice: Choice
    value: float


def join_trials(
    job: Job,
    trials: Sequence[StudyTrial],
    outputs: Mapping[int, Sequence[Outputs]],
    *,
    value: Callable[[Outputs, int], float],
) -> dict[str, Joined]:
    """Join trials in each way that the search asks for.

    Weights and final estimators that judge a fold are learned from the other folds; those that serve from all.

    Parameters
    ----------
    job : Job
    trials : sequence of StudyTrial
        Finished ones, the best first.
    outputs : mapping of int to sequence of ndarray
        Of each trial by its number: for the rows that judge each fold.
    value : callable
        Value of outputs on a fold.
    """
    able = [trial for trial in trials if trial.number in outputs]
    firsts = {str(trial.choice.get("estimator")): trial.number for trial in reversed(able)}
    able.sort(key=lambda trial: trial.number not in firsts.values())  # the best of each kind first
    if len(able) < 2 or job.problem.train.groups is not None:
        return {}
    ensembles = {}
    for how in job.tune.ensemble:  # type: ignore[union-attr]  # read as a tuple
        members = able[: _MOST if how == "greedy" else _FEW]
        answers = [outputs[trial.number] for trial in members]
        every = list(range(len(job.folds)))
        values = [value(_joined(job, how, answers, [at for at in every if at != fold], fold), fold) for fold in every]
        counts = _weights(job, how, answers, every)
        pairs = [(dict(trial.choice), count) for trial, count in zip(members, counts, strict=True) if count > 0]
        if len(pairs) > 1:
            weights = [count / sum(counts) for _, count in pairs]
            choice = {"how": how, "members": [member for member, _ in pairs], "weights": weights}
            ensembles[how] = Joined(choice, float(np.mean(values)))
    return ensembles


def _weights(job: Job, how: str, answers: Sequence[Sequence[Outputs]], folds: Sequence[int]) -> list[float]:
    if how != "greedy":
        return [1.0] * len(answers)
    labels = np.concatenate([job.problem.train.labels[job.folds[fold][1]] for fold in folds])
    outputs = [np.concatenate([answer[fold] for fold in folds]) for answer in answers]
    return greedy_counts(outputs, labels, job.problem.train.target, rounds=25)


def _joined(job: Job, how: str, answers: Sequence[Sequence[Outputs]], folds: Sequence[int], fold: int) -> Outputs:
    """Outputs for a fold of members that are joined by what other folds say."""
    if how == "stack":
        held_out = np.concatenate([job.folds[other][1] for other in folds])
        learned = [np.concatenate([answer[other] for other in folds]) for answer in answers]
        return blend_outputs(job.problem, held_out, learned, [answer[fold] for answer in answers])
    weights = np.array(_weights(job, how, answers, folds))
    total = sum(weight * answer[fold] for weight, answer in zip(weights, answers, strict=True))
    return np.asarray(total / weights.sum())
