"""Several workers on one port: real processes, real kills, under load."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.serving.process import Caller, Server
from tests.serving.project import AT, make_project

from retrodict.decisions.log import read_decisions
from retrodict.ledger import verify
from retrodict.registry import current
from retrodict.rollout import deploy, rollback
from retrodict.workspace import Workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parcels")
    make_project(folder).close()
    return folder


@pytest.fixture
def start(root):
    """Starts servers of two workers, and kills what is left of them."""
    running = []

    def begin(*options):
        running.append(Server(root, "--replay", "--no-consume", "--workers", "2", *options))
        return running[-1]

    yield begin
    for server in running:
        server.kill()


@pytest.fixture
def connect():
    """Opens connections that are closed at the end of the test."""
    with ExitStack() as opened:
        yield lambda server, number: [opened.enter_context(closing(Caller(server.port))) for _ in range(number)]


def children(pid):
    """Processes that a process has started and that are still there."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def wait_for(holds, seconds=40):
    """Wait until something holds, and return it."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)
    return value


def workers_of(server):
    return server.send("GET", "/v1/status")[1]["workers"]


class Load:
    """Callers that ask until they are told to stop, each over a connection that it keeps."""

    def __init__(self, server, callers=6):
        self.callers = [Caller(server.port) for _ in range(callers)]
        self._threads = [threading.Thread(target=caller.run, daemon=True) for caller in self.callers]
        for thread in self._threads:
            thread.start()
        wait_for(lambda: all(caller.answers for caller in self.callers))

    def stop(self):
        for caller in self.callers:
            caller.stopped = True
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        return self.callers


def answered(callers):
    return [answer["decision_id"] for caller in callers for status, answer in caller.answers if status == 200]


def logged(root):
    with Workspace(root) as workspace:
        return [item.record.id for item in read_decisions(workspace)]


def test_every_worker_answers_and_writes_a_stream_of_its_own(start, connect):
    """Connections are spread, each answer says whose it is, and a status is of all."""
    server = start()
    callers = connect(server, 8)
    streams = Counter(caller.stream for caller in callers)
    assert set(streams) == {"decisions/0", "decisions/1"}
    assert min(streams.values()) >= 2
    for caller in callers:
        assert caller.ask()[0] == 200
    assert callers[0].send("POST", "/v1/decisions/promise", {}, AT)[0] == 400
    status = server.send("GET", "/v1/status")[1]
    assert [worker["up"] for worker in status["workers"]] == [True, True]
    assert {worker["decision_stream"] for worker in status["workers"]} == set(streams)
    total = wait_for(lambda: server.send("GET", "/v1/status")[1]["latency"]["total"]["count"] == len(callers))
    assert total


def test_a_killed_worker_is_replaced_and_loses_no_answered_decision(start, root):
    """Only requests on its own connections fail, one each; whoever connects anew is answered."""
    server = start()
    load = Load(server, callers=8)
    victim = next(worker for worker in workers_of(server) if worker["decision_stream"] == load.callers[0].stream)
    os.kill(victim["pid"], signal.SIGKILL)
    replaced = wait_for(lambda: [w for w in workers_of(server) if w["restarts"] == 1 and w["up"]])
    assert replaced[0]["pid"] != victim["pid"]
    callers = load.stop()
    assert {status for caller in callers for status, _ in caller.answers} == {200}
    hit = [caller for caller in callers if caller.streams[0] == victim["decision_stream"]]
    assert sum(caller.failed for caller in hit) <= len(hit)
    assert sum(caller.failed for caller in callers if caller not in hit) == 0
    ids = logged(root)
    assert len(ids) == len(set(ids))
    assert not set(answered(callers)) - set(ids)
    status, ready = server.send("GET", "/readyz")
    assert (status, "workers" in ready) == (200, False)
    assert f"(process {victim['pid']}) was ended by signal 9" in server.stop()


SAMPLE = re.compile(r"^(retrodict_\S+_(?:total|count|sum|bucket)(?:\{.*\})?) (\S+)$", re.MULTILINE)


def scrape(server):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        return {name: float(value) for name, value in SAMPLE.findall(connection.getresponse().read().decode())}
    finally:
        connection.close()


def test_counters_never_fall_between_scrapes(start):
    """Whichever worker is scraped, and while one is killed: no series falls, and in the end all answers are counted."""
    server = start()
    load = Load(server, callers=4)
    before = scrape(server)
    for turn in range(60):
        if turn == 20:
            os.kill(workers_of(server)[0]["pid"], signal.SIGKILL)
        try:
            now = scrape(server)
        except (OSError, HTTPException):  # it was the killed one's
            continue
        assert not [name for name, value in before.items() if now.get(name, -1) < value]
        before = now
    callers = load.stop()
    restarts = sum(value for name, value in before.items() if name.startswith("retrodict_worker_restarts_total"))
    assert restarts == 1
    wait_for(lambda: all(worker["up"] for worker in workers_of(server)))
    counted, quiet = 0.0, scrape(server)['retrodict_decisions_total{policy="promise",decision="ok",fallback=""}']
    while counted != quiet:  # published four times a second
        time.sleep(0.6)
        counted, quiet = quiet, scrape(server)['retrodict_decisions_total{policy="promise",decision="ok",fallback=""}']
    survivors = sum(len(c.answers) for c in callers if len(c.streams) == 1)
    assert survivors <= counted <= len(answered(callers)) + sum(c.failed for c in callers)


def test_sigterm_under_load_fails_no_request(start, root):
    """Whoever was connected is answered and told that it was the last one; after that nobody listens."""
    server = start()
    load = Load(server)
    time.sleep(0.3)
    server.process.terminate()
    server.stop()
    callers = load.stop()
    assert sum(caller.failed for caller in callers) == 0
    assert all(caller.refused for caller in callers)
    assert {status for caller in callers for status, _ in caller.answers} == {200}
    assert sorted(answered(callers)) == sorted(set(logged(root)) & set(answered(callers)))
    with Workspace(root) as workspace:
        report = verify(workspace.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables)
        assert report.verified, report.to_dict()


def test_a_rollback_under_load_reaches_all_workers_and_fails_no_request(start, root):
    """Two revisions and back: every answer is of one that was in force, in the end of the newest, in each worker."""
    server = start()
    load = Load(server)
    with Workspace(root, actor="ana") as project, (root / "definitions.py").open("a") as stream:
        before = current(project)["promise"].revision
        stream.write("# again\n")  # what deployed the same once more, a rollback would pass over
        stream.flush()
        deploy(project, "promise", reason="again")
        wait_for(lambda: {w["revisions"]["promise"] for w in workers_of(server)} == {before + 1})
        back = rollback(project, "promise", reason="drill").revision
    wait_for(lambda: {w["revisions"]["promise"] for w in workers_of(server)} == {back})
    marks = [len(caller.answers) for caller in load.callers]
    wait_for(lambda: all(len(c.answers) > mark + 3 for c, mark in zip(load.callers, marks, strict=True)))
    callers = load.stop()
    assert sum(caller.failed for caller in callers) == 0
    assert {status for caller in callers for status, _ in caller.answers} == {200}
    for caller, mark in zip(callers, marks, strict=True):
        revisions = [int(answer["policy"].partition("#")[2]) for _, answer in caller.answers]
        assert revisions == sorted(revisions)  # of one worker: never back to an earlier one
        assert set(revisions) <= {before, before + 1, back}
        assert set(revisions[mark + 1 :]) == {back}


def test_a_killed_supervisor_leaves_no_orphans(start, root):
    """Its workers finish and end by themselves, and the next server can open their streams."""
    server = start()
    load = Load(server)
    workers = children(server.process.pid)
    assert len(workers) == 2
    server.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers))
    callers = load.stop()
    again = start()
    assert {worker["decision_stream"] for worker in workers_of(again)} == {"decisions/0", "decisions/1"}
    assert again.decide()[0] == 200
    assert not set(answered(callers)) - set(logged(root))


def kill_again_and_again(server, spared, times):
    """Kill worker processes as soon as they are there, until so many are dead."""
    killed = set()
    while len(killed) < times:
        for pid in children(server.process.pid):
            if pid not in spared | killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        assert server.process.poll() is None or len(killed) == times
        time.sleep(0.005)


def test_a_crash_loop_is_reported_and_ends_the_server_when_nobody_answers(start):
    """One worker that cannot live is said to be missing; with the last one the server ends, and says why."""
    server = start()
    first, second = (worker["pid"] for worker in workers_of(server))
    kill_again_and_again(server, {first}, 5)
    sentence = "worker 1 was ended by signal 9, [5-9] times within 60 s: it is started again in 30 s"

    def is_reported():
        for pid in {*children(server.process.pid)} - {first}:  # on a busy machine one more was on its way
            os.kill(pid, signal.SIGKILL)
        status, answer = server.send("GET", "/readyz")
        return status == 200 and re.fullmatch(sentence, "".join(answer.get("workers", [])))

    wait_for(is_reported)
    assert server.decide()[0] == 200
    assert [worker["up"] for worker in workers_of(server)] == [True, False]
    kill_again_and_again(server, {second}, 5)
    output, _ = server.process.communicate(timeout=40)
    assert server.process.returncode == 1
    assert "5 times within 60 s, and no other answers" in json.loads(output)["error"]["message"]


def test_a_worker_that_is_being_started_keeps_the_server(start):
    """The fifth death of one while the other is not back yet: within seconds it is, and the server stays."""
    server = start()
    first, second = (worker["pid"] for worker in workers_of(server))
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: second not in children(server.process.pid))
    kill_again_and_again(server, {first}, 3)
    second = wait_for(lambda: [w["pid"] for w in workers_of(server) if w["up"] and w["restarts"] == 4])[0]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: set(children(server.process.pid)) - {first, second})  # the next one starts, for a second or more
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: second not in children(server.process.pid))

    def back():
        assert server.process.poll() is None
        with suppress(OSError, HTTPException):
            return server.decide()[0] == 200

    wait_for(back)
    assert [worker["up"] for worker in workers_of(server)] == [True, False]


def test_a_worker_that_cannot_begin_ends_the_server_with_its_message(start, root):
    """All streams but one are somebody's: only one worker can write, and the port is never opened."""
    with Workspace(root) as workspace, ExitStack() as held:
        for number in range(1, 64):
            held.enter_context(workspace.streams.open_writer(f"decisions/{number}"))
        with pytest.raises(AssertionError, match="one of the decision streams must be free") as failure:
            start()
    assert "every worker must begin before the port is opened" in str(failure.value)


def test_events_may_be_pushed_to_any_worker(start, connect, root):
    """Both append to the one stream of the table, at the same time, and nothing is lost or doubled."""
    server = start()
    callers = connect(server, 4)
    assert len({caller.stream for caller in callers}) == 2

    def push(place, caller):
        for number in range(5):
            event = {"id": f"w{place}-{number}", "depot": "west", "weight": 3, "express": False, "delay": 1.5,
                     "sent": "2024-02-19T10:00Z", "arrived": "2024-02-20T09:00Z"}  # fmt: skip
            caller.answers.append(caller.send("POST", "/v1/events/parcels", [event]))

    threads = [threading.Thread(target=push, args=item) for item in enumerate(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert {status for caller in callers for status, _ in caller.answers} == {202}
    ends = sorted(answer["end"] for caller in callers for _, answer in caller.answers)
    assert ends == list(range(ends[0], ends[0] + 20))
    with Workspace(root) as workspace:
        assert workspace.events.end("events/parcels") == ends[-1]


HASTY = """
import sys
from retrodict.serving import worker_scale
worker_scale._OUT_S, worker_scale._IN_S = 1.0, 4.0
worker_scale._OUT, worker_scale._IN = 0.15, 0.1  # of a busy machine a worker gets little
from retrodict.cli.main import main
sys.exit(main())
"""


def test_workers_come_and_go_with_the_load_and_no_request_fails(root):
    """One is started by a load that keeps the first busy, takes a part of the connections there are, and ends after."""
    server = Server(root, "--replay", "--no-consume", "--workers", "1-2", launch=("-c", HASTY))
    try:
        assert [worker["worker"] for worker in workers_of(server)] == [0]
        load = Load(server, 8)
        wait_for(lambda: [worker["up"] for worker in workers_of(server)] == [True, True])
        wait_for(lambda: {caller.stream for caller in load.callers} == {"decisions/0", "decisions/1"})
        wait_for(lambda: min(Counter(caller.stream for caller in load.callers).values()) >= 2)
        callers = load.stop()
        wait_for(lambda: len(children(server.process.pid)) == 1)  # to ask the server would keep it busy
        assert [worker["on_duty"] for worker in workers_of(server)] == [True, False]
        with urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
            series = response.read().decode()
        assert 'retrodict_worker_up{worker="0"} 1\n' in series
        assert 'retrodict_worker_up{worker="1"}' not in series  # nobody has to look after it
        assert scrape(server)['retrodict_worker_requests_total{worker="1"}'] > 0
        assert sum(caller.failed for caller in callers) == 0
        assert {status for caller in callers for status, _ in caller.answers} <= {200, 429}  # of a busy machine
        assert workers_of(server)[1]["restarts"] == 0
    finally:
        server.stop()
    assert set(answered(callers)) <= set(logged(root))


@pytest.mark.parametrize("workers", ["0", "33", "2-1", "0-2", "1-33", "many", "-2", "1-2-3", "1.5", ""])
def test_a_number_of_workers_that_cannot_be_is_refused(root, workers):
    """Before anything is begun."""
    command = [sys.executable, "-m", "retrodict", "serve", "--project", root, f"--workers={workers}"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "workers" in ended.stderr
