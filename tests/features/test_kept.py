"""Frames that are kept as tables: the same values as one training frame, each row computed once, nothing mixed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import BusyError, InputError, NotFoundError
from retrodict.data.sources import Source
from retrodict.data.versions import compact, rollback
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.derived import derived
from retrodict.features.offline import batches, kept_writer, training_frame, work
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.kept_frame import find_frame, frame_rows, kept_frames
from retrodict.features.offline.kept_writer import keep_frame
from retrodict.features.offline.spine import Spine
from retrodict.features.offline.work import local_work
from retrodict.features.plan import FeatureSet
from retrodict.testing import feature_worlds as worlds
from retrodict.workspace import Workspace

HOUR = 60 * worlds.MINUTE
EVENTS = SimpleNamespace(name="events")
SOURCE = Source("happened", EVENTS, event_time="t", known_at="seen", sequence="id")
FEATURES = FeatureSet([FeatureView("v", Entity("k"), SOURCE, [latest("x"), agg.count(over="1h")])])
MAPS = FeatureSet(
    [FeatureView("m", Entity("k"), SOURCE, [agg.histogram("word", over="9h"), agg.by("word", "mean", "x", over="9h")])]
)


def events(start=0, stop=400, late=0):
    """One event every 12 minutes, each known at once or some hours late."""
    numbers = range(start, stop)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "k": [f"key {n % 7}" for n in numbers],
            "t": pa.array([n * HOUR // 5 for n in numbers], worlds.TIME),
            "seen": pa.array([n * HOUR // 5 + late * HOUR for n in numbers], worlds.TIME),
            "x": [float(n) for n in numbers],
            "word": ["ab"[n % 2] if n % 3 else None for n in numbers],
        }
    )


def spine_rows(rows=20, start=0):
    """Requests until hour 80, some without a key, some for keys that nobody has."""
    return pa.table(
        {
            "id": pa.array(range(start, start + rows), pa.int64()),
            "k": pa.array([f"key {n % 9}" if n % 5 else None for n in range(start, start + rows)], pa.string()),
            "q": pa.array([(n * 37 % 80) * HOUR for n in range(start, start + rows)], worlds.TIME),
        }
    )


def spine_of(table, ref="batch:1"):
    return Spine(lambda: table.to_reader(max_chunksize=3), table.num_rows, ref, "memory")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with 400 events; pieces of 4 rows, versions of 8."""
    monkeypatch.setattr(batches, "_PIECE", 4)
    monkeypatch.setattr(work, "_TOGETHER", 6)
    monkeypatch.setattr(kept_writer, "_COMMIT", 8)
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "kept"\n')
    (tmp_path / "definitions.py").write_text("")
    with Workspace(tmp_path) as opened:
        opened.tables.write("events", events())
        yield opened


def keep(project, spine=None, features=FEATURES, *, anew=False, at="q", columns=None):
    work = local_work(project, at, features, columns)
    return keep_frame(project, "kept", spine_of(spine_rows() if spine is None else spine), work, anew=anew)


def expected(project, spine=None, features=FEATURES):
    rows = {"happened": project.tables.read("events")}
    return training_frame(spine_rows() if spine is None else spine, "q", features, rows)


def test_a_kept_frame_is_the_training_frame(project):
    """Rows, order and values are those of one frame, also of a spine without rows."""
    assert keep(project, spine_rows(0)).rows == 0
    made = keep(project)
    assert (made.rows, made.computed, made.version) == (20, 20, 3)
    assert frame_rows(project, "kept").read_all() == expected(project)


def test_only_new_rows_of_a_spine_are_computed(project):
    """More rows at the end: the rest stays as it lies; nothing new: nothing is written."""
    keep(project, spine_rows(12))
    before = {file.path for file in project.tables.files("kept")}
    made = keep(project)
    assert (made.rows, made.computed) == (20, 8)
    assert before < {file.path for file in project.tables.files("kept")}
    assert frame_rows(project, "kept").read_all() == expected(project)
    again = keep(project)
    assert (again.version, again.computed, again.origin) == (made.version, 0, made.origin)


def test_a_frame_grows_while_its_tables_grow(project):
    """Events that nobody could have known at the rows that are there leave them; new rows see the new events."""
    keep(project, spine_rows(12))
    unseen = events(360, 370, late=10)  # happened before the latest request, known after it
    project.tables.write("events", unseen.set_column(0, "id", pa.array(range(1000, 1010))))
    project.tables.write("events", events(400, 600))
    later = spine_rows(12).set_column(2, "q", pa.array([(90 + n) * HOUR for n in range(12)], worlds.TIME))
    grown = pa.concat_tables([spine_rows(12), later])
    made = keep(project, grown)
    assert (made.rows, made.computed) == (24, 12)
    assert made.origin["sources"]["happened"]["version"] == 2
    assert frame_rows(project, "kept").read_all() == expected(project, grown)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12), st.booleans()), min_size=1, max_size=4))
def test_rows_stay_only_where_all_anew_would_be_the_same(batches):
    """Whatever is appended in between, a frame that grew is the frame of now, or its growth was refused."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_writer, "_COMMIT", 2)
        Path(folder, "retrodict.toml").write_text('[project]\nname = "kept"\n')
        Path(folder, "definitions.py").write_text("")
        with Workspace(folder) as project:
            project.tables.write("events", events(0, 10))
            spine, number = spine_rows(0), 10
            for asked, happened, delayed in batches:
                at = pa.array([asked * HOUR + worlds.MINUTE], worlds.TIME)
                spine = pa.concat_tables([spine, spine_rows(1, len(spine) + 1).set_column(2, "q", at)])
                try:
                    keep(project, spine)
                except InputError as error:
                    assert "could have been seen" in str(error)  # noqa: PT017
                    keep(project, spine, anew=True)
                assert frame_rows(project, "kept").read_all() == expected(project, spine)
                moved = pa.array([happened * HOUR], worlds.TIME)
                row = events(number, number + 1).set_column(2, "t", moved)
                seen = pa.array([(happened + 3 * delayed) * HOUR], worlds.TIME)
                project.tables.write("events", row.set_column(3, "seen", seen))
                number += 1


def test_a_damaged_index_costs_time_only(project):
    """Bytes that were altered under an index are found in the middle of a frame, which reads the tables then."""
    keep(project, spine_rows(4))
    EventIndexes.of(project).settle()
    for path in (project.root / "state" / "indexes").rglob("*"):
        if path.is_file() and path.suffix not in {".json", ".lock"}:
            path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    assert keep(project).computed == 16
    assert frame_rows(project, "kept").read_all() == expected(project)


REFUSED = {
    "features": "features: changed v",
    "columns": "columns: removed v__count_1h",
    "spine": "does not begin with the rows",
    "shorter": "does not begin with the rows",
    "spine columns": "columns of the spine: added more",
    "late events": "2 rows of table events that came since version 0 could have been seen",
    "rewritten": "table events was rewritten since version 0",
    "foreign rows": "was not written by this command",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_frame_of_something_else_is_refused_or_made_anew(project, what):
    """Nothing is mixed: the message says what differs; with ``anew`` every row is computed, as a new version."""
    keep(project)
    given = {"spine": spine_rows(), "features": FEATURES, "columns": None}
    if what == "features":
        other = [latest("x", max_age="1d"), agg.count(over="1h")]
        given["features"] = FeatureSet([FeatureView("v", Entity("k"), SOURCE, other)])
    elif what == "columns":
        given["columns"] = ["v__latest_x"]
    elif what == "spine":
        given["spine"] = spine_rows().take([1, 0, *range(2, 20)])
    elif what == "shorter":
        given["spine"] = spine_rows(19)
    elif what == "spine columns":
        given["spine"] = spine_rows().append_column("more", pa.array(range(20)))
    elif what == "late events":
        project.tables.write("events", events(373, 380))  # the latest request is at hour 75: the first two
    elif what == "rewritten":
        project.tables.write("events", events(), mode="overwrite")
    else:
        project.tables.write("kept", project.tables.read("kept").slice(0, 1))
    before = project.tables.history("kept")
    with pytest.raises(InputError, match=REFUSED[what]) as told:
        keep(project, **given)
    assert "--anew" in str(told.value)
    assert project.tables.history("kept") == before
    made = keep(project, **given, anew=True)
    assert made.computed == given["spine"].num_rows
    columns = [*given["spine"].column_names, *(given["columns"] or given["features"].columns)]
    rows = frame_rows(project, "kept").read_all()
    assert rows == expected(project, given["spine"], given["features"]).select(columns)


@pytest.mark.parametrize(("known_at", "refused"), [(None, True), ("seen", False)])
def test_facts_without_an_event_time(project, known_at, refused):
    """More of them may change every row, unless they say when they were known."""
    source = Source("happened", EVENTS, known_at=known_at)
    features = FeatureSet([FeatureView("v", Entity("k"), source, [latest("x")])])
    keep(project, features=features)
    project.tables.write("events", events(390, 410))
    if refused:
        with pytest.raises(InputError, match="facts without a time count at every time"):
            keep(project, features=features)
    made = keep(project, spine_rows(25), features, anew=refused)
    assert made.computed == (25 if refused else 5)
    assert frame_rows(project, "kept").read_all() == expected(project, spine_rows(25), features)


def test_functions_beside_the_definitions_count(project):
    """A derived function may call them, so a frame with one is not mixed when they change; any other edit is fine."""

    @derived
    def more(v__latest_x):
        return {"twice": v__latest_x * 2}

    features = FeatureSet([*FEATURES.features, more])
    keep(project, spine_rows(8), features)
    (project.root / "definitions.py").write_text("# another comment\n")
    assert keep(project, spine_rows(12), features).computed == 4
    assert frame_rows(project, "kept").read_all() == expected(project, spine_rows(12), features)
    (project.root / "beside.py").write_text("factor = 3\n")
    with pytest.raises(InputError, match="Python files beside the definitions changed"):
        keep(project, spine_rows(16), features)


def test_maps_come_back_as_they_were(project):
    """A histogram is a list of pairs in the table, null and empty apart, and a map again when the frame is read."""
    keep(project, features=MAPS)
    rows = frame_rows(project, "kept").read_all()
    rows.validate(full=True)
    assert rows == expected(project, features=MAPS)
    assert rows.schema == expected(project, features=MAPS).schema
    kept = project.tables.read("kept").column("m__histogram_word_9h").to_pylist()
    assert {type(value) for value in kept} == {list, type(None)}
    found = next(value for value in kept if value)
    assert sorted(found[0]) == ["key", "value"]
    assert keep(project, spine_rows(25), MAPS).computed == 5
    assert frame_rows(project, "kept").read_all() == expected(project, spine_rows(25), MAPS)


def test_compacting_and_going_back_keep_the_origin(project):
    """A frame in fewer files, and one that was rolled back, say what they hold and grow on from there."""
    keep(project, spine_rows(8))
    keep(project, spine_rows(12))
    compact(project, "kept")
    assert keep(project, spine_rows(16)).computed == 4
    rollback(project, "kept", 0, "too far")
    assert find_frame(project, "kept").rows == 8
    assert keep(project).computed == 12
    assert frame_rows(project, "kept").read_all() == expected(project)


def test_the_ledger_says_what_a_frame_was_made_from(project):
    """Tables with their versions, spine, view and code, for every version; the chain stays sound."""
    made = keep(project, spine_rows(12))
    up = {(role, source) for target, role, source in project.ledger.upstream("dataset:kept@1")}
    view = f"view:v@{FEATURES.features[0].version}"
    assert {("spine", "batch:1"), ("source rows", "dataset:events@0"), ("definition", view)} < up
    assert ("code", f"code:{made.origin['code']['object']}") in up
    entries = project.ledger.entries(action="dataset.version")
    assert [entry.object_id for entry in entries] == ["dataset:kept@0", "dataset:kept@1"]
    assert entries[1].payload["batch"] in project.tables.read("kept").column("_batch").to_pylist()


def test_a_frame_is_found_by_name(project):
    """Near names for an unknown one; tables of something else are no frames, and are not overwritten."""
    keep(project)
    assert [frame.name for frame in kept_frames(project)] == ["kept"]
    with pytest.raises(NotFoundError, match="Did you mean the frame 'kept'"):
        find_frame(project, "kep")
    with pytest.raises(InputError, match="must hold nothing else"):
        keep_frame(project, "events", spine_of(spine_rows()), local_work(project, "q", FEATURES))
    named = spine_rows().append_column("_batch", pa.array(["b"] * 20))
    with pytest.raises(InputError, match=r"must leave this column.*'_batch'"):
        keep(project, named)


def test_a_writer_elsewhere_is_noticed(project, monkeypatch):
    """Another machine that writes the table meanwhile: the one that comes second says so, and how to go back."""
    keep(project, spine_rows(8))
    write = project.tables.write

    def meanwhile(name, *args, **more):
        monkeypatch.setattr(project.tables, "write", write)
        write("kept", project.tables.read("kept").slice(0, 1))
        return write(name, *args, **more)

    monkeypatch.setattr(project.tables, "write", meanwhile)
    with pytest.raises(BusyError, match="rollback kept --to 0"):
        keep(project, spine_rows(12))


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {here!r})
import test_kept
from retrodict.features.offline import batches, kept_writer
from retrodict.workspace import Workspace
batches._PIECE, kept_writer._COMMIT = 4, 8
project = Workspace({root!r})
write = project.tables.write
def killed(*args, **more):
    number = write(*args, **more) if {after} else -1
    if len(project.tables.history("kept")) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number if {after} else write(*args, **more)
project.tables.write = killed
test_kept.keep(project)
"""


@pytest.mark.parametrize("after", [False, True])
def test_a_killed_process_is_resumed(project, after):
    """Parts that were committed stay and get the ledger entry they lack; only the rest is computed afterwards."""
    script = textwrap.dedent(SCRIPT).format(here=str(Path(__file__).parent), root=str(project.root), after=after)
    killed = subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert killed.returncode == -signal.SIGKILL
    assert not find_frame(project, "kept").origin["complete"]
    made = keep(project)
    assert (made.rows, made.computed, made.origin["complete"]) == (20, 4, True)
    assert frame_rows(project, "kept").read_all() == expected(project)
    entries = [entry.object_id for entry in project.ledger.entries(action="dataset.version")]
    assert entries == ["dataset:kept@0", "dataset:kept@1", "dataset:kept@2"]
    assert json.dumps(made.to_dict())
