"""Trying again: which errors, how often, after what pause, and not beyond what somebody waits for."""

import asyncio
import pickle
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrodict
from retrodict.core.errors import AttemptsError, DefinitionError, RetryableError
from retrodict.core.retries import STRATEGIES, Retry, retry, waited_for, without_pauses


def failing(times, error=ConnectionError):
    """A function that fails so often, and the list of its calls."""
    calls = []

    def function(value="done"):
        calls.append(value)
        if len(calls) <= times:
            raise error(f"failure {len(calls)}")
        return value

    return function, calls


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_call_that_succeeds_within_its_attempts_gives_its_result(times):
    function, calls = failing(times)
    assert retry(ConnectionError, idempotent=True, base="1us")(function)("x") == "x"
    assert len(calls) == times + 1


def test_the_final_error_carries_the_last_one_and_the_number_of_attempts():
    function, calls = failing(100)
    with pytest.raises(
        AttemptsError, match=r"function: the call must succeed; got 'ConnectionError in 4 attempts'"
    ) as got:
        retry(ConnectionError, idempotent=True, base="1us")(function)()
    assert got.value.attempts == len(calls) == 4
    assert str(got.value.last) == "failure 4"
    assert got.value.__cause__ is got.value.last
    assert isinstance(got.value, RetryableError)
    assert "failure" not in str(got.value)  # an error of somebody's function may hold a secret
    assert str(pickle.loads(pickle.dumps(got.value))) == str(got.value)


def test_an_error_that_was_not_named_comes_through_at_once():
    function, calls = failing(100, ValueError)
    with pytest.raises(ValueError, match="failure 1"):
        retry(ConnectionError, idempotent=True, base="1us")(function)()
    assert len(calls) == 1


@pytest.mark.parametrize(
    "on", [(), (Exception,), (BaseException,), (ConnectionError, Exception), ("ConnectionError",), (int,)]
)
def test_errors_must_be_named_and_not_all(on):
    with pytest.raises(DefinitionError, match="errors must be named"):
        retry(*on, idempotent=True)


@pytest.mark.parametrize("word", [False, None, 1, "yes"])
def test_a_function_that_is_not_said_to_be_idempotent_is_refused(word):
    with pytest.raises(DefinitionError, match="must be idempotent"):
        retry(ConnectionError, idempotent=word)
    with pytest.raises(DefinitionError, match="must be idempotent"):
        retry(ConnectionError)


def test_a_decorator_without_its_errors_is_refused():
    with pytest.raises(DefinitionError, match="must be idempotent"):

        @retry
        def function():
            pass


@pytest.mark.parametrize(
    "wrong",
    [{"retries": 0}, {"retries": 11}, {"retries": True}, {"retries": 1.5}, {"strategy": "always"},
     {"base": "2s", "cap": "1s"}, {"base": "soon"}],
)  # fmt: skip
def test_parts_out_of_range_are_refused(wrong):
    with pytest.raises((DefinitionError, ValueError), match="must"):
        retry(ConnectionError, idempotent=True, **wrong)


@given(st.sampled_from(STRATEGIES), st.integers(1, 10), st.integers(1, 10**8), st.integers(1, 10**9))
def test_pauses_are_those_of_the_strategy(strategy, number, base, more):
    pause = Retry((OSError,), strategy=strategy, base=f"{base}us", cap=f"{base + more}us").pause_s(number) * 1e6
    longest = base + more
    if strategy == "fixed":
        assert pause == pytest.approx(base)
    elif strategy == "linear":
        assert pause == pytest.approx(min(longest, sum(base for _ in range(number))))
    else:
        doubled = base
        for _ in range(number - 1):
            doubled += doubled
        last = min(longest, doubled)
        assert pause == pytest.approx(last) if strategy == "exponential" else 0 <= pause <= last * (1 + 1e-9)


def test_jitter_spreads_those_who_failed_together():
    policy = Retry((OSError,), base="1s", cap="1s")
    pauses = {policy.pause_s(1) for _ in range(50)}
    assert len(pauses) == 50
    assert min(pauses) < 0.5 < max(pauses)


def test_a_pause_that_nobody_waits_out_is_not_made():
    function, calls = failing(100)
    again = retry(ConnectionError, idempotent=True, strategy="fixed", base="1h", cap="1h")(function)
    with waited_for(time.perf_counter_ns() + 10**9), pytest.raises(AttemptsError, match="in 1 attempt'") as got:
        again()  # else for an hour
    assert got.value.attempts == len(calls) == 1


def test_the_nearest_wait_counts_and_ends_with_its_block():
    function, calls = failing(1)
    again = retry(ConnectionError, idempotent=True, base="1us")(function)
    with waited_for(time.perf_counter_ns() - 1):
        with pytest.raises(AttemptsError):
            again()
        with waited_for(None):
            assert again() == "done"
    assert len(calls) == 2


def test_a_thread_that_others_wait_for_makes_no_pause():
    function, calls = failing(100)
    again = retry(ConnectionError, idempotent=True, strategy="fixed", base="1h", cap="1h")(function)
    errors = []

    def run():
        try:
            with without_pauses():
                again()
        except AttemptsError as error:
            errors.append(error.attempts)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert errors == [1]
    assert len(calls) == 1


def test_a_coroutine_pauses_while_the_loop_goes_on():
    calls, others = [], []

    @retry(ConnectionError, idempotent=True, strategy="fixed", base="1ms")
    async def function():
        calls.append(len(others))
        if len(calls) < 3:
            raise ConnectionError
        return "done"

    async def other():
        while len(calls) < 3:
            others.append(1)
            await asyncio.sleep(0)

    async def both():
        with without_pauses():  # which only forbids what would hold the loop up
            return (await asyncio.gather(function(), other()))[0]

    with_thread = []
    thread = threading.Thread(target=lambda: with_thread.append(asyncio.run(both())))
    thread.start()
    thread.join(60)
    assert with_thread == ["done"]
    assert calls[-1] > 0


def test_a_generator_is_refused():
    def rows():
        yield 1

    async def more():
        yield 1

    for function in (rows, more):
        with pytest.raises(DefinitionError, match="got 'a generator'"):
            retry(OSError, idempotent=True)(function)


def test_retries_are_logged_without_what_the_error_says(caplog):
    function, _ = failing(1)
    retry(ConnectionError, idempotent=True, base="1us")(function)()
    (record,) = caplog.records
    assert "failed with ConnectionError, attempt 1 of 4: again in" in record.getMessage()
    assert "failure 1" not in record.getMessage()


def test_the_decorated_function_stays_what_it_was_by_name():
    @retrodict.retry(OSError, idempotent=True)
    def rates(day: str) -> float:
        """Rates of a day."""

    assert (rates.__name__, rates.__doc__) == ("rates", "Rates of a day.")
