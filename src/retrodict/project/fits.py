"""What of the project trains: the methods of :class:`retrodict.Project` that make runs and versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrodict import learning
from retrodict.core.errors import InputError
from retrodict.models.definitions import Model
from retrodict.models.splits import TimeSplit
from retrodict.project.progress import Progress, progress_bar
from retrodict.project.runs import Run
from retrodict.workspace import Workspace

if TYPE_CHECKING:
    from retrodict.models.warmstart import WarmStart

__all__ = ["Fits"]


class Fits:
    """Methods that train, and that say how far they are."""

    workspace: Workspace
    _report: Progress | None

    def train(
        self,
        model: str,
        *,
        train: str | None = None,
        validate: str | None = None,
        test: str | None = None,
        start_from: str | WarmStart | None = None,
        again: bool = False,
        resume: str | None = None,
    ) -> Run:
        """Train a model and register a version.

        Reads the newest version of every table of the model, climbs the baseline ladder, and judges the gates.

        Parameters
        ----------
        model : str
            Name of a defined model.
        train : str, optional
            Days to train on as FIRST/AFTER, instead of the recipe's.
        validate : str, optional
            Length of the validation rows after that.
        test : str, optional
            Length of the test rows after that.
        start_from : str or WarmStart, optional
            Version to go on from instead of from nothing, like late_arrival@3, or champion for the one in force.
        again : bool
            Train even if a run of the same definitions, code, environment and data exists, instead of giving that one.
        resume : str, optional
            Run that was killed, as run:ULID: go on from its checkpoints with its data.
        """
        split = self._split(model, train, validate, test)
        began = self.workspace.clock.now()
        with self.progress(f"train {model}") as progress:
            record, version = learning.train(
                self.workspace,
                model,
                split=split,
                start_from=start_from,
                again=again,
                resume=resume,
                progress=progress,
            )
        return Run(self.workspace, record, version, reused=record.started < began)

    def tune(
        self,
        model: str,
        *,
        trials: int | None = None,
        timeout: str | None = None,
        search: str | None = None,
        metric: str | None = None,
        jobs: int | None = None,
        ensemble: bool = False,
    ) -> Run:
        """Search the settings of a model's recipe, train it with the best, and register a version.

        Trials are judged on folds of the training rows: validation and test rows choose nothing. The first is the
        recipe as it is written. A search that was stopped goes on where it was. The recipe's own Tune holds where
        nothing is said here: it has the space, the sampler, and more.

        Parameters
        ----------
        model : str
            Name of a defined model.
        trials : int, optional
            At most so many.  [default: the recipe's, or 60]
        timeout : str, optional
            How long to search, like 15m.
        search : str, optional
            joint, sequential or nested.
        metric : str, optional
            What trials are judged by.  [default: the loss of the task]
        jobs : int, optional
            Fits at a time.  [default: 1]
        ensemble : bool
            Join the best trials if that does better.
        """
        options = {"trials": trials, "timeout": timeout, "search": search, "metric": metric, "jobs": jobs,
                 "ensemble": ensemble or None}  # fmt: skip
        settings = {name: value for name, value in options.items() if value is not None}
        with self.progress(f"tune {model}") as progress:
            record, version = learning.train(self.workspace, model, tune=settings, progress=progress)
        return Run(self.workspace, record, version)

    @staticmethod
    def automl(
        source: str | Path,
        *,
        target: str,
        budget: str | None = None,
        time: str | None = None,
        known_at: str | None = None,
        exclude: str = "",
        folder: str | Path | None = None,
        actor: str | None = None,
    ) -> Run:
        """Look for a model of a column within a budget, and register it.

        Of a file, a project is made around it; a table is one of the project here. Types, the split and columns left
        out (text that names single rows) are written into definitions.py as ordinary lines; the run warns of leaks. The
        same command again goes on with them; options that they do not say yet are written into them.

        Parameters
        ----------
        source : path, or name of a table
            CSV, Parquet, JSON lines or Arrow; or a table of the project in the current folder.
        target : str
            Column to predict, or an expression: true or false (or two numbers), text (a class), other numbers.
        budget : str, optional
            How long to look, like 2m.  [default: the definition's, or 10m]
        time : str, optional
            Column with the moment of the decision: rows are then split in time.
        known_at : str, optional
            Column that says when the target became known.  [default: the time]
        exclude : str
            Columns to leave out, with commas between them.
        folder : path, optional
            Where the project of a file is made.  [default: the file's name without its ending]
        actor : str, optional
            Who acts.
        """
        from retrodict.project.automl import learn
        from retrodict.project.model_lines import Options

        columns = dict.fromkeys(column.strip() for column in exclude.split(",") if column.strip())
        return learn(source, target, Options(budget, time, known_at, tuple(columns)), folder=folder, actor=actor)

    def _split(self, model: str, train: str | None, validate: str | None, test: str | None) -> TimeSplit | None:
        recipe = self.workspace.definitions.get(Model, model).recipe
        if train is None and validate is None and test is None:
            return None
        default = recipe.split
        if not isinstance(default, TimeSplit):
            raise InputError("days to train on must be said of a split in time", where=f"model {model}, recipe",
                             got=type(default).__name__, remedy="Leave them out, or split with TimeSplit")  # fmt: skip
        return replace(
            default, train=train or default.train, validate=validate or default.validate, test=test or default.test
        )

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Report progress while the body runs: to the callable of the project, or as a bar on a terminal.

        Parameters
        ----------
        title : str
            What is being done.

        Yields
        ------
        callable
            To be called with (what, done, total).
        """
        if self._report is not None:
            yield self._report
            return
        with progress_bar(title) as report:
            yield report
