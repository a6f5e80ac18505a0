"""What a run records is what it was computed with: seed, parameters, split, and the rows it left out."""

import numpy as np
import pyarrow as pa
import pytest
from tests.serving.project import DEFINITIONS, parcels

from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.durations import DAY
from retrodict.data.ingest import ingest
from retrodict.learning import get_run, replay_run, train
from retrodict.learning.environment import describe_environment
from retrodict.learning.frame import Frame, count_left_out
from retrodict.models.definitions import Model
from retrodict.models.splits import TimeSplit
from retrodict.workspace import Workspace

NOW = parse_time("2024-02-20T00:00Z")
TREES = 'Recipe("lightgbm", seed=7, params={"num_iterations": 3, "bagging_fraction": 0.5}, calibrate="sigmoid",'


@pytest.fixture
def project(tmp_path):
    """Parcels, learned by three trees."""
    text = DEFINITIONS.replace('Recipe("logistic", calibrate="sigmoid",', TREES)
    assert TREES in text
    (tmp_path / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (tmp_path / "definitions.py").write_text(text)
    with Workspace(tmp_path, actor="ana", clock=SimulatedClock(NOW)) as opened:
        ingest(opened, "parcels", parcels())
        yield opened


def test_a_run_is_computed_with_the_seed_and_the_parameters_that_it_records(project):
    """Another seed gives other trees; the entry of the ledger has the seed, too."""
    run, _ = train(project, "late_parcel")
    stored = get_run(project, run.ref)
    assert (stored.seed, stored.params["seed"], stored.params["num_iterations"]) == (7, 7, 3)
    (entry,) = project.ledger.entries(action="run.start")
    assert entry.payload["seed"] == 7
    text = (project.root / "definitions.py").read_text()
    (project.root / "definitions.py").write_text(text.replace("seed=7", "seed=8"))
    other, _ = train(Workspace(project.root, actor="ana", clock=SimulatedClock(NOW)), "late_parcel")
    assert (other.data["frame"], other.seed) == (run.data["frame"], 8)
    assert other.summary["trees"] != run.summary["trees"]


def test_a_replay_says_whether_equal_bits_were_to_be_expected(project, monkeypatch):
    """With another version of a number library they are not, even where they come out equal."""
    run, _ = train(project, "late_parcel")
    assert replay_run(project, run.ref).same_machine_kind
    here = describe_environment()
    other = {**here, "imported": {**here["imported"], "numpy": {**here["imported"]["numpy"], "version": "0"}}}
    monkeypatch.setattr("retrodict.learning.replay.describe_environment", lambda **_: other)
    replay = replay_run(project, run.ref)
    assert (replay.exact, replay.same_machine_kind) == (True, False)
    assert replay.differences[0].startswith(f"package numpy was {np.__version__} (")
    assert ", is 0 (" in replay.differences[0]


def frame_of(at, *, label=1.0, known_at=0):
    """Frame of decisions at some times, without features."""
    at = np.array(at)
    labels, known = np.full(len(at), label), np.broadcast_to(np.array(known_at), len(at))
    return Frame(pa.table({}), (), at, labels, known)


def test_a_row_at_an_edge_belongs_to_the_part_that_begins_there():
    """Parts are half-open, so no row is in two of them; the first and the last edge bound them all."""
    split = TimeSplit("2024-01-01/2024-02-01", validate="10d", test="10d")
    edges = [parse_time(f"2024-{day}T00:00Z") for day in ("01-01", "02-01", "02-11", "02-21")]
    frame = frame_of([edge + beside for edge in edges for beside in (-1, 0)])
    parts = split.assign(frame, now=NOW)
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [1, 2],
        "validate": [3, 4],
        "test": [5, 6],
    }


def test_an_outcome_is_used_once_it_was_known_before_now():
    """One that becomes known at the very moment is not."""
    split = TimeSplit("2024-01-01/2024-02-01", validate="10d", test="10d")
    frame = frame_of([parse_time("2024-02-15T00:00Z")] * 3, known_at=[NOW - 1, NOW, NOW + 1])
    assert split.assign(frame, now=NOW)["test"].tolist() == [0]


def test_a_split_of_a_retraining_is_recorded_and_replayed(project):
    """Not the one of the recipe."""
    split = TimeSplit("2024-01-03/2024-01-25", validate="8d", test="9d")
    run, _ = train(project, "late_parcel", split=split)
    assert run.params["split"] == {"train": "2024-01-03/2024-01-25", "validate": "8d", "test": "9d"}
    rows, purged = run.data["rows"], run.data["left_out"]
    assert rows["train"] + purged["purged_train"] == 22 * 40
    assert rows["validate"] + purged["purged_validate"] == 8 * 40
    assert rows["test"] == 9 * 40
    assert 40 < purged["purged_train"] < 80, "parcels of the last thirty hours and more"
    assert replay_run(project, run.ref).exact


def test_a_row_without_an_outcome_is_pending_until_it_matures(project):
    """At the moment it matures it is void; rows outside of the split are neither."""
    model = project.definitions.get(Model, "late_parcel")
    at = [NOW - 10 * DAY - 1, NOW - 10 * DAY, NOW - 10 * DAY + 1, parse_time("2023-12-31T00:00Z")]
    frame = frame_of(at, label=np.nan, known_at=np.iinfo(np.int64).max)
    assert count_left_out(frame, model, now=NOW) == {
        "pending": 1, "void": 2, "purged_train": 0, "purged_validate": 0
    }  # fmt: skip
