"""Prepared events: the same from a table, from memory, and from an index on disk, whatever happens to its files."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
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
from retrodict.features.offline._arrays import ArrayFolder, FolderKey
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.prepared import FRAMES, MemoryEvents
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
    """Values by events that become an index, and by that index."""
    with tempfile.TemporaryDirectory() as folder:
        tables = DeltaTables(Path(folder) / "tables")
        tables.write("events", table)
        for _ in range(2):
            indexes = EventIndexes(tables, Path(folder) / "indexes")
            yield _values(features, spine, indexes.sources(features))
            indexes.settle()


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


def _grown(features, spine, whole, sizes, small):
    """Values after each of several appends: by the events as they came, and by what was written of them."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_index, "_SMALL", small)
        tables, first = DeltaTables(Path(folder) / "tables"), 0
        for size in sizes:
            tables.write("events", whole.slice(first, size))
            first += size
            for _ in range(2):
                indexes = EventIndexes(tables, Path(folder) / "indexes")
                yield whole.slice(0, first), _values(features, spine, indexes.sources(features))
                indexes.settle()


appended = st.lists(worlds.moderate_histories, min_size=2, max_size=4)
smallness = st.sampled_from([0, 2, 1 << 40])  # pieces are never merged, sometimes, always


@settings(quick, max_examples=40)
@given(some_views, appended, worlds.requests, smallness)
def test_an_index_that_grew_equals_one_made_anew(view, parts, queries, small):
    """Appended rows (new keys, redeliveries, late ones) count as if all rows had been there from the start."""
    whole, features = _table(view, list(chain.from_iterable(parts))), FeatureSet([view])
    spine = worlds.spine_table(queries)
    for rows, values in _grown(features, spine, whole, map(len, parts), small):
        assert repr(values) == repr(_values(features, spine, {"s": rows}))


@quick
@given(worlds.views(), appended, worlds.requests, smallness)
def test_an_index_that_grew_gives_what_the_oracle_gives(view, parts, queries, small):
    """After the last append totals and latest values equal the oracle, bit for bit."""
    whole, features = _table(view, list(chain.from_iterable(parts))), FeatureSet([view])
    spine = worlds.spine_table(queries)
    expected = worlds.oracle_columns(features, spine, {"s": whole})
    *_, (_, before), (_, after) = _grown(features, spine, whole, map(len, parts), small)
    assert repr(before) == repr(after) == repr(expected)


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


@pytest.mark.parametrize("known", [[5, 3, 9, 3], [-2, -1, 0, -2], [1, 10**15, 1], [-(2**63), 2**63 - 1], [0, 1, 2]])
def test_whole_numbers_are_keys_wherever_they_lie(known):
    """Close together they are counted instead of hashed: with gaps, below zero, at the ends of 64 bits."""
    index = KeyIndex([pa.array(known)], where="test")
    (distinct,) = index.distinct()
    assert [distinct[code].as_py() for code in index.codes.tolist()] == known
    assert sorted(distinct.to_pylist()) == sorted(set(known))
    asked = [*known, 4, None]
    codes = index.locate([pa.array(asked)], names="k").tolist()
    assert codes == [*index.codes.tolist(), -2, -1]


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


def _append(tables, key, rows=3):
    """A small append: a new key and one of fifty that are there."""
    table = _events(rows, seed=rows)
    keys = pa.array([key, *["new"] * (rows - 1)])
    tables.write("events", table.set_column(0, "k", keys))


def _folders(folder):
    """Bytes of each index, and the one that it lies over."""
    return {
        path.name: (sum(file.stat().st_size for file in _files(path)), ArrayFolder(path, FolderKey()).note["over"])
        for path in folder.glob("*/*")
    }


def test_a_small_append_writes_a_small_piece(place, monkeypatch):
    """It lies over the index that is there, the next one takes its place, and reads only its own file."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    ((base, (size, _)),) = _folders(folder).items()
    for key in ("key 1", "key 2", "key 1"):
        _append(tables, key)
        paths, dataset = [], tables.dataset
        monkeypatch.setattr(
            tables, "dataset", lambda *a, f=dataset, p=paths, **k: p.append(k.get("paths")) or f(*a, **k)
        )
        EventIndexes(tables, folder).build(FEATURES)
        assert [len(read) for read in paths if read is not None] == [1]
        pieces = _folders(folder)
        assert pieces.pop(base) == (size, None)
        assert {over for _, over in pieces.values()} == {base}
        assert len(pieces) <= 2
        assert sum(size for size, _ in pieces.values()) < 0.8 * size
    whole = tables.read("events")
    grown = EventIndexes(tables, folder).sources(FEATURES)
    assert _values(FEATURES, _spine(), grown) == _values(FEATURES, _spine(), {"s": whole})


def test_pieces_that_are_large_are_merged(place, monkeypatch):
    """The answer comes from both; what is written is whole, and neither of the two stays."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    _append(tables, "key 1")
    EventIndexes(tables, folder).build(FEATURES)
    before = set(_folders(folder))
    monkeypatch.setattr(event_index, "_SMALL", 1 << 40)
    _append(tables, "key 2")
    indexes = EventIndexes(tables, folder)
    values = _values(FEATURES, _spine(), indexes.sources(FEATURES))
    assert values == _values(FEATURES, _spine(), {"s": tables.read("events")})
    indexes.settle()
    (name,) = _folders(folder)
    assert name not in before
    assert _values(FEATURES, _spine(), EventIndexes(tables, folder).sources(FEATURES)) == values


def test_an_index_of_other_columns_is_not_grown(place, monkeypatch):
    """Whatever lets a store append rows of other types: an index of the old ones is made anew, not merged with."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    tables.write("events", _events(100, seed=2))
    monkeypatch.setattr(tables, "schema", lambda *_: pa.schema([("k", pa.large_string())]))
    monkeypatch.setattr(event_index, "grow_prepared", None)
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
        indexes = EventIndexes(tables, tmp_path / "indexes")
        indexes.build(features)
        grown = indexes.sources(features)
    spine = pa.table({"a": list("aabb"), "b": list("xyxy"), "q": pa.array([10] * 4, worlds.TIME)})
    assert _values(features, spine, grown) == {"v__latest_n": [4, 1, 5, 3]}


@pytest.mark.parametrize("n", [[1, 1, 1], [1, None, 1], [2**62, 1, 1]])
def test_counts_of_the_same_events_are_one_column_of_sums(n):
    """A count and those behind means, of the same events or not; a sum that looks like one stays apart."""
    when = pa.array([1, 2, 3], worlds.TIME)
    table = pa.table({"k": ["a"] * 3, "t": when, "known": when, "n": pa.array(n, pa.int64())})
    over = [agg.count(over="1h"), agg.sum("n", over="1h"), agg.mean("n", over="1h"), agg.share("n > 1", over="1h")]
    features = FeatureSet([FeatureView("v", Entity("k"), Source("s", worlds.table, event_time="t"), over)])
    spine = pa.table({"k": ["a"], "q": pa.array([9], worlds.TIME)})
    some = [value for value in n if value is not None]
    expected = [3, sum(some), sum(some) / len(some), sum(value > 1 for value in some) / len(some)]
    for values in _through_an_index(features, spine, table):
        assert [value for (value,) in values.values()] == expected


@pytest.mark.parametrize("small", [0, 1 << 40])
def test_pairs_keep_their_events_whatever_their_numbers(tmp_path, monkeypatch, small):
    """Read again, the parts of these keys come in another order than the one that numbered them."""
    monkeypatch.setattr(event_index, "_SMALL", small)
    pairs = [*zip("pqpqpqpq", "xyzzwwvv", strict=True)]
    numbers = [*range(8), 80, 30, 60]
    rows = [*pairs, ("p", "x"), pairs[3], pairs[6]]
    table = pa.table(
        {
            "a": [row[0] for row in rows],
            "b": [row[1] for row in rows],
            "n": numbers,
            "t": pa.array([9] * len(rows), worlds.TIME),
        }
    )
    source = Source("s", worlds.table, event_time="t")
    features = FeatureSet([FeatureView("v", Entity("pair", keys=["a", "b"]), source, [agg.sum("n", over="1h")])])
    tables = DeltaTables(tmp_path / "tables")
    for part in (table.slice(0, 8), table.slice(8, 1), table.slice(9, 1), table.slice(10)):
        tables.write("events", part)
        indexes = EventIndexes(tables, tmp_path / "indexes")
        indexes.build(features)
    spine = pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs], "q": pa.array([10] * 8, worlds.TIME)})
    assert _values(features, spine, indexes.sources(features)) == {"v__sum_n_1h": [80, 1, 2, 33, 4, 5, 66, 7]}


def test_of_equal_redeliveries_the_first_row_counts(tmp_path):
    """However they were appended: known at the same moment, so only the place in the table tells them apart."""
    rows = [("a", 1, 1), ("b", 7, 2), ("b", 7, 3), ("a", 1, 4)]
    columns = dict(zip(("k", "id", "n"), map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table({**columns, "t": pa.array([9] * 4, worlds.TIME)})
    source = Source("s", worlds.table, event_time="t", sequence="id")
    features = FeatureSet([FeatureView("v", Entity("k"), source, [latest("n"), agg.count(over="1h")])])
    tables = DeltaTables(tmp_path / "tables")
    for part in (table.slice(0, 2), table.slice(2, 1), table.slice(3)):
        tables.write("events", part)
        indexes = EventIndexes(tables, tmp_path / "indexes")
        indexes.build(features)
    spine = pa.table({"k": ["a", "b"], "q": pa.array([10] * 2, worlds.TIME)})
    values = _values(features, spine, indexes.sources(features))
    assert values == {"v__latest_n": [1, 2], "v__count_1h": [1, 1]}


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


def _files_of_indexes(folder):
    return [path for path in _files(folder) if not path.parent.name.startswith(".")]


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
@pytest.mark.parametrize("pieces", [1, 2])
def test_damage_to_any_file_is_never_a_wrong_value(place, how, pieces):
    """One bit of any file, time stamps restored: an error or the right values, and the right values the next time."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    if pieces == 2:
        _append(tables, "key 1")
        shutil.copytree(folder, folder.with_name("whole"))
    expected = _values(FEATURES, _spine(), {"s": tables.read("events")})
    EventIndexes(tables, folder).build(FEATURES)
    assert len(_folders(folder)) == pieces
    told = []
    for number in range(len(_files(folder))):
        if pieces == 2:  # what was damaged before was made anew as one
            shutil.rmtree(folder)
            shutil.copytree(folder.with_name("whole"), folder)
            EventIndexes(tables, folder).build(FEATURES)
        _damage(_files(folder)[number], how)
        for _ in range(2):
            indexes = EventIndexes(tables, folder, tell=told.append)
            # An error is an answer, once.
            with contextlib.suppress(IntegrityError):
                assert _values(FEATURES, _spine(), indexes.sources(FEATURES)) == expected
            indexes.settle()
        found = _values(FEATURES, _spine(), EventIndexes(tables, folder, tell=told.append).sources(FEATURES))
        assert found == expected
    assert len(told) > len(_files(folder)) // 2, "most files are read by this frame"


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from retrodict.features.offline import _arrays, event_index
from retrodict.features.offline.event_index import EventIndexes
from retrodict.stores.tables.delta import DeltaTables
from test_prepared import FEATURES, _spine, _values
event_index._SMALL = {small}
close = _arrays.ArrayWriter.close
def slowly(writer, note):
    print("writing", flush=True)
    time.sleep({pause})
    close(writer, note)
_arrays.ArrayWriter.close = slowly
indexes = EventIndexes(DeltaTables(Path({tables!r})), Path({folder!r}))
print(len(_values(FEATURES, _spine(), indexes.sources(FEATURES))), flush=True)
"""


def _process(tmp_path, pause, small=event_index._SMALL):
    tables, folder = str(tmp_path / "tables"), str(tmp_path / "indexes")
    script = SCRIPT.format(here=str(Path(__file__).parent), pause=pause, small=small, tables=tables, folder=folder)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def _wait_for(process, line):
    """Read what a process prints until that line: its answer may come before or after."""
    while (got := process.stdout.readline()) != line:
        assert got, "the process ended"


def test_an_answer_does_not_wait_for_its_index(place, tmp_path):
    """A process prints its values while the index is being written, and ends when it is there."""
    process = _process(tmp_path, 1)
    _wait_for(process, "6\n")
    assert not _files_of_indexes(place[1])
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert _files_of_indexes(place[1])


def test_an_index_is_written_when_the_frame_is_there(place, monkeypatch):
    """Nothing is written while any frame is computed, and without another word afterwards."""
    tables, folder = place
    writes = threading.Event()
    make = EventIndexes._make
    monkeypatch.setattr(EventIndexes, "_make", lambda *given: (writes.set(), make(*given)))
    indexes = EventIndexes(tables, folder)

    @FRAMES
    def somebody_else():
        _values(FEATURES, _spine(), indexes.sources(FEATURES))
        assert not writes.wait(0.3)

    somebody_else()
    indexes.settle()
    assert writes.is_set()
    assert _files_of_indexes(folder)


def test_frames_without_end_do_not_keep_an_index_back(place, monkeypatch):
    """Whoever computes frames all the time has an index after a while."""
    monkeypatch.setattr(event_index, "_PATIENCE_S", 0.01)
    indexes = EventIndexes(*place)
    with FRAMES:
        indexes.build(FEATURES)
    assert _files_of_indexes(place[1])


@pytest.mark.parametrize("small", [None, 8, 1 << 40])
def test_a_killed_process_leaves_no_half_index(place, tmp_path, small):
    """Killed when all arrays are written but none is named: the next one makes it, and no draft is left.

    So it is with a whole index, with a small piece over one, and with both merged.
    """
    tables, folder = place
    if small is not None:
        EventIndexes(tables, folder).build(FEATURES)
        _append(tables, "key 1")
    process = _process(tmp_path, 60, small or 8)
    _wait_for(process, "writing\n")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert any(path.name.startswith(".") for path in folder.glob("*/*"))
    expected = _values(FEATURES, _spine(), {"s": tables.read("events")})
    indexes = EventIndexes(tables, folder)
    assert _values(FEATURES, _spine(), indexes.sources(FEATURES)) == expected
    indexes.settle()
    assert not any(path.name.startswith(".") for path in folder.glob("*/*"))
    assert _values(FEATURES, _spine(), EventIndexes(tables, folder).sources(FEATURES)) == expected


def test_a_killed_sweep_leaves_nothing_that_stays(place):
    """Of an index that was half deleted the next one takes nothing, and deletes the rest."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    (half,) = _folders(folder)
    next(folder.glob("*/*/0003.*")).unlink()
    _append(tables, "key 1")
    expected = _values(FEATURES, _spine(), {"s": tables.read("events")})
    for _ in range(2):
        indexes = EventIndexes(tables, folder)
        assert _values(FEATURES, _spine(), indexes.sources(FEATURES)) == expected
        indexes.settle()
    assert half not in {path.name for path in folder.glob("*/*")}


def test_two_processes_make_one_index(place, tmp_path):
    """The second answers, waits for the first and finds what it made."""
    first = _process(tmp_path, 3)
    _wait_for(first, "writing\n")
    second = _process(tmp_path, 1)
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert outputs[1] == "6\n"


def test_pieces_that_another_process_merges_meanwhile(place, tmp_path, monkeypatch):
    """Whoever opened them before they went gets the right values, and writes nothing over what is gone."""
    tables, folder = place
    EventIndexes(tables, folder).build(FEATURES)
    _append(tables, "key 1")
    EventIndexes(tables, folder).build(FEATURES)
    reader, told = EventIndexes(tables, folder), []
    first, sources = {"s": tables.read("events")}, reader.sources(FEATURES)
    sources["s"].prepared(FEATURES.views[0], ignore_known_at=False)
    monkeypatch.setattr(reader, "sources", lambda *_: sources)
    _append(tables, "key 2")
    second, indexes = {"s": tables.read("events")}, EventIndexes(tables, folder, tell=told.append)

    def write(*given, write=indexes._write):
        _append(tables, "key 3")
        assert _process(tmp_path, 0, small=1 << 40).communicate(timeout=60)[0].endswith("writing\n")
        write(*given)

    monkeypatch.setattr(indexes, "_write", write)
    assert _values(FEATURES, _spine(), indexes.sources(FEATURES)) == _values(FEATURES, _spine(), second)
    indexes.settle()
    assert "cannot be written" in told[-1]
    assert [over for _, over in _folders(folder).values()] == [None]
    assert reader.gather(lambda rows: _values(FEATURES, _spine(), rows), FEATURES) == _values(FEATURES, _spine(), first)


def test_what_nothing_reads_any_more_goes(place):
    """Folders of earlier formats, and of a reading that was last used a month ago; of the others nothing is touched."""
    tables, folder = place
    for name in ("0123abcd", f"{event_index._FORMAT}-old", f"{event_index._FORMAT}-used"):
        (folder / name / "version").mkdir(parents=True)
    for path in (folder / f"{event_index._FORMAT}-old").rglob("*"), [folder / f"{event_index._FORMAT}-old"]:
        for old in path:
            os.utime(old, (0, 0))
    EventIndexes(tables, folder).build(FEATURES)
    left = {path.name for path in folder.iterdir() if path.is_dir()}
    assert len(left) == 2
    assert f"{event_index._FORMAT}-used" in left


def test_older_indexes_go_and_clear_removes_all(place):
    """Two newest indexes of one reading stay; after clear nothing that copies rows is left."""
    tables, folder = place
    for seed in range(4):
        tables.write("events", _events(20, seed=seed), mode="overwrite")
        EventIndexes(tables, folder).build(FEATURES)
    assert len(list(folder.glob("*/*"))) == 2
    EventIndexes(tables, folder).clear()
    assert not _files(folder)
