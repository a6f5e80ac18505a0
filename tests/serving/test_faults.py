"""Stores that are killed, stopped and cut off under a server: it falls back or refuses, and loses nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.serving.process import Server
from tests.serving.project import AT, REQUEST, make_project
from tests.stores.nats_server import running
from tests.stores.postgres_server import PASSWORD, PostgresServer
from tests.stores.redis_server import RedisServer
from tests.stores.silent_relay import SilentRelay

from retrodict.core.errors import RetrodictError
from retrodict.decisions.log import read_decisions
from retrodict.features.online import decode_event
from retrodict.ledger import SealedWriter, verify
from retrodict.registry import current
from retrodict.rollout import deploy, rollback
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.workspace import Workspace

AWAY = {"ServerAwayError", "AttemptsError", "OpenBreakerError", "TimeoutError"}
EVENT = {"id": "n1", "depot": "north", "weight": 1.0, "express": False, "sent": "2024-02-19T10:00Z",
         "arrived": "2024-02-20T09:00Z", "delay": 2.0}  # fmt: skip


@pytest.fixture
def serve():
    servers = []

    def begin(root, *options):
        servers.append(Server(root, "--replay", "--no-consume", *options))
        return servers[-1]

    yield begin
    for server in servers:
        server.kill()


def ask(server, deadline=None):
    headers = AT if deadline is None else AT | {"Retrodict-Deadline": str(deadline)}
    return server.decide(headers=headers)


def ask_until(server, condition, deadline=None):
    """Answers up to the first one that meets a condition; all of them must be decisions."""
    answers = []
    for _ in range(600):
        status, answer = ask(server, deadline)
        assert status == 200, answer
        answers.append(answer)
        if condition(answer):
            return answers
        time.sleep(0.05)
    raise AssertionError(answers[-1])


def scored(answer):
    return answer["score"] is not None and "fallback" not in answer


def fell_back(answer):
    return answer["score"] is None and answer["fallback"] == "ok"


def faults_of(workspace):
    report = verify(workspace.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables)
    return report.findings


def metrics(server):
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def recorded(root, answers):
    """Records of answers, by their ids; every one is in the log once."""
    with Workspace(root, actor="ana") as workspace:
        records = {}
        for item in read_decisions(workspace):
            assert item.record.id not in records
            records[item.record.id] = item.record
    return [records[answer["decision_id"]] for answer in answers]


@pytest.fixture(scope="module")
def redis():
    with contextlib.closing(RedisServer()) as server:
        yield server


@pytest.fixture(scope="module")
def on_redis(redis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("redis")
    make_project(folder, f'[stores]\nkeys = "{redis.url("parcels")}"\n').close()
    return folder


def configure(root, port, **servers):
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in servers.items())
    url = f"redis://127.0.0.1:{port}/0?prefix=parcels"
    (root / "retrodict.toml").write_text(
        f'[project]\nname = "parcels"\n[stores]\nkeys = "{url}"\n[servers]\nbreaker_recovery = "200ms"\n{lines}'
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_redis_is_killed_under_load_and_comes_back(redis, on_redis, serve, workers):
    configure(on_redis, redis.port)
    server = serve(on_redis, "--workers", workers)
    before = ask_until(server, scored)
    stop, answers, wrong = threading.Event(), [], []

    def load():
        while not stop.is_set():
            status, answer = ask(server)
            (answers if status == 200 else wrong).append(answer)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        redis.kill()
        during = ask_until(server, fell_back)
        during += ask_until(server, lambda _: metrics(server)['retrodict_store_refused_total{store="keys"}'] > 0)
        assert server.send("GET", "/healthz")[0] == 200
        assert server.send("GET", "/readyz")[0] == 200
        redis.start()
        after = ask_until(server, scored)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    counts = metrics(server)
    assert counts['retrodict_store_failures_total{store="keys"}'] >= 5
    assert counts['retrodict_store_breaker_opened_total{store="keys"}'] >= 1
    assert counts['retrodict_store_retries_total{store="keys"}'] >= 1
    assert sum(value for name, value in counts.items() if "store_breaker_processes" in name) == int(workers)
    server.stop()
    records = recorded(on_redis, [*before, *during, *after, *answers])
    for record, answer in zip(records, [*before, *during, *after, *answers], strict=True):
        assert (record.score, record.fallback) == (answer["score"], answer.get("fallback"))
        if record.fallback:
            assert record.error in AWAY
            assert record.views == {"depot_delays": {"status": "not_read", "age_s": None}}


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_a_redis_that_says_nothing_holds_up_nobody_beyond_the_deadline(redis, on_redis, serve, how):
    """A read would wait for ten minutes: only the deadline of the caller can end it, or the breaker."""
    with contextlib.closing(SilentRelay(redis.port)) as relay:
        configure(on_redis, relay.port, read_timeout="10m")
        server = serve(on_redis)
        ask_until(server, scored)
        pause(redis, relay, how)
        try:
            answers = [ask(server, 150) for _ in range(8)]
            assert [status for status, _ in answers] == [200] * 8
            assert all(fell_back(answer) for _, answer in answers)
            body = {"requests": [{"entities": REQUEST["entities"], "context": REQUEST["context"]}] * 3}
            status, batch = server.send("POST", "/v1/decisions/promise:batch", body, AT | {"Retrodict-Deadline": "150"})
            assert (status, [item["status"] for item in batch["answers"]]) == (200, [200] * 3)
            assert all(fell_back(item) for item in batch["answers"])
            assert server.send("GET", "/healthz")[0] == 200
            assert server.decide({"entities": {}}, AT)[0] == 400
        finally:
            resume(redis, relay)
        ask_until(server, scored)
        server.stop()
        records = recorded(on_redis, [*(answer for _, answer in answers), *batch["answers"]])
        assert records[0].error in AWAY - {"OpenBreakerError"}
        for record in records:  # who was given long enough, again and again, is not called any more
            assert (record.error in AWAY, record.fallback) == (True, "ok")


def test_a_silent_redis_is_not_called_any_more_and_then_found_again(redis, on_redis, serve):
    with contextlib.closing(SilentRelay(redis.port)) as relay:
        configure(on_redis, relay.port, read_timeout="100ms", breaker_failures=3)
        server = serve(on_redis)
        ask_until(server, scored)
        relay.silent = True
        answers = []
        for _ in range(100):  # those who get no answer in time, then those who are refused
            answers.append(ask(server)[1])
            if metrics(server)['retrodict_store_refused_total{store="keys"}'] >= 3:
                break
        assert all(fell_back(answer) for answer in answers)
        assert server.send("GET", "/readyz")[1]["stores"]["keys"] in {"open", "half_open"}
        relay.silent = False
        ask_until(server, scored)
        assert "stores" not in server.send("GET", "/readyz")[1]
        server.stop()
        errors = {record.error for record in recorded(on_redis, answers)}
        assert "OpenBreakerError" in errors
        assert errors <= AWAY


def pause(redis, relay, how):
    if how == "stopped":
        os.kill(redis.pid, signal.SIGSTOP)
    else:
        relay.silent = True


def resume(redis, relay):
    relay.silent = False
    os.kill(redis.pid, signal.SIGCONT)


@pytest.fixture
def postgres(monkeypatch):
    monkeypatch.setenv("PG_TEST_PASSWORD", PASSWORD)
    with contextlib.closing(PostgresServer()) as server:
        yield server


def test_postgres_is_killed_and_decisions_go_on(postgres, tmp_path, serve):
    """Longer than a segment of the log stays open: none of what is signed, sealed and followed holds up an answer."""
    settings = (
        f'[stores]\nrecords = "{postgres.url(postgres.database())}"\n'
        '[ledger]\nseal_every = "500ms"\nsign_every = "100ms"\n[servers]\nbreaker_recovery = "200ms"\n'
    )
    make_project(tmp_path, settings).close()
    server = serve(tmp_path)
    answers = ask_until(server, scored)
    revision = server.send("GET", "/v1/status")[1]["revisions"]["promise"]
    postgres.kill()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        status, answer = ask(server)
        assert (status, scored(answer)) == (200, True), answer
        answers.append(answer)
    said = ask_until(server, lambda answer: answer.get("views", {}).get("depot_delays", {}).get("status") == "behind")
    answers += said  # nobody knows what has come since
    status, ready = server.send("GET", "/readyz")
    assert (status, ready["behind"]) == (200, {"depot_delays": None})
    assert (status, "records" in ready["stores"], "must" in ready["not_followed"]) == (200, True, True)
    status, facts = server.send("GET", "/v1/status")
    assert (status, facts["sources"], bool(facts["sources_problem"])) == (200, {}, True)
    assert facts["revisions"]["promise"] == revision
    postgres.start()
    with Workspace(tmp_path, actor="ana") as workspace:
        deploy(workspace, "promise", reason="again")
        newest = current(workspace)["promise"].revision
    answers += ask_until(server, lambda _: server.send("GET", "/v1/status")[1]["revisions"]["promise"] == newest)
    answers += ask_until(server, lambda answer: "views" not in answer)
    assert "not_followed" not in server.send("GET", "/readyz")[1]
    server.stop()
    assert len(recorded(tmp_path, answers)) == len(answers)
    with Workspace(tmp_path, actor="ana") as workspace:
        assert faults_of(workspace) == []


def test_postgres_is_killed_while_deployments_are_made(postgres, tmp_path, serve):
    """Each that was acknowledged is in the history, the server follows the newest, and it decides all the time."""
    make_project(tmp_path, f'[stores]\nrecords = "{postgres.url(postgres.database())}"\n').close()
    server = serve(tmp_path)
    made, failed, stop = [], [], threading.Event()

    def change():
        with Workspace(tmp_path, actor="ana") as workspace:
            deploy(workspace, "promise", reason="first")
            while not stop.is_set():
                for action in (rollback, deploy):
                    try:
                        action(workspace, "promise", reason="again")
                        made.append(current(workspace)["promise"].revision)
                    except RetrodictError as error:
                        failed.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        answers = []
        for _ in range(3):
            count = len(made)
            while len(made) < count + 2:
                answers.append(ask(server))
            postgres.kill()
            answers += [ask(server) for _ in range(20)]
            postgres.start()
    finally:
        stop.set()
        thread.join(120)
    assert [status for status, _ in answers] == [200] * len(answers)
    assert failed
    assert made == sorted(set(made))
    with Workspace(tmp_path, actor="ana") as workspace:
        newest = current(workspace)["promise"].revision
        assert newest >= made[-1]
    ask_until(server, lambda _: server.send("GET", "/v1/status")[1]["revisions"]["promise"] == newest)
    server.stop()
    with Workspace(tmp_path, actor="ana") as workspace:
        assert faults_of(workspace) == []


def test_nats_is_killed_and_no_acknowledged_event_is_lost(tmp_path, serve):
    root = tmp_path / "parcels"
    root.mkdir()
    with running(tmp_path / "nats") as nats:
        make_project(root, f'[stores]\nevents = "{nats.address}?prefix=shop"\n[serving]\nmax_in_flight = 16\n').close()
        server = serve(root)
        sent, accepted = [], []

        def push(deadline):
            sent.append(f"n{len(sent):03d}")
            status, _ = server.send("POST", "/v1/events/parcels", [EVENT | {"id": sent[-1]}],
                                    {"Retrodict-Deadline": str(deadline)})  # fmt: skip
            if status == 202:
                accepted.append(sent[-1])
            return status

        assert push(10_000) == 202
        nats.kill()
        assert {push(100) for _ in range(10)} <= {429, 503, 504}
        assert scored(ask_until(server, scored)[-1])
        assert server.send("GET", "/healthz")[0] == 200
        nats.start()
        for _ in range(200):
            if push(10_000) == 202:
                break
            time.sleep(0.1)
        assert len(accepted) == 2
        server.stop()
        with Workspace(root, actor="ana") as workspace:
            stored = [decode_event(record)["id"] for _, record in workspace.events.read("events/parcels")]
    assert len(stored) == len(set(stored))
    assert set(accepted) <= set(stored) <= set(sent)


JUMPING = """
import sys, time
from pathlib import Path
from retrodict.core.clock import SystemClock
from retrodict.serving.server import ServeOptions, serve
from retrodict.workspace import Workspace

class Jumping(SystemClock):
    def now(self):
        return super().now() + int(float(Path(sys.argv[2]).read_text()) * 3600e6)

with Workspace(sys.argv[1], actor="ana", clock=Jumping()) as workspace:
    serve(workspace, ServeOptions(port=0, consume=False), ready=lambda url, _: print(url, flush=True))
"""


def test_a_clock_that_jumps_gives_no_second_answer_to_an_id(tmp_path):
    """26 hours forward and back, which is longer than ids are kept: one record for each id, whatever the clock says."""
    make_project(tmp_path).close()
    hours = tmp_path / "hours"
    hours.write_text("0")
    process = subprocess.Popen([sys.executable, "-c", JUMPING, tmp_path, hours], stdout=subprocess.PIPE, text=True)
    try:
        server = object.__new__(Server)
        server.port = int(process.stdout.readline().rsplit(":", 1)[1])
        first = server.decide(headers={"Idempotency-Key": "a"})[1]
        for jump in ("26", "0", "-26", "0"):
            hours.write_text(jump)
            again = server.decide(headers={"Idempotency-Key": "a"})[1]
            assert again == first
            other = server.decide(headers={"Idempotency-Key": f"at {jump}"})[1]
            hours.write_text("0")
            assert server.decide(headers={"Idempotency-Key": f"at {jump}"})[1] == other
        assert server.send("GET", "/healthz")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=60)
    with Workspace(tmp_path, actor="ana") as workspace:
        ids = [item.record.request_id for item in read_decisions(workspace)]
    assert sorted(ids) == sorted({"a", "at 26", "at 0", "at -26"})
    assert process.returncode == 0


def test_a_closed_terminal_ends_a_server_in_order(tmp_path, serve):
    """SIGHUP: who is connected is answered, the segment is sealed, and the exit code is 0."""
    make_project(tmp_path).close()
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what these tests may run under, as nohup, is no part of it
    try:
        server = serve(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, former)
    answers = ask_until(server, scored)
    server.process.send_signal(signal.SIGHUP)
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    recorded(tmp_path, answers)
    with Workspace(tmp_path, actor="ana") as workspace:
        assert [segment.closed for segment in workspace.streams.segments("decisions/0")] == [True]


SERVICE = """
depots = FeatureService("depots", [depot_delays])
"""


def test_features_alone_end_with_the_deadline_and_come_back(redis, tmp_path, serve):
    make_project(tmp_path, f'[stores]\nkeys = "{redis.url("alone")}"\n').close()
    with (tmp_path / "definitions.py").open("a") as file:
        file.write(SERVICE)
    with contextlib.closing(SilentRelay(redis.port)) as relay:
        (tmp_path / "retrodict.toml").write_text(
            f'[project]\nname = "parcels"\n[stores]\nkeys = "redis://127.0.0.1:{relay.port}/0?prefix=alone"\n'
            '[servers]\nread_timeout = "10m"\nbreaker_recovery = "200ms"\n'
        )
        server = serve(tmp_path)

        def features(deadline):
            headers = AT | {"Retrodict-Deadline": str(deadline)}
            return server.send("POST", "/v1/features/depots", {"entities": [{"depot": "north"}]}, headers)

        assert features(60_000)[0] == 200
        relay.silent = True
        status, answer = features(150)
        assert (status, "a server of keys that says nothing" in answer["error"]) == (504, True)
        assert server.send("GET", "/healthz")[0] == 200
        relay.silent = False
        for _ in range(100):
            status, answer = features(60_000)
            if status == 200:
                break
            assert status == 503
            time.sleep(0.05)
        assert answer["views"]["depot_delays"]["status"] == "ok"


def test_callers_with_no_patience_open_no_breaker(redis, on_redis, serve):
    """What a deadline cuts short says nothing of the server."""
    configure(on_redis, redis.port, breaker_failures=1)
    server = serve(on_redis)
    ask_until(server, scored)
    assert {ask(server, deadline)[0] for deadline in ("0", "0.001", "0.5", "1") for _ in range(10)} <= {200, 504}
    assert scored(ask(server)[1])
    assert metrics(server)['retrodict_store_failures_total{store="keys"}'] == 0


def test_a_log_whose_segments_are_full_goes_on_without_its_records(postgres, tmp_path):
    """Each begins with a signature, by the key that was in force last; all are sealed when the records are back."""
    (tmp_path / "retrodict.toml").write_text(
        f'[project]\nname = "shop"\n[stores]\nrecords = "{postgres.url(postgres.database())}"\n'
        '[servers]\nbreaker_recovery = "100ms"\n'
    )
    with Workspace(tmp_path, actor="ana") as workspace:
        streams = SegmentStreams(tmp_path / "log", segment_bytes=100)
        writer = SealedWriter(workspace.ledger, streams, "decisions/0")
        writer.append([b"before" * 20])
        postgres.kill()
        for _ in range(5):
            writer.append([b"during" * 20])
        postgres.start()
        for _ in range(200):
            with contextlib.suppress(RetrodictError):
                workspace.records.change_counter()
                break
            time.sleep(0.05)
        writer.close()
        assert sorted(seal.count for seal in writer.seals) == [1] * 6
        assert len(list(streams.read("decisions/0"))) == 6
