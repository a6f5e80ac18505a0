"""Instants: microseconds inside, zones at the edges."""

# ruff: noqa: DTZ001  # naive datetimes are what these tests are about

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.clock import SimulatedClock, SystemClock, format_time, from_micros, parse_time, to_micros
from retrodict.core.errors import InputError

MOMENTS = st.datetimes(
    min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1),
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)  # fmt: skip


@given(MOMENTS)
def test_an_instant_survives_every_form(moment: datetime) -> None:
    """Datetime, number and text say the same, to the microsecond."""
    instant = to_micros(moment)
    assert from_micros(instant) == moment
    assert parse_time(format_time(instant)) == instant
    assert parse_time(moment.isoformat()) == instant
    days = (moment.astimezone(UTC).replace(tzinfo=None) - datetime(1970, 1, 1)) / timedelta(days=1)
    assert abs(instant / 86_400_000_000 - days) < 1e-3


@pytest.mark.parametrize("text", ["2013-09-01", "2013-09-01T18:00", "yesterday", "", "2013-13-01T00:00Z", None, 5])
def test_what_is_no_time_with_a_zone_is_refused(text: object) -> None:
    """Never guessed; the message says how to write it."""
    with pytest.raises(InputError, match=r"row 3: a time .*zone.*\. (Append|Write it like)"):
        parse_time(text, where="row 3")  # type: ignore[arg-type]


def test_a_naive_datetime_is_refused() -> None:
    """Datetimes too."""
    with pytest.raises(InputError, match="a time must carry its zone"):
        to_micros(datetime(2013, 9, 1))


def test_an_instant_out_of_range_is_an_error_that_names_the_unit() -> None:
    """Nanoseconds given for microseconds are the usual reason."""
    with pytest.raises(InputError, match="nanoseconds are not microseconds"):
        format_time(1_700_000_000_000_000_000)


def test_a_simulated_clock_stands_moves_and_never_goes_back() -> None:
    """Facts already stand at the later time."""
    clock = SimulatedClock(10)
    assert (clock.now(), clock.now()) == (10, 10)
    clock.move_to(10)
    clock.move_to(12)
    with pytest.raises(InputError, match="must not go back"):
        clock.move_to(11)
    assert clock.now() == 12


def test_the_system_clock_counts_microseconds() -> None:
    """Of now, not of another unit."""
    assert abs(SystemClock().now() - datetime.now(UTC).timestamp() * 1e6) < 5e6
