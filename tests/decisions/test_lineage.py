"""Rows behind a decision: only what was visible then, strictly."""

import shutil
import sqlite3
from contextlib import closing

import pyarrow as pa
import pytest

from retrodict import Entity, FeatureView, Project, Source, Table, agg, latest
from retrodict.core.clock import parse_time
from retrodict.core.durations import HOUR
from retrodict.core.errors import IntegrityError, NotFoundError
from retrodict.decisions.facts import view_rows
from retrodict.decisions.lineage import trace_decision, trace_object
from retrodict.features.plan import FeatureSet

AT = parse_time("2024-01-02T00:00Z")
PARCELS = Table("parcels", key="id")


def rows_of(view, events):
    """Ids of the rows of each feature; events are (id, depot, hours before the decision, hours known before)."""
    times = pa.timestamp("us", "UTC")
    table = pa.table({
        "id": [event[0] for event in events],
        "depot": [event[1] for event in events],
        "sent": pa.array([AT - int(event[2] * HOUR) for event in events], times),
        "arrived": pa.array([None if event[3] is None else AT - int(event[3] * HOUR) for event in events], times),
    })  # fmt: skip
    (plan,) = FeatureSet([view]).views
    return {name: rows.column("id").to_pylist() for name, rows in view_rows(plan, table, {"depot": "n"}, AT).items()}


EVENTS = [
    ("now", "n", 0, 0), ("edge", "n", 24, 1), ("beyond", "n", 24 + 1e-9 + 0.001, 1), ("in", "n", 2, 1),
    ("forecast", "n", 0, 3), ("untold", "n", 2, 0), ("later", "n", 1, None), ("other", "s", 2, 1), ("old", "n", 40, 30),
]  # fmt: skip


def test_only_rows_that_were_known_before_are_behind_a_value():
    """Neither an event at the moment, nor one that was not known yet; the window's start belongs to it."""
    source = Source("arrived", PARCELS, event_time="sent", known_at="arrived", sequence="id")
    view = FeatureView("delays", Entity("depot"), source, [agg.count(over="24h"), latest("id", name="last")])
    rows = rows_of(view, EVENTS)
    assert rows["delays__count_24h"] == ["edge", "in"]
    assert rows["delays__last"] == ["in"]


def test_a_delay_says_when_a_row_was_known():
    """Without a column for it; a latest value beyond its reach has no row."""
    source = Source("sent", PARCELS, event_time="sent", delay="2h", sequence="id")
    view = FeatureView("sent", Entity("depot"), source,
                       [agg.count(over="24h"), latest("id", name="last", max_age="30m")])  # fmt: skip
    rows = rows_of(view, [("just", "n", 2, 0), ("before", "n", 2.001, 0), ("after", "n", 1, 0)])
    assert rows == {"sent__count_24h": ["before"], "sent__last": []}


def test_behind_a_latest_value_is_the_row_that_the_value_was_taken_from():
    """Up to its age and not a microsecond more; of rows at one time the one known last, then of the greatest id."""
    source = Source("arrived", PARCELS, event_time="sent", known_at="arrived", sequence="id")
    view = FeatureView("delays", Entity("depot"), source, [latest("id", name="last", max_age="2h")])
    for events, last in (
        ([("edge", "n", 2, 1)], ["edge"]),
        ([("beyond", "n", 2 + 1e-9, 1)], []),
        ([("a, known last", "n", 2, 0.5), ("b, known first", "n", 2, 1)], ["a, known last"]),
        ([("b", "n", 1, 0.5), ("c", "n", 1, 0.5), ("a", "n", 1, 0.5)], ["c"]),
    ):
        assert rows_of(view, events) == {"delays__last": last}


def test_lineage_of_an_object_walks_both_ways(project):
    """Without a version the newest one, or what is in force; an unknown object has near names."""
    lineage = trace_object(project, "model:late_parcel")
    assert lineage.name == "model:late_parcel@1"
    assert "dataset:parcels@0" in {source for _, _, source in lineage.made_from}
    assert trace_object(project, "policy:promise").name.startswith("policy:promise#")
    assert trace_object(project, "dataset:parcels").to_dict()["used_by"]
    assert "late_parcel@1" in str(lineage)
    with pytest.raises(NotFoundError, match="'run:"):
        trace_object(project, lineage.made_from[0][2].replace("run:0", "run:1"))


def test_an_unknown_decision_is_not_traced(project):
    """It is not in the log."""
    with pytest.raises(NotFoundError, match="decision_id"):
        trace_decision(project, "decision:" + "0" * 26)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE model_approvals SET approver = 'zoe'", "is not what was written"),
        ("UPDATE deployments SET reason = 'all well'", "is not what was written"),
        ("UPDATE ledger_edges SET source = 'dataset:parcels@9' WHERE role = 'training data'",
         "the lineage edges are not what it says"),
        ("UPDATE ledger_entries SET actor = 'zoe' WHERE action = 'model.approve'", "the entry does not give its hash"),
        ("UPDATE ledger_nodes SET hash = '00' || substr(hash, 3)", "does not lead to the signed root"),
        ("UPDATE runs SET actor = 'zoe'", "is not what was written"),
    ],
)  # fmt: skip
def test_a_lineage_says_whether_the_ledger_under_it_holds(deployed, tmp_path, statement, reason):
    """What it shows are rows: each is held against its entry, and that against the signed root."""
    root = shutil.copytree(deployed, tmp_path / "parcels")
    values = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
    with Project(root) as project:
        decision = project.decide("promise", **values, at="2024-02-20T10:00Z")
        before = decision.lineage().facts["ledger"]
        assert (before["holds"], len(before["entries"])) == (True, 6)
    with closing(sqlite3.connect(root / "state" / "records.db")) as records, records:
        assert records.execute(statement).rowcount >= 1
    with Project(root) as project:
        if "model_approvals" in statement or "deployments" in statement or "ledger_entries" in statement:
            with pytest.raises(IntegrityError, match="what entries of the ledger vouch for"):  # not even read
                project.lineage(decision.ref)
            return
        after = project.lineage(decision.ref).facts["ledger"]
    assert not after["holds"]
    assert reason in after["reason"]
