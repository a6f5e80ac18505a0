"""Which arm a unit is in: the same everywhere and for good, as many as the share says, and nobody by a missing unit."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.decisions.assignment import bucket, unit_text
from retrodict.decisions.split import CANARY, CONTROL, TrafficSplit
from retrodict.decisions.variants import VariantAssigner, _log

lines = _log.filters[0]


def split(share, control=None, *, unit=("customer",), seed="careful", where=None):
    control = min(share, 1 - share) if control is None else control
    return TrafficSplit({"rollout": "careful", "unit": unit, "seed": seed, "share": share, "control": control,
                         "where": where})  # fmt: skip


@pytest.mark.parametrize(("seed", "unit", "place"), [("seed", "a", 0.0505), ("seed", "b", 0.2696)])
def test_places_agree_with_the_published_vectors(seed, unit, place):
    """Of version 2 of GrowthBook's hash: another service that uses one of its kits assigns alike."""
    assert bucket(seed, unit) == place


def test_units_have_the_share_that_was_asked_for():
    """And the control has as many."""
    arms = Counter(split(0.05).arm({"customer": f"customer {number}"}) for number in range(40_000))
    assert arms[CANARY] == pytest.approx(2_000, abs=200)
    assert arms[CONTROL] == pytest.approx(2_000, abs=200)


@given(st.text(min_size=1), st.text(), st.lists(st.floats(0, 0.5), min_size=2, max_size=5))
def test_a_unit_that_is_in_stays_in_while_the_share_grows(unit, seed, shares):
    """In the canary as in its control."""
    arms = [split(share, seed=seed).arm({"customer": unit}) for share in sorted(shares)]
    joined = [arm for arm in arms if arm]
    assert len(set(joined)) <= 1
    assert arms == [""] * (len(arms) - len(joined)) + joined


def test_who_has_no_unit_is_in_no_arm():
    """Also where only a part of it is missing."""
    everybody = split(1.0, 0.0, unit=("shop", "customer"))
    assert everybody.arm({"shop": "a", "customer": 1}) == CANARY
    assert everybody.arm({"shop": "a", "customer": None}) == ""
    assert everybody.arm({"customer": 1}) == ""
    assert everybody.arm({"shop": "a", "customer": ""}) == ""


def test_only_the_cohort_takes_part():
    """A condition that is unknown takes nobody in."""
    staff = split(0.5, where="segment = 'staff'")
    arms = {staff.arm({"customer": number, "segment": "staff"}) for number in range(50)}
    assert arms == {CANARY, CONTROL}
    assert {staff.arm({"customer": number, "segment": "other"}) for number in range(50)} == {""}
    assert {staff.arm({"customer": number, "segment": None}) for number in range(50)} == {""}


@pytest.mark.parametrize("values", [{}, {"age": "secret"}, {"age": True}, {"age": [3]}])
def test_a_condition_that_cannot_be_evaluated_takes_nobody_in(values, caplog):
    """Neither in a rollout nor in an experiment, and the log says so once for all that come within a second."""
    values = {"customer": 1, **values}
    rollout = split(1.0, 0.0, where="age > 17")
    state = {"name": "tone", "unit": ["customer"], "seed": "s", "variants": {"a": 0.5, "b": 0.5}, "share": 1.0,
             "layer": None, "slot": [0, 1], "where": "age > 17"}  # fmt: skip
    experiment = VariantAssigner([state])
    lines._kinds.clear()
    assert {rollout.arm(values) for _ in range(5)} == {""}
    assert experiment.assign(values) == {}
    assert [one.getMessage().partition(" takes")[0] for one in caplog.records] == ["rollout careful", "experiment tone"]
    assert "secret" not in caplog.text
    assert isinstance(rollout.condition.fault(values), InputError)
    grown = {"customer": 1, "age": 18}
    assert (rollout.arm(grown), len(experiment.assign(grown))) == (CANARY, 1)
    assert rollout.condition.fault(grown) is None


@given(*[st.lists(st.text(min_size=1), min_size=2, max_size=3)] * 2)
def test_different_units_have_different_texts(first, second):
    """Parts are never run together."""
    assert (unit_text(first) == unit_text(second)) == (first == second)
