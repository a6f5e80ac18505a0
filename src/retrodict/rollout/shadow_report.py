"""What shadows made of the requests they looked on to: one report each, and how they differ from one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.display import Block, Facts, Grid, Shown, number
from retrodict.core.errors import check_known
from retrodict.decisions.loader import load_policy
from retrodict.decisions.log import read_decisions
from retrodict.registry import TARGET, Deployment, history
from retrodict.rollout.pairs import PAIRS, pairs_table
from retrodict.rollout.report import ChallengerReport, report_pairs
from retrodict.rollout.rescore import Challenger, champion_of, compared_policy
from retrodict.rollout.shadows import ShadowResult, read_batches, shadow_id
from retrodict.workspace import Workspace

__all__ = ["ShadowReport", "ShadowTally", "report_shadows"]


@dataclass(frozen=True, slots=True, repr=False)
class ShadowTally:
    """One shadow: its report, and what became of the decisions that it was to look on to.

    Attributes
    ----------
    report : ChallengerReport
    running : bool
        Whether it looks on now.
    waiting, dropped, by_itself : int
        Decisions without a result yet, those it was too slow for, and those that its own version and rules have made:
        comparing these would show agreement that is none.
    pairs : pyarrow.Table
        A row per decision, see :data:`~retrodict.rollout.pairs.PAIRS`.
    """

    report: ChallengerReport
    running: bool
    waiting: int
    dropped: int
    by_itself: int
    pairs: pa.Table

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {**self.report.to_dict(), "running": self.running, "waiting": self.waiting, "dropped": self.dropped,
                "by_itself": self.by_itself}  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class ShadowReport(Shown):
    """Shadows of a policy, those that run first.

    Attributes
    ----------
    policy : str
    shadows : list of ShadowTally
    diversity : list of dict
        Per pair of shadows on the same requests: share that they decide differently, correlation of their scores.
    """

    policy: str
    shadows: list[ShadowTally]
    diversity: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {"policy": self.policy, "shadows": [one.to_dict() for one in self.shadows], "diversity": self.diversity}

    def blocks(self) -> Sequence[Block | None]:
        """One line each, then each report."""
        if not self.shadows:
            return [f"No shadow of {self.policy} has looked on. Start one with: retrodict shadow start {self.policy}"]
        lines = [
            (one.report.challenger.name, "yes" if one.running else "no", one.report.decisions, one.waiting, one.dropped,
             one.by_itself, number(one.report.agreement.value), one.report.verdict) for one in self.shadows
        ]  # fmt: skip
        columns = ("shadow", "runs", "decisions>", "waiting>", "dropped>", "its own>", "agreement>", "verdict")
        pairs = [(one["first"], one["second"], one["requests"], number(one["disagreement"]), number(one["correlation"]))
                 for one in self.diversity]  # fmt: skip
        blocks: list[Block | None] = [Grid(columns, lines)]
        if pairs:
            blocks.append(Grid(("shadow", "and", "requests>", "differ>", "correlation>"), pairs))
        for one in self.shadows:
            blocks += [Facts({"shadow": one.report.challenger.name}), *one.report.blocks()]
        return blocks


def report_shadows(
    workspace: Workspace, policy: str, *, now: int, by: Iterable[str] = (), name: str | None = None
) -> ShadowReport:
    """Report of the shadows of a policy, or of those of one name.

    Parameters
    ----------
    workspace : Workspace
    policy : str
    now : int
        As of when outcomes are known, microseconds since 1970-01-01 UTC.
    by : iterable of str
        Entities, context values or features whose groups are reported one by one.
    name : str, optional

    Raises
    ------
    NotFoundError
        If the policy is not deployed, or it never had a shadow of the name.
    """
    running = {shadow_id(policy, shadow) for shadow in champion_of(workspace, policy).shadows}
    revisions = {one.revision: [(shadow_id(policy, s), s) for s in one.deployment.shadows]
                 for one in history(workspace, policy)}  # fmt: skip
    every = {key: Challenger(**shadow) for shadows in revisions.values() for key, shadow in shadows}
    if name is not None:
        names = {one.name for one in every.values()}
        check_known(name, names, "the policy must have had a shadow of this name", where=f"policy:{policy}",
                    what="shadow")  # fmt: skip
        every = {key: one for key, one in every.items() if one.name == name}
    results: dict[str, dict[str, ShadowResult]] = {key: {} for key in every}
    dropped: Counter[str] = Counter()
    for batch in read_batches(workspace):
        dropped.update({key: count for key, count in batch.dropped.items() if key in every})
        for result in batch.results:
            if result.shadow in results:
                results[result.shadow][result.id] = result
    expected: Counter[str] = Counter()
    by_itself: Counter[str] = Counter()
    is_own = lru_cache(maxsize=None)(partial(_is_own, workspace))
    records: dict[str, list[Any]] = {key: [] for key in every}
    for logged in read_decisions(workspace, policy=policy):
        for key, _ in revisions.get(logged.record.revision, ()):
            if key in every:
                record, shadow = logged.record, every[key]
                same = (record.policy, record.model) == (shadow.policy, shadow.model)
                if same and is_own(shadow, record.policy_version, record.code):
                    by_itself[key] += 1
                    continue
                expected[key] += 1
                if logged.record.id in results[key]:
                    records[key].append(logged.record)
    definition, tallies = compared_policy(workspace, policy), []
    for key in sorted(every, key=lambda one: (one not in running, -expected[one])):
        part = records[key]
        pairs = pairs_table(part, [results[key][record.id].rescore() for record in part], by=by) if part else \
            PAIRS.empty_table()  # fmt: skip
        report = report_pairs(workspace, definition, every[key], pairs, now=now)
        waiting = max(expected[key] - len(part) - dropped[key], 0)
        tallies.append(ShadowTally(report, key in running, waiting, dropped[key], by_itself[key], pairs))
    return ShadowReport(policy, tallies, _diversity(results, every))


def _is_own(workspace: Workspace, shadow: Challenger, policy_version: str, code: str) -> bool:
    """Whether a decision of the shadow's model was made by the shadow's rules; the recipe of its model may differ."""
    if policy_version == shadow.policy_version:
        return True
    mine = {name: getattr(shadow, name) for name in TARGET}
    old, new = (load_policy(workspace, Deployment(shadow.policy, **facts))
                for facts in (mine, {**mine, "policy_version": policy_version, "code": code}))  # fmt: skip
    return replace(old, model=new.model).version == new.version


def _diversity(
    results: Mapping[str, Mapping[str, ShadowResult]], challengers: Mapping[str, Challenger]
) -> list[dict[str, Any]]:
    rows = []
    for first, second in combinations([key for key, part in results.items() if part], 2):
        pairs = [(a, results[second][id_]) for id_, a in results[first].items() if id_ in results[second]]
        pairs = [(a, b) for a, b in pairs if a.error is None and b.error is None]
        if not pairs:
            continue
        scores = np.array([(a.score, b.score) for a, b in pairs if None not in (a.score, b.score)], dtype=np.float64)
        varied = len(scores) > 1 and scores.std(axis=0).min() > 0
        rows.append({
            "first": challengers[first].name, "second": challengers[second].name, "requests": len(pairs),
            "disagreement": float(np.mean([a.decision != b.decision for a, b in pairs])),
            "correlation": float(np.asarray(np.corrcoef(scores.T))[0, 1]) if varied else None,
        })  # fmt: skip
    return rows
