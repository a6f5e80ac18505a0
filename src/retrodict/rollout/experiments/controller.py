"""What happens to a running experiment without anybody: a broken guardrail ends it.

The controller of rollouts looks on. A look changes nothing and is not on record unless something comes of it: bounds of
guardrails hold at any number of looks. What comes of it is one revision, worked out from the one that decides and
refused if another one came meanwhile; so a controller may be killed anywhere, and several may run.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrodict.core.display import Record
from retrodict.core.errors import BusyError, RetrodictError
from retrodict.registry import current
from retrodict.rollout.experiments.definitions import Experiment
from retrodict.rollout.experiments.report import ExperimentReport, examine, record_look
from retrodict.rollout.experiments.runs import find_run, halt
from retrodict.workspace import Workspace, definitions_of

__all__ = ["ExperimentMove", "step_on", "watched"]


@dataclass(frozen=True, slots=True)
class ExperimentMove(Record):
    """What was done about a running experiment, and why.

    Attributes
    ----------
    policy, experiment : str
    move : {"wait", "halt"}
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
        report, looks = examine(workspace, experiment, run, now=now)
        if run.until is None and report.stop:
            record_look(workspace, run, report, looks)
            reason = _broken(report)
            halt(workspace, revision, name, reason=reason)
            return ExperimentMove(policy, name, "halt", reason)
    except BusyError:
        return ExperimentMove(policy, name, "wait", "somebody changes it just now")
    except RetrodictError as error:  # the others are looked at all the same
        return ExperimentMove(policy, name, "wait", str(error))
    return ExperimentMove(policy, name, "wait", "no guardrail is shown to be exceeded")


def _broken(report: ExperimentReport) -> str:
    broken = [f"guardrail {effect.metric} of {effect.variant}: {effect.contrast.reason}" for effect in report.effects
              if effect.role == "guardrail" and effect.contrast.verdict == "failure"]  # fmt: skip
    if report.balance.verdict == "failure":
        broken.insert(0, "units are missing from an arm, so the numbers may mean little")
    return f"{'; '.join(broken)}; report sha256:{report.digest}"[:2_000]
