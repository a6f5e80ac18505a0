"""Calendar parts equal the standard library's, for arrays and for single instants."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.features.derived import TIME_PARTS
from retrodict.features.facts.times import Times

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Monrovia"]
PARTS = {
    "hour": lambda m: m.hour,
    "minute": lambda m: m.minute,
    "second": lambda m: m.second,
    "weekday": lambda m: m.weekday(),
    "day": lambda m: m.day,
    "month": lambda m: m.month,
    "year": lambda m: m.year,
    "dayofyear": lambda m: m.timetuple().tm_yday,
}
CHANGES = [1362898800, 1383458400, 1364691600, 1382835600, 1380987000, 63593070]  # seconds at which a zone changes
LEAPS = [
    datetime(y, m, d, tzinfo=UTC) for y in (1696, 1700, 1800, 1900, 2000, 2100) for m, d in ((2, 28), (3, 1), (12, 31))
]
instants = st.one_of(
    st.builds(
        lambda day, d: (day - EPOCH) // timedelta(microseconds=1) + d,
        st.sampled_from(LEAPS),
        st.sampled_from([-1, 0, 1]),
    ),
    st.integers(-(10**16), 10**16),
    st.builds(lambda s, d: s * 10**6 + d, st.sampled_from(CHANGES), st.sampled_from([-1, 0, 1, -(10**9), 10**9])),
)


@given(st.lists(instants, min_size=1, max_size=8), st.sampled_from(ZONES))
def test_parts_are_those_of_zoneinfo(micros, zone):
    """Every part, over daylight saving changes, as an array, as arrays of one and as an int."""
    expected = [(EPOCH + timedelta(microseconds=m)).astimezone(ZoneInfo(zone)) for m in micros]
    together = Times(np.array(micros, dtype=np.int64)).to(zone)
    for name, part in PARTS.items():
        wanted = [part(moment) for moment in expected]
        assert getattr(together, name).tolist() == wanted
        assert [getattr(Times(m).to(zone), name) for m in micros] == wanted
        assert [getattr(Times(np.array([m])).to(zone), name)[0] for m in micros] == wanted


def test_null_instants_have_null_parts():
    """NaN stands where there is no instant, also in differences."""
    moments = Times(np.array([0, 3_600_000_000]), np.array([True, False]))
    np.testing.assert_array_equal(moments.hour, [np.nan, 1.0])
    np.testing.assert_array_equal(moments.seconds_since(Times(np.array([0, 0]))), [np.nan, 3600.0])


def test_unknown_zone_is_named():
    """A zone that does not exist is an input error."""
    with pytest.raises(InputError, match="IANA time zone database; got 'Mars/Base'"):
        Times(0).to("Mars/Base")


def test_the_list_of_parts_is_the_class():
    """The light module that reads function sources knows exactly the parts that exist."""
    public = {name for name in dir(Times) if not name.startswith("_")}
    assert public == TIME_PARTS
