"""Names, prefixes and ranges that every store of streams takes or refuses alike."""

from __future__ import annotations

import re

from retrodict.core.errors import ConfigurationError, InputError

_STREAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_-]{0,99}){0,7}")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_stream(stream: str) -> str:
    """Return the name if it is one of a stream: it becomes a path or a subject, so nothing else may pass."""
    if not _STREAM.fullmatch(stream):
        raise InputError(
            "the name of a stream must be letters, digits, '_' and '-', in parts divided by '/'",
            where="stream",
            got=stream,
            remedy="Write it like 'decisions/0'",
        )
    return stream


def check_prefix(prefix: str) -> str:
    """Return the prefix of the names on a server if it is one."""
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            "the prefix of streams must be up to 64 letters, digits, '_' and '-'",
            where="streams",
            got=prefix,
            remedy="Write it like 'shop'",
        )
    return prefix


def check_length(name: str, longest: int) -> str:
    """Return the name of a stream on a server if the server takes one as long."""
    if len(name) > longest:
        raise InputError(
            f"the name of a stream with its prefix must have at most {longest} characters on this store",
            where="stream",
            got=len(name),
            remedy="Shorten the name or the prefix",
        )
    return name


def check_range(stream: str, start: int, limit: int | None) -> None:
    """Refuse an offset or a limit below 0."""
    if start < 0 or (limit is not None and limit < 0):
        raise InputError(
            "offsets and limits must not be negative",
            where=f"stream {stream}",
            got=(start, limit),
            remedy="Start at 0",
        )
