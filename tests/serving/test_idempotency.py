"""The same question asked twice: one decision, whoever asks, in whatever process, whatever ends in between."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.project import AT, REQUEST, make_project
from tests.serving.test_server import Server

from retrodict import Project
from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import HOUR
from retrodict.core.errors import InputError, RefusedError
from retrodict.decisions.log import read_decisions
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.requests import DecisionRequest, decode_request
from retrodict.serving import Decider, idempotency
from retrodict.serving.idempotency import RequestIndex, RequestUnderWayError, request_hash
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.workspace import Workspace

VALUES = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
NOW = parse_time("2024-02-20T10:00Z")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    make_project(folder).close()
    return folder


@pytest.fixture(scope="module")
def server(root):
    running = Server(root, "--replay", "--no-consume")
    yield running
    running.stop()


def send(server, body, request_id, policy="promise", headers=AT):
    """Status, headers and answer of a decision with a request id; asked again while the server has no time."""
    while True:
        answer = _send(server, body, request_id, policy, headers)
        if answer[0] != 429:
            return answer
        time.sleep(0.05)


def _send(server, body, request_id, policy, headers):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", f"/v1/decisions/{policy}", data, {**headers, "Idempotency-Key": request_id})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), json.loads(response.read())
    finally:
        connection.close()


def logged(root, request_id):
    """Records of a request id in the whole log."""
    with Workspace(root) as workspace:
        return [item.record for item in read_decisions(workspace) if item.record.request_id == request_id]


def test_the_second_answer_is_the_first_one_and_says_so(server, root):
    """One record; the answer of the log; other words for the same request are the same request."""
    first = send(server, REQUEST, "r-1")
    turned = json.dumps(
        {"context": {"sent": "2024-02-20T10:00Z", "express": False, "weight": 1250e-2}, "explain": False,
         "entities": {"depot": "north"}, "key": "p1"}, indent=3)  # fmt: skip
    again = [send(server, REQUEST, "r-1"), send(server, turned.encode(), '"r-1"')]
    assert first[0] == 200
    assert "idempotency-replayed" not in first[1]
    assert [(status, headers["idempotency-replayed"], answer) for status, headers, answer in again] == [
        (200, "true", first[2])
    ] * 2
    (record,) = logged(root, "r-1")
    assert record.answer() == first[2]


@pytest.mark.parametrize("change", [
    {"key": "p2"}, {"explain": True}, {"entities": {"depot": "south"}},
    {"context": {**REQUEST["context"], "weight": 13}},
])  # fmt: skip
def test_the_same_id_with_another_request_is_refused(server, root, change):
    """409, whatever differs; and nothing is recorded."""
    send(server, REQUEST, "r-2")
    status, _, answer = send(server, {**REQUEST, **change}, "r-2")
    assert (status, "the first time" in answer["error"]) == (409, True)
    assert send(server, REQUEST, "r-2", headers={"Retrodict-Time": "2024-02-20T11:00:00Z"})[0] == 409
    assert send(server, REQUEST, "r-2", policy="other")[0] == 409
    assert len(logged(root, "r-2")) == 1


def test_a_request_that_was_refused_does_not_use_up_its_id(server):
    """What was not recorded was not answered."""
    assert send(server, {"entities": {}}, "r-3")[0] == 400
    status, headers, _ = send(server, REQUEST, "r-3")
    assert (status, "idempotency-replayed" in headers) == (200, False)


@pytest.mark.parametrize("request_id", ["", '""', "x" * 201, "schl\xfcssel", "a\tb"])
def test_an_id_must_be_short_plain_text(server, request_id):
    """400, and the id is not repeated."""
    status, _, answer = send(server, REQUEST, request_id)
    assert (status, "200 printable" in answer["error"]) == (400, True)
    assert len(request_id) < 3 or request_id not in answer["error"]


def test_python_and_http_share_ids(server, root):
    """An id that was used over HTTP is answered in process, and the other way round."""
    _, _, answer = send(server, REQUEST, "r-4")
    with Project(root) as project:
        decision = project.decide("promise", key="p1", at="2024-02-20T10:00Z", request_id="r-4", **VALUES)
        assert (decision.ref, decision.replayed) == (f"decision:{answer['decision_id']}", True)
        other = project.decide("promise", key="p1", at="2024-02-20T10:00Z", request_id="r-5", **VALUES)
        assert not other.replayed
        with pytest.raises(RefusedError, match="the first time"):
            project.decide("promise", key="p1", request_id="r-5", **VALUES)
    assert send(server, REQUEST, "r-5")[2] == other.to_dict()


def test_many_processes_and_threads_decide_once(root):
    """Two servers, one of two workers, and this process get the same hundred ids at once: one record for each."""
    servers = [Server(root, "--replay", "--no-consume", *more) for more in ([], ["--workers", "2"])]
    ids = [f"many-{number}" for number in range(100)]

    def ask(number):
        return send(servers[number % 2], REQUEST, ids[number // 6])

    with Workspace(root) as workspace, Decider(workspace) as decider, ThreadPoolExecutor(14) as pool:
        answers = [pool.submit(ask, number) for number in range(600)]
        mine = [
            pool.submit(decider.decide, "promise", VALUES, key="p1", at=NOW, request_id=request_id)
            for request_id in ids
        ]  # fmt: skip
        results = [answer.result() for answer in answers]
        records = [answer.result() for answer in mine]
        count = Counter(item.record.request_id for item in read_decisions(workspace))
    for running in servers:
        running.stop()
    assert {status for status, _, _ in results} == {200}
    assert [count[request_id] for request_id in ids] == [1] * 100
    for number, (_, _, answer) in enumerate(results):
        assert answer == records[number // 6].answer()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_kill_9_and_the_same_ids_again(root, tmp_path, seed):
    """A server killed at any moment: every id is asked again of two others, and none has two records."""
    folder, rng = shutil.copytree(root, tmp_path / "parcels"), random.Random(seed)
    answered, asked = {}, []

    def ask(running, name):
        try:
            while True:
                request_id = f"{name}-{len(asked)}-{rng.random()}"
                asked.append(request_id)
                status, _, answer = send(running, REQUEST, request_id)
                assert status == 200
                answered[request_id] = answer
        except (OSError, ValueError, HTTPException):
            return

    running = Server(folder, "--replay", "--no-consume")
    threads = [threading.Thread(target=ask, args=(running, name), daemon=True) for name in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(rng.uniform(0.1, 0.6))
    running.kill()
    for thread in threads:
        thread.join()
    assert len(answered) > 5
    others = [Server(folder, "--replay", "--no-consume") for _ in range(2)]
    again = {}
    for request_id in asked:
        for other in others:
            status, _, answer = send(other, REQUEST, request_id)
            assert status == 200
            assert again.setdefault(request_id, answer) == answer
    for other in others:
        other.stop()
    assert {name: again[name] for name in answered} == answered
    with Workspace(folder) as workspace:
        count = Counter(item.record.request_id for item in read_decisions(workspace))
    assert {request_id: count[request_id] for request_id in asked} == dict.fromkeys(asked, 1)


DYING = """
import os, signal, sys
from retrodict.decisions.recorder import LogWriter, noting
from retrodict.serving import Decider
from retrodict.stores.streams import _writer
from retrodict.workspace import Workspace

if sys.argv[2] == "noted":  # the place is noted, the record is not written
    LogWriter.append = lambda self, _, before: (before(self.stream, self._writer.append([])), os.kill(os.getpid(), 9))
else:  # the record is in the file, and nobody has said so
    real = _writer.write_all
    def write_all(descriptor, data, position):
        if position == 0 and len(data) < 100 and hasattr(sys, "armed"):
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor, data, position)
    _writer.write_all = write_all
with Workspace(sys.argv[1]) as workspace, Decider(workspace) as decider:
    decider._opened()
    sys.armed = True
    decider.decide("promise", eval(sys.argv[3]), at=int(sys.argv[4]), request_id="dying")
"""


@pytest.mark.parametrize(("moment", "before"), [("noted", 0), ("written", 1)])
@pytest.mark.parametrize("busy", [False, True])
def test_a_process_that_dies_while_it_records(root, tmp_path, moment, before, busy):
    """What is in the file of a writer that died counts or not for all: never is it decided beside it a second time."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    with Workspace(folder) as workspace, LogWriter(workspace) if busy else Workspace(folder):
        # ``busy``: it dies as the writer of the second stream, which nobody opens afterwards by itself
        done = subprocess.run(
            [sys.executable, "-c", DYING, str(folder), moment, repr(VALUES), str(NOW)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
    with Workspace(folder) as workspace, Decider(workspace) as decider:
        decider.decide("promise", VALUES, at=NOW)  # which may get the place that was noted
        answer = decider.answer("promise", VALUES, at=NOW, request_id="dying")
        assert answer.replayed == bool(before)
        assert decider._writer.stream == "decisions/0"
    with Workspace(folder) as workspace, LogWriter(workspace), LogWriter(workspace):  # what is left half written is cut
        pass
    assert len(logged(folder, "dying")) == 1


def test_a_lost_index_is_made_again_from_the_log(root, tmp_path):
    """As after a loss of power, or when somebody deletes it; indices of earlier boots are removed."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    with Workspace(folder) as workspace:
        with Decider(workspace) as decider:
            records = [decider.decide("promise", VALUES, request_id=f"id-{n}") for n in range(5)]
        streams = workspace.config.path("stores.streams")
        (index,) = streams.glob(".requests-*")
        index.rename(streams / ".requests-of-another-boot")
        with Decider(workspace) as decider:
            for number, record in enumerate(records):
                answer = decider.answer("promise", VALUES, request_id=f"id-{number}")
                assert answer[:2] == (record, True)
        assert [path.name for path in streams.glob(".requests-*")] == [index.name]


def test_an_id_is_free_again_after_its_time(root, tmp_path):
    """``serving.request_ids_kept``; entries whose time is over are removed, and an index made again leaves them out."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    with (folder / "retrodict.toml").open("a") as settings:
        settings.write('[serving]\nrequest_ids_kept = "2h"\n')
    clock = SimulatedClock(NOW)
    with Workspace(folder, clock=clock) as workspace, Decider(workspace) as decider:
        first = decider.decide("promise", VALUES, request_id="x")
        keys = decider._requests._keys
        others = len(list(keys.scan(b"i"))) - 1  # of other tests
        clock.move_to(clock.now() + 2 * HOUR)
        assert decider.answer("promise", VALUES, request_id="x")[:2] == (first, True)
        clock.move_to(clock.now() + 1)
        second = decider.answer("promise", VALUES, request_id="x")
        assert not second.replayed
        clock.move_to(clock.now() + HOUR)
        for number in range(300):
            decider.decide("promise", VALUES, request_id=f"fill-{number}")
        assert decider.answer("promise", VALUES, request_id="x")[:2] == (second.record, True)
        clock.move_to(clock.now() + 2 * HOUR + 1)
        for number in range(300):
            decider.decide("promise", VALUES, request_id=f"more-{number}")
        assert len(list(keys.scan(b"i"))) == len(list(keys.scan(b"t"))) <= 300 + others
        assert decider._requests.claim("x", "").place is None


def test_another_call_under_way_is_waited_for_and_then_told(project, monkeypatch):
    """While one call holds an id, in this process or another, a second one has no answer."""
    monkeypatch.setattr(idempotency, "WAIT_S", 0.2)
    one, other = (RequestIndex(project, "decisions/0") for _ in range(2))
    claim = one.wait("held", "")
    for index in (one, other):
        with pytest.raises(RequestUnderWayError, match="must have its answer"):
            index.wait("held", "")
    threading.Timer(0.05, claim.release).start()
    other.wait("held", "").release()
    one.close()
    other.close()


WORDS = st.text(max_size=3) | st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
BODIES = st.dictionaries(st.text(max_size=2), WORDS, max_size=4)


@given(BODIES, BODIES, st.randoms())
def test_a_hash_is_of_the_values_and_not_of_their_spelling(entities, context, rng):
    """Order and spelling of numbers do not matter; a value of another kind does."""
    finite = all(not isinstance(v, float) or abs(v) < 1e300 for v in [*entities.values(), *context.values()])
    if not finite:
        return

    def turned(values):
        items = list(values.items())
        rng.shuffle(items)
        return {n: float(v) if type(v) is int and abs(v) < 2**53 and rng.random() < 0.5 else v for n, v in items}

    request = DecisionRequest(entities, context)
    same = decode_request(json.dumps({"context": turned(context), "entities": turned(entities)}).encode())
    assert request_hash("p", request, None) == request_hash("p", same, None)
    for other in (
        request_hash("q", request, None), request_hash("p", request, 0),
        request_hash("p", DecisionRequest(entities, {**context, "more": None}), None),
        request_hash("p", DecisionRequest(entities, context, explain=True), None),
        request_hash("p", DecisionRequest(entities, context, key=""), None),
    ):  # fmt: skip
        assert other != request_hash("p", request, None)
    for name, value in context.items():
        other = {"None": "", "True": 1, "False": 0}.get(str(value), f"{value}x")
        changed = {**context, name: other if not isinstance(value, str) else value + "x"}
        assert request_hash("p", DecisionRequest(entities, changed), None) != request_hash("p", request, None)


def test_a_wrong_id_is_refused_in_process(project):
    """As over HTTP."""
    with Decider(project) as decider, pytest.raises(InputError, match="printable ASCII"):
        decider.decide("promise", VALUES, request_id="ü")


def damage(index, how):
    data = index / "data.mdb"
    size = data.stat().st_size
    if how == "cut":
        os.truncate(data, 1 << 13)
    elif how == "noise":
        data.write_bytes(random.Random(1).randbytes(size))
    elif how == "pages":
        data.write_bytes(data.read_bytes()[: 1 << 13] + bytes(size - (1 << 13)))
    else:
        shutil.rmtree(index)
        if how == "file":
            index.write_bytes(b"")


@pytest.mark.parametrize("how", ["cut", "noise", "pages", "file"])
def test_a_damaged_index_is_made_again_from_the_log(root, tmp_path, how, caplog):
    """At opening, whatever is wrong with it; the log says so, and no id is decided twice."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    with Workspace(folder) as workspace:
        with Decider(workspace) as decider:
            records = [decider.decide("promise", VALUES, request_id=f"id-{n}") for n in range(40)]
        (index,) = workspace.config.path("stores.streams").glob(".requests-*")
        damage(index, how)
        for _ in range(2):
            with Decider(workspace) as decider:
                answers = [decider.answer("promise", VALUES, request_id=f"id-{n}") for n in range(40)]
            assert [answer[:2] for answer in answers] == [(record, True) for record in records]
    assert sum("made again from the log" in message for message in caplog.messages) == 1


def _shifted(places):
    return dict(zip(places, [*list(places.values())[1:], next(iter(places.values()))], strict=True))


def _elsewhere(stream, offset):
    return lambda places: {name: place[:8] + struct.pack(">q", offset) + stream for name, place in places.items()}


@pytest.mark.parametrize("change", [
    _shifted, lambda places: dict.fromkeys(places, b""), lambda places: dict.fromkeys(places, b"\xff" * 30),
    _elsewhere(b"decisions/0", -5), _elsewhere(b"decisions/0", 10**9), _elsewhere(b"decisions/77", 0),
    _elsewhere(b"../decisions/0", 0), _elsewhere(b"events", 0), _elsewhere(b"", 0),
], ids=["shifted", "empty", "noise", "negative", "far", "no stream", "path", "events", "nameless"])  # fmt: skip
def test_an_index_that_says_something_else_is_made_again_from_the_log(root, tmp_path, change, caplog):
    """What it points to must be the record of the id that was asked for: no id is decided twice, and nothing fails."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    with Workspace(folder) as workspace:
        with Decider(workspace) as decider:
            records = [decider.decide("promise", VALUES, request_id=f"id-{n}") for n in range(20)]
        (index,) = workspace.config.path("stores.streams").glob(".requests-*")
        keys = LmdbKeys(index, synced=False)
        keys.put_many(change(dict(keys.scan(b"i"))), durable=False)
        keys.close()
        for _ in range(2):
            with Decider(workspace) as decider:
                answers = [decider.answer("promise", VALUES, request_id=f"id-{n}") for n in range(20)]
                fresh = decider.answer("promise", VALUES, request_id="fresh")
            assert [answer[:2] for answer in answers] == [(record, True) for record in records]
    assert fresh[1]
    assert sum("made again from the log" in message for message in caplog.messages) == 1
    assert not [*(folder / "state/streams/decisions").glob("77")]


def test_an_index_that_is_made_again_while_a_record_is_written_knows_it(root, tmp_path, monkeypatch):
    """Its place was noted in the old one, and the log did not have it when the new one was made."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    written = LogWriter.append
    with Workspace(folder) as workspace, Decider(workspace) as decider:
        decider.decide("promise", VALUES, request_id="before")
        (index,) = workspace.config.path("stores.streams").glob(".requests-*")

        def noted(stream, first, before):
            before(stream, first)
            shutil.rmtree(index)
            with RequestIndex(workspace, "decisions/9") as another:
                another.open()

        monkeypatch.setattr(LogWriter, "append", lambda self, records, before=None: written(
            self, records, before and (lambda stream, first: noted(stream, first, before))))  # fmt: skip
        record = decider.decide("promise", VALUES, request_id="meanwhile")
        monkeypatch.undo()
        assert decider.answer("promise", VALUES, request_id="meanwhile")[:2] == (record, True)


@pytest.mark.parametrize("how", ["removed", "file"])
def test_an_index_that_is_lost_while_it_is_open_is_made_again_by_whoever_asks_first(root, tmp_path, how):
    """All processes that have it open share the new one; each has an environment of its own."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    server = Server(folder, "--replay", "--no-consume")
    with Workspace(folder) as workspace, Decider(workspace) as decider:

        def mine(request_id):
            return decider.answer("promise", VALUES, key="p1", at=NOW, request_id=request_id)

        first = mine("a").record
        assert send(server, REQUEST, "a")[2] == first.answer()
        (index,) = workspace.config.path("stores.streams").glob(".requests-*")
        damage(index, how)
        second = send(server, REQUEST, "b")[2]
        assert mine("b").record.answer() == second
        assert mine("a")[:2] == (first, True)
        third = mine("c").record
        assert send(server, REQUEST, "c")[2] == third.answer()
    server.stop()
    assert [len(logged(folder, name)) for name in "abc"] == [1, 1, 1]


FULL = """
import resource, signal, sys
from retrodict.core.errors import RetrodictError
from retrodict.serving import Decider
from retrodict.workspace import Workspace

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Workspace(sys.argv[1]) as workspace, Decider(workspace) as decider:
    values = eval(sys.argv[2])
    decider.decide("promise", values)
    if sys.argv[3] == "open":
        decider.decide("promise", values, request_id="before")
    size = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, size[1]))
    try:
        index = decider._index()
        index.note("decisions/0", 0, [index.claim(f"n{n}", "") for n in range(200)])
    except RetrodictError as error:
        print(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, size)
    decider.decide("promise", values, request_id="after")
    print(decider.answer("promise", values, request_id="after").replayed)
"""


@pytest.mark.parametrize("index", ["open", "new"])
def test_an_index_without_room_refuses_for_now(root, tmp_path, index):
    """An id is refused as something to try again, the process lives, and goes on once there is room."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    if index == "new":
        for made in (folder / "state/streams").glob(".requests-*"):
            shutil.rmtree(made)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), repr(VALUES), index],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["RetryableError", "True"]), done.stderr
