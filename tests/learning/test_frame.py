"""The training frame: what it refuses, and that it is the same again."""

import json

import pyarrow as pa
import pytest
from sqlalchemy import text
from tests.serving.project import DEFINITIONS, parcels

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.errors import DefinitionError, InputError, NotFoundError
from retrodict.data.ingest import ingest
from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.plan import FeatureSet
from retrodict.learning import get_run, list_runs, measure_leakage, replay_run, train
from retrodict.learning.frame import build_frame, read_spine, tables_of
from retrodict.models.definitions import Model
from retrodict.workspace import Workspace


@pytest.fixture
def project(tmp_path):
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    with Workspace(tmp_path, actor="ana", clock=SimulatedClock(parse_time("2024-02-20T00:00Z"))) as opened:
        yield opened


@pytest.fixture
def filled(project):
    ingest(project, "parcels", parcels())
    return project


def model_of(project):
    return project.definitions.get(Model, "late_parcel")


def test_an_empty_table_is_named(project):
    """Training before the first ingest says which table and how to fill it."""
    with pytest.raises(InputError, match=r"'parcels'.*retrodict ingest parcels"):
        train(project, "late_parcel")


def test_a_frame_has_the_rows_of_the_label_table(filled):
    """Rows in are rows out, in order, and twice the same bytes."""
    model = model_of(filled)
    frame = build_frame(filled.tables, model, newest_versions(filled.tables, tables_of(model), where="model"))
    assert frame.table.column("id").to_pylist() == parcels().column("id").to_pylist()
    again = build_frame(filled.tables, model, newest_versions(filled.tables, tables_of(model), where="model"))
    assert frame.digest() == again.digest()


def test_outcomes_that_are_not_known_yet_take_no_part(filled):
    """A row is trained on only if its outcome was known before now."""
    model = model_of(filled)
    frame = build_frame(filled.tables, model, newest_versions(filled.tables, tables_of(model), where="model"))
    now = parse_time("2024-01-20T00:00Z")
    parts = model.recipe.split.assign(frame, now=now)
    assert len(parts["train"]) > 0
    assert (frame.known_at[parts["train"]] < now).all()
    assert len(parts["test"]) == 0


def test_a_feature_that_reads_the_label_is_refused(filled):
    """A derived function on the column that the label is made of is a leak, found before training."""
    text = DEFINITIONS.replace("def size(weight: float, express: bool):", "def size(weight: float, delay: float):")
    (filled.root / "definitions.py").write_text(text.replace('"express": express', '"express": delay'))
    with pytest.raises(DefinitionError, match=r"a feature must not read what the label is made of.*'delay'"):
        train(Workspace(filled.root, actor="ana"), "late_parcel")


def test_a_label_on_text_is_a_definition_error(filled):
    """The column's type is named, its values are not."""
    rows = filled.tables.read("parcels")
    place = rows.column_names.index("delay")
    words = rows.set_column(place, "delay", pa.array(["s3cret"] * rows.num_rows))
    model = model_of(filled)
    with pytest.raises(DefinitionError, match="'delay': 'string'") as caught:
        read_spine(words, model, FeatureSet(model.features))
    assert "s3cret" not in str(caught.value)


def test_a_run_is_kept_and_replays_exactly(filled):
    """Parameters, metrics, data versions and artifacts are in the store; executed again the bits are the same."""
    run, version = train(filled, "late_parcel")
    assert version.ref == "late_parcel@1"
    kept = get_run(filled, run.ref)
    assert kept.data["versions"] == {"parcels": 0}
    assert kept.metrics == run.metrics
    assert {"profiles.json", "model.json", "evaluations.json"} <= {artifact.name for artifact in kept.artifacts}
    assert [(r.id, r.metrics, r.artifacts) for r in list_runs(filled)] == [(run.id, run.metrics, kept.artifacts)]
    (filled.root / "definitions.py").write_text("# gone\n")
    replay = replay_run(Workspace(filled.root, actor="zoe"), run.ref)
    assert replay.exact, replay.to_dict()


def test_a_run_gives_its_plots_by_name(filled):
    """The stored SVG of a run just trained and of one that was read; an unknown name has near names."""
    run, _ = train(filled, "late_parcel")
    assert b"<svg" in run.plot("ladder")
    assert get_run(filled, run.ref).plot("ladder") == run.plot("ladder")
    with pytest.raises(NotFoundError, match=r"a plot must be one that .*Did you mean the plot 'ladder'"):
        run.plot("leader")


def test_a_run_whose_data_was_altered_does_not_replay_exactly(filled):
    """Replay really executes: other rows under the version give another verdict."""
    run, _ = train(filled, "late_parcel")

    class Altered:
        def __getattr__(self, name):
            return getattr(filled.tables, name)

        def read(self, name, version=None, **options):
            rows = filled.tables.read(name, version, **options)
            place = rows.column_names.index("weight")
            return rows.set_column(place, "weight", pa.array([1.0] * rows.num_rows))

    again = Workspace(filled.root, actor="zoe")
    again.__dict__["tables"] = Altered()
    replay = replay_run(again, run.ref)
    assert replay.verdict == "different"
    assert "trees" in replay.reason or "metrics" in replay.reason


def test_a_replay_believes_the_ledger_and_the_model_and_no_row(filled):
    """Metrics altered in the records; the row of another run; the model of another run."""
    runs = [train(filled, "late_parcel")[0] for _ in range(2)]

    def altered(**values):
        with filled.records.write() as connection:
            for name, value in values.items():
                table, column = name.split("__")
                key = "id" if table == "runs" else "run"
                connection.execute(text(f"UPDATE {table} SET {column} = :v WHERE {key} = :r"),
                                   {"v": value, "r": runs[0].id})  # fmt: skip
        replay = replay_run(filled, runs[0].ref)
        return replay.verdict, [name for name, fact in replay.compared.items() if not fact["equal"]], replay.reason

    assert altered(run_metrics__value=0.99)[:2] == ("different", ["row in the records"])
    other = get_run(filled, runs[1].ref)
    verdict, _, reason = altered(runs__summary=json.dumps(other.summary))
    assert (verdict, "must name the model that it made" in reason) == ("not replayable", True)


def test_a_failed_run_is_recorded_as_failed(filled):
    """A split without rows fails, and the store says so."""
    text = DEFINITIONS.replace("2024-01-01/2024-02-01", "2020-01-01/2020-02-01")
    (filled.root / "definitions.py").write_text(text)
    opened = Workspace(filled.root, actor="ana")
    with pytest.raises(InputError, match="at least one labelled row"):
        train(opened, "late_parcel")
    assert [run.status for run in list_runs(opened)] == ["failed"]


def test_leakage_is_measured_on_the_same_rows(filled):
    """With arrivals a day and more after the sending, the naive join sees other values."""
    run, _ = train(filled, "late_parcel")
    report = measure_leakage(filled, model_of(filled), run)
    assert report.auc_point_in_time == run.metrics["auc"]
    assert 0 < report.differing_values < report.values
    assert report.auc_naive != report.auc_point_in_time
