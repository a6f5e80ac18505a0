"""Group sequential designs: boundaries against published ones, by simulation, and from report to report."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.rollout.test_experiments import experiment

from retrodict import Metric
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError
from retrodict.core.identity import content_hash
from retrodict.rollout.experiments import ExperimentRun
from retrodict.rollout.experiments.report import ExperimentReport, judge, record_look
from retrodict.rollout.experiments.units import UnitRows
from retrodict.rollout.statistics import (
    Allowed,
    Sums,
    boundaries,
    compare_shares,
    inflation,
    repeated_p,
    sample_size,
    welch,
)
from retrodict.rollout.statistics.group import exit_chances, spent_level

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
BETTER = Allowed(at_least=0.0)
BOTH = ["obrien-fleming", "pocock"]


def test_boundaries_are_the_published_ones() -> None:
    """Lan & DeMets' of five equal looks; Pocock's and O'Brien & Fleming's constants have a level of 5 %."""
    assert boundaries(FIFTHS) == pytest.approx((4.877, 3.357, 2.680, 2.290, 2.031), abs=6e-4)
    assert boundaries(FIFTHS, spending="pocock") == pytest.approx((2.438, 2.427, 2.410, 2.397, 2.386), abs=6e-4)
    for bounds in ([2.413] * 5, [2.040 * (5 / look) ** 0.5 for look in range(1, 6)]):
        assert sum(exit_chances(bounds, FIFTHS)) == pytest.approx(0.05, abs=1e-4)
    assert boundaries((1.0,)) == pytest.approx((1.959964,))
    assert boundaries((1e-5, 1.7)) == pytest.approx((8.0, 1.959964))  # nothing to spend, then all of it
    for bad in ((), (0.0, 1.0), (0.5, 0.5), (0.5, 0.4)):
        with pytest.raises(InputError, match="above 0 and rise"):
            boundaries(bad)


def test_power_and_sizes_are_the_published_ones() -> None:
    """Jennison & Turnbull's tables 2.2 and 2.4 of the classical bounds; ours by spending need about as many units."""
    for constant, rise, sizes in [(2.413, 0.0, (1.228, 1.207)), (2.040, 0.5, (1.028, 1.026))]:
        bounds = [constant * (5 / look) ** rise for look in range(1, 6)]
        for size, power in zip(sizes, (0.8, 0.9), strict=True):
            drift = size**0.5 * (stats.norm.ppf(0.975) + stats.norm.ppf(power))
            assert sum(exit_chances(bounds, FIFTHS, drift)) == pytest.approx(power, abs=6e-4)
    assert inflation(5) == pytest.approx(1.025, abs=1e-3)
    assert inflation(5, power=0.9, spending="pocock") == pytest.approx(1.192, abs=1e-3)


@pytest.mark.parametrize("fractions", [(0.5, 1.0), FIFTHS, (0.2, 0.4, 0.401, 0.6, 1.0), (0.3, 0.3002, 1.2)])
def test_spent_is_what_may_be_spent_at_any_looks(fractions: tuple[float, ...]) -> None:
    """Two thirds of a million walks cross as often as the function allows, wherever the looks are."""
    rng = np.random.default_rng(3)
    walks = np.cumsum(rng.normal(0, np.sqrt(np.diff(fractions, prepend=0)), (660_000, len(fractions))), axis=1)
    for spending in BOTH:
        crossed = np.abs(walks) / np.sqrt(fractions) > boundaries(fractions, spending=spending)
        shares = np.maximum.accumulate(crossed, axis=1).mean(axis=0)
        levels = [spent_level(fraction, 0.05, spending) for fraction in fractions]
        assert shares == pytest.approx(levels, abs=4 * (0.05 * 0.95 / 660_000) ** 0.5)
        assert levels[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("spending", BOTH)
def test_a_repeated_p_value_is_the_level_at_which_the_look_crosses(spending: str) -> None:
    """On the boundary the level itself; never below the p value of the look alone."""
    for looks in (1, 3, 5):
        z = boundaries(FIFTHS[:looks], alpha=0.01, spending=spending)[-1]
        assert repeated_p(2 * stats.norm.sf(z), FIFTHS[:looks], spending) == pytest.approx(0.01, rel=1e-3)
    assert repeated_p(0.04, FIFTHS, spending) > 0.04
    assert repeated_p(0.04, (1.0,), spending) == pytest.approx(0.04, rel=1e-3)


class Design:
    """An experiment on values of units that come in, judged as its ledger would."""

    def __init__(self, values: np.ndarray, periods: np.ndarray | None = None, soft: np.ndarray | None = None,
                 planned: int = 1000, **more: Any) -> None:  # fmt: skip
        self.values, size = values, len(values)
        self.periods = np.zeros(size, dtype=np.int64) if periods is None else periods
        self.variant = np.where(np.arange(size) % 2 if soft is None else soft, "b", "a")
        self.definition = experiment(**{"analysis": "pocock", **more})
        weights = [(place, {"a": 0.5, "b": 0.5}) for place in range(1, int(self.periods.max()) + 2)]
        state = {"units": planned, "share": 1.0, "variants": self.definition.variants}
        self.run, self.looks = ExperimentRun("e", "p", "v", 0, None, state, tuple(weights)), []

    def report(self, size: int, *, now: int = DAY, matured: int | None = None) -> ExperimentReport:
        """As of when so many units were in, of which so many have a value; on record as ``record_look`` has it."""
        known = np.arange(size) < (size if matured is None else matured)
        sums = {metric.name: (self.values[:size] * known, known.astype(float)) for metric in self.definition.metrics}
        rows = UnitRows(
            self.variant[:size], np.zeros(size, dtype=np.int64), sums, {}, None, self.periods[:size], 0, 0, 0
        )
        report = judge(self.definition, self.run, rows, now, self.looks)
        transaction = SimpleNamespace(append=lambda _action, _name, facts, inputs: self.looks.append(facts))
        workspace = SimpleNamespace(ledger=SimpleNamespace(transaction=lambda: nullcontext(transaction)))
        return record_look(workspace, self.run, report, self.looks)  # type: ignore[arg-type]


def halves(size: int, shares: tuple[float, float]) -> np.ndarray:
    """Zeros and ones of units that alternate between two arms, at even rates of each."""
    values = np.zeros(size)
    for arm, share in enumerate(shares):
        count = len(values[arm::2])
        values[arm::2] = np.floor(np.arange(1, count + 1) * share) - np.floor(np.arange(count) * share)
    return values


def test_looks_are_judged_where_they_are_due_and_nowhere_else() -> None:
    """Between looks the report says when the next one is; seen again a look is the same one, on record once."""
    design = Design(halves(2000, (0.5, 0.5)), looks=4)
    early = design.report(249)
    assert (early.verdict, early.look, early.next_look) == ("inconclusive", None, 250)
    assert early.reason == "b: 249 of 1000 planned units, and the next look is at 250"
    assert early.effects[0].contrast.p_value is None
    first = design.report(260)
    assert (first.look, first.next_look, design.looks[-1]["fraction"]) == (260, 500, 0.26)
    again = design.report(260)
    assert (again.digest, len(design.looks)) == (first.digest, 2)
    between = design.report(499)
    assert (between.look, between.next_look) == (260, 500)
    assert "inconclusive at the look at 260 units; 499 of 1000 planned units, and the next" in between.reason
    late = design.report(800)  # the looks at 500 and 750 are one
    assert (late.look, late.next_look) == (800, 1000)
    level = 1 - late.effects[0].contrast.confidence
    bound = boundaries((0.26, 0.8), spending="pocock")[-1]
    assert level == pytest.approx(2 * stats.norm.sf(bound))  # those on record count, the ones missed do not
    last = design.report(1003)
    assert (last.look, last.next_look) == (1003, None)
    assert last.advice == "Stop: there is no further look, and a may stay"
    assert design.report(1500).reason == (
        "b: inconclusive at the look at 1003 units; 1500 of 1000 planned units, and there is no further look"
    )
    assert [look["look"] for look in design.looks if "look" in look] == [260, 800, 1003]


def test_a_boundary_that_is_crossed_stays_so_and_no_level_is_spent_in_between() -> None:
    """What comes in after a look changes numbers and no verdict until the next one."""
    values = np.concatenate([halves(500, (0.5, 0.3)), halves(300, (0.2, 0.9)), halves(400, (0.5, 0.3))])
    design = Design(values, looks=2)
    assert design.report(500).verdict == "success"
    alone = compare_shares(Sums.of(values[:500:2]), Sums.of(values[1:500:2]), BETTER).p_value
    over_looks = design.looks[0]["p_values"]["primary late b"]
    assert over_looks == pytest.approx(repeated_p(alone, (0.5,), "pocock"))
    assert over_looks > 1.2 * alone
    after = design.report(700)
    assert (after.verdict, after.advice) == ("success", "Stop, and decide for b")
    assert after.reason.startswith("b: success at the look at 500 units; 700 of 1000")
    assert after.effects[0].contrast.value > -0.1
    quiet = Design(np.concatenate([halves(500, (0.5, 0.5)), halves(300, (0.5, 0.0))]), looks=2)
    assert quiet.report(500).verdict == "inconclusive"
    peek = quiet.report(799)
    assert (peek.verdict, peek.effects[0].contrast.high < 0) == ("inconclusive", True)
    assert peek.effects[0].contrast.p_value == quiet.looks[0]["p_values"]["primary late b"]


def test_units_count_once_their_outcome_has_had_its_time() -> None:
    """Of a fixed analysis, too, which is one look and is read once."""
    for more in ({"looks": 2}, {"analysis": "fixed"}):
        design = Design(halves(3000, (0.5, 0.3)), planned=1000, **more)
        assert design.report(1500, matured=499).look is None
        assert design.report(1500, matured=1000).verdict == "success"
    assert design.report(3000).effects[0].contrast.reason.startswith("success at the look at 1000 units; 3000 of")
    assert [look["look"] for look in design.looks if "look" in look] == [1000]
    design = Design(halves(1000, (0.5, 0.5)), planned=1000, analysis="fixed")
    design.looks.append({"since": 0, "now": 0, "p_values": {"primary late b": 1e-9}, "balance_p": None, "report": ""})
    assert design.report(1000).effects[0].contrast.p_value > 0.5  # what was seen on the way is no look


def test_a_report_as_of_the_past_takes_no_look_that_a_later_one_took() -> None:
    """Else the level of the early look would be spent after that of the late one."""
    design = Design(halves(2000, (0.5, 0.5)))
    assert design.report(600, now=6 * DAY).look == 600
    past = design.report(200, now=2 * DAY)
    assert (past.look, past.next_look, past.verdict) == (None, 800, "inconclusive")
    assert past.effects[0].contrast.p_value is None
    assert design.report(800, now=8 * DAY).look == 800


def test_guardrails_stop_between_looks() -> None:
    """They hold at any look."""
    rail = Metric.rate("harm", "score > 1", max_rise=0.05)
    report = Design(halves(900, (0.1, 0.9)), planned=90_000, guardrails=[rail]).report(900)
    assert (report.look, report.verdict, report.stop) == (None, "failure", True)


def test_other_analyses_are_what_they_were_with_or_without_looks() -> None:
    """A running experiment goes on after an upgrade: its version knows no looks."""
    assert content_hash(experiment()) == content_hash(experiment(looks=7))
    assert content_hash(experiment()) == "fea2925eb3feccda8c37903c749ac5ab26019ead7d1e66634eb49ab18a56952e"
    assert content_hash(experiment(analysis="pocock")) != content_hash(experiment(analysis="pocock", looks=7))


@pytest.mark.parametrize("spending", BOTH)
def test_false_positives_and_power_are_what_was_planned(spending: str) -> None:
    """4,000 experiments of five looks: 5 % wrong where nothing differs, 80 % right at the planned effect and size."""
    rng, size = np.random.default_rng(7), math.ceil(sample_size(1.0, 0.25) * inflation(5, spending=spending) / 10)
    levels = stats.norm.sf(boundaries(FIFTHS, spending=spending))
    shares = {}
    for effect in (0.0, 0.25):
        verdicts = []
        for _ in range(4000):
            arms = rng.normal(0, 1, (5, size)), rng.normal(effect, 1, (5, size))
            looks = ([Sums.of(arm[:look]) for arm in arms] for look in range(1, 6))
            contrasts = (welch(*sums, BETTER, alpha=level) for sums, level in zip(looks, levels, strict=True))
            verdicts.append(next((c.verdict for c in contrasts if c.verdict != "inconclusive"), ""))
        shares[effect] = verdicts.count("success") / 4000, verdicts.count("failure") / 4000
    assert shares[0.0] == pytest.approx((0.025, 0.025), abs=3 * (0.025 * 0.975 / 4000) ** 0.5)
    assert shares[0.25][0] == pytest.approx(0.8, abs=0.02)


def test_looks_are_judged_within_periods_of_weights() -> None:
    """A rate that falls while the weights change is no effect at any look; a difference in both periods is one."""
    rng, periods = np.random.default_rng(2), np.repeat([0, 1], [1000, 1000])
    soft = rng.random(2000) < np.where(periods, 0.5, 0.1)
    for effect, verdict in [(0.0, "inconclusive"), (-0.15, "success")]:
        values = (rng.random(2000) < np.where(periods, 0.2, 0.7) + effect * soft).astype(float)
        design = Design(values, periods, soft, 2000, looks=2)
        weights = ((1, {"a": 0.9, "b": 0.1}), (2, {"a": 0.5, "b": 0.5}))
        design.run = replace(design.run, periods=weights)
        design.report(1000)
        last = design.report(2000)
        assert (last.effects[0].contrast.method, last.verdict) == ("2 strata", verdict)
        bound = boundaries((0.5, 1.0), spending="pocock")[-1]
        assert 1 - last.effects[0].contrast.confidence == pytest.approx(2 * stats.norm.sf(bound))
