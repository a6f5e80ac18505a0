"""Update: rows take the place of those with their key, the others are added; one new version, and the old one stays."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict import FeatureView, Project
from retrodict.core.clock import to_micros
from retrodict.core.errors import InputError, RefusedError
from retrodict.data.context import WorkspaceContext
from retrodict.data.ingest import ingest
from retrodict.data.unpublished import release
from retrodict.data.versions import diff, rollback
from retrodict.features import FeatureSet
from retrodict.features.online import OnlineFeatures, build_online
from retrodict.ledger import verify
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Check, Entity, FeatureView, Source, Table, agg
subs = Table("subs", key=["shop", "id"], columns={"id": "int", "amount": "float", "ended": "time", "known": "time"},
             checks=[Check.between("amount", 0, 100), Check.not_null("shop", severity="critical", tolerance=0.5),
                     Check.not_null("amount", severity="critical", tolerance=0.2)])
log = Table("log", columns={"id": "int"})
endings = Source("endings", subs, event_time="ended", known_at="known")
ends = FeatureView("ends", Entity("shop"), endings, [agg.count(over="30d", name="ended")])
"""
OLD = [("a", 1, 1.0), ("a", 2, 2.0), ("b", 1, 3.0)]
NEW = [("b", 1, 4.0), ("c", 1, 5.0)]


def batch(rows: list[tuple[Any, ...]], **more: Any) -> pa.Table:
    shop, number, amount = zip(*rows, strict=True)
    empty = pa.nulls(len(rows), pa.timestamp("us", "UTC"))
    return pa.table({"shop": pa.array(shop, pa.string()), "id": pa.array(number, pa.int64()),
                     "amount": pa.array(amount, pa.float64()), "ended": empty, "known": empty, **more})  # fmt: skip


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    project = make_project(DEFINITIONS)
    ingest(project, "subs", batch(OLD))
    return project


def rows_of(project: Workspace, ref: str = "subs") -> list[tuple[Any, ...]]:
    name, _, version = ref.partition("@")
    rows = project.tables.read(name, int(version) if version else None).to_pylist()
    return [(row["shop"], row["id"], row["amount"]) for row in rows]


def test_rows_take_the_place_of_those_with_their_key(project: Workspace) -> None:
    """Report, ledger, lineage, the difference, and the old version say the same."""
    old = project.tables.read("subs", 0)
    report = ingest(project, "subs", batch(NEW), mode="update")
    assert (report.version, report.accepted, report.updated) == (1, 2, 1)
    assert "1 updated, 1 added" in str(report)
    assert rows_of(project) == [*OLD[:2], *NEW]
    assert project.tables.read("subs", 0) == old
    entry = project.ledger.entries(action="dataset.version")[-1]
    facts = [entry.payload[name] for name in ("mode", "updated", "added", "reasons")]
    assert facts == ["update", 1, 1, {}]
    assert ("dataset:subs@1", "previous version", "dataset:subs@0") in project.ledger.upstream("dataset:subs@1")
    change = diff(project, "subs@0", "subs@1")
    assert (change.added, change.removed, change.changed, change.changed_by_column["amount"]) == (1, 0, 1, 1)
    [changed] = [one for one in change.sample if one["change"] == "changed"]
    assert changed["key"] == {"shop": "b", "id": 1}
    assert "amount" in changed["columns"]
    assert not verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).findings


def test_the_same_rows_again_change_nothing(project: Workspace) -> None:
    """Until a later update took their place, or the table was rolled back."""
    first = ingest(project, "subs", batch(NEW), mode="update")
    again = ingest(project, "subs", batch(NEW), mode="update")
    assert again.already
    assert {**again.to_dict(), "already": False} == first.to_dict()
    assert ingest(project, "subs", batch(OLD)).already  # appended before, and its keys are there
    ingest(project, "subs", batch([("d", 1, 6.0)]))
    assert ingest(project, "subs", batch(NEW), mode="update").already
    assert ingest(project, "subs", batch(OLD), mode="update").version == 3
    assert dict.fromkeys(rows_of(project)) == dict.fromkeys([NEW[1], ("d", 1, 6.0), *OLD])
    assert ingest(project, "subs", batch(NEW), mode="update").version == 4
    rollback(project, "subs", 0, "as it was")
    assert ingest(project, "subs", batch(OLD), mode="update").already
    assert ingest(project, "subs", batch(NEW), mode="update").version == 6
    assert ingest(project, "subs", batch(NEW), mode="overwrite").version == 7


def test_what_an_append_set_aside_can_be_updated(project: Workspace) -> None:
    """The refusal and the report name the way; the very same batch is then not taken for done."""
    with pytest.raises(RefusedError, match=r"new_key\(shop, id\).*--update"):
        ingest(project, "subs", batch(NEW[:1]))
    report = ingest(project, "subs", batch(NEW))
    assert "--update" in str(report)
    assert ingest(project, "subs", batch(NEW), mode="update").updated == 2
    assert rows_of(project) == [*OLD[:2], *NEW]


def test_a_row_that_is_set_aside_leaves_the_old_one(project: Workspace) -> None:
    """A check that fails, a key twice in the batch: the first counts, as in every batch."""
    report = ingest(project, "subs", batch([("a", 1, 101.0), ("a", 2, 7.0), ("a", 2, 8.0)]), mode="update")
    assert (report.accepted, report.updated) == (1, 1)
    assert report.reasons == {"between(amount, 0, 100)": 1, "unique(shop, id)": 1}
    assert rows_of(project) == [OLD[0], OLD[2], ("a", 2, 7.0)]


def test_a_halted_update_can_be_released(project: Workspace) -> None:
    """Its rows take the place of what the table holds then."""
    with pytest.raises(RefusedError, match="not_null"):
        ingest(project, "subs", batch([("a", 1, None), ("b", 1, 9.0), ("e", 1, 9.0)]), mode="update")
    assert rows_of(project) == OLD
    ingest(project, "subs", batch([("e", 1, 1.0)]))
    assert release(project, "subs", 0, reason="checked by phone").updated == 2
    assert rows_of(project) == [*OLD[:2], ("b", 1, 9.0), ("e", 1, 9.0)]
    assert project.ledger.entries(action="dataset.version")[-1].payload["updated"] == 2


def test_what_cannot_be_updated_is_refused(project: Workspace) -> None:
    """No key, rows that are not whole, and both ways at once; each with the remedy."""
    with pytest.raises(InputError, match=r"must have a key.*Table\('log', key="):
        ingest(project, "log", pa.table({"id": [1]}), mode="update")
    with pytest.raises(InputError, match="whole rows"):
        ingest(project, "subs", batch(NEW), mode="update", fill_missing=True)
    with Project(project.root) as face, pytest.raises(InputError, match="not both"):
        face.data.ingest("subs", batch(NEW), update=True, replace=True)
    assert rows_of(project) == OLD


def test_columns_may_be_added_and_widened(make_project: Callable[..., Workspace]) -> None:
    """Rows that stay have null in a new column; a wider type holds the old values."""
    project = make_project('from retrodict import Table\nt = Table("t", key="id")\n')
    ingest(project, "t", pa.table({"id": pa.array([1, 2], pa.int32()), "x": pa.array([1, 2], pa.int32())}))
    with pytest.raises(InputError, match=r"must have every column of its table"):
        ingest(project, "t", pa.table({"id": [2]}), mode="update")
    report = ingest(project, "t", pa.table({"id": [2], "x": [2**40], "y": ["n"]}), mode="update")
    assert (report.updated, report.added, sorted(report.widened)) == (1, {"y": "string"}, ["id", "x"])
    rows = project.tables.read("t").select(["id", "x", "y"]).to_pylist()
    assert rows == [{"id": 1, "x": 1, "y": None}, {"id": 2, "x": 2**40, "y": "n"}]


def test_the_previous_batch_of_an_update_is_its_own_rows(project: Workspace) -> None:
    """Drift is judged by what arrived, not by the rows that were written with it."""
    ingest(project, "subs", batch(NEW), mode="update")
    previous = WorkspaceContext(project, "subs").previous()
    assert previous is not None
    assert previous.to_table()["amount"].to_pylist() == [4.0, 5.0]


def test_an_outcome_that_arrives_later_is_not_known_before(project: Workspace) -> None:
    """Indexes and frames follow the new version, by the clock of the row; the old version reads as before."""
    time = pa.timestamp("us", "UTC")
    ended = pa.array([pd.Timestamp("2024-02-01T00:00Z")], time)
    known = pa.array([pd.Timestamp("2024-02-10T00:00Z")], time)
    at = pd.to_datetime([f"2024-02-{day}T00:00Z" for day in ("05", "10", "11")])
    spine = pd.DataFrame({"shop": ["b"] * 3, "at": at})
    features = FeatureSet([project.definitions.get(FeatureView, "ends")])
    build_online(project, [features])
    with Project(project.root) as face:
        before = face.features.frame(spine, "ends", at="at")
        assert before["ends__ended"].to_list() == [0, 0, 0]
        face.data.ingest("subs", batch([("b", 1, 3.0)], ended=ended, known=known), update=True)
        after = face.features.frame(spine, "ends", at="at")
        assert after["ends__ended"].to_list() == [0, 0, 1]
        early = face.data.read("subs", known_at="2024-02-10T00:00Z")
        assert early.num_rows == 0
        assert face.data.read("subs", known_at="2024-02-10T00:00:01Z").num_rows == 1
    build_online(project, [features])
    online = OnlineFeatures(features, project.keys, partitions=project.config["features.partitions"])
    requests = [online.read_many([{"shop": "b"}], to_micros(at, where="test"))[0] for at in spine["at"][1:]]
    assert [row.values["ends__ended"] for row in requests] == [0, 1]


TURNS = itertools.count()
KEYS = st.tuples(st.sampled_from("ab"), st.integers(0, 4))
BATCH = st.dictionaries(KEYS, st.floats(0, 100), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(BATCH, min_size=1, max_size=4))
def test_updates_combine_by_key(batches: list[dict[Any, float]], make_project: Callable[..., Workspace]) -> None:
    """As pandas combines them, and every version stays what it was."""
    project = make_project(DEFINITIONS, folder=f"subs{next(TURNS)}")
    expected: pd.Series | None = None
    for rows in batches:
        new = pd.Series(rows)
        expected = new if expected is None else new.combine_first(expected)
        ingest(project, "subs", batch([(*key, value) for key, value in rows.items()]), mode="update")
        stored = {row[:2]: row[2] for row in rows_of(project)}
        assert stored == expected.to_dict()
        assert project.tables.read("subs").num_rows == len(expected)


def test_positions_hold_over_many_files_and_row_groups(make_project: Callable[..., Workspace]) -> None:
    """Every seventh row of a table of several files goes, and no other."""
    project = make_project('from retrodict import Table\nt = Table("t", key="id")\n')
    for start in range(0, 600_000, 200_000):
        ids = pa.array(range(start, start + 200_000)[::-1])
        ingest(project, "t", pa.table({"id": ids, "x": ids}))
    seventh = pa.array(range(0, 600_000, 7))
    report = ingest(project, "t", pa.table({"id": seventh, "x": pa.array([-1] * len(seventh))}), mode="update")
    assert report.updated == len(seventh)
    rows = project.tables.read("t", columns=["id", "x"]).to_pandas().set_index("id")["x"]
    assert rows.index.is_unique
    assert rows.sort_index().to_list() == [-1 if number % 7 == 0 else number for number in range(600_000)]


DEATH = """
import os, signal, sys
import pyarrow.parquet as pq
from retrodict.data.ingest import ingest
from retrodict.workspace import Workspace
dying, moment = Workspace(sys.argv[1]), sys.argv[2]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "entry":
    dying.ledger.transaction = die
elif moment == "read":
    dying.tables.batches = die
else:
    os.fsync = die
ingest(dying, "subs", pq.read_table(sys.argv[3]), mode="update")
"""


@pytest.mark.parametrize("moment", ["read", "write", "entry"])
def test_a_killed_update_leaves_the_old_version_or_all_of_the_new(
    project: Workspace, moment: str, tmp_path: Path
) -> None:
    """And the same call completes it."""
    pq.write_table(batch(NEW), tmp_path / "new.parquet")
    command = [sys.executable, "-c", DEATH, str(project.root), moment, str(tmp_path / "new.parquet")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert rows_of(project) == ([*OLD[:2], *NEW] if moment == "entry" else OLD)
    report = ingest(project, "subs", batch(NEW), mode="update")
    assert (report.already, report.version, report.updated) == (moment == "entry", 1, 1)
    assert rows_of(project) == [*OLD[:2], *NEW]
    assert project.ledger.entries(action="dataset.version")[-1].payload["updated"] == 1
    assert not verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables).findings
