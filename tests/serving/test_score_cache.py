"""Cached scores: never of another model, revision or value; recorded, replayed and bounded as any other."""

import gc
import random
import time
import weakref
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.project import DEFINITIONS, REQUEST, make_project
from tests.serving.test_app import DECIDE, call

from retrodict.core.clock import parse_time
from retrodict.core.errors import MissingExtraError, RefusedError
from retrodict.decisions import find_decision, replay_decision
from retrodict.decisions.loader import Loader
from retrodict.learning import train
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import approve, current
from retrodict.rollout import deploy, promote, rollback
from retrodict.serving import Decider
from retrodict.workspace import Workspace

NOW = parse_time("2024-02-20T10:00Z")
VALUES = {"depot": "north", "weight": 12.5, "express": False, "sent": "2024-02-20T10:00Z"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose policy has a cache, with two versions of its model that score differently."""
    folder = tmp_path_factory.mktemp("cached")
    make_project(folder).close()
    text = DEFINITIONS.replace('deadline="5s"', 'deadline="5s", cache="1h"')
    (folder / "definitions.py").write_text(text.replace('calibrate="sigmoid"', 'calibrate="isotonic"'))
    with Workspace(folder, actor="ana") as workspace:
        _, version = train(workspace, "late_parcel")
        approve(Workspace(folder, actor="ben"), version.ref, reason="test")
        deploy(workspace, "promise", reason="with a cache")
    return folder


@pytest.fixture
def workspace(root):
    with Workspace(root, actor="ana") as opened:
        yield opened


def decide(decider, **changes):
    return decider.decide("promise", {**VALUES, **changes}, at=NOW)


def test_the_second_score_is_the_first_one_and_has_a_record_of_its_own(workspace):
    """The record names the decision that it is from; a replay of it is exact."""
    with Decider(workspace) as decider:
        first, second, other = decide(decider), decide(decider), decide(decider, weight=12.75)
        explained = decider.decide("promise", VALUES, at=NOW, explain=True)
    assert (first.cached, second.cached, other.cached) == (None, first.id, None)
    assert second.id != first.id
    assert (second.raw, second.score) == (first.raw, first.score)
    assert other.raw != first.raw
    assert (explained.cached, bool(explained.reasons)) == (first.id, True)
    assert find_decision(workspace, f"decision:{second.id}").record == second
    assert replay_decision(workspace, f"decision:{second.id}").exact


def test_rules_are_of_each_request(workspace):
    """The score is cached, the decision is not."""
    with Decider(workspace) as decider:
        decide(decider, weight=95)
        again = decide(decider, weight=95.0)
    assert (again.cached is not None, again.decision, again.rule) == (True, "warn", "heavy")


def test_a_batch_scores_only_what_is_new(workspace, monkeypatch):
    """Rows that were scored are not scored again; answers stay in order."""
    counts = []
    real = ModelArtifact.score_each
    monkeypatch.setattr(ModelArtifact, "score_each", lambda self, rows: counts.append(len(rows)) or real(self, rows))
    cases = [{**VALUES, "weight": float(weight)} for weight in range(20, 40)]
    with Decider(workspace) as decider:
        alone = [decider.decide("promise", case, at=NOW) for case in cases[::2]]
        answers = decider.decide_many("promise", cases, at=NOW)
    assert counts == [10]
    assert [one.record.cached for one in answers[::2]] == [record.id for record in alone]
    assert [one.record.cached for one in answers[1::2]] == [None] * 10
    assert [one.record.score for one in answers[::2]] == [record.score for record in alone]


def test_what_is_not_in_the_log_is_not_kept(workspace, monkeypatch):
    """A score whose record was refused by the disk names no decision."""
    with Decider(workspace) as decider:
        decide(decider, weight=1)
        writer = decider._writer

        class Full:
            stream, masks = writer.stream, writer.masks

            def append(self, records, before):
                raise OSError(28, "No space left on device")

        decider._writer = Full()
        with pytest.raises(OSError, match="space"):
            decide(decider, weight=61.5)
        decider._writer = writer
        assert decide(decider, weight=61.5).cached is None


OPERATIONS = st.lists(
    st.sampled_from(["promote", "rollback", "batch"])
    | st.fixed_dictionaries({
        "depot": st.sampled_from(["north", "south", None, "nobody"]), "express": st.sampled_from([True, False, None]),
        "weight": st.sampled_from([0, 0.0, -0.0, 1, 1.0, 2, None, 95, 5e-324]),
    }),
    min_size=4, max_size=14,
)  # fmt: skip


@given(OPERATIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_never_the_score_of_another_model_revision_or_value(workspace, operations):
    """Whatever is asked and changed: the artifact in force gives this score for these features, and its source's."""
    with Decider(workspace) as decider:
        for operation in operations:
            revision = current(workspace)["promise"]
            version = revision.deployment.model
            if operation == "promote":
                promote(workspace, "promise", "late_parcel@1" if version.endswith("2") else "late_parcel@2", reason="x")
                continue
            if operation == "rollback":
                with suppress(RefusedError):  # nothing decided before
                    rollback(workspace, "promise", reason="x")
                continue
            cases = [{}, {"weight": 1}, {}] if operation == "batch" else [operation]
            answers = decider.decide_many("promise", [{**VALUES, **case} for case in cases], at=NOW)
            for record, *_ in answers:
                assert (record.artifact, record.revision) == (revision.deployment.artifact, revision.revision)
                model = ModelArtifact.load(workspace.objects, record.artifact)
                scored = model.score_row(record.features)
                assert (record.raw, record.score) == (scored.raw, scored.score)
                if record.cached is not None:
                    source = find_decision(workspace, record.cached).record
                    assert (source.artifact, source.revision) == (record.artifact, record.revision)
                    assert model.row_of(source.features) == model.row_of(record.features)
                    assert (source.score, source.cached) == (record.score, None)


def test_its_time_and_its_size_have_limits(workspace, monkeypatch):
    """After its time a score is computed again; beyond the size something is dropped."""
    cache = Loader(workspace).load_current()["promise"].cache
    with Decider(workspace) as decider:
        records = [decide(decider, weight=float(n)) for n in range(3)]
    for record in records:
        cache.keep(record)
    row = cache._model.row_of(records[0].features)
    assert cache.find(row)[1] == records[0].id
    later = time.monotonic() + 3_600
    monkeypatch.setattr("retrodict.decisions.score_cache.time.monotonic", lambda: later)
    assert cache.find(row) is None
    assert cache._kept.max_size == 10_000


def test_the_cache_of_an_earlier_revision_is_freed(workspace):
    """It goes with its servant."""
    loader = Loader(workspace)
    cache = weakref.ref(loader.load_current()["promise"].cache)
    deployed = current(workspace)["promise"].deployment.model
    promote(workspace, "promise", "late_parcel@1" if deployed.endswith("2") else "late_parcel@2", reason="x")
    kept = weakref.ref(cache()._kept)
    loader.load_current()
    deadline = time.monotonic() + 20
    while kept() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.1)
    assert cache() is None
    assert kept() is None


def test_a_cache_can_begin_with_the_log(root):
    """``serving.warm_cache``: the newest decisions of the same artifact, and of no other."""
    settings_file = root / "retrodict.toml"
    text = settings_file.read_text()
    try:
        with Workspace(root) as workspace, Decider(workspace) as decider:
            first = decide(decider, weight=77.25)
        settings_file.write_text(text + "[serving]\nwarm_cache = true\n")
        with Workspace(root) as workspace, Decider(workspace) as decider:
            again = decide(decider, weight=77.25)
            assert again.cached == first.id
            assert again.score == first.score
    finally:
        settings_file.write_text(text)


def test_hits_and_saved_time_are_counted(workspace):
    """Over HTTP, for each policy; the answer itself is that of any decision."""
    import json

    body = json.dumps({**REQUEST, "context": {**REQUEST["context"], "weight": 33.125}}).encode()
    first, second, metrics = call(workspace, ("POST", DECIDE, body), ("POST", DECIDE, body), ("GET", "/metrics"))
    answers = [json.loads(answer[2]) for answer in (first, second)]
    assert answers[0].pop("decision_id") != answers[1].pop("decision_id")
    assert answers[0] == answers[1]
    text = metrics[2].decode()
    for result in ("hit", "miss"):
        assert f'retrodict_score_cache_total{{policy="promise",result="{result}"}} 1' in text
    assert 'retrodict_score_cache_saved_microseconds_total{policy="promise"}' in text


def test_without_the_extra_a_policy_with_a_cache_is_refused(workspace, monkeypatch):
    """By the line that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "theine", None)
    with pytest.raises(MissingExtraError, match="cache"):
        Loader(workspace).load_current()


def test_a_day_with_repeats_is_answered_from_the_cache(workspace):
    """2,000 cases out of 150, some much more often: over nine of ten scores are there, each that of its row."""
    rng = random.Random(3)
    rows = [{**VALUES, "depot": rng.choice(["north", "south", "east"]), "weight": 10.0 + at / 2} for at in range(150)]
    day = [rows[min(int(rng.paretovariate(0.8)) - 1, 149)] for _ in range(2_000)]
    with Decider(workspace) as decider:
        records = [one.record for start in range(0, 2_000, 50)
                   for one in decider.decide_many("promise", day[start : start + 50], at=NOW)]  # fmt: skip
    servant = Loader(workspace).load_current()["promise"]
    fresh = dict(zip(range(150), servant._model.score_each([servant._features.read(
        {"depot": row["depot"]}, {k: row[k] for k in ("weight", "express", "sent")}, at=NOW).values
        for row in rows]), strict=True))  # fmt: skip
    assert sum(record.cached is not None for record in records) > 0.9 * len(records)
    assert all(record.raw == fresh[rows.index(case)].raw for record, case in zip(records, day, strict=True))
