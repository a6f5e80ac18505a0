"""What differs between definitions and what is deployed, who reads it, and what going there costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from retrodict import Entity, FeatureView, Source, Table, agg, derived, latest
from retrodict.features.catalogue.changes import Change, Difference, Reader, compare
from retrodict.features.plan import FeatureSet

FLIGHTS = Table("flights", key="id")
LANDED = Source("landed", FLIGHTS, event_time="dep", known_at="arr", sequence="id")
DELAYS = FeatureView("delays", Entity("origin"), LANDED, [agg.mean("delay", over=["2h", "1d"]), agg.count(over="2h")])
ROWS = {"flights": 1_000}


def reader(*features: Any, model: str = "late@1", decides: bool = True) -> Reader:
    return Reader(model, "warn", FeatureSet(features), decides)


def changed(new: FeatureView, *readers: Reader) -> Change:
    (found,) = compare([new], readers or [reader(DELAYS)], ROWS)
    return found


def test_what_nobody_reads_is_added_and_filled_from_every_row() -> None:
    """No reader, so nothing is refused."""
    (alone,) = compare([DELAYS], [], ROWS)
    found = compare([DELAYS], [reader(replace(DELAYS, name="other"))], ROWS)[0]
    assert (alone.status, alone.rebuild, alone.rows, alone.refused) == ("added", True, 1_000, False)
    # A view that differs in its name alone shares the state that is there.
    assert (found.status, found.rebuild, found.rows) == ("added", False, None)


def test_the_same_definition_is_the_same() -> None:
    """Owner and description are for people."""
    found = changed(replace(DELAYS, owner="ana", description="x", tags=("y",)))
    assert (found.status, found.rebuild, found.differences, found.refused) == ("same", False, (), False)


@pytest.mark.parametrize(
    ("new", "differences", "rebuild"),
    [
        (replace(DELAYS, features=[agg.mean("delay", over=["2h", "7d"]), agg.count(over="2h")]),
         [Difference("feature mean_delay_1d", "mean of delay over 1d", None),
          Difference("feature mean_delay_7d", None, "mean of delay over 7d")], True),
        (replace(DELAYS, source=replace(LANDED, where="delay < 900")),
         [Difference("source.where", "None", "delay < 900")], True),
        (replace(DELAYS, source=replace(LANDED, known_at=None, delay="20m")),
         [Difference("source.known_at", "arr", "None"), Difference("source.delay", "None", "20m")], True),
        (DELAYS.keyed(name="delays", origin="dest"), [Difference("key_map", "", "origin=dest")], False),
        (replace(DELAYS, features=[agg.count(over="2h"), agg.mean("delay", over=["2h", "1d"])]),
         [Difference("order", None, "the same features, written in another order or grouping")], True),
        (replace(DELAYS, features=[*DELAYS.features, latest("tail")]),
         [Difference("feature latest_tail", None, "latest of tail")], True),
    ],
)  # fmt: skip
def test_a_change_is_told_field_by_field(new: FeatureView, differences: list[Difference], rebuild: bool) -> None:
    """Refused, since a model in force reads the version before; what it would cost is said all the same."""
    found = changed(new)
    assert (found.status, found.refused, found.readers) == ("changed", True, ("late@1",))
    assert list(found.differences) == differences
    assert (found.rebuild, found.rows) == (rebuild, 1_000 if rebuild else None)


def test_a_named_feature_that_means_something_else_is_told_as_both() -> None:
    """Its name alone would hide the change."""
    old = replace(DELAYS, features=[agg.count(over="2h", where="delay > 15", name="late")])
    new = replace(DELAYS, features=[agg.count(over="2h", where="delay > 20", name="late")])
    (difference,) = changed(new, reader(old)).differences
    assert difference == Difference("feature late", "count over 2h where delay > 15", "count over 2h where delay > 20")


def test_the_way_back_does_not_refuse_a_change_that_is_in_force() -> None:
    """What decides reads the new version; what decided before keeps its own, and is named."""
    new = replace(DELAYS, source=replace(LANDED, where="delay < 900"))
    found = changed(new, reader(DELAYS, model="late@1", decides=False), reader(new, model="late@2"))
    assert (found.status, found.refused, found.readers) == ("same", False, ("late@1",))
    assert found.deployed == (new.version, DELAYS.version)


def test_a_view_that_is_gone_is_removed_and_still_read() -> None:
    """Named with the models that go on reading it by their own code."""
    (found,) = compare([], [reader(DELAYS), reader(DELAYS, model="other@3")], ROWS)
    assert (found.status, found.version, found.readers) == ("removed", None, ("late@1", "other@3"))


def test_a_derived_function_is_compared_by_its_code() -> None:
    """It has no state to fill."""

    @derived
    def size(weight):
        return {"heavy": weight > 90}

    old = size

    @derived
    def size(weight):  # type: ignore[no-redef]
        return {"heavy": weight > 80}

    (found,) = compare([size], [reader(old)], ROWS)
    assert (found.kind, found.status, found.rebuild, found.refused) == ("derived", "changed", False, True)
    assert [difference.field for difference in found.differences] == ["code"]
