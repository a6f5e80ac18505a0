"""API keys: who may call a server, for what and until when; entries of the ledger, so nobody adds one behind its back.

The ledger has the SHA-256 of a key, never the key. Its 256 random bits cannot be guessed, so a slow hash would only
slow down each call. A table was rejected: what is in force is what signed entries say.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace

from retrodict.core.durations import DAY
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RefusedError, check_known, check_reason
from retrodict.ledger.chain import Entry
from retrodict.workspace import Workspace

__all__ = ["SCOPES", "ApiKey", "expire_key", "issue_key", "read_keys", "rotate_key", "token_digest"]

SCOPES = {
    "score": "decisions and feature values",
    "read": "policies, services, status, metrics and the pages that describe them",
    "operate": "pushing events",
    "approve": "approving and rejecting versions of models",
    "audit": "single decisions with all behind them, their replay, the verification of the ledger",
}
"""What a key may be for."""

_PREFIX, _ISSUE, _EXPIRE = "apikey:", "apikey.issue", "apikey.expire"
_LONGEST = 3650 * DAY
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII).fullmatch
_REASON = "a key must have a reason"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, as the ledger knows it.

    Attributes
    ----------
    id : str
        Public part of the key; of several with one name, after a rotation, what tells them apart.
    name : str
        Whose it is.
    sha256 : str
        Of the key, in hex.
    scopes : tuple of str
        Some of ``SCOPES``.
    rate : float or None
        Requests a second, on average; None: as many as the server takes.
    issued, expires : int
        Microseconds since 1970-01-01 UTC.
    issued_by : str
        Actor of the entry.
    """

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    rate: float | None
    issued: int
    expires: int
    issued_by: str


def token_digest(token: str) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_keys(workspace: Workspace, *, doubtful: bool = False) -> dict[str, ApiKey]:
    """Every key there ever was, by id, as signed entries say.

    Parameters
    ----------
    workspace : Workspace
    doubtful : bool, default False
        Whether keys may count that an entry may have ended which cannot be read any more: for those who end them.

    Raises
    ------
    IntegrityError
        If an entry after that of a key in force is missing or not as it was appended.
    """
    keys: dict[str, ApiKey] = {}
    issues: dict[str, Entry] = {}
    for entry in workspace.ledger.vouched(_PREFIX):
        facts = entry.payload
        if entry.action == _ISSUE:
            issues[facts["id"]] = entry
            keys[facts["id"]] = ApiKey(
                facts["id"], entry.object_id.removeprefix(_PREFIX), facts["sha256"], tuple(facts["scopes"]),
                facts["rate"], entry.time, facts["expires"], entry.actor,
            )  # fmt: skip
        elif entry.action == _EXPIRE and facts["id"] in keys:
            key = keys[facts["id"]]
            keys[key.id] = replace(key, expires=min(key.expires, facts["expires"]))
    now = workspace.clock.now()
    in_force = [key for key in keys.values() if key.expires > now]
    if in_force and not doubtful and not workspace.ledger.continuity.holds(issues[in_force[0].id]):
        raise IntegrityError(
            "every entry of the ledger must be there, as it was appended, since the oldest API key that is in force",
            where=f"keys {', '.join(sorted({key.name for key in in_force}))}",
            got="one that was altered or removed, and may have ended a key",
            remedy="See 'retrodict audit verify' and restore a backup of the records. Where there is none, end these "
            "keys with 'retrodict api-keys revoke NAME --reason WHY' and issue others",
        )
    return keys


def issue_key(
    workspace: Workspace, name: str, *, scopes: Collection[str], lifetime: int, rate: float | None, reason: str
) -> tuple[ApiKey, str]:
    """Make a key, and return it with what its holder sends; that is never shown again.

    Parameters
    ----------
    workspace : Workspace
    name : str
        Of the caller, whose requests are recorded under it.
    scopes : collection of str
    lifetime : int
        Microseconds.
    rate : float, optional
        Requests a second.
    reason : str

    Raises
    ------
    InputError
        If a scope does not exist, or a bound is not kept.
    RefusedError
        If a key of that name is in force: it is rotated, or expires first.
    """
    where = f"API key {name!r}"
    for scope in scopes or [""]:
        check_known(scope, SCOPES, "a scope must be one that there is", where=where, what="scope", error=InputError)
    if not _NAME(name):
        raise InputError("a name must be 1 to 63 lower-case letters, digits, '.', '_' and '-'", where="API key",
                         got=name[:80], remedy="Name the program or team that calls, such as web-shop")  # fmt: skip
    if not 0 < lifetime <= _LONGEST or (rate is not None and not 0 < rate < float("inf")):
        raise InputError("a key must expire within ten years, and its rate must be above 0", where=where,
                         got=f"{lifetime / DAY:.3g} days, rate {rate}", remedy="Leave them out")  # fmt: skip
    if _in_force(workspace, name):
        raise RefusedError("a name must have one key", where=where, got="one that is in force",
                           remedy=f"Renew it with: retrodict api-keys rotate {name}")  # fmt: skip
    return _append(workspace, name, sorted(scopes), lifetime, rate, check_reason(reason, _REASON, where=where), [], 0)


def rotate_key(workspace: Workspace, name: str, *, lifetime: int, grace: int, reason: str) -> tuple[ApiKey, str]:
    """Make another key of the same name, scopes and rate; the ones before it expire after ``grace`` microseconds."""
    where = f"API key {name!r}"
    former = _in_force(workspace, name)
    if not former:
        raise NotFoundError("a key must be in force to be renewed", where=where, got="none",
                            remedy="See: retrodict api-keys list")  # fmt: skip
    if not 0 < lifetime <= _LONGEST or not 0 <= grace <= 30 * DAY:
        raise InputError("a key must expire within ten years, and the former one within 30 days", where=where,
                         got=f"{lifetime / DAY:.3g} days, {grace / DAY:.3g} days", remedy="Leave them out")  # fmt: skip
    last, reason = former[-1], check_reason(reason, _REASON, where=where)
    return _append(workspace, name, list(last.scopes), lifetime, last.rate, reason, former, grace)


def expire_key(workspace: Workspace, name: str, *, reason: str) -> list[ApiKey]:
    """End every key of a name now; NotFoundError if none is in force."""
    where = f"API key {name!r}"
    former, now = _in_force(workspace, name, doubtful=True), workspace.clock.now()
    if not former:
        raise NotFoundError("a key must be in force to be revoked", where=where, got="none",
                            remedy="See: retrodict api-keys list")  # fmt: skip
    reason = check_reason(reason, _REASON, where=where)
    with workspace.ledger.transaction() as tx:
        for key in former:
            # 0 and not the time: a clock that is ahead would end it later.
            tx.append(_EXPIRE, f"{_PREFIX}{name}", {"id": key.id, "expires": 0, "reason": reason})
    return [replace(key, expires=min(key.expires, now)) for key in former]


def _in_force(workspace: Workspace, name: str, *, doubtful: bool = False) -> list[ApiKey]:
    now = workspace.clock.now()
    return [key for key in read_keys(workspace, doubtful=doubtful).values() if key.name == name and key.expires > now]


def _append(
    workspace: Workspace, name: str, scopes: list[str], lifetime: int, rate: float | None, reason: str,
    former: list[ApiKey], grace: int,
) -> tuple[ApiKey, str]:  # fmt: skip
    now, number = workspace.clock.now(), secrets.token_hex(6)
    token = f"rtd_{number}_{secrets.token_urlsafe(32)}"
    key = ApiKey(number, name, token_digest(token), tuple(scopes), rate, now, now + lifetime, workspace.actor)
    facts = {"id": number, "sha256": key.sha256, "scopes": scopes, "rate": rate, "expires": key.expires}
    with workspace.ledger.transaction() as tx:
        tx.append(_ISSUE, f"{_PREFIX}{name}", {**facts, "reason": reason})
        for one in former:
            tx.append(_EXPIRE, f"{_PREFIX}{name}", {"id": one.id, "expires": now + grace, "reason": reason})
    return key, token
