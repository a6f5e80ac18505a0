"""Durations as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import InputError

UNITS = {
    "us": "microseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
}


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4),
    st.sampled_from(["", " "]),
)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]], gap: str) -> None:
    """As Python's timedelta has it, unless it is longer than a century."""
    text = gap.join(f"{count}{gap}{unit}" for count, unit in parts)
    wanted = sum((timedelta(**{UNITS[unit]: count}) for count, unit in parts), timedelta())
    if wanted > timedelta(days=36_525):
        with pytest.raises(InputError, match="at most a hundred years"):
            parse_duration(text)
    else:
        assert parse_duration(text) == wanted // timedelta(microseconds=1)


@given(st.integers(0, 36_525 * 86_400_000_000))
def test_what_is_written_is_read_back(micros: int) -> None:
    """Every length, to the microsecond."""
    assert parse_duration(format_duration(micros)) == micros


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "-2h", "1.5h", "2 h 3", "1 month", "2H", "٣h", None, 7, ["2h"]])
def test_anything_else_is_refused(text: object) -> None:
    """With what was given, where, and how to write it."""
    with pytest.raises(
        InputError, match=r"window: a duration must be whole numbers with units .* Write it (like|as) '2h'"
    ):
        parse_duration(text, where="window")  # type: ignore[arg-type]


def test_a_slip_of_the_unit_is_found() -> None:
    """Longer than a hundred years is no window; a number of a thousand digits is not even counted."""
    for text in ("40000d", "9" * 30 + "s", "9" * 5000 + "us"):
        with pytest.raises(InputError, match="at most a hundred years"):
            parse_duration(text)


def test_a_negative_length_is_refused() -> None:
    """There is no text for it."""
    with pytest.raises(InputError, match="not be negative"):
        format_duration(-1)


def test_units_in_words_get_their_short_form():
    """An error on a duration in words says how to write it; on what is none it gives examples."""
    for text, short in (("5 days", "5d"), ("2 hours 30 min", "2h 30m"), ("1 WEEK", "1w"), ("10seconds", "10s")):
        with pytest.raises(InputError, match=f"Write it as '{short}'"):
            parse_duration(text)
    with pytest.raises(InputError, match="Write it like '2h'"):
        parse_duration("5 moons")
