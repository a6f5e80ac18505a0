"""The addresses of the server: a look-up in a dictionary leads from a method and a path to what answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from retrodict.core.errors import NotFoundError, near
from retrodict.serving.http_answer import HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import HttpRequest

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["DECIDING", "ROUTES", "Part", "check_serves", "check_written", "find_route", "route", "serves"]

Part = Literal["features", "models", "decisions"]
"""What a server may serve alone."""

DECIDING = ("/v1/decisions/", "/v1/models/", "/v2/models/")
"""Where the addresses begin that decide."""

Handler = Callable[["DecisionApp", HttpRequest], Awaitable[HttpAnswer]]

# The only list of addresses, filled by the handlers of the app: dispatch, 404, 405 and HEAD follow from it, and a test
# holds docs/serving.md to it. A pattern has its parameter at its end, before an action (``:batch``) if it has one, or
# none.
ROUTES: list[tuple[str, str]] = []
_Found = tuple[Handler, str | None, str]
_FIXED: dict[str, dict[str, _Found]] = {}
_DEEP: dict[tuple[str, str], dict[str, _Found]] = {}  # of parameters of several parts, ``{model...}``
_PARAMETRIC: dict[tuple[str, str], dict[str, _Found]] = {}  # by what stands before the parameter, and its action


_FEATURES, _MODELS = ("/v1/features",), ("/v1/models/{model}:score", "/v1/models/{model}:rows", "/v2")
_INSIDE = ("/v1/features/{model}:read", "/v1/models/{model}:rows")
_EVERYWHERE = ("/healthz", "/readyz", "/metrics", "/v1/status", "/v2/health")


def route(method: str, pattern: str, scope: str | None = "read") -> Callable[[Handler], Handler]:
    """Register a handler for a method and a pattern, and what a caller's key must be for; None: it needs no key.

    What answers GET answers HEAD, too.
    """

    def register(handler: Handler) -> Handler:
        ROUTES.append((method, pattern))
        head, brace, rest = pattern.strip("/").partition("/{")
        action = rest.partition("}")[2]
        if "...}" in rest:
            methods = _DEEP.setdefault((f"{head}/", action), {})
        else:
            methods = _PARAMETRIC.setdefault((head, action), {}) if brace else _FIXED.setdefault(head, {})
        methods.update(dict.fromkeys(("GET", "HEAD") if method == "GET" else (method,), (handler, scope, pattern)))
        return handler

    return register


def find_route(method: str, path: str) -> tuple[Handler, str | None, str, str]:
    """Handler of an address, what a key must be for, its pattern, and what stands for the part in braces.

    Raises
    ------
    NotFoundError
        If there is no such address.
    """
    path = path.strip("/")
    parameter = ""
    methods = _FIXED.get(path)
    if methods is None:
        head, _, parameter = path.rpartition("/")
        parameter, colon, action = parameter.partition(":")
        methods = _PARAMETRIC.get((head, colon + action))
    if methods is None:
        fits = [(before, after) for before, after in _DEEP if path.startswith(before) and path.endswith(after)]
        if fits:
            before, after = max(fits, key=lambda ends: len(ends[1]))
            methods, parameter = _DEEP[before, after], path.removeprefix(before).removesuffix(after)
    if methods is None:
        patterns = [pattern for _, pattern in ROUTES]
        raise NotFoundError(
            "the address must exist", where="address", got=f"{path.count('/') + 1} parts",
            remedy=near(f"/{path}", patterns, what="address"),
        )  # fmt: skip
    if method not in methods:
        allowed = ", ".join(sorted(methods))
        raise RefusedRequestError(405, f"this address takes {allowed}", ((b"allow", allowed.encode()),))
    return *methods[method], parameter


def serves(part: Part | None, pattern: str) -> bool:
    """Whether an address is one of a part, or of all; those that parts ask each other are of no other server."""
    if part is None:
        return pattern not in _INSIDE
    return owner_of(pattern) == part or pattern.startswith(_EVERYWHERE)


def owner_of(pattern: str) -> Part:
    """Part whose server has an address alone."""
    return "features" if pattern.startswith(_FEATURES) else "models" if pattern.startswith(_MODELS) else "decisions"


def check_written(pattern: str, parameter: str, path: bytes) -> None:
    """Refuse an address between servers unless it is as they write it: a gateway may know it by no other way."""
    if pattern in _INSIDE and path.decode("latin-1") != pattern.replace("{model}", quote(parameter, safe="")):
        raise NotFoundError("the address must exist", where="address", got="one between servers, written otherwise",
                            remedy="See 'Apart' on the page on serving")  # fmt: skip


def check_serves(part: Part | None, pattern: str) -> None:
    """Refuse an address that a server does not serve."""
    if not serves(part, pattern):
        remedy = f"Ask the server of {owner_of(pattern)}" if part else "Leave it to servers of decisions alone"
        raise NotFoundError("the address must be one of what is served here", where="address",
                            got=f"one that a server of {part or 'everything'} has not", remedy=remedy)  # fmt: skip
