"""Experiments: who gets which variant, what is counted, what a report says, and what is refused."""

from __future__ import annotations

import math
import random
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from tests.rollout.test_ladder import World, add

from retrodict import Experiment, Label, Metric, Model, Policy, RandomSplit, Recipe, Table, columns
from retrodict.cli.main import run
from retrodict.core.clock import from_micros
from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import BusyError, DefinitionError, InputError, NotFoundError, RefusedError
from retrodict.decisions.variants import choose_variant
from retrodict.ledger import verify as audit
from retrodict.outcomes import ingest_outcomes
from retrodict.project.plan import read_plan
from retrodict.project.rollouts import Rollouts
from retrodict.registry import change, current, history
from retrodict.rollout import deploy, rollback
from retrodict.rollout.experiments import (
    ExperimentRun,
    controller,
    decide,
    evaluate_rule,
    find_run,
    find_runs,
    plan_experiment,
    report_on,
    report_page,
    start,
    stop,
)
from retrodict.rollout.experiments import report as report_module
from retrodict.rollout.experiments.report import _Judge, judge
from retrodict.rollout.experiments.rules import _choices
from retrodict.rollout.experiments.runs import record_plan
from retrodict.rollout.experiments.units import UnitRows, history_rows, read_units
from retrodict.rollout.statistics import holm, inflation, sample_size
from retrodict.serving.decider import Decider
from retrodict.workspace import Workspace

TONE = """
tone = Experiment("tone", promise, {"control": 50, "soft": 25, "firm": 25}, unit="weight", mde=0.2,
    primary=Metric.rate("late", "label = 1", better="lower"), segments=["depot"],
    guardrails=[Metric.rate("fallbacks", "fallback is not null", max_rise=0.05)],
    secondary=[Metric.mean("score", "score"), Metric.ratio("per kg", "score", per="weight")])
"""


@pytest.fixture
def world(original_pair, tmp_path):
    root = shutil.copytree(original_pair, tmp_path / "parcels")
    add(root, TONE)
    opened = World(root)
    yield opened
    opened.project.close()


def begin(world, **more):
    plan_experiment(world.project, "tone", baseline=0.4, units_per_day=100)
    return start(world.project, "tone", reason="test", **more)


def outcomes_of(world, records, late, seed=1):
    """Outcomes of decisions, 35 hours later, with a rate by variant."""
    rng = random.Random(seed)
    rows = [
        {"decision_id": record.id, "label": int(rng.random() < late[record.variants.get("tone", "control")]),
         "known_at": from_micros(record.time + 35 * HOUR)} for record in records
    ]  # fmt: skip
    ingest_outcomes(world.project, "promise", pa.Table.from_pylist(rows))


def test_ranges_are_those_of_the_published_vectors():
    """getBucketRange of GrowthBook's kits: weights, and coverage from the beginning of each range."""
    for weights, share, ranges in [
        ([0.5, 0.5], 1.0, [(0, 0.5), (0.5, 1)]),
        ([0.5, 0.5], 0.5, [(0, 0.25), (0.5, 0.75)]),
        ([0.25] * 4, 1.0, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
        ([0.4, 0.6], 1.0, [(0, 0.4), (0.4, 1)]),
        ([0.2, 0.3, 0.5], 1.0, [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
        ([0.2, 0.3, 0.5], 0.2, [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
    ]:
        named = {str(place): weight for place, weight in enumerate(weights)}
        for step in range(10_000):
            place = step / 10_000 + 1e-9  # the published ends are rounded
            inside = [str(n) for n, (low, high) in enumerate(ranges) if low <= place < high]
            assert choose_variant(place, named, share) == next(iter(inside), None), step


def test_answers_and_records_name_the_variant(world):
    """The same for a unit every time, in the shares of the weights; none before the start and after the stop."""
    assert not any(record.variants for record in world.ask(20))
    begin(world)
    records = world.ask(900)
    counts = {name: sum(r.variants["tone"] == name for r in records) for name in ("control", "soft", "firm")}
    assert counts == pytest.approx({"control": 450, "soft": 225, "firm": 225}, abs=60)
    assert records[0].answer()["variants"] == records[0].variants
    state = current(world.project)["promise"].deployment.experiments[0]
    assert state["seed"].startswith("tone@")
    stop(world.project, "tone", reason="test")
    assert not any(record.variants for record in world.ask(20))
    last = find_run(world.project, "tone")
    assert (last.since, last.until is not None) == (state["since"], True)


def test_a_share_grows_and_moves_nobody(world):
    """A fifth, then all: who had a variant keeps it; a share that does not rise is refused."""
    begin(world, share=0.2)
    weights = [float(n) / 7 for n in range(1, 400)]

    def variants():
        world.rng = random.Random(5)
        return {r.context["weight"]: r.variants.get("tone") for r in world.ask(len(weights))}

    few = variants()
    assert 40 < sum(v is not None for v in few.values()) < 130
    with pytest.raises(RefusedError, match="must rise"):
        start(world.project, "tone", share=0.1, reason="test")
    start(world.project, "tone", reason="all")
    every = variants()
    assert None not in every.values()
    assert {unit: variant for unit, variant in few.items() if variant} == {u: every[u] for u, v in few.items() if v}
    assert len(find_runs(world.project, "tone")) == 1


def test_weights_that_change_make_strata_and_a_unit_counts_as_it_was_first(world):
    """Rates fall while soft gets more units: pooled soft would be far better, in periods it is what it is."""
    begin(world, weights={"firm": 5, "soft": 5, "control": 90})
    assert current(world.project)["promise"].deployment.experiments[0]["variants"] == {
        "control": 0.9, "soft": 0.05, "firm": 0.05}  # fmt: skip
    weights = [float(n) / 7 for n in range(1, 900)]
    world.rng = random.Random(5)
    first = world.ask(len(weights))
    outcomes_of(world, first, dict.fromkeys(("control", "soft", "firm"), 0.9))
    start(world.project, "tone", weights={"control": 10, "soft": 80, "firm": 10}, reason="ramp")
    world.rng = random.Random(5)
    again, later = world.ask(len(weights)), world.ask(600)
    outcomes_of(world, again + later, dict.fromkeys(("control", "soft", "firm"), 0.2))
    world.wait(11 * DAY)
    report = report_on(world.project, "tone", now=world.clock.now())
    assert (sum(report.units.values()), report.crossed) == (len(first) + 600, 0)
    assert report.units["soft"] == sum(r.variants["tone"] == "soft" for r in first + later)
    assert report.balance.verdict == "success"
    assert "against 0.5" in report.balance.reason
    soft = report.effects[0]
    assert (soft.variant, soft.contrast.method, soft.contrast.verdict) == ("soft", "2 strata", "inconclusive")
    assert abs(soft.contrast.value) < 0.15
    with pytest.raises(DefinitionError, match="of the variants, all of them"):
        start(world.project, "tone", weights={"control": 100}, reason="test")
    with pytest.raises(DefinitionError, match="add up to 1 or 100"):
        start(world.project, "tone", weights={"control": 10, "soft": "x", "firm": 10}, reason="test")
    run_of = find_run(world.project, "tone")
    start(world.project, "tone", share=1.0, weights=run_of.state["variants"], reason="no change")
    assert [shares["soft"] for _, shares in find_run(world.project, "tone").periods] == [0.05, 0.8]


@pytest.fixture
def bandit(world):
    """Soft is late half as often; its controller looks every two days."""
    edit(world, "mde=0.2,", 'mde=0.2, bandit="2d", floor=0.1,')
    edit(world, 'guardrails=[Metric.rate("fallbacks", "fallback is not null", max_rise=0.05)],', "")
    world.since = begin(world).time
    outcomes_of(world, world.ask(900), {"control": 0.6, "soft": 0.2, "firm": 0.6})
    world.wait(DAY)
    return world


def test_a_bandit_gives_more_to_the_better_when_it_is_due(bandit):
    """Once a turn, by what was known when it was due and so the same however late; a report counts by period."""
    assert not controller.step_on(bandit.project, "promise", "tone").done
    assert controller.watched(bandit.project) == [("promise", "tone")]
    bandit.wait(36 * HOUR)
    late = bandit.ask(900)
    outcomes_of(bandit, late, {"control": 0.0, "soft": 1.0, "firm": 0.0})  # which have their time half a day too late
    bandit.wait(find_run(bandit.project, "tone").since + 12 * DAY + 15 * HOUR - bandit.clock.now())
    move = controller.step_on(bandit.project, "promise", "tone")
    assert (move.move, move.reason) == ("adapt", "bandit: control 0.1000, soft 0.8000, firm 0.1000")
    assert not controller.step_on(bandit.project, "promise", "tone").done
    run_of = find_run(bandit.project, "tone")
    assert run_of.state["turn"] == 6
    assert [round(shares["soft"], 3) for _, shares in run_of.periods] == [0.25, 0.8]
    records = bandit.ask(400)
    assert sum(record.variants["tone"] == "soft" for record in records) / 400 == pytest.approx(0.8, abs=0.08)
    outcomes_of(bandit, records, {"control": 0.6, "soft": 0.2, "firm": 0.6}, seed=2)
    bandit.wait(11 * DAY)
    report = report_on(bandit.project, "tone", now=bandit.clock.now())
    assert report.balance.verdict == "success"
    assert (report.verdict, report.effects[0].contrast.method) == ("inconclusive", "2 strata")
    assert sum(report.units.values()) == 900 + len(late) + 400
    assert controller.step_on(bandit.project, "promise", "tone").done


def test_a_bandit_that_waits_for_units_reads_the_log_once_a_turn(bandit, monkeypatch):
    """What was known when a turn was due is the same at every look."""
    reads, reading = [], controller.read_units
    monkeypatch.setattr(controller, "read_units", lambda *args, **more: reads.append(more) or reading(*args, **more))
    monkeypatch.setattr("retrodict.rollout.experiments.report.read_units", None)  # there is no guardrail
    for turns in (1, 1, 2, 2):
        bandit.wait(bandit.since + turns * 2 * DAY + HOUR - bandit.clock.now())
        assert controller.step_on(bandit.project, "promise", "tone").move == "wait"
        assert len(reads) == turns
    bandit.wait(8 * DAY)
    assert controller.step_on(bandit.project, "promise", "tone").done


def test_a_bandit_waits_for_units_and_a_killed_controller_leaves_nothing(bandit, monkeypatch):
    """Outcomes have not had their time: no weights; one that dies, or comes second, changes nothing."""
    bandit.wait(2 * DAY)
    move = controller.step_on(bandit.project, "promise", "tone")
    assert (move.move, move.reason) == ("wait", "a variant has too few units for other weights")
    bandit.wait(10 * DAY)
    before = current(bandit.project)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(controller, "adapt", killed)
    with pytest.raises(KeyboardInterrupt):
        controller.step_on(bandit.project, "promise", "tone")
    monkeypatch.undo()
    assert current(bandit.project)["promise"] == before["promise"]
    assert controller.step_on(bandit.project, "promise", "tone").done
    monkeypatch.setattr(controller, "current", lambda _: before)
    run_before = replace(find_run(bandit.project, "tone"), state=before["promise"].deployment.experiments[0])
    monkeypatch.setattr(controller, "find_run", lambda *_: run_before)
    late = controller.step_on(bandit.project, "promise", "tone")
    assert (late.move, late.reason) == ("wait", "somebody changes it just now")


@pytest.mark.parametrize("more", [{"floor": 0.0}, {"floor": 0.6}, {"analysis": "fixed"}, {"bandit": "soon"}])
def test_a_bandit_that_cannot_be_is_refused(more):
    """And a definition without one is what it was before there were any."""
    with pytest.raises(InputError if "bandit" in more else DefinitionError):
        experiment(**{"bandit": "1d", **more})
    assert "floor" not in experiment().__identity__()
    assert experiment(bandit="1d").__identity__()["floor"] == 0.05


def test_a_rule_is_worth_what_its_units_brought(world, monkeypatch, capsys):
    """By segments of a unit's first decision, numbers as numbers; what is no rule is refused by name."""
    edit(world, 'segments=["depot"]', 'segments=["depot", "weight"]')
    begin(world)
    records = world.ask(2000)
    rates = {"control": 0.5, "soft": 0.1, "firm": 0.9}
    outcomes_of(world, records, rates)
    world.wait(11 * DAY)
    now = world.clock.now()
    weights = sorted(record.context["weight"] for record in records)
    rule = {"soft": f"weight < {weights[1000]}", "firm": "otherwise"}
    estimate = evaluate_rule(world.project, "tone", rule, now=now)
    got = [("soft" if r.context["weight"] < weights[1000] else "firm") == r.variants["tone"] for r in records]
    assert (estimate.units, estimate.matched, estimate.effective) == (2000, sum(got), pytest.approx(sum(got)))
    for row in estimate.values:
        assert row["difference"] == pytest.approx(row["rule"] - row["control"])
        assert row["low"] < row["difference"] < row["high"]
        assert (row["rule"], row["control"]) == (pytest.approx(0.5, abs=0.08), pytest.approx(0.5, abs=0.06))
    alone = evaluate_rule(world.project, "tone", {"soft": "otherwise"}, now=now)
    assert {row["estimator"]: row["rule"] for row in alone.values}["snips"] == pytest.approx(
        report_on(world.project, "tone", now=now).effects[0].treatment)  # fmt: skip
    for wrong, text in [({}, "only it"), ({"soft": "depot = 'JFK'"}, "only it"),
                        ({"soft": "otherwise", "firm": "otherwise"}, "only it"),
                        ({"sofd": "otherwise"}, "Did you mean"),
                        ({"soft": "depo = 'JFK'", "firm": "otherwise"}, "Did you mean")]:  # fmt: skip
        with pytest.raises(InputError, match=text):
            evaluate_rule(world.project, "tone", wrong, now=now)
    with pytest.raises(InputError, match="units that count"):
        evaluate_rule(world.project, "tone", rule, now=now - 11 * DAY)
    monkeypatch.setenv("RETRODICT_ACTOR", "ana")
    command = ["experiment", "value", "tone", "--project", str(world.root), "--give"]
    assert run([*command, f"soft=weight < {weights[1000]}", "--give", "firm=otherwise"]) == 0
    assert "control for all" in capsys.readouterr().out
    assert run([*command, "soft=otherwise", "--give", "soft=otherwise"]) == 2
    assert "soft is given twice" in capsys.readouterr().err


def test_a_rule_reads_a_segment_whatever_it_is_called():
    """Also by the name that rows are put in order by."""
    rows = SimpleNamespace(variant=np.array(["a", "b", "a"]), segments={"place": np.array(["y", "x", "y"])})
    assert _choices(experiment(), rows, {"b": "place = 'y'", "a": "otherwise"}).tolist() == [1, 0, 1]


def test_an_experiment_outlives_a_promotion_and_a_rollback(world):
    """What decides changes, who gets what does not."""
    begin(world)
    deploy(world.project, "promise", model="late_parcel@2", reason="test")
    assert all(record.variants for record in world.ask(20))
    rollback(world.project, "promise", reason="test")
    assert current(world.project)["promise"].deployment.model == "late_parcel@1"
    assert all(record.variants for record in world.ask(20))
    assert find_run(world.project, "tone").until is None


def test_a_planted_effect_is_found_in_matured_outcomes_only(world):
    """Soft halves the rate; before the outcomes have had their ten days nothing is known."""
    begin(world)
    records = world.ask(1600)
    outcomes_of(world, records, {"control": 0.6, "soft": 0.2, "firm": 0.6})
    early = report_on(world.project, "tone", now=world.clock.now() + 3 * DAY)
    assert (early.verdict, early.pending) == ("inconclusive", 1600)
    assert "nothing to count yet" in early.reason
    world.wait(11 * DAY)
    report = report_on(world.project, "tone", now=world.clock.now())
    assert report.verdict == "success", report
    assert report.advice == "Stop, and decide for soft"
    assert sum(report.units.values()) == 1600
    assert report.balance.verdict == "success"
    effects = {(effect.role, effect.metric, effect.variant, effect.segment): effect for effect in report.effects}
    soft = effects["primary", "late", "soft", ""]
    assert soft.contrast.value == pytest.approx(-0.4, abs=0.1)
    assert effects["primary", "late", "firm", ""].contrast.verdict == "inconclusive"
    assert effects["guardrail", "fallbacks", "soft", ""].contrast.value == 0.0
    assert {effect.segment for effect in report.effects if effect.role == "segment"} == {
        "depot=north", "depot=south", "depot=east"}  # fmt: skip
    assert (early.looks, report.looks) == (0, 1)
    assert "Experiment tone" in report_page(report)
    stop(world.project, "tone", reason="done")
    choice = decide(world.project, "tone", "soft", reason="better")
    assert (choice["verdict"], choice["shown"]) == ("success", True)
    after = report_on(world.project, "tone", now=world.clock.now())
    assert (after.advice, after.verdict) == ("Decide for soft", "success")
    with pytest.raises(RefusedError, match="a variant must be shown to be better"):
        decide(world.project, "tone", "firm", reason="nicer")
    assert audit(world.project.ledger, objects=world.project.objects, streams=world.project.streams,
                 data=world.project.tables).verified  # fmt: skip


def test_a_stopped_experiment_says_that_it_has_ended_and_what_is_not_shown_needs_a_word(world, monkeypatch, capsys):
    """As of before the stop it says to go on; control may always stay, another one only anyway, on record."""
    begin(world)
    world.ask(60)
    running = world.clock.now()
    world.wait(HOUR)
    stop(world.project, "tone", reason="too long")
    advice = [report_on(world.project, "tone", now=now).advice[:12] for now in (running, world.clock.now())]
    assert advice == ["Go on until ", "It has ended"]
    assert decide(world.project, "tone", "control", reason="nothing shown")["shown"]
    monkeypatch.setenv("RETRODICT_ACTOR", "ana")
    command = ["experiment", "decide", "tone", "soft", "--reason", "nicer", "--project", str(world.root)]
    assert run(command) == 1
    assert "say --anyway, which stays on record" in capsys.readouterr().err
    assert run([*command, "--anyway"]) == 0
    entry = list(world.project.ledger.entries(object_id="experiment:tone", action="experiment.decide"))[-1]
    assert (entry.payload["variant"], entry.payload["shown"], entry.payload["verdict"]) == (
        "soft",
        False,
        "inconclusive",
    )


def edit(world, old, new):
    path = world.root / "definitions.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    world.project.close()
    world.project = Workspace(world.root, actor="ana", clock=world.clock)


def test_outcomes_that_come_from_one_arm_alone_show_nothing(world):
    """Bad ones of soft never arrive: no effect, no decision, no weights of a bandit, till they have come after all."""
    edit(world, "secondary=[", 'bandit="1d", secondary=[')
    begin(world)
    records, rng = world.ask(900), random.Random(1)
    late = {record.id: rng.random() < 0.4 for record in records}

    def report_bad(hidden):
        rows = [{"decision_id": r.id, "label": int(late[r.id]), "known_at": from_micros(r.time + 35 * HOUR)}
                for r in records if (r.variants["tone"] == "soft" and late[r.id]) == hidden]  # fmt: skip
        ingest_outcomes(world.project, "promise", pa.Table.from_pylist(rows))

    report_bad(False)
    soft = sum(r.variants["tone"] == "soft" for r in records)
    bad = sum(r.variants["tone"] == "soft" and late[r.id] for r in records)
    early = report_on(world.project, "tone", now=world.clock.now() + 5 * DAY)
    assert early.arrivals.reason == "no outcome is due yet"
    world.wait(12 * DAY)
    report = report_on(world.project, "tone", now=world.clock.now())
    assert (report.balance.verdict, report.arrivals.verdict, report.ok) == ("success", "failure", False)
    assert (report.verdict, f"soft {soft - bad:,} and {bad}" in report.reason) == ("inconclusive", True)
    assert "missing from an arm" in report.advice
    assert "missing from an arm" in controller.step_on(world.project, "promise", "tone").reason
    stop(world.project, "tone", reason="test")
    with pytest.raises(RefusedError, match=r"outcomes are missing from an arm"):
        decide(world.project, "tone", "soft", reason="better")
    report_bad(True)
    again = report_on(world.project, "tone", now=world.clock.now())
    assert (again.arrivals.verdict, "not evaluable" in again.reason) == ("success", False)


def test_a_guardrail_stops_on_outcomes_that_are_missing_from_an_arm():
    """What is shown harmless by them is not; what is broken is: a stop for nothing costs less than harm."""
    definition = experiment(guardrails=[Metric.rate("bad", "label = 0", max_rise=0.05)])
    outcome = np.concatenate([np.ones(600), np.ones(500), np.full(100, 2)]).astype(np.int64)
    rates = {"late": 0.3, "bad": 0.3}
    broken = judged(definition, {"a": (600, rates), "b": (600, rates | {"bad": 0.6})}, outcome=outcome)
    assert (broken.verdict, broken.stop) == ("failure", True)
    fine = judged(definition, {"a": (600, rates), "b": (600, rates | {"bad": 0.05})}, outcome=outcome)
    assert {one.contrast.verdict for one in fine.effects} == {"inconclusive"}
    assert not fine.stop


def test_plan_names_an_experiment_that_is_not_started(world):
    """To be planned, then to be started; one that ran as it is defined is over, and an edited one is another."""

    def steps():
        return [step for step in read_plan(world.project).next() if " experiment " in step]

    assert steps() == ["retrodict experiment plan tone    # defined, and not started"]
    plan_experiment(world.project, "tone", baseline=0.4, units_per_day=100)
    assert steps() == ["retrodict experiment start tone --reason '…'    # planned, and not started"]
    start(world.project, "tone", reason="test")
    assert steps() == []
    stop(world.project, "tone", reason="test")
    assert steps() == []
    edit(world, "mde=0.2", "mde=0.3")
    assert steps() == ["retrodict experiment plan tone    # defined, and not started"]


def test_what_has_no_plan_does_not_start(world):
    """Nor with a plan of another definition; a plan needs history or numbers."""
    with pytest.raises(RefusedError, match="must be planned"):
        start(world.project, "tone", reason="test")
    with pytest.raises(InputError, match="0 units in 28d"):
        plan_experiment(world.project, "tone")
    plan_experiment(world.project, "tone", baseline=0.4)
    edit(world, "mde=0.2", "mde=0.1")
    with pytest.raises(RefusedError, match="must be planned"):
        start(world.project, "tone", reason="test")


def test_a_definition_that_changes_while_it_runs_is_refused(world):
    """Until the edit is undone, or it is stopped and the new one planned; the new one has a seed of its own."""
    begin(world)
    edit(world, "mde=0.2", "mde=0.1")
    for call in (lambda: report_on(world.project, "tone", now=world.clock.now()),
                 lambda: start(world.project, "tone", reason="again")):  # fmt: skip
        with pytest.raises(RefusedError, match="as it was started"):
            call()
    stop(world.project, "tone", reason="test")
    world.wait(HOUR)
    begin(world)
    first, second = find_runs(world.project, "tone")
    assert first.until is not None
    assert first.state["seed"] != second.state["seed"]


def test_a_run_has_places_of_its_own_and_its_covariate_is_of_untreated_times(world):
    """Started again, units are drawn anew; what an earlier run treated, and what became known later, foretells none."""
    edit(world, 'unit="weight",', 'unit="weight", pre_period="30d",')

    def ask():
        world.rng = random.Random(5)
        return world.ask(400)

    before = ask()
    begin(world)
    first = ask()
    outcomes_of(world, first, {"control": 0.9, "soft": 0.1, "firm": 0.5})
    world.wait(12 * DAY)
    stop(world.project, "tone", reason="test")
    start(world.project, "tone", reason="again")
    same = sum(a.variants == b.variants for a, b in zip(first, ask(), strict=True))
    assert 100 < same < 200  # 3 of 8 by chance

    def covariate():
        experiment, run = world.project.definitions.get(Experiment, "tone"), find_run(world.project, "tone")
        return read_units(world.project, experiment, run, now=world.clock.now()).before

    assert covariate() is None
    ingest_outcomes(world.project, "promise", pa.Table.from_pylist([
        {"decision_id": r.id, "label": 1, "known_at": from_micros(world.clock.now())} for r in before]))  # fmt: skip
    world.wait(DAY)
    assert covariate() is None
    stop(world.project, "tone", reason="test")
    start(world.project, "tone", reason="once more")
    ask()
    assert covariate() is not None


def test_an_empty_text_is_no_unit(world):
    """As null is none: else all who have none would be one big unit."""
    edit(world, 'unit="weight",', 'unit="depot",')
    begin(world)
    case = {"weight": 3.0, "express": False, "sent": "2024-02-20T10:00Z"}
    with Decider(world.project) as decider:
        of = [decider.decide("promise", {**case, "depot": depot}).variants for depot in ("north", "")]
    assert (list(of[0]), of[1]) == (["tone"], {})
    experiment = world.project.definitions.get(Experiment, "tone")
    world.wait(DAY)
    assert history_rows(world.project, experiment, start=0, now=world.clock.now()).variant.size == 1


def test_one_layer_shares_no_unit(world):
    """Overlapping slots are refused; in slots of their own no unit is in both."""
    edit(world, 'unit="weight", mde=0.2,', 'unit="weight", mde=0.2, layer="letters", slot=(0, 0.5),')
    add(world.root, TONE.replace("tone", "other").replace("mde=0.2,", 'mde=0.2, layer="letters", slot=(0.4, 1),'))
    edit(world, "late", "late")
    begin(world)
    plan_experiment(world.project, "other", baseline=0.4)
    with pytest.raises(RefusedError, match=r"slots of their own.*tone"):
        start(world.project, "other", reason="test")
    edit(world, "slot=(0.4, 1)", "slot=(0.5, 1)")
    plan_experiment(world.project, "other", baseline=0.4)
    start(world.project, "other", reason="test")
    records = world.ask(400)
    assert {len(record.variants) for record in records} == {1}
    assert {name for record in records for name in record.variants} == {"tone", "other"}


def test_another_unit_in_a_layer_is_refused(world):
    """At load, and at the start beside what runs: slots of different units share people."""
    edit(world, 'unit="weight", mde=0.2,', 'unit="weight", mde=0.2, layer="letters", slot=(0, 0.5),')
    begin(world)
    add(world.root, TONE.replace("tone", "other").replace("mde=0.2,", 'mde=0.2, layer="letters", slot=(0.5, 1),')
        .replace('unit="weight"', 'unit="depot"'))  # fmt: skip
    edit(world, "late", "late")
    with pytest.raises(DefinitionError, match=r"layer letters: the unit must be the same.*\('depot',\).*of tone"):
        _ = world.project.definitions
    edit(world, 'unit="weight"', 'unit="depot"')
    plan_experiment(world.project, "other", baseline=0.4, units_per_day=100)
    with pytest.raises(RefusedError, match=r"must have one unit.*\['weight'\] of tone"):
        start(world.project, "other", reason="test")


def test_units_in_two_variants_count_in_neither(world):
    """As after a change of the seed by other hands; they are counted."""
    begin(world)
    weights = [float(n) / 7 for n in range(1, 300)]

    def ask():
        world.rng = random.Random(5)
        return {r.context["weight"]: r.variants["tone"] for r in world.ask(len(weights))}

    before = ask()
    revision = current(world.project)["promise"]
    state = revision.deployment.experiments[0] | {"seed": "another"}
    change(world.project, replace(revision.deployment, experiments=[state]), action="experiment", reason="test")
    after = ask()
    crossed = sum(before[unit] != after[unit] for unit in before)
    report = report_on(world.project, "tone", now=world.clock.now())
    assert (report.crossed, sum(report.units.values())) == (crossed, len(before) - crossed)
    assert crossed > 100


def test_a_plan_reads_history_and_its_covariate(world):
    """Units, rate and new units a day as the log has them; outcomes that foretell leave less variance."""
    people, chance = 600, random.Random(1)
    for _ in range(2):
        world.rng = random.Random(5)
        records = world.ask(people)
        rows = [{"decision_id": r.id, "label": int((r.context["weight"] > 40) != (chance.random() < 0.2)),
                 "known_at": from_micros(r.time + HOUR)} for r in records]  # fmt: skip
        ingest_outcomes(world.project, "promise", pa.Table.from_pylist(rows))
        world.wait(20 * DAY)
    plan = plan_experiment(world.project, "tone", history="60d")
    assert plan.baseline == pytest.approx(0.5, abs=0.05)
    assert plan.history == people
    assert plan.units_per_day == pytest.approx(people / 40, rel=0.05)
    assert plan.variance_left == 1.0
    alone = plan_experiment(world.project, "tone", history="25d")
    edit(world, 'unit="weight",', 'unit="weight", pre_period="30d",')
    less = plan_experiment(world.project, "tone", history="25d")
    assert less.variance_left == pytest.approx(1 - 0.6**4, abs=0.08)  # correlation 0.6², twice a fifth is wrong
    assert less.units == pytest.approx(alone.units * less.variance_left, rel=0.05)


def test_a_metric_of_a_name_that_no_decision_has_is_refused(world):
    """By the near names, when there are decisions to tell."""
    world.ask(5)
    edit(world, '"label = 1"', '"labell = 1"')
    with pytest.raises(DefinitionError, match=r"what decisions have.*labell.*label"):
        plan_experiment(world.project, "tone")


def test_strata_are_of_a_units_first_decision_and_of_names_that_there_are(world):
    """What a unit was at first counts, whatever it is later; an unknown name is refused when definitions are read."""
    edit(world, 'segments=["depot"]', 'strata=["depot"]')
    begin(world)
    records = world.ask(300)
    definition, started = world.project.definitions.get(Experiment, "tone"), find_run(world.project, "tone")
    rows = read_units(world.project, definition, started, now=world.clock.now())
    first = {}
    for record in records:
        first.setdefault(record.context["weight"], f"depot={(record.context | record.entities)['depot']}")
    assert sorted(rows.strata) == sorted(first.values())
    assert sum(report_on(world.project, "tone", now=world.clock.now()).strata.values()) == len(first)
    edit(world, 'strata=["depot"]', 'strata=["depto"]')
    with pytest.raises(DefinitionError, match="must read what decisions have"):
        plan_experiment(world.project, "tone", baseline=0.4)


def test_what_is_out_of_order_is_refused(world):
    """Each with what to do."""
    with pytest.raises(NotFoundError, match="must have been started"):
        report_on(world.project, "tone", now=world.clock.now())
    with pytest.raises(InputError, match="above 0 and at most 1"):
        start(world.project, "tone", share=0.0, reason="test")
    begin(world)
    with pytest.raises(RefusedError, match="stopped before it is decided"):
        decide(world.project, "tone", "soft", reason="test")
    stop(world.project, "tone", reason="test")
    with pytest.raises(RefusedError, match="must run to be stopped"):
        stop(world.project, "tone", reason="test")
    with pytest.raises(NotFoundError, match="must be a variant"):
        decide(world.project, "tone", "softer", reason="test")
    edit(world, 'unit="weight"', 'unit="customer"')
    with pytest.raises(DefinitionError, match="experiment tone, unit: a unit must be a value that requests bring"):
        plan_experiment(world.project, "tone", baseline=0.4)


def test_a_condition_of_another_kind_is_refused_before_it_starts(world):
    """By the plan, and by the start where another version has come in between."""
    edit(world, 'unit="weight",', 'unit="weight", where="depot = 5",')
    with pytest.raises(DefinitionError, match="experiment:tone, where: this must be text, and is a number"):
        plan_experiment(world.project, "tone", baseline=0.4)
    record_plan(world.project, world.project.definitions.get(Experiment, "tone"), {"units": 100})
    with pytest.raises(DefinitionError, match="experiment:tone, where: this must be text, and is a number"):
        start(world.project, "tone", reason="test")


@pytest.mark.parametrize("where", ["express = false and weight > 40",
                                   "weight > 40 and sent > timestamp '2024-01-01T00:00:00Z'"])  # fmt: skip
def test_the_report_counts_whom_the_servers_took_in(world, where):
    """Its condition is not evaluated a second time, over columns that know neither times nor yes and no."""
    edit(world, 'unit="weight",', f'unit="weight", pre_period="30d", where="{where}",')
    world.ask(50)
    begin(world)
    members = {record.context["weight"] for record in world.ask(200) if record.variants}
    report = report_on(world.project, "tone", now=world.clock.now())
    assert sum(report.units.values()) == len(members) > 50


def test_a_condition_that_no_request_fits_gives_nobody_a_variant(world):
    """As one that was started before such a condition was refused: every request got a 400."""
    begin(world)
    revision = current(world.project)["promise"]
    states = [{**state, "where": "custmer = 3"} for state in revision.deployment.experiments]
    change(world.project, replace(revision.deployment, experiments=states), action="experiment", reason="test",
           after=revision.revision)  # fmt: skip
    assert [(record.variants, record.fallback) for record in world.ask(3)] == [({}, None)] * 3
    assert sum(report_on(world.project, "tone", now=world.clock.now()).units.values()) == 0


LATE = Label("late", Table("t", key="id"), "x > 1", known_at="k")
MODEL = Model("m", label=LATE, decide_at="d", features=[columns("x")], recipe=Recipe("logistic", split=RandomSplit()))
POLICY = Policy("p", MODEL, decide={"a": "otherwise"})
RATE = Metric.rate("late", "label = 1", better="lower")


def experiment(**more):
    return Experiment("e", POLICY, {"a": 0.5, "b": 0.5}, **{"unit": "u", "primary": RATE, "mde": 0.1, **more})


@pytest.mark.parametrize(
    ("change_to", "message"),
    [
        ({"variants": {"a": 50, "b": 40}}, "add up to 1 or 100"),
        ({"variants": {"a": 1}}, "two variants"),
        ({"primary": None}, "must have a primary metric"),
        ({"unit": ()}, "what its unit is"),
        ({"mde": 0.0}, "mde must be above 0"),
        ({"control": "c"}, "control must be a variant"),
        ({"slot": (0.5, 0.2), "layer": "x"}, "lower one first"),
        ({"slot": (0.0, 0.2)}, "a slot must be of a layer"),
        ({"guardrails": [Metric.rate("g", "score > 1")]}, "max_rise or max_fall"),
        ({"secondary": [RATE]}, "different names"),
        ({"analysis": "bayes"}, "sequential or fixed"),
        ({"looks": 1}, "from 2 to 20"),
        ({"looks": 2.5}, "from 2 to 20"),
        ({"policy": "p"}, "must be of a policy"),
        ({"where": "x >"}, "where"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(change_to, message):
    """When it is made, with what must hold."""
    facts = {"policy": POLICY, "variants": {"a": 0.5, "b": 0.5}, "unit": "u", "primary": RATE, "mde": 0.1}
    with pytest.raises(DefinitionError, match=message):
        Experiment("e", **(facts | change_to))


@pytest.mark.parametrize(("old", "new", "near"), [
    ('segments=["depot"]', 'segments=["depott"]', "depot"),
    ('"fallback is not null"', '"fallbak is not null"', "fallback"),
    ('per="weight"', 'per="weigth"', "weight"),
])  # fmt: skip
def test_names_that_slipped_are_refused_when_definitions_are_loaded(world, old, new, near):
    """A guardrail on what no decision has would never act."""
    edit(world, old, new)
    with pytest.raises(DefinitionError, match=f"must read what decisions have.*'{near}'"):
        world.project.definitions.get(Experiment, "tone")


def test_what_no_decision_has_is_refused_at_the_start(world):
    """Requests may bring more than is read: what they have brought counts."""
    edit(world, 'segments=["depot"]', 'segments=["colour"]')
    with pytest.raises(InputError, match=r"metrics and segments must read what decisions have.*colour"):
        begin(world)
    assert not current(world.project)["promise"].deployment.experiments


def test_metrics_that_make_no_sense_are_refused():
    """A rate is of a condition, a mean of a number."""
    with pytest.raises(DefinitionError, match="of kind bool"):
        Metric.rate("m", "score + 1")
    with pytest.raises(DefinitionError, match="of kind number"):
        Metric.mean("m", "score > 1")
    for more in ({"max_rise": -1.0}, {"within": "x"}, {"better": "more"}, {"per": "score"}):
        with pytest.raises((DefinitionError, InputError)):
            Metric.mean("m", "score", **more)


def judged(definition, arms, looks=(), *, planned=100, before=None, outcome=None):
    """Report of units by variant: metric name to rates, one decision a unit."""
    rng = np.random.default_rng(3)
    variant = np.repeat(list(arms), [size for size, _ in arms.values()])
    sums = {}
    for metric in definition.metrics:
        hits = np.concatenate([(rng.random(size) < rates[metric.name]).astype(float) for size, rates in arms.values()])
        sums[metric.name] = hits, np.ones(variant.size)
    rows = UnitRows(variant=variant, first=np.arange(variant.size, dtype=np.int64), sums=sums,
                    segments={name: np.where(rng.random(variant.size) < 0.5, "x", "y") for name in definition.segments},
                    before=before(sums) if before else None, period=np.zeros(variant.size, dtype=np.int64),
                    crossed=0, void=0, pending=0, outcome=outcome)  # fmt: skip
    started = ExperimentRun("e", "p", "v", 0, None, {"units": planned, "share": 1.0, "variants": definition.variants})
    return judge(definition, started, rows, DAY, list(looks))


def test_a_brief_period_of_weights_waits_and_the_report_says_how_many_units_do():
    """Of 29 units in an arm a variance is a guess; of 30 it counts."""
    halves, definition = {"a": 0.5, "b": 0.5}, experiment()
    started = ExperimentRun("e", "p", "v", 0, None, {"units": 100, "share": 1.0, "variants": halves},
                            ((1, {"a": 0.6, "b": 0.4}), (5, halves)))  # fmt: skip
    reports = []
    for later in (0, 29, 30):
        variant = np.repeat(["a", "b", "a", "b"], [600, 400, later, later])
        late = np.concatenate([np.tile([0.0, 1.0], 500), np.repeat([0.0, 1.0], later)])
        rows = UnitRows(variant, np.zeros(late.size, dtype=np.int64), {"late": (late, np.ones(late.size))}, {}, None,
                        np.repeat([0, 1], [1000, 2 * later]), 0, 0, 0)  # fmt: skip
        reports.append(judge(definition, started, rows, DAY, []))
    assert [report.brief for report in reports] == [0, 58, 0]
    assert [report.effects[0].contrast.value for report in reports] == [0, 0, pytest.approx(60 / 1060)]


def test_a_wrong_sample_ratio_blocks_the_verdict():
    """However large the effect."""
    report = judged(experiment(), {"a": (3000, {"late": 0.5}), "b": (2500, {"late": 0.1})})
    assert (report.verdict, report.ok) == ("inconclusive", False)
    assert report.reason.startswith("sample ratio")
    assert "guardrail" not in report.reason


def test_harm_stops_though_the_sample_ratio_is_wrong_and_the_report_says_both():
    """A stop for nothing costs an experiment; the verdict stays open."""
    rails = experiment(guardrails=[Metric.rate("complaints", "score > 1", max_rise=0.01)])
    report = judged(
        rails, {"a": (3000, {"late": 0.5, "complaints": 0.01}), "b": (2500, {"late": 0.3, "complaints": 0.1})}
    )
    assert (report.verdict, report.stop, report.ok) == ("inconclusive", True, False)
    assert report.reason.startswith("sample ratio")
    assert "; guardrail complaints of b: the difference" in report.reason
    assert "which stops it all the same" in report.reason


def test_a_guardrail_that_is_exceeded_asks_for_a_stop():
    """Though the primary metric gained; one that is not shown to be exceeded does not."""
    rails = experiment(guardrails=[Metric.rate("complaints", "score > 1", max_rise=0.01)])
    arms = {"a": (2000, {"late": 0.5, "complaints": 0.01}), "b": (2000, {"late": 0.3, "complaints": 0.1})}
    report = judged(rails, arms)
    assert (report.verdict, report.stop, report.ok) == ("failure", True, False)
    assert "complaints of b" in report.reason
    fine = judged(rails, {name: (size, {**rates, "complaints": 0.01}) for name, (size, rates) in arms.items()})
    assert (fine.verdict, fine.stop) == ("success", False)


def test_a_fixed_analysis_is_read_once_the_units_are_in():
    """Before, it shows numbers and gives no verdict."""
    arms = {"a": (500, {"late": 0.5}), "b": (500, {"late": 0.3})}
    assert judged(experiment(analysis="fixed"), arms, planned=1000).verdict == "success"
    early = judged(experiment(analysis="fixed"), arms, planned=1001)
    assert early.verdict == "inconclusive"
    assert "1000 of 1001 planned units" in early.reason
    assert early.effects[0].contrast.value == pytest.approx(-0.2, abs=0.07)


def test_a_variant_that_is_worse_is_a_failure_and_better_follows_the_direction():
    """The same numbers where higher is better."""
    arms = {"a": (2000, {"late": 0.5}), "b": (2000, {"late": 0.3})}
    higher = experiment(primary=Metric.rate("late", "label = 1"))
    assert judged(experiment(), arms).verdict == "success"
    worse = judged(higher, arms)
    assert (worse.verdict, worse.advice) == ("failure", "Stop, and keep a")


def test_an_a_a_test_is_silent_or_a_fault():
    """Alike: nothing to do. Not alike: look for the fault."""
    same = experiment(same=True)
    quiet = judged(same, {"a": (2000, {"late": 0.3}), "b": (2000, {"late": 0.3})})
    assert (quiet.verdict, quiet.advice) == ("inconclusive", "Nothing differs so far, as it should be")
    loud = judged(same, {"a": (2000, {"late": 0.3}), "b": (2000, {"late": 0.5})})
    assert (loud.verdict, loud.advice[:14]) == ("failure", "Find the fault")


def test_a_covariate_narrows_the_interval():
    """What foretells the metric leaves a part of its variance."""
    arms = {"a": (500, {"late": 0.5}), "b": (500, {"late": 0.4})}
    rng = np.random.default_rng(4)

    def before(sums):
        return sums["late"][0] + rng.normal(0, 0.3, 1000)

    plain, less = judged(experiment(), arms).effects[0], judged(experiment(), arms, before=before).effects[0]
    assert less.variance_left < 0.5
    assert less.contrast.high - less.contrast.low < 0.75 * (plain.contrast.high - plain.contrast.low)


def with_strata(definition, control, treatment, planned=100):
    """Report of units whose metric and stratum are these, by arm."""
    values, strata = np.concatenate([control[0], treatment[0]]), np.concatenate([control[1], treatment[1]])
    n, size = values.size, len(control[0])
    rows = UnitRows(variant=np.repeat(["a", "b"], [size, n - size]), first=np.zeros(n, dtype=np.int64),
                    sums={"late": (values.astype(float), np.ones(n))}, segments={}, before=None,
                    period=np.zeros(n, dtype=np.int64), crossed=0, void=0, pending=0, strata=strata)  # fmt: skip
    started = ExperimentRun("e", "p", "v", 0, None, {"units": planned, "share": 1.0, "variants": definition.variants})
    return judge(definition, started, rows, DAY, [])


def of_strata(rates, sizes):
    return (np.concatenate([np.arange(n) < rate * n for rate, n in zip(rates, sizes, strict=True)]),
            np.repeat(["s=x", "s=y", "s=z"], sizes))  # fmt: skip


@pytest.mark.parametrize("analysis", ["fixed", "sequential", "pocock"])
def test_strata_are_compared_within_and_differences_add_up_by_units(analysis):
    """By hand: the mean of the differences by units of a stratum; small strata are one rest, which the report names."""
    definition = experiment(strata=["s"], analysis=analysis)
    report = with_strata(definition, of_strata([0.1, 0.8, 0.5], [200, 100, 0]),
                         of_strata([0.2, 0.75, 0.5], [100, 200, 0]))  # fmt: skip
    assert report.effects[0].contrast.value == pytest.approx((0.2 - 0.1) * 0.5 + (0.75 - 0.8) * 0.5)
    assert report.strata == {"s=x": 300, "s=y": 300}
    assert report.effects[0].variance_left < 0.9
    assert "s=x 300; s=y 300" in str(report)
    sizes = [400, 20, 20]
    report = with_strata(definition, of_strata([0.1, 0.5, 0.9], sizes), of_strata([0.2, 0.5, 0.7], sizes))
    assert report.strata == {"rest": 80, "s=x": 800}
    assert report.effects[0].contrast.value == pytest.approx(0.1 * 800 / 880 + (0.6 - 0.7) * 80 / 880)
    report = with_strata(definition, of_strata([0.1, 0.5, 0.9], [400, 20, 0]), of_strata([0.2, 0.5, 0.7], [400, 20, 0]))
    assert report.strata == {"rest": 840}  # a rest of 20 takes in the other
    assert report.effects[0].variance_left == 1.0


@pytest.mark.parametrize(("analysis", "covered"), [("fixed", 0.92), ("sequential", 0.95)])
def test_strong_strata_narrow_the_interval_and_it_covers_the_effect(analysis, covered):
    """300 seeded experiments of an effect of 0.1 in strata of 10 and 80 percent, one of which is seldom."""
    rng, inside, narrower = np.random.default_rng(21), 0, 0
    definition = experiment(strata=["s"], analysis=analysis)
    for _ in range(300):
        arms = []
        for effect in (0.0, 0.1):
            strata = rng.choice(["s=x", "s=y", "s=z"], 400, p=[0.5, 0.45, 0.05])
            rates = np.select([strata == "s=x", strata == "s=y"], [0.1, 0.8], 0.4) + effect
            arms.append((rng.random(400) < rates, strata))
        one = with_strata(definition, *arms, planned=800).effects[0].contrast
        alike = [(values, np.repeat("", 400)) for values, _ in arms]
        plain = with_strata(experiment(analysis=analysis), *alike, planned=800).effects[0].contrast
        inside += one.low <= 0.1 <= one.high
        narrower += one.high - one.low < 0.85 * (plain.high - plain.low)
    assert inside / 300 >= covered
    assert narrower == 300


def test_secondary_metrics_and_segments_are_corrected_and_p_values_never_rise():
    """Holm over the one, Benjamini and Hochberg over the other; what earlier looks saw counts."""
    more = [Metric.rate(f"m{n}", "score > 1") for n in range(3)]
    definition = experiment(secondary=more, segments=["s"])
    rates = {metric.name: 0.3 for metric in definition.metrics}
    arms = {"a": (800, rates), "b": (800, {**rates, "m0": 0.4})}
    report = judged(definition, arms)
    p_values = [effect.contrast.p_value for effect in report.effects if effect.role == "secondary"]
    adjusted = [effect.p_adjusted for effect in report.effects if effect.role == "secondary"]
    assert adjusted == pytest.approx(holm(p_values))
    assert len([effect for effect in report.effects if effect.role == "segment"]) == 2
    looks = [{"now": 0, "p_values": {"primary late b": 1e-4}, "balance_p": 1e-9}]
    again = judged(definition, arms, looks)
    assert again.effects[0].contrast.p_value == 1e-4
    assert again.balance.verdict == "failure"


def test_a_a_tests_looked_at_daily_stay_silent():
    """200 experiments, thirty looks each: wrong verdicts stay below the level, over all variants."""
    rng, wrong = np.random.default_rng(12), 0
    definition = Experiment("e", POLICY, {"a": 0.5, "b": 0.25, "c": 0.25}, unit="u", primary=RATE, mde=0.1)
    for _ in range(200):
        variant = rng.choice(["a", "b", "c"], 3000, p=[0.5, 0.25, 0.25])
        hits, ones = (rng.random(3000) < 0.2).astype(float), np.ones(3000)
        verdicts = set()
        for size in range(100, 3001, 100):
            rows = UnitRows(variant[:size], np.zeros(size, dtype=np.int64), {"late": (hits[:size], ones[:size])}, {},
                            None, np.zeros(size, dtype=np.int64), 0, 0, 0)  # fmt: skip
            verdicts |= {effect.contrast.verdict for effect in _Judge(definition, rows, 3000, []).all()}
        wrong += verdicts != {"inconclusive"}
    assert wrong / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_the_commands_of_the_page_run(world, capsys, monkeypatch):
    """Those of docs/experiments.md, in order, on a project that has the experiment."""
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0].strip() for line in page.splitlines() if line.startswith("$ retrodict ")]
    assert len(lines) >= 6
    root = str(world.root)
    world.project.close()
    monkeypatch.chdir(world.root.parent)
    for line in lines:
        words = shlex.split(line)[2:]
        code = 2 if words[1] == "value" else 0  # nothing has had its time yet
        assert run([*words, "--project", root, "--json"]) == code, capsys.readouterr()
    assert (world.root.parent / "tone.html").exists()


GUARDED = TONE.replace('"fallback is not null", max_rise=0.05', '"label = 1", max_rise=0.05').replace('"late"', '"l"')


def make_harmful(root):
    """A running experiment of which soft doubles what a guardrail counts, by matured outcomes."""
    add(root, GUARDED)
    opened = World(root)
    begin(opened)
    outcomes_of(opened, opened.ask(900), {"control": 0.3, "soft": 0.8, "firm": 0.3})
    return opened


@pytest.fixture
def harmful(original_pair, tmp_path):
    opened = make_harmful(shutil.copytree(original_pair, tmp_path / "parcels"))
    yield opened
    opened.project.close()


def rollouts_of(world):
    """The face's rollouts on the world's workspace."""
    return Rollouts(SimpleNamespace(workspace=world.project))


def test_a_broken_guardrail_ends_the_experiment_and_all_get_control(harmful):
    """By the controller of rollouts, once, with the reason; a definition edited meanwhile guards as it was started."""
    rollouts = rollouts_of(harmful)
    assert rollouts.any_under_way()
    (early,) = rollouts.run(once=True)
    assert (early.move, early.reason) == ("wait", "no guardrail is shown to be exceeded")
    entries = harmful.project.ledger.entries
    assert not list(entries(object_id="experiment:tone", action="experiment.look"))  # looking leaves no trace
    harmful.wait(11 * DAY)
    edit(harmful, "mde=0.2", "mde=0.3")
    (move,) = rollouts_of(harmful).run(once=True)
    assert move.move == "halt"
    assert "guardrail fallbacks of soft: the difference 0." in move.reason
    last = history(harmful.project, "promise")[-1]
    assert (last.action, last.reason) == ("experiment", move.reason)
    assert {record.variants["tone"] for record in harmful.ask(60)} == {"control"}
    assert not len(rollouts_of(harmful).run(once=True))
    entries = harmful.project.ledger.entries
    looks = list(entries(object_id="experiment:tone", action="experiment.look"))
    late = controller.step_on(harmful.project, "promise", "tone")  # by one who found it running still
    assert (late.move, late.reason) == ("wait", "no guardrail is shown to be exceeded")
    assert list(entries(object_id="experiment:tone", action="experiment.look")) == looks
    assert len(history(harmful.project, "promise")) == 3
    edit(harmful, "mde=0.3", "mde=0.2")
    report = report_on(harmful.project, "tone", now=harmful.clock.now())
    assert (report.until, sum(report.units.values()), report.crossed) == (last.time, 900, 0)
    assert (report.verdict, report.stop) == ("failure", True)
    assert report.advice == "Keep control"
    with pytest.raises(RefusedError, match=r"tone, firm: .* got 'failure: guardrail fallbacks"):
        decide(harmful.project, "tone", "firm", reason="soft harms")
    assert not decide(harmful.project, "tone", "firm", reason="soft harms", anyway=True)["shown"]
    stop(harmful.project, "tone", reason="clean up")
    assert not any(record.variants for record in harmful.ask(20))
    assert find_run(harmful.project, "tone").until == last.time


def test_of_two_reports_at_once_the_second_sees_the_look_of_the_first(harmful, monkeypatch):
    """Looks are read, judged and put on record alone: each spends of the level once."""
    judging = report_module.judge

    def alone(*args):
        with pytest.raises(BusyError), harmful.project.lock("rollout/promise", timeout_s=0):
            pass
        return judging(*args)

    monkeypatch.setattr(report_module, "judge", alone)
    assert report_on(harmful.project, "tone", now=harmful.clock.now()).looks == 0
    assert report_on(harmful.project, "tone", now=harmful.clock.now()).looks == 1
    looks = harmful.project.ledger.entries(object_id="experiment:tone", action="experiment.look")
    assert len(list(looks)) == 1


def test_two_controllers_halt_once_and_a_killed_one_leaves_nothing_half_done(harmful, monkeypatch):
    """One dies before its revision: the next does it whole. One comes after another: refused, and nothing is lost."""
    harmful.wait(11 * DAY)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(controller, "halt", killed)
    with pytest.raises(KeyboardInterrupt):
        controller.step_on(harmful.project, "promise", "tone")
    assert find_run(harmful.project, "tone").until is None
    monkeypatch.undo()
    before = current(harmful.project)
    assert controller.step_on(harmful.project, "promise", "tone").done
    monkeypatch.setattr(controller, "current", lambda _: before)
    monkeypatch.setattr(controller, "find_run", lambda *_: replace(find_run(harmful.project, "tone"), until=None))
    late = controller.step_on(harmful.project, "promise", "tone")
    assert (late.move, late.reason) == ("wait", "somebody changes it just now")
    assert len(history(harmful.project, "promise")) == 3
    begin(harmful)
    assert len({record.variants["tone"] for record in harmful.ask(60)}) == 3


def test_a_project_plans_its_looks_and_keeps_them(world):
    """The plan has the units of each look; a look is on record with its fraction, another report of it is not."""
    edit(world, "mde=0.2,", 'mde=0.2, analysis="pocock", looks=2,')
    plan = plan_experiment(world.project, "tone", baseline=0.4, units_per_day=100)
    one = sample_size(0.24, 0.2, alpha=0.025, share=1 / 3) / 0.75
    assert plan.units == pytest.approx(one * inflation(2, alpha=0.025, spending="pocock"), abs=2)
    assert list(plan.looks) == [math.ceil(plan.units / 2), plan.units]
    assert f"{plan.looks[0]:,}, {plan.looks[1]:,}" in str(plan)
    begin(world)
    outcomes_of(world, world.ask(plan.looks[0] + 20), {"control": 0.6, "soft": 0.1, "firm": 0.6})
    early = report_on(world.project, "tone", now=world.clock.now())
    assert (early.look, early.next_look) == (None, plan.looks[0])
    world.wait(11 * DAY)
    report = report_on(world.project, "tone", now=world.clock.now())
    assert (report.verdict, report.next_look) == ("success", plan.units)
    report_on(world.project, "tone", now=world.clock.now())
    entries = world.project.ledger.entries(object_id="experiment:tone", action="experiment.look")
    looks = [entry.payload for entry in entries if "look" in entry.payload]
    assert [(look["look"], look["fraction"]) for look in looks] == [(report.look, report.look / plan.units)]
    assert looks[0]["verdicts"]["primary late soft"] == "success"
    world.wait(DAY)
    assert report_on(world.project, "tone", now=world.clock.now()).verdict == "success"
