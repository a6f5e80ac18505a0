"""Deciding over the network or in the process that asks; the process that keeps features current."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.serving.consumer import consume
    from retrodict.serving.decider import Decider
    from retrodict.serving.server import Companion, ServeOptions, serve

__all__ = ["Companion", "Decider", "ServeOptions", "consume", "serve"]

# The consumer's processes need no HTTP server.
__getattr__, __dir__ = lazy_names(
    __name__, {"consumer": ["consume"], "decider": ["Decider"], "server": ["Companion", "ServeOptions", "serve"]}
)
