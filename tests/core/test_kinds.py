"""One vocabulary of kinds: every word that is stored maps to it, and values are read strictly."""

from datetime import date

import pyarrow as pa
import pytest

from retrodict.core.errors import InputError
from retrodict.core.kinds import KINDS, arrow_type, column_word, kind_error, kind_of, reader_of, request_word


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_stored_in_a_type_of_that_kind(kind):
    """There and back again; the words of definitions and requests agree with the type."""
    assert kind_of(arrow_type(kind)) == kind
    assert column_word(arrow_type(kind)) == KINDS[kind].column_word
    assert request_word(arrow_type(kind)) == KINDS[kind].request_word


def test_what_has_no_kind_keeps_arrows_name():
    """Bytes are no kind: text in a request, Arrow's name in a profile."""
    assert (kind_of(pa.binary()), column_word(pa.binary()), request_word(pa.binary())) == ("other", "binary", "text")
    assert kind_of(pa.null()) == "null"


def test_a_list_has_a_kind_if_it_holds_numbers():
    """Of any list type; one of text, of lists or of times has none."""
    numbers = [pa.list_(pa.int8()), pa.large_list(pa.float32()), pa.list_(pa.float64(), 3), pa.list_(pa.null())]
    others = [pa.list_(pa.string()), pa.list_(pa.list_(pa.int8())), pa.list_(pa.timestamp("us")), pa.list_(pa.bool_())]
    assert [kind_of(type_) for type_ in (*numbers, *others)] == ["list"] * 4 + ["other"] * 4
    assert reader_of("list")([1, None, 2.5]) == [1.0, None, 2.5]
    assert "a list of numbers" in str(kind_error("list", "x", where="row 1"))


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("bool", 1, False), ("bool", "yes", True), ("int", True, False), ("int", 1.5, False), ("int", "1", False),
        ("int", 2**63, False), ("int", float("inf"), False), ("int", "1.5", True), ("float", True, False),
        ("float", "1", False), ("float", 10**400, False), ("float", "x", True), ("text", 1, True),
        ("time", "2013-09-01T18:00", False), ("time", 5, False), ("date", "yesterday", False), ("date", 5, True),
        ("list", "1,2", True), ("list", [1, "x"], False), ("list", [True], False),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(kind, value, text):
    """Nothing is bent, and no other exception comes out than the two that callers expect."""
    with pytest.raises((TypeError, ValueError)):
        reader_of(kind, text=text)(value)


def test_values_are_read_with_their_kind():
    """Numbers and truth values come as text only from files."""
    assert reader_of("int")(7.0) == 7
    assert [reader_of(kind, text=True)(text) for kind, text in (("int", "7"), ("float", "7"), ("bool", " True "))] == [
        7, 7.0, True,
    ]  # fmt: skip
    assert reader_of("date")("2013-09-01") == date(2013, 9, 1)


def test_the_error_names_the_kind_and_never_the_value():
    """Type of the value only."""
    with pytest.raises(InputError) as caught:
        raise kind_error("int", "s3cret", where="row 3")
    assert str(caught.value) == (
        "row 3: the value must be a whole number of 64 bits or null; got 'str'. Send a whole number of 64 bits."
    )
