"""Where a key store in Redis is: the URL read once, and never repeated in a message.

``redis.connection.parse_url`` was rejected: it takes any option of any connection, ignores a database that is no
number, and repeats what it could not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from retrodict.core.errors import ConfigurationError

__all__ = ["Address", "read_address"]

_SCHEMES: Mapping[str, Literal["tcp", "tls", "unix"]] = {
    "redis": "tcp", "valkey": "tcp", "rediss": "tls", "valkeys": "tls", "unix": "unix",
}  # fmt: skip
_FORM = "Write 'redis://host:port/0?prefix=shop' or 'unix:///path/of/socket?db=0&prefix=shop'"
_OPTIONS = {"prefix", "durability"}


@dataclass(frozen=True, slots=True)
class Address:
    """One place in one server.

    Attributes
    ----------
    kind : {"tcp", "tls", "unix"}
        How the server is reached.
    settings : mapping
        What the connection of ``redis`` takes: host and port or path, database, user, password. Not shown.
    prefix : str
        Namespace: stores with different prefixes do not see each other.
    trusting : bool
        Whether the durability of the server is taken as it is.
    """

    kind: Literal["tcp", "tls", "unix"]
    settings: Mapping[str, str | int] = field(repr=False)
    prefix: str
    trusting: bool


def read_address(url: str) -> Address:
    """Read the URL of a key store in Redis; ``${NAME}`` in it is taken from the environment.

    Raises
    ------
    ConfigurationError
        If it cannot be read, names an option that does not exist, or a variable of the environment is not set.
    """
    filled = re.sub(r"\$\{(\w+)\}", _from_environment, url)
    try:
        parts = urlsplit(filled)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        port = parts.port
    except ValueError:
        raise _unreadable() from None  # the text of the cause repeats what it could not read
    kind = _SCHEMES.get(parts.scheme.lower())
    if kind is None:
        raise _unreadable()
    settings: dict[str, str | int] = {}
    if parts.username:
        settings["username"] = unquote(parts.username)
    if parts.password:
        settings["password"] = unquote(parts.password)
    known = _OPTIONS | {"db"} if kind == "unix" else _OPTIONS
    if set(options) - known:
        raise ConfigurationError(
            "the URL of a key store has the options " + " and ".join(map(repr, sorted(known))) + " only",
            where="stores.keys",
            got=f"{len(set(options) - known)} other",
            remedy=_FORM,
        )
    if kind == "unix":
        database = options.get("db", "")
        settings["path"] = unquote(parts.path)
        complete = len(parts.path) > 1 and not parts.hostname and port is None
    else:
        database = parts.path.strip("/")
        settings |= {"host": unquote(parts.hostname or ""), "port": 6379 if port is None else port}
        complete = bool(parts.hostname)
    prefix, durability = options.get("prefix", "retrodict"), options.get("durability", "strict")
    if not complete or parts.fragment or not prefix or not re.fullmatch("[0-9]{0,4}", database):
        raise _unreadable()
    if durability not in ("strict", "server"):
        raise ConfigurationError("the durability of a key store is 'strict' or 'server'", where="stores.keys")
    settings["db"] = int(database or "0")
    return Address(kind, settings, prefix, trusting=durability == "server")


def _from_environment(found: re.Match[str]) -> str:
    value = os.environ.get(found[1])
    if value is None:
        raise ConfigurationError(
            "a variable in the URL is set in the environment",
            where="stores.keys",
            got=found[1],
            remedy="Set it, or take ${…} out of the URL",
        )
    return quote(value, safe="")


def _unreadable() -> ConfigurationError:
    return ConfigurationError(
        "the URL of a key store names a server, a database by its number, and a prefix",
        where="stores.keys",
        remedy=_FORM,
    )
