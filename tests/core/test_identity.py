"""Identity: hashes of content, references people type, ids that sort by time."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.forks import forked

from retrodict.core.clock import SimulatedClock
from retrodict.core.definition import Definition, check_name
from retrodict.core.errors import DefinitionError, InputError, InternalError
from retrodict.core.identity import Ref, UlidFactory, canonical_json, content_hash, digest, digest_file, encode, short

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(VALUES)
def test_canonical_json_is_json_that_says_the_same(value: object) -> None:
    """ASCII, no white space outside texts, and read back to an equal value of equal types."""
    data = canonical_json(value)
    assert data.isascii()
    assert json.loads(data) == value
    if not isinstance(value, str | list | dict):
        assert type(json.loads(data)) is type(value)


@given(st.dictionaries(st.text(), SCALARS, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, object], random: object) -> None:
    """Two dicts that are equal have one hash."""
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert canonical_json(dict(items)) == canonical_json(value)


def test_the_form_is_fixed_for_good() -> None:
    """A change of the form would change every version and break every chain."""
    value = {"b": [1, 1.0, True, None, -0.0, 1e-7], "a": "é\n\u2028"}
    assert canonical_json(value) == b'{"a":"\\u00e9\\n\\u2028","b":[1,1.0,true,null,-0.0,1e-07]}'
    assert content_hash(value) == hashlib.sha256(canonical_json(value)).hexdigest()


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"x", object(), {("a",): 1}])
def test_what_is_not_plain_is_refused(value: object) -> None:
    """A hash of something unstable is worse than none."""
    with pytest.raises(InternalError, match="plain JSON"):
        canonical_json(value)


class _Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class _Thing:
    size: int
    parts: tuple[object, ...] = ()
    note: str = field(default="", metadata={"identity": False})


@dataclass(frozen=True)
class _Other:
    size: int
    parts: tuple[object, ...] = ()


@dataclass(frozen=True)
class _Noun(Definition):
    kind = "noun"
    size: int = 0
    owner: str = field(default="", metadata={"identity": False})


def test_a_definition_is_its_class_and_its_fields() -> None:
    """Nested, with enums, sets and tuples; comments stay out; another class is another thing."""
    thing = _Thing(1, (_Color.RED, {"b", "a"}, {"k": _Thing(2)}))
    assert encode(thing) == {
        "kind": "_Thing",
        "size": 1,
        "parts": ["red", ["a", "b"], {"k": {"kind": "_Thing", "size": 2, "parts": []}}],
    }
    assert content_hash(_Thing(1, note="x")) == content_hash(_Thing(1))
    assert content_hash(_Thing(1)) != content_hash(_Other(1))
    assert content_hash(_Thing(1)) != content_hash(_Thing(1.0))  # type: ignore[arg-type]


def test_keys_that_would_become_one_are_refused() -> None:
    """1 and "1" are two keys in Python and one in JSON: silently dropping either would give two things one hash."""
    with pytest.raises(InternalError, match="differ as text"):
        encode({1: "a", "1": "b"})


def test_the_version_of_a_definition_is_its_hash() -> None:
    """Equal content, equal version; the owner is not content."""
    assert _Noun("a", 1, owner="x").version == _Noun("a", 1).version == content_hash(_Noun("a", 1))
    assert _Noun("a", 1).version != _Noun("b", 1).version


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "a b", "a__b", "a" * 64, None, 3, "ä", "a\n", "_a"])
def test_a_name_can_stand_everywhere(name: object) -> None:
    """In paths, URLs, SQL and metrics; anything else is refused."""
    with pytest.raises(DefinitionError, match="lower-case letters"):
        check_name(name, what="table")
    assert check_name("late_arrival2", what="table") == "late_arrival2"


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("dataset:flights@12", None, Ref("dataset", "flights", "12")),
        ("flights@12", "dataset", Ref("dataset", "flights", "12")),
        ("flights", "dataset", Ref("dataset", "flights")),
        ("policy:warn#3", None, Ref("policy", "warn#3")),
        ("segment:decisions/0/1.seg", None, Ref("segment", "decisions/0/1.seg")),
    ],
)
def test_a_reference_is_read_and_written(text: str, kind: str | None, wanted: Ref) -> None:
    """With or without its kind and version."""
    assert Ref.parse(text, kind=kind) == wanted
    assert Ref.parse(str(wanted)) == wanted


@pytest.mark.parametrize("text", ["", "flights", ":x", "a:", "a:@1", "a:b@", "run:x"])
def test_a_reference_with_an_empty_part_or_another_kind_is_refused(text: str) -> None:
    """The message shows the form."""
    with pytest.raises(InputError, match="Write it like"):
        Ref.parse(text, kind="model" if text == "run:x" else None)


def test_ulids_are_unique_sorted_and_carry_the_time() -> None:
    """Also while the clock stands still, and when it goes back."""
    clock = SimulatedClock(1_700_000_000_123_000)
    new = UlidFactory(clock)
    first = [new() for _ in range(1000)]
    clock._now -= 5_000_000
    made = [*first, *(new() for _ in range(10))]
    assert made == sorted(set(made))
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    stamp = sum(letters.index(c) * 32 ** (9 - i) for i, c in enumerate(first[0][:10]))
    assert stamp == 1_700_000_000_123


def test_ulids_of_two_factories_differ() -> None:
    """Even at the same instant, and at instant 0 of a simulated clock."""
    for instant in (0, 1_700_000_000_000_000):
        assert UlidFactory(SimulatedClock(instant))() != UlidFactory(SimulatedClock(instant))()


def test_a_forked_child_does_not_repeat_its_parent() -> None:
    """Both would count on from the same number within a millisecond."""
    new = UlidFactory(SimulatedClock(1_700_000_000_000_000))
    new()
    reader, writer = os.pipe()
    with forked() as child:
        if child == 0:
            os.write(writer, new().encode())
    assert os.read(reader, 26).decode() != new()
    os.close(reader)
    os.close(writer)


def test_digests_are_sha256(tmp_path: Path) -> None:
    """Of bytes and of files, and the short form is its beginning."""
    (tmp_path / "f").write_bytes(b"abc")
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert digest(b"abc") == digest_file(tmp_path / "f") == wanted
    assert short(wanted) == "ba7816bf8f01"
