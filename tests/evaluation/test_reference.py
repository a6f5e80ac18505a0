"""The reference of a model version: what drift is judged against, long after the rows are gone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from retrodict.core.durations import DAY, HOUR
from retrodict.evaluation.reference import Reference


def test_a_reference_survives_json_with_the_count_of_every_bin() -> None:
    """Text is a category, the rest numbers; counts keep the order of their bins."""
    origins = ["JFK", "EWR", "JFK", None, "JFK"]
    reference = Reference.of({"origin": pa.array(origins), "wind": pa.array([1.0, 2.0, 2.0, None, 9.0])})
    read = Reference.from_json(reference.to_json())
    assert read.features["origin"].profile.labels == ("EWR", "JFK", "unseen", "null")
    counted = Counter(origins)
    assert read.features["origin"].counts.tolist() == [counted["EWR"], counted["JFK"], 0, counted[None]]
    for name, feature in reference.features.items():
        assert read.features[name].profile == feature.profile
        assert read.features[name].counts.tolist() == feature.counts.tolist()
    assert read.features["wind"].counts.sum() == len(origins)
    assert read.to_json() == reference.to_json()


def _hourly(days: int, start: int = 0) -> np.ndarray:
    return start * DAY + np.arange(days * 24, dtype=np.int64) * HOUR


def test_blocks_of_time_hold_every_row_and_survive_json() -> None:
    """Eight months by day; the counts of the blocks are those of the rows of each day, in any order of the rows."""
    rng = np.random.default_rng(2)
    times, wind = _hourly(240), rng.normal(0, 1, 240 * 24)
    order = rng.permutation(times.size)
    reference = Reference.of({"wind": pa.array(wind[order])}, {"wind": times[order]})
    feature = Reference.from_json(reference.to_json()).features["wind"]
    assert (feature.blocks.length, len(feature.blocks.starts)) == (DAY, 240)
    assert feature.blocks.counts.sum(0).tolist() == feature.counts.tolist()
    for day in (0, 100, 239):
        by_hand = feature.profile.count(wind[day * 24 : (day + 1) * 24])
        assert feature.blocks.counts[day].tolist() == by_hand.tolist()
    pooled = feature.blocks.pooled(30 * DAY)
    assert (pooled.shape[0], pooled.sum(), pooled[0].sum()) == (8, 240 * 24, 30 * 24)
    assert feature.blocks.pooled(HOUR).shape[0] == 1  # shorter than a block: they say nothing of it
    assert "blocks" not in Reference.of({"wind": pa.array(wind)}).to_json().decode()


def test_a_season_is_what_lies_around_the_day_in_earlier_years() -> None:
    """Of two years of training rows the 45 days on either side, each year; of eight months nothing."""
    times = _hourly(730)
    at = Reference.of({"day": pa.array(times / DAY)}, {"day": times}).features["day"]
    season = at.season(900 * DAY)  # of the third year: its days 170 and, a year before, 535 (and a quarter)
    days = (season.blocks.starts + season.blocks.length // 2) / DAY
    around = np.abs(np.subtract.outer(days, [169.5, 534.75])).min(1)
    assert around.max() <= 45 + 0.01
    assert season.counts.sum() == season.blocks.counts.sum() < at.counts.sum() / 3
    assert season.blocks.duration >= 160 * DAY
    assert at.season(729 * DAY) is not None
    short = Reference.of({"day": pa.array(_hourly(240) / DAY)}, {"day": _hourly(240)}).features["day"]
    assert short.season(250 * DAY) is None


def test_outcomes_are_counted_by_block_and_survive_json() -> None:
    """Zeros and ones of each day, in any order of the rows; they are no feature."""
    rng = np.random.default_rng(3)
    times, labels = _hourly(240), (rng.random(240 * 24) < 0.3).astype(float)
    order = rng.permutation(times.size)
    written = Reference.of({"day": pa.array(times / DAY)}, labels=(labels[order], times[order])).to_json()
    read = Reference.from_json(written)
    assert (list(read.features), read.to_json()) == (["day"], written)
    ones = labels.reshape(240, 24).sum(1)
    assert read.labels.counts.tolist() == np.stack([24 - ones, ones], axis=1).tolist()
