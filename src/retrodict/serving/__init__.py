"""Deciding over the network: the server, its addresses, and the process that keeps features current."""

from retrodict.serving.server import ServeOptions, serve

__all__ = ["ServeOptions", "serve"]
