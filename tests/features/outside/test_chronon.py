"""Cases after Chronon: its naive aggregator as a property, snapped times, saw-tooth windows, entities that change.

Origin: the documentation pages "Tiled Architecture", "Sources" and "GroupBy" of Chronon, and the idea of its test
``NaiveAggregator``: walk over every event for every query and every window. Taken: the rule of a window (left edge
rounded down to its hop, right edge strict), the hops by length of window (5 minutes, 1 hour from 12 hours, 1 day from
12 days), and the shapes of the cases for mutations. Events, numbers and all code are our own.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pyarrow as pa
import pytest

from retrodict.features.definitions import Window, agg, latest

START = datetime(2021, 4, 1, tzinfo=UTC)
MICRO = timedelta(microseconds=1)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SNAPS = {"random": MICRO, "minute": MINUTE, "hour": HOUR, "day": DAY}
# text, length, hop
SAWTOOTH = [("1h", HOUR, 5 * MINUTE), ("24h", DAY, HOUR), ("30d", 30 * DAY, DAY)]
EXACT = [("1h", HOUR, MICRO), ("24h", DAY, MICRO), ("7d", 7 * DAY, MICRO)]


def snapped(moment, unit):
    return START + (moment - START) // unit * unit


def epoch_floor(moment, unit):
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return zero + (moment - zero) // unit * unit


def _history(snap, rows=150, seed=0):
    draw = random.Random(seed)
    events = []
    for i in range(rows):
        happened = snapped(START + draw.random() * 40 * DAY, SNAPS[snap])
        known = happened + draw.choice([0, 0, 0, 1, 5, 90]) * (MINUTE if snap == "minute" else HOUR)
        num = None if draw.random() < 0.1 else draw.randint(-50, 50)
        x = None if num is None else num / 8
        events.append(
            {
                "user": draw.choice("ab"),
                "id": i,
                "ts": happened,
                "k": known,
                "num": num,
                "x": x,
                "bucket": draw.choice("pqr"),
            }
        )
    queries = [snapped(START + draw.random() * 42 * DAY, SNAPS[snap]) for _ in range(12)]
    queries += [event["ts"] + draw.choice([HOUR, DAY, 7 * DAY, 30 * DAY]) for event in events[:8]]
    return events, [{"user": draw.choice("abc"), "at": query} for query in queries]


def _moment(values, power):
    mean = Fraction(sum(values)) / len(values)
    return sum((Fraction(value) - mean) ** power for value in values)


def _quantile(values, q):
    ordered = sorted(values)
    below, part = divmod(Fraction(q) * (len(ordered) - 1), 1)
    above = ordered[min(int(below) + 1, len(ordered) - 1)]
    return float(ordered[int(below)] + (above - ordered[int(below)]) * part)


def _groups(rows, of):
    return {
        bucket: of([row for row in rows if row["bucket"] == bucket]) for bucket in sorted({r["bucket"] for r in rows})
    }


def _naive(rows, at):
    """Every aggregate of the rows of one window, worked out the long way; numbers are eighths, so sums are exact."""
    nums = [row["num"] for row in rows if row["num"] is not None]
    held = [row for row in rows if row["num"] is not None]
    ages = [Fraction(int((at - row["ts"]) / MICRO)) for row in rows]
    found = {"count": len(rows), "distinct": len(set(nums)), "approx_distinct": len(set(nums))}
    if rows:
        found |= {
            "time_since_last": float(min(ages) / 10**6),
            "histogram": _groups(rows, len),
            "by_count": _groups(rows, len),
            "last_text": rows[-1]["bucket"],
            "decayed_count": math.fsum(2.0 ** -float(age / (6 * 3600 * 10**6)) for age in ages),
        }
    if nums:
        found |= {
            "sum": sum(nums),
            "mean": float(Fraction(sum(nums), len(nums))),
            "min": min(nums),
            "max": max(nums),
            "share": float(Fraction(sum(n > 0 for n in nums), len(nums))),
            "first": nums[0],
            "last": nums[-1],
            "first_k": nums[:3],
            "last_k": nums[-3:],
            "top_k": sorted(nums, reverse=True)[:3],
            "bottom_k": sorted(nums)[:3],
            "median": _quantile(nums, Fraction(1, 2)),
            "by_sum": _groups(held, lambda group: float(sum(row["num"] for row in group))),
            "ratio": float(Fraction(sum(nums) * 8, sum(nums))) if sum(nums) else None,
        }
    if len(nums) > 1:
        found["variance"] = float(_moment(nums, 2) / (len(nums) - 1))
        found["std"] = math.sqrt(found["variance"])
    m2 = float(_moment(nums, 2) / len(nums)) if nums else 0.0
    if m2:
        found["skew"] = float(_moment(nums, 3) / len(nums)) / (m2 * math.sqrt(m2))
    return found


def _aggregates(over):
    return {
        "count": agg.count(over=over, name="count"),
        "sum": agg.sum("num", over=over, name="sum"),
        "mean": agg.mean("num", over=over, name="mean"),
        "min": agg.min("num", over=over, name="min"),
        "max": agg.max("num", over=over, name="max"),
        "share": agg.share("num > 0", over=over, name="share"),
        "ratio": agg.ratio("num", "x", over=over, name="ratio"),
        "variance": agg.variance("num", over=over, name="variance"),
        "std": agg.std("num", over=over, name="std"),
        "skew": agg.skew("num", over=over, name="skew"),
        "first": agg.first("num", over=over, name="first"),
        "last": agg.last("num", over=over, name="last"),
        "last_text": agg.last("bucket", over=over, name="last_text"),
        "first_k": agg.first_k("num", 3, over=over, name="first_k"),
        "last_k": agg.last_k("num", 3, over=over, name="last_k"),
        "top_k": agg.top_k("num", 3, over=over, name="top_k"),
        "bottom_k": agg.bottom_k("num", 3, over=over, name="bottom_k"),
        "distinct": agg.distinct("num", over=over, name="distinct"),
        "approx_distinct": agg.distinct("num", approximate=True, over=over, name="approx_distinct"),
        "median": agg.median("num", over=over, name="median"),
        "histogram": agg.histogram("bucket", over=over, name="histogram"),
        "by_count": agg.by("bucket", "count", over=over, name="by_count"),
        "by_sum": agg.by("bucket", "sum", "num", over=over, name="by_sum"),
        "time_since_last": agg.time_since_last(over=over, name="time_since_last"),
        "decayed_count": agg.decayed_count(half_life="6h", over=over, name="decayed_count"),
    }


def _check_naive(answer, view, snap, windows):
    events, spine = _history(snap)
    ordered = sorted(events, key=lambda event: (event["ts"], event["k"], event["id"]))
    over = [Window(text) if hop is MICRO else Window(text, hop=f"{hop // MINUTE}m") for text, _, hop in windows]
    made = view("user", list(_aggregates(over).values()), event_time="ts", known_at="k", sequence="id")
    found = answer(made, {"s": pa.Table.from_pylist(events)}, pa.Table.from_pylist(spine))
    for i, request in enumerate(spine):
        own = [e for e in ordered if e["user"] == request["user"] and e["k"] < request["at"]]
        for window, (_, length, hop) in zip(over, windows, strict=True):
            begin = epoch_floor(request["at"] - length, hop)
            expected = _naive([e for e in own if begin <= e["ts"] < request["at"]], request["at"])
            for name in _aggregates(over):
                value, wanted = found[f"v__{name}_{window.name}"][i], expected.get(name)
                if name == "decayed_count" and wanted is not None:
                    wanted = pytest.approx(wanted, rel=1e-13)
                assert value == wanted, (window.name, name, request["at"])


@pytest.mark.parametrize("snap", list(SNAPS))
def test_the_naive_aggregator_agrees_on_exact_windows(answer, view, snap):
    """Every aggregate over an hour, a day and a week; times random and aligned, where edges and ties are frequent."""
    _check_naive(answer, view, snap, EXACT)


@pytest.mark.parametrize("snap", list(SNAPS))
def test_the_naive_aggregator_agrees_on_sawtooth_windows(answer, view, snap):
    """The same with left edges rounded down to a hop that grows with the window."""
    _check_naive(answer, view, snap, SAWTOOTH)


def test_an_event_on_the_left_edge_at_the_seam(answer, view):
    """The hand-over is at midnight; an event exactly one window before it counts at midnight and not afterwards."""
    midnight = START + 10 * DAY
    events = [{"user": "a", "id": i, "ts": midnight - 7 * DAY + i * HOUR} for i in range(24 * 8)]
    made = view("user", agg.count(over="7d"), event_time="ts", sequence="id")
    moments = [midnight - MICRO, midnight, midnight + MICRO, midnight + HOUR, midnight + HOUR + MICRO]
    spine = pa.Table.from_pylist([{"user": "a", "at": moment} for moment in moments])
    # At midnight + 1 µs the event of midnight came in and the one of a week before went.
    assert answer(made, {"s": pa.Table.from_pylist(events)}, spine)["v__count_7d"] == [168, 168, 168, 168, 168]
    late = pa.Table.from_pylist([{"user": "a", "at": midnight + 5 * DAY}])
    assert answer(made, {"s": pa.Table.from_pylist(events)}, late)["v__count_7d"] == [72]


def test_temporal_events(answer, view):
    """Views of a listing by guests: each request sees what happened strictly before its own millisecond."""
    milli = timedelta(milliseconds=1)
    events = [{"listing": 1, "id": i, "ts": START + i * milli, "price": float(2**i)} for i in range(6)]
    made = view(
        "listing", [agg.sum("price", over="lifetime"), agg.last("price", over="1h")], event_time="ts", sequence="id"
    )
    spine = pa.Table.from_pylist(
        [{"listing": listing, "at": START + i * milli} for listing in (1, 2) for i in (0, 1, 3, 9)]
    )
    found = answer(made, {"s": pa.Table.from_pylist(events)}, spine)
    assert found["v__sum_price_lifetime"] == [None, 1.0, 7.0, 63.0, None, None, None, None]
    assert found["v__last_price_1h"] == [None, 1.0, 4.0, 32.0, None, None, None, None]


def hour(number):
    return START + number * HOUR


# rating, listing, happened, known, value, what it says
RATINGS = [
    ("r1", 1, 0, 0, 4, "insert"),
    ("r2", 1, 12, 12, 5, "insert"),
    ("r3", 2, 1, 1, 3, "insert"),
    ("r4", 1, 30, 30, 3, "insert"),
    ("r2", 1, 12, 40, 1, "update"),  # five stars were a slip
    ("r4", 1, 30, 50, 3, "delete"),
    ("r4", 1, 55, 60, 2, "update"),  # written again, of another time
    ("r3", 2, 1, 45, 3, "delete"),
    ("r5", 2, 44, 44, 5, "insert"),
    ("r1", 1, 10, 70, 4, "update"),  # nothing but the time was wrong
]
# listing, hour: number, mean and last rating of all time; of the last 24 hours
EXPECTED = [
    (1, 0, (0, None, None), (0, None)),
    (1, 1, (1, 4.0, 4), (1, 4.0)),
    (1, 13, (2, 4.5, 5), (2, 4.5)),
    (1, 31, (3, 4.0, 3), (2, 4.0)),
    (1, 40, (3, 4.0, 3), (1, 3.0)),  # the slip is known from 40 on, strictly after
    (1, 41, (3, 8 / 3, 3), (1, 3.0)),
    (1, 50, (3, 8 / 3, 3), (1, 3.0)),
    (1, 51, (2, 2.5, 1), (0, None)),
    (1, 61, (3, 7 / 3, 2), (1, 2.0)),
    (1, 71, (3, 7 / 3, 2), (1, 2.0)),
    (2, 2, (1, 3.0, 3), (1, 3.0)),
    (2, 45, (2, 4.0, 5), (1, 5.0)),
    (2, 46, (1, 5.0, 5), (1, 5.0)),
    (3, 46, (0, None, None), (0, None)),
]


@pytest.mark.parametrize("turned", [False, True])
def test_entities_with_mutations(answer, view, turned):
    """Ratings that are written, changed, deleted and written again; in the order of the log and against it."""
    table = pa.Table.from_pylist(
        [
            {"rating": rating, "listing": listing, "ts": hour(happened), "k": hour(known), "stars": stars, "op": op}
            for rating, listing, happened, known, stars, op in (RATINGS[::-1] if turned else RATINGS)
        ]
    )
    clocks = {"event_time": "ts", "known_at": "k", "sequence": "rating", "revised": True, "deleted": "op = 'delete'"}
    features = [
        agg.count(over=["lifetime", "24h"]),
        agg.mean("stars", over=["lifetime", "24h"]),
        agg.last("stars", over="90d", name="last"),
        latest("stars", name="newest"),
    ]
    spine = pa.Table.from_pylist([{"listing": listing, "at": hour(at)} for listing, at, _, _ in EXPECTED])
    found = answer(view("listing", features, **clocks), {"s": table}, spine)
    assert found["v__count_lifetime"] == [ever[0] for *_, ever, _ in EXPECTED]
    assert found["v__mean_stars_lifetime"] == [ever[1] for *_, ever, _ in EXPECTED]
    assert found["v__last"] == found["v__newest"] == [ever[2] for *_, ever, _ in EXPECTED]
    assert found["v__count_24h"] == [day[0] for *_, day in EXPECTED]
    assert found["v__mean_stars_24h"] == [day[1] for *_, day in EXPECTED]


def test_a_corrected_time_moves_the_event(answer, view):
    """A revision with another event time leaves the old window and enters the new one."""
    table = pa.Table.from_pylist(
        [
            {"listing": 1, "id": 1, "ts": hour(0), "k": hour(0), "stars": 4},
            {"listing": 1, "id": 1, "ts": hour(10), "k": hour(12), "stars": 4},
            {"listing": 1, "id": 1, "ts": hour(20), "k": hour(13), "stars": 4},  # announced for the future
        ]
    )
    made = view("listing", agg.count(over="3h"), event_time="ts", known_at="k", sequence="id", revised=True)
    spine = pa.Table.from_pylist([{"listing": 1, "at": hour(at)} for at in (1, 4, 12, 13, 14, 20, 21, 24)])
    assert answer(made, {"s": table}, spine)["v__count_3h"] == [1, 0, 0, 1, 0, 0, 1, 0]
