"""Point-in-time examples of Featureform and Feathr.

Origin: Featureform's page "Achieving Point-in-Time Correctness and Handling Historical Features with Time Series Data"
and Feathr's page "Point-in-time Correctness and Point-in-time Join". Taken: their example tables. Dates have no time of
day there; here a feature of a day is known at midnight and a label belongs to noon, which gives their results. At
midnight itself our right edge is strict, and each label sees the day before; both are asserted.
"""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from retrodict.features.definitions import agg, latest

DAY, NOON = timedelta(days=1), timedelta(hours=12)


def _day(month, day):
    return datetime(2022, month, day, tzinfo=UTC)


@pytest.mark.parametrize(("time_of_day", "expected"), [(NOON, [5.0, 10.0]), (timedelta(0), [5.0, 10.0])])
def test_fraud_labels_and_average_purchase(answer, view, time_of_day, expected):
    """Labels of January 3 and 5 see the averages of January 2 and 4."""
    averages = pa.Table.from_pylist(
        [{"user": "A", "e": _day(1, 2), "avg": 5.0}, {"user": "A", "e": _day(1, 4), "avg": 10.0}]
    )
    labels = pa.Table.from_pylist(
        [
            {"user": "A", "at": _day(1, 3) + time_of_day, "fraudulent": False},
            {"user": "A", "at": _day(1, 5) + time_of_day, "fraudulent": True},
        ]
    )
    assert answer(view("user", latest("avg"), event_time="e"), {"s": averages}, labels)["v__latest_avg"] == expected


DAILY = {1: (0.5, 0.4, 0.3), 2: (0.3, 0.2, 0.2), 3: (0.1, 0.1, 0.15)}
OBSERVED = [(1, 1, 0, 1), (2, 2, 1, 1), (3, 3, 1, 2), (4, 1, 1, 3), (5, 3, 0, 3)]  # tracking id, user, label, day


@pytest.mark.parametrize(
    ("time_of_day", "expected"),
    [(NOON, [0.5, 0.3, 0.1, 0.3, 0.15]), (timedelta(0), [None, None, 0.1, 0.4, 0.1])],
    ids=["noon", "midnight"],
)
def test_daily_feature_of_repeated_users(answer, view, time_of_day, expected):
    """Each of five labels sees the value closest from the past, users 1 and 3 twice."""
    rows = [
        {"user": user, "e": _day(5, day), "x": x} for user, xs in DAILY.items() for day, x in enumerate(xs, start=1)
    ]
    spine = pa.Table.from_pylist(
        [{"tracker": t, "user": user, "label": y, "at": _day(5, day) + time_of_day} for t, user, y, day in OBSERVED]
    )
    features = [latest("x", max_age="7d"), agg.last("x", over="7d")]
    found = answer(view("user", features, event_time="e"), {"s": pa.Table.from_pylist(rows)}, spine)
    assert found["v__latest_x"] == found["v__last_x_7d"] == expected


def test_sum_of_the_window_before_the_observation(answer, view):
    """Sums take the window before the observation and nothing ahead of it, for instance from noon three days before."""
    rows = [
        {"user": user, "e": _day(5, day), "x": x} for user, xs in DAILY.items() for day, x in enumerate(xs, start=1)
    ]
    spine = pa.Table.from_pylist([{"user": user, "at": _day(5, day) + NOON} for user in (1, 3) for day in (1, 2, 3, 5)])
    made = view("user", [agg.sum("x", over="3d"), agg.max("x", over="36h")], event_time="e")
    found = answer(made, {"s": pa.Table.from_pylist(rows)}, spine)
    # Exact sums, rounded once: 0.5 + 0.4 + 0.3 is 1.2 here, whatever the order.
    assert found["v__sum_x_3d"] == [0.5, 0.9, 1.2, 0.3, 0.1, 0.2, 0.35, 0.15]
    assert found["v__max_x_36h"] == [0.5, 0.5, 0.4, None, 0.1, 0.1, 0.15, None]
