"""Names that definitions use: what nothing has is refused with the near one, where it can be known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from retrodict import Project
from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import can_hold, parse
from retrodict.data.ingest import ingest
from retrodict.evaluation.gates import GATE_METRICS, gate_metrics
from retrodict.evaluation.metrics import evaluate
from retrodict.learning import train
from retrodict.monitoring.triggers import NUMBERS
from retrodict.project.plan import read_plan
from retrodict.rollout import deploy
from retrodict.workspace import Workspace, load_definitions

DEFINITIONS = """
from retrodict import *

customers = Table("customers", key="pid", columns={"pid": "int", "since": "time"})
loans = Table("loans", key="id", columns={"asked": "time", "closed": "time", "lost": "int", "amount": "float",
                                          "state": "string"},
              checks=[Check.references("person", "customers", to="pid", severity="critical"),
                      Check.between("amount", 0, 1e6, where="state <> 'x'"),
                      Check.disjoint("id", "loans__quarantine", on_unknown="pass")])
closed = Source("closed", loans, event_time="asked", known_at="closed", sequence="id", where="state <> 'x'")
history = FeatureView("history", Entity("person"), closed, [agg.count(over="30d"), agg.mean("amount", over="30d"),
                      agg.share("amount > 5", over="9d", where="state = 'y'"), latest("rate")])

@derived
def size(amount, history__count_30d):
    return {"large": amount > history__count_30d}

label = Label("defaulted", loans, "lost > 0", known_at="closed")
risk = Model("risk", label=label, decide_at="asked - 1h", features=[history, size],
             gates=["auc >= 0.6", "beats_ladder"],
             recipe=Recipe("constant", TimeSplit("2020-01-01/2020-03-01"), baseline_group="history__latest_rate",
                                               types={"history__count_30d": "category"}))
grant = Policy("grant", risk, decide={"no": "score >= 0.5", "ask": "score >= 0.3 and score < 0.4", "wait": "never",
                                      "yes": "otherwise"},
               rules=[Rule("big", when="amount > 5 and score > 0.1", then="wait", reason="big"),
                      Rule("rated", when="rate is not null and score > 0.1", then="no", reason="rated")],
               reasons={"history__count_30d": "{person} has {value:.0f} loans"})
watch = Monitor(grant, by=["person", "history__latest_rate"],
                triggers=[Trigger.retrain(on="psi > 1 or auc_drop > 0.1")])
inputs = FeatureService("inputs", [history])
"""
BROUGHT_IN = (
    DEFINITIONS
    + """
stop = Guard("stop", grant, when=["error_rate > 0.01"], window="12h", baseline="3d", unit="person", min_units=200)
guards = Guard.defaults(grant, unit="amount")
slow = Rollout("slow", grant, bake="2h", unit="person", where="amount < 3", inconclusive="wait 5h then pause")
paid = Metric.rate("paid", "label = 1", within="6h")
tone = Experiment("tone", grant, {"control": 50, "soft": 50}, unit="person", mde=0.2, pre_period="8d", primary=paid,
                  where="amount < 9")
"""
)

REFUSED_AT_LOAD = {
    "a gate's metric": ("auc >= 0.6", "acu >= 0.6", r"definitions.py:\d+: model risk.*'acu'.*'auc'"),
    "a gate in percent": ("auc >= 0.6", "auc >= 60", "a model can pass; got 'auc >= 60'. auc lies between 0 and 1"),
    "a threshold in percent": ("score >= 0.5", "score >= 50", "some score reaches; got 'score >= 50'.*'never'"),
    "a decision behind another": ("score < 0.4", "score >= 0.6", "decide 'ask': a decision.*some score reaches"),
    "a rule's threshold": ('0.1", then="wait', '10", then="wait', "rule big: a rule must.*can fire"),
    "a rule's name": ("amount > 5 and", "amuont > 5 and", "names that exist; got 'amuont'.*'amount'"),
    "words of no feature": ('reasons={"history__count_30d', 'reasons={"history__cuont_30d', "words must belong"),
    "words of no value": ("{person} has", "{persn} has", "a field of the words.*'persn'.*'person'"),
    "a check's table": ('"customers", to=', '"custmers", to=', r"\.py:\d+: table loans.*'custmers'.*'customers'"),
    "a source's table": ('customers = Table("customers"', 'Table("customers"', "look into a table that is defined"),
    "a derived input": ("history__count_30d):", "history__cuont_30d):", "that come before it.*'history__count"),
    "a baseline's group": ('group="history__latest_rate"', 'group="history__rate"', "group: .*'history__rate'"),
    "a type": ('{"history__count_30d": "cat', '{"history__cout_30d": "cat', "types: a type must.*'history__count_30d'"),
    "a trigger's number": ("psi > 1", "pis > 1", "numbers that are measured; got 'pis'.*'psi'"),
    "a trigger's threshold": ("psi > 1 or auc_drop > 0.1", "auc_drop > 10", "can fire.*auc_drop lies between -1 and 1"),
    "a monitor's group": ('"history__latest_rate"],', '"history__latest_rat"],', "by: .*'history__latest_rat'"),
    "a monitor's value": ('by=["person",', 'by=["peson",', "monitor grant, by: .*'peson'.*'person'"),
    "a guard's unit": ('"person", min_units=200', '"persn"', r"\.py:\d+: guard stop, unit: .*'persn'.*'person'"),
    "a default guard's unit": ('unit="amount"', 'unit="amuont"', "guard grant_quality, unit.*'amuont'.*'amount'"),
    "a rollout's unit": ('"2h", unit="person"', '"2h", unit="persn"', "rollout slow, unit.*'persn'.*'person'"),
    "an experiment's unit": ('unit="person", mde', 'unit="persn", mde', "experiment tone, unit.*'persn'.*'person'"),
    "a rollout's cohort": ("amount < 3", "amuont < 3", r"\.py:\d+: rollout slow, where: .*'amuont'.*'amount'"),
    "an experiment's cohort": ("amount < 9", "amuont < 9", "tone, where: .*requests bring.*'amuont'.*'amount'"),
    "a metric's decision": ('"label = 1"', '"decision = \'yess\'"', "tone, metric paid: .*'yess'.*'yes'"),
    "a guard of nothing": ('"stop", grant', '"stop"', "guard stop: a guard must be for a policy"),
    "a guard's window": ('window="12h"', 'window="0s"', "guard stop, window: a duration must be longer than 0"),
    "a guard's baseline": ('baseline="3d"', 'baseline="0d"', "guard stop, baseline: a duration must be longer"),
    "a guard's units": ("min_units=200", "min_units=10**12", "min_units must be a whole number up to 1,000,000"),
    "a step's time": ('bake="2h"', 'bake="0h"', "rollout slow, bake: a duration must be longer than 0"),
    "a wait": ("wait 5h then", "wait 0h then", "rollout slow, inconclusive: a duration must be longer than 0"),
    "a metric's time": ('within="6h"', 'within="0s"', "metric paid, within: a duration must be longer than 0"),
    "time before": ('pre_period="8d"', 'pre_period="0d"', "pre_period: a duration must be longer than 0"),
    "a label of text": ('"lost > 0"', '"state"', "a gate of the task 'multiclass' must read metrics.*'auc'"),
    "a label of two kinds": ('"lost > 0"', '"state > 0"', "label defaulted: .*must be"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), REFUSED_AT_LOAD.values(), ids=REFUSED_AT_LOAD)
def test_what_needs_no_data_is_refused_when_loaded(
    make_project: Callable[..., Workspace], old: str, new: str, message: str
) -> None:
    """With the line and the near name; code that was captured before still loads."""
    assert BROUGHT_IN.count(old) >= 1
    workspace = make_project(BROUGHT_IN.replace(old, new))
    with pytest.raises(DefinitionError, match=message):
        _ = workspace.definitions
    assert len(load_definitions(workspace.root / "definitions.py")) > 5


def test_definitions_without_a_fault_load(make_project: Callable[..., Workspace]) -> None:
    """Rules alone may make a decision; a condition that other columns decide is not judged."""
    workspace = make_project(BROUGHT_IN)
    assert len(workspace.definitions) > 5
    assert read_plan(workspace).notes == ()
    assert read_plan(workspace).findings == ()  # without rows nothing is known of columns that are not declared


@pytest.mark.parametrize("call", ['Guard("late", "grant", when=["drift"])', 'Guard.defaults("grant")',
                                  'Rollout("late", "grant", unit="person")'])  # fmt: skip
def test_a_policy_by_its_name_is_refused_with_what_to_pass(make_project: Callable[..., Workspace], call: str) -> None:
    workspace = make_project(f"{DEFINITIONS}\nlate = {call}\n")
    with pytest.raises(DefinitionError, match=r"the policy must be a Policy, the object and not its name; got 'grant'"):
        _ = workspace.definitions


def test_plan_warns_of_a_guard_on_drift_that_nothing_tells_it_of(make_project: Callable[..., Workspace]) -> None:
    workspace = make_project(BROUGHT_IN.replace("psi > 1 or ", ""))
    (note,) = read_plan(workspace).notes
    assert note.startswith("grant_inputs acts on drift, and no Monitor of grant has a trigger on psi")
    assert f"Warning: {note}" in " ".join(str(read_plan(workspace)).split())


def test_a_monitor_may_group_by_a_value_that_only_it_reads(make_project: Callable[..., Workspace]) -> None:
    """A context may bring more than is decided by."""
    assert len(make_project(BROUGHT_IN.replace('by=["person",', 'by=["region",')).definitions) > 5


def test_the_first_fault_tells_how_many_more_there_are(make_project: Callable[..., Workspace]) -> None:
    workspace = make_project(DEFINITIONS.replace("acu", "").replace("auc >= 0.6", "acu >= 0.6").replace("psi", "pis"))
    with pytest.raises(DefinitionError, match=r"\(1 more like this\)"):
        _ = workspace.definitions


ROWS = pa.table({
    "id": [1, 2], "person": [7, 8], "asked": ["2020-01-05T10:00Z", "2020-01-06T10:00Z"],
    "closed": ["2020-02-05T10:00Z", "2020-02-06T10:00Z"], "lost": [0, 3], "amount": [1.0, 2.0], "state": ["y", "x"],
    "rate": [0.1, 0.2],
})  # fmt: skip
COLUMNS = {
    "a check": ('Check.between("amount"', 'Check.between("amuont"', "check between(amuont, 0, 1000000.0)", "amount"),
    "a check's rows": ("where=\"state <> 'x'\"),\n", "where=\"sate <> 'x'\"),\n", "a check must read columns", "state"),
    "the other table": ('to="pid"', 'to="pidd"', "the other table must have the column", "pid"),
    "a clock": ('known_at="closed", seq', 'known_at="clsoed", seq', "source 'closed', known at", "closed"),
    "a source's rows": ("id\", where=\"state", "id\", where=\"stte", "source 'closed', where", "state"),
    "an entity": ('Entity("person")', 'Entity("person", keys=["persxx"])', "view 'history', key", "person"),
    "a feature": ('agg.mean("amount"', 'agg.mean("amonut"', "view 'history', feature", "amount"),
    "a share": ('agg.share("amount > 5"', 'agg.share("amonut > 5"', "view 'history', feature", "amount"),
    "a feature's rows": ("where=\"state = 'y'\"", "where=\"stat = 'y'\"", "view 'history', feature", "state"),
    "a latest": ('latest("rate")', 'latest("rte", name="latest_rate")', "view 'history', feature", "rate"),
    "a label": ('"lost > 0"', '"lots > 0"', "label defaulted, expression", "lost"),
    "its time": ('0", known_at="closed"', '0", known_at="clsed"', "label defaulted, known_at", "closed"),
    "the moment": ('"asked - 1h"', '"aksed - 1h"', "model risk, decide_at", "asked"),
    "an input": ("(amount, history", "(amuont, history", "model risk, features", "amount"),
}  # fmt: skip


def _filled(make_project: Callable[..., Workspace]) -> Workspace:
    workspace = make_project(DEFINITIONS)
    since = pa.array([0, 0], pa.timestamp("us", "UTC"))
    ingest(workspace, "customers", pa.table({"pid": [7, 8], "since": since}))
    ingest(workspace, "loans", ROWS)
    return workspace


@pytest.mark.parametrize(("old", "new", "where", "near"), COLUMNS.values(), ids=COLUMNS)
def test_what_tables_have_is_told_by_plan_and_refused_by_train_and_deploy(
    make_project: Callable[..., Workspace], old: str, new: str, where: str, near: str
) -> None:
    """Every definition that names a column which its table, with rows, does not have."""
    root = _filled(make_project).root
    assert Project(root).plan().ok
    assert old in DEFINITIONS
    text = DEFINITIONS.replace(old, new)
    text = text.replace("amount > 5 and", "score > 0.2 and").replace("{person} has", "")  # they follow the features
    (root / "definitions.py").write_text(text)
    workspace = Workspace(root, actor="ana")
    plan = read_plan(workspace)
    assert not plan.ok
    assert any(where in finding and f"'{near}'" in finding for finding in plan.findings)
    assert "Definitions that cannot hold:" in str(plan)
    for act in (lambda: train(workspace, "risk"), lambda: deploy(workspace, "grant")):
        with pytest.raises(DefinitionError, match=near):
            act()
    assert workspace.ledger.entries(action="run.start") == []


def test_a_declared_column_may_come_with_a_later_batch(make_project: Callable[..., Workspace]) -> None:
    """What the table's definition names is known, whether or not a row has it yet."""
    root = _filled(make_project).root
    text = DEFINITIONS.replace('latest("rate")', 'latest("rate", "grade")')
    (root / "definitions.py").write_text(text)
    assert any("'grade'" in finding for finding in Project(root).plan().findings)
    (root / "definitions.py").write_text(text.replace('"amount": "float"', '"amount": "float", "grade": "int"'))
    assert Project(root).plan().findings == ()


def test_a_number_as_a_label_of_a_yes_or_no_is_called_what_it_is(make_project: Callable[..., Workspace]) -> None:
    """Numbers 0 and 1 are a yes or no; the remedy for others is a comparison, not to drop rows."""
    root = _filled(make_project).root
    text = DEFINITIONS.replace('"lost > 0"', '"lost"').replace("recipe=", 'task="binary", recipe=')
    (root / "definitions.py").write_text(text)
    with pytest.raises(
        DefinitionError, match=r"label 'defaulted': a label must be true or false; got '1 numbers.*'lost > 0'"
    ):
        train(Workspace(root, actor="ana"), "risk")


def test_every_metric_of_the_test_rows_can_be_a_gate() -> None:
    """And no other name can, but the ladder's verdict."""
    assert {*evaluate([0, 1], [0.1, 0.9], threshold=0.5).values()} == set(GATE_METRICS["binary"])
    assert {*gate_metrics("binary")} - {*GATE_METRICS["binary"]} == {
        "beats_ladder", "better_than_champion", "latency_us", "leaks", "size_kb"}  # fmt: skip
    assert "auc_drop" in NUMBERS


@pytest.mark.parametrize(
    ("text", "unless", "holds"),
    [
        ("score >= 1", [], True), ("score > 1", [], False), ("score < 0", [], False), ("score <= 0", [], True),
        ("score * 100 >= 50", [], True), ("score * 100 >= 5000", [], False), ("score = 0.123456789", [], True),
        ("score between 0.2 and 0.1", [], False), ("score > 0.5", ["score > 0.5"], False),
        ("score >= 0.5", ["score > 0.5"], True), ("score > 0.3", ["score < 0.4", "score >= 0.4"], False),
        ("not score <= 1", [], False), ("score in (2, 3)", [], False), ("score > 5 or x > 1", [], True),
        ("score > 5 and x > 1", [], False), ("coalesce(x, 1) > 0 and score > 0.5", [], True),
        ("x is not null and score > 0.5", [], True), ("score is null", [], False),
    ],
)  # fmt: skip
def test_a_condition_holds_where_some_score_meets_it(text: str, unless: list[str], holds: bool) -> None:
    """By hand: the ends of the range belong to it, and what other columns may decide is not ruled out."""
    assert can_hold(parse(text), "score", (0.0, 1.0), unless=[parse(each) for each in unless]) is holds


def test_a_notebook_writes_no_definitions_with_a_fault(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "definitions.py"
    path.write_text(DEFINITIONS.replace("auc >= 0.6", "acu >= 0.6"))
    with pytest.raises(DefinitionError, match="'acu'"):
        Project(tmp_path / "notebook", definitions=list(load_definitions(path)))
    assert not (tmp_path / "notebook" / "definitions.py").exists()
