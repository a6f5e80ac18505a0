"""Sessions as callers meet them: over threads, workers, machines and kills, one number for each decision."""

import asyncio
import contextlib
import json
import shutil
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from tests.serving import project as parcels
from tests.serving.grpc_callers import CASE, ask, decide, serving
from tests.serving.process import Server
from tests.serving.project import AT, REQUEST, make_project
from tests.serving.test_app import Client
from tests.stores.redis_server import RedisServer

from retrodict import Project
from retrodict.core.clock import parse_time
from retrodict.core.errors import InputError, IntegrityError, RefusedError
from retrodict.decisions import read_decisions, replay_decision
from retrodict.decisions.loader import Loader
from retrodict.decisions.requests import DecisionRequest
from retrodict.registry import current
from retrodict.rollout import deploy
from retrodict.rollout.rescore import Challenger, Rescorer
from retrodict.serving import Decider
from retrodict.workspace import Workspace

NOW = parse_time("2024-02-20T10:00Z")
RULES = """rules=[Rule("enough", when="session_count >= 5", then="warn", reason="Five already"),
    Rule("again", when="session_last = 'warn' and session_age_s > 60", then="ok", reason="Warned"), """
SESSION = 'deadline="5s", session=Session("depot", ttl="30m", last=50))'
TEXT = parcels.DEFINITIONS.replace("rules=[", RULES).replace('deadline="5s")', SESSION)


def build(folder, settings=""):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parcels, "DEFINITIONS", TEXT)
        make_project(folder, settings).close()
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return build(tmp_path_factory.mktemp("sessions"))


@pytest.fixture
def workspace(root):
    with Workspace(root, actor="ana") as opened:
        yield opened


@pytest.fixture
def depot():
    """A unit that no other test has."""
    return uuid.uuid4().hex


@pytest.fixture
def serve(root):
    """Starts servers, and kills what is left of them."""
    servers = []

    def begin(*options, folder=root):
        servers.append(Server(folder, "--replay", "--no-consume", *options))
        return servers[-1]

    yield begin
    for server in servers:
        server.kill()


def body(depot, **more):
    return {**REQUEST, "entities": {"depot": depot}, **more}


def values(depot, **more):
    return {**REQUEST["context"], "depot": depot, **more}


def records(folder, depot):
    with Workspace(folder, actor="ana") as workspace:
        return [one.record for one in read_decisions(workspace) if one.record.entities["depot"] == depot]


def counts(found):
    return sorted(record.session["count"] for record in found)


def show(folder, depot):
    with Project(folder, actor="ana") as project:
        return project.policies.session("promise", {"depot": depot}).to_dict()


def test_each_of_twenty_calls_of_two_workers_has_its_number(root, serve, depot):
    """None is lost, and the sixth and all later ones are decided by the rule."""
    server = serve("--workers", "2")
    with ThreadPoolExecutor(20) as pool:
        statuses = [status for status, _ in pool.map(lambda _: server.decide(body(depot)), range(40))]
    assert statuses == [200] * 40
    logged = sorted(records(root, depot), key=lambda record: record.session["count"])
    assert counts(logged) == list(range(40))
    assert [record.rule == "enough" for record in logged] == [number >= 5 for number in range(40)]
    assert [record.session["last"] for record in logged[1:]] == [record.decision for record in logged[:-1]]
    assert show(root, depot)["last"] == [record.decision for record in logged]
    with Workspace(root, actor="ana") as workspace:
        streams = {one.stream for one in read_decisions(workspace) if one.record.entities["depot"] == depot}
    assert len(streams) == 2


def test_a_kill_loses_no_number(root, serve, depot):
    """Every answered decision was counted; after the kill no number comes again."""
    server, answered, stop = serve(), [], threading.Event()

    def load():
        while not stop.is_set():
            with contextlib.suppress(OSError, ValueError):
                answered.append(server.decide(body(depot))[0])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(answered) < 30:
        time.sleep(0.01)
    server.kill()
    stop.set()
    for thread in threads:
        thread.join()
    again = serve()
    assert again.decide(body(depot))[0] == 200
    logged = records(root, depot)
    numbers = counts(logged)
    assert len(set(numbers)) == len(numbers) >= answered.count(200) + 1
    assert numbers[-1] + 1 - len(numbers) <= 4  # counted, and killed before the record
    assert max(logged, key=lambda record: record.id).session["count"] == numbers[-1]


def test_a_repeated_request_is_counted_once(workspace, depot):
    """By its id it gets the answer of the first, alone or in a batch, and the next is the second."""
    with Decider(workspace) as decider:
        first = decider.answer("promise", values(depot), at=NOW, request_id=f"id {depot}")
        again = decider.answer("promise", values(depot), at=NOW, request_id=f"id {depot}")
        batch = decider.decide_many("promise", [values(depot)] * 3, at=NOW, request_ids=[f"id {depot}", None, None])
    assert (again.replayed, again.record) == (True, first.record)
    assert [answer.record.session["count"] for answer in batch] == [0, 1, 2]


def test_all_ways_to_ask_go_into_one_session(root, workspace, depot):
    """In process, over HTTP, in a batch and by gRPC; what is refused is not counted."""
    headers = {"retrodict-time": AT["Retrodict-Time"]}
    with Decider(workspace) as decider:
        decider.decide("promise", values(depot), at=NOW)
        with pytest.raises(InputError):
            decider.decide("promise", values(depot, weight="heavy"), at=NOW)

    async def run():
        client = Client(workspace)
        plain = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            one = await client.send("POST", "/v1/decisions/promise", json.dumps(body(depot)).encode(), plain)
            wrong = json.dumps(body(depot, context={})).encode()
            refused = await client.send("POST", "/v1/decisions/promise", wrong, plain)
            many = json.dumps({"requests": [body(depot)] * 2}).encode()
            batch = await client.send("POST", "/v1/decisions/promise:batch", many, plain)
            metrics = dict(client.app.telemetry.counters)
        finally:
            await client.close()
        return one[0], refused[0], batch[0], metrics

    *statuses, metrics = asyncio.run(run())
    assert statuses == [200, 400, 200]
    assert metrics["sessions_total", 'policy="promise",status="ok"'] == 3

    async def call():
        async with serving(workspace) as (_, _, channel):
            return await ask(channel, decide({**CASE, "depot": depot}))

    assert asyncio.run(call())[0] == "OK"
    assert counts(records(root, depot)) == [0, 1, 2, 3, 4]


def test_a_replay_is_exact_whatever_became_of_the_session(workspace, depot):
    """By the logged values: of counts, ages, no unit, and of who sends such names by itself."""
    with Decider(workspace) as decider:
        made = [decider.decide("promise", values(depot, session_count=99), at=NOW + number * 20_000_000)
                for number in range(8)]  # fmt: skip
        made.append(decider.decide("promise", values(None), at=NOW))
    assert [record.session.get("count") for record in made] == [*range(8), None]
    assert made[-1].session == {"status": "no_unit"}
    assert "enough" in {record.rule for record in made}
    for record in made:
        replay = replay_decision(workspace, record.id)
        assert (replay.verdict, replay.reason) == ("exact", "")
    assert show(workspace.root, depot)["decisions"] == 8


def test_challengers_read_the_logged_session_and_touch_none(workspace, depot):
    """What decided itself decides alike, also where the session was not known."""
    with Decider(workspace) as decider:
        made = [decider.decide("promise", values(depot), at=NOW + number * 20_000_000) for number in range(8)]
    original = Challenger.of_record(workspace, made[0])
    results = Rescorer(workspace, original, values="logged").rescore(made)
    assert [result.decision for result in results] == [record.decision for record in made]
    away = [replace_session(record, {"status": "unavailable"}) for record in made[6:]]
    assert [result.error for result in Rescorer(workspace, original, values="logged").rescore(away)] == [None] * 2
    assert show(workspace.root, depot)["decisions"] == 8


def replace_session(record, session):
    from msgspec.structs import replace as replaced

    return replaced(record, session=session)


def test_both_arms_of_a_rollout_share_a_session(workspace, depot):
    """The same unit goes on counting, whichever version decides."""
    revision = current(workspace)["promise"]
    state = {"unit": ["weight"], "seed": "arms", "share": 0.5, "control": 0.5, "where": None,
             "candidate": revision.deployment.target}  # fmt: skip
    split = replace(revision, deployment=replace(revision.deployment, split=state))
    servant = Loader(workspace).load(split)
    made = []
    for number in range(12):
        context = {**REQUEST["context"], "weight": float(number)}
        request = DecisionRequest({"depot": depot}, context)
        made.append(servant.decide(request, decision_id="0" * 26, at=NOW, arrived_ns=time.perf_counter_ns()))
    assert {record.arm for record in made} == {"canary", "control"}
    assert [record.session["count"] for record in made] == list(range(12))


def test_a_session_is_shown_and_dropped(workspace, depot):
    """By the kinds of a request, with no unit in what is shown; a policy without sessions has none to show."""
    with Decider(workspace) as decider:
        for _ in range(2):
            decider.decide("promise", values(depot), at=NOW)
    with Project(workspace.root, actor="ana") as project:
        assert project.policies.session("promise", {"depot": depot}, drop=True).to_dict() == {
            "policy": "promise", "decisions": 2, "last": [record.decision for record in records(workspace.root, depot)],
            "began": "2024-02-20T10:00:00Z", "newest": "2024-02-20T10:00:00Z", "ends": "2024-02-20T10:30:00Z",
            "dropped": True,
        }  # fmt: skip
        empty = project.policies.session("promise", {"depot": depot}, drop=True)
        assert empty.to_dict() == {"policy": "promise", "dropped": False}
        assert "none" in str(empty)
        with pytest.raises(InputError, match="'depot'"):
            project.policies.session("promise", {"dept": depot})


def test_a_damaged_session_can_be_dropped(workspace, depot):
    """As its error says; the decisions before that have nulls, and are made all the same."""
    with Decider(workspace) as decider, Project(workspace.root, actor="ana") as project:
        decider.decide("promise", values(depot), at=NOW)
        ours = {key: b"damaged" for key, _ in workspace.sessions.scan(b"\0sessions\0")}
        workspace.sessions.put_many(ours)
        assert decider.decide("promise", values(depot), at=NOW).session == {"status": "unavailable"}
        with pytest.raises(IntegrityError, match="--drop"):
            project.policies.session("promise", {"depot": depot})
        assert project.policies.session("promise", {"depot": depot}, drop=True).dropped
        assert decider.decide("promise", values(depot), at=NOW).session["count"] == 0


def test_machines_share_sessions_in_redis(tmp_path):
    """Two servers with folders of their own; once Redis is killed they answer, and say what they do not know."""
    with contextlib.closing(RedisServer()) as redis, contextlib.ExitStack() as stack:
        settings = f'[stores]\nkeys = "{redis.url("shop")}"\n[servers]\nread_timeout = "300ms"\n'
        one, two = tmp_path / "one", tmp_path / "two"
        one.mkdir()
        build(one, settings)
        shutil.copytree(one, two)
        servers = [Server(root, "--replay", "--no-consume") for root in (one, two)]
        for server in servers:
            stack.callback(server.kill)
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda number: servers[number % 2].decide(body("north")), range(40)))
        assert [status for status, _ in answers] == [200] * 40
        logged = records(one, "north") + records(two, "north")
        assert counts(logged) == list(range(40))
        redis.kill()
        status, answer = servers[0].decide(body("north"))
        assert (status, "fallback" in answer) == (200, True)
        assert [record.session for record in records(one, "north")][-1] == {"status": "unavailable"}


def test_a_policy_gets_its_session_by_a_deployment(tmp_path):
    """Before it there is none to show, and records say nothing of one; a challenger with one finds none in them."""
    make_project(tmp_path).close()
    with Workspace(tmp_path, actor="ana") as workspace, Decider(workspace) as decider:
        before = decider.decide("promise", values("north"), at=NOW)
        assert before.session == {}
        with Project(tmp_path, actor="ana") as project, pytest.raises(RefusedError, match="must have a Session"):
            project.policies.session("promise", {"depot": "north"})
    (tmp_path / "definitions.py").write_text(TEXT)
    with Workspace(tmp_path, actor="ana") as workspace, Decider(workspace) as decider:
        deploy(workspace, "promise", reason="sessions")
        assert decider.decide("promise", values("north"), at=NOW).session == {"count": 0, "last": None, "age_s": 0.0}
        after = decider.decide("promise", values("north"), at=NOW)
        (tmp_path / "definitions.py").write_text(TEXT.replace('ttl="30m"', 'ttl="1h"'))
    with Workspace(tmp_path, actor="ana") as workspace, Decider(workspace) as decider:
        deploy(workspace, "promise", reason="longer sessions")
        longer = decider.decide("promise", values("north"), at=NOW)
        rescorers = [Rescorer(workspace, Challenger.of_record(workspace, record)) for record in (after, longer)]
        missing = "not in the log: the session that its rules read"
        errors = [[result.error for result in one.rescore([before, after, longer])] for one in rescorers]
        assert errors == [[missing, None, missing], [missing, missing, None]]
