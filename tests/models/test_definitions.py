"""What a definitions module may say about models; mistakes are found where they are written."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.clock import from_micros, to_micros
from retrodict.core.errors import DefinitionError
from retrodict.data.definitions import Table
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg
from retrodict.features.labels import Label
from retrodict.models.definitions import Model, Recipe
from retrodict.models.splits import TimeSplit

SPLIT = TimeSplit("2013-01-01/2013-07-01")
LABEL = Label("late", Table("flights", key="id"), "arr_delay > 15", known_at="arr_time")
FLIGHTS = Source("flown", Table("flights", key="id"), event_time="dep", known_at="arr_time", sequence="id")
VIEW = FeatureView("delays", Entity("origin"), FLIGHTS, [agg.count(over="2h")])
CONSTANT = Recipe("constant", SPLIT)
LENGTHS = st.sampled_from(["1 month", "2 months", "14d", "36h"])


def test_a_month_ends_with_its_last_day() -> None:
    """The 31st and one month is the 28th of February, not an error on the night of the retraining."""
    split = TimeSplit("2012-01-31/2013-01-31", "1 month", "1 month").resolve()
    assert from_micros(split.validate_end) == datetime(2013, 2, 28, tzinfo=UTC)
    assert from_micros(split.test_end) == datetime(2013, 3, 28, tzinfo=UTC)


@given(st.datetimes(datetime(2014, 1, 1), datetime(2020, 1, 1), timezones=st.just(UTC)), LENGTHS, LENGTHS)  # noqa: DTZ001
def test_a_split_moved_to_an_instant_ends_at_or_shortly_before_it(now: datetime, validate: str, test: str) -> None:
    """Whatever the day: never after it, with the parts it had, and the same all day long."""
    split = TimeSplit("2013-01-01/2013-07-01", validate, test)
    moved = split.moved_to_end(to_micros(now))
    end = from_micros(moved.resolve().test_end)
    slack = 4 + (calendar.monthrange(now.year, now.month)[1] if "month" in validate and "month" in test else 2)
    assert 0 <= (now - end).total_seconds() <= slack * 86_400
    assert (moved.validate, moved.test, moved.train[:11]) == (validate, test, "2013-01-01/")
    assert split.moved_to_end(to_micros(now.replace(hour=23, minute=59))) == moved


def _model(**changes: Any) -> Model:
    recipe = {name: changes.pop(name) for name in list(changes) if name in Recipe.__dataclass_fields__}
    made = Recipe(**{"estimator": "lightgbm", "split": SPLIT, "params": {"num_leaves": 7}, "seed": 3, **recipe})
    given_ = {"label": LABEL, "decide_at": "dep", "features": [VIEW], "gates": ["auc > 0.7"], "owner": "ann", **changes}
    return Model("late", recipe=made, **given_)


def test_a_model_with_another_split_differs_in_nothing_else() -> None:
    """A retraining: same estimator, parameters, seed, gates; the original stays as it is."""
    other = TimeSplit("2013-02-01/2013-08-01", "14d", "14d")
    model = _model()
    moved = model.with_split(other)
    assert moved == _model(split=other)
    assert (moved.recipe.split, model.recipe.split) == (other, SPLIT)
    assert moved.version == _model(split=other).version != model.version


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"owner": "ben", "description": "x"}, True),
        ({"seed": 4}, False),
        ({"params": {"num_leaves": 8}}, False),
        ({"calibrate": "sigmoid"}, False),
        ({"baseline_group": "origin"}, False),
        ({"estimator": "logistic", "params": {}}, False),
        ({"gates": ["auc > 0.8"]}, False),
        ({"decide_at": "dep - 1h"}, False),
    ],
)
def test_the_version_of_a_model_is_of_what_it_does(changes: dict[str, Any], same: bool) -> None:
    """Owner and description are for people; everything else makes another model."""
    assert (_model(**changes).version == _model().version) is same


def test_the_group_of_the_ladder_is_that_of_an_estimator_which_takes_one() -> None:
    """So that it is written once; one of its own wins."""
    settings = {"estimator": "group_rate", "split": SPLIT, "baseline_group": "origin"}
    assert Recipe(**settings).settings == {"group": "origin"}
    assert Recipe(**settings, params={"group": "carrier"}).settings == {"group": "carrier"}
    assert Recipe("logistic", SPLIT, baseline_group="origin").settings == {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TimeSplit("2013-07-01/2013-01-01"), "must end after it begins"),
        (lambda: TimeSplit("2013-01-01"), "FIRST_DAY/DAY_AFTER"),
        (lambda: TimeSplit("2013-01-01/2013-07-01", "0 months"), "must be longer than nothing"),
        (lambda: TimeSplit("2013-01-01/2013-07-01", "1 month", "0s"), "must be longer than nothing"),
        (lambda: TimeSplit("2013-01-01/2013-07-01", "a month"), "'N months' or a duration"),
        (lambda: TimeSplit("2013-01-01/2013-07-01", "999999 months"), "'N months' or a duration"),
        (lambda: Recipe("lightgmb", SPLIT), "Did you mean the estimator 'lightgbm'"),
        (lambda: Recipe("lightgbm", SPLIT, calibrate="isotone"), "Did you mean the method 'isotonic'"),
        (lambda: Recipe("lightgbm", "2013-01-01/2013-07-01"), "a recipe must say how rows are split"),  # type: ignore[arg-type]
        (lambda: Model("m", label=LABEL, decide_at="dep > 3", features=[1], recipe=CONSTANT), "must be a time"),
        (lambda: Model("m", label=LABEL, decide_at="dep", features=[], recipe=CONSTANT), "must have features"),
        (lambda: Model("m", label=LABEL, decide_at="dep", features=[1], recipe=CONSTANT, gates=["auc + 1"]),
         "a gate must be true or false"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_of_the_definition(make: Any, said: str) -> None:
    """With what was given and how to write it."""
    with pytest.raises(DefinitionError, match=said):
        make()


def test_a_length_of_a_split_in_words_gets_its_short_form():
    """Days are a duration, months are not."""
    with pytest.raises(DefinitionError, match=r"TimeSplit, validate: .*got '5 days'. Write it as '5d'"):
        TimeSplit(train="2013-01-01/2013-07-01", validate="5 days")
