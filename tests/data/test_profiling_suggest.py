"""Suggested checks: all hold on the rows they came from, mostly on the next ones too, and read back as meant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retrodict.core.clock import parse_time
from retrodict.data.checks import RULES, Check
from retrodict.data.definitions import Table
from retrodict.data.profiling import Profile, Suggestion, as_python, profile, suggest, suggest_table
from retrodict.data.profiling._bounds import (
    covered_share,
    mean_bounds,
    next_extreme,
    next_rate,
    round_out,
    unseen_below,
)
from retrodict.data.profiling._texts import count_shapes, pattern_of
from retrodict.data.profiling.profile import ValueCount
from retrodict.data.validation import check_source

NOW = parse_time("2024-03-01T08:00Z")
HOUR = 3_600_000_000


def rules(found: list[Suggestion]) -> set[tuple[str, tuple[str, ...]]]:
    return {(each.check.rule, each.check.columns) for each in found}


def flights(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    left = NOW - rng.integers(HOUR, 20 * HOUR, n)
    code = np.char.add("N", rng.integers(100, 999, n).astype(str))
    delay = np.where(rng.random(n) < 0.03, np.nan, rng.gamma(2.0, 12.0, n) - 15)
    return pa.table({
        "flight_id": np.arange(n) + seed * n,
        "carrier": rng.choice(["AA", "B6", "DL"], n),
        "tail": code,
        "delay": pa.array(delay, from_pandas=True),
        "left": pa.array(left, pa.timestamp("us", "UTC")),
        "landed": pa.array(left + rng.integers(1, HOUR, n), pa.timestamp("us", "UTC")),
    })  # fmt: skip


def array_of(values: st.SearchStrategy[Any], kind: pa.DataType) -> st.SearchStrategy[pa.Array]:
    return st.lists(values, min_size=40, max_size=40).map(lambda found: pa.array(found, kind))


COLUMN = st.one_of(
    array_of(st.one_of(st.none(), st.integers(-(10**6), 10**6)), pa.int64()),
    array_of(st.sampled_from([0, 1, 2, 2**62]), pa.int64()),
    array_of(st.integers(0, 2**64 - 1), pa.uint64()),
    array_of(st.one_of(st.none(), st.floats()), pa.float64()),
    array_of(st.floats(0, 1e-300), pa.float64()),
    array_of(st.sampled_from(["a'b", 'c"d', "\\", "é", None, "", "\n"]), pa.string()),
    array_of(st.from_regex(r"[A-Z]{2}[-. ][0-9]{2,4}", fullmatch=True), pa.string()),
    array_of(st.booleans(), pa.bool_()),
    array_of(st.integers(-(2**52), 2**52), pa.timestamp("us", "UTC")),
    array_of(st.integers(-10_000, 40_000), pa.int32()).map(lambda found: found.cast(pa.date32())),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(COLUMN, min_size=1, max_size=4), st.integers(1, 3))
def test_every_suggestion_holds_on_its_rows_and_reads_back(columns: list[pa.Array], times: int) -> None:
    """Whatever the table: no suggested check fails on it, and the definition that is printed is the one meant."""
    rows = pa.concat_tables([pa.table({f"c {place}'\"": column for place, column in enumerate(columns)})] * times)
    found, suggestions, types = suggest_table(rows, now=NOW)
    text = as_python("rows", suggestions, types)
    scope: dict[str, Any] = {"Check": Check, "Table": Table}
    exec(text, scope)
    table = scope["rows"]
    [*keys] = [each.check for each in suggestions if each.check.rule == "primary_key"]
    assert table.checks == tuple(each.check for each in suggestions if each.check not in keys[:1])
    assert [r for r in check_source(rows, table) if r.status == "fail"] == []
    assert found.rows == rows.num_rows


def test_suggestions_for_a_plain_table() -> None:
    """What a person would have written down, without being told."""
    found = suggest(flights(2000, 1), now=NOW)
    assert {
        ("primary_key", ("flight_id",)), ("in_set", ("carrier",)), ("matches", ("tail",)), ("between", ("delay",)),
        ("null_rate", ("delay",)), ("compare", ("left", "landed")), ("freshness", ("left",)),
        ("not_in_future", ("landed",)), ("row_count", ()), ("drift", ("delay",)),
    } <= rules(found)  # fmt: skip
    by = {(each.check.rule, each.check.columns): each for each in found}
    assert by["matches", ("tail",)].check.option("pattern") == "[A-Z][0-9]{3}"
    assert by["in_set", ("carrier",)].check.option("values") == ("AA", "B6", "DL")
    assert all(each.reason and "\n" not in each.reason and each.evidence for each in found)


def test_the_next_batch_of_the_same_source_passes() -> None:
    """Bounds leave room for sampling error: over 20 further batches at most two checks in a hundred fail."""
    first = suggest(flights(500, 0), now=NOW)
    table = Table(
        "flights", checks=[each.check for each in first if each.check.rule not in ("freshness", "not_in_future")]
    )
    failed = sum(r.status == "fail" for seed in range(1, 21) for r in check_source(flights(500, seed), table))
    assert failed <= 0.02 * 20 * len(table.checks)


def test_a_spoiled_batch_is_caught() -> None:
    """The suggested checks are not so wide that they say nothing."""
    rows = flights(500, 0)
    table = Table("flights", checks=[each.check for each in suggest(rows, now=NOW)])
    spoiled = {
        "delay": pa.array([-999.0] * 500), "carrier": pa.array(["??"] * 500), "tail": pa.array(["n/a"] * 500),
        "flight_id": pa.array([1] * 500), "landed": rows.column("left").combine_chunks().cast(pa.int64()),
    }  # fmt: skip
    spoiled["landed"] = pa.array(np.asarray(spoiled["landed"]) - HOUR, pa.timestamp("us", "UTC"))
    for name, values in spoiled.items():
        bad = rows.set_column(rows.column_names.index(name), name, values)
        assert any(r.status == "fail" and name in r.columns for r in check_source(bad, table)), name


def test_values_near_the_ends_of_a_double_break_nothing() -> None:
    """Where a bound would be infinite, none is suggested."""
    rows = pa.table({"x": [1.7e308, -1.7e308, 1e-320, 5.0] * 20, "y": [1.7e308, 1.6e308] * 40})
    found = suggest(rows)
    assert ("finite", ("x", "y")) in rules(found)
    assert all(r.status != "fail" for r in check_source(rows, Table("t", checks=[each.check for each in found])))


def test_few_rows_say_nothing() -> None:
    """Below thirty rows nothing is suggested."""
    assert suggest(pa.table({"a": [1, 2, 3]})) == []


def test_a_profile_suggests_only_what_was_counted_over_all_rows() -> None:
    """Without rows nothing can be judged, so nothing that came from a sample is suggested; the rest is the same."""
    rows = flights(2000, 1)
    found = profile(rows)
    again = Profile.from_dict(found.to_dict())
    assert suggest(again, now=NOW) == suggest(rows, now=NOW)
    rng = np.random.default_rng(0)
    many = np.char.add("K", rng.integers(10**5, 10**6, 60_000).astype(str))
    sampled = profile(pa.table({"k": many}), sample=1000)
    assert not any(each.check.rule == "matches" for each in suggest(sampled))


def test_what_a_sample_promised_is_judged_on_all_rows() -> None:
    """A shape that all sampled texts have is dropped because one row outside the sample has another."""
    n = 60_000
    outside = np.setdiff1d(np.arange(n), np.random.default_rng(0).choice(n, 50_000, replace=False))[0]
    codes = [f"K{i:06d}" for i in range(n)]
    good = pa.table({"k": codes, "x": [1] * n})
    assert ("matches", ("k",)) in rules(suggest(good))
    codes[outside] = "odd one"
    assert ("matches", ("k",)) not in rules(suggest(pa.table({"k": codes, "x": [1] * n})))


def test_hidden_values_are_not_in_a_suggestion() -> None:
    """A column of names gets no set of them."""
    rows = pa.table({"last_name": ["Secretperson", "Otherperson"] * 50})
    assert "Secretperson" not in as_python("people", suggest(rows))


def test_what_is_rare_makes_no_set() -> None:
    """Where values keep turning up that were seen once, the next one is likely to be new: no set is suggested."""
    words = [f"w{i % 5}" for i in range(300)] + [f"new{i}" for i in range(5)]
    assert ("in_set", ("w",)) not in rules(suggest(pa.table({"w": words})))


def test_types_and_keys_are_written(tmp_path: Any) -> None:
    """A CSV file becomes a definition under which the file passes."""
    path = tmp_path / "sales.csv"
    path.write_text("id,amount,at\n" + "\n".join(f"{i},{i * 1.5},2024-01-{1 + i % 28:02d}T10:00Z" for i in range(60)))
    found, suggestions, types = suggest_table(path, now=NOW)
    text = as_python(found.name, suggestions, types)
    assert text.startswith(
        'sales = Table(\n    "sales",\n    key="id",\n    columns={"id": "int", "amount": "float", "at": "time"}'
    )
    scope: dict[str, Any] = {"Check": Check, "Table": Table}
    exec(text, scope)
    assert {r.status for r in check_source(path, scope["sales"])} <= {"pass", "not_evaluable"}


EVERY = [
    Check.columns_exist("a", "b"), Check.columns_match("a"), Check.has_type("a", "int"), Check.not_null("a", "b"),
    Check.is_null("a", where="b = 1"), Check.finite("a"), Check.unique("a", "b", severity="low"),
    Check.primary_key("a"), Check.between("a", None, 1.5), Check.between("a", -1, None, by="b"),
    Check.in_set("a", ["x'", 'y"', "\\", "é"]), Check.not_in_set("a", [1, 2.5]), Check.matches("a", r"[0-9]+\.x"),
    Check.length("a", 1, None), Check.time_between("a", None, "2024-01-01"), Check.not_in_future("a", "5m"),
    Check.monotone("a", "decreasing", strict=True, per=["b"]), Check.monotone("a"), Check.row_count(1, None),
    Check.null_rate("a", None, 0.1), Check.distinct_count("a", 1), Check.distinct_share("a", 0.5, 1),
    Check.mean("a", 0, 1, tolerance=0.1), Check.median("a", 0), Check.std("a", None, 1), Check.min("a", 0),
    Check.max("a", 0), Check.sum("a", 0), Check.quantile("a", 0.99, None, 3.0), Check.entropy("a", 0),
    Check.correlation("a", "b", -0.5, 0.5), Check.freshness("a", "2d"), Check.stable("mean", "a", within=0.2),
    Check.stable("row_count", against="history", deviations=3), Check.stable("correlation", "a", "b"),
    Check.sql("a > b or a is null"), Check.compare("a", "<=", "b"), Check.required_if("a", "b = 'x'"),
    Check.sum_equals(["a", "b"], "c", within=0.01), Check.sum_equals("a", "c"), Check.share("a > 1", 0.1, 0.2),
    Check.references(["a", "b"], "other", ["x", "y"]), Check.references("a", "other"), Check.near_duplicates("a", "b"),
    Check.determines(["a", "b"], "c"), Check.drift("a", at_most=0.1, metric="hellinger", against="train@3"),
    Check.label_drift("a > 1"), Check.label_rate("a > 1", 0.1, None), Check.leakage("a", "b > 1", max_auc=0.9),
    Check.known_before("a", "b - 1h"), Check.disjoint(["a"], "train"), Check.correlation_flip("a", "b > 1"),
]  # fmt: skip


def test_every_rule_is_written_so_that_it_reads_back() -> None:
    """No rule is left out, and each means the same after it was printed and pasted."""
    assert {check.rule for check in EVERY} == set(RULES)
    scope: dict[str, Any] = {"Check": Check, "Table": Table}
    exec(as_python("t", EVERY, {"a": "int", "odd 'name'": "string"}, key=["a", "b"]), scope)
    assert scope["t"] == Table("t", key=["a", "b"], columns={"a": "int", "odd 'name'": "string"}, checks=EVERY)


def test_long_checks_are_folded() -> None:
    """A set of thirty values does not make a line of three hundred characters."""
    text = as_python("t", [Check.in_set("a", [f"a rather long value {i}" for i in range(30)])])
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("n", [2, 30, 1000, 10**6])
def test_shares_without_a_distribution_are_those_of_the_beta(n: int) -> None:
    """Wilks' coverage of the range and the rule of three are quantiles of beta distributions."""
    assert covered_share(n) == pytest.approx(stats.beta.ppf(0.05, n - 1, 2), rel=1e-6, abs=1e-9)
    assert unseen_below(n) == pytest.approx(stats.beta.ppf(0.95, 1, n), rel=1e-9)


def test_bounds_hold_for_the_next_batch_as_often_as_they_say() -> None:
    """Rates, means and extremes of pairs of batches that come from one source."""
    rng = np.random.default_rng(11)
    first, second = rng.binomial(400, 0.05, (2, 4000))
    assert np.mean([b / 400 > next_rate(a, 400) for a, b in zip(first, second, strict=True)]) < 0.04
    tails = rng.exponential(3.0, (2, 3000, 300)).max(axis=2)
    beyond = np.mean(tails[1] > [next_extreme(value, 3.0) for value in tails[0]])
    assert 0.004 < beyond < 0.018
    low, high = mean_bounds(10.0, 2.0, 4)
    assert high - 10 == pytest.approx(stats.norm.ppf(0.9995) * 2 * math.sqrt(0.5))
    assert mean_bounds(10.0, 2.0, 10**9) == (9.5, 10.5)
    assert low < 10


@given(st.floats(-1e300, 1e300), st.booleans(), st.one_of(st.none(), st.floats(1e-300, 1e300)))
def test_rounding_never_tightens(value: float, up: bool, step: float | None) -> None:
    """A bound is rounded outward or left alone."""
    rounded = round_out(value, up=up, step=step)
    assert rounded >= value if up else rounded <= value


@settings(max_examples=50)
@given(st.lists(st.from_regex(r"[A-Z]{1,3}[-:. ]?[0-9]{1,5}", fullmatch=True), min_size=1, max_size=30))
def test_a_pattern_matches_all_it_came_from(texts: list[str]) -> None:
    """The pattern of shapes is a regular expression that every text matches."""
    import re

    import polars as pl

    shapes = count_shapes(pl.Series(texts))
    pattern = pattern_of([ValueCount(text, count, count / len(texts)) for text, count in shapes])
    if pattern is not None:
        assert all(re.fullmatch(pattern, text) for text in texts)
        assert Check.matches("a", pattern).condition is not None
    assert pattern is not None or len({re.sub(r"[A-Z]+", "A", re.sub(r"\d+", "9", text)) for text in texts}) > 3
