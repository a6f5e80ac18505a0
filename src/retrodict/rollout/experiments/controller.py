"""What happens to a running experiment without anybody: a broken guardrail ends it, a bandit changes its weights.

The controller of rollouts looks on. A look changes nothing and is not on record unless something comes of it: bounds of
guardrails hold at any number of looks. What comes of it is one revision, worked out from the one that decides and
refused if another one came meanwhile; so a controller may be killed anywhere, and several may run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from retrodict.core.display import Record
from retrodict.core.durations import parse_duration
from retrodict.core.errors import BusyError
from retrodict.registry import Revision, current
from retrodict.rollout.experiments.definitions import Experiment
from retrodict.rollout.experiments.report import ExperimentReport, check_arrivals, examine
from retrodict.rollout.experiments.runs import ExperimentRun, adapt, find_run, halt
from retrodict.rollout.experiments.units import propensities, read_units
from retrodict.rollout.statistics import Sums, linearise, thompson_weights
from retrodict.workspace import Workspace, definitions_of

__all__ = ["ExperimentMove", "step_on", "watched"]

_log = logging.getLogger(__name__)
_SPARSE: dict[tuple[Path, str, str], tuple[int, int]] = {}
"""Start and turn of bandits that could not be judged when it was due: what comes in later is of the next turn."""


@dataclass(frozen=True, slots=True)
class ExperimentMove(Record):
    """What was done about a running experiment, and why.

    Attributes
    ----------
    policy, experiment : str
    move : {"wait", "halt", "adapt"}
    reason : str
    """

    policy: str
    experiment: str
    move: str
    reason: str

    @property
    def done(self) -> bool:
        """Whether something was changed."""
        return self.move != "wait"


def watched(workspace: Workspace) -> list[tuple[str, str]]:
    """Policy and name of the running experiments that something has to look on at."""
    return [
        (policy, state["name"]) for policy, revision in current(workspace).items()
        for state in revision.deployment.experiments if state.get("watched") and "halted" not in state
    ]  # fmt: skip


def step_on(workspace: Workspace, policy: str, name: str) -> ExperimentMove:
    """Look at a running experiment once, as it was defined when it started, and do what comes next."""
    try:
        revision, run, now = current(workspace)[policy], find_run(workspace, name, policy), workspace.clock.now()
        experiment = definitions_of(workspace, run.state["code"]).get(Experiment, name)
        if run.until is None and experiment.guardrails and examine(workspace, experiment, run, now=now).stop:
            reason = _broken(examine(workspace, experiment, run, now=now, record=True))
            halt(workspace, revision, name, reason=reason)
            return ExperimentMove(policy, name, "halt", reason)
        if run.until is None and experiment.bandit is not None:
            turn = (now - run.since) // (span := parse_duration(experiment.bandit))
            if turn > run.state.get("turn", 0) and _SPARSE.get((workspace.root, policy, name)) != (run.since, turn):
                return _adapt(workspace, revision, experiment, run, turn, due=run.since + turn * span)
    except BusyError:
        return ExperimentMove(policy, name, "wait", "somebody changes it just now")
    except Exception as error:  # noqa: BLE001  # the others are looked at all the same
        _log.exception("experiment %s of %s has failed, and is tried again", name, policy)
        return ExperimentMove(policy, name, "wait", f"it has failed, and is tried again: {error!r}")
    return ExperimentMove(policy, name, "wait", "no guardrail is shown to be exceeded")


def _adapt(
    workspace: Workspace, revision: Revision, experiment: Experiment, run: ExperimentRun, turn: int, *, due: int
) -> ExperimentMove:
    """Weights by what was known when they were due: however late a controller is, they are the same."""
    rows, primary = read_units(workspace, experiment, replace(run, until=due), now=due), experiment.primary
    (above, below), weight = rows.sums[primary.name], propensities(rows, run)
    arms: dict[str, Sums] = {}
    for name in experiment.variants:
        of_arm = (rows.variant == name) & (below != 0)
        shares = above[of_arm] / weight[of_arm], below[of_arm] / weight[of_arm]
        arms[name] = Sums.of(linearise(*shares) if of_arm.any() else [])
    if "label" in primary.columns and (arrivals := check_arrivals(experiment, run, rows)).verdict == "failure":
        _SPARSE[workspace.root, run.policy, run.name] = run.since, turn
        return ExperimentMove(run.policy, run.name, "wait", f"outcomes are missing from an arm: {arrivals.reason}")
    weights = thompson_weights(arms, floor=experiment.floor, higher=primary.better == "higher")
    if not weights:
        _SPARSE[workspace.root, run.policy, run.name] = run.since, turn
        return ExperimentMove(run.policy, run.name, "wait", "a variant has too few units for other weights")
    change = adapt(workspace, revision, run.name, weights, turn=turn)
    return ExperimentMove(run.policy, run.name, "adapt", change.reason)


def _broken(report: ExperimentReport) -> str:
    broken = [f"guardrail {effect.metric} of {effect.variant}: {effect.contrast.reason}" for effect in report.effects
              if effect.role == "guardrail" and effect.contrast.verdict == "failure"]  # fmt: skip
    if report.balance.verdict == "failure":
        broken.insert(0, "units are missing from an arm, so the numbers may mean little")
    return f"{'; '.join(broken)}; report sha256:{report.digest}"[:2_000]
