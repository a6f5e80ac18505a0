"""No answer from absent or stale state without a word: what is behind is brought up to date, or said."""

from __future__ import annotations

import shutil
from datetime import timedelta
from time import monotonic

import pyarrow as pa
import pytest
from tests.serving.project import DEFINITIONS, make_project, parcels
from tests.serving.test_server import Server

from retrodict.core.clock import parse_time
from retrodict.core.errors import RefusedError, RetrodictError
from retrodict.data.ingest import ingest
from retrodict.decisions import find_decision, replay_decision
from retrodict.decisions.definitions import Policy
from retrodict.rollout import deploy
from retrodict.serving import Decider
from retrodict.workspace import Workspace

VALUES = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
AT = parse_time("2024-02-20T10:00Z")
REQUIRE = 'Policy("promise", late_parcel, require={"depot_delays": "fresh 30d"}, '


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("parcels")
    make_project(root).close()
    return root


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "parcels")


def later(count, first=10_000):
    """Parcels of the north depot that arrived in the hours before the decision."""
    template = [row for row in parcels().to_pylist() if row["depot"] == "north"][-1]
    hours = [timedelta(hours=number + 1) for number in range(count)]
    moment = template["sent"].__class__.fromisoformat("2024-02-20T10:00:00+00:00")
    rows = [template | {"id": f"q{first + n}", "arrived": moment - hour, "sent": moment - hour - timedelta(hours=1)}
            for n, hour in enumerate(hours)]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=parcels().schema)


def test_rows_that_were_ingested_count_in_the_next_decision(root):
    """Without a build in between, once each, and the replay agrees."""
    with Workspace(root) as workspace, Decider(workspace) as decider:
        before = decider.decide("promise", VALUES, at=AT)
        ingest(workspace, "parcels", later(5))
        after = decider.decide("promise", VALUES, at=AT)
        name = next(name for name in after.features if "count" in name)
        assert (before.views, after.views) == ({}, {})
        assert after.features[name] == before.features[name] + 5
        assert replay_decision(workspace, after.id).exact


def test_a_decision_from_a_state_that_is_behind_says_so(root, caplog):
    """The table cannot be read: the answer, its record and its replay name the view."""
    with Workspace(root) as workspace, Decider(workspace) as decider:
        decider.decide("promise", VALUES, at=AT)
        ingest(workspace, "parcels", later(5))
        file = max(root.rglob("parcels/*.parquet"), key=lambda path: path.stat().st_mtime_ns)
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        decider.decide("promise", VALUES, at=AT)
        record = decider.decide("promise", VALUES, at=AT)
        assert len([line for line in caplog.messages if "cannot be brought up to date" in line]) == 1
        file.write_bytes(content)
        assert record.views["depot_delays"]["status"] == "behind"
        assert record.answer()["views"]["depot_delays"]["age_s"] > 0
        replayed = replay_decision(workspace, record.id)
        assert replayed.exact  # by the rows that the state had
        assert "not all was read of depot_delays (behind)" in replayed.reason


def test_a_policy_falls_back_unless_its_views_are_fresh(root):
    """Fresh enough: the score decides; too old: the fallback, and the record says which view and how old."""
    definitions = DEFINITIONS.replace('Policy("promise", late_parcel, ', REQUIRE)
    assert definitions != DEFINITIONS
    (root / "definitions.py").write_text(definitions)
    with Workspace(root, actor="ana") as workspace, Decider(workspace) as decider:
        deploy(workspace, "promise")
        assert decider.decide("promise", VALUES, at=AT).fallback is None
        late = decider.decide("promise", VALUES | {"sent": "2024-08-20T10:00Z"}, at=parse_time("2024-08-20T10:00Z"))
        assert (late.error, late.score) == ("StaleStateError", None)
        assert late.views["depot_delays"]["status"] == "stale"
        assert late.views["depot_delays"]["age_s"] > 30 * 86_400


def test_a_decision_whose_state_cannot_be_read_names_its_views(root):
    """The state is cut into another number of partitions: the fallback answers, and says that nothing was read."""
    with (root / "retrodict.toml").open("a") as settings:
        settings.write("[features]\npartitions = 3\n")
    with Workspace(root) as workspace, Decider(workspace) as decider:
        record = decider.decide("promise", VALUES, at=AT)
        assert (record.error, record.fallback) == ("ConfigurationError", "ok")
        assert record.answer()["views"] == {"depot_delays": {"status": "not_read", "age_s": None}}


def test_a_state_that_was_never_built_is_not_deployed(root):
    """Refused with the command to run; a reason lets it pass, and stands in the ledger."""
    shutil.rmtree(root / "state" / "keys", ignore_errors=True)
    with Workspace(root, actor="ana") as workspace:
        with pytest.raises(
            RefusedError, match=r"must have been built; got \['depot_delays'\]. Run: retrodict features build"
        ):
            deploy(workspace, "promise")
        deploy(workspace, "promise", force="a drill")
        (entry,) = workspace.ledger.entries(action="features.unbuilt")
        assert entry.payload["reason"] == "a drill"
        with Decider(workspace) as decider:  # builds it
            assert decider.decide("promise", VALUES, at=AT).views == {}


@pytest.mark.parametrize(
    ("require", "message"),
    [({"depot_delay": "fresh 1h"}, "Did you mean the view 'depot_delays'"),
     ({"depot_delays": "1h"}, "must be required to be fresh"), ({"depot_delays": "fresh soon"}, "duration")],
)  # fmt: skip
def test_a_requirement_is_checked_where_it_is_written(root, require, message):
    """Unknown views with near names, other rules, and durations that are none."""
    with Workspace(root) as workspace:
        policy = workspace.definitions.get(Policy, "promise")
        with pytest.raises(RetrodictError, match=message):
            Policy("promise", policy.model, decide=policy.decide, require=require)
        assert (
            Policy("promise", policy.model, decide=policy.decide).version
            != Policy("promise", policy.model, decide=policy.decide, require={"depot_delays": "fresh 1h"}).version
        )


def test_a_server_follows_the_table_while_it_runs(root):
    """Rows that are ingested beside it count without a restart; until then its answers say that it is behind."""
    server = Server(root, "--replay")
    try:
        with Workspace(root) as workspace:
            status, before = server.decide()
            assert (status, "views" in before) == (200, False)
            ingest(workspace, "parcels", later(5))
            until, count = monotonic() + 30, 0
            while monotonic() < until and not count:
                record = find_decision(workspace, server.decide()[1]["decision_id"]).record
                count = record.features["depot_delays__count_24h"]
            assert count == 5
            assert server.send("GET", "/readyz")[1]["status"] == "ready"
    finally:
        server.stop()
