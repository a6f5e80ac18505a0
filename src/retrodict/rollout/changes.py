"""Deploy, promote, roll back: each is one new revision, made after everything it needs was checked to be there.

Nothing is switched here; servers look for a new revision twenty times a second and change between two requests. What
decided before is named in the revision, so that servers keep its model warm and a rollback needs no look-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from retrodict.core.errors import InputError, NotFoundError, RefusedError, check_known
from retrodict.core.identity import short
from retrodict.data.columns import check_names
from retrodict.decisions.compiled import check_clear
from retrodict.decisions.definitions import Policy, find_policy
from retrodict.decisions.loader import Loader
from retrodict.decisions.log import recent_decisions
from retrodict.features.definitions import FeatureView
from retrodict.features.online import unbuilt_views
from retrodict.features.plan import FeatureSet
from retrodict.features.verify.verdicts import check_verified, record_override
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import (
    Deployment,
    ModelVersion,
    Revision,
    change,
    current,
    deployable,
    earlier_targets,
    get_version,
    history,
    list_versions,
    passed_over,
    rolled_back,
)
from retrodict.registry.feature_sets import feature_set_of
from retrodict.rollout.rescore import Challenger, Rescorer
from retrodict.workspace import Workspace, capture_code, check_code

__all__ = [
    "check_candidate",
    "check_deployable",
    "check_no_rollout",
    "deploy",
    "find_current",
    "promote",
    "restored",
    "rollback",
    "rollback_targets",
    "without_split",
]


def deploy(
    workspace: Workspace,
    policy: str,
    *,
    model: str | None = None,
    reason: str = "deploy",
    force: str | None = None,
    trial: int = 0,
    max_changes: float = 0.1,
) -> Revision:
    """Put a policy in force, as its definition is now, with a version of its model.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of a defined policy, or of a model that is to be served without one.
    model : str, optional
        ``name@version``; by default the newest approved version of the policy's model.
    reason : str
        For the ledger.
    force : str, optional
        Why views that have not passed verification, or whose state was never built, may serve all the same, for the
        ledger. None: they may not.
    trial : int, default 0
        Newest recorded decisions of the policy that it makes again before anything is switched. An error refuses it.
    max_changes : float, default 0.1
        Share of these that it may decide otherwise.

    Raises
    ------
    RefusedError
        If the version is not approved, a gate did not pass, a view has not passed verification or was never built, or
        the trial went wrong.
    DefinitionError
        If the policy or its model reads a name that does not exist.
    """
    name = find_policy(workspace.definitions, policy).name
    with workspace.lock(f"rollout/{name}"):
        return _put(workspace, policy, model, reason, "deploy", force, (trial, max_changes))


def promote(workspace: Workspace, policy: str, model: str, *, reason: str, force: str | None = None) -> Revision:
    """Let a challenger decide; the champion becomes what a rollback goes back to.

    Raises
    ------
    RefusedError
        If the version is not approved, a gate did not pass, a view has not passed verification, or it decides already.
    """
    name = find_current(workspace, policy).deployment.policy
    with workspace.lock(f"rollout/{name}"):  # two at once would both believe that they change what decides
        before = find_current(workspace, policy)
        if before.deployment.model == get_version(workspace, model).ref:
            raise RefusedError(
                "a promotion must change what decides", where=f"policy:{policy}", got=model, remedy="It decides already"
            )
        return _put(workspace, policy, model, reason, "promote", force)


def _put(
    workspace: Workspace,
    policy: str,
    model: str | None,
    reason: str,
    action: Literal["deploy", "promote"],
    force: str | None,
    trial: tuple[int, float] = (0, 1.0),
) -> Revision:
    definition = find_policy(workspace.definitions, policy)
    before = current(workspace).get(policy)
    if before is not None:
        check_no_rollout(before, f"a {action}")
    deployment, record_overrides = check_deployable(workspace, definition, model, force=force)  # fmt: skip
    if before is not None:
        deployment = replace(deployment, previous=before.deployment.target, **_around(before.deployment))
    # A servant is built once here: what cannot be loaded is refused now, not revision out by a server.
    Loader(workspace).load(Revision(0, 0, workspace.actor, action, reason, deployment))
    if trial[0]:
        reason = f"{reason} ({_try_out(workspace, deployment, *trial)})"
    if model is None and (
        passed := passed_over(workspace, policy, definition.version, list_versions(workspace, definition.model.name))
    ):
        reason = f"{reason} ({'; '.join(passed)}; {deployment.model} is taken)"
    record_overrides(deployment.model)
    return change(workspace, deployment, action=action, reason=reason)


def _try_out(workspace: Workspace, deployment: Deployment, count: int, max_changes: float) -> str:
    """Let what is to be deployed make the newest decisions again, on the values in the log; what came of it."""
    where = f"policy:{deployment.policy}, trial"
    if type(count) is not int or count < 0 or not 0 <= max_changes <= 1:
        raise InputError("a trial must be of a number of decisions, and max_changes a share of them, 0 to 1",
                         where=where, got=(count, max_changes), remedy="Write --trial 1000 --max-changes 0.02 for 2 %"
                         )  # fmt: skip
    logged = [one for one in recent_decisions(workspace, max(20_000, count))
              if one.policy == deployment.policy and one.fallback is None]  # fmt: skip
    records = sorted(logged, key=lambda one: one.time)[-count:]
    if not records:
        raise RefusedError("a trial must be of decisions on record that no fallback made", where=where, got="none",
                           remedy="Deploy it without --trial, or let the policy decide first")  # fmt: skip
    rescorer = Rescorer(workspace, Challenger("trial", policy=deployment.policy, **deployment.target))
    pairs = list(zip(records, rescorer.rescore(records), strict=True))
    errors = Counter(new.error for _, new in pairs if new.error is not None)
    changes = Counter(f"{old.decision} -> {new.decision}" for old, new in pairs
                      if new.error is None and old.decision != new.decision)  # fmt: skip
    if errors or changes.total() > max_changes * len(records):
        raise RefusedError(
            f"a version must make recorded decisions without an error, and at most {max_changes:.4g} of them otherwise",
            where=where, got={"decisions": len(records), "errors": dict(errors), "changes": dict(changes)},
            remedy="See which with: retrodict replay window; or allow more: --max-changes",
        )  # fmt: skip
    return f"trial: {changes.total()} of {len(records)} recorded decisions change"


def check_deployable(
    workspace: Workspace, definition: Policy, model: str | None, *, force: str | None
) -> tuple[Deployment, Callable[[str], None]]:
    """Deployment of a policy as it is defined with a version of its model, which may decide.

    Returns
    -------
    Deployment
        Nothing around it, and nothing before it.
    callable
        Notes in the ledger what ``force`` has let through, for the version that it is given.

    Raises
    ------
    RefusedError, DefinitionError
        As for :func:`deploy`.
    """
    check_names(workspace, definition)
    version = _version(workspace, definition, model)
    _check_approved(version)
    features = feature_set_of(workspace, version.code, version.name)
    overridden = check_verified(workspace, features, version.ref, force=force)
    unbuilt = _check_built(workspace, features, version.ref, force)
    deployment = Deployment(
        policy=definition.name, policy_version=definition.version, code=capture_code(workspace), model=version.ref,
        artifact=version.artifact, model_code=version.code,
    )  # fmt: skip
    check_code(workspace, deployment.code)
    artifact = ModelArtifact.load(workspace.objects, version.artifact)
    check_clear(definition, artifact.inputs.names, artifact.outputs)

    def record_overrides(model: str) -> None:
        if force is not None:
            record_override(workspace, overridden, model, force)
            record_override(workspace, unbuilt, model, force, action="features.unbuilt")

    return deployment, record_overrides


def _check_built(workspace: Workspace, features: FeatureSet, model: str, force: str | None) -> list[FeatureView]:
    """Views whose online state was never built; refused unless there is a reason to let them serve all the same."""
    unbuilt = unbuilt_views(workspace, features)
    if unbuilt and not (force or "").strip():
        raise RefusedError(
            "the online state of every view of a deployed model must have been built",
            where=f"model:{model}",
            got=[view.name for view in unbuilt],
            remedy="Run: retrodict features build; or say why not: --force REASON",
        )
    return unbuilt


def _version(workspace: Workspace, policy: Policy, model: str | None) -> ModelVersion:
    if model is not None:
        version = get_version(workspace, model)
        if version.name != policy.model.name:
            raise InputError(
                "a policy must be served by a version of its own model",
                where=f"policy:{policy.name}",
                got=version.ref,
                remedy=f"Name a version of {policy.model.name}",
            )
        return version
    versions = list_versions(workspace, policy.model.name)
    if candidates := deployable(workspace, policy.name, policy.version, versions):
        return candidates[-1]
    if passed := passed_over(workspace, policy.name, policy.version, versions):
        raise RefusedError(
            "a version that was rolled back from must be named to decide again",
            where=f"policy:{policy.name}",
            got=passed,
            remedy=f"Name it with --model {passed[-1].partition(' ')[0]}, or train another one",
        )
    if versions:
        raise RefusedError(
            "a version of the model must be approved",
            where=f"policy:{policy.name}",
            got=f"{len(versions)} versions, none approved",
            remedy=f"Approve one with: retrodict models approve {versions[-1].ref} --reason '...'",
        )
    raise NotFoundError(
        "the policy's model must have a version",
        where=f"policy:{policy.name}",
        got=policy.model.name,
        remedy=f"Train one with: retrodict train {policy.model.name}",
    )


def check_candidate(workspace: Workspace, deployment: Deployment) -> None:
    """Refuse the version that a rollout brings in what a deployment would: it may have changed since the start.

    Raises
    ------
    RefusedError
        If its approval was taken back.
    RetrodictError
        As :meth:`~retrodict.decisions.loader.Loader.load`, if it is not what was stored, or cannot be loaded.
    """
    assert deployment.split is not None
    candidate = Deployment(deployment.policy, **deployment.split["candidate"])
    _check_approved(get_version(workspace, candidate.model))
    Loader(workspace).load(Revision(0, 0, workspace.actor, "promote", "", candidate))


def _check_approved(version: ModelVersion) -> None:
    failed = {gate["gate"]: gate["status"] for gate in version.gates if gate["status"] != "pass"}
    if failed:
        raise RefusedError(
            "every gate of a deployed version must have passed",
            where=f"model:{version.ref}",
            got=failed,
            remedy=f"Train {version.next_training}",
        )
    if not version.approved:
        raise RefusedError(
            "a deployed version must be approved",
            where=f"model:{version.ref}",
            got="no approval in force",
            remedy=f"Approve it with: retrodict models approve {version.ref} --reason '...'",
        )


def rollback(workspace: Workspace, policy: str, *, reason: str, to: str | int | None = None) -> Revision:
    """Go back to what decided before the present revision, whatever that was approved for then.

    A second rollback goes further back, never forward to what was rolled back from; a revision that deployed the same
    once more is passed over, and so is a version whose approval was taken back. What is left is marked, the model or,
    where only the policy is another one, the policy with it: a deployment or a rollback takes it again only by name.

    No gate, no verification and no trial load of policy and features is in the way: the earlier state decided already,
    and speed is the point. Only the artifact is loaded, to check that its bytes are the ones that were approved.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of a deployed policy.
    reason : str
        For the ledger.
    to : str or int, optional
        A revision (``7``, ``"promise#7"``) or a model version (``"late_parcel@1"``: the newest revision with it) that
        decided before.

    Raises
    ------
    RefusedError
        If nothing decided before, or ``to`` decides now.
    NotFoundError
        If ``to`` never decided for this policy.
    BusyError
        If another change came meanwhile.
    IntegrityError
        If the artifact is not what was stored.
    """
    before = find_current(workspace, policy)
    if before.deployment.split is not None:
        if to is None:
            return change(workspace, without_split(before), action="rollback", reason=reason, after=before.revision)
        check_no_rollout(before, "a rollback to what decided before")
    target = rollback_targets(workspace, policy)[0] if to is None else _named(history(workspace, policy), to)
    deployment = restored(workspace, before.deployment, target)
    return change(workspace, deployment, action="rollback", reason=reason, after=before.revision)


def restored(workspace: Workspace, before: Deployment, target: Revision) -> Deployment:
    """Deployment that a rollback leaves; IntegrityError if the bytes of its model are not those that were approved."""
    ModelArtifact.load(workspace.objects, target.deployment.artifact)
    # Of another rollback it is what that one restored, so that the next goes on from there.
    restores = target.deployment.restores or target.revision
    return replace(target.deployment, restores=restores, split=None, guards={}, **_around(before))


def _around(deployment: Deployment) -> dict[str, Any]:
    """What stays as it is when something else decides: who looks on, what is tried out, whether anything scores."""
    return {"shadows": deployment.shadows, "experiments": deployment.experiments, "halted": deployment.halted}


def check_no_rollout(revision: Revision, what: str) -> None:
    """Refuse a change of what decides while a rollout is under way."""
    split = revision.deployment.split
    if split is not None:
        policy = revision.deployment.policy
        raise RefusedError(f"{what} must wait for the end of a rollout", where=f"policy:{policy}", got=split["rollout"],
                           remedy=f"End it with: retrodict rollout abort {policy} --reason WHY")  # fmt: skip


def without_split(revision: Revision) -> Deployment:
    """Deployment that a rollout leaves when it ends without success: what decided all along, and nothing else."""
    deployment = revision.deployment
    restores = None if deployment.split is None else deployment.split["from"]
    return replace(deployment, split=None, restores=restores)


def rollback_targets(workspace: Workspace, policy: str) -> list[Revision]:
    """What a rollback may go back to, nearest first; RefusedError if there is nothing."""
    revisions = history(workspace, policy)
    targets = [one for one in earlier_targets(revisions) if get_version(workspace, one.deployment.model).approved]
    if not targets:
        marks = [f"{model} by policy {short(version)}" if version else model
                 for version, model in rolled_back(revisions)]  # fmt: skip
        raise RefusedError(
            "something must have decided before the present revision",
            where=f"policy:{policy}",
            got=f"revision {revisions[-1].revision}{', and rolled back from: ' * bool(marks)}{', '.join(marks)}",
            remedy="Deploy another version instead, or name one that was rolled back from with --to",
        )
    return targets


def _named(revisions: Sequence[Revision], to: str | int) -> Revision:
    """Revision that a rollback is told to go back to."""
    present = revisions[-1]
    policy = present.deployment.policy
    name = str(to).removeprefix(f"{policy}#")
    revisions_by_name = {text: one for one in revisions for text in (str(one.revision), one.deployment.model)}
    check_known(
        name, revisions_by_name, "a rollback must go to what decided before", where=f"policy:{policy}", what="revision"
    )
    target = revisions_by_name[name]
    if target.deployment.target == present.deployment.target:
        raise RefusedError(
            "a rollback must change what decides", where=f"policy:{policy}", got=to, remedy="It decides already"
        )
    return target


def find_current(workspace: Workspace, policy: str) -> Revision:
    """Revision of a policy that is in force; NotFoundError if it was never deployed."""
    revision = current(workspace).get(policy)
    if revision is None:
        raise NotFoundError(
            "the policy must be deployed",
            where=f"policy:{policy}",
            got=policy,
            remedy=f"Deploy it with: retrodict deploy {policy}",
        )
    return revision
