"""Frames of any length, piece by piece, and frames that are kept: the same values as one frame, each row once."""

import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings

from retrodict.core.errors import BusyError, InputError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.derived import derived
from retrodict.features.offline import frames, training_frame
from retrodict.features.offline.frames import frame_batches, keep_frame
from retrodict.features.offline.indexes import EventIndexes
from retrodict.features.plan import FeatureSet
from retrodict.stores.tables.delta import DeltaTables
from retrodict.testing import feature_worlds as worlds

HOUR = 60 * worlds.MINUTE


@settings(max_examples=30, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests)
def test_pieces_are_the_whole(view, events, queries):
    """Pieces of three rows on two threads, put together, are the frame of the whole spine, bit for bit."""
    features, spine = FeatureSet([view]), worlds.spine_table(queries)
    sources = {"s": worlds.events_table(events)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_PIECE", 3)
        pieces = list(frame_batches(spine, "q", features, sources, threads=2))
    assert [piece.num_rows for piece in pieces[:-1]] == [3] * (len(pieces) - 1)
    whole = training_frame(spine, "q", features, sources)
    assert repr(pa.concat_tables(pieces).to_pylist()) == repr(whole.to_pylist())


SOURCE = Source("happened", worlds.table, event_time="t")
VIEW = FeatureView("v", Entity("k"), SOURCE, [latest("x"), agg.count(over="1h")])
FEATURES = FeatureSet([VIEW])


def _events(rows=500):
    return pa.table(
        {
            "k": [f"key {n % 7}" for n in range(rows)],
            "t": pa.array([n * HOUR // 5 for n in range(rows)], worlds.TIME),
            "x": [float(n) for n in range(rows)],
        }
    )


def _spine(rows=20):
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "k": pa.array([f"key {n % 9}" if n % 5 else None for n in range(rows)], pa.string()),
            "q": pa.array([(n * 37 % 90) * HOUR for n in range(rows)], worlds.TIME),
        }
    )


@pytest.fixture
def tables(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "_PIECE", 4)
    monkeypatch.setattr(frames, "_COMMIT", 8)
    return DeltaTables(tmp_path / "tables")


def test_a_reader_of_small_batches_is_cut_anew(tables):
    """Batches of the spine and pieces of the frame have nothing to do with each other."""
    spine = _spine()
    reader = pa.RecordBatchReader.from_batches(spine.schema, spine.to_batches(max_chunksize=3))
    pieces = list(frame_batches(reader, "q", FEATURES, {"happened": _events()}))
    assert [piece.num_rows for piece in pieces] == [4] * 5
    assert pa.concat_tables(pieces) == training_frame(spine, "q", FEATURES, {"happened": _events()})


def test_events_are_prepared_once(tables, monkeypatch):
    """However many pieces a spine has, the source's rows are read and sorted once."""
    asked = []
    prepare = frames.HeldEvents.__init__.__globals__["read_events"]
    monkeypatch.setitem(
        frames.HeldEvents.__init__.__globals__, "read_events", lambda *a, **k: asked.append(1) or prepare(*a, **k)
    )
    assert len(list(frame_batches(_spine(), "q", FEATURES, {"happened": _events()}))) == 5
    assert asked == [1]


def test_an_error_of_a_piece_is_the_callers(tables):
    """A spine that does not fit is refused with the same words as by training_frame."""
    with pytest.raises(InputError, match="every row of a spine has its time"):
        list(frame_batches(_spine().append_column("late", pa.nulls(20, worlds.TIME)), "late", FEATURES, {}))


def _kept(tables, spine, features=FEATURES, events=None, **more):
    return keep_frame(tables, "kept", spine, "q", features, {"happened": events or _events()}, **more)


def test_a_kept_frame_is_the_training_frame(tables):
    """Rows, order and values are those of one frame, also of a spine without rows."""
    assert _kept(tables, _spine(0)).rows == 0
    made = _kept(tables, _spine())
    assert (made.rows, made.computed, made.version) == (20, 20, 3)
    assert tables.read("kept") == training_frame(_spine(), "q", FEATURES, {"happened": _events()})


def test_only_new_rows_of_a_spine_are_computed(tables):
    """More rows at the end: the rest stays; nothing new: nothing is written."""
    _kept(tables, _spine(12))
    made = _kept(tables, lambda: _spine(20).to_reader(max_chunksize=5))
    assert (made.rows, made.computed) == (20, 8)
    assert tables.read("kept") == training_frame(_spine(), "q", FEATURES, {"happened": _events()})
    again = _kept(tables, _spine(20))
    assert (again.version, again.computed) == (made.version, 0)
    assert again.origin == made.origin


@pytest.mark.parametrize("what", ["features", "events", "code", "spine", "compacted"])
def test_a_frame_of_something_else_is_made_anew(tables, what):
    """Other features, other rows of a source, other code, another beginning of the spine: every row is computed."""
    _kept(tables, _spine(), code="one")
    given = {"spine": _spine(), "features": FEATURES, "events": _events(), "code": "one"}
    if what == "features":
        given["features"] = FeatureSet([FeatureView("v", Entity("k"), SOURCE, [latest("x", max_age="1d")])])
    elif what == "events":
        given["events"] = _events(501)
    elif what == "code":
        given["code"] = "two"
    elif what == "spine":
        given["spine"] = _spine().take([1, 0, *range(2, 20)])
    else:
        tables.compact("kept")
    made = _kept(tables, **given)
    assert made.computed == 20
    assert tables.read("kept") == training_frame(given["spine"], "q", given["features"], {"happened": given["events"]})


def test_another_version_of_a_source_makes_a_frame_anew(tables, tmp_path):
    """The origin names the table's version; more rows of the source may change any row of the frame."""
    tables.write("events", _events(400))
    indexes = EventIndexes(tables, tmp_path / "indexes")
    made = keep_frame(tables, "kept", _spine(), "q", FEATURES, indexes.sources(FEATURES))
    assert made.origin["sources"]["happened"].startswith("dataset:events@0 ")
    tables.write("events", _events().slice(400))
    again = keep_frame(tables, "kept", _spine(), "q", FEATURES, indexes.sources(FEATURES))
    assert again.computed == 20
    assert tables.read("kept") == training_frame(_spine(), "q", FEATURES, {"happened": _events()})


def test_a_table_of_something_else_is_not_overwritten(tables):
    """A name that is taken by an ordinary table is refused."""
    tables.write("kept", _events())
    with pytest.raises(InputError, match="holds nothing else"):
        _kept(tables, _spine())


def test_a_second_writer_is_told(tables, monkeypatch):
    """Two processes that keep one frame at once: the one that comes second says so and how to go back."""
    _kept(tables, _spine(8))
    write = tables.write

    def meanwhile(name, *args, **more):
        monkeypatch.setattr(tables, "write", write)
        _kept(tables, _spine(12))
        return write(name, *args, **more)

    monkeypatch.setattr(tables, "write", meanwhile)
    with pytest.raises(BusyError, match="Restore version 1 of the table"):
        _kept(tables, _spine(12))


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from retrodict.features.offline import frames
from retrodict.stores.tables.delta import DeltaTables
import test_frames
frames._PIECE, frames._COMMIT = 4, 8
given = test_frames._spine()
table = DeltaTables(Path({tables!r}))
write = table.write
def killed(*args, **more):
    if len(table.history("kept")) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args, **more)
table.write = killed
test_frames._kept(table, given)
"""


def test_a_killed_process_is_resumed(tables, tmp_path):
    """Parts that were committed stay; only the rest is computed afterwards."""
    script = SCRIPT.format(here=str(Path(__file__).parent), tables=str(tmp_path / "tables"))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    made = _kept(tables, _spine())
    assert (made.rows, made.computed) == (20, 4)
    assert tables.read("kept") == training_frame(_spine(), "q", FEATURES, {"happened": _events()})


def test_derived_features_come_along(tables):
    """Functions run piece by piece and give columns of one type."""

    @derived
    def more(v__latest_x):
        return {"twice": v__latest_x * 2}

    features = FeatureSet([VIEW, more])
    made = _kept(tables, _spine(), features)
    assert made.rows == 20
    assert tables.read("kept") == training_frame(_spine(), "q", features, {"happened": _events()})
