"""Sessions: numbers that nobody else got, what ends when, and nulls where nothing is known."""

import contextlib
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import START
from tests.decisions.test_servant import MODEL, NAME, REVISION, Stage, reader, scores, values
from tests.stores.redis_server import RedisServer

from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import MINUTE, SECOND
from retrodict.core.errors import DefinitionError, InputError, IntegrityError, RetryableError
from retrodict.decisions import servant as servant_module
from retrodict.decisions.compiled import CompiledPolicy, PolicyDecision
from retrodict.decisions.definitions import Policy, Rule, Session
from retrodict.decisions.requests import DecisionRequest, RequestSchema
from retrodict.decisions.servant import Servant
from retrodict.decisions.sessions import Sessions
from retrodict.workspace import Workspace

TTL = 30 * MINUTE
DECIDE = {"warn": "score >= 0.6", "ok": "otherwise"}


@pytest.fixture(scope="module")
def redis():
    with contextlib.closing(RedisServer()) as server:
        yield server


@pytest.fixture(params=["lmdb", "redis"])
def workspace(request, make_project):
    keys = ""
    if request.param == "redis":
        keys = f'[stores]\nkeys = "{request.getfixturevalue("redis").url(uuid.uuid4().hex)}"\n'
    return make_project(settings=keys)


def opened(workspace, session=None, policy="p"):
    return Sessions(workspace, policy, session or Session("who", last=3))


def entries(workspace):
    return list(workspace.sessions.scan(b"\0sessions\0"))


def go(sessions, decision="ok", *, at=START, who="ann"):
    """What the session was before a decision."""
    return sessions.decide(sessions.name({"who": who}), at, lambda _: PolicyDecision(decision))[1]


def test_each_of_many_calls_at_once_has_a_number_of_its_own(workspace):
    """Over threads and two opened stores; each sees the choice of the one before it, and none is lost."""
    with Workspace(workspace.root, clock=SimulatedClock(START)) as other, ThreadPoolExecutor(20) as pool:
        both = [opened(one, Session("who", last=100)) for one in (workspace, other)]

        def call(number):
            sessions = both[number % 2]

            def choice(known):
                return PolicyDecision(f"{number} after {known['count']}")

            return sessions.decide(sessions.name({"who": "ann"}), START, choice)

        results = list(pool.map(call, range(60)))
        state = both[0].find(both[0].name({"who": "ann"}))
    by_count = {known["count"]: (decision.decision, known["last"]) for decision, known in results}
    assert sorted(by_count) == list(range(60))
    assert [by_count[number][1] for number in range(60)] == [None, *(by_count[number][0] for number in range(59))]
    assert (state.count, state.last) == (60, [by_count[number][0] for number in range(60)])


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3 * TTL // 2), st.sampled_from(["warn", "ok"])))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    (folder / "retrodict.toml").write_text('[project]\nname = "shop"\n')
    with Workspace(folder, clock=SimulatedClock(START)) as opened_project:
        yield opened_project


@given(steps, st.integers(0, 4))
def test_a_session_is_what_a_list_of_its_decisions_says(shop, taken_steps, last):
    """Of each unit for itself, whatever is swept; a list with its times shares no code with the store."""
    sessions, kept, moment = opened(shop, Session("who", last=last), uuid.uuid4().hex), {}, shop.clock.now()
    for who, pause, decision in taken_steps:
        moment += pause
        shop.clock.move_to(moment)
        before = kept.get(who, [])
        if before and moment - before[-1][0] >= TTL:
            before = []
        newest = before[-1][1] if before and last else None
        age = (moment - before[0][0]) / 1e6 if before else 0.0
        assert go(sessions, decision, at=moment, who=who) == {"count": len(before), "last": newest, "age_s": age}
        kept[who] = [*before, (moment, decision)]
        shown = [choice for _, choice in kept[who]][-last:] if last else []
        assert sessions.find(sessions.name({"who": who})).last == shown


def test_a_session_ends_when_its_time_has_passed_and_not_before(workspace):
    """To the microsecond; each decision renews it."""
    sessions = opened(workspace)
    go(sessions)
    assert go(sessions, at=START + TTL - 1) == {"count": 1, "last": "ok", "age_s": (TTL - 1) / SECOND}
    assert go(sessions, at=START + 2 * TTL - 2)["count"] == 2
    assert go(sessions, at=START + 3 * TTL - 2) == {"count": 0, "last": None, "age_s": 0.0}


def test_clocks_that_differ_a_little_share_a_session(workspace):
    """An earlier moment is no negative age and ends nothing sooner; one a whole session earlier is in none."""
    sessions = opened(workspace)
    go(sessions)
    assert go(sessions, at=START - 5) == {"count": 1, "last": "ok", "age_s": 0.0}
    assert go(sessions, at=START + TTL - 1)["count"] == 2
    assert go(sessions, at=START - TTL)["count"] == 0


def test_what_has_ended_is_removed_and_nothing_else(workspace):
    """One part of all at a time, whoever is decided; not what lives, nor what a simulation goes on with."""
    sessions, clock = opened(workspace), workspace.clock
    for number in range(300):
        go(sessions, who=f"gone {number}")
    simulated = opened(workspace, policy="past")
    go(simulated, at=START - 9 * TTL, who="sim")
    go(simulated, at=START + 9 * TTL, who="slow")
    assert len(entries(workspace)) == 302
    first, pause = clock.now() + TTL - SECOND, TTL // 256
    clock.move_to(first)
    go(simulated, at=START - 9 * TTL, who="sim")  # by the machine's clock it is in use
    go(sessions, at=first, who="ann")
    for number in range(1, 256):
        clock.move_to(first + SECOND + number * pause)
        go(sessions, at=clock.now(), who="ann")
    assert len(entries(workspace)) == 3
    assert go(simulated, at=START + 9 * TTL, who="slow")["count"] == 1
    assert go(sessions, at=clock.now(), who="ann")["count"] == 256
    assert go(simulated, at=START - 9 * TTL, who="sim")["count"] == 2


def test_a_damaged_session_keeps_no_other_from_being_removed(workspace):
    """It is told, kept, and begun anew once it is dropped."""
    sessions, clock = opened(workspace), workspace.clock
    ann, other = sessions.name({"who": "ann"}), sessions.name({"who": "ann"})[:-1] + b"\0"  # of one part
    go(sessions, who="ann")
    (value,) = workspace.sessions.get_many([ann])
    workspace.sessions.put_many({ann: b"damaged", other: value})
    with pytest.raises(IntegrityError, match="--drop"):
        go(sessions)
    clock.move_to(START + 2 * TTL)
    sessions._sweep(ann, clock.now())
    assert entries(workspace) == [(ann, b"damaged")]
    sessions.drop(ann)
    assert go(sessions, at=clock.now())["count"] == 0


def test_nobody_reads_a_unit_in_the_store(workspace):
    """Neither in a key nor in a value; other units, names and policies have other sessions."""
    pair = Session(["who", "shop"])
    go(opened(workspace), who="adler@example.org")
    assert all(b"adler" not in key + value for key, value in entries(workspace))
    unit = {"who": "1", "shop": "11"}
    names = [opened(workspace, pair).name(unit), opened(workspace, pair).name({"who": "11", "shop": "1"}),
             opened(workspace, Session(["shop", "who"])).name(unit), opened(workspace, pair, "q").name(unit),
             opened(workspace, Session("who")).name(unit)]  # fmt: skip
    assert len({*names}) == 5
    assert opened(workspace, pair).name({"who": "ann", "shop": None}) is None


def test_a_dropped_session_begins_anew(workspace):
    """And what was never there may be dropped."""
    sessions = opened(workspace)
    go(sessions)
    sessions.drop(sessions.name({"who": "ann"}))
    sessions.drop(sessions.name({"who": "ben"}))
    assert sessions.find(sessions.name({"who": "ann"})) is None
    assert go(sessions)["count"] == 0


def test_who_chooses_nothing_is_not_counted(workspace):
    """A fallback that has no decision leaves the session as it is, and so does one that fails."""
    sessions = opened(workspace)
    name = sessions.name({"who": "ann"})
    assert sessions.decide(name, START, lambda _: None)[0] is None
    with pytest.raises(ZeroDivisionError):
        sessions.decide(name, START, lambda _: 1 / 0)
    assert entries(workspace) == []


@pytest.mark.parametrize(("facts", "words"), [
    ({"by": []}, "several names"), ({"by": ["a", "a"]}, "each once"), ({"by": [1]}, "several names"),
    ({"by": "a", "ttl": "0s"}, "live on for a while"), ({"by": "a", "ttl": "soon"}, "soon"),
    ({"by": "a", "last": 101}, "0 to 100"), ({"by": "a", "last": -1}, "0 to 100"),
    ({"by": "a", "last": True}, "0 to 100"),
])  # fmt: skip
def test_a_session_that_cannot_be_is_refused(facts, words):
    """When it is written down."""
    with pytest.raises((DefinitionError, InputError), match=words):
        Session(**facts)


def policy_of(session, when="session_count >= 5", **more):
    rule = Rule("enough", when=when, then="warn", reason="Often")
    return Policy("p", MODEL, decide=DECIDE, rules=[rule], session=session, **{"deadline": "10s", **more})


def test_names_of_a_session_are_its_own():
    """A feature, its short name, or a value of the request of the same name is refused; so is who is not asked for."""
    session = Session("origin")
    for features, others in [(["session_count"], ["origin"]), (["web__session_age_s"], ["origin"]),
                             ([], ["origin", "session_last"])]:  # fmt: skip
        with pytest.raises(DefinitionError, match="no feature and no value of a request"):
            CompiledPolicy(policy_of(session), features, others)
    with pytest.raises(DefinitionError, match="entities or values of the context"):
        CompiledPolicy(policy_of(Session("customer")), [], ["origin"])
    with pytest.raises(DefinitionError, match="names that exist"):
        CompiledPolicy(policy_of(Session("origin", last=0), "session_last = 'ok'"), [], ["origin"])
    with pytest.raises(DefinitionError, match="names that exist"):
        CompiledPolicy(policy_of(None), [], ["origin"])
    with pytest.raises(DefinitionError, match="must decide to have a Session"):
        Policy("p", MODEL, session=session)


def test_a_policy_without_a_session_is_the_version_that_it_was():
    """One with it is another, and its stages say so."""
    assert policy_of(None, "score > 0.9").version == Policy(
        "p", MODEL, decide=DECIDE, rules=policy_of(None, "score > 0.9").rules, deadline="10s"
    ).version  # fmt: skip
    assert len({policy_of(s).version for s in (None, Session("origin"), Session("origin", last=0))}) == 3
    assert "in the session of origin, for 30m" in policy_of(Session("origin")).stages["decide"]


def servant_of(sessions, *, model=None, features=None, **policy):
    definition = policy_of(Session("origin"), **policy)
    servant = Servant(
        REVISION, CompiledPolicy(definition, [NAME], ["origin"]), reader(features or values(1)),
        SimpleNamespace(score_row=model or scores(0.7), on_server=False), RequestSchema({"origin": "text"}, {}),
    )  # fmt: skip
    servant.join(sessions)
    return servant


def ask(servant, origin="JFK", at=START):
    request = DecisionRequest({"origin": origin})
    return servant.decide(request, decision_id="0" * 26, at=at, arrived_ns=time.perf_counter_ns())


def test_every_way_to_a_decision_is_counted_once(workspace):
    """The score, a rule, each kind of fallback; a request that is refused is not."""
    sessions = opened(workspace, Session("origin"))
    broken = Stage(RuntimeError("broken"))
    ways = [({}, "warn"), ({"model": scores(0.1)}, "ok"), ({"model": broken, "fallback": ["ok"]}, "ok"),
            ({"model": broken}, "ok"), ({"model": broken, "fallback": ["rules", "warn"]}, "warn"),
            ({"model": broken, "fallback": ["rules", "ok"]}, "warn"),
            ({"model": scores(0.1)}, "warn")]  # fmt: skip
    for number, (way, decision) in enumerate(ways):
        record = ask(servant_of(sessions, **way))
        before = None if number == 0 else ways[number - 1][1]
        assert (record.decision, record.session) == (decision, {"count": number, "last": before, "age_s": 0.0})
    bad = Stage(InputError("wrong", where="request", got="x", remedy="Mend it"))
    for servant, origin in ((servant_of(sessions), 7), (servant_of(sessions, features=bad), "JFK")):
        with pytest.raises(InputError):
            ask(servant, origin)
    assert ask(servant_of(sessions)).session["count"] == len(ways)


def test_without_a_unit_there_is_no_session(workspace):
    """Its values are null, not 0, and no rule on them fires."""
    servant = servant_of(opened(workspace, Session("origin")), when="session_count < 5", model=scores(0.1))
    record = ask(servant, None)
    assert (record.decision, record.rule, record.session) == ("ok", None, {"status": "no_unit"})
    assert ask(servant).rule == "enough"
    assert len(entries(workspace)) == 1


def test_a_rule_that_fails_leaves_no_trace(workspace):
    """Its fallback is the one decision that is counted."""
    servant = servant_of(opened(workspace, Session("origin")), model=scores(0.7), fallback=["ok"])
    servant.policy.decide = Stage(TypeError("texts have no size"))
    assert (ask(servant).fallback, ask(servant).session["count"]) == ("ok", 1)


class AwayKeys:
    """A store that fails, and counts how often it was asked."""

    on_server, uses = False, 0

    def name(self, _):
        return b"name"

    def decide(self, *_):
        self.uses += 1
        raise RetryableError("the server must answer", where="keys", got="no answer", remedy="Try again")


@pytest.mark.parametrize("model", [scores(0.1), Stage(RuntimeError("broken"))])
def test_a_store_that_is_away_stops_no_decision(model, caplog, monkeypatch):
    """It decides with nulls, asks once, says so in the record and in the log, where no unit stands."""
    monkeypatch.setattr(servant_module._log, "filters", [])  # which lets one line a second through
    away = AwayKeys()
    servant = servant_of(away, when="session_count < 5", model=model, fallback=["rules", "ok"])
    record = ask(servant, "adler")
    assert (record.decision, record.rule, record.session) == ("ok", None, {"status": "unavailable"})
    assert away.uses == 1
    assert "the session is not known" in caplog.text
    assert "adler" not in caplog.text


def test_bytes_that_are_no_session_are_not_taken_for_one(workspace):
    """The decision knows of none, until it is dropped."""
    sessions = opened(workspace, Session("origin"))
    servant, name = servant_of(sessions), sessions.name({"origin": "JFK"})
    workspace.sessions.put_many({name: b"\x93\x01"})
    assert ask(servant).session == {"status": "unavailable"}
    sessions.drop(name)
    assert ask(servant).session["count"] == 0


@pytest.mark.parametrize("kill", [True, False])
def test_a_redis_that_is_gone_holds_no_decision_longer_than_its_deadline(make_project, kill):
    """Killed or standing still; when it is back the session goes on where it was."""
    with contextlib.closing(RedisServer()) as server:
        settings = f'[stores]\nkeys = "{server.url()}"\n[servers]\nbreaker_recovery = "100ms"\n'
        sessions = opened(make_project(settings=settings), Session("origin"))
        servant = servant_of(sessions, deadline="150ms")
        assert ask(servant).session["count"] == 0
        assert servant.waits
        assert servant.on_server
        os.kill(server.pid, signal.SIGKILL if kill else signal.SIGSTOP)
        took = []
        for _ in range(3):
            began = time.perf_counter()
            record = ask(servant)
            took.append(time.perf_counter() - began)
            assert (record.decision, record.session) == ("warn", {"status": "unavailable"})
        assert max(took) < 0.4
        if kill:
            server.kill()  # which waits for it
            server.start()
        else:
            os.kill(server.pid, signal.SIGCONT)
        time.sleep(0.3)
        assert ask(servant_of(sessions)).session["count"] >= 1
