"""Ensembles, weights, folds and spans: what is fitted on which rows, against plain computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from retrodict import Bagging, Blend, Greedy, Impute, Label, Model, RandomSplit, Recipe, Stack, Table, Vote, columns
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.tasks import Target
from retrodict.learning.fit import TrainingRows
from retrodict.learning.frame import Frame
from retrodict.learning.members import member_grid
from retrodict.learning.recipes import run_recipe
from retrodict.workspace.writer import source_of

PARTS = {"train": np.arange(600), "validate": np.arange(600, 800), "test": np.arange(800, 1_000)}


def make_frame(target: Target | None = None, seed: int = 3, **more: object) -> Frame:
    """A thousand rows: one feature tells, one is noise."""
    rng = np.random.default_rng(seed)
    told, noise = rng.normal(size=1_000), rng.normal(size=1_000)
    signal = told + 0.8 * rng.normal(size=1_000)
    target = target or Target()
    match target.task:
        case "binary":
            labels = (signal > 0).astype(float)
        case "multiclass":
            labels = np.digitize(signal, [-0.7, 0.7]).astype(float)
        case _:
            labels = signal
    table = pa.table({"told": told, "noise": noise, **more})
    return Frame(table, ("told", "noise"), np.arange(1_000), labels, np.zeros(1_000, dtype=np.int64), target, False)


def run(estimator: object, frame: Frame, **options: object):
    return run_recipe(Recipe(estimator, RandomSplit(seed=1), **options), frame, PARTS)


def test_a_stack_learns_from_rows_that_its_members_did_not_see():
    """A member that remembers its rows and knows nothing of others gets no weight; fitted in-sample it gets it all."""
    frame = make_frame()
    memory = Recipe("knn", params={"n_neighbors": 1})
    stack = run(Stack(["logistic", memory]), frame, calibrate="none")
    alone = run("logistic", frame, calibrate="none")
    assert stack.evaluations["test"]["auc"].value > alone.evaluations["test"]["auc"].value - 0.02
    weights = [abs(term.weight * 1.0) for term in stack.engine.final.terms]
    assert weights[0] > 3 * weights[1]


def test_copies_of_a_row_stay_on_one_side_of_every_fold():
    """A bag draws rows again: a copy to fit on and one to judge on would be in-sample."""
    drawn = np.sort(np.random.default_rng(0).integers(0, 600, 900))
    for fit, judge in TrainingRows(RandomSplit(seed=1), make_frame(), drawn).folds(5):
        assert not set(drawn[fit].tolist()) & set(drawn[judge].tolist())
        assert len(fit) + len(judge) == len(drawn)


def test_a_soft_vote_is_the_weighted_mean_and_a_hard_one_counts():
    """By hand over the members' own outputs."""
    frame = make_frame(Target("multiclass", classes=("a", "b", "c")))
    matrix = None
    for how in ("soft", "hard"):
        trained = run(Vote(["logistic", "decision_tree"], how=how, weights=[3, 1]), frame, calibrate="none")
        matrix = trained.inputs.encode_columns(frame.columns(PARTS["test"]))
        outputs = [member.engine.scores(matrix) for member in trained.engine.members]
        if how == "hard":
            outputs = [np.eye(3)[values.argmax(axis=1)] for values in outputs]
        expected = 0.75 * outputs[0] + 0.25 * outputs[1]
        assert trained.engine.scores(matrix) == pytest.approx(expected)
        assert list(trained.engine.score_row(matrix[0])) == trained.engine.scores(matrix[:1])[0].tolist()
        loss = log_loss(frame.labels[PARTS["test"]], np.clip(expected, 1e-15, 1))
        if how == "soft":
            assert trained.evaluations["test"]["log_loss"].value == pytest.approx(loss, rel=1e-6)


def test_learned_and_greedy_weights_favour_the_better_member():
    """The constant says nothing; every member is judged beside the ensemble."""
    frame = make_frame(Target("regression"))
    for ensemble in (Vote(["linear", "constant"], weights="learned"), Greedy(["linear", "constant"], rounds=10)):
        trained = run(ensemble, frame)
        shares = trained.notes["weights"]
        assert shares["linear"] > 0.6
        assert sum(shares.values()) == pytest.approx(1.0)
        assert {"test/member linear", "test/member constant"} <= set(trained.evaluations)


@pytest.mark.parametrize(
    "ensemble",
    [Stack(["logistic", "decision_tree", "constant"]), Vote(["logistic", "decision_tree", "constant"], how="hard"),
     Blend(["logistic", "decision_tree", "constant"]), Greedy(["logistic", "decision_tree", "constant"], rounds=3),
     Bagging(["decision_tree"], n=3)],
)  # fmt: skip
def test_an_ensemble_is_tested_against_each_member_on_the_same_rows(ensemble):
    """By DeLong's test of the members' own outputs, with what each costs, and how their errors go together."""
    frame = make_frame()
    trained = run(ensemble, frame, prepare=[Impute("median")])
    body, engine = trained.notes["members"], trained.engine
    matrix = trained.inputs.encode_columns(frame.columns(PARTS["test"]))
    labels, joined = frame.labels[PARTS["test"]], engine.scores(matrix)
    members = {f"member {member.name}": member.engine for member in engine.engine.members}
    prepared = engine.transform(matrix)
    assert [rung["name"] for rung in body["ladder"]["rungs"]] == sorted(
        members, key=lambda name: (round(roc_auc_score(labels, members[name].scores(prepared)), 12), name)
    )
    for rung in body["ladder"]["rungs"]:
        scores = members[rung["name"]].scores(prepared)
        difference = roc_auc_score(labels, joined) - roc_auc_score(labels, scores)
        assert rung["verdict"]["difference"] == pytest.approx(difference, abs=1e-12)
        assert rung["verdict"]["low"] <= difference <= rung["verdict"]["high"]
        stored = sum(len(data) for data in members[rung["name"]].parts().values())
        assert rung["cost"]["size_kb"] == pytest.approx(stored / 1_000)
        assert rung["cost"]["latency_us"] > 0
        assert rung["cost"]["train_seconds"] > 0
        assert rung["cost"]["train_seconds"] < trained.seconds
        for other, value in body["correlation"][rung["name"]].items():
            pair = [members[name].scores(prepared) - labels for name in (rung["name"], other)]
            assert value == pytest.approx(np.corrcoef(*pair)[0, 1])
    sizes = {rung["name"]: rung["cost"]["size_kb"] for rung in body["ladder"]["rungs"]}
    assert [sizes[name] for name in body["correlation"]] == sorted(sizes.values()), "the smallest is asked first"
    lines = list(member_grid(trained.notes).rows)
    assert {line[0] for line in lines} == {name.removeprefix("member ") for name in members}
    assert body["measure"] == "AUC"


def test_a_member_that_alone_is_as_good_is_named():
    """Of two that are alike the smaller one is what to prefer; a model that joins nothing has no members."""
    frame = make_frame()
    trained = run(Vote(["logistic", "constant"]), frame)
    assert trained.notes["members"]["advice"] == (
        "Prefer the member logistic: it is simpler, and nothing shows it to be worse."
    )
    assert {line[0]: line[1] for line in member_grid(trained.notes).rows} == {
        "logistic": "not better", "constant": "better"
    }  # fmt: skip
    assert "members" not in run("logistic", frame).notes
    assert member_grid({}) is None


@pytest.mark.parametrize("ensemble", [Blend(["linear", "decision_tree"]), Bagging(["decision_tree"], n=3, rows=0.5)])
def test_blends_and_bags_predict(ensemble):
    trained = run(ensemble, make_frame(Target("regression")))
    assert trained.evaluations["test"]["r2"].value > 0.4


@pytest.mark.parametrize(
    "member", [Recipe("logistic", weights="w"), Recipe("logistic", half_life="3d"), Recipe("logistic", interval=0.9),
               Recipe("logistic", RandomSplit()), Recipe("logistic", calibrate="sigmoid")],
)  # fmt: skip
def test_what_holds_for_a_whole_ensemble_is_refused_of_a_member(member):
    """It would be ignored."""
    with pytest.raises(DefinitionError, match="must be said of it, not of a member"):
        Stack([member, "lightgbm"])


def test_weights_count_as_repeated_rows():
    """Against scikit-learn with the same weights; older rows count less."""
    rng = np.random.default_rng(4)
    weights = rng.uniform(0.5, 2, 1_000)
    frame = make_frame(_weight=weights)
    trained = run("logistic", frame, weights="w", calibrate="none", params={"penalty": 1e-6})
    x = np.column_stack([frame.table.column(name).to_numpy() for name in ("told", "noise")])
    plain = LogisticRegression(C=1e6, tol=1e-8, max_iter=1_000)
    plain.fit(x[:600], frame.labels[:600], sample_weight=weights[:600])
    assert trained.test_scores == pytest.approx(plain.predict_proba(x[800:])[:, 1], abs=1e-3)


def test_a_class_without_weight_is_refused():
    frame = make_frame()
    frame = replace(frame, table=frame.table.append_column("_weight", [frame.labels.tolist()]))
    with pytest.raises(InputError, match="every class of the training rows must have weight"):
        run("logistic", frame, weights="w")


@pytest.mark.parametrize("target", [Target("regression"), Target("multiclass", classes=("a", "b", "c"))])
def test_spans_hold_what_was_asked_for_and_are_judged(target):
    """Over forty draws of the rows the mean coverage is the level, within what forty means scatter."""
    covered = []
    for seed in range(40):
        trained = run("linear" if target.task == "regression" else "logistic", make_frame(target, seed), interval=0.8)
        covered.append(trained.evaluations["test"]["span_coverage"].value)
    assert np.mean(covered) == pytest.approx(0.805, abs=0.02)


def test_an_interval_of_a_yes_or_no_is_refused_before_anything_is_fitted():
    steps = []
    with pytest.raises(DefinitionError, match="an interval must be of numbers or of several classes"):
        run_recipe(Recipe("logistic", RandomSplit(), interval=0.9), make_frame(), PARTS,
                   progress=lambda step, *_: steps.append(step))  # fmt: skip
    assert steps == ["encode"]


def test_numbers_that_the_table_holds_as_text_are_a_warning():
    """A CSV file has no types: a category of every value learns nothing of the order."""
    frame = make_frame(price=[str(n % 40) for n in range(1_000)])
    frame = replace(frame, features=(*frame.features, "price"))
    assert any("'price' is text, and every one of its 40 values is a number" in text
               for text in run("logistic", frame).warnings)  # fmt: skip


def test_groups_on_both_sides_of_a_ranking_are_a_warning():
    labels = np.random.default_rng(2).integers(0, 3, 1_000).astype(float)
    frame = replace(make_frame(_group=[n % 50 for n in range(1_000)]), labels=labels, target=Target("ranking"))
    assert any("50 groups are ranked" in text for text in run("lightgbm", frame).warnings)


def test_steps_and_members_are_written_from_a_notebook():
    """As they are typed: what is loaded again has the same content."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier

    table = Table("t", key="id")
    recipe = Recipe(Stack([RandomForestClassifier(20), "logistic"]), RandomSplit(), prepare=[Impute("median"), PCA(2)])
    model = Model("m", label=Label("y", table, "y > 0"), features=[columns("a", "b")], recipe=recipe)
    names: dict[str, object] = {}
    exec(compile(source_of([model]), "definitions.py", "exec"), names)  # what the writer wrote
    assert any(getattr(value, "version", None) == model.version for value in names.values())


def test_members_of_a_bag_have_seeds_of_their_own(monkeypatch):
    """One after the other from the recipe's: an estimator that draws would otherwise draw alike in each."""
    from retrodict.learning import fit

    seeds, honest = [], fit.fit_recipe
    monkeypatch.setattr(fit, "fit_recipe", lambda recipe, *rest: seeds.append(recipe.seed) or honest(recipe, *rest))
    run(Bagging(["decision_tree"], n=3), make_frame(), seed=2**31 - 2)
    assert [seed for seed in seeds if seed != 2**31 - 2] == [2**31 - 1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blend(["linear", "ridge"], share=0.0), "must be above 0 and below 1; got 0.0"),
        (lambda: Blend(["linear", "ridge"], share=1.0), "must be above 0 and below 1; got 1.0"),
        (lambda: Vote(["linear", "ridge"], weights=[0, 0]), "not all zero"),
        (lambda: Vote(["linear", "ridge"], weights=[1]), "one weight per member"),
        (lambda: Bagging(["linear"], rows=0.0), "a share of rows above 0"),
        (lambda: Bagging(["linear", "ridge"]), "a bag must have one member"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(make, message):
    """Where it is written."""
    with pytest.raises(DefinitionError, match=message):
        make()


def test_a_step_learns_from_training_rows_alone():
    """The median that fills a gap is that of the training rows: those that stop and judge lie elsewhere."""
    frame = make_frame()
    told = frame.table.column("told").to_numpy().copy()
    told[600:] += 1_000
    told[::7] = np.nan
    shifted = replace(frame, table=frame.table.set_column(0, "told", pa.array(told, from_pandas=True)))
    trained = run("lightgbm", shifted, prepare=[Impute("median")], params={"num_iterations": 3})
    filled = trained.engine.steps[0].transform_row([np.nan, 0.0])[0]
    assert filled == pytest.approx(np.nanmedian(told[:600]))


def test_gates_read_how_many_leaks_there_are_and_the_threshold_of_the_recipe():
    """Not whether they were looked for, and not one half."""
    from types import SimpleNamespace

    from retrodict import Threshold
    from retrodict.learning.evidence import gate_evidence

    frame = make_frame()
    copied = make_frame(copy=frame.labels * 2)
    copied = replace(copied, features=("told", "noise", "copy"))
    leaky = run("logistic", copied)
    trained = run("logistic", frame, threshold=Threshold.cost(false_positive=1, false_negative=9))
    groups = pa.table({"sex": np.resize(["f", "m", "m"], 1_000)})
    tables = SimpleNamespace(schema=lambda *_: groups.schema, read=lambda *_, **__: groups)
    model = SimpleNamespace(gates=["dp_ratio(sex) >= 0.8"], label=SimpleNamespace(table=SimpleNamespace(name="t")))
    facts = gate_evidence(SimpleNamespace(tables=tables), model, frame, PARTS["test"], trained, {"t": 1})
    yes, women = trained.test_scores >= trained.threshold, np.resize(["f", "m", "m"], 1_000)[PARTS["test"]] == "f"
    rates = sorted([yes[women].mean(), yes[~women].mean()])
    assert trained.threshold < 0.4
    assert facts["dp_ratio(sex)"].value == pytest.approx(rates[0] / rates[1])
    assert facts["leaks"].value == 0
    plain = SimpleNamespace(gates=["leaks = 0"])
    assert gate_evidence(None, plain, copied, PARTS["test"], leaky, {})["leaks"].value == len(leaky.leaks) > 0
