"""Search, lineage, selection, and what a table's schema says of a view before anything is computed."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict import Entity, FeatureView, Source, Table, agg, derived, latest
from retrodict.core.errors import DefinitionError, InputError
from retrodict.features.catalogue import check_schema, describe, lineage, search, select
from retrodict.features.definitions import Window
from retrodict.features.offline import training_frame
from retrodict.features.plan import FeatureSet, ViewPlan

FLIGHTS = Table("flights", key="id")
LANDED = Source("landed", FLIGHTS, event_time="dep", known_at="arr", sequence="id", where="carrier <> 'XX'")
DELAYS = FeatureView(
    "delays", Entity("origin"), LANDED,
    [agg.mean("delay", over=["2h", Window("7d", hop="1d")], where="distance > 100"), agg.share("delay > 15", over="1d"),
     agg.ratio("delay", "distance", over="1d"), latest("tail", max_age="1d"),
     agg.by("dest", "max", "delay", over="1d")],
    description="How late flights leave", owner="Ops", tags=["live", "Delay"],
)  # fmt: skip
TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema({"id": pa.int64(), "origin": pa.string(), "dest": pa.string(), "dep": TIME, "arr": TIME,
                    "delay": pa.float64(), "distance": pa.int32(), "tail": pa.string(),
                    "carrier": pa.string()})  # fmt: skip


@derived
def doubled(delays__share_delay_gt_15_1d, weight):
    return {"twice": 2 * delays__share_delay_gt_15_1d + weight}


@derived
def again(doubled__twice):
    return {"four": 2 * doubled__twice}


def roles(view: FeatureView, feature: str | None = None) -> dict[str, tuple[str, ...]]:
    return {use.column: use.roles for use in lineage(view, feature)}


def test_features_read_as_sentences() -> None:
    """Aggregate, columns, window, condition, options, each as it is meant."""
    assert [str(each) for each in describe(DELAYS)] == [
        "mean of delay over 2h where distance > 100",
        "mean of delay over 7d_hop_1d where distance > 100",
        "share of delay > 15 over 1d",
        "ratio of delay to distance over 1d",
        "latest of tail at most 1d",
        "max of delay by dest over 1d",
    ]


def test_lineage_of_a_feature_is_what_it_alone_reads() -> None:
    """Its own columns, and those that every feature of the view rests on."""
    common = {"origin": ("key",), "dep": ("event time",), "arr": ("known at",), "id": ("sequence",),
              "carrier": ("source condition",)}  # fmt: skip
    assert roles(DELAYS, "latest_tail") == {**common, "tail": ("value",)}
    assert roles(DELAYS, "mean_delay_where_distance_gt_100_2h") == {
        **common, "delay": ("value",), "distance": ("condition",),
    }  # fmt: skip
    assert roles(DELAYS)["delay"] == ("value", "condition")


def test_lineage_of_a_view_is_exactly_what_the_engines_read() -> None:
    """Neither a column more nor one less than the plan asks of the table."""
    assert sorted(roles(DELAYS)) == sorted(ViewPlan(DELAYS).source_columns)


def test_lineage_of_an_unknown_feature_names_the_nearest() -> None:
    """As everywhere."""
    with pytest.raises(InputError, match="Did you mean the feature 'latest_tail'"):
        lineage(DELAYS, "latest_tai")


def test_search_wants_every_word_and_no_case() -> None:
    """Names, description, owner, tags, source, table, columns; derived functions by their inputs."""
    every = [DELAYS, doubled, again]
    assert search(every, "LATE landed distance") == [DELAYS]
    assert search(every, "delays__share") == [DELAYS, doubled]
    assert search(every, "weight late") == []
    assert search(every, owner="ops") == search(every, tag="delay") == [DELAYS]
    assert search(every, owner="op") == []
    assert search(every) == every


def test_select_adds_what_derived_functions_need_first() -> None:
    """Through several functions, in the order in which they can be computed."""
    chosen, columns = select([again, doubled, DELAYS], ["again.four", "delays.latest_tail"])
    assert [each.name for each in chosen.features] == ["delays", "doubled", "again"]
    assert columns == ["again__four", "delays__latest_tail"]
    assert select([DELAYS], ["delays__latest_tail", "delays.latest_tail"])[1] == ["delays__latest_tail"]


def test_a_table_that_fits_passes() -> None:
    """And one with more columns, in any order."""
    check_schema(ViewPlan(DELAYS), SCHEMA)
    check_schema(ViewPlan(DELAYS), pa.schema([*reversed(SCHEMA), pa.field("more", pa.list_(pa.int8()))]))


@pytest.mark.parametrize("column", SCHEMA.names)
def test_every_column_that_is_missing_is_named(column: str) -> None:
    """With the nearest name that there is."""
    other = pa.schema([field.with_name(f"{column}_x") if field.name == column else field for field in SCHEMA])
    with pytest.raises(DefinitionError, match=rf"view 'delays'.*got '{column}'.*'{column}_x'"):
        check_schema(ViewPlan(DELAYS), other)


@pytest.mark.parametrize(
    ("column", "type_", "said"),
    [
        (
            "delay",
            pa.string(),
            r"feature 'mean_delay_where_distance_gt_100_2h', column 'delay': mean must take numbers",
        ),
        ("distance", pa.string(), "view 'delays', feature 'mean_delay_where_distance_gt_100_2h'"),
        ("tail", pa.list_(pa.string()), r"feature 'latest_tail', column 'tail'"),
        ("dep", pa.string(), r"source 'landed', event time 'dep'"),
        ("arr", pa.float64(), r"known at 'arr'"),
        ("id", pa.float64(), r"sequence 'id'"),
        ("origin", pa.float64(), r"key 'origin'"),
        ("carrier", pa.int64(), r"view 'delays', source 'landed'"),
    ],
)
def test_a_type_that_an_aggregate_does_not_take_is_refused(column: str, type_: pa.DataType, said: str) -> None:
    """View, feature or role, column, and the type that it has."""
    with pytest.raises(DefinitionError, match=said):
        check_schema(ViewPlan(DELAYS), SCHEMA.set(SCHEMA.get_field_index(column), pa.field(column, type_)))


def one(feature: object) -> ViewPlan:
    return ViewPlan(FeatureView("v", Entity("origin"), LANDED, [feature]))  # type: ignore[list-item]


def test_times_have_a_largest_and_no_mean() -> None:
    """The largest of times is a time; a histogram of fractions is refused."""
    check_schema(one(agg.max("arr", over="1d")), SCHEMA)
    with pytest.raises(DefinitionError, match="mean must take numbers"):
        check_schema(one(agg.mean("arr", over="1d")), SCHEMA)
    with pytest.raises(DefinitionError, match="histogram must take text, whole numbers or booleans"):
        check_schema(one(agg.histogram("delay", over="1d")), SCHEMA)


def test_lists_are_for_the_aggregates_of_lists() -> None:
    """A list is no value that a mode or an order reads, and a number is no list."""
    lists = pa.schema([*SCHEMA, pa.field("embedding", pa.list_(pa.float32()))])
    check_schema(one(agg.mean_list("embedding", 8, over="1d")), lists)
    for feature in (agg.mode("embedding", over="1d"), agg.argmax("tail", by="embedding", over="1d")):
        with pytest.raises(
            DefinitionError, match=r"column 'embedding': (mode|argmax) must take numbers, booleans, text"
        ):
            check_schema(one(feature), lists)
    with pytest.raises(DefinitionError, match="column 'delay': sum_list must take lists of numbers; got 'double'"):
        check_schema(one(agg.sum_list("delay", 8, over="1d")), lists)


FEATURES = [
    agg.sum("x", over="1h"), agg.mean("x", over="1h"), agg.min("x", over="1h"), agg.variance("x", over="1h"),
    agg.share("x > 1", over="1h"), latest("x"), agg.count(over="1h", where="x = 2"), agg.slope("x", over="1h"),
    agg.argmax("x", by="x", over="1h"), agg.mode("x", over="1h"), agg.sum_list("x", 2, over="1h"),
]  # fmt: skip
TYPES = [pa.int64(), pa.float64(), pa.bool_(), pa.string(), TIME, pa.date32(), pa.list_(pa.int64())]


@settings(deadline=None)
@given(feature=st.sampled_from(FEATURES), type_=st.sampled_from(TYPES))
def test_what_passes_can_be_computed(feature: object, type_: pa.DataType) -> None:
    """The check never lets through what the offline engine then refuses."""
    source = Source("s", FLIGHTS, event_time="dep")
    plan = ViewPlan(FeatureView("v", Entity("k"), source, [feature]))  # type: ignore[list-item]
    schema = pa.schema({"k": pa.string(), "dep": TIME, "x": type_})
    try:
        check_schema(plan, schema)
    except DefinitionError:
        return
    spine = pa.table({"k": ["a"], "at": pa.array([10], TIME)})
    rows = pa.table({"k": ["a"], "dep": pa.array([5], TIME), "x": pa.array([None], type_)}, schema=schema)
    assert training_frame(spine, "at", FeatureSet([plan.view]), {"s": rows}).num_rows == 1
