"""``project.api_keys``: who may call a server of this project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrodict.core.display import Block, Facts, Listing, Shown, when
from retrodict.core.durations import parse_duration
from retrodict.core.lazy import lazy_modules
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict.registry import api_keys
    from retrodict.registry.api_keys import ApiKey
else:
    (api_keys,) = lazy_modules("retrodict.registry", "api_keys")

__all__ = ["ApiKeys", "NewKey"]


class NewKey(Shown):
    """A key that was just made; the only time that it is shown.

    Attributes
    ----------
    key : ApiKey
        What the ledger knows of it.
    token : str
        What its holder sends: ``Authorization: Bearer TOKEN``.
    """

    def __init__(self, key: ApiKey, token: str) -> None:
        self.key, self.token = key, token

    def blocks(self) -> Sequence[Block | None]:
        """The key, once."""
        return [
            self.token,
            Facts({"name": self.key.name, "for": self.key.scopes, "until": when(self.key.expires), "id": self.key.id}),
            "It is not shown again. Send it as: Authorization: Bearer KEY",
        ]

    def to_dict(self) -> dict[str, Any]:
        """The key and what it is for."""
        return {"token": self.token, "id": self.key.id, "name": self.key.name, "scopes": list(self.key.scopes),
                "rate": self.key.rate, "expires": when(self.key.expires)}  # fmt: skip

    def __repr__(self) -> str:
        return f"NewKey of {self.key.name!r}"  # a notebook's output is saved


class ApiKeys(Namespace):
    """API keys of a project.

    Examples
    --------
    >>> new = project.api_keys.issue("web-shop", scope=["score"], reason="checkout")  # doctest: +SKIP
    >>> new.token  # doctest: +SKIP
    'rtd_5f0c…'
    """

    def issue(
        self, name: str, *, scope: Sequence[str], reason: str, expires: str = "365d", rate: float | None = None
    ) -> NewKey:
        """Make a key for a caller of the server; it is shown once, and the ledger has its hash.

        Parameters
        ----------
        name : str
            Whose it is, such as web-shop; decisions are recorded under it.
        scope : list of str
            What it is for: score (decisions, features), read (status, metrics, pages), operate (events),
            approve (models), audit (decisions, replays, the ledger); several with commas, too.
        reason : str
            For the ledger.
        expires : str
            How long it counts, ten years at most.
        rate : float, optional
            Requests a second on average, shared by all workers.  [default: no bound]
        """
        lifetime = parse_duration(expires, where="expires")
        scopes = [part.strip() for one in ([scope] if isinstance(scope, str) else scope) for part in one.split(",")]
        return NewKey(*api_keys.issue_key(self._workspace, name, scopes=scopes, lifetime=lifetime, rate=rate,
                                          reason=reason))  # fmt: skip

    def rotate(self, name: str, *, reason: str, expires: str = "365d", grace: str = "24h") -> NewKey:
        """Make a new key of the same name, scopes and rate; the former one counts a little longer.

        Parameters
        ----------
        name : str
            Of a key that is in force.
        reason : str
            For the ledger.
        expires : str
            How long the new one counts, ten years at most.
        grace : str
            How long the former one still counts, 30 days at most; 0s ends it now.
        """
        lifetime = parse_duration(expires, where="expires")
        rest = 0 if grace in ("0", "0s") else parse_duration(grace, where="grace")
        return NewKey(*api_keys.rotate_key(self._workspace, name, lifetime=lifetime, grace=rest, reason=reason))

    def revoke(self, name: str, *, reason: str) -> Listing[ApiKey]:
        """End every key of a name; servers refuse it within a second.

        Parameters
        ----------
        name : str
            Of a key that is in force.
        reason : str
            For the ledger.
        """
        return _listing(api_keys.expire_key(self._workspace, name, reason=reason), self._workspace.clock.now())

    @names_damage
    def list(self, *, every: bool = False) -> Listing[ApiKey]:
        """List the keys that are in force.

        Parameters
        ----------
        every : bool
            Those that have ended, too.
        """
        now = self._workspace.clock.now()
        keys = [key for key in api_keys.read_keys(self._workspace).values() if every or key.expires > now]
        return _listing(keys, now)


def _listing(keys: Sequence[ApiKey], now: int) -> Listing[ApiKey]:
    def row(key: ApiKey) -> tuple[Any, ...]:
        ended = "ended" if key.expires <= now else ""
        rate = "" if key.rate is None else f"{key.rate:g}/s"
        return key.name, " ".join(key.scopes), rate, when(key.expires), ended, key.id, when(key.issued), key.issued_by

    columns = ("name", "for", "rate>", "until", "state", "id", "since", "by")
    return Listing.table("keys", keys, columns, row, empty="No such key is in force.")
