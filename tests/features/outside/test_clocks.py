"""Instants: zones and daylight saving, announcements, single microseconds, other units, years far from now.

Origin: the IANA rules of America/New_York (clocks went back at 2023-11-05 06:00 UTC, forward at 2024-03-10 07:00 UTC)
and the semantics of a feature value; the offsets were written down by hand.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from retrodict.core.errors import InputError
from retrodict.features.definitions import Window, agg, latest
from retrodict.features.derived import derived
from retrodict.features.offline import training_frame
from retrodict.features.plan import FeatureSet

NEW_YORK = ZoneInfo("America/New_York")
MICRO, MINUTE, HOUR, DAY = timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
T0 = datetime(2024, 5, 1, 12, tzinfo=UTC)
ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "+05:45"]


def _column(moments, zone="UTC", unit="us"):
    return pa.array([moment.astimezone(UTC) for moment in moments], pa.timestamp("us", "UTC")).cast(
        pa.timestamp(unit, zone)
    )


def _events(moments, zone="UTC", unit="us", **more):
    ids = list(range(len(moments)))
    return pa.table({"key": ["a"] * len(ids), "id": ids, "e": _column(moments, zone, unit), **more})


def _spine(moments, zone="UTC", unit="us"):
    return pa.table({"key": ["a"] * len(moments), "at": _column(moments, zone, unit)})


def _local(month, day, hour, minute=0, *, year, fold=0):
    return datetime(year, month, day, hour, minute, tzinfo=NEW_YORK, fold=fold)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("own", ZONES)
def test_zones_of_columns_do_not_matter(answer, view, zone, own):
    """Events read on one clock and requests on another are the same instants."""
    events, moments = [T0 + i * 10 * MINUTE for i in range(12)], [T0 + HOUR, T0 + HOUR + MICRO, T0 + 2 * HOUR]
    made = view("key", [agg.count(over=["1h", Window("1d", hop="1d")]), agg.max("e", over="1h")], event_time="e")
    found = answer(made, {"s": _events(events, zone)}, _spine(moments, own))
    assert found["v__count_1h"] == [6, 6, 6]
    assert found["v__count_1d_hop_1d"] == [6, 7, 12]
    newest = [T0 + 50 * MINUTE, T0 + 60 * MINUTE, T0 + 110 * MINUTE]
    assert found["v__max_e_1h"] == [int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / MICRO) for moment in newest]


def test_the_hour_that_comes_twice(answer, view):
    """When clocks go back 01:30 comes twice, an hour apart; windows are elapsed time, not what the clock shows."""
    events = [_local(11, 5, 1, 30, year=2023, fold=fold) for fold in (0, 1)]
    moments = [
        _local(11, 5, 1, 31, year=2023, fold=0),
        _local(11, 5, 1, 31, year=2023, fold=1),
        _local(11, 5, 2, 30, year=2023),
        _local(11, 6, 0, 30, year=2023),  # 24 elapsed hours after the first 01:30, by the clock 23
        _local(11, 6, 0, 31, year=2023),
    ]
    made = view("key", agg.count(over=["1h", "24h"]), event_time="e")
    found = answer(made, {"s": _events(events, "America/New_York")}, _spine(moments, "America/New_York"))
    assert found == {"v__count_1h": [1, 1, 1, 0, 0], "v__count_24h": [1, 2, 2, 2, 1]}


def test_the_hour_that_never_comes(answer, view):
    """When clocks go forward 01:59 and 03:01 are two minutes apart, and 02:30 is read as 03:30."""
    events = [_local(3, 10, 1, 59, year=2024), _local(3, 10, 2, 30, year=2024)]
    moments = [_local(3, 10, 3, 1, year=2024), _local(3, 10, 3, 30, year=2024), _local(3, 10, 3, 31, year=2024)]
    made = view("key", [agg.time_since_last(over="1h"), agg.count(over="5m")], event_time="e")
    found = answer(made, {"s": _events(events, "America/New_York")}, _spine(moments))
    assert found == {"v__time_since_last_1h": [120.0, 1860.0, 60.0], "v__count_5m": [1, 0, 1]}


@derived
def local(at, v__count_1h):
    """What the clock on the wall shows."""
    wall = at.to("America/New_York")
    return {"hour": wall.hour, "minute": wall.minute, "weekday": wall.weekday, "day": wall.day}


def test_calendar_parts_around_the_changes(answer, view):
    """Hour, minute, weekday and day in New York: the hour that comes twice, the one that never comes, midnight."""
    moments = [
        _local(11, 5, 1, 30, year=2023, fold=0),
        _local(11, 5, 1, 30, year=2023, fold=1),
        _local(3, 10, 1, 59, year=2024),
        _local(3, 10, 1, 59, year=2024) + timedelta(0),
        datetime(2024, 3, 10, 7, tzinfo=UTC),
        datetime(2024, 3, 10, 4, 59, 59, 999_999, tzinfo=UTC),
    ]
    made = [view("key", agg.count(over="1h"), event_time="e"), local]
    spine = _spine(moments, "Asia/Kolkata")
    if answer.engine == "oracle":
        return  # derived functions are no part of the oracle: the expected values below judge
    found = answer(made, {"s": _events([T0])}, spine)
    assert found["local__hour"] == [1, 1, 1, 1, 3, 23]
    assert found["local__minute"] == [30, 30, 59, 59, 0, 59]
    assert found["local__weekday"] == [6, 6, 6, 6, 6, 5]
    assert found["local__day"] == [5, 5, 10, 10, 10, 9]


def test_known_before_it_happens(answer, view):
    """An announcement is seen when both clocks have passed: its event time is what it waits for."""
    table = _events([T0]).append_column("k", _column([T0 - 2 * HOUR]))
    made = view("key", [agg.count(over=["1h", "lifetime"]), latest("id")], event_time="e", known_at="k")
    moments = [T0 - 3 * HOUR, T0 - HOUR, T0, T0 + MICRO, T0 + HOUR, T0 + HOUR + MICRO]
    assert answer(made, {"s": table}, _spine(moments)) == {
        "v__count_1h": [0, 0, 0, 1, 1, 0],
        "v__count_lifetime": [0, 0, 0, 1, 1, 1],
        "v__latest_id": [None, None, None, 0, 0, 0],
    }


def test_single_microseconds(answer, view):
    """Ten events one microsecond apart, windows of one, two and five microseconds, a delay of three."""
    events = _events([T0 + i * MICRO for i in range(10)])
    moments = [T0 + i * MICRO for i in (0, 1, 2, 5, 10, 11, 12)]
    made = view("key", agg.count(over=["1us", "2us", "5us"]), event_time="e")
    assert answer(made, {"s": events}, _spine(moments)) == {
        "v__count_1us": [0, 1, 1, 1, 1, 0, 0],
        "v__count_2us": [0, 1, 2, 2, 2, 1, 0],
        "v__count_5us": [0, 1, 2, 5, 5, 4, 3],
    }
    late = view("key", agg.count(over="5us"), event_time="e", delay="3us")
    assert answer(late, {"s": events}, _spine(moments))["v__count_5us"] == [0, 0, 0, 2, 2, 2, 2]


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
@pytest.mark.parametrize("own", ["ns", "us", "ms", "s"])
def test_units_of_columns_do_not_matter(answer, view, unit, own):
    """Seconds, milli-, micro- and nanoseconds on either side."""
    made = view("key", [agg.count(over="1h"), latest("id", max_age="30m"), agg.first("e", over="1h")], event_time="e")
    found = answer(
        made, {"s": _events([T0, T0 + 30 * MINUTE], unit=unit)}, _spine([T0 + HOUR, T0 + 61 * MINUTE], unit=own)
    )
    first = int((T0 - datetime(1970, 1, 1, tzinfo=UTC)) / MICRO)
    assert found == {
        "v__count_1h": [2, 1],
        "v__latest_id": [1, None],
        "v__first_e_1h": [first, first + 30 * 60 * 1_000_000],
    }


def test_nanoseconds_are_cut_to_microseconds(answer, view):
    """An event 999 nanoseconds after a full microsecond belongs to that microsecond, and so does a request."""
    zero = int((T0 - datetime(1970, 1, 1, tzinfo=UTC)) / MICRO) * 1000
    type_ = pa.timestamp("ns", "UTC")
    events = pa.table({"key": ["a"] * 2, "e": pa.array([zero + 999, zero + 1000], type_)})
    spine = pa.table({"key": ["a"] * 4, "at": pa.array([zero + 500, zero + 1999, zero + 2000, zero + 5001], type_)})
    made = view("key", agg.count(over="4us"), event_time="e")
    assert answer(made, {"s": events}, spine)["v__count_4us"] == [0, 1, 2, 1]


@pytest.mark.parametrize("year", [1, 1583, 1899, 1969, 1970, 2262, 5138, 9998])
def test_years_far_from_now(answer, view, year):
    """Windows, hops, ages and offsets around a New Year of any year; before 1970, too, whole hops are floors."""
    zero = datetime(year + 1, 1, 1, tzinfo=UTC)
    events = [zero - DAY, zero - 61 * MINUTE, zero - 30 * MINUTE, zero - MICRO]
    features = [
        agg.count(over=["1h", Window("1h", hop="1h"), Window("1h", offset="1h"), Window("1h", offset="30m", hop="1h")]),
        agg.decayed_count(half_life="1d", over="2d", where="id = 0", name="decayed"),
        latest("id", max_age="1m"),
    ]
    moments = [zero - MINUTE, zero, zero + MICRO, zero + MINUTE + MICRO]
    found = answer(view("key", features, event_time="e", sequence="id"), {"s": _events(events)}, _spine(moments))
    assert found["v__count_1h"] == [2, 2, 2, 2]
    assert found["v__count_1h_hop_1h"] == [2, 2, 2, 2]
    assert found["v__count_1h_before_1h"] == [0, 1, 1, 1]
    # From the hour before the last to the last full hour, seen from half an hour ago.
    assert found["v__count_1h_before_30m_hop_1h"] == [1, 1, 1, 1]
    assert found["v__decayed"][1] == 0.5
    assert found["v__latest_id"] == [None, 3, 3, None]


def test_two_ends_of_the_calendar_in_one_state(answer, view):
    """A first and a last event seven thousand years apart, of one key."""
    events = [datetime(1900, 1, 1, tzinfo=UTC), T0, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    moments = [events[0] + MICRO, T0, T0 + MICRO, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
    made = view("key", [agg.count(over=["1d", "lifetime"]), latest("id")], event_time="e", sequence="id")
    assert answer(made, {"s": _events(events)}, _spine(moments)) == {
        "v__count_1d": [1, 0, 1, 1],
        "v__count_lifetime": [1, 1, 2, 3],
        "v__latest_id": [0, 0, 1, 2],
    }


@pytest.mark.parametrize("side", ["events", "spine"])
def test_times_without_a_zone_are_refused(view, side):
    """A timestamp that could be any clock is not guessed."""
    events, spine = _events([T0]), _spine([T0])
    if side == "events":
        events = events.set_column(2, "e", events["e"].cast(pa.timestamp("us")))
    else:
        spine = spine.set_column(1, "at", spine["at"].cast(pa.timestamp("us")))
    made = FeatureSet([view("key", agg.count(over="1h"), event_time="e")])
    with pytest.raises(InputError, match="a time column must be a timestamp with a zone"):
        training_frame(spine, "at", made, {"s": events})
