"""Callers who wait no longer: how long each does, and the one error that says that it was too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from retrodict.core.errors import RetryableError
from retrodict.core.retries import left_s

__all__ = ["GoneError", "LateError", "gone", "late", "within"]

T = TypeVar("T")


class LateError(RetryableError):
    """The deadline of the caller has passed."""


class GoneError(RetryableError):
    """The caller has left before its turn came."""


def late(got: str = "a turn that came later", *, doubt: str = "nothing was decided") -> LateError:
    """Say that a request has no answer in time; ``doubt`` is what became of it."""
    return LateError(f"a request must have its turn before the deadline of the caller has passed; {doubt}",
                     where="header Retrodict-Deadline", got=got, remedy="Ask again, or wait longer")  # fmt: skip


def gone() -> GoneError:
    """Say that a request was not decided as nobody waits for it."""
    return GoneError("a caller must be there when its turn comes; nothing was decided", where="connection",
                     got="one that has left", remedy="Ask again")  # fmt: skip


async def within(work: Awaitable[T], until_ns: int | None, error: Exception) -> T:
    """Result of work in another thread, or the error if it is not there in time; the work goes on, for nobody."""
    task = asyncio.ensure_future(work)
    if until_ns is not None and not (await asyncio.wait([task], timeout=left_s(until_ns)))[0]:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # else asyncio reports it
        raise error
    return await task
