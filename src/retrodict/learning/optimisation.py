"""Faster or smaller variants of a version, each measured against it and registered only within a stated loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrodict.core.display import Block, Facts, Grid, Record, Shown
from retrodict.core.errors import InputError, RetrodictError, check_known
from retrodict.evaluation import Metric
from retrodict.learning.environment import environment_bytes
from retrodict.learning.execution import Execution, execute, record_end
from retrodict.learning.frame import build_frame, parts_of
from retrodict.learning.recipes import Progress, without_spans
from retrodict.learning.replay import definition_of
from retrodict.learning.runs import Run, fail_run, finish_run, get_run, start_run
from retrodict.learning.runs.heartbeat import beat
from retrodict.learning.variants import HOWS, applies, measure_loss
from retrodict.models.artifact import ModelArtifact
from retrodict.models.runtimes import measure_runtimes
from retrodict.registry import get_version, register
from retrodict.workspace import Workspace

__all__ = ["Optimisation", "Variant", "optimise"]

_TIMED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Variant(Record):
    """One variant against the version that it was made from.

    Attributes
    ----------
    how : str
    version : str, optional
        ``name@version`` where it was registered; None: refused.
    run : str, optional
        None where it could not be made.
    reason : str
        Why it was refused, or what it is.
    loss : Metric, optional
        On the test rows, with an interval of 95 %: of a yes or no of the area under the curve, of any other task the
        share by which the mean loss rises.
    faster_row, faster_table : float, optional
        How many times as fast: one row, and 1,000 rows together, in processor time.
    smaller : float, optional
        How many times as small.
    """

    how: str
    version: str | None
    run: str | None
    reason: str
    loss: Metric | None = None
    faster_row: float | None = None
    faster_table: float | None = None
    smaller: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Optimisation(Shown):
    """What came of looking for variants.

    Attributes
    ----------
    parent : str
    max_loss : float
    variants : tuple of Variant
    """

    parent: str
    max_loss: float
    variants: tuple[Variant, ...]

    def blocks(self) -> Sequence[Block | None]:
        """Each variant with its loss, speed and size."""
        rows = [
            (one.how, one.version or "refused", None if one.loss is None else one.loss.value,
             None if one.loss is None else one.loss.high, one.faster_row, one.faster_table, one.smaller, one.reason)
            for one in self.variants
        ]  # fmt: skip
        columns = ("variant", "version", "loss>", "at most>", "one row, times as fast>", "1,000 rows>",
                   "times as small>", "what?")  # fmt: skip
        return [Facts({"from": self.parent, "stated loss": self.max_loss}), Grid(columns, rows)]


def optimise(
    workspace: Workspace,
    ref: str,
    *,
    how: Sequence[str] | None = None,
    max_loss: float = 0.002,
    student: str = "lightgbm",
    progress: Progress | None = None,
) -> Optimisation:
    """Make variants of a version on the rows of its run, and register those within the stated loss.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``name@version``, or a name for its newest version.
    how : sequence of str, optional
        Out of :data:`~retrodict.learning.variants.HOWS`; None: all that apply.
    max_loss : float, default 0.002
        The upper end of the interval of a variant's loss must not be above it.
    student : str, default "lightgbm"
        Estimator of the catalogue that ``distil`` teaches.
    progress : callable, optional

    Raises
    ------
    NotFoundError
        If there is no such version or way.
    InputError
        If a way that was asked for does not apply.
    """
    if not 0 <= max_loss < 1:
        raise InputError("a stated loss must be a number of at least 0 and below 1", where="optimise", got=max_loss,
                         remedy="Write --max-loss 0.002")  # fmt: skip
    version = get_version(workspace, ref)
    artifact = ModelArtifact.load(workspace.objects, version.artifact)
    for name in how or ():
        check_known(name, HOWS, "a variant must be made in a way that there is", where="optimise", what="way")
        if reason := applies(artifact.engine, name):
            raise InputError(f"the version must be one that {name} applies to", where=version.ref, got=reason,
                             remedy="Leave it out")  # fmt: skip
    ways = list(dict.fromkeys(how or ())) or [name for name in HOWS if not applies(artifact.engine, name)]
    trained = get_run(workspace, version.run)
    model = definition_of(workspace, trained)
    versions, now = trained.data["versions"], trained.data["now"]
    rows = parts_of(build_frame(workspace.tables, model, versions), model.recipe.split, now=now)
    choice = trained.params.get("choice", trained.params.get("optimise", {}).get("choice", {}))
    variants = []
    for name in ways:
        facts = {"parent": version.ref, "artifact": version.artifact, "fingerprint": artifact.fingerprint(),
                 "how": name, "max_loss": max_loss, "choice": choice,
                 **({"student": student} if name == "distil" else {})}  # fmt: skip
        run = Run(
            id=workspace.new_id(), model=model.name, status="running", actor=workspace.actor, kind="optimise",
            started=workspace.clock.now(), seed=trained.seed, code=trained.code,
            environment=workspace.objects.put(environment_bytes(project=workspace.root)),
            data={"versions": versions, "now": now}, objects=workspace.objects,
            params={**{key: trained.params[key] for key in ("split", "definition", "features", "tune")
                       if key in trained.params}, "optimise": facts},
        )  # fmt: skip
        start_run(workspace, run)
        with beat(workspace, run.id):
            try:
                began = time.perf_counter()
                result = execute(workspace, model, versions, now=now, progress=progress, derived=facts, rows=rows)
                record_end(workspace, model, run, result, seconds=time.perf_counter() - began)
                variants.append(_judge(workspace, run, artifact, result, max_loss))
            except RetrodictError as error:
                run.points, run.artifacts = [], []
                fail_run(workspace, run, type(error).__name__)
                variants.append(Variant(name, None, run.ref, str(error)))
            except BaseException as error:
                run.points, run.artifacts = [], []
                fail_run(workspace, run, type(error).__name__)
                raise
    return Optimisation(version.ref, max_loss, tuple(variants))


def _judge(workspace: Workspace, run: Run, parent: ModelArtifact, result: Execution, max_loss: float) -> Variant:
    """Measure a variant against its parent, and register it or close its run without a version."""
    frame, test, target = result.frame, result.parts["test"], result.frame.target
    columns = frame.columns(test)
    before, after = (without_spans(outputs, target) for outputs in (parent.score_rows(columns).score,
                                                                    result.trained.test_scores))  # fmt: skip
    groups = None if frame.groups is None else frame.groups[test]
    loss = measure_loss(before, after, frame.labels[test], target, groups)
    rows = parent.inputs.encode_columns(frame.columns(test[:_TIMED_ROWS]))
    row, table, size = (_ratio(*pair) for pair in zip(
        _costs(parent.engine, rows), _costs(result.trained.engine, rows), strict=True))  # fmt: skip
    reason = _refusal(loss, max_loss, row, table, size)
    run.summary["optimised"] = {"loss": asdict(loss), "faster_row": row, "faster_table": table, "smaller": size,
                                "refused": reason}  # fmt: skip
    how = run.params["optimise"]["how"]
    if reason:
        with workspace.ledger.transaction() as tx:
            finish_run(tx, run)
        return Variant(how, None, run.ref, reason, loss, row, table, size)
    version = register(workspace, run.model, run=run.id, artifact=run.summary["artifact"], code=run.code,
                       gates=run.summary["gates"], metrics=run.metrics,
                       alongside=lambda tx: finish_run(tx, run))  # fmt: skip
    gates = ", ".join(version.failed_gates)
    about = f"gates that did not pass: {gates}" if gates else "not approved yet"
    return Variant(how, version.ref, run.ref, about, loss, row, table, size)


def _refusal(loss: Metric, max_loss: float, *gains: float | None) -> str:
    """Why a variant is not registered; empty where it is."""
    if loss.value is None or loss.high is None:
        return f"its loss is not evaluable: {loss.reason}"
    if loss.high > max_loss:
        return f"it may lose {loss.high:.2g}, more than the stated {max_loss:g}"
    return "" if any(gain is not None and gain > 1.0 for gain in gains) else "it is neither faster nor smaller"


def _costs(engine: Any, rows: Any) -> tuple[float | None, float | None, float]:
    """Microseconds of one row and of 1,000, by what was chosen for each, and bytes of the stored parts."""
    facts = measure_runtimes(engine, rows)
    times = {one["name"]: one["us"] for one in facts["measured"]}
    size = sum(len(data) for data in engine.parts().values())
    return times[facts["row"]][0], times[facts["table"]][-1], float(size)


def _ratio(before: float | None, after: float | None) -> float | None:
    return None if not before or not after else round(before / after, 2)
