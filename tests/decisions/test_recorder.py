"""Records are durable before write() returns; groups share one sync; failures reach every waiting request."""

import asyncio

import pytest

from retrodict.core.errors import IntegrityError, NotFoundError, RetryableError
from retrodict.decisions.log import decisions_table, find_decision, read_decisions
from retrodict.decisions.recorder import LogWriter, Recorder
from retrodict.decisions.records import DecisionRecord, decode_record, encode_record


def record(number: int, **changes) -> DecisionRecord:
    given = {
        "id": f"{number:026d}",
        "time": 1_000_000 * number,
        "policy": "p",
        "revision": 1,
        "policy_version": "v",
        "code": "c",
        "model": "m@1",
        "artifact": "a",
        "model_code": "mc",
        "entities": {"origin": "JFK"},
        "context": {},
        "features": {"a__b": 1.5, "a__c": None, "a__d": "x"},
        "decision": "ok",
        "score": 0.25,
        "raw": 0.5,
    }
    return DecisionRecord(**{**given, **changes})


@pytest.fixture
def project(make_project):
    """A project that has decided nothing yet."""
    return make_project()


def test_what_was_written_is_read_back(project):
    """A hundred concurrent writes: all are in the log, each once, whole."""
    records = [record(n) for n in range(100)]

    async def write():
        recorder = Recorder(project)
        await asyncio.gather(*(recorder.write(encode_record(r)) for r in records))
        await recorder.close()

    asyncio.run(write())
    logged = list(read_decisions(project))
    assert sorted((item.record for item in logged), key=lambda r: r.id) == records
    assert sorted(item.offset for item in logged) == list(range(100))


def test_two_servers_write_two_streams(project):
    """A second recorder takes the next free stream instead of waiting."""

    async def both():
        first, second = Recorder(project), Recorder(project)
        names = first.log.stream, second.log.stream
        await first.close()
        await second.close()
        return names

    assert asyncio.run(both()) == ("decisions/0", "decisions/1")


def test_a_failing_disk_fails_every_waiting_request(project):
    """No request is told that its record is durable when the append raised."""

    async def write():
        recorder = Recorder(project)
        writer, recorder.log._writer = recorder.log._writer, Full()
        results = await asyncio.gather(*(recorder.write(b"x") for _ in range(5)), return_exceptions=True)
        recorder.log._writer = writer
        await recorder.write(encode_record(record(1)))
        await recorder.close()
        return results

    results = asyncio.run(write())
    assert [type(result).__name__ for result in results] == ["RetryableError"] * 5
    assert [item.record.id for item in read_decisions(project)] == [record(1).id]


def test_whatever_an_append_raises_reaches_who_waits_and_the_next_one_is_written(project):
    """A thread that ended by it would leave every later request without an answer."""

    async def write():
        recorder = Recorder(project)
        append, recorder.log.append = recorder.log.append, lambda *_: (_ for _ in ()).throw(GeneratorExit)
        (first,) = await asyncio.gather(recorder.write(b"x"), return_exceptions=True)
        recorder.log.append = append
        async with asyncio.timeout(20):
            await recorder.write(encode_record(record(1)))
        await recorder.close()
        return first

    assert isinstance(asyncio.run(write()), GeneratorExit)
    assert [item.record.id for item in read_decisions(project)] == [record(1).id]


class Full:
    """A writer whose disk is full."""

    def append(self, records):
        raise OSError(28, "No space left on device")


def test_a_record_round_trips():
    """Every field survives, null and text features too."""
    given = record(7, reasons=["r"], rule="fog", fallback=None, stages={"score": 5}, key="k", explained=True)
    assert decode_record(encode_record(given)) == given


def test_a_record_of_a_newer_schema_is_refused():
    """It is not misread: the error names the number."""
    with pytest.raises(IntegrityError, match="schema"):
        decode_record(encode_record(record(1, schema=99)))


def test_bytes_that_are_no_record_are_refused():
    """Damage is an IntegrityError, not a decoding error of a library."""
    with pytest.raises(IntegrityError):
        decode_record(b"\x93\x01\x02\x03")


def test_one_decision_is_found_by_its_id(project):
    """By reference, with its place in the log; an unknown id says so."""
    with LogWriter(project) as writer:
        writer.append([encode_record(record(n)) for n in range(5)])
    found = find_decision(project, f"decision:{record(3).id}")
    assert (found.record, found.stream, found.offset) == (record(3), "decisions/0", 3)
    with pytest.raises(NotFoundError, match="log"):
        find_decision(project, f"decision:{9:026d}")


def test_decisions_as_a_table(project):
    """Sorted by time; a feature that is text once is text everywhere; a missing one is null."""
    with LogWriter(project) as writer:
        writer.append([encode_record(record(2)), encode_record(record(1, features={"a__b": 2, "a__d": None}))])
    table = decisions_table(project, "p")
    assert table.column("time").to_pylist() == [1_000_000, 2_000_000]
    assert table.column("a__b").to_pylist() == [2.0, 1.5]
    assert table.column("a__d").to_pylist() == [None, "x"]
    assert table.column("entity__origin").to_pylist() == ["JFK", "JFK"]


def test_a_failing_index_of_request_ids_fails_only_whoever_has_one(project):
    """Of a group, the caller with a claim gets the error, and its claim is let go of; the others are written."""

    class Index:
        def note(self, stream, first, claims):
            raise RetryableError("the index must have room")

    class Claim:
        index, released = Index(), 0

        def release(self):
            self.released += 1

    claim = Claim()

    async def write():
        recorder = Recorder(project)
        results = await asyncio.gather(
            recorder.write(encode_record(record(1))), recorder.write(encode_record(record(2)), claims=[claim]),
            recorder.write(encode_record(record(3))), return_exceptions=True,
        )  # fmt: skip
        await recorder.close()
        return results

    results = asyncio.run(write())
    assert [type(result).__name__ for result in results] == ["NoneType", "RetryableError", "NoneType"]
    assert [item.record.id for item in read_decisions(project)] == [record(1).id, record(3).id]
    assert claim.released == 1
