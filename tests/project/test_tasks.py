"""Every task from rows to a served decision: trained, judged, approved, deployed, decided, replayed, watched."""

from importlib.util import find_spec

import numpy as np
import pytest
from tests.serving.project import DAYS, DEFINITIONS, START, parcels

from retrodict import Project
from retrodict.core.clock import SimulatedClock, from_micros
from retrodict.core.durations import DAY
from retrodict.core.tasks import TASKS as TASKS_THERE_ARE
from retrodict.evaluation import evaluate, primary
from retrodict.project.runs import headline
from retrodict.testing.estimators import make_problem

HEAD = DEFINITIONS.partition("late = Label")[0]
SPLIT = 'split=TimeSplit(train="2024-01-01/2024-02-01", validate="8d", test="8d")'
MODEL = 'Model("parcel", label=label, decide_at="sent", features=[depot_delays, size, moment], {more})'
POLICY = """
policy = Policy("promise", model, decide={decide}, fallback=["ok"], deadline="5s")
watch = Monitor(policy)
"""


def write(folder, label, more, decide):
    text = f"{HEAD}\nlabel = {label}\nmodel = {MODEL.format(more=more)}\n{POLICY.format(decide=decide)}"
    (folder / "retrodict.toml").write_text('[project]\nname = "parcels"\n')
    (folder / "definitions.py").write_text(text)


def rows():
    """Parcels with a class beside the delay."""
    table = parcels()
    delay = np.array(table.column("delay"))
    size = np.select([delay > 6, delay > 2], ["very late", "late"], "on time")
    return table.append_column("state", [size.tolist()]).append_column(
        "lost", [np.floor(np.maximum(delay, 0)).tolist()]
    )


STATE = 'Label("state", parcels, "state", known_at="arrived", matures="10d")'
ORDERED = STATE.replace("matures", 'classes=["on time", "late", "very late"], ordered=True, matures')
HOURS = 'Label("hours", parcels, "delay", known_at="arrived", matures="10d")'
LOST = 'Label("lost", parcels, "lost", known_at="arrived", matures="10d")'
LATE = 'Label("late", parcels, "delay > 6", known_at="arrived", matures="10d")'
TREES = f'recipe=Recipe("lightgbm", {SPLIT}, params={{"num_iterations": 40}})'
PREPARED = f"""recipe=Recipe("logistic", {SPLIT}, params={{"path": True}}, types={{"moment__hour": "category"}},
    prepare=[Impute("median"), Encode("target", ["moment__hour"]), Scale("standard")], balance=Balance("over"),
    threshold=Threshold.cost(false_positive=1, false_negative=6))"""
VERY_LATE = """{"call": 'p["very late"] > 0.5', "ok": "otherwise"}"""
MANY = '{"call": "value > 4", "ok": "otherwise"}'
TASKS = {
    "multiclass": (STATE, TREES, VERY_LATE, ['p["late"]', 'p["on time"]', 'p["very late"]']),
    "ordered": (ORDERED, f'recipe=Recipe(Vote(["random_forest", "logistic"]), {SPLIT})', VERY_LATE,
                ['p["on time"]', 'p["late"]', 'p["very late"]']),
    "regression": (HOURS, TREES.replace("split=", "interval=0.8, split="), '{"call": "high > 8", "ok": "otherwise"}',
                   ["value", "low", "high"]),
    "quantile": (HOURS, f'task="quantile", quantiles=[0.1, 0.5, 0.9], {TREES}',
                 '{"call": "q90 > 8", "ok": "otherwise"}', ["q10", "q50", "q90"]),
    "count": (LOST, f'task="count", recipe=Recipe("poisson", {SPLIT}, half_life="14d", weights="weight + 1")', MANY,
              ["value"]),
    "stack": (HOURS, f'recipe=Recipe(Stack(["lightgbm", "ridge"], folds=3), {SPLIT})', MANY, ["value"]),
    "prepared": (LATE, PREPARED, '{"call": "score >= threshold", "ok": "otherwise"}', ["score"]),
    "network": (HOURS, f'recipe=Recipe("network", {SPLIT}, params={{"epochs": 5}})', MANY, ["value"]),
    "ranking": (LOST, f'task="ranking", group="depot", {TREES}', '{"call": "score > 0", "ok": "otherwise"}', ["score"]),
}  # fmt: skip


@pytest.fixture(scope="session")
def parcel_rows():
    return rows()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_goes_from_rows_to_a_replayed_and_watched_decision(task, tmp_path, parcel_rows):
    """What the run, the record and both replays say is the same, and metrics of the task are watched."""
    if task == "network" and find_spec("torch") is None:
        pytest.skip("the extra 'deep' is not installed: make deep")
    label, more, decide, outputs = TASKS[task]
    write(tmp_path, label, more, decide)
    clock = SimulatedClock(START + DAYS * DAY)
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.data.ingest("parcels", parcel_rows)
        p.features.build()
        assert p.features.verify().ok
        run = p.train("parcel")
        assert run.replay().exact
        metric = next(iter(run.metrics))
        assert run.metrics[metric] is not None
        assert run.to_dict()["run"]["summary"]["ladder"]["rungs"]
        if task in {"regression", "quantile", "network"}:
            assert "chosen: " in str(run.plot("history"))
        if task == "prepared":
            assert "strength of the penalty" in str(run.plot("path"))
        text, stored = str(run), str(p.runs.get(run.ref))
        for word in ("better than", "what it costs", "one row, µs"):
            assert word in text
            assert word in stored
        assert ("members, and how much better the ensemble is by squared error" in stored) is (task == "stack")
        assert ("errs most like" in p.models.card("parcel@1").markdown()) is (task in ("stack", "ordered"))
        assert ("test rows  decided  precision  recall" in stored) is (task in ("multiclass", "ordered"))
        if task == "stack":
            assert "ensemble" in str(run.plot("members"))
            assert "member ridge" in str(run.plot("correlation"))
    with Project(tmp_path, actor="ben", clock=clock) as p:
        p.models.approve("parcel@1", reason="test")
        p.deploy("promise", force="test")
        at = from_micros(START + 40 * DAY)
        records = [
            p.decide("promise", depot=depot, weight=float(weight), express=False, sent=at.isoformat(),
                     key=f"p{1600 + number:05d}", at=at.isoformat(), explain=True)
            for number, (depot, weight) in enumerate([("north", 5), ("east", 70), ("south", 30)])
        ]  # fmt: skip
        for d in records:
            assert d.record.fallback is None, d.record.error
            assert d.decision in ("call", "ok")
            kept = d.record.outputs or {"score": d.record.score}
            assert list(kept) == outputs
            assert all(f"{name} " in str(d) and f"{name} " in str(d.lineage()) for name in outputs), str(d)
            assert d.record.reasons
            assert d.replay().exact
        report = p.monitor("promise", now=from_micros(START + DAYS * DAY).isoformat())
        assert report.counts["known"] == 3
        names = {m.name for part in report.slices for m in part.metrics}
        assert {f"mean_{name}" for name in kept if name in ("score", "value", "q50", 'p["late"]')} <= names


def test_gates_read_cost_groups_leaks_and_the_champion(tmp_path, parcel_rows):
    """Without a version in force nothing is better; a second version of the same rows is not better than the first."""
    gates = '["size_kb < 5000", "latency_us < 1e6", "leaks = 0", "dp_ratio(depot) < 1", "better_than_champion"]'
    write(tmp_path, LATE, f"{PREPARED}, gates={gates}", '{"call": "score >= threshold", "ok": "otherwise"}')
    clock = SimulatedClock(START + DAYS * DAY)
    with Project(tmp_path, actor="ana", clock=clock) as p:
        p.data.ingest("parcels", parcel_rows)
        p.features.build()
        first = {gate["gate"]: gate["status"] for gate in p.train("parcel").version.gates}
        assert set(first.values()) == {"pass"}
    with Project(tmp_path, actor="ben", clock=clock) as p:
        p.models.approve("parcel@1", reason="test")
        p.deploy("promise", force="test")
        second = {gate["gate"]: gate for gate in p.train("parcel", again=True).version.gates}
        assert second["better_than_champion"]["status"] != "pass"


@pytest.mark.parametrize("task", TASKS_THERE_ARE)
def test_a_listing_shows_the_metric_that_the_task_is_judged_by(task):
    """Of every task the primary one, whatever other metrics it has."""
    rows = make_problem(task).train
    outputs = np.full((len(rows.labels), rows.target.columns), 1 / rows.target.columns).cumsum(axis=1)
    if task == "multiclass":
        outputs = np.full_like(outputs, 1 / rows.target.columns)
    values = evaluate(rows.labels, outputs.squeeze(), rows.target, groups=rows.groups).values()
    assert headline(values).split()[0] == primary(rows.target)[0]
