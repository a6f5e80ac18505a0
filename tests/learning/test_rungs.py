"""Rungs that are no estimator: answers at random, the last outcome known, a rule; and the check by shuffled labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from retrodict import Balance, Encode, Label, Model, RandomSplit, Recipe, Table, columns
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.tasks import Target
from retrodict.learning import rungs
from retrodict.learning.frame import Frame
from retrodict.learning.recipes import run_recipe

PARTS = {"train": np.arange(200), "validate": np.arange(200, 300), "test": np.arange(300, 400)}
TARGETS = {
    "binary": Target(),
    "multiclass": Target("multiclass", classes=("a", "b", "c")),
    "regression": Target("regression"),
    "quantile": Target("quantile", quantiles=(0.1, 0.5, 0.9)),
    "count": Target("count"),
}


def make_frame(task: str = "regression", timed: bool = True) -> Frame:
    """Rows in no order of time, outcomes that take up to thirty moments, a tenth of them never known."""
    rng = np.random.default_rng(4)
    wind, place = rng.normal(size=400), rng.choice(["n", "s"], 400)
    signal = wind + (place == "n") + 0.5 * rng.normal(size=400)
    labels = {
        "binary": (signal > 0).astype(float),
        "multiclass": np.digitize(signal, [-0.5, 0.8]).astype(float),
        "count": rng.poisson(np.exp(signal / 2)).astype(float),
    }.get(task, signal)
    at = rng.permutation(400)
    known = at + rng.integers(1, 30, 400)
    table = pa.table({"v__wind": wind, "place": place})
    return Frame(table, ("v__wind", "place"), at, labels, known, TARGETS[task], timed)


def run(frame: Frame, **options: object):
    params = {"num_iterations": 5}
    return run_recipe(Recipe("lightgbm", RandomSplit(seed=1), params=params, **options), frame, PARTS)


def rung(frame: Frame, name: str, **options: object) -> tuple[np.ndarray, object]:
    seen: dict[str, tuple[np.ndarray, object]] = {}
    original = rungs.fit_rungs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrodict.learning.recipes.fit_rungs", lambda *given: seen.update(original(*given)) or seen)
        run(frame, **options)
    return seen[name]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("task", ["binary", "regression", "quantile"])
def test_the_last_outcome_is_the_newest_that_was_known_before_the_decision(task: str, grouped: bool) -> None:
    """Row by row: of the same group, strictly before; whatever part the earlier row is in."""
    frame = make_frame(task)
    outputs, _ = rung(frame, "last", **({"baseline_group": "place"} if grouped else {}))
    place = frame.table.column("place").to_pylist()
    mean = frame.labels[PARTS["train"]].mean()
    for said, row in zip(outputs.tolist(), PARTS["test"].tolist(), strict=True):
        earlier = [
            (frame.known_at[other], frame.at[other], frame.labels[other])
            for other in range(400)
            if frame.known_at[other] < frame.at[row] and (not grouped or place[other] == place[row])
        ]
        if earlier:
            last = max(earlier)[2]
            assert said == ([last] * 3 if task == "quantile" else last)
        elif task != "quantile":
            assert said == pytest.approx(mean)
    ladder = run(frame, **({"baseline_group": "place"} if grouped else {})).ladder
    assert "last" in [each.name for each in ladder.rungs]
    assert "last" not in [each.name for each in run(replace(frame, timed=False)).ladder.rungs]


@pytest.mark.parametrize("task", ["multiclass", "count"])
def test_half_of_the_last_outcome_is_said_where_certainty_has_no_finite_loss(task: str) -> None:
    """The other half is the answer for every row."""
    frame = make_frame(task)
    outputs, _ = rung(frame, "last")
    row = int(PARTS["test"][np.argmax(frame.at[PARTS["test"]])])
    said = outputs[row - 300]
    last = max((frame.known_at[r], frame.at[r], frame.labels[r]) for r in range(400)
               if frame.known_at[r] < frame.at[row])[2]  # fmt: skip
    train = frame.labels[PARTS["train"]]
    if task == "count":
        assert said == pytest.approx(0.5 * last + 0.5 * train.mean())
    else:
        shares = np.bincount(train.astype(int), minlength=3) / len(train)
        assert said == pytest.approx(0.5 * np.eye(3)[int(last)] + 0.5 * shares)


def test_answers_at_random_are_drawn_from_the_training_labels() -> None:
    """As often as there, by the seed of the recipe; they rank like chance and warn of nothing."""
    for task in ("binary", "multiclass", "regression", "quantile"):
        frame = make_frame(task)
        outputs, _ = rung(frame, "random")
        drawn = outputs.argmax(axis=1) if task == "multiclass" else outputs if outputs.ndim == 1 else outputs[:, 0]
        assert set(drawn.tolist()) <= set(frame.labels[PARTS["train"]].tolist())
        assert rung(frame, "random", seed=0)[0].tobytes() == outputs.tobytes()
        assert rung(frame, "random", seed=5)[0].tobytes() != outputs.tobytes()
    assert abs(drawn.mean() - frame.labels[PARTS["train"]].mean()) < 0.5
    result = run(make_frame("binary"))
    assert result.ladder.rungs[-1].name != "random"
    assert any(
        line.startswith("The model is better than answers drawn at random") for line in result.ladder.sentences()
    )
    assert not [line for line in result.warnings if "random" in line]


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        ("binary", "wind > 0.2", lambda wind: float(wind > 0.2)),
        ("regression", "wind * 2 + 1", lambda wind: wind * 2 + 1),
        ("quantile", "v__wind", lambda wind: [wind] * 3),
    ],
)
def test_a_rule_of_ones_own_is_a_rung(task: str, text: str, expected) -> None:
    """By the short name of a feature; judged with intervals, stored with its cost, its null the usual answer."""
    frame = make_frame(task)
    wind = frame.table.column("v__wind").to_pylist()
    holed = frame.table.set_column(0, "v__wind", pa.array([None if row == 300 else w for row, w in enumerate(wind)]))
    frame = replace(frame, table=holed)
    outputs, cost = rung(frame, "heuristic", baseline=text)
    assert outputs[1:].tolist() == [expected(value) for value in wind[301:]]
    constant, _ = rung(frame, "majority" if task == "binary" else "constant")
    assert outputs[0].tolist() == constant[0].tolist()
    assert cost.latency_us > 0
    assert cost.size_kb == len(text) / 1_000
    result = run(frame, baseline=text)
    (kept,) = [each for each in result.ladder.rungs if each.name == "heuristic"]
    assert kept.metric.low <= kept.metric.value <= kept.metric.high
    assert kept.verdict.status in ("beats", "does not beat")
    assert any("the baseline that was written down" in line for line in result.ladder.sentences())


def test_a_rule_that_cannot_answer_is_refused() -> None:
    """Where it is written if it names nothing, in the run if it gives another kind."""
    with pytest.raises(DefinitionError, match="a baseline must read a feature; got '1'"):
        Recipe("logistic", RandomSplit(), baseline="1")
    with pytest.raises(InputError, match="a baseline must give one of the classes"):
        run(make_frame("multiclass"), baseline="wind > 0")
    with pytest.raises(InputError, match="a baseline must give a number, or true or false"):
        run(make_frame("regression"), baseline="place")
    table = Table("t", key="id")
    model = Model("m", label=Label("y", table, "y"), features=[columns("wind")],
                  recipe=Recipe("linear", RandomSplit(), baseline="wnd > 1"))  # fmt: skip
    assert "wnd" in [use.name for use in model.uses()]
    plain = Model("m", label=Label("y", table, "y"), features=[columns("wind")], recipe=Recipe("linear", RandomSplit()))
    assert plain.version != model.version


def test_shuffled_labels_score_at_chance_or_the_run_says_so(monkeypatch) -> None:
    """Nothing is said of an honest pipeline; one whose fit gets the true labels some other way is named."""
    frame = make_frame("regression")
    frame = replace(frame, labels=2 * frame.table.column("v__wind").to_numpy())
    assert not [line for line in run(frame).warnings if "shuffled" in line]
    honest = rungs.fit_recipe

    def leaky(recipe, problem, rows, tell):
        true = rows.frame.labels[rows.positions]
        return honest(recipe, replace(problem, train=replace(problem.train, labels=true)), rows, tell)

    monkeypatch.setattr(rungs, "fit_recipe", leaky)
    (sentence,) = [line for line in run(frame).warnings if "shuffled" in line]
    assert sentence.startswith("A small tree on shuffled labels tells the test rows better than chance")


def test_a_strong_feature_is_no_alarm() -> None:
    """A tree on shuffled labels that splits on it by chance ranks well or badly: never eight times well."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        frame = make_frame("binary")
        strong = 4 * frame.labels + rng.normal(size=400)
        frame = replace(frame, table=frame.table.set_column(0, "v__wind", pa.array(strong)))
        assert not [line for line in run(frame, seed=seed).warnings if "shuffled" in line]


def test_a_linear_model_that_prepares_or_balances_is_held_against_the_plain_one() -> None:
    """A selection that throws away what matters must not hide behind the name of its estimator."""
    frame = make_frame("binary")

    def names(**options: object) -> list[str]:
        recipe = Recipe("logistic", RandomSplit(seed=1), **options)
        return [rung.name for rung in run_recipe(recipe, frame, PARTS).ladder.rungs]

    assert "logistic" not in names()
    assert "logistic" in names(prepare=[Encode("onehot", ["place"])])
    assert {"unbalanced"} == set(names(balance=Balance("over"))) - set(names())
