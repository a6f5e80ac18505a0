"""Revisions of a policy that can be asked: the one in force, and the one before it while it is warm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from retrodict.core.errors import NotFoundError, RefusedError
from retrodict.decisions.loader import find_servant
from retrodict.decisions.servant import Servant
from retrodict.serving.batch import BatchItem
from retrodict.serving.http_answer import REPLAYED, RETRY, HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import HttpRequest, read_header
from retrodict.serving.idempotency import check_request_id

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["asked_servant", "decide_by", "keep_warm", "names", "of_version", "warm"]

_VERSION = b"retrodict-version"


def names(app: DecisionApp) -> list[str]:
    """What can be asked; a version of a model that is served beside others, NAME@VERSION, is no name of its own."""
    return [name for name in app.servants if "@" not in name]


def warm(app: DecisionApp, name: str) -> list[Servant]:
    """Servant in force of a policy, and the one before it while it can be asked; of a model alone every version."""
    servants = [group[name] for group in (app.servants, app.earlier) if name in group]
    servants += [servant for key, servant in app.servants.items() if key.startswith(f"{name}@")]
    versions: dict[int, Servant] = {}
    for servant in servants:
        versions.setdefault(servant.revision.revision, servant)
    return list(versions.values())


def keep_warm(app: DecisionApp, servants: Mapping[str, Servant]) -> dict[str, Servant]:
    """Those that can be asked beside what comes into force: a halt is of the policy, whoever is asked for."""
    current = {version for servant in servants.values() for version in servant.views}
    before = {name: one for name, one in app.servants.items()
              if one is not servants.get(name) and one.revision.deployment.halted is None}  # fmt: skip
    earlier = {name: one for name, one in (app.earlier | before).items() if name in servants and one.views <= current}
    for name, servant in earlier.items():
        servant.cache = None  # which is of one that is in force
        servant.halt(servants[name].halted)
    return earlier


def of_version(servants: Sequence[Servant], version: str | None, *, where: str) -> list[Servant]:
    """Those of a version; all of them for None. NotFoundError names those that there are."""
    matches = [one for one in servants if version in (None, str(one.revision.revision))]
    if not matches:
        revisions = " or ".join(str(one.revision.revision) for one in servants)
        raise NotFoundError("the revision must be in force, or the one before, as long as it is warm", where=where,
                            got="another one", remedy=f"Ask for {revisions}, or for none")  # fmt: skip
    return matches


def asked_servant(app: DecisionApp, request: HttpRequest) -> Servant:
    """Servant that a request is for: the one in force, or that of its header, where the policy lets callers choose.

    Raises
    ------
    RefusedError
        If it does not.
    NotFoundError
        If the policy is not deployed, or the revision is not warm.
    """
    servant = find_servant(app.servants, request.parameter, where="address")
    version = read_header(request.scope, _VERSION, "Retrodict-Version")
    if version is None:
        return servant
    if not servant.policy.policy.pins:
        raise RefusedError("a policy must let its callers choose the revision", where="header Retrodict-Version",
                           got=f"policy {request.parameter}, which does not",
                           remedy="Leave it out, or deploy the policy with pins=True")  # fmt: skip
    return of_version(warm(app, request.parameter), version, where="header Retrodict-Version")[0]


async def decide_by(app: DecisionApp, request: HttpRequest, servant: Servant, item: BatchItem) -> HttpAnswer:
    """Answer to one case by an earlier revision, which has no queue: on the way of many."""
    if item.request_id is not None:
        check_request_id(item.request_id, where="header Idempotency-Key")
    if item.question is not None:
        servant.schema.check(item.question)
    (answer,) = await app.decide_items(request, servant, [item])
    status, replayed = answer.pop("status"), answer.pop("replayed", False)
    if status != 200:  # no error that is raised: its case is counted and noted
        return RefusedRequestError(status, answer["error"], RETRY if status == 503 else ()).answer
    return HttpAnswer(msgspec.json.encode(answer), headers=REPLAYED if replayed else ())
