"""Comparing models of every task on the same rows: losses, ladder, champion and challenger, gates."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn import metrics as sk

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.tasks import TASKS, Target
from retrodict.evaluation import (
    Cost,
    Ladder,
    beats,
    check_gate,
    check_gates,
    climb,
    compare_losses,
    compare_outputs,
    correlate_errors,
    evaluate,
    gate_metrics,
    primary,
    row_losses,
)

TARGETS = {
    "binary": Target(),
    "multiclass": Target("multiclass", classes=("a", "b", "c"), ordered=True),
    "regression": Target("regression"),
    "quantile": Target("quantile", quantiles=(0.1, 0.5, 0.9)),
    "count": Target("count"),
    "ranking": Target("ranking"),
    "survival": Target("survival", horizons=("1d", "4d")),
}
NAMES = [pytest.param(target, id=name) for name, target in TARGETS.items()]


def _case(target: Target, n: int = 600, seed: int = 0) -> dict:
    """Labels, good outputs, outputs of which two in three are another row's, and groups of four rows."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 1.5, n)
    mixed = centre.copy()
    mixed[: n // 3 * 2] = rng.permutation(mixed[: n // 3 * 2])

    def outputs(x: np.ndarray) -> np.ndarray:
        match target.task:
            case "binary":
                return 1 / (1 + np.exp(-x))
            case "multiclass":
                p = np.exp(np.stack([-x, np.full(n, 0.7), x], axis=1))
                return p / p.sum(axis=1, keepdims=True)
            case "quantile":
                return x[:, None] + stats.norm.ppf([0.1, 0.5, 0.9])
            case "count":
                return np.exp(x / 2)
            case "survival":
                return 1 - np.exp(-np.exp(x)[:, None] * [0.2, 0.8])
            case _:
                return x

    good = outputs(centre)
    match target.task:
        case "binary":
            labels = (rng.random(n) < good).astype(float)
        case "multiclass":
            labels = (good.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).astype(float)
        case "count":
            labels = rng.poisson(good).astype(float)
        case "ranking":
            labels = np.maximum(np.round(centre + rng.normal(0, 1, n)), 0)
        case "survival":  # a third is lost
            labels = rng.exponential(5 * np.exp(-centre)) * np.where(rng.random(n) < 1 / 3, -1, 1)
        case _:
            labels = centre + rng.normal(0, 1, n)
    return {"labels": labels, "good": good, "bad": outputs(mixed), "groups": np.repeat(np.arange(n // 4), 4)}


def graf_brier(labels: np.ndarray, p: np.ndarray, horizon: float) -> float:
    """Graf et al. 1999, row by row; whoever had the event is not at risk of being lost at that time."""

    def followed(time: float) -> float:
        lost = sorted({-t for t in labels if t < 0 and -t < time})
        steps = [1 - sum(labels == -t) / sum((np.abs(labels) > t) | (labels == -t)) for t in lost]
        return float(np.prod(steps))

    total = 0.0
    for label, guess in zip(labels, p, strict=True):
        if 0 < label <= horizon:
            total += (1 - guess) ** 2 / followed(label)
        elif abs(label) > horizon:
            total += guess**2 / followed(horizon)
    return total / len(labels)


# losses


@pytest.mark.parametrize("target", NAMES)
def test_mean_losses_are_the_metrics_of_scikit_learn(target: Target) -> None:
    """A null label has no loss; a null output is refused."""
    case = _case(target)
    labels, good, groups = case["labels"], case["good"], case["groups"]
    losses = row_losses(labels, good, target, groups=groups)
    match target.task:
        case "regression":
            expected = sk.mean_squared_error(labels, good)
        case "quantile":
            levels = zip((0.1, 0.5, 0.9), good.T, strict=True)
            expected = np.mean([sk.mean_pinball_loss(labels, column, alpha=level) for level, column in levels])
        case "count":
            expected = sk.mean_poisson_deviance(labels, good)
        case "ranking":
            lines = labels.reshape(-1, 4), good.reshape(-1, 4)
            relevant = lines[0].any(axis=1)
            expected = 1 - sk.ndcg_score(lines[0][relevant], lines[1][relevant], k=10)
            assert losses.size == relevant.sum() < 150
        case "survival":
            expected = np.mean([graf_brier(labels, p, h) for p, h in zip(good.T, (1, 4), strict=True)])
        case _:
            expected = sk.log_loss(labels, good)
    assert losses.mean() == pytest.approx(expected)
    if target.task not in ("ranking", "survival"):  # where a row's loss is of its group, or of those that were followed
        labels = labels.copy()
        labels[3] = np.nan
        assert row_losses(labels, good, target).tolist() == np.delete(losses, 3).tolist()
    broken = good.copy()
    broken[0] = np.nan
    with pytest.raises(InputError, match="each row has a loss"):
        row_losses(labels, broken, target, groups=groups)


def test_paired_losses_are_compared_as_by_scipy_and_statsmodels() -> None:
    """The paired t test; in groups a regression on a constant with clustered errors; weights too."""
    rng = np.random.default_rng(1)
    one, two, groups = rng.exponential(size=80), rng.exponential(size=80), rng.integers(0, 20, 80)
    pair, test = compare_losses(one, two), stats.ttest_rel(one, two)
    interval = test.confidence_interval()
    assert (pair.p_value, pair.low, pair.high) == pytest.approx((test.pvalue, interval.low, interval.high))
    assert (pair.n, pair.difference) == (80, pytest.approx(one.mean() - two.mean()))
    by_group = compare_losses(one, two, groups)
    # statsmodels multiplies by (n - 1) / (n - 1 columns) too, which is 1 with one column
    fit = sm.OLS(one - two, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    assert (by_group.low, by_group.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert by_group.n == np.unique(groups).size
    weights = rng.exponential(size=80)
    weighted = compare_losses(one, two, groups, weights=weights)
    fit = sm.WLS(one - two, np.ones(80), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    assert (weighted.low, weighted.high) == pytest.approx(tuple(fit.conf_int()[0]))


def test_losses_too_few_or_null_are_not_compared() -> None:
    """Ten pairs at least; the same gap in every row is certain; lengths that differ are an error."""
    assert compare_losses([1.0] * 9, [2.0] * 9).reason == "9 rows are fewer than the 10 needed to compare"
    assert compare_losses([1.0] * 20, [2.0] * 20, [1] * 20).reason == "1 groups are fewer than the 10 needed to compare"
    assert compare_losses([math.nan] + [1.0] * 19, [2.0] * 20).reason == "1 of 20 losses are null"
    certain = compare_losses([1.0] * 10, [2.0] * 10)
    assert (certain.low, certain.high, certain.p_value) == (-1.0, -1.0, 0.0)
    equal = compare_losses([0.1] * 10, [0.1] * 10)
    assert (equal.low, equal.high, equal.p_value) == (0.0, 0.0, 1.0)
    with pytest.raises(InputError, match="same rows"):
        compare_losses([1.0], [1.0, 2.0])


# ladder


@pytest.mark.parametrize("target", NAMES)
def test_what_is_better_beats_and_what_is_not_does_not(target: Target) -> None:
    """Of every task, with the difference above 0 for what is better; weights of 1 change no verdict."""
    case = _case(target)
    more = {"labels": case["labels"], "target": target, "groups": case["groups"]}
    ahead = beats(candidate=case["good"], rung=case["bad"], **more)
    assert (ahead.status, ahead.low > 0) == ("beats", True)
    behind = beats(candidate=case["bad"], rung=case["good"], **more)
    assert behind.status == "does not beat"
    assert (behind.difference, behind.low, behind.high) == pytest.approx((-ahead.difference, -ahead.high, -ahead.low))
    same = beats(candidate=case["good"], rung=case["good"], **more)
    assert (same.status, same.difference) == ("does not beat", 0.0)
    weighted = beats(candidate=case["good"], rung=case["bad"], weights=np.ones(600), **more)
    assert (weighted.difference, weighted.low) == pytest.approx((ahead.difference, ahead.low), rel=0.02)


def test_equal_models_rarely_beat_with_few_rows_and_skewed_losses() -> None:
    """Two equally good models of a heavy-tailed number, 30 rows, 600 times: beats in at most 2.5 % and its noise."""
    rng, wins = np.random.default_rng(1), 0
    for _ in range(600):
        labels = rng.lognormal(0, 1, 30)
        one, two = (1 + rng.normal(0, 0.5, 30) for _ in range(2))
        wins += beats(candidate=one, rung=two, labels=labels, target=TARGETS["regression"]).status == "beats"
    assert wins <= 24


def test_what_another_rung_is_better_than_is_not_preferred():
    """A candidate that nothing tells apart from either: of the two, the one that is better than the other."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 300).astype(float)
    good, weak = (1 / (1 + np.exp(-labels - rng.normal(0, noise, 300))) for noise in (3.0, 8.0))
    rungs = {"majority": np.full(300, 0.5), "logistic": good}
    ladder = climb(candidate=weak, rungs=rungs, labels=labels)
    states = {rung.name: rung.verdict.value for rung in ladder.rungs}
    assert states == {"majority": False, "logistic": False}
    assert beats(candidate=rungs["logistic"], rung=rungs["majority"], labels=labels).value
    assert ladder.simplest == "logistic"
    assert "logistic regression" in str(ladder.advice())


@pytest.mark.parametrize("target", NAMES)
def test_the_ladder_ranks_by_the_primary_metric_of_the_task(target: Target) -> None:
    """Worst to best, each with its verdict; the plain form reads back."""
    case = _case(target)
    ladder = climb(candidate=case["good"], rungs={"twin": case["good"], "bad": case["bad"]}, labels=case["labels"],
                   target=target, groups=case["groups"])  # fmt: skip
    name, higher = primary(target)
    bad, twin = (rung.metric.value for rung in ladder.rungs)
    assert [rung.name for rung in ladder.rungs] == ["bad", "twin"]
    assert (twin > bad) == higher == ladder.higher
    assert {ladder.candidate.name, ladder.rungs[0].metric.name} == {name}
    assert [rung.verdict.status for rung in ladder.rungs] == ["beats", "does not beat"]
    assert (ladder.best, ladder.simplest) == ("twin", "twin")
    assert Ladder.from_dict(json.loads(json.dumps(ladder.to_dict()))) == ladder


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (Cost(2.9, 4.66), Cost(3.0, 4.41), "larger"),
        (Cost(3.0, 2.0), Cost(3.0, 2.6), "no smaller and slower"),
        (Cost(2.0, 2.0), Cost(3.0, 1.5), "larger, if faster"),
        (Cost(2.0, 2.0), Cost(3.0, 2.5), "larger"),
        (Cost(2.0), Cost(3.0), "larger"),
        (Cost(3.1, 1.0), Cost(3.0, 9.0), None),
        (Cost(None, 1.0), Cost(3.0, 9.0), None),
    ],
)
def test_a_rung_is_simpler_only_where_it_is_smaller(ours: Cost, theirs: Cost, words: str | None) -> None:
    """Times of one row within a quarter of each other are alike."""
    case = _case(TARGETS["binary"])
    jitter = np.clip(case["good"] + np.random.default_rng(2).normal(0, 0.01, 600), 0, 1)
    ladder = climb(candidate=case["good"], rungs={"tree": jitter}, labels=case["labels"],
                   costs={"candidate": ours, "tree": theirs})  # fmt: skip
    assert ladder.advice() == (
        "Prefer a small tree: it is simpler, and nothing shows it to be worse." if words is None
        else f"Nothing shows it to be better than a small tree, which is {words}."
    )  # fmt: skip


def test_the_ladder_says_what_it_shows() -> None:
    """Not better than logistic regression, in so many words, with what it costs and what to prefer."""
    case = _case(TARGETS["binary"])
    jitter = np.clip(case["good"] + np.random.default_rng(2).normal(0, 0.01, 600), 0, 1)
    constant = np.full(600, 0.5)
    ladder = climb(candidate=case["good"], rungs={"majority": constant, "logistic": jitter}, labels=case["labels"],
                   costs={"candidate": Cost(900.0, 40.0), "logistic": Cost(3.0, 2.0)})  # fmt: skip
    logistic, cost, majority, advice = ladder.sentences("The LightGBM model")
    assert logistic.startswith("The LightGBM model is not better than logistic regression: AUC 0.")
    assert "95% interval" in logistic
    assert cost == "It costs 300 times the size, 20 times the time for a row of logistic regression."
    assert majority.startswith("The LightGBM model is better than the majority: AUC 0.")
    assert advice == "Prefer logistic regression: it is simpler, and nothing shows it to be worse."
    small = climb(candidate=case["good"], rungs={"logistic": jitter}, labels=case["labels"],
                  costs={"candidate": Cost(2.9, 1.9), "logistic": Cost(3.0, 2.0)})  # fmt: skip
    *_, advice = small.sentences("The tree")
    assert advice == "Nothing shows it to be better than logistic regression, which is larger."
    drawn = np.random.default_rng(3).random(600)
    worthless = climb(candidate=drawn, rungs={"random": drawn[::-1]}, labels=case["labels"])
    assert worthless.sentences()[-1] == (
        "Do not decide by it: nothing shows it to order the rows better than answers drawn at random."
    )
    empty = climb(candidate=[0.1, 0.2], rungs={"tree": [0.1, 0.2]}, labels=[1, 1]).sentences()
    assert empty == ("Whether the model is better than a small tree is not evaluable: all 2 rows are positive.",)


def test_a_ladder_kept_by_an_earlier_version_reads() -> None:
    """Its rungs had an area under the curve and nothing else."""
    area = {"name": "auc", "value": 0.7, "reason": None, "n": 10, "low": None, "high": None}
    verdict = {"status": "beats", "reason": "far", "n": 10, "difference": 0.1, "low": 0.0, "high": 0.2, "p_value": 0.0}
    kept = {"rungs": [{"name": "constant", "auc": area}], "best": "constant", "candidate": area, "verdict": verdict}
    ladder = Ladder.from_dict(kept)
    assert (ladder.rungs[0].metric.value, ladder.sentences()) == (0.7, ())


# champion and challenger


@pytest.mark.parametrize("target", NAMES)
def test_a_challenger_is_better_worse_or_neither(target: Target) -> None:
    """Of every task; the value is what the gate reads."""
    case = _case(target)
    more = {"labels": case["labels"], "target": target, "groups": case["groups"]}
    ahead = compare_outputs(champion=case["bad"], challenger=case["good"], **more)
    behind = compare_outputs(champion=case["good"], challenger=case["bad"], **more)
    same = compare_outputs(champion=case["good"], challenger=case["good"], **more)
    assert [one.verdict for one in (ahead, behind, same)] == ["better", "worse", "inconclusive"]
    assert [one.value for one in (ahead, behind, same)] == [True, False, False]
    few = compare_outputs(champion=case["bad"], challenger=case["good"], min_rows=1000, **more)
    assert (few.verdict, few.value) == ("inconclusive", None)
    assert "600 labelled rows are fewer than the 1000 needed" in few.reason
    broken = case["bad"].copy()
    broken[0] = np.nan
    null = compare_outputs(champion=broken, challenger=case["good"], **more)
    assert (null.value, "are null" in null.reason) == (None, True)


# gates


@pytest.mark.parametrize("target", NAMES)
def test_every_metric_of_a_task_can_be_a_gate_within_its_range(target: Target) -> None:
    """Names of classes and levels too; every value lies in the range that a gate is checked against."""
    case = _case(target)
    found = evaluate(case["labels"], case["good"], target, groups=case["groups"], threshold=0.5)
    metrics = {metric.name: metric for metric in found.metrics}
    gates = [f'"{name.replace(chr(34), chr(34) * 2)}" >= 0' for name in metrics]
    spans = gate_metrics(target, gates)
    assert set(metrics) == set(spans) - {"beats_ladder", "better_than_champion", "latency_us", "size_kb", "leaks",
                                              "span_coverage", "span_width"}  # fmt: skip
    for name, metric in metrics.items():
        assert spans[name][0] <= metric.value <= spans[name][1], name
    assert {result.status for result in check_gates(gates, metrics)} <= {"pass", "fail"}
    assert set(gate_metrics(target.task, gates)) == set(spans)


def test_a_gate_of_another_task_is_a_definition_error_that_names_those_there_are() -> None:
    """A metric of another task, a class that is not one, a value that none reaches."""
    with pytest.raises(DefinitionError, match=r"'regression' must read metrics that it has; got 'auc'.*mae.*rmse"):
        check_gate("auc >= 0.7", TARGETS["regression"])
    with pytest.raises(DefinitionError, match="got 'recall"):
        check_gate('recall["d"] >= 0.7', TARGETS["multiclass"])
    with pytest.raises(DefinitionError, match="a gate must be one that a model can pass"):
        check_gate("r2 >= 1.5", "regression")
    for task in ("multiclass", "survival"):
        with pytest.raises(DefinitionError, match=rf"task '{task}' must read metrics that it has; got 'dp_ratio"):
            check_gate("dp_ratio(sex) >= 0.8", TARGETS[task])
    with pytest.raises(DefinitionError, match="got 'span_coverage'"):
        check_gate("span_coverage >= 0.8", TARGETS["survival"])
    for gate in ('recall["b"] >= 0.5', "span_coverage >= 0.8", "leaks = 0", "better_than_champion", "macro_f1 > 0.5"):
        check_gate(gate, TARGETS["multiclass"])
    check_gate("coverage_q10 >= 0.05 and size_kb < 500", TARGETS["quantile"])
    check_gate("mae < 3")
    assert {*TASKS} == {*TARGETS}


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("leaks", "must compare numbers, and name truth values alone; got 'leaks'.*'leaks = 0'"),
        ("beats_ladder and auc", "must compare numbers, and name truth values alone"),
        ("beats_ladder > 0.5", "must compare numbers, and name truth values alone"),
        ("1 = 1", "a gate must read a metric; got '1 = 1'"),
        ("auc >= 0", "must be one that a model can fail; got 'auc >= 0'"),
        ("auc >= 0 or brier < 0.1", "must be one that a model can fail"),
        ("not (ks > 1)", "must be one that a model can fail"),
    ],
)
def test_a_gate_that_nothing_fails_is_refused(gate: str, message: str) -> None:
    """A number by itself, a truth without a metric, a bound that every value keeps: it would pass in silence."""
    with pytest.raises(DefinitionError, match=message):
        check_gate(gate, "binary")


def test_a_gate_that_can_fail_is_taken() -> None:
    """Truth values alone or turned round, sums of metrics, bounds at the end of a range."""
    for gate in ("beats_ladder", "not beats_ladder", "auc > 0", "auc - base_rate > 0.1", "beats_ladder and leaks = 0"):
        check_gate(gate, "binary")
    check_gate("bias > -100", "regression")


def test_gates_of_classes_and_columns_are_read_as_they_are_written() -> None:
    """With brackets and quotes, or with the whole name in quotes; text in quotes is left alone."""
    metrics = {'recall["late"]': 0.6, "dp_ratio(sex)": 0.7, "dp_ratio(home town)": 0.9}
    gates = ['recall["late"] >= 0.5', "dp_ratio(sex) >= 0.8", '"dp_ratio(sex)" >= 0.6', 'dp_ratio("home town") > 0.8']
    assert [result.status for result in check_gates(gates, metrics)] == ["pass", "fail", "pass", "pass"]


@pytest.mark.parametrize("task", ["binary", "regression", "count", "multiclass", "quantile"])
def test_errors_that_go_together_correlate(task: str) -> None:
    """Against pandas on outputs less labels, of several columns one below the other; rows without a label are none."""
    rng = np.random.default_rng(3)
    target = TARGETS[task]
    width = target.columns
    labels = rng.integers(0, 2, 50).astype(float)
    outputs = {name: rng.uniform(0.1, 1, (50, width)) for name in ("first", "second", "third")}
    outputs["third"] = 0.9 * outputs["first"] + 0.1 * outputs["third"]
    if task == "multiclass":
        outputs = {name: values / values.sum(axis=1, keepdims=True) for name, values in outputs.items()}
    labels[7] = np.nan
    wanted = np.eye(3)[np.nan_to_num(labels).astype(int)] if task == "multiclass" else np.tile(labels[:, None], width)
    errors = {name: np.delete(values - wanted, 7, axis=0).ravel() for name, values in outputs.items()}
    expected = pd.DataFrame(errors).corr()
    measured = correlate_errors(
        outputs={name: values[:, 0] if width == 1 else values for name, values in outputs.items()},
        labels=labels,
        target=target,
    )
    assert set(measured) == set(outputs)
    for name, others in measured.items():
        assert others == {other: pytest.approx(expected[name][other]) for other in outputs if other != name}
    assert measured["first"]["third"] > measured["first"]["second"]


def test_errors_that_do_not_differ_or_are_not_known_have_no_correlation() -> None:
    """One that is the same for every row goes with nothing; null outputs are an error of their own."""
    labels = np.arange(20.0)
    rng = np.random.default_rng(1)
    outputs = {"shifted": labels + 2, "other": labels + rng.normal(size=20), "null": np.full(20, np.nan)}
    measured = correlate_errors(outputs=outputs, labels=labels, target=Target("regression"))
    assert {value for others in measured.values() for value in others.values()} == {None}


def test_losses_of_groups_correlate_where_outputs_are_no_labels() -> None:
    """Of a ranking by groups: one that ranks as another does goes with it entirely, reversed not at all."""
    rng = np.random.default_rng(5)
    labels, groups, scores = rng.integers(0, 3, 90).astype(float), np.repeat(np.arange(15), 6), rng.normal(size=90)
    outputs = {"one": scores, "same": 2 * scores + 1, "reversed": -scores}
    measured = correlate_errors(outputs=outputs, labels=labels, target=Target("ranking"), groups=groups)
    assert measured["one"]["same"] == pytest.approx(1.0)
    assert measured["one"]["reversed"] < 0.5
