"""One run of a pipeline: what is unchanged is skipped, the rest executed in processes, each result recorded once.

A step's execution is a run of kind ``step`` below the run of its pipeline, begun and ended in the evaluation store. So
the journal of a pipeline is what runs are anyway, and "was this done already" is a question to finished runs: of this
step, with this key, whose output is still whole. A kill leaves runs without an end, and these are never believed.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Any

from retrodict.core.clock import from_micros, to_micros
from retrodict.core.durations import DAY, SECOND, parse_duration
from retrodict.core.errors import IntegrityError, NotFoundError, RefusedError, RetrodictError
from retrodict.core.identity import canonical_json, digest
from retrodict.features.catalogue.tables import newest_versions
from retrodict.learning.environment import environment_bytes
from retrodict.learning.pipeline.child import Child
from retrodict.learning.pipeline.definitions import Pipeline, PipelineStep
from retrodict.learning.pipeline.keys import KeyMaker, Parts, contents, differences
from retrodict.learning.pipeline.leases import Lease, Leases
from retrodict.learning.runs import Artifact, Run, fail_run, finish_run, list_runs, start_run
from retrodict.workspace import Workspace, capture_code, definitions_of

__all__ = ["Effect", "RunOptions", "StepReport", "end_of", "run_pipeline", "step_runs", "steps_of"]

_COMMAND = (sys.executable, "-P", "-m", "retrodict.learning.pipeline.child")
_ELSEWHERE = "another run executes it"
_POLL_S, _WAIT_S, _LONGEST_S = 0.02, 0.2, 300.0
_ENDS = {"ProcessLost": "killed", "KeyboardInterrupt": "interrupted"}


@dataclass(frozen=True)
class Effect:
    """What the project says of a step that is a noun of it.

    Attributes
    ----------
    state : callable
        Takes the partition and the versions that trainings before it made, by model; returns what the step depends
        on by name. Asked when its turn comes.
    standing : callable
        Takes the output of a former execution; returns why that does no longer stand, empty where it does.
    """

    state: Callable[[str, Mapping[str, str]], Mapping[str, str]] = lambda _partition, _trained: {}
    standing: Callable[[Mapping[str, Any]], str] = lambda _output: ""


@dataclass(frozen=True)
class RunOptions:
    """What is asked of one run.

    Attributes
    ----------
    only : sequence of str
        Steps to execute; others give their last result. All, where it is empty.
    force : bool
        Whether to execute what is unchanged, too.
    partitions : sequence of str
    parallel : int
        Steps at a time.
    """

    only: Sequence[str] = ()
    force: bool = False
    partitions: Sequence[str] = ()
    parallel: int = 1


@dataclass
class StepReport:
    """What became of one step in a run.

    Attributes
    ----------
    step, partition : str
    status : str
        ``finished``, ``skipped``, ``failed``, ``refused``, ``not run``.
    reason : str
        Why it was executed, or not.
    error : str
        Kind and text of the error; the text of others than the package's own is left out, which may hold data.
    trace : list of str
        Places in the project's code that led to it.
    run : str
        Run that made the result.
    seconds : float, optional
    attempts : int
    facts : dict
        What a noun says of its effect: rows in quarantine of an ingest, metrics and gates of a training.
    """

    step: str
    partition: str = ""
    status: str = "waiting"
    reason: str = ""
    error: str = ""
    trace: list[str] = field(default_factory=list)
    run: str = ""
    seconds: float | None = None
    attempts: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def take(self, output: Mapping[str, Any]) -> None:
        """Show what an output says of itself."""
        self.facts = output.get("effect", {})
        self.reason = "; ".join(filter(None, (self.reason, self.facts.get("note"))))

    @property
    def label(self) -> str:
        """Name, and the partition in brackets."""
        return f"{self.step}[{self.partition}]" if self.partition else self.step


@dataclass(eq=False)
class _Task:
    """One step of one partition, on its way."""

    part: PipelineStep
    report: StepReport
    needs: list[_Task] = field(default_factory=list)
    output: dict[str, Any] | None = None
    parts: Parts = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, str] = field(default_factory=dict)
    run: Run | None = None
    lease: Lease | None = None
    child: Child | None = None
    wake: float = 0.0
    began: float = 0.0

    @property
    def good(self) -> bool:
        return self.report.status in ("finished", "skipped")


def step_runs(workspace: Workspace, pipeline: str, label: str, *, key: str | None = None, limit: int = 1) -> list[Run]:
    """Finished executions of a step, newest first, of one key where one is given."""
    name = f"{pipeline}.{label}".replace("'", "''")
    where = f"name = '{name}' and status = 'finished'" + (f" and params.key = '{key}'" if key else "")
    return list_runs(workspace, where=where, kinds=("step",), limit=limit)


def end_of(run: Run) -> str:
    """Status of a run; ``killed`` or ``interrupted`` where it came to no end of its own."""
    return _ENDS.get(run.summary.get("error", ""), run.status)


def steps_of(workspace: Workspace, run: Run) -> list[dict[str, Any]]:
    """What became of the steps in a run of a pipeline: as its end says, or without one as their own runs say."""
    if "steps" in run.summary:
        return list(run.summary["steps"])
    parts = list_runs(workspace, where=f"parent = '{run.id}'", kinds=("step",), order="started")
    return [{"step": part.params["step"], "partition": part.params["partition"],
             "status": part.summary.get("result") or end_of(part), "reason": part.summary.get("reason", ""),
             "run": part.ref, "seconds": part.seconds} for part in parts]  # fmt: skip


def run_pipeline(
    workspace: Workspace,
    pipeline: Pipeline,
    graph: Mapping[str, Sequence[str]],
    effects: Mapping[str, Effect],
    command: Sequence[str],
    options: RunOptions,
    progress: Callable[[str, int, int], None],
) -> tuple[Run, list[StepReport]]:
    """Run a pipeline once.

    Parameters
    ----------
    workspace : Workspace
    pipeline : Pipeline
    graph : mapping of str to sequence of str
        What each step needs, by name, in an order of execution.
    effects : mapping of str to Effect
        Of the steps that are nouns.
    command : sequence of str
        Starts the process of a step that is a noun.
    options : RunOptions
    progress : callable
        Called with (what, done, total).

    Returns
    -------
    Run, list of StepReport
    """
    runner = _Runner(workspace, pipeline, effects, command, options)
    runner.plan(graph)
    start_run(workspace, runner.run)
    try:
        with runner.leases.renewing(runner.run.id):
            runner.execute(progress)
    except BaseException as error:
        runner.close(error)
        raise
    return runner.finish(), [task.report for task in runner.tasks]


class _Runner:
    def __init__(
        self, workspace: Workspace, pipeline: Pipeline, effects: Mapping[str, Effect], command: Sequence[str],
        options: RunOptions,
    ) -> None:  # fmt: skip
        self._workspace, self._effects, self._command, self._options = workspace, effects, command, options
        code = capture_code(workspace)
        self._pipeline = definitions_of(workspace, code).get(Pipeline, pipeline.name)  # as it stays, whatever is edited
        self._keys = KeyMaker(workspace, code)
        self.leases = Leases(workspace, pipeline.name)
        self.tasks: list[_Task] = []
        now, identity = workspace.clock.now(), workspace.new_id()
        params = {
            "pipeline": pipeline.name, "definition": pipeline.version, "partitions": list(options.partitions),
            "origin": self._origin(now) or identity, "only": list(options.only), "force": options.force,
        }  # fmt: skip
        self.run = Run(
            identity, "", "running", workspace.actor, now, 0, code,
            workspace.objects.put(environment_bytes(project=workspace.root)), {"versions": {}}, params,
            kind="pipeline", name=pipeline.name,
        )  # fmt: skip
        self._began = time.perf_counter()
        self._folder = workspace.root / "state" / "pipelines" / identity

    def _origin(self, now: int) -> str | None:
        """The run that was killed and that this one goes on with: of today, and of the same time of the schedule."""
        where = f"name = '{self._pipeline.name}'"
        for former in list_runs(self._workspace, where=where, kinds=("pipeline",), limit=1):
            killed = end_of(former) in _ENDS.values()
            same = former.params["partitions"] == list(self._options.partitions) and now - former.started < DAY
            ticked = self._pipeline.schedule is not None and (
                to_micros(self._pipeline.next_time(from_micros(former.started))) <= now)  # fmt: skip
            if killed and same and not ticked:
                return str(former.params["origin"])
        return None

    def plan(self, graph: Mapping[str, Sequence[str]]) -> None:
        """Make a task of each step and partition."""
        by_step: dict[str, list[_Task]] = {}
        for name, needs in graph.items():
            places = self._options.partitions if name in self._pipeline.partitioned else ("",)
            by_step[name] = [_Task(self._pipeline.step(name), StepReport(name, place)) for place in places]
            for task in by_step[name]:
                # What is fed by a partition needs that one; what is not needs all of them.
                task.needs = [other for need in needs for other in by_step[need]
                              if not (task.report.partition and other.report.partition)
                              or task.report.partition == other.report.partition]  # fmt: skip
        self.tasks = [task for tasks in by_step.values() for task in tasks]

    def execute(self, progress: Callable[[str, int, int], None]) -> None:
        """Execute what needs it, as many steps at a time as asked for."""
        places = {task: place for place, task in enumerate(self.tasks)}
        sorter = TopologicalSorter({task: task.needs for task in self.tasks})
        sorter.prepare()
        ready: list[_Task] = []
        active: list[_Task] = []
        done = 0
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=places.__getitem__)
            while ready and len(active) < self._options.parallel:
                active.append(ready.pop(0))
                progress(f"{self._pipeline.name}: {active[-1].report.label}", done, len(self.tasks))
            for task in list(active):
                reason = task.report.reason
                self._advance(task)
                if task.report.reason == _ELSEWHERE != reason:
                    progress(f"{self._pipeline.name}: {task.report.label}, {_ELSEWHERE}", done, len(self.tasks))
                if task.report.status != "waiting":
                    active.remove(task)
                    sorter.done(task)
                    done += 1
            if active and all(task.report.status == "waiting" for task in active):
                time.sleep(_POLL_S)

    def _advance(self, task: _Task) -> None:
        """Take one task as far as it goes without waiting."""
        if task.wake > time.monotonic():
            return
        try:
            if task.lease is None:
                self._decide(task)
            elif task.lease in self.leases.lost:
                self._lose(task)
            elif task.child is None:
                self._start(task)
            elif (result := task.child.poll()) is not None:
                self._end(task, task.child, result)
        except RetrodictError as error:
            if task.lease is not None:  # a store that takes nothing: not this step's fault
                raise
            status = "refused" if isinstance(error, RefusedError) else "failed"
            task.report.status, task.report.error = status, f"{type(error).__name__}: {error}"

    # whether it is executed -------------------------------------------------------------------------------------------

    def _decide(self, task: _Task) -> None:
        report = task.report
        missing = [need for need in task.needs if not need.good and self._counts(need, task)]
        if self._options.only and report.step not in self._options.only:
            self._take_last(task)
        elif missing:
            report.status = "not run"
            report.reason = f"it needs {', '.join(f'{need.report.label} ({need.report.status})' for need in missing)}"
        elif report.reason == _ELSEWHERE or not self._skips(task):
            run = replace(self.run, id=self._workspace.new_id(), kind="step", parent=self.run.id,
                          name=f"{self._pipeline.name}.{report.label}", started=self._workspace.clock.now(), params={
                              "pipeline": self._pipeline.name, "step": report.step, "partition": report.partition,
                              "origin": self.run.params["origin"], "key": self._key(task)},
                          data={"versions": self._versions(task)})  # fmt: skip
            lease = self.leases.acquire(report.step, report.partition, run.id)
            if lease is None:
                report.reason, task.wake = _ELSEWHERE, time.monotonic() + _WAIT_S
                return
            if self._skips(task):  # another run recorded it between the first look and the lease
                with self._workspace.records.write() as connection:
                    self.leases.release(connection, lease)
                self.leases.forget(lease)
                return
            task.run, task.lease = run, lease
            start_run(self._workspace, run)

    def _counts(self, need: _Task, task: _Task) -> bool:
        """Whether a step is held up by another: with ``only`` by what it takes, and by what is executed beside it."""
        only = self._options.only
        return (
            not only
            or need.report.step in only
            or f"step:{need.report.step}" in self._pipeline.sources(task.part).values()
        )

    def _take_last(self, task: _Task) -> None:
        """Take the last result of a step that is not asked for."""
        last = step_runs(self._workspace, self._pipeline.name, task.report.label)
        if last:
            self._take(task, last[0], "not asked for: its last result")
        else:
            task.report.status, task.report.reason = "not run", "not asked for, and it has no result"

    def _take(self, task: _Task, run: Run, reason: str) -> None:
        task.output, task.report.run = run.summary["output"], run.ref
        task.report.status, task.report.reason = "skipped", reason
        task.report.take(run.summary["output"])

    def _skips(self, task: _Task) -> bool:
        """Whether a former result stands; otherwise the report says why not."""
        self._look_up(task)
        if self._options.force:
            task.report.reason = "forced"
            return False
        label, origin = task.report.label, self.run.params["origin"]
        last, key = step_runs(self._workspace, self._pipeline.name, label), self._key(task)
        same = last
        if last and last[0].params["key"] != key:
            same = step_runs(self._workspace, self._pipeline.name, label, key=key)
        if not same:
            changes = differences(last[0].summary["parts"], task.parts, self._workspace.objects) if last else []
            task.report.reason = "; ".join(changes) or "first execution"
            return False
        if same[0].summary["volatile"] and same[0].params["origin"] != origin:
            task.report.reason = "its result depends on the time"
            return False
        output = same[0].summary["output"]
        fault = self._fault(output) or self._effect(task).standing(output)
        if fault:
            task.report.reason = fault
            return False
        self._take(task, same[0], "unchanged")
        return True

    def _effect(self, task: _Task) -> Effect:
        return self._effects.get(task.report.step, Effect())

    def _look_up(self, task: _Task) -> None:
        """Take down what the step would be executed with."""
        outputs = {need.report.step: need.output for need in task.needs}
        for name, source in self._pipeline.sources(task.part).items():
            kind, _, label = source.partition(":")
            if kind == "step":
                task.inputs[name] = outputs[label]
            else:
                versions = newest_versions(self._workspace.tables, [label], where=f"step {task.report.step}")
                task.inputs[name] = {"table": f"{label}@{versions[label]}"}
        inputs = {name: entry for name, entry in task.inputs.items() if entry is not None}
        partition, state = task.report.partition, {}
        for name in task.part.files:
            state.update(contents(self._workspace.root, name.replace("{partition}", partition)))
        models = [need.output["effect"]["model"] for need in task.needs if need.part.noun == "train" and need.output]
        task.trained = {ref.partition("@")[0]: ref for ref in models}
        state.update(self._effect(task).state(partition, task.trained))
        task.parts = self._keys.parts(task.part, inputs, partition, state)

    def _key(self, task: _Task) -> str:
        return digest(canonical_json(task.parts))

    def _versions(self, task: _Task) -> dict[str, int]:
        tables = [entry["table"].partition("@") for entry in task.inputs.values() if "table" in entry]
        return {name: int(version) for name, _, version in tables}

    def _fault(self, output: Mapping[str, Any]) -> str:
        """What is wrong with a stored output; every byte is verified."""
        try:
            self._workspace.objects.get(output["digest"])
        except NotFoundError:
            return "its output is gone"
        except IntegrityError:
            return "its output is damaged"
        return ""

    # how it is executed -----------------------------------------------------------------------------------------------

    def _start(self, task: _Task) -> None:
        assert task.lease is not None
        report = task.report
        report.attempts += 1
        # By place, as the names of partitions may hold anything, "a/b" beside "a_b".
        name = f"{report.step}-{self.tasks.index(task)}"
        command = self._command if task.part.noun else _COMMAND
        task.child = Child(command, task.part, self._folder, name, self._workspace.root)
        task.began = task.began or time.perf_counter()
        self.leases.hand_over(task.lease, task.child.pid)
        task.child.begin({
            "folder": str(self._workspace.root), "actor": self._workspace.actor, "code": self.run.code,
            "pipeline": self._pipeline.name, "step": report.step, "partition": report.partition, "inputs": task.inputs,
            "trained": task.trained,
        })  # fmt: skip

    def _end(self, task: _Task, child: Child, result: dict[str, Any]) -> None:
        """Record a result, or try again after a while."""
        report, task.child = task.report, None
        if result["status"] == "failed" and report.attempts <= task.part.retries:
            longest = parse_duration(task.part.pause, where="pause") / SECOND * 2 ** (report.attempts - 1)
            task.wake = time.monotonic() + random.uniform(0, min(longest, _LONGEST_S))  # noqa: S311  # jitter
            return
        assert task.run is not None and task.lease is not None  # noqa: PT018
        report.seconds = time.perf_counter() - task.began
        error: dict[str, Any] = {name: result[name] for name in ("error", "message", "trace") if name in result}
        output = result.get("output")
        run = replace(
            task.run, status="finished" if result["status"] == "finished" else "failed",
            finished=self._workspace.clock.now(), seconds=report.seconds,
            summary={"parts": task.parts, "output": output, "volatile": result.get("volatile", False),
                     "attempts": report.attempts, "reason": report.reason, "result": result["status"], **error},
            artifacts=[Artifact("output", output["digest"], f"application/x-{output['kind']}")] if output else [],
        )  # fmt: skip
        try:
            with self._workspace.ledger.transaction() as tx:
                self.leases.release(tx.connection, task.lease)
                finish_run(tx, run)
        except RefusedError:
            self._lose(task)
            return
        self.leases.forget(task.lease)
        report.status, report.run, task.output = result["status"], run.ref, output
        report.take(output or {})
        if error:
            report.error = ": ".join(filter(None, (result["error"], result["message"])))
            report.trace = [*result["trace"], f"log: {child.log.relative_to(self._workspace.root)}"]

    def _lose(self, task: _Task) -> None:
        """Leave a step to the process that has taken its lease; its result will be taken."""
        assert task.run is not None and task.lease is not None  # noqa: PT018
        if task.child is not None:
            task.child.kill()
        self.leases.forget(task.lease)
        fail_run(self._workspace, task.run, "LeaseLost")
        task.child = task.lease = task.run = None
        task.report.reason, task.wake = _ELSEWHERE, time.monotonic() + _WAIT_S

    # how it ends ------------------------------------------------------------------------------------------------------

    def finish(self) -> Run:
        """Record the end of the run."""
        failures = [task.report for task in self.tasks if task.report.status in ("failed", "refused", "not run")]
        facts = [{"step": r.step, "partition": r.partition, "status": r.status, "reason": r.reason, "run": r.run,
                  "seconds": r.seconds, "attempts": r.attempts, "error": r.error}
                 for r in (task.report for task in self.tasks)]  # fmt: skip
        error = {"error": f"{failures[0].label}: {failures[0].status}"} if failures else {}
        run = replace(self.run, status="failed" if failures else "finished", finished=self._workspace.clock.now(),
                      seconds=time.perf_counter() - self._began, summary={"steps": facts, **error})  # fmt: skip
        with self._workspace.ledger.transaction() as tx:
            finish_run(tx, run)
        return run

    def close(self, error: BaseException) -> None:
        """End what still runs, and record that nothing came of it."""
        for task in self.tasks:
            if task.child is not None:
                task.child.kill()
            if task.run is not None and task.report.status == "waiting":
                with suppress(RetrodictError):
                    fail_run(self._workspace, task.run, type(error).__name__)
            if task.lease is not None and task.report.status == "waiting":
                with suppress(RetrodictError), self._workspace.records.write() as connection:
                    self.leases.release(connection, task.lease)
        try:
            fail_run(self._workspace, self.run, type(error).__name__)
        except RetrodictError as failure:
            error.add_note(f"{self.run.ref} is still open: {failure} It is closed once this process has ended.")
