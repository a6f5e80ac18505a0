"""A real server process over HTTP: answers, errors that say enough and echo nothing, kill -9, revisions under load."""

import contextlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from tests.serving.process import Server
from tests.serving.project import REQUEST, make_project

from retrodict.core.errors import RetrodictError
from retrodict.core.log_lines import written_aside
from retrodict.decisions.lineage import trace_decision
from retrodict.decisions.log import read_decisions
from retrodict.decisions.parity import check_parity
from retrodict.decisions.replay import replay_decision
from retrodict.ledger import read_seals, verify
from retrodict.registry import current
from retrodict.rollout import deploy, promote, rollback
from retrodict.rollout.ladder import halt, release
from retrodict.serving.consumer import end_children
from retrodict.workspace import Workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parcels")
    make_project(folder).close()
    return folder


@pytest.fixture(scope="module")
def server(root):
    running = Server(root, "--replay")
    yield running
    if running.process.poll() is None:
        running.stop()


def test_a_decision_has_an_id_a_score_and_its_versions(server):
    """The answer names the model and the revision that decided."""
    status, answer = server.decide()
    assert status == 200
    assert answer["model"] == "late_parcel@1"
    assert answer["policy"].startswith("promise#")
    assert 0 <= answer["score"] <= 1
    assert answer["decision"] in {"warn", "ok"}


def test_reasons_come_when_asked_for(server):
    """``explain`` adds words; without it there are none."""
    assert "reasons" not in server.decide()[1]
    assert len(server.decide({**REQUEST, "explain": True})[1]["reasons"]) >= 1


def test_a_rule_decides_and_says_why(server):
    """A heavy parcel warns whatever the score."""
    context = {**REQUEST["context"], "weight": 95}
    _, answer = server.decide({**REQUEST, "context": context})
    assert (answer["decision"], answer["reasons"]) == ("warn", ["Over 90 kg"])


SECRET = "s3cret-value"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"entities": {}, "context": REQUEST["context"]}, 400, "'depot'"),
        ({"entities": {"depot": 5}, "context": REQUEST["context"]}, 400, "'depot'"),
        (
            {"entities": REQUEST["entities"], "context": {"weight": SECRET, "express": False, "sent": None}},
            400,
            "'weight'",
        ),
        ({"entities": REQUEST["entities"], "context": {"weight": 1, "express": False, "sent": SECRET}}, 400, "'sent'"),
        ({"entities": {"depot": "x", SECRET: 1}, "context": REQUEST["context"]}, 400, "entities"),
        ({SECRET: 1}, 400, "entities"),
        ("{" + SECRET, 400, "JSON"),
        (b"\xff" * 100, 400, "JSON"),
        ("", 400, "JSON"),
        ("[" * 50_000, 400, "an object"),
        (json.dumps(SECRET) + " " * 70_000, 413, "65536"),
    ],
)
def test_a_wrong_request_is_a_4xx_and_the_server_lives_on(server, body, status, text):
    """The error names the rule and does not echo what was sent."""
    got, answer = server.decide(body)
    assert got == status
    assert text in answer["error"]
    assert SECRET not in answer["error"]
    assert server.decide()[0] == 200


def test_an_unknown_policy_is_a_404_with_near_names(server):
    """A typing error in the address is answered with what there is."""
    status, answer = server.decide(policy="promis")
    assert (status, "'promise'" in answer["error"]) == (404, True)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("DELETE", "/v1/decisions/promise", 405), ("PUT", "/v2/x", 404)]
)
def test_other_addresses_and_methods_say_what_there_is(server, method, path, status):
    """Never a bare 500."""
    assert server.send(method, path)[0] == status


def test_health_readiness_and_metrics(server):
    """What an orchestrator and Prometheus ask for."""
    server.decide()
    assert server.send("GET", "/healthz") == (200, {"status": "alive"})
    assert server.send("GET", "/readyz") == (200, {"status": "ready"})
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert 'retrodict_requests_total{status="200"}' in text
    assert 'retrodict_stage_seconds_count{stage="record"}' in text


def test_pushed_events_reach_the_next_decision(server):
    """An event is durable when the push returns, and soon changes the features of its depot."""
    event = {"id": "new1", "depot": "west", "weight": 3, "express": False, "delay": 9.5,
             "sent": "2024-02-19T10:00Z", "arrived": "2024-02-20T09:00Z"}  # fmt: skip
    status, answer = server.send("POST", "/v1/events/parcels", [event])
    assert (status, answer["accepted"]) == (202, 1)
    ask = {**REQUEST, "entities": {"depot": "west"}}
    deadline = time.monotonic() + 20
    while any(source["lag"] for source in server.send("GET", "/v1/status")[1]["sources"].values()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    decision = server.decide(ask)[1]["decision_id"]
    record = next(item.record for item in read_decisions(Workspace(server.root)) if item.record.id == decision)
    assert record.features["depot_delays__count_24h"] == 1
    assert record.features["depot_delays__latest_delay"] == 9.5


@pytest.fixture(autouse=True)
def _root_on_server(server, root):
    server.root = root


@pytest.mark.parametrize("body", ["{", {"id": "x"}, [{"id": 5}], [{"nope": SECRET}], [{"sent": SECRET}], [[1]]])
def test_wrong_events_are_refused_whole(server, body):
    """Nothing of a body with a wrong event is taken."""
    status, answer = server.send("POST", "/v1/events/parcels", body)
    assert status == 400
    assert SECRET not in answer["error"]


def test_simulated_time_is_refused_by_a_server_for_real_callers(root):
    """Only ``--replay`` accepts the header."""
    plain = Server(root, "--no-consume")
    try:
        status, answer = plain.decide()
        assert (status, "--replay" in answer["error"]) == (400, True)
        assert plain.decide(headers={})[0] == 200
    finally:
        plain.stop()


def test_every_decision_can_be_traced_and_replayed(server, root):
    """Lineage down to rows, run and approval; the same bits again."""
    ref = "decision:" + server.decide({**REQUEST, "explain": True})[1]["decision_id"]
    project = Workspace(root)
    replay = replay_decision(project, ref)
    assert replay.exact, replay.to_dict()
    trace = trace_decision(project, ref)
    assert trace["approvals"][0]["approver"] == "ben"
    by_name = {feature["feature"]: feature for feature in trace["features"]}
    assert by_name["depot_delays__count_24h"]["rows"] == by_name["depot_delays__count_24h"]["value"]
    assert by_name["depot_delays__mean_delay_7d"]["from"] == trace["data"]
    assert by_name["depot_delays__mean_delay_7d"]["rows"] > 50


def test_a_tampered_record_no_longer_replays_exactly(server, root, monkeypatch):
    """Replay really computes: another logged score is seen."""
    import msgspec

    from retrodict.decisions import replay as module

    answer = next(body for _, body in iter(server.decide, None) if not body.get("fallback"))
    ref = "decision:" + answer["decision_id"]
    real = module.find_decision

    def altered(project, name):
        logged = real(project, name)
        return type(logged)(msgspec.structs.replace(logged.record, score=0.123), logged.stream, logged.offset)

    monkeypatch.setattr(module, "find_decision", altered)
    assert replay_decision(Workspace(root), ref).verdict == "different"


def test_online_features_equal_the_offline_recomputation(server, root):
    """Many decisions at many moments: no value differs."""
    rng = random.Random(7)
    for _ in range(60):
        hour, depot = rng.randrange(24), rng.choice(["north", "south", "east", "nowhere", None])
        at = f"2024-02-{rng.randrange(20, 24)}T{hour:02d}:{rng.choice(['00:00', '36:00', '17:13'])}Z"
        server.decide({**REQUEST, "entities": {"depot": depot}}, {"Retrodict-Time": at})
    report = check_parity(Workspace(root), "promise", start=None)
    # The event pushed by another test is in no table, so its depot is left out.
    wrong = [example for example in report.examples if "west" not in str(example)]
    assert report.values >= 60 * 6
    assert report.mismatches <= 4, wrong


def test_a_promotion_and_a_rollback_fail_no_request(server, root):
    """Revisions change under load; every request is answered, by one revision or the other."""
    project = Workspace(root, actor="ana")
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(server.decide())

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    before = current(project)["promise"].revision
    with (root / "definitions.py").open("a") as stream:
        stream.write("# again\n")  # what deployed the same once more, a rollback would pass over
    deploy(project, "promise", reason="again")
    time.sleep(0.6)
    back = rollback(project, "promise", reason="drill")
    time.sleep(0.6)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}
    seen = {answer["policy"] for _, answer in answers}
    assert f"promise#{back.revision}" in seen
    assert f"promise#{before + 1}" in seen
    with pytest.raises(RetrodictError, match="decides already"):
        promote(project, "promise", "late_parcel@1", reason="no change")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_9_loses_no_answered_decision(root, seed):
    """The server is killed at a random moment of the traffic, three times in a row; every answered id is in the log."""
    rng = random.Random(seed)
    answered: list[str] = []
    for _ in range(2):
        running = Server(root, "--replay", "--no-consume")
        lock = threading.Lock()

        def ask(running=running, lock=lock):
            try:
                while True:
                    status, answer = running.decide()
                    if status == 200:
                        with lock:
                            answered.append(answer["decision_id"])
            except (OSError, ValueError, HTTPException):
                return

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.2, 0.9))
        running.kill()
        for thread in threads:
            thread.join()
    assert len(answered) > 20
    logged = [item.record.id for item in read_decisions(Workspace(root))]
    assert len(logged) == len(set(logged))
    assert not set(answered) - set(logged)


def test_a_torn_tail_is_cut_and_reported(root):
    """Half a record at the end of the log: the next server cuts it, says so, and everything before it is read."""
    running = Server(root, "--replay", "--no-consume")
    running.decide()
    stream = running.send("GET", "/v1/status")[1]["decision_stream"]
    running.kill()
    project = Workspace(root)
    before = [item.record.id for item in read_decisions(project)]
    folder = project.config.path("stores.streams") / stream
    newest = max(folder.glob("*.seg"))
    with newest.open("ab") as file:
        file.write(os.urandom(37))
    again = Server(root, "--replay", "--no-consume")
    status = again.send("GET", "/v1/status")[1]
    errors = again.stop()
    assert [torn["bytes"] for torn in status["recovered"]] == [37]
    assert "cut 37 bytes" in errors
    assert [item.record.id for item in read_decisions(Workspace(root))] == before


def test_a_stopped_server_leaves_a_sealed_log_that_verifies(root):
    """SIGTERM finishes, closes and seals; one decision then has an inclusion proof, and the audit passes."""
    running = Server(root, "--replay", "--no-consume")
    ref = "decision:" + running.decide()[1]["decision_id"]
    running.stop()
    project = Workspace(root)
    assert read_seals(project.ledger)
    assert trace_decision(project, ref)["log"]["sealed"] is True
    report = verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)
    assert report.verified, report.to_dict()


def test_a_running_server_seals_its_log(root, tmp_path):
    """Segment after segment, while it answers; what is altered afterwards in a file is seen, though nothing stopped."""
    folder = shutil.copytree(root, tmp_path / "parcels")
    with (folder / "retrodict.toml").open("a") as settings:
        settings.write('[ledger]\nsign_every = "50ms"\nseal_every = "300ms"\n')
    running = Server(folder, "--replay", "--no-consume")
    project = Workspace(folder)
    before = len(read_seals(project.ledger))
    deadline = time.monotonic() + 30
    while len(read_seals(project.ledger)) < before + 3:
        assert running.decide()[0] == 200
        assert time.monotonic() < deadline
    stores = {"objects": project.objects, "streams": project.streams, "data": project.tables}
    assert verify(project.ledger, **stores).verified
    seal = read_seals(project.ledger)[-1]
    path = project.config.path("stores.streams") / seal.stream / seal.segment
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (finding,) = verify(project.ledger, **stores).findings
    assert f"{seal.stream}/{seal.segment}" in finding.where
    assert running.decide()[0] == 200
    running.stop()


def test_an_altered_artifact_is_not_served(root):
    """A flipped byte in the model: the server says so and does not become ready."""
    project = Workspace(root)
    deployed = current(project)["promise"].deployment
    path = next(project.config.path("stores.objects").rglob(deployed.artifact[2:] + "*"), None) or next(
        project.config.path("stores.objects").rglob(f"*{deployed.artifact}*")
    )
    original = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(original.replace(b"e", b"f", 1))
    try:
        command = [
            sys.executable,
            "-m",
            "retrodict",
            "serve",
            "--project",
            str(root),
            "--port",
            "0",
            "--no-consume",
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "IntegrityError" in done.stdout
    finally:
        path.write_bytes(original)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_that_nobody_reads_holds_up_no_answer(root, workers):
    """The pipe is full: a line more would wait until somebody reads, and with it every caller."""
    server = Server(root, "--replay", "--workers", workers)
    try:
        pipe = os.open(f"/proc/{server.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"full\n" * 100)
        os.close(pipe)
        with Workspace(root, actor="ana") as workspace:
            halt(workspace, "promise", reason="test")
        for _ in range(30):  # each process logs once a second that it falls back
            assert server.decide()[0] == 200
            time.sleep(0.1)
    finally:
        with Workspace(root, actor="ana") as workspace:
            release(workspace, "promise", reason="test")
        log = server.stop()
    assert "nothing scores while a policy is halted" in log
    assert "starting: loads what is deployed (everything)" in log.splitlines()[1]


@pytest.mark.timeout(120)
def test_a_server_whose_log_nobody_reads_ends(root):
    """Its last lines are lost; it waits for no lock of the thread that would write them."""
    server = Server(root, "--replay")
    try:
        pipe = os.open(f"/proc/{server.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"full\n" * 100)
        os.close(pipe)
        with Workspace(root, actor="ana") as workspace:
            halt(workspace, "promise", reason="test")
        for _ in range(15):
            assert server.decide()[0] == 200
            time.sleep(0.1)
        server.process.terminate()
        assert server.process.wait(60) == 0
    finally:
        with Workspace(root, actor="ana") as workspace:
            release(workspace, "promise", reason="test")
        server.kill()


def full_pipe():
    """Ends of a pipe that takes nothing more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    return reading, writing


@pytest.mark.timeout(120)
def test_a_process_beside_a_server_ends_though_nobody_reads_its_log(root):
    """It has begun, and wrote a line of its log where no room is."""
    reading, writing = full_pipe()
    command = [sys.executable, "-P", "-m", "retrodict", "features", "stream", "--project", str(root), "--verbose",
               "--parent", str(os.getpid())]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writing)
    os.close(writing)
    try:
        term = 1 << (signal.SIGTERM - 1)
        until = time.monotonic() + 60
        while not int(re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1], 16) & term:
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(1)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_a_process_that_does_not_end_is_killed():
    """A server ends all the same, and the others are asked to end, too."""
    children = [subprocess.Popen([sys.executable, "-c", f"{ignore}import time; print(flush=True); time.sleep(60)"],
                                 stdout=subprocess.PIPE)
                for ignore in ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); ", "")]  # fmt: skip
    for child in children:
        child.stdout.readline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrodict.serving.consumer._PATIENCE_S", 0.5)
        end_children(children)
    assert [child.returncode for child in children] == [-signal.SIGKILL, -signal.SIGTERM]
    for child in children:
        child.stdout.close()


def test_a_line_that_is_never_written_holds_up_no_end(monkeypatch):
    """Neither one that hangs in its handler, nor one behind it."""
    monkeypatch.setattr("retrodict.core.log_lines._END_S", 0.2)
    reading = threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record):
            reading.wait(30)

    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [Stuck()]
    began = time.monotonic()
    try:
        with written_aside():
            root.warning("a line")
        assert time.monotonic() - began < 5
    finally:
        root.handlers = handlers
        reading.set()


def test_lines_that_nobody_takes_are_dropped_and_counted():
    """The block goes on and ends; who reads again is told how many are missing."""
    reading, written = threading.Event(), []

    class Stuck(logging.Handler):
        def emit(self, record):
            reading.wait(60)
            written.append(record.getMessage())
            if record.getMessage() == "line 1":
                raise OSError  # of one line; the others are written all the same

    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [Stuck()]
    try:
        with written_aside():
            for number in range(1_500):
                root.warning("line %d", number)
            assert written == []
            reading.set()
    finally:
        root.handlers = handlers
    assert written[:3] == ["line 0", "line 1", "line 2"]
    (told,) = [line for line in written if "were dropped" in line]
    assert int(told.split()[0]) == 1_500 - (len(written) - 1)
