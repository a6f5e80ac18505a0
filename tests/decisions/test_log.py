"""Reading the decision log: the newest records, and those about a subject."""

from __future__ import annotations

from pathlib import Path

from retrodict.decisions.log import count_decisions, read_decisions, recent_decisions
from retrodict.decisions.recorder import open_stream
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.workspace import Workspace


def write_log(root: Path) -> Workspace:
    """Five decisions in each of two streams, about customers 0 to 4 and their shops."""
    (root / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    (root / "definitions.py").write_text("")
    versions = dict.fromkeys(("policy_version", "code", "model", "artifact", "model_code"), "0" * 64)
    workspace = Workspace(root)
    for stream in range(2):
        with open_stream(workspace, f"decisions/{stream}") as writer:
            writer.append([
                encode_record(DecisionRecord(
                    id=f"{stream}{number:025d}", time=number, policy="ask", revision=1, context={}, features={},
                    entities={"customer": str(number), "shop": "N"}, decision="go", **versions,
                ))
                for number in range(5)
            ])  # fmt: skip
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
