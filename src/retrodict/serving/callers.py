"""Who calls: an API key or a signed token (JWT), what it is for, and how often it may.

A server that others can reach asks every caller but those of ``/healthz`` and ``/readyz``. Keys are looked up by their
public part and compared in constant time; a signature that was checked once is remembered until its token expires.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from retrodict.core.clock import Clock
from retrodict.core.errors import ConfigurationError, MissingExtraError
from retrodict.registry.api_keys import SCOPES, ApiKey, read_keys, token_digest
from retrodict.serving.http_answer import RefusedRequestError
from retrodict.workspace import Workspace

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

__all__ = ["Callers", "asks_callers", "open_callers"]

_ALGORITHMS = ["ES256", "ES384", "ES512", "Ed25519", "EdDSA", "PS256", "RS256"]  # none that a public key could forge
_CHALLENGE = ((b"www-authenticate", b'Bearer realm="retrodict"'),)
_REMEMBERED, _LONGEST = 10_000, 8_192  # tokens; bytes of one
_FETCH_S, _AGAIN_S, _TIMEOUT_S, _JWKS_BYTES = 300.0, 10.0, 5.0, 1 << 20
_LEEWAY_S = 30

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Caller:
    """Name to record, what it may do, until when, and the bucket that its requests are taken from."""

    name: str
    scopes: frozenset[str]
    expires: int
    rate: float | None = None
    tokens: float = 1.0
    filled: int = 0

    def take(self, now_ns: int) -> float:
        """Seconds to wait; 0 if this request may pass."""
        if self.rate is None:
            return 0.0
        burst = max(1.0, self.rate)
        self.tokens = min(burst, self.tokens + (now_ns - self.filled) / 1e9 * self.rate) if self.filled else burst
        self.filled = now_ns
        if self.tokens < 1.0:
            return (1.0 - self.tokens) / self.rate
        self.tokens -= 1.0
        return 0.0


class Callers:
    """Admits requests in one process.

    Parameters
    ----------
    workspace : Workspace
    workers : callable
        How many processes share the rate of each key just now.

    Attributes
    ----------
    problem : str or None
        Why keys that were issued or ended, or keys of the issuer, are not taken in for now.
    """

    def __init__(self, workspace: Workspace, workers: Callable[[], int] = lambda: 1) -> None:
        self._workspace, self._workers, self._sharing, self._clock = workspace, workers, 1, workspace.clock
        self._keys: dict[str, tuple[str, _Caller]] = {}
        self._issued: Mapping[str, ApiKey] = {}
        self.problem: str | None = None
        self._signers = _Signers(workspace) if workspace.config["auth.jwks"] else None

    def look(self) -> None:
        """Take in keys that were issued or ended since the last time; called beside the requests."""
        issued, sharing = read_keys(self._workspace), self._workers()
        if issued != self._issued or sharing != self._sharing:
            keys = {}
            for key in issued.values():
                rate = None if key.rate is None else key.rate / sharing
                caller = _Caller(f"key:{key.name}", frozenset(key.scopes), key.expires, rate)
                if key.id in self._keys:  # a bucket is not filled anew because somebody else got a key
                    former = self._keys[key.id][1]
                    caller.tokens, caller.filled = former.tokens, former.filled
                keys[key.id] = key.sha256, caller
            self._keys, self._issued, self._sharing = keys, issued, sharing
        if self._signers is not None:
            self._signers.look()
        self.problem = None if self._signers is None else self._signers.problem

    def admit(self, headers: Iterable[tuple[bytes, bytes]], needed: str) -> str:
        """Name of the caller of a request for which a scope is needed.

        Raises
        ------
        RefusedRequestError
            401 without a key or token that counts now, 403 if it is for something else, 429 if it came too often.
        """
        caller = self._caller(headers)
        if needed not in caller.scopes:
            raise RefusedRequestError(403, f"the key must be for {needed} ({SCOPES[needed]})")
        if wait := caller.take(monotonic_ns()):
            again = ((b"retry-after", str(int(wait) + 1).encode()),)
            raise RefusedRequestError(429, "this key has used its requests for now; try again", again)
        return caller.name

    def knows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request has a key or token that counts now, whatever it is for."""
        try:
            return bool(self._caller(headers))
        except RefusedRequestError:
            return False

    def _caller(self, headers: Iterable[tuple[bytes, bytes]]) -> _Caller:
        values = [value for name, value in headers if name == b"authorization"]
        scheme, _, token = (values[0] if len(values) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token or len(token) > _LONGEST:
            raise RefusedRequestError(401, "a caller must send one header 'Authorization: Bearer KEY'", _CHALLENGE)
        caller = self._find(token.decode("latin-1"))
        if caller is None or caller.expires <= self._clock.now():
            raise RefusedRequestError(401, "the key must be one that is in force", _CHALLENGE)
        return caller

    def _find(self, token: str) -> _Caller | None:
        kind, _, rest = token.partition("_")
        if kind == "rtd":
            digest, caller = self._keys.get(rest.partition("_")[0], ("", None))
            return caller if hmac.compare_digest(digest, token_digest(token)) else None
        return None if self._signers is None else self._signers.find(token)


class _Signers:
    """Checks tokens against the public keys of an issuer, from a file or an address that is read again and again."""

    def __init__(self, workspace: Workspace) -> None:
        config = workspace.config
        self._place, self._where = config["auth.jwks"], config.place("auth.jwks")
        self._url = urlsplit(self._place).scheme in ("http", "https")
        if not self._url:
            self._place = str(config.path("auth.jwks"))
        self._issuer, self._audience = config["auth.issuer"], config["auth.audience"]
        for name in ("auth.issuer", "auth.audience"):
            if not config[name]:  # any token that the issuer ever signed for anybody would do
                raise ConfigurationError("tokens must be of an issuer and for an audience", where=self._where,
                                         got=f"no {name}", remedy=f"Set {name} as well")  # fmt: skip
        if self._url and not self._place.startswith("https://"):
            raise ConfigurationError("the keys of an issuer must come over https", where=self._where,
                                     got=urlsplit(self._place).scheme, remedy="Write https://… or a file")  # fmt: skip
        try:
            import joserfc  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("joserfc", "jwt", needed_for="tokens as callers") from error
        self._clock: Clock = workspace.clock
        self._keys: list[KeySet] | None = None  # of one key each, since several may have one name
        self.problem: str | None = None
        self._read_at = -_FETCH_S
        self._wanted = False
        self._checked: OrderedDict[str, _Caller] = OrderedDict()

    def look(self) -> None:
        """Read the keys where they are old, or a token names one that is not among them."""
        age = monotonic() - self._read_at
        soon = self._wanted or self._keys is None or self.problem is not None
        if age < (_AGAIN_S if soon else _FETCH_S) and self._read_at > 0:
            return
        self._read_at, self._wanted = monotonic(), False
        from joserfc.jwk import KeySet

        try:
            keys = KeySet.import_key_set(json.loads(self._read())).keys
            self._keys = [KeySet([key]) for key in keys if key.get("use") in (None, "sig")]
            self._checked = OrderedDict()  # a key that was taken back signs no longer
            self.problem = None
        except Exception as error:  # of whoever wrote the document: the keys that are known stay
            if self._keys is None and not self._url:  # an address may be away at the start, a file is wrong
                raise ConfigurationError(
                    "the keys of the issuer must be a JSON Web Key Set that this user can read", where=self._where,
                    got=f"{self._place!r}: {getattr(error, 'strerror', None) or type(error).__name__}",
                    remedy="Write the issuer's public keys there, or leave auth.jwks out",
                ) from error  # fmt: skip
            self.problem = f"{self._where}: the keys of the issuer cannot be read: {type(error).__name__}"
            _log.error("%s; those of the last reading go on to count", self.problem)

    def _read(self) -> bytes:
        if self._url:
            with urlopen(self._place, timeout=_TIMEOUT_S) as response:  # noqa: S310  # https, as checked
                return bytes(response.read(_JWKS_BYTES))
        with open(self._place, "rb") as file:
            return file.read(_JWKS_BYTES)

    def find(self, token: str) -> _Caller | None:
        """Caller of a token whose signature, issuer, audience and times are right."""
        digest = token_digest(token)
        if (caller := self._checked.get(digest)) is not None:
            return caller
        caller = self._check(token)
        if caller is not None:
            self._checked[digest] = caller
            if len(self._checked) > _REMEMBERED:
                self._checked.popitem(last=False)
        return caller

    def _check(self, token: str) -> _Caller | None:
        from joserfc import jwt
        from joserfc.errors import JoseError

        registry = jwt.JWTClaimsRegistry(
            now=self._clock.now() // 1_000_000, leeway=_LEEWAY_S,
            iss={"essential": True, "value": self._issuer}, aud={"essential": True, "value": self._audience},
            exp={"essential": True}, sub={"essential": True},
        )  # fmt: skip
        claims: dict[str, Any] | None = None
        for key in self._keys or ():
            with suppress(JoseError, ValueError, KeyError, TypeError, RecursionError):
                claims = jwt.decode(token, key, algorithms=_ALGORITHMS).claims
                registry.validate(claims)
                break
        else:
            self._wanted = True  # perhaps the issuer has a new key
            return None
        subject, scopes, roles = claims["sub"], claims.get("scope", ""), claims.get("roles", [])
        if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= 200:
            return None
        names = [*(scopes.split() if isinstance(scopes, str) else ()), *(roles if isinstance(roles, list) else ())]
        expires = int(claims["exp"] + _LEEWAY_S) * 1_000_000
        return _Caller(f"jwt:{subject}", frozenset(scope for scope in SCOPES if scope in names), expires)


def asks_callers(workspace: Workspace, listener: socket.socket) -> bool:
    """Whether callers of an address have to say who they are: all, but on a loopback address."""
    if workspace.config["auth.required"] == "always":
        return True
    address = ipaddress.ip_address(listener.getsockname()[0])
    return not (getattr(address, "ipv4_mapped", None) or address).is_loopback


def open_callers(
    workspace: Workspace, listener: socket.socket, workers: Callable[[], int] = lambda: 1
) -> Callers | None:
    """What admits the callers of a server; None where anybody on this machine may call.

    Raises
    ------
    ConfigurationError
        If callers have to say who they are, and there is nobody who could.
    """
    if not asks_callers(workspace, listener):
        return None
    callers = Callers(workspace, workers)
    callers.look()
    now = workspace.clock.now()
    if not workspace.config["auth.jwks"] and not any(key.expires > now for key in read_keys(workspace).values()):
        raise ConfigurationError(
            "a server that others can reach must know its callers",
            where=f"address {listener.getsockname()[0]}",
            got="no API key that is in force, and no auth.jwks",
            remedy="Make one with: retrodict api-keys issue NAME --scope score --reason WHY, or listen on 127.0.0.1",
        )
    return callers
