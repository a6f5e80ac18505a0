"""A plain table without views: a model reads the row's own columns, alike in training, request and replay."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from retrodict import Project
from retrodict.core.clock import SimulatedClock, to_micros
from retrodict.core.errors import DefinitionError, RetrodictError
from retrodict.evaluation.reference import Reference
from retrodict.models.artifact import ModelArtifact
from retrodict.monitoring.drift import drift
from retrodict.rollout import reproduce_champion

DEFINITIONS = """
from retrodict import *

claims = Table("claims", key="id", columns={"seen": "time", "known": "time"})
late = Label("late", claims, "days > 5", known_at="known", matures="20d")
model = Model("late_claim", label=late, decide_at="seen", features=[FEATURES],
    recipe=Recipe("ESTIMATOR", TimeSplit("2024-01-01/2024-03-01", "20d", "20d"), calibrate="none"))
check = Policy("check", model, decide={"look": "score >= 0.5", "pass": "otherwise"}, deadline="60s",
    rules=[Rule("dear", when="region = 'west' and vip", then="look", reason="West and important")])
"""
NAMES = ["Betrag (EUR)", "class", 'we"ird, {name}: [x]', "region", "vip", "größe__cm", "count"]


def rows(count: int = 900) -> list[dict[str, Any]]:
    random_ = random.Random(5)
    listed = []
    for number in range(count):
        seen = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=3 * number)
        amount = None if random_.random() < 0.1 else round(random_.uniform(1, 500), 2)
        row = {"id": f"c{number:04d}", "seen": seen, "known": seen + timedelta(days=8), "Betrag (EUR)": amount,
               "class": random_.choice(["a", "b", None, "ü"]), 'we"ird, {name}: [x]': random_.randrange(9),
               "region": random_.choice(["west", "east"]), "vip": random_.random() < 0.1,
               "größe__cm": random_.uniform(0, 1), "count": 2**40 + number, "note": "n"}  # fmt: skip
        row["days"] = (amount or 0) / 80 + (row["class"] == "b") * 3 + random_.gauss(0, 1)
        listed.append(row)
    return listed


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def project(features: str, estimator: str = "lightgbm") -> Project:
        text = DEFINITIONS.replace("FEATURES", features).replace("ESTIMATOR", estimator)
        (tmp_path / "retrodict.toml").write_text('[project]\nname = "claims"\n')
        (tmp_path / "definitions.py").write_text(text)
        return Project(tmp_path, actor="ana", clock=SimulatedClock(to_micros(datetime(2024, 8, 1, tzinfo=UTC))))

    return project


NAMED = f"columns(*{NAMES!r})"


def deployed(project: Project) -> Any:
    project.data.ingest("claims", pd.DataFrame(rows()))
    run = project.train("late_claim")
    with Project(project.folder, actor="ben", clock=project.workspace.clock) as second:
        second.models.approve("late_claim@1", reason="test")
    assert project.features.verify().ok
    project.deploy("check", reason="test")
    return run


@pytest.mark.parametrize("features", [NAMED, 'columns(exclude=["note"])'], ids=["named", "all but some"])
@pytest.mark.parametrize("estimator", ["lightgbm", "logistic"])
def test_a_decision_reads_the_row_as_training_did(make: Any, features: str, estimator: str) -> None:
    """From file to decision and back without a view or a declared type; what is not asked for is not read."""
    with make(features, estimator) as project:
        deployed(project)
        row = rows()[700]
        request = {name: row[name] for name in NAMES}
        decision = project.decide("check", **request, explain=True)
        assert list(decision.features) == NAMES
        assert dict(decision.features) == request
        assert decision.replay().ok
        assert {fact["feature"] for fact in decision.lineage().facts["features"]} == set(NAMES)
        assert project.features.parity("check").verdict == "equal"
        assert project.plan().next() == []


def test_scores_are_those_of_lightgbm_on_the_plain_table(make: Any) -> None:
    """The oracle is LightGBM itself, on a matrix made by hand from the table."""
    with make(NAMED) as project:
        deployed(project)
        artifact = ModelArtifact.load(project.workspace.objects, project.models.get("late_claim@1").artifact)
        booster = lightgbm.Booster(model_str=artifact.engine.text)
        for row in rows()[600:620]:
            codes = {"a": 0.0, "b": 1.0, "ü": 2.0, None: np.nan}
            plain = [
                np.nan if row["Betrag (EUR)"] is None else row["Betrag (EUR)"], codes[row["class"]], row[NAMES[2]],
                {"east": 0.0, "west": 1.0}[row["region"]], float(row["vip"]), row["größe__cm"], float(row["count"]),
            ]  # fmt: skip
            expected = float(booster.predict(np.array([plain]))[0])
            assert project.decide("check", **{name: row[name] for name in NAMES}).score == pytest.approx(
                expected, abs=0
            )


def test_a_request_brings_the_columns_in_their_types(make: Any) -> None:
    """What is missing or of another type is refused by name; the table's types count, no second declaration."""
    with make(NAMED) as project:
        deployed(project)
        row = {name: rows()[700][name] for name in NAMES}
        with pytest.raises(RetrodictError, match=r"context 'class'"):
            project.decide("check", **{name: value for name, value in row.items() if name != "class"})
        with pytest.raises(RetrodictError, match=r"'Betrag \(EUR\)': the value must be a number"):
            project.decide("check", **{**row, "Betrag (EUR)": "much"})
        assert project.decide("check", **{**row, "region": "west", "vip": True}).reasons == ["West and important"]


def test_columns_named_as_what_a_decision_records_stay_apart(make: Any) -> None:
    """A bureau's ``score`` is no score of the model, in the log, in the training profiles, and scored again."""
    with make('columns("score", "model", "region", "vip")', "logistic") as project:
        frame = pd.DataFrame(rows()).rename(columns={"Betrag (EUR)": "score", "class": "model"})
        project.data.ingest("claims", frame)
        project.train("late_claim")
        with Project(project.folder, actor="ben", clock=project.workspace.clock) as second:
            second.models.approve("late_claim@1", reason="test")
        project.features.verify()
        project.deploy("check", reason="test")
        row = {"model": "b", "region": "east", "vip": False}
        answers = [project.decide("check", score=value, **row).score for value in (3.0, 480.0)]
        log = project.decisions.table("check")
        assert log.column("score").to_pylist() == answers
        assert log.column("model").to_pylist() == ["late_claim@1"] * 2
        assert log.column("feature__score").to_pylist() == [3.0, 480.0]
        again = reproduce_champion(project.workspace, "check")
        assert (again.checked, again.mismatches) == (2, 0)
        artifact = ModelArtifact.load(project.workspace.objects, project.models.get("late_claim@1").artifact)
        reference = Reference.from_json(project.workspace.objects.get(artifact.metadata["profiles"]))
        features = {"feature__score", "feature__model", "region", "vip"}
        assert set(reference.features) == {*features, "score"}
        assert (
            reference.features["score"].profile.edges[-1] <= 1 < reference.features["feature__score"].profile.edges[-1]
        )
        report = drift(log, reference, model="late_claim@1")
        assert (set(report.features), report.other_models) == (features, {})


def test_columns_that_come_later_change_no_version_that_decides(make: Any) -> None:
    """All but some means what the table had when the model was trained."""
    with make('columns(exclude=["note"])') as project:
        deployed(project)
        wider = [{**row, "id": f"n{row['id']}", "new": 1.0} for row in rows(20)]
        project.data.ingest("claims", pa.Table.from_pylist(wider))
        assert "new" in project.data.read("claims").column_names
        decision = project.decide("check", **{name: rows()[700][name] for name in NAMES})
        assert list(decision.features) == NAMES


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ('columns("regoin")', "Did you mean the column 'region'"),
        ('columns(exclude=["noet"])', "Did you mean the column 'note'"),
        ('columns("days", "region")', "a feature must not read what the label is made of"),
        ('columns("region"), columns("region", "vip")', "a column of the row must be a feature once"),
        ('columns("seen")', "'seen'"),
    ],
)
def test_a_wrong_column_is_refused(make: Any, tmp_path: Path, features: str, message: str) -> None:
    """Unknown names with near ones, the label's own columns, a column twice, a time that no model reads."""
    with make(features) as project:
        path = tmp_path / "definitions.py"
        path.write_text(path.read_text().partition("check = ")[0])
        with pytest.raises(RetrodictError, match=message):  # noqa: PT012  # some are seen before there are rows
            project.data.ingest("claims", pd.DataFrame(rows()))
            project.train("late_claim")


def test_a_rule_on_a_column_that_was_not_there_is_refused(make: Any, tmp_path: Path) -> None:
    """All but some: which names a rule may read is known with the model, and a deployment asks."""
    with make('columns(exclude=["note"])') as project:
        path = tmp_path / "definitions.py"
        path.write_text(path.read_text().replace("region = 'west'", "regoin = 'west'"))
        with pytest.raises(DefinitionError, match="Did you mean the name 'region'"):
            deployed(project)


@pytest.mark.parametrize("text", ["columns()", 'columns("a", exclude=["b"])', 'columns("a", "a")', "columns(1)"])
def test_columns_are_names_or_all_but_some(make: Any, text: str) -> None:
    """Said where the definition is written."""
    with make(text) as project, pytest.raises(DefinitionError, match="columns must be different names"):
        project.plan()


def test_beside_views_and_functions(make: Any, tmp_path: Path) -> None:
    """Own columns, a view and a function that reads an own column, in the order in which they are written."""
    view = """FeatureView("past", Entity("region"), Source("seen", claims, event_time="seen", known_at="known",
        sequence="id"), [agg.count(over="60d")]), columns("vip", "region"), double"""
    with make(view) as project:
        path = tmp_path / "definitions.py"
        function = "\n\n@derived\ndef double(vip):\n    return {'vip': vip * 2}\n\n\nlate = "
        path.write_text(path.read_text().replace("\nlate = ", function, 1))
        project.data.ingest("claims", pd.DataFrame(rows()))
        project.train("late_claim")
        project.features.build()
        with Project(tmp_path, actor="ben", clock=project.workspace.clock) as second:
            second.models.approve("late_claim@1", reason="test")
        assert project.features.verify().ok
        project.deploy("check", reason="test")
        decision = project.decide("check", region="west", vip=True)
        assert list(decision.features) == ["past__count_60d", "vip", "region", "double__vip"]
        assert [decision.features[name] for name in ("vip", "region", "double__vip")] == [True, "west", 2.0]
        assert json.loads(json.dumps(decision.to_dict()))
        assert decision.replay().ok
