"""Where the fits of a search run: in processes of their own, or on Ray; one fold of one trial at a time.

A fit that takes all memory, crashes or never ends takes its process with it, not the search.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import RetrodictError
from retrodict.learning.fit import TrainingRows, fit_recipe, fold_problem
from retrodict.learning.ray_cluster import open_ray
from retrodict.models.definitions import Recipe
from retrodict.models.estimators import list_estimators, load_libraries, register_estimator
from retrodict.models.problem import Problem
from retrodict.models.tune import AUTO, Choice, Tune

__all__ = ["FoldFit", "Job", "Workers", "open_workers"]

Positions = NDArray[np.int64]

_BEGINNINGS, _ENDING_S, _WATCH_S = 3, 10.0, 1.0


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that the fits of one search share.

    Attributes
    ----------
    recipe, tune, problem, rows
        What is searched, and the training rows.
    folds : sequence of (ndarray, ndarray)
        Places among the training rows to fit on, and to judge on.
    """

    recipe: Recipe
    tune: Tune
    problem: Problem
    rows: TrainingRows
    folds: Sequence[tuple[Positions, Positions]]

    @property
    def jobs(self) -> int:
        """Fits at a time."""
        return self.tune.jobs or (_cores() if self.recipe.estimator == AUTO else 1)

    @property
    def threads(self) -> int:
        """Threads of each fit at most."""
        return max(_cores() // self.jobs, 1)


def _cores() -> int:
    """Cores that this process may use: a container or an affinity leaves it fewer than there are."""
    from joblib import cpu_count

    return int(cpu_count())


@dataclass(frozen=True, slots=True)
class FoldFit:
    """What came of one fold: outputs for the rows that judge, or an error in words."""

    outputs: NDArray[np.float64] | None
    seconds: float
    error: str = ""


class Workers(Protocol):
    """Who fits folds."""

    def submit(self, choice: Choice, fold: int) -> Future[FoldFit]:
        """Begin a fit."""

    def first_done(self, futures: Sequence[Future[FoldFit]], seconds: float | None, /) -> set[Future[FoldFit]]:
        """Those that have ended, at the latest after some seconds."""

    def end(self, future: Future[FoldFit], /) -> None:
        """Stop a fit; others under way may be lost with it, as those of a process that ended."""


def fit_fold(job: Job, choice: Choice, fold: int) -> FoldFit:
    """Fit a recipe with a choice on the rows of a fold, and score those that judge it."""
    began = perf_counter()
    fit, judge = job.folds[fold]
    try:
        recipe = job.tune.concrete(job.recipe, choice)
        load_libraries(recipe.estimators)
        began = perf_counter()  # libraries are loaded once, and say nothing of how long another fit takes
        fitted = fit_recipe(
            recipe, fold_problem(job.problem, job.rows, fit, judge), job.rows.take(fit), lambda *_: None
        )
        outputs = fitted.engine.scores(job.problem.train.matrix[judge])
    except (RetrodictError, ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        return FoldFit(None, perf_counter() - began, f"{type(error).__name__}: {error}")
    return FoldFit(outputs, perf_counter() - began)


@cache
def _load(path: str) -> Job:
    """The job of this process, its arrays mapped from the file; own estimators are registered as they were."""
    import joblib

    return _known(joblib.load(path, mmap_mode="r"))


def _known(job: Job) -> Job:
    """The job, its own estimators registered in this process as they were in the one that searches."""
    names = {entry.name for entry in list_estimators()}
    for entry in job.recipe.estimators:
        if entry.name not in names and entry.fit.partition(":")[0]:
            register_estimator(entry)
    return job


def _fit_stored(path: str, choice: Choice, fold: int) -> FoldFit:
    return fit_fold(_load(path), choice, fold)


def _fit_sent(job: Job, choice: Choice, fold: int) -> FoldFit:
    return fit_fold(_known(job), choice, fold)


class _Inline:
    """Fits in this process, when they are submitted."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def submit(self, choice: Choice, fold: int) -> Future[FoldFit]:
        future: Future[FoldFit] = Future()
        future.set_result(fit_fold(self._job, choice, fold))
        return future

    def first_done(self, futures: Sequence[Future[FoldFit]], _seconds: float | None) -> set[Future[FoldFit]]:
        return set(futures)

    def end(self, _future: Future[FoldFit]) -> None:
        """Nothing runs that could be stopped."""


class _Processes:
    """A pool of processes of joblib's, begun anew when one of them was killed."""

    def __init__(self, path: str, job: Job) -> None:
        # Threads that wait in a loop for the next piece of work starve the other fits.
        self._environment = {"OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self._path, self._jobs = path, min(job.jobs, job.tune.trials)
        self._pool: Any = None
        self._futures: list[Future[FoldFit]] = []

    def submit(self, choice: Choice, fold: int) -> Future[FoldFit]:
        from joblib.externals.loky import ProcessPoolExecutor

        for _ in range(_BEGINNINGS):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(max_workers=self._jobs, env=self._environment,
                                                 initializer=_end_with, initargs=(os.getpid(),))  # fmt: skip
            try:
                future: Future[FoldFit] = self._pool.submit(_fit_stored, self._path, dict(choice), fold)
            except RuntimeError:  # the pool is broken: one of its processes was killed while it had nothing to do
                self.close()
            else:
                self._futures = [*(one for one in self._futures if not one.done()), future]
                return future
        failed: Future[FoldFit] = Future()
        failed.set_result(FoldFit(None, 0.0, "no process could be begun"))
        return failed

    def first_done(self, futures: Sequence[Future[FoldFit]], seconds: float | None, /) -> set[Future[FoldFit]]:
        done = set(wait(futures, timeout=seconds, return_when=FIRST_COMPLETED).done)
        if any(future.exception() is not None for future in done):  # a process ended: the others with it
            self.close()
            done = set(wait(futures, timeout=_ENDING_S).done)
        return done

    def end(self, _future: Future[FoldFit]) -> None:
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            # Killed where a fit runs: others end by themselves, which leaves no semaphores behind.
            self._pool.shutdown(kill_workers=any(not future.done() for future in self._futures))
            self._pool, self._futures = None, []


def _end_with(parent: int) -> None:
    """End this process when the one that began it is gone: killed, it could not end it itself."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, name="retrodict-parent", daemon=True).start()


class _Ray:
    """Tasks of Ray."""

    def __init__(self, job: Job, ray: Any) -> None:
        self._ray, self._tasks = ray, dict[Future[FoldFit], Any]()
        self._job, self._fit = ray.put(job), ray.remote(_fit_sent)

    def submit(self, choice: Choice, fold: int) -> Future[FoldFit]:
        task = self._fit.remote(self._job, dict(choice), fold)
        future: Future[FoldFit] = task.future()
        self._tasks = {one: task for one, task in self._tasks.items() if not one.done()} | {future: task}
        return future

    def first_done(self, futures: Sequence[Future[FoldFit]], seconds: float | None) -> set[Future[FoldFit]]:
        return set(wait(futures, timeout=seconds, return_when=FIRST_COMPLETED).done)

    def end(self, future: Future[FoldFit]) -> None:
        self._ray.cancel(self._tasks.pop(future), force=True)

    def close(self) -> None:
        for future in list(self._tasks):
            self.end(future)


@contextmanager
def open_workers(job: Job) -> Iterator[Workers]:
    """Workers of a job; whatever still runs at the end of the block is stopped.

    Raises
    ------
    ConfigurationError
        If Ray is asked for and not installed.
    """
    if job.tune.engine == "inline":
        yield _Inline(job)
        return
    if job.tune.engine == "ray":
        with open_ray(job.jobs, where="Tune, engine") as ray, closing(_Ray(job, ray)) as tasks:
            yield tasks
        return
    import joblib

    with tempfile.TemporaryDirectory(prefix="retrodict-") as folder:
        path = str(Path(folder) / "job")
        joblib.dump(job, path)
        processes = _Processes(path, job)
        try:
            yield processes
        finally:
            processes.close()
