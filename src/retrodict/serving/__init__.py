"""Deciding over the network: the server, its addresses, and the process that keeps features current."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrodict.serving.consumer import consume
    from retrodict.serving.server import ServeOptions, serve

__all__ = ["ServeOptions", "consume", "serve"]

_HOMES = {"consume": "consumer", "ServeOptions": "server", "serve": "server"}


def __getattr__(name: str) -> object:
    # The consumer's processes need no HTTP server.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
