"""Verdicts over the arms of a rollout: what is compared, on which scale, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrodict import Rollout
from retrodict.core.tasks import Target
from retrodict.outcomes import Outcomes
from retrodict.rollout.evidence import Evidence

EVEN = {"canary": 0.1, "control": 0.1}


def evidence(canary, **columns):
    """Decisions, each by another unit unless ``units`` says so."""
    size = len(canary)
    units = np.asarray(columns.pop("units", np.arange(size)))
    values = {
        "decision": ["ok"] * size, "fallback": [None] * size, "score": [0.5] * size,
        "record__micros": [1_000] * size, **columns,
    }  # fmt: skip
    table = pa.table({name: pa.array(v) if name != "fallback" else pa.array(v, pa.string())
                      for name, v in values.items()})  # fmt: skip
    return Evidence(table, units, np.asarray(canary))


def judge(data, text, kind="prove", shares=EVEN, **more):
    rollout = Rollout("small", unit="customer", **{"hold": [], "prove": [], kind: [text], **more})
    return data.judge(rollout, shares)[1]


def arms(each):
    return np.repeat([True, False], each)


def decisions(shares, each):
    """Decisions of which so many per arm are a warning: of the canary, of its control."""
    return ["warn" if place < round(share * each) else "ok" for share in shares for place in range(each)]


def test_the_difference_of_two_rates_is_within_or_not():
    """By the interval and not by the value."""
    close, far = decisions((0.31, 0.30), 4000), decisions((0.45, 0.30), 4000)
    verdict = judge(evidence(arms(4000), decision=close), "rate(warn) within 0.1")
    assert (verdict.verdict, verdict.canary, verdict.control) == ("success", 0.31, 0.30)
    assert verdict.low < 0.01 < verdict.high < 0.1
    assert judge(evidence(arms(4000), decision=far), "rate(warn) within 0.1").verdict == "failure"
    assert judge(evidence(arms(4000), decision=close), "rate(warn) within 0.02").verdict == "inconclusive"


def test_units_count_and_not_their_decisions():
    """A hundred units with forty decisions each are a hundred observations."""
    units = np.repeat(np.arange(200), 40)
    data = evidence(arms(4000), units=units, decision=decisions((0.31, 0.30), 4000))
    verdict = judge(data, "rate(warn) within 0.1")
    assert (verdict.units_canary, verdict.units_control) == (100, 100)
    assert verdict.verdict == "inconclusive"
    assert judge(data, "rate(warn) within 0.1", min_units=101).reason.startswith("100 units with a value are fewer")


@pytest.mark.parametrize(("canary", "control", "verdict"), [
    (1, 0, "success"), (3, 0, "success"), (40, 0, "failure"), (60, 20, "failure"), (25, 20, "success"),
])  # fmt: skip
def test_one_error_is_no_breach(canary, control, verdict):
    """Of a version whose champion had none; many are."""
    fallback = ["ok"] * canary + [None] * (1000 - canary) + ["ok"] * control + [None] * (1000 - control)
    assert judge(evidence(arms(1000), fallback=fallback), "error_rate <= champion * 1.1", "hold").verdict == verdict


def test_an_absolute_limit_is_of_the_new_version_alone():
    """However bad the old one is."""
    fallback = ["ok"] * 100 + [None] * 900 + ["ok"] * 500 + [None] * 500
    verdict = judge(evidence(arms(1000), fallback=fallback), "error_rate <= 0.02", "hold")
    assert (verdict.verdict, verdict.scale, verdict.canary) == ("failure", "absolute", 0.1)
    assert judge(evidence(arms(1000), fallback=fallback), "error_rate <= 0.2", "prove").verdict == "success"


def test_slow_answers_are_seen_in_the_quantile_and_equal_ones_are_not():
    """Twice as long, against 1.2 times."""
    rng = np.random.default_rng(1)
    times = (rng.lognormal(7, 0.5, 6000)).astype(int)
    assert judge(evidence(arms(3000), record__micros=times), "p99_ms <= champion * 1.2", "hold").verdict == "success"
    times[:3000] *= 2
    verdict = judge(evidence(arms(3000), record__micros=times), "p99_ms <= champion * 1.2", "hold")
    assert verdict.verdict == "failure"
    assert verdict.canary == pytest.approx(np.quantile(times[:3000], 0.99) / 1e3)
    assert judge(evidence(arms(3000), record__micros=times), "p99_ms <= 1.0", "hold").verdict == "failure"


def test_groups_are_compared_by_the_interval_of_each():
    """Four fifths of the canary's groups; the control is not asked."""
    group = ["a"] * 2000 + ["b"] * 2000
    sexes = group * 2

    def data(share_a, share_b):
        decision = decisions((share_a,), 2000) + decisions((share_b,), 2000)
        return evidence(arms(4000), decision=decision * 2, context__sex=sexes)

    text = "dp_ratio(sex: warn) >= 0.8"
    assert judge(data(0.6, 0.6), text).verdict == "success"
    verdict = judge(data(0.6, 0.2), text)
    assert (verdict.verdict, verdict.canary) == ("failure", pytest.approx(1 / 3))
    assert judge(data(0.6, 0.49), text).verdict == "inconclusive"
    assert judge(evidence(arms(4000), context__sex=["a"] * 8000), text).verdict == "inconclusive"


def test_quality_is_judged_by_what_is_known():
    """Without outcomes nothing is shown; with them the mean squared error of either arm is compared."""
    rng = np.random.default_rng(2)
    size, text = 8000, "brier not worse by 0.05"
    score = rng.uniform(0, 1, size)
    label = (rng.uniform(0, 1, size) < score).astype(float)
    canary = arms(size // 2)
    nothing = evidence(canary, score=score)
    assert judge(nothing, text).verdict == "inconclusive"
    assert judge(nothing, text).reason == "no outcome is known"

    def with_outcomes(scores):
        data = evidence(canary, score=scores)
        facts = Outcomes("promise", 0, data.decisions, np.repeat("known", size), label, np.zeros(size, np.int64), 0, 0,
                         0, 0, (), Target())  # fmt: skip
        return Evidence(data.decisions, data.units, canary, facts)

    verdict = judge(with_outcomes(score), text)
    errors = (score - label) ** 2
    assert verdict.verdict == "success"
    assert verdict.canary == pytest.approx(errors[canary].mean())
    assert verdict.control == pytest.approx(errors[~canary].mean())
    wrong = np.where(canary, 1 - score, score)
    assert judge(with_outcomes(wrong), text).verdict == "failure"
    assert judge(with_outcomes(wrong), "log_loss not worse by 0.05").verdict == "failure"


def test_arms_without_their_share_are_a_failure():
    """Requests of one arm got lost on the way to the log."""
    canary = np.repeat([True, False], [700, 1000])
    rollout = Rollout("small", unit="customer", hold=[])
    assert evidence(canary).judge(rollout, EVEN)[0].verdict == "failure"
    assert evidence(arms(900)).judge(rollout, EVEN)[0].verdict == "success"


def test_equal_versions_are_rarely_called_broken_however_often_one_looks():
    """Four hundred rollouts of the same version, looked at twenty times each, with all that is held by default."""
    rng, alarms = np.random.default_rng(3), 0
    rollout = Rollout("small", unit="customer", prove=["rate(warn) within 0.02"], min_units=50)
    for _ in range(400):
        size = 4000
        canary = rng.uniform(size=size) < 0.5
        fallback = np.where(rng.uniform(size=size) < 0.01, "ok", None).tolist()
        decision = np.where(rng.uniform(size=size) < 0.3, "warn", "ok").tolist()
        micros = rng.lognormal(7, 0.6, size).astype(int)
        whole = evidence(canary, fallback=fallback, decision=decision, record__micros=micros)
        for until in range(size // 20, size + 1, size // 20):
            part = Evidence(whole.decisions.slice(0, until), whole.units[:until], canary[:until])
            if any(one.verdict == "failure" for one in part.judge(rollout, {"canary": 0.5, "control": 0.5})):
                alarms += 1
                break
    assert alarms <= 400 * 0.05
