"""Requests are decoded strictly, and what a caller sent never comes back in an error."""

import contextlib
import json
from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict import Entity, FeatureView, Source, Table, agg
from retrodict.core.clock import parse_time
from retrodict.core.errors import InputError
from retrodict.decisions.facts import _of_entity, typed_column
from retrodict.decisions.requests import RequestSchema, decode_request, unread_warnings
from retrodict.features import FeatureSet

SCHEMA = RequestSchema({"origin": "text", "customer": "int"}, {"due": "time", "amount": "number", "vip": "bool"})
GOOD = {
    "entities": {"origin": "JFK", "customer": 7},
    "context": {"due": "2013-09-01T18:00-04:00", "amount": 3, "vip": True, "note": "x"},
}
SECRET = "s3cret-value"


def send(**changes):
    return SCHEMA.check(decode_request(json.dumps({**GOOD, **changes}).encode()))


def test_a_good_request_is_typed():
    """Times become microseconds, numbers floats; unknown context passes through for the rules."""
    entities, context = send()
    assert entities == {"origin": "JFK", "customer": 7}
    assert context == {"due": parse_time("2013-09-01T22:00Z"), "amount": 3.0, "vip": True, "note": "x"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"entities": {"origin": "JFK", "origin": "LGA", "customer": 7}}',
        b'{"entities": {"origin": "JFK", "customer": 7}, "entities": {"origin": "JFK", "customer": 7}}',
        b'{"entities": {"origin": "JFK", "\\u006frigin": "JFK", "customer": 7}}',
        b'{"entities": {"origin": "a:b", "customer": 7}, "context": {"a" : 1, "a":2}}',
    ],
)
def test_a_name_that_stands_twice_is_refused(body):
    """Two readers would take two values; the name, which the caller made up, is not repeated."""
    with pytest.raises(InputError, match=r"a name must stand once in an object; got 'one that stands twice'") as error:
        decode_request(body)
    assert "origin" not in str(error.value)


def test_numbers_of_any_length_are_read_before_names_are_counted():
    """A body that is in order otherwise is not refused for a long number."""
    assert decode_request(b'{"entities": {}, "context": {"x": 1' + b"0" * 300 + b".5}}").context["x"] == float("1e300")


@pytest.mark.parametrize(
    ("time", "good"),
    [("1899-12-31T23:59:59.999999Z", False), ("1900-01-01T00:00Z", True), ("2199-12-31T23:59:59Z", True),
     ("2200-01-01T00:00Z", False), ("0001-01-01T00:00Z", False), ("9999-12-31T00:00Z", False)],
)  # fmt: skip
def test_a_time_must_be_near_ours(time, good):
    """A clock that is off by centuries is an error of the caller, not a case to decide."""
    context = {**GOOD["context"], "due": time}
    if good:
        assert send(context=context)[1]["due"] == parse_time(time)
    else:
        with pytest.raises(InputError, match=r"context, 'due': a time must be in the years 1900 to 2199"):
            send(context=context)


@pytest.mark.parametrize("value", ["LGA", "JFK", None, 5])
def test_a_context_does_not_say_who_is_asked_about(value):
    """It would be read in the place of the entity, while rules and record have the other."""
    with pytest.raises(InputError, match=r"must be an entity or a value of the context, not both.*\['origin'\]"):
        send(context={**GOOD["context"], "origin": value})


def test_null_is_a_value():
    """A null key part is allowed: its features are null."""
    assert send(entities={"origin": None, "customer": 7})[0]["origin"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"entities": {"origin": SECRET}},
        {"entities": {"origin": "JFK", "customer": SECRET}},
        {"entities": {"origin": "JFK", "customer": True}},
        {"entities": {"origin": "JFK", "customer": 2**63}},
        {"entities": {"origin": "JFK", "customer": 7, SECRET: 1}},
        {"entities": SECRET},
        {"entities": {"origin": [SECRET], "customer": 7}},
        {"context": {**GOOD["context"], "due": SECRET}},
        {"context": {**GOOD["context"], "due": "2013-09-01T18:00"}},
        {"context": {**GOOD["context"], "amount": SECRET}},
        {"context": {**GOOD["context"], "vip": 1}},
        {"context": {SECRET: 1}},
        {"context": {SECRET: {"a": 1}}},
        {SECRET: 1},
        {"explain": SECRET},
        {"key": 5},
    ],
)
def test_a_wrong_request_is_an_error_that_does_not_echo_it(changes):
    """Each is refused by name of the field, without the caller's data."""
    with pytest.raises(InputError) as caught:
        send(**changes)
    assert SECRET not in str(caught.value)
    assert "body" in str(caught.value)


def test_a_misspelled_name_is_missed_and_hinted_at():
    """What is read has to be there; further values pass, and a nearly right one is spoken of without its name."""
    with pytest.raises(InputError, match="must have context 'amount'; got 'no value of this name; a value of nearly"):
        send(context={"due": None, "ammount": 3, "vip": True})
    with pytest.raises(InputError, match=r"got 'no value of this name'\. Send it as"):
        send(context={"due": None, "note": 3, "vip": True})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"entities": {}} x', b"NaN"]
)
def test_what_is_no_request_is_an_input_error(body):
    """Malformed bodies are refused, none is another exception."""
    with pytest.raises(InputError):
        decode_request(body)


@given(st.binary(max_size=200))
def test_no_bytes_lead_to_anything_but_an_input_error(body):
    """Fuzz: a body is decoded or refused."""
    with contextlib.suppress(InputError):
        decode_request(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"context": {}}',
            "an object with entities; it may have context, .*got 'no field entities'. Send entities; GET",
        ),
        (b'{"customer": 7}', "got 'an unknown field'. .*Keys and values go into entities, by name"),
        (b'{"entities": {"customer": NaN}}', "got 'NaN at byte 26'. JSON has no such number: send null"),
        (b'{"entities": {"customer": 1e999}}', "field 'entities'.*got 'a number beyond the range of doubles'"),
    ],
)
def test_a_body_of_another_form_says_what_is_missing(body, message):
    """What must be there, what may be, and where the keys of features go."""
    with pytest.raises(InputError, match=message):
        decode_request(body)


def test_a_day_as_entity_is_its_number():
    """As a key a date is what tables and online state hold of it; as a value of rules it is its text."""
    schema = RequestSchema({"day": "date"}, {"since": "date"})
    entities, context = schema.check(
        decode_request(b'{"entities": {"day": "1970-01-03"}, "context": {"since": "20240102"}}')
    )
    assert (entities, context) == ({"day": 2}, {"since": "2024-01-02"})
    with pytest.raises(InputError, match="'day': the value must be a date in ISO 8601 or null; got 'str'"):
        schema.check(decode_request(b'{"entities": {"day": "tuesday"}, "context": {"since": null}}'))


def test_a_decision_on_a_day_is_read_again():
    """The rows of its key, and the columns that replay and parity make of a record."""
    view = FeatureView("v", Entity("day"), Source("s", Table("t", key="id"), event_time="e"), [agg.count(over="1h")])
    table = pa.table({"day": pa.array([2, 3, 2, None], pa.int32()).cast(pa.date32())})
    assert _of_entity(table, FeatureSet([view]).views[0], {"day": 2}).to_pylist() == [True, False, True, False]
    assert typed_column([2, None], "date").to_pylist() == [date(1970, 1, 3), None]
    assert typed_column(["2024-01-02"], "date").to_pylist() == ["2024-01-02"]


def test_everything_that_is_wrong_is_said_at_once():
    """A caller corrects a request once; nothing of what was sent is repeated."""
    body = {"entities": {"origin": 7, "secret": "s3cret"},
            "context": {"due": "s3cret", "amount": "s3cret", "origin": "s3cret", "long": 2**64}}  # fmt: skip
    with pytest.raises(InputError) as caught:
        SCHEMA.check(decode_request(json.dumps(body).encode()))
    text = str(caught.value)
    for name in ("'entities'", "'origin'", "'customer'", "'due'", "'amount'", "'vip'", "64 bits"):
        assert name in text
    assert "8 faults" in text
    assert "s3cret" not in text
    assert "secret" not in text


def test_a_single_fault_is_said_as_it_is():
    """Without a list of one."""
    body = {"entities": {"origin": "JFK", "customer": "x"}, "context": {"due": None, "amount": 1, "vip": True}}
    with pytest.raises(InputError, match=r"^body, entities, 'customer'"):
        SCHEMA.check(decode_request(json.dumps(body).encode()))


def test_what_nothing_reads_is_named_and_what_may_be_meant():
    """The moment of a decision by what it is in training; a long name is cut."""
    reads = frozenset(["weight", "express"])
    assert unread_warnings(["wieght", "sent", "x" * 5_000], reads, frozenset(["sent"])) == [
        "nothing that decides reads 'wieght' of the context; did you mean 'weight'?",
        "nothing that decides reads 'sent' of the context: the moment of a decision is that at which it is asked for",
        f"nothing that decides reads '{'x' * 100}' of the context",
    ]
