"""Revisions of a policy that can be asked: the one in force, and those before it while they are warm.

Kept are those of two versions, what decides now and what decided before it, where a version is a policy by its content
and a model by its artifact. Halts, releases, experiments, shadows and steps of a rollout make revisions of the same
version, so none of them takes an earlier version away from who has pinned it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from retrodict.core.errors import InputError, NotFoundError, RefusedError, RetryableError
from retrodict.decisions.loader import find_servant
from retrodict.decisions.records import DecisionRecord
from retrodict.decisions.requests import unread_warnings
from retrodict.decisions.servant import Servant
from retrodict.serving.batch import BatchItem
from retrodict.serving.http_answer import REPLAYED, RETRY, HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import HttpRequest, read_header
from retrodict.serving.idempotency import check_request_id

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["asked_servant", "decide_by", "keep_warm", "names", "of_version", "servant_named", "warm", "warnings_of"]

_VERSION = b"retrodict-version"
_NUMBER = re.compile(r"[1-9][0-9]{0,17}").fullmatch
_MOST = 16  # revisions of a version that are kept; parts that they share are there once


def names(app: DecisionApp) -> list[str]:
    """What can be asked; a version of a model that is served beside others, NAME@VERSION, is no name of its own."""
    return [name for name in app.servants if "@" not in name]


def servant_named(app: DecisionApp, name: str, *, where: str = "address", alone: bool = False) -> Servant:
    """Servant in force; NotFoundError speaks of models where it is a model that is asked ``alone``."""
    what = "model" if alone or app.part == "models" else "policy"
    return find_servant(app.servants, name, where=where, what=what)


def warm(app: DecisionApp, name: str) -> list[Servant]:
    """Servant in force of a policy, and those before it while they can be asked; of a model alone every version."""
    servants = [*([app.servants[name]] if name in app.servants else []), *app.earlier.get(name, ())]
    servants += [servant for key, servant in app.servants.items() if key.startswith(f"{name}@")]
    versions: dict[int, Servant] = {}
    for servant in servants:
        versions.setdefault(servant.revision.revision, servant)
    return list(versions.values())


def warnings_of(app: DecisionApp, record: DecisionRecord) -> list[str]:
    """What the caller of a decision should know: values that were sent, and that nothing which decided it reads."""
    servant = app.servants.get(record.policy)
    if servant is not None and servant.revision.revision != record.revision:
        servant = next((one for one in warm(app, record.policy) if one.revision.revision == record.revision), None)
    if servant is None or not (unread := servant.unread(record.context)):
        return []
    model = servant.policy.policy.model
    moment = frozenset(model.parsed_decide_at.columns) if model.timed else frozenset()
    return unread_warnings(unread, servant.reads, moment)


def keep_warm(app: DecisionApp, servants: Mapping[str, Servant]) -> dict[str, tuple[Servant, ...]]:
    """Those that can be asked beside what comes into force, newest first: a halt is of the policy, whoever is asked."""
    current = {version for servant in servants.values() for version in servant.views}
    earlier: dict[str, tuple[Servant, ...]] = {}
    for name, now in servants.items():
        before = app.servants.get(name)
        candidates = [*([] if before is None or before is now else [before]), *app.earlier.get(name, ())]
        versions: dict[tuple[str, str], list[Servant]] = {_version(now): []}
        for one in candidates:
            if one.revision.deployment.halted is None and one.views <= current:
                versions.setdefault(_version(one), []).append(one)
        revisions = [one for group in [*versions.values()][:2] for one in group[:_MOST]]
        for servant in revisions:
            servant.cache = None  # which is of one that is in force
            servant.halt(now.halted)
        if revisions:
            earlier[name] = tuple(revisions)
    return earlier


def _version(servant: Servant) -> tuple[str, str]:
    deployed = servant.revision.deployment
    return deployed.policy_version, deployed.artifact


def of_version(app: DecisionApp, name: str, version: str | None, *, where: str) -> list[Servant]:
    """Those of a version that are warm; all of them for None.

    Raises
    ------
    InputError
        If the version is no number.
    NotFoundError
        If it is none of them; the message names those that there are.
    """
    servants = warm(app, name)
    numbers = " or ".join(str(one.revision.revision) for one in servants)
    if version is not None and not _NUMBER(version):
        raise InputError("a version must be asked for by its number", where=where, got="something else",
                         remedy=f"Ask for {numbers}, or for none")  # fmt: skip
    matches = [one for one in servants if version in (None, str(one.revision.revision))]
    if not matches:
        rule = "the revision must be in force, or one that decided before and is warm"
        if app.part == "models":
            rule = "the version of the model must be one that a deployment in force names"
        raise NotFoundError(rule, where=where, got="another one", remedy=f"Ask for {numbers}, or for none")
    return matches


def asked_servant(app: DecisionApp, request: HttpRequest) -> Servant:
    """Servant that a request is for: the one in force, or that of its header, where the policy lets callers choose.

    Raises
    ------
    RefusedError
        If it does not.
    InputError
        If the header is no number.
    NotFoundError
        If the policy is not deployed, or the revision is not warm.
    """
    servant = servant_named(app, request.parameter, alone=request.route.startswith("/v1/models/"))
    version = read_header(request.scope, _VERSION, "Retrodict-Version")
    if version is None:
        return servant
    if not servant.policy.policy.pins:
        raise RefusedError("a policy must let its callers choose the revision", where="header Retrodict-Version",
                           got=f"policy {request.parameter}, which does not",
                           remedy="Leave it out, or deploy the policy with pins=True")  # fmt: skip
    (request.servant,) = of_version(app, request.parameter, version, where="header Retrodict-Version")
    return request.servant


async def decide_by(app: DecisionApp, request: HttpRequest, servant: Servant, item: BatchItem) -> HttpAnswer:
    """Answer to one case by an earlier revision, which has no queue: on the way of many."""
    if item.request_id is not None:
        check_request_id(item.request_id, where="header Idempotency-Key")
    if item.question is not None:
        servant.schema.check(item.question)
    (answer,) = await app.decide_items(request, servant, [item])
    status, replayed = answer.pop("status"), answer.pop("replayed", False)
    if status != 200:  # no error that is raised: its case is counted and noted
        again = RETRY if isinstance(item.error, RetryableError) else ()
        return RefusedRequestError(status, answer["error"], again).answer
    return HttpAnswer(msgspec.json.encode(answer), headers=REPLAYED if replayed else ())
