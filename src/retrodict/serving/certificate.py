"""The certificate that callers see, read again when its files change: a renewed one needs no restart.

A new file that cannot be used is said in the log, and the certificate before it stays.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress

from retrodict.core.config import Config
from retrodict.core.errors import ConfigurationError

__all__ = ["Certificate", "open_certificate"]

_LOOK_S = 1.0

_log = logging.getLogger(__name__)


class Certificate:
    """Certificate of the settings.

    Parameters
    ----------
    config : Config

    Attributes
    ----------
    context : SSLContext
        For a new connection; another one after each change.
    pems : tuple of bytes
        Private key and chain, for gRPC.

    Raises
    ------
    ConfigurationError
        If the files cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._chain, self._where = config.path("serving.certificate"), config.place("serving.certificate")
        apart = bool(config["serving.certificate_key"])
        self._key = config.path("serving.certificate_key") if apart else self._chain
        self._state = self._look()
        self._load()

    def _look(self) -> list[tuple[int, int, int]]:
        states = []
        with suppress(OSError):  # one that is away is an error once it is to be loaded
            for path in (self._chain, self._key):
                state = path.stat()
                states.append((state.st_mtime_ns, state.st_size, state.st_ino))
        return states

    def _load(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._chain, self._key, password="")  # none is asked for at a terminal
            pems = self._key.read_bytes(), self._chain.read_bytes()
        except (OSError, ValueError) as error:  # one of TLS is an error of the system, too
            raise ConfigurationError(
                "the certificate and its private key must be PEM files that belong together",
                where=self._where, got=type(error).__name__,
                remedy="Correct serving.certificate and serving.certificate_key",
            ) from error  # fmt: skip
        self.context, self.pems = context, pems

    def look(self) -> None:
        """Load the files if they are others than the last time."""
        state = self._look()
        if state == self._state:
            return
        self._state = state
        try:
            self._load()
            _log.warning("%s: the certificate was renewed", self._where)
        except ConfigurationError as error:
            _log.error("the certificate that was loaded before stays: %s", error)

    async def keep(self) -> None:
        """Look again and again, beside the requests."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.look)


def open_certificate(config: Config) -> Certificate | None:
    """Certificate of the settings; None where there is none."""
    return Certificate(config) if config["serving.certificate"] else None
