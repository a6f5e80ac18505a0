"""``project.pipelines``: runs of what a project does, in order, each step once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from retrodict import learning
from retrodict.core.clock import format_time, from_micros, to_micros
from retrodict.core.display import Block, Facts, Grid, Listing, Shown, Verbatim, seconds, when
from retrodict.core.errors import InputError, check_known
from retrodict.core.lazy import lazy_modules
from retrodict.learning.pipeline.definitions import Pipeline
from retrodict.learning.pipeline.partitions import last_over, partition_range
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace
from retrodict.project.run_views import Plot, Run

if TYPE_CHECKING:
    from retrodict.learning.pipeline import picture, runner
    from retrodict.learning.pipeline.runner import StepReport
    from retrodict.learning.runs import Run as RunRecord
    from retrodict.project import pipeline_steps
else:
    picture, runner = lazy_modules("retrodict.learning.pipeline", "picture", "runner")
    (pipeline_steps,) = lazy_modules("retrodict.project", "pipeline_steps")

__all__ = ["Manifest", "PipelineGraph", "PipelineRun", "PipelineStatus", "PipelineSummary", "Pipelines"]


@dataclass(frozen=True, repr=False)
class PipelineRun(Shown):
    """What one run of a pipeline did: ``ok`` is False where a step failed, was refused or could not run."""

    pipeline: str
    record: RunRecord
    steps: Sequence[StepReport]

    @property
    def ref(self) -> str:
        """``run:ULID``."""
        return self.record.ref

    @property
    def ok(self) -> bool:
        """Whether every step succeeded, now or before."""
        return all(step.status in ("finished", "skipped") for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {
            "pipeline": self.pipeline,
            "run": self.ref,
            "ok": self.ok,
            "steps": [asdict(step) for step in self.steps],
        }

    def blocks(self) -> Sequence[Block | None]:
        """Steps with what became of them, then errors."""
        rows = [(s.label, s.status, seconds(s.seconds), s.attempts or None, s.reason) for s in self.steps]
        errors = [
            "\n".join([f"{s.label}: {s.error}", *(f"  {line}" for line in s.trace)]) for s in self.steps if s.error
        ]
        verdict = f"{self.ref}: {'every step stands' if self.ok else 'not every step succeeded'}."
        return [Grid(("step", "status", "took>?", "tries>?", "why"), rows), *errors, verdict]


@dataclass(frozen=True, repr=False)
class PipelineSummary(Shown):
    """A pipeline in a list: when it ran last and comes next (microseconds since 1970 UTC), and how often it ran."""

    name: str
    steps: int
    schedule: str | None
    last: int | None
    status: str | None
    next: int | None
    runs: int
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        times = {name: None if value is None else format_time(value)
                 for name, value in (("last", self.last), ("next", self.next))}  # fmt: skip
        return {**asdict(self), **times}

    def blocks(self) -> Sequence[Block | None]:
        """Its facts."""
        facts = {"schedule": self.schedule, "last run": self.last and f"{when(self.last)}, {self.status}",
                 "next run": self.next and when(self.next), "runs": self.runs, "failed": self.failed}  # fmt: skip
        return [Facts(facts, title=self.name)]


@dataclass(frozen=True, repr=False)
class PipelineStatus(Shown):
    """Where a pipeline stands: its summary, and the last result of each step."""

    summary: PipelineSummary
    steps: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**self.summary.to_dict(), "steps": list(self.steps)}

    def blocks(self) -> Sequence[Block | None]:
        """Facts, then steps as of the last run."""
        rows = [[step[name] for name in ("step", "partition", "status", "reason", "run")] for step in self.steps]
        return [
            *self.summary.blocks(),
            Grid(("step", "partition?", "last status", "why", "run?"), rows) if rows else None,
        ]


@dataclass(frozen=True, repr=False)
class PipelineGraph(Shown):
    """The steps of a pipeline and what each needs: as a table, as text for other programs, as a picture."""

    pipeline: Pipeline
    graph: Mapping[str, Sequence[str]]
    statuses: Mapping[str, str]
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        steps = [{"step": name, "does": picture.does(self.pipeline.step(name)), "needs": list(needs)}
                 for name, needs in self.graph.items()]  # fmt: skip
        return {"pipeline": self.pipeline.name, "schedule": self.pipeline.schedule, "steps": steps,
                **({"text": self.text} if self.text else {})}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """The text that was asked for, or the steps in an order of execution."""
        rows = [step.values() for step in self.to_dict()["steps"]]
        return [Verbatim(self.text) if self.text else Grid(("step", "does", "needs"), [tuple(row) for row in rows])]

    def plot(self) -> Plot:
        """Picture of the graph, coloured by the last run."""
        return Plot(picture.to_svg(self.graph, self.statuses))

    def _repr_svg_(self) -> str:
        return str(self.plot())


@dataclass(frozen=True, repr=False)
class Manifest(Shown):
    """A manifest of Kubernetes, to be applied."""

    text: str

    def blocks(self) -> Sequence[Block | None]:
        """The YAML itself."""
        return [Verbatim(self.text)]


class Pipelines(Namespace):
    """Pipelines of a project.

    Examples
    --------
    >>> project.pipelines.run("nightly").ok  # doctest: +SKIP
    True
    """

    def _get(self, name: str) -> tuple[Pipeline, dict[str, list[str]]]:
        """Definition, and what each step needs; every name that it uses exists."""
        pipeline = self._workspace.definitions.get(Pipeline, name)
        return pipeline, pipeline.graph(lambda part: pipeline_steps.noun_reads(self._workspace, part))

    def run(
        self,
        name: str,
        *,
        only: Sequence[str] | None = None,
        force: bool = False,
        partition: str | None = None,
        backfill: str | None = None,
        parallel: int = 1,
    ) -> PipelineRun:
        """Run a pipeline: what is unchanged is skipped, what was killed goes on.

        Exit code 1 if a step failed or a gate said no; what does not need that step is executed all the same.

        Parameters
        ----------
        name : str
            Name of a defined pipeline.
        only : sequence of str, optional
            Execute these steps alone; others give their last results.
        force : bool
            Execute what is unchanged, too.
        partition : str, optional
            Partition to run for.  [default: the newest one that is over]
        backfill : str, optional
            Partitions to run for, as FIRST..LAST.
        parallel : int
            Steps at a time.
        """
        pipeline, graph = self._get(name)
        for step in only or ():
            check_known(step, graph, "a step must be one of the pipeline", where=f"pipeline {name}", what="step")
        options = runner.RunOptions(tuple(only or ()), force, self._partitions(pipeline, partition, backfill), parallel)
        effects = {part.name: pipeline_steps.bind_effect(self._workspace, part) for part in pipeline.steps if part.noun}
        command = [sys.executable, "-P", "-m", "retrodict.project.pipeline_steps"]
        with self._project.progress(f"run {name}") as progress:
            record, steps = runner.run_pipeline(
                self._workspace, pipeline, graph, effects, command, options, progress
            )  # fmt: skip
        return PipelineRun(name, record, steps)

    def _partitions(self, pipeline: Pipeline, partition: str | None, backfill: str | None) -> list[str]:
        text, where = backfill or partition, f"pipeline {pipeline.name}"
        if pipeline.partitions is None:
            if text:
                raise InputError("a pipeline must have partitions to run for one", where=where, got=text,
                                 remedy="Leave it out, or define partitions")  # fmt: skip
            return []
        if not text:
            text = last_over(pipeline.partitions, from_micros(self._workspace.clock.now()))
        return partition_range(pipeline.partitions, text, where=where)

    @names_damage
    def list(self) -> Listing[PipelineSummary]:
        """List pipelines: when each ran last, and when it comes next."""
        summaries = [self._summary(pipeline) for pipeline in self._workspace.definitions.of(Pipeline)]

        def row(s: PipelineSummary) -> tuple[object, ...]:
            return s.name, s.steps, s.schedule, when(s.last), s.status, when(s.next), s.runs, s.failed

        columns = ("pipeline", "steps>", "schedule", "last run", "status", "next run", "runs>?", "failed>?")
        return Listing.table("pipelines", summaries, columns, row, empty="There is no pipeline yet.")

    def _records(self, name: str, limit: int | None = None) -> Sequence[RunRecord]:
        where = f"name = '{name}'"
        return learning.list_runs(self._workspace, where=where, kinds=("pipeline",), limit=limit)

    def _summary(self, pipeline: Pipeline) -> PipelineSummary:
        records = self._records(pipeline.name)
        last = records[0] if records else None
        now = from_micros(self._workspace.clock.now())
        following = to_micros(pipeline.next_time(now)) if pipeline.schedule else None
        failed = sum(runner.end_of(record) == "failed" for record in records)
        started, status = (None, None) if last is None else (last.started, runner.end_of(last))
        return PipelineSummary(
            pipeline.name, len(pipeline.steps), pipeline.schedule, started, status, following, len(records), failed
        )

    @names_damage
    def status(self, name: str) -> PipelineStatus:
        """Show where a pipeline stands: last run, next run, last result of each step.

        Parameters
        ----------
        name : str
            Name of a defined pipeline.
        """
        pipeline, graph = self._get(name)
        records = self._records(name, 1)
        steps = runner.steps_of(self._workspace, records[0]) if records else []
        places = records[0].params["partitions"] if records else []
        for step in graph:
            for place in (places or [""]) if step in pipeline.partitioned else [""]:
                if not any((entry["step"], entry["partition"]) == (step, place) for entry in steps):
                    last = runner.step_runs(self._workspace, name, f"{step}[{place}]" if place else step)
                    status, reason = (last[0].status, "in an earlier run") if last else ("-", "")
                    steps.append({"step": step, "partition": place, "status": status, "reason": reason,
                                  "run": last[0].ref if last else ""})  # fmt: skip
        return PipelineStatus(self._summary(pipeline), steps)

    @names_damage
    def show(self, name: str, *, mermaid: bool = False, dot: bool = False) -> PipelineGraph:
        """Show the steps of a pipeline and what each needs; in a notebook as a picture.

        Parameters
        ----------
        name : str
            Name of a defined pipeline.
        mermaid : bool
            As a flow chart of Mermaid.
        dot : bool
            As a digraph of Graphviz.
        """
        pipeline, graph = self._get(name)
        text = picture.to_mermaid(graph) if mermaid else picture.to_dot(graph) if dot else ""
        records = self._records(name, 1)
        steps = runner.steps_of(self._workspace, records[0]) if records else ()
        return PipelineGraph(pipeline, graph, {step["step"]: step["status"] for step in steps}, text)

    def manifest(self, name: str, *, schedule: str | None = None, image: str = "retrodict:latest") -> Manifest:
        """Write the manifest of a Kubernetes CronJob that runs a pipeline.

        The project's folder is a volume claim of its name. Apply it with: kubectl apply -f -

        Parameters
        ----------
        name : str
            Name of a defined pipeline.
        schedule : str, optional
            As cron has it, instead of the pipeline's own.
        image : str
            Container image with retrodict in it.
        """
        pipeline, _ = self._get(name)
        pipeline = pipeline if schedule is None else replace(pipeline, schedule=schedule)
        if pipeline.schedule is None:
            raise InputError("a CronJob must have a schedule", where=f"pipeline {name}", got=None,
                             remedy='Say --schedule "0 3 * * *", or define it')  # fmt: skip
        return Manifest(picture.to_cronjob(pipeline, self._workspace.name, image, self._workspace.actor))

    @names_damage
    def history(self, name: str, *, limit: int = 20) -> Listing[Run]:
        """List the runs of a pipeline, newest first.

        Parameters
        ----------
        name : str
            Name of a defined pipeline.
        limit : int
            At most so many.
        """
        self._get(name)
        runs = [Run(self._workspace, record) for record in self._records(name, limit)]

        def row(run: Run) -> tuple[object, ...]:
            record, steps = run.record, runner.steps_of(self._workspace, run.record)
            unknown = () if "steps" in record.summary else ("skipped", "not run")  # a run without an end says nothing
            counts = [None if status in unknown else sum(step["status"] == status for step in steps)
                      for status in ("finished", "skipped", "failed", "refused", "not run")]  # fmt: skip
            return (run.ref, runner.end_of(record), when(record.started), seconds(record.seconds), *counts,
                    record.actor, record.summary.get("error"))  # fmt: skip

        columns = (
            "run",
            "status",
            "started",
            "took?>",
            "done>",
            "skipped>",
            "failed>",
            "refused>",
            "not run>?",
            "by?",
            "error",
        )
        return Listing.table("runs", runs, columns, row, empty=f"{name} has not run yet.", more={"pipeline": name})
