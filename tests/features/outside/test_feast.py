"""Cases after Feast: the universal tests of its offline and online stores, and its page on joins.

Origin: the documentation page "Point-in-time joins" and the names and aims of the universal retrieval tests
(backfills, field and key maps, time to live, full feature names). Taken: the situations. Rows, times and expected
values are our own, and so is the rule at the edge: Feast lets in a row of the very moment that is asked for, we do not.
"""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from retrodict.core.errors import InputError
from retrodict.features.definitions import agg, latest
from retrodict.features.offline import training_frame
from retrodict.features.plan import FeatureSet

NOW = datetime(2021, 8, 25, 20, tzinfo=UTC)
HOUR, DAY, MICRO = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
TIME = pa.timestamp("us", "UTC")


def _stats(*rows):
    return pa.Table.from_pylist([dict(zip(("driver", "e", "created", "trips"), row, strict=True)) for row in rows])


def test_join_with_time_to_live(answer, view):
    """Four requests of one driver: too early, two that find their row, one eleven hours late; labels stay."""
    stats = _stats(
        *[(1001, NOW + hours * HOUR, NOW + hours * HOUR, trips) for hours, trips in ((0, 30), (3, 41), (5, 46))]
    )
    spine = pa.table(
        {
            "driver": [1001] * 4,
            "at": pa.array([NOW - HOUR, NOW + HOUR, NOW + 4 * HOUR, NOW + 16 * HOUR], TIME),
            "trip_success": [1, 0, 1, 1],
        }
    )
    made = view("driver", latest("trips", max_age="2h"), event_time="e")
    assert answer(made, {"s": stats}, spine)["v__latest_trips"] == [None, 30, 41, None]


@pytest.mark.parametrize(
    ("driver", "at", "trips"),
    [
        (1001, NOW + 2 * DAY, 20),  # written twice for one time: the row created later counts
        (1001, NOW + DAY, 10),  # but not before it was created
        (1001, NOW + DAY + MICRO, 20),
        (1002, NOW + 2 * DAY, 40),  # a backfill of older times, created last, replaces nothing newer
        (1002, NOW + DAY, 40),
        (1003, NOW + 12 * HOUR, None),  # its only row was created the day after
        (1003, NOW + 2 * DAY, 60),
    ],
)
def test_backfills_with_a_created_time(answer, view, driver, at, trips):
    """What was created later than the request is not there yet; of equal times the later creation counts."""
    stats = _stats(
        (1001, NOW, NOW + DAY, 20),
        (1001, NOW, NOW, 10),
        (1002, NOW, NOW, 40),
        (1002, NOW - DAY, NOW + DAY, 30),
        (1003, NOW, NOW + DAY, 60),
    )
    made = view("driver", latest("trips"), event_time="e", known_at="created")
    spine = pa.Table.from_pylist([{"driver": driver, "at": at}])
    assert answer(made, {"s": stats}, spine)["v__latest_trips"] == [trips]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_an_older_write_never_replaces_a_newer_one(answer, view, order):
    """Rows arrive in any order; the newest event time is what is read."""
    rows = [(1, NOW + i * HOUR, NOW + i * HOUR, i) for i in range(3)]
    stats = _stats(*[rows[i] for i in order])
    stats = stats.append_column("id", [list(order)])
    made = view("driver", [latest("trips"), latest("trips", max_age="1d", name="young")], event_time="e", sequence="id")
    spine = pa.Table.from_pylist([{"driver": 1, "at": NOW + 5 * HOUR}])
    assert answer(made, {"s": stats}, spine) == {"v__latest_trips": [2], "v__young": [2]}


def test_expiry_at_read_time(answer, view):
    """Age counts from the event to the request; exactly the maximum still counts; nothing is written to expire."""
    stats = _stats((1, NOW, NOW, 7))
    made = view("driver", latest("trips", max_age="2h"), event_time="e")
    moments = [NOW, NOW + MICRO, NOW + 2 * HOUR, NOW + 2 * HOUR + MICRO, NOW + 900 * DAY]
    spine = pa.Table.from_pylist([{"driver": 1, "at": moment} for moment in moments])
    assert answer(made, {"s": stats}, spine)["v__latest_trips"] == [None, 7, 7, None, None]


def test_every_row_of_the_entity_frame_stays(answer, view):
    """Duplicates, rows with only future values, unknown and null keys, equal key and time with other labels: kept."""
    stats = _stats((1, NOW, NOW, 7), (2, NOW + DAY, NOW + DAY, 8))
    requests = [(1, NOW + HOUR, 0), (1, NOW + HOUR, 0), (1, NOW + HOUR, 1), (2, NOW, 1), (3, NOW, 0), (None, NOW, 1)]
    spine = pa.Table.from_pylist([dict(zip(("driver", "at", "label"), row, strict=True)) for row in requests])
    made = view("driver", [latest("trips"), agg.count(over="1d")], event_time="e")
    found = answer(made, {"s": stats}, spine)
    assert found == {"v__latest_trips": [7, 7, 7, None, None, None], "v__count_1d": [1, 1, 1, 0, 0, None]}


def test_composite_keys(answer, view):
    """(1, 23) is not (12, 3), nor are texts that join alike; a null part is no key."""
    rows = [("a", "bc", 1, 23), ("ab", "c", 12, 3), ("", "abc", 0, 123), ("a", "b", None, 1), ("a,b", "c", 1, 2)]
    table = pa.Table.from_pylist(
        [{"s": s, "t": t, "i": i, "j": j, "e": NOW, "n": n} for n, (s, t, i, j) in enumerate(rows)]
    )
    spine = table.select(["s", "t", "i", "j"]).append_column("at", pa.array([NOW + HOUR] * 5, TIME))
    texts = view(["s", "t"], latest("n"), event_time="e", name="texts")
    whole = view(["i", "j"], latest("n"), event_time="e", name="whole")
    found = answer([texts, whole], {"s": table}, spine)
    assert found == {"texts__latest_n": [0, 1, 2, 3, 4], "whole__latest_n": [0, 1, 2, None, 4]}
    crossed = spine.set_column(3, "j", pa.array([3, 23, 1, 1, 3]))
    assert answer(whole, {"s": table}, crossed)["whole__latest_n"] == [None] * 5


def test_one_view_under_two_key_maps(answer, view):
    """Temperature where a trip begins and where it ends, from one view; names say which."""
    table = pa.Table.from_pylist([{"location": i, "e": NOW, "temperature": 60 + i} for i in range(4)])
    place = view("location", latest("temperature"), event_time="e", name="place")
    both = [place.keyed(name="origin", location="from_id"), place.keyed(location="to_id")]
    spine = pa.Table.from_pylist([{"from_id": i, "to_id": 3 - i, "at": NOW + HOUR} for i in range(5)])
    assert answer(both, {"s": table}, spine) == {
        "origin__latest_temperature": [60, 61, 62, 63, None],
        "place_to_id__latest_temperature": [63, 62, 61, 60, None],
    }


def test_full_names_keep_equal_features_apart(answer, view):
    """Two views with a feature of one name, of two sources and two entities, in one frame."""
    drivers = pa.Table.from_pylist([{"driver": 1, "e": NOW, "trips": 10}])
    customers = pa.Table.from_pylist([{"customer": "x", "e": NOW, "trips": 99}])
    views = [
        view("driver", latest("trips"), event_time="e", name="driver_stats", source="drivers"),
        view("customer", latest("trips"), event_time="e", name="customer_profile", source="customers"),
    ]
    spine = pa.Table.from_pylist([{"driver": 1, "customer": c, "at": NOW + HOUR} for c in ("x", "y")])
    assert answer(views, {"drivers": drivers, "customers": customers}, spine) == {
        "driver_stats__latest_trips": [10, 10],
        "customer_profile__latest_trips": [99, None],
    }


def test_an_entity_frame_without_rows(answer, view):
    """No rows in, no rows out, and the columns of the features."""
    stats = _stats((1, NOW, NOW, 7))
    spine = pa.table({"driver": pa.array([], pa.int64()), "at": pa.array([], TIME)})
    made = view("driver", [latest("trips"), agg.mean("trips", over="1d")], event_time="e")
    assert answer(made, {"s": stats}, spine) == {"v__latest_trips": [], "v__mean_trips_1d": []}


def test_a_source_without_rows(answer, view):
    """Nothing ever happened: counts are zero, all else is null."""
    stats = _stats((1, NOW, NOW, 7)).slice(0, 0)
    made = view("driver", [latest("trips"), agg.mean("trips", over="1d"), agg.count(over="1d")], event_time="e")
    found = answer(made, {"s": stats}, pa.Table.from_pylist([{"driver": 1, "at": NOW}]))
    assert found == {"v__latest_trips": [None], "v__mean_trips_1d": [None], "v__count_1d": [0]}


def test_a_missing_entity_column_is_named(view):
    """An entity frame without the key says which column, and which comes near."""
    made = view("driver", latest("trips"), event_time="e")
    spine = pa.Table.from_pylist([{"drivers": 1, "at": NOW}])
    with pytest.raises(InputError, match=r"'driver'.*'drivers'"):
        training_frame(spine, "at", FeatureSet([made]), {"s": _stats((1, NOW, NOW, 7))})
