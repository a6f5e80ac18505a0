"""Jobs: many decisions that nobody waits for, through kills, cancellations and callbacks."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from msgspec import Raw
from tests.serving.process import Server
from tests.serving.project import AT, REQUEST, make_project
from tests.stores.redis_server import RedisServer

from retrodict import Project
from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.decisions.log import read_decisions
from retrodict.serving.jobs import ScoringJob, _Jobs
from retrodict.workspace import Workspace

SECRET = "whsec_" + base64.b64encode(b"between the two of us").decode()


@pytest.fixture(scope="module")
def hook():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    server.calls, server.statuses = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append((self.path, dict(self.headers), body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory, hook):
    folder = tmp_path_factory.mktemp("jobs")
    settings = (f'[serving]\nmax_jobs = 3\ncallbacks = ["http://127.0.0.1:{hook.server_port}"]\n'
                'callback_secret = "HOOK_SECRET"\n')  # fmt: skip
    make_project(folder, settings).close()
    return folder


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.fixture(scope="module")
def served(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOOK_SECRET", SECRET)
        server = Server(root, "--replay", "--no-consume")
    yield server
    server.stop()


@pytest.fixture
def server(served):
    """With no job left behind."""
    yield served
    for job in jobs_of(served):
        served.send("DELETE", f"/v1/jobs/{job}")
    jobs_of(served).clear()


def jobs_of(server):
    return server.__dict__.setdefault("jobs", [])


def submit(server, count=5, headers=AT, **fields):
    requests = [{**REQUEST, "key": f"p{number}"} for number in range(count)]
    status, answer = server.send(
        "POST", "/v1/jobs/score", {"policy": "promise", "requests": requests, **fields}, headers
    )
    if status == 202:
        jobs_of(server).append(answer["job"])
    return status, answer


def ended(server, job):
    for _ in range(600):
        status, answer = server.send("GET", f"/v1/jobs/{job}")
        assert status == 200, answer
        if answer["state"] in ("done", "failed") and answer.get("callback") != "waits":
            return answer
        time.sleep(0.1)
    raise AssertionError(answer)


def decided(root):
    with Workspace(root, actor="ana") as workspace:
        return Counter(one.record.request_id for one in read_decisions(workspace) if one.record.request_id)


def test_a_job_decides_what_it_was_asked(root, server):
    """In order, each as it would be alone, with a record of its own under the job's id."""
    status, job = submit(server, 250)
    assert (status, job["state"], job["requests"]) == (202, "queued", 250)
    answer = ended(server, job["job"])
    assert (answer["state"], answer["done"], answer["failed"]) == ("done", 250, 0)
    _, alone = server.decide()
    assert [one["score"] for one in answer["answers"]] == [alone["score"]] * 250
    with Project(root, actor="ana") as project:
        records = [project.decisions.get(f"decision:{one['decision_id']}").record for one in answer["answers"][::50]]
    assert [(record.key, record.request_id) for record in records] == [
        (f"p{number}", f"job-{job['job']}-{number}") for number in range(0, 250, 50)
    ]


def test_a_wrong_request_fails_alone(server):
    """And its own id is kept."""
    wrong = {**REQUEST, "context": {}}
    status, job = server.send("POST", "/v1/jobs/score", {"policy": "promise", "requests": [
        {**REQUEST, "request_id": "mine"}, wrong, {"no": "form"}, {**REQUEST, "request_id": "mine"}]}, AT)  # fmt: skip
    jobs_of(server).append(job["job"])
    answer = ended(server, job["job"])
    assert (status, answer["failed"]) == (202, 2)
    assert [one["status"] for one in answer["answers"]] == [200, 400, 400, 200]
    assert answer["answers"][0]["decision_id"] == answer["answers"][3]["decision_id"]


def test_the_same_key_is_the_same_job(root, server):
    """Also after it was forgotten: nothing is decided a second time; another body is refused."""
    key = {**AT, "Idempotency-Key": "night"}
    _, first = submit(server, 7, key)
    answer = ended(server, first["job"])
    _, second = submit(server, 7, key)
    assert second["job"] == first["job"]
    assert submit(server, 8, key)[0] == 409
    assert server.send("DELETE", f"/v1/jobs/{first['job']}")[0] == 200
    _, third = submit(server, 7, key)
    again = ended(server, third["job"])
    assert third["job"] == first["job"]
    ids = [one["decision_id"] for one in answer["answers"]]
    assert [one["decision_id"] for one in again["answers"]] == ids
    assert {decided(root)[f"job-{first['job']}-{number}"] for number in range(7)} == {1}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"policy": "promise", "requests": []}, 400, "1 to 100000 requests"),
        ({"policy": "none", "requests": [REQUEST]}, 404, "none"),
        ({"policy": "promise"}, 400, "requests"),
        ({"policy": "promise", "requests": [REQUEST], "callback": "http://127.0.0.1:1/x"}, 400, "serving.callbacks"),
        ({"policy": "promise", "requests": [REQUEST], "callback": "http://169.254.169.254/"}, 400, "serving.callbacks"),
        ({"policy": "promise", "requests": [REQUEST], "callback": "file:///etc/passwd"}, 400, "serving.callbacks"),
        ('{"policy": "promise", "policy": "promise", "requests": [{}]}', 400, "stand once"),
    ],
)
def test_what_is_no_job_is_refused(server, body, status, text):
    """Before anything is stored."""
    code, answer = server.send("POST", "/v1/jobs/score", body)
    assert (code, text in answer["error"]) == (status, True), answer


@pytest.mark.parametrize("tail", ["@evil.example/", ".evil.example/", "0/", "\\@evil.example"])
def test_a_callback_reaches_the_named_server_alone(server, hook, tail):
    """What only begins like it is another one."""
    status, answer = submit(server, callback=f"http://127.0.0.1:{hook.server_port}{tail}")
    assert status == 400, answer


def test_there_are_no_more_jobs_than_may_be(server):
    """A fourth one has to wait until one is deleted; a job that is not there is 404."""
    jobs = [submit(server, 1)[1]["job"] for _ in range(3)]
    assert submit(server, 1)[0] == 429
    assert server.send("DELETE", f"/v1/jobs/{jobs[0]}")[0] == 200
    assert submit(server, 1)[0] == 202
    for method in ("GET", "DELETE"):
        assert server.send(method, f"/v1/jobs/{jobs[0]}")[0] == 404


def test_a_cancelled_job_stops(root, server):
    """What was decided stays; the rest is not decided."""
    _, job = submit(server, 20_000)
    while server.send("GET", f"/v1/jobs/{job['job']}")[1]["done"] == 0:
        time.sleep(0.02)
    status, answer = server.send("DELETE", f"/v1/jobs/{job['job']}")
    assert (status, answer["state"]) == (200, "cancelled")
    _, other = submit(server, 1)
    ended(server, other["job"])
    mine = [name for name in decided(root) if name.startswith(f"job-{job['job']}")]
    assert 0 < len(mine) < 20_000


def test_a_callback_is_signed_and_repeated(server, hook):
    """As Standard Webhooks says; a redirect is not followed, and a second try is answered."""
    hook.calls.clear()
    hook.statuses[:] = [302, 500]
    url = f"http://127.0.0.1:{hook.server_port}"
    _, job = submit(server, 2, callback=f"{url}/done?of=ours")
    answer = ended(server, job["job"])
    assert answer["callback"] == "delivered"
    assert [path for path, *_ in hook.calls] == ["/done?of=ours"] * 3
    _, headers, body = hook.calls[-1]
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = hmac.new(b"between the two of us", text, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    told = json.loads(body)
    assert (told["job"], told["state"], told["done"]) == (job["job"], "done", 2)
    assert "answers" not in told
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 3600


def test_a_callback_that_hangs_ends_after_five_calls_and_holds_up_no_job(tmp_path):
    """Over two workers and the restart of both: another job is decided meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        hung = f"http://127.0.0.1:{target.getsockname()[1]}"
        make_project(tmp_path, f'[serving]\ncallbacks = ["{hung}"]\ncallback_secret = "HOOK_SECRET"\n').close()
        server = Server(tmp_path, "--replay", "--no-consume", "--workers", "2")
        try:
            _, job = submit(server, 2, callback=hung)
            while stored(tmp_path, job["job"])["calls"] < 2:
                time.sleep(0.1)
            _, other = submit(server, 2)
            assert ended(server, other["job"])["state"] == "done"
            assert stored(tmp_path, job["job"])["calls"] < 5
            server.stop()
            server = Server(tmp_path, "--replay", "--no-consume", "--workers", "2")
            assert ended(server, job["job"])["callback"] == "failed: TimeoutError, in 5 calls"
        finally:
            server.stop()
        target.setblocking(False)
        assert len(list(iter(partial(accepted, target), False))) == 5


def accepted(target):
    with contextlib.suppress(BlockingIOError):
        target.accept()[0].close()
        return True
    return False


def stored(root, job):
    with Workspace(root, actor="ana") as workspace:
        return json.loads(workspace.keys.get_many([b"\0jobs\0s" + job.encode()])[0])


@pytest.mark.parametrize("keys", ["embedded", "redis"])
def test_jobs_sent_at_once_are_one_or_refused(tmp_path, request, keys):
    """Of two bodies under one key one is taken, and of ten jobs no more than may be: each look is before each write."""
    settings = "" if keys == "embedded" else f'[stores]\nkeys = "{request.getfixturevalue("redis_server").url()}"\n'
    (tmp_path / "retrodict.toml").write_text(f'[project]\nname = "parcels"\n{settings}')
    with Workspace(tmp_path, actor="ana") as workspace, ThreadPoolExecutor(10) as pool:
        gate = threading.Barrier(10)

        def add(number, job_id, most):
            jobs = _Jobs(workspace)
            looked = jobs.all

            def look():
                rows = looked()
                with contextlib.suppress(threading.BrokenBarrierError):
                    gate.wait(0.5)
                return rows

            jobs.all = look
            job = ScoringJob(job_id, "promise", None, str(number), 1, number)
            return jobs.add(job, [Raw(b"%d" % number)], most)

        kept = [*pool.map(lambda number: add(number, "j", 9), range(10))]
        assert len({job.content for job in kept}) == 1
        jobs = _Jobs(workspace)
        assert json.loads(jobs.asked(kept[0])) == {"requests": [int(kept[0].content)]}
        jobs.remove(kept[0])
        gate.reset()
        kept = [*pool.map(lambda number: add(number, f"j{number}", 3), range(10))]
        assert (sum(job is not None for job in kept), len(jobs.all())) == (3, 3)


@pytest.fixture
def redis_server():
    with contextlib.closing(RedisServer()) as server:
        yield server


def killed_under_way(root, settings, pauses):
    """A job of 6,000 whose server is killed at each pause, once that is over; every case must have one decision."""
    make_project(root, settings).close()
    server = Server(root, "--replay", "--no-consume")
    try:
        _, job = submit(server, 6_000)
        path, done = f"/v1/jobs/{job['job']}", 0
        for pause in pauses:
            while (answer := server.send("GET", path)[1])["done"] <= done:
                assert answer["state"] in ("queued", "running")
                time.sleep(0.01)
            done = answer["done"]
            with pause(server, path):
                server.kill()
            server = Server(root, "--replay", "--no-consume")
        answer = ended(server, job["job"])
        assert (answer["state"], answer["done"], answer["failed"]) == ("done", 6_000, 0)
        ids = [one["decision_id"] for one in answer["answers"]]
        assert server.send("DELETE", path)[0] == 200
    finally:
        server.stop()
    with Workspace(root, actor="ana") as workspace:
        records = [one.record for one in read_decisions(workspace) if one.record.request_id]
    names = [f"job-{job['job']}-{number}" for number in range(6_000)]
    assert Counter(record.request_id for record in records) == Counter(names)
    by_id = {record.request_id: record.id for record in records}
    assert ids == [by_id[name] for name in names]


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_job_survives_kills_and_nothing_is_decided_twice(tmp_path, kills):
    """Killed under way; every case has one decision, and the answer names it."""
    killed_under_way(tmp_path, "", [lambda *_: contextlib.nullcontext()] * kills)  # where no other server goes on


def test_a_job_on_redis_survives_kills_of_both(tmp_path, redis_server):
    """Redis goes and comes back while the job runs: callers are told to come again, and the job goes on by itself."""

    @contextlib.contextmanager
    def outage(server, path):
        redis_server.kill()
        status, answer = server.send("GET", path)
        assert status == 503, answer
        redis_server.start()
        while (answer := server.send("GET", path))[0] != 200:
            assert answer[0] == 503
            time.sleep(0.1)
        done = answer[1]["done"]
        while server.send("GET", path)[1]["done"] == done < 6_000:
            time.sleep(0.05)
        yield

    killed_under_way(tmp_path, f'[stores]\nkeys = "{redis_server.url()}"\n', [outage])


def test_a_job_is_its_callers(root):
    """Another key gets 404, with or without the id; the decisions are recorded under the caller."""
    with Project(root, actor="ana") as project:
        tokens = [project.api_keys.issue(name, scope=["score"], reason="test").token for name in ("shop", "other")]
        settings = project.workspace.root / "retrodict.toml"
    before = settings.read_text()
    settings.write_text(before + '[auth]\nrequired = "always"\n')
    mine, others = ({**AT, "Authorization": f"Bearer {token}"} for token in tokens)
    try:
        server = Server(root, "--replay", "--no-consume")
        try:
            _, job = submit(server, 2, mine)
            path = f"/v1/jobs/{job['job']}"
            for method in ("GET", "DELETE"):
                assert server.send(method, path, headers=others)[0] == 404
                assert server.send(method, path)[0] == 401
            while (answer := server.send("GET", path, headers=mine)[1])["state"] != "done":
                time.sleep(0.05)
            assert server.send("DELETE", path, headers=mine)[0] == 200
        finally:
            server.stop()
    finally:
        settings.write_text(before)
    with Project(root, actor="ana") as project:
        ids = [one["decision_id"] for one in answer["answers"]]
        assert {project.decisions.get(f"decision:{one}").record.caller for one in ids} == {"key:shop"}


def test_jobs_and_their_answers_go_when_their_time_is_over(root, tmp_path):
    """With the request ids; the store has nothing left of them."""
    settings = root / "retrodict.toml"
    before = settings.read_text()
    server = Server(root, "--replay", "--no-consume")
    try:
        _, job = submit(server, 3)
        ended(server, job["job"])
    finally:
        server.stop()
    settings.write_text(before + 'request_ids_kept = "1s"\n')
    try:
        server = Server(root, "--replay", "--no-consume")
        try:
            while server.send("GET", f"/v1/jobs/{job['job']}")[0] == 200:
                time.sleep(0.1)
        finally:
            server.stop()
    finally:
        settings.write_text(before)
    with Workspace(root, actor="ana") as workspace:
        assert [key for key, _ in workspace.keys.scan(b"\0jobs\0")] in ([], [b"\0jobs\0n"])


def test_one_process_at_a_time_works_on_a_job(tmp_path):
    """The lease of one keeps others out until it is over; a job that was taken over, or deleted, is lost to it."""
    make_project(tmp_path).close()
    clock = SimulatedClock(parse_time("2024-02-20T12:00Z"))
    with Workspace(tmp_path, actor="ana", clock=clock) as workspace:
        workspace.config.path("stores.streams").mkdir(parents=True, exist_ok=True)  # as a server's log does
        one, other = _Jobs(workspace), _Jobs(workspace)
        one.add(ScoringJob("j", "promise", None, "", 150, clock.now()), [Raw(b"{}")] * 150, 1)
        job = one.take()
        assert (job.state, other.take()) == ("running", None)
        clock.move_to(clock.now() + 11_000_000)
        assert other.take().id == "j"
        assert one.change(job, b"{}", done=100) is None
        job = other.change(job, b'{"status":200}', done=100)
        assert (job.done, other.get("j", None).done) == (100, 100)
        one.remove(job)
        assert other.change(job, b"{}", done=150) is None
        assert [key for key, _ in workspace.keys.scan(b"\0jobs\0")] in ([], [b"\0jobs\0n"])
