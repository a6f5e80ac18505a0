"""The report of a monitor: what it holds, where it is kept, when its triggers fire."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retrodict.core.clock import parse_time
from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import DefinitionError
from retrodict.decisions.score_drops import newest_drop, read_drops
from retrodict.evaluation.metrics import Metric
from retrodict.ledger import verify
from retrodict.monitoring.definitions import Monitor, Trigger
from retrodict.monitoring.drift import DriftReport
from retrodict.monitoring.performance import Slice
from retrodict.monitoring.periods import Period
from retrodict.monitoring.report import monitor
from retrodict.monitoring.triggers import measure

MAY = "2013-05-01T00:00Z"


def _statuses(report) -> list[str]:
    return [result.status for result in report.triggers]


def test_the_report_holds_outcomes_performance_and_drift(world, kit):
    """March looks like training, in April the wind is stronger."""
    project, _, labels = world
    report = monitor(project, "watch", now=kit.NOW)
    assert dict(report.counts) == {
        "decisions": 1200,
        "known": 1200,
        "pending": 0,
        "void": 0,
        "revised": 0,
        "without_key": 0,
        "unmatched": 0,
        "stale_fallbacks": 0,
    }
    assert report.warnings == []
    assert {name: each.drifted for name, each in report.drifts.items()} == {"2013-03": [], "2013-04": ["weather__wind"]}
    assert report.drifts["2013-04"].score.verdict.status == "drift"
    assert report.drifts["2013-04"].label_rate.status == "changed"
    assert (report.revision, report.model) == ("policy:warn_early#1", "late_arrival@1")
    whole = [part for part in report.slices if part.by is None]
    assert sum(part["label_rate"].value * part.labelled for part in whole) == pytest.approx(labels.sum())
    assert {part.value for part in report.slices if part.by == "carrier"} == {"B6", "DL", "UA"}


def test_a_feature_that_an_older_version_did_not_read_is_no_drift(world, kit):
    """Its decisions are left out of that feature, and the report says how many; a null that was asked for counts."""
    project, records, _ = world
    old = kit.train(project, run="r0", features=("weather__origin",))
    more = [
        kit.record(2000 + number, time=record.time + 1, model=old.ref, score=0.3, features={
            "weather__origin": record.features["weather__origin"]}) for number, record in enumerate(records[:600])
    ]  # fmt: skip
    kit.log(project, more)
    march = monitor(project, "watch", now=kit.NOW).drifts["2013-03"]
    assert (march.drifted, dict(march.not_asked)) == ([], {"weather__wind": 600})
    assert sum(march.features["weather__wind"].current) == 600
    assert "left out, of versions that did not read it" in str(monitor(project, "watch", now=kit.NOW))
    kit.log(project, [kit.record(4000 + n, time=one.time + 2, features={"weather__wind": None})
                      for n, one in enumerate(records[:600])])  # fmt: skip
    assert monitor(project, "watch", now=kit.NOW).drifts["2013-03"].drifted == ["weather__wind"]


def test_triggers_read_the_last_complete_period(world, kit):
    """Drift fires in April; an AUC drop that did not happen is quiet, with its number."""
    project, _, _ = world
    report = monitor(project, "watch", now=kit.NOW)
    assert _statuses(report) == ["fires", "quiet"]
    fired = report.fired[0]
    assert fired.period == "2013-04"
    assert fired.numbers["psi"] == report.drifts["2013-04"].psi
    whole = next(part for part in report.slices if part.period.name == "2013-04" and part.by is None)
    assert fired.numbers["auc_drop"] == pytest.approx(0.75 - whole["auc"].value)
    assert (fired.numbers["labels"], fired.numbers["decisions"]) == (600, 600)
    # Of 3,000 test rows with an area of 0.75: Hanley & McNeil's variance, with Newcombe's for the difference.
    positives = kit.make_rows(3000, 1)[1].sum()
    rank = 0.75 * 0.25 + (positives - 1) * (0.75 / 1.25 - 0.75**2) + (2999 - positives) * (1.125 / 1.75 - 0.75**2)
    half, auc = 1.959964 * np.sqrt(rank / (positives * (3000 - positives))), whole["auc"]
    bounds = (
        0.75 - auc.value - np.hypot(half, auc.high - auc.value),
        0.75 - auc.value + np.hypot(half, auc.value - auc.low),
    )
    assert fired.bounds["auc_drop"] == pytest.approx(bounds, abs=1e-6)


def test_a_running_period_does_not_count_yet(world):
    """In the middle of April the last complete month is March, which did not drift."""
    project, _, _ = world
    assert _statuses(monitor(project, "watch", now=parse_time("2013-04-20T00:00Z"))) == ["quiet", "quiet"]


def test_before_the_first_period_is_over_nothing_is_evaluable(world, kit):
    """And the reason says so."""
    project, _, _ = world
    report = monitor(project, "watch", now=kit.START + 5 * DAY)
    assert [(r.status, r.reason) for r in report.triggers] == [("not evaluable", "no period is complete yet")] * 2


def test_a_trigger_cools_down_and_then_fires_on_a_new_period_only(world, kit):
    """Within the cooldown; after it on the same month; in a new period again."""
    project, _, _ = world
    assert _statuses(monitor(project, "watch", now=kit.NOW))[0] == "fires"
    soon = monitor(project, "watch", now=kit.NOW + HOUR).triggers[0]
    assert (soon.status, "cooldown 1d" in soon.reason) == ("cooling down", True)
    later = monitor(project, "watch", now=kit.NOW + 5 * DAY).triggers[0]
    assert (later.status, "for this period" in later.reason) == ("cooling down", True)
    weekly = monitor(project, "watch", now=kit.NOW + 5 * DAY, end=parse_time("2013-04-18T00:00Z"), period="7d")
    assert weekly.triggers[0].status == "fires"
    assert len(project.ledger.entries(action="trigger.fire")) == 2


def test_a_report_over_the_past_knows_nothing_of_what_fired_later_and_does_not_fire_it_again(world):
    """It says what was known then: the condition held. The ledger has the one firing."""
    project, _, _ = world
    later, earlier = (
        monitor(project, "watch", now=parse_time(now), period="7d")
        for now in ("2013-04-25T01:00Z", "2013-04-24T23:00Z")
    )
    assert later.triggers[0].period != earlier.triggers[0].period
    assert [report.triggers[0].status for report in (later, earlier)] == ["fires", "fires"]
    assert "2013-04-25" not in str(earlier.to_dict()["triggers"])
    assert [entry.payload["at"] for entry in project.ledger.entries(action="trigger.fire")] == [later.now]


def test_the_same_report_twice_fires_once(world, kit):
    """A firing of the same instant is known to the second, whoever made it."""
    project, _, _ = world
    assert [_statuses(monitor(project, "watch", now=kit.NOW))[0] for _ in range(2)] == ["fires", "cooling down"]


def test_a_later_firing_cools_down_only_what_is_near_it(world):
    """A report on a time more than the cooldown before a firing fires for its own period."""
    project, _, _ = world
    later, earlier = (
        monitor(project, "watch", now=parse_time(now), period="7d")
        for now in ("2013-04-25T01:00Z", "2013-04-18T01:00Z")
    )
    assert [report.triggers[0].status for report in (later, earlier)] == ["fires", "fires"]


def test_too_few_labels_make_a_trigger_not_evaluable(world, kit):
    """Whatever the drift."""
    project, _, _ = world
    policy = project.definitions.get(Monitor, "watch").policy
    demanding = Monitor(policy, triggers=[Trigger.retrain(on="psi > 0.25", min_labels=5000)])
    result = monitor(project, demanding, now=kit.NOW).triggers[0]
    assert (result.status, result.reason) == ("not evaluable", "600 known outcomes are fewer than the 5000 needed")


def test_a_number_that_is_not_evaluable_does_not_fire_and_says_why(world, kit):
    """Unknown is not true; where another part is true, the whole is."""
    project, _, _ = world
    policy = project.definitions.get(Monitor, "watch").policy
    triggers = [Trigger.retrain(on=on, min_labels=0) for on in ("auc < 0.9", "auc < 0.9 or psi > 0.25")]
    report = monitor(project, Monitor(policy, triggers=triggers), now=kit.NOW, min_labels=5000)
    assert _statuses(report) == ["not evaluable", "fires"]
    assert report.triggers[0].reason == "auc: 600 labelled rows are fewer than the 5000 needed"


def test_the_bound_of_the_interval_decides(world, kit):
    """A value beyond the threshold whose interval is not: quiet, and the reason names the interval."""
    project, _, _ = world
    policy = project.definitions.get(Monitor, "watch").policy
    low, high = 0.0, 1.0
    for _ in range(2):  # first to learn the numbers, then to set thresholds between them
        conditions = [f"auc < {high}", f"auc > {low}", f"not (auc > {low})", f"auc < {high} and label_rate > 0.99"]
        triggers = [Trigger.retrain(on=on, min_labels=0) for on in conditions]
        report = monitor(project, Monitor(policy, triggers=triggers), now=kit.NOW)
        value, (least, most) = report.triggers[0].numbers["auc"], report.triggers[0].bounds["auc"]
        low, high = (least + value) / 2, (value + most) / 2
    assert _statuses(report) == ["quiet"] * 4
    assert f"auc is {value:.6g} ({least:.4g} to {most:.4g}): it need not hold" in report.triggers[0].reason
    sure = [Trigger.retrain(on=f"auc < {most + 0.001} and auc > {least - 0.001}", min_labels=0)]
    assert _statuses(monitor(project, Monitor(policy, triggers=sure), now=kit.NOW)) == ["fires"]


def test_an_estimate_without_an_interval_is_not_evaluable():
    """One row of a class has an area and no variance of it: no condition on that area, or on its drop, is known."""
    names = ("auc", "calibration_error", "calibration_ratio", "label_rate")
    alone = [Metric(name, 0.6, None, 500) for name in names]
    part = Slice(Period("2013-04", 0, 1), True, None, None, 500, 500, 0, 0, 0, 0, tuple(alone))
    numbers = measure(part, DriftReport(None, "no decisions", 0, 0), Metric("auc", 0.9, None, 900, 0.85, 0.95))
    assert {name: numbers.values[name] for name in (*names, "auc_drop")} == dict.fromkeys((*names, "auc_drop"))
    assert {numbers.reasons[name] for name in names} == {"it has no interval"}
    assert (numbers.reasons["auc_drop"], numbers.bounds) == ("one of the two areas has no interval", {})


def test_views_that_were_not_simply_read_are_counted_by_period_and_status(project, kit):
    """And the decisions that a fallback made since a required state was not current."""
    stale = {"weather": {"status": "stale", "age_s": 9000.0}}
    unseen = {"weather": {"status": "unseen", "age_s": None}, "habits": {"status": "no_state", "age_s": None}}
    fallen = {"fallback": "ok", "score": None, "raw": None}
    facts = [{"views": stale, "error": "StaleStateError", **fallen}] * 3 + [{"views": unseen}] * 2
    facts += [{"error": "TimeoutError", **fallen}] + [{}] * 4
    kit.log(project, [kit.record(at, entities={"carrier": "B6"}, **fact) for at, fact in enumerate(facts)])
    report = monitor(project, "watch", now=kit.NOW)
    counts = report.views["2013-03"]
    assert counts.statuses == {"habits": {"no_state": 2}, "weather": {"stale": 3, "unseen": 2}}
    assert (counts.decisions, counts.stale_fallbacks, report.counts["stale_fallbacks"]) == (10, 3, 3)
    assert report.to_dict()["views"]["2013-03"]["statuses"]["weather"] == {"stale": 3, "unseen": 2}
    assert ("2013-03", "weather", "stale", 3, "30.0%") in counts.rows("2013-03")


def test_it_says_when_outcomes_can_never_join(project, kit):
    """Four decisions without a key, three whose key no flight has, one that an outcome reaches, one cancelled."""
    keys = [None] * 4 + ["1.0", "2.0", "3.0", "f7", "cancelled"]
    kit.log(project, [kit.record(at, key=key, entities={"carrier": "B6"}) for at, key in enumerate(keys)])
    project.tables.write("flights", kit.flights(["f7", "cancelled"], [60.0, None], [kit.START + 9 * HOUR, None]))
    report = monitor(project, "watch", now=kit.NOW)
    without, unmatched = report.warnings
    assert without.startswith("4 of 9 decisions carry no key: no row of 'flights' will ever give them an outcome.")
    assert unmatched.startswith("3 of 5 matured decisions carry a key that no outcome has")
    assert (report.counts["without_key"], report.counts["unmatched"]) == (4, 3)
    young = monitor(project, "watch", now=kit.START + 10 * HOUR)
    assert [warning[:6] for warning in young.warnings] == ["4 of 9"]  # what has not matured may still join


def test_a_condition_on_a_number_that_does_not_exist_is_refused(world, kit):
    """With the near name; nothing is recorded."""
    project, _, _ = world
    policy = project.definitions.get(Monitor, "watch").policy
    with pytest.raises(DefinitionError, match="Did you mean the column 'auc_drop'"):
        monitor(project, Monitor(policy, triggers=[Trigger.retrain(on="auc_drops > 0.1")]), now=kit.NOW)
    assert project.ledger.entries(action="monitor.report") == []


def test_the_report_is_kept_and_traceable(world, kit):
    """The object is what to_dict says; lineage leads to label rows, revision and model; a firing names its evidence."""
    project, _, _ = world
    report = monitor(project, "watch", now=kit.NOW)
    name = f"report:{report.digest}"
    assert {"report": name, **json.loads(project.objects.get(report.digest))} == json.loads(
        json.dumps(report.to_dict())
    )
    sources = {source for _, _, source in project.ledger.upstream(report.fired[0].trigger)}
    assert {name, "dataset:flights@0", "policy:warn_early#1", "model:late_arrival@1", "run:r1"} <= sources
    checks = {"objects": project.objects, "streams": project.streams, "data": project.tables}
    assert verify(project.ledger, **checks).verified


def test_without_a_deployment_drift_is_not_evaluable_and_the_rest_is(project, kit):
    """A log can be older than the registry."""
    kit.log(project, [kit.record(at, entities={"carrier": "B6"}) for at in range(200)])
    report = monitor(project, "watch", now=kit.NOW)
    assert report.model is None
    assert report.drifts["2013-03"].reason == "no model version is in force"
    assert report.slices[0].decisions == 200


def test_an_empty_log_gives_a_report(project, kit):
    """Nothing decided, nothing evaluable, no error."""
    report = monitor(project, "watch", now=kit.NOW)
    assert report.counts["decisions"] == 0
    assert _statuses(report) == ["not evaluable"] * 2


def test_a_firing_on_drift_drops_the_cached_scores_of_what_drifted(world, kit):
    """In the same transaction, once; a trigger that does not read the drift drops nothing."""
    project, _, _ = world
    report = monitor(project, "watch", now=kit.NOW)
    monitor(project, "watch", now=kit.NOW)
    (entry,) = read_drops(project)
    drifted = report.drifts[report.triggers[0].period].drifted
    assert entry.payload["features"] == sorted(drifted) == ["weather__wind"]
    assert newest_drop([entry], "any", ["weather__wind"]) == (entry.sequence, entry.time)
    assert newest_drop([entry], "any", ["weather__rain"]) == (0, 0)
    policy = project.definitions.get(Monitor, "watch").policy
    other = Monitor(policy, triggers=[Trigger.retrain(on="decisions > 1", min_labels=0)], name="other")
    assert _statuses(monitor(project, other, now=kit.NOW)) == ["fires"]
    assert read_drops(project) == [entry]
