"""Training: a run from numbered table versions to a registered model version, everything recorded on the way."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.clock import format_time
from retrodict.core.errors import BusyError, InputError
from retrodict.core.identity import canonical_json
from retrodict.core.kinds import request_word
from retrodict.data.columns import check_names
from retrodict.evaluation import check_gates
from retrodict.evaluation.reference import Reference, feature_column
from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.plan import FeatureSet
from retrodict.learning.environment import environment_bytes
from retrodict.learning.evidence import forsaken, gate_evidence, own_gates, purged_unevenly, redrawn
from retrodict.learning.fit import TrainingRows
from retrodict.learning.frame import Frame, build_frame, count_left_out, features_of, follow_up, parts_of, tables_of
from retrodict.learning.plots import TEST_ROWS, TRIALS, pack_test_rows
from retrodict.learning.recipes import Progress, Searched, Trained, run_recipe
from retrodict.learning.runs import Artifact, MetricPoint, Run, fail_run, finish_run, get_run, list_runs, start_run
from retrodict.learning.runs.heartbeat import beat
from retrodict.learning.runs.record import enter_ended
from retrodict.learning.study import Journal, SearchResult, StudyTrial, search
from retrodict.learning.variants import derive_variant
from retrodict.learning.warmstart import Predecessor, start_facts, start_points
from retrodict.ledger import Transaction
from retrodict.models.artifact import ExampleRows
from retrodict.models.checkpoints import Checkpoints
from retrodict.models.definitions import Model, Recipe
from retrodict.models.problem import TRAIN, Problem
from retrodict.models.runtimes import measure_runtimes
from retrodict.models.splits import Splitter, split_from_dict
from retrodict.models.tune import AUTO
from retrodict.models.warmstart import WarmStart
from retrodict.registry import ModelVersion, list_versions, register
from retrodict.workspace import Workspace, capture_code, check_code, commit_of

__all__ = ["Execution", "execute", "record_end", "train"]

_EXAMPLE_ROWS = 10_000  # that example rows are drawn from
_PATIENCE_S = 5.0  # until somebody is told what is waited for


@dataclass(frozen=True, slots=True, eq=False)
class Execution:
    """A recipe executed on a frame: rows, parts and what was trained; nothing of it is stored yet.

    Attributes
    ----------
    frame : Frame
    parts : mapping of str to ndarray
        Positions of the training, validation and test rows.
    trained : Trained
    start : str, optional
        Fingerprint of the version that the fit went on from.
    """

    frame: Frame
    parts: Mapping[str, Any]
    trained: Trained
    start: str | None = None

    def facts(self) -> dict[str, Any]:
        """What a replay compares: hash of the rows, their numbers, hash of what was learned, every test metric."""
        engine = self.trained.engine
        return {
            "frame": self.frame.digest(),
            "rows": {name: len(positions) for name, positions in self.parts.items()},
            "trees": engine.fingerprint(),
            "metrics": self.trained.evaluations["test"].values(),
            **({} if self.start is None else {"start": self.start}),
        }


def execute(  # noqa: PLR0913  # what a replay leaves out, each on its own
    workspace: Workspace,
    model: Model,
    versions: Mapping[str, int],
    *,
    now: int,
    ladder: bool = True,
    indexed: bool = True,
    progress: Progress | None = None,
    searched: Searched | None = None,
    checkpoints: Path | None = None,
    start: Mapping[str, Any] | None = None,
    derived: Mapping[str, Any] | None = None,
    rows: tuple[Frame, Mapping[str, Any]] | None = None,
) -> Execution:
    """Build the frame and run the recipe: the part of a training that a replay repeats.

    A replay does without the ladder, and without the indexes: one that the run itself made would vouch for itself. Nor
    does it search settings: ``searched`` gives those that the run found. ``start`` says which version the fit goes on
    from, where that is not asked of the recipe now, as :func:`~retrodict.learning.warmstart.start_facts` does.
    ``derived`` says which version to make a variant of, and how, instead of fitting; ``rows`` are frame and parts that
    were built before.
    """
    report = progress or (lambda _what, _done, _total: None)
    if derived is not None:
        frame, parts = rows or parts_of(build_frame(workspace.tables, model, versions), model.recipe.split, now=now)
        trained = derive_variant(workspace, model, frame, parts, derived, ladder=ladder, progress=progress)
        return Execution(frame, parts, trained)
    start = start_facts(workspace, model) if start is None else start
    former = None if start is None else Predecessor.of(workspace, start)
    report("features", 0, 1)
    indexes = EventIndexes.of(workspace, tell=lambda sentence: report(sentence, 0, 1)) if indexed else None
    frame = build_frame(workspace.tables, model, versions, indexes=indexes)
    if ladder:
        model.check_gates(frame.target)
    frame, parts = parts_of(frame, model.recipe.split, now=now)
    checked = former.check(workspace, model, frame, parts, versions) if former is not None and ladder else ((), None)
    trained = run_recipe(
        model.recipe, frame, parts, ladder=ladder, progress=progress, searched=searched, checkpoints=checkpoints,
        former=None if former is None else former.artifact, accept=model.accept,
    )  # fmt: skip
    if former is not None and checked[1] is not None:
        trained = former.report(model, frame, parts, trained, checked[0], checked[1], progress)
    return Execution(frame, parts, trained, None if former is None else former.artifact.fingerprint())


def train(
    workspace: Workspace,
    model: str | Model,
    *,
    split: Splitter | None = None,
    tune: Mapping[str, Any] | None = None,
    start_from: str | WarmStart | None = None,
    again: bool = True,
    resume: str | None = None,
    progress: Progress | None = None,
) -> tuple[Run, ModelVersion]:
    """Train a model on the newest versions of its tables and register the result.

    Parameters
    ----------
    workspace : Workspace
    model : str or Model
        Name of a defined model.
    split : Splitter, optional
        Another one than the recipe's, for a retraining.
    tune : mapping, optional
        Fields of a :class:`~retrodict.models.tune.Tune` in place of the recipe's.
    start_from : str or WarmStart, optional
        Version to go on from, in place of the recipe's.
    again : bool, default True
        False: where a finished run has the same definition, code, environment and table versions, and no outcome can
        have become known since, that run and its version are what comes back, and nothing is trained.
    resume : str, optional
        ``run:ULID`` of a run of the same definition that was killed or failed: its table versions and its moment are
        taken, and fits go on from its checkpoints, which the new run has from then on.
    progress : callable, optional
        Called with (what, done, at most).

    Returns
    -------
    Run, ModelVersion

    Raises
    ------
    RetrodictError
        Whatever the data or the definitions are at fault of; the run is then recorded as failed.
    """
    definition = workspace.definitions.get(Model, model) if isinstance(model, str) else model
    as_written = definition.version
    if split is not None:
        definition = definition.with_split(split)
    if tune is not None:
        definition = definition.with_tune(tune)
    if start_from is not None:
        definition = definition.with_start(start_from)
    start = start_facts(workspace, definition)
    check_names(workspace, definition)
    used = definition.recipe.split
    extras = {estimator.extra for estimator in definition.recipe.estimators}
    extras |= {"balance"} if definition.recipe.balance is not None else set()
    for estimator in definition.recipe.estimators:  # the environment names every module of others that the fit uses
        if not estimator.fit.startswith("retrodict."):
            with contextlib.suppress(ImportError):
                importlib.import_module(estimator.fit.partition(":")[0])
    versions = newest_versions(workspace.tables, tables_of(definition), where=f"model {definition.name}")
    schema = workspace.tables.schema(definition.label.table.name, versions[definition.label.table.name])
    run = Run(
        id=workspace.new_id(),
        model=definition.name,
        status="running",
        actor=workspace.actor,
        started=workspace.clock.now(),
        seed=definition.recipe.seed,
        code=check_code(workspace, capture_code(workspace)),
        environment=workspace.objects.put(environment_bytes(project=workspace.root, extras=extras)),
        data={
            "versions": versions,
            "now": workspace.clock.now(),
            **({} if (commit := commit_of(workspace.root)) is None else {"git": commit}),
        },
        params={
            "split": used.describe(),
            "definition": definition.version,
            "features": features_of(definition, schema).version,
            **({} if as_written == definition.version else {"as_written": as_written}),
            **({} if tune is None else {"tune": _plain(dict(tune))}),
            **({} if start is None else {"start_from": start}),
        },
        kind=_kind(definition.recipe),
        objects=workspace.objects,
    )
    if resume is not None:
        _take_over(workspace, run, resume)
    elif not again and (same := _same_run(workspace, run)) is not None:
        return same
    if definition.recipe.checkpoint is not None:
        run.data["checkpoints"] = str(checkpoint_folder(workspace, run).relative_to(workspace.root))
    start_run(workspace, run)
    with beat(workspace, run.id):
        try:
            return run, _train(workspace, definition, run, progress)
        except BaseException as error:  # whatever ends a training ends its run
            _close(workspace, run, error)
            raise


def _take_over(workspace: Workspace, run: Run, ref: str) -> None:
    """Give a new run the data and the checkpoints of one that did not finish."""
    list_runs(workspace, run.model)  # closes those whose process is gone
    former = get_run(workspace, ref)
    folder = checkpoint_folder(workspace, former)
    if former.params.get("definition") == run.params["definition"] and "start_from" in former.params:
        run.params["start_from"] = former.params["start_from"]  # the champion may be another one by now
    differing = [key for key, value in run.params.items() if former.params.get(key) != value]
    if former.status != "failed" or former.model != run.model or differing or not folder.is_dir():
        state = f"{former.status}, model {former.model}" + (f", another {differing[0]}" if differing else "")
        raise InputError("a run to resume must have failed, be of the same model and definition, and have checkpoints",
                         where=former.ref, got=state if folder.is_dir() else f"{state}, no checkpoints",
                         remedy="Train anew; Recipe(checkpoint=200) writes checkpoints")  # fmt: skip
    run.data = {"versions": former.data["versions"], "now": former.data["now"]}
    run.params["resumed"] = former.ref
    folder.rename(checkpoint_folder(workspace, run))


def checkpoint_folder(workspace: Workspace, run: Run) -> Path:
    """Folder of the checkpoints of a run; it may be deleted at any time, and then nothing is resumed."""
    return workspace.root / "state" / "checkpoints" / run.id


def _same_run(workspace: Workspace, run: Run) -> tuple[Run, ModelVersion] | None:
    """Finished run of the same inputs with its version; of an earlier moment only if no outcome was pending then."""
    for former in list_runs(workspace, run.model):
        same = (
            former.status == "finished"
            and former.kind == run.kind
            and all(former.params.get(k) == v for k, v in run.params.items())
        )
        if not same or (former.code, former.environment) != (run.code, run.environment):
            continue
        waited = former.data.get("left_out", {}).get("pending", 1) == 0 and former.data["now"] <= run.data["now"]
        if former.data["versions"] == run.data["versions"] and (waited or former.data["now"] == run.data["now"]):
            versions = {version.run: version for version in list_versions(workspace, run.model)}
            if former.id in versions:
                return former, versions[former.id]
    return None


def _train(workspace: Workspace, model: Model, run: Run, progress: Progress | None) -> ModelVersion:
    """Execute an open run, store what it made, and close it together with its version."""
    began, journals = time.perf_counter(), list[Journal]()

    def searched(
        recipe: Recipe, problem: Problem, rows: TrainingRows, tell: Progress, rungs: Mapping[str, float]
    ) -> SearchResult:
        secret = workspace.ledger.secret("searches")[1]
        journal = Journal.of(workspace.root / "state" / "searches", recipe, problem, secret)
        journals.append(journal)
        with _alone(workspace, journal, tell):
            spent = time.perf_counter() - began
            return search(recipe, problem, rows, tell=tell, journal=journal, spent=spent, rungs=rungs)

    folder = checkpoint_folder(workspace, run)
    result = execute(workspace, model, run.data["versions"], now=run.data["now"], progress=progress, searched=searched,
                     checkpoints=folder, start=run.params.get("start_from"))  # fmt: skip
    record_end(workspace, model, run, result, seconds=time.perf_counter() - began)

    def finish(tx: Transaction) -> None:
        finish_run(tx, run)
        if result.trained.search is not None:
            enter_ended(tx, _trial_runs(workspace, run, result.trained.search))

    version = register(
        workspace,
        model.name,
        run=run.id,
        artifact=run.summary["artifact"],
        code=run.code,
        gates=run.summary["gates"],
        metrics=run.metrics,
        alongside=finish,
    )
    for journal in journals:
        journal.remove()
    Checkpoints(folder).clear()
    _clear_checkpoints(workspace)
    return version


def _clear_checkpoints(workspace: Workspace) -> None:
    """Remove checkpoints that nothing is resumed from: of runs that finished, or that are not there any more."""
    folder = workspace.root / "state" / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    needed = {run.id for run in list_runs(workspace) if run.status != "finished"} if names else set()
    for name in names:
        if name not in needed:
            Checkpoints(folder / name).clear()


@contextlib.contextmanager
def _alone(workspace: Workspace, journal: Journal, tell: Progress) -> Iterator[None]:
    """Search alone: who comes second waits as long as the first one's process lives, and reads what it found.

    The first removes its journal only when its model is fitted and registered, long after it has let go.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(workspace.lock(f"searches/{journal.folder.name}", timeout_s=_PATIENCE_S))
            except BusyError as error:
                tell(f"waits for the same search by {error.got}", 0, 1)
            else:
                break
        yield


def _kind(recipe: Recipe) -> str:
    return "train" if recipe.tune is None else "auto" if recipe.estimator == AUTO else "tune"


def _trial_runs(workspace: Workspace, study: Run, result: SearchResult) -> list[Run]:
    """Every trial as a run of its own."""
    return [
        replace(
            study, id=workspace.new_id(), kind="trial", parent=study.id, seconds=trial.seconds, params={**trial.choice},
            status="failed" if trial.state == "failed" else "finished", tags={"state": trial.state}, artifacts=[],
            summary={"error": trial.error} if trial.error else {},
            points=_trial_points(trial, result.report["metric"].replace(" ", "_")),
        )
        for trial in result.trials
    ]  # fmt: skip


def _close(workspace: Workspace, run: Run, error: BaseException) -> None:
    """Close a run that an error ended; if the store takes nothing, whoever looks next does."""
    run.points, run.artifacts = [], []
    try:
        fail_run(workspace, run, type(error).__name__)
    except Exception as failure:  # noqa: BLE001  # the error that ended the run is the one to be seen
        error.add_note(f"{run.ref} is still open: {failure} It is closed as failed once this process has ended.")


def record_end(workspace: Workspace, model: Model, run: Run, result: Execution, *, seconds: float) -> None:
    """Store what the run made, and describe its end."""
    trained, facts = result.trained, result.facts()
    reference = _reference(result)
    profiles = workspace.objects.put(reference.to_json())
    test = trained.evaluations["test"]
    artifact = trained.artifact(
        model.name,
        {
            "run": run.id,
            "profiles": profiles,
            "test_metrics": test.values(),
            "features": run.params["features"],
            "definition": model.version,
            "trained": format_time(run.started),
            "request": _request(result.frame, model),
            **({} if result.frame.target.task == "binary" else {"target": result.frame.target.to_dict()}),
            **({"optimised": run.params["optimise"]} if "optimise" in run.params else {}),
        },
    )
    rows = result.parts["train"]
    drawn = rows[np.linspace(0, len(rows) - 1, min(len(rows), _EXAMPLE_ROWS)).round().astype(np.int64)]
    matrix = artifact.inputs.encode_columns(result.frame.columns(drawn))
    examples = ExampleRows.of(artifact.engine, artifact.calibrator, matrix)
    runtimes = measure_runtimes(artifact.engine, np.vstack([examples.rows, matrix]))
    artifact = replace(artifact, examples=examples, metadata={**artifact.metadata, "runtimes": runtimes})
    evidence = gate_evidence(workspace, model, result.frame, result.parts["test"], trained, run.data["versions"])
    gates = (*check_gates(model.gates, evidence), *own_gates(trained))
    run.status, run.finished, run.seconds = "finished", workspace.clock.now(), seconds
    left_out = count_left_out(result.frame, model, now=run.data["now"])
    run.data = {**run.data, "frame": facts["frame"], "rows": facts["rows"], "left_out": left_out}
    if result.frame.target.task == "survival":
        run.data["follow_up"] = follow_up(result.frame, result.parts)
        trained = replace(trained, warnings=(*trained.warnings,
                          *forsaken(workspace, model, run, result.frame, result.parts)))  # fmt: skip
    uneven = purged_unevenly(result.frame, split_from_dict(run.params["split"]), result.parts, now=run.data["now"])
    trained = replace(trained, warnings=(*trained.warnings, *uneven))
    run.params = {
        **run.params,
        "target": result.frame.target.to_dict(),
        **{key: _plain(value) for key, value in trained.params.items()},
    }
    run.summary = {
        "artifact": artifact.save(workspace.objects),
        "fingerprint": artifact.fingerprint(),
        "trees": facts["trees"],
        "ladder": trained.ladder.to_dict() if trained.ladder else None,
        "calibration": trained.calibration.to_dict(),
        "notes": _plain(dict(trained.notes)),
        "leaks": None if trained.leaks is None else [leak.to_dict() for leak in trained.leaks],
        "warnings": [*trained.warnings, *redrawn(workspace, model, run)],
        "gates": [gate.to_dict() for gate in gates],
    }
    run.points = _points(trained)
    run.artifacts = [
        Artifact("profiles.json", profiles, "application/json"),
        Artifact("model.json", run.summary["artifact"], "application/json"),
        _put(
            workspace,
            "evaluations.json",
            canonical_json({k: v.to_dict() for k, v in trained.evaluations.items()}),
            "application/json",
        ),
        *_put_trials(workspace, trained.search),
        _put(workspace, TEST_ROWS, _test_rows(result), "application/vnd.apache.parquet"),
    ]


def _trial_points(trial: StudyTrial, metric: str) -> list[MetricPoint]:
    """The value of a trial, as ``folds``, and that of each fold it was judged on, as ``fold``."""
    points = [MetricPoint("fold", metric, value, at) for at, value in enumerate(trial.folds)]
    return points if trial.value is None else [MetricPoint("folds", metric, trial.value), *points]


def _put_trials(workspace: Workspace, result: SearchResult | None) -> list[Artifact]:
    if result is None:
        return []
    trials = [trial.to_dict() for trial in result.trials]
    return [_put(workspace, TRIALS, canonical_json({"report": result.report, "trials": trials}), "application/json")]


def _test_rows(result: Execution) -> bytes:
    frame, rows = result.frame, result.parts["test"]
    return pack_test_rows(frame.labels[rows], result.trained.test_scores, frame.target)


def _put(workspace: Workspace, name: str, data: bytes, media: str) -> Artifact:
    return Artifact(name, workspace.objects.put(data), media)


def _request(frame: Frame, model: Model) -> dict[str, dict[str, str]]:
    """Kinds of the values that a request has to bring, as they are in the rows the model learned from."""
    features = FeatureSet.trained(model.features, frame.features)
    columns = {"entities": features.request_keys, "context": features.request_columns}
    return {
        field: {name: request_word(frame.table.schema.field(name).type) for name in names}
        for field, names in columns.items()
    }


def _reference(result: Execution) -> Reference:
    train, test, at = result.parts["train"], result.parts["test"], result.frame.at
    columns: dict[str, Any] = {feature_column(name): part for name, part in result.frame.columns(train).items()}
    timed = result.frame.timed
    times = dict.fromkeys(columns, at[train]) if timed else {}
    rows = np.concatenate(list(result.parts.values()))
    target, scores = result.frame.target, result.trained.test_scores
    names = ["score"] if target.outputs == ("score",) else [f"output__{name}" for name in target.outputs]
    outputs = dict(zip(names, scores.T if scores.ndim == 2 else [scores], strict=False))
    labels = (result.frame.labels[rows], at[rows]) if timed and target.task == "binary" else None
    columns |= {name: pa.array(np.ascontiguousarray(values)) for name, values in outputs.items()}
    return Reference.of(columns, {**times, **dict.fromkeys(outputs if timed else (), at[test])}, labels)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else json.loads(json.dumps(value))


def _points(trained: Trained) -> list[MetricPoint]:
    points = [
        MetricPoint(split, metric.name, metric.value, 0, metric.low, metric.high)
        for split, evaluation in trained.evaluations.items()
        for metric in evaluation.metrics
    ]
    points += [
        MetricPoint(
            f"{'train' if name.startswith(TRAIN) else 'validate'}/history", name.removeprefix(TRAIN), float(value), step
        )
        for name, values in trained.history.items()
        for step, value in enumerate(values, start=1 + _started(trained.params.get("started_at", 0), name))
        if value == value  # noqa: PLR0124  # the loss of training rows is not measured in every iteration
    ]
    return points + start_points(trained.notes)


def _started(begun: Any, name: str) -> int:
    """Iterations that a history begins after; of several engines that of each, as the name of its loss ends."""
    if isinstance(begun, Mapping):
        return next((count for level, count in begun.items() if name.endswith(f"_{level}")), 0)
    return int(begun)
