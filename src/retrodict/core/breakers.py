"""Circuit breakers: what fails again and again is not called for a while, so that nobody waits for it in vain.

Counted are failures *in a row*: a counter that successes do not reset opens after three failures of 300 calls.
When the time is over exactly one call may look whether it works again, and the others are still refused: if all went
at once, what has just come back would be down again. One breaker belongs to one process.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import DefinitionError, OpenBreakerError
from retrodict.core.retries import check_errors, is_async

__all__ = ["Breaker", "BreakerState", "breaker"]

F = TypeVar("F", bound=Callable[..., Any])
BreakerState = Literal["closed", "open", "half_open"]

_log = logging.getLogger(__name__)


class Breaker:
    """Guards calls of one thing that may be away. Threads and coroutines may share it.

    Promises: ``failures`` calls that failed in a row, in the order in which they ended, open it; a success before that
    begins the count anew. While it is open every call is refused at once. ``recovery`` later it is half open: one call
    may go, the others are refused. A success closes it, a failure opens it for as long again. An error of another kind
    than ``on`` counts as neither. A call that goes longer than ``recovery`` holds its place no longer, and what becomes
    of a call that began before the breaker last changed is not counted.

    Parameters
    ----------
    name : str
        For messages and metrics.
    *on : exception classes
        Which errors are failures.
    failures : int, default 5
    recovery : duration, default "30s"
    clock : callable, optional
        Seconds that never go back.

    Examples
    --------
    >>> guard = Breaker("rates", ConnectionError, failures=1)
    >>> with guard.attempt():
    ...     raise ConnectionError
    Traceback (most recent call last):
    ConnectionError
    >>> guard.state, guard.counts
    ('open', {'failures': 1, 'opened': 1, 'refused': 0, 'retried': 0})
    """

    def __init__(
        self,
        name: str,
        *on: type[BaseException],
        failures: int = 5,
        recovery: str = "30s",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_errors(on, where=f"breaker {name}")
        if type(failures) is not int or failures < 1:
            raise DefinitionError("failures must be a whole number, 1 or more", where=f"breaker {name}", got=failures,
                                  remedy="Leave it out for 5")  # fmt: skip
        self.name, self._on, self._most, self._clock = name, on, failures, clock
        self._recovery = parse_duration(recovery, where=f"breaker {name}, recovery") / SECOND
        self._lock = threading.Lock()
        self._failures, self._epoch = 0, 0
        self._opened: float | None = None
        self._probe: float | None = None
        self.counts = {"failures": 0, "opened": 0, "refused": 0, "retried": 0}
        """Calls that failed, times it opened, calls that were refused, and calls that were made again."""

    @property
    def state(self) -> BreakerState:
        """Whether calls go through now."""
        with self._lock:
            return self._state()

    def _state(self) -> BreakerState:
        if self._opened is None:
            return "closed"
        return "open" if self._clock() - self._opened < self._recovery else "half_open"

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Make one call in the block; OpenBreakerError instead if it may not be made now."""
        epoch = self._admit()
        try:
            yield
        except self._on:
            self._end(epoch, failed=True)
            raise
        except BaseException:
            self._end(epoch, failed=None)
            raise
        self._end(epoch, failed=False)

    def note_retry(self) -> None:
        """Count a call that is made again."""
        with self._lock:
            self.counts["retried"] += 1

    def _admit(self) -> int:
        with self._lock:
            state, now = self._state(), self._clock()
            if state == "closed":
                return self._epoch
            if state == "half_open" and (self._probe is None or now - self._probe >= self._recovery):
                self._probe = now
                self._epoch += 1  # of an earlier probe that never ended nothing counts any more
                return self._epoch
            self.counts["refused"] += 1
            assert self._opened is not None
            left = self._recovery - (now - self._opened)
        raise OpenBreakerError(
            "what failed again and again must work before it is called as usual", where=f"breaker {self.name}",
            got="an open breaker" if left > 0 else "a half-open breaker, and a call that looks whether it works",
            remedy=f"Try again in {max(left, 0.1):.1f} s",
        )  # fmt: skip

    def _end(self, epoch: int, *, failed: bool | None) -> None:
        """Count what became of a call: failed, succeeded, or (None) says nothing of what is guarded."""
        with self._lock:
            self.counts["failures"] += failed is True
            if epoch != self._epoch:
                return
            self._probe = None
            if failed is None:
                return
            half_open, self._failures = self._opened is not None, self._failures + 1 if failed else 0
            if failed and (half_open or self._failures >= self._most):
                self._opened, self._failures = self._clock(), 0
                self._epoch += 1
                self.counts["opened"] += 1
            elif half_open and not failed:
                self._opened = None
                self._epoch += 1
            else:
                return
        if failed:
            _log.error("breaker %s opens: it is not called for %g s", self.name, self._recovery)
        else:
            _log.warning("breaker %s closes: it works again", self.name)


def breaker(*on: type[BaseException], failures: int = 5, recovery: str = "30s") -> Callable[[F], F]:
    """Do not call a function for a while that failed again and again; for functions and coroutine functions.

    Around what is also retried it goes on the outside or the inside: inside, each attempt counts and an open breaker
    ends the retries; outside, what failed all its attempts counts once. The function gets an attribute ``breaker``.

    Parameters
    ----------
    *on : exception classes
        Errors that say that what is called is away; at least one, and not ``Exception``.
    failures, recovery
        As for :class:`Breaker`.

    Examples
    --------
    >>> @breaker(ConnectionError, failures=2, recovery="1h")
    ... def rate(day):
    ...     raise ConnectionError
    >>> for _ in range(3):
    ...     try:
    ...         rate("2026-01-05")
    ...     except Exception as error:
    ...         print(type(error).__name__)
    ConnectionError
    ConnectionError
    OpenBreakerError
    >>> rate.breaker.state
    'open'
    """

    def decorate(function: F) -> F:
        guard = Breaker(function.__qualname__, *on, failures=failures, recovery=recovery)
        if is_async(function, "breaker"):

            async def wrapper(*args: Any, **values: Any) -> Any:
                with guard.attempt():
                    return await function(*args, **values)
        else:

            def wrapper(*args: Any, **values: Any) -> Any:  # type: ignore[misc]  # the other kind of function
                with guard.attempt():
                    return function(*args, **values)

        wrapped = functools.wraps(function)(wrapper)
        wrapped.breaker = guard  # type: ignore[attr-defined]
        return wrapped  # type: ignore[return-value]

    return decorate
