"""Scores that processes share in Redis: never another one's, whatever becomes of Redis; dropped by marks."""

import contextlib
import json
import os
import random
import signal
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.serving import project
from tests.serving.process import Server
from tests.serving.project import DEFINITIONS, REQUEST, make_project, prove
from tests.serving.test_app import DECIDE, call
from tests.stores.redis_server import RedisServer

from retrodict import Project
from retrodict.core.clock import parse_time
from retrodict.core.errors import ConfigurationError, InputError, NotFoundError, RefusedError
from retrodict.decisions import find_decision, read_decisions, replay_decision, score_cache
from retrodict.decisions.score_drops import append_drop, drop_scores
from retrodict.features.online import build_online
from retrodict.features.plan import FeatureSet
from retrodict.learning import train
from retrodict.ledger import verify
from retrodict.models.artifact import ModelArtifact, Speed
from retrodict.models.definitions import Model
from retrodict.models.estimators import _ESTIMATORS
from retrodict.registry import approve, current
from retrodict.rollout import deploy, promote, rollback
from retrodict.serving import Decider
from retrodict.stores.keys import cache as key_cache
from retrodict.workspace import Workspace

NOW = parse_time("2024-02-20T10:00Z")
VALUES = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
CACHED = DEFINITIONS.replace('deadline="5s"', 'deadline="5s", cache="1h"')
OTHER = 'other = Policy("other", late_parcel, decide={"warn": "score >= 0.9", "ok": "otherwise"}, cache="1h")\n'
WAIT_NS = score_cache._WAIT_NS
VERSIONS = ("late_parcel@1", "late_parcel@2", "late_parcel@3")


@pytest.fixture(scope="module")
def redis():
    with contextlib.closing(RedisServer()) as server:
        yield server


@pytest.fixture(scope="module")
def root(redis, tmp_path_factory):
    """Two policies with caches in Redis over one model of three versions, of which the last has other features."""
    folder = tmp_path_factory.mktemp("shared")
    make_project(folder).close()
    servers = '[servers]\nread_timeout = "300ms"\nbreaker_recovery = "100ms"\n'
    (folder / "retrodict.toml").write_text(
        f'[project]\nname = "parcels"\n[stores]\nscores = "{redis.url("shop")}"\n{servers}'
    )
    changed = CACHED.replace('{"weight": weight,', '{"weight": 100 - weight,')
    for text in (CACHED.replace('calibrate="sigmoid"', 'calibrate="isotonic"'), changed):
        (folder / "definitions.py").write_text(text + OTHER)
        with Workspace(folder, actor="ana") as workspace:
            build_online(workspace, [FeatureSet(workspace.definitions.get(Model, "late_parcel").features)])
            prove(workspace)
            _, version = train(workspace, "late_parcel")
            approve(Workspace(folder, actor="ben"), version.ref, reason="test")
            deploy(workspace, "promise", reason="with a cache")
            deploy(workspace, "other", reason="with a cache")
    return folder


@pytest.fixture
def shared(root, redis, monkeypatch):
    """Open deciders that share the project and Redis alone, with models slow enough to ask it on any machine."""
    monkeypatch.setattr(ModelArtifact, "measure", lambda _: Speed(1e6, None))
    monkeypatch.setattr(key_cache, "_PAUSE_S", 0.05)
    monkeypatch.setattr(score_cache, "_WAIT_NS", 2_000_000_000)  # a busy machine says nothing about a score
    redis_again(redis)
    with redis.client() as client:
        client.config_set("maxmemory", 0)
        client.flushall()
    with Workspace(root, actor="ana") as workspace, suppress(RefusedError):
        drop_scores(workspace, None, "size__weight", reason="the same mark for both policies")
        promote(workspace, "promise", VERSIONS[-1], reason="the same model")
    with contextlib.ExitStack() as stack:

        def begin():
            workspace = stack.enter_context(Workspace(root, actor="ana"))
            decider = stack.enter_context(Decider(workspace))
            settled(workspace, decider)
            return decider

        yield begin


def settled(workspace, decider=None):
    """Wait until what is to be written is, and Redis was measured, or could not be."""
    if decider is not None:
        decider._loader.load_current()
    until = time.monotonic() + 10
    while time.monotonic() < until and workspace.scores._writing:
        time.sleep(0.002)


def decide(decider, policy="promise", **changes):
    record = decider.decide(policy, {**VALUES, **changes}, at=NOW)
    settled(decider._workspace)
    return record


def counted(decider, policy="promise"):
    return dict(decider._loader.servants[policy].cache.take_counts())


def shared_results(decider):
    return {
        label.split('"')[1]: n for (name, label), n in counted(decider).items() if name.startswith("score_cache_sh")
    }


def test_another_process_finds_the_score_and_names_its_decision(shared, root):
    """Of another policy too, where the model is the same; its replay is exact and the audit finds nothing."""
    one, two = shared(), shared()
    first, second, third = decide(one), decide(two), decide(two, "other")
    assert (first.cached, second.cached, third.cached) == (None, first.id, first.id)
    assert (second.raw, second.score, third.score) == (first.raw, first.score, first.score)
    assert decide(two).cached == first.id
    assert shared_results(two) == {"hit": 1}
    workspace = two._workspace
    assert find_decision(workspace, second.cached).record.cached is None
    assert replay_decision(workspace, second.id).exact
    assert verify(workspace.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables).ok


def test_a_batch_asks_redis_once(shared, monkeypatch):
    """For all rows that the process has not; the others are scored."""
    one, two = shared(), shared()
    cases = [{**VALUES, "weight": float(weight)} for weight in range(10)]
    first = {case["weight"]: decide(one, weight=case["weight"]).id for case in cases[::2]}
    trips = []
    store = two._workspace.scores
    real = store.get_many
    monkeypatch.setattr(store, "get_many", lambda keys, wait_s: trips.append((len(keys), wait_s)) or real(keys, wait_s))
    answers = two.decide_many("promise", cases, at=NOW)
    assert [(count, 0.5 < wait_s <= 1.25) for count, wait_s in trips] == [(10, True)]  # a quarter of what is left
    monkeypatch.setattr(score_cache, "_WAIT_NS", WAIT_NS)
    two.decide_many("promise", [{**VALUES, "weight": 500.0 + at} for at in range(2)], at=NOW)
    assert trips[1] == (2, 0.02)
    assert [one.record.cached for one in answers] == [first.get(case["weight"]) for case in cases]


def test_redis_is_asked_only_where_that_is_quicker(shared, monkeypatch):
    """A model of 300 µs or less, or of less than two round trips, is called; who asks is told why."""
    one, two = shared(), shared()
    decide(one)
    cache, store = two._loader.servants["promise"].cache, two._workspace.scores
    for row_us, trip_us, asks, text in (
        (300.0, 10.0, False, "asking is worth it above 300 µs"), (301.0, 10.0, True, "asked: a round trip takes 10 µs"),
        (5_000.0, 2_500.0, False, "not asked: a round trip takes 2,500 µs, the model takes 5,000 µs a row"),
        (5_000.0, 2_499.0, True, "asked: "), (5_000.0, None, False, "Redis has not answered yet"),
    ):  # fmt: skip
        cache.row_us, store.trip_us = row_us, trip_us
        assert (cache.asks_redis, text in cache.describe()["redis"]) == (asks, True), cache.describe()
    assert two._loader.servants["promise"].asks_redis is False
    assert decide(two).cached is None
    store.trip_us = 50.0
    assert decide(two, weight=13).cached is None
    assert decide(one, weight=13.0).cached is not None


def test_rows_of_personal_features_stay_out_of_redis(shared, root, redis):
    """What the policy hides from the log is not written elsewhere."""
    text = (root / "definitions.py").read_text()
    try:
        (root / "definitions.py").write_text(text.replace('cache="1h")', 'cache="1h", personal=["size__weight"])'))
        with Workspace(root, actor="ana") as workspace:
            deploy(workspace, "other", reason="personal")
        one = shared()
        decide(one, "other")
        assert "personal" in one._loader.servants["other"].cache.describe()["redis"]
        with redis.client() as client:
            assert client.dbsize() == 0
    finally:
        (root / "definitions.py").write_text(text)
        with Workspace(root, actor="ana") as workspace:
            deploy(workspace, "other", reason="as before")


CHANGES = ["forge", "full", "kill", "stop", "drop", "restart", "rollback", *VERSIONS]
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(CHANGES), st.integers(0, 99))
    | st.tuples(st.sampled_from([0, 1]), st.sampled_from(["promise", "other"]), st.sampled_from(["north", None]),
                st.sampled_from([0, -0.0, 1, 1.0, 2, None])),
    min_size=6, max_size=16,
)  # fmt: skip
FORGERIES = [
    lambda value, others, rng: rng.randbytes(rng.randrange(200)),
    lambda value, others, rng: value[: rng.randrange(len(value))],
    lambda value, others, rng: rng.choice(others),  # of another row or model
    lambda value, others, rng: value + b"\0",
    lambda value, others, rng: bytes(byte ^ (at == rng.randrange(len(value))) for at, byte in enumerate(value)),
]


@given(OPERATIONS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_never_a_score_of_another_model_version_revision_feature_set_or_row(shared, root, redis, operations):
    """Whatever is asked, changed, or in Redis: the artifact in force gives this score for these features."""
    redis_again(redis)
    with redis.client() as client:
        client.config_set("maxmemory", 0)
        client.flushall()
    deciders = [shared(), shared()]
    workspace = deciders[0]._workspace
    try:
        for operation, *details in operations:
            if operation not in (0, 1):
                change(operation, details[0], deciders, shared, redis)
                continue
            policy, depot, weight = details
            revision = current(workspace)[policy]
            record = decide(deciders[operation], policy, depot=depot, weight=weight)
            assert (record.artifact, record.revision, record.fallback) == (
                revision.deployment.artifact, revision.revision, None)  # fmt: skip
            model = ModelArtifact.load(workspace.objects, record.artifact)
            scored = model.score_row(record.features)
            assert (record.raw, record.score) == (scored.raw, scored.score)
            if record.cached is not None:
                source = find_decision(workspace, record.cached).record
                assert (source.artifact, source.score, source.cached) == (record.artifact, record.score, None)
                assert model.row_of(source.features) == model.row_of(record.features)
    finally:
        redis_again(redis)
        for decider in deciders:
            decider.close()
            decider._workspace.close()


def change(operation, seed, deciders, shared, redis):
    workspace, rng = deciders[0]._workspace, random.Random(seed)
    if operation in ("rollback", *VERSIONS):
        with suppress(RefusedError):  # nothing decided before, or it decides already
            if operation == "rollback":
                rollback(workspace, "promise", reason="x")
            else:
                promote(workspace, "promise", operation, reason="x")
    elif operation == "drop":
        drop_scores(workspace, rng.choice(["promise", None]), "size__weight", reason="x")
    elif operation == "restart":
        deciders[seed % 2].close()
        deciders[seed % 2] = shared()
    elif operation == "kill":
        redis_again(redis)
        redis.kill()
        if seed % 2:
            redis.start()
    elif operation == "stop":
        if redis._process.poll() is None:
            os.kill(redis.pid, signal.SIGSTOP if seed % 2 else signal.SIGCONT)
    elif operation in ("full", "forge"):
        redis_again(redis)
        with redis.client() as client:
            if operation == "full":
                client.config_set("maxmemory", rng.choice([0, 1]))
                return
            client.config_set("maxmemory", 0)
            names = client.keys("{shop}scores:*")
            values = [client.get(name) for name in names]
            for name, value in zip(names, values, strict=True):
                client.set(name, rng.choice(FORGERIES)(value, values, rng))


def redis_again(redis):
    """Have it run, whatever was done to it."""
    if redis._process.poll() is None:
        os.kill(redis.pid, signal.SIGCONT)
    else:
        redis.start()


def test_a_drop_is_of_a_policy_or_of_those_that_read_a_feature(shared, root):
    """In each process and in Redis; the entry of the ledger says who and why."""
    one, two = shared(), shared()
    first = [decide(one, policy).id for policy in ("promise", "other")]
    workspace = one._workspace
    dropped = drop_scores(workspace, "other", None, reason="library was upgraded")
    assert (dropped.policies, workspace.ledger.entries(action="scores.drop")[-1].payload) == (
        ("other",), {"policy": "other", "features": [], "reason": "library was upgraded"})  # fmt: skip
    other = decide(one, "other")
    assert (decide(one).cached, decide(two).cached, other.cached) == (first[0], first[0], None)
    assert decide(two, "other").cached == other.id
    with workspace.ledger.transaction() as tx:
        append_drop(tx, policy=None, features=["elsewhere__wind"], reason="drift")
    assert (decide(one).cached, decide(two, "other").cached) == (first[0], other.id)
    assert drop_scores(workspace, None, "size__weight", reason="x").policies == ("other", "promise")
    again = decide(two)
    assert (again.cached, decide(one).cached) == (None, again.id)
    settled(workspace, third := shared())
    assert decide(third).cached == again.id


def test_scores_from_before_a_drop_do_not_come_back_from_the_log(shared, root):
    """A cache that begins with the log begins with what was decided since."""
    settings_file, text = root / "retrodict.toml", (root / "retrodict.toml").read_text()
    try:
        settings_file.write_text(text + "[serving]\nwarm_cache = true\n")
        with Project(root) as project:
            drop_scores(project.workspace, "promise", None, reason="x")
            assert project.decide("promise", **VALUES).record.cached is None  # at the present moment
            row = len(project._decider._loader.servants["promise"].cache._kept)
        with Workspace(root) as workspace, Decider(workspace) as decider:
            decider._loader.load_current()
            assert len(decider._loader.servants["promise"].cache._kept) == row == 1
    finally:
        settings_file.write_text(text)


@pytest.mark.parametrize(
    ("policy", "feature", "reason", "error", "message"),
    [
        (None, None, "x", InputError, "Name a policy, --feature, or both"),
        ("promis", None, "x", NotFoundError, "'promise'"),
        (None, "size__weigth", "x", InputError, "'size__weight'"),
        ("promise", None, " ", InputError, "--reason"),
    ],
)
def test_a_wrong_drop_is_refused(shared, root, policy, feature, reason, error, message):
    with Workspace(root) as workspace, pytest.raises(error, match=message):
        drop_scores(workspace, policy, feature, reason=reason)


@pytest.mark.parametrize("url", ["state/scores", "redis:///secret", "redis://host/0?prefx=a", "nats://host:1"])
def test_what_is_no_redis_is_refused_by_the_line(tmp_path, url):
    """At opening, with the setting, and without the URL."""
    (tmp_path / "retrodict.toml").write_text(f'[project]\nname = "p"\n[stores]\nscores = "{url}"\n')
    with Workspace(tmp_path) as workspace, pytest.raises(ConfigurationError, match=r"stores\.scores") as caught:
        _ = workspace.scores
    assert url not in str(caught.value)


def test_a_read_that_was_given_up_holds_up_nobody_else(shared, redis, monkeypatch):
    """While it goes on none is begun; a score is then computed, counted as late."""
    one, two = shared(), shared()
    record = decide(one)
    monkeypatch.setattr(score_cache, "_WAIT_NS", WAIT_NS)
    store, asked = two._workspace.scores, []
    real = store._server.read
    store._server.read = lambda *command: asked.append(command) or real(*command)
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        answers = [two.decide("promise", VALUES | {"weight": float(at)}, at=NOW) for at in range(3)]
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    assert len(asked) == 1
    assert [(one.cached, one.fallback) for one in answers] == [(None, None)] * 3
    assert shared_results(two)["late"] == 3
    settled(two._workspace)
    until = time.monotonic() + 20
    while not store._given_up.done() and time.monotonic() < until:
        time.sleep(0.01)
    monkeypatch.setattr(score_cache, "_WAIT_NS", 2_000_000_000)
    assert decide(two).cached == record.id


def test_writes_are_bounded_and_end_with_their_time(shared, redis):
    """Beyond a thousand that wait they are left out; Redis forgets by itself."""
    one = shared()
    decide(one)
    with redis.client() as client:
        (name,) = client.keys("{shop}scores:*")
        assert 3_590_000 < client.pttl(name) <= 3_600_000
    store = one._workspace.scores
    store._writing = True  # nobody writes
    assert [store.put(b"k", b"v", 1_000) for _ in range(1_001)] == [True] * 1_000 + [False]


def test_a_score_that_is_too_old_for_this_policy_is_a_miss(shared, monkeypatch):
    """Its age counts from when it was computed, also in a process that has it from Redis."""
    one, two = shared(), shared()
    record = decide(one)
    cache = two._loader.servants["promise"].cache
    row = cache._model.row_of(record.features)
    identity, value = cache._identity, two._workspace.scores._server.read(b"GET", _name(two, cache, row))
    now = two._workspace.clock.now()
    for age, left in ((0, 3_600), (3_599_000_000, 1)):
        entry = cache._opened(identity, row, value, now + age)
        assert 0 < entry.until - time.monotonic() <= left
    assert cache._opened(identity, row, value, now + 3_600_000_000) is None


def _name(decider, cache, row):
    from retrodict.decisions.score_cache import _key

    return decider._workspace.scores._prefix + _key(cache._identity, row)


def test_advice_says_what_another_size_or_age_would_give(shared, root, monkeypatch):
    """Of an in-process cache that is too small, or whose scores are too short-lived; before 1,000 decisions nothing."""
    from retrodict.serving.cache_advice import cache_reports

    decider = shared()
    decider._loader.load_current()
    cache, counters = decider._loader.servants["promise"].cache, {}
    cache.row_us = 0.0
    record = decide(decider)
    cache.take_counts()
    small = type(cache)(
        cache._model, record.artifact, features="", clock=cache._clock, max_age="1m", size=100, shared="-"
    )
    decider._loader.servants["promise"].cache = small
    clock = [time.monotonic()]
    monkeypatch.setattr("retrodict.decisions.score_cache.time.monotonic", lambda: clock[0])

    def ask(weight):
        values = {**record.features, "size__weight": float(weight)}
        hit = small.find(small._model.row_of(values)) is not None
        result = f'policy="promise",result="{"hit" if hit else "miss"}"'
        counters["score_cache_total", result] = counters.get(("score_cache_total", result), 0) + 1
        if not hit:
            small.keep(replace(record, features=values, cached=None))

    def report():
        for (name, label), n in small.take_counts().items():
            key = name, 'policy="promise"' + (f",{label}" if label else "")
            counters[key] = counters.get(key, 0) + n
        return cache_reports(counters, decider._loader.servants)["promise"]

    assert report()["hit_ratio"] is None
    ask(1)
    assert (report()["hit_ratio"], "before 1,000" in report()["advice"]) == (0.0, True)
    for at in range(3_000):  # again and again through more rows than there is room for
        ask(at % 150)
    facts = report()
    assert facts["with_twice_the_size"] > facts["local_hit_ratio"] + 0.05
    assert facts["with_twice_the_size"] == pytest.approx(1 - 150 / 3_000, abs=0.02)
    assert facts["evictions"] > 500
    assert facts["advice"].startswith("serving.cached_scores = 200 would answer")
    counters.clear()
    for at in range(4_000):  # few rows, each again after a minute and a half
        ask(at % 20)
        clock[0] += 90 / 20
    facts = report()
    assert facts["with_twice_the_age"] > 0.95 > 0.05 > facts["local_hit_ratio"]
    assert facts["advice"].startswith('cache="120s" would answer')


BAGGED = """
from dataclasses import replace
from retrodict.models import get_estimator, register_estimator
_forest = get_estimator("random_forest")
register_estimator(replace(_forest, name="bagged_trees", defaults={"n_estimators": 40}, minimum={}, space={},
    fixed={**_forest.fixed, "classifier": "sklearn.ensemble.BaggingClassifier"}, warm_start=""))
"""


@pytest.fixture(scope="module")
def slow_root(redis, tmp_path_factory):
    """A project whose model takes milliseconds a row, as it is; other modules do not see its estimator."""
    patch = pytest.MonkeyPatch()
    patch.setattr("retrodict.models.estimators._ESTIMATORS", dict(_ESTIMATORS))
    folder, text = tmp_path_factory.mktemp("slow"), project.DEFINITIONS
    project.DEFINITIONS = BAGGED + CACHED.replace('Recipe("logistic", calibrate="sigmoid",', 'Recipe("bagged_trees",')
    try:
        make_project(folder).close()
    finally:
        project.DEFINITIONS = text
    servers = '[servers]\nbreaker_recovery = "200ms"\nbreaker_failures = 2\n[ledger]\nseal_every = "1s"\n'
    (folder / "retrodict.toml").write_text(
        f'[project]\nname = "parcels"\n[stores]\nscores = "{redis.url("slow")}"\n{servers}'
    )
    yield folder
    patch.undo()


def asked(server, weight, path="/v1/decisions/promise"):
    body = {**REQUEST, "context": {**REQUEST["context"], "weight": weight}}
    status, answer = server.send("POST", path, body, {"Retrodict-Time": "2024-02-20T10:00:00Z"})
    assert (status, answer.get("fallback")) == (200, None), answer
    return answer


def caches(server):
    return server.send("GET", "/v1/status")[1]["score_caches"]["promise"]


def until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return answer


def test_two_servers_share_scores_whatever_becomes_of_redis(slow_root, redis):
    """Hits of the other's rows, Redis killed and stopped, a drop; every source is in the log."""
    redis_again(redis)
    with redis.client() as client:
        client.config_set("maxmemory", 0)
    with contextlib.ExitStack() as stack:
        servers = [Server(slow_root, "--replay", "--no-consume", "--workers", n) for n in ("2", "1")]
        for server in servers:
            stack.callback(server.process.kill)
        one, two = servers
        until(lambda: asked(one, random.random()) and caches(one)["redis"].startswith("asked"))
        first = [asked(one, float(weight)) for weight in range(1, 30)]
        until(lambda: caches(one)["redis_results"].get("written", 0) >= 29)
        second = [asked(two, float(weight)) for weight in range(1, 30)]
        assert until(lambda: caches(two)["redis_results"].get("hit", 0)) > 5
        redis.kill()
        killed = [asked(server, 100.0 + weight) for weight in range(8) for server in servers]
        redis.start()
        until(
            lambda: (
                asked(two, 200 + random.random()) and "scores" not in two.send("GET", "/readyz")[1].get("stores", {})
            )
        )
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            stopped = [asked(server, 300.0 + weight) for weight in range(8) for server in servers]
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        assert sum(caches(one)["redis_results"].get(name, 0) for name in ("away", "late")) > 0
        with Project(slow_root) as opened:
            shown = opened.decisions.score_caches(url=f"http://127.0.0.1:{two.port}")
            assert "hit ratio" in str(shown)
            assert shown.to_dict()["promise"]["hit_ratio"] > 0
            opened.decisions.drop_scores(feature="size__weight", reason="drift")
        time.sleep(1.0)  # what the page promises that a server takes to see it
        after = [asked(server, 5.0) for server in servers]
        for server in servers:
            server.stop()
    with Workspace(slow_root) as workspace:
        by_id = {logged.record.id: logged.record for logged in read_decisions(workspace)}
        records = [by_id[one["decision_id"]] for one in [*first, *second, *killed, *stopped, *after]]
        for record in by_id.values():
            if record.cached is not None:
                source = by_id[record.cached]
                assert (source.score, source.features, source.cached) == (record.score, record.features, None)
        assert any(record.cached in {one["decision_id"] for one in first} for record in records[29:58])
        assert by_id[after[0]["decision_id"]].cached is None
        hit = next(record for record in records[29:58] if record.cached)
        assert replay_decision(workspace, hit.id).exact
        assert verify(workspace.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables).ok


def test_what_is_counted_is_in_the_metrics(slow_root):
    """By policy: misses by reason, what Redis said, and evictions; over HTTP in one process."""
    body = json.dumps({**REQUEST, "context": {**REQUEST["context"], "weight": 77.5}}).encode()
    with Workspace(slow_root, actor="ana") as workspace:
        *_, metrics = call(workspace, ("POST", DECIDE, body), ("POST", DECIDE, body), ("GET", "/metrics"))
    text = metrics[2].decode()
    assert 'retrodict_score_cache_misses_total{policy="promise",reason="new"} 1' in text
    assert 'retrodict_score_cache_total{policy="promise",result="hit"} 1' in text
    assert 'retrodict_score_cache_evictions_total{policy="promise"} 0' in text


def test_values_that_are_not_what_was_written_are_misses(shared, root, redis):
    """Of another row, another model, another format, cut, flipped, empty, of another type: the model scores."""
    one = shared()
    records = [decide(one, weight=weight) for weight in (1.0, 2.0)]
    cache, store = one._loader.servants["promise"].cache, one._workspace.scores
    rows = [cache._model.row_of(record.features) for record in records]
    names = [_name(one, cache, row) for row in rows]
    with redis.client() as client, Workspace(root, actor="ana") as workspace:
        values = [client.get(name) for name in names]
        promote(workspace, "promise", VERSIONS[0], reason="another model")
        strange = decide(one, weight=1.0)
        other = one._loader.servants["promise"].cache
        of_another_model = client.get(_name(one, other, other._model.row_of(strange.features)))
        assert (strange.cached, of_another_model is None) == (None, False)
        promote(workspace, "promise", VERSIONS[2], reason="back")
        flips = [bytes(byte ^ (1 << at % 8) * (place == at) for place, byte in enumerate(values[0]))
                 for at in range(0, len(values[0]), 7)]  # fmt: skip
        payload = values[0][32:]
        parts = [values[0][:-1], values[0] + b"\0", payload, b"", b"\0" * 32 + payload]
        forgeries = [values[1], of_another_model, *parts, *flips]
        two = shared()
        decide(two)
        shared_results(two)
        for forged in forgeries:
            client.set(names[0], forged)
            record = decide(two, weight=1.0)
            assert (record.cached, record.raw, record.score) == (None, records[0].raw, records[0].score)
            assert shared_results(two) == {"unusable": 1, "written": 1}
            two._loader.servants["promise"].cache._kept.clear()
        client.delete(names[0])
        client.rpush(names[0], "a list")
        assert decide(shared(), weight=1.0).cached is None
        client.set(names[0], values[0])
        assert decide(shared(), weight=1.0).cached == records[0].id
    assert store.get_many([b"nothing"], 5.0) == [None]


def test_a_redis_that_is_away_is_a_miss_and_found_again(shared, redis):
    """Killed, and not called while its breaker is open; the model scores, and nothing falls back."""
    one, two = shared(), shared()
    first = decide(one)
    redis.kill()
    try:
        answers = [decide(two, weight=200.0 + at) for at in range(8)]
    finally:
        redis.start()
    assert [(answer.cached, answer.fallback) for answer in answers] == [(None, None)] * 8
    assert shared_results(two)["away"] == 8
    assert two._workspace.breakers["scores"].counts["opened"] >= 1
    time.sleep(0.2)  # its recovery
    assert decide(two).cached == first.id
