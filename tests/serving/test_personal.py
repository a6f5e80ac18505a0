"""Values that a policy calls personal: nowhere on the disk, and what that costs is said."""

import json
from hashlib import blake2b

import pytest
from tests.serving.project import AT, DEFINITIONS, REQUEST, make_project
from tests.serving.test_app import BODY, SIMULATED, call

from retrodict import Policy, Project
from retrodict.core.clock import parse_time
from retrodict.core.errors import DefinitionError
from retrodict.decisions import check_parity, decisions_table, find_decision, replay_decision, trace_decision
from retrodict.decisions.loader import Loader
from retrodict.rollout import deploy
from retrodict.serving import Decider
from retrodict.workspace import Workspace

FEATURE, WEIGHT = "depot_delays__mean_delay_7d", 12.375
QUESTION = {**REQUEST, "explain": True, "context": {**REQUEST["context"], "weight": WEIGHT}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project that hides a value of the context in one policy, and a feature of a view in another."""
    folder = tmp_path_factory.mktemp("personal")
    make_project(folder).close()
    more = "".join(
        f'\n{name} = Policy("{name}", late_parcel, decide={{"warn": "score >= 0.5", "ok": "otherwise"}}, '
        f'rules=[Rule("heavy", when="weight > 90", then="warn", reason="Over 90 kg")], deadline="5s", personal={names})'
        for name, names in {"context": ["weight", "size__weight"], "feature": [FEATURE]}.items()
    )
    (folder / "definitions.py").write_text(DEFINITIONS + more)
    with Workspace(folder, actor="ana") as workspace:
        for name in ("context", "feature"):
            deploy(workspace, name, reason="test")
    return folder


@pytest.fixture
def workspace(root):
    with Workspace(root, actor="ana") as opened:
        yield opened


def decide(workspace, policy, body=QUESTION, *, key=None):
    """Answer over HTTP."""
    headers = [*SIMULATED, *([(b"idempotency-key", key)] if key else [])]
    ((status, _, answer),) = call(workspace, ("POST", f"/v1/decisions/{policy}", json.dumps(body).encode(), headers))
    assert status == 200
    return json.loads(answer)


def in_files(root, text):
    """Files of the project's state that hold a text."""
    state = root / "state"
    return [path for path in state.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_a_value_of_the_context_is_in_no_record(workspace, root):
    """Over HTTP and in Python: the caller's answer is the same, the log has a digest, equal for equal ones."""
    open_answer, answer = decide(workspace, "promise"), decide(workspace, "context")
    assert (answer["score"], answer["decision"]) == (open_answer["score"], open_answer["decision"])
    record = find_decision(workspace, f"decision:{answer['decision_id']}").record
    assert record.masked == ("weight", "size__weight")
    assert record.context["weight"].startswith("masked ")
    assert record.features["size__weight"] == record.context["weight"]
    assert (record.schema, record.context["express"]) == (2, False)
    assert "12.375" in str(open_answer["reasons"]) + str(decide(workspace, "promise")["reasons"])
    assert "12.375" not in str(answer["reasons"])
    values = {**QUESTION["entities"], **QUESTION["context"]}
    with Decider(workspace) as decider:
        again = decider.decide("context", values, at=parse_time(AT["Retrodict-Time"]))
        other = decider.decide("context", {**values, "weight": 12.5}, at=parse_time(AT["Retrodict-Time"]))
    masks = [find_decision(workspace, f"decision:{one.id}").record.context["weight"] for one in (again, other)]
    assert (masks[0] == record.context["weight"], masks[0] == masks[1]) == (True, False)
    assert blake2b(str(WEIGHT).encode(), digest_size=8).hexdigest() not in str(masks)  # else anybody could try values
    assert again.context["weight"] == WEIGHT  # whoever asked knows it


def test_nothing_of_it_is_in_the_files_of_a_project(workspace, root):
    """Neither where it was decided, nor where it failed, nor where it is repeated."""
    value = 77.0625
    body = {**QUESTION, "context": {**QUESTION["context"], "weight": value}}
    decide(workspace, "context", body, key=b"once")
    decide(workspace, "context", body, key=b"once")
    wrong = json.dumps({**body, "key": 5}).encode()
    ((status, _, _),) = call(workspace, ("POST", "/v1/decisions/context", wrong))
    assert status == 400
    import struct

    for text in (b"77.0625", struct.pack(">d", value), struct.pack("<d", value)):
        assert in_files(root, text) == []


def test_a_replay_says_what_is_missing(workspace):
    """Of a value that came with the request; lineage still lists what was read."""
    ref = f"decision:{decide(workspace, 'context')['decision_id']}"
    replay = replay_decision(workspace, ref)
    assert replay.verdict == "not replayable"
    assert "being personal: weight;" in replay.reason
    traced = {one["feature"]: one["value"] for one in trace_decision(workspace, ref)["features"]}
    assert traced["size__weight"].startswith("masked ")
    report = check_parity(workspace, "context")
    assert (report.decisions, report.not_compared > 0) == (0, True)


def test_a_feature_that_is_hidden_is_replayed_all_the_same(workspace, root):
    """It is read again from the tables, and its digest must be the recorded one; without the secret that is said."""
    ref = f"decision:{decide(workspace, 'feature')['decision_id']}"
    record = find_decision(workspace, ref).record
    assert record.features[FEATURE].startswith("masked ")
    replay = replay_decision(workspace, ref)
    assert (replay.verdict, replay.reason, replay.features) == ("exact", "", len(record.features))
    secret = root / "state" / "failures" / "key"
    kept = secret.read_bytes()
    try:
        secret.write_bytes(bytes(32))
        without = replay_decision(workspace, ref)
    finally:
        secret.write_bytes(kept)
    assert (without.verdict, without.features) == ("exact", len(record.features) - 1)
    assert f"a secret that is gone, and not compared: {FEATURE}" in without.reason


def test_another_value_is_told_by_its_digest(workspace, monkeypatch):
    """A feature whose row was changed since differs, though nobody sees what it was."""
    ref = f"decision:{decide(workspace, 'feature')['decision_id']}"
    from retrodict.decisions import replay as module

    values = module.replay_values
    monkeypatch.setattr(module, "replay_values", lambda *these: {**values(*these), FEATURE: 99.0})
    replay = replay_decision(workspace, ref)
    assert replay.verdict == "different"
    assert [row["feature"] for row in replay.feature_mismatches] == [FEATURE]
    assert "99.0" not in str(replay.feature_mismatches)


def test_tables_and_exports_have_what_the_log_has(workspace, root):
    """A digest in the place of a value of the context; a hidden feature has no column, so that nobody counts nulls."""
    decide(workspace, "context")
    table = decisions_table(workspace, "context")
    assert "size__weight" not in table.column_names
    assert all(value.startswith("masked ") for value in table["context__weight"].to_pylist())
    with Project(root) as project:
        lines = "".join(map(str, project.decisions.lines("context")))
    assert ("masked " in lines, str(WEIGHT) in lines) == (True, False)


def test_a_warm_cache_takes_no_row_that_it_cannot_know(workspace):
    """A record of the log whose features are hidden names no row."""
    from retrodict.decisions.score_cache import ScoreCache
    from retrodict.models.artifact import ModelArtifact

    answer = decide(workspace, "context")
    record = find_decision(workspace, f"decision:{answer['decision_id']}").record
    cache = ScoreCache(ModelArtifact.load(workspace.objects, record.artifact), record.artifact, features="",
                       clock=workspace.clock, max_age="1h", size=10, shared="")  # fmt: skip
    cache.warm([record])
    assert len(cache._kept) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"personal": ["depot"]}, "and no key"),
        ({"personal": ["wieght"]}, "Did you mean the name 'weight'"),
        ({"personal": ["size__weight"], "reasons": {"size__weight": "{value} kg"}}, "must not say what is personal"),
        ({"personal": ["weight"], "reasons": {"size__express": "with {weight}"}}, "must not say what is personal"),
    ],
)
def test_what_cannot_be_hidden_is_refused(workspace, options, message):
    """Keys, names that are not there, and words that would say it."""
    model = workspace.definitions.get(Policy, "promise").model
    with pytest.raises(DefinitionError, match=message):
        Policy("other", model, decide={"warn": "score >= 0.5", "ok": "otherwise"}, **options).check()


def test_a_policy_without_anything_personal_is_what_it_was(workspace):
    """Its version and the form of its records."""
    assert Loader(workspace).load_current()["promise"].policy.policy.personal == ()
    record = find_decision(workspace, f"decision:{decide(workspace, 'promise')['decision_id']}").record
    assert (record.masked, record.schema, record.context["weight"]) == ((), 1, WEIGHT)
    assert json.loads(BODY)["context"]["weight"] == 12.5
