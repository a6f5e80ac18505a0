"""Every aggregate over eight events small enough to work out on paper; all numbers below were.

Origin: the definitions in ``agg`` and under ``BAGS``, nothing else. The events, in minutes after the full hour::

    id  happened  known  x     n  ok     tag
    1   -30       -30    9     7  true   old
    2   0         0      4     3  true   p
    3   15        15     null  1  null   q
    4   30        30     -2    4  false  p
    5   30        30     7     5  true   null     same time as 4, later by its id
    6   45        45     NaN   -  false  é
    7   60        60     100   9  true   z        at the decision: not yet
    8   50        70     50    9  true   z        known ten minutes after the decision
"""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from retrodict.features.definitions import Window, agg, latest

HOUR = datetime(2024, 1, 1, 12, tzinfo=UTC)
NAN = float("nan")


def minute(number):
    return HOUR + timedelta(minutes=number)


ROWS = [
    (1, -30, -30, 9.0, 7, True, "old"),
    (2, 0, 0, 4.0, 3, True, "p"),
    (3, 15, 15, None, 1, None, "q"),
    (4, 30, 30, -2.0, 4, False, "p"),
    (5, 30, 30, 7.0, 5, True, None),
    (6, 45, 45, NAN, None, False, "é"),
    (7, 60, 60, 100.0, 9, True, "z"),
    (8, 50, 70, 50.0, 9, True, "z"),
]
EVENTS = pa.Table.from_pylist(
    [
        {"key": "a", "id": i, "e": minute(e), "k": minute(k), "x": x, "n": n, "ok": ok, "tag": tag}
        for i, e, k, x, n, ok, tag in reversed(ROWS)  # in any order but their own
    ]
)

# aggregate over the hour before minute 60, its value there, and its value where nothing ever happened
TOTALS = {
    "count": (agg.count(over="1h"), 5, 0),
    "count_where": (agg.count(over="1h", where="ok"), 2, 0),
    "rate": (agg.rate(over="1h", per="30m"), 2.5, 0.0),
    "sum": (agg.sum("x", over="1h"), 9.0, None),
    "sum_whole": (agg.sum("n", over="1h"), 13, None),
    "mean": (agg.mean("x", over="1h"), 3.0, None),
    "mean_whole": (agg.mean("n", over="1h"), 3.25, None),
    "ratio": (agg.ratio("x", "n", over="1h"), 0.75, None),  # (4 - 2 + 7) / (3 + 4 + 5)
    "share": (agg.share("ok", over="1h"), 0.5, None),  # 2, 5 of 2, 4, 5, 6
    "min": (agg.min("x", over="1h"), -2.0, None),
    "max": (agg.max("x", over="1h"), 7.0, None),
    "max_whole": (agg.max("n", over="1h"), 5, None),
    "variance": (agg.variance("x", over="1h"), 21.0, None),  # (1 + 25 + 16) / 2
    "std": (agg.std("x", over="1h"), 4.58257569495584, None),
    "skew": (agg.skew("x", over="1h"), -0.3818017741606063, None),  # m3 = -20, m2 = 14
    "slope": (agg.slope("x", over="1h"), -3.0, None),  # at 0, 1/2, 1/2 hours: -(1/2) / (1/6)
    "slope_per_half_hour": (agg.slope("x", per="30m", over="1h"), -1.5, None),
    "slope_of_one_time": (agg.slope("x", over="1h", where="x <> 4"), None, None),
    "variance_of_one": (agg.variance("x", over="1h", where="x = 7"), None, None),
    "skew_of_equals": (agg.skew("x", over="1h", where="x = 7"), None, None),
}
BAGGED = {
    "first": (agg.first("x", over="1h"), 4.0, None),
    "first_text": (agg.first("tag", over="1h"), "p", None),
    "last": (agg.last("x", over="1h"), 7.0, None),
    "last_text": (agg.last("tag", over="1h"), "é", None),
    "last_flag": (agg.last("ok", over="1h", where="n > 0"), True, None),
    "first_k": (agg.first_k("x", 2, over="1h"), [4.0, -2.0], None),
    "last_k": (agg.last_k("x", 2, over="1h"), [-2.0, 7.0], None),
    "last_k_text": (agg.last_k("tag", 9, over="1h"), ["p", "q", "p", "é"], None),
    "top_k": (agg.top_k("n", 2, over="1h"), [5, 4], None),
    "bottom_k": (agg.bottom_k("n", 3, over="1h"), [1, 3, 4], None),
    "argmax": (agg.argmax("tag", by="n", over="1h"), "p", None),  # 5 has no tag
    "argmax_of_equals": (agg.argmax("x", by="tag", over="1h"), -2.0, None),  # 2, 4: the newer one
    "argmin": (agg.argmin("tag", by="n", over="1h"), "q", None),
    "top_k_by": (agg.top_k("n", 2, by="ok", over="1h"), [5, 3], None),
    "bottom_k_by": (agg.bottom_k("tag", 2, by="n", over="1h"), ["q", "p"], None),
    "mode": (agg.mode("tag", over="1h"), "p", None),
    "mode_of_equals": (agg.mode("ok", over="1h"), False, None),  # two of each
    "distinct": (agg.distinct("tag", over="1h"), 3, 0),
    "approx_distinct": (agg.distinct("x", over="1h", approximate=True), 3, 0),
    "median": (agg.median("n", over="1h"), 3.5, None),
    "quantile": (agg.quantile("n", 0.25, over="1h"), 2.5, None),  # 1 + 0.75 * (3 - 1)
    "quantile_0": (agg.quantile("x", 0, over="1h"), -2.0, None),
    "quantile_1": (agg.quantile("x", 1, over="1h"), 7.0, None),
    "histogram": (agg.histogram("tag", over="1h"), {"p": 2, "q": 1, "é": 1}, None),
    "histogram_whole": (agg.histogram("n", over="1h"), {"1": 1, "3": 1, "4": 1, "5": 1}, None),
    "histogram_flag": (agg.histogram("ok", over="1h"), {"false": 2, "true": 2}, None),
    "by_count": (agg.by("tag", "count", over="1h"), {"p": 2, "q": 1, "é": 1}, None),
    "by_sum": (agg.by("tag", "sum", "n", over="1h"), {"p": 7.0, "q": 1.0}, None),
    "by_mean": (agg.by("ok", "mean", "n", over="1h"), {"false": 4.0, "true": 4.0}, None),
    "by_min": (agg.by("tag", "min", "x", over="1h"), {"p": -2.0}, None),
    "by_max": (agg.by("tag", "max", "x", over="1h"), {"p": 4.0}, None),
    "time_since_last": (agg.time_since_last(over="1h"), 900.0, None),
    "time_since_last_where": (agg.time_since_last(over="1h", where="ok"), 1800.0, None),
    # At minutes 0, 15, 30, 30, 45: a gap of exactly its length does not end a session.
    "session_count": (agg.session_count(gap="15m", over="1h"), 1, 0),
    "session_count_short": (agg.session_count(gap="899s", over="1h"), 4, 0),
    "session_events": (agg.session_events(gap="15m", over="1h"), 5, 0),
    "session_events_over": (agg.session_events(gap="899s", over="1h"), 0, 0),
    "session_seconds": (agg.session_seconds(gap="15m", over="1h"), 3600.0, None),
    "session_seconds_over": (agg.session_seconds(gap="899s", over="1h"), None, None),
    # Half-lives of 15 minutes: 1/16 + 1/8 + 1/4 + 1/4 + 1/2.
    "decayed_count": (agg.decayed_count(half_life="15m", over="1h"), 1.1875, None),
    "decayed_sum": (agg.decayed_sum("x", half_life="15m", over="1h"), 1.5, None),  # 4/16 - 2/4 + 7/4
}
WINDOWS = {
    # at minute 60 unless said otherwise: (window, minute, count, sum of x)
    "exact_start_counts": (Window("1h"), 60, 5, 9.0),
    "one_microsecond_less": (Window("59m59s999999us"), 60, 4, 5.0),
    "right_edge_is_strict": (Window("15m"), 60, 1, None),
    "a_minute_later": (Window("1h"), 61, 5, 105.0),  # without 2, with 7
    "known_at_is_strict": (Window("25m"), 70, 2, 100.0),  # 6, 7; 8 becomes known at this moment
    "known_since_a_minute": (Window("25m"), 71, 2, 150.0),  # 7, 8
    "lifetime": (Window("lifetime"), 60, 6, 18.0),
    "lifetime_with_all": (Window("lifetime"), 71, 8, 168.0),
    "lifetime_before_half_an_hour": (Window("lifetime", offset="30m"), 60, 3, 13.0),
    "offset": (Window("1h", offset="1h"), 60, 1, 9.0),
    "offset_half": (Window("1h", offset="30m"), 60, 3, 13.0),  # 1 on the left edge; 4, 5 on the right one
    "offset_end_is_strict": (Window("30m", offset="15m"), 60, 3, 5.0),  # 3, 4, 5; 6 on the right edge
    "offset_asks_what_is_known_now": (Window("30m", offset="15m"), 71, 4, 55.0),  # 4, 5, 6, and 8, which was known late
    "hop": (Window("1h", hop="20m"), 70, 6, 109.0),  # from 0 instead of 10; 8 is not known yet
    "hop_on_the_grid": (Window("40m", hop="20m"), 60, 3, 5.0),
    "hop_longer_than_the_window": (Window("10m", hop="1h"), 60, 5, 9.0),
    "hop_and_offset": (Window("40m", offset="20m", hop="20m"), 70, 4, 9.0),  # from 0 to 40
}


def _ask(answer, view, feature, at, key="a", **more):
    made = view("key", [feature, latest("n", name="newest")], event_time="e", known_at="k", sequence="id")
    spine = pa.Table.from_pylist([{"key": key, "at": minute(at), **more}])
    return answer(made, {"s": EVENTS}, spine)[f"v__{feature.names()[0]}"][0]


@pytest.mark.parametrize("name", [*TOTALS, *BAGGED])
def test_aggregate(answer, view, name):
    """The value worked out on paper, by every engine; and the one where there is no event."""
    feature, expected, nothing = {**TOTALS, **BAGGED}[name]
    found = _ask(answer, view, feature, 60), _ask(answer, view, feature, 60, key="nobody")
    assert found == (expected, nothing)
    if isinstance(expected, dict):
        assert list(found[0]) == list(expected)
    assert _ask(answer, view, feature, 60, key=None) is None


@pytest.mark.parametrize("name", list(WINDOWS))
def test_window(answer, view, name):
    """Which events are in a window, told by their number and their sum."""
    window, at, count, total = WINDOWS[name]
    assert _ask(answer, view, agg.count(over=window), at) == count
    assert _ask(answer, view, agg.sum("x", over=window), at) == total


@pytest.mark.parametrize("name", [name for name, (window, *_) in WINDOWS.items() if not window.lifetime])
def test_bag_of_window(answer, view, name):
    """The events of a window are the same ones for a list as for a total."""
    window, at, _, total = WINDOWS[name]
    values = _ask(answer, view, agg.last_k("x", 9, over=window), at)
    assert (None if values is None else sum(values)) == total


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (agg.count(over=Window("1h", include_current=True)), 6),
        (agg.count(over=Window("1h", include_current=True), where="ok"), 3),
        (agg.sum("x", over=Window("1h", include_current=True)), 14.0),
        (agg.mean("x", over=Window("1h", include_current=True)), 3.5),
        (agg.min("x", over=Window("1h", include_current=True)), -2.0),
        (agg.max("x", over=Window("1h", include_current=True)), 7.0),
        (agg.share("ok", over=Window("1h", include_current=True)), 0.6),
        (agg.variance("x", over=Window("1h", include_current=True)), 15.0),  # (0.25 + 30.25 + 12.25 + 2.25) / 3
        (agg.ratio("x", "n", over=Window("1h", include_current=True)), 1.0),  # 14 / (12 + 2)
        (agg.slope("x", over=Window("1h", include_current=True)), 1.0),  # (1/2) / (1/2)
    ],
    ids=lambda value: value.op if hasattr(value, "op") else None,
)
def test_include_current(answer, view, feature, expected):
    """The request's own event counts like one of the source: x = 5, n = 2, ok."""
    assert _ask(answer, view, feature, 60, x=5.0, n=2, ok=True) == expected


@pytest.mark.parametrize("x", [None, float("inf"), float("-inf")])
def test_a_ratio_is_of_both_sides_of_the_own_event(answer, view, x):
    """A request whose own event holds one side only leaves the ratio as it is: (4 - 2 + 7) / (3 + 4 + 5)."""
    over = Window("1h", include_current=True)
    assert _ask(answer, view, agg.ratio("x", "n", over=over), 60, x=x, n=2, ok=True) == 0.75
    assert _ask(answer, view, agg.ratio("n", "x", over=over), 60, x=x, n=2, ok=True) == 12 / 9


def test_latest(answer, view):
    """The newest visible event, null where its own value is null; an age of exactly max_age still counts."""
    features = [latest("x", "tag"), latest("tag", max_age="15m", name="young"), latest("n", max_age="14m", name="old")]
    made = view("key", features, event_time="e", known_at="k", sequence="id")
    spine = pa.Table.from_pylist([{"key": "a", "at": minute(m)} for m in (-30, 31, 60, 61, 71)])
    assert answer(made, {"s": EVENTS}, spine) == {
        "v__latest_x": [None, 7.0, None, 100.0, 100.0],
        "v__latest_tag": [None, None, "é", "z", "z"],
        "v__young": [None, None, "é", "z", "z"],
        "v__old": [None, 5, None, 9, 9],
    }


@pytest.mark.parametrize(
    ("column", "other", "expected"),
    [
        ("x", None, 2.25),  # (6 + 3) / (3 + 1)
        ("y", None, 2.25),
        ("x", NAN, 2.25),
        ("y", NAN, 2.25),
        ("x", float("inf"), 2.25),
        ("y", float("-inf"), 2.25),
    ],
)
def test_a_ratio_is_of_events_that_hold_both(answer, view, column, other, expected):
    """An event of which one side is null, NaN or infinite gives nothing to the other side either."""
    rows = [(6.0, 3.0), (100.0, 50.0), (3.0, 1.0)]
    events = [{"key": "a", "e": minute(i), "x": x, "y": y} for i, (x, y) in enumerate(rows)]
    events[1][column] = other
    made = view("key", agg.ratio("x", "y", over="1h"), event_time="e")
    spine = pa.Table.from_pylist([{"key": "a", "at": minute(10)}])
    assert answer(made, {"s": pa.Table.from_pylist(events)}, spine)["v__ratio_x_to_y_1h"] == [expected]
