"""Ranked versions, shuffled features, scored frames, compared estimators: each against a plain computation."""

from __future__ import annotations

from datetime import timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tests.project.test_tasks import HOURS, LATE, SPLIT, rows, write
from tests.serving.project import DAYS, START

from retrodict import Project, Recipe
from retrodict.core.clock import SimulatedClock
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError, NotFoundError
from retrodict.learning.execution import execute

CLOCK = START + DAYS * DAY
TREES = f'recipe=Recipe("lightgbm", {SPLIT}, params={{"num_iterations": 20}})'


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three versions that tell late parcels: trees, logistic regression, and trees of another split."""
    folder = tmp_path_factory.mktemp("parcels")
    decide = '{"call": "score > 0.5", "ok": "otherwise"}'
    recipes = (TREES, TREES.replace("lightgbm", "logistic").replace('params={"num_iterations": 20}', ""),
               TREES.replace('test="8d"', 'test="6d"'))  # fmt: skip
    for number, recipe in enumerate(recipes):
        write(folder, LATE, recipe, decide)
        with Project(folder, actor="ana", clock=SimulatedClock(CLOCK)) as p:
            if not number:
                p.data.ingest("parcels", rows())
            p.train("parcel")
    write(folder, LATE, TREES, decide)
    with Project(folder, actor="ana", clock=SimulatedClock(CLOCK)) as p:
        p.features.build()
        yield p


def test_versions_and_rungs_are_ranked_on_the_same_rows(project):
    """Best first by the stored metric; a version of another split is listed and not ranked."""
    board = project.models.leaderboard("parcel")
    assert (board.metric, board.standings[-1].value is None) == ("auc", False)
    ranked = [s for s in board.standings if not s.why_not]
    assert {s.name for s in board.standings if s.why_not} == {"parcel@1", "parcel@2"}
    assert board.standings[-1].why_not == "judged on other rows than parcel@3"
    values = [s.value for s in ranked]
    assert values == sorted(values, reverse=True)
    newest = project.runs.get(project.models.get("parcel@3").run)
    assert next(s for s in ranked if s.name == "parcel@3").value == newest.metrics["auc"]
    assert {f"baseline {r}" for r in ("random", "majority", "last", "logistic", "tree")} <= {s.name for s in ranked}
    losses = [s.value for s in project.models.leaderboard("parcel", metric="brier").standings if not s.why_not]
    assert losses == sorted(losses), "a lower loss is better"
    assert "parcel@3" in str(board)
    with pytest.raises(NotFoundError, match=r"must have the metric.*'acu'.*Did you mean the metric 'auc'"):
        project.models.leaderboard("parcel", metric="acu")
    with pytest.raises(NotFoundError, match="must have a version to be ranked"):
        project.models.leaderboard("nobody")


def test_two_versions_of_one_split_are_ranked_together(tmp_path):
    """And each has its interval."""
    write(tmp_path, HOURS, TREES, '{"call": "value > 4", "ok": "otherwise"}')
    with Project(tmp_path, actor="ana", clock=SimulatedClock(CLOCK)) as p:
        p.data.ingest("parcels", rows())
        p.train("parcel")
    write(tmp_path, HOURS, TREES.replace("lightgbm", "ridge").replace('params={"num_iterations": 20}', ""),
          '{"call": "value > 4", "ok": "otherwise"}')  # fmt: skip
    with Project(tmp_path, actor="ana", clock=SimulatedClock(CLOCK)) as p:
        p.train("parcel")
        versions = [s for s in p.models.leaderboard("parcel").standings if "@" in s.name]
        assert {s.name for s in versions} == {"parcel@1", "parcel@2"}
        assert all(s.low < s.value < s.high and not s.why_not for s in versions)


def test_importance_is_the_loss_of_shuffled_columns(project):
    """Against a shuffle of each column by hand, by scikit-learn's log loss; the picture names every feature."""
    report = project.models.importance("parcel@1", repeats=2)
    run = project.runs.get(project.models.get("parcel@1").run).record
    model = project.definitions.get(__import__("retrodict").Model, "parcel")
    again = execute(project.workspace, model, run.data["versions"], now=run.data["now"], ladder=False)
    trained, test = again.trained, again.parts["test"]
    matrix, labels = trained.inputs.encode_columns(again.frame.columns(test)), again.frame.labels[test]

    def loss(rows):
        return log_loss(labels, trained.calibrator.apply(trained.engine.scores(rows)))

    random, plain = np.random.default_rng(run.seed), loss(matrix)
    expected = {}
    for at, name in enumerate(trained.inputs.names):
        rises = []
        for _ in range(2):
            shuffled = matrix.copy()
            shuffled[:, at] = random.permutation(matrix[:, at])
            rises.append(loss(shuffled) - plain)
        expected[name] = np.mean(rises)
    assert {share.feature: share.loss for share in report.shares} == pytest.approx(expected, abs=1e-12)
    assert [share.loss for share in report.shares] == pytest.approx(sorted(expected.values(), reverse=True))
    assert all(share.low <= share.loss <= share.high for share in report.shares)
    assert sum(share.gain for share in report.shares) == pytest.approx(1.0)
    assert report.shares[0].feature in str(report)
    picture = str(project.runs.get(run.ref).plot("importance"))
    assert all(name in picture for name in expected)


def test_a_frame_is_scored_as_decisions_are(project):
    """Row by row what the artifact says of the features that training computed; order and other columns stay."""
    table = rows().slice(1_500, 200)
    order = np.random.default_rng(0).permutation(200)
    frame = table.take(order).to_pandas()
    scored = project.models.score("parcel@1", frame)
    assert list(scored.columns) == [*frame.columns, "score"]
    assert scored["id"].tolist() == frame["id"].tolist()
    assert "score" not in frame.columns
    run = project.runs.get(project.models.get("parcel@1").run).record
    model = project.definitions.get(__import__("retrodict").Model, "parcel")
    again = execute(project.workspace, model, run.data["versions"], now=run.data["now"], ladder=False)
    artifact = again.trained.artifact("parcel", {})
    expected = artifact.score_rows(again.frame.columns(np.arange(1_500, 1_700))).score
    assert scored["score"].tolist() == expected[order].tolist()
    values = {name: again.frame.table.column(name)[1_500].as_py() for name in again.frame.features}
    assert artifact.score_row(values).score == expected[0]
    assert project.models.score("parcel@1", table.slice(0, 0)).num_rows == 0
    with pytest.raises(InputError, match="every row must have a moment of decision"):
        project.models.score("parcel@1", table.set_column(4, "sent", pa.nulls(200, pa.timestamp("us", "UTC"))))
    with pytest.raises(InputError, match="the rows must have every key, time and input of the features; got 'depot'"):
        project.models.score("parcel@1", table.drop_columns(["depot"]))
    with pytest.raises(InputError, match="must have no column with the name"):
        project.models.score("parcel@1", scored)
    assert not list(project.workspace.ledger.entries(action="decision.record"))


def test_times_may_come_as_text(project):
    """ISO 8601 in any zone is the same instant; what is no time is refused by the column that the caller wrote."""
    table = rows().slice(1_500, 60)
    place, times = table.schema.get_field_index("sent"), table.column("sent").to_pylist()
    zone = timezone(timedelta(hours=-5))
    expected = project.models.score("parcel@1", table).column("score").to_pylist()
    for texts in ([t.isoformat() for t in times], [t.astimezone(zone).isoformat(sep=" ") for t in times]):
        written = table.set_column(place, "sent", pa.array(texts, pa.large_string()))
        assert project.models.score("parcel@1", written).column("score").to_pylist() == expected
        frame = project.models.score("parcel@1", written.to_pandas())
        assert frame["score"].tolist() == expected
        own = written.append_column("moment", written.column("sent"))
        assert project.models.score("parcel@1", own, at="moment").column("score").to_pylist() == expected
    for odd in ("yesterday", "2013-09-01T18:00:00", ""):
        wrong = table.set_column(place, "sent", pa.array([odd] * 60))
        with pytest.raises(InputError, match="column 'sent': times as text must be ISO 8601 with a zone"):
            project.models.score("parcel@1", wrong)
    with pytest.raises(InputError, match=r"weight: the moment of decision must be a time; got .'weight': 'double'"):
        project.models.score("parcel@1", table, at="weight")


def test_estimators_are_compared_in_the_folds_of_the_split(project):
    """A failing one is listed with its error; each value is the mean area of rows that it was not fitted on."""
    own = Recipe("logistic", params={"penalty": 1e9})
    result = project.models.compare("parcel", estimators=["decision_tree", "logistic", "ridge", own, "nobody"], folds=3)
    names = [trial.estimator for trial in result.trials]
    assert names[-2:] == ["ridge", "nobody"]
    assert "the task must be one of the estimator" in result.trials[-2].error
    assert "must be registered" in result.trials[-1].error
    assert sorted(names[:3]) == ["decision_tree", "logistic", "logistic"]
    assert result.ok
    assert not project.models.compare("parcel", estimators=["nobody"], folds=3).ok
    assert [t.value for t in result.trials[:3]] == sorted((t.value for t in result.trials[:3]), reverse=True)
    from retrodict.models import get_estimator
    from retrodict.models.inputs import InputSpec
    from retrodict.models.problem import Examples, Problem
    from retrodict.models.splits import folds

    run = project.runs.get(project.models.get("parcel@1").run).record
    model = project.definitions.get(__import__("retrodict").Model, "parcel")
    again = execute(project.workspace, model, run.data["versions"], now=run.data["now"], ladder=False)
    train, frame = again.parts["train"], again.frame
    inputs = InputSpec.learn(frame.columns(train))
    matrix, labels = inputs.encode_columns(frame.columns(train)), frame.labels[train]
    areas = []
    for fit, judge in folds(model.recipe.split, frame, train, 3):
        engine = get_estimator("logistic").solve(Problem(inputs, Examples(matrix[fit], labels[fit]), None, {})).engine
        areas.append(roc_auc_score(labels[judge], engine.scores(matrix[judge])))
    values = [t.folds for t in result.trials if t.estimator == "logistic"]
    assert any(folds_ == pytest.approx(tuple(areas), abs=1e-9) for folds_ in values)
    assert len(project.models.list("parcel")) == 3, "nothing is registered"
