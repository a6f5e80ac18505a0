"""Names and ranges that every store of streams takes or refuses alike."""

from __future__ import annotations

import re

from retrodict.core.errors import InputError

_STREAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_-]{0,99}){0,7}")


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


def check_range(stream: str, start: int, limit: int | None) -> None:
    """Refuse an offset or a limit below 0."""
    if start < 0 or (limit is not None and limit < 0):
        raise InputError(
            "offsets and limits must not be negative",
            where=f"stream {stream}",
            got=(start, limit),
            remedy="Start at 0",
        )
