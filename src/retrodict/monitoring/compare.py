"""A challenger on the decisions that were already made: scored again from the log, judged on the same outcomes.

It needs no traffic and no waiting, and it sees exactly what the champion saw. What it cannot see is what the
challenger's own decisions would have changed (selective labels): where a decision decides whether there is an outcome
at all, treat the verdict as a first look, and let a rollout decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.display import Block, Facts, Grid, Shown, number
from retrodict.core.errors import InputError, near
from retrodict.decisions.definitions import Policy
from retrodict.decisions.log import decisions_table, read_decisions
from retrodict.evaluation.compare import Comparison, compare_scores
from retrodict.evaluation.metrics import Metric, share
from retrodict.evaluation.reference import feature_column
from retrodict.models.artifact import ModelArtifact
from retrodict.monitoring.outcomes import Outcomes, outcomes
from retrodict.registry import get_version, in_force
from retrodict.stores.sql import query, quote_text
from retrodict.workspace import Workspace

__all__ = ["LogComparison", "Reproduction", "compare_on_log", "reproduce_champion"]


@dataclass(frozen=True, slots=True, repr=False)
class LogComparison(Shown):
    """A challenger against the champion on logged decisions.

    Attributes
    ----------
    policy, champion, challenger : str
        The champion is the version in force; models as ``name@version``.
    decisions, labelled, pending, void : int
        Decisions that were compared, by what is known of their outcomes; only labelled ones enter the verdict.
    set_aside : dict of str to int
        Decisions that were not compared, by reason.
    scores : Comparison
        Differences of AUC and Brier score with their intervals, challenger minus champion.
    agreement : Metric
        Share of the compared decisions on which both would decide the same under the policy's thresholds.
    changes : dict of str to int
        Decisions that would change, as ``"ok -> warn"``, largest first. Those that a rule decided do not change.
    """

    policy: str
    champion: str
    challenger: str
    decisions: int
    labelled: int
    pending: int
    void: int
    set_aside: Mapping[str, int]
    scores: Comparison
    agreement: Metric
    changes: Mapping[str, int]

    @property
    def verdict(self) -> str:
        """``"better"``, ``"worse"`` or ``"inconclusive"``, of the challenger."""
        return self.scores.verdict

    @property
    def reason(self) -> str:
        """In words."""
        return self.scores.reason

    def _counts(self) -> dict[str, int]:
        return {"decisions": self.decisions, "known": self.labelled, "pending": self.pending, "void": self.void}

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "policy": self.policy,
            "champion": f"model:{self.champion}",
            "challenger": f"model:{self.challenger}",
            "verdict": self.verdict,
            "reason": self.reason,
            **self._counts(),
            "set_aside": dict(self.set_aside),
            "changes": dict(self.changes),
            "scores": self.scores.to_dict(),
        }

    def blocks(self) -> Sequence[Block | None]:
        """Verdict, differences with their intervals, and what would change."""
        metrics = [
            (m.name, number(m.value), f"{number(m.low)} to {number(m.high)}", m.reason or "")
            for m in (self.scores.auc_difference, self.scores.brier_difference, self.agreement)
        ]
        return [
            f"{self.challenger} against {self.champion}: {self.verdict}. {self.reason}",
            Facts(self._counts()),
            Grid(("challenger minus champion", "value>", "95 % interval", ""), metrics),
            Grid(("would change", "decisions>"), self.changes.items()) if self.changes else None,
            Grid(("not compared", "decisions>"), self.set_aside.items()) if self.set_aside else None,
        ]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Logged scores computed again from the logged feature values.

    Attributes
    ----------
    checked, mismatches : int
        Decisions with a score, and those whose raw or calibrated score is not the same float64.
    unscored : int
        Decisions without a score: nothing to compute again.
    models : dict of str to (int, int)
        (checked, mismatches) per model version that scored.
    """

    checked: int
    mismatches: int
    unscored: int
    models: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        models = {name: {"checked": n, "mismatches": wrong} for name, (n, wrong) in self.models.items()}
        return {"checked": self.checked, "mismatches": self.mismatches, "unscored": self.unscored, "models": models}


def compare_on_log(
    workspace: Workspace,
    policy: str,
    challenger: str,
    *,
    now: int,
    start: int | None = None,
    end: int | None = None,
) -> LogComparison:
    """Score logged decisions with a challenger and compare it with the champion on the known outcomes.

    With fewer than 100 known outcomes the verdict is inconclusive.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of the policy.
    challenger : str
        Model version, ``name@version``.
    now : int
        As of when outcomes are known. Instants are microseconds since 1970-01-01 UTC.
    start, end : int, optional
        Decisions with ``start <= time < end``; everything up to ``now`` by default.

    Raises
    ------
    InputError
        If the log holds no value at all of a feature that the challenger reads.
    NotFoundError
        If the policy is not deployed at ``now``, or there is no such model version.
    """
    definition = workspace.definitions.get(Policy, policy)
    champion = in_force(workspace, policy, now).deployment.model
    version = get_version(workspace, challenger)
    artifact = ModelArtifact.load(workspace.objects, version.artifact)
    logged = outcomes(workspace, policy, now=now, start=start, end=end)
    if not logged.target.task == artifact.target.task == "binary":
        raise InputError("a comparison on the log must be of a yes or no", where=f"model:{version.ref}",
                         got=artifact.target.task,
                         remedy="Compare runs on the same test rows: the gate better_than_champion")  # fmt: skip
    scored, set_aside = _comparable(workspace, logged, champion, artifact.inputs.names, where=f"model:{version.ref}")
    old, new = (
        scored.column("score").astype(np.float64),
        artifact.score_rows(_columns(scored.decisions, artifact)).score,
    )
    before = ModelArtifact.load(workspace.objects, get_version(workspace, champion).artifact)
    limits = [float(part.metadata.get("threshold", np.nan)) for part in (before, artifact)]
    agreement, changes = _changes(definition, scored.decisions, (old, limits[0]), (new, limits[1]))
    compared = compare_scores(champion=old, challenger=new, labels=scored.label)
    labelled, pending, void = (int((scored.status == status).sum()) for status in ("known", "pending", "void"))
    return LogComparison(
        policy=policy,
        champion=champion,
        challenger=version.ref,
        decisions=len(scored),
        labelled=labelled,
        pending=pending,
        void=void,
        set_aside=set_aside,
        scores=replace(compared, agreement=agreement),
        agreement=agreement,
        changes=changes,
    )


def _comparable(
    workspace: Workspace, every: Outcomes, champion: str, names: tuple[str, ...], *, where: str
) -> tuple[Outcomes, dict[str, int]]:
    """Decisions that the champion scored and whose record has every value the challenger reads."""
    columns = every.decisions.column_names
    missing = [name for name in names if feature_column(name) not in columns]
    if missing and len(every):
        raise InputError("the decision log must hold every feature of the challenger", where=where, got=missing,
                         remedy=f"Run it as a shadow first. {near(missing[0], columns, what='column')}")  # fmt: skip
    scored = ~np.isnan(every.column("score").astype(np.float64))
    ours = every.column("model") == champion
    complete = _complete(workspace, every, names) if len(every) else np.zeros(0, dtype=np.bool_)
    set_aside = {
        "no score": int((~scored).sum()),
        "scored by another version": int((scored & ~ours).sum()),
        "a feature was not logged": int((scored & ours & ~complete).sum()),
    }
    return every.select(scored & ours & complete), {reason: n for reason, n in set_aside.items() if n}


def _complete(workspace: Workspace, every: Outcomes, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Whether each decision's record has all of the features: null says "no value", absent says "never looked"."""
    if not any(every.decisions.column(feature_column(name)).null_count for name in names):
        return np.ones(len(every), dtype=np.bool_)
    times, required = every.decisions.column("time"), set(names)
    span = read_decisions(workspace, policy=every.policy, start=times[0].as_py(), end=times[-1].as_py() + 1)
    complete = {logged.record.id for logged in span if required <= logged.record.features.keys()}
    return np.fromiter((name in complete for name in every.decisions.column("id").to_pylist()), np.bool_, len(every))


def _columns(decisions: pa.Table, artifact: ModelArtifact) -> dict[str, Any]:
    names = [name for name in artifact.inputs.names if feature_column(name) in decisions.column_names]
    if len(names) < len(artifact.inputs.names):  # only a log without decisions gets here
        return {name: pa.nulls(0, pa.float64()) for name in artifact.inputs.names}
    return {name: _merged(decisions, name) for name in names}


def _merged(decisions: pa.Table, name: str) -> Any:
    column = decisions.column(feature_column(name))
    # A column of nothing but nulls is of no type of its own; as floats it would not fit a text category.
    return pa.nulls(len(column)) if column.null_count == len(column) else column.combine_chunks()


def _changes(
    policy: Policy,
    decisions: pa.Table,
    old: tuple[NDArray[np.float64], float],
    new: tuple[NDArray[np.float64], float],
) -> tuple[Metric, dict[str, int]]:
    """Agreement under the thresholds, and what would be decided differently.

    Where the logged decision is not what the champion's score gives, a rule decided: it would decide again.
    """
    if not old[0].size:
        return Metric("agreement", None, "no decisions", 0), {}
    before, after = _decide(policy, *old), _decide(policy, *new)
    logged = decisions.column("decision").to_numpy().astype(str)
    changed = (before != after) & (logged == before)
    pairs, sizes = np.unique(np.stack([before[changed], after[changed]]), axis=1, return_counts=True)
    changes = {f"{a} -> {b}": int(n) for (a, b), n in zip(pairs.T, sizes, strict=True)}
    agreement = share("agreement", int(old[0].size - changed.sum()), old[0].size, "no decisions")
    return agreement, dict(sorted(changes.items(), key=lambda item: (-item[1], item[0])))


def _decide(policy: Policy, scores: NDArray[np.float64], threshold: float) -> NDArray[np.str_]:
    """Decision of each score by the policy's conditions alone, by the same expressions that serve."""
    arms = [
        f"WHEN {condition.to_sql()} THEN {quote_text(decision)}" for decision, condition in policy.thresholds.items()
    ]
    last = quote_text(list(policy.decide)[-1])
    value = f"CASE {' '.join(arms)} ELSE {last} END" if arms else last
    rows = pa.table({"score": scores, "threshold": np.full(scores.size, threshold), "position": np.arange(scores.size)})
    decisions = query(f"SELECT {value} AS decision FROM rows ORDER BY position", rows=rows)
    return np.asarray(decisions.column("decision").to_numpy(), dtype=np.str_)


def reproduce_champion(workspace: Workspace, policy: str) -> Reproduction:
    """Compute logged scores again from the logged feature values, with the version that each record names.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of the policy.

    Returns
    -------
    Reproduction
        No mismatch means equality bit for bit, before and after calibration.
    """
    decisions = decisions_table(workspace, policy)
    scored = decisions.filter(pa.array(~np.isnan(decisions.column("score").to_numpy().astype(np.float64))))
    refs = scored.column("model").to_numpy().astype(str)
    models = {}
    for ref in sorted(set(refs.tolist())):
        part = scored.filter(pa.array(refs == ref))
        artifact = ModelArtifact.load(workspace.objects, get_version(workspace, ref).artifact)
        again = artifact.score_rows(
            {name: _merged(part, name) for name in artifact.inputs.names if feature_column(name) in part.column_names}
        )
        wrong = _differ(part.column("raw"), again.raw) | _differ(part.column("score"), again.score)
        models[ref] = (part.num_rows, int(wrong.sum()))
    mismatches = sum(wrong for _, wrong in models.values())
    return Reproduction(scored.num_rows, mismatches, decisions.num_rows - scored.num_rows, models)


def _differ(logged: pa.ChunkedArray[Any], again: NDArray[np.float64]) -> NDArray[np.bool_]:
    before = np.ascontiguousarray(logged.to_numpy().astype(np.float64))
    return np.asarray(before.view(np.int64) != np.ascontiguousarray(again).view(np.int64))
