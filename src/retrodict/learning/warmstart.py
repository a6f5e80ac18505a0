"""Training on from a version: which it is, whether it fits, what it knows of the rows that judge, what it brought.

A version that has seen the rows that judge looks better than it is. So the rows that it and those before it learned
from are found again in the rows as they are now (:mod:`~retrodict.learning.ties`), and such a start is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError
from retrodict.core.statistics.drift import judge_features
from retrodict.evaluation.compare import compare_outputs
from retrodict.evaluation.losses import LOSSES, row_losses
from retrodict.evaluation.reference import BlockCounts, FeatureReference, Reference, feature_column
from retrodict.learning.frame import Frame, build_frame
from retrodict.learning.recipes import Progress, Trained, run_recipe, without_spans
from retrodict.learning.runs import MetricPoint, Run, get_run
from retrodict.learning.ties import RowTies
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.models.inputs import InputSpec
from retrodict.models.splits import split_from_dict
from retrodict.models.warmstart import WarmStart
from retrodict.registry import current, get_version
from retrodict.workspace import Workspace, definitions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]

__all__ = ["Predecessor", "start_facts", "start_of", "start_points"]

_SHIFT = 0.25  # index from which monitoring says that a feature has drifted
_NONE = np.empty(0, dtype=np.int64)


def start_facts(workspace: Workspace, model: Model) -> dict[str, Any] | None:
    """Version that a model begins from, as its run keeps it; None: from nothing.

    Raises
    ------
    NotFoundError
        If there is no such version, or none in force.
    """
    start = model.recipe.start_from
    if not isinstance(start, WarmStart):
        return None
    ref = start.version
    if ref == "champion":
        deployed = [revision.deployment.model for revision in current(workspace).values()]
        deployed = [name for name in deployed if name.partition("@")[0] == model.name]
        if not deployed:
            raise NotFoundError("a version of the model must be in force", where=f"model {model.name}, start_from",
                                got="none", remedy="Deploy one, or name a version")  # fmt: skip
        ref = deployed[-1]
    version = get_version(workspace, ref)
    layers = None if start.layers is None else list(start.layers)
    artifact = _load(workspace, version.ref, version.artifact)
    return {**asdict(start), "layers": layers, "version": version.ref, "run": version.run,
            "artifact": version.artifact, "fingerprint": artifact.fingerprint()}  # fmt: skip


def start_of(facts: Mapping[str, Any]) -> WarmStart:
    """The definition in what a run keeps."""
    return WarmStart(**{name: facts[name] for name in WarmStart.__dataclass_fields__})


def _load(workspace: Workspace, ref: str, artifact: str) -> ModelArtifact:
    try:
        return ModelArtifact.load(workspace.objects, artifact)
    except (NotFoundError, IntegrityError) as error:
        raise IntegrityError("the version that a training begins from must be stored as it was", where=ref,
                             got=str(error), remedy="Restore the object store from a backup") from error  # fmt: skip


@dataclass(frozen=True, eq=False)
class Predecessor:
    """The version that a training begins from.

    Attributes
    ----------
    facts : mapping
        Of :func:`start_facts`.
    artifact : ModelArtifact
        Read from the object store, verified; it is never changed.
    """

    facts: Mapping[str, Any]
    artifact: ModelArtifact

    @classmethod
    def of(cls, workspace: Workspace, facts: Mapping[str, Any]) -> Predecessor:
        """Read the version; IntegrityError names one that is gone or altered."""
        return cls(facts, _load(workspace, facts["version"], facts["artifact"]))

    @property
    def ref(self) -> str:
        """``name@version``."""
        return str(self.facts["version"])

    def check(
        self,
        workspace: Workspace,
        model: Model,
        frame: Frame,
        parts: Mapping[str, Positions],
        versions: Mapping[str, int],
    ) -> tuple[tuple[str, ...], Positions]:
        """Refuse a version that does not fit, or has seen what judges.

        Returns
        -------
        tuple of str, ndarray of int64
            What somebody should know, in sentences; and positions of the version's old test rows that take no part in
            this training but to judge.

        Raises
        ------
        InputError
            If task, classes, features or constraints are others.
        RefusedError
            If it has learned from rows that choose or judge, or from later ones; or if features have shifted.
        """
        run = get_run(workspace, self.facts["run"])
        self._check_definition(model, frame, parts, run)
        sentences, old = self._check_rows(workspace, model, frame, parts, versions, run)
        return (*self._unseen(frame, parts), *self._check_shift(workspace, frame, parts), *sentences), old

    def _check_definition(self, model: Model, frame: Frame, parts: Mapping[str, Positions], run: Run) -> None:
        """Same task and classes, same features in the same order and of the same kinds, no new promise."""
        where = f"model {model.name}, start_from {self.ref}"
        before, after = self.artifact.target, frame.target
        if before != after:
            got = (before.task, after.task) if before.task != after.task else sorted(
                {*before.classes} ^ {*after.classes})[:5] or "other quantiles or order"  # fmt: skip
            raise InputError("a version to begin from must predict the same: task, classes and levels", where=where,
                             got=got, remedy="Train from nothing, or from a version of this task")  # fmt: skip
        learned = InputSpec.learn(frame.columns(parts["train"]), model.recipe.types)
        pairs = [[(feature.name, feature.type) for feature in spec.features]
                 for spec in (self.artifact.inputs, learned)]  # fmt: skip
        if pairs[0] != pairs[1]:
            different = sorted({*pairs[0]} ^ {*pairs[1]})[:5] or "another order"
            raise InputError("a version to begin from must read the same features, in order and kind", where=where,
                             got=different, remedy="Train from nothing")  # fmt: skip
        signs, former = model.recipe.params.get("monotone") or {}, run.params.get("monotone") or {}
        if any(sign and former.get(name) != sign for name, sign in signs.items()):
            raise InputError("a version to begin from must keep what monotone says", where=where, got=dict(former),
                             remedy="Train from nothing: its trees rise and fall as they like")  # fmt: skip

    def _unseen(self, frame: Frame, parts: Mapping[str, Positions]) -> Iterator[str]:
        """Categories of the training rows that the version has no code for."""
        columns = frame.columns(parts["train"])
        matrix = self.artifact.inputs.encode_columns(columns)
        for at in self.artifact.inputs.categorical:
            feature = self.artifact.inputs.features[at]
            count = int(np.isnan(matrix[:, at]).sum()) - columns[feature.name].null_count
            if count > 0:
                yield (
                    f"Feature {feature.name!r} has categories that {self.ref} has no code for, in {count:,} of the "
                    f"{len(matrix):,} training rows: they count as unseen. Train from nothing to learn them."
                )

    def _check_shift(self, workspace: Workspace, frame: Frame, parts: Mapping[str, Positions]) -> Iterator[str]:
        """Refuse features whose distribution is another one than the version learned from, unless told why not."""
        if (profiles := self.artifact.metadata.get("profiles")) is None:
            yield f"{self.ref} carries no profiles of its training rows: whether features have shifted is not known."
            return
        reference = Reference.from_json(workspace.objects.get(profiles)).features
        times = frame.at[parts["train"]] if frame.timed else None
        counts = {name: _counts(reference[feature_column(name)], column, times)
                  for name, column in frame.columns(parts["train"]).items()}  # fmt: skip
        verdicts = judge_features(counts, threshold=_SHIFT)
        shifted = {name: round(float(v.psi or 0.0), 3) for name, v in verdicts.items() if v.status == "drift"}
        if not shifted:
            return
        worst = dict(sorted(shifted.items(), key=lambda item: -item[1])[:5])
        if not self.facts["force"]:
            raise RefusedError(
                f"training rows must be distributed as those of {self.ref}: an index of stability below {_SHIFT}",
                where="start_from", got=worst,
                remedy="Train from nothing, or say WarmStart(…, force='why it is right to go on')",
            )  # fmt: skip
        yield (f"{len(shifted)} features have shifted since {self.ref} was trained (index of stability {worst}), "
               f"accepted because: {self.facts['force']}")  # fmt: skip

    def _check_rows(  # everything that says which rows were seen
        self,
        workspace: Workspace,
        model: Model,
        frame: Frame,
        parts: Mapping[str, Positions],
        versions: Mapping[str, int],
        run: Run,
    ) -> tuple[list[str], Positions]:
        """Refuse a version that learned from rows that choose or judge, or after they were decided."""
        split, table, sentences = model.recipe.split, model.label.table, list[str]()
        old = _NONE
        seen: dict[str, Positions] = {"validate": _NONE, "test": _NONE}
        ways: dict[str, None] = {}
        for former in _ancestors(workspace, run):
            definition = definitions_of(workspace, former.code).get(Model, former.model)
            definition = definition.with_split(split_from_dict(former.params["split"]))
            past = build_frame(workspace.tables, definition, former.data["versions"], bare=True)
            rows = definition.recipe.split.assign(past, now=former.data["now"])
            # What stopped a fit has chosen little: it may choose again, and must not judge.
            for source, part in (("train", "validate"), ("validate", "test")):
                opens = frame.at[parts[part]].min(initial=np.iinfo(np.int64).max)
                late = int((past.known_at[rows[source]] >= opens).sum()) if split.timed and past.timed else 0
                if late:
                    raise RefusedError(
                        f"a version to begin from must have learned before the {part} rows begin", where=self.ref,
                        got=f"{late:,} of its {len(rows[source]):,} {source} rows whose outcome was known later",
                        remedy="Let the split begin later, or begin from an earlier version",
                    )  # fmt: skip
            theirs = definition.label.table.name
            ties = RowTies(
                workspace.tables, (definition, model), (former.data["versions"][theirs], versions[table.name])
            )
            for source, later in (("train", ("validate", "test")), ("validate", ("test",))):
                for part, way, positions in ties.seen(rows[source], {name: parts[name] for name in later}):
                    seen[part], ways[way] = np.union1d(seen[part], positions), None
            if ties.renamed:
                sentences.append(f"{self.ref} learned from rows of {theirs!r}: whether they tell of the rows of "
                                 f"{table.name!r} that judge is seen by equal rows alone.")  # fmt: skip
            elif former is run and ties.keys:
                same = ties.equal(ties.keys[0], rows["test"])
                old = np.setdiff1d(same, np.concatenate([parts["train"], parts["validate"]]))
        if ways:
            counts = [
                f"{len(rows):,} of the {len(parts[part]):,} {part} rows" for part, rows in seen.items() if len(rows)
            ]
            raise RefusedError(
                "a version to begin from must not have learned from rows that choose or judge", where=self.ref,
                got=f"{', '.join(counts)}, by {' and '.join(ways)}",
                remedy="Split with HashSplit(by=…), whose rows never change side, or in time; or train from nothing",
            )  # fmt: skip
        return sentences, old[~np.isnan(frame.labels[old])]

    def report(  # three models on three kinds of rows
        self,
        model: Model,
        frame: Frame,
        parts: Mapping[str, Positions],
        trained: Trained,
        sentences: tuple[str, ...],
        old: Positions,
        progress: Progress | None,
    ) -> Trained:
        """What was trained, with what the start brought: time, quality on the same rows, what was forgotten."""
        warm, cold = trained.artifact(model.name, {}), None
        body: dict[str, Any] = {"version": self.ref, "loss": LOSSES[frame.target.task],
                                "seconds": {"warm": trained.seconds},
                                "iterations": {"warm": _iterations(trained.params)}}  # fmt: skip
        if self.facts["compare"]:
            anew = run_recipe(model.with_start(None).recipe, frame, parts, ladder=False, progress=progress)
            cold = anew.artifact(model.name, {})
            body["seconds"]["cold"], body["iterations"]["cold"] = anew.seconds, _iterations(anew.params)
        pairs = [(name, parts[name], who, other) for name in ("validate", "test")
                 for who, other in (("cold", cold), ("source", self.artifact)) if other is not None]  # fmt: skip
        pairs.append(("old test", old, "source", self.artifact))
        body["compared"] = [_compared(*pair, warm, frame) for pair in pairs]
        warnings = [*sentences]
        for line in body["compared"]:
            if line["verdict"] == "worse" and line["rows"] != "validate":
                against = "a fit from nothing" if line["against"] == "cold" else self.ref
                forgot = " (it has forgotten)" if line["rows"] == "old test" else ""
                warnings.append(f"Trained on from {self.ref}, the model is worse than {against} on the {line['n']:,} "
                                f"{line['rows']} rows{forgot}: {line['reason']}.")  # fmt: skip
        return replace(trained, notes={**trained.notes, "warm_start": body},
                       warnings=(*trained.warnings, *warnings))  # fmt: skip


def _counts(reference: FeatureReference, column: Any, times: Positions | None) -> tuple[Any, Any]:
    """Counts of both sides; by four blocks of time or more, where there is time: rows near in time are alike."""
    count = reference.profile.count
    if times is None or reference.blocks is None:
        return reference.counts, count(column)
    now = BlockCounts.of(count, column, times)
    length = min(reference.blocks.duration, now.duration) / 4
    return reference.blocks.pooled(length), now.pooled(length)


def _ancestors(workspace: Workspace, run: Run) -> Iterator[Run]:
    """A run, that of the version it began from, and so on: what any of them saw the last one knows."""
    while True:
        yield run
        if (start := run.params.get("start_from")) is None:
            return
        run = get_run(workspace, start["run"])


def _iterations(params: Mapping[str, Any]) -> int | None:
    """How many iterations a fit made up to the one in force, without those it began from; of several fits all."""
    best, begun = params.get("best_iteration"), params.get("started_at", 0)
    if isinstance(best, Mapping):
        return int(sum(best.values()) - (sum(begun.values()) if begun else 0))
    done = params.get("iterations", params.get("n_estimators")) if best is None else best - begun
    return None if done is None else int(done)


def _compared(
    name: str, rows: Positions, who: str, other: ModelArtifact, warm: ModelArtifact, frame: Frame
) -> dict[str, Any]:
    """Loss of two models on the same rows, and the difference with its interval."""
    line = {"rows": name, "against": who, "n": len(rows)}
    if not len(rows):
        return {
            **line,
            "verdict": "not evaluable",
            "reason": "none of them is held out: they train now, or the table has them no more",
        }
    columns, labels = frame.columns(rows), frame.labels[rows]
    groups = None if frame.groups is None else frame.groups[rows]
    after, before = (without_spans(model.score_rows(columns).score, frame.target) for model in (warm, other))
    compared = compare_outputs(champion=before, challenger=after, labels=labels, target=frame.target, groups=groups)
    losses = [float(row_losses(labels, values, frame.target, groups=groups).mean()) for values in (after, before)]
    difference = compared.difference
    return {
        **line, "warm": losses[0], "other": losses[1], "metric": difference.name, "difference": difference.value,
        "low": difference.low, "high": difference.high, "verdict": compared.verdict, "reason": compared.reason,
    }  # fmt: skip


def start_points(notes: Mapping[str, Any]) -> list[MetricPoint]:
    """Metrics of a warm start: seconds and iterations, warm and cold, and differences with their intervals."""
    body = notes.get("warm_start") or {}
    points = [
        MetricPoint("warm_start", f"{name}_{who}", None if value is None else float(value))
        for name in ("seconds", "iterations")
        for who, value in body.get(name, {}).items()
    ]
    for line in body.get("compared", ()):
        if "metric" in line:
            name = f"{line['rows']}_{line['against']}_{line['metric']}".replace(" ", "_")
            points.append(MetricPoint("warm_start", name, line["difference"], 0, line["low"], line["high"]))
    return points
