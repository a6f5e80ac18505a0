"""Segments that are not sealed yet: what is signed of them cannot be altered unseen, also over a kill and a restart."""

from __future__ import annotations

import json
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrodict.core.clock import SystemClock
from retrodict.core.errors import NotFoundError
from retrodict.decisions.log import read_decisions
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.decisions.seals import seal_decisions
from retrodict.ledger import SealedWriter, named_segments
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.workspace import Workspace

Wheres = Callable[[Workspace], set[tuple[str, str]]]
Python = Callable[..., Any]
DAY = 86_400_000_000

FILL = """
import sys, time
from retrodict.ledger import SealedWriter
from retrodict.workspace import Workspace
project = Workspace(sys.argv[1])
with SealedWriter(project.ledger, project.streams, "decisions/0", sign_every=int(sys.argv[2])) as writer:
    for number in range(10):
        writer.append([b"record %d" % number])
    time.sleep(0.5)
    print("signed", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def project(make_project: Callable[..., Workspace]) -> Workspace:
    return make_project(clock=SystemClock())


@pytest.fixture
def killed(project: Workspace, python: Python) -> Workspace:
    """Ten records of a writer that was killed after it signed them."""
    child = python(FILL, project.root, 50_000)
    assert child.line() == "signed"
    child.kill()
    return project


def folder(project: Workspace, stream: str = "decisions/0") -> Path:
    return project.root / "state" / "streams" / stream


def segment(project: Workspace, first: int = 0) -> Path:
    return folder(project) / f"{first:020d}.seg"


def frame(record: bytes) -> bytes:
    """A record as it lies in a segment, by the words of _frames and nothing of its code."""
    length = struct.pack("<I", len(record))
    return length + struct.pack("<I", zlib.crc32(length + record)) + record


def header(first: int) -> bytes:
    body = b"RTDSEG\x00\x01" + struct.pack("<Q", first)
    return body + struct.pack("<I", zlib.crc32(body))


def forge(path: Path, old: bytes, new: bytes) -> None:
    """Put another record of the same length in the place of one, checksum and all."""
    data = path.read_bytes()
    assert frame(old) in data
    path.write_bytes(data.replace(frame(old), frame(new)))


def put_by_hand(project: Workspace, stream: str, first: int, records: list[bytes]) -> None:
    folder(project, stream).mkdir(parents=True, exist_ok=True)
    path = folder(project, stream) / f"{first:020d}.seg"
    path.write_bytes(header(first) + b"".join(map(frame, records)))


# sealing in time ----------------------------------------------------------------------------------------------


def test_what_is_sealed_is_what_was_written(project: Workspace, wheres: Wheres) -> None:
    """Three segments are full before any is sealed, and a record of each is altered meanwhile."""
    streams = SegmentStreams(project.root / "state" / "streams", segment_bytes=1)
    with SealedWriter(project.ledger, streams, "decisions/0", sign_every=DAY) as writer:
        for number in range(4):
            writer.append([b"say no %d" % number, b"and more"])
        for first in (0, 2, 4):
            forge(segment(project, first), b"say no %d" % (first // 2), b"say ye %d" % (first // 2))
    assert [seal.first for seal in writer.seals] == [0, 2, 4, 6]
    expected = {("altered", f"segment decisions/0/{first:020d}.seg (entry {first // 2 + 2})") for first in (0, 2, 4)}
    assert wheres(project) == expected


def test_segments_are_sealed_while_the_writer_goes_on(project: Workspace, wheres: Wheres) -> None:
    """When they are full, and when they are old enough; one without records is not."""
    streams = SegmentStreams(project.root / "state" / "streams", segment_bytes=1)
    with SealedWriter(project.ledger, streams, "decisions/0", sign_every=10_000, seal_every=100_000) as writer:
        for number in range(3):
            writer.append([b"record %d" % number])
        wait(lambda: len(writer.seals) == 3)
        assert [seal.count for seal in writer.seals] == [1, 1, 1]
        time.sleep(0.3)
        assert len(project.ledger.entries(action="segment.seal")) == 3
        assert wheres(project) == set()
    assert wheres(project) == set()


def test_a_database_that_is_held_does_not_hold_up_an_append(project: Workspace, wheres: Wheres) -> None:
    """What could not be sealed meanwhile is sealed later, and is signed until then."""
    streams = SegmentStreams(project.root / "state" / "streams", segment_bytes=1)
    with SealedWriter(project.ledger, streams, "decisions/0", sign_every=10_000) as writer:
        with project.records.write():
            for number in range(3):
                writer.append([b"record %d" % number])
            time.sleep(0.1)
            assert writer.seals == []
            assert len(named_segments(project.ledger, "decisions/0") or ()) == 3
        wait(lambda: len(writer.seals) == 2)
        assert wheres(project) == set()


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# the signed head ----------------------------------------------------------------------------------------------


def test_open_segments_are_reported(project: Workspace, audit: Callable[[Workspace], Any]) -> None:
    """Up to which record they are signed, how many are not, how long ago that was."""
    with SealedWriter(project.ledger, project.streams, "decisions/0", sign_every=DAY) as writer:
        writer.append([b"one", b"two"])
        writer._sign()
        writer.append([b"three"])
        report = audit(project)
        (line,) = report.to_dict()["open"]
        assert (line["stream"], line["signed"], line["unsigned"]) == ("decisions/0", 2, 1)
        assert 0 < line["age_us"] < 60_000_000
        assert report.verified
        assert "open segment" in str(report)


def test_a_writer_that_was_killed(killed: Workspace, audit: Callable[[Workspace], Any]) -> None:
    """Nothing was altered: it verifies before and after the next writer sealed what was left."""
    (line,) = audit(killed).open
    assert (line.signed, line.unsigned) == (10, 0)
    (seal,) = seal_decisions(killed).seals
    assert seal.count == 10
    assert audit(killed).verified
    assert audit(killed).open == []
    assert killed.ledger.entries(action="segment.seal")[0].payload["signed"]["count"] == 10
    assert seal_decisions(killed).seals == []


def test_a_record_altered_after_a_kill(killed: Workspace, wheres: Wheres) -> None:
    """Seen before the restart, sealed as it is found by it, and a finding from then on, also when it is put back."""
    forge(segment(killed), b"record 3", b"record X")
    assert wheres(killed) == {("altered", f"segment decisions/0/{segment(killed).name}")}
    with LogWriter(killed) as writer:
        writer.append([b"later"])
        assert wheres(killed) == {("altered", f"segment decisions/0/{segment(killed).name} (entry 2)")}
    assert wheres(killed) == {("altered", f"segment decisions/0/{segment(killed).name} (entry 2)")}
    forge(segment(killed), b"record X", b"record 3")
    assert wheres(killed) == {("altered", f"segment decisions/0/{segment(killed).name} (entry 2)")}


def test_a_damaged_record_after_a_kill(killed: Workspace, wheres: Wheres) -> None:
    """It cannot be sealed; the heads that follow go on naming it."""
    path = segment(killed)
    path.write_bytes(path.read_bytes().replace(b"record 3", b"record X"))
    for _ in range(2):
        with LogWriter(killed) as writer:
            writer.append([b"later"])
        assert ("altered", f"segment decisions/0/{path.name}") in wheres(killed)


def test_records_cut_off_after_a_kill(killed: Workspace, wheres: Wheres) -> None:
    """Without the stream's own note of its end, which would refuse the next writer."""
    path = segment(killed)
    path.write_bytes(path.read_bytes()[: -2 * len(frame(b"record 9"))])
    (folder(killed) / ".head").unlink()
    assert wheres(killed) == {("cut off", f"segment decisions/0/{path.name}")}
    seal_decisions(killed)
    assert wheres(killed) == {("cut off", f"segment decisions/0/{path.name} (entry 2)")}


def test_records_appended_after_a_kill_are_counted_as_unsigned(killed: Workspace, audit: Any) -> None:
    """Nobody can tell them from what the writer appended last: the entry says how many were signed."""
    with segment(killed).open("ab") as file:
        file.write(frame(b"record A"))
    (folder(killed) / ".head").unlink()
    (line,) = audit(killed).open
    assert (line.signed, line.unsigned) == (10, 1)
    (seal,) = seal_decisions(killed).seals
    (entry,) = killed.ledger.entries(action="segment.seal")
    assert (seal.count, entry.payload["signed"]["count"]) == (11, 10)


@pytest.mark.parametrize("how", ["removed", "renamed", "swapped"])
def test_whole_segments_moved_after_a_kill(how: str, killed: Workspace, wheres: Wheres) -> None:
    """The file of a segment that was signed is gone, has another name, or is that of another one."""
    path = segment(killed)
    if how == "renamed":
        shutil.copy(path, folder(killed) / f"{3:020d}.seg")
    if how == "swapped":
        put_by_hand(killed, "decisions/1", 0, [b"record A"] * 10)
        path.write_bytes((folder(killed, "decisions/1") / path.name).read_bytes())
        shutil.rmtree(folder(killed, "decisions/1"))
    else:
        path.unlink()
    (folder(killed) / ".head").unlink()
    assert {where.partition(" (")[0] for _, where in wheres(killed)} >= {f"segment decisions/0/{path.name}"}
    seal_decisions(killed)
    assert {where.partition(" (")[0] for _, where in wheres(killed)} >= {f"segment decisions/0/{path.name}"}


@pytest.mark.parametrize("how", ["removed", "altered", "of another stream", "signed by another project"])
def test_a_head_by_other_hands(how: str, killed: Workspace, wheres: Wheres, make_project: Any) -> None:
    """It vouches for nothing, so what it named is not sealed and not read."""
    path = killed.root / "checkpoints" / "heads" / "decisions" / "0.json"
    other = make_project(folder="other")
    with SealedWriter(other.ledger, other.streams, "decisions/0") as writer:
        writer.append([b"record"])
        forged = json.loads((other.root / "checkpoints/heads/decisions/0.json").read_text())
    body = json.loads(path.read_text())
    changed = {
        "altered": {**body, "time": body["time"] + 1},
        "of another stream": {**body, "stream": "decisions/1"},
        "signed by another project": forged,
    }
    path.unlink() if how == "removed" else path.write_text(json.dumps(changed[how]))
    expected = {("unsigned", f"segment decisions/0/{segment(killed).name}")}
    expected |= set() if how == "removed" else {("altered", "head of decisions/0")}
    assert wheres(killed) == expected
    assert killed.streams.segments("decisions/0") == []
    assert seal_decisions(killed).seals == []
    with LogWriter(killed) as writer:
        writer.append([b"later"])
    assert wheres(killed) == {("unsigned", f"segment decisions/0/{segment(killed).name}")}


def test_an_older_head_put_back_beside_a_writer(project: Workspace) -> None:
    """It would leave more unsigned than its age says: the writer replaces it, also when nothing is appended."""
    path = project.root / "checkpoints" / "heads" / "decisions" / "0.json"
    with SealedWriter(project.ledger, project.streams, "decisions/0", sign_every=10_000) as writer:
        older = path.read_bytes()
        writer.append([b"one"])
        wait(lambda: json.loads(path.read_text())["prefixes"][-1]["count"] == 1)
        path.write_bytes(older)
        wait(lambda: json.loads(path.read_text())["prefixes"][-1]["count"] == 1)


def test_a_new_key_goes_on_with_the_heads_of_the_old_one(killed: Workspace, wheres: Wheres) -> None:
    """A head counts by the key of its time."""
    killed.ledger.renew_key("yearly")
    assert wheres(killed) == set()
    assert len(seal_decisions(killed).seals) == 1
    assert wheres(killed) == set()


# what nothing names -------------------------------------------------------------------------------------------


def decision(number: int, word: str = "no") -> bytes:
    plain = dict.fromkeys(("policy_version", "code", "model", "artifact", "model_code"), "0" * 64)
    return encode_record(DecisionRecord(id=f"{number:026d}", time=number, policy="ask", revision=1, entities={},
                                        context={}, features={}, decision=word, **plain))  # fmt: skip


def test_an_invented_stream_is_named_and_not_read(project: Workspace, wheres: Wheres) -> None:
    """Nor sealed, whatever process comes later."""
    with LogWriter(project) as writer:
        writer.append([decision(0)])
    put_by_hand(project, "decisions/7", 0, [decision(1, "yes")])
    put_by_hand(project, "decisions/1", 0, [decision(2, "yes")])
    names = {("unsigned", f"segment decisions/{number}/{0:020d}.seg") for number in (1, 7)}
    assert wheres(project) == names
    assert [logged.record.decision for logged in read_decisions(project)] == ["no"]
    assert seal_decisions(project).seals == []
    with LogWriter(project) as first, LogWriter(project) as second:
        assert (first.stream, second.stream) == ("decisions/0", "decisions/1")
        second.append([decision(3)])
    (aside,) = folder(project, "decisions/1").glob("*.foreign")
    names ^= {("unsigned", f"segment decisions/1/{name}") for name in (f"{0:020d}.seg", aside.name)}
    assert wheres(project) == names
    assert [logged.record.decision for logged in read_decisions(project)] == ["no", "no"]


def test_an_invented_segment_is_named_and_not_read(project: Workspace, wheres: Wheres) -> None:
    """Behind the others, with the stream's own note of its end removed; a seal in the table alone is none."""
    with LogWriter(project) as writer:
        writer.append([decision(0)])
    segment(project, 1).unlink()  # the empty one that would come next
    put_by_hand(project, "decisions/0", 1, [decision(1, "yes")])
    (folder(project) / ".head").unlink()
    name = segment(project, 1).name
    assert wheres(project) == {("unsigned", f"segment decisions/0/{name}")}
    with project.records.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO ledger_seals SELECT stream, ?, 1, 1, digest, root, sequence FROM ledger_seals", (name,)
        )
    assert [logged.record.decision for logged in read_decisions(project)] == ["no"]
    seal_decisions(project)
    assert ("unsigned", f"segment decisions/0/{name}") in wheres(project)
    with pytest.raises(NotFoundError):
        project.ledger.vouched("segment:decisions/0/") and _prove(project, 1)


def _prove(project: Workspace, offset: int) -> None:
    from retrodict.ledger import prove

    prove(project.ledger, project.streams, "decisions/0", offset)


def test_an_invented_segment_between_two_is_never_read(project: Workspace, wheres: Wheres) -> None:
    """It has the offsets of records that were sealed: those are read."""
    with LogWriter(project) as writer:
        writer.append([decision(number) for number in range(3)])
    put_by_hand(project, "decisions/0", 1, [decision(1, "yes"), decision(2, "yes")])
    assert ("unsigned", f"segment decisions/0/{segment(project, 1).name}") in wheres(project)
    assert [logged.record.decision for logged in read_decisions(project)] == ["no"] * 3


def test_a_seal_that_nobody_signed_names_nothing(project: Workspace) -> None:
    """An entry added to the database without the key: the segment that it seals is not read."""
    with LogWriter(project) as writer:
        writer.append([decision(0)])
    put_by_hand(project, "decisions/9", 0, [decision(1, "yes")])
    with project.records.write() as connection:
        row = dict(connection.exec_driver_sql(
            "SELECT * FROM ledger_entries WHERE action = 'segment.seal'").mappings().one())  # fmt: skip
        row |= {"sequence": row["sequence"] + 1, "previous": row["hash"],
                "object_id": row["object_id"].replace("decisions/0", "decisions/9"),
                "payload": row["payload"].replace("decisions/0", "decisions/9")}  # fmt: skip
        from .conftest import recomputed

        row["hash"] = recomputed(row)
        marks = ", ".join("?" * len(row))
        connection.exec_driver_sql(
            f"INSERT INTO ledger_entries ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
        )
    assert [logged.record.decision for logged in read_decisions(project)] == ["no"]
