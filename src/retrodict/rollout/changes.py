"""Deploy, promote, roll back: each is one new revision, made after everything it needs was checked to be there.

Nothing is switched here; servers look for a new revision twenty times a second and change between two requests. What
decided before is named in the revision, so that servers keep its model warm and a rollback needs no look-up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from retrodict.core.errors import InputError, NotFoundError, RefusedError
from retrodict.decisions.definitions import Policy
from retrodict.decisions.loader import Loader
from retrodict.features.verify.verdicts import check_verified, record_override
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import Deployment, ModelVersion, Revision, change, current, get_version
from retrodict.registry.feature_sets import feature_set_of
from retrodict.workspace import Workspace, capture_code

__all__ = ["deploy", "promote", "rollback"]


def deploy(
    workspace: Workspace,
    policy: str,
    *,
    model: str | None = None,
    reason: str = "deploy",
    unverified: str | None = None,
) -> Revision:
    """Put a policy in force, as its definition is now, with a version of its model.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of a defined policy.
    model : str, optional
        ``name@version``; by default the newest approved version of the policy's model.
    reason : str
        For the ledger.
    unverified : str, optional
        Why views that have not passed verification may serve all the same, for the ledger. None: they may not.

    Raises
    ------
    RefusedError
        If the version is not approved, a gate did not pass, or a view has not passed verification.
    """
    name = workspace.definitions.get(Policy, policy).name
    with workspace.lock(f"rollout/{name}"):
        return _put(workspace, policy, model, reason, "deploy", unverified)


def promote(workspace: Workspace, policy: str, model: str, *, reason: str, unverified: str | None = None) -> Revision:
    """Let a challenger decide; the champion becomes what a rollback goes back to.

    Raises
    ------
    RefusedError
        If the version is not approved, a gate did not pass, a view has not passed verification, or it decides already.
    """
    name = _current(workspace, policy).deployment.policy
    with workspace.lock(f"rollout/{name}"):  # two at once would both believe that they change what decides
        before = _current(workspace, policy)
        if before.deployment.model == get_version(workspace, model).ref:
            raise RefusedError(
                "a promotion must change what decides", where=f"policy:{policy}", got=model, remedy="It decides already"
            )
        return _put(workspace, policy, model, reason, "promote", unverified)


def _put(
    workspace: Workspace,
    policy: str,
    model: str | None,
    reason: str,
    action: Literal["deploy", "promote"],
    unverified: str | None,
) -> Revision:
    definition = workspace.definitions.get(Policy, policy)
    version = _version(workspace, definition, model)
    _check_approved(version)
    features = feature_set_of(workspace, version.code, version.name)
    overridden = check_verified(workspace, features, version.ref, unverified=unverified)
    deployment = Deployment(
        policy=policy, policy_version=definition.version, code=capture_code(workspace), model=version.ref,
        artifact=version.artifact, model_code=version.code,
    )  # fmt: skip
    before = current(workspace).get(policy)
    if before is not None:
        deployment = replace(deployment, previous=_as_previous(before.deployment))
    # A servant is built once here: what cannot be loaded is refused now, not revision out by a server.
    Loader(workspace).load(Revision(0, 0, workspace.actor, action, reason, deployment))
    if overridden and unverified is not None:
        record_override(workspace, overridden, version.ref, unverified)
    return change(workspace, deployment, action=action, reason=reason)


def _version(workspace: Workspace, policy: Policy, model: str | None) -> ModelVersion:
    from retrodict.registry import list_versions

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
    approved = [version for version in versions if version.approved and version.gates_passed]
    if versions and not approved:
        raise RefusedError(
            "a version of the model must be approved",
            where=f"policy:{policy.name}",
            got=f"{len(versions)} versions, none approved",
            remedy=f"Approve one with: retrodict models approve {versions[-1].ref} --reason '...'",
        )
    if not approved:
        raise NotFoundError(
            "the policy's model must have a version",
            where=f"policy:{policy.name}",
            got=policy.model.name,
            remedy=f"Train one with: retrodict train {policy.model.name}",
        )
    return approved[-1]


def _check_approved(version: ModelVersion) -> None:
    failed = {gate["gate"]: gate["status"] for gate in version.gates if gate["status"] != "pass"}
    if failed:
        raise RefusedError(
            "every gate of a deployed version must have passed",
            where=f"model:{version.ref}",
            got=failed,
            remedy="Train a better version",
        )
    if not version.approved:
        raise RefusedError(
            "a deployed version must be approved",
            where=f"model:{version.ref}",
            got="no approval in force",
            remedy=f"Approve it with: retrodict models approve {version.ref} --reason '...'",
        )


def _as_previous(deployment: Deployment) -> dict[str, str]:
    names = ("policy_version", "code", "model", "artifact", "model_code")
    return {name: getattr(deployment, name) for name in names}


def rollback(workspace: Workspace, policy: str, *, reason: str) -> Revision:
    """Go back to what decided before the present revision, whatever that was approved for then.

    No gate, no verification and no trial load of policy and features is in the way: the earlier state decided already,
    and speed is the point. Only the artifact is loaded, to check that its bytes are the ones that were approved.

    Raises
    ------
    RefusedError
        If nothing decided before.
    IntegrityError
        If the artifact is not what was stored.
    """
    before = _current(workspace, policy)
    earlier = before.deployment.previous
    if earlier is None:
        raise RefusedError(
            "something must have decided before the present revision",
            where=f"policy:{policy}",
            got=f"revision {before.revision}",
            remedy="Deploy another version instead",
        )
    names = ("policy_version", "code", "model", "artifact", "model_code")
    deployment = Deployment(
        policy=policy, **{name: earlier[name] for name in names}, previous=_as_previous(before.deployment)
    )
    ModelArtifact.load(workspace.objects, deployment.artifact)
    return change(workspace, deployment, action="rollback", reason=reason)


def _current(workspace: Workspace, policy: str) -> Revision:
    revision = current(workspace).get(policy)
    if revision is None:
        raise NotFoundError(
            "the policy must be deployed",
            where=f"policy:{policy}",
            got=policy,
            remedy=f"Deploy it with: retrodict deploy {policy}",
        )
    return revision
