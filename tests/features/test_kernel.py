"""The loops in C give what their twins in Python give, bit for bit, and take no bytes on trust."""

import itertools
import math
import random
import struct
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.native import kernel
from retrodict.features.definitions import Entity, FeatureView, Window, agg, latest
from retrodict.features.facts import keys, ranges
from retrodict.features.online import OnlineFeatures, OnlineState
from retrodict.features.online.read import programs, reader
from retrodict.features.online.state import narrow, segments
from retrodict.features.online.state.blocks import HOT, Layout, Shape, layout_in, narrow_block, pack
from retrodict.features.online.state.entries import StateKeys
from retrodict.features.online.write import transaction
from retrodict.features.plan import FeatureSet
from retrodict.testing import feature_worlds as worlds
from retrodict.testing.memory import MemoryKeys

pytestmark = pytest.mark.skipif(kernel is None, reason="this machine has no compiler, so Python does the work")

MINUTE, BASE = worlds.MINUTE, worlds.BASE
EVER = "36000d"
AT = BASE + 20 * MINUTE
EVENT = {"k1": "a", "k2": 1, "e": BASE, "late": 0, "seq": 1, "x": 1.5, "n": 1, "ok": True, "tag": "p"}


def _state(view, events, batch=5):
    features, table, store = FeatureSet([view]), worlds.events_table(events), MemoryKeys()
    state = OnlineState(features, store, horizon=EVER)
    for first in range(0, max(table.num_rows, 1), batch):
        state.apply(table.slice(first, batch), "s", first_position=first)
    return features, store


def _blocks(features, store):
    names, shape = StateKeys(features.views[0]), Shape(features.views[0])
    blobs = [blob for _, blob in store.scan(names.blocks)]
    return shape, [(blob, layout_in(shape, blob)) for blob in blobs]


def _rows(features, store, spine):
    online = OnlineFeatures(features, store)
    requests = [{name: worlds.plain(value) for name, value in row.items()} for row in spine.to_pylist()]
    return [online.read(request, {}, request["q"]) for request in requests]


@settings(max_examples=80, deadline=None)
@given(worlds.views() | worlds.wide_views(), worlds.moderate_histories, worlds.requests)
def test_reads_are_the_same_with_and_without(view, events, queries):
    """Values with their types and order, statuses, counts and what is expired, of any view at any time."""
    features, store = _state(view, events)
    spine = worlds.spine_table(queries)
    fast = _rows(features, store, spine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "kernel", None)
        slow = _rows(features, store, spine)
    assert repr([(r.values, r.statuses, r.events, sorted(r.expired)) for r in fast]) == repr(
        [(r.values, r.statuses, r.events, sorted(r.expired)) for r in slow]
    )


def _plain_view(over=("3m", "10m")):
    over = [*over, Window("5m", hop="2m"), Window("4m", offset="3m"), "lifetime"]
    return FeatureView(
        "v",
        Entity("thing", keys=["k1"]),
        worlds.Source("s", worlds.table, event_time="e", known_at="k", sequence="seq"),
        [
            agg.count(over=over),
            agg.rate(over="7m", per="1m"),
            agg.sum("x", over=over),
            agg.sum("n", over=over),
            agg.mean("x", over=over),
            agg.mean("n", over=over),
            agg.share("x > 15", over=over),
            agg.min("x", over=over),
            agg.max("n", over=over),
            latest("x", "tag", max_age="12m"),
            latest("n", "ok"),
        ],
    )


@settings(max_examples=150, deadline=None)
@given(worlds.histories, st.integers(0, 40), st.sampled_from([0, 1, -1]))
def test_every_feature_of_a_plain_view_is_in_the_program(events, minute, beside):
    """Nothing is skipped, and block by block the program and the reader agree, also where neither may answer."""
    features, store = _state(_plain_view(), events)
    plan, at = features.views[0], BASE + minute * MINUTE + beside
    shape, blocks = _blocks(features, store)
    for blob, layout in blocks:
        program, skipped = programs.program_of(plan, layout)
        assert skipped == [] or any(one.floats and one.low <= -900 for one in layout.sums)
        restricted = reader.restricted(shape, blob, at)
        right, wrong = ({}, set()), ({}, set())
        expected = reader.BlockReader(plan, layout).read(restricted, at, *right, {})
        found = program(restricted, at, *wrong, True)
        if not skipped:
            assert repr((found, wrong)) == repr((expected, right)) or found == programs.BEYOND


def test_a_sum_beyond_128_bits_is_left_to_python():
    """Values of 1e-200 and 1e22 in one column are still added exactly."""
    values = [1e-200, 1e16, 3e22, -1e22] * 50
    events = [EVENT | {"e": BASE + i, "seq": i, "x": x} for i, x in enumerate(values)]
    features, store = _state(_plain_view(), events, batch=200)
    (blob, layout) = _blocks(features, store)[1][0]
    program, skipped = programs.program_of(features.views[0], layout)
    assert not skipped
    assert program(blob, AT, {}, set(), False) == programs.BEYOND
    row = OnlineFeatures(features, store).read({"k1": "a"}, {}, AT)
    assert row.values["v__sum_x_lifetime"] == math.fsum(values)


def test_a_program_says_why_it_does_not_answer():
    """What the request may not see, the head of a hot key, a block of another layout."""
    features, store = _state(_plain_view(), [EVENT])
    (blob, layout) = _blocks(features, store)[1][0]
    program, _ = programs.program_of(features.views[0], layout)
    assert program(blob, BASE, {}, set(), False) == programs.RESTRICT
    assert program(blob[:8] + bytes([blob[8] | HOT]) + blob[9:], AT, {}, set(), False) == programs.PARTED
    other = Layout(layout.shape, layout.sums, layout.sequence, (1,) * len(layout.extremes), layout.kept)
    assert program(blob.replace(layout.key, other.key), AT, {}, set(), False) == programs.OTHER


def test_damaged_blocks_are_errors_and_no_more():
    """Blocks cut anywhere or with any byte changed give a value or a ValueError."""
    rng = random.Random(5)
    events = [
        EVENT | {"e": BASE + i * MINUTE, "seq": i, "x": i / 7, "n": i, "ok": i % 2 == 0, "tag": "é"} for i in range(12)
    ]
    features, store = _state(_plain_view(), events)
    (blob, layout) = _blocks(features, store)[1][0]
    program, _ = programs.program_of(features.views[0], layout)
    refused = 0
    for _ in range(20_000):
        bad = bytearray(blob)
        if rng.random() < 0.3:
            del bad[rng.randrange(len(bad)) :]
        for _ in range(rng.randrange(1, 4)):
            if bad:
                bad[rng.choice([rng.randrange(len(bad)), rng.randrange(min(48, len(bad)))])] = rng.randrange(256)
        try:
            program(bytes(bad), AT, {}, set(), True)
        except (ValueError, UnicodeDecodeError, OverflowError):
            refused += 1
    assert refused > 2_000


WORDS = st.integers(-(1 << 63), (1 << 63) - 1)
NOTHING = st.sampled_from([-(1 << 63), -(1 << 52)])
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, -0.25, 1e300])


def _word(value):
    return struct.unpack("<q", struct.pack("<d", value))[0]


@st.composite
def _columns(draw, count):
    """Words near one another, multiples, steps, floats of few digits and either zero, nothing, the least and most."""
    low = draw(WORDS)
    unit = draw(st.sampled_from([1, 3, 1000, 60_000_000, 1 << 30]))
    power, most = draw(st.integers(0, 7)), draw(st.sampled_from([9, 10**6, 10**14]))
    decimals = st.integers(-most, most).map(lambda number: number / 10.0**power)
    values = draw(
        st.sampled_from(
            [
                st.just(low),
                st.integers(0, 300).map(lambda n: low + n * unit),
                st.integers(0, 300).map(lambda n: low + n * unit) | NOTHING,
                FLOATS.map(_word) | NOTHING,
                decimals.map(_word),
                decimals.map(_word) | NOTHING,
                WORDS | NOTHING,
            ]
        )
    )
    words = draw(st.lists(values, min_size=count, max_size=count))
    if draw(st.integers(0, 4)) == 0:
        words = [low + unit * place for place in range(count)]
    return [(word + (1 << 63)) % (1 << 64) - (1 << 63) for word in words]


@st.composite
def _wide_blocks(draw):
    """A block, its base row if it had lost nothing, and columns of texts with their words pointing into its heap."""
    count, heap = draw(st.integers(0, 30)), draw(st.lists(st.sampled_from([b"", b"a", b"b" * 9]), max_size=8))
    columns = draw(st.lists(_columns(count + 1), min_size=2, max_size=9))
    if draw(st.booleans()):
        columns.append(columns[0])
    joined = b"".join(heap) + bytes(-len(b"".join(heap)) % 8)
    places = [len(b"".join(heap[:i])) << 32 | len(text) for i, text in enumerate(heap)] or [0]
    texts = draw(st.sets(st.integers(1, len(columns) - 1), max_size=2))
    for place in texts:
        columns[place] = [0, *draw(st.lists(st.sampled_from(places), min_size=count, max_size=count))]
    rows = np.array(columns, dtype="<i8").T
    bare = rows[0].tobytes() if draw(st.booleans()) else bytes(8 * len(columns))
    head = struct.pack("<5q", count, draw(st.integers(0, 1)), draw(st.integers(-9, 1 << 56)), len(joined), 0)
    return head + b"a layout" + joined + rows.tobytes(), bare, bytes(sorted(texts))


def _opened(blob, words, texts):
    """Header but for the heap, and rows with their texts in place of words; the base has none."""
    count, flags, visible, heap, _ = struct.unpack_from("<5q", blob)
    rows = np.frombuffer(blob, "<i8", offset=48 + heap).reshape(count + 1, words).tolist()
    for row, place in itertools.product(rows, texts):
        begin = 48 + (row[place] >> 32)
        row[place] = row is not rows[0] and blob[begin : begin + (row[place] & 0xFFFFFFFF)]
    return count, flags, visible, rows


@settings(max_examples=300, deadline=None)
@given(_wide_blocks(), st.data())
def test_narrow_rows_are_those_of_the_twin_and_lose_nothing(made, data):
    """Both ways, by either; what is cut off or has bytes too many is refused."""
    blob, bare, texts = made
    words = len(bare) // 8
    short = kernel.narrow(blob, 8, bare, texts)
    assert short == narrow._narrow(blob, 8, bare, texts)
    assert len(short) <= len(blob)
    if short is not blob:
        assert kernel.narrow(short, 8, bare, texts) is short
        wide = kernel.widen(short, 8, bare)
        assert wide == narrow._widen(short, 8, bare)
        assert _opened(wide, words, texts) == _opened(blob, words, texts)
        cut = data.draw(st.integers(1, len(short) - 1))
        for damaged in (short[:cut] + short[-8:], short[:-8] + b"\0" + short[-8:]):
            if len(damaged) != len(short):
                with pytest.raises(ValueError, match="cut off"):
                    kernel.widen(damaged, 8, bare)


@pytest.mark.parametrize("run", [narrow._narrow, kernel and kernel.narrow])
def test_a_text_outside_its_block_is_refused(run):
    """Before its bytes are looked at."""
    rows = np.array([[0, 0], [5, 3 << 32 | 6], [9, 0]], dtype="<i8")
    blob = struct.pack("<5q", 2, 1, 7, 8, 2) + b"a layout" + b"somebody" + rows.tobytes()
    with pytest.raises(ValueError, match="a text lies outside its block"):
        run(blob, 8, bytes(16), b"\1")


@pytest.mark.parametrize(("place", "value"), [(22, 1), (22, 2), (21, 0xF4), (16, 70), (17, 9), (17, 0x91)])
def test_columns_that_cannot_be_are_refused(place, value):
    """Bits shared with itself or what is not there, a power of ten that is none, more bits or bytes than a word has."""
    rows = np.array([[0, 0], *([row, row] for row in (9, 3, 77, 31, 250, 5))], dtype="<i8")
    blob = struct.pack("<5q", 6, 1, 7, 0, 0) + b"a layout" + rows.tobytes()
    short = bytearray(kernel.narrow(blob, 8, bytes(16), b""))
    # Eight bits from 3 on; of another kind, which shares them with column 0.
    assert short[16:24] == bytes([8, 1, 3, 8 | narrow._KIND, 1, narrow._SHARED, 0, 3])
    short[place] = value
    with pytest.raises(ValueError, match="cut off"):
        kernel.widen(bytes(short), 8, bytes(16))


@settings(max_examples=30, deadline=None)
@given(worlds.views(), worlds.moderate_histories, worlds.requests, st.integers(0, 9))
def test_rows_stored_wide_are_read_and_go_on(view, events, queries, wide):
    """What was stored before rows were narrow is read, appended to and reopened as if it had always been."""
    features, table, store = FeatureSet([view]), worlds.events_table(events), MemoryKeys()
    state = OnlineState(features, store, horizon=EVER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "narrow_block", lambda _, blob: blob)
        state.apply(table.slice(0, wide), "s")
    state.apply(table.slice(wide), "s", first_position=wide)
    whole = MemoryKeys()
    OnlineState(features, whole, horizon=EVER).apply(table, "s")
    rows, expected = (_rows(features, keys, worlds.spine_table(queries)) for keys in (store, whole))
    assert repr([(r.values, r.statuses) for r in rows]) == repr([(r.values, r.statuses) for r in expected])


def test_rows_are_stored_in_a_third_of_their_words():
    """Times, ids and sums of one key lie near one another; the base, the least words and the header are beside."""
    events = [EVENT | {"e": BASE + i * MINUTE, "seq": i, "x": i / 4, "n": i} for i in range(600)]
    features, store = _state(_plain_view(), events, batch=600)
    (blob, layout) = _blocks(features, store)[1][0]
    assert blob[8] & narrow.NARROW
    assert len(blob) < 8 * layout.words * 600 / 3


@pytest.mark.parametrize("wrong", [-7, 1 << 40])
@pytest.mark.parametrize("place", [*range(10), 12, *range(-13, 0)])
def test_programs_that_point_outside_a_block_are_refused(place, wrong, monkeypatch):
    """A program is checked once, so that reading need not check; what is not refused reads nothing beyond its block."""
    features, store = _state(_plain_view(), [EVENT])
    (blob, layout) = _blocks(features, store)[1][0]
    monkeypatch.setattr(programs, "kernel", SimpleNamespace(Program=lambda *given: given))
    (packed, *rest), _ = programs.program_of(features.views[0], layout)
    words = list(struct.unpack(f"<{len(packed) // 8}q", packed))
    words[place] = wrong
    with suppress(ValueError, OverflowError):
        program = kernel.Program(struct.pack(f"<{len(words)}q", *words), *rest)
        assert place not in {2, 3, 6, 8, 9}  # running words, flags, a window, how many windows and features
        program(blob, AT, {}, set(), False)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.sets(st.integers(-2, 32), max_size=6), st.randoms())
def test_rows_of_hot_keys_are_put_together_alike(times, edges, rng):
    """The last row between two edges, with the greatest of whole numbers and floats of all of them."""
    layout = _blocks(*_state(_plain_view(), [EVENT]))[1][0][1]
    wide = np.zeros((len(times), layout.words + 4), dtype=np.int64)
    rows = wide[:, 4:]
    rows[:, 0] = sorted(times)
    for place, kind in enumerate(layout.extremes):
        values = [rng.randrange(-9, 9) for _ in times]
        floats = np.array(values, dtype=np.float64).view(np.int64)
        rows[:, layout.first_extreme + place] = floats if kind == 2 else values
    edges = sorted(edges)
    assert (segments._together(layout, rows, edges) == segments._together_twin(layout, rows, edges)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.sets(st.integers(-2, 32), max_size=6), st.data())
def test_rows_of_stored_segments_are_put_together_alike(times, edges, data):
    """Without widening them: as of wide rows, with the same texts."""
    layout = _blocks(*_state(_plain_view(), [EVENT]))[1][0][1]
    rows = np.zeros((1 + len(times), layout.words), dtype=np.int64)
    rows[:, 0] = [-1, *sorted(times)]
    for place, kind in enumerate(layout.extremes):
        values = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=len(rows), max_size=len(rows))))
        rows[:, layout.first_extreme + place] = values.astype(np.float64).view(np.int64) if kind == 2 else values
    rows[1:, layout.texts] = np.arange(len(times))[:, None] % 7 << 32 | 1
    blob = pack(layout, rows, b"abcdefgh", flags=0, visible=0, heap_rows=len(times))
    short = narrow_block(layout.shape, blob)
    results = [segments._settled(layout.shape, layout, short, sorted(edges))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "kernel", None)
        results.append(segments._settled(layout.shape, layout, short, sorted(edges)))
    (found, heap), (expected, expected_heap) = results
    assert heap == expected_heap
    assert found.tolist() == expected.tolist()


def test_a_hot_key_has_the_texts_of_its_segments():
    """A request behind the head reads its newest text from a segment, of which only the rows at edges are taken."""
    source = worlds.Source("s", worlds.table, event_time="e", sequence="seq")
    view = FeatureView("v", Entity("k1"), source, [agg.count(over="6h"), latest("tag")])
    events = [EVENT | {"e": BASE + i * MINUTE, "late": 0, "seq": i, "tag": f"tag {i % 11}"} for i in range(3_000)]
    features, store = _state(view, events, batch=500)
    for place in (3, 500, 511, 512, 1_300, 2_400, 2_999):
        row = OnlineFeatures(features, store).read({"k1": "a"}, {}, BASE + place * MINUTE + 1)
        assert row.values == {"v__count_6h": min(place + 1, 360), "v__latest_tag": f"tag {place % 11}"}


def test_python_does_the_work_where_the_kernel_is_switched_off():
    """An environment variable turns the kernel off, for comparison."""
    code = "from retrodict.core.native import kernel; print(kernel)"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"RETRODICT_NATIVE": "0"}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "None"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-9, 9) | st.integers(-(2**63), 2**63 - 1), max_size=60),
    st.lists(st.integers(-10, 10)),
    st.booleans(),
)
def test_positions_in_a_sorted_line_are_those_of_numpy(numbers, wanted, ordered):
    """From any place near or far, in any order of what is looked for."""
    line, asked = np.array(sorted(numbers), dtype=np.int64), np.array(wanted + numbers, dtype=np.int64)
    if ordered:
        asked.sort()
    found = np.empty(len(asked), dtype=np.int64)
    kernel.positions(line, asked, found)
    assert (found == np.searchsorted(line, asked)).all()


@pytest.mark.parametrize(
    "wrong", [np.zeros(3, dtype=np.int32), np.zeros(2, dtype=np.int64), np.zeros(6, dtype=np.int64)[::2]]
)
def test_positions_takes_no_other_arrays(wrong):
    """Other widths, lengths and strides are errors, not reads beyond the end."""
    with pytest.raises((ValueError, BufferError)):
        kernel.positions(np.zeros(5, dtype=np.int64), np.zeros(3, dtype=np.int64), wrong)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.integers(0, 400), st.integers(1, 500), st.booleans(), st.integers(0, 2**32))
def test_moments_of_keys_are_sorted_as_numpy_sorts_them(size, count, span, ordered, seed):
    """Few and many of a key, in order or not, with ties and outside the range: a stable sort of the packed numbers."""
    random = np.random.default_rng(seed)
    codes, moments = random.integers(0, size, count), random.integers(-50, 550, count)
    if ordered:
        moments.sort()
    packed = codes * span + np.clip(moments, 7, 7 + span - 1) - 7
    placed, places = np.empty_like(packed), np.empty_like(packed)
    middle = int(random.integers(0, size + 1))
    for some in [(middle, size), (0, middle)]:
        kernel.order(codes, moments, (7, span, size, *some), placed, places)
    assert (places == np.argsort(packed, kind="stable")).all()
    assert (placed == packed[places]).all()


@pytest.mark.parametrize(
    ("codes", "axis", "room"),
    [([0, 2], (2, 0, 2), 2), ([0, -1], (2, 0, 2), 2), ([0, 1], (2, 0, 2), 3), ([0, 1], (-1, 0, -1), 2)]
    + [([0, 1], axis, 2) for axis in [(2, -1, 2), (2, 0, 3), (2, 2, 1)]],
)
def test_codes_outside_their_keys_are_not_sorted(codes, axis, room):
    """A code that is no key, keys that are none, or places for other numbers, would write beyond the end."""
    with pytest.raises(ValueError, match="code below size"):
        kernel.order(np.array(codes), np.array([5, 6]), (0, 9, *axis), np.empty(2, np.int64), np.empty(room, np.int64))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=12) | st.sampled_from(["", "a", "ab", "a" * 8, "a" * 9, "\0", "\0\0"])), st.integers(0, 9)
)
def test_texts_are_numbered_as_arrow_numbers_them(words, first):
    """In the order in which they appear, whole or by halves, of an array that begins anywhere in its buffers."""
    column = pa.array(words, pa.large_string()).slice(first)
    expected = column.dictionary_encode()
    for codes, distinct in [keys._encoded_once(column), *([keys._encoded_halves(column)] if len(column) > 1 else [])]:
        assert codes.tolist() == expected.indices.to_pylist()
        assert distinct.equals(expected.dictionary)


def test_many_texts_that_differ_in_one_byte_are_told_apart():
    """The table grows, and texts whose hashes are near one another stay what they are."""
    words = pa.array([f"{n % 3}customer{n % 30_000:06d}" for n in range(200_000)], pa.large_string())
    codes, distinct = keys._encoded(words)
    assert distinct.take(pa.array(codes)).equals(words)
    assert len(distinct) == len(set(words.to_pylist()))


@pytest.mark.parametrize("ends", [[0, 2, 9], [0, 3, 2], [-1, 2, 3], [0, 2]])
def test_texts_outside_their_bytes_are_refused(ends):
    """Nothing is read beyond the bytes, and nothing written beyond the places."""
    with pytest.raises(ValueError, match="inside its bytes"):
        kernel.texts(np.array(ends), b"abc", np.empty(2, np.int64), np.empty(2, np.int64))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9000), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_extremes_of_ranges_are_those_of_the_twin_and_of_python(count, floats, largest, seed):
    """Short and long ranges, empty ones, ones that touch the ends of levels."""
    random = np.random.default_rng(seed)
    values = random.normal(size=count) if floats else random.integers(-(2**62), 2**62, count)
    edges = np.array([0, 1, 63, 64, 65, 127, 128, 4095, 4096, 4097, count])
    left = np.concatenate([random.integers(0, count + 1, 30), random.choice(edges[edges <= count], 10)])
    right = np.concatenate([random.integers(0, count + 1, 30), random.choice(edges[edges <= count], 10)])
    found = ranges.RangeExtremes(values, largest=largest).over(left, right)
    assert (found == ranges.sparse_extremes(values, left, right, largest=largest)).all()
    best, nothing = max if largest else min, ranges.identity_of(values.dtype, largest=largest)
    expected = [best(values[a:b].tolist(), default=nothing) for a, b in zip(left, right, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize(("left", "right"), [(-1, 3), (0, 6), (4, 9)])
def test_ranges_outside_their_array_are_refused(left, right):
    """Nothing is read beyond the numbers."""
    found = np.zeros(1)
    with pytest.raises(ValueError, match="ranges lie inside"):
        kernel.extremes((np.zeros(5),), np.array([left]), np.array([right]), found, True, True)
