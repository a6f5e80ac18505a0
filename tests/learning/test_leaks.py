"""Planted leaks are named, each by its feature; an honest frame is left in peace."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from retrodict.learning import leaks
from retrodict.learning.frame import Frame
from retrodict.learning.leaks import find_leaks
from retrodict.learning.recipes import run_recipe
from retrodict.models.definitions import Recipe
from retrodict.models.inputs import InputSpec
from retrodict.models.problem import Examples
from retrodict.models.splits import TimeSplit

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
    return find_leaks(frame, inputs, parts, examples)


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


@pytest.mark.parametrize("also", [(), ("weekday",)])
def test_rows_that_come_again_in_the_test_part_are_named(also):
    """One in ten test rows is a training row, whole or but for the day; rounded amounts meet by chance without harm."""
    world = World()
    copies, originals = np.arange(2_400, 2_450), np.arange(100, 150)
    for name, column in world.columns.items():
        if name not in also:
            column[copies] = column[originals]
    world.labels[copies] = world.labels[originals]
    (warning,) = world.warnings()
    assert warning.startswith("50 of 500 test rows are training rows again, by ")
    assert ("all of the 4 features" in warning) is (not also)
