"""Circuit breakers: when they open, whom they refuse, and who may look whether it works again."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrodict
from retrodict.core.breakers import Breaker, breaker
from retrodict.core.errors import DefinitionError, OpenBreakerError
from retrodict.core.retries import retry


class Watch:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def call(guard, error=None):
    with guard.attempt():
        if error is not None:
            raise error


def fail(guard, error=None):
    with pytest.raises(OSError):  # noqa: PT011
        call(guard, error or OSError())


def opened(watch, **options):
    guard = Breaker("store", OSError, failures=2, recovery="30s", clock=watch, **options)
    fail(guard)
    fail(guard)
    assert guard.state == "open"
    return guard


def test_failures_spread_over_successes_never_open_it():
    guard = Breaker("store", OSError, failures=3)
    for _ in range(100):
        fail(guard)
        fail(guard)
        call(guard)
    assert guard.state == "closed"
    assert guard.counts == {"failures": 200, "opened": 0, "refused": 0, "retried": 0}


def test_an_open_breaker_refuses_at_once_and_says_for_how_long():
    watch = Watch()
    guard = opened(watch)
    watch.now += 10
    with pytest.raises(OpenBreakerError, match=r"breaker store: .* got 'an open breaker'. Try again in 20.0 s."):
        call(guard)
    assert guard.counts == {"failures": 2, "opened": 1, "refused": 1, "retried": 0}


def test_of_many_callers_exactly_one_looks_whether_it_works_again():
    watch = Watch()
    guard = opened(watch)
    watch.now += 30
    assert guard.state == "half_open"
    begin, refused, seen = threading.Barrier(16), threading.Semaphore(0), []

    def one():
        begin.wait(30)
        try:
            with guard.attempt():
                seen.append("through")
                for _ in range(15):  # until all others were told, or for a while
                    refused.acquire(timeout=2)
        except OpenBreakerError as error:
            seen.append(error.got)
            refused.release()

    threads = [threading.Thread(target=one, daemon=True) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen.count("through") == 1
    assert seen.count("a half-open breaker, and a call that looks whether it works") == 15
    assert guard.state == "closed"


def test_a_look_that_fails_opens_it_for_as_long_again():
    watch = Watch()
    guard = opened(watch)
    watch.now += 30
    fail(guard)
    assert guard.state == "open"
    watch.now += 29
    with pytest.raises(OpenBreakerError):
        call(guard)
    watch.now += 1
    call(guard)
    assert guard.state == "closed"
    assert guard.counts["opened"] == 2


def test_a_breaker_that_closed_counts_from_nothing():
    watch = Watch()
    guard = opened(watch)
    watch.now += 30
    call(guard)
    fail(guard)
    assert guard.state == "closed"


def test_another_error_says_nothing_and_lets_the_next_one_look():
    watch = Watch()
    guard = opened(watch)
    watch.now += 30
    with pytest.raises(ValueError, match="mine"):
        call(guard, ValueError("mine"))
    assert guard.state == "half_open"
    call(guard)
    assert guard.state == "closed"


def test_another_error_between_failures_does_not_begin_the_count_anew():
    guard = Breaker("store", OSError, failures=2)
    fail(guard)
    with pytest.raises(ValueError, match="mine"):
        call(guard, ValueError("mine"))
    fail(guard)
    assert guard.state == "open"


def test_a_look_that_never_ends_holds_up_nobody_for_ever():
    watch = Watch()
    guard = opened(watch)
    watch.now += 30
    hanging = guard.attempt()
    hanging.__enter__()
    with pytest.raises(OpenBreakerError):
        call(guard)
    watch.now += 30
    call(guard)
    assert guard.state == "closed"
    assert not hanging.__exit__(OSError, OSError(), None)
    assert guard.state == "closed"
    fail(guard)
    assert guard.state == "closed", "the late end of the old look counted"


def test_what_began_before_it_opened_changes_nothing_when_it_ends():
    watch = Watch()
    guard = Breaker("store", OSError, failures=2, clock=watch)
    late = guard.attempt()
    late.__enter__()
    fail(guard)
    fail(guard)
    late.__exit__(None, None, None)
    assert guard.state == "open"


@given(st.lists(st.sampled_from(["ok", "fail", "other", "wait", "step"]), max_size=60), st.integers(1, 4))
def test_calls_one_after_the_other_go_as_the_rule_says(actions, most):
    """The oracle keeps the whole history of outcomes, and no counter."""
    watch = Watch()
    guard = Breaker("store", OSError, failures=most, recovery="10s", clock=watch)
    history, until, refused = [], None, 0
    for action in actions:
        if action in ("wait", "step"):
            watch.now += 10 if action == "wait" else 4
            continue
        error = {"ok": None, "fail": OSError(), "other": ValueError()}[action]
        blocked = until is not None and watch.now < until
        try:
            call(guard, error)
            outcome = "ok"
        except OpenBreakerError:
            outcome = "refused"
        except (OSError, ValueError):
            outcome = action
        assert outcome == ("refused" if blocked else action)
        refused += outcome == "refused"
        if outcome == "fail":
            history.append("fail")
            if until is not None or history[-most:] == ["fail"] * most:
                until, history = watch.now + 10, []
        elif outcome == "ok":
            until, history = None, ["ok"]
    state = "closed" if until is None else "open" if watch.now < until else "half_open"
    assert (guard.state, guard.counts["refused"]) == (state, refused)


def test_an_open_breaker_inside_ends_the_retries():
    calls = []

    @retry(ConnectionError, idempotent=True, base="1us", retries=9)
    @breaker(ConnectionError, failures=2)
    def rate():
        calls.append(1)
        raise ConnectionError

    with pytest.raises(OpenBreakerError):
        rate()
    assert len(calls) == 2


def test_coroutine_functions_are_guarded_too():
    @retrodict.breaker(ConnectionError, failures=1)
    async def rate():
        raise ConnectionError

    async def twice():
        with pytest.raises(ConnectionError):
            await rate()
        with pytest.raises(OpenBreakerError):
            await rate()

    asyncio.run(twice())
    assert rate.breaker.state == "open"


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"failures": True}, {"failures": 2.0}, {"recovery": "soon"}])
def test_parts_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        breaker(OSError, **wrong)(lambda: None)


@pytest.mark.parametrize("on", [(), (Exception,)])
def test_errors_must_be_named_and_not_all(on):
    with pytest.raises(DefinitionError, match="errors must be named"):
        breaker(*on)(lambda: None)


def test_opening_and_closing_are_logged(caplog):
    watch = Watch()
    guard = opened(watch)
    watch.now += 30
    call(guard)
    assert [record.getMessage() for record in caplog.records] == [
        "breaker store opens: it is not called for 30 s", "breaker store closes: it works again",
    ]  # fmt: skip
