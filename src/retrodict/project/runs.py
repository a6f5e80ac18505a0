"""``project.runs``: trainings and other recorded work, their numbers, pictures and comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrodict import learning
from retrodict.core.display import Listing, seconds, when
from retrodict.core.errors import InputError, check_known
from retrodict.core.files import write_text
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace
from retrodict.project.run_views import Plot, PushedRun, Run, RunComparison, RunEnvironment, RunExport, headline

if TYPE_CHECKING:
    from retrodict.learning.runs import Run as RunRecord
    from retrodict.learning.runs.retention import RunRetention
    from retrodict.learning.runs.tracker import OpenRun

__all__ = ["Plot", "PushedRun", "Run", "RunComparison", "RunEnvironment", "RunExport", "Runs", "headline"]


class Runs(Namespace):
    """Trainings of a project, and other work that is recorded like them."""

    def start(
        self,
        name: str = "",
        *,
        model: str = "",
        parent: OpenRun | Run | str | None = None,
        tags: Mapping[str, str] | None = None,
        note: str = "",
        params: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> OpenRun:
        """Start a run by hand, for work outside recipes: a block of ``with``, which ends it.

        It is durable at once, failed if the block raises, and closed as failed by whoever looks next if its process is
        killed; that takes at most the last 0.2 s of what was logged.

        Parameters
        ----------
        name : str
            Free text of one line.
        model : str
            Name of the model it belongs to, if any.
        parent : run or str, optional
            The run that this one is part of; ``run.start()`` of an open one does the same.
        tags : mapping of str to str, optional
        note : str
        params : mapping, optional
            What the work is done with; more by ``log_params``.
        seed : int
            Of the random numbers, if there is one.

        Examples
        --------
        >>> with project.runs.start("by hand", model="late_arrival", tags={"team": "risk"}) as run:  # doctest: +SKIP
        ...     run.log_params({"depth": 3})
        ...     run.log_metric("auc", 0.7, step=3)
        """
        above = parent if parent is None or isinstance(parent, str) else parent.ref
        return learning.open_run(
            self._workspace, name, model=model, parent=above, tags=tags, note=note, params=params, seed=seed
        )

    @names_damage
    def tag(self, ref: str, *tags: str, note: str | None = None) -> Run:
        """Change tags and note of a run, also long after its end; the ledger says who did.

        Parameters
        ----------
        ref : str
            ``run:ULID``.
        tags : str
            As name=value; name= removes one.
        note : str, optional
            Text in the place of its note.
        """
        changed: dict[str, str | None] = {}
        for tag in tags:
            name, equals, value = tag.partition("=")
            if not equals:
                raise InputError("a tag must read name=value, or name= to remove it", where=ref, got=tag,
                                 remedy=f"Write {tag}=VALUE")  # fmt: skip
            changed[name] = value or None
        return Run(self._workspace, learning.tag_run(self._workspace, ref, changed, note=note))

    @names_damage
    def list(
        self,
        *,
        model: str | None = None,
        trials: bool = False,
        limit: int | None = None,
        page: int = 1,
    ) -> Listing[Run]:
        """List runs, newest first.

        Parameters
        ----------
        model : str, optional
            Only runs of this model.
        trials : bool
            List the trials of studies too.
        limit : int, optional
            At most so many on a page.  [default: all]
        page : int
            Which page of these.
        """
        kinds = learning.KINDS if trials else learning.LISTED
        records = learning.list_runs(self._workspace, model, limit=limit, page=page, kinds=kinds)
        return self._listing(records, page=page, limit=limit)

    @names_damage
    def search(
        self,
        where: str = "",
        *,
        order: str = "",
        model: str | None = None,
        trials: bool = False,
        limit: int = 50,
        page: int = 1,
    ) -> Listing[Run]:
        """Find runs by a condition over their metrics, parameters, tags and columns.

        Names are metrics.NAME (of the test rows; metrics.SPLIT.NAME of others), params.NAME, tags.NAME, and status,
        model, kind, name, actor, started, finished, seconds, seed, parent, note. Texts stand in single quotes.

        Parameters
        ----------
        where : str
            The condition, as of a gate or a rule; every run without one.
        order : str
            Names, each with asc or desc; a metric without is best first.  [default: newest first]
        model : str, optional
            Only runs of this model.
        trials : bool
            Find the trials of studies too.
        limit : int
            At most so many on a page.
        page : int
            Which page of these.

        Examples
        --------
        >>> project.runs.search("metrics.auc > 0.7 and tags.team = 'risk'", order="metrics.auc")  # doctest: +SKIP
        """
        records = learning.list_runs(
            self._workspace, model, where=where, order=order, limit=limit, page=page,
            kinds=learning.KINDS if trials else learning.LISTED,
        )  # fmt: skip
        return self._listing(records, page=page, limit=limit, empty="No run is like that.")

    @names_damage
    def best(
        self,
        metric: str,
        *,
        model: str | None = None,
        where: str = "",
        trials: bool = False,
        better: Literal["higher", "lower"] | None = None,
    ) -> Run:
        """Show the finished run with the best value of a metric.

        Parameters
        ----------
        metric : str
            Of the test rows, or SPLIT.NAME.
        model : str, optional
            Only runs of this model.
        where : str
            Only runs that meet this condition, as for search.
        trials : bool
            The trials of studies count too.
        better : {"higher", "lower"}, optional
            Which way the metric is better, where neither its name nor a run says so.
        """
        kinds = learning.KINDS if trials else learning.LISTED
        best = learning.best_run(self._workspace, metric, model=model, where=where, kinds=kinds, direction=better)
        return self.get(best.ref)

    def _listing(
        self, records: Sequence[RunRecord], *, page: int, limit: int | None, empty: str = "There is no run yet."
    ) -> Listing[Run]:
        runs = [Run(self._workspace, record) for record in records]

        def row(run: Run) -> tuple[object, ...]:
            record, metric = run.record, headline(run.metrics)
            what = run.model or "-", record.name or record.kind, run.status
            return run.ref, *what, when(record.started), seconds(record.seconds), record.actor, metric

        columns = ("run", "model", "what?", "status", "started?", "took?>", "by", "test metric>")
        return Listing.table("runs", runs, columns, row, empty=empty, more={"page": page, "limit": limit})

    @names_damage
    def get(self, ref: str) -> Run:
        """Show one run: data, parameters, metrics, artifacts.

        Parameters
        ----------
        ref : str
            ``run:ULID``, or ``name@version`` of the model it made.
        """
        return Run(self._workspace, learning.get_run(self._workspace, ref))

    @names_damage
    def compare(self, *refs: str) -> RunComparison:
        """Compare runs: their test metrics, and everything in which they differ.

        Parameters
        ----------
        refs : str
            ``run:ULID``, or ``name@version`` of the model it made, two or more.
        """
        return RunComparison(**learning.compare_runs(self._workspace, refs))

    @names_damage
    def push(self, ref: str, url: str, *, experiment: str = "retrodict") -> PushedRun:
        """Send a run that has ended, with its files and its model, to an MLflow server.

        Parameters
        ----------
        ref : str
            ``run:ULID``.
        url : str
            Address of the server, as http://localhost:5000.
        experiment : str
            Name of the experiment there; made if it does not exist.
        """
        from retrodict.learning.runs.mlflow.push import push_run

        return PushedRun(ref, push_run(self._workspace, ref, url, experiment=experiment), url)

    @names_damage
    def prune(
        self, *, older: str, model: str | None = None, where: str = "", dry_run: bool = True, reason: str = ""
    ) -> RunRetention:
        """Remove runs that ended long ago and that nothing needs.

        Says only what would go unless told otherwise. Kept is what goes on, what a model version was trained by, what
        the ledger says anything was made from, what bears a tag, and what a kept run is part of. The ledger records
        what went; artifacts stay in the object store.

        Parameters
        ----------
        older : str
            How long ago a run must have ended, as 90d.
        model : str, optional
            Only runs of this model.
        where : str
            Only runs that meet this condition, as for search.
        dry_run : bool
            Only say what would go, and what holds the rest.
        reason : str
            For the ledger; needed to remove anything.
        """
        return learning.prune_runs(
            self._workspace, older=older, model=model, where=where, dry_run=dry_run, reason=reason
        )

    @names_damage
    def environment(
        self,
        ref: str,
        *,
        format: Literal["requirements", "containerfile"] = "requirements",  # noqa: A002  # the option's name
        output: str | Path | None = None,
    ) -> RunEnvironment:
        """Write down the environment of a run, to install it again.

        Parameters
        ----------
        ref : str
            ``run:ULID``.
        format : {"requirements", "containerfile"}
            Every package with its version, as pip reads it; or the recipe of an image, beside which they lie.
        output : path, optional
            File to write.
        """
        from retrodict.learning.environment import containerfile, requirements

        run = learning.get_run(self._workspace, ref)
        writers = {"requirements": requirements, "containerfile": containerfile}
        check_known(
            format, writers, "an environment must be written in a known format", where="environment", what="format"
        )
        text = writers[format](json.loads(self._workspace.objects.get(run.environment)))
        if output is not None:
            write_text(output, text)
        return RunEnvironment(run.ref, format, text, None if output is None else str(output))

    @names_damage
    def export(
        self,
        path: str | Path,
        *,
        where: str = "",
        model: str | None = None,
        trials: bool = False,
        format: Literal["csv", "json", "parquet"] | None = None,  # noqa: A002  # the name that everybody knows
    ) -> RunExport:
        """Write runs as one flat table: a row per run, its metrics, parameters and tags as columns.

        Parameters
        ----------
        path : str or Path
            File that is written.
        where : str
            Only runs that meet this condition, as for search.
        model : str, optional
            Only runs of this model.
        trials : bool
            The trials of studies too.
        format : {"csv", "json", "parquet"}, optional
            [default: that of the file's ending]
        """
        kinds = learning.KINDS if trials else learning.LISTED
        records = learning.list_runs(self._workspace, model, where=where, kinds=kinds)
        return RunExport(str(path), learning.export_runs(records, Path(path), format))
