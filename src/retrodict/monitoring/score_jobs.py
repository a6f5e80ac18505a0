"""Jobs of scores, watched as decisions are: how each differs from the version's own rows and from the job before.

A job keeps the counts of its scores and features in the bins of the version's profiles, so nothing is read again for
drift, and two jobs of one version compare exactly. Quality needs the rows: it is read from what the job wrote, as long
as that is there and unaltered, and joined with what the label's table knows by now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from retrodict.core.display import Block, Grid, Record, Shown, number, when
from retrodict.core.errors import InputError
from retrodict.core.identity import digest_file
from retrodict.core.statistics.drift import DriftVerdict, judge, judge_features
from retrodict.evaluation.metrics import Metric, evaluate, primary
from retrodict.evaluation.reference import BlockCounts, FeatureReference
from retrodict.features.labels import Label
from retrodict.learning.runs import get_run
from retrodict.learning.score_delta import open_output
from retrodict.ledger import Entry
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.monitoring.drift import read_reference, reference_blocks
from retrodict.outcomes.arrivals import ARRIVED
from retrodict.outcomes.keys import join_key_sql
from retrodict.outcomes.status import coded_facts, label_facts, visible_facts
from retrodict.registry import ModelVersion, get_version, list_versions
from retrodict.stores.sql import query
from retrodict.workspace import Workspace, definitions_of

__all__ = ["JobScores", "ScoreHistory", "score_history"]


@dataclass(frozen=True, slots=True)
class JobScores(Record):
    """One job.

    Attributes
    ----------
    job, model : str
    time : int
        When it ended: microseconds since 1970-01-01 UTC.
    rows, scored, aside : int
    against_test, against_before : mapping of str to DriftVerdict
        Of each output: against the version's test rows, and against the job before it of the same version.
    features : mapping of str to DriftVerdict
        Against the training rows; of up to some thousand rows of each chunk.
    labelled : int
        Scored rows whose outcome is known by now.
    quality : Metric
        The metric that the task is judged by, or why there is none.
    test : float or None
        The same metric of the test rows.
    """

    job: str
    model: str
    time: int
    rows: int
    scored: int
    aside: int
    against_test: Mapping[str, DriftVerdict] = field(default_factory=dict)
    against_before: Mapping[str, DriftVerdict] = field(default_factory=dict)
    features: Mapping[str, DriftVerdict] = field(default_factory=dict)
    labelled: int = 0
    quality: Metric = field(default_factory=lambda: Metric("", None, "nothing was counted when it ran", 0))
    test: float | None = None

    @property
    def drifted(self) -> list[str]:
        """Outputs and features that drifted from the version's own rows."""
        return [name for name, verdict in {**self.against_test, **self.features}.items() if verdict.status == "drift"]


@dataclass(frozen=True, slots=True, repr=False)
class ScoreHistory(Shown):
    """Jobs of a model, the newest last.

    Attributes
    ----------
    model : str
    now : int
        As of when outcomes are known.
    jobs : tuple of JobScores
    """

    model: str
    now: int
    jobs: tuple[JobScores, ...]

    @property
    def ok(self) -> bool:
        """Whether the scores of the newest job did not drift from the test rows."""
        return not self.jobs or all(one.status != "drift" for one in self.jobs[-1].against_test.values())

    def blocks(self) -> Sequence[Block | None]:
        """One line per job, then why."""
        columns = ("job", "ended?", "model", "scored>", "aside>", "PSI to test rows", "PSI to job before",
                   "features drifted", "known>", "quality", "on test rows>")  # fmt: skip
        rows = [
            (job.job[:16], when(job.time), job.model, job.scored, job.aside, _worst(job.against_test),
             _worst(job.against_before), ", ".join(name for name in job.drifted if name in job.features)[:60],
             job.labelled, _shown(job.quality), number(job.test))
            for job in self.jobs
        ]  # fmt: skip
        reasons = [(job.job[:16], name, {**job.against_test, **job.features}[name].reason)
                   for job in self.jobs[-1:] for name in job.drifted]  # fmt: skip
        return [Grid(columns, rows, title=f"{self.model}, batch scores") if rows else "There is no job of scores yet.",
                Grid(("newest job", "drifted", "why"), reasons) if reasons else None]  # fmt: skip


def score_history(
    workspace: Workspace, ref: str, *, now: int, last: int = 10, threshold: float = 0.25, min_labels: int = 100
) -> ScoreHistory:
    """Compare the jobs of a model, or of one version, with its test and training rows and with each other.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``name`` or ``name@version``.
    now : int
        As of when outcomes are known: microseconds since 1970-01-01 UTC.
    last : int, default 10
        So many of the newest jobs.
    threshold : float, default 0.25
        Smallest index that counts as drift.
    min_labels : int, default 100
        With fewer known outcomes quality is not evaluable.
    """
    versions = {ref} if "@" in ref else {version.ref for version in list_versions(workspace, ref)}
    entries = [entry for entry in workspace.ledger.entries(action="scores.write")
               if entry.payload.get("model") in versions and entry.time <= now]  # fmt: skip
    sides: dict[str, _Side] = {}
    jobs, before = list[JobScores](), dict[str, Mapping[str, Any]]()
    for place, entry in enumerate(entries):
        facts = entry.payload
        name = facts["model"]
        counts = json.loads(workspace.objects.get(facts["seen"]))
        if place >= len(entries) - last:
            side = sides.setdefault(name, _Side.of(workspace, get_version(workspace, name)))
            job = side.judge(entry, counts, before.get(name), threshold)
            jobs.append(side.measure(workspace, job, facts, now=now, min_labels=min_labels))
        before[name] = counts["counts"]
    return ScoreHistory(ref, now, tuple(jobs))


@dataclass(frozen=True, slots=True)
class _Side:
    """What a version says of its own rows."""

    version: ModelVersion
    artifact: ModelArtifact
    model: Model
    reference: Mapping[str, FeatureReference]

    @classmethod
    def of(cls, workspace: Workspace, version: ModelVersion) -> _Side:
        artifact = ModelArtifact.load(workspace.objects, version.artifact)
        run, profiles = get_run(workspace, version.run), read_reference(workspace.objects, artifact.metadata)
        model = definitions_of(workspace, run.code).get(Model, run.model)
        return cls(version, artifact, model, {} if profiles is None else profiles.features)

    def judge(
        self, entry: Entry, seen: Mapping[str, Any], before: Mapping[str, Any] | None, threshold: float
    ) -> JobScores:
        """Verdicts on what a job counted."""
        facts, span = entry.payload, seen["span"]
        pairs = {}
        for name, body in seen["counts"].items():
            profiled, blocks = self.reference[name], BlockCounts.from_dict(body)
            pairs[name] = profiled.counts[None], blocks.counts.sum(0)[None]
            if span is not None and profiled.blocks is not None:  # the noise of spans as long as this one
                first, length = span[0], span[1] + 1 - span[0]
                counts, pieces = reference_blocks(profiled.blocks, profiled.counts, (first, first + length))
                parts = np.zeros((pieces, counts.shape[1]), dtype=np.int64)
                places = (blocks.starts + blocks.length // 2 - first) * pieces // length
                np.add.at(parts, np.clip(places, 0, pieces - 1), blocks.counts)
                pairs[name] = counts, parts
        outputs = [name for name in pairs if name == "score" or name.startswith("output__")]
        features = {name: pair for name, pair in pairs.items() if name not in outputs}
        return JobScores(
            facts["job"], facts["model"], entry.time, facts["rows"], facts["scored"], facts["aside"],
            {name: judge(*pairs[name], threshold=threshold) for name in outputs},
            {name: judge(BlockCounts.from_dict(before[name]).counts.sum(0), pairs[name][1].sum(0), threshold=threshold)
             for name in outputs if before is not None and name in before},
            judge_features(features, threshold=threshold),
        )  # fmt: skip

    def measure(
        self, workspace: Workspace, job: JobScores, facts: Mapping[str, Any], *, now: int, min_labels: int
    ) -> JobScores:
        """Add what the outcomes that are known by now say of the scores."""
        metric = primary(self.artifact.target)[0]
        test = self.artifact.metadata.get("test_metrics", {}).get(metric)
        try:
            labels, outputs = self._labelled(workspace, facts, now)
        except InputError as error:
            return replace(job, quality=Metric(metric, None, error.rule, 0), test=test)
        quality = evaluate(labels, outputs, self.artifact.target, min_rows=min_labels)[metric]
        return replace(job, labelled=len(labels), quality=quality, test=test)

    def _labelled(self, workspace: Workspace, facts: Mapping[str, Any], now: int) -> tuple[Any, Any]:
        """Labels that are known, and the outputs beside them."""
        label, target = self.model.label, self.artifact.target
        if not isinstance(label, Label) or label.horizons:
            raise _unknown("the label must be a column of the rows' own table", type(label).__name__)
        files = open_output(facts["output"]).of(facts["job"]).files()
        if not files or [digest_file(file) for file in files] != facts["sha256"]:
            raise _unknown("what the job wrote must be there, unaltered", len(files))
        names = [*label.table.key, *target.outputs]
        dataset = pads.dataset([str(file) for file in files], format="csv" if files[0].suffix == ".csv" else "parquet")
        if absent := [name for name in names if name not in dataset.schema.names]:
            raise _unknown("the output must have the key of the label's table", absent)
        rows = dataset.to_table(columns=list(dict.fromkeys(names)))
        keys = query(f"SELECT {join_key_sql(label.table, rows.schema)} AS key FROM rows", rows=rows)
        keys = keys.append_column("id", pa.nulls(rows.num_rows, pa.string()))
        keys = keys.append_column("time", pa.array(np.zeros(rows.num_rows, np.int64)))
        labels, _ = label_facts(workspace, self.model, label, target, None, now)
        arrived = coded_facts(self.model, target, ARRIVED.empty_table())
        seen = visible_facts(keys, labels, arrived, now)
        seen = seen.filter(seen.column("label").is_valid())
        outputs = np.column_stack([np.asarray(rows.column(name), dtype=np.float64) for name in target.outputs])
        outputs = outputs[seen.column("position").to_numpy()]
        return np.asarray(seen.column("label")), outputs[:, 0] if outputs.shape[1] == 1 else outputs


def _unknown(rule: str, got: object) -> InputError:
    return InputError(rule, where="quality of a job", got=got, remedy="Score the rows again into a file that stays")


def _worst(verdicts: Mapping[str, DriftVerdict]) -> str:
    """The verdict of the output that is furthest off."""
    if not verdicts:
        return ""
    verdict = max(verdicts.values(), key=lambda one: one.psi or -1.0)
    return verdict.status if verdict.psi is None else f"{verdict.psi:.3g} {verdict.status}"


def _shown(metric: Metric) -> str:
    if metric.value is None:
        return metric.reason or ""
    span = "" if metric.low is None or metric.high is None else f" ({number(metric.low)} to {number(metric.high)})"
    return f"{metric.name} {number(metric.value)}{span}"
