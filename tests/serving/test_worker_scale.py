"""How many workers there should be, against loads that are known."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.config import SETTINGS
from retrodict.core.errors import InputError
from retrodict.serving.worker_scale import WorkerScale, parse_workers


def follow(scale, load, seconds, count, start=0.0):
    """Numbers of workers over time, where each is as busy as their share of a load says; one second to begin."""
    numbers, now = [], start
    while now < start + seconds:
        wanted = scale.count(now, [min(load(now) / count, 1.0)] * count)
        assert abs(wanted - count) <= 1
        if wanted != count:
            scale.changed()
            count, now = wanted, now + 1.0
        numbers.append(count)
        now += 0.5
    return numbers


def test_a_load_that_grows_tenfold_and_falls_is_followed():
    """Each worker does one unit: five units ask for 7 of them (at most 0.8 each), half a unit for one."""
    scale = WorkerScale(1, 10)
    up = follow(scale, lambda _: 5.0, 120, 1)
    assert up == sorted(up)
    assert up[-1] == 7
    down = follow(scale, lambda _: 0.5, 900, 7, start=200)
    assert down == sorted(down, reverse=True)
    assert down[-1] == 1


@settings(deadline=None)
@given(load=st.floats(0, 20), count=st.integers(1, 8))
def test_a_steady_load_is_answered_by_a_number_that_stays(load, count):
    """Nothing swings: whatever is reached in time is kept."""
    numbers = follow(WorkerScale(1, 8), lambda _: load, 1500, count)
    assert len(set(numbers[len(numbers) // 2 :])) == 1
    last = numbers[-1]
    assert last == 8 or load / last <= 0.8
    assert last == 1 or load / last >= 0.3


def test_a_short_burst_and_a_short_pause_change_nothing():
    """Two seconds of load, or less than a minute without."""
    assert set(follow(WorkerScale(1, 4), lambda now: 1.0 if 10 <= now < 12 else 0.1, 60, 1)) == {1}
    assert set(follow(WorkerScale(1, 4), lambda now: 0.0 if 70 <= now < 125 else 1.0, 180, 2)) == {2}


@pytest.mark.parametrize(("text", "ends"), [(4, (4, 4)), ("4", (4, 4)), ("2-8", (2, 8)), ("1-1", (1, 1))])
def test_numbers_and_ranges_are_read(text, ends):
    """As options and as settings."""
    assert parse_workers(text) == ends


def test_auto_is_as_many_as_this_process_may_use():
    """Not as many as the machine has."""
    assert parse_workers("auto") == (1, min(len(os.sched_getaffinity(0)), 32))


@given(st.one_of(st.integers(-2, 40), st.text("0123456789-auto ", max_size=6), st.sampled_from(["1-8", "auto", "8-1"])))
def test_a_setting_holds_what_can_be_read(value):
    """Whatever the file may say is what the server takes; a number as text is of the option only."""
    try:
        parse_workers(value)
        readable = not (isinstance(value, str) and value.isdigit())
    except InputError:
        readable = False
    assert SETTINGS["serving.workers"].holds(value) == readable
