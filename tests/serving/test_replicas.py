"""Servers on several machines, each with folders of its own, that share records and one decision log on NATS."""

import contextlib
import random
import shutil
import threading
import time

import pytest
from tests.serving.process import Server
from tests.serving.project import AT, REQUEST, make_project
from tests.stores.nats_server import running
from tests.stores.postgres_server import PASSWORD, PostgresServer
from tests.stores.silent_relay import SilentRelay

from retrodict import Project
from retrodict.core.errors import ConfigurationError
from retrodict.decisions.log import find_decision, read_decisions
from retrodict.decisions.recorder import LogWriter, noting
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.decisions.replay import replay_decision
from retrodict.decisions.seals import prove_decision, seal_decisions
from retrodict.ledger import verify
from retrodict.serving.shared_requests import open_index
from retrodict.stores.streams import jetstream_log
from retrodict.workspace import Workspace

RECORD = DecisionRecord(
    id=f"{1:026d}", time=1, policy="promise", revision=1, entities={}, context={}, features={}, decision="ok",
    request_id="a", request_hash="content",
    **dict.fromkeys(("policy_version", "code", "model", "artifact", "model_code"), "0" * 64),
)  # fmt: skip


@pytest.fixture(scope="module")
def postgres():
    with contextlib.closing(PostgresServer()) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PG_TEST_PASSWORD", PASSWORD)
        yield server


@pytest.fixture
def nats(tmp_path):
    with running(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def machines(request, tmp_path, postgres, nats):
    """Folders of two machines: what an image holds is in each; they share the folder of checkpoints, and servers."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    records = postgres.url(postgres.database())
    stores = f'[stores]\nrecords = "{records}"\nstreams = "{nats.address}?prefix=shop"\n'
    if "bucket" in request.fixturenames:
        stores += f'tables = "{request.getfixturevalue("bucket")}"\n'
    stores += f'[ledger]\ncheckpoints = "{tmp_path / "checkpoints"}"\n'
    make_project(one, f'{stores}[servers]\nbreaker_recovery = "200ms"\n').close()
    shutil.copytree(one, two)
    return one, two


@pytest.fixture
def serve():
    servers = []

    def begin(root, *options):
        servers.append(Server(root, "--replay", "--no-consume", *options))
        return servers[-1]

    yield begin
    for server in servers:
        server.kill()


def decide_until_it_works(server):
    for _ in range(300):
        with contextlib.suppress(OSError):
            status, answer = server.decide()
            if status == 200:
                return answer
            assert status == 503, answer
        time.sleep(0.05)
    raise AssertionError(answer)


def findings_of(workspace):
    report = verify(workspace.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables)
    return report.findings


@pytest.mark.usefixtures("bucket")
def test_every_machine_reads_seals_and_compacts_the_decisions_of_all(machines, serve):
    """By id, as a list, replayed, proved, audited, and as rows of the table: wherever it is asked."""
    servers = [serve(root) for root in machines]
    ids = [servers[number % 2].decide()[1]["decision_id"] for number in range(40)]
    for root in machines:  # while both are still written, once they are signed
        with Workspace(root, actor="ana") as workspace:
            until = time.monotonic() + 30
            while {one.record.id for one in read_decisions(workspace)} != set(ids):
                assert time.monotonic() < until
                time.sleep(0.1)
            assert {find_decision(workspace, one).stream for one in ids[:2]} == {"decisions/0", "decisions/1"}
            assert findings_of(workspace) == []
            assert seal_decisions(workspace).busy == ["decisions/0", "decisions/1"]
    for server in servers:
        server.stop()
    for root in machines:
        with Workspace(root, actor="ana") as workspace:
            assert all(prove_decision(workspace, one).ok for one in (ids[0], ids[-1]))
            assert {replay_decision(workspace, one).verdict for one in ids[:2]} == {"exact"}
        with Project(root, actor="ana") as project:
            assert (project.decisions.compact().decisions, root.name) in [(40, "one"), (0, "two")]
            assert sorted(project.data.read("decisions")["id"].to_pylist()) == sorted(ids)
            assert project.audit().ok


def test_a_decision_is_refused_while_its_record_finds_no_server(machines, serve, nats):
    """503 at once after some, by a breaker that metrics name; nothing is to be started again."""
    server = serve(machines[0])
    before = decide_until_it_works(server)["decision_id"]
    nats.kill()
    statuses = [server.decide()[0] for _ in range(7)]
    assert statuses == [503] * 7
    assert server.send("GET", "/healthz")[0] == 200
    nats.start()
    after = decide_until_it_works(server)["decision_id"]
    assert server.send("GET", "/v1/status")[1]["stores"]["streams"] == "closed"
    server.stop()
    with Workspace(machines[1], actor="ana") as workspace:
        ids = {one.record.id for one in read_decisions(workspace)}
        assert {before, after} <= ids
        assert findings_of(workspace) == []


def test_a_log_of_another_project_is_refused(machines, tmp_path, postgres, nats):
    """The same prefix by mistake would answer request ids with what another project decided."""
    with Workspace(machines[0], actor="ana") as one:
        LogWriter(one).close()
    other = tmp_path / "other"
    other.mkdir()
    stores = f'records = "{postgres.url(postgres.database())}"\nstreams = "{nats.address}?prefix=shop"'
    (other / "retrodict.toml").write_text(f'[project]\nname = "parcels"\n[stores]\n{stores}\n')
    (other / "definitions.py").write_text("")
    with Workspace(other, actor="ana") as workspace, pytest.raises(ConfigurationError, match="of one project"):
        LogWriter(workspace)


def test_a_server_that_lost_what_it_acknowledged_is_gone_on_with(machines, serve, nats, tmp_path):
    """A loss of power: the next decisions are recorded, without a restart."""
    server = serve(machines[0])
    decide_until_it_works(server)
    nats.kill()
    shutil.copytree(tmp_path / "nats", tmp_path / "copy")
    nats.start()
    lost = [decide_until_it_works(server)["decision_id"] for _ in range(3)]
    nats.kill()
    shutil.rmtree(tmp_path / "nats")
    shutil.copytree(tmp_path / "copy", tmp_path / "nats")
    nats.start()
    after = decide_until_it_works(server)["decision_id"]
    server.stop()
    with Workspace(machines[1], actor="ana") as workspace:
        ids = {one.record.id for one in read_decisions(workspace)}
        assert after in ids
        assert not ids & set(lost)


def test_a_line_that_goes_silent_holds_decisions_up_no_longer_than_told(machines, serve, nats):
    relay = SilentRelay(nats.port)
    with contextlib.closing(relay):
        file = machines[0] / "retrodict.toml"
        file.write_text(file.read_text().replace(str(nats.port), str(relay.port)))
        server, other = serve(machines[0]), serve(machines[1])
        ids = [decide_until_it_works(server)["decision_id"]]
        relay.silent = True
        assert {server.decide()[0] for _ in range(3)} == {503}
        ids.append(decide_until_it_works(other)["decision_id"])
        relay.silent = False
        ids.append(decide_until_it_works(server)["decision_id"])
        server.stop()
        other.stop()
    with Workspace(machines[1], actor="ana") as workspace:
        assert set(ids) <= {one.record.id for one in read_decisions(workspace)}
        assert findings_of(workspace) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_servers_are_killed_at_random_and_nothing_acknowledged_is_lost(machines, serve, nats):
    """kill -9 of NATS and of each server, again and again, while callers go on."""
    rng, stop, ids = random.Random(7), threading.Event(), []
    servers = [serve(root) for root in machines]

    def call(number):
        while not stop.is_set():
            with contextlib.suppress(OSError, ValueError):
                status, answer = servers[number].decide()
                if status == 200:
                    ids.append(answer["decision_id"])

    callers = [threading.Thread(target=call, args=(number % 2,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for turn in range(6):
        time.sleep(rng.uniform(0.1, 0.8))
        if turn % 2:
            nats.kill()
            time.sleep(rng.uniform(0, 0.5))
            nats.start()
        else:
            victim = turn // 2 % 2
            servers[victim].kill()
            servers[victim] = serve(machines[victim])
    for server in servers:
        decide_until_it_works(server)
    stop.set()
    for caller in callers:
        caller.join()
    for server in servers:
        server.stop()
    assert len(ids) > 50
    for root in machines:
        with Workspace(root, actor="ana") as workspace:
            assert seal_decisions(workspace).busy == []
            records = [one.record.id for one in read_decisions(workspace)]
            assert set(ids) <= set(records)
            assert len(records) == len(set(records))
            assert findings_of(workspace) == []


def once(server, request_id, body=REQUEST):
    return server.decide(body, headers=AT | {"Idempotency-Key": request_id})


def records_of(root, request_id):
    with Workspace(root, actor="ana") as workspace:
        return [one.record.id for one in read_decisions(workspace) if one.record.request_id == request_id]


def test_one_request_id_asked_of_two_machines_decides_once(machines, serve):
    """At once and later, of whichever of them; another body by it is refused by both."""
    servers = [serve(root) for root in machines]
    answers, errors = {}, []

    def ask(place, number):
        for _ in range(20):
            status, answer = once(servers[place], f"id {number}")
            if status == 200:
                answers.setdefault(number, set()).add(answer["decision_id"])
                return
            errors.append((status, answer))
            time.sleep(0.05)

    for number in range(15):
        callers = [threading.Thread(target=ask, args=(place % 2, number)) for place in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert [len(answers[number]) for number in range(15)] == [1] * 15
    assert {status for status, _ in errors} <= {503}
    for place in (0, 1):
        assert once(servers[place], "id 3")[1]["decision_id"] in answers[3]
        assert once(servers[place], "id 3", REQUEST | {"key": "another"})[0] == 409
        assert [item["decision_id"] in answers[3] for item in servers[place].send(
            "POST", "/v1/decisions/promise:batch", {"requests": [REQUEST | {"request_id": "id 3"}]}, AT)[1]["answers"]
        ] == [True]  # fmt: skip
    for server in servers:
        server.stop()
    assert all(len(records_of(machines[0], f"id {number}")) == 1 for number in range(15))


def test_an_id_whose_server_was_killed_is_answered_by_another(machines, serve, nats):
    """What was recorded is given again; what was not is decided, also where NATS was killed in between."""
    servers = [serve(root) for root in machines]
    status, answer = once(servers[0], "mine")
    assert status == 200
    servers[0].kill()
    assert once(servers[1], "mine")[1]["decision_id"] == answer["decision_id"]
    nats.kill()
    assert once(servers[1], "other")[0] == 503
    nats.start()
    until = time.monotonic() + 60
    while (again := once(servers[1], "other"))[0] != 200:
        assert again[0] == 503
        assert time.monotonic() < until
        time.sleep(0.05)
    assert once(servers[1], "mine")[1]["decision_id"] == answer["decision_id"]
    servers[1].stop()
    assert records_of(machines[1], "mine") == [answer["decision_id"]]
    assert again[1]["decision_id"] in records_of(machines[1], "other")


def test_an_id_is_free_once_its_record_can_no_longer_come(machines, monkeypatch):
    """Held on every machine while a call works on it; then whoever comes first, also if its writer is gone."""
    monkeypatch.setattr(jetstream_log, "_GRACE_S", 0.0)
    with contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(Workspace(root, actor="ana")) for root in machines]
        logs = [LogWriter(space) for space in spaces]
        one, two = (open_index(space, log) for space, log in zip(spaces, logs, strict=True))
        put, claim = one._names.put, one.claim("a", "content")
        assert claim.place is None
        assert one.claim("a", "content") is None
        assert two.claim("a", "content") is None
        claim.release()  # as of a case that was refused
        until = time.monotonic() + 10
        while (again := two.claim("a", "content")) is None:
            assert time.monotonic() < until
        again.release()
        failed = one.claim("b", "content")
        one.note(logs[0].stream, 0, [failed])
        failed.release()  # its append raised, and stored nothing
        for index in (one, two):
            index.claim("b", "content").release()
        answers = iter([0])
        monkeypatch.setattr(one._names, "put", lambda *given: put(*given) * next(answers, 1))  # an answer that is lost
        claim = one.claim("c", "content")
        assert claim.place is None
        spaces[0].streams.close()
        assert two.claim("c", "content").place is None  # the writer that did not answer was put out
        logs[1].close()


def test_an_id_moves_with_the_stream_of_its_record(machines, monkeypatch):
    """A writer is put out between taking an id and recording by it: the other machine finds the record all the same."""
    monkeypatch.setattr(jetstream_log, "_GRACE_S", 0.0)
    with contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(Workspace(root, actor="ana")) for root in machines]
        log = LogWriter(spaces[0])
        one = open_index(spaces[0], log)
        claim = one.claim("a", "content")
        answer = spaces[0].streams._writers[log.stream]
        spaces[0].streams.connection.call(answer._leave, "test")
        spaces[0].streams.connection.greetings.clear()
        stack.enter_context(spaces[1].streams.open_writer(log.stream, timeout_s=5))
        former, record = log.stream, encode_record(RECORD, log.masks.value)
        spaces[0].streams.connection.greetings.append(answer._greet)
        log.append([record], noting([claim]))
        assert log.stream != former
        claim.release()
        two = open_index(spaces[1], LogWriter(spaces[1]))
        assert two.claim("a", "content").place == (log.stream, 0)
        log.close()
