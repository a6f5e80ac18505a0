"""Is everything there that a rollback needs, and how long does a switch take? Asked before it has to be.

Each version is loaded in a fresh process, which knows nothing that the present one has in its memory, and computes its
own recorded decisions again, bit for bit. Loading without deciding was rejected: a library of another version loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

from retrodict.core.display import Block, Grid, Record, Shown, number
from retrodict.core.errors import InputError, RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.decisions.loader import Loader
from retrodict.decisions.log import recent_decisions
from retrodict.decisions.records import DecisionRecord
from retrodict.features.online import unbuilt_views
from retrodict.registry import Revision
from retrodict.registry.feature_sets import feature_set_of
from retrodict.rollout.changes import find_current, rollback_targets
from retrodict.rollout.pairs import Reproducer
from retrodict.workspace import Workspace

__all__ = ["DrillReport", "VersionDrill", "drill"]

_RECENT = 20_000  # newest decisions of each stream of the log in which those of a version are looked for


@dataclass(frozen=True, slots=True)
class VersionDrill(Record):
    """What came of one version.

    Attributes
    ----------
    revision : int
        With which it decided.
    model : str
        ``name@version``.
    problem : str or None
        Why it could not be deployed now; None where it could.
    checked, mismatches : int
        Of its recorded decisions those that were made again, and those that came out otherwise. Where there is none,
        the rows that every artifact carries were scored again.
    load_ms, switch_ms : float or None
        Milliseconds that a server needs for it: anew, and where it has had it in memory before.
    """

    revision: int
    model: str
    problem: str | None
    checked: int = 0
    mismatches: int = 0
    load_ms: float | None = None
    switch_ms: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class DrillReport(Shown):
    """A drill of a policy: what decides first, then what a rollback may go back to, nearest first."""

    policy: str
    versions: tuple[VersionDrill, ...]
    keep: int

    @property
    def ok(self) -> bool:
        """Whether all of them could be deployed."""
        return all(one.problem is None for one in self.versions)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {"policy": self.policy, "ok": self.ok, "keep": self.keep,
                "versions": [one.to_dict() for one in self.versions]}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """One line for each version."""
        rows = [(f"{self.policy}#{one.revision}", one.model, "fails" if one.problem else "deployable", one.checked,
                 one.mismatches, number(one.load_ms), number(one.switch_ms)) for one in self.versions]  # fmt: skip
        bad, total = sum(one.problem is not None for one in self.versions), len(self.versions)
        few = f"; there are no {self.keep} to keep yet" if total < self.keep else ""
        columns = ("revision", "model", "verdict", "decisions>", "unlike>", "load ms>", "switch ms>")
        return [
            f"{self.policy}: {total - bad} of {total} versions could decide at once{few}.",
            *(f"{one.model} fails: {one.problem}" for one in self.versions if one.problem),
            Grid(columns, rows),
        ]


def drill(workspace: Workspace, policy: str, *, keep: int = 3, decisions: int = 100) -> DrillReport:
    """Load what decides and what a rollback may go back to, each in a process of its own, and let it decide again.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of a deployed policy.
    keep : int, default 3
        Versions, the present one among them.
    decisions : int, default 100
        Newest recorded decisions of each that are made again.

    Raises
    ------
    RefusedError
        If there is nothing to roll back to.
    """
    if keep < 2 or decisions < 0:
        raise InputError("a drill must be of two versions at least", where=f"policy:{policy}", got=(keep, decisions),
                         remedy="Leave --keep out: it is 3")  # fmt: skip
    present = find_current(workspace, policy)
    targets = [replace(one, deployment=replace(one.deployment, split=None, halted=None))
               for one in [present, *rollback_targets(workspace, policy)[: keep - 1]]]  # fmt: skip
    logged = [record for record in recent_decisions(workspace, _RECENT) if record.policy == policy]
    report = DrillReport(policy, tuple(_apart(workspace, targets[0], one, logged, decisions) for one in targets), keep)
    body = workspace.objects.put(canonical_json(report.to_dict()))
    facts = {"report": body, "objects": [body], "ok": report.ok,
             "problems": {one.model: one.problem for one in report.versions if one.problem}}  # fmt: skip
    with workspace.ledger.transaction() as tx:
        tx.append("rollback.drill", f"drill:{policy}", facts, inputs=[
            (f"model:{one.model}", "could decide" if one.problem is None else "could not") for one in report.versions
        ])  # fmt: skip
    return report


def _apart(
    workspace: Workspace, present: Revision, target: Revision, logged: Sequence[DecisionRecord], count: int
) -> VersionDrill:
    one = target.deployment
    records = [record for record in logged if (record.artifact, record.policy_version, record.code)
               == (one.artifact, one.policy_version, one.code)]  # fmt: skip
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            newest = sorted(records, key=lambda record: record.time)[-count:] if count else []
            return pool.submit(_load, workspace.root, present, target, newest).result()
    except BrokenProcessPool:
        return VersionDrill(target.revision, one.model, "the process that loaded it ended")


def _load(root: Path, present: Revision, target: Revision, records: Sequence[DecisionRecord]) -> VersionDrill:
    """In a process of its own: load a version as a server does, switch to it twice, and let it decide again."""
    about, times = (target.revision, target.deployment.model), []
    with Workspace(root) as workspace:
        loader = Loader(workspace)
        try:
            for _ in range(2):
                began = perf_counter()
                loader.load(target)
                times.append(round((perf_counter() - began) * 1e3, 3))
                if target.revision != present.revision:
                    loader.load(present)
            features = feature_set_of(workspace, target.deployment.model_code, about[1].partition("@")[0])
            if views := unbuilt_views(workspace, features):
                return VersionDrill(*about, f"no online state of {', '.join(view.name for view in views)}: build it")
            verdicts = [one for one in Reproducer(workspace).check(records) if one is not None]
        except RetrodictError as error:
            return VersionDrill(*about, str(error))
        except Exception as error:  # noqa: BLE001  # code of a definitions module may raise anything
            return VersionDrill(*about, type(error).__name__)
        wrong = verdicts.count(False)
        problem = f"{wrong} of {len(verdicts)} recorded decisions come out otherwise" if wrong else None
        return VersionDrill(*about, problem, len(verdicts), wrong, *times)
