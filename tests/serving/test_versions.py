"""A caller pins the revision that decides, where the policy lets callers do that."""

import asyncio
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.serving.process import Server
from tests.serving.project import DEFINITIONS, REQUEST, make_project
from tests.serving.test_app import BODY, DECIDE, SIMULATED, Client
from tests.serving.test_open_inference import CASE, encode, tensors

from retrodict.core.errors import RetryableError
from retrodict.decisions.loader import Loader
from retrodict.decisions.log import find_decision
from retrodict.learning import train
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import approve, change, current
from retrodict.rollout import deploy
from retrodict.rollout.ladder import halt, release
from retrodict.serving.idempotency import RequestUnderWayError
from retrodict.workspace import Workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pins")
    make_project(folder).close()
    return folder


def asked(root, pins, *requests, counts=None):
    """Answers where revision N+1 is in force and N is warm, both with other thresholds; and those two numbers.

    ``counts`` takes up what was counted as a failure.
    """

    async def run():
        with Workspace(root, actor="ana") as workspace:
            client = Client(workspace)
            loader = Loader(workspace, health=client.app.health)
            client.app.follow(loader.load_current())
            before = client.app.servants["promise"].revision.revision
            definitions = DEFINITIONS.replace('deadline="5s"', f'deadline="5s", pins={pins}')
            (root / "definitions.py").write_text(definitions.replace("score >= 0.5", f"score >= 0.{before}"))
            with Workspace(root, actor="ana") as other:
                deploy(other, "promise", reason="test")
            client.app.follow(loader.load_current())
            now = client.app.servants["promise"].revision.revision
            try:
                answers = []
                for path, body, headers in requests:
                    more = [(name, str(value(now, before)).encode()) for name, value in headers]
                    url = path if path.startswith("/") else DECIDE + path
                    answers.append(await client.send("POST", url, body, [*SIMULATED, *more]))
                if counts is not None:
                    named = client.app.telemetry.named()
                    failed = {name: n for name, n in named.items() if "_failed_" in name or "_failures_" in name}
                    counts.update(failed)
                return now, before, answers
            finally:
                await client.close()

    return asyncio.run(run())


def version(of):
    return (b"retrodict-version", of)


def now(now, _):
    return now


def before(_, before):
    return before


def test_the_record_names_the_revision_that_was_asked_for(root):
    """That in force, and the one before; alone, in a batch, and again by a request id."""
    again = [version(before), (b"idempotency-key", lambda *_: f"pin-{_[0]}")]
    batch = json.dumps({"requests": [REQUEST]}).encode()
    newest, earlier, answers = asked(
        root, True, ("", BODY, []), ("", BODY, [version(now)]), ("", BODY, [version(before)]),
        (":batch", batch, [version(before)]), ("", BODY, again), ("", BODY, again),
    )  # fmt: skip
    assert [status for status, *_ in answers] == [200] * 6
    bodies = [json.loads(body) for _, _, body in answers]
    bodies[3] = bodies[3]["answers"][0]
    expected = [newest, newest, *[earlier] * 4]
    assert [body["policy"] for body in bodies] == [f"promise#{number}" for number in expected]
    with Workspace(root, actor="ana") as workspace:
        records = [find_decision(workspace, f"decision:{body['decision_id']}").record for body in bodies]
    assert [record.revision for record in records] == expected
    assert records[2].policy_version != records[1].policy_version
    assert bodies[4] == bodies[5]
    assert answers[5][1][b"idempotency-replayed"] == b"true"
    assert "status" not in bodies[2]


def test_any_other_revision_is_a_404_that_names_those_that_are_warm(root):
    """What is no number at all is a 400, which names them, too."""
    numbers, words = ("99", str(10**17)), ("late", "x", "", "1 ", "1.0", "-1", "²", "1" * 30)
    newest, earlier, answers = asked(root, True, *[("", BODY, [version(lambda *_, v=v: v)]) for v in numbers + words])
    for text, (status, _, body) in zip(numbers + words, answers, strict=True):
        error = json.loads(body)["error"]
        assert status == (404 if text in numbers else 400), text
        assert ("by its number" in error) == (text in words)
        assert f"Ask for {newest} or {earlier}" in error


class Following:
    """An application over a project whose policy changes."""

    def __init__(self, root, workspace):
        self.root, self.client = root, Client(workspace)
        self.loader = Loader(workspace, health=self.client.app.health)

    def deploy(self, threshold):
        """Deploy the policy with a threshold; the number of its revision."""
        text = DEFINITIONS.replace('deadline="5s"', 'deadline="5s", pins=True')
        (self.root / "definitions.py").write_text(text.replace("score >= 0.5", f"score >= {threshold}"))
        return self.act(deploy)

    def act(self, act):
        """Do something to the policy, which the application follows; the number of its revision."""
        with Workspace(self.root, actor="ana") as other:
            act(other, "promise", reason="test")
        self.client.app.follow(self.loader.load_current())
        return self.client.app.servants["promise"].revision.revision

    async def pinned(self, *revisions):
        """Statuses of requests that pin the revisions; those of 200 are answered by them."""
        statuses = []
        for number in revisions:
            pin = (b"retrodict-version", str(number).encode())
            status, _, body = await self.client.send("POST", DECIDE, BODY, [*SIMULATED, pin])
            assert status != 200 or json.loads(body)["policy"] == f"promise#{number}"
            statuses.append(status)
        return statuses


def following(root, script):
    """Run a script over an application."""

    async def run():
        with Workspace(root, actor="ana") as workspace:
            app = Following(root, workspace)
            try:
                return await script(app)
            finally:
                await app.client.close()

    return asyncio.run(run())


def test_what_is_no_other_version_takes_no_revision_away(root):
    """A halt, a release, the same deployed again: the version before stays warm, until there is another one."""

    async def script(app):
        first = app.deploy("0.31")
        app.client.app.servants["promise"].cache = SimpleNamespace(take_counts=dict, drop=lambda _: None)
        second = app.deploy("0.32")
        assert app.client.app.earlier["promise"][0].cache is None  # of scores: its counts are of those in force
        numbers = [app.act(halt)]
        assert await app.pinned(first, second, *numbers) == [200, 200, 200]
        for act in (release, halt, release, deploy):
            with (root / "definitions.py").open("a") as stream:
                stream.write("# another text, and the same policy\n")
            numbers.append(app.act(act))
            assert await app.pinned(first, second, numbers[-1]) == [200, 200, 200], act
        assert await app.pinned(*numbers) == [404, 200, 404, 200, 200]  # of halts nobody asks to be decided
        newest = numbers[-1]
        third = app.deploy("0.33")
        assert await app.pinned(first, second, newest, third) == [404, 200, 200, 200]
        again = app.deploy("0.32")  # what decided before is in force again, and the third the one before
        assert await app.pinned(second, third, again) == [200, 200, 200]

    following(root, script)


def test_another_model_is_another_version(root):
    """Though the policy is the same, also in its revision."""

    async def script(app):
        def promote(workspace, policy, *, reason):
            good = current(workspace)[policy].deployment
            model = ModelArtifact.load(workspace.objects, good.artifact)
            other = replace(model, metadata={**model.metadata, "note": str(len(numbers))}).save(workspace.objects)
            change(workspace, replace(good, artifact=other), action="promote", reason=reason)

        numbers = [app.deploy("0.31")]
        for _ in range(2):
            numbers += [app.act(promote)]
        assert await app.pinned(*numbers) == [404, 200, 200]
        app.act(deploy)

    following(root, script)


def test_of_one_version_no_more_than_some_revisions_are_kept(root, monkeypatch):
    """The newest of each."""
    monkeypatch.setattr("retrodict.serving.versions._MOST", 2)

    async def script(app):
        first = app.deploy("0.31")
        numbers = [app.deploy("0.32"), *(app.act(deploy) for _ in range(3))]
        assert await app.pinned(first, *numbers) == [200, 404, 200, 200, 200]

    following(root, script)


def test_a_policy_that_does_not_let_callers_choose_refuses(root):
    """Whatever they ask for, and a wrong request to an earlier one is a 400 as ever."""
    _, _, answers = asked(root, False, ("", BODY, [version(now)]), ("", BODY, [version(before)]), ("", BODY, []))
    assert [status for status, *_ in answers] == [409, 409, 200]
    assert b"pins=True" in answers[0][2]
    _, _, answers = asked(root, True, ("", b'{"entities": {}}', [version(before)]))
    assert answers[0][0] == 400


def test_a_pin_gets_around_no_halt(root):
    """While the newest revision is halted nothing scores for any; after the release the one before is warm again."""

    async def run():
        with Workspace(root, actor="ana") as workspace:
            client = Client(workspace)
            loader = Loader(workspace, health=client.app.health)
            definitions = DEFINITIONS.replace('deadline="5s"', 'deadline="5s", pins=True')
            (root / "definitions.py").write_text(definitions)
            with Workspace(root, actor="ana") as other:
                deploy(other, "promise", reason="test")
            client.app.follow(loader.load_current())
            number = str(client.app.servants["promise"].revision.revision).encode()
            bodies = []
            try:
                for act in (None, halt, release):
                    if act is not None:
                        with Workspace(root, actor="ana") as other:
                            act(other, "promise", reason="test")
                    client.app.follow(loader.load_current())
                    for pin in ([], [(b"retrodict-version", number)]):
                        status, _, body = await client.send("POST", DECIDE, BODY, [*SIMULATED, *pin])
                        assert status == 200, body
                        bodies.append(json.loads(body))
                    path = f"/v2/models/promise/versions/{number.decode()}/infer"
                    status, _, body = await client.send("POST", path, encode(tensors([CASE])), SIMULATED)
                    assert status == 200, body
                    outputs = {one["name"]: one["data"][0] for one in json.loads(body)["outputs"]}
                    bodies.append(outputs)
            finally:
                await client.close()
            return [find_decision(workspace, f"decision:{body['decision_id']}").record for body in bodies]

    records = asyncio.run(run())
    assert [record.error for record in records] == [None] * 3 + ["HaltedError"] * 3 + [None] * 3
    assert [record.score is None for record in records] == [False] * 3 + [True] * 3 + [False] * 3
    first = records[0].revision
    assert [record.revision - first for record in records] == [0, 0, 0, 1, 0, 0, 2, 0, 0]


def test_a_pin_to_an_earlier_revision_under_rollout_gets_around_no_halt(root):
    """Nor does the version that a rollout brings in, where the split that knew of it is still warm."""

    async def run():
        with Workspace(root, actor="ana") as workspace:
            client = Client(workspace)
            loader = Loader(workspace, health=client.app.health)
            definitions = DEFINITIONS.replace('deadline="5s"', 'deadline="5s", pins=True')
            (root / "definitions.py").write_text(definitions)
            with Workspace(root, actor="ana") as other:
                good = deploy(other, "promise", reason="test").deployment
            split = {"candidate": good.target, "unit": ["depot"], "seed": "s", "share": 1.0, "control": 0.0}
            try:
                for deployment in (replace(good, split=split), replace(good, halted="fire")):
                    with Workspace(root, actor="ana") as other:
                        change(other, deployment, action="deploy", reason="test")
                    client.app.follow(loader.load_current())
                number = str(client.app.earlier["promise"][0].revision.revision).encode()
                pin = [*SIMULATED, (b"retrodict-version", number)]
                answers = [await client.send("POST", DECIDE, BODY, pin)]
                batch = json.dumps({"requests": [json.loads(BODY)] * 2}).encode()
                answers.append(await client.send("POST", DECIDE + ":batch", batch, pin))
            finally:
                await client.close()
                with Workspace(root, actor="ana") as other:
                    change(other, good, action="deploy", reason="test")
            assert [status for status, _, _ in answers] == [200, 200]
            bodies = [json.loads(answers[0][2]), *json.loads(answers[1][2])["answers"]]
            return [find_decision(workspace, f"decision:{body['decision_id']}").record for body in bodies]

    for record in asyncio.run(run()):
        assert (record.arm, record.error, record.score) == ("canary", "HaltedError", None)


@pytest.mark.parametrize("way", ["pinned", "tensors"])
def test_a_failure_is_counted_once(root, way, monkeypatch):
    """By the kind of its error, also where the answer to its case becomes that of the whole request."""

    def decide(*_, **__):
        raise RetryableError("a store is away")

    monkeypatch.setattr("retrodict.decisions.servant.Servant.decide", decide)
    request = {"pinned": ("", BODY, [version(before)]),
               "tensors": ("/v2/models/promise/infer", encode(tensors([CASE])), [])}[way]  # fmt: skip
    counts = {}
    _, _, ((status, headers, body),) = asked(root, True, request, counts=counts)
    assert (status, b"a store is away" in body) == (503, True)
    assert headers.get(b"retry-after") == (b"1" if way == "pinned" else None)
    assert counts.pop('decisions_failed_total{policy="promise",status="503",error="RetryableError"}') == 1
    assert [*counts.values()] == [1]  # of the revision


def test_a_failure_is_counted_for_the_revision_that_was_asked(root):
    """Alone, with an id that cannot be, in a batch, and of no form at all."""
    wrong, batch = b'{"entities": {}}', json.dumps({"requests": [{"entities": {}}]}).encode()
    long_id = (b"idempotency-key", lambda *_: "x" * 300)
    requests = [("", wrong, []), ("", BODY, [long_id]), (":batch", batch, []), ("", b"{", [])]
    for path, body, headers in requests:
        counts = {}
        newest, earlier, _ = asked(root, True, (path, body, [*headers, version(before)]), counts=counts)
        assert counts.pop(f'revision_failures_total{{policy="promise",revision="{earlier}"}}') == 1, path
        assert not [name for name in counts if f'"{newest}"' in name]


def test_who_asks_by_an_id_that_is_held_may_ask_again(root, monkeypatch):
    """Of an earlier revision, too: 409 with Retry-After, as of the one in force."""

    async def held(*_):
        raise RequestUnderWayError("the first call must have its answer", where="request id", got="none yet")

    monkeypatch.setattr("retrodict.serving.shared_requests.RequestIndex.hold", held)
    monkeypatch.setattr("retrodict.serving.shared_requests.RequestIndex.claim", lambda *_: None)
    key = (b"idempotency-key", lambda newest, _: f"held-{newest}")
    _, _, answers = asked(root, True, ("", BODY, [key]), ("", BODY, [version(before), key]))
    assert [(status, headers[b"retry-after"]) for status, headers, _ in answers] == [(409, b"1")] * 2


def test_an_id_of_another_request_is_counted_once(root):
    """Also by a revision that a caller has pinned."""
    other, counts = json.dumps({**REQUEST, "key": "p2"}).encode(), {}
    key = (b"idempotency-key", lambda newest, _: f"once-{newest}")
    _, _, answers = asked(root, True, *[("", body, [version(before), key]) for body in (BODY, other)], counts=counts)
    assert [status for status, *_ in answers] == [200, 409]
    assert b"retry-after" not in answers[1][1]  # the same again is refused again
    assert [count for name, count in counts.items() if "_failed_" in name] == [1]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A server of models where @2 decides, @1 did before and @3 is brought in; artifacts of the three."""
    folder, targets = tmp_path_factory.mktemp("models"), []
    make_project(folder).close()
    for days in (3, 2, 4):
        (folder / "definitions.py").write_text(DEFINITIONS.replace("delay > 3", f"delay > {days}"))
        with Workspace(folder, actor="ana") as workspace:
            if days != 3:
                version = train(workspace, "late_parcel")[1]
                with Workspace(folder, actor="ben") as other:
                    approve(other, version.ref, reason="test")
                deploy(workspace, "promise", reason="test")
            targets.append(current(workspace)["promise"].deployment.target)
    with Workspace(folder, actor="ana") as workspace:
        good = replace(current(workspace)["promise"].deployment, **targets[1], previous=targets[0])
        split = {"candidate": targets[2], "unit": ["depot"], "seed": "s", "share": 0.5, "control": 0.5}
        change(workspace, replace(good, split=split), action="rollout", reason="test")
        artifacts = [ModelArtifact.load(workspace.objects, one["artifact"]) for one in targets]
    server = Server(folder, "--only", "models", "--grpc-port", "0")
    yield server, artifacts
    server.kill()


def test_a_server_of_models_has_every_version_that_may_be_asked(models):
    """By its number over HTTP, each with the bits of its own artifact; without a number the one that decides."""
    server, artifacts = models
    names = {one.name: "BYTES" if any(isinstance(word, str) for word in one.vocabulary) else "FP64"
             for one in artifacts[0].inputs.features}  # fmt: skip
    row = {name: "north" if kind == "BYTES" else 12.0 for name, kind in names.items()}
    inputs = [{"name": name, "shape": [1], "datatype": kind, "data": [row[name]]} for name, kind in names.items()]
    expected = [artifact.score_each([row])[0].score for artifact in artifacts]
    assert len({*expected}) == 3

    def count():
        (third,) = server.send("GET", "/v2/models/late_parcel/versions/3/stats")[1]["model_stats"]
        assert third["version"] == "3"
        return third["inference_count"]

    def score(path):
        status, answer = server.send("POST", f"/v2/models/late_parcel{path}/infer", {"inputs": inputs})
        assert status == 200, answer
        return answer["model_version"], answer["outputs"][0]["data"][0]

    counted = count()
    assert [score(f"/versions/{n}") for n in (1, 2, 3)] == [(str(n), expected[n - 1]) for n in (1, 2, 3)]
    assert score("") == ("2", expected[1])
    for name, answer in (("late_parcel", expected[1]), ("late_parcel@3", expected[2])):
        body = {"entities": {}, "context": row}
        assert server.send("POST", f"/v1/models/{name}:score", body)[1]["score"] == answer
    assert {*server.send("GET", "/v2/models/late_parcel")[1]["versions"]} == {"1", "2", "3"}
    index = server.send("POST", "/v2/repository/index")[1]
    assert sorted((one["name"], one["version"], one["state"]) for one in index) == [
        ("late_parcel", "1", "READY"), ("late_parcel", "2", "READY"), ("late_parcel", "3", "READY"),
    ]  # fmt: skip
    assert count() == counted + 2
    status, answer = server.send("GET", "/v2/models/late_parcel/versions/4")
    assert (status, "Ask for 2 or 1 or 3" in answer["error"]) == (404, True)


@pytest.mark.slow
def test_tritonclient_asks_each_version(models):
    """Over HTTP and gRPC: another number, another score."""
    server, artifacts = models
    program = Path(__file__).parents[2] / ".venv-clients" / "triton" / "bin" / "python"
    if not program.exists():
        pytest.skip("make clients installs it")
    names = [one.name for one in artifacts[0].inputs.features]
    script = Path(__file__).with_name("clients") / "versions.py"
    command = [program, script, f"127.0.0.1:{server.port}", server.grpc, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    row = dict.fromkeys(names, 1.0)
    expected = {str(n): artifact.score_each([row])[0].score for n, artifact in enumerate(artifacts, 1)}
    assert answers == {"http": {**expected, "": expected["2"]}, "grpc": {**expected, "": expected["2"]}}
