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
from retrodict.core.tasks import Target
from retrodict.decisions.definitions import Policy, find_policy
from retrodict.decisions.log import decisions_table, read_decisions
from retrodict.evaluation.compare import Comparison, OutputComparison, compare_outputs, compare_scores
from retrodict.evaluation.metrics import Metric, share
from retrodict.evaluation.reference import feature_column
from retrodict.models.artifact import ModelArtifact
from retrodict.outcomes.status import Outcomes, outcomes
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
    scores : Comparison or OutputComparison
        Differences of AUC and Brier score with their intervals, challenger minus champion; of another task than yes or
        no the difference of mean losses.
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
    scores: Comparison | OutputComparison
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
            for m in (*_differences(self.scores), self.agreement)
        ]
        return [
            f"{self.challenger} against {self.champion}: {self.verdict}. {self.reason}",
            Facts(self._counts()),
            Grid(("challenger minus champion", "value>", "95 % interval", ""), metrics),
            Grid(("would change", "decisions>"), self.changes.items()) if self.changes else None,
            Grid(("not compared", "decisions>"), self.set_aside.items()) if self.set_aside else None,
        ]


def _differences(scores: Comparison | OutputComparison) -> tuple[Metric, ...]:
    if isinstance(scores, OutputComparison):
        return (scores.difference,)
    return scores.auc_difference, scores.brier_difference


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
    definition = find_policy(workspace.definitions, policy)
    champion = in_force(workspace, policy, now).deployment.model
    version = get_version(workspace, challenger)
    artifact = ModelArtifact.load(workspace.objects, version.artifact)
    logged = outcomes(workspace, policy, now=now, start=start, end=end)
    if logged.target != artifact.target or artifact.target.task == "ranking":
        raise InputError(
            "a challenger on the log must predict what the champion does, row by row", where=f"model:{version.ref}",
            got=artifact.target.task,
            remedy="Compare runs on the same test rows: the gate better_than_champion",
        )  # fmt: skip
    scored, set_aside = _comparable(workspace, logged, champion, artifact.inputs.names, where=f"model:{version.ref}")
    answers = np.asarray(artifact.score_rows(_columns(scored.decisions, artifact)).score)
    before = ModelArtifact.load(workspace.objects, get_version(workspace, champion).artifact)
    old, new = _logged_outputs(scored.decisions, before), _named_outputs(artifact, answers)
    agreement, changes = _changes(definition, scored.decisions, old, new)
    compared = _compare(artifact.target, scored, answers, agreement)
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
        scores=compared,
        agreement=agreement,
        changes=changes,
    )


def _compare(
    target: Target, scored: Outcomes, answers: NDArray[np.float64], agreement: Metric
) -> Comparison | OutputComparison:
    """Verdict over the known outcomes; spans around the outputs are not judged."""
    if target.task == "binary":
        champion = scored.column("score").astype(np.float64)
        pair = compare_scores(champion=champion, challenger=answers, labels=scored.label)
        return replace(pair, agreement=agreement)
    count = target.columns
    challenger = answers if answers.ndim == 1 else answers[:, 0] if count == 1 else answers[:, :count]
    return compare_outputs(champion=scored.outputs(), challenger=challenger, labels=scored.label, target=target)


def _named_outputs(artifact: ModelArtifact, answers: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Outputs by the names that a policy reads, the threshold of the recipe among them."""
    columns = answers.T if answers.ndim == 2 else [answers]
    limit = np.full(len(answers), float(artifact.metadata.get("threshold", np.nan)))
    return {**dict(zip([n for n in artifact.outputs if n != "threshold"], columns, strict=True)), "threshold": limit}


def _logged_outputs(decisions: pa.Table, artifact: ModelArtifact) -> dict[str, NDArray[np.float64]]:
    """The same of the log."""
    names = [name for name in artifact.outputs if name != "threshold"]
    columns = [decisions.column("score" if name == "score" else f"output__{name}").to_numpy() if decisions.num_rows
               else np.empty(0) for name in names]  # fmt: skip
    return _named_outputs(artifact, np.stack([column.astype(np.float64) for column in columns], axis=1)
                          if len(columns) > 1 else columns[0].astype(np.float64))  # fmt: skip


def _comparable(
    workspace: Workspace, every: Outcomes, champion: str, names: tuple[str, ...], *, where: str
) -> tuple[Outcomes, dict[str, int]]:
    """Decisions that the champion scored and whose record has every value the challenger reads."""
    columns = every.decisions.column_names
    missing = [name for name in names if feature_column(name) not in columns]
    if missing and len(every):
        raise InputError("the decision log must hold every feature of the challenger", where=where, got=missing,
                         remedy=f"Run it as a shadow first. {near(missing[0], columns, what='column')}")  # fmt: skip
    outputs = every.outputs()
    scored = ~np.isnan(outputs if outputs.ndim == 1 else outputs[:, 0])
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
    old: Mapping[str, NDArray[np.float64]],
    new: Mapping[str, NDArray[np.float64]],
) -> tuple[Metric, dict[str, int]]:
    """Agreement under the thresholds, and what would be decided differently.

    Where the logged decision is not what the champion's score gives, a rule decided: it would decide again.
    """
    size = decisions.num_rows
    if not size:
        return Metric("agreement", None, "no decisions", 0), {}
    before, after = _decide(policy, old, size), _decide(policy, new, size)
    logged = decisions.column("decision").to_numpy().astype(str)
    changed = (before != after) & (logged == before)
    pairs, sizes = np.unique(np.stack([before[changed], after[changed]]), axis=1, return_counts=True)
    changes = {f"{a} -> {b}": int(n) for (a, b), n in zip(pairs.T, sizes, strict=True)}
    agreement = share("agreement", int(size - changed.sum()), size, "no decisions")
    return agreement, dict(sorted(changes.items(), key=lambda item: (-item[1], item[0])))


def _decide(policy: Policy, outputs: Mapping[str, NDArray[np.float64]], size: int) -> NDArray[np.str_]:
    """Decision of each row's outputs by the policy's conditions alone, by the same expressions that serve."""
    arms = [
        f"WHEN {condition.to_sql()} THEN {quote_text(decision)}" for decision, condition in policy.thresholds.items()
    ]
    last = quote_text(policy.otherwise)
    value = f"CASE {' '.join(arms)} ELSE {last} END" if arms else last
    columns = {name: np.ascontiguousarray(values) for name, values in outputs.items()}
    rows = pa.table({**columns, "position": np.arange(size)})
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
    answers = [name for name in decisions.column_names if name == "score" or name.startswith("output__")]
    present = [~np.isnan(decisions.column(name).to_numpy().astype(np.float64)) for name in answers]
    scored = decisions.filter(pa.array(np.logical_or.reduce(present)))
    refs = scored.column("model").to_numpy().astype(str)
    models = {}
    for ref in sorted(set(refs.tolist())):
        part = scored.filter(pa.array(refs == ref))
        artifact = ModelArtifact.load(workspace.objects, get_version(workspace, ref).artifact)
        again = artifact.score_rows(
            {name: _merged(part, name) for name in artifact.inputs.names if feature_column(name) in part.column_names}
        )
        wrong = _differ(part.column("raw"), again.raw) if again.raw.ndim == 1 else np.zeros(part.num_rows, np.bool_)
        for name, values in _named_outputs(artifact, np.asarray(again.score)).items():
            if name != "threshold":
                wrong |= _differ(part.column("score" if name == "score" else f"output__{name}"), values)
        models[ref] = (part.num_rows, int(wrong.sum()))
    mismatches = sum(wrong for _, wrong in models.values())
    return Reproduction(scored.num_rows, mismatches, decisions.num_rows - scored.num_rows, models)


def _differ(logged: pa.ChunkedArray[Any], again: NDArray[np.float64]) -> NDArray[np.bool_]:
    before = np.ascontiguousarray(logged.to_numpy().astype(np.float64))
    return np.asarray(before.view(np.int64) != np.ascontiguousarray(again).view(np.int64))
