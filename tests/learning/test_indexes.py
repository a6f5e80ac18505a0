"""Training through sorted indexes on disk: the same bytes, sorted once, whatever happens to the folder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.serving.project import DEFINITIONS, parcels

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.data.ingest import ingest
from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.offline import event_index as offline_indexes
from retrodict.features.offline import frame as offline_frame
from retrodict.features.offline.event_index import EventIndexes
from retrodict.learning import measure_leakage, replay_run, train
from retrodict.learning.frame import build_frame, tables_of
from retrodict.models.definitions import Model
from retrodict.workspace import Workspace

OUTCOME = """
from retrodict.features.labels import Outcome

busy = Outcome("busy", Entity("depot"), arrived, agg.count(over="24h"), wait="5d", table=parcels,
    expression="count_24h > 13")
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    text = DEFINITIONS.replace(
        'depot_delays = FeatureView("depot_delays"', OUTCOME + 'depot_delays = FeatureView("depot_delays"'
    )
    text += (
        '\nbusy_depot = Model("busy_depot", label=busy, decide_at="sent", features=[depot_delays, moment], '
        "recipe=late_parcel.recipe)\n"
    )
    (tmp_path / "definitions.py").write_text(text)
    with Workspace(tmp_path, actor="ana", clock=SimulatedClock(parse_time("2024-02-25T00:00Z"))) as opened:
        ingest(opened, "parcels", parcels())
        yield opened


@pytest.fixture
def sorts(monkeypatch):
    """Where events are sorted: by a frame, or for an index."""
    seen = []
    for module in (offline_frame, offline_indexes):

        def spy(plan, rows, *, ignore_known_at, own=module.prepare, name=module.__name__):
            if isinstance(rows, pa.Table):
                seen.append(name.rpartition(".")[2])
            return own(plan, rows, ignore_known_at=ignore_known_at)

        monkeypatch.setattr(module, "prepare", spy)
    return seen


def folder_of(project):
    return project.root / "state" / "indexes"


def digest_of(project, name="late_parcel", *, indexed=True, versions=None, **options):
    model = project.definitions.get(Model, name)
    indexes = EventIndexes.of(project) if indexed else None
    versions = versions or newest_versions(project.tables, tables_of(model), where="model")
    digest = build_frame(project.tables, model, versions, indexes=indexes, **options).digest()
    if indexes is not None:
        indexes.settle()
    return digest


@pytest.mark.parametrize("name", ["late_parcel", "busy_depot"])
@pytest.mark.parametrize("options", [{}, {"ignore_known_at": True}], ids=["two clocks", "one clock"])
def test_a_frame_is_the_same_bytes_with_and_without_indexes(project, name, options):
    """With an index that is made, with one that is there, with one that grew by appended rows, of an old version."""
    old = digest_of(project, name, indexed=False, **options)
    assert [digest_of(project, name, **options) for _ in range(2)] == [old, old]
    rows = project.tables.read("parcels")
    more = rows.slice(0, 300).set_column(0, "id", pa.array([f"x{n}" for n in range(300)]))
    project.tables.write("parcels", more)
    assert digest_of(project, name, **options) == digest_of(project, name, indexed=False, **options) != old
    assert digest_of(project, name, versions={"parcels": 0}, **options) == old


def test_the_second_training_sorts_nothing(project, sorts):
    """One version of a table is sorted once for all models and runs; a leakage report sorts its naive join only."""
    run, _ = train(project, "late_parcel")
    assert sorts == ["event_index"]
    train(project, "late_parcel")
    assert sorts == ["event_index"]
    measure_leakage(project, project.definitions.get(Model, "late_parcel"), run)
    assert sorts == ["event_index", "event_index"]


def test_a_replay_reads_the_tables_themselves(project, sorts):
    """An index that the run made would vouch for itself, so the replay sorts, and comes to the same bits."""
    run, _ = train(project, "busy_depot")
    sorts.clear()
    assert replay_run(project, run.ref).exact
    assert sorts == ["frame", "frame"]


def _break(folder, how):
    for path in folder.rglob("*.npy"):
        if how == "flipped":
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
        elif how == "gone":
            path.unlink()


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_damaged_index_breaks_no_training(project, how):
    """The frame is right at once, and the next one finds the index made anew."""
    expected = digest_of(project)
    _break(folder_of(project), how)
    told = []
    model = project.definitions.get(Model, "late_parcel")
    versions = newest_versions(project.tables, tables_of(model), where="model")
    for _ in range(3):
        indexes = EventIndexes.of(project, tell=told.append)
        assert build_frame(project.tables, model, versions, indexes=indexes).digest() == expected
        indexes.settle()
    assert 1 <= len(told) <= 2, "told of the damage or of the making, and then nothing more"


def test_damage_on_a_read_only_disk_breaks_no_training(project, monkeypatch):
    """What is damaged and cannot be removed is passed by, every time."""
    expected = digest_of(project)
    _break(folder_of(project), "flipped")

    def refuse(path, **_options):
        raise PermissionError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    assert [digest_of(project) for _ in range(2)] == [expected] * 2


def test_a_folder_that_cannot_be_written_breaks_no_training(project):
    """Here a file stands in the folder's place; a read-only disk and a full one end in the same kind of error."""
    expected = digest_of(project, indexed=False)
    folder_of(project).parent.mkdir(exist_ok=True)
    folder_of(project).write_text("")
    told = []
    model = project.definitions.get(Model, "late_parcel")
    versions = newest_versions(project.tables, tables_of(model), where="model")
    frame = build_frame(project.tables, model, versions, indexes=EventIndexes.of(project, tell=told.append))
    assert frame.digest() == expected
    assert [sentence.partition(" (")[0] for sentence in told] == ["the index of table parcels cannot be written"]
    assert train(project, "busy_depot")[0].status == "finished"


def test_a_full_disk_leaves_no_half_index(project, monkeypatch):
    """What was written before the disk was full is removed, and the frame is made without an index."""
    expected = digest_of(project, indexed=False)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        assert digest_of(project) == expected
    assert not [path for path in folder_of(project).rglob("*") if path.is_file() and path.suffix != ".lock"]
