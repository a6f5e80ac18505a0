"""The count of distinct values: exact for few, within its error for many, and blind to order."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import InputError
from retrodict.core.statistics.distinct import LIMIT, DistinctSketch, hash_values

_VALUES = st.one_of(st.none(), st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans())


@given(values=st.lists(_VALUES, max_size=60))
def test_few_values_are_counted_exactly(values: list[object]) -> None:
    """As a Python set counts them: 1, 1.0 and True are one value, nulls none."""
    expected = {value for value in values if value is not None and value == value}
    assert DistinctSketch.of(values).count == len(expected)


def test_the_error_over_many_seeds_is_the_one_stated() -> None:
    """Sixty independent columns per size: unbiased, with a standard deviation of 1.04 / sqrt(m)."""
    for n in (20_000, 50_000, 160_000):
        errors = []
        for seed in range(60):
            values = np.random.default_rng(seed).integers(-(2**62), 2**62, size=n)
            sketch = DistinctSketch.of(values)
            errors.append(sketch.count / np.unique(values).size - 1)
        stated = 1.04 / 128
        assert abs(np.mean(errors)) < 4 * stated / np.sqrt(60)
        assert np.std(errors) < 1.35 * stated  # 3.6 standard deviations of a deviation of 60


@pytest.mark.parametrize("kind", ["whole", "float", "text", "dates"])
def test_counts_of_each_kind_are_close(kind: str) -> None:
    """Numbers in a row, text that differs in one digit, and days: within four standard errors."""
    n = 50_000
    values = {
        "whole": np.arange(n),
        "float": np.arange(n) / 1024,
        "text": pa.array([f"passenger-number-{i:08d}" for i in range(n)]),
        "dates": np.datetime64("1900-01-01") + np.arange(n),
    }[kind]
    sketch = DistinctSketch.of(values)
    assert not sketch.exact
    assert abs(sketch.count / n - 1) < 4 * 1.04 / 128


@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 3 * LIMIT), seed=st.integers(0, 10**6), parts=st.integers(1, 7))
def test_order_partition_and_repetition_leave_no_trace(size: int, seed: int, parts: int) -> None:
    """The same bits from one block and from shuffled, overlapping blocks, on both sides of the limit."""
    rng = np.random.default_rng(seed)
    values = np.arange(size) * 7
    whole = DistinctSketch.of(values)
    blocks = [DistinctSketch.of(part) for part in np.array_split(rng.permutation(values), parts)]
    merged = DistinctSketch()
    for block in [*blocks, blocks[0]]:
        merged = block.merge(merged)
    assert merged == whole
    assert hash(merged) == hash(whole)
    assert whole.exact == (size <= LIMIT)
    assert json.dumps(merged.to_dict()) == json.dumps(whole.to_dict())


def test_small_registers_are_estimated_well_just_above_the_limit() -> None:
    """Where the estimator of 2007 needs a correction of its bias."""
    n = 2 * LIMIT
    errors = [DistinctSketch.of(np.arange(n) + seed * 10**6).count / n - 1 for seed in range(20)]
    assert abs(np.mean(errors)) < 0.008


def test_text_is_hashed_alike_wherever_it_comes_from() -> None:
    """Arrow with nulls, slices, chunks, dictionaries and wide offsets; pandas; NumPy; lists."""
    words = ["", "a", "a\0", "é", "12345678", "123456789", "\0" * 8, "\0" * 16, "x" * 100, None, "a"]
    expected = DistinctSketch.of(words)
    assert expected.count == 9
    arrow = pa.array(words)
    for same in (
        arrow, pa.array(words, pa.large_string()), pa.array(words, pa.string_view()), arrow.dictionary_encode(),
        pa.chunked_array([words[:3], words[3:]]), pa.array(["zz", *words])[1:], pd.Series(words),
        np.array(words, dtype=object),
    ):  # fmt: skip
        assert DistinctSketch.of(same) == expected
    assert DistinctSketch.of(np.array(["a", "bc"])) == DistinctSketch.of(["bc", "a"])
    assert DistinctSketch.of([b"a", "a"]).count == 2


def test_numbers_are_equal_whatever_their_type() -> None:
    """Integers of all widths, floats, Arrow and negative zero; beyond 2**53 as well."""
    same = [[0, 3, 2**60], [-0.0, 3.0, 2.0**60], np.array([0, 3, 2**60], dtype=np.uint64), pa.array([0, 3, 2**60])]
    assert len({json.dumps(DistinctSketch.of(values).to_dict()) for values in same}) == 1
    assert DistinctSketch.of([2**60, 2**60 + 1, 2**63 + 1, -(2**60), -(2.0**60)]).count == 4
    assert DistinctSketch.of(np.array([1, 2], dtype=np.int8)) == DistinctSketch.of(np.array([1, 2], dtype=np.float32))


def test_times_are_equal_whatever_their_type() -> None:
    """NumPy, Arrow and Python; aware times by their instant."""
    day = dt.datetime(2020, 5, 17, 12, tzinfo=dt.UTC)
    numpy = np.array(["2020-05-17T12", "NaT"], dtype="datetime64[ns]")
    for same in (pa.array([day]), [day.astimezone(dt.timezone(dt.timedelta(hours=2)))], [pd.Timestamp(day), pd.NaT]):
        assert DistinctSketch.of(same) == DistinctSketch.of(numpy)


def test_hashes_are_the_same_in_every_process() -> None:
    """Known values, in a process with another seed of Python's own hash."""
    code = (
        "from retrodict.core.statistics.distinct import hash_values;"
        "print([int(h) for h in hash_values(['JFK', 'a longer text', 'é', 1, 2.5, 2**60])])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "77")
    }
    here = [int(h) for h in hash_values(["JFK", "a longer text", "é", 1, 2.5, 2**60])]
    assert [json.loads(text) for text in found] == [here]
    assert int(hash_values([1.0])[0]) == _finalizer(0x3FF0000000000000)
    for text in ("", "JFK", "12345678", "a longer text of four words"):
        assert int(hash_values([text])[0]) == _text_hash(text.encode())


def _finalizer(bits: int) -> int:
    """MurmurHash3, by plain integers."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        bits = (bits ^ (bits >> 33)) * factor % 2**64
    return bits ^ (bits >> 33)


def _text_hash(raw: bytes) -> int:
    state = _finalizer(len(raw) ^ 0xD6E8FEB86659FD93)
    for start in range(0, len(raw), 8):
        state = _finalizer(state * 0x9FB21C651E98DF25 % 2**64 ^ int.from_bytes(raw[start : start + 8], "little"))
    return state


def test_json_keeps_both_forms() -> None:
    """Hashes while exact, registers afterwards; merging goes on."""
    for n in (10, 3 * LIMIT):
        sketch = DistinctSketch.of(range(n))
        assert set(json.loads(json.dumps(sketch.to_dict()))) == {
            "kind",
            "precision",
            "hashes" if sketch.exact else "registers",
        }
        assert sketch.merge(DistinctSketch.of([-1])).count >= sketch.count


def test_what_has_no_stable_hash_is_refused() -> None:
    """Lists and dicts have none."""
    with pytest.raises(InputError, match="Turn the column into text first"):
        DistinctSketch.of([{"a": 1}])
