"""Performance per period and group, against pandas and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from retrodict import Label, Model, Monitor, Policy, Recipe, Table, TimeSplit, Trigger, columns
from retrodict.core.clock import parse_time
from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import canonical_json
from retrodict.core.names import find_faults
from retrodict.core.statistics.survival import event_by
from retrodict.core.tasks import Target
from retrodict.evaluation import Metric, evaluate
from retrodict.monitoring.drift import DriftReport
from retrodict.monitoring.performance import OTHERS, Slice, performance
from retrodict.monitoring.periods import Period
from retrodict.monitoring.triggers import judge_trigger, measure
from retrodict.outcomes.status import Outcomes, outcomes


@pytest.fixture
def given(project, kit):
    """2,000 decisions over two months: some pending, some void, some by a fallback without a score."""
    rng = np.random.default_rng(3)
    times = np.sort(rng.integers(kit.START, kit.NOW, 2000))
    scores = rng.random(2000)
    delays = np.where(rng.random(2000) < scores, 60.0, 0.0)
    arrivals = [int(t + rng.integers(1, 30) * HOUR) if rng.random() > 0.1 else None for t in times]
    records = []
    for at, moment in enumerate(times):
        facts = (
            {"raw": None, "score": None, "fallback": "ok"}
            if at % 10 == 0
            else {"raw": float(scores[at]), "score": float(scores[at])}
        )
        carrier = ["B6", "DL", None][at % 3]
        records.append(
            kit.record(
                at,
                time=int(moment),
                entities={"carrier": carrier},
                context={"gate": [6, 3, 6, 3, 6, 0, 1][at % 7]},
                **facts,
            )
        )
    kit.log(project, records)
    project.tables.write("flights", kit.flights([r.key for r in records], delays.tolist(), arrivals))
    return outcomes(project, "warn_early", now=kit.NOW)


def _frame(given) -> pd.DataFrame:
    columns = {name: given.column(name) for name in ("time", "score", "fallback", "entity__carrier")}
    frame = pd.DataFrame({**columns, "status": given.status, "label": given.label})
    frame["month"] = pd.to_datetime(frame["time"], unit="us").dt.strftime("%Y-%m")
    return frame


def test_counts_and_metrics_equal_those_of_pandas_and_scikit_learn(given):
    """Every month and every carrier in it."""
    found = performance(given, by=["carrier"], min_labels=10)
    frame = _frame(given)
    assert len(found) == 2 * (1 + 3)
    for part in found:
        rows = frame[frame["month"] == part.period.name]
        if part.by is not None:
            rows = rows[rows["entity__carrier"].isna() if part.value is None else rows["entity__carrier"] == part.value]
        counts = rows["status"].value_counts()
        assert (part.decisions, part.labelled, part.pending, part.void) == (
            len(rows), *(counts.get(s, 0) for s in ("known", "pending", "void")),
        )  # fmt: skip
        both = rows[(rows["status"] == "known") & rows["score"].notna()]
        truth, score = both["label"], both["score"]
        known = rows[rows["status"] == "known"]
        assert part.unscored == rows["score"].isna().sum()
        assert part.unscored_known == known["score"].isna().sum()
        expected = {
            "auc": sk.roc_auc_score(truth, score), "pr_auc": sk.average_precision_score(truth, score),
            "brier": sk.brier_score_loss(truth, score), "log_loss": sk.log_loss(truth, score),
            "calibration_ratio": truth.sum() / score.sum(), "label_rate": known["label"].mean(),
            "mean_score": rows["score"].mean(), "fallback_share": rows["fallback"].notna().mean(),
        }  # fmt: skip
        for name, value in expected.items():
            assert part[name].value == pytest.approx(value, rel=1e-9), name
        assert part["auc"].low < part["auc"].value < part["auc"].high


def test_every_decision_is_in_exactly_one_slice_of_each_kind(given):
    """Periods partition the decisions, and so do the groups of a period."""
    found = performance(given, by=["carrier", "gate"], period="9d")
    for by in (None, "carrier", "gate"):
        assert sum(part.decisions for part in found if part.by == by) == len(given)
    assert all(part.decisions == part.labelled + part.pending + part.void for part in found)


def test_too_few_labels_are_not_evaluable_with_the_reason(given):
    """Never zero, never success."""
    part = performance(given, min_labels=5000)[0]
    assert part["auc"].value is None
    assert "fewer than the 5000 needed" in part["auc"].reason
    assert "fewer than the 5000 needed" in part["label_rate"].reason
    assert part["fallback_share"].value is not None


def test_a_period_is_complete_when_it_is_over_and_wholly_covered(given, kit):
    """At the last instant of April it is not; a report from mid-March on does not see March whole."""
    assert [part.complete for part in performance(given)] == [True, True]
    middle = kit.START + 10 * DAY
    late = given.select(given.column("time") >= middle)
    assert [part.complete for part in performance(late, start=middle)] == [False, True]
    assert [part.complete for part in performance(given, end=kit.NOW - 1)] == [True, False]


def test_a_month_without_decisions_is_listed(project, kit):
    """Silence is a finding."""
    kit.log(project, [kit.record(0)])
    found = performance(outcomes(project, "warn_early", now=parse_time("2013-05-10T00:00Z")))
    assert [(part.period.name, part.decisions) for part in found] == [("2013-03", 1), ("2013-04", 0), ("2013-05", 0)]
    assert found[1]["fallback_share"].reason == "no decisions"


def test_rare_segments_are_shown_together(given):
    """The most frequent ones by name, the rest as one, nothing lost."""
    found = [part for part in performance(given, by=["gate"], max_groups=2) if part.by]
    gates = pd.Series(given.column("context__gate")).map({6.0: "6", 3.0: "3"}).fillna(OTHERS)
    counted = pd.Series([part.decisions for part in found], [part.value for part in found]).groupby(level=0).sum()
    assert counted.to_dict() == gates.value_counts().to_dict()


def test_an_unknown_segment_is_refused_with_near_names(given):
    """At the first report, not silently empty."""
    with pytest.raises(InputError, match=r"got 'carier'. Did you mean the group 'carrier'"):
        performance(given, by=["carier"])


def test_a_feature_may_go_by_its_own_name(world, kit):
    """Where only one view has it."""
    project, _, _ = world
    found = performance(outcomes(project, "warn_early", now=kit.NOW), by=["origin"])
    assert {part.value for part in found if part.by} == {"EWR", "JFK", "LGA"}


def test_the_plain_form_is_json(given):
    """No NaN, no NumPy."""
    assert canonical_json([part.to_dict() for part in performance(given, by=["carrier"])])


def test_rows_that_were_lost_bias_no_rate_of_a_horizon():
    """Half are lost: the rate is Kaplan-Meier's, the Brier score that of a run, a true model has ratio 1."""
    rng, count, target = np.random.default_rng(0), 20_000, Target("survival", horizons=("90d",))
    days, ends = rng.exponential(90, count), rng.exponential(90, count)
    labels, truth = np.where(days <= np.minimum(ends, 400), days, -np.minimum(ends, 400)), 1 - np.exp(-1)
    now, zeros = parse_time("2024-06-01T00:00:00Z"), np.zeros(count, dtype=np.int64)
    decisions = pa.table({"time": zeros + now - 400 * DAY, "fallback": pa.nulls(count), "key": pa.nulls(count),
                          'output__event_by["90d"]': np.full(count, truth)})  # fmt: skip
    status = np.where((labels > 0) | (labels <= -90), "known", "void")
    facts = Outcomes("keep", now, decisions, status, labels, zeros, 0, 0, 0, 0, (), target, np.full(count, 400.0))
    part = next(part for part in performance(facts) if part.decisions)
    assert part["event_rate_90d"].value == pytest.approx(event_by(labels, np.array([90.0]))[0])
    assert part["event_rate_90d"].low < truth < part["event_rate_90d"].high
    assert part["calibration_ratio_90d"].value == pytest.approx(1, abs=0.02)
    run = evaluate(labels, np.full((count, 1), truth), target)["brier_90d"].value
    assert part["brier_90d"].value == pytest.approx(run)
    numbers = measure(part, DriftReport(None, "no decisions", 0, 0), Metric("auc", None, "no area", 0))
    assert numbers.values["event_rate_90d"] == part["event_rate_90d"].value
    assert numbers.bounds["brier_90d"] == (part["brier_90d"].low, part["brier_90d"].high)
    assert numbers.values["auc"] is None


def _watching(on: str, *, horizons: tuple[str, ...] = ()) -> tuple[Monitor, Trigger]:
    """A monitor with one trigger: of the time until somebody leaves, or of a number of days."""
    stays = Table("stays", key="id", columns={"seen": "time", "left": "time", "days": "float"})
    by_time = {"label": Label("stay", stays, "left", horizons=horizons), "recipe": "cox", "when": "event_by['90d'] > 0"}
    by_days = {"label": Label("stay", stays, "days", known_at="left"), "recipe": "linear", "when": "value > 1"}
    parts = by_time if horizons else by_days
    recipe = Recipe(parts["recipe"], TimeSplit("2024-01-01/2024-03-01"))
    task = {} if horizons else {"task": "regression"}
    model = Model("stay", label=parts["label"], decide_at="seen", features=[columns("id")], recipe=recipe, **task)
    when = parts["when"].replace("'", '"')
    trigger = Trigger.retrain(on=on, min_labels=0)
    return Monitor(Policy("keep", model, decide={"call": when, "ok": "otherwise"}), triggers=[trigger]), trigger


@pytest.mark.parametrize(
    ("on", "horizons", "status"),
    [("brier_90d > 0.2", ("90d",), "fires"), ("brier_90d > 0.24", ("90d",), "quiet"),
     ("auc_90d < 0.6", ("90d",), "not evaluable"), ("rmse > 4", (), "fires"), ("rmse > 6", (), "quiet")],
)  # fmt: skip
def test_triggers_read_the_metrics_of_the_task(on: str, horizons: tuple[str, ...], status: str) -> None:
    """Of a horizon as of a number; what was not measured is not evaluable and says so."""
    watch, trigger = _watching(on, horizons=horizons)
    metrics = [Metric("brier_90d", 0.25, None, 500, 0.23, 0.27), Metric("rmse", 5.0, None, 500, 4.5, 5.5)]
    part = Slice(Period("2024-04", 0, 1), True, None, None, 500, 500, 0, 0, 0, 0, tuple(metrics))
    numbers = measure(part, DriftReport(None, "no decisions", 0, 0), Metric("auc", None, "no area", 0))
    assert judge_trigger(watch, trigger, numbers, firings=[], now=1).status == status


def _check(watch: Monitor) -> None:
    watch.check()
    for fault in find_faults([watch], {"stays": None}):
        raise fault


@pytest.mark.parametrize("on", ["auc_30d > 0.5", "rmse > 1", "brier_90d > 1.5", "label_rate > 0.5"])
def test_a_trigger_of_a_time_to_an_event_reads_its_horizons_only(on: str) -> None:
    """Another horizon, a metric of numbers, and a value that no Brier score has are refused at definition."""
    watch, _ = _watching(on, horizons=("90d",))
    with pytest.raises(DefinitionError, match=r"must read numbers that are measured|must be one that can fire"):
        _check(watch)
