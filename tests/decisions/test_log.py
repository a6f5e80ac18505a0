"""Reading the decision log: the newest records, and those about a subject."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import NotFoundError
from retrodict.decisions.log import count_decisions, find_decision, read_decisions, recent_decisions
from retrodict.decisions.recorder import open_stream
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.workspace import Workspace


def make_folder(root: Path) -> Path:
    """A project without definitions."""
    (root / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (root / "definitions.py").write_text("")
    return root


def decided(number: int, **changes: Any) -> DecisionRecord:
    """One decision about a customer, with the number as its id and time."""
    versions = dict.fromkeys(("policy_version", "code", "model", "artifact", "model_code"), "0" * 64)
    facts = {"id": f"{number:026d}", "time": number, "policy": "ask", "revision": 1, "context": {}, "features": {},
             "entities": {"customer": str(number), "shop": "N"}, "decision": "go"}  # fmt: skip
    return DecisionRecord(**{**facts, **versions, **changes})


def write_log(root: Path) -> Workspace:
    """Five decisions in each of two streams, about customers 0 to 4 and their shops."""
    workspace = Workspace(make_folder(root))
    for stream in range(2):
        with open_stream(workspace, f"decisions/{stream}") as writer:
            writer.append([encode_record(decided(n, id=f"{stream}{n:025d}")) for n in range(5)])
    return workspace


def test_recent_decisions_are_the_newest_of_each_stream(tmp_path: Path) -> None:
    """A long log is not read from its beginning."""
    with write_log(tmp_path) as workspace:
        assert [record.time for record in recent_decisions(workspace, 2)] == [3, 4, 3, 4]
        assert len(recent_decisions(workspace)) == 10


def test_decisions_about_a_subject_are_counted_once(tmp_path: Path) -> None:
    """By every part of its key, whichever request columns hold it."""
    with write_log(tmp_path) as workspace:
        assert count_decisions(workspace, [("customer",), ("shop",)], {("3",), ("N",)}) == 10
        assert count_decisions(workspace, [("customer", "shop")], {("3", "N"), ("4", "S")}) == 2
        assert count_decisions(workspace, [("shop", "customer")], {("3", "N")}) == 0


def test_a_span_of_decisions_has_its_start_and_not_its_end(tmp_path: Path) -> None:
    """So that two spans side by side hold every decision once; of one policy or of all."""
    with write_log(tmp_path) as workspace:
        times = [item.record.time for item in read_decisions(workspace, policy="ask", start=1, end=3)]
        assert times == [1, 2, 1, 2]
        assert list(read_decisions(workspace, policy="other")) == []


def write_pieces(root: Path, streams: list[list[list[int]]]) -> Workspace:
    """A log of segments whose records have ids of these numbers, in this order."""
    workspace = Workspace(make_folder(root))
    for number, pieces in enumerate(streams):
        for piece in pieces:
            with open_stream(workspace, f"decisions/{number}") as writer:  # each writer begins a segment
                writer.append([encode_record(decided(one)) for one in piece])
    return workspace


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 60), max_size=4, unique=True), max_size=4), min_size=1, max_size=3),
       st.integers(0, 60))  # fmt: skip
def test_a_decision_is_found_wherever_it_lies(streams: list[list[list[int]]], wanted: int) -> None:
    """Also where clocks were set back, so that segments are in no order of time; and nothing else is taken for it."""
    with tempfile.TemporaryDirectory() as folder, write_pieces(Path(folder), streams) as workspace:
        ids = [number for pieces in streams for piece in pieces for number in piece]
        if wanted in ids:
            logged = find_decision(workspace, f"decision:{wanted:026d}")
            assert logged.record.id == f"{wanted:026d}"
            assert dict(workspace.streams.read(logged.stream))[logged.offset] == encode_record(logged.record)
        else:
            with pytest.raises(NotFoundError, match="a decision of this id must be in the log"):
                find_decision(workspace, f"decision:{wanted:026d}")


def test_finding_a_decision_reads_its_segment_and_not_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 segments of 10 records: the first records that a binary search asks for, and one segment."""
    with write_pieces(tmp_path, [[[*range(start, start + 10)] for start in range(0, 320, 10)]]) as workspace:
        read, records = workspace.streams.read, []

        def spy(*place: Any) -> Iterator[tuple[int, bytes]]:
            for one in read(*place):
                records.append(one)
                yield one

        monkeypatch.setattr(workspace.streams, "read", spy)
        assert find_decision(workspace, f"{257:026d}").offset == 257
        assert len(records) <= 6 + 8


def test_a_record_that_names_another_is_not_taken_for_it(tmp_path: Path) -> None:
    """One whose score was cached holds the id of the decision that the score is from."""
    with write_pieces(tmp_path, []) as workspace:
        with open_stream(workspace, "decisions/0") as writer:
            records = [decided(2, cached=f"{1:026d}"), decided(1, cached=f"{2:026d}")]
            writer.append([encode_record(record) for record in records])
        assert [find_decision(workspace, f"{n:026d}").offset for n in (1, 2)] == [1, 0]
