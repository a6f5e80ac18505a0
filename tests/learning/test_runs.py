"""Runs after the fact: how they ended, what a replay compares, and what the gates of a version were judged on."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest
from sqlalchemy import update
from tests.serving.project import DEFINITIONS, parcels

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.errors import InputError, NotFoundError
from retrodict.data.ingest import ingest
from retrodict.evaluation.reference import Reference
from retrodict.features.catalogue.tables import newest_versions
from retrodict.learning import compare_runs, get_run, list_runs, replay_run, train
from retrodict.learning.frame import build_frame, tables_of
from retrodict.learning.runs.schema import metrics, runs
from retrodict.ledger import verify
from retrodict.models.definitions import Model
from retrodict.workspace import Workspace


@pytest.fixture
def empty(tmp_path):
    """A project whose table is still to be filled."""
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    with Workspace(tmp_path, actor="ana", clock=SimulatedClock(parse_time("2024-02-20T00:00Z"))) as opened:
        yield opened


@pytest.fixture
def project(empty):
    ingest(empty, "parcels", parcels())
    return empty


def model_of(project, **recipe):
    model = project.definitions.get(Model, "late_parcel")
    return replace(model, recipe=replace(model.recipe, **recipe)) if recipe else model


def frame_of(project):
    model = model_of(project)
    return build_frame(project.tables, model, newest_versions(project.tables, tables_of(model), where="model"))


def test_features_are_what_was_known_at_the_decision(project):
    """Mean delay of the depot's parcels of a week that had arrived by then, against a loop over all of them."""
    rows, means = parcels().to_pylist(), frame_of(project).table.column("depot_delays__mean_delay_7d").to_pylist()
    for place in range(0, len(rows), 97):
        asked = rows[place]
        known = [
            row["delay"]
            for row in rows
            if row["depot"] == asked["depot"]
            and timedelta(0) < asked["sent"] - row["sent"] <= timedelta(days=7)
            and row["arrived"] < asked["sent"]
        ]
        assert means[place] == (pytest.approx(sum(known) / len(known)) if known else None), place
    assert None in means
    assert means[-1] is not None


def test_a_label_without_a_time_of_its_own_is_no_outcome(empty):
    """A parcel that has a delay and no arrival is not trained on."""
    rows = parcels()
    lost = [None if place % 3 == 0 else value for place, value in enumerate(rows.column("arrived").to_pylist())]
    ingest(empty, "parcels", rows.set_column(5, "arrived", pa.array(lost, rows.schema.field("arrived").type)))
    labels = frame_of(empty).labels
    assert [label != label for label in labels.tolist()] == [place % 3 == 0 for place in range(len(labels))]


def test_a_row_without_a_moment_of_decision_is_refused(empty):
    """It could see everything."""
    rows = parcels()
    sent = [None if place < 2 else value for place, value in enumerate(rows.column("sent").to_pylist())]
    empty.tables.write("parcels", rows.set_column(4, "sent", pa.array(sent, rows.schema.field("sent").type)))
    with pytest.raises(InputError, match=r"must have a moment of decision; got '2 rows.*Check.not_null"):
        frame_of(empty)


def test_the_hash_of_a_frame_is_of_labels_and_keys_too(project):
    """Other delays with the same features are other rows."""
    before = frame_of(project).digest()
    rows = project.tables.read("parcels")
    last = rows.num_rows - 1
    changed = [f"x{name}" if place == last else name for place, name in enumerate(rows.column("id").to_pylist())]
    project.tables.write("parcels", rows.set_column(0, "id", pa.array(changed)), mode="overwrite")
    after = frame_of(project)
    assert len(after.at) == rows.num_rows
    assert after.digest() != before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), ValueError("LightGBM says no")])
def test_whatever_ends_a_training_ends_its_run(project, error):
    """An interrupt, a full memory or a library's own error: recorded as failed, with its kind, and raised."""

    def progress(what, _done, _most):
        if what == "evaluate":
            raise error

    with pytest.raises(type(error)):
        train(project, "late_parcel", progress=progress)
    (run,) = list_runs(project)
    assert (run.status, run.summary) == ("failed", {"error": type(error).__name__})
    assert run.finished is not None


def test_a_run_that_failed_is_not_replayed(project):
    """There is nothing to compare; the ledger keeps the attempt."""
    with pytest.raises(KeyboardInterrupt):
        train(project, "late_parcel", progress=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (run,) = list_runs(project)
    replay = replay_run(project, run.ref)
    assert (replay.verdict, replay.ok, replay.compared) == ("not replayable", False, {})
    assert "a run to replay must be finished; got 'failed'" in replay.reason
    (entry,) = project.ledger.entries(object_id=run.ref, action="run.replay")
    assert entry.payload == {"verdict": "not replayable", "reason": replay.reason}


def _summary(run):
    return update(runs).values(summary=json.dumps({**run.summary, "trees": "0" * 64}))


def _data(name, value) -> Callable:
    return lambda run: update(runs).values(data=json.dumps({**run.data, name: value}))


@pytest.mark.parametrize(
    ("fact", "forged"),
    [
        ("frame", _data("frame", "0" * 64)),
        ("rows", _data("rows", {"train": 1, "validate": 1, "test": 1})),
        ("trees", _summary),
        ("metrics", lambda _run: update(metrics).where(metrics.c.split == "test").values(value=0.5)),
    ],
)
def test_a_replay_compares_every_fact(project, fact, forged):
    """A row that says otherwise than the ledger and the model is found, fact by fact; the verdict is in the ledger."""
    run, _ = train(project, "late_parcel")
    with project.records.write() as connection:
        connection.execute(forged(run))
    replay = replay_run(project, run.ref)
    assert (replay.verdict, replay.reason) == ("different", "differs in row in the records")
    facts = replay.compared.pop("row in the records")
    assert [name for name in facts["recorded"] if facts["recorded"][name] != facts["replayed"][name]] == [fact]
    assert {name: each["equal"] for name, each in replay.compared.items()} == dict.fromkeys(facts["recorded"], True)
    (entry,) = project.ledger.entries(object_id=run.ref, action="run.replay")
    assert entry.payload == {"verdict": "different", "reason": replay.reason}


def test_gates_are_judged_on_the_test_rows_and_the_ladder(project):
    """What the version holds; a constant beats no logistic regression."""
    gates = ("auc >= 0.5", "auc >= 0.999", "beats_ladder")
    run, version = train(project, replace(model_of(project), gates=gates))
    auc = get_run(project, run.ref).values("test")["auc"]
    assert auc != run.values("train")["auc"]
    assert [(g["gate"], g["status"], g["value"]) for g in version.gates] == [
        (gates[0], "pass", auc), (gates[1], "fail", auc), (gates[2], "fail", False)
    ]  # fmt: skip
    _, version = train(project, replace(model_of(project, estimator="constant"), gates=gates))
    assert [(g["status"], g["value"]) for g in version.gates] == [("pass", 0.5), ("fail", 0.5), ("fail", False)]
    assert not version.gates_passed


def test_a_run_keeps_the_profiles_of_its_training_rows(project):
    """Counts of every feature are of those rows, counts of the score of the test rows; the ledger vouches for all."""
    run, _ = train(project, "late_parcel")
    (profiles,) = [file for file in run.artifacts if file.name == "profiles.json"]
    features = Reference.from_json(project.objects.get(profiles.digest)).features
    sizes = {name: int(feature.counts.sum()) for name, feature in features.items()}
    assert sizes.pop("score") == run.data["rows"]["test"]
    assert set(sizes.values()) == {run.data["rows"]["train"]}
    (project.root / "state" / "objects" / profiles.digest[:2] / profiles.digest[2:4] / profiles.digest).unlink()
    report = verify(project.ledger, objects=project.objects, streams=project.streams, data=project.tables)
    assert [finding.where.partition(" ")[0] for finding in report.findings] == [run.ref]


def test_runs_are_listed_by_model_and_compared(project):
    """Newest first; what differs is named, what is equal is not."""
    first, second = (train(project, model_of(project, params={"penalty": p}))[0] for p in (1.0, 2.0))
    other, _ = train(project, replace(model_of(project), name="other"))
    assert [run.id for run in list_runs(project, "late_parcel")] == [second.id, first.id]
    assert [run.id for run in list_runs(project)] == [other.id, second.id, first.id]
    compared = compare_runs(project, [first.ref, second.ref])
    assert compared["differs"] == {
        "params.definition": [first.params["definition"], second.params["definition"]], "params.penalty": [1.0, 2.0]
    }  # fmt: skip
    assert compared["metrics"]["auc"] == [first.metrics["auc"], second.metrics["auc"]]
    assert compare_runs(project, ["late_parcel@1", "model:late_parcel@2"]) == compared  # the versions that they made
    with pytest.raises(NotFoundError, match="must be one of the model; got '7'"):
        compare_runs(project, [first.ref, "late_parcel@7"])


def test_rows_that_a_former_version_learned_from_do_not_judge_it(project):
    from retrodict.learning.evidence import _learned_from

    run, _ = train(project, "late_parcel")
    model, versions = model_of(project), run.data["versions"]
    frame = build_frame(project.tables, model, versions)
    parts = model.recipe.split.assign(frame, now=run.data["now"])
    assert _learned_from(project, run.ref, model, frame, parts["test"], versions) == ""
    for name in ("train", "validate"):
        count = len(parts[name])
        assert _learned_from(project, run.ref, model, frame, parts[name], versions) == (
            f"learned from {count:,} of the {count:,} test rows"
        )
    assert "cannot be asked" in _learned_from(project, "run:01HZZZZZZZZZZZZZZZZZZZZZZZ", model, frame, parts["test"],
                                              versions)  # fmt: skip
