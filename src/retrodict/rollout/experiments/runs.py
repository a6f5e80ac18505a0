"""Start, widen and stop experiments; each change is a revision of the policy's deployment, so servers follow at once.

What is kept is what servers need to assign. A definition that was edited while its experiment runs is refused from then
on: the numbers would be of two experiments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from retrodict.core.errors import InputError, NotFoundError, RefusedError, check_known, check_reason
from retrodict.core.identity import content_hash, short
from retrodict.decisions.log import recent_decisions
from retrodict.decisions.requests import RequestSchema
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import Revision, change, current, history
from retrodict.rollout.experiments.definitions import Experiment
from retrodict.workspace import Workspace, capture_code

__all__ = ["ExperimentRun", "adapt", "check_requests", "check_unchanged", "find_run", "find_runs", "halt", "last_plan",
           "record_plan", "start", "stop"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExperimentRun:
    """One time that an experiment ran.

    Attributes
    ----------
    name, policy, version : str
        ``version``: of the definition that was started.
    since, until : int, int or None
        Microseconds since 1970-01-01 UTC; None while it runs.
    state : dict
        As servers have it: weights, seed, share, unit and the plan.
    periods : tuple of (int, dict)
        Revision from which on weights were in force, and the weights, by variant.
    """

    name: str
    policy: str
    version: str
    since: int
    until: int | None
    state: Mapping[str, Any]
    periods: tuple[tuple[int, Mapping[str, float]], ...] = ()


def find_runs(workspace: Workspace, name: str | None = None) -> list[ExperimentRun]:
    """Runs of an experiment, or of all, oldest first."""
    runs: dict[tuple[str, int], ExperimentRun] = {}
    for revision in history(workspace):
        policy = revision.deployment.policy
        states = {state["name"]: state for state in revision.deployment.experiments}
        for key, run in list(runs.items()):
            state = states.get(run.name)
            if run.policy == policy and run.until is None and (state is None or state["since"] != run.since):
                runs[key] = replace(run, until=revision.time)
        for state in states.values():
            key = state["name"], state["since"]
            if "halted" in state:
                runs[key] = replace(runs[key], until=state["until"])
            else:
                periods = runs[key].periods if key in runs else ()
                if not periods or periods[-1][1] != state["variants"]:
                    periods = (*periods, (revision.revision, state["variants"]))
                runs[key] = ExperimentRun(state["name"], policy, state["version"], state["since"], None, state, periods)
    return [run for run in runs.values() if name in (None, run.name)]


def find_run(workspace: Workspace, name: str, policy: str | None = None) -> ExperimentRun:
    """Newest run of an experiment, of any policy or of one; NotFoundError if it never ran."""
    runs = [run for run in find_runs(workspace, name) if policy in (None, run.policy)]
    if not runs:
        raise NotFoundError("the experiment must have been started", where=f"experiment:{name}", got="no run",
                            remedy=f"Start it with: retrodict experiment start {name} --reason WHY")  # fmt: skip
    return runs[-1]


def check_unchanged(experiment: Experiment, run: ExperimentRun) -> None:
    """Refuse a definition that is not the one that was started."""
    if content_hash(experiment) != run.version:
        raise RefusedError("an experiment must be as it was started", where=f"experiment:{experiment.name}",
                           got=f"{short(content_hash(experiment))}, started as {short(run.version)}",
                           remedy="Undo the edit, or stop it and start the new one")  # fmt: skip


def record_plan(workspace: Workspace, experiment: Experiment, facts: Mapping[str, Any]) -> None:
    """Put a plan on record: without one of this very definition there is no start."""
    with workspace.ledger.transaction() as tx:
        tx.append("experiment.plan", f"experiment:{experiment.name}",
                  {"version": content_hash(experiment), "plan": dict(facts)})  # fmt: skip


def last_plan(workspace: Workspace, experiment: Experiment) -> Mapping[str, Any] | None:
    """Newest plan on record of an experiment as it is defined."""
    entries = workspace.ledger.entries(object_id=f"experiment:{experiment.name}", action="experiment.plan")
    plans = [one.payload["plan"] for one in entries if one.payload["version"] == content_hash(experiment)]
    return plans[-1] if plans else None


def check_requests(workspace: Workspace, experiment: Experiment, revision: Revision) -> None:
    """Refuse a unit or a condition of what requests of a deployed policy do not bring, or bring as another kind."""
    artifact = ModelArtifact.load(workspace.objects, revision.deployment.artifact)
    schema = RequestSchema(**artifact.metadata.get("request", {"entities": {}, "context": {}}))
    where = f"experiment:{experiment.name}"
    for name in experiment.unit:
        check_known(name, [*schema.entities, *schema.context], "a unit must be named by a request", where=where,
                    what="name")  # fmt: skip
    schema.check_condition(experiment.where, where=f"{where}, where")


def deployed(workspace: Workspace, experiment: Experiment) -> Revision:
    """What is in force for the policy of an experiment."""
    revision = current(workspace).get(experiment.policy.name)
    if revision is None:
        raise NotFoundError("the policy of an experiment must be deployed", where=f"experiment:{experiment.name}",
                            got=experiment.policy.name,
                            remedy=f"Run: retrodict deploy {experiment.policy.name}")  # fmt: skip
    return revision


def start(
    workspace: Workspace,
    name: str,
    *,
    share: float | None = None,
    weights: Mapping[str, float] | None = None,
    reason: str,
) -> Revision:
    """Begin to assign variants, or raise the share or change the weights of a running experiment.

    Parameters
    ----------
    workspace : Workspace
    name : str
    share : float, optional
        Part of the units that take part; the others have no variant. None: 1, or with ``weights`` as it is.
    weights : mapping of str to float, optional
        From now on, by variant. None: as defined, or as they are.
    reason : str

    Raises
    ------
    RefusedError
        Without a plan of this definition, beside another experiment on the same units of a layer, if the definition
        has changed since the start, or if the share would not rise.
    """
    experiment = workspace.definitions.get(Experiment, name)
    where = f"experiment:{name}"
    check_reason(reason, "an experiment must have a reason", where=where)
    if share is not None and not 0 < share <= 1:
        raise InputError("a share must be above 0 and at most 1", where=where, got=share, remedy="Pass 0.05")
    with workspace.lock(f"rollout/{experiment.policy.name}"):
        revision = deployed(workspace, experiment)
        deployment = revision.deployment
        running = {state["name"]: state for state in deployment.experiments if "halted" not in state}
        if name in running:
            check_unchanged(experiment, find_run(workspace, name))
            before = running[name]["share"]
            after = share or (before if weights else 1.0)
            if after < before or (after == before and not weights):
                raise RefusedError("the share of a running experiment must rise: units that had a variant keep it",
                                   where=where, got=f"{after:g} after {before:g}",
                                   remedy=f"Stop it with: retrodict experiment stop {name} --reason WHY")  # fmt: skip
            state = {**running[name], "share": after}
        else:
            state = _new_state(workspace, experiment, revision, share or 1.0)
        if weights:
            state["variants"] = experiment.weights(weights)
        return _put(workspace, revision, name, state, reason)


def _put(workspace: Workspace, revision: Revision, name: str, state: Mapping[str, Any] | None, reason: str) -> Revision:
    """Put an experiment in force as a state says, or take it out, after a revision that is still the newest."""
    others = [other for other in revision.deployment.experiments if other["name"] != name]
    after = replace(revision.deployment, experiments=[*others, *([] if state is None else [dict(state)])])
    return change(workspace, after, action="experiment", reason=reason, after=revision.revision)


def _new_state(workspace: Workspace, experiment: Experiment, revision: Revision, share: float) -> dict[str, Any]:
    version, where = content_hash(experiment), f"experiment:{experiment.name}"
    plan = last_plan(workspace, experiment)
    if plan is None:
        raise RefusedError("an experiment must be planned, as it is now, before it starts", where=where, got="no plan",
                           remedy=f"Run: retrodict experiment plan {experiment.name}")  # fmt: skip
    check_requests(workspace, experiment, revision)
    decided = [one for one in recent_decisions(workspace) if one.policy == experiment.policy.name]
    sent = (name for one in decided for name in (*one.entities, *one.context, *one.features))
    values = {*experiment.value_names, *sent}
    for name in experiment.names_read:
        check_known(name, values, "metrics and segments must read what decisions have", where=where, what="name")
    _check_layer(workspace, experiment)
    return {
        "name": experiment.name, "version": version, "since": workspace.clock.now(), "unit": list(experiment.unit),
        "seed": f"{experiment.name}@{short(version)}#{revision.revision}", "variants": dict(experiment.variants),
        "share": share, "layer": experiment.layer, "slot": list(experiment.slot), "where": experiment.where,
        "units": plan["units"], "control": experiment.control, "code": capture_code(workspace),
        "watched": bool(experiment.guardrails or experiment.bandit),
    }  # fmt: skip


def _check_layer(workspace: Workspace, experiment: Experiment) -> None:
    """Refuse units of a layer that another running experiment has, of whatever policy."""
    if experiment.layer is None:
        return
    for revision in current(workspace).values():
        for other in revision.deployment.experiments:
            low, high = (1, 0) if "halted" in other else other["slot"]
            if other["layer"] == experiment.layer and low < high and other["unit"] != list(experiment.unit):
                raise RefusedError("experiments of one layer must have one unit", where=f"experiment:{experiment.name}",
                                   got=f"{list(experiment.unit)} beside {other['unit']} of {other['name']}",
                                   remedy="Name another layer, or stop the other one")  # fmt: skip
            if other["layer"] == experiment.layer and low < experiment.slot[1] and experiment.slot[0] < high:
                raise RefusedError("experiments of one layer must have slots of their own",
                                   where=f"experiment:{experiment.name}",
                                   got=f"{list(experiment.slot)} beside {other['slot']} of {other['name']}",
                                   remedy="Move the slot, or stop the other one")  # fmt: skip


def stop(workspace: Workspace, name: str, *, reason: str) -> Revision:
    """Assign no more variants; what was decided stays to be reported on, as outcomes mature."""
    run = find_run(workspace, name)
    with workspace.lock(f"rollout/{run.policy}"):
        revision = current(workspace)[run.policy]
        if all(state["name"] != name for state in revision.deployment.experiments):
            raise RefusedError("an experiment must run to be stopped", where=f"experiment:{name}", got="stopped",
                               remedy=f"See: retrodict experiment report {name}")  # fmt: skip
        return _put(workspace, revision, name, None, reason)


def adapt(workspace: Workspace, revision: Revision, name: str, weights: Mapping[str, float], *, turn: int) -> Revision:
    """Give a running bandit other weights, for the ``turn``-th time that is due.

    Raises
    ------
    BusyError
        If ``revision`` is no longer what decides.
    """
    state = next(one for one in revision.deployment.experiments if one["name"] == name)
    reason = ", ".join(f"{variant} {weight:.4f}" for variant, weight in weights.items())
    return _put(workspace, revision, name, {**state, "variants": dict(weights), "turn": turn}, f"bandit: {reason}")


def halt(workspace: Workspace, revision: Revision, name: str, *, reason: str) -> Revision:
    """End a run and give control to every unit that the experiment can reach, until somebody stops it.

    Raises
    ------
    BusyError
        If ``revision`` is no longer what decides.
    """
    state = next(one for one in revision.deployment.experiments if one["name"] == name)
    control = {"variants": {state["control"]: 1.0}, "share": 1.0, "until": workspace.clock.now(), "halted": reason}
    return _put(workspace, revision, name, {**state, **control}, reason)
