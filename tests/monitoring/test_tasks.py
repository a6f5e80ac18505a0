"""Comparison on the log and outcomes that come on their own, of every task, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_pinball_loss, mean_poisson_deviance, mean_squared_error
from tests.project.test_tasks import HOURS, LOST, SPLIT, STATE, rows, write
from tests.serving.project import DAYS, START

from retrodict import Project
from retrodict.core.clock import SimulatedClock, format_time
from retrodict.core.durations import DAY

LEVELS = [0.1, 0.5, 0.9]
CLASSES = ["late", "on time", "very late"]


def pinball(labels, outputs):
    return np.mean([mean_pinball_loss(labels, outputs[:, at], alpha=level) for at, level in enumerate(LEVELS)])


TASKS = {
    "regression": (HOURS, "recipe=Recipe({}, interval=0.8, {})", "linear", "delay",
                   {"call": "high > 9 or value > 5", "ok": "otherwise"}, mean_squared_error,
                   "squared_error_difference"),
    "quantile": (HOURS, "task='quantile', quantiles=[0.1, 0.5, 0.9], recipe=Recipe({}, {})", "lightgbm", "delay",
                 {"call": "q90 > 8", "ok": "otherwise"}, pinball, "pinball_loss_difference"),
    "count": (LOST, "task='count', recipe=Recipe({}, {})", "poisson", "lost",
              {"call": "value > 4", "ok": "otherwise"}, mean_poisson_deviance, "deviance_difference"),
    "multiclass": (STATE, "recipe=Recipe({}, {})", "logistic", "state",
                   {"call": 'p["very late"] > 0.18', "ok": "otherwise"},
                   lambda y, p: log_loss(y, p, labels=CLASSES), "log_loss_difference"),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_challenger_is_compared_by_the_losses_of_its_task(task, tmp_path):
    """130 logged decisions, then a constant as a challenger: difference, changes and reproduction by hand."""
    label, model, estimator, column, decide, loss, name = TASKS[task]
    table, clock = rows(), SimulatedClock(START + DAYS * DAY)
    write(tmp_path, label, model.format(f'"{estimator}"', SPLIT), repr(decide))
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.data.ingest("parcels", table)
        p.features.build()
        p.features.verify()
        p.train("parcel")
    with Project(tmp_path, actor="ben", clock=clock) as p:
        p.models.approve("parcel@1", reason="test")
        p.deploy("promise", reason="test")
        parcels = table.slice(1_500, 130).to_pylist()
        for row in parcels:
            values = {name: row[name] for name in ("depot", "weight", "express")}
            p.decide("promise", key=row["id"], sent=row["sent"].isoformat(), at=row["sent"], **values)
    write(tmp_path, label, model.format('"constant"', SPLIT), repr(decide))
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.train("parcel")
        result = p.compare("promise", "parcel@2")
        log = p.decisions.table("promise")
        outputs = [name for name in log.column_names if name.startswith("output__")]
        old = np.column_stack([log.column(name).to_numpy().astype(float) for name in outputs])
        again = p.models.score("parcel@2", table.slice(1_500, 130))
        new = np.column_stack([again.column(name.removeprefix("output__")).to_numpy() for name in outputs])
        answers = {"regression": [0], "count": [0]}.get(task, list(range(len(outputs))))
        truth = [row[column] for row in parcels]
        losses = [loss(truth, values[:, answers] if len(answers) > 1 else values[:, 0]) for values in (old, new)]
        assert result.quality.difference.name == name
        assert result.quality.difference.value == pytest.approx(losses[1] - losses[0])
        assert (result.decisions, result.outcomes["known"]) == (130, 130)
        gap = result.quality.difference
        assert gap.low < gap.value < gap.high
        assert result.verdict == ("worse" if gap.low > 0 else "better" if gap.high < 0 else "inconclusive")
        before = np.array([row == "call" for row in log.column("decision").to_pylist()])
        at = {name.removeprefix("output__"): place for place, name in enumerate(outputs)}
        after = {
            "regression": lambda row: row[at.get("high", 0)] > 9 or row[at["value"]] > 5,
            "quantile": lambda row: row[at["q90"]] > 8,
            "count": lambda row: row[at["value"]] > 4,
            "multiclass": lambda row: row[at['p["very late"]']] > 0.18,
        }[task]  # fmt: skip
        changed = before != np.array([after(dict(enumerate(row))) for row in new.tolist()])
        assert sum(result.changes.values()) == changed.sum() > 0
        assert result.agreement.value == pytest.approx(1 - changed.mean())
        assert result.to_dict()["quality"]["difference"]["value"] == result.quality.difference.value
        assert name.replace("_", " ") in str(result)
        window = p.challengers.replay("promise", model="parcel@2").report
        assert (window.quality.difference, window.changes) == (result.quality.difference, result.changes)
        assert window.reproduced == {"checked": 130, "mismatches": 0}
        same = p.compare("promise", "parcel@1")
        assert (same.verdict, dict(same.changes)) == ("inconclusive", {})
        from retrodict.rollout import reproduce_champion

        found = reproduce_champion(p.workspace, "promise")
        assert (found.checked, found.mismatches) == (130, 0)


@pytest.mark.parametrize("task", ["regression", "multiclass", "count"])
def test_outcomes_of_any_task_come_on_their_own(task, tmp_path):
    """A correction of the table's outcome counts once it is known; what is no label of the task is set aside."""
    label, model, estimator, _, decide, _, _ = TASKS[task]
    good, wrong, nothing = {"regression": ("-2.5", "inf", "x"), "multiclass": ("very late", "never", ""),
                            "count": ("7", "-1", "x")}[task]  # fmt: skip
    table, clock = rows(), SimulatedClock(START + DAYS * DAY)
    write(tmp_path, label, model.format(f'"{estimator}"', SPLIT), repr(decide))
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.data.ingest("parcels", table)
        p.features.build()
        p.features.verify()
        p.train("parcel")
    with Project(tmp_path, actor="ben", clock=clock) as p:
        p.models.approve("parcel@1", reason="test")
        p.deploy("promise", reason="test")
        for row in table.slice(1_500, 3).to_pylist():
            values = {name: row[name] for name in ("depot", "weight", "express")}
            p.decide("promise", key=row["id"], sent=row["sent"].isoformat(), at=row["sent"], **values)
        known = format_time(START + (DAYS - 1) * DAY)
        file = tmp_path / "outcomes.csv"
        file.write_text(f"key,label,known_at\np01500,{good},{known}\np01501,{wrong},{known}\np01502,,{known}\n")
        report = p.outcomes.ingest("promise", file)
        assert (report.accepted, report.quarantined, report.unmatched) == (2, 1, 0)
        assert p.outcomes.ingest("promise", file).already
        shown = {row["key"]: (row["status"], row["label"]) for row in p.outcomes.show("promise").to_dict()["newest"]}
        expected = good if task == "multiclass" else float(good)
        assert shown["p01500"] == ("known", expected)
        assert shown["p01501"][0] == "known", "the table has its own outcome"
        assert shown["p01502"] == ("void", None)
        file.write_text(f"key,label,known_at\np01500,{good},{known}\np01500,{nothing},{known}\n")
        assert p.outcomes.ingest("promise", file).already or nothing == ""


def test_a_ranking_is_not_compared_decision_by_decision(tmp_path):
    """The log does not say which decisions were ranked together."""
    write(tmp_path, LOST, f"task='ranking', group='depot', recipe=Recipe('constant', {SPLIT})",
          '{"call": "score > 9", "ok": "otherwise"}')  # fmt: skip
    clock = SimulatedClock(START + DAYS * DAY)
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.data.ingest("parcels", rows())
        p.features.build()
        p.features.verify()
        p.train("parcel")
    with Project(tmp_path, actor="ben", clock=clock) as p:
        p.models.approve("parcel@1", reason="test")
        p.deploy("promise", reason="test")
        p.decide("promise", depot="north", weight=1.0, express=False, sent="2024-02-20T10:00Z")
        report = p.compare("promise", "parcel@1")
        assert (report.verdict, report.reason) == ("inconclusive", "outputs of these tasks are not compared")
