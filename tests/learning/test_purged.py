"""Parts of a split use only outcomes that were known before the next part began."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score
from tests.serving.project import DEFINITIONS

from retrodict.core.clock import parse_time
from retrodict.core.durations import DAY
from retrodict.core.errors import InputError
from retrodict.learning.evidence import purged_unevenly
from retrodict.learning.frame import Frame, count_left_out
from retrodict.learning.recipes import run_recipe
from retrodict.models.definitions import Recipe
from retrodict.models.splits import Split, TimeSplit

SPLIT = TimeSplit("2024-01-01/2024-07-01", validate="4 months", test="1 month")
START = parse_time("2024-01-01T00:00Z")
NOW = parse_time("2025-06-01T00:00Z")
WAIT = 60 * DAY


def shops(seed: int) -> Frame:
    """Rows of 60 shops, each good or bad for 60 days at a time by chance; an outcome is known 60 days after.

    The past tells nothing of the next 60 days: whoever ranks the test rows has seen outcomes of their own days.
    """
    rng = np.random.default_rng(seed)
    n, split = 12_000, SPLIT.resolve()
    at = np.sort(rng.integers(START, split.test_end, n))
    shop = rng.integers(0, 60, n)
    # Share of the 60 days after each decision in a span of time, and how that span goes for the shop.
    span = (at - START) / WAIT
    mood = rng.normal(size=(60, 12))
    whole, part = span.astype(int), span % 1
    odds = 3 * ((1 - part) * mood[shop, whole] + part * mood[shop, whole + 1])
    labels = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    table = pa.table({"shop": pa.array([f"s{number:02d}" for number in shop])})
    return Frame(table, ("shop",), at.astype(np.int64), labels, (at + WAIT).astype(np.int64))


def unpurged(frame: Frame, split: Split) -> dict[str, np.ndarray]:
    """Every part with all outcomes known now, as it was before."""
    edges = (split.train_start, split.train_end, split.validate_end, split.test_end)
    return {
        name: frame.rows(start, end, known_before=NOW)
        for name, start, end in zip(("train", "validate", "test"), edges[:-1], edges[1:], strict=True)
    }


def auc(frame: Frame, parts: dict[str, np.ndarray]) -> float:
    recipe = Recipe("group_rate", SPLIT, baseline_group="shop", params={"prior_count": 5.0})
    trained = run_recipe(recipe, frame, parts, ladder=False)
    return float(roc_auc_score(frame.labels[parts["test"]], trained.test_scores))


def test_outcomes_of_the_days_of_the_test_rows_train_no_model():
    """Outcomes that overlap the test's days promise an area of 0.6 and more; without them chance is left."""
    split = TimeSplit("2024-09-01/2024-10-30", validate="2d", test="1 month").resolve()
    leaky, honest = [], []
    for seed in range(6):
        frame = shops(seed)
        parts = SPLIT.assign(frame, now=NOW)
        honest.append(auc(frame, parts))
        leaky.append(auc(frame, {**unpurged(frame, split), "test": parts["test"]}))
    assert np.mean(leaky) > 0.6
    assert abs(np.mean(honest) - 0.5) < 0.05


def test_every_part_ends_with_what_was_known_when_the_next_began():
    """Row by row, an outcome known at the very moment included in neither; the test part goes by now."""
    frame, split = shops(0), SPLIT.resolve()
    parts = SPLIT.assign(frame, now=NOW)
    bounds = {"train": split.train_end, "validate": split.validate_end, "test": NOW}
    every = unpurged(frame, split)
    for name, bound in bounds.items():
        assert parts[name].tolist() == [row for row in every[name] if frame.known_at[row] < bound], name
    assert 0 < len(parts["train"]) < len(every["train"])
    early = SPLIT.assign(frame, now=split.train_end - 30 * DAY)
    assert (frame.known_at[early["train"]] < split.train_end - 30 * DAY).all(), "now may come before the part's end"


def test_an_outcome_known_at_the_moment_a_part_begins_is_left_out():
    """The right edge is strict, as everywhere."""
    split = SPLIT.resolve()
    known = np.array([split.train_end - 1, split.train_end, split.validate_end], dtype=np.int64)
    frame = Frame(pa.table({}), (), np.full(3, START), np.ones(3), known)
    assert SPLIT.assign(frame, now=NOW)["train"].tolist() == [0]


def model(tmp_path):
    from retrodict.models.definitions import Model
    from retrodict.workspace.definitions import load_definitions

    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    return load_definitions(tmp_path / "definitions.py").get(Model, "late_parcel").with_split(SPLIT)


def test_rows_that_purging_leaves_out_are_counted_by_part(tmp_path):
    """Together with those used they are all rows of the split."""
    frame, definition = shops(0), model(tmp_path)
    parts, every = SPLIT.assign(frame, now=NOW), unpurged(frame, SPLIT.resolve())
    left_out = count_left_out(frame, definition, now=NOW)
    for name in ("train", "validate"):
        assert left_out[f"purged_{name}"] == len(every[name]) - len(parts[name]) > 0
    assert left_out["void"] == left_out["pending"] == 0
    assert sum(left_out.values()) + sum(map(len, parts.values())) == len(frame.at)


def test_a_part_that_purging_empties_says_so():
    """A validation shorter than outcomes take: the rule, how many rows, and what to lengthen."""
    frame = shops(0)
    short = TimeSplit("2024-01-01/2024-07-01", validate="1 month", test="1 month")
    parts = short.assign(frame, now=NOW)
    with pytest.raises(
        InputError, match=r"to validate on.*known before the next part begins.*longer than outcomes take"
    ):
        run_recipe(Recipe("logistic", short), frame, parts)


def test_outcomes_of_one_kind_that_are_known_sooner_are_said():
    """Who churns is known the same week, who stays only after sixty days: purging keeps the churned."""
    frame = shops(1)
    assert purged_unevenly(frame, SPLIT, SPLIT.assign(frame, now=NOW), now=NOW) == ()
    uneven = replace(frame, known_at=np.where(frame.labels == 1, frame.at + 7 * DAY, frame.known_at))
    parts = SPLIT.assign(uneven, now=NOW)
    (sentence,) = purged_unevenly(uneven, SPLIT, parts, now=NOW)
    start, end, _ = SPLIT.spans(NOW)["train"]
    left_out = np.setdiff1d(np.flatnonzero((frame.at >= start) & (frame.at < end)), parts["train"])
    same_days = parts["train"][frame.at[parts["train"]] >= frame.at[left_out].min()]
    shares = [uneven.labels[rows].mean() for rows in (same_days, left_out, parts["train"])]
    assert sentence.startswith(f"The train part keeps {len(same_days):,} rows since")
    assert (
        f"of which {shares[0]:.1%} have the outcome, and leaves out {len(left_out):,}, of which {shares[1]:.1%}"
        in sentence
    )
    assert f"The part's share of {shares[2]:.1%}" in sentence
