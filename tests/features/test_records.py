"""Records of a stream as columns: in C and in Python the same table, or the same refusal."""

import struct

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.core.native import kernel
from retrodict.data.definitions import Table
from retrodict.data.sources import Source
from retrodict.features.online import encode_event
from retrodict.features.online.write import records as records_module
from retrodict.features.online.write.records import EventDecoder

needs_kernel = pytest.mark.skipif(kernel is None, reason="this machine has no compiler, so Python does the work")
DECLARED = {"b": "bool", "d": "date", "f": "float", "i": "int", "s": "string", "t": "time"}
SOURCE = Source("s", Table("events", key="i", columns=DECLARED), event_time="t")
COLUMNS = [*DECLARED, "free", "é"]

whole = st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0, -1, -33, 127, 128, 2**53, 2**53 + 1])
real = st.floats() | st.floats(width=32)
text = st.text(max_size=40)
usual = {
    "b": st.booleans(),
    "d": st.dates().map(str),
    "f": real | st.integers(-9, 9),
    "i": st.integers(-(2**63), 2**63 - 1),
    "s": text,
    "t": st.integers(-(2**40), 2**40),
    "free": real,
    "é": text,
    "other": whole | text | st.binary(max_size=20),
}
anything = st.recursive(
    st.none() | st.booleans() | whole | real | text | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
usual_rows = st.lists(st.fixed_dictionaries({}, optional={n: st.none() | v for n, v in usual.items()}), max_size=8)
# One column of one row may hold anything at all.
odd_rows = st.builds(
    lambda rows, name, value: [*rows, {name: value}],
    usual_rows,
    st.sampled_from([*COLUMNS, "other"]),
    anything,
)


def _decoded(records, *, python=False):
    """Table, or what went wrong."""
    with pytest.MonkeyPatch.context() as patch:
        if python:
            patch.setattr(records_module, "kernel", None)
        try:
            return EventDecoder(SOURCE, COLUMNS).decode(records)
        except (msgspec.MsgspecError, InputError) as error:
            return f"{type(error).__name__}: {error}"


def _same(records):
    fast, slow = _decoded(records), _decoded(records, python=True)
    assert type(fast) is type(slow)
    if isinstance(fast, str):
        assert fast == slow
        return
    assert fast.schema == slow.schema
    for name in fast.column_names:  # NaN is a value like others here
        assert repr(fast.column(name).to_pylist()) == repr(slow.column(name).to_pylist())
        fast.column(name).validate(full=True)


@needs_kernel
@settings(max_examples=300, deadline=None)
@given(usual_rows | odd_rows)
def test_a_table_does_not_depend_on_the_kernel(rows):
    """Values, types and nulls of rows with what their columns are declared to hold, and with anything else."""
    _same([msgspec.msgpack.encode(row) for row in rows])


@needs_kernel
@settings(max_examples=300, deadline=None)
@given(usual_rows.filter(bool), st.data())
def test_damaged_records_are_judged_by_python(rows, data):
    """A byte that is another one, a record cut off or with more behind it: never a table of the kernel's own."""
    records = [msgspec.msgpack.encode(row) for row in rows]
    at = data.draw(st.integers(0, len(records) - 1))
    damaged = bytearray(records[at])
    place = data.draw(st.integers(0, len(damaged) - 1))
    match data.draw(st.sampled_from(["byte", "cut", "more"])):
        case "byte":
            damaged[place] = data.draw(st.integers(0, 255))
        case "cut":
            del damaged[place:]
        case "more":
            damaged += data.draw(st.binary(min_size=1, max_size=3))
    _same([*records[:at], bytes(damaged), *records[at + 1 :]])


@pytest.mark.parametrize(
    ("tag", "code"),
    [(0xD0, "b"), (0xD1, "h"), (0xD2, "i"), (0xD3, "q"), (0xCC, "B"), (0xCD, "H"), (0xCE, "I"), (0xCF, "Q")],
)
def test_whole_numbers_of_any_width(tag, code):
    """Writers in other languages need not choose the shortest form."""
    record = b"\x81\xa1i" + bytes([tag]) + struct.pack(f">{code}", 100)
    assert _decoded([record]).column("i").to_pylist() == [100]


@pytest.mark.parametrize("head", [b"\xd9\x02", b"\xda\x00\x02", b"\xdb\x00\x00\x00\x02", b"\xa2"])
@pytest.mark.parametrize("map_head", [b"\x82", b"\xde\x00\x02", b"\xdf\x00\x00\x00\x02"])
def test_text_and_maps_of_any_width(head, map_head):
    """Heads of one, two and four bytes; of text as a name, too."""
    record = map_head + b"\xd9\x01s" + head + b"ab" + b"\xa1f" + b"\xca" + struct.pack(">f", 1.5)
    table = _decoded([record])
    assert (table.column("s").to_pylist(), table.column("f").to_pylist()) == (["ab"], [1.5])


def test_values_arrive_as_they_were_sent():
    """Of every declared type, and of a column that no table declares."""
    rows = [
        {"b": True, "d": "2013-08-31", "f": 0.5, "i": -(2**63), "s": "é\0", "t": 7, "free": "x", "other": [{}, "y"]},
        {"b": None, "d": None, "f": None, "i": None, "s": None, "t": None, "free": None},
        {},
        {"b": False, "f": 3, "i": 2**63 - 1, "s": ""},
    ]
    table = EventDecoder(SOURCE, [*DECLARED, "free"]).decode([encode_event(row) for row in rows])
    expected = [{name: row.get(name) for name in [*DECLARED, "free"]} for row in rows]
    found = table.cast(
        pa.schema([table.schema.field(n) if n not in "td" else (n, pa.string()) for n in table.schema.names])
    )
    times = [None if row["t"] is None else "1970-01-01 00:00:00.000007Z" for row in expected]
    assert [row | {"t": time} for row, time in zip(expected, times, strict=True)] == found.to_pylist()
    assert [str(field.type) for field in table.schema] == [
        "bool",
        "date32[day]",
        "double",
        "string",
        "int64",
        "string",
        "timestamp[us, tz=UTC]",
    ]


@needs_kernel
@pytest.mark.parametrize("values", [("a", "b"), ("a", None), (None, "a"), ("", "")])
def test_a_column_that_a_record_has_twice(values):
    """The last one counts, as in Python."""
    record = b"\x82" + b"".join(b"\xa1s" + msgspec.msgpack.encode(value) for value in values)
    _same([record, msgspec.msgpack.encode({"s": "after"})])
    assert _decoded([record]).column("s").to_pylist() == [values[1]]


@pytest.mark.parametrize("name", ["s", "free", "d"])
def test_text_that_is_not_utf_8_is_no_event(name):
    """Bytes that are no text, wherever text may be, are refused without a word of them."""
    record = b"\x81" + msgspec.msgpack.encode(name) + b"\xa2\xc3\x28"
    with pytest.raises(msgspec.MsgspecError, match=r"^a text is not UTF-8$"):
        EventDecoder(SOURCE, COLUMNS).decode([encode_event({"s": "a"}), record])


@needs_kernel
def test_what_is_usual_goes_through_the_kernel(monkeypatch):
    """A row as feeders write it is not read by Python, and one with an odd value is."""
    asked = []
    monkeypatch.setattr(records_module, "tabulate", lambda *a: asked.append(a))
    decoder = EventDecoder(SOURCE, DECLARED)
    decoder.decode([encode_event({"b": True, "d": "2013-08-31", "f": 1, "i": 1, "s": "a", "t": 1, "u": [1, {"a": 2}]})])
    assert not asked
    for odd in ({"i": 1.5}, {"i": 2**63}, {"f": True}, {"s": b"a"}, {"s": 1}, {"b": 1}, {"t": [1]}):
        decoder.decode([encode_event(odd)])
    assert len(asked) == 7
