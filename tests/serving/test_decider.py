"""Deciding in process: the same record as over HTTP, durable before it returns, from threads and event loops."""

import asyncio
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import pandas as pd
import pytest

from retrodict.core.clock import parse_time
from retrodict.core.errors import InputError, NotFoundError, RetrodictError, RetryableError
from retrodict.decisions import (
    check_parity,
    prove_decision,
    read_decisions,
    read_proof,
    replay_decision,
    seal_decisions,
    seals,
)
from retrodict.decisions.facts import same_value
from retrodict.decisions.loader import Loader
from retrodict.decisions.records import encode_record
from retrodict.decisions.requests import DecisionRequest
from retrodict.project.ledger import Ledger
from retrodict.registry import change, current
from retrodict.rollout import deploy
from retrodict.serving import Decider
from retrodict.workspace import Workspace

VALUES = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}
AT = parse_time("2024-02-20T10:00Z")


@pytest.fixture
def decider(project):
    with Decider(project) as opened:
        yield opened


def comparable(record):
    """Record without what differs from one decision to the next."""
    return msgspec.structs.replace(record, id="", stages={})


def test_the_record_is_the_one_that_a_server_would_write(project, decider):
    """Same checks, same servant, same record, explained and with its key."""
    servant = Loader(project).load(current(project)["promise"])
    context = {name: value for name, value in VALUES.items() if name != "depot"}
    request = DecisionRequest({"depot": "north"}, context, "p1", explain=True)
    served = servant.decide(request, decision_id="0" * 26, at=AT, arrived_ns=2**62)
    record = decider.decide("promise", VALUES, key="p1", explain=True, at=AT)
    assert comparable(record) == comparable(served)
    assert record.score is not None
    assert record.reasons
    assert record.key == "p1"


def test_the_reason_of_a_rule_stands_before_those_of_the_model(decider):
    """The rule decided; what moved the score comes after it, and only when asked for."""
    heavy = {**VALUES, "weight": 95.0}
    assert decider.decide("promise", heavy, at=AT).reasons == ["Over 90 kg"]
    explained = decider.decide("promise", heavy, explain=True, at=AT).reasons
    assert explained[0] == "Over 90 kg"
    assert len(explained) > 1
    assert "Over 90 kg" not in explained[1:]


def test_a_decision_is_in_the_log_when_it_returns(project, decider):
    """Another reader sees it at once; sealed, it can be proved and replayed."""
    record = decider.decide("promise", VALUES, at=AT)
    logged = [item for item in read_decisions(project) if item.record.id == record.id]
    assert [item.record for item in logged] == [record]
    assert seal_decisions(project).busy == [logged[0].stream]
    decider.close()
    assert all(segment.closed for segment in project.streams.segments(logged[0].stream))
    assert seal_decisions(project).busy == []
    assert prove_decision(project, f"decision:{record.id}").ok
    assert replay_decision(project, record.id).exact


@pytest.mark.parametrize("path", [[], ["00" * 32]])
def test_a_proof_that_does_not_lead_to_the_root_does_not_hold(project, decider, monkeypatch, path):
    """Too short a way, and one over another hash; the true one holds."""
    record, _ = (decider.decide("promise", VALUES, at=AT) for _ in range(2))
    decider.close()
    seal_decisions(project)
    assert prove_decision(project, record.id).ok
    own = seals.prove
    monkeypatch.setattr(seals, "prove", lambda *given: replace(own(*given), path=path))
    forged = prove_decision(project, record.id)
    assert forged.reason == "the record does not lead to the root that the entry sealed"
    assert not forged.ok


def test_a_proof_may_say_what_was_decided(project, decider, tmp_path):
    """Only if it is asked to: the bytes give the leaf, so none but these pass, and the checker reads them."""
    record = decider.decide("promise", VALUES, at=AT)
    decider.close()
    seal_decisions(project)
    plain, whole = (prove_decision(project, record.id, record=asked) for asked in (False, True))
    assert "bytes" not in plain.document["record"]
    assert plain.content is None
    assert whole.content == record.answer()
    assert record.id in str(whole)
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(whole.document))
    assert Ledger.check(file, public_key=project.ledger.public_key.upper()).content == record.answer()
    document = json.loads(file.read_text())
    document["record"]["bytes"] = document["record"]["bytes"].replace(b"ok".hex(), b"no".hex())
    assert document != whole.document
    forged = read_proof(document, project.ledger.public_key)
    assert (forged.reason, forged.content) == ("the bytes of the record do not give its leaf", None)
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match="a proof must be a JSON file"):
        Ledger.check(file, public_key="00")


def test_a_decision_survives_kill_9(deployed, project):
    """A process that dies right after ``decide`` returned has lost nothing."""
    code = ("import os, sys; from retrodict.workspace import Workspace; from retrodict.serving import Decider\n"
            "record = Decider(Workspace(sys.argv[1])).decide('promise', eval(sys.argv[2]))\n"
            "print(record.id, flush=True); os.kill(os.getpid(), 9)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, str(deployed), repr(VALUES)], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert done.stdout.strip() in {item.record.id for item in read_decisions(project)}


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({"sent": datetime(2024, 2, 20, 10, tzinfo=UTC)}, {}),
        ({"sent": pd.Timestamp("2024-02-20T11:00+01:00")}, {}),
        ({"sent": np.datetime64("2024-02-20T10:00")}, {}),
        ({"weight": np.float64(12.5), "express": np.bool_(False), "depot": np.str_("north")}, {}),
        ({"extra": np.int64(7)}, {"extra": 7}),
        ({"weight": float("nan")}, {"weight": None}),
        ({"weight": pd.NA, "sent": pd.NaT}, {"weight": None, "sent": None}),
    ],
)
def test_values_may_be_scalars_of_numpy_and_pandas(decider, changes, context):
    """They are what their plain form would be."""
    record = decider.decide("promise", {**VALUES, **changes}, at=AT)
    assert record.entities == {"depot": "north"}
    assert record.context == {"weight": 12.5, "express": False, "sent": AT, **context}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({name: VALUES[name] for name in ("weight", "express", "sent")}, "'depot'"),
        ({**VALUES, "weight": "heavy"}, "'weight'"),
        ({**VALUES, "weight": float("inf")}, "'weight'"),
        ({**VALUES, "sent": datetime(2024, 2, 20)}, "'sent'"),  # noqa: DTZ001  # without a zone
        ({**VALUES, "note": ["x"]}, "list"),
        ({**VALUES, "note": object()}, "object"),
        ({**VALUES, "note": 2**70}, "64 bits"),
        ({**VALUES, "note": 2**63}, "64 bits"),
        ({**VALUES, "note": "\ud800"}, "text"),
    ],
)
def test_wrong_values_are_refused_and_leave_no_record(project, decider, values, text):
    """The schema's own error; nothing is logged."""
    before = len(list(read_decisions(project)))
    with pytest.raises(InputError, match=text):
        decider.decide("promise", values, at=AT)
    assert len(list(read_decisions(project))) == before


@pytest.mark.parametrize(("ahead_min", "is_refused"), [(5, False), (6, True)])
def test_a_moment_that_has_not_been_is_refused(project, decider, ahead_min, is_refused):
    """A record of tomorrow would count in what is measured then; clocks may differ by five minutes."""
    at = project.clock.now() + ahead_min * 60_000_000
    with pytest.raises(InputError, match="as of now or a moment before") if is_refused else nullcontext():
        decider.decide("promise", VALUES, at=at)


def test_an_unknown_policy_names_the_near_ones(decider):
    """A typing error is answered with what there is."""
    with pytest.raises(NotFoundError, match="'promise'"):
        decider.decide("promis", VALUES)


def test_it_works_in_a_running_event_loop_and_in_threads(project, decider):
    """Every decision is logged once, in one stream."""

    async def one():
        return decider.decide("promise", VALUES, at=AT).id

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(decider.decide, "promise", VALUES, at=AT) for _ in range(20)]
        ids = [asyncio.run(one()), *(future.result().id for future in futures)]
    logged = [item for item in read_decisions(project) if item.record.id in ids]
    assert len({item.record.id for item in logged}) == len(logged) == 21
    assert len({item.stream for item in logged}) == 1


def test_a_new_revision_counts_from_the_next_decision_on(project, decider):
    """Nobody has to open anything again."""
    before = decider.decide("promise", VALUES, at=AT)
    revision = deploy(project, "promise", reason="again")
    assert decider.decide("promise", VALUES, at=AT).revision == revision.revision > before.revision


def test_logged_features_equal_those_of_the_tables(project, decider):
    """Parity over what was decided here; a null compares with a null, an altered value is named."""
    at = AT + 5_000_000  # other tests leave altered decisions at AT
    records = [
        decider.decide("promise", {**VALUES, "depot": depot}, at=at) for depot in ("north", "east", "nowhere", None)
    ]
    report = check_parity(project, "promise", start=at, end=at + 1)
    assert (report.mismatches, report.decisions) == (0, len(records))
    altered = {**records[0].features, "depot_delays__count_24h": -1.0}
    decider._writer.append([encode_record(msgspec.structs.replace(records[0], time=at + 1, features=altered))])
    report = check_parity(project, "promise", start=at + 1, end=at + 2)
    assert report.by_feature == {"depot_delays__count_24h": 1}
    assert report.examples[0]["logged"] == -1.0


@pytest.mark.parametrize(
    ("change_to", "reason"),
    [
        ({"score": 0.123}, "differs in answer"),
        ({"reasons": ["It is late"]}, "differs in answer"),
        ({"features": {"size__weight": 1.0}}, "differs in features"),
    ],
)
def test_a_replay_sees_what_was_altered(project, decider, change_to, reason):
    """The answer with its reasons and every feature value are computed again, each compared."""
    record = decider.decide("promise", VALUES, explain=True, at=AT)
    assert replay_decision(project, record.id).exact
    if "features" in change_to:
        change_to = {"features": {**record.features, **change_to["features"]}}
    altered = msgspec.structs.replace(record, id=project.new_id(), **change_to)
    decider._writer.append([encode_record(altered)])
    replay = replay_decision(project, altered.id)
    assert (replay.verdict, replay.reason) == ("different", reason)
    assert [mismatch["feature"] for mismatch in replay.feature_mismatches] == ["size__weight"] * (
        "features" in change_to
    )


def test_what_a_fallback_decided_without_a_score_is_not_replayed(project, decider):
    """There is nothing to compute again, and the replay says so."""
    record = decider.decide("promise", VALUES, at=AT)
    fallen = msgspec.structs.replace(record, id=project.new_id(), score=None, raw=None, model="", artifact="",
                                     fallback="ok", error="TimeoutError")  # fmt: skip
    decider._writer.append([encode_record(fallen)])
    replay = replay_decision(project, fallen.id)
    assert (replay.verdict, "TimeoutError" in replay.reason) == ("not replayable", True)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(None, float("nan"), True), (3, 3.0, True), (None, 0, False), ("3", 3, False), (0.1 + 0.2, 0.3, False)],
)
def test_values_are_the_same_to_the_bit(left, right, same):
    """Null and NaN are one absence; a number is no text."""
    assert same_value(left, right) == same_value(right, left) == same


def test_a_revision_that_cannot_be_loaded_leaves_the_earlier_one_in_charge(project, decider, caplog):
    """As over HTTP; it is logged once."""
    before = decider.decide("promise", VALUES, at=AT)
    good = current(project)["promise"].deployment
    change(project, replace(good, artifact="0" * 64), action="deploy", reason="broken")
    try:
        assert [decider.decide("promise", VALUES, at=AT).revision for _ in range(2)] == [before.revision] * 2
        assert caplog.text.count("a new revision cannot be loaded") == 1
        with pytest.raises(RetrodictError, match=r"0{12}"):  # and not that nothing is deployed
            Decider(project).decide("promise", VALUES, at=AT)
    finally:
        change(project, good, action="deploy", reason="whole again")


def test_one_that_cannot_be_loaded_is_not_said_to_be_missing(project, tmp_path):
    """Though another policy decides as ever, before and after."""
    shutil.copytree(project.root, tmp_path, dirs_exist_ok=True)
    with Workspace(tmp_path, actor="ana") as other, Decider(other) as decider:
        good = current(other)["promise"].deployment
        change(other, replace(good, policy="another"), action="deploy", reason="not what it was made for")
        for _ in range(2):
            assert decider.decide("promise", VALUES, at=AT).fallback is None
            with pytest.raises(NotFoundError, match="the project must define this policy"):
                decider.decide("another", VALUES, at=AT)


def test_values_that_nothing_reads_are_logged_once(project, decider, caplog):
    """By their names; again when they are others."""
    for more in ({"wieght": 1}, {"wieght": 2}, {}, {"colour": 1, "wieght": 2}):
        decider.decide("promise", {**VALUES, **more}, at=AT)
    lines = [record.getMessage() for record in caplog.records if "nothing that decides reads" in record.getMessage()]
    near = "nothing that decides reads 'wieght' of the context; did you mean 'weight'?"
    colour = "nothing that decides reads 'colour' of the context"
    assert [line.partition(": ")[2] for line in lines] == [near, f"{colour}; {near}"]


def test_a_full_disk_gives_no_decision(project, decider):
    """What cannot be made durable is not returned."""
    decider.decide("promise", VALUES, at=AT)
    writer, decider._writer._writer = decider._writer._writer, Full()
    with pytest.raises(RetryableError, match="no answer is given"):
        decider.decide("promise", VALUES, at=AT)
    decider._writer._writer = writer


class Full:
    """A writer whose disk is full."""

    def append(self, records):
        raise OSError(28, "No space left on device")


def test_cases_without_a_decision_are_counted(project):
    """By policy and kind of the error: those that fail alone, and those that fail together."""
    good = {"depot": "north", "weight": 1.0, "express": False, "sent": "2024-02-20T10:00Z"}
    with Decider(project) as decider:
        decider.decide_many("promise", [good, good | {"weight": "x"}, {}])
        with pytest.raises(InputError):
            decider.decide("promise", {})
        with pytest.raises(NotFoundError):
            decider.decide_many("promises", [good, good])
        assert decider.failures == {("promise", "InputError"): 3, ("promises", "NotFoundError"): 2}
