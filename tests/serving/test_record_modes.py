"""Record modes: what an answer says of its record is true, and what a crash may take is bounded."""

import asyncio
import json
import threading
import time
from http.client import HTTPException
from itertools import count
from threading import Thread

import pytest
from tests.serving.process import Server
from tests.serving.project import DEFINITIONS, REQUEST, make_project
from tests.serving.test_app import BODY, SIMULATED, Client

from retrodict import Policy
from retrodict.core.errors import DefinitionError, InputError, NotFoundError, RetryableError
from retrodict.decisions import decisions_table, find_decision, read_decisions, replay_decision
from retrodict.decisions import recorder as recorder_module
from retrodict.decisions.recorder import LATER_RECORDS
from retrodict.rollout import deploy
from retrodict.serving import Decider
from retrodict.workspace import Workspace

from .conftest import MODEL

LATER, SAMPLED = "/v1/decisions/later", "/v1/decisions/sampled"
_ids = count()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with one policy for each mode."""
    folder = tmp_path_factory.mktemp("modes")
    make_project(folder).close()
    more = "".join(
        f'\n{name} = Policy("{name}", late_parcel, decide={{"warn": "score >= 0.5", "ok": "otherwise"}}, '
        f'fallback=["ok"], deadline="5s", record="{mode}")'
        for name, mode in {"later": "async", "sampled": "sample 30%"}.items()
    )
    (folder / "definitions.py").write_text(DEFINITIONS + more)
    with Workspace(folder, actor="ana") as workspace:
        for name in ("later", "sampled"):
            deploy(workspace, name, reason="test")
    return folder


@pytest.fixture
def workspace(root):
    with Workspace(root, actor="ana") as opened:
        yield opened


def logged(workspace, policy):
    return {one.record.id: one.record for one in read_decisions(workspace, policy=policy)}


def run(workspace, scenario, **options):
    """Let a scenario call an application; the log is closed after it."""

    async def main():
        client = Client(workspace, **options)
        try:
            return await scenario(client)
        finally:
            await client.close()

    return asyncio.run(main())


async def ask(client, path=LATER, body=BODY, headers=()):
    status, _, answer = await client.send("POST", path, body, [*SIMULATED, *headers])
    return status, json.loads(answer)


class Gate:
    """Holds up or fails what is appended to a log."""

    def __init__(self, recorder):
        self.open, self.failures, self._append = threading.Event(), 0, recorder.log.append
        recorder.log.append = self

    def __call__(self, records, before=None):
        assert self.open.wait(20)
        if self.failures:
            self.failures -= 1
            raise RetryableError("the decision log must be writable")
        self._append(records, before)


def test_an_answer_comes_before_its_record_and_says_so(workspace):
    """Nothing is in the log while the disk stands still; then all is."""

    async def scenario(client):
        gate = Gate(client.recorder)
        status, answer = await ask(client)
        early = logged(workspace, "later")
        gate.open.set()
        return status, answer, early

    status, answer, early = run(workspace, scenario)
    assert (status, answer["recorded"], answer["decision_id"] in early) == (200, "async", False)
    assert answer["decision_id"] in logged(workspace, "later")
    assert replay_decision(workspace, f"decision:{answer['decision_id']}").exact


def test_so_many_are_answered_early_and_no_more(workspace, monkeypatch):
    """The sixth waits for the disk, as one does that comes when the oldest has waited too long."""
    monkeypatch.setattr(recorder_module, "LATER_RECORDS", 5)

    async def scenario(client):
        gate = Gate(client.recorder)
        early = [await ask(client) for _ in range(5)]
        waiting = asyncio.create_task(ask(client))
        await asyncio.wait([waiting], timeout=0.3)
        pending = not waiting.done()
        gate.open.set()
        answers = await waiting, [await ask(client) for _ in range(12)]
        return early, pending, *answers

    early, pending, (status, last), later = run(workspace, scenario)
    assert [answer["recorded"] for _, answer in early] == ["async"] * 5
    assert (pending, status, "recorded" in last) == (True, 200, False)
    assert [answer.get("recorded") for _, answer in later].count("async") > 5  # there is room again


def test_nobody_is_answered_early_once_the_disk_stands_still(workspace):
    """What a crash may take was answered within 50 ms."""

    async def scenario(client):
        gate = Gate(client.recorder)
        first = await ask(client)
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(ask(client))
        await asyncio.wait([waiting], timeout=0.2)
        pending = not waiting.done()
        gate.open.set()
        return first[1]["recorded"], pending, (await waiting)[1]

    mark, pending, last = run(workspace, scenario)
    assert (mark, pending, "recorded" in last) == ("async", True, False)


def test_a_full_disk_takes_nothing_that_was_answered(workspace):
    """It is written again until the disk takes it; callers who wait get 503."""

    async def scenario(client):
        gate = Gate(client.recorder)
        early = (await ask(client))[1]
        gate.failures = 3
        waiting = asyncio.create_task(ask(client, path="/v1/decisions/promise"))
        await asyncio.sleep(0)
        gate.open.set()
        return early, await waiting

    early, (status, _) = run(workspace, scenario)
    assert status == 503
    assert early["decision_id"] in logged(workspace, "later")


def test_what_is_lost_for_good_is_in_the_process_log(workspace, caplog):
    """A server that ends while its disk is full says how many decisions have no record."""

    async def scenario(client):
        gate = Gate(client.recorder)
        early = (await ask(client))[1]
        gate.failures = 1_000
        gate.open.set()
        return early

    early = run(workspace, scenario)
    assert early["decision_id"] not in logged(workspace, "later")
    assert "1 decisions that were answered before their record was durable have none" in caplog.text


def test_a_request_id_waits_for_its_record(workspace):
    """A repetition is answered from the log, so the first answer may not come before it is there."""
    key = [(b"idempotency-key", f"later-{next(_ids)}".encode())]

    async def scenario(client):
        first, again = await ask(client, headers=key), await ask(client, headers=key)
        return first[1], again[1]

    first, again = run(workspace, scenario)
    assert first == again
    assert "recorded" not in first


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_takes_the_last_records_and_none_before(root, seed):
    """One caller after another: what is missing are the last answers, and no more than the bound."""
    server, ids, stop = Server(root, "--replay", "--no-consume"), [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                ids.append(server.decide(policy="later")[1]["decision_id"])
            except (OSError, HTTPException, ValueError):
                return

    callers = [Thread(target=load)]
    for caller in callers:
        caller.start()
    while len(ids) < 50 * (seed + 1) and callers[0].is_alive():
        time.sleep(0.01)
    server.kill()
    stop.set()
    for caller in callers:
        caller.join()
    with Workspace(root, actor="ana") as workspace:
        durable = logged(workspace, "later").keys()
    lost = [number for number, decision in enumerate(ids) if decision not in durable]
    assert len(lost) <= LATER_RECORDS
    assert lost == list(range(len(ids) - len(lost), len(ids)))


def test_a_sample_is_recorded_and_the_others_say_that_they_are_not(workspace):
    """The share is in each record, and what came between two of them is counted in the later one."""
    before = logged(workspace, "sampled").keys()
    batch = json.dumps({"requests": [REQUEST] * 150}).encode()

    async def scenario(client):
        single = [(await ask(client, SAMPLED))[1] for _ in range(150)]
        return single + (await ask(client, SAMPLED + ":batch", batch))[1]["answers"]

    answers = run(workspace, scenario, batch_body=1 << 20)
    added = {one: record for one, record in logged(workspace, "sampled").items() if one not in before}
    assert [answer["decision_id"] for answer in answers if answer.get("recorded") != "no"] == list(added)
    assert 50 < len(added) < 130  # 90 of 300 are expected, with a deviation of 8
    assert {record.share for record in added.values()} == {0.3}
    places = [place for place, answer in enumerate(answers) if "recorded" not in answer]
    assert [record.left_out for record in added.values()] == [
        place - last - 1 for place, last in zip(places, [-1, *places], strict=False)
    ]
    assert set(decisions_table(workspace, "sampled").column("record__share").to_pylist()) == {0.3}


def test_what_is_not_recorded_is_not_replayed(workspace):
    """The error says why there may be no record."""
    values = {**REQUEST["entities"], **REQUEST["context"]}
    with Decider(workspace) as decider:
        answers = [decider.answer("sampled", values) for _ in range(40)]
    missing = next(answer for answer in answers if not answer.in_log)
    with pytest.raises(NotFoundError, match="'recorded: no' has no record"):
        replay_decision(workspace, f"decision:{missing.record.id}")
    kept = next(answer for answer in answers if answer.in_log)
    assert find_decision(workspace, f"decision:{kept.record.id}").record == kept.record


def test_a_policy_that_samples_takes_no_request_ids(workspace):
    """Over HTTP, in a batch (where the others are decided) and in the process."""
    key = [(b"idempotency-key", b"sampled-1")]
    batch = json.dumps({"requests": [{**REQUEST, "request_id": "sampled-2"}, REQUEST]}).encode()

    async def scenario(client):
        return await ask(client, SAMPLED, headers=key), await ask(client, SAMPLED + ":batch", batch)

    (status, answer), (batch_status, many) = run(workspace, scenario)
    assert (status, batch_status, [item["status"] for item in many["answers"]]) == (400, 200, [400, 200])
    for refused in (answer, many["answers"][0]):
        assert "every decision" in refused["error"]
    with Decider(workspace) as decider, pytest.raises(InputError, match="every decision"):
        decider.answer("sampled", {**REQUEST["entities"], **REQUEST["context"]}, request_id="sampled-3")


def test_the_mode_is_told_and_counted(workspace):
    """In the description of the policy and in the metrics."""

    async def scenario(client):
        await ask(client)
        described = [await client.send("GET", f"/v1/policies/{name}") for name in ("promise", "later", "sampled")]
        return [json.loads(body)["record"] for _, _, body in described], (await client.send("GET", "/metrics"))[2]

    modes, metrics = run(workspace, scenario)
    assert (modes[0], modes[1][:6], modes[2]) == ("sync", "async:", "sample 30%")
    assert b'retrodict_decisions_recorded_total{policy="later",recorded="async"} 1' in metrics


def test_a_mode_must_be_one_of_three():
    """A share of nothing or of everything is none; 'sync' is the policy without a mode."""
    decide = {"ok": "otherwise"}
    for mode in ("later", "sample", "sample 0%", "sample 100%", "sample 5", "sampled"):
        with pytest.raises(DefinitionError, match="sample N%"):
            Policy("p", MODEL, decide=decide, record=mode)
    plain, sync = Policy("p", MODEL, decide=decide), Policy("p", MODEL, decide=decide, record="sync")
    assert plain.version == sync.version != Policy("p", MODEL, decide=decide, record="async").version
