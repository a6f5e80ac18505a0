"""Rules that nobody followed yet, and weights of bandits, against closed forms and simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from retrodict.core.errors import InputError
from retrodict.rollout.statistics import (
    Allowed,
    Sums,
    chances_of_best,
    cross_fit,
    linearise,
    rule_value,
    stratified,
    thompson_weights,
)


def world(rng, size, weights=(0.5, 0.3, 0.2)):
    """Units with a kind; the second variant is good for one kind alone, and how often units are seen differs."""
    kind, given = rng.integers(0, 2, size), rng.choice(len(weights), size, p=weights)
    rate = np.array([[0.3, 0.5, 0.3], [0.3, 0.1, 0.3]])[kind, given]
    below = 1.0 + rng.integers(0, 3, size)
    return kind, given, rng.binomial(below.astype(int), rate).astype(float), below, np.asarray(weights)[given]


def test_a_rule_has_the_value_that_it_has() -> None:
    """1,000 experiments: no estimator is off, intervals cover in 95 %, and the doubly robust one varies the least."""
    rng, found = np.random.default_rng(2), {"ips": [], "snips": [], "dr": []}
    covered = dict.fromkeys(found, 0)
    for _ in range(1_000):
        kind, given, above, below, weight = world(rng, 1_500)
        chosen = np.where(kind == 0, 1, 0)  # 0.5 for the one half, 0.3 for the other
        expected = cross_fit(above, below, given, kind[:, None].astype(float), 3)
        for name, values in rule_value(above, below, given, chosen, weight, expected).items():
            half = 1.96 * values.std() / math.sqrt(values.size)
            found[name].append(values.mean())
            covered[name] += abs(values.mean() - 0.4) <= half
    for name, values in found.items():
        assert np.mean(values) == pytest.approx(0.4, abs=4 * np.std(values) / math.sqrt(1_000)), name
        assert covered[name] / 1_000 == pytest.approx(0.95, abs=0.025), name
    assert np.std(found["dr"]) < np.std(found["snips"]) < np.std(found["ips"])


def test_a_rule_of_one_variant_is_that_variant() -> None:
    """Normalised, of one weight: the arm's own ratio; and a trend cancels out where weights changed."""
    _, given, above, below, weight = world(np.random.default_rng(3), 2_000)
    arm = given == 1
    values = rule_value(above, below, given, np.ones_like(given), weight)
    assert set(values) == {"ips", "snips"}
    assert values["snips"].mean() == pytest.approx(above[arm].sum() / below[arm].sum())
    assert values["ips"].mean() == pytest.approx((above[arm] / weight[arm]).sum() / below.sum())
    given = np.repeat([0, 1, 0, 1], [900, 100, 500, 500])
    weight, ones = np.repeat([0.9, 0.1, 0.5, 0.5], [900, 100, 500, 500]), np.ones(2_000)
    late = np.repeat([1.0, 0.0], 1_000)  # everybody at first, nobody later
    assert rule_value(late, ones, given, ones.astype(int), weight)["snips"].mean() == pytest.approx(0.5)
    assert late[given == 1].mean() == pytest.approx(1 / 6)
    with pytest.raises(InputError, match="above 0"):
        rule_value(late, ones, given, given, weight * 0)
    with pytest.raises(InputError, match="must not add up to 0"):
        rule_value(late, ones, given, np.full(2_000, 2), weight)


def test_what_is_foretold_of_a_unit_is_not_from_itself() -> None:
    """Only the other fold's units of the same variant, weighed by how often they were seen."""
    above, below = np.array([0.0, 4.0, 9.0, 1.0, 5.0, 2.0]), np.array([1.0, 4.0, 9.0, 4.0, 10.0, 8.0])
    given = np.array([0, 0, 0, 0, 1, 1])
    expected = cross_fit(above, below, given, np.zeros((6, 1)), 2)
    assert expected[0, 0] == pytest.approx(5 / 8)
    assert expected[1, 0] == pytest.approx(9 / 10)
    assert expected[[0, 1], 1] == pytest.approx([2 / 8, 5 / 10])


def test_chances_are_those_of_normals() -> None:
    """Two by their closed form, three by simulation, however different their deviations."""
    for one, other in [((0.0, 1.0), (1.0, 1.0)), ((0.1, 0.01), (0.12, 0.05)), ((5.0, 1e-4), (5.0, 2.0))]:
        chance = stats.norm.sf(0, other[0] - one[0], math.hypot(one[1], other[1]))
        assert chances_of_best(*zip(one, other, strict=True)) == pytest.approx([1 - chance, chance], abs=2e-3)
    means, deviations = [0.0, 0.3, 0.5], [1.0, 0.5, 0.1]
    draws = np.random.default_rng(1).normal(means, deviations, (200_000, 3)).argmax(1)
    assert chances_of_best(means, deviations) == pytest.approx(np.bincount(draws) / 200_000, abs=5e-3)


def test_weights_of_a_bandit_follow_the_chances_and_never_the_absence_of_events() -> None:
    """Between floor and rest, by the direction of the metric; too little known gives none."""
    arms = {"a": Sums.rate(500, 50), "b": Sums.rate(500, 60), "c": Sums.rate(500, 20)}
    weights = thompson_weights(arms, floor=0.1)
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights.values()) == weights["c"] == pytest.approx(0.1, abs=1e-3)
    assert weights["b"] > weights["a"] > 0.2
    assert thompson_weights(arms, floor=0.1, higher=False)["c"] == pytest.approx(0.8, abs=1e-3)
    assert thompson_weights(arms | {"c": Sums.rate(29, 5)}, floor=0.1) == {}
    assert thompson_weights({name: Sums.rate(50, 50) for name in "ab"}, floor=0.1) == {}
    none = thompson_weights({"a": Sums.rate(40, 0), "b": Sums.rate(400, 20)}, floor=0.01)
    assert 0.03 < none["a"] < 0.2  # no event of 40 where two are due: it may be the best yet
    for floor in (-0.1, 0.4):
        with pytest.raises(InputError, match="floor"):
            thompson_weights(arms, floor=floor)


def ramp(rng, rates, turns, size, floor=0.05):
    """Units of a bandit whose rates all fall by half on the way; strata after every turn, and who got what."""
    weights, given, late, weight, period = np.full(len(rates), 1 / len(rates)), [], [], [], []
    for turn in range(turns):
        of_turn = rng.choice(len(rates), size, p=weights)
        given.append(of_turn)
        late.append(rng.random(size) < np.asarray(rates)[of_turn] * (1 if turn < turns / 2 else 0.5))
        weight.append(weights[of_turn])
        period.append(np.full(size, turn))
        arms, y, w, p = (np.concatenate(parts) for parts in (given, late, weight, period))
        yield arms, [tuple(Sums.of(y[(p == t) & (arms == arm)]) for arm in (0, 1)) for t in range(turn + 1)]
        sums = {str(arm): Sums.of(linearise(y[arms == arm] / w[arms == arm], 1 / w[arms == arm]))
                for arm in range(len(rates))}  # fmt: skip
        weights = np.array([*(thompson_weights(sums, floor=floor) or dict.fromkeys(sums, 1 / len(rates))).values()])


def test_a_bandit_deceives_nobody_and_gives_more_to_the_better() -> None:
    """600 without a difference, looked at after each of ten turns, while rates halve; and 60 with one."""
    rng, wrong, better = np.random.default_rng(8), 0, []
    for _ in range(600):
        verdicts = {
            stratified([pair for pair in strata if min(arm.n for arm in pair) >= 30], Allowed(at_least=0.0),
                       alpha=0.025, best_at=1_500).verdict
            for _, strata in ramp(rng, [0.3, 0.3], 10, 300, floor=0.1)
        }  # fmt: skip
        wrong += verdicts != {"inconclusive"}
    assert wrong / 600 <= 0.05
    for _ in range(60):
        *_, (arms, _) = ramp(rng, [0.2, 0.3, 0.2], 10, 300)
        better.append((arms == 1).mean())
    assert np.mean(better) > 0.6
