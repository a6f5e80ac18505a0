"""Each stage of a decision by itself, without the others; and put together by hand they give what a servant gives."""

import asyncio
import json
from time import perf_counter_ns

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.conftest import MODEL
from tests.serving.project import AT, REQUEST

from retrodict import Policy
from retrodict.core.clock import parse_time
from retrodict.core.errors import DefinitionError, InputError
from retrodict.decisions import Loader, read_decisions, requests
from retrodict.decisions.compiled import CompiledPolicy
from retrodict.decisions.loader import load_policy
from retrodict.decisions.recorder import Recorder
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.decisions.requests import DecisionRequest, RequestSchema, decode_request
from retrodict.features.online import online_features
from retrodict.models.artifact import ModelArtifact
from retrodict.models.explain import explain_row, reason_texts
from retrodict.registry import current
from retrodict.registry.feature_sets import feature_set_of
from retrodict.serving.telemetry import Telemetry

MOMENT = parse_time(AT["Retrodict-Time"])
SCHEMA = RequestSchema({"origin": "text", "customer": "int"}, {"due": "time", "amount": "number", "vip": "bool"})
SECRET = "s3cret"
NESTED = ([SECRET], {SECRET: SECRET})
WRONG = {
    "origin": (1, True, *NESTED), "customer": (SECRET, True, 1.5, 2**63, *NESTED),
    "due": (SECRET, 5, True, "1899-12-31T00:00Z", "2013-09-01T18:00", *NESTED),
    "amount": (SECRET, True, *NESTED), "vip": (SECRET, 1, *NESTED),
}  # fmt: skip
RIGHT = {"origin": "JFK", "customer": 7, "due": "2013-09-01T18:00Z", "amount": 1.5, "vip": False}
FIELDS = {**dict.fromkeys(SCHEMA.entities, "entities"), **dict.fromkeys(SCHEMA.context, "context")}
MORE = {  # faults of their own, each with what has to be said of it
    "a field": ({"zz" + SECRET: 1}, "no other fields"),
    "a key": ({"key": 5}, "body, field 'key'"),
    "explain": ({"explain": SECRET}, "body, field 'explain'"),
}


@st.composite
def faulty(draw):
    """A body, and the places that are wrong in it."""
    body, places = {"entities": {}, "context": {}}, []
    for name, field in FIELDS.items():
        state = draw(st.sampled_from(["right", "right", "null", "missing", "wrong"]))
        if state == "missing":
            places.append(f"the request must have {field} {name!r}")
            continue
        if state == "wrong":
            places.append(f"body, {field}, {name!r}")
        value = {"right": RIGHT[name], "null": None}.get(state)
        body[field][name] = draw(st.sampled_from(WRONG[name])) if state == "wrong" else value
    for name in draw(st.sets(st.sampled_from(sorted(MORE)))):
        body |= MORE[name][0]
        places.append(MORE[name][1])
    if draw(st.booleans()):
        body["entities"]["zz" + SECRET] = 1
        places.append("entities must be out of")
    if draw(st.booleans()):
        body["context"]["zz" + SECRET] = draw(st.sampled_from(NESTED))
        places.append("1 lists or objects")
    if draw(st.booleans()):
        body["context"]["long"] = 2**64
        places.append("64 bits at most")
    return json.dumps(dict(draw(st.permutations(list(body.items()))))).encode(), places


@given(faulty())
def test_the_check_names_all_that_is_wrong_and_nothing_else(case):
    """Of form and of values, whatever comes together; and nothing of what was sent."""
    body, places = case
    if not places:
        assert SCHEMA.check(decode_request(body, SCHEMA))
        return
    with pytest.raises(InputError) as caught:
        SCHEMA.check(decode_request(body, SCHEMA))
    text = str(caught.value)
    assert [place for place in places if place not in text] == []
    assert SECRET not in text
    assert f"got '{len(places)} faults'" in text if len(places) > 1 else "faults" not in text


@pytest.mark.parametrize(
    ("body", "faults"),
    [(b'{"context": 7}', 7), (b"{}", 6), (b'{"entities": null, "context": null}', 7),
     (b'{"entities": {"origin": "a", "origin": "b", "customer": 1}}', 4)],
)  # fmt: skip
def test_where_a_field_is_missing_its_values_are_too(body, faults):
    """The caller learns all names at once; a name that stands twice hides none of the others."""
    with pytest.raises(InputError, match=f"got '{faults} faults'"):
        decode_request(body, SCHEMA)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"entities": {"a": 1e999}}', b"[" * 900 + b"]" * 900,
                                  b'{"entities": ' + b"[" * 900 + b"]" * 900 + b"}"])  # fmt: skip
def test_what_cannot_be_read_is_one_fault(body):
    """Nothing more can be known of it; however deep it goes it is the caller's error."""
    with pytest.raises(InputError):
        decode_request(body, SCHEMA)


def test_a_flood_of_names_is_not_compared(monkeypatch):
    """Each missing name with each other one: a body of 60 KB would hold up a server for seconds."""
    compared = []
    monkeypatch.setattr(requests, "get_close_matches", lambda _, names: compared.append(len(names)) or [])
    body = {"entities": {}, "context": {f"dve{number}": 1 for number in range(2_000)}}
    with pytest.raises(InputError, match="got '5 faults'"):
        SCHEMA.check(decode_request(json.dumps(body).encode(), SCHEMA))
    assert sum(compared) <= 20


def test_reasons_that_are_never_given_are_refused_beside_the_rest():
    """With explain="never"; the schema knows it."""
    schema = RequestSchema({"origin": "text"}, {}, explains=False)
    assert schema.check(DecisionRequest({"origin": "JFK"})) == ({"origin": "JFK"}, {})
    with pytest.raises(InputError, match=r"field 'explain': reasons must be asked of a policy.*got '2 faults'"):
        schema.check(DecisionRequest({}, explain=True))


@pytest.mark.parametrize(
    ("rule", "explained"),
    [("asked", []), (None, []), ("always", ["warn", "ok"]), ("never", []), (["warn"], ["warn"]), ((), [])],
)
def test_a_policy_says_which_decisions_are_explained(rule, explained):
    """Beside those that somebody asks for; "asked" is no setting, so it changes no hash."""
    decide = {"warn": "score >= 0.6", "ok": "otherwise"}
    policy = Policy("p", MODEL, decide=decide, explain=rule)
    assert [decision for decision in decide if policy.explains(decision)] == explained
    assert (policy.version == Policy("p", MODEL, decide=decide).version) == (rule in ("asked", None, ()))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"explain": "alway"}, "Did you mean the word 'always'"),
        (
            {"explain": ["warm"], "decide": {"warn": "score >= 0.5", "ok": "otherwise"}},
            "Did you mean the decision 'warn'",
        ),
        ({"explain": ["warn"]}, "There is no decision yet"),
        ({"fallback": ["rules"]}, "a fallback must be"),
        ({"fallback": ["ok"]}, "a fallback must be"),
        ({"decide": {"warn": "score >= 0.5"}}, "only it, must be for 'otherwise'"),
    ],
)
def test_a_policy_that_cannot_mean_anything_is_refused(settings, text):
    """Without decisions there is none to fall back to or to explain."""
    with pytest.raises(DefinitionError, match=text):
        Policy("p", MODEL, **settings)


def test_the_stages_are_told_in_their_order():
    """With what sets each; the words are what 'retrodict policies show' prints."""
    policy = Policy("p", MODEL, cache="5m", record="async", personal=["amount"], explain="never")
    assert list(policy.stages) == ["check", "features", "score", "decide", "explain", "record", "metrics"]
    assert [policy.stages[name] for name in ("score", "decide", "explain", "record")] == [
        "a row once in 5m", "nothing: the score is the answer", "never", "async, without amount"]  # fmt: skip


def test_the_stages_by_hand_give_what_a_servant_gives(project):
    """Each is called with nothing but what the ones before it gave: a servant adds no more than the order."""
    deployed = current(project)["promise"].deployment
    model = ModelArtifact.load(project.objects, deployed.artifact)
    kinds = model.metadata["request"]
    schema = RequestSchema(kinds["entities"], kinds["context"])
    features = online_features(project, feature_set_of(project, deployed.model_code, model.name, model.inputs.names))
    policy = CompiledPolicy(
        load_policy(project, deployed), features.features.columns, [*schema.entities, *schema.context], model.outputs
    )
    servant = Loader(project).load(current(project)["promise"])
    for depot, weight in (("north", 1.0), ("east", 70.0), ("nowhere", 95.0), (None, 5.0)):
        body = {**REQUEST, "entities": {"depot": depot}, "context": {**REQUEST["context"], "weight": weight}}
        question = decode_request(json.dumps({**body, "explain": True}).encode())
        entities, context = schema.check(question)
        values = features.read(entities, context, at=MOMENT).values
        scored = model.score_row(values)
        known = {**context, **entities, **values}
        decision = policy.decide(known, scored.outputs)
        reasons = [*([decision.reason] if decision.reason else []), *reason_texts(explain_row(model, known, top=4))]
        record = servant.decide(question, decision_id="0" * 26, at=MOMENT, arrived_ns=perf_counter_ns())
        assert (record.features, record.score, record.decision, record.reasons) == (
            values, scored.score, decision.decision, reasons)  # fmt: skip


def test_a_record_and_a_count_need_no_decision(project):
    """The log takes what it is given, and the counters count what they are told."""
    record = DecisionRecord(
        id="01J00000000000000000000001", time=1, policy="alone", revision=1, policy_version="v", code="c", model="m@1",
        artifact="a", model_code="mc", entities={}, context={}, features={}, score=0.25, schema=3,
    )  # fmt: skip

    async def write():
        recorder = Recorder(project)
        await recorder.write(encode_record(record))
        await recorder.close()

    asyncio.run(write())
    (logged,) = [one.record for one in read_decisions(project, policy="alone")]
    assert logged == record
    assert logged.answer() == {"decision_id": record.id, "score": 0.25, "model": "m@1", "policy": "alone#1"}
    telemetry = Telemetry()
    telemetry.count("decisions_total", 'policy="alone"')
    telemetry.observe("score", 250)
    assert 'retrodict_decisions_total{policy="alone"} 1' in telemetry.exposition()
