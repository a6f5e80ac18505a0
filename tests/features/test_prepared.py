"""Prepared events: the same from a table, from memory, and from an index on disk, whatever happens to its files."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import IntegrityError, NotFoundError
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.facts.keys import KeyIndex
from retrodict.features.offline import event_index, training_frame
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.prepared import MemoryEvents
from retrodict.features.plan import FeatureSet
from retrodict.stores.tables.delta import DeltaTables
from retrodict.testing import feature_worlds as worlds

some_views = st.one_of(worlds.views(), worlds.wide_views(), worlds.wide_views(source=st.just(worlds.REVISED)))
quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _values(features, spine, sources, **options):
    frame = training_frame(spine, "q", features, sources, **options)
    return {name: [worlds.plain(v) for v in frame.column(name).to_pylist()] for name in features.columns}


def _table(view, events):
    return worlds.revisions_table(events) if view.source.revised else worlds.events_table(events)


def _through_an_index(features, spine, table):
    """Values by an index that was just made, and by the same one opened again."""
    with tempfile.TemporaryDirectory() as folder:
        tables = DeltaTables(Path(folder) / "tables")
        tables.write("events", table)
        for _ in range(2):
            yield _values(features, spine, EventIndexes(tables, Path(folder) / "indexes").sources(features))


@quick
@given(worlds.views(), worlds.histories, worlds.requests)
def test_an_index_gives_what_the_oracle_gives(view, events, queries):
    """Totals and latest values through an index equal the oracle, bit for bit."""
    features, table, spine = FeatureSet([view]), _table(view, events), worlds.spine_table(queries)
    expected = worlds.oracle_columns(features, spine, {"s": table})
    for found in _through_an_index(features, spine, table):
        assert repr(found) == repr(expected)


@quick
@given(some_views, worlds.moderate_histories, worlds.requests)
def test_an_index_gives_what_the_table_gives(view, events, queries):
    """Every aggregate, of revised sources too, is the same through an index as from the rows, bit for bit."""
    features, table, spine = FeatureSet([view]), _table(view, events), worlds.spine_table(queries)
    expected = _values(features, spine, {"s": table})
    for found in _through_an_index(features, spine, table):
        assert repr(found) == repr(expected)


@quick
@given(some_views, st.lists(worlds.moderate_histories, min_size=2, max_size=3), worlds.requests)
def test_an_index_that_grew_equals_one_made_anew(view, parts, queries):
    """Appended rows (new keys, redeliveries, late ones) are merged as if all rows had been there from the start."""
    whole, spine, features = (
        _table(view, list(chain.from_iterable(parts))),
        worlds.spine_table(queries),
        FeatureSet([view]),
    )
    with tempfile.TemporaryDirectory() as folder:
        tables, first = DeltaTables(Path(folder) / "tables"), 0
        for rows in parts:
            tables.write("events", whole.slice(first, len(rows)))
            first += len(rows)
            EventIndexes(tables, Path(folder) / "indexes").build(features)
        grown = EventIndexes(tables, Path(folder) / "indexes").sources(features)
        assert repr(_values(features, spine, grown)) == repr(_values(features, spine, {"s": whole}))


@quick
@given(some_views, worlds.moderate_histories, worlds.requests)
def test_held_events_give_the_same_again(view, events, queries):
    """Asking twice, and with one clock only, changes nothing of what the table itself gives."""
    features, table, spine = FeatureSet([view]), _table(view, events), worlds.spine_table(queries)
    held = {"s": MemoryEvents(table)}
    for ignore in (False, True, False):
        expected = _values(features, spine, {"s": table}, ignore_known_at=ignore)
        assert repr(_values(features, spine, held, ignore_known_at=ignore)) == repr(expected)


parts = st.lists(st.tuples(*[st.sampled_from(["a", "ab", "b", "", None])] * 3), max_size=25)


@settings(deadline=None)
@given(parts, parts)
def test_numbers_of_keys_survive_being_written(known, asked):
    """Distinct keys read again have their numbers, and every other key is found or not found as before."""
    columns = [pa.array([row[i] for row in known], pa.string()) for i in range(3)]
    index = KeyIndex(columns, where="test")
    again = KeyIndex.numbered(index.distinct(), where="test")
    spine = [pa.array([row[i] for row in asked], pa.string()) for i in range(3)]
    located = index.locate(spine, names="abc")
    assert located.tolist() == again.locate(spine, names="abc").tolist()
    numbers = {row: code for row, code in zip(known, index.codes.tolist(), strict=True) if None not in row}
    assert sorted(numbers.values()) == list(range(index.size))
    assert located.tolist() == [-1 if None in row else numbers.get(row, -2) for row in asked]


VIEW = FeatureView(
    "v",
    Entity("k"),
    Source("s", worlds.table, event_time="t", known_at="known"),
    [latest("x", "word"), agg.count(over="1h"), agg.mean("x", over=["1h", "1d"]), agg.max("x", over="1d")],
)
FEATURES = FeatureSet([VIEW])


def _events(rows, seed=0):
    rng = np.random.default_rng(seed)
    when = rng.integers(0, 10**12, rows)
    return pa.table(
        {
            "k": pa.array([f"key {n}" for n in rng.integers(0, 50, rows)]),
            "t": pa.array(when, worlds.TIME),
            "known": pa.array(when + rng.integers(0, 10**9, rows), worlds.TIME),
            "x": rng.normal(size=rows),
            "word": pa.array(["yes", "no", None] * rows).slice(0, rows),
        }
    )


def _spine(rows=200):
    return _events(rows, seed=1).select(["k", "t"]).rename_columns(["k", "q"])


@pytest.fixture
def place(tmp_path):
    tables = DeltaTables(tmp_path / "tables")
    tables.write("events", _events(3_000))
    return tables, tmp_path / "indexes"


def test_of_an_appended_table_only_the_new_file_is_read(place, monkeypatch):
    """The whole table is read for the first index only."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    tables.write("events", _events(100, seed=2))
    whole = tables.read("events")
    monkeypatch.setattr(tables, "read", None)
    grown = EventIndexes(tables, folder).sources(FEATURES)
    assert _values(FEATURES, _spine(), grown) == _values(FEATURES, _spine(), {"s": whole})


def test_an_index_of_other_columns_is_not_grown(place, monkeypatch):
    """Whatever lets a store append rows of other types: an index of the old ones is made anew, not merged with."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    tables.write("events", _events(100, seed=2))
    monkeypatch.setattr(tables, "schema", lambda *_: pa.schema([("k", pa.large_string())]))
    monkeypatch.setattr(event_index, "merge_prepared", None)
    grown = EventIndexes(tables, folder).sources(FEATURES)
    assert _values(FEATURES, _spine(), grown) == _values(FEATURES, _spine(), {"s": tables.read("events")})


def test_appended_rows_are_numbered_among_those_before(tmp_path):
    """A new pair of known parts moves the numbers of old keys, and of a tie the appended row is the newest."""
    rows = [("a", "y", 1), ("b", "x", 2), ("b", "y", 3), ("a", "x", 4), ("b", "x", 5)]
    table = pa.table(
        {
            "a": [r[0] for r in rows],
            "b": [r[1] for r in rows],
            "n": [r[2] for r in rows],
            "t": pa.array([9] * 5, worlds.TIME),
        }
    )
    source = Source("s", worlds.table, event_time="t")
    features = FeatureSet([FeatureView("v", Entity("pair", keys=["a", "b"]), source, [latest("n")])])
    tables = DeltaTables(tmp_path / "tables")
    for part in (table.slice(0, 3), table.slice(3)):
        tables.write("events", part)
        grown = EventIndexes(tables, tmp_path / "indexes").sources(features)
        grown["s"].prepared(features.views[0], ignore_known_at=False)
    spine = pa.table({"a": list("aabb"), "b": list("xyxy"), "q": pa.array([10] * 4, worlds.TIME)})
    assert _values(features, spine, grown) == {"v__latest_n": [4, 1, 5, 3]}


def test_an_index_belongs_to_a_version(place):
    """A frame over an older version sees that version's rows, after a newer one was indexed as well."""
    tables, folder = place
    old = tables.read("events")
    tables.write("events", _events(500, seed=3), mode="overwrite")
    indexes = EventIndexes(tables, folder)
    indexes.build(FEATURES)
    expected = _values(FEATURES, _spine(), {"s": old})
    assert _values(FEATURES, _spine(), indexes.sources(FEATURES, {"events": 0})) == expected


def test_what_was_vacuumed_is_not_served_from_an_index(place):
    """An index is no back door to rows that were deleted."""
    tables, folder = place
    indexes = EventIndexes(tables, folder)
    indexes.build(FEATURES)
    tables.write("events", _events(10), mode="overwrite")
    tables.vacuum("events", keep=[1])
    with pytest.raises(NotFoundError, match="was vacuumed"):
        _values(FEATURES, _spine(), indexes.sources(FEATURES, {"events": 0}))


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in {".npy", ".arrow", ".json"})


def _damage(path, how):
    data, stat = bytearray(path.read_bytes()), path.stat()
    if how == "cut":
        data = data[:-1]
    elif how == "gone":
        path.unlink()
        return
    else:
        data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damage_to_any_file_is_never_a_wrong_value(place, how):
    """One bit of any file, time stamps restored: an error or the right values, and the right values the next time."""
    tables, folder = place
    expected = _values(FEATURES, _spine(), {"s": tables.read("events")})
    EventIndexes(tables, folder).build(FEATURES)
    told = []
    for number in range(len(_files(folder))):
        _damage(_files(folder)[number], how)
        for _ in range(2):
            # An error is an answer, once.
            with contextlib.suppress(IntegrityError):
                sources = EventIndexes(tables, folder, tell=told.append).sources(FEATURES)
                assert _values(FEATURES, _spine(), sources) == expected
        found = _values(FEATURES, _spine(), EventIndexes(tables, folder, tell=told.append).sources(FEATURES))
        assert found == expected
    assert len(told) > len(_files(folder)) // 2, "most files are read by this frame"


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from retrodict.features.offline import _arrays
from retrodict.features.offline.event_index import EventIndexes
from retrodict.stores.tables.delta import DeltaTables
from test_prepared import FEATURES, _spine, _values
close = _arrays.ArrayWriter.close
def slowly(writer, note):
    print("writing", flush=True)
    time.sleep({pause})
    close(writer, note)
_arrays.ArrayWriter.close = slowly
indexes = EventIndexes(DeltaTables(Path({tables!r})), Path({folder!r}))
print(len(_values(FEATURES, _spine(), indexes.sources(FEATURES))), flush=True)
"""


def _process(tmp_path, pause):
    script = SCRIPT.format(
        here=str(Path(__file__).parent), pause=pause, tables=str(tmp_path / "tables"), folder=str(tmp_path / "indexes")
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_no_half_index(place, tmp_path):
    """Killed when all arrays are written but none is named: the next one makes it, and no draft is left."""
    tables, folder = place
    process = _process(tmp_path, 60)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert any(path.name.startswith(".") for path in folder.glob("*/*"))
    expected = _values(FEATURES, _spine(), {"s": tables.read("events")})
    assert _values(FEATURES, _spine(), EventIndexes(tables, folder).sources(FEATURES)) == expected
    assert not any(path.name.startswith(".") for path in folder.glob("*/*"))


def test_two_processes_make_one_index(place, tmp_path):
    """The second waits for the first and finds what it made."""
    first = _process(tmp_path, 1)
    assert first.stdout.readline() == "writing\n"
    second = _process(tmp_path, 1)
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [output.removeprefix("writing\n") for output in outputs] == ["6\n", "6\n"]
    assert "writing" not in outputs[1]


def test_older_indexes_go_and_clear_removes_all(place):
    """Two newest indexes of one reading stay; after clear nothing that copies rows is left."""
    tables, folder = place
    for seed in range(4):
        tables.write("events", _events(20, seed=seed))
        EventIndexes(tables, folder).build(FEATURES)
    assert len(list(folder.glob("*/*"))) == 2
    EventIndexes(tables, folder).clear()
    assert not _files(folder)
