"""A pipeline as assets of Dagster: it sees, starts and schedules the steps; how one is executed stays as it is.

Each asset runs its step through the project, so that keys, leases, limits and the record are those of every other run,
and an asset whose step is unchanged is materialised in a moment. Running functions in Dagster's own processes was
rejected: there would be two truths about what was done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from retrodict.core.errors import MissingExtraError
from retrodict.learning.pipeline.definitions import Pipeline, PipelineStep
from retrodict.learning.pipeline.partitions import FORMATS, last_over
from retrodict.learning.pipeline.picture import does

__all__ = ["to_dagster"]

_CHECKS = {"ingest": "data_checks", "train": "gates", "verify": "parity", "monitor": "triggers", "replay": "exact",
           "audit": "intact"}  # fmt: skip
"""What a step judges, as the name of a check of its asset."""

_CRON = {"hour": "0 * * * *", "day": "0 0 * * *", "month": "0 0 1 * *", "year": "0 0 1 1 *"}


def to_dagster(pipeline: Pipeline, project: Any, graph: Mapping[str, Sequence[str]], *, start: str) -> Any:
    """Return ``Definitions`` of Dagster: an asset per step, checks of what judges, a job and the schedule.

    Parameters
    ----------
    pipeline : Pipeline
    project : Project
        Opened anew by each asset, in its process.
    graph : mapping of str to sequence of str
        What each step needs.
    start : str
        Day of the first partition.
    """
    try:
        import dagster as dg
    except ImportError as error:
        raise MissingExtraError("dagster", "dagster", needed_for="a pipeline in Dagster") from error
    partitions: Any = None
    if isinstance(pipeline.partitions, str):
        kind = pipeline.partitions
        first = datetime.fromisoformat(start)
        partitions = dg.TimeWindowPartitionsDefinition(start=first, fmt=FORMATS[kind], cron_schedule=_CRON[kind])
    elif pipeline.partitions is not None:
        partitions = dg.StaticPartitionsDefinition(list(pipeline.partitions))
    assets = [_asset(dg, pipeline, pipeline.step(name), needs, project, partitions) for name, needs in graph.items()]
    job = dg.define_asset_job(pipeline.name, selection=dg.AssetSelection.assets(*assets))
    schedules = []
    if pipeline.schedule is not None:

        def request(context: Any) -> Any:
            key = (
                None
                if pipeline.partitions is None
                else last_over(pipeline.partitions, context.scheduled_execution_time)
            )
            return dg.RunRequest(partition_key=key)

        schedules = [dg.ScheduleDefinition(job=job, cron_schedule=pipeline.schedule, execution_fn=request,
                                           execution_timezone=pipeline.timezone)]  # fmt: skip
    return dg.Definitions(assets=assets, jobs=[job], schedules=schedules)


def _asset(dg: Any, pipeline: Pipeline, part: PipelineStep, needs: Sequence[str], project: Any, partitions: Any) -> Any:
    check, opener = _CHECKS.get(part.noun), type(project)
    folder, actor = str(project.folder), project.workspace.actor

    def compute(context):  # type: ignore[no-untyped-def]  # Dagster takes no other annotation than its own
        partition = context.partition_key if context.has_partition_key else None
        with opener(folder, actor=actor, progress=lambda *_: None) as opened:
            run = opened.pipelines.run(pipeline.name, only=[part.name], partition=partition)
            report = next(step for step in run.steps if step.step == part.name)
            facts = {"status": report.status, "reason": report.reason, "run": report.run, "pipeline_run": run.ref}
            output = opened.runs.get(report.run).record.summary.get("output") or {} if report.run else {}
        if check is not None and report.status in ("finished", "skipped", "refused"):
            passed, details = _judge(output, passed=report.status != "refused")
            yield dg.AssetCheckResult(check_name=check, passed=passed, metadata={**details, "error": report.error})
        if report.status in ("finished", "skipped"):
            plain = {name: output[name] for name in ("digest", "kind", "rows", "bytes") if name in output}
            yield dg.MaterializeResult(metadata={**facts, **plain})
        elif check is None or report.status != "refused":
            raise dg.Failure(description=report.error or report.reason, metadata=facts, allow_retries=False)

    specs = [dg.AssetCheckSpec(check, asset=part.name, blocking=True)] if check else None
    return dg.asset(
        name=part.name, deps=list(needs), group_name=pipeline.name, description=does(part), check_specs=specs,
        output_required=check is None, partitions_def=partitions if part.name in pipeline.partitioned else None,
    )(compute)  # fmt: skip


def _judge(output: Mapping[str, Any], *, passed: bool) -> tuple[bool, dict[str, str]]:
    """Verdict of a step and its parts: checks of a batch, gates of a version."""
    effect = output.get("effect", {})
    parts = {
        entry.get("check") or entry["gate"]: entry["status"]
        for entry in effect.get("checks") or effect.get("gates") or ()
    }
    return passed and "fail" not in parts.values(), parts
