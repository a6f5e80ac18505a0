"""Where a key store in Redis is: the URL as ``redis`` reads it, checked first and never repeated in a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from retrodict.core.errors import ConfigurationError, MissingExtraError, near
from retrodict.stores._environment import with_variables

try:
    from redis.connection import parse_url
except ImportError as error:
    raise MissingExtraError("redis", "redis", needed_for="a key store in Redis") from error

_SCHEMES = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss", "unix": "unix"}
_FORM = "Write 'redis://host:port/0?prefix=shop' or 'unix:///path/of/socket?db=0&prefix=shop'"


@dataclass(frozen=True, slots=True)
class Address:
    """One place in one server.

    ``settings`` are what a pool of ``redis`` takes (class of the connections, host and port or path, database, user,
    password), and are not shown. Stores with different prefixes do not see each other. ``trusting``: whether the
    durability of the server is taken as it is.
    """

    settings: Mapping[str, Any] = field(repr=False)
    prefix: str
    trusting: bool


def read_address(url: str, where: str = "stores.keys") -> Address:
    """Read the URL of a key store in Redis, of a setting; ``${NAME}`` in it is taken from the environment.

    ConfigurationError if it cannot be read, names an option that does not exist, or a variable is not set.
    """
    url = with_variables(url, where)
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        has_port = parts.port is not None
    except ValueError:
        raise _unreadable(where) from None  # the text of the cause repeats what it could not read
    scheme = _SCHEMES.get(parts.scheme)
    names = ["durability", "prefix"] if scheme != "unix" else ["db", "durability", "prefix"]
    if unknown := [name for name in options if name not in names]:
        # The name may be a secret that a '?' in a password cut off, so only its near names are shown.
        raise ConfigurationError(
            "the URL of a key store must have the options " + " and ".join(map(repr, names)) + " only",
            where=where,
            got=f"{len(unknown)} other",
            remedy=near(unknown[0], names, what="option"),
        )
    if scheme == "unix":
        complete = len(parts.path) > 1 and not parts.hostname and not has_port
        database = options.get("db", "")
    else:
        # The library ignores a database that is no number.
        complete, database = bool(parts.hostname), parts.path.strip("/")
    prefix, durability = options.get("prefix", "retrodict"), options.get("durability", "strict")
    if scheme is None or not complete or parts.fragment or not prefix or not re.fullmatch("[0-9]{0,4}", database):
        raise _unreadable(where)
    if durability not in ("strict", "server"):
        raise ConfigurationError(
            "the durability of a key store must be 'strict' or 'server'",
            where=where,
            got=f"a word of {len(durability)} letters",
            remedy="Leave it out for 'strict'",
        )
    settings = parse_url(f"{scheme}://{parts.netloc}{parts.path}")  # type: ignore[no-untyped-call]
    return Address(settings | {"db": int(database or "0")}, prefix, trusting=durability == "server")


def _unreadable(where: str) -> ConfigurationError:
    return ConfigurationError(
        "the URL of a key store must name a server, a database by its number, and a prefix",
        where=where,
        got="a URL that names less or more",
        remedy=_FORM,
    )
