"""Single requests that are scored together: as each alone, bounded, never computed for nobody."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.serving.project import AT, DEFINITIONS, REQUEST, make_project
from tests.serving.test_app import DECIDE, SIMULATED, Client
from tests.serving.test_server import Server

from retrodict.core.clock import parse_time
from retrodict.core.errors import DefinitionError
from retrodict.decisions.loader import Loader
from retrodict.decisions.log import find_decision
from retrodict.decisions.requests import DecisionRequest
from retrodict.models import artifact as artifact_module
from retrodict.models.artifact import ModelArtifact, Speed
from retrodict.rollout import deploy
from retrodict.serving import Decider
from retrodict.serving.http_answer import status_of
from retrodict.workspace import Workspace

SLOW = Speed(2_000.0, 10.0)
NOW = parse_time("2024-02-20T10:00Z")
CONTEXT = REQUEST["context"]


def request(weight=12.5, depot="north", **more):
    return {"entities": {"depot": depot}, "context": {**CONTEXT, "weight": weight}, **more}


@asynccontextmanager
async def slow(workspace, speed=SLOW, **limits):
    """A client whose one engine is taken for a slow one."""
    client = Client(workspace, **{"in_flight": 300, "wait": 60_000_000, **limits})
    for servant in client.app.servants.values():
        servant.speed = speed
    client.app.follow(client.app.servants)
    try:
        yield client
    finally:
        await client.close()
        client.app.engines.close()


class Gate:
    """Holds up the thread that prepares until it is opened, and counts the rows of each call of the engine."""

    def __init__(self, monkeypatch, broken=None):
        self.open, self.entered, self.sizes = threading.Event(), threading.Event(), []
        real = ModelArtifact.score_each

        def score_each(model, rows):
            self.entered.set()
            assert self.open.wait(20)
            self.sizes.append(len(rows))
            if any(row["size__weight"] == broken for row in rows):
                raise ValueError("broken row")
            return real(model, rows)

        monkeypatch.setattr(ModelArtifact, "score_each", score_each)

    async def holds(self):
        while not self.entered.is_set():  # noqa: ASYNC110  # set by a thread
            await asyncio.sleep(0.001)


BODIES = st.one_of(
    st.builds(
        request,
        st.floats(0, 100) | st.none() | st.just("heavy"),
        st.sampled_from(["north", "south", "east", "nobody", None]),
        explain=st.booleans(),
        key=st.sampled_from(["p1", "p2"]),
    ),
    st.sampled_from([{}, 7, {"entities": {}, "context": {}}]),
)
HOURS = st.sampled_from(["10", "11", "13"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(BODIES, HOURS), min_size=2, max_size=30), st.sampled_from([1, 2, 7, 100]))
def test_each_is_answered_and_recorded_as_it_would_be_alone(project, asked, rows):
    """Statuses, answers, records and the names of stages, for any mixture of requests and moments."""

    async def run():
        async with slow(project) as client:
            client.app.engines.by_policy["promise"].rows = rows
            sent = [
                (json.dumps(body).encode(), [(SIMULATED[0][0], f"2024-02-20T{hour}:00:00Z".encode())])
                for body, hour in asked
            ]
            together = await asyncio.gather(*(client.send("POST", DECIDE, *one) for one in sent))
            client.app.engines.by_policy = {}
            return together, [await client.send("POST", DECIDE, *one) for one in sent]

    together, alone = asyncio.run(run())
    for (status, _, body), (expected, _, answer) in zip(together, alone, strict=True):
        ours, theirs = json.loads(body), json.loads(answer)
        assert (status, ours | {"decision_id": ""}) == (expected, theirs | {"decision_id": ""})
        if status == 200:
            mine, other = (find_decision(project, f"decision:{one['decision_id']}").record for one in (ours, theirs))
            assert mine.stages.keys() == other.stages.keys()
            assert structs.replace(mine, id="", stages={}) == structs.replace(other, id="", stages={})


def test_what_comes_while_the_engine_is_busy_is_one_batch_up_to_a_bound(project, monkeypatch):
    """The first one goes at once, the others together when the engine is free; sizes and waits are counted."""
    gate = Gate(monkeypatch)

    async def run():
        async with slow(project) as client:
            client.app.engines.by_policy["promise"].rows = 4
            body = json.dumps(request()).encode()
            first = asyncio.create_task(client.send("POST", DECIDE, body))
            await gate.holds()
            others = [asyncio.create_task(client.send("POST", DECIDE, body)) for _ in range(9)]
            await asyncio.sleep(0.01)
            gate.open.set()
            answers = await asyncio.gather(first, *others)
            _, _, metrics = await client.send("GET", "/metrics")
            return [status for status, _, _ in answers], metrics.decode()

    statuses, metrics = asyncio.run(run())
    assert (statuses, gate.sizes) == ([200] * 10, [1, 4, 4, 1])
    for bound, count in (("1", 2), ("2", 2), ("4", 4), ("+Inf", 4)):
        assert f'retrodict_engine_batch_rows_bucket{{policy="promise",le="{bound}"}} {count}\n' in metrics
    assert 'retrodict_engine_batch_rows_sum{policy="promise"} 10\n' in metrics
    assert 'retrodict_stage_seconds_count{stage="queue"} 10\n' in metrics


def test_late_cancelled_and_left_requests_are_dropped_before_they_are_computed(project, monkeypatch):
    """504 for the caller's deadline, no record for anyone who left, the fallback for the policy's deadline."""
    gate = Gate(monkeypatch)

    async def run():
        async with slow(project) as client:
            queue, app = client.app.engines.by_policy["promise"], client.app
            body = json.dumps(request()).encode()
            first = asyncio.create_task(client.send("POST", DECIDE, body))
            await gate.holds()
            late = asyncio.create_task(client.send("POST", DECIDE, body, [*SIMULATED, (b"retrodict-deadline", b"50")]))
            stopped = asyncio.create_task(client.send("POST", DECIDE, body))
            times = {"new_id": app._new_id, "simulated": NOW, "limit_ns": None}
            question = DecisionRequest(**request())
            old = asyncio.create_task(queue.decide(question, arrived_ns=0, **times))
            left = asyncio.create_task(queue.decide(question, arrived_ns=1 << 62, has_left=lambda: True, **times))
            await asyncio.sleep(0.06)
            stopped.cancel()
            await asyncio.sleep(0)
            gate.open.set()
            answers = await asyncio.gather(first, late, old, left, stopped, return_exceptions=True)
            return answers, app.telemetry.named()

    (first, late, old, left, stopped), counters = asyncio.run(run())
    assert (first[0], late[0], gate.sizes) == (200, 504, [1])
    assert (old.fallback, old.error, old.decision) == ("ok", "TimeoutError", "ok")
    assert (status_of(left), type(stopped)) == (499, asyncio.CancelledError)
    assert counters['engine_dropped_total{policy="promise",reason="gone"}'] == 2
    assert counters['engine_dropped_total{policy="promise",reason="late"}'] == 1


def test_a_row_that_the_engine_refuses_fails_alone(project, monkeypatch):
    """Its neighbours are scored one by one and get their own scores."""
    gate = Gate(monkeypatch, broken=33.0)
    real = ModelArtifact.score_row

    def score_row(model, values):
        if values["size__weight"] == 33.0:
            raise ValueError("broken row")
        return real(model, values)

    monkeypatch.setattr(ModelArtifact, "score_row", score_row)
    weights = [1.0, 2.0, 33.0, 4.0]

    async def run():
        async with slow(project) as client:
            bodies = [json.dumps(request(weight)).encode() for weight in weights]
            first = asyncio.create_task(client.send("POST", DECIDE, bodies[0]))
            await gate.holds()
            others = [asyncio.create_task(client.send("POST", DECIDE, body)) for body in bodies]
            await asyncio.sleep(0.01)
            gate.open.set()
            await first
            together = [json.loads(body) for _, _, body in await asyncio.gather(*others)]
            client.app.engines.by_policy = {}
            return together, [json.loads((await client.send("POST", DECIDE, body))[2]) for body in bodies]

    together, alone = asyncio.run(run())
    assert gate.sizes == [1, 4, 1, 1, 1, 1]
    assert [one["score"] for one in together] == [one["score"] for one in alone]
    assert [one.get("fallback") for one in together] == [None, None, "ok", None]


def test_who_would_wait_for_half_of_its_deadline_is_told_to_come_back_at_once(project, monkeypatch):
    """What batches took says how long; callers of batches and those in a hurry have less. It is load of the server."""
    gate = Gate(monkeypatch)

    async def run():
        async with slow(project, Speed(600_000.0, None)) as client:  # 5 s of the policy: four may wait, each for itself
            app, body = client.app, json.dumps(request()).encode()
            first = asyncio.create_task(client.send("POST", DECIDE, body))
            await gate.holds()
            asked, loads = [], []

            async def ask(*headers):
                asked.append(asyncio.create_task(client.send("POST", DECIDE, body, [*SIMULATED, *headers])))
                await asyncio.sleep(0.01)
                loads.append(app.facts()["load"])

            batch, hurry = (b"retrodict-priority", b"batch"), (b"retrodict-deadline", b"2000")
            for headers in [(), (), (batch,), (hurry,), (), (), (), (), ()]:
                await ask(*headers)
            gate.open.set()
            answers = [status for status, _, _ in await asyncio.gather(first, *asked)]
            after = app.facts()["load"], app.engines.by_policy["promise"]._batch_ns
            return answers, loads, after, await client.send("POST", DECIDE, body)

    answers, loads, (idle, learned), last = asyncio.run(run())
    assert answers == [200, 200, 200, 429, 429, 200, 200, 200, 429, 429]
    assert loads == [0.24, 0.48, 0.48, 0.48, 0.72, 0.96, 1.2, 1.2, 1.2]
    assert idle < 0.01
    assert learned < 600e6  # what the batches took, and no longer what was measured before
    assert last[0] == 200


def test_a_batch_for_a_slow_engine_holds_up_nobody_and_ends_at_the_deadline(project, monkeypatch):
    """Its pieces go to a thread, as large as a quarter of the deadline holds; what is late has the fallback."""
    sizes, threads = [], set()
    real = ModelArtifact.score_each

    def score_each(model, rows):
        sizes.append(len(rows))
        threads.add(threading.current_thread())
        time.sleep(0.05)
        return real(model, rows)

    monkeypatch.setattr(ModelArtifact, "score_each", score_each)

    async def run():
        async with slow(project, Speed(125_000.0, None)) as client:  # 5 s of the policy: ten together
            body = json.dumps({"requests": [request(float(n)) for n in range(60)]}).encode()
            looks, asked = 0, asyncio.create_task(client.send("POST", DECIDE + ":batch", body))
            while not asked.done():
                looks += 1
                await asyncio.sleep(0.005)
            hurry = [*SIMULATED, (b"retrodict-deadline", b"120")]
            late = await client.send("POST", DECIDE + ":batch", body, hurry)
            return looks, list(sizes), [json.loads(answer) for _, _, answer in (await asked, late)]

    looks, sizes, (whole, late) = asyncio.run(run())
    assert sizes[:6] == [10] * 6
    assert threading.main_thread() not in threads
    assert looks > 20
    assert all("fallback" not in one for one in whole["answers"])
    assert [one.get("fallback") for one in late["answers"]].count("ok") >= 30
    assert len(sizes) < 12


def test_requests_finish_with_the_servant_they_began_with(project, monkeypatch):
    """A new revision takes over between two requests, also while some wait for the old one's engine."""
    gate = Gate(monkeypatch)

    async def run():
        async with slow(project) as client:
            queue = client.app.engines.by_policy["promise"]
            body = json.dumps(request()).encode()
            waiting = [asyncio.create_task(client.send("POST", DECIDE, body)) for _ in range(3)]
            await gate.holds()
            client.app.follow(client.app.servants)
            assert client.app.engines.by_policy["promise"] is queue
            client.app.follow(Loader(project).load_current())  # not measured: fast
            assert client.app.engines.by_policy == {}
            gate.open.set()
            return [status for status, _, _ in await asyncio.gather(*waiting)]

    assert asyncio.run(run()) == [200] * 3


@pytest.mark.parametrize(
    ("speed", "scoring"),
    [
        (None, {"row_us": None, "runs": "on the loop"}),
        (Speed(300.0, 1.0), {"row_us": 300.0, "runs": "on the loop"}),
        (Speed(301.0, 1.0), {"row_us": 301.0, "runs": "in a thread", "rows_together": 100, "window_ms": 0.0}),
        (Speed(2e5, 1e5), {"row_us": 2e5, "runs": "in a thread", "rows_together": 12, "window_ms": 0.0}),
        (Speed(301.0, 302.0), {"row_us": 301.0, "runs": "in a thread", "rows_together": 1, "window_ms": 0.0}),
        (Speed(301.0, None), {"row_us": 301.0, "runs": "in a thread", "rows_together": 1, "window_ms": 0.0}),
    ],
)
def test_what_was_measured_decides_where_an_engine_runs(project, speed, scoring):
    """Fast engines stay on the loop; rows go together if that is quicker, for a quarter of the deadline at most."""

    async def run():
        async with slow(project, speed) as client:
            _, _, one = await client.send("GET", "/v1/policies/promise")
            _, _, status = await client.send("GET", "/v1/status")
            return json.loads(one)["scoring"], json.loads(status)["scoring"]["promise"]

    assert asyncio.run(run()) == (scoring, scoring)


@pytest.mark.parametrize(("alone", "together", "calls"), [(10.0, 32 * 9.0, [3]), (10.0, 32 * 11.0, [1, 1, 1])])
def test_a_model_scores_together_only_where_that_is_quicker(project, monkeypatch, alone, together, calls):
    """A forest has a function for one row, which many calls of are quicker than one for many rows."""
    model = Loader(project).load_current()["promise"]._model
    times = iter([alone, together])
    monkeypatch.setattr(artifact_module, "_least_us", lambda _: next(times))
    rows, sizes = [dict.fromkeys(model.inputs.names)] * 3, []
    real_row, real = type(model.engine).score_row, type(model.engine).scores
    monkeypatch.setattr(type(model.engine), "score_row", lambda self, row: sizes.append(1) or real_row(self, row))
    monkeypatch.setattr(type(model.engine), "scores", lambda self, table: sizes.append(len(table)) or real(self, table))
    model = replace(model)  # which takes the functions of its engine when it is made
    assert model.measure() == Speed(alone, together / 32)
    model.score_each(rows)
    assert sizes == calls


@pytest.mark.parametrize("window", ["999us", "6ms", "1s"])
def test_a_window_is_from_one_to_five_milliseconds(project, window):
    """A longer one would delay more than it saves."""
    policy = project.definitions.get(type(Loader(project).load_current()["promise"].policy.policy), "promise")
    fields = {name: getattr(policy, name) for name in ("name", "model", "decide")}
    with pytest.raises(DefinitionError, match="1 to 5 ms"):
        type(policy)(**fields, batch=window)
    assert type(policy)(**fields, batch="5ms").batch == "5ms"


def test_a_server_with_a_window_answers_many_callers_as_a_decider_does(tmp_path):
    """Over HTTP, with the queue that a declared window brings: equal records, some of them in batches."""
    make_project(tmp_path).close()
    (tmp_path / "definitions.py").write_text(DEFINITIONS.replace('deadline="5s"', 'deadline="5s", batch="5ms"'))
    with Workspace(tmp_path, actor="ana") as workspace:
        deploy(workspace, "promise", reason="with a window")
    running = Server(tmp_path, "--replay", "--no-consume")
    try:
        bodies = [request(float(n), depot) for n in range(40) for depot in ("north", "east", "nobody")]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda body: running.decide(body, AT), bodies))
        counters = running.send("GET", "/v1/status")[1]["counters"]
        scoring = running.send("GET", "/v1/policies/promise")[1]["scoring"]
    finally:
        running.stop()
    decided = [answer for status, answer in answers if status == 200]
    assert {status for status, _ in answers} <= {200, 429}  # a busy machine may turn some away
    assert len(decided) > 30
    assert (scoring["runs"], scoring["window_ms"]) == ("in a thread", 5.0)
    rows, batches = (counters[f'engine_batch_rows_{name}{{policy="promise"}}'] for name in ("sum", "count"))
    assert rows == len(decided) > batches
    with Workspace(tmp_path, actor="ana") as workspace, Decider(workspace) as decider:
        for (status, answer), body in list(zip(answers, bodies, strict=True))[::7]:
            if status == 200:
                alone = decider.decide("promise", {**body["entities"], **body["context"]}, at=NOW)
                record = find_decision(workspace, f"decision:{answer['decision_id']}").record
                same = {"id": "", "stages": {}, "key": None}
                assert structs.replace(record, **same) == structs.replace(alone, **same)
