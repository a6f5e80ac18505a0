"""What stands between callers and a store on a server: a circuit breaker, retries of reads, a limit of each read.

It is put where all traffic of a store passes and its errors become ours, one place in each. A wrapper of each contract
was rejected: it would repeat twenty-five methods, and could not see what fails inside a block or an iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from retrodict.core.breakers import Breaker
from retrodict.core.errors import ServerAwayError
from retrodict.core.retries import Retry

__all__ = ["AWAY", "ServerGuard"]

AWAY: tuple[type[Exception], ...] = (ServerAwayError, ConnectionError)
"""What a breaker before a store counts; the second is what a bucket's medium raises below the tables."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerGuard:
    """Of one store in one process; made without arguments it opens after five failures and retries nothing.

    Attributes
    ----------
    breaker : Breaker
        Counts calls that found no server, or no answer in time.
    retry : Retry, optional
        For reads alone: a write whose answer was lost may have been stored.
    read_timeout_s : float
        How long a read waits for its answer.
    """

    breaker: Breaker = field(default_factory=lambda: Breaker("store", *AWAY))
    retry: Retry | None = None
    read_timeout_s: float = 5.0

    def read(self, call: Callable[[], T], where: str) -> T:
        """Result of a call that changes nothing."""
        return call() if self.retry is None else self.retry.call(call, where, self.breaker.note_retry)
