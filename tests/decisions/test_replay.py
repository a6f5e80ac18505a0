"""A replay reads what the decision read, whatever became of tables since; what is gone it names."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow as pa
import pytest
from tests.serving.project import parcels

from retrodict import Project
from retrodict.decisions import servant
from retrodict.decisions.facts import read_facts
from retrodict.decisions.log import find_decision
from retrodict.decisions.replay import replay_values
from retrodict.models.artifact import ModelArtifact
from retrodict.project.decisions import _doubt
from retrodict.registry.feature_sets import feature_set_of
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import *

parcels = Table("parcels", key="id", columns={"id": "string", "depot": "string", "delay": "float", "sent": "time",
                                              "arrived": "time"})
depots = Table("depots", key="depot", columns={"depot": "string", "docks": "int"})
arrived = Source("arrived", parcels, event_time="sent", known_at="arrived", sequence="id")
depot_delays = FeatureView("depot_delays", Entity("depot"), arrived, [
    agg.mean("delay", over="7d"), agg.count(over="7d"), latest("delay")])
yard = FeatureView("yard", Entity("depot"), Source("yards", depots, sequence="depot"), [latest("docks")])
everywhere = FeatureView("everywhere", None, arrived, [agg.count(over="7d")])


@derived
def load(depot_delays__count_7d, yard__latest_docks):
    return {"per_dock": depot_delays__count_7d / yard__latest_docks}


late = Label("late", parcels, "delay > 3", known_at="arrived", matures="10d")
late_parcel = Model("late_parcel", label=late, decide_at="sent", features=[depot_delays, yard, everywhere, load],
    recipe=Recipe("logistic", TimeSplit("2024-01-01/2024-02-01", validate="10d", test="10d")), gates=["auc >= 0.5"])
promise = Policy("promise", late_parcel, decide={"warn": "score >= 0.5", "ok": "otherwise"}, deadline="10s",
    fallback=["ok"])
"""
AT = datetime(2024, 2, 20, 10, tzinfo=UTC)
DEPOTS = ["north", "south", "east"]


def dimension(*docks):
    return pa.table({"depot": DEPOTS, "docks": list(docks)})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("parcels")
    (root / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (root / "definitions.py").write_text(DEFINITIONS)
    with Project(root, actor="ana") as project:
        project.data.ingest("parcels", parcels().select(["id", "depot", "delay", "sent", "arrived"]))
        project.data.ingest("depots", dimension(4, 5, 6))
        project.features.build()
        project.features.verify("late_parcel")
        project.train("late_parcel")
    with Project(root, actor="ben") as project:
        project.models.approve("late_parcel@1", reason="test")
        project.deploy("promise", reason="test")
    return root


@pytest.fixture
def project(original, tmp_path):
    with Project(shutil.copytree(original, tmp_path / "parcels"), actor="ana") as opened:
        yield opened


def decided(project):
    return [project.decide("promise", depot=depot, at=AT) for depot in DEPOTS]


def late_rows(first="z"):
    """Parcels of every depot that arrived a day before the decisions, and that nobody told us of until now."""
    moment = AT - timedelta(days=1)
    return pa.table({"id": [f"{first}{n}" for n in range(3)], "depot": DEPOTS, "delay": [9.0] * 3,
                     "sent": [moment - timedelta(days=1)] * 3, "arrived": [moment] * 3})  # fmt: skip


def test_rows_that_came_late_change_no_replay(project):
    """They count in later decisions, which replay as well; the lineage lists the rows of then."""
    before = decided(project)
    project.data.ingest("parcels", late_rows())
    after = decided(project)
    for old, new in zip(before, after, strict=True):
        assert new.features["depot_delays__count_7d"] == old.features["depot_delays__count_7d"] + 1
        assert (old.replay().versions["parcels"], new.replay().versions["parcels"]) == (0, 1)
        assert old.replay().exact
        assert new.replay().exact
        rows = [{f["feature"]: f.get("rows") for f in d.lineage().facts["features"]} for d in (old, new)]
        assert rows[1]["depot_delays__count_7d"] == rows[0]["depot_delays__count_7d"] + 1


def test_a_replaced_dimension_and_a_rolled_back_table_change_no_replay(project):
    """Nor does what is decided in between."""
    decisions = decided(project)
    project.data.ingest("depots", dimension(1, 1, 1), replace=True)
    project.data.ingest("parcels", late_rows())
    decisions += decided(project)
    project.data.rollback("parcels", to="0", reason="test")
    project.data.rollback("depots", to="0", reason="test")
    decisions += decided(project)
    assert [decision.features["yard__latest_docks"] for decision in decisions] == [4, 5, 6, 1, 1, 1, 4, 5, 6]
    assert all(decision.replay().exact for decision in decisions)


def test_what_a_stream_brought_is_read_from_the_stream(project):
    """Pushed and in no table yet; later it is ingested, too, and counts once."""
    before = decided(project)
    pushed = late_rows()
    assert project.features.push("arrived", pushed).accepted == 3
    decisions = decided(project)
    assert decisions[0].features["everywhere__count_7d"] == before[0].features["everywhere__count_7d"] + 3
    replay = decisions[0].replay()
    assert (replay.verdict, replay.records) == ("exact", {"parcels": 3})
    sources = {f["feature"]: f.get("from") for f in decisions[0].lineage().facts["features"]}
    assert sources["depot_delays__latest_delay"] == ["events/parcels"]
    project.data.ingest("parcels", pushed)
    decisions += decided(project)
    assert all(decision.replay().exact for decision in [*before, *decisions])


def test_pushed_events_do_not_make_a_verification_fail(project):
    """State holds what no table has yet; so does what it is compared with."""
    assert project.features.push("arrived", late_rows()).accepted == 3
    decided(project)  # which takes them in
    assert project.features.verify("late_parcel").ok


def test_further_runs_do_not_trouble_a_lineage(project):
    """The entries of one decision vouch for its own run, not for all."""
    decision = decided(project)[0]
    project.train("late_parcel")
    assert decision.lineage().facts["ledger"]["holds"]


def test_erasing_one_subject_changes_no_replay_of_another(project):
    """The version is there until a vacuum; after it, what follows it gives the same, and the replay says so."""
    project.data.ingest("parcels", late_rows())  # a version that no run holds
    decisions = decided(project)
    project.features.erase("depot", key=["south"], reason="asked for", yes=True)
    assert all(decision.replay().exact for decision in decisions)
    project.data.vacuum("parcels", dry_run=False, older_than="0s")
    for decision in (decisions[0], decisions[2]):
        replay = decision.replay()
        # What is about everybody has lost the rows of the one.
        assert [row["feature"] for row in replay.feature_mismatches] == ["everywhere__count_7d"]
        assert replay.verdict == "not replayable"
    own = decisions[1].replay()
    assert len(own.feature_mismatches) > 2
    assert "parcels@1, which was read, was deleted by a vacuum (entry" in own.reason
    assert "subjects were erased from the table (entry" in own.reason
    assert "read was parcels@2 instead" in own.reason


def test_what_was_made_from_a_rewritten_version_says_so(project):
    """Who was erased, when and why; what does not depend on the rows is exact; never a bare "differs"."""
    decisions = decided(project)
    project.features.erase("depot", key=["south"], reason="article 17", pinned=True, yes=True)
    (run,) = project.runs.list()
    sentence = (
        r"parcels@0, which was read, was rewritten without a subject on 20\S+Z because: article 17 \(entry \d+, ana\)"
    )
    for replay in (run.replay(), *(decision.replay() for decision in decisions)):
        assert replay.verdict == "not replayable"
        assert re.search(sentence, replay.reason)
    north, south, _ = (decision.replay() for decision in decisions)
    assert [row["feature"] for row in north.feature_mismatches] == ["everywhere__count_7d"]
    assert len(south.feature_mismatches) > 2
    assert north.versions["parcels"] == 0
    assert project.ledger.verify().ok


def test_a_state_that_answers_nothing_replays_as_nothing(project):
    """A request from before what the state holds: nulls, in the answer and again, and the replay says so."""
    decision = project.decide("promise", depot="north", at=AT - timedelta(days=300))
    assert decision.views["depot_delays"]["status"] == "beyond_horizon"
    replay = decision.replay()
    assert replay.exact
    assert "not all was read of depot_delays (beyond_horizon)" in replay.reason


def again(workspace, record):
    model = ModelArtifact.load(workspace.objects, record.artifact)
    features = feature_set_of(workspace, record.model_code, model.name, model.inputs.names)
    facts = read_facts(workspace, features, record)
    return facts, replay_values(record, features, facts, model)


def test_views_of_one_source_may_have_read_different_versions(project):
    """One had taken the new rows in, the other not yet: each replays from its own."""
    old = decided(project)[0]
    project.data.ingest("parcels", late_rows())
    new = decided(project)[0]
    with Workspace(project.folder) as workspace:
        before, after = (find_decision(workspace, decision.ref).record for decision in (old, new))
        mixed = msgspec.structs.replace(after, reads=after.reads | {"everywhere": before.reads["everywhere"]})
        facts, values = again(workspace, mixed)
        assert [one.versions["parcels"] for one in facts] == [1, 0]
        assert values == new.features | {"everywhere__count_7d": old.features["everywhere__count_7d"]}


def test_a_state_that_had_part_of_a_version_replays_from_that_part(project):
    """Rows of a version are taken in piece by piece: what was not in is not read again."""
    old = decided(project)[0]
    project.data.ingest("parcels", late_rows())
    new = decided(project)[0]
    with Workspace(project.folder) as workspace:
        before, after = (find_decision(workspace, decision.ref).record for decision in (old, new))
        (version, rows, offset), earlier = after.reads["everywhere"], before.reads["everywhere"][1]
        assert (version, rows) == (1, earlier + 3)
        for view in ("depot_delays", "everywhere"):
            after.reads[view] = (version, earlier, offset)
        _, values = again(workspace, after)
        assert values["everywhere__count_7d"] == old.features["everywhere__count_7d"]


def test_a_record_from_before_versions_were_noted_says_so(project, monkeypatch):
    """The newest rows are read, which may give other values."""
    original = servant.DecisionRecord
    monkeypatch.setattr(servant, "DecisionRecord", lambda **fields: original(**fields | {"reads": {}}))
    decision = decided(project)[0]
    assert decision.replay().exact
    project.data.ingest("parcels", late_rows())
    replay = decision.replay()
    assert replay.verdict == "different"
    assert "from before it was noted which versions were read" in replay.reason


def many(project):
    """25 decisions, an hour apart."""
    moments = [AT + timedelta(hours=place) for place in range(9)]
    return [project.decide("promise", depot=depot, at=at) for at in moments for depot in DEPOTS][:25]


def replays(decisions):
    """Exact ones, and those that say what is gone; there is no third kind."""
    shown = [decision.replay() for decision in decisions]
    sentences = ("was deleted by a vacuum (entry", "was rewritten without a subject")
    others = [one for one in shown if one.verdict == "not replayable" and any(text in one.reason for text in sentences)]
    exact = [replay for replay in shown if replay.exact]
    assert len(exact) + len(others) == len(decisions)
    return len(exact), len(others)


def test_of_25_decisions_those_replay_whose_rows_are_there(project):
    """Late rows, a replaced dimension, rollbacks, a vacuum, an erasure: all; then what is gone is told."""
    project.data.ingest("parcels", late_rows())  # so that no run keeps what was read
    decisions = many(project)
    project.data.ingest("parcels", late_rows("y"))
    assert replays(decisions) == (25, 0)
    project.data.ingest("depots", dimension(1, 1, 1), replace=True)
    assert replays(decisions) == (25, 0)
    project.data.rollback("parcels", to="0", reason="test")
    project.data.rollback("depots", to="0", reason="test")
    assert replays(decisions) == (25, 0)
    project.data.vacuum("depots", dry_run=False, older_than="0s")
    project.data.compact("parcels")
    assert replays(decisions) == (25, 0)
    project.features.erase("depot", key=["south"], reason="asked for", yes=True)
    assert replays(decisions) == (25, 0)
    project.features.erase("depot", key=["south"], reason="asked for", pinned=True, yes=True)
    assert replays(decisions) == (0, 25)  # every one reads a view about all


def test_a_bare_id_is_that_of_a_decision(project):
    """As answers carry it."""
    decision = decided(project)[0]
    assert project.lineage(decision.record.id).facts["decision"]["id"] == decision.ref


def test_ages_are_told_in_units():
    """Not in seconds that nobody reads."""
    assert _doubt("stale", 93_784.2) == "stale, newest event 1d2h3m4s before"
