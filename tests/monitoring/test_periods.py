"""Periods of reports."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrodict.core.clock import parse_time
from retrodict.core.errors import InputError
from retrodict.monitoring.periods import period_of, periods_between

_INSTANTS = st.integers(parse_time("1999-01-01T00:00Z"), parse_time("2060-01-01T00:00Z"))


@given(_INSTANTS)
def test_months_are_those_of_the_calendar(instant):
    """Against pandas."""
    found = period_of(instant, "month")
    expected = pd.Timestamp(instant, unit="us").to_period("M")
    assert found.name == str(expected)
    assert (found.start, found.end) == (expected.start_time.value // 1000, (expected + 1).start_time.value // 1000)


@given(_INSTANTS, st.sampled_from(["1h", "1d", "7d", "36h"]))
def test_a_duration_gives_the_same_periods_whatever_the_span(instant, length):
    """Start is a multiple of the length, and the instant is inside."""
    found = period_of(instant, length)
    assert found.start <= instant < found.end
    assert period_of(found.start, length) == period_of(found.end - 1, length) == found


@example(0, 9 * 86_400_000_000, "9d")  # the last instant begins a period
@given(_INSTANTS, st.integers(0, 400 * 86_400_000_000), st.sampled_from(["month", "9d"]))
def test_periods_have_no_gaps(first, length, period):
    """Each begins where the one before ended, and both ends are inside."""
    found = periods_between(first, first + length, period)
    assert all(a.end == b.start for a, b in pairwise(found))
    assert found[0].start <= first < found[0].end
    assert found[-1].start <= first + length < found[-1].end


@pytest.mark.parametrize("period", ["week", "0s", ""])
def test_a_word_that_is_no_period_is_refused(period):
    """The message says how to write it."""
    with pytest.raises(InputError, match="Write it like 'month' or '7d'"):
        period_of(0, period)


def test_too_many_periods_are_refused():
    """A report of seconds over a year is a mistake."""
    with pytest.raises(InputError, match="must have at most 10000 periods"):
        periods_between(0, 365 * 86_400_000_000, "1s")
