"""Models that hang, under a real server: each caller has its answer in time, and no other policy feels it."""

import asyncio
import json
import threading
import time
from dataclasses import replace

import pytest
from tests.serving.process import Server
from tests.serving.project import AT, DEFINITIONS, REQUEST, make_project
from tests.serving.test_app import DECIDE, SIMULATED, Client
from tests.serving.test_engine_queue import Gate, request, slow

from retrodict.decisions.compiled import CompiledPolicy
from retrodict.decisions.log import find_decision, read_decisions
from retrodict.models.artifact import ModelArtifact
from retrodict.rollout import deploy
from retrodict.serving.threads import BoundedThreads, HangingError
from retrodict.workspace import Workspace

HANGS, UNEXPLAINED = 66.0, 55.0  # weights
LAUNCH = """
import sys, time
from retrodict.decisions.compiled import CompiledPolicy
from retrodict.models.artifact import ModelArtifact

def hangs(real, weight, place):
    def call(*values):
        row = values[place]
        if any(one.get("size__weight") == weight for one in (row if isinstance(row, list) else [row])):
            time.sleep(3600)
        return real(*values)
    return call

ModelArtifact.score_each = hangs(ModelArtifact.score_each, 66.0, 1)
ModelArtifact.score_row = hangs(ModelArtifact.score_row, 66.0, 1)
CompiledPolicy.explain = hangs(CompiledPolicy.explain, 55.0, 2)
from retrodict.cli.main import main
sys.exit(main())
"""
SECOND = """
again = Policy("again", late_parcel, decide={"warn": "score >= 0.5", "ok": "otherwise"}, fallback=["ok"],
    deadline="5s", batch="1ms")
"""


def of(weight, **more):
    return {**REQUEST, "context": {**REQUEST["context"], "weight": weight}, **more}


def test_a_model_that_hangs_leaves_its_callers_the_fallback_and_others_their_threads(tmp_path):
    """Alone, in a batch and in the reasons, each on record; the server ends when it is told to."""
    make_project(tmp_path).close()
    definitions = DEFINITIONS.replace('deadline="5s"', 'deadline="2s", batch="1ms"')
    (tmp_path / "definitions.py").write_text(definitions + SECOND)
    with Workspace(tmp_path, actor="ana") as workspace:
        for name in ("promise", "again"):
            deploy(workspace, name, reason="test")
        before = len(list(read_decisions(workspace)))
    server = Server(tmp_path, "--replay", "--no-consume", launch=("-c", LAUNCH))
    try:
        bodies = [of(12.5), of(UNEXPLAINED, explain=True), *[of(HANGS)] * 8]
        answers = [server.decide(body) for body in bodies]
        batch = server.send("POST", "/v1/decisions/promise:batch", {"requests": [of(HANGS)] * 3}, AT)
        late = server.decide(of(HANGS), {**AT, "Retrodict-Deadline": "200"})
        others = [server.decide(of(12.5), policy="again") for _ in range(8)]
    finally:
        server.stop()
    assert server.process.returncode == 0
    assert {status for status, _ in [*answers, batch, late, *others]} == {200}
    (_, first), (_, unexplained), *rest = answers
    assert first["score"] is not None
    assert (unexplained["score"] is None, unexplained["reasons"]) == (False, ["The reasons could not be computed"])
    hung = [answer for _, answer in [*rest, late]] + batch[1]["answers"]
    assert {(answer["score"], answer["fallback"]) for answer in hung} == {(None, "ok")}
    assert [answer["score"] for _, answer in others] == [first["score"]] * 8
    with Workspace(tmp_path, actor="ana") as workspace:
        records = [one.record for one in read_decisions(workspace)][before:]
    assert len(records) == 2 + 8 + 3 + 1 + 8
    assert {record.error for record in records if record.policy == "promise"} == {None, "TimeoutError", "HangingError"}
    hanging = [record for record in records if record.error == "TimeoutError"]
    assert {record.features.get("size__weight") for record in hanging} == {HANGS}  # what was read stays
    assert all("features" in record.stages and not record.model for record in hanging)


@pytest.fixture
def project(tmp_path):
    with make_project(tmp_path) as workspace:
        yield workspace


class Sleeper:
    """Hangs the thread that calls it until the end of the test, and says where that was."""

    def __init__(self):
        self.open, self.threads = threading.Event(), []

    def __call__(self, *_):
        self.threads.append(threading.current_thread())
        assert self.open.wait(30)
        raise ValueError


def step_back(servant):
    """Let a servant have a previous version, its own model, and its policy fall back to that."""
    servant.policy.policy = replace(servant.policy.policy, fallback=["previous_version", "ok"])
    before = {"model": "late_parcel@0", "artifact": "a"}
    servant.revision = replace(servant.revision, deployment=replace(servant.revision.deployment, previous=before))
    servant._previous = servant._model


@pytest.mark.parametrize("path", [DECIDE, f"{DECIDE}:batch"])
def test_the_previous_version_is_asked_in_a_thread_and_in_time(project, monkeypatch, path):
    """One that hangs is passed over by the next step of the fallback; no call of a model is on the loop."""
    sleeper, decider = Sleeper(), threading.current_thread()

    def broken(_, rows):
        assert threading.current_thread() is not decider
        raise ValueError

    monkeypatch.setattr(ModelArtifact, "score_each", broken)
    monkeypatch.setattr(ModelArtifact, "score_row", sleeper)

    async def run():
        async with slow(project) as client:
            servant = client.app.servants["promise"]
            step_back(servant)
            servant._deadline_ns = client.app.engines.threads(servant)._patience_ns = 500_000_000
            body = request() if path == DECIDE else {"requests": [request()]}
            try:
                async with asyncio.timeout(20):
                    answer = await client.send("POST", path, json.dumps(body).encode())
                    while "hanging" not in (facts := client.app.facts())["scoring"]["promise"]:  # noqa: ASYNC110  # a count
                        await asyncio.sleep(0.01)  # it began later than the request came
                    return answer, facts
            finally:
                sleeper.open.set()

    (status, _, body), facts = asyncio.run(run())
    answer = json.loads(body)
    answer = answer if path == DECIDE else answer["answers"][0]
    assert (status, answer["decision"], answer["fallback"]) == (200, "ok", "ok")
    assert (len(sleeper.threads), decider in sleeper.threads) == (1, False)
    assert facts["scoring"]["promise"]["hanging"] == 1


@pytest.mark.parametrize("breaks", ["the model", "a number", "a view"])
def test_the_previous_version_decides_in_a_thread_where_the_model_gives_nothing(project, monkeypatch, breaks):
    """An error, no number and a required view that is not current lead to it; the record has its score."""
    real, threads = ModelArtifact.score_row, []

    def score_each(model, rows):
        if breaks == "the model":
            raise ValueError
        scores = [real(model, row) for row in rows]
        return [one._replace(outputs={"score": float("nan")}) for one in scores] if breaks == "a number" else scores

    def score_row(model, values):
        threads.append(threading.current_thread())
        return real(model, values)

    monkeypatch.setattr(ModelArtifact, "score_each", score_each)
    monkeypatch.setattr(ModelArtifact, "score_row", score_row)

    async def run():
        async with slow(project) as client:
            servant = client.app.servants["promise"]
            step_back(servant)
            if breaks == "a view":
                servant.policy.policy = replace(servant.policy.policy, require={"depot_delays": "fresh 1m"})
                servant._max_ages = {"depot_delays": 1}
            return await client.send("POST", DECIDE, json.dumps(request()).encode())

    status, _, body = asyncio.run(run())
    answer = json.loads(body)
    record = find_decision(project, f"decision:{answer['decision_id']}").record
    assert (status, record.fallback, record.model) == (200, "previous_version", "late_parcel@0")
    assert record.score is not None
    assert [thread is threading.main_thread() for thread in threads] == [False]


def test_reasons_of_a_slow_model_are_computed_in_a_thread(project, monkeypatch):
    """As the score; they are those that it has on the loop, and each call has its stage."""
    real, threads = CompiledPolicy.explain, []

    def explain(policy, model, values):
        threads.append(threading.current_thread() is threading.main_thread())
        return real(policy, model, values)

    monkeypatch.setattr(CompiledPolicy, "explain", explain)
    body = json.dumps(request(explain=True)).encode()

    async def run():
        async with slow(project) as client:
            first = await client.send("POST", DECIDE, body)
            client.app.engines.by_policy = {}
            return [json.loads(answer[2]) for answer in (first, await client.send("POST", DECIDE, body))]

    ours, theirs = asyncio.run(run())
    assert ours["reasons"] == theirs["reasons"] != []
    assert threads == [False, True]
    assert "explain" in find_decision(project, f"decision:{ours['decision_id']}").record.stages


def test_a_model_is_called_again_when_one_call_came_back():
    """Two that hang are enough; what has not begun when nobody waits for it is not called."""

    async def run():
        threads, sleeper, called = BoundedThreads(10_000_000), Sleeper(), []
        for _ in range(2):
            with pytest.raises(TimeoutError, match="came back"):
                await threads.run(sleeper, time.perf_counter_ns() + 10_000_000)
        while threads.hanging < 2:  # noqa: ASYNC110  # a count, not an event
            await asyncio.sleep(0.001)
        with pytest.raises(HangingError, match="2 calls"):
            await threads.run(lambda: called.append(1), time.perf_counter_ns() + 10**12)
        sleeper.open.set()
        while threads.hanging:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
        await threads.run(lambda: called.append(2), time.perf_counter_ns() + 10**12)
        threads.close()
        return called

    assert asyncio.run(run()) == [2]


def test_a_call_hangs_when_it_has_run_for_longer_than_any_may_and_not_when_its_caller_has_left():
    """What decides by then has threads of its own, which no model takes."""

    async def run():
        threads, sleeper = BoundedThreads(10**13), Sleeper()
        for _ in range(64):
            with pytest.raises(TimeoutError, match="came back"):
                await threads.run(sleeper, time.perf_counter_ns() + 10_000_000)
        early, threads._patience_ns = threads.hanging, 0
        async with asyncio.timeout(20):
            decided = await threads.finish(lambda: "decided")
        late = threads.hanging
        sleeper.open.set()
        threads.close()
        return early, late, len(sleeper.threads), decided

    early, late, begun, decided = asyncio.run(run())
    assert (early, decided) == (0, "decided")
    assert late == begun >= 4


@pytest.mark.parametrize("path", [DECIDE, f"{DECIDE}:batch"])
def test_callers_in_a_hurry_take_the_model_from_nobody(project, monkeypatch, path):
    """Rows take longer than they wait, and less than the policy does: who has the time is scored."""
    gate = Gate(monkeypatch)
    body = json.dumps(request() if path == DECIDE else {"requests": [request()]}).encode()

    async def run():
        async with slow(project) as client:
            for _ in range(3):
                await client.send("POST", path, body, [*SIMULATED, (b"retrodict-deadline", b"100")])
            patient = asyncio.create_task(client.send("POST", path, body))
            await asyncio.sleep(0.05)
            facts = client.app.facts()["scoring"]["promise"]
            gate.open.set()
            return facts, await patient

    facts, (_, _, answer) = asyncio.run(run())
    answer = json.loads(answer)
    answer = answer if path == DECIDE else answer["answers"][0]
    assert "hanging" not in facts
    assert path != DECIDE or len(gate.sizes) <= 2  # one call at a time: what nobody waits for any more is not begun
    assert (answer["score"] is None, answer.get("fallback")) == (False, None)


def test_a_new_revision_has_threads_of_its_own(project):
    """So that a rollback helps at once."""
    client = Client(project)
    servant = client.app.servants["promise"]
    threads = client.app.engines.threads(servant)
    assert client.app.engines.threads(servant) is threads
    client.app.follow({})
    del servant
    other = Client(project)
    assert other.app.engines.threads(other.app.servants["promise"]) is not threads
    asyncio.run(client.close())
    asyncio.run(other.close())
