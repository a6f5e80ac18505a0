"""Verdicts over the arms of a rollout: what is compared, on which scale, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tests.rollout.test_ladder import STATE

from retrodict import Guard, Rollout
from retrodict.core.durations import HOUR
from retrodict.core.errors import DefinitionError
from retrodict.core.tasks import Target
from retrodict.outcomes import Outcomes
from retrodict.rollout.definitions import read_condition
from retrodict.rollout.evidence import Evidence, _compare
from retrodict.rollout.ladder import next_move
from retrodict.rollout.statistics import Allowed, Sums, bound_share
from retrodict.rollout.statistics.sequential import _log_evidence

EVEN = {"canary": 0.1, "control": 0.1}


def evidence(canary, **columns):
    """Decisions, each by another unit unless ``units`` says so."""
    size = len(canary)
    units = np.asarray(columns.pop("units", np.arange(size)))
    values = {
        "time": [0] * size, "decision": ["ok"] * size, "fallback": [None] * size, "score": [0.5] * size,
        "record__micros": [1_000] * size, "record__error": [None] * size, **columns,
    }  # fmt: skip
    for name in ("fallback", "record__error"):
        values[name] = pa.array(values[name], pa.string())
    table = pa.table({name: v if isinstance(v, pa.Array) else pa.array(v) for name, v in values.items()})
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


@pytest.mark.parametrize(("canary", "control", "verdict"), [(2, 0, "failure"), (2, 2, "success"), (0, 2, "success")])
def test_errors_that_are_some_of_each_unit_are_a_breach_too(canary, control, verdict):
    """Ten decisions of each of 200 units, of which so many fail: means of units have no ratio to none."""
    units, turn = np.repeat(np.arange(400), 10), np.tile(np.arange(10), 400)
    fallback = ["ok" if bad else None for bad in turn < np.where(units < 200, canary, control)]
    data = evidence(arms(2000), units=units, fallback=fallback)
    assert judge(data, "error_rate <= champion * 1.1", "hold").verdict == verdict


def test_equal_shares_of_errors_are_rarely_a_breach_however_often_one_looks():
    """Units differ in how often they fail: at most 10 % of 100 rollouts, seen 40 times each."""
    rng, condition, alarms = np.random.default_rng(5), read_condition("error_rate <= champion * 1.1", where=""), 0
    for _ in range(100):
        shares = rng.binomial(10, rng.beta(0.05, 0.45, (2, 2_000))) / 10
        alarms += any(
            _compare(condition, *(Sums.of(arm[:n]) for arm in shares), 0.1, 100).verdict == "failure"
            for n in range(100, 2_001, 50)
        )
    assert alarms <= 10


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


@pytest.mark.parametrize(("error", "away"), [
    ("ServerAwayError", True), ("OpenBreakerError", True), ("AttemptsError", True), ("RetryableError", True),
    ("TimeoutError", False), ("StaleStateError", False), ("ValueError", False),
])  # fmt: skip
@pytest.mark.parametrize("text", ["error_rate <= 0.01", "rate(ok) <= 0.5", "p99_ms <= champion * 1.2"])
def test_stores_that_are_away_are_no_fault_of_a_version(text, error, away):
    """Their failures are counted apart; what the model or the policy is slow or wrong about is the version's."""
    none = [None] * 1880
    data = evidence(
        arms(1000), fallback=["ok"] * 120 + none, record__error=[error] * 120 + none,
        decision=["ok"] * 120 + ["warn"] * 1880, record__micros=[900_000] * 120 + [1_000] * 1880,
    )  # fmt: skip
    verdict = judge(data, text, "hold")
    assert verdict.reason.endswith("; 120 failures of stores or servers left out") == away
    if text.startswith("error_rate"):
        assert (verdict.verdict, verdict.units_canary) == (("success", 880) if away else ("failure", 1000))
    else:
        assert verdict.canary == (
            pytest.approx({"r": 0.0, "p": 1.0}[text[0]] if away else {"r": 0.12, "p": 900.0}[text[0]])
        )


@pytest.mark.parametrize(("canary", "control", "verdict"), [
    (300, 0, "failure"), (300, 300, "success"), (1000, 1000, "success"), (3, 0, "success"), (100, 60, "success"),
    (1000, 20, "failure"),
])  # fmt: skip
@pytest.mark.parametrize("often", [1, 4])
def test_servers_that_fail_more_for_the_new_version_are_a_failure(canary, control, verdict, often):
    """No condition counts them, but both arms ask the same servers: what fails only one of them is its own."""
    errors = ["AttemptsError"] * canary + [None] * (1000 - canary) + ["AttemptsError"] * control
    errors += [None] * (2000 - len(errors))
    fallback, units = [one and "ok" for one in errors], np.arange(2000) // often
    data = evidence(arms(1000), units=units, fallback=fallback, record__error=errors)
    one = data.judge(Rollout("small", unit="a", prove=["rate(warn) within 0.9"]), EVEN)[-1]
    assert (one.condition, one.verdict) == ("stores and servers", verdict)
    assert one.reason.startswith(f"AttemptsError {canary:,} of 1,000 of the canary, ")


@pytest.mark.parametrize(("away", "verdict"), [(300, "inconclusive"), (3, "success")])
def test_servers_that_fail_beside_no_control_are_waited_for(away, verdict):
    """It may be an outage: neither shown to be the version's, nor passed over."""
    errors = ["AttemptsError"] * away + [None] * (1000 - away)
    data = evidence([True] * 1000, fallback=[one and "ok" for one in errors], record__error=errors)
    one = data.judge(Rollout("all", unit="a", steps=[100]), {"canary": 1.0, "control": 0.0})[-1]
    assert (one.condition, one.verdict) == ("stores and servers", verdict)


def test_a_store_that_is_away_for_all_leaves_nothing_shown():
    """Not that the version is good either; and both arms have their units, whichever of them reads the store."""
    none = [None] * 200
    data = evidence(arms(200), fallback=["ok"] * 200 + none, record__error=["ServerAwayError"] * 200 + none)
    assert judge(data, "error_rate <= 0.01", "hold").verdict == "inconclusive"
    assert data.judge(Rollout("small", unit="a"), EVEN)[0].verdict == "success"


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


@pytest.mark.parametrize("kind", ["hold", "prove"])
@pytest.mark.parametrize("groups", [["a"], ["a", None], ["a"] * 3999 + ["b"]])
def test_one_group_alone_is_no_equality(kind, groups):
    """A column that is always the same, or almost, holds nothing."""
    sex = pa.array((groups * 4000)[:4000], pa.string())
    data = evidence(arms(2000), decision=decisions((0.3, 0.3), 2000), context__sex=sex)
    verdict = judge(data, "dp_ratio(sex: warn) >= 0.8", kind)
    assert (verdict.verdict, "sex" in verdict.reason) == ("inconclusive", True)


@pytest.mark.parametrize("text", [
    "brier >= 0.1", "error_rate >= champion", "p99_ms >= champion * 0.5", "loss >= champion - 0.1",
    "dp_ratio(sex: ok) <= 0.8", "dp_ratio(sex: ok) >= 0", "rate(ok) >= 0", "rate(ok) <= 1",
    "brier not worse by 1", "rate(ok) within 1",
    "rate(ok) >= champion - 1", "error_rate <= 1", "brier <= 1.5", "rate(ok) >= champion * 0", "disagreement <= 1",
])  # fmt: skip
def test_what_cannot_be_broken_or_is_no_harm_is_refused(text):
    """With what is meant, also of a guard, which says what it acts on."""
    with pytest.raises(DefinitionError, match=r"harm|broken or not"):
        read_condition(text, where="rollout small, hold")
    if "champion" not in text and "<=" in text and "disagreement" not in text:
        with pytest.raises(DefinitionError, match=r"harm|broken or not"):
            Guard("errors", when=[text.replace("<=", ">")])


def test_a_guard_that_would_act_on_good_days_is_refused():
    """In its own words."""
    with pytest.raises(
        DefinitionError, match=r"less is better of error_rate; got 'error_rate < 0\.01'.*Write it with >"
    ):
        Guard("errors", when=["error_rate < 0.01"])


@pytest.mark.parametrize("more", [{"hold": (), "prove": ()}, {"min_units": True}, {"steps": [True, 100]}])
def test_a_rollout_of_nothing_is_refused(more):
    """And what is no number."""
    with pytest.raises(DefinitionError, match=r"judge something|whole number|steps must"):
        Rollout("small", unit="customer", **more).check()


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


def test_outcomes_that_come_from_one_arm_alone_show_nothing():
    """Half of the canary's never come, the wrong ones: nothing is proved or refuted by them, harm is still harm."""
    size, rng = 4000, np.random.default_rng(2)
    canary, label = arms(size // 2), rng.integers(0, 2, size).astype(float)
    score = np.where(rng.random(size) < 0.5, label, 1 - label)
    rollout = Rollout("small", unit="customer", hold=["brier not worse by 0.1"], prove=["brier not worse by 0.05"])

    def verdicts(hidden, score=score):
        data = evidence(canary, score=score)
        status, labels = np.where(hidden, "void", "known"), np.where(hidden, np.nan, label)
        facts = Outcomes("promise", 0, data.decisions, status, labels, np.zeros(size, np.int64), 0, 0, 0, 0, (),
                         Target())  # fmt: skip
        rows = Evidence(data.decisions, data.units, canary, facts).judge(rollout, EVEN)
        return {f"{one.condition} {one.kind}": one for one in rows}

    hold, prove = "brier not worse by 0.1 hold", "brier not worse by 0.05 prove"
    selective = verdicts(canary & (score != label))
    assert [selective[name].verdict for name in (hold, prove, "outcomes hold")] == ["inconclusive"] * 3
    came = int((canary & (score == label)).sum())
    assert f"canary {came:,} and {size // 2 - came:,}, control 2,000 and 0" in selective[prove].reason
    assert next_move(rollout, STATE, list(selective.values()), HOUR * 24).what == "wait"
    worse = verdicts(canary & (label == 1), np.where(canary, 1 - label, label))
    assert [worse[name].verdict for name in (hold, prove)] == ["failure", "inconclusive"]
    alike = verdicts(rng.random(size) < 0.3)
    assert ("not evaluable" in alike[prove].reason, alike["outcomes hold"].verdict) == (False, "success")


def test_arms_without_their_share_are_a_failure():
    """Requests of one arm got lost on the way to the log."""
    canary = np.repeat([True, False], [700, 1000])
    rollout = Rollout("small", unit="customer", hold=[])
    assert evidence(canary).judge(rollout, EVEN)[0].verdict == "failure"
    assert evidence(arms(900)).judge(rollout, EVEN)[0].verdict == "success"
    assert evidence(np.repeat([True, False], [0, 1000])).judge(rollout, EVEN)[0].verdict == "failure"


@pytest.mark.parametrize(("canary", "control", "shares", "verdict", "missing"), [
    (0, 0, EVEN, "inconclusive", 100), (99, 120, EVEN, "inconclusive", 1), (100, 100, EVEN, "success", 0),
    (99, 0, {"canary": 1.0, "control": 0.0}, "inconclusive", 1),
    (100, 0, {"canary": 1.0, "control": 0.0}, "success", 0),
])  # fmt: skip
def test_nothing_is_a_success_without_units(canary, control, shares, verdict, missing):
    """Also where nothing is to hold or to be proved: a share needs its units before it can be right."""
    balance = evidence(np.repeat([True, False], [canary, control])).judge(Rollout("bare", unit="a", hold=[]), shares)[0]
    assert (balance.verdict, balance.units_canary, balance.units_control) == (verdict, canary, control)
    assert balance.reason.startswith("not evaluable: 100 units of this step") == bool(missing)
    assert not missing or balance.reason.endswith(f", {missing} are missing")


def test_equal_versions_are_rarely_called_broken_however_often_one_looks():
    """Four hundred rollouts of the same version, looked at eight times each, with all that is held by default."""
    rng, alarms = np.random.default_rng(3), 0
    rollout = Rollout("small", unit="customer", prove=["rate(warn) within 0.02"], min_units=50)
    for _ in range(400):
        size = 4000
        canary = rng.uniform(size=size) < 0.5
        fallback = np.where(rng.uniform(size=size) < 0.01, "ok", None).tolist()
        decision = np.where(rng.uniform(size=size) < 0.3, "warn", "ok").tolist()
        micros = rng.lognormal(7, 0.6, size).astype(int)
        whole = evidence(canary, fallback=fallback, decision=decision, record__micros=micros)
        for until in range(size // 8, size + 1, size // 8):
            part = Evidence(whole.decisions.slice(0, until), whole.units[:until], canary[:until])
            if any(one.verdict == "failure" for one in part.judge(rollout, {"canary": 0.5, "control": 0.5})):
                alarms += 1
                break
    assert alarms <= 400 * 0.05


def test_an_exact_limit_is_broken_by_the_first_units_and_never_passed_by_them():
    """Three of three errors are over 1 %; one of three may be chance; none of a hundred is not under 1 % either."""

    def after(errors, each):
        fallback = ["ok"] * errors + [None] * (2 * each - errors)
        return judge(evidence(arms(each), fallback=fallback), "error_rate <= 0.01", "hold").verdict

    assert (after(3, 3), after(1, 3), after(0, 100)) == ("failure", "inconclusive", "success")
    assert judge(evidence(arms(100)), "error_rate <= 0.01").verdict == "inconclusive"


def test_a_version_that_is_wrong_about_one_group_is_seen_by_what_the_old_one_makes_of_the_same_requests():
    """Eight flights of one carrier among four hundred, all decided otherwise: over the whole nothing is seen."""
    each = 400
    carrier = (["UA"] * 8 + ["B6"] * (each - 8)) * 2
    decision = ["warn"] * 8 + ["ok"] * (2 * each - 8)
    others = np.array(["ok"] * each + [None] * each, dtype=object)
    data = evidence(arms(each), decision=decision, entity__carrier=carrier)
    data = Evidence(data.decisions, data.units, data.canary, None, others)
    assert judge(data, "disagreement <= 0.1", "hold").verdict == "success"
    verdict = judge(data, "disagreement <= 0.1 for each carrier", "hold")
    assert (verdict.verdict, verdict.canary, verdict.units_canary) == ("failure", 1.0, 8)
    assert verdict.reason.startswith("carrier UA: the mean 1 ")
    assert judge(data, "disagreement <= 0.1 for each carier", "hold").verdict == "inconclusive"
    fallen = evidence(arms(each), decision=decision, entity__carrier=carrier, fallback=["ok"] * 8 + [None] * 792)
    fallen = Evidence(fallen.decisions, data.units, data.canary, None, others)
    assert judge(fallen, "disagreement <= 0.1 for each carrier", "hold").units_canary == 392
    nothing = evidence(arms(each), decision=decision, entity__carrier=carrier)
    assert judge(nothing, "disagreement <= 0.1", "prove").reason == "nothing was asked of the old version"


def test_decisions_without_the_value_of_a_group_are_held_to_it_too():
    """A fallback may have read no feature: its errors are in no group by one, and would be passed over."""
    each = 400
    fallback, band = ["ok"] * 190 + [None] * (2 * each - 190), [None] * 190 + ["a"] * (2 * each - 190)
    data = evidence(arms(each), fallback=fallback, context__band=pa.array(band, pa.string()))
    verdict = judge(data, "error_rate <= 0.05 for each band", "hold")
    assert (verdict.verdict, verdict.units_canary) == ("failure", 190)
    assert verdict.reason.startswith("band without a value: ")
    data = evidence(arms(each), fallback=["ok"] * each + [None] * each, context__band=pa.nulls(2 * each, pa.string()))
    assert judge(data, "error_rate <= 0.05 for each band", "hold").verdict == "failure"
    assert judge(data, "error_rate <= 0.05 for each band", "prove").verdict == "inconclusive"


def test_every_group_must_be_shown_and_a_small_one_is_inconclusive():
    """Proved for each: a group of fewer units than are needed does not pass; held, it does not stop the others."""
    group = (["a"] * 3000 + ["b"] * 50) * 2
    data = evidence(arms(3050), decision=decisions((0.3, 0.3), 3050), context__group=group)
    assert judge(data, "rate(warn) within 0.15").verdict == "success"
    verdict = judge(data, "rate(warn) within 0.15 for each group")
    assert verdict.verdict == "inconclusive"
    assert verdict.reason == "group b: 50 units with a value are fewer than the 100 needed"
    large = evidence(arms(3050), decision=decisions((0.3, 0.3), 3050), context__group=["a"] * 6100)
    assert judge(large, "rate(warn) within 0.15 for each group").verdict == "success"
    assert judge(data, "rate(warn) within 0.15 for each group", "hold").verdict == "success"


GROUPED = Rollout("small", unit="customer", hold=["disagreement <= 0.2 for each group"])


def first_broken(rng, unlike, *, size=1_000, people=20_000):
    """Verdict that a group is broken by what its canary decides otherwise, or None; two looks if people return."""
    group = np.minimum(rng.geometric(0.12, size) - 1, 19)
    others = np.where(rng.uniform(size=size) < unlike[group], "warn", "ok").astype(object)
    units, canary = rng.integers(0, people, size), np.ones(size, dtype=bool)
    whole = evidence(canary, context__group=[f"g{one}" for one in group])
    for until in (size // 4, size) if people < size else (size,):
        part = Evidence(whole.decisions.slice(0, until), units[:until], canary[:until], None, others[:until])
        verdict = part.judge(GROUPED, {"canary": 1.0, "control": 0.0})[1]
        if verdict.verdict == "failure":
            return verdict
    return None


def test_over_twenty_groups_a_version_at_the_limit_is_rarely_called_broken():
    """Two hundred rollouts that change exactly what may be changed; in half of them people come back."""
    rng = np.random.default_rng(8)
    alarms = sum(first_broken(rng, np.full(20, 0.2), people=(20_000, 300)[run % 2]) is not None for run in range(200))
    assert alarms <= 200 * 0.05


def test_evidence_over_twenty_groups_crosses_its_level_rarely_however_often_one_looks():
    """Four hundred rollouts at the limit, with a look after each of 150 requests of each group."""
    rng, alarm = np.random.default_rng(10), np.zeros(400, dtype=bool)
    place = np.arange(1, 21)
    level, hits = -np.log(0.05 / (place * (place + 1))), np.zeros((400, 20))
    for look in range(1, 151):
        hits += rng.uniform(size=hits.shape) < 0.2
        alarm |= (_log_evidence(hits, look - hits, np.array(0.5), np.array(0.2)) >= level).any(axis=1)
    assert 0 < alarm.sum() <= 400 * 0.05


def test_a_version_that_is_wrong_about_one_of_twenty_groups_is_caught_and_the_group_is_named():
    """One in fourteen of all requests is of the group; it is decided otherwise in seven of ten, the others in a few."""
    rng, unlike = np.random.default_rng(9), np.where(np.arange(20) == 4, 0.7, 0.03)
    caught = [first_broken(rng, unlike) for _ in range(30)]
    assert sum(one is not None and one.reason.startswith("group g4: the mean") for one in caught) >= 27


def test_the_level_is_shared_by_groups_in_the_order_in_which_they_come():
    """The first has half of it, the second a sixth, and so on: all parts together are at most one."""
    others = np.array(["ok"] * 50 + ["warn"] * 30 + ["ok"] * 20, dtype=object)
    data = evidence(np.ones(100, dtype=bool), context__group=["b"] * 50 + ["a"] * 50)
    data = Evidence(data.decisions, data.units, data.canary, None, others)
    verdict = judge(data, "disagreement <= 0.2 for each group", "hold")
    assert verdict.low == bound_share(Sums.rate(50, 30), Allowed(at_most=0.2), alpha=0.05 / 6).low


def test_stretches_of_a_rollout_share_its_level():
    """Above half of the units every step counts its own decisions, so each has a part; the bound is wider."""
    few, many = ((10, 50, 100), (10, 50, 70, 90, 100))
    fallback = ["ok"] * 12 + [None] * 1988
    data = evidence(arms(1000), fallback=fallback)
    ways = ({"steps": few}, {"steps": many}, {"steps": few, "alpha": 0.05 / 3})
    first, second, third = (judge(data, "error_rate <= 0.01", "hold", **more).low for more in ways)
    assert second == third < first


@pytest.mark.parametrize(("steps", "stretches"), [
    ((10, 50, 100), 1), ((50, 100), 1), ((50, 70, 100), 2), ((51, 70, 100), 2), ((10, 50, 60, 70, 100), 3), ((100,), 1),
])  # fmt: skip
def test_half_of_the_units_is_still_of_the_first_stretch(steps, stretches):
    """As the control then has the other half; a step above has decisions of its own."""
    assert Rollout("small", unit="customer", steps=steps).stretches == stretches


def test_too_few_units_in_all_hold_nothing_for_each_group_either():
    """That no group is shown to be broken says nothing where hardly anybody was asked."""
    few = evidence(arms(50), decision=decisions((0.3, 0.3), 50), context__group=["a", "b"] * 50)
    verdict = judge(few, "rate(warn) within 0.3 for each group", "hold")
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "50 units with a value are fewer than the 100 needed")
