"""Trying again: which errors, how often, after which pause, and never beyond what somebody still waits for.

Own code: ``tenacity`` and ``stamina`` fit, but take 36 and 40 ms to import, and know nothing of the deadline of whoever
waits further up. A function says that it is idempotent before it is called twice, and which errors pass by themselves:
a default that tries everything again would repeat payments and hide mistakes.
"""

from __future__ import annotations

import functools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from retrodict.core.durations import SECOND, parse_duration
from retrodict.core.errors import AttemptsError, DefinitionError, RetrodictError, check_known

__all__ = [
    "STRATEGIES",
    "TELLING_S",
    "Retry",
    "Strategy",
    "check_errors",
    "is_async",
    "left_s",
    "retry",
    "waited_for",
    "waiting_until",
    "without_pauses",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Strategy = Literal["fixed", "linear", "exponential", "exponential_jitter"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
_MOST = 10

TELLING_S = 0.05
"""Seconds: a server that was given less and has not answered may be well all the same."""

_log = logging.getLogger(__name__)
_until: ContextVar[int | None] = ContextVar("waited_for", default=None)
_thread = threading.local()


@contextmanager
def waited_for(until_ns: int | None) -> Iterator[None]:
    """Say until when, by ``time.perf_counter_ns()``, somebody waits for what is done in the block; None: for ever."""
    token = _until.set(until_ns)
    try:
        yield
    finally:
        _until.reset(token)


def waiting_until() -> int | None:
    """``time.perf_counter_ns()`` until which somebody waits for what is done here; None: as long as it takes."""
    return _until.get()


def left_s(until_ns: int | None) -> float:
    """Seconds until a moment of ``time.perf_counter_ns()``: 0 if it has passed, no end of them for None."""
    return math.inf if until_ns is None else max(0.0, (until_ns - time.perf_counter_ns()) / 1e9)


@contextmanager
def without_pauses() -> Iterator[None]:
    """Say that others wait for this thread, too, until the end of the block: what fails in it is not tried again."""
    _thread.answers = True
    try:
        yield
    finally:
        _thread.answers = False


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call that failed is made again.

    Parameters
    ----------
    on : tuple of exception classes
        Errors that may pass by themselves. Any other comes through at once.
    retries : int, default 3
        Calls after the first, 1 to 10.
    strategy : {"exponential_jitter", "exponential", "linear", "fixed"}
        The pause before retry number n: ``base``; ``n * base``; ``2 ** (n - 1) * base``; or any length up to the last,
        by chance, so that those who failed together do not come back together.
    base, cap : duration
        First pause, and the longest.

    Examples
    --------
    >>> again = Retry((ConnectionError,), strategy="exponential", base="1s", cap="3s")
    >>> [again.pause_s(number) for number in (1, 2, 3)]
    [1.0, 2.0, 3.0]
    """

    on: tuple[type[BaseException], ...]
    retries: int = 3
    strategy: Strategy = "exponential_jitter"
    base: str = "1s"
    cap: str = "60s"

    def __post_init__(self) -> None:
        """Check the parts."""
        check_errors(self.on, where="retry")
        if type(self.retries) is not int or not 1 <= self.retries <= _MOST:
            raise DefinitionError(f"retries must be a whole number from 1 to {_MOST}", where="retry", got=self.retries,
                                  remedy="Leave it out for 3")  # fmt: skip
        rule = "a strategy must be one that there is"
        check_known(self.strategy, STRATEGIES, rule, where="retry", what="strategy", error=DefinitionError)
        if parse_duration(self.base, where="retry, base") > parse_duration(self.cap, where="retry, cap"):
            raise DefinitionError("the first pause must not be longer than the longest", where="retry", got=self.base,
                                  remedy=f"Raise cap, which is {self.cap!r}")  # fmt: skip

    def pause_s(self, number: int) -> float:
        """Seconds before retry ``number``, from 1 on."""
        base, cap = parse_duration(self.base) / SECOND, parse_duration(self.cap) / SECOND
        factor = {"fixed": 1, "linear": number}.get(self.strategy, 2 ** (number - 1))
        longest = min(cap, factor * base)
        return random.uniform(0.0, longest) if self.strategy == "exponential_jitter" else longest  # noqa: S311

    def call(self, function: Callable[[], T], name: str, noted: Callable[[], None] = lambda: None) -> T:
        """Result of a function that may be called several times; ``noted`` is called before each retry.

        Raises
        ------
        AttemptsError
            If it failed every time, or before a pause that nobody would wait out; with the last error.
        """
        attempts = 0
        while True:
            attempts += 1
            try:
                return function()
            except self.on as error:
                pause = self._next(attempts, error, name)
                noted()
            time.sleep(pause)

    async def call_async(self, function: Callable[[], Any], name: str) -> Any:
        """Result of a coroutine function, as :meth:`call`; the event loop goes on in the pauses."""
        import asyncio

        attempts = 0
        while True:
            attempts += 1
            try:
                return await function()
            except self.on as error:
                pause = self._next(attempts, error, name, loop=True)
            await asyncio.sleep(pause)

    def _next(self, attempts: int, error: BaseException, name: str, *, loop: bool = False) -> float:
        """Pause before the next attempt; AttemptsError if there is to be none."""
        pause, until = self.pause_s(attempts), _until.get()
        late = until is not None and time.perf_counter_ns() + int(pause * 1e9) >= until
        if attempts <= self.retries and not late and (loop or not getattr(_thread, "answers", False)):
            _log.warning("%s failed with %s, attempt %d of %d: again in %.3f s", name, type(error).__name__, attempts,
                         self.retries + 1, pause)  # fmt: skip
            return pause
        reason = error.rule if isinstance(error, RetrodictError) else "the call must succeed"
        remedy = error.remedy if isinstance(error, RetrodictError) else None
        final = AttemptsError(
            reason, where=name, got=f"{type(error).__name__} in {attempts} attempt{'s' if attempts > 1 else ''}",
            remedy=remedy or "See its cause, and try again later",
        )  # fmt: skip
        final.last, final.attempts = error, attempts
        raise final from error


def retry(
    *on: type[BaseException],
    idempotent: bool = False,
    retries: int = 3,
    strategy: Strategy = "exponential_jitter",
    base: str = "1s",
    cap: str = "60s",
) -> Callable[[F], F]:
    """Call a function again if it fails with certain errors; for functions and coroutine functions.

    Parameters
    ----------
    *on : exception classes
        Errors that may pass by themselves; at least one, and not ``Exception``.
    idempotent : bool
        Must be true: to call it twice does no more than to call it once, also where the first call has done its work
        and only its answer was lost.
    retries, strategy, base, cap
        As for :class:`Retry`: 3 more calls, after up to 1, 2 and 4 s by chance.

    Raises
    ------
    DefinitionError
        If the function is not said to be idempotent, or the errors are none or all.

    Examples
    --------
    >>> calls = []
    >>> @retry(ConnectionError, idempotent=True, base="1ms")
    ... def rate(day):
    ...     calls.append(day)
    ...     if len(calls) < 3:
    ...         raise ConnectionError
    ...     return 1.08
    >>> rate("2026-01-05"), len(calls)
    (1.08, 3)
    """
    if idempotent is not True:
        raise DefinitionError(
            "a function that is called again must be idempotent", where="retry", got=idempotent,
            remedy="If calling it twice does no more than calling it once, write idempotent=True; if not, do not retry",
        )  # fmt: skip
    policy = Retry(on, retries, strategy, base, cap)

    def decorate(function: F) -> F:
        name = function.__qualname__
        if is_async(function, "retry"):

            async def wrapper(*args: Any, **values: Any) -> Any:
                return await policy.call_async(functools.partial(function, *args, **values), name)
        else:

            def wrapper(*args: Any, **values: Any) -> Any:  # type: ignore[misc]  # the other kind of function
                return policy.call(functools.partial(function, *args, **values), name)

        return functools.wraps(function)(wrapper)  # type: ignore[return-value]

    return decorate


def check_errors(on: tuple[Any, ...], *, where: str) -> None:
    """Refuse what are no exception classes, and those that stand for every error."""
    bad = [one for one in on if not (isinstance(one, type) and issubclass(one, BaseException))
           or one in (Exception, BaseException)]  # fmt: skip
    if bad or not on:
        raise DefinitionError(
            "errors must be named that come from outside and may pass", where=where,
            got=[getattr(one, "__name__", repr(one)) for one in bad] or "none",
            remedy="Name the classes, such as ConnectionError and TimeoutError; all of them would hide mistakes",
        )  # fmt: skip


def is_async(function: Callable[..., Any], where: str) -> bool:
    """Whether it is a coroutine function; DefinitionError for a generator, whose errors come after it has returned."""
    import inspect

    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            "a function must return its result", where=f"{where}, {function.__qualname__}", got="a generator",
            remedy="Return a list, or put it around what makes each item",
        )  # fmt: skip
    return inspect.iscoroutinefunction(function)
