"""Outcomes as of a time: known, pending, void."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import DefinitionError
from retrodict.outcomes.status import UNKNOWN_TIME, outcomes

LATE, EARLY = 30.0, -5.0


@pytest.fixture
def one(project, kit):
    """Write one decision at START and the given row of its flight; return its outcome at a time."""

    def make(now: int, *, delay=None, arrival=None, row=True, **facts):
        kit.log(project, [kit.record(0, **facts)])
        if row:
            project.tables.write("flights", kit.flights(["f0"], [delay], [arrival]))
        found = outcomes(project, "warn_early", now=now)
        return found.status[0], found.label[0], found.known_at[0]

    return make


@pytest.mark.parametrize(("delay", "label"), [(LATE, 1.0), (EARLY, 0.0)])
def test_an_outcome_is_known_after_its_time(one, kit, delay, label):
    """The label is the expression of the definition."""
    arrival = kit.START + 2 * HOUR
    assert one(arrival + 1, delay=delay, arrival=arrival) == ("known", label, arrival)


def test_an_outcome_is_not_known_at_its_very_time(one, kit):
    """The right edge is strict: nothing sees a fact with known_at >= now."""
    arrival = kit.START + 2 * HOUR
    status, label, known_at = one(arrival, delay=LATE, arrival=arrival)
    assert (status, known_at) == ("pending", UNKNOWN_TIME)
    assert np.isnan(label)


@pytest.mark.parametrize(("age", "status"), [(DAY - 1, "pending"), (DAY, "void")])
def test_a_decision_without_a_row_is_void_once_matured(one, kit, age, status):
    """Maturity counts from the decision, and its end belongs to void."""
    assert one(kit.START + age, row=False)[0] == status


def test_a_late_outcome_is_void_first_and_known_later(project, kit):
    """Known after maturity: as of before it the decision is void, afterwards it counts after all."""
    arrival = kit.START + 3 * DAY
    kit.log(project, [kit.record(0)])
    project.tables.write("flights", kit.flights(["f0"], [LATE], [arrival]))
    seen = [outcomes(project, "warn_early", now=now).status[0] for now in (kit.START + 2 * DAY, arrival + 1)]
    assert seen == ["void", "known"]


def test_a_row_without_a_label_is_void_as_soon_as_that_is_known(one, kit):
    """Diverted: it arrived, and there is no delay to speak of."""
    arrival = kit.START + 2 * HOUR
    assert one(arrival + 1, delay=None, arrival=arrival)[0] == "void"


def test_a_row_without_a_time_stays_pending_until_matured(one, kit):
    """Cancelled: nothing says since when it is known."""
    assert one(kit.START + 2 * HOUR, delay=LATE, arrival=None)[0] == "pending"


def test_a_decision_without_a_key_joins_nothing(project, kit):
    """Null equals no key, and the report counts it."""
    kit.log(project, [kit.record(0, key=None)])
    project.tables.write("flights", kit.flights(["f0"], [LATE], [kit.START + HOUR]))
    found = outcomes(project, "warn_early", now=kit.NOW)
    assert (found.status.tolist(), found.without_key) == (["void"], 1)


def test_decisions_of_the_future_and_of_other_policies_are_not_there(project, kit):
    """The log as of now, of this policy."""
    kit.log(project, [kit.record(0), kit.record(1, policy="other"), kit.record(2)])
    found = outcomes(project, "warn_early", now=kit.START + 2 * HOUR)
    assert found.column("key").tolist() == ["f0"]


def test_two_decisions_on_one_key_share_the_outcome_and_stay_two_rows(project, kit):
    """A decision asked twice is two decisions."""
    kit.log(project, [kit.record(0), kit.record(1, key="f0"), kit.record(2, key="nobody")])
    project.tables.write("flights", kit.flights(["f0"], [LATE], [kit.START + 2 * HOUR]))
    assert outcomes(project, "warn_early", now=kit.NOW).status.tolist() == ["known", "known", "void"]


def test_an_older_table_version_can_be_asked_for(project, kit):
    """Versions are immutable, so yesterday's answer can be computed again; the inputs say which one it was."""
    kit.log(project, [kit.record(0)])
    project.tables.write("flights", kit.flights(["other"], [LATE], [kit.START + HOUR]))
    project.tables.write("flights", kit.flights(["f0"], [LATE], [kit.START + HOUR]))
    old, new = (outcomes(project, "warn_early", now=kit.NOW, version=version) for version in (0, None))
    assert (old.status[0], new.status[0]) == ("void", "known")
    assert old.inputs == (("dataset:flights@0", "labels"),)


def test_all_statuses_equal_those_of_pandas(project, kit):
    """A few hundred decisions of every kind, at several times, against a merge in pandas."""
    rng = np.random.default_rng(5)
    n = 400
    kit.log(project, [kit.record(at, key=f"f{rng.integers(0, 500)}") for at in range(n)])
    keys = [f"f{at}" for at in range(350)]
    delays = np.where(rng.random(350) < 0.2, np.nan, rng.normal(15, 20, 350))
    arrivals = kit.START + rng.integers(0, 40 * DAY, 350) // HOUR * HOUR
    missing = rng.random(350) < 0.1
    times = [None if gone else int(at) for at, gone in zip(arrivals, missing, strict=True)]
    project.tables.write("flights", kit.flights(keys, [None if np.isnan(d) else d for d in delays], times))
    table = pd.DataFrame({"key": keys, "delay": delays, "known_at": pd.array(times, "Int64")})
    for now in (kit.START + 5 * DAY, kit.START + 12 * DAY, kit.START + 90 * DAY):
        found = outcomes(project, "warn_early", now=now)
        frame = pd.DataFrame({"key": found.column("key"), "time": found.column("time")}).merge(
            table, how="left", on="key"
        )
        seen = (frame["known_at"] < now).fillna(value=False).astype(bool)
        expected = np.where(frame["time"] + DAY <= now, "void", "pending")
        expected[seen] = "void"
        expected[seen & frame["delay"].notna()] = "known"
        assert found.status.tolist() == expected.tolist()
        known = found.status == "known"
        assert found.label[known].tolist() == (frame["delay"] > 15)[known].astype(float).tolist()
        assert np.isnan(found.label[~known]).all()


def test_a_label_that_is_no_yes_or_no_is_refused_where_the_version_predicts_one(make_project, kit):
    """An amount is not an outcome."""
    with make_project(kit.DEFINITIONS.replace('"arr_delay > 15"', '"arr_delay"')) as project:
        kit.log(project, [kit.record(0)])
        project.tables.write("flights", kit.flights(["f0"], [LATE], [kit.START]))
        with pytest.raises(DefinitionError, match="a label must be true or false; got '1 numbers other than 0 and 1'"):
            outcomes(project, "warn_early", now=kit.NOW)


def test_nothing_decided_gives_nothing(project, kit):
    """An empty log and no label table are not an error."""
    found = outcomes(project, "warn_early", now=kit.NOW)
    assert len(found) == 0
    assert found.inputs == ()
