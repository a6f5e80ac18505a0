"""What gates may read beside the metrics of the test rows: the champion, groups, cost, leaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.clock import format_time
from retrodict.core.durations import DAY
from retrodict.core.errors import RetrodictError
from retrodict.core.expressions import parse
from retrodict.evaluation import Metric
from retrodict.evaluation.compare import compare_outputs
from retrodict.evaluation.fairness import measure_fairness
from retrodict.evaluation.gates import GateResult, gate_text
from retrodict.learning.frame import Frame
from retrodict.learning.leaks import Leak
from retrodict.learning.recipes import Trained, without_spans
from retrodict.learning.runs import Run, get_run, list_runs
from retrodict.models.artifact import ModelArtifact
from retrodict.models.definitions import Model
from retrodict.models.splits import HashSplit, Splitter, TimeSplit, split_from_dict
from retrodict.models.targets import NEVER
from retrodict.registry import current
from retrodict.workspace import Workspace

__all__ = ["forsaken", "gate_evidence", "own_gates", "purged_unevenly", "redrawn"]

_FAIRNESS = ("dp_ratio", "dp_difference", "equal_opportunity")


def gate_evidence(
    workspace: Workspace, model: Model, frame: Frame, test: Any, trained: Trained, versions: Mapping[str, int]
) -> dict[str, Any]:
    """Everything that gates of a model may read, by name; what no gate names and costs something is left out.

    Parameters
    ----------
    workspace : Workspace
    model : Model
    frame : Frame
    test : ndarray of int64
        Positions of the test rows.
    trained : Trained
    versions : mapping of str to int
        Versions of the tables, for the columns of groups.
    """
    ladder = trained.ladder
    cost = None if ladder is None else ladder.cost
    facts: dict[str, Any] = {metric.name: metric for metric in trained.evaluations["test"].metrics}
    facts |= {
        "beats_ladder": None if ladder is None else ladder.verdict,
        "leaks": None if trained.leaks is None else _counted(trained.leaks),
        "latency_us": None if cost is None else cost.latency_us,
        "size_kb": None if cost is None else cost.size_kb,
    }
    for name in {name for gate in model.gates for name in parse(gate_text(gate)).columns}:
        word, bracket, column = name.partition("(")
        if name == "better_than_champion":
            facts[name] = _against_champion(workspace, model, frame, test, trained, versions)
        elif bracket and word in _FAIRNESS:
            facts |= _fairness(workspace, model, frame, test, trained, versions, column.removesuffix(")"))
    return facts


@dataclass(frozen=True, slots=True)
class _LeakCount:
    """How many leaks nobody accepts, and what is to be done about them."""

    value: int
    reason: str | None
    status: str


def _counted(leaks: Sequence[Leak]) -> _LeakCount:
    open_leaks = [leak for leak in leaks if leak.accepted is None]
    features = sorted({leak.feature for leak in open_leaks if leak.feature is not None and leak.acceptable})
    reasons = [leak.sentence for leak in open_leaks if not leak.acceptable]
    if features:
        accept = ", ".join(f"{name!r}: 'why'" for name in features)
        reasons.append(f"leave {', '.join(features)} out of the features, or say accept={{{accept}}}")
    return _LeakCount(len(open_leaks), "; ".join(reasons) or None, "found" if open_leaks else "")


def own_gates(trained: Trained) -> Iterator[GateResult]:
    """What a version brings to its approval beside the gates that its model names.

    A threshold that no score reaches fails; a leak that is accepted passes, and says why.
    """
    choice = trained.notes.get("threshold")
    if choice is not None and choice["threshold"] is None:
        yield GateResult("threshold", "fail", None, choice["reason"])
    for leak in trained.leaks or ():
        if leak.accepted is not None:
            yield GateResult(f"accept({leak.feature})", "pass", leak.figure, f"{leak.accepted} ({leak.sentence})")


def _against_champion(
    workspace: Workspace, model: Model, frame: Frame, test: Any, trained: Trained, versions: Mapping[str, int]
) -> Any:
    """Comparison with the version in force on the same test rows; without one there is nothing to be worse than."""
    name = "better_than_champion"
    deployed = [r for r in current(workspace).values() if r.deployment.model.partition("@")[0] == model.name]
    if not deployed:
        return True
    champion = ModelArtifact.load(workspace.objects, deployed[-1].deployment.artifact)
    ref, columns = deployed[-1].deployment.model, frame.columns(test)
    if champion.target != frame.target or not set(champion.inputs.names) <= set(columns):
        return Metric(name, None, f"{ref} predicts or reads something else than this version", len(test))
    if "run" in champion.metadata:
        learned = _learned_from(workspace, champion.metadata["run"], model, frame, test, versions)
        if learned:
            return Metric(name, None, f"{ref} {learned}", len(test))
    before = without_spans(champion.score_rows(columns).score, frame.target)
    after = without_spans(trained.test_scores, frame.target)
    groups = None if frame.groups is None else frame.groups[test]
    return compare_outputs(champion=before, challenger=after, labels=frame.labels[test], target=frame.target,
                           groups=groups)  # fmt: skip


def _learned_from(
    workspace: Workspace, ref: str, model: Model, frame: Frame, test: Any, versions: Mapping[str, int]
) -> str:
    """Why test rows cannot judge a former version, which learned from some of them; empty where they can."""
    table = model.label.table.name
    try:
        run = get_run(workspace, ref)
        split = split_from_dict(run.params["split"])
        if run.data["versions"].get(table) != versions[table] and not (split.timed or isinstance(split, HashSplit)):
            return "was split from other rows: it may have learned from the rows that judge this version"
        parts = split.assign(frame, now=run.data["now"])
    except RetrodictError as error:  # its run is gone, or its split reads columns that this model does not have
        return f"cannot be asked which rows it learned from ({type(error).__name__})"
    count = len(np.intersect1d(np.concatenate([parts["train"], parts["validate"]]), test))
    return f"learned from {count:,} of the {len(test):,} test rows" if count else ""


def redrawn(workspace: Workspace, model: Model, run: Run) -> tuple[str, ...]:
    """Warning of a retraining whose parts are drawn anew, so that what was learned from before judges now."""
    split, table = model.recipe.split, model.label.table.name
    if split.timed or isinstance(split, HashSplit):
        return ()
    former = [r for r in list_runs(workspace, model.name) if r.status == "finished" and r.id != run.id]
    if all(r.data["versions"].get(table) == run.data["versions"][table] for r in former):
        return ()
    sentence = (
        f"{type(split).__name__} draws anew from all rows of {table!r}: versions trained before learned from rows "
        "that judge this one. Compare none of them, and split with HashSplit(by=…), whose rows never change side."
    )
    return (sentence,)


def forsaken(workspace: Workspace, model: Model, run: Run, frame: Frame, parts: Mapping[str, Any]) -> tuple[str, ...]:
    """Warning of rows of an earlier batch that nobody wrote to since, while rows of later ones have events.

    Said where, were all rows alike, five or more of these events would be theirs: none has then a chance of e⁻⁵.
    """
    table, version = model.label.table.name, run.data["versions"][model.label.table.name]
    if not frame.timed or "_batch" not in workspace.tables.schema(table, version).names:
        return ()
    column = workspace.tables.read(table, version, columns=["_batch"]).column(0).combine_chunks().dictionary_encode()
    batch = np.asarray(column.indices.fill_null(0).to_numpy())  # in the order in which they were written
    event = (frame.known_at != NEVER) & ~np.isnan(frame.labels)
    inside = np.zeros(len(batch), np.bool_)
    inside[np.concatenate(list(parts.values()))] = True
    until = np.where(inside, frame.at + np.nan_to_num(np.abs(frame.labels), posinf=0.0) * DAY, 0)
    for last in range(int(batch.max(initial=0)) - 1, -1, -1):
        old = batch <= last
        newest = int(max(frame.at[old].max(), frame.known_at[old & event].max(initial=0)))
        open_rows = old & ~event & (until > newest)
        later = ~old & event & (frame.known_at > newest) & (frame.known_at <= until[open_rows].max(initial=0))
        # An event of a row that was decided before is an outcome that was added: somebody does write to them.
        if later.any() and not (later & (frame.at <= newest)).any() and (
            later.sum() * open_rows.sum() >= 5 * (~old).sum()
        ):  # fmt: skip
            sentence = (
                f"{int(open_rows.sum()):,} rows of {table} in earlier batches have no event after "
                f"{format_time(newest)}, the newest moment there, while {int(later.sum()):,} of {int((~old).sum()):,} "
                "rows ingested since have: they count as event-free until "
                f"{format_time(int(until[open_rows].max()))}. Ingest their outcomes with --update, or "
                "say until= when they were last looked at."
            )
            return (sentence,)
    return ()


def purged_unevenly(frame: Frame, split: Splitter, parts: Mapping[str, Any], *, now: int) -> tuple[str, ...]:
    """Warning that outcomes of one kind are known later, so that purging by known-at has kept the other kind.

    Compared are rows of the same days: those that a part keeps since the first that was left out, and those left out.
    Said of the part where their shares differ most, from 10 points and five standard errors on, and only where it
    bends the share of the whole part by a point.
    """
    if frame.target.task != "binary" or not isinstance(split, TimeSplit):
        return ()
    worst, sentence = 0.1, ""
    for name, (start, end, limit) in split.spans(now).items():
        late = (frame.at >= start) & (frame.at < end) & ~np.isnan(frame.labels) & (frame.known_at >= limit)
        if not late.any():
            continue
        rows = parts[name]
        since, share = int(frame.at[late].min()), float(frame.labels[rows].mean()) if len(rows) else 0.0
        ours, theirs = frame.labels[rows[frame.at[rows] >= since]], frame.labels[late]
        unpurged = (share * len(rows) + theirs.sum()) / (len(rows) + len(theirs))
        if not len(ours) or abs(unpurged - share) < 0.01:  # a few rows at the end bend nothing
            continue
        mean = (ours.sum() + theirs.sum()) / (len(ours) + len(theirs))
        error = float(np.sqrt(mean * (1 - mean) * (1 / len(ours) + 1 / len(theirs))))
        if abs(ours.mean() - theirs.mean()) > max(worst, 5 * error):
            worst = abs(ours.mean() - theirs.mean())
            sentence = (
                f"The {name} part keeps {len(ours):,} rows since {format_time(since)}, of which {ours.mean():.1%} have "
                f"the outcome, and leaves out {len(theirs):,}, of which {theirs.mean():.1%} have it, since theirs was "
                f"not known before its end: one kind is known sooner. The part's share of {share:.1%}, scores and "
                "calibration are bent by it. Let known_at be when either would be known, as in known_at='start + 60d'."
            )
    return (sentence,) if sentence else ()


def _fairness(
    workspace: Workspace,
    model: Model,
    frame: Frame,
    test: Any,
    trained: Trained,
    versions: Mapping[str, int],
    column: str,
) -> dict[str, Metric]:
    """Bounds over the groups of a column of the label's table, at the recipe's threshold or one half."""
    if frame.target.task != "binary":
        return {}
    table = model.label.table.name
    if column not in workspace.tables.schema(table, versions[table]).names:
        return {f"{word}({column})": Metric(f"{word}({column})", None, f"{table} has no column {column!r}", 0)
                for word in _FAIRNESS}  # fmt: skip
    groups = workspace.tables.read(table, versions[table], columns=[column]).column(column).take(pa.array(test))
    threshold = 0.5 if trained.threshold is None else trained.threshold
    measured = measure_fairness(frame.labels[test], np.asarray(trained.test_scores), groups.to_pylist(),
                                column=column, threshold=threshold)  # fmt: skip
    return {metric.name: metric for metric in measured.metrics}
