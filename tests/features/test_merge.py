"""Blocks put together in C and in Python are the same bytes, whatever is kept, cut off or late."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.native import kernel
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, agg, latest
from retrodict.features.online import OnlineState
from retrodict.features.online.write import merge
from retrodict.features.plan import FeatureSet
from retrodict.testing import feature_worlds as worlds
from retrodict.testing.memory import MemoryKeys

needs_kernel = pytest.mark.skipif(kernel is None, reason="this machine has no compiler, so Python does the work")
TEXT_IDS = Source("s", worlds.table, event_time="e", known_at="k", sequence="sid")
KEPT = [
    [agg.count(over="5m"), agg.sum("x", over="10m")],
    [agg.max("x", over="5m"), latest("tag", "x")],
    [agg.count(over="lifetime"), agg.min("n", over="lifetime"), latest("tag")],
    [latest("tag", max_age="3m")],
]
NEVER = -(1 << 62)
views = worlds.views() | worlds.wide_views() | worlds.wide_views(source=st.just(worlds.REVISED))
text_views = st.sampled_from(KEPT).map(lambda features: FeatureView("v", Entity("k1"), TEXT_IDS, features))


def _stored(view, batches, horizon, *, python=False):
    """Everything that is stored after these batches, and the places of blocks that were left to Python."""
    left, store = [], MemoryKeys()
    state = OnlineState(FeatureSet([view]), store, horizon=horizon)
    with pytest.MonkeyPatch.context() as patch:
        if python:
            patch.setattr(merge, "kernel", None)
            patch.setattr(merge, "gather", merge._gather)
        block = merge._Assembly._block
        patch.setattr(merge._Assembly, "_block", lambda *a: left.append(a[1]) or block(*a))
        position = 0
        for batch in batches:
            state.apply(batch, "s", first_position=position)
            position += batch.num_rows
    return dict(store.scan(b"")), left


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(
    views | text_views,
    worlds.moderate_histories,
    st.integers(1, 9),
    st.sampled_from(["1s", "2m", "10m", "36000d"]),
    st.booleans(),
)
def test_what_is_stored_does_not_depend_on_the_kernel(view, events, batch, horizon, sort):
    """Any view, history and cut into batches: in order, so that old rows are cut off, and out of order."""
    events = sorted(events, key=lambda row: row["e"] or 0) if sort else events
    tabled = worlds.revisions_table if view.source.sequence == "sid" else worlds.events_table
    table = tabled(events)
    batches = [table.slice(first, batch) for first in range(0, max(table.num_rows, 1), batch)]
    assert _stored(view, batches, horizon)[0] == _stored(view, batches, horizon, python=True)[0]


def _steady(count):
    row = {"k1": "a", "k2": 1, "late": 0, "x": 1.5, "n": 1, "ok": True}
    events = [{**row, "e": worlds.BASE + i * worlds.MINUTE, "seq": i, "tag": "pq"[i % 2] * 9} for i in range(count)]
    table = worlds.revisions_table(events)
    return [table.slice(first, 4) for first in range(0, count, 4)]


@needs_kernel
@pytest.mark.parametrize(("features", "python"), [(KEPT[0], 0), (KEPT[1], 0), (KEPT[2], 1)])
def test_who_puts_a_block_together(features, python):
    """Rows out of every window's reach are cut off in C; what a lifetime needs of them is added up by Python."""
    store, left = _stored(FeatureView("v", Entity("k1"), TEXT_IDS, features), _steady(40), "1s")
    block = max(store.values(), key=len)
    assert struct.unpack_from("<q", block)[0] < 20  # cut it was
    assert (len(left) > 0) == python


@needs_kernel
def test_a_heap_full_of_texts_of_rows_that_are_gone_is_written_anew():
    """The heap of a key whose rows come and go does not grow with them."""
    view = FeatureView("v", Entity("k1"), TEXT_IDS, KEPT[3])
    few, many = (max(_stored(view, _steady(count), "1s")[0].values(), key=len) for count in (120, 600))
    assert len(many) < len(few) * 3


@given(st.lists(st.none() | st.binary(min_size=12, max_size=30), max_size=8), st.integers(0, 6), st.integers(1, 6))
def test_bytes_are_gathered_from_either_end(values, start, size):
    """So many from a byte on, or the last ones; zeros stand for a key without a value."""
    for gather in {merge._gather, merge.gather}:
        assert gather(values, start, size) == b"".join((value or bytes(12))[start : start + size] for value in values)
        assert gather(values, -size, size) == b"".join((value or bytes(12))[-size:] for value in values)


@needs_kernel
@pytest.mark.parametrize(("start", "size"), [(0, 4), (-4, 4), (2, 2), (4, 0), (-1, 2), (0, -1)])
def test_a_value_that_is_too_short_is_refused(start, size):
    """The kernel reads no byte that is not the value's."""
    with pytest.raises(ValueError, match="taken"):
        kernel.gather([b"abc"], start, size)


MOMENTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=6)


@needs_kernel
@settings(max_examples=400)
@given(MOMENTS, MOMENTS, st.integers(-1, 12), st.integers(0, 12), st.booleans())
def test_which_rows_are_cut_off(old, new, limit, floor, newest):
    """Those before the limit, the last of which becomes the base; the newest that every request sees stays."""
    rows = [(NEVER, NEVER), *sorted(old), *((event + 9, known + 9) for event, known in sorted(new))]
    gone = sum(event < limit for event, _ in rows[1:])
    settled = [place for place, row in enumerate(rows[1:]) if max(row) < floor]
    if newest:
        gone = min(gone, settled[-1]) if settled else 0
    words = np.array(rows, dtype=np.int64)
    rules = {"words": 2, "cut": newest, "limit": limit, "floor": floor, "known": 1}
    part = {"stop": len(new), "kept": 1 + len(old), "flags": 0}
    blob = bytes(48) + words[: 1 + len(old)].tobytes()
    blocks, left = _assemble(blob=blob, rules=rules, part=part, rows=words[1 + len(old) :])
    assert not left
    assert blocks[0] == struct.pack("=6q", len(rows) - gone - 1, 0, 5, 0, 0, 0) + words[gone:].tobytes()


RULES = {"words": 4, "head": 48, "cut": 0, "limit": 0, "floor": 0, "known": 0, "delay": 0, "garbage": 4}
PART = {"stop": 1, "begin": 48, "kept": 1, "flags": 1, "visible": 5, "held": 0}
BLOB = bytes(48) + bytes(64)


def _assemble(*, blob=BLOB, rules=(), part=(), rows=None, texts=()):
    rules, part = RULES | dict(rules), PART | dict(part)
    words = np.zeros((1, 4), dtype=np.int64) if rows is None else rows
    return kernel.assemble(
        struct.pack("=8q", *rules.values()),
        bytes(8),
        bytes(32 if rows is None else 16),
        [blob],
        words,
        struct.pack("=6q", *part.values()),
        texts,
    )


@needs_kernel
@pytest.mark.parametrize(
    "wrong",
    [
        {"part": {"stop": 2}},
        {"part": {"stop": 0}},
        {"part": {"stop": -(1 << 63)}},
        {"part": {"begin": 40}},
        {"part": {"begin": 200}},
        {"part": {"kept": 0}},
        {"part": {"kept": 3}},
        {"part": {"kept": 1 << 62}},
        {"rules": {"words": 0}},
        {"rules": {"words": 1 << 62}},
        {"rules": {"head": 40}},
        {"rules": {"cut": 3}},
        {"rules": {"known": 4}},
        {"blob": b"short"},
        {"blob": "text"},
        {"texts": ((b"abc", struct.pack("=2q", 0, 4)),)},
        {"texts": ((b"abc", struct.pack("=2q", 2, 1)),)},
        {"texts": ((b"abc", struct.pack("=2q", -1, 1)),)},
        {"texts": ((b"abc", struct.pack("=1q", 0)),)},
    ],
)
def test_the_kernel_takes_no_number_on_trust(wrong):
    """Numbers that point outside the bytes are refused, not followed."""
    assert len(_assemble()[0][0]) == 48 + 64
    with pytest.raises(ValueError, match=r"outside|rules|edge"):
        _assemble(**wrong)
