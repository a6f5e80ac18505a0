"""Frames of any length, piece by piece: the same values as one frame, each row once."""

import pyarrow as pa
import pytest
from hypothesis import given, settings

from retrodict.core.errors import InputError, InternalError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.offline import batches, training_frame
from retrodict.features.offline.batches import frame_batches
from retrodict.features.plan import FeatureSet
from retrodict.testing import feature_worlds as worlds

HOUR = 60 * worlds.MINUTE


@settings(max_examples=30, deadline=None)
@given(worlds.views(), worlds.histories, worlds.requests)
def test_pieces_are_the_whole(view, events, queries):
    """Pieces of three rows on two threads, put together, are the frame of the whole spine, bit for bit."""
    features, spine = FeatureSet([view]), worlds.spine_table(queries)
    sources = {"s": worlds.events_table(events)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_PIECE", 3)
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
def small(monkeypatch):
    """Pieces of four rows."""
    monkeypatch.setattr(batches, "_PIECE", 4)


def test_a_reader_of_small_batches_is_cut_anew(small):
    """Batches of the spine and pieces of the frame have nothing to do with each other."""
    spine = _spine()
    reader = pa.RecordBatchReader.from_batches(spine.schema, spine.to_batches(max_chunksize=3))
    pieces = list(frame_batches(reader, "q", FEATURES, {"happened": _events()}))
    assert [piece.num_rows for piece in pieces] == [4] * 5
    assert pa.concat_tables(pieces) == training_frame(spine, "q", FEATURES, {"happened": _events()})


def test_events_are_prepared_once(small, monkeypatch):
    """However many pieces a spine has, the source's rows are read and sorted once."""
    asked = []
    prepare = batches.MemoryEvents.__init__.__globals__["read_events"]
    monkeypatch.setitem(
        batches.MemoryEvents.__init__.__globals__, "read_events", lambda *a, **k: asked.append(1) or prepare(*a, **k)
    )
    assert len(list(frame_batches(_spine(), "q", FEATURES, {"happened": _events()}))) == 5
    assert asked == [1]


def test_an_error_of_a_piece_is_the_callers(small):
    """A spine that does not fit is refused with the same words as by training_frame."""
    with pytest.raises(InputError, match="every row of a spine must have its time"):
        list(frame_batches(_spine().append_column("late", pa.nulls(20, worlds.TIME)), "late", FEATURES, {}))


def test_a_frame_that_lost_a_row_is_no_frame(monkeypatch):
    """Rows in are rows out: an engine that drops one is stopped, not believed."""
    monkeypatch.setattr(batches, "training_frame", lambda piece, *rest: training_frame(piece, *rest).slice(1))
    spine = pa.table({"k": ["key 1", "key 2"], "q": pa.array([HOUR, 2 * HOUR], worlds.TIME)})
    with pytest.raises(InternalError, match="a frame must hold the rows of its spine; got 1"):
        list(frame_batches(spine, "q", FEATURES, {"happened": _events(5)}))
