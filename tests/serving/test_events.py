"""Pushed events: whole bodies or nothing, typed by their table, durable when the push returns."""

import asyncio
import json
import re

import pyarrow as pa
import pytest

from retrodict.core.errors import InputError, NotFoundError, RetryableError
from retrodict.features.definitions import FeatureView
from retrodict.features.online import stream_of
from retrodict.features.operations.pushed_events import push_events
from retrodict.serving import events
from retrodict.serving.events import EventInlet
from retrodict.stores import _durable
from retrodict.workspace import Workspace

EVENT = {"id": "new", "depot": "west", "weight": 3, "express": False, "delay": 9.5,
         "sent": "2024-02-19T10:00Z", "arrived": "2024-02-20T09:00Z"}  # fmt: skip


@pytest.fixture
def inlet(deployed):
    with Workspace(deployed) as workspace:
        opened = EventInlet(workspace)
        yield opened
        opened.close()


def push(inlet, rows, table="parcels"):
    return asyncio.run(inlet.push(table, json.dumps(rows).encode()))


def test_events_are_appended_in_order_and_counted(inlet, deployed):
    """The end is where the next one goes; another reader sees them at once."""
    before = push(inlet, [])["end"]
    answer = push(inlet, [EVENT, {**EVENT, "id": "newer"}])
    assert answer == {"accepted": 2, "stream": stream_of("parcels"), "end": before + 2}
    with Workspace(deployed) as other:
        records = [data for _, data in other.events.read(stream_of("parcels"), before)]
    assert [b"newer" in record for record in records] == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": "heavy"},
        {"express": 1},
        {"sent": "yesterday"},
        {"sent": "2024-02-19T10:00"},
        {"id": 5},
        {"colour": "red"},
    ],
)
def test_one_wrong_event_refuses_the_body(inlet, wrong):
    """The error names event and column; what was sent is not repeated."""
    before = push(inlet, [])["end"]
    with pytest.raises(InputError, match="event 1 of the body") as caught:
        push(inlet, [EVENT, {**EVENT, **wrong}])
    assert not any(str(value) in str(caught.value) for value in wrong.values() if isinstance(value, str))
    assert push(inlet, [])["end"] == before


def test_a_column_that_stands_twice_in_an_event_refuses_the_body(inlet):
    """Nothing says which of the two values is meant."""
    before = push(inlet, [])["end"]
    body = json.dumps([EVENT]).replace('"weight": 3', '"weight": 3, "weight": 4').encode()
    with pytest.raises(InputError, match="a name must stand once in an object"):
        asyncio.run(inlet.push("parcels", body))
    assert push(inlet, [])["end"] == before


def test_an_unknown_table_has_near_names(inlet):
    """So has a wrong address."""
    with pytest.raises(NotFoundError, match="'parcels'"):
        push(inlet, [EVENT], "parcel")


def test_lags_count_what_is_not_in_the_state(inlet):
    """Per source that a deployed policy reads."""
    before = inlet.lags()["arrived"]["lag"]
    push(inlet, [EVENT])
    assert inlet.lags()["arrived"]["lag"] == before + 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'[{"weight": NaN}]', r"got 'NaN at byte 12'. JSON has no such number: send null"),
        (b'[{"weight": -Infinity}]', r"got 'Infinity at byte 13'. JSON has no such number: send null"),
        (b'[{"weight": 1}, {"weight": 1e999}]', "event 1 of the body: .*got 'a number beyond the range of doubles'"),
        (b'[{"weight": 1}, {"weight": [1]}]', "event 1 of the body: .*got 'array'. Send bool or int or float or text"),
        (b'[{"weight": 1}', r"got 'Input data was truncated'. Send \[\{...\}, \{...\}\]"),
        (b'{"weight": 1}', "body: the body must be a JSON list of flat objects.*got 'object'. Send array"),
    ],
)
def test_a_body_that_is_no_list_of_events_says_why(inlet, body, message):
    """A number that JSON does not have is named, with its place; so is the event that is not flat."""
    with pytest.raises(InputError, match=message):
        asyncio.run(inlet.push("parcels", body))


CHECKED = """
from retrodict import *

sales = Table("sales", key="id", columns={"id": "int", "shop": "string", "at": "time", "amount": "float"},
              checks=[Check.between("amount", 0, 100), Check.in_set("shop", ["a", "b"], severity="low")])
sold = Source("sold", sales, event_time="at", sequence="id")
taken = FeatureView("taken", Entity("shop"), sold, [agg.sum("amount", over="1d"), agg.max("id * id", over="1d"),
                                                    agg.count(where="id + 4 > 0", over="1d")])
"""


def test_an_event_passes_the_checks_of_its_table(make_project):
    """What a batch would set aside is refused, over HTTP with its body; a check that only warns lets it pass.

    So is what overflows an expression of a view: taken in, it would stop every view of the source.
    """
    workspace = make_project(CHECKED)
    sale = {"id": 1, "shop": "z", "at": "2024-03-01T08:00:00Z", "amount": 5.0}
    inlet = EventInlet(workspace)
    for wrong, title in (({"amount": -1.0}, "between(amount, 0, 100)"), ({"id": None}, "not_null(id)"),
                         ({"id": 2**32}, "id * id"), ({"id": 2**63 - 2}, "id + 4 > 0")):  # fmt: skip
        with pytest.raises(InputError, match=rf"event 1 of the body.*{re.escape(title)}") as caught:
            push(inlet, [sale, {**sale, **wrong}], "sales")
        assert "-1" not in str(caught.value)
    assert push(inlet, [sale], "sales")["end"] == 1
    inlet.close()
    rows = pa.table({"id": [2, 3, 2**32], "shop": ["a"] * 3, "at": [sale["at"]] * 3, "amount": [7.0, 700.0, 7.0]})
    (view,) = workspace.definitions.of(FeatureView)
    report = push_events(workspace, view.source, [view], rows)
    assert (report.accepted, [refusal.reason for refusal in report.reasons]) == (
        1,
        ["it fails between(amount, 0, 100)", "it fails id * id (a whole number must fit in 64 bits)"],
    )


def test_the_first_push_to_a_full_disk_may_come_again(inlet, monkeypatch):
    """The stream has no segment yet: the answer is 503 as later, not 500."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(events, "stream_of", lambda _: "events/fresh")
    with monkeypatch.context() as full:
        full.setattr(_durable, "write_draft", refuse)
        with pytest.raises(RetryableError, match="No space left"):
            push(inlet, [EVENT])
    assert push(inlet, [EVENT])["end"] == 1
