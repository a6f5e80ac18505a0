"""How a version computes its answers, as it is shown; and variants of a version that are faster or smaller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.serving.project import make_project

from retrodict import Project
from retrodict.cli.main import run as run_command
from retrodict.core.errors import InputError, NotFoundError, RefusedError

_LOGISTIC = 'Recipe("logistic", calibrate="sigmoid",'
_SLOW = '{"num_iterations": 400, "early_stopping_round": 0, "learning_rate": 0.01}'
TREES = f'Recipe("lightgbm", calibrate="sigmoid", params={_SLOW},'
NETWORK = 'Recipe("network", calibrate="sigmoid", params={"layers": [256, 256], "epochs": 3},'


def trained(folder: Path, recipe: str) -> Project:
    """A project whose second version is of another recipe."""
    folder.mkdir()
    make_project(folder).close()
    definitions = folder / "definitions.py"
    definitions.write_text(definitions.read_text().replace(_LOGISTIC, recipe))
    project = Project(folder, actor="ana")
    project.train("late_parcel")
    return project


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Boosted trees, many more than it takes; each test looks at what the one before registered."""
    with trained(tmp_path_factory.mktemp("optimise") / "parcels", TREES) as project:
        yield project


@pytest.fixture(scope="module")
def pruned(trees):
    """What pruning came to, with a loss that it stays within."""
    return trees.models.optimise("late_parcel@2", how=["prune"], max_loss=0.1)


def test_a_version_says_how_its_answers_are_computed_and_what_was_measured(p):
    """``models show``, its JSON and the card; the version that decides is scored by what is chosen."""
    version = p.models.get("late_parcel@1")
    runtimes = version.to_dict()["runtimes"]
    assert runtimes["rows"] == [1, 64, 1000]
    times = {one["name"]: one for one in runtimes["measured"]}
    assert {*times} == {"row", "table"}
    assert {runtimes["row"], runtimes["table"]} <= {name for name, one in times.items() if one["exact_row"]}
    assert "1,000 rows, µs" in str(version)
    rows = p.models.card("late_parcel@1").to_dict()["sections"]["Runtimes"]
    assert [row["runtime"] for row in rows] == ["row", "table"]


def test_a_pruned_version_has_fewer_trees_its_parent_and_no_approval(trees, pruned):
    """It is a new version; the gates were judged again, and nobody has approved it."""
    (variant,) = pruned.variants
    version = trees.models.get(variant.version)
    assert (version.version, version.approved, version.gates_passed) == (3, False, True)
    optimised = version.to_dict()["optimised"]
    assert (optimised["parent"], optimised["how"]) == ("late_parcel@2", "prune")
    assert "late_parcel@2, by prune" in str(version)
    assert variant.smaller > 2
    assert variant.loss.value <= variant.loss.high <= 0.1
    run = trees.runs.get(variant.run).record
    assert run.kind == "optimise"
    assert run.params["rounds_kept"] < 1
    assert run.metrics["auc"] == pytest.approx(trees.runs.get(trees.models.get("late_parcel@2").run).metrics["auc"]
                                               - variant.loss.value, abs=1e-9)  # fmt: skip
    with pytest.raises(RefusedError, match="somebody else"):
        trees.models.approve(variant.version, reason="by its author")


def test_lineage_leads_from_a_variant_to_its_parent_and_a_replay_derives_it_again(trees, pruned):
    """The same trees and metrics, bit for bit; the chain holds."""
    (variant,) = pruned.variants
    assert "late_parcel@2" in str(trees.lineage(f"model:{variant.version}"))
    replay = trees.replay(variant.run)
    assert (replay.verdict, replay.reason) == ("exact", "")
    assert trees.ledger.verify().ok


def test_a_variant_beyond_the_stated_loss_is_refused_with_its_figures(trees, pruned):
    """Its run stays, without a version; a loss of nothing cannot be shown by an interval."""
    versions = len(trees.models.list("late_parcel"))
    report = trees.models.optimise("late_parcel@2", how=["distil"], max_loss=0.0, student="constant")
    (variant,) = report.variants
    assert variant.version is None
    assert "more than the stated 0" in variant.reason
    assert variant.loss.value > 0.1
    assert len(trees.models.list("late_parcel")) == versions
    run = trees.runs.get(variant.run).record
    assert (run.status, run.summary["optimised"]["refused"]) == ("finished", variant.reason)


def test_a_student_is_taught_the_answers_and_not_the_labels(trees, pruned, capsys):
    """A small forest agrees with its teacher more than its teacher with the labels."""
    capsys.readouterr()
    assert run_command(["models", "optimise", "late_parcel@2", "--how", "distil", "--max-loss", "0.2",
                        "--project", str(trees.folder), "--json"]) == 0  # fmt: skip
    (variant,) = json.loads(capsys.readouterr().out)["variants"]
    assert variant["version"] is not None, variant
    assert trees.replay(variant["run"]).verdict == "exact"


@pytest.mark.parametrize(
    ("how", "max_loss", "error", "says"),
    [
        (["squeeze"], 0.1, NotFoundError, "'squeeze'"),
        (["int8"], 0.1, InputError, "it is no network"),
        (["prune"], -0.1, InputError, "stated loss"),
        (["prune"], float("nan"), InputError, "stated loss"),
    ],
)
def test_what_does_not_apply_is_refused_before_anything_is_made(trees, how, max_loss, error, says):
    """No run is opened for it."""
    runs = len(trees.runs.list())
    with pytest.raises(error, match=says):
        trees.models.optimise("late_parcel@2", how=how, max_loss=max_loss)
    assert len(trees.runs.list()) == runs


def test_a_network_in_integers_agrees_with_itself_in_floats(tmp_path):
    """Calibrated on training rows; a sample of others agreed in half of the answers."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    with trained(tmp_path / "parcels", NETWORK) as project:
        report = project.models.optimise("late_parcel@2", how=["float32", "int8"], max_loss=0.05)
        by_how = {variant.how: variant for variant in report.variants}
        assert abs(by_how["float32"].loss.value) < 1e-3
        integers = by_how["int8"]
        assert integers.version is not None, integers.reason
        assert integers.smaller > 2.5
        assert project.replay(integers.run).verdict == "exact"
