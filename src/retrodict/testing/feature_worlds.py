"""Random small worlds for feature engines: on a coarse grid of times, ties and window edges happen all the time."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from retrodict.data.sources import Source
from retrodict.features.definitions import Aggregate, Entity, FeatureView, Latest, Window, agg, latest
from retrodict.features.plan import FeatureSet
from retrodict.features.verify.oracle import Oracle, plain

MINUTE = 60_000_000
BASE = 1_377_986_400_000_000  # 2013-08-31T22:00:00Z
TIME = pa.timestamp("us", "UTC")

table = SimpleNamespace(name="events")


def instants(first: int, last: int) -> st.SearchStrategy[int]:
    """Minutes on a grid, now and then a microsecond beside it."""
    beside = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
    return st.builds(lambda minute, micro: BASE + minute * MINUTE + micro, st.integers(first, last), beside)


# Few keys and few minutes: what two engines could do differently needs events close together.
floats = st.one_of(
    st.none(),
    st.sampled_from([0.1, 0.2, 0.3, -0.0, 1e16, -1e16, 1e-20, 15.0, 16.0, float("nan"), float("inf")]),
    st.floats(-1e6, 1e6),
)
event = st.fixed_dictionaries(
    {
        "k1": st.sampled_from(["a"] * 8 + ["b", "ab", "", None]),
        "k2": st.sampled_from([1] * 8 + [12, None]),
        "e": instants(0, 14) | st.sampled_from([None, BASE, BASE + 5 * MINUTE]),
        "late": st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8, 13, 21, -4, None]),
        "seq": st.integers(0, 4),
        "x": floats,
        "n": st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**53), 2**53)),
        "ok": st.one_of(st.none(), st.booleans()),
        "tag": st.sampled_from(["p", "q", "é", None]),
        "vec": st.none() | st.lists(floats, min_size=2, max_size=2) | st.lists(st.just(1.0), max_size=3),
    }
)
EVENTS = pa.schema(
    [
        ("k1", pa.string()),
        ("k2", pa.int64()),
        ("e", TIME),
        ("k", TIME),
        ("seq", pa.int64()),
        ("sid", pa.string()),
        ("x", pa.float64()),
        ("n", pa.int64()),
        ("ok", pa.bool_()),
        ("tag", pa.string()),
        ("vec", pa.list_(pa.float64())),
    ]
)
query = st.fixed_dictionaries(
    {
        "k1": st.sampled_from(["a"] * 8 + ["b", "ab", "zz", None]),
        "k2": st.sampled_from([1] * 8 + [12, 99, None]),
        "q": instants(-1, 32),
        "x": floats,
        "ok": st.one_of(st.none(), st.booleans()),
    }
)
histories = st.lists(event, max_size=4) | st.lists(event, min_size=10, max_size=30)
requests = st.lists(query, min_size=1, max_size=4) | st.lists(query, min_size=8, max_size=12)
SPINE = pa.schema([("k1", pa.string()), ("k2", pa.int64()), ("q", TIME), ("x", pa.float64()), ("ok", pa.bool_())])


def told_apart(view: FeatureView, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Events without those that a view cannot tell from one of another key: which of the two counts, no rule says.

    A view without an entity, or by some of the columns, sees one event where key columns that it does not read differ.
    """
    first: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    apart = []
    for event in events:
        identity = tuple(event[key] for key in view.key_columns), event["e"], event["seq"]
        if first.setdefault(identity, (event["k1"], event["k2"])) == (event["k1"], event["k2"]):
            apart.append(event)
    return apart


def revisions_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Table of events in which the same key and sequence with other content is a revision."""
    out = []
    for row in rows:
        known_at = None if row["late"] is None or row["e"] is None else row["e"] + row["late"] * MINUTE
        out.append({**row, "k": known_at, "sid": f"s{row['seq']}"})
    return pa.Table.from_pylist([{name: r.get(name) for name in EVENTS.names} for r in out], schema=EVENTS)


def events_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Table of events; a redelivery (same key, time and sequence) carries the same content but may be known later."""
    first: dict[Any, Mapping[str, Any]] = {}
    out: list[dict[str, Any]] = []
    for drawn in rows:
        same = first.setdefault((drawn["k1"], drawn["k2"], drawn["e"], drawn["seq"]), drawn)
        row = {**same, "late": drawn["late"]}
        known_at = None if row["late"] is None or row["e"] is None else row["e"] + row["late"] * MINUTE
        out.append({**row, "k": known_at, "sid": f"s{row['seq']}"})
    return pa.Table.from_pylist([{name: r.get(name) for name in EVENTS.names} for r in out], schema=EVENTS)


def spine_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Table of requests."""
    return pa.Table.from_pylist(rows, schema=SPINE)


sources = st.sampled_from(
    [
        Source("s", table, event_time="e"),
        Source("s", table, event_time="e", delay="3m"),
        Source("s", table, event_time="e", known_at="k"),
        Source("s", table, event_time="e", known_at="k", sequence="seq"),
        Source("s", table, event_time="e", known_at="k", sequence="sid"),
        Source("s", table, event_time="e", known_at="k", sequence="seq", where="ok or ok is null"),
    ]
)
WINDOWS: list[str | Window] = [
    "1m",
    "7m",
    "20m",
    Window("10m", hop="4m"),
    Window("5m", hop="20m"),
    Window("9m", include_current=True),
    Window.calendar("day", zone="Europe/Berlin"),
]
entities = st.sampled_from([None, *(Entity("thing", keys=keys) for keys in (["k1"], ["k2"], ["k1", "k2"]))])
windows = st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=3, unique=True)


WIDER: list[str | Window] = [
    "lifetime",
    Window("5m", offset="3m"),
    Window("10m", offset="6m", hop="4m"),
    Window("20m"),
    Window.calendar("month", zone="Europe/Berlin", count=2),
]
"""Windows that end before the decision, have no beginning, or begin with the month (at ``BASE``, as the day does)."""
moderate = st.one_of(
    st.none(),
    st.sampled_from([0.1, 0.2, 0.3, -0.0, 1e9, 1e9 + 1e-3, -1e9, 15.0, 16.0, float("nan"), float("inf")]),
    st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
)
"""Values whose cubes neither vanish nor overflow."""
moderate_event = st.builds(lambda row, x: {**row, "x": x}, event, moderate)
moderate_histories = st.lists(moderate_event, max_size=4) | st.lists(moderate_event, min_size=10, max_size=30)
"""Histories for ``wide_views``."""
REVISED = Source("s", table, event_time="e", known_at="k", sequence="seq", revised=True, deleted="tag = 'q'")
"""A source whose rows are revisions; some delete their event."""


def totals(over: Sequence[str | Window]) -> list[Aggregate]:
    """Every aggregate that is made of totals."""
    return [
        agg.count(over=over),
        agg.sum("n", over=over),
        agg.sum("x", over=over, where="ok"),
        agg.mean("x", over=over),
        agg.share("x > 15", over=over),
        agg.min("x", over=over),
        agg.max("n", over=over),
        agg.ratio("x", "n", over=over),
        agg.ratio("abs(x)", "n + 1", over=over),
        agg.sum("n * 2 - hour(e)", over=over, where="ok"),
        agg.variance("x", over=over),
        agg.std("x", over=over, where="ok"),
        agg.skew("x", over=over),
        agg.slope("x", over=over),
        agg.slope("n", per="1m", over=over, where="ok"),
    ]


def bags(over: Sequence[str | Window]) -> list[Aggregate]:
    """Every aggregate that needs the events themselves."""
    return [
        agg.first("x", over=over),
        agg.last("tag", over=over, where="ok"),
        agg.first_k("tag", 2, over=over),
        agg.last_k("n", 3, over=over),
        agg.top_k("x", 2, over=over),
        agg.bottom_k("n", 2, over=over, where="ok"),
        agg.argmax("tag", by="x", over=over),
        agg.argmin("x", by="tag", over=over, where="ok"),
        agg.top_k("n", 2, by="ok", over=over),
        agg.bottom_k("tag", 3, by="n", over=over),
        agg.mode("tag", over=over),
        agg.mode("n", over=over, where="ok"),
        agg.sum_list("vec", 2, over=over),
        agg.mean_list("vec", 2, over=over, where="ok"),
        agg.distinct("tag", over=over),
        agg.distinct("x", over=over, approximate=True),
        agg.quantile("x", 0.9, over=over),
        agg.median("n", over=over),
        agg.distinct("coalesce(tag, 'none')", over=over),
        agg.top_k("case when ok then n else hour(e) end", 2, over=over, name="top_n_or_hour"),
        agg.histogram("tag", over=over),
        agg.histogram("ok", over=over),
        agg.by("tag", "sum", "x", over=over),
        agg.by("ok", "count", over=over),
        agg.by("tag", "mean", "n", over=over),
        agg.time_since_last(over=over),
        agg.session_count(gap="90s", over=over),
        agg.session_events(gap="2m", over=over, where="ok"),
        agg.session_seconds(gap="4m", over=over),
        agg.decayed_count(half_life="3m", over=over, where="ok"),
        agg.decayed_sum("x", half_life="10m", over=over),
    ]


@st.composite
def wide_views(draw: st.DrawFn, *, source: st.SearchStrategy[Source] = sources) -> FeatureView:
    """Views that hold every total and every bag over plain, offset and lifetime windows; for ``moderate`` values."""
    over = draw(st.lists(st.sampled_from(WIDER), min_size=1, max_size=2, unique=True))
    features: list[Aggregate | Latest] = [*totals(over)]
    features += bags(over)
    features += [agg.rate(over="7m", per="1m"), latest("x", "tag", max_age="12m"), latest("n")]
    return FeatureView("v", draw(entities), draw(source), features)


@st.composite
def views(draw: st.DrawFn) -> FeatureView:
    """Views that hold every aggregate over random windows, keys and clocks."""
    over = draw(windows)
    features: list[Aggregate | Latest] = [
        agg.count(over=over),
        agg.sum("x", over=over),
        agg.mean("x", over=over, where="ok"),
        agg.mean("x", over=over),
        agg.mean("x / 7", over=over),
        agg.share("x > 15", over=over),
        agg.min("case when ok then x else - x end", over=over, name="least"),
        agg.min("x", over=over),
        agg.max("x", over=over),
        latest("x", "tag", max_age=draw(st.sampled_from(["5m", "12m"]))),
    ]
    plain = [window for window in over if not isinstance(window, Window) or not window.include_current]
    if plain:
        features += [
            agg.sum("n", over=plain),
            agg.mean("n", over=plain),
            agg.max("n", over=plain),
            agg.min("e", over=plain),
            agg.max("e - 1h", over=plain),
            agg.count(over=plain, where="tag <> 'p'", name="not_p"),
            agg.sum("ok", over=plain),
        ]
    if draw(st.booleans()):
        features.append(latest("n", "ok", "tag", name=None) if draw(st.booleans()) else latest("k2", name="any_k2"))
    names = [name for feature in features for name in feature.names()]
    if len(set(names)) < len(names):
        features = features[:-1]
    return FeatureView("v", draw(entities), draw(sources), features)


def oracle_columns(features: FeatureSet, spine: pa.Table, tables: Mapping[str, pa.Table]) -> dict[str, list[Any]]:
    """Every feature of every spine row by the oracle."""
    columns: dict[str, list[Any]] = {name: [] for name in features.columns}
    for plan in features.views:
        oracle = Oracle(plan.view, tables[plan.source.name].to_pylist())
        for row in spine.to_pylist():
            for name, value in oracle.values(row, plain(row["q"])).items():
                columns[f"{plan.name}__{name}"].append(value)
    return columns
