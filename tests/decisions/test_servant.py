"""One decision, stage by stage: when a stage fails the policy's fallback answers, and the record says so."""

import math
import time
from types import SimpleNamespace

import pytest
from tests.serving.conftest import MODEL

from retrodict.core.errors import InputError, ServerAwayError
from retrodict.decisions.compiled import CompiledPolicy
from retrodict.decisions.definitions import Policy, Rule
from retrodict.decisions.requests import DecisionRequest, RequestSchema
from retrodict.decisions.servant import Servant
from retrodict.models.artifact import ModelArtifact, Score
from retrodict.models.engines.linear import LinearEngine, NumberTerm
from retrodict.models.inputs import InputSpec
from retrodict.registry import Deployment, Revision

NAME = "origin__count_2h"
PREVIOUS = {"policy_version": "v0", "code": "c0", "model": "m@1", "artifact": "a1", "model_code": "mc0"}
REVISION = Revision(7, 0, "ana", "deploy", "test", Deployment("p", "v", "c", "m@2", "a2", "mc", previous=PREVIOUS))
BUSY = Rule("busy", when="count_2h > 3", then="warn", reason="Busy")


class Stage:
    """A part of a servant: gives its answer or fails, and counts how often it was used."""

    def __init__(self, answer, delay=0.0):
        self.answer, self.delay, self.uses = answer, delay, 0

    def __call__(self, *_, **__):
        self.uses += 1
        time.sleep(self.delay)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def scores(score, **more):
    return Stage(score if isinstance(score, Exception) else Score(score / 2, score, {"score": score}), **more)


def values(count):
    return Stage(SimpleNamespace(values={NAME: count}, statuses={"origin": "ok"}, places={}, newest=None))


def reader(read, views=()):
    unread = SimpleNamespace(statuses=dict.fromkeys([view.name for view in views], "not_read"))
    return SimpleNamespace(read=read, unread=lambda: unread, features=SimpleNamespace(views=views), on_server=False)


def decide(model, *, features=None, previous=None, fallback=(), rules=(BUSY,), age_ns=0, explain=False, **policy):
    """Record of one request that arrived some time ago."""
    definition = Policy("p", MODEL, decide={"warn": "score >= 0.6", "look": "score >= 0.3", "ok": "otherwise"},
                        rules=rules, fallback=fallback, **{"deadline": "10s", **policy})  # fmt: skip
    servant = Servant(
        REVISION, CompiledPolicy(definition, [NAME], ["origin"]), reader(features or values(1)),
        SimpleNamespace(score_row=model, on_server=False), RequestSchema({"origin": "text"}, {}),
        previous=None if previous is None else SimpleNamespace(score_row=previous),
    )  # fmt: skip
    request = DecisionRequest({"origin": "JFK"}, explain=explain)
    return servant.decide(request, decision_id="0" * 26, at=5, arrived_ns=time.perf_counter_ns() - age_ns)


def answer(record):
    return record.decision, record.rule, record.fallback, record.error, record.score, record.model, record.artifact


@pytest.mark.parametrize("read", [values(1), Stage(RuntimeError("takes no nulls"))])
def test_a_servant_is_warmed_by_its_own_stages_and_counts_nothing(read):
    """The model scores and the state is read once, of nobody; what fails is left to the first request."""
    definition = Policy("p", MODEL, decide={"warn": "score >= 0.6", "ok": "otherwise"}, deadline="10s")
    model, marks, features = scores(0.5), Stage({}), reader(read)
    features.watermarks, features.unread().values, read.uses = marks, {NAME: None}, 0
    servant = Servant(REVISION, CompiledPolicy(definition, [NAME], ["origin"]), features,
                      SimpleNamespace(score_row=model, on_server=False), RequestSchema({"origin": "text"}, {}),
                      health=SimpleNamespace(behind={}, count=pytest.fail))  # fmt: skip
    servant.warm(5)
    assert (model.uses, marks.uses, read.uses) == (1, 1, 1)


BROKEN = scores(RuntimeError("broken"))
NOBODY = (None, "", "")


def test_the_score_decides_where_no_rule_fires():
    """And the record names the model, the artifact, the revision and both scores."""
    record = decide(scores(0.5))
    assert answer(record) == ("look", None, None, None, 0.5, "m@2", "a2")
    assert (record.raw, record.revision, record.time, record.features) == (0.25, 7, 5, {NAME: 1})
    assert (record.policy, record.policy_version, record.code, record.model_code) == ("p", "v", "c", "mc")
    assert list(record.stages) == ["check", "features", "score", "rules"]


def test_a_request_is_validated_before_anything_is_read_or_scored():
    """A wrong value is a clear error, not a failure of what would have prepared it."""
    read, model = values(1), scores(0.5)
    definition = Policy("p", MODEL, decide={"warn": "score >= 0.6", "ok": "otherwise"}, deadline="10s")
    servant = Servant(REVISION, CompiledPolicy(definition, [NAME], ["origin"]), reader(read),
                      SimpleNamespace(score_row=model, on_server=False),
                      RequestSchema({"origin": "text"}, {}))  # fmt: skip
    with pytest.raises(InputError, match="'origin'"):
        servant.decide(DecisionRequest({"origin": 7}), decision_id="0" * 26, at=5, arrived_ns=time.perf_counter_ns())
    assert (read.uses, model.uses) == (0, 0)


def test_a_rule_decides_whatever_the_score():
    """Its reason comes first."""
    record = decide(scores(0.1), features=values(4))
    assert answer(record) == ("warn", "busy", None, None, 0.1, "m@2", "a2")
    assert record.reasons == ["Busy"]


@pytest.mark.parametrize(
    ("fallback", "count", "expected"),
    [
        (["rules", "look"], 4, ("warn", "busy", "rules", "RuntimeError", *NOBODY)),
        (["rules", "look"], 1, ("look", None, "look", "RuntimeError", *NOBODY)),
        (["look", "rules"], 4, ("look", None, "look", "RuntimeError", *NOBODY)),
        ([], 4, ("ok", None, "ok", "RuntimeError", *NOBODY)),
        (["rules"], 1, ("ok", None, "ok", "RuntimeError", *NOBODY)),
        (["rules"], None, ("ok", None, "ok", "RuntimeError", *NOBODY)),
    ],
)
def test_a_model_that_fails_falls_back_in_order(fallback, count, expected):
    """The first step that has an answer gives it, the last decision if none does; no score is made up."""
    assert answer(decide(BROKEN, features=values(count), fallback=fallback)) == expected


def test_the_previous_version_answers_with_its_score_and_name():
    """It scores the features at hand; rules stand above it as above any score."""
    record = decide(BROKEN, previous=scores(0.7), fallback=["previous_version", "ok"])
    assert answer(record) == ("warn", None, "previous_version", "RuntimeError", 0.7, "m@1", "a1")
    record = decide(BROKEN, previous=scores(0.1), features=values(4), fallback=["previous_version"])
    assert record.rule == "busy"


@pytest.mark.parametrize("previous", [None, BROKEN])
def test_without_a_previous_version_that_scores_the_next_step_answers(previous):
    """None is warm, or it fails too: nothing of it stays in the record."""
    record = decide(BROKEN, previous=previous, fallback=["previous_version", "look"])
    assert answer(record) == ("look", None, "look", "RuntimeError", *NOBODY)


def test_a_score_that_is_no_number_is_none():
    """By the rules nothing compares with it, so the last word would stand: the fallback decides, and no NaN either."""
    record = decide(scores(math.nan), previous=scores(math.nan), fallback=["previous_version", "look"])
    assert (record.fallback, record.error, record.score, record.outputs) == ("look", "UnknownScoreError", None, {})
    assert decide(scores(math.inf)).fallback is None


def test_a_fallback_step_that_fails_leads_to_the_next():
    """A rule that breaks in the decision breaks in the fallback, too; an answer comes all the same."""
    steps = ["rules", "previous_version", "look"]
    record = decide(scores(0.5), features=values(["not", "a", "number"]), fallback=steps, previous=scores(0.9))
    assert answer(record) == ("look", None, "look", "InputError", *NOBODY)


def test_without_features_the_previous_version_is_not_asked():
    """It could only score absence."""
    previous = scores(0.9)
    record = decide(
        scores(0.5), features=Stage(OSError("gone")), previous=previous, fallback=["previous_version", "look"]
    )
    assert (record.decision, record.error, record.features, previous.uses) == ("look", "OSError", {}, 0)


def test_a_wrong_request_is_no_case_for_a_fallback():
    """Whoever asks wrongly is told so."""
    with pytest.raises(InputError, match="must"):
        decide(scores(0.5), features=Stage(InputError("a derived feature must have its inputs", where="x")))


def test_past_its_deadline_nothing_is_computed():
    """Neither features nor score, when it has passed on arrival; no score, when the features took too long."""
    features, model = values(4), scores(0.1)
    record = decide(model, features=features, fallback=["look"], age_ns=11 * 10**9)
    assert (record.decision, record.error, features.uses, model.uses) == ("look", "TimeoutError", 0, 0)
    slow, model = values(4), scores(0.1)
    slow.delay = 0.06
    record = decide(model, features=slow, fallback=["rules"], deadline="50ms")
    assert answer(record) == ("warn", "busy", "rules", "TimeoutError", *NOBODY)
    assert (slow.uses, model.uses) == (1, 0)


def test_reasons_that_fail_leave_the_decision():
    """The stand-in for a model explains nothing: the record says so."""
    record = decide(scores(0.5), explain=True)
    assert (record.decision, record.fallback, record.explained) == ("look", None, True)
    assert record.reasons == ["The reasons could not be computed"]


def test_the_model_that_scored_gives_the_reasons():
    """After a fallback that is the previous version, in the words of the policy."""
    engine = LinearEngine(0.0, (NumberTerm(mean=0.0, scale=1.0, weight=2.0),))
    before = ModelArtifact("m", InputSpec.learn({NAME: [0.0, 1.0]}), engine)
    definition = Policy("p", MODEL, decide={"ok": "otherwise"}, fallback=["previous_version"], deadline="10s",
                        reasons={NAME: "{value} departures, which {direction} the score"})  # fmt: skip
    servant = Servant(
        REVISION, CompiledPolicy(definition, [NAME], ["origin"]), reader(values(1)),
        SimpleNamespace(score_row=BROKEN, on_server=False), RequestSchema({"origin": "text"}, {}), previous=before,
    )  # fmt: skip
    request = DecisionRequest({"origin": "JFK"}, explain=True)
    record = servant.decide(request, decision_id="0" * 26, at=5, arrived_ns=time.perf_counter_ns())
    assert (record.fallback, record.model) == ("previous_version", "m@1")
    assert record.reasons == ["1 departures, which raises the score"]


def test_a_decision_without_a_score_has_that_as_its_reason():
    """When asked; a rule's reason stands before it."""
    assert decide(BROKEN, fallback=["ok"], explain=True).reasons == [
        "No model scored this request; the policy's fallback decided"
    ]
    assert decide(BROKEN, fallback=["ok"]).reasons == []


def on_server(read_many, watermarks, **policy):
    """A servant whose features are on a server, which only ``prepare`` may ask."""
    definition = Policy("p", MODEL, decide={"warn": "score >= 0.6", "ok": "otherwise"}, fallback=["ok"],
                        **{"deadline": "10s", **policy})  # fmt: skip
    view, read = SimpleNamespace(name="origin", view=SimpleNamespace(version="v1")), Stage(AssertionError())
    features = reader(read, [view])
    features.on_server, features.read_many, features.watermarks = True, read_many, watermarks
    model = SimpleNamespace(score_row=scores(0.9), score_each=Stage([Score(0.5, 0.9, {"score": 0.9})]), row_of=None,
                            on_server=False)  # fmt: skip
    return Servant(REVISION, CompiledPolicy(definition, [NAME], ["origin"]), features, model,
                   RequestSchema({"origin": "text"}, {})), read  # fmt: skip


def prepared(servant):
    question, begun = DecisionRequest({"origin": "JFK"}), time.perf_counter_ns()
    (case,) = servant.prepare([question], at=5, deadline=servant.deadline(begun))
    return servant.decide(question, decision_id="0" * 26, at=5, arrived_ns=begun, ready=case)


def test_a_server_that_failed_is_not_asked_again_by_the_decision():
    """The decision is made on the event loop, where nobody may wait for it."""
    marks = Stage({})
    servant, read = on_server(Stage(ServerAwayError("it must answer")), marks)
    record = prepared(servant)
    assert answer(record) == ("ok", None, "ok", "ServerAwayError", None, "", "")
    assert record.views == {"origin": {"status": "not_read", "age_s": None}}
    assert (read.uses, marks.uses) == (0, 0)


def test_what_is_doubted_of_a_row_is_read_with_it():
    """One read of the watermarks for all rows, and none by the decision."""
    marks = Stage({"origin": None})
    row = SimpleNamespace(values={NAME: 1}, statuses={"origin": "unseen"}, places={}, newest=None)
    servant, read = on_server(Stage([row]), marks)
    record = prepared(servant)
    assert (record.decision, record.score, record.error) == ("warn", 0.9, None)
    assert record.views == {"origin": {"status": "unseen", "age_s": None}}
    assert (read.uses, marks.uses) == (0, 1)


def test_a_server_that_falls_back_with_every_answer_writes_one_line_a_second(monkeypatch, caplog):
    """The line says how many like it were not written; another error has a line of its own."""
    moments = iter([now := time.monotonic() + 2, *[now + 0.5] * 9, now + 0.9, now + 0.9, now + 1.5, now + 1.5])
    monkeypatch.setattr("retrodict.core.log_lines.monotonic", lambda: next(moments))
    broken = scores(OverflowError("broken"))
    for _ in range(9):  # the first looks at the time twice
        decide(broken, fallback=["look"])
    decide(scores(ServerAwayError("away")), fallback=["look"])
    assert caplog.messages == ["policy p falls back: OverflowError", "policy p falls back: away."]
    caplog.clear()
    decide(broken, fallback=["look"])
    assert caplog.messages == ["policy p falls back: OverflowError (and 8 times more before)"]
