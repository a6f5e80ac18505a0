"""What imports are made of: patterns that are searched for, shares that may fail, bounds."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict import Check
from retrodict.core.expressions.patterns import translate
from retrodict.data.interchange._patterns import literal_pattern, whole_pattern
from retrodict.data.interchange._types import word_of, zoned
from retrodict.data.interchange._values import complement, count_bounds, measure_bounds, plain, value_checks
from retrodict.data.interchange.imported import Refused

TEXTS = st.text("ab|]^$\\\n", max_size=6)
ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "[|]", r"\|", r"\\", r"\$", r"\^", r"[\]|]", "(?:a|b)"])
PIECES = st.tuples(ATOMS, st.sampled_from(["", "*", "+", "?", "{2}"])).map("".join)
SEQUENCES = st.lists(PIECES, max_size=3).map("".join)
GROUPS = st.one_of(SEQUENCES, st.tuples(SEQUENCES, SEQUENCES).map(lambda pair: f"({pair[0]}|{pair[1]})"))
BRANCHES = st.tuples(st.sampled_from(["", "^"]), GROUPS, st.sampled_from(["", "$"])).map("".join)
PATTERNS = st.lists(BRANCHES, min_size=1, max_size=3).map("|".join)


@settings(deadline=None)
@given(PATTERNS, TEXTS)
def test_a_search_and_the_pattern_of_the_whole_text_agree(pattern: str, text: str) -> None:
    """Judged by ``re``, whose $ also stands before a last line feed; ours is \\Z."""
    strict = re.sub(r"(?<!\\)((?:\\\\)*)\$(?=\||$)", r"\1\\Z", pattern)
    for starts, find in (("anywhere", re.search), ("first", re.match)):
        ours = translate(whole_pattern(pattern, starts=starts))
        assert (re.fullmatch(ours, text) is not None) == (find(strict, text) is not None)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_literal_at_one_end(literal: str, text: str) -> None:
    """Signs of patterns stand for themselves."""
    assert (re.fullmatch(translate(literal_pattern(literal, at="start")), text) is not None) == text.startswith(literal)
    assert (re.fullmatch(translate(literal_pattern(literal, at="end")), text) is not None) == text.endswith(literal)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 50), st.integers(-1, 1))
def test_a_share_that_must_hold_and_the_one_that_may_fail_agree(thousandths: int, times: int, beside: int) -> None:
    """``mostly`` is compared with the share that holds, a tolerance with the share that fails; the tie decides."""
    mostly, count = thousandths / 1000, 1000 * times
    failed = min(max((1000 - thousandths) * times + beside, 0), count)
    assert ((count - failed) / count >= mostly) == (failed / count <= complement(mostly))


@settings(deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_strict_bound_on_a_number_is_the_next_one(bound: float, number: float) -> None:
    low, high = measure_bounds(bound, bound, strict_low=True, strict_high=True)
    assert (number >= low) == (number > bound)
    assert (number <= high) == (number < bound)


@settings(deadline=None)
@given(st.floats(-50, 50), st.integers(-60, 60), st.booleans())
def test_bounds_on_a_count_are_whole(bound: float, count: int, strict: bool) -> None:
    low, high = count_bounds(bound, bound, strict_low=strict, strict_high=strict)
    assert (count >= low) == (count > bound if strict else count >= bound)
    assert (count <= high) == (count < bound if strict else count <= bound)


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (4.0, 4),
        (1e300, 1e300),
        (math.nan, None),
        (Decimal("1.5"), 1.5),
        (True, True),
        (date(2020, 1, 2), "2020-01-02T00:00:00Z"),
        (datetime(2020, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2020-01-02T01:00:00Z"),
        (datetime(2020, 1, 2, 3, tzinfo=UTC), "2020-01-02T03:00:00Z"),
    ],
)
def test_values_of_other_libraries_are_made_plain(value: object, ours: object) -> None:
    found = plain(value)
    assert found == ours
    assert isinstance(found, type(ours))


def test_what_is_no_value_is_refused() -> None:
    with pytest.raises(Refused, match="a value of type list cannot stand in a definition"):
        plain([1])


@pytest.mark.parametrize(
    ("bounds", "strict", "check"),
    [
        ((1, 9), (False, False), Check.between("x", 1, 9)),
        ((None, 9.0), (True, False), Check.between("x", None, 9)),
        ((1, 9), (True, False), Check.sql("x > 1 and x <= 9")),
        (("a", None), (False, False), Check.sql("x >= 'a'")),
        ((date(2020, 1, 1), None), (False, False), Check.time_between("x", "2020-01-01", None)),
        ((None, date(2020, 1, 1)), (False, True), Check.sql("x < timestamp '2020-01-01T00:00:00Z'")),
    ],
)
def test_bounds_become_the_plainest_check(bounds: tuple, strict: tuple, check: Check) -> None:
    assert value_checks("x", *bounds, {}, strict_low=strict[0], strict_high=strict[1]) == [check]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("int64", "int"), ("UInt8", "int"), ("BIGINT", "int"), ("Float32", "float"), ("double", "float"),
        ("str", "string"), ("string[pyarrow]", "string"), ("String", "string"), ("VARCHAR(20)", "string"),
        ("bool", "bool"), ("Boolean", "bool"), ("Date", "date"), ("date32[day]", "date"),
        ("datetime64[ns, UTC]", "time"), ("Datetime(time_unit='us', time_zone='UTC')", "time"),
        ("TimestampType", "time"), ("object", None), ("category", None), ("Duration(time_unit='us')", None),
    ],
)  # fmt: skip
def test_names_of_types(name: str, word: str | None) -> None:
    assert word_of(name) == word


def test_a_zone_is_seen_in_the_name_of_a_type() -> None:
    assert zoned("datetime64[ns, UTC]")
    assert zoned("Datetime(time_unit='us', time_zone='Europe/Berlin')")
    assert not zoned("datetime64[ns]")
    assert not zoned("Datetime(time_unit='us', time_zone=None)")
