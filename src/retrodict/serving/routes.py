"""The addresses of the server: a look-up in a dictionary leads from a method and a path to what answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from retrodict.core.errors import NotFoundError, near
from retrodict.serving.http_answer import HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import HttpRequest

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["ROUTES", "find_route", "route"]

Handler = Callable[["DecisionApp", HttpRequest], Awaitable[HttpAnswer]]

# The only list of addresses, filled by the handlers of the app: dispatch, 404, 405 and HEAD follow from it, and a test
# holds docs/serving.md to it. A pattern has its parameter at its end, before an action (``:batch``) if it has one, or
# none.
ROUTES: list[tuple[str, str]] = []
_Found = tuple[Handler, str | None, str]
_FIXED: dict[str, dict[str, _Found]] = {}
_DEEP: dict[tuple[str, str], dict[str, _Found]] = {}  # of parameters of several parts, ``{model...}``
_PARAMETRIC: dict[tuple[str, str], dict[str, _Found]] = {}  # by what stands before the parameter, and its action


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
