"""Planted leaks are named, each by its feature; an honest frame is left in peace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer, load_diabetes

from retrodict.core.tasks import Target
from retrodict.learning import leaks
from retrodict.learning.frame import Frame, build_frame
from retrodict.learning.leaks import Leak, find_leaks
from retrodict.learning.recipes import run_recipe
from retrodict.models.definitions import Model, Recipe
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples
from retrodict.models.splits import GroupSplit, HashSplit, RandomSplit, TimeSplit

SPLIT = TimeSplit("2024-01-01/2024-02-01")
N = 3_000
PARTS = {"train": np.arange(1_800), "validate": np.arange(1_800, 2_400), "test": np.arange(2_400, 2_900)}
HOUR = 3_600_000_000


class World:
    """Rows of 200 customers with honest features; the last 100 rows have no outcome yet."""

    def __init__(self, seed: int = 4) -> None:
        self.rng = np.random.default_rng(seed)
        self.customer = self.rng.integers(0, 200, N)
        self.amount, self.wind = np.round(self.rng.gamma(2, 50, N), 2), self.rng.normal(size=N)
        odds = self.rng.normal(size=200)[self.customer] + 0.02 * (self.amount - 100) + self.wind - 0.5
        self.labels = (self.rng.random(N) < expit(odds)).astype(float)
        self.labels[2_900:] = np.nan
        self.at = np.arange(N, dtype=np.int64) * HOUR
        self.took = self.rng.gamma(2, 20, N) + 30 * np.nan_to_num(self.labels)
        self.columns = {"amount": self.amount, "wind": self.wind, "weekday": (np.arange(N) // 24) % 7,
                        "place": self.rng.choice(["north", "south"], N)}  # fmt: skip

    def frame(self, **planted: object) -> Frame:
        columns = {**self.columns, **planted}
        keys = {"id": [f"row{row}" for row in range(N)], "customer": self.customer}
        return Frame(pa.table({**keys, **columns}), tuple(columns), self.at, self.labels,
                     self.at + (self.took * HOUR).astype(np.int64))  # fmt: skip

    def warnings(self, **planted: object) -> tuple[str, ...]:
        return run_recipe(Recipe("logistic", SPLIT), self.frame(**planted), PARTS).warnings


def _leaks(frame: Frame, parts: dict[str, np.ndarray]) -> tuple[str, ...]:
    inputs = InputSpec.learn(frame.columns(parts["train"]))
    examples = {name: Examples(inputs.encode_columns(frame.columns(rows)), frame.labels[rows])
                for name, rows in parts.items()}  # fmt: skip
    return tuple(leak.sentence for leak in find_leaks(frame, inputs, parts, examples))


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_frame_has_no_warning(seed):
    """Continuous, rounded, coarse and calendar features, and missing values at random."""
    world = World(seed)
    holes = np.where(world.rng.random(N) < 0.3, np.nan, world.wind + world.rng.normal(size=N))
    assert world.warnings(holes=holes, planned=world.took + world.rng.normal(0, 20, N)) == ()


def test_a_copy_of_the_label_is_named():
    """As a number, as text, and as a bit that is turned round in a few rows."""
    world = World()
    copy = np.nan_to_num(world.labels)
    noisy = np.where(world.rng.random(N) < 0.03, 1 - copy, copy)
    for name, planted in (("paid", copy), ("state", np.where(copy == 1, "closed", "open")), ("flag", noisy)):
        (warning,) = World().warnings(**{name: planted})
        assert warning.startswith(f"Feature '{name}' alone tells the outcome (area ")


def test_a_column_of_the_future_is_named():
    """A later balance, by its area; one that is empty until the outcome is there, by that."""
    world = World()
    later = np.nan_to_num(world.labels) * 3 + world.rng.normal(size=N)
    (warning,) = world.warnings(balance_after=later)
    assert "Feature 'balance_after' alone tells the outcome" in warning
    filled = np.where(np.isnan(world.labels), np.nan, world.rng.normal(size=N))
    (warning,) = World().warnings(closing_note=filled)
    assert warning == "Feature 'closing_note' is empty where there is no outcome yet: it is filled in with the outcome."


def test_missing_values_that_tell_the_outcome_are_named():
    """A duration that only a yes has."""
    world = World()
    duration = np.where(np.nan_to_num(world.labels) == 1, world.rng.gamma(2, 5, N), np.nan)
    (warning,) = world.warnings(days_until_default=duration)
    assert "Feature 'days_until_default' alone tells the outcome (area 1.000)" in warning


def test_how_long_the_outcome_took_is_named():
    """Known only afterwards, whether it tells the label or not; in days and rounded, too."""
    for planted in (World().took, np.round(World().took / 24, 1)):
        (warning,) = World().warnings(days_open=planted)
        assert warning.startswith("Feature 'days_open' goes with how long the outcome took")


def test_an_id_encoded_by_its_outcomes_is_named():
    """Over all rows, those to come included, smoothed or not."""
    world = World()
    truth = np.nan_to_num(world.labels)
    sizes, ones = np.bincount(world.customer), np.bincount(world.customer, weights=truth)
    for rates in (ones / sizes, (ones + 1) / (sizes + 2)):
        (warning,) = World().warnings(customer_rate=rates[world.customer])
        assert warning.startswith("Feature 'customer_rate' is the mean outcome of each 'customer'")


def test_the_key_of_an_encoded_id_may_be_text():
    """And a feature itself; a key without a value is a group as any other."""
    world = World()
    shop = [None if customer == 7 else f"shop {customer}" for customer in world.customer]
    rates = np.bincount(world.customer, weights=np.nan_to_num(world.labels)) / np.bincount(world.customer)
    warnings = _leaks(world.frame(shop=shop, rate=rates[world.customer]), PARTS)
    assert [warning.split(":")[0] for warning in warnings] == [
        f"Feature 'rate' is the mean outcome of each {key!r}" for key in ("customer", "shop")
    ]


def test_few_rows_prove_nothing():
    """Of eight validation rows some feature tells the outcome by chance: its interval reaches far down."""
    parts = {**PARTS, "validate": np.arange(1_800, 1_808)}
    rows = [World(seed) for seed in range(40)]
    assert [_leaks(world.frame(), parts) for world in rows] == [()] * 40


def test_what_is_looked_at_is_bounded_and_the_sentence_says_so(monkeypatch):
    """Every fourth validation row and third test row; a training row that comes again may be any."""
    monkeypatch.setattr(leaks, "_SAMPLE", 200)
    world = World()
    flag = np.where(world.rng.random(N) < 0.03, 1 - np.nan_to_num(world.labels), np.nan_to_num(world.labels))
    (warning,) = _leaks(world.frame(flag=flag), PARTS)
    assert "'flag' alone tells the outcome (area " in warning
    assert "of 150 sampled rows): make sure" in warning
    for column in (*world.columns.values(), world.labels):
        column[2_400:2_500] = column[:100]
    (warning,) = _leaks(world.frame(), PARTS)
    assert warning.startswith("34 of 167 sampled test rows are training rows again, by all of the 4 features")


def test_an_id_as_a_feature_is_named():
    """It tells nothing of any other row."""
    (warning,) = World().warnings(ticket=[f"t{row}" for row in range(N)])
    assert warning == "Feature 'ticket' has 1,800 values in 1,800 training rows: it names rows, like an id."


def test_rows_that_come_again_in_the_test_part_are_named():
    """One in ten test rows is a training row; one that differs in a feature, if only the day, is another row."""
    for again in (4, 3):
        world = World()
        copies, originals = np.arange(2_400, 2_450), np.arange(100, 150)
        for column in list(world.columns.values())[:again] if again == 4 else [world.amount, world.wind]:
            column[copies] = column[originals]
        world.labels[copies] = world.labels[originals]
        warnings = [sentence.partition(",")[0] for sentence in world.warnings()]
        assert warnings == ["50 of 500 test rows are training rows again"] * (again == 4)


# every task, and what a program reads ---------------------------------------------------------------------------------

TASKS = {
    "binary": Target(),
    "multiclass": Target("multiclass", classes=("a", "b", "c")),
    "regression": Target("regression"),
}


def of_task(
    task: str, seed: int = 0, count: int = 1_500
) -> tuple[np.random.Generator, dict[str, np.ndarray], np.ndarray]:
    """Generator, honest columns and labels of 150 customers with ten rows each, in random order."""
    rng = np.random.default_rng(seed)
    customer = rng.permutation(np.arange(count) // 10)
    wind = rng.normal(size=count)
    level = wind + rng.normal(size=count // 10)[customer] * 2 + rng.normal(size=count)
    labels = {"binary": (level > 0) * 1.0, "multiclass": np.digitize(level, [-1, 1]) * 1.0, "regression": level}[task]
    return rng, {"customer": customer, "wind": wind, "place": rng.choice(["n", "s"], count)}, labels


def leaks_of(
    task: str,
    columns: dict,
    labels: np.ndarray,
    split=None,
    *,
    rows=None,
    at=None,
    others: dict | None = None,
    accept: dict | None = None,
) -> list[Leak]:
    """Findings on a frame of a task; features are all columns but the customer."""
    features = tuple(name for name in columns if name != "customer")
    zeros = np.zeros(len(labels), dtype=np.int64)
    frame = Frame(pa.table(columns), features, zeros if at is None else at, labels, zeros if at is None else at + 1,
                  TASKS[task], at is not None, None if others is None else pa.table(others))  # fmt: skip
    split = split or RandomSplit(stratify=False)
    parts = split.assign(frame, now=10**18) if rows is None else rows
    inputs = InputSpec.learn(frame.columns(parts["train"]))
    examples = {
        name: Examples(inputs.encode_columns(frame.columns(part)), labels[part], TASKS[task])
        for name, part in parts.items()
    }
    return list(find_leaks(frame, inputs, parts, examples, split, accept))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(4))
def test_an_honest_frame_of_every_task_has_no_finding(task: str, seed: int):
    """Split by customer, who has an influence of their own."""
    _, columns, labels = of_task(task, seed)
    assert leaks_of(task, columns, labels, GroupSplit(by="customer")) == []


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "bend", [lambda y: y, lambda y: -y, lambda y: np.exp(y / 2) + 7], ids=["copy", "negated", "bent"]
)
def test_a_copy_of_the_label_is_found_whatever_the_task(task: str, bend):
    """As it is, negated, and bent by a function that keeps the order."""
    _, columns, labels = of_task(task)
    (leak,) = leaks_of(task, {**columns, "outcome": bend(labels)}, labels, GroupSplit(by="customer"))
    assert (leak.kind, leak.feature, leak.severity) == ("label_copy", "outcome", "critical")
    assert leak.figure >= 0.999


@pytest.mark.parametrize("task", TASKS)
def test_a_feature_that_nearly_tells_the_outcome_is_found(task: str):
    """It is high, not critical: it may be honest."""
    rng, columns, labels = of_task(task)
    noise = {"binary": 0.3, "multiclass": 0.2, "regression": 0.25}[task]
    planted = labels + rng.normal(0, noise, len(labels))
    (leak,) = leaks_of(task, {**columns, "balance_after": planted}, labels, GroupSplit(by="customer"))
    assert (leak.kind, leak.feature, leak.severity) == ("single_feature", "balance_after", "high")


@pytest.mark.parametrize("task", TASKS)
def test_a_target_encoded_id_is_found(task: str):
    """The mean outcome of each customer, over all rows; of classes that of one of them."""
    _, columns, labels = of_task(task)
    values = (labels == 1) * 1.0 if task == "multiclass" else labels
    means = np.bincount(columns["customer"], weights=values) / np.bincount(columns["customer"])
    leaks = leaks_of(task, {**columns, "rate": means[columns["customer"]]}, labels, GroupSplit(by="customer"))
    assert ("encoded_target", "rate") in [(leak.kind, leak.feature) for leak in leaks]


@pytest.mark.parametrize("task", TASKS)
def test_a_group_on_both_sides_is_found(task: str):
    """By chance or by the hash of the row; one that is split as a whole is none."""
    _, columns, labels = of_task(task)
    columns["id"] = np.arange(len(labels)) / 2  # a number, no key
    for split in (RandomSplit(stratify=False), HashSplit(by="place_id")):
        torn = {**columns, "place_id": np.arange(len(labels))}
        found = [leak for leak in leaks_of(task, torn, labels, split) if leak.kind == "group"]
        assert [(leak.feature, leak.severity) for leak in found] == [("customer", "critical")]
        assert "GroupSplit(by='customer')" in found[0].sentence


def test_a_group_on_both_sides_is_not_accepted_with_its_feature():
    """Of the feature what it tells is accepted, not that rows share it."""
    _, columns, labels = of_task("binary")
    leaks = leaks_of("binary", {**columns, "shop": columns["customer"]}, labels, accept={"shop": "why"})
    assert [leak.accepted for leak in leaks if leak.kind == "group"] == [None, None]


@pytest.mark.parametrize("task", TASKS)
def test_duplicates_across_the_split_are_found(task: str):
    """Every fourth row comes twice, once on each side."""
    _, columns, labels = of_task(task)
    doubled = {name: np.r_[values, values[::4]] for name, values in columns.items() if name != "customer"}
    parts = {"train": np.arange(0, 1_000), "validate": np.arange(1_000, 1_500), "test": np.arange(1_500, 1_750)}
    (leak,) = leaks_of(task, doubled, np.r_[labels, labels[::4]], rows=parts)
    assert (leak.kind, leak.feature, leak.severity) == ("duplicates", None, "critical")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_differ_by_noise_alone_are_copies(task: str, seed: int):
    """By a ten-thousandth of their spread; by as much as rows differ anyway, nothing comes again."""
    rng, columns, labels = of_task(task, seed)
    columns = {"wind": columns["wind"], "rain": rng.gamma(2, 50, len(labels)), "place": columns["place"]}
    parts = {"train": np.arange(0, 1_000), "validate": np.arange(1_000, 1_500), "test": np.arange(1_500, 1_750)}
    for noise, named in ((1e-4, True), (0.3, False)):
        again = {name: values[::4] if name == "place" else values[::4] + rng.normal(0, noise * values.std(), 375)
                 for name, values in columns.items()}  # fmt: skip
        doubled = {name: np.r_[values, again[name]] for name, values in columns.items()}
        leaks = leaks_of(task, doubled, np.r_[labels, labels[::4]], rows=parts)
        assert [(leak.kind, "to a thousandth" in leak.sentence) for leak in leaks] == [("duplicates", True)] * named


def test_copies_of_one_class_alone_are_found():
    """Rare rows were repeated before the split, so that every copy has the same outcome; and rare rows among many."""
    rng = np.random.default_rng(2)
    wind, rain = rng.normal(size=(2, 1_060))
    labels = (np.arange(1_060) >= 1_000) * 1.0
    drawn = np.r_[np.arange(1_000), rng.choice(np.arange(1_000, 1_060), 1_000)]
    (leak,) = leaks_of("binary", {"wind": wind[drawn], "rain": rain[drawn]}, labels[drawn])
    assert leak.kind == "duplicates"
    twice = rng.permutation(np.r_[np.arange(1_060), np.arange(1_060)])
    (leak,) = leaks_of("binary", {"wind": wind[twice], "rain": rain[twice]}, labels[twice])
    assert leak.kind == "duplicates"


@pytest.mark.parametrize("seed", range(4))
def test_equal_rows_that_chance_makes_are_no_copies(seed: int):
    """Few columns of few values whose label follows from them, numbers that lie dense, and packaged tables."""
    rng = np.random.default_rng(seed)
    coarse = dict(zip("abcd", rng.integers(0, 6, (4, 2_000)) * 1.0, strict=True))
    sums = coarse["a"] + coarse["b"] + coarse["c"] * coarse["d"]
    dense = rng.normal(size=2_000)
    bent = {"dense": dense, "square": dense**2, "bent": np.exp(dense)}
    few = {"shift": rng.integers(0, 5, 2_000) * 1.0, "place": rng.choice(["n", "s"], 2_000)}
    cancer, diabetes = load_breast_cancer(), load_diabetes()
    for task, columns, labels in (
        ("binary", coarse, (sums > np.median(sums)) * 1.0), ("regression", coarse, sums),
        ("binary", bent, (dense > 0.4) * 1.0), ("binary", few, (few["shift"] > 1) * 1.0),
        ("binary", dict(zip(cancer.feature_names, cancer.data.T, strict=True)), cancer.target * 1.0),
        ("regression", {**dict(zip(diabetes.feature_names, diabetes.data.T, strict=True)),
                        "twice": 2 * diabetes.target + 1}, diabetes.target),
    ):  # fmt: skip
        leaks = leaks_of(task, columns, labels, RandomSplit(stratify=False, seed=seed))
        assert "duplicates" not in [leak.kind for leak in leaks]


SMOOTHED = {
    "towards the mean": lambda sums, sizes: (sums + 20 * sums.sum() / sizes.sum()) / (sizes + 20),
    "towards another number": lambda sums, sizes: (sums + 7) / (sizes + 10),
    "logistic in the size": lambda sums, sizes: (
        sums / sizes + (sums.sum() / sizes.sum() - sums / sizes) / (1 + np.exp((sizes - 20) / 10))
    ),
}


@pytest.mark.parametrize("how", SMOOTHED)
@pytest.mark.parametrize("task", TASKS)
def test_a_smoothed_target_encoding_is_found(task: str, how: str):
    """Customers of one row to hundreds, so that smoothing changes their order."""
    for seed in range(4):
        columns, labels = uneven(task, seed)
        values = (labels == 1) * 1.0 if task == "multiclass" else labels
        sums, sizes = (np.bincount(columns["customer"], weights=weights) for weights in (values, np.ones(len(labels))))
        sizes = np.maximum(sizes, 1)
        planted = SMOOTHED[how](sums, sizes)[columns["customer"]]
        assert abs(spearmanr(planted, (sums / sizes)[columns["customer"]]).statistic) < 0.99, "else it proves nothing"
        leaks = leaks_of(task, {**columns, "rate": planted}, labels, GroupSplit(by="customer"))
        assert ("encoded_target", "rate") in [(leak.kind, leak.feature) for leak in leaks]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(4))
def test_what_a_customer_is_like_is_no_encoded_target(task: str, seed: int):
    """Facts of a customer, also those that their outcomes depend on, and how many rows they have."""
    columns, labels = uneven(task, seed)
    rng, customer = np.random.default_rng(seed + 100), columns["customer"]
    sizes = np.bincount(customer).astype(float)
    facts = {"size": sizes, "log_size": np.log(np.maximum(sizes, 1)), "income": rng.gamma(2, 50, len(sizes)),
             "level": levels(seed) + rng.normal(0, 0.3, len(sizes))}  # fmt: skip
    honest = {**columns, **{name: values[customer] for name, values in facts.items()}}
    assert leaks_of(task, honest, labels, GroupSplit(by="customer")) == []


def levels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=200)


def uneven(task: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns and labels of 200 customers, the first with hundreds of rows, the last with one or two."""
    rng = np.random.default_rng(seed + 50)
    customer = np.minimum(rng.zipf(1.5, 4_000) - 1, 199)
    wind = rng.normal(size=4_000)
    level = levels(seed)[customer] + wind + rng.normal(size=4_000)
    labels = {"binary": (level > 0) * 1.0, "multiclass": np.digitize(level, [-1, 1]) * 1.0, "regression": level}[task]
    return {"customer": customer, "wind": wind}, labels


def test_an_inverted_time_is_found():
    """A random split of rows that have a moment trains on what came after the test; a split in time does not."""
    _, columns, labels = of_task("binary")
    at = 1_704_067_200_000_000 + np.arange(len(labels), dtype=np.int64) * HOUR
    found = leaks_of("binary", columns, labels, GroupSplit(by="customer"), at=at)
    assert [(leak.kind, leak.severity) for leak in found] == [("time_order", "critical")]
    assert 0.9 < found[0].figure <= 1
    split = TimeSplit("2024-01-01/2024-02-01", validate="14d", test="14d")
    assert leaks_of("binary", columns, labels, split, at=at) == []


@pytest.mark.parametrize("task", TASKS)
def test_a_key_that_no_model_reads_still_ties_rows_together(task: str):
    """The customer is a column of the table only: on both sides of a random split, and behind an encoded rate."""
    rng, columns, labels = of_task(task)
    customer = columns.pop("customer")
    names = np.array([f"c{number}" for number in customer])
    for key in (names, customer):
        (leak,) = leaks_of(task, columns, labels, others={"customer": key})
        assert (leak.kind, leak.feature, leak.severity) == ("group", "customer", "critical")
    assert leaks_of(task, columns, labels) == [], "without the column nobody can tell"
    assert leaks_of(task, columns, labels, others={"customer": rng.permutation(names)}) == []
    values = (labels == 1) * 1.0 if task == "multiclass" else labels
    means = np.bincount(customer, weights=values) / np.bincount(customer)
    encoded = leaks_of(task, {**columns, "rate": means[customer]}, labels, others={"customer": names})
    assert ("encoded_target", "rate") in [(leak.kind, leak.feature) for leak in encoded]


def test_a_frame_knows_the_columns_that_its_model_does_not_read(make_project):
    """Text and whole numbers of the label's table, without what the label is made of; they are in no hash."""
    text = """
from retrodict import *
loans = Table("loans", key="id")
bad = Model("bad", label=Label("bad", loans, "state = 'bad'"), features=[columns("amount")],
    recipe=Recipe("logistic", RandomSplit()))
"""
    project = make_project(text)
    rows = {"id": ["a", "b"], "customer": [1, 2], "branch": ["x", "y"], "share": [0.5, 0.1], "amount": [3.0, 4.0],
            "state": ["bad", "good"]}  # fmt: skip
    version = project.tables.write("loans", pa.table(rows))
    frame = build_frame(project.tables, project.definitions.get(Model, "bad"), {"loans": version})
    assert frame.others.column_names == ["customer", "branch"]
    assert frame.others.column("customer").to_pylist() == [1, 2]
    less = replace(frame, others=None)
    assert less.digest() == frame.digest()
