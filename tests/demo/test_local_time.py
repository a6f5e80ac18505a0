"""Wall clocks to instants, against the standard library one value at a time."""

# ruff: noqa: DTZ001 - a wall clock without a zone is what is under test
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retrodict.core.durations import MINUTE
from retrodict.demo.local_time import Zones

ZONES = ["America/New_York", "America/Los_Angeles", "America/Phoenix", "Pacific/Honolulu", "America/Puerto_Rico"]
EPOCH = datetime(1970, 1, 1)
START, END = datetime(2013, 1, 1), datetime(2013, 12, 31)

minutes = st.integers(0, int((END - START) / timedelta(minutes=1)))
# Changes of clocks are four hours of a year: without them drawn on purpose no property would meet one.
near_changes = st.builds(
    lambda day, minute: int((day - START) / timedelta(minutes=1)) + minute,
    st.sampled_from([datetime(2013, 3, 10), datetime(2013, 11, 3)]), st.integers(-600, 900),
)  # fmt: skip
walls = st.one_of(minutes, near_changes).map(lambda minute: START + timedelta(minutes=minute))


def micros(naive: datetime) -> int:
    return int((naive - EPOCH) / timedelta(microseconds=1))


def instant(wall: datetime, zone: str, fold: int) -> int:
    return micros(wall.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC).replace(tzinfo=None))


def column(value: int) -> np.ndarray:
    return np.array([value], np.int64)


@given(st.sampled_from(ZONES), walls)
@example("America/New_York", datetime(2013, 3, 10, 2, 30))
@example("America/New_York", datetime(2013, 11, 3, 1, 30))
def test_a_wall_clock_means_what_the_standard_library_says(zone: str, wall: datetime) -> None:
    """Both readings of a repeated hour, and the unmoved clock of a skipped one, are those of PEP 495."""
    instants = Zones(ZONES).to_instants(column(ZONES.index(zone)), column(micros(wall)))
    early, late = instant(wall, zone, 0), instant(wall, zone, 1)
    assert instants.first[0] == early
    assert instants.skipped[0] == (early > late)
    assert instants.twice[0] == (early < late)
    assert instants.second[0] == max(early, late)


@settings(max_examples=150)
@given(st.sampled_from(ZONES), walls, st.integers(0, 1440))
@example("America/New_York", datetime(2013, 11, 3, 5, 30), 75)  # between the two 01:15
@example("America/New_York", datetime(2013, 3, 10, 6, 30), 150)  # 02:30 is skipped
def test_the_first_such_time_is_the_one_found_by_walking(zone: str, start: datetime, minute_of_day: int) -> None:
    """Minute by minute from the start, no earlier minute shows the time of day on the wall."""
    instants = Zones(ZONES).first_after(
        column(ZONES.index(zone)), column(micros(start)), column(minute_of_day * MINUTE)
    )
    moment = start.replace(tzinfo=UTC)
    for step in range(1, 3000):
        local = (moment + timedelta(minutes=step)).astimezone(ZoneInfo(zone))
        if local.hour * 60 + local.minute == minute_of_day % 1440:
            break
    walked = micros((moment + timedelta(minutes=step)).replace(tzinfo=None))
    if instants.skipped[0]:
        assert micros(start) < instants.first[0] < walked
    else:
        assert instants.first[0] == walked
